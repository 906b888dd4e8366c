//! One run: the clock, the loop, the faults, the verdict.

use crate::host::Host;
use crate::hostile::{Impostor, Intruder};
use crate::link::{Wire, connect, connect_hostile};
use crate::log::Log;
use crate::medium::SharedMedium;
use crate::net::Clock;
use crate::plan::{Configuration, Fault, FaultPlan, Plan};
use crate::rng::Rng;
use crate::storage::Storage;
use datamover::{BufPool, PoolConfig, Role, SlabPool};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Virtual time within which any run is over, clock jumps aside.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Turns after which a run is going round in circles; the longest take a tenth of that.
const TURNS: u64 = 400_000;

/// Connections after which a run is going round in circles, for the same reason.
const CONNECTIONS: u64 = 1_000;

/// Bytes that each of the two shared pools may take.
const MEMORY: usize = 32 << 20;

/// Bytes that the commands of a hostile initiator may take, of which it sends no more than [`Intruder`] says.
const HOSTILE_MEMORY: usize = 12 << 20;

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
    /// Connections logged in.
    pub connections: u64,
    /// Disturbances that disturbed something.
    pub faults: u64,
    /// What its sessions agreed on; `None` when none was logged in.
    pub agreed: Option<Configuration>,
    /// Virtual time.
    pub time: Duration,
    /// Times that everything in it was looked at: what the run costs.
    pub turns: u64,
    /// Of all that happened, in order.
    pub hash: u64,
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

/// A run in progress.
pub struct World {
    plan: Arc<Plan>,
    rng: Rng,
    clock: Clock,
    start: Instant,
    hosts: Vec<Host>,
    storage: Storage,
    intruder: Option<Intruder>,
    impostors: Vec<Impostor>,
    medium: SharedMedium,
    pools: [Arc<dyn BufPool>; 2],
    slabs: [SlabPool; 2],
    report: Report,
    log: Log,
    next_fault: usize,
    /// Time that jumps have added.
    jumped: Duration,
}

impl World {
    /// The beginning of a plan's run.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // any instant will do: only differences count
    pub fn new(plan: Plan) -> Self {
        let mut rng = Rng::named(plan.seed, "world");
        let plan = Arc::new(plan);
        let start = Instant::now();
        let config =
            PoolConfig { chunk_lens: vec![4 << 10, 64 << 10], slab_len: 128 << 10, max_bytes: MEMORY };
        let slabs = [SlabPool::new(config.clone()), SlabPool::new(config)];
        let pools = slabs.clone().map(|p| Arc::new(p) as Arc<dyn BufPool>);
        let medium = SharedMedium::new(Plan::BLOCKS * plan.hosts.len() as u32);
        let hosts = (0..plan.hosts.len())
            .map(|n| Host::new(n, plan.clone(), rng.fork(), pools[0].clone(), start))
            .collect();
        let storage = Storage::new(plan.clone(), rng.fork(), medium.clone());
        Self {
            plan,
            rng,
            clock: Clock::new(start),
            start,
            hosts,
            storage,
            intruder: None,
            impostors: Vec::new(),
            medium,
            pools,
            slabs,
            report: Report::default(),
            log: Log::new(start),
            next_fault: 0,
            jumped: Duration::ZERO,
        }
    }

    /// Tells what happens, with the virtual time since the beginning.
    #[must_use]
    pub fn with_trace(mut self, trace: impl FnMut(Duration, &str) + 'static) -> Self {
        self.log.listen(Box::new(trace));
        self
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
        self.report.time = self.log.elapsed();
        self.report.hash = self.log.hash();
        what.map(|()| self.report).map_err(|what| Failure { seed, what })
    }

    fn go_on(&mut self) -> Result<(), String> {
        loop {
            let now = self.clock.now();
            self.report.turns += 1;
            let mut busy = self.storage.step(now, &mut self.log);
            for index in 0..self.hosts.len() {
                if self.hosts[index].wants_connection(now) {
                    self.connect(now, index);
                    busy = true;
                }
                busy |= self.hosts[index].step(now, &mut self.log);
            }
            busy |= self.step_hostile(now);
            busy |= self.disturb(now);
            busy |= self.clock.take_woken();
            self.check_faults()?;
            if self.report.turns > TURNS {
                return Err(self.standstill("no progress: events without end"));
            }
            if self.hosts.iter().map(|h| h.tally.connections).sum::<u64>() > CONNECTIONS {
                return Err(self.standstill("no progress: connections without end"));
            }
            if busy {
                continue;
            }
            if self.hosts.iter().all(Host::is_done) && self.storage.len() == 0 {
                return Ok(());
            }
            let hosts = self.hosts.iter().filter_map(Host::poll_timeout);
            let hostile = self.impostors.iter().filter_map(Impostor::poll_timeout);
            let hostile = hostile.chain(self.intruder.as_ref().and_then(Intruder::poll_timeout));
            let Some(next) = hosts.chain(self.storage.poll_timeout()).chain(hostile).min() else {
                return Err(self.standstill("no progress: nothing will ever happen again"));
            };
            let next = next.max(now + Duration::from_nanos(1));
            if next.duration_since(self.start) > LONGEST + self.jumped {
                return Err(self.standstill("no end within the time allowed"));
            }
            self.pass(next);
        }
    }

    fn pass(&mut self, now: Instant) {
        self.clock.set(now);
        self.log.set_now(now);
        self.storage.handle_timeout(now);
        self.hosts.iter_mut().for_each(|h| h.handle_timeout(now));
        self.impostors.iter_mut().for_each(|i| i.handle_timeout(now));
        self.intruder.iter_mut().for_each(|i| i.handle_timeout(now));
    }

    /// Those who keep to no rule; `true` when they did something.
    fn step_hostile(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for impostor in &mut self.impostors {
            busy |= impostor.step(now, &mut self.log);
        }
        self.impostors.retain(|i| !i.is_over());
        let Some(intruder) = &mut self.intruder else { return busy };
        if self.hosts.iter().all(Host::is_done) {
            intruder.stop();
            self.intruder = None;
            return true;
        }
        if intruder.wants_connection(now) {
            busy = true;
            if self.storage.is_up(now) {
                let (stream, link, wire) =
                    connect_hostile(&self.plan, &self.clock, &mut self.rng, &self.pools, Role::Target);
                intruder.connect(now, stream, &wire);
                self.storage.accept(now, link, wire);
            } else {
                intruder.refused(now);
            }
        }
        busy | intruder.step(now, &mut self.log)
    }

    fn standstill(&self, what: &str) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(|h| h.describe(self.clock.now())).collect();
        format!(
            "{what}; hosts: {}; sessions at the target: {}, tasks: {}",
            hosts.join(" | "),
            self.storage.len(),
            self.storage.open_tasks()
        )
    }

    fn connect(&mut self, now: Instant, index: usize) {
        if self.hosts[index].meets_impostor() {
            self.log.tell(&self.hosts[index], &"connects to a hostile target");
            let (stream, link, wire) =
                connect_hostile(&self.plan, &self.clock, &mut self.rng, &self.pools, Role::Initiator);
            self.impostors.extend(Impostor::new(&self.plan, self.rng.fork(), now, stream, &wire));
            self.hosts[index].connect(now, (link, wire));
            return;
        }
        if !self.storage.is_up(now) {
            self.hosts[index].refused(now);
            return;
        }
        let (i, t, wire) = connect(&self.plan, &self.clock, &mut self.rng, &self.pools);
        self.log.tell(&self.hosts[index], &"connects");
        self.hosts[index].connect(now, (i, wire.clone()));
        self.storage.accept(now, t, wire);
    }

    /// Lets happen what the plan has for this point of the workload.
    fn disturb(&mut self, now: Instant) -> bool {
        let spans = self.plan.spans.iter();
        let position: u32 =
            self.hosts.iter().zip(spans).map(|(h, (first, end))| h.position(*first, *end)).sum();
        let mut happened = false;
        while let Some(fault) = self.plan.faults.get(self.next_fault).copied()
            && fault.after <= position
        {
            self.next_fault += 1;
            let did = self.commit(now, &fault);
            happened |= did;
            self.report.faults += u64::from(did);
            self.log.mix(0xfa << 32 ^ u64::from(fault.index) << 1 ^ u64::from(did));
            let note = if did { "" } else { " (to no effect)" };
            self.log.tell(
                &"fault",
                &format_args!("{} {:?}, host {}{note}", fault.index, fault.fault, fault.host),
            );
        }
        happened
    }

    fn commit(&mut self, now: Instant, plan: &FaultPlan) -> bool {
        let mut rng = Rng::new(plan.dice);
        let host = &mut self.hosts[plan.host];
        match plan.fault {
            Fault::Shutdown => self.storage.shutdown(now),
            Fault::LogoutRequest => self.storage.request(now, true),
            Fault::NegotiationRequest => self.storage.request(now, false),
            Fault::TargetCrash => {
                self.storage.crash(now, Duration::from_millis(rng.below(30_000)));
                self.hosts.iter_mut().for_each(Host::target_crashed);
            }
            Fault::HostCrash | Fault::SilentHostCrash => {
                let silently = plan.fault == Fault::SilentHostCrash;
                host.crash(now, silently, Duration::from_millis(rng.below(10_000)));
            }
            Fault::ClockJump => {
                let jump = Duration::from_secs(rng.pick(&[1, 60, 7200]));
                self.jumped += jump;
                self.pass(now + jump);
            }
            Fault::Intruder => {
                self.intruder.get_or_insert_with(|| Intruder::new(self.plan.clone(), rng.fork(), now));
            }
            Fault::DiskStall => {
                self.medium.lock().stalled_until = Some(now + Duration::from_millis(rng.below(40_000)));
            }
            other => return host.disturb(now, other, &mut rng),
        }
        true
    }

    fn wires(&self) -> impl Iterator<Item = &Wire> {
        self.hosts.iter().flat_map(|h| &h.wires)
    }

    fn check_faults(&self) -> Result<(), String> {
        let medium = self.medium.lock();
        let first = medium.faults.first().or_else(|| self.hosts.iter().find_map(|h| h.faults.first()));
        first.map_or(Ok(()), |what| Err(what.clone()))
    }

    /// Everything is over: is nothing left, and did happen what was said to have happened?
    fn verdict(&mut self) -> Result<(), String> {
        self.check_faults()?;
        let medium = self.medium.lock();
        for host in &self.hosts {
            if let Some(number) = host.certain.iter().find(|n| medium.executions(**n) != 1) {
                let times = medium.executions(*number);
                return Err(format!("command {number:#x} is GOOD but was executed {times} times"));
            }
            if let Some(number) = host.certain.iter().find(|n| !medium.is_complete(**n)) {
                return Err(format!("command {number:#x} is GOOD but was not done"));
            }
            host.shadow.compare(|lba| medium.versions(lba))?;
            self.report.commands += host.tally.commands;
            self.report.good += host.tally.good;
            self.report.failed += host.tally.failed;
            self.report.sessions += host.tally.sessions;
            self.report.connections += host.tally.connections;
            self.report.agreed = self.report.agreed.or(host.agreed);
        }
        drop(medium);
        if let Some(rule) = self.wires().find_map(Wire::fault) {
            return Err(format!("a rule of the transport was broken: {rule}"));
        }
        if let Some(what) = self.wires().find_map(Wire::leaks) {
            return Err(what);
        }
        let left: usize = self.pools.iter().map(|p| p.outstanding()).sum();
        if left != 0 {
            return Err(format!("{left} buffers have not come back"));
        }
        if let Some(pool) = self.slabs.iter().find(|p| p.allocated_bytes() > self.budget()) {
            return Err(format!("{} bytes were in use at a time", pool.allocated_bytes()));
        }
        if self.report.commands != self.report.good + self.report.failed {
            return Err("a command has no end".into());
        }
        let unhappy = self.report.failed > 0 || self.hosts.iter().any(|h| h.tally.sessions != 1);
        if self.plan.is_calm() && unhappy {
            return Err(format!("nothing happened, and yet not all went well: {:?}", self.report));
        }
        Ok(())
    }

    /// Memory that the commands under way can explain: each has its data at one end at a time, rounded up to chunks,
    /// and as much again for what is kept until it is acknowledged.
    fn budget(&self) -> usize {
        let data = self.plan.hosts.iter().flatten().filter(|c| c.op.reads() || c.op.writes());
        let longest = data.map(|c| c.blocks as usize * crate::shadow::BLOCK).max();
        let command = longest.unwrap_or_default().next_multiple_of(64 << 10) + (64 << 10);
        let depth = self.plan.queue_depth * self.plan.hosts.len() + 8;
        let hostile = self.plan.faults.iter().any(|f| f.fault == Fault::Intruder);
        (1 << 20) + 3 * depth * command + if hostile { HOSTILE_MEMORY } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::number;
    use crate::plan::Op;

    /// What a run finds in which something is wrong from the beginning.
    fn found<T>(seed: u64, wrong: impl FnOnce(&World) -> T) -> String {
        let world = World::new(Plan::of(seed));
        let kept = wrong(&world);
        let what = world.run().expect_err("nothing was found").what;
        drop(kept);
        what
    }

    /// A plan without faults, the first that fits.
    fn calm(fits: impl Fn(&Plan) -> bool) -> u64 {
        (1..).find(|seed| [Plan::of(*seed)].iter().any(|p| p.is_calm() && fits(p))).expect("a plan")
    }

    #[test]
    fn a_block_that_nobody_wrote_is_found_though_nobody_reads_it() {
        let touched = |p: &Plan, at| p.hosts[0].iter().any(|c| (c.at..c.at + c.blocks).contains(&at));
        let seed = calm(|p| !touched(p, 100));
        let what = found(seed, |w| w.medium.lock().write(100, 7, true));
        assert_eq!(what, "block 100 holds write 0x7 in the end, possible are [0]");
    }

    #[test]
    fn a_block_that_would_change_with_the_cache_is_found() {
        let touched = |p: &Plan, at| p.hosts[0].iter().any(|c| (c.at..c.at + c.blocks).contains(&at));
        let what = found(calm(|p| !touched(p, 100)), |w| {
            let mut medium = w.medium.lock();
            medium.write(100, 7, true);
            medium.write(100, 0, false);
        });
        assert_eq!(what, "block 100 would hold write 0x7 without the cache");
    }

    #[test]
    fn a_command_that_is_executed_twice_is_found() {
        let seed = calm(|p| p.hosts[0].len() > 3);
        let second = Plan::of(seed).hosts[0][1].index;
        let what = found(seed, |w| w.medium.lock().count(number(0, second)));
        assert_eq!(what, format!("command {:#x} was executed twice", number(0, second)));
    }

    #[test]
    fn a_buffer_that_is_kept_is_found() {
        let what = found(calm(|_| true), |w| w.pools[1].alloc(512));
        assert_eq!(what, "a connection left 1 buffers and 0 tags behind");
    }

    #[test]
    fn wrong_data_is_found_by_who_reads_it() {
        let reads = |p: &Plan| p.hosts[0].first().is_some_and(|c| c.op == Op::Read && c.at < 200);
        let seed = calm(reads);
        let at = Plan::of(seed).hosts[0][0].at;
        let what = found(seed, |w| w.medium.lock().write(at, 7, true));
        assert!(what.contains(&format!("block {at} holds write 0x7, possible are [0]")), "{what}");
    }
}
