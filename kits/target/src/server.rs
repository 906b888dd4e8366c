//! A running target: listens, takes logins, serves sessions, stops cleanly.

mod reload;

pub use reload::{Change, ReloadError};

use crate::config::Config;
use crate::logins::{Gate, Login};
use crate::nodes::{Directory, NodeError, Nodes, PORTAL_GROUP};
use crate::reactors::{Reactor, Reactors};
use datamover::{Acceptor, LoginLink, RdmaOffer, Resources, Stats};
use iscsi_connect::{Kind, Policy, Settings, listen, take_sockets};
use iscsi_login::auth::ChallengeKey;
use iscsi_login::{IscsiName, TargetLoginConfig};
use iscsi_pdu::Tsih;
use iscsi_session::driver::{TargetControl, serve_session};
use iscsi_session::login::{LoggedIn, accept};
use iscsi_session::registry::{Entry, SessionKey, SessionRegistry};
use iscsi_session::target::SessionEnd;
use iscsi_session::{TargetConfig as SessionConfig, TargetSession};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Sessions at most; TSIHs allow 65535.
const MAX_SESSIONS: usize = 8192;
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
    /// Sessions that a new configuration has no room for, on their way out.
    farewells: Mutex<JoinSet<()>>,
}

pub(crate) struct Shared {
    pub(crate) nodes: Arc<Nodes>,
    fixed: reload::Fixed,
    portals: Arc<[(SocketAddr, u16)]>,
    addresses: Vec<SocketAddr>,
    registry: Mutex<SessionRegistry<TargetControl>>,
    login: TargetLoginConfig,
    ping_after: Option<Duration>,
    resources: Resources,
    gate: Gate,
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

    /// The same, the sessions spread over reactors by how busy these are. What the portals accept over TCP goes to any
    /// of them; connections of a listener of RDMA's own all go to the first.
    ///
    /// # Errors
    /// [`StartError`] names what could not be opened.
    pub async fn start_on_reactors(config: Config, reactors: Arc<Reactors>) -> Result<Self, StartError> {
        let mut listening = Vec::new();
        for portal in config.portals.clone() {
            let failed = |source| StartError::Listen { portal, source };
            let listener = TcpListener::bind(portal).await.map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            tracing::info!(portal = %local, transport = %config.transport, reactors = reactors.len(), "listening");
            listening.push((listener, local));
        }
        let (policy, addresses) = (config.transport.clone(), listening.iter().map(|(_, a)| *a).collect());
        let (mut server, groups) = Self::opened(config, addresses)?;
        for (index, (listener, local)) in listening.into_iter().enumerate() {
            let group = groups.get(index).copied().unwrap_or(PORTAL_GROUP);
            let mut ways = Vec::new();
            for reactor in reactors.iter() {
                let (way, sockets) = mpsc::unbounded_channel();
                // Memory of its own, so that reactors share no lock on the way of data.
                let acceptor = take_sockets(local, &Settings::new(policy.clone()), sockets);
                server.take_logins(acceptor, group, Some(reactor));
                ways.push(way);
            }
            if policy.kinds().contains(&Kind::Rdma) {
                let first = reactors.iter().next();
                let settings = Settings::new(Policy::of(&[Kind::Rdma]));
                match listen(local, &settings).await {
                    Ok(acceptor) => server.take_logins(acceptor, group, first),
                    Err(error) => tracing::info!(portal = %local, "no RDMA listener: {error}"),
                }
            }
            server.listeners.spawn(give_away(listener, ways, reactors.clone(), server.stop.subscribe()));
        }
        Ok(server)
    }

    /// Opens all backends and serves what comes through these acceptors, in place of the configured portals: for
    /// transports of the caller's own.
    ///
    /// # Errors
    /// [`StartError`] names what could not be opened.
    pub fn start_on(config: Config, acceptors: Vec<Box<dyn Acceptor>>) -> Result<Self, StartError> {
        let addresses = acceptors.iter().map(|a| a.local_addr()).collect();
        let (mut server, groups) = Self::opened(config, addresses)?;
        for (index, acceptor) in acceptors.into_iter().enumerate() {
            let group = groups.get(index).copied().unwrap_or(PORTAL_GROUP);
            server.take_logins(acceptor, group, None);
        }
        Ok(server)
    }

    /// Serves what comes through an acceptor, here or on a reactor.
    fn take_logins(&mut self, acceptor: Box<dyn Acceptor>, group: u16, reactor: Option<&Arc<Reactor>>) {
        let task = take_logins(self.shared.clone(), acceptor, group, self.stop.subscribe(), reactor.cloned());
        match reactor {
            None => self.listeners.spawn(task),
            Some(reactor) => self.listeners.spawn_on(task, &reactor.handle),
        };
    }

    /// A server with its backends, that takes no connections yet; and the portal groups of its addresses.
    fn opened(config: Config, addresses: Vec<SocketAddr>) -> Result<(Self, Vec<u16>), StartError> {
        let groups = config.portal_groups.clone();
        let ping_after = match config.ping_after {
            None => SessionConfig::default().ping_after,
            Some(after) => Some(after).filter(|after| !after.is_zero()),
        };
        let mut login = TargetLoginConfig { command_window: 128, ..TargetLoginConfig::default() };
        // What a session of several connections needs to go on without one of them (RFC 7143 section 7.14).
        login.preferences.error_recovery_level = config.error_recovery_level.unwrap_or(1);
        login.preferences.iscsi_protocol_level = 2;
        if let Some(preferences) = config.preferences.clone() {
            login.preferences = preferences;
        }
        let fixed = reload::Fixed::of(&config);
        let nodes = Arc::new(Nodes::open(config, ChallengeKey::new(random()?))?);
        let group_of = |index: usize| groups.get(index).copied().unwrap_or(PORTAL_GROUP);
        let portals = addresses.iter().enumerate().map(|(n, address)| (*address, group_of(n)));
        let resources = Resources { commands: login.command_window, ..Resources::default() };
        let shared = Arc::new(Shared {
            nodes,
            fixed,
            portals: portals.collect(),
            addresses,
            registry: Mutex::new(SessionRegistry::new(MAX_SESSIONS)),
            login,
            ping_after,
            resources,
            gate: Gate::default(),
            present: Arc::new(watch::Sender::new(0)),
        });
        let stop = watch::Sender::new(false);
        Ok((Self { shared, stop, listeners: JoinSet::new(), farewells: Mutex::default() }, groups))
    }

    /// The addresses in use, with the ports that the system chose where 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.shared.addresses
    }

    /// Number of sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.registry().len()
    }

    /// The sessions with a target: to ask for logouts or negotiations, to drop connections, to end them.
    #[must_use]
    pub fn sessions_with(&self, name: &str) -> Vec<TargetControl> {
        let registry = self.shared.registry();
        let is = |entry: &&Entry<TargetControl>| {
            entry.key.target_name.as_ref().is_some_and(|t| t.as_str() == name)
        };
        registry.iter().map(|(_, entry)| entry).filter(is).map(|entry| entry.handle.clone()).collect()
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
        self.shared.nodes.all().iter().map(|n| &n.device).find(|d| d.name() == name).cloned()
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
        let mut farewells =
            std::mem::take(&mut *self.farewells.lock().unwrap_or_else(PoisonError::into_inner));
        while farewells.join_next().await.is_some() {}
        for device in self.shared.nodes.all().iter().map(|n| n.device.clone()) {
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

/// Accepts connections and gives each to the reactor that has the least to do.
async fn give_away(
    listener: TcpListener,
    ways: Vec<mpsc::UnboundedSender<std::net::TcpStream>>,
    reactors: Arc<Reactors>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            () = wanted(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(socket, _)| socket.into_std()) {
            Ok(socket) => {
                // One that has ended takes its connections with it.
                let _ = ways.get(reactors.place(now())).map(|way| way.send(socket));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn take_logins(
    shared: Arc<Shared>,
    mut acceptor: Box<dyn Acceptor>,
    portal_group: u16,
    mut stop: watch::Receiver<bool>,
    reactor: Option<Arc<Reactor>>,
) {
    loop {
        // A permit first: connections beyond the limit wait in the listening socket's queue.
        let next = async {
            let room = shared.gate.room().await;
            (room, acceptor.accept().await)
        };
        tokio::select! {
            () = wanted(&mut stop) => return,
            (room, accepted) = next => match accepted {
                Ok(link) => {
                    let Some(pass) = shared.gate.enter(room, link.transport().peer) else { continue };
                    let presence = Presence::new(&shared.present);
                    let (shared, mut stop, reactor) = (shared.clone(), stop.clone(), reactor.clone());
                    let peer = link.transport().peer.map(|p| p.to_string()).unwrap_or_default();
                    let span = tracing::info_span!("connection", peer);
                    tokio::spawn(async move {
                        // Dropped last: what waits for it finds files closed and memory returned.
                        let _presence = presence;
                        let shared = shared;
                        let session = tokio::select! {
                            session = shared.log_in(link, portal_group) => session,
                            () = wanted(&mut stop) => None,
                        };
                        drop(pass);
                        match (session, reactor) {
                            (Some(session), Some(reactor)) => reactor.seat(session).await,
                            (Some(session), None) => session.await,
                            (None, _) => {}
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

/// A session's place in the registry, given up however its future ends: a panic in it takes down the one session alone.
struct Entered {
    shared: Arc<Shared>,
    tsih: Tsih,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.shared.registry().remove(self.tsih);
    }
}

/// Completes when the server is to stop.
async fn wanted(stop: &mut watch::Receiver<bool>) {
    // A server that is gone wants it, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Shared {
    pub(crate) fn registry(&self) -> MutexGuard<'_, SessionRegistry<TargetControl>> {
        // The registry is consistent between its calls, whoever panics.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection through its login. The result is the session to run, when the connection begins one.
    async fn log_in(
        self: &Arc<Self>,
        link: Box<dyn LoginLink>,
        portal_group: u16,
    ) -> Option<impl Future<Output = ()> + use<>> {
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
        let policy = Login {
            shared: self,
            portal_group,
            local: transport.local,
            preferences: login.preferences.clone(),
        };
        match accept(link, login, self.resources, seed, &policy).await {
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
                self.enter(logged_in, portal_group, transport.local)
            }
            Err(error) => {
                tracing::warn!(%error, "login failed");
                None
            }
        }
    }

    /// A TARGET COLD RESET on one session has ended it: so it does those of all other initiators with the target.
    // req: 7143-11.5.1-17
    fn end_sessions_with(&self, target: Option<&IscsiName>) {
        let registry = self.registry();
        let theirs = registry.iter().filter(|(_, entry)| entry.key.target_name.as_ref() == target);
        theirs.for_each(|(_, entry)| entry.handle.reset());
    }

    /// A new connection in full feature phase: to the session that it joins, or to a new one, which is returned.
    fn enter(
        self: &Arc<Self>,
        logged_in: LoggedIn,
        portal_group: u16,
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
            ping_after: self.ping_after,
            ..SessionConfig::default()
        };
        let device = Box::new(self.nodes.nexus(n, portal_group));
        let (tsih, logged_in_target) = (n.tsih, n.target_name.clone());
        let entered = Entered { shared: self.clone(), tsih };
        let key = SessionKey::new(n, local);
        let session = TargetSession::new(config, n, now());
        let (params, auth) = (n.session, n.auth.clone());
        let (handle, run) = serve_session(session, logged_in, device);
        let (own, initiator) = (handle.clone(), key.initiator_name.clone());
        let old = self.registry().insert(tsih, Entry { key, session: params, auth, handle });
        if let Some((old, entry)) = &old {
            tracing::info!(tsih = old.0, by = tsih.0, "session reinstated");
            entry.handle.reinstate();
        }
        // A reload may have come between the login's beginning and now; from here on it finds the session itself.
        if logged_in_target.as_ref().is_some_and(|target| !self.nodes.admits(target, &initiator)) {
            own.shutdown();
        }
        let (shared, target) = (self.clone(), logged_in_target);
        Some(async move {
            let _entered = entered;
            // No command of the new session before the last of the old one has had its effect: a write that is still
            // on its way must not overtake what the initiator writes from now on.
            if let Some((_, entry)) = old {
                entry.handle.closed().await;
            }
            let end = run.await;
            if end == SessionEnd::ColdReset {
                shared.end_sessions_with(target.as_ref());
            }
            tracing::info!(tsih = tsih.0, ?end, "session ended");
        })
    }
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
