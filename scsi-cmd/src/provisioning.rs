//! UNMAP and GET LBA STATUS (SBC-3 clauses 5.4, 5.28).

use crate::codec::{Failure, Put, arr, be16, be32, records, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use alloc::vec::Vec;

/// UNMAP block descriptor: a run of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnmapDescriptor {
    /// UNMAP LOGICAL BLOCK ADDRESS.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: u32,
}

/// UNMAP parameter list (SBC-3 table 116).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnmapList(pub Vec<UnmapDescriptor>);

impl UnmapList {
    /// The list; descriptors beyond 4095, which the length field cannot say, are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(self.0.len().saturating_mul(16).saturating_add(8));
        o.put_zeros(8);
        for descriptor in self.0.iter().take(4095) {
            o.put64(descriptor.lba);
            o.put32(descriptor.blocks);
            o.put32(0);
        }
        let descriptors = u16::try_from(o.len().saturating_sub(8)).unwrap_or(u16::MAX);
        if let Some(field) = o.get_mut(2..4) {
            field.copy_from_slice(&descriptors.to_be_bytes());
        }
        o.fill_len16(0);
        o
    }

    /// Decodes a list. A partial last descriptor is ignored, as the clause requires.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 8 bytes, or when the descriptors that UNMAP BLOCK DESCRIPTOR DATA LENGTH
    /// announces are not there; [`DecodeErrorKind::Length`] when UNMAP DATA LENGTH has no room for them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, data_len) = be16(i)?;
            let (rest, descriptors_len) = be16(i)?;
            if descriptors_len > 0 && u32::from(data_len) < u32::from(descriptors_len).saturating_add(6) {
                return Err(Failure::at(i, DecodeErrorKind::Length));
            }
            let (i, _) = arr::<4>(rest)?;
            let (i, list) = take(usize::from(descriptors_len & !15))(i)?;
            let (_, list) = records(list, |[l0, l1, l2, l3, l4, l5, l6, l7, n0, n1, n2, n3, _, _, _, _]| {
                UnmapDescriptor {
                    lba: u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
                    blocks: u32::from_be_bytes([n0, n1, n2, n3]),
                }
            })?;
            Ok((i, Self(list)))
        })
    }
}

crate::codec::code! {
    /// PROVISIONING STATUS of a run of blocks (SBC-3 table 38).
    ProvisioningStatus(u8) {
        /// Mapped, or not known.
        0 => Mapped,
        /// Deallocated.
        1 => Deallocated,
        /// Anchored.
        2 => Anchored,
    }
}

/// LBA status descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LbaStatus {
    /// LBA STATUS LOGICAL BLOCK ADDRESS.
    pub lba: u64,
    /// NUMBER OF LOGICAL BLOCKS.
    pub blocks: u32,
    /// PROVISIONING STATUS, 4 bits.
    pub status: ProvisioningStatus,
}

/// GET LBA STATUS parameter data (SBC-3 table 36).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LbaStatusList(pub Vec<LbaStatus>);

impl LbaStatusList {
    /// The data, PARAMETER DATA LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(self.0.len().saturating_mul(16).saturating_add(8));
        o.put_zeros(8);
        for status in &self.0 {
            o.put64(status.lba);
            o.put32(status.blocks);
            o.put_bytes(&[status.status.0 & 0x0f, 0, 0, 0]);
        }
        o.fill_len32(0);
        o
    }

    /// Decodes data that an allocation length may have cut: whole descriptors count.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 8 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, len) = be32(i)?;
            let (i, _) = arr::<4>(i)?;
            let claimed = usize::try_from(len.saturating_sub(4)).unwrap_or(usize::MAX);
            let (i, list) = take(i.len().min(claimed) & !15)(i)?;
            let (_, list) =
                records(list, |[l0, l1, l2, l3, l4, l5, l6, l7, n0, n1, n2, n3, s, _, _, _]| LbaStatus {
                    lba: u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
                    blocks: u32::from_be_bytes([n0, n1, n2, n3]),
                    status: ProvisioningStatus(s & 0x0f),
                })?;
            Ok((i, Self(list)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    // As the Linux initiator sends it: one descriptor, 8 blocks at LBA 800h.
    #[test]
    fn one_descriptor() {
        let bytes = hex::decode("001600100000000000000000000008000000000800000000").unwrap();
        let list = UnmapList(vec![UnmapDescriptor { lba: 0x800, blocks: 8 }]);
        assert_eq!(list.encode(), bytes);
        assert_eq!(UnmapList::decode(&bytes), Ok(list));
        for len in 0..bytes.len() {
            assert_eq!(
                UnmapList::decode(&bytes[..len]).unwrap_err().kind,
                DecodeErrorKind::Truncated,
                "{len}"
            );
        }
    }

    #[test]
    fn a_partial_descriptor_is_ignored() {
        let mut bytes = UnmapList(vec![UnmapDescriptor { lba: 1, blocks: 1 }]).encode();
        bytes.extend([0; 8]);
        bytes[1] = 30;
        bytes[3] = 24;
        assert_eq!(UnmapList::decode(&bytes).unwrap().0.len(), 1);
        bytes[1] = 16;
        assert_eq!(UnmapList::decode(&bytes), Err(DecodeError { kind: DecodeErrorKind::Length, at: 2 }));
        assert_eq!(UnmapList::decode(&[0, 6, 0, 0, 0, 0, 0, 0]), Ok(UnmapList::default()));
    }

    #[test]
    fn lba_status_and_a_cut_one() {
        let status = |lba, blocks, status| LbaStatus { lba, blocks, status };
        let list = LbaStatusList(vec![
            status(16, 8, ProvisioningStatus::Mapped),
            status(24, 100, ProvisioningStatus::Deallocated),
        ]);
        let bytes = list.encode();
        assert_eq!(bytes[..8], [0, 0, 0, 36, 0, 0, 0, 0]);
        assert_eq!(bytes[24..], [0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 100, 1, 0, 0, 0]);
        assert_eq!(LbaStatusList::decode(&bytes).as_ref(), Ok(&list));
        assert_eq!(LbaStatusList::decode(&bytes[..24]).unwrap().0.len(), 1);
    }

    proptest! {
        #[test]
        fn lists_survive(all in prop::collection::vec(any::<(u64, u32)>(), 0..40)) {
            let list = UnmapList(all.iter().map(|(lba, blocks)| UnmapDescriptor { lba: *lba, blocks: *blocks }).collect());
            prop_assert_eq!(UnmapList::decode(&list.encode()), Ok(list));
            let list = LbaStatusList(all.into_iter().map(|(lba, blocks)| LbaStatus {
                lba, blocks, status: ProvisioningStatus((blocks % 3) as u8),
            }).collect());
            prop_assert_eq!(LbaStatusList::decode(&list.encode()), Ok(list));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = UnmapList::decode(&bytes);
            let _ = LbaStatusList::decode(&bytes);
        }
    }
}
