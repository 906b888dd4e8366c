//! The target nodes of a process, and who may have them.

use crate::block::{
    BlockDevice, FileDisk, FileOptions, NbdDisk, NbdOptions, NullDisk, ProtectedDisk, RamDisk,
};
use crate::config::{Backing, Chap, Config, LunConfig, TargetConfig};
use crate::{InitiatorPort, LogicalUnit, Nexus, TargetDevice, TargetPort, UnitConfig};
use iscsi_login::auth::{ChallengeKey, ChapAccount, ChapTarget, TargetAuth};
use iscsi_login::sendtargets::{Host, SendTargets, TargetAddress, TargetRecord};
use iscsi_login::{
    AccessDecision, AccessRequest, Denial, Grant, IscsiName, LocalName, Negotiated, Preferences, SessionType,
};
use iscsi_session::target::{Peer, TargetDirectory};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

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
}

impl Node {
    fn new(config: TargetConfig, ports: &[TargetPort]) -> Result<Self, NodeError> {
        let device = TargetDevice::new(config.name.to_string(), ports.iter().copied());
        let mut next = 0;
        for lun in &config.luns {
            let number = lun.lun.map_or(next, u32::from);
            let fail = |source| NodeError { target: config.name.clone(), lun: number, source };
            let unit = unit(&config.name, number, lun).map_err(fail)?;
            device
                .add_unit(number, unit)
                .map_err(|e| fail(io::Error::new(io::ErrorKind::AlreadyExists, e)))?;
            next = number + 1;
        }
        let alias = config.alias.as_deref().and_then(|a| LocalName::new(a).ok());
        Ok(Self { config, alias, device })
    }

    fn allows(&self, initiator: &IscsiName) -> bool {
        self.config.allow.is_empty() || self.config.allow.contains(initiator)
    }
}

fn unit(target: &IscsiName, number: u32, config: &LunConfig) -> io::Result<Arc<LogicalUnit>> {
    let blocks = |size: u64| size / u64::from(config.block_size);
    let device: Box<dyn BlockDevice> = match &config.backing {
        Backing::Ram { size } => {
            let disk = RamDisk::new(config.block_size, blocks(*size));
            let disk = disk.with_physical_block(config.physical_block_size.unwrap_or(config.block_size));
            match config.protection {
                None => Box::new(disk),
                kind => Box::new(disk.with_protection(kind)),
            }
        }
        Backing::Null { size } => Box::new(NullDisk::new(config.block_size, blocks(*size))),
        Backing::Path { path, create } => {
            let options = FileOptions {
                block_size: Some(config.block_size),
                physical_block_size: config.physical_block_size,
                read_only: config.read_only,
                create: *create,
                direct: config.direct,
                engine: config.io,
                ..FileOptions::default()
            };
            let disk = FileDisk::open(path, &options)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
            Box::new(disk)
        }
        Backing::Nbd(address) => {
            let options = NbdOptions {
                block_size: Some(config.block_size),
                physical_block_size: config.physical_block_size,
                read_only: config.read_only,
                ..NbdOptions::default()
            };
            let disk = NbdDisk::open(address.clone(), &options)
                .map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))?;
            Box::new(disk)
        }
    };
    let device = with_tags(device, config)?;
    // The same unit has the same name after a restart and behind another portal; another unit has another.
    let name = format!("{target}/{number}");
    let made = || uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string();
    let unit = UnitConfig {
        read_only: config.read_only,
        thin: config.thin,
        removable: config.removable,
        write_cache: !config.write_through,
        erase_rate: config.erase_rate,
        ..UnitConfig::new(config.serial.clone().unwrap_or_else(made))
    };
    match &config.reservations {
        None => Ok(LogicalUnit::new(unit, device)),
        Some(path) => LogicalUnit::with_reservations(unit, device, path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// The device with its tag file, if it has one.
fn with_tags(device: Box<dyn BlockDevice>, config: &LunConfig) -> io::Result<Box<dyn BlockDevice>> {
    let path = match (&config.backing, config.protection, &config.tags) {
        (Backing::Ram { .. } | Backing::Null { .. }, ..) | (_, None, _) => return Ok(device),
        (_, _, Some(path)) => path.clone(),
        (Backing::Path { path, .. }, ..) if std::fs::metadata(path)?.is_file() => {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".pi");
            beside.into()
        }
        _ => {
            let what = "protection information of a block device needs tags=PATH";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    };
    let disk = ProtectedDisk::open(device, &path, config.protection)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    Ok(Box::new(disk))
}

/// The nodes by name.
pub(crate) struct Nodes {
    nodes: BTreeMap<IscsiName, Node>,
    discovery_chap: Option<Chap>,
    challenge_key: ChallengeKey,
    /// Any of them reaches every target.
    ports: Vec<TargetPort>,
}

impl Nodes {
    /// Opens all backends.
    pub(crate) fn open(config: Config, challenge_key: ChallengeKey) -> Result<Self, NodeError> {
        let ports = ports(&config.portal_groups, config.portals.len());
        let mut nodes = BTreeMap::new();
        for target in config.targets {
            nodes.insert(target.name.clone(), Node::new(target, &ports)?);
        }
        Ok(Self { nodes, discovery_chap: config.discovery_chap, challenge_key, ports })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
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
        let node = match &request.target_name {
            None => None,
            Some(name) => Some(self.nodes.get(name).ok_or(Denial::NotFound)?),
        };
        if node.is_some_and(|n| !n.allows(&request.initiator_name)) {
            return Err(Denial::NotAuthorized);
        }
        let chap = match (request.session_type, node) {
            (SessionType::Discovery, _) => self.discovery_chap.as_ref(),
            (SessionType::Normal, node) => node.and_then(|n| n.config.chap.as_ref()),
        };
        let auth = match (chap, request.session_type) {
            (Some(_), _) => TargetAuth::Chap(Box::new(ChapTarget::new(self.challenge_key.clone()))),
            // Initiators often use one setting for discovery and login: one that offers its CHAP account where none
            // is needed may prove itself with it.
            (None, SessionType::Discovery) if self.iter().any(|n| n.config.chap.is_some()) => {
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
        let node = self.nodes.get(request.target_name.as_ref()?)?;
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
        let account = match (session, &self.discovery_chap) {
            (SessionType::Normal, _) => self.nodes.get(target?)?.config.chap.as_ref()?.account(user),
            (SessionType::Discovery, Some(chap)) => chap.account(user),
            (SessionType::Discovery, None) => {
                self.iter().filter_map(|n| n.config.chap.as_ref()).find_map(|c| c.account(user))
            }
        };
        account.cloned()
    }

    /// The device server of a session. That of a discovery session, which takes no commands, has no logical units.
    pub(crate) fn nexus(&self, negotiated: &Negotiated, portal_group: u16) -> Nexus {
        let node = negotiated.target_name.as_ref().and_then(|name| self.nodes.get(name));
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
            .iter()
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
