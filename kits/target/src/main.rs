//! `iscsi-target`: exports files, block devices and memory over iSCSI.
#![allow(clippy::disallowed_methods)] // a program reads the clock

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use iscsi_connect::Policy;
use iscsi_login::IscsiName;
use iscsi_target::config::{
    Chap, Config, LunConfig, MAX_CONNECTIONS, TargetConfig, parse_grouped_portal, read_secret,
};
use iscsi_target::{Change, Cores, Reactors, Server};
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Export files, block devices and memory over iSCSI.
#[derive(Parser)]
#[command(name = "iscsi-target", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more: -v debug, -vv every PDU; RUST_LOG overrides it
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log JSON lines
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve targets until SIGTERM or SIGINT
    Serve(Box<Serve>),
    /// Check a configuration file and say what it would serve
    Check {
        /// The TOML file
        file: PathBuf,
    },
}

/// Serve targets until SIGTERM or SIGINT
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi-target serve --iqn iqn.2026-01.org.example:disk0 --lun disk.img
  iscsi-target serve --portal 127.0.0.1:3261 --iqn iqn.2026-01.org.example:t --lun ram:1G --lun disk.img,ro
  iscsi-target serve --iqn iqn.2026-01.org.example:t --lun /dev/sdb --chap-user alice --chap-secret-file secret
  iscsi-target serve --config /etc/iscsi-target.toml

A LUN is ram:SIZE, null:SIZE, nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH or the PATH of a file or block
device, then options after commas: lun=N, bs=512|4096, pbs=N (physical block size), ro, thick, removable,
write-through, direct (O_DIRECT), io=auto|uring|threads, registered=SIZE (of buffers, pinned for the io_uring of each session), pi=1|3 (protection information), tags=PATH (where; PATH.pi for a file), create=SIZE, reservations=PATH, serial=TEXT, erase-rate=SIZE. The first is LUN 0. The addresses in use are printed once the target is ready.

Signals:
  SIGHUP   reads the --config file again: targets and LUNs that are new, gone or changed, sizes, CHAP secrets, who is
           allowed. Sessions that this does not concern go on. A file with a mistake changes nothing, and the log says
           why. What listens (portals, transport, ping-after, error-recovery-level) needs a restart. Without --config,
           the sizes of files and devices are looked at again.
  SIGUSR1  logs counters
  SIGTERM, SIGINT  ask initiators to log out, flush data, end")]
struct Serve {
    /// Serve what a TOML file says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["iqn", "lun", "allow", "chap_user", "portal"])]
    config: Option<PathBuf>,
    /// Address to listen on, ADDRESS[:PORT][,GROUP]; may be repeated, each GROUP is a path of its own [default:
    /// 0.0.0.0:3260]
    #[arg(long, value_name = "ADDRESS", value_parser = portal)]
    portal: Vec<(SocketAddr, u16)>,
    /// Transports that the portals offer: auto, tcp, iser, or a list of rdma, iwarp, upgrade, tcp
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with = "config")]
    transport: Policy,
    /// Name of the target
    #[arg(long, value_name = "NAME", required_unless_present = "config")]
    iqn: Option<String>,
    /// Alias of the target, for people
    #[arg(long, value_name = "TEXT")]
    alias: Option<String>,
    /// Logical unit; may be repeated
    #[arg(long, value_name = "SPEC", required_unless_present = "config")]
    lun: Vec<LunConfig>,
    /// Initiator that may log in; may be repeated; without it all may
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// CHAP name that initiators must give
    #[arg(long, value_name = "NAME")]
    chap_user: Option<String>,
    /// File whose first line is the CHAP secret
    #[arg(long, value_name = "FILE", conflicts_with = "chap_secret")]
    chap_secret_file: Option<PathBuf>,
    /// The CHAP secret itself, which other users of the machine can see in the process list: prefer the variable
    #[arg(long, value_name = "SECRET", env = "ISCSI_CHAP_SECRET", hide_env_values = true)]
    chap_secret: Option<String>,
    /// CHAP name by which the target proves itself (mutual CHAP)
    #[arg(long, value_name = "NAME", requires = "chap_user")]
    mutual_user: Option<String>,
    /// File whose first line is the target's own secret
    #[arg(long, value_name = "FILE", conflicts_with = "mutual_secret")]
    mutual_secret_file: Option<PathBuf>,
    /// The target's own secret; see --chap-secret
    #[arg(long, value_name = "SECRET", env = "ISCSI_MUTUAL_CHAP_SECRET", hide_env_values = true)]
    mutual_secret: Option<String>,
    /// Connections that a session may have
    #[arg(long, value_name = "N", default_value_t = MAX_CONNECTIONS, conflicts_with = "config",
          value_parser = clap::value_parser!(u16).range(1..))]
    max_connections: u16,
    /// Seconds of silence after which an initiator is asked whether it is there; 0 for never [default: 30]
    #[arg(long, value_name = "SECONDS", conflicts_with = "config")]
    ping_after: Option<u32>,
    /// ErrorRecoveryLevel that is granted at most: at 2 commands outlive their connection, at some cost [default: 1]
    #[arg(long, value_name = "0..2", conflicts_with = "config",
          value_parser = clap::value_parser!(u8).range(0..=2))]
    error_recovery_level: Option<u8>,
    /// Threads that serve sessions: so many, or one on each processor of a list such as 0,2-3 (2-2 for one alone); a
    /// session goes to the one with the fewest busy sessions
    #[arg(long, value_name = "N|LIST", default_value_t = default_cores())]
    cores: Cores,
    /// Microseconds for which such a thread keeps asking its sockets before it sleeps: shorter latency, for a processor
    /// that is never idle while there is I/O
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    spin: Option<u32>,
}

fn default_cores() -> Cores {
    Cores::Number(std::thread::available_parallelism().map_or(1, usize::from).min(256))
}

/// Every session is a descriptor, every unit of a session perhaps another: as many as the system lets us have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

fn portal(text: &str) -> Result<(SocketAddr, u16), String> {
    parse_grouped_portal(text).ok_or_else(|| "expected ADDRESS, ADDRESS:PORT or ADDRESS:PORT,GROUP".into())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log(cli.verbose, cli.json);
    let result = match cli.command {
        Command::Check { file } => check(&file),
        Command::Serve(serve) => serve.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("iscsi-target: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init_log(verbose: u8, json: bool) {
    let level = ["info", "debug", "trace"][usize::from(verbose.min(2))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    if json { log.json().init() } else { log.init() }
}

fn check(file: &Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    let mut out = std::io::stdout().lock();
    for portal in &config.portals {
        writeln!(out, "portal {portal}")?;
    }
    for target in &config.targets {
        let chap = match &target.chap {
            None => "no authentication",
            Some(chap) if chap.is_mutual() => "mutual CHAP",
            Some(_) => "CHAP",
        };
        writeln!(out, "target {}, {} LUNs, {chap}", target.name, target.luns.len())?;
    }
    Ok(())
}

impl Serve {
    fn run(self) -> anyhow::Result<()> {
        raise_file_limit();
        let spin = self.spin.map(|us| Duration::from_micros(us.into()));
        let reactors = Arc::new(Reactors::start(&self.cores, spin).context("cannot start")?);
        let file = self.config.clone();
        let config = match &file {
            Some(file) => Config::load(file)?,
            None => self.into_config()?,
        };
        // What accepts connections, and waits for signals.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        runtime.block_on(async {
            // Before anybody can know that the target is there: the system would end the process for such a signal.
            let (hangup, user) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
            let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let server = Server::start_on_reactors(config, reactors).await?;
            let mut out = std::io::stdout().lock();
            for address in server.local_addrs() {
                writeln!(out, "listening on {address}")?;
            }
            out.flush()?;
            drop(out);
            tokio::select! {
                () = stop_signal(terminate, interrupt) => {}
                () = report_when_asked(&server, user) => {}
                () = reload_when_asked(&server, file.as_deref(), hangup) => {}
            }
            tracing::info!("stopping: telling initiators and flushing data");
            server.shutdown().await;
            Ok(())
        })
    }

    fn into_config(self) -> anyhow::Result<Config> {
        let name = self.iqn.unwrap_or_default();
        let name = IscsiName::new(&name).with_context(|| format!("--iqn '{name}'"))?;
        let allow = self
            .allow
            .iter()
            .map(|a| IscsiName::new(a).with_context(|| format!("--allow '{a}'")))
            .collect::<anyhow::Result<_>>()?;
        let chap = match &self.chap_user {
            None => None,
            Some(user) => {
                let secret = secret(self.chap_secret_file, self.chap_secret)?
                    .context("--chap-user needs --chap-secret-file or ISCSI_CHAP_SECRET")?;
                let mutual_secret =
                    match self.mutual_user {
                        None => None,
                        Some(_) => Some(self::secret(self.mutual_secret_file, self.mutual_secret)?.context(
                            "--mutual-user needs --mutual-secret-file or ISCSI_MUTUAL_CHAP_SECRET",
                        )?),
                    };
                let mutual = self.mutual_user.as_deref().zip(mutual_secret.as_deref());
                Some(Chap::new(user, &secret, mutual).context("CHAP")?)
            }
        };
        let (portals, portal_groups) = match self.portal.is_empty() {
            true => (Config::default_portals(), Vec::new()),
            false => self.portal.into_iter().unzip(),
        };
        let ping_after = self.ping_after.map(|seconds| Duration::from_secs(seconds.into()));
        let target = TargetConfig {
            alias: self.alias,
            allow,
            chap,
            max_connections: self.max_connections,
            luns: self.lun,
            ..TargetConfig::new(name)
        };
        let (transport, targets) = (self.transport, vec![target]);
        let error_recovery_level = self.error_recovery_level;
        Ok(Config {
            portals,
            portal_groups,
            transport,
            ping_after,
            error_recovery_level,
            targets,
            ..Config::default()
        })
    }
}

fn secret(file: Option<PathBuf>, plain: Option<String>) -> anyhow::Result<Option<String>> {
    match file {
        Some(path) => {
            Ok(Some(read_secret(&path).with_context(|| format!("cannot read {}", path.display()))?))
        }
        None => Ok(plain),
    }
}

/// Each SIGHUP has the configuration file read again, or without one, the sizes of backends looked at.
async fn reload_when_asked(server: &Server, file: Option<&Path>, mut asked: Signal) {
    while asked.recv().await.is_some() {
        let changes = match file {
            None => server.rescan().await,
            Some(file) => match reload(server, file.to_owned()).await {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::error!("configuration not taken over, nothing has changed: {error:#}");
                    continue;
                }
            },
        };
        changes.iter().for_each(|change| tracing::info!("{change}"));
        tracing::info!(changes = changes.len(), "configuration reloaded");
    }
    std::future::pending().await
}

async fn reload(server: &Server, file: PathBuf) -> anyhow::Result<Vec<Change>> {
    let config = tokio::task::spawn_blocking(move || Config::load(&file)).await??;
    Ok(server.reload(config).await?)
}

/// Each SIGUSR1 has the counters of the open sessions' connections logged.
async fn report_when_asked(server: &Server, mut asked: Signal) {
    while asked.recv().await.is_some() {
        let s = server.stats().await;
        tracing::info!(
            sessions = server.sessions(),
            pdus_in = s.pdus_in,
            pdus_out = s.pdus_out,
            data_in = s.data_in,
            data_out = s.data_out,
            copied_bytes = s.copied_bytes,
            bounced_bytes = s.bounced_bytes,
            syscalls = s.syscalls,
            "counters"
        );
    }
    std::future::pending().await
}

/// Completes with SIGTERM or SIGINT.
async fn stop_signal(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
