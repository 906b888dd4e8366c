//! Writes: R2T, immediate and unsolicited data (RFC 7143 sections 11.7, 11.8, 13.10 to 13.17).

mod breach;

use super::conn::{Done, cdb10};
use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

const SOLICITED: [(&str, &str); 2] = [("InitialR2T", "Yes"), ("ImmediateData", "No")];
const IMMEDIATE: [(&str, &str); 2] = [("InitialR2T", "Yes"), ("ImmediateData", "Yes")];
const UNSOLICITED: [(&str, &str); 3] =
    [("InitialR2T", "No"), ("ImmediateData", "No"), ("FirstBurstLength", "8192")];

pub(super) const CASES: &[Case] = &[
    Case::target(
        "write-01",
        "a write is asked for by R2T: LUN, R2TSN from 0, offsets that follow each other",
        &["7143-11.8-12", "7143-4.2.2.4-1", "7143-4.2.5.3-2"],
        solicited,
    )
    .destroys(),
    Case::target("write-02", "what was written comes back", &["7143-4.2.5.2-7", "7143-11.7.6-1"], read_back)
        .destroys(),
    Case::target("write-03", "an R2T asks for MaxBurstLength at most", &["7143-11.8.4-2"], max_burst)
        .destroys(),
    Case::target(
        "write-04",
        "no more than MaxOutstandingR2T R2Ts are open",
        &["7143-11.8-13", "7143-13.17-1"],
        outstanding,
    )
    .destroys(),
    Case::target(
        "write-05",
        "immediate data is taken, R2T asks for the rest only",
        &["7143-4.2.5.2-3", "7143-4.2.5.2-8", "7143-13.11-6"],
        immediate,
    )
    .destroys(),
    Case::target(
        "write-06",
        "a write that immediate data covers needs no R2T",
        &["7143-11.3.4-2", "7143-4.2.5.2-8"],
        all_immediate,
    )
    .destroys(),
    Case::target(
        "write-07",
        "InitialR2T=No: unsolicited Data-Outs up to FirstBurstLength are taken",
        &["7143-13.11-4", "7143-4.2.5.2-5"],
        unsolicited,
    )
    .destroys(),
    Case::target(
        "write-08",
        "immediate and unsolicited data together are taken",
        &["7143-13.11-5", "7143-13.12-1"],
        mixed,
    )
    .destroys(),
    Case::target(
        "write-09",
        "unsolicited Data-Out where InitialR2T=Yes is an error",
        &["7143-4.2.5.2-6", "7143-13.11-2"],
        breach::unwanted,
    )
    .destroys(),
    Case::target(
        "write-10",
        "immediate data where ImmediateData=No is an error",
        &["7143-13.11-2", "7143-13.11-3"],
        breach::unwanted_immediate,
    )
    .destroys(),
    Case::target(
        "write-11",
        "immediate data beyond FirstBurstLength is an error",
        &["7143-4.2.5.2-6", "7143-13.12-1"],
        breach::immediate_beyond,
    )
    .destroys(),
    Case::target(
        "write-12",
        "a Data-Out beyond what the R2T asked for is an error",
        &["7143-11.8-5", "7143-7.13-1"],
        breach::beyond_r2t,
    )
    .destroys(),
    Case::target(
        "write-13",
        "a Data-Out with a Target Transfer Tag that was not given is an error",
        &["7143-4.2.5.3-1", "7143-11.7.4-3"],
        breach::wrong_ttt,
    )
    .destroys(),
    Case::target("write-14", "a gap in DataSN is an error of the missing data", &["7143-7.9-2"], breach::gap)
        .destroys(),
    Case::target(
        "write-15",
        "a sequence that ends before all was sent: incorrect amount of data, or R2T for the rest",
        &["7143-11.4.7.2-2", "7143-11.8-4"],
        breach::short,
    )
    .destroys(),
    Case::target(
        "write-16",
        "a Data-Out for a task that does not exist is refused or dropped, the session goes on",
        &["7143-7.13-1", "7143-10.7-2"],
        breach::no_task,
    )
    .destroys(),
    Case::target(
        "write-17",
        "expected length above what the CDB says: U",
        &["7143-11.4.5.2-3", "7143-11.4.5.2-4"],
        underflow,
    )
    .destroys(),
    Case::target(
        "write-18",
        "expected length below what the CDB says: O",
        &["7143-11.4.5.2-1", "7143-11.4.5.2-2"],
        overflow,
    )
    .destroys(),
    Case::target(
        "write-19",
        "a write beyond the end: the status comes once no data is due",
        &["7143-11.4.2-1"],
        beyond_the_end,
    )
    .destroys(),
    Case::target("write-20", "a Data-Out without data is taken", &["7143-11.7.7-1"], empty_data_out)
        .destroys(),
    Case::target("write-21", "ExpDataSN of a write is 0 even after R2Ts", &["7143-11.4.8-1"], exp_data_sn)
        .destroys(),
    Case::target(
        "write-22",
        "writes that are under way together each get their own data",
        &["7143-4.2.5.3-1", "7143-11.8-13"],
        several,
    )
    .destroys(),
    Case::target(
        "write-23",
        "a Data-Out whose LUN is not the command's is an error",
        &["7143-4.2.5.3-2"],
        breach::other_lun,
    )
    .destroys(),
    Case::target(
        "write-24",
        "a data segment longer than the target takes is refused",
        &["7143-11.7.1-2"],
        breach::too_long,
    ),
];

/// A disk, and a write of this many bytes, in whole blocks, from block 8 on.
struct Job {
    conn: Conn,
    data: Vec<u8>,
    cdb: Vec<u8>,
    blocks: u16,
}

impl Job {
    fn new(bench: &Bench, keys: &[(&str, &str)], bytes: u32) -> Result<Self, Stop> {
        let mut conn = bench.disk(keys)?;
        let (capacity, size) = conn.capacity()?;
        let blocks = u16::try_from(bytes.div_ceil(size)).unwrap_or(1).max(1);
        if capacity < u32::from(blocks) + 16 {
            return skip(format!("the logical unit has {capacity} blocks only"));
        }
        let mut seed = [0; 1];
        let _ = getrandom::fill(&mut seed);
        let len = usize::from(blocks) * size as usize;
        let data = (0..len).map(|n| (n / 7) as u8 ^ (n as u8) ^ seed[0]).collect();
        Ok(Self { conn, data, cdb: cdb10(0x2a, 8, blocks), blocks })
    }

    fn len(&self) -> u32 {
        u32::try_from(self.data.len()).unwrap_or(u32::MAX)
    }

    /// Sends the command with this much immediate data.
    fn send_immediate(&mut self, immediate: usize) -> Pdu {
        let write = Some(self.len());
        let io = Io { cdb: self.cdb.clone(), write, data: &self.data, immediate, ..Io::default() };
        let command = self.conn.command(&io);
        self.conn.send(&command);
        command
    }

    /// Writes with this much immediate data; the status has to be good.
    fn write(&mut self, immediate: usize) -> Result<Done, Stop> {
        let (cdb, data) = (self.cdb.clone(), self.data.clone());
        self.conn.good(&Io { cdb, write: Some(self.len()), data: &data, immediate, ..Io::default() })
    }

    /// The command, without any data.
    fn command(&mut self) -> Pdu {
        let io = Io { cdb: self.cdb.clone(), write: Some(self.len()), ..Io::default() };
        self.conn.command(&io)
    }

    /// The command is sent; its first R2T is waited for.
    fn first_r2t(&mut self) -> Result<(Pdu, Pdu), Stop> {
        let command = self.command();
        self.conn.send(&command);
        let r2t = self.conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
        holds("7143-4.2.5.3-1", "the ITT of the command", &r2t, r2t.itt() == command.itt())?;
        Ok((command, r2t))
    }

    /// Sends what an R2T asks for.
    fn answer(&mut self, r2t: &Pdu) -> Outcome {
        let (from, len) = (r2t.be32(at::OFFSET) as usize, r2t.be32(at::DESIRED) as usize);
        match self.data.get(from..from.saturating_add(len)) {
            Some(part) => self.conn.answer_r2t(r2t, part),
            None => return wrong("7143-11.7.6-1", "an R2T within the expected length", r2t),
        }
        Ok(())
    }

    /// The data is on the medium.
    fn check(&mut self) -> Outcome {
        let done = self.conn.good(&Io {
            cdb: cdb10(0x28, 8, self.blocks),
            read: Some(self.len()),
            ..Io::default()
        })?;
        match done.data.iter().zip(&self.data).position(|(a, b)| a != b) {
            None if done.data.len() == self.data.len() => Ok(()),
            at => {
                let seen = format!("{} bytes, the first other one at {at:?}", done.data.len());
                fail("7143-11.7.6-1", "the data that was written", seen)
            }
        }
    }
}

fn result_is(conn: &Conn, key: &str, value: &str) -> Outcome {
    match conn.result(key) {
        Some(got) if got != value => skip(format!("{key}={value} was offered, {got} negotiated")),
        None if key == "InitialR2T" && value == "No" => skip("InitialR2T=No was not answered"),
        _ => Ok(()),
    }
}

fn solicited(bench: &Bench) -> Outcome {
    let keys = [&SOLICITED[..], &[("MaxBurstLength", "4096"), ("FirstBurstLength", "4096")]].concat();
    let mut job = Job::new(bench, &keys, 16_384)?;
    let done = job.write(0)?;
    let mut offset = 0;
    for (sn, r2t) in done.r2ts.iter().enumerate() {
        holds("7143-4.2.2.4-1", &format!("R2TSN {sn}"), r2t, r2t.be32(at::DATA_SN) as usize == sn)?;
        holds("7143-11.8-12", &format!("Buffer Offset {offset}"), r2t, r2t.be32(at::OFFSET) == offset)?;
        let lun = r2t.bhs[at::LUN..at::LUN + 8] == bench.peer.lun_field();
        holds("7143-4.2.5.3-2", "the LUN of the command", r2t, lun)?;
        offset += r2t.be32(at::DESIRED);
    }
    if offset == job.len() { Ok(()) } else { wrong("7143-4.2.5.1-4", "R2Ts for all data", &done.last) }
}

fn read_back(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 65_536)?;
    job.write(0)?;
    job.check()
}

fn max_burst(bench: &Bench) -> Outcome {
    let keys = [&SOLICITED[..], &[("MaxBurstLength", "1024"), ("FirstBurstLength", "512")]].concat();
    let mut job = Job::new(bench, &keys, 16_384)?;
    let most = job.conn.result_or("MaxBurstLength", 262_144);
    let done = job.write(0)?;
    for r2t in &done.r2ts {
        holds("7143-11.8.4-2", &format!("at most {most} bytes"), r2t, r2t.be32(at::DESIRED) <= most)?;
    }
    job.check()
}

fn outstanding(bench: &Bench) -> Outcome {
    let keys = [
        &SOLICITED[..],
        &[("MaxBurstLength", "1024"), ("FirstBurstLength", "512"), ("MaxOutstandingR2T", "2")],
    ]
    .concat();
    let mut job = Job::new(bench, &keys, 16_384)?;
    let most = job.conn.result_or("MaxOutstandingR2T", 1) as usize;
    let (command, first) = job.first_r2t()?;
    let mut open = vec![first];
    loop {
        match job.conn.next_within(bench.quiet)? {
            Got::Pdu(pdu) if pdu.opcode() == op::R2T => open.push(pdu),
            Got::Silence => break,
            got => return got.wrong("7143-11.8-13", "R2Ts, and nothing else yet"),
        }
    }
    if open.len() > most {
        return wrong("7143-11.8-13", format!("{most} R2Ts at most"), &open[most]);
    }
    for r2t in &open {
        job.answer(r2t)?;
    }
    let data = job.data.clone();
    let io = Io { data: &data, ..Io::default() };
    let done = job.conn.finish(&command, &io)?;
    holds("7143-11.8-13", "GOOD", &done.last, done.status() == 0)?;
    job.check()
}

fn immediate(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &IMMEDIATE, 16_384)?;
    result_is(&job.conn, "ImmediateData", "Yes")?;
    let done = job.write(512)?;
    match done.r2ts.first() {
        Some(r2t) => holds("7143-4.2.5.2-8", "Buffer Offset 512", r2t, r2t.be32(at::OFFSET) == 512)?,
        None => return wrong("7143-4.2.5.1-4", "an R2T for the rest", &done.last),
    }
    job.check()
}

fn all_immediate(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &IMMEDIATE, 4096)?;
    result_is(&job.conn, "ImmediateData", "Yes")?;
    let done = job.write(job.data.len())?;
    match done.r2ts.first() {
        Some(r2t) => wrong("7143-4.2.5.2-8", "no R2T: all data came with the command", r2t),
        None => job.check(),
    }
}

/// Sends the command and then Data-Outs that nobody asked for.
fn send_unsolicited(job: &mut Job, immediate: usize, total: usize) -> Pdu {
    let (cdb, data) = (job.cdb.clone(), job.data.clone());
    let io = Io { cdb, write: Some(job.len()), data: &data, immediate, ..Io::default() };
    let command = job.conn.command(&io);
    let flags = command.flags() & !F;
    let command = command.set(at::FLAGS, flags);
    job.conn.send(&command);
    let chunks: Vec<(usize, &[u8])> =
        data[immediate..total].chunks(512).enumerate().map(|(n, c)| (immediate + n * 512, c)).collect();
    for (sn, (offset, chunk)) in chunks.iter().enumerate() {
        let offset = u32::try_from(*offset).unwrap_or(u32::MAX);
        let pdu = job.conn.data_out(command.itt(), NO_TAG, sn, offset, chunk);
        let last = sn + 1 == chunks.len();
        job.conn.send(&pdu.set(at::FLAGS, if last { F } else { 0 }));
    }
    command
}

fn unsolicited(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &UNSOLICITED, 16_384)?;
    result_is(&job.conn, "InitialR2T", "No")?;
    let burst = (job.conn.result_or("FirstBurstLength", 65_536) as usize).min(job.data.len());
    let command = send_unsolicited(&mut job, 0, burst);
    let data = job.data.clone();
    let done = job.conn.finish(&command, &Io { data: &data, ..Io::default() })?;
    holds("7143-13.11-4", "GOOD", &done.last, done.status() == 0)?;
    if let Some(r2t) = done.r2ts.first() {
        let right = r2t.be32(at::OFFSET) as usize == burst;
        holds("7143-4.2.5.2-8", &format!("R2T from {burst} on"), r2t, right)?;
    }
    job.check()
}

fn mixed(bench: &Bench) -> Outcome {
    let keys = [("InitialR2T", "No"), ("ImmediateData", "Yes"), ("FirstBurstLength", "8192")];
    let mut job = Job::new(bench, &keys, 16_384)?;
    result_is(&job.conn, "InitialR2T", "No")?;
    result_is(&job.conn, "ImmediateData", "Yes")?;
    let burst = (job.conn.result_or("FirstBurstLength", 65_536) as usize).min(job.data.len());
    let command = send_unsolicited(&mut job, 1024, burst);
    let data = job.data.clone();
    let done = job.conn.finish(&command, &Io { data: &data, ..Io::default() })?;
    holds("7143-13.11-5", "GOOD", &done.last, done.status() == 0)?;
    job.check()
}

/// A Reject, CHECK CONDITION for the command, or the end of the connection; data that the target still asks for
/// is sent meanwhile.
fn error_of(job: &mut Job, command: &Pdu, rule: &str) -> Outcome {
    loop {
        match job.conn.next()? {
            Got::Closed => return Ok(()),
            Got::Pdu(pdu) if pdu.opcode() == op::REJECT => return Ok(()),
            Got::Pdu(pdu) if pdu.opcode() == op::R2T => job.answer(&pdu)?,
            Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && pdu.itt() == command.itt() => {
                let failed = pdu.byte(at::STATUS) == 2 || pdu.byte(at::RESPONSE) != 0;
                return holds(rule, "CHECK CONDITION, a Reject, or the end of the connection", &pdu, failed);
            }
            got => return got.wrong(rule, "CHECK CONDITION, a Reject, or the end of the connection"),
        }
    }
}

fn underflow(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let more = job.len() + 512;
    let mut data = job.data.clone();
    data.resize(more as usize, 0);
    let io = Io { cdb: job.cdb.clone(), write: Some(more), data: &data, ..Io::default() };
    let done = job.conn.run(&io)?;
    if done.status() != 0 {
        return skip("the target refuses the command, as SAM-5 allows");
    }
    let right = done.last.flags() & 6 == 2 && done.last.be32(at::RESIDUAL) == 512;
    holds("7143-11.4.5.2-4", "U, Residual Count 512", &done.last, right)?;
    job.check()
}

fn overflow(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let less = job.len() - 512;
    let data = job.data[..less as usize].to_vec();
    let io = Io { cdb: job.cdb.clone(), write: Some(less), data: &data, ..Io::default() };
    let done = job.conn.run(&io)?;
    if done.status() != 0 {
        return skip("the target refuses the command, as SAM-5 allows");
    }
    let right = done.last.flags() & 6 == 4 && done.last.be32(at::RESIDUAL) == 512;
    holds("7143-11.4.5.2-2", "O, Residual Count 512", &done.last, right)
}

fn beyond_the_end(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let (blocks, _) = job.conn.capacity()?;
    job.cdb = cdb10(0x2a, blocks, job.blocks);
    let data = job.data.clone();
    let io = Io { cdb: job.cdb.clone(), write: Some(job.len()), data: &data, ..Io::default() };
    let done = job.conn.run(&io)?;
    holds("7143-11.4.2-1", "CHECK CONDITION", &done.last, done.status() == 2)?;
    holds("7143-11.4.7-2", "sense 5/21/00", &done.last, done.sense() == Some((5, 0x21, 0)))?;
    job.conn.expect_alive("7143-11.4.2-1")
}

fn empty_data_out(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 2048)?;
    let (command, r2t) = job.first_r2t()?;
    let lun = r2t.bhs[at::LUN..at::LUN + 8].to_vec();
    let data = job.data.clone();
    let len = r2t.be32(at::DESIRED) as usize;
    let empty = job.conn.data_out(command.itt(), r2t.ttt(), 0, 0, &[]).bytes(at::LUN, &lun);
    let rest = job.conn.data_out(command.itt(), r2t.ttt(), 1, 0, &data[..len]).bytes(at::LUN, &lun);
    job.conn.send(&empty);
    job.conn.send(&rest.set(at::FLAGS, F));
    let done = job.conn.finish(&command, &Io { data: &data, ..Io::default() })?;
    holds("7143-11.7.7-1", "GOOD", &done.last, done.status() == 0)?;
    job.check()
}

fn exp_data_sn(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let done = job.write(0)?;
    holds("7143-11.4.8-1", "ExpDataSN 0", &done.last, done.last.be32(at::DATA_SN) == 0)
}

fn several(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    if job.conn.max_cmd_sn.wrapping_sub(job.conn.cmd_sn) < 3 {
        return skip("the command window holds less than four");
    }
    let commands: Vec<Pdu> = (0..4).map(|_| job.command()).collect();
    commands.iter().for_each(|command| job.conn.send(command));
    let mut open = commands.len();
    while open > 0 {
        match job.conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::R2T => job.answer(&pdu)?,
            Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE => {
                holds("7143-4.2.5.3-1", "GOOD", &pdu, pdu.byte(at::STATUS) == 0)?;
                open -= 1;
            }
            got => return got.wrong("7143-4.2.5.1-4", "R2Ts and SCSI Responses"),
        }
    }
    job.check()
}
