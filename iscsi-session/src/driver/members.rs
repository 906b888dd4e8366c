//! Which connections a target's session has, and which are about to join it.

use iscsi_pdu::Cid;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why a connection cannot join a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinRefusal {
    /// The session has ended or is about to.
    Ending,
    /// It has MaxConnections, those counted that are in their logins.
    TooMany,
}

/// What the logins of a session share.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// In full feature phase.
    pub(super) open: Vec<Cid>,
    /// At the end of their logins, or on their way to the session.
    joining: Vec<Cid>,
    pub(super) ending: bool,
}

impl Members {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn join(&mut self, cid: Cid, max_connections: u16) -> Result<(), JoinRefusal> {
        if self.ending {
            return Err(JoinRefusal::Ending);
        }
        // One with the same CID is replaced (RFC 7143 section 6.3.4). Two that join with one CID replace each other.
        let mut others: Vec<Cid> = self.open.iter().chain(&self.joining).copied().collect();
        others.retain(|c| *c != cid);
        others.sort_unstable();
        others.dedup();
        if others.len() >= usize::from(max_connections) {
            return Err(JoinRefusal::TooMany);
        }
        self.joining.push(cid);
        Ok(())
    }

    pub(super) fn withdraw(&mut self, cid: Cid) {
        if let Some(at) = self.joining.iter().position(|c| *c == cid) {
            self.joining.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_under_way_count() {
        let mut s = State { open: vec![Cid(1)], ..State::default() };
        assert_eq!(s.join(Cid(2), 2), Ok(()));
        assert_eq!(s.join(Cid(3), 2), Err(JoinRefusal::TooMany));
        assert_eq!(s.join(Cid(1), 2), Ok(()), "a reinstatement adds none");
        s.withdraw(Cid(2));
        assert_eq!(s.join(Cid(3), 2), Ok(()));
    }

    #[test]
    fn nothing_joins_a_session_that_ends() {
        let mut s = State { ending: true, ..State::default() };
        assert_eq!(s.join(Cid(1), 8), Err(JoinRefusal::Ending));
    }
}
