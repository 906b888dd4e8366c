use super::world::*;
use crate::Quirks;
use crate::core::{message_len, receive_count};
use crate::provider::mem::MemConfig;
use crate::wire::ControlHeader;
use bytes::Bytes;
use datamover::{Cause, ConnKeys, Datamover, Event, Full, Resources, Role, Window};
use iscsi_pdu::*;

#[test]
fn there_is_a_receive_buffer_for_every_pdu_that_may_come() {
    // req: 7145-8.1-1, 7145-8.1.1.1-1, 7145-8.1.1.3-2
    let mut world = World::new();
    world.run();
    let all = receive_count(&keys(), &resources());
    assert_eq!(all, 8 + 4, "the commands and the unexpected ones");
    for side in [SIDE_INI, SIDE_TGT] {
        assert_eq!(world.wire.posted_receives(side), all);
    }
    // With the window and the unexpected PDUs used up there is a buffer for every answer …
    for itt in 1..=8 {
        world.ini.send_control(read_command(itt, 64)).unwrap();
    }
    for itt in 9..=12 {
        let ping = NopOut { immediate: true, itt: Itt(itt), data: Bytes::new(), ..Default::default() };
        world.ini.send_control(ping.into()).unwrap();
    }
    world.run();
    assert_eq!(world.wire.posted_receives(SIDE_INI), all);
    // … and the target's were posted again before it answers.
    assert_eq!(world.wire.posted_receives(SIDE_TGT), all);
    for itt in 1..=8 {
        world.tgt.send_control(good(Itt(itt))).unwrap();
    }
    for itt in 9..=12 {
        world
            .tgt
            .send_control(NopIn { itt: Itt(itt), data: Bytes::new(), ..Default::default() }.into())
            .unwrap();
    }
    world.run();
    assert_eq!(events(&mut world.ini).len(), 12);
    assert_eq!(world.wire.violations(), []);
}

#[test]
fn data_that_is_held_does_not_cost_receive_buffers() {
    let mut world = World::new();
    let mut held = Vec::new();
    for itt in 1..=8 {
        held.push(world.command(write_command(itt, &pattern(8192), 8192)));
        assert_eq!(
            world.wire.posted_receives(SIDE_TGT),
            receive_count(&keys(), &resources()),
            "after command {itt}"
        );
    }
    assert!(held.iter().all(|c| c.data == pattern(8192)));
    for itt in 1..=8 {
        world.conclude(Itt(itt));
    }
    assert_eq!(world.wire.violations(), []);
}

#[test]
fn more_than_was_allocated_is_handed_back() {
    let mut half = Half::new(Role::Target, &keys());
    let mut accepted = 0;
    let refused = loop {
        let nop = NopIn { itt: Itt(accepted), data: pattern(64), ..Default::default() };
        match half.dm.send_control(nop.clone().into()) {
            Ok(()) => accepted += 1,
            Err(Full(control)) => break (nop, control.pdu),
        }
        assert!(accepted < 10_000, "no limit");
    };
    assert_eq!(Pdu::from(refused.0), refused.1);
    assert!(accepted >= receive_count(&keys(), &resources()) as u32);
    // After the next turn there is room again.
    half.peer
        .send_pdu(ControlHeader::default(), NopOut { itt: Itt(1), data: Bytes::new(), ..Default::default() });
    half.run();
    half.dm.send_control(NopIn { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into()).unwrap();
}

#[test]
fn messages_have_room_for_what_was_declared() {
    let keys = keyed(ConnKeys::default(), |k| {
        k.rdma_extensions = true;
        k.initiator_recv_data_segment_length = 16384;
        k.target_recv_data_segment_length = 65536;
        k.max_recv_data_segment_length = 262_144;
    });
    let r = Resources { max_control_data: 512, ..Resources::default() };
    // iSER header, BHS, 256 bytes of AHS (the default of MaxAHSLength), data.
    assert_eq!(message_len(Role::Initiator, &keys, &r), 28 + 48 + 256 + 16384);
    assert_eq!(message_len(Role::Target, &keys, &r), 28 + 48 + 256 + 65536);
    let long = keyed(keys.clone(), |k| {
        k.max_ahs_length = Some(1000);
    });
    assert_eq!(message_len(Role::Target, &long, &r), 28 + 48 + 1000 + 65536);
    let discovery = keyed(keys, |k| {
        k.rdma_extensions = false;
    });
    assert_eq!(message_len(Role::Target, &discovery, &r), 28 + 48 + 256 + 262_144);
}

/// A session that does not take events, as its answers are not taken either, has the peer wait.
#[test]
fn a_flood_that_nobody_takes_is_not_received() {
    let config = MemConfig { wait_for_receive: true, ..MemConfig::default() };
    let mut half = Half::with(Role::Target, &keys(), config, Quirks::default());
    for pdu in pings(1000) {
        half.peer.send_pdu(ControlHeader::default(), pdu);
    }
    half.run();
    let count = receive_count(&keys(), &resources());
    assert!(half.dm.inbound.len() <= 3 * count + 64, "{} events", half.dm.inbound.len());
    assert_eq!(half.dm.posted_receives(), 0);
    // Taken after all, everything arrives.
    let mut taken = 0;
    for _ in 0..100 {
        taken += half.events().len();
    }
    assert_eq!(taken, 1000);
    assert_eq!(half.dm.posted_receives(), count);
}

fn flood(keys: &ConnKeys, role: Role, pdus: Vec<Pdu>) -> Vec<Event> {
    let mut half = Half::new(role, keys);
    for pdu in pdus {
        half.peer.send_pdu(ControlHeader::default(), pdu);
    }
    half.events()
}

fn pings(n: u32) -> Vec<Pdu> {
    let ping = |itt| NopOut {
        immediate: true,
        itt: Itt(itt),
        cmd_sn: CmdSn(7),
        data: Bytes::new(),
        ..Default::default()
    };
    (0..n).map(|itt| ping(itt).into()).collect()
}

#[test]
fn more_unexpected_pdus_than_declared_end_the_connection() {
    // req: 7145-10.1.3.4-4
    let declared = keyed(keys(), |k| {
        k.max_outstanding_unexpected_pdus = Some(3);
    });
    assert_eq!(flood(&declared, Role::Target, pings(3)).len(), 3);
    let told = flood(&declared, Role::Target, pings(4));
    let Some(Event::Terminated(end)) = told.last() else { panic!("{told:?}") };
    assert!(matches!(end.cause, Cause::Protocol(rule) if rule.contains("unexpected")), "{:?}", end.cause);
    // Async Messages and pings of a target.
    let events = |n: u32| -> Vec<Pdu> {
        let event = |sn| AsyncMessage {
            event: AsyncEvent(1),
            stat_sn: StatSn(sn),
            data: Bytes::new(),
            ..Default::default()
        };
        (0..n).map(|sn| event(sn).into()).collect()
    };
    assert_eq!(flood(&declared, Role::Initiator, events(3)).len(), 3);
    assert!(matches!(flood(&declared, Role::Initiator, events(4)).last(), Some(Event::Terminated(_))));
}

/// The initiator counts them no more when ExpCmdSN 8, beyond CmdSN 7 of the pings, has been told on any connection.
// req: 7145-8.1.1.3-4
#[test]
fn an_answer_on_any_connection_retires_unexpected_pdus() {
    let declared = keyed(keys(), |k| {
        k.max_outstanding_unexpected_pdus = Some(2);
    });
    for elsewhere in [false, true] {
        let mut half = Half::new(Role::Target, &declared);
        for round in 0..5u32 {
            for pdu in pings(2) {
                half.peer.send_pdu(ControlHeader::default(), pdu);
            }
            assert_eq!(half.events().len(), 2, "round {round}");
            let exp_cmd_sn = CmdSn(8);
            if elsewhere {
                half.dm.set_window(Window { exp_cmd_sn, ..Window::default() });
            } else {
                let answer = NopIn { itt: Itt(0), exp_cmd_sn, data: Bytes::new(), ..Default::default() };
                half.dm.send_control(answer.into()).unwrap();
                half.run();
            }
        }
    }
}

#[test]
fn a_flood_of_commands_ends_the_connection() {
    let command =
        |itt: u32| ScsiCommand { final_pdu: true, itt: Itt(itt), data: Bytes::new(), ..Default::default() };
    let told = flood(&keys(), Role::Target, (0..100).map(|itt| command(itt).into()).collect());
    assert!(matches!(told.last(), Some(Event::Terminated(_))));
    assert_eq!(told.len(), receive_count(&keys(), &resources()) + 1, "as many as were allowed, then the end");
}

#[test]
fn the_budget_ends_a_turn() {
    let mut half = Half::new(Role::Target, &keys());
    for pdu in pings(10) {
        half.peer.send_pdu(ControlHeader::default(), pdu);
    }
    half.peer.poll(half.now);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut turn = datamover::Budget { pdus: 4, ..datamover::Budget::new(half.now) };
    let more = datamover::Drive::poll_drive(&mut half.dm, &mut cx, &mut turn);
    assert!(more.is_ready(), "there is more to do");
    assert_eq!(events(&mut half.dm).len(), 4);
    let _ = MemConfig::default();
    assert_eq!(half.events().len(), 6);
}
