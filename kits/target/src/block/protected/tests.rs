use super::*;
use crate::block::testing::{self, Seeded};
use crate::block::{FileDisk, RamDisk, TAG, guard};
use bytes::Bytes;
use datamover::IoBuf;
use scsi_cmd::protection::ProtectionInformation;
use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};

const TYPE_1: Option<ProtectionType> = Some(ProtectionType::Type1);

fn open_as(path: &Path, block_size: u32) -> io::Result<ProtectedDisk> {
    let options =
        FileOptions { create: Some(8 << 20), block_size: Some(block_size), ..FileOptions::default() };
    ProtectedDisk::open(Box::new(FileDisk::open(path, &options)?), path.with_extension("pi"), TYPE_1)
}

fn open(path: &Path) -> io::Result<Blocking> {
    open_as(path, 512).map(|disk| Blocking::new(Box::new(disk)))
}

/// A file in memory with a volatile cache before it: a sector is old or new after a cut.
#[derive(Clone)]
struct Simulated(Arc<Mutex<Sim>>);

#[derive(Clone)]
struct Sim {
    medium: Vec<u8>,
    /// Sectors written and not flushed: every content since the last flush, oldest first.
    cache: BTreeMap<usize, Vec<[u8; 512]>>,
    /// Calls that may still write.
    writes: u32,
    fail_sync: bool,
}

impl Sim {
    fn sector(&self, n: usize) -> [u8; 512] {
        match self.cache.get(&n).and_then(|v| v.last()) {
            Some(new) => *new,
            None => self.medium[n * 512..][..512].try_into().unwrap(),
        }
    }

    fn flush(&mut self, sectors: impl Iterator<Item = usize>) {
        for n in sectors {
            if let Some(new) = self.cache.remove(&n).and_then(|mut v| v.pop()) {
                self.medium[n * 512..][..512].copy_from_slice(&new);
            }
        }
    }
}

impl Simulated {
    fn of(bytes: usize) -> Self {
        let medium = vec![0; bytes];
        let (cache, writes, fail_sync) = (BTreeMap::new(), u32::MAX, false);
        Self(Arc::new(Mutex::new(Sim { medium, cache, writes, fail_sync })))
    }

    /// The medium as a power cut leaves it: of each sector any content since the flush, or the one before them all.
    fn after_a_cut(&self, random: &mut Seeded) -> Self {
        let mut sim = lock(&self.0).clone();
        for (n, contents) in std::mem::take(&mut sim.cache) {
            let pick = random.below(contents.len() as u64 + 1) as usize;
            if let Some(content) = pick.checked_sub(1).map(|p| contents[p]) {
                sim.medium[n * 512..][..512].copy_from_slice(&content);
            }
        }
        Self(Arc::new(Mutex::new(sim)))
    }
}

impl Storage for Simulated {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).medium.len() as u64)
    }
    fn block_sizes(&self) -> io::Result<(u32, u32)> {
        Ok((512, 512))
    }
    fn hole_granularity(&self) -> Option<u32> {
        None
    }
    fn read(&self, into: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        let sim = lock(&self.0);
        let (mut at, mut done) = (at as usize, 0);
        for mut buf in into.iter_mut().map(|buf| &mut **buf) {
            while !buf.is_empty() && at < sim.medium.len() {
                let n = buf.len().min(512 - at % 512);
                buf[..n].copy_from_slice(&sim.sector(at / 512)[at % 512..][..n]);
                buf = &mut buf[n..];
                (at, done) = (at + n, done + n);
            }
        }
        Ok(done)
    }
    fn read_cached(&self, _: &mut [IoSliceMut<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn write(&self, from: &[IoSlice<'_>], at: u64, durable: bool) -> io::Result<usize> {
        let mut sim = lock(&self.0);
        sim.writes = sim.writes.checked_sub(1).ok_or(io::Error::from_raw_os_error(5))?;
        // A short write, as the system may make one.
        let data: Vec<u8> = from.iter().flat_map(|s| s.iter().copied()).take(4096).collect();
        let (first, last) = (at as usize / 512, (at as usize + data.len() - 1) / 512);
        // Whole sectors, with what else is in the first and the last of them.
        let mut whole: Vec<u8> = (first..=last).flat_map(|n| sim.sector(n)).collect();
        whole[at as usize % 512..][..data.len()].copy_from_slice(&data);
        for (n, sector) in (first..).zip(whole.chunks(512)) {
            sim.cache.entry(n).or_default().push(sector.try_into().unwrap());
        }
        if durable {
            sim.flush(first..=last);
        }
        Ok(data.len())
    }
    fn sync(&self) -> io::Result<()> {
        let mut sim = lock(&self.0);
        if std::mem::take(&mut sim.fail_sync) {
            return Err(io::Error::from_raw_os_error(5));
        }
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

fn over(data: &Simulated, tags: &Simulated) -> Blocking {
    let disk = FileDisk::over(Box::new(data.clone()), &FileOptions::default()).unwrap();
    Blocking::new(Box::new(ProtectedDisk::over(Box::new(disk), Box::new(tags.clone()), TYPE_1).unwrap()))
}

fn tag_file() -> Simulated {
    Simulated::of(64 << 10)
}

fn write(disk: &mut Blocking, lba: u64, byte: u8, application_tag: u16, fua: bool) {
    let data = vec![byte; 512];
    let pi = ProtectionInformation { guard: guard(&data), application_tag, reference_tag: lba as u32 };
    let data = Bytes::from(data).into();
    disk.run(Action::WriteProtected { lba, data, tags: pi.encode().to_vec().into(), fua }).unwrap();
}

fn read(disk: &mut Blocking, lba: u64) -> (u8, ProtectionInformation) {
    let into = IoBuf::zeroed(512).into();
    let Payload::Protected { data, tags } = disk.run(Action::ReadProtected { lba, blocks: 1, into }).unwrap()
    else {
        panic!("a protected read ends with both");
    };
    let data = data.to_bytes();
    assert!(data.iter().all(|byte| *byte == data[0]), "torn");
    (data[0], ProtectionInformation::decode(&tags))
}

#[test]
fn passes_the_suite() {
    for block_size in [512, 4096] {
        let mut keep = Vec::new();
        testing::check(|| {
            let dir = tempfile::tempdir().unwrap();
            let disk = open_as(&dir.path().join("disk.img"), block_size).unwrap();
            keep.push(dir);
            Box::new(disk)
        });
    }
}

#[test]
fn passes_the_suite_over_memory_without_holes_in_the_tags() {
    testing::check(|| {
        let (disk, tags) = (RamDisk::new(512, 2048), Box::new(tag_file()));
        Box::new(ProtectedDisk::over(Box::new(disk), tags, TYPE_1).unwrap())
    });
}

#[test]
fn tags_are_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut disk = open(&path).unwrap();
    write(&mut disk, 9, 1, 0x1234, false);
    drop(disk);
    let mut disk = open(&path).unwrap();
    let (data, pi) = read(&mut disk, 9);
    assert_eq!((data, pi.guard, pi.application_tag, pi.reference_tag), (1, guard(&[1; 512]), 0x1234, 9));
    assert_eq!(read(&mut disk, 10), (0, ProtectionInformation::UNWRITTEN));
}

/// The type that a format has made survives; other block sizes and other files are refused.
#[test]
fn the_tag_file_knows_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut disk = open(&path).unwrap();
    disk.run(Action::Protect(Some(ProtectionType::Type3))).unwrap();
    drop(disk);
    assert_eq!(open(&path).unwrap().device().geometry().protection, Some(ProtectionType::Type3));
    assert_eq!(open_as(&path, 4096).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
    std::fs::write(path.with_extension("pi"), [7; 5000]).unwrap();
    assert_eq!(open(&path).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
}

/// A file that was changed behind the disk's back is not mended: that is what guards are for.
#[test]
fn damage_is_not_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let mut disk = open(&path).unwrap();
    write(&mut disk, 0, 1, 0, false);
    drop(disk);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..512].fill(2);
    std::fs::write(&path, &bytes).unwrap();
    let (data, pi) = read(&mut open(&path).unwrap(), 0);
    assert_eq!((data, pi.guard), (2, guard(&[1; 512])));
}

/// Of data and tags any part may be lost that was not flushed. Every block is there, old or new, and its guard fits;
/// what was flushed has its own tags.
#[test]
fn power_cuts_leave_every_block_readable() {
    let mut mended = 0u32;
    for seed in 0..40 {
        let mut random = Seeded::new(seed);
        let (mut data, mut tags) = (Simulated::of(64 * 512), tag_file());
        // Per block: contents that a cut may leave, by number; the tag of number n is n.
        let mut allowed: Vec<Vec<u8>> = vec![vec![0]; 64];
        for round in 0..6u8 {
            let mut disk = over(&data, &tags);
            for (lba, allowed) in (0..).zip(&mut allowed) {
                let (content, pi) = read(&mut disk, lba);
                assert!(
                    allowed.contains(&content),
                    "seed {seed}: block {lba} is {content}, none of {allowed:?}"
                );
                let checked = !pi.unchecked(ProtectionType::Type1);
                assert!(
                    !checked || pi.guard == guard(&[content; 512]),
                    "seed {seed}: block {lba} cannot be read"
                );
                if let [only] = allowed[..]
                    && only != 0
                {
                    assert_eq!(pi.application_tag, u16::from(only), "seed {seed}: flushed tags");
                    assert!(checked);
                }
                *allowed = vec![content];
                mended += u32::from(checked && pi.application_tag != u16::from(content));
                // From here on, its tags are those of its data.
                if content != 0 {
                    write(&mut disk, lba, content, content.into(), false);
                }
            }
            disk.flush().unwrap();
            for n in 0..30 {
                let lba = random.below(64);
                let content = round * 30 + n + 1;
                match random.below(6) {
                    0 => {
                        disk.flush().unwrap();
                        allowed.iter_mut().for_each(|a| drop(a.drain(..a.len() - 1)));
                    }
                    1 => {
                        write(&mut disk, lba, content, content.into(), true);
                        allowed[lba as usize] = vec![content];
                    }
                    _ => {
                        write(&mut disk, lba, content, content.into(), false);
                        allowed[lba as usize].push(content);
                    }
                }
            }
            // The cut comes before the disk is closed, which would flush it.
            let after = (data.after_a_cut(&mut random), tags.after_a_cut(&mut random));
            drop(disk);
            (data, tags) = after;
        }
    }
    assert!(mended > 0, "cuts between data and tags happened");
}

#[test]
fn a_failed_write_leaves_every_block_readable() {
    let (data, tags) = (Simulated::of(64 * 512), tag_file());
    let mut disk = over(&data, &tags);
    for lba in 0..16 {
        write(&mut disk, lba, 1, 1, false);
    }
    // The medium takes 4 KiB a call, and no second one.
    lock(&data.0).writes = 1;
    let new: SgList = Bytes::from(vec![2; 16 * 512]).into();
    let pi = ProtectionInformation { guard: guard(&[2; 512]), application_tag: 2, reference_tag: 0 };
    let action =
        Action::WriteProtected { lba: 0, data: new, tags: pi.encode().repeat(16).into(), fua: false };
    assert!(disk.run(action).is_err());
    lock(&data.0).writes = u32::MAX;
    for lba in 0..16 {
        let (content, pi) = read(&mut disk, lba);
        assert_eq!((content, pi.guard), (if lba < 8 { 2 } else { 1 }, guard(&[content; 512])));
    }
}

#[test]
fn a_tag_file_that_cannot_be_synced_stops_writes() {
    let (data, tags) = (Simulated::of(64 * 512), tag_file());
    let mut disk = over(&data, &tags);
    write(&mut disk, 0, 1, 1, false);
    lock(&tags.0).fail_sync = true;
    assert!(disk.flush().is_err());
    assert_eq!(disk.flush().unwrap_err(), BlockError::WritesLost, "the second flush must not claim success");
    let tags = vec![0; TAG].into();
    let again = Action::WriteProtected { lba: 0, data: Bytes::from(vec![0; 512]).into(), tags, fua: false };
    assert_eq!(disk.run(again).unwrap_err(), BlockError::WritesLost);
}
