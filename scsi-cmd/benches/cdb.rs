//! CDB decode and encode: the cost per command of this crate.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use scsi_cmd::cdb::{BlockIo, Cdb, IoKind};
use std::hint::black_box;

fn cdb(c: &mut Criterion) {
    for (name, kind, lba) in [
        ("read10", IoKind::Read, 7),
        ("write16", IoKind::Write, 1 << 40),
        ("caw", IoKind::CompareAndWrite, 9),
    ] {
        let cdb = Cdb::from(BlockIo::new(kind, lba, 8).command().expect("8 blocks fit"));
        // As a SCSI Command PDU carries it: 16 bytes.
        let mut bytes = [0; 16];
        let encoded = cdb.encode();
        bytes[..encoded.len()].copy_from_slice(&encoded);
        c.bench_function(&format!("decode_{name}"), |b| {
            b.iter(|| Cdb::decode(black_box(&bytes)).map(|cdb| cdb.command.block_io()));
        });
        c.bench_function(&format!("encode_{name}"), |b| b.iter(|| black_box(&cdb).encode()));
    }
}

criterion_group!(benches, cdb);
criterion_main!(benches);
