//! What the integration tests share: pairs of queue pairs, streams taken apart, frames made by hand.
#![allow(dead_code)] // every test uses a part of it

use bytes::Bytes;
use iwarp::ddp::{Header, Model};
use iwarp::mpa::{Config, Established, Initiator, InitiatorEvent, Responder, ResponderEvent, Revision, Role};
use iwarp::rdmap::Opcode;
use iwarp::{Cause, Completion, Limits, QueuePair, Stag, Terminate, TerminateCode};
use std::io::IoSlice;
use std::time::Instant;

pub(crate) type Qp = QueuePair<Vec<u8>>;

/// An end of an established connection, as if negotiated.
pub(crate) fn end(role: Role, crc: bool) -> Established {
    Established {
        role,
        crc,
        tx_markers: false,
        rx_markers: false,
        revision: Revision::Two,
        ird: 4,
        ord: 4,
        peer_ird: None,
        peer_ord: None,
        rtr: None,
        fault: None,
        private_data: Bytes::new(),
    }
}

/// A queue pair on such an end.
pub(crate) fn qp(e: &Established) -> Qp {
    Qp::new(e, Limits::default(), [e.role as u8; 16])
}

/// The outcome of a startup between these two.
#[allow(clippy::disallowed_methods)]
pub(crate) fn negotiate(i: Config, r: Config) -> (Established, Established) {
    let now = Instant::now();
    let mut initiator = Initiator::new(i, Bytes::new(), now).unwrap();
    let mut responder = Responder::new(r, now);
    responder.handle_bytes(initiator.transmit()).unwrap();
    assert!(matches!(responder.poll_event(), Some(ResponderEvent::Request(_))));
    responder.accept(Bytes::new()).unwrap();
    initiator.handle_bytes(responder.transmit()).unwrap();
    responder.transmitted(responder.transmit().len());
    match (initiator.poll_event(), responder.poll_event()) {
        (Some(InitiatorEvent::Established(i)), Some(ResponderEvent::Established(r))) => (i, r),
        other => panic!("{other:?}"),
    }
}

/// Everything a queue pair has to send.
pub(crate) fn output(qp: &mut Qp) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut iov = [IoSlice::new(&[]); 7];
        let used = qp.transmit_slices(&mut iov);
        let n: usize = iov[..used].iter().map(|s| s.len()).sum();
        iov[..used].iter().for_each(|s| all.extend_from_slice(s));
        if used == 0 {
            return all;
        }
        qp.transmitted(n);
    }
}

/// Carries octets between two ends until neither has any.
pub(crate) fn exchange(a: &mut Qp, b: &mut Qp) {
    loop {
        let (to_b, to_a) = (output(a), output(b));
        if to_b.is_empty() && to_a.is_empty() {
            return;
        }
        b.handle_bytes(&to_b);
        a.handle_bytes(&to_a);
    }
}

pub(crate) fn completions(qp: &mut Qp) -> Vec<Completion<Vec<u8>>> {
    std::iter::from_fn(|| qp.poll_cq()).collect()
}

/// A DDP segment in an FPDU without markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    /// Whether the CRC field holds the CRC.
    pub(crate) crc_valid: bool,
    /// Whether the pad is zero, as RFC 5044 section 4.1 wants it from senders (siw does not always oblige).
    pub(crate) pad_zero: bool,
}

impl Segment {
    pub(crate) fn new(header: Header, payload: &[u8]) -> Self {
        Self { header, payload: payload.to_vec(), crc_valid: true, pad_zero: true }
    }

    /// The segment in an FPDU, with a CRC.
    pub(crate) fn fpdu(&self) -> Vec<u8> {
        fpdu(&[&self.header.to_bytes()[..], &self.payload].concat())
    }
}

/// An FPDU without markers, with a CRC.
pub(crate) fn fpdu(ulpdu: &[u8]) -> Vec<u8> {
    let mut f = (ulpdu.len() as u16).to_be_bytes().to_vec();
    f.extend_from_slice(ulpdu);
    f.resize(f.len().next_multiple_of(4), 0);
    let crc = crc32c::crc32c(&f);
    f.extend_from_slice(&crc.to_le_bytes());
    f
}

/// Takes a stream of whole FPDUs without markers apart.
pub(crate) fn segments(mut stream: &[u8]) -> Vec<Segment> {
    let mut all = Vec::new();
    while !stream.is_empty() {
        let ulpdu = usize::from(u16::from_be_bytes([stream[0], stream[1]]));
        let covered = (2 + ulpdu).next_multiple_of(4);
        let (frame, rest) = stream.split_at(covered + 4);
        let header = Header::decode(&frame[2..]).unwrap();
        let payload = frame[2 + header.encoded_len()..2 + ulpdu].to_vec();
        let crc_valid = crc32c::crc32c(&frame[..covered]).to_le_bytes() == frame[covered..];
        let pad_zero = frame[2 + ulpdu..covered].iter().all(|b| *b == 0);
        all.push(Segment { header, payload, crc_valid, pad_zero });
        stream = rest;
    }
    all
}

pub(crate) fn tagged(opcode: Opcode, last: bool, stag: Stag, offset: u64) -> Header {
    Header::new(opcode, last, Model::Tagged { stag, offset })
}

pub(crate) fn untagged(opcode: Opcode, last: bool, queue: u32, msn: u32, offset: u32) -> Header {
    Header::new(opcode, last, Model::Untagged { invalidate: Stag(0), queue, msn, offset })
}

/// The Terminate message among what a queue pair has to send, which must be its last.
pub(crate) fn terminate_of(qp: &mut Qp) -> Option<Terminate> {
    let all = segments(&output(qp));
    let last = all.last()?;
    assert!(all.iter().rev().skip(1).all(|s| s.header.control.opcode != Opcode::TERMINATE));
    assert_eq!(last.header, untagged(Opcode::TERMINATE, true, 2, 1, 0));
    Terminate::decode(&last.payload)
}

/// The error a queue pair ended with.
pub(crate) fn local_code(qp: &Qp) -> Option<TerminateCode> {
    match qp.cause() {
        Some(Cause::Local(t)) => Some(t.code),
        _ => None,
    }
}
