//! What an RDMA Write of 64 KiB costs in user space, beside what it cannot cost less than: the copy that stands for the
//! socket, and a CRC at each end.
//!
//! ```text
//!   cargo bench -p iwarp
//! ```

#![allow(missing_docs)] // of what the macros make

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iwarp::mpa::{Established, Revision, Role};
use iwarp::{Access, Limits, QueuePair, Region, RemoteAddr, SendWr, WrId, WriteWr};
use std::hint::black_box;
use std::io::IoSlice;

const SIZE: usize = 64 * 1024;

fn end(role: Role, crc: bool, markers: bool) -> QueuePair<Vec<u8>> {
    let e = Established {
        role,
        crc,
        tx_markers: markers,
        rx_markers: markers,
        revision: Revision::Two,
        ird: 1,
        ord: 1,
        peer_ird: None,
        peer_ord: None,
        rtr: None,
        fault: None,
        private_data: Bytes::new(),
    };
    QueuePair::new(&e, Limits::default(), [role as u8; 16])
}

/// Carries all octets of `a` to `b`, copying each once: a socket without its system calls.
fn carry(a: &mut QueuePair<Vec<u8>>, b: &mut QueuePair<Vec<u8>>) {
    loop {
        let mut iov = [IoSlice::new(&[]); 64];
        let used = a.transmit_slices(&mut iov);
        let Some(slices) = iov.get(..used).filter(|s| !s.is_empty()) else { return };
        let mut sent = 0;
        for slice in slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let n = b.recv_slots().fill_from(rest);
                b.received(n);
                rest = &rest[n..];
            }
            sent += slice.len();
        }
        a.transmitted(sent);
    }
}

fn write_64k(c: &mut Criterion) {
    let mut group = c.benchmark_group("write_64k");
    group.throughput(Throughput::Bytes(SIZE as u64));
    let data = Bytes::from((0..SIZE).map(|n| n as u8).collect::<Vec<_>>());
    for (name, crc, markers) in [("crc", true, false), ("no_crc", false, false), ("crc_markers", true, true)]
    {
        let (mut a, mut b) = (end(Role::Initiator, crc, markers), end(Role::Responder, crc, markers));
        let stag = b.register(Region::Owned(vec![0; SIZE]), Access::WRITE, 0).unwrap();
        let to = RemoteAddr { stag, offset: 0 };
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let payload = data.clone().into();
                a.post_write(WriteWr { id: WrId(0), payload, to, fence: false, unsignaled: true }).unwrap();
                carry(&mut a, &mut b);
            });
        });
        let (copied, placed) = (b.stats().copied_bytes, b.stats().placed_bytes);
        println!(
            "{name}: {:.1} % of the payload copied once more",
            100.0 * copied as f64 / (copied + placed) as f64
        );
    }
    let mut sink = vec![0u8; SIZE];
    group.bench_function("limit: memcpy + 2 crc", |bench| {
        bench.iter(|| {
            let sent = crc32c::crc32c(black_box(&data));
            sink.copy_from_slice(&data);
            sent ^ crc32c::crc32c(black_box(&sink))
        });
    });
    group.bench_function("limit: memcpy", |bench| {
        bench.iter(|| {
            sink.copy_from_slice(black_box(&data));
            black_box(&mut sink);
        });
    });
    group.finish();
}

fn send_100(c: &mut Criterion) {
    let mut group = c.benchmark_group("send_100");
    group.throughput(Throughput::Elements(1));
    let (mut a, mut b) = (end(Role::Initiator, true, false), end(Role::Responder, true, false));
    let message = Bytes::from_static(&[7; 100]);
    let mut buffer = vec![0; 128];
    group.bench_function("crc", |bench| {
        bench.iter(|| {
            b.post_recv(WrId(0), std::mem::take(&mut buffer)).unwrap();
            let wr = SendWr { payload: message.clone().into(), unsignaled: true, ..SendWr::default() };
            a.post_send(wr).unwrap();
            carry(&mut a, &mut b);
            match b.poll_cq().map(|c| c.done) {
                Some(iwarp::Done::Recv { buffer: back, .. }) => buffer = back,
                other => panic!("{other:?}"),
            }
        });
    });
    group.finish();
}

criterion_group!(benches, write_64k, send_100);
criterion_main!(benches);
