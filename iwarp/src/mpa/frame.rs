//! MPA Request and Reply frames (RFC 5044 section 7.1.1, RFC 6581 sections 6 and 9).
//!
//! ```text
//!    0                   1                   2                   3
//!    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!   ┌───────────────────────────────────────────────────────────────┐
//!   │ Key: "MPA ID Req Frame" or "MPA ID Rep Frame" (16 octets)      │
//!   ├─┬─┬─┬─┬───────┬───────────────┬───────────────────────────────┤
//!   │M│C│R│S│  Res  │      Rev      │           PD_Length           │
//!   ├─┴─┴─┴─┴───────┴───────────────┴───────────────────────────────┤
//!   │ S = 1: A│B│ IRD (14)  C│D│ ORD (14), then private data         │
//!   └───────────────────────────────────────────────────────────────┘
//! ```

use crate::wire;
use bytes::Bytes;

/// Octets before the private data.
pub const HEADER_LEN: usize = 20;
/// The most private data a frame may carry, the enhanced data included.
pub const MAX_PRIVATE_DATA: usize = 512;
/// An IRD or ORD of all ones: the depth is not negotiated here (RFC 6581 section 9.1).
pub const NOT_NEGOTIATED: u16 = 0x3fff;

const KEY_REQUEST: &[u8; 16] = b"MPA ID Req Frame";
const KEY_REPLY: &[u8; 16] = b"MPA ID Rep Frame";
const FLAG_MARKERS: u8 = 0x80;
const FLAG_CRC: u8 = 0x40;
const FLAG_REJECT: u8 = 0x20;
const FLAG_ENHANCED: u8 = 0x10;
const ENHANCED_LEN: usize = 4;

/// Which of the two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// MPA Request Frame, from the initiator.
    Request,
    /// MPA Reply Frame, from the responder.
    Reply,
}

/// One way of telling the responder that the initiator is ready to receive (RFC 6581 section 9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rtr {
    /// Zero-length Send; it uses up one receive buffer of the responder (control flag B).
    Send,
    /// Zero-length RDMA Write (control flag C).
    Write,
    /// Zero-length RDMA Read (control flag D).
    Read,
}

/// A set of [`Rtr`] indications: control flags B, C and D.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RtrSet {
    /// Control flag B.
    pub send: bool,
    /// Control flag C.
    pub write: bool,
    /// Control flag D.
    pub read: bool,
}

/// Enhanced RDMA connection establishment data: the first four octets of the private data (RFC 6581 section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Enhanced {
    /// Control flag A: peer-to-peer model, in which the initiator sends an RTR indication first.
    pub peer_to_peer: bool,
    /// RTR indications requested or supported; meaningless when `peer_to_peer` is false.
    pub rtr: RtrSet,
    /// Inbound RDMA Read queue depth of the sender, 14 bits; [`NOT_NEGOTIATED`] leaves it to the consumers.
    pub ird: u16,
    /// Outbound RDMA Read queue depth of the sender, 14 bits; [`NOT_NEGOTIATED`] leaves it to the consumers.
    pub ord: u16,
}

impl Enhanced {
    fn decode(b: [u8; ENHANCED_LEN]) -> Self {
        let [a, b, c, d] = b;
        let (ird, ord) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let rtr = RtrSet { send: ird & 0x4000 != 0, write: ord & 0x8000 != 0, read: ord & 0x4000 != 0 };
        Self { peer_to_peer: ird & 0x8000 != 0, rtr, ird: ird & 0x3fff, ord: ord & 0x3fff }
    }

    fn encode(&self) -> [u8; ENHANCED_LEN] {
        let bit = |on: bool, mask: u16| if on { mask } else { 0 };
        // Without A, B, C and D are zero (RFC 6581 section 9.2).
        let p2p = self.peer_to_peer;
        let ird = (self.ird & 0x3fff) | bit(p2p, 0x8000) | bit(p2p && self.rtr.send, 0x4000);
        let ord =
            (self.ord & 0x3fff) | bit(p2p && self.rtr.write, 0x8000) | bit(p2p && self.rtr.read, 0x4000);
        let ([a, b], [c, d]) = (ird.to_be_bytes(), ord.to_be_bytes());
        [a, b, c, d]
    }
}

/// Why a startup frame is improperly formatted; the connection must be closed (RFC 5044 section 8, code 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The key is neither that of a request nor that of a reply.
    Key,
    /// PD_Length exceeds 512 octets.
    PrivateDataLength(u16),
    /// The S bit is set and the private data is shorter than the enhanced data.
    EnhancedTooShort(u16),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key => f.write_str("not an MPA frame: wrong key"),
            Self::PrivateDataLength(n) => write!(f, "MPA private data of {n} octets exceeds 512"),
            Self::EnhancedTooShort(n) => write!(f, "enhanced MPA frame with {n} octets of private data"),
        }
    }
}

impl std::error::Error for FrameError {}

/// An MPA Request or Reply frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Request or reply.
    pub kind: FrameKind,
    /// M: the sender requires markers in the FPDUs it receives.
    pub markers: bool,
    /// C: the sender wants CRCs generated and checked.
    pub crc: bool,
    /// R: the connection is rejected; zero in a request.
    pub reject: bool,
    /// Rev: revision of MPA.
    pub revision: u8,
    /// The enhanced data; present when S is set and the revision is 2 or higher. (In revision 1 the S bit is a
    /// reserved bit and is not checked.)
    pub enhanced: Option<Enhanced>,
    /// What the consumer passes to its peer.
    pub private_data: Bytes,
}

impl Frame {
    /// Decodes the frame at the start of `bytes` and says how many octets it takes; `Ok(None)` when more octets
    /// are needed. What can be refused early is: the key and the length are checked as far as they are there, so
    /// that a stream that is not MPA is found out at its first octet.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let key = bytes.get(..bytes.len().min(KEY_REQUEST.len())).unwrap_or_default();
        let kind = match (KEY_REQUEST.starts_with(key), KEY_REPLY.starts_with(key)) {
            (true, _) => FrameKind::Request,
            (_, true) => FrameKind::Reply,
            _ => return Err(FrameError::Key),
        };
        let Some([flags, revision, l0, l1]) = wire::array(bytes, KEY_REQUEST.len()) else { return Ok(None) };
        let pd_len = u16::from_be_bytes([l0, l1]);
        if usize::from(pd_len) > MAX_PRIVATE_DATA {
            return Err(FrameError::PrivateDataLength(pd_len));
        }
        let extended = flags & FLAG_ENHANCED != 0 && revision >= 2;
        if extended && usize::from(pd_len) < ENHANCED_LEN {
            return Err(FrameError::EnhancedTooShort(pd_len));
        }
        let end = HEADER_LEN.saturating_add(usize::from(pd_len));
        let Some(data) = bytes.get(HEADER_LEN..end) else { return Ok(None) };
        let (enhanced, data) = match data.split_first_chunk::<ENHANCED_LEN>() {
            Some((head, rest)) if extended => (Some(Enhanced::decode(*head)), rest),
            _ => (None, data),
        };
        let frame = Self {
            kind,
            markers: flags & FLAG_MARKERS != 0,
            crc: flags & FLAG_CRC != 0,
            reject: flags & FLAG_REJECT != 0,
            revision,
            enhanced,
            private_data: Bytes::copy_from_slice(data),
        };
        Ok(Some((frame, end)))
    }

    /// The frame in wire form. Private data beyond what a frame can carry is refused by the startup machines; here
    /// it would be cut off.
    pub fn encode(&self) -> Vec<u8> {
        let head = self.enhanced.map(|e| e.encode());
        let head = head.as_ref().map_or(&[][..], |h| &h[..]);
        let room = MAX_PRIVATE_DATA.saturating_sub(head.len());
        let data = self.private_data.get(..room).unwrap_or(&self.private_data);
        let bit = |on: bool, mask: u8| if on { mask } else { 0 };
        let flags = bit(self.markers, FLAG_MARKERS)
            | bit(self.crc, FLAG_CRC)
            | bit(self.reject, FLAG_REJECT)
            | bit(self.enhanced.is_some(), FLAG_ENHANCED);
        let pd_len = u16::try_from(head.len().saturating_add(data.len())).unwrap_or_default();
        let key = if self.kind == FrameKind::Request { KEY_REQUEST } else { KEY_REPLY };
        [&key[..], &[flags, self.revision], &pd_len.to_be_bytes(), head, data].concat()
    }
}
