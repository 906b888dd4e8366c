//! Logouts at the target (RFC 7143 sections 11.14, 11.15).
//!
//! ```text
//!   request ──▶ its tasks end, or for recovery ──▶ device server, or for recovery ──▶ response, then the
//!               are suspended                      the datamover, has let go          connections close
//! ```
//!
//! Which connections a logout is for is settled when it comes: its CID may be another's by the time that it is answered.

use super::{EndCause, SessionEnd, TargetSession, Timer};
use crate::action::ConnId;
use crate::csm::ConnEvent;
use crate::ssm::SessionEvent;
use iscsi_pdu::{Itt, LogoutReason, LogoutRequest, LogoutResponse, LogoutStatus, RejectReason};
use std::time::Instant;

/// A Logout Request that is being carried out.
#[derive(Debug)]
pub(super) struct Logout {
    /// The connection that it came over.
    conn: ConnId,
    pub(super) itt: Itt,
    pub(super) reason: LogoutReason,
    /// The connections that it is for; none where it closes the session.
    closing: Vec<ConnId>,
    numbered: bool,
    /// What is answered when all is over.
    status: LogoutStatus,
    /// When that takes too long.
    deadline: Instant,
}

impl Logout {
    /// Whether the connection that it came over is to be closed.
    fn closes_carrier(&self) -> bool {
        self.reason == LogoutReason::CloseSession || self.closing.contains(&self.conn)
    }
}

impl TargetSession {
    /// A Logout Request, immediate or in its turn. Its response follows when all tasks that it ends are over.
    // req: 7143-11.14-4, 7143-11.15.1-1
    pub(super) fn on_logout(&mut self, id: ConnId, request: LogoutRequest) {
        let numbered = !request.immediate;
        let before = self.logouts.iter().filter(|l| l.conn == id);
        if before.clone().any(|l| l.itt == request.itt) {
            // A retry: it is being carried out.
            self.counters.ignored += 1;
            if numbered {
                self.order.give_credit();
            }
            return;
        }
        // The window limits the others.
        // req: 7143-4.2.2.1-5
        if !numbered && before.filter(|l| !l.numbered).count() >= self.cfg.immediate_commands.max(1) as usize
        {
            self.reject(id, &request.into(), RejectReason::ImmediateCommandReject);
            return;
        }
        let closes_session = request.reason == LogoutReason::CloseSession;
        let closing = if closes_session { Vec::new() } else { self.bearers_of(request.cid) };
        let known = closes_session
            || self.open_one_of(&closing).is_some()
            || self.lost.iter().any(|l| closing.contains(&l.conn));
        let logout = Logout {
            conn: id,
            itt: request.itt,
            reason: request.reason,
            closing,
            numbered,
            // Until nothing is left at the device server of a connection, its CID is known in a way.
            status: match request.reason {
                LogoutReason::RemoveForRecovery if !known => LogoutStatus::CidNotFound,
                _ => LogoutStatus::Success,
            },
            deadline: self.now + self.cfg.abort_timeout,
        };
        let refusal = match request.reason {
            _ if !known && !self.remains(&logout) => Some(LogoutStatus::CidNotFound),
            // Connection recovery is error recovery level 2 (section 7.1.5).
            LogoutReason::RemoveForRecovery if !self.reassigns() => Some(LogoutStatus::RecoveryNotSupported),
            _ => None,
        };
        if let Some(status) = refusal {
            self.answer_logout(&logout, status);
            return;
        }
        if logout.closes_carrier() {
            self.conn_event(id, ConnEvent::LogoutStarted);
        }
        match request.reason {
            LogoutReason::CloseSession => {
                let all: Vec<ConnId> = self.conns.iter().map(|c| c.id).collect();
                all.into_iter().for_each(|c| self.end_tasks_of(c, false));
            }
            LogoutReason::RemoveForRecovery => self.begin_recovery_logout(id, &logout.closing),
            _ => logout.closing.iter().for_each(|c| self.end_tasks_of(*c, true)),
        }
        self.logouts.push(logout);
        self.watch_logouts();
    }

    /// Answers the logouts that nothing remains of.
    pub(super) fn finish_logouts(&mut self) {
        while let Some(index) = self.logouts.iter().position(|l| !self.remains(l)) {
            let logout = self.logouts.remove(index);
            self.finish_logout(&logout, logout.status);
        }
    }

    /// Whether something is left of what a logout is for: tasks that the device server has not let go of, and which may
    /// still write; for recovery, what the datamover holds, which the reassignments need. An initiator that is told of
    /// success writes the same blocks anew, be that over another session.
    // req: 7143-11.14-4
    fn remains(&self, logout: &Logout) -> bool {
        match (logout.reason, logout.status) {
            (LogoutReason::CloseSession, _) => !self.tasks.is_empty(),
            (LogoutReason::RemoveForRecovery, LogoutStatus::Success) => {
                self.conns.iter().any(|c| c.suspended && !c.gone && logout.closing.contains(&c.id))
            }
            _ => self.tasks.iter().any(|(_, t)| logout.closing.contains(&t.conn)),
        }
    }

    // req: 7143-11.14-7, 7143-11.15-1, 7145-5.2.2-3, 7143-6.3.5-4
    fn finish_logout(&mut self, logout: &Logout, status: LogoutStatus) {
        self.answer_logout(logout, status);
        if status != LogoutStatus::Success {
            if logout.closes_carrier() {
                self.conn_event(logout.conn, ConnEvent::LogoutFailed);
                self.lose_connection(logout.conn, &EndCause::LoggedOut);
            }
            return;
        }
        if logout.reason == LogoutReason::CloseSession {
            self.end_session(SessionEnd::Closed, &EndCause::LoggedOut);
            return;
        }
        if logout.reason == LogoutReason::RemoveForRecovery {
            self.end_recovery_logout(&logout.closing, EndCause::LoggedOut);
            if !self.conns.iter().any(|c| c.is_full_feature()) {
                // req: 7143-11.15.4-1
                self.machine.apply(SessionEvent::Failed);
            }
            return;
        }
        self.forget_lost(&logout.closing);
        if let Some((open, _)) = self.open_one_of(&logout.closing) {
            self.close_connection(open, EndCause::LoggedOut);
        }
        if self.conns.iter().any(|c| c.is_full_feature()) {
            return;
        }
        if self.lost.is_empty() {
            self.end_session(SessionEnd::Closed, &EndCause::LoggedOut);
        } else {
            // What is left of connections that were lost before is kept for a while, and the session with it.
            self.machine.apply(SessionEvent::Failed);
        }
    }

    fn answer_logout(&mut self, logout: &Logout, response: LogoutStatus) {
        if logout.numbered {
            self.order.give_credit();
        }
        let (time2wait, time2retain) = match response {
            LogoutStatus::Success if logout.reason == LogoutReason::RemoveForRecovery => {
                (self.params.default_time2wait, self.params.default_time2retain)
            }
            LogoutStatus::CleanupFailed => (self.params.default_time2wait, self.params.default_time2retain),
            _ => (0, 0),
        };
        let pdu =
            LogoutResponse { response, itt: logout.itt, time2wait, time2retain, ..LogoutResponse::default() };
        self.transmit(logout.conn, pdu.into());
    }

    /// Drops the logouts that came over a connection that is closed: they are not answered, and their credits come back.
    pub(super) fn drop_logouts_of(&mut self, id: ConnId) {
        let order = &mut self.order;
        self.logouts.retain(|l| {
            let gone = l.conn == id;
            if gone && l.numbered {
                order.give_credit();
            }
            !gone
        });
    }

    /// The device server did not let go in time: logouts fail.
    pub(super) fn on_abort_timeout(&mut self) {
        let now = self.now;
        while let Some(index) = self.logouts.iter().position(|l| l.deadline <= now) {
            let logout = self.logouts.remove(index);
            self.finish_logout(&logout, LogoutStatus::CleanupFailed);
        }
        self.watch_logouts();
    }

    fn watch_logouts(&mut self) {
        if let Some(at) = self.logouts.iter().map(|l| l.deadline).min() {
            self.timers.set(Timer::Abort, at);
        }
    }
}
