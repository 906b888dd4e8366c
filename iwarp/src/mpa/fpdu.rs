//! Geometry of an FPDU: pad, CRC and markers (RFC 5044 section 4).
//!
//! ```text
//!   [marker] │ ULPDU_Length (2) │ ULPDU, a marker every 512 octets of the stream │ pad (0-3) │ CRC (4)
//! ```

/// Octets between the starts of two markers (section 4.3).
pub(crate) const MARKER_INTERVAL: u64 = 512;
/// Octets of a marker.
pub(crate) const MARKER_LEN: usize = 4;
/// Octets of the CRC field, present whether or not CRCs are in use (section 4.1).
pub(crate) const CRC_LEN: usize = 4;
/// Octets of ULPDU_Length.
const LENGTH_LEN: usize = 2;
/// Octets of the stream from one marker's end to the next marker's start.
const BETWEEN: usize = 508;
/// The smallest MULPDU a transmitter may use (section 4.5).
const MIN_MULPDU: u32 = 128;

/// Zero octets that round an FPDU up to a multiple of four (section 4.1).
pub(crate) fn pad_len(ulpdu: u16) -> usize {
    // (2 + ulpdu) and its pad fill whole words.
    usize::from(ulpdu.wrapping_add(2).wrapping_neg() & 3)
}

/// Octets of an FPDU without its markers.
fn body_len(ulpdu: u16) -> usize {
    [LENGTH_LEN, usize::from(ulpdu), pad_len(ulpdu), CRC_LEN].iter().fold(0, |a, b| a.saturating_add(*b))
}

/// The largest ULPDU that fits a TCP segment of `emss` octets (section 4.5), never below 128 and never above
/// what the 16-bit length can say.
pub fn mulpdu(emss: u32, markers: bool) -> u16 {
    let per_marker = if markers { emss.div_ceil(512).saturating_mul(4) } else { 0 };
    let overhead = 6u32.saturating_add(per_marker).saturating_add(emss & 3);
    let mulpdu = emss.saturating_sub(overhead).max(MIN_MULPDU);
    u16::try_from(mulpdu).unwrap_or(u16::MAX)
}

/// An FPDU as it lies in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WireFrame {
    /// ULPDU_Length.
    pub(crate) ulpdu: u16,
    /// Octets in the stream, markers included.
    pub(crate) len: usize,
    /// Stream octets before the first marker of this FPDU; `None` when it has no marker.
    pub(crate) first_marker: Option<usize>,
}

/// Where the first marker falls in a frame that starts at stream position `pos`.
fn to_marker(pos: u64) -> usize {
    // A value below 512.
    usize::try_from(pos.wrapping_neg() & (MARKER_INTERVAL.wrapping_sub(1))).unwrap_or_default()
}

/// Measures the FPDU at the start of `bytes`, which lies at position `pos` of the stream; `None` until its
/// length field is there.
pub(crate) fn measure(bytes: &[u8], pos: u64, markers: bool) -> Option<WireFrame> {
    let before = to_marker(pos);
    let skip = if markers && before == 0 { MARKER_LEN } else { 0 };
    let ulpdu = crate::wire::u16_at(bytes, skip)?;
    let body = body_len(ulpdu);
    // A marker that would follow the last octet belongs to the next FPDU.
    let (count, first_marker) = match body.checked_sub(before) {
        Some(rest) if markers && rest > 0 => (rest.div_ceil(BETWEEN), Some(before)),
        _ => (0, None),
    };
    Some(WireFrame { ulpdu, len: body.saturating_add(count.saturating_mul(MARKER_LEN)), first_marker })
}

impl WireFrame {
    /// Moves the contents of the frame together over its markers, which are checked on the way, and returns
    /// the number of octets that remain: length field, ULPDU, pad and CRC. `None` when a marker does not point
    /// at the length field (section 8, code 3).
    pub(crate) fn strip_markers(&self, frame: &mut [u8]) -> Option<usize> {
        let Some(first) = self.first_marker else { return Some(self.len) };
        let fpdu_start = if first == 0 { MARKER_LEN } else { 0 };
        let (mut from, mut to) = (first, first);
        while from < self.len {
            let ptr = crate::wire::u16_at(frame, from.saturating_add(2))?;
            // The two low bits are treated as zero (section 4.2).
            if usize::from(ptr & !3) != from.saturating_sub(fpdu_start) {
                return None;
            }
            from = from.saturating_add(MARKER_LEN);
            let n = BETWEEN.min(self.len.saturating_sub(from));
            let end = from.saturating_add(n);
            if end > frame.len() {
                return None;
            }
            frame.copy_within(from..end, to);
            to = to.saturating_add(n);
            from = end;
        }
        Some(to)
    }
}
