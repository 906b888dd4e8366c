//! Digest errors told apart, limits before memory, and the ways out.

use super::*;
use crate::{Ahs, DataOut, Itt, NopOut, Opcode, RejectReason, Rule, ScsiCommand};

fn ping(data: &'static [u8]) -> Pdu {
    NopOut { itt: Itt(7), data: Bytes::from_static(data), ..Default::default() }.into()
}

fn wire(pdu: &Pdu, digests: Digests) -> Vec<u8> {
    let mut out = BytesMut::new();
    pdu.encode_with(digests, &mut out).unwrap();
    out.to_vec()
}

fn framer(digests: Digests, bytes: &[u8]) -> Framer {
    let mut framer = Framer::new(Limits::default());
    framer.set_digests(digests);
    framer.push(Bytes::copy_from_slice(bytes));
    framer
}

#[test]
fn parts_of_a_frame() {
    // req: 7143-11.2-1, 7143-11.2-2, 7143-11.2-3, 7143-11.2-5
    // BHS of a NOP-Out with "hello", then CRC32C of it; data, padding, CRC32C of both.
    let wire = wire(&ping(b"hello"), Digests::BOTH);
    assert_eq!(wire.len(), 48 + 4 + 8 + 4);
    assert_eq!(wire[48..52], Crc32c::new().update(&wire[..48]).to_wire());
    assert_eq!(wire[52..60], *b"hello\0\0\0");
    assert_eq!(wire[60..], Crc32c::new().update(b"hello\0\0\0").to_wire());
    assert_eq!(framer(Digests::BOTH, &wire).next_pdu(), Ok(Some(ping(b"hello"))));
}

#[test]
fn a_data_digest_error_drops_one_pdu() {
    // req: 7143-7.8-1
    let data_out =
        Pdu::from(DataOut { itt: Itt(9), data: Bytes::from_static(b"block"), ..Default::default() });
    let mut bytes = wire(&data_out, Digests::BOTH);
    bytes[52] ^= 1;
    bytes.extend(wire(&ping(b"next"), Digests::BOTH));
    let mut framer = framer(Digests::BOTH, &bytes);
    let e = framer.next_pdu().unwrap_err();
    assert_eq!(e.error.kind, DecodeErrorKind::DataDigest);
    assert_eq!((e.error.reject(), e.error.fatal()), (Some(RejectReason::DataDigestError), false));
    assert_eq!(e.header, bytes[..48], "the header, not the digest");
    let header = e.pdu().unwrap();
    assert_eq!((header.opcode(), header.itt()), (Opcode::DataOut, Itt(9)));
    assert_eq!(framer.next_pdu(), Ok(Some(ping(b"next"))), "in step again");
}

#[test]
fn padding_counts_for_the_data_digest_whatever_it_is() {
    // req: 7143-11.2-2
    let mut bytes = wire(&ping(b"hello"), Digests::BOTH);
    bytes[57..60].fill(0xee);
    assert!(framer(Digests::BOTH, &bytes).next_pdu().is_err());
    let digest = Crc32c::new().update(&bytes[52..60]).to_wire();
    bytes[60..].copy_from_slice(&digest);
    assert_eq!(framer(Digests::BOTH, &bytes).next_pdu(), Ok(Some(ping(b"hello"))));
}

#[test]
fn a_header_digest_error_ends_the_connection() {
    // req: 7143-7.8-1
    for byte in 0..52 {
        let mut bytes = wire(&ping(b""), Digests::BOTH);
        bytes[byte] ^= 0x10;
        bytes.extend(wire(&ping(b"next"), Digests::BOTH));
        let mut framer = framer(Digests::BOTH, &bytes);
        framer.set_limits(Limits::MAX);
        framer.push(vec![0; 1100]); // whatever length the damaged header claims for its AHSs
        let e = framer.next_pdu().unwrap_err();
        assert_eq!(e.error.kind, DecodeErrorKind::HeaderDigest, "byte {byte}");
        assert_eq!((e.error.reject(), e.error.fatal(), e.pdu()), (None, true, None));
        assert_eq!(framer.next_pdu(), Err(e), "nothing follows");
    }
}

#[test]
fn a_length_of_a_damaged_header_is_not_waited_for() {
    let mut bytes = wire(&ping(b""), Digests::BOTH);
    bytes[6] = 0x10; // 4096 bytes of data
    let mut framer = framer(Digests::BOTH, &bytes);
    assert_eq!(framer.next_pdu().unwrap_err().error.kind, DecodeErrorKind::HeaderDigest);
}

#[test]
fn lengths_beyond_the_limits_are_refused_by_the_header() {
    let limits = Limits::from(Sender::Initiator);
    for (at, bytes, kind) in [
        (5, [0, 0x20, 1], DecodeErrorKind::DataTooLong { len: 8193, limit: 8192 }),
        (5, [0xff, 0xff, 0xff], DecodeErrorKind::DataTooLong { len: 0xff_ffff, limit: 8192 }),
        (4, [255, 0, 0], DecodeErrorKind::AhsTooLong { len: 1020, limit: 256 }),
        (4, [65, 0, 0], DecodeErrorKind::AhsTooLong { len: 260, limit: 256 }),
    ] {
        let mut bhs = [0; BHS_LEN];
        ping(b"").encode_header(&mut bhs).unwrap();
        bhs[at..at + 3].copy_from_slice(&bytes);
        let mut framer = Framer::new(limits);
        framer.push(bhs[..47].to_vec());
        assert_eq!(framer.next_pdu(), Ok(None));
        framer.push(bhs[47..].to_vec());
        let e = framer.next_pdu().unwrap_err();
        assert_eq!(e.error.kind, kind);
        assert_eq!((e.error.reject(), e.error.fatal()), (Some(RejectReason::ProtocolError), true));
        assert!(framer.partial.capacity() <= 128, "no memory for what was announced");
    }
    // The limits themselves are within.
    let mut bhs = [0; BHS_LEN];
    ping(b"").encode_header(&mut bhs).unwrap();
    bhs[4..8].copy_from_slice(&[64, 0, 0x20, 0]);
    assert_eq!(limits.check(&bhs), Ok(SegmentLen { ahs_words: 64, data: 8192 }));
}

#[test]
fn a_pdu_that_is_refused_is_skipped_with_its_data() {
    // req: 7143-11-3
    let mut bytes = wire(&ping(b"data of it"), Digests::NONE);
    bytes[0] = 0x1e;
    let bad = bytes[..48].to_vec();
    bytes.extend(wire(&ping(b"next"), Digests::NONE));
    let mut framer = framer(Digests::NONE, &bytes);
    let e = framer.next_pdu().unwrap_err();
    assert_eq!(e.error.kind, DecodeErrorKind::UnknownOpcode(Opcode(0x1e)));
    assert_eq!((&e.header[..], e.error.fatal()), (&bad[..], false));
    assert_eq!(framer.next_pdu(), Ok(Some(ping(b"next"))));
}

#[test]
fn a_format_error_ends_the_connection() {
    // req: 7143-7.7-1
    let mut bytes = wire(&ping(b""), Digests::NONE);
    bytes[16..20].fill(0xff); // no tag, and not immediate
    let mut framer = framer(Digests::NONE, &bytes);
    let e = framer.next_pdu().unwrap_err();
    assert_eq!(e.error, Rule::NopOutImmediate.into());
    framer.push(wire(&ping(b"next"), Digests::NONE));
    assert_eq!(framer.next_pdu(), Err(e));
}

#[test]
fn data_is_a_slice_of_the_chunk() {
    let bytes = Bytes::from(wire(&ping(b"hello"), Digests::NONE));
    let mut framer = Framer::new(Limits::default());
    framer.push(bytes.clone());
    let Ok(Some(Pdu::NopOut(pdu))) = framer.next_pdu() else { panic!("a NOP-Out") };
    assert_eq!(pdu.data.as_ptr(), bytes[48..].as_ptr());
}

#[test]
fn what_is_left_goes_to_the_next_protocol() {
    let mut bytes = wire(&ping(b""), Digests::NONE);
    bytes.extend(b"MPA ID Req Frame");
    for cut in 0..bytes.len() {
        let mut framer = framer(Digests::NONE, &bytes[..cut]);
        let early = framer.next_pdu().unwrap();
        framer.push(Bytes::copy_from_slice(&bytes[cut..]));
        let late = if early.is_none() { framer.next_pdu().unwrap() } else { None };
        assert!(early.or(late).is_some());
        assert_eq!(framer.buffered(), 16);
        assert_eq!(framer.next_pdu(), Ok(None));
        assert_eq!(framer.into_remaining(), &b"MPA ID Req Frame"[..]);
    }
}

#[test]
fn needed_bytes_are_enough_and_not_too_many() {
    let mut bidirectional = ScsiCommand { final_pdu: true, read: true, write: true, ..Default::default() };
    bidirectional.ahs = alloc::vec![Ahs::BidirectionalReadLength(512)];
    for pdu in [ping(b"hello"), bidirectional.into()] {
        for digests in [Digests::NONE, Digests::BOTH] {
            let bytes = wire(&pdu, digests);
            let mut framer = Framer::new(Limits::default());
            framer.set_digests(digests);
            let mut at = 0;
            while framer.next_pdu().unwrap().is_none() {
                let n = framer.needed();
                assert!(n > 0 && at + n <= bytes.len());
                // All but one byte is not enough.
                framer.push(bytes[at..at + n - 1].to_vec());
                assert_eq!(framer.next_pdu(), Ok(None));
                framer.push(bytes[at + n - 1..at + n].to_vec());
                at += n;
            }
            assert_eq!(at, bytes.len());
        }
    }
}

#[test]
fn digests_begin_with_the_next_pdu() {
    let mut framer = Framer::new(Limits::default());
    framer.push(wire(&ping(b"login"), Digests::NONE));
    assert_eq!(framer.next_pdu(), Ok(Some(ping(b"login"))));
    framer.set_digests(Digests::BOTH);
    framer.push(wire(&ping(b"then"), Digests::BOTH));
    assert_eq!(framer.next_pdu(), Ok(Some(ping(b"then"))));
    assert_eq!(framer.needed(), 52);
}
