//! Connections by address, through librdmacm: connect and listen.

use super::cm::{CmEvent, CmEvents};
use super::ffi;
use super::id::{Channel, Id};
use super::queue::VerbsRcap;
use crate::login::MessageLoginLink;
use crate::quirks::{CmHeader, Quirks};
use async_trait::async_trait;
use datamover::{Acceptor, Fabric, LoginLink, Role};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How an end wants its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerbsConfig {
    /// Work requests of the send queue.
    pub send_queue: u32,
    /// Receive buffers of the receive queue: as many as a connection's resources may ask for.
    pub recv_queue: u32,
    /// RDMA Reads of this end outstanding at a time, as a target.
    pub ord: u16,
    /// RDMA Reads of the peer that are served at a time, as an initiator.
    pub ird: u16,
    /// Use type-2 memory windows where the device has them; else every advertised buffer is registered for its one
    /// use, which is slower.
    pub windows: bool,
    /// Windows of one connection at most.
    pub max_windows: usize,
    /// How long each step of a connection's making may take.
    pub timeout: Duration,
}

impl Default for VerbsConfig {
    fn default() -> Self {
        Self {
            send_queue: 1024,
            recv_queue: 512,
            ord: 32,
            ird: 32,
            windows: true,
            max_windows: 512,
            timeout: Duration::from_secs(10),
        }
    }
}

/// One attempt to resolve an address or a route, in milliseconds.
const RESOLVE_MS: i32 = 1000;

/// iSER through the RDMA devices of the kernel.
#[derive(Clone)]
pub struct VerbsFabric {
    config: VerbsConfig,
    quirks: Quirks,
}

impl VerbsFabric {
    /// The fabric of this machine's devices.
    ///
    /// # Errors
    /// In one line, why there are none: see [`probe`](super::probe).
    pub fn new(config: VerbsConfig, quirks: Quirks) -> Result<Self, String> {
        super::probe()?;
        Ok(Self { config, quirks })
    }

    async fn connect_now(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        let channel = Channel::new()?;
        let events = CmEvents::new(channel.clone())?;
        let id = Arc::new(Id::new(channel)?);
        // The kernel looks at an address that it has just resolved when the time given is up, so that is short and
        // there are several attempts.
        loop {
            id.resolve(portal, RESOLVE_MS)?;
            match events.expect(ffi::EVENT_ADDR_RESOLVED).await {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {}
                Err(e) => return Err(e),
            }
        }
        id.resolve_route(RESOLVE_MS)?;
        events.expect(ffi::EVENT_ROUTE_RESOLVED).await?;
        let mut rcap = VerbsRcap::new(id.clone(), &self.config)?;
        let (own_ird, windows) = (crate::Rcap::caps(&rcap).ird, rcap.has_windows());
        let header = CmHeader { no_zero_based_va: true, no_send_invalidate: !windows }.encode();
        // An initiator issues no RDMA Reads; a depth of 1 is what peers are used to.
        id.connect(&header, own_ird, 1)?;
        events.expect(ffi::EVENT_ESTABLISHED).await?;
        rcap.connected(events, 0, own_ird, false);
        Ok(Box::new(MessageLoginLink::new(rcap, Role::Initiator, self.quirks.clone())))
    }

    /// Answers a connection request; the link is ready when the connection is.
    async fn accept_now(&self, request: CmEvent) -> io::Result<Box<dyn LoginLink>> {
        let ptr = request.request.ok_or(io::ErrorKind::InvalidData)?;
        let channel = Channel::new()?;
        // SAFETY: the event was acknowledged when it was read, and this is its only use.
        let id = Arc::new(unsafe { Id::adopt(ptr, channel.clone()) }?);
        let events = CmEvents::new(channel)?;
        let rcap = VerbsRcap::new(id.clone(), &self.config)?;
        let caps = crate::Rcap::caps(&rcap);
        let ord = caps.ord.min(request.initiator_depth.into());
        let peer = CmHeader::decode(&request.private_data);
        let send_invalidate = caps.send_invalidate && !peer.no_send_invalidate;
        let header = CmHeader { no_zero_based_va: true, no_send_invalidate: !send_invalidate }.encode();
        // The first login request may arrive before the connection is reported: its buffer is there already.
        let mut link = MessageLoginLink::new(rcap, Role::Target, self.quirks.clone());
        id.accept(&header, request.responder_resources.min(1).into(), ord)?;
        events.expect(ffi::EVENT_ESTABLISHED).await?;
        link.rcap_mut().connected(events, ord, 1, send_invalidate);
        Ok(Box::new(link))
    }

    /// Refuses a connection request.
    fn refuse(request: &CmEvent) {
        let Some(ptr) = request.request else { return };
        let Ok(channel) = Channel::new() else { return };
        // SAFETY: the event was acknowledged when it was read, and this is its only use.
        if let Ok(id) = unsafe { Id::adopt(ptr, channel) } {
            id.reject();
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[async_trait]
impl Fabric for VerbsFabric {
    fn name(&self) -> &'static str {
        "rdma"
    }

    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        within(self.config.timeout, self.connect_now(portal)).await
    }

    async fn listen(&self, portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let channel = Channel::new()?;
        let events = CmEvents::new(channel.clone())?;
        let id = Id::new(channel)?;
        id.listen(portal, 128)?;
        let local = id.local_addr().unwrap_or(portal);
        Ok(Box::new(VerbsAcceptor { events, _id: id, local, fabric: self.clone(), making: JoinSet::new() }))
    }
}

/// Connections being made on one portal at a time.
const MAKING: usize = 256;

struct VerbsAcceptor {
    /// Before the identifier, whose channel it watches.
    events: CmEvents,
    _id: Id,
    local: SocketAddr,
    fabric: VerbsFabric,
    making: JoinSet<io::Result<Box<dyn LoginLink>>>,
}

#[async_trait]
impl Acceptor for VerbsAcceptor {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        loop {
            tokio::select! {
                Some(done) = self.making.join_next() => {
                    if let Ok(Ok(link)) = done {
                        return Ok(link);
                    }
                }
                event = self.events.next() => {
                    let event = event?;
                    if event.kind != ffi::EVENT_CONNECT_REQUEST {
                        continue;
                    }
                    if self.making.len() >= MAKING {
                        VerbsFabric::refuse(&event);
                        continue;
                    }
                    let fabric = self.fabric.clone();
                    self.making.spawn(async move {
                        within(fabric.config.timeout, fabric.accept_now(event)).await
                    });
                }
            }
        }
    }
}
