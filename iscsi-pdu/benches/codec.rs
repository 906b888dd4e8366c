//! Speed of the codec; the budgets are those of ARCHITECTURE.md section 11.
//!
//! `cargo bench -p iscsi-pdu`. Side by side with another codec: `bench/peers`. Instruction counts: `cargo xtask
//! instructions`.
#![allow(missing_docs)] // criterion's macros make undocumented items

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use iscsi_pdu::*;
use std::hint::black_box;

#[path = "common/pdus.rs"]
mod pdus;
use pdus::pdus;

fn header(c: &mut Criterion) {
    for pdu in pdus() {
        let mut bhs = [0; BHS_LEN];
        pdu.encode_header(&mut bhs).unwrap();
        let name = pdu.opcode().name().unwrap();
        c.bench_function(&format!("decode/{name}"), |b| {
            // Looked at where it was decoded: moving it would be timed as well.
            b.iter(|| {
                black_box(&Pdu::decode_header(black_box(&bhs)));
            });
        });
        c.bench_function(&format!("encode/{name}"), |b| {
            b.iter(|| black_box(&pdu).encode_header(black_box(&mut bhs)).unwrap());
        });
    }
}

/// 64 KiB of SCSI Commands and NOP-Outs, as a spill buffer holds them.
fn framer(c: &mut Criterion) {
    let mut group = c.benchmark_group("framer");
    for (name, digests) in
        [("64KiB of commands and NOPs", Digests::NONE), ("the same with digests", Digests::BOTH)]
    {
        let mut wire = BytesMut::new();
        let mut n = 0_u32;
        while wire.len() < 65_536 {
            let nop = NopOut::ping(Itt(n), Bytes::new());
            let command = ScsiCommand { final_pdu: true, read: true, itt: Itt(n), ..Default::default() };
            let pdu: Pdu = if n % 4 == 3 { nop.into() } else { command.into() };
            pdu.encode_with(digests, &mut wire).unwrap();
            n += 1;
        }
        let wire = wire.freeze();
        group.throughput(Throughput::Elements(n.into()));
        group.bench_function(name, |b| {
            let mut framer = Framer::new(Limits::from(Sender::Initiator));
            framer.set_digests(digests);
            b.iter(|| {
                framer.push(wire.clone());
                let mut count = 0;
                while let Some(pdu) = framer.next_pdu().unwrap() {
                    black_box(&pdu);
                    count += 1;
                }
                assert_eq!(count, n);
            });
        });
    }
    group.finish();
}

fn whole(c: &mut Criterion) {
    let data = Bytes::from(vec![0x5a; 8192]);
    let pdu: Pdu = DataIn { final_pdu: true, data, ..Default::default() }.into();
    let wire = pdu.to_bytes().unwrap();
    c.bench_function("decode whole/Data-In 8 KiB", |b| {
        b.iter_batched(|| wire.clone(), |w| Pdu::decode(w).unwrap(), BatchSize::SmallInput);
    });
}

fn crc(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    let bhs = [0x5a; BHS_LEN];
    group.throughput(Throughput::Bytes(48));
    group.bench_function("header", |b| b.iter(|| header_digest(black_box(&bhs), &[])));
    let data = vec![0x5a; 65_536];
    group.throughput(Throughput::Bytes(65_536));
    group.bench_function("64 KiB", |b| b.iter(|| data_digest([black_box(&data[..])])));
    group.finish();
}

fn text_pairs(c: &mut Criterion) {
    let text = b"HeaderDigest=CRC32C,None\0DataDigest=None\0InitialR2T=No\0ImmediateData=Yes\0MaxBurstLength=262144\0";
    c.bench_function("text/5 pairs", |b| {
        b.iter(|| text::pairs(black_box(text), text::TextLimits::default()).filter(Result::is_ok).count());
    });
}

criterion_group!(benches, header, framer, whole, crc, text_pairs);
criterion_main!(benches);
