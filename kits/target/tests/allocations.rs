//! Once warm, an I/O allocates nothing in a whole target: driver, session engine, device server, RAM disk, TCP core.

#[path = "common/whole.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the bench")]
mod whole;

use whole::{Kind, Whole};

const ROUNDS: u64 = 50;

/// Allocations of some rounds of `depth` commands, after others to warm up: a hash map grows once more when the places of
/// what left it add up.
fn count(kind: Kind, size: usize, depth: u64, digests: bool) -> u64 {
    let mut whole = Whole::new(digests);
    let places = (16 << 20) / size as u64;
    let lbas: Vec<u64> = (0..depth).map(|n| n * 37 % places * (size as u64 / 512)).collect();
    (0..100).for_each(|_| whole.io(kind, &lbas, size));
    allocation_counter::measure(|| (0..ROUNDS).for_each(|_| whole.io(kind, &lbas, size))).count_total
}

#[test]
fn nothing_per_io_in_steady_state() {
    for digests in [false, true] {
        for (kind, size, depth) in [
            (Kind::Read, 512, 32),
            (Kind::Read, 4096, 1),
            (Kind::Read, 4096, 32),
            (Kind::Read, 65_536, 8),
            (Kind::WriteImmediate, 512, 32),
            (Kind::WriteImmediate, 4096, 1),
            (Kind::WriteImmediate, 4096, 32),
        ] {
            let n = count(kind, size, depth, digests);
            assert_eq!(n, 0, "{kind:?} of {size} at depth {depth}, digests {digests}");
        }
        // What a pool's chunk needs to go home by itself when the last handle on it is dropped.
        let n = count(Kind::WriteSolicited, 65_536, 8, digests);
        assert!(n <= ROUNDS * 8, "WRITE by R2T, digests {digests}: {n}");
    }
}
