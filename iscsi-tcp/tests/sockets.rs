//! On real sockets: batching, and what the kernel is asked to do.
#![cfg(feature = "tokio")]

mod common;

use common::{command, pattern};
use datamover::{
    Budget, ConnKeys, Control, Datamover, Event, Fabric, IoBuf, LinkError, LoginLink, PutData, Resources,
    TaskBuffers,
};
use iscsi_pdu::{Itt, LoginResponse, Lun, NopOut, Pdu, ScsiResponse, Stage};
use iscsi_tcp::{TcpFabric, TokioStream};
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "a driver's time")]
fn budget() -> Budget {
    Budget::new(Instant::now())
}

/// Both ends of a connection in full feature phase.
async fn connection(keys: &ConnKeys) -> (Box<dyn Datamover>, Box<dyn Datamover>) {
    let fabric = TcpFabric::default();
    let mut acceptor = fabric.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let mut initiator = fabric.connect(acceptor.local_addr()).await.unwrap();
    let mut target = acceptor.accept().await.unwrap();
    for link in [&mut initiator, &mut target] {
        link.notice_key_values(keys);
        link.allocate_connection_resources(&Resources::default()).unwrap();
    }
    let response = LoginResponse { transit: true, csg: Stage(1), nsg: Stage(3), ..LoginResponse::default() };
    let mut target = target.enable_datamover(Some(response));
    poll_fn(|cx| {
        let _ = target.poll_drive(cx, &mut budget());
        let _ = initiator.poll_drive(cx, &mut budget());
        if initiator.poll_login().is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (initiator.enable_datamover(None), target)
}

/// The next `count` events of one end; only that end is driven.
async fn events(end: &mut dyn Datamover, count: usize) -> Vec<Event> {
    let mut got = Vec::new();
    poll_fn(|cx| {
        let driven = end.poll_drive(cx, &mut budget());
        got.extend(std::iter::from_fn(|| end.poll_event()).filter(|e| !matches!(e, Event::Window(_))));
        if got.len() >= count {
            return Poll::Ready(());
        }
        if driven.is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    got
}

/// Sends what is queued.
async fn flush(end: &mut dyn Datamover) {
    poll_fn(|cx| Poll::Ready(end.poll_drive(cx, &mut budget()).is_ready())).await;
}

/// Depth 32, 4 KiB: a batch costs a handful of system calls at the target, not one or more an I/O.
#[tokio::test]
async fn few_system_calls() {
    let mut keys = ConnKeys::default();
    (keys.max_recv_data_segment_length, keys.max_send_data_segment_length) = (65_536, 65_536);
    let (mut i, mut t) = connection(&keys).await;
    let data = pattern(1, 4096);
    let (rounds, depth) = (20u32, 32u32);
    let before = (i.stats().syscalls, t.stats().syscalls);
    for _ in 0..rounds {
        for itt in 0..depth {
            let buffers = TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(4096).into()) };
            i.send_control(Control { pdu: command(itt, 4096, 0).into(), buffers, unsolicited: 0 }).unwrap();
        }
        flush(&mut *i).await;
        for event in events(&mut *t, depth as usize).await {
            let Event::Control(Control { pdu: Pdu::ScsiCommand(c), .. }) = event else { panic!("{event:?}") };
            let (itt, lun, data) = (c.itt, Lun::ZERO, data.clone().into());
            t.put_data(PutData { itt, lun, offset: 0, data, resume: None, ack: false, notify: false })
                .unwrap();
            t.send_control(ScsiResponse { itt, ..ScsiResponse::default() }.into()).unwrap();
        }
        flush(&mut *t).await;
        for event in events(&mut *i, depth as usize).await {
            let Event::Control(Control { buffers, .. }) = event else { panic!("{event:?}") };
            assert_eq!(buffers.r#in.unwrap().freeze().to_bytes(), data);
        }
    }
    let ios = u64::from(rounds * depth);
    let (initiator, target) = (i.stats().syscalls - before.0, t.stats().syscalls - before.1);
    // A write and a read or two a batch; the initiator takes 128 KiB in pieces of its spill.
    assert!(target * 5 <= ios, "target: {target} for {ios}");
    assert!(initiator * 3 <= ios, "initiator: {initiator} for {ios}");
}

/// The last PDU reaches the peer although the connection is closed with data unread (section 4.2.5.3: a target closes
/// after its Logout Response).
#[tokio::test]
async fn the_last_pdu_arrives_before_the_close() {
    for _ in 0..20 {
        let (mut i, mut t) = connection(&ConnKeys::default()).await;
        for n in 0..50u32 {
            let nop =
                iscsi_pdu::NopOut { itt: iscsi_pdu::Itt(n), data: pattern(n, 4000), ..Default::default() };
            i.send_control(Pdu::from(nop).into()).unwrap();
        }
        flush(&mut *i).await;
        let bye = iscsi_pdu::LogoutResponse { itt: iscsi_pdu::Itt(99), ..Default::default() };
        t.send_control(Pdu::from(bye.clone()).into()).unwrap();
        t.connection_terminate();
        let end = events(&mut *t, 1).await;
        assert!(matches!(end.last(), Some(Event::Terminated(_))), "{end:?}");
        drop(t);
        let got = events(&mut *i, 2).await;
        let Event::Control(c) = &got[0] else { panic!("{got:?}") };
        assert_eq!(c.pdu, bye.into());
        assert!(matches!(got[1], Event::Terminated(_)));
    }
}

/// A port scanner, or a client that dials and goes away.
#[tokio::test]
async fn what_is_no_initiator() {
    use std::io::Write;
    let fabric = TcpFabric::default();
    let mut acceptor = fabric.listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = datamover::Acceptor::local_addr(&acceptor);
    for bytes in [&b""[..], b"\x16\x03\x01", &[0x41; 48], &[0xff; 4096]] {
        let mut socket = std::net::TcpStream::connect(addr).unwrap();
        let mut link = acceptor.accept_tcp().await.unwrap();
        socket.write_all(bytes).unwrap();
        drop(socket);
        let error = poll_fn(|cx| {
            let _ = datamover::Drive::poll_drive(&mut link, cx, &mut budget());
            link.poll_login().map_or(Poll::Pending, Poll::Ready)
        })
        .await
        .unwrap_err();
        assert!(
            matches!(
                error,
                LinkError::Closed | LinkError::Transport(_) | LinkError::Protocol(_) | LinkError::NotLogin(_)
            ),
            "{bytes:?}: {error:?}"
        );
    }
}

// req: 7143-7.14-2
#[tokio::test]
async fn keepalive_and_no_delay() {
    let fabric = TcpFabric::default().with_keepalive(Duration::from_secs(7));
    let mut acceptor = fabric.listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = datamover::Acceptor::local_addr(&acceptor);
    let socket = |link: iscsi_tcp::TcpLoginLink<TokioStream>| link.into_parts().stream.unwrap().into_inner();
    let initiator = socket(fabric.connect_tcp(addr).await.unwrap());
    let target = socket(acceptor.accept_tcp().await.unwrap());
    for s in [&initiator, &target] {
        let s = socket2::SockRef::from(s);
        assert!(s.tcp_nodelay().unwrap());
        assert!(s.keepalive().unwrap());
        assert_eq!(s.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
    }
    assert_eq!(fabric.name(), "tcp");
    let plain = TcpFabric::default();
    let mut acceptor = plain.listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = datamover::Acceptor::local_addr(&acceptor);
    let s = socket(plain.connect_tcp(addr).await.unwrap());
    drop(acceptor.accept_tcp().await);
    assert!(!socket2::SockRef::from(&s).keepalive().unwrap());
}

/// Nothing listens there.
#[tokio::test]
async fn refused_connections_are_errors() {
    let fabric = TcpFabric::default();
    let acceptor = fabric.listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let addr = datamover::Acceptor::local_addr(&acceptor);
    assert!(fabric.listen(addr).await.is_err(), "in use");
    drop(acceptor);
    assert_eq!(fabric.connect(addr).await.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
}

/// An end whose events nobody takes does not keep all that comes; once they are taken, it goes on.
#[tokio::test]
async fn what_nobody_takes_stays_in_the_socket() {
    let (mut i, mut t) = connection(&ConnKeys::default()).await;
    let count = 5000u32;
    for n in 0..count {
        let ping = |n| Control::from(Pdu::from(NopOut { itt: Itt(n), ..NopOut::default() }));
        while i.send_control(ping(n)).is_err() {
            flush(&mut *i).await;
        }
    }
    flush(&mut *i).await;
    for _ in 0..500 {
        flush(&mut *t).await;
        tokio::task::yield_now().await;
    }
    let kept: Vec<Event> = std::iter::from_fn(|| t.poll_event()).collect();
    assert!((1024..3000).contains(&kept.len()), "{}", kept.len());
    // The rest comes, in order.
    let rest = events(&mut *t, count as usize - kept.len()).await;
    let itts = kept.iter().chain(&rest).map(|e| match e {
        Event::Control(c) => c.pdu.itt().0,
        other => panic!("{other:?}"),
    });
    assert!(itts.eq(0..count));
}
