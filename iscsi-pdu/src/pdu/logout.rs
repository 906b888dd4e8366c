//! Logout Request and Logout Response (RFC 7143 sections 11.14, 11.15).

use crate::{Cid, CmdSn, Itt, StatSn, bhs::code};

code! {
    /// Reason of a logout (RFC 7143 section 11.14.1); seven bits.
    LogoutReason {
        /// Close the session.
        0 => CloseSession,
        /// Close the connection named by CID.
        1 => CloseConnection,
        /// Remove the connection named by CID for recovery.
        2 => RemoveForRecovery,
    }
}

code! {
    /// Response to a logout (RFC 7143 section 11.15.1).
    LogoutStatus {
        /// Connection or session closed successfully.
        0 => Success,
        /// CID not found.
        1 => CidNotFound,
        /// Connection recovery is not supported.
        2 => RecoveryNotSupported,
        /// Cleanup failed.
        3 => CleanupFailed,
    }
}

/// Logout Request (RFC 7143 section 11.14).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogoutRequest {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// Reason.
    pub reason: LogoutReason,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// The connection meant; reserved (0) when the session is closed.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
}

/// Logout Response (RFC 7143 section 11.15).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogoutResponse {
    /// Response.
    pub response: LogoutStatus,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// Time2Wait in seconds.
    pub time2wait: u16,
    /// Time2Retain in seconds.
    pub time2retain: u16,
}
