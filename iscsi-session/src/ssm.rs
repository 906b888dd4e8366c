//! Session states (RFC 7143 section 8.3), as a table.
//!
//! ```text
//!      initiator (8.3.1)                         target (8.3.2)
//!
//!        Q1 FREE ◀────────┐          ┌─────────── Q1 FREE ◀──────── N3
//!     N6 ▲    │ N1        │ N3    N6 │ N11          │ N1  ▲ N9      │
//!        │    ▼           │          ▲   ▲          ▼     │         │
//!  Q4 FAILED  Q3 LOGGED_IN┘          │   │        Q2 ACTIVE         │
//!     ▲ │ N4     ▲ │                 │   │          │ N2            │
//!     │ └────────┘ │                 │ Q5 IN_CONTINUE ── N10 ─▶ Q3 LOGGED_IN
//!     └──── N5 ────┘                 │  ▲ N7  │ N8                  │
//!                                    Q4 FAILED ◀──────── N5 ────────┘
//! ```

use datamover::Role;
use std::fmt;

/// State of a session (section 8.3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SessionState {
    /// Q1: on instantiation, or after cleanup.
    Free,
    /// Q2, target: the first connection is in its login.
    Active,
    /// Q3: full feature phase.
    LoggedIn,
    /// Q4: without connections; waiting for recovery or continuation.
    Failed,
    /// Q5, target: a continuation is being tried.
    InContinue,
}

impl SessionState {
    /// All states, in the order of the RFC.
    pub const ALL: [Self; 5] = [Self::Free, Self::Active, Self::LoggedIn, Self::Failed, Self::InContinue];

    /// Number and name of the RFC, such as `Q3: LOGGED_IN`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "Q1: FREE",
            Self::Active => "Q2: ACTIVE",
            Self::LoggedIn => "Q3: LOGGED_IN",
            Self::Failed => "Q4: FAILED",
            Self::InContinue => "Q5: IN_CONTINUE",
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What makes a session change its state (section 8.3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SessionEvent {
    /// The first connection is in its login.
    ConnectionInLogin,
    /// The login of the leading connection failed.
    LeadingLoginFailed,
    /// A connection reached full feature phase.
    ConnectionLoggedIn,
    /// Session closure (section 6.3.5).
    Closed,
    /// Target: a session reinstatement closed the session. Initiator: one cleared this instance.
    Reinstated,
    /// Session failure (section 6.3.6): the last connection is gone or removed for recovery.
    Failed,
    /// A continuation was begun.
    ContinuationStarted,
    /// A continuation succeeded.
    ContinuationSucceeded,
    /// The last continuation that was tried failed.
    ContinuationFailed,
    /// The session state timed out.
    StateTimedOut,
}

impl SessionEvent {
    /// All events.
    pub const ALL: [Self; 10] = [
        Self::ConnectionInLogin,
        Self::LeadingLoginFailed,
        Self::ConnectionLoggedIn,
        Self::Closed,
        Self::Reinstated,
        Self::Failed,
        Self::ContinuationStarted,
        Self::ContinuationSucceeded,
        Self::ContinuationFailed,
        Self::StateTimedOut,
    ];
}

type Row = (&'static str, SessionState, &'static [SessionEvent], SessionState);

// req: 7143-8.3.4-1, 7143-8.3.4-3, 7143-8.3.4-4, 7143-8.3.4-5, 7143-8.3.4-6
const INITIATOR: &[Row] = {
    use SessionEvent as E;
    use SessionState as Q;
    &[
        ("N1", Q::Free, &[E::ConnectionLoggedIn], Q::LoggedIn),
        ("N3", Q::LoggedIn, &[E::Closed], Q::Free),
        ("N4", Q::Failed, &[E::ContinuationSucceeded], Q::LoggedIn),
        ("N5", Q::LoggedIn, &[E::Failed], Q::Failed),
        ("N6", Q::Failed, &[E::StateTimedOut, E::Reinstated], Q::Free),
    ]
};

// req: 7143-8.3.4-1, 7143-8.3.4-2, 7143-8.3.4-3, 7143-8.3.4-5, 7143-8.3.4-6, 7143-8.3.4-7, 7143-8.3.4-8
// req: 7143-8.3.4-9
const TARGET: &[Row] = {
    use SessionEvent as E;
    use SessionState as Q;
    &[
        ("N1", Q::Free, &[E::ConnectionInLogin], Q::Active),
        ("N2", Q::Active, &[E::ConnectionLoggedIn], Q::LoggedIn),
        ("N3", Q::LoggedIn, &[E::Closed, E::Reinstated], Q::Free),
        ("N5", Q::LoggedIn, &[E::Failed], Q::Failed),
        ("N6", Q::Failed, &[E::StateTimedOut, E::Reinstated], Q::Free),
        ("N7", Q::Failed, &[E::ContinuationStarted], Q::InContinue),
        ("N8", Q::InContinue, &[E::ContinuationFailed], Q::Failed),
        ("N9", Q::Active, &[E::LeadingLoginFailed], Q::Free),
        ("N10", Q::InContinue, &[E::ContinuationSucceeded], Q::LoggedIn),
        ("N11", Q::InContinue, &[E::Reinstated], Q::Free),
    ]
};

/// The state of one session, at one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionMachine {
    role: Role,
    state: SessionState,
}

impl SessionMachine {
    /// A session in Q1 (FREE).
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, state: SessionState::Free }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// Takes the transition that the RFC defines for the event in this state, and returns its name; `None` when
    /// there is none, and the state stays.
    pub fn apply(&mut self, event: SessionEvent) -> Option<&'static str> {
        let table = match self.role {
            Role::Initiator => INITIATOR,
            Role::Target => TARGET,
        };
        let (name, _, _, to) =
            table.iter().find(|(_, from, events, _)| *from == self.state && events.contains(&event))?;
        self.state = *to;
        Some(name)
    }
}

#[cfg(test)]
mod tests;
