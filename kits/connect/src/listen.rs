//! A target's portal: one TCP port for plain iSCSI, for iSER on the connection of the login and for iSER from the
//! start, and beside it the RDMA listener of the kernel where a device is there.

use crate::policy::Kind;
use crate::upgrade::{MPA_FIRST, UpgradeLink};
use crate::{Settings, seed};
use async_trait::async_trait;
use datamover::{Acceptor, LoginLink, Role};
use iscsi_tcp::{TcpLoginLink, TokioStream};
use iser_rdma::provider::iwarp::IwarpFabric;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How long a connection may say nothing at all.
const SILENCE: Duration = Duration::from_secs(15);

/// Connections of which it is not yet known what they are.
const UNKNOWN: usize = 256;

/// Listens on a portal with all transports of the policy.
///
/// # Errors
/// Those of the TCP listener. A missing RDMA device is told in the log and is an error only if nothing else is wanted.
pub async fn listen(portal: SocketAddr, settings: &Settings) -> io::Result<Box<dyn Acceptor>> {
    let tcp = settings.policy.kinds().iter().any(|k| *k != Kind::Rdma);
    let mut portal = portal;
    let mut listeners: Vec<Box<dyn Acceptor>> = Vec::new();
    if tcp {
        let listener = TcpListener::bind(portal).await?;
        let local = listener.local_addr()?;
        // The RDMA listener is to have the same port.
        portal = local;
        listeners.push(Box::new(TcpPortal::new(Source::Listener(listener), local, settings.clone())));
    }
    if settings.policy.has(Kind::Rdma) {
        match crate::connector::rdma_fabric(settings) {
            Ok(fabric) => match fabric.listen(portal).await {
                Ok(listener) => {
                    tracing::info!(%portal, "listening for RDMA connections");
                    listeners.push(listener);
                }
                Err(e) if tcp => tracing::info!(%portal, "no RDMA listener: {e}"),
                Err(e) => return Err(e),
            },
            Err(reason) if tcp => tracing::info!("no RDMA listener: {reason}"),
            Err(reason) => return Err(io::Error::new(io::ErrorKind::Unsupported, reason)),
        }
    }
    match (listeners.pop(), listeners.pop()) {
        (Some(one), None) => Ok(one),
        (Some(second), Some(first)) => Ok(Box::new(Both { first, second })),
        (None, _) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a policy without transports")),
    }
}

/// Takes the sockets of TCP connections that were accepted elsewhere, on a socket bound to `local`: for programs that
/// spread connections over several runtimes. The sockets are registered with the runtime that
/// [`accept`](Acceptor::accept) is called in. Transports that need a listener of their own are not offered.
#[must_use]
pub fn take_sockets(
    local: SocketAddr,
    settings: &Settings,
    sockets: mpsc::UnboundedReceiver<std::net::TcpStream>,
) -> Box<dyn Acceptor> {
    Box::new(TcpPortal::new(Source::Sockets(sockets), local, settings.clone()))
}

/// Where a portal's connections come from.
enum Source {
    Listener(TcpListener),
    Sockets(mpsc::UnboundedReceiver<std::net::TcpStream>),
}

impl Source {
    async fn next(&mut self) -> io::Result<TcpStream> {
        match self {
            Self::Listener(listener) => listener.accept().await.map(|(socket, _)| socket),
            Self::Sockets(sockets) => match sockets.recv().await {
                Some(socket) => {
                    socket.set_nonblocking(true)?;
                    TcpStream::from_std(socket)
                }
                // Who accepted them is gone; what has come is still to be served.
                None => std::future::pending().await,
            },
        }
    }
}

/// Two listeners as one.
struct Both {
    first: Box<dyn Acceptor>,
    second: Box<dyn Acceptor>,
}

#[async_trait]
impl Acceptor for Both {
    fn local_addr(&self) -> SocketAddr {
        self.first.local_addr()
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        tokio::select! {
            link = self.first.accept() => link,
            link = self.second.accept() => link,
        }
    }
}

struct TcpPortal {
    source: Source,
    local: SocketAddr,
    settings: Settings,
    iwarp: IwarpFabric,
    unknown: JoinSet<Option<Box<dyn LoginLink>>>,
}

impl TcpPortal {
    fn new(source: Source, local: SocketAddr, settings: Settings) -> Self {
        let iwarp = IwarpFabric::new(settings.iwarp.clone(), settings.quirks.clone(), seed);
        Self { source, local, settings, iwarp, unknown: JoinSet::new() }
    }
}

/// Finds out what a connection is and makes its link; `None` when nothing comes of it.
async fn recognise(socket: TcpStream, settings: Settings, iwarp: IwarpFabric) -> Option<Box<dyn LoginLink>> {
    let policy = &settings.policy;
    if policy.has(Kind::Iwarp) || policy.has(Kind::Upgrade) {
        let mut first = [0];
        let peeked = tokio::time::timeout(SILENCE, socket.peek(&mut first)).await;
        if !matches!(peeked, Ok(Ok(1))) {
            return None;
        }
        if first == [MPA_FIRST] {
            return match iwarp.establish(socket, Role::Target).await {
                Ok(link) => Some(link),
                Err(e) => {
                    tracing::debug!("no iWARP connection: {e}");
                    None
                }
            };
        }
    }
    let stream = TokioStream::new(socket).ok()?;
    let link = TcpLoginLink::new(stream, Role::Target, settings.pool.clone());
    if policy.has(Kind::Upgrade) {
        let config = settings.iwarp_seeded();
        return Some(Box::new(UpgradeLink::new(link, policy.is_iser_only(), config, settings.quirks)));
    }
    policy.has(Kind::Tcp).then(|| Box::new(link) as Box<dyn LoginLink>)
}

#[async_trait]
impl Acceptor for TcpPortal {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        loop {
            tokio::select! {
                Some(done) = self.unknown.join_next() => {
                    if let Ok(Some(link)) = done {
                        return Ok(link);
                    }
                }
                accepted = self.source.next(), if self.unknown.len() < UNKNOWN => match accepted {
                    Ok(socket) => {
                        let link = recognise(socket, self.settings.clone(), self.iwarp.clone());
                        self.unknown.spawn(link);
                    }
                    Err(e) if is_of_connection(&e) => {}
                    Err(e) => return Err(e),
                },
            }
        }
    }
}

/// Whether an error of `accept` concerns the connection that was to be accepted, not the listener.
fn is_of_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | ConnectionRefused | Interrupted)
}
