//! Login Request and Login Response (RFC 7143 sections 11.12, 11.13).
//!
//! Login Request:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|1| 0x03      |T|C|.|.|CSG|NSG| Version-max   | Version-min   |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| ISID                                                          |
//!    +                               +---------------+---------------+
//!  12|                               | TSIH                          |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| CID                           | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| CmdSN                                                         |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN or Reserved                                         |
//!    +---------------+---------------+---------------+---------------+
//!  32| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  40/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48/ DataSegment - Login Parameters in Text Request Format         /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! Login Response:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x23      |T|C|.|.|CSG|NSG| Version-max   |Version-active |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| ISID                                                          |
//!    +                               +---------------+---------------+
//!  12|                               | TSIH                          |
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
//!  36| Status-Class  | Status-Detail | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!  40/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48/ DataSegment - Login Parameters in Text Request Format         /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, be16, bit, cmd_sn, itt, no_ahs, skip, stat_sn};
use crate::{BHS_LEN, Cid, CmdSn, Isid, IsidKind, Itt, Opcode, SegmentLen, StatSn, Tsih};
use bytes::Bytes;
use nom::Parser;

code! {
    /// Stage of a login: CSG and NSG (RFC 7143 section 11.12.3); two bits.
    Stage {
        /// SecurityNegotiation.
        0 => SecurityNegotiation,
        /// LoginOperationalNegotiation.
        1 => LoginOperationalNegotiation,
        /// Reserved.
        2 => Reserved,
        /// FullFeaturePhase.
        3 => FullFeaturePhase,
    }
}

/// Login Request (RFC 7143 section 11.12). The I bit is always set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoginRequest<D = Bytes> {
    /// T bit: the initiator is ready to move to `nsg`.
    pub transit: bool,
    /// C bit: the text goes on in the next request.
    pub continue_text: bool,
    /// Current stage.
    pub csg: Stage,
    /// Next stage; valid with `transit`, else 0.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-min.
    pub version_min: u8,
    /// Initiator session identifier.
    pub isid: Isid,
    /// Session handle; [`Tsih::NEW`] for a new session.
    pub tsih: Tsih,
    /// Initiator Task Tag, the same through the login.
    pub itt: Itt,
    /// Connection ID.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Login parameters: `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

/// Login Response (RFC 7143 section 11.13).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoginResponse<D = Bytes> {
    /// T bit: the target agrees to move to `nsg`.
    pub transit: bool,
    /// C bit: the text goes on in the next response.
    pub continue_text: bool,
    /// Current stage.
    pub csg: Stage,
    /// Next stage; valid with `transit`, else 0.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-active.
    pub version_active: u8,
    /// Initiator session identifier, copied from the request.
    pub isid: Isid,
    /// Session handle: of the new session in the final response, else as in the request.
    pub tsih: Tsih,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// StatSN; valid with Status-Class 0.
    pub stat_sn: StatSn,
    /// ExpCmdSN; valid with Status-Class 0.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN; valid with Status-Class 0.
    pub max_cmd_sn: CmdSn,
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub status_class: u8,
    /// Status-Detail, with a meaning of its own in each class (RFC 7143 section 11.13.5).
    pub status_detail: u8,
    /// Login parameters: `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

const I: u8 = 0x40;
const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// Byte 1 of both login PDUs.
#[derive(Clone, Copy)]
struct Flags {
    transit: bool,
    continue_text: bool,
    csg: Stage,
    nsg: Stage,
}

impl Flags {
    // req: 7143-11.12.2-1, 7143-11.12.3-1, 7143-11.13.7-1
    fn check(self) -> Result<Self, Rule> {
        let Self { transit, continue_text, csg, mut nsg } = self;
        if transit && continue_text {
            return Err(Rule::ContinueExcludesFinal);
        }
        if !transit {
            nsg = Stage::default();
        }
        if [csg, nsg].iter().any(|s| *s == Stage::Reserved || s.0 > 3) {
            return Err(Rule::LoginStage);
        }
        Ok(Self { nsg, ..self })
    }

    fn from_byte(b: u8) -> Result<Self, Rule> {
        let (csg, nsg) = (Stage(b >> 2 & 3), Stage(b & 3));
        Self { transit: b & TRANSIT != 0, continue_text: b & CONTINUE != 0, csg, nsg }.check()
    }

    fn to_byte(self) -> Result<u8, Rule> {
        let f = self.check()?;
        Ok(bit(f.transit, TRANSIT) | bit(f.continue_text, CONTINUE) | f.csg.0 << 2 | f.nsg.0)
    }
}

impl<D> LoginRequest<D> {
    // req: 7143-11.12.5-5
    fn check(&self) -> Result<(), Rule> {
        if self.isid.kind() == IsidKind::Reserved { Err(Rule::IsidType) } else { Ok(()) }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        self.check()?;
        let &Self { transit, continue_text, csg, nsg, .. } = self;
        let flags = Flags { transit, continue_text, csg, nsg }.to_byte()?;
        Emit::new(bhs)
            .put([I | Opcode::LoginRequest.0, flags, self.version_max, self.version_min])
            .segment_len(len)
            .put(self.isid.0)
            .be16(self.tsih.0)
            .be32(self.itt.0)
            .be16(self.cid.0)
            .zero::<2>()
            .be32(self.cmd_sn.0)
            .be32(self.exp_stat_sn.0)
            .zero::<16>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, flags, version_max, version_min], len, isid, tsih, itt, cid, (), cmd_sn, exp_stat_sn)) =
            (arr::<4>, no_ahs, arr::<6>, be16, itt, be16, skip::<2>, cmd_sn, stat_sn).parse(i)?;
        let Flags { transit, continue_text, csg, nsg } = Flags::from_byte(flags)?;
        let pdu = Self {
            transit,
            continue_text,
            csg,
            nsg,
            version_max,
            version_min,
            isid: Isid(isid),
            tsih: Tsih(tsih),
            itt,
            cid: Cid(cid),
            cmd_sn,
            exp_stat_sn,
            data: segment(len),
        };
        pdu.check()?;
        Ok((i, pdu))
    }
}

impl<D> LoginResponse<D> {
    /// T, C, CSG and NSG. In a Login reject T, CSG and NSG are reserved (RFC 7143 section 6.3.1).
    fn flags(&self) -> Flags {
        let &Self { continue_text, csg, nsg, .. } = self;
        if self.status_class == 0 {
            Flags { transit: self.transit, continue_text, csg, nsg }
        } else {
            Flags { transit: false, continue_text, csg: Stage::default(), nsg: Stage::default() }
        }
    }

    #[inline(never)]
    pub(crate) fn emit(&self, len: SegmentLen, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        let flags = self.flags().to_byte()?;
        Emit::new(bhs)
            .put([Opcode::LoginResponse.0, flags, self.version_max, self.version_active])
            .segment_len(len)
            .put(self.isid.0)
            .be16(self.tsih.0)
            .be32(self.itt.0)
            .zero::<4>()
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .put([self.status_class, self.status_detail])
            .zero::<10>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8], segment: impl FnOnce(SegmentLen) -> D) -> Parsed<'_, Self> {
        let (i, ([_, flags, version_max, version_active], len, isid, tsih, itt, ())) =
            (arr::<4>, no_ahs, arr::<6>, be16, itt, skip::<4>).parse(i)?;
        let (i, (stat_sn, exp_cmd_sn, max_cmd_sn, [status_class, status_detail])) =
            (stat_sn, cmd_sn, cmd_sn, arr::<2>).parse(i)?;
        let flags = if status_class == 0 { flags } else { flags & CONTINUE };
        let Flags { transit, continue_text, csg, nsg } = Flags::from_byte(flags)?;
        let pdu = Self {
            transit,
            continue_text,
            csg,
            nsg,
            version_max,
            version_active,
            isid: Isid(isid),
            tsih: Tsih(tsih),
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status_class,
            status_detail,
            data: segment(len),
        };
        Ok((i, pdu))
    }
}
