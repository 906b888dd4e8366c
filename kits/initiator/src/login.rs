//! From a portal to a connection in full feature phase: name resolution, transports, redirections.

use crate::options::random_isid;
use crate::transport::Transport;
use crate::{ConnectOptions, Error};
use datamover::{RdmaOffer, Resources};
use iscsi_connect::{Connector, Settings};
use iscsi_login::auth::{ChallengeKey, ChapInitiator};
use iscsi_login::sendtargets::{Host, TargetAddress};
use iscsi_login::{
    DigestPolicy, ExistingSession, InitiatorAuth, InitiatorLoginConfig, LoginFailure, LoginStart,
    LoginStatus, Preferences, RedirectGuard, Redirection, SessionGoal,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, StatSn};
use iscsi_session::login::{LoggedIn, LoginError, connect};
use std::io;
use std::time::Duration;

/// What a connection should be able to hold.
const RESOURCES: Resources =
    Resources { commands: 256, unexpected: 64, max_control_data: 8192, pool_bytes: 16 << 20 };

/// CID of a leading connection.
pub(crate) const LEADING: Cid = Cid(0);

/// Redirections that are followed in one login.
const MAX_REDIRECTIONS: u8 = 8;

/// What a further connection of a session joins, and as what.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) session: ExistingSession,
    /// The portal group that the session is with: it spans no other.
    pub(crate) portal_group_tag: Option<u16>,
    pub(crate) cid: Cid,
    /// CmdSN of the session's next command.
    pub(crate) cmd_sn: CmdSn,
}

/// Where a session goes, and as whom: all that is needed to log in, and to log in again.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where the last login succeeded, redirections followed.
    at: Option<(String, u16)>,
    pub(crate) goal: SessionGoal,
    pub(crate) isid: Isid,
    pub(crate) options: ConnectOptions,
    challenge_key: ChallengeKey,
    /// The ways to a portal, with what was learned of them.
    connector: Connector,
}

impl Endpoint {
    pub(crate) fn new(
        host: &str,
        port: u16,
        goal: SessionGoal,
        options: &ConnectOptions,
    ) -> Result<Self, Error> {
        let isid = match options.isid {
            Some(isid) => isid,
            None => random_isid()?,
        };
        let connector = match &options.connector {
            Some(connector) => connector.clone(),
            None => Connector::new(Settings::new(options.transport.clone())),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            at: None,
            goal,
            isid,
            options: options.clone(),
            challenge_key: ChallengeKey::new(random()?),
            connector,
        })
    }

    /// Logs in on a new connection, as a new session or in the place of the one with this ISID.
    pub(crate) async fn log_in(&mut self) -> Result<(LoggedIn, Transport), Error> {
        self.log_in_within(self.options.timeout).await
    }

    /// The same, within this time.
    pub(crate) async fn log_in_within(&mut self, limit: Duration) -> Result<(LoggedIn, Transport), Error> {
        let first = (self.host.clone(), self.port);
        let logged_in = tokio::time::timeout(limit, self.log_in_from(first, None));
        logged_in.await.unwrap_or_else(|_| Err(Error::TimedOut(limit.as_secs())))
    }

    /// Logs in one more connection of a session, where its last login came to its end.
    pub(crate) async fn join(&mut self, join: &Join) -> Result<LoggedIn, Error> {
        let limit = self.options.timeout;
        let first = self.at.clone().unwrap_or_else(|| (self.host.clone(), self.port));
        let logged_in = tokio::time::timeout(limit, self.log_in_from(first, Some(join)));
        let logged_in = logged_in.await.unwrap_or_else(|_| Err(Error::TimedOut(limit.as_secs())));
        logged_in.map(|(logged_in, _)| logged_in)
    }

    /// Logs in at a portal, or where that sends us: to the first place of a redirection where somebody is. A permanent
    /// one is remembered once it has led somewhere.
    async fn log_in_from(
        &mut self,
        (mut host, mut port): (String, u16),
        join: Option<&Join>,
    ) -> Result<(LoggedIn, Transport), Error> {
        let mut guard = RedirectGuard::new(&address(&host, port), MAX_REDIRECTIONS);
        let mut redirection: Option<Box<Redirection>> = None;
        let mut moved = None;
        loop {
            let error = match self.log_in_at(&host, port, join).await {
                Ok(up) => {
                    if let Some(home) = moved {
                        (self.host, self.port) = home;
                    }
                    self.at = Some((host, port));
                    return Ok(up);
                }
                Err(Error::Login(LoginError::Redirected(to))) => {
                    redirection = Some(to);
                    Error::RedirectLoop
                }
                // Nobody is there; what sent us may name other places.
                Err(error @ Error::Connect { .. }) => error,
                Err(error) => return Err(error),
            };
            let Some(to) = &redirection else { return Err(error) };
            let Ok(next) = guard.follow(to) else { return Err(error) };
            (host, port) = place(&next);
            tracing::info!(host, port, permanently = to.permanently, "redirected");
            if to.permanently {
                moved = Some((host.clone(), port));
            }
        }
    }

    /// Tries all addresses of a host by all ways allowed, the best first.
    async fn log_in_at(
        &self,
        host: &str,
        port: u16,
        join: Option<&Join>,
    ) -> Result<(LoggedIn, Transport), Error> {
        let portal = portal_text(host, port);
        let failed = |source: io::Error| Error::Connect { portal: portal.clone(), source };
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
        let mut last = failed(io::Error::new(io::ErrorKind::NotFound, "no address, or no transport to it"));
        for address in addresses {
            for way in self.connector.ways(address) {
                let link = match way.connect(address).await {
                    Ok(link) => link,
                    Err(e) => {
                        tracing::debug!(%address, way = %way.kind(), error = %e, "no connection");
                        self.connector.failed(address, way.kind());
                        last = failed(e);
                        continue;
                    }
                };
                let offer = link.rdma_offer();
                let offers_iser = offer != RdmaOffer::Never;
                // All connections of a session are moved by the same kind of datamover (RFC 7145 section 5.1).
                if join.is_some_and(|j| match j.session.session.rdma_extensions {
                    true => offer == RdmaOffer::Never,
                    false => offer == RdmaOffer::Always,
                }) {
                    continue;
                }
                match connect(link, self.config(join)?, self.start(join), RESOURCES, random()?).await {
                    Ok(logged_in) => {
                        self.connector.worked(address, way.kind());
                        let transport = Transport::of(&logged_in.datamover.transport());
                        let session = &logged_in.negotiated.session;
                        tracing::info!(
                            %address,
                            %transport,
                            error_recovery_level = session.error_recovery_level,
                            max_connections = session.max_connections,
                            "logged in"
                        );
                        return Ok((logged_in, transport));
                    }
                    // What the target says of us it would say by any way; what it says of the offer of iSER it may
                    // not say without.
                    Err(e @ LoginError::Redirected(_)) => return Err(e.into()),
                    Err(e @ LoginError::Refused(failure)) if !offers_iser || is_about_us(&failure) => {
                        return Err(e.into());
                    }
                    Err(e) => {
                        tracing::debug!(%address, way = %way.kind(), error = %e, "login failed");
                        self.connector.failed(address, way.kind());
                        last = e.into();
                    }
                }
            }
        }
        Err(last)
    }

    fn config(&self, join: Option<&Join>) -> Result<InitiatorLoginConfig, Error> {
        let options = &self.options;
        let auth = match &options.chap {
            None => InitiatorAuth::None,
            Some(own) => {
                let chap =
                    ChapInitiator::new(own.clone(), options.target_chap.clone(), self.challenge_key.clone())?
                        .with_algorithms(options.chap_algorithms.clone());
                // Discovery often needs no authentication where the target does; what proves the target is never
                // left out.
                match self.goal {
                    SessionGoal::Discovery(_) => InitiatorAuth::ChapOrNone(Box::new(chap)),
                    SessionGoal::Normal(_) => InitiatorAuth::Chap(Box::new(chap)),
                }
            }
        };
        let mut config = InitiatorLoginConfig::new(options.initiator_name.clone(), self.goal.clone(), auth);
        let digest = |wanted: bool| match self.goal {
            _ if !wanted => DigestPolicy::Avoid,
            SessionGoal::Discovery(_) => DigestPolicy::Prefer,
            SessionGoal::Normal(_) => DigestPolicy::Require,
        };
        config.preferences = Preferences {
            header_digest: digest(options.header_digest),
            data_digest: digest(options.data_digest),
            ..options.preferences.clone()
        };
        if options.connections > 1 {
            // A session that goes on without a lost connection needs recovery within a connection (RFC 7143 section
            // 7.14).
            config.preferences.max_connections = options.connections;
            config.preferences.error_recovery_level = config.preferences.error_recovery_level.max(1);
        }
        config.budget.time = options.timeout;
        config.expected_portal_group_tag = join.and_then(|j| j.portal_group_tag);
        Ok(config)
    }

    fn start(&self, join: Option<&Join>) -> LoginStart {
        LoginStart {
            isid: self.isid,
            cid: join.map_or(LEADING, |j| j.cid),
            itt: Itt(0),
            cmd_sn: join.map_or(CmdSn(1), |j| j.cmd_sn),
            exp_stat_sn: StatSn(0),
            session: join.map(|j| j.session.clone()),
        }
    }
}

/// Whether a refusal has to do with who we are and what we want, not with how we offered it.
fn is_about_us(failure: &LoginFailure) -> bool {
    failure.status.is_some_and(|status| {
        !matches!(status, LoginStatus::INITIATOR_ERROR | LoginStatus::INVALID_DURING_LOGIN)
    })
}

fn place(address: &TargetAddress) -> (String, u16) {
    let host = match &address.host {
        Host::Ip(ip) => ip.to_string(),
        Host::Name(name) => name.to_string(),
    };
    (host, address.port_or_default())
}

pub(crate) fn address(host: &str, port: u16) -> TargetAddress {
    let host = match host.parse() {
        Ok(ip) => Host::Ip(ip),
        Err(_) => Host::Name(host.into()),
    };
    TargetAddress { host, port: Some(port), portal_group_tag: None }
}

fn portal_text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(bytes)
}
