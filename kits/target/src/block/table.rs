//! A sparse table by number: leaves of neighbouring entries under a B-tree.
//!
//! No hash: which blocks are used is the initiator's choice, and it could choose them so that they collide.

use std::collections::BTreeMap;

/// Entries of one leaf.
const LEAF: usize = 64;

#[derive(Debug)]
pub(super) struct Table<T> {
    leaves: BTreeMap<u64, Leaf<T>>,
    len: usize,
}

#[derive(Debug)]
struct Leaf<T> {
    entries: Box<[Option<T>; LEAF]>,
    used: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { leaves: BTreeMap::new(), len: 0 }
    }
}

fn split(index: u64) -> (u64, usize) {
    (index / LEAF as u64, (index % LEAF as u64) as usize)
}

impl<T: Default> Table<T> {
    /// Entries that are there.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, index: u64) -> Option<&T> {
        let (leaf, at) = split(index);
        self.leaves.get(&leaf)?.entries[at].as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u64) -> Option<&mut T> {
        let (leaf, at) = split(index);
        self.leaves.get_mut(&leaf)?.entries[at].as_mut()
    }

    /// The entry, made if it is not there.
    pub(super) fn entry(&mut self, index: u64) -> &mut T {
        let (leaf, at) = split(index);
        let leaf = self
            .leaves
            .entry(leaf)
            .or_insert_with(|| Leaf { entries: Box::new(std::array::from_fn(|_| None)), used: 0 });
        if leaf.entries[at].is_none() {
            leaf.used += 1;
            self.len += 1;
        }
        leaf.entries[at].get_or_insert_default()
    }

    pub(super) fn remove(&mut self, index: u64) {
        let (number, at) = split(index);
        let Some(leaf) = self.leaves.get_mut(&number) else { return };
        if leaf.entries[at].take().is_some() {
            leaf.used -= 1;
            self.len -= 1;
        }
        if leaf.used == 0 {
            self.leaves.remove(&number);
        }
    }

    /// Changes every entry.
    pub(super) fn for_each(&mut self, change: impl FnMut(&mut T)) {
        self.leaves.values_mut().flat_map(|leaf| leaf.entries.iter_mut().flatten()).for_each(change);
    }

    /// Keeps the entries for whose index `keep` holds.
    pub(super) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.leaves.retain(|number, leaf| {
            for (index, entry) in (number * LEAF as u64..).zip(leaf.entries.iter_mut()) {
                if entry.is_some() && !keep(index) {
                    *entry = None;
                    leaf.used -= 1;
                    self.len -= 1;
                }
            }
            leaf.used > 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(ops in proptest::collection::vec((0..3u8, 0..300u64), 1..200)) {
            let (mut table, mut map) = (Table::<u64>::default(), BTreeMap::new());
            for (n, (op, index)) in (1..).zip(ops) {
                match op {
                    0 => {
                        *table.entry(index) = n;
                        map.insert(index, n);
                    }
                    1 => {
                        table.remove(index);
                        map.remove(&index);
                    }
                    _ => {
                        table.retain(|i| i % 7 != index % 7);
                        map.retain(|i, _| i % 7 != index % 7);
                    }
                }
                prop_assert_eq!(table.len(), map.len());
                for i in 0..300 {
                    prop_assert_eq!(table.get(i), map.get(&i));
                    prop_assert_eq!(table.get_mut(i), map.get_mut(&i));
                }
            }
            table.retain(|_| false);
            prop_assert!(table.leaves.is_empty());
        }
    }
}
