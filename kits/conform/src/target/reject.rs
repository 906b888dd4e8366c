//! PDUs that a target cannot take (RFC 7143 sections 7.3, 7.7, 11.2, 11.17).

use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, holds, skip};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "reject-01",
        "an unassigned opcode: Reject with reason 05 and the header of the PDU",
        &["7143-11.2.1.2-3", "7143-11.17-1", "7143-11.17.1-5"],
        unknown_opcode,
    ),
    Case::target(
        "reject-02",
        "an opcode of targets is refused",
        &["7143-11.2.1.2-1", "7143-11.2.1.2-3"],
        target_opcode,
    ),
    Case::target(
        "reject-03",
        "a SNACK at ErrorRecoveryLevel 0 is refused",
        &["7143-11.16-7", "7143-7.13-1"],
        snack_at_level_0,
    ),
    Case::target(
        "reject-04",
        "CmdSN of a rejected command does not count",
        &["7143-7.3-2"],
        cmd_sn_of_rejected,
    ),
    Case::target(
        "reject-05",
        "a Reject has the next StatSN and advances it",
        &["7143-11.17-1", "7143-4.2.2.2-4"],
        stat_sn,
    ),
    Case::target(
        "reject-06",
        "neither F nor W in a SCSI Command is refused",
        &["7143-11.3.1-1", "7143-7.7-1"],
        no_f_no_w,
    ),
    Case::target(
        "reject-07",
        "a reserved task attribute is refused",
        &["7143-11-3", "7143-11.3.1-4"],
        reserved_attribute,
    ),
    Case::target(
        "reject-08",
        "a read without R but with an expected length is refused, or moves no data",
        &["7143-11.3.1-3"],
        no_r_no_w,
    ),
    Case::target(
        "reject-09",
        "an Extended CDB of 32 bytes: the connection stays in step",
        &["7143-11.2.2-1", "7143-11.2.1.5-1", "7143-11.3.5-1"],
        extended_cdb,
    ),
    Case::target(
        "reject-10",
        "an additional header segment of unknown type: the connection stays in step, or ends",
        &["7143-11.2.2-1", "7143-11.2.1.5-1"],
        unknown_ahs,
    ),
    Case::target(
        "reject-11",
        "a reserved task management function is refused",
        &["7143-11-3", "7143-11.6.1-4"],
        reserved_function,
    ),
    Case::target(
        "reject-12",
        "a reserved Logout reason is refused",
        &["7143-11-3", "7143-11.14.1-1"],
        reserved_reason,
    ),
    Case::target(
        "reject-13",
        "a second command with the ITT of one under way is refused, or not seen; the first goes on",
        &["7143-11.2.1.8-1", "7143-4.2.2.1-14"],
        tag_in_use,
    )
    .destroys(),
    Case::target(
        "reject-14",
        "vendor specific opcodes that are not known are refused",
        &["7143-11.2.1.2-3"],
        vendor_opcode,
    ),
    Case::target("reject-15", "the session goes on after a Reject", &["7143-7.3-1"], goes_on),
];

/// Sends what is to be refused: a Reject, or the end of the connection.
fn refused(conn: &mut Conn, pdu: &Pdu, rule: &str) -> Result<Option<Pdu>, Stop> {
    conn.send(pdu);
    match conn.next()? {
        Got::Closed => Ok(None),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(Some(pdu)),
        got => got.wrong(rule, "a Reject, or the end of the connection"),
    }
}

fn unassigned(conn: &mut Conn) -> Pdu {
    conn.request(0x40 | 0x0f, F).set32(at::TTT, NO_TAG)
}

fn unknown_opcode(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let bad = unassigned(&mut conn);
    conn.send(&bad);
    let rule = "7143-11.2.1.2-3";
    let reject = conn.expect(op::REJECT, rule, "a Reject")?;
    holds(rule, "reason 05", &reject, reject.byte(at::RESPONSE) == 5)?;
    holds(
        "7143-11.17-1",
        "the header of the rejected PDU as data",
        &reject,
        reject.data.starts_with(&bad.bhs),
    )
}

fn target_opcode(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let bad = conn.request(op::DATA_IN, F).set32(at::TTT, NO_TAG);
    refused(&mut conn, &bad, "7143-11.2.1.2-1").map(drop)
}

fn vendor_opcode(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let bad = conn.request(0x40 | 0x1c, F).set32(at::TTT, NO_TAG);
    refused(&mut conn, &bad, "7143-11.2.1.2-3").map(drop)
}

fn snack_at_level_0(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[("ErrorRecoveryLevel", "0")])?;
    let bad = Pdu::new(op::SNACK)
        .set(at::FLAGS, F | 1)
        .set32(at::ITT, NO_TAG)
        .set32(at::TTT, NO_TAG)
        .set32(at::EXP_STAT_SN, conn.exp_stat_sn())
        .set32(at::BEG_RUN, conn.exp_stat_sn());
    refused(&mut conn, &bad, "7143-11.16-7").map(drop)
}

fn cmd_sn_of_rejected(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let sn = conn.cmd_sn;
    // A Text Request with F and C both set breaks the rules and is not immediate.
    let bad = conn.text(0xc0, b"X-org.example.a=b\0");
    if refused(&mut conn, &bad, "7143-6.2-1")?.is_none() {
        return skip("the target closes the connection instead, as it may");
    }
    let ping = conn.ping(b"where are we?");
    let answer = conn.ask(&ping, op::NOP_IN, "7143-7.3-1", "the session goes on")?;
    holds("7143-7.3-2", &format!("ExpCmdSN {sn:08x}"), &answer, answer.be32(at::EXP_CMD_SN) == sn)
}

fn stat_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let next = conn.exp_stat_sn();
    let bad = unassigned(&mut conn);
    let Some(reject) = refused(&mut conn, &bad, "7143-11.2.1.2-3")? else {
        return skip("the target closes the connection instead: see reject-01");
    };
    holds("7143-11.17-1", &format!("StatSN {next:08x}"), &reject, reject.be32(at::STAT_SN) == next)?;
    let ping = conn.ping(b"and on");
    let answer = conn.ask(&ping, op::NOP_IN, "7143-7.3-1", "the session goes on")?;
    let right = answer.be32(at::STAT_SN) == next.wrapping_add(1);
    holds("7143-4.2.2.2-4", "StatSN one more than the Reject's", &answer, right)
}

fn goes_on(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let bad = unassigned(&mut conn);
    if refused(&mut conn, &bad, "7143-11.2.1.2-3")?.is_none() {
        return skip("the target closes the connection instead: see reject-01");
    }
    let done = conn.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
    holds("7143-7.3-1", "GOOD for the next command", &done.last, done.status() == 0)
}

/// CHECK CONDITION does as well as a Reject.
fn refused_or_failed(conn: &mut Conn, pdu: &Pdu, rule: &str, also: fn(&Pdu) -> bool) -> Outcome {
    conn.send(pdu);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE => {
            let failed = pdu.byte(at::RESPONSE) != 0 || pdu.byte(at::STATUS) == 2 || also(&pdu);
            holds(rule, "a Reject, a failed command, or the end of the connection", &pdu, failed)
        }
        got => got.wrong(rule, "a Reject, a failed command, or the end of the connection"),
    }
}

fn no_f_no_w(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() }).set(at::FLAGS, 1);
    refused_or_failed(&mut conn, &command, "7143-11.3.1-1", |_| false)
}

fn reserved_attribute(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() }).set(at::FLAGS, F | 7);
    refused_or_failed(&mut conn, &command, "7143-11-3", |_| false)
}

fn no_r_no_w(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() }).set32(at::EDTL, 512);
    refused_or_failed(&mut conn, &command, "7143-11.3.1-3", |pdu| pdu.byte(at::STATUS) == 0)
}

fn extended_cdb(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    // A variable length CDB (SPC-4 4.2.3) of 32 bytes with a service action that nobody has.
    let mut cdb = vec![0; 16];
    (cdb[0], cdb[7], cdb[8], cdb[9]) = (0x7f, 24, 0xff, 0xfe);
    // AHSLength 17 counts a reserved byte and 16 of the CDB; type 1.
    let mut ahs = vec![0, 17, 1, 0];
    ahs.resize(20, 0);
    let io = Io { cdb, ..Io::default() };
    let command = conn.command(&io).with_ahs(&ahs);
    conn.send(&command);
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => (),
        Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE => {
            holds("7143-11.3.5-1", "CHECK CONDITION", &pdu, pdu.byte(at::STATUS) == 2)?;
        }
        got => return got.wrong("7143-11.3.5-1", "a SCSI Response"),
    }
    conn.expect_alive("7143-11.2.1.5-1")
}

fn unknown_ahs(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let ahs = [0, 5, 0x3e, 0, 1, 2, 3, 4];
    let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() }).with_ahs(&ahs);
    conn.send(&command);
    match conn.next()? {
        Got::Closed => return Ok(()),
        Got::Pdu(pdu) if matches!(pdu.opcode(), op::REJECT | op::SCSI_RESPONSE) => (),
        got => return got.wrong("7143-11.2.2-1", "a Reject, a SCSI Response, or the end of the connection"),
    }
    conn.expect_alive("7143-11.2.1.5-1")
}

fn reserved_function(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.function(0x55);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE => {
            holds("7143-11.6.1-4", "response 5 or 255", &pdu, matches!(pdu.byte(at::RESPONSE), 5 | 255))
        }
        got => got.wrong("7143-11-3", "a Reject, or response 5 or 255"),
    }
}

fn reserved_reason(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.request(0x40 | op::LOGOUT_REQUEST, F | 0x33);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_RESPONSE => {
            holds("7143-11-3", "a response other than 0", &pdu, pdu.byte(at::RESPONSE) != 0)
        }
        got => got.wrong("7143-11-3", "a Reject"),
    }
}

fn tag_in_use(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    let (_, size) = conn.capacity()?;
    let data = vec![0x2f; size as usize];
    let io = Io { cdb: super::conn::cdb10(0x2a, 8, 1), write: Some(size), data: &data, ..Io::default() };
    let command = conn.command(&io);
    conn.send(&command);
    let r2t = conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
    // The first waits for its data and keeps its tag.
    let again = conn.command(&io).set32(at::ITT, command.itt());
    conn.send(&again);
    let rule = "7143-11.2.1.8-1";
    match conn.next_within(bench.quiet)? {
        Got::Closed => return Ok(()),
        // Overlapped commands (SAM-5 5.11): both are over.
        Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && pdu.byte(at::STATUS) == 2 => {
            return conn.expect_alive(rule);
        }
        Got::Silence => (),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => (),
        got => return got.wrong(rule, "a Reject (reason 07), nothing, or the end of the connection"),
    }
    // The tag is the first one's, which has not noticed; the second does not begin when the first is over.
    conn.answer_r2t(&r2t, &data);
    let done = conn.finish(&command, &io)?;
    holds(rule, "GOOD for the command that was there first", &done.last, done.status() == 0)?;
    conn.expect_quiet(rule, "nothing more with this tag")?;
    conn.expect_alive(rule)
}
