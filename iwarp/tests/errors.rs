//! Every rule a peer can break: the Terminate message it gets, and the memory it does not get.

mod common;

use bytes::Bytes;
use common::*;
use iwarp::ddp::{Header, Model};
use iwarp::mpa::{Established, Role, Rtr};
use iwarp::rdmap::{Control, Opcode, ReadRequest};
use iwarp::{
    Access, Cause, Done, ReadWr, Refusal, Region, RemoteAddr, SendWr, Stag, Status, Terminate,
    TerminateCode as T, WrId, WriteWr,
};

const BASE: u64 = 100;

/// An end with something of everything a peer may aim at.
struct Victim {
    qp: Qp,
    /// 32 octets, may be written.
    writable: Stag,
    /// 32 octets, may be read.
    readable: Stag,
    /// STag of the sink of a read of 8 octets.
    sink: Stag,
}

fn victim() -> Victim {
    let mut qp = qp(&Established { ird: 1, ..end(Role::Initiator, true) });
    let writable = qp.register(Region::Owned(vec![0xee; 32]), Access::WRITE, BASE).unwrap();
    let data = Bytes::from_static(b"0123456789abcdef0123456789abcdef").into();
    let readable = qp.register(Region::Shared(data), Access::READ, BASE).unwrap();
    qp.post_recv(WrId(1), vec![0xee; 16]).unwrap();
    qp.post_recv(WrId(2), vec![0xee; 16]).unwrap();
    let from = RemoteAddr { stag: Stag(5), offset: 0 };
    qp.post_read(ReadWr { id: WrId(3), from, len: 8, sink: vec![0xee; 8] }).unwrap();
    let request = segments(&output(&mut qp)).remove(0);
    let sink = ReadRequest::decode(&request.payload).unwrap().sink_stag;
    Victim { qp, writable, readable, sink }
}

/// Sends one bad segment and checks everything that must follow.
fn expect(what: &str, bad: impl FnOnce(&Victim) -> Segment, code: T, request: Option<ReadRequest>) {
    expect_after(what, &[], bad, code, request);
}

fn expect_after(
    what: &str,
    good: &[Segment],
    bad: impl FnOnce(&Victim) -> Segment,
    code: T,
    request: Option<ReadRequest>,
) {
    let mut v = victim();
    good.iter().for_each(|s| v.qp.handle_bytes(&s.fpdu()));
    assert_eq!(v.qp.cause(), None, "{what}");
    output(&mut v.qp);
    let bad = bad(&v);
    let fpdu = bad.fpdu();
    v.qp.handle_bytes(&fpdu);

    // The first error is reported, with the length and the header of its segment (RFC 5040 section 4.8).
    let length = (bad.header.encoded_len() + bad.payload.len()) as u16;
    let expected = Terminate { code, segment: Some((length, bad.header)), read_request: request };
    assert_eq!(v.qp.cause(), Some(Cause::Local(expected)), "{what}");
    assert_eq!(v.qp.status(), Status::Closing);
    // Everything that follows is dropped without a word.
    v.qp.handle_bytes(&fpdu);
    v.qp.handle_bytes(b"and no FPDU either");
    assert_eq!(terminate_of(&mut v.qp), Some(expected), "{what}");
    assert_eq!(v.qp.status(), Status::Closed);

    // All that was posted comes back flushed; no octet of it was written beyond what came before.
    let done = completions(&mut v.qp);
    assert!(done.iter().filter(|c| c.flushed).count() >= 1, "{what}: {done:?}");
    for c in done {
        match c.done {
            Done::Recv { buffer, .. } if good.is_empty() => assert_eq!(buffer, [0xee; 16], "{what}"),
            Done::Read { sink, .. } => assert_eq!(sink, [0xee; 8], "{what}"),
            _ => {}
        }
    }
    for region in v.qp.reclaim() {
        if let Region::Owned(m) = region {
            assert_eq!(m, [0xee; 32], "{what}");
        }
    }
    assert_eq!(v.qp.post_recv(WrId(9), vec![]).unwrap_err().reason, Refusal::Closed);
    assert_eq!(v.qp.post_send(SendWr::default()).unwrap_err().reason, Refusal::Closed);
}

fn versions(mut header: Header, ddp: u8, rdmap: u8) -> Header {
    header.version = ddp;
    header.control = Control { version: rdmap, ..header.control };
    header
}

#[test]
fn tagged_segments() {
    let write =
        |stag, offset, len: usize| Segment::new(tagged(Opcode::WRITE, true, stag, offset), &vec![1; len]);
    // RFC 5041 sections 7.1 and 7.2.
    expect("no such STag", |_| write(Stag(0x1234), BASE, 1), T::DDP_INVALID_STAG, None);
    expect("write to what may be read", |v| write(v.readable, BASE, 1), T::DDP_INVALID_STAG, None);
    expect("write to the sink of a read", |v| write(v.sink, 0, 1), T::DDP_INVALID_STAG, None);
    expect("before the buffer", |v| write(v.writable, BASE - 1, 2), T::DDP_BOUNDS, None);
    expect("behind the buffer", |v| write(v.writable, BASE + 31, 2), T::DDP_BOUNDS, None);
    expect("far behind the buffer", |v| write(v.writable, u64::MAX - 9, 2), T::DDP_BOUNDS, None);
    expect("more than the buffer", |v| write(v.writable, BASE, 33), T::DDP_BOUNDS, None);
    expect("around the end of 64 bits", |v| write(v.writable, u64::MAX, 2), T::DDP_TO_WRAP, None);
    let old = |v: &Victim| versions(tagged(Opcode::WRITE, true, v.writable, BASE), 0, 1);
    expect("DDP version 0", |v| Segment::new(old(v), &[1]), T::DDP_TAGGED_VERSION, None);
    let old = |v: &Victim| versions(tagged(Opcode::WRITE, true, v.writable, BASE), 1, 0);
    expect("RDMAP version 0", |v| Segment::new(old(v), &[1]), T::RDMAP_VERSION, None);
    for opcode in [1, 3, 4, 5, 6, 7, 8, 15] {
        let header = |v: &Victim| tagged(Opcode(opcode), true, v.writable, BASE);
        expect(
            "opcode of an untagged message",
            |v| Segment::new(header(v), &[1]),
            T::RDMAP_UNEXPECTED_OPCODE,
            None,
        );
    }
}

#[test]
fn untagged_segments() {
    let send = |queue, msn, offset, len: usize| {
        Segment::new(untagged(Opcode::SEND, true, queue, msn, offset), &vec![1; len])
    };
    expect("no such queue", |_| send(3, 1, 0, 1), T::DDP_INVALID_QN, None);
    expect("message 0", |_| send(0, 0, 0, 1), T::DDP_INVALID_MSN, None);
    expect("message left out", |_| send(0, 2, 0, 1), T::DDP_INVALID_MSN, None);
    expect("octets left out", |_| send(0, 1, 1, 1), T::DDP_INVALID_MO, None);
    expect("more than the buffer", |_| send(0, 1, 0, 17), T::DDP_TOO_LONG, None);
    let header = versions(untagged(Opcode::SEND, true, 0, 1, 0), 2, 1);
    expect("DDP version 2", |_| Segment::new(header, &[1]), T::DDP_UNTAGGED_VERSION, None);
    let header = versions(untagged(Opcode::SEND, true, 0, 1, 0), 1, 3);
    expect("RDMAP version 3", |_| Segment::new(header, &[1]), T::RDMAP_VERSION, None);
    for (queue, opcode) in [(0, 0), (0, 1), (0, 2), (0, 7), (0, 8), (1, 3), (1, 7), (2, 1), (2, 6)] {
        let header = untagged(Opcode(opcode), true, queue, 1, 0);
        expect("opcode of another queue", |_| Segment::new(header, &[1]), T::RDMAP_UNEXPECTED_OPCODE, None);
    }

    let one = |msn, last, offset, len: usize| {
        Segment::new(untagged(Opcode::SEND, last, 0, msn, offset), &vec![1; len])
    };
    let two = [one(1, true, 0, 3), one(2, true, 0, 0)];
    expect_after("no buffer is left", &two, |_| one(3, true, 0, 0), T::DDP_NO_BUFFER, None);
    let begun = [one(1, false, 0, 10)];
    expect_after("too much in sum", &begun, |_| one(1, true, 10, 7), T::DDP_TOO_LONG, None);
    expect_after("octets twice", &begun, |_| one(1, true, 9, 1), T::DDP_INVALID_MO, None);
    expect_after("next message too early", &begun, |_| one(2, true, 0, 1), T::DDP_INVALID_MSN, None);
    let other = Segment::new(untagged(Opcode::SEND_SE, true, 0, 1, 10), &[1]);
    expect_after("message changes its kind", &begun, |_| other, T::RDMAP_UNEXPECTED_OPCODE, None);
    expect_after(
        "the same message again",
        &[one(1, true, 0, 3)],
        |_| one(1, true, 0, 3),
        T::DDP_INVALID_MSN,
        None,
    );
}

#[test]
fn read_requests() {
    let request = |stag, offset, size| ReadRequest {
        sink_stag: Stag(77),
        sink_offset: 0,
        size,
        source_stag: stag,
        source_offset: offset,
    };
    let segment =
        |r: &ReadRequest, msn| Segment::new(untagged(Opcode::READ_REQUEST, true, 1, msn, 0), &r.encode());
    let refused = |what, make: &dyn Fn(&Victim) -> ReadRequest, code| {
        // STags are the same in every victim: the seed is.
        let r = make(&victim());
        expect(what, |_| segment(&r, 1), code, Some(r));
    };
    // RFC 5040 sections 4.8 and 7.2; the request is sent back (R bit).
    refused("no such STag", &|_| request(Stag(1), BASE, 1), T::RDMAP_INVALID_STAG);
    refused("read of what may be written", &|v| request(v.writable, BASE, 1), T::RDMAP_ACCESS);
    refused("read of the sink of a read", &|v| request(v.sink, 0, 1), T::RDMAP_INVALID_STAG);
    refused("before the buffer", &|v| request(v.readable, BASE - 1, 2), T::RDMAP_BOUNDS);
    refused("behind the buffer", &|v| request(v.readable, BASE + 31, 2), T::RDMAP_BOUNDS);
    refused("all there is", &|v| request(v.readable, BASE, u32::MAX), T::RDMAP_BOUNDS);
    refused("around the end of 64 bits", &|v| request(v.readable, u64::MAX, 2), T::RDMAP_TO_WRAP);
    let around = |v: &Victim| ReadRequest { sink_offset: u64::MAX, ..request(v.readable, BASE, 2) };
    refused("sink around the end of 64 bits", &around, T::RDMAP_TO_WRAP);

    let short = |v: &Victim| request(v.readable, BASE, 1).encode()[..27].to_vec();
    let header = untagged(Opcode::READ_REQUEST, true, 1, 1, 0);
    expect("short request", |v| Segment::new(header, &short(v)), T::RDMAP_STREAM_CATASTROPHIC, None);
    let long = |v: &Victim| [&request(v.readable, BASE, 1).encode()[..], &[0]].concat();
    expect("long request", |v| Segment::new(header, &long(v)), T::DDP_TOO_LONG, None);
}

#[test]
fn more_read_requests_than_agreed() {
    let mut v = victim(); // IRD 1
    let r = ReadRequest {
        sink_stag: Stag(77),
        sink_offset: 0,
        size: 32,
        source_stag: v.readable,
        source_offset: BASE,
    };
    let segment = |msn| Segment::new(untagged(Opcode::READ_REQUEST, true, 1, msn, 0), &r.encode());
    v.qp.handle_bytes(&segment(1).fpdu());
    // The first is answered: the second is welcome.
    assert_eq!(output(&mut v.qp).len(), 2 + 14 + 32 + 4);
    v.qp.handle_bytes(&segment(2).fpdu());
    v.qp.handle_bytes(&segment(3).fpdu());
    assert_eq!(local_code(&v.qp), Some(T::DDP_NO_BUFFER));
    // IRD 0: none at all.
    let mut qp = qp(&Established { ird: 0, ..end(Role::Initiator, true) });
    qp.handle_bytes(&segment(1).fpdu());
    assert_eq!(local_code(&qp), Some(T::DDP_NO_BUFFER));
}

#[test]
fn requests_for_nothing_are_not_looked_at() {
    // RFC 5040 section 5.2.1: no validation, a zero-length response.
    let mut v = victim();
    let r = ReadRequest {
        sink_stag: Stag(77),
        sink_offset: u64::MAX,
        size: 0,
        source_stag: Stag(1),
        source_offset: u64::MAX,
    };
    v.qp.handle_bytes(&Segment::new(untagged(Opcode::READ_REQUEST, true, 1, 1, 0), &r.encode()).fpdu());
    let answer = segments(&output(&mut v.qp));
    assert_eq!(answer, [Segment::new(tagged(Opcode::READ_RESPONSE, true, Stag(77), u64::MAX), &[])]);
    // RFC 5041 section 5.2: STag and offset of a zero-length tagged message are not checked.
    v.qp.handle_bytes(&Segment::new(tagged(Opcode::WRITE, true, Stag(1), u64::MAX), &[]).fpdu());
    assert_eq!(v.qp.cause(), None);
}

#[test]
fn read_responses() {
    let response = |stag, offset, last, len: usize| {
        Segment::new(tagged(Opcode::READ_RESPONSE, last, stag, offset), &vec![1; len])
    };
    expect("another STag", |v| response(v.writable, BASE, true, 8), T::DDP_INVALID_STAG, None);
    expect("another offset", |v| response(v.sink, 1, true, 8), T::DDP_BOUNDS, None);
    expect("more than asked for", |v| response(v.sink, 0, true, 9), T::DDP_BOUNDS, None);
    expect("less than asked for", |v| response(v.sink, 0, true, 7), T::RDMAP_STREAM_CATASTROPHIC, None);
    expect("nothing", |v| response(v.sink, 0, true, 0), T::RDMAP_STREAM_CATASTROPHIC, None);

    let mut v = victim();
    v.qp.handle_bytes(&response(v.sink, 0, true, 8).fpdu());
    assert!(
        matches!(&completions(&mut v.qp)[..], [c] if matches!(&c.done, Done::Read { sink, .. } if *sink == [1; 8]))
    );
    v.qp.handle_bytes(&response(v.sink, 0, true, 8).fpdu());
    assert_eq!(local_code(&v.qp), Some(T::RDMAP_UNEXPECTED_OPCODE), "nothing was asked for");
}

#[test]
fn invalidation() {
    let send = |stag| {
        let model = Model::Untagged { invalidate: stag, queue: 0, msn: 1, offset: 0 };
        Segment::new(Header::new(Opcode::SEND_INVALIDATE, true, model), &[])
    };
    // RFC 5040 section 5.3.
    expect("no such STag", |_| send(Stag(1)), T::RDMAP_CANNOT_INVALIDATE, None);
    expect("the sink of a read", |v| send(v.sink), T::RDMAP_CANNOT_INVALIDATE, None);

    // Invalidated by the peer: the memory comes back with the message, and the STag is dead.
    let mut v = victim();
    let write = Segment::new(tagged(Opcode::WRITE, true, v.writable, BASE + 30), &[1, 2]);
    v.qp.handle_bytes(&write.fpdu());
    v.qp.handle_bytes(&send(v.writable).fpdu());
    let done = v.qp.poll_cq().unwrap().done;
    let Done::Recv { invalidated: Some(i), .. } = done else { panic!("{done:?}") };
    assert_eq!(i.stag, v.writable);
    assert!(matches!(i.region, Some(Region::Owned(m)) if m[..30] == [0xee; 30] && m[30..] == [1, 2]));
    assert!(v.qp.invalidate(v.writable).is_err());
    v.qp.handle_bytes(&write.fpdu());
    assert_eq!(local_code(&v.qp), Some(T::DDP_INVALID_STAG));

    // Invalidated by this end: the same.
    let mut v = victim();
    assert!(matches!(v.qp.invalidate(v.writable).unwrap().region, Some(Region::Owned(_))));
    v.qp.handle_bytes(&Segment::new(tagged(Opcode::WRITE, true, v.writable, BASE), &[1]).fpdu());
    assert_eq!(local_code(&v.qp), Some(T::DDP_INVALID_STAG));
}

#[test]
fn revoked_while_a_segment_is_under_way() {
    let mut qp = qp(&end(Role::Initiator, true));
    let stag = qp.register(Region::Owned(vec![0xee; 9000]), Access::WRITE, 0).unwrap();
    let fpdu = Segment::new(tagged(Opcode::WRITE, true, stag, 0), &[1; 9000]).fpdu();
    qp.handle_bytes(&Segment::new(tagged(Opcode::WRITE, true, Stag(0), 0), &[]).fpdu());
    qp.handle_bytes(&fpdu[..5000]);
    assert!(qp.stats().placed_bytes > 0 || qp.stats().copied_bytes > 0, "placement has begun");
    // RFC 5042 section 6.2.2: not an octet more.
    let Some(Region::Owned(memory)) = qp.invalidate(stag).unwrap().region else { panic!() };
    assert_eq!(memory[5000..], [0xee; 4000]);
    qp.handle_bytes(&fpdu[5000..]);
    assert_eq!(local_code(&qp), Some(T::DDP_INVALID_STAG));
}

#[test]
fn revoked_while_it_is_being_read() {
    let mut qp = Qp::new(
        &end(Role::Initiator, true),
        iwarp::Limits { emss: 1500, ..iwarp::Limits::default() },
        [9; 16],
    );
    let stag = qp.register(Region::Owned(vec![7; 1_000_000]), Access::READ, 0).unwrap();
    let r = ReadRequest {
        sink_stag: Stag(1),
        sink_offset: 50,
        size: 1_000_000,
        source_stag: stag,
        source_offset: 0,
    };
    qp.handle_bytes(&Segment::new(untagged(Opcode::READ_REQUEST, true, 1, 1, 0), &r.encode()).fpdu());
    assert!(qp.wants_transmit());
    qp.invalidate(stag).unwrap();
    let sent = output(&mut qp);
    let all = segments(&sent);
    let (last, data) = all.split_last().unwrap();
    let gone: usize = data.iter().map(|s| s.payload.len()).sum();
    assert!(gone > 0 && gone < 1_000_000);
    // RFC 5040 section 4.8: the request as far as it has not been answered.
    let t = Terminate::decode(&last.payload).unwrap();
    let left = ReadRequest {
        sink_offset: 50 + gone as u64,
        source_offset: gone as u64,
        size: 1_000_000 - gone as u32,
        ..r
    };
    let segment = Some((46, untagged(Opcode::READ_REQUEST, true, 1, 1, 0)));
    assert_eq!(t, Terminate { code: T::RDMAP_INVALID_STAG, segment, read_request: Some(left) });
}

#[test]
fn framing() {
    let good = Segment::new(untagged(Opcode::SEND, true, 0, 1, 0), b"hello").fpdu();
    for octet in 2..good.len() {
        let mut bad = good.clone();
        bad[octet] ^= 0x10;
        let mut v = victim();
        v.qp.handle_bytes(&bad);
        // RFC 5044 section 8, code 2: reported, nothing delivered, nothing copied back.
        assert_eq!(v.qp.cause(), Some(Cause::Local(Terminate::new(T::MPA_CRC))), "octet {octet}");
        assert_eq!(terminate_of(&mut v.qp), Some(Terminate::new(T::MPA_CRC)));
        assert!(completions(&mut v.qp).iter().all(|c| c.flushed));
    }
    // A ULPDU too short for its header.
    for ulpdu in [&[][..], &[0x41], &[0x41, 0x43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[0xc1; 13]] {
        let mut v = victim();
        v.qp.handle_bytes(&fpdu(ulpdu));
        assert_eq!(local_code(&v.qp), Some(T::RDMAP_STREAM_CATASTROPHIC), "{ulpdu:?}");
    }
    // Without CRCs the field is there and not looked at (RFC 5044 section 7.1.1, C).
    let mut qp = qp(&end(Role::Responder, false));
    qp.post_recv(WrId(1), vec![0; 8]).unwrap();
    let mut unsummed = good.clone();
    let at = unsummed.len() - 4;
    unsummed[at..].copy_from_slice(b"junk");
    qp.handle_bytes(&unsummed);
    assert!(matches!(&completions(&mut qp)[..], [c] if matches!(&c.done, Done::Recv { len: 5, .. })));
}

#[test]
fn markers_that_point_elsewhere() {
    let marked = Established { tx_markers: true, ..end(Role::Initiator, false) };
    let mut a = qp(&marked);
    a.post_send(SendWr { payload: Bytes::from(vec![1; 2000]).into(), ..SendWr::default() }).unwrap();
    let good = output(&mut a);
    for at in (0..good.len()).step_by(512) {
        let mut bad = good.clone();
        bad[at + 2] ^= 1;
        let mut b = qp(&Established { rx_markers: true, ..end(Role::Responder, false) });
        b.post_recv(WrId(0), vec![0; 2000]).unwrap();
        b.handle_bytes(&bad);
        // RFC 5044 section 8, code 3.
        assert_eq!(b.cause(), Some(Cause::Local(Terminate::new(T::MPA_MARKER))), "marker at {at}");
        // A responder that has seen no valid FPDU sends none (section 7.1.2 rule 4).
        assert_eq!((output(&mut b), b.status()), (vec![], Status::Closed));
    }
}

#[test]
fn terminate_from_the_peer() {
    let mut v = victim();
    v.qp.post_send(SendWr { id: WrId(4), payload: Bytes::from_static(b"x").into(), ..SendWr::default() })
        .unwrap();
    let t = Terminate::new(T::RDMAP_LOCAL_CATASTROPHIC);
    let segment = Segment::new(untagged(Opcode::TERMINATE, true, 2, 1, 0), &t.encode());
    v.qp.handle_bytes(&segment.fpdu());
    assert_eq!((v.qp.cause(), v.qp.status()), (Some(Cause::Remote(t)), Status::Closed));
    assert_eq!(output(&mut v.qp), [], "nothing is answered");
    let mut ids: Vec<u64> =
        completions(&mut v.qp).iter().inspect(|c| assert!(c.flushed)).map(|c| c.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
    // One that says nothing is itself an error.
    expect(
        "empty Terminate",
        |_| Segment::new(untagged(Opcode::TERMINATE, true, 2, 1, 0), &[]),
        T::RDMAP_STREAM_CATASTROPHIC,
        None,
    );
    expect(
        "endless Terminate",
        |_| Segment::new(untagged(Opcode::TERMINATE, true, 2, 1, 0), &[0; 53]),
        T::DDP_TOO_LONG,
        None,
    );
}

#[test]
fn terminate_by_the_consumer() {
    let mut v = victim();
    v.qp.terminate(T::RDMAP_LOCAL_CATASTROPHIC);
    let t = Terminate::new(T::RDMAP_LOCAL_CATASTROPHIC);
    assert_eq!(terminate_of(&mut v.qp), Some(t));
    assert_eq!(v.qp.cause(), Some(Cause::Local(t)));
    // The first cause stays.
    v.qp.terminate(T::RDMAP_UNSPECIFIED);
    v.qp.handle_lost();
    assert_eq!(v.qp.cause(), Some(Cause::Local(t)));
}

#[test]
fn failed_negotiation_is_said_in_a_terminate_message() {
    let mut qp = qp(&Established { fault: Some(T::MPA_INSUFFICIENT_IRD), ..end(Role::Initiator, true) });
    assert_eq!(terminate_of(&mut qp), Some(Terminate::new(T::MPA_INSUFFICIENT_IRD)));
    assert_eq!(qp.status(), Status::Closed);
}

#[test]
fn a_responder_speaks_second() {
    // RFC 5044 section 7.1.2 rule 4.
    let mut b = qp(&end(Role::Responder, true));
    b.post_send(SendWr { payload: Bytes::from_static(b"hi").into(), ..SendWr::default() }).unwrap();
    assert!(!b.wants_transmit());
    let mut a = qp(&end(Role::Initiator, true));
    a.post_recv(WrId(0), vec![0; 2]).unwrap();
    exchange(&mut a, &mut b);
    assert!(completions(&mut a).is_empty());

    for rtr in [Rtr::Write, Rtr::Read, Rtr::Send] {
        // RFC 6581: an RTR indication opens it, before anything the initiator has to say.
        let mut a = qp(&Established { rtr: Some(rtr), ..end(Role::Initiator, true) });
        let mut b = qp(&end(Role::Responder, true));
        b.post_send(SendWr { payload: Bytes::from_static(b"hi").into(), ..SendWr::default() }).unwrap();
        b.post_recv(WrId(7), vec![0; 2]).unwrap();
        b.post_recv(WrId(8), vec![0; 2]).unwrap();
        a.post_recv(WrId(0), vec![0; 2]).unwrap();
        a.post_send(SendWr { payload: Bytes::from_static(b"yo").into(), ..SendWr::default() }).unwrap();
        let first = segments(&output(&mut a));
        assert!(first[0].payload.is_empty() || first[0].header.control.opcode == Opcode::READ_REQUEST);
        assert_eq!(first[1].payload, b"yo");
        first.iter().for_each(|s| b.handle_bytes(&s.fpdu()));
        exchange(&mut a, &mut b);
        let got = completions(&mut a);
        assert!(
            got.iter().any(|c| matches!(&c.done, Done::Recv { buffer, .. } if buffer == b"hi")),
            "{rtr:?}"
        );
        assert_eq!(got.len(), 2, "an indication completes nothing: {got:?}");
        assert_eq!((a.cause(), b.cause()), (None, None));
    }
}

#[test]
fn endings() {
    // Between messages, with nothing outstanding: half closed, and what is posted is still sent.
    let mut b = qp(&end(Role::Initiator, true));
    b.post_recv(WrId(1), vec![0; 4]).unwrap();
    b.handle_eof();
    assert_eq!((b.status(), b.cause()), (Status::HalfClosed, None));
    assert!(completions(&mut b).iter().all(|c| c.flushed && c.id == WrId(1)));
    b.post_send(SendWr { payload: Bytes::from_static(b"last words").into(), ..SendWr::default() }).unwrap();
    let read = ReadWr { id: WrId(2), from: RemoteAddr { stag: Stag(1), offset: 0 }, len: 1, sink: vec![0] };
    assert_eq!(b.post_read(read).unwrap_err().reason, Refusal::Closed);
    b.close();
    assert_eq!(b.status(), Status::Closing);
    assert_eq!(segments(&output(&mut b)).len(), 1);
    assert_eq!((b.status(), b.cause()), (Status::Closed, Some(Cause::PeerClosed)));

    // In the middle of an FPDU, or of a read: lost.
    let mut b = qp(&end(Role::Initiator, true));
    b.handle_bytes(&[0, 40]);
    b.handle_eof();
    assert_eq!((b.status(), b.cause()), (Status::Closed, Some(Cause::Lost)));
    let mut v = victim();
    v.qp.handle_eof();
    assert_eq!(v.qp.cause(), Some(Cause::Lost));
    assert_eq!(completions(&mut v.qp).len(), 3);

    // A graceful close waits for what is posted.
    let (mut a, mut b) = (qp(&end(Role::Initiator, true)), qp(&end(Role::Responder, true)));
    let stag = b.register(Region::Shared(Bytes::from_static(b"data").into()), Access::READ, 0).unwrap();
    let from = RemoteAddr { stag, offset: 0 };
    a.post_read(ReadWr { id: WrId(3), from, len: 4, sink: vec![0; 4] }).unwrap();
    a.close();
    assert_eq!(a.status(), Status::Closing);
    exchange(&mut a, &mut b);
    assert_eq!((a.status(), a.cause()), (Status::Closed, Some(Cause::Closed)));
    assert!(completions(&mut a).iter().all(|c| !c.flushed));
}

#[test]
fn work_that_is_refused_comes_back() {
    let limits = iwarp::Limits { send_queue: 1, recv_queue: 1, stags: 1, ..iwarp::Limits::default() };
    let mut qp = Qp::new(&Established { ord: 0, ..end(Role::Initiator, true) }, limits, [0; 16]);
    let from = RemoteAddr { stag: Stag(1), offset: 0 };
    let read = |offset, len, sink: usize| ReadWr {
        id: WrId(2),
        from: RemoteAddr { stag: Stag(1), offset },
        len,
        sink: vec![0; sink],
    };
    let refused = qp.post_read(read(0, 1, 1)).unwrap_err();
    assert_eq!((refused.reason, refused.work.sink.len()), (Refusal::NoReads, 1));
    qp.set_ord(1);
    assert_eq!(qp.post_read(read(0, 2, 1)).unwrap_err().reason, Refusal::SinkTooSmall);
    assert_eq!(qp.post_read(read(u64::MAX, 1, 1)).unwrap_err().reason, Refusal::OffsetWrap);
    let payload = Bytes::from_static(b"x").into();
    let to = RemoteAddr { offset: u64::MAX, ..from };
    let write = WriteWr { id: WrId(1), payload, to, fence: false, unsignaled: false };
    assert_eq!(qp.post_write(write).unwrap_err().reason, Refusal::OffsetWrap);
    qp.post_send(SendWr::default()).unwrap();
    assert_eq!(qp.send_room(), 0);
    assert_eq!(qp.post_send(SendWr::default()).unwrap_err().reason, Refusal::Full);
    qp.post_recv(WrId(0), vec![]).unwrap();
    assert_eq!(qp.post_recv(WrId(0), vec![1, 2]).unwrap_err().work, [1, 2]);
    qp.register(Region::Owned(vec![1]), Access::WRITE, 0).unwrap();
    assert_eq!(qp.register(Region::Owned(vec![1]), Access::WRITE, 0).unwrap_err().reason, Refusal::Full);
    let shared = Region::Shared(Bytes::from_static(b"x").into());
    assert_eq!(qp.register(shared, Access::WRITE, 0).unwrap_err().reason, Refusal::Access);
    assert_eq!(
        qp.register(Region::Owned(vec![1]), Access::WRITE, u64::MAX).unwrap_err().reason,
        Refusal::OffsetWrap
    );
}
