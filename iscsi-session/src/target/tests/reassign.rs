//! Connection recovery at the target: RFC 7143 sections 7.1.4.3, 7.2.2, 11.5, 11.14 with ErrorRecoveryLevel 2.

use super::*;
use datamover::InputProgress;
use iscsi_pdu::TaskMgmtStatus as S;

/// Two connections, CIDs 1 and 2.
fn rig() -> (Rig, ConnId) {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    let other = r.connect(2);
    (r, other)
}

fn logout(itt: u32, cid: u16, exp_stat_sn: u32) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason: LogoutReason::RemoveForRecovery,
        itt: Itt(itt),
        cid: Cid(cid),
        cmd_sn: CmdSn(100),
        exp_stat_sn: StatSn(exp_stat_sn),
    }
}

fn reassign(itt: u32, referenced: u32, exp_data_sn: u32) -> TaskMgmtRequest {
    TaskMgmtRequest {
        referenced_task_tag: Itt(referenced),
        exp_data_sn: DataSn(exp_data_sn),
        exp_stat_sn: StatSn(2000),
        ..tmf(itt, 100, TaskMgmtFunction::TaskReassign)
    }
}

/// Loses connection 1, whose datamover gives this back.
fn lose_with(r: &mut Rig, reclaimed: Vec<(Itt, Reclaimed)>) {
    let cause = Cause::Transport(std::io::ErrorKind::ConnectionReset);
    r.s.handle_event(r.now, r.c, Event::Terminated(Terminated { cause, reclaimed }));
}

fn logged_out(r: &mut Rig, on: ConnId, exp_stat_sn: u32) -> LogoutResponse {
    r.actions();
    r.recv_on(on, logout(90, 1, exp_stat_sn));
    match r.one() {
        Pdu::LogoutResponse(response) => response,
        other => panic!("{other:?}"),
    }
}

/// What is called on a connection, in words.
fn calls(r: &mut Rig, on: ConnId) -> Vec<String> {
    r.actions()
        .into_iter()
        .filter(|a| a.conn == on)
        .filter_map(|a| match a.call {
            DownCall::SendControl(c) => Some(match c.pdu {
                Pdu::TaskMgmtResponse(t) => format!("TMF {} {:?}", t.itt.0, t.response.0),
                Pdu::ScsiResponse(s) => format!(
                    "status {} StatSN {} ExpDataSN {} tag {}",
                    s.itt.0, s.stat_sn.0, s.exp_data_sn.0, s.snack_tag.0
                ),
                other => format!("{other:?}"),
            }),
            DownCall::PutData(p) => Some(format!(
                "put {} at {} len {} DataSN {:?}",
                p.itt.0,
                p.offset,
                p.data.len(),
                p.resume.map(|n| n.0)
            )),
            DownCall::GetData(g) => Some(format!(
                "get {} at {} len {} R2TSN {:?}",
                g.itt.0,
                g.offset,
                g.into.len(),
                g.resume.map(|n| n.0)
            )),
            _ => None,
        })
        .collect()
}

// req: 7143-11.15.1-1, 7143-7.5-3
#[test]
fn a_recovery_logout_names_the_time_for_reassignments() {
    let (mut r, other) = rig();
    r.lose(r.c);
    let response = logged_out(&mut r, other, 1000);
    assert_eq!(response.response, LogoutStatus::Success);
    assert_eq!(
        (response.time2wait, response.time2retain),
        (2, 20),
        "the defaults of section 13.15 and 13.16"
    );
    // Once more: its response may have been lost.
    assert_eq!(logged_out(&mut r, other, 1000).response, LogoutStatus::Success);
}

// req: 7143-7.2.2-2, 7143-7.2.2-3, 7143-7.2.2-5, 7143-7.2.2-9, 7143-11.5.1-19, 7143-11.6-1, 7143-11.5.6-2
#[test]
fn a_read_under_way_goes_on_from_exp_data_sn() {
    let (mut r, other) = rig();
    r.recv(read(1, 100, 8192));
    let tag = r.tag();
    r.s.read_data(tag, 0, Bytes::from(vec![1; 3072]).into());
    r.actions();
    // MaxRecvDataSegmentLength is 1024: three PDUs were sent.
    let input = InputProgress {
        next: DataSn(3),
        sent: vec![(DataSn(0), 0), (DataSn(1), 1024), (DataSn(2), 2048)],
        end: 3072,
        ..InputProgress::default()
    };
    lose_with(&mut r, vec![(Itt(1), Reclaimed { input, ..Reclaimed::default() })]);
    assert_eq!(r.ups(), [], "the device server goes on");
    r.s.read_data(tag, 3072, Bytes::from(vec![2; 1024]).into());
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 1, 2));
    assert_eq!(
        calls(&mut r, other),
        ["TMF 91 0", "put 1 at 2048 len 1024 DataSN Some(2)", "put 1 at 3072 len 1024 DataSN None"]
    );
    r.s.read_data(tag, 4096, Bytes::from(vec![3; 4096]).into());
    r.s.complete(tag, Outcome::good().with_read(8192));
    let [put, status] = &calls(&mut r, other)[..] else { panic!() };
    assert_eq!(put, "put 1 at 4096 len 4096 DataSN None");
    assert!(status.starts_with("status 1 StatSN 2003"), "{status}");
    assert_eq!(r.ups(), [], "executed once");
}

// req: 7143-7.2.2-5, 7143-7.2.2-10, 7143-7.2.2-3
#[test]
fn a_response_that_was_not_acknowledged_is_sent_on_the_new_connection() {
    let (mut r, other) = rig();
    r.recv(read(1, 100, 2048));
    let tag = r.tag();
    r.s.read_data(tag, 0, Bytes::from(vec![1; 2048]).into());
    r.recv(Snack { kind: SnackType::RData, itt: Itt(1), ttt_or_snack_tag: Ttt(5), ..Snack::default() });
    r.s.complete(tag, Outcome::good().with_read(2048));
    r.actions();
    let input = InputProgress {
        next: DataSn(2),
        sent: vec![(DataSn(0), 0), (DataSn(1), 1024)],
        end: 2048,
        ..InputProgress::default()
    };
    lose_with(&mut r, vec![(Itt(1), Reclaimed { input, ..Reclaimed::default() })]);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 1, 2));
    // All data was received: the number of Data-In PDUs is what the initiator knows.
    assert_eq!(calls(&mut r, other), ["TMF 91 0", "status 1 StatSN 2003 ExpDataSN 2 tag 0"]);
    // That connection is lost as well, before the status is acknowledged.
    let third = r.connect(3);
    r.lose(other);
    r.actions();
    r.recv_on(third, logout(92, 2, 2002));
    r.actions();
    r.recv_on(third, reassign(93, 1, 0));
    assert_eq!(calls(&mut r, third), ["TMF 93 0", "status 1 StatSN 3003 ExpDataSN 2 tag 0"]);
}

/// Commands 100 and 101 have their responses, which nobody has acknowledged, and the connection is gone. Two others are
/// there, and on the second LOGICAL UNIT RESET has come, which acts on commands before 101. Its response waits for an
/// acknowledgment of the first.
fn reset_after_a_loss() -> (Rig, ConnId, ConnId) {
    let (mut r, other) = rig();
    let third = r.connect(3);
    r.recv(cmd(1, 100));
    r.recv(cmd(2, 101));
    for tag in [r.tag(), r.tag()] {
        r.s.complete(tag, Outcome::good());
    }
    r.lose(r.c);
    logged_out(&mut r, other, 1000);
    r.recv_on(third, tmf(50, 101, TaskMgmtFunction::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Function(TaskMgmtFunction::LogicalUnitReset)]);
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(calls(&mut r, third), [""; 0], "behind the fence");
    (r, other, third)
}

// req: 7143-4.2.2.3.2-2, 7143-4.2.3.3-14, 7143-7.2.2-5
#[test]
fn a_response_that_was_ready_before_a_function_goes_before_its_response() {
    let (mut r, other, third) = reset_after_a_loss();
    r.recv_on(other, reassign(91, 1, 0));
    let [answer, status] = &calls(&mut r, other)[..] else { panic!() };
    assert_eq!(answer, "TMF 91 0");
    assert!(status.starts_with("status 1 StatSN 2003"), "{status}");
    r.ack_on(other, 2003);
    assert_eq!(calls(&mut r, third), [""; 0], "the status is not acknowledged");
    r.ack_on(other, 2004);
    assert_eq!(calls(&mut r, third)[0], "TMF 50 0");
}

/// With the response of a function, the initiator takes what it ended for over: on iSER, its memory is gone.
// req: 7143-4.2.3.3-14, 7143-7.2.2-8
#[test]
fn nothing_comes_of_a_reassignment_after_the_function_that_ended_the_task() {
    let (mut r, other, third) = reset_after_a_loss();
    r.ack_on(other, 2002);
    assert_eq!(calls(&mut r, third)[0], "TMF 50 0");
    r.ack_on(third, 3001);
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(tmf_response(&r.one()), (91, S::TaskDoesNotExist));
    r.recv_on(other, reassign(92, 2, 0));
    let calls = calls(&mut r, other);
    assert!(calls.len() == 2 && calls[1].starts_with("status 2 "), "not before the function: {calls:?}");
}

/// A fence waits for the third connection, and the read that ends on the first meanwhile has its response behind it when
/// that connection is lost.
// req: 7143-7.2.2-5, 7143-7.2.2-3, 7143-4.2.2.3.3-5
#[test]
fn a_response_that_a_fence_holds_back_changes_its_connection() {
    let mut r = Rig::new(|p| (p.error_recovery_level, p.task_reporting) = (2, TaskReporting::ResponseFence));
    let (other, third) = (r.connect(2), r.connect(3));
    r.recv_on(third, cmd(1, 100));
    r.recv_on(other, cmd(2, 101));
    r.recv(read(3, 102, 2048));
    let [before, fenced, behind] = [r.tag(), r.tag(), r.tag()];
    r.s.complete(before, Outcome::good());
    r.s.complete(fenced, Outcome::good().with_fence());
    r.s.read_data(behind, 0, Bytes::from(vec![1; 2048]).into());
    r.s.complete(behind, Outcome::good().with_read(2048));
    let input = InputProgress {
        next: DataSn(2),
        sent: vec![(DataSn(0), 0), (DataSn(1), 1024)],
        end: 2048,
        ..InputProgress::default()
    };
    lose_with(&mut r, vec![(Itt(3), Reclaimed { input, ..Reclaimed::default() })]);
    r.actions();
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 3, 1));
    assert_eq!(calls(&mut r, other), ["TMF 91 0", "put 3 at 1024 len 1024 DataSN Some(1)"]);
    // 2000 is the news of the loss, 2001 and 2002 are answers.
    r.ack_on(third, 3001);
    let status = &calls(&mut r, other)[0];
    assert!(status.starts_with("status 2 StatSN 2003"), "the fenced one alone: {status}");
    r.ack_on(other, 2004);
    assert_eq!(calls(&mut r, other), ["status 3 StatSN 2004 ExpDataSN 1 tag 0"]);
}

/// A command without data and 70 reads of 1 MiB end, and nothing is acknowledged: the input of the first reads goes, no
/// status does.
// req: 7143-7.2.2-5
#[test]
fn no_input_drives_out_a_status() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.s.complete(tag, Outcome::good());
    let data = Bytes::from(vec![1; 1 << 20]);
    for n in 2..72 {
        r.recv(read(n, 99 + n, 1 << 20));
        let tag = r.tag();
        r.s.read_data(tag, 0, data.clone().into());
        r.s.complete(tag, Outcome::good().with_read(1 << 20));
        r.actions();
    }
    let sent: Vec<(DataSn, u32)> = (0..1024).map(|n| (DataSn(n), n * 1024)).collect();
    let all =
        || InputProgress { next: DataSn(1024), sent: sent.clone(), end: 1 << 20, ..InputProgress::default() };
    let reclaimed = |itt| (Itt(itt), Reclaimed { input: all(), ..Reclaimed::default() });
    lose_with(&mut r, vec![reclaimed(2), reclaimed(3), reclaimed(71)]);
    logged_out(&mut r, other, 1000);
    let mut ask = |itt, exp_data_sn| {
        r.recv_on(other, reassign(91, itt, exp_data_sn));
        calls(&mut r, other)
    };
    assert!(ask(1, 0)[1].starts_with("status 1 "));
    assert!(ask(2, 1024)[1].starts_with("status 2 "), "its input is there already");
    assert_eq!(ask(3, 0), ["TMF 91 1"], "a read whose input is needed and gone is done anew");
    let last = ask(71, 0);
    assert!(last[1].starts_with("put 71 at ") && last[2].starts_with("status 71 "), "{last:?}");
}

// req: 7143-11.5.1-12, 7143-7.2.2-8
#[test]
fn nothing_comes_of_a_reassignment_after_abort_task() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.s.complete(tag, Outcome::good());
    r.lose(r.c);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, abort_task(50, 101, 1, 100));
    let [status, answer] = &calls(&mut r, other)[..] else { panic!() };
    assert!(status.starts_with("status 1 StatSN 2002"), "sent once more: {status}");
    assert_eq!(answer, "TMF 50 1", "it was over");
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(
        tmf_response(&r.one()),
        (91, S::TaskStillAllegiant),
        "to the connection that it was aborted on"
    );
    r.ack_on(other, 2005);
    r.recv_on(other, reassign(92, 1, 0));
    assert_eq!(tmf_response(&r.one()), (92, S::TaskDoesNotExist));
}

/// How much of its input the initiator has, an ABORT TASK does not say.
#[test]
fn an_abort_does_not_bring_the_status_of_a_read_without_its_input() {
    let (mut r, other) = rig();
    r.recv(read(1, 100, 512));
    let tag = r.tag();
    r.s.read_data(tag, 0, Bytes::from(vec![1; 512]).into());
    r.s.complete(tag, Outcome::good().with_read(512));
    r.lose(r.c);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, abort_task(50, 101, 1, 100));
    assert_eq!(tmf_response(&r.one()), (50, S::TaskDoesNotExist));
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(tmf_response(&r.one()), (91, S::TaskDoesNotExist));
}

// req: 7143-11.14-5
#[test]
fn a_response_that_the_logout_acknowledges_is_over() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.s.complete(tag, Outcome::good());
    r.lose(r.c);
    // ExpStatSN of a logout is that of the connection it is for (section 11.14.4).
    logged_out(&mut r, other, 1001);
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(tmf_response(&r.one()), (91, S::TaskDoesNotExist));
}

/// All output that had not come is asked for, what was sent unsolicited too (RFC 7145 section 10.2.2).
// req: 7143-7.2.2-2, 7143-7.2.2-5
#[test]
fn a_write_under_way_asks_anew_for_what_has_not_come() {
    let mut r = Rig::new(|p| {
        p.error_recovery_level = 2;
        p.initial_r2t = false;
    });
    let other = r.connect(2);
    r.recv(write(1, 100, 8192, 1024));
    let tag = r.tag();
    r.s.want_write(tag, 1024, IoBuf::zeroed(1024).into());
    r.s.want_write(tag, 2048, IoBuf::zeroed(6144).into());
    r.recv(ScsiCommand { final_pdu: false, ..write(2, 101, 4096, 1024) });
    r.recv(data_out(2, 0, 1024, 1024, false));
    r.data_completion(1, 1024, 1024);
    assert_eq!(r.ups(), [Up::WriteData { offset: 1024, len: 1024, result: Ok(()) }]);
    r.actions();
    let gets = vec![(2048, IoBuf::zeroed(6144).into())];
    lose_with(&mut r, vec![(Itt(1), Reclaimed { gets, ..Reclaimed::default() })]);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 1, 0));
    r.recv_on(other, reassign(92, 2, 0));
    assert_eq!(calls(&mut r, other), ["TMF 91 0", "get 1 at 2048 len 6144 R2TSN Some(0)", "TMF 92 0"]);
    let second = r.task();
    assert_eq!(second.unsolicited.len(), 2048);
    r.s.want_write(second.tag, 2048, IoBuf::zeroed(2048).into());
    assert_eq!(calls(&mut r, other), ["get 2 at 2048 len 2048 R2TSN Some(0)"]);
    let done =
        DataCompletion { itt: Itt(1), offset: 2048, data: Some(IoBuf::zeroed(6144).into()), result: Ok(()) };
    r.s.handle_event(r.now, other, Event::DataCompletion(done));
    assert_eq!(r.ups(), [Up::WriteData { offset: 2048, len: 6144, result: Ok(()) }]);
    r.s.complete(tag, Outcome::good().with_write(8192));
    assert_eq!(calls(&mut r, other).len(), 1);
}

/// A call that was not carried out before the connection was lost took its buffer with it.
#[test]
fn output_is_asked_for_though_its_buffer_never_came_back() {
    let (mut r, other) = rig();
    r.recv(write(1, 100, 2048, 0));
    let tag = r.tag();
    r.s.want_write(tag, 0, IoBuf::zeroed(2048).into());
    r.lose(r.c);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(calls(&mut r, other), ["TMF 91 0", "get 1 at 0 len 2048 R2TSN Some(0)"]);
}

// req: 7143-7.2.2-8, 7143-11.5.1-18, 7143-11.5.1-20, 7143-11.5.1-21, 7143-7.2.2-7
#[test]
fn what_cannot_be_reassigned() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    r.tag();
    let ask = |r: &mut Rig, request: TaskMgmtRequest| {
        r.actions();
        r.recv_on(other, request);
        tmf_response(&r.one()).1
    };
    assert_eq!(ask(&mut r, reassign(91, 1, 0)), S::TaskStillAllegiant, "its connection is alive");
    r.lose(r.c);
    assert_eq!(ask(&mut r, reassign(91, 1, 0)), S::TaskStillAllegiant, "there was no logout");
    logged_out(&mut r, other, 1000);
    assert_eq!(ask(&mut r, reassign(91, 2, 0)), S::TaskDoesNotExist);
    r.recv_on(other, tmf(50, 101, TaskMgmtFunction::LogicalUnitReset));
    assert_eq!(ask(&mut r, reassign(91, 50, 0)), S::FunctionRejected, "a task management function");
    let mut r = Rig::new(|p| p.error_recovery_level = 1);
    r.recv(reassign(91, 1, 0));
    assert_eq!(tmf_response(&r.one()).1, S::ReassignmentNotSupported);
}

// req: 7143-11.14-5, 7143-7.14-5
#[test]
fn a_recovery_logout_discards_what_was_not_acknowledged_and_immediate_commands_end_at_once() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    r.recv(ScsiCommand { immediate: true, ..cmd(2, 101) });
    r.recv(cmd(3, 102));
    let (first, immediate) = (r.tag(), r.tag());
    r.lose(r.c);
    assert_eq!(r.ups(), [Up::Abort(immediate), Up::Cleared(Lun::ZERO)]);
    r.s.discard(immediate);
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 3, 0));
    assert_eq!(tmf_response(&r.one()).1, S::TaskDoesNotExist);
    // The numbers are gaps that a retry fills, on another connection.
    r.recv_on(other, cmd(4, 101));
    r.recv_on(other, cmd(3, 102));
    assert_eq!(r.ups().len(), 2);
    r.s.complete(first, Outcome::good());
    assert_eq!(r.sent(), [], "not before it is reassigned");
}

// req: 7143-6.3.4-5, 7143-11.14-9, 7143-6.3.4-2
#[test]
fn a_reinstated_connection_goes_on_with_the_tasks_of_the_old_one() {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    r.recv(cmd(1, 100));
    let tag = r.tag();
    let old = r.c;
    let new = r.connect(1);
    assert_eq!(r.ups(), [], "nothing ends");
    r.actions();
    r.recv_on(new, reassign(91, 1, 0));
    assert_eq!(calls(&mut r, new), [""; 0], "the old datamover has not given back what it holds");
    r.lose(old);
    assert_eq!(calls(&mut r, new), ["TMF 91 0"]);
    r.s.complete(tag, Outcome::good());
    assert_eq!(calls(&mut r, new), ["status 1 StatSN 1001 ExpDataSN 0 tag 0"]);
}

/// An initiator that comes again and again with the same CID: what its first connections left is gone in time.
// req: 7143-7.5-2, 7143-7.5-3
#[test]
fn connections_that_are_reinstated_again_and_again_leave_a_bounded_number_behind() {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    for _ in 0..100 {
        let (old, new) = (r.c, r.connect(1));
        r.lose(old);
        r.c = new;
        r.after(Duration::from_secs(2));
    }
    // 22 seconds each.
    assert!(r.s.lost.len() <= 12 && r.s.conns.len() <= 13, "{} {}", r.s.lost.len(), r.s.conns.len());
}

// req: 7143-7.6-1, 7143-11.14.5-1, 7143-7.5-2, 7143-8.2.2-1
#[test]
fn tasks_that_are_not_reassigned_in_time_end() {
    for log_out in [false, true] {
        let (mut r, other) = rig();
        r.recv(cmd(1, 100));
        let tag = r.tag();
        r.lose(r.c);
        if log_out {
            r.after(Duration::from_secs(2));
            logged_out(&mut r, other, 1000);
        }
        r.after(Duration::from_secs(21));
        assert_eq!(r.ups(), []);
        r.after(Duration::from_secs(1));
        assert_eq!(r.ups(), [Up::Abort(tag), Up::Cleared(Lun::ZERO)]);
        r.s.discard(tag);
        assert_eq!(r.s.open_tasks(), 0);
        r.actions();
        r.recv_on(other, reassign(91, 1, 0));
        assert_eq!(tmf_response(&r.one()).1, S::TaskDoesNotExist);
    }
}

// req: 7143-11.15.4-1, 7143-7.5-2
#[test]
fn the_last_connection_logged_out_for_recovery_leaves_the_session_waiting() {
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.recv(logout(90, 1, 1000));
    assert!(matches!(r.one(), Pdu::LogoutResponse(l) if l.response == LogoutStatus::Success));
    assert_eq!(r.s.state(), SessionState::Failed);
    r.lose(r.c);
    let new = r.connect(2);
    assert_eq!(r.s.state(), SessionState::LoggedIn);
    r.recv_on(new, reassign(91, 1, 0));
    assert_eq!(calls(&mut r, new), ["TMF 91 0"]);
    r.s.complete(tag, Outcome::good());
    assert_eq!(calls(&mut r, new).len(), 1);
    // And without anybody coming back.
    let mut r = Rig::new(|p| p.error_recovery_level = 2);
    r.recv(logout(90, 1, 1000));
    r.lose(r.c);
    r.events();
    r.after(Duration::from_secs(21));
    assert_eq!(r.events(), []);
    r.after(Duration::from_secs(1));
    assert_eq!(r.events(), [TargetEvent::Ended(SessionEnd::TimedOut)]);
}

/// A reset meanwhile ends the tasks that wait.
#[test]
fn a_suspended_task_can_be_aborted() {
    let (mut r, other) = rig();
    r.recv(write(1, 100, 2048, 0));
    let tag = r.tag();
    r.s.want_write(tag, 0, IoBuf::zeroed(2048).into());
    r.lose(r.c);
    r.actions();
    r.recv_on(other, tmf(50, 101, TaskMgmtFunction::LogicalUnitReset));
    assert_eq!(r.ups(), [Up::Abort(tag), Up::Function(TaskMgmtFunction::LogicalUnitReset)]);
    r.s.discard(tag);
    r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
    assert_eq!(r.s.open_tasks(), 0);
}

/// Its initiator will hear that it does not exist any more, and write the same blocks anew: what the device server has of
/// it must not come after that.
// req: 7143-7.2.2-7, 7143-11.5.1-12
#[test]
fn nothing_overtakes_a_task_that_was_being_aborted_when_its_connection_was_lost() {
    let (mut r, other) = rig();
    r.recv(cmd(1, 100));
    let tag = r.tag();
    let abort = tmf(50, 101, TaskMgmtFunction::AbortTask);
    r.recv(TaskMgmtRequest { referenced_task_tag: Itt(1), ref_cmd_sn: CmdSn(100), ..abort });
    assert_eq!(r.ups(), [Up::Abort(tag)]);
    r.lose(r.c);
    r.ups();
    logged_out(&mut r, other, 1000);
    r.recv_on(other, reassign(91, 1, 0));
    assert_eq!(tmf_response(&r.one()).1, S::TaskDoesNotExist);
    r.recv_on(other, cmd(2, 101));
    assert_eq!(r.ups(), [], "not before the device server has let go of the first");
    r.s.discard(tag);
    assert_eq!(r.ups().len(), 1);
}
