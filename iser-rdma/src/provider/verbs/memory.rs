//! Registered memory: the slabs of the pools, and regions for one use.

use super::ffi;
use super::object::{Mr, Pd};
use datamover::{BufPool, PoolConfig, SlabObserver, SlabPool};
use libc::c_int;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

/// Regions over the slabs of one pool.
pub(super) struct Registry {
    pd: Arc<Pd>,
    access: c_int,
    slabs: RwLock<Vec<Slab>>,
}

struct Slab {
    start: usize,
    len: usize,
    mr: Mr,
}

/// How memory of a pool is reached.
#[derive(Clone, Copy)]
pub(super) struct Local {
    pub(super) lkey: u32,
    pub(super) mr: *mut ffi::Mr,
}

impl Registry {
    /// The region that all of `memory` lies in.
    pub(super) fn find(&self, start: usize, len: usize) -> Option<Local> {
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        let slab = slabs.iter().find(|s| {
            start
                .checked_sub(s.start)
                .is_some_and(|from| from.checked_add(len).is_some_and(|end| end <= s.len))
        })?;
        Some(Local { lkey: slab.mr.lkey(), mr: slab.mr.as_ptr() })
    }
}

/// The pool keeps this until its last chunk is back, and drops it before the memory: the regions go first.
struct Observer(Arc<Registry>);

impl SlabObserver for Observer {
    fn slab_added(&self, slab: &mut [u8]) -> bool {
        let (start, len) = (slab.as_ptr() as usize, slab.len());
        // SAFETY: the pool keeps the slab in place until after this observer, and with it the region, is dropped. Its
        // chunks are handed to the device one owner at a time.
        let mr = unsafe { Mr::new(self.0.pd.clone(), slab.as_mut_ptr(), len, self.0.access) };
        match mr {
            Ok(mr) => {
                let mut slabs = self.0.slabs.write().unwrap_or_else(PoisonError::into_inner);
                slabs.push(Slab { start, len, mr });
                true
            }
            Err(_) => false,
        }
    }
}

/// A pool of registered memory.
pub(super) struct Registered {
    pub(super) registry: Arc<Registry>,
    pub(super) pool: Arc<dyn BufPool>,
}

impl Registered {
    pub(super) fn new(pd: Arc<Pd>, access: c_int, config: PoolConfig) -> Self {
        let registry = Arc::new(Registry { pd, access, slabs: RwLock::new(Vec::new()) });
        let pool = SlabPool::with_observer(config, Box::new(Observer(registry.clone())));
        Self { registry, pool: Arc::new(pool) }
    }

    /// Whether memory can be had at all: the first slab is registered now, and what goes wrong is told.
    pub(super) fn try_out(&self) -> io::Result<()> {
        match self.pool.alloc(1) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }
}
