//! Sending: a queue of what is to be made into PDUs, and the bytes of those made.
//!
//! ```text
//!   queue   Control · Put · R2T …   in the order of the calls; a Put is many Data-In PDUs
//!   jobs    answers to R2Ts         at an initiator, after what is in the queue
//!     │ materialise: a writev's worth at a time
//!     ▼
//!   segs    Head(n) Data(bytes) Head(n) …    headers, short data, padding and digests lie in the arena
//! ```

use crate::core::TcpCore;
use bytes::{Buf, Bytes};
use datamover::Cause;
use iscsi_pdu::{BHS_LEN, Crc32c, DataLen, EncodeError, Itt, Pdu, R2t, header_digest, pad_len};
use std::collections::VecDeque;
use std::io::IoSlice;

use crate::datain::Put;
use crate::r2t::Job;
use crate::snack::Sent;

/// Payloads up to this long are copied behind their header: cheaper than another slice.
const SHORT: usize = 256;
/// Bytes, and slices, to have ready for one write.
const READY_BYTES: usize = 512 << 10;
const READY_SEGS: usize = 160;
/// Sent bytes in the arena before the rest is moved to its front.
const ARENA_SLACK: usize = 32 << 10;

pub(crate) enum Item {
    Control(Pdu<Bytes>),
    Put(Put),
    R2t(R2t),
    /// A PDU that the initiator asked for again.
    Again(Itt, Sent),
}

/// A piece of the byte stream.
enum Seg {
    /// So many bytes of the arena.
    Head(usize),
    /// Payload.
    Data(Bytes),
    /// All of a Put is in front of this.
    Done(Itt, u32),
}

pub(crate) struct Tx {
    pub(crate) queue: VecDeque<Item>,
    pub(crate) jobs: VecDeque<Job>,
    controls: usize,
    puts: usize,
    segs: VecDeque<Seg>,
    arena: Vec<u8>,
    /// Bytes at the front of the arena that were sent.
    spent: usize,
    /// Bytes in `segs`.
    ready: usize,
}

/// Length of a data segment that is sent by other means.
#[derive(Clone, Copy, Default)]
pub(crate) struct Length(pub(crate) usize);

impl DataLen for Length {
    fn data_len(&self) -> usize {
        self.0
    }
}

impl Tx {
    pub(crate) fn new(unsent: Bytes) -> Self {
        let mut tx = Self {
            queue: VecDeque::new(),
            jobs: VecDeque::new(),
            controls: 0,
            puts: 0,
            segs: VecDeque::new(),
            arena: Vec::new(),
            spent: 0,
            ready: 0,
        };
        if !unsent.is_empty() {
            tx.ready = unsent.len();
            tx.segs.push_back(Seg::Data(unsent));
        }
        tx
    }

    pub(crate) fn controls(&self) -> usize {
        self.controls
    }

    pub(crate) fn puts(&self) -> usize {
        self.puts
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.jobs.is_empty() && self.segs.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(Bytes::new());
    }

    pub(crate) fn push_control(&mut self, pdu: Pdu<Bytes>) {
        self.controls = self.controls.saturating_add(1);
        self.queue.push_back(Item::Control(pdu));
    }

    pub(crate) fn insert_put(&mut self, at: usize, put: Put) {
        self.puts = self.puts.saturating_add(1);
        self.queue.insert(at.min(self.queue.len()), Item::Put(put));
    }

    /// Drops what has not been made of a task's Puts.
    pub(crate) fn drop_puts(&mut self, itt: Itt) {
        let before = self.queue.len();
        self.queue.retain(|item| !matches!(item, Item::Put(put) if put.itt() == itt));
        self.puts = self.puts.saturating_sub(before.saturating_sub(self.queue.len()));
    }

    pub(crate) fn put_done(&mut self, done: Option<(Itt, u32)>) {
        self.puts = self.puts.saturating_sub(1);
        if let Some((itt, offset)) = done {
            self.segs.push_back(Seg::Done(itt, offset));
        }
    }

    /// Fills `iov` with what is ready.
    pub(crate) fn slices<'a>(&'a self, iov: &mut [IoSlice<'a>]) -> usize {
        let mut heads = self.arena.get(self.spent..).unwrap_or_default();
        let mut filled = 0usize;
        for seg in &self.segs {
            let bytes = match seg {
                Seg::Head(n) => {
                    let (head, rest) = heads.split_at(heads.len().min(*n));
                    heads = rest;
                    head
                }
                Seg::Data(bytes) => bytes,
                Seg::Done(..) => continue,
            };
            let Some(slot) = iov.get_mut(filled) else { break };
            *slot = IoSlice::new(bytes);
            filled = filled.saturating_add(1);
        }
        filled
    }

    /// Takes up to `n` bytes off the front; stops after each finished Put, which it returns.
    pub(crate) fn sent(&mut self, n: &mut usize) -> Option<(Itt, u32)> {
        loop {
            match self.segs.front_mut() {
                Some(Seg::Done(itt, offset)) => {
                    let done = (*itt, *offset);
                    self.segs.pop_front();
                    return Some(done);
                }
                Some(Seg::Head(len)) if *n > 0 => {
                    let take = (*len).min(*n);
                    *len = len.saturating_sub(take);
                    let rest = *len;
                    self.spent = self.spent.saturating_add(take);
                    self.took(take, n, rest);
                }
                Some(Seg::Data(bytes)) if *n > 0 => {
                    let take = bytes.len().min(*n);
                    bytes.advance(take);
                    let rest = bytes.len();
                    self.took(take, n, rest);
                }
                _ => return None,
            }
            if self.spent == self.arena.len() {
                self.arena.clear();
                self.spent = 0;
            } else if self.spent > ARENA_SLACK {
                self.arena.drain(..self.spent);
                self.spent = 0;
            }
        }
    }

    fn took(&mut self, take: usize, n: &mut usize, rest: usize) {
        *n = n.saturating_sub(take);
        self.ready = self.ready.saturating_sub(take);
        if rest == 0 {
            self.segs.pop_front();
        }
    }

    fn head(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.arena.extend_from_slice(bytes);
        self.ready = self.ready.saturating_add(bytes.len());
        match self.segs.back_mut() {
            Some(Seg::Head(n)) => *n = n.saturating_add(bytes.len()),
            _ => self.segs.push_back(Seg::Head(bytes.len())),
        }
    }

    fn data(&mut self, bytes: Bytes) {
        self.ready = self.ready.saturating_add(bytes.len());
        self.segs.push_back(Seg::Data(bytes));
    }
}

impl TcpCore {
    /// Makes PDUs until a write's worth is ready.
    pub(crate) fn materialise(&mut self) {
        while self.tx.ready < READY_BYTES && self.tx.segs.len() < READY_SEGS {
            let made = match self.tx.queue.pop_front() {
                Some(Item::Control(pdu)) => {
                    self.tx.controls = self.tx.controls.saturating_sub(1);
                    self.make_control(pdu)
                }
                Some(Item::Put(put)) => self.make_data_in(put),
                Some(Item::R2t(r2t)) => self.make_r2t(r2t),
                Some(Item::Again(itt, sent)) => self.make_again(itt, sent),
                None => match self.tx.jobs.pop_front() {
                    Some(job) => self.make_data_out(job),
                    None => return,
                },
            };
            if made.is_err() {
                self.fail(Cause::Protocol("a PDU from above that cannot be encoded (RFC 7143 section 11)"));
                return;
            }
        }
    }

    fn make_control(&mut self, mut pdu: Pdu<Bytes>) -> Result<(), EncodeError> {
        if let Pdu::ScsiResponse(r) = &mut pdu {
            // req: 7143-11.4.8-1
            r.exp_data_sn = self.close_numbers(r);
        }
        let data = pdu.data().cloned().unwrap_or_default();
        if matches!(pdu, Pdu::ScsiCommand(_) | Pdu::DataOut(_)) {
            self.stats.data_out = self.stats.data_out.saturating_add(data.len() as u64);
        }
        self.make(&pdu, data.len(), std::iter::once(data))
    }

    /// Makes one PDU whose data segment is `pieces`, of `len` bytes in total.
    // req: 7143-11.2.3-1, 7143-11.2.3-2, 7143-13.1-3
    pub(crate) fn make<D: DataLen>(
        &mut self,
        pdu: &Pdu<D>,
        len: usize,
        pieces: impl Iterator<Item = Bytes>,
    ) -> Result<(), EncodeError> {
        let mut bhs = [0; BHS_LEN];
        pdu.encode_header(&mut bhs)?;
        self.stats.pdus_out = self.stats.pdus_out.saturating_add(1);
        let tx = &mut self.tx;
        tx.head(&bhs);
        if matches!(pdu, Pdu::ScsiCommand(c) if !c.ahs.is_empty()) {
            let at = tx.arena.len();
            pdu.encode_ahs(&mut tx.arena);
            let ahs = tx.arena.split_off(at);
            tx.head(&ahs);
            if self.digests.header {
                tx.head(&header_digest(&bhs, &ahs));
            }
        } else if self.digests.header {
            tx.head(&header_digest(&bhs, &[]));
        }
        let mut crc = Crc32c::new();
        for piece in pieces {
            if self.digests.data {
                crc = crc.update(&piece);
            }
            if len <= SHORT {
                tx.head(&piece);
            } else {
                tx.data(piece);
            }
        }
        tx.head([0u8; 3].get(..pad_len(len)).unwrap_or_default());
        if self.digests.data_len(len) > 0 {
            tx.head(&crc.pad(len).to_wire());
        }
        Ok(())
    }
}
