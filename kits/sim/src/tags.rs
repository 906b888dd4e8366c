//! The life of Steering Tags, watched from outside any provider (RFC 7145 section 7.3.2): each is valid once, in its
//! direction, within its bounds, and gone before the response of its task is delivered.

use crate::plan::RdmaFaults;
use crate::rng::Rng;
use datamover::{AllocError, Budget, BufPool, Full, IoBuf, Role, TransportInfo};
use iscsi_pdu::Itt;
use iser_rdma::{
    Completion, ControlHeader, ISER_HEADER_LEN, Invalidation, IserHeader, Op, Rcap, RcapCaps, RcapResources,
    RcapStats, RemoteBuf, Stag, Tagged, WrError,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};

/// An STag of the initiator.
#[derive(Clone, Copy)]
struct Tag {
    sink: bool,
    base: u64,
    len: u64,
    live: bool,
}

#[derive(Default)]
struct Book {
    tags: HashMap<Stag, Tag>,
    by_task: HashMap<Itt, Vec<Stag>>,
    /// One end has given the connection up: what the other still posts no longer counts.
    over: bool,
    faults: Vec<String>,
}

/// What is known of the tags of one connection.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response of a task is delivered to the initiator.
    pub(crate) fn concluded(&self, itt: Itt) {
        let mut book = self.book();
        let tags = book.by_task.remove(&itt).unwrap_or_default();
        if let Some(stag) = tags.into_iter().find(|s| book.tags.get(s).is_some_and(|t| t.live)) {
            book.faults.push(format!("{stag:?} is valid though the response of {itt:?} is delivered"));
        }
    }

    /// The first thing that was wrong.
    pub(crate) fn fault(&self) -> Option<String> {
        self.book().faults.first().cloned()
    }

    /// Tags that are valid.
    pub(crate) fn live(&self) -> usize {
        self.book().tags.values().filter(|t| t.live).count()
    }
}

impl Book {
    fn advertised(&mut self, at: RemoteBuf, sink: bool, len: usize) {
        let tag = Tag { sink, base: at.offset, len: len as u64, live: true };
        if self.tags.insert(at.stag, tag).is_some_and(|old| old.live) {
            self.faults.push(format!("{:?} was given out twice", at.stag));
        }
    }

    fn gone(&mut self, stag: Stag) {
        if let Some(tag) = self.tags.get_mut(&stag) {
            tag.live = false;
        }
    }

    fn invalidated_by_peer(&mut self, stag: Stag) {
        if !self.tags.get(&stag).is_some_and(|t| t.live) {
            self.faults.push(format!("the target invalidated {stag:?}, which was not valid"));
        }
        self.gone(stag);
    }

    /// A command leaves with its tags.
    fn sent(&mut self, message: &[u8]) {
        const SCSI_COMMAND: u8 = 0x01;
        let Ok((IserHeader::Control(ControlHeader { read, write }), _)) = IserHeader::decode(message) else {
            return;
        };
        let Some(bhs) = message.get(ISER_HEADER_LEN..) else { return };
        let (Some(first), Some(itt)) = (bhs.first(), bhs.get(16..20)) else { return };
        if first & 0x3f == SCSI_COMMAND {
            let itt = Itt(u32::from_be_bytes(itt.try_into().unwrap_or_default()));
            let tags: Vec<Stag> = [read, write].into_iter().flatten().map(|r| r.stag).collect();
            if tags.iter().any(|t| !self.tags.contains_key(t)) {
                self.faults.push(format!("{itt:?} goes out with a tag that was never given out"));
            }
            self.by_task.insert(itt, tags);
        }
    }

    /// The target reads from (`sink` is false) or writes to the initiator's memory.
    fn access(&mut self, at: RemoteBuf, len: usize, sink: bool) {
        if self.over || len == 0 {
            return;
        }
        let wrong = match self.tags.get(&at.stag) {
            None => "was never given out",
            Some(tag) if !tag.live => "is not valid any more",
            Some(tag) if tag.sink != sink => "is for the other direction",
            Some(tag) => {
                let from = at.offset.checked_sub(tag.base);
                if from.and_then(|from| from.checked_add(len as u64)).is_some_and(|end| end <= tag.len) {
                    return;
                }
                "is shorter than that"
            }
        };
        self.faults.push(format!("{len} bytes at {at:?}: the tag {wrong}"));
    }
}

/// A provider whose user is watched.
pub(crate) struct Watched<R> {
    rcap: R,
    role: Role,
    ledger: Ledger,
    faults: RdmaFaults,
    rng: Rng,
    /// Completions that come late, in order.
    late: VecDeque<(Instant, Completion)>,
    fresh: Vec<Completion>,
}

/// The most that a completion is late by.
const LATE: u64 = 20_000_000;

impl<R> Watched<R> {
    pub(crate) const fn new(rcap: R, role: Role, ledger: Ledger, faults: RdmaFaults, rng: Rng) -> Self {
        Self { rcap, role, ledger, faults, rng, late: VecDeque::new(), fresh: Vec::new() }
    }

    fn over(&self) {
        self.ledger.book().over = true;
    }
}

impl<R> Drop for Watched<R> {
    fn drop(&mut self) {
        let mut book = self.ledger.book();
        book.over = true;
        if self.role == Role::Initiator {
            book.tags.values_mut().for_each(|t| t.live = false);
        }
    }
}

impl<R: Rcap> Rcap for Watched<R> {
    fn caps(&self) -> &RcapCaps {
        self.rcap.caps()
    }

    fn transport(&self) -> TransportInfo {
        self.rcap.transport()
    }

    fn allocate(&mut self, want: &RcapResources) -> Result<(), AllocError> {
        self.rcap.allocate(want)
    }

    fn deallocate(&mut self) {
        self.rcap.deallocate();
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        self.rcap.pool()
    }

    fn messages(&self) -> &Arc<dyn BufPool> {
        self.rcap.messages()
    }

    fn is_local(&self, memory: &[u8]) -> bool {
        self.rcap.is_local(memory)
    }

    fn post_recv(&mut self, buf: IoBuf) -> Result<(), Full<IoBuf>> {
        self.rcap.post_recv(buf)
    }

    fn post(&mut self, mut op: Op) -> Result<(), Full<Op>> {
        if let (Op::Send { invalidate, .. }, Role::Target) = (&mut op, self.role)
            && invalidate.is_some()
            && self.rng.one_in(self.faults.no_invalidate_one_in)
        {
            *invalidate = None;
        }
        match (&op, self.role) {
            (Op::Send { message, .. }, Role::Initiator) => {
                let mut head = [0; ISER_HEADER_LEN + 48];
                message.copy_to(0, &mut head);
                self.ledger.book().sent(&head);
            }
            (Op::Write { data, to, .. }, Role::Target) => self.ledger.book().access(*to, data.len(), true),
            (Op::Read { from, into, .. }, Role::Target) => {
                self.ledger.book().access(*from, into.len(), false)
            }
            (Op::Send { .. }, Role::Target) => {}
            (_, Role::Initiator) => {
                self.ledger.book().faults.push("an initiator posted an RDMA Read or Write".into());
            }
        }
        self.rcap.post(op)
    }

    fn advertisable(&self) -> usize {
        self.rcap.advertisable()
    }

    fn advertise(&mut self, memory: Tagged) -> Result<RemoteBuf, Full<Tagged>> {
        let (sink, len) = (matches!(memory, Tagged::Sink(_)), memory.len());
        let at = self.rcap.advertise(memory)?;
        self.ledger.book().advertised(at, sink, len);
        Ok(at)
    }

    fn invalidate(&mut self, stag: Stag) -> Invalidation {
        let answer = self.rcap.invalidate(stag);
        if !matches!(answer, Invalidation::Pending) {
            self.ledger.book().gone(stag);
        }
        answer
    }

    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Budget, out: &mut Vec<Completion>) {
        let mut fresh = std::mem::take(&mut self.fresh);
        self.rcap.poll(cx, turn, &mut fresh);
        for mut completion in fresh.drain(..) {
            if let Completion::Done { result: result @ Ok(()), .. } = &mut completion
                && self.rng.one_in(self.faults.error_one_in)
            {
                // As on an adapter: the queue pair is in error, and what is behind is flushed.
                *result = Err(WrError::Flushed);
                self.over();
                self.rcap.abort();
            }
            let mut book = self.ledger.book();
            match &completion {
                Completion::Received { invalidated: Some(stag), .. } => book.invalidated_by_peer(*stag),
                Completion::Invalidated { stag, .. } => book.gone(*stag),
                Completion::Closed(_) => book.over = true,
                _ => {}
            }
            drop(book);
            let late = if self.rng.one_in(self.faults.late_one_in) { self.rng.below(LATE) } else { 0 };
            let due = turn.now + Duration::from_nanos(late);
            let due = self.late.back().map_or(due, |(at, _)| due.max(*at));
            self.late.push_back((due, completion));
        }
        self.fresh = fresh;
        while self.late.front().is_some_and(|(at, _)| *at <= turn.now) {
            out.extend(self.late.pop_front().map(|(_, completion)| completion));
        }
    }

    fn is_flushed(&self) -> bool {
        self.rcap.is_flushed()
    }

    fn disconnect(&mut self) {
        self.over();
        self.rcap.disconnect();
    }

    fn abort(&mut self) {
        self.over();
        self.rcap.abort();
    }

    fn stats(&self) -> RcapStats {
        self.rcap.stats()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let late = self.late.front().map(|(at, _)| *at);
        [late, self.rcap.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.rcap.handle_timeout(now);
    }
}
