//! The table language of CDBs and other fixed records: a field is a run of bits, named by the byte and bit where
//! it ends.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "constant places within an array, each evaluated at compile time for USAGE"
)]

/// Where a field is: `width` bits, big-endian, the last of them bit `low` of byte `last`.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    last: usize,
    low: u32,
    width: u32,
}

/// Bytes `first` to `last`.
pub(crate) const fn bytes(first: usize, last: usize) -> Place {
    Place { last, low: 0, width: (last + 1 - first) as u32 * 8 }
}

/// One bit.
pub(crate) const fn bit(byte: usize, low: u32) -> Place {
    Place { last: byte, low, width: 1 }
}

/// `width` bits, the lowest of them `low`, in one byte.
pub(crate) const fn bits(byte: usize, low: u32, width: u32) -> Place {
    Place { last: byte, low, width }
}

/// `width` bits that end with bit 0 of byte `last`.
pub(crate) const fn span(last: usize, width: u32) -> Place {
    Place { last, low: 0, width }
}

impl Place {
    const fn mask(self) -> u64 {
        if self.width >= 64 { u64::MAX } else { (1 << self.width) - 1 }
    }

    const fn first(self) -> usize {
        self.last + 1 - ((self.low + self.width) as usize).div_ceil(8)
    }

    #[inline(always)]
    pub(crate) const fn get<const N: usize>(self, cdb: &[u8; N]) -> u64 {
        let (mut v, mut at) = (0, self.first());
        while at <= self.last {
            v = (v << 8) | cdb[at] as u64;
            at += 1;
        }
        (v >> self.low) & self.mask()
    }

    /// Sets the field, which is zero before; bits that do not fit are dropped.
    #[inline(always)]
    pub(crate) const fn put<const N: usize>(self, cdb: &mut [u8; N], value: u64) {
        let (mut v, mut at) = ((value & self.mask()) << self.low, self.last);
        let first = self.first();
        loop {
            cdb[at] |= v as u8;
            if at == first {
                break;
            }
            v >>= 8;
            at -= 1;
        }
    }
}

/// A type that a field can have.
pub(crate) trait Field: Copy {
    fn from_bits(bits: u64) -> Self;
    fn to_bits(self) -> u64;
}

impl Field for bool {
    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        bits != 0
    }
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self)
    }
}

macro_rules! int_field {
    ($($t:ty)*) => { $(
        impl Field for $t {
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
            #[inline(always)]
            fn to_bits(self) -> u64 {
                u64::from(self)
            }
        }
    )* };
}
int_field!(u8 u16 u32 u64);

/// Defines CDBs: `Name = OPERATION CODE [/ SERVICE ACTION], length { field: type = place, … }`.
macro_rules! cdbs {
    ($(
        $(#[$doc:meta])*
        $name:ident = $op:literal $(/ $sa:literal)?, $len:literal {
            $( $(#[$fdoc:meta])* $field:ident : $ty:ty = $place:expr ),* $(,)?
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
        pub struct $name {
            $( $(#[$fdoc])* pub $field: $ty, )*
        }

        #[allow(
            clippy::indexing_slicing,
            clippy::arithmetic_side_effects,
            reason = "constant places within an array, each evaluated at compile time for USAGE"
        )]
        impl $name {
            pub(crate) const OP: u8 = $op;
            pub(crate) const LEN: usize = $len;
            const SERVICE_ACTION: Option<u16> = { const SA: &[u16] = &[$($sa)?]; if SA.is_empty() { None } else { Some(SA[0]) } };
            pub(crate) const SA_KEY: u16 = match Self::SERVICE_ACTION { Some(sa) => sa, None => 0 };

            /// CDB usage data (SPC-4 clause 6.35.3), as [`Command::usage`](crate::cdb::Command::usage) gives it.
            pub const USAGE: [u8; $len] = {
                #[allow(unused_mut, reason = "a CDB without fields")]
                let mut usage = Self::blank();
                $( $place.put(&mut usage, u64::MAX); )*
                usage
            };

            /// Operation code, service action and additional length.
            const fn blank() -> [u8; $len] {
                let mut cdb = [0; $len];
                cdb[0] = $op;
                if let Some(sa) = Self::SERVICE_ACTION {
                    if $op == 0x7f {
                        $crate::layout::bytes(7, 7).put(&mut cdb, ($len as u64).wrapping_sub(8));
                        $crate::layout::bytes(8, 9).put(&mut cdb, sa as u64);
                    } else {
                        cdb[1] |= sa as u8;
                    }
                }
                cdb
            }

            #[inline]
            pub(crate) fn decode(_cdb: &[u8; $len]) -> Self {
                Self { $( $field: $crate::layout::Field::from_bits($place.get(_cdb)), )* }
            }

            #[inline]
            pub(crate) fn encode(&self) -> [u8; $len] {
                #[allow(unused_mut, reason = "a CDB without fields")]
                let mut cdb = Self::blank();
                $( $place.put(&mut cdb, $crate::layout::Field::to_bits(self.$field)); )*
                cdb
            }
        }
    )* };
}

pub(crate) use cdbs;

/// Defines records of fixed length: `Name, length { field: type = place, … }`. Bytes beyond what is there decode as
/// zero, as fields that an older peer does not know must; a longer record is cut.
macro_rules! records {
    ($(
        $(#[$doc:meta])*
        $name:ident, $len:literal {
            $( $(#[$fdoc:meta])* $field:ident : $ty:ty = $place:expr ),* $(,)?
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
        pub struct $name {
            $( $(#[$fdoc])* pub $field: $ty, )*
        }

        impl $name {
            /// Length of the record in bytes.
            pub const LEN: usize = $len;

            /// A record with every bit of every field set: what fields the record has.
            pub const ALL: [u8; $len] = {
                let mut all = [0; $len];
                $( $place.put(&mut all, u64::MAX); )*
                all
            };

            /// From the bytes of the record; missing ones count as zero, further ones are ignored.
            #[must_use]
            pub fn decode(bytes: &[u8]) -> Self {
                let mut whole = [0; $len];
                whole.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                Self { $( $field: $crate::layout::Field::from_bits($place.get(&whole)), )* }
            }

            /// The bytes of the record, reserved bits zero. Of a field narrower than its type, the low bits count.
            #[must_use]
            pub fn encode(&self) -> [u8; $len] {
                let mut bytes = [0; $len];
                $( $place.put(&mut bytes, $crate::layout::Field::to_bits(self.$field)); )*
                bytes
            }
        }
    )* };
}
pub(crate) use records;
