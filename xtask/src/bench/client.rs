//! The clients beside the lean one: libiscsi's asynchronous API, which is what users have, and our own `iscsi bench`.
//! Each is a process of its own, so that its CPU can be told from the target's.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::report::Seen;
use super::wire::Url;
use super::{Sample, Workload};
use crate::tools::{cargo, output, run as run_command};
use crate::workspace::root;

/// What makes the load.
#[derive(Clone)]
pub(crate) enum Client {
    /// In this process.
    Lean,
    /// bench/clients/libiscsi.c, built.
    Libiscsi(PathBuf),
    /// `iscsi bench`.
    Iscsi(PathBuf),
}

impl Client {
    /// Makes a client ready; a reason when it cannot be had here.
    pub(crate) fn new(name: &str) -> Result<std::result::Result<Self, String>> {
        match name {
            "lean" => Ok(Ok(Self::Lean)),
            "libiscsi" => libiscsi(),
            "iscsi" => {
                let mut build = cargo();
                build.args(["build", "--quiet", "--release", "-p", "iscsi-initiator", "--bin", "iscsi"]);
                run_command(build.stdout(Stdio::from(std::io::stderr())))?;
                Ok(Ok(Self::Iscsi(root().join("target/release/iscsi"))))
            }
            _ => anyhow::bail!("a client is lean, libiscsi or iscsi"),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::Libiscsi(_) => "libiscsi",
            Self::Iscsi(_) => "iscsi",
        }
    }

    /// Version of what it is made of.
    pub(crate) fn version(&self) -> String {
        match self {
            Self::Lean => String::new(),
            Self::Libiscsi(_) => super::servers::debian_version("libiscsi7"),
            Self::Iscsi(program) => super::servers::first_line(Command::new(program).arg("--version")),
        }
    }

    /// Whether it can do that: libiscsi has no data digests, `iscsi bench` one session.
    pub(crate) fn can(&self, workload: &Workload) -> bool {
        match self {
            Self::Lean => true,
            Self::Libiscsi(_) => !workload.digests,
            Self::Iscsi(_) => workload.sessions == 1,
        }
    }

    /// Runs one session of a workload, a process of its own.
    pub(crate) fn run(&self, url: &Url, workload: &Workload, time: Duration, seed: u64) -> Result<Seen> {
        match self {
            Self::Lean => Ok(Seen::of(&[super::lean::run(url, workload, time, seed)?], None)),
            Self::Libiscsi(program) => {
                let mut command = Command::new(program);
                command.args([url.portal.to_string(), url.name.clone(), url.lun.to_string()]);
                command.args([workload.reads, u64::from(workload.random)].map(|n| n.to_string()));
                command.args([workload.size, workload.depth].map(|n| n.to_string()));
                command.args([workload.span.to_string(), time.as_secs_f64().to_string(), seed.to_string()]);
                samples(&mut command)
            }
            Self::Iscsi(program) => {
                let pattern = match (workload.random, workload.reads) {
                    (true, 100) => "randread",
                    (true, 0) => "randwrite",
                    (true, _) => "randrw",
                    (false, 0) => "write",
                    (false, _) => "read",
                };
                let mut command = Command::new(program);
                let address = format!("iscsi://{}/{}/{}", url.portal, url.name, url.lun);
                command.args(["bench", &address, "--json", "--destroy-data", "--pattern", pattern]);
                command.args(["--block-size", &workload.size.to_string()]);
                command.args(["--queue-depth", &workload.depth.to_string()]);
                command.args(["--seconds", &(time.as_secs_f64().ceil() as u64).max(1).to_string()]);
                if workload.digests {
                    command.args(["--header-digest", "--data-digest"]);
                }
                let report: Report = serde_json::from_str(&output(&mut command)?)?;
                let l = report.latency_us;
                Ok(Seen {
                    iops: report.iops,
                    count: report.operations,
                    p50_us: l.p50,
                    p99_us: l.p99,
                    p999_us: l.p999,
                    client_cpu_us: report.cpu_us,
                })
            }
        }
    }
}

#[derive(Deserialize)]
struct Report {
    operations: u64,
    iops: f64,
    cpu_us: Option<f64>,
    latency_us: Latency,
}

#[derive(Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Builds the client if libiscsi's header is there.
fn libiscsi() -> Result<std::result::Result<Client, String>> {
    let mut probe = Command::new("cc");
    probe.args(["-E", "-include", "iscsi/iscsi.h", "-x", "c", "/dev/null"]);
    if !crate::tools::succeeds(&mut probe) {
        return Ok(Err(
            "libiscsi's header or a C compiler is missing (Debian: apt-get install libiscsi-dev gcc)".into(),
        ));
    }
    let program = root().join("target/bench-libiscsi");
    let mut build = Command::new("cc");
    build
        .args(["-O2", "-Wall", "-o"])
        .arg(&program)
        .arg(root().join("bench/clients/libiscsi.c"))
        .arg("-liscsi");
    run_command(build.stdout(Stdio::from(std::io::stderr())))?;
    Ok(Ok(Client::Libiscsi(program)))
}

/// What the C client writes: seconds, CPU in nanoseconds, latencies in nanoseconds.
fn samples(command: &mut Command) -> Result<Seen> {
    let output = command.stdin(Stdio::null()).output().context("the libiscsi client")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the libiscsi client: {}", errors.trim());
    let (head, rest) = output.stdout.split_at_checked(16).context("the libiscsi client says nothing")?;
    let (seconds, cpu) = head.split_at(8);
    let sample = Sample {
        seconds: f64::from_ne_bytes(seconds.try_into()?),
        latencies: rest.chunks_exact(4).map(|n| u32::from_ne_bytes([n[0], n[1], n[2], n[3]])).collect(),
    };
    Ok(Seen::of(&[sample], Some(u64::from_ne_bytes(cpu.try_into()?))))
}
