//! From posted work to FPDUs: order, segmentation, and what waits for what.

use super::{Completion, Done, QueuePair, ReadWr, Refusal, Refused, RemoteAddr, SendWr, WrId, WriteWr};
use crate::ddp::{Header, Model, TAGGED_LEN, UNTAGGED_LEN};
use crate::mpa::{Established, Role, Rtr, mulpdu};
use crate::rdmap::{Opcode, ReadRequest};
use crate::stag::{Kind, Region, Stag};
use crate::{Gather, Memory, Terminate, TerminateCode, memory};
use std::collections::VecDeque;

/// Octets worth having ready for one vectored write.
const READY_BYTES: usize = 256 * 1024;
/// Pieces worth having ready for one vectored write.
const READY_PIECES: usize = 64;
/// Largest ULPDU with markers: a marker's pointer has 16 bits, and counts the markers before it.
const MARKED_ULPDU: u16 = 64_000;

/// Work in the send queue, from posting to completion.
struct Posted<M> {
    id: WrId,
    work: Work<M>,
    fence: bool,
    unsignaled: bool,
    /// Stream position behind the last octet, once all of it has been built.
    end: Option<u64>,
}

enum Work<M> {
    Send {
        payload: Gather,
        invalidate: Option<Stag>,
        solicited: bool,
    },
    Write {
        payload: Gather,
        to: RemoteAddr,
    },
    /// The sink is here before the request is sent and after the response has come.
    Read {
        from: RemoteAddr,
        len: u32,
        sink: Option<M>,
        done: bool,
    },
}

/// An RDMA Read whose response has not come.
pub(super) struct PendingRead<M> {
    /// Place in the send queue; `None` for an RTR indication, which nobody posted.
    seq: Option<u64>,
    pub(super) stag: Stag,
    pub(super) len: u32,
    pub(super) received: u32,
    pub(super) sink: Option<M>,
}

/// The message being cut into segments.
enum Current {
    /// Work `seq` of the send queue, of which `sent` octets are gone.
    Work { seq: u64, sent: u64 },
    /// A response.
    Response(Answer),
}

/// An RDMA Read of the peer to be answered.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// What is still to be sent.
    pub(super) request: ReadRequest,
    /// Number of the request's message.
    pub(super) msn: u32,
}

pub(super) struct Tx<M> {
    queue: VecDeque<Posted<M>>,
    /// Sequence number of the front of the queue.
    front: u64,
    /// Sequence number of the first work not begun.
    next: u64,
    current: Option<Current>,
    pub(super) reads: VecDeque<PendingRead<M>>,
    pub(super) responses: VecDeque<Answer>,
    /// Whether the next message is to be a response, if there is one to be sent.
    respond: bool,
    rtr: Option<Rtr>,
    pub(super) terminate: Option<Terminate>,
    /// FPDUs may be sent.
    pub(super) open: bool,
    /// No more work is taken.
    pub(super) closing: bool,
    /// Nothing more will be built.
    pub(super) done: bool,
    mulpdu: usize,
    markers: bool,
    pub(super) send_msn: u32,
    read_msn: u32,
}

impl<M> Tx<M> {
    pub(super) fn new(e: &Established, emss: u32) -> Self {
        let mut tx = Self {
            queue: VecDeque::new(),
            front: 0,
            next: 0,
            current: None,
            reads: VecDeque::new(),
            responses: VecDeque::new(),
            respond: false,
            rtr: e.rtr,
            terminate: None,
            open: e.role == Role::Initiator,
            closing: false,
            done: false,
            mulpdu: 0,
            markers: e.tx_markers,
            // The first message of a queue has number one (RFC 5041 section 4.3).
            send_msn: 1,
            read_msn: 1,
        };
        tx.set_emss(emss);
        tx
    }

    pub(super) fn set_emss(&mut self, emss: u32) {
        let ulpdu = mulpdu(emss, self.markers);
        self.mulpdu = usize::from(if self.markers { ulpdu.min(MARKED_ULPDU) } else { ulpdu });
    }

    /// Whether all that was posted is done, and all that was asked is answered.
    pub(super) fn idle(&self) -> bool {
        self.queue.is_empty()
            && self.current.is_none()
            && self.responses.is_empty()
            && self.reads.is_empty()
            && self.rtr.is_none()
            && self.terminate.is_none()
    }

    /// Reads posted and not completed, and the RTR indication if it is one.
    pub(super) fn reads_posted(&self) -> usize {
        let queued = self.queue.iter().filter(|p| matches!(p.work, Work::Read { done: false, .. })).count();
        queued.saturating_add(self.reads.iter().filter(|r| r.seq.is_none()).count())
    }

    fn posted(&mut self, seq: u64) -> Option<&mut Posted<M>> {
        self.queue.get_mut(usize::try_from(seq.checked_sub(self.front)?).ok()?)
    }

    /// Requests of the peer that have not been answered.
    pub(super) fn unanswered(&self) -> usize {
        self.responses.len().saturating_add(usize::from(matches!(self.current, Some(Current::Response(_)))))
    }
}

impl<M: Memory> QueuePair<M> {
    /// Posts a Send.
    pub fn post_send(&mut self, wr: SendWr) -> Result<(), Refused<SendWr>> {
        if let Some(reason) = self.refuse(Some(&wr.payload), 0) {
            return Err(Refused { reason, work: wr });
        }
        let SendWr { id, payload, invalidate, solicited, fence, unsignaled } = wr;
        self.push(id, Work::Send { payload, invalidate, solicited }, fence, unsignaled);
        Ok(())
    }

    /// Posts an RDMA Write.
    pub fn post_write(&mut self, wr: WriteWr) -> Result<(), Refused<WriteWr>> {
        if let Some(reason) = self.refuse(Some(&wr.payload), wr.to.offset) {
            return Err(Refused { reason, work: wr });
        }
        let WriteWr { id, payload, to, fence, unsignaled } = wr;
        self.push(id, Work::Write { payload, to }, fence, unsignaled);
        Ok(())
    }

    /// Posts an RDMA Read. No more than ORD are outstanding at a time; this one and what is posted after it wait for
    /// their turn.
    pub fn post_read(&mut self, wr: ReadWr<M>) -> Result<(), Refused<ReadWr<M>>> {
        let reason = match self.refuse(None, 0) {
            Some(reason) => Some(reason),
            None if self.ord == 0 => Some(Refusal::NoReads),
            None if self.rx.half_closed => Some(Refusal::Closed),
            None if wr.from.offset.checked_add(u64::from(wr.len)).is_none() => Some(Refusal::OffsetWrap),
            None if (wr.sink.len() as u64) < u64::from(wr.len) => Some(Refusal::SinkTooSmall),
            None => None,
        };
        if let Some(reason) = reason {
            return Err(Refused { reason, work: wr });
        }
        let ReadWr { id, from, len, sink } = wr;
        self.push(id, Work::Read { from, len, sink: Some(sink), done: false }, false, false);
        Ok(())
    }

    /// Work that may still be posted before the send queue is full.
    pub fn send_room(&self) -> usize {
        self.limits.send_queue.saturating_sub(self.tx.queue.len())
    }

    fn refuse(&self, payload: Option<&Gather>, offset: u64) -> Option<Refusal> {
        let len = payload.map_or(0, Gather::len);
        if self.cause.is_some() || self.tx.closing {
            Some(Refusal::Closed)
        } else if self.send_room() == 0 {
            Some(Refusal::Full)
        } else if len > u64::from(u32::MAX) {
            Some(Refusal::TooLong)
        } else if offset.checked_add(len).is_none() {
            Some(Refusal::OffsetWrap)
        } else {
            None
        }
    }

    fn push(&mut self, id: WrId, work: Work<M>, fence: bool, unsignaled: bool) {
        self.tx.queue.push_back(Posted { id, work, fence, unsignaled, end: None });
    }

    /// Builds FPDUs until there is enough for a write, or nothing left that may be sent.
    pub(super) fn fill(&mut self) {
        while self.out.queued() < READY_BYTES && self.out.pieces() < READY_PIECES && self.step() {}
        self.settle();
    }

    /// Builds one FPDU.
    fn step(&mut self) -> bool {
        if self.tx.done {
            return false;
        }
        if let Some(terminate) = self.tx.terminate.take() {
            self.build_terminate(&terminate);
            // Nothing follows a Terminate message (RFC 5040 section 5.4).
            self.tx.done = true;
            return true;
        }
        if !self.tx.open || self.cause.is_some() {
            return false;
        }
        // Nothing goes before the RTR indication (RFC 6581 section 5).
        if let Some(rtr) = self.tx.rtr.take() {
            self.build_rtr(rtr);
            return true;
        }
        if self.tx.current.is_none() {
            self.tx.current = self.choose();
        }
        match self.tx.current.take() {
            None => false,
            Some(Current::Work { seq, sent }) => {
                self.tx.current = self.build_work(seq, sent);
                true
            }
            Some(Current::Response(answer)) => {
                self.build_response(answer);
                true
            }
        }
    }

    /// The next message: work and responses take turns, each in its own order (RFC 5040 section 5.5 rules 13 and 20).
    fn choose(&mut self) -> Option<Current> {
        let ready = self.ready();
        if (self.tx.respond || !ready)
            && let Some(answer) = self.tx.responses.pop_front()
        {
            self.tx.respond = false;
            return Some(Current::Response(answer));
        }
        if !ready {
            return None;
        }
        self.tx.respond = true;
        let seq = self.tx.next;
        self.tx.next = seq.wrapping_add(1);
        Some(Current::Work { seq, sent: 0 })
    }

    /// Whether the first work that is not begun may begin.
    fn ready(&mut self) -> bool {
        let (outstanding, ord, seq) = (self.tx.reads.len(), self.ord, self.tx.next);
        match self.tx.posted(seq) {
            None => false,
            // The limit both ends agreed on (RFC 5040 section 6.1).
            Some(Posted { work: Work::Read { .. }, .. }) => outstanding < ord,
            Some(p) => !p.fence || outstanding == 0,
        }
    }

    /// Builds the next segment of work and returns what is left of it.
    fn build_work(&mut self, seq: u64, sent: u64) -> Option<Current> {
        let (mulpdu, msn) = (self.tx.mulpdu, self.tx.send_msn);
        let posted = self.tx.posted(seq)?;
        let (payload, header_len) = match &posted.work {
            Work::Send { payload, .. } => (payload, UNTAGGED_LEN),
            Work::Write { payload, .. } => (payload, TAGGED_LEN),
            Work::Read { .. } => {
                self.build_read(seq);
                return None;
            }
        };
        let left = payload.len().saturating_sub(sent);
        let room = mulpdu.saturating_sub(header_len);
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(room);
        let after = sent.saturating_add(now as u64);
        let last = after == payload.len();
        let header = match &posted.work {
            Work::Send { invalidate, solicited, .. } => {
                let opcode = Opcode::send(invalidate.is_some(), *solicited);
                // The payload is below 2^32 octets.
                let offset = u32::try_from(sent).unwrap_or(u32::MAX);
                let invalidate = invalidate.unwrap_or_default();
                Header::new(opcode, last, Model::Untagged { invalidate, queue: 0, msn, offset })
            }
            Work::Write { to, .. } => {
                let model = Model::Tagged { stag: to.stag, offset: to.offset.saturating_add(sent) };
                Header::new(Opcode::WRITE, last, model)
            }
            Work::Read { .. } => return None,
        };
        let ulpdu = begin(&mut self.out, &header, now);
        payload.range(sent, now, |piece| self.out.share(piece));
        self.out.finish(ulpdu);
        self.stats.fpdus_out = self.stats.fpdus_out.wrapping_add(1);
        if !last {
            return Some(Current::Work { seq, sent: after });
        }
        posted.end = Some(self.out.position());
        if matches!(posted.work, Work::Send { .. }) {
            self.tx.send_msn = msn.wrapping_add(1);
        }
        None
    }

    fn build_read(&mut self, seq: u64) {
        let Some(stag) = self.table.reserve() else {
            return self.fail(Terminate::new(TerminateCode::RDMAP_LOCAL_CATASTROPHIC));
        };
        let Some(Posted { work: Work::Read { from, len, sink, .. }, end, .. }) = self.tx.posted(seq) else {
            return;
        };
        let (from, len, sink) = (*from, *len, sink.take());
        *end = Some(0);
        self.build_request(ReadRequest {
            sink_stag: stag,
            sink_offset: 0,
            size: len,
            source_stag: from.stag,
            source_offset: from.offset,
        });
        self.tx.reads.push_back(PendingRead { seq: Some(seq), stag, len, received: 0, sink });
    }

    fn build_request(&mut self, request: ReadRequest) {
        let msn = self.tx.read_msn;
        self.tx.read_msn = msn.wrapping_add(1);
        let model = Model::Untagged { invalidate: Stag(0), queue: 1, msn, offset: 0 };
        self.build_small(&Header::new(Opcode::READ_REQUEST, true, model), &request.encode());
    }

    /// An indication that costs the responder's consumer nothing and completes nothing here (RFC 6581 section 9.2).
    fn build_rtr(&mut self, rtr: Rtr) {
        match rtr {
            Rtr::Write => {
                let model = Model::Tagged { stag: Stag(0), offset: 0 };
                self.build_small(&Header::new(Opcode::WRITE, true, model), &[]);
            }
            Rtr::Send => {
                let msn = self.tx.send_msn;
                self.tx.send_msn = msn.wrapping_add(1);
                let model = Model::Untagged { invalidate: Stag(0), queue: 0, msn, offset: 0 };
                self.build_small(&Header::new(Opcode::SEND, true, model), &[]);
            }
            Rtr::Read => {
                let none = ReadRequest {
                    sink_stag: Stag(0),
                    sink_offset: 0,
                    size: 0,
                    source_stag: Stag(0),
                    source_offset: 0,
                };
                self.build_request(none);
                self.tx.reads.push_back(PendingRead {
                    seq: None,
                    stag: Stag(0),
                    len: 0,
                    received: 0,
                    sink: None,
                });
            }
        }
    }

    /// Builds the next segment of a response. The STag is looked at for every segment: the consumer may have revoked it
    /// (RFC 5042 section 6.2.2).
    fn build_response(&mut self, answer: Answer) {
        let Answer { mut request, msn } = answer;
        let room = self.tx.mulpdu.saturating_sub(TAGGED_LEN);
        let now = usize::try_from(request.size).unwrap_or(usize::MAX).min(room);
        let size = u32::try_from(now).unwrap_or(u32::MAX);
        let last = size == request.size;
        let model = Model::Tagged { stag: request.sink_stag, offset: request.sink_offset };
        let header = Header::new(Opcode::READ_RESPONSE, last, model);
        if now == 0 {
            self.build_small(&header, &[]);
            return;
        }
        let place =
            match self.table.check(request.source_stag, request.source_offset, u64::from(size), Kind::Read) {
                Ok(place) => place,
                Err(code) => {
                    let model = Model::Untagged { invalidate: Stag(0), queue: 1, msn, offset: 0 };
                    let header = Header::new(Opcode::READ_REQUEST, true, model);
                    let length = UNTAGGED_LEN.saturating_add(ReadRequest::LEN);
                    let segment = u16::try_from(length).ok().map(|n| (n, header));
                    return self.fail(Terminate { code, segment, read_request: Some(request) });
                }
            };
        let ulpdu = begin(&mut self.out, &header, now);
        let out = &mut self.out;
        let all = match self.table.region(place) {
            Some(Region::Shared(data)) => data.range(place.offset, now, |piece| out.share(piece)),
            Some(Region::Owned(m)) => match usize::try_from(place.offset) {
                Ok(offset) => memory::read_at(m, offset, now, |piece| out.copy(piece)),
                Err(_) => false,
            },
            None => false,
        };
        if !all {
            // The memory is not what it was when it was registered. The FPDU cannot be taken back.
            self.end(super::Cause::Local(Terminate::new(TerminateCode::RDMAP_LOCAL_CATASTROPHIC)));
            return self.shut();
        }
        self.out.finish(ulpdu);
        self.stats.fpdus_out = self.stats.fpdus_out.wrapping_add(1);
        if !last {
            // Checked when the request arrived: neither offset exceeds 64 bits.
            request.sink_offset = request.sink_offset.wrapping_add(u64::from(size));
            request.source_offset = request.source_offset.wrapping_add(u64::from(size));
            request.size = request.size.saturating_sub(size);
            self.tx.current = Some(Current::Response(Answer { request, msn }));
        }
    }

    fn build_terminate(&mut self, terminate: &Terminate) {
        // Its queue sees one message only.
        let model = Model::Untagged { invalidate: Stag(0), queue: 2, msn: 1, offset: 0 };
        self.build_small(&Header::new(Opcode::TERMINATE, true, model), &terminate.encode());
    }

    fn build_small(&mut self, header: &Header, payload: &[u8]) {
        let ulpdu = begin(&mut self.out, header, payload.len());
        self.out.copy(payload);
        self.out.finish(ulpdu);
        self.stats.fpdus_out = self.stats.fpdus_out.wrapping_add(1);
    }

    /// The response to the oldest RDMA Read is complete.
    pub(super) fn read_done(&mut self) {
        let Some(read) = self.tx.reads.pop_front() else { return };
        self.table.release(read.stag);
        if let Some(Posted { work: Work::Read { sink, done, .. }, .. }) =
            read.seq.and_then(|s| self.tx.posted(s))
        {
            (*sink, *done) = (read.sink, true);
        }
        self.complete_sends();
    }

    /// Completes work from the front of the queue (RFC 5040 section 5.5 rules 14, 15 and 19).
    pub(super) fn complete_sends(&mut self) {
        let sent = self.out.sent();
        while let Some(front) = self.tx.queue.front() {
            let complete = match (&front.work, front.end) {
                (Work::Read { done, .. }, _) => *done,
                (_, Some(end)) => end <= sent,
                (_, None) => false,
            };
            if !complete {
                break;
            }
            self.retire(false);
        }
        self.settle();
    }

    /// Everything in the send queue comes back; nothing more of it is built.
    pub(super) fn flush_sends(&mut self) {
        while let Some(read) = self.tx.reads.pop_front() {
            self.table.release(read.stag);
            if let Some(Posted { work: Work::Read { sink, .. }, .. }) =
                read.seq.and_then(|s| self.tx.posted(s))
            {
                *sink = read.sink;
            }
        }
        while !self.tx.queue.is_empty() {
            self.retire(true);
        }
        self.tx.current = None;
        self.tx.rtr = None;
        self.tx.responses.clear();
    }

    /// Takes the front of the send queue to the completion queue.
    fn retire(&mut self, flushed: bool) {
        let Some(posted) = self.tx.queue.pop_front() else { return };
        self.tx.front = self.tx.front.wrapping_add(1);
        self.tx.next = self.tx.next.max(self.tx.front);
        let done = match posted.work {
            Work::Send { .. } => Done::Send,
            Work::Write { .. } => Done::Write,
            Work::Read { len, sink: Some(sink), .. } => Done::Read { sink, len },
            // Between the request and its response the sink is with the pending read, and nothing retires it there.
            Work::Read { sink: None, .. } => return,
        };
        if flushed || !posted.unsignaled {
            self.cq.push_back(Completion { id: posted.id, flushed, done });
        }
    }
}

/// Starts the FPDU of a segment with `payload` octets and returns its ULPDU length.
fn begin(out: &mut super::out::Out, header: &Header, payload: usize) -> u16 {
    let header = header.encode();
    let ulpdu = u16::try_from(header.as_slice().len().saturating_add(payload)).unwrap_or(u16::MAX);
    out.begin(ulpdu);
    out.copy(header.as_slice());
    ulpdu
}
