//! Recovery of data across a change of MaxRecvDataSegmentLength (RFC 7143 section 11.16.3): each role alone.

mod common;

use bytes::Bytes;
use common::recovery::*;
use common::{Peer, command, pattern, wire};
use datamover::{
    Cause, ConnKeys, Control, DataCompletion, DataError, Event, GetData, InputProgress, IoBuf, Role,
    Terminated,
};
use iscsi_pdu::{
    Ahs, DataIn, DataSn, Digests, Itt, NopIn, Pdu, R2t, R2tSn, Reject, RejectReason, Residual, ScsiCommand,
    ScsiResponse, Snack, SnackTag, SnackType, StatSn, Ttt,
};
use std::ops::Range;
use std::time::Duration;

/// The initiator has declared another length.
fn recut(i: &mut Peer) {
    let mut keys = ConnKeys::default();
    keys.max_recv_data_segment_length = 512;
    i.core.notice_key_values(&keys);
}

/// Until the target has answered, it may cut by either length; then, by the new one only.
#[test]
fn the_old_length_holds_until_the_new_one_is_settled() {
    // req: 7143-11.7.1-2
    let mut i = peer(Role::Initiator, |k| k.max_recv_data_segment_length = 1024);
    let nop = |stat_sn| NopIn { stat_sn: StatSn(stat_sn), data: pattern(1, 1024), ..NopIn::default() };
    recut(&mut i);
    i.arrives(nop(1));
    assert!(matches!(i.one_event(), Event::Control(_)));
    recut(&mut i);
    i.arrives(nop(2));
    assert!(matches!(i.cause(), Cause::Format(_)));
    // A greater one is taken at once, and no more when it comes to nothing.
    let mut i = peer(Role::Initiator, |k| k.max_recv_data_segment_length = 600);
    for (length, taken) in [(1024, true), (600, true), (600, false)] {
        let mut keys = ConnKeys::default();
        keys.max_recv_data_segment_length = length;
        i.core.notice_key_values(&keys);
        i.arrives(nop(1));
        assert_eq!(matches!(i.one_event(), Event::Control(_)), taken);
    }
    // Nor does the next declaration settle one that was not answered, nor what the target declares.
    let mut i = peer(Role::Initiator, |k| k.max_recv_data_segment_length = 600);
    let lengths = [(1024, 8192), (700, 8192), (512, 8192), (512, 4096), (512, 4096)];
    for (step, (recv, send)) in lengths.into_iter().enumerate() {
        let mut keys = ConnKeys::default();
        (keys.max_recv_data_segment_length, keys.max_send_data_segment_length) = (recv, send);
        i.core.notice_key_values(&keys);
        i.arrives(nop(1));
        assert_eq!(matches!(i.one_event(), Event::Control(_)), step < 4, "step {step}");
    }
}

/// Data-In of task 1 that is cut otherwise than [`data_in`] does.
fn anew(sn: u32, range: Range<usize>, data: &Bytes) -> DataIn {
    DataIn {
        itt: Itt(1),
        data_sn: DataSn(sn),
        buffer_offset: range.start as u32,
        data: data.slice(range),
        ..DataIn::default()
    }
}

/// Takes an R-Data SNACK; its tag.
fn r_data(i: &mut Peer) -> SnackTag {
    let s = snack(i.one_sent());
    assert_eq!((s.kind, s.itt, s.beg_run, s.run_length), (SnackType::RData, Itt(1), 0, 0));
    SnackTag(s.ttt_or_snack_tag.0)
}

fn rejects(i: &mut Peer, snack: Snack, reason: RejectReason, stat_sn: u32) {
    let data = wire(&snack.into(), Digests::NONE);
    i.arrives(Reject { reason, stat_sn: StatSn(stat_sn), data, ..Reject::default() });
}

fn is_failure(event: &Event) -> bool {
    matches!(
        event,
        Event::DataCompletion(DataCompletion { itt: Itt(1), data: None, result: Err(DataError::Digest), .. })
    )
}

#[test]
fn another_segment_length_takes_an_r_data_snack() {
    // req: 7143-11.16.3-1, 7143-11.16.3-3, 7143-11.16.5-1, 7143-11.16.5-2, 7143-11.16.6-1, 7143-11.16.7-1
    // req: 7143-11.4.4-1
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(1, 40);
    i.open(command(1, 40, 0), None);
    i.arrives(DataIn { acknowledge: true, final_pdu: true, ttt: Ttt(4), ..data_in(0, &data) });
    assert_eq!(snack(i.one_sent()).kind, SnackType::DataAck);
    i.arrives(data_in(1, &data));
    let mut keys = ConnKeys::default();
    keys.max_recv_data_segment_length = 512;
    i.core.notice_key_values(&keys);
    i.arrives(response(8, 4));
    let s = snack(i.one_sent());
    assert_eq!((s.kind, s.itt, s.beg_run, s.run_length), (SnackType::RData, Itt(1), 0, 0));
    let tag = SnackTag(s.ttt_or_snack_tag.0);
    assert!(tag.0 != 0 && tag.0 != u32::MAX);
    i.arrives(NopIn { stat_sn: StatSn(9), ..NopIn::default() });
    // All that was not acknowledged comes anew, cut otherwise, then a response with the tag.
    for (sn, range) in [(1u32, 10..16), (2, 16..40)] {
        i.arrives(DataIn {
            data_sn: DataSn(sn),
            buffer_offset: range.start as u32,
            data: data.slice(range),
            ..data_in(0, &data)
        });
    }
    assert!(i.events().is_empty(), "the old response does not count");
    i.arrives(ScsiResponse { snack_tag: tag, ..response(8, 3) });
    let mut events = i.events();
    assert_eq!(events.len(), 2);
    assert!(
        matches!(&events[1], Event::Control(c) if c.pdu.stat_sn() == Some(StatSn(9))),
        "in the order of StatSN"
    );
    assert_eq!(input(&mut events[0]), data);
}

/// What was sent before the SNACK and comes after it has numbers that name other parts of the data now.
#[test]
fn what_was_discarded_and_still_comes_is_not_counted() {
    // req: 7143-11.16.3-1, 7143-11.16.2-2
    for acked in [0, 1] {
        let mut i = peer(Role::Initiator, |_| {});
        let data = pattern(1, 60);
        i.open(command(1, 60, 0), None);
        i.arrives(DataIn { acknowledge: acked > 0, ttt: Ttt(4), ..data_in(0, &data) });
        assert_eq!(i.sent().len(), acked);
        i.arrives(data_in(1, &data));
        recut(&mut i);
        // What shows that something is missing is discarded with the rest, and not acknowledged.
        i.arrives(DataIn { acknowledge: true, ttt: Ttt(5), ..data_in(3, &data) });
        let tag = r_data(&mut i);
        for sn in [4, 5] {
            i.arrives(DataIn { acknowledge: sn == 5, ttt: Ttt(6), ..data_in(sn, &data) });
        }
        i.arrives(response(8, 6));
        assert!(i.events().is_empty() && i.sent().is_empty());
        let (first, at) = (acked as u32, acked * 10);
        for (n, range) in [at..23, 23..36, 36..49, 49..60].into_iter().enumerate() {
            i.arrives(anew(first + n as u32, range, &data));
        }
        assert!(i.events().is_empty() && i.sent().is_empty());
        i.arrives(ScsiResponse { snack_tag: tag, ..response(8, first + 4) });
        assert_eq!(input(&mut i.one_event()), data);
    }
}

/// As above, each of the PDUs that are sent anew being lost once; the first too, without which the others are not told
/// from what was discarded until the response has come.
#[test]
fn what_is_sent_anew_may_get_lost_as_well() {
    // req: 7143-11.16.3-1, 7143-7.9-1
    for lost in 0..3u32 {
        let mut i = peer(Role::Initiator, |_| {});
        let data = pattern(1, 60);
        i.open(command(1, 60, 0), None);
        i.arrives(data_in(0, &data));
        recut(&mut i);
        i.arrives(data_in(2, &data));
        let tag = r_data(&mut i);
        i.arrives(data_in(3, &data));
        let cut = [0..25, 25..50, 50..60];
        for sn in (0..3).filter(|sn| *sn != lost) {
            i.arrives(anew(sn, cut[sn as usize].clone(), &data));
        }
        i.arrives(ScsiResponse { snack_tag: tag, ..response(8, 3) });
        assert!(i.events().is_empty());
        // The lengths have not changed since.
        let s = snack(i.one_sent());
        let (kind, .., beg, len) = run(&s);
        assert_eq!(kind, SnackType::DataR2t);
        assert!((beg..beg + len).contains(&lost), "{beg} {len}");
        for sn in beg..beg + len {
            i.arrives(anew(sn, cut[sn as usize].clone(), &data));
        }
        assert_eq!(input(&mut i.one_event()), data);
        assert!(i.sent().is_empty());
    }
}

/// Less than was expected, and no word about it: the caller must know, after an R-Data SNACK too.
#[test]
fn what_comes_anew_is_counted_in_bytes() {
    for acked in [0u32, 1] {
        let mut i = peer(Role::Initiator, |_| {});
        let data = pattern(1, 60);
        i.open(command(1, 60, 0), None);
        i.arrives(DataIn { acknowledge: acked > 0, ttt: Ttt(4), ..data_in(0, &data) });
        assert_eq!(i.sent().len(), acked as usize);
        recut(&mut i);
        i.arrives(data_in(2, &data));
        let tag = r_data(&mut i);
        i.arrives(anew(acked, acked as usize * 10..50, &data));
        i.arrives(ScsiResponse { snack_tag: tag, ..response(8, acked + 1) });
        let Event::Control(Control { pdu: Pdu::ScsiResponse(r), .. }) = i.one_event() else { panic!() };
        assert_eq!(r.residual, Residual::Underflow(10));
    }
}

/// 30 bytes either way.
fn both_ways(i: &mut Peer) {
    let ahs = vec![Ahs::BidirectionalReadLength(30)];
    let c = ScsiCommand { ahs, expected_data_transfer_length: 30, ..command(1, 30, 30) };
    i.open(c, Some(pattern(2, 30)));
}

fn r2t(sn: u32, offset: u32, len: u32) -> R2t {
    R2t {
        itt: Itt(1),
        ttt: Ttt(sn + 50),
        r2t_sn: R2tSn(sn),
        buffer_offset: offset,
        desired_data_transfer_length: len,
        ..R2t::default()
    }
}

/// A Data SNACK is forbidden, and what an R-Data SNACK of a bidirectional command brings has numbers that R2Ts have
/// too: nothing is asked for, and the session hears at once that the input is lost.
#[test]
fn lost_input_of_a_bidirectional_command_is_given_up_when_the_length_has_changed() {
    // req: 7143-11.16.3-1, 7143-7.8-6
    let data = pattern(1, 30);
    for loss in 0..3 {
        let mut i = peer(Role::Initiator, |_| {});
        both_ways(&mut i);
        i.arrives(data_in(0, &data));
        i.arrives(r2t(1, 0, 30));
        assert!(matches!(i.one_sent(), Pdu::DataOut(_)));
        recut(&mut i);
        match loss {
            // The PDU is damaged; 3, after 2, is not there; the response counts more than there was.
            0 => damaged(&mut i, data_in(2, &data)),
            1 => i.arrives(DataIn { data_sn: DataSn(3), ..data_in(2, &data) }),
            _ => i.arrives(response(8, 3)),
        }
        assert!(i.sent().is_empty(), "{loss}");
        let events = i.events();
        assert!(events.iter().any(is_failure), "{loss}: {events:?}");
        if loss < 2 {
            assert!(!events.iter().any(|e| matches!(e, Event::Control(_))));
            // It is told once, and keeps nothing that comes later from going up.
            i.arrives(response(8, 3));
            let events = i.events();
            assert!(matches!(&events[..], [Event::Control(c)] if c.buffers.r#in.is_some()), "{events:?}");
        } else {
            assert!(matches!(events.last(), Some(Event::Control(c)) if c.buffers.r#in.is_some()));
        }
        i.arrives(NopIn { stat_sn: StatSn(9), ..NopIn::default() });
        assert_eq!(i.events().len(), 1);
        assert!(i.core.poll_timeout().is_none(), "nothing is waited for");
    }
    // Nothing changed: it is asked for.
    let mut i = peer(Role::Initiator, |_| {});
    both_ways(&mut i);
    i.arrives(data_in(1, &data));
    assert_eq!(run(&snack(i.one_sent())), asks_for(0, 1));
}

/// R2Ts are not cut by MaxRecvDataSegmentLength, and no R-Data SNACK asks for them.
#[test]
fn lost_r2ts_are_asked_for_whatever_the_length() {
    // req: 7143-7.9-1
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 0, 100), Some(pattern(1, 100)));
    recut(&mut i);
    i.arrives(r2t(1, 50, 50));
    let mut sent = i.sent();
    assert!(matches!(sent.pop(), Some(Pdu::DataOut(d)) if d.ttt == Ttt(51)));
    assert_eq!(run(&snack(sent.remove(0))), asks_for(0, 1));
}

/// DataSN 0 was asked for as it was, so that the one that comes next may be of the old count or of the new one.
#[test]
fn what_could_be_mistaken_is_given_up() {
    let data = pattern(1, 60);
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 60, 0), None);
    i.arrives(data_in(1, &data));
    assert_eq!(run(&snack(i.one_sent())), asks_for(0, 1));
    recut(&mut i);
    i.arrives(data_in(3, &data));
    assert!(i.sent().is_empty());
    assert!(is_failure(&i.one_event()));
    // Damaged, it has come, and nothing else can.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 60, 0), None);
    i.arrives(data_in(1, &data));
    assert_eq!(run(&snack(i.one_sent())), asks_for(0, 1));
    recut(&mut i);
    damaged(&mut i, data_in(0, &data));
    r_data(&mut i);
}

/// Some targets know no R-Data SNACK, or nothing of what is asked for: the data does not come, whatever they say.
#[test]
fn any_reject_of_a_snack_fails_the_task() {
    // req: 7143-7.8-9
    let data = pattern(1, 60);
    for reason in [RejectReason::SnackReject, RejectReason::ProtocolError, RejectReason::CommandNotSupported]
    {
        for change in [false, true] {
            let mut i = peer(Role::Initiator, |_| {});
            i.open(command(1, 60, 0), None);
            i.arrives(data_in(0, &data));
            if change {
                recut(&mut i);
            }
            i.arrives(data_in(2, &data));
            let asked = snack(i.one_sent());
            assert_eq!(asked.kind == SnackType::RData, change);
            rejects(&mut i, asked, reason, 8);
            assert!(matches!(i.one_event(), Event::Control(c) if matches!(c.pdu, Pdu::Reject(_))));
            // What is missing cannot be acknowledged.
            let last = DataIn { acknowledge: true, ttt: Ttt(4), ..data_in(3, &data) };
            i.arrives(last);
            assert!(i.sent().is_empty());
            i.arrives(response(9, 4));
            let events = i.events();
            let [failure, Event::Control(_)] = &events[..] else { panic!("{events:?}") };
            assert!(is_failure(failure));
        }
    }
    // A Reject of something else is no matter.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 60, 0), None);
    i.arrives(data_in(1, &data));
    let asked = snack(i.one_sent());
    rejects(&mut i, Snack { itt: Itt(2), ..asked.clone() }, RejectReason::SnackReject, 8);
    rejects(&mut i, Snack { kind: SnackType::DataAck, ..asked }, RejectReason::InvalidDataAck, 9);
    assert_eq!(i.events().len(), 2);
    i.arrives(data_in(0, &data));
    i.arrives(response(10, 2));
    assert!(!i.events().iter().any(is_failure));
}

/// A target that does not answer keeps nothing waiting for ever: not without data, nor with data and no response that
/// has the tag. One that takes its time while data comes is not given up.
#[test]
fn an_unanswered_r_data_snack_ends_the_connection() {
    let second = Duration::from_secs(1);
    let data = pattern(1, 60);
    for answers in 0..3 {
        let mut i = peer(Role::Initiator, |k| k.data_timeout = 5 * second);
        let start = now();
        i.core.set_now(start);
        i.open(command(1, 60, 0), None);
        i.arrives(data_in(0, &data));
        recut(&mut i);
        i.arrives(data_in(2, &data));
        let tag = r_data(&mut i);
        if answers > 0 {
            for (sn, range) in [0..25, 25..50, 50..60].into_iter().enumerate() {
                i.core.set_now(start + 4 * second * (1 + sn as u32));
                i.arrives(anew(sn as u32, range, &data));
            }
            i.arrives(response(8, 6));
        }
        i.core.handle_timeout(start + if answers > 0 { 16 } else { 4 } * second);
        assert!(i.events().is_empty(), "{answers}");
        if answers == 2 {
            i.arrives(ScsiResponse { snack_tag: tag, ..response(8, 3) });
            assert_eq!(input(&mut i.one_event()), data);
        }
        i.core.handle_timeout(start + 30 * second);
        match answers {
            2 => assert!(i.events().is_empty()),
            _ => assert!(i.broken_rule().contains("SNACK")),
        }
    }
}

/// A task that has failed waits for its status only, however long that takes.
#[test]
fn a_task_that_has_failed_is_not_waited_for() {
    let mut i = peer(Role::Initiator, |k| k.data_timeout = Duration::from_secs(5));
    let start = now();
    i.core.set_now(start);
    i.open(command(1, 60, 0), None);
    i.arrives(data_in(1, &pattern(1, 60)));
    let asked = snack(i.one_sent());
    rejects(&mut i, asked, RejectReason::SnackReject, 8);
    assert_eq!(i.events().len(), 1);
    i.core.handle_timeout(start + Duration::from_secs(50));
    assert!(i.events().is_empty());
}

#[test]
fn r_data_cuts_anew() {
    // req: 7143-11.16.3-2, 7143-11.16.3-3
    for respond in [false, true] {
        let (mut t, pdus) = sent_five(respond);
        let mut keys = ConnKeys::default();
        keys.max_send_data_segment_length = 1024;
        t.core.notice_key_values(&keys);
        let ask = Snack { ttt_or_snack_tag: Ttt(0x77), ..asks(SnackType::RData, 0, 0) };
        t.arrives(ask.clone());
        assert!(
            matches!(t.one_event(), Event::Control(c) if c.pdu == ask.clone().into()),
            "the session answers"
        );
        let again = t.sent();
        let shape: Vec<_> = again
            .iter()
            .map(|p| match p {
                Pdu::DataIn(d) => (d.data_sn.0, d.buffer_offset, d.data.len()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shape, [(0, 0, 1024), (1, 1024, 1024), (2, 2048, 452)]);
        let bytes = |pdus: &[Pdu]| pdus.iter().flat_map(|p| p.data().unwrap().to_vec()).collect::<Vec<_>>();
        assert_eq!(bytes(&again), bytes(&pdus));
        t.core.send_control(ScsiResponse { snack_tag: SnackTag(0x77), ..response(7, 0) }.into()).unwrap();
        assert!(matches!(t.one_sent(), Pdu::ScsiResponse(r) if r.exp_data_sn == DataSn(3)));
        // And the new PDUs can be asked for.
        t.arrives(asks(SnackType::DataR2t, 2, 1));
        assert_eq!(t.one_sent(), again[2]);
    }
    let (mut t, _) = sent_five(false);
    t.arrives(Snack { itt: Itt(9), ttt_or_snack_tag: Ttt(1), ..asks(SnackType::RData, 0, 0) });
    assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
}

fn declares(t: &mut Peer, length: u32) {
    let mut keys = ConnKeys::default();
    keys.max_send_data_segment_length = length;
    t.core.notice_key_values(&keys);
}

fn shape(pdus: &[Pdu]) -> Vec<(u32, u32, usize)> {
    let of = |p: &Pdu| match p {
        Pdu::DataIn(d) => (d.data_sn.0, d.buffer_offset, d.data.len()),
        other => panic!("{other:?}"),
    };
    pdus.iter().map(of).collect()
}

/// The initiator would have to drop the connection for a PDU that is longer than it takes.
#[test]
fn what_is_too_long_by_now_is_not_sent_again() {
    // req: 7143-11.7.1-2, 7143-7.8-7
    let (mut t, _) = sent_five(false);
    declares(&mut t, 500);
    t.arrives(asks(SnackType::DataR2t, 1, 2));
    assert_eq!(reason(t.one_event()), RejectReason::SnackReject);
    assert!(t.sent().is_empty());
    // The last is short enough.
    t.arrives(asks(SnackType::DataR2t, 4, 1));
    assert_eq!(shape(&t.sent()), [(4, 2048, 452)]);
}

/// Behind what is sent anew the old PDU 3 would pass for the new one. Asking twice is as good as once.
#[test]
fn an_r_data_snack_takes_back_what_was_asked_for_before() {
    // req: 7143-11.16.3-2
    let (mut t, _) = sent_five(false);
    declares(&mut t, 700);
    t.arrives(asks(SnackType::DataR2t, 3, 1));
    for tag in [7, 8] {
        t.arrives(Snack { ttt_or_snack_tag: Ttt(tag), ..asks(SnackType::RData, 0, 0) });
        assert!(matches!(t.one_event(), Event::Control(_)));
    }
    assert_eq!(shape(&t.sent()), [(0, 0, 700), (1, 700, 700), (2, 1400, 700), (3, 2100, 400)]);
}

/// A connection may end before anything was sent anew: a reassigned task goes on from what was acknowledged.
#[test]
fn an_r_data_snack_takes_a_task_back_to_what_was_acknowledged() {
    // req: 7143-11.5.6-2
    for acked in [false, true] {
        let mut t = peer(Role::Target, |k| {
            (k.max_send_data_segment_length, k.error_recovery_level) = (512, 2);
        });
        put(&mut t, 0, pattern(1, 1024), acked);
        put(&mut t, 1024, pattern(2, 1024), false);
        let pdus = t.sent();
        if let Pdu::DataIn(DataIn { acknowledge: true, ttt, .. }) = pdus[1] {
            t.arrives(Snack { lun: LUN, ttt_or_snack_tag: ttt, ..asks(SnackType::DataAck, 2, 0) });
        }
        declares(&mut t, 700);
        t.arrives(Snack { ttt_or_snack_tag: Ttt(7), ..asks(SnackType::RData, 0, 0) });
        t.events();
        t.core.disconnected(None);
        let Event::Terminated(Terminated { reclaimed, .. }) = t.one_event() else { panic!() };
        let (sn, end) = if acked { (DataSn(2), 1024) } else { (DataSn(0), 0) };
        let want = InputProgress { next: sn, acknowledged: sn, sent: Vec::new(), end };
        assert_eq!(reclaimed.iter().map(|(_, r)| &r.input).collect::<Vec<_>>(), [&want]);
    }
}

/// The numbers of what would be sent anew are those of R2Ts: section 7.8 leaves the target the Reject, behind which the
/// session ends the command with CHECK CONDITION.
#[test]
fn an_r_data_snack_for_a_bidirectional_command_is_refused() {
    // req: 7143-7.8-7
    let mut t = peer(Role::Target, |_| {});
    put(&mut t, 0, pattern(1, 100), false);
    let into = IoBuf::zeroed(100).into();
    t.core.get_data(GetData { itt: Itt(1), lun: LUN, offset: 0, into, resume: None }).unwrap();
    assert_eq!(t.sent().len(), 2);
    t.arrives(Snack { ttt_or_snack_tag: Ttt(7), ..asks(SnackType::RData, 0, 0) });
    assert_eq!(reason(t.one_event()), RejectReason::SnackReject);
    assert!(t.sent().is_empty());
    // As it was, it can be had.
    t.arrives(asks(SnackType::DataR2t, 0, 2));
    assert!(matches!(&t.sent()[..], [Pdu::DataIn(_), Pdu::R2t(_)]));
}
