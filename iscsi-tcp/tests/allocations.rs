//! Once warm, an I/O allocates nothing in the core of either role.

#[path = "common/pair.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the bench")]
mod pair;

use bytes::Bytes;
use pair::{Pair, buffers};

/// Allocations of 50 rounds, after 20 to warm up.
fn count(mut round: impl FnMut()) -> u64 {
    (0..20).for_each(|_| round());
    allocation_counter::measure(|| (0..50).for_each(|_| round())).count_total
}

#[test]
fn nothing_per_io_in_steady_state() {
    let disk = Bytes::from(vec![0x5a; 1 << 20]);
    for digests in [false, true] {
        for (len, depth) in [(512, 32), (4096, 32), (65_536, 8), (1 << 20, 2)] {
            let mut pair = Pair::new(digests);
            let mut rooms = buffers(depth, len);
            assert_eq!(count(|| pair.reads(&disk, &mut rooms)), 0, "READ of {len}, digests {digests}");
            let data = disk.slice(..len);
            if len <= 65_536 {
                let mut pair = Pair::new(digests);
                // One chunk of the pool frozen for each segment that is gathered.
                let gathered = if len > 8192 { 50 * depth as u64 } else { 0 };
                let n = count(|| pair.writes(&data, depth as u32, true));
                assert!(n <= gathered, "WRITE of {len} with immediate data, digests {digests}: {n}");
            }
            let mut pair = Pair::new(digests);
            // The list of a Get that is longer than the pool's longest chunk.
            let lists = if len > 262_144 { 50 * depth as u64 } else { 0 };
            let n = count(|| pair.writes(&data, depth as u32, false));
            assert!(n <= 2 * lists, "WRITE of {len} by R2T, digests {digests}: {n}");
        }
    }
}
