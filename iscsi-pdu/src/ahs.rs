//! Additional Header Segments (RFC 7143 section 11.2.2).
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!       +---------------+---------------+---------------+---------------+
//!      0| AHSLength                     | AHSType       | AHS-Specific  |
//!       +---------------+---------------+---------------+---------------+
//!      4/ AHS-Specific, padded to a multiple of four bytes              /
//!       +---------------+---------------+---------------+---------------+
//! ```
//!
//! AHSLength counts the bytes after AHSType without padding.

use crate::bhs::pad_len;
use crate::error::{DecodeError, DecodeErrorKind, Rule};
use alloc::vec::Vec;
use bytes::{BufMut, Bytes};

const EXTENDED_CDB: u8 = 1;
const BIDIRECTIONAL: u8 = 2;

/// One Additional Header Segment, in the order in which it travels.
///
/// Codes that RFC 7143 reserves do not decode: the RFC gives them no meaning a receiver could honour.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Ahs {
    /// Bytes 16 and up of a CDB longer than 16 bytes (section 11.2.2.3), at least 1.
    ExtendedCdb(Bytes),
    /// Bidirectional Read Expected Data Transfer Length, in bytes (section 11.2.2.4).
    BidirectionalReadLength(u32),
}

impl Ahs {
    /// Bytes on the wire, padding included.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::ExtendedCdb(cdb) => cdb.len().saturating_add(4).saturating_add(pad_len(cdb.len())),
            Self::BidirectionalReadLength(_) => 8,
        }
    }

    // req: 7143-11.2.2-1, 7143-11.2.2.3-1, 7143-11.2.2.4-1, 7143-11.2-4
    fn emit(&self, out: &mut impl BufMut) {
        match self {
            Self::ExtendedCdb(cdb) => {
                let len = u16::try_from(cdb.len().saturating_add(1)).unwrap_or(u16::MAX);
                out.put_u16(len);
                out.put_slice(&[EXTENDED_CDB, 0]);
                out.put_slice(cdb);
                out.put_bytes(0, pad_len(cdb.len()));
            }
            Self::BidirectionalReadLength(n) => {
                out.put_slice(&[0, 5, BIDIRECTIONAL, 0]);
                out.put_u32(*n);
            }
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Self::ExtendedCdb(_) => EXTENDED_CDB,
            Self::BidirectionalReadLength(_) => BIDIRECTIONAL,
        }
    }
}

/// Bytes of all of `list` on the wire.
pub(crate) fn encoded_len(list: &[Ahs]) -> usize {
    list.iter().fold(0, |n, a| n.saturating_add(a.encoded_len()))
}

/// What no list of AHSs may be, whether it was received or is to be sent.
pub(crate) fn check(list: &[Ahs]) -> Result<(), Rule> {
    // req: 7143-11.2.2.3-1
    if list.iter().any(|a| matches!(a, Ahs::ExtendedCdb(cdb) if cdb.is_empty())) {
        return Err(Rule::AhsLength);
    }
    for code in [EXTENDED_CDB, BIDIRECTIONAL] {
        if list.iter().filter(|a| a.code() == code).count() > 1 {
            return Err(Rule::AhsRepeated);
        }
    }
    Ok(())
}

/// Appends `list` as it travels.
pub(crate) fn emit(list: &[Ahs], out: &mut impl BufMut) {
    list.iter().for_each(|a| a.emit(out));
}

/// Decodes all AHSs of a PDU.
// req: 7143-11.2.2-1, 7143-11.2.2.3-1, 7143-11.2.2.4-1
pub(crate) fn parse(mut i: &[u8]) -> Result<Vec<Ahs>, DecodeError> {
    let total = i.len();
    let mut list = Vec::new();
    while !i.is_empty() {
        let at = total.saturating_sub(i.len()).saturating_add(crate::BHS_LEN);
        let fail = |rule: Rule| {
            // Within the AHS, the type stands two bytes after the length.
            let at = at.saturating_add(usize::from(rule.at().saturating_sub(48)));
            DecodeError::new(DecodeErrorKind::Rule(rule), u16::try_from(at).unwrap_or(u16::MAX))
        };
        let Some((&[l0, l1, code], rest)) = i.split_first_chunk::<3>() else {
            return Err(fail(Rule::AhsLength));
        };
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // AHSType ends at byte 3, so the padding is that of len + 3.
        let padded = len.saturating_add(pad_len(len.saturating_add(3)));
        let (Some(body), Some(next)) = (rest.get(..len), rest.get(padded..)) else {
            return Err(fail(Rule::AhsLength));
        };
        let ahs = match (code & 0x3f, body) {
            (EXTENDED_CDB, [_, cdb @ ..]) if !cdb.is_empty() => Ahs::ExtendedCdb(Bytes::copy_from_slice(cdb)),
            (BIDIRECTIONAL, &[_, a, b, c, d]) => {
                Ahs::BidirectionalReadLength(u32::from_be_bytes([a, b, c, d]))
            }
            (EXTENDED_CDB | BIDIRECTIONAL, _) => return Err(fail(Rule::AhsLength)),
            _ => return Err(fail(Rule::AhsType)),
        };
        if list.iter().any(|a: &Ahs| a.code() == ahs.code()) {
            return Err(fail(Rule::AhsRepeated));
        }
        list.push(ahs);
        i = next;
    }
    Ok(list)
}

#[cfg(test)]
mod tests;
