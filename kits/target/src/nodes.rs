//! The target nodes of a process, and who may have them.

use crate::block::{BlockDevice, FileDisk, FileOptions, NullDisk, RamDisk};
use crate::config::{Backing, Chap, Config, LunConfig, TargetConfig};
use crate::{InitiatorPort, LogicalUnit, Nexus, TargetDevice, TargetPort, UnitConfig};
use iscsi_login::auth::{ChallengeKey, ChapAccount, ChapTarget, TargetAuth};
use iscsi_login::sendtargets::{Host, SendTargets, TargetAddress, TargetRecord};
use iscsi_login::{AccessRequest, Denial, Grant, IscsiName, LocalName, Negotiated, SessionType};
use iscsi_session::target::{Peer, TargetDirectory};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// All portals are one portal group: any of them reaches every target (RFC 7143 section 4.1, 13.9).
const PORTAL_GROUP: TargetPort = TargetPort { relative_id: 1, portal_group: 1 };

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
    fn new(config: TargetConfig) -> Result<Self, NodeError> {
        let device = TargetDevice::new(config.name.to_string(), [PORTAL_GROUP]);
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
            Box::new(disk.with_physical_block(config.physical_block_size.unwrap_or(config.block_size)))
        }
        Backing::Null { size } => Box::new(NullDisk::new(config.block_size, blocks(*size))),
        Backing::Path { path, create } => {
            let options = FileOptions {
                block_size: Some(config.block_size),
                physical_block_size: config.physical_block_size,
                read_only: config.read_only,
                create: *create,
                ..FileOptions::default()
            };
            let disk = FileDisk::open(path, &options)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
            Box::new(disk)
        }
    };
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

/// The nodes by name.
pub(crate) struct Nodes {
    nodes: BTreeMap<IscsiName, Node>,
    discovery_chap: Option<Chap>,
    challenge_key: ChallengeKey,
}

impl Nodes {
    /// Opens all backends.
    pub(crate) fn open(config: Config, challenge_key: ChallengeKey) -> Result<Self, NodeError> {
        let mut nodes = BTreeMap::new();
        for target in config.targets {
            nodes.insert(target.name.clone(), Node::new(target)?);
        }
        Ok(Self { nodes, discovery_chap: config.discovery_chap, challenge_key })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// May this initiator have this target, and how must it authenticate?
    // req: 7143-11.13.5-4
    pub(crate) fn access(&self, request: &AccessRequest) -> Result<Grant, Denial> {
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
            portal_group_tag: node.map(|_| PORTAL_GROUP.portal_group),
            alias: node.and_then(|n| n.alias.clone()),
            auth,
            preferences: None,
            session: None,
        })
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
    pub(crate) fn nexus(&self, negotiated: &Negotiated) -> Nexus {
        let node = negotiated.target_name.as_ref().and_then(|name| self.nodes.get(name));
        let device = match (negotiated.session.session_type, node) {
            (SessionType::Normal, Some(node)) => node.device.clone(),
            _ => TargetDevice::new("", [PORTAL_GROUP]),
        };
        let initiator =
            InitiatorPort { name: negotiated.initiator_name.to_string(), isid: negotiated.isid.0 };
        device.nexus(initiator, PORTAL_GROUP, negotiated.session.iscsi_protocol_level)
    }
}

/// What SendTargets answers to one connection.
pub(crate) struct Directory {
    pub(crate) nodes: Arc<Nodes>,
    /// Where the server listens.
    pub(crate) portals: Arc<[SocketAddr]>,
    /// The address by which the initiator reached us.
    pub(crate) local: Option<SocketAddr>,
}

impl Directory {
    /// The portals by addresses that an initiator can reach: one that listens everywhere is known to it by the
    /// address that it used.
    fn addresses(&self) -> Vec<TargetAddress> {
        let address = |ip: IpAddr, port: u16| TargetAddress {
            host: Host::Ip(ip),
            port: Some(port),
            portal_group_tag: Some(PORTAL_GROUP.portal_group),
        };
        let mut addresses: Vec<TargetAddress> = Vec::new();
        for portal in self.portals.iter() {
            let ip = match (portal.ip().is_unspecified(), self.local) {
                (false, _) => portal.ip(),
                (true, Some(local)) => local.ip().to_canonical(),
                (true, None) => continue,
            };
            let address = address(ip, portal.port());
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
        let target = |name: &IscsiName, chap| TargetConfig {
            name: name.clone(),
            alias: None,
            allow: Vec::new(),
            chap,
            luns: Vec::new(),
        };
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
