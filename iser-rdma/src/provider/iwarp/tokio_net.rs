//! Sockets of tokio, and a [`Fabric`] of iWARP connections that are iSER from the start, as the kernel makes them.

use super::{IwarpConfig, IwarpRcap, Stream, Upgrade};
use crate::login::MessageLoginLink;
use crate::quirks::Quirks;
use crate::rcap::{Completion, Rcap};
use async_trait::async_trait;
use datamover::{Acceptor, Budget, Fabric, LoginLink, Role};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

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
}

impl Stream for TokioStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_vectored(slices) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                other => return Poll::Ready(other),
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
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut self.0), &mut cx);
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }
}

/// Gives every connection its own randomness.
type Seeds = Arc<dyn Fn() -> [u8; 16] + Send + Sync>;

/// iSER over software iWARP without a login in bytes first: MPA begins as soon as the connection is there, with the
/// private data of the field, and the login travels in messages. This is what ib_iser and ib_isert do over an iWARP
/// device, so such a portal is for them as well as for peers of this crate.
#[derive(Clone)]
pub struct IwarpFabric {
    config: IwarpConfig,
    quirks: Quirks,
    seeds: Seeds,
}

impl IwarpFabric {
    /// `seeds` is a source of random bytes, asked once for every connection; `config`'s own seed is not used.
    #[must_use]
    pub fn new(
        config: IwarpConfig,
        quirks: Quirks,
        seeds: impl Fn() -> [u8; 16] + Send + Sync + 'static,
    ) -> Self {
        let config = IwarpConfig { cm_header: true, ..config };
        Self { config, quirks, seeds: Arc::new(seeds) }
    }

    /// The MPA startup on a connected socket, then a link that is ready to log in.
    ///
    /// # Errors
    /// Those of the socket and of the startup; [`io::ErrorKind::ConnectionRefused`] when the peer rejects it.
    pub async fn establish(&self, socket: TcpStream, role: Role) -> io::Result<Box<dyn LoginLink>> {
        let stream = TokioStream::new(socket)?;
        let config = IwarpConfig { seed: (self.seeds)(), ..self.config.clone() };
        let limit = config.timeout;
        let mut rcap = IwarpRcap::new(Some(stream), role, config, Upgrade::default());
        let startup = poll_fn(|cx| startup_turn(&mut rcap, cx));
        tokio::time::timeout(limit, startup).await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(Box::new(MessageLoginLink::new(rcap, role, self.quirks.clone())))
    }
}

fn startup_turn(rcap: &mut IwarpRcap<TokioStream>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    #[allow(clippy::disallowed_methods)] // a driver: here time begins
    let mut turn = Budget::new(Instant::now());
    let mut out = Vec::new();
    rcap.poll(cx, &mut turn, &mut out);
    if rcap.is_established() {
        return Poll::Ready(Ok(()));
    }
    match out.pop() {
        Some(Completion::Closed(datamover::Cause::Transport(kind))) => Poll::Ready(Err(kind.into())),
        Some(_) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
        None => Poll::Pending,
    }
}

#[async_trait]
impl Fabric for IwarpFabric {
    fn name(&self) -> &'static str {
        "iwarp"
    }

    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        self.establish(TcpStream::connect(portal).await?, Role::Initiator).await
    }

    async fn listen(&self, portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let listener = TcpListener::bind(portal).await?;
        let local = listener.local_addr()?;
        Ok(Box::new(IwarpAcceptor { fabric: self.clone(), listener, local, startups: JoinSet::new() }))
    }
}

/// Startups that may be under way at a time on one portal: peers that connect and say nothing wait their time out
/// without keeping others from being served.
const STARTUPS: usize = 256;

struct IwarpAcceptor {
    fabric: IwarpFabric,
    listener: TcpListener,
    local: SocketAddr,
    startups: JoinSet<io::Result<Box<dyn LoginLink>>>,
}

#[async_trait]
impl Acceptor for IwarpAcceptor {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        loop {
            tokio::select! {
                Some(done) = self.startups.join_next() => {
                    if let Ok(Ok(link)) = done {
                        return Ok(link);
                    }
                }
                accepted = self.listener.accept(), if self.startups.len() < STARTUPS => {
                    let (socket, _) = accepted?;
                    let fabric = self.fabric.clone();
                    self.startups.spawn(async move { fabric.establish(socket, Role::Target).await });
                }
            }
        }
    }
}
