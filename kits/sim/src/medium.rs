//! What all sessions of the target share: the blocks, a volatile cache over them, and who did what.

use crate::rng::Rng;
use crate::shadow::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The blocks, as the writes that they hold.
pub(crate) struct Medium {
    blocks: Vec<Stamp>,
    /// Blocks of the cache that the medium does not have: what the medium has, and what the cache had on the way.
    unflushed: BTreeMap<u32, Vec<Stamp>>,
    executions: BTreeMap<u64, u32>,
    completed: BTreeSet<u64>,
    /// What went wrong at the disk.
    pub(crate) faults: Vec<String>,
    /// Resets of the logical unit, which end other nexuses' commands too.
    pub(crate) resets: u64,
    /// The disk does nothing until then.
    pub(crate) stalled_until: Option<Instant>,
}

#[derive(Clone)]
pub(crate) struct SharedMedium(Arc<Mutex<Medium>>);

impl SharedMedium {
    pub(crate) fn new(blocks: u32) -> Self {
        Self(Arc::new(Mutex::new(Medium {
            blocks: vec![0; blocks as usize],
            unflushed: BTreeMap::new(),
            executions: BTreeMap::new(),
            completed: BTreeSet::new(),
            faults: Vec::new(),
            resets: 0,
            stalled_until: None,
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Medium {
    pub(crate) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub(crate) fn stamp(&self, lba: u32) -> Stamp {
        self.blocks[lba as usize]
    }

    pub(crate) fn write(&mut self, lba: u32, stamp: Stamp, through: bool) {
        let old = std::mem::replace(&mut self.blocks[lba as usize], stamp);
        if through {
            self.unflushed.remove(&lba);
        } else {
            self.unflushed.entry(lba).or_default().push(old);
        }
    }

    pub(crate) fn flush(&mut self, lba: u32, blocks: u32) {
        self.unflushed.retain(|at, _| !(lba..lba + blocks).contains(at));
    }

    /// The cache is lost: of each block that was not flushed, any version since then is left.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for (lba, versions) in std::mem::take(&mut self.unflushed) {
            let choice = rng.index(versions.len() + 1);
            if let Some(stamp) = versions.get(choice) {
                self.blocks[lba as usize] = *stamp;
            }
        }
    }

    /// What a block holds, and what it would hold if the cache were lost now: one of these.
    pub(crate) fn versions(&self, lba: u32) -> impl Iterator<Item = Stamp> {
        let older = self.unflushed.get(&lba).into_iter().flatten();
        older.copied().chain([self.stamp(lba)])
    }

    /// A command is done, and its initiator is to hear GOOD.
    pub(crate) fn complete(&mut self, command: u64) {
        self.completed.insert(command);
    }

    /// Whether it was done.
    pub(crate) fn is_complete(&self, command: u64) -> bool {
        self.completed.contains(&command)
    }

    /// A command is executed, for the n-th time.
    pub(crate) fn count(&mut self, command: u64) -> u32 {
        let n = self.executions.entry(command).or_default();
        *n += 1;
        *n
    }

    /// How often a command was executed.
    pub(crate) fn executions(&self, command: u64) -> u32 {
        self.executions.get(&command).copied().unwrap_or_default()
    }
}
