//! Our programs against kernels, in a virtual machine that runs Debian's stock kernel: what the kernel
//! of this machine has or lacks (RDMA above all) does not matter, and nothing is loaded into it.
//! The scenarios are in `xtask/lab/`; its README.md tells how the guest is made.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::table::Table;
use crate::tools::{cargo, run};
use crate::workspace::root;
use guest::{Guest, Job};

mod guest;
mod prepare;

/// Options of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run scenarios whose "peer transport scenario" contains this.
    #[arg(value_name = "TEXT")]
    filter: Option<String>,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Show all that the guest prints.
    #[arg(long, short)]
    verbose: bool,
    /// Boot a guest with a shell instead.
    #[arg(long)]
    shell: bool,
    /// Boot a guest and run a command in it instead; its exit status is ours.
    #[arg(long, num_args = 1.., value_name = "COMMAND", allow_hyphen_values = true)]
    run: Vec<String>,
    /// Keep the guest's kernel log and say where it is.
    #[arg(long)]
    keep: bool,
}

/// One boot of the guest: a peer over a transport, and the scenarios it goes through.
struct Trip {
    peer: &'static str,
    transport: &'static str,
    /// Script in `xtask/lab/`; its arguments are the transport and the scenarios.
    script: &'static str,
    scenarios: &'static [&'static str],
}

const SERVE: &[&str] = &[
    "login-plain",
    "login-chap",
    "login-mutual-chap",
    "wrong-secret",
    "digests",
    "bursts",
    "filesystem",
    "fio-verify",
    "aborts",
    "cable-pulled",
    "packets-lost",
    "connection-reset",
    "target-restarted",
];

const ATTACH: &[&str] = &[
    "discover",
    "ls",
    "inquiry",
    "capacity",
    "read-write",
    "copy",
    "login-chap",
    "login-mutual-chap",
    "digests",
    "bench",
    "cable-pulled",
    "packets-lost",
    "connection-reset",
    "target-restarted",
    "target-unproven",
];

/// As over TCP, but for digests: RFC 7145 has none.
const SERVE_ISER: &[&str] = &[
    "login-plain",
    "login-chap",
    "login-mutual-chap",
    "wrong-secret",
    "bursts",
    "filesystem",
    "fio-verify",
    "aborts",
    "cable-pulled",
    "packets-lost",
    "connection-reset",
    "target-restarted",
];

/// LIO over siw hangs when its portal group is disabled under load: no `target-restarted`.
const ATTACH_SIW: &[&str] = &[
    "discover",
    "ls",
    "inquiry",
    "capacity",
    "read-write",
    "copy",
    "login-chap",
    "login-mutual-chap",
    "bench",
    "cable-pulled",
    "packets-lost",
    "connection-reset",
    "target-unproven",
];

/// Kernel against kernel: what fails here is no fault of ours.
const CONTROL: &[&str] = &["login-plain", "fio-verify"];

const TRIPS: &[Trip] = &[
    Trip { peer: "open-iscsi -> LIO", transport: "tcp", script: "control.sh", scenarios: CONTROL },
    Trip { peer: "open-iscsi -> LIO", transport: "rxe", script: "control.sh", scenarios: CONTROL },
    Trip { peer: "open-iscsi -> LIO", transport: "siw", script: "control.sh", scenarios: CONTROL },
    Trip {
        peer: "librdmacm, our iwarp",
        transport: "siw",
        script: "iwarp.sh",
        scenarios: &["our-client", "one-message", "our-server"],
    },
    Trip { peer: "open-iscsi -> our target", transport: "tcp", script: "serve.sh", scenarios: SERVE },
    Trip { peer: "our initiator -> LIO", transport: "tcp", script: "attach.sh", scenarios: ATTACH },
    Trip { peer: "open-iscsi -> our target", transport: "siw", script: "serve.sh", scenarios: SERVE_ISER },
    Trip { peer: "our initiator -> LIO", transport: "siw", script: "attach.sh", scenarios: ATTACH_SIW },
];

/// A trip must end within this time.
const LIMIT: Duration = Duration::from_secs(540);

#[derive(Serialize)]
struct Line {
    peer: &'static str,
    transport: &'static str,
    scenario: &'static str,
    result: String,
    seconds: u64,
    note: String,
}

/// Boots the guests and prints the table.
pub(crate) fn lab(args: &Args) -> Result<()> {
    if args.list {
        for (trip, scenario) in wanted(args).iter().flat_map(|(t, s)| s.iter().map(move |s| (t, s))) {
            println!("{}", title(trip, scenario));
        }
        return Ok(());
    }
    let prepared = prepare::prepare()?;
    let mut guest = Guest::new(&prepared);
    guest.keep = args.keep;
    if args.shell {
        return guest.shell();
    }
    if !args.run.is_empty() {
        let job = Job { command: args.run.clone(), limit: LIMIT };
        let status = guest.run(&job, &mut |line| println!("{line}"))?;
        ensure!(status == 0, "exit status {status}");
        return Ok(());
    }
    let wanted = wanted(args);
    ensure!(!wanted.is_empty(), "no scenario matches; see --list");
    // The guest is an emulator: programs without optimisation would take their time in it.
    for what in [
        &["--bins", "-p", "iscsi-target", "-p", "iscsi-initiator"][..],
        &["--example", "rping", "-p", "iwarp"],
    ] {
        run(cargo().args(["build", "--quiet", "--release"]).args(what).stdout(std::io::stderr()))?;
    }
    if wanted.iter().any(|(trip, _)| trip.transport == "siw") {
        prepare::siw(&prepared)?;
    }
    let start = Instant::now();
    let mut lines = Vec::new();
    for (trip, scenarios) in &wanted {
        lines.extend(travel(&guest, trip, scenarios, args.verbose)?);
    }
    report(args, &lines, start.elapsed())
}

fn title(trip: &Trip, scenario: &str) -> String {
    format!("{} {} {scenario}", trip.peer, trip.transport)
}

fn wanted(args: &Args) -> Vec<(&'static Trip, Vec<&'static str>)> {
    let named =
        |trip: &Trip, s: &str| args.filter.as_ref().is_none_or(|text| title(trip, s).contains(text.as_str()));
    TRIPS
        .iter()
        .map(|trip| (trip, trip.scenarios.iter().copied().filter(|s| named(trip, s)).collect::<Vec<_>>()))
        .filter(|(_, scenarios)| !scenarios.is_empty())
        .collect()
}

/// One boot. What the guest does not report has failed.
fn travel(
    guest: &Guest<'_>,
    trip: &'static Trip,
    scenarios: &[&'static str],
    verbose: bool,
) -> Result<Vec<Line>> {
    let root = root();
    let programs = root.join("target/release");
    let script = root.join("xtask/lab").join(trip.script);
    let mut command = vec!["env".to_owned(), format!("PROGRAMS={}", programs.display())];
    command.extend([script.display().to_string(), trip.transport.to_owned()]);
    command.extend(scenarios.iter().map(|s| (*s).to_owned()));

    let mut lines: Vec<Line> = Vec::new();
    let mut context: Vec<String> = Vec::new();
    let outcome = guest.run(&Job { command, limit: LIMIT }, &mut |text| {
        if verbose {
            eprintln!("{text}");
        }
        match reported(text) {
            Some((result, seconds, name, note)) => {
                let Some(&scenario) = scenarios.iter().find(|s| **s == name) else { return };
                if result != "ok" && !verbose {
                    context.iter().for_each(|line| eprintln!("    {line}"));
                }
                eprintln!("{result:<8}{seconds:4} s  {}", title(trip, scenario));
                let (result, note) = (result.to_owned(), note.to_owned());
                lines.push(Line {
                    peer: trip.peer,
                    transport: trip.transport,
                    scenario,
                    result,
                    seconds,
                    note,
                });
                context.clear();
            }
            None => context.push(text.to_owned()),
        }
    });
    let why = match outcome {
        Ok(status) => format!("the script ended early with status {status}"),
        Err(error) => format!("{error:#}"),
    };
    for &scenario in scenarios {
        if !lines.iter().any(|line| line.scenario == scenario) {
            context.iter().for_each(|line| eprintln!("    {line}"));
            context.clear();
            eprintln!("FAILED         {}: {why}", title(trip, scenario));
            let note = why.lines().next().unwrap_or("").to_owned();
            let result = "FAILED".to_owned();
            lines.push(Line {
                peer: trip.peer,
                transport: trip.transport,
                scenario,
                result,
                seconds: 0,
                note,
            });
        }
    }
    Ok(lines)
}

/// `@ RESULT SECONDS NAME NOTE`, as `scenario` in lib.sh prints it.
fn reported(line: &str) -> Option<(&str, u64, &str, &str)> {
    let mut words = line.strip_prefix("@ ")?.splitn(4, ' ');
    let (result, seconds, name) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    Some((result, seconds, name, words.next().unwrap_or("")))
}

fn report(args: &Args, lines: &[Line], elapsed: Duration) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(lines)?);
    } else {
        let mut table = Table::new(&["peer", "transport", "scenario", "result", "seconds", "seen"]);
        for line in lines {
            let Line { peer, transport, scenario, result, seconds, note } = line;
            let cells = [peer, transport, scenario, result.as_str(), &seconds.to_string(), note.as_str()];
            table.row(cells.map(str::to_owned));
        }
        print!("\n{table}");
    }
    let failed = lines.iter().filter(|line| line.result != "ok").count();
    eprintln!("\n{} scenarios, {failed} failed, {} s", lines.len(), elapsed.as_secs());
    if failed > 0 {
        bail!("{failed} scenarios failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(reported("@ ok 12 fio-verify READ 3MiB/s"), Some(("ok", 12, "fio-verify", "READ 3MiB/s")));
        assert_eq!(reported("@ FAILED 3 login"), Some(("FAILED", 3, "login", "")));
        assert_eq!(reported("@ ok x login"), None);
        assert_eq!(reported("ok 12 login"), None);
    }

    /// Each scenario in the table has a function of its name in its script.
    #[test]
    fn scenarios_exist() {
        for trip in TRIPS {
            let script = std::fs::read_to_string(root().join("xtask/lab").join(trip.script)).unwrap();
            for scenario in trip.scenarios {
                let function = if *scenario == "ls" { "ls_luns".into() } else { scenario.replace('-', "_") };
                assert!(script.contains(&format!("\n{function}() {{")), "{} {scenario}", trip.script);
            }
        }
    }
}
