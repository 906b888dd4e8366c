//! A disk in a file or on a block device of the system.
//!
//! Data go through the page cache: a write is done when it is there, a flush or a write with FUA when it is on the
//! medium (`fdatasync`, `RWF_DSYNC`). Reads of cached pages are served at once by the calling thread, writes into the
//! cache by a few threads, everything else by an io_uring of the handle where the kernel has it ([`IoEngine`]). A file in memory (tmpfs) is nothing but cache: there the calling thread does it all. With
//! [`FileOptions::direct`] there is no cache of the system at all (`O_DIRECT`). Unmapped blocks become holes; a hole
//! is an unmapped block.
//!
//! When data do not reach the medium, the kernel tells one flush and forgets which pages they were: the disk then
//! refuses writes and flushes until it is opened again, rather than lose data silently ([`sync`]).

#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod lane;
#[cfg(not(all(target_os = "linux", feature = "io-uring")))]
#[path = "file/no_lane.rs"]
mod lane;
mod medium;
mod storage;
mod sync;

pub(crate) use storage::{Storage, SystemFile};

use super::workers::{Completions, Ticket, Workers};
use super::{Action, BlockDevice, BlockDone, BlockOp, Full, Geometry, Payload, UnmapLimits};
use lane::Lane;
use medium::Medium;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Who does the calls that wait for a medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoEngine {
    /// [`Uring`](Self::Uring) where the kernel allows it, else [`Threads`](Self::Threads).
    #[default]
    Auto,
    /// A pool of [`FileOptions::threads`].
    Threads,
    /// An io_uring a handle, made when it is first needed. Its completions come through the tokio runtime in which that
    /// is, which needs its I/O driver; handles used elsewhere are served by threads.
    Uring,
}

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
    /// Go past the page cache of the system (`O_DIRECT`).
    pub direct: bool,
    /// Who does the calls that wait.
    pub engine: IoEngine,
    /// With direct I/O through an io_uring: bytes of pools' memory that each handle may have registered with the kernel
    /// and so pinned (its slabs, see [`Slab`](datamover::Slab)); 0 for none. The same slab counts for every handle that
    /// uses it, also against RLIMIT_MEMLOCK; when that is reached, I/O goes on without, and the log says so.
    pub registered: usize,
    /// Threads that do blocking calls, shared by all handles.
    pub threads: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            block_size: None,
            physical_block_size: None,
            read_only: false,
            create: None,
            direct: false,
            engine: IoEngine::Auto,
            registered: 16 << 20,
            threads: 4,
        }
    }
}

/// A handle on a disk in a file.
pub struct FileDisk {
    medium: Arc<Medium>,
    completions: Completions,
    /// Ended at once, by the calling thread.
    ready: VecDeque<BlockDone>,
    lane: LaneState,
}

/// Whether a handle has a ring.
enum LaneState {
    /// It may get one.
    Untried,
    Open(Box<Lane>),
    Threads,
}

/// The most bytes of a file in memory that the calling thread writes, zeroes or gives back at once.
const AT_ONCE: u64 = 4 << 20;

impl FileDisk {
    /// Opens (or makes) the file or block device at `path`. It is locked against a second server.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] when another process serves it, and
    /// [`io::ErrorKind::InvalidInput`] for a block size that is no power of two of at least 512, or too small for
    /// direct I/O.
    pub fn open(path: impl AsRef<Path>, options: &FileOptions) -> io::Result<Self> {
        let file = SystemFile::open(path.as_ref(), options)?;
        Self::over(Box::new(file), options)
    }

    pub(crate) fn over(file: Box<dyn Storage>, options: &FileOptions) -> io::Result<Self> {
        let (logical, physical) = file.block_sizes()?;
        let block_size = options.block_size.unwrap_or(logical.max(512));
        let physical = options.physical_block_size.unwrap_or(physical).max(block_size);
        let valid = |size: u32| size.is_power_of_two() && (512..=65536).contains(&size);
        if !valid(block_size) || !physical.is_power_of_two() || block_size < logical {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "block size {block_size} is not possible here: the file is accessed in units of {logical}"
                ),
            ));
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
        let ring = match options.engine {
            IoEngine::Threads => false,
            _ if file.descriptor().is_none() || file.in_memory() => false,
            IoEngine::Auto => lane::available().is_ok(),
            IoEngine::Uring => {
                lane::available()
                    .map_err(|why| io::Error::new(io::ErrorKind::Unsupported, format!("io_uring: {why}")))?;
                true
            }
        };
        let workers = Workers::new("disk", options.threads, 1024)?;
        Ok(Self::on(Arc::new(Medium::new(file, geometry, workers, ring, options.registered))))
    }

    fn on(medium: Arc<Medium>) -> Self {
        let lane = if medium.ring { LaneState::Untried } else { LaneState::Threads };
        Self { medium, completions: Completions::default(), ready: VecDeque::new(), lane }
    }

    /// The handle's ring, if it has one or can have one here.
    fn lane(&mut self) -> Option<&mut Lane> {
        // Background work has a thread and no runtime.
        if matches!(self.lane, LaneState::Untried) && tokio::runtime::Handle::try_current().is_ok() {
            self.lane = match Lane::open(&self.medium) {
                Ok(lane) => LaneState::Open(Box::new(lane)),
                Err(error) => {
                    tracing::warn!(%error, "no io_uring for one handle of a disk: threads serve it");
                    LaneState::Threads
                }
            };
        }
        match &mut self.lane {
            LaneState::Open(lane) => Some(lane),
            _ => None,
        }
    }

    fn queue_for_threads(&self, op: BlockOp, ticket: Ticket) -> Result<(), Full> {
        let medium = self.medium.clone();
        self.medium.workers.queue(op, ticket, move |action, ticket| {
            let outcome = medium.perform(action);
            drop(medium);
            outcome.report(ticket);
        })
    }

    /// Whether the calling thread can do this without waiting for a medium.
    fn at_once(&self, action: &Action) -> bool {
        let (_, blocks) = action.range(self.medium.geometry.block_size).unwrap_or_default();
        self.medium.file.in_memory() && self.medium.offset(blocks) <= AT_ONCE
    }
}

impl BlockDevice for FileDisk {
    fn geometry(&self) -> Geometry {
        let block = u64::from(self.medium.geometry.block_size);
        // A size that cannot be read now is the last known one.
        let blocks = self.medium.size().map_or(self.medium.geometry.blocks, |bytes| bytes / block);
        Geometry { blocks, ..self.medium.geometry }
    }

    fn submit(&mut self, mut op: BlockOp) -> Result<(), Full> {
        if let Action::Read { lba, blocks, mut into } = op.action {
            if self.medium.cached(self.medium.offset(lba), &mut into) {
                let result = Ok(Payload::Data(into.freeze()));
                self.ready.push_back(BlockDone { id: op.id, result });
                return Ok(());
            }
            op.action = Action::Read { lba, blocks, into };
        }
        let ticket = self.completions.ticket(op.id);
        if self.at_once(&op.action) {
            self.medium.perform(op.action).report(ticket);
            return Ok(());
        }
        if Lane::takes(&self.medium, &op.action) && self.lane().is_some() {
            let LaneState::Open(lane) = &mut self.lane else { return Err(Full(op)) };
            if lane.is_full() {
                ticket.cancel();
                return Err(Full(op));
            }
            lane.start(&self.medium, op.action, ticket);
            return Ok(());
        }
        self.queue_for_threads(op, ticket)
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        if let Some(done) = self.ready.pop_front().or_else(|| self.completions.pop()) {
            return Poll::Ready(done);
        }
        if let LaneState::Open(lane) = &mut self.lane {
            lane.poll(&self.medium, cx);
        }
        self.completions.poll(cx)
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self::on(self.medium.clone())))
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        // What the kernel has begun it will end, in buffers that have to be there: a thread waits for that.
        if let LaneState::Open(lane) = std::mem::replace(&mut self.lane, LaneState::Threads)
            && lane.is_busy()
        {
            let medium = self.medium.clone();
            self.medium.workers.spawn_anyway(move || lane.finish(&medium));
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(all(test, target_os = "linux", feature = "io-uring"))]
mod tests_uring;
