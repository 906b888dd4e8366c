//! Parameter lists of FORMAT UNIT and SANITIZE (SBC-3 clauses 5.3, 5.24).

use crate::codec::{Put, arr, be16, be32, flag, has, run};
use crate::error::DecodeError;
use crate::layout::{bit, bits, bytes, records};
use alloc::vec::Vec;

records! {
    /// SANITIZE OVERWRITE parameter list before the initialization pattern (SBC-3 clause 5.24.2).
    OverwriteHeader, 4 {
        /// INVERT: the pattern is inverted on each pass.
        invert: bool = bit(0, 7),
        /// TEST.
        test: u8 = bits(0, 5, 2),
        /// OVERWRITE COUNT: passes, 1 to 31.
        count: u8 = bits(0, 0, 5),
        /// INITIALIZATION PATTERN LENGTH in bytes.
        pattern_length: u16 = bytes(2, 3),
    }
}

/// FORMAT UNIT parameter list header (SBC-3 clause 5.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FormatHeader {
    /// PROTECTION FIELD USAGE, 3 bits.
    pub protection_field_usage: u8,
    /// FOV: the options below count.
    pub fov: bool,
    /// IP: an initialization pattern descriptor follows.
    pub ip: bool,
    /// IMMED: status before the work is done.
    pub immed: bool,
    /// P_I_INFORMATION and PROTECTION INTERVAL EXPONENT, in the long header alone.
    pub interval_exponent: u8,
    /// DEFECT LIST LENGTH in bytes.
    pub defect_list_length: u32,
}

impl FormatHeader {
    /// Decodes the short (4 bytes) or long (8 bytes) header.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`].
    pub fn decode(data: &[u8], long: bool) -> Result<Self, DecodeError> {
        run(data, |i| {
            let (i, [usage, flags]) = arr(i)?;
            let (i, interval_exponent, defect_list_length) = if long {
                let (i, [_, exponent]) = arr(i)?;
                let (i, len) = be32(i)?;
                (i, exponent, len)
            } else {
                let (i, len) = be16(i)?;
                (i, 0, u32::from(len))
            };
            let header = Self {
                protection_field_usage: usage & 0x07,
                fov: has(flags, 7),
                ip: has(flags, 3),
                immed: has(flags, 1),
                interval_exponent,
                defect_list_length,
            };
            Ok((i, header))
        })
    }

    /// The short or long header.
    #[must_use]
    pub fn encode(&self, long: bool) -> Vec<u8> {
        let mut o = Vec::with_capacity(8);
        o.put8(self.protection_field_usage & 0x07);
        o.put8(flag(self.fov, 7) | flag(self.ip, 3) | flag(self.immed, 1));
        if long {
            o.put_bytes(&[0, self.interval_exponent]);
            o.put32(self.defect_list_length);
        } else {
            o.put16(u16::try_from(self.defect_list_length).unwrap_or(u16::MAX));
        }
        o
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_headers() {
        let short = FormatHeader { fov: true, immed: true, defect_list_length: 0, ..FormatHeader::default() };
        assert_eq!(short.encode(false), [0, 0x82, 0, 0]);
        assert_eq!(FormatHeader::decode(&[0, 0x82, 0, 0], false), Ok(short));
        let long =
            FormatHeader { protection_field_usage: 1, defect_list_length: 8, ..FormatHeader::default() };
        assert_eq!(long.encode(true), [1, 0, 0, 0, 0, 0, 0, 8]);
        assert_eq!(FormatHeader::decode(&long.encode(true), true), Ok(long));
        assert!(FormatHeader::decode(&[0; 7], true).is_err());
    }

    // SBC-3 table 84: three passes of a two-byte pattern, inverted each time.
    #[test]
    fn overwrite_header() {
        let header = OverwriteHeader { invert: true, test: 0, count: 3, pattern_length: 2 };
        assert_eq!(header.encode(), [0x83, 0, 0, 2]);
        assert_eq!(OverwriteHeader::decode(&[0x83, 0, 0, 2]), header);
    }
}
