//! Connection states (RFC 7143 section 8.1) and their cleanup (section 8.2), as tables.
//!
//! ```text
//!  standard connection (8.1.3, 8.1.4)                      cleanup of S8 (8.2)
//!
//!            ┌──────────── S1 FREE ◀─────────────┐              R1 CLEANUP_WAIT ◀─┐
//!      T1 (I)│ T3 (T)        ▲ ▲ ▲               │T13         M1 │      │ M2      │ M3
//!            ▼               │ │ │               │               │      ▼         │
//!  S2 XPT_WAIT (I) ── T2 ────┘ │ │               │               │  R2 IN_CLEANUP─┘
//!  S3 XPT_UP   (T) ── T6 ──────┘ │               │               │      │ M4
//!            │ T4                │               │               ▼      ▼
//!            ▼                   │               │                 R3 FREE
//!  S4 IN_LOGIN ────── T7 ────────┤               │
//!            │ T5                │               │
//!            ▼                   │               │
//!  S5 LOGGED_IN ───── T8 ────────┤               │
//!   │   │    └──────────────── T9 ─────────▶ S6 IN_LOGOUT ⟲ T14 (I)
//!   │   │ T11                    │ T18         ▲      │
//!   │   └──▶ S7 LOGOUT_REQUESTED ┴──── T10 ────┘      │
//!   │            ⟲ T12  │                             │
//!   └─ T15 ─────────────┴ T16 ──▶ S8 CLEANUP_WAIT ◀───┘ T17
//! ```

use datamover::Role;
use std::fmt;

/// State of a connection (section 8.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ConnState {
    /// S1: on instantiation, or after the connection was closed.
    Free,
    /// S2, initiator: waiting for the transport connection.
    XptWait,
    /// S3, target: waiting for the login to begin.
    XptUp,
    /// S4: waiting for the login to end.
    InLogin,
    /// S5: full feature phase.
    LoggedIn,
    /// S6: waiting for the logout to end.
    InLogout,
    /// S7: the target asked for a logout.
    LogoutRequested,
    /// S8: the connection is gone, its tasks are not.
    CleanupWait,
}

impl ConnState {
    /// All states, in the order of the RFC.
    pub const ALL: [Self; 8] = [
        Self::Free,
        Self::XptWait,
        Self::XptUp,
        Self::InLogin,
        Self::LoggedIn,
        Self::InLogout,
        Self::LogoutRequested,
        Self::CleanupWait,
    ];

    /// Whether this is full feature phase operation: S5, S6 or S7.
    #[must_use]
    pub const fn is_full_feature(self) -> bool {
        matches!(self, Self::LoggedIn | Self::InLogout | Self::LogoutRequested)
    }

    /// Number and name of the RFC, such as `S5: LOGGED_IN`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "S1: FREE",
            Self::XptWait => "S2: XPT_WAIT",
            Self::XptUp => "S3: XPT_UP",
            Self::InLogin => "S4: IN_LOGIN",
            Self::LoggedIn => "S5: LOGGED_IN",
            Self::InLogout => "S6: IN_LOGOUT",
            Self::LogoutRequested => "S7: LOGOUT_REQUESTED",
            Self::CleanupWait => "S8: CLEANUP_WAIT",
        }
    }
}

impl fmt::Display for ConnState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What makes a connection change its state (section 8.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ConnEvent {
    /// Initiator: a transport connection was asked for.
    ConnectRequested,
    /// Target: a transport connection was accepted.
    TransportAccepted,
    /// Initiator: the transport connection is there, the login starts.
    TransportUp,
    /// Target: the first Login Request came.
    LoginRequested,
    /// The final Login Response with Status-Class 0 was received (initiator) or is sent (target).
    LoginSucceeded,
    /// The final Login Response with another Status-Class was received (initiator) or is sent (target).
    LoginFailed,
    /// The login took too long, or did not begin.
    LoginTimedOut,
    /// The transport timed out.
    TransportTimedOut,
    /// The transport was reset.
    TransportReset,
    /// The transport was disconnected.
    TransportDisconnected,
    /// A "close the session" logout succeeded on another connection; for a target's connection in login, one was
    /// received there.
    SessionClosed,
    /// Target: a connection or session reinstatement succeeded.
    Reinstated,
    /// Target: a connection or session reinstatement failed.
    ReinstatementFailed,
    /// A Logout Request is to be sent (initiator) or was received (target).
    LogoutStarted,
    /// An Async Message that requests a logout was received (initiator) or is to be sent (target).
    LogoutAsked,
    /// The logout succeeded: its response was received (initiator) or is to be sent (target).
    LogoutSucceeded,
    /// The logout failed or, at an initiator, timed out.
    LogoutFailed,
    /// An Async Message that drops this or all connections was received (initiator), or an emergency makes the
    /// target send one.
    Dropped,
}

impl ConnEvent {
    /// All events.
    pub const ALL: [Self; 18] = [
        Self::ConnectRequested,
        Self::TransportAccepted,
        Self::TransportUp,
        Self::LoginRequested,
        Self::LoginSucceeded,
        Self::LoginFailed,
        Self::LoginTimedOut,
        Self::TransportTimedOut,
        Self::TransportReset,
        Self::TransportDisconnected,
        Self::SessionClosed,
        Self::Reinstated,
        Self::ReinstatementFailed,
        Self::LogoutStarted,
        Self::LogoutAsked,
        Self::LogoutSucceeded,
        Self::LogoutFailed,
        Self::Dropped,
    ];
}

/// Whose transition it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Initiator,
    Target,
    Both,
}

impl Who {
    const fn includes(self, role: Role) -> bool {
        matches!(
            (self, role),
            (Self::Both, _) | (Self::Initiator, Role::Initiator) | (Self::Target, Role::Target)
        )
    }
}

struct Row {
    name: &'static str,
    who: Who,
    from: ConnState,
    events: &'static [ConnEvent],
    to: ConnState,
}

const fn row(
    name: &'static str,
    who: Who,
    from: ConnState,
    events: &'static [ConnEvent],
    to: ConnState,
) -> Row {
    Row { name, who, from, events, to }
}

/// The transitions of section 8.1.2. T7 has no transport timeout of its own at the initiator but names all five.
// req: 7143-8.1.2-1, 7143-8.1.2-2, 7143-8.1.2-3, 7143-8.1.2-4, 7143-8.1.2-5, 7143-8.1.2-6, 7143-8.1.2-7
// req: 7143-8.1.2-8, 7143-8.1.2-9, 7143-8.1.2-10, 7143-8.1.2-11, 7143-8.1.2-12, 7143-8.1.2-13, 7143-8.1.2-14
// req: 7143-8.1.2-15, 7143-8.1.3-1, 7143-8.1.4-1
#[rustfmt::skip]
const TRANSITIONS: &[Row] = {
    use ConnEvent::*;
    use ConnState::*;
    use Who::{Both, Initiator, Target};
    const LOSS: &[ConnEvent] = &[TransportTimedOut, TransportReset, TransportDisconnected, Dropped];
    &[
        row("T1", Initiator, Free, &[ConnectRequested], XptWait),
        row("T2", Initiator, XptWait, &[TransportTimedOut, TransportReset, SessionClosed], Free),
        row("T3", Target, Free, &[TransportAccepted], XptUp),
        row("T4", Initiator, XptWait, &[TransportUp], InLogin),
        row("T4", Target, XptUp, &[LoginRequested], InLogin),
        row("T5", Both, InLogin, &[LoginSucceeded], LoggedIn),
        row("T6", Target, XptUp,
            &[LoginTimedOut, TransportDisconnected, TransportReset, TransportTimedOut], Free),
        row("T7", Both, InLogin, &[LoginFailed, LoginTimedOut, TransportDisconnected, TransportReset,
            TransportTimedOut, SessionClosed], Free),
        row("T8", Both, LoggedIn, &[SessionClosed], Free),
        row("T8", Target, LoggedIn, &[Reinstated], Free),
        row("T9", Both, LoggedIn, &[LogoutStarted], InLogout),
        row("T10", Both, LogoutRequested, &[LogoutStarted], InLogout),
        row("T11", Both, LoggedIn, &[LogoutAsked], LogoutRequested),
        row("T12", Both, LogoutRequested, &[LogoutAsked], LogoutRequested),
        row("T13", Both, InLogout, &[LogoutSucceeded, SessionClosed], Free),
        row("T13", Target, InLogout, &[Reinstated], Free),
        row("T14", Initiator, InLogout, &[LogoutAsked], InLogout),
        row("T15", Both, LoggedIn, LOSS, CleanupWait),
        row("T15", Target, LoggedIn, &[ReinstatementFailed], CleanupWait),
        row("T16", Both, LogoutRequested, LOSS, CleanupWait),
        row("T16", Target, LogoutRequested, &[ReinstatementFailed], CleanupWait),
        row("T17", Both, InLogout, LOSS, CleanupWait),
        row("T17", Both, InLogout, &[LogoutFailed], CleanupWait),
        row("T17", Target, InLogout, &[ReinstatementFailed], CleanupWait),
        row("T18", Both, LogoutRequested, &[SessionClosed], Free),
        row("T18", Target, LogoutRequested, &[Reinstated], Free),
    ]
};

/// The state of one connection, at one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnMachine {
    role: Role,
    state: ConnState,
}

impl ConnMachine {
    /// A connection in S1 (FREE).
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, state: ConnState::Free }
    }

    /// A connection whose login is over: S5 (LOGGED_IN).
    #[must_use]
    pub const fn logged_in(role: Role) -> Self {
        Self { role, state: ConnState::LoggedIn }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> ConnState {
        self.state
    }

    /// Takes the transition that the RFC defines for the event in this state, and returns its name; `None` when
    /// there is none, and the state stays.
    pub fn apply(&mut self, event: ConnEvent) -> Option<&'static str> {
        let row = lookup(self.role, self.state, event)?;
        self.state = row.to;
        Some(row.name)
    }
}

fn lookup(role: Role, from: ConnState, event: ConnEvent) -> Option<&'static Row> {
    TRANSITIONS.iter().find(|r| r.who.includes(role) && r.from == from && r.events.contains(&event))
}

/// State of a connection's cleanup (section 8.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CleanupState {
    /// R1, the same as S8: waiting for the cleanup to start.
    CleanupWait,
    /// R2: a logout for the connection, implicit or explicit, is under way.
    InCleanup,
    /// R3, the same as S1.
    Free,
}

/// What makes a cleanup change its state (section 8.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CleanupEvent {
    /// The connection state timed out.
    StateTimedOut,
    /// A "close the session" logout succeeded on another connection.
    SessionClosed,
    /// An implicit or explicit logout for the connection began.
    LogoutStarted,
    /// It failed: the reinstating connection ended in FREE, or the logout was refused or timed out.
    LogoutFailed,
    /// It succeeded: the reinstating connection is LOGGED_IN, or the Logout Response says so.
    LogoutSucceeded,
}

/// The cleanup of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupMachine {
    state: CleanupState,
}

impl Default for CleanupMachine {
    fn default() -> Self {
        Self { state: CleanupState::CleanupWait }
    }
}

impl CleanupMachine {
    /// The state.
    #[must_use]
    pub const fn state(&self) -> CleanupState {
        self.state
    }

    /// As [`ConnMachine::apply`]. The diagram is the same for both roles.
    // req: 7143-8.2.2-1, 7143-8.2.2-2, 7143-8.2.2-3, 7143-8.2.2-4
    pub fn apply(&mut self, event: CleanupEvent) -> Option<&'static str> {
        use CleanupEvent as E;
        use CleanupState as R;
        let (name, to) = match (self.state, event) {
            (R::CleanupWait, E::StateTimedOut | E::SessionClosed) => ("M1", R::Free),
            (R::CleanupWait, E::LogoutStarted) => ("M2", R::InCleanup),
            (R::InCleanup, E::LogoutFailed) => ("M3", R::CleanupWait),
            (R::InCleanup, E::LogoutSucceeded | E::SessionClosed) => ("M4", R::Free),
            _ => return None,
        };
        self.state = to;
        Some(name)
    }
}

#[cfg(test)]
mod tests;
