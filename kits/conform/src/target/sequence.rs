//! CmdSN, ExpCmdSN, MaxCmdSN and StatSN (RFC 7143 section 4.2.2).

use super::{Bench, Conn, Io, Login};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, before, op};
use crate::verdict::{Outcome, Stop, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "sequence-01",
        "a non-immediate command moves ExpCmdSN, and is acknowledged by its response",
        &["7143-4.2.2.1-9", "7143-4.2.2.1-16"],
        acknowledged,
    ),
    Case::target(
        "sequence-02",
        "a command whose CmdSN was used before is dropped in silence",
        &["7143-4.2.2.1-12"],
        duplicate,
    ),
    Case::target(
        "sequence-03",
        "a command beyond MaxCmdSN is dropped in silence",
        &["7143-4.2.2.1-12"],
        beyond,
    ),
    Case::target(
        "sequence-04",
        "a command far below ExpCmdSN is dropped in silence",
        &["7143-4.2.2.1-12"],
        below,
    ),
    Case::target(
        "sequence-05",
        "a command after a gap waits until the gap is filled, then both run in order",
        &["7143-4.2.2.1-7", "7143-4.2.2.1-9"],
        gap,
    ),
    Case::target(
        "sequence-06",
        "an immediate command overtakes a gap",
        &["7143-4.2.2.1-21", "7143-4.2.2.1-4"],
        immediate_over_gap,
    ),
    Case::target(
        "sequence-07",
        "an immediate command is taken whatever its CmdSN",
        &["7143-4.2.2.1-21"],
        immediate_any_sn,
    ),
    Case::target(
        "sequence-08",
        "CmdSN wraps from ffffffff to 0",
        &["7143-4.2.2.1-10", "7143-4.2.2.1-3"],
        wrap,
    ),
    Case::target(
        "sequence-09",
        "as many commands as the window holds are all served",
        &["7143-4.2.2.1-13", "7143-4.2.2.1-11"],
        whole_window,
    ),
    Case::target("sequence-10", "MaxCmdSN opens again: 300 commands in turn", &["7143-4.2.2.1-13"], long_run),
    Case::target(
        "sequence-11",
        "several commands after one gap run in the order of CmdSN",
        &["7143-4.2.2.1-7"],
        reversed,
    ),
    Case::target(
        "sequence-12",
        "StatSN counts each response, whatever its kind",
        &["7143-4.2.2.2-4"],
        stat_sn,
    ),
    Case::target(
        "sequence-13",
        "the same command twice within the window: the second is dropped, the first runs once",
        &["7143-4.2.2.1-12"],
        duplicate_in_gap,
    ),
    Case::target(
        "sequence-14",
        "an immediate SCSI command is served and does not move ExpCmdSN",
        &["7143-4.2.2.1-21"],
        immediate_scsi,
    ),
];

fn ordered_ping(conn: &mut Conn) -> Pdu {
    conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG).with_data(b"in order")
}

/// TEST UNIT READY.
fn ready() -> Io<'static> {
    Io { cdb: vec![0; 6], ..Io::default() }
}

fn room(conn: &mut Conn, needed: u32) -> Result<(), Stop> {
    conn.expect_alive("7143-4.2.2.1-13")?;
    let room = conn.max_cmd_sn.wrapping_sub(conn.exp_cmd_sn).wrapping_add(1);
    if room < needed { skip(format!("the command window holds {room}, {needed} are needed")) } else { Ok(()) }
}

fn acknowledged(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let sn = conn.cmd_sn;
    let done = conn.run(&ready())?;
    let past = done.last.be32(at::EXP_CMD_SN) == sn.wrapping_add(1);
    holds("7143-4.2.2.1-16", "ExpCmdSN past the command", &done.last, past)
}

fn duplicate(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let ping = ordered_ping(&mut conn);
    conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?;
    let tag = conn.tag();
    conn.send(&ping.set32(at::ITT, tag));
    conn.expect_quiet("7143-4.2.2.1-12", "nothing: the CmdSN was used before")?;
    conn.expect_alive("7143-4.2.2.1-12")
}

fn beyond(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    conn.expect_alive("7143-4.2.2.1-13")?;
    let far = conn.max_cmd_sn.wrapping_add(1);
    let ping = ordered_ping(&mut conn).set32(at::CMD_SN, far);
    conn.cmd_sn = conn.cmd_sn.wrapping_sub(1);
    conn.send(&ping);
    conn.expect_quiet("7143-4.2.2.1-12", "nothing: the CmdSN is beyond MaxCmdSN")?;
    conn.expect_alive("7143-4.2.2.1-12")
}

fn below(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let old = conn.cmd_sn.wrapping_sub(1000);
    let ping = ordered_ping(&mut conn).set32(at::CMD_SN, old);
    conn.cmd_sn = conn.cmd_sn.wrapping_sub(1);
    conn.send(&ping);
    conn.expect_quiet("7143-4.2.2.1-12", "nothing: the CmdSN is below ExpCmdSN")?;
    conn.expect_alive("7143-4.2.2.1-12")
}

fn gap(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    room(&mut conn, 2)?;
    let (one, two) = (ordered_ping(&mut conn), ordered_ping(&mut conn));
    conn.send(&two);
    conn.expect_quiet("7143-4.2.2.1-7", "nothing: an earlier command is missing")?;
    conn.send(&one);
    in_order(&mut conn, &[one.itt(), two.itt()])
}

fn in_order(conn: &mut Conn, tags: &[u32]) -> Outcome {
    for &tag in tags {
        let answer = conn.expect(op::NOP_IN, "7143-4.2.2.1-7", "a NOP-In")?;
        holds("7143-4.2.2.1-7", &format!("ITT {tag:08x} next"), &answer, answer.itt() == tag)?;
    }
    Ok(())
}

fn immediate_over_gap(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    room(&mut conn, 2)?;
    let (one, two) = (ordered_ping(&mut conn), ordered_ping(&mut conn));
    conn.send(&two);
    conn.expect_alive("7143-4.2.2.1-21")?;
    conn.send(&one);
    in_order(&mut conn, &[one.itt(), two.itt()])
}

fn immediate_any_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    conn.expect_alive("7143-4.2.2.1-13")?;
    for sn in [conn.max_cmd_sn.wrapping_add(50), conn.cmd_sn.wrapping_sub(50)] {
        let ping = conn.ping(b"immediate").set32(at::CMD_SN, sn);
        conn.ask(&ping, op::NOP_IN, "7143-4.2.2.1-21", "an answer although CmdSN is outside the window")?;
    }
    Ok(())
}

fn wrap(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    conn.cmd_sn = 0xffff_fffe;
    conn.log_in(&Login::normal(&[]))?;
    for expected in [0xffff_ffff, 0, 1] {
        let ping = ordered_ping(&mut conn);
        let answer = conn.ask(&ping, op::NOP_IN, "7143-4.2.2.1-10", "a NOP-In")?;
        let right = answer.be32(at::EXP_CMD_SN) == expected;
        holds("7143-4.2.2.1-10", &format!("ExpCmdSN {expected:08x}"), &answer, right)?;
    }
    Ok(())
}

fn whole_window(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    room(&mut conn, 1)?;
    let count = conn.max_cmd_sn.wrapping_sub(conn.exp_cmd_sn).wrapping_add(1).min(512);
    let mut tags = Vec::new();
    for _ in 0..count {
        let command = conn.command(&ready());
        tags.push(command.itt());
        conn.send(&command);
    }
    while !tags.is_empty() {
        match conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && tags.contains(&pdu.itt()) => {
                tags.retain(|&tag| tag != pdu.itt());
            }
            got => return got.wrong("7143-4.2.2.1-13", format!("a response to each of {count} commands")),
        }
    }
    Ok(())
}

fn long_run(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    for _ in 0..300 {
        if before(conn.max_cmd_sn, conn.cmd_sn) {
            let got = conn.next()?;
            return got.wrong("7143-4.2.2.1-13", "the window is open once all commands have ended");
        }
        let done = conn.run(&ready())?;
        holds("7143-4.2.2.1-13", "status GOOD", &done.last, done.status() == 0)?;
    }
    Ok(())
}

fn reversed(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    room(&mut conn, 5)?;
    let pings: Vec<Pdu> = (0..5).map(|_| ordered_ping(&mut conn)).collect();
    for ping in pings.iter().rev() {
        conn.send(ping);
    }
    let tags: Vec<u32> = pings.iter().map(Pdu::itt).collect();
    in_order(&mut conn, &tags)
}

fn stat_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let mut next = conn.exp_stat_sn();
    let ping = conn.ping(b"one");
    let mut seen = vec![conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?];
    seen.push(conn.run(&ready())?.last);
    let text = conn.text(F, b"X-org.example.a=b\0");
    seen.push(conn.ask(&text, op::TEXT_RESPONSE, "7143-6.4-3", "a Text Response")?);
    seen.push(conn.run(&ready())?.last);
    for pdu in seen {
        if pdu.be32(at::STAT_SN) != next {
            return wrong("7143-4.2.2.2-4", format!("StatSN {next:08x}"), &pdu);
        }
        next = next.wrapping_add(1);
    }
    Ok(())
}

fn duplicate_in_gap(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    room(&mut conn, 2)?;
    let (one, two) = (ordered_ping(&mut conn), ordered_ping(&mut conn));
    conn.send(&two);
    let tag = conn.tag();
    conn.send(&two.clone().set32(at::ITT, tag));
    conn.send(&one);
    in_order(&mut conn, &[one.itt(), two.itt()])?;
    conn.expect_quiet("7143-4.2.2.1-12", "nothing: the second command had the CmdSN of the first")
}

fn immediate_scsi(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let sn = conn.cmd_sn;
    let command = conn.command(&ready());
    conn.cmd_sn = sn;
    conn.send(&command.set(0, 0x40 | op::SCSI_COMMAND));
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT && pdu.byte(at::RESPONSE) == 6 => {
            skip("the target takes no immediate SCSI commands, as it may (reason 06)")
        }
        Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE => {
            holds("7143-4.2.2.1-21", "ExpCmdSN as before", &pdu, pdu.be32(at::EXP_CMD_SN) == sn)
        }
        got => got.wrong("7143-4.2.2.1-21", "a SCSI Response"),
    }
}
