//! What the core makes of good PDUs.

mod common;

use bytes::Bytes;
use common::{Peer, command, pattern};
use datamover::{
    BufPool, ConnKeys, Control, DataCompletion, DataError, Event, GetData, IoBuf, Role, SgListMut, Window,
};
use iscsi_pdu::{
    DataIn, DataOut, DataSn, Itt, Lun, NopIn, NopOut, Pdu, R2t, R2tSn, Residual, ScsiCommand, ScsiResponse,
    ScsiStatus, StatSn, Ttt,
};
use std::time::{Duration, Instant};

fn peer(role: Role, change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    keys.max_recv_data_segment_length = 262_144;
    change(&mut keys);
    Peer::new(role, &keys)
}

fn data_in(itt: u32, data_sn: u32, offset: usize, data: Bytes) -> DataIn {
    let (itt, data_sn) = (Itt(itt), DataSn(data_sn));
    DataIn { itt, data_sn, buffer_offset: offset as u32, data, ..DataIn::default() }
}

fn response(event: Event) -> (ScsiResponse, Option<Bytes>) {
    match event {
        Event::Control(Control { pdu: Pdu::ScsiResponse(r), buffers, .. }) => {
            (r, buffers.r#in.map(|l| l.freeze().to_bytes()))
        }
        other => panic!("not a response: {other:?}"),
    }
}

/// An R2T asked for by `get_data`, as it goes out.
fn ask(t: &mut Peer, itt: u32, offset: u32, into: SgListMut) -> R2t {
    let get = GetData { itt: Itt(itt), lun: Lun::ZERO, offset, into, resume: None };
    t.core.get_data(get).unwrap();
    match t.one_sent() {
        Pdu::R2t(r) => r,
        other => panic!("not an R2T: {other:?}"),
    }
}

// req: 7143-11.7-2, 7143-11.7.3-1
#[test]
fn status_in_a_data_in_is_a_response() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 1000, 0), None);
    let data = pattern(1, 600);
    i.arrives(data_in(1, 0, 0, data.slice(..400)));
    assert!(i.events().is_empty(), "Data-In stays below");
    i.arrives(DataIn {
        final_pdu: true,
        status: Some(ScsiStatus::ConditionMet),
        residual: Residual::Underflow(400),
        stat_sn: StatSn(5),
        exp_cmd_sn: 6.into(),
        max_cmd_sn: 7.into(),
        ..data_in(1, 1, 400, data.slice(400..))
    });
    let (r, input) = response(i.one_event());
    let want = ScsiResponse {
        status: ScsiStatus::ConditionMet,
        itt: Itt(1),
        residual: Residual::Underflow(400),
        stat_sn: StatSn(5),
        exp_cmd_sn: 6.into(),
        max_cmd_sn: 7.into(),
        exp_data_sn: DataSn(2),
        ..ScsiResponse::default()
    };
    assert_eq!(r, want);
    assert_eq!(input.unwrap()[..600], data);
}

// req: 7143-11.7.7-1
#[test]
fn empty_data_pdus_are_taken() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 10, 0), None);
    i.arrives(data_in(1, 0, 0, Bytes::new()));
    i.arrives(data_in(1, 1, 0, pattern(1, 10)));
    i.arrives(DataIn { final_pdu: true, status: Some(ScsiStatus::Good), ..data_in(1, 2, 10, Bytes::new()) });
    let (r, input) = response(i.one_event());
    assert_eq!((r.residual, input), (Residual::None, Some(pattern(1, 10))));

    let mut t = peer(Role::Target, |_| {});
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(10).into());
    let out = |sn, data: Bytes, at, final_pdu| DataOut {
        final_pdu,
        itt: Itt(1),
        ttt: r.ttt,
        data_sn: DataSn(sn),
        buffer_offset: at,
        data,
        ..DataOut::default()
    };
    t.arrives(out(0, Bytes::new(), 0, false));
    t.arrives(out(1, pattern(1, 10), 0, false));
    assert!(t.events().is_empty(), "the F bit is awaited");
    t.arrives(out(2, Bytes::new(), 10, true));
    let Event::DataCompletion(DataCompletion { data, result: Ok(()), .. }) = t.one_event() else { panic!() };
    assert_eq!(data.unwrap().freeze().to_bytes(), pattern(1, 10));
}

// req: 7143-11.7.6-2
#[test]
fn any_order_where_the_keys_allow_it() {
    let any = |k: &mut ConnKeys| (k.data_pdu_in_order, k.data_sequence_in_order) = (false, false);
    let mut i = peer(Role::Initiator, any);
    i.open(command(1, 30, 0), None);
    let data = pattern(1, 30);
    for (sn, at) in [20usize, 0, 10].into_iter().enumerate() {
        i.arrives(data_in(1, sn as u32, at, data.slice(at..at + 10)));
    }
    i.arrives(ScsiResponse { itt: Itt(1), exp_data_sn: DataSn(3), ..ScsiResponse::default() });
    assert_eq!(response(i.one_event()).1, Some(data.clone()));

    let mut t = peer(Role::Target, any);
    let r = ask(&mut t, 1, 100, IoBuf::zeroed(30).into());
    for (sn, at) in [20usize, 0, 10].into_iter().enumerate() {
        t.arrives(DataOut {
            final_pdu: sn == 2,
            itt: Itt(1),
            ttt: r.ttt,
            data_sn: DataSn(sn as u32),
            buffer_offset: 100 + at as u32,
            data: data.slice(at..at + 10),
            ..DataOut::default()
        });
    }
    let Event::DataCompletion(DataCompletion { data: got, result: Ok(()), .. }) = t.one_event() else {
        panic!()
    };
    assert_eq!(got.unwrap().freeze().to_bytes(), data);
}

/// A target that says GOOD, but sent less than the initiator expected and does not say so.
#[test]
fn missing_input_is_never_passed_off_as_data() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 1000, 0), None);
    i.arrives(data_in(1, 0, 0, pattern(1, 600)));
    i.arrives(ScsiResponse { itt: Itt(1), ..ScsiResponse::default() });
    assert_eq!(response(i.one_event()).0.residual, Residual::Underflow(400));
    // The count of a bidirectional command is the other field.
    i.open(
        ScsiCommand {
            ahs: vec![iscsi_pdu::Ahs::BidirectionalReadLength(50)],
            expected_data_transfer_length: 50,
            ..command(2, 50, 50)
        },
        Some(pattern(1, 50)),
    );
    i.arrives(data_in(2, 0, 0, pattern(1, 20)));
    i.arrives(ScsiResponse { itt: Itt(2), ..ScsiResponse::default() });
    let (r, _) = response(i.one_event());
    assert_eq!((r.residual, r.bidirectional_read_residual), (Residual::None, Residual::Underflow(30)));
    // After an error it is the target's word that counts.
    i.open(command(3, 10, 0), None);
    let sense = pattern(1, 20);
    i.arrives(ScsiResponse {
        itt: Itt(3),
        status: ScsiStatus::CheckCondition,
        data: sense.clone(),
        ..ScsiResponse::default()
    });
    let (r, _) = response(i.one_event());
    assert_eq!((r.residual, r.data), (Residual::None, sense));
}

// req: 7143-4.2.2.4-1
#[test]
fn both_ways_of_counting_bidirectional_commands() {
    for shared in [true, false] {
        let mut i = peer(Role::Initiator, |k| k.max_outstanding_r2t = 4);
        let ahs = vec![iscsi_pdu::Ahs::BidirectionalReadLength(20)];
        i.open(
            ScsiCommand { ahs, expected_data_transfer_length: 20, ..command(1, 20, 20) },
            Some(pattern(2, 20)),
        );
        let r2t = |sn, at| R2t {
            itt: Itt(1),
            ttt: Ttt(at),
            r2t_sn: R2tSn(sn),
            buffer_offset: at,
            desired_data_transfer_length: 10,
            ..R2t::default()
        };
        i.arrives(r2t(0, 0));
        i.arrives(data_in(1, if shared { 1 } else { 0 }, 0, pattern(1, 10)));
        i.arrives(r2t(if shared { 2 } else { 1 }, 10));
        i.arrives(data_in(1, if shared { 3 } else { 1 }, 10, pattern(1, 10)));
        assert_eq!(i.sent().len(), 2);
        i.arrives(ScsiResponse { itt: Itt(1), exp_data_sn: DataSn(2), ..ScsiResponse::default() });
        assert_eq!(response(i.one_event()).0.bidirectional_read_residual, Residual::None);
    }
}

#[test]
fn windows_come_up_when_they_change() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 30, 0), None);
    let stamped = |sn: u32, at, max: u32| DataIn {
        exp_cmd_sn: 5.into(),
        max_cmd_sn: max.into(),
        ..data_in(1, sn, at, pattern(1, 10))
    };
    let windows = |i: &mut Peer| {
        std::iter::from_fn(|| i.core.poll_event())
            .map(|e| if let Event::Window(w) = e { w } else { panic!("{e:?}") })
            .collect::<Vec<_>>()
    };
    i.arrives(stamped(0, 0, 9));
    i.arrives(stamped(1, 10, 9));
    assert_eq!(windows(&mut i), [Window { stat_sn: StatSn(0), exp_cmd_sn: 5.into(), max_cmd_sn: 9.into() }]);
    i.arrives(stamped(2, 20, 9));
    assert_eq!(windows(&mut i), []);

    let mut t = peer(Role::Target, |_| {});
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(10).into());
    t.arrives(DataOut {
        itt: Itt(1),
        ttt: r.ttt,
        exp_stat_sn: StatSn(33),
        data: pattern(1, 5),
        ..DataOut::default()
    });
    assert_eq!(windows(&mut t), [Window { stat_sn: StatSn(33), ..Window::default() }]);
}

/// The numbers of UnsolicitedDataSize, as far as the header tells.
// req: 7143-4.2.5.2-5
#[test]
fn commands_say_how_much_comes_unasked() {
    let mut t = peer(Role::Target, |k| k.first_burst_length = 1000);
    let unsolicited = |t: &mut Peer, c: ScsiCommand| {
        t.arrives(c);
        match t.one_event() {
            Event::Control(c) => c.unsolicited,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(unsolicited(&mut t, ScsiCommand { data: pattern(1, 100), ..command(1, 0, 500) }), 100);
    assert_eq!(unsolicited(&mut t, ScsiCommand { final_pdu: false, ..command(2, 0, 500) }), 500);
    let c = ScsiCommand { final_pdu: false, data: pattern(1, 100), ..command(3, 0, 5000) };
    assert_eq!(unsolicited(&mut t, c), 1000);
    assert_eq!(unsolicited(&mut t, command(4, 500, 0)), 0);
}

/// Immediate data is one piece of memory, in the spill, out of the pool, or beyond it.
#[test]
fn immediate_data_of_all_lengths() {
    for len in [1usize, 255, 256, 4096, 8192, 8193, 65_536, 100_000, 262_144] {
        for step in [usize::MAX, 1000] {
            let mut t = peer(Role::Target, |k| k.data_digest = true);
            let data = pattern(len as u32, len);
            let c = ScsiCommand { data: data.clone(), ..command(1, 0, len) };
            let digests = iscsi_pdu::Digests { header: false, data: true };
            let bytes = common::wire(&c.clone().into(), digests);
            for piece in bytes.chunks(step.min(bytes.len())) {
                t.bytes(piece);
            }
            t.arrives(NopOut { itt: Itt(2), ..NopOut::default() });
            let events = t.events();
            let [Event::Control(a), Event::Control(b)] = &events[..] else { panic!("{events:?}") };
            assert_eq!((&a.pdu, b.pdu.itt()), (&Pdu::ScsiCommand(c), Itt(2)));
            assert_eq!(t.core.stats().data_in, len as u64);
        }
    }
}

/// The point of steering: what is large is read to where it belongs.
#[test]
fn large_data_is_not_copied() {
    let segment = 65_536;
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 16 * segment, 0), None);
    for n in 0..16 {
        i.arrives(data_in(1, n, n as usize * segment, pattern(n, segment)));
    }
    let stats = i.core.stats();
    assert_eq!(stats.data_in, 16 * segment as u64);
    // The head of the first one fills the spill, of the others what is read ahead.
    assert!(stats.copied_bytes <= 16 * 1024 + 15 * 512, "{stats:?}");

    let mut t = peer(Role::Target, |k| k.max_burst_length = 1 << 20);
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(16 * segment).into());
    for n in 0..16 {
        t.arrives(DataOut {
            final_pdu: n == 15,
            itt: Itt(1),
            ttt: r.ttt,
            data_sn: DataSn(n),
            buffer_offset: n * segment as u32,
            data: pattern(n, segment),
            ..DataOut::default()
        });
    }
    assert!(matches!(t.one_event(), Event::DataCompletion(d) if d.result.is_ok()));
    assert!(t.core.stats().copied_bytes <= 16 * 1024 + 15 * 512, "{:?}", t.core.stats());
}

/// One read takes many PDUs.
#[test]
fn small_pdus_arrive_together() {
    let mut t = peer(Role::Target, |_| {});
    let mut bytes = Vec::new();
    for n in 0..300u32 {
        let nop = NopOut { itt: Itt(n), cmd_sn: n.into(), ..NopOut::default() };
        bytes.extend(common::wire(&nop.into(), iscsi_pdu::Digests::NONE));
    }
    let room: usize = t.core.recv_slots().as_mut_slice().iter().map(|s| s.len()).sum();
    assert!(room >= bytes.len(), "{room}");
    t.bytes(&bytes);
    let tags: Vec<_> = t
        .events()
        .into_iter()
        .map(|e| if let Event::Control(c) = e { c.pdu.itt().0 } else { panic!() })
        .collect();
    assert_eq!(tags, (0..300).collect::<Vec<_>>());
}

/// A buffer that is taken away while its data arrives: the rest is dropped, the stream stays in step.
#[test]
fn buffers_can_be_taken_away_under_arriving_data() {
    let digests = iscsi_pdu::Digests::BOTH;
    let both = |k: &mut ConnKeys| (k.header_digest, k.data_digest) = (true, true);
    let mut i = peer(Role::Initiator, both);
    i.open(command(1, 50_000, 0), None);
    let bytes = common::wire(&data_in(1, 0, 0, pattern(1, 50_000)).into(), digests);
    i.bytes(&bytes[..20_000]);
    i.core.deallocate_task_resources(Itt(1));
    let Event::TaskReclaimed { reclaimed, .. } = i.one_event() else { panic!() };
    assert_eq!(reclaimed.buffers.r#in.map(|b| b.len()), Some(50_000));
    i.bytes(&bytes[20_000..]);
    i.arrives(data_in(1, 1, 0, pattern(1, 10)));
    // A status in it is a response all the same: it is numbered.
    let last =
        DataIn { status: Some(ScsiStatus::Good), stat_sn: StatSn(8), ..data_in(1, 2, 10, pattern(1, 10)) };
    i.arrives(DataIn { final_pdu: true, ..last });
    assert!(matches!(i.one_event(), Event::Control(c) if c.pdu.stat_sn() == Some(StatSn(8))));
    i.arrives(NopIn { stat_sn: StatSn(9), ..NopIn::default() });
    assert!(matches!(i.one_event(), Event::Control(c) if c.pdu.stat_sn() == Some(StatSn(9))));

    let mut t = peer(Role::Target, both);
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(50_000).into());
    let out =
        DataOut { final_pdu: true, itt: Itt(1), ttt: r.ttt, data: pattern(1, 50_000), ..DataOut::default() };
    let bytes = common::wire(&out.into(), digests);
    t.bytes(&bytes[..20_000]);
    t.core.deallocate_task_resources(Itt(1));
    let Event::TaskReclaimed { reclaimed, .. } = t.one_event() else { panic!() };
    assert_eq!(reclaimed.gets.iter().map(|(o, b)| (*o, b.len())).collect::<Vec<_>>(), [(0, 50_000)]);
    t.bytes(&bytes[20_000..]);
    t.arrives(NopOut { itt: Itt(5), ..NopOut::default() });
    assert!(matches!(t.one_event(), Event::Control(c) if c.pdu.itt() == Itt(5)));
}

/// No answer within the data timeout: the buffer comes back, late data is dropped, the next Get works.
#[test]
fn gets_time_out() {
    let mut t = peer(Role::Target, |k| k.data_timeout = Duration::from_secs(5));
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let start = Instant::now();
    t.core.set_now(start);
    assert_eq!(t.core.poll_timeout(), None);
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(100).into());
    assert_eq!(t.core.poll_timeout(), Some(start + Duration::from_secs(5)));
    // Progress puts it off.
    t.core.set_now(start + Duration::from_secs(4));
    let out = |sn, at: usize, len| DataOut {
        final_pdu: at + len == 100,
        itt: Itt(1),
        ttt: r.ttt,
        data_sn: DataSn(sn),
        buffer_offset: at as u32,
        data: pattern(1, len),
        ..DataOut::default()
    };
    t.arrives(out(0, 0, 50));
    t.core.handle_timeout(start + Duration::from_secs(5));
    assert!(t.events().is_empty());
    assert_eq!(t.core.poll_timeout(), Some(start + Duration::from_secs(9)));
    t.core.handle_timeout(start + Duration::from_secs(9));
    let Event::DataCompletion(done) = t.one_event() else { panic!() };
    assert_eq!((done.result, done.data.map(|d| d.len())), (Err(DataError::TimedOut), Some(100)));
    assert_eq!(t.core.poll_timeout(), None);
    t.arrives(out(1, 50, 50));
    assert!(t.events().is_empty());
    let r = ask(&mut t, 1, 0, IoBuf::zeroed(100).into());
    assert_eq!(r.r2t_sn, R2tSn(1));
}

/// The initiator still has the R2T that it has not answered in time: another would be one too many (MaxOutstandingR2T 1).
// req: 7143-13.17-1
#[test]
fn no_r2t_takes_the_place_of_one_that_is_not_answered() {
    let mut t = peer(Role::Target, |k| k.data_timeout = Duration::from_secs(5));
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let start = Instant::now();
    t.core.set_now(start);
    ask(&mut t, 1, 0, IoBuf::zeroed(100).into());
    let into = IoBuf::zeroed(100).into();
    t.core.get_data(GetData { itt: Itt(1), lun: Lun::ZERO, offset: 100, into, resume: None }).unwrap();
    t.core.handle_timeout(start + Duration::from_secs(5));
    let ends = t.events();
    let is_late = |e: &Event| matches!(e, Event::DataCompletion(d) if d.result == Err(DataError::TimedOut));
    assert!(ends.len() == 2 && ends.iter().all(is_late), "{ends:?}");
    assert!(t.sent().is_empty(), "no R2T for the second");
}

#[test]
fn gathered_data_lies_in_the_pool() {
    let mut t = peer(Role::Target, |_| {});
    t.arrives(ScsiCommand { data: pattern(1, 100_000), ..command(1, 0, 100_000) });
    let events = t.events();
    assert_eq!((events.len(), t.pool.outstanding()), (1, 1));
    drop(events);
    assert_eq!(t.pool.outstanding(), 0);
}
