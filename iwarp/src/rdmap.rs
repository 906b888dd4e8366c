//! RDMAP: opcodes and the RDMA Read Request header (RFC 5040 section 4).

use crate::Stag;
use crate::wire::{self, Writer};

/// RDMAP version of RFC 5040.
pub const VERSION: u8 = 1;

/// An RDMA message opcode (RFC 5040 Figure 4). Unknown values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// RDMA Write.
    pub const WRITE: Self = Self(0);
    /// RDMA Read Request.
    pub const READ_REQUEST: Self = Self(1);
    /// RDMA Read Response.
    pub const READ_RESPONSE: Self = Self(2);
    /// Send.
    pub const SEND: Self = Self(3);
    /// Send with Invalidate.
    pub const SEND_INVALIDATE: Self = Self(4);
    /// Send with Solicited Event.
    pub const SEND_SE: Self = Self(5);
    /// Send with Solicited Event and Invalidate.
    pub const SEND_SE_INVALIDATE: Self = Self(6);
    /// Terminate.
    pub const TERMINATE: Self = Self(7);

    /// The Send of the given kind.
    pub const fn send(invalidate: bool, solicited: bool) -> Self {
        match (invalidate, solicited) {
            (false, false) => Self::SEND,
            (true, false) => Self::SEND_INVALIDATE,
            (false, true) => Self::SEND_SE,
            (true, true) => Self::SEND_SE_INVALIDATE,
        }
    }

    /// Whether the message carries an Invalidate STag.
    pub fn invalidates(self) -> bool {
        matches!(self, Self::SEND_INVALIDATE | Self::SEND_SE_INVALIDATE)
    }

    /// Whether the message asks for an event at the receiver.
    pub fn is_solicited(self) -> bool {
        matches!(self, Self::SEND_SE | Self::SEND_SE_INVALIDATE)
    }

    /// The untagged queue the message goes to, `None` for tagged messages and for opcodes that are reserved.
    pub fn queue(self) -> Option<u32> {
        match self {
            Self::SEND | Self::SEND_INVALIDATE | Self::SEND_SE | Self::SEND_SE_INVALIDATE => Some(0),
            Self::READ_REQUEST => Some(1),
            Self::TERMINATE => Some(2),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Opcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self {
            Self::WRITE => "RdmaWrite",
            Self::READ_REQUEST => "RdmaReadRequest",
            Self::READ_RESPONSE => "RdmaReadResponse",
            Self::SEND => "Send",
            Self::SEND_INVALIDATE => "SendInvalidate",
            Self::SEND_SE => "SendSe",
            Self::SEND_SE_INVALIDATE => "SendSeInvalidate",
            Self::TERMINATE => "Terminate",
            Self(other) => return write!(f, "Opcode({other:#x})"),
        })
    }
}

/// The RDMAP control field: `RV (2) | Rsv (2) | Opcode (4)` (RFC 5040 Figure 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Control {
    /// RV: version of RDMAP.
    pub version: u8,
    /// Message opcode.
    pub opcode: Opcode,
}

impl Control {
    /// The control field of a message of this version.
    pub const fn new(opcode: Opcode) -> Self {
        Self { version: VERSION, opcode }
    }

    pub(crate) fn decode(octet: u8) -> Self {
        Self { version: octet >> 6, opcode: Opcode(octet & 0x0f) }
    }

    pub(crate) fn encode(self) -> u8 {
        ((self.version & 3) << 6) | (self.opcode.0 & 0x0f)
    }
}

/// The RDMA Read Request header (RFC 5040 section 4.4).
///
/// ```text
///   SinkSTag (4) │ SinkTO (8) │ RDMARDSZ (4) │ SrcSTag (4) │ SrcTO (8)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Data Sink STag: where the requester wants the data.
    pub sink_stag: Stag,
    /// Data Sink Tagged Offset.
    pub sink_offset: u64,
    /// Octets to read.
    pub size: u32,
    /// Data Source STag: what is to be read.
    pub source_stag: Stag,
    /// Data Source Tagged Offset.
    pub source_offset: u64,
}

impl ReadRequest {
    /// Octets of the header.
    pub const LEN: usize = 28;

    /// Decodes the header; `None` when `b` is shorter than it.
    pub fn decode(b: &[u8]) -> Option<Self> {
        Some(Self {
            sink_stag: Stag(wire::u32_at(b, 0)?),
            sink_offset: wire::u64_at(b, 4)?,
            size: wire::u32_at(b, 12)?,
            source_stag: Stag(wire::u32_at(b, 16)?),
            source_offset: wire::u64_at(b, 20)?,
        })
    }

    /// The header in wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut w = Writer::<{ Self::LEN }>::new();
        w.put(&self.sink_stag.0.to_be_bytes())
            .put(&self.sink_offset.to_be_bytes())
            .put(&self.size.to_be_bytes())
            .put(&self.source_stag.0.to_be_bytes())
            .put(&self.source_offset.to_be_bytes());
        w.to_array()
    }
}
