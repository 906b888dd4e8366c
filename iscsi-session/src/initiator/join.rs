//! A connection joins its session: the first one, a further one, one in the place of another that was lost.

use super::conn::Conn;
use super::{EndCause, InitiatorSession, Timer};
use crate::action::ConnId;
use crate::csm::ConnEvent;
use crate::setup::ConnSetup;
use crate::ssm::{SessionEvent, SessionState};
use std::time::Instant;

impl InitiatorSession {
    /// A connection of this session has finished its login.
    // req: 7143-11.14-3
    pub fn add_connection(&mut self, now: Instant, setup: ConnSetup) -> ConnId {
        self.now = now;
        let id = ConnId(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        let lost: Vec<ConnId> =
            self.conns.iter().filter(|c| c.lost.is_some() && c.cid == setup.cid).map(|c| c.id).collect();
        self.conns.push(Conn::new(id, setup, now));
        if self.abandoned {
            // Its login was under way when the session was lost: numbers that went with the others would keep the
            // command window shut for ever.
            self.conn_event(id, ConnEvent::TransportDisconnected);
            self.shut(id, EndCause::SessionRecovery);
            return id;
        }
        if self.closed {
            self.close_connection(id, ConnEvent::SessionClosed, EndCause::LoggedOut);
            return id;
        }
        if self.machine.state() == SessionState::Failed {
            self.machine.apply(SessionEvent::ContinuationStarted);
            self.machine.apply(SessionEvent::ContinuationSucceeded);
        } else {
            self.machine.apply(SessionEvent::ConnectionLoggedIn);
        }
        if self.is_closing() {
            // Its login was under way when the session was logged out: nothing new goes on it either, and it ends with
            // the others.
            self.conn_event(id, ConnEvent::LogoutStarted);
            return id;
        }
        if let Some(after) = self.idle_after() {
            self.timers.set(Timer::Idle(id), now + after);
        }
        lost.into_iter().for_each(|old| self.on_reinstated(old, id));
        self.fill_numbers();
        self.recover();
        if std::mem::take(&mut self.leaving) {
            self.logout(now);
        }
        id
    }
}
