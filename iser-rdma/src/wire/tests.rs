use super::*;
use proptest::prelude::*;

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

fn buf(stag: u32, offset: u64) -> Option<RemoteBuf> {
    Some(RemoteBuf { stag: Stag(stag), offset })
}

fn decoded(message: &[u8]) -> IserHeader {
    IserHeader::decode(message).unwrap().0
}

/// Headers as ib_iser and ib_isert sent them over RoCEv2 (Debian 12, kernel 6.1).
const CAPTURED: [(&str, Option<RemoteBuf>, Option<RemoteBuf>); 4] = [
    // A login request, and every message of the target.
    ("10000000 00000000 0000000000000000 00000000 0000000000000000", None, None),
    // INQUIRY: a Read STag.
    (
        "14000000 00000000 0000000000000000 00001543 ffff8ec489b3e600",
        None,
        Some(RemoteBuf { stag: Stag(0x1543), offset: 0xffff_8ec4_89b3_e600 }),
    ),
    // WRITE(10) of 20 KiB: a Write STag.
    (
        "18000000 00001624 ffff8ec48952b000 00000000 0000000000000000",
        Some(RemoteBuf { stag: Stag(0x1624), offset: 0xffff_8ec4_8952_b000 }),
        None,
    ),
    // READ(10).
    (
        "14000000 00000000 0000000000000000 00001626 ffff8ec4892d4000",
        None,
        Some(RemoteBuf { stag: Stag(0x1626), offset: 0xffff_8ec4_892d_4000 }),
    ),
];

#[test]
fn captured_headers_round_trip() {
    // req: 7145-9.1-1, 7145-9.2-1
    for (hex, write, read) in CAPTURED {
        let wire = bytes(hex);
        let header = IserHeader::Control(ControlHeader { write, read });
        assert_eq!(IserHeader::decode(&wire), Ok((header, &[][..])));
        assert_eq!(header.encode()[..], wire[..]);
    }
}

#[test]
fn control_header_layout() {
    // req: 7145-9.2-1
    // Both STags at once, as a bidirectional command has them: laid out by hand from RFC 7145 section 9.2.
    let header = IserHeader::Control(ControlHeader {
        write: buf(0x0102_0304, 0x1112_1314_1516_1718),
        read: buf(0x2122_2324, 0x3132_3334_3536_3738),
    });
    let wire = bytes("1c000000 01020304 1112131415161718 21222324 3132333435363738");
    assert_eq!(header.encode()[..], wire[..]);
    assert_eq!(decoded(&wire), header);
}

#[test]
fn fields_that_are_not_valid_are_ignored() {
    // req: 7145-9.2-2, 7145-9.2-3
    let none = bytes("10000000 01020304 1112131415161718 21222324 3132333435363738");
    assert_eq!(decoded(&none), IserHeader::Control(ControlHeader::default()));
    let read = bytes("14000000 01020304 1112131415161718 21222324 0000000000000005");
    assert_eq!(decoded(&read), IserHeader::Control(ControlHeader { write: None, read: buf(0x2122_2324, 5) }));
}

#[test]
fn fields_that_are_not_valid_are_sent_as_zero() {
    // req: 7145-9.2-4, 7145-9.2-5, 7145-9.2-6, 7145-9.2-7, 7145-9.2-8
    let read = IserHeader::Control(ControlHeader { write: None, read: buf(u32::MAX, u64::MAX) }).encode();
    assert_eq!(read[..16], bytes("14000000 00000000 0000000000000000")[..]);
    let write = IserHeader::Control(ControlHeader { write: buf(u32::MAX, u64::MAX), read: None }).encode();
    assert_eq!(write[..4], bytes("18000000")[..]);
    assert_eq!(write[16..], [0; 12]);
}

#[test]
fn hello_layout() {
    // req: 7145-9.3-2, 7145-9.3-3, 7145-9.3-4, 7145-9.3-5
    let hello = IserHeader::Hello(Hello { max_version: ISER_VERSION, min_version: ISER_VERSION, ird: 16 });
    let mut wire = bytes("20aa0010");
    wire.resize(ISER_HEADER_LEN, 0);
    assert_eq!(hello.encode()[..], wire[..]);
    assert_eq!(decoded(&wire), hello);
}

#[test]
fn hello_reply_layout() {
    // req: 7145-9.4-2, 7145-9.4-3, 7145-9.4-4, 7145-9.4-5
    for (reject, b0) in [(false, 0x30), (true, 0x31)] {
        let reply = HelloReply { reject, max_version: ISER_VERSION, cur_version: ISER_VERSION, ord: 4 };
        let mut wire = vec![b0, 0xaa, 0x00, 0x04];
        wire.resize(ISER_HEADER_LEN, 0);
        assert_eq!(IserHeader::HelloReply(reply).encode()[..], wire[..]);
        assert_eq!(decoded(&wire), IserHeader::HelloReply(reply));
    }
}

#[test]
fn hello_is_the_header_alone() {
    // req: 7145-9.3-1, 7145-9.4-1
    for first in [0x20, 0x30] {
        let mut wire = vec![0u8; ISER_HEADER_LEN + 1];
        wire[0] = first;
        assert_eq!(IserHeader::decode(&wire), Err(WireError::HelloLength));
        assert_eq!(IserHeader::decode(&wire[..27]), Err(WireError::Short));
        assert!(IserHeader::decode(&wire[..28]).is_ok());
    }
}

#[test]
fn other_opcodes_are_format_errors() {
    // req: 7145-9.1-2
    for opcode in (0..16u8).filter(|o| !(1..=3).contains(o)) {
        let mut wire = [0u8; ISER_HEADER_LEN];
        wire[0] = opcode << 4;
        assert_eq!(IserHeader::decode(&wire), Err(WireError::Opcode(opcode)));
    }
}

#[test]
fn every_prefix_is_short() {
    for (hex, ..) in CAPTURED {
        let wire = bytes(hex);
        for n in 0..ISER_HEADER_LEN {
            assert_eq!(IserHeader::decode(&wire[..n]), Err(WireError::Short), "prefix of {n}");
        }
    }
}

fn any_header() -> impl Strategy<Value = IserHeader> {
    let remote = || {
        proptest::option::of(
            (any::<u32>(), any::<u64>()).prop_map(|(s, o)| RemoteBuf { stag: Stag(s), offset: o }),
        )
    };
    prop_oneof![
        (remote(), remote()).prop_map(|(write, read)| IserHeader::Control(ControlHeader { write, read })),
        (0..16u8, 0..16u8, any::<u16>()).prop_map(|(max_version, min_version, ird)| IserHeader::Hello(
            Hello { max_version, min_version, ird }
        )),
        (any::<bool>(), 0..16u8, 0..16u8, any::<u16>()).prop_map(
            |(reject, max_version, cur_version, ord)| {
                IserHeader::HelloReply(HelloReply { reject, max_version, cur_version, ord })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn encode_then_decode(header in any_header()) {
        let wire = header.encode();
        prop_assert_eq!(IserHeader::decode(&wire), Ok((header, &[][..])));
    }

    #[test]
    fn reserved_bits_are_ignored(header in any_header(), noise in any::<[u8; ISER_HEADER_LEN]>()) {
        // req: 7145-9.2-9, 7145-9.3-6, 7145-9.4-6
        let mut wire = header.encode();
        let reserved = match header {
            IserHeader::Control(_) => { wire[0] |= noise[0] & 0x03; 1..4 }
            IserHeader::HelloReply(_) => { wire[0] |= noise[0] & 0x0e; 4..28 }
            _ => { wire[0] |= noise[0] & 0x0f; 4..28 }
        };
        wire[reserved.clone()].copy_from_slice(&noise[reserved]);
        prop_assert_eq!(decoded(&wire), header);
    }

    #[test]
    fn any_bytes_do_not_panic(wire in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok((header, rest)) = IserHeader::decode(&wire) {
            prop_assert_eq!(rest.len() + ISER_HEADER_LEN, wire.len());
            prop_assert_eq!(decoded(&[&header.encode()[..], rest].concat()), header);
        }
    }
}
