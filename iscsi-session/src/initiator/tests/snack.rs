//! Recovery within a connection at the initiator: RFC 7143 sections 7.1.4.2, 7.2.1, 7.8, 7.9.

use super::*;

fn rig() -> Rig {
    Rig::new(|p| p.error_recovery_level = 1)
}

fn response(itt: Itt, stat_sn: u32) -> ScsiResponse {
    ScsiResponse { itt, stat_sn: StatSn(stat_sn), exp_cmd_sn: CmdSn(103), max_cmd_sn: CmdSn(110), ..good() }
}

fn nop_in(itt: Itt, stat_sn: u32, exp_cmd_sn: u32) -> NopIn {
    NopIn {
        itt,
        ttt: Ttt::NONE,
        stat_sn: StatSn(stat_sn),
        exp_cmd_sn: CmdSn(exp_cmd_sn),
        max_cmd_sn: CmdSn(110),
        ..NopIn::default()
    }
}

fn snack(pdu: Pdu) -> Snack {
    match pdu {
        Pdu::Snack(s) => s,
        other => panic!("no SNACK: {other:?}"),
    }
}

fn tags(done: &[Completion]) -> Vec<TaskTag> {
    done.iter()
        .map(|c| match c {
            Completion::Task(t) => t.tag,
            other => panic!("{other:?}"),
        })
        .collect()
}

// req: 7143-7.9-3, 7143-7.8-10, 7143-11.16-1, 7143-11.16.4-1, 7143-11.16.5-4, 7143-4.2.5.1-5, 7143-7.1.4-2
#[test]
fn a_lost_response_is_asked_for_and_those_behind_it_wait() {
    let mut r = rig();
    let (first, a) = r.submit(plain());
    let (second, b) = r.submit(plain());
    let (third, c) = r.submit(plain());
    r.recv_raw(r.c, response(b.itt, 1001), marked());
    assert!(r.done().is_empty());
    let want = Snack {
        kind: SnackType::Status,
        itt: Itt::NONE,
        ttt_or_snack_tag: Ttt::NONE,
        exp_stat_sn: StatSn(1000),
        beg_run: 1000,
        run_length: 1,
        ..Snack::default()
    };
    assert_eq!(snack(r.one()), want);
    r.recv_raw(r.c, response(c.itt, 1002), marked());
    assert!(r.sent().is_empty(), "it was asked for already");
    r.recv_raw(r.c, response(a.itt, 1000), marked());
    assert_eq!(tags(&r.done()), [first, second, third]);
    // What comes twice is old news, and all is acknowledged.
    r.recv_raw(r.c, response(b.itt, 1001), TaskBuffers::none());
    assert!(r.done().is_empty());
    assert_eq!(r.submit(plain()).1.exp_stat_sn, StatSn(1003));
}

// req: 7143-7.9-3, 7143-7.8-10, 7143-7.8-12
#[test]
fn a_snack_is_repeated_and_then_the_connection_given_up() {
    let mut r = rig();
    let (_, a) = r.submit(plain());
    r.recv_raw(r.c, nop_in(Itt::NONE, 1001, 101), TaskBuffers::none());
    assert_eq!(snack(r.one()).beg_run, 1000);
    for _ in 0..2 {
        r.after(Duration::from_secs(5));
        let again = r.sent().into_iter().find(|p| matches!(p, Pdu::Snack(_))).unwrap();
        assert_eq!((snack(again.clone()).beg_run, snack(again).run_length), (1000, 1));
    }
    r.after(Duration::from_secs(5));
    assert!(r.actions().iter().any(|a| matches!(a.call, DownCall::ConnectionTerminate)));
    r.lose(r.c, &[a.itt]);
    assert_eq!(r.one_done().result, Err(TaskFailure::ConnectionLost));
}

/// A flood of responses that nobody asked for does not grow without bound.
#[test]
fn a_target_that_runs_ahead_is_cut_off() {
    let mut r = rig();
    for n in 0..1100 {
        let pdu = AsyncMessage {
            event: AsyncEvent(255),
            stat_sn: StatSn(1001 + n),
            exp_cmd_sn: CmdSn(100),
            max_cmd_sn: CmdSn(107),
            ..AsyncMessage::default()
        };
        r.recv_raw(r.c, pdu, TaskBuffers::none());
    }
    assert!(r.actions().iter().any(|a| matches!(a.call, DownCall::ConnectionTerminate)));
}

// req: 7143-7.2.1-1, 7143-7.2.1-3, 7143-7.2.1-4, 7143-4.2.2.1-20
#[test]
fn a_command_that_the_target_has_not_had_is_sent_again_as_it_was() {
    let mut r = Rig::new(|p| {
        p.error_recovery_level = 1;
        p.initial_r2t = false;
    });
    let tag = r.s.submit(r.now, write(3000)).unwrap();
    let first = r.sent();
    let (_, second) = r.submit(plain());
    assert_eq!(first.len(), 3, "immediate data and two Data-Outs");
    // Silence: a ping.
    r.after(Duration::from_secs(3));
    let Pdu::NopOut(ping) = r.one() else { panic!() };
    r.recv_raw(r.c, nop_in(ping.itt, 1000, 100), TaskBuffers::none());
    let mut again = r.sent();
    // ExpStatSN is always current.
    if let Pdu::ScsiCommand(c) = &mut again[0] {
        assert_eq!(c.exp_stat_sn, StatSn(1001));
        c.exp_stat_sn = StatSn(1000);
    }
    for pdu in &mut again[1..] {
        let Pdu::DataOut(d) = pdu else { panic!() };
        d.exp_stat_sn = StatSn(1000);
    }
    assert_eq!(again, first);
    // Both are there now: nothing is repeated.
    r.after(Duration::from_secs(3));
    let Pdu::NopOut(ping) = r.one() else { panic!() };
    r.recv_raw(r.c, nop_in(ping.itt, 1001, 102), TaskBuffers::none());
    assert!(r.sent().is_empty());
    r.recv_raw(r.c, ScsiResponse { exp_cmd_sn: CmdSn(102), ..response(second.itt, 1002) }, marked());
    assert_eq!(r.done().len(), 1);
    assert_eq!(r.s.open_tasks(), 1);
    let _ = tag;
}

/// An answer to a ping that was sent before the command says nothing about it.
// req: 7143-7.2.1-1
#[test]
fn a_command_sent_after_the_ping_is_not_repeated() {
    let mut r = rig();
    r.s.ping(r.now, r.c, &Bytes::new()).unwrap();
    let Pdu::NopOut(ping) = r.one() else { panic!() };
    r.submit(plain());
    r.recv_raw(r.c, nop_in(ping.itt, 1000, 100), TaskBuffers::none());
    assert!(r.sent().is_empty());
}

/// Its data may not be sent any more, and its buffers are back: a NOP-Out takes its number, so that the function and what
/// is behind it are carried out.
// req: 7143-4.2.3.4-3, 7143-4.2.3.4-7
#[test]
fn a_lost_command_that_a_function_ends_is_not_sent_again() {
    for reclaimed in [true, false] {
        let mut r = Rig::new(|p| {
            (p.error_recovery_level, p.task_reporting) = (1, TaskReporting::FastAbort);
        });
        let (_, command) = r.submit(write(100));
        r.s.task_management(r.now, TaskFunction::AbortTaskSet(Lun::ZERO)).unwrap();
        let actions = r.actions();
        let request = actions.iter().find_map(|a| match &a.call {
            DownCall::SendControl(c) if matches!(c.pdu, Pdu::TaskMgmtRequest(_)) => Some(c.pdu.itt()),
            _ => None,
        });
        if reclaimed {
            r.reclaim(command.itt);
        }
        r.s.ping(r.now, r.c, &Bytes::new()).unwrap();
        let ping = r.one();
        let stat_sn = r.next_stat_sn(r.c).0;
        r.recv_raw(r.c, nop_in(ping.itt(), stat_sn, command.cmd_sn.0), TaskBuffers::none());
        assert!(matches!(r.done()[..], [Completion::Ping { .. }]));
        let Pdu::NopOut(plug) = r.one() else { panic!("not the command") };
        assert_eq!((plug.immediate, plug.cmd_sn), (false, command.cmd_sn));
        r.tmf_response(request.unwrap(), TaskMgmtStatus::FunctionComplete);
        if !reclaimed {
            r.reclaim(command.itt);
        }
        let done = r.done();
        let Some(Completion::Task(task)) = done.first() else { panic!("{done:?}") };
        assert_eq!(task.result, Err(TaskFailure::Aborted));
        assert!(is_marked(&task.buffers));
        assert!(matches!(done[1..], [Completion::Function(_)]));
    }
}

/// Section 7.8: the command is retried, its immediate data with it.
// req: 7143-7.2.1-3
#[test]
fn a_command_rejected_for_its_data_digest_is_sent_again() {
    let mut r = rig();
    let (_, command) = r.submit(write(100));
    r.reject(2, &command.clone().into());
    let again = r.one();
    assert_eq!(again, ScsiCommand { exp_stat_sn: StatSn(1001), ..command }.into());
    assert!(r.done().is_empty());
}

/// One lost ping is no lost connection.
// req: 7143-7.14-1
#[test]
fn a_ping_without_an_answer_is_repeated() {
    let mut r = rig();
    r.submit(plain());
    r.after(Duration::from_secs(3));
    assert!(matches!(r.one(), Pdu::NopOut(_)));
    for _ in 0..2 {
        r.after(Duration::from_secs(15));
        assert_eq!(r.sent().iter().filter(|p| matches!(p, Pdu::NopOut(_))).count(), 1);
    }
    r.after(Duration::from_secs(15));
    assert!(r.actions().iter().any(|a| matches!(a.call, DownCall::ConnectionTerminate)));
}

/// Above level 0 requests other than commands have numbers of their own: a lost one is a gap (section 7.2.1).
// req: 7143-7.2.1-1, 7143-7.2.1-3
#[test]
fn a_lost_text_request_is_sent_again_as_it_was() {
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    let tag = r.s.text(r.now, Bytes::from_static(b"X-org.example.key=1\0")).unwrap();
    let Pdu::TextRequest(first) = r.one() else { panic!() };
    assert_eq!((first.immediate, first.cmd_sn), (false, CmdSn(100)));
    // Silence: a ping shows that the target expects it still.
    r.after(InitiatorConfig::default().probe_after);
    let Pdu::NopOut(ping) = r.one() else { panic!() };
    let pong = NopIn {
        itt: ping.itt,
        stat_sn: r.next_stat_sn(r.c),
        exp_cmd_sn: CmdSn(100),
        max_cmd_sn: CmdSn(107),
        ..NopIn::default()
    };
    r.recv_raw(r.c, pong, TaskBuffers::none());
    let Pdu::TextRequest(again) = r.one() else { panic!() };
    assert_eq!(TextRequest { exp_stat_sn: first.exp_stat_sn, ..again }, first);
    let answer = TextResponse {
        final_pdu: true,
        itt: first.itt,
        stat_sn: r.next_stat_sn(r.c),
        exp_cmd_sn: CmdSn(101),
        max_cmd_sn: CmdSn(108),
        ..TextResponse::default()
    };
    r.recv_raw(r.c, answer, TaskBuffers::none());
    assert!(matches!(&r.done()[..], [Completion::Text { tag: t, result: Ok(_) }] if *t == tag));
}

/// Nothing new may follow a Logout Request, not even a ping: it is repeated until its response comes or time is up.
// req: 7143-7.2.1-1, 7143-7.2.1-3, 7143-11.14-2
#[test]
fn a_logout_request_is_repeated() {
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    r.s.logout(r.now);
    let Pdu::LogoutRequest(first) = r.one() else { panic!() };
    assert_eq!((first.immediate, first.cmd_sn), (false, CmdSn(100)));
    for _ in 0..2 {
        r.after(InitiatorConfig::default().probe_after);
        assert_eq!(r.one(), first.clone().into());
    }
    let answer = LogoutResponse {
        itt: first.itt,
        stat_sn: r.next_stat_sn(r.c),
        exp_cmd_sn: CmdSn(101),
        max_cmd_sn: CmdSn(108),
        ..LogoutResponse::default()
    };
    r.recv_raw(r.c, answer, TaskBuffers::none());
    r.lose(r.c, &[]);
    assert!(matches!(r.events().last(), Some(InitiatorEvent::Ended { closed: true, .. })));
    // It does not wait for what may have got lost before it.
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    r.submit(plain());
    r.s.logout(r.now);
    let Pdu::LogoutRequest(logout) = r.one() else { panic!() };
    assert_eq!((logout.immediate, logout.cmd_sn), (true, CmdSn(101)));
}

/// A response with a StatSN ahead of its turn is held back. If its ITT is given to a command meanwhile, it is not that
/// command's: that has its buffers at the datamover still.
#[test]
fn a_response_from_before_its_command_concludes_nothing() {
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    let probe = Rig::new(|_| {}).submit(read(512)).1.itt;
    r.stat_sn[0] += 1;
    let ahead = ScsiResponse { itt: probe, stat_sn: StatSn(FIRST_STAT_SN + 1), ..good() };
    let numbers = ScsiResponse { exp_cmd_sn: CmdSn(100), max_cmd_sn: CmdSn(107), ..ahead };
    r.recv_raw(r.c, numbers, TaskBuffers::none());
    r.s.submit(r.now, read(512)).unwrap();
    let sent = r.sent();
    let Some(Pdu::ScsiCommand(command)) = sent.iter().find(|p| matches!(p, Pdu::ScsiCommand(_))) else {
        panic!()
    };
    let itt = command.itt;
    assert_eq!(itt, probe);
    r.stat_sn[0] = FIRST_STAT_SN;
    r.async_message(0, Lun::ZERO, [0; 3]);
    assert!(r.done().is_empty(), "it was not the response to this command");
    r.stat_sn[0] = FIRST_STAT_SN + 2;
    r.scsi_response(itt, good());
    assert!(is_marked(&r.one_done().buffers));
}

/// A target that gives a StatSN to two responses is wrong; the buffers that come with the second are the command's all
/// the same.
#[test]
fn buffers_with_a_statsn_used_twice_stay_with_their_command() {
    let mut r = rig();
    let a = r.submit(plain()).1;
    let b = r.submit(write(512)).1;
    r.recv_raw(r.c, response(a.itt, 1001), marked());
    r.recv_raw(r.c, response(b.itt, 1001), marked());
    r.lose(r.c, &[]);
    let done = r.done();
    assert_eq!(done.len(), 2);
    for end in done {
        assert!(matches!(&end, Completion::Task(t) if is_marked(&t.buffers)), "{end:?}");
    }
}

/// A function on one connection ends a command whose response waits on another for one that was lost: its buffers are
/// with the response.
#[test]
fn a_function_ends_a_command_whose_response_waits_for_its_turn() {
    let mut r = rig();
    let second = r.connect();
    r.submit(plain());
    r.s.submit(r.now, write(512)).unwrap();
    let [(on, Pdu::ScsiCommand(there))] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, second);
    r.recv_raw(second, response(there.itt, 2 * FIRST_STAT_SN + 1), marked());
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    let sent = r.sent_on();
    let function = sent.iter().find(|(_, p)| matches!(p, Pdu::TaskMgmtRequest(_))).unwrap();
    assert_eq!(function.0, r.c);
    r.tmf_response(function.1.itt(), TaskMgmtStatus::FunctionComplete);
    let reclaimed = Reclaimed::default();
    r.s.handle_event(r.now, second, Event::TaskReclaimed { itt: there.itt, reclaimed });
    assert!(is_marked(&r.one_done().buffers));
}

/// A command was sent again on one connection, and all later ones go on another: long before the numbers wrap, a
/// numbered NOP-Out goes on the first.
// req: 7143-4.2.2.1-15, 7143-10.4-1
#[test]
fn a_later_number_follows_a_retry_on_its_connection() {
    let far = |r: &mut Rig, distance: u32| {
        let cmd_sn = CmdSn(101 + distance);
        r.s.window = InitiatorWindow::new(cmd_sn, cmd_sn, cmd_sn.advance(7));
        r.s.handle_timeout(r.now);
        r.sent_on()
    };
    let retried = || {
        let mut r = rig();
        r.submit(plain());
        r.after(Duration::from_secs(3));
        let Pdu::NopOut(ping) = r.one() else { panic!() };
        r.recv_raw(r.c, nop_in(ping.itt, 1000, 100), TaskBuffers::none());
        assert!(matches!(r.one(), Pdu::ScsiCommand(again) if again.cmd_sn == CmdSn(100)));
        r
    };
    let mut r = retried();
    r.connect();
    assert_eq!(far(&mut r, 0xffff), []);
    let sent = far(&mut r, 0x1_0000);
    let [(on, Pdu::NopOut(nop))] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((*on, nop.immediate, nop.cmd_sn), (r.c, false, CmdSn(101 + 0x1_0000)));
    assert_eq!(far(&mut r, 0x8000_0000), [], "once is enough");
    // A command does as well.
    let mut r = retried();
    assert_eq!(r.submit(plain()).1.cmd_sn, CmdSn(101));
    assert_eq!(far(&mut r, 0x1_0000), []);
}

fn input_lost(r: &mut Rig, itt: Itt) {
    let result = Err(datamover::DataError::Digest);
    let done = datamover::DataCompletion { itt, offset: 0, data: None, result };
    r.s.handle_event(r.now, r.c, Event::DataCompletion(done));
}

/// CHECK CONDITION, ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR: the table in section 11.4.7.2.
fn assert_crc_error(done: &TaskDone) {
    let status = done.result.as_ref().unwrap();
    assert_eq!(status.status, ScsiStatus::CheckCondition);
    let sense = &status.sense;
    assert_eq!((sense[0], sense[2], sense[12], sense[13]), (0x70, 0x0b, 0x47, 0x05));
    assert!(is_marked(&done.buffers));
}

/// Section 7.8: the status is awaited and discarded where the target has sent it.
// req: 7143-7.8-9
#[test]
fn a_good_status_does_not_count_when_input_is_lost() {
    for status in [ScsiStatus::Good, ScsiStatus::ConditionMet] {
        let mut r = rig();
        let (tag, command) = r.submit(read(100));
        input_lost(&mut r, command.itt);
        r.scsi_response(command.itt, ScsiResponse { status, ..ScsiResponse::default() });
        let done = r.one_done();
        assert_eq!(done.tag, tag);
        assert_crc_error(&done);
        // It has come: there is nothing to abort.
        r.after(Duration::ZERO);
        assert!(r.sent().is_empty());
    }
    // A bad one says more.
    let mut r = rig();
    let (_, command) = r.submit(read(100));
    input_lost(&mut r, command.itt);
    r.scsi_response(command.itt, ScsiResponse { status: ScsiStatus::Busy, ..ScsiResponse::default() });
    assert_eq!(r.one_done().result.unwrap().status, ScsiStatus::Busy);
}

/// Section 7.8: the task is aborted and the command ends with an error.
// req: 7143-7.8-6, 7143-7.8-9
#[test]
fn a_command_without_its_input_is_aborted() {
    for answer in [TaskMgmtStatus::FunctionComplete, TaskMgmtStatus::TaskDoesNotExist] {
        let mut r = rig();
        let (tag, command) = r.submit(read(100));
        input_lost(&mut r, command.itt);
        assert!(r.sent().is_empty(), "the status may come along");
        assert_eq!(r.s.poll_timeout(), Some(r.now));
        r.after(Duration::ZERO);
        let Pdu::TaskMgmtRequest(abort) = r.one() else { panic!() };
        assert_eq!(
            (abort.function, abort.referenced_task_tag, abort.ref_cmd_sn),
            (TaskMgmtFunction::AbortTask, command.itt, command.cmd_sn)
        );
        // Once is enough.
        input_lost(&mut r, command.itt);
        r.after(Duration::ZERO);
        assert!(r.sent().is_empty() && r.done().is_empty());
        r.tmf_response(abort.itt, answer);
        r.reclaim(command.itt);
        let done = r.one_done();
        assert_eq!(done.tag, tag);
        assert_crc_error(&done);
        assert_eq!(r.s.open_tasks(), 0);
    }
}

/// The status was on its way when the abort was sent: it counts for as little, and the function is over too.
// req: 7143-7.8-9
#[test]
fn a_status_may_come_before_the_answer_to_the_abort() {
    let mut r = rig();
    let (_, command) = r.submit(read(100));
    input_lost(&mut r, command.itt);
    r.after(Duration::ZERO);
    let Pdu::TaskMgmtRequest(abort) = r.one() else { panic!() };
    r.scsi_response(command.itt, good());
    assert_crc_error(&r.one_done());
    r.tmf_response(abort.itt, TaskMgmtStatus::TaskDoesNotExist);
    assert!(r.done().is_empty(), "nobody asked for the function");
    assert_eq!(r.s.open_tasks(), 0);
}

/// Nor is it told to anybody when the function fails with its connection; the command ends with that, once.
#[test]
fn an_abort_of_its_own_fails_in_silence() {
    let mut r = rig();
    let (tag, command) = r.submit(read(100));
    input_lost(&mut r, command.itt);
    r.after(Duration::ZERO);
    assert!(matches!(r.one(), Pdu::TaskMgmtRequest(_)));
    r.lose(r.c, &[command.itt]);
    let done = r.one_done();
    assert_eq!((done.tag, done.result), (tag, Err(TaskFailure::ConnectionLost)));
}
