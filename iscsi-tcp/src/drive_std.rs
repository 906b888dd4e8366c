//! Sockets of the standard library, for simulators and runtimes other than tokio.

use crate::stream::Stream;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::task::{Context, Poll};

/// A nonblocking socket. It knows no waker: whoever polls it finds out by other means when to poll again, such as
/// `poll(2)` or a busy loop.
#[derive(Debug)]
pub struct StdStream(TcpStream);

impl StdStream {
    /// Takes a connected socket over: makes it nonblocking and switches Nagle's algorithm off.
    ///
    /// # Errors
    /// Those of the two socket options.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self(socket))
    }

    /// The socket, for waiting on it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        &self.0
    }
}

/// `WouldBlock` as `Pending`, and again when a signal came between.
fn poll(mut io: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    loop {
        match io() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            other => return Poll::Ready(other),
        }
    }
}

impl Stream for StdStream {
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
