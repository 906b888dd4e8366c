//! A new configuration for nodes that are served.
//!
//! ```text
//!   plan:  open what is new ── an error ──▶ nothing has changed
//!     │
//!   apply: change the inventories of the devices, then the table that logins are answered from
//! ```
//! A unit stays, with its tasks, reservations and modes, while its configuration differs in its size at most. One whose
//! configuration differs otherwise is replaced: initiators see a unit that was powered on.

use super::unit::{Served, tag_file};
use super::{Node, NodeError, Nodes, Table, alias, device, in_use, numbered};
use crate::config::{Backing, Config, LunConfig, TargetConfig};
use crate::server::Change;
use crate::{LogicalUnit, LunInUse, TargetPort};
use iscsi_login::IscsiName;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};

/// What a new configuration has changed.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) changes: Vec<Change>,
    /// Units that are served no more: of targets that stay, to be flushed.
    pub(crate) removed: Vec<Arc<LogicalUnit>>,
    /// Targets that are served no more. Their units go when their sessions have ended.
    pub(crate) gone: Vec<Arc<Node>>,
}

/// What becomes of a unit.
enum Step {
    Keep(LunConfig),
    Open(Served),
}

/// What becomes of a target.
struct Plan {
    config: TargetConfig,
    old: Option<Arc<Node>>,
    units: BTreeMap<u32, Step>,
}

impl Nodes {
    /// Serves what `config` says. Opens files, so it is for a thread that may wait.
    ///
    /// # Errors
    /// The unit that cannot be served; then nothing has changed.
    pub(crate) fn reload(&self, config: Config) -> Result<Applied, NodeError> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table();
        let plans = config
            .targets
            .into_iter()
            .map(|target| Plan::make(&old, target))
            .collect::<Result<Vec<_>, _>>()?;
        let mut applied = Applied::default();
        let mut nodes = BTreeMap::new();
        for plan in plans {
            nodes.insert(plan.config.name.clone(), Arc::new(plan.apply(&self.ports, &mut applied)));
        }
        for (name, node) in old.nodes.iter().filter(|(name, _)| !nodes.contains_key(*name)) {
            applied.changes.push(Change::TargetRemoved { target: name.clone() });
            applied.gone.push(node.clone());
        }
        let table = Arc::new(Table { nodes, discovery_chap: config.discovery_chap });
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(applied)
    }

    /// Looks at the sizes of all backends again, and tells initiators of those that have changed.
    pub(crate) fn rescan(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for node in self.all() {
            for (lun, unit) in node.device.units() {
                if unit.rescan() {
                    let target = node.config.name.clone();
                    changes.push(Change::UnitResized { target, lun, blocks: unit.blocks() });
                }
            }
        }
        changes
    }

    /// Whether an initiator may have a session with a target.
    pub(crate) fn admits(&self, target: &IscsiName, initiator: &IscsiName) -> bool {
        self.table().nodes.get(target).is_some_and(|node| node.allows(initiator))
    }
}

/// Files have one unit at a time: with two, what one caches or marks would be wrong for the other.
fn in_use_by(table: &Table, lun: &LunConfig) -> Option<io::Error> {
    let path = |config: &LunConfig| match &config.backing {
        Backing::Path { path, .. } => Some(path.canonicalize().unwrap_or_else(|_| path.clone())),
        _ => None,
    };
    let (file, tags) = (path(lun), tag_file(lun));
    let uses = |config: &LunConfig| {
        (file.is_some() && path(config) == file) || (tags.is_some() && tag_file(config) == tags)
    };
    table.nodes.values().find_map(|node| {
        let (number, served) = node.units.iter().find(|(_, served)| uses(&served.config))?;
        let what = format!(
            "its file is in use by LUN {number} of {}, which is to go first: leave both out, reload, then put the new \
             one in and reload again",
            node.config.name
        );
        (!(lun.read_only && served.config.read_only)).then(|| io::Error::new(io::ErrorKind::ResourceBusy, what))
    })
}

impl Plan {
    /// Opens what is new.
    fn make(table: &Table, config: TargetConfig) -> Result<Self, NodeError> {
        let old = table.nodes.get(&config.name).cloned();
        let mut units = BTreeMap::new();
        for (number, lun) in numbered(&config)? {
            let fail = |source| NodeError { target: config.name.clone(), lun: number, source };
            let served = old.as_ref().and_then(|node| node.units.get(&number));
            if served.is_some_and(|served| served.can_become(&lun)) {
                units.insert(number, Step::Keep(lun));
                continue;
            }
            // One that the configuration does not know was added by the program.
            let here = old.as_ref().is_some_and(|node| node.device.unit(number).is_some());
            if here && served.is_none() {
                return Err(fail(in_use(LunInUse)));
            }
            if let Some(in_use) = in_use_by(table, &lun) {
                return Err(fail(in_use));
            }
            units.insert(number, Step::Open(Served::open(&config.name, number, &lun).map_err(fail)?));
        }
        Ok(Self { config, old, units })
    }

    /// Changes the device.
    fn apply(self, ports: &[TargetPort], applied: &mut Applied) -> Node {
        let target = self.config.name.clone();
        let (device, mut before) = match &self.old {
            Some(node) => (node.device.clone(), node.units.clone()),
            None => {
                applied.changes.push(Change::TargetAdded { target: target.clone() });
                (device(&self.config, ports), BTreeMap::new())
            }
        };
        let mut units = BTreeMap::new();
        for lun in before.keys().filter(|lun| !self.units.contains_key(lun)) {
            applied.removed.extend(device.remove_unit(*lun));
            applied.changes.push(Change::UnitRemoved { target: target.clone(), lun: *lun });
        }
        for (lun, step) in self.units {
            let target = target.clone();
            match (step, before.remove(&lun)) {
                (Step::Keep(config), Some(mut served)) => {
                    if served.resize(config) {
                        let blocks = served.unit.blocks();
                        applied.changes.push(Change::UnitResized { target, lun, blocks });
                    }
                    units.insert(lun, served);
                }
                (Step::Open(served), old) => {
                    let replaced = device.remove_unit(lun);
                    // The number is free: nobody but a reload gives numbers of the configuration away.
                    let _ = device.add_unit(lun, served.unit.clone());
                    applied.removed.extend(replaced);
                    applied.changes.push(match old {
                        Some(_) => Change::UnitReplaced { target, lun },
                        None => Change::UnitAdded { target, lun },
                    });
                    units.insert(lun, served);
                }
                // What is kept was there before.
                (Step::Keep(_), None) => {}
            }
        }
        Node { alias: alias(&self.config), config: self.config, device, units }
    }
}
