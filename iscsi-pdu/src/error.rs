//! Why bytes are not a PDU, and why a PDU is not bytes.

use crate::{Opcode, RejectReason};
use core::fmt;

/// A rule of RFC 7143 section 11 that binds the contents of a PDU, one variant a rule.
///
/// The decoder and the encoder check the same rules: what decodes can be encoded, and what is encoded decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// TotalAHSLength is 0 in every PDU but a SCSI Command (sections 11.2, 11.5.2, 11.8.1).
    NoAhs,
    /// DataSegmentLength is 0 in a PDU that has no data segment (sections 11.5.2, 11.6.2, 11.8.1, 11.14.2, 11.15.2).
    NoData,
    /// AHSType is 1 or 2; all other codes are reserved (section 11.2.2.2).
    AhsType,
    /// AHSLength stays within TotalAHSLength and fits the AHSType (sections 11.2.2.1, 11.2.2.3, 11.2.2.4).
    AhsLength,
    /// A SCSI Command has one AHS of a type at most.
    AhsRepeated,
    /// ATTR is 0 to 4 (section 11.3.1).
    TaskAttr,
    /// F or W is 1 in a SCSI Command (section 11.3.1).
    FinalOrWrite,
    /// Expected Data Transfer Length is 0 when R and W are 0 (section 11.3.1).
    LengthWithoutDirection,
    /// A bidirectional SCSI Command has a Bidirectional Read Expected Data Transfer Length AHS (section 11.3.4).
    BidirectionalAhs,
    /// O excludes U (sections 11.4.1, 11.7.6).
    Residual,
    /// Bit o excludes bit u (section 11.4.1).
    BidirectionalResidual,
    /// A Data-In that carries status is the last: S goes with F (section 11.7.3).
    StatusWithoutFinal,
    /// C excludes F in text PDUs, T in login PDUs (sections 11.10.2, 11.11.2, 11.12.2, 11.13.7).
    ContinueExcludesFinal,
    /// CSG is 0, 1 or 3; NSG too when T is 1 (section 11.12.3).
    LoginStage,
    /// The type bits of an ISID are not 11b (section 11.12.5).
    IsidType,
    /// Reason of a Logout Request is 0, 1 or 2 (section 11.14.1).
    LogoutReason,
    /// Type of a SNACK is 0 to 3 (section 11.16.1).
    SnackType,
    /// Data/R2T and R-Data SNACKs name a task (section 11.16.4).
    SnackTask,
    /// The SNACK Tag of an R-Data SNACK is neither 0 nor 0xffffffff (section 11.16.5).
    SnackTag,
    /// A NOP-Out that asks for no answer is immediate (section 11.18.1).
    NopOutImmediate,
    /// A NOP-In that answers a ping is no ping itself: a valid Initiator Task Tag excludes a valid Target
    /// Transfer Tag (sections 7.7, 11.19).
    NopInTags,
    /// SenseLength stays within the data segment, and is 0 in an Async Message that is no SCSI event (sections
    /// 11.4.7, 11.9.4.1).
    SenseLength,
    /// Reason 0x0b, negotiation reset, is not sent (section 11.17.1). Only the encoder checks it.
    RejectReason,
    /// A value has more bits than its field. Only the encoder can meet it.
    FieldWidth,
}

impl Rule {
    /// Offset in the PDU of the field that breaks the rule; of the first AHS for those about an AHS, of a data
    /// segment right behind the BHS for that about SenseLength.
    #[must_use]
    pub const fn at(self) -> u16 {
        match self {
            Self::SnackType
            | Self::TaskAttr
            | Self::FinalOrWrite
            | Self::Residual
            | Self::BidirectionalResidual
            | Self::StatusWithoutFinal
            | Self::ContinueExcludesFinal
            | Self::LoginStage
            | Self::LogoutReason
            | Self::FieldWidth => 1,
            Self::NopOutImmediate => 0,
            Self::RejectReason => 2,
            Self::NoAhs | Self::BidirectionalAhs => 4,
            Self::NoData => 5,
            Self::IsidType => 8,
            Self::SnackTask => 16,
            Self::NopInTags | Self::LengthWithoutDirection | Self::SnackTag => 20,
            Self::AhsLength | Self::AhsRepeated | Self::SenseLength => 48,
            Self::AhsType => 50,
        }
    }

    /// Whether the rule is about a reserved code in a defined field, which RFC 7143 section 11 makes a protocol
    /// error; else breaking it is a format error (section 7.7).
    #[must_use]
    pub const fn is_reserved_code(self) -> bool {
        matches!(
            self,
            Self::AhsType
                | Self::TaskAttr
                | Self::LoginStage
                | Self::IsidType
                | Self::LogoutReason
                | Self::SnackType
        )
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NoAhs => "this PDU takes no additional header segment",
            Self::NoData => "this PDU takes no data segment",
            Self::AhsType => "reserved AHSType",
            Self::AhsLength => "AHSLength does not fit",
            Self::AhsRepeated => "two additional header segments of one type",
            Self::TaskAttr => "reserved ATTR",
            Self::FinalOrWrite => "neither F nor W",
            Self::LengthWithoutDirection => "expected length without R or W",
            Self::BidirectionalAhs => "bidirectional command without the read length AHS",
            Self::Residual => "O and U",
            Self::BidirectionalResidual => "o and u",
            Self::StatusWithoutFinal => "S without F",
            Self::ContinueExcludesFinal => "C with F or T",
            Self::LoginStage => "reserved stage code",
            Self::IsidType => "reserved ISID type",
            Self::LogoutReason => "reserved logout reason",
            Self::SnackType => "reserved SNACK type",
            Self::SnackTask => "SNACK names no task",
            Self::SnackTag => "reserved SNACK Tag",
            Self::NopOutImmediate => "NOP-Out without task tag is not immediate",
            Self::NopInTags => "NOP-In with both tags",
            Self::SenseLength => "SenseLength does not fit",
            Self::RejectReason => "deprecated reject reason",
            Self::FieldWidth => "value wider than its field",
        }
    }
}

/// The text of the rule, in lower case, for logs.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// What is wrong with bytes that were to be a PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end too early. This is the only error that more bytes can cure.
    Incomplete {
        /// How many bytes are missing before anything more can be said; at least 1.
        needed: u32,
    },
    /// Bytes follow the end of the PDU, or of a segment of it.
    TrailingBytes {
        /// How many.
        extra: u32,
    },
    /// An opcode that RFC 7143 does not assign.
    UnknownOpcode(Opcode),
    /// An opcode of the half of the code space that the sender must not use (RFC 7143 section 11.2.1.2).
    WrongSender(Opcode),
    /// More Additional Header Segment than the limit allows.
    AhsTooLong {
        /// Bytes announced.
        len: u16,
        /// Bytes allowed.
        limit: u16,
    },
    /// A longer data segment than MaxRecvDataSegmentLength allows.
    DataTooLong {
        /// Bytes announced.
        len: u32,
        /// Bytes allowed.
        limit: u32,
    },
    /// The header digest does not match.
    HeaderDigest,
    /// The data digest does not match.
    DataDigest,
    /// A rule about the contents is broken.
    Rule(Rule),
}

/// Why bytes are not a PDU: what is wrong and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Offset of the field in the PDU, in bytes from the start of the BHS; 65535 stands for anything beyond.
    pub at: u16,
}

impl DecodeError {
    pub(crate) const fn new(kind: DecodeErrorKind, at: u16) -> Self {
        Self { kind, at }
    }

    /// The error of bytes that end `needed` bytes too early, `at` their end.
    pub(crate) fn incomplete(needed: usize, at: usize) -> Self {
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        Self::new(DecodeErrorKind::Incomplete { needed }, u16::try_from(at).unwrap_or(u16::MAX))
    }

    /// The reason of the Reject with which a target answers (RFC 7143 section 11.17.1); `None` when nothing is
    /// to be sent because the header cannot be trusted, or not yet.
    // req: 7143-11-3, 7143-11.14.1-1
    #[must_use]
    pub const fn reject(&self) -> Option<RejectReason> {
        match self.kind {
            DecodeErrorKind::Incomplete { .. } | DecodeErrorKind::HeaderDigest => None,
            DecodeErrorKind::UnknownOpcode(_) => Some(RejectReason::CommandNotSupported),
            DecodeErrorKind::DataDigest => Some(RejectReason::DataDigestError),
            DecodeErrorKind::TrailingBytes { .. }
            | DecodeErrorKind::WrongSender(_)
            | DecodeErrorKind::AhsTooLong { .. }
            | DecodeErrorKind::DataTooLong { .. }
            | DecodeErrorKind::Rule(_) => Some(RejectReason::ProtocolError),
        }
    }

    /// Whether the connection cannot go on: format errors (RFC 7143 section 7.7), header digest errors
    /// (section 7.8) and lengths beyond the limits. Otherwise the PDU is dropped and the next one may be read.
    // req: 7143-7.7-1
    #[must_use]
    pub const fn fatal(&self) -> bool {
        match self.kind {
            DecodeErrorKind::Incomplete { .. }
            | DecodeErrorKind::UnknownOpcode(_)
            | DecodeErrorKind::DataDigest => false,
            DecodeErrorKind::Rule(rule) => !rule.is_reserved_code(),
            DecodeErrorKind::TrailingBytes { .. }
            | DecodeErrorKind::WrongSender(_)
            | DecodeErrorKind::AhsTooLong { .. }
            | DecodeErrorKind::DataTooLong { .. }
            | DecodeErrorKind::HeaderDigest => true,
        }
    }
}

impl From<Rule> for DecodeError {
    fn from(rule: Rule) -> Self {
        Self::new(DecodeErrorKind::Rule(rule), rule.at())
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DecodeErrorKind::Incomplete { needed } => write!(f, "{needed} more bytes needed")?,
            DecodeErrorKind::TrailingBytes { extra } => write!(f, "{extra} bytes too many")?,
            DecodeErrorKind::UnknownOpcode(op) => write!(f, "unassigned opcode {:#04x}", op.0)?,
            DecodeErrorKind::WrongSender(op) => write!(f, "{op} is not for this side to receive")?,
            DecodeErrorKind::AhsTooLong { len, limit } => {
                write!(f, "{len} bytes of additional header segments, limit {limit}")?;
            }
            DecodeErrorKind::DataTooLong { len, limit } => {
                write!(f, "data segment of {len} bytes, limit {limit}")?;
            }
            DecodeErrorKind::HeaderDigest => f.write_str("header digest mismatch")?,
            DecodeErrorKind::DataDigest => f.write_str("data digest mismatch")?,
            DecodeErrorKind::Rule(rule) => write!(f, "{rule}")?,
        }
        write!(f, " (byte {})", self.at)
    }
}

impl core::error::Error for DecodeError {}

/// Why a PDU cannot be encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum EncodeError {
    /// The data segment is longer than [`crate::MAX_DATA_SEGMENT_LEN`].
    DataTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The Additional Header Segments are longer than the 1020 bytes that TotalAHSLength can say.
    AhsTooLong {
        /// Their length in bytes.
        len: usize,
    },
    /// A rule about the contents is broken.
    Rule(Rule),
}

impl From<Rule> for EncodeError {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataTooLong { len } => write!(f, "data segment of {len} bytes"),
            Self::AhsTooLong { len } => write!(f, "{len} bytes of additional header segments"),
            Self::Rule(rule) => write!(f, "{rule}"),
        }
    }
}

impl core::error::Error for EncodeError {}
