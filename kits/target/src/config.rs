//! What a target serves: [`Config`], from flags or from a TOML file.
//!
//! ```toml
//! portals = ["0.0.0.0:3260"]
//! transport = "auto"                                  # or "tcp", "iser", or a list: "rdma,tcp"
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
//! [[target.lun]]
//! path = "/srv/disk0.img"
//!
//! [[target.lun]]
//! lun = 7
//! ram = "1 GiB"
//! ```

mod file;
mod lun;

pub use file::{FileError, parse_portal};
pub use lun::{Backing, LunConfig, LunSpecError};

use iscsi_connect::Policy;
use iscsi_login::IscsiName;
use iscsi_login::auth::{ChapAccount, ChapConfigError, ChapCredentials, Secret, SecretError};
use std::net::SocketAddr;
use std::path::Path;

/// The well-known iSCSI port (RFC 7143 section 4.1).
pub const ISCSI_PORT: u16 = 3260;

/// All that a target process serves.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where to listen; every target is reachable at every portal.
    pub portals: Vec<SocketAddr>,
    /// Transports that the portals offer.
    pub transport: Policy,
    /// CHAP that discovery sessions must pass; `None` lets everybody discover what it may log in to.
    pub discovery_chap: Option<Chap>,
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
    /// Its logical units.
    pub luns: Vec<LunConfig>,
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
