//! A session that goes on without one of its connections (RFC 7143 section 7.14, b): the lost connection is logged out
//! over another one, its tasks are over when the target has confirmed that, and the numbers of commands that never
//! arrived are filled.
//!
//! ```text
//!   lost ──▶ Logout "close the connection" on another ──▶ response ──▶ gaps in CmdSN plugged, tasks ConnectionLost
//!     │            ▲ that one is lost, too │                 │ refused, or none in time
//!     │            └───────────────────────┘                 ▼
//!     └── no other connection, or ErrorRecoveryLevel 0 ──▶ session recovery
//! ```
//!
//! A task of the lost connection may still have its effect until the target confirms its end. So it completes no
//! earlier: whoever repeats it then cannot be overtaken by the first attempt.

use super::conn::Conn;
use super::recovery::Back;
use super::{EndCause, Entry, InitiatorSession, TaskFailure, Timer};
use crate::action::ConnId;
use crate::slab::Key;
use iscsi_pdu::{Cid, CmdSn, Itt, LogoutReason, LogoutRequest, LogoutStatus, StatSn};
use std::time::{Duration, Instant};

/// A connection that the session goes on without.
#[derive(Debug)]
pub(super) struct Lost {
    conn: ConnId,
    cid: Cid,
    /// The StatSN expected next on it.
    exp_stat_sn: StatSn,
    /// Numbers sent on it that had not been acknowledged.
    sent: Vec<CmdSn>,
    /// The Logout Request under way.
    logout: Option<Key>,
    /// Whether the target has confirmed that the connection and its tasks are gone.
    confirmed: bool,
    /// Whether our datamover has given everything back.
    gone: bool,
}

impl InitiatorSession {
    /// Whether the session may keep going when this connection is lost: another takes requests, and both ends can
    /// recover within a connection, without which the missing commands cannot be reissued. Or the session is being
    /// logged out on another, the answer to which says all of this one too; the target closes them in any order.
    // req: 7143-7.14-3
    pub(super) fn goes_on_without(&self, id: ConnId) -> bool {
        if self.session_logouts().any(|on| on != id && self.conn(on).is_some_and(|c| c.open)) {
            return true;
        }
        self.params.error_recovery_level >= 1 && self.conns.iter().any(|c| c.id != id && c.takes_requests())
    }

    /// Whether it must be known which numbers went where.
    pub(super) fn numbers_are_kept(&self) -> bool {
        self.params.max_connections > 1
    }

    /// The session goes on without this connection, which has just been shut.
    pub(super) fn go_on_without(&mut self, id: ConnId) {
        let Some(conn) = self.conn_mut(id) else { return };
        let sent = std::mem::take(&mut conn.sent).into();
        let Conn { cid, exp_stat_sn, .. } = *conn;
        self.lost.push(Lost {
            conn: id,
            cid,
            exp_stat_sn,
            sent,
            logout: None,
            confirmed: false,
            gone: false,
        });
    }

    /// Whether the tasks of this connection wait for the target's confirmation that they are over.
    pub(super) fn awaits_confirmation(&self, id: ConnId) -> bool {
        self.lost.iter().any(|l| l.conn == id && !l.confirmed)
    }

    /// Asks the target to close the lost connections, or asks again when the connection that carried the question is
    /// lost itself.
    // req: 7143-11.14-8, 7143-8.2-1
    pub(super) fn clean_up_lost(&mut self) {
        for index in 0..self.lost.len() {
            let Some(lost) = self.lost.get(index).filter(|l| l.logout.is_none() && !l.confirmed) else {
                continue;
            };
            let Lost { conn, cid, exp_stat_sn, .. } = *lost;
            let Some(over) = self.conns.iter().find(|c| c.takes_requests()).map(|c| c.id) else { return };
            let entry = Entry::Cleanup { conn: over, lost: conn };
            let Some(key) = self.entries.insert_with(|_| entry) else { return };
            if let Some(lost) = self.lost.get_mut(index) {
                lost.logout = Some(key);
            }
            let request = LogoutRequest {
                immediate: true,
                reason: LogoutReason::CloseConnection,
                itt: Itt(key.to_tag()),
                cid,
                exp_stat_sn,
                ..LogoutRequest::default()
            };
            self.timers.set(Timer::Cleanup(conn), self.now + self.cfg.logout_timeout);
            self.send_immediate(over, request.into());
        }
    }

    /// The connection that was to carry the Logout Request is gone: another does.
    pub(super) fn cleanup_is_lost(&mut self, key: Key) {
        if let Some(lost) = self.lost.iter_mut().find(|l| l.logout == Some(key)) {
            lost.logout = None;
        }
    }

    /// The answer to the logout of a lost connection.
    // req: 7143-11.15-1
    pub(super) fn on_cleanup_response(&mut self, conn: ConnId, response: LogoutStatus) {
        self.timers.cancel(Timer::Cleanup(conn));
        // A connection that the target does not know any more has no tasks there either.
        if !matches!(response, LogoutStatus::Success | LogoutStatus::CidNotFound) {
            self.lose_session(&EndCause::LogoutFailed);
            return;
        }
        if let Some(lost) = self.lost.iter_mut().find(|l| l.conn == conn) {
            lost.confirmed = true;
            lost.logout = None;
            let sent = std::mem::take(&mut lost.sent);
            self.plug_missing(sent);
        }
        self.forget_lost(conn);
    }

    /// Fills the numbers that the target has not received and now never will.
    // req: 7143-7.3-3
    pub(super) fn plug_missing(&mut self, sent: Vec<CmdSn>) {
        self.unfilled.extend(sent);
        self.fill_numbers();
    }

    /// The same once there is a connection for it.
    pub(super) fn fill_numbers(&mut self) {
        let exp = self.window.exp_cmd_sn();
        let Some(over) = self.conns.iter().find(|c| c.takes_requests()).map(|c| c.id) else { return };
        for cmd_sn in std::mem::take(&mut self.unfilled) {
            if exp.precedes_or_is(cmd_sn) {
                self.plug(over, cmd_sn);
            }
        }
    }

    /// The datamover of a lost connection has given its buffers back: they stay with the tasks, which may not be over.
    pub(super) fn hold_lost_tasks(&mut self, conn: ConnId, mut back: Back) {
        for key in self.tasks_where(|t| t.conn == conn) {
            let theirs = back.remove(&Itt(key.to_tag())).map(|(buffers, _)| buffers);
            let Some(Entry::Task(task)) = self.entries.get_mut(key) else { continue };
            if task.is_ending() {
                // Over already: it only waited for its buffers.
                self.end_lost_task(key, TaskFailure::ConnectionLost, theirs);
            } else {
                task.hold(theirs);
            }
        }
        if let Some(lost) = self.lost.iter_mut().find(|l| l.conn == conn) {
            lost.gone = true;
        }
    }

    /// Ends the tasks of a lost connection once both ends are done with it.
    fn forget_lost(&mut self, conn: ConnId) {
        if !self.lost.iter().any(|l| l.conn == conn && l.confirmed) {
            return;
        }
        let gone = self.lost.iter().any(|l| l.conn == conn && l.gone);
        self.lost.retain(|l| l.conn != conn);
        if gone {
            self.end_lost_tasks_of(conn);
        }
    }

    /// The session is lost as a whole: no confirmation will come, the session's reinstatement is one.
    pub(super) fn give_lost_up(&mut self) {
        for lost in std::mem::take(&mut self.lost) {
            self.timers.cancel(Timer::Cleanup(lost.conn));
            if lost.gone {
                self.end_lost_tasks_of(lost.conn);
            }
        }
    }

    fn end_lost_tasks_of(&mut self, conn: ConnId) {
        for key in self.tasks_where(|t| t.conn == conn) {
            self.end_lost_task(key, TaskFailure::ConnectionLost, None);
        }
    }

    /// Takes a connection out of use in order: it gets no new commands, and is logged out when those under way are
    /// over, or `within` has passed; the session too, if it is the last.
    pub fn retire_connection(&mut self, now: Instant, id: ConnId, within: Duration) {
        self.now = now;
        if let Some(conn) = self.conn_mut(id).filter(|c| c.takes_commands()) {
            conn.retiring = true;
            self.timers.set(Timer::LogoutDue(id), now + within);
        }
        self.progress();
    }
}
