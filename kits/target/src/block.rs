//! Block devices: what a direct-access logical unit stores its blocks in.
//!
//! A [`BlockDevice`] is a *handle*, like one queue pair of an NVMe device: each nexus has its own, takes no lock to
//! use it, and all handles see the same blocks. Operations are started by [`submit`](BlockDevice::submit) and end,
//! in any order, in [`poll_done`](BlockDevice::poll_done); buffers move down with the first and back with the
//! second.
//!
//! ```text
//!   logical unit                 handle                     medium
//!     │ submit(BlockOp) ──────────▶ │ ── (thread, ring, lock) ──▶ │
//!     │ ◀─ poll_done → BlockDone ── │ ◀─────────────────────────── │
//! ```
//!
//! # What a device promises
//! - Reads see what was written before they were submitted, through whichever handle.
//! - After [`Action::Flush`], and after a write with `fua`, what was done before is there after a power cut, unless
//!   the medium is memory. A write that was not flushed is, block by block, there or not: never torn within a block,
//!   and not torn at all up to [`Geometry::atomic_blocks`].
//! - [`testing::check`] runs the proof; every device of this crate passes it.

mod async_adapter;
mod blocking;
mod file;
mod nbd;
mod null;
mod protected;
mod protection;
mod ram;
mod table;
pub mod testing;
#[cfg(all(target_os = "linux", feature = "io-uring"))]
mod uring;
mod workers;

pub use async_adapter::{AsyncAdapter, AsyncBlockDevice};
pub use blocking::Blocking;
pub use file::{FileDisk, FileOptions, IoEngine};
pub use nbd::{NbdAddress, NbdAddressError, NbdDisk, NbdOptions, NbdServer};
pub use null::NullDisk;
pub use protected::ProtectedDisk;
pub use protection::{TAG, guard};
pub use ram::RamDisk;

use bytes::Bytes;
use datamover::{SgList, SgListMut};
use scsi_cmd::protection::ProtectionType;
use std::fmt;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

/// Shape and abilities of a block device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Geometry {
    /// Bytes of a logical block: a power of two, at least 512.
    pub block_size: u32,
    /// Number of logical blocks.
    pub blocks: u64,
    /// log2 of logical blocks per physical block.
    pub physical_exponent: u8,
    /// Writes are refused.
    pub read_only: bool,
    /// A write may end before it is on the medium; [`Action::Flush`] puts it there.
    pub volatile_cache: bool,
    /// How blocks can be given back, or `None` when they cannot.
    pub unmap: Option<UnmapLimits>,
    /// The longest write, in blocks, that no power cut and no concurrent read sees half done; 0 or 1 promises
    /// nothing beyond single blocks.
    pub atomic_blocks: u32,
    /// Seeks cost time.
    pub rotational: bool,
    /// Reads return memory of the device's own: [`Action::Read`] needs no buffers.
    pub lends_reads: bool,
    /// There is room for protection information beside each block: [`Action::Protect`] puts it to use.
    pub protectable: bool,
    /// The protection information that blocks have now.
    pub protection: Option<ProtectionType>,
}

impl Geometry {
    /// A plain device: 1 logical block per physical block, volatile cache, nothing else.
    #[must_use]
    pub const fn new(block_size: u32, blocks: u64) -> Self {
        Self {
            block_size,
            blocks,
            physical_exponent: 0,
            read_only: false,
            volatile_cache: true,
            unmap: None,
            atomic_blocks: 0,
            rotational: false,
            lends_reads: false,
            protectable: false,
            protection: None,
        }
    }
}

/// How a device gives blocks back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnmapLimits {
    /// Blocks that are freed together; smaller or unaligned pieces may stay allocated.
    pub granularity: u32,
    /// Unmapped blocks read as zeros.
    pub zeroes: bool,
}

/// Names an operation from [`BlockDevice::submit`] to its [`BlockDone`]. Chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct OpId(pub u64);

/// An operation.
#[derive(Debug)]
pub struct BlockOp {
    /// Its name.
    pub id: OpId,
    /// What to do.
    pub action: Action,
}

/// What an operation does. Ranges lie within the device; the caller has checked them.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// Read blocks. Ends with [`Payload::Data`].
    Read {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
        /// Memory for the data, exactly as long as they are; empty when [`Geometry::lends_reads`].
        into: SgListMut,
    },
    /// Write blocks.
    Write {
        /// First block.
        lba: u64,
        /// A whole number of blocks.
        data: SgList,
        /// Not done before the data are on the medium.
        fua: bool,
    },
    /// Read blocks with their protection information, as one: never those of one write with that of another. Ends with
    /// [`Payload::Protected`]. For devices with [`Geometry::protection`], as the next one.
    ReadProtected {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u32,
        /// Memory for the data, as with [`Action::Read`].
        into: SgListMut,
    },
    /// Write blocks with their protection information, as one. [`Action::Write`], [`Action::Zero`] and
    /// [`Action::Unmap`] leave blocks without any: all bits set, which turns checks off.
    WriteProtected {
        /// First block.
        lba: u64,
        /// A whole number of blocks.
        data: SgList,
        /// [`TAG`] bytes for each.
        tags: Bytes,
        /// Not done before both are on the medium.
        fua: bool,
    },
    /// Change [`Geometry::protection`]; the protection information of all blocks is forgotten. For devices that are
    /// [`Geometry::protectable`].
    Protect(Option<ProtectionType>),
    /// Bring all that was written on the medium.
    Flush,
    /// Give blocks back. They read as zeros afterwards if [`UnmapLimits::zeroes`]; a hint otherwise.
    Unmap {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u64,
    },
    /// Make blocks read as zeros.
    Zero {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u64,
        /// They may be given back for it.
        unmap: bool,
        /// Not done before the zeros are on the medium.
        fua: bool,
    },
    /// Which blocks are allocated. Ends with [`Payload::Extents`]: runs from `lba` on, at most 64 of them.
    Status {
        /// First block.
        lba: u64,
        /// Number of blocks of interest.
        blocks: u64,
    },
    /// Bring blocks into a cache, if there is one.
    Prefetch {
        /// First block.
        lba: u64,
        /// Number of blocks.
        blocks: u64,
    },
}

impl Action {
    /// First block and number of blocks, for the actions that name some; `block_size` is that of the device.
    #[must_use]
    pub fn range(&self, block_size: u32) -> Option<(u64, u64)> {
        match self {
            Self::Read { lba, blocks, .. } | Self::ReadProtected { lba, blocks, .. } => {
                Some((*lba, u64::from(*blocks)))
            }
            Self::Write { lba, data, .. } | Self::WriteProtected { lba, data, .. } => {
                Some((*lba, data.len() as u64 / u64::from(block_size.max(1))))
            }
            Self::Unmap { lba, blocks }
            | Self::Zero { lba, blocks, .. }
            | Self::Status { lba, blocks }
            | Self::Prefetch { lba, blocks } => Some((*lba, *blocks)),
            Self::Flush | Self::Protect(_) => None,
        }
    }

    /// Checks that the blocks are among the `blocks` of the device.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`].
    pub fn within(&self, block_size: u32, blocks: u64) -> Result<(), BlockError> {
        let end = self.range(block_size).map_or(Some(0), |(lba, count)| lba.checked_add(count));
        if end.is_some_and(|end| end <= blocks) { Ok(()) } else { Err(BlockError::OutOfRange) }
    }
}

/// A run of blocks in the same state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Number of blocks.
    pub blocks: u64,
    /// Whether they are allocated.
    pub mapped: bool,
}

/// What an operation brings back.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Payload {
    /// Nothing.
    #[default]
    None,
    /// The data of a read.
    Data(SgList),
    /// The data of a read, and [`TAG`] bytes for each block.
    Protected {
        /// The data.
        data: SgList,
        /// Their protection information.
        tags: Vec<u8>,
    },
    /// The runs of [`Action::Status`].
    Extents(Vec<Extent>),
}

/// The end of an operation.
#[derive(Debug)]
pub struct BlockDone {
    /// Which.
    pub id: OpId,
    /// What came of it.
    pub result: Result<Payload, BlockError>,
}

/// Why an operation failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BlockError {
    /// The range is not on the device, which may have shrunk.
    OutOfRange,
    /// No room on the medium of a thin device.
    NoSpace,
    /// The medium cannot be written.
    ReadOnly,
    /// The medium failed at this block, if known.
    Medium(Option<u64>),
    /// The device, not the medium, failed.
    Device,
    /// The device is gone.
    Gone,
    /// No answer in time.
    TimedOut,
    /// Writes that had been reported as done did not reach the medium; this operation was not begun.
    WritesLost,
    /// The device cannot do this.
    Unsupported,
    /// The device takes nothing now; nothing was done. The command may be sent again after this time: the initiator is
    /// told so by BUSY with a status qualifier, in tenths of a second.
    Busy(Duration),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "range not on the device",
            Self::NoSpace => "no space left",
            Self::ReadOnly => "read-only",
            Self::Medium(_) => "medium error",
            Self::Device => "device error",
            Self::Gone => "device gone",
            Self::TimedOut => "timed out",
            Self::WritesLost => "earlier writes are lost",
            Self::Unsupported => "not supported",
            Self::Busy(_) => "busy",
        })
    }
}

impl std::error::Error for BlockError {}

/// What an [`io::Error`] says, which may carry a [`BlockError`] itself: `io::Error::other(BlockError::Busy(delay))`.
impl From<&io::Error> for BlockError {
    fn from(error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            return *inner;
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::ReadOnly,
            io::ErrorKind::UnexpectedEof => Self::OutOfRange,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::Unsupported => Self::Unsupported,
            io::ErrorKind::NotFound
            | io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Gone,
            // EIO and what else the kernel may report of a medium.
            _ => Self::Medium(None),
        }
    }
}

/// The operation that found no room; it can be submitted again after the next [`BlockDone`].
#[derive(Debug)]
pub struct Full(pub BlockOp);

/// A handle on a block device. See the [module documentation](self).
///
/// Order of calls: [`submit`](Self::submit) any number of times; [`poll_done`](Self::poll_done) until `Pending`, and
/// again when the waker of its last context was woken. Dropping a handle lets its operations finish unseen.
pub trait BlockDevice: Send {
    /// Shape and abilities, as they are now: a device can be resized.
    fn geometry(&self) -> Geometry;

    /// Starts an operation without blocking. It may wait for the next [`poll_done`](Self::poll_done), so that several
    /// are begun together.
    ///
    /// # Errors
    /// [`Full`] hands the operation back when the device has no room for it now.
    fn submit(&mut self, op: BlockOp) -> Result<(), Full>;

    /// An operation that has ended, in no particular order.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone>;

    /// Another handle on the same blocks.
    ///
    /// # Errors
    /// Whatever the system says, when the device has to be opened again.
    fn handle(&self) -> io::Result<Box<dyn BlockDevice>>;
}

impl BlockDevice for Box<dyn BlockDevice> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        (**self).submit(op)
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        (**self).poll_done(cx)
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        (**self).handle()
    }
}
