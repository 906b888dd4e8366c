//! The target's disk: a device server with delays, errors and commands that are never answered.

use crate::plan::Faults;
use crate::rng::Rng;
use crate::shadow::{BLOCK, Executions};
use bytes::Bytes;
use datamover::{DataError, SgListMut};
use iscsi_pdu::{Lun, TaskMgmtFunction, TaskMgmtStatus};
use iscsi_session::device::{DeviceServer, Function, FunctionTag, Outcome, Task, TaskPort, TaskTag};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub(crate) const READ: u8 = 0x28;
pub(crate) const WRITE: u8 = 0x2a;

/// A CDB of this disk: operation, first block, blocks, and the command's number.
pub(crate) fn cdb(op: u8, lba: u32, blocks: u16, number: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = op;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..8].copy_from_slice(&blocks.to_be_bytes());
    cdb[8..16].copy_from_slice(&number.to_be_bytes());
    cdb
}

/// What all sessions share.
pub(crate) struct Medium {
    pub(crate) bytes: Vec<u8>,
    pub(crate) executions: Executions,
    /// What went wrong at the disk.
    pub(crate) faults: Vec<String>,
    /// Resets of the logical unit, which end other nexuses' commands too.
    resets: u64,
}

pub(crate) type SharedMedium = Arc<Mutex<Medium>>;

pub(crate) fn medium(blocks: u32) -> SharedMedium {
    let mut bytes = vec![0; blocks as usize * BLOCK];
    for (lba, block) in bytes.chunks_mut(BLOCK).enumerate() {
        crate::shadow::fill(lba as u32, 0, block);
    }
    Arc::new(Mutex::new(Medium { bytes, executions: Executions::default(), faults: Vec::new(), resets: 0 }))
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
    write: bool,
    offset: usize,
    len: usize,
    data: Vec<u8>,
    missing: usize,
    step: Step,
    at: Instant,
    fails: bool,
}

/// The device server of one session.
pub(crate) struct Disk {
    medium: SharedMedium,
    rng: Rng,
    faults: Faults,
    now: Instant,
    commands: Vec<Command>,
    functions: Vec<(FunctionTag, Instant, TaskMgmtStatus)>,
    resets_seen: u64,
}

impl Disk {
    pub(crate) fn new(medium: SharedMedium, rng: Rng, faults: Faults, now: Instant) -> Self {
        let resets_seen = medium.lock().unwrap_or_else(PoisonError::into_inner).resets;
        Self { medium, rng, faults, now, commands: Vec::new(), functions: Vec::new(), resets_seen }
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// When something is to be done.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let commands =
            self.commands.iter().filter(|c| matches!(c.step, Step::Due | Step::LettingGo)).map(|c| c.at);
        commands.chain(self.functions.iter().map(|f| f.1)).min()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.commands.is_empty()
    }

    fn later(&mut self) -> Instant {
        let most = self.faults.disk_latency.as_nanos() as u64;
        self.now + Duration::from_nanos(self.rng.below(most + 1))
    }

    fn fetch(&mut self, tag: TaskTag, have: usize, len: usize, port: &mut dyn TaskPort) {
        let pieces = 1 + self.rng.index(3);
        let mut at = have;
        for n in 0..pieces {
            let end = if n + 1 == pieces { len } else { at + self.rng.index(len - at + 1) };
            if end > at {
                let Some(into) = port.pool(tag).alloc(end - at) else {
                    self.medium().faults.push("the pool is empty".into());
                    return;
                };
                port.want_write(tag, at as u32, into);
            }
            at = end;
        }
    }

    fn medium(&self) -> std::sync::MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&mut self, index: usize, port: &mut dyn TaskPort) {
        let command = self.commands.swap_remove(index);
        let range = command.offset..command.offset + command.len;
        if command.step == Step::LettingGo {
            // Half of what was written may have reached the medium.
            if command.write && command.missing == 0 && self.rng.coin() {
                let half = command.len / BLOCK / 2 * BLOCK;
                self.medium().bytes[command.offset..command.offset + half]
                    .copy_from_slice(&command.data[..half]);
            }
            port.discard(command.tag);
        } else if command.fails {
            port.complete(command.tag, Outcome::check_condition(sense(0x03, [0x11, 0x00])));
        } else if command.write {
            self.medium().bytes[range].copy_from_slice(&command.data);
            port.complete(command.tag, Outcome::good().with_write(command.len as u64));
        } else {
            let data = Bytes::copy_from_slice(&self.medium().bytes[range]);
            let cut = self.rng.index(command.len + 1);
            let (head, tail) = (data.slice(..cut), data.slice(cut..));
            port.read_data(command.tag, 0, head.into());
            port.read_data(command.tag, cut as u32, tail.into());
            port.complete(command.tag, Outcome::good().with_read(command.len as u64));
        }
    }
}

/// Fixed-format sense data.
fn sense(key: u8, [asc, ascq]: [u8; 2]) -> Bytes {
    Bytes::copy_from_slice(&[0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])
}

fn field<const N: usize>(cdb: &[u8; 16], at: usize) -> [u8; N] {
    cdb[at..at + N].try_into().expect("a field of the CDB")
}

impl DeviceServer for Disk {
    fn execute(&mut self, task: Task, port: &mut dyn TaskPort) {
        let number = u64::from_be_bytes(field(&task.cdb, 8));
        if self.medium().executions.count(number) > 1 {
            self.medium().faults.push(format!("command {number} was executed twice"));
        }
        let offset = u32::from_be_bytes(field(&task.cdb, 2)) as usize * BLOCK;
        let len = usize::from(u16::from_be_bytes(field(&task.cdb, 6))) * BLOCK;
        let write = task.cdb[0] == WRITE;
        let mut data = vec![0xee; if write { len } else { 0 }];
        let have = task.unsolicited.copy_to(0, &mut data);
        if task.unsolicited.len() > len || (!write && !task.unsolicited.is_empty()) {
            self.medium().faults.push(format!("command {number} came with too much data"));
        }
        let missing = if write { len - have } else { 0 };
        let stuck = self.rng.one_in(self.faults.disk_stuck);
        let fails = self.rng.one_in(self.faults.disk_error);
        let step = match (stuck, missing > 0) {
            (true, _) => Step::Stuck,
            (false, true) => Step::Output,
            (false, false) => Step::Due,
        };
        let at = self.later();
        self.commands.push(Command { tag: task.tag, write, offset, len, data, missing, step, at, fails });
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
        let at = self.later();
        if function.function == TaskMgmtFunction::LogicalUnitReset {
            let mut medium = self.medium();
            medium.resets += 1;
            let seen = medium.resets;
            drop(medium);
            self.resets_seen = seen;
        }
        let known = function.lun == Lun::ZERO;
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
        let resets = self.medium().resets;
        if self.resets_seen < resets {
            // Another nexus reset the logical unit: its own commands end without a response (TAS=0).
            self.resets_seen = resets;
            let ended: Vec<TaskTag> =
                self.commands.iter().filter(|c| c.step != Step::LettingGo).map(|c| c.tag).collect();
            self.commands.retain(|c| c.step == Step::LettingGo);
            ended.into_iter().for_each(|tag| port.discard(tag));
            return Poll::Ready(());
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
