//! Several connections a session: load on all of them, one lost or dropped while the others go on.

mod common;

use common::{Cable, IQN, attach, options, pattern, ram, serve, serve_with};
use iscsi_initiator::{ConnectOptions, Disk, Policy};
use iscsi_login::Preferences;
use iscsi_target::config::{Config, TargetConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const CHUNK: usize = 32 << 10;
const BLOCKS: u32 = CHUNK as u32 / 512;

fn four() -> ConnectOptions {
    over(Policy::tcp())
}

fn over(transport: Policy) -> ConnectOptions {
    let mut options = options();
    options.transport = transport;
    options.connections = 4;
    options
}

/// Waits until the session has this many connections.
async fn connections(disk: &Disk, wanted: usize) {
    for _ in 0..1200 {
        if disk.session().connections() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{} connections, not {wanted}", disk.session().connections());
}

/// Load until told to stop: eight workers write and read back their own chunks, each with the number of its round.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    workers: JoinSet<()>,
}

impl Load {
    fn on(disk: &Disk) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        let chunks = disk.capacity().bytes() / CHUNK as u64;
        for worker in 0..8 {
            let (disk, stop, rounds) = (disk.clone(), stop.clone(), rounds.clone());
            workers.spawn(async move {
                let mine: Vec<u64> = (worker..chunks).step_by(8).collect();
                let mut seen = vec![0; mine.len()];
                for round in 1.. {
                    for (chunk, last) in mine.iter().zip(&mut seen) {
                        let (offset, lba) = (chunk * CHUNK as u64, chunk * u64::from(BLOCKS));
                        if *last != 0 {
                            let back = disk.read(lba, BLOCKS).await.unwrap().to_bytes();
                            assert!(back == pattern(offset, CHUNK, *last), "chunk {chunk}, round {last}");
                        }
                        disk.write(lba, pattern(offset, CHUNK, round).into()).await.unwrap();
                        *last = round;
                        rounds.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                for (chunk, last) in mine.iter().zip(seen).filter(|(_, last)| *last != 0) {
                    let back = disk.read(chunk * u64::from(BLOCKS), BLOCKS).await.unwrap().to_bytes();
                    assert!(back == pattern(chunk * CHUNK as u64, CHUNK, last), "chunk {chunk} at the end");
                }
            });
        }
        Self { stop, rounds, workers }
    }

    /// Waits until the load has got further.
    async fn goes_on(&self) {
        let (before, mut now) = (self.rounds.load(Ordering::Relaxed), 0);
        for _ in 0..1200 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            now = self.rounds.load(Ordering::Relaxed);
            if now >= before + 32 {
                return;
            }
        }
        panic!("the load stands still at {now}");
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.workers.join_next().await {
            done.unwrap();
        }
    }
}

// req: 7143-4.2.5.1-3, 7143-4.2.1-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_load_is_spread_over_all_connections() {
    let server = serve(vec![ram(2)]).await;
    let disk = attach(server.local_addrs()[0], &four()).await;
    connections(&disk, 4).await;
    assert_eq!(server.sessions(), 1);
    let load = Load::on(&disk);
    load.goes_on().await;
    let stats = disk.session().connection_stats().await.unwrap();
    load.end().await;
    assert_eq!(stats.len(), 4);
    let moved: Vec<u64> = stats.iter().map(|s| s.pdus_in.min(s.pdus_out)).collect();
    let total: u64 = moved.iter().sum();
    assert!(moved.iter().all(|n| *n >= total / 16), "{moved:?}");
    disk.close().await.unwrap();
    server.shutdown().await;
}

// req: 7143-7.14-3, 7143-11.14-8, 7143-8.2-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_replaced_while_the_session_goes_on() {
    for transport in [Policy::tcp(), Policy::iser()] {
        lose_connections(over(transport)).await;
    }
}

async fn lose_connections(options: ConnectOptions) {
    let server = serve(vec![ram(2)]).await;
    let portal = server.local_addrs()[0];
    let cable = Cable::to(portal).await;
    let disk = attach(cable.address, &options).await;
    connections(&disk, 4).await;
    let load = Load::on(&disk);
    // The leading connection, too.
    for line in [2, 0, 3, 4, 5] {
        load.goes_on().await;
        while cable.lines() <= line {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        cable.cut_line(line);
    }
    load.goes_on().await;
    connections(&disk, 4).await;
    load.goes_on().await;
    assert_eq!(disk.session().reinstatements(), 0, "the session itself was never lost");
    assert_eq!(server.sessions(), 1);
    // All at once is the end of the session: it is reinstated, with all its connections.
    cable.cut();
    load.goes_on().await;
    connections(&disk, 4).await;
    assert_eq!(disk.session().reinstatements(), 1);
    load.end().await;
    disk.close().await.unwrap();
    server.shutdown().await;
}

// req: 7143-7.1.4.4-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_error_recovery_level_0_a_lost_connection_is_session_recovery() {
    let target = TargetConfig { luns: vec![ram(2)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let preferences = Some(Preferences { error_recovery_level: 0, ..Preferences::default() });
    let server = serve_with(Config { targets: vec![target], preferences, ..Config::default() }).await;
    let cable = Cable::to(server.local_addrs()[0]).await;
    let disk = attach(cable.address, &four()).await;
    connections(&disk, 4).await;
    let load = Load::on(&disk);
    load.goes_on().await;
    cable.cut_line(1);
    load.goes_on().await;
    connections(&disk, 4).await;
    assert_eq!(disk.session().reinstatements(), 1);
    load.end().await;
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_and_go_under_load() {
    let server = serve(vec![ram(2)]).await;
    let disk = attach(server.local_addrs()[0], &four()).await;
    let load = Load::on(&disk);
    for wanted in [4, 1, 3, 2, 4, 1, 4] {
        disk.session().set_connections(wanted);
        connections(&disk, wanted.into()).await;
        load.goes_on().await;
    }
    load.end().await;
    assert_eq!((disk.session().reinstatements(), server.sessions()), (0, 1));
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_the_target_grants() {
    let target =
        TargetConfig { max_connections: 2, luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let server = serve_with(Config { targets: vec![target], ..Config::default() }).await;
    let disk = attach(server.local_addrs()[0], &four()).await;
    connections(&disk, 2).await;
    disk.session().set_connections(9);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(disk.session().connections(), 2);
    disk.close().await.unwrap();
    server.shutdown().await;
}

/// What the target may want of connections: each is followed, and the load goes on.
// req: 7143-11.9.1-2, 7143-11.9.1-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_messages_of_the_target_are_followed_under_load() {
    let server = serve(vec![ram(2)]).await;
    let portal: SocketAddr = server.local_addrs()[0];
    let disk = attach(portal, &four()).await;
    connections(&disk, 4).await;
    let load = Load::on(&disk);
    load.goes_on().await;
    let session = |server: &iscsi_target::Server| server.sessions_with(IQN).remove(0);
    // Event 1: the connection is logged out, and another comes.
    let old = session(&server).connections()[1];
    session(&server).request_logout_of(old, Duration::from_secs(10));
    for _ in 0..1200 {
        if !session(&server).connections().contains(&old) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert!(!session(&server).connections().contains(&old));
    connections(&disk, 4).await;
    load.goes_on().await;
    // Event 2: it is dropped.
    let old = session(&server).connections()[2];
    session(&server).drop_connection(old);
    for _ in 0..1200 {
        if !session(&server).connections().contains(&old) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    load.goes_on().await;
    connections(&disk, 4).await;
    // Event 4: an exchange of text on every connection.
    session(&server).request_negotiation(Duration::from_secs(5));
    load.goes_on().await;
    assert_eq!(disk.session().reinstatements(), 0);
    // Event 3: all are dropped.
    session(&server).shutdown();
    load.goes_on().await;
    connections(&disk, 4).await;
    assert_eq!(disk.session().reinstatements(), 1);
    load.end().await;
    disk.close().await.unwrap();
    server.shutdown().await;
}

/// Negotiation in full feature phase: from now on the target sends PDUs of another length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segment_lengths_change_under_load() {
    let server = serve(vec![ram(2)]).await;
    let disk = attach(server.local_addrs()[0], &four()).await;
    connections(&disk, 4).await;
    let load = Load::on(&disk);
    for length in [512, 65_536, 4096, 1 << 20, 1000] {
        disk.session().declare_max_recv_data_segment_length(length).await.unwrap();
        load.goes_on().await;
    }
    load.end().await;
    assert_eq!(disk.session().reinstatements(), 0);
    disk.close().await.unwrap();
    server.shutdown().await;
}
