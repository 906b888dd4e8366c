//! Our codec beside the published ones for Rust, in one run.
//!
//! `cargo bench --manifest-path bench/peers/Cargo.toml`
//!
//! | crate | version | licence | |
//! |---|---|---|---|
//! | `iscsi-target` | 1.0.0 | MIT OR Apache-2.0 | compared here: one struct for every PDU, its data copied; a second step per opcode |
//! | `iscsi-client-rs` | 0.0.9 | AGPL-3.0-or-later | not compared: its licence does not go with ours |
//!
//! The two do not do the same. Ours checks every rule of the header and yields the fields of the opcode; the other
//! checks lengths, and skips AHSs. Before anything is measured, both must read the same fields out of the same bytes.
#![allow(missing_docs)] // criterion's macros make undocumented items

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use iscsi_pdu::{DataOut, Itt, Lun, NopOut, Pdu, ScsiCommand, Ttt};
use peer::pdu::IscsiPdu;
use std::hint::black_box;

fn pdus() -> [(&'static str, Pdu); 4] {
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        lun: Lun([0, 1, 0, 0, 0, 0, 0, 0]),
        itt: Itt(7),
        expected_data_transfer_length: 4096,
        cdb: [0x28, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0],
        ..ScsiCommand::default()
    };
    let write = ScsiCommand {
        read: false,
        write: true,
        data: Bytes::from(vec![0x5a; 4096]),
        ..command.clone()
    };
    [
        ("READ command", command.into()),
        ("WRITE command, 4 KiB of data", write.into()),
        ("Data-Out, 8 KiB", DataOut {
            final_pdu: true,
            itt: Itt(7),
            ttt: Ttt(9),
            data: Bytes::from(vec![0x5a; 8192]),
            ..DataOut::default()
        }
        .into()),
        ("NOP-Out", NopOut::ping(Itt(7), Bytes::new()).into()),
    ]
}

/// The other codec's two steps.
fn theirs(wire: &[u8]) -> (u32, Vec<u8>) {
    let pdu = IscsiPdu::from_bytes(wire).expect("decodes");
    match pdu.opcode {
        0x00 => {
            let p = pdu.parse_nop_out().expect("a NOP-Out");
            (black_box(p.itt), p.data)
        }
        0x01 => {
            let p = black_box(pdu.parse_scsi_command().expect("a command"));
            (p.itt, pdu.data)
        }
        0x05 => {
            let p = pdu.parse_scsi_data_out().expect("a Data-Out");
            (black_box(p.itt), p.data)
        }
        other => panic!("{other}"),
    }
}

fn benches(c: &mut Criterion) {
    for (name, pdu) in pdus() {
        let wire = pdu.to_bytes().expect("encodes");
        let (itt, data) = theirs(&wire);
        assert_eq!((itt, &data[..]), (pdu.itt().0, &pdu.data().cloned().unwrap_or_default()[..]));
        if let Pdu::ScsiCommand(p) = &pdu {
            let q = IscsiPdu::from_bytes(&wire).and_then(|q| q.parse_scsi_command()).expect("a command");
            assert_eq!((q.lun.to_be_bytes(), q.cdb, q.read, q.write), (p.lun.0, p.cdb, p.read, p.write));
            assert_eq!(q.expected_data_length, p.expected_data_transfer_length);
        }
        let again = IscsiPdu::from_bytes(&wire).expect("decodes");
        assert_eq!(again.to_bytes(), wire, "both write the same bytes");

        let mut group = c.benchmark_group(name);
        group.bench_function("decode, iscsi-pdu", |b| b.iter(|| Pdu::decode(black_box(wire.clone()))));
        group.bench_function("decode, iscsi-target", |b| b.iter(|| theirs(black_box(&wire))));
        group.bench_function("encode, iscsi-pdu", |b| b.iter(|| black_box(&pdu).to_bytes()));
        group.bench_function("encode, iscsi-target", |b| b.iter(|| black_box(&again).to_bytes()));
        group.finish();
    }
}

criterion_group!(peers, benches);
criterion_main!(peers);
