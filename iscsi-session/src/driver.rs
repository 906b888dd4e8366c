//! Sessions as futures on tokio: one future a session does everything that happens in it, on whatever thread polls
//! it. No task a PDU, no channel between socket and disk.
//!
//! ```text
//!   poll: drive links ─▶ events ─▶ session ─▶ device server ─▶ session ─▶ actions ─▶ drive links
//! ```

mod alarm;
mod initiator;
mod links;
mod members;
mod target;

pub use initiator::{InitiatorHandle, SessionClosed, SessionEnded, SubmitError, Submitted, run_session};
pub use members::JoinRefusal;
pub use target::{TargetControl, serve_session};

use std::time::{Duration, Instant};

/// How long a session that has ended waits for its connections to send what is queued.
const PARTING: Duration = Duration::from_secs(2);

/// Rounds of moving bytes and handling them in one poll, before other futures have their turn.
const ROUNDS: usize = 8;

/// The time as tokio tells it, which its tests may hold still.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
