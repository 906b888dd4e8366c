use super::*;
use TaskMgmtFunction as F;

/// Two connections, with a response unacknowledged on the second.
fn two(reporting: TaskReporting) -> (Rig, ConnId) {
    let mut r = Rig::new(|p| (p.task_reporting, p.max_connections) = (reporting, 2));
    let second = r.connect(2);
    r.recv_on(second, cmd(1, 100));
    let tag = r.tag();
    r.s.complete(tag, Outcome::good());
    assert_eq!(r.sent_on().len(), 1);
    (r, second)
}

fn pings(sent: &[(ConnId, Pdu)]) -> Vec<ConnId> {
    sent.iter().filter(|(_, p)| matches!(p, Pdu::NopIn(n) if !n.ttt.is_none())).map(|(c, _)| *c).collect()
}

fn responses(sent: &[(ConnId, Pdu)]) -> Vec<u32> {
    sent.iter().filter(|(_, p)| !matches!(p, Pdu::NopIn(_))).map(|(_, p)| p.itt().0).collect()
}

fn ua() -> Outcome {
    Outcome::check_condition(Bytes::from_static(&[
        0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0,
    ]))
}

// req: 7143-4.2.2.3.2-1, 7143-4.2.2.3.2-2, 7143-4.2.2.3.2-3, 7143-4.2.2.3.3-1, 7143-4.2.2.3.3-2
// req: 7143-4.2.2.3.3-3, 7143-4.2.2.3.3-4, 7143-4.2.2.3.3-5, 7143-4.2.3.3-12, 7143-4.2.3.3-14, 7143-11.6.1-2
// req: 7143-13.23-3, 7143-13.23-4, 7143-4.2.3.4-15, 7143-4.2.3.4-18
#[test]
fn a_multi_task_response_waits_for_acknowledgments_and_holds_what_comes_after() {
    for reporting in [TaskReporting::ResponseFence, TaskReporting::FastAbort, TaskReporting::Rfc3720] {
        let (mut r, second) = two(reporting);
        let first = r.c;
        r.recv(tmf(50, 101, F::AbortTaskSet));
        r.recv_on(second, cmd(2, 101));
        r.recv_on(second, ScsiCommand { lun: lun(1), ..cmd(3, 102) });
        assert_eq!(r.s.poll_task().map(|e| matches!(e, TaskEvent::TaskManagement(_))), Some(true));
        let (later, other_lun) = (r.tag(), r.tag());
        r.s.respond(FunctionTag(0), TaskMgmtStatus::FunctionComplete, [0; 3]);
        let sent = r.sent_on();
        assert_eq!(pings(&sent), [second], "{reporting:?}: solicits the acknowledgment");
        assert_eq!(responses(&sent), [] as [u32; 0]);
        r.s.complete(later, Outcome::good());
        assert_eq!(r.sent_on(), [], "held behind the fence");
        r.s.complete(other_lun, Outcome::good());
        assert_eq!(responses(&r.sent_on()), [3], "another logical unit is not");
        r.ack_on(second, 2001);
        let sent = r.sent_on();
        assert_eq!(responses(&sent), [50], "the fenced one alone");
        assert_eq!(pings(&sent), [first]);
        r.ack_on(first, 1001);
        assert_eq!(responses(&r.sent_on()), [2], "acknowledged: the fence is down");
    }
}

// req: 7143-4.2.2.3.4-1, 7143-4.2.3.3-13, 7143-4.2.3.4-16, 7143-4.2.3.6-1
#[test]
fn the_completions_of_section_4_2_2_3_4_are_fenced_when_negotiated() {
    let aca_active = Outcome::status(ScsiStatus::AcaActive);
    for (what, outcome) in
        [("unit attention", ua()), ("ACA ACTIVE", aca_active), ("marked", Outcome::good().with_fence())]
    {
        for (reporting, fenced) in [(TaskReporting::ResponseFence, true), (TaskReporting::Rfc3720, false)] {
            let (mut r, second) = two(reporting);
            r.recv(cmd(2, 101));
            let tag = r.tag();
            r.s.complete(tag, outcome.clone());
            let sent = r.sent_on();
            assert_eq!(responses(&sent).is_empty(), fenced, "{what}, {reporting:?}");
            if fenced {
                r.ack_on(second, 2001);
                assert_eq!(responses(&r.sent_on()), [2]);
            }
        }
    }
    let (mut r, _) = two(TaskReporting::ResponseFence);
    r.recv(tmf(50, 101, F::ClearAca));
    r.ups();
    r.s.respond(FunctionTag(0), TaskMgmtStatus::FunctionComplete, [0; 3]);
    assert_eq!(responses(&r.sent_on()), [] as [u32; 0], "CLEAR ACA");
}

#[test]
fn a_single_connection_needs_no_fence() {
    let mut r = Rig::new(|p| p.task_reporting = TaskReporting::ResponseFence);
    r.recv(cmd(1, 100));
    r.recv(cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    r.s.complete(tags[0], ua());
    r.s.complete(tags[1], Outcome::good());
    assert_eq!(responses(&r.sent_on()), [1, 2]);
}

#[test]
fn a_fence_falls_with_the_connection_that_it_waits_for() {
    let (mut r, second) = two(TaskReporting::ResponseFence);
    r.recv(cmd(2, 101));
    let tag = r.tag();
    r.s.complete(tag, ua());
    r.sent_on();
    r.lose(second);
    assert!(responses(&r.sent_on()).contains(&2));
}

/// The initiator takes event 5 for the end of all tasks of the logical unit that had no response.
// req: 7143-4.2.2.3.3-5, 7143-4.2.3.5-1
#[test]
fn what_a_fence_holds_back_goes_before_the_news_that_tasks_were_terminated() {
    let (mut r, second) = two(TaskReporting::FastAbort);
    for (itt, cmd_sn) in [(2, 101), (3, 102), (4, 103)] {
        r.recv(cmd(itt, cmd_sn));
    }
    let tags = [r.tag(), r.tag(), r.tag()];
    r.s.complete(tags[0], ua());
    r.s.complete(tags[1], Outcome::good());
    // Another nexus ends the third.
    r.s.discard(tags[2]);
    assert_eq!(responses(&r.sent_on()), [] as [u32; 0]);
    r.ack_on(second, 2001);
    assert_eq!(responses(&r.sent_on()), [2], "the fenced one alone");
    r.ack_on(r.c, 1001);
    let sent = r.sent();
    let [.., Pdu::ScsiResponse(held), Pdu::AsyncMessage(news)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((held.itt, news.event), (Itt(3), AsyncEvent::TasksTerminated));
}

fn answer(ttt: u32, exp_stat_sn: u32) -> NopOut {
    NopOut {
        immediate: true,
        itt: Itt::NONE,
        ttt: Ttt(ttt),
        cmd_sn: CmdSn(102),
        exp_stat_sn: StatSn(exp_stat_sn),
        ..NopOut::default()
    }
}

/// The acknowledgment comes with a command, before the answer to the ping, which then says nothing about the response
/// that has gone out meanwhile.
// req: 7143-4.2.2.3.3-2, 7143-4.2.2.3.3-4
#[test]
fn a_fence_asks_again_when_the_answer_to_its_ping_is_older_than_what_it_waits_for() {
    let cfg = TargetConfig { ping_after: None, ..TargetConfig::default() };
    let mut r = Rig::with_config(cfg, |p| p.task_reporting = TaskReporting::ResponseFence);
    let second = r.connect(2);
    r.recv_on(second, cmd(1, 100));
    r.recv_on(second, cmd(2, 101));
    let tags = [r.tag(), r.tag()];
    r.s.complete(tags[0], Outcome::good());
    r.s.complete(tags[1], ua());
    assert_eq!(pings(&r.sent_on()), [second]);
    r.ack_on(second, 2001);
    let sent = r.sent_on();
    assert_eq!((responses(&sent), pings(&sent)), (vec![2], vec![]), "a ping is under way");
    r.recv_on(second, answer(0, 2001));
    assert_eq!(pings(&r.sent_on()), [second]);
    // The response was lost, say: asking at once, again and again, would not bring it.
    r.recv_on(second, answer(1, 2001));
    assert_eq!(r.sent(), []);
    r.after(Duration::from_secs(1));
    assert_eq!(pings(&r.sent_on()), [second]);
    r.recv_on(second, answer(2, 2002));
    assert_eq!((r.sent(), r.s.poll_timeout()), (vec![], None), "acknowledged");
    assert!(r.s.fences.is_empty());
}

/// The initiator answers pings and acknowledges nothing: what a fence holds back is bounded by the command window and by
/// the number of immediate requests.
// req: 7143-4.2.2.3.3-5, 7143-4.2.2.1-11
#[test]
fn responses_that_are_held_back_take_up_their_places() {
    let (mut r, second) = two(TaskReporting::ResponseFence);
    r.recv(cmd(2, 101));
    let tag = r.tag();
    r.s.complete(tag, ua());
    for n in 0..50 {
        r.recv(cmd(10 + n, 102 + n));
        r.recv(ScsiCommand { immediate: true, ..cmd(100 + n, 103 + n) });
        r.recv(TaskMgmtRequest { referenced_task_tag: Itt(999), ..tmf(200 + n, 102, F::AbortTask) });
        while let Some(TaskEvent::Execute(task)) = r.s.poll_task() {
            r.s.complete(task.tag, Outcome::good());
        }
    }
    assert_eq!(r.s.window(), (CmdSn(109), CmdSn(108)), "shut, eight being held back");
    let rejects = r.sent().iter().filter(|p| matches!(p, Pdu::Reject(_))).count();
    assert_eq!(rejects, 2 * 50 - 2 * 16, "16 of each kind are held back");
    r.ack_on(second, 2001);
    let sent = r.sent();
    let [fenced, ..] = &sent[..] else { panic!() };
    assert_eq!((scsi_response(fenced).itt, scsi_response(fenced).max_cmd_sn), (Itt(2), CmdSn(109)));
    r.ack_on(r.c, fenced.stat_sn().unwrap().0 + 1);
    assert_eq!(r.sent().len(), 7 + 16 + 16);
    assert_eq!(r.s.window(), (CmdSn(109), CmdSn(116)), "all credits are back");
}
