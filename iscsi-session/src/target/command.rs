//! SCSI commands at the target: arrival, unsolicited data, delivery in the order of CmdSN.

use super::retain::TaskState;
use super::{Queued, Stage, TargetSession, TargetTask, TaskEvent, Timer};
use crate::action::ConnId;
use crate::csm::ConnState;
use crate::device::{Outcome, Task, TaskTag};
use crate::slab::Key;
use crate::status::Condition;
use bytes::Bytes;
use datamover::SgList;
use iscsi_pdu::{Ahs, CmdSn, DataOut, DataSn, Itt, Pdu, RejectReason, ScsiCommand, SnackTag};
use std::time::Instant;

/// The unsolicited data of one command: immediate data and one sequence of Data-Out PDUs
/// (RFC 7143 section 4.2.5.2).
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The data in the order of its arrival: the first piece, mostly the immediate data alone, and the others.
    first: Option<(u32, Bytes)>,
    more: Vec<(u32, Bytes)>,
    received: u64,
    /// DataSN of the next Data-Out PDU.
    data_sn: DataSn,
    /// Whether there was a Data-Out PDU.
    separate: bool,
    pub(super) complete: bool,
    error: Option<Condition>,
    /// Above ErrorRecoveryLevel 0: some of it was lost, and is asked for with the solicited data.
    lost: bool,
    /// When the rest is given up.
    pub(super) deadline: Option<Instant>,
}

impl Burst {
    fn fail(&mut self, condition: Condition) {
        self.error.get_or_insert(condition);
        self.first = None;
        self.more.clear();
    }

    /// Takes one piece, which lies within `limit`, the most that may come unsolicited.
    // req: 7143-11.7.6-1, 7143-11.7.7-1
    fn take(&mut self, offset: u32, data: Bytes, limit: u32, in_order: bool) {
        // Security class 17: the end is computed in 64 bits.
        let end = u64::from(offset) + data.len() as u64;
        self.received += data.len() as u64;
        if end > u64::from(limit) || self.received > u64::from(limit) {
            self.fail(Condition::IncorrectAmountOfData);
        } else if in_order && !self.lost && self.error.is_none() && u64::from(offset) != self.end() {
            // req: 7143-11.7.6-2
            self.fail(Condition::ProtocolServiceCrc);
        } else if self.error.is_none() && !data.is_empty() {
            match self.first {
                None => self.first = Some((offset, data)),
                Some(_) => self.more.push((offset, data)),
            }
        }
    }

    /// Where the last piece ends.
    fn end(&self) -> u64 {
        self.more.last().or(self.first.as_ref()).map_or(0, |(at, data)| u64::from(*at) + data.len() as u64)
    }

    /// Puts the pieces in the order of their offsets.
    fn sort(&mut self) {
        let least = self.more.iter_mut().min_by_key(|(at, _)| *at);
        if let (Some(first), Some(least)) = (&mut self.first, least) {
            if least.0 < first.0 {
                std::mem::swap(first, least);
            }
            self.more.sort_by_key(|(offset, _)| *offset);
        }
    }

    /// The burst is complete: does it make up one piece from offset 0 on?
    // req: 7143-11.4.7.2-2
    fn close(&mut self, first_burst: u32, write_length: u32) {
        self.complete = true;
        self.deadline = None;
        if self.error.is_some() {
            return;
        }
        if self.lost {
            self.cut();
            return;
        }
        if self.separate && write_length > first_burst && self.received != u64::from(first_burst) {
            self.fail(Condition::IncorrectAmountOfData);
            return;
        }
        self.sort();
        let mut next = 0u64;
        let whole = self.first.iter().chain(&self.more).all(|(offset, data)| {
            let fits = u64::from(*offset) == next;
            next += data.len() as u64;
            fits
        });
        if !whole {
            self.fail(Condition::ProtocolServiceCrc);
        }
    }

    /// The burst is over though some of it is missing: what lies before the first gap counts, the rest is asked for
    /// as if it had not been sent (a recovery R2T, sections 7.8 and 7.9).
    // req: 7143-7.8-3, 7143-7.9-2
    pub(super) fn cut(&mut self) {
        self.complete = true;
        self.deadline = None;
        self.sort();
        let mut next = 0u64;
        let mut fits = |(offset, data): &(u32, Bytes)| {
            let fits = u64::from(*offset) == next;
            next += if fits { data.len() as u64 } else { 0 };
            fits
        };
        self.first = self.first.take().filter(&mut fits);
        self.more.retain(&mut fits);
        self.received = next;
    }

    /// Bytes that came, when all is well.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.received).unwrap_or(u32::MAX)
    }
}

impl TargetSession {
    /// A SCSI Command.
    // req: 7143-4.2.2.1-14, 7143-4.2.2.1-12
    pub(super) fn on_scsi_command(&mut self, id: ConnId, command: ScsiCommand) {
        if let Some(task) = self.by_itt.get(&command.itt).and_then(|key| self.tasks.get(*key)) {
            // A retry of what is here already; or, by number, a command that is not to be looked at.
            let retry = task.cmd_sn == command.cmd_sn && task.immediate == command.immediate;
            if retry || !(command.immediate || self.order.admits(command.cmd_sn)) {
                self.counters.ignored += 1;
            } else {
                self.reject(id, &command.into(), RejectReason::TaskInProgress);
            }
            return;
        }
        if !command.immediate && !self.order.admits(command.cmd_sn) {
            self.counters.ignored += 1;
            return;
        }
        if self.itt_in_use(command.itt) {
            self.reject(id, &command.into(), RejectReason::TaskInProgress);
            return;
        }
        if command.itt.is_none() || !(command.final_pdu || command.write) {
            self.reject(id, &command.into(), RejectReason::InvalidPduField);
            return;
        }
        if command.immediate && !self.take_immediate(id) {
            self.reject(id, &command.into(), RejectReason::ImmediateCommandReject);
            return;
        }
        let (cmd_sn, immediate, itt) = (command.cmd_sn, command.immediate, command.itt);
        let Some(key) = self.insert_task(id, command) else { return };
        self.by_itt.insert(itt, key);
        if let Some(conn) = self.conn_mut(id) {
            conn.forget_draining(itt);
        }
        if immediate {
            self.execute_if_complete(key);
        } else {
            self.order.insert(cmd_sn, Queued::Scsi(key));
        }
    }

    fn insert_task(&mut self, id: ConnId, command: ScsiCommand) -> Option<Key> {
        let mut burst = Burst::default();
        let expected = command.expected_data_transfer_length;
        let (mut extended_cdb, mut bidirectional) = (Bytes::new(), 0);
        for ahs in command.ahs {
            match ahs {
                Ahs::ExtendedCdb(bytes) => extended_cdb = bytes,
                Ahs::BidirectionalReadLength(length) => bidirectional = length,
                _ => {}
            }
        }
        let write_length = if command.write { expected } else { 0 };
        let read_length = match (command.read, command.write) {
            (true, true) => bidirectional,
            (true, false) => expected,
            _ => 0,
        };
        // req: 7143-13.11-2, 7143-11.8-1, 7143-4.2.5.2-6
        if !command.data.is_empty() {
            if !self.params.immediate_data || !command.write {
                burst.fail(Condition::UnexpectedUnsolicitedData);
            }
            burst.take(0, command.data, self.burst_limit(write_length), true);
        }
        if command.final_pdu {
            burst.close(self.params.first_burst_length, write_length);
        } else if self.params.initial_r2t {
            burst.fail(Condition::UnexpectedUnsolicitedData);
        }
        if !burst.complete {
            burst.deadline = self.expect_burst(id);
        }
        // req: 7144-5.1.1-2
        let priority = if self.params.iscsi_protocol_level >= 2 { command.priority } else { 0 };
        let task = TargetTask {
            itt: command.itt,
            conn: id,
            lun: command.lun,
            cmd_sn: command.cmd_sn,
            immediate: command.immediate,
            stage: Stage::Waiting,
            attr: command.attr,
            priority,
            cdb: command.cdb,
            extended_cdb,
            read: command.read,
            write: command.write,
            read_length,
            write_length,
            burst,
            gets: 0,
            reclaiming: false,
            next_out: 0,
            next_in: 0,
            unasked: 0,
            misordered: false,
            outcome: None,
            snack_tag: SnackTag::default(),
            snack_rejected: false,
            state: self.reassigns().then(|| {
                let (lun, cmd_sn, immediate) = (command.lun, command.cmd_sn, command.immediate);
                Box::new(TaskState { lun, cmd_sn, immediate, ..TaskState::default() })
            }),
        };
        self.tasks.insert_with(|_| task)
    }

    /// The most that may come unsolicited for a command of this length.
    fn burst_limit(&self, write_length: u32) -> u32 {
        self.params.first_burst_length.min(write_length)
    }

    /// An unsolicited Data-Out PDU.
    // req: 7145-7.3.4-3, 7143-4.2.5.3-1
    pub(super) fn on_data_out(&mut self, id: ConnId, data: DataOut) {
        let known = self.by_itt.get(&data.itt).copied();
        let waiting = known
            .and_then(|key| self.tasks.get(key).map(|task| (key, task)))
            .filter(|(_, task)| task.conn == id && task.stage == Stage::Waiting && !task.burst.complete);
        let Some((key, task)) = waiting.filter(|_| data.ttt.is_none()) else {
            // req: 7143-10.7-2
            if self.conn_mut(id).is_some_and(|c| c.drains(data.itt, data.final_pdu)) {
                self.counters.stale_data += 1;
            } else {
                // req: 7143-7.13-1
                self.reject(id, &data.into(), RejectReason::InvalidPduField);
            }
            return;
        };
        let (limit, write_length) = (self.burst_limit(task.write_length), task.write_length);
        let (in_order, first_burst) = (self.params.data_pdu_in_order, self.params.first_burst_length);
        let recovers = self.recovers();
        let deadline = self.expect_burst(id);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let burst = &mut task.burst;
        burst.separate = true;
        burst.deadline = deadline;
        // req: 7143-7.9-2, 7143-4.2.2.4-1
        if recovers && burst.data_sn.precedes(data.data_sn) {
            burst.lost = true;
        } else if data.data_sn != burst.data_sn {
            burst.fail(Condition::ProtocolServiceCrc);
        }
        burst.data_sn = data.data_sn.next();
        burst.take(data.buffer_offset, data.data, limit, in_order);
        if data.final_pdu {
            burst.close(first_burst, write_length);
            if task.immediate {
                self.execute_if_complete(key);
            }
        }
    }

    /// An unsolicited Data-Out PDU was lost to a data digest error: its task ends with an error once the burst is
    /// over (section 7.8).
    // req: 7143-7.8-3, 7143-7.8-4
    pub(super) fn on_lost_data_out(&mut self, id: ConnId, itt: Itt, data_sn: DataSn, last: bool) {
        let first_burst = self.params.first_burst_length;
        let recovers = self.recovers();
        let Some(key) = self.by_itt.get(&itt).copied() else { return };
        let waits = |t: &&mut TargetTask| t.conn == id && t.stage == Stage::Waiting && !t.burst.complete;
        let Some(task) = self.tasks.get_mut(key).filter(waits) else { return };
        if recovers {
            task.burst.lost = true;
        } else {
            task.burst.fail(Condition::ProtocolServiceCrc);
        }
        task.burst.separate = true;
        task.burst.data_sn = data_sn.next();
        if last {
            let write_length = task.write_length;
            task.burst.close(first_burst, write_length);
            if task.immediate {
                self.execute_if_complete(key);
            }
        }
    }

    /// When the next PDU of a burst is late; `None` where nothing could be done about it.
    fn expect_burst(&mut self, id: ConnId) -> Option<Instant> {
        let timeout = self.conn(id).filter(|_| self.recovers())?.keys.data_timeout;
        let at = self.now + timeout;
        if !self.timers.is_set(Timer::Bursts) {
            self.timers.set(Timer::Bursts, at);
        }
        Some(at)
    }

    /// A sequence reception time-out (section 7.1.4.1): late bursts are taken as they are.
    // req: 7143-7.9-2
    pub(super) fn on_late_bursts(&mut self) {
        let now = self.now;
        let waiting = |t: &TargetTask| t.stage == Stage::Waiting && !t.burst.complete;
        let late: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, t)| waiting(t) && t.burst.deadline.is_some_and(|at| at <= now))
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let Some(task) = self.tasks.get_mut(key) else { continue };
            task.burst.cut();
            let (id, itt, immediate) = (task.conn, task.itt, task.immediate);
            if let Some(conn) = self.conn_mut(id) {
                conn.drain(itt);
            }
            if immediate {
                self.execute_if_complete(key);
            }
        }
        let next = self.tasks.iter().filter(|(_, t)| waiting(t)).filter_map(|(_, t)| t.burst.deadline).min();
        if let Some(at) = next {
            self.timers.set(Timer::Bursts, at);
        }
    }

    /// Counts an immediate command; `false` when the connection has as many as it may.
    // req: 7143-4.2.2.1-5, 7143-4.2.2.1-6, 7143-4.2.2.1-21
    pub(super) fn take_immediate(&mut self, id: ConnId) -> bool {
        let held = self.fences.held_immediates(id).0 as u32;
        let limit = self.cfg.immediate_commands.max(1).saturating_sub(held);
        match self.conn_mut(id) {
            Some(conn) if conn.immediates < limit => {
                conn.immediates += 1;
                true
            }
            _ => false,
        }
    }

    /// Delivers what is due, in the order of CmdSN over all connections. The head of the queue holds the rest back
    /// while its unsolicited data is incomplete, while a task management function before it is not yet with the
    /// device server, and while tasks of a lost connection are still there.
    // req: 7143-4.2.2.1-7, 7143-4.2.2.1-4
    pub(super) fn deliver(&mut self) {
        loop {
            let next = self.order.next();
            let held = self.orphans > 0 || self.terminations_are_due() || self.ending.is_some();
            if held || self.holds_back(next) {
                return;
            }
            match self.order.head() {
                Some(Queued::Scsi(key)) => {
                    let key = *key;
                    if self.tasks.get(key).is_some_and(|t| !t.burst.complete) {
                        return;
                    }
                    self.order.pop();
                    self.execute(key);
                }
                Some(Queued::Request(..)) => {
                    if let Some(Queued::Request(conn, pdu)) = self.order.pop() {
                        self.on_request_in_turn(conn, *pdu);
                    }
                }
                None => return,
            }
        }
    }

    /// An immediate command goes to the device server as soon as it is complete.
    fn execute_if_complete(&mut self, key: Key) {
        let held = self.orphans > 0 || self.terminations_are_due();
        if !held && self.tasks.get(key).is_some_and(|t| t.burst.complete) {
            self.execute(key);
        }
    }

    /// Immediate commands that had to wait for orphans.
    pub(super) fn execute_waiting_immediates(&mut self) {
        let waiting: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, t)| t.immediate && t.stage == Stage::Waiting)
            .map(|(key, _)| key)
            .collect();
        waiting.into_iter().for_each(|key| self.execute_if_complete(key));
    }

    fn execute(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        // req: 7143-11.4.2-1
        if let Some(condition) = task.burst.error {
            self.finish(key, Outcome::check_condition(condition.sense()));
            return;
        }
        task.stage = Stage::Executing;
        let (first, more) = (task.burst.first.take(), std::mem::take(&mut task.burst.more));
        let unsolicited: SgList = first.into_iter().chain(more).map(|(_, b)| b).collect();
        self.counters.commands += 1;
        self.counters.write_bytes += unsolicited.len() as u64;
        self.upcalls.push_back(TaskEvent::Execute(Task {
            tag: TaskTag(key.0),
            lun: task.lun,
            attr: task.attr,
            priority: task.priority,
            cdb: task.cdb,
            extended_cdb: std::mem::take(&mut task.extended_cdb),
            read_length: task.read_length,
            write_length: task.write_length,
            unsolicited,
        }));
    }

    /// Whether a tag names something other than a SCSI task.
    pub(super) fn itt_in_use(&self, itt: Itt) -> bool {
        self.functions.iter().any(|f| f.is_called(itt))
            || self.logouts.iter().any(|l| l.itt == itt)
            || self.conns.iter().any(|c| c.text.as_ref().is_some_and(|t| t.itt == itt))
    }

    /// Whether a tag is that of any task, or none at all.
    pub(super) fn is_taken(&self, itt: Itt) -> bool {
        itt.is_none() || self.by_itt.contains_key(&itt) || self.itt_in_use(itt)
    }

    /// A numbered request other than a SCSI command: queued for its turn.
    pub(super) fn queue_request(&mut self, id: ConnId, cmd_sn: CmdSn, pdu: Pdu<Bytes>) {
        if self.order.admits(cmd_sn) {
            self.order.insert(cmd_sn, Queued::Request(id, Box::new(pdu)));
        } else {
            self.counters.ignored += 1;
        }
    }

    /// Ends a task that the device server has not seen: what is still to come of its data is dropped.
    pub(super) fn drop_waiting(&mut self, key: Key) {
        let Some(task) = self.tasks.get(key) else { return };
        let (id, itt, complete) = (task.conn, task.itt, task.burst.complete);
        if !task.immediate {
            let cmd_sn = task.cmd_sn;
            self.order.void(cmd_sn);
        }
        // The credit of a numbered one comes back when its turn is past.
        self.forget(key);
        self.counters.aborted += 1;
        if let Some(conn) = self.conn_mut(id)
            && !complete
            && conn.machine.state() != ConnState::CleanupWait
        {
            conn.drain(itt);
        }
    }
}
