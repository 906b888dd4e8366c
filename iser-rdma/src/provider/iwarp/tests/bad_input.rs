//! A peer that is a queue pair driven by hand, and does what it must not.
//!
//! What must not harm, and the tests of it, here unless another place is named:
//!
//! | input | tests |
//! |---|---|
//! | STag of another connection | `an_stag_of_another_connection_names_nothing_here`; one that is guessed: `iwarp/src/stag/tests.rs`: `the_tag_of_a_place_has_to_be_right` |
//! | STag of the other direction; RDMA Read of a tag that may only be written | `an_stag_of_the_other_direction_ends_the_stream` |
//! | offsets beyond the advertised length | `access_beyond_what_was_advertised_ends_the_stream`, and over `mem` `access_beyond_what_was_advertised_is_refused` |
//! | short login messages | `login/tests.rs`: `messages_that_are_no_login_end_the_link` |
//! | Hello that was not negotiated | `core/tests/hello.rs`: `hello_where_it_was_declined_is_a_protocol_error`, `a_second_hello_is_a_protocol_error` |
//! | more unexpected PDUs than declared | `core/tests/flow.rs`: `more_unexpected_pdus_than_declared_end_the_connection`, `a_flood_of_commands_ends_the_connection` |
//! | invalid opcode or version | `core/tests/bad_input.rs`: `a_bad_iser_header_ends_the_connection`; of DDP and RDMAP: `iwarp/tests/errors.rs` |
//! | MPA with a wrong CRC or wrong markers | `a_wrong_crc_ends_the_stream`; `iwarp/tests/errors.rs`: `framing`, `markers_that_point_elsewhere` |
//! | a peer that never posts receives | `a_peer_that_posts_no_receives_ends_the_stream`; `core/tests/end.rs`: `a_peer_that_posts_no_receives_is_given_up` |

use super::both::{Ends, config, in_bytes, keys, pattern, poll};
use super::pipe::{Pipe, Wire, pipe};
use crate::provider::iwarp::{Stream, StreamLoginLink};
use crate::wire::{ControlHeader, IserHeader};
use crate::{Quirks, RemoteBuf};
use ::iwarp::mpa::{Config, Responder, ResponderEvent};
use ::iwarp::{Completion, Done, Gather, Limits, QueuePair, ReadWr, RemoteAddr, SendWr, WriteWr};
use bytes::Bytes;
use datamover::{Cause, Control, Datamover, Drive, Event, IoBuf, LoginLink, Resources, Role, TaskBuffers};
use iscsi_pdu::{Itt, ScsiCommand};
use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// The target's end by hand.
struct Peer {
    stream: Pipe,
    qp: QueuePair<Vec<u8>>,
}

impl Peer {
    fn turn(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut iov = [IoSlice::new(&[]); 64];
            let n = self.qp.transmit_slices(&mut iov);
            if n == 0 {
                break;
            }
            let Poll::Ready(Ok(n)) = self.stream.poll_write(&mut cx, &iov[..n]) else { break };
            self.qp.transmitted(n);
        }
        while let Poll::Ready(Ok(n)) = self.stream.poll_read(&mut cx, &mut self.qp.recv_slots()) {
            if n == 0 {
                self.qp.handle_eof();
                break;
            }
            self.qp.received(n);
        }
    }

    fn message(&mut self) -> Vec<u8> {
        loop {
            match self.qp.poll_cq() {
                Some(Completion { done: Done::Recv { buffer, len, .. }, flushed: false, .. }) => {
                    return buffer[..len].to_vec();
                }
                Some(_) => {}
                None => panic!("no message"),
            }
        }
    }
}

/// An initiator of ours with a read and a write under way, and what it advertised.
struct Attacked {
    dm: Box<dyn Datamover>,
    peer: Peer,
    read: RemoteBuf,
    write: RemoteBuf,
    now: Instant,
    wire: Wire,
}

fn initiator(receives: usize, seed: u8) -> (Box<dyn Datamover>, Peer, Wire, Instant) {
    let (a, mut b, wire) = pipe(0, 0);
    let now = Instant::now();
    let mut link = Box::new(StreamLoginLink::new(a, Role::Initiator, config(seed), Quirks::default()));
    link.notice_key_values(&keys());
    link.allocate_connection_resources(&Resources::default()).unwrap();
    let mut dm = link.enable_datamover(None);
    poll(&mut *dm, now);
    let mut responder = Responder::new(Config { markers: false, ..Config::default() }, now);
    let mut cx = Context::from_waker(Waker::noop());
    let mut buf = [0u8; 1024];
    let Poll::Ready(Ok(n)) = b.poll_read(&mut cx, &mut [IoSliceMut::new(&mut buf)]) else {
        panic!("no request")
    };
    responder.handle_bytes(&buf[..n]).unwrap();
    assert!(matches!(responder.poll_event(), Some(ResponderEvent::Request(_))));
    responder.accept(Bytes::new()).unwrap();
    let reply = responder.transmit().to_vec();
    assert!(matches!(b.poll_write(&mut cx, &[IoSlice::new(&reply)]), Poll::Ready(Ok(n)) if n == reply.len()));
    responder.transmitted(reply.len());
    let Some(ResponderEvent::Established(e)) = responder.poll_event() else { panic!("not established") };
    let mut qp = QueuePair::new(&e, Limits::default(), [9; 16]);
    for _ in 0..receives {
        qp.post_recv(Default::default(), vec![0; 16384]).unwrap();
    }
    poll(&mut *dm, now);
    (dm, Peer { stream: b, qp }, wire, now)
}

fn command(read: bool, itt: u32) -> Control {
    let pdu = ScsiCommand {
        final_pdu: true,
        read,
        write: !read,
        itt: Itt(itt),
        expected_data_transfer_length: 512,
        data: Bytes::new(),
        ..Default::default()
    };
    // The buffer is the first half of a larger one.
    let mut buf = IoBuf::zeroed(1024);
    buf.truncate(512);
    let buffers = match read {
        true => TaskBuffers { r#in: Some(buf.into()), out: None },
        false => TaskBuffers { out: Some(pattern(512).into()), r#in: None },
    };
    Control { pdu: pdu.into(), buffers, unsolicited: 0 }
}

fn attacked() -> Attacked {
    attacked_with(1)
}

/// With a seed of its own, as every connection has one: it draws other STags.
fn attacked_with(seed: u8) -> Attacked {
    let (mut dm, mut peer, wire, now) = initiator(16, seed);
    let header = |message: &[u8]| match IserHeader::decode(message).unwrap().0 {
        IserHeader::Control(header) => header,
        other => panic!("{other:?}"),
    };
    dm.send_control(command(true, 1)).unwrap();
    dm.send_control(command(false, 2)).unwrap();
    poll(&mut *dm, now);
    peer.turn();
    let read = header(&peer.message()).read.unwrap();
    let write = header(&peer.message()).write.unwrap();
    Attacked { dm, peer, read, write, now, wire }
}

impl Attacked {
    /// The connection ends, and the memory is as it was, beyond the buffer too.
    fn ends_untouched(mut self) -> Cause {
        for _ in 0..10 {
            self.peer.turn();
            poll(&mut *self.dm, self.now);
        }
        let mut events: Vec<_> = std::iter::from_fn(|| self.dm.poll_event()).collect();
        let Some(Event::Terminated(end)) = events.pop() else { panic!("goes on: {events:?}") };
        assert!(events.is_empty(), "{events:?}");
        assert_eq!(end.reclaimed.len(), 2, "both tasks' buffers");
        for (_, task) in end.reclaimed {
            if let Some(list) = task.buffers.r#in {
                let mut buf = list.into_parts().next().unwrap();
                buf.set_len(1024);
                assert!(buf.iter().all(|b| *b == 0), "memory was touched");
            }
        }
        end.cause
    }

    fn write(&mut self, to: RemoteBuf, len: usize) {
        let to = RemoteAddr { stag: ::iwarp::Stag(to.stag.0), offset: to.offset };
        let payload = Gather::from(Bytes::from(vec![0xee; len]));
        self.peer
            .qp
            .post_write(WriteWr { id: Default::default(), payload, to, fence: false, unsignaled: true })
            .unwrap();
    }

    fn read(&mut self, from: RemoteBuf, len: u32) {
        let from = RemoteAddr { stag: ::iwarp::Stag(from.stag.0), offset: from.offset };
        let sink = vec![0; len as usize];
        self.peer.qp.post_read(ReadWr { id: Default::default(), from, len, sink }).unwrap();
    }
}

fn is_protocol(cause: &Cause) -> bool {
    matches!(cause, Cause::Protocol(_))
}

#[test]
fn access_beyond_what_was_advertised_ends_the_stream() {
    let beyond = |buf: RemoteBuf, by: u64| buf.advance(by).unwrap();
    // Beyond the end and before the beginning of the sink.
    let mut a = attacked();
    a.write(beyond(a.read, 1), 512);
    assert!(is_protocol(&a.ends_untouched()));
    let mut a = attacked();
    a.write(RemoteBuf { offset: a.read.offset - 1, ..a.read }, 2);
    assert!(is_protocol(&a.ends_untouched()));
    let mut a = attacked();
    a.write(RemoteBuf { offset: u64::MAX - 8, ..a.read }, 8);
    assert!(is_protocol(&a.ends_untouched()));
    // A Read beyond the end of the source.
    let mut a = attacked();
    a.read(a.write, 513);
    assert!(is_protocol(&a.ends_untouched()));
    // STags that name nothing anywhere, the second one guessed but for a bit.
    for wrong in [0x0101_0000, 1] {
        let mut a = attacked();
        a.write(RemoteBuf { stag: crate::Stag(a.read.stag.0 ^ wrong), ..a.read }, 8);
        assert!(is_protocol(&a.ends_untouched()));
    }
}

#[test]
fn an_stag_of_the_other_direction_ends_the_stream() {
    // What the initiator writes to the disk may only be read, what it reads may only be written.
    let mut a = attacked();
    a.write(a.write, 8);
    assert!(is_protocol(&a.ends_untouched()));
    let mut a = attacked();
    a.read(a.read, 8);
    assert!(is_protocol(&a.ends_untouched()));
}

#[test]
fn an_stag_of_another_connection_names_nothing_here() {
    type Attack = fn(&mut Attacked, &Attacked);
    let attacks: [Attack; 3] = [
        |a, other| a.write(other.read, 8),
        |a, other| a.read(other.write, 8),
        |a, other| {
            let payload =
                Gather::from(Bytes::copy_from_slice(&IserHeader::Control(ControlHeader::default()).encode()));
            let invalidate = Some(::iwarp::Stag(other.read.stag.0));
            a.peer.qp.post_send(SendWr { payload, invalidate, ..SendWr::default() }).unwrap();
        },
    ];
    for attack in attacks {
        let (mut a, mut other) = (attacked_with(1), attacked_with(2));
        assert!(![a.read.stag, a.write.stag].contains(&other.read.stag));
        assert!(![a.read.stag, a.write.stag].contains(&other.write.stag));
        attack(&mut a, &other);
        assert!(is_protocol(&a.ends_untouched()));
        // The other goes on: its own peer still writes where it was told to.
        other.write(other.read, 512);
        for _ in 0..10 {
            other.peer.turn();
            poll(&mut *other.dm, other.now);
        }
        assert!(other.dm.poll_event().is_none(), "the other connection heard of it");
    }
}

#[test]
fn invalidating_another_stag_ends_the_stream() {
    let mut a = attacked();
    let stag = ::iwarp::Stag(a.read.stag.0 ^ 0x7777);
    let header = IserHeader::Control(ControlHeader::default()).encode();
    let payload = Gather::from(Bytes::copy_from_slice(&header));
    a.peer.qp.post_send(SendWr { payload, invalidate: Some(stag), ..SendWr::default() }).unwrap();
    assert!(is_protocol(&a.ends_untouched()));
}

#[test]
fn a_message_longer_than_declared_ends_the_stream() {
    let mut a = attacked();
    let payload = Gather::from(Bytes::from(vec![0x10; 20_000]));
    a.peer.qp.post_send(SendWr { payload, ..SendWr::default() }).unwrap();
    assert!(is_protocol(&a.ends_untouched()));
}

#[test]
fn more_messages_than_there_are_buffers_for_wait_for_their_turn() {
    let mut a = attacked();
    // The session hears of none of them before the turn ends.
    let message = {
        let header = IserHeader::Control(ControlHeader::default()).encode();
        let nop = iscsi_pdu::NopIn { itt: Itt(99), data: Bytes::new(), ..Default::default() };
        let pdu = iscsi_pdu::Pdu::from(nop).to_bytes().unwrap();
        Bytes::from([&header[..], &pdu].concat())
    };
    for _ in 0..200 {
        let payload = Gather::from(message.clone());
        a.peer.qp.post_send(SendWr { payload, unsignaled: true, ..SendWr::default() }).unwrap();
    }
    for _ in 0..10 {
        a.peer.turn();
        poll(&mut *a.dm, a.now);
    }
    // Receive buffers are posted again as messages are taken out, so a flood within a turn's budget is delivered;
    // nothing grows, and nothing breaks.
    let told = std::iter::from_fn(|| a.dm.poll_event()).count();
    assert!(told > 0);
}

#[test]
fn a_peer_that_posts_no_receives_ends_the_stream() {
    let (mut dm, mut peer, _wire, now) = initiator(0, 1);
    dm.send_control(command(true, 1)).unwrap();
    for _ in 0..10 {
        poll(&mut *dm, now);
        peer.turn();
    }
    let Some(Event::Terminated(end)) = dm.poll_event() else { panic!("goes on") };
    assert!(is_protocol(&end.cause), "{:?}", end.cause);
    assert_eq!(end.reclaimed.len(), 1);
}

#[test]
fn a_wrong_crc_ends_the_stream() {
    let (mut dm, mut peer, wire, now) = initiator(4, 1);
    dm.send_control(command(true, 1)).unwrap();
    poll(&mut *dm, now);
    peer.turn();
    peer.message();
    // One bit of the second FPDU is flipped on its way: the peer finds the CRC wrong and says so.
    wire.spoil(wire.carried(0).len() + 30);
    dm.send_control(command(true, 2)).unwrap();
    for _ in 0..10 {
        poll(&mut *dm, now);
        peer.turn();
    }
    let Some(Event::Terminated(end)) = dm.poll_event() else { panic!("goes on") };
    assert!(matches!(end.cause, Cause::Protocol(rule) if rule.contains("CRC")), "{:?}", end.cause);
    assert_eq!(end.reclaimed.len(), 2);
}

#[test]
fn octets_that_are_no_fpdu_end_the_stream() {
    // Markers where none were agreed on, or plain noise: a CRC that does not match.
    let a = attacked();
    a.wire.inject(1, &[0, 0, 0, 0, 0x00, 0x2e, 0x41, 0x43]);
    a.wire.inject(1, &[0x5a; 400]);
    assert!(is_protocol(&a.ends_untouched()));
}

#[test]
fn a_startup_that_is_none_ends_the_link() {
    for noise in [&b"GET / HTTP/1.1\r\n\r\nxxxxxxxxx"[..], &[0u8; 64], b"MPA ID Req Frame\xff\xff\xff\xff"] {
        let (_a, b, wire) = pipe(0, 0);
        let mut link = Box::new(StreamLoginLink::new(b, Role::Target, config(1), Quirks::default()));
        link.notice_key_values(&keys());
        link.allocate_connection_resources(&Resources::default()).unwrap();
        let mut dm = link.enable_datamover(None);
        let now = Instant::now();
        wire.inject(0, noise);
        poll(&mut *dm, now);
        let Some(Event::Terminated(end)) = dm.poll_event() else { panic!("goes on after {noise:?}") };
        assert!(matches!(end.cause, Cause::Transport(_)), "{:?}", end.cause);
    }
}

#[test]
fn noise_in_full_feature_phase_ends_both_sides() {
    let Ends { mut ini, mut tgt, wire, now } = in_bytes(0, 0);
    // A length of 65535, and as many octets: the CRC is wrong.
    wire.inject(0, &[0xff; 70_000]);
    for _ in 0..20 {
        poll(&mut *tgt, now);
        poll(&mut *ini, now);
    }
    for dm in [&mut ini, &mut tgt] {
        let Some(Event::Terminated(end)) = dm.poll_event() else { panic!("goes on") };
        // The responder may not send anything before it has received a valid FPDU (RFC 5044 section 7.1.2 rule 4).
        assert!(is_protocol(&end.cause) || end.cause == Cause::PeerClosed, "{:?}", end.cause);
        assert_eq!(Drive::poll_timeout(&**dm), None);
    }
}
