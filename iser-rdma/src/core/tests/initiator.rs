use super::world::*;
use crate::provider::mem::{self, MemConfig};
use crate::rcap::{Op, Rcap, RemoteBuf, WrId};
use crate::wire::ControlHeader;
use crate::{Stag, quirks::Quirks};
use bytes::Bytes;
use datamover::{Cause, Control, Datamover, Event, Role, SgList, TaskBuffers};
use iscsi_pdu::*;

#[test]
fn every_control_type_pdu_is_one_send() {
    // req: 7145-3.1.1-1, 7145-5.2.1-1, 7145-7.3.1-1, 7145-7.3.3-1, 7145-7.3.4-4, 7145-7.3.8-2, 7145-7.3.10-1
    // req: 7145-7.3.13-2, 7145-9.1-1
    let requests: Vec<Pdu> = vec![
        ScsiCommand { final_pdu: true, itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
        TaskMgmtRequest { function: TaskMgmtFunction::AbortTask, itt: Itt(2), ..Default::default() }.into(),
        TextRequest {
            final_pdu: true,
            itt: Itt(3),
            data: Bytes::from_static(b"SendTargets=All\0"),
            ..Default::default()
        }
        .into(),
        LogoutRequest { itt: Itt(4), ..Default::default() }.into(),
        NopOut { itt: Itt(5), data: pattern(7), ..Default::default() }.into(),
        DataOut { final_pdu: true, itt: Itt(1), data: pattern(4096), ..Default::default() }.into(),
    ];
    let mut half = Half::new(Role::Initiator, &keys());
    for (n, pdu) in requests.into_iter().enumerate() {
        half.dm.send_control(pdu.clone().into()).unwrap();
        let (header, rest) = half.last_message();
        assert_eq!(half.peer.messages().len(), n + 1, "one Send for one PDU");
        assert_eq!(header, ControlHeader::default());
        assert_eq!(rest, pdu.to_bytes().unwrap(), "{:?}", pdu.opcode());
    }
}

#[test]
fn every_control_type_pdu_is_notified() {
    // req: 7145-3.2.1-1, 7145-5.2.1-2, 7145-7.2-1, 7145-9.5.1-9, 7145-9.5.2-7
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(write_command(1, &pattern(4096), 0)).unwrap();
    half.run();
    let responses: Vec<Pdu> = vec![
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
        TaskMgmtResponse { itt: Itt(2), ..Default::default() }.into(),
        TextResponse { final_pdu: true, itt: Itt(3), data: pattern(300), ..Default::default() }.into(),
        NopIn { itt: Itt(5), data: pattern(9), ..Default::default() }.into(),
        AsyncMessage { event: AsyncEvent(1), data: Bytes::new(), ..Default::default() }.into(),
        Reject { reason: RejectReason::ProtocolError, data: pattern(48), ..Default::default() }.into(),
        LogoutResponse { itt: Itt(4), ..Default::default() }.into(),
    ];
    responses.iter().for_each(|pdu| half.peer.send_pdu(ControlHeader::default(), pdu.clone()));
    let heard: Vec<Pdu> = half
        .events()
        .into_iter()
        .map(|e| match e {
            Event::Control(c) => c.pdu,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heard, responses);
}

#[test]
fn a_read_advertises_a_read_stag() {
    // req: 7145-7.3.1-9, 7145-7.3.1-10, 7145-7.3.1-11, 7145-9.5.2-2, 7145-9.5.2-3
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(read_command(1, 8192)).unwrap();
    let (header, rest) = half.last_message();
    let read = header.read.expect("RSV");
    assert_eq!(header.write, None);
    assert_eq!(rest.len(), BHS_LEN, "iSER header and SCSI Command, nothing else");
    assert_eq!(half.dm.open_tasks(), 1);
    assert_eq!(half.wire.live_stags(SIDE_INI), 1);
    // The last 4096 bytes by hand: Base Offset plus Buffer Offset.
    let to = read.advance(4096).unwrap();
    half.peer.rcap.post(Op::Write { id: None, data: pattern(4096).into(), to }).unwrap();
    half.peer.send_pdu(
        ControlHeader::default(),
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() },
    );
    let Some(Event::Control(Control { buffers, .. })) = half.events().pop() else { panic!("no response") };
    let data = joined(&buffers.r#in.unwrap());
    assert_eq!(data[..4096], [0; 4096]);
    assert_eq!(data[4096..], pattern(4096));
    assert_eq!(half.dm.open_tasks(), 0);
    assert_eq!(half.wire.violations(), []);
}

#[test]
fn a_write_advertises_its_solicited_data_only() {
    // req: 7145-7.3.1-5, 7145-7.3.1-6, 7145-7.3.1-7, 7145-9.5.1-2, 7145-9.5.1-3
    let out = pattern(8192);
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(write_command(1, &out, 4096)).unwrap();
    let (header, rest) = half.last_message();
    assert_eq!(rest.len(), BHS_LEN + 4096, "SCSI Command and immediate data");
    assert_eq!(rest[BHS_LEN..], out[..4096]);
    assert_eq!(header.read, None);
    let from = header.write.expect("WSV");
    assert_eq!(half.dm.open_tasks(), 1);
    // TaggedBufferForSolicitedDataOnly=Yes: the Base Offset is past the unsolicited data.
    half.peer.rcap.post(Op::Read { id: WrId(7), from, into: room(4096) }).unwrap();
    half.run();
    let sink = half.peer.got.iter().find_map(|c| match c {
        crate::Completion::Done { id: WrId(7), sink: Some(sink), result: Ok(()) } => Some(joined(sink)),
        _ => None,
    });
    assert_eq!(sink.unwrap(), out[4096..]);
    assert_eq!(half.wire.violations(), []);
}

#[test]
fn with_the_key_no_the_base_offset_is_that_of_the_whole_buffer() {
    let out = pattern(8192);
    let keys = keyed(keys(), |k| {
        k.tagged_buffer_for_solicited_data_only = Some(false);
    });
    let mut half = Half::new(Role::Initiator, &keys);
    half.dm.send_control(write_command(1, &out, 4096)).unwrap();
    let (header, _) = half.last_message();
    half.peer.rcap.post(Op::Read { id: WrId(7), from: header.write.unwrap(), into: room(8192) }).unwrap();
    half.run();
    let whole = half
        .peer
        .got
        .iter()
        .any(|c| matches!(c, crate::Completion::Done { sink: Some(sink), .. } if joined(sink) == out));
    assert!(whole);
}

#[test]
fn a_write_that_is_all_unsolicited_advertises_nothing() {
    // req: 7145-7.3.1-5
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(write_command(1, &pattern(512), 512)).unwrap();
    assert_eq!(half.last_message().0, ControlHeader::default());
    assert_eq!(half.wire.live_stags(SIDE_INI), 0);
}

/// A bidirectional command: 4096 bytes out, 2048 in, with an extended CDB.
fn bidirectional(itt: u32) -> Control {
    let pdu = ScsiCommand {
        final_pdu: true,
        read: true,
        write: true,
        itt: Itt(itt),
        expected_data_transfer_length: 4096,
        ahs: vec![Ahs::ExtendedCdb(Bytes::from_static(&[9; 16])), Ahs::BidirectionalReadLength(2048)],
        data: Bytes::new(),
        ..Default::default()
    };
    let buffers = TaskBuffers { out: Some(pattern(4096).into()), r#in: Some(room(2048).into()) };
    Control { pdu: pdu.into(), buffers, unsolicited: 0 }
}

#[test]
fn a_bidirectional_command_advertises_and_invalidates_both() {
    // req: 7145-7.3.2-11, 7145-7.3.2-12, 7145-7.3.2-13, 7145-1.5.1-2
    let mut half = Half::new(Role::Initiator, &keys());
    let command = bidirectional(1);
    let pdu = command.pdu.clone();
    half.dm.send_control(command).unwrap();
    let (header, rest) = half.last_message();
    assert_eq!(rest, pdu.to_bytes().unwrap(), "AHSs included");
    let (read, write) = (header.read.unwrap(), header.write.unwrap());
    assert_ne!(read.stag, write.stag);
    // Send with Invalidate names the Read STag; the Write STag is the initiator's to invalidate.
    let response = ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() };
    half.peer.send(&wire_bytes(ControlHeader::default(), &response.into()), Some(read.stag));
    let Some(Event::Control(Control { buffers, .. })) = half.events().pop() else { panic!("no response") };
    assert_eq!(half.wire.live_stags(SIDE_INI), 0);
    assert_eq!(half.wire.local_invalidations(SIDE_INI), 1, "the Write STag");
    assert_eq!(buffers.out.unwrap().to_bytes(), pattern(4096));
    assert_eq!(buffers.r#in.unwrap().len(), 2048);
}

fn response_invalidates(slow: bool, header: fn(RemoteBuf) -> ControlHeader, by_send: bool) -> u64 {
    let config = MemConfig { slow_invalidation: slow, ..MemConfig::default() };
    let mut half = Half::with(Role::Initiator, &keys(), config, Quirks::default());
    half.dm.send_control(read_command(1, 512)).unwrap();
    let read = half.last_message().0.read.unwrap();
    let response = ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() };
    half.peer.send(&wire_bytes(header(read), &response.into()), by_send.then_some(read.stag));
    half.peer.poll(half.now);
    for _ in 0..10 {
        poll(&mut half.dm, half.now);
        if let Some(Event::Control(c)) = half.dm.poll_event() {
            // At the notification every STag of the task is invalid, and the memory is here.
            assert_eq!(half.wire.live_stags(SIDE_INI), 0);
            assert_eq!(c.buffers.r#in.map(|l| l.len()), Some(512));
            assert_eq!(half.dm.open_tasks(), 0);
            assert_eq!(half.wire.violations(), []);
            return half.wire.local_invalidations(SIDE_INI);
        }
    }
    panic!("no response");
}

#[test]
fn stags_are_invalid_before_the_response_is_told() {
    // req: 7145-1.5.1-1, 7145-1.5.1-3, 7145-1.5.1-4, 7145-7.3.2-10, 7145-7.3.2-13, 7145-7.3.2-14, 7145-9.5.2-7
    // req: 7145-11-4, 7145-11-5
    let plain = |_| ControlHeader::default();
    let named = |read| ControlHeader { read: Some(read), write: None };
    for slow in [false, true] {
        // A plain Send that names nothing, one that names the STag in its header, and Send with Invalidate.
        assert_eq!(response_invalidates(slow, plain, false), 1, "slow {slow}");
        assert_eq!(response_invalidates(slow, named, false), 1, "slow {slow}");
        assert_eq!(response_invalidates(slow, plain, true), 0, "nothing is left to invalidate");
    }
}

#[test]
fn an_event_does_not_overtake_a_response_that_waits() {
    let config = MemConfig { slow_invalidation: true, ..MemConfig::default() };
    let mut half = Half::with(Role::Initiator, &keys(), config, Quirks::default());
    half.dm.send_control(read_command(1, 512)).unwrap();
    half.run();
    half.peer.send_pdu(
        ControlHeader::default(),
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() },
    );
    half.peer
        .send_pdu(ControlHeader::default(), NopIn { itt: Itt(2), data: Bytes::new(), ..Default::default() });
    let order: Vec<_> = half
        .events()
        .iter()
        .map(|e| match e {
            Event::Control(c) => c.pdu.opcode(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [Opcode::ScsiResponse, Opcode::NopIn]);
}

#[test]
fn task_reassign_replaces_the_stags() {
    // req: 7145-7.3.3-2, 7145-7.3.3-3, 7145-7.3.3-4, 7145-7.3.3-5, 7145-7.3.3-6, 7145-7.3.3-7, 7145-8.3.1-1
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(bidirectional(5)).unwrap();
    let old = half.last_message().0;
    let request = TaskMgmtRequest {
        function: TaskMgmtFunction::TaskReassign,
        itt: Itt(9),
        referenced_task_tag: Itt(5),
        ..Default::default()
    };
    let buffers = TaskBuffers { out: Some(pattern(4096).into()), r#in: Some(room(2048).into()) };
    half.dm.send_control(Control { pdu: request.into(), buffers, unsolicited: 0 }).unwrap();
    let new = half.last_message().0;
    for (old, new) in [(old.read, new.read), (old.write, new.write)] {
        assert_ne!(old.unwrap().stag, new.unwrap().stag);
    }
    assert_eq!(half.wire.live_stags(SIDE_INI), 2, "the old ones are invalid");
    let events = half.events();
    assert!(matches!(&events[..], [Event::TaskReclaimed { itt: Itt(5), .. }]), "{events:?}");
    // The response to the task, not to the function, ends the new mapping; all of the output was advertised.
    half.peer.rcap.post(Op::Read { id: WrId(1), from: new.write.unwrap(), into: room(4096) }).unwrap();
    half.peer.send_pdu(
        ControlHeader::default(),
        ScsiResponse { itt: Itt(5), data: Bytes::new(), ..Default::default() },
    );
    assert!(matches!(&half.events()[..], [Event::Control(_)]));
    assert_eq!((half.wire.live_stags(SIDE_INI), half.dm.open_tasks()), (0, 0));
    assert_eq!(half.wire.violations(), []);
}

#[test]
fn deallocate_task_resources_invalidates_and_gives_back() {
    // req: 7145-3.1.9-1, 7145-8.3.2-2, 7145-8.3.2-3
    for slow in [false, true] {
        let config = MemConfig { slow_invalidation: slow, ..MemConfig::default() };
        let mut half = Half::with(Role::Initiator, &keys(), config, Quirks::default());
        half.dm.send_control(bidirectional(5)).unwrap();
        half.run();
        half.dm.deallocate_task_resources(Itt(6));
        let told = half.events();
        assert!(
            matches!(&told[..], [Event::TaskReclaimed { itt: Itt(6), reclaimed }] if reclaimed.buffers.is_none()),
            "an unknown task is answered at once, with nothing: {told:?}"
        );
        assert_eq!(half.wire.live_stags(SIDE_INI), 2);
        half.dm.deallocate_task_resources(Itt(5));
        let Some(Event::TaskReclaimed { itt: Itt(5), reclaimed }) = half.events().pop() else {
            panic!("nothing")
        };
        assert_eq!(reclaimed.buffers.out.unwrap().len(), 4096);
        assert_eq!(reclaimed.buffers.r#in.unwrap().len(), 2048);
        assert_eq!((half.wire.live_stags(SIDE_INI), half.dm.open_tasks()), (0, 0));
    }
}

#[test]
fn a_list_that_cannot_have_one_stag_is_bounced_and_counted() {
    let mut config = MemConfig::default();
    config.caps[SIDE_INI].max_tagged_parts = 1;
    let mut world = World::with(config, &keys());
    // READ into three buffers.
    let mut command = read_command(1, 6000);
    let parts: datamover::SgListMut = [1000, 2000, 3000].into_iter().map(datamover::IoBuf::zeroed).collect();
    command.buffers.r#in = Some(parts.into());
    world.command(command);
    world.tgt.put_data(put(1, 0, pattern(6000))).unwrap();
    let input = world.conclude(Itt(1)).r#in.unwrap();
    assert_eq!(input.parts().count(), 3, "the buffers that went down");
    assert_eq!(joined(&input), pattern(6000));
    assert_eq!(world.ini.stats().bounced_bytes, 6000);
    // WRITE from two.
    let out: SgList = [pattern(700), pattern(300)].into_iter().collect();
    let mut command = write_command(2, &out.to_bytes(), 0);
    command.buffers.out = Some(out.clone().into());
    world.command(command);
    world.tgt.get_data(get(2, 0, 1000)).unwrap();
    world.run();
    let Some(Event::DataCompletion(done)) = events(&mut world.tgt).pop() else { panic!("no data") };
    assert_eq!(joined(&done.data.unwrap()), out.to_bytes());
    assert_eq!(*world.conclude(Itt(2)).out.unwrap(), out);
    assert_eq!(world.ini.stats().bounced_bytes, 7000);
}

#[test]
fn foreign_memory_in_a_command_is_bounced_and_counted() {
    let config = MemConfig { registered_only: true, ..MemConfig::default() };
    let mut half = Half::with(Role::Initiator, &keys(), config, Quirks::default());
    half.dm.send_control(write_command(1, &pattern(4096), 4096)).unwrap();
    let (_, rest) = half.last_message();
    assert_eq!(rest[BHS_LEN..], pattern(4096));
    assert_eq!(half.dm.stats().bounced_bytes, 4096);
    // The same from the pool needs no copy.
    let mut pooled = half.dm.pool().alloc(4096).unwrap();
    pooled.copy_from(0, &pattern(4096));
    let out = pooled.freeze().to_bytes();
    half.dm.send_control(write_command(2, &out, 4096)).unwrap();
    assert_eq!(half.last_message().1[BHS_LEN..], pattern(4096));
    assert_eq!(half.dm.stats().bounced_bytes, 4096);
}

#[test]
fn an_initiator_issues_no_rdma_read_and_serves_with_ord_zero() {
    // req: 7145-5.1.1-6, 7145-5.1.2-5
    let mut config = MemConfig::default();
    config.caps[SIDE_INI].ord = 0;
    config.caps[SIDE_TGT].ird = 0;
    let mut world = World::with(config, &keys());
    world.command(write_command(1, &pattern(9000), 0));
    world.tgt.get_data(get(1, 0, 9000)).unwrap();
    world.run();
    assert!(matches!(&events(&mut world.tgt)[..], [Event::DataCompletion(d)] if d.result == Ok(())));
    let by_initiator = |e: &mem::Event| {
        matches!(e, mem::Event::Read { from: SIDE_INI, .. } | mem::Event::Write { from: SIDE_INI, .. })
    };
    assert!(!world.wire.log().iter().any(by_initiator));
    assert_eq!(world.wire.violations(), []);
}

#[test]
fn a_response_that_invalidates_a_foreign_stag_ends_the_connection() {
    // req: 7145-7.3.2-11
    for by_header in [false, true] {
        let mut half = Half::new(Role::Initiator, &keys());
        half.dm.send_control(read_command(1, 512)).unwrap();
        let first = half.last_message().0.read.unwrap();
        half.dm.send_control(read_command(2, 512)).unwrap();
        half.run();
        let response = ScsiResponse { itt: Itt(2), data: Bytes::new(), ..Default::default() }.into();
        if by_header {
            half.peer.send(&wire_bytes(ControlHeader { read: Some(first), write: None }, &response), None);
        } else {
            half.peer.send(&wire_bytes(ControlHeader::default(), &response), Some(first.stag));
        }
        half.run();
        let (cause, reclaimed) = ended(&mut half.dm);
        assert!(matches!(cause, datamover::Cause::Protocol(_)), "{cause:?}");
        assert_eq!(reclaimed.len(), 2, "both reads give their buffers back");
        assert_eq!(half.wire.live_stags(SIDE_INI), 0);
    }
}

#[test]
fn stags_are_not_used_again() {
    let mut world = World::new();
    let mut seen = std::collections::HashSet::<Stag>::new();
    for itt in 1..200 {
        world.command(read_command(itt, 64));
        let header = world.wire.log().into_iter().rev().find_map(|e| match e {
            mem::Event::Send { from: SIDE_INI, message, .. } => Some(message),
            _ => None,
        });
        let (crate::IserHeader::Control(header), _) = crate::IserHeader::decode(&header.unwrap()).unwrap()
        else {
            panic!("not a control-type PDU")
        };
        assert!(seen.insert(header.read.unwrap().stag));
        world.conclude(Itt(itt));
    }
}

#[test]
fn a_response_to_a_command_that_waits_ends_the_connection() {
    let mut half = Half::new(Role::Initiator, &keys());
    half.run();
    // No memory for a message: the command stays here, and the peer answers all the same.
    let held: Vec<_> = std::iter::from_fn(|| half.dm.rcap.messages().alloc(64)).collect();
    half.dm.send_control(read_command(1, 64)).unwrap();
    assert_eq!((half.dm.waiting.len(), held.is_empty()), (1, false));
    half.peer.send_pdu(
        ControlHeader::default(),
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() },
    );
    half.run();
    let (cause, reclaimed) = ended(&mut half.dm);
    assert!(matches!(cause, Cause::Protocol(_)), "{cause:?}");
    let [(Itt(1), task)] = &reclaimed[..] else { panic!("{reclaimed:?}") };
    assert_eq!(task.buffers.r#in.as_ref().map(|list| list.len()), Some(64), "the buffer comes back");
}
