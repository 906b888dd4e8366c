//! The lean client: keeps N commands under way on one connection, sends all that are due in one write, takes what
//! comes in one large read and parses it in place. It costs so little that a fast target shows.

use std::io::{IoSlice, Read as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::load::{self, Load};
use super::wire::{BHS, Session, Url, be32, body, op, put32, segment};
use super::{Sample, Workload};

/// PDUs whose digests are checked: enough to know that they are right, too few to cost.
const CHECKED: usize = 64;

/// A command under way.
#[derive(Clone, Copy)]
struct Pending {
    at: Instant,
    write: bool,
}

/// Cheap random numbers (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// Writes all of the slices.
pub(crate) fn write_all(mut out: impl std::io::Write, mut slices: &mut [IoSlice<'_>]) -> Result<()> {
    while !slices.is_empty() {
        let most = slices.len().min(1024);
        let written = out.write_vectored(&slices[..most])?;
        ensure!(written > 0, "connection closed");
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

/// A piece of what is to be sent.
enum Piece {
    /// So many bytes of the headers.
    Head(usize),
    /// Payload, with padding needless and the digest behind it in the headers.
    Data(usize),
}

pub(crate) struct Client<'a> {
    session: Session,
    workload: &'a Workload,
    pending: Vec<Option<Pending>>,
    free: Vec<u32>,
    heads: Vec<u8>,
    pieces: Vec<Piece>,
    payload: Vec<u8>,
    /// Digest of the payload by length; there are few lengths.
    crcs: Vec<(usize, [u8; 4])>,
    random: Random,
    next: u64,
    latencies: Vec<u32>,
    /// What has come of a PDU that is not whole.
    rest: Vec<u8>,
    /// Bytes to come that are not looked at.
    skip: usize,
    unchecked: usize,
}

/// Runs a workload on one session for a time.
pub(crate) fn run(url: &Url, workload: &Workload, time: Duration, seed: u64) -> Result<Sample> {
    load::one(Client::open(url, workload, 0, seed)?, time)
}

/// Writes every byte of the unit's first `bytes` once, so that reads find what a used disk has.
pub(crate) fn fill(url: &Url, bytes: u64) -> Result<()> {
    let workload = Workload { span: bytes, ..Workload::new("fill", 0, 256 << 10, 4) };
    let session = Session::open(url, false)?;
    ensure!(session.blocks * u64::from(session.block_size) >= bytes, "the unit is smaller than the span");
    drop(session);
    // Sequential writes from the beginning, until all is written.
    let (count, mut time) = (bytes as usize / workload.size, Duration::from_millis(500));
    while run(url, &workload, time, 1)?.latencies.len() < count {
        time *= 2;
    }
    Ok(())
}

impl<'a> Client<'a> {
    /// Logs in, as an initiator port of this number.
    pub(crate) fn open(url: &Url, workload: &'a Workload, port: u16, seed: u64) -> Result<Self> {
        let session = Session::open_as(url, workload.digests, port)?;
        Ok(Self {
            pending: vec![None; workload.depth],
            free: (0..workload.depth as u32).rev().collect(),
            heads: Vec::new(),
            pieces: Vec::new(),
            payload: (0..workload.size).map(|n| (n * 7 + n / 4096) as u8).collect(),
            crcs: Vec::new(),
            random: Random(seed | 1),
            next: 0,
            latencies: Vec::new(),
            rest: Vec::new(),
            skip: 0,
            unchecked: CHECKED,
            session,
            workload,
        })
    }
}

impl Load for Client<'_> {
    fn socket(&self) -> &TcpStream {
        &self.session.socket
    }

    fn offer(&mut self, over: bool, now: Instant) -> Result<()> {
        while !over && !self.free.is_empty() && self.session.window_open() {
            self.begin(now);
        }
        self.flush()
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<()> {
        let before = self.rest.len();
        buffer[..before].copy_from_slice(&self.rest);
        let got = self.session.socket.read(&mut buffer[before..])?;
        ensure!(got > 0, "the target closed the connection");
        let have = before + got;
        let now = Instant::now();
        let mut at = 0;
        loop {
            // The rest of a data segment is not looked at.
            let step = self.skip.min(have - at);
            (at, self.skip) = (at + step, self.skip - step);
            if self.skip > 0 || have - at < BHS {
                break;
            }
            let rest = body(&buffer[at..at + BHS], self.session.digests);
            // While digests are checked, the whole PDU must be there.
            if self.session.digests && self.unchecked > 0 {
                if have - at < BHS + rest {
                    break;
                }
                self.check(&buffer[at..at + BHS + rest])?;
            }
            let bhs: [u8; BHS] = buffer[at..at + BHS].try_into()?;
            self.pdu(&bhs, now)?;
            (at, self.skip) = (at + BHS, rest);
        }
        self.rest.clear();
        self.rest.extend_from_slice(&buffer[at..have]);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.free.len() == self.pending.len()
    }

    fn latencies(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.latencies)
    }
}

impl Client<'_> {
    fn check(&mut self, pdu: &[u8]) -> Result<()> {
        self.unchecked -= 1;
        let ahs = usize::from(pdu[4]) * 4;
        let (head, rest) = pdu.split_at(BHS + ahs);
        ensure!(rest[..4] == crc32c::crc32c(head).to_le_bytes(), "the header digest is wrong");
        if segment(pdu) > 0 {
            let (data, digest) = rest[4..].split_at(segment(pdu).next_multiple_of(4));
            ensure!(digest == crc32c::crc32c(data).to_le_bytes(), "the data digest is wrong");
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant) {
        let Some(itt) = self.free.pop() else { return };
        let Workload { size, span, .. } = *self.workload;
        let write = self.random.below(100) >= self.workload.reads;
        let slots = span / size as u64;
        let slot = if self.workload.random { self.random.below(slots) } else { self.next % slots };
        self.next += 1;
        let block = u64::from(self.session.block_size);
        let (lba, blocks) = (slot * size as u64 / block, (size as u64 / block) as u32);
        let mut cdb = [0; 16];
        cdb[0] = if write { 0x8a } else { 0x88 };
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
        let immediate = if write { size.min(self.session.immediate as usize) } else { 0 };
        let flags = if write { 0x20 } else { 0x40 };
        let bhs = self.session.command(itt, &cdb, flags, size as u32, immediate);
        self.send(&bhs, immediate);
        self.pending[itt as usize] = Some(Pending { at: now, write });
    }

    /// Queues a PDU with `len` bytes of the payload.
    fn send(&mut self, bhs: &[u8; BHS], len: usize) {
        let before = self.heads.len();
        self.heads.extend_from_slice(bhs);
        if self.session.digests {
            self.heads.extend_from_slice(&crc32c::crc32c(bhs).to_le_bytes());
        }
        let grown = self.heads.len() - before;
        match self.pieces.last_mut() {
            Some(Piece::Head(n)) => *n += grown,
            _ => self.pieces.push(Piece::Head(grown)),
        }
        if len == 0 {
            return;
        }
        self.pieces.push(Piece::Data(len));
        if self.session.digests {
            let digest = match self.crcs.iter().find(|(l, _)| *l == len) {
                Some((_, digest)) => *digest,
                None => {
                    let digest = crc32c::crc32c(&self.payload[..len]).to_le_bytes();
                    self.crcs.push((len, digest));
                    digest
                }
            };
            self.heads.extend_from_slice(&digest);
            self.pieces.push(Piece::Head(4));
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let mut heads = &self.heads[..];
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            slices.push(match piece {
                Piece::Head(n) => {
                    let (head, rest) = heads.split_at(*n);
                    heads = rest;
                    IoSlice::new(head)
                }
                Piece::Data(n) => IoSlice::new(&self.payload[..*n]),
            });
        }
        write_all(&self.session.socket, &mut slices)?;
        self.heads.clear();
        self.pieces.clear();
        Ok(())
    }

    fn pdu(&mut self, bhs: &[u8; BHS], now: Instant) -> Result<()> {
        self.session.note(bhs);
        match bhs[0] & 0x3f {
            op::DATA_IN if bhs[1] & 1 == 0 => Ok(()),
            op::DATA_IN | op::RESPONSE => self.done(bhs, now),
            op::R2T => self.answer(bhs),
            op::NOP_IN => {
                self.pong(bhs);
                Ok(())
            }
            other => bail!("unexpected PDU {other:#04x} from the target"),
        }
    }

    fn done(&mut self, bhs: &[u8; BHS], now: Instant) -> Result<()> {
        ensure!(bhs[3] == 0, "a command ended with status {:#04x}", bhs[3]);
        let itt = be32(bhs, 16);
        let slot = self.pending.get_mut(itt as usize).and_then(Option::take);
        let Some(pending) = slot else { bail!("an answer to task {itt:#x}, which is not under way") };
        ensure!(!pending.write || bhs[0] & 0x3f == op::RESPONSE, "Data-In for a write");
        self.latencies.push((now - pending.at).as_nanos().min(u64::from(u32::MAX).into()) as u32);
        self.free.push(itt);
        Ok(())
    }

    /// Sends the data that an R2T asks for.
    fn answer(&mut self, r2t: &[u8; BHS]) -> Result<()> {
        let (offset, length) = (be32(r2t, 40), be32(r2t, 44));
        ensure!(offset as usize + length as usize <= self.workload.size, "an R2T beyond the end");
        let (mut sent, mut sn) = (0, 0);
        while sent < length {
            let len = (length - sent).min(self.session.segment);
            let mut bhs = [0; BHS];
            bhs[0] = op::DATA_OUT;
            bhs[1] = if sent + len == length { 0x80 } else { 0 };
            put32(&mut bhs, 4, len);
            bhs[8..24].copy_from_slice(&r2t[8..24]);
            put32(&mut bhs, 28, self.session.exp_stat_sn);
            put32(&mut bhs, 36, sn);
            put32(&mut bhs, 40, offset + sent);
            self.send(&bhs, len as usize);
            sent += len;
            sn += 1;
        }
        Ok(())
    }

    fn pong(&mut self, nop: &[u8; BHS]) {
        if be32(nop, 20) == u32::MAX {
            return;
        }
        let mut bhs = [0; BHS];
        bhs[0] = op::NOP_OUT | 0x40;
        bhs[1] = 0x80;
        bhs[8..16].copy_from_slice(&nop[8..16]);
        put32(&mut bhs, 16, u32::MAX);
        bhs[20..24].copy_from_slice(&nop[20..24]);
        put32(&mut bhs, 24, self.session.cmd_sn);
        put32(&mut bhs, 28, self.session.exp_stat_sn);
        self.send(&bhs, 0);
    }
}
