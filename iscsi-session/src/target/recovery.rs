//! The end of connections and of the session: loss, reinstatement, time-outs (RFC 7143 sections 6.3.4, 6.3.5, 7.5,
//! 7.6, 8.2).

use super::retain::Retention;
use super::{EndCause, Queued, SessionEnd, TargetEvent, TargetSession, TaskEvent, Timer};
use crate::action::{ConnId, DownCall};
use crate::csm::{CleanupEvent, CleanupMachine, CleanupState, ConnEvent};
use crate::slab::Key;
use crate::ssm::{SessionEvent, SessionState};
use datamover::{Cause, Terminated};
use iscsi_pdu::{AsyncEvent, Cid, Lun};
use std::time::{Duration, Instant};

/// A connection in CLEANUP_WAIT.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) conn: ConnId,
    pub(super) cid: Cid,
    cleanup: CleanupMachine,
}

impl Lost {
    /// Whether a logout, implicit or explicit, has cleaned up: at ErrorRecoveryLevel 2 its tasks can be reassigned.
    pub(super) fn is_logged_out(&self) -> bool {
        self.cleanup.state() == CleanupState::Free
    }
}

impl TargetSession {
    /// A datamover has given its connection up, or carried our own close out.
    // req: 5047-10.2.1-1, 7143-4.2.6-4, 7143-7.1.4.3-5
    pub(super) fn on_terminated(&mut self, id: ConnId, terminated: Terminated) {
        let Terminated { cause, reclaimed } = terminated;
        // req: 7143-7.7-1, 7145-10.1.4.1-1
        let format = matches!(cause, Cause::Format(_));
        self.lose_connection(id, &EndCause::Datamover(cause));
        if format {
            let others: Vec<ConnId> = self.conns.iter().map(|c| c.id).collect();
            let cause = EndCause::Protocol("a PDU with a format error ends all connections of its session");
            others.into_iter().for_each(|c| self.lose_connection(c, &cause));
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.gone = true;
        }
        self.take_back(id, reclaimed);
    }

    /// Forgets connections that are gone, and their tasks with them.
    pub(super) fn forget_gone(&mut self) {
        if self.conns.iter().any(|c| c.gone) {
            let (tasks, lost) = (&self.tasks, &self.lost);
            let awaited = |id: ConnId| lost.iter().any(|l| l.conn == id);
            self.conns.retain(|c| {
                !c.gone || (c.suspended && awaited(c.id)) || tasks.iter().any(|(_, t)| t.conn == c.id)
            });
        }
    }

    /// Takes a connection out of service that was not logged out: at ErrorRecoveryLevel 0 and 1 its tasks end, at 2
    /// they wait for a reassignment; its state is kept for a while.
    // req: 7143-7.14-3, 7143-7.14-5, 7143-7.1.4.4-1, 7143-8.1.2-13
    pub(super) fn lose_connection(&mut self, id: ConnId, cause: &EndCause) {
        let Some(conn) = self.conn_mut(id) else { return };
        if !conn.open {
            return;
        }
        let cid = conn.cid;
        conn.machine.apply(ConnEvent::TransportDisconnected);
        self.shut(id, cause.clone());
        if self.ending.is_none() && self.reassigns() {
            self.suspend_tasks_of(id);
        } else {
            self.end_tasks_of(id, true);
        }
        if self.ending.is_some() {
            return;
        }
        self.lost.push(Lost { conn: id, cid, cleanup: CleanupMachine::default() });
        self.keep_a_while(id);
        if let Some(other) = self.conns.iter().find(|c| c.takes_requests()).map(|c| c.id) {
            // Of a logout the initiator knows.
            // req: 7143-7.1.4.3-6
            if *cause != EndCause::LoggedOut {
                self.announce_loss(other, cid);
            }
        } else if !self.conns.iter().any(|c| c.is_full_feature()) {
            // req: 7143-6.3.6-1
            self.machine.apply(SessionEvent::Failed);
        }
    }

    /// What is left of a connection is kept for Time2Wait and Time2Retain seconds from now on; with DefaultTime2Retain 0
    /// it is discarded immediately (section 13.16).
    // req: 7143-7.5-2, 7143-7.5-3, 7143-11.15.4-1
    fn keep_a_while(&mut self, id: ConnId) {
        let (wait, retain) = (self.params.default_time2wait, self.params.default_time2retain);
        let keep = if self.is_discovery() || retain == 0 { 0 } else { u64::from(wait) + u64::from(retain) };
        let at = self.now + Duration::from_secs(keep);
        self.timers.set(Timer::Retain(id), at);
    }

    /// The connections that bear a CID: the one in service, and those before it that something is left of.
    pub(super) fn bearers_of(&self, cid: Cid) -> Vec<ConnId> {
        let here = self.conns.iter().filter(|c| c.cid == cid).map(|c| c.id);
        let mut bearers: Vec<ConnId> = here.collect();
        for lost in self.lost.iter().filter(|l| l.cid == cid) {
            if !bearers.contains(&lost.conn) {
                bearers.push(lost.conn);
            }
        }
        bearers
    }

    /// The one of these connections that is in service, with its CID.
    pub(super) fn open_one_of(&self, these: &[ConnId]) -> Option<(ConnId, Cid)> {
        self.conns.iter().find(|c| c.open && these.contains(&c.id)).map(|c| (c.id, c.cid))
    }

    /// A recovery logout of these connections begins: what was not acknowledged is forgotten, transfers stop. The one in
    /// service ends, unless the logout came over it.
    // req: 7143-11.14-5, 7143-8.2.2-2
    pub(super) fn begin_recovery_logout(&mut self, over: ConnId, these: &[ConnId]) {
        if let Some((open, _)) = self.open_one_of(these) {
            self.discard_unacknowledged(open);
            if open != over {
                self.lose_connection(open, &EndCause::LoggedOut);
            }
        }
        let mut theirs = Vec::new();
        for lost in self.lost.iter_mut().filter(|l| these.contains(&l.conn)) {
            lost.cleanup.apply(CleanupEvent::LogoutStarted);
            theirs.push(lost.conn);
        }
        theirs.into_iter().for_each(|id| self.discard_unacknowledged(id));
    }

    /// A recovery logout succeeds: from now on the tasks may be reassigned.
    // req: 7143-8.2.2-4, 7143-11.14-9
    pub(super) fn end_recovery_logout(&mut self, these: &[ConnId], cause: EndCause) {
        if let Some((open, cid)) = self.open_one_of(these) {
            self.close_connection(open, cause);
            self.suspend_tasks_of(open);
            self.lost.push(Lost { conn: open, cid, cleanup: CleanupMachine::default() });
        }
        let mut theirs = Vec::new();
        // What was logged out before, its CID in use again since, is not kept for longer.
        for lost in self.lost.iter_mut().filter(|l| these.contains(&l.conn) && !l.is_logged_out()) {
            lost.cleanup.apply(CleanupEvent::LogoutStarted);
            lost.cleanup.apply(CleanupEvent::LogoutSucceeded);
            theirs.push(lost.conn);
        }
        theirs.into_iter().for_each(|id| self.keep_a_while(id));
    }

    fn announce_loss(&mut self, on: ConnId, lost: Cid) {
        let message = iscsi_pdu::AsyncMessage {
            event: AsyncEvent::ConnectionDrop,
            parameter1: lost.0,
            parameter2: self.params.default_time2wait,
            parameter3: self.params.default_time2retain,
            ..iscsi_pdu::AsyncMessage::default()
        };
        self.transmit_unexpected(on, message.into());
    }

    /// Closes a connection that leaves nothing behind.
    pub(super) fn close_connection(&mut self, id: ConnId, cause: EndCause) {
        let event = match cause {
            EndCause::LoggedOut => ConnEvent::LogoutSucceeded,
            EndCause::Reinstated => ConnEvent::Reinstated,
            _ => ConnEvent::SessionClosed,
        };
        if let Some(conn) = self.conn_mut(id)
            && conn.machine.apply(event).is_none()
        {
            conn.machine.apply(ConnEvent::SessionClosed);
        }
        self.shut(id, cause);
    }

    /// No more calls on this connection after the one that terminates it.
    fn shut(&mut self, id: ConnId, cause: EndCause) {
        self.call(id, DownCall::ConnectionTerminate);
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        conn.open = false;
        conn.text = None;
        let cid = conn.cid;
        self.timers.cancel_if(|t| match t {
            Timer::Idle(c) | Timer::Ping(c) | Timer::Text(c) | Timer::LogoutRequested(c) => c == id,
            Timer::Abort | Timer::Bursts | Timer::Retain(_) => false,
        });
        self.drop_functions_of(id);
        self.drop_logouts_of(id);
        self.events.push_back(TargetEvent::ConnectionEnded { conn: id, cid, cause });
    }

    /// Ends all tasks of a connection without responses. Commands that were not acknowledged are forgotten, so that
    /// their numbers are gaps again.
    // req: 7143-7.6-1, 7143-11.14-4, 7143-6.3.4-5, 7143-6.3.5-3
    pub(super) fn end_tasks_of(&mut self, id: ConnId, session_goes_on: bool) {
        let gone = self.order.remove(|q| match q {
            Queued::Scsi(key) => self.tasks.get(*key).is_none_or(|t| t.conn == id),
            Queued::Request(conn, _) => *conn == id,
        });
        let exp = self.order.window().exp_cmd_sn();
        let mut cleared: Vec<Lun> = Vec::new();
        for (cmd_sn, queued) in gone {
            let acknowledged = cmd_sn.precedes(exp);
            if let Queued::Scsi(key) = queued
                && let Some(task) = self.forget(key)
            {
                self.counters.aborted += 1;
                if acknowledged && !cleared.contains(&task.lun) {
                    cleared.push(task.lun);
                }
            }
        }
        let theirs: Vec<Key> = self.tasks.iter().filter(|(_, t)| t.conn == id).map(|(key, _)| key).collect();
        theirs.into_iter().for_each(|key| self.end_task_of_lost(key, &mut cleared));
        if let Some(conn) = self.conn_mut(id).filter(|c| c.suspended) {
            conn.suspended = false;
            conn.kept = Retention::default();
        }
        // req: 7143-11.14.5-1
        if session_goes_on {
            self.upcalls.extend(cleared.into_iter().map(TaskEvent::CommandsCleared));
        }
    }

    /// A connection with the CID of an older one logs that one out (section 6.3.4).
    // req: 7143-6.3.4-3, 7143-6.3.4-5, 7143-11.14-9
    pub(super) fn reinstate_connection(&mut self, cid: Cid) {
        let bearers = self.bearers_of(cid);
        let old = self.open_one_of(&bearers).map(|(id, _)| id);
        if self.reassigns() && self.ending.is_none() {
            self.begin_recovery_logout(old.unwrap_or(ConnId(self.next_conn)), &bearers);
            // What the old connection's datamover still holds, a TASK REASSIGN waits for.
            self.end_recovery_logout(&bearers, EndCause::Reinstated);
            return;
        }
        if let Some(old) = old {
            self.close_connection(old, EndCause::Reinstated);
            self.end_tasks_of(old, true);
        }
        self.forget_lost(&bearers);
    }

    /// The cleanup of these connections is over.
    pub(super) fn forget_lost(&mut self, these: &[ConnId]) {
        let timers = &mut self.timers;
        self.lost.retain_mut(|l| {
            let gone = these.contains(&l.conn);
            if gone {
                l.cleanup.apply(CleanupEvent::LogoutStarted);
                l.cleanup.apply(CleanupEvent::LogoutSucceeded);
                timers.cancel(Timer::Retain(l.conn));
            }
            !gone
        });
    }

    /// The state of a lost connection is kept no longer (M1); after the last, neither is the session's.
    // req: 7143-8.2.2-1, 7143-8.3.4-6
    pub(super) fn on_retain_timeout(&mut self, id: ConnId) {
        self.lost.retain_mut(|l| {
            if l.conn == id {
                l.cleanup.apply(CleanupEvent::StateTimedOut);
            }
            l.conn != id
        });
        if self.conn(id).is_some_and(|c| c.suspended) {
            self.end_tasks_of(id, true);
        }
        if self.lost.is_empty() && self.machine.state() == SessionState::Failed {
            self.end_session(SessionEnd::TimedOut, &EndCause::Shutdown);
        }
    }

    /// A session reinstatement (section 6.3.5): the initiator has logged in anew with this session's ISID. The
    /// session ends without notice to it; the new one may begin when [`TargetEvent::Ended`] comes.
    // req: 7143-7.15-2, 7143-6.3.5-3
    pub fn reinstate(&mut self, now: Instant) {
        self.now = now;
        self.end_session(SessionEnd::Reinstated, &EndCause::Reinstated);
        self.progress();
    }

    /// A TARGET COLD RESET came over another session: this one's connections are terminated like those of all.
    // req: 7143-11.5.1-17
    pub fn reset(&mut self, now: Instant) {
        self.now = now;
        self.end_session(SessionEnd::ColdReset, &EndCause::Reset);
        self.progress();
    }

    /// Ends the session from this side: the initiator is told by an Async Message that all connections are dropped.
    /// To let it log out in its own time, use [`request_logout`](Self::request_logout) first.
    // req: 7143-4.2.6-2, 7143-4.2.6-3
    pub fn shutdown(&mut self, now: Instant) {
        self.now = now;
        let open: Vec<ConnId> = self.conns.iter().filter(|c| c.takes_requests()).map(|c| c.id).collect();
        open.into_iter().for_each(|id| self.announce_drop(id, AsyncEvent::SessionDrop));
        self.end_session(SessionEnd::Shutdown, &EndCause::Shutdown);
        self.progress();
    }

    /// Closes all connections and ends all tasks; the session is over when the device server has let go.
    pub(super) fn end_session(&mut self, end: SessionEnd, cause: &EndCause) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(end);
        let all: Vec<ConnId> = self.conns.iter().map(|c| c.id).collect();
        for id in all {
            self.close_connection(id, cause.clone());
            self.end_tasks_of(id, false);
        }
        self.functions.clear();
        self.lost.clear();
        self.conns.iter_mut().for_each(|c| c.suspended = false);
        self.timers.cancel_if(|t| matches!(t, Timer::Retain(_)));
    }

    /// The session is over once no task is left, however long that takes: what a device server still holds may write,
    /// and it must not do so after the commands of the session that the initiator begins next.
    // req: 7143-6.3.5.1-1, 7143-8.3.4-3
    pub(super) fn finish_session(&mut self) {
        let Some(end) = self.ending else { return };
        if self.ended || !self.tasks.is_empty() {
            return;
        }
        self.ended = true;
        let event = match end {
            SessionEnd::Closed | SessionEnd::Shutdown | SessionEnd::Reset | SessionEnd::ColdReset => {
                SessionEvent::Closed
            }
            SessionEnd::Reinstated => SessionEvent::Reinstated,
            SessionEnd::TimedOut => SessionEvent::StateTimedOut,
        };
        if self.machine.apply(event).is_none() {
            self.machine.apply(SessionEvent::StateTimedOut);
        }
        self.timers = crate::timer::Timers::new();
        self.upcalls.push_back(TaskEvent::NexusLoss);
        self.events.push_back(TargetEvent::Ended(end));
    }
}
