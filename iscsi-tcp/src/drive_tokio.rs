//! Sockets of tokio, and the [`Fabric`] over them.

use crate::login::TcpLoginLink;
use crate::stream::Stream;
use async_trait::async_trait;
use datamover::{Acceptor, BufPool, Fabric, LoginLink, Role, SlabPool};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

/// A socket of the tokio runtime in whose context it was made.
#[derive(Debug)]
pub struct TokioStream(TcpStream);

impl TokioStream {
    /// Takes a connected socket over and switches Nagle's algorithm off.
    ///
    /// # Errors
    /// That of the socket option.
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self(socket))
    }

    /// The socket itself again.
    #[must_use]
    pub fn into_inner(self) -> TcpStream {
        self.0
    }
}

impl Stream for TokioStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let room: usize = slices.iter().map(|s| s.len()).sum();
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            // A short read has emptied the socket: with edge-triggered readiness the next byte brings an event. So
            // the readiness ends here, and the read that would say "would block" is saved. It has to end inside
            // `try_io`, which knows whether an event came in between.
            let mut short = None;
            let read = self.0.try_io(Interest::READABLE, || {
                let n = (&*SockRef::from(&self.0)).read_vectored(slices)?;
                if cfg!(unix) && n > 0 && n < room {
                    short = Some(n);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(n)
            });
            match (short, read) {
                (Some(n), _) | (None, Ok(n)) => return Poll::Ready(Ok(n)),
                (None, Err(e)) => match e.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(e)),
                },
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_write_vectored(slices) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn shutdown(&mut self) {
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Write);
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

/// Plain iSCSI over TCP.
#[derive(Clone)]
pub struct TcpFabric {
    pool: Arc<dyn BufPool>,
    keepalive: Option<Duration>,
}

impl TcpFabric {
    /// A fabric whose connections all take their memory from `pool`.
    #[must_use]
    pub fn new(pool: Arc<dyn BufPool>) -> Self {
        Self { pool, keepalive: None }
    }

    /// The same with TCP keep-alive, the first probe after `idle` (RFC 7143 section 7.14).
    // req: 7143-7.14-2
    #[must_use]
    pub fn with_keepalive(self, idle: Duration) -> Self {
        Self { keepalive: Some(idle), ..self }
    }

    fn link(&self, socket: TcpStream, role: Role) -> io::Result<TcpLoginLink<TokioStream>> {
        if let Some(idle) = self.keepalive {
            SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        Ok(TcpLoginLink::new(TokioStream::new(socket)?, role, self.pool.clone()))
    }

    /// Connects to a portal, as [`Fabric::connect`] does, but keeps the type: for protocols that begin as iSCSI on
    /// TCP and go on as another.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn connect_tcp(&self, portal: SocketAddr) -> io::Result<TcpLoginLink<TokioStream>> {
        self.link(TcpStream::connect(portal).await?, Role::Initiator)
    }

    /// Listens on a portal, as [`Fabric::listen`] does, but keeps the type.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn listen_tcp(&self, portal: SocketAddr) -> io::Result<TcpAcceptor> {
        let listener = TcpListener::bind(portal).await?;
        let local = listener.local_addr()?;
        Ok(TcpAcceptor { fabric: self.clone(), listener, local })
    }
}

impl Default for TcpFabric {
    /// With a pool of its own.
    fn default() -> Self {
        Self::new(Arc::new(SlabPool::default()))
    }
}

#[async_trait]
impl Fabric for TcpFabric {
    fn name(&self) -> &'static str {
        "tcp"
    }

    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        Ok(Box::new(self.connect_tcp(portal).await?))
    }

    async fn listen(&self, portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        Ok(Box::new(self.listen_tcp(portal).await?))
    }
}

/// A listening socket.
pub struct TcpAcceptor {
    fabric: TcpFabric,
    listener: TcpListener,
    local: SocketAddr,
}

impl TcpAcceptor {
    /// The next connection, with its type.
    ///
    /// # Errors
    /// Those of the listening socket, of which running out of file descriptors passes.
    pub async fn accept_tcp(&mut self) -> io::Result<TcpLoginLink<TokioStream>> {
        loop {
            match self.listener.accept().await {
                // A connection that is gone before its options are set is like one that never came.
                Ok((socket, _)) => match self.fabric.link(socket, Role::Target) {
                    Ok(link) => return Ok(link),
                    Err(_) => continue,
                },
                Err(e) if is_of_connection(&e) => continue,
                Err(e) => return Err(e),
            }
        }
    }
}

/// Whether an error of `accept` concerns the connection that was to be accepted, not the listener.
fn is_of_connection(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[async_trait]
impl Acceptor for TcpAcceptor {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        Ok(Box::new(self.accept_tcp().await?))
    }
}
