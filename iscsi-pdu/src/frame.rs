//! An incremental framer: bytes in, in pieces of any size; whole PDUs out.

use crate::digest::{Crc32c, Digests};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::pdu::opcode;
use crate::{BHS_LEN, DIGEST_LEN, EncodeError, MAX_DATA_SEGMENT_LEN, Pdu, SegmentLen, digest, pad_len};
use alloc::collections::VecDeque;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use core::fmt;

/// Which side of a connection sends, and so which half of the opcodes it may use (RFC 7143 section 11.2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Sender {
    /// Requests: opcodes below 0x20.
    Initiator,
    /// Responses: opcodes from 0x20 on.
    Target,
}

/// What a receiver accepts. Lengths are checked before anything is allocated for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of a data segment: the MaxRecvDataSegmentLength that this side has declared.
    pub data: u32,
    /// Bytes of all Additional Header Segments together.
    pub ahs: u16,
    /// Who sends; `None` accepts the opcodes of both.
    pub sender: Option<Sender>,
}

impl Limits {
    /// Whatever the fields of the header can say, from either side: for analysers, not for servers.
    pub const MAX: Self = Self { data: MAX_DATA_SEGMENT_LEN, ahs: 1020, sender: None };

    /// The limits before anything is negotiated, for what `sender` sends.
    #[must_use]
    pub const fn from(sender: Sender) -> Self {
        Self { data: 8192, ahs: 256, sender: Some(sender) }
    }

    /// Checks a header against the limits: its opcode, then its lengths.
    ///
    /// # Errors
    /// [`DecodeErrorKind::WrongSender`], [`DecodeErrorKind::AhsTooLong`] or [`DecodeErrorKind::DataTooLong`].
    // req: 7143-11.2.1.2-1, 7143-11.2.1.2-2
    pub fn check(&self, bhs: &[u8; BHS_LEN]) -> Result<SegmentLen, DecodeError> {
        let len = segment_len(bhs);
        let op = opcode(bhs);
        let from_initiator = match self.sender {
            Some(Sender::Initiator) => true,
            Some(Sender::Target) => false,
            None => op.is_from_initiator(),
        };
        if op.is_from_initiator() != from_initiator {
            return Err(DecodeError::new(DecodeErrorKind::WrongSender(op), 0));
        }
        let ahs = u16::from(len.ahs_words).saturating_mul(4);
        if ahs > self.ahs {
            return Err(DecodeError::new(DecodeErrorKind::AhsTooLong { len: ahs, limit: self.ahs }, 4));
        }
        if len.data > self.data {
            return Err(DecodeError::new(
                DecodeErrorKind::DataTooLong { len: len.data, limit: self.data },
                5,
            ));
        }
        Ok(len)
    }
}

/// The default MaxRecvDataSegmentLength of 8192 bytes (RFC 7143 section 13.12), 256 bytes of AHS (the longest CDB
/// and a read length), either sender.
impl Default for Limits {
    fn default() -> Self {
        Self { data: 8192, ahs: 256, sender: None }
    }
}

/// TotalAHSLength and DataSegmentLength, which every header has in the same place.
fn segment_len(bhs: &[u8; BHS_LEN]) -> SegmentLen {
    let [_, _, _, _, ahs_words, a, b, c, ..] = *bhs;
    SegmentLen { ahs_words, data: u32::from_be_bytes([0, a, b, c]) }
}

/// A PDU that could not be delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrameError {
    /// Why; [`DecodeError::fatal`] says whether the framer is at its end.
    pub error: DecodeError,
    /// BHS and AHSs of the PDU, without digest: the data of the Reject that answers it (RFC 7143 section
    /// 11.17.4). Of a PDU with a bad header digest these are the corrupted bytes.
    pub header: Bytes,
}

impl FrameError {
    /// The PDU without its data segment, if its header is in order: after a data digest error it tells which
    /// task is concerned (RFC 7143 section 7.8).
    #[must_use]
    pub fn pdu(&self) -> Option<Pdu<SegmentLen>> {
        if self.error.kind == DecodeErrorKind::HeaderDigest {
            return None;
        }
        Pdu::decode_header(self.header.first_chunk()?).ok()
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.header.first_chunk() {
            Some(bhs) => write!(f, "{}: {}", opcode(bhs), self.error),
            None => write!(f, "{}", self.error),
        }
    }
}

impl core::error::Error for FrameError {}

/// Where the parts of the PDU at hand lie.
#[derive(Clone, Copy, Debug)]
struct Layout {
    len: SegmentLen,
    digests: Digests,
}

impl Layout {
    const fn header(self) -> usize {
        BHS_LEN.saturating_add(self.len.ahs_len())
    }

    const fn data_at(self) -> usize {
        self.header().saturating_add(self.digests.header_len())
    }

    const fn padded_end(self) -> usize {
        self.data_at().saturating_add(self.len.padded_data_len())
    }

    const fn total(self) -> usize {
        self.padded_end().saturating_add(self.digests.data_len(self.len.data_len()))
    }
}

/// Cuts a byte stream into PDUs.
///
/// Call [`push`](Self::push) with what arrives, then [`next_pdu`](Self::next_pdu) until it returns `None`. The
/// output does not depend on how the bytes were cut. A PDU that lies in one chunk is a slice of it; one that
/// spans chunks is copied once, into memory that grows with what has arrived, not with what was announced.
///
/// ```
/// use bytes::Bytes;
/// use iscsi_pdu::{Framer, Limits, NopOut, Pdu};
///
/// let wire = Pdu::<Bytes>::from(NopOut { immediate: true, ..Default::default() }).to_bytes()?;
/// let mut framer = Framer::new(Limits::default());
/// framer.push(wire.slice(..20));
/// assert_eq!(framer.next_pdu(), Ok(None));
/// framer.push(wire.slice(20..));
/// assert!(matches!(framer.next_pdu(), Ok(Some(Pdu::NopOut(_)))));
/// # Ok::<(), iscsi_pdu::EncodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Framer {
    limits: Limits,
    digests: Digests,
    /// The chunk at hand; empty only if there is none.
    chunk: Bytes,
    /// The chunks behind it.
    later: VecDeque<Bytes>,
    /// The beginning of a PDU that spans chunks.
    partial: BytesMut,
    /// Known once the header of the PDU at hand has been checked.
    layout: Option<Layout>,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer without digests, as a connection begins.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            digests: Digests::NONE,
            chunk: Bytes::new(),
            later: VecDeque::new(),
            partial: BytesMut::new(),
            layout: None,
            failed: None,
        }
    }

    /// Sets the digests that PDUs have from the next on. The PDU at hand, if its header has been seen, keeps its.
    pub fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Sets the limits for PDUs from the next on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes bytes from the wire.
    pub fn push(&mut self, chunk: impl Into<Bytes>) {
        let chunk = chunk.into();
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else if !chunk.is_empty() {
            self.later.push_back(chunk);
        }
    }

    /// Bytes pushed and not yet handed out.
    #[must_use]
    pub fn buffered(&self) -> usize {
        let first = self.partial.len().saturating_add(self.chunk.len());
        self.later.iter().fold(first, |n, c| n.saturating_add(c.len()))
    }

    /// How many more bytes must come before [`next_pdu`](Self::next_pdu), which has returned `None`, can return
    /// anything else; at least 1.
    #[must_use]
    pub fn needed(&self) -> usize {
        let digest = self.digests.header_len();
        let want = match (self.layout, self.front().first_chunk()) {
            (Some(layout), _) => layout.total(),
            (None, Some(bhs)) => BHS_LEN.saturating_add(segment_len(bhs).ahs_len()).saturating_add(digest),
            (None, None) => BHS_LEN.saturating_add(digest),
        };
        want.saturating_sub(self.buffered()).max(1)
    }

    /// The next PDU, or `None` until more is pushed.
    ///
    /// # Errors
    /// A [`FrameError`]. If it is not fatal the PDU at fault has been dropped and the next call goes on behind
    /// it; if it is, every further call returns it again.
    // req: 7143-7.8-1
    pub fn next_pdu(&mut self) -> Result<Option<Pdu<Bytes>>, FrameError> {
        if let Some(pdu) = self.bare() {
            return Ok(Some(pdu));
        }
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        let layout = match self.layout {
            Some(layout) => layout,
            None => match self.header()? {
                Some(layout) => *self.layout.insert(layout),
                None => return Ok(None),
            },
        };
        if !self.gather(layout.total()) {
            return Ok(None);
        }
        self.layout = None;
        let frame = self.take(layout.total());
        match decode(&frame, layout) {
            Ok(pdu) => Ok(Some(pdu)),
            Err(error) => Err(self.fail(error, frame.slice(..layout.header()))),
        }
    }

    /// The short way of most PDUs: a header in one piece and nothing else, in order. No reference count is touched
    /// for it. What is wrong with one is found on the long way.
    fn bare(&mut self) -> Option<Pdu<Bytes>> {
        if self.layout.is_some() || self.failed.is_some() || self.digests.header || !self.partial.is_empty() {
            return None;
        }
        let bhs = self.chunk.first_chunk()?;
        if self.limits.check(bhs).ok()? != SegmentLen::default() {
            return None;
        }
        let pdu = Pdu::decode_with(bhs, |_| Bytes::new()).ok()?;
        self.skip(BHS_LEN);
        Some(pdu)
    }

    /// The bytes not yet handed out, for whoever goes on with the stream in another protocol.
    #[must_use]
    pub fn into_remaining(mut self) -> Bytes {
        if self.partial.is_empty() && self.later.is_empty() {
            return self.chunk;
        }
        self.partial.extend_from_slice(&self.chunk);
        self.later.iter().for_each(|c| self.partial.extend_from_slice(c));
        self.partial.freeze()
    }

    /// Checks the header at the front, digest included, once it is there.
    // req: 7143-11.2-1
    fn header(&mut self) -> Result<Option<Layout>, FrameError> {
        if !self.gather(BHS_LEN) {
            return Ok(None);
        }
        let Some(bhs) = self.front().first_chunk::<BHS_LEN>() else { return Ok(None) };
        let layout = Layout { len: segment_len(bhs), digests: self.digests };
        let checked = self.limits.check(bhs);
        let with_digest = layout.data_at();
        // Lengths count for something only once the digest has been found right, but one beyond the limit is
        // the end of the connection either way.
        if let Err(error) = checked {
            let header = self.take(BHS_LEN);
            return Err(self.fail(error, header));
        }
        if self.digests.header {
            if !self.gather(with_digest) {
                return Ok(None);
            }
            let front = self.front();
            let header = front.get(..layout.header()).unwrap_or_default();
            let digest = front.get(layout.header()..with_digest).unwrap_or_default();
            if Crc32c::new().update(header).to_wire() != *digest {
                let error = DecodeError::new(DecodeErrorKind::HeaderDigest, header_end(layout));
                let header = self.take(layout.header());
                return Err(self.fail(error, header));
            }
        }
        Ok(Some(layout))
    }

    fn fail(&mut self, error: DecodeError, header: Bytes) -> FrameError {
        let e = FrameError { error, header };
        if error.fatal() {
            self.failed = Some(e.clone());
        }
        e
    }

    /// The contiguous bytes at the front.
    fn front(&self) -> &[u8] {
        if self.partial.is_empty() { &self.chunk } else { &self.partial }
    }

    /// Whether at least `n` bytes are there; if so they are contiguous.
    fn gather(&mut self, n: usize) -> bool {
        if self.front().len() >= n {
            return true;
        }
        if self.partial.is_empty() && self.later.is_empty() {
            return false; // what comes next may make it whole without a copy
        }
        while self.partial.len() < n && !self.chunk.is_empty() {
            let missing = n.saturating_sub(self.partial.len()).min(self.chunk.len());
            self.partial.extend_from_slice(self.chunk.get(..missing).unwrap_or_default());
            self.skip(missing);
        }
        self.partial.len() >= n
    }

    /// Drops `n` bytes, which are there, from the chunk at hand.
    fn skip(&mut self, n: usize) {
        self.chunk.advance(n.min(self.chunk.len()));
        self.next_chunk();
    }

    fn next_chunk(&mut self) {
        if self.chunk.is_empty() {
            self.chunk = self.later.pop_front().unwrap_or_default();
        }
    }

    /// The `n` bytes at the front, which [`gather`](Self::gather) has found there.
    fn take(&mut self, n: usize) -> Bytes {
        if !self.partial.is_empty() {
            return self.partial.split_to(n.min(self.partial.len())).freeze();
        }
        let frame =
            if self.chunk.len() > n { self.chunk.split_to(n) } else { core::mem::take(&mut self.chunk) };
        self.next_chunk();
        frame
    }
}

fn header_end(layout: Layout) -> u16 {
    u16::try_from(layout.header()).unwrap_or(u16::MAX)
}

/// Decodes a whole frame whose header digest has been verified.
// req: 7143-11.2-2, 7143-11.2-3
fn decode(frame: &Bytes, layout: Layout) -> Result<Pdu<Bytes>, DecodeError> {
    let Some(bhs) = frame.first_chunk::<BHS_LEN>() else {
        return Err(DecodeError::incomplete(BHS_LEN, 0));
    };
    let (data_at, len) = (layout.data_at(), layout.len.data_len());
    let data = if len == 0 { Bytes::new() } else { frame.slice(data_at..data_at.saturating_add(len)) };
    let mut pdu = Pdu::decode_with(bhs, |_| data)?;
    if layout.digests.data_len(len) > 0 {
        let padded = frame.get(data_at..layout.padded_end()).unwrap_or_default();
        let digest = frame.get(layout.padded_end()..layout.total()).unwrap_or_default();
        if Crc32c::new().update(padded).to_wire() != *digest {
            return Err(DecodeError::new(DecodeErrorKind::DataDigest, header_end(layout)));
        }
    }
    pdu.check_segments(frame.get(BHS_LEN..layout.header()).unwrap_or_default())?;
    Ok(pdu)
}

impl Pdu<Bytes> {
    /// Appends the whole PDU with its digests and padding, as [`Framer`] reads it.
    ///
    /// # Errors
    /// As [`Pdu::encode_header`]; `out` is then unchanged.
    // req: 7143-11.1-1, 7143-11.2-1, 7143-11.2-2, 7143-11.2-3, 7143-11.2-4, 7143-11.2-5
    pub fn encode_with(&self, digests: Digests, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut bhs = [0; BHS_LEN];
        self.encode_header(&mut bhs)?;
        if let Self::AsyncMessage(p) = self {
            p.check_data()?;
        }
        let data = self.data().map_or(&[][..], |d| &d[..]);
        out.reserve(self.encoded_len().saturating_add(DIGEST_LEN).saturating_add(DIGEST_LEN));
        let start = out.len();
        out.put_slice(&bhs);
        self.encode_ahs(out);
        if digests.header {
            let crc = Crc32c::new().update(out.get(start..).unwrap_or_default());
            out.put_slice(&crc.to_wire());
        }
        out.put_slice(data);
        out.put_bytes(0, pad_len(data.len()));
        if digests.data_len(data.len()) > 0 {
            out.put_slice(&digest::data_digest([data]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
