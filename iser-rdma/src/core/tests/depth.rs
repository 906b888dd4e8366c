//! Targets: depths, peers of the field, order of completions.

use super::target::{commanded, transfers};
use super::world::*;
use crate::provider::mem::{self, MemConfig};
use crate::rcap::{Completion, Op, Rcap, RemoteBuf, Stag, WrId};
use crate::wire::ControlHeader;
use bytes::Bytes;
use datamover::{Cause, Datamover, Event, Role};
use iscsi_pdu::*;

#[test]
fn responses_to_initiators_of_the_field_are_short() {
    // The kernel's initiator: none of the new keys, 262144 declared, 128 posted.
    let kernel = keyed(keys(), |k| {
        k.tagged_buffer_for_solicited_data_only = None;
        k.initiator_recv_data_segment_length = 262_144;
    });
    let mut c = commanded(&kernel, MemConfig::default(), 512, &Bytes::new(), 0);
    let mut sense = vec![0, 252];
    sense.extend([0x70; 252]);
    let response = ScsiResponse { itt: Itt(1), data: sense.into(), ..Default::default() };
    c.half.dm.send_control(response.into()).unwrap();
    let (_, rest) = c.half.last_message();
    assert_eq!(rest.len(), BHS_LEN + 128);
}

#[test]
fn a_read_that_is_answered_before_its_send_completes_is_no_problem() {
    // Completions are told apart by their names: here a Write and two Reads end in another order than they began.
    let config = MemConfig {
        latency: std::time::Duration::from_micros(50),
        jitter: std::time::Duration::from_micros(500),
        seed: 7,
        ..MemConfig::default()
    };
    let mut world = World::with(config, &keys());
    let out = pattern(5000);
    world.ini.send_control(write_command(1, &out, 0)).unwrap();
    world.ini.send_control(read_command(2, 5000)).unwrap();
    world.run_for(std::time::Duration::from_millis(10));
    world.tgt.get_data(get(1, 0, 2500)).unwrap();
    world.tgt.put_data(datamover::PutData { notify: true, ..put(2, 0, pattern(5000)) }).unwrap();
    world.tgt.get_data(get(1, 2500, 2500)).unwrap();
    world.run_for(std::time::Duration::from_millis(10));
    let done: Vec<_> = events(&mut world.tgt)
        .into_iter()
        .filter_map(|e| match e {
            Event::DataCompletion(d) => Some((d.itt, d.offset, d.result)),
            _ => None,
        })
        .collect();
    assert_eq!(done.len(), 3);
    assert!(done.iter().all(|(_, _, r)| r.is_ok()));
}

#[test]
fn no_more_reads_than_iser_ord_are_on_their_way() {
    // req: 7145-7.3.6-7, 7145-8.2-2, 7145-5.1.2-4
    let mut config = MemConfig::default();
    config.caps[SIDE_TGT].ord = 2;
    config.latency = std::time::Duration::from_millis(1);
    let mut world = World::with(config, &keys());
    assert_eq!(world.tgt.iser_ord(), 2, "starts with ORD");
    world.ini.send_control(write_command(1, &pattern(5000), 0)).unwrap();
    world.run_for(std::time::Duration::from_millis(10));
    for n in 0..5 {
        world.tgt.get_data(get(1, n * 1000, 1000)).unwrap();
    }
    world.run_for(std::time::Duration::from_millis(30));
    let done = events(&mut world.tgt).iter().filter(|e| matches!(e, Event::DataCompletion(_))).count();
    assert_eq!(done, 5);
    // The provider counts the Reads that are outstanding.
    assert_eq!(world.wire.violations(), []);
}

#[test]
fn with_iser_ord_zero_an_r2t_ends_the_connection() {
    // req: 7145-7.3.6-4, 7145-7.3.6-5
    let mut config = MemConfig::default();
    config.caps[SIDE_TGT].ord = 0;
    let mut c = commanded(&keys(), config, 0, &pattern(512), 0);
    c.half.dm.get_data(get(1, 0, 512)).unwrap();
    c.half.run();
    let (cause, _) = ended(&mut c.half.dm);
    assert!(matches!(cause, Cause::Protocol(_)), "{cause:?}");
    assert_eq!(transfers(&c.half), []);
    assert_eq!(c.half.dm.open_tasks(), 0);
}

#[test]
fn an_stag_that_the_peer_does_not_need_is_left_alone() {
    // libiscsi sets WSV although all data is immediate.
    let mut half = Half::new(Role::Target, &keys());
    let command = ScsiCommand {
        final_pdu: true,
        write: true,
        itt: Itt(1),
        expected_data_transfer_length: 512,
        data: pattern(512),
        ..Default::default()
    };
    let unneeded = RemoteBuf { stag: Stag(0x1234), offset: 0 };
    half.peer.send_pdu(ControlHeader { read: Some(unneeded), write: None }, command);
    half.run();
    half.dm.send_control(good(Itt(1))).unwrap();
    half.run();
    assert_eq!(half.peer.invalidated(), None, "a Read STag without READ is none");
    assert_eq!(half.wire.violations(), []);
}

#[test]
fn a_peer_reads_and_writes_by_hand() {
    // The hand-driven peer keeps to the same rules: a Read of a sink is refused by the provider.
    let mut half = Half::new(Role::Initiator, &keys());
    half.dm.send_control(read_command(1, 512)).unwrap();
    let read = half.last_message().0.read.unwrap();
    half.peer.rcap.post(Op::Read { id: WrId(1), from: read, into: room(512) }).unwrap();
    half.run();
    assert_eq!(half.wire.violations(), [mem::Violation::Direction(read.stag)]);
    assert!(half.peer.got.iter().any(|c| matches!(c, Completion::Done { result: Err(_), .. })));
}
