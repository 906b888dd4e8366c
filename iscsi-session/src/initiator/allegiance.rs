//! TASK REASSIGN at the initiator: a task gets another connection (RFC 7143 section 7.2.2).
//!
//! ```text
//!   suspended ──▶ TASK REASSIGN ──┬─▶ complete: the task goes on
//!       ▲                         ├─▶ no such task: over ──▶ any other answer: so is the session
//!       └── its buffers are back ─┴── Reject 0x06: no room for another immediate command now
//! ```

use super::task::TaskStage;
use super::{EndCause, Entry, InitiatorSession, TaskFailure, Timer};
use crate::action::{Action, ConnId, DownCall};
use crate::slab::Key;
use datamover::Control;
use iscsi_pdu::{Itt, RejectReason, TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse, TaskMgmtStatus};
use std::time::{Duration, Instant};

/// How long a request for which the target had no room waits, if no answer to another one makes room before.
const AGAIN: Duration = Duration::from_secs(1);

impl InitiatorSession {
    /// TASK REASSIGN of one task, on this connection; again and again while the target has no room for it, as long as it
    /// may keep tasks that nobody reassigns, and then some.
    pub(super) fn begin_reassign(&mut self, key: Key, on: ConnId) {
        let retain = Duration::from_secs(u64::from(self.params.default_time2retain));
        self.send_reassign(key, on, self.now + retain + self.cfg.reassign_timeout);
    }

    // req: 7143-7.1.4.3-2, 7143-11.5.1-22, 7143-11.5.6-4, 7143-7.2.2-11, 7145-7.3.3-8, 7145-3.3-5, 7145-10.2.2-2
    fn send_reassign(&mut self, key: Key, on: ConnId, until: Instant) {
        let entry = |next| Entry::Reassign { conn: on, task: key, next, until, held: false };
        let Some(request_key) = self.entries.insert_with(|_| entry(0.into())) else { return };
        let Some((buffers, next)) = self.move_task(key, on) else {
            self.entries.remove(request_key);
            return;
        };
        if let Some(request) = self.entries.get_mut(request_key) {
            *request = entry(next);
        }
        let cmd_sn = self.window.cmd_sn();
        let exp_data_sn = if self.params.rdma_extensions || buffers.r#in.is_none() { 0.into() } else { next };
        let Some(conn) = self.conn_mut(on) else { return };
        conn.count_unexpected(cmd_sn);
        let request = TaskMgmtRequest {
            immediate: true,
            function: TaskMgmtFunction::TaskReassign,
            itt: Itt(request_key.to_tag()),
            referenced_task_tag: Itt(key.to_tag()),
            cmd_sn,
            exp_stat_sn: conn.exp_stat_sn,
            exp_data_sn,
            ..TaskMgmtRequest::default()
        };
        let control = Control { pdu: request.into(), buffers, unsolicited: 0 };
        self.actions.push_back(Action { conn: on, call: DownCall::SendControl(control) });
        self.timers.set(Timer::Reassign(request_key), self.now + self.cfg.reassign_timeout);
    }

    pub(super) fn is_being_reassigned(&self, key: Key) -> bool {
        self.entries.iter().any(|(_, e)| matches!(e, Entry::Reassign { task, .. } if *task == key))
    }

    /// The response to a TASK REASSIGN.
    // req: 7143-7.2.2-8
    pub(super) fn on_reassign_response(&mut self, key: Key, response: &TaskMgmtResponse) {
        match self.entries.get(key) {
            Some(Entry::Reassign { held: false, .. }) => {}
            // It was rejected before.
            _ => return self.counters.stale_responses += 1,
        }
        self.timers.cancel(Timer::Reassign(key));
        let Some(Entry::Reassign { conn, task, .. }) = self.entries.remove(key) else { return };
        match response.response {
            TaskMgmtStatus::FunctionComplete => {}
            TaskMgmtStatus::TaskDoesNotExist => self.end_task(task, TaskFailure::ConnectionLost),
            _ => self.refuse_reassign(task),
        }
        self.reassign_one_held(conn);
    }

    /// The task may still be executed, and its end would not be told.
    fn refuse_reassign(&mut self, task: Key) {
        self.end_task(task, TaskFailure::ConnectionLost);
        self.lose_session(&EndCause::SessionRecovery);
    }

    /// A TASK REASSIGN was rejected. For lack of room: it is sent again, with the buffers of its task, which its datamover
    /// gives back.
    // req: 7143-7.2.2-8
    pub(super) fn on_reassign_rejected(&mut self, key: Key, reason: RejectReason) {
        let now = self.now;
        let Some(Entry::Reassign { conn, task, next, until, held }) = self.entries.get_mut(key) else {
            return;
        };
        let (id, task, next) = (*conn, *task, *next);
        if std::mem::replace(held, true) {
            return;
        }
        if reason != RejectReason::ImmediateCommandReject || *until <= now {
            self.timers.cancel(Timer::Reassign(key));
            self.entries.remove(key);
            self.refuse_reassign(task);
            return;
        }
        if let Some(Entry::Task(moved)) = self.entries.get_mut(task)
            && matches!(moved.stage, TaskStage::Active)
        {
            moved.stage = TaskStage::Returning(next);
            self.call(id, DownCall::DeallocateTaskResources(Itt(task.to_tag())));
        }
        self.timers.set(Timer::Reassign(key), now + AGAIN);
    }

    /// A TASK REASSIGN is due once more, or its answer is late.
    pub(super) fn on_late_reassign(&mut self, key: Key) {
        match self.entries.get(key) {
            Some(Entry::Reassign { held: true, .. }) => self.reassign_again(key),
            Some(Entry::Reassign { conn, .. }) => self.lose_connection(*conn, &EndCause::Unresponsive),
            _ => {}
        }
    }

    /// The target has answered a TASK REASSIGN on this connection, and has room for one that it had rejected.
    fn reassign_one_held(&mut self, id: ConnId) {
        let waits = |e: &Entry| match e {
            Entry::Reassign { conn, task, held: true, .. } => {
                *conn == id
                    && matches!(self.entries.get(*task),
                        Some(Entry::Task(t)) if matches!(t.stage, TaskStage::Suspended(..)))
            }
            _ => false,
        };
        let held = self.entries.iter().find(|(_, e)| waits(e)).map(|(key, _)| key);
        held.into_iter().for_each(|key| self.reassign_again(key));
    }

    fn reassign_again(&mut self, key: Key) {
        let Some(Entry::Reassign { task, until, .. }) = self.entries.get(key) else { return };
        let (task, until) = (*task, *until);
        let is_ready = match self.entries.get(task) {
            Some(Entry::Task(t)) => matches!(t.stage, TaskStage::Suspended(..)),
            _ => false,
        };
        // Not while a function ends it, nor where there is no connection for it.
        let on = self.reassigns_on().filter(|_| is_ready && !self.is_being_ended(task));
        match (on, self.entries.get(task)) {
            (Some(on), _) => {
                self.timers.cancel(Timer::Reassign(key));
                self.entries.remove(key);
                self.send_reassign(task, on, until);
            }
            (None, Some(Entry::Task(t))) if !t.is_ending() => {
                self.timers.set(Timer::Reassign(key), self.now + AGAIN);
                self.make_room();
            }
            // It is over.
            _ => {
                self.timers.cancel(Timer::Reassign(key));
                self.entries.remove(key);
            }
        }
    }
}
