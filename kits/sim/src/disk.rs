//! The target's disk: a device server with delays, errors and commands that are never answered.

use crate::medium::{Medium, SharedMedium};
use crate::plan::{CommandPlan, Op, Plan, Trouble};
use crate::rng::Rng;
use crate::shadow::{BLOCK, Stamp, fill, stamp_of};
use bytes::Bytes;
use datamover::{DataError, SgListMut};
use iscsi_pdu::{Lun, ScsiStatus, TaskMgmtFunction, TaskMgmtStatus};
use iscsi_session::device::{DeviceServer, Function, FunctionTag, Outcome, Task, TaskPort, TaskTag};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const READ: u8 = 0x28;
const WRITE: u8 = 0x2a;
const SYNCHRONIZE_CACHE: u8 = 0x35;
const XDWRITEREAD: u8 = 0x53;

/// Bit of the WRITE CDB's second byte.
const FUA: u8 = 0x08;

/// The number of a command: unique in a run, and the stamp of what it writes. 0 is what was there before.
pub(crate) const fn number(host: usize, index: u32) -> u64 {
    ((host as u64 + 1) << 32) + 1 + index as u64
}

/// A CDB of this disk: operation, first block, blocks, and the command's number.
pub(crate) fn cdb(op: Op, lba: u32, blocks: u32, number: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = match op {
        Op::Read => READ,
        Op::Write | Op::WriteThrough => WRITE,
        Op::Sync => SYNCHRONIZE_CACHE,
        Op::Swap => XDWRITEREAD,
    };
    cdb[1] = if op == Op::WriteThrough { FUA } else { 0 };
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..8].copy_from_slice(&(blocks as u16).to_be_bytes());
    cdb[8..16].copy_from_slice(&number.to_be_bytes());
    cdb
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Waiting for output.
    Output,
    /// Will be carried out at its time.
    Due,
    Stuck,
    /// Aborted: will be let go of at its time.
    LettingGo,
}

struct Command {
    tag: TaskTag,
    op: Op,
    lba: u32,
    blocks: u32,
    number: u64,
    /// Bytes that it reads.
    input: usize,
    data: Vec<u8>,
    missing: usize,
    step: Step,
    at: Instant,
    fails: bool,
}

/// The device server of one session.
pub(crate) struct Disk {
    medium: SharedMedium,
    plan: Arc<Plan>,
    rng: Rng,
    now: Instant,
    commands: Vec<Command>,
    functions: Vec<(FunctionTag, Instant, TaskMgmtStatus)>,
    resets_seen: u64,
    /// Of a hostile initiator: it is humoured, and reaches neither the blocks nor other sessions.
    hostile: bool,
    /// Of everything that it was asked to do, in order.
    pub(crate) hash: u64,
}

impl Disk {
    pub(crate) fn new(medium: SharedMedium, plan: Arc<Plan>, rng: Rng, now: Instant) -> Self {
        let resets_seen = medium.lock().resets;
        Self {
            medium,
            plan,
            rng,
            now,
            commands: Vec::new(),
            functions: Vec::new(),
            resets_seen,
            hostile: false,
            hash: 0,
        }
    }

    /// The disk that a hostile initiator gets.
    pub(crate) fn for_hostile(self) -> Self {
        Self { hostile: true, ..self }
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// When something is to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let commands =
            self.commands.iter().filter(|c| matches!(c.step, Step::Due | Step::LettingGo)).map(|c| c.at);
        let next = commands.chain(self.functions.iter().map(|f| f.1)).min()?;
        Some(self.medium.lock().stalled_until.map_or(next, |until| next.max(until)))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.commands.is_empty()
    }

    /// The session of which it is has ended: a rule that was broken in this.
    pub(crate) fn session_ended(&self, tasks: usize, timer: Option<Instant>) {
        let mut medium = self.medium();
        if tasks != 0 || !self.commands.is_empty() {
            let commands = self.commands.len();
            let what =
                format!("a session ended at the target with {tasks} tasks, {commands} of them at the disk");
            medium.faults.push(what);
        }
        if timer.is_some() {
            medium.faults.push("a session that has ended at the target has a timer".into());
        }
    }

    fn later(&mut self) -> Instant {
        let most = self.plan.disk_latency.as_nanos() as u64;
        self.now + Duration::from_nanos(self.rng.below(most + 1))
    }

    fn fetch(&mut self, tag: TaskTag, have: usize, len: usize, port: &mut dyn TaskPort) {
        let pieces = 1 + self.rng.index(3);
        let mut at = have;
        for n in 0..pieces {
            let end = if n + 1 == pieces { len } else { at + self.rng.index(len - at + 1) };
            if end > at {
                let Some(into) = port.pool(tag).alloc(end - at) else {
                    if !self.hostile {
                        self.medium().faults.push("the pool is empty".into());
                    }
                    return;
                };
                port.want_write(tag, at as u32, into);
            }
            at = end;
        }
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock()
    }

    fn command_plan(&self, number: u64) -> Option<&CommandPlan> {
        let (host, index) = ((number >> 32).checked_sub(1)?, (number as u32).checked_sub(1)?);
        let commands = self.plan.hosts.get(host as usize)?;
        commands.binary_search_by_key(&index, |c| c.index).ok().map(|place| &commands[place])
    }

    /// The stamps of data that arrived, which must be what the command's initiator made.
    fn stamps(&self, command: &Command) -> Vec<(u32, Stamp)> {
        let blocks = command.data.chunks(BLOCK).zip(command.lba..);
        let stamps = blocks.map(|(data, lba)| (lba, stamp_of(lba, data)));
        stamps
            .map(|(lba, stamp)| {
                if stamp != Some(command.number) {
                    let what =
                        format!("block {lba} of command {:#x} arrived wrong: {stamp:x?}", command.number);
                    self.medium().faults.push(what);
                }
                (lba, command.number)
            })
            .collect()
    }

    fn carry_out(&mut self, index: usize, port: &mut dyn TaskPort) {
        let command = self.commands.swap_remove(index);
        let tag = command.tag;
        let through = command.op == Op::WriteThrough;
        if command.step == Step::LettingGo {
            // Half of what was written may have reached the medium.
            if command.op.writes() && command.missing == 0 && !self.hostile && self.rng.coin() {
                let stamps = self.stamps(&command);
                let half = stamps.len() / 2;
                let mut medium = self.medium();
                stamps.into_iter().take(half).for_each(|(lba, stamp)| medium.write(lba, stamp, through));
            }
            port.discard(tag);
            return;
        }
        if command.fails {
            port.complete(tag, Outcome::check_condition(sense(0x03, [0x11, 0x00])));
            return;
        }
        if self.hostile {
            let (read, written) = (command.input, command.data.len());
            port.read_data(tag, 0, Bytes::from(vec![0x5a; read]).into());
            let outcome = Outcome::good().with_read(read as u64).with_write(written as u64);
            return port.complete(tag, outcome);
        }
        let mut outcome = Outcome::good();
        let len = u64::from(command.blocks) * BLOCK as u64;
        if command.op.reads() {
            let mut data = vec![0; len as usize];
            let medium = self.medium();
            for (block, lba) in data.chunks_mut(BLOCK).zip(command.lba..) {
                fill(lba, medium.stamp(lba), block);
            }
            drop(medium);
            let data = Bytes::from(data);
            let cut = self.rng.index(data.len() + 1);
            let (head, tail) = (data.slice(..cut), data.slice(cut..));
            port.read_data(tag, 0, head.into());
            port.read_data(tag, cut as u32, tail.into());
            outcome = outcome.with_read(len);
        }
        if command.op.writes() {
            let stamps = self.stamps(&command);
            let mut medium = self.medium();
            stamps.into_iter().for_each(|(lba, stamp)| medium.write(lba, stamp, through));
            drop(medium);
            outcome = outcome.with_write(len);
        }
        if command.op == Op::Sync {
            self.medium().flush(command.lba, command.blocks);
        }
        self.medium().complete(command.number);
        port.complete(tag, outcome);
    }

    /// A command of a hostile initiator: it gets what it asks for, up to a limit.
    fn humour(&mut self, task: &Task, port: &mut dyn TaskPort) {
        const MOST: u32 = 64 << 10;
        let [out, input] = [task.write_length, task.read_length].map(|n| n.min(MOST) as usize);
        let op = match (out > 0, input > 0) {
            (true, true) => Op::Swap,
            (true, false) => Op::Write,
            (false, true) => Op::Read,
            (false, false) => Op::Sync,
        };
        let mut data = vec![0; out];
        let have = task.unsolicited.copy_to(0, &mut data).min(out);
        let (missing, tag) = (out - have, task.tag);
        let step = match self.rng.below(16) {
            0 => Step::Stuck,
            _ if missing > 0 => Step::Output,
            _ => Step::Due,
        };
        let (at, fails) = (self.later(), self.rng.one_in(16));
        let (lba, blocks, number) = (0, 0, 0);
        self.commands.push(Command { tag, op, lba, blocks, number, input, data, missing, step, at, fails });
        if step == Step::Output {
            self.fetch(tag, have, out, port);
        }
    }

    fn refuse(&mut self, tag: TaskTag, asc: [u8; 2], port: &mut dyn TaskPort) {
        port.complete(tag, Outcome::check_condition(sense(0x05, asc)));
    }
}

/// Fixed-format sense data.
fn sense(key: u8, [asc, ascq]: [u8; 2]) -> Bytes {
    Bytes::copy_from_slice(&[0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
}

fn field<const N: usize>(cdb: &[u8; 16], at: usize) -> [u8; N] {
    cdb[at..at + N].try_into().expect("a field of the CDB")
}

/// Output and input bytes that fit what the initiator has, else the command is not for this disk.
fn fits(task: &Task, op: Op, len: usize) -> bool {
    let (out, input) = (task.write_length as usize, task.read_length as usize);
    (!op.writes() || out >= len) && (!op.reads() || input >= len) && task.unsolicited.len() <= out
}

impl DeviceServer for Disk {
    fn execute(&mut self, task: Task, port: &mut dyn TaskPort) {
        if self.hostile {
            return self.humour(&task, port);
        }
        let number = u64::from_be_bytes(field(&task.cdb, 8));
        self.hash = crate::rng::mix(self.hash ^ number);
        let lba = u32::from_be_bytes(field(&task.cdb, 2));
        let blocks = u32::from(u16::from_be_bytes(field(&task.cdb, 6)));
        let op = match (task.cdb[0], task.cdb[1] & FUA) {
            (READ, _) => Op::Read,
            (WRITE, 0) => Op::Write,
            (WRITE, _) => Op::WriteThrough,
            (SYNCHRONIZE_CACHE, _) => Op::Sync,
            (XDWRITEREAD, _) => Op::Swap,
            _ => return self.refuse(task.tag, [0x20, 0], port),
        };
        let len = blocks as usize * BLOCK;
        if lba.checked_add(blocks).is_none_or(|end| end > self.medium().len()) || !fits(&task, op, len) {
            self.medium().faults.push(format!("command {number:#x} arrived with another CDB"));
            return self.refuse(task.tag, [0x21, 0], port);
        }
        let plan = self.command_plan(number).copied();
        {
            let mut medium = self.medium();
            if medium.count(number) > 1 {
                medium.faults.push(format!("command {number:#x} was executed twice"));
            }
            let expected = plan.is_some_and(|p| p.op == op && p.blocks == blocks);
            if !expected || (!op.writes() && !task.unsolicited.is_empty()) || task.unsolicited.len() > len {
                medium.faults.push(format!("command {number:#x} did not arrive as it was sent"));
            }
        }
        let mut data = vec![0xee; if op.writes() { len } else { 0 }];
        let have = task.unsolicited.copy_to(0, &mut data).min(data.len());
        let missing = data.len() - have;
        let trouble = plan.map_or(Trouble::None, |p| p.trouble);
        let step = match (trouble, missing > 0) {
            (Trouble::Stuck, _) => Step::Stuck,
            (_, true) => Step::Output,
            (_, false) => Step::Due,
        };
        let (at, fails, tag) = (self.later(), trouble == Trouble::Error, task.tag);
        let input = if op.reads() { len } else { 0 };
        self.commands.push(Command { tag, op, lba, blocks, number, input, data, missing, step, at, fails });
        if step == Step::Output {
            self.fetch(task.tag, have, len, port);
        }
    }

    fn write_data(
        &mut self,
        tag: TaskTag,
        offset: u32,
        data: SgListMut,
        result: Result<(), DataError>,
        port: &mut dyn TaskPort,
    ) {
        let at = self.later();
        let Some(index) = self.commands.iter().position(|c| c.tag == tag) else { return };
        let command = &mut self.commands[index];
        if command.step != Step::Output {
            return;
        }
        if result.is_err() {
            let tag = command.tag;
            self.commands.swap_remove(index);
            port.complete(tag, Outcome::check_condition(sense(0x0b, [0x47, 0x05])));
            return;
        }
        let data = data.freeze();
        data.copy_to(0, &mut command.data[offset as usize..offset as usize + data.len()]);
        command.missing -= data.len();
        if command.missing == 0 {
            (command.step, command.at) = (Step::Due, at);
        }
    }

    fn abort(&mut self, tag: TaskTag, _port: &mut dyn TaskPort) {
        let at = self.later();
        match self.commands.iter_mut().find(|c| c.tag == tag) {
            Some(command) => (command.step, command.at) = (Step::LettingGo, at),
            None => self.medium().faults.push("abort of a task that the disk does not have".into()),
        }
    }

    fn task_management(&mut self, function: Function, _port: &mut dyn TaskPort) {
        use TaskMgmtFunction as F;
        let at = self.later();
        let resets = matches!(
            function.function,
            F::LogicalUnitReset | F::ClearTaskSet | F::TargetWarmReset | F::TargetColdReset
        );
        let known = function.lun == Lun::ZERO;
        if resets && known && !self.hostile {
            let mut medium = self.medium();
            medium.resets += 1;
            let seen = medium.resets;
            drop(medium);
            self.resets_seen = seen;
        }
        let status = if known { TaskMgmtStatus::FunctionComplete } else { TaskMgmtStatus::LunDoesNotExist };
        self.functions.push((function.tag, at, status));
    }

    fn commands_cleared(&mut self, _lun: Lun) {}

    fn nexus_loss(&mut self) {
        if !self.is_idle() {
            self.medium().faults.push("the nexus is lost while tasks are open".into());
        }
    }

    fn poll(&mut self, _cx: &mut Context<'_>, now: Instant, port: &mut dyn TaskPort) -> Poll<()> {
        self.now = now;
        let (resets, stalled) = {
            let medium = self.medium();
            (medium.resets, medium.stalled_until.is_some_and(|until| now < until))
        };
        if self.resets_seen < resets {
            // Another nexus reset the logical unit: its own commands end, as TAS says.
            self.resets_seen = resets;
            let ended: Vec<TaskTag> =
                self.commands.iter().filter(|c| c.step != Step::LettingGo).map(|c| c.tag).collect();
            self.commands.retain(|c| c.step == Step::LettingGo);
            for tag in ended {
                if self.plan.tas {
                    port.complete(tag, Outcome::status(ScsiStatus::TaskAborted));
                } else {
                    port.discard(tag);
                }
            }
            return Poll::Ready(());
        }
        if stalled {
            return Poll::Pending;
        }
        let due = |c: &Command| matches!(c.step, Step::Due | Step::LettingGo) && c.at <= now;
        if let Some(index) = self.commands.iter().position(due) {
            self.carry_out(index, port);
            return Poll::Ready(());
        }
        if let Some(index) = self.functions.iter().position(|f| f.1 <= now) {
            let (tag, _, status) = self.functions.swap_remove(index);
            port.respond(tag, status, [0; 3]);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
