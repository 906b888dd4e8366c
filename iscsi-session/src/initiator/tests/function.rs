use super::*;
use TaskMgmtFunction as F;
use TaskMgmtStatus as S;

fn request(pdu: Pdu) -> TaskMgmtRequest {
    match pdu {
        Pdu::TaskMgmtRequest(r) => r,
        other => panic!("{other:?}"),
    }
}

/// Results of tasks, and of functions, in the order of their completion.
fn ends(r: &mut Rig) -> Vec<String> {
    r.done()
        .into_iter()
        .map(|c| match c {
            Completion::Task(t) => match t.result {
                Ok(s) => format!("{:?}", s.status),
                Err(e) => {
                    assert!(is_marked(&t.buffers), "buffers come back");
                    format!("{e:?}")
                }
            },
            Completion::Function(f) => format!("{:?}", f.result.map(|(s, _)| s)),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn deallocated(actions: &[Action]) -> Vec<Itt> {
    actions
        .iter()
        .filter_map(|a| match a.call {
            DownCall::DeallocateTaskResources(itt) => Some(itt),
            _ => None,
        })
        .collect()
}

// req: 7143-11.5.1-9, 7143-11.5.1-10, 7143-11.5.5-1, 7143-11.5.5-2, 7143-11.5.1-11, 7143-7.11-2
#[test]
fn abort_task_names_its_task_on_its_connection() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect();
    r.submit(plain());
    let tag = r.s.submit(r.now, Command { lun: lun(3), ..plain() }).unwrap();
    let (conn, command) = r.sent_on().remove(0);
    assert_eq!(conn, second);
    r.submit(plain());
    r.s.abort(r.now, tag).unwrap();
    let (conn, pdu) = r.sent_on().remove(0);
    let abort = request(pdu);
    assert_eq!((conn, abort.function, abort.immediate), (second, F::AbortTask, true));
    assert_eq!(
        (abort.referenced_task_tag, abort.ref_cmd_sn, abort.cmd_sn, abort.lun),
        (command.itt(), CmdSn(101), CmdSn(103), lun(3))
    );
    // An immediate task is named by the function's own number.
    let tag = r.s.submit(r.now, Command { immediate: true, ..plain() }).unwrap();
    r.sent();
    r.submit(plain());
    r.s.abort(r.now, tag).unwrap();
    let abort = request(r.one());
    assert_eq!((abort.ref_cmd_sn, abort.cmd_sn), (CmdSn(104), CmdSn(104)));
}

// req: 7143-4.2.3.3-3, 7143-11.5.1-3, 7145-8.3.2-1
#[test]
fn an_aborted_task_is_over_when_its_buffers_are_back_and_the_function_after_it() {
    let mut r = Rig::new(|_| {});
    let (tag, command) = r.submit(read(512));
    r.s.abort(r.now, tag).unwrap();
    let function = request(r.one()).itt;
    r.tmf_response(function, S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [command.itt]);
    assert!(r.done().is_empty());
    r.reclaim(command.itt);
    assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    // req: 7143-11.5.1-2, 7143-4.2.3.4-7
    let before = r.s.conn(r.c).unwrap().exp_stat_sn;
    r.scsi_response(command.itt, good());
    assert!(r.done().is_empty(), "too late");
    assert_eq!(r.s.conn(r.c).unwrap().exp_stat_sn, before.next(), "but acknowledged");
}

// req: 7143-4.2.3.3-3, 7143-4.2.3.3-6, 7143-11.5.1-3
#[test]
fn a_response_before_that_of_the_function_counts() {
    let mut r = Rig::new(|_| {});
    let (tag, command) = r.submit(plain());
    r.s.abort(r.now, tag).unwrap();
    let function = request(r.one()).itt;
    r.scsi_response(command.itt, good());
    r.tmf_response(function, S::TaskDoesNotExist);
    assert_eq!(ends(&mut r), ["Good", "Ok(TaskDoesNotExist)"]);
    r.tmf_response(function, S::FunctionComplete);
    assert!(r.done().is_empty(), "a second response is nobody's");
}

// req: 7143-4.2.3.3-4, 7143-4.2.3.4-6, 7143-4.2.3.3-2, 7143-11.5.1-5
#[test]
fn abort_task_set_ends_the_earlier_tasks_of_its_logical_unit() {
    let mut r = Rig::new(|_| {});
    let first = r.submit(write(10_000)).1.itt;
    let other = r.submit(Command { lun: lun(1), ..read(512) }).1.itt;
    r.s.task_management(r.now, TaskFunction::AbortTaskSet(Lun::ZERO)).unwrap();
    let actions = r.actions();
    assert_eq!(deallocated(&actions), [], "standard: data that the target asks for still goes");
    let later = r.submit(read(512)).1.itt;
    let function = r.s.entries.iter().find(|(_, e)| matches!(e, Entry::Function(_))).unwrap().0;
    r.tmf_response(Itt(function.to_tag()), S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [first]);
    r.reclaim(first);
    assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    for itt in [other, later] {
        r.scsi_response(itt, good());
    }
    assert_eq!(ends(&mut r), ["Good", "Good"]);
}

// req: 7143-4.2.3.4-3, 7143-4.2.3.4-4
#[test]
fn fast_abort_stops_sending_data_once_the_function_is_sent() {
    let mut r = Rig::new(|p| (p.task_reporting, p.max_connections) = (TaskReporting::FastAbort, 2));
    let second = r.connect();
    let mine = r.submit(write(100_000)).1.itt;
    let elsewhere = r.submit(write(100_000)).1.itt;
    let reading = r.submit(read(512)).1.itt;
    assert_eq!(r.s.entries.iter().filter(|(_, e)| e.conn() == second).count(), 1);
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    let actions = r.actions();
    let DownCall::SendControl(c) = &actions[0].call else { panic!("{actions:?}") };
    let function = request(c.pdu.clone()).itt;
    assert_eq!(deallocated(&actions), [mine], "the writes of the issuing connection");
    r.reclaim(mine);
    assert!(r.done().is_empty(), "a response may still come");
    let stat_sn = r.next_stat_sn(r.c);
    let numbers = ScsiResponse { stat_sn, exp_cmd_sn: CmdSn(103), max_cmd_sn: CmdSn(110), ..good() };
    r.recv_raw(r.c, ScsiResponse { itt: mine, ..numbers }, TaskBuffers::none());
    assert_eq!(ends(&mut r), ["Good"]);
    r.tmf_response(function, S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [elsewhere, reading]);
}

// On iSER the target fetches the data, and takes an invalid buffer for a failure of the connection.
#[test]
fn fast_abort_leaves_the_buffers_in_place_where_the_target_fetches() {
    let mut r = Rig::new(|p| (p.task_reporting, p.rdma_extensions) = (TaskReporting::FastAbort, true));
    r.submit(write(100_000));
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    assert_eq!(deallocated(&r.actions()), []);
}

#[test]
fn a_refused_function_leaves_its_tasks() {
    let mut r = Rig::new(|_| {});
    let itt = r.submit(read(512)).1.itt;
    r.s.task_management(r.now, TaskFunction::TargetColdReset).unwrap();
    let function = request(r.one());
    assert_eq!((function.lun, function.referenced_task_tag), (Lun::ZERO, Itt::NONE));
    r.tmf_response(function.itt, S::FunctionNotSupported);
    assert_eq!(ends(&mut r), ["Ok(FunctionNotSupported)"]);
    r.scsi_response(itt, good());
    assert_eq!(ends(&mut r), ["Good"]);
}

// req: 7144-6.3-1, 7144-6.3-2, 7144-6.3-5, 7144-6.3-6, 7144-6.3-7, 7144-6.4.2-1
#[test]
fn queries_are_for_protocol_level_2() {
    let mut r = Rig::new(|_| {});
    let (tag, _) = r.submit(plain());
    let query = TaskFunction::QueryTask(tag);
    assert_eq!(r.s.task_management(r.now, query), Err(FunctionRefusal::NotAtThisLevel));
    for f in [
        TaskFunction::QueryTaskSet(Lun::ZERO),
        TaskFunction::ItNexusReset,
        TaskFunction::QueryAsynchronousEvent(Lun::ZERO),
    ] {
        assert_eq!(r.s.task_management(r.now, f), Err(FunctionRefusal::NotAtThisLevel));
    }
    assert_eq!(r.sent(), []);
    let mut r = Rig::new(|p| p.iscsi_protocol_level = 2);
    let (tag, command) = r.submit(plain());
    r.s.task_management(r.now, TaskFunction::QueryTask(tag)).unwrap();
    let sent = request(r.one());
    assert_eq!((sent.function, sent.referenced_task_tag, sent.ref_cmd_sn), (F(9), command.itt, CmdSn(100)));
    r.tmf_response(sent.itt, S(7));
    assert_eq!(ends(&mut r), ["Ok(FunctionSucceeded)"]);
    r.scsi_response(command.itt, good());
    assert_eq!(ends(&mut r), ["Good"], "a query ends nothing");
    assert_eq!(r.s.abort(r.now, tag), Err(FunctionRefusal::NoSuchTask));
    // An immediate task.
    let tag = r.s.submit(r.now, Command { immediate: true, ..plain() }).unwrap();
    r.sent();
    r.s.task_management(r.now, TaskFunction::QueryTask(tag)).unwrap();
    let sent = request(r.one());
    assert_eq!(sent.ref_cmd_sn, sent.cmd_sn);
}

// req: 7143-11.9.1-9, 7143-4.2.3.4-5, 7143-4.2.3.5-4, 7143-4.2.3.5-5
#[test]
fn event_5_stops_the_tasks_of_its_logical_unit_and_is_acknowledged_after_that() {
    for rdma in [false, true] {
        let mut r = Rig::new(|p| (p.task_reporting, p.rdma_extensions) = (TaskReporting::FastAbort, rdma));
        let hit = r.submit(Command { lun: lun(2), ..write(50_000) }).1.itt;
        let other = r.submit(Command { lun: lun(1), ..read(512) }).1.itt;
        r.async_message(5, lun(2), [0; 3]);
        let actions = r.actions();
        assert_eq!(deallocated(&actions), [hit]);
        let position = |f: &dyn Fn(&DownCall) -> bool| actions.iter().position(|a| f(&a.call)).unwrap();
        let stop = position(&|c| matches!(c, DownCall::DeallocateTaskResources(_)));
        let answer = position(&|c| matches!(c, DownCall::SendControl(_)));
        assert_eq!(stop < answer, !rdma, "where the target fetches, it stops at the answer");
        let DownCall::SendControl(c) = &actions[answer].call else { panic!() };
        let Pdu::NopOut(nop) = &c.pdu else { panic!() };
        assert_eq!(
            (nop.itt, nop.ttt, nop.lun, nop.immediate, nop.exp_stat_sn),
            (Itt::NONE, Ttt::NONE, lun(2), true, StatSn(1001))
        );
        r.reclaim(hit);
        assert_eq!(ends(&mut r), ["Terminated"]);
        r.scsi_response(other, good());
        assert_eq!(ends(&mut r), ["Good"]);
    }
}

/// The one task of the connection that the function ends is over already, by an abort: the message tells of nothing else.
#[test]
fn event_5_of_an_own_function_ends_nothing_else_when_its_tasks_are_over() {
    let mut r = Rig::new(|p| {
        (p.task_reporting, p.max_connections) = (TaskReporting::FastAbort, 2);
        p.rdma_extensions = true;
    });
    let (first, other) = (r.c, r.connect());
    let tags = [(); 2].map(|()| r.s.submit(r.now, read(512)).unwrap());
    let sent = r.sent_on();
    let ended = sent.iter().position(|(on, _)| *on == other).unwrap();
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    r.s.abort(r.now, tags[ended]).unwrap();
    let [(on, _), (_, Pdu::TaskMgmtRequest(abort))] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, first);
    r.c = other;
    r.tmf_response(abort.itt, S::FunctionComplete);
    r.reclaim(sent[ended].1.itt());
    assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    r.s.submit(r.now, read(512)).unwrap();
    let [(on, behind)] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, other);
    r.actions();
    r.async_message(5, Lun::ZERO, [0; 3]);
    assert_eq!(deallocated(&r.actions()), [] as [Itt; 0]);
    r.scsi_response(behind.itt(), good());
    assert_eq!(ends(&mut r), ["Good"]);
}

/// The function's connection is lost, and it has acted all the same: event 5 is taken for that of the tasks that it was
/// to end, and the target goes on with the command behind it.
#[test]
fn event_5_of_an_own_function_without_response_leaves_the_commands_behind_it() {
    let mut r = Rig::new(|p| {
        (p.task_reporting, p.max_connections, p.error_recovery_level) = (TaskReporting::FastAbort, 2, 1);
        p.rdma_extensions = true;
    });
    let (first, other) = (r.c, r.connect());
    for _ in 0..2 {
        r.s.submit(r.now, write(512)).unwrap();
    }
    let sent = r.sent_on();
    let [on_first, on_other] = [first, other].map(|c| sent.iter().find(|(on, _)| *on == c).unwrap().1.itt());
    r.s.task_management(r.now, TaskFunction::AbortTaskSet(Lun::ZERO)).unwrap();
    let [(on, Pdu::TaskMgmtRequest(_))] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, first);
    for _ in 0..2 {
        r.s.submit(r.now, read(512)).unwrap();
    }
    let sent = r.sent_on();
    let [lost, behind] = [first, other].map(|c| sent.iter().find(|(on, _)| *on == c).unwrap().1.itt());
    r.done();
    r.lose(first, &[on_first, lost]);
    r.actions();
    r.c = other;
    r.async_message(5, Lun::ZERO, [0; 3]);
    assert_eq!(deallocated(&r.actions()), [on_other]);
    r.scsi_response(behind, good());
    r.reclaim(on_other);
    let ends = ends(&mut r);
    assert!(ends.contains(&"Good".into()) && ends.contains(&"Terminated".into()), "{ends:?}");
}

/// A target that has answered a logout waits for no acknowledgment on that connection: what it sent there, data and all,
/// may be overtaken by the response of a function on another.
#[test]
fn a_function_leaves_the_transfers_of_a_connection_that_is_logged_out_to_its_end() {
    for answered in [false, true] {
        let mut r = Rig::new(|p| (p.max_connections, p.rdma_extensions) = (2, true));
        let (first, other) = (r.c, r.connect());
        let task = r.submit(read(512)).1;
        r.s.logout_connection(r.now, first);
        let [(on, Pdu::LogoutRequest(logout))] = &r.sent_on()[..] else { panic!() };
        assert_eq!(*on, first);
        r.s.task_management(r.now, TaskFunction::TargetWarmReset).unwrap();
        let [(on, Pdu::TaskMgmtRequest(reset))] = &r.sent_on()[..] else { panic!() };
        assert_eq!(*on, other);
        r.c = other;
        r.tmf_response(reset.itt, S::FunctionComplete);
        assert_eq!(deallocated(&r.actions()), [] as [Itt; 0]);
        assert!(ends(&mut r).is_empty());
        r.c = first;
        if answered {
            r.scsi_response(task.itt, good());
        } else {
            let stat_sn = r.next_stat_sn(first);
            let response = LogoutResponse {
                itt: logout.itt,
                stat_sn,
                exp_cmd_sn: CmdSn(100),
                max_cmd_sn: CmdSn(107),
                ..LogoutResponse::default()
            };
            r.recv_raw(first, response, TaskBuffers::none());
            r.lose(first, &[task.itt]);
        }
        assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    }
}

/// Section 4.2.3.4 d) 2): event 5 comes on the connections other than that of the function, for the tasks that it ends.
/// A command behind the function, which the target has as well by then, is none of them.
#[test]
fn event_5_of_an_own_function_leaves_the_commands_behind_it() {
    let mut r = Rig::new(|p| (p.task_reporting, p.max_connections) = (TaskReporting::FastAbort, 2));
    let hit = r.submit(write(512)).1;
    let other = r.connect();
    r.s.submit(r.now, plain()).unwrap();
    let [(on, Pdu::ScsiCommand(there))] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, other);
    // On the other connection than the task it ends.
    r.scsi_response(hit.itt, good());
    let first = r.c;
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    let [(on, Pdu::TaskMgmtRequest(reset))] = &r.sent_on()[..] else { panic!() };
    assert_eq!((*on, reset.cmd_sn), (first, CmdSn(102)));
    for _ in 0..3 {
        r.s.submit(r.now, plain()).unwrap();
    }
    let sent = r.sent_on();
    let behind = sent.iter().find(|(on, _)| *on == other).map(|(_, pdu)| pdu.itt()).unwrap();
    assert_eq!(ends(&mut r), ["Good"]);
    r.c = other;
    r.async_message(5, Lun::ZERO, [0; 3]);
    assert_eq!(deallocated(&r.actions()), [] as [Itt; 0], "the function's response ends it");
    r.scsi_response(behind, good());
    assert_eq!(ends(&mut r), ["Good"]);
    r.c = first;
    r.tmf_response(reset.itt, S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [there.itt]);
    r.c = other;
    r.reclaim(there.itt);
    assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    // The next one is of another nexus: it ends all that the target has.
    r.s.submit(r.now, plain()).unwrap();
    let next = r.sent_on().iter().find(|(on, _)| *on == other).map(|(_, pdu)| pdu.itt()).unwrap();
    r.async_message(5, Lun::ZERO, [0; 3]);
    assert_eq!(deallocated(&r.actions()), [next]);
}

/// The target may have had a response ready, behind the fence of an earlier function, when it announced the end of what
/// a later one ends: the response counts (section 4.2.3.4, initiator, b).
// req: 7143-4.2.3.4-3, 7143-4.2.3.4-6
#[test]
fn event_5_of_own_functions_stops_output_and_lets_responses_come() {
    for rdma in [false, true] {
        let mut r = Rig::new(|p| {
            (p.task_reporting, p.max_connections) = (TaskReporting::FastAbort, 2);
            p.rdma_extensions = rdma;
        });
        let first = r.c;
        let other = r.connect();
        r.s.task_management(r.now, TaskFunction::ClearTaskSet(Lun::ZERO)).unwrap();
        let [(on, Pdu::TaskMgmtRequest(_))] = &r.sent_on()[..] else { panic!() };
        assert_eq!(*on, first);
        let mut there = Vec::new();
        for command in [write(50_000), write(50_000), plain(), plain()] {
            r.s.submit(r.now, command).unwrap();
            let on_other = |(on, pdu): &(ConnId, Pdu)| {
                (*on == other && matches!(pdu, Pdu::ScsiCommand(_))).then(|| pdu.itt())
            };
            there.extend(r.sent_on().iter().find_map(on_other));
        }
        let [written, ready] = there[..] else { panic!("{there:?}") };
        // The second function: it ends the commands that the first does not.
        r.s.task_management(r.now, TaskFunction::ClearTaskSet(Lun::ZERO)).unwrap();
        let clear =
            r.sent_on().iter().find(|(_, p)| matches!(p, Pdu::TaskMgmtRequest(_))).map(|(_, p)| p.itt());
        r.actions();
        r.c = other;
        r.async_message(5, Lun::ZERO, [0; 3]);
        let stopped = if rdma { vec![] } else { vec![written] };
        assert_eq!(deallocated(&r.actions()), stopped, "where the target fetches, it stops itself");
        r.scsi_response(ready, good());
        assert_eq!(ends(&mut r), ["Good"]);
        r.c = first;
        r.tmf_response(clear.unwrap(), S::FunctionComplete);
        if rdma {
            assert!(deallocated(&r.actions()).contains(&written));
        }
        r.c = other;
        r.reclaim(written);
        assert!(ends(&mut r).contains(&"Aborted".to_owned()));
    }
}

// req: 7145-8.1.1.3-1, 7145-8.1.1.3-3, 7145-8.1.1.3-4
#[test]
fn immediate_pdus_stay_within_the_targets_limit() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    r.s.conn_mut(r.c).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(2);
    for _ in 0..3 {
        r.s.task_management(r.now, TaskFunction::LogicalUnitReset(Lun::ZERO)).unwrap();
    }
    assert_eq!(r.sent().len(), 2, "the third waits");
    let numbered = r.submit(plain()).1;
    let window = Window { stat_sn: StatSn(1000), exp_cmd_sn: CmdSn(101), max_cmd_sn: CmdSn(108) };
    r.s.handle_event(r.now, r.c, Event::Window(window));
    assert_eq!(numbered.cmd_sn, CmdSn(100));
    let third = request(r.one());
    assert_eq!(third.cmd_sn, CmdSn(101), "the number of the moment at which it leaves");
    r.tmf_response(third.itt, S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [numbered.itt], "so it acts on the command before it");
}

/// While an ABORT TASK waits for room the command is sent again elsewhere: it goes there (section 11.5.1), where it cannot
/// be overtaken by the data of the command.
// req: 7143-11.5.1-11
#[test]
fn an_abort_that_waited_follows_its_command() {
    let mut r = Rig::new(|p| (p.rdma_extensions, p.max_connections) = (true, 2));
    let other = r.connect();
    let (tag, command) = r.submit(plain());
    r.s.conn_mut(r.c).unwrap().keys.peer_max_outstanding_unexpected_pdus = Some(1);
    r.s.task_management(r.now, TaskFunction::LogicalUnitReset(lun(3))).unwrap();
    let reset = request(r.one());
    r.s.abort(r.now, tag).unwrap();
    assert_eq!(r.sent(), [], "no room");
    let Some(Entry::Task(task)) = r.s.entries.get_mut(Key(tag.0)) else { panic!() };
    task.conn = other;
    let next = r.submit(plain()).1;
    assert_eq!(next.cmd_sn, CmdSn(101));
    r.s.conn_mut(r.c).unwrap().count_numbered(CmdSn(101), None);
    let window = Window { stat_sn: StatSn(1000), exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(109) };
    r.s.handle_event(r.now, r.c, Event::Window(window));
    let [(on, Pdu::TaskMgmtRequest(abort))] = &r.sent_on()[..] else { panic!() };
    assert_eq!((*on, abort.referenced_task_tag), (other, command.itt));
    r.c = other;
    r.tmf_response(abort.itt, S::FunctionComplete);
    assert_eq!(deallocated(&r.actions()), [command.itt]);
    r.reclaim(command.itt);
    assert_eq!(ends(&mut r), ["Aborted", "Ok(FunctionComplete)"]);
    assert_ne!(reset.itt, abort.itt);
}

/// A command that is sent again has a number from before the immediate PDUs that it follows: these are outstanding until
/// one at least as great as theirs is acknowledged.
// req: 7145-8.1.1.3-4
#[test]
fn an_old_number_retires_no_later_immediate_pdu() {
    let mut r = Rig::new(|p| p.rdma_extensions = true);
    let conn = r.s.conn_mut(r.c).unwrap();
    conn.keys.peer_max_outstanding_unexpected_pdus = Some(2);
    conn.count_unexpected(CmdSn(99));
    conn.count_unexpected(CmdSn(101));
    conn.count_numbered(CmdSn(100), None);
    conn.retire_unexpected(CmdSn(101));
    assert_eq!(conn.unexpected.len(), 1);
    conn.count_numbered(CmdSn(101), None);
    conn.retire_unexpected(CmdSn(101));
    assert!(!conn.unexpected.is_empty());
    conn.retire_unexpected(CmdSn(102));
    assert!(conn.unexpected.is_empty());
}

/// A request that got lost, or whose response never comes, must not be waited for without end; the tasks are over with the
/// connection.
// req: 7143-7.11-2
#[test]
fn a_function_without_response_ends_with_its_connection() {
    let quiet = InitiatorConfig { ping_after: None, ..InitiatorConfig::default() };
    let mut r = Rig::with_config(quiet.clone(), |_| {});
    let tag = r.s.submit(r.now, plain()).unwrap();
    r.s.abort(r.now, tag).unwrap();
    r.sent();
    r.now += Duration::from_secs(59);
    r.s.handle_timeout(r.now);
    assert!(!r.actions().iter().any(|a| matches!(a.call, DownCall::ConnectionTerminate)));
    r.now += Duration::from_secs(1);
    r.s.handle_timeout(r.now);
    assert!(r.actions().iter().any(|a| matches!(a.call, DownCall::ConnectionTerminate)));
    // With an answer in time there is nothing to be late.
    let mut r = Rig::with_config(quiet, |p| p.iscsi_protocol_level = 2);
    r.s.task_management(r.now, TaskFunction::QueryTaskSet(lun(0))).unwrap();
    let itt = r.sent().remove(0).itt();
    assert!(r.s.poll_timeout().is_some());
    r.tmf_response(itt, S::FunctionComplete);
    assert_eq!(r.s.poll_timeout(), None);
}

/// What stops the output of a bidirectional command takes the buffer of its input away: GOOD says nothing of what is in
/// that buffer then.
// req: 7143-4.2.3.4-3
#[test]
fn input_that_was_cut_off_is_not_passed_off_as_read() {
    for reclaimed_first in [true, false] {
        let mut r = Rig::new(|p| p.task_reporting = TaskReporting::FastAbort);
        let both =
            Command { buffers: TaskBuffers { out: write(4).buffers.out, ..read(512).buffers }, ..plain() };
        let itt = r.submit(both).1.itt;
        r.s.task_management(r.now, TaskFunction::ClearTaskSet(Lun::ZERO)).unwrap();
        assert_eq!(deallocated(&r.actions()), [itt]);
        if reclaimed_first {
            r.reclaim(itt);
        }
        let stat_sn = r.next_stat_sn(r.c);
        let numbers = ScsiResponse { stat_sn, exp_cmd_sn: CmdSn(101), max_cmd_sn: CmdSn(108), ..good() };
        r.recv_raw(r.c, ScsiResponse { itt, ..numbers }, TaskBuffers::none());
        if !reclaimed_first {
            r.reclaim(itt);
        }
        let done = r.one_done();
        assert_eq!(done.result, Err(TaskFailure::Aborted));
        assert!(is_marked(&done.buffers));
    }
}
