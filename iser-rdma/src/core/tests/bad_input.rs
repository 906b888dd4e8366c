//! What a peer must not do, and what comes of it: the connection ends, and no memory outside the buffers is touched.

use super::world::*;
use crate::provider::mem::{MemConfig, Violation};
use crate::quirks::Quirks;
use crate::rcap::{Op, Rcap, Stag, WrId};
use crate::wire::ControlHeader;
use bytes::Bytes;
use datamover::{Cause, Datamover, Event, Role};
use iscsi_pdu::*;

fn ends_with_protocol_error(role: Role, message: &[u8]) {
    let mut half = Half::new(role, &keys());
    half.peer.send(message, None);
    half.run();
    let (cause, reclaimed) = ended(&mut half.dm);
    assert!(matches!(cause, Cause::Protocol(_) | Cause::Format(_)), "{cause:?}");
    assert!(reclaimed.is_empty());
    assert_eq!(half.dm.open_tasks(), 0);
    assert!(matches!(half.peer.got.last(), Some(crate::Completion::Closed(_))), "the connection is closed");
}

#[test]
fn a_bad_iser_header_ends_the_connection() {
    // req: 7145-9.1-2, 7145-10.1.3.3-1, 7145-10.1.3.3-2, 7145-10.1.3.3-3, 7145-10.1.3.3-4
    for role in [Role::Initiator, Role::Target] {
        for opcode in [0u8, 4, 15] {
            let mut message = [0u8; 76];
            message[0] = opcode << 4;
            ends_with_protocol_error(role, &message);
        }
        // Shorter than the header, shorter than a BHS, a Hello with a tail.
        ends_with_protocol_error(role, &[0x10; 27]);
        ends_with_protocol_error(role, &[]);
        let mut short = [0u8; 75];
        short[0] = 0x10;
        ends_with_protocol_error(role, &short);
        let mut hello = [0u8; 29];
        hello[0] = 0x20;
        ends_with_protocol_error(role, &hello);
    }
}

#[test]
fn lengths_must_agree_with_the_message() {
    let pdu: Pdu = NopOut { itt: Itt(1), data: pattern(5), ..Default::default() }.into();
    let whole = wire_bytes(ControlHeader::default(), &pdu);
    // Padding may be there or not.
    for len in [whole.len() - 3, whole.len()] {
        let mut half = Half::new(Role::Target, &keys());
        half.peer.send(&whole[..len], None);
        assert!(matches!(&half.events()[..], [Event::Control(c)] if c.pdu == pdu), "{len}");
    }
    ends_with_protocol_error(Role::Target, &whole[..whole.len() - 4]);
    let mut long = whole.clone();
    long.push(0);
    ends_with_protocol_error(Role::Target, &long);
}

#[test]
fn pdus_that_have_no_place_end_the_connection() {
    let target_hears: Vec<Pdu> = vec![
        NopIn { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
        // Solicited Data-Out.
        DataOut { itt: Itt(1), ttt: Ttt(5), data: pattern(4), ..Default::default() }.into(),
    ];
    for pdu in target_hears {
        ends_with_protocol_error(Role::Target, &wire_bytes(ControlHeader::default(), &pdu));
    }
    let initiator_hears: Vec<Pdu> = vec![
        DataIn { itt: Itt(1), data: pattern(4), ..Default::default() }.into(),
        R2t { itt: Itt(1), ttt: Ttt(1), desired_data_transfer_length: 4, ..Default::default() }.into(),
        LoginResponse { data: Bytes::new(), ..Default::default() }.into(),
        NopOut { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into(),
    ];
    for pdu in initiator_hears {
        ends_with_protocol_error(Role::Initiator, &wire_bytes(ControlHeader::default(), &pdu));
    }
}

#[test]
fn a_pdu_that_is_nonsense_is_reported_for_reject() {
    let mut message = [0u8; 76];
    message[0] = 0x10;
    message[28] = 0x1e; // an opcode that nobody assigned
    let mut half = Half::new(Role::Target, &keys());
    half.peer.send(&message, None);
    let events = half.events();
    let [Event::Invalid(invalid)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(invalid.reason, RejectReason::CommandNotSupported);
    assert_eq!(invalid.header[..], message[28..]);
    // The connection goes on.
    half.peer
        .send_pdu(ControlHeader::default(), NopOut { itt: Itt(1), data: Bytes::new(), ..Default::default() });
    assert!(matches!(&half.events()[..], [Event::Control(_)]));
}

#[test]
fn only_a_scsi_response_invalidates() {
    let nop = NopIn { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into();
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(read_command(1, 64)).unwrap();
    let read = half.last_message().0.read.unwrap();
    half.peer.send(&wire_bytes(ControlHeader::default(), &nop), Some(read.stag));
    half.run();
    let (cause, reclaimed) = ended(&mut half.dm);
    assert!(matches!(cause, Cause::Protocol(_)), "{cause:?}");
    assert_eq!(reclaimed.len(), 1);
}

#[test]
fn an_ahs_beyond_the_declared_length_ends_the_connection() {
    // req: 7145-10.1.3.4-4
    let keys = keyed(keys(), |k| {
        k.max_ahs_length = Some(16);
    });
    let command = |cdb: usize| ScsiCommand {
        final_pdu: true,
        itt: Itt(1),
        ahs: vec![Ahs::ExtendedCdb(pattern(cdb))],
        data: Bytes::new(),
        ..Default::default()
    };
    for (cdb, ok) in [(12, true), (40, false)] {
        let mut half = Half::new(Role::Target, &keys);
        half.peer.send_pdu(ControlHeader::default(), command(cdb));
        assert_eq!(matches!(&half.events()[..], [Event::Control(_)]), ok, "{cdb}");
    }
}

/// A peer's access to the initiator's memory, and the rule that it breaks.
fn access(op: impl Fn(ControlHeader) -> Op) -> (Vec<Violation>, Vec<u8>) {
    let mut half = Half::new(Role::Initiator, &keys());
    let mut command = read_command(1, 512);
    // The buffer is the first half of a larger one.
    let mut buf = datamover::IoBuf::zeroed(1024);
    buf.truncate(512);
    command.buffers.r#in = Some(buf.into());
    half.dm.send_control(command).unwrap();
    let read = half.last_message().0;
    half.dm.send_control(write_command(2, &pattern(512), 0)).unwrap();
    let write = half.last_message().0;
    let header = ControlHeader { read: read.read, write: write.write };
    half.peer.rcap.post(op(header)).unwrap();
    half.run();
    let (_, reclaimed) = ended(&mut half.dm);
    let input = reclaimed.into_iter().find_map(|(_, r)| r.buffers.r#in).unwrap();
    let mut whole = input.into_parts().next().unwrap();
    whole.set_len(1024);
    (half.wire.violations(), whole.to_vec())
}

#[test]
fn access_beyond_what_was_advertised_is_refused() {
    let data = || Bytes::from_static(&[0xee; 512]);
    let write = |to, data: Bytes| Op::Write { id: None, data: data.into(), to };
    let read = |from, len| Op::Read { id: WrId(1), from, into: room(len) };
    // One byte beyond the end, in both directions.
    let (v, memory) = access(|h| write(h.read.unwrap().advance(1).unwrap(), data()));
    assert!(matches!(v[..], [Violation::Bounds(_)]), "{v:?}");
    assert_eq!(memory, [0; 1024]);
    let (v, _) = access(|h| read(h.write.unwrap(), 513));
    assert!(matches!(v[..], [Violation::Bounds(_)]), "{v:?}");
    // Before the beginning, and beyond 2^64.
    let (v, _) = access(|h| {
        let mut to = h.read.unwrap();
        to.offset -= 1;
        write(to, data())
    });
    assert!(matches!(v[..], [Violation::Bounds(_)]), "{v:?}");
    let (v, memory) = access(|h| {
        let mut to = h.read.unwrap();
        to.offset = u64::MAX - 3;
        write(to, data())
    });
    assert!(matches!(v[..], [Violation::Bounds(_)]), "{v:?}");
    assert_eq!(memory, [0; 1024]);
    // The other direction.
    let (v, memory) = access(|h| write(h.write.unwrap(), data()));
    assert!(matches!(v[..], [Violation::Direction(_)]), "{v:?}");
    assert_eq!(memory, [0; 1024]);
    let (v, _) = access(|h| read(h.read.unwrap(), 8));
    assert!(matches!(v[..], [Violation::Direction(_)]), "{v:?}");
    // An STag that is another connection's, or nobody's.
    let (v, memory) = access(|h| {
        let mut to = h.read.unwrap();
        to.stag = Stag(to.stag.0 ^ 0x5500_0000);
        write(to, data())
    });
    assert!(matches!(v[..], [Violation::UnknownStag(_)]), "{v:?}");
    assert_eq!(memory, [0; 1024]);
}

#[test]
fn an_stag_is_dead_after_its_response() {
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(read_command(1, 512)).unwrap();
    let read = half.last_message().0.read.unwrap();
    half.peer.send_pdu(
        ControlHeader::default(),
        ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() },
    );
    assert!(matches!(&half.events()[..], [Event::Control(_)]));
    half.peer.rcap.post(Op::Write { id: None, data: pattern(8).into(), to: read }).unwrap();
    half.run();
    assert_eq!(half.wire.violations(), [Violation::RetiredStag(read.stag)]);
    assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
}

#[test]
fn a_command_that_advertises_less_than_it_says_cannot_be_served() {
    // READ of 4096 bytes without a Read STag.
    let mut half = Half::new(Role::Target, &keys());
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        itt: Itt(1),
        expected_data_transfer_length: 4096,
        data: Bytes::new(),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader::default(), command);
    half.run();
    half.dm.put_data(put(1, 0, pattern(4096))).unwrap();
    half.run();
    assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));

    // WRITE whose STag is good for 512 bytes only: the peer's end refuses the Read, and the connection ends.
    let mut world = World::new();
    let mut command = write_command(1, &pattern(4096), 0);
    command.buffers.out = Some(pattern(512).into());
    world.command(command);
    world.tgt.get_data(get(1, 0, 4096)).unwrap();
    world.run();
    let (_, reclaimed) = ended(&mut world.tgt);
    assert_eq!(reclaimed[0].1.gets[0].1.len(), 4096, "the buffer comes back");
    ended(&mut world.ini);
}

#[test]
fn transfers_outside_of_the_task_are_not_posted() {
    for offset in [1, 4096, u32::MAX] {
        let mut world = World::new();
        world.command(read_command(1, 4096));
        world.tgt.put_data(put(1, offset, pattern(4096))).unwrap();
        world.run();
        assert!(matches!(ended(&mut world.tgt).0, Cause::Protocol(_)));
        assert_eq!(world.wire.violations(), []);
        let mut world = World::new();
        world.command(write_command(1, &pattern(8192), 4096));
        // Before the solicited data, or beyond the end.
        world.tgt.get_data(get(1, offset % 8192, 8192)).unwrap();
        world.run();
        assert!(matches!(ended(&mut world.tgt).0, Cause::Protocol(_)));
        assert_eq!(world.wire.violations(), []);
    }
}

#[test]
fn a_tag_in_use_keeps_its_mapping() {
    let mut world = World::new();
    world.command(read_command(1, 4096));
    // A second command with the same tag, by hand: the initiator would not.
    let mut half = Half::new(Role::Target, &keys());
    let sink = half.peer.rcap.advertise(crate::Tagged::Sink(room(4096))).unwrap();
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        itt: Itt(1),
        expected_data_transfer_length: 4096,
        data: Bytes::new(),
        ..Default::default()
    };
    half.peer.send_pdu(ControlHeader { read: Some(sink), write: None }, command.clone());
    let other = crate::RemoteBuf { stag: Stag(1), offset: 0 };
    half.peer.send_pdu(ControlHeader { read: Some(other), write: None }, command);
    assert_eq!(half.events().len(), 2, "the session rejects the second");
    half.dm.put_data(put(1, 0, pattern(4096))).unwrap();
    half.run();
    assert_eq!(half.wire.violations(), []);
}

#[test]
fn login_and_snack_pdus_are_refused() {
    // req: 7145-7.3.9-3, 7145-7.3.11-3
    let requests: Vec<Pdu> = vec![
        LoginRequest { data: Bytes::new(), ..Default::default() }.into(),
        Snack { itt: Itt(1), ..Default::default() }.into(),
    ];
    for pdu in requests {
        let mut half = Half::with(Role::Initiator, &keys(), MemConfig::default(), Quirks::default());
        assert!(half.dm.send_control(pdu.into()).is_err());
        half.run();
        assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
        assert!(half.peer.messages().is_empty());
    }
    let mut half = Half::new(Role::Target, &keys());
    let response = LoginResponse { data: Bytes::new(), ..Default::default() };
    assert!(half.dm.send_control(response.into()).is_err());
    half.run();
    assert!(matches!(ended(&mut half.dm).0, Cause::Protocol(_)));
}
