//! Steering tags: what of our memory the peer may touch, where, and how (RFC 5042, RFC 5040 section 8.1).
//!
//! ```text
//!   STag (32) = slot (16, masked) │ tag (16, new for every registration)
//! ```
//! A table belongs to one stream, so that an STag of another stream is one that names nothing: every stream is in a
//! protection domain of its own (RFC 5042 section 6.1.1). Slots are reused in turn, as late as possible, and slot mask
//! and tags come from a keyed hash of a random seed, so that a peer cannot predict the next STag (section 6.1.1).

use crate::TerminateCode;
use crate::memory::{Gather, Memory};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};

/// A steering tag as it travels in headers: 32 bits that name a buffer of the end that made it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Stag(pub u32);

impl std::fmt::Debug for Stag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stag({:#010x})", self.0)
    }
}

/// What the peer may do with an STag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// RDMA Read from it.
    pub remote_read: bool,
    /// RDMA Write to it; only into memory that is [owned](Region::Owned).
    pub remote_write: bool,
    /// Invalidate it, by a Send with Invalidate.
    pub remote_invalidate: bool,
}

impl Access {
    /// The peer may read, and invalidate when done.
    pub const READ: Self = Self { remote_read: true, remote_write: false, remote_invalidate: true };
    /// The peer may write, and invalidate when done.
    pub const WRITE: Self = Self { remote_read: false, remote_write: true, remote_invalidate: true };
    /// The peer may read and write, and invalidate when done.
    pub const READ_WRITE: Self = Self { remote_read: true, remote_write: true, remote_invalidate: true };
    /// Nothing: a region that is only there to [bind](crate::QueuePair::bind) windows to.
    pub const NONE: Self = Self { remote_read: false, remote_write: false, remote_invalidate: false };

    /// Without the right to invalidate.
    pub const fn keep(self) -> Self {
        Self { remote_invalidate: false, ..self }
    }
}

/// Memory to be registered.
#[derive(Debug)]
pub enum Region<M> {
    /// Data the peer may read. It is sent from where it is.
    Shared(Gather),
    /// Memory the peer may write, and read if it is allowed to. It is written in place; what is read of it is copied
    /// on its way out, so that a write in between does not spoil the CRC of a segment.
    Owned(M),
}

impl<M: Memory> Region<M> {
    /// Octets of the region.
    pub fn len(&self) -> u64 {
        match self {
            Self::Shared(g) => g.len(),
            Self::Owned(m) => m.len() as u64,
        }
    }

    /// Whether there are no octets.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an invalidation gives back.
#[derive(Debug)]
pub struct Invalidated<M> {
    /// The STag that is no longer valid.
    pub stag: Stag,
    /// The memory it named; `None` for a window, whose memory stays with its region.
    pub region: Option<Region<M>>,
}

/// Why an STag cannot be invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidateError {
    /// The STag names nothing: it is not of this queue pair, or was invalidated before, by this end or by the peer.
    Unknown,
    /// Windows are still bound to the region.
    WindowsBound,
}

impl std::fmt::Display for InvalidateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the STag names nothing",
            Self::WindowsBound => "windows are bound to the region",
        })
    }
}

impl std::error::Error for InvalidateError {}

/// Where an access goes: octet `offset` of the memory of the region `region`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) region: Stag,
    pub(crate) offset: u64,
}

enum Entry<M> {
    Free,
    /// Taken for the sink of an RDMA Read of ours: no access by this STag is ever granted here.
    Reserved,
    Region {
        region: Region<M>,
        bounds: Bounds,
        windows: u32,
    },
    Window {
        parent: Stag,
        start: u64,
        bounds: Bounds,
    },
}

#[derive(Clone, Copy)]
struct Bounds {
    base: u64,
    len: u64,
    access: Access,
}

struct Slot<M> {
    tag: u16,
    entry: Entry<M>,
}

/// Slots that stay free before one of them is used again.
const RESTING: usize = 64;

/// The STags of one stream.
pub(crate) struct StagTable<M> {
    slots: Vec<Slot<M>>,
    free: VecDeque<u16>,
    limit: usize,
    mask: u16,
    seed: [u8; 16],
    made: u64,
}

/// Which of the two error spaces an access is reported in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tagged segment: DDP reports.
    Write,
    /// An RDMA Read Request: RDMAP reports.
    Read,
}

impl<M: Memory> StagTable<M> {
    pub(crate) fn new(limit: usize, seed: [u8; 16]) -> Self {
        let limit = limit.min(usize::from(u16::MAX));
        let mut table = Self { slots: Vec::new(), free: VecDeque::new(), limit, mask: 0, seed, made: 0 };
        table.mask = table.random();
        table
    }

    /// Sixteen bits the peer cannot foretell.
    fn random(&mut self) -> u16 {
        let mut h = DefaultHasher::new();
        h.write(&self.seed);
        h.write_u64(self.made);
        self.made = self.made.wrapping_add(1);
        let [a, b, ..] = h.finish().to_be_bytes();
        u16::from_be_bytes([a, b])
    }

    fn insert(&mut self, entry: Entry<M>) -> Result<Stag, Entry<M>> {
        // The slot that has been free for longest, once enough of them rest.
        let fresh = self.slots.len() < self.limit && self.free.len() < RESTING;
        let index = if fresh {
            let Ok(index) = u16::try_from(self.slots.len()) else { return Err(entry) };
            self.slots.push(Slot { tag: 0, entry: Entry::Free });
            index
        } else {
            match self.free.pop_front() {
                Some(index) => index,
                None => return Err(entry),
            }
        };
        let mut tag = self.random();
        let stag = |tag: u16, mask: u16| Stag((u32::from(index ^ mask) << 16) | u32::from(tag));
        // Never the tag the slot had last, nor an STag of 0 or all ones: peers give those a meaning.
        let last = self.slots.get(usize::from(index)).map_or(0, |s| s.tag);
        while tag == last || matches!(stag(tag, self.mask).0, 0 | u32::MAX) {
            tag = tag.wrapping_add(1);
        }
        match self.slots.get_mut(usize::from(index)) {
            Some(slot) => {
                *slot = Slot { tag, entry };
                Ok(stag(tag, self.mask))
            }
            None => Err(entry),
        }
    }

    fn index(&self, stag: Stag) -> Option<u16> {
        let [a, b, c, d] = stag.0.to_be_bytes();
        let index = u16::from_be_bytes([a, b]) ^ self.mask;
        let slot = self.slots.get(usize::from(index))?;
        let live = slot.tag == u16::from_be_bytes([c, d]) && !matches!(slot.entry, Entry::Free);
        live.then_some(index)
    }

    fn get(&self, stag: Stag) -> Option<&Entry<M>> {
        let index = self.index(stag)?;
        self.slots.get(usize::from(index)).map(|s| &s.entry)
    }

    fn get_mut(&mut self, stag: Stag) -> Option<&mut Entry<M>> {
        let index = self.index(stag)?;
        self.slots.get_mut(usize::from(index)).map(|s| &mut s.entry)
    }

    fn take(&mut self, stag: Stag) -> Option<Entry<M>> {
        let index = self.index(stag)?;
        let slot = self.slots.get_mut(usize::from(index))?;
        self.free.push_back(index);
        Some(std::mem::replace(&mut slot.entry, Entry::Free))
    }

    /// Registers a region whose first octet has tagged offset `base`; gives it back when there is no room, when the
    /// offsets would exceed 64 bits, or when shared data were to be written.
    pub(crate) fn register(
        &mut self,
        region: Region<M>,
        access: Access,
        base: u64,
    ) -> Result<Stag, Region<M>> {
        let len = region.len();
        let writes_shared = access.remote_write && matches!(region, Region::Shared(_));
        if base.checked_add(len).is_none() || writes_shared {
            return Err(region);
        }
        let bounds = Bounds { base, len, access };
        self.insert(Entry::Region { region, bounds, windows: 0 }).map_err(|entry| match entry {
            Entry::Region { region, .. } => region,
            // What was handed in comes back.
            _ => Region::Shared(Gather::new()),
        })
    }

    /// Binds a window to `len` octets from octet `start` of a region; the first has tagged offset `base`.
    pub(crate) fn bind(
        &mut self,
        parent: Stag,
        start: u64,
        len: u64,
        access: Access,
        base: u64,
    ) -> Option<Stag> {
        let Some(Entry::Region { region, bounds, .. }) = self.get(parent) else { return None };
        let writes_shared = access.remote_write && matches!(region, Region::Shared(_));
        if start.checked_add(len)? > bounds.len || base.checked_add(len).is_none() || writes_shared {
            return None;
        }
        let window = Entry::Window { parent, start, bounds: Bounds { base, len, access } };
        let stag = self.insert(window).ok()?;
        if let Some(Entry::Region { windows, .. }) = self.get_mut(parent) {
            *windows = windows.saturating_add(1);
        }
        Some(stag)
    }

    /// Takes an STag that grants nothing.
    pub(crate) fn reserve(&mut self) -> Option<Stag> {
        self.insert(Entry::Reserved).ok()
    }

    /// Gives back an STag that [`reserve`](Self::reserve) made.
    pub(crate) fn release(&mut self, stag: Stag) {
        if matches!(self.get(stag), Some(Entry::Reserved)) {
            self.take(stag);
        }
    }

    /// Invalidates an STag by a decision of this end.
    pub(crate) fn invalidate(&mut self, stag: Stag) -> Result<Invalidated<M>, InvalidateError> {
        match self.get(stag) {
            None | Some(Entry::Free | Entry::Reserved) => return Err(InvalidateError::Unknown),
            Some(Entry::Region { windows: 1.., .. }) => return Err(InvalidateError::WindowsBound),
            Some(_) => {}
        }
        let region = match self.take(stag) {
            Some(Entry::Region { region, .. }) => Some(region),
            Some(Entry::Window { parent, .. }) => {
                if let Some(Entry::Region { windows, .. }) = self.get_mut(parent) {
                    *windows = windows.saturating_sub(1);
                }
                None
            }
            _ => None,
        };
        Ok(Invalidated { stag, region })
    }

    /// Invalidates an STag because the peer says so (RFC 5040 section 5.3).
    pub(crate) fn remote_invalidate(&mut self, stag: Stag) -> Result<Invalidated<M>, TerminateCode> {
        let allowed = match self.get(stag) {
            Some(Entry::Region { bounds, .. } | Entry::Window { bounds, .. }) => {
                bounds.access.remote_invalidate
            }
            _ => false,
        };
        if !allowed {
            return Err(TerminateCode::RDMAP_CANNOT_INVALIDATE);
        }
        self.invalidate(stag).map_err(|_| TerminateCode::RDMAP_CANNOT_INVALIDATE)
    }

    /// Whether the peer may access `len` octets at tagged offset `offset`, and where they are. `len` is not zero: an
    /// access of no octets is not checked (RFC 5041 section 5.2, RFC 5040 section 5.2.1).
    pub(crate) fn check(
        &self,
        stag: Stag,
        offset: u64,
        len: u64,
        kind: Kind,
    ) -> Result<Place, TerminateCode> {
        use TerminateCode as T;
        let by_kind = |write: T, read: T| if kind == Kind::Write { write } else { read };
        let (bounds, region, start) = match self.get(stag) {
            Some(Entry::Region { bounds, .. }) => (bounds, stag, 0),
            Some(Entry::Window { parent, start, bounds }) => (bounds, *parent, *start),
            _ => return Err(by_kind(T::DDP_INVALID_STAG, T::RDMAP_INVALID_STAG)),
        };
        // DDP has no code for a missing right: the STag is invalid for that access.
        match kind {
            Kind::Write if !bounds.access.remote_write => return Err(T::DDP_INVALID_STAG),
            Kind::Read if !bounds.access.remote_read => return Err(T::RDMAP_ACCESS),
            _ => {}
        }
        let Some(end) = offset.checked_add(len) else {
            return Err(by_kind(T::DDP_TO_WRAP, T::RDMAP_TO_WRAP));
        };
        let out = by_kind(T::DDP_BOUNDS, T::RDMAP_BOUNDS);
        let limit = bounds.base.saturating_add(bounds.len);
        match offset.checked_sub(bounds.base) {
            Some(at) if end <= limit => Ok(Place { region, offset: start.saturating_add(at) }),
            _ => Err(out),
        }
    }

    /// The region at a place a check has just returned.
    pub(crate) fn region(&self, place: Place) -> Option<&Region<M>> {
        match self.get(place.region) {
            Some(Entry::Region { region, .. }) => Some(region),
            _ => None,
        }
    }

    /// The memory at a place a check has just returned, to be written.
    pub(crate) fn memory_mut(&mut self, place: Place) -> Option<&mut M> {
        match self.get_mut(place.region) {
            Some(Entry::Region { region: Region::Owned(m), .. }) => Some(m),
            _ => None,
        }
    }

    /// Takes all regions out; nothing is valid afterwards.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Region<M>> + '_ {
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| match slot.entry {
            Entry::Region { region, .. } => Some(region),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
