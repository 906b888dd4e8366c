//! ErrorRecoveryLevel 1 and 2: SNACKs, recovery R2Ts, reassignment (RFC 7143 sections 7.2, 7.8, 11.16).

use super::conn::cdb10;
use super::{Bench, Conn, Io, Login};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

const DATA_SNACK: u8 = 0;
const STATUS_SNACK: u8 = 1;
const DATA_ACK: u8 = 2;
const R_DATA_SNACK: u8 = 3;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "recovery-01",
        "level 1: a Status SNACK brings the response again, StatSN and all",
        &["7143-11.16-2", "7143-11.4.9-1"],
        status_snack,
    ),
    Case::target(
        "recovery-02",
        "level 1: a Status SNACK for a run of responses brings them all",
        &["7143-11.16-1", "7143-11.16-2"],
        status_run,
    ),
    Case::target(
        "recovery-03",
        "level 1: a Data SNACK brings a Data-In again, as it was",
        &["7143-7.8-7", "7143-11.16-5"],
        data_snack,
    ),
    Case::target(
        "recovery-04",
        "level 1: a Data SNACK with RunLength 0 brings all from BegRun on",
        &["7143-11.16-1", "7143-11.16-5"],
        data_snack_rest,
    ),
    Case::target(
        "recovery-05",
        "level 1: R-Data SNACK: the data anew, DataSN from 0, and a response with the SNACK Tag",
        &["7143-11.16.5-2", "7143-11.4.4-2", "7143-11.16.3-2", "7143-11.16.3-3"],
        r_data_snack,
    ),
    Case::target(
        "recovery-06",
        "level 1: a SNACK for what was never sent: Reject with reason 04",
        &["7143-11.16-7"],
        never_sent,
    ),
    Case::target(
        "recovery-07",
        "level 1: a SNACK for what was acknowledged: Reject with reason 04",
        &["7143-11.16-7"],
        acknowledged,
    ),
    Case::target(
        "recovery-08",
        "level 1: a DataACK where A was set is taken in silence",
        &["7143-11.7.2-2", "7143-11.16-1"],
        data_ack,
    ),
    Case::target(
        "recovery-09",
        "level 1: a gap in DataSN of a Data-Out: recovery R2T or CHECK CONDITION",
        &["7143-7.9-2", "7143-7.8-3"],
        data_out_gap,
    )
    .destroys(),
    Case::target(
        "recovery-10",
        "level 1: MaxOutstandingR2T is 1 where DataSequenceInOrder=Yes",
        &["7143-13.19-2"],
        one_r2t,
    ),
    Case::target(
        "recovery-11",
        "level 1: an R2T that got lost comes again after a Data/R2T SNACK",
        &["7143-11.16-4", "7143-7.8-7"],
        r2t_snack,
    )
    .destroys(),
    Case::target(
        "recovery-12",
        "level 2: a recovery Logout, then TASK REASSIGN brings data and status on the new connection",
        &["7143-7.2.2-3", "7143-7.2.2-5", "7143-11.5.1-19", "7143-11.5.6-2", "7143-11.6-1"],
        reassign,
    ),
    Case::target(
        "recovery-13",
        "level 2: TASK REASSIGN of a task whose connection lives: response 3",
        &["7143-7.2.2-8"],
        still_allegiant,
    )
    .destroys(),
    Case::target(
        "recovery-14",
        "level 2: TASK REASSIGN of a task that does not exist: response 1",
        &["7143-11.6.1-4"],
        no_task,
    ),
    Case::target(
        "recovery-15",
        "level 2: a login with the CID of a lost connection is its recovery Logout",
        &["7143-6.3.4-5", "7143-11.14-9"],
        implicit,
    ),
    Case::target(
        "recovery-16",
        "level 2: another connection is taken for recovery although MaxConnections is 1",
        &["7143-6.3.4-2"],
        second_for_recovery,
    ),
    Case::target(
        "recovery-17",
        "level 2: the recovery Logout tells Time2Wait and Time2Retain as negotiated at most",
        &["7143-7.5-3", "7143-11.15.3-1"],
        times,
    ),
];

fn snack(conn: &Conn, kind: u8, itt: u32, tag: u32, from: u32, run: u32) -> Pdu {
    Pdu::new(op::SNACK)
        .set(at::FLAGS, F | kind)
        .set32(at::ITT, itt)
        .set32(at::TTT, tag)
        .set32(at::EXP_STAT_SN, conn.exp_stat_sn())
        .set32(at::BEG_RUN, from)
        .set32(at::RUN_LENGTH, run)
}

/// The same but for the fields that carry current values.
fn same(a: &Pdu, b: &Pdu) -> bool {
    let plain = |pdu: &Pdu| pdu.clone().set32(at::EXP_CMD_SN, 0).set32(at::MAX_CMD_SN, 0);
    plain(a) == plain(b)
}

fn disk(bench: &Bench, level: u8, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
    let mut conn = bench.level(level, keys)?;
    conn.make_ready()?;
    Ok(conn)
}

fn status_snack(bench: &Bench) -> Outcome {
    let mut conn = disk(bench, 1, &[])?;
    let old = conn.exp_stat_sn();
    let done = conn.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
    let snack = snack(&conn, STATUS_SNACK, NO_TAG, NO_TAG, old, 1).set32(at::EXP_STAT_SN, old);
    conn.send(&snack);
    let again = conn.expect(op::SCSI_RESPONSE, "7143-11.16-2", "the SCSI Response again")?;
    holds("7143-11.4.9-1", "the response as it was", &again, same(&again, &done.last))?;
    conn.expect_alive("7143-11.16-2")
}

fn status_run(bench: &Bench) -> Outcome {
    let mut conn = disk(bench, 1, &[])?;
    let old = conn.exp_stat_sn();
    let mut sent = Vec::new();
    for _ in 0..3 {
        // No acknowledgment in between: ExpStatSN stays.
        let command = conn.command(&Io { cdb: vec![0; 6], ..Io::default() }).set32(at::EXP_STAT_SN, old);
        conn.send(&command);
        sent.push(conn.finish(&command, &Io::default())?.last);
    }
    let snack = snack(&conn, STATUS_SNACK, NO_TAG, NO_TAG, old, 3).set32(at::EXP_STAT_SN, old);
    conn.send(&snack);
    for first in &sent {
        let again = conn.expect(op::SCSI_RESPONSE, "7143-11.16-2", "the SCSI Responses again")?;
        holds("7143-11.16-2", "the responses as they were, in order", &again, same(&again, first))?;
    }
    Ok(())
}

/// A read whose status is not yet acknowledged.
fn read(bench: &Bench) -> Result<(Conn, u32, Vec<Pdu>, Pdu), Stop> {
    let keys = [("MaxRecvDataSegmentLength", "512")];
    let mut conn = disk(bench, 1, &keys)?;
    let (_, size) = conn.capacity()?;
    let blocks = u16::try_from(4096 / size).unwrap_or(1).max(1);
    let old = conn.exp_stat_sn();
    let io = Io { cdb: cdb10(0x28, 0, blocks), read: Some(u32::from(blocks) * size), ..Io::default() };
    let command = conn.command(&io);
    conn.send(&command);
    let done = conn.finish(&command, &io)?;
    if done.ins.len() < 4 {
        return skip("the read came in less than four Data-Ins");
    }
    conn.stat_sn = Some(old);
    Ok((conn, command.itt(), done.ins, done.last))
}

fn data_snack(bench: &Bench) -> Outcome {
    let (mut conn, itt, ins, _) = read(bench)?;
    let snack = snack(&conn, DATA_SNACK, itt, NO_TAG, 1, 2);
    conn.send(&snack);
    for first in &ins[1..3] {
        let again = conn.expect(op::DATA_IN, "7143-7.8-7", "the Data-Ins again")?;
        holds("7143-11.16-5", "the Data-In as it was", &again, same(&again, first))?;
    }
    conn.expect_quiet("7143-7.8-7", "these two only")
}

fn data_snack_rest(bench: &Bench) -> Outcome {
    let (mut conn, itt, ins, _) = read(bench)?;
    let snack = snack(&conn, DATA_SNACK, itt, NO_TAG, 2, 0);
    conn.send(&snack);
    for first in &ins[2..] {
        let again = conn.expect(op::DATA_IN, "7143-11.16-1", "all Data-Ins from number 2 on")?;
        holds("7143-11.16-5", "the Data-In as it was", &again, again.data == first.data)?;
    }
    Ok(())
}

fn r_data_snack(bench: &Bench) -> Outcome {
    let (mut conn, itt, ins, _) = read(bench)?;
    let unacknowledged = conn.exp_stat_sn();
    let text = conn.text(F, b"MaxRecvDataSegmentLength=1024\0");
    let answer = conn.ask(&text, op::TEXT_RESPONSE, "7143-13.12-2", "a Text Response")?;
    if answer.flags() & F == 0 {
        return skip("the target does not end the negotiation of MaxRecvDataSegmentLength");
    }
    conn.segment = 1024;
    // The Text Response came behind the status, which must not be acknowledged: that would be for the data as well.
    conn.stat_sn = Some(unacknowledged);
    let all: Vec<u8> = ins.iter().flat_map(|pdu| pdu.data.iter().copied()).collect();
    let snack = snack(&conn, R_DATA_SNACK, itt, 0x00c0_ffee, 0, 0);
    conn.send(&snack);
    let (rule, mut again, mut count) = ("7143-11.16.3-2", Vec::new(), 0);
    loop {
        match conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::DATA_IN && pdu.itt() == itt => {
                holds(rule, &format!("DataSN {count}"), &pdu, pdu.be32(at::DATA_SN) == count)?;
                let offset = again.len();
                holds(
                    rule,
                    &format!("Buffer Offset {offset}"),
                    &pdu,
                    pdu.be32(at::OFFSET) as usize == offset,
                )?;
                holds("7143-11.7.1-2", "1024 bytes at most", &pdu, pdu.data.len() <= 1024)?;
                again.extend_from_slice(&pdu.data);
                let same = all.get(offset..again.len()) == Some(&pdu.data[..]);
                holds(rule, "the data of the first time", &pdu, same)?;
                count += 1;
            }
            Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && pdu.itt() == itt => {
                holds("7143-11.16.5-2", "the SNACK Tag 00c0ffee", &pdu, pdu.ttt() == 0x00c0_ffee)?;
                let got = again.len();
                return holds(
                    "7143-11.16.3-3",
                    &format!("{} bytes again before the response", all.len()),
                    &pdu,
                    got == all.len(),
                );
            }
            got => return got.wrong("7143-11.16.3-3", "Data-Ins and a SCSI Response"),
        }
    }
}

fn rejected_as_protocol_error(conn: &mut Conn, snack: &Pdu) -> Outcome {
    conn.send(snack);
    let reject = conn.expect(op::REJECT, "7143-11.16-7", "a Reject with reason 04")?;
    holds("7143-11.16-7", "reason 04", &reject, reject.byte(at::RESPONSE) == 4)
}

fn never_sent(bench: &Bench) -> Outcome {
    let mut conn = bench.level(1, &[])?;
    let ahead = conn.exp_stat_sn().wrapping_add(100);
    let snack = snack(&conn, STATUS_SNACK, NO_TAG, NO_TAG, ahead, 1);
    rejected_as_protocol_error(&mut conn, &snack)
}

fn acknowledged(bench: &Bench) -> Outcome {
    let mut conn = disk(bench, 1, &[])?;
    let old = conn.exp_stat_sn();
    conn.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
    // This acknowledges the response.
    conn.expect_alive("7143-11.18.1-3")?;
    let snack = snack(&conn, STATUS_SNACK, NO_TAG, NO_TAG, old, 1);
    rejected_as_protocol_error(&mut conn, &snack)
}

fn data_ack(bench: &Bench) -> Outcome {
    let (mut conn, _, ins, last) = read(bench)?;
    let Some(asks) = ins.iter().find(|pdu| pdu.flags() & 0x40 != 0) else {
        return skip("the target set A in no Data-In, as it may");
    };
    let lun = asks.bhs[at::LUN..at::LUN + 8] == bench.peer.lun_field();
    holds("7143-11.7.4-1", "a Target Transfer Tag and the LUN with A", asks, asks.ttt() != NO_TAG && lun)?;
    let next = asks.be32(at::DATA_SN).wrapping_add(1);
    let ack =
        snack(&conn, DATA_ACK, NO_TAG, asks.ttt(), next, 0).bytes(at::LUN, &asks.bhs[at::LUN..at::LUN + 8]);
    conn.send(&ack);
    conn.stat_sn = Some(last.be32(at::STAT_SN).wrapping_add(1));
    conn.expect_quiet("7143-11.16-1", "no answer to a DataACK")?;
    conn.expect_alive("7143-11.16-1")
}

/// A write that waits for the answer to its R2T.
fn waiting(bench: &Bench, level: u8) -> Result<(Conn, Pdu, Pdu, Vec<u8>), Stop> {
    let keys = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxConnections", "2")];
    let mut conn = disk(bench, level, &keys)?;
    let (_, size) = conn.capacity()?;
    let blocks = u16::try_from(4096 / size).unwrap_or(1).max(1);
    let data = vec![0x42; usize::from(blocks) * size as usize];
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let command = conn.command(&Io { cdb: cdb10(0x2a, 8, blocks), write: Some(len), ..Io::default() });
    conn.send(&command);
    let r2t = conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
    Ok((conn, command, r2t, data))
}

fn data_out_gap(bench: &Bench) -> Outcome {
    let (mut conn, command, r2t, data) = waiting(bench, 1)?;
    let lun = r2t.bhs[at::LUN..at::LUN + 8].to_vec();
    let one = conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data[..512]).bytes(at::LUN, &lun);
    let three = conn.data_out(command.itt(), r2t.ttt(), 2, 1024, &data[1024..]).bytes(at::LUN, &lun);
    conn.send(&one);
    conn.send(&three.set(at::FLAGS, F));
    let done = conn.finish(&command, &Io { data: &data, ..Io::default() })?;
    let right = if done.r2ts.is_empty() { done.status() == 2 } else { done.status() == 0 };
    holds("7143-7.9-2", "GOOD after a recovery R2T, or CHECK CONDITION", &done.last, right)
}

fn one_r2t(bench: &Bench) -> Outcome {
    let conn = bench.level(1, &[("MaxOutstandingR2T", "8"), ("DataSequenceInOrder", "Yes")])?;
    match conn.result("MaxOutstandingR2T") {
        Some("1") => Ok(()),
        got => super::bad_result("7143-13.19-2", "MaxOutstandingR2T", "1", got),
    }
}

fn r2t_snack(bench: &Bench) -> Outcome {
    let (mut conn, command, r2t, data) = waiting(bench, 1)?;
    let snack = snack(&conn, DATA_SNACK, command.itt(), NO_TAG, 0, 1);
    conn.send(&snack);
    let again = conn.expect(op::R2T, "7143-7.8-7", "the R2T again")?;
    let plain = |pdu: &Pdu| pdu.clone().set32(at::STAT_SN, 0);
    holds("7143-11.16-4", "the R2T as it was", &again, same(&plain(&again), &plain(&r2t)))?;
    let done = {
        let part = data[..r2t.be32(at::DESIRED) as usize].to_vec();
        conn.answer_r2t(&again, &part);
        conn.finish(&command, &Io { data: &data, ..Io::default() })?
    };
    holds("7143-7.8-7", "GOOD", &done.last, done.status() == 0)
}

/// A connection more in a session at level 2.
fn join(bench: &Bench, first: &Conn, cid: u16) -> Result<Conn, Stop> {
    let mut conn = first.sibling(bench, cid)?;
    conn.security(&Login::normal(&[]))?;
    conn.operational(&[])?;
    conn.stat_sn = conn.stat_sn.or(Some(0));
    Ok(conn)
}

fn recovery_logout(conn: &mut Conn, cid: u16) -> Result<Pdu, Stop> {
    let (rule, request) =
        ("7143-11.15.1-1", conn.request(0x40 | op::LOGOUT_REQUEST, F | 2).set16(at::CID, cid));
    conn.send(&request);
    let answer = loop {
        match conn.next()? {
            // The target noticed the loss itself, and says so: event 2 is about the connection that is gone.
            Got::Pdu(pdu) if pdu.opcode() == op::ASYNC && pdu.byte(at::ASYNC_EVENT) == 2 => (),
            Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_RESPONSE => break pdu,
            got => return got.wrong(rule, "a Logout Response"),
        }
    };
    let right = answer.itt() == request.itt() && answer.byte(at::RESPONSE) == 0;
    holds(rule, "response 0 to this Logout Request", &answer, right)?;
    Ok(answer)
}

fn reassign_request(conn: &mut Conn, tag: u32) -> Pdu {
    conn.function(8).bytes(at::LUN, &[0; 8]).set32(at::REF_TAG, tag)
}

fn reassign(bench: &Bench) -> Outcome {
    let mut one = disk(bench, 2, &[])?;
    let (_, size) = one.capacity()?;
    let io = Io { cdb: cdb10(0x28, 0, 1), read: Some(size), ..Io::default() };
    let command = one.command(&io);
    one.send(&command);
    // The status comes, is not acknowledged, and counts as lost with the connection.
    let first = one.finish(&command, &io)?;
    holds("7143-7.2.2-5", "GOOD at first", &first.last, first.status() == 0)?;
    one.wire.close();
    let mut two = join(bench, &one, 1)?;
    two.cmd_sn = one.cmd_sn;
    recovery_logout(&mut two, 0)?;
    let request = reassign_request(&mut two, command.itt());
    let answer = two.ask(&request, op::TASK_RESPONSE, "7143-11.6-1", "the function's response first")?;
    holds("7143-7.2.2-5", "response 0", &answer, answer.byte(at::RESPONSE) == 0)?;
    let done = two.finish(&command, &io)?;
    holds("7143-7.2.2-5", "the status of the read on the new connection", &done.last, done.status() == 0)?;
    // ExpDataSN of the request was 0, and no DataACK went: all of the data is due again.
    if done.data == first.data && done.data.len() == size as usize {
        return Ok(());
    }
    fail("7143-11.5.6-2", format!("the {size} bytes of the read again"), format!("{} bytes", done.data.len()))
}

fn still_allegiant(bench: &Bench) -> Outcome {
    let (mut one, command, r2t, data) = waiting(bench, 2)?;
    let mut two = match join(bench, &one, 1) {
        Ok(two) => two,
        Err(Stop::Error(why)) => return skip(format!("no second connection: {why}")),
        Err(stop) => return Err(stop),
    };
    two.cmd_sn = one.cmd_sn;
    let request = reassign_request(&mut two, command.itt());
    let answer = two.ask(&request, op::TASK_RESPONSE, "7143-7.2.2-8", "a response")?;
    holds("7143-7.2.2-8", "response 3", &answer, answer.byte(at::RESPONSE) == 3)?;
    let part = data[..r2t.be32(at::DESIRED) as usize].to_vec();
    one.answer_r2t(&r2t, &part);
    let done = one.finish(&command, &Io { data: &data, ..Io::default() })?;
    holds("7143-7.2.2-8", "GOOD: the write goes on", &done.last, done.status() == 0)
}

fn no_task(bench: &Bench) -> Outcome {
    let mut conn = bench.level(2, &[])?;
    let request = reassign_request(&mut conn, 0x7777);
    let answer = conn.ask(&request, op::TASK_RESPONSE, "7143-11.6.1-4", "a response")?;
    holds("7143-11.6.1-4", "response 1", &answer, answer.byte(at::RESPONSE) == 1)
}

fn implicit(bench: &Bench) -> Outcome {
    let mut one = disk(bench, 2, &[])?;
    let io = Io { cdb: vec![0; 6], ..Io::default() };
    let command = one.command(&io);
    one.send(&command);
    one.finish(&command, &io)?;
    one.wire.close();
    let mut again = join(bench, &one, 0)?;
    again.cmd_sn = one.cmd_sn;
    let request = reassign_request(&mut again, command.itt());
    let answer = again.ask(&request, op::TASK_RESPONSE, "7143-11.14-9", "a response")?;
    holds("7143-6.3.4-5", "response 0: the task waited", &answer, answer.byte(at::RESPONSE) == 0)?;
    let done = again.finish(&command, &io)?;
    holds("7143-7.2.2-5", "GOOD on the new connection", &done.last, done.status() == 0)
}

fn second_for_recovery(bench: &Bench) -> Outcome {
    let mut one = bench.level(2, &[("MaxConnections", "1")])?;
    one.wire.close();
    let mut two = match join(bench, &one, 1) {
        Ok(two) => two,
        Err(Stop::Error(why)) => return fail("7143-6.3.4-2", "a second connection for recovery", why),
        Err(stop) => return Err(stop),
    };
    recovery_logout(&mut two, 0).map(drop)
}

fn times(bench: &Bench) -> Outcome {
    let mut one = bench.level(2, &[("DefaultTime2Wait", "1"), ("DefaultTime2Retain", "10")])?;
    let (wait, retain) = (one.result_or("DefaultTime2Wait", 2), one.result_or("DefaultTime2Retain", 20));
    one.wire.close();
    let mut two = join(bench, &one, 1)?;
    let answer = recovery_logout(&mut two, 0)?;
    let right = u32::from(answer.be16(at::TIME2WAIT)) <= wait;
    holds("7143-7.5-3", &format!("Time2Wait of at most {wait} s"), &answer, right)?;
    let right = u32::from(answer.be16(at::TIME2WAIT + 2)) <= retain;
    holds("7143-11.15.3-1", &format!("Time2Retain of at most {retain} s"), &answer, right)
}
