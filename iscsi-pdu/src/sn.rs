//! Serial numbers with the arithmetic of RFC 1982, `SERIAL_BITS = 32` (RFC 7143 section 4.2.2.1).

use core::fmt;

/// Half of the number space: the distance at which RFC 1982 leaves the order undefined.
const HALF: u32 = 1 << 31;

macro_rules! serial {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Order is that of RFC 1982 section 3.2, hence no `Ord`: it is not transitive over the whole ring.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u32);

        impl $name {
            /// The next number; wraps from 2^32 - 1 to 0.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.wrapping_add(1))
            }

            /// The number before; wraps from 0 to 2^32 - 1.
            #[must_use]
            pub const fn prev(self) -> Self {
                Self(self.0.wrapping_sub(1))
            }

            /// This number advanced by `n` (meaningful in RFC 1982 for `n` below 2^31).
            #[must_use]
            pub const fn advance(self, n: u32) -> Self {
                Self(self.0.wrapping_add(n))
            }

            /// How far `self` lies after `earlier`, modulo 2^32.
            #[must_use]
            pub const fn distance_from(self, earlier: Self) -> u32 {
                self.0.wrapping_sub(earlier.0)
            }

            /// RFC 1982 "less than". Two numbers exactly 2^31 apart precede neither way.
            #[must_use]
            pub const fn precedes(self, other: Self) -> bool {
                let d = other.0.wrapping_sub(self.0);
                d != 0 && d < HALF
            }

            /// RFC 1982 "less than or equal".
            #[must_use]
            pub const fn precedes_or_is(self, other: Self) -> bool {
                self.0 == other.0 || self.precedes(other)
            }

            /// Whether `self` lies in `first..=last` walked upwards from `first`.
            ///
            /// `last == first - 1` is the empty window (RFC 7143 section 4.2.2.1: MaxCmdSN = ExpCmdSN - 1
            /// closes the window).
            #[must_use]
            pub const fn in_window(self, first: Self, last: Self) -> bool {
                let width = last.0.wrapping_sub(first.0).wrapping_add(1);
                width < HALF && self.0.wrapping_sub(first.0) < width
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<u32> for $name {
            fn from(n: u32) -> Self {
                Self(n)
            }
        }
    };
}

serial! {
    /// Command Sequence Number: session-wide order of commands (RFC 7143 section 4.2.2.1). Also the type of
    /// ExpCmdSN, MaxCmdSN and RefCmdSN.
    CmdSn
}
serial! {
    /// Status Sequence Number: per connection (RFC 7143 section 4.2.2.2). Also the type of ExpStatSN.
    StatSn
}
serial! {
    /// Data Sequence Number: per command for Data-In, per sequence for Data-Out (RFC 7143 section 4.2.2.4).
    /// Also the type of ExpDataSN.
    DataSn
}
serial! {
    /// R2T Sequence Number: per command (RFC 7143 section 4.2.2.4).
    R2tSn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_at_the_wrap() {
        // RFC 1982 section 3.2, SERIAL_BITS = 32; section 5.1 of it has the like for 2 and 8 bits.
        for (a, b, precedes) in [
            (0, 1, true),
            (u32::MAX, 0, true),
            (0, u32::MAX, false),
            (0, HALF - 1, true),
            (0, HALF, false),
            (HALF, 0, false),
            (0, HALF + 1, false),
            (0xffff_ff00, 0x10, true),
            (7, 7, false),
        ] {
            assert_eq!(CmdSn(a).precedes(CmdSn(b)), precedes, "{a} {b}");
        }
        assert_eq!((StatSn(u32::MAX).next(), StatSn(0).prev()), (StatSn(0), StatSn(u32::MAX)));
    }

    #[test]
    fn windows_of_commands() {
        let within = |n, first, last| CmdSn(n).in_window(CmdSn(first), CmdSn(last));
        assert!(within(5, 5, 5) && !within(4, 5, 5) && !within(6, 5, 5));
        assert!(!within(5, 5, 4), "closed: MaxCmdSN = ExpCmdSN - 1");
        assert!(
            within(0, 0xffff_fffe, 1) && within(0xffff_fffe, 0xffff_fffe, 1) && !within(2, 0xffff_fffe, 1)
        );
        // RFC 7143 section 4.2.2.1: MaxCmdSN less than ExpCmdSN - 1 is no window, and nothing lies in it.
        assert!(!within(5, 5, 3) && !within(4, 5, 3) && !within(3, 5, 3));
        assert!(within(HALF - 2, 0, HALF - 2) && !within(0, 0, HALF - 1), "half the ring is too wide");
    }
}
