use super::*;

fn nop(itt: u32, data: usize) -> NopOut {
    NopOut {
        immediate: true,
        itt: Itt(itt),
        cmd_sn: CmdSn(100),
        exp_stat_sn: FIRST_STAT_SN,
        data: Bytes::from((0..data).map(|n| n as u8).collect::<Vec<_>>()),
        ..NopOut::default()
    }
}

fn nop_in(pdu: Pdu) -> NopIn {
    match pdu {
        Pdu::NopIn(nop) => nop,
        other => panic!("{other:?}"),
    }
}

// req: 7143-11.18.1-3, 7143-11.19-1, 7143-11.19-2, 7143-11.19-3, 7145-7.3.13-1
#[test]
fn a_ping_comes_back_with_its_tag_and_as_much_data_as_fits() {
    let mut r = Rig::new(|_| {});
    r.recv(nop(9, 100));
    let answer = nop_in(r.one());
    assert_eq!((answer.itt, answer.ttt, answer.stat_sn), (Itt(9), Ttt::NONE, FIRST_STAT_SN));
    assert_eq!(answer.data, nop(9, 100).data);
    r.recv(nop(10, 3000));
    let answer = nop_in(r.one());
    assert_eq!(answer.data, nop(9, 3000).data.slice(..MRDSL as usize));
    assert_eq!(answer.stat_sn, StatSn(1001));
}

// req: 7143-11.19-4
#[test]
fn a_nop_out_that_asks_for_nothing_gets_nothing() {
    let mut r = Rig::new(|_| {});
    r.recv(NopOut { itt: Itt::NONE, ..nop(0, 0) });
    r.quiet();
}

#[test]
fn a_numbered_ping_waits_for_its_turn() {
    let mut r = Rig::new(|_| {});
    r.recv(NopOut { immediate: false, cmd_sn: CmdSn(101), ..nop(9, 0) });
    r.quiet();
    r.recv(cmd(1, 100));
    let answer = nop_in(r.one());
    assert_eq!((answer.exp_cmd_sn, answer.max_cmd_sn), (CmdSn(102), CmdSn(108)), "its credit is back");
}

// req: 7143-7.14-1, 7143-11.19-5, 7143-11.19-6, 7143-11.19-7, 7143-11.19.2-1, 7143-11.19.3-1, 7143-11.18.1-3
#[test]
fn an_idle_connection_is_pinged_and_a_silent_one_given_up() {
    let mut r = Rig::new(|_| {});
    r.after(Duration::from_secs(29));
    r.quiet();
    r.after(Duration::from_secs(1));
    let ping = nop_in(r.one());
    assert!(ping.itt.is_none() && !ping.ttt.is_none() && ping.data.is_empty());
    assert_eq!((ping.lun, ping.stat_sn), (Lun::ZERO, FIRST_STAT_SN));
    r.recv(NopOut { itt: Itt::NONE, ttt: ping.ttt, ..nop(0, 0) });
    r.quiet();
    r.recv(nop(1, 0));
    assert_eq!(nop_in(r.one()).stat_sn, FIRST_STAT_SN, "the ping took none");
    r.after(Duration::from_secs(30));
    assert!(!nop_in(r.one()).ttt.is_none());
    r.after(Duration::from_secs(20));
    let actions = r.actions();
    assert!(matches!(actions[0].call, DownCall::ConnectionTerminate), "{actions:?}");
    assert_eq!(
        r.events()[0],
        TargetEvent::ConnectionEnded { conn: r.c, cid: Cid(1), cause: EndCause::Unresponsive }
    );
}

/// Above ErrorRecoveryLevel 0 a ping or its answer may be lost, and the connection live.
// req: 7143-7.14-1
#[test]
fn a_lost_ping_does_not_cost_the_connection() {
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    r.after(Duration::from_secs(30));
    let first = nop_in(r.one());
    r.after(Duration::from_secs(20));
    let second = nop_in(r.one());
    assert_eq!((second.ttt, second.itt, second.lun), (first.ttt, Itt::NONE, Lun::ZERO), "the same once more");
    r.recv(NopOut { itt: Itt::NONE, ttt: second.ttt, ..nop(0, 0) });
    // The first was late, not lost.
    r.recv(NopOut { itt: Itt::NONE, ttt: first.ttt, ..nop(0, 0) });
    r.quiet();
    r.after(Duration::from_secs(30));
    for _ in 0..2 {
        assert!(!nop_in(r.one()).ttt.is_none());
        r.after(Duration::from_secs(20));
        assert_eq!(r.events(), []);
    }
    assert!(!nop_in(r.one()).ttt.is_none(), "none of the attempts before counts");
    r.after(Duration::from_secs(20));
    let ended = TargetEvent::ConnectionEnded { conn: r.c, cid: Cid(1), cause: EndCause::Unresponsive };
    assert_eq!(r.events()[0], ended);
}

// req: 7145-7.3.11-2, 7145-7.3.11-4, 7145-7.3.9-2, 7145-7.3.9-4, 7145-7.3.12-1
#[test]
fn what_has_no_place_here_is_rejected_as_a_protocol_error() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.recv(Snack { kind: SnackType::Status, beg_run: 5, ..Snack::default() });
    assert_eq!(reject_reason(&r.one()), RejectReason(0x04));
    r.recv(LoginRequest { itt: Itt(3), ..LoginRequest::default() });
    let reject = r.one();
    assert_eq!(reject_reason(&reject), RejectReason(0x04));
    let Pdu::Reject(reject) = reject else { panic!() };
    assert_eq!((reject.data[0] & 0x3f, reject.data.len()), (0x03, 48), "its header comes back");
    r.recv(cmd(1, 100));
    assert_eq!(r.ups().len(), 1, "the session goes on");
}

#[test]
fn a_reject_returns_the_additional_header_segments_too() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    r.ups();
    let long = ScsiCommand { ahs: vec![Ahs::ExtendedCdb(Bytes::from(vec![9; 16]))], ..cmd(1, 101) };
    r.recv(long);
    let Pdu::Reject(reject) = r.one() else { panic!() };
    // BHS, AHSLength and type, a reserved byte, 16 bytes of CDB (section 11.2.2.3).
    assert_eq!((reject.data.len(), reject.data[4]), (48 + 20, 5));
}

// req: 7143-11.2.1.2-3
#[test]
fn an_unknown_opcode_is_rejected_as_not_supported() {
    let mut r = Rig::new(|_| {});
    let mut header = vec![0; BHS_LEN];
    header[0] = 0x07;
    let error = Pdu::decode_header(header.as_slice().try_into().unwrap()).unwrap_err();
    let reason = error.reject().unwrap();
    let invalid = InvalidPdu { header: Bytes::from(header), reason, error: Some(error) };
    r.s.handle_event(r.now, r.c, Event::Invalid(invalid));
    assert_eq!(reject_reason(&r.one()), RejectReason(0x05));
}

fn async_message(pdu: Pdu) -> AsyncMessage {
    match pdu {
        Pdu::AsyncMessage(m) => m,
        other => panic!("{other:?}"),
    }
}

// req: 7143-11.9-1, 7145-7.3.7-1
#[test]
fn a_scsi_event_carries_its_sense_data() {
    let mut r = Rig::new(|_| {});
    r.s.asynchronous_event(lun(2), Bytes::from_static(&[0x70, 0, 6]));
    let message = async_message(r.one());
    assert_eq!((message.event, message.lun, message.stat_sn), (AsyncEvent(0), lun(2), FIRST_STAT_SN));
    assert_eq!(message.data[..], [0, 3, 0x70, 0, 6]);
    r.recv(nop(1, 0));
    assert_eq!(nop_in(r.one()).stat_sn, StatSn(1001), "it advances StatSN");
}

// req: 7143-11.9.1-1, 7143-11.9.1-6
#[test]
fn a_logout_asked_for_and_not_made_is_made_short() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    r.s.request_logout(r.now, second, Duration::from_secs(5));
    let sent = r.sent_on();
    assert_eq!(sent[0].0, second, "on the connection itself");
    let message = async_message(sent[0].1.clone());
    assert_eq!((message.event, message.parameter3), (AsyncEvent(1), 5));
    assert_eq!(r.s.conn_state(second), ConnState::LogoutRequested);
    r.after(Duration::from_secs(5));
    let actions = r.actions();
    assert_eq!(kinds(&actions)[..2], [(second, "async message"), (second, "terminate")]);
    let DownCall::SendControl(c) = &actions[0].call else { panic!() };
    let message = async_message(c.pdu.clone());
    assert_eq!((message.event, message.parameter1), (AsyncEvent(2), 2));
}

// req: 7143-4.2.6-2, 7143-4.2.6-3
#[test]
fn a_shutdown_is_announced() {
    let mut r = Rig::new(|_| {});
    r.s.shutdown(r.now);
    let actions = r.actions();
    assert_eq!(kinds(&actions), [(r.c, "async message"), (r.c, "terminate")]);
    let DownCall::SendControl(c) = &actions[0].call else { panic!() };
    let message = async_message(c.pdu.clone());
    assert_eq!((message.event, message.parameter2), (AsyncEvent(3), 2));
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::Shutdown)));
}

#[test]
fn a_negotiation_can_be_asked_for() {
    let mut r = Rig::new(|_| {});
    r.s.request_negotiation(r.now, r.c, Duration::from_secs(9));
    let message = async_message(r.one());
    assert_eq!((message.event, message.parameter3), (AsyncEvent(4), 9));
}

// req: 7143-4.3-1, 7143-4.3-2, 7143-7.4.3-1
#[test]
fn a_discovery_session_serves_text_and_logout_alone() {
    let mut r = Rig::new(|p| p.session_type = SessionType::Discovery);
    r.recv(cmd(1, 100));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError);
    r.recv(tmf(2, 100, TaskMgmtFunction::AbortTaskSet));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError);
    r.recv(logout(3, 1, 1));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError);
    r.after(Duration::from_secs(1000));
    r.s.asynchronous_event(Lun::ZERO, Bytes::new());
    r.quiet();
    r.recv(logout(4, 0, 0));
    assert_eq!(logout_status(&r.sent()[0]), 0);
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::Closed)));
}

// req: 7145-8.1.2-1, 7145-8.1.2-2, 7145-8.1.2-4
#[test]
fn unexpected_pdus_stay_within_the_initiators_limit() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.s.conn_mut(r.c).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(2);
    for n in 0..3 {
        r.s.asynchronous_event(lun(n), Bytes::new());
    }
    assert_eq!(r.sent().len(), 2, "the third waits");
    r.recv(data_out(7, 0, 0, 0, true));
    assert_eq!(r.sent(), [], "no Reject either");
    r.ack_on(r.c, 1001);
    assert_eq!(async_message(r.one()).lun, lun(2));
}

/// A ping is outstanding until it is answered, though no StatSN acknowledges it: it takes none.
// req: 7145-8.1.2-1, 7145-8.1.2-4
#[test]
fn an_answered_ping_makes_room_for_another() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.s.conn_mut(r.c).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(1);
    for round in 0..3 {
        r.after(Duration::from_secs(30));
        let ping = nop_in(r.one());
        assert!(!ping.ttt.is_none(), "round {round}");
        r.s.asynchronous_event(lun(round), Bytes::new());
        assert_eq!(r.sent(), [], "it waits");
        r.recv(NopOut { itt: Itt::NONE, ttt: ping.ttt, ..nop(0, 0) });
        let message = async_message(r.one());
        assert_eq!(message.lun, lun(round));
        r.ack_on(r.c, message.stat_sn.0 + 1);
    }
}

/// The NOP-In that tells of an open window counts as well; as a ping, which an answer takes off the count.
// req: 7145-8.1.2-1, 7145-8.1.2-2
#[test]
fn windows_are_opened_within_the_initiators_limit() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.s.conn_mut(r.c).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(2);
    let mut sn = 100;
    let mut opened = |r: &mut Rig| {
        let room = r.s.window().1.distance_from(CmdSn(sn)) + 1;
        for _ in 0..room {
            r.recv(cmd(sn, sn));
            sn += 1;
        }
        let up = r.ups();
        let Up::Execute { tag, .. } = up[0] else { panic!() };
        r.s.discard(tag);
        r.sent()
    };
    let ping = nop_in(opened(&mut r).remove(0));
    assert!(!ping.ttt.is_none());
    let second = nop_in(opened(&mut r).remove(0));
    assert!(second.ttt.is_none(), "one ping at a time");
    assert_eq!(opened(&mut r), [], "no third");
    r.recv(NopOut { itt: Itt::NONE, ttt: ping.ttt, ..nop(0, 0) });
    assert!(!nop_in(r.one()).ttt.is_none(), "the window, as soon as there is room");
}

/// Only where the initiator limits them (over RDMA) is there a use for the numbers of unexpected PDUs.
#[test]
fn rejects_to_an_initiator_that_acknowledges_nothing_leave_nothing_behind() {
    let mut r = Rig::new(|_| {});
    for _ in 0..100 {
        r.recv(data_out(77, 0, 0, 4, true));
        assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField);
    }
    assert!(r.s.conns[0].unexpected.is_empty());
}
