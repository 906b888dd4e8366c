//! What io_uring gains over the pool of threads, and registered memory over plain calls, on a file: operations a second
//! and processor time of the whole process an operation, in rounds that alternate.
//!
//! `cargo bench -p iscsi-target --bench disks -- FILE [SECONDS]`: FILE is made, 256 MiB, beside which nothing should
//! use the medium. Without arguments it runs a moment on a small file, as a check. `ONLY=direct` in the environment leaves
//! out the loads whose names do not contain it.

#![allow(missing_docs, reason = "a program")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use bytes::Bytes;
use datamover::{BufPool as _, SlabPool};
use iscsi_target::block::{Action, BlockDevice, BlockOp, FileDisk, FileOptions, IoEngine, OpId};
use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

/// A kind of load, at random places.
struct Load {
    name: &'static str,
    /// Blocks an operation.
    blocks: u32,
    direct: bool,
    depth: usize,
    write: bool,
    fua: bool,
}

const LOADS: [Load; 8] = [
    Load { name: "read 4K, cached, depth 32", blocks: 1, direct: false, depth: 32, write: false, fua: false },
    Load { name: "read 4K, direct, depth 1", blocks: 1, direct: true, depth: 1, write: false, fua: false },
    Load { name: "read 4K, direct, depth 32", blocks: 1, direct: true, depth: 32, write: false, fua: false },
    Load { name: "read 256K, direct, depth 8", blocks: 64, direct: true, depth: 8, write: false, fua: false },
    Load { name: "write 4K, cached, depth 32", blocks: 1, direct: false, depth: 32, write: true, fua: false },
    Load { name: "write 4K, direct, depth 32", blocks: 1, direct: true, depth: 32, write: true, fua: false },
    Load { name: "write 256K, direct, depth 8", blocks: 64, direct: true, depth: 8, write: true, fua: false },
    Load { name: "write 4K, FUA, depth 32", blocks: 1, direct: false, depth: 32, write: true, fua: true },
];

const BLOCK: u32 = 4096;

/// Who does it, and in how many bytes of registered memory.
type Way = (IoEngine, usize);
const WAYS: [Way; 3] = [(IoEngine::Threads, 0), (IoEngine::Uring, 0), (IoEngine::Uring, 16 << 20)];

/// User and system time of all threads, in ticks of a hundredth of a second (proc_pid_stat(5), fields 14 and 15).
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    after.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

/// Operations a second and microseconds of processor each.
async fn round(path: &Path, size: u64, load: &Load, way: Way, length: Duration) -> (f64, f64) {
    let (engine, registered) = way;
    let options = FileOptions {
        block_size: Some(BLOCK),
        create: Some(size),
        direct: load.direct,
        engine,
        registered,
        ..FileOptions::default()
    };
    let mut disk = FileDisk::open(path, &options).unwrap();
    let blocks = disk.geometry().blocks;
    let pool = SlabPool::default();
    let len = (BLOCK * load.blocks) as usize;
    let data = pool.alloc(len).unwrap().freeze();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let (start, cpu) = (Instant::now(), ticks());
    let (mut open, mut done, mut stop) = (0, 0u64, false);
    poll_fn(|cx| {
        loop {
            while !stop && open < load.depth {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let lba = random % (blocks / u64::from(load.blocks)) * u64::from(load.blocks);
                let action = match load.write {
                    true => Action::Write { lba, data: data.clone(), fua: load.fua },
                    false => Action::Read { lba, blocks: load.blocks, into: pool.alloc(len).unwrap() },
                };
                disk.submit(BlockOp { id: OpId(0), action }).unwrap();
                open += 1;
            }
            match disk.poll_done(cx) {
                Poll::Ready(ended) => {
                    ended.result.unwrap();
                    open -= 1;
                    done += 1;
                    stop = done.is_multiple_of(16) && start.elapsed() >= length || stop;
                    if stop && open == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => {
                    stop |= start.elapsed() >= length;
                    return Poll::Pending;
                }
            }
        }
    })
    .await;
    let seconds = start.elapsed().as_secs_f64();
    (done as f64 / seconds, (ticks() - cpu) as f64 * 10_000.0 / done as f64)
}

/// Written whole, so that nothing is a hole.
fn prepare(path: &Path, size: u64) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    let piece = Bytes::from(vec![0x5a; 1 << 20]);
    (0..size >> 20).for_each(|_| file.write_all(&piece).unwrap());
    file.sync_all().unwrap();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let scratch = tempfile::tempdir().unwrap();
    let (path, size, length, rounds) = match args.as_slice() {
        [] => (scratch.path().join("disk"), 4 << 20, Duration::from_millis(20), 1),
        [file, rest @ ..] => {
            let seconds = rest.first().map_or(1.0, |s| s.parse().expect("SECONDS"));
            (file.into(), 256 << 20, Duration::from_secs_f64(seconds), 5)
        }
    };
    prepare(&path, size);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>8}{:>8}{:>11}{:>10}{:>10}{:>8}{:>8}",
        "",
        "threads/s",
        "uring/s",
        "fixed/s",
        "u:t",
        "f:u",
        "threads us",
        "uring us",
        "fixed us",
        "u:t",
        "f:u"
    );
    let only = std::env::var("ONLY").unwrap_or_default();
    for load in LOADS.iter().filter(|load| load.name.contains(&only)) {
        let mut seen: [(Vec<f64>, Vec<f64>); 3] = Default::default();
        for _ in 0..rounds {
            for (way, (rates, costs)) in WAYS.into_iter().zip(&mut seen) {
                let path = path.clone();
                // A task, so that it is the runtime's worker that does it.
                let (rate, cost) = runtime.block_on(async {
                    tokio::spawn(async move { round(&path, size, load, way, length).await }).await.unwrap()
                });
                rates.push(rate);
                costs.push(cost);
            }
        }
        let [(t, tc), (u, uc), (f, fc)] = seen.map(|(rates, costs)| (median(rates), median(costs)));
        println!(
            "{:<28}{t:>10.0}{u:>10.0}{f:>10.0}{:>8.2}{:>8.2}{tc:>11.1}{uc:>10.1}{fc:>10.1}{:>8.2}{:>8.2}",
            load.name,
            u / t,
            f / u,
            uc / tc,
            fc / uc
        );
    }
}
