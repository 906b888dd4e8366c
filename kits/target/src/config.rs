//! What a target serves: [`Config`], from flags or from a TOML file.
//!
//! ```toml
//! portals = ["0.0.0.0:3260"]                          # "192.0.2.1:3260,2": in target portal group 2
//! transport = "auto"                                  # or "tcp", "iser", or a list: "rdma,tcp"
//! ping-after = 30                                     # seconds of silence after which initiators are asked; 0 never
//! error-recovery-level = 2                            # 0 to 2; at 2 commands outlive their connection, at some cost
//!
//! [[target]]
//! iqn = "iqn.2026-01.org.example:disk0"
//! allow = ["iqn.2026-01.org.example:host1"]           # who may log in; leave it out for everybody
//!
//! [target.chap]                                       # leave it out for no authentication
//! user = "alice"
//! secret-file = "/etc/iscsi/alice.secret"
//! mutual-user = "disk0"                               # and the pair of them for mutual CHAP
//! mutual-secret-file = "/etc/iscsi/disk0.secret"
//!
//! max-connections = 8                                 # connections a session
//!
//! [[target.redirect]]                                 # logins to these portals go elsewhere; leave portals out for all
//! portals = ["192.0.2.1:3260"]
//! to = ["192.0.2.7:3260"]
//! permanently = true
//!
//! [[target.lun]]
//! path = "/srv/disk0.img"
//!
//! [[target.lun]]
//! lun = 7
//! ram = "1 GiB"
//! ```
//!
//! [`Server::reload`](crate::Server::reload) takes another one over while the first is served.

mod file;
mod lun;

pub use file::{FileError, parse_grouped_portal, parse_portal};
pub use lun::{Backing, LunConfig, LunSpecError};

use iscsi_connect::Policy;
use iscsi_login::auth::{ChapAccount, ChapConfigError, ChapCredentials, Secret, SecretError};
use iscsi_login::sendtargets::TargetAddress;
use iscsi_login::{IscsiName, Preferences};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The well-known iSCSI port (RFC 7143 section 4.1).
pub const ISCSI_PORT: u16 = 3260;

/// All that a target process serves.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where to listen; every target is reachable at every portal.
    pub portals: Vec<SocketAddr>,
    /// The target portal group tag of each of them, in their order; 1 for those beyond the end. A session's connections
    /// all go through portals of one group.
    pub portal_groups: Vec<u16>,
    /// Transports that the portals offer.
    pub transport: Policy,
    /// What logins negotiate; `None` leaves it to the server. MaxConnections is a matter of the target.
    pub preferences: Option<Preferences>,
    /// ErrorRecoveryLevel that is granted at most, 0 to 2; `None` is 1, what sessions of several connections need. With
    /// `preferences` it has no meaning.
    pub error_recovery_level: Option<u8>,
    /// CHAP that discovery sessions must pass; `None` lets everybody discover what it may log in to.
    pub discovery_chap: Option<Chap>,
    /// How long an initiator may be silent before it is asked whether it is there (NOP-In), and cut off if it does not
    /// answer: `None` is 30 s, zero is for ever.
    pub ping_after: Option<Duration>,
    /// The targets.
    pub targets: Vec<TargetConfig>,
}

/// One target node.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Its name.
    pub name: IscsiName,
    /// TargetAlias.
    pub alias: Option<String>,
    /// Initiators that may log in; empty means all.
    pub allow: Vec<IscsiName>,
    /// CHAP that initiators must pass; `None` means no authentication.
    pub chap: Option<Chap>,
    /// Connections that a session may have (MaxConnections), at least 1.
    pub max_connections: u16,
    /// Where logins are sent instead; the first that concerns the portal counts.
    pub redirects: Vec<Redirect>,
    /// Its logical units.
    pub luns: Vec<LunConfig>,
}

/// Connections a session, unless the configuration says another number.
pub const MAX_CONNECTIONS: u16 = 8;

impl TargetConfig {
    /// A target for everybody, without logical units yet.
    #[must_use]
    pub fn new(name: IscsiName) -> Self {
        Self {
            name,
            alias: None,
            allow: Vec::new(),
            chap: None,
            max_connections: MAX_CONNECTIONS,
            redirects: Vec::new(),
            luns: Vec::new(),
        }
    }
}

/// A target's login redirection (RFC 7143 section 11.13.5, status 0101 and 0102).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Redirect {
    /// The portals, by the address that the initiator used, whose logins are redirected; empty means all. Port 0 stands
    /// for every port of its address.
    pub portals: Vec<SocketAddr>,
    /// Where to, at least one; in order of preference.
    pub to: Vec<TargetAddress>,
    /// For good (the initiator may forget the old address), not for this login only.
    pub permanently: bool,
}

impl Redirect {
    /// Whether it concerns a login that came to this address of ours.
    #[must_use]
    pub fn concerns(&self, local: Option<SocketAddr>) -> bool {
        let is = |portal: &SocketAddr, local: SocketAddr| {
            portal.ip().to_canonical() == local.ip().to_canonical()
                && (portal.port() == 0 || portal.port() == local.port())
        };
        self.portals.is_empty() || local.is_some_and(|local| self.portals.iter().any(|p| is(p, local)))
    }
}

/// The one CHAP account of a target: who may log in, and how the target proves itself in return
/// (RFC 7143 section 12.1.3).
#[derive(Clone, Debug)]
pub struct Chap {
    user: String,
    account: ChapAccount,
    mutual: bool,
}

impl Chap {
    /// An account from names and secrets as administrators write them: `0x` and hexadecimal digits, or text.
    /// `mutual` is the pair by which the target proves itself.
    ///
    /// # Errors
    /// [`ChapError`], which says what to change.
    // req: 7143-9.2.1-2, 7143-9.2.1-6
    pub fn new(user: &str, secret: &str, mutual: Option<(&str, &str)>) -> Result<Self, ChapError> {
        let credentials = |(name, secret): (&str, &str)| {
            Ok::<_, ChapError>(ChapCredentials::new(name, Secret::parse(secret)?)?)
        };
        let target = mutual.map(credentials).transpose()?;
        let account = ChapAccount::new(credentials((user, secret))?, None, target)?;
        Ok(Self { user: user.to_owned(), account, mutual: mutual.is_some() })
    }

    /// The account, if `user` is its name.
    #[must_use]
    pub fn account(&self, user: &str) -> Option<&ChapAccount> {
        (self.user == user).then_some(&self.account)
    }

    /// Whether the target can prove itself, too.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.mutual
    }
}

/// Why names and secrets make no CHAP account.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(transparent)]
pub enum ChapError {
    /// A secret breaks a rule.
    Secret(#[from] SecretError),
    /// A name breaks a rule, or the two directions share something.
    Account(#[from] ChapConfigError),
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that cannot be served; the text names line, column and key.
    #[error("{path}:{source}")]
    File {
        /// The file.
        path: String,
        /// What and where.
        source: FileError,
    },
    /// The whole makes no sense.
    #[error("{0}")]
    Whole(String),
}

impl Config {
    /// All addresses, the well-known port.
    #[must_use]
    pub fn default_portals() -> Vec<SocketAddr> {
        vec![SocketAddr::from(([0, 0, 0, 0], ISCSI_PORT))]
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the line and the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        Self::parse(&text).map_err(|source| ConfigError::File { path: shown, source })
    }

    /// Reads a TOML text.
    ///
    /// # Errors
    /// [`FileError`], which names the line and the key.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        file::parse(text)
    }
}

/// The first line of a secret file: editors end it with a newline that is not part of the secret.
///
/// # Errors
/// Those of reading the file.
pub fn read_secret(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
