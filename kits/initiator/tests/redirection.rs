//! Login redirection (RFC 7143 section 11.13.5), portal groups, and events that a target announces: bytes and behaviour.

mod common;

use common::wire::*;
use common::{IQN, attach, options, pattern, ram, serve, serve_with, url};
use iscsi_initiator::{Disk, Error};
use iscsi_login::Preferences;
use iscsi_target::Server;
use iscsi_target::config::{Config, Redirect, TargetConfig};
use std::net::SocketAddr;
use std::time::Duration;

const LEADING: Place = Place { isid: 1, tsih: 0, cid: 0, cmd_sn: 1 };

fn to(address: SocketAddr, permanently: bool) -> Redirect {
    Redirect { portals: Vec::new(), to: vec![address.to_string().parse().unwrap()], permanently }
}

async fn redirecting(redirects: Vec<Redirect>) -> Server {
    let target = TargetConfig { redirects, luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    serve_with(Config { targets: vec![target], ..Config::default() }).await
}

// 0101h, target moved temporarily; 0102h, permanently; TargetAddress without portal group tag; then the end.
// req: 7143-11.13.5-1, 7143-11.13.5-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirection_as_it_is_on_the_wire() {
    for (permanently, status) in [(false, 0x0101), (true, 0x0102)] {
        let elsewhere = "192.0.2.7:3261".parse().unwrap();
        let server = redirecting(vec![to(elsewhere, permanently)]).await;
        let mut wire = Wire::new(server.local_addrs()[0]);
        let answer = wire.log_in(LEADING, &names(""));
        assert_eq!(answer.login_status(), status);
        assert_eq!(answer.data, b"TargetAddress=192.0.2.7:3261\0");
        assert!(wire.is_closed());
        server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirection_concerns_its_portals_alone() {
    let server = serve(vec![ram(1)]).await;
    let here = server.local_addrs()[0];
    let other = Redirect { portals: vec!["192.0.2.1:3260".parse().unwrap()], ..to(here, false) };
    let same = Redirect { portals: vec!["127.0.0.1:0".parse().unwrap()], ..to(here, false) };
    for (redirect, status) in [(other, 0), (same, 0x0101)] {
        let redirecting = redirecting(vec![redirect]).await;
        let answer = Wire::new(redirecting.local_addrs()[0]).log_in(LEADING, &names(""));
        assert_eq!(answer.login_status(), status);
        redirecting.shutdown().await;
    }
    server.shutdown().await;
}

// A temporary redirection is asked for again at the next login, a permanent one is not: the second time the old address
// leads nowhere any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirections_are_followed_and_permanent_ones_remembered() {
    for permanently in [true, false] {
        let server = serve(vec![ram(1)]).await;
        let first = redirecting(vec![to(server.local_addrs()[0], permanently)]).await;
        let mut options = options();
        options.reconnect = Duration::from_secs(2);
        let disk = attach(first.local_addrs()[0], &options).await;
        disk.write(0, pattern(0, 4096, 1).into()).await.unwrap();
        assert_eq!((first.sessions(), server.sessions()), (0, 1));
        first.shutdown().await;
        server.sessions_with(IQN).remove(0).shutdown();
        // Nobody comes back to this server; a read must not come before the end.
        while !permanently && server.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let again = disk.read(0, 8).await;
        if permanently {
            assert!(again.unwrap().to_bytes() == pattern(0, 4096, 1));
        } else {
            assert!(matches!(again, Err(Error::SessionLost(_))), "{again:?}");
        }
        drop(disk);
        server.shutdown().await;
    }
}

// A redirection may hold several addresses (section 11.13.5): where nobody is at the first, the next is tried, and a
// permanent one is remembered as the place where somebody was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_address_of_a_redirection_is_tried() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let server = serve(vec![ram(1)]).await;
    let addresses = [closed, server.local_addrs()[0]];
    let both = addresses.iter().map(|a| a.to_string().parse().unwrap()).collect();
    let first = redirecting(vec![Redirect { to: both, ..to(closed, true) }]).await;
    let mut options = options();
    options.reconnect = Duration::from_secs(5);
    let disk = attach(first.local_addrs()[0], &options).await;
    disk.write(0, pattern(0, 4096, 1).into()).await.unwrap();
    assert_eq!(server.sessions(), 1);
    first.shutdown().await;
    server.sessions_with(IQN).remove(0).shutdown();
    assert!(disk.read(0, 8).await.unwrap().to_bytes() == pattern(0, 4096, 1));
    drop(disk);
    server.shutdown().await;
    // Where nobody is at all, that is the error.
    let lost = redirecting(vec![to(closed, true)]).await;
    let result = Disk::attach(&url(lost.local_addrs()[0], 0), &options).await;
    assert!(matches!(result, Err(Error::Connect { .. })), "{:?}", result.err());
    lost.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn circles_end() {
    // Two targets that send everybody to each other, and one that sends to itself.
    let own = redirecting(Vec::new()).await;
    let port = own.local_addrs()[0];
    own.shutdown().await;
    let a = redirecting(vec![to(port, false)]).await;
    let redirects = vec![to(a.local_addrs()[0], true)];
    let target = TargetConfig { redirects, ..TargetConfig::new(IQN.parse().unwrap()) };
    let b = Server::start(Config { portals: vec![port], targets: vec![target], ..Config::default() })
        .await
        .unwrap();
    let (from, options) = (url(a.local_addrs()[0], 0), options());
    let result = tokio::time::timeout(Duration::from_secs(60), Disk::attach(&from, &options)).await;
    assert!(matches!(result.unwrap(), Err(Error::RedirectLoop)));
    a.shutdown().await;
    b.shutdown().await;
}

// Section 4.1: a session spans the portals of one group. TargetPortalGroupTag and SendTargets tell which is in which.
// req: 7143-13.9-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_of_two_groups() {
    let target = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let config = Config { targets: vec![target], portal_groups: vec![1, 7, 7], ..Config::default() };
    let server = serve_with(config).await;
    let portals = server.local_addrs().to_vec();
    let mut wire = Wire::new(portals[1]);
    let answer = wire.log_in(LEADING, &names("MaxConnections=4\0"));
    assert_eq!(answer.login_status(), 0);
    let text = String::from_utf8(answer.data.clone()).unwrap();
    assert!(text.split('\0').any(|pair| pair == "TargetPortalGroupTag=7"), "{text}");
    let place = Place { tsih: answer.tsih(), cid: 1, ..LEADING };
    assert_eq!(Wire::new(portals[0]).log_in(place, &names("")).login_status(), 0x0208);
    let mut second = Wire::new(portals[2]);
    assert_eq!(second.log_in(place, &names("")).login_status(), 0);
    // The same ISID in another group is another nexus: nothing is reinstated.
    assert_eq!(Wire::new(portals[0]).log_in(LEADING, &names("")).login_status(), 0);
    // Text Request, section 11.10, immediate: SendTargets of this session's target.
    let mut request = [0; 48];
    request[0] = 0x44;
    request[1] = 0x80;
    request[19] = 9;
    request[20..24].copy_from_slice(&[0xff; 4]);
    request[27] = 1;
    wire.send(request, b"SendTargets=\0");
    let answer = wire.answer();
    assert_eq!(answer.opcode(), 0x24);
    let expected = format!(
        "TargetName={IQN}\0TargetAddress={},1\0TargetAddress={},7\0TargetAddress={},7\0",
        portals[0], portals[1], portals[2]
    );
    assert_eq!(String::from_utf8(answer.data).unwrap(), expected);
    server.shutdown().await;
}

// Async Messages, section 11.9: opcode 32h, F, AsyncEvent in byte 36, Parameter1 to 3 in bytes 38, 40, 42.
// req: 7143-11.9.1-1, 7143-11.9.1-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_as_they_are_on_the_wire() {
    let preferences = Preferences { default_time2wait: 3, default_time2retain: 9, ..Preferences::default() };
    let target = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let server =
        serve_with(Config { targets: vec![target], preferences: Some(preferences), ..Config::default() })
            .await;
    let portal = server.local_addrs()[0];
    let keys = names("MaxConnections=2\0DefaultTime2Wait=3\0DefaultTime2Retain=9\0");
    let (mut a, tsih) = Wire::logged_in(portal, LEADING, &keys);
    let (mut b, _) = Wire::logged_in(portal, Place { tsih, cid: 5, ..LEADING }, &names(""));
    let control = server.sessions_with(IQN).remove(0);
    while control.connections().len() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let event = |answer: &Answer| {
        assert_eq!((answer.opcode(), answer.word(16)), (0x32, u32::MAX), "{answer:?}");
        let parameter = |at: usize| u16::from_be_bytes([answer.bhs[at], answer.bhs[at + 1]]);
        (answer.bhs[36], parameter(38), parameter(40), parameter(42))
    };
    // 4, request for negotiation: Parameter3 is the time within which it is to begin.
    control.request_negotiation(Duration::from_secs(11));
    assert_eq!(event(&a.answer()), (4, 0, 0, 11));
    assert_eq!(event(&b.answer()), (4, 0, 0, 11));
    // 1, request for logout, likewise.
    control.request_logout_of(iscsi_pdu::Cid(5), Duration::from_secs(17));
    assert_eq!(event(&b.answer()), (1, 0, 0, 17));
    // 2, connection drop: CID, Time2Wait, Time2Retain; on a connection that stays.
    control.drop_connection(iscsi_pdu::Cid(5));
    let dropped = event(&a.answer());
    assert_eq!(dropped, (2, 5, 3, 9));
    // 3, all connections are dropped: Time2Wait.
    control.shutdown();
    let (code, _, wait, _) = event(&a.answer());
    assert_eq!((code, wait), (3, 3));
    assert!(a.is_closed());
    server.shutdown().await;
}
