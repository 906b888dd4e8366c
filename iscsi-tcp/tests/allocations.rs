//! Once warm, an I/O allocates nothing in the core of either role.

#[path = "common/pair.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the bench")]
mod pair;

use bytes::Bytes;
use pair::{Pair, buffers};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts every call that may get memory.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of 50 rounds, after 20 to warm up.
fn count(mut round: impl FnMut()) -> u64 {
    (0..20).for_each(|_| round());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..50).for_each(|_| round());
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// One test: the counter is the process's.
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
