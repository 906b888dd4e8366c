//! Ready To Transfer (RFC 7143 section 11.8).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x31      |1| Reserved                                    |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| LUN                                                           |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| Target Transfer Tag                                           |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| R2TSN                                                         |
//!    +---------------+---------------+---------------+---------------+
//!  40| Buffer Offset                                                 |
//!    +---------------+---------------+---------------+---------------+
//!  44| Desired Data Transfer Length                                  |
//!    +---------------------------------------------------------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::error::Rule;
use crate::leaf::{Emit, Parsed, be32, cmd_sn, itt, lun, no_segments, skip, stat_sn, ttt};
use crate::{BHS_LEN, CmdSn, Itt, Lun, Opcode, R2tSn, SegmentLen, StatSn, Ttt};
use nom::Parser;

/// Ready To Transfer (RFC 7143 section 11.8).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct R2t {
    /// Logical unit of the command.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag that the Data-Out PDUs must copy; never [`Ttt::NONE`].
    pub ttt: Ttt,
    /// StatSN: the next value, not consumed.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// R2TSN within the command, from 0.
    pub r2t_sn: R2tSn,
    /// Offset of the wanted data within the task's output buffer, in bytes.
    pub buffer_offset: u32,
    /// Desired Data Transfer Length in bytes, 1 to MaxBurstLength.
    pub desired_data_transfer_length: u32,
}

impl R2t {
    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        Emit::new(bhs)
            .put([Opcode::R2t.0, 0x80, 0, 0])
            .segment_len(SegmentLen::default())
            .put(self.lun.0)
            .be32(self.itt.0)
            .be32(self.ttt.0)
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .be32(self.r2t_sn.0)
            .be32(self.buffer_offset)
            .be32(self.desired_data_transfer_length)
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ((), (), lun, itt, ttt)) = (skip::<4>, no_segments, lun, itt, ttt).parse(i)?;
        let (i, (stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset, desired_data_transfer_length)) =
            (stat_sn, cmd_sn, cmd_sn, be32, be32, be32).parse(i)?;
        let pdu = Self {
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            r2t_sn: R2tSn(r2t_sn),
            buffer_offset,
            desired_data_transfer_length,
        };
        Ok((i, pdu))
    }
}
