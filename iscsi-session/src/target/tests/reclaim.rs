use super::*;
use TaskMgmtFunction as F;
use TaskMgmtStatus as S;

/// A session over RDMA with two connections, the first of which fetches output for a write (ITT 1).
fn fetching(reporting: TaskReporting) -> (Rig, ConnId, TaskTag) {
    let mut r = Rig::new(|p| {
        (p.rdma_extensions, p.max_connections, p.task_reporting) = (true, 2, reporting);
    });
    let second = r.connect(2);
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    assert!(r.actions().iter().any(|a| matches!(a.call, DownCall::GetData(_))));
    (r, second, tag)
}

fn logout(cid: u16) -> LogoutRequest {
    LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseConnection,
        itt: Itt(60),
        cid: Cid(cid),
        cmd_sn: CmdSn(101),
        exp_stat_sn: FIRST_STAT_SN,
    }
}

fn deallocated(actions: &[Action]) -> Vec<(ConnId, Itt)> {
    let one = |a: &Action| match a.call {
        DownCall::DeallocateTaskResources(itt) => Some((a.conn, itt)),
        _ => None,
    };
    actions.iter().filter_map(one).collect()
}

fn pdus(actions: Vec<Action>) -> Vec<(ConnId, Pdu)> {
    let one = |a: Action| match a.call {
        DownCall::SendControl(c) => Some((a.conn, c.pdu)),
        _ => None,
    };
    actions.into_iter().filter_map(one).collect()
}

/// The initiator lets go of all tasks when either answer comes, and the reset's is on a connection with which the Read
/// is not in step.
// req: 7143-11.14-4, 7145-8.3.2-5
#[test]
fn a_reset_and_a_logout_wait_for_a_read_that_is_under_way() {
    for reporting in [TaskReporting::Rfc3720, TaskReporting::ResponseFence, TaskReporting::FastAbort] {
        let (mut r, second, tag) = fetching(reporting);
        r.recv_on(second, tmf(50, 101, F::LogicalUnitReset));
        r.recv(logout(1));
        let ups = r.ups();
        assert!(ups.contains(&Up::Abort(tag)), "{reporting:?}");
        // FastAbort alone hands the function on before the data under way is in.
        let launched = ups.contains(&Up::Function(F::LogicalUnitReset));
        assert_eq!(launched, reporting == TaskReporting::FastAbort);
        if launched {
            r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
        }
        r.s.discard(tag);
        let actions = r.actions();
        assert_eq!(deallocated(&actions), [(r.c, Itt(1))], "{reporting:?}: what has not gone out never does");
        assert_eq!(pdus(actions), [], "{reporting:?}: the Read is under way");
        r.reclaim(second, 1);
        r.reclaim(r.c, 9);
        assert_eq!(pdus(r.actions()), [], "{reporting:?}: that was another task");
        assert!(!r.ups().contains(&Up::Function(F::LogicalUnitReset)), "{reporting:?}");
        r.reclaim(r.c, 1);
        if !launched {
            assert!(r.ups().contains(&Up::Function(F::LogicalUnitReset)), "{reporting:?}");
            r.s.respond(FunctionTag(0), S::FunctionComplete, [0; 3]);
        }
        let mut sent = pdus(r.actions());
        // The fence before the answer: nothing more is awaited from a connection that is gone.
        r.lose(r.c);
        sent.extend(pdus(r.actions()));
        let logged_out = |(conn, pdu): &(ConnId, Pdu)| {
            *conn == r.c && matches!(pdu, Pdu::LogoutResponse(p) if p.response == LogoutStatus::Success)
        };
        assert!(sent.iter().any(logged_out), "{reporting:?}: {sent:?}");
        let answers: Vec<_> = sent.iter().filter(|(_, p)| matches!(p, Pdu::TaskMgmtResponse(_))).collect();
        assert_eq!(answers.len(), 1, "{reporting:?}: {sent:?}");
        assert_eq!((answers[0].0, tmf_response(&answers[0].1)), (second, (50, S::FunctionComplete)));
        assert_eq!(r.s.open_tasks(), 0);
    }
}

/// The device server was done, and the response waited for the data.
// req: 7143-11.14-4, 7145-8.3.2-5
#[test]
fn a_logout_waits_for_the_read_of_a_task_that_has_its_outcome() {
    let (mut r, second, tag) = fetching(TaskReporting::ResponseFence);
    r.s.complete(tag, Outcome::check_condition(Bytes::from_static(&[0x70, 0, 3])));
    r.recv(logout(1));
    let actions = r.actions();
    assert_eq!(deallocated(&actions), [(r.c, Itt(1))]);
    assert_eq!(pdus(actions), []);
    assert_eq!(r.ups(), [Up::Cleared(Lun::ZERO)], "nothing to abort");
    r.recv_on(second, cmd(2, 101));
    assert_eq!(r.ups().len(), 1, "other connections go on meanwhile");
    r.reclaim(r.c, 1);
    let sent = pdus(r.actions());
    assert!(matches!(&sent[..], [(c, Pdu::LogoutResponse(_))] if *c == r.c), "{sent:?}");
}

// req: 7143-11.6.1-3, 7145-8.3.2-5
#[test]
fn abort_task_waits_for_the_read_of_a_task_that_has_its_outcome() {
    let (mut r, second, tag) = fetching(TaskReporting::ResponseFence);
    r.s.complete(tag, Outcome::check_condition(Bytes::from_static(&[0x70, 0, 3])));
    r.recv_on(second, abort_task(50, 101, 1, 100));
    let actions = r.actions();
    assert_eq!(deallocated(&actions), [(r.c, Itt(1))]);
    assert_eq!(pdus(actions), []);
    r.s.discard(tag);
    assert_eq!(pdus(r.actions()), [], "the device server has nothing to say any more");
    r.reclaim(r.c, 1);
    let sent = pdus(r.actions());
    assert_eq!((sent.len(), tmf_response(&sent[0].1)), (1, (50, S::FunctionComplete)));
}

/// The peer never answers the Read: with the connection it is over all the same, and so is what waits for it.
// req: 7143-7.6-1
#[test]
fn a_read_that_never_comes_back_ends_with_its_connection() {
    let (mut r, second, tag) = fetching(TaskReporting::ResponseFence);
    r.recv_on(second, abort_task(50, 101, 1, 100));
    assert_eq!(r.ups(), [Up::Abort(tag)]);
    r.s.discard(tag);
    r.actions();
    r.lose(r.c);
    assert_eq!(r.s.open_tasks(), 0);
    let answers: Vec<_> =
        r.sent_on().into_iter().filter(|(_, p)| matches!(p, Pdu::TaskMgmtResponse(_))).collect();
    assert_eq!((answers.len(), tmf_response(&answers[0].1)), (1, (50, S::FunctionComplete)));
    r.recv_on(second, cmd(2, 101));
    assert!(matches!(&r.ups()[..], [Up::Execute { itt_opcode: 2, .. }]), "nothing is held back");
}

/// Over TCP nothing is advertised: an initiator that has asked for a logout need not send what was asked for.
#[test]
fn without_rdma_a_logout_does_not_wait_for_data() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    r.recv(logout(1));
    r.s.discard(tag);
    assert!(r.sent().iter().any(|p| matches!(p, Pdu::LogoutResponse(_))));
}
