//! `iscsi-pdu`: headers of every opcode, framing, digests, text.

use crate::Operation;
use bytes::{Bytes, BytesMut};
use iscsi_pdu::text::{TextLimits, pairs};
use iscsi_pdu::*;
use std::hint::black_box;

#[path = "../../../iscsi-pdu/benches/common/pdus.rs"]
mod all;

pub(crate) fn operations() -> Vec<Operation> {
    let mut list = Vec::new();
    for pdu in all::pdus() {
        let name = pdu.opcode().name().expect("an opcode of the RFC");
        let mut bhs = [0; BHS_LEN];
        pdu.encode_header(&mut bhs).expect("a good PDU");
        list.push(Operation::new(format!("pdu: decode {name}"), 100, move || {
            black_box(Pdu::decode_header(black_box(&bhs))).expect("decodes");
        }));
        let mut out = [0; BHS_LEN];
        list.push(Operation::new(format!("pdu: encode {name}"), 100, move || {
            black_box(&pdu).encode_header(black_box(&mut out)).expect("encodes");
        }));
    }
    list.push(framing("pdu: frame a command or NOP", Digests::NONE));
    list.push(framing("pdu: frame a command or NOP with digests", Digests::BOTH));
    let bhs = [0x5a; BHS_LEN];
    list.push(Operation::new("pdu: header digest", 100, move || {
        black_box(header_digest(black_box(&bhs), &[]));
    }));
    let text = Bytes::from_static(b"MaxBurstLength=262144\0");
    list.push(Operation::new("pdu: text pair", 100, move || {
        black_box(pairs(black_box(&text), TextLimits::default()).count());
    }));
    list
}

/// Three commands for each NOP, all in one chunk; counted by the PDU.
fn framing(name: &str, digests: Digests) -> Operation {
    const PDUS: u32 = 1000;
    let mut wire = BytesMut::new();
    for n in 0..PDUS * 2 {
        let nop = NopOut::ping(Itt(n), Bytes::new());
        let command = ScsiCommand { final_pdu: true, read: true, itt: Itt(n), ..Default::default() };
        let pdu: Pdu = if n % 4 == 3 { nop.into() } else { command.into() };
        pdu.encode_with(digests, &mut wire).expect("a good PDU");
    }
    let mut framer = Framer::new(Limits::from(Sender::Initiator));
    framer.set_digests(digests);
    framer.push(wire.freeze());
    Operation::new(name, PDUS, move || {
        black_box(framer.next_pdu().expect("a good stream").expect("enough PDUs"));
    })
}
