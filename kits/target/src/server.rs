//! A running target: listens, takes logins, serves sessions, stops cleanly.

use crate::config::Config;
use crate::nodes::{Directory, NodeError, Nodes};
use async_trait::async_trait;
use datamover::{Acceptor, LoginLink, RdmaOffer, Resources, Stats};
use iscsi_connect::{Settings, listen};
use iscsi_login::auth::{ChallengeKey, ChapAccount, SecretRequest};
use iscsi_login::{AccessDecision, AccessRequest, Denial, ExistingSession, SessionType, TargetLoginConfig};
use iscsi_pdu::Tsih;
use iscsi_session::driver::{TargetControl, serve_session};
use iscsi_session::login::{LoggedIn, LoginPolicy, accept};
use iscsi_session::registry::{Entry, SessionKey, SessionRegistry};
use iscsi_session::{TargetConfig as SessionConfig, TargetSession};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Sessions at most; TSIHs allow 65535.
const MAX_SESSIONS: usize = 8192;
/// Logins under way at most: more connections wait to be accepted, so that a flood of them costs bounded memory.
const MAX_LOGINS: usize = 256;
/// How long initiators may take to log out when the server stops.
const LOGOUT: Duration = Duration::from_secs(3);
/// How long sessions may take to end after that.
const STOP: Duration = Duration::from_secs(10);
/// Pause after the listening socket failed (out of descriptors, mostly), lest it spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A portal cannot be listened on.
    #[error("cannot listen on {portal}: {source}")]
    Listen {
        /// The portal.
        portal: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A logical unit cannot be opened.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The system has no random numbers to give.
    #[error("no random numbers for CHAP: {0}")]
    Random(String),
}

/// A running target. Dropping it stops it at once; [`shutdown`](Self::shutdown) tells the initiators first.
pub struct Server {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

struct Shared {
    nodes: Arc<Nodes>,
    portals: Arc<[SocketAddr]>,
    registry: Mutex<SessionRegistry<TargetControl>>,
    login: TargetLoginConfig,
    resources: Resources,
    logins: Arc<tokio::sync::Semaphore>,
    /// Connections, from their acceptance until nothing of them is left.
    present: Arc<watch::Sender<usize>>,
}

impl Server {
    /// Opens all backends and listens on all portals, with the transports that the configuration allows.
    ///
    /// # Errors
    /// [`StartError`] names what could not be opened.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let settings = Settings::new(config.transport.clone());
        let mut acceptors = Vec::new();
        for portal in config.portals.clone() {
            let acceptor =
                listen(portal, &settings).await.map_err(|source| StartError::Listen { portal, source })?;
            tracing::info!(portal = %acceptor.local_addr(), transport = %settings.policy, "listening");
            acceptors.push(acceptor);
        }
        Self::start_on(config, acceptors)
    }

    /// Opens all backends and serves what comes through these acceptors, in place of the configured portals: for
    /// transports of the caller's own.
    ///
    /// # Errors
    /// [`StartError`] names what could not be opened.
    pub fn start_on(config: Config, acceptors: Vec<Box<dyn Acceptor>>) -> Result<Self, StartError> {
        let nodes = Arc::new(Nodes::open(config, ChallengeKey::new(random()?))?);
        let login = TargetLoginConfig { command_window: 128, ..TargetLoginConfig::default() };
        let resources = Resources { commands: login.command_window, ..Resources::default() };
        let shared = Arc::new(Shared {
            nodes,
            portals: acceptors.iter().map(|a| a.local_addr()).collect(),
            registry: Mutex::new(SessionRegistry::new(MAX_SESSIONS)),
            login,
            resources,
            logins: Arc::new(tokio::sync::Semaphore::new(MAX_LOGINS)),
            present: Arc::new(watch::Sender::new(0)),
        });
        let stop = watch::Sender::new(false);
        let mut listeners = JoinSet::new();
        for acceptor in acceptors {
            listeners.spawn(take_logins(shared.clone(), acceptor, stop.subscribe()));
        }
        Ok(Self { shared, stop, listeners })
    }

    /// The addresses in use, with the ports that the system chose where 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.portals
    }

    /// Number of sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.registry().len()
    }

    /// What the connections of all sessions moved, and what they had to copy.
    pub async fn stats(&self) -> Stats {
        let handles: Vec<_> = self.shared.registry().iter().map(|(_, entry)| entry.handle.clone()).collect();
        let mut all = Vec::new();
        for handle in handles {
            all.extend(handle.counters().await.map(|(_, connections)| connections).unwrap_or_default());
        }
        all.into_iter().sum()
    }

    /// The target device of a name, to change its logical units while it is served.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<Arc<crate::TargetDevice>> {
        self.shared.nodes.iter().map(|n| &n.device).find(|d| d.name() == name).cloned()
    }

    /// Stops: no new connections, sessions asked to log out and then closed, data flushed.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        while self.listeners.join_next().await.is_some() {}
        // Initiators that follow the request log out in order, their tasks done; the others are cut off.
        self.shared.registry().iter().for_each(|(_, entry)| entry.handle.request_logout(LOGOUT));
        let mut left = self.shared.present.subscribe();
        let _ = tokio::time::timeout(LOGOUT, left.wait_for(|n| *n == 0)).await;
        self.shared.registry().iter().for_each(|(_, entry)| entry.handle.shutdown());
        if tokio::time::timeout(STOP, left.wait_for(|n| *n == 0)).await.is_err() {
            tracing::warn!(sessions = self.sessions(), "sessions did not end in time");
        }
        for device in self.shared.nodes.iter().map(|n| n.device.clone()) {
            for (lun, unit) in device.units() {
                let name = device.name().to_owned();
                let flushed = tokio::task::spawn_blocking(move || unit.flush()).await;
                if let Ok(Err(error)) = flushed {
                    tracing::error!(target_name = name, lun, %error, "data could not be flushed");
                }
            }
        }
    }
}

fn random() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| StartError::Random(e.to_string()))?;
    Ok(bytes)
}

async fn take_logins(shared: Arc<Shared>, mut acceptor: Box<dyn Acceptor>, mut stop: watch::Receiver<bool>) {
    loop {
        // A permit first: connections beyond the limit wait in the listening socket's queue.
        let next = async {
            let permit = shared.logins.clone().acquire_owned().await;
            (permit, acceptor.accept().await)
        };
        tokio::select! {
            () = wanted(&mut stop) => return,
            (permit, accepted) = next => match accepted {
                Ok(link) => {
                    let presence = Presence::new(&shared.present);
                    let (shared, mut stop) = (shared.clone(), stop.clone());
                    let peer = link.transport().peer.map(|p| p.to_string()).unwrap_or_default();
                    let span = tracing::info_span!("connection", peer);
                    tokio::spawn(async move {
                        // Dropped last: what waits for it finds files closed and memory returned.
                        let _presence = presence;
                        let shared = shared;
                        let session = tokio::select! {
                            session = shared.log_in(link) => session,
                            () = wanted(&mut stop) => None,
                        };
                        drop(permit);
                        if let Some(session) = session {
                            session.await;
                        }
                    }.instrument(span));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Counts a connection while it lives.
struct Presence(Arc<watch::Sender<usize>>);

impl Presence {
    fn new(present: &Arc<watch::Sender<usize>>) -> Self {
        present.send_modify(|n| *n += 1);
        Self(present.clone())
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Completes when the server is to stop.
async fn wanted(stop: &mut watch::Receiver<bool>) {
    // A server that is gone wants it, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, SessionRegistry<TargetControl>> {
        // The registry is consistent between its calls, whoever panics.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection through its login. The result is the session to run, when the connection begins one.
    async fn log_in(self: &Arc<Self>, link: Box<dyn LoginLink>) -> Option<impl Future<Output = ()> + use<>> {
        let seed = match random() {
            Ok(seed) => seed,
            Err(error) => {
                tracing::error!(%error, "login refused");
                return None;
            }
        };
        let transport = link.transport();
        let mut login = self.login.clone();
        // Unsolicited data arrives where there is no buffer for it yet: over RDMA that is a copy, and a receive
        // buffer that the command window does not account for.
        login.preferences.initial_r2t |= link.rdma_offer() == RdmaOffer::Always;
        match accept(link, login, self.resources, seed, &**self).await {
            Ok(logged_in) => {
                let n = &logged_in.negotiated;
                tracing::info!(
                    initiator = %n.initiator_name,
                    target = n.target_name.as_ref().map(|t| t.as_str()).unwrap_or("(discovery)"),
                    tsih = n.tsih.0,
                    transport = transport.name,
                    detail = transport.detail,
                    authenticated = n.auth.is_authenticated(),
                    "logged in"
                );
                self.enter(logged_in, transport.local)
            }
            Err(error) => {
                tracing::warn!(%error, "login failed");
                None
            }
        }
    }

    /// A new connection in full feature phase: to the session that it joins, or to a new one, which is returned.
    fn enter(
        self: &Arc<Self>,
        logged_in: LoggedIn,
        local: Option<SocketAddr>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let n = &logged_in.negotiated;
        if !n.leading {
            let handle =
                self.registry().find(n.tsih, &n.initiator_name, n.isid).map(|entry| entry.handle.clone());
            // A session that ended meanwhile takes its would-be connection with it: it closes when dropped.
            if let Some(handle) = handle {
                handle.add_connection(logged_in);
            }
            return None;
        }
        let config = SessionConfig {
            directory: Arc::new(Directory {
                nodes: self.nodes.clone(),
                portals: self.portals.clone(),
                local,
            }),
            ..SessionConfig::default()
        };
        let device = Box::new(self.nodes.nexus(n));
        let tsih = n.tsih;
        let key = SessionKey::new(n, local);
        let session = TargetSession::new(config, n, now());
        let (params, auth) = (n.session, n.auth.clone());
        let (handle, run) = serve_session(session, logged_in, device);
        let old = self.registry().insert(tsih, Entry { key, session: params, auth, handle });
        if let Some((old, entry)) = &old {
            tracing::info!(tsih = old.0, by = tsih.0, "session reinstated");
            entry.handle.reinstate();
        }
        let shared = self.clone();
        Some(async move {
            // No command of the new session before the last of the old one has had its effect: a write that is still
            // on its way must not overtake what the initiator writes from now on.
            if let Some((_, entry)) = old {
                entry.handle.closed().await;
            }
            let end = run.await;
            shared.registry().remove(tsih);
            tracing::info!(tsih = tsih.0, ?end, "session ended");
        })
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

#[async_trait]
impl LoginPolicy for Shared {
    // req: 7143-6.3.1-2
    async fn access(&self, request: &AccessRequest) -> AccessDecision {
        let mut grant = match self.nodes.access(request) {
            Ok(grant) => grant,
            Err(denial) => return AccessDecision::Deny(denial),
        };
        if request.tsih != Tsih::NEW {
            let registry = self.registry();
            let Some(entry) = registry.find(request.tsih, &request.initiator_name, request.isid) else {
                return AccessDecision::Deny(Denial::SessionDoesNotExist);
            };
            if entry.key.target_name != request.target_name || request.session_type == SessionType::Discovery
            {
                return AccessDecision::Deny(Denial::CannotIncludeInSession);
            }
            let open = entry.handle.connections();
            if !open.contains(&request.cid) && open.len() >= usize::from(entry.session.max_connections) {
                return AccessDecision::Deny(Denial::TooManyConnections);
            }
            let (exp_cmd_sn, max_cmd_sn) = entry.handle.window();
            grant.session = Some(ExistingSession {
                tsih: request.tsih,
                session: entry.session,
                auth: entry.auth.clone(),
                exp_cmd_sn,
                max_cmd_sn,
            });
        }
        AccessDecision::Grant(Box::new(grant))
    }

    async fn account(&self, request: &SecretRequest) -> Option<ChapAccount> {
        self.nodes.account(request.session_type, request.target_name.as_ref(), &request.user)
    }

    fn tsih(&self, request: &AccessRequest) -> Option<Tsih> {
        if request.tsih == Tsih::NEW { self.registry().reserve() } else { Some(request.tsih) }
    }

    fn release(&self, tsih: Tsih) {
        self.registry().release(tsih);
    }
}
