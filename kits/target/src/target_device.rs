//! A SCSI target device (SAM-5 clause 4.6.4): logical units behind ports.

use crate::nexus::Nexus;
use crate::ports::{InitiatorPort, NexusId, TargetPort};
use crate::unit::LogicalUnit;
use scsi_cmd::Asc;
use scsi_cmd::ports::AccessState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A target device, named by its iSCSI node name.
pub struct TargetDevice {
    name: String,
    inner: RwLock<Inner>,
    /// Counts changes of the inventory, so that a nexus sees at a glance whether to look at it again.
    generation: AtomicU64,
    /// A portal group is in another state than active/optimized: commands have to look which.
    asymmetric: AtomicBool,
}

struct Inner {
    units: BTreeMap<u32, Arc<LogicalUnit>>,
    ports: BTreeSet<TargetPort>,
    /// Access state by portal group; `true` if SET TARGET PORT GROUPS set it, `None` if nobody did.
    access: BTreeMap<u16, (AccessState, Option<bool>)>,
}

/// The logical unit number is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LunInUse;

impl fmt::Display for LunInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("logical unit number in use")
    }
}

impl std::error::Error for LunInUse {}

impl TargetDevice {
    /// A device without logical units, with the ports that it will ever have; with none given, one: relative
    /// identifier 1, portal group 1.
    #[must_use]
    pub fn new(name: impl Into<String>, ports: impl IntoIterator<Item = TargetPort>) -> Arc<Self> {
        let mut ports: BTreeSet<TargetPort> = ports.into_iter().collect();
        if ports.is_empty() {
            ports.insert(TargetPort { relative_id: 1, portal_group: 1 });
        }
        let access = ports.iter().map(|p| (p.portal_group, (AccessState::ActiveOptimized, None))).collect();
        let inner = RwLock::new(Inner { units: BTreeMap::new(), ports, access });
        Arc::new(Self {
            name: name.into(),
            inner,
            generation: AtomicU64::new(1),
            asymmetric: AtomicBool::new(false),
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// iSCSI node name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ports.
    #[must_use]
    pub fn ports(&self) -> Vec<TargetPort> {
        self.read().ports.iter().copied().collect()
    }

    /// Sets the asymmetric access state of a portal group, as the owner of the storage does when paths change; initiators
    /// are told ASYMMETRIC ACCESS STATE CHANGED. `false` when there is no such group.
    pub fn set_access_state(&self, portal_group: u16, state: AccessState) -> bool {
        let known = self.read().access.contains_key(&portal_group);
        if known {
            self.change_access_states(&[(portal_group, state)], false, None);
        }
        known
    }

    pub(crate) fn change_access_states(
        &self,
        states: &[(u16, AccessState)],
        explicit: bool,
        by: Option<&NexusId>,
    ) {
        let mut inner = self.write();
        let mut changed = false;
        for (group, state) in states {
            if let Some(old) = inner.access.get_mut(group) {
                changed |= old.0 != *state;
                *old = (*state, Some(explicit));
            }
        }
        let asymmetric = inner.access.values().any(|(state, _)| *state != AccessState::ActiveOptimized);
        self.asymmetric.store(asymmetric, Ordering::Release);
        if changed {
            for unit in inner.units.values() {
                for view in
                    unit.views().iter().filter(|v| v.nexus.target() == self.name && Some(&v.nexus) != by)
                {
                    view.attentions.establish(Asc::ASYMMETRIC_ACCESS_STATE_CHANGED);
                }
            }
        }
    }

    /// Portal groups with their states and who set them.
    pub(crate) fn port_groups(&self) -> Vec<(u16, AccessState, Option<bool>)> {
        self.read().access.iter().map(|(group, (state, by))| (*group, *state, *by)).collect()
    }

    pub(crate) fn access_state(&self, portal_group: u16) -> AccessState {
        if !self.asymmetric.load(Ordering::Acquire) {
            return AccessState::ActiveOptimized;
        }
        self.read().access.get(&portal_group).map_or(AccessState::ActiveOptimized, |(state, _)| *state)
    }

    /// Adds a logical unit; initiators that are there are told REPORTED LUNS DATA HAS CHANGED.
    ///
    /// # Errors
    /// [`LunInUse`].
    pub fn add_unit(&self, lun: u32, unit: Arc<LogicalUnit>) -> Result<(), LunInUse> {
        let mut inner = self.write();
        if inner.units.contains_key(&lun) {
            return Err(LunInUse);
        }
        inner.units.insert(lun, unit);
        self.changed(&inner);
        Ok(())
    }

    /// Removes a logical unit, whose tasks end; initiators are told. `None` when there is none.
    pub fn remove_unit(&self, lun: u32) -> Option<Arc<LogicalUnit>> {
        let mut inner = self.write();
        let unit = inner.units.remove(&lun)?;
        self.changed(&inner);
        Some(unit)
    }

    fn changed(&self, inner: &Inner) {
        self.generation.fetch_add(1, Ordering::Release);
        for unit in inner.units.values() {
            for view in unit.views().iter().filter(|v| v.nexus.target() == self.name) {
                view.attentions.establish(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
                // Its driver looks at the inventory, and ends the tasks of a unit that is gone.
                std::task::Wake::wake_by_ref(&view.mailbox);
            }
        }
    }

    /// The logical unit with this number.
    #[must_use]
    pub fn unit(&self, lun: u32) -> Option<Arc<LogicalUnit>> {
        self.read().units.get(&lun).cloned()
    }

    /// All logical units by number.
    #[must_use]
    pub fn units(&self) -> BTreeMap<u32, Arc<LogicalUnit>> {
        self.read().units.clone()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A new I_T nexus: the device server for one session.
    #[must_use]
    pub fn nexus(self: &Arc<Self>, initiator: InitiatorPort, port: TargetPort, protocol_level: u8) -> Nexus {
        Nexus::new(self.clone(), NexusId::new(initiator, self.name.clone(), port), protocol_level)
    }
}

impl fmt::Debug for TargetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetDevice({}, {} units)", self.name, self.read().units.len())
    }
}
