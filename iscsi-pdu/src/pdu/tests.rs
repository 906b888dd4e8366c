//! Two-step and whole-PDU decoding; what every opcode has in common.

use super::*;

fn ping(data: &'static [u8]) -> Pdu {
    NopOut { itt: Itt(7), data: Bytes::from_static(data), ..Default::default() }.into()
}

#[test]
fn padding_is_zero_and_brings_every_segment_to_four_bytes() {
    // req: 7143-11.1-1, 7143-11.2-4, 7143-11.2-5, 7143-11.2.1.6-1
    for n in 0..=8 {
        let wire = ping(&b"\xff\xff\xff\xff\xff\xff\xff\xff"[..n]).to_bytes().unwrap();
        assert_eq!(wire.len(), BHS_LEN + n.div_ceil(4) * 4);
        assert_eq!(wire[5..8], [0, 0, n as u8]);
        assert!(wire[BHS_LEN + n..].iter().all(|b| *b == 0));
    }
}

#[test]
fn every_truncation_is_incomplete() {
    let wire = ping(b"hello").to_bytes().unwrap();
    for n in 0..wire.len() {
        let e = Pdu::decode(wire.slice(..n)).unwrap_err();
        assert!(
            matches!(e.kind, DecodeErrorKind::Incomplete { needed } if needed as usize <= wire.len() - n)
        );
        assert_eq!((e.reject(), e.fatal()), (None, false));
    }
    assert_eq!(Pdu::decode(wire).unwrap(), ping(b"hello"));
}
