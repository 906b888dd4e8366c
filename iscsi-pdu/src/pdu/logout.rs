//! Logout Request and Logout Response (RFC 7143 sections 11.14, 11.15).
//!
//! Logout Request:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|I| 0x06      |1| Reason Code | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------------------------------------------------------+
//!   8/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| CID or Reserved               | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| CmdSN                                                         |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN                                                     |
//!    +---------------+---------------+---------------+---------------+
//!  32/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! Logout Response:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x26      |1| Reserved    | Response      | Reserved      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------------------------------------------------------+
//!   8/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| Reserved                                                      |
//!    +---------------------------------------------------------------+
//!  40| Time2Wait                     | Time2Retain                   |
//!    +---------------+---------------+---------------+---------------+
//!  44| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, be16, bit, cmd_sn, itt, no_segments, skip, stat_sn};
use crate::{BHS_LEN, Cid, CmdSn, Itt, Opcode, SegmentLen, StatSn};
use nom::Parser;

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

const I: u8 = 0x40;
const FINAL: u8 = 0x80;

impl LogoutRequest {
    // req: 7143-11.14.1-1
    fn check(&self) -> Result<(), Rule> {
        if self.reason > LogoutReason::RemoveForRecovery { Err(Rule::LogoutReason) } else { Ok(()) }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        let cid = if self.reason == LogoutReason::CloseSession { 0 } else { self.cid.0 };
        Emit::new(bhs)
            .put([bit(self.immediate, I) | Opcode::LogoutRequest.0, FINAL | self.reason.0, 0, 0])
            .segment_len(SegmentLen::default())
            .zero::<8>()
            .be32(self.itt.0)
            .be16(cid)
            .zero::<2>()
            .be32(self.cmd_sn.0)
            .be32(self.exp_stat_sn.0)
            .zero::<16>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ([b0, b1, ..], (), (), itt, cid, (), cmd_sn, exp_stat_sn)) =
            (arr::<4>, no_segments, skip::<8>, itt, be16, skip::<2>, cmd_sn, stat_sn).parse(i)?;
        let reason = LogoutReason(b1 & !FINAL);
        let cid = if reason == LogoutReason::CloseSession { Cid(0) } else { Cid(cid) };
        let pdu = Self { immediate: b0 & I != 0, reason, itt, cid, cmd_sn, exp_stat_sn };
        pdu.check()?;
        Ok((i, pdu))
    }
}

impl LogoutResponse {
    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        Emit::new(bhs)
            .put([Opcode::LogoutResponse.0, FINAL, self.response.0, 0])
            .segment_len(SegmentLen::default())
            .zero::<8>()
            .be32(self.itt.0)
            .zero::<4>()
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .zero::<4>()
            .be16(self.time2wait)
            .be16(self.time2retain)
            .zero::<4>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ([_, _, response, _], (), (), itt, ())) =
            (arr::<4>, no_segments, skip::<8>, itt, skip::<4>).parse(i)?;
        let (i, (stat_sn, exp_cmd_sn, max_cmd_sn, (), time2wait, time2retain)) =
            (stat_sn, cmd_sn, cmd_sn, skip::<4>, be16, be16).parse(i)?;
        let response = LogoutStatus(response);
        Ok((i, Self { response, itt, stat_sn, exp_cmd_sn, max_cmd_sn, time2wait, time2retain }))
    }
}
