//! Tasks that outlive their connection, at ErrorRecoveryLevel 2 (RFC 7143 sections 7.1.4.3, 7.2.2, 11.5.6).
//!
//! ```text
//!   allegiant ──connection lost──▶ suspended ──recovery logout──▶ awaiting ──TASK REASSIGN──▶ allegiant, elsewhere
//!       │   └───logout reason 2, reinstatement─────────────────────▲  │
//!       │                            │                                │ Time2Wait + Time2Retain
//!       ▼                            ▼                                ▼
//!   response                       ended, SOME COMMANDS CLEARED BY ISCSI PROTOCOL EVENT
//! ```
//!
//! Meanwhile the device server goes on: its input is kept, its requests for output wait, and a response is kept as if
//! it had been sent and not acknowledged. One that a fence holds back is there as well, and stays behind the fence.

use super::conn::Conn;
use super::retain::TaskState;
use super::{Queued, Stage, TargetSession, TaskEvent};
use crate::action::{ConnId, DownCall};
use crate::device::TaskTag;
use crate::slab::Key;
use datamover::{GetData, IoBuf, PutData, Reclaimed, SgList};
use iscsi_pdu::{DataSn, Itt, Lun, Pdu, SnackTag, TaskMgmtRequest, TaskMgmtResponse, TaskMgmtStatus};

/// A TASK REASSIGN under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reassignment {
    pub(super) task: Itt,
    pub(super) exp_data_sn: DataSn,
    /// The connection that the task was allegiant to.
    pub(super) from: ConnId,
}

impl TargetSession {
    /// A connection is out of service and its tasks are not: all but the immediate ones, and those that are being ended,
    /// wait for another.
    // req: 7143-7.14-5
    pub(super) fn suspend_tasks_of(&mut self, id: ConnId) {
        if let Some(conn) = self.conn_mut(id) {
            conn.suspended = true;
        }
        let ends = |stage: Stage| matches!(stage, Stage::Ending | Stage::Terminating);
        let theirs = self.tasks.iter().filter(|(_, t)| t.conn == id && (t.immediate || ends(t.stage)));
        let theirs: Vec<Key> = theirs.map(|(key, _)| key).collect();
        let mut cleared: Vec<Lun> = Vec::new();
        theirs.into_iter().for_each(|key| self.end_task_of_lost(key, &mut cleared));
        self.upcalls.extend(cleared.into_iter().map(TaskEvent::CommandsCleared));
    }

    /// A recovery logout: requests that were not acknowledged are as if they had never come.
    // req: 7143-11.14-5
    pub(super) fn discard_unacknowledged(&mut self, id: ConnId) {
        let exp = self.order.window().exp_cmd_sn();
        let tasks = &self.tasks;
        let gone = self.order.remove(|q| match q {
            Queued::Scsi(key) => tasks.get(*key).is_none_or(|t| t.conn == id && !t.cmd_sn.precedes(exp)),
            Queued::Request(conn, pdu) => *conn == id && pdu.cmd_sn().is_some_and(|sn| !sn.precedes(exp)),
        });
        for (_, queued) in gone {
            if let Queued::Scsi(key) = queued
                && self.forget(key).is_some()
            {
                self.counters.aborted += 1;
            }
        }
    }

    /// The datamover of a lost connection has given everything back.
    pub(super) fn take_back(&mut self, id: ConnId, reclaimed: Vec<(Itt, Reclaimed)>) {
        if !self.conn(id).is_some_and(|c| c.suspended) {
            return;
        }
        for (itt, Reclaimed { gets, input, .. }) in reclaimed {
            let live = self.by_itt.get(&itt).copied().and_then(|key| self.tasks.get_mut(key));
            let state = match live.filter(|t| t.conn == id) {
                Some(task) => task.state.as_mut(),
                None => match self.fences.held(id, itt) {
                    Some(held) => held.state.as_mut(),
                    None => {
                        let conn = self.conns.iter_mut().find(|c| c.id == id);
                        conn.and_then(|c| c.kept.response(itt)).and_then(|k| k.state.as_mut())
                    }
                },
            };
            let Some(state) = state else { continue };
            for (offset, buffer) in gets {
                if let Some(get) = state.gets.iter_mut().find(|(at, _, _)| *at == offset) {
                    get.2 = Some(buffer);
                }
            }
            state.progress = input;
        }
        let theirs: Vec<Key> = self.tasks.iter().filter(|(_, t)| t.conn == id).map(|(key, _)| key).collect();
        for key in theirs {
            let Some(task) = self.tasks.get_mut(key) else { continue };
            task.gets = 0;
            // The device server is done with it: the response waited for data that nobody needs.
            if task.stage == Stage::Executing
                && let Some(outcome) = task.outcome.take()
            {
                self.finish(key, outcome);
            }
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.gets = 0;
        }
    }

    /// Whether a TASK REASSIGN can be carried out, and from which connection.
    // req: 7143-7.2.2-7, 7143-7.2.2-8, 7143-11.5.1-18, 7143-11.5.1-20, 7143-11.5.1-21
    pub(super) fn reassignable(&self, request: &TaskMgmtRequest) -> Result<ConnId, TaskMgmtStatus> {
        let tag = request.referenced_task_tag;
        if !self.reassigns() {
            return Err(TaskMgmtStatus::ReassignmentNotSupported);
        }
        let queued = |q: &Queued| matches!(q, Queued::Request(_, pdu) if pdu.itt() == tag);
        if !request.immediate || self.itt_in_use(tag) || self.order.iter().any(queued) {
            return Err(TaskMgmtStatus::FunctionRejected);
        }
        self.holder_of(tag)
    }

    /// The connection that a task waits on for a reassignment.
    fn holder_of(&self, tag: Itt) -> Result<ConnId, TaskMgmtStatus> {
        let awaiting = |id: ConnId| self.lost.iter().any(|l| l.conn == id && l.is_logged_out());
        let live = self.by_itt.get(&tag).and_then(|key| self.tasks.get(*key));
        let holder = match live {
            Some(task) if matches!(task.stage, Stage::Waiting | Stage::Executing) => Some(task.conn),
            Some(_) => None,
            None => {
                let holds = |c: &&Conn| c.kept.has_response(tag) || self.fences.holds(c.id, tag);
                let holders =
                    || self.conns.iter().filter(|c| c.open || c.suspended).filter(holds).map(|c| c.id);
                holders().find(|id| awaiting(*id)).or_else(|| holders().next())
            }
        };
        match holder {
            Some(id) if awaiting(id) => Ok(id),
            Some(_) => Err(TaskMgmtStatus::TaskStillAllegiant),
            None => Err(TaskMgmtStatus::TaskDoesNotExist),
        }
    }

    /// Whether the datamover of the old connection has given back what a reassigned task needs.
    pub(super) fn is_given_back(&self, reassignment: Reassignment) -> bool {
        self.conn(reassignment.from).is_none_or(|c| c.gone)
    }

    /// Carries a TASK REASSIGN out: the response first, then what is still due of the task.
    // req: 7143-7.2.2-9, 7143-11.5.1-19, 7143-11.6-1, 7143-7.2.2-5
    pub(super) fn reassign(&mut self, id: ConnId, itt: Itt, reassignment: Reassignment) {
        let Reassignment { task, exp_data_sn, .. } = reassignment;
        let lacks = |id: &ConnId| {
            let over = !self.by_itt.contains_key(&task) && !self.fences.holds(*id, task);
            over && self.conn(*id).is_some_and(|c| c.kept.lacks_input(task, exp_data_sn))
        };
        let holder = match self.holder_of(task) {
            Ok(id) if lacks(&id) => Err(TaskMgmtStatus::TaskDoesNotExist),
            holder => holder,
        };
        let response = holder.err().unwrap_or(TaskMgmtStatus::FunctionComplete);
        self.counters.functions += 1;
        let answer = TaskMgmtResponse { response, itt, ..TaskMgmtResponse::default() };
        self.transmit(id, answer.into());
        let Ok(from) = holder else { return };
        match self.by_itt.get(&task).copied() {
            Some(key) => self.adopt_task(id, key, exp_data_sn),
            None if self.fences.holds(from, task) => self.adopt_held(id, from, task, exp_data_sn),
            None => self.adopt_response(id, from, task, exp_data_sn),
        }
    }

    /// A task goes on, on this connection.
    // req: 7143-7.2.2-2, 7143-7.2.2-3, 7143-7.2.2-10, 7143-11.5.6-2
    fn adopt_task(&mut self, id: ConnId, key: Key, exp_data_sn: DataSn) {
        let pool = self.conn(id).map_or_else(|| self.no_pool.clone(), |c| c.pool.clone());
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.conn = id;
        (task.snack_tag, task.snack_rejected) = (SnackTag::default(), false);
        if !task.burst.complete {
            // What is missing of the unsolicited data is asked for (RFC 7145 section 10.2.2).
            task.burst.cut();
        }
        let (itt, lun) = (task.itt, task.lun);
        let Some(state) = task.state.as_mut() else { return };
        let input = state.resume(exp_data_sn);
        let mut calls = Vec::new();
        for (offset, len, buffer) in &mut state.gets {
            // A call that never got to the old datamover took its buffer with it.
            let into = buffer.take().or_else(|| pool.alloc(*len));
            let into = into.unwrap_or_else(|| IoBuf::zeroed(*len).into());
            let resume = state.resume.take();
            calls.push(DownCall::GetData(GetData { itt, lun, offset: *offset, into, resume }));
        }
        let gets = calls.len();
        task.gets = gets as u32;
        calls.extend(puts(state, itt, lun, input));
        if let Some(conn) = self.conn_mut(id) {
            conn.gets += gets;
        }
        self.set_window(id);
        calls.into_iter().for_each(|call| self.call(id, call));
    }

    /// A task whose response was not acknowledged: its data, as far as it is not acknowledged, and its response.
    // req: 7143-7.2.2-3, 7143-7.2.2-5, 7143-7.2.2-10
    fn adopt_response(&mut self, id: ConnId, from: ConnId, itt: Itt, exp_data_sn: DataSn) {
        let Some(kept) = self.conn_mut(from).and_then(|c| c.kept.take_response(itt)) else { return };
        let Pdu::ScsiResponse(mut response) = kept.pdu else { return };
        let mut state = kept.state.unwrap_or_default();
        response.snack_tag = SnackTag::default();
        let input = state.resume(exp_data_sn);
        response.exp_data_sn = state.progress.next;
        let lun = state.lun;
        self.set_window(id);
        for call in puts(&mut state, itt, lun, input) {
            self.call(id, call);
        }
        // It was ready before any fence that is up, and goes before what that holds back.
        if let Some(stat_sn) = self.transmit_with(id, response.into(), Some(state))
            && self.fences.wait_also(lun, id, stat_sn)
        {
            self.ping(id);
        }
    }

    /// A task whose response a fence holds back: its data goes out now, its response on this connection when the fence
    /// lets go.
    // req: 7143-7.2.2-3, 7143-7.2.2-5, 7143-4.2.2.3.3-5
    fn adopt_held(&mut self, id: ConnId, from: ConnId, itt: Itt, exp_data_sn: DataSn) {
        let Some(held) = self.fences.held(from, itt) else { return };
        let Pdu::ScsiResponse(response) = &mut held.pdu else { return };
        held.conn = id;
        let state = held.state.get_or_insert_default();
        response.snack_tag = SnackTag::default();
        let input = state.resume(exp_data_sn);
        response.exp_data_sn = state.progress.next;
        let lun = state.lun;
        let calls = puts(state, itt, lun, input);
        self.set_window(id);
        calls.into_iter().for_each(|call| self.call(id, call));
    }

    /// An ABORT TASK of a task that is over, over another connection than that of its response: it is allegiant to that now,
    /// and the status is sent once more (section 11.5.1). Not if input went before it: the request does not say how much of it
    /// the initiator has, and without that a status must not pass for success.
    pub(super) fn send_lost_status(&mut self, id: ConnId, itt: Itt) {
        let Ok(from) = self.holder_of(itt) else { return };
        if self.fences.holds(from, itt) {
            return;
        }
        let kept = self.conn_mut(from).and_then(|c| c.kept.response(itt));
        let Some(state) = kept.and_then(|k| k.state.as_ref()).filter(|s| s.had_no_input()) else { return };
        let exp_data_sn = state.progress.next;
        self.adopt_response(id, from, itt, exp_data_sn);
    }

    /// Drops the responses of these tasks that wait for a reassignment: the initiator takes them for ended.
    pub(super) fn drop_stranded_responses(&mut self, mut of: impl FnMut(Itt, &TaskState) -> bool) {
        for conn in self.conns.iter_mut().filter(|c| c.suspended) {
            conn.kept.drop_responses(&mut of);
        }
    }

    /// Ends one task of a connection that is gone.
    pub(super) fn end_task_of_lost(&mut self, key: Key, cleared: &mut Vec<Lun>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.reclaiming {
            // The device server is done with it, and a connection that is closed gives nothing back but at its end.
            if !self.awaits_reads(key) {
                self.retire(key);
                self.counters.aborted += 1;
            }
            return;
        }
        let mut clear = |lun: Lun| {
            if !cleared.contains(&lun) {
                cleared.push(lun);
            }
        };
        match task.stage {
            Stage::Waiting => {
                self.retire(key);
                self.counters.aborted += 1;
            }
            // The device server is done with it: the response was waiting for data.
            Stage::Executing if task.outcome.is_some() => {
                clear(task.lun);
                if !self.awaits_reads(key) {
                    self.retire(key);
                    self.counters.aborted += 1;
                }
            }
            Stage::Executing | Stage::Ending | Stage::Terminating => {
                if task.stage == Stage::Executing {
                    self.upcalls.push_back(TaskEvent::Abort(TaskTag(key.0)));
                }
                clear(task.lun);
                task.stage = Stage::Orphaned;
                self.orphans += 1;
            }
            Stage::Orphaned => {}
        }
    }
}

/// The calls that send input.
fn puts(state: &mut TaskState, itt: Itt, lun: Lun, input: Vec<(u32, SgList)>) -> Vec<DownCall> {
    input
        .into_iter()
        .map(|(offset, data)| {
            let resume = state.resume.take();
            DownCall::PutData(PutData { itt, lun, offset, data, resume, ack: false, notify: false })
        })
        .collect()
}
