//! [`VerbsRcap`]: a connected queue pair as a provider.

use super::cm::CmEvents;
use super::completions::Completions;
use super::fabric::VerbsConfig;
use super::ffi::{self, RecvWr, SendWr, Sge, Wc, WorkCompletion, WorkRequest};
use super::id::Id;
use super::memory::{Local, Registered};
use super::object::{Pd, Qp};
use super::send::{SendQueue, Work};
use super::tags::Tags;
use crate::login::LOGIN_MESSAGE_LEN;
use crate::rcap::{
    Completion, Invalidation, Op, Rcap, RcapCaps, RcapResources, RcapStats, RemoteBuf, Stag, Tagged, WrError,
};
use datamover::{AllocError, Budget, BufPool, Cause, Full, IoBuf, PoolConfig, TransportInfo};
use libc::c_int;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Completions taken at a time.
const BATCH: usize = 32;
/// Messages that there are before resources are allocated: enough for a login.
const LOGIN_MESSAGES: usize = 8;
/// Sends that may have completed without anybody having looked: an event for each would wake this end once more for
/// every message.
const UNSEEN_SENDS: usize = 32;
/// How long they go unseen when nothing else happens.
const UNSEEN_FOR: Duration = Duration::from_millis(20);

/// A connection through an RDMA device.
///
/// What is received completes on one queue and what is sent on another, so that the end of a Send, for which nobody waits,
/// wakes nobody.
///
/// Fields are dropped in the order that verbs ask for: windows and regions, queue pair, completion queues, protection
/// domain; the identifier goes with the last `Arc` of it.
pub struct VerbsRcap {
    events: Option<CmEvents>,
    tags: Tags,
    qp: Option<Qp>,
    data: Registered,
    messages: Registered,
    received: Completions,
    sent: Completions,
    pd: Arc<Pd>,
    send: SendQueue,
    /// The elements of the work request that is being posted.
    elements: Vec<Sge>,
    /// The completions that are being looked at.
    batch: Box<[Wc; BATCH]>,
    /// Receive buffers by slot.
    receives: Vec<Option<IoBuf>>,
    free_receives: Vec<usize>,
    caps: RcapCaps,
    info: TransportInfo,
    config: VerbsConfig,
    rxe: bool,
    /// When to look what has become of Sends.
    look_at: Option<Instant>,
    /// It is time to.
    look: bool,
    allocated: bool,
    disconnecting: bool,
    /// Why the connection is over, once it is.
    over: Option<Cause>,
    told: bool,
    doorbells: u64,
}

impl VerbsRcap {
    /// Queue pair and memory for an identifier that is bound to a device. The connection is yet to be made.
    pub(super) fn new(id: Arc<Id>, config: &VerbsConfig) -> io::Result<Self> {
        let attr = id.device_attr()?;
        let limit = |want: u32, max: c_int| want.min(u32::try_from(max).unwrap_or(0));
        let cap = ffi::QpCap {
            max_send_wr: limit(config.send_queue, attr.max_qp_wr),
            max_recv_wr: limit(config.recv_queue, attr.max_qp_wr),
            max_send_sge: limit(16, attr.max_sge),
            max_recv_sge: 1,
            max_inline_data: 0,
        };
        let entries = |requests: u32| {
            i32::try_from(limit(requests.saturating_add(1), attr.max_cqe)).unwrap_or(i32::MAX)
        };
        let pd = Pd::new(id.clone())?;
        let received = Completions::new(id.clone(), entries(cap.max_recv_wr))?;
        let sent = Completions::new(id.clone(), entries(cap.max_send_wr))?;
        let qp = Qp::new(id.clone(), &pd, &sent.cq, &received.cq, cap)?;
        let has_windows =
            attr.device_cap_flags & (ffi::CAP_MEM_WINDOW_TYPE_2A | ffi::CAP_MEM_WINDOW_TYPE_2B) != 0;
        let tags = Tags::new(pd.clone(), has_windows && config.windows);
        let windows = tags.are_windows();
        let access = slab_access(windows, id.is_iwarp());
        let device = id.device_name();
        let detail = if windows { device.clone() } else { format!("{device}, without memory windows") };
        let depth = |have: c_int, want: u16| want.min(u16::try_from(have.clamp(0, 255)).unwrap_or(0));
        let caps = RcapCaps {
            send_invalidate: attr.device_cap_flags & ffi::CAP_MEM_MGT_EXTENSIONS != 0,
            scoped_stags: true,
            max_sge: cap.max_send_sge as usize,
            max_read_sge: if id.is_iwarp() { 1 } else { limit(16, attr.max_sge_rd).max(1) as usize },
            max_tagged_parts: 1,
            tags_local_only: windows,
            max_transfer: 1 << 20,
            ord: depth(attr.max_qp_init_rd_atom, config.ord),
            ird: depth(attr.max_qp_rd_atom, config.ird),
        };
        let message_config = messages_config(LOGIN_MESSAGES, LOGIN_MESSAGE_LEN);
        let this = Self {
            events: None,
            qp: Some(qp),
            tags,
            data: Registered::new(pd.clone(), access, data_config(0)),
            messages: Registered::new(pd.clone(), access, message_config),
            received,
            sent,
            pd,
            send: SendQueue::new(cap.max_send_wr as usize),
            elements: Vec::new(),
            batch: Box::new([Wc::empty(); BATCH]),
            receives: (0..cap.max_recv_wr).map(|_| None).collect(),
            free_receives: (0..cap.max_recv_wr as usize).rev().collect(),
            caps,
            info: TransportInfo { name: "iser", detail, local: None, peer: None },
            config: config.clone(),
            rxe: device.starts_with("rxe"),
            look_at: None,
            look: false,
            allocated: false,
            disconnecting: false,
            over: None,
            told: false,
            doorbells: 0,
        };
        this.messages.try_out().map_err(|e| io::Error::new(e.kind(), MEMLOCK))?;
        Ok(this)
    }

    /// The connection is made: its events are this end's from now on, and so are its depths.
    pub(super) fn connected(&mut self, events: CmEvents, ord: u16, ird: u16, send_invalidate: bool) {
        let id = self.pd.id();
        (self.info.local, self.info.peer) = (id.local_addr(), id.peer_addr());
        self.events = Some(events);
        self.caps.ord = self.caps.ord.min(ord);
        self.caps.ird = self.caps.ird.min(ird);
        self.caps.send_invalidate &= send_invalidate;
    }

    /// Whether the peer may invalidate what this end advertises.
    pub(super) fn has_windows(&self) -> bool {
        self.tags.are_windows()
    }

    fn local(&self, memory: &[u8]) -> Option<Local> {
        let (start, len) = (memory.as_ptr() as usize, memory.len());
        self.data.registry.find(start, len).or_else(|| self.messages.registry.find(start, len))
    }

    fn sge(&self, memory: &[u8]) -> Option<Sge> {
        let local = self.local(memory)?;
        Some(Sge {
            addr: memory.as_ptr() as u64,
            length: u32::try_from(memory.len()).ok()?,
            lkey: local.lkey,
        })
    }

    /// The elements of a work request, in memory that is used again for the next; `false` when a part is not
    /// registered, and then there are none.
    fn gather<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        self.elements.clear();
        for part in parts {
            let Some(element) = self.sge(part) else {
                self.elements.clear();
                return false;
            };
            self.elements.push(element);
        }
        true
    }

    fn fail(&mut self, cause: Cause) {
        self.over.get_or_insert(cause);
    }

    fn ring(&mut self) {
        let Some(qp) = &mut self.qp else { return };
        match self.send.ring(qp) {
            Ok(true) => self.doorbells += 1,
            Ok(false) => {}
            Err(e) => self.fail(Cause::Transport(e.kind())),
        }
    }

    /// Takes completions; whether there may be more.
    fn reap(&mut self, turn: &mut Budget, out: &mut Vec<Completion>) -> bool {
        let mut more = false;
        for received in [false, true] {
            let room = BATCH.min(turn.pdus as usize);
            let queue = if received { &mut self.received } else { &mut self.sent };
            let n = match queue.poll(self.batch.get_mut(..room).unwrap_or_default()) {
                Ok(n) => n,
                Err(e) => {
                    self.fail(Cause::Transport(e.kind()));
                    return false;
                }
            };
            if n > 0 && !received {
                (self.look_at, self.look) = (None, false);
            }
            turn.pdus = turn.pdus.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
            for at in 0..n {
                let Some(wc) = self.batch.get(at).copied() else { break };
                if received { self.on_received(&wc, out) } else { self.on_sent(&wc, out) }
            }
            more |= n == BATCH;
        }
        more
    }

    fn on_sent(&mut self, wc: &Wc, out: &mut Vec<Completion>) {
        if wc.status() != ffi::WC_SUCCESS {
            // Everything from here on fails; what comes back comes with the end.
            if wc.status() != ffi::WC_WR_FLUSH_ERR {
                self.fail(broken(wc.status()));
            }
            return;
        }
        while let Some(work) = self.send.completed(wc.id()) {
            match work {
                Work::Send(_) | Work::Write(_, None) | Work::Bind => {}
                Work::Write(_, Some(id)) => out.push(Completion::Done { id, sink: None, result: Ok(()) }),
                Work::Read(id, sink) => {
                    out.push(Completion::Done { id, sink: Some(sink), result: Ok(()) });
                }
                Work::Invalidate(stag) => {
                    if let Some(memory) = self.tags.release(stag) {
                        out.push(Completion::Invalidated { stag, memory });
                    }
                }
            }
        }
    }

    fn on_received(&mut self, wc: &Wc, out: &mut Vec<Completion>) {
        let slot = usize::try_from(wc.id()).unwrap_or(usize::MAX);
        let Some(mut message) = self.receives.get_mut(slot).and_then(Option::take) else { return };
        self.free_receives.push(slot);
        if wc.status() != ffi::WC_SUCCESS {
            if wc.status() != ffi::WC_WR_FLUSH_ERR {
                self.fail(broken(wc.status()));
            }
            // Why it is over, a Send tells.
            self.look = true;
            return;
        }
        message.truncate(wc.byte_len() as usize);
        let flag = if self.rxe { ffi::WC_WITH_INV | WC_WITH_INV_KERNEL } else { ffi::WC_WITH_INV };
        let invalidated = (wc.flags() & flag != 0).then_some(Stag(wc.invalidated_rkey()));
        if let Some(stag) = invalidated {
            self.tags.peer_invalidated(stag);
        }
        out.push(Completion::Received { message, invalidated });
    }

    /// What the connection manager says.
    fn cm_events(&mut self, cx: &mut Context<'_>) {
        while let Some(Poll::Ready(event)) = self.events.as_ref().map(|e| e.poll_next(cx)) {
            match event {
                Ok(event) => match event.kind {
                    ffi::EVENT_DISCONNECTED | ffi::EVENT_TIMEWAIT_EXIT => self.fail(Cause::PeerClosed),
                    ffi::EVENT_DEVICE_REMOVAL => self.fail(Cause::Transport(io::ErrorKind::NotConnected)),
                    ffi::EVENT_ADDR_CHANGE => self.fail(Cause::Transport(io::ErrorKind::AddrNotAvailable)),
                    _ => {}
                },
                Err(e) => return self.fail(Cause::Transport(e.kind())),
            }
        }
    }

    /// Waits for completions; `false` when there may be some already.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut waits = self.received.wait(cx);
        if self.awaits_sent(now) {
            waits = waits.and_then(|waits| Ok(self.sent.wait(cx)? && waits));
        }
        waits.unwrap_or_else(|e| {
            self.fail(Cause::Transport(e.kind()));
            true
        })
    }

    /// Whether somebody waits for what is sent: for data that is fetched or placed, for STags, for room, for the end; or
    /// just has not looked for long.
    fn awaits_sent(&mut self, now: Instant) -> bool {
        if self.send.is_empty() {
            (self.look_at, self.look) = (None, false);
        } else {
            let at = *self.look_at.get_or_insert(now + UNSEEN_FOR);
            self.look |= now >= at;
        }
        self.look
            || self.disconnecting
            || self.send.sends() >= UNSEEN_SENDS
            || self.send.is_awaited()
            || self.free_receives.len() == self.receives.len()
    }

    /// Ends the connection. Once the queue pair is destroyed the device touches nothing of it any more, and all memory
    /// goes back.
    fn shut(&mut self, cause: Cause, out: &mut Vec<Completion>) {
        if let Some(qp) = self.qp.take() {
            qp.disconnect();
            self.tags.unbind();
            drop(qp);
        }
        for work in self.send.drain() {
            match work {
                Work::Read(id, sink) => {
                    out.push(Completion::Done { id, sink: Some(sink), result: Err(WrError::Flushed) });
                }
                Work::Write(_, Some(id)) => {
                    out.push(Completion::Done { id, sink: None, result: Err(WrError::Flushed) });
                }
                _ => {}
            }
        }
        self.receives.iter_mut().for_each(|slot| *slot = None);
        self.told = true;
        out.push(Completion::Closed(cause));
    }
}

/// The kernel's value of the flag [`ffi::WC_WITH_INV`], which rxe hands through.
const WC_WITH_INV_KERNEL: libc::c_uint = 1 << 2;

/// What to say when memory cannot be registered.
const MEMLOCK: &str =
    "memory cannot be registered with the RDMA device (raise the limit on locked memory, RLIMIT_MEMLOCK)";

fn broken(status: ffi::WcStatus) -> Cause {
    match status {
        ffi::WC_REM_ACCESS_ERR => Cause::Protocol("the peer refused access to memory that it advertised"),
        _ => Cause::Transport(io::ErrorKind::ConnectionReset),
    }
}

fn slab_access(windows: bool, iwarp: bool) -> c_int {
    let bind = if windows { ffi::ACCESS_MW_BIND } else { 0 };
    // On iWARP the sink of an RDMA Read is written as if by the peer.
    let read_sink = if iwarp { ffi::ACCESS_REMOTE_WRITE } else { 0 };
    ffi::ACCESS_LOCAL_WRITE | bind | read_sink
}

fn messages_config(count: usize, len: usize) -> PoolConfig {
    PoolConfig { chunk_lens: vec![len], slab_len: 1 << 20, max_bytes: count.saturating_mul(len) }
}

fn data_config(max_bytes: usize) -> PoolConfig {
    let chunk_lens = vec![4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
    PoolConfig { chunk_lens, slab_len: 1 << 20, max_bytes }
}

impl Drop for VerbsRcap {
    /// The peer is to hear of it at once, not when it misses something.
    fn drop(&mut self) {
        if let Some(qp) = &self.qp {
            qp.disconnect();
        }
    }
}

impl Rcap for VerbsRcap {
    fn caps(&self) -> &RcapCaps {
        &self.caps
    }

    fn transport(&self) -> TransportInfo {
        self.info.clone()
    }

    fn allocate(&mut self, want: &RcapResources) -> Result<(), AllocError> {
        if self.allocated {
            return Ok(());
        }
        if want.receives > self.receives.len() {
            return Err(AllocError { what: "receive buffers of the queue pair" });
        }
        let access = slab_access(self.tags.are_windows(), self.pd.id().is_iwarp());
        let count = want.receives.saturating_add(want.messages);
        let messages = Registered::new(self.pd.clone(), access, messages_config(count, want.message_len));
        let data = Registered::new(self.pd.clone(), access, data_config(want.pool_bytes));
        messages.try_out().map_err(|_| AllocError { what: MEMLOCK })?;
        // Two STags a command, at an initiator.
        let windows = want.receives.saturating_mul(2).min(self.config.max_windows);
        self.tags.provide(windows).map_err(|_| AllocError { what: "memory windows" })?;
        (self.messages, self.data, self.allocated) = (messages, data, true);
        Ok(())
    }

    fn deallocate(&mut self) {
        let access = slab_access(self.tags.are_windows(), self.pd.id().is_iwarp());
        self.data = Registered::new(self.pd.clone(), access, data_config(0));
        let config = messages_config(LOGIN_MESSAGES, LOGIN_MESSAGE_LEN);
        self.messages = Registered::new(self.pd.clone(), access, config);
        self.allocated = false;
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.data.pool
    }

    fn messages(&self) -> &Arc<dyn BufPool> {
        &self.messages.pool
    }

    fn is_local(&self, memory: &[u8]) -> bool {
        self.local(memory).is_some()
    }

    fn post_recv(&mut self, buf: IoBuf) -> Result<(), Full<IoBuf>> {
        let (Some(mut element), Some(slot)) = (self.sge(&buf), self.free_receives.pop()) else {
            return Err(Full(buf));
        };
        let Some(qp) = &mut self.qp else { return Err(Full(buf)) };
        let mut request =
            RecvWr { wr_id: slot as u64, next: std::ptr::null_mut(), sg_list: &mut element, num_sge: 1 };
        // SAFETY: the element list outlives the call; the buffer is owned by its slot until the completion comes back
        // or the queue pair is destroyed.
        match unsafe { qp.post_recv(&mut request) } {
            Ok(()) => {
                if let Some(place) = self.receives.get_mut(slot) {
                    *place = Some(buf);
                }
                Ok(())
            }
            Err(_) => {
                self.free_receives.push(slot);
                Err(Full(buf))
            }
        }
    }

    fn post(&mut self, op: Op) -> Result<(), Full<Op>> {
        // Each valid STag may need a place for its invalidation.
        if self.send.room() <= self.tags.in_use().saturating_add(2) && self.qp.is_some() {
            self.look = true;
            return Err(Full(op));
        }
        let (request, reachable, work) = match op {
            Op::Send { message, invalidate } => {
                let mut request = SendWr::new(ffi::WR_SEND);
                if let Some(stag) = invalidate {
                    request = SendWr::new(ffi::WR_SEND_WITH_INV);
                    request.set_invalidate(stag.0);
                }
                (request, self.gather(message.parts().map(|p| &p[..])), Work::Send(message))
            }
            Op::Write { id, data, to } => {
                let mut request = SendWr::new(ffi::WR_RDMA_WRITE);
                request.set_remote(to.offset, to.stag.0);
                (request, self.gather(data.parts().map(|p| &p[..])), Work::Write(data, id))
            }
            Op::Read { id, from, into } => {
                let mut request = SendWr::new(ffi::WR_RDMA_READ);
                request.set_remote(from.offset, from.stag.0);
                (request, self.gather(into.parts().map(|p| &p[..])), Work::Read(id, into))
            }
        };
        self.send.push(request, self.elements.drain(..), work);
        if !reachable {
            // The caller did not ask `is_local`: the request is not posted, and the memory goes back with the end.
            self.fail(Cause::Protocol("memory that is not registered"));
        }
        Ok(())
    }

    fn advertisable(&self) -> usize {
        self.tags.available(self.send.room())
    }

    fn advertise(&mut self, memory: Tagged) -> Result<RemoteBuf, Full<Tagged>> {
        if self.advertisable() == 0 {
            return Err(Full(memory));
        }
        let local = match &memory {
            Tagged::Source(list) => list.parts().next().and_then(|p| self.local(p)),
            Tagged::Sink(list) => list.parts().next().and_then(|p| self.local(p)),
        };
        self.tags.advertise(memory, local, &mut self.send).map_err(|e| {
            self.fail(Cause::Transport(e.kind()));
            Full(Tagged::Source(datamover::SgList::new()))
        })
    }

    fn invalidate(&mut self, stag: Stag) -> Invalidation {
        let send = if self.qp.is_some() { Some(&mut self.send) } else { None };
        self.tags.invalidate(stag, send)
    }

    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Budget, out: &mut Vec<Completion>) {
        if self.told {
            return;
        }
        loop {
            if self.over.is_none() {
                self.ring();
            }
            while turn.pdus > 0 && self.reap(turn, out) {}
            if !out.is_empty() {
                // What they bring about comes first.
                return;
            }
            self.cm_events(cx);
            if self.disconnecting && self.send.is_flushed() {
                self.fail(Cause::Local);
            }
            if turn.pdus == 0 {
                return;
            }
            if let Some(cause) = self.over.clone() {
                return self.shut(cause, out);
            }
            if self.wait(cx, turn.now) && self.over.is_none() {
                return;
            }
        }
    }

    fn is_flushed(&self) -> bool {
        self.told || self.send.is_flushed()
    }

    fn disconnect(&mut self) {
        self.disconnecting = true;
    }

    fn abort(&mut self) {
        self.fail(Cause::Local);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.look)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.look |= self.look_at.is_some_and(|at| now >= at);
    }

    fn stats(&self) -> RcapStats {
        RcapStats { syscalls: self.doorbells, copied_bytes: 0 }
    }
}
