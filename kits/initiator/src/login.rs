//! From a portal to a connection in full feature phase: name resolution, transports, redirections.

use crate::options::random_isid;
use crate::transport::Transport;
use crate::{ConnectOptions, Error};
use datamover::{RdmaOffer, Resources};
use iscsi_connect::{Connector, Settings};
use iscsi_login::auth::{ChallengeKey, ChapInitiator};
use iscsi_login::sendtargets::{Host, TargetAddress};
use iscsi_login::{
    DigestPolicy, InitiatorAuth, InitiatorLoginConfig, LoginFailure, LoginStart, LoginStatus, Preferences,
    SessionGoal,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, StatSn};
use iscsi_session::login::{LoggedIn, LoginError, connect};
use std::collections::HashSet;
use std::io;

/// What a connection should be able to hold.
const RESOURCES: Resources =
    Resources { commands: 256, unexpected: 64, max_control_data: 8192, pool_bytes: 16 << 20 };

/// Redirections that are followed in one login.
const MAX_REDIRECTIONS: usize = 8;

/// Where a session goes, and as whom: all that is needed to log in, and to log in again.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
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
            goal,
            isid,
            options: options.clone(),
            challenge_key: ChallengeKey::new(random()?),
            connector,
        })
    }

    /// Logs in on a new connection, as a new session or in the place of the one with this ISID.
    pub(crate) async fn log_in(&mut self) -> Result<(LoggedIn, Transport), Error> {
        let limit = self.options.timeout;
        let logged_in = tokio::time::timeout(limit, self.log_in_somewhere());
        logged_in.await.unwrap_or_else(|_| Err(Error::TimedOut(limit.as_secs())))
    }

    async fn log_in_somewhere(&mut self) -> Result<(LoggedIn, Transport), Error> {
        let (mut host, mut port) = (self.host.clone(), self.port);
        let mut visited = HashSet::from([(host.clone(), port)]);
        loop {
            match self.log_in_at(&host, port).await {
                Err(Error::Login(LoginError::Redirected(to))) => {
                    let next = to.addresses.iter().map(place).find(|p| !visited.contains(p));
                    (host, port) = next.ok_or(Error::RedirectLoop)?;
                    tracing::info!(host, port, permanently = to.permanently, "redirected");
                    visited.insert((host.clone(), port));
                    if visited.len() > MAX_REDIRECTIONS {
                        return Err(Error::RedirectLoop);
                    }
                    if to.permanently {
                        (self.host, self.port) = (host.clone(), port);
                    }
                }
                result => return result,
            }
        }
    }

    /// Tries all addresses of a host by all ways allowed, the best first.
    async fn log_in_at(&self, host: &str, port: u16) -> Result<(LoggedIn, Transport), Error> {
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
                let offers_iser = link.rdma_offer() != RdmaOffer::Never;
                match connect(link, self.config()?, self.start(), RESOURCES, random()?).await {
                    Ok(logged_in) => {
                        self.connector.worked(address, way.kind());
                        let transport = Transport::of(&logged_in.datamover.transport());
                        tracing::info!(%address, %transport, "logged in");
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

    fn config(&self) -> Result<InitiatorLoginConfig, Error> {
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
            ..config.preferences
        };
        config.budget.time = options.timeout;
        Ok(config)
    }

    fn start(&self) -> LoginStart {
        LoginStart {
            isid: self.isid,
            cid: Cid(0),
            itt: Itt(0),
            cmd_sn: CmdSn(1),
            exp_stat_sn: StatSn(0),
            session: None,
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

fn portal_text(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(bytes)
}
