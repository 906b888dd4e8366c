//! The login phase on a byte stream.

mod common;

use bytes::Bytes;
use common::{Cut, Duplex, duplex, pattern, wire};
use datamover::{Budget, Drive, LinkError, LoginLink, RdmaOffer, Resources, Role, SlabPool};
use iscsi_pdu::{
    DecodeErrorKind, Digests, LoginRequest, LoginResponse, NopIn, NopOut, Opcode, Pdu, ScsiCommand, Stage,
};
use iscsi_tcp::{Stream, TcpLoginLink};
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the value is not looked at")]
fn drive(link: &mut dyn Drive) {
    let _ = link.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(Instant::now()));
}

const CUT: Cut = Cut { most: 1 << 20, seed: 0, room: 1 << 20 };

/// A link, and the other end of its stream.
fn link(role: Role) -> (TcpLoginLink<Duplex>, Duplex) {
    let (ours, theirs) = duplex(CUT);
    (TcpLoginLink::new(ours, role, Arc::new(SlabPool::default())), theirs)
}

fn write(stream: &mut Duplex, bytes: &[u8]) {
    let written = stream.poll_write(&mut Context::from_waker(Waker::noop()), &[IoSlice::new(bytes)]);
    assert!(matches!(written, Poll::Ready(Ok(n)) if n == bytes.len()));
}

fn read(stream: &mut Duplex) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 17];
    match stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut [IoSliceMut::new(&mut bytes)]) {
        Poll::Ready(Ok(n)) => bytes.truncate(n),
        _ => bytes.clear(),
    }
    bytes
}

fn request(data: Bytes) -> LoginRequest {
    LoginRequest { data, ..LoginRequest::default() }
}

fn final_response() -> LoginResponse {
    LoginResponse {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        ..LoginResponse::default()
    }
}

fn received(role: Role, bytes: &[u8]) -> Option<Result<Pdu, LinkError>> {
    let (mut link, mut peer) = link(role);
    write(&mut peer, bytes);
    drive(&mut link);
    link.poll_login()
}

/// RFC 7143 section 4.2.4: anything but a Login Request ends a connection that has not begun its login.
#[test]
fn no_pdu_but_login_pdus() {
    let commands: [Pdu; 3] = [
        ScsiCommand { final_pdu: true, ..ScsiCommand::default() }.into(),
        NopOut { itt: iscsi_pdu::Itt(1), ..NopOut::default() }.into(),
        LoginResponse::default().into(),
    ];
    for pdu in commands {
        let got = received(Role::Target, &wire(&pdu, Digests::NONE));
        assert_eq!(got, Some(Err(LinkError::NotLogin(pdu.opcode()))));
    }
    for pdu in [Pdu::from(NopIn::default()), Pdu::from(LoginRequest::default())] {
        let got = received(Role::Initiator, &wire(&pdu, Digests::NONE));
        assert_eq!(got, Some(Err(LinkError::NotLogin(pdu.opcode()))));
    }
    // Another protocol altogether, whatever its first bytes are.
    for first in 0..=255u8 {
        let mut bytes = [0x55; 48];
        bytes[0] = first;
        let got = received(Role::Target, &bytes);
        assert!(matches!(got, Some(Err(_))), "{first:#x}: {got:?}");
    }
    let got = received(Role::Target, b"GET / HTTP/1.1\r\nHost: storage.example.org\r\nUser-Agent: x\r\n\r\n");
    assert!(matches!(got, Some(Err(LinkError::NotLogin(_)))), "{got:?}");
}

#[test]
fn no_more_than_8_kib() {
    for len in [8192usize, 8193, 0x00ff_ffff] {
        let mut bytes = wire(&request(Bytes::new()).into(), Digests::NONE).to_vec();
        bytes[5..8].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        bytes.extend(vec![b'a'; 8192]);
        let got = received(Role::Target, &bytes);
        match len {
            8192 => assert!(matches!(got, Some(Ok(Pdu::LoginRequest(r))) if r.data.len() == 8192)),
            _ => assert!(matches!(got, Some(Err(LinkError::Protocol(_)))), "{got:?}"),
        }
    }
}

#[test]
fn malformed_login_pdus() {
    let mut bytes = wire(&request(Bytes::new()).into(), Digests::NONE).to_vec();
    bytes[1] = 0x08;
    assert!(matches!(received(Role::Target, &bytes), Some(Err(LinkError::Format(_)))), "reserved stage");
    let mut bytes = wire(&request(Bytes::new()).into(), Digests::NONE).to_vec();
    bytes[4] = 1;
    let got = received(Role::Target, &bytes);
    assert!(
        matches!(got, Some(Err(LinkError::Format(e))) if matches!(e.kind, DecodeErrorKind::Rule(_))),
        "{got:?}"
    );
}

/// A target that has begun the login still answers after bad input, and only then closes (section 4.2.4).
#[test]
fn the_refusal_of_bad_input_is_sent() {
    let (mut link, mut peer) = link(Role::Target);
    let bytes = [
        wire(&request(pattern(1, 5)).into(), Digests::NONE),
        wire(&NopOut { itt: iscsi_pdu::Itt(1), ..NopOut::default() }.into(), Digests::NONE),
    ];
    write(&mut peer, &bytes.concat());
    drive(&mut link);
    assert_eq!(link.poll_login(), Some(Ok(request(pattern(1, 5)).into())));
    assert_eq!(link.poll_login(), Some(Err(LinkError::NotLogin(Opcode::NopOut))));
    let refusal = LoginResponse { status_class: 2, status_detail: 0x0b, ..LoginResponse::default() };
    link.send_login(refusal.clone().into());
    assert!(!link.is_flushed());
    drive(&mut link);
    assert!(link.is_flushed());
    assert_eq!(read(&mut peer), wire(&refusal.into(), Digests::NONE));
    assert_eq!(link.poll_login(), None);
}

#[test]
fn pdus_in_every_cutting() {
    let pdus: Vec<Pdu> = (0..4).map(|n| request(pattern(n, n as usize * 1000 + 1)).into()).collect();
    let bytes: Vec<u8> = pdus.iter().flat_map(|p| wire(p, Digests::NONE).to_vec()).collect();
    for step in [1, 7, 48, 1000, bytes.len()] {
        let (mut link, mut peer) = link(Role::Target);
        let mut got = Vec::new();
        for piece in bytes.chunks(step) {
            write(&mut peer, piece);
            drive(&mut link);
            got.extend(std::iter::from_fn(|| link.poll_login()));
        }
        assert_eq!(got, pdus.iter().cloned().map(Ok).collect::<Vec<_>>());
    }
}

/// The peer goes away in the middle of a PDU: what was whole comes first, then the end, once.
#[test]
fn the_end_comes_after_the_last_pdu() {
    let (mut link, mut peer) = link(Role::Initiator);
    let refusal = LoginResponse { status_class: 3, ..LoginResponse::default() };
    let bytes = wire(&refusal.clone().into(), Digests::NONE);
    write(&mut peer, &[&bytes[..], &bytes[..20]].concat());
    drop(peer);
    drive(&mut link);
    assert_eq!(link.poll_login(), Some(Ok(refusal.into())));
    assert_eq!(link.poll_login(), Some(Err(LinkError::Closed)));
    assert_eq!(link.poll_login(), None);
    assert_eq!((link.rdma_offer(), link.role()), (RdmaOffer::Never, Role::Initiator));
}

/// What follows the final response is not the login's to read: plain iSCSI with digests, or MPA.
#[test]
fn bytes_behind_the_login_are_kept() {
    let (mut link, mut peer) = link(Role::Initiator);
    let rest = pattern(7, 100);
    write(&mut peer, &[&wire(&final_response().into(), Digests::NONE)[..], &rest[..]].concat());
    drive(&mut link);
    assert_eq!(link.poll_login(), Some(Ok(final_response().into())));
    assert_eq!(link.poll_login(), None);
    link.send_login(request(Bytes::new()).into());
    let resources = Resources { commands: 5, ..Resources::default() };
    link.allocate_connection_resources(&resources).unwrap();
    let parts = link.into_parts();
    assert_eq!((parts.unread, parts.unsent.len()), (rest, 48));
    assert!(parts.stream.is_some());
    assert_eq!(parts.resources, Some(resources));
}

/// A peer that sends without end before its login is over costs two PDUs of memory.
#[test]
fn reading_ahead_is_bounded() {
    let (mut link, mut peer) = link(Role::Target);
    write(&mut peer, &vec![0x43; 1 << 20]);
    drive(&mut link);
    drive(&mut link);
    let mut stream = link.into_parts().stream.unwrap();
    let left: usize = std::iter::from_fn(|| Some(read(&mut stream).len()).filter(|n| *n > 0)).sum();
    assert!(left >= (1 << 20) - 2 * (48 + 8192), "{left}");
}
