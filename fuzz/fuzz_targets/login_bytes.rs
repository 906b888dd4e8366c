//! Any bytes on a connection that has just been made, at either end: only login PDUs come up, each is dealt with, what
//! goes out is login PDUs, and when the bytes end, so does the login.
//!
//! Input: a byte of options (bit 0: we are the initiator), the longest read in units of 16 bytes, the stream.
#![no_main]

use bytes::Bytes;
use datamover::{Budget, Drive, LoginLink, Role, SlabPool};
use duplex::{Cut, Duplex, duplex};
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Framer, Isid, Itt, Limits, Pdu, StatSn, Tsih};
use iscsi_tcp::{Stream, TcpLoginLink};
use libfuzzer_sys::fuzz_target;
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

#[path = "../../iscsi-tcp/tests/common/duplex.rs"]
mod duplex;

enum Machine {
    Initiator(InitiatorLogin),
    Target(TargetLogin),
}

impl Machine {
    fn new(role: Role, now: Instant) -> Self {
        if role == Role::Target {
            return Self::Target(TargetLogin::new(Arc::default(), [0; 32], now));
        }
        let name = |n: &str| format!("iqn.2001-04.com.example:{n}").parse::<IscsiName>().unwrap();
        let goal = SessionGoal::Normal(name("disk"));
        let config = InitiatorLoginConfig::new(name("host"), goal, InitiatorAuth::None);
        // ISID, tags and numbers of a captured login, for responses of the capture to fit.
        let start = LoginStart {
            isid: Isid([0, 2, 0x3d, 0, 0, 1]),
            cid: Cid(0),
            itt: Itt(0),
            cmd_sn: CmdSn(1),
            exp_stat_sn: StatSn(0),
            session: None,
        };
        Self::Initiator(InitiatorLogin::new(config.into(), start, [0; 32], now))
    }

    fn handle(&mut self, now: Instant, pdu: Pdu) {
        match (self, pdu) {
            (Self::Initiator(i), Pdu::LoginResponse(r)) => i.handle_response(now, r),
            (Self::Target(t), Pdu::LoginRequest(r)) => t.handle_request(now, r),
            (_, other) => panic!("not a login PDU of the peer: {other:?}"),
        }
    }

    /// Whether it is over; what it wants sent goes to the link.
    fn outputs(&mut self, link: &mut TcpLoginLink<Duplex>) -> bool {
        let mut over = false;
        loop {
            match self {
                Self::Initiator(i) => match i.poll_output() {
                    None => return over,
                    Some(LoginOutput::Send(r)) => link.send_login(r.into()),
                    Some(LoginOutput::Allocate(_)) => i.handle_resources(true),
                    Some(
                        LoginOutput::Enable { .. } | LoginOutput::Failed(_) | LoginOutput::Redirected(_),
                    ) => over = true,
                    Some(_) => {}
                },
                Self::Target(t) => match t.poll_output() {
                    None => return over,
                    Some(LoginOutput::Send(r)) => link.send_login(r.into()),
                    Some(LoginOutput::NeedAccess(_)) => {
                        t.handle_access(AccessDecision::Grant(Box::new(Grant {
                            portal_group_tag: Some(1),
                            alias: None,
                            auth: TargetAuth::None,
                            preferences: None,
                            session: None,
                        })));
                    }
                    Some(LoginOutput::Allocate(_)) => t.handle_resources(Some(Tsih(1))),
                    Some(LoginOutput::Enable { final_response, .. }) => {
                        if let Some(r) = final_response {
                            link.send_login(r.into());
                        }
                        over = true;
                    }
                    Some(LoginOutput::Failed(_)) => over = true,
                    Some(_) => {}
                },
            }
        }
    }
}

fn drive(link: &mut TcpLoginLink<Duplex>, now: Instant) {
    let _ = link.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(now));
}

/// What went out, which must be whole login PDUs of our role and nothing else.
fn check_sent(peer: &mut Duplex, role: Role) {
    let mut framer = Framer::new(Limits::MAX);
    let mut room = vec![0; 1 << 16];
    while let Poll::Ready(Ok(n @ 1..)) =
        peer.poll_read(&mut Context::from_waker(Waker::noop()), &mut [IoSliceMut::new(&mut room)])
    {
        framer.push(Bytes::copy_from_slice(&room[..n]));
    }
    while let Some(pdu) = framer.next_pdu().expect("a good PDU") {
        let ours = match role {
            Role::Initiator => matches!(pdu, Pdu::LoginRequest(_)),
            Role::Target => matches!(pdu, Pdu::LoginResponse(_)),
        };
        assert!(ours, "{pdu:?}");
    }
    assert_eq!(framer.buffered(), 0, "half a PDU");
}

fuzz_target!(|data: &[u8]| {
    let [options, most, stream @ ..] = data else { return };
    let role = if options & 1 == 0 { Role::Target } else { Role::Initiator };
    let cut = Cut { most: (usize::from(*most) * 16).max(1), seed: 0, room: 1 << 22 };
    let (ours, mut peer) = duplex(cut);
    let now = Instant::now();
    let mut link = TcpLoginLink::new(ours, role, Arc::new(SlabPool::default()));
    let mut machine = Machine::new(role, now);
    let (mut rest, mut over, mut told) = (stream, false, false);
    loop {
        over |= machine.outputs(&mut link);
        while let Some(got) = link.poll_login() {
            assert!(!told, "nothing comes after the end");
            match got {
                Ok(pdu) => machine.handle(now, pdu),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    told = true;
                }
            }
            over |= machine.outputs(&mut link);
        }
        drive(&mut link, now);
        if over || told || rest.is_empty() {
            break;
        }
        let context = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(n)) = peer.poll_write(context, &[IoSlice::new(rest)]) else { break };
        rest = &rest[n..];
        drive(&mut link, now);
    }
    for _ in 0..64 {
        drive(&mut link, now);
    }
    check_sent(&mut peer, role);
    drop(peer);
    drive(&mut link, now);
    if !over && !told {
        // The PDUs that were whole, then the end.
        while let Some(got) = link.poll_login() {
            assert!(!told);
            told = got.is_err();
        }
        assert!(told, "the end is told");
    }
});
