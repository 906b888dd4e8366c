//! ErrorRecoveryLevel 1, as far as it lies below the interface: each role alone.

mod common;

use bytes::Bytes;
use common::recovery::*;
use common::{Peer, command, pattern, wire};
use datamover::{Cause, Control, DataCompletion, DataError, Event, GetData, IoBuf, Role, Window};
use iscsi_pdu::{
    Cid, DataIn, DataOut, DataSn, Digests, Itt, LogoutReason, LogoutRequest, NopIn, NopOut, Pdu, R2t, R2tSn,
    Reject, RejectReason, ScsiResponse, ScsiStatus, Snack, SnackType, StatSn, Ttt,
};
use std::time::Duration;

/// Status waits for the data, and what has a later StatSN waits for the status.
#[test]
fn lost_input_is_asked_for_and_status_waits() {
    // req: 7143-7.8-5, 7143-7.8-6, 7143-7.9-1, 7143-7.9-4, 7143-11.7.2-8, 7143-11.16.1-1, 7143-11.16.4-2
    // req: 7143-11.16.5-4
    let mut i = peer(Role::Initiator, |_| {});
    i.core.set_window(Window { stat_sn: StatSn(5), ..Window::default() });
    let data = pattern(1, 50);
    i.open(command(1, 50, 0), None);
    i.arrives(data_in(0, &data));
    damaged(&mut i, data_in(1, &data));
    assert_eq!(reason(i.one_event()), RejectReason::DataDigestError);
    let s = snack(i.one_sent());
    assert_eq!((run(&s), s.exp_stat_sn), (asks_for(1, 1), StatSn(5)));
    // Two more are lost without a trace.
    i.arrives(data_in(4, &data));
    assert_eq!(run(&snack(i.one_sent())), asks_for(2, 2));
    i.arrives(response(6, 5));
    i.arrives(NopIn { stat_sn: StatSn(7), ..NopIn::default() });
    assert!(i.events().is_empty() && i.sent().is_empty());
    for sn in [3, 1, 3, 4] {
        i.arrives(data_in(sn, &data));
        assert!(i.events().is_empty());
    }
    i.arrives(data_in(2, &data));
    let mut events = i.events();
    assert_eq!(events.len(), 2);
    assert_eq!(input(&mut events[0]), data);
    assert!(matches!(&events[1], Event::Control(c) if c.pdu.stat_sn() == Some(StatSn(7))));
}

#[test]
fn the_last_input_is_missed_by_its_status() {
    // req: 7143-7.9-1
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 50);
    i.open(command(1, 50, 0), None);
    for sn in 0..3 {
        i.arrives(data_in(sn, &data));
    }
    i.arrives(response(1, 5));
    assert_eq!(run(&snack(i.one_sent())), asks_for(3, 2));
    assert!(i.events().is_empty());
    i.arrives(data_in(3, &data));
    i.arrives(data_in(4, &data));
    assert_eq!(input(&mut i.one_event()), data);
}

#[test]
fn status_within_a_lost_data_in_comes_again_with_it() {
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 10);
    i.open(command(1, 10, 0), None);
    let last =
        DataIn { final_pdu: true, status: Some(ScsiStatus::Good), stat_sn: StatSn(3), ..data_in(0, &data) };
    damaged(&mut i, last.clone());
    assert_eq!(i.events().len(), 1);
    assert_eq!(run(&snack(i.one_sent())), asks_for(0, 1));
    i.arrives(last);
    assert_eq!(input(&mut i.one_event()), data);
}

#[test]
fn a_damaged_response_is_as_good_as_lost() {
    // req: 7143-7.8-11, 7143-7.8-12
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 10, 0), None);
    let bad = ScsiResponse { status: ScsiStatus::CheckCondition, data: pattern(1, 20), ..response(1, 0) };
    damaged(&mut i, bad.clone());
    assert_eq!(reason(i.one_event()), RejectReason::DataDigestError);
    // The session misses its StatSN and asks; here it comes again.
    i.arrives(bad);
    assert!(matches!(i.one_event(), Event::Control(c) if c.buffers.r#in.is_some()));
}

#[test]
fn a_refused_snack_fails_the_task() {
    // req: 7143-7.8-9
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 20);
    i.open(command(1, 20, 0), None);
    i.arrives(data_in(1, &data));
    let asked = snack(i.one_sent());
    i.arrives(response(1, 2));
    let header = wire(&asked.into(), Digests::NONE);
    i.arrives(Reject {
        reason: RejectReason::SnackReject,
        stat_sn: StatSn(2),
        data: header,
        ..Reject::default()
    });
    let events = i.events();
    let [
        Event::DataCompletion(DataCompletion { itt: Itt(1), result: Err(DataError::Digest), .. }),
        Event::Control(r),
        Event::Control(reject),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(matches!(&r.pdu, Pdu::ScsiResponse(_)) && matches!(&reject.pdu, Pdu::Reject(_)));
}

#[test]
fn an_unanswered_snack_ends_the_connection() {
    let mut i = peer(Role::Initiator, |k| k.data_timeout = Duration::from_secs(5));
    let start = now();
    i.core.set_now(start);
    i.open(command(1, 20, 0), None);
    i.arrives(data_in(1, &pattern(1, 20)));
    assert_eq!(i.core.poll_timeout(), Some(start + Duration::from_secs(5)));
    i.core.handle_timeout(start + Duration::from_secs(5));
    assert!(i.broken_rule().contains("SNACK"));
    // Answered, it is forgotten.
    let mut i = peer(Role::Initiator, |k| k.data_timeout = Duration::from_secs(5));
    i.core.set_now(start);
    i.open(command(1, 20, 0), None);
    i.arrives(data_in(1, &pattern(1, 20)));
    i.arrives(data_in(0, &pattern(1, 20)));
    i.core.handle_timeout(start + Duration::from_secs(50));
    assert!(i.events().is_empty() && i.core.poll_timeout().is_none());
}

#[test]
fn acknowledgments_wait_for_holes() {
    // req: 7143-11.7.2-7, 7143-11.16.2-2, 7143-11.16.2-4
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 60);
    i.open(command(1, 60, 0), None);
    i.arrives(data_in(0, &data));
    let asks = DataIn { final_pdu: true, acknowledge: true, lun: LUN, ttt: Ttt(9), ..data_in(2, &data) };
    i.arrives(asks);
    assert_eq!(run(&snack(i.one_sent())), asks_for(1, 1));
    i.arrives(data_in(1, &data));
    let s = snack(i.one_sent());
    assert_eq!(
        (s.kind, s.lun, s.itt, s.ttt_or_snack_tag, s.beg_run),
        (SnackType::DataAck, LUN, Itt::NONE, Ttt(9), 3)
    );
    // What is acknowledged is not asked for, though it comes damaged; what is missing after it is.
    damaged(&mut i, data_in(1, &data));
    assert!(i.sent().is_empty());
    i.arrives(data_in(5, &data));
    assert_eq!(run(&snack(i.one_sent())), asks_for(3, 2));
}

#[test]
fn r2ts_that_are_missing_doubled_or_for_recovery() {
    // req: 7143-7.9-5, 7143-7.9-1
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 100);
    i.open(command(1, 0, 100), Some(data.clone()));
    let r2t = |sn: u32, offset, len| R2t {
        itt: Itt(1),
        ttt: Ttt(sn + 50),
        r2t_sn: R2tSn(sn),
        buffer_offset: offset,
        desired_data_transfer_length: len,
        ..R2t::default()
    };
    let out = |pdu: Pdu| match pdu {
        Pdu::DataOut(d) => (d.ttt.0, d.buffer_offset, d.data),
        other => panic!("{other:?}"),
    };
    i.arrives(r2t(0, 0, 50));
    assert_eq!(out(i.one_sent()), (50, 0, data.slice(..50)));
    i.arrives(r2t(0, 0, 50));
    assert!(i.sent().is_empty(), "a double");
    // 1 is lost; 2 asks again for part of what 0 asked for.
    i.arrives(r2t(2, 20, 10));
    let mut sent = i.sent();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(out(sent.pop().unwrap()), (52, 20, data.slice(20..30)));
    assert_eq!(run(&snack(sent.pop().unwrap())), asks_for(1, 1));
    i.arrives(r2t(1, 50, 50));
    assert_eq!(out(i.one_sent()), (51, 50, data.slice(50..)));
    i.arrives(response(1, 0));
    assert_eq!(i.events().len(), 1);
}

/// ExpDataSN of a bidirectional command counts Data-In; RFC 3720 had it count R2Ts too.
#[test]
fn both_counts_of_bidirectional_commands() {
    for (count, complete) in [(1, true), (2, true), (3, false)] {
        let mut i = peer(Role::Initiator, |_| {});
        let ahs = vec![iscsi_pdu::Ahs::BidirectionalReadLength(10)];
        let c = iscsi_pdu::ScsiCommand { ahs, expected_data_transfer_length: 10, ..command(1, 10, 10) };
        i.open(c, Some(pattern(2, 10)));
        i.arrives(R2t { itt: Itt(1), ttt: Ttt(1), desired_data_transfer_length: 10, ..R2t::default() });
        i.arrives(DataIn { data_sn: DataSn(1), ..data_in(0, &pattern(1, 10)) });
        assert_eq!(i.sent().len(), 1);
        i.arrives(response(1, count));
        assert_eq!((i.events().len(), i.sent().len()), if complete { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn giving_a_task_up_lets_go_what_waited_for_it() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 20, 0), None);
    i.arrives(data_in(1, &pattern(1, 20)));
    i.arrives(response(1, 2));
    i.arrives(NopIn { stat_sn: StatSn(2), ..NopIn::default() });
    assert!(i.events().is_empty());
    i.core.deallocate_task_resources(Itt(1));
    let stat_sns: Vec<_> = i
        .events()
        .iter()
        .filter_map(|e| if let Event::Control(c) = e { c.pdu.stat_sn() } else { None })
        .collect();
    assert_eq!(stat_sns, [StatSn(1), StatSn(2)]);
}

#[test]
fn data_in_is_sent_again_as_it_was() {
    // req: 7143-7.8-7, 7143-11.16-3, 7143-11.16-5, 7143-11.16-6, 7143-11.16-7
    for respond in [false, true] {
        let (mut t, pdus) = sent_five(respond);
        t.core.set_window(Window { stat_sn: StatSn(8), exp_cmd_sn: 41.into(), max_cmd_sn: 42.into() });
        let current = |pdu: &Pdu| match pdu.clone() {
            Pdu::DataIn(d) => Pdu::DataIn(DataIn { exp_cmd_sn: 41.into(), max_cmd_sn: 42.into(), ..d }),
            other => panic!("{other:?}"),
        };
        for (beg, len, want) in [(1, 2, 1..3), (3, 0, 3..5), (0, 0, 0..5), (4, 1, 4..5)] {
            t.arrives(asks(SnackType::DataR2t, beg, len));
            let again = t.sent();
            assert_eq!(again, pdus[want].iter().map(current).collect::<Vec<_>>());
        }
        // What was never sent.
        for (beg, len) in [(5, 1), (4, 2), (5, 0), (u32::MAX, 1), (u32::MAX, 0), (0, u32::MAX)] {
            t.arrives(asks(SnackType::DataR2t, beg, len));
            assert_eq!(reason(t.one_event()), RejectReason::ProtocolError, "{beg} {len}");
        }
        t.arrives(Snack { itt: Itt(2), ..asks(SnackType::DataR2t, 0, 1) });
        assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
        assert!(t.sent().is_empty());
        // Acknowledged status acknowledges the data.
        if respond {
            t.arrives(NopOut { itt: Itt(3), exp_stat_sn: StatSn(8), ..NopOut::default() });
            t.events();
            t.arrives(asks(SnackType::DataR2t, 0, 1));
            assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
        }
    }
}

#[test]
fn acknowledged_data_is_not_kept() {
    // req: 7143-11.16-7
    let mut t = peer(Role::Target, |k| k.max_send_data_segment_length = 512);
    put(&mut t, 0, pattern(1, 1024), true);
    put(&mut t, 1024, pattern(2, 512), false);
    let pdus = t.sent();
    let Pdu::DataIn(DataIn { acknowledge: true, ttt, .. }) = pdus[1] else { panic!("{pdus:?}") };
    let ack = Snack { lun: LUN, ttt_or_snack_tag: ttt, ..asks(SnackType::DataAck, 2, 0) };
    t.arrives(Snack { beg_run: 1, ..ack.clone() });
    assert_eq!(reason(t.one_event()), RejectReason::InvalidDataAck);
    t.arrives(ack.clone());
    assert!(matches!(t.one_event(), Event::DataAck { itt: Itt(1), exp_data_sn: Some(DataSn(2)) }));
    t.arrives(asks(SnackType::DataR2t, 1, 1));
    assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
    t.arrives(asks(SnackType::DataR2t, 0, 0));
    assert_eq!(t.one_sent(), pdus[2], "all that is not acknowledged");
    // Once is enough.
    t.arrives(ack);
    assert!(t.events().is_empty());
    // BegRun is the next DataSN that the initiator expects (section 11.16.6): more may have come since, but not more than
    // there is.
    put(&mut t, 1536, pattern(3, 512), true);
    let Pdu::DataIn(DataIn { data_sn: DataSn(3), ttt, .. }) = t.one_sent() else { panic!() };
    put(&mut t, 2048, pattern(4, 512), false);
    t.one_sent();
    let ack = |n| Snack { lun: LUN, ttt_or_snack_tag: ttt, ..asks(SnackType::DataAck, n, 0) };
    t.arrives(ack(6));
    assert_eq!(reason(t.one_event()), RejectReason::InvalidDataAck);
    t.arrives(ack(5));
    assert!(matches!(t.one_event(), Event::DataAck { exp_data_sn: Some(DataSn(5)), .. }));
    t.arrives(asks(SnackType::DataR2t, 4, 1));
    assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
}

#[test]
fn r2ts_are_sent_again_with_the_stat_sn_of_now() {
    // req: 7143-11.16-2, 7143-11.16-4
    let mut t = peer(Role::Target, |_| {});
    let into = IoBuf::zeroed(100).into();
    t.core.get_data(GetData { itt: Itt(1), lun: LUN, offset: 0, into, resume: None }).unwrap();
    let Pdu::R2t(first) = t.one_sent() else { panic!() };
    let stat_sn = StatSn(77);
    t.core.set_window(Window { stat_sn, ..Window::default() });
    t.arrives(asks(SnackType::DataR2t, 0, 1));
    assert_eq!(t.one_sent(), R2t { stat_sn, ..first }.into());
}

#[test]
fn snacks_without_end_are_refused() {
    let mut t = peer(Role::Target, |k| k.max_send_data_segment_length = 512);
    put(&mut t, 0, pattern(1, 512 * 100), false);
    assert_eq!(t.sent().len(), 100);
    let mut refused = 0;
    for _ in 0..100 {
        t.arrives(asks(SnackType::DataR2t, 0, 0));
        refused += t
            .events()
            .into_iter()
            .filter(|e| matches!(e, Event::Invalid(i) if i.reason == RejectReason::SnackReject))
            .count();
    }
    assert!(refused >= 50, "{refused}");
    assert!(t.sent().len() <= 4096);
}

#[test]
fn a_tag_may_be_used_again_before_its_status_is_acknowledged() {
    let (mut t, _) = sent_five(true);
    put(&mut t, 0, pattern(2, 10), false);
    assert!(matches!(t.one_sent(), Pdu::DataIn(d) if d.data_sn == DataSn(0)));
    t.arrives(NopOut { itt: Itt(3), exp_stat_sn: StatSn(8), ..NopOut::default() });
    t.events();
    t.arrives(asks(SnackType::DataR2t, 0, 1));
    assert!(matches!(t.one_sent(), Pdu::DataIn(d) if d.data == pattern(2, 10)), "the new task's");
}

/// The ExpStatSN of a Logout Request is that of the connection to be closed (RFC 7143 section 11.14.4), which may be
/// another: what is closed here can still be asked for.
#[test]
fn the_logout_of_another_connection_acknowledges_nothing_here() {
    for reason in [LogoutReason::CloseConnection, LogoutReason::RemoveForRecovery] {
        let (mut t, pdus) = sent_five(true);
        let logout = LogoutRequest {
            immediate: true,
            reason,
            itt: Itt(3),
            cid: Cid(9),
            exp_stat_sn: StatSn(8),
            ..LogoutRequest::default()
        };
        t.arrives(logout);
        assert_eq!(t.events().len(), 1);
        t.arrives(asks(SnackType::DataR2t, 1, 1));
        assert_eq!(t.sent(), [pdus[1].clone()], "{reason:?}");
    }
}

fn ask(t: &mut Peer, len: usize) -> R2t {
    let into = IoBuf::zeroed(len).into();
    t.core.get_data(GetData { itt: Itt(1), lun: LUN, offset: 0, into, resume: None }).unwrap();
    r2t(t)
}

fn r2t(t: &mut Peer) -> R2t {
    if let Pdu::R2t(r) = t.one_sent() { r } else { panic!("not an R2T") }
}

fn answer(r: &R2t, sn: u32, data: &Bytes, from: usize, to: usize) -> DataOut {
    DataOut {
        final_pdu: to == data.len(),
        lun: r.lun,
        itt: r.itt,
        ttt: r.ttt,
        data_sn: DataSn(sn),
        buffer_offset: from as u32,
        data: data.slice(from..to),
        ..DataOut::default()
    }
}

#[test]
fn lost_output_is_asked_for_again() {
    // req: 7143-7.8-2, 7143-7.8-3, 7143-7.9-2, 7143-11.8-11
    let data = pattern(1, 100);
    let mut t = peer(Role::Target, |_| {});
    let r = ask(&mut t, 100);
    damaged(&mut t, answer(&r, 0, &data, 0, 50));
    assert_eq!(reason(t.one_event()), RejectReason::DataDigestError);
    assert!(t.sent().is_empty(), "the F bit is awaited");
    t.arrives(answer(&r, 1, &data, 50, 100));
    let second = r2t(&mut t);
    assert_eq!(
        (second.r2t_sn, second.buffer_offset, second.desired_data_transfer_length),
        (R2tSn(1), 0, 100)
    );
    assert_ne!(second.ttt, r.ttt);
    // A PDU is missing this time.
    t.arrives(answer(&second, 1, &data, 50, 100));
    let third = r2t(&mut t);
    assert_eq!(third.r2t_sn, R2tSn(2));
    // Late data of the first answers goes nowhere.
    t.arrives(answer(&r, 0, &pattern(2, 100), 0, 100));
    t.arrives(answer(&third, 0, &data, 0, 100));
    let Event::DataCompletion(DataCompletion { data: Some(got), result: Ok(()), .. }) = t.one_event() else {
        panic!()
    };
    assert_eq!(got.freeze().to_bytes(), data);
}

#[test]
fn asking_again_has_an_end() {
    let data = pattern(1, 100);
    let mut t = peer(Role::Target, |_| {});
    let mut r = ask(&mut t, 100);
    for _ in 0..3 {
        damaged(&mut t, answer(&r, 0, &data, 0, 100));
        assert_eq!(t.events().len(), 1);
        r = r2t(&mut t);
    }
    damaged(&mut t, answer(&r, 0, &data, 0, 100));
    let events = t.events();
    assert!(
        matches!(&events[1], Event::DataCompletion(d) if d.result == Err(DataError::Digest)),
        "{events:?}"
    );
    assert!(t.sent().is_empty());
    // What breaks the rules is not asked for again at all.
    let mut t = peer(Role::Target, |_| {});
    let r = ask(&mut t, 100);
    t.arrives(DataOut { buffer_offset: 1, ..answer(&r, 0, &data, 0, 100) });
    let events = t.events();
    assert!(
        matches!(&events[1], Event::DataCompletion(d) if d.result == Err(DataError::Sequence)),
        "{events:?}"
    );
}

#[test]
fn a_silent_initiator_is_asked_again() {
    let data = pattern(1, 100);
    let mut t = peer(Role::Target, |k| k.data_timeout = Duration::from_secs(1));
    let start = now();
    t.core.set_now(start);
    let mut r = ask(&mut t, 100);
    for n in 1..=3u64 {
        t.arrives(answer(&r, 0, &data, 0, 50));
        t.core.handle_timeout(start + Duration::from_secs(n));
        assert!(t.events().is_empty());
        r = r2t(&mut t);
        assert_eq!(r.r2t_sn, R2tSn(n as u32));
    }
    t.core.handle_timeout(start + Duration::from_secs(4));
    assert!(matches!(t.one_event(), Event::DataCompletion(d) if d.result == Err(DataError::TimedOut)));
}

/// Section 7.8: the PDU is dropped if the beginning of a later one is sure, else the connection ends.
// req: 7143-7.8-1
#[test]
fn a_damaged_header_is_skipped_if_a_good_one_lies_where_its_lengths_say() {
    let nop = |itt| Pdu::from(NopOut { itt: Itt(itt), data: pattern(itt, 700), ..NopOut::default() });
    let damage = |pdu: &Pdu, at: usize| {
        let mut bytes = wire(pdu, Digests::BOTH).to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let itt = |event| match event {
        Event::Control(Control { pdu, .. }) => pdu.itt(),
        other => panic!("{other:?}"),
    };
    let mut t = peer(Role::Target, |_| {});
    t.bytes(&damage(&nop(1), 20));
    assert!(t.events().is_empty());
    t.arrives(nop(2));
    assert_eq!(itt(t.one_event()), Itt(2));
    t.bytes(&damage(&nop(3), 30));
    t.arrives(nop(4));
    assert_eq!(itt(t.one_event()), Itt(4), "once more");
    // Two in a row, or a length that is wrong: what follows is no header.
    t.bytes(&damage(&nop(5), 20));
    t.bytes(&damage(&nop(6), 20));
    assert_eq!(t.cause(), Cause::HeaderDigest);
    let mut t = peer(Role::Target, |_| {});
    t.bytes(&damage(&nop(1), 7));
    t.arrives(nop(2));
    assert_eq!(t.cause(), Cause::HeaderDigest);
    let mut t = peer(Role::Target, |keys| keys.error_recovery_level = 0);
    t.bytes(&damage(&nop(1), 20));
    assert_eq!(t.cause(), Cause::HeaderDigest);
}
