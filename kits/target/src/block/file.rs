//! A disk in a file or on a block device of the system.
//!
//! Data go through the page cache: a write is done when it is there, a flush or a write with FUA when it is on the
//! medium (`fdatasync`, `RWF_DSYNC`). Reads of cached pages are served at once by the calling thread, everything
//! else by a few threads. Unmapped blocks become holes; a hole is an unmapped block.
//!
//! When a flush fails, the kernel forgets which pages did not reach the medium, and a second flush would succeed: the
//! disk then refuses writes and flushes until it is opened again, rather than lose data silently.

mod storage;

pub(crate) use storage::{Storage, SystemFile};

use super::workers::{Completions, Workers};
use super::{
    Action, BlockDevice, BlockDone, BlockError, BlockOp, Extent, Full, Geometry, Payload, UnmapLimits,
};
use datamover::{SgList, SgListMut};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// How a file is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// Bytes of a logical block; `None` for what a block device has, or 512.
    pub block_size: Option<u32>,
    /// Bytes of a physical block; `None` for what the system reports.
    pub physical_block_size: Option<u32>,
    /// Open for reading only.
    pub read_only: bool,
    /// Make the file, sparse, or extend it to this many bytes.
    pub create: Option<u64>,
    /// Threads that do blocking calls, shared by all handles.
    pub threads: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { block_size: None, physical_block_size: None, read_only: false, create: None, threads: 4 }
    }
}

/// A handle on a disk in a file.
pub struct FileDisk {
    shared: Arc<Shared>,
    completions: Completions,
    /// Ended at once, by the calling thread.
    ready: VecDeque<BlockDone>,
}

struct Shared {
    file: Box<dyn Storage>,
    geometry: Geometry,
    workers: Workers,
    /// A flush has failed.
    lost: AtomicBool,
    /// Held by whoever waits for the medium: the kernel tells a writeback error to the first who asks through this
    /// open file, and nobody may hear "done" in its place.
    syncing: Mutex<()>,
}

/// Elements of one `preadv` or `pwritev`.
const IOV: usize = 64;

impl FileDisk {
    /// Opens (or makes) the file or block device at `path`. It is locked against a second server.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] when another process serves it, and
    /// [`io::ErrorKind::InvalidInput`] for a block size that is no power of two of at least 512.
    pub fn open(path: impl AsRef<Path>, options: &FileOptions) -> io::Result<Self> {
        let file = SystemFile::open(path.as_ref(), options.read_only, options.create)?;
        Self::over(Box::new(file), options)
    }

    pub(crate) fn over(file: Box<dyn Storage>, options: &FileOptions) -> io::Result<Self> {
        let (logical, physical) = file.block_sizes()?;
        let block_size = options.block_size.unwrap_or(logical.max(512));
        let physical = options.physical_block_size.unwrap_or(physical).max(block_size);
        let valid = |size: u32| size.is_power_of_two() && (512..=65536).contains(&size);
        if !valid(block_size) || !physical.is_power_of_two() || block_size < logical {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "block size not possible"));
        }
        let granularity = file.hole_granularity();
        let geometry = Geometry {
            physical_exponent: (physical / block_size).trailing_zeros().min(15) as u8,
            read_only: options.read_only,
            unmap: granularity
                .filter(|_| !options.read_only)
                .map(|bytes| UnmapLimits { granularity: (bytes / block_size).max(1), zeroes: true }),
            ..Geometry::new(block_size, file.size()? / u64::from(block_size))
        };
        let workers = Workers::new("disk", options.threads, 1024)?;
        let shared =
            Shared { file, geometry, workers, lost: AtomicBool::new(false), syncing: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), completions: Completions::default(), ready: VecDeque::new() })
    }
}

impl BlockDevice for FileDisk {
    fn geometry(&self) -> Geometry {
        let block = u64::from(self.shared.geometry.block_size);
        // A size that cannot be read now is the last known one.
        let blocks = self.shared.file.size().map_or(self.shared.geometry.blocks, |bytes| bytes / block);
        Geometry { blocks, ..self.shared.geometry }
    }

    fn submit(&mut self, mut op: BlockOp) -> Result<(), Full> {
        if let Action::Read { lba, blocks, mut into } = op.action {
            let at = lba * u64::from(self.shared.geometry.block_size);
            if self.shared.cached(at, &mut into) {
                let result = Ok(Payload::Data(into.freeze()));
                self.ready.push_back(BlockDone { id: op.id, result });
                return Ok(());
            }
            op.action = Action::Read { lba, blocks, into };
        }
        let (shared, ticket) = (self.shared.clone(), self.completions.ticket(op.id));
        // The operation must survive a full queue.
        let mut slot = Some((op, ticket));
        let queued = self.shared.workers.spawn(|| {
            let taken = slot.take();
            Box::new(move || {
                if let Some((op, ticket)) = taken {
                    let result = shared.run(op.action);
                    // Who hears of the end may drop its handle and open the file again at once.
                    drop(shared);
                    ticket.done(result);
                }
            })
        });
        match slot {
            Some((op, ticket)) if !queued => {
                ticket.cancel();
                Err(Full(op))
            }
            _ => Ok(()),
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        match self.ready.pop_front() {
            Some(done) => Poll::Ready(done),
            None => self.completions.poll(cx),
        }
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self {
            shared: self.shared.clone(),
            completions: Completions::default(),
            ready: VecDeque::new(),
        }))
    }
}

impl Shared {
    /// Reads without waiting for the medium; `false` when a part would have to.
    fn cached(&self, at: u64, into: &mut SgListMut) -> bool {
        let len = into.len();
        let mut done = 0;
        while done < len {
            let mut iov: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let n = into.io_slices_mut(done, len - done, &mut iov);
            match self.file.read_cached(&mut iov[..n], at + done as u64) {
                Ok(read) if read > 0 => done += read,
                _ => return false,
            }
        }
        true
    }

    fn run(&self, action: Action) -> Result<Payload, BlockError> {
        let result = match action {
            Action::Read { lba, mut into, .. } => {
                return match self.read(lba, &mut into) {
                    Ok(()) => Ok(Payload::Data(into.freeze())),
                    Err(error) => Err(BlockError::from(&error)),
                };
            }
            Action::Status { lba, blocks } => {
                let extents = self.status(lba, blocks).map_err(|e| BlockError::from(&e))?;
                return Ok(Payload::Extents(extents));
            }
            Action::Prefetch { lba, blocks } => {
                let block = u64::from(self.geometry.block_size);
                self.file.prefetch(lba * block, blocks.saturating_mul(block))
            }
            _ if self.lost.load(Ordering::Acquire) => return Err(BlockError::Device),
            Action::Write { lba, data, fua } => self.write(lba, &data, fua),
            Action::Flush => self.flush(),
            Action::Unmap { lba, blocks } => self.zero(lba, blocks, true),
            Action::Zero { lba, blocks, unmap, fua } => {
                self.zero(lba, blocks, unmap).and_then(|()| match fua {
                    true => self.flush(),
                    false => Ok(()),
                })
            }
        };
        result.map(|()| Payload::None).map_err(|e| BlockError::from(&e))
    }

    fn read(&self, lba: u64, into: &mut SgListMut) -> io::Result<()> {
        let at = lba * u64::from(self.geometry.block_size);
        let len = into.len();
        let mut done = 0;
        while done < len {
            let mut iov: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let n = into.io_slices_mut(done, len - done, &mut iov);
            match self.file.read(&mut iov[..n], at + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }

    /// The right to wait for the medium; refused when an error has told that older writes are lost.
    fn sync_alone(&self) -> io::Result<MutexGuard<'_, ()>> {
        let guard = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lost.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier flush failed"));
        }
        Ok(guard)
    }

    fn write(&self, lba: u64, data: &SgList, fua: bool) -> io::Result<()> {
        let _alone = if fua { Some(self.sync_alone()?) } else { None };
        let at = lba * u64::from(self.geometry.block_size);
        let end = at + data.len() as u64;
        if end > self.file.size()? {
            // A file would grow.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let block = self.geometry.block_size as usize;
        let mut done = 0;
        while done < data.len() {
            let mut iov: [IoSlice<'_>; IOV] = std::array::from_fn(|_| IoSlice::new(&[]));
            let n = data.io_slices(done, &mut iov);
            let gathered: usize = iov[..n].iter().map(|s| s.len()).sum();
            // No call may end within a block, or a power cut could tear it: many small pieces are copied together.
            let result = if (done + gathered).is_multiple_of(block) {
                self.file.write(&iov[..n], at + done as u64, fua)
            } else {
                let mut whole = vec![0; (data.len() - done).min(256 << 10)];
                data.copy_to(done, &mut whole);
                self.file.write(&[IoSlice::new(&whole)], at + done as u64, fua)
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) => {
                    if fua && error.kind() != io::ErrorKind::StorageFull {
                        self.lost.store(true, Ordering::Release);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let _alone = self.sync_alone()?;
        self.file.sync().inspect_err(|error| {
            tracing::error!(%error, "flush failed: the disk refuses writes until it is opened again");
            self.lost.store(true, Ordering::Release);
        })
    }

    fn zero(&self, lba: u64, blocks: u64, unmap: bool) -> io::Result<()> {
        let block = u64::from(self.geometry.block_size);
        let (at, len) = (lba * block, blocks * block);
        if at + len > self.file.size()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.file.zero(at, len, unmap) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.write_zeros(at, len),
            result => result,
        }
    }

    fn write_zeros(&self, mut at: u64, mut len: u64) -> io::Result<()> {
        let zeros = vec![0; 256 << 10];
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

#[cfg(test)]
mod tests;
