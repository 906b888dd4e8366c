//! A stream of `iscsi-tcp` as a stream of `iser-rdma`; the two crates do not know each other.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

pub(crate) struct Bridge<S>(pub(crate) S);

impl<S: iscsi_tcp::Stream> iser_rdma::provider::iwarp::Stream for Bridge<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, slices)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, slices)
    }

    fn shutdown(&mut self) {
        self.0.shutdown();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr()
    }
}
