//! `iscsi-conform` against our target and tgt, and against our initiator and libiscsi.
//!
//! What a peer is known to fail stands in `kits/conform/expected/`: a new failure fails the row, and so does one that is
//! gone and still stands there. The tables of our own programs list as well what is skipped: a case that does not apply to
//! them any more, as they negotiate something away, fails the row.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::finish;
use super::security::{SECRET, Security, TARGET_SECRET, TARGET_USER, USER};
use super::server::{IQN, OurTarget, Served, Tgtd};
use super::{Row, Scenario};
use crate::workspace::root;

const TARGETS: &[Security] = &[Security::Plain, Security::Mutual];
const INITIATORS: &[Security] = &[Security::Plain, Security::Digests];
const PLAIN: &[Security] = &[Security::Plain];

const fn row(
    name: &'static str,
    needs: &'static [&'static str],
    with: &'static [Security],
    run: fn(&Row) -> Result<String>,
) -> Scenario {
    Scenario { peer: "conform", name, needs, with, run }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    row("our target", &["tshark"], TARGETS, our_target),
    row("tgt as target", &["tgtd", "tgtadm"], TARGETS, tgt),
    row("our initiator", &[], INITIATORS, our_initiator),
    row("libiscsi as initiator", &["iscsi-inq", "iscsi-ls", "qemu-io"], PLAIN, libiscsi),
];

const LIMIT: Duration = Duration::from_secs(240);

/// Runs the program; the report and the captures stay with the row.
fn conform(row: &Row, expected: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(row.programs.join("iscsi-conform"));
    let table = root().join("kits/conform/expected").join(expected);
    command.args(arguments).arg("--expect").arg(table);
    command.arg("--pcap").arg(row.file("pcap")).arg("--junit").arg(row.file("junit.xml"));
    let text = finish(&mut command, row.file("report.log"), LIMIT)?.ok()?;
    let summary = text.lines().rev().find(|line| line.contains(" cases: "));
    Ok(summary.with_context(|| format!("no summary in\n{text}"))?.to_owned())
}

fn target(row: &Row, served: &Served, expected: &str) -> Result<String> {
    let port = served.port;
    let url = if row.security.chap() {
        let mutual = format!("target_user={TARGET_USER}&target_password={TARGET_SECRET}");
        format!("iscsi://{USER}%{SECRET}@127.0.0.1:{port}/{IQN}/{}?{mutual}", served.lun)
    } else {
        format!("iscsi://127.0.0.1:{port}/{IQN}/{}", served.lun)
    };
    // Where authentication is demanded its cases are what is new.
    let mut arguments = vec!["target", &url, "--dataloss"];
    if row.security.chap() {
        arguments.extend(["--filter", "chap"]);
    }
    conform(row, expected, &arguments)
}

fn our_target(row: &Row) -> Result<String> {
    // Every case says itself at which level it wants to be.
    let target = OurTarget::start_with(row, &["--error-recovery-level", "2"])?;
    let (table, case) = if row.security.chap() {
        ("iscsi-target-chap.toml", "chap-01")
    } else {
        ("iscsi-target.toml", "keys-01")
    };
    let summary = self::target(row, &target.served, table)?;
    readable(row, &row.file(&format!("pcap/{case}.pcap")), target.served.port)?;
    target.stop()?;
    Ok(summary)
}

fn tgt(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    target(row, &tgtd.served, "tgt.toml")
}

/// A capture opens in tshark, which finds both sides of the login and nothing malformed.
fn readable(row: &Row, capture: &Path, port: u16) -> Result<()> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(capture).args(["-d", &format!("tcp.port=={port},iscsi")]);
    tshark.args(["-T", "fields", "-e", "iscsi.opcode", "-e", "_ws.malformed"]);
    let text = finish(&mut tshark, row.file("tshark.log"), Duration::from_secs(60))?.ok()?;
    let login = |code: &str| text.lines().any(|line| line.trim().eq_ignore_ascii_case(code));
    ensure!(login("0x03") && login("0x23"), "no login in what tshark reads:\n{text}");
    ensure!(!text.contains("alformed"), "tshark finds something malformed:\n{text}");
    Ok(())
}

fn our_initiator(row: &Row) -> Result<String> {
    let program = row.programs.join("iscsi");
    let data = row.file("data.raw");
    std::fs::write(&data, vec![0x5a; 64 << 10])?;
    // Where digests are insisted on their cases are what is new.
    let (digests, filter, table) = match row.security {
        Security::Digests => (" --header-digest --data-digest", Some("idigest"), "iscsi-digests.toml"),
        _ => ("", None, "iscsi.toml"),
    };
    let command = |what: &str| format!("{} {what} --transport tcp{digests}", program.display());
    let commands = Commands {
        // More than one command: what follows the first is judged as well.
        attach: format!("{} --blocks 8 --output /dev/null {{url}}", command("read")),
        read: format!("{} --blocks 128 --output /dev/null {{url}}", command("read")),
        write: format!("{} --input {} {{url}}", command("write"), data.display()),
        discover: format!("{} {{portal}}", command("discover")),
    };
    initiator(row, table, &commands, filter)
}

fn libiscsi(row: &Row) -> Result<String> {
    let commands = Commands {
        attach: "iscsi-inq {url}".into(),
        read: "qemu-io -r -f raw -c 'read 0 64k' {url}".into(),
        write: "qemu-io -f raw -c 'write 0 64k' {url}".into(),
        discover: "iscsi-ls {portal}".into(),
    };
    initiator(row, "libiscsi.toml", &commands, None)
}

/// What makes an initiator do something.
struct Commands {
    attach: String,
    read: String,
    write: String,
    discover: String,
}

fn initiator(row: &Row, expected: &str, commands: &Commands, filter: Option<&str>) -> Result<String> {
    // The cases are silence for the most part, and each has its own initiator.
    let mut arguments = vec!["initiator", "--answer", "2000", "--at-once", "6", "--exec", &commands.attach];
    arguments.extend(["--exec-read", &commands.read, "--exec-write", &commands.write]);
    arguments.extend(["--exec-discover", &commands.discover]);
    if let Some(filter) = filter {
        arguments.extend(["--filter", filter]);
    }
    conform(row, expected, &arguments)
}
