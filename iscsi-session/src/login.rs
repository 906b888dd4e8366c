//! The login phase put together: a login machine of `iscsi-login` driven over a [`LoginLink`](datamover::LoginLink)
//! until full feature phase, in the order of RFC 5047 section 13 (figures 2 to 6).
//!
//! ```text
//!   LoginLink ──poll_login──▶ machine ──Send──▶ LoginLink
//!                               │ NoticeKeys, Allocate        (RFC 5047 sections 8.8, 8.4)
//!                               │ Enable ──▶ enable_datamover (section 8.6) ──▶ Datamover + Negotiated
//! ```

#[cfg(feature = "tokio")]
mod accept;
#[cfg(feature = "tokio")]
mod connect;
mod keys;
#[cfg(feature = "tokio")]
mod turn;

#[cfg(feature = "tokio")]
pub use accept::{LoginPolicy, accept};
#[cfg(feature = "tokio")]
pub use connect::connect;
pub use keys::conn_keys;

use datamover::{Datamover, LinkError};
use iscsi_login::{LoginFailure, Negotiated, Redirection};
use std::fmt;

/// A connection that has just entered full feature phase.
pub struct LoggedIn {
    /// The connection.
    pub datamover: Box<dyn Datamover>,
    /// What was agreed on it.
    pub negotiated: Negotiated,
}

impl fmt::Debug for LoggedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedIn").field("negotiated", &self.negotiated).finish_non_exhaustive()
    }
}

/// Why there is no connection in full feature phase.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoginError {
    /// The connection failed or brought something that is no login.
    Link(LinkError),
    /// One of the two ends refused.
    Refused(LoginFailure),
    /// The target is elsewhere.
    Redirected(Box<Redirection>),
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(e) => e.fmt(f),
            Self::Refused(failure) => failure.fmt(f),
            Self::Redirected(to) => {
                f.write_str(if to.permanently {
                    "the target has moved to"
                } else {
                    "the target is for now at"
                })?;
                to.addresses.iter().try_for_each(|a| write!(f, " {a}"))
            }
        }
    }
}

impl std::error::Error for LoginError {}
