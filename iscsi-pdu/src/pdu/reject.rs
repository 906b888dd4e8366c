//! Reject (RFC 7143 section 11.17).

use crate::{CmdSn, DataSn, StatSn, bhs::code};
use bytes::Bytes;

code! {
    /// Reason of a Reject (RFC 7143 section 11.17.1).
    RejectReason {
        /// Data (payload) digest error.
        0x02 => DataDigestError,
        /// SNACK reject.
        0x03 => SnackReject,
        /// Protocol error.
        0x04 => ProtocolError,
        /// Command not supported.
        0x05 => CommandNotSupported,
        /// Immediate command reject: too many immediate commands.
        0x06 => ImmediateCommandReject,
        /// Task in progress.
        0x07 => TaskInProgress,
        /// Invalid data acknowledgment.
        0x08 => InvalidDataAck,
        /// Invalid PDU field.
        0x09 => InvalidPduField,
        /// Long operation reject: cannot generate a Target Transfer Tag, out of resources.
        0x0a => LongOperationReject,
        /// Deprecated: negotiation reset (RFC 3720).
        0x0b => NegotiationReset,
        /// Waiting for logout.
        0x0c => WaitingForLogout,
    }
}

/// Reject (RFC 7143 section 11.17).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reject<D = Bytes> {
    /// Reason.
    pub reason: RejectReason,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// DataSN or R2TSN: next expected number, in a Reject of a DataACK or Data/R2T SNACK.
    pub data_sn: DataSn,
    /// Complete header (BHS, AHS, digest) of the rejected PDU.
    pub data: D,
}
