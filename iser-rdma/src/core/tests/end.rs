use super::world::*;
use crate::core::{IserDatamover, Parts};
use crate::provider::mem::{self, MemConfig};
use crate::quirks::Quirks;
use datamover::{Cause, ConnKeys, Control, Datamover, Drive, Event, Full, Role};
use iscsi_pdu::*;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

/// A connection with a read and a write under way, whose Reads take a while.
fn busy(config: MemConfig) -> World {
    let mut world = World::with(config, &keys());
    world.command(write_command(1, &pattern(4096), 0));
    world.command(read_command(2, 4096));
    let mut slow = get(1, 0, 4096);
    slow.into = [1024, 3072].into_iter().map(datamover::IoBuf::zeroed).collect();
    world.tgt.get_data(slow).unwrap();
    world
}

/// Both ends have given everything back when they tell of the end.
fn all_is_given_back(world: &mut World) -> (Cause, Cause) {
    let (ini, reclaimed) = ended(&mut world.ini);
    let mut tasks: Vec<_> = reclaimed.into_iter().collect();
    tasks.sort_by_key(|(itt, _)| itt.0);
    let [(Itt(1), write), (Itt(2), read)] = &tasks[..] else { panic!("{tasks:?}") };
    assert_eq!(write.buffers.out.as_ref().map(|l| l.len()), Some(4096));
    assert_eq!(read.buffers.r#in.as_ref().map(|l| l.len()), Some(4096));
    let (tgt, reclaimed) = ended(&mut world.tgt);
    let [(Itt(1), task)] = &reclaimed[..] else { panic!("{reclaimed:?}") };
    assert_eq!(task.gets.iter().map(|(o, l)| (*o, l.len())).collect::<Vec<_>>(), [(0, 4096)]);
    for (side, dm) in [(SIDE_INI, &world.ini), (SIDE_TGT, &world.tgt)] {
        assert_eq!(dm.open_tasks(), 0);
        assert_eq!(world.wire.live_stags(side), 0);
        assert_eq!(world.wire.posted_receives(side), 0);
        assert_eq!(dm.poll_timeout(), None);
    }
    (ini, tgt)
}

#[test]
fn connection_terminate_gives_everything_back() {
    // req: 7145-3.1.7-1, 7145-3.2.4-1, 7145-5.2.2-4, 7145-5.2.2-5, 7145-5.2.3.1-1, 7145-5.2.3.1-2
    // req: 7145-5.2.3.1-3, 7145-5.2.3.1-4, 7145-5.2.3.2-1, 7145-5.2.3.2-2, 7145-5.2.3.2-3, 7145-5.2.1-3
    for role in [Role::Initiator, Role::Target] {
        let mut world = busy(MemConfig::default());
        match role {
            Role::Initiator => world.ini.connection_terminate(),
            Role::Target => world.tgt.connection_terminate(),
        }
        // The Reads have not been posted: they never will be.
        world.run();
        let (ini, tgt) = all_is_given_back(&mut world);
        // The end that asked hears that all is its own again (`Local`); the other end is notified.
        match role {
            Role::Initiator => assert_eq!((ini, tgt), (Cause::Local, Cause::PeerClosed)),
            Role::Target => assert_eq!((ini, tgt), (Cause::PeerClosed, Cause::Local)),
        }
    }
}

#[test]
fn what_was_queued_before_connection_terminate_is_sent() {
    let mut world = World::new();
    world.command(read_command(1, 512));
    world.tgt.send_control(LogoutResponse { itt: Itt(9), ..Default::default() }.into()).unwrap();
    world.tgt.connection_terminate();
    world.run();
    let told = events(&mut world.ini);
    assert!(
        matches!(
            &told[..],
            [Event::Control(Control { pdu: Pdu::LogoutResponse(_), .. }), Event::Terminated(_)]
        ),
        "{told:?}"
    );
}

#[test]
fn a_reset_is_notified_once_everything_is_given_back() {
    // req: 7145-10.1.1.2-1, 7145-10.1.1.2-2, 7145-5.2.3.2-1, 7145-5.2.3.2-2, 7145-5.2.3.2-3
    let mut world = busy(MemConfig::default());
    world.wire.reset();
    world.run();
    let reset = Cause::Transport(ErrorKind::ConnectionReset);
    assert_eq!(all_is_given_back(&mut world), (reset.clone(), reset));
}

#[test]
fn a_failing_work_request_is_notified_once_everything_is_given_back() {
    // req: 7145-10.1.2.1-2, 7145-10.1.2.1-3, 7145-10.1.2.2-1, 7145-10.1.2.2-2
    // The second command's Send is the last thing that gets through; the Read fails at both ends.
    let mut world = busy(MemConfig { reset_after: Some(2), ..MemConfig::default() });
    world.run();
    all_is_given_back(&mut world);
}

#[test]
fn a_read_in_flight_comes_back_with_the_end() {
    let mut world =
        World::with(MemConfig { latency: Duration::from_millis(1), ..MemConfig::default() }, &keys());
    world.ini.send_control(write_command(1, &pattern(4096), 0)).unwrap();
    world.run_for(Duration::from_millis(10));
    world.tgt.get_data(get(1, 0, 4096)).unwrap();
    poll(&mut world.tgt, world.now);
    world.wire.reset();
    world.run_for(Duration::from_millis(10));
    let (_, reclaimed) = ended(&mut world.tgt);
    assert_eq!(reclaimed[0].1.gets[0].1.len(), 4096);
}

#[test]
fn a_dead_peer_is_given_up_after_the_data_timeout() {
    let mut world = World::with(MemConfig { dead_after: Some(1), ..MemConfig::default() }, &keys());
    world.command(write_command(1, &pattern(4096), 0));
    world.tgt.get_data(get(1, 0, 4096)).unwrap();
    world.run();
    let at = world.tgt.poll_timeout().expect("watched");
    assert_eq!(at, world.now + keys().data_timeout);
    world.now = at;
    world.tgt.handle_timeout(at);
    world.run();
    let (cause, reclaimed) = ended(&mut world.tgt);
    assert_eq!(cause, Cause::Transport(ErrorKind::TimedOut));
    assert_eq!(reclaimed.len(), 1);
}

#[test]
fn a_dead_peer_does_not_hold_the_end_up() {
    let mut world = World::with(MemConfig { dead_after: Some(1), ..MemConfig::default() }, &keys());
    world.command(write_command(1, &pattern(4096), 0));
    // The answer gets nowhere, and the session has had enough.
    world.tgt.send_control(good(Itt(1))).unwrap();
    world.run();
    world.tgt.connection_terminate();
    world.run();
    let at = world.tgt.poll_timeout().expect("watched");
    assert!(at <= world.now + std::time::Duration::from_secs(2), "sooner than the data timeout");
    world.now = at;
    world.tgt.handle_timeout(at);
    world.run();
    assert_eq!(ended(&mut world.tgt).0, Cause::Local);
}

#[test]
fn a_peer_that_posts_no_receives_is_given_up() {
    let (mine, theirs, _wire) = mem::pair(MemConfig { wait_for_receive: true, ..MemConfig::default() });
    let mut dm = start(mine, Role::Initiator, &keys(), Quirks::default());
    let mut now = std::time::Instant::now();
    dm.send_control(read_command(1, 512)).unwrap();
    poll(&mut dm, now);
    assert!(events(&mut dm).is_empty());
    now = dm.poll_timeout().unwrap();
    dm.handle_timeout(now);
    poll(&mut dm, now);
    let (cause, reclaimed) = ended(&mut dm);
    assert_eq!(cause, Cause::Transport(ErrorKind::TimedOut));
    assert_eq!(reclaimed[0].1.buffers.r#in.as_ref().map(|l| l.len()), Some(512));
    drop(theirs);
}

#[test]
fn without_resources_there_is_no_datamover() {
    // req: 7145-3.1.6-1
    let (mine, _theirs, _wire) = mem::pair(MemConfig::default());
    let mut dm = IserDatamover::start(Parts {
        rcap: mine,
        role: Role::Initiator,
        keys: ConnKeys::default(),
        quirks: Quirks::default(),
        resources: None,
        posted: 0,
        backlog: VecDeque::new(),
        closed: None,
    });
    dm.send_control(read_command(1, 64)).unwrap();
    poll(&mut dm, std::time::Instant::now());
    let (cause, reclaimed) = ended(&mut dm);
    assert!(matches!(cause, Cause::Protocol(_)), "{cause:?}");
    assert_eq!(reclaimed.len(), 1, "the command's buffers");
}

#[test]
fn calls_after_the_end_give_their_buffers_back() {
    let mut world = World::new();
    world.wire.reset();
    world.run();
    world.wire.reset();
    world.ini.connection_terminate();
    poll(&mut world.ini, world.now);
    // While the end is not told, the buffers go back with it; later, with the refusal.
    world.ini.send_control(read_command(1, 64)).unwrap();
    world.run();
    let (_, reclaimed) = ended(&mut world.ini);
    assert_eq!(reclaimed.len(), 1);
    let Err(Full(control)) = world.ini.send_control(read_command(2, 64)) else { panic!("kept") };
    assert_eq!(control.buffers.r#in.unwrap().len(), 64);
    assert!(world.ini.send_control(NopOut { itt: Itt(3), ..Default::default() }.into()).is_err());
    world.run();
    assert!(events(&mut world.ini).is_empty(), "the end is the last event");
    events(&mut world.tgt);
    assert!(world.tgt.get_data(get(1, 0, 64)).is_err());
    assert!(world.tgt.put_data(put(1, 0, pattern(64))).is_err());
    assert!(world.tgt.send_control(good(Itt(1))).is_err());
    world.run();
    assert!(events(&mut world.tgt).is_empty());
}

#[test]
fn the_four_notifications_of_one_session() {
    // req: 7145-3.2-1
    let keys = keyed(keys(), |k| {
        k.error_recovery_level = 2;
    });
    let mut world = World::with(MemConfig::default(), &keys);
    world.ini.send_control(read_command(1, 4096)).unwrap();
    world.run();
    let put = datamover::PutData { ack: true, notify: true, ..put(1, 0, pattern(4096)) };
    world.tgt.put_data(put).unwrap();
    world.run();
    world.ini.connection_terminate();
    world.run();
    let told = events(&mut world.tgt);
    assert!(
        matches!(
            &told[..],
            [Event::Control(_), Event::DataCompletion(_), Event::DataAck { .. }, Event::Terminated(_)]
        ),
        "{told:?}"
    );
}
