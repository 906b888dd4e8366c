//! TASK REASSIGN at the initiator when it is rejected: RFC 7143 sections 7.2.2, 11.17.

use super::reassign::{answer, logout, lose_with_progress, reassign_answer, rig};
use super::*;

/// Both commands of a lost connection are being reassigned, on the connection that is left: the requests.
fn both_requested(r: &mut Rig, other: ConnId, commands: &[(TaskTag, ScsiCommand)]) -> [TaskMgmtRequest; 2] {
    let c = r.c;
    lose_with_progress(r, c, &[(commands[0].1.itt, 3), (commands[1].1.itt, 0)]);
    r.after(Duration::from_secs(2));
    let request = logout(r.one());
    answer(r, other, request.itt, 0, 102);
    r.after(Duration::from_secs(1));
    r.c = other;
    let sent = r.sent();
    let [Pdu::TaskMgmtRequest(first), Pdu::TaskMgmtRequest(second)] = &sent[..] else { panic!("{sent:?}") };
    [first.clone(), second.clone()]
}

/// TASK REASSIGN requests sent: connection, task, ExpDataSN, and whether buffers went along.
fn reassignments(r: &mut Rig) -> Vec<(ConnId, Itt, DataSn, bool)> {
    r.actions()
        .into_iter()
        .filter_map(|a| match a.call {
            DownCall::SendControl(Control { pdu: Pdu::TaskMgmtRequest(t), buffers, .. }) => {
                assert!(t.immediate && t.function == TaskMgmtFunction::TaskReassign);
                Some((a.conn, t.referenced_task_tag, t.exp_data_sn, !buffers.is_none()))
            }
            _ => None,
        })
        .collect()
}

fn input() -> TaskBuffers {
    TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(512).into()) }
}

fn return_input(r: &mut Rig, itt: Itt) {
    let reclaimed = Reclaimed { buffers: input(), ..Reclaimed::default() };
    r.s.handle_event(r.now, r.c, Event::TaskReclaimed { itt, reclaimed });
}

/// 0x06 of section 11.17.1: "too many immediate commands". The request may be sent again.
// req: 7143-7.2.2-8
#[test]
fn a_reassignment_for_which_the_target_has_no_room_is_asked_for_again() {
    for answered in [true, false] {
        let (mut r, other, commands) = rig();
        let [first, second] = both_requested(&mut r, other, &commands);
        let (tag, itt) = (commands[0].0, commands[0].1.itt);
        r.reject(0x06, &first.clone().into());
        assert!(
            r.actions().iter().any(|a| matches!(a.call, DownCall::DeallocateTaskResources(i) if i == itt))
        );
        return_input(&mut r, itt);
        assert_eq!(reassignments(&mut r), []);
        if answered {
            // The other one is over, which makes room.
            reassign_answer(&mut r, other, second.itt, 0);
        } else {
            r.after(Duration::from_secs(1));
        }
        assert_eq!(reassignments(&mut r), [(other, itt, DataSn(3), true)]);
        let stat_sn = r.next_stat_sn(other);
        let pdu = ScsiResponse { itt, stat_sn, exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(107), ..good() };
        r.recv_raw(other, pdu, marked());
        assert_eq!(r.one_done().tag, tag);
        assert!(
            !r.events()
                .iter()
                .any(|e| matches!(e, InitiatorEvent::ConnectionEnded { conn, .. } if *conn == other))
        );
    }
}

/// The connection is lost while a reassignment waits for room on it: the task goes on on the next, with its buffers.
// req: 7143-7.1.4.3-2
#[test]
fn a_reassignment_that_waits_for_room_survives_the_loss_of_its_connection() {
    for returned in [true, false] {
        let (mut r, other, commands) = rig();
        let [first, second] = both_requested(&mut r, other, &commands);
        let itts = [commands[0].1.itt, commands[1].1.itt];
        r.reject(0x06, &first.clone().into());
        r.reject(0x06, &second.clone().into());
        if returned {
            itts.into_iter().for_each(|itt| return_input(&mut r, itt));
        }
        r.actions();
        let open = if returned { vec![] } else { vec![(itts[0], 0), (itts[1], 0)] };
        lose_with_progress(&mut r, other, &open);
        assert!(r.done().is_empty());
        let third = r.connect();
        r.after(Duration::from_secs(2));
        let request = r.sent().into_iter().find(|p| matches!(p, Pdu::LogoutRequest(_))).unwrap();
        answer(&mut r, third, request.itt(), 0, 102);
        r.after(Duration::from_secs(1));
        let want = [(third, itts[0], DataSn(3), true), (third, itts[1], DataSn(0), true)];
        assert_eq!(reassignments(&mut r), want, "{returned}");
    }
}

/// Other reasons say as much as a negative response does; so does one that never ends.
// req: 7143-7.2.2-8
#[test]
fn a_reassignment_that_is_rejected_for_good_is_session_recovery() {
    let ends = |r: &mut Rig, other| {
        r.actions().iter().any(|a| a.conn == other && matches!(a.call, DownCall::ConnectionTerminate))
    };
    for reason in [0x04, 0x05, 0x09] {
        let (mut r, other, commands) = rig();
        let [first, _] = both_requested(&mut r, other, &commands);
        r.reject(reason, &first.clone().into());
        assert!(ends(&mut r, other), "{reason}");
    }
    let (mut r, other, commands) = rig();
    let [first, second] = both_requested(&mut r, other, &commands);
    reassign_answer(&mut r, other, second.itt, 0);
    let (itt, mut request) = (commands[0].1.itt, first);
    // DefaultTime2Retain is 20 seconds, and an answer takes 15 at most.
    for _ in 0..35 {
        r.reject(0x06, &request.clone().into());
        return_input(&mut r, itt);
        r.actions();
        r.after(Duration::from_secs(1));
        let again = r.sent().into_iter().find_map(|p| match p {
            Pdu::TaskMgmtRequest(t) => Some(t),
            _ => None,
        });
        request = again.expect("it is sent again");
    }
    r.reject(0x06, &request.clone().into());
    assert!(ends(&mut r, other));
}
