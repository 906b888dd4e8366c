//! QEMU's block layer against our target.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::finish;
use super::security::{SECRET, Security, USER};
use super::server::{DISK, IQN, OurTarget, Served};
use super::{Row, Scenario};

/// QEMU has no way to ask the target for proof, and libiscsi below it no data digest.
const ALL: &[Security] = &[Security::Plain, Security::Chap, Security::HeaderDigest];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { peer: "QEMU", name: "convert", needs: &["qemu-img"], with: ALL, run: convert },
    Scenario { peer: "QEMU", name: "flush, discard", needs: &["qemu-io"], with: ALL, run: flush_discard },
];

const LIMIT: Duration = Duration::from_secs(60);

/// The LUN as an argument of `--image-opts`.
fn lun(row: &Row, served: &Served) -> Result<String> {
    let mut opts = format!(
        "driver=iscsi,transport=tcp,portal=127.0.0.1:{},target={IQN},lun={},initiator-name=iqn.2024-01.org.example:qemu",
        served.port, served.lun
    );
    if row.security.chap() {
        opts += &format!(",user={USER},password-secret=chap");
    }
    if row.security.header_digest() {
        opts += ",header-digest=crc32c";
    }
    Ok(opts)
}

fn qemu(row: &Row, program: &str, verb: &[&str], rest: &[&str], log: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(verb);
    if row.security.chap() {
        let path = row.file("qemu-secret");
        std::fs::write(&path, SECRET)?;
        command.args(["--object", &format!("secret,id=chap,file={}", path.display())]);
    }
    command.args(rest);
    finish(&mut command, row.file(log), LIMIT)?.ok()
}

/// Pseudo-random bytes, with stretches of zeros that QEMU turns into unmap or WRITE SAME.
pub(super) fn pattern(path: &Path, len: u64) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for at in (0..len).step_by(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let zero = (at >> 20) % 4 == 3;
        out.write_all(&if zero { 0 } else { state }.to_le_bytes())?;
    }
    out.flush().with_context(|| path.display().to_string())
}

/// The first bytes of two files up to the length of the first are equal.
pub(super) fn same(a: &Path, b: &Path) -> Result<()> {
    let (a_bytes, b_bytes) = (std::fs::read(a)?, std::fs::read(b)?);
    ensure!(b_bytes.len() >= a_bytes.len(), "{} is shorter than {}", b.display(), a.display());
    let differs = a_bytes.iter().zip(&b_bytes).position(|(x, y)| x != y);
    ensure!(differs.is_none(), "{} and {} differ at byte {differs:?}", a.display(), b.display());
    Ok(())
}

/// A file to the LUN, compared by QEMU; back into a file, compared by us; and the file behind the LUN.
fn convert(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let (source, back) = (row.file("source.raw"), row.file("back.raw"));
    pattern(&source, DISK)?;
    let lun = lun(row, &target.served)?;
    let from = format!("driver=file,filename={}", source.display());
    let qemu = |verb: &str, rest: &[&str], log: &str| qemu(row, "qemu-img", &[verb], rest, log);
    // An existing target cannot be given by --target-image-opts without its driver's options: -n.
    qemu("convert", &["--image-opts", "--target-image-opts", "-n", &from, &lun], "to-lun.log")?;
    let text = qemu("compare", &["--image-opts", &from, &lun], "compare.log")?;
    ensure!(text.contains("identical"), "qemu-img compare: {text}");
    let back_name = back.to_string_lossy();
    qemu("convert", &["--image-opts", "-O", "raw", &lun, &back_name], "from-lun.log")?;
    same(&source, &back)?;
    same(&source, &target.stop()?)?;
    Ok(format!("{} MiB there and back, identical", DISK >> 20))
}

/// Writes that are longer than the first burst, and reads, for a capture.
pub(super) fn short_session(row: &Row, served: &Served) -> Result<()> {
    let lun = lun(row, served)?;
    let commands = ["-c", "write -P 0x5a 0 1M", "-c", "read -P 0x5a 0 1M", "-c", "flush"];
    qemu(row, "qemu-io", &[], &[&["--image-opts"], &commands[..], &[&lun]].concat(), "qemu-io.log").map(drop)
}

fn flush_discard(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let lun = lun(row, &target.served)? + ",discard=unmap";
    let script = [
        "write -P 0xa5 0 4M",
        "flush",
        "read -P 0xa5 0 4M",
        "write -f -P 0x5a 4M 64k",
        "read -P 0x5a 4M 64k",
        "discard 1M 1M",
        // Released blocks of our disks read as zeros, and their neighbours are as they were.
        "read -P 0 1M 1M",
        "read -P 0xa5 0 1M",
        "read -P 0xa5 2M 2M",
        "write -z 2M 1M",
        "read -P 0 2M 1M",
        "flush",
    ];
    let mut arguments = vec!["--image-opts", "-t", "writeback"];
    script.iter().for_each(|line| arguments.extend(["-c", line]));
    arguments.push(&lun);
    let text = qemu(row, "qemu-io", &[], &arguments, "qemu-io.log")?;
    ensure!(!text.contains("Pattern verification failed"), "{text}");
    let done =
        text.lines().filter(|l| l.starts_with("wrote") || l.starts_with("read") || l.starts_with("discard"));
    let done = done.count();
    ensure!(done == 10, "{done} of 10 operations were done:\n{text}");
    target.stop()?;
    Ok("written, flushed, discarded, read as expected".into())
}
