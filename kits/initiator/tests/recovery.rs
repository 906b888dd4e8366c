//! What a session survives.

mod common;

use async_trait::async_trait;
use common::{Cable, attach, options, pattern, ram, serve};
use datamover::{Acceptor, Fabric, LoginLink};
use iscsi_connect::{Connector, Kind, Policy, Settings};
use iscsi_initiator::Disk;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CHUNK: usize = 64 << 10;
const BLOCKS: u32 = CHUNK as u32 / 512;

/// Writes and reads back `rounds` times, four chunks at a time, all over the disk.
async fn work(disk: &Disk, rounds: u64) {
    let chunks = disk.capacity().bytes() / CHUNK as u64;
    for round in 0..rounds {
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..4 {
            let disk = disk.clone();
            tasks.spawn(async move {
                for chunk in (worker..chunks).step_by(4) {
                    let (offset, lba) = (chunk * CHUNK as u64, chunk * u64::from(BLOCKS));
                    disk.write(lba, pattern(offset, CHUNK, round).into()).await.unwrap();
                    let back = disk.read(lba, BLOCKS).await.unwrap();
                    assert!(back.to_bytes() == pattern(offset, CHUNK, round), "chunk {chunk}, round {round}");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}

/// After the work every chunk holds what its last round wrote, seen over a connection of its own.
async fn check(portal: SocketAddr, round: u64) {
    let disk = attach(portal, &options()).await;
    for chunk in 0..disk.capacity().bytes() / CHUNK as u64 {
        let back = disk.read(chunk * u64::from(BLOCKS), BLOCKS).await.unwrap();
        assert!(back.to_bytes() == pattern(chunk * CHUNK as u64, CHUNK, round), "chunk {chunk}");
    }
    disk.close().await.unwrap();
}

// req: 7143-6.3.5-2, 7143-6.3.5-3
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_loses_nothing() {
    let server = serve(vec![ram(4)]).await;
    let portal = server.local_addrs()[0];
    let cable = Cable::to(portal).await;
    for policy in [Policy::tcp(), Policy::iser()] {
        let mut options = options();
        options.transport = policy;
        let disk = attach(cable.address, &options).await;
        let cutter = tokio::spawn({
            let cable = cable.clone();
            async move {
                for pause in [30, 2500] {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    cable.cut();
                }
            }
        });
        let mut rounds = 0;
        while !cutter.is_finished() || rounds < 2 {
            work(&disk, 1).await;
            rounds += 1;
        }
        assert_eq!(server.sessions(), 1, "the same ISID reinstates, it does not add");
        disk.close().await.unwrap();
        check(portal, 0).await;
    }
    server.shutdown().await;
}

/// An RDMA device, played by software iWARP over a cable, that can be taken out of the machine.
struct Device {
    inner: iser_rdma::provider::iwarp::IwarpFabric,
    cable: Arc<Cable>,
    present: Arc<AtomicBool>,
}

#[async_trait]
impl Fabric for Device {
    fn name(&self) -> &'static str {
        "rdma"
    }

    async fn connect(&self, _portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        if self.present.load(Ordering::Acquire) {
            self.inner.connect(self.cable.address).await
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    async fn listen(&self, _portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rdma_device_that_goes_away_is_replaced_by_tcp() {
    let server = serve(vec![ram(4)]).await;
    let portal = server.local_addrs()[0];
    let cable = Cable::to(portal).await;
    let present = Arc::new(AtomicBool::new(true));
    let settings = Settings::new(Policy::of(&[Kind::Tcp]));
    let device = Device {
        inner: iser_rdma::provider::iwarp::IwarpFabric::new(
            settings.iwarp.clone(),
            settings.quirks.clone(),
            || [7; 16],
        ),
        cable: cable.clone(),
        present: present.clone(),
    };
    let mut options = options();
    options.connector = Some(Connector::new(settings).with_way(Kind::Rdma, Arc::new(device)));
    let disk = attach(portal, &options).await;
    assert_eq!(disk.transport(), "iser (iwarp)");
    let remover = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        present.store(false, Ordering::Release);
        cable.cut();
    });
    let mut rounds = 0;
    while !remover.is_finished() || rounds < 2 {
        work(&disk, 1).await;
        rounds += 1;
    }
    assert_eq!(disk.transport(), "tcp");
    disk.close().await.unwrap();
    check(portal, 0).await;
    server.shutdown().await;
}

/// Dropping the future of an operation aborts it at the target: the session goes on, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_operations_leave_nothing_behind() {
    let server = serve(vec![ram(16)]).await;
    let portal = server.local_addrs()[0];
    for policy in [Policy::tcp(), Policy::iser()] {
        let mut options = options();
        options.transport = policy;
        let disk = attach(portal, &options).await;
        for n in 0..200u64 {
            let read = disk.read(n * 8, 2048);
            let _ = tokio::time::timeout(Duration::from_micros(n * 5), read).await;
            let write = disk.write(n * 8, pattern(n, 1 << 20, n).into());
            let _ = tokio::time::timeout(Duration::from_micros(n * 5), write).await;
        }
        work(&disk, 1).await;
        disk.close().await.unwrap();
        check(portal, 0).await;
    }
    server.shutdown().await;
}

/// A target that restarts between a write and the flush has lost the write: the flush must not say otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_tells_of_writes_that_a_restart_took() {
    let server = serve(vec![ram(1)]).await;
    let cable = Cable::to(server.local_addrs()[0]).await;
    let disk = attach(cable.address, &options()).await;
    disk.write(0, pattern(0, 4096, 1).into()).await.unwrap();
    disk.flush().await.unwrap();
    disk.write(8, pattern(0, 4096, 1).into()).await.unwrap();
    server.shutdown().await;
    let server = serve(vec![ram(1)]).await;
    cable.lead_to(server.local_addrs()[0]);
    assert!(matches!(disk.flush().await, Err(iscsi_initiator::Error::WritesLost)));
    disk.write(8, pattern(0, 4096, 2).into()).await.unwrap();
    disk.flush().await.unwrap();
    disk.close().await.unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_without_an_answer_is_tried_again() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    // The system takes connections here, and nobody reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cable = Cable::to(portal).await;
    let mut options = options();
    options.timeout = Duration::from_secs(8);
    let disk = attach(cable.address, &options).await;
    cable.lead_to(silent.local_addr().unwrap());
    let (lines, start) = (cable.lines(), tokio::time::Instant::now());
    cable.cut();
    while cable.lines() == lines {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cable.lead_to(portal);
    // The command outlives the connection and the login that got no answer, in the time that it has.
    work(&disk, 1).await;
    assert!(start.elapsed() > Duration::from_secs(2), "the first login was given its time");
    assert!(cable.lines() > lines + 1);
    disk.close().await.unwrap();
    check(portal, 0).await;
    server.shutdown().await;
}
