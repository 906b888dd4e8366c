//! Protection information (SBC-3 clause 4.22): the eight bytes that follow a logical block's data.

use crate::layout::{bytes, records};

/// How a unit is formatted with protection information.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProtectionType {
    /// Type 1: the reference tag is the low 32 bits of the logical block address.
    Type1,
    /// Type 2: the reference tag counts from what a 32-byte CDB says.
    Type2,
    /// Type 3: the reference tag belongs to whom the application tag belongs to.
    Type3,
}

impl ProtectionType {
    /// Its number: 1, 2 or 3. P_TYPE of READ CAPACITY(16) is one less.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Type1 => 1,
            Self::Type2 => 2,
            Self::Type3 => 3,
        }
    }

    /// By its number; `None` for others than 1, 2 and 3.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Type1),
            2 => Some(Self::Type2),
            3 => Some(Self::Type3),
            _ => None,
        }
    }
}

records! {
    /// Protection information (SBC-3 clause 4.22.3), big-endian.
    ProtectionInformation, 8 {
        /// LOGICAL BLOCK GUARD: the CRC of the user data (SBC-3 clause 4.22.4).
        guard: u16 = bytes(0, 1),
        /// LOGICAL BLOCK APPLICATION TAG.
        application_tag: u16 = bytes(2, 3),
        /// LOGICAL BLOCK REFERENCE TAG.
        reference_tag: u32 = bytes(4, 7),
    }
}

impl ProtectionInformation {
    /// All bits set: what blocks have that were formatted or unmapped and not written since.
    pub const UNWRITTEN: Self = Self { guard: 0xffff, application_tag: 0xffff, reference_tag: 0xffff_ffff };

    /// Whether the tags say that nothing is to be checked when the block is read from the medium: an application tag of
    /// FFFFh, with type 3 a reference tag of FFFF_FFFFh too (SBC-3 clauses 4.22.2.3 to 4.22.2.5).
    #[must_use]
    pub const fn unchecked(&self, kind: ProtectionType) -> bool {
        self.application_tag == 0xffff
            && (!matches!(kind, ProtectionType::Type3) || self.reference_tag == 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laid_out_by_hand() {
        let pi = ProtectionInformation { guard: 0xa293, application_tag: 0x0102, reference_tag: 0x0304_0506 };
        assert_eq!(pi.encode(), [0xa2, 0x93, 1, 2, 3, 4, 5, 6]);
        assert_eq!(ProtectionInformation::decode(&pi.encode()), pi);
        assert_eq!(ProtectionInformation::UNWRITTEN.encode(), [0xff; 8]);
    }

    #[test]
    fn what_turns_checks_off() {
        use ProtectionType::{Type1, Type2, Type3};
        let app = ProtectionInformation { application_tag: 0xffff, ..ProtectionInformation::default() };
        assert_eq!([Type1, Type2, Type3].map(|kind| app.unchecked(kind)), [true, true, false]);
        assert!(ProtectionInformation::UNWRITTEN.unchecked(Type3));
        let reference = ProtectionInformation { application_tag: 0, ..ProtectionInformation::UNWRITTEN };
        assert!(!reference.unchecked(Type1) && !reference.unchecked(Type3));
    }
}
