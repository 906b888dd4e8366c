use super::*;
use crate::{
    Budget, Control, Datamover, Drive, Event, Fabric, GetData, LoginLink, PutData, Resources, SgListMut,
    TaskBuffers,
};
use crate::{IoBuf, LinkError, Reclaimed};
use iscsi_pdu::{LoginRequest, LoginResponse, Lun, NopIn, NopOut, RejectReason, ScsiCommand, ScsiResponse};
use std::task::Context;
use std::time::Instant;

fn drive(end: &mut dyn Datamover) -> Vec<Event> {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = end.poll_drive(&mut cx, &mut Budget::new(now()));
    std::iter::from_fn(|| end.poll_event()).collect()
}

#[expect(clippy::disallowed_methods, reason = "the value is not looked at")]
fn now() -> Instant {
    Instant::now()
}

fn enabled(config: MemConfig, resources: Resources) -> (Box<dyn Datamover>, Box<dyn Datamover>, MemControl) {
    let (i, t, control) = pair(config);
    let (mut i, mut t) = (Box::new(i), Box::new(t));
    i.allocate_connection_resources(&resources).unwrap();
    t.allocate_connection_resources(&resources).unwrap();
    let t = t.enable_datamover(Some(LoginResponse::default()));
    let _ = i.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(now()));
    assert!(matches!(i.poll_login(), Some(Ok(Pdu::LoginResponse(_)))));
    (i.enable_datamover(None), t, control)
}

fn plain() -> (Box<dyn Datamover>, Box<dyn Datamover>, MemControl) {
    enabled(MemConfig::default(), Resources::default())
}

fn write(itt: u32, out: &'static [u8]) -> Control {
    let len = out.len() as u32;
    Control {
        pdu: ScsiCommand {
            itt: Itt(itt),
            write: true,
            expected_data_transfer_length: len,
            ..Default::default()
        }
        .into(),
        buffers: TaskBuffers { out: Some(Bytes::from_static(out).into()), r#in: None },
        unsolicited: 0,
    }
}

fn get(itt: u32, offset: u32, len: usize) -> GetData {
    GetData { itt: Itt(itt), lun: Lun::ZERO, offset, into: IoBuf::zeroed(len).into(), resume: None }
}

fn put(itt: u32, offset: u32, data: &'static [u8]) -> PutData {
    PutData {
        itt: Itt(itt),
        lun: Lun::ZERO,
        offset,
        data: Bytes::from_static(data).into(),
        resume: None,
        ack: false,
        notify: false,
    }
}

fn bytes(list: SgListMut) -> Bytes {
    list.freeze().to_bytes()
}

fn cause(events: &[Event]) -> Option<Cause> {
    match events.last()? {
        Event::Terminated(t) => Some(t.cause.clone()),
        _ => None,
    }
}

#[test]
fn cut_loses_what_is_under_way_and_returns_buffers() {
    let (mut i, mut t, control) = plain();
    i.send_control(write(1, b"abcd")).unwrap();
    drive(&mut *t);
    t.get_data(get(1, 0, 4)).unwrap();
    control.cut();
    let events = drive(&mut *t);
    assert_eq!(cause(&events), Some(Cause::Transport(std::io::ErrorKind::ConnectionReset)));
    let Some(Event::Terminated(ended)) = events.into_iter().last() else { unreachable!() };
    let [(Itt(1), Reclaimed { gets, .. })] = &ended.reclaimed[..] else { panic!("{:?}", ended.reclaimed) };
    assert_eq!((gets.len(), gets[0].0, gets[0].1.len()), (1, 0, 4));
    let events = drive(&mut *i);
    let Some(Event::Terminated(ended)) = events.into_iter().last() else { panic!("no end") };
    assert_eq!(ended.reclaimed[0].1.buffers.out.as_ref().map(|o| o.len()), Some(4));
    // Nothing more can be asked of either.
    assert!(i.send_control(NopOut::default().into()).is_err());
    assert!(t.get_data(get(1, 0, 4)).is_err());
}

#[test]
fn faults_on_demand() {
    let (mut i, mut t, control) = plain();
    i.send_control(write(7, b"abcdefgh")).unwrap();
    drive(&mut *t);
    control.fail_next_get(DataError::TimedOut);
    t.get_data(get(7, 0, 4)).unwrap();
    t.get_data(get(7, 4, 4)).unwrap();
    let invalid = InvalidPdu { header: Bytes::new(), reason: RejectReason::ProtocolError, error: None };
    control.deliver_invalid(Role::Target, invalid.clone());
    control.hold(Role::Initiator, true);
    assert!(drive(&mut *i).is_empty());
    assert_eq!(control.in_flight(Role::Initiator), 2);
    control.hold(Role::Initiator, false);
    drive(&mut *i);
    let events = drive(&mut *t);
    let [Event::Invalid(seen), Event::DataCompletion(a), Event::DataCompletion(b)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (seen, a.result, a.offset, b.result, b.offset),
        (&invalid, Err(DataError::TimedOut), 0, Ok(()), 4)
    );
}

/// One set of calls, many seeds: whatever the order of completion, every transfer has its own bytes.
#[test]
fn gets_overtake_each_other() {
    static DATA: [u8; 64] = {
        let mut d = [0; 64];
        let mut n = 0;
        while n < 64 {
            d[n] = n as u8;
            n += 1;
        }
        d
    };
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..16 {
        let faults = MemFaults { seed, reorder_gets: true, ..MemFaults::default() };
        let config = MemConfig { faults, ..MemConfig::default() };
        let (mut i, mut t, _) = enabled(config, Resources::default());
        i.send_control(write(1, &DATA)).unwrap();
        drive(&mut *t);
        for n in 0..4 {
            t.get_data(get(1, n * 16, 16)).unwrap();
        }
        drive(&mut *i);
        let mut order = Vec::new();
        for event in drive(&mut *t) {
            let Event::DataCompletion(done) = event else { continue };
            order.push(done.offset);
            let at = done.offset as usize;
            assert_eq!(bytes(done.data.unwrap()), DATA[at..at + 16]);
        }
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 16, 32, 48]);
        orders.insert(order);
    }
    assert!(orders.len() > 1, "seeds give several orders");
}

#[test]
fn same_seed_same_cut() {
    let run = |seed| {
        let faults = MemFaults { seed, cut_one_in: 10, ..MemFaults::default() };
        let (mut i, mut t, _) = enabled(MemConfig { faults, ..MemConfig::default() }, Resources::default());
        (0..200)
            .position(|_| {
                let sent = i.send_control(NopOut::default().into()).is_ok();
                drive(&mut *t);
                !sent || cause(&drive(&mut *i)).is_some()
            })
            .unwrap()
    };
    assert_eq!(run(3), run(3));
    assert!((0..8).any(|seed| run(seed) != run(3)));
}

// req: 5047-8.2-3, 5047-8.3-3, 5047-5.1.1-1, 5047-5.1.2-1
#[test]
fn calls_against_the_rules_end_the_connection() {
    let (mut i, mut t, control) = plain();
    assert!(i.put_data(put(1, 0, b"x")).is_err());
    assert!(matches!(cause(&drive(&mut *i)), Some(Cause::Protocol(rule)) if rule.contains("8.2")));
    assert_eq!(cause(&drive(&mut *t)), Some(Cause::PeerClosed));
    assert_eq!(control.violations().len(), 1);

    let (mut i, _t, control) = plain();
    assert!(i.get_data(get(1, 0, 1)).is_err());
    assert!(control.violations()[0].contains("8.3"));

    for pdu in [
        Pdu::DataOut(iscsi_pdu::DataOut { ttt: iscsi_pdu::Ttt(5), ..Default::default() }),
        Pdu::R2t(iscsi_pdu::R2t::default()),
        Pdu::DataIn(iscsi_pdu::DataIn::default()),
        Pdu::LoginRequest(LoginRequest::default()),
        Pdu::NopIn(NopIn::default()),
    ] {
        let (mut i, _t, control) = plain();
        assert!(i.send_control(pdu.into()).is_err());
        assert_eq!(control.violations().len(), 1);
    }
}

#[test]
fn buffers_only_where_they_belong() {
    let (mut i, _t, control) = plain();
    let buffers = TaskBuffers { out: Some(Bytes::from_static(b"x").into()), r#in: None };
    let nop = Control { pdu: NopOut::default().into(), buffers, unsolicited: 0 };
    let back = i.send_control(nop).unwrap_err().0;
    assert_eq!(back.buffers.out.map(|o| o.len()), Some(1));
    assert!(control.violations()[0].contains("10.3"));
    let (mut i, _t, control) = plain();
    assert!(i.send_control(Control { unsolicited: 5, ..write(1, b"abcd") }).is_err());
    assert_eq!(control.violations().len(), 1);
}

// req: 5047-8.6-2
#[test]
fn enable_needs_resources() {
    let (i, _t, control) = pair(MemConfig::default());
    let mut i = Box::new(i).enable_datamover(None);
    assert!(matches!(cause(&drive(&mut *i)), Some(Cause::Protocol(_))));
    assert_eq!(control.violations().len(), 1);
}

#[test]
fn transfers_beyond_the_buffer() {
    let (mut i, mut t, _) = plain();
    i.send_control(write(1, b"abcd")).unwrap();
    drive(&mut *t);
    t.get_data(get(1, 1, 4)).unwrap();
    t.get_data(get(1, u32::MAX, 4)).unwrap();
    t.get_data(get(9, 0, 4)).unwrap();
    drive(&mut *i);
    let results: Vec<_> = drive(&mut *t)
        .into_iter()
        .filter_map(|e| if let Event::DataCompletion(d) = e { Some(d.result) } else { None })
        .collect();
    assert_eq!(results, [Err(DataError::Access), Err(DataError::Access), Err(DataError::Cancelled)]);
    // Input for a task that is over is dropped; for one without room it is the end.
    t.put_data(put(9, 0, b"x")).unwrap();
    drive(&mut *i);
    t.put_data(put(1, 0, b"x")).unwrap();
    assert!(matches!(cause(&drive(&mut *i)), Some(Cause::Protocol(_))));
}

#[test]
fn full_until_the_peer_takes_some() {
    let resources = Resources { commands: 1, unexpected: 1, ..Resources::default() };
    let (mut i, mut t, _) = enabled(MemConfig::default(), resources);
    i.send_control(write(1, b"abcd")).unwrap();
    i.send_control(NopOut::default().into()).unwrap();
    let back = i.send_control(write(2, b"efgh")).unwrap_err().0;
    assert_eq!(drive(&mut *t).len(), 2);
    i.send_control(back).unwrap();
    for _ in 0..2 {
        t.get_data(get(1, 0, 2)).unwrap();
        t.put_data(put(9, 0, b"x")).unwrap();
    }
    assert_eq!(t.get_data(get(1, 0, 2)).unwrap_err().0.into.len(), 2);
    assert_eq!(t.put_data(put(9, 0, b"x")).unwrap_err().0.data.len(), 1);
}

#[test]
fn windows_travel_with_transfers() {
    let window = Window { stat_sn: 3.into(), exp_cmd_sn: 4.into(), max_cmd_sn: 5.into() };
    for carried in [true, false] {
        let (mut i, mut t, _) =
            enabled(MemConfig { window: carried, ..MemConfig::default() }, Resources::default());
        i.send_control(write(1, b"abcd")).unwrap();
        drive(&mut *t);
        t.set_window(window);
        t.get_data(get(1, 0, 2)).unwrap();
        t.get_data(get(1, 2, 2)).unwrap();
        let windows =
            drive(&mut *i).into_iter().filter(|e| matches!(e, Event::Window(w) if *w == window)).count();
        assert_eq!(windows, usize::from(carried), "told once, when it changes");
    }
}

#[test]
fn a_response_cancels_open_gets() {
    let (mut i, mut t, _) = plain();
    i.send_control(write(1, b"abcd")).unwrap();
    drive(&mut *t);
    t.get_data(get(1, 0, 2)).unwrap();
    t.send_control(ScsiResponse { itt: Itt(1), ..Default::default() }.into()).unwrap();
    let events = drive(&mut *t);
    assert!(matches!(&events[..], [Event::DataCompletion(d)] if d.result == Err(DataError::Cancelled)));
    let events = drive(&mut *i);
    assert!(matches!(&events[..], [Event::Control(c)] if c.buffers.out.is_some()), "{events:?}");
    assert!(drive(&mut *t).is_empty(), "the late answer is dropped");
}

#[test]
fn links_see_their_peer_go() {
    let (mut i, t, control) = pair(MemConfig::default());
    drop(t);
    let mut cx = Context::from_waker(Waker::noop());
    let _ = i.poll_drive(&mut cx, &mut Budget::new(now()));
    assert!(matches!(i.poll_login(), Some(Err(LinkError::Closed))));
    assert!(i.poll_login().is_none());
    let (mut i, _t, _) = pair(MemConfig::default());
    drop(control);
    i.send_login(LoginRequest::default().into());
    assert!(i.is_flushed());
}

/// The result of a future that does not wait, else `None`.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(out) => Some(out),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn fabric_connects_who_listens() {
    let fabric = MemFabric::default();
    let refused = at_once(fabric.connect("127.0.0.1:3260".parse().unwrap())).unwrap().err().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let mut acceptor = at_once(fabric.listen("127.0.0.1:0".parse().unwrap())).unwrap().unwrap();
    let portal = acceptor.local_addr();
    assert_ne!(portal.port(), 0);
    assert_eq!(at_once(fabric.listen(portal)).unwrap().err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
    assert!(at_once(acceptor.accept()).is_none(), "nobody yet");
    let initiator = at_once(fabric.clone().connect(portal)).unwrap().unwrap();
    let target = at_once(acceptor.accept()).unwrap().unwrap();
    assert_eq!((initiator.role(), target.role()), (Role::Initiator, Role::Target));
    drop(acceptor);
    assert!(at_once(fabric.connect(portal)).unwrap().is_err());
}

struct Pairs(MemConfig);

impl crate::conformance::PairFactory for Pairs {
    fn pair(&self) -> crate::conformance::Links {
        let (initiator, target, _) = pair(self.0.clone());
        crate::conformance::Links { initiator: Box::new(initiator), target: Box::new(target) }
    }

    fn features(&self) -> crate::conformance::Features {
        crate::conformance::Features { window: self.0.window, ..Default::default() }
    }
}

crate::conformance_tests!(Pairs(MemConfig::default()));
crate::conformance_tests!(conformance_reordered, {
    let faults = MemFaults { seed: 7, reorder_gets: true, ..MemFaults::default() };
    Pairs(MemConfig { window: false, faults, ..MemConfig::default() })
});
