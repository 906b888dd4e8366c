//! A peer that says anything: nothing panics, nothing is touched that was not lent, and how the stream is cut makes no
//! difference.
//!
//! Input: a byte of options (bit 0 CRC, bit 1 markers, bit 2 responder, bits 3-4 what the rest is: 0 octets of the
//! stream, 1 octets of a startup and of a stream, 2-3 a script of segments to be framed properly), two chunk lengths, the
//! rest. A segment of the script is ten bytes: opcode, flags, STag choice, offset, length, MSN and queue as differences
//! from what is right.
#![no_main]

use bytes::Bytes;
use iwarp::ddp::{Header, Model};
use iwarp::mpa::{Config, Established, Initiator, Responder, ResponderEvent, Revision, Role};
use iwarp::rdmap::{Control, Opcode, ReadRequest};
use iwarp::{Access, Cause, Done, Limits, QueuePair, ReadWr, Region, RemoteAddr, SendWr, Stag, WrId};
use libfuzzer_sys::fuzz_target;
use std::io::IoSlice;
use std::time::Instant;

/// What fills memory the peer may write: it must never be read back by it.
const SECRET: u8 = 0xee;
const BASE: u64 = 0xffff_ffff_ffff_f000;

struct End {
    qp: QueuePair<Vec<Vec<u8>>>,
    stags: [Stag; 5],
}

fn end(crc: bool, markers: bool, role: Role) -> End {
    let e = Established {
        role,
        crc,
        tx_markers: false,
        rx_markers: markers,
        revision: Revision::Two,
        ird: 2,
        ord: 2,
        peer_ird: None,
        peer_ord: None,
        rtr: None,
        fault: None,
        private_data: Bytes::new(),
    };
    let mut qp = QueuePair::new(&e, Limits { emss: 512, ..Limits::default() }, [7; 16]);
    let pieces = |n: usize| vec![vec![SECRET; n / 4], vec![SECRET; n - n / 4]];
    let writable = qp.register(Region::Owned(pieces(3000)), Access::WRITE, BASE).unwrap();
    let data = Region::Shared(Bytes::from(vec![0x5a; 3000]).into());
    let readable = qp.register(data, Access::READ.keep(), BASE).unwrap();
    let hidden = qp.register(Region::Owned(pieces(3000)), Access::NONE, 0).unwrap();
    let window = qp.bind(hidden, 1000, 1000, Access::WRITE, BASE).unwrap();
    (0..3).for_each(|n| qp.post_recv(WrId(n), pieces(4000)).unwrap());
    let from = RemoteAddr { stag: Stag(1), offset: 2 };
    qp.post_read(ReadWr { id: WrId(9), from, len: 3000, sink: pieces(3000) }).unwrap();
    qp.post_send(SendWr { payload: Bytes::from_static(b"hello").into(), ..SendWr::default() }).unwrap();
    // An initiator's request tells the STag of its sink.
    let request = output(&mut qp);
    let sink = request.get(20..48).and_then(ReadRequest::decode).map_or(Stag(0), |r| r.sink_stag);
    End { qp, stags: [writable, readable, hidden, window, sink] }
}

fn output(qp: &mut QueuePair<Vec<Vec<u8>>>) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut iov = [IoSlice::new(&[]); 16];
        let used = qp.transmit_slices(&mut iov);
        let before = all.len();
        iov[..used].iter().for_each(|s| all.extend_from_slice(s));
        let n = all.len() - before;
        if n == 0 {
            return all;
        }
        qp.transmitted(n);
    }
}

/// Frames a segment as it should be, at this position of the stream.
fn frame(stream: &mut Vec<u8>, ulpdu: &[u8], markers: bool) {
    let start = stream.len();
    let mut body = (ulpdu.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(ulpdu);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut fpdu = start;
    let mut marker = |stream: &mut Vec<u8>| {
        if markers && stream.len().is_multiple_of(512) {
            fpdu += if stream.len() == fpdu { 4 } else { 0 };
            let back = (stream.len().saturating_sub(fpdu)) as u16;
            stream.extend_from_slice(&[0, 0, (back >> 8) as u8, back as u8]);
        }
    };
    for word in body.chunks(4) {
        marker(stream);
        stream.extend_from_slice(word);
    }
    marker(stream);
    let crc = crc32c::crc32c(&stream[start..]);
    stream.extend_from_slice(&crc.to_le_bytes());
}

/// The stream a script means.
fn script(mut script: &[u8], stags: &[Stag; 5], markers: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut msn = [1u32; 3];
    while let [opcode, flags, choice, o1, o2, l1, l2, m, q, more, rest @ ..] = script {
        script = rest;
        let stag = stags.get(usize::from(choice & 7)).copied().unwrap_or(Stag(u32::from(*choice)));
        let (offset, len) =
            (u16::from_be_bytes([*o1, *o2]), usize::from(u16::from_be_bytes([*l1, *l2])) % 5000);
        let opcode = Opcode(opcode & 15);
        let last = flags & 1 == 0;
        let natural = opcode.queue();
        let mut payload = vec![0x11; len];
        if natural == Some(1) && flags & 0x10 == 0 {
            let source_offset = BASE.wrapping_add(u64::from(offset));
            let (sink_stag, sink_offset) = (Stag(5), u64::from(*more) << 56);
            let r =
                ReadRequest { sink_stag, sink_offset, size: len as u32, source_stag: stag, source_offset };
            payload = r.encode().to_vec();
        }
        let tagged = natural.is_none() != (flags & 2 != 0);
        let model = if tagged {
            let base = if opcode == Opcode::READ_RESPONSE { 0 } else { BASE };
            Model::Tagged {
                stag,
                offset: base.wrapping_add(u64::from(offset)).wrapping_sub(u64::from(*more)),
            }
        } else {
            let queue = natural.unwrap_or(0).wrapping_add(u32::from(*q));
            let number = msn.get_mut(queue as usize % 3).unwrap();
            let this = number.wrapping_add(u32::from(*m));
            if last {
                *number = number.wrapping_add(1);
            }
            let offset = if flags & 4 == 0 { 0 } else { u32::from(offset) };
            Model::Untagged { invalidate: stag, queue, msn: this, offset }
        };
        let version = if flags & 0x80 == 0 { 1 } else { *more };
        let control = Control { version: if flags & 0x40 == 0 { 1 } else { *more }, opcode };
        let header = Header { last, version, control, model };
        frame(&mut stream, &[&header.to_bytes()[..], &payload].concat(), markers);
    }
    stream
}

/// What came of a stream: the cause, what completed, and what was sent.
type Outcome = (Option<Cause>, Vec<String>, Vec<u8>);

fn run(crc: bool, markers: bool, role: Role, stream: &[u8], cuts: [usize; 2]) -> Outcome {
    let End { mut qp, .. } = end(crc, markers, role);
    let mut done = Vec::new();
    let mut cuts = cuts.into_iter().cycle();
    let mut rest = stream;
    while !rest.is_empty() {
        let n = cuts.next().unwrap_or(1).clamp(1, rest.len());
        let mut piece = &rest[..n];
        rest = &rest[n..];
        while !piece.is_empty() {
            let taken = qp.recv_slots().fill_from(piece);
            assert!(taken > 0, "there is always room");
            qp.received(taken);
            piece = &piece[taken..];
        }
        while let Some(c) = qp.poll_cq() {
            done.push(match &c.done {
                Done::Recv { buffer, len, invalidated, .. } => {
                    assert!(c.flushed || buffer.concat()[*len..].iter().all(|b| *b == SECRET));
                    let invalidated = invalidated.as_ref().map(|i| i.stag);
                    format!("{:?} {} recv {len} {invalidated:?}", c.id, c.flushed)
                }
                other => format!("{:?} {} {}", c.id, c.flushed, matches!(other, Done::Read { .. })),
            });
        }
        assert!(done.len() <= 5, "no more than was posted");
    }
    // Not in between: what this end has sent decides what the peer may send next.
    let sent = output(&mut qp);
    // Of the hidden region, only the window may have changed. (It may be gone: regions come in the order of their
    // registration.)
    let regions = qp.reclaim();
    let hidden = regions.iter().rev().find_map(|r| match r {
        Region::Owned(m) => Some(m.concat()),
        Region::Shared(_) => None,
    });
    let hidden = hidden.expect("nobody may invalidate it");
    assert!(hidden[..1000].iter().chain(&hidden[2000..]).all(|b| *b == SECRET));
    (qp.cause(), done, sent)
}

fuzz_target!(|data: &[u8]| {
    let [options, a, b, rest @ ..] = data else { return };
    let (crc, markers) = (options & 1 != 0, options & 2 != 0);
    let role = if options & 4 != 0 { Role::Responder } else { Role::Initiator };
    let e = end(crc, markers, role);
    let stream = match options >> 3 & 3 {
        0 => rest.to_vec(),
        1 => {
            let now = Instant::now();
            let config = Config { peer_to_peer: a & 1 != 0, ..Config::default() };
            let mut initiator = Initiator::new(config.clone(), Bytes::new(), now).unwrap();
            let _ = initiator.handle_bytes(rest);
            if let Some(iwarp::mpa::InitiatorEvent::Established(e)) = initiator.poll_event() {
                let _ = output(&mut QueuePair::new(&e, Limits::default(), [0; 16]));
            }
            let mut responder = Responder::new(config, now);
            match responder.handle_bytes(rest) {
                Ok(used) if matches!(responder.poll_event(), Some(ResponderEvent::Request(_))) => {
                    responder.accept(Bytes::new()).unwrap();
                    rest[used..].to_vec()
                }
                _ => return,
            }
        }
        _ => script(rest, &e.stags, markers),
    };
    let whole = run(crc, markers, role, &stream, [usize::MAX, usize::MAX]);
    let cut = run(crc, markers, role, &stream, [usize::from(*a) * 16 + 1, usize::from(*b) + 1]);
    assert_eq!((whole.0, &whole.1), (cut.0, &cut.1));
    assert_eq!(whole.2, cut.2);

    // Nothing the peer may only write comes back to it, whatever it asks.
    let mut out = &whole.2[..];
    while let Some(length) = out.first_chunk::<2>().map(|l| usize::from(u16::from_be_bytes(*l))) {
        let ulpdu = &out[2..2 + length];
        let header = Header::decode(ulpdu).unwrap();
        if header.control.opcode == Opcode::READ_RESPONSE {
            assert!(ulpdu[header.encoded_len()..].iter().all(|b| *b == 0x5a));
        }
        out = &out[(2 + length).next_multiple_of(4) + 4..];
    }
});
