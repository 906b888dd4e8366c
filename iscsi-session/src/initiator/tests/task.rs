use super::*;

// req: 7143-4.2.2.1-1, 7143-4.2.2.1-2, 7143-4.2.2.1-8, 7143-11.12.8-2
#[test]
fn commands_count_from_the_cmd_sn_of_the_login_and_immediate_ones_do_not_count() {
    let mut r = Rig::new(|_| {});
    let sn = |r: &mut Rig, immediate| r.submit(Command { immediate, ..plain() }).1.cmd_sn.0;
    let got = [sn(&mut r, false), sn(&mut r, true), sn(&mut r, true), sn(&mut r, false)];
    assert_eq!(got, [100, 101, 101, 101]);
}

#[test]
fn a_closed_window_hands_the_command_back_until_the_target_opens_it() {
    let mut r = Rig::new(|_| {});
    for _ in 0..8 {
        r.submit(plain());
    }
    let refused = r.s.submit(r.now, read(77)).unwrap_err();
    assert_eq!(refused.why, Refusal::WindowClosed);
    assert_eq!(refused.command.buffers.r#in.unwrap().len(), 77, "with its buffers");
    assert!(r.s.submit(r.now, Command { immediate: true, ..plain() }).is_ok());
    r.sent();
    // A PDU that the datamover consumed carried the numbers.
    let window = Window { stat_sn: StatSn(1000), exp_cmd_sn: CmdSn(108), max_cmd_sn: CmdSn(110) };
    r.s.handle_event(r.now, r.c, Event::Window(window));
    assert_eq!(r.submit(plain()).1.cmd_sn, CmdSn(108));
}

// req: 7143-11.2.1.8-1, 7143-11.2.1.8-2
#[test]
fn task_tags_are_unique_and_never_the_reserved_one() {
    let mut r = Rig::new(|_| {});
    let first = r.submit(plain()).1.itt;
    let second = r.submit(plain()).1.itt;
    assert!(first != second && !first.is_none() && !second.is_none());
    r.scsi_response(first, good());
    let third = r.submit(plain()).1.itt;
    assert!(third != first && third != second, "a tag that is free again is not given at once");
}

/// Unsolicited data of a write: of the command itself, of the Data-Outs, and whether F was set in the command.
fn unsolicited(initial_r2t: bool, immediate_data: bool, len: usize) -> (usize, Vec<usize>, bool) {
    let mut r = Rig::new(|p| (p.initial_r2t, p.immediate_data) = (initial_r2t, immediate_data));
    r.s.submit(r.now, write(len)).unwrap();
    let mut actions = r.actions().into_iter();
    let Some(DownCall::SendControl(control)) = actions.next().map(|a| a.call) else { panic!() };
    let Pdu::ScsiCommand(command) = control.pdu else { panic!() };
    assert_eq!(command.expected_data_transfer_length as usize, len);
    assert_eq!(control.buffers.out.unwrap().len(), len, "the whole buffer goes down");
    let (mut offset, mut pieces) = (command.data.len(), Vec::new());
    for action in actions {
        let DownCall::SendControl(c) = action.call else { continue };
        let Pdu::DataOut(data) = c.pdu else { panic!("{:?}", c.pdu) };
        // req: 7143-11.7.4-3, 7143-4.2.2.4-1
        assert_eq!((data.ttt, data.itt, data.data_sn), (Ttt::NONE, command.itt, DataSn(pieces.len() as u32)));
        assert_eq!(data.buffer_offset as usize, offset);
        assert_eq!(data.data[0], offset as u8, "the bytes from that offset on");
        offset += data.data.len();
        assert_eq!(data.final_pdu, offset == control.unsolicited as usize);
        pieces.push(data.data.len());
    }
    assert_eq!(offset, control.unsolicited as usize, "UnsolicitedDataSize is what goes");
    (command.data.len(), pieces, command.final_pdu)
}

// FirstBurstLength 4096, MaxRecvDataSegmentLength 1024.
// req: 7143-13.11-1, 7143-13.11-3, 7143-13.11-4, 7143-13.11-5, 7143-13.12-1, 7143-4.2.5.2-1, 7143-4.2.5.2-5
// req: 7143-11.3.4-2, 7143-11.3.4-3, 7143-11.7.1-3, 7145-7.3.4-1, 7145-9.5.1-5, 7143-4.2.5.2-11, 7143-4.2.5.2-13
// req: 7145-7.3.1-2, 7145-7.3.1-3, 7145-7.3.1-4
#[test]
fn unsolicited_data_is_what_was_negotiated() {
    assert_eq!(unsolicited(true, false, 10_000), (0, vec![], true));
    assert_eq!(unsolicited(true, true, 10_000), (1024, vec![], true));
    assert_eq!(unsolicited(true, true, 500), (500, vec![], true));
    assert_eq!(unsolicited(false, false, 10_000), (0, vec![1024; 4], false));
    assert_eq!(unsolicited(false, true, 10_000), (1024, vec![1024; 3], false));
    assert_eq!(unsolicited(false, true, 2000), (1024, vec![976], false));
    assert_eq!(unsolicited(false, true, 1024), (1024, vec![], true));
}

// Unsolicited data comes in the order of its commands: whoever fetches the PDUs, and however late.
// req: 7143-4.2.5.2-10
#[test]
fn unsolicited_data_of_commands_keeps_their_order() {
    let mut r = Rig::new(|p| p.initial_r2t = false);
    for _ in 0..3 {
        r.s.submit(r.now, write(3000)).unwrap();
    }
    let mut commands = Vec::new();
    let mut data = Vec::new();
    for action in r.actions() {
        let DownCall::SendControl(c) = action.call else { continue };
        match c.pdu {
            Pdu::ScsiCommand(command) => commands.push(command.itt),
            Pdu::DataOut(out) => data.push(out.itt),
            other => panic!("{other:?}"),
        }
    }
    let two_each: Vec<Itt> = commands.iter().flat_map(|itt| [*itt; 2]).collect();
    assert_eq!((commands.len(), data), (3, two_each), "1024 immediate, then 1024 and 952");
}

// req: 7143-4.2.5.2-4
#[test]
fn unsolicited_data_outs_can_be_left_out() {
    let mut r =
        Rig::with_config(InitiatorConfig { unsolicited_data: false, ..InitiatorConfig::default() }, |p| {
            p.initial_r2t = false;
        });
    r.s.submit(r.now, write(10_000)).unwrap();
    let Pdu::ScsiCommand(command) = r.one() else { panic!() };
    assert_eq!((command.data.len(), command.final_pdu), (1024, true));
}

// req: 7143-11.7.7-2, 7145-6.4-1, 7145-7.3.1-12, 7145-7.3.4-2
#[test]
fn pieces_are_whole_words_on_tcp_and_the_targets_buffer_length_on_iser() {
    for (rdma, expected) in [(false, vec![1020, 1020, 60]), (true, vec![1022, 1022, 56])] {
        let mut r = Rig::new(|p| {
            (p.initial_r2t, p.immediate_data, p.rdma_extensions) = (false, false, rdma);
        });
        r.s.conn_mut(r.c).unwrap().keys.max_send_data_segment_length = 1022;
        r.s.submit(r.now, write(2100)).unwrap();
        let lengths: Vec<usize> = r.sent()[1..].iter().map(|p| p.data().unwrap().len()).collect();
        assert_eq!(lengths, expected);
    }
}

// req: 7145-7.3.1-8, 7145-9.5.2-1, 7145-9.5.1-1
#[test]
fn flags_and_lengths_follow_from_the_buffers() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(read(700));
    assert_eq!(
        (command.read, command.write, command.expected_data_transfer_length, command.final_pdu),
        (true, false, 700, true)
    );
    let (_, command) = r.submit(plain());
    assert_eq!((command.read, command.write, command.expected_data_transfer_length), (false, false, 0));
    let mut both = write(300);
    both.buffers.r#in = read(500).buffers.r#in;
    both.extended_cdb = Bytes::from(vec![1; 16]);
    r.s.submit(r.now, both).unwrap();
    let mut actions = r.actions();
    let DownCall::SendControl(control) = actions.remove(0).call else { panic!() };
    let Pdu::ScsiCommand(command) = control.pdu else { panic!() };
    assert_eq!((command.read, command.write, command.expected_data_transfer_length), (true, true, 300));
    assert_eq!(command.ahs, [Ahs::ExtendedCdb(Bytes::from(vec![1; 16])), Ahs::BidirectionalReadLength(500)]);
    assert_eq!((control.buffers.r#in.unwrap().len(), control.buffers.out.unwrap().len()), (500, 300));
}

#[test]
fn what_a_scsi_command_cannot_say_is_refused() {
    let mut r = Rig::new(|_| {});
    let command = Command { extended_cdb: Bytes::from(vec![0; 245]), ..plain() };
    assert_eq!(r.s.submit(r.now, command).unwrap_err().why, Refusal::TooLong);
    let mut r = Rig::new(|p| p.session_type = SessionType::Discovery);
    assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::Discovery);
}

// req: 7144-5.1.1-1, 7144-5.2.1-2, 7144-5.2.2-3
#[test]
fn priority_and_qualifier_need_protocol_level_2() {
    for (level, priority, qualifier) in [(1, 0, 0), (2, 5, 0x4001)] {
        let mut r = Rig::new(|p| p.iscsi_protocol_level = level);
        let (_, command) = r.submit(Command { priority: 5, ..plain() });
        assert_eq!(command.priority, priority);
        let data = Bytes::from_static(&[0, 1, 0x70]);
        r.scsi_response(command.itt, ScsiResponse { status_qualifier: 0x4001, data, ..good() });
        let status = r.one_done().result.unwrap();
        assert_eq!((status.status_qualifier, &status.sense[..]), (qualifier, &[0x70][..]));
    }
}

// req: 7143-11.4.5.1-2, 7143-11.4.7-3, 7143-11.7-1, 7143-11.7-2
#[test]
fn a_response_completes_its_command_with_its_buffers() {
    let mut r = Rig::new(|_| {});
    let (tag, command) = r.submit(read(96));
    let response = ScsiResponse {
        status: ScsiStatus::CheckCondition,
        residual: Residual::Underflow(60),
        data: Bytes::from_static(&[0, 3, 0x70, 0, 5, 0xaa]),
        ..ScsiResponse::default()
    };
    r.scsi_response(command.itt, response);
    let done = r.one_done();
    assert_eq!(done.tag, tag);
    assert!(is_marked(&done.buffers));
    let status = done.result.unwrap();
    assert_eq!((status.status, status.residual), (ScsiStatus::CheckCondition, Residual::Underflow(60)));
    assert_eq!((&status.sense[..], &status.response_data[..]), (&[0x70, 0, 5][..], &[0xaa][..]));
}

// req: 7143-11.4.3-1, 7143-11.4.3-2
#[test]
fn another_service_response_makes_status_and_flags_meaningless() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(plain());
    let response = ScsiResponse {
        response: ServiceResponse::TargetFailure,
        status: ScsiStatus::CheckCondition,
        ..ScsiResponse::default()
    };
    r.scsi_response(command.itt, response);
    assert_eq!(r.one_done().result, Err(TaskFailure::ServiceResponse(1)));
}

// req: 7143-11.3.3-1
#[test]
fn exp_stat_sn_is_one_past_what_was_received() {
    let mut r = Rig::new(|_| {});
    let (_, command) = r.submit(plain());
    assert_eq!(command.exp_stat_sn, StatSn(1000));
    r.scsi_response(command.itt, good());
    assert_eq!(r.submit(plain()).1.exp_stat_sn, StatSn(1001));
}

// The datamover stamps it on Data-Out PDUs of its own.
#[test]
fn the_datamover_learns_exp_stat_sn_while_writes_are_under_way() {
    let mut r = Rig::new(|_| {});
    let (_, other) = r.submit(plain());
    r.s.submit(r.now, write(100_000)).unwrap();
    let window = |actions: Vec<Action>| {
        actions.into_iter().find_map(|a| match a.call {
            DownCall::SetWindow(w) => Some(w.stat_sn),
            _ => None,
        })
    };
    assert_eq!(window(r.actions()), Some(StatSn(1000)));
    r.scsi_response(other.itt, good());
    assert_eq!(window(r.actions()), Some(StatSn(1001)));
    assert_eq!(window(r.actions()), None);
}

// Security class 18, and RFC 7143 section 4.2.5.1: responses keep to their connection.
// req: 7143-4.2.5.1-1, 7143-4.2.5.1-3, 7143-4.2.5.3-1
#[test]
fn a_response_to_nothing_or_on_another_connection_completes_nothing() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect();
    r.s.submit(r.now, plain()).unwrap();
    r.s.submit(r.now, write(2000)).unwrap();
    let sent = r.sent_on();
    assert_eq!((sent[0].0, sent[1].0), (r.c, second), "the load is spread");
    let itt = sent[0].1.itt();
    let pdu =
        ScsiResponse { itt, stat_sn: StatSn(2000), exp_cmd_sn: CmdSn(102), max_cmd_sn: CmdSn(109), ..good() };
    r.recv_raw(second, pdu, TaskBuffers::none());
    assert!(r.done().is_empty());
    r.scsi_response(Itt(0x1234_5678), good());
    assert!(r.done().is_empty());
    assert_eq!(r.s.counters().stale_responses, 2);
    r.scsi_response(itt, good());
    assert_eq!(r.done().len(), 1);
}

// The longest burst in the smallest pieces.
// req: 7143-4.2.2.4-3
#[test]
fn a_sequence_never_counts_to_2_to_the_32() {
    let mut r = Rig::new(|p| (p.initial_r2t, p.first_burst_length) = (false, 0x00ff_ffff));
    r.s.conn_mut(r.c).unwrap().keys.max_send_data_segment_length = 512;
    r.s.submit(r.now, write(0x0100_0000)).unwrap();
    let Some(Pdu::DataOut(last)) = r.sent().pop() else { panic!() };
    assert_eq!((last.data_sn, last.final_pdu), (DataSn(32_766), true));
}

// req: 7145-7.3.9-1, 7145-7.3.11-1, 7145-3.3-4, 7145-3.3-11, 7145-10.2.1-1
#[test]
fn neither_login_nor_snack_leaves_a_session_even_when_pdus_are_missing() {
    let mut r = Rig::new(|p| (p.rdma_extensions, p.initial_r2t) = (true, false));
    let first = r.submit(read(512)).1;
    r.s.submit(r.now, write(9000)).unwrap();
    r.s.text(r.now, Bytes::new()).unwrap();
    r.after(Duration::from_secs(15));
    r.stat_sn[0] += 1;
    r.scsi_response(first.itt, good());
    r.after(Duration::from_secs(100));
    let opcodes: Vec<Opcode> = r.sent().iter().map(Pdu::opcode).collect();
    assert!(opcodes.len() > 3 && !opcodes.iter().any(|o| matches!(*o, Opcode::Snack | Opcode::LoginRequest)));
}
