//! Why bytes could not be decoded.

use core::fmt;

/// The rule that the bytes violated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end before the structure does.
    Truncated,
    /// A length field contradicts the bytes around it.
    Length,
    /// A field holds a value that the structure does not allow.
    Value,
}

/// Bytes that are not what they should be: which rule, and where.
///
/// A device server answers [`DecodeErrorKind::Truncated`] and [`DecodeErrorKind::Length`] in a parameter list
/// with PARAMETER LIST LENGTH ERROR, [`DecodeErrorKind::Value`] with INVALID FIELD IN PARAMETER LIST and
/// [`DecodeError::at`] as field pointer (SPC-4 clause 4.5.2.4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DecodeError {
    /// The rule.
    pub kind: DecodeErrorKind,
    /// Offset in bytes from the beginning of the structure.
    pub at: u32,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DecodeErrorKind::Truncated => "data ends early",
            DecodeErrorKind::Length => "contradictory length",
            DecodeErrorKind::Value => "value not allowed",
        };
        write!(f, "{what} at byte {}", self.at)
    }
}

impl core::error::Error for DecodeError {}
