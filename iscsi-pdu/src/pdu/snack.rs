//! SNACK Request (RFC 7143 section 11.16).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x10      |1|.|.|.| Type  | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN or Reserved                                               |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag or 0xffffffff                              |
//!    +---------------+---------------+---------------+---------------+
//!  20| Target Transfer Tag or SNACK Tag or 0xffffffff                |
//!    +---------------+---------------+---------------+---------------+
//!  24| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN                                                     |
//!    +---------------+---------------+---------------+---------------+
//!  32/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  40| BegRun                                                        |
//!    +---------------------------------------------------------------+
//!  44| RunLength                                                     |
//!    +---------------------------------------------------------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, be32, itt, lun, no_segments, skip, stat_sn, ttt};
use crate::{BHS_LEN, DataIn, Itt, Lun, Opcode, SegmentLen, SnackTag, StatSn, Ttt};
use nom::Parser;

code! {
    /// Type of a SNACK (RFC 7143 section 11.16.1); four bits.
    SnackType {
        /// Data/R2T SNACK: resend Data-In or R2T PDUs.
        0 => DataR2t,
        /// Status SNACK: resend numbered responses.
        1 => Status,
        /// DataACK: acknowledge Data-In PDUs.
        2 => DataAck,
        /// R-Data SNACK: resend Data-In PDUs, segmented anew.
        3 => RData,
    }
}

/// SNACK Request (RFC 7143 section 11.16).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snack {
    /// Type.
    pub kind: SnackType,
    /// Logical unit of the Data-In with A set (DataACK).
    pub lun: Lun,
    /// The command (Data/R2T, R-Data), else [`Itt::NONE`].
    pub itt: Itt,
    /// Target Transfer Tag (DataACK), SNACK Tag (R-Data) or 0xffffffff, as the type says.
    pub ttt_or_snack_tag: Ttt,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// BegRun: first missing DataSN, R2TSN or StatSN, or next expected DataSN (DataACK).
    pub beg_run: u32,
    /// RunLength: number of missing PDUs; 0 means all from BegRun on.
    pub run_length: u32,
}

const FINAL: u8 = 0x80;

impl Snack {
    /// Asks for Data-In or R2T PDUs of a task again: `run_length` of them from `beg_run` on, or all if that is 0.
    // req: 7143-11.16.4-2, 7143-11.16.5-4
    #[must_use]
    pub fn data_r2t(itt: Itt, beg_run: u32, run_length: u32) -> Self {
        Self { kind: SnackType::DataR2t, itt, beg_run, run_length, ..Self::default() }
    }

    /// Asks for numbered responses again: `run_length` of them from `beg_run` on, or all if that is 0.
    // req: 7143-11.16.4-1, 7143-11.16.5-4
    #[must_use]
    pub fn status(beg_run: StatSn, run_length: u32) -> Self {
        Self { kind: SnackType::Status, beg_run: beg_run.0, run_length, ..Self::default() }
    }

    /// Acknowledges all Data-In PDUs up to and with this one, whose A bit is set.
    // req: 7143-11.16.4-1, 7143-11.16.5-3, 7143-11.16.7-1
    #[must_use]
    pub fn data_ack<D>(data_in: &DataIn<D>) -> Self {
        let &DataIn { lun, ttt, data_sn, .. } = data_in;
        let beg_run = data_sn.next().0;
        Self { kind: SnackType::DataAck, lun, ttt_or_snack_tag: ttt, beg_run, ..Self::default() }
    }

    /// Asks for all unacknowledged Data-In PDUs of a task again, segmented anew. `tag` is neither 0 nor
    /// 0xffffffff and new for the task.
    // req: 7143-11.16.4-2, 7143-11.16.5-1, 7143-11.16.6-1, 7143-11.16.7-1
    #[must_use]
    pub fn r_data(itt: Itt, tag: SnackTag) -> Self {
        Self { kind: SnackType::RData, itt, ttt_or_snack_tag: Ttt(tag.0), ..Self::default() }
    }

    // req: 7143-11.16.4-2, 7143-11.16.5-1
    fn check(&self) -> Result<(), Rule> {
        match self.kind {
            SnackType::Status | SnackType::DataAck => Ok(()),
            SnackType::DataR2t | SnackType::RData if self.itt.is_none() => Err(Rule::SnackTask),
            SnackType::RData if matches!(self.ttt_or_snack_tag, Ttt(0) | Ttt::NONE) => Err(Rule::SnackTag),
            SnackType::DataR2t | SnackType::RData => Ok(()),
            _ => Err(Rule::SnackType),
        }
    }

    /// With the fields that the type gives no meaning at their reserved values.
    // req: 7143-11.16.4-1, 7143-11.16.5-3, 7143-11.16.5-4, 7143-11.16.6-1, 7143-11.16.7-1
    fn canonical(&self) -> Self {
        let mut pdu = self.clone();
        if matches!(pdu.kind, SnackType::Status | SnackType::DataAck) {
            pdu.itt = Itt::NONE;
        }
        if matches!(pdu.kind, SnackType::Status | SnackType::DataR2t) {
            pdu.ttt_or_snack_tag = Ttt::NONE;
        }
        if pdu.kind != SnackType::DataAck {
            pdu.lun = Lun::ZERO;
        }
        if pdu.kind == SnackType::RData {
            pdu.beg_run = 0;
        }
        if matches!(pdu.kind, SnackType::RData | SnackType::DataAck) {
            pdu.run_length = 0;
        }
        pdu
    }

    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        let pdu = self.canonical();
        Emit::new(bhs)
            .put([Opcode::Snack.0, FINAL | pdu.kind.0, 0, 0])
            .segment_len(SegmentLen::default())
            .put(pdu.lun.0)
            .be32(pdu.itt.0)
            .be32(pdu.ttt_or_snack_tag.0)
            .zero::<4>()
            .be32(pdu.exp_stat_sn.0)
            .zero::<8>()
            .be32(pdu.beg_run)
            .be32(pdu.run_length)
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ([_, b1, ..], (), lun, itt, ttt_or_snack_tag, (), exp_stat_sn, (), beg_run, run_length)) =
            (arr::<4>, no_segments, lun, itt, ttt, skip::<4>, stat_sn, skip::<8>, be32, be32).parse(i)?;
        let kind = SnackType(b1 & 0x0f);
        let pdu = Self { kind, lun, itt, ttt_or_snack_tag, exp_stat_sn, beg_run, run_length };
        pdu.check()?;
        Ok((i, pdu.canonical()))
    }
}
