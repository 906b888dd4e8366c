//! Laws of the codec and the framer, for any PDU and any cut of the bytes.

mod common;

use bytes::{Bytes, BytesMut};
use common::strategies::{pdu, request, response};
use iscsi_pdu::{
    BHS_LEN, CmdSn, DecodeErrorKind, Digests, FrameError, Framer, Limits, Pdu, RejectReason, SegmentLen,
    Sender,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

fn digests() -> impl Strategy<Value = Digests> {
    any::<(bool, bool)>().prop_map(|(header, data)| Digests { header, data })
}

fn positions(cuts: &[Index], wire: &Bytes) -> Vec<usize> {
    cuts.iter().map(|c| c.index(wire.len() + 1)).collect()
}

fn stream(pdus: &[Pdu], digests: Digests) -> Bytes {
    let mut out = BytesMut::new();
    pdus.iter().for_each(|p| p.encode_with(digests, &mut out).unwrap());
    out.freeze()
}

/// What a framer makes of `wire` pushed in pieces that end at `cuts`, up to its first fatal error.
fn frame(wire: &Bytes, cuts: &[usize], digests: Digests, limits: Limits) -> Vec<Result<Pdu, FrameError>> {
    let mut ends = [cuts, &[wire.len()]].concat();
    ends.sort_unstable();
    let mut framer = Framer::new(limits);
    framer.set_digests(digests);
    let (mut start, mut out) = (0, Vec::new());
    for end in ends {
        framer.push(wire.slice(start..end));
        start = end;
        loop {
            match framer.next_pdu() {
                Ok(None) => break,
                Ok(Some(pdu)) => out.push(Ok(pdu)),
                Err(e) => {
                    let fatal = e.error.fatal();
                    out.push(Err(e.clone()));
                    if fatal {
                        assert_eq!(framer.next_pdu(), Err(e), "a fatal error stays");
                        return out;
                    }
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_encoded_decodes_to_the_same(pdu in pdu()) {
        let wire = pdu.to_bytes().unwrap();
        prop_assert_eq!(wire.len(), pdu.encoded_len());
        prop_assert_eq!(wire.len() % 4, 0);
        prop_assert_eq!(Pdu::decode(wire).unwrap(), pdu);
    }

    #[test]
    fn the_header_decodes_alone_and_encodes_alone(pdu in pdu()) {
        let wire = pdu.to_bytes().unwrap();
        let bhs = wire.first_chunk::<BHS_LEN>().unwrap();
        let header = Pdu::decode_header(bhs).unwrap();
        prop_assert_eq!(header.segment_len().data_len(), pdu.data().map_or(0, Bytes::len));
        prop_assert_eq!(header.encoded_len(), wire.len());
        let mut again = [0xff; BHS_LEN];
        header.encode_header(&mut again).unwrap();
        prop_assert_eq!(&again, bhs);
        // The payload may live elsewhere: only its length counts.
        pdu.map(|d| SegmentLen { ahs_words: 0, data: d.len() as u32 }).encode_header(&mut again).unwrap();
        prop_assert_eq!(&again, bhs);
    }

    #[test]
    fn what_decodes_encodes_to_the_same_but_for_reserved_bits(
        mut bytes in vec(any::<u8>(), BHS_LEN + 20 * 4),
        opcode in prop_oneof![0..=6_u8, Just(0x10), 0x20..=0x26_u8, Just(0x31), Just(0x32), Just(0x3f)],
        lens in prop_oneof![Just([0, 0]), [0..=0_u8, 0..=40], [0..=3_u8, 0..=40]],
    ) {
        // req: 7143-11-1, 7143-11-2
        bytes[0] = bytes[0] & 0xc0 | opcode;
        // The one thing that is understood and must not be said.
        prop_assume!(opcode != 0x3f || bytes[2] != RejectReason::NegotiationReset.0);
        bytes[4..8].copy_from_slice(&[lens[0], 0, 0, lens[1]]);
        bytes.truncate(BHS_LEN + usize::from(lens[0]) * 4 + usize::from(lens[1]).div_ceil(4) * 4);
        if let Ok(pdu) = Pdu::decode(bytes.clone().into()) {
            let canonical = pdu.to_bytes().unwrap();
            prop_assert_eq!(canonical.len(), bytes.len());
            prop_assert_eq!(&Pdu::decode(canonical.clone()).unwrap(), &pdu);
            // Nothing is written where nothing was received, but for what is always so: I of a login, F, tags
            // that are reserved as 0xffffffff, and the CDB's zeroes.
            for (i, (new, old)) in canonical.iter().zip(&bytes).enumerate().take(BHS_LEN) {
                let always = match i { 0 => 0x40, 1 => 0x80, 16..=23 => 0xff, _ => 0 };
                prop_assert_eq!(new & !old & !always, 0, "byte {}", i);
            }
        }
    }

    #[test]
    fn every_truncation_is_incomplete_and_nothing_else(pdu in pdu()) {
        let wire = pdu.to_bytes().unwrap();
        for n in 0..wire.len() {
            let e = Pdu::decode(wire.slice(..n)).unwrap_err();
            match e.kind {
                DecodeErrorKind::Incomplete { needed } => {
                    prop_assert!(needed > 0 && n + needed as usize <= wire.len());
                }
                kind => prop_assert!(false, "{:?} after {} bytes", kind, n),
            }
        }
        let longer = [&wire[..], &[0]].concat();
        prop_assert_eq!(
            Pdu::decode(longer.into()).unwrap_err().kind,
            DecodeErrorKind::TrailingBytes { extra: 1 }
        );
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        let _ = Pdu::decode(bytes.into());
    }

    #[test]
    fn a_framer_gives_back_what_was_sent(pdus in vec(pdu(), 0..6), digests in digests(), cuts in vec(any::<Index>(), 0..12)) {
        // req: 7143-11.2-1, 7143-11.2-2, 7143-11.2-3
        let wire = stream(&pdus, digests);
        let out: Vec<Pdu> =
            frame(&wire, &positions(&cuts, &wire), digests, Limits::MAX).into_iter().map(Result::unwrap).collect();
        prop_assert_eq!(out, pdus);
    }

    #[test]
    fn framing_does_not_depend_on_cuts(
        pdus in vec(pdu(), 1..5),
        digests in digests(),
        cuts in vec(any::<Index>(), 0..12),
        damage in vec((any::<Index>(), any::<u8>()), 0..4),
        limits in prop_oneof![
            Just(Limits::MAX),
            (0..80_u32, 0..64_u16).prop_map(|(data, ahs)| Limits { data, ahs, sender: Some(Sender::Initiator) })
        ],
    ) {
        let mut wire = stream(&pdus, digests).to_vec();
        for (at, byte) in damage {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let wire = Bytes::from(wire);
        let whole = frame(&wire, &[], digests, limits);
        prop_assert_eq!(&frame(&wire, &positions(&cuts, &wire), digests, limits), &whole);
        let every_byte: Vec<usize> = (0..wire.len()).collect();
        prop_assert_eq!(&frame(&wire, &every_byte, digests, limits), &whole);
    }

    #[test]
    fn a_sender_keeps_to_its_half_of_the_opcodes(request in request(), response in response()) {
        // req: 7143-11.2.1.2-1, 7143-11.2.1.2-2
        for (pdu, right, wrong) in [
            (request, Sender::Initiator, Sender::Target),
            (response, Sender::Target, Sender::Initiator),
        ] {
            let wire = pdu.to_bytes().unwrap();
            let limits = |sender| Limits { sender: Some(sender), ..Limits::MAX };
            let ok = frame(&wire, &[], Digests::NONE, limits(right));
            prop_assert_eq!(ok, vec![Ok(pdu.clone())]);
            let out = frame(&wire, &[], Digests::NONE, limits(wrong));
            let e = out[0].as_ref().unwrap_err();
            prop_assert_eq!(e.error.kind, DecodeErrorKind::WrongSender(pdu.opcode()));
            prop_assert!(e.error.fatal());
        }
    }

    #[test]
    fn serial_numbers_are_those_of_rfc_1982(a in any::<u32>(), n in 0..0x8000_0000_u32, w in 0..0x7fff_ffff_u32) {
        let (x, y) = (CmdSn(a), CmdSn(a).advance(n));
        prop_assert_eq!(x.precedes(y), n != 0);
        prop_assert!(!y.precedes(x));
        prop_assert_eq!(x.precedes_or_is(y), true);
        prop_assert_eq!(y.distance_from(x), n);
        prop_assert_eq!(x.next().prev(), x);
        // Exactly half the ring apart: neither precedes.
        let far = x.advance(1 << 31);
        prop_assert!(!x.precedes(far) && !far.precedes(x));
        // A window of w + 1 numbers holds the first w + 1 and no other.
        prop_assert_eq!(y.in_window(x, x.advance(w)), n <= w);
        prop_assert!(!x.prev().in_window(x, x.advance(w)));
        prop_assert!(!y.in_window(x, x.prev()), "the empty window");
    }
}
