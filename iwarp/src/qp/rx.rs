//! From octets to placed and delivered messages.
//!
//! Everything that arrives lands in the *spill*, except the payload of a large segment whose header is known: that is
//! read straight into the memory it belongs to.
//!
//! ```text
//!   recv_slots:  [ rest of the payload, in its final place │ spill: trailer of this FPDU, next headers, small FPDUs ]
//! ```
//! An FPDU that is whole in the spill is checked (markers, CRC) before anything of it is placed. One that is placed by
//! the socket is checked before it is delivered; until then the octets of its buffer are indeterminate, as RFC 5040
//! section 3.1 has it for operations that are aborted.

use super::admit::Broken;
use super::slots::RecvSlots;
use super::{QueuePair, Stats};
use crate::ddp::{Header, Model};
use crate::mpa::{CRC_LEN, Established, WireFrame, measure, pad_len};
use crate::rdmap::{Opcode, ReadRequest};
use crate::stag::{Kind, Stag};
use crate::{Memory, Terminate, TerminateCode, memory};

/// Octets of the spill, once there is much to read: the largest FPDU with its markers (66 064), and room to read ahead.
const SPILL: usize = 80 * 1024;
/// Octets of the spill at first: an idle connection needs no more, and there may be thousands.
const FIRST_SPILL: usize = 4 * 1024;
/// A payload is read into its final place when at least this much of it is still to come.
const DIRECT_MIN: usize = 2048;
/// Segments of this size and more make the next reads end at a header, so that more of them can be placed directly.
const BULK_MIN: usize = 8192;
/// How many smaller FPDUs after a bulk segment until reads are long again.
const BULK_MEMORY: u8 = 16;
/// Length of a read that is to end soon after the next header.
const SHORT_READ: usize = 512;

/// Where the payload of a segment goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Nowhere: there is none.
    Nothing,
    /// Memory an STag of ours names; the STag is looked up again for every access.
    Tagged { stag: Stag, offset: u64 },
    /// The sink of the oldest RDMA Read.
    Sink { offset: u32 },
    /// The first receive buffer.
    Recv { offset: u32 },
    /// The contents of an RDMA Read Request or a Terminate message.
    Control { queue: u32, offset: u32 },
}

/// A segment whose payload is being read into its final place.
struct Direct {
    header: Header,
    ulpdu: u16,
    payload: usize,
    filled: usize,
    target: Target,
    sum: u32,
}

/// A message of a queue of which some segments have come.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    pub(super) opcode: Opcode,
    pub(super) invalidate: Stag,
    pub(super) offset: u32,
}

/// A queue of untagged buffers.
pub(super) struct Queue {
    /// Number of the message being received, or of the next one.
    pub(super) msn: u32,
    pub(super) partial: Option<Partial>,
}

pub(super) struct Rx {
    spill: Vec<u8>,
    start: usize,
    end: usize,
    /// A read has filled the spill: there was more.
    full: bool,
    /// Stream position of `start`; kept where markers are received, and payloads are not placed directly.
    position: u64,
    direct: Option<Direct>,
    /// Octets the frame at `start` is known to need.
    need: usize,
    bulk: u8,
    markers: bool,
    crc: bool,
    /// A valid FPDU has been received.
    validated: bool,
    /// Everything that arrives is dropped.
    stopped: bool,
    pub(super) half_closed: bool,
    pub(super) queues: [Queue; 3],
    /// Contents of the RDMA Read Request and of the Terminate message being received.
    control: [[u8; Terminate::MAX_LEN]; 2],
}

impl Rx {
    pub(super) fn new(e: &Established) -> Self {
        let queue = || Queue { msn: 1, partial: None };
        Self {
            spill: vec![0; FIRST_SPILL],
            start: 0,
            end: 0,
            full: false,
            position: 0,
            direct: None,
            need: 0,
            bulk: 0,
            markers: e.rx_markers,
            crc: e.crc,
            validated: false,
            stopped: false,
            half_closed: false,
            queues: [queue(), queue(), queue()],
            control: [[0; Terminate::MAX_LEN]; 2],
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.direct = None;
        (self.start, self.end) = (0, 0);
    }

    #[cfg(test)]
    pub(super) fn spill_len(&self) -> usize {
        self.spill.len()
    }

    /// Whether an FPDU has begun and not ended.
    pub(super) fn in_frame(&self) -> bool {
        self.direct.is_some() || self.end > self.start
    }

    fn available(&self) -> &[u8] {
        self.spill.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        self.position = self.position.wrapping_add(n as u64);
        self.need = 0;
    }

    /// How far the next read may reach into the spill.
    fn read_ahead(&self) -> usize {
        let missing = self.need.saturating_sub(self.end.saturating_sub(self.start));
        if self.bulk > 0 { missing.saturating_add(SHORT_READ) } else { SPILL }
    }

    fn queue(&mut self, number: u32) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(number).ok()?)
    }
}

impl<M: Memory> QueuePair<M> {
    /// Where the next octets from the connection belong; never empty. Read into all slices in order, as far as the
    /// connection has octets, and report the number with [`received`](Self::received).
    pub fn recv_slots(&mut self) -> RecvSlots<'_> {
        let rx = &mut self.rx;
        if rx.start > 0 {
            rx.spill.copy_within(rx.start..rx.end, 0);
            (rx.start, rx.end) = (0, rx.end.saturating_sub(rx.start));
        }
        if rx.spill.len() < SPILL && (rx.full || rx.need > rx.spill.len()) {
            rx.spill.resize(SPILL, 0);
        }
        let (from, to) = (rx.end, rx.end.saturating_add(rx.read_ahead()).min(rx.spill.len()));
        let mut slots = RecvSlots::new();
        if let Some(d) = &rx.direct {
            let mut left = d.payload.saturating_sub(d.filled);
            let place = d.target.at(d.filled);
            if let Some((m, offset)) =
                place.memory(&mut self.table, &mut self.recvs, &mut self.tx.reads, left)
            {
                for piece in m.slices_mut(offset) {
                    if left == 0 || slots.nearly_full() {
                        break;
                    }
                    let n = piece.len().min(left);
                    left = left.saturating_sub(n);
                    slots.push(piece.get_mut(..n).unwrap_or_default());
                }
                if left > 0 && !slots.is_empty() {
                    // More pieces than slots: what follows them must not be read yet.
                    return slots;
                }
            }
            // Memory that is gone is noticed when its octets arrive.
        }
        slots.push(rx.spill.get_mut(from..to).unwrap_or_default());
        slots
    }

    /// `n` octets have been read into [`recv_slots`](Self::recv_slots).
    pub fn received(&mut self, n: usize) {
        let mut n = n;
        if let Some(d) = &mut self.rx.direct {
            let take = d.payload.saturating_sub(d.filled).min(n);
            let place = d.target.at(d.filled);
            let crc = self.rx.crc;
            let read = place.memory(&mut self.table, &mut self.recvs, &mut self.tx.reads, take).is_some_and(
                |(m, offset)| {
                    memory::read_at(m, offset, take, |piece| {
                        if crc {
                            d.sum = crc32c::crc32c_append(d.sum, piece);
                        }
                    })
                },
            );
            d.filled = d.filled.saturating_add(take);
            n = n.saturating_sub(take);
            self.stats.placed_bytes = self.stats.placed_bytes.wrapping_add(take as u64);
            if !read && take > 0 {
                // Revoked by the consumer while the segment was under way.
                let (header, ulpdu) = (d.header, d.ulpdu);
                return self.broken(&header, ulpdu, TerminateCode::DDP_INVALID_STAG.into());
            }
        }
        self.rx.end = self.rx.end.saturating_add(n).min(self.rx.spill.len());
        self.rx.full |= self.rx.end == self.rx.spill.len();
        self.process();
    }

    /// Takes octets that were read elsewhere: what is left over from a phase before MPA, or from its startup frames.
    pub fn handle_bytes(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let n = self.recv_slots().fill_from(data);
            if n == 0 {
                return;
            }
            self.received(n);
            data = data.get(n..).unwrap_or_default();
        }
    }

    fn process(&mut self) {
        while !self.rx.stopped {
            let progress = match &self.rx.direct {
                Some(d) if d.filled < d.payload => false,
                Some(_) => self.finish_direct(),
                None => self.next_frame(),
            };
            if !progress {
                return;
            }
        }
        (self.rx.start, self.rx.end) = (0, 0);
    }

    /// Handles the FPDU at the front of the spill as far as it is there.
    fn next_frame(&mut self) -> bool {
        let rx = &mut self.rx;
        let Some(frame) = measure(rx.available(), rx.position, rx.markers) else { return false };
        rx.need = frame.len;
        if rx.available().len() < frame.len {
            return self.begin_direct(frame);
        }
        self.whole_frame(frame);
        true
    }

    /// An FPDU that is whole in the spill.
    fn whole_frame(&mut self, frame: WireFrame) {
        let rx = &mut self.rx;
        let end = rx.start.saturating_add(frame.len);
        let bytes = rx.spill.get_mut(rx.start..end).unwrap_or_default();
        let (covered, sum) = bytes.split_at(frame.len.saturating_sub(CRC_LEN).min(bytes.len()));
        if rx.crc && crc32c::crc32c(covered).to_le_bytes() != *sum {
            return self.fail(Terminate::new(TerminateCode::MPA_CRC));
        }
        if frame.strip_markers(bytes).is_none() {
            return self.fail(Terminate::new(TerminateCode::MPA_MARKER));
        }
        self.valid();
        let ulpdu_at = self.rx.start.saturating_add(2);
        let ulpdu = usize::from(frame.ulpdu);
        let segment = self.rx.spill.get(ulpdu_at..ulpdu_at.saturating_add(ulpdu)).unwrap_or_default();
        let Some(header) = Header::decode(segment) else {
            // Too short for the header its first octet announces: DDP has no code for it.
            return self.fail(Terminate::new(TerminateCode::RDMAP_STREAM_CATASTROPHIC));
        };
        let payload = ulpdu.saturating_sub(header.encoded_len());
        let from = ulpdu_at.saturating_add(header.encoded_len());
        let placed = self.admit(&header, payload).and_then(|target| self.place(target, from, payload));
        let done = placed.and_then(|()| self.commit(&header, payload));
        // A payload of many octets is followed by more of its kind.
        self.rx.bulk = if payload >= BULK_MIN { BULK_MEMORY } else { self.rx.bulk.saturating_sub(1) };
        self.rx.consume(frame.len);
        if let Err(broken) = done {
            self.broken(&header, frame.ulpdu, broken);
        }
    }

    /// Starts reading a payload into its final place, if that is worth it and nothing speaks against it. A segment that
    /// breaks a rule is left to arrive as a whole: whether it is corrupted or wrong is told by its CRC.
    fn begin_direct(&mut self, frame: WireFrame) -> bool {
        let rx = &self.rx;
        let segment = rx.available().get(2..).unwrap_or_default();
        let Some(header) = Header::decode(segment) else { return false };
        let here = segment.len().saturating_sub(header.encoded_len());
        let payload = usize::from(frame.ulpdu).saturating_sub(header.encoded_len());
        // The first FPDU is not placed before it is known to be one.
        if rx.markers || !rx.validated || payload.saturating_sub(here) < DIRECT_MIN {
            return false;
        }
        let Ok(target) = self.admit(&header, payload) else { return false };
        if matches!(target, Target::Control { .. } | Target::Nothing) {
            return false;
        }
        let from = self.rx.start.saturating_add(2).saturating_add(header.encoded_len());
        if self.place(target, from, here).is_err() {
            return false;
        }
        let rx = &mut self.rx;
        let sum = if rx.crc { crc32c::crc32c(rx.available()) } else { 0 };
        let n = rx.available().len();
        rx.consume(n);
        rx.bulk = BULK_MEMORY;
        rx.direct = Some(Direct { header, ulpdu: frame.ulpdu, payload, filled: here, target, sum });
        true
    }

    /// The payload is in its place: check pad and CRC, then deliver.
    fn finish_direct(&mut self) -> bool {
        let rx = &mut self.rx;
        let Some(d) = &rx.direct else { return false };
        let pad = pad_len(d.ulpdu);
        let trailer = pad.saturating_add(CRC_LEN);
        rx.need = trailer;
        let Some((pad, sum)) = rx.available().get(..trailer).and_then(|t| t.split_at_checked(pad)) else {
            return false;
        };
        if rx.crc && crc32c::crc32c_append(d.sum, pad).to_le_bytes() != *sum {
            self.fail(Terminate::new(TerminateCode::MPA_CRC));
            return true;
        }
        let Some(d) = rx.direct.take() else { return false };
        rx.consume(trailer);
        self.valid();
        if let Err(broken) = self.commit(&d.header, d.payload) {
            self.broken(&d.header, d.ulpdu, broken);
        }
        true
    }

    /// A valid FPDU: the initiator is in full operation (RFC 5044 section 7.1.2 rule 4).
    fn valid(&mut self) {
        self.rx.validated = true;
        self.tx.open = true;
        self.stats.fpdus_in = self.stats.fpdus_in.wrapping_add(1);
    }

    /// Copies `len` octets of the spill at `from` to the start of the target.
    fn place(&mut self, target: Target, from: usize, len: usize) -> Result<(), Broken> {
        let data = self.rx.spill.get(from..from.saturating_add(len)).unwrap_or_default();
        let placed = match target {
            Target::Nothing => true,
            Target::Control { queue, offset } => {
                let room =
                    usize::try_from(queue.wrapping_sub(1)).ok().and_then(|q| self.rx.control.get_mut(q));
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                match room.and_then(|r| r.get_mut(at..at.saturating_add(len))) {
                    Some(room) => {
                        room.copy_from_slice(data);
                        true
                    }
                    None => false,
                }
            }
            _ => {
                count(&mut self.stats, len);
                match target.memory(&mut self.table, &mut self.recvs, &mut self.tx.reads, len) {
                    Some((m, offset)) => memory::write_at(m, offset, data),
                    None => len == 0,
                }
            }
        };
        // Only memory that has shrunk since it was handed in does not take what was admitted.
        if placed { Ok(()) } else { Err(TerminateCode::RDMAP_LOCAL_CATASTROPHIC.into()) }
    }

    /// All octets of a segment are in place and checked: account for it and, if it is the last of its message, deliver.
    fn commit(&mut self, header: &Header, payload: usize) -> Result<(), Broken> {
        let opcode = header.control.opcode;
        let size = u32::try_from(payload).unwrap_or(u32::MAX);
        match header.model {
            Model::Tagged { .. } => {
                if opcode == Opcode::READ_RESPONSE {
                    if let Some(read) = self.tx.reads.front_mut() {
                        read.received = read.received.saturating_add(size);
                    }
                    if header.last {
                        self.read_done();
                    }
                }
                Ok(())
            }
            Model::Untagged { invalidate, queue, msn, offset } => {
                let offset = offset.saturating_add(size);
                let Some(state) = self.rx.queue(queue) else { return Ok(()) };
                state.partial = Some(Partial { opcode, invalidate, offset });
                if !header.last {
                    return Ok(());
                }
                state.partial = None;
                state.msn = state.msn.wrapping_add(1);
                match queue {
                    0 => self.deliver_send(opcode, invalidate, offset),
                    1 => self.deliver_request(msn, offset),
                    _ => self.deliver_terminate(offset),
                }
            }
        }
    }

    fn deliver_send(&mut self, opcode: Opcode, stag: Stag, len: u32) -> Result<(), Broken> {
        // Invalidated before the consumer sees the message (RFC 5040 section 5.3).
        let invalidated = match opcode.invalidates() {
            true => Some(self.table.remote_invalidate(stag)?),
            false => None,
        };
        if let Some((id, buffer)) = self.recvs.pop_front() {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let solicited = opcode.is_solicited();
            let done = super::Done::Recv { buffer, len, solicited, invalidated };
            self.cq.push_back(super::Completion { id, flushed: false, done });
        }
        Ok(())
    }

    /// Validates a request once it is all there (RFC 5040 section 7.2); it is answered in its turn.
    fn deliver_request(&mut self, msn: u32, len: u32) -> Result<(), Broken> {
        use TerminateCode as T;
        let [request, _] = &self.rx.control;
        let request = request.get(..usize::try_from(len).unwrap_or_default()).and_then(ReadRequest::decode);
        let Some(request) = request else { return Err(T::RDMAP_STREAM_CATASTROPHIC.into()) };
        let broken = |code| Broken { code, request: Some(request) };
        // A request for no octets is answered without a look at its STag (RFC 5040 section 5.2.1).
        if request.size > 0 {
            let size = u64::from(request.size);
            self.table.check(request.source_stag, request.source_offset, size, Kind::Read).map_err(broken)?;
            if request.sink_offset.checked_add(size).is_none() {
                return Err(broken(T::RDMAP_TO_WRAP));
            }
        }
        self.tx.responses.push_back(super::tx::Answer { request, msn });
        Ok(())
    }

    fn deliver_terminate(&mut self, len: u32) -> Result<(), Broken> {
        let [_, contents] = &self.rx.control;
        let contents = contents.get(..usize::try_from(len).unwrap_or_default()).unwrap_or_default();
        let Some(terminate) = Terminate::decode(contents) else {
            return Err(TerminateCode::RDMAP_STREAM_CATASTROPHIC.into());
        };
        self.end(super::Cause::Remote(terminate));
        self.shut();
        Ok(())
    }

    /// Tells the peer which of its segments broke a rule (RFC 5040 section 7.1 cases 2 and 3).
    fn broken(&mut self, header: &Header, ulpdu: u16, broken: Broken) {
        let Broken { code, request } = broken;
        self.fail(Terminate { code, segment: Some((ulpdu, *header)), read_request: request });
    }
}

fn count(stats: &mut Stats, copied: usize) {
    stats.copied_bytes = stats.copied_bytes.wrapping_add(copied as u64);
}

impl Target {
    /// The same target, `n` octets on.
    fn at(self, n: usize) -> Self {
        let small = |offset: u32| offset.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        match self {
            Self::Nothing => Self::Nothing,
            // Checked on admission: the sum does not exceed 64 bits.
            Self::Tagged { stag, offset } => Self::Tagged { stag, offset: offset.saturating_add(n as u64) },
            Self::Sink { offset } => Self::Sink { offset: small(offset) },
            Self::Recv { offset } => Self::Recv { offset: small(offset) },
            Self::Control { queue, offset } => Self::Control { queue, offset: small(offset) },
        }
    }

    /// The memory of the target and the offset in it, if `len` octets there may be written now.
    fn memory<'a, M: Memory>(
        self,
        table: &'a mut crate::stag::StagTable<M>,
        recvs: &'a mut std::collections::VecDeque<(super::WrId, M)>,
        reads: &'a mut std::collections::VecDeque<super::tx::PendingRead<M>>,
        len: usize,
    ) -> Option<(&'a mut M, usize)> {
        match self {
            Self::Tagged { stag, offset } => {
                let place = table.check(stag, offset, len as u64, Kind::Write).ok()?;
                let offset = usize::try_from(place.offset).ok()?;
                Some((table.memory_mut(place)?, offset))
            }
            Self::Sink { offset } => Some((reads.front_mut()?.sink.as_mut()?, usize::try_from(offset).ok()?)),
            Self::Recv { offset } => Some((&mut recvs.front_mut()?.1, usize::try_from(offset).ok()?)),
            Self::Nothing | Self::Control { .. } => None,
        }
    }
}
