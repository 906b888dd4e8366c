//! The text format of login and text PDUs (RFC 7143 section 6.1): `key=value` pairs, each ended by a NUL byte.
//!
//! No key has a meaning here. [`pairs`] reads a logical text data segment, [`TextWriter`] writes one, within a
//! budget; [`chunks`] cuts one into PDUs with the C bit, [`TextAssembler`] joins them again.

use bytes::{BufMut, Bytes, BytesMut};
use core::fmt;

/// The longest key name in bytes (RFC 7143 section 6.1).
pub const MAX_KEY_LEN: usize = 63;

/// The longest value in bytes, unless its key says otherwise (RFC 7143 section 6.1).
pub const MAX_VALUE_LEN: usize = 255;

/// What a receiver of text is ready to look at. Counted in what has arrived, so that nothing a peer sends makes
/// the work or an answer grow beyond it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextLimits {
    /// Bytes of the logical text data segment. RFC 7143 section 6.1 asks for at least 8192.
    pub bytes: usize,
    /// Pairs in it.
    pub pairs: usize,
    /// Bytes of one value, as encoded.
    pub value: usize,
}

/// 8192 bytes, 256 pairs, [`MAX_VALUE_LEN`] bytes a value.
impl Default for TextLimits {
    fn default() -> Self {
        Self { bytes: 8192, pairs: 256, value: MAX_VALUE_LEN }
    }
}

/// What is wrong with text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum TextErrorKind {
    /// The last pair has no NUL byte at its end.
    Unterminated,
    /// A pair has no `=`.
    NoEquals,
    /// Nothing stands before the `=`.
    EmptyKey,
    /// A key is longer than [`MAX_KEY_LEN`].
    KeyTooLong,
    /// A key does not begin with a capital letter, or has a character that is not for keys.
    KeyCharacter,
    /// A value is longer than the limit.
    ValueTooLong,
    /// A value is not UTF-8.
    ValueNotUtf8,
    /// A value to be written contains a NUL byte.
    ValueWithNul,
    /// More pairs than the limit.
    TooManyPairs,
    /// More bytes than the limit or the budget.
    TooManyBytes,
    /// A PDU says that its text goes on (C = 1) and has none.
    EmptyContinuation,
}

/// Why text is refused: what is wrong and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub struct TextError {
    /// What is wrong.
    pub kind: TextErrorKind,
    /// Offset in the logical text data segment, in bytes, of the pair it is about.
    pub at: usize,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.kind {
            TextErrorKind::Unterminated => "no NUL at the end",
            TextErrorKind::NoEquals => "no '=' in a pair",
            TextErrorKind::EmptyKey => "empty key",
            TextErrorKind::KeyTooLong => "key longer than 63 bytes",
            TextErrorKind::KeyCharacter => "character not allowed in a key",
            TextErrorKind::ValueTooLong => "value too long",
            TextErrorKind::ValueNotUtf8 => "value is not UTF-8",
            TextErrorKind::ValueWithNul => "NUL in a value",
            TextErrorKind::TooManyPairs => "too many pairs",
            TextErrorKind::TooManyBytes => "too many bytes",
            TextErrorKind::EmptyContinuation => "text to be continued is empty",
        };
        write!(f, "{text} (byte {} of the text)", self.at)
    }
}

impl core::error::Error for TextError {}

/// Whether `key` is a key name: a capital letter, then letters, digits and `. - + @ _`, at most 63 bytes.
///
/// The `#` of the public extension keys (`X#NodeArchitecture`, RFC 7143 section 13.22) is allowed where they
/// have it.
/// So are the two keys that later RFCs spell with a small letter all the same: `iSCSIProtocolLevel` (RFC 7144) and
/// `iSERHelloRequired` (RFC 7145).
// req: 7143-6.1-2
///
/// # Errors
/// The rule that it breaks.
pub fn check_key(key: &[u8]) -> Result<(), TextErrorKind> {
    let [first, rest @ ..] = key else { return Err(TextErrorKind::EmptyKey) };
    if key.len() > MAX_KEY_LEN {
        return Err(TextErrorKind::KeyTooLong);
    }
    if matches!(key, b"iSCSIProtocolLevel" | b"iSERHelloRequired") {
        return Ok(());
    }
    let label = match (first, rest) {
        (b'X'..=b'Z', [b'#', label @ ..]) => label,
        _ => rest,
    };
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b".-+@_".contains(b);
    if first.is_ascii_uppercase() && label.iter().all(allowed) {
        Ok(())
    } else {
        Err(TextErrorKind::KeyCharacter)
    }
}

/// The pairs of a logical text data segment, in order. Nothing follows an error.
///
/// ```
/// use iscsi_pdu::text::{TextLimits, pairs};
/// let text = b"HeaderDigest=CRC32C,None\0X-com.example.a=b=c\0";
/// let list: Result<Vec<_>, _> = pairs(text, TextLimits::default()).collect();
/// assert_eq!(list.unwrap(), [("HeaderDigest", "CRC32C,None"), ("X-com.example.a", "b=c")]);
/// ```
#[must_use]
pub fn pairs(segment: &[u8], limits: TextLimits) -> Pairs<'_> {
    Pairs { rest: segment, len: segment.len(), seen: 0, limits }
}

/// Iterator over the pairs of a logical text data segment: [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
    len: usize,
    seen: usize,
    limits: TextLimits,
}

impl<'a> Pairs<'a> {
    // req: 7143-6.1-1, 7143-6.1-2, 7143-6.1-13
    fn pair(&mut self) -> Result<(&'a str, &'a str), TextErrorKind> {
        if self.len > self.limits.bytes {
            return Err(TextErrorKind::TooManyBytes);
        }
        if self.seen >= self.limits.pairs {
            return Err(TextErrorKind::TooManyPairs);
        }
        self.seen = self.seen.saturating_add(1);
        let (pair, rest) = split_at_byte(self.rest, 0).ok_or(TextErrorKind::Unterminated)?;
        let (key, value) = split_at_byte(pair, b'=').ok_or(TextErrorKind::NoEquals)?;
        check_key(key)?;
        if value.len() > self.limits.value {
            return Err(TextErrorKind::ValueTooLong);
        }
        let key = core::str::from_utf8(key).map_err(|_| TextErrorKind::KeyCharacter)?;
        let value = core::str::from_utf8(value).map_err(|_| TextErrorKind::ValueNotUtf8)?;
        self.rest = rest;
        Ok((key, value))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, &'a str), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.len.saturating_sub(self.rest.len());
        let result = self.pair().map_err(|kind| TextError { kind, at });
        if result.is_err() {
            self.rest = &[];
        }
        Some(result)
    }
}

impl core::iter::FusedIterator for Pairs<'_> {}

/// What stands before and after the first `byte`.
fn split_at_byte(i: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (head, tail) = i.split_at_checked(i.iter().position(|b| *b == byte)?)?;
    Some((head, tail.get(1..)?))
}

/// Writes a logical text data segment of at most so many bytes.
///
/// It fails closed: once a pair is refused nothing is written any more and [`TextWriter::finish`] says so. An
/// answer that left out what did not fit would be an answer to another question.
///
/// ```
/// use iscsi_pdu::text::TextWriter;
/// let mut text = TextWriter::new(8192);
/// text.pair("HeaderDigest", "None").pair("InitialR2T", "Yes");
/// assert_eq!(text.finish().unwrap(), &b"HeaderDigest=None\0InitialR2T=Yes\0"[..]);
/// ```
#[derive(Clone, Debug)]
pub struct TextWriter {
    out: BytesMut,
    budget: usize,
    failed: Option<TextError>,
}

impl TextWriter {
    /// An empty segment that may grow to `budget` bytes.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { out: BytesMut::new(), budget, failed: None }
    }

    /// Appends a pair; see [`TextWriter::finish`] for what may go wrong.
    // req: 7143-6.1-1
    pub fn pair(&mut self, key: &str, value: &str) -> &mut Self {
        if self.failed.is_none() {
            self.failed = self.append(key, value).err().map(|kind| TextError { kind, at: self.out.len() });
        }
        self
    }

    fn append(&mut self, key: &str, value: &str) -> Result<(), TextErrorKind> {
        check_key(key.as_bytes())?;
        if value.as_bytes().contains(&0) {
            return Err(TextErrorKind::ValueWithNul);
        }
        let len = key.len().saturating_add(value.len()).saturating_add(2);
        if len > self.remaining() {
            return Err(TextErrorKind::TooManyBytes);
        }
        self.out.reserve(len);
        self.out.put_slice(key.as_bytes());
        self.out.put_u8(b'=');
        self.out.put_slice(value.as_bytes());
        self.out.put_u8(0);
        Ok(())
    }

    /// Bytes that may still be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.budget.saturating_sub(self.out.len())
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The segment.
    ///
    /// # Errors
    /// The first pair's that was refused: a key that is none ([`check_key`]), a NUL in the value, or the budget.
    pub fn finish(self) -> Result<Bytes, TextError> {
        match self.failed {
            Some(e) => Err(e),
            None => Ok(self.out.freeze()),
        }
    }
}

/// Cuts a logical text data segment into data segments of at most `max` bytes, each with the C bit of its PDU:
/// set in all but the last. Empty text is one empty data segment. `max` 0 counts as 1.
// req: 7143-6.1-7
pub fn chunks(segment: Bytes, max: usize) -> impl Iterator<Item = (Bytes, bool)> {
    let mut rest = Some(segment);
    core::iter::from_fn(move || {
        let mut head = rest.take()?;
        if head.len() > max.max(1) {
            rest = Some(head.split_off(max.max(1)));
        }
        Some((head, rest.is_some()))
    })
}

/// Joins the data segments of PDUs with the C bit into a logical text data segment.
///
/// Holds at most its limit of bytes. After an error it is empty again.
///
/// ```
/// use iscsi_pdu::text::TextAssembler;
/// let mut text = TextAssembler::new(8192);
/// assert_eq!(text.push(b"HeaderDig"[..].into(), true), Ok(None));
/// assert_eq!(text.push(b"est=None\0"[..].into(), false), Ok(Some(b"HeaderDigest=None\0"[..].into())));
/// ```
#[derive(Clone, Debug)]
pub struct TextAssembler {
    so_far: BytesMut,
    limit: usize,
}

impl TextAssembler {
    /// Accepts segments of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { so_far: BytesMut::new(), limit }
    }

    /// Whether a segment is begun and not ended.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.so_far.is_empty()
    }

    /// Takes the data segment of a PDU and its C bit. Returns the whole text when that is clear; the text of a
    /// single PDU is handed back as it is, without a copy.
    ///
    /// # Errors
    /// [`TextErrorKind::TooManyBytes`] beyond the limit, [`TextErrorKind::EmptyContinuation`] for a PDU that
    /// continues nothing, of which a peer could send any number.
    // req: 7143-6.1-4, 7143-6.1-7
    pub fn push(&mut self, data: Bytes, continue_text: bool) -> Result<Option<Bytes>, TextError> {
        let at = self.so_far.len();
        let error = if data.len() > self.limit.saturating_sub(at) {
            Some(TextErrorKind::TooManyBytes)
        } else if continue_text && data.is_empty() {
            Some(TextErrorKind::EmptyContinuation)
        } else {
            None
        };
        if let Some(kind) = error {
            self.so_far = BytesMut::new();
            return Err(TextError { kind, at });
        }
        if !continue_text && at == 0 {
            return Ok(Some(data));
        }
        self.so_far.extend_from_slice(&data);
        if continue_text {
            return Ok(None);
        }
        Ok(Some(core::mem::take(&mut self.so_far).freeze()))
    }
}

#[cfg(test)]
mod tests;
