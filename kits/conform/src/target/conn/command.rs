//! SCSI commands and their data.

use super::Conn;
use crate::pdu::{F, Pdu, at, op};
use crate::verdict::{Stop, error, fail, wrong};
use crate::wire::Got;

/// A SCSI command and how its data goes.
#[derive(Clone, Default)]
pub(crate) struct Io<'a> {
    /// Command descriptor block.
    pub cdb: Vec<u8>,
    /// Expected Data Transfer Length of a read.
    pub read: Option<u32>,
    /// Expected Data Transfer Length of a write.
    pub write: Option<u32>,
    /// What is written.
    pub data: &'a [u8],
    /// How much of it goes with the command.
    pub immediate: usize,
}

/// A finished command.
pub(crate) struct Done {
    /// The PDU that carried the status.
    pub last: Pdu,
    /// What was read, by Buffer Offset.
    pub data: Vec<u8>,
    /// The Data-In PDUs.
    pub ins: Vec<Pdu>,
    /// The R2Ts.
    pub r2ts: Vec<Pdu>,
}

impl Done {
    /// SCSI status.
    pub(crate) fn status(&self) -> u8 {
        self.last.byte(at::STATUS)
    }

    /// Sense key, ASC and ASCQ of fixed or descriptor sense data (SPC-4 4.5).
    pub(crate) fn sense(&self) -> Option<(u8, u8, u8)> {
        let sense = self.last.data.get(2..)?;
        match sense.first()? & 0x7f {
            0x70 | 0x71 => Some((sense.get(2)? & 0x0f, *sense.get(12)?, *sense.get(13)?)),
            0x72 | 0x73 => Some((sense.get(1)? & 0x0f, *sense.get(2)?, *sense.get(3)?)),
            _ => None,
        }
    }
}

impl Conn {
    /// Sends a command and takes all that belongs to it up to its status; R2Ts are answered from `io.data`.
    pub(crate) fn run(&mut self, io: &Io<'_>) -> Result<Done, Stop> {
        let command = self.command(io);
        self.send(&command);
        self.finish(&command, io)
    }

    /// The rest of a command that was sent.
    pub(crate) fn finish(&mut self, command: &Pdu, io: &Io<'_>) -> Result<Done, Stop> {
        let (mut data, mut ins, mut r2ts) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let pdu = match self.next()? {
                Got::Pdu(pdu) if pdu.itt() == command.itt() => pdu,
                got => return got.wrong("7143-4.2.5.1-1", "the next PDU of the command, up to its status"),
            };
            match pdu.opcode() {
                op::SCSI_RESPONSE => return Ok(Done { last: pdu, data, ins, r2ts }),
                op::DATA_IN => {
                    let start = pdu.be32(at::OFFSET) as usize;
                    let end = start + pdu.data.len();
                    if end as u64 > u64::from(command.be32(at::EDTL)) {
                        return wrong("7143-11.7.6-1", "offset and length within the expected length", &pdu);
                    }
                    if data.len() < end {
                        data.resize(end, 0);
                    }
                    data[start..end].copy_from_slice(&pdu.data);
                    ins.push(pdu.clone());
                    if pdu.flags() & 1 != 0 {
                        return Ok(Done { last: pdu, data, ins, r2ts });
                    }
                }
                op::R2T => {
                    let (from, len) = (pdu.be32(at::OFFSET) as usize, pdu.be32(at::DESIRED) as usize);
                    let Some(part) = io.data.get(from..from + len) else {
                        return wrong("7143-11.7.6-1", "an R2T within the expected length", &pdu);
                    };
                    self.answer_r2t(&pdu, part);
                    r2ts.push(pdu);
                }
                _ => return wrong("7143-4.2.5.3-1", "Data-In, R2T or SCSI Response", &pdu),
            }
        }
    }

    /// Answers an R2T in Data-Outs as large as the target takes.
    pub(crate) fn answer_r2t(&mut self, r2t: &Pdu, data: &[u8]) {
        let segment = self.result_or("MaxRecvDataSegmentLength", 8192).clamp(512, 1 << 20) as usize;
        let count = data.len().div_ceil(segment);
        let start = r2t.be32(at::OFFSET);
        for (sn, part) in data.chunks(segment).enumerate() {
            let offset = start + u32::try_from(sn * segment).unwrap_or(u32::MAX);
            let pdu = self.data_out(r2t.itt(), r2t.ttt(), sn, offset, part);
            let pdu = pdu.set(at::FLAGS, if sn + 1 == count { F } else { 0 });
            let pdu = pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]);
            self.send(&pdu);
        }
    }

    /// A Data-Out without F.
    pub(crate) fn data_out(&self, itt: u32, ttt: u32, sn: usize, offset: u32, data: &[u8]) -> Pdu {
        Pdu::new(op::DATA_OUT)
            .set32(at::ITT, itt)
            .set32(at::TTT, ttt)
            .set32(at::EXP_STAT_SN, self.exp_stat_sn())
            .set32(at::DATA_SN, u32::try_from(sn).unwrap_or(u32::MAX))
            .set32(at::OFFSET, offset)
            .with_data(data)
    }

    /// TEST UNIT READY until no unit attention is left.
    pub(crate) fn make_ready(&mut self) -> Result<(), Stop> {
        let mut last = 0;
        for _ in 0..6 {
            let done = self.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
            last = done.status();
            if last == 0 {
                return Ok(());
            }
        }
        error(format!("the logical unit is not ready: status {last:02x}"))
    }

    /// Number of blocks and their size, by READ CAPACITY(10) (SBC-3 5.15).
    pub(crate) fn capacity(&mut self) -> Result<(u32, u32), Stop> {
        let mut cdb = vec![0; 10];
        cdb[0] = 0x25;
        let done = self.run(&Io { cdb, read: Some(8), ..Io::default() })?;
        let Ok(data) = <[u8; 8]>::try_from(done.data.as_slice()) else {
            return error(format!("READ CAPACITY(10) gave {} bytes", done.data.len()));
        };
        let [a, b, c, d, e, f, g, h] = data;
        let (last, size) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if size == 0 || size > 1 << 16 {
            return error(format!("a block size of {size} bytes"));
        }
        Ok((last.saturating_add(1), size))
    }

    /// Good status is needed to go on.
    pub(crate) fn good(&mut self, io: &Io<'_>) -> Result<Done, Stop> {
        let done = self.run(io)?;
        if done.status() != 0 {
            return fail(
                "7143-11.4.3-2",
                "status GOOD",
                format!("{}, sense {:02x?}", done.last.title(), done.sense()),
            );
        }
        Ok(done)
    }
}

/// READ(10) or WRITE(10) (SBC-3 5.11, 5.33).
pub(crate) fn cdb10(opcode: u8, lba: u32, blocks: u16) -> Vec<u8> {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    vec![opcode, 0, lba[0], lba[1], lba[2], lba[3], 0, blocks[0], blocks[1], 0]
}

/// INQUIRY of standard data (SPC-4 6.6).
pub(crate) fn inquiry(allocation: u16) -> Vec<u8> {
    let length = allocation.to_be_bytes();
    vec![0x12, 0, 0, length[0], length[1], 0]
}
