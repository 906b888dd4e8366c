//! Reject (RFC 7143 section 11.17).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x3f      |1| Reserved    | Reason        | Reserved      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  16| 0xffffffff                                                    |
//!    +---------------+---------------+---------------+---------------+
//!  20| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| DataSN/R2TSN or Reserved                                      |
//!    +---------------+---------------+---------------+---------------+
//!  40| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  44| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!  xx/ Complete Header of Bad PDU                                    /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  yy/Vendor-specific data (if any)                                  /
//!    /                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  zz| Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, cmd_sn, data_sn, no_ahs, skip, stat_sn};
use crate::{BHS_LEN, CmdSn, DataSn, Itt, Opcode, SegmentLen, StatSn};
use bytes::Bytes;
use nom::Parser;

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

impl<D> Reject<D> {
    // req: 7143-11.17.1-1
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        if self.reason == RejectReason::NegotiationReset {
            return Err(Rule::RejectReason);
        }
        Emit::new(bhs)
            .put([Opcode::Reject.0, 0x80, self.reason.0, 0])
            .segment_len(len)
            .zero::<8>()
            .be32(Itt::NONE.0)
            .zero::<4>()
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .be32(self.data_sn.0)
            .zero::<8>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, _, reason, _], len, (), stat_sn, exp_cmd_sn, max_cmd_sn, data_sn)) =
            (arr::<4>, no_ahs, skip::<16>, stat_sn, cmd_sn, cmd_sn, data_sn).parse(i)?;
        let reason = RejectReason(reason);
        Ok((i, Self { reason, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, data: segment(len) }))
    }
}
