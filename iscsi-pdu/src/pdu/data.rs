//! SCSI Data-Out and SCSI Data-In (RFC 7143 section 11.7).
//!
//! SCSI Data-Out:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x05      |F| Reserved                                    |
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
//!  24| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN                                                     |
//!    +---------------+---------------+---------------+---------------+
//!  32| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| DataSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  40| Buffer Offset                                                 |
//!    +---------------+---------------+---------------+---------------+
//!  44| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!    / DataSegment                                                   /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! SCSI Data-In:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x25      |F|A|0 0 0|O|U|S| Reserved      |Status or Rsvd |
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
//!  24| StatSN or Reserved                                            |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| DataSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  40| Buffer Offset                                                 |
//!    +---------------+---------------+---------------+---------------+
//!  44| Residual Count                                                |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!    / DataSegment                                                   /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, be32, bit, cmd_sn, data_sn, itt, lun, no_ahs, skip, stat_sn, ttt};
use crate::{BHS_LEN, CmdSn, DataSn, Itt, Lun, Opcode, Residual, ScsiStatus, SegmentLen, StatSn, Ttt};
use bytes::Bytes;
use nom::Parser;

/// SCSI Data-Out (RFC 7143 section 11.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataOut<D = Bytes> {
    /// F bit: the last PDU of an unsolicited or solicited sequence.
    pub final_pdu: bool,
    /// Logical unit of the R2T, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag of the R2T this answers; [`Ttt::NONE`] for unsolicited data.
    pub ttt: Ttt,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// DataSN within the sequence, from 0.
    pub data_sn: DataSn,
    /// Offset of the data within the task's output buffer, in bytes.
    pub buffer_offset: u32,
    /// The data.
    pub data: D,
}

/// SCSI Data-In (RFC 7143 section 11.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataIn<D = Bytes> {
    /// F bit: the last PDU of a sequence.
    pub final_pdu: bool,
    /// A bit: the target asks for a DataACK SNACK (ErrorRecoveryLevel above 0 only).
    pub acknowledge: bool,
    /// S bit: the status of the command, with which this PDU ends it; else `None`.
    pub status: Option<ScsiStatus>,
    /// Residual; [`Residual::None`] unless `status` is given.
    pub residual: Residual,
    /// Logical unit, when A is set.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag that the DataACK SNACK must copy, when A is set, else [`Ttt::NONE`].
    pub ttt: Ttt,
    /// StatSN, when `status` is given, else 0.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// DataSN within the command, from 0.
    pub data_sn: DataSn,
    /// Offset of the data within the task's input buffer, in bytes.
    pub buffer_offset: u32,
    /// The data.
    pub data: D,
}

const FINAL: u8 = 0x80;
const ACKNOWLEDGE: u8 = 0x40;
const STATUS: u8 = 0x01;

impl<D> DataOut<D> {
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        Emit::new(bhs)
            .put([Opcode::DataOut.0, bit(self.final_pdu, FINAL), 0, 0])
            .segment_len(len)
            .put(if self.ttt.is_none() { [0; 8] } else { self.lun.0 })
            .be32(self.itt.0)
            .be32(self.ttt.0)
            .zero::<4>()
            .be32(self.exp_stat_sn.0)
            .zero::<4>()
            .be32(self.data_sn.0)
            .be32(self.buffer_offset)
            .zero::<4>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, flags, ..], len, lun, itt, ttt, (), exp_stat_sn, (), data_sn, buffer_offset)) =
            (arr::<4>, no_ahs, lun, itt, ttt, skip::<4>, stat_sn, skip::<4>, data_sn, be32).parse(i)?;
        let lun = if ttt.is_none() { Lun::ZERO } else { lun };
        let final_pdu = flags & FINAL != 0;
        Ok((i, Self { final_pdu, lun, itt, ttt, exp_stat_sn, data_sn, buffer_offset, data: segment(len) }))
    }
}

impl<D> DataIn<D> {
    // req: 7143-11.7.3-4
    fn check(&self) -> Result<(), Rule> {
        if self.status.is_some() && !self.final_pdu { Err(Rule::StatusWithoutFinal) } else { Ok(()) }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        let (s, status, stat_sn, residual) = match self.status {
            Some(status) => (STATUS, status.0, self.stat_sn.0, self.residual),
            None => (0, 0, 0, Residual::None),
        };
        let (lun, ttt) = if self.acknowledge { (self.lun, self.ttt) } else { (Lun::ZERO, Ttt::NONE) };
        let flags = bit(self.final_pdu, FINAL) | bit(self.acknowledge, ACKNOWLEDGE) | residual.bits() | s;
        Emit::new(bhs)
            .put([Opcode::DataIn.0, flags, 0, status])
            .segment_len(len)
            .put(lun.0)
            .be32(self.itt.0)
            .be32(ttt.0)
            .be32(stat_sn)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .be32(self.data_sn.0)
            .be32(self.buffer_offset)
            .be32(residual.count())
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, flags, _, status], len, lun, itt, ttt, stat_sn)) =
            (arr::<4>, no_ahs, lun, itt, ttt, stat_sn).parse(i)?;
        let (i, (exp_cmd_sn, max_cmd_sn, data_sn, buffer_offset, residual)) =
            (cmd_sn, cmd_sn, data_sn, be32, be32).parse(i)?;
        let acknowledge = flags & ACKNOWLEDGE != 0;
        let (lun, ttt) = if acknowledge { (lun, ttt) } else { (Lun::ZERO, Ttt::NONE) };
        // Status, StatSN, O, U and Residual Count mean something with S only.
        let (status, stat_sn, residual) = if flags & STATUS != 0 {
            let residual = Residual::from_bits(flags, residual).ok_or(Rule::Residual)?;
            (Some(ScsiStatus(status)), stat_sn, residual)
        } else {
            (None, StatSn(0), Residual::None)
        };
        let pdu = Self {
            final_pdu: flags & FINAL != 0,
            acknowledge,
            status,
            residual,
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            buffer_offset,
            data: segment(len),
        };
        pdu.check()?;
        Ok((i, pdu))
    }
}
