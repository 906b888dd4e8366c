//! REPORT LUNS parameter data (SPC-4 clause 6.33).

use crate::codec::{Put, arr, be32, records, run, take};
use crate::error::DecodeError;
use crate::lun::Lun;
use alloc::vec::Vec;

/// The LUN list of REPORT LUNS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LunList(pub Vec<Lun>);

impl LunList {
    /// LUN LIST LENGTH, four reserved bytes and the LUNs.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = self.0.len().saturating_mul(8);
        let mut o = Vec::with_capacity(len.saturating_add(8));
        o.put32(u32::try_from(len).unwrap_or(u32::MAX));
        o.put32(0);
        self.0.iter().for_each(|lun| o.put_bytes(&lun.0));
        o
    }

    /// The LUNs, and the length in bytes that LUN LIST LENGTH claims: when it is more than eight times their number,
    /// the allocation length was too small and the command is to be repeated with a larger one.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] below 8 bytes.
    pub fn decode(data: &[u8]) -> Result<(Self, u32), DecodeError> {
        run(data, |i| {
            let (i, claimed) = be32(i)?;
            let (i, _) = arr::<4>(i)?;
            let there = i.len().min(usize::try_from(claimed).unwrap_or(usize::MAX)) & !7;
            let (i, list) = take(there)(i)?;
            let (_, luns) = records(list, Lun)?;
            Ok((i, (Self(luns), claimed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn list_and_a_cut_one() {
        let list = LunList(vec![Lun::ZERO, Lun([0, 5, 0, 0, 0, 0, 0, 0])]);
        let bytes = list.encode();
        assert_eq!(bytes, [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(LunList::decode(&bytes), Ok((list, 16)));
        // Cut by an allocation length of 20: one whole LUN is left, the claim stays.
        assert_eq!(LunList::decode(&bytes[..20]), Ok((LunList(vec![Lun::ZERO]), 16)));
        for len in 0..8 {
            assert!(LunList::decode(&bytes[..len]).is_err());
        }
    }
}
