use super::*;
use TaskMgmtFunction as F;
use TaskMgmtStatus as S;

/// Tags of `n` commands (ITT 1 to n, CmdSN from 100) that the device server has.
fn running(r: &mut Rig, n: u32) -> Vec<TaskTag> {
    (0..n)
        .map(|i| {
            r.recv(cmd(1 + i, 100 + i));
            r.tag()
        })
        .collect()
}

// req: 7143-11.6.1-3, 7143-11.5.1-1, 7143-11.5.1-4
#[test]
fn abort_task_of_a_running_task_is_complete_when_the_device_server_lets_go() {
    let mut r = Rig::new(|_| {});
    let tags = running(&mut r, 2);
    r.recv(abort_task(50, 102, 1, 100));
    assert_eq!(r.ups(), [Up::Abort(tags[0])]);
    assert_eq!(r.sent(), []);
    // Too late for a response of its own.
    r.s.complete(tags[0], Outcome::good());
    let actions = r.actions();
    // req: 7145-8.3.2-5
    assert!(matches!(&actions[0].call, DownCall::DeallocateTaskResources(Itt(1))), "{actions:?}");
    let DownCall::SendControl(c) = &actions[1].call else { panic!("{actions:?}") };
    assert_eq!(tmf_response(&c.pdu), (50, S::FunctionComplete));
    r.s.complete(tags[1], Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(2), "the other task is untouched");
}

// req: 7143-7.11-3, 7143-11.6.1-3
#[test]
fn abort_task_of_a_command_that_never_came_plugs_its_number() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(2, 101));
    r.quiet();
    r.recv(abort_task(50, 102, 1, 100));
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
    assert_eq!(r.s.window().0, CmdSn(102));
    assert_eq!(r.ups().len(), 1, "the command behind the gap");
    r.recv(cmd(1, 100));
    r.quiet();
}

/// The first command never comes, and all behind it that the window lets through are aborted.
// req: 7143-7.11-3
#[test]
fn aborts_behind_a_gap_do_not_open_the_window() {
    let mut r = Rig::new(|_| {});
    for n in 1..100 {
        r.recv(abort_task(50 + n, 100 + n + 1, n, 100 + n));
        r.sent();
    }
    assert_eq!(r.s.window(), (CmdSn(100), CmdSn(107)));
    r.recv(cmd(1, 100));
    let tag = r.tag();
    assert_eq!(r.s.window(), (CmdSn(108), CmdSn(114)), "seven are past");
    r.s.complete(tag, Outcome::good());
    assert_eq!(scsi_response(&r.one()).max_cmd_sn, CmdSn(115));
}

/// A write has data under way, the command behind it ends unseen, and so nothing stands before the next but the function.
// req: 7143-4.2.3.3-11, 7143-4.2.2.1-4
#[test]
fn a_command_that_ended_unseen_lets_none_overtake_the_function() {
    let mut r = Rig::new(|p| (p.task_reporting, p.initial_r2t) = (TaskReporting::ResponseFence, false));
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.recv(ScsiCommand { final_pdu: false, ..write(2, 101, 2048, 0) });
    r.recv(cmd(3, 102));
    r.actions();
    r.recv(tmf(50, 102, F::AbortTaskSet));
    r.quiet();
    r.data_completion(1, 0, 9000);
    let ups = r.ups();
    assert_eq!(ups[..2], [Up::Abort(tag), Up::Function(F::AbortTaskSet)]);
    assert!(matches!(ups[2..], [Up::Execute { itt_opcode: 3, .. }]), "{ups:?}");
}

// req: 7143-7.11-4, 7143-11.6.1-3
#[test]
fn abort_task_of_what_is_over_says_that_it_does_not_exist() {
    let mut r = Rig::new(|_| {});
    let tags = running(&mut r, 1);
    r.s.complete(tags[0], Outcome::good());
    r.sent();
    r.recv(abort_task(50, 101, 1, 100));
    assert_eq!(tmf_response(&r.one()), (50, S::TaskDoesNotExist));
    // Within the window, but not before the function.
    r.recv(abort_task(51, 101, 9, 103));
    assert_eq!(tmf_response(&r.one()), (51, S::TaskDoesNotExist));
    assert_eq!(r.s.window().0, CmdSn(101));
}

// req: 7143-11.5.1-12, 7143-11.5.1-13, 7144-6.3-8, 7144-6.3-9
#[test]
fn no_function_is_aborted_or_queried() {
    let mut r = Rig::new(|p| p.iscsi_protocol_level = 2);
    r.recv(tmf(50, 100, F::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Function(F::LogicalUnitReset)]);
    r.recv(abort_task(51, 100, 50, 100));
    assert_eq!(tmf_response(&r.one()), (51, S::FunctionRejected));
    r.recv(TaskMgmtRequest { referenced_task_tag: Itt(50), ..tmf(52, 100, F::QueryTask) });
    assert_eq!(tmf_response(&r.one()), (52, S::FunctionRejected));
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete), "it still completes");
}

/// The function waits behind a gap in CmdSN: it is no command that got lost.
// req: 7143-11.5.1-12, 7143-11.5.1-13
#[test]
fn no_function_before_its_turn_is_aborted_or_queried() {
    let mut r = Rig::new(|p| p.iscsi_protocol_level = 2);
    r.recv(TaskMgmtRequest { immediate: false, ..tmf(50, 101, F::LogicalUnitReset) });
    assert_eq!(r.ups(), []);
    r.recv(abort_task(51, 102, 50, 101));
    assert_eq!(tmf_response(&r.one()), (51, S::FunctionRejected));
    r.recv(TaskMgmtRequest { referenced_task_tag: Itt(50), ..tmf(52, 102, F::QueryTask) });
    assert_eq!(tmf_response(&r.one()), (52, S::FunctionRejected));
    r.recv(read(1, 100, 512));
    assert_eq!(r.ups(), [Up::Function(F::LogicalUnitReset)], "with the gap filled it is carried out");
}

#[test]
fn abort_task_of_a_command_before_its_turn_never_reaches_the_device_server() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 2048, 0) });
    r.recv(cmd(2, 101));
    r.recv(abort_task(50, 102, 1, 100));
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
    let tag = r.tag();
    // req: 7143-10.7-2
    r.recv(data_out(1, 0, 0, 1024, false));
    r.recv(data_out(1, 1, 1024, 1024, true));
    r.quiet();
    assert_eq!(r.s.counters().stale_data, 2);
    r.recv(data_out(1, 0, 0, 512, true));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField, "the burst was over");
    r.s.complete(tag, Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(2));
}

// req: 7143-11.5.1-23, 7143-4.2.2.1-4, 7143-4.2.3.3-1, 7143-4.2.3.3-11
#[test]
fn abort_task_set_ends_the_earlier_tasks_of_its_logical_unit_alone() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    r.recv(ScsiCommand { lun: lun(1), ..cmd(2, 101) });
    let (mine, elsewhere) = (r.tag(), r.tag());
    r.recv(cmd(4, 103));
    r.recv(TaskMgmtRequest { immediate: false, ..tmf(50, 102, F::AbortTaskSet) });
    // The function is with the device server, then the command behind it is executed.
    let ups = r.ups();
    assert_eq!(ups[..2], [Up::Abort(mine), Up::Function(F::AbortTaskSet)]);
    let Up::Execute { itt_opcode: 4, tag: later } = ups[2] else { panic!("{ups:?}") };
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(r.sent(), [], "one task is not over");
    r.s.discard(mine);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
    for (tag, itt) in [(elsewhere, 2), (later, 4)] {
        r.s.complete(tag, Outcome::good());
        assert_eq!(scsi_response(&r.one()).itt, Itt(itt));
    }
}

// req: 7143-4.2.2.1-4, 7143-4.2.3.3-9, 7143-11.5.1-24
#[test]
fn an_immediate_abort_task_set_waits_for_the_commands_before_it() {
    let mut r = Rig::new(|_| {});
    r.recv(tmf(50, 102, F::AbortTaskSet));
    r.recv(cmd(3, 102));
    r.quiet();
    r.recv(cmd(1, 100));
    let first = r.tag();
    r.recv(cmd(2, 101));
    // The second is here, and with it all that the function waits for: it never gets to the device server.
    let ups = r.ups();
    assert_eq!(ups[..1], [Up::Abort(first)], "{ups:?}");
    assert!(ups.contains(&Up::Function(F::AbortTaskSet)));
    assert!(matches!(ups[2], Up::Execute { itt_opcode: 3, .. }), "{ups:?}");
    assert_eq!(ups.len(), 3);
    r.s.discard(first);
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
}

/// A write with data under way, and an ABORT TASK SET behind it.
fn with_data_under_way(reporting: TaskReporting) -> (Rig, TaskTag) {
    let mut r = Rig::new(|p| p.task_reporting = reporting);
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.actions();
    r.recv(tmf(50, 101, F::AbortTaskSet));
    (r, tag)
}

// req: 7143-4.2.3.3-1, 7143-4.2.3.3-7, 7143-11.5.1-7, 7143-13.23-1, 7143-13.23-5
#[test]
fn the_standard_abort_waits_for_data_under_way() {
    let (mut r, tag) = with_data_under_way(TaskReporting::ResponseFence);
    r.quiet();
    // Nothing more is asked for.
    r.s.want_write(tag, 0, IoBuf::zeroed(10).into());
    assert_eq!(r.ups(), [Up::WriteData { offset: 0, len: 10, result: Err(DataError::Cancelled) }]);
    r.data_completion(1, 0, 9000);
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Function(F::AbortTaskSet)]);
    r.s.discard(tag);
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
}

// req: 7143-4.2.3.4-2, 7143-4.2.3.4-8, 7143-4.2.3.4-10, 7143-4.2.3.4-19
#[test]
fn fast_abort_does_not() {
    let (mut r, tag) = with_data_under_way(TaskReporting::FastAbort);
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Function(F::AbortTaskSet)]);
    r.s.discard(tag);
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    let actions = r.actions();
    assert!(matches!(actions[0].call, DownCall::DeallocateTaskResources(Itt(1))), "{actions:?}");
    let DownCall::SendControl(c) = &actions[1].call else { panic!("{actions:?}") };
    assert_eq!(tmf_response(&c.pdu), (50, S::FunctionComplete));
}

// req: 7143-4.2.3.3-10, 7143-4.2.3.4-9
#[test]
fn target_resets_do_not_wait_for_missing_commands() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(2, 101));
    r.recv(tmf(50, 104, F::TargetWarmReset));
    assert_eq!(r.ups(), [Up::Function(F::TargetWarmReset)], "the waiting command ended unseen");
    assert_eq!(r.s.window().0, CmdSn(104));
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
    r.recv(cmd(1, 100));
    r.quiet();
    r.recv(cmd(5, 104));
    assert_eq!(r.ups().len(), 1);
}

#[test]
fn a_reset_answers_tasks_behind_it_that_came_first() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    r.recv(cmd(1, 100));
    r.recv_on(second, cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    r.recv(tmf(50, 101, F::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Abort(tags[0]), Up::Abort(tags[1]), Up::Function(F::LogicalUnitReset)]);
    tags.iter().for_each(|t| r.s.discard(*t));
    let sent = r.sent_on();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, scsi_response(&sent[0].1).status), (second, ScsiStatus::TaskAborted));
}

// req: 7143-11.6.1-4, 7143-11.5.1-15, 7143-11.5.1-16, 7143-7.2.2-7
#[test]
fn functions_have_the_responses_of_section_11_6_1() {
    let cfg =
        TargetConfig { functions: Functions::ALL.without(F::TargetWarmReset), ..TargetConfig::default() };
    let mut r = Rig::with_config(cfg, |_| {});
    r.recv(tmf(50, 100, F::TargetWarmReset));
    assert_eq!(tmf_response(&r.one()), (50, S(5)));
    r.recv(TaskMgmtRequest { referenced_task_tag: Itt(9), ..tmf(51, 100, F::TaskReassign) });
    assert_eq!(tmf_response(&r.one()), (51, S(4)));
    r.recv(tmf(52, 100, TaskMgmtFunction(100)));
    assert_eq!(tmf_response(&r.one()), (52, S(5)));
    assert_eq!(r.ups(), []);
    // What the device server says goes out: LUN does not exist, authorization failed.
    for (n, function, status) in
        [(0, F::LogicalUnitReset, S(2)), (1, F::ClearAca, S(6)), (2, F::ClearTaskSet, S(255))]
    {
        r.recv(TaskMgmtRequest { lun: lun(9), ..tmf(60 + n, 100, function) });
        assert_eq!(r.ups(), [Up::Function(function)]);
        let tag = r.s.functions.last().unwrap().tag;
        r.s.respond(tag, status, [1, 2, 3]);
        assert_eq!(tmf_response(&r.one()), (60 + n, status));
    }
}

// req: 7144-6.3-3, 7144-4.1-2, 7144-6.4.2-2, 7144-6.4.2-3, 7144-6.4.2-4
#[test]
fn queries_of_protocol_level_2() {
    let mut r = Rig::new(|p| p.iscsi_protocol_level = 2);
    let tags = running(&mut r, 1);
    let query = |itt, referenced| TaskMgmtRequest {
        referenced_task_tag: Itt(referenced),
        ..tmf(itt, 101, F::QueryTask)
    };
    r.recv(query(50, 1));
    assert_eq!(tmf_response(&r.one()), (50, S(7)));
    r.recv(tmf(51, 101, F::QueryTaskSet));
    assert_eq!(tmf_response(&r.one()), (51, S(7)));
    r.recv(TaskMgmtRequest { lun: lun(1), ..tmf(52, 101, F::QueryTaskSet) });
    assert_eq!(tmf_response(&r.one()), (52, S(0)));
    // req: 7144-6.3-4
    r.s.complete(tags[0], Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(1), "a query ends nothing");
    r.recv(query(53, 1));
    assert_eq!(tmf_response(&r.one()), (53, S(0)));
    r.recv(tmf(54, 101, F::QueryAsynchronousEvent));
    assert_eq!(r.ups(), [Up::Function(F::QueryAsynchronousEvent)]);
    let tag = r.s.functions.last().unwrap().tag;
    r.s.respond(tag, S::FunctionSucceeded, [0x06, 0x29, 0x00]);
    let Pdu::TaskMgmtResponse(response) = r.one() else { panic!() };
    assert_eq!(response.additional_response_information, [0x06, 0x29, 0x00]);
}

#[test]
fn functions_of_level_2_are_not_supported_below() {
    let mut r = Rig::new(|_| {});
    for (n, f) in
        [F::QueryTask, F::QueryTaskSet, F::ItNexusReset, F::QueryAsynchronousEvent].into_iter().enumerate()
    {
        r.recv(tmf(50 + n as u32, 100, f));
        assert_eq!(tmf_response(&r.one()), (50 + n as u32, S(5)));
    }
}

// req: 7143-11.5.1-17, 7143-11.6.1-1, 7144-6.3-10, 7144-6.3-11, 7144-6.3-12, 7144-6.3-13, 7144-6.4.2-5, 7144-6.5-1
#[test]
fn cold_reset_and_nexus_reset_end_the_session_with_their_response() {
    for (function, end) in [(F::TargetColdReset, SessionEnd::ColdReset), (F::ItNexusReset, SessionEnd::Reset)]
    {
        let mut r = Rig::new(|p| (p.iscsi_protocol_level, p.max_connections) = (2, 2));
        let second = r.connect(2);
        r.recv(cmd(1, 100));
        r.recv_on(second, ScsiCommand { lun: lun(5), ..cmd(2, 101) });
        let tags = [r.tag(), r.tag()];
        r.recv(tmf(50, 102, function));
        assert_eq!(r.ups(), [Up::Abort(tags[0]), Up::Abort(tags[1]), Up::Function(function)]);
        tags.iter().for_each(|t| r.s.discard(*t));
        r.actions();
        let tag = r.s.functions[0].tag;
        r.s.respond(tag, S::FunctionComplete, [0; 3]);
        let actions = r.actions();
        let DownCall::SendControl(c) = &actions[0].call else { panic!("{actions:?}") };
        assert_eq!(tmf_response(&c.pdu), (50, S::FunctionComplete));
        let closed: Vec<ConnId> = actions
            .iter()
            .filter(|a| matches!(a.call, DownCall::ConnectionTerminate))
            .map(|a| a.conn)
            .collect();
        assert_eq!(closed, [r.c, second]);
        assert_eq!(r.ups(), [Up::NexusLoss]);
        assert_eq!(r.events().last(), Some(&TargetEvent::Ended(end)));
        assert_eq!(r.s.state(), SessionState::Free);
    }
}

#[test]
fn a_function_beyond_any_command_that_could_come_is_rejected() {
    let mut r = Rig::new(|_| {});
    r.recv(tmf(50, 109, F::AbortTaskSet));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField);
    r.recv(tmf(51, 108, F::AbortTaskSet));
    r.quiet();
}

#[test]
fn too_many_functions_are_rejected() {
    let cfg = TargetConfig { immediate_functions: 1, ..TargetConfig::default() };
    let mut r = Rig::with_config(cfg, |_| {});
    r.recv(tmf(50, 100, F::LogicalUnitReset));
    r.recv(tmf(51, 100, F::LogicalUnitReset));
    assert_eq!(reject_reason(&r.one()), RejectReason::ImmediateCommandReject);
}

/// A Reject would say that the number was not received (section 7.3), and it was.
// req: 7143-7.3-2, 7143-4.2.2.1-6
#[test]
fn too_many_numbered_functions_are_answered_and_give_their_credits_back() {
    let cfg = TargetConfig { immediate_functions: 1, ..TargetConfig::default() };
    let mut r = Rig::with_config(cfg, |_| {});
    let function =
        |itt, cmd_sn| TaskMgmtRequest { immediate: false, ..tmf(itt, cmd_sn, F::LogicalUnitReset) };
    r.recv(function(50, 100));
    assert_eq!(r.ups(), [Up::Function(F::LogicalUnitReset)]);
    for n in 0..150 {
        r.recv(function(51, 101 + n));
        assert_eq!(tmf_response(&r.one()), (51, S::FunctionRejected));
        assert_eq!(r.s.window(), (CmdSn(102 + n), CmdSn(102 + n + DEPTH - 2)), "all but that of the first");
    }
    r.recv(tmf(52, 251, F::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Function(F::LogicalUnitReset)], "there is room for an immediate one");
}

/// What is rejected has not been received: its number is a gap, which another request fills.
// req: 7143-7.3-2
#[test]
fn a_numbered_function_with_a_tag_in_use_leaves_a_gap() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    r.tag();
    r.recv(TaskMgmtRequest { immediate: false, ..tmf(1, 101, F::LogicalUnitReset) });
    assert_eq!(reject_reason(&r.one()), RejectReason::TaskInProgress);
    assert_eq!(r.s.window().0, CmdSn(101));
    r.recv(cmd(2, 101));
    assert_eq!(r.ups().len(), 1);
}

#[test]
fn a_function_whose_tag_is_taken_while_it_waits_gives_its_credit_back() {
    let mut r = Rig::new(|_| {});
    for n in 0..150 {
        let sn = 100 + 2 * n;
        r.recv(TaskMgmtRequest { immediate: false, ..tmf(1, sn + 1, F::LogicalUnitReset) });
        r.recv(cmd(1, sn));
        let tag = r.tag();
        assert_eq!(reject_reason(&r.one()), RejectReason::TaskInProgress);
        r.s.complete(tag, Outcome::good());
        r.actions();
        assert_eq!(r.s.window(), (CmdSn(sn + 2), CmdSn(sn + 2 + DEPTH - 1)));
    }
}

#[test]
fn functions_of_a_connection_that_is_lost_give_their_credits_back() {
    for level in [0, 1, 2] {
        let mut r = Rig::new(|p| (p.max_connections, p.error_recovery_level) = (2, level));
        for n in 0..150 {
            let second = r.connect(2);
            r.recv_on(second, TaskMgmtRequest { immediate: false, ..tmf(50, 100 + n, F::LogicalUnitReset) });
            assert_eq!(r.ups(), [Up::Function(F::LogicalUnitReset)]);
            r.lose(second);
            assert_eq!(r.s.window(), (CmdSn(101 + n), CmdSn(101 + n + DEPTH - 1)));
        }
    }
}

#[test]
fn a_task_that_only_waits_for_data_is_not_aborted_at_the_device_server() {
    let (mut r, tag) = {
        let mut r = Rig::new(|_| {});
        r.recv(write(1, 100, 9000, 0));
        let tag = r.tag();
        let into = r.s.pool(tag).alloc(9000).unwrap();
        r.s.want_write(tag, 0, into);
        (r, tag)
    };
    r.s.complete(tag, Outcome::check_condition(Bytes::from_static(&[0x70, 0, 3])));
    r.actions();
    r.recv(abort_task(50, 101, 1, 100));
    assert_eq!(r.ups(), []);
    assert_eq!(tmf_response(&r.one()), (50, S::FunctionComplete));
}
