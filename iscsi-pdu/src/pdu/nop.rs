//! NOP-Out and NOP-In (RFC 7143 sections 11.18, 11.19).
//!
//! NOP-Out:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|I| 0x00      |1| Reserved                                    |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag or 0xffffffff                              |
//!    +---------------+---------------+---------------+---------------+
//!  20| Target Transfer Tag or 0xffffffff                             |
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
//!    / DataSegment - Ping Data (optional)                            /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! NOP-In:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x20      |1| Reserved                                    |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag or 0xffffffff                              |
//!    +---------------+---------------+---------------+---------------+
//!  20| Target Transfer Tag or 0xffffffff                             |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!    / DataSegment - Return Ping Data                                /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, bit, cmd_sn, itt, lun, no_ahs, skip, stat_sn, ttt};
use crate::{BHS_LEN, CmdSn, Itt, Lun, Opcode, SegmentLen, StatSn, Ttt};
use bytes::Bytes;
use nom::Parser;

/// NOP-Out: a ping, the answer to one, or a carrier of ExpStatSN (RFC 7143 section 11.18).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NopOut<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// Logical unit, when `ttt` is valid: copied from the NOP-In.
    pub lun: Lun,
    /// Tag of this ping; [`Itt::NONE`] when no answer is wanted.
    pub itt: Itt,
    /// Copied from the NOP-In this answers, else [`Ttt::NONE`].
    pub ttt: Ttt,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Ping data, which the NOP-In returns.
    pub data: D,
}

/// NOP-In: a ping, the answer to one, or a carrier of ExpCmdSN and MaxCmdSN (RFC 7143 section 11.19).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NopIn<D = Bytes> {
    /// Logical unit, when `ttt` is valid.
    pub lun: Lun,
    /// Tag of the NOP-Out this answers, else [`Itt::NONE`].
    pub itt: Itt,
    /// Tag that the answering NOP-Out must copy; [`Ttt::NONE`] when no answer is wanted.
    pub ttt: Ttt,
    /// StatSN; the next value, and consumed only when `itt` is valid.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// Returned ping data.
    pub data: D,
}

const I: u8 = 0x40;
const FINAL: u8 = 0x80;

impl NopOut {
    /// A ping, which the target answers with `data` in a NOP-In. The session fills in the numbers.
    // req: 7143-11.18.1-1, 7143-11.18.2-1, 7143-11.18.2-2
    #[must_use]
    pub fn ping(itt: Itt, data: Bytes) -> Self {
        Self { itt, data, ..Self::default() }
    }

    /// The answer to a ping of the target. Immediate; the session fills in the numbers.
    // req: 7143-11.18.1-2, 7143-11.18.1-4, 7143-11.18.2-3
    #[must_use]
    pub fn answer<D>(ping: &NopIn<D>) -> Self {
        Self { immediate: true, lun: ping.lun, ttt: ping.ttt, ..Self::default() }
    }

    /// What says nothing but ExpStatSN, and about a logical unit if so wanted (RFC 7143 section 4.2.3.3: after
    /// AsyncEvent 5). Immediate; the session fills in the numbers.
    // req: 7143-11.18.1-2, 7143-11.18.1-4, 7143-11.18.2-2
    #[must_use]
    pub fn confirmation(lun: Lun) -> Self {
        Self { immediate: true, lun, ..Self::default() }
    }
}

impl<D> NopOut<D> {
    // req: 7143-11.18.1-4
    fn check(&self) -> Result<(), Rule> {
        if self.itt.is_none() && !self.immediate { Err(Rule::NopOutImmediate) } else { Ok(()) }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        Emit::new(bhs)
            .put([bit(self.immediate, I) | Opcode::NopOut.0, FINAL, 0, 0])
            .segment_len(len)
            .put(self.lun.0)
            .be32(self.itt.0)
            .be32(self.ttt.0)
            .be32(self.cmd_sn.0)
            .be32(self.exp_stat_sn.0)
            .zero::<16>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([b0, ..], len, lun, itt, ttt, cmd_sn, exp_stat_sn)) =
            (arr::<4>, no_ahs, lun, itt, ttt, cmd_sn, stat_sn).parse(i)?;
        let pdu = Self { immediate: b0 & I != 0, lun, itt, ttt, cmd_sn, exp_stat_sn, data: segment(len) };
        pdu.check()?;
        Ok((i, pdu))
    }
}

impl<D> NopIn<D> {
    fn check(&self) -> Result<(), Rule> {
        if !self.itt.is_none() && !self.ttt.is_none() { Err(Rule::NopInTags) } else { Ok(()) }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        Emit::new(bhs)
            .put([Opcode::NopIn.0, FINAL, 0, 0])
            .segment_len(len)
            .put(if self.ttt.is_none() { [0; 8] } else { self.lun.0 })
            .be32(self.itt.0)
            .be32(self.ttt.0)
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .zero::<12>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, (_, len, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn)) =
            (skip::<4>, no_ahs, lun, itt, ttt, stat_sn, cmd_sn, cmd_sn).parse(i)?;
        let lun = if ttt.is_none() { Lun::ZERO } else { lun };
        let pdu = Self { lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data: segment(len) };
        pdu.check()?;
        Ok((i, pdu))
    }
}
