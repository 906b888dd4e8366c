//! What is between the two ends: queues, STag tables, receive buffers, the clock and the faults.

use super::MemConfig;
use crate::rcap::{Completion, Invalidation, Op, RemoteBuf, Stag, Tagged, WrError, WrId};
use datamover::{Budget, Cause, Full, IoBuf, SgListMut};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Work requests that an end may have queued.
const QUEUE: usize = 1024;

/// A rule that somebody broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// Access to an STag that was never valid.
    UnknownStag(Stag),
    /// Access to an STag that is invalid again.
    RetiredStag(Stag),
    /// A Write to a source or a Read of a sink.
    Direction(Stag),
    /// Access beyond the memory of the STag.
    Bounds(Stag),
    /// More Reads outstanding than ORD or the peer's IRD.
    ReadDepth,
    /// A Send that found no receive buffer.
    NoReceive,
    /// A Send longer than the receive buffer.
    ReceiveLength,
    /// A work request with more parts than the caps allow.
    Parts,
    /// Send with Invalidate without the capability.
    SendInvalidate,
    /// Memory that only the pools' registration would make reachable.
    Unregistered,
}

/// One effect on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A Send message was delivered.
    Send {
        /// The end that sent it.
        from: usize,
        /// Its bytes.
        message: Vec<u8>,
        /// The STag that went with it.
        invalidate: Option<Stag>,
    },
    /// An RDMA Write was placed.
    Write {
        /// The end that sent it.
        from: usize,
        /// Where to.
        to: RemoteBuf,
        /// Bytes.
        len: usize,
    },
    /// An RDMA Read was served.
    Read {
        /// The end that asked.
        from: usize,
        /// Where the data was.
        source: RemoteBuf,
        /// Bytes.
        len: usize,
    },
}

enum Item {
    Op(Op),
    Fin,
}

/// Memory behind an STag. Tagged Offsets of its bytes count from `base`.
struct Region {
    memory: Tagged,
    base: u64,
    valid: bool,
}

#[derive(Default)]
struct End {
    queue: VecDeque<(Instant, Item)>,
    /// Posted since the last poll: no time has been given to them yet.
    fresh: VecDeque<Item>,
    receives: VecDeque<IoBuf>,
    regions: HashMap<Stag, Region>,
    retired: HashSet<Stag>,
    completions: VecDeque<(Instant, Completion)>,
    reads: u16,
    local_invalidations: u64,
    waker: Option<Waker>,
    /// The end came before there was a clock.
    unclocked: Option<Cause>,
    closed: bool,
}

pub(super) struct Wire {
    config: MemConfig,
    ends: [End; 2],
    rng: u64,
    delivered: u64,
    next_stag: u32,
    now: Option<Instant>,
    pub(super) violations: Vec<Violation>,
    pub(super) log: Vec<Event>,
}

impl Wire {
    pub(super) fn new(config: MemConfig) -> Self {
        Self {
            rng: config.seed.wrapping_mul(2).wrapping_add(1),
            next_stag: 0x100,
            config,
            ends: [End::default(), End::default()],
            delivered: 0,
            now: None,
            violations: Vec::new(),
            log: Vec::new(),
        }
    }

    fn end(&mut self, side: usize) -> &mut End {
        let [first, second] = &mut self.ends;
        if side == 0 { first } else { second }
    }

    fn end_ref(&self, side: usize) -> &End {
        let [first, second] = &self.ends;
        if side == 0 { first } else { second }
    }

    fn caps(&self, side: usize) -> &crate::rcap::RcapCaps {
        let [first, second] = &self.config.caps;
        if side == 0 { first } else { second }
    }

    /// SplitMix64.
    fn random(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).checked_rem(below).unwrap_or(0)
    }

    fn delay(&mut self) -> Duration {
        let jitter = u64::try_from(self.config.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.config.latency + Duration::from_nanos(self.random(jitter))
    }

    pub(super) fn live_stags(&self, side: usize) -> usize {
        self.end_ref(side).regions.values().filter(|r| r.valid).count()
    }

    pub(super) fn local_invalidations(&self, side: usize) -> u64 {
        self.end_ref(side).local_invalidations
    }

    pub(super) fn posted_receives(&self, side: usize) -> usize {
        self.end_ref(side).receives.len()
    }

    pub(super) fn post_recv(&mut self, side: usize, buf: IoBuf) {
        if !self.end_ref(side).closed {
            self.end(side).receives.push_back(buf);
        }
    }

    pub(super) fn post(&mut self, side: usize, op: Op) -> Result<(), Full<Op>> {
        if let Some(rule) = self.check_op(side, &op) {
            self.violations.push(rule);
        }
        let end = self.end(side);
        if end.closed {
            // The end is not known above yet: what comes now is flushed before it is told.
            if let (Op::Read { id, into, .. }, Some((at, _))) = (op, end.completions.back()) {
                let done = Completion::Done { id, sink: Some(into), result: Err(WrError::Flushed) };
                let place = end.completions.len().saturating_sub(1);
                end.completions.insert(place, (*at, done));
            }
            return Ok(());
        }
        if end.fresh.len().saturating_add(end.queue.len()) >= QUEUE {
            return Err(Full(op));
        }
        if let Op::Read { .. } = op {
            end.reads = end.reads.saturating_add(1);
            let reads = end.reads;
            if reads > self.caps(side).ord || reads > self.caps(1 - side).ird {
                self.violations.push(Violation::ReadDepth);
            }
        }
        self.end(side).fresh.push_back(Item::Op(op));
        Ok(())
    }

    /// What the poster may not ask of the provider.
    fn check_op(&self, side: usize, op: &Op) -> Option<Violation> {
        let caps = self.caps(side);
        match op {
            Op::Send { invalidate: Some(_), .. } if !caps.send_invalidate => Some(Violation::SendInvalidate),
            Op::Write { data, .. } if data.parts().count() > caps.max_sge => Some(Violation::Parts),
            Op::Write { data, .. } if data.len() > caps.max_transfer => Some(Violation::Parts),
            Op::Read { into, .. } if into.parts().count() > caps.max_read_sge => Some(Violation::Parts),
            _ => None,
        }
    }

    pub(super) fn advertise(&mut self, side: usize, memory: Tagged) -> RemoteBuf {
        // Steps of an odd number below 256 with a key byte that changes: not to be guessed from the last one.
        let key = u32::try_from(self.random(256)).unwrap_or(0);
        self.next_stag = self.next_stag.wrapping_add(0x100);
        let stag = Stag(self.next_stag | key);
        let base = 0x1000_0000 | self.random(1 << 40) << 4;
        self.end(side).regions.insert(stag, Region { memory, base, valid: true });
        RemoteBuf { stag, offset: base }
    }

    pub(super) fn invalidate(&mut self, side: usize, stag: Stag) -> Invalidation {
        let slow = self.config.slow_invalidation;
        let now = self.now;
        let end = self.end(side);
        let Some(region) = end.regions.remove(&stag) else { return Invalidation::Unknown };
        end.retired.insert(stag);
        if !region.valid {
            return Invalidation::Done(region.memory);
        }
        end.local_invalidations = end.local_invalidations.saturating_add(1);
        match now {
            Some(now) if slow && !end.closed => {
                let done = Completion::Invalidated { stag, memory: region.memory };
                end.completions.push_back((now, done));
                Invalidation::Pending
            }
            _ => Invalidation::Done(region.memory),
        }
    }

    pub(super) fn poll(
        &mut self,
        side: usize,
        cx: &mut Context<'_>,
        turn: &mut Budget,
        out: &mut Vec<Completion>,
    ) {
        self.now = Some(self.now.map_or(turn.now, |t| t.max(turn.now)));
        self.end(side).waker = Some(cx.waker().clone());
        for side in [0, 1] {
            if let Some(cause) = self.end(side).unclocked.take() {
                self.close(side, cause);
            }
        }
        self.start(side, turn.now);
        self.deliver(turn.now);
        let end = self.end(side);
        while turn.pdus > 0 && end.completions.front().is_some_and(|(due, _)| *due <= turn.now) {
            turn.pdus -= 1;
            out.extend(end.completions.pop_front().map(|(_, c)| c));
        }
    }

    /// Gives what was posted its time of arrival, in order.
    fn start(&mut self, side: usize, now: Instant) {
        while let Some(item) = self.end(side).fresh.pop_front() {
            let due = now + self.delay();
            let end = self.end(side);
            let last = end.queue.back().map_or(due, |(t, _)| *t);
            end.queue.push_back((due.max(last), item));
        }
    }

    /// Brings about whatever is due.
    fn deliver(&mut self, now: Instant) {
        let mut progress = true;
        while std::mem::take(&mut progress) {
            for side in [0, 1] {
                if self.config.dead_after.is_some_and(|n| self.delivered >= n) {
                    return;
                }
                if self.end_ref(side).queue.front().is_none_or(|(due, _)| *due > now) {
                    continue;
                }
                let Some((due, item)) = self.end(side).queue.pop_front() else { continue };
                match self.arrive(side, item, now) {
                    Some(item) => self.end(side).queue.push_front((due, item)),
                    None => progress = true,
                }
            }
        }
    }

    /// One item arrives; it comes back when it has to wait.
    fn arrive(&mut self, from: usize, item: Item, now: Instant) -> Option<Item> {
        let to = 1 - from;
        if self.config.reset_after.is_some_and(|n| self.delivered >= n) {
            if let Item::Op(op) = item {
                self.flush(from, op, now);
            }
            self.reset();
            return None;
        }
        self.delivered += 1;
        let op = match item {
            Item::Fin => {
                self.close(from, Cause::Local);
                self.close(to, Cause::PeerClosed);
                return None;
            }
            Item::Op(op) => op,
        };
        match op {
            Op::Send { message, invalidate } => {
                let Some(mut buf) = self.end(to).receives.pop_front() else {
                    if self.config.wait_for_receive {
                        self.delivered -= 1;
                        return Some(Item::Op(Op::Send { message, invalidate }));
                    }
                    self.violate(Violation::NoReceive);
                    return None;
                };
                if message.len() > buf.len() {
                    self.violate(Violation::ReceiveLength);
                    return None;
                }
                message.copy_to(0, &mut buf);
                buf.truncate(message.len());
                self.record(|| Event::Send { from, message: message.to_bytes().to_vec(), invalidate });
                if let Some(stag) = invalidate
                    && let Err(rule) = self.remote_invalidate(to, stag)
                {
                    self.violate(rule);
                    return None;
                }
                self.report(to, now, Completion::Received { message: buf, invalidated: invalidate });
            }
            Op::Write { id, data, to: at } => {
                let len = data.len();
                let placed = self.region(to, at, len).and_then(|(region, from)| match &mut region.memory {
                    Tagged::Sink(list) => {
                        let mut offset = from;
                        for part in data.parts() {
                            offset = offset.saturating_add(list.copy_from(offset, part));
                        }
                        Ok(())
                    }
                    Tagged::Source(_) => Err(Violation::Direction(at.stag)),
                });
                if let Err(rule) = placed {
                    self.violate(rule);
                    return None;
                }
                self.record(|| Event::Write { from, to: at, len });
                if let Some(id) = id {
                    self.report(from, now, Completion::Done { id, sink: None, result: Ok(()) });
                }
            }
            Op::Read { id, from: at, mut into } => self.read(from, id, at, &mut into, now),
        }
        None
    }

    fn read(&mut self, from: usize, id: WrId, at: RemoteBuf, into: &mut SgListMut, now: Instant) {
        let to = 1 - from;
        let len = into.len();
        let mut into = std::mem::take(into);
        // A Read of no bytes touches no memory, and its STag is not looked at (RFC 5040 section 5.3).
        let served = if len == 0 {
            Ok(())
        } else {
            self.region(to, at, len).and_then(|(region, from)| match &region.memory {
                Tagged::Source(list) => {
                    let mut offset = 0usize;
                    for part in list.slice(from, len).parts() {
                        offset = offset.saturating_add(into.copy_from(offset, part));
                    }
                    Ok(())
                }
                Tagged::Sink(_) => Err(Violation::Direction(at.stag)),
            })
        };
        let end = self.end(from);
        end.reads = end.reads.saturating_sub(1);
        match served {
            Ok(()) => {
                self.record(|| Event::Read { from, source: at, len });
                let due = now + self.delay();
                self.report(from, due, Completion::Done { id, sink: Some(into), result: Ok(()) });
            }
            Err(rule) => {
                let result = Err(WrError::RemoteAccess);
                self.report(from, now, Completion::Done { id, sink: Some(into), result });
                self.violate(rule);
            }
        }
    }

    /// The region that `len` bytes at `at` lie in, and how far into it.
    fn region(&mut self, side: usize, at: RemoteBuf, len: usize) -> Result<(&mut Region, usize), Violation> {
        let retired = self.end_ref(side).retired.contains(&at.stag);
        let Some(region) = self.end(side).regions.get_mut(&at.stag) else {
            let stag = at.stag;
            return Err(if retired { Violation::RetiredStag(stag) } else { Violation::UnknownStag(stag) });
        };
        if !region.valid {
            return Err(Violation::RetiredStag(at.stag));
        }
        let from = at.offset.checked_sub(region.base).and_then(|n| usize::try_from(n).ok());
        match from.filter(|f| f.checked_add(len).is_some_and(|end| end <= region.memory.len())) {
            Some(from) => Ok((region, from)),
            None => Err(Violation::Bounds(at.stag)),
        }
    }

    fn remote_invalidate(&mut self, side: usize, stag: Stag) -> Result<(), Violation> {
        let end = self.end(side);
        match end.regions.get_mut(&stag) {
            Some(region) if region.valid => {
                region.valid = false;
                Ok(())
            }
            Some(_) => Err(Violation::RetiredStag(stag)),
            None if end.retired.contains(&stag) => Err(Violation::RetiredStag(stag)),
            None => Err(Violation::UnknownStag(stag)),
        }
    }

    fn record(&mut self, event: impl FnOnce() -> Event) {
        if self.config.record {
            self.log.push(event());
        }
    }

    fn report(&mut self, side: usize, due: Instant, completion: Completion) {
        let end = self.end(side);
        // A queue reports in order: nothing overtakes a slow completion.
        let last = end.completions.back().map_or(due, |(t, _)| *t);
        end.completions.push_back((due.max(last), completion));
        if let Some(waker) = end.waker.take() {
            waker.wake();
        }
    }

    fn violate(&mut self, rule: Violation) {
        self.violations.push(rule);
        for side in [0, 1] {
            self.close(side, Cause::Protocol("access or flow control violation at the RDMA layer"));
        }
    }

    pub(super) fn reset(&mut self) {
        for side in [0, 1] {
            self.close(side, Cause::Transport(ErrorKind::ConnectionReset));
        }
    }

    /// A work request that will never have an effect.
    fn flush(&mut self, side: usize, op: Op, now: Instant) {
        let done = match op {
            Op::Read { id, into, .. } => {
                Completion::Done { id, sink: Some(into), result: Err(WrError::Flushed) }
            }
            Op::Write { id: Some(id), .. } => {
                Completion::Done { id, sink: None, result: Err(WrError::Flushed) }
            }
            _ => return,
        };
        self.report(side, now, done);
    }

    fn close(&mut self, side: usize, cause: Cause) {
        let Some(now) = self.now else {
            self.end(side).unclocked.get_or_insert(cause);
            return;
        };
        let end = self.end(side);
        if std::mem::replace(&mut end.closed, true) {
            return;
        }
        end.receives.clear();
        let queue = std::mem::take(&mut end.queue).into_iter().map(|(_, item)| item);
        let ops: Vec<_> = queue.chain(std::mem::take(&mut end.fresh)).collect();
        for item in ops {
            if let Item::Op(op) = item {
                self.flush(side, op, now);
            }
        }
        self.report(side, now, Completion::Closed(cause));
    }

    pub(super) fn is_flushed(&self, side: usize) -> bool {
        let end = self.end_ref(side);
        end.closed || (end.queue.is_empty() && end.fresh.is_empty())
    }

    pub(super) fn disconnect(&mut self, side: usize) {
        let end = self.end(side);
        if !end.closed {
            end.fresh.push_back(Item::Fin);
        }
    }

    /// An end was dropped: its peer hears what was on its way, then of the end.
    pub(super) fn dropped(&mut self, side: usize) {
        if let Some(now) = self.now {
            self.start(side, now);
            self.deliver(now);
        }
        self.abort(side);
        // Nobody will ask for what the end still holds: its memory and its tags go with it.
        let end = self.end(side);
        end.regions.clear();
        end.completions.clear();
    }

    pub(super) fn abort(&mut self, side: usize) {
        self.close(side, Cause::Local);
        self.close(1 - side, Cause::PeerClosed);
    }

    /// When something happens next that this end waits for.
    pub(super) fn next_due(&self, side: usize) -> Option<Instant> {
        let completion = self.end_ref(side).completions.front().map(|(due, _)| *due);
        let dead = self.config.dead_after.is_some_and(|n| self.delivered >= n);
        // What is due and still there waits for something other than time.
        let in_future = |due: &Instant| !dead && self.now.is_none_or(|now| *due > now);
        let queues =
            self.ends.iter().filter_map(|e| e.queue.front().map(|(due, _)| *due)).filter(in_future).min();
        [completion, queues].into_iter().flatten().min()
    }
}
