//! Peers that make the other end remember: what recovery keeps is bounded.

mod common;

use bytes::Bytes;
use common::recovery::*;
use common::{command, pattern};
use datamover::{Event, GetData, IoBuf, PutData, Resources, Role};
use iscsi_pdu::{
    DataIn, DataOut, DataSn, Itt, Lun, NopIn, NopOut, Pdu, R2t, RejectReason, Snack, SnackType, StatSn, Ttt,
};
use std::collections::BTreeMap;

fn empty(sn: u32) -> DataIn {
    DataIn { itt: Itt(1), data_sn: DataSn(sn), ..DataIn::default() }
}

/// A target that leaves every second PDU out, whether the SNACKs are taken or not.
#[test]
fn holes_without_end_end_the_connection() {
    for taken in [true, false] {
        let mut i = peer(Role::Initiator, |_| {});
        i.open(command(1, 20, 0), None);
        let mut snacks = 0;
        for n in 0..10_000 {
            if !i.core.is_open() {
                break;
            }
            i.arrives(empty(2 * n + 1));
            if taken {
                snacks += i.sent().len();
            }
        }
        assert!(i.broken_rule().contains("7.9"));
        assert!(snacks <= 1024);
    }
}

/// One that wants every PDU acknowledged and reads none of the answers.
#[test]
fn acknowledgments_that_nobody_takes_are_few() {
    // req: 7143-11.16.2-3
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 20, 0), None);
    for n in 0..10_000 {
        i.arrives(DataIn { acknowledge: true, ttt: Ttt(n), ..empty(n) });
    }
    let sent = i.sent();
    assert!(sent.len() < 5000, "{}", sent.len());
    // Read at last, the next answer acknowledges all.
    i.arrives(DataIn { acknowledge: true, ttt: Ttt(7), ..empty(10_000) });
    let ack = snack(i.one_sent());
    assert_eq!((ack.kind, ack.ttt_or_snack_tag, ack.beg_run), (SnackType::DataAck, Ttt(7), 10_001));
}

/// One that goes on with everything else while data is missing.
#[test]
fn what_waits_for_data_is_bounded() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 20, 0), None);
    i.arrives(data_in(1, &pattern(1, 20)));
    i.arrives(response(1, 2));
    for n in 0..100_000 {
        if !i.core.is_open() {
            break;
        }
        i.arrives(NopIn { stat_sn: StatSn(2 + n), ..NopIn::default() });
    }
    assert!(i.broken_rule().contains("too much"));
}

/// An initiator that acknowledges no status: 64 MiB and 1024 tasks are kept for SNACKs, the latest.
#[test]
fn what_nobody_acknowledges_is_forgotten() {
    for (len, tasks, kept) in [(1 << 20, 80u32, 64u32), (100, 2000, 1024)] {
        let mut t = peer(Role::Target, |k| {
            (k.max_send_data_segment_length, k.max_burst_length) = (1 << 20, 1 << 20);
        });
        let data = Bytes::from(vec![7; len]);
        for n in 0..tasks {
            let data = data.clone().into();
            let put =
                PutData { itt: Itt(n), lun: LUN, offset: 0, data, resume: None, ack: false, notify: false };
            t.core.put_data(put).unwrap();
            let status = iscsi_pdu::ScsiResponse { itt: Itt(n), ..response(n, 0) };
            t.core.send_control(status.into()).unwrap();
            assert_eq!(t.sent().len(), 2);
        }
        for n in 0..tasks {
            t.arrives(Snack { itt: Itt(n), ..asks(SnackType::DataR2t, 0, 1) });
            if n < tasks - kept {
                assert_eq!(reason(t.one_event()), RejectReason::ProtocolError, "{n}");
            } else {
                assert!(matches!(t.one_sent(), Pdu::DataIn(d) if d.itt == Itt(n)), "{n}");
            }
        }
        // Acknowledged, nothing is.
        t.arrives(NopOut { itt: Itt(tasks), exp_stat_sn: StatSn(tasks), ..NopOut::default() });
        assert!(matches!(&t.events()[..], [Event::Control(_)]));
        t.arrives(Snack { itt: Itt(tasks - 1), ..asks(SnackType::DataR2t, 0, 1) });
        assert_eq!(reason(t.one_event()), RejectReason::ProtocolError);
    }
}

/// An initiator that wants the shortest bursts of a target that would have any number of them outstanding: no task takes
/// the tags that the next needs, and each gets all of its data whether the others go on or not.
#[test]
fn short_bursts_starve_no_task() {
    const BURST: u32 = 512;
    const BURSTS: u32 = 400;
    let mut t = peer(Role::Target, |k| {
        (k.error_recovery_level, k.max_burst_length, k.max_outstanding_r2t) = (0, BURST, u16::MAX);
    });
    let room = Resources::default();
    let tasks = room.commands + room.unexpected;
    for itt in 0..tasks {
        let into = IoBuf::zeroed((BURST * BURSTS) as usize).into();
        t.core.get_data(GetData { itt: Itt(itt), lun: Lun::ZERO, offset: 0, into, resume: None }).unwrap();
    }
    let mut asked: BTreeMap<u32, Vec<R2t>> = BTreeMap::new();
    let r2ts = |pdus: Vec<Pdu>| {
        pdus.into_iter().map(|pdu| if let Pdu::R2t(r2t) = pdu { r2t } else { panic!("{pdu:?}") })
    };
    for r2t in r2ts(t.sent()) {
        asked.entry(r2t.itt.0).or_default().push(r2t);
    }
    let counts: Vec<usize> = asked.values().map(Vec::len).collect();
    assert_eq!(counts.len(), tasks as usize, "every task is asked for data");
    assert!(counts.iter().all(|n| *n == counts[0] && *n > 1), "{counts:?}");
    assert!(counts.iter().sum::<usize>() < 65_536);
    // The last one is served alone.
    let mut open = asked.remove(&(tasks - 1)).unwrap();
    let mut answered = 0;
    while let Some(R2t { lun, itt, ttt, buffer_offset, .. }) = open.pop() {
        let data = pattern(1, BURST as usize);
        t.arrives(DataOut { final_pdu: true, lun, itt, ttt, buffer_offset, data, ..DataOut::default() });
        answered += 1;
        let more = t.sent();
        assert!(more.len() <= 1, "one answer makes room for one");
        open.extend(r2ts(more));
    }
    assert_eq!(answered, BURSTS);
    match &t.events()[..] {
        [Event::DataCompletion(done)] => assert_eq!((done.itt, &done.result), (Itt(tasks - 1), &Ok(()))),
        other => panic!("{other:?}"),
    }
}
