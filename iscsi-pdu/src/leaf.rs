//! Leaves of the parsers, and the cursor of the emitters: fixed-size pieces in wire order.
//!
//! `arr::<N>` compiles to a load where the length is known, which nom's own number parsers do not.

use crate::error::{DecodeError, Rule};
use crate::{BHS_LEN, CmdSn, DataSn, Itt, Lun, SegmentLen, StatSn, Ttt};
use nom::error::{ErrorKind, ParseError};

/// What a parser returns: the rest of the input and the value.
pub(crate) type Parsed<'a, T> = nom::IResult<&'a [u8], T, PduError>;

/// [`DecodeError`] in nom's terms.
pub(crate) struct PduError(pub(crate) DecodeError);

impl ParseError<&[u8]> for PduError {
    fn from_error_kind(rest: &[u8], _: ErrorKind) -> Self {
        Self(DecodeError::incomplete(1, BHS_LEN.saturating_sub(rest.len())))
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl From<Rule> for nom::Err<PduError> {
    fn from(rule: Rule) -> Self {
        Self::Failure(PduError(rule.into()))
    }
}

/// The error without nom's wrapping.
pub(crate) fn unwrap_err(e: nom::Err<PduError>) -> DecodeError {
    match e {
        nom::Err::Error(e) | nom::Err::Failure(e) => e.0,
        nom::Err::Incomplete(_) => DecodeError::incomplete(1, 0),
    }
}

/// `N` bytes.
#[inline(always)]
pub(crate) fn arr<const N: usize>(i: &[u8]) -> Parsed<'_, [u8; N]> {
    match i.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((rest, *head)),
        None => Err(nom::Err::Error(PduError::from_error_kind(i, ErrorKind::Eof))),
    }
}

/// `N` reserved bytes: ignored, whatever they are.
// req: 7143-11-2, 7143-7.10-1
#[inline(always)]
pub(crate) fn skip<const N: usize>(i: &[u8]) -> Parsed<'_, ()> {
    arr::<N>(i).map(|(rest, _)| (rest, ()))
}

macro_rules! leaves {
    ($($(#[$doc:meta])* $name:ident: $n:literal => $t:ty, $f:expr;)*) => {
        $( $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name(i: &[u8]) -> Parsed<'_, $t> {
            let (rest, bytes) = arr::<$n>(i)?;
            Ok((rest, $f(bytes)))
        } )*
    };
}
leaves! {
    // req: 7143-11-4
    be16: 2 => u16, u16::from_be_bytes;
    be32: 4 => u32, u32::from_be_bytes;
    // req: 7143-11.2.1.7-1
    lun: 8 => Lun, Lun;
    itt: 4 => Itt, |b| Itt(u32::from_be_bytes(b));
    ttt: 4 => Ttt, |b| Ttt(u32::from_be_bytes(b));
    cmd_sn: 4 => CmdSn, |b| CmdSn(u32::from_be_bytes(b));
    stat_sn: 4 => StatSn, |b| StatSn(u32::from_be_bytes(b));
    data_sn: 4 => DataSn, |b| DataSn(u32::from_be_bytes(b));
    /// TotalAHSLength and DataSegmentLength.
    // req: 7143-11.2.1.5-1, 7143-11.2.1.6-1
    segment_len: 4 => SegmentLen, |[w, a, b, c]: [u8; 4]| SegmentLen { ahs_words: w, data: u32::from_be_bytes([0, a, b, c]) };
}

/// Lengths of a PDU that takes a data segment, but no AHS.
// req: 7143-11.2-6
#[inline(always)]
pub(crate) fn no_ahs(i: &[u8]) -> Parsed<'_, SegmentLen> {
    let (rest, len) = segment_len(i)?;
    if len.ahs_words != 0 { Err(Rule::NoAhs.into()) } else { Ok((rest, len)) }
}

/// Lengths of a PDU that is a BHS and nothing else: both 0.
// req: 7143-11.5.2-1, 7143-11.6.2-1, 7143-11.8.1-1, 7143-11.14.2-1, 7143-11.15.2-1
#[inline(always)]
pub(crate) fn no_segments(i: &[u8]) -> Parsed<'_, ()> {
    let (rest, len) = no_ahs(i)?;
    if len.data != 0 { Err(Rule::NoData.into()) } else { Ok((rest, ())) }
}

/// A bit of a flags byte.
#[inline(always)]
pub(crate) const fn bit(on: bool, mask: u8) -> u8 {
    if on { mask } else { 0 }
}

/// Writes a BHS in wire order.
pub(crate) struct Emit<'a>(&'a mut [u8]);

impl<'a> Emit<'a> {
    pub(crate) fn new(bhs: &'a mut [u8; BHS_LEN]) -> Self {
        Self(bhs)
    }

    #[inline(always)]
    pub(crate) fn put<const N: usize>(self, bytes: [u8; N]) -> Self {
        match self.0.split_first_chunk_mut::<N>() {
            Some((head, rest)) => {
                *head = bytes;
                Self(rest)
            }
            None => {
                debug_assert!(false, "a BHS has 48 bytes");
                Self(&mut [])
            }
        }
    }

    #[inline(always)]
    pub(crate) fn be16(self, n: u16) -> Self {
        self.put(n.to_be_bytes())
    }

    // req: 7143-11-4
    #[inline(always)]
    pub(crate) fn be32(self, n: u32) -> Self {
        self.put(n.to_be_bytes())
    }

    /// Reserved bytes.
    // req: 7143-11-1
    #[inline(always)]
    pub(crate) fn zero<const N: usize>(self) -> Self {
        self.put([0; N])
    }

    // req: 7143-11.2.1.5-1, 7143-11.2.1.6-1
    #[inline(always)]
    pub(crate) fn segment_len(self, len: SegmentLen) -> Self {
        let [_, a, b, c] = len.data.to_be_bytes();
        self.put([len.ahs_words, a, b, c])
    }

    #[inline(always)]
    pub(crate) fn end(self) {
        debug_assert!(self.0.is_empty(), "a BHS has 48 bytes");
    }
}
