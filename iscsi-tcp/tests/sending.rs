//! What the core says on the wire.

mod common;

use bytes::Bytes;
use common::{Peer, command, pattern};
use datamover::{
    ConnKeys, Control, Event, GetData, IoBuf, PutData, Resources, Role, SlabPool, TaskBuffers, Window,
};
use iscsi_pdu::{
    Ahs, DataIn, DataOut, DataSn, Itt, Lun, NopIn, NopOut, Pdu, R2t, R2tSn, Residual, ScsiCommand,
    ScsiResponse, ScsiStatus, ServiceResponse, SnackType, StatSn, TaskAttr, Ttt,
};
use iscsi_tcp::{Handover, TcpCore};
use std::sync::Arc;

const LUN: Lun = Lun([0, 7, 0, 0, 0, 0, 0, 0]);

fn put(itt: u32, offset: u32, data: Bytes) -> PutData {
    let data = data.into();
    PutData { itt: Itt(itt), lun: LUN, offset, data, resume: None, ack: false, notify: false }
}

fn get(itt: u32, offset: u32, len: usize) -> GetData {
    GetData { itt: Itt(itt), lun: LUN, offset, into: IoBuf::zeroed(len).into(), resume: None }
}

fn good(itt: u32, stat_sn: u32) -> ScsiResponse {
    ScsiResponse { itt: Itt(itt), stat_sn: StatSn(stat_sn), ..ScsiResponse::default() }
}

fn target(change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    change(&mut keys);
    Peer::new(Role::Target, &keys)
}

fn initiator(change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    change(&mut keys);
    Peer::new(Role::Initiator, &keys)
}

fn data_ins(pdus: Vec<Pdu>) -> Vec<DataIn> {
    pdus.into_iter().map(|p| if let Pdu::DataIn(d) = p { d } else { panic!("{p:?}") }).collect()
}

fn r2ts(pdus: Vec<Pdu>) -> Vec<R2t> {
    pdus.into_iter().map(|p| if let Pdu::R2t(r) = p { r } else { panic!("{p:?}") }).collect()
}

fn data_outs(pdus: Vec<Pdu>) -> Vec<DataOut> {
    pdus.into_iter().map(|p| if let Pdu::DataOut(d) = p { d } else { panic!("{p:?}") }).collect()
}

fn response(pdu: Pdu) -> ScsiResponse {
    if let Pdu::ScsiResponse(r) = pdu { r } else { panic!("{pdu:?}") }
}

// req: 7143-4.2.2.4-1, 7143-11.7.1-2, 7143-11.7.1-3, 7143-11.7.7-2, 5047-10.3.5.2-1
#[test]
fn data_in_is_cut_by_segment_and_burst() {
    let mut t = target(|k| (k.max_send_data_segment_length, k.max_burst_length) = (1001, 2500));
    t.core.set_window(Window { stat_sn: StatSn(9), exp_cmd_sn: 5.into(), max_cmd_sn: 6.into() });
    let data = pattern(1, 6001);
    t.core.put_data(put(3, 100, data.clone())).unwrap();
    let pdus = data_ins(t.sent());
    let shape: Vec<_> =
        pdus.iter().map(|d| (d.data_sn.0, d.buffer_offset, d.data.len(), d.final_pdu)).collect();
    let want = [
        (0, 100, 1000, false),
        (1, 1100, 1000, false),
        (2, 2100, 500, true),
        (3, 2600, 1000, false),
        (4, 3600, 1000, false),
        (5, 4600, 500, true),
        (6, 5100, 1001, true),
    ];
    assert_eq!(shape, want);
    let mut at = 0;
    for d in &pdus {
        assert_eq!(d.data, data.slice(at..at + d.data.len()));
        at += d.data.len();
        assert_eq!((d.itt, d.exp_cmd_sn, d.max_cmd_sn), (Itt(3), 5.into(), 6.into()));
        assert_eq!((d.status, d.acknowledge, d.ttt), (None, false, Ttt::NONE));
    }
    // The next Put of the task goes on counting.
    t.core.put_data(put(3, 6101, pattern(2, 4))).unwrap();
    assert_eq!(data_ins(t.sent())[0].data_sn, DataSn(7));
}

// req: 7143-11.7-1, 7143-11.7.3-1, 7143-11.7.3-2
#[test]
fn good_status_travels_with_the_last_data_in() {
    let mut t = target(|k| k.max_send_data_segment_length = 512);
    t.core.put_data(put(1, 0, pattern(1, 1000))).unwrap();
    let residual = Residual::Underflow(24);
    t.core.send_control(ScsiResponse { residual, ..good(1, 77) }.into()).unwrap();
    let pdus = data_ins(t.sent());
    assert_eq!(pdus.len(), 2);
    assert_eq!((pdus[0].status, pdus[0].final_pdu, pdus[0].stat_sn), (None, false, StatSn(0)));
    let last = &pdus[1];
    assert_eq!((last.status, last.final_pdu, last.stat_sn), (Some(ScsiStatus::Good), true, StatSn(77)));
    assert_eq!(last.residual, residual);
    // The task is over: its tag starts anew.
    t.core.put_data(put(1, 0, pattern(1, 4))).unwrap();
    assert_eq!(data_ins(t.sent())[0].data_sn, DataSn(0));
}

// req: 7143-11.7.3-1, 7143-11.7.3-2, 7143-11.7.3-3, 7143-11.4.8-1
#[test]
fn other_status_has_a_pdu_of_its_own() {
    let alone: [ScsiResponse; 6] = [
        ScsiResponse { status: ScsiStatus::CheckCondition, data: pattern(1, 20), ..good(1, 7) },
        ScsiResponse { status: ScsiStatus::Busy, ..good(1, 7) },
        ScsiResponse { data: pattern(1, 8), ..good(1, 7) },
        ScsiResponse { status_qualifier: 3, ..good(1, 7) },
        ScsiResponse { bidirectional_read_residual: Residual::Underflow(1), ..good(1, 7) },
        ScsiResponse { snack_tag: iscsi_pdu::SnackTag(5), ..good(1, 7) },
    ];
    for r in alone {
        let mut t = target(|_| {});
        t.core.put_data(put(1, 0, pattern(1, 9000))).unwrap();
        t.core.send_control(r.clone().into()).unwrap();
        let mut pdus = t.sent();
        let last = response(pdus.pop().unwrap());
        assert_eq!(last, ScsiResponse { exp_data_sn: DataSn(2), ..r });
        assert!(data_ins(pdus).iter().all(|d| d.status.is_none()));
    }
    // Above level 0 a response can be asked for again.
    let mut t = target(|k| k.error_recovery_level = 1);
    t.core.put_data(put(1, 0, pattern(1, 9))).unwrap();
    t.core.send_control(good(1, 7).into()).unwrap();
    assert_eq!(t.sent().len(), 2);
    // Nothing with a StatSN is overtaken.
    let mut t = target(|_| {});
    t.core.put_data(put(1, 0, pattern(1, 9))).unwrap();
    t.core.send_control(NopIn { stat_sn: StatSn(6), ..NopIn::default() }.into()).unwrap();
    t.core.send_control(good(1, 7).into()).unwrap();
    let stat_sns: Vec<_> = t.sent().iter().map(Pdu::stat_sn).collect();
    assert_eq!(stat_sns, [None, Some(StatSn(6)), Some(StatSn(7))]);
    // Nor is it another task's data that takes the status along.
    let mut t = target(|_| {});
    t.core.put_data(put(2, 0, pattern(1, 9))).unwrap();
    t.core.send_control(good(1, 7).into()).unwrap();
    assert_eq!(t.sent().len(), 2);
    // Data that has gone already cannot.
    let mut t = target(|_| {});
    t.core.put_data(put(1, 0, pattern(1, 9))).unwrap();
    t.sent();
    t.core.send_control(good(1, 7).into()).unwrap();
    assert_eq!(response(t.one_sent()).exp_data_sn, DataSn(1));
}

// req: 7143-11.7.3-3, 7143-4.2.2.4-1
#[test]
fn bidirectional_commands_share_one_count() {
    let mut t = target(|k| k.max_outstanding_r2t = 2);
    t.core.get_data(get(1, 0, 10)).unwrap();
    t.core.put_data(put(1, 0, pattern(1, 10))).unwrap();
    t.core.get_data(get(1, 10, 10)).unwrap();
    t.core.put_data(put(1, 10, pattern(1, 10))).unwrap();
    let pdus = t.sent();
    let numbers: Vec<_> = pdus
        .iter()
        .map(|p| match p {
            Pdu::R2t(r) => ('r', r.r2t_sn.0),
            Pdu::DataIn(d) => ('d', d.data_sn.0),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(numbers, [('r', 0), ('d', 1), ('r', 2), ('d', 3)]);
    // Status never goes with a Data-In of such a command, and ExpDataSN counts Data-In alone.
    t.core.put_data(put(1, 20, pattern(1, 10))).unwrap();
    t.core.send_control(good(1, 5).into()).unwrap();
    let mut pdus = t.sent();
    assert_eq!(response(pdus.pop().unwrap()).exp_data_sn, DataSn(3));
    assert!(data_ins(pdus).iter().all(|d| d.status.is_none()));
}

// req: 7143-11.4.8-1
#[test]
fn exp_data_sn_counts_data_in() {
    let mut t = target(|_| {});
    t.core.send_control(ScsiResponse { exp_data_sn: DataSn(99), ..good(1, 1) }.into()).unwrap();
    assert_eq!(response(t.one_sent()).exp_data_sn, DataSn(0), "no data");
    t.core.get_data(get(2, 0, 10)).unwrap();
    let ttt = r2ts(t.sent())[0].ttt;
    let answer = DataOut { final_pdu: true, itt: Itt(2), ttt, data: pattern(1, 10), ..DataOut::default() };
    t.arrives(answer);
    t.core.send_control(good(2, 2).into()).unwrap();
    assert_eq!(response(t.one_sent()).exp_data_sn, DataSn(0), "R2Ts do not count");
    t.core.put_data(put(3, 0, pattern(1, 10))).unwrap();
    t.sent();
    let failure = ScsiResponse { response: ServiceResponse::TargetFailure, ..good(3, 3) };
    t.core.send_control(failure.into()).unwrap();
    assert_eq!(response(t.one_sent()).exp_data_sn, DataSn(0), "not completed");
}

// req: 7143-11.8-12, 7143-11.8-13, 7143-11.8.3-1, 7143-11.8.4-1, 7143-11.8.4-2, 7143-11.8.5-1, 5047-10.3.6-1
#[test]
fn r2ts_ask_by_burst_and_no_more_than_agreed() {
    let mut t = target(|k| (k.max_burst_length, k.max_outstanding_r2t) = (1000, 2));
    t.core.set_window(Window { stat_sn: StatSn(9), exp_cmd_sn: 5.into(), max_cmd_sn: 6.into() });
    t.core.get_data(get(1, 500, 2500)).unwrap();
    t.core.get_data(get(1, 3000, 700)).unwrap();
    t.core.get_data(get(2, 0, 4)).unwrap();
    let first = r2ts(t.sent());
    let shape = |r: &R2t| (r.itt.0, r.r2t_sn.0, r.buffer_offset, r.desired_data_transfer_length);
    assert_eq!(
        first.iter().map(shape).collect::<Vec<_>>(),
        [(1, 0, 500, 1000), (1, 1, 1500, 1000), (2, 0, 0, 4)]
    );
    for r in &first {
        assert_eq!((r.lun, r.stat_sn, r.exp_cmd_sn, r.max_cmd_sn), (LUN, StatSn(9), 5.into(), 6.into()));
        assert!(!r.ttt.is_none());
    }
    assert_ne!(first[0].ttt, first[1].ttt);
    // Half an answer makes no room, the F bit does.
    let data = pattern(1, 4000);
    let out = |r: &R2t, data_sn, from: usize, to: usize| DataOut {
        final_pdu: to == (r.buffer_offset + r.desired_data_transfer_length) as usize,
        lun: r.lun,
        itt: r.itt,
        ttt: r.ttt,
        data_sn: DataSn(data_sn),
        buffer_offset: from as u32,
        data: data.slice(from..to),
        ..DataOut::default()
    };
    t.arrives(out(&first[0], 0, 500, 1000));
    assert!(t.sent().is_empty());
    t.arrives(out(&first[0], 1, 1000, 1500));
    let second = r2ts(t.sent());
    assert_eq!(second.iter().map(shape).collect::<Vec<_>>(), [(1, 2, 2500, 500)]);
    t.arrives(out(&first[1], 0, 1500, 2500));
    let third = r2ts(t.sent());
    assert_eq!(third.iter().map(shape).collect::<Vec<_>>(), [(1, 3, 3000, 700)]);
    assert!(t.events().is_empty());
    t.arrives(out(&third[0], 0, 3000, 3700));
    t.arrives(out(&second[0], 0, 2500, 3000));
    let done: Vec<_> = t
        .events()
        .into_iter()
        .map(|e| match e {
            Event::DataCompletion(d) => (d.offset, d.result, d.data.unwrap().freeze().to_bytes()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(done, [(3000, Ok(()), data.slice(3000..3700)), (500, Ok(()), data.slice(500..3000))]);
}

// req: 7143-11.7.2-3, 7143-11.7.4-1, 5047-6-5, 5047-9.4-1, 5047-10.2.3-1, 5047-10.2.3-2
#[test]
fn acknowledgments_are_asked_for_above_level_0() {
    let mut t = target(|_| {});
    t.core.put_data(PutData { ack: true, ..put(1, 0, pattern(1, 9)) }).unwrap();
    assert!(!data_ins(t.sent())[0].acknowledge);

    let mut t = target(|k| k.error_recovery_level = 1);
    t.core.put_data(PutData { ack: true, ..put(1, 0, pattern(1, 9000)) }).unwrap();
    let pdus = data_ins(t.sent());
    assert_eq!(pdus.iter().map(|d| d.acknowledge).collect::<Vec<_>>(), [false, true]);
    assert_eq!(pdus[1].lun, LUN);
    assert!(!pdus[1].ttt.is_none());
    let ack = iscsi_pdu::Snack {
        kind: SnackType::DataAck,
        lun: LUN,
        ttt_or_snack_tag: pdus[1].ttt,
        beg_run: 2,
        ..iscsi_pdu::Snack::default()
    };
    t.arrives(ack);
    let event = t.one_event();
    assert!(matches!(event, Event::DataAck { itt: Itt(1), exp_data_sn: Some(DataSn(2)) }), "{event:?}");
}

// req: 7143-11.7.2-4, 7143-11.7.2-5, 7143-11.16.2-1, 7143-11.16.5-3
#[test]
fn the_initiator_acknowledges_when_asked() {
    for level in [0, 1] {
        let mut i = initiator(|k| k.error_recovery_level = level);
        i.open(command(1, 20, 0), None);
        let ttt = Ttt(0x1234);
        let first = DataIn { itt: Itt(1), data: pattern(1, 8), ..DataIn::default() };
        i.arrives(first);
        assert!(i.sent().is_empty());
        i.core.set_window(Window { stat_sn: StatSn(3), ..Window::default() });
        i.arrives(DataIn {
            final_pdu: true,
            acknowledge: true,
            lun: LUN,
            itt: Itt(1),
            ttt,
            data_sn: DataSn(1),
            buffer_offset: 8,
            data: pattern(1, 12),
            ..DataIn::default()
        });
        if level == 0 {
            assert!(i.sent().is_empty());
            continue;
        }
        let Pdu::Snack(snack) = i.one_sent() else { panic!() };
        assert_eq!(
            (snack.kind, snack.lun, snack.itt, snack.ttt_or_snack_tag),
            (SnackType::DataAck, LUN, Itt::NONE, ttt)
        );
        assert_eq!((snack.exp_stat_sn, snack.beg_run, snack.run_length), (StatSn(3), 2, 0));
    }
}

// req: 7143-4.2.2.4-1, 7143-11.7.4-3, 7143-11.8-2, 7143-11.8-3, 7143-11.8-4, 7143-11.8-5, 7143-11.8-6
// req: 7143-11.8-8, 7143-11.8-9, 7143-11.8-10, 7143-4.2.5.2-7
#[test]
fn r2ts_are_answered_in_full_and_in_order() {
    let mut i = initiator(|k| (k.max_send_data_segment_length, k.max_outstanding_r2t) = (1002, 2));
    i.core.set_window(Window { stat_sn: StatSn(31), ..Window::default() });
    let data = pattern(1, 5000);
    i.open(command(1, 0, 5000), Some(data.clone()));
    let r2t = |r2t_sn, offset, len| R2t {
        lun: LUN,
        itt: Itt(1),
        ttt: Ttt(0xabc0 + r2t_sn),
        r2t_sn: R2tSn(r2t_sn),
        buffer_offset: offset,
        desired_data_transfer_length: len,
        ..R2t::default()
    };
    i.arrives(r2t(0, 2000, 2501));
    i.arrives(r2t(1, 0, 900));
    let pdus = data_outs(i.sent());
    let shape: Vec<_> =
        pdus.iter().map(|d| (d.ttt.0, d.data_sn.0, d.buffer_offset, d.data.len(), d.final_pdu)).collect();
    let want = [
        (0xabc0, 0, 2000, 1000, false),
        (0xabc0, 1, 3000, 1000, false),
        (0xabc0, 2, 4000, 501, true),
        (0xabc1, 0, 0, 900, true),
    ];
    assert_eq!(shape, want);
    for d in &pdus {
        let at = d.buffer_offset as usize;
        assert_eq!(d.data, data.slice(at..at + d.data.len()));
        assert_eq!((d.lun, d.itt, d.exp_stat_sn), (LUN, Itt(1), StatSn(31)));
    }
    assert!(i.events().is_empty(), "R2Ts stay below");
}

/// Requests need not wait behind the data of others.
#[test]
fn requests_overtake_solicited_data() {
    let mut i = initiator(|k| k.max_send_data_segment_length = 1000);
    i.open(command(1, 0, 5000), Some(pattern(1, 5000)));
    i.arrives(R2t { itt: Itt(1), ttt: Ttt(5), desired_data_transfer_length: 5000, ..R2t::default() });
    i.core.send_control(NopOut { itt: Itt(9), ..NopOut::default() }.into()).unwrap();
    let pdus = i.sent();
    assert_eq!((pdus.len(), pdus[0].itt()), (6, Itt(9)));
}

/// A task that ended early gets nothing more, even if its tag names another by then.
#[test]
fn the_rest_of_an_answer_is_dropped_with_its_task() {
    let mut i = initiator(|_| {});
    i.open(command(1, 0, 50), Some(pattern(1, 50)));
    i.arrives(R2t { itt: Itt(1), ttt: Ttt(5), desired_data_transfer_length: 50, ..R2t::default() });
    i.arrives(ScsiResponse { status: ScsiStatus::CheckCondition, ..good(1, 1) });
    assert_eq!(i.events().len(), 1);
    let control = command(1, 0, 50);
    let buffers = TaskBuffers { out: Some(pattern(2, 50).into()), r#in: None };
    i.core.send_control(Control { pdu: control.into(), buffers, unsolicited: 0 }).unwrap();
    assert!(matches!(i.one_sent(), Pdu::ScsiCommand(_)));
}

// req: 7143-13.1-4, 7143-11.2.3-1, 7143-13.1-1
#[test]
fn header_digest_of_the_read_10_in_appendix_a_4() {
    let mut keys = ConnKeys::default();
    (keys.header_digest, keys.data_digest) = (true, true);
    let mut i = Peer::new(Role::Initiator, &keys);
    let mut cdb = [0; 16];
    (cdb[0], cdb[8]) = (0x28, 2);
    let read = ScsiCommand {
        final_pdu: true,
        read: true,
        attr: TaskAttr::Untagged,
        itt: Itt(0x1400_0000),
        expected_data_transfer_length: 0x400,
        cmd_sn: 0x14.into(),
        exp_stat_sn: 0x18.into(),
        cdb,
        ..ScsiCommand::default()
    };
    let buffers = TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(0x400).into()) };
    i.core.send_control(Control { pdu: read.into(), buffers, unsolicited: 0 }).unwrap();
    let want = "01c00000000000000000000000000000140000000000040000000014000000182800000000000000020000000000\
                0000563a96d9";
    assert_eq!(hex::encode(i.raw()), want);
}

// req: 7143-11.2.3-1, 7143-11.2.3-2, 7143-13.1-3, 7143-13.1-4
#[test]
fn data_digest_covers_data_and_zero_padding() {
    let mut keys = ConnKeys::default();
    keys.data_digest = true;
    let mut i = Peer::new(Role::Initiator, &keys);
    // 32 bytes of zeroes: the pad bytes change nothing of the vector when 29 bytes are data.
    for len in [29, 30, 31, 32] {
        let nop = NopOut { itt: Itt(1), data: Bytes::from(vec![0; len]), ..NopOut::default() };
        i.core.send_control(nop.into()).unwrap();
        let raw = i.raw();
        assert_eq!(raw.len(), 48 + 32 + 4);
        assert_eq!(raw[48..80], [0; 32]);
        assert_eq!(raw[80..], [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(raw[5..8], [0, 0, len as u8]);
    }
    // No data, no digest.
    i.core.send_control(NopOut { itt: Itt(1), ..NopOut::default() }.into()).unwrap();
    assert_eq!(i.raw().len(), 48);
}

#[test]
fn the_header_digest_covers_ahs() {
    let mut keys = ConnKeys::default();
    keys.header_digest = true;
    let mut i = Peer::new(Role::Initiator, &keys);
    let c = ScsiCommand { ahs: vec![Ahs::ExtendedCdb(pattern(1, 16))], ..command(1, 5, 0) };
    let buffers = TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(5).into()) };
    i.core.send_control(Control { pdu: c.clone().into(), buffers, unsolicited: 0 }).unwrap();
    // `sent` verifies the digest.
    assert_eq!(i.one_sent(), c.into());
}

// req: 7143-11.7.1-2
#[test]
fn no_segment_is_longer_than_the_peer_takes() {
    let mut i = initiator(|k| k.max_send_data_segment_length = 512);
    let nop = NopOut { itt: Itt(1), data: pattern(1, 513), ..NopOut::default() };
    assert!(i.core.send_control(nop.into()).is_err());
    assert!(i.broken_rule().contains("MaxRecvDataSegmentLength"));
    // Declared anew in full feature phase.
    let mut i = initiator(|k| k.max_send_data_segment_length = 512);
    let mut keys = ConnKeys::default();
    keys.max_send_data_segment_length = 1024;
    i.core.notice_key_values(&keys);
    i.core.send_control(NopOut { itt: Itt(1), data: pattern(1, 1024), ..NopOut::default() }.into()).unwrap();
    assert!(matches!(i.one_sent(), Pdu::NopOut(n) if n.data.len() == 1024));
}

#[test]
fn what_cannot_be_encoded_ends_the_connection() {
    let mut i = initiator(|_| {});
    // A ping without a tag must be immediate (RFC 7143 section 11.18.1).
    i.core.send_control(NopOut::default().into()).unwrap();
    assert!(i.raw().is_empty());
    assert!(i.broken_rule().contains("encoded"));
}

/// The final Login Response goes out first, without digests (RFC 5047 section 8.6, RFC 7143 section 13.1).
// req: 7143-13.1-2, 5047-8.6-3
#[test]
fn what_the_login_left_goes_first() {
    let mut keys = ConnKeys::default();
    keys.header_digest = true;
    let handover = Handover { unread: Bytes::new(), unsent: Bytes::from_static(b"final response") };
    let pool = Arc::new(SlabPool::default());
    let mut core = TcpCore::new(Role::Target, keys, &Resources::default(), pool, handover);
    core.send_control(NopIn::default().into()).unwrap();
    let mut slots = [std::io::IoSlice::new(&[]); 4];
    let n = core.transmit_slices(&mut slots);
    let all = slots[..n].iter().flat_map(|s| s.to_vec()).collect::<Vec<_>>();
    assert_eq!((&all[..14], all.len()), (&b"final response"[..], 14 + 48 + 4));
}

#[test]
fn puts_that_were_given_up_are_not_sent() {
    let mut t = target(|k| k.max_send_data_segment_length = 512);
    t.core.put_data(put(1, 0, pattern(1, 2000))).unwrap();
    t.core.put_data(put(2, 0, pattern(2, 100))).unwrap();
    t.core.deallocate_task_resources(Itt(1));
    assert!(matches!(t.one_event(), Event::TaskReclaimed { itt: Itt(1), .. }));
    assert!(data_ins(t.sent()).iter().all(|d| d.itt == Itt(2)));
    t.core.put_data(put(1, 0, pattern(1, 20))).unwrap();
    assert_eq!(data_ins(t.sent())[0].data_sn, DataSn(0), "its numbers are forgotten");
}
