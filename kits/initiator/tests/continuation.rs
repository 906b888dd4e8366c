//! ErrorRecoveryLevel 2: the session goes on though its connection is cut, and every command is executed once.

mod common;

use bytes::Bytes;
use common::{Cable, IQN, options, pattern, ram, serve_with, url};
use iscsi_connect::Policy;
use iscsi_initiator::{DataDirection, Disk, Error, ScsiCommand, Session};
use iscsi_pdu::Lun;
use iscsi_target::Server;
use iscsi_target::config::{Config, TargetConfig};
use scsi_cmd::cdb::CompareAndWrite;
use std::sync::Arc;
use std::time::Duration;

const CHUNK: usize = 256 << 10;
const BLOCKS: u32 = CHUNK as u32 / 512;

async fn serve(level: u8) -> Server {
    let target = TargetConfig { luns: vec![ram(16)], ..TargetConfig::new(IQN.parse().unwrap()) };
    serve_with(Config { targets: vec![target], error_recovery_level: Some(level), ..Config::default() }).await
}

async fn session(cable: &Cable, level: u8, connections: u16, policy: Policy) -> Session {
    let mut options = options();
    options.transport = policy;
    options.preferences.error_recovery_level = level;
    options.connections = connections;
    Session::connect(&url(cable.address, 0), &options).await.unwrap()
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), met).await.unwrap_or_else(|_| panic!("no {what}"));
}

/// Counts a block up by COMPARE AND WRITE: executed twice it would miscompare, and nothing repeats it that does not know
/// what became of the first attempt.
async fn count_up(session: &Session, lba: u64, from: u64) -> Result<(), Error> {
    let block = |n: u64| pattern(lba * 512, 512, n);
    let data: Bytes = [block(from), block(from + 1)].concat().into();
    let cdb = CompareAndWrite { lba, blocks: 1, ..CompareAndWrite::default() };
    let command = ScsiCommand::new(Lun::ZERO, cdb.into(), DataDirection::Out(data.into()));
    session.execute(command).await.map(drop)
}

/// Cuts the cable again and again while reads, writes and commands that must not be repeated are under way.
async fn nothing_is_noticed(connections: u16, policy: Policy) {
    let server = serve(2).await;
    let cable = Cable::to(server.local_addrs()[0]).await;
    let session = session(&cable, 2, connections, policy).await;
    let disk = Disk::open(session.clone(), Lun::ZERO).await.unwrap();
    let cutter = tokio::spawn({
        let cable = cable.clone();
        async move {
            for pause in [50, 2300, 2700] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                cable.cut();
            }
        }
    });
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..4u64 {
        let (session, disk, over) = (session.clone(), disk.clone(), over.clone());
        tasks.spawn(async move {
            // Blocks of its own behind the chunks, first in their first state.
            let lba = 4 * u64::from(BLOCKS) + worker;
            disk.write(lba, pattern(lba * 512, 512, 0).into()).await.unwrap();
            let (offset, start) = (worker * CHUNK as u64, worker * u64::from(BLOCKS));
            let mut round = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) || round < 2 {
                disk.write(start, pattern(offset, CHUNK, round).into()).await.unwrap();
                count_up(&session, lba, round).await.unwrap();
                let back = disk.read(start, BLOCKS).await.unwrap();
                assert!(back.to_bytes() == pattern(offset, CHUNK, round), "worker {worker}, round {round}");
                round += 1;
            }
            let last = disk.read(lba, 1).await.unwrap();
            assert!(last.to_bytes() == pattern(lba * 512, 512, round), "each was executed once");
        });
    }
    cutter.await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(session.reinstatements(), 0);
    assert_eq!(server.sessions(), 1);
    assert!(cable.lines() >= 4, "it was cut, and came back");
    disk.close().await.unwrap();
    server.shutdown().await;
}

// req: 7143-7.1.4.3-2, 7143-7.1.4.3-3, 7143-7.2.1-4, 7143-7.2.2-3, 7143-7.5-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_outlive_the_only_connection() {
    nothing_is_noticed(1, Policy::tcp()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_outlive_all_of_several_connections() {
    nothing_is_noticed(3, Policy::tcp()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_outlive_the_only_connection_over_iser() {
    nothing_is_noticed(1, Policy::iser()).await;
}

/// The last connection is lost while a further one is logging in, which goes on with the session in its place: nobody
/// waits for a replacement then, and the next loss asks for one of its own, after Time2Wait.
// req: 7143-7.5-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_under_way_takes_the_place_of_the_last_one() {
    let server = serve(2).await;
    let cable = Cable::to(server.local_addrs()[0]).await;
    let session = session(&cable, 2, 2, Policy::tcp()).await;
    let disk = Disk::open(session.clone(), Lun::ZERO).await.unwrap();
    wait_for("two connections", || session.connections() == 2).await;
    cable.hold(true);
    let lines = cable.lines();
    cable.cut_line(1);
    wait_for("another one under way", || cable.lines() > lines).await;
    cable.cut_line(0);
    wait_for("no connection", || session.connections() == 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cable.hold(false);
    wait_for("two connections", || session.connections() == 2).await;
    // With one alone, none is under way when it is lost.
    session.set_connections(1);
    wait_for("one connection", || session.connections() == 1).await;
    disk.write(0, pattern(0, 512, 1).into()).await.unwrap();
    let cut = tokio::time::Instant::now();
    cable.cut();
    wait_for("no connection", || session.connections() == 0).await;
    disk.write(1, pattern(512, 512, 1).into()).await.unwrap();
    assert!(cut.elapsed() >= Duration::from_secs(2), "Time2Wait");
    assert_eq!(session.reinstatements(), 0);
    disk.close().await.unwrap();
    server.shutdown().await;
}

/// A target that was restarted knows nothing of the session: it is reinstated at once, not after Time2Retain.
// req: 7143-7.1.4.4-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_cannot_go_on_is_reinstated() {
    let first = serve(2).await;
    let cable = Cable::to(first.local_addrs()[0]).await;
    let session = session(&cable, 2, 1, Policy::tcp()).await;
    let disk = Disk::open(session.clone(), Lun::ZERO).await.unwrap();
    let second = serve(2).await;
    cable.lead_to(second.local_addrs()[0]);
    cable.cut();
    let read = tokio::time::timeout(Duration::from_secs(15), disk.read(0, 1)).await;
    assert_eq!(read.expect("long before Time2Retain is over").unwrap().len(), 512);
    assert_eq!(session.reinstatements(), 1);
    disk.close().await.unwrap();
    first.shutdown().await;
    second.shutdown().await;
}

/// Between two connections there is nobody to say goodbye to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_between_connections_can_be_closed() {
    let server = serve(2).await;
    let cable = Cable::to(server.local_addrs()[0]).await;
    let session = session(&cable, 2, 1, Policy::tcp()).await;
    cable.cut();
    while session.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let closed = tokio::time::timeout(Duration::from_secs(5), session.close()).await;
    closed.expect("at once").unwrap();
    server.shutdown().await;
}
