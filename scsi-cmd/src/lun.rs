//! Logical unit numbers (SAM-5 clause 4.7).

use core::fmt;

/// A logical unit number: eight bytes, four levels of two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Lun(pub [u8; 8]);

/// What one two-byte level of a LUN says (SAM-5 clause 4.7.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Address {
    /// Peripheral device addressing, ADDRESS METHOD 00b: 6-bit bus, 8-bit target or LUN. Bus 0 at the last level is
    /// a logical unit of this level.
    Peripheral {
        /// BUS IDENTIFIER.
        bus: u8,
        /// TARGET OR LUN.
        target_or_lun: u8,
    },
    /// Flat space addressing, ADDRESS METHOD 01b: 14-bit logical unit.
    Flat(u16),
    /// Logical unit addressing, ADDRESS METHOD 10b: 6-bit target, 3-bit bus, 5-bit logical unit.
    LogicalUnit {
        /// TARGET.
        target: u8,
        /// BUS NUMBER.
        bus: u8,
        /// LUN.
        lun: u8,
    },
    /// Extended logical unit addressing, ADDRESS METHOD 11b: 2-bit LENGTH, 4-bit EXTENDED ADDRESS METHOD, and the
    /// second byte.
    Extended {
        /// LENGTH: the address takes 2, 4, 6 or 8 bytes.
        length: u8,
        /// EXTENDED ADDRESS METHOD: 1 is a well-known logical unit, 2 extended flat space.
        method: u8,
        /// The byte after it: W-LUN of a well-known logical unit.
        value: u8,
    },
}

impl Lun {
    /// LUN 0.
    pub const ZERO: Self = Self([0; 8]);
    /// The REPORT LUNS well-known logical unit (SPC-4 clause 8.2).
    pub const REPORT_LUNS: Self = Self([0xc1, 0x01, 0, 0, 0, 0, 0, 0]);

    /// The single-level LUN `n`: peripheral device addressing up to 255, flat space addressing up to 16383, extended
    /// flat space addressing (SAM-5 clause 4.7.7.5.4) up to 24 bits. `None` beyond that.
    #[must_use]
    pub const fn single_level(n: u32) -> Option<Self> {
        let [top, high, mid, low] = n.to_be_bytes();
        match n {
            0..=0xff => Some(Self([0, low, 0, 0, 0, 0, 0, 0])),
            0x100..=0x3fff => Some(Self([0x40 | mid, low, 0, 0, 0, 0, 0, 0])),
            0x4000..=0x00ff_ffff => Some(Self([0xd2, high, mid, low, 0, 0, 0, 0])),
            _ => {
                let _ = top;
                None
            }
        }
    }

    /// The number of a single-level LUN in any of the forms that [`Lun::single_level`] makes, and in flat space
    /// addressing of a small number; `None` for every other form.
    #[must_use]
    pub const fn to_single_level(self) -> Option<u32> {
        match self.0 {
            [0, low, 0, 0, 0, 0, 0, 0] => Some(low as u32),
            [high @ 0x40..=0x7f, low, 0, 0, 0, 0, 0, 0] => Some(u32::from_be_bytes([0, 0, high & 0x3f, low])),
            [0xd2, high, mid, low, 0, 0, 0, 0] => Some(u32::from_be_bytes([0, high, mid, low])),
            _ => None,
        }
    }

    /// The address at `level` 0 to 3; `None` beyond.
    #[must_use]
    pub fn level(self, level: usize) -> Option<Address> {
        let (pairs, _) = self.0.as_chunks::<2>();
        let &[a, b] = pairs.get(level)?;
        Some(match a >> 6 {
            0 => Address::Peripheral { bus: a & 0x3f, target_or_lun: b },
            1 => Address::Flat(u16::from_be_bytes([a & 0x3f, b])),
            2 => Address::LogicalUnit { target: a & 0x3f, bus: b >> 5, lun: b & 0x1f },
            _ => Address::Extended { length: (a >> 4) & 0x03, method: a & 0x0f, value: b },
        })
    }

    /// Whether this names a well-known logical unit (SAM-5 clause 4.7.7.5.3).
    #[must_use]
    pub fn is_well_known(self) -> bool {
        matches!(self.level(0), Some(Address::Extended { length: 0, method: 1, .. }))
    }
}

impl From<[u8; 8]> for Lun {
    fn from(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lun({self})")
    }
}

/// The number of a single-level LUN, else the eight bytes in hexadecimal.
impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_single_level() {
            Some(n) => write!(f, "{n}"),
            None => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_sam5_4_7() {
        assert_eq!(Lun::single_level(7), Some(Lun([0, 7, 0, 0, 0, 0, 0, 0])));
        assert_eq!(Lun::single_level(0x1234), Some(Lun([0x52, 0x34, 0, 0, 0, 0, 0, 0])));
        assert_eq!(Lun::single_level(0x01_2345), Some(Lun([0xd2, 0x01, 0x23, 0x45, 0, 0, 0, 0])));
        assert_eq!(Lun::single_level(0x0100_0000), None);
        for n in [0, 255, 256, 0x3fff, 0x4000, 0x00ff_ffff] {
            assert_eq!(Lun::single_level(n).and_then(Lun::to_single_level), Some(n));
        }
        // Flat space addressing of a LUN below 256 names the same logical unit (SAM-5 clause 4.7.7.3).
        assert_eq!(Lun([0x40, 7, 0, 0, 0, 0, 0, 0]).to_single_level(), Some(7));
        assert_eq!(Lun([0, 7, 0, 1, 0, 0, 0, 0]).to_single_level(), None);
        assert!(Lun::REPORT_LUNS.is_well_known());
        assert_eq!(
            Lun([0x85, 0x43, 0, 0, 0, 0, 0, 0]).level(0),
            Some(Address::LogicalUnit { target: 5, bus: 2, lun: 3 })
        );
        assert_eq!(Lun::ZERO.level(4), None);
    }
}
