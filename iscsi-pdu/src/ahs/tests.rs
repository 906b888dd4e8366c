//! AHS by hand, byte by byte.

use super::*;
use crate::{DecodeErrorKind, ScsiCommand};

fn emitted(list: &[Ahs]) -> Vec<u8> {
    let mut out = Vec::new();
    emit(list, &mut out);
    assert_eq!(out.len(), encoded_len(list));
    out
}

#[test]
fn bytes_on_the_wire() {
    // req: 7143-11.2.2-1, 7143-11.2.2.3-1, 7143-11.2.2.4-1, 7143-11.2-4
    assert_eq!(emitted(&[Ahs::BidirectionalReadLength(0x1000)]), [0, 5, 2, 0, 0, 0, 0x10, 0]);
    let five = Ahs::ExtendedCdb(Bytes::from_static(&[1, 2, 3, 4, 5]));
    assert_eq!(emitted(&[five]), [0, 6, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0]);
}

#[test]
fn lengths_and_padding_of_an_extended_cdb() {
    // req: 7143-11.2.2.3-1, 7143-11.2-5
    for cdb_len in 17..=260_usize {
        let mut cdb = vec![0xee; cdb_len];
        cdb[0] = 0x7f;
        let mut command = ScsiCommand::<()>::default();
        command.set_cdb(&cdb);
        let wire = emitted(&command.ahs);
        assert_eq!(usize::from(u16::from_be_bytes([wire[0], wire[1]])), cdb_len - 15);
        assert_eq!(wire.len() % 4, 0);
        assert_eq!(parse(&wire).unwrap(), command.ahs);
        assert_eq!([&command.cdb[..], command.extended_cdb()].concat(), cdb);
    }
}

#[test]
fn short_cdbs_need_no_ahs() {
    // req: 7143-11.2.2.3-1, 7143-11.3.5-1
    let mut command = ScsiCommand::<()>::default();
    command.set_cdb(&[0xff; 20]);
    assert_eq!(command.extended_cdb(), [0xff; 4]);
    for len in 0..=16 {
        command.set_cdb(&[0xff; 16][..len]);
        assert!(command.ahs.is_empty());
        assert!(command.cdb.iter().enumerate().all(|(i, b)| *b == if i < len { 0xff } else { 0 }));
    }
    assert_eq!(check(&[Ahs::ExtendedCdb(Bytes::new())]), Err(Rule::AhsLength));
}

#[test]
fn order_and_reserved_bits() {
    // req: 7143-11-2, 7143-11.2.2-1
    let wire = [0, 5, 0xc2, 0xff, 0, 0, 0x10, 0, 0, 2, 0x41, 0xff, 0xaa, 0xee, 0xee, 0xee];
    // The second holds a reserved byte, one byte of CDB, and padding that should have been 0.
    let list = [Ahs::BidirectionalReadLength(0x1000), Ahs::ExtendedCdb(Bytes::from_static(&[0xaa]))];
    assert_eq!(parse(&wire).unwrap(), list);
    assert_eq!(emitted(&list)[..], [0, 5, 2, 0, 0, 0, 0x10, 0, 0, 2, 1, 0, 0xaa, 0, 0, 0]);
}

#[test]
fn every_truncation_is_refused() {
    let list = [Ahs::BidirectionalReadLength(7), Ahs::ExtendedCdb(Bytes::from_static(&[9; 16]))];
    let wire = emitted(&list);
    for n in 0..wire.len() {
        match parse(&wire[..n]) {
            Ok(part) => assert!(n == 0 && part.is_empty() || n == 8 && part == list[..1]),
            Err(e) => assert_eq!(e.kind, DecodeErrorKind::Rule(Rule::AhsLength)),
        }
    }
}
