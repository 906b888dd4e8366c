//! Status codes (SAM-5 clause 5.3).

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
