use super::*;
use crate::TerminateCode;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// The origin of time in these tests; its value does not matter.
#[allow(clippy::disallowed_methods)]
fn t0() -> Instant {
    Instant::now()
}

fn config(revision: Revision) -> Config {
    Config { revision, ..Config::default() }
}

/// RFC 5044 Figure 8 filled in: revision 1, markers and CRC wanted, five octets of private data.
const REQUEST_1: &[u8] =
    b"\x4d\x50\x41\x20\x49\x44\x20\x52\x65\x71\x20\x46\x72\x61\x6d\x65\xc0\x01\x00\x05hello";
/// RFC 6581 section 6 filled in: rejected, CRC, S; peer-to-peer, RTR by Write, IRD 3, ORD 4097.
const REPLY_2: &[u8] =
    b"\x4d\x50\x41\x20\x49\x44\x20\x52\x65\x70\x20\x46\x72\x61\x6d\x65\x70\x02\x00\x06\x80\x03\x90\x01no";

#[test]
fn request_of_revision_1() {
    let (frame, used) = Frame::decode(REQUEST_1).unwrap().unwrap();
    assert_eq!(used, REQUEST_1.len());
    let expected = Frame {
        kind: FrameKind::Request,
        markers: true,
        crc: true,
        reject: false,
        revision: 1,
        enhanced: None,
        private_data: Bytes::from_static(b"hello"),
    };
    assert_eq!(frame, expected);
    assert_eq!(frame.encode(), REQUEST_1);
}

#[test]
fn reply_of_revision_2() {
    let (frame, used) = Frame::decode(REPLY_2).unwrap().unwrap();
    assert_eq!(used, REPLY_2.len());
    let rtr = RtrSet { send: false, write: true, read: false };
    assert_eq!(frame.enhanced, Some(Enhanced { peer_to_peer: true, rtr, ird: 3, ord: 4097 }));
    assert!(frame.reject && frame.crc && !frame.markers && frame.kind == FrameKind::Reply);
    assert_eq!(&frame.private_data[..], b"no");
    assert_eq!(frame.encode(), REPLY_2);
}

#[test]
fn every_prefix_needs_more_and_extra_octets_are_left() {
    for whole in [REQUEST_1, REPLY_2] {
        for n in 0..whole.len() {
            assert_eq!(Frame::decode(&whole[..n]), Ok(None), "prefix of {n}");
        }
        let longer = [whole, b"tail"].concat();
        assert_eq!(Frame::decode(&longer).unwrap().unwrap().1, whole.len());
    }
}

#[test]
fn reserved_bits_are_ignored_and_not_sent() {
    let mut noisy = REQUEST_1.to_vec();
    noisy[16] |= 0x1f; // S is reserved in revision 1
    let (frame, _) = Frame::decode(&noisy).unwrap().unwrap();
    assert_eq!(frame.encode(), REQUEST_1);
}

#[test]
fn improper_frames() {
    // RFC 5044 section 7.1.1: any other key, at the first octet that differs.
    assert_eq!(Frame::decode(b"GET / HTTP/1.1\r\n"), Err(FrameError::Key));
    assert_eq!(Frame::decode(b"MPA ID Rex"), Err(FrameError::Key));
    let mut long = REQUEST_1.to_vec();
    long[18..20].copy_from_slice(&513u16.to_be_bytes());
    assert_eq!(Frame::decode(&long), Err(FrameError::PrivateDataLength(513)));
    let mut short = REPLY_2.to_vec();
    short[18..20].copy_from_slice(&3u16.to_be_bytes());
    assert_eq!(Frame::decode(&short), Err(FrameError::EnhancedTooShort(3)));
}

/// What two machines with these configurations come to, with the frames cut into single octets.
fn startup(i: Config, r: Config) -> (Result<InitiatorEvent, StartupError>, Option<Established>) {
    let now = t0();
    let mut initiator = Initiator::new(i, Bytes::from_static(b"ping"), now).unwrap();
    let mut responder = Responder::new(r, now);
    for octet in initiator.transmit().to_vec() {
        assert_eq!(responder.handle_bytes(&[octet]), Ok(1));
    }
    let n = initiator.transmit().len();
    initiator.transmitted(n);
    assert!(initiator.transmit().is_empty());
    let Some(ResponderEvent::Request(request)) = responder.poll_event() else { panic!("no request") };
    assert_eq!(&request.private_data[..], b"ping");
    responder.accept(Bytes::from_static(b"pong")).unwrap();
    let reply = responder.transmit().to_vec();
    assert_eq!(responder.poll_event(), None, "not before the reply is gone");
    responder.transmitted(reply.len());
    let established = match responder.poll_event() {
        Some(ResponderEvent::Established(e)) => Some(e),
        other => panic!("{other:?}"),
    };
    // The octets behind the reply are not the machine's.
    let stream = [&reply[..], b"FPDU"].concat();
    let used = match initiator.handle_bytes(&stream) {
        Ok(used) => used,
        Err(e) => return (Err(e), established),
    };
    assert_eq!(used, reply.len());
    (Ok(initiator.poll_event().unwrap()), established)
}

fn established(i: Config, r: Config) -> (Established, Established) {
    match startup(i, r) {
        (Ok(InitiatorEvent::Established(i)), Some(r)) => (i, r),
        other => panic!("{other:?}"),
    }
}

#[test]
fn depths_are_negotiated() {
    let (i, r) = established(
        Config { ird: 8, ord: 4, ..config(Revision::Two) },
        Config { ird: 2, ord: 30, ..config(Revision::Two) },
    );
    // RFC 6581 section 9.1: initiator ORD <= responder IRD, responder ORD <= initiator IRD.
    assert_eq!((i.ird, i.ord, r.ird, r.ord), (8, 2, 2, 8));
    assert_eq!((i.peer_ird, i.peer_ord, r.peer_ird, r.peer_ord), (Some(2), Some(8), Some(8), Some(4)));
    assert_eq!((&i.private_data[..], &r.private_data[..]), (&b"pong"[..], &b"ping"[..]));
    assert_eq!((i.fault, i.rtr), (None, None));
}

#[test]
fn depths_left_to_the_consumers() {
    let (i, r) = established(
        Config { ird: 8, ord: 4, negotiate_depths: false, ..config(Revision::Two) },
        Config { ird: 2, ord: 30, ..config(Revision::Two) },
    );
    // RFC 6581 section 9.1: 0x3FFF is answered by 0x3FFF and changes nothing at either end.
    assert_eq!((i.ird, i.ord, r.ird, r.ord), (8, 4, 2, 30));
    assert_eq!((i.peer_ird, i.peer_ord), (Some(NOT_NEGOTIATED), Some(NOT_NEGOTIATED)));
}

#[test]
fn revision_1_is_answered_in_kind() {
    let (i, r) = established(
        Config { ird: 8, ord: 4, ..config(Revision::One) },
        Config { ird: 2, ord: 30, ..config(Revision::Two) },
    );
    assert_eq!((i.revision, r.revision), (Revision::One, Revision::One));
    assert_eq!((i.ird, i.ord, r.ird, r.ord), (8, 4, 2, 30));
    assert_eq!((i.peer_ird, r.peer_ird), (None, None));
}

#[test]
fn crc_unless_neither_wants_it_and_markers_for_each_direction() {
    for bits in 0..16u8 {
        let on = |n: u8| bits & (1 << n) != 0;
        let (i, r) = established(
            Config { crc: on(0), markers: on(1), ..Config::default() },
            Config { crc: on(2), markers: on(3), ..Config::default() },
        );
        // RFC 5044 section 7.1.1, C and M.
        assert_eq!((i.crc, r.crc), (on(0) || on(2), on(0) || on(2)));
        assert_eq!((i.rx_markers, r.tx_markers), (on(1), on(1)));
        assert_eq!((i.tx_markers, r.rx_markers), (on(3), on(3)));
    }
}

#[test]
fn ready_to_receive() {
    let p2p = |ord| Config { peer_to_peer: true, ord, ..Config::default() };
    // RFC 6581 section 9.2: the initiator sends one of the indications both support.
    let (i, r) = established(p2p(4), Config::default());
    assert_eq!((i.rtr, i.fault, r.rtr), (Some(Rtr::Write), None, None));

    // A responder that can only take a Read.
    let now = t0();
    let answer = |rtr: RtrSet, a: bool, ird: u16| {
        let mut initiator = Initiator::new(p2p(4), Bytes::new(), now).unwrap();
        let enhanced = Enhanced { peer_to_peer: a, rtr, ird, ord: 0 };
        let reply = Frame {
            kind: FrameKind::Reply,
            markers: false,
            crc: true,
            reject: false,
            revision: 2,
            enhanced: Some(enhanced),
            private_data: Bytes::new(),
        };
        initiator.handle_bytes(&reply.encode()).unwrap();
        match initiator.poll_event() {
            Some(InitiatorEvent::Established(e)) => (e.rtr, e.fault),
            other => panic!("{other:?}"),
        }
    };
    let none = RtrSet::default();
    let no_match = Some(TerminateCode::MPA_NO_MATCHING_RTR);
    assert_eq!(answer(RtrSet { read: true, ..none }, true, 1), (Some(Rtr::Read), None));
    assert_eq!(answer(RtrSet { send: true, ..none }, true, 1), (Some(Rtr::Send), None));
    assert_eq!(answer(RtrSet { read: true, ..none }, true, 0), (None, no_match));
    assert_eq!(answer(none, true, 1), (None, no_match));
    assert_eq!(answer(RtrSet { write: true, ..none }, false, 1), (None, no_match));
}

#[test]
fn a_read_indication_needs_a_place_in_the_responders_queue() {
    let request = |write: bool, ord: u16| Frame {
        kind: FrameKind::Request,
        markers: false,
        crc: false,
        reject: false,
        revision: 2,
        enhanced: Some(Enhanced {
            peer_to_peer: true,
            rtr: RtrSet { send: true, write, read: true },
            ird: 0,
            ord,
        }),
        private_data: Bytes::new(),
    };
    let reply = |write: bool, ird: u16| {
        let mut r = Responder::new(Config { ird, ..Config::default() }, t0());
        r.handle_bytes(&request(write, 0).encode()).unwrap();
        r.accept(Bytes::new()).unwrap();
        let e = Frame::decode(r.transmit()).unwrap().unwrap().0.enhanced.unwrap();
        (e.peer_to_peer, e.rtr.write, e.rtr.read, e.ird)
    };
    // RFC 6581 section 9.1: an initiator ORD of 0 and RTR by Read make the responder IRD 1.
    assert_eq!(reply(false, 4), (true, false, true, 1));
    assert_eq!(reply(true, 4), (true, true, false, 0));
    // None that is asked for is possible: one that is possible is named.
    assert_eq!(reply(false, 0), (true, true, false, 0));
}

#[test]
fn too_little_ird_is_a_fault() {
    let mut initiator = Initiator::new(Config { ird: 1, ..Config::default() }, Bytes::new(), t0()).unwrap();
    let mut greedy = Frame::decode(REPLY_2).unwrap().unwrap().0;
    greedy.reject = false;
    initiator.handle_bytes(&greedy.encode()).unwrap();
    let Some(InitiatorEvent::Established(e)) = initiator.poll_event() else { panic!() };
    // RFC 6581 section 9.1: layer 2, type 0, code 6.
    assert_eq!(e.fault, Some(TerminateCode { layer: 2, etype: 0, code: 6 }));
}

#[test]
fn rejection_leaves_the_byte_stream() {
    let now = t0();
    let mut initiator = Initiator::new(Config::default(), Bytes::new(), now).unwrap();
    let mut responder = Responder::new(Config::default(), now);
    responder.handle_bytes(initiator.transmit()).unwrap();
    assert!(matches!(responder.poll_event(), Some(ResponderEvent::Request(_))));
    responder.reject(Bytes::from_static(b"busy"), Some((3, 5))).unwrap();
    let reply = responder.transmit().to_vec();
    responder.transmitted(reply.len());
    assert_eq!(responder.poll_event(), Some(ResponderEvent::Rejected));
    let used = initiator.handle_bytes(&[&reply[..], b"plain text"].concat()).unwrap();
    assert_eq!(used, reply.len());
    let rejected =
        InitiatorEvent::Rejected { private_data: Bytes::from_static(b"busy"), depths: Some((3, 5)) };
    assert_eq!(initiator.poll_event(), Some(rejected));
    assert_eq!(initiator.handle_bytes(b"plain text"), Ok(0));
}

#[test]
fn wrong_beginnings() {
    let now = t0();
    let initiator = || Initiator::new(Config::default(), Bytes::new(), now).unwrap();
    let responder = || Responder::new(Config::default(), now);
    // RFC 5044 section 7.1.2 rule 8.
    assert_eq!(initiator().handle_bytes(REQUEST_1), Err(StartupError::BothInitiators));
    assert_eq!(responder().handle_bytes(REPLY_2), Err(StartupError::UnexpectedReply));
    // Section 7.1.1, Rev: RDMAC's 0, and one that does not exist yet.
    for revision in [0, 3] {
        let mut frame = REQUEST_1.to_vec();
        frame[17] = revision;
        assert_eq!(responder().handle_bytes(&frame), Err(StartupError::Revision(revision)));
    }
    // RFC 6581 section 10: an enhanced request needs an enhanced reply.
    let mut plain = REQUEST_1.to_vec();
    plain[14..16].copy_from_slice(b"me");
    plain[9] = b'p';
    assert_eq!(initiator().handle_bytes(&plain), Err(StartupError::NotEnhanced));
    for e in [StartupError::BothInitiators, StartupError::NotEnhanced, StartupError::Frame(FrameError::Key)] {
        assert_eq!(e.code(), TerminateCode { layer: 2, etype: 0, code: 4 });
    }
    assert_eq!(responder().accept(Bytes::new()), Err(StartupError::State));
    let long = Bytes::from(vec![0; 509]);
    assert_eq!(
        Initiator::new(Config::default(), long.clone(), now).unwrap_err(),
        StartupError::PrivateDataTooLong(509)
    );
    assert!(Initiator::new(config(Revision::One), long, now).is_ok());
}

#[test]
fn silence_and_endings() {
    let now = t0();
    let timeout = Config::default().timeout;
    let mut initiator = Initiator::new(Config::default(), Bytes::new(), now).unwrap();
    let mut responder = Responder::new(Config::default(), now);
    // RFC 5044 section 7.1.2 rules 8 and 10: both ends wait for a limited time only.
    assert_eq!(initiator.poll_timeout(), Some(now + timeout));
    assert_eq!(responder.poll_timeout(), Some(now + timeout));
    assert_eq!(initiator.handle_timeout(now + timeout - Duration::from_millis(1)), Ok(()));
    assert_eq!(initiator.handle_timeout(now + timeout), Err(StartupError::Timeout));
    assert_eq!(responder.handle_timeout(now + timeout), Err(StartupError::Timeout));
    assert_eq!(initiator.handle_eof(), Ok(()));

    let mut responder = Responder::new(Config::default(), now);
    responder.handle_bytes(&REQUEST_1[..10]).unwrap();
    assert_eq!(responder.handle_eof(), Err(StartupError::Closed));
    responder.handle_bytes(&REQUEST_1[10..]).unwrap();
    assert_eq!(responder.poll_timeout(), None, "the consumer takes the time it needs");
}

/// RFC 5044 Figure 5: the first FPDU of a stream with markers.
pub(crate) const FIGURE_5: &[u8] = b"\0\0\0\0\x00\x2a\x41\x43\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x52\x23\x99\x83";
/// RFC 5044 Figure 6: an FPDU at octet 0x1ec with a marker inside.
pub(crate) const FIGURE_6: &[u8] = b"\x00\x2a\x41\x43\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\x00\x00\x00\x14\
    \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x84\x92\x58\x98";

#[test]
fn figures_5_and_6_are_measured_and_stripped() {
    let five = measure(FIGURE_5, 0, true).unwrap();
    assert_eq!(five, WireFrame { ulpdu: 42, len: FIGURE_5.len(), first_marker: Some(0) });
    let mut bytes = FIGURE_5.to_vec();
    assert_eq!(five.strip_markers(&mut bytes), Some(48));
    assert_eq!(bytes[..44], FIGURE_5[4..48]);

    let six = measure(FIGURE_6, 0x1ec, true).unwrap();
    assert_eq!(six, WireFrame { ulpdu: 42, len: FIGURE_6.len(), first_marker: Some(0x14) });
    let mut bytes = FIGURE_6.to_vec();
    assert_eq!(six.strip_markers(&mut bytes), Some(48));
    assert_eq!(bytes[..48], [&FIGURE_6[..20], &FIGURE_6[24..]].concat());

    // The pointer's two low bits do not count; any other difference does (section 8, code 3).
    let mut bytes = FIGURE_6.to_vec();
    bytes[23] |= 3;
    assert!(six.strip_markers(&mut bytes).is_some());
    let mut bytes = FIGURE_6.to_vec();
    bytes[23] = 0x10;
    assert_eq!(six.strip_markers(&mut bytes), None);
}

#[test]
fn the_largest_ulpdu_of_a_segment() {
    // RFC 5044 section 4.5: EMSS - (6 + 4 * ceil(EMSS / 512) + EMSS mod 4), and the same without markers.
    assert_eq!(mulpdu(1460, false), 1454);
    assert_eq!(mulpdu(1460, true), 1442);
    assert_eq!(mulpdu(1462, false), 1454);
    assert_eq!(mulpdu(100, true), 128);
    assert_eq!(mulpdu(u32::MAX, true), u16::MAX);
}
