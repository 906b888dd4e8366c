//! Commands, responses and tasks that go on: sent again, or reassigned to another connection.

mod common;

use common::recovery::{LUN, data_in, peer, response};
use common::{Peer, command, pattern};
use datamover::{Control, Event, IoBuf, PutData, Role, TaskBuffers};
use iscsi_pdu::{
    DataIn, DataSn, Itt, NopOut, Pdu, ScsiResponse, SnackTag, SnackType, StatSn, TaskMgmtFunction,
    TaskMgmtRequest,
};

/// What a reassignment to another connection needs, sections 7.2.2 and 11.5.6.
// req: 7143-11.5.6-1, 7143-11.5.6-4
#[test]
fn a_connection_that_ends_at_level_2_tells_how_far_input_got() {
    let data = pattern(1, 100);
    let progress = |p: &mut Peer| {
        p.core.disconnected(None);
        let Some(Event::Terminated(mut end)) = p.events().pop() else { panic!("not the end") };
        assert_eq!(end.reclaimed.len(), 1);
        end.reclaimed.remove(0).1.input
    };
    let mut i = peer(Role::Initiator, |keys| keys.error_recovery_level = 2);
    i.open(command(1, 100, 0), None);
    [0, 1, 3].into_iter().for_each(|sn| i.arrives(data_in(sn, &data)));
    assert_eq!(progress(&mut i).next, DataSn(2), "what lies beyond the gap is to come again");

    let mut t = peer(Role::Target, |keys| {
        keys.error_recovery_level = 2;
        keys.max_send_data_segment_length = 512;
    });
    let put = |offset, len| PutData {
        itt: Itt(1),
        lun: LUN,
        offset,
        data: pattern(2, len).into(),
        resume: None,
        ack: false,
        notify: false,
    };
    t.core.put_data(put(0, 1024)).unwrap();
    t.core.put_data(put(1024, 100)).unwrap();
    assert_eq!(t.sent().len(), 3);
    t.core.send_control(response(7, 0).into()).unwrap();
    assert_eq!(t.sent().len(), 1);
    let input = progress(&mut t);
    assert_eq!((input.next, input.acknowledged, input.end), (DataSn(3), DataSn(0), 1124));
    assert_eq!(input.sent, [(DataSn(0), 0), (DataSn(1), 512), (DataSn(2), 1024)]);
}

/// A target that keeps no account of a reassigned task sends it all again (section 7.2.2), cut as it likes.
// req: 7143-7.2.2-2, 7143-7.2.2-4
#[test]
fn a_reassigned_read_goes_on_where_it_was_or_begins_anew() {
    let data = pattern(1, 100);
    let reassign = |exp_data_sn| {
        let pdu = TaskMgmtRequest {
            immediate: true,
            function: TaskMgmtFunction::TaskReassign,
            itt: Itt(9),
            referenced_task_tag: Itt(1),
            exp_data_sn: DataSn(exp_data_sn),
            ..TaskMgmtRequest::default()
        };
        let buffers = TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(100).into()) };
        let mut i = peer(Role::Initiator, |keys| keys.error_recovery_level = 2);
        i.core.send_control(Control { pdu: pdu.into(), buffers, unsolicited: 0 }).unwrap();
        i.one_sent();
        i
    };
    let at = |sn, at: usize, len: usize| DataIn {
        itt: Itt(1),
        data_sn: DataSn(sn),
        buffer_offset: at as u32,
        data: data.slice(at..at + len),
        ..DataIn::default()
    };
    let read = |event| match event {
        Event::Control(Control { buffers, .. }) => buffers.r#in.unwrap().freeze().to_bytes(),
        other => panic!("{other:?}"),
    };
    let mut i = reassign(5);
    i.arrives(at(5, 50, 50));
    i.arrives(response(1, 6));
    assert_eq!(read(i.one_event())[50..], data[50..]);
    // What is missing is asked for from ExpDataSN on, not from the first.
    let mut i = reassign(5);
    i.arrives(at(7, 90, 10));
    let Pdu::Snack(snack) = i.one_sent() else { panic!() };
    assert_eq!((snack.itt, snack.beg_run, snack.run_length), (Itt(1), 5, 2));
    let mut i = reassign(5);
    (0..2).for_each(|sn| i.arrives(at(sn, sn as usize * 50, 50)));
    i.arrives(response(1, 2));
    assert_eq!(read(i.one_event()), data);
    // Below ExpDataSN no Data SNACK may ask for anything, though it comes again: all comes anew. Above, one may.
    for first in [1, 2] {
        let mut i = reassign(5);
        if first == 2 {
            i.arrives(at(0, 0, 10));
        }
        i.arrives(at(first, first as usize * 10, 10));
        let Pdu::Snack(snack) = i.one_sent() else { panic!() };
        assert_eq!((snack.kind, snack.beg_run, snack.run_length), (SnackType::RData, 0, 0));
        (0..6).for_each(|sn| i.arrives(at(sn, sn as usize * 10, 10)));
        i.arrives(at(9, 90, 10));
        let Pdu::Snack(again) = i.one_sent() else { panic!() };
        assert_eq!((again.kind, again.beg_run, again.run_length), (SnackType::DataR2t, 6, 3));
        (6..9).for_each(|sn| i.arrives(at(sn, sn as usize * 10, 10)));
        i.arrives(ScsiResponse { snack_tag: SnackTag(snack.ttt_or_snack_tag.0), ..response(1, 10) });
        assert_eq!(read(i.one_event()), data);
    }
}

/// Section 7.2.1: a command that is sent again keeps its buffers.
// req: 7143-7.2.1-3
#[test]
fn a_command_that_is_sent_again_keeps_its_buffers() {
    let mut i = peer(Role::Initiator, |_| {});
    let data = pattern(3, 10);
    i.open(command(1, 10, 0), None);
    i.core.send_control(Pdu::from(command(1, 10, 0)).into()).unwrap();
    assert_eq!(i.one_sent(), command(1, 10, 0).into());
    i.arrives(data_in(0, &data));
    i.arrives(response(1, 1));
    let Event::Control(control) = i.one_event() else { panic!() };
    assert_eq!(control.buffers.r#in.unwrap().freeze().to_bytes(), data);
}

/// Section 11.16: the response that is asked for again is the same but for its current numbers.
// req: 7143-11.16-2, 7143-11.16-3
#[test]
fn a_response_that_is_sent_again_says_the_same_exp_data_sn() {
    let mut t = peer(Role::Target, |_| {});
    t.core
        .put_data(PutData {
            itt: Itt(1),
            lun: LUN,
            offset: 0,
            data: pattern(2, 30).into(),
            resume: None,
            ack: false,
            notify: false,
        })
        .unwrap();
    t.core.send_control(response(7, 0).into()).unwrap();
    assert_eq!(t.sent().pop(), Some(response(7, 1).into()));
    t.core.send_control(response(7, 0).into()).unwrap();
    assert_eq!(t.one_sent(), response(7, 1).into());
    t.arrives(NopOut { itt: Itt(5), exp_stat_sn: StatSn(8), ..NopOut::default() });
    assert_eq!(t.core.poll_event().map(|_| ()), Some(()));
}
