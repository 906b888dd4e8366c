//! [`Connector`]: an initiator's ways to a portal, the best first, and what it has learned about them.

use crate::policy::Kind;
use crate::upgrade::UpgradeLink;
use crate::{Settings, seed};
use async_trait::async_trait;
use datamover::{Acceptor, Fabric, LoginLink};
use iscsi_tcp::TcpFabric;
use iser_rdma::provider::iwarp::IwarpFabric;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a way that failed is tried last.
const GRUDGE: Duration = Duration::from_secs(60);

/// One way to a portal.
#[derive(Clone)]
pub struct Way {
    kind: Kind,
    fabric: Arc<dyn Fabric>,
}

impl Way {
    /// Which.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Connects; the login is yet to come.
    ///
    /// # Errors
    /// The transport's own: then try the next way.
    pub async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        self.fabric.connect(portal).await
    }
}

/// What is known about a portal.
#[derive(Default)]
struct Known {
    worked: Option<Kind>,
    failed: Vec<(Kind, Instant)>,
}

/// The ways of a policy, and what became of them at each portal. Clones share what they learn.
///
/// ```no_run
/// # async fn example() -> std::io::Result<()> {
/// use iscsi_connect::{Connector, Settings};
///
/// let connector = Connector::new(Settings::default());
/// let portal = "192.0.2.1:3260".parse().unwrap();
/// for way in connector.ways(portal) {
///     match way.connect(portal).await {
///         Ok(link) => {
///             // ... log in; if that succeeds:
///             connector.worked(portal, way.kind());
///             break;
///         }
///         Err(_) => connector.failed(portal, way.kind()),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    ways: Vec<Way>,
    known: Arc<Mutex<HashMap<SocketAddr, Known>>>,
}

impl Connector {
    /// The ways of `settings.policy` that this machine has; why it has not the others is told in the log, once.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut ways = Vec::new();
        for kind in settings.policy.kinds() {
            match fabric(*kind, &settings) {
                Ok(fabric) => ways.push(Way { kind: *kind, fabric }),
                Err(reason) => tracing::info!(transport = %kind, "not available: {reason}"),
            }
        }
        Self { ways, known: Arc::default() }
    }

    /// The same with one more way, tried before all others: a transport of the caller's own, or a device that has
    /// appeared.
    #[must_use]
    pub fn with_way(mut self, kind: Kind, fabric: Arc<dyn Fabric>) -> Self {
        self.ways.retain(|w| w.kind != kind);
        self.ways.insert(0, Way { kind, fabric });
        self
    }

    /// The ways to a portal, the best first: what worked last, then the order of the policy, and at the end what
    /// failed within the last minute.
    #[must_use]
    pub fn ways(&self, portal: SocketAddr) -> Vec<Way> {
        let now = now();
        let known = self.known();
        let known = known.get(&portal);
        let rank = |way: &Way| {
            let Some(known) = known else { return 1 };
            let grudge =
                known.failed.iter().any(|(k, at)| *k == way.kind && now.duration_since(*at) < GRUDGE);
            match (grudge, known.worked == Some(way.kind)) {
                (true, _) => 2,
                (false, true) => 0,
                (false, false) => 1,
            }
        };
        let mut ways = self.ways.clone();
        ways.sort_by_key(rank);
        ways
    }

    /// A session came about by this way.
    pub fn worked(&self, portal: SocketAddr, kind: Kind) {
        let mut known = self.known();
        let known = known.entry(portal).or_default();
        known.worked = Some(kind);
        known.failed.retain(|(k, _)| *k != kind);
    }

    /// No connection, or no login, by this way; or the device behind it went away.
    pub fn failed(&self, portal: SocketAddr, kind: Kind) {
        let mut known = self.known();
        let known = known.entry(portal).or_default();
        known.failed.retain(|(k, _)| *k != kind);
        known.failed.push((kind, now()));
        if known.worked == Some(kind) {
            known.worked = None;
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SocketAddr, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn fabric(kind: Kind, settings: &Settings) -> Result<Arc<dyn Fabric>, String> {
    match kind {
        Kind::Rdma => rdma_fabric(settings),
        Kind::Iwarp => Ok(Arc::new(IwarpFabric::new(settings.iwarp.clone(), settings.quirks.clone(), seed))),
        Kind::Upgrade => Ok(Arc::new(UpgradeFabric(settings.clone()))),
        Kind::Tcp => Ok(Arc::new(TcpFabric::new(settings.pool.clone()))),
    }
}

/// The fabric of the kernel's RDMA devices, or in one line why there is none.
#[cfg(all(feature = "verbs", target_os = "linux"))]
pub(crate) fn rdma_fabric(settings: &Settings) -> Result<Arc<dyn Fabric>, String> {
    use iser_rdma::provider::verbs::{VerbsConfig, VerbsFabric};
    Ok(Arc::new(VerbsFabric::new(VerbsConfig::default(), settings.quirks.clone())?))
}

/// The fabric of the kernel's RDMA devices, or in one line why there is none.
#[cfg(not(all(feature = "verbs", target_os = "linux")))]
pub(crate) fn rdma_fabric(_: &Settings) -> Result<Arc<dyn Fabric>, String> {
    Err("this build has no RDMA verbs".into())
}

/// TCP connections that offer iSER in their login.
struct UpgradeFabric(Settings);

#[async_trait]
impl Fabric for UpgradeFabric {
    fn name(&self) -> &'static str {
        Kind::Upgrade.name()
    }

    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        let link = TcpFabric::new(self.0.pool.clone()).connect_tcp(portal).await?;
        let iser_only = self.0.policy.is_iser_only();
        Ok(Box::new(UpgradeLink::new(link, iser_only, self.0.iwarp_seeded(), self.0.quirks.clone())))
    }

    async fn listen(&self, portal: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        crate::listen(portal, &self.0).await
    }
}

#[cfg(test)]
mod tests;
