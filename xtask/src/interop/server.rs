//! The servers: our target and tgt.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Row;
use super::process::{Background, finish, wait};
use super::security::{SECRET, TARGET_SECRET, TARGET_USER, USER};

/// Name of the target that every server serves.
pub(super) const IQN: &str = "iqn.2024-01.org.example:interop";
/// Size of every disk.
pub(super) const DISK: u64 = 64 << 20;

/// Where a server listens and what disk it serves.
pub(super) struct Served {
    pub(super) port: u16,
    /// The number of the file-backed LUN.
    pub(super) lun: u8,
    /// The file behind it.
    pub(super) disk: PathBuf,
}

/// Makes the file for a disk.
fn disk(row: &Row) -> Result<PathBuf> {
    let path = row.file("disk");
    std::fs::File::create(&path)
        .and_then(|file| file.set_len(DISK))
        .with_context(|| path.display().to_string())?;
    Ok(path)
}

/// `iscsi-target serve`: LUN 0 in memory, LUN 1 a file.
pub(super) struct OurTarget {
    process: Background,
    pub(super) served: Served,
}

impl OurTarget {
    pub(super) fn start(row: &Row) -> Result<Self> {
        Self::start_with(row, &[])
    }

    /// With further options.
    pub(super) fn start_with(row: &Row, options: &[&str]) -> Result<Self> {
        let disk = disk(row)?;
        let mut command = Command::new(row.programs.join("iscsi-target"));
        command.arg("serve").args(options);
        command.args(["--portal", "127.0.0.1:0", "--iqn", IQN, "--lun"]);
        command.arg(format!("ram:{}M", DISK >> 20)).arg("--lun").arg(&disk);
        let secret_file = |name: &str, secret: &str| -> Result<PathBuf> {
            let path = row.file(name);
            std::fs::write(&path, secret)?;
            Ok(path)
        };
        if row.security.chap() {
            command.args(["--chap-user", USER, "--chap-secret-file"]).arg(secret_file("secret", SECRET)?);
        }
        if row.security.mutual() {
            let path = secret_file("target-secret", TARGET_SECRET)?;
            command.args(["--mutual-user", TARGET_USER, "--mutual-secret-file"]).arg(path);
        }
        let mut process = Background::start(&mut command, row.file("iscsi-target.log"))?;
        let port = process.until(|text| {
            let line = text.lines().find(|line| line.starts_with("listening on "))?;
            line.rsplit(':').next()?.trim().parse().ok()
        })?;
        Ok(Self { process, served: Served { port, lun: 1, disk } })
    }

    /// SIGTERM must end it cleanly. Returns the file, which then holds all that was written.
    pub(super) fn stop(self) -> Result<PathBuf> {
        let status = self.process.signal("TERM")?;
        ensure!(status.success(), "iscsi-target after SIGTERM: {status}");
        Ok(self.served.disk)
    }
}

/// tgtd: LUN 0 is its controller, LUN 1 a file.
pub(super) struct Tgtd {
    _process: Background,
    control: Control,
    pub(super) served: Served,
}

/// The way to one tgtd among others that may run.
struct Control {
    socket: PathBuf,
    log: PathBuf,
}

impl Control {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("TGT_IPC_SOCKET", &self.socket).env("PATH", path_with_sbin());
        command
    }

    fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("tgtadm");
        command.args(["--lld", "iscsi"]).args(arguments);
        finish(&mut command, self.log.clone(), Duration::from_secs(10))?.ok()
    }
}

impl Tgtd {
    pub(super) fn start(row: &Row) -> Result<Self> {
        let disk = disk(row)?;
        // The path of a Unix socket is short, so it cannot stand among the row's files.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("interop-tgtd-{}-{number}", std::process::id()));
        let control = Control { socket, log: row.file("tgtadm.log") };
        // tgtd cannot tell which port it got, so one that is free now has to do.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = control.command("tgtd");
        command.args(["-f", "--iscsi", &format!("portal=127.0.0.1:{port}")]);
        let mut process = Background::start(&mut command, row.file("tgtd.log"))?;
        wait(Duration::from_secs(20), || {
            process.running()?;
            Ok(control.admin(&["-o", "show", "-m", "target"]).ok())
        })
        .context("tgtd does not answer")?;
        let served = Served { port, lun: 1, disk };
        let tgtd = Self { _process: process, control, served };
        tgtd.configure(row)?;
        Ok(tgtd)
    }

    fn configure(&self, row: &Row) -> Result<()> {
        let admin = |line: &str| self.control.admin(&line.split(' ').collect::<Vec<_>>()).map(drop);
        let file = &self.served.disk.to_string_lossy();
        admin(&format!("-o new -m target --tid 1 -T {IQN}"))?;
        self.control.admin(&["-o", "new", "-m", "logicalunit", "--tid", "1", "--lun", "1", "-b", file])?;
        admin("-o bind -m target --tid 1 -I ALL")?;
        if row.security.chap() {
            admin(&format!("-o new -m account --user {USER} --password {SECRET}"))?;
            admin(&format!("-o bind -m account --tid 1 --user {USER}"))?;
            // Without a target's number: for discovery.
            admin(&format!("-o bind -m account --user {USER}"))?;
        }
        if row.security.mutual() {
            admin(&format!("-o new -m account --user {TARGET_USER} --password {TARGET_SECRET}"))?;
            admin(&format!("-o bind -m account --tid 1 --user {TARGET_USER} --outgoing"))?;
            admin(&format!("-o bind -m account --user {TARGET_USER} --outgoing"))?;
        }
        for (key, on) in
            [("HeaderDigest", row.security.header_digest()), ("DataDigest", row.security.data_digest())]
        {
            if on {
                admin(&format!("-o update -m target --tid 1 -n {key} -v CRC32C"))?;
            }
        }
        Ok(())
    }
}

impl Drop for Tgtd {
    fn drop(&mut self) {
        // tgtd leaves its socket and lock behind when it is killed.
        for suffix in [".0", ".0.lock"] {
            let mut name = self.control.socket.clone().into_os_string();
            name.push(suffix);
            let _ = std::fs::remove_file(Path::new(&name));
        }
    }
}

fn path_with_sbin() -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin");
    path
}
