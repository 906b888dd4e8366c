//! Status codes (SAM-5 clause 5.3), and what qualifies them.

use core::fmt;
use core::time::Duration;

crate::codec::code! {
    /// Status of a command (SAM-5 clause 5.3.1).
    Status(u8) {
        /// GOOD.
        0x00 => Good,
        /// CHECK CONDITION: sense data tell what happened.
        0x02 => CheckCondition,
        /// CONDITION MET: PRE-FETCH, and the blocks fit in the cache.
        0x04 => ConditionMet,
        /// BUSY.
        0x08 => Busy,
        /// RESERVATION CONFLICT.
        0x18 => ReservationConflict,
        /// TASK SET FULL.
        0x28 => TaskSetFull,
        /// ACA ACTIVE.
        0x30 => AcaActive,
        /// TASK ABORTED.
        0x40 => TaskAborted,
    }
}

/// What goes with a status: how long to wait before the next command, and for whom (SAM-5 clause 5.3.2). Bits 15 and 14
/// are SCOPE, the others QUALIFIER; 0 says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StatusQualifier(pub u16);

/// What a count in QUALIFIER counts.
const UNIT: Duration = Duration::from_millis(100);

/// The highest count; what lies above are codes.
const MOST: u16 = 0x3fef;

impl StatusQualifier {
    /// Wait this long before the next command to the logical unit: in tenths of a second, rounded up, at least one and
    /// at most 16,367 of them.
    #[must_use]
    pub fn wait(delay: Duration) -> Self {
        let tenths = delay.as_nanos().div_ceil(UNIT.as_nanos());
        Self(u16::try_from(tenths).unwrap_or(MOST).clamp(1, MOST))
    }

    /// SCOPE: 0, the logical unit as this nexus sees it; others concern more.
    #[must_use]
    pub const fn scope(self) -> u8 {
        (self.0 >> 14) as u8
    }

    /// How long to wait before the next command, when this is the qualifier of BUSY or TASK SET FULL and says so.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        let tenths = self.0 & 0x3fff;
        (1..=MOST).contains(&tenths).then(|| UNIT.saturating_mul(tenths.into()))
    }
}

impl fmt::Debug for StatusQualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}h", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAM-5 clause 5.3.2: 0001h to 3FEFh count 100 milliseconds, 3FF0h and above are codes; SCOPE is beside them.
    #[test]
    fn delays_are_counted_in_tenths_of_a_second() {
        let after = |qualifier| StatusQualifier(qualifier).retry_after();
        assert_eq!((after(0), after(0x3ff0), after(0x3ffe), after(0x3fff)), (None, None, None, None));
        assert_eq!((after(0x4000), after(0xffff)), (None, None));
        assert_eq!(after(1), Some(Duration::from_millis(100)));
        assert_eq!((after(0x8019), StatusQualifier(0x8019).scope()), (Some(Duration::from_millis(2500)), 2));
        assert_eq!(after(0x3fef), Some(Duration::from_millis(1_636_700)));
        for (delay, qualifier) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(100), 1),
            (Duration::from_nanos(100_000_001), 2),
            (Duration::from_secs(3), 30),
            (Duration::from_secs(1636), 16_360),
            (Duration::MAX, 0x3fef),
        ] {
            assert_eq!(StatusQualifier::wait(delay), StatusQualifier(qualifier), "{delay:?}");
        }
    }
}
