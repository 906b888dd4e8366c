//! Our programs against kernels, in a virtual machine that runs Debian's stock kernel: what the kernel
//! of this machine has or lacks (RDMA above all) does not matter, and nothing is loaded into it.
//! The scenarios are in `xtask/lab/`; its README.md tells how the guest is made.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::table::Table;
use crate::workspace::root;
use guest::{Guest, Job};
use trips::{LIMITS, Limit, TRIPS, Trip, is_quick};

mod build;
mod guest;
mod prepare;
mod trips;

/// Options of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run scenarios whose "peer transport scenario" contains one of these.
    #[arg(value_name = "TEXT")]
    filter: Vec<String>,
    /// Some minutes' worth, with the programs that other checks have built: each peer over each transport, CHAP, data
    /// compared and one fault. What it leaves out is listed.
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
    #[arg(long, default_value_t = 3, value_name = "N")]
    guests: usize,
    /// Take our programs from here instead of building them.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Do not repeat what failed.
    #[arg(long)]
    once: bool,
    /// How long fio writes and verifies in each scenario `fio-verify`; it measures a fifteenth of that, at least a second.
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    fio_seconds: u32,
}

/// A trip must end within this time.
const LIMIT: Duration = Duration::from_secs(900);

/// How much `--quick` copies, in MiB: some seconds' worth in an emulator.
const QUICK_COPY: u32 = 8;

/// Which cases of `iscsi-conform` `--quick` runs at LIO: those with this in their name or title.
const QUICK_CASES: &str = "login";

/// What became of one scenario: a line of the table.
#[derive(Serialize)]
struct Line {
    peer: &'static str,
    transport: &'static str,
    scenario: &'static str,
    /// `ok` or `FAILED`; `limit` for what a peer cannot do: seen now, or, where nothing was tried (see `tries`), before.
    result: String,
    /// 0 when it was not run; 2 when it was repeated because it had failed; the note then tells of that, too.
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
    let prepared = prepare::prepare()?;
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
    let wanted = wanted(args);
    ensure!(!wanted.is_empty(), "no scenario matches; see --list");
    if wanted.iter().any(|(trip, _)| trip.transport == "siw") {
        prepare::siw(&prepared)?;
    }
    let programs = match &args.programs {
        Some(dir) => std::path::absolute(dir)?,
        None => build::build(&wanted, args.quick)?,
    };
    let start = Instant::now();
    let mut lines = travel_all(&guest, args, &programs, wanted)?;
    if !args.once {
        repeat(&guest, args, &programs, &mut lines)?;
    }
    if args.filter.is_empty() && !args.quick {
        lines.extend(LIMITS.iter().map(Line::limit));
    }
    report(args, &lines, start.elapsed())
}

impl Line {
    fn limit(limit: &Limit) -> Self {
        let (result, note) = ("limit".to_owned(), limit.evidence.to_owned());
        let Limit { peer, transport, scenario, .. } = *limit;
        Self { peer, transport, scenario, result, tries: 0, seconds: 0, note }
    }

    fn run(trip: &Trip, scenario: &'static str, result: &str, seconds: u64, note: &str) -> Self {
        let (result, note) = (result.to_owned(), note.to_owned());
        let Trip { peer, transport, .. } = *trip;
        Self { peer, transport, scenario, result, tries: 1, seconds, note }
    }

    fn is(&self, trip: &Trip, scenario: &str) -> bool {
        (self.peer, self.transport, self.scenario) == (trip.peer, trip.transport, scenario)
    }
}

/// All trips, several guests at a time; lines in the order of the table.
fn travel_all(guest: &Guest<'_>, args: &Args, programs: &Path, wanted: Vec<Wanted>) -> Result<Vec<Line>> {
    let boots = Mutex::new(boots(wanted, args.quick).into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let worker = || -> Result<()> {
            loop {
                let next = boots.lock().expect("no worker panics").next();
                let Some(boot) = next else { return Ok(()) };
                let lines = travel(guest, &boot, programs, args)?;
                done.lock().expect("no worker panics").extend(lines);
            }
        };
        let workers: Vec<_> = (0..args.guests.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|w| w.join().expect("no worker panics"))
    })?;
    let mut done: Vec<Line> = done.into_inner().expect("no worker panics");
    done.sort_by_key(|line| {
        TRIPS.iter().enumerate().find_map(|(n, t)| Some((n, t.scenarios().position(|s| line.is(t, s))?)))
    });
    Ok(done)
}

/// What goes through which guest: trips of one boot, in the order of the table, but those last that leave LIO listening;
/// of these the kernel's initiator first: over RDMA, LIO lets nobody in while it waits for an initiator that has left
/// during its login, and open-iscsi's login has as long a time limit as LIO's, so that each attempt finds the last one.
fn boots(wanted: Vec<Wanted>, quick: bool) -> Vec<Vec<Wanted>> {
    let mut boots: Vec<(&str, Vec<Wanted>)> = Vec::new();
    for (trip, scenarios) in wanted {
        let name = if quick { trip.transport } else { trip.boot };
        match boots.iter_mut().find(|(boot, _)| *boot == name) {
            Some((_, trips)) => trips.push((trip, scenarios)),
            None => boots.push((name, vec![(trip, scenarios)])),
        }
    }
    let in_order = |(_, mut trips): (_, Vec<Wanted>)| {
        trips.sort_by_key(|(trip, _)| match trip.script {
            "control.sh" => 1,
            "attach.sh" => 2,
            // What breaks rules may break a peer.
            "conform.sh" => 3,
            _ => 0,
        });
        trips
    };
    let mut boots: Vec<_> = boots.into_iter().map(in_order).collect();
    // The longest first, so that guests that run side by side end together.
    boots.sort_by_key(|trips: &Vec<Wanted>| {
        let compares = trips.iter().any(|(trip, _)| trip.script == "compare.sh");
        (!compares, Reverse(trips.iter().map(|(_, scenarios)| scenarios.len()).sum::<usize>()))
    });
    boots
}

/// What failed is tried once more, one guest at a time: an emulator on a busy machine can be too slow for a peer's
/// timers. The table tells of both tries.
fn repeat(guest: &Guest<'_>, args: &Args, programs: &Path, lines: &mut [Line]) -> Result<()> {
    for line in lines.iter_mut().filter(|line| line.result == "FAILED") {
        let Some(trip) = TRIPS.iter().find(|trip| trip.scenarios().any(|s| line.is(trip, s))) else {
            continue;
        };
        eprintln!("AGAIN          {}", title(trip, line.scenario));
        for again in travel(guest, &[(trip, vec![line.scenario])], programs, args)? {
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
        (args.filter.is_empty() || args.filter.iter().any(|text| title.contains(text.as_str())))
            && (!args.quick || is_quick(trip, s))
    };
    TRIPS
        .iter()
        .map(|trip| (trip, trip.scenarios().filter(|s| named(trip, s)).collect::<Vec<_>>()))
        .filter(|(_, scenarios)| !scenarios.is_empty())
        .collect()
}

/// One boot. What the guest does not report has failed.
fn travel(guest: &Guest<'_>, trips: &[Wanted], programs: &Path, args: &Args) -> Result<Vec<Line>> {
    let mut command = vec!["env".to_owned(), format!("PROGRAMS={}", programs.display())];
    command.push(format!("FIO_SECONDS={}", args.fio_seconds));
    if args.quick {
        command.push(format!("COPY_MIB={QUICK_COPY}"));
        command.push(format!("CONFORM_CASES={QUICK_CASES}"));
    }
    command.push(root().join("xtask/lab/boot.sh").display().to_string());
    for (trip, scenarios) in trips {
        command.extend([trip.script.to_owned(), trip.transport.to_owned()]);
        command.extend(scenarios.iter().map(|s| (*s).to_owned()));
        command.push("--".to_owned());
    }

    let mut lines: Vec<Line> = Vec::new();
    let mut context: Vec<String> = Vec::new();
    let mut at = 0;
    let counted = trips.iter().any(|(trip, _)| trip.script == "compare.sh");
    let job = Job { command, limit: LIMIT, counted };
    let outcome = guest.run(&job, &mut |text| {
        if args.verbose {
            eprintln!("{text}");
        }
        if let Some(n) = text.strip_prefix("@@ ") {
            at = n.parse().unwrap_or(usize::MAX);
            return;
        }
        let Some((result, seconds, name, note)) = reported(text) else {
            return context.push(text.to_owned());
        };
        let Some((trip, scenarios)) = trips.get(at) else { return };
        let Some(&scenario) = scenarios.iter().find(|s| **s == name) else { return };
        if result == "FAILED" && !args.verbose {
            context.iter().for_each(|line| eprintln!("    {line}"));
        }
        eprintln!("{result:<8}{seconds:4} s  {}", title(trip, scenario));
        lines.push(Line::run(trip, scenario, result, seconds, note));
        context.clear();
    });
    let mut why = match outcome {
        Ok(status) => format!("the script ended early with status {status}"),
        Err(error) => format!("{error:#}"),
    };
    for (trip, scenario) in trips.iter().flat_map(|(t, s)| s.iter().map(move |s| (t, s))) {
        if !lines.iter().any(|line| line.is(trip, scenario)) {
            context.iter().for_each(|line| eprintln!("    {line}"));
            context.clear();
            eprintln!("FAILED         {}: {why}", title(trip, scenario));
            // All of it once.
            why.truncate(why.find('\n').unwrap_or(why.len()));
            lines.push(Line::run(trip, scenario, "FAILED", 0, &why));
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
    if args.quick {
        left_out();
    }
    let failed = lines.iter().filter(|line| line.result == "FAILED").count();
    let repeated = lines.iter().filter(|line| line.tries > 1).count();
    eprintln!("\n{} rows, {failed} failed, {repeated} tried twice, {} s", lines.len(), elapsed.as_secs());
    if failed > 0 {
        bail!("{failed} scenarios failed");
    }
    Ok(())
}

/// What `--quick` does not show.
fn left_out() {
    eprintln!("\nLEFT OUT by --quick; `cargo xtask lab` runs it:");
    for trip in TRIPS {
        let out: Vec<&str> = trip.scenarios().filter(|s| !is_quick(trip, s)).collect();
        if !out.is_empty() {
            eprintln!("  {} {}: {}", trip.peer, trip.transport, out.join(", "));
        }
    }
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
