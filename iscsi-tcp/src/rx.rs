//! Receiving: header → steer → digest.
//!
//! ```text
//!   one readv:  [ rest of the data segment, in its final buffer ][ padding, digest ][ spill ────────── ]
//!                                                                                    headers, small PDUs,
//!                                                                                    head of the next segment
//! ```
//! A data segment belongs to a task's buffer (Data-In at an initiator, solicited Data-Out at a target), or goes up
//! with its PDU, or is dropped. What of it arrived in the spill is copied once, or handed up as a slice.

use crate::core::TcpCore;
use crate::spill::Spill;
use bytes::Bytes;
use datamover::{Cause, Control, IoBuf, Role, TaskBuffers};
use iscsi_pdu::{
    BHS_LEN, Crc32c, DIGEST_LEN, DecodeErrorKind, Itt, LogoutReason, Pdu, RejectReason, ScsiCommand,
    SegmentLen, Ttt, header_digest, pad_len,
};
use std::io::IoSliceMut;

/// Slices of one read.
const SLOTS: usize = 20;
/// Segments from here on are read to their buffer rather than through the spill.
const LARGE: usize = 16 << 10;
/// Padding and digest.
const TAIL: usize = 3 + DIGEST_LEN;

/// Where a data segment goes.
pub(crate) enum To {
    /// Initiator: the task's input buffer, from this offset on.
    In { itt: Itt, at: usize },
    /// Target: the buffer of a Get_Data, from this offset on.
    Get { get: Ttt, at: usize },
    /// Up with its PDU, in memory of its own.
    Gather { buf: IoBuf, at: usize },
    /// Up with its PDU, awaited in the spill.
    Spill,
    /// Nowhere.
    Skip,
}

/// A data segment that is under way.
struct Segment {
    pdu: Option<Pdu<SegmentLen>>,
    to: To,
    /// Bytes of data still to come.
    left: usize,
    /// Bytes of padding.
    pad: usize,
    /// Bytes of padding and digest still to come.
    tail: usize,
    crc: Crc32c,
}

pub(crate) struct Rx {
    spill: Spill,
    /// BHS, AHSs and digest of the PDU at hand.
    head: Vec<u8>,
    header_len: usize,
    segment: Option<Segment>,
    /// Padding and digest as they arrive, at the end of the array.
    tail: [u8; TAIL],
    stopped: bool,
    /// The last header was damaged: its lengths are believed only if a header follows that is not.
    resync: bool,
}

impl Rx {
    pub(crate) fn new(unread: &[u8]) -> Self {
        Self {
            spill: Spill::new(unread),
            head: Vec::with_capacity(64),
            header_len: 0,
            segment: None,
            tail: [0; TAIL],
            stopped: false,
            resync: false,
        }
    }

    /// BHS and AHSs of the PDU at hand.
    pub(crate) fn header(&self) -> &[u8] {
        self.head.get(..self.header_len).unwrap_or_default()
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.segment = None;
    }

    /// The buffer of a Get is taken away: what still comes for it is dropped.
    pub(crate) fn skip_get(&mut self, tag: Ttt) {
        if let Some(segment) = &mut self.segment
            && matches!(segment.to, To::Get { get, .. } if get == tag)
        {
            segment.to = To::Skip;
        }
    }

    /// The buffer of a task is taken away.
    pub(crate) fn skip_task(&mut self, task: Itt) {
        if let Some(segment) = &mut self.segment
            && matches!(segment.to, To::In { itt, .. } if itt == task)
        {
            segment.to = To::Skip;
        }
    }
}

/// Where the next read goes, in order.
pub struct RecvSlots<'a> {
    slots: [IoSliceMut<'a>; SLOTS],
    len: usize,
}

impl<'a> RecvSlots<'a> {
    /// The slices; none is empty. There are none when nothing more is to be received.
    pub fn as_mut_slice(&mut self) -> &mut [IoSliceMut<'a>] {
        self.slots.get_mut(..self.len).unwrap_or_default()
    }
}

impl TcpCore {
    /// Where to read to.
    pub fn recv_slots(&mut self) -> RecvSlots<'_> {
        let mut slots: [IoSliceMut<'_>; SLOTS] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut len = 0usize;
        if self.rx.stopped {
            return RecvSlots { slots, len };
        }
        let total = match &self.rx.segment {
            Some(Segment { to: To::Spill, left, tail, .. }) => left.saturating_add(*tail),
            _ => 0,
        };
        self.rx.spill.make_room(total);
        let mut whole = true;
        if let Some(segment) = &mut self.rx.segment
            && !matches!(segment.to, To::Spill | To::Skip)
        {
            let left = segment.left;
            // One slot for the tail, one for the spill.
            let room = slots.get_mut(..SLOTS - 2).unwrap_or_default();
            len = match &mut segment.to {
                To::In { itt, at } => {
                    let buffer = self.tasks.get_mut(*itt).and_then(|t| t.buffers.r#in.as_mut());
                    buffer.map_or(0, |b| b.io_slices_mut(*at, left, room))
                }
                To::Get { get, at } => {
                    self.fetcher.get_mut(*get).map_or(0, |g| g.into.io_slices_mut(*at, left, room))
                }
                To::Gather { buf, at } => match (room.first_mut(), buf.get_mut(*at..)) {
                    (Some(slot), Some(rest)) if !rest.is_empty() => {
                        *slot = IoSliceMut::new(rest);
                        1
                    }
                    _ => 0,
                },
                To::Spill | To::Skip => 0,
            };
            whole = slots.iter().take(len).map(|s| s.len()).sum::<usize>() == left;
            if whole
                && segment.tail > 0
                && let (Some(slot), Some(tail)) =
                    (slots.get_mut(len), self.rx.tail.get_mut(TAIL.saturating_sub(segment.tail)..))
            {
                *slot = IoSliceMut::new(tail);
                len = len.saturating_add(1);
            }
        }
        if whole && let Some(slot) = slots.get_mut(len) {
            let room = self.rx.spill.room();
            if !room.is_empty() {
                *slot = IoSliceMut::new(room);
                len = len.saturating_add(1);
            }
        }
        RecvSlots { slots, len }
    }

    /// Counts `n` bytes that were read to [`recv_slots`](Self::recv_slots), and handles the PDUs that they complete.
    pub fn received(&mut self, n: usize) {
        let mut n = n;
        if self.rx.stopped {
            return;
        }
        if let Some(mut segment) = self.rx.segment.take() {
            if !matches!(segment.to, To::Spill | To::Skip) {
                let take = segment.left.min(n);
                self.placed(&mut segment, take);
                n = n.saturating_sub(take);
                let tail = segment.tail.min(n);
                segment.tail = segment.tail.saturating_sub(tail);
                n = n.saturating_sub(tail);
            }
            self.rx.segment = Some(segment);
        }
        self.rx.spill.filled(n);
        self.parse();
    }

    /// `n` bytes of a segment lie in their place.
    fn placed(&mut self, segment: &mut Segment, n: usize) {
        let crc = self.digests.data;
        match &mut segment.to {
            To::In { itt, at } => {
                if crc && let Some(list) = self.tasks.get_mut(*itt).and_then(|t| t.buffers.r#in.as_ref()) {
                    segment.crc = list.slices(*at, n).fold(segment.crc, Crc32c::update);
                }
                *at = at.saturating_add(n);
            }
            To::Get { get, at } => {
                if crc && let Some(get) = self.fetcher.get(*get) {
                    segment.crc = get.into.slices(*at, n).fold(segment.crc, Crc32c::update);
                }
                *at = at.saturating_add(n);
            }
            To::Gather { buf, at } => {
                let end = at.saturating_add(n);
                if crc {
                    segment.crc = segment.crc.update(buf.get(*at..end).unwrap_or_default());
                }
                *at = end;
            }
            To::Spill | To::Skip => {}
        }
        segment.left = segment.left.saturating_sub(n);
    }

    /// Handles what lies in the spill, as far as it goes.
    pub(crate) fn parse(&mut self) {
        while !self.rx.stopped && self.is_open() {
            let step = match self.rx.segment.take() {
                Some(segment) => self.feed(segment),
                None => self.next_header(),
            };
            match step {
                Ok(true) => {}
                Ok(false) => return,
                Err(cause) => {
                    self.fail(cause);
                    return;
                }
            }
        }
    }

    /// Reads a header. `Ok(false)`: more bytes are needed.
    fn next_header(&mut self) -> Result<bool, Cause> {
        let bytes = self.rx.spill.bytes();
        let Some(bhs) = bytes.first_chunk::<BHS_LEN>() else { return Ok(false) };
        let [_, _, _, _, ahs_words, ..] = *bhs;
        let header_len = BHS_LEN.saturating_add(usize::from(ahs_words).saturating_mul(4));
        let total = header_len.saturating_add(self.digests.header_len());
        let Some(head) = bytes.get(..total) else { return Ok(false) };
        // req: 7143-7.8-1, 7143-13.1-2
        if self.digests.header {
            let (header, digest) = head.split_at(header_len);
            if header_digest(bhs, header.get(BHS_LEN..).unwrap_or_default()) != digest {
                return self.skip_damaged(total);
            }
            self.rx.resync = false;
        }
        // req: 7143-11.7.1-2
        let len = self.limits.check(bhs).map_err(Cause::Format)?;
        let pdu = Pdu::decode_header(bhs);
        self.rx.head.clear();
        self.rx.head.extend_from_slice(head);
        self.rx.header_len = header_len;
        self.rx.spill.consume(total);
        self.stats.pdus_in = self.stats.pdus_in.saturating_add(1);
        if self.keys.error_recovery_level > 0
            && let Ok(pdu) = &pdu
            && let Some(exp_stat_sn) = pdu.exp_stat_sn().filter(|_| !speaks_of_another(pdu))
        {
            while let Some(itt) = self.numbering.acknowledged(exp_stat_sn) {
                self.forget_numbers(itt);
            }
        }
        let (pdu, to) = match pdu {
            Ok(pdu) => self.steer(pdu, len)?,
            // req: 7143-7.7-1, 7143-7.7-2
            Err(error) => {
                let unknown = matches!(error.kind, DecodeErrorKind::UnknownOpcode(_));
                if error.fatal() || (self.role == Role::Initiator && !unknown) {
                    return Err(Cause::Format(error));
                }
                self.invalid(error.reject().unwrap_or(RejectReason::ProtocolError), Some(error));
                (None, To::Skip)
            }
        };
        let pad = pad_len(len.data_len());
        let tail = pad.saturating_add(self.digests.data_len(len.data_len()));
        let placed = matches!(to, To::In { .. } | To::Get { .. } | To::Gather { .. });
        self.rx.spill.set_lean(placed && len.data_len() >= LARGE);
        let segment = Segment { pdu, to, left: len.data_len(), pad, tail, crc: Crc32c::new() };
        self.feed(segment)
    }

    /// Drops a PDU with a damaged header. Where the next one begins is only sure if the lengths are not what is
    /// damaged, which the digest of the header found there proves; at ErrorRecoveryLevel 0, with no header digest to
    /// come, or if it fails too, the connection ends.
    // req: 7143-7.8-1
    fn skip_damaged(&mut self, header: usize) -> Result<bool, Cause> {
        let lengths = self.rx.spill.bytes().first_chunk::<BHS_LEN>().and_then(|b| self.limits.check(b).ok());
        let Some(len) = lengths.filter(|_| self.keys.error_recovery_level > 0 && !self.rx.resync) else {
            return Err(Cause::HeaderDigest);
        };
        self.rx.resync = true;
        self.rx.spill.consume(header);
        let tail = pad_len(len.data_len()).saturating_add(self.digests.data_len(len.data_len()));
        self.rx.spill.set_lean(false);
        self.feed(Segment { pdu: None, to: To::Skip, left: len.data_len(), pad: 0, tail, crc: Crc32c::new() })
    }

    /// Decides where the data of a PDU goes.
    // req: 5047-5.1.1-1, 5047-5.1.2-1, 5047-10.4.2.1-1
    fn steer(
        &mut self,
        pdu: Pdu<SegmentLen>,
        len: SegmentLen,
    ) -> Result<(Option<Pdu<SegmentLen>>, To), Cause> {
        let to = match &pdu {
            Pdu::DataIn(d) => self.begin_data_in(d)?,
            Pdu::R2t(r) => {
                self.receive_r2t(r)?;
                return Ok((None, To::Skip));
            }
            Pdu::DataOut(d) if !d.ttt.is_none() => self.begin_data_out(d),
            Pdu::Snack(s) if self.receive_snack(s) => return Ok((None, To::Skip)),
            // req: 5047-10.4.3-1, 5047-10.4.4-1
            Pdu::LoginRequest(_) => {
                self.invalid(RejectReason::ProtocolError, None);
                To::Skip
            }
            Pdu::LoginResponse(_) => {
                return Err(Cause::Protocol(
                    "a Login Response in full feature phase (RFC 7143 section 4.2.4)",
                ));
            }
            _ => self.gather(len.data_len()),
        };
        match to {
            // A status is delivered even when its task was given up: it is numbered.
            To::Skip if !matches!(&pdu, Pdu::DataIn(d) if d.status.is_some()) => Ok((None, To::Skip)),
            to => Ok((Some(pdu), to)),
        }
    }

    /// Where to keep a data segment that goes up with its PDU.
    fn gather(&self, len: usize) -> To {
        let whole = len.saturating_add(TAIL);
        if len <= Spill::longest_wait() || self.rx.spill.len() >= whole {
            return To::Spill;
        }
        // One contiguous buffer, of the pool if it has chunks of that length.
        let pooled = if len <= self.pool.chunk_len() { self.pool.alloc(len) } else { None };
        let mut parts = pooled.into_iter().flat_map(|list| list.into_parts());
        match (parts.next(), parts.next()) {
            (Some(buf), None) => To::Gather { buf, at: 0 },
            _ => To::Gather { buf: IoBuf::zeroed(len), at: 0 },
        }
    }

    /// Moves a segment on with what lies in the spill. `Ok(false)`: more bytes are needed.
    fn feed(&mut self, mut segment: Segment) -> Result<bool, Cause> {
        match &mut segment.to {
            To::Spill => {
                let whole = segment.left.saturating_add(segment.tail);
                if self.rx.spill.len() < whole {
                    self.rx.segment = Some(segment);
                    return Ok(false);
                }
                let data = self.rx.spill.take(segment.left);
                if self.digests.data {
                    segment.crc = segment.crc.update(&data);
                }
                self.feed_tail(&mut segment);
                return self.finish(segment, data).map(|()| true);
            }
            To::Skip => {
                let whole = segment.left.saturating_add(segment.tail);
                let skip = whole.min(self.rx.spill.len());
                self.rx.spill.consume(skip);
                if skip < whole {
                    segment.left = whole.saturating_sub(skip);
                    segment.tail = 0;
                    self.rx.segment = Some(segment);
                    return Ok(false);
                }
                // The data is nobody's, but a status in the header is a response.
                return match segment.pdu {
                    Some(Pdu::DataIn(d)) => self.finish_status(&d).map(|()| true),
                    _ => Ok(true),
                };
            }
            To::In { .. } | To::Get { .. } | To::Gather { .. } => {}
        }
        let take = segment.left.min(self.rx.spill.len());
        if take > 0 {
            let from = self.rx.spill.bytes().get(..take).unwrap_or_default();
            match &mut segment.to {
                To::In { itt, at } => {
                    if let Some(list) = self.tasks.get_mut(*itt).and_then(|t| t.buffers.r#in.as_mut()) {
                        list.copy_from(*at, from);
                    }
                }
                To::Get { get, at } => {
                    if let Some(get) = self.fetcher.get_mut(*get) {
                        get.into.copy_from(*at, from);
                    }
                }
                To::Gather { buf, at } => {
                    if let Some(to) = buf.get_mut(*at..at.saturating_add(take)) {
                        to.copy_from_slice(from);
                    }
                }
                To::Spill | To::Skip => {}
            }
            self.stats.copied_bytes = self.stats.copied_bytes.saturating_add(take as u64);
            self.placed(&mut segment, take);
            self.rx.spill.consume(take);
        }
        if segment.left > 0 || !self.feed_tail(&mut segment) {
            self.rx.segment = Some(segment);
            return Ok(false);
        }
        let data = match &mut segment.to {
            To::Gather { buf, .. } => std::mem::replace(buf, IoBuf::zeroed(0)).freeze(),
            _ => Bytes::new(),
        };
        self.finish(segment, data).map(|()| true)
    }

    /// Takes padding and digest from the spill; whether they are complete.
    fn feed_tail(&mut self, segment: &mut Segment) -> bool {
        let take = segment.tail.min(self.rx.spill.len());
        let at = TAIL.saturating_sub(segment.tail);
        let end = at.saturating_add(take);
        if let (Some(to), Some(from)) = (self.rx.tail.get_mut(at..end), self.rx.spill.bytes().get(..take)) {
            to.copy_from_slice(from);
        }
        self.rx.spill.consume(take);
        segment.tail = segment.tail.saturating_sub(take);
        segment.tail == 0
    }

    /// All of a PDU is there.
    fn finish(&mut self, segment: Segment, data: Bytes) -> Result<(), Cause> {
        let Segment { pdu, mut crc, pad, .. } = segment;
        let Some(pdu) = pdu else { return Ok(()) };
        // req: 7143-11.2.3-1
        let mut intact = true;
        if self.digests.data && pdu.segment_len().data > 0 {
            let (_, tail) = self.rx.tail.split_at(TAIL.saturating_sub(DIGEST_LEN).saturating_sub(pad));
            let (padding, digest) = tail.split_at(pad);
            crc = crc.update(padding);
            intact = crc.to_wire() == digest;
        }
        match pdu {
            Pdu::DataOut(d) if !d.ttt.is_none() => {
                self.finish_data_out(&d, intact);
                Ok(())
            }
            // req: 7143-7.8-2
            _ if !intact && self.role == Role::Target => {
                self.invalid(RejectReason::DataDigestError, None);
                Ok(())
            }
            // Without recovery in the connection, the initiator escalates. With it, data is asked for again here, and
            // a lost response is missed by the session.
            // req: 7143-7.8-5, 7143-7.8-6, 7143-7.8-10, 7143-7.8-11
            _ if !intact && self.keys.error_recovery_level == 0 => Err(Cause::DataDigest),
            Pdu::DataIn(d) => {
                if !intact {
                    self.invalid(RejectReason::DataDigestError, None);
                }
                self.finish_data_in(d, intact)
            }
            _ if !intact => {
                self.invalid(RejectReason::DataDigestError, None);
                Ok(())
            }
            pdu => self.finish_control(pdu, data),
        }
    }

    /// Control_Notify (RFC 5047 section 9.1).
    // req: 5047-6-4, 5047-9.1-1, 5047-10.4.1-1
    fn finish_control(&mut self, pdu: Pdu<SegmentLen>, data: Bytes) -> Result<(), Cause> {
        let ahs = self.rx.header().get(BHS_LEN..).unwrap_or_default();
        let pdu = match pdu.with_data(ahs, data) {
            Ok(Pdu::ScsiResponse(r)) => return self.receive_response(r),
            Ok(pdu) => pdu,
            Err(error) if error.fatal() || self.role == Role::Initiator => return Err(Cause::Format(error)),
            Err(error) => {
                self.invalid(error.reject().unwrap_or(RejectReason::ProtocolError), Some(error));
                return Ok(());
            }
        };
        let unsolicited = match &pdu {
            Pdu::ScsiCommand(c) => {
                self.stats.data_in = self.stats.data_in.saturating_add(c.data.len() as u64);
                self.unsolicited(c)
            }
            Pdu::DataOut(d) => {
                self.stats.data_in = self.stats.data_in.saturating_add(d.data.len() as u64);
                0
            }
            _ => 0,
        };
        if let Pdu::Reject(r) = &pdu {
            self.snack_rejected(r);
        }
        self.deliver(Control { pdu, buffers: TaskBuffers::none(), unsolicited });
        self.release();
        Ok(())
    }

    /// UnsolicitedDataSize of a command that arrived: the immediate data alone when no Data-Out follows, else as
    /// much as was negotiated.
    // req: 7143-4.2.5.2-5
    fn unsolicited(&self, c: &ScsiCommand) -> u32 {
        if !c.write || c.final_pdu {
            u32::try_from(c.data.len()).unwrap_or(u32::MAX)
        } else {
            self.keys.first_burst_length.min(c.expected_data_transfer_length)
        }
    }
}

/// Whether the ExpStatSN of a PDU may be another connection's: that of a Logout Request is the closing connection's (RFC
/// 7143 section 11.14.4). Where that is this one, nothing is asked for again any more.
fn speaks_of_another(pdu: &Pdu<SegmentLen>) -> bool {
    matches!(pdu, Pdu::LogoutRequest(r) if r.reason != LogoutReason::CloseSession)
}
