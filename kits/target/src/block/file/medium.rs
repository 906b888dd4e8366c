//! What all handles of a disk in a file share, and its operations as blocking calls.

use super::super::workers::{Ticket, Workers};
use super::super::{Action, BlockError, Extent, Geometry, Payload};
use super::storage::{Alignment, Storage};
use super::sync::{Sync, Syncs};
use bytes::Bytes;
use datamover::{BufPool, PoolConfig, SgList, SgListMut, SlabPool};
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Elements of one `preadv` or `pwritev`.
pub(super) const IOV: usize = 64;

/// What came of an action. It is reported when nothing holds the medium any more: who hears of the end may drop its
/// handle and open the file again at once.
pub(super) enum Outcome {
    Ended(Result<Payload, BlockError>),
    Synced(Sync, io::Result<()>),
}

impl Outcome {
    pub(super) fn report(self, ticket: Ticket) {
        match self {
            Self::Ended(result) => ticket.done(result),
            Self::Synced(sync, Ok(())) => sync.succeeded(ticket),
            Self::Synced(sync, Err(error)) => sync.failed(&error, ticket),
        }
    }
}

pub(super) struct Medium {
    pub(super) file: Box<dyn Storage>,
    pub(super) geometry: Geometry,
    pub(super) workers: Workers,
    pub(super) syncs: Arc<Syncs>,
    /// Handles may have rings.
    pub(super) ring: bool,
    /// Bytes of memory that each may register.
    #[cfg_attr(not(all(target_os = "linux", feature = "io-uring")), expect(dead_code, reason = "for rings"))]
    pub(super) registered: usize,
    /// What direct I/O asks of memory.
    pub(super) alignment: Alignment,
    /// Length that was last seen, so that not each write has to ask.
    len: AtomicU64,
    /// Memory for what direct I/O refuses. What is out is bounded by the operations under way.
    bounce: SlabPool,
}

impl Medium {
    pub(super) fn new(
        file: Box<dyn Storage>,
        geometry: Geometry,
        workers: Workers,
        ring: bool,
        registered: usize,
    ) -> Self {
        let alignment = file.alignment();
        // Copies to and from the page cache are no faster with it.
        let registered = if alignment == Alignment::default() { 0 } else { registered };
        let bounce = SlabPool::new(PoolConfig::default().with_max_bytes(usize::MAX));
        let len = AtomicU64::new(0);
        Self { file, geometry, workers, syncs: Arc::default(), ring, registered, alignment, len, bounce }
    }

    /// Length of the file or device now, in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        let len = self.file.size()?;
        self.len.store(len, Ordering::Relaxed);
        Ok(len)
    }

    /// First byte of a block.
    pub(super) fn offset(&self, lba: u64) -> u64 {
        lba * u64::from(self.geometry.block_size)
    }

    /// Reads without waiting for the medium; `false` when a part would have to.
    pub(super) fn cached(&self, at: u64, into: &mut SgListMut) -> bool {
        self.fill(at, into, |iov, at| self.file.read_cached(iov, at)).is_ok()
    }

    /// Does the action, the thread waiting.
    pub(super) fn perform(&self, action: Action) -> Outcome {
        let result = match action {
            Action::Read { lba, into, .. } => self.read(lba, into).map(Payload::Data),
            Action::Status { lba, blocks } => self.status(lba, blocks).map(Payload::Extents),
            Action::Prefetch { lba, blocks } => {
                let len = blocks.saturating_mul(u64::from(self.geometry.block_size));
                self.file.prefetch(self.offset(lba), len).map(|()| Payload::None)
            }
            _ if self.syncs.lost() => return Outcome::Ended(Err(BlockError::WritesLost)),
            Action::Write { lba, data, fua: true } => {
                return self.synced(|sync| self.write_durably(lba, &data, sync));
            }
            Action::Flush => return self.flush(),
            Action::ReadProtected { .. } | Action::WriteProtected { .. } | Action::Protect(_) => {
                return Outcome::Ended(Err(BlockError::Unsupported));
            }
            Action::Write { lba, data, fua: false } => self.write(lba, &data, false).map(|()| Payload::None),
            Action::Unmap { lba, blocks } => self.zero(lba, blocks, true).map(|()| Payload::None),
            Action::Zero { lba, blocks, unmap, fua } => match self.zero(lba, blocks, unmap) {
                Ok(()) if fua => return self.flush(),
                result => result.map(|()| Payload::None),
            },
        };
        Outcome::Ended(result.map_err(|e| BlockError::from(&e)))
    }

    fn synced(&self, work: impl FnOnce(Sync) -> Outcome) -> Outcome {
        match self.syncs.begin() {
            Ok(sync) => work(sync),
            Err(lost) => Outcome::Ended(Err(lost)),
        }
    }

    fn flush(&self) -> Outcome {
        self.synced(|sync| Outcome::Synced(sync, self.file.sync()))
    }

    pub(super) fn write_durably(&self, lba: u64, data: &SgList, sync: Sync) -> Outcome {
        match self.write(lba, data, true) {
            Ok(()) => Outcome::Synced(sync, Ok(())),
            Err(error) => self.settle(lba, data, error, sync),
        }
    }

    /// A durable write failed: was it the write, or the sync in it, whose error may be that of an older write? Without
    /// the sync it tells. A write that fails again harmed nobody else.
    pub(super) fn settle(&self, lba: u64, data: &SgList, error: io::Error, sync: Sync) -> Outcome {
        match self.write(lba, data, false) {
            Err(own) => {
                sync.not_begun();
                Outcome::Ended(Err(BlockError::from(&own)))
            }
            Ok(()) => Outcome::Synced(sync, Err(error)),
        }
    }

    /// Fills `into` from byte `at` on.
    fn fill(
        &self,
        at: u64,
        into: &mut SgListMut,
        read: impl Fn(&mut [IoSliceMut<'_>], u64) -> io::Result<usize>,
    ) -> io::Result<()> {
        let len = into.len();
        let mut done = 0;
        while done < len {
            let mut iov: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let n = into.io_slices_mut(done, len - done, &mut iov);
            match read(&mut iov[..n], at + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }

    fn read(&self, lba: u64, mut into: SgListMut) -> io::Result<SgList> {
        match self.bounce_for(&into) {
            None => self.fill(self.offset(lba), &mut into, |iov, at| self.file.read(iov, at))?,
            Some(mut bounce) => {
                self.fill(self.offset(lba), &mut bounce, |iov, at| self.file.read(iov, at))?;
                copy(&bounce, &mut into);
            }
        }
        Ok(into.freeze())
    }

    /// Memory to read into instead, if direct I/O refuses this.
    pub(super) fn bounce_for(&self, into: &SgListMut) -> Option<SgListMut> {
        let fits = into.parts().all(|part| self.alignment.admits(part));
        if fits { None } else { self.bounce.alloc(into.len()) }
    }

    /// The data as direct I/O accepts them: copied, if it must be. So are those in more pieces than one call takes, as
    /// no call may end within a block, or a power cut could tear it.
    pub(super) fn writable(&self, data: SgList) -> SgList {
        let fits = data.parts().all(|part| self.alignment.admits(part)) && data.parts().nth(IOV).is_none();
        if fits {
            return data;
        }
        match self.bounce.alloc(data.len()) {
            Some(mut bounce) if bounce.parts().nth(IOV).is_none() => {
                let mut done = 0;
                for slice in bounce.slices_mut() {
                    done += data.copy_to(done, slice);
                }
                bounce.freeze()
            }
            _ => data.to_bytes().into(),
        }
    }

    /// Checks that a range does not make a file grow beyond the length that was last seen, or has now.
    pub(super) fn within(&self, at: u64, len: u64) -> io::Result<()> {
        let end = at.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        let inside = end <= self.len.load(Ordering::Relaxed) || end <= self.size()?;
        if inside { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write(&self, lba: u64, data: &SgList, durable: bool) -> io::Result<()> {
        let at = self.offset(lba);
        self.within(at, data.len() as u64)?;
        let data = self.writable(data.clone());
        let mut done = 0;
        while done < data.len() {
            let mut iov: [IoSlice<'_>; IOV] = std::array::from_fn(|_| IoSlice::new(&[]));
            let n = data.io_slices(done, &mut iov);
            match self.file.write(&iov[..n], at + done as u64, durable)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        Ok(())
    }

    fn zero(&self, lba: u64, blocks: u64, unmap: bool) -> io::Result<()> {
        let (at, len) = (self.offset(lba), blocks * u64::from(self.geometry.block_size));
        self.within(at, len)?;
        match self.file.zero(at, len, unmap) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.write_zeros(at, len),
            result => result,
        }
    }

    fn write_zeros(&self, mut at: u64, mut len: u64) -> io::Result<()> {
        let zeros = self.writable(Bytes::from(vec![0; 256 << 10]).into()).to_bytes();
        while len > 0 {
            let piece = len.min(zeros.len() as u64);
            let written = self.file.write(&[IoSlice::new(&zeros[..piece as usize])], at, false)? as u64;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            (at, len) = (at + written, len - written);
        }
        Ok(())
    }

    fn status(&self, lba: u64, blocks: u64) -> io::Result<Vec<Extent>> {
        let block = u64::from(self.geometry.block_size);
        let end = (lba + blocks) * block;
        let mut at = lba * block;
        let mut extents = Vec::new();
        while at < end && extents.len() < 64 {
            let (mapped, stop) = self.file.run(at, end)?;
            // A block of which a part is allocated is mapped.
            let stop = if mapped { stop.div_ceil(block) } else { stop / block } * block;
            let (mapped, stop) = if stop <= at { (true, at + block) } else { (mapped, stop.min(end)) };
            extents.push(Extent { blocks: (stop - at) / block, mapped });
            at = stop;
        }
        Ok(extents)
    }
}

/// Copies all of `from`, which is as long as `to`.
pub(super) fn copy(from: &SgListMut, to: &mut SgListMut) {
    let mut done = 0;
    for part in from.parts() {
        done += to.copy_from(done, part);
    }
}
