use super::*;
use TaskMgmtFunction as F;
use TaskMgmtStatus as S;

fn async_messages(sent: &[(ConnId, Pdu)]) -> Vec<(ConnId, AsyncEvent, Lun)> {
    sent.iter()
        .filter_map(|(conn, pdu)| match pdu {
            Pdu::AsyncMessage(m) => Some((*conn, m.event, m.lun)),
            _ => None,
        })
        .collect()
}

// req: 7143-4.2.3.4-11, 7143-4.2.3.4-12, 7143-4.2.3.4-13, 7143-4.2.3.4-14, 7143-4.2.3.4-17
#[test]
fn fast_abort_tells_the_other_connections_and_keeps_their_transfers_until_they_answer() {
    let mut r = Rig::new(|p| (p.task_reporting, p.max_connections) = (TaskReporting::FastAbort, 3));
    let (second, third) = (r.connect(2), r.connect(3));
    r.recv(cmd(1, 100));
    r.recv_on(second, cmd(2, 101));
    r.recv_on(second, ScsiCommand { lun: lun(1), ..cmd(3, 102) });
    r.recv_on(third, ScsiCommand { lun: lun(1), ..cmd(4, 103) });
    r.recv_on(second, cmd(5, 104));
    let tags: Vec<TaskTag> = (0..5).map(|_| r.tag()).collect();
    r.recv(tmf(50, 105, F::TargetWarmReset));
    assert_eq!(r.ups().len(), 6);
    tags[..2].iter().for_each(|t| r.s.discard(*t));
    let mut actions = r.actions();
    let says = |a: &Action| matches!(&a.call, DownCall::SendControl(_));
    assert!(
        !actions.iter().any(says),
        "the initiator would take ITT 5, which may still move data, for ended too"
    );
    tags[2..].iter().for_each(|t| r.s.discard(*t));
    actions.extend(r.actions());
    let freed = |actions: &[Action]| -> Vec<u32> {
        actions
            .iter()
            .filter_map(|a| match a.call {
                DownCall::DeallocateTaskResources(itt) => Some(itt.0),
                _ => None,
            })
            .collect()
    };
    assert_eq!(freed(&actions), [1], "on the issuing connection at once");
    let sent: Vec<(ConnId, Pdu)> = actions
        .into_iter()
        .filter_map(|a| match a.call {
            DownCall::SendControl(c) => Some((a.conn, c.pdu)),
            _ => None,
        })
        .collect();
    let event = AsyncEvent::TasksTerminated;
    assert_eq!(
        async_messages(&sent),
        [(second, event, lun(1)), (third, event, lun(1)), (second, event, lun(0))],
        "one a logical unit and connection, none on the issuing one"
    );
    // Acknowledged for LUN 1 on the second connection: ITT 3 is freed, LUN 0's tasks are not.
    let nop = |lun, exp| NopOut { immediate: true, lun, exp_stat_sn: StatSn(exp), ..NopOut::default() };
    r.recv_on(second, nop(lun(1), 2000));
    assert_eq!(freed(&r.actions()), [] as [u32; 0], "its StatSN, 2000, is not acknowledged yet");
    r.recv_on(second, nop(lun(1), 2001));
    assert_eq!(freed(&r.actions()), [3]);
    r.recv_on(second, nop(lun(0), 2002));
    assert_eq!(freed(&r.actions()), [2, 5]);
}

/// A command behind the function is being aborted on the other connection, whose initiator would take event 5 for its
/// end: the message waits for that, and the response for the message.
#[test]
fn a_function_is_not_answered_before_the_end_of_its_tasks_is_announced() {
    let mut r = Rig::new(|p| {
        (p.task_reporting, p.max_connections, p.rdma_extensions) = (TaskReporting::FastAbort, 2, true);
    });
    let second = r.connect(2);
    r.recv_on(second, cmd(2, 100));
    let ended = r.tag();
    r.recv(tmf(50, 101, F::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Abort(ended), Up::Function(F::LogicalUnitReset)]);
    let function = r.s.functions[0].tag;
    r.recv_on(second, write(1, 101, 9000, 0));
    let behind = r.tag();
    let into = r.s.pool(behind).alloc(9000).unwrap();
    r.s.want_write(behind, 0, into);
    r.recv_on(second, abort_task(9, 102, 1, 101));
    r.actions();
    r.s.discard(ended);
    r.s.respond(function, S::FunctionComplete, [0; 3]);
    r.s.discard(behind);
    assert_eq!(r.sent_on(), [], "a Read is under way");
    r.reclaim(second, 1);
    let sent = r.sent_on();
    assert_eq!(async_messages(&sent), [(second, AsyncEvent::TasksTerminated, Lun::ZERO)]);
    assert!(!sent.iter().any(|(on, _)| *on == r.c), "the fence: {sent:?}");
    let acknowledged = NopOut { immediate: true, exp_stat_sn: StatSn(2001), ..NopOut::default() };
    r.recv_on(second, acknowledged);
    let sent = r.sent_on();
    assert!(sent.iter().any(|(on, p)| *on == r.c && matches!(p, Pdu::TaskMgmtResponse(_))), "{sent:?}");
}

/// The function's connection is closed before it is over: it goes on without a response, and the others hear of the end
/// of their tasks when all of them are over, as ever.
// req: 7143-4.2.3.4-11, 7143-4.2.3.4-12
#[test]
fn a_function_whose_connection_is_closed_ends_its_tasks_all_the_same() {
    let mut r = Rig::new(|p| {
        (p.task_reporting, p.max_connections, p.rdma_extensions) = (TaskReporting::FastAbort, 2, true);
    });
    let second = r.connect(2);
    r.recv_on(second, write(1, 100, 9000, 0));
    let fetching = r.tag();
    let into = r.s.pool(fetching).alloc(9000).unwrap();
    r.s.want_write(fetching, 0, into);
    r.recv_on(second, cmd(2, 101));
    let quick = r.tag();
    r.recv(tmf(50, 102, F::AbortTaskSet));
    assert_eq!(r.ups(), [Up::Abort(fetching), Up::Abort(quick), Up::Function(F::AbortTaskSet)]);
    let function = r.s.functions[0].tag;
    r.recv(LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseConnection,
        itt: Itt(60),
        cid: Cid(1),
        cmd_sn: CmdSn(102),
        exp_stat_sn: FIRST_STAT_SN,
    });
    r.actions();
    // Its tag is free.
    r.recv_on(second, cmd(50, 102));
    assert!(matches!(r.ups()[..], [Up::Execute { .. }]));
    r.s.discard(quick);
    r.s.respond(function, S::FunctionComplete, [0; 3]);
    assert_eq!(async_messages(&r.sent_on()), [], "a Read is under way");
    r.s.discard(fetching);
    assert_eq!(async_messages(&r.sent_on()), [], "still");
    r.reclaim(second, 1);
    let sent = r.sent_on();
    assert_eq!(async_messages(&sent), [(second, AsyncEvent::TasksTerminated, Lun::ZERO)], "{sent:?}");
    assert_eq!(sent.len(), 1, "no response: {sent:?}");
    assert!(r.s.functions.is_empty());
}

// req: 7143-4.2.3.5-1, 7143-4.2.3.5-2, 7143-4.2.3.5-3, 7143-11.9.1-10
#[test]
fn tasks_that_another_nexus_ended_are_announced_on_fast_abort_sessions_alone() {
    for (reporting, announced) in
        [(TaskReporting::FastAbort, 1), (TaskReporting::ResponseFence, 0), (TaskReporting::Rfc3720, 0)]
    {
        let mut r = Rig::new(|p| p.task_reporting = reporting);
        r.recv(ScsiCommand { lun: lun(3), ..cmd(1, 100) });
        r.recv(ScsiCommand { lun: lun(3), ..cmd(2, 101) });
        let tags = [r.tag(), r.tag()];
        tags.iter().for_each(|t| r.s.discard(*t));
        let sent = r.sent_on();
        assert_eq!(async_messages(&sent).len(), announced, "{reporting:?}");
        assert!(async_messages(&sent).iter().all(|(_, _, l)| *l == lun(3)));
        assert_eq!(sent.len(), announced, "and no response");
    }
}

/// The initiator invalidates its STags when it hears of the end, so that nothing may be fetched after the message.
// req: 7145-8.3.2-5
#[test]
fn on_iser_transfers_are_stopped_before_their_end_is_announced() {
    let mut r = Rig::new(|p| (p.task_reporting, p.rdma_extensions) = (TaskReporting::FastAbort, true));
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.actions();
    r.s.discard(tag);
    let calls = r.actions();
    assert!(
        matches!(calls[..], [Action { call: DownCall::DeallocateTaskResources(Itt(1)), .. }]),
        "{calls:?}"
    );
    r.recv(cmd(2, 101));
    assert_eq!(r.ups(), [], "it would be taken for one of those that ended");
    r.reclaim(r.c, 1);
    assert_eq!(async_messages(&r.sent_on()), [(r.c, AsyncEvent::TasksTerminated, Lun::ZERO)]);
}

/// Nothing is said where the key was not negotiated, but the initiator's abort of a task that it waits for in vain gets
/// its answer, and the STags go with that.
// req: 7145-8.3.2-5
#[test]
fn on_iser_a_task_that_another_nexus_ended_is_there_until_its_read_is_back() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.actions();
    r.s.discard(tag);
    r.recv(abort_task(9, 101, 1, 100));
    assert_eq!(r.sent(), [], "a Read is under way");
    r.reclaim(r.c, 1);
    let sent = r.sent();
    assert!(matches!(&sent[..], [p] if tmf_response(p) == (9, S::FunctionComplete)), "{sent:?}");
}

// The initiator takes all its tasks of the logical unit for ended, so they are, before it is told.
// req: 7143-4.2.3.5-1, 7143-4.2.3.4-13
#[test]
fn a_termination_elsewhere_ends_what_is_left_and_what_waits_before_it_is_announced() {
    let mut r = Rig::new(|p| (p.task_reporting, p.initial_r2t) = (TaskReporting::FastAbort, false));
    for (itt, cmd_sn) in [(1, 100), (2, 101)] {
        r.recv(cmd(itt, cmd_sn));
    }
    let tags = [r.tag(), r.tag()];
    r.recv(ScsiCommand { final_pdu: false, ..write(3, 102, 2048, 0) });
    r.recv(ScsiCommand { lun: lun(1), ..cmd(4, 103) });
    r.s.discard(tags[0]);
    assert_eq!(r.ups(), [Up::Abort(tags[1])]);
    assert_eq!(r.sent(), [], "one is not over");
    r.s.discard(tags[1]);
    let sent = r.sent_on();
    assert_eq!(async_messages(&sent), [(r.c, AsyncEvent::TasksTerminated, Lun::ZERO)]);
    let Pdu::AsyncMessage(message) = &sent[0].1 else { panic!() };
    assert_eq!(message.exp_cmd_sn, CmdSn(104), "which says what had been received");
    assert!(matches!(r.ups()[..], [Up::Execute { itt_opcode: 4, .. }]), "the other logical unit goes on");
    r.recv(data_out(3, 0, 0, 2048, true));
    r.quiet();
}

/// A task that ABORT TASK ends meanwhile may still fetch its output: the initiator invalidates its STags too when it
/// hears of the end of all tasks of the logical unit.
// req: 7143-4.2.3.5-1, 7145-8.3.2-5
#[test]
fn a_termination_elsewhere_is_not_announced_before_own_aborts_are_over() {
    let mut r = Rig::new(|p| (p.task_reporting, p.rdma_extensions) = (TaskReporting::FastAbort, true));
    r.recv(write(1, 100, 9000, 0));
    let aborted = r.tag();
    let into = r.s.pool(aborted).alloc(9000).unwrap();
    r.s.want_write(aborted, 0, into);
    r.recv(abort_task(9, 101, 1, 100));
    assert_eq!(r.ups(), [Up::Abort(aborted)]);
    r.recv(cmd(2, 101));
    let ended = r.tag();
    r.actions();
    r.s.discard(ended);
    assert_eq!(async_messages(&r.sent_on()), [], "the abort is not over");
    r.s.discard(aborted);
    let calls = r.actions();
    assert!(matches!(calls[0].call, DownCall::DeallocateTaskResources(Itt(1))), "{calls:?}");
    assert!(
        !calls.iter().any(|a| matches!(a.call, DownCall::SendControl(_))),
        "a Read is under way: {calls:?}"
    );
    r.reclaim(r.c, 1);
    let sent = r.sent_on();
    assert_eq!(async_messages(&sent).len(), 1, "{sent:?}");
}

/// An initiator that never acknowledges the end of tasks, whose resources are kept until then, has its connection ended.
// req: 7143-4.2.3.4-17
#[test]
fn the_end_of_tasks_is_not_kept_for_acknowledgment_without_bound() {
    let mut r = Rig::new(|p| p.task_reporting = TaskReporting::FastAbort);
    let terminate = |r: &mut Rig, n: u32| {
        r.recv(cmd(n, 100 + n));
        let tag = r.tag();
        r.s.discard(tag);
        r.sent_on()
    };
    for n in 0..0x8000 {
        let sent = terminate(&mut r, n);
        assert_eq!(async_messages(&sent).len(), 1);
        // The messages themselves are acknowledged, and need not be for the end of the tasks to be open.
        assert!(r.s.conns[0].unexpected.is_empty());
    }
    assert_eq!(r.s.conns[0].terminated, 0x8000);
    let nop = NopOut { immediate: true, exp_stat_sn: StatSn(1001), ..NopOut::default() };
    r.recv(nop);
    r.sent();
    assert_eq!(r.s.conns[0].terminated, 0x7fff, "one is acknowledged");
    assert_eq!(async_messages(&terminate(&mut r, 0x8000)).len(), 1);
    terminate(&mut r, 0x8001);
    assert!(matches!(
        r.events()[..],
        [TargetEvent::ConnectionEnded {
            cause: EndCause::Protocol("the end of too many tasks is not acknowledged"),
            ..
        }]
    ));
}
