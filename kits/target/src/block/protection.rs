//! Protection information as devices keep it: eight bytes for each block, beside the data.

use crc::{CRC_16_T10_DIF, Crc, Table};
use scsi_cmd::protection::{ProtectionInformation, ProtectionType};

/// Bytes of protection information for a block.
pub const TAG: usize = ProtectionInformation::LEN;

static CRC: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_T10_DIF);

/// LOGICAL BLOCK GUARD of a block's data (SBC-3 clause 4.22.4): the CRC with generator polynomial 18BB7h.
#[must_use]
pub fn guard(data: &[u8]) -> u16 {
    CRC.checksum(data)
}

/// The protection information of `blocks` blocks that have none.
pub(super) fn unwritten(blocks: u64) -> Vec<u8> {
    vec![0xff; blocks as usize * TAG]
}

/// Gives blocks a guard that fits their data where it does not and would be checked; returns how many did not. `data`
/// are whole blocks of `block` bytes, `tags` their protection information.
pub(super) fn mend(kind: ProtectionType, block: usize, data: &[u8], tags: &mut [u8]) -> u64 {
    let mut mended = 0;
    for (data, tag) in data.chunks_exact(block).zip(tags.chunks_exact_mut(TAG)) {
        let mut pi = ProtectionInformation::decode(tag);
        let right = guard(data);
        if pi.guard != right && !pi.unchecked(kind) {
            pi.guard = right;
            tag.copy_from_slice(&pi.encode());
            mended += 1;
        }
    }
    mended
}

/// A device's protection type in a byte, as it is stored; 0 is none.
pub(super) fn to_number(protection: Option<ProtectionType>) -> u8 {
    protection.map_or(0, ProtectionType::number)
}

#[cfg(test)]
mod tests {
    use super::*;

    // SBC-3 clause 4.22.4.4, table "CRC test cases".
    #[test]
    fn guards_that_the_standard_gives() {
        assert_eq!(guard(&[0; 32]), 0x0000);
        assert_eq!(guard(&[0xff; 32]), 0xa293);
        let up: Vec<u8> = (0x00..=0x1f).collect();
        assert_eq!(guard(&up), 0x0224);
        let mut two = [0; 32];
        two[..2].fill(0xff);
        assert_eq!(guard(&two), 0x21b8);
        let down: Vec<u8> = (0xe0..=0xff).rev().collect();
        assert_eq!(guard(&down), 0xa0b7);
    }

    // The definition, bit by bit, against the tables.
    #[test]
    fn a_guard_is_the_remainder_of_a_division() {
        let bitwise = |data: &[u8]| {
            data.iter().fold(0u16, |crc, byte| {
                (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
                    crc << 1 ^ if crc & 0x8000 != 0 { 0x8bb7 } else { 0 }
                })
            })
        };
        let data: Vec<u8> = (0..4096u32).map(|n| (n * 7 + n / 251) as u8).collect();
        for len in [0, 1, 15, 16, 17, 512, 520, 4096] {
            assert_eq!(guard(&data[..len]), bitwise(&data[..len]), "{len} bytes");
        }
    }

    #[test]
    fn mending_leaves_alone_what_is_not_checked() {
        let data = [[1; 512], [2; 512], [3; 512]].concat();
        let right = ProtectionInformation { guard: guard(&[1; 512]), application_tag: 5, reference_tag: 0 };
        let wrong = ProtectionInformation { guard: 7, application_tag: 5, reference_tag: 1 };
        let mut tags = [right.encode(), wrong.encode(), [0xff; 8]].concat();
        assert_eq!(mend(ProtectionType::Type1, 512, &data, &mut tags), 1);
        let mended = ProtectionInformation { guard: guard(&[2; 512]), ..wrong };
        assert_eq!(tags, [right.encode(), mended.encode(), [0xff; 8]].concat());
    }
}
