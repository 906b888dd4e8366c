//! The system calls behind [`FileDisk`](super::FileDisk), as a trait, so that a power cut can be simulated.

use rustix::fs::{self, FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::ReadWriteFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A file as a disk needs it. All offsets and lengths are in bytes.
pub(crate) trait Storage: Send + Sync {
    /// Its size now.
    fn size(&self) -> io::Result<u64>;
    /// Smallest unit of I/O, and the unit in which the medium really works.
    fn block_sizes(&self) -> io::Result<(u32, u32)>;
    /// What can be deallocated separately, or `None` when nothing can.
    fn hole_granularity(&self) -> Option<u32>;
    /// Reads what it can.
    fn read(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize>;
    /// Reads what it can without waiting for the medium; an error when that is nothing.
    fn read_cached(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize>;
    /// Writes what it can; when `durable`, on the medium.
    fn write(&self, from: &[IoSlice<'_>], at: u64, durable: bool) -> io::Result<usize>;
    /// Brings what was written on the medium.
    fn sync(&self) -> io::Result<()>;
    /// Makes the range zero, deallocated with `hole`. [`io::ErrorKind::Unsupported`] when it has to be written.
    fn zero(&self, at: u64, len: u64, hole: bool) -> io::Result<()>;
    /// Whether there is data at `at`, and where that ends; at most `end`.
    fn run(&self, at: u64, end: u64) -> io::Result<(bool, u64)>;
    /// Asks for the range to be read into the cache.
    fn prefetch(&self, at: u64, len: u64) -> io::Result<()>;
}

/// A file or block device of the system.
#[derive(Debug)]
pub(crate) struct SystemFile {
    file: File,
    block_device: bool,
    holes: Option<u32>,
}

impl SystemFile {
    pub(crate) fn open(path: &Path, read_only: bool, create: Option<u64>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .create(create.is_some() && !read_only)
            .truncate(false)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a block device"));
        }
        let lock = if read_only {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        fs::flock(&file, lock)?;
        let length = file.metadata()?.len();
        if let Some(size) = create.filter(|size| !block_device && !read_only && length < *size) {
            file.set_len(size)?;
        }
        let mut system = Self { file, block_device, holes: None };
        system.holes = system.probe_holes(read_only);
        Ok(system)
    }

    /// Punching a hole beyond the end of a file changes nothing and tells whether the file system can.
    fn probe_holes(&self, read_only: bool) -> Option<u32> {
        let unit = self.block_sizes().ok()?.1.max(4096);
        if read_only {
            return None;
        }
        if self.block_device {
            return Some(unit);
        }
        let end = self.size().ok()?.next_multiple_of(u64::from(unit));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fs::fallocate(&self.file, flags, end, u64::from(unit)).ok().map(|()| unit)
    }
}

impl Storage for SystemFile {
    fn size(&self) -> io::Result<u64> {
        if self.block_device {
            return Ok(fs::seek(&self.file, SeekFrom::End(0))?);
        }
        Ok(self.file.metadata()?.len())
    }

    fn block_sizes(&self) -> io::Result<(u32, u32)> {
        if self.block_device {
            return Ok((fs::ioctl_blksszget(&self.file)?, fs::ioctl_blkpbszget(&self.file)?));
        }
        let unit = u32::try_from(fs::fstat(&self.file)?.st_blksize).unwrap_or(4096);
        Ok((512, if unit.is_power_of_two() { unit.clamp(512, 65536) } else { 4096 }))
    }

    fn hole_granularity(&self) -> Option<u32> {
        self.holes
    }

    fn read(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::preadv(&self.file, into, at))?)
    }

    fn read_cached(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::preadv2(&self.file, into, at, ReadWriteFlags::NOWAIT)?)
    }

    fn write(&self, from: &[IoSlice<'_>], at: u64, durable: bool) -> io::Result<usize> {
        let flags = if durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev2(&self.file, from, at, flags))?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::io::retry_on_intr(|| fs::fdatasync(&self.file))?)
    }

    fn zero(&self, at: u64, len: u64, hole: bool) -> io::Result<()> {
        let how = if hole && self.holes.is_some() {
            FallocateFlags::PUNCH_HOLE
        } else {
            FallocateFlags::ZERO_RANGE
        };
        let flags = how | FallocateFlags::KEEP_SIZE;
        match rustix::io::retry_on_intr(|| fs::fallocate(&self.file, flags, at, len)) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            result => Ok(result?),
        }
    }

    fn run(&self, at: u64, end: u64) -> io::Result<(bool, u64)> {
        if self.block_device {
            // Devices do not tell.
            return Ok((true, end));
        }
        match fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(data) if data > at => Ok((false, data.min(end))),
            Ok(_) => Ok((true, fs::seek(&self.file, SeekFrom::Hole(at))?.min(end))),
            // No data up to the end of the file.
            Err(rustix::io::Errno::NXIO) => Ok((false, end)),
            Err(rustix::io::Errno::INVAL) => Ok((true, end)),
            Err(error) => Err(error.into()),
        }
    }

    fn prefetch(&self, at: u64, len: u64) -> io::Result<()> {
        let len = std::num::NonZeroU64::new(len);
        Ok(fs::fadvise(&self.file, at, len, fs::Advice::WillNeed)?)
    }
}
