//! Listening and connecting in memory.

use super::{MemConfig, MemLink, pair};
use crate::{Acceptor, Fabric, LoginLink};
use async_trait::async_trait;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A [`Fabric`] of one process: whoever holds a clone can reach who listens on it.
#[derive(Clone, Default)]
pub struct MemFabric {
    config: MemConfig,
    portals: Arc<Mutex<BTreeMap<SocketAddr, Queue>>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<MemLink>,
    waker: Option<Waker>,
}

impl MemFabric {
    /// A fabric whose connections all behave as `config` says.
    #[must_use]
    pub fn new(config: MemConfig) -> Self {
        Self { config, portals: Arc::default() }
    }

    fn portals(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Queue>> {
        self.portals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Fabric for MemFabric {
    fn name(&self) -> &'static str {
        "mem"
    }

    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        let mut portals = self.portals();
        let queue = portals.get_mut(&portal).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (initiator, target, _) = pair(self.config.clone());
        queue.waiting.push_back(target);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
        Ok(Box::new(initiator))
    }

    async fn listen(&self, mut portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let mut portals = self.portals();
        if portal.port() == 0 {
            let free = (49152..=u16::MAX).find(|port| {
                portal.set_port(*port);
                !portals.contains_key(&portal)
            });
            free.ok_or(io::ErrorKind::AddrNotAvailable)?;
        }
        if portals.contains_key(&portal) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        portals.insert(portal, Queue::default());
        Ok(Box::new(MemAcceptor { fabric: self.clone(), portal }))
    }
}

/// Listens on a portal of a [`MemFabric`], until dropped.
pub struct MemAcceptor {
    fabric: MemFabric,
    portal: SocketAddr,
}

#[async_trait]
impl Acceptor for MemAcceptor {
    fn local_addr(&self) -> SocketAddr {
        self.portal
    }

    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>> {
        poll_fn(|cx| {
            let mut portals = self.fabric.portals();
            let Some(queue) = portals.get_mut(&self.portal) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match queue.waiting.pop_front() {
                Some(link) => Poll::Ready(Ok(Box::new(link) as Box<dyn LoginLink>)),
                None => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for MemAcceptor {
    fn drop(&mut self) {
        self.fabric.portals().remove(&self.portal);
    }
}
