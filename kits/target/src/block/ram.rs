//! A disk in memory, sparse: only what was written takes room.
//!
//! Blocks live in extents of 64 KiB. A read returns handles on the extents, without copying; a write copies into
//! them, or into a fresh extent when a read still holds the old one, so that what a read returned never changes.
//! Adopting the memory of a write instead would pin the transport's pool for as long as the data live.

use super::protection::{TAG, to_number, unwritten};
use super::{
    Action, BlockDevice, BlockDone, BlockError, BlockOp, Extent, Full, Geometry, Payload, UnmapLimits,
    null::zeros, table::Table,
};
use bytes::{Bytes, BytesMut};
use datamover::SgList;
use scsi_cmd::protection::ProtectionType;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Bytes of an extent.
const EXTENT: u64 = 64 << 10;
/// Extents that are made at a time.
const BATCH: usize = 32;
/// Locks: extent `n` is under lock `n % STRIPES`.
const STRIPES: u64 = 64;

/// A disk in memory.
#[derive(Debug)]
pub struct RamDisk {
    medium: Arc<Medium>,
    done: VecDeque<BlockDone>,
}

#[derive(Debug)]
struct Medium {
    geometry: Geometry,
    blocks: AtomicU64,
    /// Number of the protection type.
    protection: AtomicU8,
    stripes: Vec<Mutex<Stripe>>,
    /// Extents of a batch that are not used yet.
    spare: Mutex<Vec<BytesMut>>,
}

/// The extents under one lock.
type Stripe = Table<Allocated>;

/// An extent of which at least one block is mapped; the others are zero. One line of the processor's cache: on a large
/// disk that is read at random every one that is looked at is a miss.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Allocated {
    data: Bytes,
    /// A bit per block: an extent has at most 128.
    mapped: u128,
    /// Protection information of its blocks; empty when none has any.
    tags: Box<[u8]>,
}

/// The part of an operation within one extent.
struct Piece {
    extent: u64,
    /// Bytes of the extent.
    bytes: Range<usize>,
}

impl RamDisk {
    /// A disk of `blocks` blocks of `block_size` bytes, a power of two from 512 to 65536; all unmapped.
    #[must_use]
    pub fn new(block_size: u32, blocks: u64) -> Self {
        let geometry = Geometry {
            volatile_cache: false,
            unmap: Some(UnmapLimits { granularity: 1, zeroes: true }),
            atomic_blocks: (1 << 20) / block_size,
            lends_reads: true,
            ..Geometry::new(block_size, blocks)
        };
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        let medium = Medium {
            geometry,
            blocks: AtomicU64::new(blocks),
            protection: AtomicU8::new(0),
            stripes,
            spare: Mutex::default(),
        };
        Self { medium: Arc::new(medium), done: VecDeque::new() }
    }

    /// The same, saying that it works in physical blocks of `bytes`, a power of two of at least the block size. Before
    /// the first [`handle`](BlockDevice::handle).
    #[must_use]
    pub fn with_physical_block(mut self, bytes: u32) -> Self {
        if let Some(medium) = Arc::get_mut(&mut self.medium) {
            let blocks = (bytes / medium.geometry.block_size).max(1);
            medium.geometry.physical_exponent = blocks.ilog2().min(15) as u8;
        }
        self
    }

    /// The same, with room for protection information, of this type to begin with. Before the first
    /// [`handle`](BlockDevice::handle).
    #[must_use]
    pub fn with_protection(mut self, protection: Option<ProtectionType>) -> Self {
        if let Some(medium) = Arc::get_mut(&mut self.medium) {
            medium.geometry.protectable = true;
            medium.protection = AtomicU8::new(to_number(protection));
        }
        self
    }

    /// Changes the size. Blocks beyond a smaller one are forgotten. Have the logical unit rescan its device, so that
    /// initiators are told.
    pub fn resize(&self, blocks: u64) {
        let old = self.medium.blocks.swap(blocks, Ordering::AcqRel);
        if blocks < old {
            self.medium.forget(blocks, old - blocks);
        }
    }

    /// Bytes of memory that the data take.
    #[must_use]
    pub fn allocated_bytes(&self) -> u64 {
        let extents: usize = self.medium.stripes.iter().map(|s| lock(s).len()).sum();
        extents as u64 * EXTENT
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    // A panic cannot leave a stripe half changed in a way that matters more than going on.
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Medium {
    fn pieces(&self, lba: u64, blocks: u64) -> impl Iterator<Item = Piece> + use<> {
        let block = u64::from(self.geometry.block_size);
        let end = (lba + blocks) * block;
        let mut at = lba * block;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let extent = at / EXTENT;
                let stop = end.min((extent + 1) * EXTENT);
                let bytes = (at - extent * EXTENT) as usize..(stop - extent * EXTENT) as usize;
                at = stop;
                Piece { extent, bytes }
            })
        })
    }

    /// Locks what the range needs, in ascending order, so that the operation is atomic.
    fn lock(&self, lba: u64, blocks: u64) -> Vec<Option<MutexGuard<'_, Stripe>>> {
        let block = u64::from(self.geometry.block_size);
        let first = lba * block / EXTENT;
        let last = ((lba + blocks.max(1)) * block - 1) / EXTENT;
        let all = last - first >= STRIPES;
        let wanted = |stripe: u64| {
            // The stripe's distance from the first one is below the number of extents.
            all || (stripe + STRIPES - first % STRIPES) % STRIPES <= last - first
        };
        (0..STRIPES).map(|s| wanted(s).then(|| lock(&self.stripes[s as usize]))).collect()
    }

    fn stripe<'a, 'b>(
        guards: &'a mut [Option<MutexGuard<'b, Stripe>>],
        extent: u64,
    ) -> Option<&'a mut MutexGuard<'b, Stripe>> {
        guards.get_mut((extent % STRIPES) as usize).and_then(Option::as_mut)
    }

    fn mask(&self, bytes: &Range<usize>) -> u128 {
        let block = self.geometry.block_size as usize;
        let (from, to) = (bytes.start / block, bytes.end / block);
        let upto = |n: usize| if n >= 128 { u128::MAX } else { (1 << n) - 1 };
        upto(to) & !upto(from)
    }

    /// The blocks of an extent that a piece of it is, as places of protection information.
    fn tags(&self, bytes: &Range<usize>) -> Range<usize> {
        let block = self.geometry.block_size as usize;
        bytes.start / block * TAG..bytes.end / block * TAG
    }

    fn read_protected(&self, lba: u64, blocks: u64) -> Payload {
        let mut guards = self.lock(lba, blocks);
        let mut data = SgList::new();
        let mut tags = unwritten(blocks);
        let mut at = 0;
        for piece in self.pieces(lba, blocks) {
            let Some(stripe) = Self::stripe(&mut guards, piece.extent) else { continue };
            let of_piece = self.tags(&piece.bytes);
            let next = at + of_piece.len();
            match stripe.get(index(piece.extent)) {
                Some(allocated) => {
                    data.push(allocated.data.slice(piece.bytes));
                    if !allocated.tags.is_empty() {
                        tags[at..next].copy_from_slice(&allocated.tags[of_piece]);
                    }
                }
                None => zeros(piece.bytes.len()).parts().for_each(|part| data.push(part.clone())),
            }
            at = next;
        }
        Payload::Protected { data, tags }
    }

    fn protect(&self, protection: Option<ProtectionType>) {
        self.protection.store(to_number(protection), Ordering::Release);
        for stripe in &self.stripes {
            lock(stripe).for_each(|allocated: &mut Allocated| allocated.tags = Box::default());
        }
    }

    fn read(&self, lba: u64, blocks: u64) -> SgList {
        // The common case, one extent, takes one lock and allocates nothing.
        let mut pieces = self.pieces(lba, blocks).peekable();
        let Some(first) = pieces.next() else { return SgList::new() };
        let take = |stripe: &Stripe, piece: &Piece| match stripe.get(index(piece.extent)) {
            Some(allocated) => SgList::from(allocated.data.slice(piece.bytes.clone())),
            None => zeros(piece.bytes.len()),
        };
        if pieces.peek().is_none() {
            return take(&lock(&self.stripes[(first.extent % STRIPES) as usize]), &first);
        }
        let mut guards = self.lock(lba, blocks);
        let mut data = SgList::new();
        for piece in std::iter::once(first).chain(pieces) {
            let Some(stripe) = Self::stripe(&mut guards, piece.extent) else { continue };
            take(stripe, &piece).parts().for_each(|part| data.push(part.clone()));
        }
        data
    }

    fn write(&self, lba: u64, data: &SgList, tags: &[u8]) {
        let blocks = data.len() as u64 / u64::from(self.geometry.block_size);
        let mut offset = 0;
        let mut put = |stripe: &mut Stripe, piece: &Piece| {
            let allocated = stripe.entry(index(piece.extent));
            let mut bytes = self.writable(std::mem::take(&mut allocated.data));
            data.copy_to(offset, &mut bytes[piece.bytes.clone()]);
            allocated.data = bytes.freeze();
            allocated.mapped |= self.mask(&piece.bytes);
            if !tags.is_empty() || !allocated.tags.is_empty() {
                allocated.set_tags(
                    self.tags(&piece.bytes),
                    tags.get(self.tags(&(offset..offset + piece.bytes.len()))),
                );
            }
            offset += piece.bytes.len();
        };
        let mut pieces = self.pieces(lba, blocks).peekable();
        let Some(first) = pieces.next() else { return };
        if pieces.peek().is_none() {
            return put(&mut lock(&self.stripes[(first.extent % STRIPES) as usize]), &first);
        }
        let mut guards = self.lock(lba, blocks);
        for piece in std::iter::once(first).chain(pieces) {
            if let Some(stripe) = Self::stripe(&mut guards, piece.extent) {
                put(stripe, &piece);
            }
        }
    }

    /// Makes the range zero: unmapped, or mapped.
    fn zero(&self, lba: u64, blocks: u64, unmap: bool) {
        let mut guards = self.lock(lba, blocks);
        for piece in self.pieces(lba, blocks) {
            let Some(stripe) = Self::stripe(&mut guards, piece.extent) else { continue };
            let mask = self.mask(&piece.bytes);
            if unmap {
                let Some(allocated) = stripe.get_mut(index(piece.extent)) else { continue };
                allocated.mapped &= !mask;
                if allocated.mapped == 0 {
                    stripe.remove(index(piece.extent));
                    continue;
                }
            }
            let allocated = stripe.entry(index(piece.extent));
            let mut bytes = self.writable(std::mem::take(&mut allocated.data));
            bytes[piece.bytes.clone()].fill(0);
            allocated.data = bytes.freeze();
            if !allocated.tags.is_empty() {
                allocated.set_tags(self.tags(&piece.bytes), None);
            }
            if !unmap {
                allocated.mapped |= mask;
            }
        }
    }

    /// Unmaps a range that may be far larger than what is allocated: visits what exists.
    fn forget(&self, lba: u64, blocks: u64) {
        let block = u64::from(self.geometry.block_size);
        let first = (lba * block).div_ceil(EXTENT);
        let end = ((lba + blocks) * block) / EXTENT;
        if first >= end {
            return self.zero(lba, blocks, true);
        }
        let (head, tail) = (first * EXTENT / block, end * EXTENT / block);
        self.zero(lba, head - lba, true);
        if end - first <= STRIPES * 4 {
            self.zero(head, tail - head, true);
        } else {
            for (number, stripe) in (0..).zip(&self.stripes) {
                lock(stripe).retain(|index| !(first..end).contains(&(index * STRIPES + number)));
            }
        }
        self.zero(tail, lba + blocks - tail, true);
    }

    fn status(&self, lba: u64, blocks: u64) -> Vec<Extent> {
        let block = u64::from(self.geometry.block_size);
        let mut runs: Vec<Extent> = Vec::new();
        let mut push = |blocks: u64, mapped: bool| {
            let room = runs.len() < 64;
            match runs.last_mut() {
                Some(last) if last.mapped == mapped => last.blocks += blocks,
                _ if room => runs.push(Extent { blocks, mapped }),
                _ => return false,
            }
            true
        };
        // Whole unallocated stretches of a huge disk cost a lookup per extent: bounded by the caller's range, cut
        // here so that one command never takes long.
        let limit = (1 << 20) * EXTENT / block;
        for piece in self.pieces(lba, blocks.min(limit)) {
            let stripe = lock(&self.stripes[(piece.extent % STRIPES) as usize]);
            let mapped = stripe.get(index(piece.extent)).map_or(0, |a| a.mapped);
            let (from, to) = (piece.bytes.start as u64 / block, piece.bytes.end as u64 / block);
            if mapped == 0 {
                if !push(to - from, false) {
                    break;
                }
                continue;
            }
            if !(from..to).all(|bit| push(1, mapped >> bit & 1 == 1)) {
                break;
            }
        }
        runs
    }

    /// The extent's memory if nobody else holds it, else a copy; zeros for one that does not exist.
    fn writable(&self, data: Bytes) -> BytesMut {
        if data.is_empty() {
            return self.fresh();
        }
        data.try_into_mut().unwrap_or_else(|shared| {
            let mut copy = self.fresh();
            copy.copy_from_slice(&shared);
            copy
        })
    }

    /// Memory of an extent, zeros: shared memory from the beginning, so that handles on it cost no allocation later. It
    /// is cut off something longer for that.
    ///
    /// A batch is made at a time, all memory before all counts of handles: so the counts lie beside each other, where
    /// otherwise each had a page of its own, between the extents, and taking a handle missed the TLB as well.
    fn fresh(&self) -> BytesMut {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_empty() {
            spare.extend((0..BATCH).map(|_| BytesMut::zeroed(EXTENT as usize + 1)));
            spare.iter_mut().rev().for_each(|memory| drop(memory.split_off(EXTENT as usize)));
        }
        spare.pop().unwrap_or_else(|| BytesMut::zeroed(EXTENT as usize))
    }

    fn run(&self, action: Action) -> Result<Payload, BlockError> {
        let size = self.blocks.load(Ordering::Acquire);
        action.within(self.geometry.block_size, size)?;
        match action {
            Action::ReadProtected { lba, blocks, .. } => return Ok(self.read_protected(lba, blocks.into())),
            Action::WriteProtected { lba, data, tags, .. } => self.write(lba, &data, &tags),
            Action::Protect(protection) if self.geometry.protectable => self.protect(protection),
            Action::Protect(_) => return Err(BlockError::Unsupported),
            Action::Read { lba, blocks, .. } => return Ok(Payload::Data(self.read(lba, blocks.into()))),
            Action::Write { lba, data, .. } => self.write(lba, &data, &[]),
            Action::Unmap { lba, blocks } | Action::Zero { lba, blocks, unmap: true, .. } => {
                self.forget(lba, blocks);
            }
            Action::Zero { lba, blocks, unmap: false, .. } => self.zero(lba, blocks, false),
            Action::Status { lba, blocks } => return Ok(Payload::Extents(self.status(lba, blocks))),
            Action::Flush | Action::Prefetch { .. } => {}
        }
        Ok(Payload::None)
    }
}

impl Allocated {
    /// Protection information of some of the blocks; `None`: they have none.
    fn set_tags(&mut self, at: Range<usize>, tags: Option<&[u8]>) {
        if self.tags.is_empty() {
            // As many as there can be: 128 blocks of 512 bytes.
            self.tags = unwritten(EXTENT / 512).into();
        }
        match tags {
            Some(tags) => self.tags[at].copy_from_slice(tags),
            None => self.tags[at].fill(0xff),
        }
    }
}

/// Index of an extent within its stripe.
fn index(extent: u64) -> u64 {
    extent / STRIPES
}

impl BlockDevice for RamDisk {
    fn geometry(&self) -> Geometry {
        Geometry {
            blocks: self.medium.blocks.load(Ordering::Acquire),
            protection: ProtectionType::from_number(self.medium.protection.load(Ordering::Acquire)),
            ..self.medium.geometry
        }
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        let result = self.medium.run(op.action);
        self.done.push_back(BlockDone { id: op.id, result });
        Ok(())
    }

    fn poll_done(&mut self, _: &mut Context<'_>) -> Poll<BlockDone> {
        self.done.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self { medium: self.medium.clone(), done: VecDeque::new() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Blocking, testing};

    #[test]
    fn passes_the_suite_with_protection_information() {
        for block_size in [512, 4096] {
            let disk = || RamDisk::new(block_size, 4096).with_protection(Some(ProtectionType::Type1));
            testing::check(|| Box::new(disk()));
        }
    }

    #[test]
    fn passes_the_suite() {
        for block_size in [512, 4096] {
            testing::check(|| Box::new(RamDisk::new(block_size, 4096)));
        }
    }

    #[test]
    fn a_read_keeps_its_data() {
        let mut disk = Blocking::new(Box::new(RamDisk::new(512, 256)));
        disk.write(0, &[1; 1024]).unwrap();
        let before = disk.read(0, 2).unwrap();
        disk.write(1, &[2; 512]).unwrap();
        assert_eq!(before.to_bytes(), vec![1; 1024]);
        assert_eq!(disk.read(0, 2).unwrap().to_bytes()[512..], [2; 512]);
    }

    #[test]
    fn memory_comes_back_with_unmap_and_resize() {
        let disk = RamDisk::new(512, 1 << 40);
        let mut io = Blocking::new(disk.handle().unwrap());
        io.write(1 << 39, &[7; 65536 * 2]).unwrap();
        assert_eq!(disk.allocated_bytes(), 2 * EXTENT);
        io.run(Action::Unmap { lba: 1 << 39, blocks: 1 }).unwrap();
        assert_eq!(disk.allocated_bytes(), 2 * EXTENT);
        io.run(Action::Unmap { lba: 0, blocks: (1 << 39) + 128 }).unwrap();
        assert_eq!(disk.allocated_bytes(), EXTENT);
        disk.resize(1 << 20);
        assert_eq!(disk.allocated_bytes(), 0);
        assert_eq!(io.read(1 << 20, 1).unwrap_err(), BlockError::OutOfRange);
    }

    #[test]
    fn writes_are_atomic_up_to_the_promise() {
        let disk = RamDisk::new(512, 4096);
        let blocks = disk.geometry().atomic_blocks;
        let bytes = blocks as usize * 512;
        let mut writer = Blocking::new(disk.handle().unwrap());
        let mut reader = Blocking::new(disk.handle().unwrap());
        std::thread::scope(|s| {
            s.spawn(|| (0..40u8).for_each(|n| writer.write(3, &vec![n; bytes]).unwrap()));
            for _ in 0..40 {
                let seen = reader.read(3, blocks).unwrap();
                let mut all = seen.parts().flatten();
                let first = all.next().copied();
                assert!(all.all(|b| Some(*b) == first));
            }
        });
    }
}
