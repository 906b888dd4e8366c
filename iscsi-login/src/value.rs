//! Value grammar of RFC 7143 section 6.1: booleans, numbers, ranges, lists, binary values. Lengths are checked before
//! anything is decoded.

use base64::{Engine, engine::general_purpose::STANDARD};
use core::fmt;

/// Why a value does not follow its grammar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ValueError {
    /// Not of the form.
    Syntax,
    /// Longer than the reader takes.
    TooLong,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "malformed value",
            Self::TooLong => "value too long",
        })
    }
}

impl core::error::Error for ValueError {}

/// boolean-value: exactly `Yes` or `No`.
///
/// # Errors
/// [`ValueError::Syntax`] for any other spelling.
// req: 7143-6.1-8
pub fn parse_boolean(text: &str) -> Result<bool, ValueError> {
    match text {
        "Yes" => Ok(true),
        "No" => Ok(false),
        _ => Err(ValueError::Syntax),
    }
}

/// A boolean as it travels.
#[must_use]
pub const fn boolean_text(value: bool) -> &'static str {
    if value { "Yes" } else { "No" }
}

/// numerical-value: a decimal-constant without leading zeros or a hex-constant, below 2^64.
///
/// # Errors
/// [`ValueError`].
// req: 7143-6.1-9
pub fn parse_number(text: &str) -> Result<u64, ValueError> {
    if let Some(digits) = strip_prefix(text, "0x", "0X") {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ValueError::Syntax);
        }
        return u64::from_str_radix(digits, 16).map_err(|_| ValueError::TooLong);
    }
    if text.is_empty()
        || !text.bytes().all(|b| b.is_ascii_digit())
        || (text.len() > 1 && text.starts_with('0'))
    {
        return Err(ValueError::Syntax);
    }
    text.parse().map_err(|_| ValueError::TooLong)
}

/// numerical-range: `low~high`, high not below low.
///
/// # Errors
/// [`ValueError`].
// req: 7143-6.1-11
pub fn parse_range(text: &str) -> Result<(u64, u64), ValueError> {
    let (low, high) = text.split_once('~').ok_or(ValueError::Syntax)?;
    let (low, high) = (parse_number(low)?, parse_number(high)?);
    if low <= high { Ok((low, high)) } else { Err(ValueError::Syntax) }
}

/// binary-value as hex-constant or base64-constant of at most `max` bytes. Decimal constants, which the RFC allows up
/// to 64 bits where a key fixes the length, are refused.
///
/// # Errors
/// [`ValueError::TooLong`] before anything is decoded, [`ValueError::Syntax`].
// req: 7143-6.1-3, 7143-6.1-10
pub fn parse_binary(text: &str, max: usize) -> Result<Vec<u8>, ValueError> {
    if let Some(digits) = strip_prefix(text, "0x", "0X") {
        if digits.len().div_ceil(2) > max {
            return Err(ValueError::TooLong);
        }
        return if digits.is_empty() { Err(ValueError::Syntax) } else { decode_hex(digits) };
    }
    let Some(encoded) = strip_prefix(text, "0b", "0B") else {
        return Err(ValueError::Syntax);
    };
    // What the text can hold at most, padding taken off; four characters hold three bytes.
    let payload = encoded.trim_end_matches('=').len();
    if payload.saturating_mul(3) / 4 > max {
        return Err(ValueError::TooLong);
    }
    if encoded.is_empty() {
        return Err(ValueError::Syntax);
    }
    STANDARD.decode(encoded).map_err(|_| ValueError::Syntax)
}

/// Pairs of hexadecimal digits; a single digit in front is a low nibble.
// req: 7143-6.1-9
pub(crate) fn decode_hex(digits: &str) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::with_capacity(digits.len().div_ceil(2));
    let mut high = if digits.len().is_multiple_of(2) { None } else { Some(0) };
    for b in digits.bytes() {
        let nibble = match b {
            b'0'..=b'9' => b.wrapping_sub(b'0'),
            b'a'..=b'f' => b.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => b.wrapping_sub(b'A').wrapping_add(10),
            _ => return Err(ValueError::Syntax),
        };
        match high.take() {
            Some(h) => out.push(h << 4 | nibble),
            None => high = Some(nibble),
        }
    }
    Ok(out)
}

/// How an end writes binary values; it reads both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum BinaryEncoding {
    /// `0x` and lower case digits.
    #[default]
    Hex,
    /// `0b` and base64.
    Base64,
}

impl BinaryEncoding {
    /// The constant for `bytes`.
    // req: 7143-6.1-3, 7143-6.1-10
    #[must_use]
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => {
                let digit = |n: u8| char::from_digit(u32::from(n & 0xf), 16).unwrap_or('0');
                let digits = bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]);
                "0x".chars().chain(digits).collect()
            }
            Self::Base64 => format!("0b{}", STANDARD.encode(bytes)),
        }
    }
}

fn strip_prefix<'a>(text: &'a str, lower: &str, upper: &str) -> Option<&'a str> {
    text.strip_prefix(lower).or_else(|| text.strip_prefix(upper))
}

/// Words of a list-of-values, in order.
pub(crate) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
}

/// Whether `word` is reserved for answers and may not be proposed (RFC 7143 section 6.2).
// req: 7143-6.2-13
pub(crate) fn is_answer_word(word: &str) -> bool {
    matches!(word, REJECT | IRRELEVANT | NOT_UNDERSTOOD)
}

pub(crate) const REJECT: &str = "Reject";
pub(crate) const IRRELEVANT: &str = "Irrelevant";
pub(crate) const NOT_UNDERSTOOD: &str = "NotUnderstood";

#[cfg(test)]
mod tests;
