//! Counts allocations: decoding a header, and data that is already in `Bytes`, allocates nothing; nor does encoding
//! a header, nor framing PDUs that lie in one chunk.

mod common;

use bytes::Bytes;
use common::{blocks, hex, wire};
use iscsi_pdu::text::{TextLimits, pairs};
use iscsi_pdu::{BHS_LEN, Digests, Framer, Limits, Pdu, header_digest};

/// How often this thread allocates in `f`.
fn allocations<T>(f: impl FnOnce() -> T) -> (u64, T) {
    let mut value = None;
    let info = allocation_counter::measure(|| value = Some(f()));
    (info.count_total, value.expect("it ran"))
}

/// All vectors as they travel, and whether they have AHSs.
fn frames() -> Vec<(Bytes, bool)> {
    blocks(include_str!("vectors/pdus.txt"))
        .iter_mut()
        .map(|block| {
            let bhs = hex(&block.take("bhs").unwrap());
            let data = hex(&block.take("data").unwrap_or_default());
            let ahs = if bhs[4] != 0 { hex(&block.take("ahs").unwrap()) } else { Vec::new() };
            // One clone makes the handle shared, so that slicing it needs no new reference count.
            let frame = Bytes::from(wire(&bhs, &ahs, &data));
            std::mem::forget(frame.clone());
            (frame, !ahs.is_empty())
        })
        .collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| vec![1_u8]).0, 1);
}

#[test]
fn decoding_and_encoding_allocate_nothing() {
    let frames = frames();
    assert!(frames.len() > 60);
    for (frame, has_ahs) in frames {
        let bhs: &[u8; BHS_LEN] = frame.first_chunk().unwrap();
        let (n, header) = allocations(|| Pdu::decode_header(bhs));
        assert_eq!(n, 0, "{header:?}");
        let whole = frame.clone();
        let (n, pdu) = allocations(move || Pdu::decode(whole));
        let pdu = pdu.unwrap();
        assert!(n == 0 || has_ahs, "{pdu:?}");
        let mut out = [0; BHS_LEN];
        assert_eq!(allocations(|| pdu.encode_header(&mut out).unwrap()).0, 0);
        assert_eq!(allocations(|| header_digest(&out, &[])).0, 0);
        let data = pdu.data().cloned().unwrap_or_default();
        assert_eq!(allocations(|| pairs(&data, TextLimits::default()).count()).0, 0);
    }
}

#[test]
fn framing_one_chunk_allocates_nothing_per_pdu() {
    for digests in [Digests::NONE, Digests::BOTH] {
        let mut stream = bytes::BytesMut::new();
        let mut pdus = 0;
        for (frame, _) in frames().into_iter().filter(|(_, has_ahs)| !has_ahs) {
            Pdu::decode(frame).unwrap().encode_with(digests, &mut stream).unwrap();
            pdus += 1;
        }
        let chunk = stream.freeze();
        std::mem::forget(chunk.clone());
        let mut framer = Framer::new(Limits::MAX);
        framer.set_digests(digests);
        framer.push(chunk.clone());
        let (n, count) = allocations(|| {
            let mut count = 0;
            while framer.next_pdu().unwrap().is_some() {
                count += 1;
            }
            count
        });
        assert_eq!((n, count), (0, pdus));
    }
}

#[test]
fn a_refused_length_costs_nothing() {
    // The longest data segment and the longest AHSs, announced and not sent.
    let mut bhs = [0_u8; BHS_LEN];
    bhs[0] = 0x41;
    bhs[4..8].fill(0xff);
    let chunk = Bytes::copy_from_slice(&bhs);
    std::mem::forget(chunk.clone());
    let mut framer = Framer::new(Limits::default());
    framer.push(chunk);
    let (n, error) = allocations(|| framer.next_pdu().unwrap_err());
    assert_eq!((n, &error.header[..]), (0, &bhs[..]));
}
