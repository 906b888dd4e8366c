//! The hot path of a whole target, for callgrind: what one I/O costs in user space, without a kernel in it.
//!
//! `cargo bench -p iscsi-target --bench whole -- KIND SIZE DEPTH ROUNDS`, KIND one of `read`, `write`, `r2t`, each
//! with `-crc` for digests. Without arguments it runs a few rounds of each, as a check.

#![allow(missing_docs, reason = "a program")]

#[path = "../tests/common/whole.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with tests")]
mod whole;

use whole::{Kind, Whole};

fn run(kind: &str, size: usize, depth: usize, rounds: usize) {
    let (kind, digests) = kind.strip_suffix("-crc").map_or((kind, false), |kind| (kind, true));
    let kind = match kind {
        "read" => Kind::Read,
        "write" => Kind::WriteImmediate,
        "r2t" => Kind::WriteSolicited,
        other => panic!("{other} is none of read, write, r2t"),
    };
    let mut whole = Whole::new(digests);
    let places = (16 << 20) / size as u64;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut lbas = vec![0; depth];
    for _ in 0..rounds {
        for lba in &mut lbas {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *lba = random % places * (size as u64 / 512);
        }
        whole.io(kind, &lbas, size);
    }
    println!("{} I/Os, {} calls of the stream", depth * rounds, whole.calls());
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number =
        |at: usize, otherwise: usize| args.get(at).map_or(otherwise, |n| n.parse().expect("a number"));
    match args.first() {
        Some(kind) => run(kind, number(1, 4096), number(2, 32), number(3, 200)),
        None => ["read", "write", "r2t-crc"].iter().for_each(|kind| run(kind, 4096, 32, 10)),
    }
}
