//! Connection recovery at the initiator: RFC 7143 sections 7.1.4.3, 7.2, 7.5, 7.14.

use super::*;

/// Connections 1 and 2; commands 100 and 101 on the first, of which the target has the first.
pub(super) fn rig() -> (Rig, ConnId, Vec<(TaskTag, ScsiCommand)>) {
    let mut r = Rig::new(|p| {
        p.error_recovery_level = 2;
        p.max_connections = 2;
    });
    let commands = vec![r.submit(read(512)), r.submit(write(64))];
    let other = r.connect();
    (r, other, commands)
}

pub(super) fn lose_with_progress(r: &mut Rig, conn: ConnId, open: &[(Itt, u32)]) {
    let reclaimed = open
        .iter()
        .map(|(itt, next)| {
            let input = datamover::InputProgress { next: DataSn(*next), ..Default::default() };
            let r#in = Some(IoBuf::zeroed(512).into());
            let buffers = TaskBuffers { out: None, r#in };
            (*itt, Reclaimed { buffers, input, ..Reclaimed::default() })
        })
        .collect();
    let cause = Cause::Transport(std::io::ErrorKind::ConnectionReset);
    r.s.handle_event(r.now, conn, Event::Terminated(Terminated { cause, reclaimed }));
}

pub(super) fn logout(pdu: Pdu) -> LogoutRequest {
    match pdu {
        Pdu::LogoutRequest(l) => l,
        other => panic!("no Logout Request: {other:?}"),
    }
}

pub(super) fn answer(r: &mut Rig, on: ConnId, itt: Itt, response: u8, exp_cmd_sn: u32) {
    let stat_sn = r.next_stat_sn(on);
    let pdu = LogoutResponse {
        response: LogoutStatus(response),
        itt,
        stat_sn,
        exp_cmd_sn: CmdSn(exp_cmd_sn),
        max_cmd_sn: CmdSn(107),
        time2wait: 1,
        time2retain: 10,
    };
    r.recv_raw(on, pdu, TaskBuffers::none());
}

pub(super) fn reassign_answer(r: &mut Rig, on: ConnId, itt: Itt, response: u8) {
    let stat_sn = r.next_stat_sn(on);
    let pdu = TaskMgmtResponse {
        response: TaskMgmtStatus(response),
        itt,
        stat_sn,
        exp_cmd_sn: CmdSn(102),
        max_cmd_sn: CmdSn(107),
        ..TaskMgmtResponse::default()
    };
    r.recv_raw(on, pdu, TaskBuffers::none());
}

// req: 7143-7.1.4.3-2, 7143-11.14-8, 7143-11.14-10, 7143-7.2.2-1, 7143-7.5-1, 7143-7.5-3, 7143-7.2.1-4
// req: 7143-11.5.1-22, 7143-11.5.6-4, 7143-11.15.3-1, 7143-7.14-3, 7143-4.2.2.1-20
#[test]
fn at_level_2_a_lost_connection_is_logged_out_and_its_commands_go_on_on_another() {
    let (mut r, other, commands) = rig();
    let (tag, itt) = (commands[0].0, commands[0].1.itt);
    let c = r.c;
    lose_with_progress(&mut r, c, &[(itt, 3), (commands[1].1.itt, 0)]);
    assert!(r.done().is_empty());
    assert_eq!(r.s.conn_state(r.c), ConnState::CleanupWait);
    // DefaultTime2Wait is 2 seconds.
    r.after(Duration::from_millis(1999));
    assert!(r.sent_on().is_empty());
    r.after(Duration::from_millis(1));
    let [(on, request)] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, other);
    let want = LogoutRequest {
        immediate: true,
        reason: LogoutReason::RemoveForRecovery,
        itt: request.itt(),
        cid: Cid(1),
        cmd_sn: CmdSn(102),
        exp_stat_sn: StatSn(1000),
    };
    assert_eq!(logout(request.clone()), want);
    // The target has 100, not 101: that is sent again, at once.
    answer(&mut r, other, want.itt, 0, 101);
    let [(on, again)] = &r.sent_on()[..] else { panic!() };
    assert_eq!((*on, again.itt(), again.cmd_sn()), (other, commands[1].1.itt, Some(CmdSn(101))));
    // The other is reassigned after the Time2Wait of the response.
    r.after(Duration::from_millis(999));
    assert!(r.sent().is_empty());
    r.after(Duration::from_millis(1));
    let mut actions = r.actions();
    assert_eq!(actions.len(), 1);
    let DownCall::SendControl(control) = actions.remove(0).call else { panic!() };
    assert!(control.buffers.r#in.is_some(), "the buffers go along");
    let Pdu::TaskMgmtRequest(request) = control.pdu else { panic!() };
    assert_eq!((request.immediate, request.function), (true, TaskMgmtFunction::TaskReassign));
    assert_eq!((request.referenced_task_tag, request.exp_data_sn), (itt, DataSn(3)));
    reassign_answer(&mut r, other, request.itt, 0);
    assert!(r.done().is_empty());
    let stat_sn = r.next_stat_sn(other);
    let pdu = ScsiResponse { itt, stat_sn, exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(107), ..good() };
    r.recv_raw(other, pdu, marked());
    assert_eq!(r.one_done().tag, tag);
    assert_eq!(r.s.conn_state(r.c), ConnState::Free);
    r.after(Duration::from_secs(60));
    assert!(!r.events().iter().any(|e| matches!(e, InitiatorEvent::Ended { .. })));
}

/// Event 5 comes before the answer to a reassignment: the task was not on this connection when the target sent it.
// req: 7143-4.2.3.5-4, 7143-7.1.4.3-2
#[test]
fn a_task_that_is_being_reassigned_is_not_among_those_that_another_nexus_ended() {
    let (mut r, other, commands) = rig();
    let (tag, itt) = (commands[0].0, commands[0].1.itt);
    let c = r.c;
    lose_with_progress(&mut r, c, &[(itt, 3), (commands[1].1.itt, 0)]);
    r.after(Duration::from_secs(2));
    let request = r.sent().remove(0);
    answer(&mut r, other, request.itt(), 0, 102);
    r.after(Duration::from_secs(1));
    let sent = r.sent();
    let [Pdu::TaskMgmtRequest(first), Pdu::TaskMgmtRequest(second)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(first.referenced_task_tag, itt);
    // The answer to the second has come: that one is.
    reassign_answer(&mut r, other, second.itt, 0);
    let event = AsyncMessage {
        lun: commands[0].1.lun,
        event: AsyncEvent::TasksTerminated,
        stat_sn: r.next_stat_sn(other),
        exp_cmd_sn: CmdSn(102),
        max_cmd_sn: CmdSn(107),
        ..AsyncMessage::default()
    };
    r.recv_raw(other, event, TaskBuffers::none());
    let reclaimed = Reclaimed { buffers: marked(), ..Reclaimed::default() };
    r.s.handle_event(r.now, other, Event::TaskReclaimed { itt: commands[1].1.itt, reclaimed });
    let ended = r.one_done();
    assert_eq!((ended.tag, ended.result), (commands[1].0, Err(TaskFailure::Terminated)));
    reassign_answer(&mut r, other, first.itt, 0);
    let stat_sn = r.next_stat_sn(other);
    let pdu = ScsiResponse { itt, stat_sn, exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(107), ..good() };
    r.recv_raw(other, pdu, marked());
    let done = r.one_done();
    assert_eq!((done.tag, done.result.map(|s| s.status)), (tag, Ok(ScsiStatus::Good)));
}

/// The other connection is lost too, after the logout and before the reassignment is due.
// req: 7143-7.1.4.3-2
#[test]
fn a_reassignment_that_is_due_waits_for_a_connection() {
    let (mut r, other, commands) = rig();
    let itt = commands[0].1.itt;
    let c = r.c;
    lose_with_progress(&mut r, c, &[(itt, 3), (commands[1].1.itt, 0)]);
    r.after(Duration::from_secs(2));
    let [(_, request)] = &r.sent_on()[..] else { panic!() };
    // The target has both.
    answer(&mut r, other, request.itt(), 0, 102);
    assert!(r.sent().is_empty());
    lose_with_progress(&mut r, other, &[]);
    r.after(Duration::from_millis(1500));
    assert!(r.sent().is_empty(), "it is due, and there is nowhere to send it");
    assert!(r.done().is_empty());
    let third = r.connect();
    let sent: Vec<(ConnId, Itt)> = r
        .sent_on()
        .into_iter()
        .filter_map(|(on, pdu)| match pdu {
            Pdu::TaskMgmtRequest(t) => Some((on, t.referenced_task_tag)),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [(third, itt), (third, commands[1].1.itt)]);
    assert!(r.done().is_empty());
}

// req: 7143-7.1.4.3-3, 7143-7.2.1-4, 7143-7.1.4.3-2, 7143-6.3.4-4
#[test]
fn at_level_2_the_last_connection_is_replaced() {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    let (_, command) = r.submit(read(512));
    let c = r.c;
    lose_with_progress(&mut r, c, &[(command.itt, 0)]);
    let wait = Duration::from_secs(2);
    let needed = InitiatorEvent::ConnectionNeeded {
        cid: Cid(1),
        not_before: wait,
        within: wait + Duration::from_secs(20),
    };
    assert_eq!(r.events().last(), Some(&needed));
    assert_eq!(r.s.conn_state(c), ConnState::CleanupWait);
    r.after(wait);
    // A login with the same CID is the logout.
    r.stat_sn.clear();
    let new = r.connect();
    r.stat_sn.insert(0, 0);
    r.actions();
    assert_eq!(new, ConnId(1));
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// req: 7143-7.2.2-8
#[test]
fn a_task_that_the_target_does_not_know_any_more_is_over() {
    let (mut r, other, commands) = rig();
    r.lose(r.c, &[commands[0].1.itt, commands[1].1.itt]);
    r.after(Duration::from_secs(2));
    let request = logout(r.one());
    answer(&mut r, other, request.itt, 0, 102);
    r.after(Duration::from_secs(1));
    let requests: Vec<Itt> = r.sent().iter().map(Pdu::itt).collect();
    assert_eq!(requests.len(), 2);
    reassign_answer(&mut r, other, requests[0], 1);
    let reclaimed = Reclaimed { buffers: marked(), ..Reclaimed::default() };
    r.s.handle_event(r.now, other, Event::TaskReclaimed { itt: commands[0].1.itt, reclaimed });
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert!(is_marked(&done.buffers));
    // "Task still allegiant": it may still be executed, which only a new session can exclude.
    reassign_answer(&mut r, other, requests[1], 3);
    assert!(r.actions().iter().any(|a| a.conn == other && matches!(a.call, DownCall::ConnectionTerminate)));
}

// req: 7143-7.5-2
#[test]
fn what_is_not_recovered_in_time_is_over() {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    let (_, command) = r.submit(write(64));
    r.lose(r.c, &[command.itt]);
    r.after(Duration::from_secs(21));
    assert!(r.done().is_empty());
    r.after(Duration::from_secs(1));
    let done = r.one_done();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert!(is_marked(&done.buffers));
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: false, .. })));
}

/// Numbers of requests that are over would be gaps for ever.
// req: 7143-7.14-5
#[test]
fn immediate_commands_end_and_numbers_without_a_command_are_filled() {
    let mut r = Rig::new(|p| {
        p.error_recovery_level = 2;
        p.max_connections = 2;
    });
    let (_, immediate) = r.submit(Command { immediate: true, ..plain() });
    let (aborted, gone) = r.submit(plain());
    let other = r.connect();
    r.s.end_task(crate::slab::Key(aborted.0), TaskFailure::Aborted);
    r.actions();
    r.lose(r.c, &[immediate.itt, gone.itt]);
    assert_eq!(r.done().len(), 2);
    r.after(Duration::from_secs(2));
    let request = logout(r.one());
    answer(&mut r, other, request.itt, 0, 100);
    let Pdu::NopOut(plug) = r.one() else { panic!() };
    assert_eq!((plug.immediate, plug.cmd_sn), (false, CmdSn(100)));
}

// req: 7143-7.2.2-11, 7145-7.3.3-8, 7145-3.3-5, 7145-10.2.2-2
#[test]
fn exp_data_sn_is_0_where_there_is_no_input_and_on_iser() {
    for (rdma, input) in [(true, true), (true, false), (false, false)] {
        let mut r = Rig::new(|p| {
            p.error_recovery_level = 2;
            p.rdma_extensions = rdma;
        });
        let (_, command) = r.submit(if input { read(512) } else { write(512) });
        let other = r.connect();
        if input {
            let c = r.c;
            lose_with_progress(&mut r, c, &[(command.itt, 3)]);
        } else {
            r.lose(r.c, &[command.itt]);
        }
        r.after(Duration::from_secs(2));
        let request = logout(r.one());
        answer(&mut r, other, request.itt, 0, 101);
        r.after(Duration::from_secs(1));
        let mut actions = r.actions();
        let DownCall::SendControl(control) = actions.remove(0).call else { panic!() };
        let Pdu::TaskMgmtRequest(request) = control.pdu else { panic!() };
        assert_eq!(request.exp_data_sn, DataSn(0));
        // The output goes along, to be advertised anew: all of it, none being unsolicited now.
        assert_eq!((control.buffers.out.is_some(), control.unsolicited), (!input, 0));
    }
}

/// All connections time out together, and another comes before the recovery may begin: what the target never had is not
/// given up with its number unused, for that would shut the target's window for good.
// req: 7143-7.2.1-1, 7143-7.2.1-4, 7143-4.2.2.1-20
#[test]
fn what_the_target_never_had_is_sent_again_when_time_2_retain_is_over() {
    let mut r = Rig::new(|p| {
        p.error_recovery_level = 2;
        p.max_connections = 3;
        p.default_time2retain = 0;
    });
    let second = r.connect();
    let (had, first) = r.submit(read(512));
    let (_, never_had) = r.submit(write(64));
    r.lose(r.c, &[first.itt]);
    r.lose(second, &[never_had.itt]);
    r.after(Duration::from_millis(100));
    let third = r.connect();
    r.actions();
    // DefaultTime2Wait and with it DefaultTime2Retain are over.
    r.after(Duration::from_millis(1900));
    assert!(r.done().is_empty(), "nothing says yet that the target is done with them");
    let requests: Vec<LogoutRequest> = r.sent().into_iter().map(logout).collect();
    assert_eq!(requests.iter().map(|l| l.cid).collect::<Vec<_>>(), [Cid(1), Cid(2)]);
    // The target knows neither connection any more, and expects the second command.
    answer(&mut r, third, requests[0].itt, 1, 101);
    assert_eq!(r.one_done().tag, had);
    assert!(r.sent().is_empty());
    answer(&mut r, third, requests[1].itt, 1, 101);
    let Pdu::ScsiCommand(again) = r.one() else { panic!() };
    assert_eq!((again.itt, again.cmd_sn, again.cdb), (never_had.itt, CmdSn(101), never_had.cdb));
    assert!(r.done().is_empty());
}

/// The connection that carries a recovery logout is lost, too: another carries it at once.
// req: 7143-7.2.2-1
#[test]
fn a_recovery_survives_the_loss_of_its_carrier() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 2));
    let (second, third) = (r.connect(), r.connect());
    let (_, command) = r.submit(read(512));
    r.lose(r.c, &[command.itt]);
    r.after(Duration::from_secs(2));
    let sent = r.sent_on();
    assert!(matches!(&sent[..], [(on, Pdu::LogoutRequest(l))] if *on == second && l.cid == Cid(1)));
    r.lose(second, &[]);
    let sent = r.sent_on();
    assert!(
        matches!(&sent[..], [(on, Pdu::LogoutRequest(l))] if *on == third && l.cid == Cid(1)),
        "{sent:?}"
    );
}

/// A target that never answers a recovery logout: the session does not wait for ever.
// req: 7143-7.1.4.4-1
#[test]
fn a_recovery_logout_without_an_answer_is_session_recovery() {
    let hour = Duration::from_secs(3600);
    let cfg = InitiatorConfig { ping_after: None, probe_after: hour, ..InitiatorConfig::default() };
    let mut r = Rig::with_config(cfg, |p| (p.max_connections, p.error_recovery_level) = (2, 2));
    let (_, command) = r.submit(read(512));
    let other = r.connect();
    r.lose(r.c, &[command.itt]);
    r.after(Duration::from_secs(2));
    for _ in 0..3 {
        let sent = r.sent_on();
        assert!(matches!(&sent[..], [(on, Pdu::LogoutRequest(_))] if *on == other), "{sent:?}");
        assert!(r.done().is_empty());
        r.after(InitiatorConfig::default().logout_timeout);
    }
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
    assert_eq!(r.s.state(), SessionState::Failed);
}

/// On iSER a ping has a number of its own where the target may hold no further immediate PDU. While it is under way the
/// number is no gap, whatever becomes of another connection.
// req: 7145-8.1.1.3-1, 7143-7.2.1-1
#[test]
fn the_number_of_a_ping_is_not_given_to_another_request() {
    let mut r = Rig::new(|p| {
        (p.error_recovery_level, p.max_connections, p.rdma_extensions) = (2, 2, true);
    });
    r.submit(plain());
    let other = r.connect();
    r.s.conn_mut(other).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(1);
    for (immediate, cmd_sn) in [(true, 101), (false, 101)] {
        r.s.ping(r.now, other, &Bytes::new()).unwrap();
        let Pdu::NopOut(nop) = r.one() else { panic!() };
        assert_eq!((nop.immediate, nop.cmd_sn), (immediate, CmdSn(cmd_sn)));
    }
    r.lose(r.c, &[]);
    r.after(Duration::from_secs(2));
    assert_eq!(r.sent(), [], "no room for the logout");
    r.s.conn_mut(other).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(2);
    r.after(Duration::from_millis(1));
    let logout = logout(r.one());
    answer(&mut r, other, logout.itt, 0, 101);
    assert_eq!(r.sent(), [], "101 is on its way");
}

/// A TASK REASSIGN that was not sent yet when its connection was lost has the buffers of the task that it is for, which
/// go on to the next connection with it, and with how far the task had got.
// req: 7143-11.5.6-4
#[test]
fn buffers_of_a_reassignment_that_was_never_sent_stay_with_their_task() {
    let (mut r, other, commands) = rig();
    let (first, itts) = (r.c, [commands[0].1.itt, commands[1].1.itt]);
    lose_with_progress(&mut r, first, &[(itts[0], 3), (itts[1], 0)]);
    r.after(Duration::from_secs(2));
    let request = logout(r.one());
    answer(&mut r, other, request.itt, 0, 102);
    assert!(r.sent().is_empty());
    r.after(Duration::from_secs(1));
    r.lose(other, &[]);
    r.after(Duration::from_secs(2));
    let third = r.connect();
    let request = logout(r.one());
    answer(&mut r, third, request.itt, 0, 102);
    r.after(Duration::from_secs(1));
    let reassigned: Vec<_> = r
        .actions()
        .into_iter()
        .filter_map(|a| match a.call {
            DownCall::SendControl(Control { pdu: Pdu::TaskMgmtRequest(t), buffers, .. }) => {
                Some((t.referenced_task_tag, t.exp_data_sn, buffers.r#in.is_some()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(reassigned, [(itts[0], DataSn(3), true), (itts[1], DataSn(0), true)]);
}

/// What was lost on the old connection comes anew on the other: the status counts again.
// req: 7143-7.2.2-2
#[test]
fn input_that_was_lost_with_its_connection_is_not_lost() {
    let (mut r, other, commands) = rig();
    let (tag, itt) = (commands[0].0, commands[0].1.itt);
    let result = Err(datamover::DataError::Digest);
    let done = datamover::DataCompletion { itt, offset: 0, data: None, result };
    r.s.handle_event(r.now, r.c, Event::DataCompletion(done));
    let c = r.c;
    lose_with_progress(&mut r, c, &[(itt, 3), (commands[1].1.itt, 0)]);
    r.after(Duration::from_secs(2));
    let request = r.sent().into_iter().find(|p| matches!(p, Pdu::LogoutRequest(_))).unwrap();
    answer(&mut r, other, request.itt(), 0, 102);
    r.after(Duration::from_secs(1));
    let reassign = r.sent().into_iter().find(|p| {
        matches!(p, Pdu::TaskMgmtRequest(t)
            if t.function == TaskMgmtFunction::TaskReassign && t.referenced_task_tag == itt)
    });
    reassign_answer(&mut r, other, reassign.unwrap().itt(), 0);
    let stat_sn = r.next_stat_sn(other);
    let pdu = ScsiResponse { itt, stat_sn, exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(107), ..good() };
    r.recv_raw(other, pdu, marked());
    let done = r.one_done();
    assert_eq!((done.tag, done.result.unwrap().status), (tag, ScsiStatus::Good));
    assert!(r.sent().iter().all(|p| !matches!(p, Pdu::TaskMgmtRequest(t)
        if t.function == TaskMgmtFunction::AbortTask)));
}

/// A target that holds three immediate PDUs: the logout and two reassignments, the others when a ping with a number of its
/// own is acknowledged.
// req: 7145-8.1.1.3-1, 7145-8.1.1.3-4
#[test]
fn reassignments_wait_for_room_at_the_target() {
    let mut r = Rig::new(|p| {
        (p.error_recovery_level, p.max_connections, p.rdma_extensions) = (2, 2, true);
    });
    let itts: Vec<Itt> = (0..4).map(|_| r.submit(read(512)).1.itt).collect();
    let other = r.connect();
    r.s.conn_mut(other).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(3);
    let c = r.c;
    lose_with_progress(&mut r, c, &itts.iter().map(|itt| (*itt, 0)).collect::<Vec<_>>());
    r.after(Duration::from_secs(2));
    let request = logout(r.one());
    answer(&mut r, other, request.itt, 0, 104);
    r.after(Duration::from_secs(1));
    let reassigned = |sent: &[Pdu]| -> Vec<Itt> {
        sent.iter()
            .filter_map(|p| match p {
                Pdu::TaskMgmtRequest(t) => Some(t.referenced_task_tag),
                _ => None,
            })
            .collect()
    };
    let sent = r.sent();
    assert_eq!(reassigned(&sent), itts[..2]);
    let [_, _, Pdu::NopOut(ping)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((ping.immediate, ping.cmd_sn), (false, CmdSn(104)));
    r.after(Duration::from_millis(1));
    assert_eq!(r.sent(), [], "it is asked once");
    let pong = NopIn {
        itt: ping.itt,
        ttt: Ttt::NONE,
        stat_sn: r.next_stat_sn(other),
        exp_cmd_sn: CmdSn(105),
        max_cmd_sn: CmdSn(112),
        ..NopIn::default()
    };
    r.recv_raw(other, pong, TaskBuffers::none());
    let sent = r.sent();
    assert_eq!((reassigned(&sent), sent.len()), (itts[2..].to_vec(), 2));
}

/// SCSI Commands sent, with their connections, and whether buffers went along.
fn commands_on(r: &mut Rig) -> Vec<(ConnId, Itt, bool)> {
    r.actions()
        .into_iter()
        .filter_map(|a| match a.call {
            DownCall::SendControl(Control { pdu: Pdu::ScsiCommand(c), buffers, .. }) => {
                Some((a.conn, c.itt, !buffers.is_none()))
            }
            _ => None,
        })
        .collect()
}

/// The Logout Response waits for a response before it that was lost, and is looked at when its connection is lost, too.
/// What the target has not had goes out once there is a connection for it, with its buffers, and is not logged out again.
// req: 7143-7.2.1-4, 7143-7.14-3
#[test]
fn a_recovery_goes_on_where_there_is_a_connection_when_its_carrier_is_lost_with_the_answer() {
    for another in [true, false] {
        let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 2));
        let commands = [r.submit(read(512)), r.submit(write(64))];
        let (had, never_had) = (commands[0].1.itt, commands[1].1.itt);
        let mut others = vec![r.connect()];
        if another {
            others.push(r.connect());
        }
        r.lose(r.c, &[had, never_had]);
        r.after(Duration::from_secs(2));
        let [(on, request)] = &r.sent_on()[..] else { panic!() };
        let (on, request) = (*on, request.itt());
        r.next_stat_sn(on);
        answer(&mut r, on, request, 0, 101);
        assert!(commands_on(&mut r).is_empty(), "its turn has not come");
        r.lose(on, &[]);
        if !another {
            assert_eq!(commands_on(&mut r), []);
            r.after(Duration::from_secs(1));
            assert_eq!(r.sent(), [], "what the target never had cannot be reassigned");
            others.push(r.connect());
        }
        let third = others[1];
        assert_eq!(commands_on(&mut r), [(third, never_had, true)]);
        r.after(Duration::from_secs(if another { 1 } else { 0 }));
        let sent = r.sent_on();
        let reassign = sent.iter().find_map(|(on, pdu)| match pdu {
            Pdu::TaskMgmtRequest(t) => Some((*on, t.function, t.referenced_task_tag)),
            _ => None,
        });
        assert_eq!(reassign, Some((third, TaskMgmtFunction::TaskReassign, had)), "{sent:?}");
        assert!(!sent.iter().any(|(_, p)| matches!(p, Pdu::LogoutRequest(l) if l.cid == Cid(1))), "{sent:?}");
        assert!(r.done().is_empty());
    }
}

/// The connection that carries a recovery begins its own logout meanwhile: nothing may follow that.
// req: 7143-11.14-2
#[test]
fn a_recovery_sends_no_command_behind_the_logout_of_its_carrier() {
    let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (3, 2));
    let never_had = r.submit(write(64)).1.itt;
    let (second, third) = (r.connect(), r.connect());
    r.lose(r.c, &[never_had]);
    r.after(Duration::from_secs(2));
    let [(on, request)] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, second);
    let request = request.itt();
    r.s.retire_connection(r.now, second, Duration::ZERO);
    assert!(matches!(r.one(), Pdu::LogoutRequest(l) if l.cid == Cid(2)));
    answer(&mut r, second, request, 0, 100);
    assert_eq!(commands_on(&mut r), [(third, never_had, true)]);
}

/// A logout that was repeated is answered twice: that the connection is not known any more, the second time, is no news.
// req: 7143-7.2.2-1
#[test]
fn a_second_answer_to_a_recovery_logout_changes_nothing() {
    let (mut r, other, commands) = rig();
    r.lose(r.c, &[commands[0].1.itt, commands[1].1.itt]);
    r.after(Duration::from_secs(2));
    let first = logout(r.one()).itt;
    r.after(InitiatorConfig::default().logout_timeout);
    let second = r.sent().into_iter().find(|p| matches!(p, Pdu::LogoutRequest(_))).unwrap().itt();
    answer(&mut r, other, first, 0, 102);
    answer(&mut r, other, second, 1, 102);
    assert!(r.done().is_empty());
    r.after(Duration::from_secs(1));
    let reassigned = r.sent().into_iter().filter(|p| matches!(p, Pdu::TaskMgmtRequest(_))).count();
    assert_eq!(reassigned, 2);
}
