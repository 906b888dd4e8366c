//! Many runs on many threads.

use iscsi_sim::{Configuration, Failure, Keep, Plan, Report, Transport, regressions, run_plan, shrink};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to run.
pub(crate) struct Job {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
    /// Run the seeds that failed once before the others.
    pub(crate) regressions: bool,
    pub(crate) words: Vec<String>,
    pub(crate) transports: Vec<String>,
    pub(crate) keep_going: bool,
    pub(crate) shrink: Duration,
    pub(crate) threads: usize,
    pub(crate) limit: Option<Duration>,
    pub(crate) bar: bool,
}

/// A seed that failed.
pub(crate) struct Found {
    /// As it failed at first.
    failure: Failure,
    /// What of its plan is enough, and how that fails.
    keep: Keep,
    shrunk: Failure,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) failures: Vec<Found>,
    runs: u64,
    total: Report,
    by_word: BTreeMap<&'static str, u64>,
    by_configuration: BTreeMap<Configuration, u64>,
    seconds: f64,
    /// The seed that took most turns, and how many.
    longest: (u64, u64),
}

/// Seeds that no filter lets through, after which there is no such configuration.
const HOPELESS: u64 = 100_000;

impl Job {
    fn wants(&self, plan: &Plan) -> bool {
        let words = plan.words();
        self.words.iter().all(|w| words.contains(&w.as_str()))
            && (self.transports.is_empty() || self.transports.iter().any(|t| t == plan.transport.name()))
    }

    /// A filter that nothing passes.
    pub(crate) fn unknown_word(&self) -> Option<String> {
        let transport = |t: &&String| !Transport::ALL.iter().any(|k| k.name() == t.as_str());
        let unknown = self.transports.iter().find(transport).cloned();
        unknown.or_else(|| {
            let any = (1..HOPELESS).take(2000).any(|seed| self.wants(&Plan::of(seed)));
            (!any).then(|| self.words.join(","))
        })
    }
}

/// Runs it all.
pub(crate) fn run(job: &Job) -> Tally {
    let start = Instant::now();
    // A panic is reported as what a run found; its own message would only be in the way.
    std::panic::set_hook(Box::new(|_| {}));
    let (tally, next, stop) = (Mutex::new(Tally::default()), AtomicU64::new(0), AtomicBool::new(false));
    let old: Vec<u64> = if job.regressions { regressions().collect() } else { Vec::new() };
    let seeds = Mutex::new(job.first..u64::MAX);
    let lock = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    // The next seed in order that passes the filters, as a plan.
    let take = || {
        let place = next.fetch_add(1, Ordering::Relaxed);
        if let Some(seed) = old.get(place as usize) {
            return Some(Plan::of(*seed));
        }
        if place - old.len() as u64 >= job.seeds {
            return None;
        }
        let mut seeds = seeds.lock().unwrap_or_else(PoisonError::into_inner);
        seeds.by_ref().take(HOPELESS as usize).map(Plan::of).find(|plan| job.wants(plan))
    };
    let late = || job.limit.is_some_and(|limit| start.elapsed() > limit);
    let work = || {
        while !stop.load(Ordering::Relaxed) && !late() {
            let Some(plan) = take() else { return };
            let words = plan.words();
            let result = run_plan(plan.clone());
            let found = result.as_ref().err().map(|failure| {
                stop.fetch_or(!job.keep_going, Ordering::Relaxed);
                let until = Instant::now() + job.shrink;
                let (keep, shrunk) = shrink(&plan, failure.clone(), || Instant::now() > until);
                Found { failure: failure.clone(), keep, shrunk }
            });
            let mut tally = lock();
            tally.add(plan.seed, &words, result.ok());
            if let Some(found) = found {
                eprintln!("{found}");
                tally.failures.push(found);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..job.threads.max(1)).map(|_| scope.spawn(work)).collect();
        let all = job.seeds + old.len() as u64;
        let mut told = Instant::now();
        while job.bar && !workers.iter().all(|w| w.is_finished()) {
            std::thread::sleep(Duration::from_millis(200));
            let (runs, failed) = {
                let tally = lock();
                (tally.runs, tally.failures.len())
            };
            let progress = Progress { runs, all, failed, elapsed: start.elapsed() };
            if std::io::stderr().is_terminal() {
                eprint!("\r{} {progress} ", progress.bar());
                let _ = std::io::stderr().flush();
            } else if told.elapsed() >= QUIET {
                told = Instant::now();
                eprintln!("{progress}");
            }
        }
        if job.bar && std::io::stderr().is_terminal() {
            eprintln!();
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tally.seconds = start.elapsed().as_secs_f64();
    tally
}

/// Between two lines of progress where there is no terminal for a bar.
const QUIET: Duration = Duration::from_secs(30);

/// How far it is.
struct Progress {
    runs: u64,
    all: u64,
    failed: usize,
    elapsed: Duration,
}

impl Progress {
    fn bar(&self) -> String {
        const WIDTH: u64 = 40;
        let full = (self.runs * WIDTH).checked_div(self.all).unwrap_or(WIDTH).min(WIDTH) as usize;
        format!("[{}{}]", "#".repeat(full), " ".repeat(WIDTH as usize - full))
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.runs as f64 / self.elapsed.as_secs_f64().max(1e-9);
        write!(f, "{}/{} seeds, {rate:.0}/s", self.runs, self.all)?;
        if self.runs > 0 {
            let left = self.all.saturating_sub(self.runs) as f64 / rate;
            write!(f, ", {:.0} min {:02.0} s left", (left / 60.0).floor(), left % 60.0)?;
        }
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, seed: u64, words: &[&'static str], report: Option<Report>) {
        self.runs += 1;
        words.iter().for_each(|w| *self.by_word.entry(w).or_default() += 1);
        let report = report.unwrap_or_default();
        if let Some(agreed) = report.agreed {
            *self.by_configuration.entry(agreed).or_default() += 1;
        }
        self.total.commands += report.commands;
        self.total.good += report.good;
        self.total.failed += report.failed;
        self.total.sessions += report.sessions;
        self.total.connections += report.connections;
        self.total.faults += report.faults;
        self.total.time += report.time;
        self.longest = self.longest.max((report.turns, seed));
    }

    fn rate(&self) -> f64 {
        self.runs as f64 / self.seconds.max(1e-9)
    }

    /// All of it.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|f| {
                serde_json::json!({
                    "seed": f.failure.seed,
                    "what": f.failure.what,
                    "keep": f.keep.to_string(),
                    "shrunk": f.shrunk.what,
                    "replay": f.replay(),
                })
            })
            .collect();
        let configurations: Vec<_> = self
            .by_configuration
            .iter()
            .map(|(c, runs)| {
                serde_json::json!({
                    "transport": c.transport.name(),
                    "error_recovery_level": c.level,
                    "max_connections": c.connections,
                    "header_digest": c.header_digest,
                    "data_digest": c.data_digest,
                    "runs": runs,
                })
            })
            .collect();
        serde_json::json!({
            "runs": self.runs,
            "seconds": self.seconds,
            "seeds_per_second": self.rate(),
            "commands": self.total.commands,
            "good": self.total.good,
            "sessions": self.total.sessions,
            "connections": self.total.connections,
            "faults": self.total.faults,
            "virtual_hours": self.total.time.as_secs_f64() / 3600.0,
            "longest": { "seed": self.longest.1, "turns": self.longest.0 },
            "runs_by_word": self.by_word,
            "runs_by_configuration": configurations,
            "failures": failures,
        })
    }
}

impl Found {
    fn replay(&self) -> String {
        format!("cargo xtask sim --seed {} --trace --keep {}", self.failure.seed, self.keep)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nFAILED {}", self.failure)?;
        writeln!(f, "  shrunk to {} commands and faults: {}", self.keep.len(), self.shrunk.what)?;
        write!(f, "  again: {}", self.replay())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.total;
        writeln!(
            f,
            "{} runs in {:.1} s ({:.0}/s), {} failed: {} commands ({} GOOD), {} sessions, {} connections, {} faults, \
             {:.0} h of virtual time; the longest, seed {}, took {} turns",
            self.runs,
            self.seconds,
            self.rate(),
            self.failures.len(),
            t.commands,
            t.good,
            t.sessions,
            t.connections,
            t.faults,
            t.time.as_secs_f64() / 3600.0,
            self.longest.1,
            self.longest.0
        )?;
        let words: Vec<String> = self.by_word.iter().map(|(word, runs)| format!("{word} {runs}")).collect();
        writeln!(f, "runs with: {}", words.join(", "))?;
        self.matrix(f)
    }
}

impl Tally {
    /// Runs of each transport, level and choice of digests, a column for each number of connections.
    fn matrix(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: BTreeSet<u16> = self.by_configuration.keys().map(|c| c.connections).collect();
        let rows: BTreeSet<Configuration> =
            self.by_configuration.keys().map(|c| Configuration { connections: 0, ..*c }).collect();
        write!(f, "{:<11}{:<5}{:<13}", "transport", "ERL", "digests")?;
        columns.iter().try_for_each(|n| write!(f, "{:>9}", format!("{n} conn")))?;
        writeln!(f)?;
        for row in rows {
            let digests = match (row.header_digest, row.data_digest) {
                (true, true) => "header+data",
                (true, false) => "header",
                (false, true) => "data",
                (false, false) => "none",
            };
            write!(f, "{:<11}{:<5}{digests:<13}", row.transport.name(), row.level)?;
            for connections in &columns {
                let cell = Configuration { connections: *connections, ..row };
                write!(f, "{:>9}", self.by_configuration.get(&cell).copied().unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
