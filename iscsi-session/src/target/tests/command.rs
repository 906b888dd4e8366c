use super::*;

fn reordered() -> Rig {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(2, 101));
    r.quiet();
    r.recv(cmd(1, 100));
    r
}

// req: 7143-4.2.2.1-7, 7143-4.2.2.1-9, 7143-4.2.2.1-16, 7143-4.2.2.1-17
#[test]
fn commands_are_executed_in_the_order_of_cmd_sn() {
    let mut r = reordered();
    let (first, second) = (r.task(), r.task());
    assert_eq!((first.cdb[0], second.cdb[0]), (1, 2));
    r.s.complete(second.tag, Outcome::good());
    let response = r.one();
    assert_eq!(scsi_response(&response).exp_cmd_sn, CmdSn(102), "past the answered command");
}

// req: 7143-4.2.2.1-12, 7143-7.2.1-1
#[test]
fn commands_outside_the_window_and_duplicates_are_ignored_silently() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(9, 108));
    r.recv(cmd(9, 99));
    r.quiet();
    assert_eq!(r.s.window(), (CmdSn(100), CmdSn(107)));
    r.recv(cmd(1, 100));
    assert_eq!(r.ups().len(), 1);
    r.recv(cmd(1, 100));
    r.quiet();
    assert_eq!(r.s.counters().ignored, 3);
    assert_eq!(r.s.window().0, CmdSn(101));
}

// A retry finds the execution state by its tag before any look at the number.
// req: 7143-4.2.2.1-14
#[test]
fn a_retry_of_a_running_command_is_ignored_and_a_reused_tag_rejected() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.recv(cmd(1, 100));
    r.quiet();
    // Security class 18: the tag of a live task in another command.
    r.recv(cmd(1, 101));
    assert_eq!(reject_reason(&r.one()), RejectReason::TaskInProgress);
    assert_eq!(r.ups(), []);
    // req: 7143-7.3-2, 7143-7.3-1, 7143-7.3-6
    assert_eq!(r.s.window().0, CmdSn(101), "the rejected number is a gap");
    r.s.complete(tag, Outcome::good());
    assert_eq!(scsi_response(&r.one()).itt, Itt(1));
}

// req: 7143-4.2.2.2-4, 7143-11.12.8-1
#[test]
fn stat_sn_counts_from_that_of_the_login() {
    let mut r = Rig::new(|_| {});
    for n in 0..10 {
        r.recv(cmd(n, 100 + n));
        let tag = r.tag();
        r.s.complete(tag, Outcome::good());
        assert_eq!(scsi_response(&r.one()).stat_sn, StatSn(1000 + n));
    }
}

// req: 7143-4.2.2.1-11, 7143-4.2.2.1-21, 7143-4.2.2.1-6, 7143-11.4.11-1
#[test]
fn a_full_window_closes_and_immediate_commands_still_get_through() {
    let mut r = Rig::new(|_| {});
    for n in 0..DEPTH {
        r.recv(cmd(n, 100 + n));
    }
    let tags: Vec<TaskTag> = (0..DEPTH).map(|_| r.tag()).collect();
    assert_eq!(r.s.window(), (CmdSn(108), CmdSn(107)));
    r.recv(cmd(50, 108));
    r.quiet();
    let ping = NopOut { immediate: true, itt: Itt(60), cmd_sn: CmdSn(108), ..NopOut::default() };
    r.recv(ping);
    match r.one() {
        Pdu::NopIn(nop) => assert_eq!((nop.exp_cmd_sn, nop.max_cmd_sn), (CmdSn(108), CmdSn(107))),
        other => panic!("{other:?}"),
    }
    r.recv(tmf(61, 108, TaskMgmtFunction::AbortTaskSet));
    assert_eq!(r.ups().len(), DEPTH as usize + 1, "all tasks and the function");
    // The end of a task without a response opens the window: a NOP-In tells.
    r.s.discard(tags[0]);
    match r.one() {
        Pdu::NopIn(nop) => {
            assert_eq!((nop.itt, nop.ttt, nop.data.len()), (Itt::NONE, Ttt::NONE, 0));
            assert_eq!(nop.max_cmd_sn, CmdSn(108));
        }
        other => panic!("{other:?}"),
    }
}

// req: 7143-4.2.2.1-5
#[test]
fn too_many_immediate_commands_are_rejected() {
    let mut r = Rig::with_config(TargetConfig { immediate_commands: 2, ..TargetConfig::default() }, |_| {});
    for n in 0..3 {
        r.recv(ScsiCommand { immediate: true, ..cmd(n, 100) });
    }
    let up = r.ups();
    assert_eq!(up.len(), 2);
    assert_eq!(reject_reason(&r.one()), RejectReason::ImmediateCommandReject);
    let Up::Execute { tag, .. } = up[0] else { panic!() };
    r.s.complete(tag, Outcome::good());
    r.sent();
    r.recv(ScsiCommand { immediate: true, ..cmd(5, 100) });
    assert_eq!(r.ups().len(), 1, "room again");
}

#[test]
fn unsolicited_data_is_complete_before_execution() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 10_000, 1000) });
    r.recv(data_out(1, 0, 1000, 2000, false));
    r.recv(cmd(2, 101));
    r.quiet();
    r.recv(data_out(1, 1, 3000, 1096, true));
    let task = r.task();
    assert_eq!((task.write_length, task.unsolicited.len()), (10_000, 4096));
    let mut bytes = vec![0; 4096];
    task.unsolicited.copy_to(0, &mut bytes);
    assert!(bytes[..1000].iter().all(|b| *b == 7) && bytes[1000..].iter().all(|b| *b == 8));
    assert_eq!(r.task().cdb[0], 2, "what waited behind it follows");
}

/// The error of a write whose unsolicited data is as told.
fn unsolicited(initial_r2t: bool, immediate_data: bool, command: ScsiCommand, rest: &[DataOut]) -> Pdu {
    let mut r = Rig::new(|p| (p.initial_r2t, p.immediate_data) = (initial_r2t, immediate_data));
    r.recv(command);
    for data in rest {
        r.quiet();
        r.recv(data.clone());
    }
    assert_eq!(r.ups(), [], "not executed");
    r.one()
}

// req: 7143-13.11-2, 7143-11.8-1, 7143-4.2.5.2-6, 7143-11.17.1-4, 7143-11.4.2-1
#[test]
fn forbidden_unsolicited_data_ends_in_unexpected_unsolicited_data() {
    assert_eq!(sense(&unsolicited(true, false, write(1, 100, 512, 512), &[])), [0x0b, 0x0c, 0x0c]);
    assert_eq!(sense(&unsolicited(false, false, write(1, 100, 512, 512), &[])), [0x0b, 0x0c, 0x0c]);
    let separate = ScsiCommand { final_pdu: false, ..write(1, 100, 512, 0) };
    let data = [data_out(1, 0, 0, 256, false), data_out(1, 1, 256, 256, true)];
    assert_eq!(
        sense(&unsolicited(true, true, separate, &data)),
        [0x0b, 0x0c, 0x0c],
        "and only after the last of it"
    );
}

// req: 7143-11.4.7.2-2, 7143-4.2.5.2-6, 7143-11.7.1-3, 7143-11.7.6-1
#[test]
fn too_much_or_too_little_unsolicited_data_ends_in_incorrect_amount() {
    let open = |len, immediate| ScsiCommand { final_pdu: false, ..write(1, 100, len, immediate) };
    let amount = [0x0b, 0x0c, 0x0d];
    // FirstBurstLength is 4096.
    assert_eq!(sense(&unsolicited(false, true, write(1, 100, 10_000, 4100), &[])), amount);
    assert_eq!(sense(&unsolicited(false, true, write(1, 100, 512, 513), &[])), amount, "beyond the command");
    let over = [data_out(1, 0, 0, 4096, false), data_out(1, 1, 4096, 4, true)];
    assert_eq!(sense(&unsolicited(false, true, open(10_000, 0), &over)), amount);
    let short = [data_out(1, 0, 0, 4092, true)];
    assert_eq!(sense(&unsolicited(false, true, open(10_000, 0), &short)), amount);
    // Security class 17: offset + length wraps in 32 bits.
    let wrap = [data_out(1, 0, 0xffff_fff0, 0x20, true)];
    assert_eq!(sense(&unsolicited(false, true, open(10_000, 0), &wrap)), amount);
}

// req: 7143-7.9-2, 7143-7.8-3, 7143-7.8-4, 7143-4.2.2.4-1, 7143-11.7.6-2
#[test]
fn lost_unsolicited_data_ends_in_a_crc_error_after_the_last_pdu() {
    let open = ScsiCommand { final_pdu: false, ..write(1, 100, 4096, 0) };
    let crc = [0x0b, 0x47, 0x05];
    let skipped = [data_out(1, 0, 0, 1024, false), data_out(1, 2, 2048, 2048, true)];
    assert_eq!(sense(&unsolicited(false, true, open.clone(), &skipped)), crc);
    let wrong_offset = [data_out(1, 0, 0, 1024, false), data_out(1, 1, 2048, 1024, true)];
    assert_eq!(sense(&unsolicited(false, true, open, &wrong_offset)), crc);
}

// req: 7143-7.8-2, 7143-7.8-3
#[test]
fn a_data_digest_error_is_rejected_and_ends_the_task_when_its_data_is_over() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 2048, 0) });
    let bad = data_out(1, 0, 0, 1024, false);
    let mut header = [0; BHS_LEN];
    Pdu::from(bad).encode_header(&mut header).unwrap();
    // With a header digest behind it, which a Reject leaves out.
    let with_digest = Bytes::from([&header[..], &[1, 2, 3, 4]].concat());
    let invalid = InvalidPdu { header: with_digest, reason: RejectReason::DataDigestError, error: None };
    r.s.handle_event(r.now, r.c, Event::Invalid(invalid));
    match r.one() {
        // req: 7143-11.17-1
        Pdu::Reject(reject) => {
            assert_eq!(reject.reason, RejectReason(0x02));
            assert_eq!(reject.data[..], header[..], "48 bytes, no digest");
            assert_eq!(reject.stat_sn, StatSn(1000));
        }
        other => panic!("{other:?}"),
    }
    r.recv(data_out(1, 1, 1024, 1024, true));
    let response = r.one();
    assert_eq!(sense(&response), [0x0b, 0x47, 0x05]);
    assert_eq!(scsi_response(&response).stat_sn, StatSn(1001), "the Reject took one");
}

#[test]
fn data_pdus_in_any_order_are_sorted_when_the_session_allows_it() {
    let mut r = Rig::new(|p| (p.initial_r2t, p.data_pdu_in_order) = (false, false));
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 2048, 0) });
    r.recv(data_out(1, 0, 1024, 1024, false));
    r.recv(data_out(1, 1, 0, 1024, true));
    assert_eq!(r.task().unsolicited.len(), 2048);
}

// req: 7143-11.7.7-1
#[test]
fn an_empty_data_out_counts_in_data_sn_alone() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.recv(ScsiCommand { final_pdu: false, ..write(1, 100, 1024, 0) });
    r.recv(data_out(1, 0, 0, 0, false));
    r.recv(data_out(1, 1, 0, 1024, true));
    assert_eq!(r.task().unsolicited.len(), 1024);
}

// req: 7143-7.13-1, 7143-4.2.5.3-1
#[test]
fn data_for_no_task_is_rejected() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    r.recv(data_out(77, 0, 0, 512, true));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField);
    r.recv(write(1, 100, 512, 512));
    let tag = r.tag();
    r.recv(data_out(1, 0, 0, 512, true));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField, "the burst was complete");
    r.s.complete(tag, Outcome::good().with_write(512));
    assert_eq!(scsi_response(&r.one()).status, ScsiStatus::Good, "the task goes on");
}

// req: 7143-4.2.5.1-4, 7143-4.2.5.1-2, 7143-4.2.5.1-1, 7145-7.3.5-1, 7145-7.3.6-1, 7145-7.3.2-1, 7145-7.3.2-2
// req: 7143-4.2.5.3-2, 7143-11.7.4-2, 7143-4.2.5.1-7, 7143-4.2.1-2
#[test]
fn all_that_belongs_to_a_command_uses_its_connection() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect(2);
    r.recv_on(second, ScsiCommand { lun: lun(7), ..write(1, 100, 9000, 0) });
    r.recv_on(second, read(2, 101, 512));
    let (w, x) = (r.tag(), r.tag());
    let into = r.s.pool(w).alloc(9000).unwrap();
    r.s.want_write(w, 0, into);
    r.s.read_data(x, 0, Bytes::from(vec![1; 512]).into());
    r.s.complete(x, Outcome::good().with_read(512));
    let actions = r.actions();
    assert!(actions.iter().all(|a| a.conn == second));
    let kinds: Vec<&str> = actions
        .iter()
        .map(|a| match &a.call {
            DownCall::SetWindow(_) => "window",
            DownCall::GetData(g) => {
                assert_eq!((g.itt, g.lun, g.offset, g.into.len()), (Itt(1), lun(7), 0, 9000));
                "get"
            }
            DownCall::PutData(p) => {
                assert_eq!((p.itt, p.lun, p.offset, p.data.len()), (Itt(2), lun(0), 0, 512));
                "put"
            }
            DownCall::SendControl(c) => {
                assert_eq!(scsi_response(&c.pdu).itt, Itt(2));
                "response"
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["window", "get", "window", "put", "response"]);
}

/// Immediate PDUs are outstanding until ExpCmdSN passes them in a PDU on any connection: the datamovers of the others
/// hear of it.
// req: 7145-8.1.1.3-4
#[test]
fn what_one_connection_acknowledges_is_told_to_all_that_count() {
    for (rdma, declared, told) in [(true, Some(8), 1), (true, None, 0), (false, Some(8), 0)] {
        let mut r = Rig::new(|p| (p.max_connections, p.rdma_extensions) = (2, rdma));
        let other = r.connect(2);
        r.s.conn_mut(other).unwrap().keys.max_outstanding_unexpected_pdus = declared;
        r.actions();
        r.recv(cmd(1, 100));
        let tag = r.tag();
        r.s.complete(tag, Outcome::good());
        let windows = r.actions().into_iter().filter(|a| match &a.call {
            DownCall::SetWindow(w) => a.conn == other && w.exp_cmd_sn == CmdSn(101),
            _ => false,
        });
        assert_eq!(windows.count(), told, "{rdma} {declared:?}");
    }
}

// req: 7143-11.8.3-1
#[test]
fn datamovers_stamp_the_next_stat_sn_and_the_window() {
    let mut r = Rig::new(|_| {});
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    let into = r.s.pool(tag).alloc(9000).unwrap();
    r.s.want_write(tag, 0, into);
    let actions = r.actions();
    let DownCall::SetWindow(window) = &actions[0].call else { panic!("{actions:?}") };
    assert_eq!(*window, Window { stat_sn: StatSn(1000), exp_cmd_sn: CmdSn(101), max_cmd_sn: CmdSn(107) });
    r.recv(cmd(2, 101));
    let other = r.tag();
    r.s.complete(other, Outcome::good());
    let actions = r.actions();
    let DownCall::SetWindow(window) = &actions[1].call else { panic!("{actions:?}") };
    assert_eq!((window.stat_sn, window.max_cmd_sn), (StatSn(1001), CmdSn(108)));
}

// req: 7143-11.4.2-1, 7145-9.5.1-8
#[test]
fn a_response_waits_for_data_that_is_due() {
    let mut r = Rig::new(|_| {});
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    for offset in [0, 4500] {
        let into = r.s.pool(tag).alloc(4500).unwrap();
        r.s.want_write(tag, offset, into);
    }
    r.actions();
    r.data_completion(1, 0, 4500);
    assert_eq!(r.ups(), [Up::WriteData { offset: 0, len: 4500, result: Ok(()) }]);
    r.s.complete(tag, Outcome::check_condition(Bytes::from_static(&[0x70, 0, 3])));
    assert_eq!(r.sent(), []);
    r.data_completion(1, 4500, 4500);
    assert_eq!(r.ups(), [], "nobody wants it any more");
    assert_eq!(scsi_response(&r.one()).status, ScsiStatus::CheckCondition);
}

/// An initiator that no longer sends does not hold up the status of a task that another nexus ended: the transfer ends
/// with it, below. Over RDMA the target reads the data itself, and must not be cut short.
// req: 7143-4.2.3.3-8
#[test]
fn task_aborted_does_not_wait_for_data() {
    for rdma in [false, true] {
        let mut r = Rig::new(|p| p.rdma_extensions = rdma);
        r.recv(write(1, 100, 9000, 0));
        let tag = r.tag();
        let into = r.s.pool(tag).alloc(9000).unwrap();
        r.s.want_write(tag, 0, into);
        r.actions();
        r.s.complete(tag, Outcome::status(ScsiStatus::TaskAborted));
        if rdma {
            assert_eq!(r.sent(), []);
            r.data_completion(1, 0, 9000);
        }
        assert_eq!(scsi_response(&r.one()).status, ScsiStatus::TaskAborted);
        assert_eq!(r.s.open_tasks(), 0);
        if !rdma {
            r.data_completion(1, 0, 9000);
        }
        assert_eq!(r.ups(), [], "what comes back of the transfer is nobody's");
    }
}

// Security class 17 on the other side: what the device server may ask for.
#[test]
fn a_fetch_outside_the_output_is_refused() {
    let mut r = Rig::new(|_| {});
    r.recv(write(1, 100, 1000, 200));
    let tag = r.tag();
    for (offset, len) in [(199, 10), (200, 801), (1000, 1), (0xffff_ffff, 2), (500, 0)] {
        r.s.want_write(tag, offset, IoBuf::zeroed(len).into());
        assert_eq!(r.ups(), [Up::WriteData { offset, len, result: Err(DataError::Access) }]);
    }
    assert_eq!(r.actions().len(), 0);
}

fn response_to(command: ScsiCommand, outcome: Outcome) -> ScsiResponse {
    let mut r = Rig::new(|_| {});
    r.recv(command);
    let tag = r.tag();
    r.s.complete(tag, outcome);
    scsi_response(&r.one()).clone()
}

// req: 7143-11.4.5.1-1, 7143-11.4.5.1-3, 7143-11.4.5.2-1, 7143-11.4.5.2-2, 7143-11.4.5.2-3, 7143-11.4.5.2-4
// req: 7143-11.4.5.3-1, 7143-11.4.5.3-2, 7143-11.4.5.3-3
#[test]
fn residuals_of_one_direction() {
    let of = |command, outcome| response_to(command, outcome).residual;
    assert_eq!(of(read(1, 100, 36), Outcome::good().with_read(96)), Residual::Overflow(60));
    assert_eq!(of(read(1, 100, 96), Outcome::good().with_read(36)), Residual::Underflow(60));
    assert_eq!(of(read(1, 100, 16), Outcome::good().with_read(16)), Residual::None);
    assert_eq!(of(read(1, 100, 512), Outcome::good().with_read(16)), Residual::Underflow(496));
    assert_eq!(of(write(1, 100, 512, 512), Outcome::good().with_write(1024)), Residual::Overflow(512));
    assert_eq!(of(write(1, 100, 512, 512), Outcome::good().with_write(500)), Residual::Underflow(12));
    assert_eq!(of(cmd(1, 100), Outcome::good().with_read(36)), Residual::Overflow(36), "neither R nor W");
    assert_eq!(of(cmd(1, 100), Outcome::good()), Residual::None);
    assert_eq!(of(read(1, 100, 64), Outcome::status(ScsiStatus::Busy)), Residual::Underflow(64));
}

// req: 7143-11.4.6-1, 7143-11.7.3-3
#[test]
fn a_bidirectional_command_has_two_residuals() {
    let command =
        ScsiCommand { read: true, ahs: vec![Ahs::BidirectionalReadLength(100)], ..write(1, 100, 50, 50) };
    let r = response_to(command, Outcome::good().with_write(60).with_read(70));
    assert_eq!(
        (r.residual, r.bidirectional_read_residual),
        (Residual::Overflow(10), Residual::Underflow(30))
    );
}

#[test]
fn input_beyond_the_expected_length_is_cut_off() {
    let mut r = Rig::new(|_| {});
    r.recv(read(1, 100, 36));
    let tag = r.tag();
    r.s.read_data(tag, 0, Bytes::from(vec![0; 30]).into());
    r.s.read_data(tag, 30, Bytes::from(vec![0; 66]).into());
    r.s.read_data(tag, 96, Bytes::from(vec![0; 4]).into());
    let puts: Vec<(u32, usize)> = r
        .actions()
        .iter()
        .filter_map(|a| match &a.call {
            DownCall::PutData(p) => Some((p.offset, p.data.len())),
            _ => None,
        })
        .collect();
    assert_eq!(puts, [(0, 30), (30, 6)]);
}

// req: 7143-4.6.1.2-1, 7143-11.4.7-1, 7143-11.4.7-2, 7144-5.2.2-1, 7144-5.2.2-2, 7143-11.7.3-1
#[test]
fn check_condition_always_has_sense_data() {
    let r = response_to(cmd(1, 100), Outcome::check_condition(Bytes::from_static(&[0x72, 5, 0x24, 0])));
    assert_eq!(r.data[..], [0, 4, 0x72, 5, 0x24, 0]);
    let r = response_to(cmd(1, 100), Outcome::check_condition(Bytes::new()));
    assert_eq!((r.data[1], r.data[2], r.data[4]), (18, 0x70, 0x0b), "even when the device server gives none");
}

// req: 7144-5.1.1-2, 7144-5.2.1-1, 7144-5.2.2-3
#[test]
fn priority_and_qualifier_need_protocol_level_2() {
    for (level, expected) in [(1u8, (0u8, 0u16, 0usize)), (2, (5, 0x4001, 5))] {
        let mut r = Rig::new(|p| p.iscsi_protocol_level = level);
        r.recv(ScsiCommand { priority: 5, ..cmd(1, 100) });
        let task = r.task();
        let outcome = Outcome {
            status_qualifier: 0x4001,
            sense: Bytes::from_static(&[0x70, 0, 0]),
            ..Outcome::status(ScsiStatus::Busy)
        };
        r.s.complete(task.tag, outcome);
        let response = scsi_response(&r.one()).clone();
        assert_eq!((task.priority, response.status_qualifier, response.data.len()), expected);
    }
}

#[test]
fn an_extended_cdb_and_the_attribute_reach_the_device_server() {
    let mut r = Rig::new(|_| {});
    let long = Bytes::from(vec![9; 16]);
    r.recv(ScsiCommand {
        attr: TaskAttr::HeadOfQueue,
        lun: lun(3),
        ahs: vec![Ahs::ExtendedCdb(long.clone())],
        ..cmd(1, 100)
    });
    let task = r.task();
    assert_eq!((task.attr, task.lun, task.extended_cdb), (TaskAttr::HeadOfQueue, lun(3), long));
}

// req: 7143-13.19-1
#[test]
fn data_goes_in_the_order_of_its_offsets() {
    let mut r = Rig::new(|_| {});
    r.recv(write(1, 100, 9000, 0));
    let tag = r.tag();
    r.s.want_write(tag, 4000, IoBuf::zeroed(1000).into());
    r.s.want_write(tag, 3000, IoBuf::zeroed(1000).into());
    assert_eq!(r.ups(), [Up::WriteData { offset: 3000, len: 1000, result: Err(DataError::Access) }]);
    r.recv(read(2, 101, 1000));
    let tag = r.tag();
    r.s.read_data(tag, 500, Bytes::from(vec![1; 500]).into());
    r.s.read_data(tag, 0, Bytes::from(vec![1; 500]).into());
    r.s.complete(tag, Outcome::good().with_read(1000));
    assert_eq!(sense(&r.one()), [0x04, 0x44, 0x00], "no wrong data under a GOOD status");
}

// req: 7143-4.2.2.1-13
#[test]
fn every_pdu_of_the_target_tells_the_window() {
    let mut r = Rig::new(|_| {});
    r.recv(cmd(1, 100));
    let tag = r.tag();
    r.s.complete(tag, Outcome::good());
    r.recv(NopOut { immediate: true, itt: Itt(9), cmd_sn: CmdSn(101), ..NopOut::default() });
    r.recv(abort_task(50, 101, 9, 101));
    r.recv(data_out(9, 0, 0, 1, true));
    r.s.asynchronous_event(Lun::ZERO, Bytes::new());
    r.recv(TextRequest { immediate: true, final_pdu: true, itt: Itt(3), ..TextRequest::default() });
    r.recv(LogoutRequest { immediate: true, itt: Itt(4), cid: Cid(1), ..LogoutRequest::default() });
    let sent = r.sent();
    assert_eq!(sent.len(), 7);
    for pdu in sent {
        assert_eq!((pdu.exp_cmd_sn(), pdu.max_cmd_sn()), (Some(CmdSn(101)), Some(CmdSn(108))), "{pdu:?}");
    }
}
