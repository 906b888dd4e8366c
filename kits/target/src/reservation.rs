//! Reservations of a logical unit: persistent ones (SPC-4 clause 5.12) and those of RESERVE(6) (SPC-2 clause 5.5).
//!
//! This is the state and its rules, without commands and without nexuses: each operation says what became of it, and
//! whom to tell what.

mod store;

pub(crate) use store::Store;

use crate::ports::NexusId;
use scsi_cmd::reservation::PrType;
use scsi_cmd::{Asc, Sense, Status};
use std::collections::{BTreeMap, BTreeSet};

use crate::sequence::Ending;

/// What a command does in the eyes of a reservation (SPC-4 table 50, SBC-3 table 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Allowed under every reservation, those of RESERVE(6) included.
    Always,
    /// Allowed under every persistent reservation.
    Persistent,
    /// Reads: refused by those that exclude reads.
    Read,
    /// Writes, or changes something: refused by all.
    Write,
    /// PERSISTENT RESERVE IN and OUT: the operation itself says.
    Reserving,
}

/// All reservations and registrations of a unit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reservations {
    pub(crate) generation: u32,
    /// APTPL: what follows survives a power loss.
    pub(crate) persist: bool,
    pub(crate) keys: BTreeMap<NexusId, u64>,
    pub(crate) held: Option<Held>,
    /// RESERVE(6).
    pub(crate) legacy: Option<NexusId>,
}

/// A persistent reservation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) pr_type: PrType,
    /// `None`: all registrants.
    pub(crate) by: Option<NexusId>,
}

/// Whom an operation concerns besides its nexus.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Effects {
    /// Unit attention conditions to establish.
    pub(crate) attentions: Vec<(NexusId, Asc)>,
    /// Nexuses whose tasks PREEMPT AND ABORT ends.
    pub(crate) preempted: BTreeSet<NexusId>,
}

type Done = Result<Effects, Ending>;

fn conflict() -> Ending {
    Ending::Status(Status::ReservationConflict)
}

impl Reservations {
    /// Whether anything is reserved, so that commands have to ask.
    pub(crate) fn any(&self) -> bool {
        self.held.is_some() || self.legacy.is_some()
    }

    /// Whether a command of `nexus` is refused with RESERVATION CONFLICT.
    pub(crate) fn conflicts(&self, nexus: &NexusId, access: Access) -> bool {
        if access == Access::Always {
            return false;
        }
        if let Some(legacy) = &self.legacy {
            // SPC-2 clause 5.5.1; PERSISTENT RESERVE conflicts even for the holder.
            return legacy != nexus || access == Access::Reserving;
        }
        let Some(held) = &self.held else { return false };
        let registered = self.keys.contains_key(nexus);
        if self.holds(nexus) || (registered && held.pr_type.registrants_have_access()) {
            return false;
        }
        match access {
            Access::Always | Access::Persistent | Access::Reserving => false,
            Access::Read => held.pr_type.excludes_reads(),
            Access::Write => true,
        }
    }

    /// Whether `nexus` is a holder of the persistent reservation.
    pub(crate) fn holds(&self, nexus: &NexusId) -> bool {
        self.held.as_ref().is_some_and(|held| match &held.by {
            Some(holder) => holder == nexus,
            None => self.keys.contains_key(nexus),
        })
    }

    /// The key under which READ RESERVATION shows the holder: 0 for all registrants.
    pub(crate) fn holder_key(&self) -> u64 {
        let holder = self.held.as_ref().and_then(|h| h.by.as_ref());
        holder.and_then(|nexus| self.keys.get(nexus)).copied().unwrap_or(0)
    }

    /// Every command but REGISTER must come from a registered nexus with its key.
    fn registered(&self, nexus: &NexusId, key: u64) -> Result<(), Ending> {
        if self.keys.get(nexus) == Some(&key) { Ok(()) } else { Err(conflict()) }
    }

    fn others(&self, nexus: &NexusId) -> Vec<NexusId> {
        self.keys.keys().filter(|n| *n != nexus).cloned().collect()
    }

    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// REGISTER, and with `key` `None` REGISTER AND IGNORE EXISTING KEY, of all of `nexuses`, the first being the one
    /// that asks. `new` 0 removes registrations.
    pub(crate) fn register(
        &mut self,
        nexuses: &[NexusId],
        key: Option<u64>,
        new: u64,
        persist: bool,
    ) -> Done {
        let Some(nexus) = nexuses.first() else { return Ok(Effects::default()) };
        if key.is_some_and(|key| self.keys.get(nexus).copied().unwrap_or(0) != key) {
            return Err(conflict());
        }
        let mut effects = Effects::default();
        if new == 0 {
            for nexus in nexuses {
                self.unregister(nexus, &mut effects);
            }
        } else {
            self.keys.extend(nexuses.iter().map(|n| (n.clone(), new)));
        }
        self.persist = persist;
        self.changed();
        Ok(effects)
    }

    /// Removes a registration; a reservation that thereby loses its (last) holder is released (SPC-4 clause 5.12.11.3).
    fn unregister(&mut self, nexus: &NexusId, effects: &mut Effects) {
        if self.keys.remove(nexus).is_none() {
            return;
        }
        let Some(held) = &self.held else { return };
        let lost = match &held.by {
            Some(holder) => holder == nexus,
            None => self.keys.is_empty(),
        };
        if lost {
            if held.pr_type.registrants_have_access() {
                effects
                    .attentions
                    .extend(self.others(nexus).into_iter().map(|n| (n, Asc::RESERVATIONS_RELEASED)));
            }
            self.held = None;
        }
    }

    /// RESERVE.
    pub(crate) fn reserve(&mut self, nexus: &NexusId, key: u64, pr_type: PrType) -> Done {
        self.registered(nexus, key)?;
        match &self.held {
            None => {
                let by = (!pr_type.all_registrants()).then(|| nexus.clone());
                self.held = Some(Held { pr_type, by });
                Ok(Effects::default())
            }
            Some(held) if held.pr_type == pr_type && self.holds(nexus) => Ok(Effects::default()),
            Some(_) => Err(conflict()),
        }
    }

    /// RELEASE.
    pub(crate) fn release(&mut self, nexus: &NexusId, key: u64, pr_type: PrType) -> Done {
        self.registered(nexus, key)?;
        let Some(held) = self.held.as_ref().filter(|_| self.holds(nexus)) else {
            return Ok(Effects::default());
        };
        if held.pr_type != pr_type {
            return Err(Sense::illegal(Asc::INVALID_RELEASE_OF_PERSISTENT_RESERVATION).into());
        }
        let mut effects = Effects::default();
        if pr_type.registrants_have_access() {
            effects
                .attentions
                .extend(self.others(nexus).into_iter().map(|n| (n, Asc::RESERVATIONS_RELEASED)));
        }
        self.held = None;
        Ok(effects)
    }

    /// CLEAR.
    pub(crate) fn clear(&mut self, nexus: &NexusId, key: u64) -> Done {
        self.registered(nexus, key)?;
        let others = self.others(nexus);
        self.keys.clear();
        self.held = None;
        self.changed();
        let attentions = others.into_iter().map(|n| (n, Asc::RESERVATIONS_PREEMPTED)).collect();
        Ok(Effects { attentions, ..Effects::default() })
    }

    /// PREEMPT and PREEMPT AND ABORT (SPC-4 clause 5.12.11.4): `victim` is the SERVICE ACTION RESERVATION KEY.
    pub(crate) fn preempt(&mut self, nexus: &NexusId, key: u64, victim: u64, pr_type: PrType) -> Done {
        self.registered(nexus, key)?;
        let all_registrants = self.held.as_ref().is_some_and(|h| h.by.is_none());
        let takes_over = match &self.held {
            None => false,
            Some(_) if all_registrants => victim == 0,
            Some(_) => victim == self.holder_key(),
        };
        if victim == 0 && !all_registrants {
            return Err(Sense::invalid_parameter(8, None).into());
        }
        let victims: Vec<NexusId> = self
            .keys
            .iter()
            .filter(|(n, k)| *n != nexus && (**k == victim || (all_registrants && victim == 0)))
            .map(|(n, _)| n.clone())
            .collect();
        let preempts_itself = self.keys.get(nexus) == Some(&victim);
        if victims.is_empty() && !takes_over && !preempts_itself {
            return Err(conflict());
        }
        let mut effects = Effects::default();
        for victim in &victims {
            self.keys.remove(victim);
            effects.attentions.push((victim.clone(), Asc::REGISTRATIONS_PREEMPTED));
        }
        effects.preempted.extend(victims);
        if takes_over {
            let old = self.held.take();
            let by = (!pr_type.all_registrants()).then(|| nexus.clone());
            // Registrants that stay are told when their rights change with the type.
            if old.is_some_and(|old| old.pr_type != pr_type) {
                effects
                    .attentions
                    .extend(self.others(nexus).into_iter().map(|n| (n, Asc::RESERVATIONS_RELEASED)));
            }
            self.held = Some(Held { pr_type, by });
        }
        self.changed();
        Ok(effects)
    }

    /// REGISTER AND MOVE: the reservation goes to `to`, registered with `new`.
    pub(crate) fn register_and_move(
        &mut self,
        nexus: &NexusId,
        key: u64,
        to: NexusId,
        new: u64,
        unregister: bool,
        persist: bool,
    ) -> Done {
        self.registered(nexus, key)?;
        match &mut self.held {
            Some(Held { by: Some(holder), .. }) if holder == nexus => *holder = to.clone(),
            _ => return Err(conflict()),
        }
        self.keys.insert(to, new);
        if unregister {
            self.keys.remove(nexus);
        }
        self.persist = persist;
        self.changed();
        Ok(Effects::default())
    }

    /// RESERVE(6) (SPC-2 clause 7.21); there must be no registration (SPC-4 clause 5.12.3).
    pub(crate) fn reserve_legacy(&mut self, nexus: &NexusId) -> Result<(), Ending> {
        if !self.keys.is_empty() || self.legacy.as_ref().is_some_and(|n| n != nexus) {
            return Err(conflict());
        }
        self.legacy = Some(nexus.clone());
        Ok(())
    }

    /// RELEASE(6): of another's reservation it does nothing, and says GOOD.
    pub(crate) fn release_legacy(&mut self, nexus: &NexusId) -> Result<(), Ending> {
        if !self.keys.is_empty() {
            return Err(conflict());
        }
        if self.legacy.as_ref() == Some(nexus) {
            self.legacy = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
