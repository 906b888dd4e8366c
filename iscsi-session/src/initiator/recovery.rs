//! The end of connections and of the session at the initiator (RFC 7143 sections 6.3.5, 7.1.4.4, 7.14, 7.15).

use super::{
    Completion, EndCause, Entry, ExchangeFailure, ExchangeTag, InitiatorEvent, InitiatorSession, TaskDone,
    TaskFailure, Timer,
};
use crate::action::{ConnId, DownCall};
use crate::csm::ConnEvent;
use crate::device::TaskTag;
use crate::slab::Key;
use crate::ssm::SessionEvent;
use datamover::{Cause, TaskBuffers, Terminated};
use iscsi_pdu::{DataSn, Itt};
use std::collections::HashMap;
use std::time::Duration;

/// What a datamover has given back: a task's buffers, and the first DataSN that did not come.
pub(super) type Back = HashMap<Itt, (TaskBuffers, DataSn)>;

impl InitiatorSession {
    /// A datamover has given its connection up, or carried our own close out: all buffers are here.
    // req: 5047-10.2.1-1, 7143-7.1.4.3-1
    pub(super) fn on_terminated(&mut self, id: ConnId, mut terminated: Terminated) {
        // What was to be sent on it and was not collected yet has buffers too.
        for action in std::mem::take(&mut self.actions) {
            if action.conn == id {
                action.call.reclaim(&mut terminated);
            } else {
                self.actions.push_back(action);
            }
        }
        let Terminated { cause, reclaimed } = terminated;
        let mut back: Back = reclaimed.into_iter().map(|(itt, r)| (itt, (r.buffers, r.input.next))).collect();
        // Responses that came ahead of lost ones are responses all the same.
        let ahead = self.conn_mut(id).map(|c| c.ahead.drain(c.exp_stat_sn)).unwrap_or_default();
        let format = matches!(cause, Cause::Format(_));
        let logged_out = self.conn(id).is_some_and(|c| c.logged_out);
        self.lose_connection(id, &EndCause::Datamover(cause));
        // req: 7143-7.7-1, 7145-10.1.4.1-1
        if format {
            self.lose_session(&EndCause::Protocol(
                "a PDU with a format error ends all connections of its session",
            ));
        }
        ahead.into_iter().for_each(|(pdu, buffers)| self.dispatch(id, pdu, buffers));
        if self.conn(id).is_some_and(|c| c.lost.is_some()) {
            self.suspend_tasks_of(id, back);
            return;
        }
        let held = self.awaits_confirmation(id);
        let failure = if logged_out { TaskFailure::LoggedOut } else { TaskFailure::ConnectionLost };
        let theirs: Vec<Key> =
            self.entries.iter().filter(|(_, e)| e.conn() == id).map(|(key, _)| key).collect();
        // Commands first: functions complete after the tasks that they end.
        let (tasks, others): (Vec<Key>, Vec<Key>) =
            theirs.into_iter().partition(|key| matches!(self.entries.get(*key), Some(Entry::Task(_))));
        if held {
            self.hold_lost_tasks(id, back);
        } else {
            for key in tasks {
                self.end_lost_task(key, failure, back.remove(&Itt(key.to_tag())).map(|(b, _)| b));
            }
        }
        for key in others {
            self.end_lost_exchange(key);
        }
        self.conns.retain(|c| c.id != id);
        self.recover();
    }

    // req: 7143-11.4.3-2, 7143-4.2.3.3-5
    pub(super) fn end_lost_task(&mut self, key: Key, failure: TaskFailure, buffers: Option<TaskBuffers>) {
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return };
        let (result, held) = task.take_end();
        let result = result.unwrap_or(Err(failure));
        let buffers = buffers.or(held).unwrap_or_default();
        self.conclude(key, TaskDone { tag: TaskTag(key.0), result, buffers });
    }

    pub(super) fn end_lost_exchange(&mut self, key: Key) {
        let lost = ExchangeFailure::ConnectionLost;
        self.timers.cancel(Timer::Reassign(key));
        match self.entries.get(key) {
            Some(Entry::Function(_)) => self.fail_function(key, lost),
            Some(Entry::Text(_)) => self.fail_text(key, lost),
            Some(Entry::Ping { wanted, recovers, .. }) => {
                let (wanted, recovers) = (*wanted, *recovers);
                self.entries.remove(key);
                if wanted {
                    let result = Err(lost);
                    self.completions.push_back(Completion::Ping { tag: ExchangeTag(key.0), result });
                }
                if let Some(conn) = recovers {
                    self.recovery_lost_its_carrier(conn);
                }
            }
            Some(Entry::Logout { recovers: Some(conn), .. }) => {
                let conn = *conn;
                self.entries.remove(key);
                self.recovery_lost_its_carrier(conn);
            }
            Some(Entry::Cleanup { .. }) => {
                self.entries.remove(key);
                self.cleanup_is_lost(key);
            }
            _ => {
                self.entries.remove(key);
            }
        }
    }

    /// Takes a connection out of service that was not logged out. Its requests are over when its datamover has given
    /// the buffers back. At ErrorRecoveryLevel 0 the whole session goes with it; at 1 it goes on with what connections
    /// it has; at 2 the requests go on, too.
    // req: 7143-7.14-3, 7143-7.1.4.4-1, 7143-8.1.2-13
    pub(super) fn lose_connection(&mut self, id: ConnId, cause: &EndCause) {
        self.lose_connection_for(id, cause, self.params.default_time2wait, self.params.default_time2retain);
    }

    /// As `lose_connection`, with the times that the target gave.
    pub(super) fn lose_connection_for(&mut self, id: ConnId, cause: &EndCause, wait: u16, retain: u16) {
        let outlives = self.outlives();
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        conn.machine.apply(ConnEvent::TransportDisconnected);
        self.shut(id, cause.clone());
        if outlives {
            self.begin_recovery(id, wait, retain);
        } else if self.goes_on_without(id) {
            self.go_on_without(id);
            return;
        } else {
            self.lose_session(&EndCause::SessionRecovery);
        }
        // req: 7143-6.3.6-1, 7143-6.3.5-2
        if !self.conns.iter().any(|c| c.machine.state().is_full_feature()) {
            self.machine.apply(SessionEvent::Failed);
        }
    }

    /// Takes all connections out of service.
    // req: 7143-7.15-1, 7143-7.14-4
    pub(super) fn lose_session(&mut self, cause: &EndCause) {
        self.abandoned = true;
        let open: Vec<ConnId> = self.conns.iter().filter(|c| c.open).map(|c| c.id).collect();
        for id in open {
            self.conn_event(id, ConnEvent::TransportDisconnected);
            self.shut(id, cause.clone());
        }
        self.give_lost_up();
        self.give_up_recoveries();
        if !self.conns.iter().any(|c| c.machine.state().is_full_feature()) {
            self.machine.apply(SessionEvent::Failed);
        }
    }

    /// Closes a connection that was logged out.
    // req: 7143-11.15-1
    pub(super) fn close_connection(&mut self, id: ConnId, event: ConnEvent, cause: EndCause) {
        if self.conn(id).is_some_and(|c| c.lost.is_some()) {
            return;
        }
        if let Some(conn) = self.conn_mut(id) {
            if conn.machine.apply(event).is_none() {
                conn.machine.apply(ConnEvent::SessionClosed);
            }
            conn.logged_out = true;
        }
        self.shut(id, cause);
    }

    /// No more calls on this connection after the one that terminates it.
    pub(super) fn shut(&mut self, id: ConnId, cause: EndCause) {
        self.call(id, DownCall::ConnectionTerminate);
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        conn.open = false;
        conn.postponed.clear();
        let cid = conn.cid;
        self.timers.cancel_if(|t| match t {
            Timer::Idle(c)
            | Timer::Ping(c)
            | Timer::LogoutDue(c)
            | Timer::Logout(c)
            | Timer::RepeatLogout(c)
            | Timer::Snack(c) => c == id,
            Timer::Text(_)
            | Timer::Cleanup(_)
            | Timer::Recover(_)
            | Timer::Retain(_)
            | Timer::Reassign(_)
            | Timer::Function(_)
            | Timer::InputLost(_) => false,
        });
        self.events.push_back(InitiatorEvent::ConnectionEnded { conn: id, cid, cause });
    }

    /// The session is over when its last connection has given everything back.
    // req: 7143-6.3.5-4, 7143-6.3.5.1-1
    pub(super) fn finish_session(&mut self) {
        if self.ended || !self.conns.is_empty() || self.next_conn == 0 {
            return;
        }
        self.ended = true;
        self.timers = crate::timer::Timers::new();
        if self.closed {
            self.machine.apply(SessionEvent::Closed);
        }
        // req: 7143-7.5-1, 7143-7.5-3
        let time2wait = if self.closed { 0 } else { self.time2wait };
        self.events.push_back(InitiatorEvent::Ended {
            closed: self.closed,
            time2wait: Duration::from_secs(u64::from(time2wait)),
        });
    }
}
