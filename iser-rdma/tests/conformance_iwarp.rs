//! `datamover`'s conformance scenarios over software iWARP on loopback sockets: login in bytes, login in messages.
#![cfg(feature = "iwarp")]

use datamover::conformance::{Features, Links, PairFactory};
use datamover::{ConnKeys, LoginLink, Role};
use iser_rdma::provider::iwarp::{IwarpConfig, IwarpRcap, Stream, StreamLoginLink, Upgrade};
use iser_rdma::{MessageLoginLink, Quirks};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::task::{Context, Poll};

/// A nonblocking socket; the suite polls again after a while without being woken.
struct Socket(TcpStream);

fn poll(mut io: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    match io() {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}

impl Stream for Socket {
    fn poll_read(&mut self, _: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        poll(|| self.0.read_vectored(slices))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll(|| self.0.write_vectored(slices))
    }

    fn shutdown(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

fn sockets() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    let socket = |s: TcpStream| {
        s.set_nonblocking(true).unwrap();
        s.set_nodelay(true).unwrap();
        Socket(s)
    };
    (socket(a), socket(b))
}

struct Iwarp {
    in_bytes: bool,
}

impl PairFactory for Iwarp {
    fn pair(&self) -> Links {
        let (a, b) = sockets();
        let link = |socket, role, seed| -> Box<dyn LoginLink> {
            let config = IwarpConfig::new([seed; 16]);
            if self.in_bytes {
                Box::new(StreamLoginLink::new(socket, role, config, Quirks::default()))
            } else {
                let config = IwarpConfig { cm_header: true, ..config };
                let rcap = IwarpRcap::new(Some(socket), role, config, Upgrade::default());
                Box::new(MessageLoginLink::new(rcap, role, Quirks::default()))
            }
        };
        Links { initiator: link(a, Role::Initiator, 1), target: link(b, Role::Target, 2) }
    }

    fn keys(&self) -> ConnKeys {
        let mut keys = ConnKeys::default();
        keys.rdma_extensions = true;
        keys.tagged_buffer_for_solicited_data_only = Some(true);
        keys
    }

    fn features(&self) -> Features {
        Features::iser()
    }
}

datamover::conformance_tests!(login_in_bytes, Iwarp { in_bytes: true });
datamover::conformance_tests!(login_in_messages, Iwarp { in_bytes: false });
