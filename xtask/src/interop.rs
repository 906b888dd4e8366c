//! Our programs against foreign ones over TCP on this machine: a table peer, scenario, result.
//!
//! Each row starts the server it needs on a free loopback port, runs the client, and stops what it
//! started by process id. Logs and data of a row stay in `target/interop/` until the next run.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::table::Table;
use crate::tools::{cargo, run};
use crate::workspace::root;
use security::Security;

mod capture;
mod conform;
mod libiscsi;
pub(crate) mod process;
mod qemu;
mod security;
mod server;
mod tgt;

/// Options of `cargo xtask interop`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run rows whose "peer scenario security" contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// List the rows.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Pass although a peer is not installed; the table still says so.
    #[arg(long)]
    allow_missing: bool,
    /// Use release builds of our programs.
    #[arg(long)]
    release: bool,
    /// Rows at a time [default: as many as there are processors].
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// What a peer and we do together. Each element of `with` makes a row.
struct Scenario {
    peer: &'static str,
    name: &'static str,
    /// Foreign programs, by name.
    needs: &'static [&'static str],
    with: &'static [Security],
    /// Does it, and says in a few words what was seen.
    run: fn(&Row) -> Result<String>,
}

/// One scenario with one kind of security.
struct Row {
    scenario: &'static Scenario,
    security: Security,
    /// Where our programs are.
    programs: PathBuf,
    /// For this row's files alone.
    dir: PathBuf,
}

impl Row {
    fn title(&self) -> String {
        format!("{} {} {}", self.scenario.peer, self.scenario.name, self.security.name())
    }

    /// A file of this row.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[derive(Serialize)]
struct Line {
    peer: &'static str,
    scenario: &'static str,
    security: &'static str,
    result: &'static str,
    seconds: f64,
    note: String,
}

/// Runs the rows and prints the table.
pub(crate) fn interop(args: &Args) -> Result<()> {
    let base = root().join("target/interop");
    let programs = root().join(if args.release { "target/release" } else { "target/debug" });
    let rows: Vec<Row> =
        [libiscsi::SCENARIOS, qemu::SCENARIOS, tgt::SCENARIOS, capture::SCENARIOS, conform::SCENARIOS]
            .into_iter()
            .flatten()
            .flat_map(|scenario| scenario.with.iter().map(move |&security| (scenario, security)))
            .map(|(scenario, security)| {
                let mut row = Row { scenario, security, programs: programs.clone(), dir: PathBuf::new() };
                row.dir = base.join(row.title().replace([' ', ',', '/'], "-"));
                row
            })
            .filter(|row| args.filter.as_ref().is_none_or(|text| row.title().contains(text.as_str())))
            .collect();
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.title()));
        return Ok(());
    }
    if rows.is_empty() {
        bail!("no row matches the filter; see --list");
    }
    build(args.release)?;
    report(args, &run_rows(&rows, args.jobs), &base)
}

/// Runs the rows, several at a time: each has its own server, port and files. The lines are in the order of the rows.
fn run_rows(rows: &[Row], jobs: Option<NonZeroUsize>) -> Vec<Line> {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let next = AtomicUsize::new(0);
    let work = || {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        numbers.map_while(|number| Some((number, line(rows.get(number)?)))).collect::<Vec<_>>()
    };
    let mut lines: Vec<(usize, Line)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let done =
            |worker: ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        workers.into_iter().flat_map(done).collect()
    });
    lines.sort_by_key(|(number, _)| *number);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Builds our programs.
pub(crate) fn build(release: bool) -> Result<()> {
    let mut command = cargo();
    command.args([
        "build",
        "--quiet",
        "--bins",
        "-p",
        "iscsi-target",
        "-p",
        "iscsi-initiator",
        "-p",
        "iscsi-conform",
    ]);
    if release {
        command.arg("--release");
    }
    // Standard output belongs to the table.
    run(command.stdout(std::io::stderr()))
}

fn line(row: &Row) -> Line {
    let start = Instant::now();
    let missing: Vec<&str> = row.scenario.needs.iter().filter(|p| !installed(p)).copied().collect();
    let outcome = if missing.is_empty() {
        fresh(&row.dir).and_then(|()| (row.scenario.run)(row)).map_err(|error| format!("{error:#}"))
    } else {
        Ok(format!("not installed: {}", missing.join(", ")))
    };
    let seconds = start.elapsed().as_secs_f64();
    let (result, note) = match outcome {
        Ok(note) if missing.is_empty() => ("ok", note),
        Ok(note) => ("MISSING", note),
        Err(note) => ("FAILED", note),
    };
    eprintln!("{result:<8}{seconds:6.1} s  {}", row.title());
    let Scenario { peer, name, .. } = *row.scenario;
    Line { peer, scenario: name, security: row.security.name(), result, seconds, note }
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian puts servers where an ordinary user's path does not go.
    let sbin = [PathBuf::from("/usr/sbin")];
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
}

fn fresh(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())
}

fn report(args: &Args, lines: &[Line], base: &Path) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string_pretty(lines)?);
    } else {
        let mut table = Table::new(&["peer", "scenario", "security", "result", "seconds", "seen"]);
        for line in lines {
            let first = line.note.lines().next().unwrap_or("").to_owned();
            let seconds = format!("{:.1}", line.seconds);
            table.row([
                line.peer.into(),
                line.scenario.into(),
                line.security.into(),
                line.result.into(),
                seconds,
                first,
            ]);
        }
        print!("\n{table}");
    }
    let count = |result: &str| lines.iter().filter(|line| line.result == result).count();
    let (failed, missing) = (count("FAILED"), count("MISSING"));
    for line in lines.iter().filter(|line| line.result == "FAILED") {
        eprintln!("\n{} {} {}:\n{}", line.peer, line.scenario, line.security, line.note);
    }
    eprintln!("\n{} rows, {} ok, {failed} failed, {missing} without their peer", lines.len(), count("ok"));
    if failed > 0 {
        bail!("{failed} rows failed; their logs are under {}", base.display());
    }
    if missing > 0 && !args.allow_missing {
        bail!("{missing} rows could not run: install the peers (see .ci/run), or say --allow-missing");
    }
    Ok(())
}
