//! How a target's session behaves: limits, patience, the functions it has.

use super::{NoTargets, TargetDirectory};
use iscsi_pdu::TaskMgmtFunction;
use std::sync::Arc;
use std::time::Duration;

/// How a target's sessions behave, beyond what was negotiated.
#[derive(Clone)]
pub struct TargetConfig {
    /// Immediate commands that one connection may have under way, task management apart, and of logouts as many again;
    /// at least 1. Beyond it they are rejected with "immediate command reject".
    pub immediate_commands: u32,
    /// Immediate task management functions that one connection may have under way, and of numbered ones as many again;
    /// at least 1. Beyond it immediate ones are rejected with "immediate command reject" and numbered ones, which have
    /// been received by then, answered "function rejected".
    pub immediate_functions: u32,
    /// Task management functions that are carried out; the others are answered "not supported".
    pub functions: Functions,
    /// How long a connection may be silent before it is pinged; `None` never pings.
    pub ping_after: Option<Duration>,
    /// How long the answer to a ping may take before the connection counts as lost.
    pub ping_timeout: Duration,
    /// Bytes of text that the initiator may send in one exchange.
    pub text_limit: usize,
    /// Bytes of text that answer one request; longer answers (to SendTargets) are rejected.
    pub text_answer_limit: usize,
    /// How long an initiator may leave a text exchange unfinished.
    pub text_timeout: Duration,
    /// How long the device server may take to let go of the tasks that a logout ended; then the logout fails. The end
    /// of the session waits for them without limit.
    pub abort_timeout: Duration,
    /// What SendTargets answers.
    pub directory: Arc<dyn TargetDirectory>,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            immediate_commands: 16,
            immediate_functions: 16,
            functions: Functions::ALL,
            ping_after: Some(Duration::from_secs(30)),
            ping_timeout: Duration::from_secs(20),
            text_limit: 65_536,
            text_answer_limit: 1 << 20,
            text_timeout: Duration::from_secs(30),
            abort_timeout: Duration::from_secs(60),
            directory: Arc::new(NoTargets),
        }
    }
}

/// A set of task management functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Functions(u16);

impl Functions {
    /// All that are defined.
    pub const ALL: Self = Self(u16::MAX);
    /// None but ABORT TASK and the queries, which the engine does alone.
    pub const NONE: Self = Self(
        1 << TaskMgmtFunction::AbortTask.0
            | 1 << TaskMgmtFunction::QueryTask.0
            | 1 << TaskMgmtFunction::QueryTaskSet.0,
    );

    /// The set with one more.
    #[must_use]
    pub const fn with(self, function: TaskMgmtFunction) -> Self {
        Self(self.0 | Self::bit(function))
    }

    /// The set with one less.
    #[must_use]
    pub const fn without(self, function: TaskMgmtFunction) -> Self {
        Self(self.0 & !Self::bit(function))
    }

    /// Whether the function is in the set; undefined ones never are.
    #[must_use]
    pub const fn contains(self, function: TaskMgmtFunction) -> bool {
        self.0 & Self::bit(function) != 0
    }

    const fn bit(function: TaskMgmtFunction) -> u16 {
        match function.0 {
            n @ 1..=12 => 1 << n,
            _ => 0,
        }
    }
}
