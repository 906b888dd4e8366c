use super::*;

// req: 7143-7.14-3, 7143-7.1.4.4-1, 7143-7.1.4.3-1, 7143-6.3.6-1, 7143-6.3.5-2, 7143-7.5-1, 7143-7.5-3
// req: 7143-11.10-2, 7143-11.4.3-2, 7143-7.15-1, 5047-10.2.1-1, 7143-4.2.3.3-5
#[test]
fn a_lost_connection_ends_its_requests_and_at_level_0_the_session() {
    let mut r = Rig::new(|_| {});
    let (tag, command) = r.submit(write(50_000));
    r.s.abort(r.now, tag).unwrap();
    r.s.text(r.now, Bytes::new()).unwrap();
    r.s.ping(r.now, r.c, &Bytes::new()).unwrap();
    r.sent();
    r.lose(r.c, &[command.itt]);
    let done = r.done();
    assert!(
        matches!(&done[0], Completion::Task(t) if t.result == Err(TaskFailure::ConnectionLost) && is_marked(&t.buffers))
    );
    assert!(matches!(&done[1], Completion::Function(f) if f.result == Err(ExchangeFailure::ConnectionLost)));
    assert!(matches!(&done[2], Completion::Text { result: Err(ExchangeFailure::ConnectionLost), .. }));
    assert!(matches!(&done[3], Completion::Ping { result: Err(ExchangeFailure::ConnectionLost), .. }));
    assert_eq!(done.len(), 4);
    let wait = Duration::from_secs(2);
    assert_eq!(r.events().last(), Some(&InitiatorEvent::Ended { closed: false, time2wait: wait }));
    assert_eq!((r.s.state(), r.s.open_tasks()), (SessionState::Failed, 0));
    assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::NoConnection);
}

// req: 7143-7.1.4.4-1, 7143-7.14-4
#[test]
fn at_level_0_the_other_connections_go_too() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect();
    let first = r.submit(read(512)).1.itt;
    let other = r.submit(read(512)).1.itt;
    r.lose(second, &[other]);
    assert!(r.actions().iter().any(|a| a.conn == r.c && matches!(a.call, DownCall::ConnectionTerminate)));
    assert!(!r.events().iter().any(|e| matches!(e, InitiatorEvent::Ended { .. })), "buffers are still out");
    r.lose(r.c, &[first]);
    assert_eq!(r.done().len(), 2);
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
}

// req: 7143-7.9-3, 7143-7.8-10, 7143-7.8-12, 7143-4.2.2.2-2
#[test]
fn a_gap_in_stat_sn_ends_the_connection_at_level_0() {
    for gap in [1, 5_000_000] {
        let mut r = Rig::new(|_| {});
        let (_, command) = r.submit(plain());
        r.stat_sn[0] += gap;
        r.scsi_response(command.itt, good());
        assert!(r.done().is_empty(), "the response is not looked at");
        assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
        assert!(matches!(
            &r.events()[0],
            InitiatorEvent::ConnectionEnded { cause: EndCause::Protocol(rule), .. } if rule.contains("StatSN")
        ));
    }
}

#[test]
fn a_response_twice_is_dropped() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(plain());
    r.scsi_response(command.itt, good());
    assert_eq!(r.done().len(), 1);
    r.stat_sn[0] -= 1;
    r.scsi_response(command.itt, good());
    assert!(r.done().is_empty());
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// req: 7143-4.2.2.2-3
#[test]
fn the_stat_sn_limit_is_below_half_the_number_space() {
    let cfg = InitiatorConfig { max_stat_sn_distance: 0x8000_0000, ..InitiatorConfig::default() };
    let r = Rig::with_config(cfg, |_| {});
    assert_eq!(r.s.cfg.max_stat_sn_distance, 0x7fff_ffff);
}

// req: 7143-7.7-2, 7143-7.7-1
#[test]
fn check_condition_without_sense_data_is_a_format_error() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect();
    let (_, command) = r.submit(plain());
    let response = ScsiResponse { status: ScsiStatus::CheckCondition, ..ScsiResponse::default() };
    r.scsi_response(command.itt, response);
    let closed: Vec<ConnId> = r.actions().iter().map(|a| a.conn).collect();
    assert_eq!(closed, [r.c, second]);
    assert_eq!(r.done().len(), 1);
    assert_eq!(r.s.state(), SessionState::Failed);
}

// req: 7145-7.3.9-2
#[test]
fn a_login_response_in_full_feature_phase_ends_the_connection() {
    let mut r = Rig::new(|_| {});
    r.recv_raw(r.c, LoginResponse::default(), TaskBuffers::none());
    assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
    let mut r = Rig::new(|_| {});
    r.recv_raw(r.c, plain_command(), TaskBuffers::none());
    assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate), "an initiator's PDU likewise");
}

fn plain_command() -> ScsiCommand {
    ScsiCommand { final_pdu: true, ..ScsiCommand::default() }
}

// req: 7143-11.9.1-7, 7143-7.1.4.3-4, 7143-7.5-3
#[test]
fn an_announced_drop_is_a_loss_with_times_of_its_own() {
    for (event, parameters) in [(2, [1, 7, 0]), (3, [0, 7, 0])] {
        let mut r = Rig::new(|_| {});
        r.async_message(event, Lun::ZERO, parameters);
        assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
        assert!(matches!(r.events()[0], InitiatorEvent::ConnectionEnded { cause: EndCause::Dropped, .. }));
        r.lose(r.c, &[]);
        let wait = Duration::from_secs(7);
        assert_eq!(r.events().last(), Some(&InitiatorEvent::Ended { closed: false, time2wait: wait }));
    }
    let mut r = Rig::new(|_| {});
    r.async_message(2, Lun::ZERO, [9, 7, 0]);
    assert_eq!(r.s.state(), SessionState::LoggedIn, "CID 9 is not ours");
}

// req: 7143-7.3-3
#[test]
fn a_rejected_command_is_over_and_its_number_is_filled() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(read(512));
    let itt = command.itt;
    r.reject(0x0c, &command.into());
    r.reclaim(itt);
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::Rejected(RejectReason::WaitingForLogout)));
    assert!(is_marked(&done.buffers));
    let Pdu::NopOut(plug) = r.one() else { panic!() };
    assert_eq!((plug.cmd_sn, plug.immediate), (CmdSn(100), false));
    assert_eq!(r.submit(plain()).1.cmd_sn, CmdSn(101), "the count goes on");
    assert!(matches!(r.events()[0], InitiatorEvent::Rejected { reason: RejectReason(0x0c), .. }));
}

#[test]
fn a_rejected_data_out_leaves_its_command() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.s.submit(r.now, write(4096)).unwrap();
    let sent = r.sent();
    r.reject(0x02, &sent[1]);
    assert!(r.done().is_empty(), "the SCSI Response follows (section 7.3)");
    r.scsi_response(sent[0].itt(), good());
    assert_eq!(r.done().len(), 1);
}

// req: 7143-7.12-1
#[test]
fn rejected_exchanges_fail() {
    let mut r = Rig::new(|_| {});
    r.s.text(r.now, Bytes::new()).unwrap();
    r.s.task_management(r.now, TaskFunction::TargetWarmReset).unwrap();
    r.s.ping(r.now, r.c, &Bytes::new()).unwrap();
    for pdu in r.sent() {
        r.reject(0x06, &pdu);
    }
    let reason = RejectReason::ImmediateCommandReject;
    let done = r.done();
    assert!(
        matches!(&done[0], Completion::Text { result: Err(ExchangeFailure::Rejected(x)), .. } if *x == reason)
    );
    assert!(
        matches!(&done[1], Completion::Function(f) if f.result == Err(ExchangeFailure::Rejected(reason)))
    );
    assert!(
        matches!(&done[2], Completion::Ping { result: Err(ExchangeFailure::Rejected(x)), .. } if *x == reason)
    );
    assert_eq!(r.s.open_tasks(), 0);
    assert_eq!(r.sent(), [], "immediate commands leave no gap");
}

// Security class 18: a completion and a reclaim that cross each other end the command once.
#[test]
fn crossing_events_end_a_command_once() {
    let mut r = Rig::new(|p| p.task_reporting = TaskReporting::FastAbort);
    let (_, command) = r.submit(write(50_000));
    r.s.task_management(r.now, TaskFunction::AbortTaskSet(Lun::ZERO)).unwrap();
    r.sent();
    // The response was on its way up when the transfer was stopped: it has the buffers.
    r.scsi_response(command.itt, good());
    assert!(is_marked(&r.one_done().buffers));
    r.reclaim(command.itt);
    assert!(r.done().is_empty());
    // The other way round: the response comes without them.
    let (_, command) = r.submit(write(50_000));
    r.s.task_management(r.now, TaskFunction::AbortTaskSet(Lun::ZERO)).unwrap();
    r.sent();
    let stat_sn = r.next_stat_sn(r.c);
    let pdu =
        ScsiResponse { itt: command.itt, stat_sn, exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(109), ..good() };
    r.recv_raw(r.c, pdu, TaskBuffers::none());
    assert!(r.done().is_empty());
    r.reclaim(command.itt);
    let done = r.one_done();
    assert!(is_marked(&done.buffers) && done.result.is_ok());
}

/// A command that was not collected yet when its connection ended, and one that its datamover had no room for.
// req: 5047-5.4-1
#[test]
fn buffers_of_commands_that_were_never_sent_come_back() {
    let mut r = Rig::new(|_| {});
    r.s.submit(r.now, write(10)).unwrap();
    r.s.submit(r.now, write(20)).unwrap();
    let held = r.s.poll_action().unwrap().call;
    let cause = Cause::Transport(std::io::ErrorKind::ConnectionReset);
    let mut terminated = Terminated { cause, reclaimed: Vec::new() };
    held.reclaim(&mut terminated);
    r.s.handle_event(r.now, r.c, Event::Terminated(terminated));
    let mut lens: Vec<usize> = r
        .done()
        .into_iter()
        .map(|done| match done {
            Completion::Task(t) => t.buffers.out.map_or(0, |b| b.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    lens.sort_unstable();
    assert_eq!(lens, [10, 20]);
}

/// The response came up after the session was given up: nobody looks at it, but its buffers are the command's.
// req: 5047-5.4-1
#[test]
fn buffers_of_a_response_that_comes_too_late_come_back() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(plain());
    r.async_message(3, Lun::ZERO, [0, 2, 20]);
    r.scsi_response(command.itt, good());
    assert!(r.done().is_empty());
    r.lose(r.c, &[]);
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert!(is_marked(&done.buffers));
}

/// A login that was under way when the session was lost brings a connection too late: the numbers of the commands that
/// went with the others would keep the command window shut.
// req: 7143-7.15-1
#[test]
fn no_connection_joins_a_session_that_is_lost() {
    let mut r = Rig::new(|p| p.max_connections = 3);
    let second = r.connect();
    r.submit(read(512));
    let other = r.submit(read(512)).1.itt;
    r.lose(second, &[other]);
    r.actions();
    let late = r.connect();
    let actions = r.actions();
    assert!(matches!(&actions[..], [Action { conn, call: DownCall::ConnectionTerminate }] if *conn == late));
    assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::NoConnection);
    r.lose(r.c, &[]);
    r.lose(late, &[]);
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
}

/// A login that was under way when the session was logged out: nothing new goes on that connection, and when the Logout
/// Request is lost with its own, the session has none left to go on with.
// req: 7143-11.14-3
#[test]
fn a_connection_that_joins_late_is_logged_out_with_the_session() {
    for level in 0..=2 {
        let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, level));
        r.s.logout(r.now);
        assert!(matches!(r.one(), Pdu::LogoutRequest(_)));
        let late = r.connect();
        r.s.submit(r.now, plain()).unwrap_err();
        r.s.ping(r.now, late, &Bytes::new()).unwrap_err();
        r.lose(r.c, &[]);
        let actions = r.actions();
        let ended = |a: &Action| a.conn == late && matches!(a.call, DownCall::ConnectionTerminate);
        assert!(actions.iter().any(ended), "{actions:?}");
        r.lose(late, &[]);
        assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
    }
}

/// As above, when the target has answered already.
#[test]
fn a_connection_that_joins_a_closed_session_is_closed() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 2));
    r.s.logout(r.now);
    let Pdu::LogoutRequest(logout) = r.one() else { panic!() };
    let (itt, stat_sn) = (logout.itt, r.next_stat_sn(r.c));
    let numbers = LogoutResponse { exp_cmd_sn: CmdSn(100), max_cmd_sn: CmdSn(107), ..Default::default() };
    r.recv_raw(r.c, LogoutResponse { itt, stat_sn, ..numbers }, TaskBuffers::none());
    r.actions();
    let late = r.connect();
    let actions = r.actions();
    assert!(matches!(&actions[..], [Action { conn, call: DownCall::ConnectionTerminate }] if *conn == late));
    r.lose(r.c, &[]);
    r.lose(late, &[]);
    assert_eq!(r.events().last(), Some(&InitiatorEvent::Ended { closed: true, time2wait: Duration::ZERO }));
}

/// Buffers of a write that a function stopped come with a response on a connection that has been given up; that the
/// datamover has none of them, when it is told to let go of them, is true as well.
#[test]
fn buffers_of_a_stopped_write_are_not_forgotten() {
    let mut r = Rig::new(|p| {
        (p.max_connections, p.error_recovery_level) = (2, 1);
        p.task_reporting = TaskReporting::FastAbort;
    });
    r.connect();
    let itt = r.submit(write(512)).1.itt;
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    r.s.lose_connection(r.c, &EndCause::Unresponsive);
    let response = ScsiResponse { stat_sn: StatSn(FIRST_STAT_SN), ..good() };
    r.recv_raw(r.c, ScsiResponse { itt, ..response }, marked());
    r.s.handle_event(r.now, r.c, Event::TaskReclaimed { itt, reclaimed: Reclaimed::default() });
    r.lose(r.c, &[]);
    let logout = r.sent().into_iter().find(|p| matches!(p, Pdu::LogoutRequest(_))).unwrap();
    let numbers = LogoutResponse { exp_cmd_sn: CmdSn(101), max_cmd_sn: CmdSn(107), ..Default::default() };
    let answer = LogoutResponse { itt: logout.itt(), stat_sn: StatSn(2 * FIRST_STAT_SN), ..numbers };
    r.recv_raw(ConnId(1), answer, TaskBuffers::none());
    let done = r.done();
    let ended = done.iter().find_map(|d| if let Completion::Task(t) = d { Some(t) } else { None }).unwrap();
    assert!(is_marked(&ended.buffers), "{done:?}");
}

/// The target refuses to close the session, rejects the request, or is silent: the session is over all the same, and
/// with it connections that nothing may be sent on any more.
// req: 7143-11.14-3
#[test]
fn a_session_whose_logout_fails_is_lost_with_all_its_connections() {
    for level in 0..=2 {
        for how in ["refused", "rejected", "silent"] {
            let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, level));
            let other = r.connect();
            r.s.logout(r.now);
            let logout = r.one();
            match how {
                "refused" => {
                    let (itt, stat_sn) = (logout.itt(), r.next_stat_sn(r.c));
                    let numbers = LogoutResponse {
                        exp_cmd_sn: CmdSn(100),
                        max_cmd_sn: CmdSn(107),
                        ..Default::default()
                    };
                    // 3: cleanup failed for various reasons (section 11.15.1).
                    let refusal = LogoutResponse { response: LogoutStatus(3), itt, stat_sn, ..numbers };
                    r.recv_raw(r.c, refusal, TaskBuffers::none());
                }
                "rejected" => r.reject(4, &logout),
                _ => r.after(Duration::from_secs(15)),
            }
            let ended = |a: &Action| matches!(a.call, DownCall::ConnectionTerminate).then_some(a.conn);
            let closed: Vec<ConnId> = r.actions().iter().filter_map(ended).collect();
            assert_eq!(closed, [r.c, other], "{how} at level {level}");
            r.lose(r.c, &[]);
            r.lose(other, &[]);
            let events = r.events();
            assert!(!events.iter().any(|e| matches!(e, InitiatorEvent::ConnectionNeeded { .. })));
            assert!(matches!(events.last(), Some(InitiatorEvent::Ended { closed: false, .. })));
        }
    }
}

/// A target that completes commands and never acknowledges them: what is remembered of their numbers is bounded, and
/// filling them all after the loss of a connection takes time that grows with their count, not with its square.
// req: 7143-7.2.1-1
#[test]
fn numbers_that_are_never_acknowledged_are_bounded() {
    let mut r = Rig::new(|p| (p.error_recovery_level, p.max_connections) = (2, 2));
    let c = r.c;
    let mut refused = None;
    for n in 0..70_000_u32 {
        r.s.window.update(CmdSn(100), CmdSn(100 + n));
        match r.s.submit(r.now, plain()) {
            Ok(tag) => {
                r.actions();
                let stat_sn = r.next_stat_sn(c);
                let response = ScsiResponse { itt: Itt(crate::slab::Key(tag.0).to_tag()), stat_sn, ..good() };
                let response =
                    ScsiResponse { exp_cmd_sn: CmdSn(100), max_cmd_sn: CmdSn(100 + n), ..response };
                r.recv_raw(c, response, TaskBuffers::none());
            }
            Err(why) => refused = refused.or(Some((n, why.why))),
        }
    }
    assert_eq!(r.done().len(), 1 << 16);
    assert_eq!(refused, Some((1 << 16, Refusal::WindowClosed)));
    // What is sent again is remembered once.
    for _ in 0..10 {
        r.s.plug(c, CmdSn(100));
        r.s.plug(c, CmdSn(99));
    }
    let sent = &r.s.conn(c).unwrap().sent;
    assert_eq!((sent.len(), sent.front(), sent.back()), (1 << 16, Some(&CmdSn(100)), Some(&CmdSn(65_635))));
    r.actions();
    let other = r.connect();
    r.lose(c, &[]);
    r.after(Duration::from_secs(2));
    let request = r.sent().into_iter().find(|p| matches!(p, Pdu::LogoutRequest(_))).unwrap();
    super::reassign::answer(&mut r, other, request.itt(), 0, 100);
    let filled = r.sent().iter().filter(|p| matches!(p, Pdu::NopOut(n) if !n.immediate)).count();
    assert!(filled >= 65_000, "{filled}");
}
