use super::storage::Alignment;
use super::*;
use crate::block::testing::{self, PowerCut, Seeded};
use crate::block::{BlockError, Blocking, Extent, OpId};
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Mutex;

fn scratch(bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    (dir, path)
}

#[test]
fn passes_the_suite() {
    for block_size in [512, 4096] {
        let mut keep = Vec::new();
        testing::check(|| {
            let (dir, path) = scratch(8 << 20);
            keep.push(dir);
            let options = FileOptions { block_size: Some(block_size), ..FileOptions::default() };
            Box::new(FileDisk::open(path, &options).unwrap())
        });
    }
}

/// Whether the file system of temporary files knows O_DIRECT.
fn direct_works() -> bool {
    let (_dir, path) = scratch(1 << 20);
    let options = FileOptions { direct: true, block_size: Some(4096), ..FileOptions::default() };
    FileDisk::open(path, &options).is_ok()
}

#[test]
fn passes_the_suite_past_the_page_cache() {
    if !direct_works() {
        return;
    }
    let mut keep = Vec::new();
    testing::check(|| {
        let (dir, path) = scratch(8 << 20);
        keep.push(dir);
        let options = FileOptions { block_size: Some(4096), direct: true, ..FileOptions::default() };
        Box::new(FileDisk::open(path, &options).unwrap())
    });
}

#[test]
fn passes_the_suite_in_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
    let mut n = 0;
    testing::check(|| {
        n += 1;
        let options = FileOptions { create: Some(2 << 20), ..FileOptions::default() };
        let disk = FileDisk::open(dir.path().join(n.to_string()), &options).unwrap();
        assert!(disk.medium.file.in_memory());
        Box::new(disk)
    });
}

#[test]
fn what_direct_io_refuses_is_copied() {
    let alignment = Alignment { memory: 512, length: 4096 };
    let page = datamover::SlabPool::default();
    let mut list = datamover::BufPool::alloc(&page, 8192).unwrap();
    let whole = list.slices_mut().next().unwrap();
    assert!(alignment.admits(whole) && alignment.admits(&whole[512..4608]));
    assert!(!alignment.admits(&whole[256..4352]), "address");
    assert!(!alignment.admits(&whole[..512]), "length");
}

#[test]
fn creates_a_sparse_file_and_locks_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.img");
    let options = FileOptions { create: Some(1 << 30), ..FileOptions::default() };
    let disk = FileDisk::open(&path, &options).unwrap();
    assert_eq!(disk.geometry().blocks, 1 << 21);
    use std::os::unix::fs::MetadataExt;
    assert!(std::fs::metadata(&path).unwrap().blocks() < 1024, "sparse");
    let second = FileDisk::open(&path, &FileOptions::default()).err().map(|e| e.kind());
    assert_eq!(second, Some(io::ErrorKind::WouldBlock));
    drop(disk);
}

#[test]
fn unmapped_blocks_are_holes() {
    let (_dir, path) = scratch(1 << 20);
    let disk = FileDisk::open(path, &FileOptions::default()).unwrap();
    let Some(limits) = disk.geometry().unmap else { return };
    let granularity = u64::from(limits.granularity);
    let mut disk = Blocking::new(Box::new(disk));
    assert_eq!(disk.status(0, 2048).unwrap(), [Extent { blocks: 2048, mapped: false }]);
    disk.write(0, &[1; 256 << 10]).unwrap();
    disk.run(Action::Unmap { lba: granularity * 4, blocks: granularity * 2 }).unwrap();
    let extents = disk.status(0, 512).unwrap();
    assert_eq!(extents[0], Extent { blocks: granularity * 4, mapped: true });
    assert_eq!(extents[1], Extent { blocks: granularity * 2, mapped: false });
    assert!(extents[2].mapped);
}

#[test]
fn a_resized_file_is_seen() {
    let (_dir, path) = scratch(1 << 20);
    let disk = FileDisk::open(&path, &FileOptions::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(disk.geometry().blocks, 4096);
}

#[test]
fn a_write_makes_no_file_grow() {
    let (_dir, path) = scratch(1 << 20);
    let mut disk = Blocking::new(Box::new(FileDisk::open(&path, &FileOptions::default()).unwrap()));
    disk.write(2047, &[1; 512]).unwrap();
    assert!(disk.write(2047, &[2; 1024]).is_err());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(2 << 20).unwrap();
    disk.write(2047, &[3; 1024]).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(disk.device().geometry().blocks, 2048);
    assert!(disk.write(2047, &[4; 1024]).is_err());
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn system_errors_become_block_errors() {
    let error = |code| BlockError::from(&io::Error::from_raw_os_error(code));
    assert_eq!(error(28), BlockError::NoSpace, "ENOSPC");
    assert_eq!(error(122), BlockError::NoSpace, "EDQUOT");
    assert_eq!(error(5), BlockError::Medium(None), "EIO");
    assert_eq!(error(30), BlockError::ReadOnly, "EROFS");
}

/// A file in memory with a volatile cache before it: a sector is old or new after a cut, and metadata of a write that
/// was synced are there.
#[derive(Clone, Default)]
struct Simulated(Arc<Mutex<Sim>>);

#[derive(Default)]
struct Sim {
    medium: Vec<u8>,
    /// Sectors written and not flushed: every content since the last flush, oldest first.
    cache: BTreeMap<usize, Vec<[u8; 512]>>,
    /// A page could not be written back: the next sync of whatever tells, once.
    writeback_error: Option<i32>,
    /// Writes fail.
    write_error: Option<i32>,
}

impl Sim {
    fn sector(&self, n: usize) -> [u8; 512] {
        match self.cache.get(&n).and_then(|v| v.last()) {
            Some(new) => *new,
            None => self.medium[n * 512..][..512].try_into().unwrap(),
        }
    }

    /// As Linux does: the pages are clean afterwards, their data gone with the power.
    fn told(&mut self) -> io::Result<()> {
        self.writeback_error.take().map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn flush(&mut self, sectors: impl Iterator<Item = usize>) {
        for n in sectors {
            if let Some(new) = self.cache.remove(&n).and_then(|mut v| v.pop()) {
                self.medium[n * 512..][..512].copy_from_slice(&new);
            }
        }
    }
}

impl Storage for Simulated {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().medium.len() as u64)
    }
    fn block_sizes(&self) -> io::Result<(u32, u32)> {
        Ok((512, 512))
    }
    fn hole_granularity(&self) -> Option<u32> {
        None
    }
    fn read(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        let sim = self.0.lock().unwrap();
        let mut at = at as usize;
        let mut done = 0;
        for buf in into {
            for byte in buf.iter_mut() {
                *byte = sim.sector(at / 512)[at % 512];
                at += 1;
                done += 1;
            }
        }
        Ok(done)
    }
    fn read_cached(&self, _: &mut [IoSliceMut<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn write(&self, from: &[IoSlice<'_>], at: u64, durable: bool) -> io::Result<usize> {
        let mut sim = self.0.lock().unwrap();
        if let Some(error) = sim.write_error {
            return Err(io::Error::from_raw_os_error(error));
        }
        let data: Vec<u8> = from.iter().flat_map(|s| s.iter().copied()).collect();
        assert_eq!(data.len() % 512, 0, "a call that ends within a block can tear it");
        // A short write, as the system may make one.
        let len = if data.len() > 4096 { 4096 } else { data.len() };
        let first = at as usize / 512;
        for (n, sector) in data[..len].chunks(512).enumerate() {
            sim.cache.entry(first + n).or_default().push(sector.try_into().unwrap());
        }
        if durable {
            sim.flush(first..first + len / 512);
            sim.told()?;
        }
        Ok(len)
    }
    fn sync(&self) -> io::Result<()> {
        let mut sim = self.0.lock().unwrap();
        sim.told()?;
        let all: Vec<usize> = sim.cache.keys().copied().collect();
        sim.flush(all.into_iter());
        Ok(())
    }
    fn zero(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn run(&self, _: u64, end: u64) -> io::Result<(bool, u64)> {
        Ok((true, end))
    }
    fn prefetch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn over(sim: &Simulated) -> Box<dyn BlockDevice> {
    Box::new(FileDisk::over(Box::new(sim.clone()), &FileOptions::default()).unwrap())
}

impl PowerCut for Simulated {
    fn power_on(&mut self) -> Box<dyn BlockDevice> {
        over(self)
    }

    fn cut(&mut self, random: &mut Seeded) {
        let mut sim = self.0.lock().unwrap();
        for (n, contents) in std::mem::take(&mut sim.cache) {
            // Any content since the flush, or the one before them all.
            let pick = random.below(contents.len() as u64 + 1) as usize;
            if let Some(content) = pick.checked_sub(1).map(|p| contents[p]) {
                sim.medium[n * 512..][..512].copy_from_slice(&content);
            }
        }
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_flushed() {
    for seed in 0..20 {
        let sim = Simulated::default();
        sim.0.lock().unwrap().medium = vec![0; 1 << 18];
        testing::power_cut(&mut sim.clone(), seed);
    }
}

#[test]
fn passes_the_suite_without_holes_and_with_short_writes() {
    testing::check(|| {
        let sim = Simulated::default();
        sim.0.lock().unwrap().medium = vec![0; 1 << 19];
        over(&sim)
    });
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Two nexuses' handles on a disk.
fn two(sim: &Simulated) -> (Blocking, Blocking) {
    sim.0.lock().unwrap().medium = vec![0; 1 << 19];
    let one = over(sim);
    (Blocking::new(one.handle().unwrap()), Blocking::new(one))
}

fn durable(lba: u64) -> Action {
    Action::Write { lba, data: bytes::Bytes::from(vec![1; 512]).into(), fua: true }
}

#[test]
fn a_failed_flush_stops_writes() {
    let sim = Simulated::default();
    let (mut disk, mut other) = two(&sim);
    disk.write(0, &[1; 512]).unwrap();
    sim.0.lock().unwrap().writeback_error = Some(EIO);
    assert_eq!(disk.flush().unwrap_err(), BlockError::Medium(None));
    assert_eq!(disk.flush().unwrap_err(), BlockError::WritesLost, "the second flush must not claim success");
    assert_eq!(other.write(1, &[1; 512]).unwrap_err(), BlockError::WritesLost);
    assert_eq!(other.run(durable(2)).unwrap_err(), BlockError::WritesLost);
    assert!(disk.read(0, 1).is_ok());
}

#[test]
fn a_durable_write_that_meets_the_error_of_an_older_one_does_not_swallow_it() {
    for error in [EIO, ENOSPC] {
        let sim = Simulated::default();
        let (mut disk, mut other) = two(&sim);
        disk.write(0, &[1; 512]).unwrap();
        sim.0.lock().unwrap().writeback_error = Some(error);
        assert_eq!(other.run(durable(9)).unwrap_err(), BlockError::Medium(None));
        assert_eq!(disk.flush().unwrap_err(), BlockError::WritesLost, "who wrote the lost block hears of it");
        assert_eq!(other.run(durable(9)).unwrap_err(), BlockError::WritesLost);
    }
}

#[test]
fn a_durable_write_that_fails_itself_harms_nobody_else() {
    let sim = Simulated::default();
    let (mut disk, mut other) = two(&sim);
    disk.write(0, &[1; 512]).unwrap();
    sim.0.lock().unwrap().write_error = Some(ENOSPC);
    assert_eq!(other.run(durable(9)).unwrap_err(), BlockError::NoSpace);
    sim.0.lock().unwrap().write_error = None;
    disk.flush().unwrap();
    other.run(durable(9)).unwrap();
}

#[test]
fn a_full_queue_hands_the_operation_back() {
    let sim = Simulated::default();
    sim.0.lock().unwrap().medium = vec![0; 1 << 19];
    let mut disk = over(&sim);
    // The threads cannot work while the medium is locked.
    let stop = sim.0.lock().unwrap();
    let mut ids = 0..;
    let full = loop {
        let id = OpId(ids.next().unwrap());
        match disk.submit(BlockOp { id, action: Action::Flush }) {
            Ok(()) => assert!(id.0 < 2000, "the queue is bounded"),
            Err(Full(op)) => break op,
        }
    };
    assert!(matches!(full.action, Action::Flush));
    drop(stop);
    let mut ended = 0;
    while ended < full.id.0 {
        match disk.poll_done(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(_) => ended += 1,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}
