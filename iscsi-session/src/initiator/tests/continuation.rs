use super::*;

/// Two connections and a level; a command on each: the second one's is lost with it.
fn two(level: u8) -> (Rig, ConnId, ScsiCommand, ScsiCommand) {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, level));
    let second = r.connect();
    let first = r.submit(read(512)).1;
    let other = r.submit(write(512)).1;
    assert_eq!((first.cmd_sn, other.cmd_sn), (CmdSn(100), CmdSn(101)));
    (r, second, first, other)
}

fn logout_response(r: &mut Rig, itt: Itt, response: u8, exp_cmd_sn: u32) {
    let stat_sn = r.next_stat_sn(r.c);
    let response = LogoutResponse {
        response: LogoutStatus(response),
        itt,
        stat_sn,
        exp_cmd_sn: CmdSn(exp_cmd_sn),
        max_cmd_sn: CmdSn(exp_cmd_sn + 7),
        ..LogoutResponse::default()
    };
    r.recv_raw(r.c, response, TaskBuffers::none());
}

/// The Logout Request for the lost connection, typed from section 11.14: immediate, reason 1, the lost CID.
fn logout_of(r: &mut Rig, cid: u16) -> LogoutRequest {
    let mut sent = r.sent_on();
    assert_eq!(sent.len(), 1, "{sent:?}");
    match sent.remove(0) {
        (conn, Pdu::LogoutRequest(request)) => {
            assert_eq!((conn, request.immediate, request.reason.0, request.cid), (r.c, true, 1, Cid(cid)));
            request
        }
        other => panic!("{other:?}"),
    }
}

// req: 7143-7.14-3, 7143-11.14-8, 7143-8.2-1, 7143-7.3-3
#[test]
fn at_level_1_the_session_goes_on_without_a_lost_connection() {
    let (mut r, second, first, other) = two(1);
    r.lose(second, &[other.itt]);
    let logout = logout_of(&mut r, 2);
    assert!(r.done().is_empty(), "the write may still have its effect");
    assert_eq!(r.s.state(), SessionState::LoggedIn);
    // The session takes commands meanwhile.
    let (_, next) = r.submit(read(512));
    assert_eq!(next.cmd_sn, CmdSn(102));
    // The target has seen 100, not 101.
    logout_response(&mut r, logout.itt, 0, 101);
    let plug = r.sent_on();
    assert!(
        matches!(&plug[..], [(on, Pdu::NopOut(nop))] if *on == r.c && !nop.immediate && nop.cmd_sn == CmdSn(101)),
        "{plug:?}"
    );
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert!(is_marked(&done.buffers));
    r.scsi_response(first.itt, good());
    assert!(r.one_done().result.is_ok());
    assert_eq!(r.s.connections().count(), 1);
}

/// The session is closed before the target has said anything of the lost connection: its closing says all.
/// Nothing new is sent for it, on a connection that joins meanwhile neither.
// req: 7143-7.14-3, 7143-11.14-3
#[test]
fn tasks_of_a_lost_connection_end_with_the_session() {
    for level in 0..=2 {
        tasks_end_with_the_session(level);
    }
}

fn tasks_end_with_the_session(level: u8) {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, level));
    let second = r.connect();
    let first = r.submit(read(512)).1;
    let other = r.submit(write(512)).1;
    r.scsi_response(first.itt, good());
    r.done();
    r.s.logout(r.now);
    let Pdu::LogoutRequest(close) = r.one() else { panic!() };
    // Its login was under way.
    let third = r.connect();
    r.lose(second, &[other.itt]);
    assert_eq!(r.sent(), []);
    assert!(r.done().is_empty());
    logout_response(&mut r, close.itt, 0, 102);
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert!(is_marked(&done.buffers));
    r.lose(r.c, &[]);
    r.lose(third, &[]);
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: true, .. })));
}

/// The ExpStatSN of a Logout Request is that of the connection to be closed (section 11.14.4), not of its carrier.
#[test]
fn the_logout_of_a_lost_connection_says_how_far_its_responses_got() {
    let (mut r, second, _, other) = two(1);
    // StatSN 2000, on the second connection.
    let stat_sn = r.next_stat_sn(second);
    r.recv_raw(second, NopIn { stat_sn, itt: Itt(0x7fff_0000), ..NopIn::default() }, TaskBuffers::none());
    r.lose(second, &[other.itt]);
    let logout = logout_of(&mut r, 2);
    assert_eq!((logout.cmd_sn, logout.exp_stat_sn), (CmdSn(102), StatSn(2001)));
}

// req: 7143-7.14-3
#[test]
fn numbers_that_arrived_are_not_filled() {
    let (mut r, second, _, other) = two(1);
    r.lose(second, &[other.itt]);
    let logout = logout_of(&mut r, 2);
    logout_response(&mut r, logout.itt, 0, 102);
    assert!(r.sent().is_empty());
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
}

/// No connection takes requests when the answer comes: the next one does.
// req: 7143-7.3-3
#[test]
fn numbers_are_filled_when_there_is_a_connection_for_it() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 1));
    let (first, second, third) = (r.c, r.connect(), r.connect());
    let itts: Vec<Itt> = (0..3).map(|_| r.submit(plain()).1.itt).collect();
    r.lose(second, &[itts[1]]);
    let logout = logout_of(&mut r, 2);
    // The target wants the others closed.
    for (conn, itt, cid) in [(third, itts[2], 3), (first, itts[0], 1)] {
        r.c = conn;
        let (exp_cmd_sn, max_cmd_sn) = (CmdSn(101), CmdSn(110));
        let (event, stat_sn) = (AsyncEvent::LogoutRequest, r.next_stat_sn(conn));
        let ask =
            AsyncMessage { event, parameter3: 3, stat_sn, exp_cmd_sn, max_cmd_sn, ..AsyncMessage::default() };
        r.recv_raw(conn, ask, TaskBuffers::none());
        let stat_sn = r.next_stat_sn(conn);
        r.recv_raw(
            conn,
            ScsiResponse { itt, stat_sn, exp_cmd_sn, max_cmd_sn, ..good() },
            TaskBuffers::none(),
        );
        assert!(r.one_done().result.is_ok());
        let sent = r.sent();
        assert!(matches!(&sent[..], [Pdu::LogoutRequest(l)] if l.cid == Cid(cid)), "{sent:?}");
    }
    logout_response(&mut r, logout.itt, 1, 101);
    assert!(r.sent().is_empty());
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
    let fourth = r.connect();
    let plug = r.sent_on();
    assert!(
        matches!(&plug[..], [(on, Pdu::NopOut(nop))] if *on == fourth && !nop.immediate && nop.cmd_sn == CmdSn(101)),
        "{plug:?}"
    );
}

// 11.15.1: 1 is "CID not found": the target has forgotten the connection.
#[test]
fn a_connection_that_the_target_does_not_know_is_gone() {
    let (mut r, second, _, other) = two(1);
    r.lose(second, &[other.itt]);
    let logout = logout_of(&mut r, 2);
    logout_response(&mut r, logout.itt, 1, 102);
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// The Async Message of another connection tells of the loss before the transport does.
// req: 7143-11.9.1-7
#[test]
fn an_announced_loss_is_cleaned_up_before_the_transport_notices() {
    let (mut r, second, _, other) = two(1);
    r.async_message(2, Lun::ZERO, [2, 0, 0]);
    let actions = r.actions();
    assert!(matches!(actions[0], Action { conn, call: DownCall::ConnectionTerminate } if conn == second));
    let Action { call: DownCall::SendControl(control), .. } = &actions[1] else { panic!("{actions:?}") };
    let Pdu::LogoutRequest(logout) = &control.pdu else { panic!("{actions:?}") };
    logout_response(&mut r, logout.itt, 0, 102);
    assert!(r.done().is_empty(), "its buffers are not back");
    r.lose(second, &[other.itt]);
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
}

// req: 7143-7.1.4.4-1, 7143-7.14-4
#[test]
fn a_cleanup_that_fails_is_session_recovery() {
    for refusal in [2, 3] {
        let (mut r, second, first, other) = two(1);
        r.lose(second, &[other.itt]);
        let logout = logout_of(&mut r, 2);
        logout_response(&mut r, logout.itt, refusal, 102);
        assert!(
            matches!(r.actions()[0], Action { conn, call: DownCall::ConnectionTerminate } if conn == r.c)
        );
        assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
        r.lose(r.c, &[first.itt]);
        assert_eq!(r.done().len(), 1);
        assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
    }
    let (mut r, second, _, other) = two(1);
    r.lose(second, &[other.itt]);
    logout_of(&mut r, 2);
    r.after(InitiatorConfig::default().logout_timeout);
    assert_eq!(r.s.state(), SessionState::Failed, "no answer in time");
}

#[test]
fn the_last_connection_takes_the_tasks_of_the_others_along() {
    let (mut r, second, first, other) = two(1);
    r.lose(second, &[other.itt]);
    logout_of(&mut r, 2);
    r.lose(r.c, &[first.itt]);
    assert_eq!(r.done().len(), 2);
    assert_eq!(r.s.open_tasks(), 0);
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
}

#[test]
fn a_cleanup_survives_the_loss_of_its_carrier() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 1));
    let (second, third) = (r.connect(), r.connect());
    let itts: Vec<Itt> = (0..3).map(|_| r.submit(read(512)).1.itt).collect();
    r.lose(third, &[itts[2]]);
    let first_try = r.sent_on();
    assert!(matches!(&first_try[..], [(on, Pdu::LogoutRequest(l))] if *on == r.c && l.cid == Cid(3)));
    r.lose(r.c, &[itts[0]]);
    let again = r.sent_on();
    let cids: Vec<Cid> = again
        .iter()
        .map(|(on, pdu)| match pdu {
            Pdu::LogoutRequest(l) if *on == second => l.cid,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(cids, [Cid(3), Cid(1)]);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

#[test]
fn a_retiring_connection_is_logged_out_when_its_commands_are_over() {
    let (mut r, second, _, other) = two(0);
    r.s.retire_connection(r.now, r.c, Duration::from_secs(60));
    for _ in 0..3 {
        r.s.submit(r.now, plain()).unwrap();
    }
    let sent = r.sent_on();
    assert!(sent.iter().all(|(on, pdu)| *on == second && matches!(pdu, Pdu::ScsiCommand(_))), "{sent:?}");
    let _ = other;
    let first = r.s.entries.iter().find(|(_, e)| e.conn() == r.c).map(|(k, _)| Itt(k.to_tag())).unwrap();
    r.scsi_response(first, good());
    let logout = logout_of(&mut r, 1);
    logout_response(&mut r, logout.itt, 0, 102);
    assert_eq!(r.s.connections().map(|(id, _)| id).collect::<Vec<_>>(), [second]);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

#[test]
fn a_retiring_connection_is_logged_out_in_time_even_with_commands_under_way() {
    let (mut r, _, _, _) = two(0);
    r.s.retire_connection(r.now, r.c, Duration::from_secs(5));
    assert!(r.sent().is_empty());
    r.after(Duration::from_secs(5));
    logout_of(&mut r, 1);
}
