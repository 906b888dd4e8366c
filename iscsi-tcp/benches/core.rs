//! The core without sockets: both roles together, a memcpy in the place of the kernel.
//!
//! `cargo bench -p iscsi-tcp`. `copy` is the floor: the same bytes copied as often as the "kernel" does here.

#![allow(missing_docs, reason = "criterion makes public functions")]

#[path = "../tests/common/pair.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with a test")]
mod pair;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pair::{Pair, buffers};
use std::hint::black_box;

fn benches(c: &mut Criterion) {
    let disk = Bytes::from(vec![0x5a; 1 << 20]);
    for (name, len, depth) in
        [("4k_depth_32", 4096usize, 32usize), ("64k_depth_8", 65_536, 8), ("1m_depth_2", 1 << 20, 2)]
    {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(depth as u64));
        let mut to = vec![0u8; len * depth];
        let mut wire = vec![0u8; len];
        group.bench_function("copy", |b| {
            b.iter(|| {
                for chunk in to.chunks_mut(len) {
                    wire.copy_from_slice(black_box(&disk[..len]));
                    chunk.copy_from_slice(black_box(&wire));
                }
            });
        });
        for digests in [false, true] {
            let suffix = if digests { "_digests" } else { "" };
            let mut pair = Pair::new(digests);
            let mut rooms = buffers(depth, len);
            group.bench_function(format!("read{suffix}"), |b| b.iter(|| pair.reads(&disk, &mut rooms)));
            let data = disk.slice(..len);
            let mut pair = Pair::new(digests);
            group.bench_function(format!("write_r2t{suffix}"), |b| {
                b.iter(|| pair.writes(&data, depth as u32, false))
            });
            if len <= 65_536 {
                let mut pair = Pair::new(digests);
                group.bench_function(format!("write_immediate{suffix}"), |b| {
                    b.iter(|| pair.writes(&data, depth as u32, true));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(core, benches);
criterion_main!(core);
