//! What tshark makes of our traffic, in both roles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{Background, finish};
use super::security::Security;
use super::server::{OurTarget, Tgtd};
use super::{Row, Scenario, libiscsi, qemu, tgt};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        peer: "tshark",
        name: "our target",
        needs: &["tshark", "dumpcap", "iscsi-ls", "iscsi-inq", "iscsi-readcapacity16", "qemu-io"],
        with: &[Security::Plain, Security::Chap, Security::HeaderDigest],
        run: our_target,
    },
    Scenario {
        peer: "tshark",
        name: "our initiator",
        needs: &["tshark", "dumpcap", "tgtd", "tgtadm"],
        with: &[Security::Plain, Security::Mutual, Security::Digests],
        run: our_initiator,
    },
];

fn our_target(row: &Row) -> Result<String> {
    let target = OurTarget::start(row)?;
    let capture = Capture::start(row, target.served.port)?;
    libiscsi::short_session(row, &target.served)?;
    qemu::short_session(row, &target.served)?;
    let port = target.served.port;
    let report = dissect(row, &capture.stop()?, port)?;
    target.stop()?;
    report.judge(row.security)
}

fn our_initiator(row: &Row) -> Result<String> {
    let tgtd = Tgtd::start(row)?;
    let port = tgtd.served.port;
    let capture = Capture::start(row, port)?;
    let url = tgt::url(&tgtd.served);
    let source = row.file("source.raw");
    // More than one burst, so that the target has to ask for data.
    qemu::pattern(&source, 1 << 20)?;
    let portal = format!("iscsi://127.0.0.1:{port}");
    tgt::iscsi(row, "discover.log", &["discover", &portal])?.ok()?;
    tgt::iscsi(row, "inquiry.log", &["inquiry", &url])?.ok()?;
    tgt::iscsi(row, "copy.log", &["copy", &source.to_string_lossy(), &url, "--verify"])?.ok()?;
    let report = dissect(row, &capture.stop()?, port)?;
    report.judge(row.security)
}

/// dumpcap on the loopback device.
struct Capture {
    process: Background,
    file: PathBuf,
}

impl Capture {
    fn start(row: &Row, port: u16) -> Result<Self> {
        let file = row.file("capture.pcapng");
        let mut command = Command::new("dumpcap");
        command.args(["-q", "-i", "lo", "-B", "256", "-f", &format!("tcp port {port}"), "-w"]).arg(&file);
        let mut process = Background::start(&mut command, row.file("dumpcap.log"))?;
        process.until(|text| text.contains("File: ").then_some(()))?;
        Ok(Self { process, file })
    }

    fn stop(self) -> Result<PathBuf> {
        // The last packets are still on their way to the file.
        std::thread::sleep(Duration::from_millis(500));
        let log = self.process.log();
        let status = self.process.signal("INT")?;
        let text = std::fs::read_to_string(log)?;
        ensure!(status.success() && text.contains("/0 ("), "dumpcap lost packets ({status}):\n{text}");
        Ok(self.file)
    }
}

/// What was found in a capture.
struct Report {
    /// PDUs by tshark's name of the opcode.
    pdus: BTreeMap<String, usize>,
    /// Frames whose iSCSI part tshark calls malformed.
    malformed: Vec<String>,
    /// Frames with data that tshark could give to no PDU.
    strays: Vec<String>,
}

/// Opcodes as tshark's `iscsi.opcode` prints them.
const OPCODES: &[(&str, &str)] = &[
    ("0x00", "NOP Out"),
    ("0x01", "SCSI Command"),
    ("0x02", "Task Management"),
    ("0x03", "Login Command"),
    ("0x04", "Text Command"),
    ("0x05", "SCSI Data Out"),
    ("0x06", "Logout Command"),
    ("0x20", "NOP In"),
    ("0x21", "SCSI Response"),
    ("0x22", "Task Management Response"),
    ("0x23", "Login Response"),
    ("0x24", "Text Response"),
    ("0x25", "SCSI Data In"),
    ("0x26", "Logout Response"),
    ("0x31", "Ready To Transfer"),
    ("0x32", "Asynchronous Message"),
    ("0x3f", "Reject"),
];

fn dissect(row: &Row, file: &Path, port: u16) -> Result<Report> {
    let tshark = |log: &str, filter: &str, fields: &[&str]| -> Result<Vec<String>> {
        let mut command = Command::new("tshark");
        // Two passes: in one, the segments of a PDU that is still to be completed belong to none.
        command.arg("-2").arg("-r").arg(file).args(["-d", &format!("tcp.port=={port},iscsi")]);
        command.args([
            "-o",
            &format!("iscsi.target_ports:{port}"),
            "-o",
            "iscsi.bogus_pdu_max_data_len:16777215",
            // Two processors may hand the segments of a connection to the loopback device out of turn.
            "-o",
            "tcp.reassemble_out_of_order:TRUE",
        ]);
        command.args(["-Y", filter, "-T", "fields", "-E", "separator=/s", "-E", "occurrence=a"]);
        for field in fields {
            command.args(["-e", field]);
        }
        let text = finish(&mut command, row.file(log), Duration::from_secs(60))?.ok()?;
        // As root it prints a warning first.
        let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with("Running as user"));
        Ok(lines.map(str::to_owned).collect())
    };
    let mut pdus = BTreeMap::new();
    for line in tshark("opcodes.log", "iscsi", &["iscsi.opcode"])? {
        for code in line.split(',') {
            let name = OPCODES.iter().find(|(c, _)| *c == code).map(|(_, name)| (*name).to_owned());
            *pdus.entry(name.unwrap_or_else(|| format!("opcode {code}"))).or_default() += 1;
        }
    }
    // SCSI data that the allocation length cut short are beyond tshark; the PDU around them is what counts here.
    let mut malformed = tshark("malformed.log", "_ws.malformed", &["frame.number", "_ws.malformed"])?;
    malformed.retain(|line| !line.contains("[Malformed Packet: SCSI]"));
    let strays = tshark(
        "strays.log",
        "tcp.len > 0 && !iscsi && !tcp.reassembled_in && !tcp.analysis.retransmission",
        &["frame.number", "tcp.srcport", "tcp.len"],
    )?;
    Ok(Report { pdus, malformed, strays })
}

/// In both roles.
const EXPECTED: [&str; 8] = [
    "Login Command",
    "Text Command",
    "SCSI Command",
    "SCSI Data In",
    "Ready To Transfer",
    "SCSI Data Out",
    "SCSI Response",
    "Logout Command",
];

impl Report {
    /// No fault, and all that the sessions must have had was seen: an empty capture proves nothing.
    fn judge(&self, security: Security) -> Result<String> {
        ensure!(self.malformed.is_empty(), "tshark finds malformed PDUs:\n{}", self.malformed.join("\n"));
        // With data digests tshark now and then loses its way in a stream whose data has been compared byte by byte:
        // it says so in the table, and judges what it has read.
        let lost = if security.data_digest() { self.strays.len() } else { 0 };
        ensure!(self.strays.len() == lost, "segments that are part of no PDU:\n{}", self.strays.join("\n"));
        for name in EXPECTED {
            self.pdus.get(name).with_context(|| format!("no {name} among {:?}", self.pdus))?;
        }
        let unknown = self.pdus.keys().find(|name| name.starts_with("opcode"));
        ensure!(unknown.is_none(), "{unknown:?} among {:?}", self.pdus);
        let total: usize = self.pdus.values().sum();
        let lost =
            if lost == 0 { String::new() } else { format!("; tshark lost its way in {lost} segments") };
        Ok(format!("{total} PDUs of {} kinds, none malformed{lost}", self.pdus.len()))
    }
}
