//! The device server of one I_T nexus: takes tasks from the session engine through their lives.
//!
//! ```text
//!             ┌ queue full ──────────────────────────────▶ TASK SET FULL
//!   execute ──┤                        ┌ Read ── operations ── input ─────────┐
//!             └ held (ORDERED …) ── begin ┼ Write ── lock, output, operations ──┼─▶ finish ─▶ complete
//!                                      └ Sequence ── whatever it asks ────────┘
//! ```
//! One task set per nexus and logical unit (TST 001b), so that nexuses share nothing on the data path but the
//! medium and the range locks.

mod bound;
mod data;
mod functions;
mod task;

use crate::block::{BlockDone, BlockOp, OpId};
use crate::mailbox::{Hold, Mailbox, Order};
use crate::ports::NexusId;
use crate::sbc::{self, Call, Flow};
use crate::sequence::{Answer, Ended, Ending, Finish};
use crate::target_device::TargetDevice;
use crate::unit::Flags;
use bound::Bound;
use bytes::Bytes;
use datamover::{DataError, SgListMut};
use iscsi_pdu::{Lun, ScsiStatus};
use iscsi_session::device::{DeviceServer, Function, FunctionTag, Outcome, Task, TaskPort, TaskTag};
use scsi_cmd::{Asc, Sense, Status, StatusQualifier};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use task::{Fetch, Running, Work};

/// The device server of one I_T nexus. Made by [`TargetDevice::nexus`]; the engine calls it through
/// [`DeviceServer`].
pub struct Nexus {
    target: Arc<TargetDevice>,
    id: NexusId,
    protocol_level: u8,
    mailbox: Arc<Mailbox>,
    /// Wakes the mailbox: what devices and locks get.
    waker: Waker,
    /// Of the target's inventory, when this nexus last looked.
    generation: u64,
    units: Vec<Option<Bound>>,
    by_lun: BTreeMap<u32, usize>,
    /// Units whose device has operations: only these are asked for what has ended.
    busy: Vec<usize>,
    tasks: Vec<Option<Box<Running>>>,
    free: Vec<usize>,
    /// Boxes of tasks that are over, to be used again.
    #[allow(clippy::vec_box, reason = "the boxes are what is kept: they move between here and `tasks`")]
    spare: Vec<Box<Running>>,
    /// By the slot that the engine's tag names: the tag, and the index in `tasks`.
    by_tag: Vec<Option<(TaskTag, usize)>>,
    /// Tasks that may start now.
    runnable: VecDeque<usize>,
    /// Tasks that wait for a lock.
    parked: Vec<usize>,
    /// Tasks that wait for memory of the pool.
    starved: VecDeque<usize>,
    /// Functions to answer when nobody holds on to them any more.
    functions: Vec<(FunctionTag, Hold)>,
}

impl Nexus {
    pub(crate) fn new(target: Arc<TargetDevice>, id: NexusId, protocol_level: u8) -> Self {
        let mailbox = Arc::new(Mailbox::default());
        let mut nexus = Self {
            waker: Waker::from(mailbox.clone()),
            mailbox,
            target,
            id,
            protocol_level,
            generation: 0,
            units: Vec::new(),
            by_lun: BTreeMap::new(),
            busy: Vec::new(),
            tasks: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            by_tag: Vec::new(),
            runnable: VecDeque::new(),
            parked: Vec::new(),
            starved: VecDeque::new(),
            functions: Vec::new(),
        };
        nexus.look_at_inventory();
        nexus
    }

    /// Which nexus.
    #[must_use]
    pub fn id(&self) -> &NexusId {
        &self.id
    }

    /// Tasks that are not over.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.iter().flatten().count()
    }

    /// Follows the target's inventory: binds new units, unbinds those that are gone.
    fn look_at_inventory(&mut self) {
        let generation = self.target.generation();
        if generation == self.generation || self.generation == OVER {
            return;
        }
        let first_look = self.generation == 0;
        self.generation = generation;
        let units = self.target.units();
        let gone: Vec<usize> = self
            .by_lun
            .iter()
            .filter(|(lun, at)| {
                let bound = self.units[**at].as_ref();
                !bound.is_some_and(|b| units.get(lun).is_some_and(|unit| Arc::ptr_eq(unit, &b.unit)))
            })
            .map(|(_, at)| *at)
            .collect();
        for at in gone {
            self.by_lun.retain(|_, a| *a != at);
            if let Some(bound) = &mut self.units[at] {
                bound.gone = true;
                bound.unit.leave(&bound.view);
            }
            self.unbind_if_idle(at);
        }
        for (lun, unit) in units {
            if self.by_lun.contains_key(&lun) {
                continue;
            }
            let device = match unit.open() {
                Ok(device) => device,
                Err(error) => {
                    tracing::error!(lun, nexus = %self.id, %error, "device cannot be opened");
                    continue;
                }
            };
            let bound = Bound::new(unit, &self.id, &self.mailbox, device);
            // A unit that comes later is itself a change of the inventory. The views that the target told of it may all have
            // gone with their units since, so the new one says it too.
            if !first_look {
                bound.view.attentions.establish(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
            }
            let bound = Some(bound);
            let at = match self.units.iter().position(Option::is_none) {
                Some(at) => {
                    self.units[at] = bound;
                    at
                }
                None => {
                    self.units.push(bound);
                    self.units.len() - 1
                }
            };
            self.by_lun.insert(lun, at);
        }
    }

    fn unbind_if_idle(&mut self, at: usize) {
        if self.units[at].as_ref().is_some_and(|b| b.gone && b.total == 0) {
            self.units[at] = None;
        }
    }

    fn bound_at(&self, lun: Lun) -> Option<usize> {
        let number = scsi_cmd::Lun(lun.0).to_single_level()?;
        self.by_lun.get(&number).copied()
    }

    fn bound(&mut self, at: usize) -> Option<&mut Bound> {
        self.units.get_mut(at).and_then(Option::as_mut)
    }

    fn task(&mut self, slot: usize) -> Option<&mut Running> {
        self.tasks.get_mut(slot).and_then(Option::as_deref_mut)
    }

    fn slot_of(&self, tag: TaskTag) -> Option<usize> {
        self.by_tag.get(tag.slot()).copied().flatten().filter(|(t, _)| *t == tag).map(|(_, slot)| slot)
    }

    /// A command to a LUN without logical unit.
    fn without_unit(&self, task: &Task, port: &mut dyn TaskPort) {
        let lun = scsi_cmd::Lun(task.lun.0);
        let ended = sbc::without_unit(&self.target, lun, &task::cdb(task), self.protocol_level);
        let outcome = match ended {
            Ok(finish) => {
                let len = finish.input.len() as u64;
                if len > 0 {
                    port.read_data(task.tag, 0, finish.input);
                }
                Outcome::good().with_read(len)
            }
            Err(ending) => outcome_of(ending, false),
        };
        port.complete(task.tag, outcome);
    }

    /// Starts what may start.
    fn run_ready(&mut self, port: &mut dyn TaskPort) {
        while let Some(slot) = self.runnable.pop_front() {
            self.begin(slot, port);
        }
    }

    fn begin(&mut self, slot: usize, port: &mut dyn TaskPort) {
        let Some(task) = self.tasks.get(slot).and_then(Option::as_ref) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let call = Call {
            target: &self.target,
            unit: &bound.unit,
            view: &bound.view,
            raw: &task.cdb,
            write_length: task.write_length,
            protocol_level: self.protocol_level,
        };
        let flow = match bound.gone {
            true => Err(Sense::illegal(Asc::LOGICAL_UNIT_NOT_SUPPORTED).into()),
            false => sbc::begin(&call),
        };
        match flow {
            Ok(Flow::Finish(finish)) => self.finish(slot, Ok(finish), port),
            Ok(Flow::Read(io)) => self.begin_read(slot, io, port),
            Ok(Flow::Write(io)) => self.begin_write(slot, io, port),
            Ok(Flow::Sequence(co, run)) => {
                if let Some(task) = self.task(slot) {
                    task.work = Work::Sequence { co, run };
                }
                self.drive(slot, port);
            }
            Err(ending) => self.finish(slot, Err(ending), port),
        }
    }

    /// Hands an operation of a task to the device of unit `at`.
    fn submit(&mut self, slot: usize, at: usize, op: BlockOp) {
        if let Some(task) = self.task(slot) {
            task.ops += 1;
        }
        if let Some(bound) = self.units.get_mut(at).and_then(Option::as_mut) {
            bound.submit(op, at, &mut self.busy);
        }
    }

    /// An operation has ended.
    fn operation_done(&mut self, done: BlockDone, port: &mut dyn TaskPort) {
        let (slot, part) = task::parts_of(done.id);
        let Some(task) = self.task(slot) else { return };
        task.ops -= 1;
        if task.aborted.is_some() {
            return self.abort_if_idle(slot, port);
        }
        match &mut task.work {
            Work::Read(_) => self.read_done(slot, part, done.result, port),
            Work::Write(_) => self.write_done(slot, done.result, port),
            Work::Sequence { co, .. } => {
                co.answer(Answer::Operation(done.result));
                self.drive(slot, port);
            }
            Work::Held => {}
        }
    }

    /// Takes a task out of the books; what it held is released.
    fn remove(&mut self, slot: usize) -> Option<Box<Running>> {
        let task = self.tasks.get_mut(slot).and_then(Option::take)?;
        self.free.push(slot);
        if let Some(entry) = self.by_tag.get_mut(task.tag.slot()) {
            *entry = None;
        }
        if !self.parked.is_empty() {
            self.parked.retain(|s| *s != slot);
        }
        if !self.starved.is_empty() {
            self.starved.retain(|s| *s != slot);
        }
        if let Some(bound) = self.units.get_mut(task.at).and_then(Option::as_mut) {
            if let Some(released) = bound.release(slot, &task) {
                self.runnable.extend(released);
            }
            if bound.gone {
                self.unbind_if_idle(task.at);
            }
        }
        Some(task)
    }

    /// Lets go of what an ended task holds, and keeps its box.
    fn recycle(&mut self, mut task: Box<Running>) {
        task.clear();
        if self.spare.len() < SPARE {
            self.spare.push(task);
        }
    }

    fn finish(&mut self, slot: usize, ended: Ended, port: &mut dyn TaskPort) {
        let Some(at) = self.task(slot).map(|t| t.at) else { return };
        // The setting of the moment: a MODE SELECT before this has changed it.
        let descriptor = self.bound(at).is_some_and(|b| b.unit.flags().has(Flags::D_SENSE));
        self.count(slot, &ended);
        let Some(task) = self.remove(slot) else { return };
        let Running { tag, mut in_total, out_total, .. } = *task;
        let outcome = match ended {
            Ok(Finish { status, input, fence }) => {
                if !input.is_empty() {
                    in_total = input.len() as u64;
                    port.read_data(tag, 0, input);
                }
                let outcome = Outcome::status(ScsiStatus(status.0));
                if fence { outcome.with_fence() } else { outcome }
            }
            Err(ending) => outcome_of(ending, descriptor),
        };
        port.complete(tag, outcome.with_read(in_total).with_write(out_total));
        self.recycle(task);
    }

    fn count(&self, slot: usize, ended: &Ended) {
        let Some(task) = self.tasks.get(slot).and_then(Option::as_ref) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let sent = ended.as_ref().map_or(0, |finish| finish.input.len() as u64);
        let (input, output) = (sent.max(task.in_total), task.out_total.min(task.write_length.into()));
        bound.view.counters.count(&bound.unit, &task.cdb, ended, input, output);
    }

    /// Ends an aborted task once none of its operations can have an effect any more.
    fn abort_if_idle(&mut self, slot: usize, port: &mut dyn TaskPort) {
        let Some(task) = self.task(slot) else { return };
        let (Some(report), 0) = (task.aborted, task.ops) else { return };
        let Some(task) = self.remove(slot) else { return };
        if report {
            port.complete(task.tag, Outcome::status(ScsiStatus::TaskAborted));
        } else {
            port.discard(task.tag);
        }
        self.recycle(task);
    }

    /// Marks a task aborted; `report` asks for TASK ABORTED status. The first reason counts.
    fn abort_task(&mut self, slot: usize, report: bool, hold: Option<Hold>, port: &mut dyn TaskPort) {
        if let Some(task) = self.task(slot) {
            task.aborted.get_or_insert(report);
            task.holds.extend(hold);
            self.abort_if_idle(slot, port);
        }
    }

    fn follow_orders(&mut self, port: &mut dyn TaskPort) {
        for order in self.mailbox.take_orders() {
            let Order::AbortTasks { unit, epoch, report, until_done } = order;
            let slots: Vec<usize> = (0..self.tasks.len())
                .filter(|slot| {
                    let task = self.tasks[*slot].as_ref().filter(|t| t.epoch < epoch);
                    let bound = task.and_then(|t| self.units[t.at].as_ref());
                    bound.is_some_and(|b| Arc::ptr_eq(&b.unit, &unit))
                })
                .collect();
            for slot in slots {
                self.abort_task(slot, report, Some(until_done.clone()), port);
            }
        }
    }
}

/// The outcome of a command that did not end well.
fn outcome_of(ending: Ending, descriptor: bool) -> Outcome {
    // req: 7143-10.2-1
    match ending {
        Ending::Check(sense) => Outcome::check_condition(Bytes::from(sense.encode(descriptor))),
        Ending::Status(status) => Outcome::status(ScsiStatus(status.0)),
        Ending::Busy(delay) => {
            Outcome { status_qualifier: StatusQualifier::wait(delay).0, ..Outcome::status(ScsiStatus::Busy) }
        }
    }
}

impl DeviceServer for Nexus {
    fn execute(&mut self, task: Task, port: &mut dyn TaskPort) {
        self.look_at_inventory();
        let Some(at) = self.bound_at(task.lun) else {
            return self.without_unit(&task, port);
        };
        let Some(bound) = self.units[at].as_mut() else { return };
        if bound.total >= bound.unit.config.queue_depth {
            return port.complete(task.tag, outcome_of(Ending::Status(Status::TaskSetFull), false));
        }
        if task.attr == iscsi_pdu::TaskAttr::Aca {
            // There is no ACA condition that the task could belong to (SAM-5 clause 8.6.6).
            let sense = Sense::illegal(Asc::INVALID_MESSAGE_ERROR);
            return port.complete(task.tag, outcome_of(sense.into(), bound.unit.flags().has(Flags::D_SENSE)));
        }
        let (tag, slot) = (task.tag, self.free.pop().unwrap_or(self.tasks.len()));
        let epoch = bound.unit.epoch();
        let starts = bound.admit(slot, task.attr);
        let running = match self.spare.pop() {
            Some(mut spare) => {
                spare.begin(task, at, epoch);
                spare
            }
            None => Box::new(Running::new(task, at, epoch)),
        };
        if slot == self.tasks.len() {
            self.tasks.push(Some(running));
        } else {
            self.tasks[slot] = Some(running);
        }
        if self.by_tag.len() <= tag.slot() {
            self.by_tag.resize(tag.slot() + 1, None);
        }
        self.by_tag[tag.slot()] = Some((tag, slot));
        if starts {
            self.begin(slot, port);
            // What it was before may have ended with it.
            self.run_ready(port);
        }
    }

    fn write_data(
        &mut self,
        tag: TaskTag,
        _: u32,
        data: SgListMut,
        result: Result<(), DataError>,
        port: &mut dyn TaskPort,
    ) {
        let Some(slot) = self.slot_of(tag) else { return };
        let Some(fetch) = self.task(slot).and_then(|t| t.fetch.take()) else { return };
        let Fetch { mut have } = fetch;
        let fetched = match result {
            Ok(()) => {
                data.freeze().parts().for_each(|part| have.push(part.clone()));
                Ok(have)
            }
            Err(error) => Err(error),
        };
        self.fetched(slot, fetched, port);
        self.run_ready(port);
    }

    fn abort(&mut self, tag: TaskTag, port: &mut dyn TaskPort) {
        match self.slot_of(tag) {
            Some(slot) => self.abort_task(slot, false, None, port),
            None => port.discard(tag),
        }
        self.run_ready(port);
    }

    fn task_management(&mut self, function: Function, port: &mut dyn TaskPort) {
        self.look_at_inventory();
        self.function(function, port);
        self.run_ready(port);
    }

    fn commands_cleared(&mut self, lun: Lun) {
        if let Some(bound) = self.bound_at(lun).and_then(|at| self.units[at].as_ref()) {
            bound.view.attentions.establish(Asc::SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT);
        }
    }

    fn nexus_loss(&mut self) {
        for bound in self.units.iter().flatten().filter(|b| !b.gone) {
            bound.unit.leave(&bound.view);
        }
        self.units.clear();
        self.busy.clear();
        self.by_lun.clear();
        self.tasks.clear();
        self.by_tag.clear();
        self.spare.clear();
        self.free.clear();
        self.parked.clear();
        self.starved.clear();
        self.runnable.clear();
        self.functions.clear();
        self.mailbox.close();
        self.generation = OVER;
    }

    fn poll(&mut self, cx: &mut Context<'_>, _: Instant, port: &mut dyn TaskPort) -> Poll<()> {
        self.mailbox.listen(cx.waker());
        let mut busy = false;
        if self.mailbox.take_woken() {
            self.look_at_inventory();
            self.follow_orders(port);
            for slot in std::mem::take(&mut self.parked) {
                self.drive(slot, port);
            }
        }
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        // What ends may begin more, on units that come last then.
        let mut next = 0;
        while let Some(at) = self.busy.get(next).copied() {
            while let Some(done) = self.units[at].as_mut().and_then(|b| b.poll_done(&mut cx)) {
                busy = true;
                self.operation_done(done, port);
            }
            if self.units[at].as_ref().is_some_and(Bound::is_busy) {
                next += 1;
            } else {
                self.busy.swap_remove(next);
            }
        }
        busy |= self.feed_starved(port);
        busy |= !self.runnable.is_empty();
        self.run_ready(port);
        let functions = std::mem::take(&mut self.functions);
        for (tag, hold) in functions {
            if hold.is_last() {
                busy = true;
                port.respond(tag, iscsi_pdu::TaskMgmtStatus::FunctionComplete, [0; 3]);
            } else {
                self.functions.push((tag, hold));
            }
        }
        if busy { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Nexus {
    fn drop(&mut self) {
        self.nexus_loss();
    }
}

impl fmt::Debug for Nexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nexus({}, {} units, {} tasks)", self.id, self.by_lun.len(), self.tasks())
    }
}

/// Enough for the deepest queue of one nexus, little enough to keep.
const SPARE: usize = 256;

/// The generation of a nexus that is over and looks at no inventory any more.
const OVER: u64 = u64::MAX;

/// An operation's name: the task's slot and the part of the task's work that it does.
fn op_id(slot: usize, part: u32) -> OpId {
    OpId((slot as u64) << 32 | u64::from(part))
}

#[cfg(test)]
pub(crate) mod tests;
