//! Unit attention conditions of one I_T nexus at one logical unit (SAM-5 clause 5.14).

use scsi_cmd::{Asc, Sense, SenseKey};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The conditions that wait to be reported, most important first. Looking whether there are any takes no lock.
#[derive(Debug, Default)]
pub(crate) struct UnitAttentions {
    pending: AtomicBool,
    queue: Mutex<Vec<Asc>>,
}

/// More than the kinds of conditions that this device server knows: none is ever lost.
const MOST: usize = 32;

/// SAM-5 table 44: the lower, the more important. Those of rank 0 to 4 make the ones behind them pointless, since the
/// initiator has to look at everything anew.
fn rank(asc: Asc) -> u8 {
    match asc {
        Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED | Asc::POWER_ON_OCCURRED => 0,
        Asc::SCSI_BUS_RESET_OCCURRED => 1,
        Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED => 2,
        Asc::DEVICE_INTERNAL_RESET => 3,
        Asc::I_T_NEXUS_LOSS_OCCURRED => 4,
        _ => 5,
    }
}

impl UnitAttentions {
    fn queue(&self) -> MutexGuard<'_, Vec<Asc>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A condition arises. One that is pending already is not reported twice; a reset clears lesser ones.
    pub(crate) fn establish(&self, asc: Asc) {
        let mut queue = self.queue();
        if queue.contains(&asc) {
            return;
        }
        let new = rank(asc);
        if new < 5 {
            if queue.iter().any(|old| rank(*old) < new) {
                return;
            }
            // Reported afresh after the reset: the LUN inventory and the capacity may have changed before it.
            queue.retain(|old| {
                matches!(*old, Asc::REPORTED_LUNS_DATA_HAS_CHANGED | Asc::CAPACITY_DATA_HAS_CHANGED)
            });
            queue.insert(0, asc);
        } else if queue.len() < MOST {
            queue.push(asc);
        }
        self.pending.store(true, Ordering::Release);
    }

    /// Whether a condition is pending.
    pub(crate) fn any(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// The most important condition, which is thereby reported and cleared.
    pub(crate) fn take(&self) -> Option<Sense> {
        if !self.any() {
            return None;
        }
        let mut queue = self.queue();
        let asc = (!queue.is_empty()).then(|| queue.remove(0));
        self.pending.store(!queue.is_empty(), Ordering::Release);
        asc.map(|asc| Sense::new(SenseKey::UnitAttention, asc))
    }

    /// The most important condition, without clearing it.
    pub(crate) fn peek(&self) -> Option<Asc> {
        self.queue().first().copied()
    }

    /// Clears one kind of condition, as REPORT LUNS does for REPORTED LUNS DATA HAS CHANGED.
    pub(crate) fn clear(&self, asc: Asc) {
        if self.any() {
            let mut queue = self.queue();
            queue.retain(|a| *a != asc);
            self.pending.store(!queue.is_empty(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(ua: &UnitAttentions) -> Vec<Asc> {
        std::iter::from_fn(|| ua.take()).map(|s| s.asc).collect()
    }

    #[test]
    fn reported_once_in_order() {
        let ua = UnitAttentions::default();
        ua.establish(Asc::MODE_PARAMETERS_CHANGED);
        ua.establish(Asc::CAPACITY_DATA_HAS_CHANGED);
        ua.establish(Asc::MODE_PARAMETERS_CHANGED);
        assert_eq!(take_all(&ua), [Asc::MODE_PARAMETERS_CHANGED, Asc::CAPACITY_DATA_HAS_CHANGED]);
        assert!(!ua.any());
    }

    #[test]
    fn a_reset_comes_first_and_makes_others_pointless() {
        let ua = UnitAttentions::default();
        ua.establish(Asc::MODE_PARAMETERS_CHANGED);
        ua.establish(Asc::I_T_NEXUS_LOSS_OCCURRED);
        ua.establish(Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
        ua.establish(Asc::I_T_NEXUS_LOSS_OCCURRED);
        ua.establish(Asc::RESERVATIONS_PREEMPTED);
        assert_eq!(take_all(&ua), [Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED, Asc::RESERVATIONS_PREEMPTED]);
    }

    #[test]
    fn one_kind_can_be_cleared() {
        let ua = UnitAttentions::default();
        ua.establish(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
        ua.clear(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
        assert!(!ua.any() && ua.take().is_none());
    }
}
