//! One listening port for plain iSCSI, upgraded connections and iWARP from the start: the conformance scenarios over
//! each, and what becomes of connections that are none of them.

#![allow(clippy::disallowed_methods)] // a driver: here time begins

use datamover::conformance::{Features, Links, PairFactory};
use datamover::{ConnKeys, LoginLink, RdmaOffer};
use iscsi_connect::{Connector, Kind, Policy, Settings, listen};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// The suite polls from its own thread; sockets need a reactor that runs elsewhere.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A target that offers everything, an initiator that comes by one way.
struct OnePort {
    way: Kind,
    rdma_extensions: bool,
}

impl PairFactory for OnePort {
    fn pair(&self) -> Links {
        runtime().block_on(async {
            let everything = Policy::of(&[Kind::Iwarp, Kind::Upgrade, Kind::Tcp]);
            let mut portal = listen(loopback(), &Settings::new(everything)).await.unwrap();
            let address = portal.local_addr();
            let connector = Connector::new(Settings::new(Policy::of(&[self.way])));
            let ways = connector.ways(address);
            // The portal recognises a connection by its first byte, so something has to be sent before it is accepted.
            let connect = async {
                let mut link = ways[0].connect(address).await.unwrap();
                if self.way != Kind::Iwarp {
                    link.send_login(hello());
                    drive(&mut *link).await;
                }
                link
            };
            let (initiator, target) = tokio::join!(connect, portal.accept());
            let mut target = target.unwrap();
            if self.way != Kind::Iwarp {
                while target.poll_login().is_none() {
                    drive(&mut *target).await;
                }
            }
            Links { initiator, target }
        })
    }

    fn keys(&self) -> ConnKeys {
        let mut keys = ConnKeys::default();
        keys.rdma_extensions = self.rdma_extensions;
        if self.rdma_extensions {
            keys.tagged_buffer_for_solicited_data_only = Some(true);
        }
        keys
    }

    fn features(&self) -> Features {
        if self.rdma_extensions { Features::iser() } else { Features::default() }
    }
}

fn hello() -> iscsi_pdu::Pdu {
    let data = bytes::Bytes::from_static(b"InitiatorName=iqn.2026-01.org.example:a\0");
    iscsi_pdu::LoginRequest { data, ..Default::default() }.into()
}

async fn drive(link: &mut dyn LoginLink) {
    std::future::poll_fn(|cx| {
        let mut budget = datamover::Budget::new(std::time::Instant::now());
        let _ = link.poll_drive(cx, &mut budget);
        std::task::Poll::Ready(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}

datamover::conformance_tests!(upgraded, OnePort { way: Kind::Upgrade, rdma_extensions: true });
datamover::conformance_tests!(declined, OnePort { way: Kind::Upgrade, rdma_extensions: false });
datamover::conformance_tests!(plain, OnePort { way: Kind::Tcp, rdma_extensions: false });
datamover::conformance_tests!(iwarp_first, OnePort { way: Kind::Iwarp, rdma_extensions: true });

#[test]
fn the_offer_follows_the_policy() {
    runtime().block_on(async {
        for (policy, first, offer) in [
            (Policy::tcp(), Kind::Tcp, RdmaOffer::Never),
            (Policy::of(&[Kind::Upgrade]), Kind::Upgrade, RdmaOffer::Negotiable),
        ] {
            let mut portal = listen(loopback(), &Settings::new(policy.clone())).await.unwrap();
            let address = portal.local_addr();
            let ways = Connector::new(Settings::new(policy)).ways(address);
            assert_eq!(ways[0].kind(), first);
            let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, &[0x43]).await.unwrap();
            assert_eq!(portal.accept().await.unwrap().rdma_offer(), offer);
            let link = ways[0].connect(address).await.unwrap();
            assert_eq!(link.rdma_offer(), offer);
        }
        // iSER or nothing.
        let settings = Settings::new("iser".parse().unwrap());
        let portal = listen(loopback(), &settings).await.unwrap();
        let address = portal.local_addr();
        let ways = Connector::new(settings).ways(address);
        let upgrade = ways.iter().find(|w| w.kind() == Kind::Upgrade).unwrap();
        assert_eq!(upgrade.connect(address).await.unwrap().rdma_offer(), RdmaOffer::Always);
    });
}

#[test]
fn silent_and_strange_connections_do_not_keep_others_out() {
    let policy = Policy::of(&[Kind::Iwarp, Kind::Upgrade]);
    let mut portal = runtime().block_on(listen(loopback(), &Settings::new(policy))).unwrap();
    let address = portal.local_addr();
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut strange = TcpStream::connect(address).unwrap();
    strange.write_all(b"MUCH noise, and no MPA request at all, for as long as it takes to notice").unwrap();
    let mut normal = TcpStream::connect(address).unwrap();
    normal.write_all(&[0x43]).unwrap();
    let link = runtime().block_on(portal.accept()).unwrap();
    assert_eq!(link.transport().peer, normal.local_addr().ok());
    // The strange one is closed.
    strange.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(strange.read(&mut [0; 16]), Ok(0) | Err(_)));
    drop(silent);
}

#[test]
fn a_portal_in_use_is_an_error() {
    let settings = Settings::new(Policy::auto());
    let first = runtime().block_on(listen(loopback(), &settings)).unwrap();
    let again = runtime().block_on(listen(first.local_addr(), &settings));
    assert_eq!(again.err().map(|e| e.kind()), Some(std::io::ErrorKind::AddrInUse));
}
