//! Reads, residuals, status and sense (RFC 7143 sections 11.4 and 11.7).

use super::conn::{Done, cdb10, inquiry};
use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "read-01",
        "fewer bytes than expected: U, and the difference as Residual Count",
        &["7143-11.4.5.2-3", "7143-11.4.5.2-4"],
        underflow,
    ),
    Case::target(
        "read-02",
        "more bytes than expected: O, and the difference as Residual Count",
        &["7143-11.4.5.2-1", "7143-11.4.5.2-2"],
        overflow,
    ),
    Case::target(
        "read-03",
        "as many bytes as expected: neither O nor U",
        &["7143-11.4.5.1-3", "7143-11.4.5.2-1"],
        exact,
    ),
    Case::target(
        "read-04",
        "DataSN counts from 0, offsets follow each other, the last Data-In has F",
        &["7143-4.2.2.4-1", "7143-11.7.6-2"],
        numbering,
    ),
    Case::target(
        "read-05",
        "a sequence of Data-Ins ends with F at MaxBurstLength at the latest",
        &["7143-11.7.1-3"],
        bursts,
    ),
    Case::target(
        "read-06",
        "no Data-In is longer than our MaxRecvDataSegmentLength",
        &["7143-11.7.1-2"],
        segments,
    ),
    Case::target(
        "read-07",
        "ExpDataSN of the response is the number of Data-Ins",
        &["7143-11.4.8-1"],
        exp_data_sn,
    ),
    Case::target(
        "read-08",
        "a read beyond the end: CHECK CONDITION with sense data in a SCSI Response",
        &["7143-11.7.3-1", "7143-11.4.7-2"],
        beyond_the_end,
    ),
    Case::target(
        "read-09",
        "an unknown operation code: CHECK CONDITION, ILLEGAL REQUEST",
        &["7143-11.4.7-2", "7143-4.6.1.2-1"],
        unknown_operation,
    ),
    Case::target(
        "read-10",
        "a read whose expected length is 0: no data, O",
        &["7143-11.4.5.2-1", "7143-11.7.6-1"],
        nothing_expected,
    ),
    Case::target(
        "read-11",
        "an allocation length that cuts is no overflow",
        &["7143-11.4.5.3-1"],
        cut_by_allocation,
    ),
    Case::target(
        "read-12",
        "expected length above the allocation length: U",
        &["7143-11.4.5.3-2"],
        expected_above_allocation,
    ),
    Case::target(
        "read-13",
        "a command to a logical unit that does not exist",
        &["7143-11.2.1.7-1"],
        no_such_lun,
    ),
    Case::target(
        "read-14",
        "REPORT LUNS lists the logical unit under test in the format of the LUN field",
        &["7143-11.2.1.7-1"],
        report_luns,
    ),
    Case::target(
        "read-15",
        "reads that are under way together all get their own data",
        &["7143-4.2.5.3-1", "7143-11.2.1.8-1"],
        several,
    ),
    Case::target(
        "read-16",
        "a Data-In of odd length is padded; its length is not",
        &["7143-11.2-5", "7143-11.2.1.6-1"],
        odd_length,
    ),
    Case::target("read-17", "all task attributes are served", &["7143-11.3.1-4"], attributes),
    Case::target(
        "read-18",
        "U with a Residual Count as well where no data comes at all",
        &["7143-11.4.5.2-3", "7143-11.4.5.2-4"],
        no_data_at_all,
    ),
];

fn read(bench: &Bench, keys: &[(&str, &str)], bytes: u32) -> Result<(Conn, Done), Stop> {
    let mut conn = bench.disk(keys)?;
    let (_, size) = conn.capacity()?;
    let blocks = u16::try_from(bytes.div_ceil(size)).unwrap_or(1).max(1);
    let expected = u32::from(blocks) * size;
    let done = conn.good(&Io { cdb: cdb10(0x28, 0, blocks), read: Some(expected), ..Io::default() })?;
    if done.data.len() != expected as usize {
        return fail("7143-11.7.6-1", format!("{expected} bytes"), format!("{} bytes", done.data.len()));
    }
    Ok((conn, done))
}

/// O, U and the count have to be these.
fn residual(done: &Done, rule: &str, overflow: bool, underflow: bool, count: u32) -> Outcome {
    let flags = if overflow { 4 } else { 0 } | if underflow { 2 } else { 0 };
    let right = done.last.flags() & 6 == flags && (flags == 0 || done.last.be32(at::RESIDUAL) == count);
    let name = ["neither O nor U", "O", "U"][usize::from(overflow) + 2 * usize::from(underflow)];
    holds(rule, &format!("{name}, Residual Count {count}"), &done.last, right)
}

fn underflow(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let done = conn.good(&Io { cdb: inquiry(36), read: Some(4096), ..Io::default() })?;
    let len = u32::try_from(done.data.len()).unwrap_or(u32::MAX);
    if len == 0 || len > 36 {
        return fail("7143-11.4.5.2-3", "36 bytes of INQUIRY data", format!("{len} bytes"));
    }
    residual(&done, "7143-11.4.5.2-4", false, true, 4096 - len)
}

fn overflow(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let (_, size) = conn.capacity()?;
    let done = conn.run(&Io { cdb: cdb10(0x28, 0, 1), read: Some(size / 2), ..Io::default() })?;
    residual(&done, "7143-11.4.5.2-2", true, false, size - size / 2)
}

fn exact(bench: &Bench) -> Outcome {
    let (_, done) = read(bench, &[], 4096)?;
    residual(&done, "7143-11.4.5.1-3", false, false, 0)
}

fn numbering(bench: &Bench) -> Outcome {
    let (_, done) = read(bench, &[("MaxRecvDataSegmentLength", "512")], 8192)?;
    let mut offset = 0;
    for (sn, pdu) in done.ins.iter().enumerate() {
        holds("7143-4.2.2.4-1", &format!("DataSN {sn}"), pdu, pdu.be32(at::DATA_SN) as usize == sn)?;
        holds("7143-11.7.6-2", &format!("Buffer Offset {offset}"), pdu, pdu.be32(at::OFFSET) == offset)?;
        offset += u32::try_from(pdu.data.len()).unwrap_or(u32::MAX);
    }
    match done.ins.last() {
        Some(pdu) => holds("7143-11.7.6-2", "F in the last Data-In", pdu, pdu.flags() & F != 0),
        None => wrong("7143-4.2.5.1-2", "Data-Ins", &done.last),
    }
}

fn bursts(bench: &Bench) -> Outcome {
    let keys =
        [("MaxRecvDataSegmentLength", "1024"), ("MaxBurstLength", "4096"), ("FirstBurstLength", "4096")];
    let (conn, done) = read(bench, &keys, 32_768)?;
    let most = conn.result_or("MaxBurstLength", 262_144) as usize;
    let mut sum = 0;
    for pdu in &done.ins {
        sum += pdu.data.len();
        holds("7143-11.7.1-3", &format!("F before more than {most} bytes"), pdu, sum <= most)?;
        if pdu.flags() & F != 0 {
            sum = 0;
        }
    }
    Ok(())
}

fn segments(bench: &Bench) -> Outcome {
    let (_, done) = read(bench, &[("MaxRecvDataSegmentLength", "1000")], 8192)?;
    for pdu in &done.ins {
        holds("7143-11.7.1-2", "1000 bytes at most", pdu, pdu.data.len() <= 1000)?;
    }
    Ok(())
}

fn exp_data_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[("MaxRecvDataSegmentLength", "512")])?;
    let (_, size) = conn.capacity()?;
    // Overflow keeps many targets from sending the status with the data.
    let done = conn.run(&Io { cdb: cdb10(0x28, 0, 8), read: Some(size * 4), ..Io::default() })?;
    if done.last.opcode() != op::SCSI_RESPONSE {
        return skip("the status came with the last Data-In, as it may");
    }
    let count = done.ins.len();
    let right = done.last.be32(at::DATA_SN) as usize == count;
    holds("7143-11.4.8-1", &format!("ExpDataSN {count}"), &done.last, right)
}

fn beyond_the_end(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let (blocks, size) = conn.capacity()?;
    let done = conn.run(&Io { cdb: cdb10(0x28, blocks, 1), read: Some(size), ..Io::default() })?;
    holds("7143-11.7.3-1", "CHECK CONDITION", &done.last, done.status() == 2)?;
    holds("7143-11.7.3-1", "a SCSI Response", &done.last, done.last.opcode() == op::SCSI_RESPONSE)?;
    // SBC-3 4.5: LOGICAL BLOCK ADDRESS OUT OF RANGE.
    holds("7143-11.4.7-2", "sense 5/21/00", &done.last, done.sense() == Some((5, 0x21, 0)))
}

fn unknown_operation(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let mut cdb = vec![0; 10];
    cdb[0] = 0xff;
    let done = conn.run(&Io { cdb, ..Io::default() })?;
    holds("7143-4.6.1.2-1", "CHECK CONDITION", &done.last, done.status() == 2)?;
    // SPC-4 table D: INVALID COMMAND OPERATION CODE.
    holds("7143-11.4.7-2", "sense 5/20/00", &done.last, done.sense() == Some((5, 0x20, 0)))
}

fn nothing_expected(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let (_, size) = conn.capacity()?;
    let done = conn.run(&Io { cdb: cdb10(0x28, 0, 1), read: Some(0), ..Io::default() })?;
    if !done.data.is_empty() {
        return wrong("7143-11.7.6-1", "no data", &done.last);
    }
    if done.status() != 0 {
        return skip("the target refuses the command, as SAM-5 allows");
    }
    residual(&done, "7143-11.4.5.2-1", true, false, size)
}

fn cut_by_allocation(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let done = conn.good(&Io { cdb: inquiry(8), read: Some(8), ..Io::default() })?;
    residual(&done, "7143-11.4.5.3-1", false, false, 0)
}

fn expected_above_allocation(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let done = conn.good(&Io { cdb: inquiry(8), read: Some(64), ..Io::default() })?;
    residual(&done, "7143-11.4.5.3-2", false, true, 56)
}

fn no_data_at_all(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let done = conn.good(&Io { cdb: vec![0; 6], read: Some(512), ..Io::default() })?;
    residual(&done, "7143-11.4.5.2-4", false, true, 512)
}

fn no_such_lun(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let absent = [0x00, 0xfd, 0, 0, 0, 0, 0, 0];
    let io = Io { cdb: vec![0; 6], ..Io::default() };
    let command = conn.command(&io).bytes(at::LUN, &absent);
    conn.send(&command);
    let done = conn.finish(&command, &io)?;
    // SAM-5 5.11: LOGICAL UNIT NOT SUPPORTED.
    holds("7143-11.2.1.7-1", "sense 5/25/00", &done.last, done.sense() == Some((5, 0x25, 0)))?;
    let io = Io { cdb: inquiry(36), read: Some(36), ..Io::default() };
    let command = conn.command(&io).bytes(at::LUN, &absent);
    conn.send(&command);
    let done = conn.finish(&command, &io)?;
    // SPC-4 6.6.2: peripheral qualifier 011b.
    let qualifier = done.data.first().map(|byte| byte >> 5);
    holds("7143-11.2.1.7-1", "INQUIRY with qualifier 3", &done.last, qualifier == Some(3))
}

fn report_luns(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let cdb = vec![0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0];
    let done = conn.good(&Io { cdb, read: Some(4096), ..Io::default() })?;
    let lun = bench.peer.lun_field();
    if done.data.get(8..).is_some_and(|list| list.chunks(8).any(|entry| entry == lun)) {
        return Ok(());
    }
    fail("7143-11.2.1.7-1", format!("{lun:02x?} in the list"), crate::pdu::hexdump(&done.data))
}

fn several(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[("MaxRecvDataSegmentLength", "512")])?;
    let (_, size) = conn.capacity()?;
    let mut open: Vec<(u32, u32)> = Vec::new();
    let room = conn.max_cmd_sn.wrapping_sub(conn.cmd_sn).wrapping_add(1);
    for blocks in (1..=8_u16).take(room as usize) {
        let bytes = size * u32::from(blocks);
        let command = conn.command(&Io { cdb: cdb10(0x28, 0, blocks), read: Some(bytes), ..Io::default() });
        open.push((command.itt(), bytes));
        conn.send(&command);
    }
    while !open.is_empty() {
        let pdu = match conn.next()? {
            Got::Pdu(pdu) => pdu,
            got => return got.wrong("7143-4.2.5.1-2", "the data of all reads"),
        };
        let Some((_, left)) = open.iter_mut().find(|(tag, _)| *tag == pdu.itt()) else {
            return wrong("7143-4.2.5.3-1", "the ITT of a command under way", &pdu);
        };
        *left = left.saturating_sub(u32::try_from(pdu.data.len()).unwrap_or(0));
        let ended = pdu.opcode() == op::SCSI_RESPONSE || pdu.flags() & 1 != 0;
        if ended {
            holds("7143-4.2.5.3-1", "status after all data", &pdu, *left == 0)?;
            open.retain(|(tag, _)| *tag != pdu.itt());
        }
    }
    Ok(())
}

fn odd_length(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let done = conn.good(&Io { cdb: inquiry(5), read: Some(5), ..Io::default() })?;
    if done.data.len() != 5 {
        return fail("7143-11.2.1.6-1", "5 bytes", format!("{} bytes", done.data.len()));
    }
    conn.expect_alive("7143-11.2-5")
}

fn attributes(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    for attribute in 0..4 {
        let io = Io { cdb: vec![0; 6], ..Io::default() };
        let command: Pdu = conn.command(&io).set(at::FLAGS, F | attribute).set32(at::EDTL, 0);
        conn.send(&command);
        let done = conn.finish(&command, &io)?;
        holds("7143-11.3.1-4", &format!("GOOD with attribute {attribute}"), &done.last, done.status() == 0)?;
    }
    Ok(())
}
