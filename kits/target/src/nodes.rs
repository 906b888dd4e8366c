//! The target nodes of a process, and who may have them.

mod reload;
mod unit;

pub(crate) use reload::Applied;

use crate::config::{Chap, Config, LunConfig, TargetConfig};
use crate::{InitiatorPort, Nexus, TargetDevice, TargetPort};
use iscsi_login::auth::{ChallengeKey, ChapAccount, ChapTarget, TargetAuth};
use iscsi_login::sendtargets::{Host, SendTargets, TargetAddress, TargetRecord};
use iscsi_login::{
    AccessDecision, AccessRequest, Denial, Grant, IscsiName, LocalName, Negotiated, Preferences, SessionType,
};
use iscsi_session::target::{Peer, TargetDirectory};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use unit::Served;

/// The portal group of portals that the configuration gives none (RFC 7143 sections 4.1, 13.9).
pub(crate) const PORTAL_GROUP: u16 = 1;

/// A target that cannot be made as configured.
#[derive(Debug, thiserror::Error)]
#[error("target {target}, LUN {lun}: {source}")]
pub struct NodeError {
    /// The target.
    pub target: IscsiName,
    /// The LUN.
    pub lun: u32,
    /// Why.
    pub source: io::Error,
}

/// One target node.
pub(crate) struct Node {
    config: TargetConfig,
    alias: Option<LocalName>,
    pub(crate) device: Arc<TargetDevice>,
    /// Its logical units as configured, by number.
    units: BTreeMap<u32, Served>,
}

impl Node {
    /// Opens the backends of all logical units.
    fn open(config: TargetConfig, ports: &[TargetPort]) -> Result<Self, NodeError> {
        let device = device(&config, ports);
        let mut units = BTreeMap::new();
        for (number, lun) in numbered(&config)? {
            let fail = |source| NodeError { target: config.name.clone(), lun: number, source };
            let served = Served::open(&config.name, number, &lun).map_err(fail)?;
            device.add_unit(number, served.unit.clone()).map_err(|e| fail(in_use(e)))?;
            units.insert(number, served);
        }
        Ok(Self { alias: alias(&config), config, device, units })
    }

    fn allows(&self, initiator: &IscsiName) -> bool {
        self.config.allow.is_empty() || self.config.allow.contains(initiator)
    }
}

/// The device of a target, without logical units.
fn device(config: &TargetConfig, ports: &[TargetPort]) -> Arc<TargetDevice> {
    TargetDevice::new(config.name.to_string(), ports.iter().copied())
}

fn alias(config: &TargetConfig) -> Option<LocalName> {
    config.alias.as_deref().and_then(|a| LocalName::new(a).ok())
}

fn in_use(error: crate::LunInUse) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, error)
}

/// The logical units with their numbers, those of which none is given coming after the ones before them.
fn numbered(config: &TargetConfig) -> Result<BTreeMap<u32, LunConfig>, NodeError> {
    let mut units = BTreeMap::new();
    let mut next = 0;
    for lun in &config.luns {
        let number = lun.lun.map_or(next, u32::from);
        if units.insert(number, lun.clone()).is_some() {
            let source = in_use(crate::LunInUse);
            return Err(NodeError { target: config.name.clone(), lun: number, source });
        }
        next = number + 1;
    }
    Ok(units)
}

/// The nodes by name. What is asked of them at once is answered from one table, whatever changes it meanwhile.
pub(crate) struct Nodes {
    table: RwLock<Arc<Table>>,
    /// Held while the table is made anew: one at a time.
    reloading: Mutex<()>,
    challenge_key: ChallengeKey,
    /// Any of them reaches every target.
    ports: Vec<TargetPort>,
}

/// What the configuration at the moment says.
struct Table {
    nodes: BTreeMap<IscsiName, Arc<Node>>,
    discovery_chap: Option<Chap>,
}

impl Nodes {
    /// Opens all backends.
    pub(crate) fn open(config: Config, challenge_key: ChallengeKey) -> Result<Self, NodeError> {
        let ports = ports(&config.portal_groups, config.portals.len());
        let mut nodes = BTreeMap::new();
        for target in config.targets {
            nodes.insert(target.name.clone(), Arc::new(Node::open(target, &ports)?));
        }
        let table = Table { nodes, discovery_chap: config.discovery_chap };
        Ok(Self { table: RwLock::new(Arc::new(table)), reloading: Mutex::new(()), challenge_key, ports })
    }

    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The nodes of the moment.
    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.table().nodes.values().cloned().collect()
    }

    /// May this initiator have this target, and how must it authenticate?
    /// `preferences` are those of the portal.
    // req: 7143-11.13.5-4
    pub(crate) fn access(
        &self,
        request: &AccessRequest,
        portal_group: u16,
        preferences: &Preferences,
    ) -> Result<Grant, Denial> {
        let table = self.table();
        let node = match &request.target_name {
            None => None,
            Some(name) => Some(table.nodes.get(name).ok_or(Denial::NotFound)?),
        };
        if node.is_some_and(|n| !n.allows(&request.initiator_name)) {
            return Err(Denial::NotAuthorized);
        }
        let chap = match (request.session_type, node) {
            (SessionType::Discovery, _) => table.discovery_chap.as_ref(),
            (SessionType::Normal, node) => node.and_then(|n| n.config.chap.as_ref()),
        };
        let auth = match (chap, request.session_type) {
            (Some(_), _) => TargetAuth::Chap(Box::new(ChapTarget::new(self.challenge_key.clone()))),
            // Initiators often use one setting for discovery and login: one that offers its CHAP account where none
            // is needed may prove itself with it.
            (None, SessionType::Discovery) if table.nodes.values().any(|n| n.config.chap.is_some()) => {
                TargetAuth::ChapOrNone(Box::new(ChapTarget::new(self.challenge_key.clone())))
            }
            (None, _) => TargetAuth::None,
        };
        Ok(Grant {
            portal_group_tag: node.map(|_| portal_group),
            alias: node.and_then(|n| n.alias.clone()),
            auth,
            preferences: node.map(|n| Preferences {
                max_connections: n.config.max_connections.max(1),
                ..preferences.clone()
            }),
            session: None,
        })
    }

    /// Where this login is to go instead, if the target has moved from the portal that it came to. Discovery is not
    /// sent anywhere: what SendTargets answers there holds.
    pub(crate) fn redirect(
        &self,
        request: &AccessRequest,
        local: Option<SocketAddr>,
    ) -> Option<AccessDecision> {
        let table = self.table();
        let node = table.nodes.get(request.target_name.as_ref()?)?;
        if request.session_type == SessionType::Discovery {
            return None;
        }
        let redirect = node.config.redirects.iter().find(|r| r.concerns(local))?;
        Some(AccessDecision::Redirect { addresses: redirect.to.clone(), permanently: redirect.permanently })
    }

    /// The account of a CHAP_N at a target; in discovery, whatever target it names, that for discovery, and without
    /// one required, that of any target.
    pub(crate) fn account(
        &self,
        session: SessionType,
        target: Option<&IscsiName>,
        user: &str,
    ) -> Option<ChapAccount> {
        let table = self.table();
        let account = match (session, &table.discovery_chap) {
            (SessionType::Normal, _) => table.nodes.get(target?)?.config.chap.as_ref()?.account(user),
            (SessionType::Discovery, Some(chap)) => chap.account(user),
            (SessionType::Discovery, None) => {
                table.nodes.values().filter_map(|n| n.config.chap.as_ref()).find_map(|c| c.account(user))
            }
        };
        account.cloned()
    }

    /// The device server of a session. That of a discovery session, which takes no commands, has no logical units.
    pub(crate) fn nexus(&self, negotiated: &Negotiated, portal_group: u16) -> Nexus {
        let table = self.table();
        let node = negotiated.target_name.as_ref().and_then(|name| table.nodes.get(name));
        let device = match (negotiated.session.session_type, node) {
            (SessionType::Normal, Some(node)) => node.device.clone(),
            _ => TargetDevice::new("", self.ports.iter().copied()),
        };
        let initiator =
            InitiatorPort { name: negotiated.initiator_name.to_string(), isid: negotiated.isid.0 };
        let port = self.ports.iter().find(|p| p.portal_group == portal_group).copied();
        let port = port.unwrap_or(TargetPort { relative_id: 1, portal_group });
        device.nexus(initiator, port, negotiated.session.iscsi_protocol_level)
    }
}

/// The target ports: one a portal group, numbered in the order of the groups' tags, so that they keep their numbers.
fn ports(groups: &[u16], portals: usize) -> Vec<TargetPort> {
    let mut tags: std::collections::BTreeSet<u16> = groups.iter().copied().collect();
    if groups.len() < portals || tags.is_empty() {
        tags.insert(PORTAL_GROUP);
    }
    let numbered = tags.into_iter().zip(1..);
    numbered.map(|(portal_group, relative_id)| TargetPort { relative_id, portal_group }).collect()
}

/// What SendTargets answers to one connection.
pub(crate) struct Directory {
    pub(crate) nodes: Arc<Nodes>,
    /// Where the server listens.
    pub(crate) portals: Arc<[(SocketAddr, u16)]>,
    /// The address by which the initiator reached us.
    pub(crate) local: Option<SocketAddr>,
}

impl Directory {
    /// The portals by addresses that an initiator can reach: one that listens everywhere is known to it by the
    /// address that it used.
    fn addresses(&self) -> Vec<TargetAddress> {
        let address = |ip: IpAddr, port: u16, group: u16| TargetAddress {
            host: Host::Ip(ip),
            port: Some(port),
            portal_group_tag: Some(group),
        };
        let mut addresses: Vec<TargetAddress> = Vec::new();
        for (portal, group) in self.portals.iter() {
            let ip = match (portal.ip().is_unspecified(), self.local) {
                (false, _) => portal.ip(),
                (true, Some(local)) => local.ip().to_canonical(),
                (true, None) => continue,
            };
            let address = address(ip, portal.port(), *group);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }
}

impl TargetDirectory for Directory {
    // req: 7143-C-7
    fn send_targets(&self, peer: &Peer, which: &SendTargets) -> Vec<TargetRecord> {
        let name = match which {
            SendTargets::All => None,
            SendTargets::Target(name) => Some(name),
            SendTargets::Session => peer.target.as_ref(),
        };
        self.nodes
            .table()
            .nodes
            .values()
            .filter(|n| n.allows(&peer.initiator))
            .filter(|n| match (which, name) {
                (SendTargets::All, _) => true,
                (_, name) => name == Some(&n.config.name),
            })
            .map(|n| TargetRecord { name: n.config.name.clone(), addresses: self.addresses() })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // user need: who may discover is not settled by an account of one target
    #[test]
    fn a_targets_account_is_not_that_of_discovery() {
        let name = IscsiName::new("iqn.2026-01.org.example:disk").unwrap();
        let other = IscsiName::new("iqn.2026-01.org.example:other").unwrap();
        let target = |name: &IscsiName, chap| TargetConfig { chap, ..TargetConfig::new(name.clone()) };
        let chap = |user, secret| Some(Chap::new(user, secret, None).unwrap());
        let config = Config {
            discovery_chap: chap("admin", "discovery secret 1"),
            targets: vec![target(&name, chap("user", "target secret 1")), target(&other, None)],
            ..Config::default()
        };
        let nodes = Nodes::open(config, ChallengeKey::new([1; 32])).unwrap();
        let knows = |session, target, user| nodes.account(session, target, user).is_some();
        assert!(knows(SessionType::Normal, Some(&name), "user"));
        assert!(!knows(SessionType::Normal, Some(&name), "admin"));
        assert!(!knows(SessionType::Normal, Some(&other), "user"));
        assert!(knows(SessionType::Discovery, None, "admin"));
        assert!(knows(SessionType::Discovery, Some(&name), "admin"));
        assert!(!knows(SessionType::Discovery, Some(&name), "user"));
    }
}
