use super::*;

// req: 7143-7.14-3, 7143-7.1.4.4-1, 7143-7.6-1, 7143-11.14.5-1, 7143-6.3.6-1, 7143-8.3.4-5, 7143-4.2.6-4
// req: 5047-10.2.1-1, 7143-7.1.4.3-5
#[test]
fn the_loss_of_the_last_connection_ends_its_tasks_and_keeps_the_session_a_while() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    r.recv(cmd(3, 102));
    let tag = r.tag();
    r.lose(r.c);
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Cleared(Lun::ZERO)]);
    assert_eq!(r.s.state(), SessionState::Failed);
    assert_eq!(r.actions().len(), 1, "the close alone");
    assert_eq!(r.s.window().0, CmdSn(101), "what was not acknowledged is a gap again");
    r.s.discard(tag);
    // req: 7143-7.5-2, 7143-7.5-3, 7143-8.2.2-1, 7143-8.3.4-6, 7143-6.3.5.1-1
    r.after(Duration::from_secs(21));
    assert_eq!(r.s.state(), SessionState::Failed, "DefaultTime2Wait + DefaultTime2Retain is 22 s");
    r.after(Duration::from_secs(1));
    assert_eq!(r.ups(), [Up::NexusLoss]);
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::TimedOut)));
}

// RFC 7143 section 13.16: "A value of 0 indicates that connection/task state is immediately discarded by the target."
#[test]
fn without_time_to_retain_the_nexus_is_lost_with_its_last_connection() {
    let mut r = Rig::new(|p| (p.default_time2wait, p.default_time2retain) = (2, 0));
    r.lose(r.c);
    r.after(Duration::ZERO);
    assert_eq!(r.ups(), [Up::NexusLoss]);
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::TimedOut)));
}

// req: 7143-6.3.4-3, 7143-6.3.4-5, 7143-11.14-9, 7143-8.2.2-4
#[test]
fn a_reinstated_connection_ends_the_old_ones_tasks_and_executes_nothing_before_they_are_gone() {
    let mut r = Rig::new(|_| {});
    let old = r.c;
    r.recv(cmd(1, 100));
    let tag = r.tag();
    let new = r.connect(1);
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Cleared(Lun::ZERO)]);
    let actions = r.actions();
    assert!(
        actions.iter().all(|a| a.conn == old && matches!(a.call, DownCall::ConnectionTerminate)),
        "{actions:?}"
    );
    r.recv_on(new, cmd(2, 101));
    r.recv_on(new, ScsiCommand { immediate: true, ..cmd(3, 102) });
    assert_eq!(r.ups(), [], "the old task may still write");
    r.s.discard(tag);
    assert_eq!(r.ups().len(), 2);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
    r.lose(old);
    assert_eq!(r.s.state(), SessionState::LoggedIn, "the old connection's end is old news");
}

// req: 7143-8.3.4-7, 7143-8.3.4-9
#[test]
fn a_failed_session_goes_on_with_a_reinstated_connection() {
    let mut r = Rig::new(|_| {});
    r.lose(r.c);
    assert_eq!(r.s.state(), SessionState::Failed);
    let new = r.connect(1);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
    r.after(Duration::from_secs(40));
    assert_eq!(r.s.state(), SessionState::LoggedIn, "no time-out any more");
    r.actions();
    r.recv_on(new, cmd(1, 100));
    assert_eq!(r.ups().len(), 1);
}

// req: 7143-7.15-2, 7143-6.3.5-3, 7143-6.3.5.1-1
#[test]
fn a_session_reinstatement_ends_everything_without_notice() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.s.reinstate(r.now);
    let actions = r.actions();
    assert_eq!(actions.len(), 1);
    assert!(matches!(actions[0].call, DownCall::ConnectionTerminate));
    assert_eq!(r.ups(), [Up::Abort(tag)]);
    assert!(!r.events().contains(&TargetEvent::Ended(SessionEnd::Reinstated)), "not while a task is there");
    // A write that hangs in a slow device for minutes still overwrites what the next session writes meanwhile.
    r.after(TargetConfig::default().abort_timeout * 10);
    assert_eq!((r.ups(), r.events()), (vec![], vec![]));
    r.s.discard(tag);
    assert_eq!(r.ups(), [Up::NexusLoss]);
    assert_eq!(r.events(), [TargetEvent::Ended(SessionEnd::Reinstated)]);
}

// req: 7143-7.1.4.3-6
#[test]
fn the_loss_of_one_connection_is_told_on_another() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    r.recv_on(second, cmd(1, 100));
    r.recv(cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    r.lose(second);
    let sent = r.sent_on();
    let Pdu::AsyncMessage(m) = &sent[0].1 else { panic!("{sent:?}") };
    assert_eq!(
        (sent[0].0, m.event, m.parameter1, m.parameter2, m.parameter3),
        (r.c, AsyncEvent(2), 2, 2, 20)
    );
    assert_eq!(r.s.state(), SessionState::LoggedIn);
    r.ups();
    r.s.discard(tags[0]);
    r.s.complete(tags[1], Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(2));
    // Its state can be cleaned up from here.
    r.recv(LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseConnection,
        itt: Itt(9),
        cid: Cid(2),
        cmd_sn: CmdSn(102),
        exp_stat_sn: FIRST_STAT_SN,
    });
    let Pdu::LogoutResponse(response) = r.one() else { panic!() };
    assert_eq!(response.response, LogoutStatus::Success);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// req: 7143-7.7-1, 7145-10.1.4.1-1
#[test]
fn a_format_error_ends_all_connections() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    let mut header = [0; BHS_LEN];
    // A NOP-Out without tag that is not immediate (section 11.18.1).
    header[1] = 0x80;
    header[16..24].fill(0xff);
    let error = Pdu::decode_header(&header).unwrap_err();
    let event = Event::Terminated(Terminated { cause: Cause::Format(error), reclaimed: Vec::new() });
    r.s.handle_event(r.now, second, event);
    let closed: Vec<ConnId> = r
        .actions()
        .iter()
        .filter(|a| matches!(a.call, DownCall::ConnectionTerminate))
        .map(|a| a.conn)
        .collect();
    assert!(closed.contains(&r.c));
    assert_eq!(r.s.state(), SessionState::Failed);
}

#[test]
fn buffers_of_an_ended_task_go_back_to_their_pool() {
    let mut r = Rig::new(|_| {});
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.lose(r.c);
    let reclaimed =
        Reclaimed { gets: vec![(0, SgListMut::from(IoBuf::zeroed(9000)))], ..Reclaimed::default() };
    r.s.handle_event(r.now, r.c, Event::TaskReclaimed { itt: Itt(1), reclaimed });
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Cleared(Lun::ZERO)], "and not to the device server");
    r.s.discard(tag);
    assert_eq!(r.s.open_tasks(), 0);
}

// Security class 19: calls about tasks that are over.
#[test]
fn stale_tags_of_the_device_server_name_nothing() {
    let mut r = Rig::new(|_| {});
    r.recv(read(1, 100, 512));
    let old = r.tag();
    r.s.complete(old, Outcome::good());
    r.recv(read(1, 101, 512));
    let new = r.tag();
    assert_ne!(old, new);
    r.actions();
    r.s.read_data(old, 0, SgList::from(Bytes::from(vec![1; 512])));
    r.s.want_write(old, 0, IoBuf::zeroed(1).into());
    r.s.complete(old, Outcome::good());
    r.s.discard(old);
    r.quiet();
    assert!(r.s.pool(old).alloc(1).is_none());
    r.s.complete(new, Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(1));
}

/// The last connection is logged out while the state of another, lost before, is kept: when its time is over, the
/// session is too.
// req: 7143-7.5-2
#[test]
fn a_session_does_not_outlive_what_is_kept_of_a_lost_connection() {
    let mut r = Rig::new(|p| (p.max_connections, p.default_time2wait, p.default_time2retain) = (2, 2, 20));
    let second = r.connect(2);
    r.lose(r.c);
    r.actions();
    let logout = LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseConnection,
        itt: Itt(9),
        cid: Cid(2),
        cmd_sn: FIRST_CMD_SN,
        ..LogoutRequest::default()
    };
    r.recv_on(second, logout);
    assert!(!r.events().iter().any(|e| matches!(e, TargetEvent::Ended(_))));
    r.lose(second);
    r.after(Duration::from_secs(22));
    assert_eq!(r.events().last(), Some(&TargetEvent::Ended(SessionEnd::TimedOut)));
}
