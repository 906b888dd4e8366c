//! Header and data digests (RFC 7143 sections 7.8, 11.2.3, 13.1). That the target's digests are right is seen to in
//! every PDU that comes.

use super::conn::cdb10;
use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

const HEADER: &[(&str, &str)] = &[("HeaderDigest", "CRC32C")];
const DATA: &[(&str, &str)] = &[("DataDigest", "CRC32C")];
const BOTH: &[(&str, &str)] = &[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")];
const WRITE: &[(&str, &str)] = &[("DataDigest", "CRC32C"), ("InitialR2T", "Yes"), ("ImmediateData", "No")];

pub(super) const CASES: &[Case] = &[
    Case::target(
        "digest-01",
        "header digests: pings and reads",
        &["7143-13.1-2", "7143-13.1-4", "7143-11.2.3-1"],
        |b| pings(b, HEADER),
    ),
    Case::target(
        "digest-02",
        "data digests: pings and reads; no digest where there is no data",
        &["7143-13.1-2", "7143-13.1-4", "7143-11.2.3-2"],
        |b| pings(b, DATA),
    ),
    Case::target("digest-03", "both digests: pings and reads", &["7143-13.1-2", "7143-13.1-9"], |b| {
        pings(b, BOTH)
    }),
    Case::target(
        "digest-04",
        "a wrong header digest: the PDU is not served; the connection ends, or serves the next",
        &["7143-7.8-1"],
        bad_header,
    ),
    Case::target(
        "digest-05",
        "a wrong data digest of a ping: Reject with reason 02, the connection goes on",
        &["7143-7.8-2"],
        bad_ping,
    ),
    Case::target(
        "digest-06",
        "a wrong data digest of a Data-Out: Reject 02, then R2T or CHECK CONDITION 0B/47/05",
        &["7143-7.8-2", "7143-7.8-3"],
        bad_data_out,
    )
    .destroys(),
    Case::target(
        "digest-07",
        "a wrong data digest of immediate data: Reject 02, then CHECK CONDITION or nothing; the blocks stay",
        &["7143-7.8-2"],
        bad_immediate,
    )
    .destroys(),
    Case::target("digest-08", "a header digest covers additional header segments", &["7143-11.2.3-1"], ahs),
    Case::target("digest-09", "a data digest covers the padding", &["7143-13.1-3", "7143-11.2.3-1"], padding),
    Case::target(
        "digest-10",
        "writing and reading back with both digests",
        &["7143-13.1-2", "7143-11.2.3-1"],
        write_read,
    )
    .destroys(),
];

fn session(bench: &Bench, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
    let conn = bench.disk(keys)?;
    for (key, _) in keys.iter().filter(|(key, _)| key.ends_with("Digest")) {
        if conn.result(key) != Some("CRC32C") {
            return skip(format!("{key}=CRC32C was offered, {:?} answered", conn.result(key)));
        }
    }
    Ok(conn)
}

fn pings(bench: &Bench, keys: &[(&str, &str)]) -> Outcome {
    let mut conn = session(bench, keys)?;
    for len in [0, 1, 3, 4, 61, 1024] {
        let data = vec![0xa5; len];
        let ping = conn.ping(&data);
        let answer = conn.ask(&ping, op::NOP_IN, "7143-13.1-2", "a NOP-In")?;
        holds("7143-11.19-2", "the data of the ping", &answer, answer.data == data)?;
    }
    let (_, size) = conn.capacity()?;
    let done = conn.good(&Io { cdb: cdb10(0x28, 0, 4), read: Some(size * 4), ..Io::default() })?;
    if done.data.len() == 4 * size as usize {
        return Ok(());
    }
    fail("7143-11.7.6-1", format!("{} bytes", size * 4), format!("{} bytes", done.data.len()))
}

fn bad_header(bench: &Bench) -> Outcome {
    let mut conn = session(bench, HEADER)?;
    let ping = conn.ping(b"");
    let mut bytes = ping.wire(true, false);
    bytes[48] ^= 0x01;
    conn.wire.send_bytes(&bytes);
    match conn.next_within(bench.quiet)? {
        Got::Closed => return Ok(()),
        Got::Silence => (),
        got => return got.wrong("7143-7.8-1", "the end of the connection, or nothing"),
    }
    // What was damaged is the digest alone, so that the next PDU begins where the header says.
    let ping = conn.ping(b"after the damage");
    conn.send(&ping);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::NOP_IN && pdu.itt() == ping.itt() => Ok(()),
        got => got.wrong("7143-7.8-1", "the end of the connection, or an answer to the next PDU"),
    }
}

fn bad_ping(bench: &Bench) -> Outcome {
    let mut conn = session(bench, DATA)?;
    let ping = conn.ping(b"damaged on the way");
    let mut bytes = ping.wire(false, true);
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80;
    conn.wire.send_bytes(&bytes);
    let rule = "7143-7.8-2";
    let reject = conn.expect(op::REJECT, rule, "a Reject with reason 02")?;
    holds(rule, "reason 02", &reject, reject.byte(at::RESPONSE) == 2)?;
    holds(
        "7143-11.17-1",
        "the header of the damaged PDU as data",
        &reject,
        reject.data.starts_with(&ping.bhs),
    )?;
    conn.expect_alive("7143-7.8-2")
}

fn bad_data_out(bench: &Bench) -> Outcome {
    let mut conn = session(bench, WRITE)?;
    let (_, size) = conn.capacity()?;
    let data = vec![0x3c; size as usize];
    let command = conn.command(&Io { cdb: cdb10(0x2a, 8, 1), write: Some(size), ..Io::default() });
    conn.send(&command);
    let r2t = conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
    let pdu = conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data).set(at::FLAGS, F);
    let mut bytes = pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]).wire(false, true);
    bytes[60] ^= 0x10;
    conn.wire.send_bytes(&bytes);
    let reject = conn.expect(op::REJECT, "7143-7.8-2", "a Reject with reason 02")?;
    holds("7143-7.8-2", "reason 02", &reject, reject.byte(at::RESPONSE) == 2)?;
    let rule = "7143-7.8-3";
    let done = conn.finish(&command, &Io { data: &data, ..Io::default() })?;
    if !done.r2ts.is_empty() {
        return holds(rule, "GOOD after the data was sent again", &done.last, done.status() == 0);
    }
    holds(rule, "CHECK CONDITION 0B/47/05", &done.last, done.sense() == Some((0x0b, 0x47, 0x05)))
}

fn bad_immediate(bench: &Bench) -> Outcome {
    let mut conn = session(bench, &[("DataDigest", "CRC32C"), ("ImmediateData", "Yes")])?;
    if conn.result("ImmediateData") == Some("No") {
        return skip("the target takes no immediate data");
    }
    let (_, size) = conn.capacity()?;
    let (before, data) = (vec![0xc3; size as usize], vec![0x3c; size as usize]);
    conn.good(&Io { cdb: cdb10(0x2a, 8, 1), write: Some(size), data: &before, ..Io::default() })?;
    let io =
        Io { cdb: cdb10(0x2a, 8, 1), write: Some(size), data: &data, immediate: data.len(), ..Io::default() };
    let command = conn.command(&io);
    let mut bytes = command.wire(false, true);
    bytes[60] ^= 0x10;
    conn.wire.send_bytes(&bytes);
    let rule = "7143-7.8-2";
    let reject = conn.expect(op::REJECT, rule, "a Reject with reason 02")?;
    holds(rule, "reason 02", &reject, reject.byte(at::RESPONSE) == 2)?;
    // The command was discarded with its data, so that nothing is due; who began it may end it.
    match conn.next_within(conn.quiet)? {
        Got::Silence => conn.expect_alive(rule)?,
        Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && pdu.itt() == command.itt() => {
            holds(rule, "CHECK CONDITION, or nothing", &pdu, pdu.byte(at::STATUS) == 2)?;
            conn.expect_alive(rule)?;
        }
        got => return got.wrong(rule, "CHECK CONDITION, or nothing"),
    }
    // A session of its own: it is not known whether CmdSN of the command counts here.
    let mut other = bench.disk(&[])?;
    let done = other.good(&Io { cdb: cdb10(0x28, 8, 1), read: Some(size), ..Io::default() })?;
    if done.data == before { Ok(()) } else { fail(rule, "the blocks as they were", "other data") }
}

fn ahs(bench: &Bench) -> Outcome {
    let mut conn = session(bench, HEADER)?;
    let mut ahs = vec![0, 17, 1, 0];
    ahs.resize(20, 0);
    let mut cdb = vec![0; 16];
    (cdb[0], cdb[7], cdb[8], cdb[9]) = (0x7f, 24, 0xff, 0xfe);
    let command = conn.command(&Io { cdb, ..Io::default() }).with_ahs(&ahs);
    conn.send(&command);
    match conn.next()? {
        Got::Pdu(pdu) if matches!(pdu.opcode(), op::REJECT | op::SCSI_RESPONSE) => (),
        got => return got.wrong("7143-11.2.3-1", "a SCSI Response or a Reject"),
    }
    conn.expect_alive("7143-11.2.3-1")
}

fn padding(bench: &Bench) -> Outcome {
    let mut conn = session(bench, DATA)?;
    // Padding that is not 0 is bad style, and the digest covers it all the same.
    let ping = conn.ping(b"hello");
    let mut bytes = ping.wire(false, false);
    let at = bytes.len() - 3;
    bytes[at..].fill(0xee);
    let digest = crc32c::crc32c(&bytes[48..]).to_le_bytes();
    bytes.extend_from_slice(&digest);
    conn.wire.send_bytes(&bytes);
    let answer = conn.expect(op::NOP_IN, "7143-13.1-3", "a NOP-In: the digest is right")?;
    holds("7143-11.19-2", "the data of the ping", &answer, answer.data == b"hello" && answer.ttt() == NO_TAG)
}

fn write_read(bench: &Bench) -> Outcome {
    let mut conn = session(bench, BOTH)?;
    let (_, size) = conn.capacity()?;
    let data: Vec<u8> = (0..size * 8).map(|n| (n / 3) as u8).collect();
    conn.good(&Io { cdb: cdb10(0x2a, 8, 8), write: Some(size * 8), data: &data, ..Io::default() })?;
    let done = conn.good(&Io { cdb: cdb10(0x28, 8, 8), read: Some(size * 8), ..Io::default() })?;
    if done.data == data { Ok(()) } else { fail("7143-11.7.6-1", "the data that was written", "other data") }
}
