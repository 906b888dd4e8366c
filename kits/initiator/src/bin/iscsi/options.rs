//! Options that every command takes.

use anyhow::Context as _;
use clap::Args;
use iscsi_initiator::{ConnectOptions, Error, IscsiUrl, Policy};
use iscsi_login::IscsiName;
use iscsi_login::auth::{ChapAlgorithm, ChapAlgorithms, ChapCredentials, Secret};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

/// The command was called in a way that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Options that every command takes.
#[derive(Args, Clone)]
pub(crate) struct Global {
    /// Name of this initiator
    #[arg(long, short = 'i', global = true, value_name = "IQN", env = "ISCSI_INITIATOR_NAME")]
    initiator_name: Option<String>,
    /// CHAP user name, when the URL gives none
    #[arg(long, global = true, value_name = "NAME", env = "ISCSI_CHAP_USER")]
    chap_user: Option<String>,
    /// File whose first line is the CHAP secret; else the environment variable ISCSI_CHAP_SECRET is read
    #[arg(long, global = true, value_name = "FILE")]
    chap_secret_file: Option<PathBuf>,
    /// Name by which the target must prove itself (mutual CHAP)
    #[arg(long, global = true, value_name = "NAME", env = "ISCSI_TARGET_CHAP_USER")]
    target_chap_user: Option<String>,
    /// File whose first line is the target's secret; else ISCSI_TARGET_CHAP_SECRET is read
    #[arg(long, global = true, value_name = "FILE")]
    target_chap_secret_file: Option<PathBuf>,
    /// Hash functions to offer for CHAP, in this order: md5, sha1, sha256, sha3-256 [default: all, MD5 last]
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',', value_parser = hash)]
    chap_hash: Vec<ChapAlgorithm>,
    /// Protect PDU headers with CRC32C
    #[arg(long, global = true)]
    header_digest: bool,
    /// Protect PDU data with CRC32C
    #[arg(long, global = true)]
    data_digest: bool,
    /// Transport: auto, tcp, iser, or a list of rdma, iwarp, upgrade, tcp in order of preference
    #[arg(long, global = true, value_name = "NAME")]
    transport: Option<Policy>,
    /// Connections of the session; commands are spread over them
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: Option<u16>,
    /// ErrorRecoveryLevel to offer: at 2 commands outlive their connection
    #[arg(long, global = true, value_name = "0..2", value_parser = clap::value_parser!(u8).range(0..=2))]
    error_recovery_level: Option<u8>,
    /// Seconds after which a connection attempt or a command without an answer fails
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
    /// Seconds without a word from the target after which it is asked whether it is there, and seconds that it then has
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    keepalive: u64,
    /// Say more: -v info, -vv debug, -vvv every PDU
    #[arg(long, short = 'v', global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// The URL's options completed by ours.
    pub(crate) fn connect_options(&self, url: &IscsiUrl) -> anyhow::Result<ConnectOptions> {
        let mut options = ConnectOptions::from_url(url)?;
        if let Some(name) = &self.initiator_name {
            options.initiator_name =
                IscsiName::new(name).map_err(|e| Usage(format!("--initiator-name: {e}")))?;
        }
        if options.chap.is_none() {
            let secret = secret(self.chap_secret_file.as_ref(), "ISCSI_CHAP_SECRET")?;
            let user = self.chap_user.clone().or_else(|| url.chap.as_ref().map(|c| c.user.clone()));
            if let Some(user) = user {
                let secret = secret.ok_or_else(|| {
                    Usage(format!(
                        "no secret for CHAP user '{user}': give --chap-secret-file or ISCSI_CHAP_SECRET"
                    ))
                })?;
                options.chap = Some(credentials(&user, &secret)?);
            }
        }
        if options.target_chap.is_none()
            && let Some(user) = &self.target_chap_user
        {
            let secret = secret(self.target_chap_secret_file.as_ref(), "ISCSI_TARGET_CHAP_SECRET")?;
            let secret = secret.ok_or_else(|| {
                Usage(
                    "no secret for the target: give --target-chap-secret-file or ISCSI_TARGET_CHAP_SECRET"
                        .into(),
                )
            })?;
            options.target_chap = Some(credentials(user, &secret)?);
        }
        if options.target_chap.is_some() && options.chap.is_none() {
            return Err(Usage("mutual CHAP needs a CHAP user and secret of our own, too".into()).into());
        }
        if !self.chap_hash.is_empty() {
            options.chap_algorithms = ChapAlgorithms::ordered(&self.chap_hash)?;
        }
        options.header_digest |= self.header_digest;
        options.data_digest |= self.data_digest;
        if let Some(transport) = &self.transport {
            options.transport = transport.clone();
        }
        if let Some(connections) = self.connections {
            options.connections = connections;
        }
        if let Some(level) = self.error_recovery_level {
            options.preferences.error_recovery_level = level;
        }
        options.timeout = Duration::from_secs(self.timeout.max(1));
        options.keepalive = Duration::from_secs(self.keepalive);
        Ok(options)
    }
}

fn credentials(user: &str, secret: &str) -> Result<ChapCredentials, Error> {
    Ok(ChapCredentials::new(user, Secret::parse(secret)?)?)
}

fn hash(name: &str) -> Result<ChapAlgorithm, String> {
    match name {
        "md5" => Ok(ChapAlgorithm::MD5),
        "sha1" => Ok(ChapAlgorithm::SHA1),
        "sha256" => Ok(ChapAlgorithm::SHA256),
        "sha3-256" => Ok(ChapAlgorithm::SHA3_256),
        _ => Err("expected md5, sha1, sha256 or sha3-256".into()),
    }
}

/// The first line of the file, or the environment variable.
fn secret(file: Option<&PathBuf>, variable: &str) -> anyhow::Result<Option<String>> {
    match file {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
        }
        None => Ok(std::env::var(variable).ok()),
    }
}

/// Logs to the standard error; `RUST_LOG` overrides the flag.
pub(crate) fn init_log(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
