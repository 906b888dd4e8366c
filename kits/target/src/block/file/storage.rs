//! The system calls behind [`FileDisk`](super::FileDisk), as a trait, so that a power cut can be simulated.

use super::FileOptions;
use rustix::fs::{self, AtFlags, FallocateFlags, FlockOperation, OFlags, SeekFrom, StatxFlags};
use rustix::io::ReadWriteFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// A file as a disk needs it. All offsets and lengths are in bytes.
pub(crate) trait Storage: Send + Sync {
    /// Its size now.
    fn size(&self) -> io::Result<u64>;
    /// Smallest unit of I/O, and the unit in which the medium really works.
    fn block_sizes(&self) -> io::Result<(u32, u32)>;
    /// What can be deallocated separately, or `None` when nothing can.
    fn hole_granularity(&self) -> Option<u32>;
    /// The open file, if it is one of the system.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// What memory must be like to be read and written.
    fn alignment(&self) -> Alignment {
        Alignment::default()
    }
    /// All of it is memory: no call waits for a medium.
    fn in_memory(&self) -> bool {
        false
    }
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

/// What direct I/O asks of memory, in bytes: powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Alignment {
    /// Of its address.
    pub(crate) memory: u32,
    /// Of its length, and of the place in the file.
    pub(crate) length: u32,
}

impl Default for Alignment {
    fn default() -> Self {
        Self { memory: 1, length: 1 }
    }
}

impl Alignment {
    /// Whether a piece of memory is as it must be.
    pub(crate) fn admits(self, piece: &[u8]) -> bool {
        (piece.as_ptr() as usize).is_multiple_of(self.memory as usize)
            && piece.len().is_multiple_of(self.length as usize)
    }
}

/// File systems that keep their files in memory.
const IN_MEMORY: [fs::FsWord; 2] = [0x0102_1994 /* tmpfs */, 0x8584_58f6 /* ramfs */];

/// A file or block device of the system.
#[derive(Debug)]
pub(crate) struct SystemFile {
    file: File,
    block_device: bool,
    holes: Option<u32>,
    alignment: Option<Alignment>,
    in_memory: bool,
}

impl SystemFile {
    pub(crate) fn open(path: &Path, options: &FileOptions) -> io::Result<Self> {
        let FileOptions { read_only, create, direct, .. } = *options;
        let flags = if direct { OFlags::DIRECT } else { OFlags::empty() };
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .create(create.is_some() && !read_only)
            .truncate(false)
            .custom_flags(flags.bits() as i32)
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
        let in_memory =
            !block_device && !direct && fs::fstatfs(&file).is_ok_and(|s| IN_MEMORY.contains(&s.f_type));
        let mut system = Self { file, block_device, holes: None, alignment: None, in_memory };
        if direct {
            system.alignment = Some(system.direct_alignment()?);
        }
        system.holes = system.probe_holes(read_only);
        Ok(system)
    }

    fn direct_alignment(&self) -> io::Result<Alignment> {
        // STATX_DIOALIGN, Linux 6.1. Older kernels do not tell: a sector will do nearly everywhere.
        let wanted = StatxFlags::from_bits_retain(0x2000);
        let told =
            fs::statx(&self.file, "", AtFlags::EMPTY_PATH, wanted).ok().filter(|s| s.stx_mask & 0x2000 != 0);
        let alignment = match told {
            Some(s) => Alignment { memory: s.stx_dio_mem_align, length: s.stx_dio_offset_align },
            None if self.block_device => {
                let sector = fs::ioctl_blksszget(&self.file)?;
                Alignment { memory: sector, length: sector }
            }
            None => Alignment { memory: 512, length: 512 },
        };
        match alignment {
            Alignment { memory: 1..=4096, length: 1.. } => Ok(alignment),
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, "no direct I/O with this file")),
        }
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

impl Drop for SystemFile {
    fn drop(&mut self) {
        // A ring of the kernel may hold the open file a little longer, and the lock with it.
        let _ = fs::flock(&self.file, FlockOperation::Unlock);
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
        let least = self.alignment.map_or(512, |a| a.length.max(512));
        Ok((least, if unit.is_power_of_two() { unit.clamp(512, 65536) } else { 4096 }))
    }

    fn hole_granularity(&self) -> Option<u32> {
        self.holes
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn alignment(&self) -> Alignment {
        self.alignment.unwrap_or_default()
    }

    fn in_memory(&self) -> bool {
        self.in_memory
    }

    fn read(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::preadv(&self.file, into, at))?)
    }

    fn read_cached(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        if self.alignment.is_some() {
            // There is no cache.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.in_memory {
            return self.read(into, at);
        }
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
