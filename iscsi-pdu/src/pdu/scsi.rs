//! SCSI Command and SCSI Response (RFC 7143 sections 11.3, 11.4).
//!
//! SCSI Command:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|I| 0x01      |F|R|W|. .|ATTR | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| Logical Unit Number (LUN)                                     |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| Expected Data Transfer Length                                 |
//!    +---------------+---------------+---------------+---------------+
//!  24| CmdSN                                                         |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN                                                     |
//!    +---------------+---------------+---------------+---------------+
//!  32/ SCSI Command Descriptor Block (CDB)                           /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48/ AHS (optional)                                                /
//!    +---------------+---------------+---------------+---------------+
//!   x/ Header-Digest (optional)                                      /
//!    +---------------+---------------+---------------+---------------+
//!   y/ (DataSegment, Command Data) (optional)                        /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!   z/ Data-Digest (optional)                                        /
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! SCSI Response:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x21      |1|. .|o|u|O|U|.| Response      | Status        |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| Reserved                                                      |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| SNACK Tag or Reserved                                         |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| ExpDataSN or Reserved                                         |
//!    +---------------+---------------+---------------+---------------+
//!  40| Bidirectional Read Residual Count or Reserved                 |
//!    +---------------+---------------+---------------+---------------+
//!  44| Residual Count or Reserved                                    |
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//!    / Data Segment (optional)                                       /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!    | Data-Digest (optional)                                        |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::ahs::{self, Ahs};
use crate::bhs::code;
use crate::error::{DecodeError, EncodeError, Rule};
use crate::leaf::{
    Emit, Parsed, arr, be16, be32, bit, cmd_sn, data_sn, itt, lun, no_ahs, segment_len, skip, stat_sn,
};
use crate::{
    BHS_LEN, CmdSn, DataLen, DataSn, Itt, Lun, Opcode, Residual, ScsiStatus, SegmentLen, SnackTag, StatSn,
    TaskAttr,
};
use alloc::vec::Vec;
use bytes::Bytes;
use nom::Parser;

/// SCSI Command (RFC 7143 section 11.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScsiCommand<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// F bit: no unsolicited Data-Out PDUs follow.
    pub final_pdu: bool,
    /// R bit: the command is expected to input data.
    pub read: bool,
    /// W bit: the command is expected to output data.
    pub write: bool,
    /// ATTR.
    pub attr: TaskAttr,
    /// PRI, 4 bits (RFC 7144 section 3.1); 0 unless iSCSIProtocolLevel is 2 or more.
    pub priority: u8,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// Expected Data Transfer Length in bytes: of the output when W is set, else of the input.
    pub expected_data_transfer_length: u32,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// CDB bytes 0 to 15; shorter CDBs are zero-filled.
    pub cdb: [u8; 16],
    /// Additional Header Segments.
    pub ahs: Vec<Ahs>,
    /// Immediate data.
    pub data: D,
}

code! {
    /// iSCSI service response (RFC 7143 section 11.4.3).
    ServiceResponse {
        /// Command completed at target.
        0x00 => Completed,
        /// Target failure.
        0x01 => TargetFailure,
    }
}

/// SCSI Response (RFC 7143 section 11.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScsiResponse<D = Bytes> {
    /// iSCSI service response.
    pub response: ServiceResponse,
    /// SCSI status; valid when `response` is [`ServiceResponse::Completed`].
    pub status: ScsiStatus,
    /// Status Qualifier (RFC 7144 section 3.2); 0 unless iSCSIProtocolLevel is 2 or more.
    pub status_qualifier: u16,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// Tag of the last R-Data SNACK that this response takes into account, else 0.
    pub snack_tag: SnackTag,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// Number of Data-In PDUs that the target sent for the command.
    pub exp_data_sn: DataSn,
    /// Residual of the output (or of the only) direction: bits O and U.
    pub residual: Residual,
    /// Residual of the input direction of a bidirectional command: bits o and u.
    pub bidirectional_read_residual: Residual,
    /// SenseLength (2 bytes), sense data, response data; empty when there is neither.
    pub data: D,
}

const I: u8 = 0x40;
const FINAL: u8 = 0x80;
const READ: u8 = 0x40;
const WRITE: u8 = 0x20;
const ATTR: u8 = 0x07;

/// What byte 1 says: F, R, W and ATTR.
#[derive(Clone, Copy)]
struct Flags {
    final_pdu: bool,
    read: bool,
    write: bool,
    attr: TaskAttr,
}

impl Flags {
    // req: 7143-11.3.1-1, 7143-11.3.1-2, 7143-11.3.1-3, 7143-11.3.1-4
    fn check(self, expected_data_transfer_length: u32) -> Result<Self, Rule> {
        let Self { final_pdu, read, write, attr } = self;
        if attr > TaskAttr::Aca {
            return Err(Rule::TaskAttr);
        }
        if !final_pdu && !write {
            return Err(Rule::FinalOrWrite);
        }
        if !read && !write && expected_data_transfer_length != 0 {
            return Err(Rule::LengthWithoutDirection);
        }
        Ok(self)
    }

    const fn from_byte(b: u8) -> Self {
        let attr = TaskAttr(b & ATTR);
        Self { final_pdu: b & FINAL != 0, read: b & READ != 0, write: b & WRITE != 0, attr }
    }

    const fn to_byte(self) -> u8 {
        bit(self.final_pdu, FINAL) | bit(self.read, READ) | bit(self.write, WRITE) | self.attr.0
    }
}

impl<D> ScsiCommand<D> {
    /// Whether data moves both ways: R and W are set.
    #[must_use]
    pub const fn is_bidirectional(&self) -> bool {
        self.read && self.write
    }

    /// Bidirectional Read Expected Data Transfer Length in bytes, if its AHS is there.
    #[must_use]
    pub fn bidirectional_read_length(&self) -> Option<u32> {
        self.ahs.iter().find_map(|a| match a {
            Ahs::BidirectionalReadLength(n) => Some(*n),
            Ahs::ExtendedCdb(_) => None,
        })
    }

    /// Bytes 16 and up of a CDB longer than 16 bytes; empty when the CDB has no more than 16.
    // req: 7143-11.3.5-1
    #[must_use]
    pub fn extended_cdb(&self) -> &[u8] {
        self.ahs
            .iter()
            .find_map(|a| match a {
                Ahs::ExtendedCdb(cdb) => Some(&cdb[..]),
                Ahs::BidirectionalReadLength(_) => None,
            })
            .unwrap_or_default()
    }

    /// Sets the CDB, of 1 to 260 bytes: the first 16 go into the BHS, zero-filled, the rest into an Extended CDB
    /// AHS. Any Extended CDB from before is removed.
    // req: 7143-11.3.5-1, 7143-11.2.2.3-1
    pub fn set_cdb(&mut self, cdb: &[u8]) {
        self.ahs.retain(|a| !matches!(a, Ahs::ExtendedCdb(_)));
        self.cdb = [0; 16];
        for (to, from) in self.cdb.iter_mut().zip(cdb) {
            *to = *from;
        }
        if let Some(rest @ [_, ..]) = cdb.get(16..) {
            self.ahs.insert(0, Ahs::ExtendedCdb(Bytes::copy_from_slice(rest)));
        }
    }

    // req: 7143-11.3.4-1
    fn check_ahs(&self) -> Result<(), Rule> {
        ahs::check(&self.ahs)?;
        if self.is_bidirectional() && self.bidirectional_read_length().is_none() {
            return Err(Rule::BidirectionalAhs);
        }
        Ok(())
    }

    /// TotalAHSLength in words: of the AHSs that are here or, in a header that was decoded alone, of those it
    /// announced.
    fn ahs_words(&self) -> Result<u8, EncodeError>
    where
        D: DataLen,
    {
        let words = if self.ahs.is_empty() {
            self.data.ahs_words()
        } else {
            self.check_ahs()?;
            let len = ahs::encoded_len(&self.ahs);
            u8::try_from(len / 4).map_err(|_| EncodeError::AhsTooLong { len })?
        };
        if self.is_bidirectional() && words == 0 {
            return Err(Rule::BidirectionalAhs.into());
        }
        Ok(words)
    }

    // req: 7144-5.1.1-3
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), EncodeError>
    where
        D: DataLen,
    {
        let len = SegmentLen { ahs_words: self.ahs_words()?, ..len };
        let &Self { final_pdu, read, write, attr, .. } = self;
        let flags = Flags { final_pdu, read, write, attr };
        flags.check(self.expected_data_transfer_length)?;
        if self.priority > 15 {
            return Err(Rule::FieldWidth.into());
        }
        Emit::new(bhs)
            .put([bit(self.immediate, I) | Opcode::ScsiCommand.0, flags.to_byte(), self.priority << 4, 0])
            .segment_len(len)
            .put(self.lun.0)
            .be32(self.itt.0)
            .be32(self.expected_data_transfer_length)
            .be32(self.cmd_sn.0)
            .be32(self.exp_stat_sn.0)
            .put(self.cdb)
            .end();
        Ok(())
    }

    // req: 7144-5.1.1-3
    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([b0, flags, b2, _], len, lun, itt, expected_data_transfer_length, cmd_sn, exp_stat_sn, cdb)) =
            (arr::<4>, segment_len, lun, itt, be32, cmd_sn, stat_sn, arr::<16>).parse(i)?;
        let flags = Flags::from_byte(flags).check(expected_data_transfer_length)?;
        if flags.read && flags.write && len.ahs_words == 0 {
            return Err(Rule::BidirectionalAhs.into());
        }
        let Flags { final_pdu, read, write, attr } = flags;
        let pdu = Self {
            immediate: b0 & I != 0,
            final_pdu,
            read,
            write,
            attr,
            priority: b2 >> 4,
            lun,
            itt,
            expected_data_transfer_length,
            cmd_sn,
            exp_stat_sn,
            cdb,
            ahs: Vec::new(),
            data: segment(len),
        };
        Ok((i, pdu))
    }

    /// Takes in the AHSs that followed the header.
    pub(crate) fn with_ahs(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.ahs = ahs::parse(bytes)?;
        self.check_ahs()?;
        Ok(())
    }
}

impl<D> ScsiResponse<D> {
    // req: 7143-11.4.1-2
    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        let flags = FINAL | self.bidirectional_read_residual.bits() << 2 | self.residual.bits();
        Emit::new(bhs)
            .put([Opcode::ScsiResponse.0, flags, self.response.0, self.status.0])
            .segment_len(len)
            .be16(self.status_qualifier)
            .zero::<6>()
            .be32(self.itt.0)
            .be32(self.snack_tag.0)
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .be32(self.exp_data_sn.0)
            .be32(self.bidirectional_read_residual.count())
            .be32(self.residual.count())
            .end();
        Ok(())
    }

    // req: 7143-11.4.1-2
    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, flags, response, status], len, status_qualifier, (), itt, snack_tag)) =
            (arr::<4>, no_ahs, be16, skip::<6>, itt, be32).parse(i)?;
        let (i, (stat_sn, exp_cmd_sn, max_cmd_sn, exp_data_sn, bidirectional_read, residual)) =
            (stat_sn, cmd_sn, cmd_sn, data_sn, be32, be32).parse(i)?;
        let bidirectional_read_residual =
            Residual::from_bits(flags >> 2, bidirectional_read).ok_or(Rule::BidirectionalResidual)?;
        let residual = Residual::from_bits(flags, residual).ok_or(Rule::Residual)?;
        let pdu = Self {
            response: ServiceResponse(response),
            status: ScsiStatus(status),
            status_qualifier,
            itt,
            snack_tag: SnackTag(snack_tag),
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn,
            residual,
            bidirectional_read_residual,
            data: segment(len),
        };
        Ok((i, pdu))
    }
}
