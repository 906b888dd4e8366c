//! Streams of the Linux kernel's siw, read, and played back with our end in the place of each of the two.

mod common;

use bytes::Bytes;
use common::*;
use iwarp::ddp::Model;
use iwarp::mpa::{
    Config, Enhanced, Established, Frame, FrameKind, Initiator, InitiatorEvent, Responder, ResponderEvent,
    Revision, RtrSet,
};
use iwarp::rdmap::{Opcode, ReadRequest};
use iwarp::{Access, Done, Limits, QueuePair, ReadWr, Region, RemoteAddr, SendWr, Stag, WrId, WriteWr};
use std::collections::HashMap;
use std::time::Instant;

const ISER_DISCOVERY: &[u8] = include_bytes!("captures/iser-discovery.seg");
const ISER_SESSION: &[u8] = include_bytes!("captures/iser-session.seg");
const RPING_CLIENT: &[u8] = include_bytes!("captures/rping-siw-client.seg");
const RPING_SERVER: &[u8] = include_bytes!("captures/rping-siw-server-p2p.seg");

/// A captured connection: the startup frames, and the segments with their direction (0 from the initiator).
struct Capture {
    request: Frame,
    reply: Frame,
    segments: Vec<(u8, Segment)>,
}

fn load(mut file: &[u8]) -> Capture {
    let mut frames = Vec::new();
    let mut all = Vec::new();
    let mut pending = [Vec::new(), Vec::new()];
    while let [dir, a, b, rest @ ..] = file {
        let (octets, rest) = rest.split_at(usize::from(u16::from_be_bytes([*a, *b])));
        file = rest;
        let stream = &mut pending[usize::from(*dir)];
        stream.extend_from_slice(octets);
        if frames.len() < 2 {
            let (frame, used) = Frame::decode(stream).unwrap().unwrap();
            assert_eq!(used, stream.len());
            // The flags siw sends in reserved bits are not ours to repeat.
            let ours = frame.encode();
            assert_eq!((&ours[..16], &ours[17..]), (&stream[..16], &stream[17..]));
            frames.push(frame);
            stream.clear();
            continue;
        }
        // An FPDU may begin in one segment and end in another.
        while let Some(len) = stream.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l))) {
            let whole = (2 + len).next_multiple_of(4) + 4;
            if stream.len() < whole {
                break;
            }
            let frame: Vec<u8> = stream.drain(..whole).collect();
            all.push((*dir, segments(&frame).remove(0)));
        }
    }
    assert!(pending.iter().all(Vec::is_empty));
    let reply = frames.pop().unwrap();
    Capture { request: frames.pop().unwrap(), reply, segments: all }
}

#[test]
fn startup_frames_of_siw() {
    // The flags and numbers tshark shows for the same frames.
    for file in [ISER_DISCOVERY, ISER_SESSION] {
        let c = load(file);
        for (frame, kind) in [(&c.request, FrameKind::Request), (&c.reply, FrameKind::Reply)] {
            assert_eq!(
                (frame.kind, frame.revision, frame.crc, frame.markers, frame.reject),
                (kind, 2, false, false, false)
            );
            // The consumer's header: zero-based addresses not used, Send with Invalidate is.
            assert_eq!(&frame.private_data[..], [0x80, 0, 0, 0]);
        }
        let depths = |f: &Frame| f.enhanced.map(|e| (e.ird, e.ord, e.peer_to_peer));
        assert_eq!((depths(&c.request), depths(&c.reply)), (Some((128, 1, false)), Some((1, 128, false))));
    }
    let c = load(RPING_SERVER);
    let write = RtrSet { send: false, write: true, read: false };
    let expected = Enhanced { peer_to_peer: true, rtr: write, ird: 1, ord: 1 };
    assert_eq!((c.reply.crc, c.reply.enhanced), (true, Some(expected)));
}

#[test]
fn fpdus_of_siw() {
    for (file, crc) in
        [(ISER_DISCOVERY, false), (ISER_SESSION, false), (RPING_CLIENT, true), (RPING_SERVER, true)]
    {
        let c = load(file);
        let mut msn = HashMap::new();
        for (dir, s) in &c.segments {
            assert!(s.crc_valid || !crc);
            assert_eq!((s.header.version, s.header.control.version), (1, 1));
            if let Model::Untagged { queue, msn: n, .. } = s.header.model {
                assert_eq!(s.header.control.opcode.queue(), Some(queue));
                assert_eq!(*msn.entry((*dir, queue)).or_insert(1), n);
                if s.header.last {
                    *msn.get_mut(&(*dir, queue)).unwrap() += 1;
                }
            }
        }
    }
    let session = load(ISER_SESSION);
    let count = |opcode| session.segments.iter().filter(|(_, s)| s.header.control.opcode == opcode).count();
    assert!(
        count(Opcode::WRITE) > 0 && count(Opcode::READ_RESPONSE) > 0 && count(Opcode::SEND_INVALIDATE) > 0
    );
}

/// The segment size a captured end cuts its messages to.
fn emss(c: &Capture, dir: u8) -> u32 {
    let sizes = c.segments.iter().filter(|(d, s)| *d == dir && !s.header.last);
    let ulpdu = sizes.map(|(_, s)| s.header.encoded_len() + s.payload.len()).max();
    ulpdu.map_or(65_000, |u| (u as u32 + 6).next_multiple_of(4))
}

/// Starts our end the way the captured end of that direction started.
#[allow(clippy::disallowed_methods)]
fn start(c: &Capture, dir: u8) -> Established {
    let now = Instant::now();
    let own = if dir == 0 { &c.request } else { &c.reply };
    let e = own.enhanced.unwrap();
    let config = Config {
        crc: own.crc,
        revision: Revision::Two,
        ird: e.ird,
        ord: e.ord,
        peer_to_peer: e.peer_to_peer,
        ..Config::default()
    };
    if dir == 0 {
        let mut i = Initiator::new(config, own.private_data.clone(), now).unwrap();
        let sent = Frame::decode(i.transmit()).unwrap().unwrap().0;
        assert_eq!((sent.crc, sent.revision, &sent.private_data), (own.crc, own.revision, &own.private_data));
        i.handle_bytes(&c.reply.encode()).unwrap();
        match i.poll_event() {
            Some(InitiatorEvent::Established(e)) => e,
            other => panic!("{other:?}"),
        }
    } else {
        let mut r = Responder::new(config, now);
        r.handle_bytes(&c.request.encode()).unwrap();
        r.poll_event().unwrap();
        r.accept(own.private_data.clone()).unwrap();
        let n = r.transmit().len();
        assert_eq!(Frame::decode(r.transmit()).unwrap().unwrap().0.enhanced, own.enhanced);
        r.transmitted(n);
        match r.poll_event() {
            Some(ResponderEvent::Established(e)) => e,
            other => panic!("{other:?}"),
        }
    }
}

/// The octets of the message whose first segment is segment `at`, sent by `dir`.
fn message(c: &Capture, at: usize, dir: u8, same: impl Fn(&Segment) -> bool) -> Vec<u8> {
    let mut all = Vec::new();
    for (_, s) in c.segments[at..].iter().filter(|(d, s)| *d == dir && same(s)) {
        all.extend_from_slice(&s.payload);
        if s.header.last {
            break;
        }
    }
    all
}

/// Puts our end in the place of one end of a capture. The other end's segments are fed to it as they were, but for the
/// STags of the captured end, which are exchanged for ours. What the captured end sent, ours is told to send; what it
/// then sends is compared, segment by segment, but for the same STags.
fn play(file: &[u8], me: u8) -> u64 {
    let c = load(file);
    let e = start(&c, me);
    let mut qp: QueuePair<Vec<u8>> = Qp::new(&e, Limits { emss: emss(&c, me), ..Limits::default() }, [3; 16]);
    (0..40).for_each(|n| qp.post_recv(WrId(n), vec![0; 9000]).unwrap());
    let (mut expected, mut sent) = (Vec::new(), Vec::new());
    // STags: of memory the captured end advertised, and of the sinks of its reads.
    let mut stags: HashMap<Stag, Stag> = HashMap::new();
    let mut sinks: HashMap<Stag, Stag> = HashMap::new();
    let mut written: HashMap<Stag, Vec<(u64, Vec<u8>)>> = HashMap::new();
    let (mut received, mut delivered) = (Vec::new(), Vec::new());
    let mut begun = true;

    for (at, (dir, segment)) in c.segments.iter().enumerate() {
        let opcode = segment.header.control.opcode;
        if *dir == me {
            expected.push(segment.clone());
            let first = std::mem::replace(&mut begun, segment.header.last);
            if e.rtr.is_some() && expected.len() == 1 {
                // The RTR indication is sent unasked.
                assert!(segment.payload.is_empty());
            } else if first {
                match (opcode, segment.header.model) {
                    (Opcode::READ_REQUEST, _) => {
                        let r = ReadRequest::decode(&segment.payload).unwrap();
                        let from = RemoteAddr { stag: r.source_stag, offset: r.source_offset };
                        let sink = vec![0; r.size as usize];
                        qp.post_read(ReadWr { id: WrId(at as u64), from, len: r.size, sink }).unwrap();
                    }
                    (Opcode::WRITE, Model::Tagged { stag, offset }) => {
                        let payload = message(&c, at, me, |s| s.header.control.opcode == opcode);
                        let (payload, to) = (Bytes::from(payload).into(), RemoteAddr { stag, offset });
                        let write = WriteWr { id: WrId(0), payload, to, fence: false, unsignaled: true };
                        qp.post_write(write).unwrap();
                    }
                    (_, Model::Untagged { invalidate, queue: 0, .. }) => {
                        let payload = message(&c, at, me, |s| s.header.control.opcode.queue() == Some(0));
                        let invalidate = opcode.invalidates().then_some(invalidate);
                        let payload = Bytes::from(payload).into();
                        let solicited = opcode.is_solicited();
                        let wr =
                            SendWr { payload, invalidate, solicited, unsignaled: true, ..SendWr::default() };
                        qp.post_send(wr).unwrap();
                    }
                    // A response: the request, when it was fed, made our end send it.
                    _ => assert_eq!(opcode, Opcode::READ_RESPONSE),
                }
            }
            sent.extend(segments(&output(&mut qp)));
            continue;
        }
        // Requests of ours tell which sink of ours stands for which captured one.
        for (ours, theirs) in sent.iter().zip(&expected) {
            if ours.header.control.opcode == Opcode::READ_REQUEST {
                let [a, b] = [ours, theirs].map(|s| ReadRequest::decode(&s.payload).unwrap().sink_stag);
                sinks.insert(b, a);
            }
        }
        // Exchange the STags of the captured end for ours.
        let mut fed = segment.clone();
        match (&mut fed.header.model, opcode) {
            (Model::Tagged { stag, offset }, Opcode::WRITE) if !segment.payload.is_empty() => {
                let old = *stag;
                // A region around what is written; tagged offsets as advertised.
                let base = *offset & !0xfffff;
                let ours = *stags.entry(old).or_insert_with(|| {
                    qp.register(Region::Owned(vec![0; 0x200000]), Access::WRITE, base).unwrap()
                });
                *stag = ours;
                written.entry(ours).or_default().push((*offset - base, segment.payload.clone()));
            }
            (Model::Tagged { stag, offset }, Opcode::READ_RESPONSE) => {
                // Our sinks begin at offset 0.
                let request = expected.iter().filter_map(|s: &Segment| ReadRequest::decode(&s.payload));
                let mut request = request.filter(|r| r.sink_stag == *stag);
                let request = request.next_back().unwrap();
                (*offset, *stag) = (*offset - request.sink_offset, sinks[stag]);
            }
            (Model::Untagged { invalidate, .. }, _) if opcode.invalidates() => {
                let old = *invalidate;
                *invalidate = *stags
                    .entry(old)
                    .or_insert_with(|| qp.register(Region::Owned(Vec::new()), Access::WRITE, 0).unwrap());
                stags.remove(&old);
            }
            (Model::Untagged { .. }, Opcode::READ_REQUEST) => {
                let mut r = ReadRequest::decode(&segment.payload).unwrap();
                let answer = message(
                    &c,
                    at,
                    me,
                    |s| matches!(s.header.model, Model::Tagged { stag, .. } if stag == r.sink_stag),
                );
                assert_eq!(answer.len(), r.size as usize);
                let region = Region::Shared(Bytes::from(answer).into());
                r.source_stag = qp.register(region, Access::READ, r.source_offset).unwrap();
                fed.payload = r.encode().to_vec();
            }
            _ => {}
        }
        if opcode.queue() == Some(0) {
            received.extend_from_slice(&segment.payload);
        }
        qp.handle_bytes(&fed.fpdu());
        assert_eq!(qp.cause(), None, "after segment {at}");
        while let Some(done) = qp.poll_cq() {
            match done.done {
                Done::Recv { buffer, len, invalidated, .. } => {
                    delivered.extend_from_slice(&buffer[..len]);
                    if let Some((stag, Some(Region::Owned(m)))) = invalidated.map(|i| (i.stag, i.region)) {
                        for (offset, payload) in written.remove(&stag).unwrap_or_default() {
                            assert_eq!(m[offset as usize..][..payload.len()], payload);
                        }
                    }
                    qp.post_recv(done.id, buffer).unwrap();
                }
                Done::Read { sink, len } => {
                    // The data of the captured response to the captured request.
                    let r = ReadRequest::decode(&c.segments[done.id.0 as usize].1.payload).unwrap();
                    let of = |s: &Segment| matches!(s.header.model, Model::Tagged { stag, .. } if stag == r.sink_stag);
                    assert_eq!(sink, message(&c, done.id.0 as usize, 1 - me, of));
                    assert_eq!(len, r.size);
                }
                _ => {}
            }
        }
        sent.extend(segments(&output(&mut qp)));
    }
    assert_eq!(delivered, received);
    assert!(written.values().flatten().count() == 0 || me == 0);
    assert_eq!(sent.len(), expected.len());
    for (n, (ours, theirs)) in sent.iter().zip(&expected).enumerate() {
        let mut theirs = theirs.clone();
        if theirs.header.control.opcode == Opcode::READ_REQUEST {
            // The sink is each end's own affair.
            let mut r = ReadRequest::decode(&theirs.payload).unwrap();
            let ours = ReadRequest::decode(&ours.payload).unwrap();
            (r.sink_stag, r.sink_offset) = (ours.sink_stag, ours.sink_offset);
            theirs.payload = r.encode().to_vec();
        }
        if theirs.payload.is_empty() {
            // STag and offset of no octets mean nothing.
            theirs.header.model = ours.header.model;
        }
        (theirs.crc_valid, theirs.pad_zero) = (ours.crc_valid, true);
        assert_eq!(*ours, theirs, "segment {n}");
        assert_eq!(ours.crc_valid, e.crc);
    }
    sent.len() as u64
}

#[test]
fn in_the_place_of_the_kernels_iser_initiator() {
    assert!(play(ISER_DISCOVERY, 0) > 0);
    assert!(play(ISER_SESSION, 0) > 30);
}

#[test]
fn in_the_place_of_the_kernels_iser_target() {
    assert!(play(ISER_DISCOVERY, 1) > 0);
    assert!(play(ISER_SESSION, 1) > 30);
}

#[test]
fn in_the_place_of_rping_over_siw() {
    assert!(play(RPING_CLIENT, 0) > 10);
    assert!(play(RPING_SERVER, 1) > 10);
}

#[test]
fn against_rping_over_siw() {
    assert!(play(RPING_CLIENT, 1) > 10);
    assert!(play(RPING_SERVER, 0) > 10);
}
