//! Our programs against kernels, in a virtual machine that runs Debian's stock kernel: what the kernel
//! of this machine has or lacks (RDMA above all) does not matter, and nothing is loaded into it.
//! The scenarios are in `xtask/lab/`; its README.md tells how the guest is made.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::ibverbs;
use crate::table::Table;
use crate::tools::{cargo, output, run};
use crate::workspace::root;
use guest::{Guest, Job};

use trips::{LIMITS, QUICK, TRIPS, Trip};

mod guest;
mod prepare;
mod trips;

/// Options of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run scenarios whose "peer transport scenario" contains one of these.
    #[arg(value_name = "TEXT")]
    filter: Vec<String>,
    /// Some minutes' worth: each way that iSER goes, with CHAP, data compared and one fault. Skipped, and said so, where
    /// no guest can be had.
    #[arg(long)]
    quick: bool,
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
    /// Guests at a time.
    #[arg(long, default_value_t = 2, value_name = "N")]
    guests: usize,
    /// Take our programs from here instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Do not repeat what failed.
    #[arg(long)]
    once: bool,
}

/// A trip must end within this time.
const LIMIT: Duration = Duration::from_secs(900);

/// How much `--quick` copies while something breaks, in MiB: some seconds' worth in an emulator.
const QUICK_COPY: u32 = 24;

/// What became of one scenario: a line of the table.
#[derive(Serialize)]
struct Line {
    peer: &'static str,
    transport: &'static str,
    scenario: &'static str,
    /// `ok` or `FAILED`; `limit` for what a peer cannot do, `SKIPPED` for what cannot be tried here: neither is run.
    result: String,
    /// 2 when it was repeated because it had failed; the note then tells of that, too.
    tries: u32,
    seconds: u64,
    /// What was seen, or why it failed.
    note: String,
}

/// A trip with those of its scenarios that are wanted.
type Wanted = (&'static Trip, Vec<&'static str>);

/// Boots the guests and prints the table.
pub(crate) fn lab(args: &Args) -> Result<()> {
    if args.list {
        for (trip, scenario) in wanted(args).iter().flat_map(|(t, s)| s.iter().map(move |s| (t, s))) {
            println!("{}", title(trip, scenario));
        }
        return Ok(());
    }
    let prepared = match prepare::prepare() {
        Err(error) if args.quick => {
            println!("SKIPPED: the lab, all of it: {error:#}");
            return Ok(());
        }
        other => other?,
    };
    let mut guest = Guest::new(&prepared);
    guest.keep = args.keep;
    if args.shell {
        return guest.shell();
    }
    if !args.run.is_empty() {
        let job = Job { command: args.run.clone(), limit: LIMIT, counted: false };
        let status = guest.run(&job, &mut |line| println!("{line}"))?;
        ensure!(status == 0, "exit status {status}");
        return Ok(());
    }
    let mut wanted = wanted(args);
    ensure!(!wanted.is_empty(), "no scenario matches; see --list");
    let mut skipped = Vec::new();
    if args.programs.is_none() {
        build(&wanted)?;
    }
    if let Some(why) = ibverbs::lacking() {
        skip(&mut wanted, &mut skipped, &why, |_, scenario| scenario == "ibverbs");
    }
    if wanted.iter().any(|(trip, _)| trip.transport == "siw") {
        match prepare::siw(&prepared) {
            Err(error) if args.quick => {
                skip(&mut wanted, &mut skipped, &format!("{error:#}"), |trip, _| trip.transport == "siw");
            }
            other => other?,
        }
    }
    let start = Instant::now();
    let mut lines = travel_all(&guest, args, wanted)?;
    if !args.once {
        repeat(&guest, args, &mut lines)?;
    }
    lines.extend(skipped);
    if args.filter.is_empty() && !args.quick {
        lines.extend(
            LIMITS.iter().map(|l| Line::not_run((l.peer, l.transport, l.scenario), "limit", l.evidence)),
        );
    }
    report(args, &lines, start.elapsed())
}

impl Line {
    fn not_run(
        (peer, transport, scenario): (&'static str, &'static str, &'static str),
        result: &str,
        why: &str,
    ) -> Self {
        let (result, note) = (result.to_owned(), why.to_owned());
        Self { peer, transport, scenario, result, tries: 0, seconds: 0, note }
    }
}

/// Takes out what cannot be tried here; loudly, and the table has it.
fn skip(wanted: &mut Vec<Wanted>, skipped: &mut Vec<Line>, why: &str, cannot: impl Fn(&Trip, &str) -> bool) {
    for (trip, scenarios) in wanted.iter_mut() {
        for scenario in scenarios.extract_if(.., |s| cannot(trip, s)) {
            println!("SKIPPED: {}: {why}", title(trip, scenario));
            skipped.push(Line::not_run((trip.peer, trip.transport, scenario), "SKIPPED", why));
        }
    }
    wanted.retain(|(_, scenarios)| !scenarios.is_empty());
}

/// Builds what the scenarios run. The guest is an emulator: programs without optimisation would take their time in it.
fn build(wanted: &[Wanted]) -> Result<()> {
    let any = |script: &str| wanted.iter().any(|(trip, _)| trip.script == script);
    let release = |what: &[&str]| {
        run(cargo().args(["build", "--quiet", "--release"]).args(what).stdout(std::io::stderr()))
    };
    release(&["--bins", "--example", "cancel", "-p", "iscsi-target", "-p", "iscsi-initiator"])?;
    if any("iwarp.sh") {
        release(&["--example", "rping", "-p", "iwarp"])?;
    }
    if any("conformance.sh") {
        test_program("verbs")?;
        if ibverbs::lacking().is_none() {
            test_program("ibverbs")?;
        }
    }
    Ok(())
}

/// The conformance tests of the verbs provider as a program, built with this feature.
fn test_program(feature: &str) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--quiet", "--release", "--no-run", "--message-format=json", "-p", "iser-rdma"]);
    test.args(["--test", "conformance_verbs", "--features", feature]);
    let messages = output(&mut test)?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.filter_map(|m| m.get("executable")?.as_str().map(PathBuf::from)).next_back();
    let to = root().join("target/release/tests");
    std::fs::create_dir_all(&to)?;
    std::fs::copy(program.context("no test was built")?, to.join(format!("conformance-{feature}")))?;
    Ok(())
}

/// All trips, several guests at a time; lines in the order of the table.
fn travel_all(guest: &Guest<'_>, args: &Args, wanted: Vec<Wanted>) -> Result<Vec<Line>> {
    let all = Mutex::new(wanted.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            loop {
                let next = all.lock().expect("no worker panics").next();
                let Some((n, (trip, scenarios))) = next else { return Ok(()) };
                let lines = travel(guest, trip, &scenarios, args)?;
                done.lock().expect("no worker panics").push((n, lines));
            }
        };
        let workers: Vec<_> = (0..args.guests.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().expect("no worker panics"))
    })?;
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(n, _)| *n);
    Ok(done.into_iter().flat_map(|(_, lines)| lines).collect())
}

/// What failed is tried once more, one guest at a time: an emulator on a busy machine can be too slow for a peer's
/// timers. The table tells of both tries.
fn repeat(guest: &Guest<'_>, args: &Args, lines: &mut [Line]) -> Result<()> {
    for line in lines.iter_mut().filter(|line| line.result != "ok") {
        let Some(trip) = TRIPS.iter().find(|trip| {
            (trip.peer, trip.transport) == (line.peer, line.transport)
                && trip.scenarios().any(|s| s == line.scenario)
        }) else {
            continue;
        };
        eprintln!("AGAIN          {}", title(trip, line.scenario));
        for again in travel(guest, trip, &[line.scenario], args)? {
            let note = format!("{} (FIRST TRY FAILED: {})", again.note, line.note);
            *line = Line { tries: 2, note, ..again };
        }
    }
    Ok(())
}

fn title(trip: &Trip, scenario: &str) -> String {
    format!("{} {} {scenario}", trip.peer, trip.transport)
}

fn wanted(args: &Args) -> Vec<Wanted> {
    let named = |trip: &Trip, s: &str| {
        let title = title(trip, s);
        let quick = |(peer, transport, scenarios): &(&str, &str, &[&str])| {
            (*peer, *transport) == (trip.peer, trip.transport) && scenarios.contains(&s)
        };
        (args.filter.is_empty() || args.filter.iter().any(|text| title.contains(text.as_str())))
            && (!args.quick || QUICK.iter().any(quick))
    };
    TRIPS
        .iter()
        .map(|trip| (trip, trip.scenarios().filter(|s| named(trip, s)).collect::<Vec<_>>()))
        .filter(|(_, scenarios)| !scenarios.is_empty())
        .collect()
}

/// One boot. What the guest does not report has failed.
fn travel(
    guest: &Guest<'_>,
    trip: &'static Trip,
    scenarios: &[&'static str],
    args: &Args,
) -> Result<Vec<Line>> {
    let programs = args.programs.clone().unwrap_or_else(|| root().join("target/release"));
    let script = root().join("xtask/lab").join(trip.script);
    let mut command = vec!["env".to_owned(), format!("PROGRAMS={}", programs.display())];
    if args.quick {
        command.push(format!("COPY_MIB={QUICK_COPY}"));
    }
    command.extend([script.display().to_string(), trip.transport.to_owned()]);
    command.extend(scenarios.iter().map(|s| (*s).to_owned()));

    let mut lines: Vec<Line> = Vec::new();
    let mut context: Vec<String> = Vec::new();
    let job = Job { command, limit: LIMIT, counted: trip.script == "compare.sh" };
    let outcome = guest.run(&job, &mut |text| {
        if args.verbose {
            eprintln!("{text}");
        }
        match reported(text) {
            Some((result, seconds, name, note)) => {
                let Some(&scenario) = scenarios.iter().find(|s| **s == name) else { return };
                if result != "ok" && !args.verbose {
                    context.iter().for_each(|line| eprintln!("    {line}"));
                }
                eprintln!("{result:<8}{seconds:4} s  {}", title(trip, scenario));
                let (result, note) = (result.to_owned(), note.to_owned());
                lines.push(Line {
                    peer: trip.peer,
                    transport: trip.transport,
                    scenario,
                    result,
                    tries: 1,
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
                tries: 1,
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
            let Line { peer, transport, scenario, result, tries, seconds, note } = line;
            let result = if *tries > 1 { format!("{result}, {tries} tries") } else { result.clone() };
            let cells = [peer, transport, scenario, result.as_str(), &seconds.to_string(), note.as_str()];
            table.row(cells.map(str::to_owned));
        }
        print!("\n{table}");
    }
    let failed = lines.iter().filter(|line| line.result == "FAILED").count();
    let repeated = lines.iter().filter(|line| line.tries > 1).count();
    eprintln!("\n{} rows, {failed} failed, {repeated} tried twice, {} s", lines.len(), elapsed.as_secs());
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
}
