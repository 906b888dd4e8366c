//! A target gets another configuration while sessions go on.

mod common;

use common::{IQN, options, pattern, ram};
use iscsi_initiator::{ConnectOptions, DataDirection, Disk, Error, ScsiCommand, Session};
use iscsi_login::IscsiName;
use iscsi_login::auth::{ChapCredentials, Secret};
use iscsi_pdu::Lun;
use iscsi_target::config::{Backing, Chap, Config, LunConfig, TargetConfig};
use iscsi_target::{Change, ReloadError, Server};
use scsi_cmd::Asc;
use scsi_cmd::cdb::TestUnitReady;
use std::time::Duration;

const OTHER: &str = "iqn.2026-01.org.example:other";
const THIRD: &str = "iqn.2026-01.org.example:third";
const OLD: &str = "the first secret";
const NEW: &str = "the second secret";

fn name(text: &str) -> IscsiName {
    text.parse().unwrap()
}

fn target(iqn: &str, luns: Vec<LunConfig>) -> TargetConfig {
    TargetConfig { luns, ..TargetConfig::new(name(iqn)) }
}

fn with_secret(secret: &str, luns: Vec<LunConfig>) -> TargetConfig {
    TargetConfig { chap: Some(Chap::new("alice", secret, None).unwrap()), ..target(IQN, luns) }
}

fn config(targets: Vec<TargetConfig>) -> Config {
    Config { portals: vec!["127.0.0.1:0".parse().unwrap()], targets, ..Config::default() }
}

fn alice(secret: &str) -> ConnectOptions {
    let credentials = ChapCredentials::new("alice", Secret::parse(secret).unwrap()).unwrap();
    let mut options = options();
    options.chap = Some(credentials);
    options
}

async fn session(server: &Server, iqn: &str, options: &ConnectOptions) -> Result<Session, Error> {
    let url = format!("iscsi://{}/{iqn}/0", server.local_addrs()[0]);
    let mut options = options.clone();
    options.reconnect = Duration::ZERO;
    Session::connect(&url.parse().unwrap(), &options).await
}

/// The unit attention conditions that wait.
async fn attentions(session: &Session) -> Vec<Asc> {
    let mut all = Vec::new();
    loop {
        let command = ScsiCommand::new(Lun::ZERO, TestUnitReady {}.into(), DataDirection::None);
        match session.execute(command).await {
            Err(Error::Scsi(error)) if error.is_unit_attention() => all.push(error.sense.unwrap().asc),
            Ok(_) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until a target has so many sessions.
async fn sessions_are(server: &Server, iqn: &str, number: usize) {
    let wait = async {
        while server.sessions_with(iqn).len() != number {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect(iqn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_changes_and_what_it_leaves() {
    let first = config(vec![with_secret(OLD, vec![ram(1)]), target(OTHER, vec![ram(1)])]);
    let server = Server::start(first).await.unwrap();
    let one = session(&server, IQN, &alice(OLD)).await.unwrap();
    let url = format!("iscsi://{}/{IQN}/0", server.local_addrs()[0]);
    let disk = Disk::attach(&url.parse().unwrap(), &alice(OLD)).await.unwrap();
    let other = session(&server, OTHER, &options()).await.unwrap();
    attentions(&one).await;
    disk.write(0, pattern(0, 4096, 1).into()).await.unwrap();

    // I/O goes on meanwhile.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let io = async {
        let mut round = 1;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) || round < 20 {
            assert!(disk.read(0, 8).await.unwrap().to_bytes() == pattern(0, 4096, round));
            round += 1;
            disk.write(0, pattern(0, 4096, round).into()).await.unwrap();
        }
        round
    };
    let reload = async {
        let second = vec![with_secret(NEW, vec![ram(2), ram(4)]), target(THIRD, vec![ram(1)])];
        let changes = server.reload(config(second)).await.unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        changes
    };
    let (round, changes) = tokio::join!(io, reload);
    let initiator = options().initiator_name;
    assert_eq!(
        changes,
        [
            Change::UnitResized { target: name(IQN), lun: 0, blocks: 4096 },
            Change::UnitAdded { target: name(IQN), lun: 1 },
            Change::TargetAdded { target: name(THIRD) },
            Change::UnitAdded { target: name(THIRD), lun: 0 },
            Change::TargetRemoved { target: name(OTHER) },
            Change::SessionDismissed { target: name(OTHER), initiator },
        ]
    );
    // The sessions with the target that stays are the same, and were told.
    assert_eq!(attentions(&one).await, [Asc::CAPACITY_DATA_HAS_CHANGED, Asc::REPORTED_LUNS_DATA_HAS_CHANGED]);
    assert_eq!(one.report_luns().await.unwrap().len(), 2);
    assert_eq!((one.reinstatements(), disk.session().reinstatements()), (0, 0));
    assert!(disk.read(0, 8).await.unwrap().to_bytes() == pattern(0, 4096, round));
    disk.write(4095, pattern(0, 512, 9).into()).await.unwrap();
    // The secret is another one.
    assert!(session(&server, IQN, &alice(OLD)).await.is_err_and(|e| e.login_failure().is_some()));
    session(&server, IQN, &alice(NEW)).await.unwrap().close().await.unwrap();
    // What is gone is gone, what is new is there.
    sessions_are(&server, OTHER, 0).await;
    assert!(session(&server, OTHER, &options()).await.is_err_and(|e| e.login_failure().is_some()));
    assert!(other.report_luns().await.is_err());
    session(&server, THIRD, &options()).await.unwrap().close().await.unwrap();
    assert_eq!(server.sessions_with(IQN).len(), 2);
    drop((one, disk));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_changes_nothing() {
    let server = Server::start(config(vec![with_secret(OLD, vec![ram(1)])])).await.unwrap();
    let one = session(&server, IQN, &alice(OLD)).await.unwrap();
    attentions(&one).await;
    let nowhere = LunConfig::new(Backing::Path { path: "/nonexistent/disk".into(), create: None });
    let wrong = vec![with_secret(NEW, vec![ram(2), ram(1)]), target(THIRD, vec![ram(1), nowhere])];
    let error = server.reload(config(wrong)).await.unwrap_err().to_string();
    assert!(
        error.contains(THIRD) && error.contains("LUN 1") && error.contains("/nonexistent/disk"),
        "{error}"
    );
    let twice = LunConfig { lun: Some(0), ..ram(1) };
    let error = server.reload(config(vec![target(IQN, vec![ram(1), twice])])).await.unwrap_err();
    assert!(matches!(error, ReloadError::Node(_)), "{error}");
    let elsewhere = "127.0.0.1:1".parse().unwrap();
    let moved = Config { portals: vec![elsewhere], ..config(vec![with_secret(NEW, vec![])]) };
    let error = server.reload(moved).await.unwrap_err();
    assert!(matches!(error, ReloadError::Fixed("portals")), "{error}");
    assert_eq!(attentions(&one).await, []);
    assert_eq!(one.report_luns().await.unwrap().len(), 1);
    session(&server, IQN, &alice(OLD)).await.unwrap().close().await.unwrap();
    assert!(server.device(THIRD).is_none());
    drop(one);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_are_replaced_and_initiators_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let file = |n: u8, size: u64| {
        let path = dir.path().join(format!("{n}"));
        LunConfig::new(Backing::Path { path, create: Some(size) })
    };
    let all = TargetConfig { allow: vec![], ..target(IQN, vec![file(0, 1 << 20), file(1, 1 << 20)]) };
    let server = Server::start(config(vec![all.clone()])).await.unwrap();
    let one = session(&server, IQN, &options()).await.unwrap();
    attentions(&one).await;
    // The same configuration again changes nothing.
    assert_eq!(server.reload(config(vec![all])).await.unwrap(), []);
    assert_eq!(attentions(&one).await, []);
    // Another file in the place of the first, which has grown meanwhile; the second becomes the third.
    let grown = std::fs::OpenOptions::new().write(true).open(dir.path().join("0")).unwrap();
    grown.set_len(3 << 20).unwrap();
    assert_eq!(server.rescan().await, [Change::UnitResized { target: name(IQN), lun: 0, blocks: 6144 }]);
    assert_eq!(attentions(&one).await, [Asc::CAPACITY_DATA_HAS_CHANGED]);
    // A file has one unit at a time: it goes, and then comes back as another one.
    let moved = LunConfig { lun: Some(2), ..file(1, 1 << 20) };
    let next = target(IQN, vec![file(7, 1 << 20), moved]);
    let error = server.reload(config(vec![next.clone()])).await.unwrap_err().to_string();
    assert!(error.contains("LUN 2: its file is in use by LUN 1"), "{error}");
    assert_eq!(attentions(&one).await, []);
    let without = target(IQN, vec![file(7, 1 << 20)]);
    assert_eq!(
        server.reload(config(vec![without])).await.unwrap(),
        [
            Change::UnitRemoved { target: name(IQN), lun: 1 },
            Change::UnitReplaced { target: name(IQN), lun: 0 },
        ]
    );
    let back = async {
        loop {
            // The session lets go of the file in its own time.
            match server.reload(config(vec![next.clone()])).await {
                Ok(changes) => return changes,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let changes = tokio::time::timeout(Duration::from_secs(20), back).await.expect("the file is free");
    assert_eq!(changes, [Change::UnitAdded { target: name(IQN), lun: 2 }]);
    assert_eq!(
        attentions(&one).await,
        [Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, Asc::REPORTED_LUNS_DATA_HAS_CHANGED]
    );
    assert_eq!(one.report_luns().await.unwrap().len(), 2);
    // Only somebody else may log in from now on.
    let elsewhere = TargetConfig { allow: vec![name("iqn.2026-01.org.example:host")], ..next };
    let initiator = options().initiator_name;
    assert_eq!(
        server.reload(config(vec![elsewhere])).await.unwrap(),
        [Change::SessionDismissed { target: name(IQN), initiator }]
    );
    sessions_are(&server, IQN, 0).await;
    assert!(session(&server, IQN, &options()).await.is_err_and(|e| e.login_failure().is_some()));
    server.shutdown().await;
}
