//! The targets that are measured, each with one RAM-backed unit.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::wire::Url;

pub(crate) const IQN: &str = "iqn.2026-01.org.example:bench";

/// A server under measurement. Dropping it kills what was started for it.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) url: Url,
    pub(crate) pid: u32,
    /// What our target logs.
    pub(super) log: Option<PathBuf>,
    _process: Option<Process>,
}

/// A child and the files that go with it.
struct Process {
    child: Child,
    files: Vec<PathBuf>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.files.iter().for_each(|file| drop(fs::remove_file(file)));
    }
}

/// Files of a run; `name` tells the servers apart.
fn file(dir: &Path, name: &str) -> PathBuf {
    // Several servers of one kind run side by side.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("iscsi-bench-{}-{number}-{name}", std::process::id()))
}

fn start(command: &mut Command, log: &Path, files: Vec<PathBuf>) -> Result<Process> {
    let out = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let child = command.spawn().with_context(|| command.get_program().to_string_lossy().into_owned())?;
    let mut files = files;
    files.push(log.to_owned());
    Ok(Process { child, files })
}

/// Asks until there is an answer.
fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "{what} is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listening(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().find_map(|line| line.strip_prefix("listening on ")).map(|a| a.trim().to_owned())
}

pub(crate) fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("").trim().to_owned()
}

pub(crate) fn debian_version(package: &str) -> String {
    first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A file in memory for a peer's unit.
fn ram_file(name: &str, span: u64) -> Result<PathBuf> {
    let path = file(Path::new("/dev/shm"), name);
    File::create(&path).and_then(|f| f.set_len(span)).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A target that runs already.
pub(crate) fn running(url: Url, pid: u32) -> Server {
    Server { name: format!("pid {pid}"), version: String::new(), url, pid, log: None, _process: None }
}

/// What the target of this name logs.
fn log(name: &str) -> PathBuf {
    file(&std::env::temp_dir(), &format!("{name}.log"))
}

/// Our target, from this workspace or another build of it.
pub(crate) fn ours(name: &str, program: &Path, span: u64, extra: &[String]) -> Result<Server> {
    let log = log(name);
    let mut command = Command::new(program);
    command.args(["serve", "--portal", "127.0.0.1:0", "--iqn", IQN, "--lun"]).arg(format!("ram:{span}"));
    if !extra.iter().any(|option| option == "--transport") {
        command.args(["--transport", "tcp"]);
    }
    command.args(extra);
    let process = start(&mut command, &log, Vec::new())?;
    let address = wait("iscsi-target", || listening(&log))?;
    let url = Url { portal: address.parse()?, name: IQN.into(), lun: 0 };
    let version = first_line(Command::new(program).arg("--version"));
    let pid = process.child.id();
    Ok(Server { name: name.into(), version, url, pid, log: Some(log), _process: Some(process) })
}

/// Our target with a configuration file.
pub(crate) fn from_config(
    name: &str,
    program: &Path,
    config: &Path,
    url: impl FnOnce(std::net::SocketAddr) -> Url,
) -> Result<Server> {
    let log = file(&std::env::temp_dir(), &format!("{name}.log"));
    let mut command = Command::new(program);
    command.args(["serve", "--config"]).arg(config);
    let process = start(&mut command, &log, Vec::new())?;
    let address = wait("iscsi-target", || listening(&log))?;
    let (url, pid) = (url(address.parse()?), process.child.id());
    Ok(Server { name: name.into(), version: String::new(), url, pid, log: None, _process: Some(process) })
}

/// The floor's server: this program again.
pub(crate) fn floor(span: u64) -> Result<Server> {
    let log = file(&std::env::temp_dir(), "floor.log");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--serve-floor", &span.to_string()]);
    let process = start(&mut command, &log, Vec::new())?;
    let address = wait("the floor's server", || listening(&log))?;
    let url = Url { portal: address.parse()?, name: IQN.into(), lun: 0 };
    Ok(Server {
        name: "floor".into(),
        version: String::new(),
        url,
        pid: process.child.id(),
        log: None,
        _process: Some(process),
    })
}

/// tgt, whose LUN 0 is its controller.
pub(crate) fn tgt(span: u64, digests: bool) -> Result<Server> {
    let socket = file(&std::env::temp_dir(), "tgtd");
    let (port, disk) = (free_port()?, ram_file("tgt", span)?);
    let with_socket = |program: &str| {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.env("TGT_IPC_SOCKET", &socket).env("PATH", path);
        command
    };
    let mut left = vec![disk.clone()];
    for suffix in [".0", ".0.lock"] {
        left.push(PathBuf::from(format!("{}{suffix}", socket.display())));
    }
    let log = file(&std::env::temp_dir(), "tgtd.log");
    let mut command = with_socket("tgtd");
    command.args(["-f", "--iscsi", &format!("portal=127.0.0.1:{port}")]);
    let process = start(&mut command, &log, left)?;
    let admin = |line: &str| -> Result<()> {
        let mut command = with_socket("tgtadm");
        let output = command.args(["--lld", "iscsi"]).args(line.split(' ')).output().context("tgtadm")?;
        ensure!(output.status.success(), "tgtadm {line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    wait("tgtd", || admin("-o show -m target").ok())?;
    admin(&format!("-o new -m target --tid 1 -T {IQN}"))?;
    admin(&format!("-o new -m logicalunit --tid 1 --lun 1 -b {}", disk.display()))?;
    admin("-o bind -m target --tid 1 -I ALL")?;
    for key in ["HeaderDigest", "DataDigest"].iter().filter(|_| digests) {
        admin(&format!("-o update -m target --tid 1 -n {key} -v CRC32C"))?;
    }
    let url = Url { portal: ([127, 0, 0, 1], port).into(), name: IQN.into(), lun: 1 };
    let pid = process.child.id();
    Ok(Server {
        name: if digests { "tgt+crc" } else { "tgt" }.into(),
        version: debian_version("tgt"),
        url,
        pid,
        log: None,
        _process: Some(process),
    })
}

/// istgt with one configuration file.
pub(crate) fn istgt(span: u64) -> Result<Server> {
    let (port, uctl, disk) = (free_port()?, free_port()?, ram_file("istgt", span)?);
    let temp = std::env::temp_dir();
    let (conf, pidfile, media) = (file(&temp, "istgt.conf"), file(&temp, "istgt.pid"), disk.display());
    let text = format!(
        "[Global]\n  NodeBase \"iqn.2026-01.org.example\"\n  PidFile {pid}\n  AuthFile /dev/null\n  \
         MediaDirectory /dev/shm\n  LogFacility \"local7\"\n  Timeout 30\n  NopInInterval 600\n  \
         DiscoveryAuthMethod None\n  MaxSessions 16\n  MaxConnections 4\n  MaxR2T 32\n  \
         MaxOutstandingR2T 16\n  DefaultTime2Wait 2\n  DefaultTime2Retain 60\n  FirstBurstLength 262144\n  \
         MaxBurstLength 1048576\n  MaxRecvDataSegmentLength 262144\n  InitialR2T Yes\n  ImmediateData Yes\n  \
         DataPDUInOrder Yes\n  DataSequenceInOrder Yes\n  ErrorRecoveryLevel 0\n\
         [UnitControl]\n  AuthMethod None\n  Portal UC1 127.0.0.1:{uctl}\n  Netmask 127.0.0.1\n\
         [PortalGroup1]\n  Portal DA1 127.0.0.1:{port}\n\
         [InitiatorGroup1]\n  InitiatorName \"ALL\"\n  Netmask 127.0.0.0/8\n\
         [LogicalUnit1]\n  TargetName bench\n  TargetAlias \"bench\"\n  Mapping PortalGroup1 InitiatorGroup1\n  \
         AuthMethod None\n  UseDigest Auto\n  UnitType Disk\n  QueueDepth 255\n  LUN0 Storage {media} Auto\n",
        pid = pidfile.display(),
    );
    fs::write(&conf, text)?;
    let log = file(&temp, "istgt.log");
    let mut command = Command::new("/usr/sbin/istgt");
    command.arg("-D").arg("-c").arg(&conf);
    let process = start(&mut command, &log, vec![disk.clone(), conf, pidfile])?;
    wait("istgt", || std::net::TcpStream::connect(("127.0.0.1", port)).ok())?;
    let url = Url { portal: ([127, 0, 0, 1], port).into(), name: IQN.into(), lun: 0 };
    let pid = process.child.id();
    Ok(Server {
        name: "istgt".into(),
        version: debian_version("istgt"),
        url,
        pid,
        log: None,
        _process: Some(process),
    })
}

/// Whether the server still runs. One that has ended, and that nobody has waited for, is still listed, as a zombie.
pub(crate) fn alive(server: &Server) -> Result<()> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid)).unwrap_or_default();
    // Process, name in parentheses (which may have some itself), state.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    if state.is_none_or(|state| matches!(state, 'Z' | 'X')) {
        bail!("{} has ended", server.name);
    }
    Ok(())
}
