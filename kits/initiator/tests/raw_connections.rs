//! Several connections a session as the target sees them: PDUs typed from RFC 7143.

mod common;

use common::wire::*;
use common::{IQN, ram, serve, serve_with};
use iscsi_target::config::{Config, TargetConfig};
use std::net::SocketAddr;

const LEADING: Place = Place { isid: 1, tsih: 0, cid: 0, cmd_sn: 1 };

/// A session whose unit attention has been taken: the next CmdSN is 2.
fn session(portal: SocketAddr, keys: &str) -> (Wire, u16) {
    let (mut wire, tsih) = Wire::logged_in(portal, LEADING, &names(keys));
    wire.send(ready(1, 1), &[]);
    assert_eq!(wire.answer().asc().0, 0x29);
    (wire, tsih)
}

fn join(portal: SocketAddr, place: Place) -> Wire {
    Wire::logged_in(portal, place, &names("")).0
}

// The later connection is the faster one: its commands wait for those before them.
// req: 7143-4.2.2.1-7
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_in_the_order_of_cmd_sn_whatever_connection_they_came_by() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let (mut a, tsih) = session(portal, "MaxConnections=3\0ImmediateData=Yes\0");
    let mut b = join(portal, Place { tsih, cid: 1, cmd_sn: 2, ..LEADING });
    let mut c = join(portal, Place { tsih, cid: 2, cmd_sn: 2, ..LEADING });
    for round in 0..20u8 {
        let sn = 2 + 4 * u32::from(round);
        c.send(read_block(4, sn + 3, 0), &[]);
        b.send(write_block(3, sn + 2, 0), &[0xb0 | round & 0xf; 512]);
        b.send(write_block(2, sn + 1, 0), &[0xc0 | round & 0xf; 512]);
        if round == 0 {
            assert!(b.is_silent() && c.is_silent(), "nothing before its turn");
        }
        a.send(write_block(1, sn, 0), &[0xa0 | round & 0xf; 512]);
        let first = a.answer();
        assert_eq!((first.opcode(), first.bhs[3], first.itt()), (0x21, 0, 1));
        for itt in [2, 3] {
            let answer = b.answer();
            assert_eq!((answer.opcode(), answer.bhs[3], answer.itt()), (0x21, 0, itt));
        }
        let read = c.answer();
        assert_eq!((read.opcode(), read.itt()), (0x25, 4));
        assert!(read.data == [0xb0 | round & 0xf; 512], "the last write before the read");
        if read.bhs[1] & 1 == 0 {
            assert_eq!(c.answer().bhs[3], 0);
        }
    }
    drop((a, b, c));
    server.shutdown().await;
}

// req: 7143-6.3.1-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_own_initiator_joins_a_session() {
    let other = "iqn.2026-01.org.example:other";
    let second = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(other.parse().unwrap()) };
    let first = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let server = serve_with(Config { targets: vec![first, second], ..Config::default() }).await;
    let portal = server.local_addrs()[0];
    let (_a, tsih) = session(portal, "MaxConnections=4\0");
    let status = |place: Place, text: &str| Wire::new(portal).log_in(place, text).login_status();
    let place = Place { tsih, cid: 1, cmd_sn: 2, ..LEADING };
    // 020Ah, session does not exist: no such TSIH; that of another ISID or another InitiatorName.
    assert_eq!(status(Place { tsih: tsih.wrapping_add(1), ..place }, &names("")), 0x020a);
    assert_eq!(status(Place { isid: 9, ..place }, &names("")), 0x020a);
    let thief = names("").replace("example:raw", "example:thief");
    assert_eq!(status(place, &thief), 0x020a);
    // 0208h, cannot include in session: the session is with another target.
    assert_eq!(status(place, &names("").replace(IQN, other)), 0x0208);
    assert_eq!(status(place, &names("")), 0);
    server.shutdown().await;
}

// 0206h, too many connections; counted with the logins that are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_connections_counts_logins_that_end_at_the_same_time() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let (mut a, tsih) = session(portal, "MaxConnections=3\0");
    let place = |cid| Place { tsih, cid, cmd_sn: 2, ..LEADING };
    // Six logins stand before their last step.
    let mut logins: Vec<Wire> = (1..=6)
        .map(|cid| {
            let mut wire = Wire::new(portal);
            wire.send(login(place(cid), 0x04), names("").as_bytes());
            let answer = wire.answer();
            assert_eq!((answer.login_status(), answer.bhs[1] & 0x80), (0, 0), "not there yet");
            wire
        })
        .collect();
    for (wire, cid) in logins.iter_mut().zip(1..) {
        wire.send(login(place(cid), 0x87), &[]);
    }
    let statuses: Vec<u16> = logins.iter_mut().map(|w| w.answer().login_status()).collect();
    assert_eq!(statuses.iter().filter(|s| **s == 0).count(), 2, "{statuses:x?}");
    assert_eq!(statuses.iter().filter(|s| **s == 0x0206).count(), 4, "{statuses:x?}");
    // One with the CID of an open connection takes its place.
    let open = statuses.iter().position(|s| *s == 0).unwrap();
    let mut successor = Wire::new(portal);
    assert_eq!(successor.log_in(place(open as u8 + 1), &names("")).login_status(), 0);
    assert!(logins[open].is_closed(), "connection reinstatement logs the old one out");
    // What one leaves another may take.
    a.send(logout(1, 9, open as u8 + 1, 2), &[]);
    let answer = a.answer();
    assert_eq!((answer.opcode(), answer.bhs[2], answer.itt()), (0x26, 0, 9));
    assert!(successor.is_closed());
    assert_eq!(Wire::new(portal).log_in(place(7), &names("")).login_status(), 0);
    server.shutdown().await;
}

// The initiator alone knows that its connection is lost: the target has seen no end of it.
// req: 7143-6.3.4-2
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_level_2_there_is_room_for_a_connection_to_recover_over() {
    let target = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let config = Config { targets: vec![target], error_recovery_level: Some(2), ..Config::default() };
    let server = serve_with(config).await;
    let portal = server.local_addrs()[0];
    let (mut a, tsih) = session(portal, "MaxConnections=1\0ErrorRecoveryLevel=2\0");
    let mut b = join(portal, Place { tsih, cid: 1, cmd_sn: 2, ..LEADING });
    // For one, not for more.
    let third = Place { tsih, cid: 2, cmd_sn: 2, ..LEADING };
    assert_eq!(Wire::new(portal).log_in(third, &names("")).login_status(), 0x0206);
    // Reason 2: the connection is removed for recovery.
    b.send(logout(2, 3, 0, 2), &[]);
    let answer = b.answer();
    assert_eq!((answer.opcode(), answer.bhs[2], answer.itt()), (0x26, 0, 3));
    assert!(a.is_closed());
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_joins_a_session_that_has_been_logged_out() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let (mut a, tsih) = session(portal, "MaxConnections=3\0");
    let place = Place { tsih, cid: 1, cmd_sn: 2, ..LEADING };
    let mut late = Wire::new(portal);
    late.send(login(place, 0x04), names("").as_bytes());
    assert_eq!(late.answer().login_status(), 0);
    a.send(logout(0, 9, 0, 2), &[]);
    assert_eq!((a.answer().bhs[2], a.is_closed()), (0, true));
    late.send(login(place, 0x87), &[]);
    assert_eq!(late.answer().login_status(), 0x020a);
    server.shutdown().await;
}

// Section 11.14: reason 1 for another connection ends the tasks of that one; their numbers are filled by the initiator.
// req: 7143-11.14-4, 7143-11.15-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_closed_over_another_and_the_session_goes_on() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let (mut a, tsih) = session(portal, "MaxConnections=2\0");
    let mut b = join(portal, Place { tsih, cid: 1, cmd_sn: 2, ..LEADING });
    // A command on B that waits for one before it, which never comes.
    b.send(ready(2, 3), &[]);
    assert!(b.is_silent());
    a.send(logout(1, 3, 1, 4), &[]);
    let answer = a.answer();
    assert_eq!((answer.opcode(), answer.bhs[2], answer.itt()), (0x26, 0, 3));
    assert_eq!(answer.word(28), 2, "ExpCmdSN: 3 has not been received in turn");
    assert!(b.is_closed());
    for (itt, cmd_sn) in [(4, 2), (5, 3)] {
        a.send(ready(itt, cmd_sn), &[]);
        let answer = a.answer();
        assert_eq!((answer.opcode(), answer.bhs[3], answer.itt()), (0x21, 0, itt));
    }
    // And the CID is free: 1, CID not found.
    a.send(logout(1, 6, 1, 4), &[]);
    assert_eq!(a.answer().bhs[2], 1);
    server.shutdown().await;
}

/// A PDU of full feature phase within a login: status 020b, and the end. Before the login has begun: the end alone.
// req: 7143-4.2.4-3, 7143-4.2.4-5, 7143-4.2.4-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_login_requests_before_full_feature_phase() {
    let server = serve(vec![ram(1)]).await;
    let portal = server.local_addrs()[0];
    let place = Place { isid: 1, tsih: 0, cid: 0, cmd_sn: 1 };
    let mut wire = Wire::new(portal);
    wire.send(ready(2, 1), &[]);
    assert!(wire.is_closed());
    // CSG 1, no transit: the login goes on.
    let mut wire = Wire::new(portal);
    wire.send(login(place, 0x04), names("").as_bytes());
    assert_eq!(wire.answer().login_status(), 0);
    wire.send(ready(2, 1), &[]);
    assert_eq!(wire.answer().login_status(), 0x020b);
    assert!(wire.is_closed());
    // A Login Request that nobody can read: CSG 2 is reserved (section 11.12.3).
    let mut wire = Wire::new(portal);
    wire.send(login(place, 0x04), names("").as_bytes());
    assert_eq!(wire.answer().login_status(), 0);
    wire.send(login(place, 0x08), &[]);
    assert_eq!(wire.answer().login_status(), 0x0200);
    assert!(wire.is_closed());
    server.shutdown().await;
}
