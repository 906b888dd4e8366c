//! Both drivers over the in-memory datamover, login included.

mod common;

use common::*;
use iscsi_login::Preferences;
use iscsi_pdu::{Residual, ScsiStatus};
use iscsi_session::driver::{
    InitiatorHandle, SessionEnded, SubmitError, TargetControl, run_session, serve_session,
};
use iscsi_session::initiator::{InitiatorConfig, InitiatorSession, TaskFailure};
use iscsi_session::target::{SessionEnd, TargetConfig, TargetSession};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

struct Pair {
    handle: InitiatorHandle,
    control: TargetControl,
    journal: Arc<Mutex<Journal>>,
    wire: datamover::mem::MemControl,
    initiator: JoinHandle<SessionEnded>,
    target: JoinHandle<SessionEnd>,
}

async fn start(preferences: Preferences) -> Pair {
    let (i, t, wire) = log_in(goal(), preferences).await;
    let now = tokio::time::Instant::now().into_std();
    let (device, journal) = disk();
    let target = TargetSession::new(TargetConfig::default(), &t.negotiated, now);
    let (control, serving) = serve_session(target, t, Box::new(device));
    let initiator = InitiatorSession::new(InitiatorConfig::default(), &i.negotiated, now);
    let (handle, _events, running) = run_session(initiator, i);
    Pair { handle, control, journal, wire, initiator: tokio::spawn(running), target: tokio::spawn(serving) }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

// req: 7143-4.2.1-1
#[tokio::test(start_paused = true)]
async fn blocks_written_are_read_back_whatever_way_the_data_goes() {
    for (initial_r2t, immediate_data) in [(true, true), (true, false), (false, true), (false, false)] {
        let pair = start(Preferences { initial_r2t, immediate_data, ..Preferences::default() }).await;
        for (n, len) in [1usize, 512, 8192, 65_536, 300_000, 700_001].into_iter().enumerate() {
            let data = pattern(len, n as u8);
            let done = pair.handle.submit(write(64, data.clone())).await.unwrap();
            let status = done.result.unwrap();
            assert_eq!((status.status, status.residual), (ScsiStatus::Good, Residual::None), "write {len}");
            assert_eq!(done.buffers.out.unwrap().len(), len, "the buffer comes back");
            assert_eq!(pair.journal.lock().unwrap().disk[64..64 + len], data);
            let done = pair.handle.submit(read(64, len as u32)).await.unwrap();
            assert_eq!(done.result.unwrap().status, ScsiStatus::Good, "read {len}");
            assert_eq!(done.buffers.r#in.unwrap().freeze().to_bytes(), data);
        }
        pair.handle.logout();
        assert!(pair.initiator.await.unwrap().closed);
        assert_eq!(pair.target.await.unwrap(), SessionEnd::Closed);
        assert_eq!(pair.journal.lock().unwrap().nexus_losses, 1);
        assert_eq!(pair.wire.violations(), Vec::<&str>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn more_commands_than_the_window_holds_complete_in_order() {
    let pair = start(Preferences::default()).await;
    let commands: Vec<_> =
        (0..500u32).map(|n| pair.handle.submit(write(n * 512, pattern(512, n as u8)))).collect();
    for (n, command) in commands.into_iter().enumerate() {
        let done = command.await.unwrap();
        assert_eq!(done.result.unwrap().status, ScsiStatus::Good);
        assert_eq!(pair.journal.lock().unwrap().disk[n * 512..n * 512 + 512], pattern(512, n as u8));
    }
    assert_eq!(pair.journal.lock().unwrap().executed.len(), 500);
    let (counters, _) = pair.control.counters().await.unwrap();
    assert_eq!((counters.commands, counters.responses, counters.ignored, counters.rejects), (500, 500, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_command_is_aborted() {
    let pair = start(Preferences::default()).await;
    pair.journal.lock().unwrap().stuck = Some(0x28);
    let stuck = pair.handle.submit(read(0, 4096));
    let other = pair.handle.submit(write(0, pattern(10_000, 1)));
    assert_eq!(other.await.unwrap().result.unwrap().status, ScsiStatus::Good);
    drop(stuck);
    let aborting = pair.handle.submit(read(0, 512));
    aborting.abort();
    assert_eq!(aborting.await.unwrap().result, Err(TaskFailure::Aborted));
    assert_eq!(pair.journal.lock().unwrap().aborted, 1, "the second was over before it reached the disk");
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_lives_on_pings_and_a_dead_one_ends() {
    let pair = start(Preferences::default()).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        pair.handle.ping(bytes::Bytes::from_static(b"are you there")).await.unwrap().unwrap()[..],
        *b"are you there"
    );
    // The target falls silent.
    pair.wire.hold(datamover::Role::Target, true);
    let ended = pair.initiator.await.unwrap();
    assert!(!ended.closed);
    assert!(pair.handle.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_gives_all_buffers_back() {
    let pair = start(Preferences::default()).await;
    pair.journal.lock().unwrap().stuck = Some(0x28);
    let stuck = pair.handle.submit(read(0, 4096));
    pair.handle.ping(bytes::Bytes::new()).await.unwrap().unwrap();
    pair.wire.cut();
    let done = stuck.await.unwrap();
    assert_eq!(done.result, Err(TaskFailure::ConnectionLost));
    assert_eq!(done.buffers.r#in.unwrap().len(), 4096);
    let ended = pair.initiator.await.unwrap();
    assert_eq!((ended.closed, ended.time2wait), (false, Duration::from_secs(2)));
    assert_eq!(pair.target.await.unwrap(), SessionEnd::TimedOut);
    let journal = pair.journal.lock().unwrap();
    assert_eq!((journal.aborted, journal.nexus_losses), (1, 1));
}

/// An initiator that asks and takes no answers: these wait at the target, at last nothing more is taken of what it sends,
/// and when the connection breaks, the session ends all the same.
#[tokio::test(start_paused = true)]
async fn a_cut_connection_with_answers_that_nobody_took_ends_its_session() {
    let pair = start(Preferences::default()).await;
    pair.wire.hold(datamover::Role::Initiator, true);
    for _ in 0..1000 {
        let handle = pair.handle.clone();
        tokio::spawn(async move { handle.ping(bytes::Bytes::new()).await });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(pair.wire.in_flight(datamover::Role::Initiator) >= 192, "no room for more answers");
    pair.wire.cut();
    // Time2Wait and Time2Retain are 22 seconds together; the answer to a ping would be missed after 50.
    let ended = tokio::time::timeout(Duration::from_secs(25), pair.target).await;
    assert_eq!(ended.expect("an end").unwrap(), SessionEnd::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_shuts_down_tells_the_initiator() {
    let pair = start(Preferences::default()).await;
    pair.control.request_logout(Duration::from_secs(10));
    assert!(pair.initiator.await.unwrap().closed, "the initiator logs out by itself");
    assert_eq!(pair.target.await.unwrap(), SessionEnd::Closed);

    let pair = start(Preferences::default()).await;
    pair.control.shutdown();
    assert_eq!(pair.target.await.unwrap(), SessionEnd::Shutdown);
    assert!(!pair.initiator.await.unwrap().closed);
}

// user need: a target that never answers must not hold its callers for ever, and what it still has to do is called off
#[tokio::test(start_paused = true)]
async fn a_command_whose_time_is_up_is_aborted_and_not_waited_for() {
    let pair = start(Preferences::default()).await;
    pair.journal.lock().unwrap().stuck = Some(0x28);
    let start = tokio::time::Instant::now();
    let by = |seconds| (start + Duration::from_secs(seconds)).into_std();
    // The later deadline first: each has its own.
    let late = pair.handle.submit_by(read(512, 512), by(9));
    let early = pair.handle.submit_by(read(0, 512), by(4));
    let in_time = pair.handle.submit_by(write(0, pattern(512, 1)), by(2));
    assert_eq!(in_time.await.unwrap().result.unwrap().status, ScsiStatus::Good);
    assert!(matches!(early.await, Err(SubmitError::TimedOut)));
    assert_eq!(start.elapsed().as_secs(), 4);
    assert!(matches!(late.await, Err(SubmitError::TimedOut)));
    assert_eq!(start.elapsed().as_secs(), 9);
    // The functions come before what is submitted later.
    assert_eq!(
        pair.handle.submit(write(0, pattern(512, 2))).await.unwrap().result.unwrap().status,
        ScsiStatus::Good
    );
    assert_eq!(pair.journal.lock().unwrap().aborted, 2);
}
