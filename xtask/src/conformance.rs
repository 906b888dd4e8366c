//! libiscsi's `iscsi-test-cu`, test by test, against our target in all its shapes, or against a peer.
//!
//! Every test has a process and a time limit of its own; every shape of the unit ("variant") is served by several
//! targets, among which its tests are divided, since most of them sleep. Of our target nothing is taken on trust: a
//! skip has to be one that `conformance/verdicts.toml` justifies, a failure one that it proves to be the test's own.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::bench::servers;
use crate::tools::{cargo, run as run_command};
use crate::workspace::root;
use suite::{Outcome, Test};
use verdict::Verdicts;

mod report;
mod suite;
mod variant;
mod verdict;

/// Options of `cargo xtask conformance`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run tests whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run these variants of our target only.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    variant: Vec<String>,
    /// Judge these peers instead of our target: tgt, istgt.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peer: Vec<String>,
    /// Leave out the tests that take more than ten seconds.
    #[arg(long)]
    quick: bool,
    /// List variants and tests.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Tests at a time. They sleep most of their time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    jobs: usize,
    /// Use a release build of our target.
    #[arg(long)]
    release: bool,
}

/// What was seen of one test on one variant.
#[derive(Serialize)]
pub(crate) struct Line {
    variant: String,
    test: &'static str,
    /// pass, skip, test-bug, FAIL or UNJUSTIFIED (a skip without a reason in the repository).
    result: &'static str,
    seconds: f64,
    /// What the test said, and why that is in order.
    note: String,
}

/// Some tests of a variant, to run one after the other at one server.
struct Batch {
    variant: String,
    server: ServerKind,
    tests: Vec<Test>,
    /// Where its logs go.
    dir: PathBuf,
}

enum ServerKind {
    Ours(&'static variant::Variant, PathBuf),
    Peer(String),
}

/// Servers for each variant.
const SHARDS: usize = 4;
/// Bytes of every disk.
pub(crate) const DISK: u64 = 64 << 20;

pub(crate) fn run(args: &Args) -> Result<()> {
    let tests = suite::list()?;
    if args.list {
        variant::VARIANTS.iter().for_each(|v| println!("variant {:<14}{}", v.name, v.what));
        tests.iter().for_each(|test| println!("{}", test.name));
        return Ok(());
    }
    for name in &args.variant {
        ensure!(variant::VARIANTS.iter().any(|v| v.name == name), "no variant {name}; see --list");
    }
    let verdicts = Verdicts::load()?;
    let batches = batches(args, &tests)?;
    ensure!(!batches.is_empty(), "no test matches; see --list");
    let queue = Mutex::new(VecDeque::from(batches));
    let lines = Mutex::new(Vec::new());
    let broken = Mutex::new(Vec::new());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    // A statement of its own: in the head of a loop the guard would live as long as its body.
                    let Some(batch) = lock(&queue).pop_front() else { break };
                    match run_batch(&batch, &verdicts) {
                        Ok(done) => lock(&lines).extend(done),
                        Err(error) => lock(&broken).push(format!("{}: {error:#}", batch.variant)),
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    let order: BTreeMap<&str, usize> = tests.iter().enumerate().map(|(n, t)| (t.name, n)).collect();
    lines.sort_by_key(|line: &Line| (line.variant.clone(), order.get(line.test).copied()));
    report::print(args.json, &lines, &verdicts, start.elapsed())?;
    if !broken.is_empty() {
        bail!("servers failed:\n{}", broken.join("\n"));
    }
    // A peer's faults are its own.
    let wrong = lines.iter().filter(|l| matches!(l.result, "FAIL" | "UNJUSTIFIED")).count();
    if args.peer.is_empty() && wrong > 0 {
        bail!("{wrong} tests failed or were skipped without a reason; logs are under target/conformance");
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn batches(args: &Args, tests: &[Test]) -> Result<Vec<Batch>> {
    let base = root().join("target/conformance");
    let wanted = |test: &&Test| {
        args.filter.as_ref().is_none_or(|text| test.name.contains(text.as_str()))
            && !(args.quick && test.is_long())
    };
    let mut batches = Vec::new();
    let mut add = |name: &str, kind: &dyn Fn() -> ServerKind, of: Vec<Test>| {
        for shard in 0..SHARDS {
            let tests: Vec<Test> = of.iter().skip(shard).step_by(SHARDS).copied().collect();
            if !tests.is_empty() {
                let dir = base.join(format!("{name}-{shard}"));
                batches.push(Batch { variant: name.into(), server: kind(), tests, dir });
            }
        }
    };
    if args.peer.is_empty() {
        build(args.release)?;
        let profile = if args.release { "release" } else { "debug" };
        let program = root().join("target").join(profile).join("iscsi-target");
        let named =
            |v: &&variant::Variant| args.variant.is_empty() || args.variant.iter().any(|n| n == v.name);
        for variant in variant::VARIANTS.iter().filter(named) {
            let of = tests.iter().filter(wanted).filter(|t| variant.has(t)).copied().collect();
            add(variant.name, &|| ServerKind::Ours(variant, program.clone()), of);
        }
    }
    for peer in &args.peer {
        ensure!(["tgt", "istgt"].contains(&peer.as_str()), "no peer {peer}: tgt or istgt");
        let of = tests.iter().filter(wanted).copied().collect();
        add(peer, &|| ServerKind::Peer(peer.clone()), of);
    }
    Ok(batches)
}

fn build(release: bool) -> Result<()> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--bin", "iscsi-target", "-p", "iscsi-target"]);
    if release {
        command.arg("--release");
    }
    // Standard output belongs to the table.
    run_command(command.stdout(std::io::stderr()))
}

fn run_batch(batch: &Batch, verdicts: &Verdicts) -> Result<Vec<Line>> {
    if batch.dir.exists() {
        std::fs::remove_dir_all(&batch.dir)?;
    }
    std::fs::create_dir_all(&batch.dir).with_context(|| batch.dir.display().to_string())?;
    let mut lines = Vec::new();
    let mut server = None;
    for test in &batch.tests {
        // One that has died takes only the test with it that killed it. A peer is started anew for every test, lest
        // what one leaves behind (reservations, modes, sessions that hang) count against it twice.
        if server.as_mut().is_none_or(|s: &mut Running| s.is_peer() || !s.alive()) {
            // The old one ends before its place is taken.
            drop(server.take());
            server = Some(Running::start(batch)?);
        }
        let Some(running) = &server else { continue };
        let start = Instant::now();
        let log = batch.dir.join(format!("{}.log", test.name));
        let mut outcome = test.run(&running.urls(), &log)?;
        if server.as_mut().is_some_and(|s| !s.alive()) {
            outcome = Outcome::Failed("the target died".into());
        }
        let (result, note) = match &batch.server {
            ServerKind::Ours(..) => verdicts.judge(&batch.variant, test.name, &outcome),
            ServerKind::Peer(_) => outcome.plain(),
        };
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{result:<12}{seconds:6.1} s  {:<14}{}", batch.variant, test.name);
        lines.push(Line { variant: batch.variant.clone(), test: test.name, result, seconds, note });
    }
    Ok(lines)
}

/// A server and two ways to its unit.
enum Running {
    Ours(variant::OurTarget),
    Peer(servers::Server),
}

impl Running {
    fn start(batch: &Batch) -> Result<Self> {
        match &batch.server {
            ServerKind::Ours(variant, program) => variant.start(program, &batch.dir).map(Self::Ours),
            ServerKind::Peer(name) if name == "tgt" => servers::tgt(DISK, false).map(Self::Peer),
            ServerKind::Peer(_) => servers::istgt(DISK).map(Self::Peer),
        }
    }

    fn is_peer(&self) -> bool {
        matches!(self, Self::Peer(_))
    }

    fn alive(&mut self) -> bool {
        match self {
            Self::Ours(target) => target.alive(),
            Self::Peer(server) => servers::alive(server).is_ok(),
        }
    }

    /// Ours has a second target port for the second path; a peer is asked twice at the one that it has.
    fn urls(&self) -> [String; 2] {
        match self {
            Self::Ours(target) => target.urls(),
            Self::Peer(server) => {
                let url = format!("iscsi://{}/{}/{}", server.url.portal, server.url.name, server.url.lun);
                [url.clone(), url]
            }
        }
    }
}
