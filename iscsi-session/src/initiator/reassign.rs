//! The recovery of a lost connection at the initiator, at ErrorRecoveryLevel 2 (RFC 7143 sections 7.1.4.3, 7.2, 7.14).
//!
//! ```text
//!   lost ──Time2Wait──▶ logout on another connection, or a login with its CID
//!                         │ succeeded: ExpCmdSN says what the target has
//!                         ├─▶ not acknowledged: sent again, on another connection
//!                         └─▶ acknowledged: after Time2Wait TASK REASSIGN
//! ```
//! Time2Retain seconds after Time2Wait the target may have discarded the tasks, and without a connection the session.
//! With one, the logout is due all the same: what the target had acknowledged is over when it has confirmed that, and
//! whether it was executed is not known; what it never had is sent again, lest its number be a gap for ever.

use super::conn::Conn;
use super::snack::ATTEMPTS;
use super::task::TaskStage;
use super::{EndCause, Entry, InitiatorEvent, InitiatorSession, TaskDone, TaskFailure, Timer};
use crate::action::{Action, ConnId, DownCall};
use crate::csm::{CleanupEvent, CleanupMachine};
use crate::device::TaskTag;
use crate::slab::Key;
use bytes::Bytes;
use datamover::TaskBuffers;
use iscsi_pdu::{CmdSn, Itt, LogoutReason, LogoutRequest, LogoutResponse, LogoutStatus, Pdu};
use std::time::{Duration, Instant};

/// A connection that is being recovered.
#[derive(Debug)]
pub(super) struct Lost {
    stage: Stage,
    cleanup: CleanupMachine,
    /// Its datamover has given everything back.
    gone: bool,
    /// Time2Retain is over.
    expired: bool,
    /// Its tasks are to be reassigned, and there was no connection for that, or no room on it.
    stranded: bool,
    attempts: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It is too early for a logout, or there is no connection for it.
    Waiting { due: bool },
    /// A Logout Request for it is under way.
    LoggingOut,
    /// An implicit logout is over; a ping on that connection tells ExpCmdSN.
    Probing(ConnId),
    /// The target has let go of it, and ExpCmdSN is current: what it has not had is to be sent again, once there is a
    /// connection that takes commands. The rest may be reassigned from then on, unless it is discarded.
    Resuming { not_before: Instant, discarded: bool },
    /// Its tasks may be reassigned, from a time on.
    LoggedOut,
}

impl Lost {
    /// Whether the target has let go of it.
    const fn is_logged_out(&self) -> bool {
        matches!(self.stage, Stage::Resuming { .. } | Stage::LoggedOut)
    }
}

impl InitiatorSession {
    /// Whether the tasks of a connection that is lost now can go on.
    pub(super) fn outlives(&self) -> bool {
        self.params.error_recovery_level >= 2 && !self.is_discovery() && !self.is_closing()
    }

    /// Whether the session is being logged out, or was.
    pub(super) fn is_closing(&self) -> bool {
        self.closed || self.session_logouts().next().is_some()
    }

    /// Whether the session has no connection and goes on all the same, once it gets one
    /// ([`InitiatorEvent::ConnectionNeeded`]): commands are best kept until then.
    #[must_use]
    pub fn awaits_connection(&self) -> bool {
        self.conns.iter().any(|c| c.lost.is_some()) && !self.conns.iter().any(|c| c.takes_requests())
    }

    /// There will be no further connection ([`InitiatorEvent::ConnectionNeeded`]): the target does not know the session
    /// any more, say. It ends, and its commands with it.
    // req: 7143-7.1.4.4-1
    pub fn give_up(&mut self, now: Instant) {
        self.now = now;
        if self.awaits_connection() {
            self.lose_session(&EndCause::SessionRecovery);
        }
        self.progress();
    }

    /// A connection is lost and its tasks are not. It is in CLEANUP_WAIT when another is asked for.
    // req: 7143-6.3.4-4, 7143-7.1.4.3-2, 7143-7.14-3, 7143-7.5-1, 7143-7.5-2, 7143-7.5-3
    pub(super) fn begin_recovery(&mut self, id: ConnId, time2wait: u16, time2retain: u16) {
        let Some(conn) = self.conn_mut(id) else { return };
        let stage = Stage::Waiting { due: false };
        let cleanup = CleanupMachine::default();
        conn.lost = Some(Box::new(Lost {
            stage,
            cleanup,
            gone: false,
            expired: false,
            stranded: false,
            attempts: 0,
        }));
        let cid = conn.cid;
        let (wait, retain) = (seconds(time2wait), seconds(time2retain));
        self.timers.set(Timer::Recover(id), self.now + wait);
        self.timers.set(Timer::Retain(id), self.now + wait + retain);
        if !self.conns.iter().any(|c| c.takes_requests()) {
            self.events.push_back(InitiatorEvent::ConnectionNeeded {
                cid,
                not_before: wait,
                within: wait + retain,
            });
        }
    }

    /// The datamover of a lost connection has given everything back.
    // req: 7143-7.14-5
    pub(super) fn suspend_tasks_of(&mut self, id: ConnId, mut back: super::recovery::Back) {
        let theirs: Vec<Key> =
            self.entries.iter().filter(|(_, e)| e.conn() == id).map(|(key, _)| key).collect();
        let (tasks, others): (Vec<Key>, Vec<Key>) =
            theirs.into_iter().partition(|key| matches!(self.entries.get(*key), Some(Entry::Task(_))));
        for key in tasks {
            let returned = back.remove(&Itt(key.to_tag()));
            let Some(Entry::Task(task)) = self.entries.get_mut(key) else { continue };
            match task.stage {
                TaskStage::Active if !task.immediate => {
                    let (buffers, next) = returned.unwrap_or_default();
                    task.stage = TaskStage::Suspended(buffers, next);
                }
                // A reassignment for which this one had no room.
                TaskStage::Returning(next) => {
                    task.stage = TaskStage::Suspended(returned.unwrap_or_default().0, next);
                }
                TaskStage::Suspended(..) => {}
                _ => self.end_lost_task(key, TaskFailure::ConnectionLost, returned.map(|(b, _)| b)),
            }
        }
        others.into_iter().for_each(|key| self.end_lost_exchange(key));
        if let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) {
            lost.gone = true;
        }
        self.recover();
    }

    /// Takes the recovery of lost connections as far as it goes.
    pub(super) fn recover(&mut self) {
        if self.conns.iter().all(|c| c.lost.is_none()) {
            return;
        }
        let ready: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|c| c.lost.as_ref().is_some_and(|l| l.gone && l.stage == Stage::Waiting { due: true }))
            .map(|c| c.id)
            .collect();
        let resuming = |c: &&Conn| c.lost.as_ref().is_some_and(|l| matches!(l.stage, Stage::Resuming { .. }));
        let resumable: Vec<ConnId> = self.conns.iter().filter(resuming).map(|c| c.id).collect();
        resumable.into_iter().for_each(|id| self.resume(id, None));
        for id in ready {
            let cid = self.conn(id).map(|c| c.cid);
            // Its CID may be in use again.
            let again = self.conns.iter().find(|c| Some(c.cid) == cid && c.takes_requests()).map(|c| c.id);
            if let Some(on) = again {
                self.on_reinstated(id, on);
            } else if let Some(on) = self.logs_out_on() {
                self.send_recovery_logout(id, on);
            } else {
                self.make_room();
            }
        }
        self.reassign_stranded();
    }

    // req: 7145-8.1.1.3-1
    fn logs_out_on(&self) -> Option<ConnId> {
        self.conns.iter().find(|c| c.takes_requests() && c.may_send_unexpected()).map(|c| c.id)
    }

    /// Goes on with reassignments that had to wait for a connection, or for room on it.
    fn reassign_stranded(&mut self) {
        while let Some(conn) = self.conns.iter().position(|c| c.lost.as_ref().is_some_and(|l| l.stranded)) {
            if self.reassigns_on().is_none() {
                return self.make_room();
            }
            let Some(conn) = self.conns.get_mut(conn) else { return };
            let id = conn.id;
            conn.lost.iter_mut().for_each(|l| l.stranded = false);
            self.reassign_tasks_of(id);
        }
    }

    /// The connection that a TASK REASSIGN goes out on: of those that have room for an immediate PDU, the one that has the
    /// fewest tasks.
    // req: 7145-8.1.1.3-1
    pub(super) fn reassigns_on(&self) -> Option<ConnId> {
        let fit = self.conns.iter().filter(|c| c.takes_commands() && c.may_send_unexpected());
        fit.min_by_key(|c| c.tasks).map(|c| c.id)
    }

    /// Makes the target acknowledge immediate PDUs, with a ping behind them that has a number of its own.
    pub(super) fn make_room(&mut self) {
        let Some(on) = self.least_loaded() else { return };
        let is_asked = |e: &Entry| matches!(e, Entry::Ping { conn, cmd_sn: Some(_), .. } if *conn == on);
        if self.window.is_open() && !self.entries.iter().any(|(_, e)| is_asked(e)) {
            self.send_ping(on, false, Bytes::new(), None);
        }
    }

    // req: 7143-11.14-8, 7143-11.14-10, 7143-7.2.2-1, 7143-8.2.2-2
    fn send_recovery_logout(&mut self, id: ConnId, on: ConnId) {
        let reason = LogoutReason::RemoveForRecovery;
        let entry = Entry::Logout { conn: on, session: false, recovers: Some(id), numbered: None };
        let Some(key) = self.entries.insert_with(|_| entry) else { return };
        let (cmd_sn, now, timeout) = (self.window.cmd_sn(), self.now, self.cfg.logout_timeout);
        let Some(conn) = self.conn_mut(id) else { return };
        // ExpStatSN is that of the connection to be closed (section 11.14.4).
        let (cid, exp_stat_sn) = (conn.cid, conn.exp_stat_sn);
        if let Some(lost) = conn.lost.as_mut() {
            lost.stage = Stage::LoggingOut;
            lost.cleanup.apply(CleanupEvent::LogoutStarted);
        }
        let itt = Itt(key.to_tag());
        let request = LogoutRequest { immediate: true, reason, itt, cid, cmd_sn, exp_stat_sn };
        self.conn_mut(on).into_iter().for_each(|c| c.count_unexpected(cmd_sn));
        self.actions
            .push_back(Action { conn: on, call: DownCall::SendControl(Pdu::<Bytes>::from(request).into()) });
        self.timers.set(Timer::Recover(id), now + timeout);
    }

    /// The response to a logout of a lost connection.
    // req: 7143-11.15.3-1, 7143-8.2.2-3, 7143-8.2.2-4
    pub(super) fn on_recovery_logout(&mut self, id: ConnId, on: ConnId, response: &LogoutResponse) {
        let now = self.now;
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        match response.response {
            // The answer to a request that was repeated.
            _ if lost.is_logged_out() => {}
            LogoutStatus::Success => {
                lost.cleanup.apply(CleanupEvent::LogoutSucceeded);
                let (wait, retain) = (seconds(response.time2wait), seconds(response.time2retain));
                lost.stage = Stage::Resuming { not_before: now + wait, discarded: retain.is_zero() };
                self.timers.set(Timer::Retain(id), now + wait + retain);
                self.resume(id, Some(on));
            }
            // The target knows nothing of it: what it had acknowledged is over there.
            LogoutStatus::CidNotFound => {
                lost.stage = Stage::Resuming { not_before: now, discarded: true };
                self.resume(id, Some(on));
            }
            _ => {
                lost.cleanup.apply(CleanupEvent::LogoutFailed);
                lost.stage = Stage::Waiting { due: false };
                lost.attempts += 1;
                let hopeless = lost.attempts >= ATTEMPTS;
                self.timers.set(Timer::Recover(id), now + seconds(response.time2wait));
                if hopeless {
                    self.lose_session(&EndCause::SessionRecovery);
                }
            }
        }
    }

    /// A login with the CID of a lost connection has logged that one out. What the target has of its commands, a ping
    /// tells.
    // req: 7143-7.1.4.3-3
    pub(super) fn on_reinstated(&mut self, id: ConnId, on: ConnId) {
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        lost.stage = Stage::Probing(on);
        lost.cleanup.apply(CleanupEvent::LogoutStarted);
        lost.cleanup.apply(CleanupEvent::LogoutSucceeded);
        self.send_ping(on, false, Bytes::new(), Some(id));
        self.timers.set(Timer::Recover(id), self.now + self.cfg.ping_timeout);
    }

    /// The ping after an implicit logout is answered.
    pub(super) fn on_reinstatement_probed(&mut self, id: ConnId, on: ConnId) {
        let now = self.now;
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        if lost.stage != Stage::Probing(on) {
            return;
        }
        if !lost.gone {
            // Its buffers are on their way; the next ping may find them.
            self.timers.set(Timer::Recover(id), now + Duration::from_millis(10));
            return;
        }
        lost.stage = Stage::Resuming { not_before: now, discarded: false };
        self.resume(id, Some(on));
    }

    /// The target has let go of a lost connection, and ExpCmdSN is current: what it has not had is sent again. On the
    /// connection that told so, if it takes commands: it may be lost itself by now, or have begun its own logout.
    // req: 7143-7.2.1-1, 7143-7.2.1-4, 7143-7.14-3, 7143-4.2.2.1-20, 7143-11.14-2
    fn resume(&mut self, id: ConnId, told_on: Option<ConnId>) {
        let told_on = told_on.filter(|on| self.conn(*on).is_some_and(Conn::takes_commands));
        let Some(on) = told_on.or_else(|| self.least_loaded()) else { return };
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        let Stage::Resuming { not_before, discarded } = lost.stage else { return };
        lost.stage = Stage::LoggedOut;
        let exp = self.window.exp_cmd_sn();
        let mut theirs = self.suspended(id);
        theirs.sort_by_key(|(_, cmd_sn)| cmd_sn.distance_from(exp));
        for (key, cmd_sn) in theirs {
            if !cmd_sn.precedes(exp) {
                if let Some(buffers) = self.move_task(key, on) {
                    self.transmit_command(key, buffers.0);
                }
            } else if discarded {
                self.end_suspended(key);
            }
        }
        self.plug_gaps(on);
        self.timers.set(Timer::Recover(id), not_before);
        self.forget_recovered(id);
    }

    /// Numbers that no request has any more would be gaps for ever.
    fn plug_gaps(&mut self, on: ConnId) {
        let exp = self.window.exp_cmd_sn();
        let place = |sn: CmdSn| sn.distance_from(exp);
        let mut held: Vec<u32> = self.entries.iter().filter_map(|(_, e)| e.cmd_sn().map(place)).collect();
        held.sort_unstable();
        let mut held = held.into_iter().peekable();
        for missing in 0..place(self.window.cmd_sn()) {
            while held.next_if(|sn| *sn < missing).is_some() {}
            if held.peek() != Some(&missing) {
                self.plug(on, exp.advance(missing));
            }
        }
    }

    fn suspended(&self, id: ConnId) -> Vec<(Key, CmdSn)> {
        self.entries
            .iter()
            .filter_map(|(key, e)| match e {
                Entry::Task(t) if t.conn == id && matches!(t.stage, TaskStage::Suspended(..)) => {
                    Some((key, t.cmd_sn))
                }
                _ => None,
            })
            .collect()
    }

    /// Makes a suspended task one of this connection's; what it needs there.
    pub(super) fn move_task(&mut self, key: Key, on: ConnId) -> Option<(TaskBuffers, iscsi_pdu::DataSn)> {
        let turn = self.turn;
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return None };
        let TaskStage::Suspended(buffers, next) = std::mem::replace(&mut task.stage, TaskStage::Active)
        else {
            return None;
        };
        let (from, write) = (std::mem::replace(&mut task.conn, on), usize::from(task.write));
        task.turn = turn;
        // What is missing comes anew.
        task.input_lost = false;
        if let Some(conn) = self.conn_mut(from) {
            conn.tasks = conn.tasks.saturating_sub(1);
            conn.writes = conn.writes.saturating_sub(write);
        }
        if let Some(conn) = self.conn_mut(on) {
            conn.tasks += 1;
            conn.writes += write;
        }
        Some((buffers, next))
    }

    fn end_suspended(&mut self, key: Key) {
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return };
        let (_, held) = task.take_end();
        let result = Err(TaskFailure::ConnectionLost);
        self.conclude(key, TaskDone { tag: TaskTag(key.0), result, buffers: held.unwrap_or_default() });
    }

    /// Time to go on with the recovery of a connection.
    pub(super) fn on_recovery_due(&mut self, id: ConnId) {
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        match lost.stage {
            Stage::Waiting { .. } => lost.stage = Stage::Waiting { due: true },
            // No answer: once more.
            Stage::LoggingOut | Stage::Probing(_) => {
                lost.attempts += u8::from(lost.gone);
                let hopeless = lost.attempts >= ATTEMPTS;
                lost.stage = Stage::Waiting { due: true };
                lost.cleanup.apply(CleanupEvent::LogoutFailed);
                if hopeless {
                    self.lose_session(&EndCause::SessionRecovery);
                    return;
                }
            }
            Stage::Resuming { .. } => {}
            Stage::LoggedOut => return self.reassign_tasks_of(id),
        }
        self.recover();
    }

    /// TASK REASSIGN of all that is left of a connection; once there is one for it, should the others be lost meanwhile,
    /// too, and as many at a time as the target has room for.
    fn reassign_tasks_of(&mut self, id: ConnId) {
        for (key, _) in self.suspended(id) {
            let Some(on) = self.reassigns_on() else {
                if let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) {
                    lost.stranded = true;
                }
                return self.make_room();
            };
            self.begin_reassign(key, on);
        }
        self.forget_recovered(id);
    }

    /// What was to log a lost connection out, or to tell what the target has of its commands, is lost with its own
    /// connection: another carries it.
    pub(super) fn recovery_lost_its_carrier(&mut self, id: ConnId) {
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        if !lost.is_logged_out() {
            lost.stage = Stage::Waiting { due: true };
            lost.cleanup.apply(CleanupEvent::LogoutFailed);
        }
    }

    /// Time2Retain is over for a connection.
    // req: 7143-7.5-2
    pub(super) fn on_retain_timeout(&mut self, id: ConnId) {
        let Some(lost) = self.conn_mut(id).and_then(|c| c.lost.as_mut()) else { return };
        lost.expired = true;
        match &mut lost.stage {
            Stage::LoggedOut => return self.abandon(id),
            Stage::Waiting { due } => *due = true,
            Stage::Resuming { discarded, .. } => *discarded = true,
            Stage::LoggingOut | Stage::Probing(_) => {}
        }
        self.recover();
        // Without a connection the session is kept as long as the state of its last one.
        let expired = self.conns.iter().filter_map(|c| c.lost.as_ref()).all(|l| l.expired);
        if expired && self.awaits_connection() {
            self.lose_session(&EndCause::SessionRecovery);
        }
    }

    /// Ends what waits for the recovery of a connection, and the recovery.
    fn abandon(&mut self, id: ConnId) {
        self.suspended(id).into_iter().for_each(|(key, _)| self.end_suspended(key));
        if let Some(conn) = self.conn_mut(id)
            && conn.lost.take().is_some_and(|l| l.gone)
        {
            self.conns.retain(|c| c.id != id);
        }
        self.timers.cancel(Timer::Recover(id));
        self.timers.cancel(Timer::Retain(id));
    }

    /// Nothing of a lost connection is left to recover.
    fn forget_recovered(&mut self, id: ConnId) {
        let done = self.conn(id).and_then(|c| c.lost.as_ref()).is_some_and(|l| l.stage == Stage::LoggedOut);
        if done && self.suspended(id).is_empty() {
            self.conns.retain(|c| c.id != id);
            self.timers.cancel(Timer::Recover(id));
            self.timers.cancel(Timer::Retain(id));
        }
    }

    /// The session ends though connections are being recovered: their tasks too.
    pub(super) fn give_up_recoveries(&mut self) {
        let lost: Vec<ConnId> = self.conns.iter().filter(|c| c.lost.is_some()).map(|c| c.id).collect();
        lost.into_iter().for_each(|id| self.abandon(id));
    }
}

fn seconds(n: u16) -> Duration {
    Duration::from_secs(u64::from(n))
}
