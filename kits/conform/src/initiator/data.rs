//! Reads and writes: Data-In, R2T, Data-Out (RFC 7143 sections 11.7, 11.8, 13.10 to 13.17).

use super::{Link, Served, Step};
use crate::case::{
    Action::{Read, Write},
    Case,
};
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "idata-01",
        Read,
        "a read in many Data-Ins, the status with the last",
        &["7143-11.7-2", "7143-11.7.6-2"],
        read_in_pieces,
    ),
    Case::initiator(
        "idata-02",
        Read,
        "the status of a read in a SCSI Response of its own",
        &["7143-11.7-2"],
        status_alone,
    ),
    Case::initiator("idata-03", Read, "a Data-In without data is taken", &["7143-11.7.7-1"], empty_data_in),
    Case::initiator(
        "idata-04",
        Read,
        "a gap in DataSN: the read does not count as done",
        &["7143-7.9-1", "7143-7.8-6"],
        data_sn_gap,
    ),
    Case::initiator(
        "idata-05",
        Read,
        "ExpDataSN above what came: the read does not count as done",
        &["7143-7.9-1"],
        last_data_in_lost,
    ),
    Case::initiator(
        "idata-06",
        Read,
        "a Data-In beyond the expected length: not taken",
        &["7143-11.7.6-1", "7143-7.7-2"],
        beyond_expected,
    ),
    Case::initiator(
        "idata-07",
        Read,
        "a Data-In longer than MaxRecvDataSegmentLength: the connection ends",
        &["7143-11.7.1-2", "7143-7.7-2"],
        too_long,
    ),
    Case::initiator(
        "idata-08",
        Read,
        "A at ErrorRecoveryLevel 0 is ignored: the read ends well, without a SNACK",
        &["7143-11.7.2-4"],
        a_bit,
    ),
    Case::initiator(
        "idata-09",
        Write,
        "an R2T is answered in full: TTT and LUN copied, DataSN from 0, F in the last",
        &["7143-4.2.5.2-7", "7143-11.7.4-3", "7143-4.2.2.4-1", "7143-11.8-6"],
        answer_to_r2t,
    ),
    Case::initiator(
        "idata-10",
        Write,
        "no Data-Out is longer than the target's MaxRecvDataSegmentLength",
        &["7143-11.7.1-2"],
        segments,
    ),
    Case::initiator(
        "idata-11",
        Write,
        "InitialR2T=Yes and ImmediateData=No: nothing unsolicited",
        &["7143-13.11-1", "7143-13.11-3"],
        nothing_unsolicited,
    ),
    Case::initiator(
        "idata-12",
        Write,
        "ImmediateData=Yes: immediate data within FirstBurstLength",
        &["7143-13.12-1", "7143-11.3.4-2"],
        immediate_within,
    ),
    Case::initiator(
        "idata-13",
        Write,
        "InitialR2T=No: unsolicited data is FirstBurstLength, or only what went with the command",
        &["7143-11.3.4-3", "7143-13.12-1", "7143-4.2.5.2-5"],
        unsolicited,
    ),
    Case::initiator(
        "idata-14",
        Write,
        "R2Ts one after the other are each answered for their part",
        &["7143-11.8-10", "7143-11.8-5"],
        several_r2ts,
    ),
    Case::initiator(
        "idata-15",
        Write,
        "an R2T beyond the expected length is not answered with data",
        &["7143-11.7.6-1", "7143-7.7-2"],
        r2t_beyond,
    ),
    Case::initiator(
        "idata-16",
        Write,
        "an R2T that asks for nothing is a format error",
        &["7143-11.8.4-1", "7143-7.7-2"],
        empty_r2t,
    ),
    Case::initiator(
        "idata-17",
        Write,
        "an R2T above MaxBurstLength is a format error, or answered within the burst",
        &["7143-11.8.4-2", "7143-7.7-2"],
        r2t_above_burst,
    ),
    Case::initiator(
        "idata-18",
        Write,
        "an R2T with Target Transfer Tag ffffffff is a format error",
        &["7143-11.8.5-1", "7143-7.7-2"],
        r2t_without_ttt,
    ),
    Case::initiator(
        "idata-19",
        Write,
        "Data-Outs have reserved fields 0 and the ITT of the command",
        &["7143-11-1", "7143-4.2.5.3-1"],
        data_out_fields,
    ),
    Case::initiator(
        "idata-20",
        Write,
        "a write that fails at once: the initiator hears it, and sends no more data",
        &["7143-11.4.2-1"],
        failed_write,
    ),
];

/// A READ that waits for its data: one of at least two blocks.
fn read(served: &mut Served) -> Result<(Link, Pdu), Stop> {
    let mut link = served.session(&[])?;
    let pdu = link.until("READ of two blocks or more", |pdu| {
        let code = pdu.byte(at::CDB);
        pdu.opcode() == op::SCSI_COMMAND && matches!(code, 0x08 | 0x28 | 0x88) && pdu.be32(at::EDTL) >= 1024
    })?;
    Ok((link, pdu))
}

fn is_write(pdu: &Pdu) -> bool {
    pdu.opcode() == op::SCSI_COMMAND && matches!(pdu.byte(at::CDB), 0x2a | 0x8a) && pdu.be32(at::EDTL) >= 1024
}

fn write(served: &mut Served, prefer: &[(&str, &str)]) -> Result<(Link, Pdu), Stop> {
    let mut link = served.session(prefer)?;
    let pdu = link.until("WRITE of 1024 bytes or more", is_write)?;
    Ok((link, pdu))
}

/// The blocks that a READ(10) or READ(16) asks for.
fn content(link: &Link, command: &Pdu) -> Vec<u8> {
    let lba = match command.byte(at::CDB) {
        0x88 => command.be32(at::CDB + 6) as usize,
        0x28 => command.be32(at::CDB + 2) as usize,
        _ => (command.be32(at::CDB) & 0x001f_ffff) as usize,
    };
    let len = command.be32(at::EDTL) as usize;
    link.disk.get(lba * 512..lba * 512 + len).map_or_else(|| vec![0; len], <[u8]>::to_vec)
}

fn well(served: &mut Served, link: &mut Link, rule: &str) -> Outcome {
    link.serve(|_, _| Ok(Step::Serve))?;
    if served.succeeded()? { Ok(()) } else { fail(rule, "the initiator's command ends well", "it failed") }
}

/// The initiator must not take it: the connection ends, a SNACK or an abort comes, or the command fails.
fn not_taken(served: &mut Served, link: &mut Link, rule: &str, expected: &str) -> Outcome {
    loop {
        match link.recv(link.quiet)? {
            Got::Closed => return Ok(()),
            Got::Pdu(p) if matches!(p.opcode(), op::LOGOUT_REQUEST | op::SNACK | op::TASK_REQUEST) => {
                return Ok(());
            }
            Got::Pdu(_) => continue,
            Got::Silence => break,
        }
    }
    if served.succeeded()? { fail(rule, expected, "the command of the initiator ended well") } else { Ok(()) }
}

fn pieces(link: &mut Link, command: &Pdu, data: &[u8], size: usize) -> Vec<Pdu> {
    let chunks = data.chunks(size).enumerate();
    chunks.map(|(sn, part)| link.data_in(command, sn, sn * size, part)).collect()
}

fn read_in_pieces(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let mut all = pieces(&mut link, &command, &data, 512);
    let last = all.pop();
    all.iter().for_each(|pdu| link.wire.send(pdu));
    if let Some(last) = last {
        link.respond(last.set(at::FLAGS, 0x81));
    }
    well(served, &mut link, "7143-11.7.6-2")
}

fn status_alone(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let mut all = pieces(&mut link, &command, &data, 512);
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    if let Some(last) = all.pop() {
        all.push(last.set(at::FLAGS, F));
    }
    all.iter().for_each(|pdu| link.wire.send(pdu));
    good(&mut link, &command, count);
    well(served, &mut link, "7143-11.7-2")
}

/// GOOD with this ExpDataSN.
fn good(link: &mut Link, command: &Pdu, count: u32) {
    let pdu = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set32(at::ITT, command.itt());
    link.respond(pdu.set32(at::DATA_SN, count));
}

fn empty_data_in(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let empty = link.data_in(&command, 0, 0, &[]);
    link.wire.send(&empty);
    let segment = link.segment().min(8192);
    let count = data.len().div_ceil(segment);
    for (n, part) in data.chunks(segment).enumerate() {
        let pdu = link.data_in(&command, n + 1, n * segment, part);
        if n + 1 == count {
            link.respond(pdu.set(at::FLAGS, 0x81));
        } else {
            link.wire.send(&pdu);
        }
    }
    well(served, &mut link, "7143-11.7.7-1")
}

fn data_sn_gap(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let mut all = pieces(&mut link, &command, &data, 512);
    // The first is lost.
    all.remove(0);
    let count = u32::try_from(all.len() + 1).unwrap_or(u32::MAX);
    if let Some(last) = all.pop() {
        all.push(last.set(at::FLAGS, F));
    }
    all.iter().for_each(|pdu| link.wire.send(pdu));
    good(&mut link, &command, count);
    not_taken(served, &mut link, "7143-7.9-1", "the lost data is missed")
}

fn last_data_in_lost(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let mut all = pieces(&mut link, &command, &data, 512);
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    all.pop();
    all.iter().for_each(|pdu| link.wire.send(pdu));
    good(&mut link, &command, count);
    not_taken(served, &mut link, "7143-7.9-1", "the lost data is missed: ExpDataSN tells")
}

fn beyond_expected(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let mut data = content(&link, &command);
    let expected = data.len();
    data.extend_from_slice(&[0xee; 512]);
    let segment = link.segment().min(8192);
    for (n, part) in data.chunks(segment).enumerate() {
        let pdu = link.data_in(&command, n, n * segment, part);
        link.wire.send(&pdu);
    }
    let count = u32::try_from(data.len().div_ceil(segment)).unwrap_or(u32::MAX);
    good(&mut link, &command, count);
    let what = format!("no data beyond {expected} bytes is taken");
    not_taken(served, &mut link, "7143-11.7.6-1", &what)
}

fn too_long(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let segment = link.segment();
    let data = content(&link, &command);
    if data.len() <= segment {
        return skip(format!("the read of {} bytes fits in one segment of {segment}", data.len()));
    }
    let pdu = link.data_in(&command, 0, 0, &data);
    link.respond(pdu.set(at::FLAGS, 0x81));
    not_taken(
        served,
        &mut link,
        "7143-11.7.1-2",
        &format!("the end of the connection: {} bytes in one PDU", data.len()),
    )
}

fn a_bit(served: &mut Served) -> Outcome {
    let (mut link, command) = read(served)?;
    let data = content(&link, &command);
    let mut all = pieces(&mut link, &command, &data, 512);
    let last = all.pop();
    for pdu in all {
        link.wire.send(&pdu.set(at::FLAGS, 0x40).set32(at::TTT, 0x99));
    }
    if let Some(last) = last {
        link.respond(last.set(at::FLAGS, 0x81));
    }
    let mut snack = None;
    link.serve(|_, pdu| {
        if pdu.opcode() == op::SNACK {
            snack = Some(pdu.clone());
            return Ok(Step::Stop);
        }
        Ok(Step::Serve)
    })?;
    let rule = "7143-11.7.2-4";
    match snack {
        Some(pdu) => wrong(rule, "no SNACK at ErrorRecoveryLevel 0", &pdu),
        None if served.accept_again(&link)?.is_some() => fail(rule, "the connection goes on", "another one"),
        None if served.succeeded()? => Ok(()),
        None => fail(rule, "the initiator's command ends well", "it failed"),
    }
}

/// The Data-Outs that answer an R2T, up to F.
fn data_outs(link: &mut Link, r2t: &Pdu) -> Result<Vec<Pdu>, Stop> {
    let (mut offset, mut out) = (r2t.be32(at::OFFSET) as usize, Vec::new());
    loop {
        let pdu = link.data_out(r2t.itt(), r2t.ttt(), offset)?;
        offset += pdu.data.len();
        let last = pdu.flags() & F != 0;
        out.push(pdu);
        if last {
            return Ok(out);
        }
    }
}

fn solicit(link: &mut Link, command: &Pdu, sn: u32, offset: usize, len: usize) -> Result<Vec<Pdu>, Stop> {
    let r2t = link.ask(command, sn, offset, len);
    let pdus = data_outs(link, &r2t)?;
    let lun = &r2t.bhs[at::LUN..at::LUN + 8];
    for (sn, pdu) in pdus.iter().enumerate() {
        holds("7143-4.2.2.4-1", &format!("DataSN {sn}"), pdu, pdu.be32(at::DATA_SN) as usize == sn)?;
        holds("7143-11.7.4-3", "the LUN of the R2T", pdu, &pdu.bhs[at::LUN..at::LUN + 8] == lun)?;
    }
    let got: usize = pdus.iter().map(|pdu| pdu.data.len()).sum();
    match pdus.last() {
        Some(last) => holds("7143-4.2.5.2-7", &format!("{len} bytes up to F"), last, got == len)?,
        None => return fail("7143-4.2.5.2-7", "Data-Outs", "none"),
    }
    Ok(pdus)
}

/// What came with the command and right after it.
fn sent_unasked(link: &mut Link, command: &Pdu) -> Result<usize, Stop> {
    let mut sum = command.data.len();
    let mut more = command.flags() & F == 0;
    while more {
        let pdu = link.data_out(command.itt(), NO_TAG, sum)?;
        sum += pdu.data.len();
        more = pdu.flags() & F == 0;
    }
    Ok(sum)
}

fn answer_to_r2t(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    solicit(&mut link, &command, 0, done, total - done)?;
    link.status(&command, 0, &[])?;
    well(served, &mut link, "7143-4.2.5.2-7")
}

fn segments(served: &mut Served) -> Outcome {
    let (mut link, command) =
        write(served, &[("MaxRecvDataSegmentLength", "512"), ("ImmediateData", "Yes")])?;
    holds("7143-11.7.1-2", "512 bytes of immediate data at most", &command, command.data.len() <= 512)?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    for pdu in solicit(&mut link, &command, 0, done, total - done)? {
        holds("7143-11.7.1-2", "512 bytes at most", &pdu, pdu.data.len() <= 512)?;
    }
    Ok(())
}

fn nothing_unsolicited(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    holds("7143-13.11-3", "no immediate data", &command, command.data.is_empty())?;
    holds("7143-13.11-1", "F: no unsolicited Data-Out follows", &command, command.flags() & F != 0)?;
    match link.recv(link.quiet)? {
        Got::Pdu(pdu) if pdu.opcode() == op::DATA_OUT => wrong("7143-13.11-1", "no Data-Out yet", &pdu),
        _ => Ok(()),
    }
}

fn immediate_within(served: &mut Served) -> Outcome {
    let prefer = [("InitialR2T", "Yes"), ("ImmediateData", "Yes"), ("FirstBurstLength", "512")];
    let (link, command) = write(served, &prefer)?;
    let burst = link.result_or("FirstBurstLength", 65_536);
    holds("7143-13.12-1", &format!("{burst} bytes at most"), &command, command.data.len() <= burst)?;
    holds(
        "7143-11.3.4-2",
        "F: no unsolicited Data-Out with InitialR2T=Yes",
        &command,
        command.flags() & F != 0,
    )
}

fn unsolicited(served: &mut Served) -> Outcome {
    let prefer = [("InitialR2T", "No"), ("ImmediateData", "Yes"), ("FirstBurstLength", "1024")];
    let (mut link, command) = write(served, &prefer)?;
    let burst = link.result_or("FirstBurstLength", 65_536);
    let follows = command.flags() & F == 0;
    let sum = sent_unasked(&mut link, &command)?;
    let most = burst.min(command.be32(at::EDTL) as usize);
    holds("7143-13.12-1", &format!("{burst} bytes at most"), &command, sum <= burst)?;
    holds("7143-4.2.5.2-5", &format!("{most} bytes in all"), &command, !follows || sum == most)
}

fn several_r2ts(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[("MaxBurstLength", "512"), ("FirstBurstLength", "512")])?;
    let mut done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    let mut sn = 0;
    while done < total && sn < 64 {
        let len = (total - done).min(512);
        solicit(&mut link, &command, sn, done, len)?;
        done += len;
        sn += 1;
    }
    if done == total {
        link.status(&command, 0, &[])?;
        return well(served, &mut link, "7143-11.8-10");
    }
    Ok(())
}

/// After an R2T that breaks a rule no data may come.
fn refused_r2t(served: &mut Served, link: &mut Link, rule: &str, expected: &str) -> Outcome {
    loop {
        match link.recv(link.quiet)? {
            Got::Closed => return Ok(()),
            Got::Pdu(p) if p.opcode() == op::DATA_OUT => return wrong(rule, expected, &p),
            Got::Pdu(p) if matches!(p.opcode(), op::LOGOUT_REQUEST | op::TASK_REQUEST) => return Ok(()),
            Got::Pdu(_) => continue,
            Got::Silence => break,
        }
    }
    match served.succeeded() {
        Ok(true) => fail(rule, expected, "the command of the initiator ended well"),
        // It waits for a right one.
        Ok(false) | Err(Stop::Skip(_)) => Ok(()),
        Err(stop) => Err(stop),
    }
}

fn r2t_beyond(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    link.ask(&command, 0, done, total - done + 512);
    refused_r2t(
        served,
        &mut link,
        "7143-11.7.6-1",
        "the end of the connection: the R2T goes beyond the write",
    )
}

fn empty_r2t(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    let done = sent_unasked(&mut link, &command)?;
    link.ask(&command, 0, done, 0);
    refused_r2t(served, &mut link, "7143-11.8.4-1", "the end of the connection: the R2T asks for nothing")
}

fn r2t_above_burst(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[("MaxBurstLength", "512"), ("FirstBurstLength", "512")])?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    if total - done <= 512 || link.result_or("MaxBurstLength", 262_144) > 512 {
        return skip("the write is not longer than MaxBurstLength");
    }
    link.ask(&command, 0, done, total - done);
    let mut sum = 0;
    loop {
        match link.recv(link.quiet)? {
            Got::Pdu(pdu) if pdu.opcode() == op::DATA_OUT => {
                sum += pdu.data.len();
                holds("7143-11.8.4-2", "a sequence of 512 bytes at most, or none", &pdu, sum <= 512)?;
            }
            Got::Pdu(_) => (),
            Got::Closed | Got::Silence => return Ok(()),
        }
    }
}

fn r2t_without_ttt(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    let len = u32::try_from(total - done).unwrap_or(u32::MAX);
    let r2t = Pdu::new(op::R2T)
        .set(at::FLAGS, F)
        .bytes(at::LUN, &command.bhs[at::LUN..at::LUN + 8])
        .set32(at::ITT, command.itt())
        .set32(at::TTT, NO_TAG)
        .set32(at::OFFSET, u32::try_from(done).unwrap_or(0))
        .set32(at::DESIRED, len);
    link.inform(r2t);
    refused_r2t(served, &mut link, "7143-11.8.5-1", "the end of the connection: the R2T has no tag")
}

fn data_out_fields(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    let done = sent_unasked(&mut link, &command)?;
    let total = command.be32(at::EDTL) as usize;
    for pdu in solicit(&mut link, &command, 0, done, total - done)? {
        let zero = |from: usize, to: usize| pdu.bhs[from..to].iter().all(|&b| b == 0);
        let reserved = pdu.flags() & 0x7f == 0 && zero(2, 5) && zero(24, 28) && zero(32, 36) && zero(44, 48);
        holds("7143-11-1", "reserved bits and bytes 0", &pdu, reserved && pdu.byte(0) == op::DATA_OUT)?;
    }
    Ok(())
}

fn failed_write(served: &mut Served) -> Outcome {
    let (mut link, command) = write(served, &[])?;
    sent_unasked(&mut link, &command)?;
    // WRITE PROTECTED.
    link.status(&command, 2, &super::scsi::sense(7, 0x27, 0))?;
    let mut late = None;
    link.serve(|_, pdu| {
        if pdu.opcode() == op::DATA_OUT && pdu.itt() == command.itt() {
            late = Some(pdu.clone());
        }
        let again = is_write(pdu);
        if again {
            return Ok(Step::Stop);
        }
        Ok(Step::Serve)
    })?;
    match late {
        Some(pdu) => wrong("7143-11.4.2-1", "no data after the status", &pdu),
        None if served.succeeded()? => fail("7143-11.4.2-1", "a failure", "the command ended well"),
        None => Ok(()),
    }
}
