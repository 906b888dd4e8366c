//! libiscsi's programs against our target.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::process::{Finished, finish};
use super::security::{SECRET, Security, TARGET_SECRET, TARGET_USER, USER};
use super::server::{DISK, IQN, OurTarget, Served};
use super::{Row, Scenario};

/// libiscsi has no data digest.
const ALL: &[Security] = &[Security::Plain, Security::Chap, Security::Mutual, Security::HeaderDigest];

const fn tool(
    name: &'static str,
    needs: &'static [&'static str],
    run: fn(&Row) -> Result<String>,
) -> Scenario {
    Scenario { peer: "libiscsi", name, needs, with: ALL, run }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    tool("ls", &["iscsi-ls"], ls),
    tool("inq", &["iscsi-inq"], inq),
    tool("readcapacity16", &["iscsi-readcapacity16"], readcapacity16),
    tool("perf", &["iscsi-perf"], perf),
    Scenario {
        peer: "libiscsi",
        name: "wrong secret",
        needs: &["iscsi-inq"],
        with: &[Security::Chap, Security::Mutual],
        run: wrong_secret,
    },
];

const SECONDS: Duration = Duration::from_secs(30);

fn credentials(security: Security, secret: &str) -> String {
    if security.chap() { format!("{USER}%{secret}@") } else { String::new() }
}

fn options(security: Security, target_secret: &str) -> String {
    let mut options = Vec::new();
    if security.mutual() {
        options.push(format!("target_user={TARGET_USER}&target_password={target_secret}"));
    }
    if security.header_digest() {
        options.push("header_digest=crc32c".to_owned());
    }
    if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) }
}

fn portal(row: &Row, served: &Served) -> String {
    let (who, how) = (credentials(row.security, SECRET), options(row.security, TARGET_SECRET));
    format!("iscsi://{who}127.0.0.1:{}{how}", served.port)
}

fn url(row: &Row, served: &Served, lun: u8) -> String {
    let (who, how) = (credentials(row.security, SECRET), options(row.security, TARGET_SECRET));
    format!("iscsi://{who}127.0.0.1:{}/{IQN}/{lun}{how}", served.port)
}

fn call(row: &Row, program: &str, arguments: &[&str]) -> Result<Finished> {
    finish(Command::new(program).args(arguments), row.file(&format!("{program}.log")), SECONDS)
}

/// `text` holds each of `words`.
fn expect(text: &str, words: &[&str]) -> Result<()> {
    match words.iter().find(|word| !text.contains(**word)) {
        None => Ok(()),
        Some(word) => bail!("no \"{word}\" in\n{text}"),
    }
}

fn ls(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let text = call(row, "iscsi-ls", &["-s", &portal(row, &target.served)])?.ok()?;
    expect(&text, &[IQN, &format!("127.0.0.1:{}", target.served.port)])?;
    let disks = text.lines().filter(|l| l.contains("DIRECT_ACCESS")).count();
    ensure!(disks == 2, "{disks} disks instead of 2 in\n{text}");
    target.stop()?;
    Ok("target found, two disks".into())
}

/// Standard data, then every VPD page the target says it has.
fn inq(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let url = url(row, &target.served, 0);
    let text = call(row, "iscsi-inq", &[&url])?.ok()?;
    expect(&text, &["CONNECTED", "DIRECT_ACCESS", "SPC-"])?;
    let text = call(row, "iscsi-inq", &["-e", "1", "-c", "0", &url])?.ok()?;
    let pages: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("Page:")?.split_whitespace().next()).collect();
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        ensure!(pages.contains(&page), "no VPD page {page} in\n{text}");
    }
    // What libiscsi's program knows how to print.
    for page in pages.iter().filter(|p| ["0x80", "0x83", "0xb0", "0xb1", "0xb2"].contains(p)) {
        let number = u8::from_str_radix(page.trim_start_matches("0x"), 16)?.to_string();
        let text = call(row, "iscsi-inq", &["-e", "1", "-c", &number, &url])?.ok()?;
        ensure!(!text.trim().is_empty(), "VPD page {page} is empty");
    }
    target.stop()?;
    Ok(format!("{} VPD pages", pages.len()))
}

fn readcapacity16(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    for lun in [0, 1] {
        let text = call(row, "iscsi-readcapacity16", &[&url(row, &target.served, lun)])?.ok()?;
        expect(&text, &[&format!("Total size:{DISK}"), "LOGICAL BLOCK LENGTH IN BYTES:512"])?;
    }
    target.stop()?;
    Ok(format!("{DISK} bytes"))
}

fn perf(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let url = url(row, &target.served, 0);
    let mut seen = Vec::new();
    for (name, arguments) in [("sequential", &["-b", "64"][..]), ("random", &["-r", "-b", "8"])] {
        let all = [&["-t", "2", "-m", "32"], arguments, &[url.as_str()]].concat();
        let text = call(row, "iscsi-perf", &all)?.ok()?;
        expect(&text, &["finished."])?;
        let average = text.rsplit("iops average ").next().and_then(|rest| rest.split_once(')'));
        let (average, _) = average.with_context(|| format!("no average in\n{text}"))?;
        let operations: u64 = average.split_whitespace().next().unwrap_or("").parse()?;
        ensure!(operations > 0, "no I/O was done:\n{text}");
        seen.push(format!("{name} {average})"));
    }
    target.stop()?;
    Ok(seen.join(", "))
}

/// The side that is given a wrong secret refuses the login; the target serves the next one.
fn wrong_secret(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let port = target.served.port;
    let wrong = "something-else";
    let bad = if row.security.mutual() {
        let (who, how) = (credentials(row.security, SECRET), options(row.security, wrong));
        format!("iscsi://{who}127.0.0.1:{port}/{IQN}/0{how}")
    } else {
        format!("iscsi://{}127.0.0.1:{port}/{IQN}/0", credentials(row.security, wrong))
    };
    let text = call(row, "iscsi-inq", &[&bad])?.refused()?;
    expect(&text.to_lowercase(), &["log"])?;
    call(row, "iscsi-inq", &[&url(row, &target.served, 0)])?.ok()?;
    target.stop()?;
    Ok("refused, the next login served".into())
}

/// Discovery and INQUIRY, for a capture.
pub(super) fn short_session(row: &Row, served: &Served) -> Result<()> {
    call(row, "iscsi-ls", &["-s", &portal(row, served)])?.ok()?;
    let url = url(row, served, 0);
    call(row, "iscsi-inq", &["-e", "1", "-c", "131", &url])?.ok()?;
    call(row, "iscsi-readcapacity16", &[&url])?.ok()?;
    Ok(())
}
