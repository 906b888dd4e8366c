//! The identifiers that PDUs carry: tags, LUN, ISID, TSIH, CID.

use core::fmt;

macro_rules! tag {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// The reserved value 0xffffffff, "no tag".
            pub const NONE: Self = Self(0xffff_ffff);

            /// Whether this is the reserved value.
            #[must_use]
            pub const fn is_none(self) -> bool {
                self.0 == Self::NONE.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::NONE
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.is_none() {
                    write!(f, "{}(none)", stringify!($name))
                } else {
                    write!(f, "{}({:#010x})", stringify!($name), self.0)
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#010x}", self.0)
            }
        }
    };
}

tag! {
    /// Initiator Task Tag (RFC 7143 section 11.2.1.8): names a task for the session's lifetime.
    Itt
}
tag! {
    /// Target Transfer Tag (RFC 7143 section 11.7.4): names a transfer at the target.
    Ttt
}

/// SNACK Tag (RFC 7143 section 11.16.4): ties a SCSI Response to the R-Data SNACK it answers. 0 is "none".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SnackTag(pub u32);

/// Logical unit number: the 8 bytes of SAM, byte 0 first, as they travel (RFC 7143 section 11.2.1.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Lun(pub [u8; 8]);

impl Lun {
    /// LUN 0, in peripheral device addressing.
    pub const ZERO: Self = Self([0; 8]);

    /// The single-level LUN `n`: peripheral device addressing below 256, flat space addressing up to 16383
    /// (SAM-5 4.7.7). `None` beyond that.
    #[must_use]
    pub const fn single_level(n: u16) -> Option<Self> {
        let [hi, lo] = n.to_be_bytes();
        match n {
            0..=0xff => Some(Self([0, lo, 0, 0, 0, 0, 0, 0])),
            0x100..=0x3fff => Some(Self([0x40 | hi, lo, 0, 0, 0, 0, 0, 0])),
            _ => None,
        }
    }

    /// The number of a single-level LUN in peripheral device (bus 0) or flat space addressing; `None` for any
    /// other form.
    #[must_use]
    pub const fn to_single_level(self) -> Option<u16> {
        match self.0 {
            [0, lo, 0, 0, 0, 0, 0, 0] => Some(lo as u16),
            [hi @ 0x40..=0x7f, lo, 0, 0, 0, 0, 0, 0] => Some(u16::from_be_bytes([hi & 0x3f, lo])),
            _ => None,
        }
    }
}

impl fmt::Debug for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lun({self})")
    }
}

/// The number of a single-level LUN, else the 8 bytes in hexadecimal.
impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_single_level() {
            Some(n) => write!(f, "{n}"),
            None => write!(f, "{:#018x}", u64::from_be_bytes(self.0)),
        }
    }
}

/// Initiator part of the session identifier (RFC 7143 section 11.12.5), 6 bytes as they travel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Isid(pub [u8; 6]);

/// Format of an [`Isid`], its two type bits (RFC 7143 section 11.12.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IsidKind {
    /// 00b: IEEE OUI and a 24-bit qualifier.
    Oui,
    /// 01b: IANA enterprise number and a 16-bit qualifier.
    Enterprise,
    /// 10b: 24 random bits and a 16-bit qualifier.
    Random,
    /// 11b: reserved; does not decode in a Login Request.
    Reserved,
}

// req: 7143-11.12.5-1, 7143-11.12.5-2
impl Isid {
    /// Type 00b: the 22 bits of an IEEE OUI (without its I/G and U/L bits, the upper 10 bits are ignored) and a
    /// 24-bit qualifier (the upper 8 bits are ignored).
    #[must_use]
    pub const fn oui(oui: u32, qualifier: u32) -> Self {
        let [_, a, b0, b1] = oui.to_be_bytes();
        let [_, c, d0, d1] = qualifier.to_be_bytes();
        Self([a & 0x3f, b0, b1, c, d0, d1])
    }

    /// Type 01b: IANA enterprise number (24 bits, the upper 8 are ignored) and a 16-bit qualifier.
    #[must_use]
    pub const fn enterprise(number: u32, qualifier: u16) -> Self {
        let [_, n0, n1, n2] = number.to_be_bytes();
        let [q0, q1] = qualifier.to_be_bytes();
        Self([0x40, n0, n1, n2, q0, q1])
    }

    /// Type 10b, "random": 24 random bits and a 16-bit qualifier.
    #[must_use]
    pub const fn random(random: [u8; 3], qualifier: u16) -> Self {
        let [q0, q1] = qualifier.to_be_bytes();
        let [r0, r1, r2] = random;
        Self([0x80, r0, r1, r2, q0, q1])
    }

    /// The format, from the two type bits.
    // req: 7143-11.12.5-5
    #[must_use]
    pub const fn kind(self) -> IsidKind {
        let [first, ..] = self.0;
        match first >> 6 {
            0 => IsidKind::Oui,
            1 => IsidKind::Enterprise,
            2 => IsidKind::Random,
            _ => IsidKind::Reserved,
        }
    }
}

impl fmt::Debug for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Isid({self})")
    }
}

/// Twelve hexadecimal digits, as in iSCSI initiator port names (RFC 7143 section 4.2.7.3 note, SPC).
impl fmt::Display for Isid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Target Session Identifying Handle (RFC 7143 section 11.12.6). 0 asks for a new session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct Tsih(pub u16);

impl Tsih {
    /// 0: a session that does not exist yet.
    pub const NEW: Self = Self(0);
}

/// Connection ID: names a connection within its session (RFC 7143 section 11.12.7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord, Debug)]
pub struct Cid(pub u16);
