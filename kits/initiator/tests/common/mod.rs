//! A target in the process, a connection that can be cut, and data that tells where it belongs.
#![allow(dead_code)] // each test file uses its part

pub(crate) mod wire;

use bytes::Bytes;
use iscsi_initiator::{ConnectOptions, Disk, IscsiUrl};
use iscsi_target::Server;
use iscsi_target::config::{Backing, Config, LunConfig, TargetConfig};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const IQN: &str = "iqn.2026-01.org.example:test";

/// A target with these logical units on a port of its own.
pub(crate) async fn serve(luns: Vec<LunConfig>) -> Server {
    let target = TargetConfig { luns, ..TargetConfig::new(IQN.parse().unwrap()) };
    serve_with(Config { targets: vec![target], ..Config::default() }).await
}

/// A target on a port of its own, or as many as there are portal groups.
pub(crate) async fn serve_with(config: Config) -> Server {
    let portals = vec!["127.0.0.1:0".parse().unwrap(); config.portal_groups.len().max(1)];
    Server::start(Config { portals, ..config }).await.unwrap()
}

/// A RAM disk of this many MiB.
pub(crate) fn ram(mib: u64) -> LunConfig {
    LunConfig::new(Backing::Ram { size: mib << 20 })
}

pub(crate) fn url(portal: SocketAddr, lun: u16) -> IscsiUrl {
    format!("iscsi://{portal}/{IQN}/{lun}").parse().unwrap()
}

pub(crate) fn options() -> ConnectOptions {
    let mut options = ConnectOptions::new();
    options.timeout = Duration::from_secs(60);
    options
}

pub(crate) async fn attach(portal: SocketAddr, options: &ConnectOptions) -> Disk {
    Disk::attach(&url(portal, 0), options).await.unwrap()
}

/// Every eight bytes say their offset and round, so that nothing can be lost, torn or exchanged unnoticed.
pub(crate) fn pattern(offset: u64, len: usize, round: u64) -> Bytes {
    let words = (offset..offset + len as u64).step_by(8);
    words.flat_map(|o| (o.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round).to_le_bytes()).collect()
}

/// Forwards connections to a portal until they are cut.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<u64>,
    held: watch::Sender<bool>,
    lines: Mutex<Vec<watch::Sender<bool>>>,
    portal: Mutex<SocketAddr>,
}

impl Cable {
    pub(crate) async fn to(portal: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cable = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            cut: watch::Sender::new(0),
            held: watch::Sender::new(false),
            lines: Mutex::default(),
            portal: portal.into(),
        });
        let this = cable.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = this.cut.subscribe();
                let line = watch::Sender::new(false);
                let mut own = line.subscribe();
                this.lines.lock().unwrap().push(line);
                let portal = *this.portal.lock().unwrap();
                let mut held = this.held.subscribe();
                tokio::spawn(async move {
                    let _ = held.wait_for(|held| !held).await;
                    let Ok(mut far) = TcpStream::connect(portal).await else { return };
                    let _ = tokio::select! {
                        done = copy_bidirectional(&mut near, &mut far) => done.map(drop),
                        _ = cut.changed() => Ok(()),
                        _ = own.changed() => Ok(()),
                    };
                    // A cut cable says no goodbye: reset, both ways.
                    for stream in [near, far] {
                        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    }
                });
            }
        });
        cable
    }

    /// From now on leads to another portal.
    pub(crate) fn lead_to(&self, portal: SocketAddr) {
        *self.portal.lock().unwrap() = portal;
    }

    /// New connections lead nowhere until they are let through.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Connections so far, ended ones included.
    pub(crate) fn lines(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Ends one connection, named by its number from 0 on.
    pub(crate) fn cut_line(&self, line: usize) {
        self.lines.lock().unwrap()[line].send_replace(true);
    }

    /// Ends all connections that there are.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }
}
