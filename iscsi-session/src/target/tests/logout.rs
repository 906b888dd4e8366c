use super::*;

// req: 7143-11.14-4, 7143-11.14-7, 7143-11.15-1, 7145-5.2.2-3, 7143-6.3.5-4, 7143-6.3.5.1-1, 7143-7.6-1
#[test]
fn closing_the_session_ends_its_tasks_then_answers_then_closes() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    r.recv(cmd(3, 102));
    let tag = r.tag();
    r.recv(logout(50, 0, 0));
    assert_eq!(r.ups(), [Up::Abort(tag)]);
    assert_eq!(r.sent(), []);
    assert_eq!(r.s.conn_state(r.c), ConnState::InLogout);
    r.recv(cmd(2, 101));
    r.quiet();
    r.s.discard(tag);
    let actions = r.actions();
    assert_eq!(
        kinds(&actions),
        [(r.c, "other"), (r.c, "logout response"), (r.c, "terminate")],
        "resources, response, close"
    );
    assert_eq!(r.ups(), [Up::NexusLoss]);
    assert_eq!(
        r.events(),
        [
            TargetEvent::ConnectionEnded { conn: r.c, cid: Cid(1), cause: EndCause::LoggedOut },
            TargetEvent::Ended(SessionEnd::Closed)
        ]
    );
    assert_eq!(r.s.state(), SessionState::Free);
}

// req: 7143-11.14-10, 7143-11.15.1-1, 7143-11.14.5-1
#[test]
fn closing_one_connection_leaves_the_others() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    r.recv_on(second, ScsiCommand { lun: lun(4), ..cmd(1, 100) });
    r.recv(cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    r.recv_on(second, logout(50, 1, 2));
    assert_eq!(r.ups(), [Up::Abort(tags[0]), Up::Cleared(lun(4))], "a unit attention for what was cleared");
    r.s.discard(tags[0]);
    let actions = r.actions();
    assert_eq!(kinds(&actions)[1..], [(second, "logout response"), (second, "terminate")]);
    r.s.complete(tags[1], Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(2));
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// req: 7143-11.15.1-1
#[test]
fn logouts_that_cannot_be_are_answered_so() {
    let mut r = Rig::new(|_| {});
    r.recv(logout(50, 1, 9));
    assert_eq!(logout_status(&r.one()), 1, "CID not found");
    r.recv(logout(51, 2, 1));
    assert_eq!(logout_status(&r.one()), 2, "recovery not supported");
    r.recv(cmd(1, 100));
    assert_eq!(r.ups().len(), 1, "the connection goes on");
}

#[test]
fn a_device_server_that_does_not_let_go_fails_the_logout() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.recv(logout(50, 0, 0));
    assert_eq!(r.ups(), [Up::Abort(tag)]);
    r.after(TargetConfig::default().abort_timeout);
    let actions = r.actions();
    let response = actions.iter().find_map(|a| match &a.call {
        DownCall::SendControl(c) if matches!(c.pdu, Pdu::LogoutResponse(_)) => Some(c.pdu.clone()),
        _ => None,
    });
    assert_eq!(logout_status(&response.unwrap()), 3, "cleanup failed");
    assert!(kinds(&actions).contains(&(r.c, "terminate")));
    // The session is not kept for ever for what it has lost.
    assert_eq!(r.s.state(), SessionState::Failed);
    r.s.discard(tag);
    r.after(Duration::from_secs(3600));
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::TimedOut)));
}

/// Three connections, with CIDs 1, 2 and 3; the last two have a task each at the device server.
fn three() -> (Rig, [ConnId; 2], [TaskTag; 2]) {
    let mut r = Rig::new(|p| p.max_connections = 3);
    let others = [r.connect(2), r.connect(3)];
    r.recv_on(others[0], cmd(1, 100));
    r.recv_on(others[1], cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    (r, others, tags)
}

fn numbered(itt: u32, reason: u8, cid: u16, cmd_sn: u32) -> LogoutRequest {
    LogoutRequest { immediate: false, cmd_sn: CmdSn(cmd_sn), ..logout(itt, reason, cid) }
}

/// Tag and status of the Logout Responses sent.
fn answers(actions: &[Action]) -> Vec<(ConnId, u32, u8)> {
    let of = |a: &Action| match &a.call {
        DownCall::SendControl(c) => match &c.pdu {
            Pdu::LogoutResponse(l) => Some((a.conn, l.itt.0, l.response.0)),
            _ => None,
        },
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

// req: 7143-11.15-1, 7143-11.15.1-1
#[test]
fn several_logouts_over_one_connection_are_all_answered() {
    let (mut r, others, tags) = three();
    r.recv(numbered(50, 1, 2, 102));
    r.recv(logout(51, 1, 3));
    assert_eq!(r.sent(), []);
    r.s.discard(tags[1]);
    let actions = r.actions();
    assert_eq!(answers(&actions), [(r.c, 51, 0)]);
    assert!(kinds(&actions).contains(&(others[1], "terminate")));
    r.s.discard(tags[0]);
    let actions = r.actions();
    assert_eq!(answers(&actions), [(r.c, 50, 0)]);
    assert!(kinds(&actions).contains(&(others[0], "terminate")));
    assert_eq!(r.s.window(), (CmdSn(103), CmdSn(110)), "as deep as it was");
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

#[test]
fn each_logout_has_its_own_time() {
    let (mut r, _, _) = three();
    let timeout = TargetConfig::default().abort_timeout;
    r.s.cfg.ping_after = None;
    r.recv(logout(50, 1, 2));
    r.after(timeout / 2);
    r.recv(logout(51, 1, 3));
    r.actions();
    r.after(timeout / 2);
    assert_eq!(answers(&r.actions()), [(r.c, 50, 3)], "cleanup failed");
    r.after(timeout / 2);
    assert_eq!(answers(&r.actions()), [(r.c, 51, 3)]);
}

// req: 7143-4.2.2.1-5
#[test]
fn logouts_that_wait_are_bounded() {
    let (mut r, others, tags) = three();
    r.s.cfg.immediate_commands = 2;
    r.lose(others[0]);
    r.actions();
    r.recv(logout(50, 1, 2));
    r.recv(logout(50, 1, 2));
    r.recv(logout(51, 1, 2));
    r.quiet_pdus();
    r.recv(logout(52, 1, 2));
    assert_eq!(reject_reason(&r.one()), RejectReason::ImmediateCommandReject);
    r.s.discard(tags[0]);
    assert_eq!(answers(&r.actions()), [(r.c, 50, 0), (r.c, 51, 0)], "the retry was one");
}

/// The network is gone and the initiator is back with the same CID before the target has noticed: the login has done
/// what the logout asked for, and the logout is not for the connection that it made.
// req: 7143-6.3.4-3, 7143-6.3.4-5
#[test]
fn a_logout_does_not_close_the_connection_that_reinstates_its_own() {
    for level in [0, 1, 2] {
        let mut r = Rig::new(|p| p.error_recovery_level = level);
        r.recv(cmd(1, 100));
        let tag = r.tag();
        r.recv(numbered(50, 1, 1, 101));
        r.quiet_pdus();
        let (old, new) = (r.c, r.connect(1));
        r.s.discard(tag);
        assert_eq!(answers(&r.actions()), []);
        r.lose(old);
        assert_eq!(r.s.conn_state(new), ConnState::LoggedIn);
        assert_eq!(r.s.state(), SessionState::LoggedIn);
        assert_eq!(r.s.window(), (CmdSn(102), CmdSn(109)), "level {level}");
    }
}

// req: 7143-6.3.4-3
#[test]
fn a_logout_over_another_connection_does_not_close_the_one_that_reinstates() {
    for (level, reason) in [(0, 1), (2, 1), (2, 2)] {
        let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, level));
        let other = r.connect(2);
        r.recv(cmd(1, 100));
        let tag = r.tag();
        r.recv_on(other, logout(50, reason, 1));
        assert_eq!(answers(&r.actions()), [], "level {level}, reason {reason}");
        let (old, new) = (r.c, r.connect(1));
        r.s.discard(tag);
        r.lose(old);
        let actions = r.actions();
        assert_eq!(answers(&actions), [(other, 50, 0)]);
        assert!(!kinds(&actions).contains(&(new, "terminate")));
        assert_eq!(r.s.conn_state(new), ConnState::LoggedIn);
        r.ups();
        r.recv_on(new, cmd(2, 101));
        assert_eq!(r.ups().len(), 1, "it is in use");
    }
}

/// The initiator completes what was under way when it hears of success, and writes the blocks anew, perhaps over another
/// session: the old write must be over.
// req: 7143-11.14-4
#[test]
fn a_lost_connection_is_logged_out_when_its_tasks_are_over() {
    // Kept, and not kept any more; and with one in its place.
    for (retain, reinstated) in [(20, false), (0, false), (20, true)] {
        let mut r = Rig::new(|p| (p.max_connections, p.default_time2retain) = (2, retain));
        r.s.cfg.ping_after = None;
        let second = r.connect(2);
        r.recv_on(second, cmd(1, 100));
        let tag = r.tag();
        r.lose(second);
        r.after(Duration::from_secs(5));
        if reinstated {
            r.connect(2);
        }
        r.actions();
        r.recv(logout(50, 1, 2));
        assert_eq!(answers(&r.actions()), []);
        r.s.discard(tag);
        assert_eq!(answers(&r.actions()), [(r.c, 50, 0)], "closed");
        // Nothing is left of it now.
        r.recv(logout(51, 1, 2));
        assert_eq!(answers(&r.actions()), [(r.c, 51, 1)], "CID not found");
    }
}

// req: 7143-11.15.1-1
#[test]
fn what_is_kept_no_longer_cannot_be_recovered_and_is_not_found_once_its_tasks_are_over() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, 2));
    r.s.cfg.ping_after = None;
    let second = r.connect(2);
    r.recv_on(second, cmd(1, 100));
    let tag = r.tag();
    r.lose(second);
    r.after(Duration::from_secs(22));
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Cleared(Lun::ZERO)]);
    r.actions();
    r.recv(logout(50, 2, 2));
    assert_eq!(answers(&r.actions()), []);
    r.s.discard(tag);
    assert_eq!(answers(&r.actions()), [(r.c, 50, 1)], "CID not found");
}

/// What is dropped without an answer has used its number up all the same: the window goes on (section 4.2.2.1).
#[test]
fn a_logout_that_is_lost_with_its_connection_gives_its_credit_back() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    for n in 0..150 {
        let second = r.connect(2);
        r.recv_on(second, cmd(1, 100 + 2 * n));
        let tag = r.tag();
        r.recv_on(second, numbered(50, 1, 2, 101 + 2 * n));
        r.lose(second);
        r.s.discard(tag);
        r.ups();
        let next = 102 + 2 * n;
        assert_eq!(r.s.window(), (CmdSn(next), CmdSn(next + DEPTH - 1)));
    }
}

/// Their turn comes when their connection is gone.
#[test]
fn requests_of_a_connection_that_is_gone_give_their_credits_back() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, 2));
    for n in 0..150 {
        let (second, sn) = (r.connect(2), 100 + 4 * n);
        let ping = NopOut { cmd_sn: CmdSn(sn + 1), itt: Itt(50), ..NopOut::default() };
        r.recv_on(second, NopOut { immediate: false, ..ping });
        let function = tmf(51, sn + 2, TaskMgmtFunction::LogicalUnitReset);
        r.recv_on(second, TaskMgmtRequest { immediate: false, ..function });
        r.recv_on(second, numbered(52, 1, 2, sn + 3));
        r.lose(second);
        r.recv(cmd(1, sn));
        let tag = r.tag();
        r.s.complete(tag, Outcome::good());
        assert_eq!(r.ups(), [], "none of them is carried out");
        assert_eq!(r.s.window(), (CmdSn(sn + 4), CmdSn(sn + 4 + DEPTH - 1)));
        r.ack_on(r.c, 1001 + n);
        r.actions();
    }
}
