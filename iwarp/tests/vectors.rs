//! Octets against the figures of the RFCs.

mod common;

use bytes::Bytes;
use common::*;
use iwarp::mpa::{Established, Role};
use iwarp::rdmap::{Opcode, ReadRequest};
use iwarp::{
    Access, Limits, ReadWr, Region, RemoteAddr, SendWr, Stag, Terminate, TerminateCode, WrId, WriteWr,
};

fn send(payload: &[u8]) -> SendWr {
    SendWr { payload: Bytes::copy_from_slice(payload).into(), ..SendWr::default() }
}

/// RFC 5044 Figure 5: the first FPDU of a stream with markers.
const FIGURE_5: &str = "00000000 002a 4143 00000000 00000000 00000001 00000000
    00000000 00000000 00000000 00000000 00000000 00000000 52239983";
/// RFC 5044 Figure 6: an FPDU at octet 0x1ec with a marker inside.
const FIGURE_6: &str = "002a 4143 00000000 00000000 00000002 00000000 00000014
    00000000 00000000 00000000 00000000 00000000 00000000 84925898";

fn octets(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn mpa_figures_5_and_6() {
    let marked = Established { tx_markers: true, ..end(Role::Initiator, true) };
    let mut a = qp(&marked);
    a.post_send(send(&[0; 24])).unwrap();
    assert_eq!(output(&mut a), octets(FIGURE_5));

    // The FPDU before Figure 6 takes 492 octets with the marker in front of it.
    let mut a = qp(&marked);
    a.post_send(send(&[0; 464])).unwrap();
    assert_eq!(output(&mut a).len(), 492);
    a.post_send(send(&[0; 24])).unwrap();
    assert_eq!(output(&mut a), octets(FIGURE_6));

    // And received, octet by octet.
    let mut b = qp(&Established { rx_markers: true, ..end(Role::Responder, true) });
    b.post_recv(WrId(1), vec![1; 30]).unwrap();
    octets(FIGURE_5).iter().for_each(|o| b.handle_bytes(&[*o]));
    let done = completions(&mut b);
    assert!(matches!(&done[..], [c] if !c.flushed), "{done:?}");
    assert!(
        matches!(&done[0].done, iwarp::Done::Recv { buffer, len: 24, .. } if buffer[..24] == [0; 24] && buffer[24..] == [1; 6])
    );
}

#[test]
fn mpa_figure_4_marker_between_ulpdu_octets() {
    // ULPDU of 16 octets, marker with pointer 0x000c after ten of them. A tagged header and two octets make 16; the
    // FPDU starts twelve octets before the second marker.
    let mut a = qp(&Established { tx_markers: true, ..end(Role::Initiator, true) });
    let to = RemoteAddr { stag: Stag(0x0102_0304), offset: 0x1112_1314_1516_1718 };
    a.post_send(send(&[0; 472])).unwrap();
    assert_eq!(output(&mut a).len(), 500);
    let payload = Bytes::from_static(&[0xaa, 0xbb]).into();
    a.post_write(WriteWr { id: WrId(0), payload, to, fence: false, unsignaled: true }).unwrap();
    let frame = output(&mut a);
    assert_eq!(frame[..24], octets("0010 c140 01020304 11121314 0000000c 15161718 aabb 0000")[..]);
    assert_eq!(frame[24..], crc32c::crc32c(&frame[..24]).to_le_bytes());
}

#[test]
fn rdmap_appendix_a() {
    let mut a = qp(&end(Role::Initiator, true));
    let to = RemoteAddr { stag: Stag(0x0102_0304), offset: 0x1112_1314_1516_1718 };
    let payload = || Bytes::from_static(&[0xaa, 0xbb]).into();
    a.post_write(WriteWr { id: WrId(0), payload: payload(), to, fence: false, unsignaled: true }).unwrap();
    a.post_send(SendWr { payload: payload(), ..SendWr::default() }).unwrap();
    a.post_send(SendWr { payload: payload(), solicited: true, ..SendWr::default() }).unwrap();
    a.post_send(SendWr { payload: payload(), invalidate: Some(Stag(0x2122_2324)), ..SendWr::default() })
        .unwrap();
    let both = SendWr {
        payload: payload(),
        invalidate: Some(Stag(0x2122_2324)),
        solicited: true,
        ..SendWr::default()
    };
    a.post_send(both).unwrap();
    a.post_read(ReadWr { id: WrId(0), from: to, len: 0x20, sink: vec![0; 0x20] }).unwrap();
    let made = segments(&output(&mut a));
    let sink = match ReadRequest::decode(&made[5].payload) {
        Some(r) => hex::encode(r.sink_stag.0.to_be_bytes()),
        None => panic!("no request"),
    };
    // DDP control (T, L, version 1), RDMAP control (version 1, opcode), then the fields of Figures 11 to 15.
    let expected = [
        "c140 01020304 1112131415161718 aabb".to_owned(),
        "4143 00000000 00000000 00000001 00000000 aabb".to_owned(),
        "4145 00000000 00000000 00000002 00000000 aabb".to_owned(),
        "4144 21222324 00000000 00000003 00000000 aabb".to_owned(),
        "4146 21222324 00000000 00000004 00000000 aabb".to_owned(),
        format!(
            "4141 00000000 00000001 00000001 00000000 {sink} 0000000000000000 00000020 01020304 1112131415161718"
        ),
    ];
    for (segment, expected) in made.iter().zip(&expected) {
        assert_eq!([&segment.header.to_bytes()[..], &segment.payload].concat(), octets(expected));
        assert!(segment.crc_valid);
    }
    assert_eq!(made.len(), expected.len());

    // Figure 13: sink STag and offset of the request come back, whatever they are.
    let mut b = qp(&end(Role::Responder, true));
    let source =
        b.register(Region::Shared(Bytes::from_static(b"0123456789").into()), Access::READ, 50).unwrap();
    let request = ReadRequest {
        sink_stag: Stag(0xfeed_f00d),
        sink_offset: 0x8182_8384_8586_8788,
        size: 3,
        source_stag: source,
        source_offset: 52,
    };
    b.handle_bytes(&Segment::new(untagged(Opcode::READ_REQUEST, true, 1, 1, 0), &request.encode()).fpdu());
    let response = segments(&output(&mut b)).remove(0);
    let wire = [&response.header.to_bytes()[..], &response.payload].concat();
    assert_eq!(wire, octets("c142 feedf00d 8182838485868788 323334"));
}

#[test]
fn ddp_segmentation() {
    // RFC 5041 section 5.2, with the MULPDU of an EMSS of 1508 octets: 1508 - 6 = 1502.
    let limits = Limits { emss: 1508, ..Limits::default() };
    let mut a = Qp::new(&end(Role::Initiator, true), limits, [0; 16]);
    let message: Vec<u8> = (0..2048u32).map(|n| n as u8).collect();
    a.post_send(send(&message)).unwrap();
    let to = RemoteAddr { stag: Stag(7), offset: 16384 };
    let payload = Bytes::from(message.clone()).into();
    a.post_write(WriteWr { id: WrId(0), payload, to, fence: false, unsignaled: true }).unwrap();
    let made = segments(&output(&mut a));
    // 1502 - 18 octets at MO 0, the rest behind; 1502 - 14 octets at TO 16384, the rest behind. L on the last only.
    let expected = [
        (untagged(Opcode::SEND, false, 0, 1, 0), &message[..1484]),
        (untagged(Opcode::SEND, true, 0, 1, 1484), &message[1484..]),
        (tagged(Opcode::WRITE, false, Stag(7), 16384), &message[..1488]),
        (tagged(Opcode::WRITE, true, Stag(7), 17872), &message[1488..]),
    ];
    for (segment, (header, payload)) in made.iter().zip(expected) {
        assert_eq!((&segment.header, &segment.payload[..]), (&header, payload));
    }
    assert_eq!(made.len(), 4);
    // A zero-length message takes exactly one segment.
    a.post_send(send(&[])).unwrap();
    assert_eq!(segments(&output(&mut a)), [Segment::new(untagged(Opcode::SEND, true, 0, 2, 0), &[])]);
}

#[test]
fn terminate_figures_7_8_and_16() {
    // Layer 1 (DDP), type 1 (tagged), code 1 (bounds); M and D; segment length 0x0015; the header.
    let header = tagged(Opcode::WRITE, true, Stag(0x0102_0304), 5);
    let t = Terminate { code: TerminateCode::DDP_BOUNDS, segment: Some((0x15, header)), read_request: None };
    let wire = octets("1101c000 0015 c140 01020304 0000000000000005");
    assert_eq!(t.encode(), wire);
    assert_eq!(Terminate::decode(&wire), Some(t));

    // Layer 0 (RDMA), type 1 (protection), code 0 (STag); M, D and R; the request.
    let request = ReadRequest {
        sink_stag: Stag(0x1111_1111),
        sink_offset: 2,
        size: 3,
        source_stag: Stag(0x4444_4444),
        source_offset: 5,
    };
    let header = untagged(Opcode::READ_REQUEST, true, 1, 9, 0);
    let segment = Some((46, header));
    let t = Terminate { code: TerminateCode::RDMAP_INVALID_STAG, segment, read_request: Some(request) };
    let wire = octets(
        "0100e000 002e 4141 00000000 00000001 00000009 00000000
         11111111 0000000000000002 00000003 44444444 0000000000000005",
    );
    assert_eq!(t.encode(), wire);
    assert_eq!(Terminate::decode(&wire), Some(t));

    // Layer 2 (MPA), code 2 (CRC): no copies.
    assert_eq!(Terminate::new(TerminateCode::MPA_CRC).encode(), octets("20020000"));
    // What is cut short still tells the code; less than a Terminate Control tells nothing.
    for n in 4..wire.len() {
        assert_eq!(Terminate::decode(&wire[..n]).map(|t| t.code), Some(TerminateCode::RDMAP_INVALID_STAG));
    }
    (0..4).for_each(|n| assert_eq!(Terminate::decode(&wire[..n]), None));
    // Unknown codes survive.
    let odd = Terminate::decode(&octets("5b770000")).unwrap();
    assert_eq!(
        (odd.code, odd.encode()),
        (TerminateCode { layer: 5, etype: 11, code: 0x77 }, octets("5b770000"))
    );
}
