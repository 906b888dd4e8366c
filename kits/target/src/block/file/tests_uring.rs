//! The suite through io_uring, and what a ring must not do with memory.

use super::lane::available;
use super::*;
use crate::block::testing;
use crate::block::{Blocking, OpId};
use bytes::Bytes;
use datamover::{BufPool, SgListMut, SlabPool};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Not among the temporary files: these may be in memory, which needs no ring.
fn scratch() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

fn options() -> FileOptions {
    FileOptions { engine: IoEngine::Uring, create: Some(8 << 20), ..FileOptions::default() }
}

/// Sleeps a little, a minute in all.
#[allow(clippy::disallowed_methods, reason = "the kernel has no virtual clock")]
fn patience() -> impl FnMut() {
    let mut left = 60_000;
    move || {
        left -= 1;
        assert!(left > 0, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A disk with a ring, if this kernel lets us.
fn disk(dir: &tempfile::TempDir, options: &FileOptions) -> Option<FileDisk> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    if available().is_err() {
        return None;
    }
    let name = NUMBER.fetch_add(1, Ordering::Relaxed).to_string();
    FileDisk::open(dir.path().join(name), options).ok()
}

#[test]
fn passes_the_suite() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    for (block_size, direct) in [(512, false), (4096, false), (4096, true)] {
        let options = FileOptions { block_size: Some(block_size), direct, ..options() };
        if disk(&dir, &options).is_none() {
            continue;
        }
        testing::check(|| Box::new(disk(&dir, &options).unwrap()));
    }
}

#[test]
fn what_waits_for_the_medium_goes_into_the_ring() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    let Some(mut disk) = disk(&dir, &options()) else { return };
    disk.submit(BlockOp { id: OpId(1), action: Action::Flush }).unwrap();
    assert!(matches!(&disk.lane, LaneState::Open(lane) if lane.is_busy()));
}

#[test]
fn outside_of_a_runtime_threads_serve() {
    let dir = scratch();
    let Some(disk) = disk(&dir, &options()) else { return };
    let mut disk = Blocking::new(Box::new(disk));
    disk.write(3, &[5; 512]).unwrap();
    disk.flush().unwrap();
    assert_eq!(disk.read(3, 1).unwrap().to_bytes(), [5; 512][..]);
}

#[test]
fn no_more_than_the_ring_holds_is_taken() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    let Some(mut disk) = disk(&dir, &options()) else { return };
    let full = (0..).find(|n| disk.submit(BlockOp { id: OpId(*n), action: Action::Flush }).is_err());
    assert_eq!(full, Some(crate::block::uring::DEPTH as u64));
    // One poll begins them all; each ends once.
    let mut ended = std::collections::HashSet::new();
    let mut patience = patience();
    while ended.len() < crate::block::uring::DEPTH {
        match disk.poll_done(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(done) => assert!(done.result.is_ok() && ended.insert(done.id)),
            Poll::Pending => patience(),
        }
    }
}

#[test]
fn who_blocks_the_reactor_is_served_all_the_same() {
    let dir = scratch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(disk) = disk(&dir, &options()) else { return };
        let mut disk = Blocking::new(Box::new(disk));
        disk.write(3, &[5; 512]).unwrap();
        disk.flush().unwrap();
    });
}

/// Reads until the handle's ring registers what it meets.
fn warmed(mut disk: FileDisk) -> FileDisk {
    let pool = SlabPool::default();
    for n in 0..80 {
        let into = chunks(&pool, 4096);
        let blocks = 4096 / disk.geometry().block_size;
        disk.submit(BlockOp { id: OpId(n), action: Action::Read { lba: 0, blocks, into } }).unwrap();
        wait(&mut disk, 1);
    }
    disk
}

/// Until so many have ended well, for their data.
fn wait(disk: &mut FileDisk, open: usize) -> Vec<Payload> {
    let mut patience = patience();
    let mut ended = Vec::new();
    while ended.len() < open {
        match disk.poll_done(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(done) => ended.push(done.result.unwrap()),
            Poll::Pending => patience(),
        }
    }
    ended
}

fn fixed(disk: &FileDisk) -> u64 {
    if let LaneState::Open(lane) = &disk.lane { lane.fixed() } else { 0 }
}

/// Past the page cache, if the file system lets us.
fn direct() -> FileOptions {
    FileOptions { direct: true, block_size: Some(4096), ..options() }
}

#[test]
fn direct_io_of_pools_is_done_in_registered_memory() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    let Some(disk) = disk(&dir, &direct()) else { return };
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut disk = warmed(disk);
    let before = fixed(&disk);
    assert!(before > 0, "none of 80 calls");
    let pool = SlabPool::default();
    // Whole chunks and parts of chunks, of all lengths; each at a place of its own.
    let lens = [1u64, 4, 3, 16, 9, 64, 33].into_iter().cycle().take(24);
    let mut lba = 0;
    for (n, blocks) in lens.enumerate() {
        let len = blocks as usize * 4096;
        let pattern: Vec<u8> = (lba..lba + blocks).flat_map(|lba| block_of(lba, n as u64)).collect();
        let mut data = chunks(&pool, len);
        data.copy_from(0, &pattern);
        let write = Action::Write { lba, data: data.freeze(), fua: n % 3 == 0 };
        disk.submit(BlockOp { id: OpId(1), action: write }).unwrap();
        wait(&mut disk, 1);
        let mut seen = vec![0; len];
        file.read_exact_at(&mut seen, lba * 4096).unwrap();
        assert!(seen == pattern, "write {n} of {blocks} blocks");
        // Other bytes, read back.
        let pattern: Vec<u8> = (lba..lba + blocks).flat_map(|lba| block_of(lba, 1000 + n as u64)).collect();
        file.write_all_at(&pattern, lba * 4096).unwrap();
        file.sync_all().unwrap();
        let read = Action::Read { lba, blocks: blocks as u32, into: chunks(&pool, len) };
        disk.submit(BlockOp { id: OpId(2), action: read }).unwrap();
        let ended = wait(&mut disk, 1);
        assert!(matches!(&ended[..], [Payload::Data(data)] if data.to_bytes() == pattern), "read {n}");
        lba += blocks;
    }
    assert_eq!(fixed(&disk) - before, 48, "not all of them in registered memory");
    // In more than one chunk: without, and as right.
    let pattern: Vec<u8> = (0..128).flat_map(|lba| block_of(lba, 7)).collect();
    file.write_all_at(&pattern, 0).unwrap();
    file.sync_all().unwrap();
    let into = chunks(&pool, 128 * 4096);
    assert!(into.parts().count() > 1);
    disk.submit(BlockOp { id: OpId(3), action: Action::Read { lba: 0, blocks: 128, into } }).unwrap();
    let ended = wait(&mut disk, 1);
    assert!(matches!(&ended[..], [Payload::Data(data)] if data.to_bytes() == pattern));
    assert_eq!(fixed(&disk) - before, 48);
}

#[test]
fn nothing_is_registered_where_it_would_gain_nothing_or_is_not_wanted() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    for options in [FileOptions { registered: 0, ..direct() }, options()] {
        let Some(disk) = disk(&dir, &options) else { return };
        let mut disk = warmed(disk);
        // Past all that is in the cache.
        disk.submit(BlockOp { id: OpId(1), action: Action::Flush }).unwrap();
        wait(&mut disk, 1);
        assert_eq!(fixed(&disk), 0);
    }
}

/// Set for the process whose limits are changed: a directory.
const LIMITED: &str = "ISCSI_TARGET_LIMITED";

/// With RLIMIT_MEMLOCK too low, which only a process without CAP_IPC_LOCK feels.
#[test]
fn without_the_right_to_pin_memory_io_goes_on_and_it_is_said_once() {
    if let Ok(dir) = std::env::var(LIMITED) {
        return limited(&dir);
    }
    let dir = scratch();
    if disk(&dir, &direct()).is_none() {
        return;
    }
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("block::file::tests_uring::without_the_right_to_pin_memory_io_goes_on_and_it_is_said_once")
        .env(LIMITED, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(said.matches("memory cannot be registered with io_uring").count(), 1, "{said}");
}

fn limited(dir: &str) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    tracing_subscriber::fmt().init();
    setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) }).unwrap();
    let mut mine = capabilities(None).unwrap();
    mine.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, mine).unwrap();
    let runtime = runtime();
    let _inside = runtime.enter();
    for name in ["one", "two"] {
        let path = std::path::Path::new(dir).join(name);
        let mut disk = warmed(FileDisk::open(&path, &direct()).unwrap());
        assert_eq!(fixed(&disk), 0);
        let pool = SlabPool::default();
        let mut data = chunks(&pool, 8192);
        data.copy_from(0, &[block_of(5, 1), block_of(6, 1)].concat());
        let write = Action::Write { lba: 5, data: data.freeze(), fua: false };
        disk.submit(BlockOp { id: OpId(1), action: write }).unwrap();
        wait(&mut disk, 1);
        let read = Action::Read { lba: 6, blocks: 1, into: chunks(&pool, 4096) };
        disk.submit(BlockOp { id: OpId(2), action: read }).unwrap();
        let ended = wait(&mut disk, 1);
        assert!(matches!(&ended[..], [Payload::Data(data)] if data.to_bytes() == block_of(6, 1)));
    }
}

/// Set for the process that is to be killed: the disk's path and whether it goes past the page cache.
const VICTIM: &str = "ISCSI_TARGET_VICTIM";
/// Blocks that the victim writes, of 4096 bytes.
const BLOCKS: u64 = 512;

fn block_of(lba: u64, generation: u64) -> Vec<u8> {
    [lba, generation].map(u64::to_be_bytes).concat().repeat(4096 / 16)
}

/// Writes until it is killed. Says which blocks it is about to write (`w GENERATION LBA BLOCKS`), and up to which generation
/// it has been told that they are on the medium (`f GENERATION`), or that one is (`d GENERATION`).
fn victim(path: &str, direct: bool) -> ! {
    let runtime = runtime();
    let _inside = runtime.enter();
    let options = FileOptions { direct, block_size: Some(4096), ..options() };
    let mut disk = warmed(FileDisk::open(path, &options).unwrap());
    assert_eq!(fixed(&disk) > 0, direct, "direct I/O is to be in registered memory");
    let mut random = testing::Seeded::new(std::process::id().into());
    let mut generation = 0;
    // What runs the tests may have begun a line.
    println!();
    loop {
        // Eight at a time, in ranges of their own.
        let (mut said, mut durable) = (String::new(), String::new());
        let mut batch = Vec::new();
        for part in 0..8 {
            generation += 1;
            let blocks = 1 + random.below(16);
            let lba = part * 64 + random.below(64 - blocks);
            let fua = random.below(4) == 0;
            said += &format!("w {generation} {lba} {blocks}\n");
            if fua {
                durable += &format!("d {generation}\n");
            }
            let data: Vec<u8> = (lba..lba + blocks).flat_map(|lba| block_of(lba, generation)).collect();
            batch.push(Action::Write { lba, data: Bytes::from(data).into(), fua });
        }
        print!("{said}");
        for action in batch {
            disk.submit(BlockOp { id: OpId(0), action }).unwrap();
        }
        wait(&mut disk, 8);
        print!("{durable}");
        if random.below(3) == 0 {
            disk.submit(BlockOp { id: OpId(0), action: Action::Flush }).unwrap();
            wait(&mut disk, 1);
            println!("f {generation}");
        }
    }
}

/// Kills a process that writes, at whatever moment, and looks at what it has left: what a flush or FUA has confirmed is
/// there, and every block is as one of the writes since left it, whole.
#[test]
fn a_process_that_is_killed_loses_nothing_that_it_has_confirmed() {
    if let Ok(victim_of) = std::env::var(VICTIM) {
        let (direct, path) = victim_of.split_at(1);
        victim(path, direct == "d");
    }
    let dir = scratch();
    for (round, how) in ["d", "c"].into_iter().cycle().take(6).enumerate() {
        let runtime = runtime();
        let _inside = runtime.enter();
        let options = FileOptions { direct: how == "d", block_size: Some(4096), ..options() };
        if disk(&dir, &options).is_none() {
            continue;
        }
        let path = dir.path().join(format!("victim-{round}"));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("block::file::tests_uring::a_process_that_is_killed_loses_nothing_that_it_has_confirmed")
            .env(VICTIM, format!("{how}{}", path.display()))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // It is killed after so many lines, and a moment that nobody knows.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let until = 60 + testing::Seeded::new(round as u64).below(200) as usize;
        let mut said: Vec<String> = lines.by_ref().take(until).map(Result::unwrap).collect();
        child.kill().unwrap();
        // The last line may be cut short.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        said.extend(rest);
        child.wait().unwrap();
        let mut allowed = vec![vec![0]; BLOCKS as usize];
        let mut confirmed = 0;
        for line in &said {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok());
            match (words[0], number(1), number(2), number(3)) {
                ("w", Some(generation), Some(lba), Some(blocks)) => {
                    allowed[lba as usize..(lba + blocks) as usize]
                        .iter_mut()
                        .for_each(|a| a.push(generation));
                }
                // All before it, the newest of each block, is confirmed.
                ("f", Some(_), ..) => {
                    confirmed += 1;
                    allowed.iter_mut().for_each(|a| drop(a.drain(..a.len() - 1)));
                }
                ("d", Some(generation), ..) => {
                    confirmed += 1;
                    allowed.iter_mut().for_each(|a| {
                        let at = a.iter().position(|g| *g == generation).unwrap_or(0);
                        a.drain(..at);
                    });
                }
                _ => {}
            }
        }
        assert!(confirmed > 0, "round {round}: it confirmed nothing in {} lines", said.len());
        let file = std::fs::File::open(&path).unwrap();
        for (lba, allowed) in (0..BLOCKS).zip(&allowed) {
            let mut seen = vec![0; 4096];
            file.read_exact_at(&mut seen, lba * 4096).unwrap();
            let as_left = |generation: &u64| match generation {
                0 => seen.iter().all(|b| *b == 0),
                generation => seen == block_of(lba, *generation),
            };
            assert!(
                allowed.iter().any(as_left),
                "round {round} ({how}): block {lba} is none of {allowed:?}: lost or torn"
            );
        }
    }
}

/// Buffers of a pool that are in the kernel's hands.
fn chunks(pool: &SlabPool, len: usize) -> SgListMut {
    pool.alloc(len).unwrap()
}

/// The classic bug: a handle is dropped, with its session, while the kernel works. Its buffers must neither come back to
/// their pool before it has ended nor be lost.
#[test]
fn buffers_outlive_the_handle_that_lent_them() {
    let dir = scratch();
    let runtime = runtime();
    let _inside = runtime.enter();
    let Some(template) = disk(&dir, &direct()).or_else(|| disk(&dir, &options())) else { return };
    let blocks = u64::from(8 * 1024 * 1024 / template.geometry().block_size);
    let block = template.geometry().block_size;
    let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    for round in 0..32u8 {
        let pool = SlabPool::default();
        // With memory of its own registered in two rounds of three.
        let mut handle = FileDisk::on(template.medium.clone());
        if round % 3 > 0 {
            handle = warmed(handle);
        }
        // Writes of this round's pattern, from memory of the pool, and reads into it.
        for n in 0..16u64 {
            let mut data = chunks(&pool, block as usize);
            data.slices_mut().for_each(|s| s.fill(round + 1));
            let write = Action::Write { lba: n, data: data.freeze(), fua: n % 4 == 0 };
            handle.submit(BlockOp { id: OpId(n), action: write }).unwrap();
            let into = chunks(&pool, 16 * block as usize);
            let read = Action::Read { lba: (blocks / 2 + n * 16) % (blocks - 16), blocks: 16, into };
            handle.submit(BlockOp { id: OpId(100 + n), action: read }).unwrap();
        }
        if round % 2 == 0 {
            // Some of it is with the kernel, the rest not even begun.
            let _ = handle.poll_done(&mut Context::from_waker(std::task::Waker::noop()));
        }
        drop(handle);
        // Whoever gets a buffer now and writes into it must not be seen on the disk.
        let mut taken: Vec<_> = (0..64).map(|_| chunks(&pool, block as usize)).collect();
        taken.iter_mut().flat_map(SgListMut::slices_mut).for_each(|s| s.fill(0xee));
        drop(taken);
        let mut patience = patience();
        while pool.outstanding() > 0 {
            patience();
        }
        // All that was submitted has happened, unseen, with the data of then.
        let mut seen = vec![0; 16 * block as usize];
        std::fs::File::open(&path).unwrap().read_exact_at(&mut seen, 0).unwrap();
        assert!(seen.iter().all(|b| *b == round + 1), "round {round}");
    }
}
