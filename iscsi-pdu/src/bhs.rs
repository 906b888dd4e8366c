//! What all Basic Header Segments share (RFC 7143 section 11.2.1): lengths, opcodes, named codes.

use core::fmt;

/// Length of a Basic Header Segment in bytes (RFC 7143 section 11.2.1).
pub const BHS_LEN: usize = 48;

/// The largest DataSegmentLength that its 24-bit field can say.
pub const MAX_DATA_SEGMENT_LEN: u32 = 0x00ff_ffff;

/// Length of a header or data digest in bytes.
pub const DIGEST_LEN: usize = 4;

/// The lengths that a BHS announces, before AHS and data have been read: the `D` of a header-only PDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct SegmentLen {
    /// TotalAHSLength, in 4-byte words.
    pub ahs_words: u8,
    /// DataSegmentLength, in bytes, padding not counted; at most [`MAX_DATA_SEGMENT_LEN`].
    pub data: u32,
}

impl SegmentLen {
    /// Bytes of all Additional Header Segments together.
    #[must_use]
    pub const fn ahs_len(self) -> usize {
        (self.ahs_words as usize).saturating_mul(4)
    }

    /// Bytes of the data segment without padding.
    #[must_use]
    pub const fn data_len(self) -> usize {
        self.data as usize
    }

    /// Bytes of the data segment with its padding to a multiple of four.
    #[must_use]
    pub const fn padded_data_len(self) -> usize {
        (self.data as usize).saturating_add(pad_len(self.data as usize))
    }
}

/// Padding bytes that bring `len` to a multiple of four (RFC 7143 section 11.1).
#[must_use]
pub const fn pad_len(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// A one-byte code whose unknown values survive a round trip.
macro_rules! code {
    (
        $(#[$doc:meta])* $name:ident { $( $(#[$vdoc:meta])* $val:literal => $var:ident ),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub u8);

        #[allow(non_upper_case_globals)]
        impl $name {
            $( $(#[$vdoc])* pub const $var: Self = Self($val); )*

            /// The name that the RFC gives this value, or `None` for a value it does not know.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $val => Some(stringify!($var)), )*
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({:#04x})", stringify!($name), self.0),
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(self, f)
            }
        }
    };
}
pub(crate) use code;

code! {
    /// Opcode (RFC 7143 section 11.2.1.2), the low six bits of byte 0.
    Opcode {
        /// NOP-Out, from the initiator.
        0x00 => NopOut,
        /// SCSI Command, from the initiator.
        0x01 => ScsiCommand,
        /// SCSI Task Management Function Request, from the initiator.
        0x02 => TaskMgmtRequest,
        /// Login Request, from the initiator.
        0x03 => LoginRequest,
        /// Text Request, from the initiator.
        0x04 => TextRequest,
        /// SCSI Data-Out, from the initiator.
        0x05 => DataOut,
        /// Logout Request, from the initiator.
        0x06 => LogoutRequest,
        /// SNACK Request, from the initiator.
        0x10 => Snack,
        /// NOP-In, from the target.
        0x20 => NopIn,
        /// SCSI Response, from the target.
        0x21 => ScsiResponse,
        /// SCSI Task Management Function Response, from the target.
        0x22 => TaskMgmtResponse,
        /// Login Response, from the target.
        0x23 => LoginResponse,
        /// Text Response, from the target.
        0x24 => TextResponse,
        /// SCSI Data-In, from the target.
        0x25 => DataIn,
        /// Logout Response, from the target.
        0x26 => LogoutResponse,
        /// Ready To Transfer, from the target.
        0x31 => R2t,
        /// Asynchronous Message, from the target.
        0x32 => AsyncMessage,
        /// Reject, from the target.
        0x3f => Reject,
    }
}

impl Opcode {
    /// Whether the opcode belongs to the initiator's half of the code space (bit 0x20 clear).
    #[must_use]
    pub const fn is_from_initiator(self) -> bool {
        self.0 & 0x20 == 0
    }
}

code! {
    /// Task attribute, ATTR of a SCSI Command (RFC 7143 section 11.3.1); three bits.
    TaskAttr {
        /// Untagged.
        0 => Untagged,
        /// Simple.
        1 => Simple,
        /// Ordered.
        2 => Ordered,
        /// Head of queue.
        3 => HeadOfQueue,
        /// Auto contingent allegiance.
        4 => Aca,
    }
}

code! {
    /// SCSI status (SAM-5 5.3.1; RFC 7143 section 11.4.2).
    ScsiStatus {
        /// GOOD.
        0x00 => Good,
        /// CHECK CONDITION.
        0x02 => CheckCondition,
        /// CONDITION MET.
        0x04 => ConditionMet,
        /// BUSY.
        0x08 => Busy,
        /// INTERMEDIATE (obsolete in SAM-5, still in RFC 7143).
        0x10 => Intermediate,
        /// INTERMEDIATE-CONDITION MET (obsolete in SAM-5, still in RFC 7143).
        0x14 => IntermediateConditionMet,
        /// RESERVATION CONFLICT.
        0x18 => ReservationConflict,
        /// TASK SET FULL.
        0x28 => TaskSetFull,
        /// ACA ACTIVE.
        0x30 => AcaActive,
        /// TASK ABORTED.
        0x40 => TaskAborted,
    }
}

/// Difference between the data that was expected and the data that was moved (RFC 7143 sections 11.4.1, 11.4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Residual {
    /// As much as expected: neither bit set.
    #[default]
    None,
    /// Bytes that were not moved because the initiator expected too few (bit O or o).
    Overflow(u32),
    /// Bytes that were not moved out of those that the initiator expected (bit U or u).
    Underflow(u32),
}

impl Residual {
    /// From two bits, 0x04 overflow and 0x02 underflow, and a count; `None` if both bits are set.
    // req: 7143-11.4.1-2
    pub(crate) const fn from_bits(bits: u8, count: u32) -> Option<Self> {
        match bits & 0x06 {
            0x00 => Some(Self::None),
            0x04 => Some(Self::Overflow(count)),
            0x02 => Some(Self::Underflow(count)),
            _ => None,
        }
    }

    pub(crate) const fn bits(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Overflow(_) => 0x04,
            Self::Underflow(_) => 0x02,
        }
    }

    /// Bytes that were not moved; 0 if as much as expected was.
    #[must_use]
    pub const fn count(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Overflow(n) | Self::Underflow(n) => n,
        }
    }
}

/// Both lengths in bytes, for logs.
impl fmt::Display for SegmentLen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AHS {} B, data {} B", self.ahs_len(), self.data)
    }
}
