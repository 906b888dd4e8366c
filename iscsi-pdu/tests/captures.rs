//! Connections of foreign stacks, byte by byte: all of it decodes, encodes again to the same bytes, digests hold.

mod common;

use bytes::{Bytes, BytesMut};
use common::fields::fields;
use iscsi_pdu::text::{TextLimits, pairs};
use iscsi_pdu::{BHS_LEN, Digests, Framer, Limits, Opcode, Pdu, Sender, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const CONNECTIONS: [&str; 11] = [
    "linux-lio-0",
    "linux-lio-1",
    "linux-lio-crc32c-0",
    "linux-lio-crc32c-1",
    "libiscsi-ls-0",
    "libiscsi-ls-1",
    "libiscsi-tmf-1",
    "libiscsi-datasn-1",
    "libiscsi-residuals-1",
    "libiscsi-digest-0",
    "qemu-info-0",
];

fn bytes(file: &str) -> Bytes {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(file);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

/// One direction: each PDU and the bytes it was made of. Digests begin behind the last login PDU.
fn direction(wire: &Bytes, sender: Sender, logins: usize, digests: Digests) -> Vec<(Pdu, Bytes)> {
    let limits = Limits { data: 262_144, sender: Some(sender), ..Limits::default() };
    let mut framer = Framer::new(limits);
    framer.push(wire.clone());
    let (mut out, mut seen) = (Vec::new(), 0);
    loop {
        if seen == logins {
            framer.set_digests(digests);
        }
        let at = wire.len() - framer.buffered();
        match framer.next_pdu().unwrap_or_else(|e| panic!("at {at}: {e}")) {
            None => break,
            Some(pdu) => {
                seen += usize::from(matches!(pdu.opcode(), Opcode::LoginRequest | Opcode::LoginResponse));
                out.push((pdu, wire.slice(at..wire.len() - framer.buffered())));
            }
        }
    }
    assert_eq!(framer.buffered(), 0, "whole PDUs to the end");
    out
}

/// How many Login Responses there are, and the digests that they agree on.
fn login(target: &Bytes) -> (usize, Digests) {
    let mut framer = Framer::new(Limits::default());
    framer.push(target.clone());
    let (mut n, mut digests) = (0, Digests::NONE);
    while let Ok(Some(Pdu::LoginResponse(p))) = framer.next_pdu() {
        n += 1;
        for pair in pairs(&p.data, TextLimits { value: 8192, ..TextLimits::default() }) {
            match pair.unwrap() {
                ("HeaderDigest", value) => digests.header = value == "CRC32C",
                ("DataDigest", value) => digests.data = value == "CRC32C",
                _ => {}
            }
        }
        if p.transit && p.nsg == Stage::FullFeaturePhase {
            return (n, digests);
        }
    }
    panic!("no final Login Response");
}

#[test]
fn every_pdu_decodes_and_encodes_to_the_same_bytes() {
    // req: 7143-11-4, 7143-11.1-1, 7143-11.2-1, 7143-11.2-2, 7143-11.2-3, 7143-11.2-5, 7143-11.2.1.7-1
    let (mut opcodes, mut differ) = (BTreeMap::<Opcode, usize>::new(), BTreeSet::new());
    let (mut with_header_digest, mut with_data_digest) = (0, 0);
    for name in CONNECTIONS {
        let (initiator, target) = (bytes(&format!("{name}.initiator")), bytes(&format!("{name}.target")));
        let (logins, digests) = login(&target);
        for (wire, sender) in [(&initiator, Sender::Initiator), (&target, Sender::Target)] {
            let mut seen = 0;
            for (pdu, wire) in direction(wire, sender, logins, digests) {
                *opcodes.entry(pdu.opcode()).or_default() += 1;
                let digests = if seen == logins { digests } else { Digests::NONE };
                seen += usize::from(matches!(pdu.opcode(), Opcode::LoginRequest | Opcode::LoginResponse));
                with_header_digest += usize::from(digests.header);
                with_data_digest += usize::from(digests.data && pdu.data().is_some_and(|d| !d.is_empty()));
                let mut again = BytesMut::new();
                pdu.encode_with(digests, &mut again).unwrap();
                assert_eq!(again.len(), wire.len(), "{name} {pdu:?}");
                let mut same = true;
                for i in (0..BHS_LEN).filter(|i| again[*i] != wire[*i]) {
                    differ.insert((
                        name.trim_end_matches(|c| c == '-' || char::is_ascii_digit(&c)),
                        pdu.opcode(),
                        i,
                    ));
                    same = false;
                }
                // A reserved bit that was set and is cleared changes the header digest; all else is the same.
                let from = if same { BHS_LEN } else { BHS_LEN + digests.header_len() };
                assert_eq!(again[from..], wire[from..], "{name} {:?}", fields(&pdu));
            }
        }
    }
    // All there is to clear: libiscsi names a next stage when it does not ask for it (reserved without T), LIO
    // fills in the LUN of every Data-In (reserved without A).
    let libiscsi = [
        "libiscsi-datasn",
        "libiscsi-digest",
        "libiscsi-ls",
        "libiscsi-residuals",
        "libiscsi-tmf",
        "qemu-info",
    ]
    .map(|name| (name, Opcode::LoginRequest, 1));
    let lio = ["linux-lio", "linux-lio-crc32c"]
        .into_iter()
        .flat_map(|name| (8..16).map(move |i| (name, Opcode::DataIn, i)));
    assert_eq!(differ, libiscsi.into_iter().chain(lio).collect());
    assert!(
        opcodes.len() == 13 && opcodes[&Opcode::ScsiCommand] == 130 && opcodes[&Opcode::DataIn] == 93,
        "{opcodes:?}"
    );
    assert_eq!((with_header_digest, with_data_digest), (96, 40));
}
