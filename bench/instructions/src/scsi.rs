//! `scsi-cmd`: CDBs of the data path.

use crate::Operation;
use scsi_cmd::cdb::{BlockIo, Cdb, IoKind};
use std::hint::black_box;

pub(crate) fn operations() -> Vec<Operation> {
    let mut list = Vec::new();
    for (name, kind, lba) in [
        ("READ(10)", IoKind::Read, 7),
        ("WRITE(16)", IoKind::Write, 1 << 40),
        ("COMPARE AND WRITE", IoKind::CompareAndWrite, 9),
    ] {
        let cdb = Cdb::from(BlockIo::new(kind, lba, 8).command().expect("8 blocks fit"));
        let mut bytes = [0; 16];
        let encoded = cdb.encode();
        bytes[..encoded.len()].copy_from_slice(&encoded);
        list.push(Operation::new(format!("scsi: decode {name}"), 100, move || {
            let io = Cdb::decode(black_box(&bytes)).map(|cdb| cdb.command.block_io());
            assert!(black_box(io).is_ok_and(|io| io.is_some()));
        }));
        list.push(Operation::new(format!("scsi: encode {name}"), 100, move || {
            black_box(black_box(&cdb).encode());
        }));
    }
    list
}
