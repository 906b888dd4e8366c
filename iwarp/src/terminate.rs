//! Errors as the protocols number them, and the Terminate message that carries them (RFC 5040 section 4.8,
//! RFC 5041 section 7.2, RFC 5044 section 8, RFC 6581 section 8).

use crate::ddp;
use crate::rdmap::ReadRequest;
use crate::wire;

/// Layer, error type and error code of a Terminate message: the rule that was broken. Unknown values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TerminateCode {
    /// 0 RDMAP, 1 DDP, 2 the layer below (MPA).
    pub layer: u8,
    /// Error type within the layer, 4 bits.
    pub etype: u8,
    /// Error code within the type.
    pub code: u8,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $layer:literal, $etype:literal, $code:literal, $text:literal;)*) => {
        impl TerminateCode {
            $($(#[$doc])* pub const $name: Self = Self { layer: $layer, etype: $etype, code: $code };)*

            /// What the code says, if it is one of the RFCs'.
            pub fn text(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// This end failed for a reason of its own; no fault of the peer.
    RDMAP_LOCAL_CATASTROPHIC = 0, 0, 0, "RDMAP: local catastrophic error";
    /// RDMA Read Request with a Data Source STag that names nothing.
    RDMAP_INVALID_STAG = 0, 1, 0x00, "RDMAP: invalid STag";
    /// RDMA Read Request beyond the bounds of its Data Source STag.
    RDMAP_BOUNDS = 0, 1, 0x01, "RDMAP: base or bounds violation";
    /// RDMA Read Request with an STag that may not be read remotely.
    RDMAP_ACCESS = 0, 1, 0x02, "RDMAP: access rights violation";
    /// STag that belongs to another stream.
    RDMAP_NOT_ASSOCIATED = 0, 1, 0x03, "RDMAP: STag not associated with RDMAP stream";
    /// RDMA Read Request whose offset and size exceed 64 bits.
    RDMAP_TO_WRAP = 0, 1, 0x04, "RDMAP: tagged offset wrap";
    /// Send with Invalidate naming an STag the peer cannot invalidate.
    RDMAP_CANNOT_INVALIDATE = 0, 1, 0x09, "RDMAP: STag cannot be invalidated";
    /// RDMAP version other than 1.
    RDMAP_VERSION = 0, 2, 0x05, "RDMAP: invalid RDMAP version";
    /// Opcode that is reserved, or does not belong where it is.
    RDMAP_UNEXPECTED_OPCODE = 0, 2, 0x06, "RDMAP: unexpected opcode";
    /// The stream is broken.
    RDMAP_STREAM_CATASTROPHIC = 0, 2, 0x07, "RDMAP: catastrophic error, localized to RDMAP stream";
    /// Everything is broken.
    RDMAP_GLOBAL_CATASTROPHIC = 0, 2, 0x08, "RDMAP: catastrophic error, global";
    /// A remote operation error that has no code of its own.
    RDMAP_UNSPECIFIED = 0, 2, 0xff, "RDMAP: unspecified error";
    /// DDP failed for a reason of its own.
    DDP_LOCAL_CATASTROPHIC = 1, 0, 0, "DDP: local catastrophic error";
    /// Tagged segment for an STag that names nothing the peer may write.
    DDP_INVALID_STAG = 1, 1, 0x00, "DDP: invalid STag";
    /// Tagged segment beyond the bounds of its STag.
    DDP_BOUNDS = 1, 1, 0x01, "DDP: base or bounds violation";
    /// Tagged segment for an STag of another stream.
    DDP_NOT_ASSOCIATED = 1, 1, 0x02, "DDP: STag not associated with DDP stream";
    /// Tagged segment whose offset and length exceed 64 bits.
    DDP_TO_WRAP = 1, 1, 0x03, "DDP: tagged offset wrap";
    /// Tagged segment with a DDP version other than 1.
    DDP_TAGGED_VERSION = 1, 1, 0x04, "DDP: invalid version of a tagged segment";
    /// Queue number beyond the three RDMAP has.
    DDP_INVALID_QN = 1, 2, 0x01, "DDP: invalid queue number";
    /// The queue has no buffer for the message.
    DDP_NO_BUFFER = 1, 2, 0x02, "DDP: invalid MSN, no buffer available";
    /// The message is not the next one of its queue.
    DDP_INVALID_MSN = 1, 2, 0x03, "DDP: invalid MSN, range is not valid";
    /// The segment does not continue its message.
    DDP_INVALID_MO = 1, 2, 0x04, "DDP: invalid message offset";
    /// The message exceeds the buffer.
    DDP_TOO_LONG = 1, 2, 0x05, "DDP: message too long for available buffer";
    /// Untagged segment with a DDP version other than 1.
    DDP_UNTAGGED_VERSION = 1, 2, 0x06, "DDP: invalid version of an untagged segment";
    /// The TCP connection was closed or lost.
    MPA_CONNECTION_LOST = 2, 0, 0x01, "MPA: TCP connection closed, terminated or lost";
    /// The CRC of an FPDU is wrong.
    MPA_CRC = 2, 0, 0x02, "MPA: CRC does not match the FPDU";
    /// A marker does not point at the FPDU it lies in.
    MPA_MARKER = 2, 0, 0x03, "MPA: marker and ULPDU length disagree";
    /// An MPA Request or Reply frame is improperly formatted.
    MPA_INVALID_FRAME = 2, 0, 0x04, "MPA: invalid request or reply frame";
    /// This end failed during the startup.
    MPA_LOCAL_CATASTROPHIC = 2, 0, 0x05, "MPA: local catastrophic error";
    /// The responder wants to read more at a time than the initiator can serve.
    MPA_INSUFFICIENT_IRD = 2, 0, 0x06, "MPA: insufficient IRD resources";
    /// The two ends have no RTR indication in common.
    MPA_NO_MATCHING_RTR = 2, 0, 0x07, "MPA: no matching RTR option";
}

impl std::fmt::Display for TerminateCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "layer {:#x} type {:#x} code {:#04x}", self.layer, self.etype, self.code),
        }
    }
}

impl std::fmt::Debug for TerminateCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TerminateCode({self})")
    }
}

impl std::error::Error for TerminateCode {}

/// The contents of a Terminate message.
///
/// ```text
///   Layer (4) │ EType (4) │ Error Code (8) │ M │ D │ R │ Reserved (13)
///   DDP Segment Length (16, if M or D) │ Terminated DDP Header (if D) │ Terminated RDMA Header (if R)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminate {
    /// What went wrong.
    pub code: TerminateCode,
    /// ULPDU length of the segment that was wrong, and its header (M and D).
    pub segment: Option<(u16, ddp::Header)>,
    /// The RDMA Read Request that was wrong (R), with size and offsets of what was still to be sent.
    pub read_request: Option<ReadRequest>,
}

const HDRCT_M: u8 = 0x80;
const HDRCT_D: u8 = 0x40;
const HDRCT_R: u8 = 0x20;

impl Terminate {
    /// The most octets the contents take.
    pub const MAX_LEN: usize = 4 + 2 + ddp::UNTAGGED_LEN + ReadRequest::LEN;

    /// A Terminate message that refers to no segment.
    pub const fn new(code: TerminateCode) -> Self {
        Self { code, segment: None, read_request: None }
    }

    /// Decodes the contents; `None` when the Terminate Control is not all there. Copies of headers that are cut short
    /// are left out: the code is what matters.
    pub fn decode(b: &[u8]) -> Option<Self> {
        let [kind, code, hdrct, _] = wire::array(b, 0)?;
        let code = TerminateCode { layer: kind >> 4, etype: kind & 0x0f, code };
        let mut at = 4usize;
        let mut len = None;
        if hdrct & (HDRCT_M | HDRCT_D) != 0 {
            len = wire::u16_at(b, at);
            at = at.saturating_add(2);
        }
        let mut segment = None;
        if hdrct & HDRCT_D != 0 {
            let header = ddp::Header::decode(b.get(at..).unwrap_or_default());
            segment = len.zip(header);
            at = at.saturating_add(header.map_or(b.len(), |h| h.encoded_len()));
        }
        let read_request = match hdrct & HDRCT_R {
            0 => None,
            _ => ReadRequest::decode(b.get(at..).unwrap_or_default()),
        };
        Some(Self { code, segment, read_request })
    }

    /// The contents in wire form.
    pub fn encode(&self) -> Vec<u8> {
        let mut hdrct = 0;
        if self.segment.is_some() {
            hdrct |= HDRCT_M | HDRCT_D;
        }
        if self.read_request.is_some() {
            hdrct |= HDRCT_R;
        }
        let c = self.code;
        let mut out = Vec::with_capacity(Self::MAX_LEN);
        out.extend_from_slice(&[(c.layer << 4) | (c.etype & 0x0f), c.code, hdrct, 0]);
        if let Some((len, header)) = self.segment {
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(header.encode().as_slice());
        }
        if let Some(request) = self.read_request {
            out.extend_from_slice(&request.encode());
        }
        out
    }
}
