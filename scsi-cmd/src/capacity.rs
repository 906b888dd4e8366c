//! READ CAPACITY parameter data (SBC-3 clauses 5.15, 5.16).

use crate::error::{DecodeError, DecodeErrorKind};
use crate::layout::{bit, bits, bytes, records};

records! {
    /// READ CAPACITY(10) parameter data (SBC-3 clause 5.15.2).
    Capacity10, 8 {
        /// RETURNED LOGICAL BLOCK ADDRESS: the last one; FFFF_FFFFh when it needs READ CAPACITY(16).
        last_lba: u32 = bytes(0, 3),
        /// LOGICAL BLOCK LENGTH IN BYTES.
        block_length: u32 = bytes(4, 7),
    }

    /// READ CAPACITY(16) parameter data (SBC-3 clause 5.16.2).
    Capacity16, 32 {
        /// RETURNED LOGICAL BLOCK ADDRESS: the last one.
        last_lba: u64 = bytes(0, 7),
        /// LOGICAL BLOCK LENGTH IN BYTES, without protection information.
        block_length: u32 = bytes(8, 11),
        /// P_TYPE: protection type minus 1; valid with `prot_en`.
        p_type: u8 = bits(12, 1, 3),
        /// PROT_EN: the medium is formatted with protection information.
        prot_en: bool = bit(12, 0),
        /// P_I_EXPONENT: log2 of protection information intervals per block.
        p_i_exponent: u8 = bits(13, 4, 4),
        /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
        physical_exponent: u8 = bits(13, 0, 4),
        /// LBPME: logical block provisioning management.
        lbpme: bool = bit(14, 7),
        /// LBPRZ: unmapped blocks read as zeros.
        lbprz: bool = bit(14, 6),
        /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS, 14 bits.
        lowest_aligned_lba: u16 = crate::layout::span(15, 14),
    }
}

impl Capacity10 {
    /// From the parameter data of a peer.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 8 bytes.
    pub fn from_peer(data: &[u8]) -> Result<Self, DecodeError> {
        at_least(data, Self::LEN).map(Self::decode)
    }
}

impl Capacity16 {
    /// From the parameter data of a peer.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`] below 12 bytes: without the block length.
    pub fn from_peer(data: &[u8]) -> Result<Self, DecodeError> {
        at_least(data, 12).map(Self::decode)
    }
}

fn at_least(data: &[u8], len: usize) -> Result<&[u8], DecodeError> {
    if data.len() < len {
        return Err(DecodeError {
            kind: DecodeErrorKind::Truncated,
            at: u32::try_from(data.len()).unwrap_or(u32::MAX),
        });
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Laid out by hand after SBC-3 tables 65 and 67: 1 GiB of 512-byte blocks, 4 KiB physical, thin, zeros.
    #[test]
    fn capacity_of_a_gibibyte() {
        let ten = [0x00, 0x1f, 0xff, 0xff, 0x00, 0x00, 0x02, 0x00];
        assert_eq!(Capacity10 { last_lba: 0x1f_ffff, block_length: 512 }.encode(), ten);
        let mut sixteen = [0; 32];
        sixteen[..16].copy_from_slice(&[0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0, 0, 2, 0, 0x00, 0x03, 0xc0, 0x00]);
        let capacity = Capacity16 {
            last_lba: 0x1f_ffff,
            block_length: 512,
            physical_exponent: 3,
            lbpme: true,
            lbprz: true,
            ..Capacity16::default()
        };
        assert_eq!(capacity.encode(), sixteen);
        assert_eq!(Capacity16::from_peer(&sixteen), Ok(capacity));
        assert!(Capacity16::from_peer(&sixteen[..11]).is_err());
        assert!(Capacity10::from_peer(&ten[..7]).is_err());
    }

    // P_TYPE 010b is type 3 protection (SBC-3 table 68).
    #[test]
    fn protection_bits() {
        let capacity = Capacity16 { prot_en: true, p_type: 2, ..Capacity16::default() };
        assert_eq!(capacity.encode()[12], 0x05);
    }
}
