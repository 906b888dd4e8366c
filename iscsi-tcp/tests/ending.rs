//! Connection_Terminate while there is something to send.

mod common;

use common::{Peer, pattern};
use datamover::{Cause, ConnKeys, GetData, IoBuf, PutData, Role};
use iscsi_pdu::{Itt, LogoutResponse, Lun, Pdu};
use std::io::IoSlice;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A target that is to end with input, a Logout Response and an open Get_Data under way.
fn ending() -> (Peer, Instant) {
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let start = Instant::now();
    let mut t = Peer::new(Role::Target, &ConnKeys::default());
    t.core.set_now(start);
    let (itt, lun) = (Itt(1), Lun::ZERO);
    let data = pattern(1, 400_000).into();
    let put = PutData { itt, lun, offset: 0, data, resume: None, ack: false, notify: false };
    t.core.put_data(put).unwrap();
    let get = GetData { itt: Itt(2), lun, offset: 0, into: IoBuf::zeroed(500).into(), resume: None };
    t.core.get_data(get).unwrap();
    t.core
        .send_control(Pdu::from(LogoutResponse { itt: Itt(9), ..LogoutResponse::default() }).into())
        .unwrap();
    t.core.connection_terminate();
    (t, start)
}

/// The stream takes so many bytes.
fn takes(t: &mut Peer, bytes: usize) {
    let mut slots = [IoSlice::new(&[]); 4];
    assert!(t.core.transmit_slices(&mut slots) > 0);
    t.core.transmitted(bytes);
}

/// Nothing gets through any more, and whoever waits for the end of the connection, to go on with its tasks on another,
/// does not wait for long: they are kept for 22 seconds (DefaultTime2Wait and DefaultTime2Retain, RFC 7143 sections
/// 13.15 and 13.16).
// req: 5047-8.7-2
#[test]
fn a_stream_that_takes_nothing_is_given_up_soon() {
    let (mut t, start) = ending();
    takes(&mut t, 10_000);
    let at = t.core.poll_timeout().unwrap();
    assert!(at <= start + 5 * SECOND, "{:?}", at - start);
    t.core.handle_timeout(at - Duration::from_millis(1));
    assert!(t.events().is_empty());
    t.core.handle_timeout(at);
    let datamover::Event::Terminated(end) = t.one_event() else { panic!("not the end") };
    assert_eq!(end.cause, Cause::Local);
    let gets: Vec<_> = end.reclaimed.iter().map(|(itt, r)| (*itt, r.gets.len())).collect();
    assert_eq!(gets, [(Itt(2), 1)]);
    assert_eq!(t.core.poll_timeout(), None);
}

/// A connection that is told to end before its first turn counts from that.
#[test]
fn the_first_turn_begins_the_wait() {
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let start = Instant::now();
    let mut t = Peer::new(Role::Target, &ConnKeys::default());
    t.core.send_control(Pdu::from(LogoutResponse::default()).into()).unwrap();
    t.core.connection_terminate();
    assert_eq!(t.core.poll_timeout(), None);
    t.core.set_now(start);
    assert!((start..start + 5 * SECOND).contains(&t.core.poll_timeout().unwrap()));
}

/// A slow peer gets all that was queued, the Logout Response last.
#[test]
fn a_stream_that_takes_something_gets_more_time() {
    let (mut t, start) = ending();
    let mut now = start;
    for _ in 0..20 {
        now += SECOND;
        t.core.handle_timeout(now);
        takes(&mut t, 15_000);
    }
    assert!(t.events().is_empty(), "20 seconds, and it goes on");
    let rest = t.raw();
    let logout = &rest[rest.len() - 48..];
    assert_eq!((logout[0] & 0x3f, &logout[16..20]), (0x26, &[0, 0, 0, 9][..]), "RFC 7143 section 11.15");
    assert_eq!(t.cause(), Cause::Local);
}

/// It does not get as much as it likes.
#[test]
fn not_for_ever() {
    let (mut t, start) = ending();
    for n in 1..=29 {
        t.core.handle_timeout(start + n * SECOND);
        takes(&mut t, 1);
    }
    let at = t.core.poll_timeout().unwrap();
    assert_eq!(at, start + ConnKeys::default().data_timeout);
    t.core.handle_timeout(at);
    assert_eq!(t.cause(), Cause::Local);
}
