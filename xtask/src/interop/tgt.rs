//! Our `iscsi` program against tgt.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::{Finished, finish};
use super::qemu::{pattern, same};
use super::security::{SECRET, Security, TARGET_SECRET, TARGET_USER, USER};
use super::server::{DISK, IQN, Served, Tgtd};
use super::{Row, Scenario};

const ALL: &[Security] = &[
    Security::Plain,
    Security::Chap,
    Security::Mutual,
    Security::HeaderDigest,
    Security::Digests,
    Security::MutualDigests,
];

const fn row(name: &'static str, run: fn(&Row) -> Result<String>) -> Scenario {
    Scenario { peer: "tgt", name, needs: &["tgtd", "tgtadm"], with: ALL, run }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    row("discover", discover),
    row("ls", ls),
    row("inquiry", inquiry),
    row("capacity", capacity),
    row("write, read", write_read),
    row("copy", copy),
    row("bench", bench),
    Scenario {
        peer: "tgt",
        name: "wrong secret",
        needs: &["tgtd", "tgtadm"],
        with: &[Security::Chap, Security::Mutual],
        run: wrong_secret,
    },
];

const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn url(served: &Served) -> String {
    format!("iscsi://127.0.0.1:{}/{IQN}/{}", served.port, served.lun)
}

fn portal(served: &Served) -> String {
    format!("iscsi://127.0.0.1:{}", served.port)
}

/// `iscsi ARGUMENTS` with the row's security.
pub(super) fn iscsi(row: &Row, log: &str, arguments: &[&str]) -> Result<Finished> {
    with_secrets(row, log, arguments, SECRET, TARGET_SECRET)
}

fn with_secrets(row: &Row, log: &str, arguments: &[&str], ours: &str, theirs: &str) -> Result<Finished> {
    let mut command = Command::new(row.programs.join("iscsi"));
    command.args(arguments).args(["--transport", "tcp"]);
    if row.security.chap() {
        // tgt takes number 7, SHA-256, for SHA-1; of our usual offer it would choose that.
        command.args(["--chap-hash", "md5", "--chap-user", USER]).env("ISCSI_CHAP_SECRET", ours);
    }
    if row.security.mutual() {
        command.args(["--target-chap-user", TARGET_USER]).env("ISCSI_TARGET_CHAP_SECRET", theirs);
    }
    if row.security.header_digest() {
        command.arg("--header-digest");
    }
    if row.security.data_digest() {
        command.arg("--data-digest");
    }
    finish(&mut command, row.file(log), LIMIT)
}

fn discover(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let text = iscsi(row, "discover.log", &["discover", &portal(&tgtd.served)])?.ok()?;
    ensure!(text.contains(IQN), "no {IQN} in\n{text}");
    Ok("target found".into())
}

fn ls(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let text = iscsi(row, "ls.log", &["ls", &portal(&tgtd.served)])?.ok()?;
    ensure!(text.contains(IQN) && text.contains("64"), "the disk is missing in\n{text}");
    Ok("target and disk found".into())
}

fn inquiry(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let url = url(&tgtd.served);
    let text = iscsi(row, "inquiry.log", &["inquiry", &url])?.ok()?;
    // What tgt calls itself.
    ensure!(text.contains("IET") && text.contains("VIRTUAL-DISK"), "not tgt's INQUIRY data:\n{text}");
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        let text = iscsi(row, "vpd.log", &["inquiry", "--vpd", page, &url])?.ok()?;
        ensure!(!text.trim().is_empty(), "VPD page {page} is empty");
    }
    Ok("standard data and six VPD pages".into())
}

fn capacity(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let text = iscsi(row, "capacity.log", &["capacity", "--json", &url(&tgtd.served)])?.ok()?;
    let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let number = |key: &str| json[key].as_u64();
    let bytes = number("blocks").zip(number("block_size")).map(|(blocks, size)| blocks * size);
    ensure!(bytes == Some(DISK), "{bytes:?} bytes instead of {DISK}:\n{text}");
    Ok(format!("{DISK} bytes"))
}

/// Judged by the file behind tgt's LUN, not by our own reading alone.
fn write_read(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let url = url(&tgtd.served);
    let (source, back) = (row.file("source.raw"), row.file("back.raw"));
    let blocks = 4096;
    pattern(&source, blocks * 512)?;
    let (source_name, back_name) = (source.to_string_lossy(), back.to_string_lossy());
    iscsi(row, "write.log", &["write", &url, "--input", &source_name])?.ok()?;
    same(&source, &tgtd.served.disk)?;
    let count = blocks.to_string();
    iscsi(row, "read.log", &["read", &url, "--blocks", &count, "--output", &back_name])?.ok()?;
    same(&source, &back)?;
    let beyond = (DISK / 512).to_string();
    let refused = iscsi(row, "beyond.log", &["read", &url, "--lba", &beyond, "--blocks", "1"])?;
    refused.refused().context("read beyond the end")?;
    Ok("2 MiB equal on both sides".into())
}

fn copy(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let url = url(&tgtd.served);
    let (source, back) = (row.file("source.raw"), row.file("back.raw"));
    pattern(&source, DISK)?;
    let (source_name, back_name) = (source.to_string_lossy(), back.to_string_lossy());
    iscsi(row, "to-lun.log", &["copy", &source_name, &url, "--verify"])?.ok()?;
    same(&source, &tgtd.served.disk)?;
    iscsi(row, "from-lun.log", &["copy", &url, &back_name, "--verify"])?.ok()?;
    same(&source, &back)?;
    Ok(format!("{} MiB there and back, equal on both sides", DISK >> 20))
}

fn bench(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let url = url(&tgtd.served);
    let mut seen = Vec::new();
    for pattern in ["randread", "write"] {
        let arguments = ["bench", &url, "--pattern", pattern, "--seconds", "2", "--destroy-data", "--json"];
        let text = iscsi(row, &format!("bench-{pattern}.log"), &arguments)?.ok()?;
        let json: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let iops = json["iops"].as_f64().with_context(|| format!("no iops in\n{text}"))?;
        ensure!(iops > 0.0, "no I/O was done:\n{text}");
        seen.push(format!("{pattern} {iops:.0} IOPS"));
    }
    Ok(seen.join(", "))
}

/// One secret is wrong on our side; either end then refuses, and says so with the exit code.
fn wrong_secret(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let url = url(&tgtd.served);
    let wrong = "something-else";
    let (ours, theirs) = if row.security.mutual() { (SECRET, wrong) } else { (wrong, TARGET_SECRET) };
    let refused = with_secrets(row, "wrong.log", &["capacity", &url], ours, theirs)?;
    let code = refused.status.code();
    refused.refused()?;
    ensure!(code == Some(4), "exit code {code:?} instead of 4, login refused");
    iscsi(row, "right.log", &["capacity", &url])?.ok()?;
    Ok("refused, the next login served".into())
}
