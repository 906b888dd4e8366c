//! [`Slab`]: the memory that a chunk was cut from, found by the chunk's address.
//!
//! A device that moves data of any pool can have the memory registered (an io_uring's fixed buffers) only if it knows
//! where that begins and ends, and that it stays: a registration that outlives its memory names pages that belong to
//! nobody. Addresses are those of the process, and so is the list of slabs.

use bytes::BytesMut;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, Weak};

/// All slabs of living pools, by their first address.
static SLABS: RwLock<BTreeMap<usize, Slab>> = RwLock::new(BTreeMap::new());

/// A slab of one of this process's [pools](super::SlabPool). Its memory is not freed, and nothing else can come to lie
/// there, as long as this or a clone exists, whatever becomes of the pool.
#[derive(Clone)]
pub struct Slab {
    pub(super) addresses: Range<usize>,
    pool: Weak<()>,
    /// A part of the same allocation.
    _keeper: Arc<BytesMut>,
}

impl Slab {
    /// The slab in which all of `bytes` lie, if its pool exists. Takes a lock and searches: not for every I/O.
    #[must_use]
    pub fn holding(bytes: &[u8]) -> Option<Self> {
        let slabs = SLABS.read().unwrap_or_else(PoisonError::into_inner);
        let (_, slab) = slabs.range(..=bytes.as_ptr() as usize).next_back()?;
        slab.holds(bytes).then(|| slab.clone())
    }

    /// Whether all of `bytes` lie in it.
    #[must_use]
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let start = bytes.as_ptr() as usize;
        let end = start.checked_add(bytes.len());
        start >= self.addresses.start && end.is_some_and(|end| end <= self.addresses.end)
    }

    /// The addresses of its first byte and of the one after its last.
    #[must_use]
    pub fn addresses(&self) -> Range<usize> {
        self.addresses.clone()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether it has no bytes, which does not happen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Whether its pool is gone, all chunks with it: who keeps it keeps memory that nobody uses.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.pool.strong_count() == 0
    }
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab({} B)", self.len())
    }
}

/// A pool's slabs in the list, which they leave with it.
#[derive(Default)]
pub(super) struct Listed {
    pool: Arc<()>,
    starts: Vec<usize>,
}

impl Listed {
    /// `keeper` is a part of the same allocation.
    pub(super) fn add(&mut self, slab: &[u8], keeper: BytesMut) {
        let start = slab.as_ptr() as usize;
        let addresses = start..start.saturating_add(slab.len());
        let slab = Slab { addresses, pool: Arc::downgrade(&self.pool), _keeper: Arc::new(keeper) };
        self.starts.push(start);
        SLABS.write().unwrap_or_else(PoisonError::into_inner).insert(start, slab);
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let gone: Vec<Slab> = {
            let mut slabs = SLABS.write().unwrap_or_else(PoisonError::into_inner);
            self.starts.iter().filter_map(|start| slabs.remove(start)).collect()
        };
        // Memory is freed without the lock.
        drop(gone);
    }
}
