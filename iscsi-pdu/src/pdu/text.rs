//! Text Request and Text Response (RFC 7143 sections 11.10, 11.11).
//!
//! Text Request:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|I| 0x04      |F|C| Reserved                                  |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
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
//!    / DataSegment (Text)                                            /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! Text Response:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x24      |F|C| Reserved                                  |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
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
//!    / DataSegment (Text)                                            /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, bit, cmd_sn, itt, lun, no_ahs, stat_sn, ttt};
use crate::{BHS_LEN, CmdSn, Itt, Lun, Opcode, SegmentLen, StatSn, Ttt};
use bytes::Bytes;
use nom::Parser;

/// Text Request (RFC 7143 section 11.10).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextRequest<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// F bit: the initiator has no more to say in this sequence.
    pub final_pdu: bool,
    /// C bit: the text goes on in the next request.
    pub continue_text: bool,
    /// Copied from the response, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag, the same through the sequence.
    pub itt: Itt,
    /// Copied from the response; [`Ttt::NONE`] starts or resets a sequence.
    pub ttt: Ttt,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

/// Text Response (RFC 7143 section 11.11).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextResponse<D = Bytes> {
    /// F bit: the target has no more to say in this sequence.
    pub final_pdu: bool,
    /// C bit: the text goes on in the next response.
    pub continue_text: bool,
    /// Logical unit, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// [`Ttt::NONE`] exactly when `final_pdu` is set.
    pub ttt: Ttt,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

const I: u8 = 0x40;
const FINAL: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// F and C, which exclude each other.
// req: 7143-11.10.2-1, 7143-11.11.2-1
fn flags(final_pdu: bool, continue_text: bool) -> Result<u8, Rule> {
    if final_pdu && continue_text {
        return Err(Rule::ContinueExcludesFinal);
    }
    Ok(bit(final_pdu, FINAL) | bit(continue_text, CONTINUE))
}

/// The reverse of [`flags`].
// req: 7143-11.10.2-1, 7143-11.11.2-1
fn from_flags(byte: u8) -> Result<(bool, bool), Rule> {
    match byte & (FINAL | CONTINUE) {
        0xc0 => Err(Rule::ContinueExcludesFinal),
        b => Ok((b & FINAL != 0, b & CONTINUE != 0)),
    }
}

impl<D> TextRequest<D> {
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        let flags = flags(self.final_pdu, self.continue_text)?;
        Emit::new(bhs)
            .put([bit(self.immediate, I) | Opcode::TextRequest.0, flags, 0, 0])
            .segment_len(len)
            .put(if self.ttt.is_none() { [0; 8] } else { self.lun.0 })
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
        let (i, ([b0, flags, ..], len, lun, itt, ttt, cmd_sn, exp_stat_sn)) =
            (arr::<4>, no_ahs, lun, itt, ttt, cmd_sn, stat_sn).parse(i)?;
        let (final_pdu, continue_text) = from_flags(flags)?;
        let lun = if ttt.is_none() { Lun::ZERO } else { lun };
        let immediate = b0 & I != 0;
        let data = segment(len);
        Ok((i, Self { immediate, final_pdu, continue_text, lun, itt, ttt, cmd_sn, exp_stat_sn, data }))
    }
}

impl<D> TextResponse<D> {
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        let flags = flags(self.final_pdu, self.continue_text)?;
        Emit::new(bhs)
            .put([Opcode::TextResponse.0, flags, 0, 0])
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
        let (i, ([_, flags, ..], len, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn)) =
            (arr::<4>, no_ahs, lun, itt, ttt, stat_sn, cmd_sn, cmd_sn).parse(i)?;
        let (final_pdu, continue_text) = from_flags(flags)?;
        let lun = if ttt.is_none() { Lun::ZERO } else { lun };
        let data = segment(len);
        Ok((i, Self { final_pdu, continue_text, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data }))
    }
}
