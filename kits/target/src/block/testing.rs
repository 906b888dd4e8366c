//! The suite that every block device passes: [`check`], and [`power_cut`] for those whose medium can be simulated.
//!
//! A backend's test is one line: `testing::check(|| Box::new(MyDisk::new(512, 4096)))`.

mod protected;

use super::{Action, BlockDevice, BlockError, BlockOp, Blocking, Geometry, OpId, Payload};
use bytes::Bytes;
use datamover::{IoBuf, SgList, SgListMut};
use std::collections::HashSet;
use std::task::{Context, Poll, Waker};

/// A small deterministic generator (xorshift64*), so that a failing run can be repeated.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound.max(1)
    }
}

/// Checks a device of at least 1024 blocks that `open` makes anew for each part, its contents zero.
///
/// # Panics
/// When the device breaks a promise; the message says which.
pub fn check(mut open: impl FnMut() -> Box<dyn BlockDevice>) {
    geometry(&open().geometry());
    handles_see_the_same_blocks(open());
    scatter_lists(open());
    zeroing(open());
    beyond_the_end(open());
    every_operation_ends_once(open());
    protected::check(&mut open);
    for seed in 0..4 {
        random_operations(open(), seed);
    }
}

fn geometry(geometry: &Geometry) {
    assert!(geometry.block_size.is_power_of_two() && geometry.block_size >= 512, "block size");
    assert!(geometry.blocks >= 1024, "the suite needs 1024 blocks");
    assert!(geometry.physical_exponent < 16);
    assert!(geometry.unmap.is_none_or(|u| u.granularity > 0));
}

/// Content that tells block and generation, so that a misplaced or stale block shows.
fn pattern(lba: u64, generation: u64, block_size: u32) -> Vec<u8> {
    let word = lba.wrapping_mul(0x1000_0000_01b3).wrapping_add(generation.wrapping_mul(0x9e37_79b9));
    word.to_be_bytes().repeat(block_size as usize / 8)
}

fn patterns(lba: u64, blocks: u64, generation: u64, block_size: u32) -> Vec<u8> {
    (lba..lba + blocks).flat_map(|lba| pattern(lba, generation, block_size)).collect()
}

fn handles_see_the_same_blocks(device: Box<dyn BlockDevice>) {
    let size = device.geometry().block_size;
    let mut other = Blocking::new(device.handle().expect("a second handle"));
    let mut one = Blocking::new(device);
    assert_eq!(other.read(0, 8).unwrap().len(), 8 * size as usize);
    one.write(3, &patterns(3, 5, 1, size)).unwrap();
    assert_eq!(
        other.read(3, 5).unwrap().to_bytes(),
        patterns(3, 5, 1, size),
        "a write is seen by all handles"
    );
    other.write(4, &patterns(4, 1, 2, size)).unwrap();
    let seen = one.read(3, 3).unwrap().to_bytes();
    let expected = [patterns(3, 1, 1, size), patterns(4, 1, 2, size), patterns(5, 1, 1, size)].concat();
    assert_eq!(seen, expected, "a write changes its blocks and no others");
    let last = one.device().geometry().blocks - 1;
    one.write(last, &pattern(last, 3, size)).unwrap();
    assert_eq!(other.read(last, 1).unwrap().to_bytes(), pattern(last, 3, size), "the last block");
}

fn scatter_lists(device: Box<dyn BlockDevice>) {
    let Geometry { block_size, lends_reads, .. } = device.geometry();
    let mut disk = Blocking::new(device);
    let whole = patterns(10, 6, 9, block_size);
    // Pieces that respect no block boundary, more of them than one vectored call takes.
    let data: SgList = whole.chunks(37).map(Bytes::copy_from_slice).collect();
    disk.run(Action::Write { lba: 10, data, fua: true }).unwrap();
    let mut into = SgListMut::new();
    if !lends_reads {
        whole.chunks(41).for_each(|c| into.push(IoBuf::zeroed(c.len())));
    }
    match disk.run(Action::Read { lba: 10, blocks: 6, into }).unwrap() {
        Payload::Data(data) => assert_eq!(data.to_bytes(), whole, "scattered pieces"),
        other => panic!("a read ends with data, not {other:?}"),
    }
}

fn zeroing(device: Box<dyn BlockDevice>) {
    let Geometry { block_size: size, unmap, .. } = device.geometry();
    let mut disk = Blocking::new(device);
    disk.write(0, &patterns(0, 512, 1, size)).unwrap();
    disk.run(Action::Zero { lba: 100, blocks: 3, unmap: false, fua: false }).unwrap();
    let zeros = |blocks: usize| vec![0u8; blocks * size as usize];
    assert_eq!(disk.read(100, 3).unwrap().to_bytes(), zeros(3), "zeroed blocks");
    assert_eq!(disk.read(99, 1).unwrap().to_bytes(), pattern(99, 1, size));
    assert_eq!(disk.read(103, 1).unwrap().to_bytes(), pattern(103, 1, size));
    let extents = disk.status(0, 1024).unwrap();
    assert!(extents.iter().map(|e| e.blocks).sum::<u64>() <= 1024, "no extent beyond the range");
    assert!(extents.first().is_some_and(|e| e.mapped && e.blocks >= 100), "written blocks are mapped");
    let Some(limits) = unmap else { return };
    let step = u64::from(limits.granularity);
    let (lba, blocks) = (128u64.next_multiple_of(step), step.max(128));
    disk.run(Action::Unmap { lba, blocks }).unwrap();
    if limits.zeroes {
        assert_eq!(
            disk.read(lba, blocks as u32).unwrap().to_bytes(),
            zeros(blocks as usize),
            "unmapped blocks"
        );
    }
    // Odd pieces are unmapped or left alone, and never touch their neighbours.
    disk.run(Action::Unmap { lba: 7, blocks: 2 }).unwrap();
    assert_eq!(disk.read(6, 1).unwrap().to_bytes(), pattern(6, 1, size));
    assert_eq!(disk.read(9, 1).unwrap().to_bytes(), pattern(9, 1, size));
}

fn beyond_the_end(device: Box<dyn BlockDevice>) {
    let Geometry { block_size, blocks, .. } = device.geometry();
    let mut disk = Blocking::new(device);
    // The caller checks ranges, but a device can shrink in between: it must not grow, nor read what is not there.
    for lba in [blocks, blocks - 1] {
        let data = Bytes::from(vec![1; 2 * block_size as usize]).into();
        if let Err(error) = disk.run(Action::Write { lba, data, fua: false }) {
            assert_eq!(error, BlockError::OutOfRange);
        }
    }
    assert_eq!(disk.device().geometry().blocks, blocks, "a device does not grow by being written");
}

fn every_operation_ends_once(mut device: Box<dyn BlockDevice>) {
    let size = device.geometry().block_size;
    let waker = Waker::noop();
    let mut open = HashSet::new();
    for n in 0..256u64 {
        let data = Bytes::from(pattern(n, 5, size)).into();
        let action =
            if n % 16 == 15 { Action::Flush } else { Action::Write { lba: n, data, fua: n % 7 == 0 } };
        let mut op = BlockOp { id: OpId(n), action };
        while let Err(full) = device.submit(op) {
            op = full.0;
            drain(&mut device, waker, &mut open);
        }
        open.insert(n);
    }
    while !open.is_empty() {
        drain(&mut device, waker, &mut open);
        std::thread::yield_now();
    }
    assert!(device.poll_done(&mut Context::from_waker(waker)).is_pending(), "nothing ends twice");
    let mut disk = Blocking::new(device);
    assert_eq!(disk.read(14, 1).unwrap().to_bytes(), pattern(14, 5, size));
}

fn drain(device: &mut Box<dyn BlockDevice>, waker: &Waker, open: &mut HashSet<u64>) {
    while let Poll::Ready(done) = device.poll_done(&mut Context::from_waker(waker)) {
        assert!(open.remove(&done.id.0), "operation {} ended but was not open", done.id.0);
        done.result.expect("operation within the device");
    }
}

/// Random operations against a shadow copy.
fn random_operations(device: Box<dyn BlockDevice>, seed: u64) {
    let Geometry { block_size: size, unmap, .. } = device.geometry();
    let mut disk = Blocking::new(device);
    let mut random = Seeded::new(seed);
    let blocks = 1024;
    let block = size as usize;
    let mut shadow = disk.read(0, blocks as u32).unwrap().to_bytes().to_vec();
    for step in 0..300 {
        let lba = random.below(blocks);
        let n = 1 + random.below((blocks - lba).min(200));
        let range = lba as usize * block..(lba + n) as usize * block;
        match random.below(6) {
            0 | 1 => {
                let data = patterns(lba, n, step, size);
                disk.write(lba, &data).unwrap();
                shadow[range].copy_from_slice(&data);
            }
            2 => {
                let action = Action::Zero { lba, blocks: n, unmap: random.below(2) == 0, fua: false };
                disk.run(action).unwrap();
                shadow[range].fill(0);
            }
            3 if unmap.is_some_and(|u| u.zeroes) => {
                disk.run(Action::Unmap { lba, blocks: n }).unwrap();
                shadow[range].fill(0);
            }
            4 => disk.flush().unwrap(),
            _ => assert_eq!(
                disk.read(lba, n as u32).unwrap().to_bytes(),
                shadow[range],
                "seed {seed}, step {step}: blocks {lba}+{n}"
            ),
        }
    }
}

/// A medium whose power can be cut.
pub trait PowerCut {
    /// A device on the medium, as after power on.
    fn power_on(&mut self) -> Box<dyn BlockDevice>;

    /// Cuts the power: of what was not flushed, any part may be lost. Devices made before must not be used again.
    fn cut(&mut self, random: &mut Seeded);
}

/// Writes and flushes, cuts the power, and checks that what a flush or FUA confirmed is there, and that every other
/// block is as one of the writes since left it, whole.
///
/// # Panics
/// When a block was lost or torn.
pub fn power_cut(medium: &mut dyn PowerCut, seed: u64) {
    let mut random = Seeded::new(seed);
    let blocks = 256u64;
    // Per block: the generations that it may have after a cut, the last one being the newest.
    let mut allowed: Vec<Vec<u64>> = vec![vec![0]; blocks as usize];
    let mut generation = 0;
    {
        let mut disk = Blocking::new(medium.power_on());
        let size = disk.device().geometry().block_size;
        disk.write(0, &patterns(0, blocks, 0, size)).unwrap();
        disk.flush().unwrap();
    }
    for round in 0..8 {
        let mut disk = Blocking::new(medium.power_on());
        let size = disk.device().geometry().block_size;
        for (lba, allowed) in (0..blocks).zip(&mut allowed) {
            let seen = disk.read(lba, 1).unwrap().to_bytes();
            let found = allowed.iter().find(|g| pattern(lba, **g, size) == seen[..]);
            let found = found.copied().unwrap_or_else(|| {
                panic!("seed {seed}, round {round}: block {lba} is none of {allowed:?}: lost or torn")
            });
            *allowed = vec![found];
        }
        for _ in 0..40 {
            if random.below(4) == 0 {
                disk.flush().unwrap();
                allowed.iter_mut().for_each(|a| drop(a.drain(..a.len() - 1)));
                continue;
            }
            generation += 1;
            let lba = random.below(blocks);
            let n = 1 + random.below((blocks - lba).min(24));
            let fua = random.below(4) == 0;
            let data = Bytes::from(patterns(lba, n, generation, size)).into();
            disk.run(Action::Write { lba, data, fua }).unwrap();
            for allowed in &mut allowed[lba as usize..(lba + n) as usize] {
                if fua {
                    allowed.clear();
                }
                allowed.push(generation);
            }
        }
        drop(disk);
        medium.cut(&mut random);
    }
}
