//! The few leaf readers and writers that every codec of this crate is built from. All integers are big-endian.

use crate::error::{DecodeError, DecodeErrorKind};
use alloc::vec::Vec;
use nom::error::{ErrorKind, ParseError};
use nom::{Err, IResult};

/// What a parser of this crate returns; private, so that nom is not part of the API.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, Failure<'a>>;

/// Where in the input a rule was violated, and which.
#[derive(Debug)]
pub(crate) struct Failure<'a> {
    rest: &'a [u8],
    kind: DecodeErrorKind,
}

impl<'a> Failure<'a> {
    pub(crate) const fn at(rest: &'a [u8], kind: DecodeErrorKind) -> Err<Self> {
        Err::Error(Self { rest, kind })
    }
}

impl<'a> ParseError<&'a [u8]> for Failure<'a> {
    fn from_error_kind(rest: &'a [u8], kind: ErrorKind) -> Self {
        let kind = match kind {
            ErrorKind::Eof | ErrorKind::Complete => DecodeErrorKind::Truncated,
            _ => DecodeErrorKind::Length,
        };
        Self { rest, kind }
    }

    fn append(_: &'a [u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

/// Runs `parser` over `input`; what it leaves over is ignored.
pub(crate) fn run<'a, T>(
    input: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<T, DecodeError> {
    match parser(input) {
        Ok((_, value)) => Ok(value),
        Err(Err::Error(e) | Err::Failure(e)) => Err(DecodeError {
            kind: e.kind,
            at: u32::try_from(input.len().saturating_sub(e.rest.len())).unwrap_or(u32::MAX),
        }),
        Err(Err::Incomplete(_)) => Err(DecodeError {
            kind: DecodeErrorKind::Truncated,
            at: u32::try_from(input.len()).unwrap_or(u32::MAX),
        }),
    }
}

/// The next `N` bytes as an array, to be taken apart by pattern.
pub(crate) fn arr<const N: usize>(i: &[u8]) -> Parsed<'_, [u8; N]> {
    match i.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((rest, *head)),
        None => Err(Failure::at(i, DecodeErrorKind::Truncated)),
    }
}

/// The next `n` bytes.
pub(crate) fn take(n: usize) -> impl Fn(&[u8]) -> Parsed<'_, &[u8]> {
    move |i| match i.split_at_checked(n) {
        Some((head, rest)) => Ok((rest, head)),
        None => Err(Failure::at(i, DecodeErrorKind::Truncated)),
    }
}

pub(crate) fn be16(i: &[u8]) -> Parsed<'_, u16> {
    arr(i).map(|(i, b)| (i, u16::from_be_bytes(b)))
}

pub(crate) fn be32(i: &[u8]) -> Parsed<'_, u32> {
    arr(i).map(|(i, b)| (i, u32::from_be_bytes(b)))
}

pub(crate) fn be64(i: &[u8]) -> Parsed<'_, u64> {
    arr(i).map(|(i, b)| (i, u64::from_be_bytes(b)))
}

/// As many whole `N`-byte records as `i` holds; a partial last one is an error.
pub(crate) fn records<'a, const N: usize, T>(
    mut i: &'a [u8],
    each: impl Fn([u8; N]) -> T,
) -> Parsed<'a, Vec<T>> {
    let mut all = Vec::with_capacity(i.len().checked_div(N).unwrap_or(0));
    while !i.is_empty() {
        let (rest, record) = arr::<N>(i)?;
        all.push(each(record));
        i = rest;
    }
    Ok((i, all))
}

/// Appends fields to a buffer.
pub(crate) trait Put {
    fn put8(&mut self, v: u8);
    fn put16(&mut self, v: u16);
    fn put24(&mut self, v: u32);
    fn put32(&mut self, v: u32);
    fn put64(&mut self, v: u64);
    fn put_bytes(&mut self, v: &[u8]);
    /// `n` zero bytes.
    fn put_zeros(&mut self, n: usize);
    /// `text` left-aligned in `n` bytes, space-filled or cut; bytes that are not printable ASCII become `?`.
    fn put_text(&mut self, text: &str, n: usize);
    /// Overwrites the 16-bit field at `at` with the number of bytes that follow it.
    fn fill_len16(&mut self, at: usize);
    /// Overwrites the 32-bit field at `at` with the number of bytes that follow it.
    fn fill_len32(&mut self, at: usize);
}

impl Put for Vec<u8> {
    fn put8(&mut self, v: u8) {
        self.push(v);
    }
    fn put16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put24(&mut self, v: u32) {
        let [_, tail @ ..] = v.to_be_bytes();
        self.extend_from_slice(&tail);
    }
    fn put32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_be_bytes());
    }
    fn put_bytes(&mut self, v: &[u8]) {
        self.extend_from_slice(v);
    }
    fn put_zeros(&mut self, n: usize) {
        self.resize(self.len().saturating_add(n), 0);
    }
    fn put_text(&mut self, text: &str, n: usize) {
        let printable = text.bytes().map(|b| if (0x20..0x7f).contains(&b) { b } else { b'?' });
        self.extend(printable.chain(core::iter::repeat(b' ')).take(n));
    }
    fn fill_len16(&mut self, at: usize) {
        let follow = self.len().saturating_sub(at.saturating_add(2));
        let len = u16::try_from(follow).unwrap_or(u16::MAX).to_be_bytes();
        if let Some(field) = self.get_mut(at..at.saturating_add(2)) {
            field.copy_from_slice(&len);
        }
    }
    fn fill_len32(&mut self, at: usize) {
        let follow = self.len().saturating_sub(at.saturating_add(4));
        let len = u32::try_from(follow).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(field) = self.get_mut(at..at.saturating_add(4)) {
            field.copy_from_slice(&len);
        }
    }
}

/// Whether bit `bit` of `byte` is set.
pub(crate) const fn has(byte: u8, bit: u8) -> bool {
    byte.wrapping_shr(bit as u32) & 1 == 1
}

/// `bit` of a byte, when `on`.
pub(crate) const fn flag(on: bool, bit: u8) -> u8 {
    if on { 1u8.wrapping_shl(bit as u32) } else { 0 }
}

/// ASCII text of a space-filled field, trailing spaces and NULs removed; other bytes become `?`.
pub(crate) fn text(field: &[u8]) -> alloc::string::String {
    let end = field.iter().rposition(|b| !matches!(b, b' ' | 0)).map_or(0, |last| last.saturating_add(1));
    field.iter().take(end).map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '?' }).collect()
}

/// A number whose unknown values survive a round trip, with names for the known ones.
macro_rules! code {
    (
        $(#[$doc:meta])* $name:ident($repr:ty) { $( $(#[$vdoc:meta])* $val:literal => $var:ident ),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub $repr);

        #[allow(non_upper_case_globals)]
        impl $name {
            $( $(#[$vdoc])* pub const $var: Self = Self($val); )*

            /// The name of this value, or `None` for one that this crate does not know.
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
    };
}
pub(crate) use code;
