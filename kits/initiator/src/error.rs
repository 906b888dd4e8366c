//! What can go wrong on the way to a disk.

use crate::command::ScsiError;
use crate::url::UrlError;
use iscsi_login::LoginFailure;
use iscsi_login::auth::{ChapConfigError, SecretError};
use iscsi_login::sendtargets::SendTargetsError;
use iscsi_pdu::RejectReason;
use iscsi_session::initiator::{ExchangeFailure, FunctionRefusal, Refusal};
use iscsi_session::login::LoginError;
use std::io;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is no good.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A CHAP secret breaks a rule.
    #[error("CHAP secret: {0}")]
    Secret(#[from] SecretError),
    /// CHAP credentials break a rule.
    #[error("CHAP: {0}")]
    Chap(#[from] ChapConfigError),
    /// The system has no random numbers to give.
    #[error("no random numbers: {0}")]
    Random(String),
    /// No connection.
    #[error("cannot connect to {portal}: {source}")]
    Connect {
        /// Where to.
        portal: String,
        /// Why.
        source: io::Error,
    },
    /// The connection ended during login.
    #[error("{0}")]
    Login(LoginError),
    /// The target sends us from one address to the next.
    #[error("the target redirects in circles or too often")]
    RedirectLoop,
    /// The answer to SendTargets cannot be read.
    #[error("answer to SendTargets: {0}")]
    SendTargets(SendTargetsError),
    /// A text exchange failed.
    #[error("text exchange: {0:?}")]
    Exchange(ExchangeFailure),
    /// The target ended the command with a status other than GOOD.
    #[error("{0}")]
    Scsi(ScsiError),
    /// A task management function was not sent.
    #[error("the function cannot be asked for: {0:?}")]
    Function(FunctionRefusal),
    /// The target rejected the command (RFC 7143 section 11.17.1).
    #[error("the target rejected the command: {0}")]
    Rejected(RejectReason),
    /// The command cannot be sent.
    #[error("the command cannot be sent: {0:?}")]
    Refused(Refusal),
    /// The target failed to carry the command out (iSCSI service response, RFC 7143 section 11.4.3).
    #[error("the target failed the command with iSCSI service response {0:#04x}")]
    ServiceResponse(u8),
    /// The command was ended by a task management function.
    #[error("the command was aborted")]
    Aborted,
    /// No answer within the time allowed.
    #[error("no answer from the target within {0} s")]
    TimedOut(u64),
    /// The session was lost and could not be had again.
    #[error("session lost: {0}")]
    SessionLost(String),
    /// The session has been closed.
    #[error("the session is closed")]
    Closed,
    /// The LUN is not there.
    #[error("LUN {0} does not exist at the target")]
    NoSuchLun(u16),
    /// The LUN is something else than a disk.
    #[error("the LUN is no disk (peripheral device type {0:#04x})")]
    NoDisk(u8),
    /// A block size that no disk has.
    #[error("the target reports a block size of {0} bytes")]
    BlockSize(u32),
    /// Data of the target cannot be read.
    #[error("malformed data from the target: {0}")]
    Malformed(scsi_cmd::DecodeError),
    /// The target said GOOD but sent something else than was asked for.
    #[error("the target sent {found} bytes where {expected} were asked for")]
    Short {
        /// Bytes asked for.
        expected: u32,
        /// Bytes received.
        found: usize,
    },
    /// Data whose length is no multiple of the block size.
    #[error("{len} bytes are no multiple of the block size {block}")]
    Unaligned {
        /// Bytes given.
        len: usize,
        /// Bytes a block.
        block: u32,
    },
    /// More than one command can carry.
    #[error("more data than one SCSI command can carry")]
    TooLong,
    /// The target's unit restarted with writes in its cache that no flush had covered.
    #[error("the target restarted: writes since the last flush may be lost")]
    WritesLost,
    /// Memory for the data is used up.
    #[error("no memory for the data: too many commands in flight")]
    NoMemory,
}

impl Error {
    /// Whether the target (or we ourselves, because of mutual CHAP or a key) refused the login, as opposed to a
    /// connection that failed.
    #[must_use]
    pub fn is_login_refused(&self) -> bool {
        matches!(self, Self::Login(LoginError::Refused(_)))
    }

    /// The failure of a login that was refused.
    #[must_use]
    pub fn login_failure(&self) -> Option<&LoginFailure> {
        match self {
            Self::Login(LoginError::Refused(failure)) => Some(failure),
            _ => None,
        }
    }
}

impl From<ScsiError> for Error {
    fn from(e: ScsiError) -> Self {
        Self::Scsi(e)
    }
}

impl From<LoginError> for Error {
    fn from(e: LoginError) -> Self {
        Self::Login(e)
    }
}
