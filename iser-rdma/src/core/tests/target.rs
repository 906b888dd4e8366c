use super::world::*;
use crate::provider::mem::{self, MemConfig};
use crate::quirks::Quirks;
use crate::rcap::{Rcap, RemoteBuf, Tagged};
use crate::wire::ControlHeader;
use bytes::Bytes;
use datamover::{ConnKeys, Control, DataError, Datamover, Event, Role, SgListMut};
use iscsi_pdu::*;

/// A target that has received a command whose buffers the peer advertised by hand.
pub(super) struct Commanded {
    pub(super) half: Half,
    pub(super) read: Option<RemoteBuf>,
    pub(super) write: Option<RemoteBuf>,
}

pub(super) fn commanded(
    keys: &ConnKeys,
    config: MemConfig,
    read: usize,
    write: &Bytes,
    immediate: usize,
) -> Commanded {
    let mut half = Half::with(Role::Target, keys, config, Quirks::default());
    let tag = |half: &mut Half, memory: Tagged| {
        (!memory.is_empty()).then(|| half.peer.rcap.advertise(memory).unwrap())
    };
    let read_buf = tag(&mut half, Tagged::Sink(room(read)));
    let write_buf = tag(&mut half, Tagged::Source(write.slice(immediate..).into()));
    let command = ScsiCommand {
        final_pdu: true,
        read: read > 0,
        write: !write.is_empty(),
        itt: Itt(1),
        expected_data_transfer_length: if write.is_empty() { read } else { write.len() } as u32,
        ahs: if read > 0 && !write.is_empty() {
            vec![Ahs::BidirectionalReadLength(read as u32)]
        } else {
            vec![]
        },
        data: write.slice(..immediate),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader { read: read_buf, write: write_buf }, command);
    let events = half.events();
    assert!(
        matches!(&events[..], [Event::Control(Control { pdu: Pdu::ScsiCommand(_), .. })]),
        "Control_Notify: {events:?}"
    );
    assert_eq!(half.dm.open_tasks(), 1);
    Commanded { half, read: read_buf, write: write_buf }
}

fn reading(len: usize) -> Commanded {
    commanded(&keys(), MemConfig::default(), len, &Bytes::new(), 0)
}

fn writing(out: &Bytes, immediate: usize) -> Commanded {
    commanded(&keys(), MemConfig::default(), 0, out, immediate)
}

/// RDMA Writes and Reads of the target, in order.
pub(super) fn transfers(half: &Half) -> Vec<mem::Event> {
    half.wire.log().into_iter().filter(|e| !matches!(e, mem::Event::Send { .. })).collect()
}

fn write_event(to: RemoteBuf, by: u64, len: usize) -> mem::Event {
    mem::Event::Write { from: SIDE_TGT, to: to.advance(by).unwrap(), len }
}

fn read_event(source: RemoteBuf, by: u64, len: usize) -> mem::Event {
    mem::Event::Read { from: SIDE_TGT, source: source.advance(by).unwrap(), len }
}

#[test]
fn every_control_type_pdu_is_one_send() {
    // req: 7145-5.2.2-2, 7145-7.3.2-4, 7145-7.3.3-1, 7145-7.3.7-2, 7145-7.3.8-2, 7145-7.3.10-1, 7145-7.3.12-2
    // req: 7145-7.3.13-2, 7145-1.5.2-2, 7145-1.5.2-5
    let responses: Vec<Pdu> = vec![
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
        TaskMgmtResponse { itt: Itt(2), ..Default::default() }.into(),
        TextResponse {
            final_pdu: true,
            itt: Itt(3),
            data: Bytes::from_static(b"A=B\0"),
            ..Default::default()
        }
        .into(),
        LogoutResponse { itt: Itt(4), ..Default::default() }.into(),
        NopIn { itt: Itt(5), data: pattern(9), ..Default::default() }.into(),
        AsyncMessage { event: AsyncEvent(1), data: Bytes::new(), ..Default::default() }.into(),
        Reject { reason: RejectReason::ProtocolError, data: pattern(48), ..Default::default() }.into(),
    ];
    let mut half = Half::new(Role::Target, &keys());
    half.now += std::time::Duration::from_secs(2);
    half.run();
    half.now += std::time::Duration::from_secs(2);
    for (n, pdu) in responses.into_iter().enumerate() {
        half.dm.send_control(pdu.clone().into()).unwrap();
        let (header, rest) = half.last_message();
        assert_eq!(half.peer.messages().len(), n + 1, "one Send for one PDU");
        // WSV=RSV=0, as no STag was advertised.
        assert_eq!(header, ControlHeader::default());
        assert_eq!(rest, pdu.to_bytes().unwrap(), "{:?}", pdu.opcode());
        assert_eq!(half.peer.invalidated(), None, "a plain Send");
    }
}

#[test]
fn every_control_type_pdu_is_notified() {
    // req: 7145-3.2.1-1, 7145-5.2.2-1, 7145-7.2-1, 7145-9.5.1-4, 7145-9.5.1-6, 7145-9.5.2-4, 7145-1.5.2-1
    // req: 7145-1.5.2-6
    let requests: Vec<Pdu> = vec![
        ScsiCommand { final_pdu: true, itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
        ScsiCommand {
            write: true,
            itt: Itt(2),
            expected_data_transfer_length: 3000,
            data: pattern(1000),
            ..Default::default()
        }
        .into(),
        DataOut { itt: Itt(2), buffer_offset: 1000, data: pattern(1000), ..Default::default() }.into(),
        DataOut {
            final_pdu: true,
            itt: Itt(2),
            buffer_offset: 2000,
            data: pattern(1000),
            ..Default::default()
        }
        .into(),
        TaskMgmtRequest { function: TaskMgmtFunction::AbortTask, itt: Itt(2), ..Default::default() }.into(),
        TextRequest { final_pdu: true, itt: Itt(3), data: pattern(20), ..Default::default() }.into(),
        NopOut { itt: Itt(5), data: pattern(7), ..Default::default() }.into(),
        Snack { itt: Itt(1), ..Default::default() }.into(),
        LogoutRequest { itt: Itt(4), ..Default::default() }.into(),
    ];
    let mut half = Half::new(Role::Target, &keys());
    requests.iter().for_each(|pdu| half.peer.send_pdu(ControlHeader::default(), pdu.clone()));
    let heard: Vec<Pdu> = half
        .events()
        .into_iter()
        .map(|e| match e {
            Event::Control(c) => c.pdu,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heard, requests);
}

#[test]
fn put_data_is_an_rdma_write_to_the_advertised_buffer() {
    // req: 7145-3.1.2-1, 7145-7.3.1-13, 7145-7.3.5-2, 7145-7.3.5-3, 7145-7.3.5-4, 7145-7.3.5-5, 7145-7.3.5-6
    let mut c = reading(16384);
    let read = c.read.unwrap();
    c.half.dm.put_data(put(1, 8192, pattern(4096))).unwrap();
    c.half.run();
    // Sink STag and Base Offset + Buffer Offset, for DataSegmentLength bytes.
    assert_eq!(transfers(&c.half), [write_event(read, 8192, 4096)]);
    let Some(Tagged::Sink(sink)) = (match c.half.peer.rcap.invalidate(read.stag) {
        crate::Invalidation::Done(memory) => Some(memory),
        _ => None,
    }) else {
        panic!("no memory")
    };
    let data = joined(&sink);
    assert_eq!(data[8192..12288], pattern(4096));
    assert!(data[..8192].iter().chain(&data[12288..]).all(|b| *b == 0));
}

#[test]
fn notify_enable_decides_whether_a_write_is_told() {
    // req: 7145-3.2.2-1, 7145-7.1-1, 7145-7.1-2, 7145-7.3.5-7, 7145-7.3.5-8, 7145-7.3.5-9
    let mut c = reading(16384);
    c.half.dm.put_data(put(1, 0, pattern(512))).unwrap();
    assert!(c.half.events().is_empty(), "not asked for");
    for offset in [512, 1024] {
        let data = datamover::PutData { notify: true, ..put(1, offset, pattern(512)) };
        c.half.dm.put_data(data).unwrap();
    }
    // Each completion names its own transfer: RFC 7145's DataSN is the offset here.
    let told: Vec<_> = c
        .half
        .events()
        .into_iter()
        .map(|e| match e {
            Event::DataCompletion(d) => (d.itt, d.offset, d.result),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [(Itt(1), 512, Ok(())), (Itt(1), 1024, Ok(()))]);
}

#[test]
fn get_data_is_an_rdma_read_of_the_advertised_buffer() {
    // req: 7145-3.1.3-1, 7145-7.3.6-2, 7145-7.3.6-3, 7145-7.3.6-6, 7145-7.3.6-8, 7145-7.3.6-9, 7145-7.3.6-10
    // req: 7145-7.3.6-11, 7145-7.3.6-12, 7145-7.3.6-13, 7145-7.3.6-15, 7145-8.3.2-4
    let out = pattern(65536);
    let mut c = writing(&out, 0);
    c.half.dm.get_data(get(1, 8192, 40000)).unwrap();
    let events = c.half.events();
    assert_eq!(transfers(&c.half), [read_event(c.write.unwrap(), 8192, 40000)]);
    let Some(Event::DataCompletion(done)) = events.into_iter().next() else { panic!("not told") };
    assert_eq!((done.itt, done.offset, done.result), (Itt(1), 8192, Ok(())));
    // The data is in the memory that went down, which is the caller's again.
    assert_eq!(joined(&done.data.unwrap()), out[8192..48192]);
}

#[test]
fn each_get_data_reports_its_own_transfer() {
    // req: 7145-7.3.6-14
    let out = pattern(3000);
    let mut c = writing(&out, 0);
    for offset in [2000, 0, 1000] {
        c.half.dm.get_data(get(1, offset, 1000)).unwrap();
    }
    let mut told = Vec::new();
    for event in c.half.events() {
        let Event::DataCompletion(d) = event else { panic!("{event:?}") };
        assert_eq!(joined(&d.data.unwrap()), out[d.offset as usize..][..1000]);
        told.push(d.offset);
    }
    // One completion a transfer and none besides: there is no Get_Data without Notify_Enable in this interface, as
    // the completion carries the memory back.
    told.sort_unstable();
    assert_eq!(told, [0, 1000, 2000]);
}

#[test]
fn an_unknown_task_is_neither_written_nor_read() {
    // req: 7145-7.3.5-2, 7145-7.3.6-3
    let mut c = reading(4096);
    c.half.dm.put_data(datamover::PutData { notify: true, ..put(2, 0, pattern(512)) }).unwrap();
    c.half.dm.get_data(get(3, 0, 512)).unwrap();
    let events = c.half.events();
    let [Event::DataCompletion(a), Event::DataCompletion(b)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((a.itt, a.result), (Itt(2), Err(DataError::Cancelled)));
    assert_eq!((b.itt, b.result), (Itt(3), Err(DataError::Cancelled)));
    assert_eq!(b.data.as_ref().map(SgListMut::len), Some(512));
    assert_eq!(transfers(&c.half), []);
}

#[test]
fn the_base_offset_is_past_the_unsolicited_data_where_the_key_says_so_or_nobody_asked() {
    let out = pattern(8192);
    for key in [Some(true), None] {
        let keys = keyed(keys(), |k| {
            k.tagged_buffer_for_solicited_data_only = key;
        });
        let mut c = commanded(&keys, MemConfig::default(), 0, &out, 4096);
        c.half.dm.get_data(get(1, 4096, 4096)).unwrap();
        c.half.run();
        assert_eq!(transfers(&c.half), [read_event(c.write.unwrap(), 0, 4096)], "key {key:?}");
    }
    // An explicit No: Base Offset plus Buffer Offset (RFC 7145 section 6.9).
    let keys = keyed(keys(), |k| {
        k.tagged_buffer_for_solicited_data_only = Some(false);
    });
    let mut half = Half::new(Role::Target, &keys);
    let whole = half.peer.rcap.advertise(Tagged::Source(out.clone().into())).unwrap();
    let command = ScsiCommand {
        final_pdu: true,
        write: true,
        itt: Itt(1),
        expected_data_transfer_length: 8192,
        data: out.slice(..4096),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader { read: None, write: Some(whole) }, command);
    half.run();
    half.dm.get_data(get(1, 4096, 4096)).unwrap();
    half.run();
    assert_eq!(transfers(&half), [read_event(whole, 4096, 4096)]);
}

#[test]
fn unsolicited_data_out_moves_the_base_offset_too() {
    // F=0 with FirstBurstLength 6000 of 8192 bytes: 6000 are unsolicited (ib_iser's and libiscsi's reckoning).
    let out = pattern(8192);
    let keys = keyed(keys(), |k| {
        k.first_burst_length = 6000;
    });
    let mut half = Half::new(Role::Target, &keys);
    let write = half.peer.rcap.advertise(Tagged::Source(out.slice(6000..).into())).unwrap();
    let command = ScsiCommand {
        final_pdu: false,
        write: true,
        itt: Itt(1),
        expected_data_transfer_length: 8192,
        data: out.slice(..4096),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader { read: None, write: Some(write) }, command);
    half.run();
    half.dm.get_data(get(1, 6000, 2192)).unwrap();
    half.run();
    assert_eq!(transfers(&half), [read_event(write, 0, 2192)]);
}

#[test]
fn the_response_names_the_stag_for_invalidation() {
    // req: 7145-7.3.2-5, 7145-7.3.2-6, 7145-7.3.2-7, 7145-7.3.2-8, 7145-7.3.2-9, 7145-1.5.2-3
    let out = pattern(4096);
    for remote_invalidation in [true, false] {
        for (read, write) in [(4096, Bytes::new()), (0, out.clone()), (4096, out.clone())] {
            let mut config = MemConfig::default();
            config.caps[SIDE_TGT].send_invalidate = remote_invalidation;
            let mut c = commanded(&keys(), config, read, &write, 0);
            c.half.dm.send_control(good(Itt(1))).unwrap();
            // The Remote Mapping is gone before the response leaves.
            assert_eq!(c.half.dm.open_tasks(), 0);
            let (header, _) = c.half.last_message();
            let first = c.read.or(c.write).unwrap();
            if remote_invalidation {
                assert_eq!(c.half.peer.invalidated(), Some(first.stag));
                assert_eq!(header, ControlHeader::default());
            } else {
                assert_eq!(c.half.peer.invalidated(), None);
                assert_eq!(header, ControlHeader { read: c.read, write: c.write });
            }
            assert_eq!(c.half.wire.violations(), []);
        }
    }
}

#[test]
fn the_response_follows_the_data() {
    // req: 7145-7.3.2-5, 7145-7.3.2-7
    let mut c = reading(4096);
    c.half.dm.put_data(put(1, 0, pattern(4096))).unwrap();
    c.half.dm.send_control(good(Itt(1))).unwrap();
    c.half.run();
    let log = c.half.wire.log();
    assert!(
        matches!(&log[..], [.., mem::Event::Write { .. }, mem::Event::Send { from: SIDE_TGT, .. }]),
        "{log:?}"
    );

    // A response that is requested while a Read is on its way waits for it: the initiator will invalidate the STag.
    let config = MemConfig { latency: std::time::Duration::from_millis(1), ..MemConfig::default() };
    let mut world = World::with(config, &keys());
    world.ini.send_control(write_command(1, &pattern(4096), 0)).unwrap();
    world.run_for(std::time::Duration::from_millis(10));
    world.tgt.get_data(get(1, 0, 4096)).unwrap();
    poll(&mut world.tgt, world.now);
    world.tgt.send_control(good(Itt(1))).unwrap();
    world.run_for(std::time::Duration::from_millis(20));
    let told = events(&mut world.tgt);
    assert!(
        matches!(&told[..], [Event::Control(_), Event::DataCompletion(d)] if d.result == Ok(())),
        "{told:?}"
    );
    assert!(matches!(&events(&mut world.ini)[..], [Event::Control(_)]));
    assert_eq!(world.wire.violations(), []);
}

#[test]
fn an_acknowledged_put_is_confirmed() {
    // req: 7145-3.1.8-1, 7145-3.2.3-1, 7145-7.3.5-10, 7145-7.3.5-11, 7145-7.3.5-12, 7145-7.3.5-13, 7145-7.3.5-14
    for level in [1, 2] {
        let keys = keyed(keys(), |k| {
            k.error_recovery_level = level;
        });
        let mut c = commanded(&keys, MemConfig::default(), 4096, &Bytes::new(), 0);
        let read = c.read.unwrap();
        c.half.dm.put_data(datamover::PutData { ack: true, ..put(1, 0, pattern(1024)) }).unwrap();
        let events = c.half.events();
        assert!(
            matches!(&events[..], [Event::DataAck { itt: Itt(1), exp_data_sn: None }]),
            "exactly one at level {level}: {events:?}"
        );
        let mut want = vec![write_event(read, 0, 1024)];
        if level == 2 {
            // A Read of no bytes follows the Write; its completion is the acknowledgment.
            want.push(read_event(read, 0, 0));
        }
        assert_eq!(transfers(&c.half), want);
    }
}

#[test]
fn new_keys_are_noticed() {
    // req: 7145-3.1.8-1
    let mut c = commanded(&keys(), MemConfig::default(), 4096, &Bytes::new(), 0);
    c.half.dm.notice_key_values(&keyed(keys(), |k| {
        k.error_recovery_level = 2;
    }));
    c.half.dm.put_data(datamover::PutData { ack: true, ..put(1, 0, pattern(64)) }).unwrap();
    c.half.run();
    assert_eq!(transfers(&c.half).len(), 2, "RDMA Write, then RDMA Read of no bytes");
}

#[test]
fn task_reassign_replaces_the_remote_mapping() {
    // req: 7145-7.3.3-9, 7145-7.3.3-10, 7145-7.3.3-11
    let mut c = reading(4096);
    let new = c.half.peer.rcap.advertise(Tagged::Sink(room(4096))).unwrap();
    let request = TaskMgmtRequest {
        function: TaskMgmtFunction::TaskReassign,
        itt: Itt(9),
        referenced_task_tag: Itt(1),
        ..Default::default()
    };
    c.half.peer.send_pdu(ControlHeader { read: Some(new), write: None }, request.clone());
    assert!(matches!(&c.half.events()[..], [Event::Control(_)]));
    c.half.dm.put_data(put(1, 100, pattern(512))).unwrap();
    c.half.run();
    assert_eq!(transfers(&c.half), [write_event(new, 100, 512)]);

    // On a connection that has never heard of the task, with Reads that wait on the old one.
    let mut config = MemConfig::default();
    config.caps[SIDE_TGT].ord = 1;
    config.latency = std::time::Duration::from_millis(1);
    let mut half = Half::with(Role::Target, &keys(), config, Quirks::default());
    let out = pattern(2000);
    let write = half.peer.rcap.advertise(Tagged::Source(out.clone().into())).unwrap();
    half.peer.send_pdu(ControlHeader { read: None, write: Some(write) }, request);
    half.run();
    half.now += std::time::Duration::from_millis(5);
    half.run();
    half.dm.get_data(get(1, 0, 1000)).unwrap();
    half.dm.get_data(get(1, 1000, 1000)).unwrap();
    half.run();
    let again = TaskMgmtRequest {
        function: TaskMgmtFunction::TaskReassign,
        itt: Itt(10),
        referenced_task_tag: Itt(1),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader::default(), again);
    half.run();
    half.now += std::time::Duration::from_millis(5);
    let results: Vec<_> = half
        .events()
        .into_iter()
        .filter_map(|e| match e {
            Event::DataCompletion(d) => Some((d.offset, d.result)),
            _ => None,
        })
        .collect();
    // The Read that had not gone out gives its memory back undone.
    assert!(results.contains(&(1000, Err(DataError::Cancelled))), "{results:?}");
}

#[test]
fn deallocate_task_resources_ends_the_mapping_and_gives_back() {
    // req: 7145-3.1.9-1, 7145-8.3.2-6, 7145-8.3.2-7
    let mut config = MemConfig::default();
    config.caps[SIDE_TGT].ord = 1;
    config.latency = std::time::Duration::from_millis(1);
    let mut world = World::with(config, &keys());
    world.ini.send_control(write_command(1, &pattern(3000), 0)).unwrap();
    world.run_for(std::time::Duration::from_millis(10));
    events(&mut world.tgt);
    for offset in [0, 1000, 2000] {
        world.tgt.get_data(get(1, offset, 1000)).unwrap();
    }
    poll(&mut world.tgt, world.now);
    world.tgt.deallocate_task_resources(Itt(2));
    let told = events(&mut world.tgt);
    assert!(matches!(&told[..], [Event::TaskReclaimed { itt: Itt(2), .. }]), "an unknown task: {told:?}");
    world.tgt.deallocate_task_resources(Itt(1));
    assert!(events(&mut world.tgt).is_empty(), "one Read is still on its way");
    world.run_for(std::time::Duration::from_millis(10));
    let told = events(&mut world.tgt);
    let [Event::TaskReclaimed { itt: Itt(1), reclaimed }] = &told[..] else { panic!("{told:?}") };
    let mut offsets: Vec<_> = reclaimed.gets.iter().map(|(o, l)| (*o, l.len())).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [(0, 1000), (1000, 1000), (2000, 1000)]);
    assert_eq!(world.tgt.open_tasks(), 0);
    let reads = world.wire.log().iter().filter(|e| matches!(e, mem::Event::Read { .. })).count();
    assert_eq!(reads, 1, "those that waited never went out");
}

#[test]
fn writes_that_wait_are_dropped_with_their_task() {
    let mut c = reading(4096);
    c.half.dm.put_data(datamover::PutData { notify: true, ..put(1, 0, pattern(4096)) }).unwrap();
    c.half.dm.deallocate_task_resources(Itt(1));
    assert!(matches!(&c.half.events()[..], [Event::TaskReclaimed { .. }]), "and no completion");
    assert_eq!(transfers(&c.half), []);
    assert_eq!(c.half.dm.ops.len(), 0, "nothing is remembered of a Write that never went out");
}

#[test]
fn lists_are_cut_to_what_the_provider_takes() {
    let mut config = MemConfig::default();
    config.caps[SIDE_TGT].max_sge = 2;
    config.caps[SIDE_TGT].max_read_sge = 1;
    config.caps[SIDE_TGT].max_transfer = 1500;
    let out = pattern(4000);
    let mut c = commanded(&keys(), config, 6000, &out, 0);
    let parts = [1000, 1000, 1000, 2000, 1000];
    let mut at = 0;
    let data = parts.iter().map(|n| {
        at += n;
        pattern(6000).slice(at - n..at)
    });
    let put_data = datamover::PutData { data: data.collect(), notify: true, ..put(1, 0, Bytes::new()) };
    c.half.dm.put_data(put_data).unwrap();
    let into = [1000, 1500, 1500].into_iter().map(datamover::IoBuf::zeroed).collect();
    c.half.dm.get_data(datamover::GetData { into, ..get(1, 0, 0) }).unwrap();
    let mut told = c.half.events();
    assert_eq!(told.len(), 2, "one completion for each call");
    let Some(Event::DataCompletion(got)) = told.pop() else { panic!("no Get_Data") };
    let got = got.data.unwrap();
    assert_eq!(got.parts().map(|p| p.len()).collect::<Vec<_>>(), [1000, 1500, 1500]);
    assert_eq!(joined(&got), out);
    let crate::Invalidation::Done(Tagged::Sink(sink)) = c.half.peer.rcap.invalidate(c.read.unwrap().stag)
    else {
        panic!("no memory")
    };
    assert_eq!(joined(&sink), pattern(6000));
    assert_eq!(c.half.wire.violations(), []);
}

#[test]
fn pool_memory_is_not_copied_and_foreign_memory_is_counted() {
    let config = MemConfig { registered_only: true, ..MemConfig::default() };
    let mut c = commanded(&keys(), config, 8192, &pattern(4096), 0);
    let mut data = c.half.dm.pool().alloc(4096).unwrap();
    data.copy_from(0, &pattern(4096));
    c.half.dm.put_data(datamover::PutData { data: data.freeze(), ..put(1, 0, Bytes::new()) }).unwrap();
    let into = c.half.dm.pool().alloc(4096).unwrap();
    c.half.dm.get_data(datamover::GetData { into, ..get(1, 0, 0) }).unwrap();
    c.half.run();
    assert_eq!(c.half.dm.stats().bounced_bytes, 0);
    c.half.dm.put_data(put(1, 4096, pattern(1000))).unwrap();
    c.half.dm.get_data(get(1, 0, 500)).unwrap();
    let Some(Event::DataCompletion(d)) = c.half.events().pop() else { panic!("no data") };
    assert_eq!(joined(&d.data.unwrap()), pattern(500));
    assert_eq!(c.half.dm.stats().bounced_bytes, 1500);
    assert_eq!(c.half.dm.pool().outstanding(), 0);
}
