//! Byte vectors typed from the figures of the RFCs: `vectors/pdus.txt`, `vectors/errors.txt`.

mod common;

use bytes::Bytes;
use common::{blocks, fields::fields, hex, wire};
use iscsi_pdu::{DecodeErrorKind, Opcode, Pdu, RejectReason};
use std::collections::BTreeMap;

/// Numbers of a table are decimal or begin with 0x; everything else is compared as it stands.
fn normal(text: &str) -> String {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap().to_string(),
        None => text.to_string(),
    }
}

#[test]
fn every_field_of_every_vector() {
    // req: 7143-11-1, 7143-11-2, 7143-11-4, 7143-7.10-1
    // req: 7143-11.2.1.5-1, 7143-11.2.1.6-1, 7143-11.2.1.7-1, 7143-11.2.2-1, 7143-11.2.2.3-1, 7143-11.2.2.4-1
    // req: 7143-11.2-3, 7143-11.2-4, 7143-11.2-5, 7143-11.3.1-2, 7143-11.3.5-1, 7144-5.1.1-3
    // req: 7143-11.5.2-1, 7143-11.5.3-1, 7143-11.5.4-1, 7143-11.6.2-1, 7143-11.8.1-1, 7143-11.9.3-1
    // req: 7143-11.9.4.1-1, 7143-11.12.3-1, 7143-11.14.2-1, 7143-11.15.2-1, 7144-6.3.1-1, 7144-6.3.2-1
    let mut seen: BTreeMap<Opcode, usize> = BTreeMap::new();
    for mut block in blocks(include_str!("vectors/pdus.txt")) {
        let title = block.title.clone();
        let bhs = hex(&block.take("bhs").unwrap());
        let sent = block.take("sent").map_or(bhs.clone(), |s| hex(&s));
        let data = hex(&block.take("data").unwrap_or_default());
        // The AHSs appear twice, as bytes and as a field.
        let ahs = if bhs[4] != 0 { hex(&block.take("ahs").unwrap()) } else { Vec::new() };

        let pdu = Pdu::decode(wire(&bhs, &ahs, &data).into()).unwrap_or_else(|e| panic!("{title}: {e}"));
        *seen.entry(pdu.opcode()).or_default() += 1;
        assert_eq!(title.split(':').next().unwrap(), pdu.opcode().name().unwrap(), "{title}");
        assert_eq!(pdu.data().cloned().unwrap_or_default(), data, "{title}");
        let expected: Vec<(String, String)> =
            block.lines.iter().map(|(k, v)| (k.clone(), normal(v))).collect();
        let fields: Vec<(String, String)> =
            fields(&pdu).into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        assert_eq!(fields, expected, "{title}");

        assert_eq!(hex::encode(pdu.to_bytes().unwrap()), hex::encode(wire(&sent, &ahs, &data)), "{title}");
    }
    assert_eq!(seen.len(), 18, "every opcode");
    assert!(seen.values().all(|n| *n >= 3), "{seen:?}");
}

#[test]
fn every_forbidden_header() {
    // req: 7143-11-3, 7143-11.2-6, 7143-11.2.2-1, 7143-11.2.2.3-1, 7143-11.2.2.4-1, 7143-7.7-1
    // req: 7143-11.3.1-1, 7143-11.3.1-3, 7143-11.3.1-4, 7143-11.3.4-1, 7143-11.4.1-2
    // req: 7143-11.5.2-1, 7143-11.6.2-1, 7143-11.7.3-4, 7143-11.8.1-1, 7143-11.9.4.1-1
    // req: 7143-11.10.2-1, 7143-11.11.2-1, 7143-11.12.2-1, 7143-11.12.3-1, 7143-11.12.5-5, 7143-11.13.7-1
    // req: 7143-11.14.1-1, 7143-11.14.2-1, 7143-11.15.2-1, 7143-11.16.4-2, 7143-11.16.5-1, 7143-11.18.1-4
    for mut block in blocks(include_str!("vectors/errors.txt")) {
        let title = block.title.clone();
        let mut part = |name| hex(&block.take(name).unwrap_or_default());
        let frame = wire(&part("bhs"), &part("ahs"), &part("data"));
        let e = Pdu::decode(Bytes::from(frame)).expect_err(&title);
        let name = match e.kind {
            DecodeErrorKind::Rule(rule) => format!("{rule:?}"),
            kind => format!("{kind:?}").split('(').next().unwrap().to_string(),
        };
        assert_eq!(format!("{name} {}", e.at), block.take("error").unwrap(), "{title}");
        let reason = e.reject().map_or("-".to_string(), |r: RejectReason| r.0.to_string());
        let answer = format!("{reason} {}", if e.fatal() { "closed" } else { "on" });
        assert_eq!(answer, block.take("answer").unwrap(), "{title}");
    }
}
