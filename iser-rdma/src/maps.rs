//! Local and Remote Mappings: which STags belong to a task (RFC 7145 sections 7.3.1 to 7.3.6).

use crate::{RemoteBuf, Stag, WrId};
use datamover::{SgList, SgListMut};
use iscsi_pdu::Itt;
use std::collections::HashMap;

/// Initiator: the Local Mapping of a task, its STags and what to give back with them.
#[derive(Debug, Default)]
pub(crate) struct LocalTask {
    /// Read STag: the peer writes there.
    pub(crate) read: Option<Stag>,
    /// Write STag: the peer reads there.
    pub(crate) write: Option<Stag>,
    /// The output as it was handed down.
    pub(crate) out: Option<Box<SgList>>,
    /// What the input was handed down in, empty meanwhile.
    pub(crate) in_box: Option<Box<SgListMut>>,
    /// The input as it was handed down, when other memory was advertised for it.
    pub(crate) bounced_in: Option<SgListMut>,
    /// The input, once its STag is invalid.
    pub(crate) taken_in: Option<SgListMut>,
}

impl LocalTask {
    /// Whether one of its STags is `stag`.
    pub(crate) fn has(&self, stag: Stag) -> bool {
        self.read == Some(stag) || self.write == Some(stag)
    }
}

/// Target: the Remote Mapping of a task.
#[derive(Debug)]
pub(crate) struct RemoteTask {
    /// Tells tasks with the same ITT apart.
    pub(crate) serial: u64,
    /// Read STag and Base Offset.
    pub(crate) read: Option<RemoteBuf>,
    /// Bytes behind the Read STag.
    pub(crate) read_len: u32,
    /// Write STag and Base Offset.
    pub(crate) write: Option<RemoteBuf>,
    /// Bytes of the output.
    pub(crate) write_len: u32,
    /// Bytes of the output that lie before the Base Offset.
    pub(crate) write_skip: u32,
    /// Get_Data transfers that are not complete.
    pub(crate) gets: u32,
    /// Deallocate_Task_Resources was called: what comes back is kept for its answer.
    pub(crate) ending: bool,
    /// What came back meanwhile.
    pub(crate) reclaimed: Vec<(u32, SgListMut)>,
}

/// Tasks by Initiator Task Tag.
#[derive(Debug)]
pub(crate) struct Tasks<T>(HashMap<Itt, T>);

impl<T> Default for Tasks<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Tasks<T> {
    pub(crate) fn get(&self, itt: Itt) -> Option<&T> {
        self.0.get(&itt)
    }

    pub(crate) fn get_mut(&mut self, itt: Itt) -> Option<&mut T> {
        self.0.get_mut(&itt)
    }

    pub(crate) fn insert(&mut self, itt: Itt, task: T) -> Option<T> {
        self.0.insert(itt, task)
    }

    pub(crate) fn remove(&mut self, itt: Itt) -> Option<T> {
        self.0.remove(&itt)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn drain(&mut self) -> Vec<(Itt, T)> {
        self.0.drain().collect()
    }
}

/// Slots named by small numbers.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, item: T) -> usize {
        match self.free.pop() {
            Some(at) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    *slot = Some(item);
                }
                at
            }
            None => {
                self.slots.push(Some(item));
                self.slots.len().saturating_sub(1)
            }
        }
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.slots.get(at)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.slots.get_mut(at)?.as_mut()
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<T> {
        let item = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        Some(item)
    }

    /// Slots in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.free.clear();
        self.slots.drain(..).flatten()
    }
}

impl<T> Slab<T> {
    /// The slot that a work request's name stands for.
    pub(crate) fn slot(id: WrId) -> usize {
        usize::try_from(id.0).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab.get(a), slab.get(b)), (Some(&'c'), Some(&'b')));
        assert_eq!(slab.drain().collect::<String>(), "cb");
        assert_eq!(slab.get(b), None);
    }
}
