//! One run: the clock, the loop, the faults, the verdict.

use crate::disk::{SharedMedium, medium};
use crate::host::Host;
use crate::link::connect;
use crate::net::Clock;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::shadow::Shadow;
use crate::storage::Storage;
use datamover::{BufPool, PoolConfig, SlabPool};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Blocks of one initiator.
const BLOCKS: u32 = 256;

/// Virtual time within which any run is over.
const LONGEST: Duration = Duration::from_secs(4 * 3600);

/// Turns without time passing, after which a run is going round in circles.
const TURNS: u32 = 1_000_000;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Commands submitted.
    pub commands: u64,
    /// Commands that completed with GOOD.
    pub good: u64,
    /// Commands that ended otherwise.
    pub failed: u64,
    /// Sessions logged in.
    pub sessions: u64,
    /// Disturbances.
    pub events: u64,
    /// Virtual time.
    pub time: Duration,
}

/// What a run found wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Failure {}

/// Who is told what happens, and when.
type Trace = Box<dyn FnMut(Duration, &str)>;

/// A run in progress.
pub struct World {
    plan: Plan,
    rng: Rng,
    clock: Clock,
    start: Instant,
    hosts: Vec<Host>,
    storage: Storage,
    medium: SharedMedium,
    pools: [Arc<dyn BufPool>; 2],
    report: Report,
    trace: Option<Trace>,
    commands_seen: u64,
}

impl World {
    /// The beginning of a plan's run.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // any instant will do: only differences count
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let start = Instant::now();
        let pool = || Arc::new(SlabPool::new(PoolConfig::default())) as Arc<dyn BufPool>;
        let pools = [pool(), pool()];
        let medium = medium(BLOCKS * plan.initiators as u32);
        let hosts = (0..plan.initiators)
            .map(|n| {
                let shadow = Shadow::new(n as u32 * BLOCKS, BLOCKS);
                Host::new(n, &plan, rng.fork(), shadow, pools[0].clone(), start)
            })
            .collect();
        let storage = Storage::new(&plan, rng.fork(), medium.clone());
        Self {
            plan,
            rng,
            clock: Clock::new(start),
            start,
            hosts,
            storage,
            medium,
            pools,
            report: Report::default(),
            trace: None,
            commands_seen: 0,
        }
    }

    /// Tells what happens, with the virtual time since the beginning.
    #[must_use]
    pub fn with_trace(self, trace: impl FnMut(Duration, &str) + 'static) -> Self {
        Self { trace: Some(Box::new(trace)), ..self }
    }

    fn tell(&mut self, what: &str) {
        let at = self.clock.now().duration_since(self.start);
        if let Some(trace) = &mut self.trace {
            trace(at, what);
        }
    }

    fn tell_notes(&mut self) {
        for note in std::mem::take(&mut self.storage.notes) {
            self.tell(&format!("target: {note}"));
        }
        for index in 0..self.hosts.len() {
            for note in std::mem::take(&mut self.hosts[index].notes) {
                self.tell(&format!("host {index}: {note}"));
            }
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// What the oracle found wrong.
    pub fn run(mut self) -> Result<Report, Failure> {
        let seed = self.plan.seed;
        let what = match self.go_on() {
            Ok(()) => self.verdict(),
            Err(what) => Err(what),
        };
        self.report.time = self.clock.now().duration_since(self.start);
        what.map(|()| self.report).map_err(|what| Failure { seed, what })
    }

    fn go_on(&mut self) -> Result<(), String> {
        let mut turns = 0;
        loop {
            let now = self.clock.now();
            let mut busy = self.storage.step(now);
            for index in 0..self.hosts.len() {
                if self.hosts[index].wants_connection(now) {
                    self.connect(now, index);
                    busy = true;
                }
                busy |= self.hosts[index].step(now);
            }
            busy |= self.disturb(now);
            self.tell_notes();
            self.check_faults()?;
            turns += 1;
            if busy {
                if turns > TURNS {
                    return Err("no progress: events without end at one moment".into());
                }
                continue;
            }
            turns = 0;
            if self.hosts.iter().all(Host::is_done) && self.storage.len() == 0 {
                return Ok(());
            }
            let hosts = self.hosts.iter().filter_map(Host::poll_timeout);
            let Some(next) = hosts.chain(self.storage.poll_timeout()).min() else {
                return Err(self.standstill("no progress: nothing will ever happen again"));
            };
            let next = next.max(now + Duration::from_nanos(1));
            if next.duration_since(self.start) > LONGEST {
                return Err(self.standstill("no end within the time allowed"));
            }
            self.clock.set(next);
            self.storage.handle_timeout(next);
            self.hosts.iter_mut().for_each(|h| h.handle_timeout(next));
        }
    }

    fn standstill(&self, what: &str) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::describe).collect();
        format!("{what}; {} tasks at the target; hosts: {}", self.storage.open_tasks(), hosts.join(" | "))
    }

    fn connect(&mut self, now: Instant, index: usize) {
        let pools = (&self.pools[0], &self.pools[1]);
        let (i, t, wire) = connect(&self.plan, &self.clock, &mut self.rng, pools);
        self.hosts[index].connect(now, i, wire.clone());
        self.storage.accept(now, t, wire);
        self.tell(&format!("host {index} connects"));
    }

    /// Lets something bigger happen, once in so many commands.
    fn disturb(&mut self, now: Instant) -> bool {
        let commands: u64 = self.hosts.iter().map(|h| h.tally.commands).sum();
        let new = commands - self.commands_seen;
        self.commands_seen = commands;
        let mut happened = false;
        for _ in 0..new {
            if !self.rng.one_in(self.plan.faults.event) {
                continue;
            }
            happened = true;
            self.report.events += 1;
            let what = if self.rng.one_in(5) {
                self.storage.disturb(now, &mut self.rng).to_string()
            } else {
                let index = self.rng.index(self.hosts.len());
                format!("host {index}: {}", self.hosts[index].disturb(now, &mut self.rng))
            };
            self.tell(&what);
        }
        happened
    }

    fn check_faults(&self) -> Result<(), String> {
        let medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        let first = medium.faults.first().or_else(|| self.hosts.iter().find_map(|h| h.faults.first()));
        first.map_or(Ok(()), |what| Err(what.clone()))
    }

    /// Everything is over: is nothing left, and did happen what was said to have happened?
    fn verdict(&mut self) -> Result<(), String> {
        self.check_faults()?;
        let medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        for host in &self.hosts {
            if let Some(number) = host.certain.iter().find(|n| medium.executions.of(**n) != 1) {
                return Err(format!(
                    "command {number} is GOOD but was executed {} times",
                    medium.executions.of(*number)
                ));
            }
            if let Some(rule) = host.wires.iter().flat_map(|w| w.violations()).next() {
                return Err(format!("a rule of the Datamover Interface was broken: {rule}"));
            }
            self.report.commands += host.tally.commands;
            self.report.good += host.tally.good;
            self.report.failed += host.tally.failed;
            self.report.sessions += host.tally.sessions;
        }
        let left: usize = self.pools.iter().map(|p| p.outstanding()).sum();
        if left != 0 {
            return Err(format!("{left} buffers have not come back"));
        }
        if self.report.commands != self.report.good + self.report.failed {
            return Err("a command has no end".into());
        }
        Ok(())
    }
}
