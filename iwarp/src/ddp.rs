//! DDP segment headers (RFC 5041 section 4), with the fields RDMAP puts into them (RFC 5040 section 4.1).
//!
//! ```text
//!   tagged     T=1│L│Rsvd(4)│DV(2) │ RDMAP control (8) │ STag (32) │ TO (64)
//!   untagged   T=0│L│Rsvd(4)│DV(2) │ RDMAP control (8) │ Invalidate STag (32) │ QN (32) │ MSN (32) │ MO (32)
//! ```

use crate::Stag;
use crate::rdmap::{Control, Opcode};
use crate::wire::{self, Writer};

/// DDP version of RFC 5041.
pub const VERSION: u8 = 1;
/// Octets of a tagged header.
pub const TAGGED_LEN: usize = 14;
/// Octets of an untagged header.
pub const UNTAGGED_LEN: usize = 18;

const FLAG_TAGGED: u8 = 0x80;
const FLAG_LAST: u8 = 0x40;

/// The part of a header that depends on the buffer model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The payload goes to an offset of a buffer the receiver advertised.
    Tagged {
        /// Names the buffer.
        stag: Stag,
        /// Tagged offset of the first octet of the payload.
        offset: u64,
    },
    /// The payload goes to the next buffer of a queue of the receiver.
    Untagged {
        /// Invalidate STag; zero unless the opcode has one.
        invalidate: Stag,
        /// Queue number.
        queue: u32,
        /// Message sequence number in the queue, from 1.
        msn: u32,
        /// Offset of the payload in the message.
        offset: u32,
    },
}

/// A DDP segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// L: last segment of its message.
    pub last: bool,
    /// DV: version of DDP.
    pub version: u8,
    /// The octet DDP reserves for RDMAP.
    pub control: Control,
    /// Buffer model and its fields.
    pub model: Model,
}

impl Header {
    /// A header of this version.
    pub const fn new(opcode: Opcode, last: bool, model: Model) -> Self {
        Self { last, version: VERSION, control: Control::new(opcode), model }
    }

    /// Octets of the header whose first octet is `first`.
    pub fn len_of(first: u8) -> usize {
        if first & FLAG_TAGGED != 0 { TAGGED_LEN } else { UNTAGGED_LEN }
    }

    /// Octets of this header.
    pub fn encoded_len(&self) -> usize {
        match self.model {
            Model::Tagged { .. } => TAGGED_LEN,
            Model::Untagged { .. } => UNTAGGED_LEN,
        }
    }

    /// Decodes the header at the start of `b`; `None` when it is not all there. Reserved bits are not looked at, and
    /// no value is judged: that needs the state of the stream.
    pub fn decode(b: &[u8]) -> Option<Self> {
        let first = wire::u8_at(b, 0)?;
        let control = Control::decode(wire::u8_at(b, 1)?);
        let model = if first & FLAG_TAGGED != 0 {
            Model::Tagged { stag: Stag(wire::u32_at(b, 2)?), offset: wire::u64_at(b, 6)? }
        } else {
            Model::Untagged {
                invalidate: Stag(wire::u32_at(b, 2)?),
                queue: wire::u32_at(b, 6)?,
                msn: wire::u32_at(b, 10)?,
                offset: wire::u32_at(b, 14)?,
            }
        };
        Some(Self { last: first & FLAG_LAST != 0, version: first & 3, control, model })
    }

    /// The header in wire form.
    pub(crate) fn encode(&self) -> Writer<UNTAGGED_LEN> {
        let mut w = Writer::new();
        let tagged = if matches!(self.model, Model::Tagged { .. }) { FLAG_TAGGED } else { 0 };
        let last = if self.last { FLAG_LAST } else { 0 };
        w.put(&[tagged | last | (self.version & 3), self.control.encode()]);
        match self.model {
            Model::Tagged { stag, offset } => {
                w.put(&stag.0.to_be_bytes()).put(&offset.to_be_bytes());
            }
            Model::Untagged { invalidate, queue, msn, offset } => {
                w.put(&invalidate.0.to_be_bytes())
                    .put(&queue.to_be_bytes())
                    .put(&msn.to_be_bytes())
                    .put(&offset.to_be_bytes());
            }
        }
        w
    }

    /// The header in wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode().as_slice().to_vec()
    }
}
