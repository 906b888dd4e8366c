//! Which slabs of pools a ring has registered with the kernel.
//!
//! Found by address: as long as a [`Slab`] is held nothing else can lie where it lies, so a piece of memory within its
//! addresses is a piece of it. A slab is registered when a call first uses it, unless the ring is new (most handles of
//! a login see a few calls) or has pinned what it may. One whose pool is gone makes room for others.

#![deny(unsafe_code)]

use datamover::Slab;
use std::io;
use std::sync::Once;

/// Slabs of one ring: what is searched for every call, one by one.
const PLACES: usize = 32;
/// Calls that a ring does before it pins anything: pinning costs as much as it saves in some hundred.
pub(super) const WARM: u32 = 64;

/// The kernel's side.
pub(super) trait Table {
    /// Makes an empty table.
    fn make(&self, places: u32) -> io::Result<()>;
    /// Registers a slab in the place of whatever was there, or nothing.
    fn set(&self, place: u32, slab: Option<&Slab>) -> io::Result<()>;
}

pub(super) struct Registered {
    /// By place in the kernel's table.
    slabs: Vec<Option<Slab>>,
    /// Where the last call's memory was.
    last: usize,
    calls: u32,
    /// Bytes pinned.
    bytes: usize,
    /// The most of them; 0 after the kernel has refused.
    limit: usize,
    /// Calls whose memory was found.
    pub(super) hits: u64,
}

impl Registered {
    /// For at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { slabs: Vec::new(), last: 0, calls: 0, bytes: 0, limit, hits: 0 }
    }

    /// Whether the kernel has a table.
    pub(super) fn has_table(&self) -> bool {
        !self.slabs.is_empty()
    }

    /// The place of the slab in which a call's memory lies, which may be registered for it.
    pub(super) fn index_of(&mut self, piece: &[u8], table: &impl Table) -> Option<u16> {
        let held = |slab: &Option<Slab>| slab.as_ref().is_some_and(|slab| slab.holds(piece));
        let place = match self.slabs.get(self.last) {
            Some(last) if held(last) => Some(self.last),
            _ => self.slabs.iter().position(held).or_else(|| self.register(piece, table)),
        }?;
        self.last = place;
        self.hits += 1;
        Some(place as u16)
    }

    fn register(&mut self, piece: &[u8], table: &impl Table) -> Option<usize> {
        if self.calls < WARM {
            self.calls += 1;
            return None;
        }
        self.give_back(table);
        // No search when there is no room for what it may find.
        if self.bytes >= self.limit {
            return None;
        }
        let place = match self.slabs.iter().position(Option::is_none) {
            None if self.has_table() => return None,
            place => place.unwrap_or(0),
        };
        let slab = Slab::holding(piece).filter(|slab| slab.len() <= self.limit - self.bytes)?;
        match self.try_register(place, &slab, table) {
            Ok(()) => {
                self.bytes += slab.len();
                self.slabs[place] = Some(slab);
                Some(place)
            }
            Err(error) => {
                refused(&error);
                self.limit = 0;
                None
            }
        }
    }

    fn try_register(&mut self, place: usize, slab: &Slab, table: &impl Table) -> io::Result<()> {
        if !self.has_table() {
            table.make(PLACES as u32)?;
            self.slabs.resize(PLACES, None);
        }
        table.set(place as u32, Some(slab))
    }

    /// Lets go of the slabs that nobody uses any more: first the kernel, then this.
    fn give_back(&mut self, table: &impl Table) {
        for (place, held) in self.slabs.iter_mut().enumerate() {
            if let Some(slab) = held.take_if(|slab| slab.is_given_up()) {
                match table.set(place as u32, None) {
                    Ok(()) => self.bytes -= slab.len(),
                    // Still pinned, so still kept.
                    Err(_) => *held = Some(slab),
                }
            }
        }
    }
}

/// Says so once: all rings of a process meet the same limits.
fn refused(error: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            %error,
            "memory cannot be registered with io_uring, direct I/O does without: older than Linux 5.19, or \
             RLIMIT_MEMLOCK is too low (ulimit -l; a disk's registered=SIZE bounds what each of its sessions pins)"
        );
    });
}

#[cfg(test)]
mod tests;
