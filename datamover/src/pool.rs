//! [`SlabPool`]: buffers for task data, cut from a few large slabs.
//!
//! ```text
//!   slab (one allocation, zeroed once, registered once)     free lists, one a chunk length
//!   ┌──────┬──────┬──────┬──────┐                            4 KiB:  ▢ ▢ ▢ ▢ ▢ ▢
//!   │chunk │chunk │chunk │chunk │  ── split into chunks ──▶ 16 KiB:  ▢ ▢
//!   └──────┴──────┴──────┴──────┘                           64 KiB:  ▢
//! ```
//! A chunk is a unique handle on its part of the slab, so there is no `unsafe` here, and its address never changes.
//! Chunks of whole pages begin on a page, so that files can be read into them past the system's cache. Whoever gets a
//! chunk of an unknown pool and wants its memory registered asks for its [`Slab`].

mod slab;

pub use slab::Slab;

use crate::{BufPool, IoBuf, Recycle, SgListMut};
use bytes::BytesMut;
use slab::Listed;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How a [`SlabPool`] is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Lengths of the chunks in bytes. Zeros are left out; order does not matter.
    pub chunk_lens: Vec<usize>,
    /// Length of a slab in bytes; a slab holds one chunk at least.
    pub slab_len: usize,
    /// Bytes that all slabs together may take. The pool never grows beyond this.
    pub max_bytes: usize,
}

impl Default for PoolConfig {
    /// Chunks of 4, 16, 64 and 256 KiB in slabs of 1 MiB, 64 MiB in total.
    fn default() -> Self {
        Self {
            chunk_lens: vec![4 << 10, 16 << 10, 64 << 10, 256 << 10],
            slab_len: 1 << 20,
            max_bytes: 64 << 20,
        }
    }
}

impl PoolConfig {
    /// The same with another limit.
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }
}

/// Told of each slab before its first chunk is used, so that a transport can register the memory.
///
/// The pool keeps the observer until after the last chunk came back, and drops it before the memory: whatever it
/// registered, its own drop may release.
pub trait SlabObserver: Send + Sync {
    /// A new slab. `false` refuses it: the memory is given up and the allocation fails.
    fn slab_added(&self, slab: &mut [u8]) -> bool;
}

/// A pool of fixed-size chunks in lazily allocated slabs, bounded in bytes. Clones share the pool.
#[derive(Clone)]
pub struct SlabPool(Arc<Inner>);

struct Inner {
    /// Dropped before the free lists, see [`SlabObserver`].
    observer: Option<Box<dyn SlabObserver>>,
    lists: Mutex<Lists>,
    longest: usize,
    slab_len: usize,
    max_bytes: usize,
}

struct Lists {
    /// By ascending chunk length.
    classes: Vec<Class>,
    slab_bytes: usize,
    outstanding: usize,
    /// The slabs can be found until the pool goes.
    listed: Listed,
}

struct Class {
    chunk_len: usize,
    free: Vec<BytesMut>,
}

impl SlabPool {
    /// An empty pool; memory is allocated when it is first needed.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        Self::build(config, None)
    }

    /// The same, with someone to be told of each slab.
    #[must_use]
    pub fn with_observer(config: PoolConfig, observer: Box<dyn SlabObserver>) -> Self {
        Self::build(config, Some(observer))
    }

    fn build(config: PoolConfig, observer: Option<Box<dyn SlabObserver>>) -> Self {
        let mut lens = config.chunk_lens;
        lens.retain(|len| *len > 0);
        lens.sort_unstable();
        lens.dedup();
        let longest = lens.last().copied().unwrap_or_default();
        let classes = lens.into_iter().map(|chunk_len| Class { chunk_len, free: Vec::new() }).collect();
        Self(Arc::new(Inner {
            observer,
            lists: Mutex::new(Lists { classes, slab_bytes: 0, outstanding: 0, listed: Listed::default() }),
            longest,
            slab_len: config.slab_len,
            max_bytes: config.max_bytes,
        }))
    }

    /// Bytes of all slabs allocated so far.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.0.lists().slab_bytes
    }
}

impl Default for SlabPool {
    fn default() -> Self {
        Self::new(PoolConfig::default())
    }
}

impl fmt::Debug for SlabPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.0.lists();
        write!(f, "SlabPool({} B in slabs, {} chunks out)", lists.slab_bytes, lists.outstanding)
    }
}

impl BufPool for SlabPool {
    fn alloc(&self, len: usize) -> Option<SgListMut> {
        let mut list = SgListMut::new();
        let mut lists = self.0.lists();
        let mut left = len;
        while left > 0 {
            let Some(chunk) = lists.take(left, &self.0) else {
                // What was taken goes home when `list` is dropped, which takes the lock.
                drop(lists);
                return None;
            };
            let part = IoBuf::from_chunk(chunk, left, self.0.clone());
            left = left.saturating_sub(part.len());
            list.push(part);
        }
        Some(list)
    }

    fn chunk_len(&self) -> usize {
        self.0.longest
    }

    fn outstanding(&self) -> usize {
        self.0.lists().outstanding
    }
}

impl Inner {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recycle for Inner {
    fn recycle(&self, chunk: BytesMut) {
        let mut lists = self.lists();
        lists.outstanding = lists.outstanding.saturating_sub(1);
        if let Some(class) = lists.classes.iter_mut().find(|c| c.chunk_len == chunk.len()) {
            class.free.push(chunk);
        }
    }
}

impl Lists {
    /// A chunk for `len` bytes: the shortest that holds them all, else the longest there is. When that length is
    /// used up and no slab may be added, a longer one, then a shorter one.
    fn take(&mut self, len: usize, pool: &Inner) -> Option<BytesMut> {
        let fit = self.classes.iter().position(|c| c.chunk_len >= len);
        let best = fit.unwrap_or(self.classes.len().saturating_sub(1));
        let chunk = self.pop(best).or_else(|| self.grow(best, pool)).or_else(|| {
            let longer = best.saturating_add(1)..self.classes.len();
            longer.chain((0..best).rev()).find_map(|i| self.pop(i))
        })?;
        self.outstanding = self.outstanding.saturating_add(1);
        Some(chunk)
    }

    fn pop(&mut self, class: usize) -> Option<BytesMut> {
        self.classes.get_mut(class)?.free.pop()
    }

    /// Adds a slab (a shorter one at the limit) to a class, and takes its first chunk.
    fn grow(&mut self, class: usize, pool: &Inner) -> Option<BytesMut> {
        let Self { classes, listed, .. } = self;
        let class = classes.get_mut(class)?;
        let room = pool.max_bytes.saturating_sub(self.slab_bytes).min(pool.slab_len.max(class.chunk_len));
        let chunks = room.checked_div(class.chunk_len)?;
        if chunks == 0 {
            return None;
        }
        let (mut slab, keeper) = zeroed_slab(chunks.saturating_mul(class.chunk_len), class.chunk_len);
        if let Some(observer) = &pool.observer
            && !observer.slab_added(&mut slab)
        {
            return None;
        }
        listed.add(&slab, keeper);
        self.slab_bytes = self.slab_bytes.saturating_add(slab.len());
        // Room for all, once: giving back never allocates.
        class.free.reserve(chunks);
        let first = slab.split_to(class.chunk_len);
        while slab.len() >= class.chunk_len {
            class.free.push(slab.split_to(class.chunk_len));
        }
        class.free.reverse();
        Some(first)
    }
}

/// A slab whose chunks begin on pages, if their length allows it, and a part of the same allocation that keeps it.
fn zeroed_slab(len: usize, chunk_len: usize) -> (BytesMut, BytesMut) {
    let margin = if chunk_len.is_multiple_of(PAGE) { PAGE } else { 1 };
    let mut room = BytesMut::zeroed(len.saturating_add(margin));
    // Where it cannot be computed, nobody relies on it for more than speed.
    let skip = if margin == PAGE { room.as_ptr().align_offset(PAGE) } else { 0 };
    if skip == 0 || skip >= PAGE {
        let keeper = room.split_off(len);
        return (room, keeper);
    }
    let mut slab = room.split_off(skip);
    slab.truncate(len);
    (slab, room)
}

/// What direct I/O and RDMA like memory to begin on.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests;
