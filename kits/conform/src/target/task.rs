//! Task management (RFC 7143 sections 11.5 and 11.6, RFC 7144 section 6).

use super::conn::cdb10;
use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

const ABORT_TASK: u8 = 1;
const ABORT_TASK_SET: u8 = 2;
const CLEAR_ACA: u8 = 3;
const CLEAR_TASK_SET: u8 = 4;
const LU_RESET: u8 = 5;
const WARM_RESET: u8 = 6;
const COLD_RESET: u8 = 7;
const TASK_REASSIGN: u8 = 8;
const QUERY_TASK: u8 = 9;
const QUERY_TASK_SET: u8 = 10;
const I_T_NEXUS_RESET: u8 = 11;
const QUERY_ASYNC: u8 = 12;

const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_LUN: u8 = 2;
const UNSUPPORTED: u8 = 5;
const UNAUTHORISED: u8 = 6;
const SUCCEEDED: u8 = 7;
const REJECTED: u8 = 255;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "task-01",
        "ABORT TASK of a task that is over: response 1",
        &["7143-7.11-4", "7143-11.6.1-3"],
        abort_of_what_is_over,
    ),
    Case::target(
        "task-02",
        "ABORT TASK of a command that got lost: response 0, its CmdSN counts as received",
        &["7143-7.11-3", "7143-11.6.1-3"],
        abort_of_missing,
    ),
    Case::target(
        "task-03",
        "ABORT TASK of a write that waits for data: response 0, no response of the write after it",
        &["7143-11.5.1-4", "7143-11.6.1-3"],
        abort_of_write,
    )
    .destroys(),
    Case::target("task-04", "ABORT TASK SET: response 0", &["7143-11.5.1-1", "7143-11.6.1-2"], |b| {
        plain(b, ABORT_TASK_SET, &[COMPLETE])
    }),
    Case::target(
        "task-05",
        "ABORT TASK SET ends a write once its data has come",
        &["7143-4.2.3.3-7", "7143-11.5.1-7", "7143-11.6.1-2"],
        abort_set_of_write,
    )
    .destroys(),
    Case::target("task-06", "CLEAR ACA: response 0, 5 or 255", &["7143-11.5.1-1", "7143-11.6.1-4"], |b| {
        plain(b, CLEAR_ACA, &[COMPLETE, UNSUPPORTED, REJECTED])
    }),
    Case::target("task-07", "CLEAR TASK SET: response 0", &["7143-11.5.1-1", "7143-11.6.1-2"], |b| {
        plain(b, CLEAR_TASK_SET, &[COMPLETE, UNSUPPORTED])
    })
    .destroys(),
    Case::target(
        "task-08",
        "LOGICAL UNIT RESET: response 0, then the logical unit answers again",
        &["7143-11.5.1-1", "7143-11.5.1-14"],
        reset,
    )
    .destroys(),
    Case::target(
        "task-09",
        "TARGET WARM RESET: response 0, 5 or 6",
        &["7143-11.5.1-1", "7143-11.5.1-16"],
        |b| plain(b, WARM_RESET, &[COMPLETE, UNSUPPORTED, UNAUTHORISED, REJECTED]),
    )
    .destroys(),
    Case::target(
        "task-10",
        "TARGET COLD RESET: response 5 or 6, or response 0 and the end of all connections",
        &["7143-11.5.1-17", "7143-11.6.1-1"],
        cold_reset,
    )
    .destroys(),
    Case::target("task-11", "a LUN that does not exist: response 2", &["7143-11.6.1-4"], no_lun),
    Case::target(
        "task-12",
        "TASK REASSIGN below ErrorRecoveryLevel 2: response 4",
        &["7143-7.2.2-7"],
        reassign,
    ),
    Case::target(
        "task-13",
        "ABORT TASK aimed at a task management request: response 255",
        &["7143-11.5.1-13", "7143-11.5.1-12"],
        abort_of_function,
    ),
    Case::target(
        "task-14",
        "an immediate function is answered although commands before it are missing, if they are not its business",
        &["7143-11.5.1-24"],
        over_gap,
    ),
    Case::target(
        "task-15",
        "a function below iSCSIProtocolLevel 2 that needs it is refused",
        &["7143-11-3", "7144-4.1-1"],
        query_below_level,
    ),
    Case::target(
        "task-16",
        "level 2, QUERY TASK of a task that is over: response 0",
        &["7144-4.1-2", "7144-6.4.2-2"],
        |b| level_2(b, QUERY_TASK, &[COMPLETE, UNSUPPORTED]),
    ),
    Case::target(
        "task-17",
        "level 2, QUERY TASK of a write that waits: response 7",
        &["7144-6.4.2-2"],
        query_of_write,
    )
    .destroys(),
    Case::target(
        "task-18",
        "level 2, QUERY TASK SET without tasks: response 0",
        &["7144-4.1-2", "7144-6.4.2-3"],
        |b| level_2(b, QUERY_TASK_SET, &[COMPLETE, UNSUPPORTED]),
    ),
    Case::target(
        "task-19",
        "level 2, QUERY ASYNCHRONOUS EVENT: response 0, 7 or 5",
        &["7144-4.1-2", "7144-6.4.2-4"],
        |b| level_2(b, QUERY_ASYNC, &[COMPLETE, SUCCEEDED, UNSUPPORTED]),
    ),
    Case::target(
        "task-20",
        "level 2, I_T NEXUS RESET: response 0 and the end of the session's connections, or 5",
        &["7144-6.3-12", "7144-6.4.2-5"],
        nexus_reset,
    ),
    Case::target(
        "task-21",
        "LOGICAL UNIT RESET ends a write that waits for data",
        &["7143-11.5.1-14", "7143-11.5.1-4"],
        reset_of_write,
    )
    .destroys(),
    Case::target(
        "task-22",
        "RefCmdSN of a command that was never sent and is beyond the window: response 255 or 1",
        &["7143-11.6.1-3"],
        abort_beyond,
    ),
];

fn asked(conn: &mut Conn, request: &Pdu) -> Result<Pdu, Stop> {
    conn.ask(request, op::TASK_RESPONSE, "7143-11.5.1-1", "a Task Management Function Response")
}

fn answer_in(conn: &mut Conn, request: &Pdu, rule: &str, right: &[u8]) -> Result<u8, Stop> {
    let answer = asked(conn, request)?;
    let got = answer.byte(at::RESPONSE);
    holds(rule, &format!("a response of {right:?}"), &answer, right.contains(&got))?;
    Ok(got)
}

fn plain(bench: &Bench, function: u8, right: &[u8]) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let request = conn.function(function);
    let got = answer_in(&mut conn, &request, "7143-11.6.1-4", right)?;
    if got == UNSUPPORTED && function == CLEAR_TASK_SET {
        return skip("the target does not have CLEAR TASK SET, as response 5 tells");
    }
    conn.expect_alive("7143-11.5.1-1")
}

fn abort(conn: &mut Conn, tag: u32, sn: u32) -> Pdu {
    conn.function(ABORT_TASK).set32(at::REF_TAG, tag).set32(at::REF_CMD_SN, sn)
}

fn abort_of_what_is_over(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() });
    conn.send(&command);
    conn.finish(&command, &Io::default())?;
    let request = abort(&mut conn, command.itt(), command.be32(at::CMD_SN));
    answer_in(&mut conn, &request, "7143-7.11-4", &[NO_TASK]).map(drop)
}

fn abort_of_missing(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    // This command is never sent.
    let lost = conn.command(&Io { cdb: vec![0; 6], ..Io::default() });
    let request = abort(&mut conn, lost.itt(), lost.be32(at::CMD_SN));
    let answer = asked(&mut conn, &request)?;
    holds("7143-7.11-3", "response 0", &answer, answer.byte(at::RESPONSE) == COMPLETE)?;
    let ping = conn.ping(b"where are we?");
    let answer = conn.ask(&ping, op::NOP_IN, "7143-7.11-3", "the session goes on")?;
    let past = lost.be32(at::CMD_SN).wrapping_add(1);
    holds("7143-7.11-3", "ExpCmdSN past the lost command", &answer, answer.be32(at::EXP_CMD_SN) == past)
}

/// A write that waits for the answer to its R2T.
fn waiting(bench: &Bench, keys: &[(&str, &str)]) -> Result<(Conn, Pdu, Pdu, u32), Stop> {
    let all = [&[("InitialR2T", "Yes"), ("ImmediateData", "No")], keys].concat();
    let mut conn = bench.disk(&all)?;
    let (_, size) = conn.capacity()?;
    let command = conn.command(&Io { cdb: cdb10(0x2a, 8, 1), write: Some(size), ..Io::default() });
    conn.send(&command);
    let r2t = conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
    Ok((conn, command, r2t, size))
}

fn abort_of_write(bench: &Bench) -> Outcome {
    let (mut conn, command, r2t, size) = waiting(bench, &[])?;
    let request = abort(&mut conn, command.itt(), command.be32(at::CMD_SN));
    answer_in(&mut conn, &request, "7143-11.6.1-3", &[COMPLETE])?;
    // Data that is still on its way is dropped (section 10.7).
    conn.answer_r2t(&r2t, &vec![0; size as usize]);
    loop {
        match conn.next_within(bench.quiet)? {
            Got::Silence => return conn.expect_alive("7143-11.5.1-4"),
            Got::Pdu(pdu) if pdu.opcode() == op::REJECT => (),
            got => return got.wrong("7143-11.5.1-4", "no response of the aborted write"),
        }
    }
}

/// The function's response, with the write's own response perhaps before it; the R2T is answered at once, as the
/// standard semantics demand.
fn function_over_write(bench: &Bench, function: u8) -> Outcome {
    let (mut conn, command, r2t, size) = waiting(bench, &[])?;
    let request = conn.function(function);
    conn.send(&request);
    conn.answer_r2t(&r2t, &vec![0; size as usize]);
    loop {
        match conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE => {
                let code = pdu.byte(at::RESPONSE);
                if code == UNSUPPORTED {
                    return skip("the target does not have the function, as response 5 tells");
                }
                holds("7143-11.6.1-2", "response 0", &pdu, code == COMPLETE)?;
                break;
            }
            Got::Pdu(pdu) if pdu.itt() == command.itt() || pdu.opcode() == op::REJECT => (),
            got => return got.wrong("7143-11.5.1-1", "a Task Management Function Response"),
        }
    }
    match conn.next_within(bench.quiet)? {
        Got::Pdu(pdu) if pdu.itt() == command.itt() => {
            Got::Pdu(pdu).wrong("7143-11.5.1-4", "no response of the write after that of the function")
        }
        _ => conn.expect_alive("7143-11.5.1-4"),
    }
}

fn abort_set_of_write(bench: &Bench) -> Outcome {
    function_over_write(bench, ABORT_TASK_SET)
}

fn reset_of_write(bench: &Bench) -> Outcome {
    function_over_write(bench, LU_RESET)
}

fn reset(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let request = conn.function(LU_RESET);
    answer_in(&mut conn, &request, "7143-11.5.1-14", &[COMPLETE])?;
    conn.make_ready()
}

fn cold_reset(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let mut other = bench.session(&[])?;
    let request = conn.function(COLD_RESET).bytes(at::LUN, &[0; 8]);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => (),
        Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE => match pdu.byte(at::RESPONSE) {
            UNSUPPORTED | UNAUTHORISED | REJECTED => return conn.expect_alive("7143-11.5.1-1"),
            COMPLETE => conn.expect_closed("7143-11.6.1-1", "the connection is closed")?,
            _ => return Got::Pdu(pdu).wrong("7143-11.6.1-4", "response 0, 5, 6 or 255"),
        },
        got => return got.wrong("7143-11.5.1-1", "a Task Management Function Response"),
    }
    other.expect_closed("7143-11.6.1-1", "connections of other sessions are closed as well")?;
    // The reset takes the connections one by one, and may rightly take one that comes while it is under way: the next case's.
    std::thread::sleep(bench.quiet);
    Ok(())
}

fn no_lun(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.function(LU_RESET).bytes(at::LUN, &[0, 0xfd, 0, 0, 0, 0, 0, 0]);
    answer_in(&mut conn, &request, "7143-11.6.1-4", &[NO_LUN]).map(drop)
}

fn reassign(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[("ErrorRecoveryLevel", "0")])?;
    let request = conn.function(TASK_REASSIGN).set32(at::REF_TAG, 0x1234).bytes(at::LUN, &[0; 8]);
    answer_in(&mut conn, &request, "7143-7.2.2-7", &[4]).map(drop)
}

/// A request that waits behind a gap is aimed at.
fn abort_of_function(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let lost = conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG);
    let lun = bench.peer.lun_field();
    let held =
        conn.request(op::TASK_REQUEST, F | ABORT_TASK_SET).bytes(at::LUN, &lun).set32(at::REF_TAG, NO_TAG);
    conn.send(&held);
    let request = abort(&mut conn, held.itt(), held.be32(at::CMD_SN));
    conn.send(&request);
    let answer = conn.next()?;
    conn.send(&lost);
    match answer {
        Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE && pdu.itt() == request.itt() => {
            holds("7143-11.5.1-13", "response 255", &pdu, pdu.byte(at::RESPONSE) == REJECTED)
        }
        got => got.wrong("7143-11.5.1-13", "response 255"),
    }
}

fn over_gap(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let lost = conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG);
    // Aimed at a tag that is not in use, and at a CmdSN that was served.
    let request = abort(&mut conn, 0x7777, lost.be32(at::CMD_SN).wrapping_sub(1));
    answer_in(&mut conn, &request, "7143-11.5.1-24", &[NO_TASK, REJECTED])?;
    conn.ask(&lost, op::NOP_IN, "7143-4.2.2.1-7", "the gap can be filled").map(drop)
}

fn abort_beyond(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let beyond = conn.max_cmd_sn.wrapping_add(100);
    let request = abort(&mut conn, 0x7777, beyond);
    answer_in(&mut conn, &request, "7143-11.6.1-3", &[NO_TASK, REJECTED]).map(drop)
}

fn query_below_level(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.function(QUERY_TASK_SET);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE => holds(
            "7144-4.1-1",
            "response 5 or 255",
            &pdu,
            matches!(pdu.byte(at::RESPONSE), UNSUPPORTED | REJECTED),
        ),
        got => got.wrong("7143-11-3", "a Reject, or response 5 or 255"),
    }
}

fn at_level_2(conn: &Conn) -> Outcome {
    match conn.result("iSCSIProtocolLevel") {
        Some("2") => Ok(()),
        got => skip(format!("iSCSIProtocolLevel=2 was offered, {got:?} answered")),
    }
}

fn level_2(bench: &Bench, function: u8, right: &[u8]) -> Outcome {
    let mut conn = bench.disk(&[("iSCSIProtocolLevel", "2")])?;
    at_level_2(&conn)?;
    let request = conn.function(function);
    let request = if function == QUERY_TASK {
        request.set32(at::REF_TAG, 0x7777).set32(at::REF_CMD_SN, conn.cmd_sn.wrapping_sub(1))
    } else {
        request
    };
    answer_in(&mut conn, &request, "7144-4.1-2", right)?;
    conn.expect_alive("7144-6.3-3")
}

fn query_of_write(bench: &Bench) -> Outcome {
    let (mut conn, command, r2t, size) = waiting(bench, &[("iSCSIProtocolLevel", "2")])?;
    at_level_2(&conn)?;
    let request = conn.function(QUERY_TASK).set32(at::REF_TAG, command.itt());
    let request = request.set32(at::REF_CMD_SN, command.be32(at::CMD_SN));
    if answer_in(&mut conn, &request, "7144-6.4.2-2", &[SUCCEEDED, UNSUPPORTED])? == UNSUPPORTED {
        return skip("the target does not have QUERY TASK, as response 5 tells");
    }
    let request = conn.function(QUERY_TASK_SET);
    answer_in(&mut conn, &request, "7144-6.4.2-3", &[SUCCEEDED])?;
    conn.answer_r2t(&r2t, &vec![0; size as usize]);
    let done = conn.finish(&command, &Io::default())?;
    holds("7144-6.3-4", "GOOD: the write goes on", &done.last, done.status() == 0)
}

fn nexus_reset(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[("iSCSIProtocolLevel", "2")])?;
    at_level_2(&conn)?;
    let request = conn.function(I_T_NEXUS_RESET).bytes(at::LUN, &[0; 8]);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TASK_RESPONSE => match pdu.byte(at::RESPONSE) {
            UNSUPPORTED => skip("the target does not have I_T NEXUS RESET, as response 5 tells"),
            COMPLETE => conn.expect_closed("7144-6.3-12", "the connection is closed"),
            code => fail("7144-6.4.2-5", "response 0 or 5", format!("response {code}")),
        },
        got => got.wrong("7144-6.4.2-5", "a Task Management Function Response"),
    }
}
