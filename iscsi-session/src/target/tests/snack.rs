//! Recovery within a connection at the target: RFC 7143 sections 7.8, 7.9, 11.16.

use super::*;

fn rig() -> Rig {
    Rig::new(|p| p.error_recovery_level = 1)
}

fn status_snack(exp_stat_sn: u32, beg_run: u32, run_length: u32) -> Snack {
    Snack {
        kind: SnackType::Status,
        itt: Itt::NONE,
        ttt_or_snack_tag: Ttt::NONE,
        exp_stat_sn: StatSn(exp_stat_sn),
        beg_run,
        run_length,
        ..Snack::default()
    }
}

/// StatSNs of what is sent.
fn stat_sns(sent: &[Pdu]) -> Vec<u32> {
    sent.iter().map(|p| p.stat_sn().unwrap().0).collect()
}

/// Commands 1 to 3 end with StatSN 1000 to 1002.
fn three_responses(r: &mut Rig) -> Vec<Pdu> {
    for n in 0..3 {
        r.recv(cmd(n + 1, 100 + n));
        let tag = r.tag();
        r.s.complete(tag, Outcome::status(ScsiStatus::Busy));
    }
    r.sent()
}

// req: 7143-11.16-1, 7143-11.16-2, 7143-11.16-3, 7143-4.2.5.1-5
#[test]
fn responses_that_are_not_acknowledged_are_sent_again() {
    let mut r = rig();
    let sent = three_responses(&mut r);
    assert_eq!(stat_sns(&sent), [1000, 1001, 1002]);
    // ExpCmdSN and MaxCmdSN are current, the rest is as it was.
    r.recv(cmd(4, 103));
    r.recv(status_snack(1000, 1001, 1));
    let mut again = r.one();
    let Pdu::ScsiResponse(response) = &mut again else { panic!() };
    assert_eq!((response.exp_cmd_sn, response.max_cmd_sn), (CmdSn(104), CmdSn(110)));
    (response.exp_cmd_sn, response.max_cmd_sn) = (CmdSn(102), CmdSn(109));
    assert_eq!(again, sent[1]);
    for (beg_run, run_length, want) in
        [(1000, 2, &[1000, 1001][..]), (1001, 0, &[1001, 1002]), (0, 0, &[1000, 1001, 1002])]
    {
        r.recv(status_snack(1000, beg_run, run_length));
        assert_eq!(stat_sns(&r.sent()), want, "BegRun {beg_run}, RunLength {run_length}");
    }
    // What is acknowledged is forgotten.
    r.recv(status_snack(1002, 0, 0));
    assert_eq!(stat_sns(&r.sent()), [1002]);
    r.recv(status_snack(1003, 0, 0));
    r.quiet_pdus();
}

// req: 7143-11.16-7
#[test]
fn a_status_snack_for_what_was_never_sent_or_is_acknowledged_is_rejected() {
    for (beg_run, run_length) in [(999, 1), (1000, 4), (1003, 1), (1002, 2), (0x8000_0000, 1)] {
        let mut r = rig();
        three_responses(&mut r);
        r.recv(status_snack(1000, beg_run, run_length));
        assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError, "{beg_run} {run_length}");
    }
    let mut r = rig();
    three_responses(&mut r);
    r.recv(status_snack(1002, 1001, 1));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError, "acknowledged");
    let mut r = Rig::new(|_| {});
    three_responses(&mut r);
    r.recv(status_snack(1000, 1000, 1));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError, "ErrorRecoveryLevel 0");
}

/// The ExpStatSN of a Logout Request is that of the connection to be closed (section 11.14.4): on its carrier it
/// acknowledges nothing, whether or not the other one is still known.
#[test]
fn the_logout_of_another_connection_acknowledges_nothing_on_its_carrier() {
    for (level, reason) in [
        (1, LogoutReason::CloseConnection),
        (2, LogoutReason::CloseConnection),
        (2, LogoutReason::RemoveForRecovery),
    ] {
        for known in [true, false] {
            let mut r = Rig::new(|p| p.error_recovery_level = level);
            if known {
                r.connect(2);
            }
            let sent = three_responses(&mut r);
            let logout = LogoutRequest {
                immediate: true,
                reason,
                itt: Itt(90),
                cid: Cid(2),
                cmd_sn: CmdSn(103),
                exp_stat_sn: StatSn(1002),
            };
            r.recv(logout);
            r.actions();
            r.recv(status_snack(1000, 1000, 1));
            assert_eq!(stat_sns(&r.sent()), stat_sns(&sent[..1]), "{level} {reason:?} {known}");
        }
    }
}

/// Every numbered PDU can be asked for.
// req: 7143-11.16-2
#[test]
fn answers_other_than_to_commands_are_kept_too() {
    let mut r = rig();
    r.recv(NopOut {
        immediate: true,
        itt: Itt(9),
        cmd_sn: CmdSn(100),
        data: Bytes::from("ping"),
        ..NopOut::default()
    });
    r.recv(tmf(10, 100, TaskMgmtFunction::TaskReassign));
    r.recv(TextRequest {
        immediate: true,
        final_pdu: true,
        itt: Itt(11),
        ttt: Ttt::NONE,
        cmd_sn: CmdSn(100),
        ..TextRequest::default()
    });
    r.recv(DataOut { itt: Itt(77), ..data_out(77, 0, 0, 4, true) });
    r.s.asynchronous_event(Lun::ZERO, Bytes::from_static(&[0x70, 0, 6]));
    let sent = r.sent();
    assert_eq!(
        stat_sns(&sent),
        [1000, 1001, 1002, 1003, 1004],
        "NOP-In, task management, text, Reject, Async"
    );
    r.recv(status_snack(1000, 0, 0));
    assert_eq!(r.sent(), sent);
}

// req: 7143-11.16.3-3, 7143-11.4.4-2, 7143-11.16.3-4
#[test]
fn the_last_response_carries_the_tag_of_the_last_r_data_snack_and_the_same_stat_sn() {
    let r_data = |itt, tag| Snack {
        kind: SnackType::RData,
        itt: Itt(itt),
        ttt_or_snack_tag: Ttt(tag),
        exp_stat_sn: FIRST_STAT_SN,
        ..Snack::default()
    };
    let tag_of = |pdu: &Pdu| (scsi_response(pdu).stat_sn.0, scsi_response(pdu).snack_tag.0);
    let mut r = rig();
    r.recv(read(1, 100, 100));
    let tag = r.tag();
    r.s.read_data(tag, 0, Bytes::from(vec![1; 100]).into());
    r.recv(r_data(1, 7));
    r.actions();
    r.s.complete(tag, Outcome::good().with_read(100));
    assert_eq!(tag_of(&r.one()), (1000, 7), "asked for before the response");
    r.recv(r_data(1, 8));
    assert_eq!(tag_of(&r.one()), (1000, 8), "and after it");
    r.recv(status_snack(1000, 1000, 1));
    assert_eq!(tag_of(&r.one()), (1000, 8), "the latest content");
}

// req: 7143-7.8-8
#[test]
fn a_command_whose_data_cannot_be_sent_again_fails_with_snack_rejected() {
    let mut r = rig();
    r.recv(read(1, 100, 100));
    let tag = r.tag();
    let snack =
        Snack { kind: SnackType::DataR2t, itt: Itt(1), beg_run: 0, run_length: 1, ..Snack::default() };
    let mut header = [0; 48];
    Pdu::<Bytes>::from(snack).encode_header(&mut header).unwrap();
    let invalid = InvalidPdu {
        header: Bytes::copy_from_slice(&header),
        reason: RejectReason::SnackReject,
        error: None,
    };
    r.s.handle_event(r.now, r.c, Event::Invalid(invalid));
    assert_eq!(reject_reason(&r.one()), RejectReason::SnackReject);
    r.s.complete(tag, Outcome::good().with_read(100));
    assert_eq!(sense(&r.one()), [0x0b, 0x11, 0x13]);
}

/// Input that is kept is acknowledged every MaxBurstLength bytes (8192 here), and the last of it with the status.
// req: 7143-11.7.2-1, 7143-11.7.2-2, 7143-11.7.2-3
#[test]
fn a_long_read_is_acknowledged_burst_by_burst() {
    let asked = |level, rdma| {
        let mut r = Rig::new(|p| (p.error_recovery_level, p.rdma_extensions) = (level, rdma));
        r.recv(read(1, 100, 9 * 4096));
        let tag = r.tag();
        for n in 0..9 {
            r.s.read_data(tag, n * 4096, Bytes::from(vec![0; 4096]).into());
        }
        let ack = |a: Action| if let DownCall::PutData(p) = a.call { Some(p.ack) } else { None };
        r.actions().into_iter().filter_map(ack).collect::<Vec<_>>()
    };
    let every_other = [false, true, false, true, false, true, false, true, false];
    assert_eq!(asked(1, false), every_other);
    assert_eq!(asked(2, false), every_other);
    for (level, rdma) in [(0, false), (1, true), (2, true)] {
        assert_eq!(asked(level, rdma), [false; 9], "level {level}, RDMA {rdma}");
    }
}

/// A retry of a command that is here is ignored, whether it is under way or over (section 7.2.1).
// req: 7143-4.2.2.1-12
#[test]
fn a_retried_command_that_did_arrive_is_executed_once() {
    let mut r = rig();
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.recv(cmd(1, 100));
    r.quiet();
    r.s.complete(tag, Outcome::good());
    r.sent();
    r.recv(cmd(1, 100));
    r.quiet();
    assert_eq!(r.s.counters().ignored, 2);
}

fn burst_rig() -> Rig {
    Rig::new(|p| {
        p.error_recovery_level = 1;
        p.initial_r2t = false;
    })
}

/// What is missing of unsolicited data is asked for with the rest (a recovery R2T).
// req: 7143-7.8-3, 7143-7.9-2
#[test]
fn unsolicited_data_behind_a_gap_is_asked_for_again() {
    let mut r = burst_rig();
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 4096, 1024) });
    // DataSN 1, bytes 2048 to 3071, does not arrive.
    r.recv(data_out(1, 0, 1024, 1024, false));
    r.recv(data_out(1, 2, 3072, 1024, true));
    let task = r.task();
    assert_eq!((task.unsolicited.len(), task.write_length), (2048, 4096));
    r.s.want_write(task.tag, 2048, IoBuf::zeroed(2048).into());
    let gets: Vec<(u32, usize)> = r
        .actions()
        .into_iter()
        .filter_map(|a| match a.call {
            DownCall::GetData(g) => Some((g.offset, g.into.len())),
            _ => None,
        })
        .collect();
    assert_eq!(gets, [(2048, 2048)]);
}

// req: 7143-7.9-2, 7143-7.8-3
#[test]
fn unsolicited_data_that_does_not_end_is_asked_for_after_a_while() {
    let mut r = burst_rig();
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 4096, 1024) });
    r.recv(data_out(1, 0, 1024, 1024, false));
    r.after(Duration::from_secs(29));
    assert_eq!(r.ups(), []);
    r.after(Duration::from_secs(1));
    assert_eq!(r.task().unsolicited.len(), 2048);
    // What comes late after all is dropped without a word.
    r.sent();
    r.recv(data_out(1, 1, 2048, 2048, true));
    r.quiet_pdus();
}

/// Over iSER nothing gets lost, and the data is not in the buffer that a recovery R2T would be for.
// req: 7145-10.2.2-5
#[test]
fn on_iser_unsolicited_data_that_is_slow_is_waited_for() {
    let mut r = Rig::new(|p| {
        (p.error_recovery_level, p.initial_r2t, p.rdma_extensions) = (2, false, true);
    });
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 4096, 1024) });
    r.recv(data_out(1, 0, 1024, 1024, false));
    r.after(Duration::from_secs(31));
    assert_eq!(r.ups(), []);
    r.recv(data_out(1, 1, 2048, 2048, true));
    let task = r.task();
    assert_eq!((task.unsolicited.len(), task.write_length), (4096, 4096));
}

#[test]
fn an_initiator_that_acknowledges_nothing_is_asked_to() {
    let mut r = rig();
    for n in 0..600 {
        r.recv(NopOut { immediate: true, itt: Itt(n), cmd_sn: CmdSn(100), ..NopOut::default() });
    }
    let pings = r.sent().iter().filter(|p| matches!(p, Pdu::NopIn(n) if n.itt.is_none())).count();
    assert_eq!(pings, 1);
}

/// The initiator takes less by now: what was sent before is too long for it.
// req: 7143-11.7.1-2, 7143-7.8-10
#[test]
fn an_answer_that_is_too_long_by_now_is_not_sent_again() {
    let mut r = rig();
    let data = Bytes::from(vec![7; 600]);
    r.recv(NopOut { immediate: true, itt: Itt(9), cmd_sn: CmdSn(100), data, ..NopOut::default() });
    r.recv(TextRequest {
        immediate: true,
        final_pdu: true,
        itt: Itt(11),
        ttt: Ttt::NONE,
        cmd_sn: CmdSn(100),
        data: Bytes::from_static(b"MaxRecvDataSegmentLength=512\0"),
        ..TextRequest::default()
    });
    assert_eq!(stat_sns(&r.sent()), [1000, 1001]);
    r.recv(status_snack(1000, 1000, 1));
    assert_eq!(reject_reason(&r.one()), RejectReason::SnackReject);
    r.recv(status_snack(1000, 1001, 1));
    assert_eq!(stat_sns(&r.sent()), [1001]);
}

/// As many SNACKs as one read brings, each for all that was sent.
// req: 7143-11.16-2
#[test]
fn what_is_asked_for_many_times_at_once_is_sent_once() {
    let mut r = rig();
    three_responses(&mut r);
    for _ in 0..1365 {
        r.recv(status_snack(1000, 0, 0));
    }
    assert_eq!(stat_sns(&r.sent()), [1000, 1001, 1002]);
    // The datamover has these: they may be lost as well.
    r.recv(status_snack(1000, 1001, 1));
    r.recv(status_snack(1000, 1001, 2));
    assert_eq!(stat_sns(&r.sent()), [1001, 1002]);
}
