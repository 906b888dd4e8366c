//! The tag file: protection information of a disk, eight bytes a block.
//!
//! ```text
//!   0      magic, version, protection type, block size, blocks of a region      one sector
//!   512    a bit for each region of blocks that was written since the last clean end
//!   4096   block 0, block 1, …: bits inverted, so that a hole says FF..FF, no protection information
//! ```
//!
//! Data and tags are two files, and no order of writes keeps a power cut from bringing the one on the medium and not
//! the other: a block would be there, whole, old or new, and yet fail its guard. So before the first write to a region
//! its bit goes to the medium. Who opens the files after anything but a clean end reads the regions that have a bit, and
//! gives blocks whose guard does not fit a guard that does; the tags stay what they are, those of the old or of the new
//! block. What was flushed has its data and its tags on the medium and is not touched. Outside those regions, and
//! whenever the end was clean, a guard that does not fit is told to the initiator: the file was damaged.

use crate::block::file::Storage;
use crate::block::protection::{TAG, to_number, unwritten};
use crate::block::{BlockError, Geometry};
use scsi_cmd::protection::ProtectionType;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes before the tags.
pub(super) const HEADER: u64 = 4096;
const SECTOR: usize = 512;
const MAGIC: &[u8; 14] = b"T10 PI tags\n\x00\x01";
/// Bytes of the bitmap.
const BITMAP: usize = HEADER as usize - SECTOR;
/// Locks: blocks `n * SHARE` to `(n + 1) * SHARE - 1` are under lock `n % LOCKS`.
const LOCKS: u64 = 64;
const SHARE: u64 = 256;

pub(super) struct TagFile {
    file: Box<dyn Storage>,
    protection: AtomicU8,
    block_size: u32,
    /// Blocks of a region; the last region goes to the end of the disk, however far that is.
    region: u64,
    bitmap: Mutex<Vec<u8>>,
    /// Tags did not reach the medium: nothing is written any more.
    lost: AtomicBool,
    /// Held by whoever waits for the medium: the kernel tells a writeback error to the first who asks through this
    /// open file, and nobody may hear "done" in its place.
    syncing: Mutex<()>,
    /// Keep the data and the tags of a block together: a write holds those of its blocks, reads share them.
    locks: Vec<RwLock<()>>,
}

/// Blocks that nobody else changes.
pub(super) enum Held<'a> {
    Shared(#[allow(dead_code, reason = "held, not looked at")] Vec<RwLockReadGuard<'a, ()>>),
    Exclusive(#[allow(dead_code, reason = "held, not looked at")] Vec<RwLockWriteGuard<'a, ()>>),
}

impl TagFile {
    /// The tags in `file`, which is made a tag file of type `kind` when it is empty.
    pub(super) fn over(
        file: Box<dyn Storage>,
        kind: Option<ProtectionType>,
        disk: &Geometry,
    ) -> io::Result<Self> {
        let mut header = vec![0; HEADER as usize];
        read_whole(&*file, 0, &mut header)?;
        let new = header.iter().all(|byte| *byte == 0);
        let bits = BITMAP as u64 * 8;
        let (protection, block_size, region) = match new {
            // No more regions than bits, and none so small that many would be marked.
            true => (
                to_number(kind),
                disk.block_size,
                disk.blocks.div_ceil(bits).next_power_of_two().max(1 << 14),
            ),
            false => decode(&header)?,
        };
        if block_size != disk.block_size {
            let what = format!("the tag file is one for blocks of {block_size} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let bitmap = Mutex::new(header.split_off(SECTOR));
        let locks = (0..LOCKS).map(|_| RwLock::new(())).collect();
        let (lost, syncing) = (AtomicBool::new(false), Mutex::default());
        let protection = AtomicU8::new(protection);
        let tags = Self { file, protection, block_size, region, bitmap, lost, syncing, locks };
        if new && !disk.read_only {
            tags.write_identity()?;
        }
        Ok(tags)
    }

    pub(super) fn protection(&self) -> Option<ProtectionType> {
        ProtectionType::from_number(self.protection.load(Ordering::Acquire))
    }

    fn write_identity(&self) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        sector[..14].copy_from_slice(MAGIC);
        sector[15] = self.protection.load(Ordering::Acquire);
        sector[16..20].copy_from_slice(&self.block_size.to_be_bytes());
        sector[20..28].copy_from_slice(&self.region.to_be_bytes());
        write_whole(&*self.file, 0, &sector, true)
    }

    /// Does what ends on the medium. An error of it may be one of older writes, which have been reported as done.
    fn durably(&self, work: impl FnOnce() -> io::Result<()>) -> Result<(), BlockError> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        work().map_err(|error| {
            if error.kind() != io::ErrorKind::StorageFull {
                tracing::error!(%error, "tags did not reach the medium: the disk refuses writes until it is opened again");
                self.lost.store(true, Ordering::Release);
            }
            BlockError::from(&error)
        })
    }

    fn check(&self) -> Result<(), BlockError> {
        if self.lost.load(Ordering::Acquire) { Err(BlockError::WritesLost) } else { Ok(()) }
    }

    /// Changes the type; all tags are forgotten first, so that none is taken for one of the new type.
    pub(super) fn protect(&self, kind: Option<ProtectionType>) -> Result<(), BlockError> {
        self.durably(|| {
            let end = self.file.size()?;
            if end > HEADER {
                self.zero(HEADER, end - HEADER)?;
            }
            self.file.sync()?;
            self.protection.store(to_number(kind), Ordering::Release);
            self.write_identity()
        })
    }

    fn stripes(lba: u64, blocks: u64) -> impl Iterator<Item = usize> {
        let (first, last) = (lba / SHARE, (lba + blocks.max(1) - 1) / SHARE);
        // In ascending order, whoever asks: nobody waits for one who waits for him.
        (0..LOCKS)
            .filter(move |lock| (lock + LOCKS - first % LOCKS) % LOCKS <= last - first)
            .map(|n| n as usize)
    }

    pub(super) fn share(&self, lba: u64, blocks: u64) -> Held<'_> {
        let lock = |n: usize| self.locks[n].read().unwrap_or_else(PoisonError::into_inner);
        Held::Shared(Self::stripes(lba, blocks).map(lock).collect())
    }

    pub(super) fn own(&self, lba: u64, blocks: u64) -> Held<'_> {
        let lock = |n: usize| self.locks[n].write().unwrap_or_else(PoisonError::into_inner);
        Held::Exclusive(Self::stripes(lba, blocks).map(lock).collect())
    }

    fn bitmap(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bitmap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bits(&self, lba: u64, blocks: u64) -> RangeInclusive<usize> {
        let bit = |lba: u64| (lba / self.region).min(BITMAP as u64 * 8 - 1) as usize;
        bit(lba)..=bit(lba + blocks.max(1) - 1)
    }

    /// Says on the medium that these blocks are about to be written; mostly that has been said before.
    pub(super) fn mark(&self, lba: u64, blocks: u64) -> Result<(), BlockError> {
        self.check()?;
        let bits = self.bits(lba, blocks);
        let said = |bitmap: &[u8], n: usize| bitmap[n / 8] & 1 << (n % 8) != 0;
        let (first, last) = (bits.start() / 8 / SECTOR * SECTOR, (bits.end() / 8 / SECTOR + 1) * SECTOR);
        if bits.clone().all({
            let bitmap = self.bitmap();
            move |n| said(&bitmap, n)
        }) {
            return Ok(());
        }
        self.durably(|| {
            let mut sectors = self.bitmap()[first..last].to_vec();
            for n in bits.clone() {
                sectors[n / 8 - first] |= 1 << (n % 8);
            }
            write_whole(&*self.file, (SECTOR + first) as u64, &sectors, true)?;
            // Only now can others rely on it. Nobody else has changed it: that takes what `durably` holds.
            self.bitmap()[first..last].copy_from_slice(&sectors);
            Ok(())
        })
    }

    /// The runs of blocks that were written since the last clean end.
    pub(super) fn marked(&self, disk_blocks: u64) -> Vec<(u64, u64)> {
        let bitmap = self.bitmap();
        let last = BITMAP as u64 * 8 - 1;
        let set = (0..=last).filter(|n| bitmap[(n / 8) as usize] & 1 << (n % 8) != 0);
        set.map(|n| {
            let lba = n * self.region;
            let end = if n == last { disk_blocks } else { (lba + self.region).min(disk_blocks) };
            (lba, end.saturating_sub(lba))
        })
        .filter(|(_, blocks)| *blocks > 0)
        .collect()
    }

    /// Data and tags are on the medium and agree.
    pub(super) fn close(&self) -> Result<(), BlockError> {
        self.durably(|| {
            let mut bitmap = self.bitmap();
            if bitmap.iter().all(|byte| *byte == 0) {
                return Ok(());
            }
            bitmap.fill(0);
            write_whole(&*self.file, SECTOR as u64, &bitmap, true)
        })
    }

    pub(super) fn sync(&self) -> Result<(), BlockError> {
        self.durably(|| self.file.sync())
    }

    pub(super) fn read(&self, lba: u64, blocks: u64) -> Result<Vec<u8>, BlockError> {
        let mut tags = vec![0; blocks as usize * TAG];
        read_whole(&*self.file, HEADER + lba * TAG as u64, &mut tags).map_err(|e| BlockError::from(&e))?;
        tags.iter_mut().for_each(|byte| *byte = !*byte);
        Ok(tags)
    }

    pub(super) fn write(&self, lba: u64, tags: &[u8], durable: bool) -> Result<(), BlockError> {
        let stored: Vec<u8> = tags.iter().map(|byte| !byte).collect();
        let write = || write_whole(&*self.file, HEADER + lba * TAG as u64, &stored, durable);
        if durable { self.durably(write) } else { write().map_err(|e| BlockError::from(&e)) }
    }

    /// These blocks have no protection information.
    pub(super) fn clear(&self, lba: u64, blocks: u64) -> Result<(), BlockError> {
        // A hole is worth its system call from some pages on.
        if blocks <= SHARE {
            return self.write(lba, &unwritten(blocks), false);
        }
        let (at, len) = (HEADER + lba * TAG as u64, blocks * TAG as u64);
        // Beyond the end of the file there is none anyhow.
        let clear = || match self.file.size()?.saturating_sub(at).min(len) {
            0 => Ok(()),
            len => self.zero(at, len),
        };
        clear().map_err(|e: io::Error| BlockError::from(&e))
    }

    fn zero(&self, mut at: u64, mut len: u64) -> io::Result<()> {
        match self.file.zero(at, len, true) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            result => return result,
        }
        let zeros = vec![0; 64 << 10];
        while len > 0 {
            let piece = len.min(zeros.len() as u64);
            write_whole(&*self.file, at, &zeros[..piece as usize], false)?;
            (at, len) = (at + piece, len - piece);
        }
        Ok(())
    }
}

/// Protection type, block size and blocks of a region.
fn decode(header: &[u8]) -> io::Result<(u8, u32, u64)> {
    let field =
        |from: usize, len: usize| header[from..from + len].iter().fold(0, |v, b| v << 8 | u64::from(*b));
    let (protection, block_size, region) = (header[15], field(16, 4) as u32, field(20, 8));
    let known = protection == 0 || ProtectionType::from_number(protection).is_some();
    if &header[..14] != MAGIC || !known || !region.is_power_of_two() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no tag file, or a damaged one"));
    }
    Ok((protection, block_size, region))
}

/// Fills `into`; beyond the end of the file are zeros.
fn read_whole(file: &dyn Storage, at: u64, into: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < into.len() {
        match file.read(&mut [IoSliceMut::new(&mut into[done..])], at + done as u64)? {
            0 => {
                into[done..].fill(0);
                break;
            }
            read => done += read,
        }
    }
    Ok(())
}

fn write_whole(file: &dyn Storage, at: u64, from: &[u8], durable: bool) -> io::Result<()> {
    let mut done = 0;
    while done < from.len() {
        match file.write(&[IoSlice::new(&from[done..])], at + done as u64, durable)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => done += written,
        }
    }
    Ok(())
}
