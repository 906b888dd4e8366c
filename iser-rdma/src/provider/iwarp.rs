//! iSER over software iWARP (MPA, DDP, RDMAP on a byte stream): no device needed.
//!
//! ```text
//!   login in messages:   TCP ── MPA Request/Reply ── login, full feature phase in RDMAP messages
//!   login in bytes:      TCP ── login PDUs ── final response │ MPA Request/Reply ── RDMAP messages
//! ```
//! The first is what the kernel's RDMA-CM does on iWARP; its end is a
//! [`MessageLoginLink`](crate::MessageLoginLink) over an [`IwarpRcap`]. The second is RFC 7145 section 5.1: plain iSCSI
//! that turns into iSER on the same connection; its ends are [`StreamLoginLink`], or another login link that hands
//! its stream to [`enable`].

mod login;
mod memory;
mod startup;
mod stream;
#[cfg(feature = "tokio")]
mod tokio_net;

pub use login::{StreamLoginLink, Upgrade, enable};
pub use startup::IwarpConfig;
pub use stream::Stream;
#[cfg(feature = "tokio")]
pub use tokio_net::{IwarpFabric, TokioStream};

use crate::provider::pools::Pools;
use crate::rcap::{
    Completion, Invalidation, Op, Rcap, RcapCaps, RcapResources, RcapStats, RemoteBuf, Stag, Tagged, WrError,
    WrId,
};
use ::iwarp::{Access, Done, Limits, RemoteAddr, SendWr, Status, WriteWr};
use datamover::{AllocError, Budget, BufPool, Cause, Full, IoBuf, Role, SlabObserver, TransportInfo};
use memory::Owned;
use startup::{Startup, StartupEnd};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

type QueuePair = ::iwarp::QueuePair<Owned>;

/// Slices of one write.
const SLOTS: usize = 64;

/// Tagged Offset of the first byte of everything that is advertised. Not 0: peers are told that virtual addresses are
/// not zero-based.
const BASE: u64 = 0x1000;

/// The name of work that nobody asks about.
const UNNAMED: ::iwarp::WrId = ::iwarp::WrId(u64::MAX);

/// Task data and messages are ordinary memory.
#[derive(Clone, Copy)]
struct Unobserved;

impl SlabObserver for Unobserved {
    fn slab_added(&self, _: &mut [u8]) -> bool {
        true
    }
}

enum Phase {
    /// No turn yet, so no clock.
    New(Role, Upgrade),
    /// MPA Request and Reply are under way; what is posted waits.
    Startup(Box<Startup>),
    Running(Box<QueuePair>),
    /// It failed before it began.
    Failed,
}

/// A software iWARP connection.
pub struct IwarpRcap<S> {
    /// `None` when it is closed.
    stream: Option<S>,
    phase: Phase,
    info: TransportInfo,
    caps: RcapCaps,
    config: IwarpConfig,
    pools: Pools<Unobserved>,
    /// Posted before there was a queue pair.
    early: VecDeque<Op>,
    early_receives: VecDeque<IoBuf>,
    /// Memory whose STag the peer invalidated.
    returned: HashMap<Stag, Tagged>,
    closing: Closing,
    /// Nothing waits to be written.
    flushed: bool,
    /// What the stream said when it failed.
    io_error: Option<ErrorKind>,
    /// `Closed` has been reported.
    told: bool,
    stats: RcapStats,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    No,
    /// After what was queued.
    Asked,
    /// At once; the next write that does not go through is the last.
    Aborted,
}

impl<S: Stream> IwarpRcap<S> {
    /// Begins on a connected stream, as the MPA initiator (an iSCSI initiator) or responder (a target).
    ///
    /// `stream` is `None` when it has ended. `upgrade` is what a login in bytes has left behind: bytes read beyond it,
    /// and bytes of it that have not been sent and go out before anything else.
    #[must_use]
    pub fn new(stream: Option<S>, role: Role, config: IwarpConfig, upgrade: Upgrade) -> Self {
        let info = TransportInfo {
            name: "iser",
            detail: "iwarp".into(),
            local: stream.as_ref().and_then(Stream::local_addr),
            peer: stream.as_ref().and_then(Stream::peer_addr),
        };
        let caps = RcapCaps {
            send_invalidate: true,
            scoped_stags: true,
            max_sge: usize::MAX,
            max_read_sge: usize::MAX,
            max_tagged_parts: usize::MAX,
            tags_local_only: false,
            max_transfer: 1 << 30,
            ord: config.ord,
            ird: config.ird,
        };
        let phase = if stream.is_some() { Phase::New(role, upgrade) } else { Phase::Failed };
        Self {
            stream,
            phase,
            info,
            caps,
            config,
            pools: Pools::new(Unobserved),
            early: VecDeque::new(),
            early_receives: VecDeque::new(),
            returned: HashMap::new(),
            closing: Closing::No,
            flushed: true,
            io_error: None,
            told: false,
            stats: RcapStats::default(),
        }
    }

    /// Whether the MPA startup is complete.
    #[must_use]
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    fn begin(&mut self, now: Instant) {
        let Phase::New(role, upgrade) = &mut self.phase else { return };
        let startup = Startup::new(*role, &self.config, std::mem::take(upgrade), now);
        self.phase = startup.map_or(Phase::Failed, |s| Phase::Startup(Box::new(s)));
        self.startup_turn(Ok(()));
    }

    /// The startup is over: what waited goes to the queue pair.
    fn establish(&mut self, end: StartupEnd) {
        let limits = Limits { send_queue: 2048, recv_queue: 4096, stags: 8192, ..Limits::default() };
        self.caps.ord = self.caps.ord.min(end.established.ord);
        self.caps.ird = self.caps.ird.min(end.established.ird);
        self.caps.send_invalidate = end.send_invalidate;
        let mut qp = QueuePair::new(&end.established, limits, self.config.seed);
        for buf in self.early_receives.drain(..) {
            // More than there is room for was refused before.
            let _ = qp.post_recv(UNNAMED, Owned::Message(buf));
        }
        self.phase = Phase::Running(Box::new(qp));
        for op in std::mem::take(&mut self.early) {
            let _ = self.post(op);
        }
        if let Phase::Running(qp) = &mut self.phase {
            qp.handle_bytes(&end.rest);
            match self.closing {
                Closing::No => {}
                Closing::Asked => qp.close(),
                Closing::Aborted => qp.handle_lost(),
            }
        }
    }

    fn fail(&mut self, kind: ErrorKind) {
        self.io_error.get_or_insert(kind);
        match &mut self.phase {
            Phase::Running(qp) => qp.handle_lost(),
            _ => self.phase = Phase::Failed,
        }
    }

    /// Writes what there is; whether something was written.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        loop {
            let Some(stream) = &mut self.stream else { return progress };
            // Slots for nothing cost more than the rest of an idle turn.
            if let Phase::Running(qp) = &mut self.phase
                && !qp.wants_transmit()
            {
                self.flushed = true;
                return progress;
            }
            let mut slots = [IoSlice::new(&[]); SLOTS];
            let used = match &mut self.phase {
                Phase::Startup(s) => s.transmit_slices(&mut slots),
                Phase::Running(qp) => qp.transmit_slices(&mut slots),
                Phase::New(..) | Phase::Failed => 0,
            };
            self.flushed = used == 0;
            if used == 0 {
                return progress;
            }
            let written = stream.poll_write(cx, slots.get(..used).unwrap_or_default());
            match written {
                Poll::Pending => {
                    if self.closing == Closing::Aborted {
                        self.fail(ErrorKind::ConnectionAborted);
                    }
                    return progress;
                }
                Poll::Ready(Ok(n)) if n > 0 => {
                    progress = true;
                    match &mut self.phase {
                        Phase::Startup(s) => s.transmitted(n),
                        Phase::Running(qp) => qp.transmitted(n),
                        Phase::New(..) | Phase::Failed => {}
                    }
                    self.startup_turn(Ok(()));
                }
                Poll::Ready(Ok(_)) => self.fail(ErrorKind::WriteZero),
                Poll::Ready(Err(e)) => self.fail(e.kind()),
            }
            self.stats.syscalls += 1;
        }
    }

    /// Reads once; whether something came.
    fn read(&mut self, cx: &mut Context<'_>, turn: &mut Budget) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let (read, startup) = match &mut self.phase {
            Phase::Startup(s) => {
                let mut buf = [0u8; 2048];
                let read = stream.poll_read(cx, &mut [IoSliceMut::new(&mut buf)]);
                let result = match &read {
                    Poll::Ready(Ok(n)) if *n > 0 => s.received(buf.get(..*n).unwrap_or_default()),
                    _ => Ok(()),
                };
                (read, Some(result))
            }
            Phase::Running(qp) => {
                if qp.cause().is_some() {
                    return false;
                }
                let room = qp.posted_recvs().saturating_mul(stream::SHORTEST);
                if room == 0 {
                    // Whoever holds the receive buffers gives one back first.
                    return false;
                }
                let read = stream.poll_read(cx, &mut stream::limited(&mut qp.recv_slots(), room));
                if let Poll::Ready(Ok(n)) = &read
                    && *n > 0
                {
                    qp.received(*n);
                }
                (read, None)
            }
            Phase::New(..) | Phase::Failed => return false,
        };
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => self.eof(),
            Poll::Ready(Ok(n)) => {
                turn.bytes = turn.bytes.saturating_sub(n);
                if let Some(result) = startup {
                    self.startup_turn(result);
                }
            }
            Poll::Ready(Err(e)) => self.fail(e.kind()),
        }
        self.stats.syscalls += 1;
        true
    }

    /// The peer will send no more: iSER cannot go on in one direction.
    fn eof(&mut self) {
        match &mut self.phase {
            Phase::Running(qp) => {
                qp.handle_eof();
                qp.close();
                if qp.cause().is_none() {
                    // Something waits for an answer that will not come.
                    qp.handle_lost();
                }
                self.io_error.get_or_insert(ErrorKind::UnexpectedEof);
            }
            _ => self.fail(ErrorKind::UnexpectedEof),
        }
    }

    fn startup_turn(&mut self, result: io::Result<()>) {
        if let Err(e) = result {
            return self.fail(e.kind());
        }
        let Phase::Startup(s) = &mut self.phase else { return };
        match s.poll_end() {
            Ok(Some(end)) => self.establish(end),
            Ok(None) => {}
            Err(e) => self.fail(e.kind()),
        }
    }

    /// Moves completions out; whether there was one.
    fn collect(&mut self, turn: &mut Budget, out: &mut Vec<Completion>) -> bool {
        let before = out.len();
        let Phase::Running(qp) = &mut self.phase else { return false };
        while turn.pdus > 0
            && let Some(done) = qp.poll_cq()
        {
            let Some(completion) = completed(done, &mut self.returned) else { continue };
            turn.pdus -= 1;
            out.push(completion);
        }
        out.len() > before
    }

    /// The end, once everything else has been reported.
    fn end(&mut self, out: &mut Vec<Completion>) {
        let cause = match &mut self.phase {
            Phase::Running(qp) if qp.status() == Status::Closed => match (qp.cause(), self.io_error) {
                (Some(::iwarp::Cause::Closed), _) => Cause::Local,
                (Some(::iwarp::Cause::PeerClosed), _) => Cause::PeerClosed,
                (Some(::iwarp::Cause::Local(t) | ::iwarp::Cause::Remote(t)), _) => {
                    Cause::Protocol(t.code.text().unwrap_or("iWARP: the stream was terminated"))
                }
                (_, Some(ErrorKind::UnexpectedEof)) => Cause::PeerClosed,
                (_, kind) => Cause::Transport(kind.unwrap_or(ErrorKind::ConnectionAborted)),
            },
            Phase::Failed => match self.closing {
                Closing::No => Cause::Transport(self.io_error.unwrap_or(ErrorKind::ConnectionAborted)),
                _ => Cause::Local,
            },
            _ => return,
        };
        for op in self.early.drain(..) {
            if let Op::Read { id, into, .. } = op {
                out.push(Completion::Done { id, sink: Some(into), result: Err(WrError::Flushed) });
            }
        }
        self.early_receives.clear();
        self.told = true;
        out.push(Completion::Closed(cause));
    }

    /// Closes the stream. What the peer has sent is read away first: data that nobody read would make the system
    /// reset the connection, and a Terminate message might be lost with it.
    fn close_stream(&mut self, cx: &mut Context<'_>) {
        let Some(mut stream) = self.stream.take() else { return };
        stream.shutdown();
        let mut away = [0; 4096];
        for _ in 0..256 {
            match stream.poll_read(cx, &mut [IoSliceMut::new(&mut away)]) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                _ => return,
            }
        }
    }
}

/// A completion in our terms; `None` for one that nobody asked for.
fn completed(done: ::iwarp::Completion<Owned>, returned: &mut HashMap<Stag, Tagged>) -> Option<Completion> {
    let id = WrId(done.id.0);
    let result = if done.flushed { Err(WrError::Flushed) } else { Ok(()) };
    match done.done {
        Done::Recv { buffer: Owned::Message(mut message), len, invalidated, .. } if !done.flushed => {
            message.truncate(len);
            let invalidated = invalidated.map(|i| {
                let stag = Stag(i.stag.0);
                if let Some(memory) = i.region.and_then(memory::tagged) {
                    returned.insert(stag, memory);
                }
                stag
            });
            Some(Completion::Received { message, invalidated })
        }
        Done::Write if done.id != UNNAMED => Some(Completion::Done { id, sink: None, result }),
        Done::Read { sink: Owned::Sink(sink), .. } => Some(Completion::Done { id, sink: Some(sink), result }),
        _ => None,
    }
}

impl<S: Stream> Rcap for IwarpRcap<S> {
    fn caps(&self) -> &RcapCaps {
        &self.caps
    }

    fn transport(&self) -> TransportInfo {
        self.info.clone()
    }

    fn allocate(&mut self, want: &RcapResources) -> Result<(), AllocError> {
        self.pools.allocate(want);
        Ok(())
    }

    fn deallocate(&mut self) {
        self.pools.deallocate();
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        &self.pools.data
    }

    fn messages(&self) -> &Arc<dyn BufPool> {
        &self.pools.messages
    }

    fn is_local(&self, _: &[u8]) -> bool {
        true
    }

    fn post_recv(&mut self, buf: IoBuf) -> Result<(), Full<IoBuf>> {
        match &mut self.phase {
            Phase::New(..) | Phase::Startup(_) => self.early_receives.push_back(buf),
            Phase::Running(qp) => {
                if let Err(refused) = qp.post_recv(UNNAMED, Owned::Message(buf))
                    && let Owned::Message(buf) = refused.work
                {
                    return Err(Full(buf));
                }
            }
            Phase::Failed => return Err(Full(buf)),
        }
        Ok(())
    }

    fn post(&mut self, op: Op) -> Result<(), Full<Op>> {
        self.flushed = false;
        let qp = match &mut self.phase {
            Phase::Running(qp) if qp.send_room() > 0 => qp,
            Phase::Running(qp) if qp.status() == Status::Open => return Err(Full(op)),
            // Before the startup is complete, or after the end: what waits then is flushed with the end.
            _ => {
                self.early.push_back(op);
                return Ok(());
            }
        };
        match op {
            Op::Send { message, invalidate } => {
                let wr = SendWr {
                    id: UNNAMED,
                    payload: message.parts().cloned().collect(),
                    invalidate: invalidate.map(|s| ::iwarp::Stag(s.0)),
                    unsignaled: true,
                    ..SendWr::default()
                };
                let _ = qp.post_send(wr);
            }
            Op::Write { id, data, to } => {
                let wr = WriteWr {
                    id: id.map_or(UNNAMED, |id| ::iwarp::WrId(id.0)),
                    payload: data.parts().cloned().collect(),
                    to: remote_addr(to),
                    fence: false,
                    unsignaled: id.is_none(),
                };
                let _ = qp.post_write(wr);
            }
            Op::Read { id, from, into } => {
                let len = u32::try_from(into.len()).unwrap_or(u32::MAX);
                let wr = ::iwarp::ReadWr {
                    id: ::iwarp::WrId(id.0),
                    from: remote_addr(from),
                    len,
                    sink: Owned::Sink(into),
                };
                if let Err(refused) = qp.post_read(wr)
                    && let Owned::Sink(into) = refused.work.sink
                {
                    return Err(Full(Op::Read { id, from, into }));
                }
            }
        }
        Ok(())
    }

    fn advertisable(&self) -> usize {
        match &self.phase {
            Phase::Running(_) => usize::MAX,
            _ => 0,
        }
    }

    fn advertise(&mut self, memory: Tagged) -> Result<RemoteBuf, Full<Tagged>> {
        let Phase::Running(qp) = &mut self.phase else { return Err(Full(memory)) };
        let access = match &memory {
            Tagged::Source(_) => Access::READ,
            Tagged::Sink(_) => Access::WRITE,
        };
        match qp.register(memory::region(memory), access, BASE) {
            Ok(stag) => Ok(RemoteBuf { stag: Stag(stag.0), offset: BASE }),
            Err(refused) => {
                Err(Full(memory::tagged(refused.work).unwrap_or(Tagged::Source(Default::default()))))
            }
        }
    }

    fn invalidate(&mut self, stag: Stag) -> Invalidation {
        if let Some(memory) = self.returned.remove(&stag) {
            return Invalidation::Done(memory);
        }
        let Phase::Running(qp) = &mut self.phase else { return Invalidation::Unknown };
        match qp.invalidate(::iwarp::Stag(stag.0)) {
            Ok(i) => i.region.and_then(memory::tagged).map_or(Invalidation::Unknown, Invalidation::Done),
            Err(_) => Invalidation::Unknown,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Budget, out: &mut Vec<Completion>) {
        self.begin(turn.now);
        self.write(cx);
        loop {
            if self.collect(turn, out) {
                break;
            }
            if turn.bytes == 0 || turn.pdus == 0 || !self.read(cx, turn) {
                break;
            }
        }
        // Answers to the peer's Reads, and the last words.
        self.write(cx);
        self.collect(turn, out);
        if !self.told && turn.pdus > 0 {
            self.end(out);
        }
        if self.told {
            self.close_stream(cx);
        }
    }

    fn is_flushed(&self) -> bool {
        self.told || self.flushed
    }

    fn disconnect(&mut self) {
        if self.closing == Closing::No {
            self.closing = Closing::Asked;
        }
        if let Phase::Running(qp) = &mut self.phase {
            qp.close();
        }
    }

    fn abort(&mut self) {
        self.closing = Closing::Aborted;
        match &mut self.phase {
            Phase::Running(qp) => qp.terminate(::iwarp::TerminateCode::RDMAP_STREAM_CATASTROPHIC),
            _ => self.phase = Phase::Failed,
        }
    }

    fn stats(&self) -> RcapStats {
        let copied_bytes = match &self.phase {
            Phase::Running(qp) => qp.stats().copied_bytes,
            _ => 0,
        };
        RcapStats { copied_bytes, ..self.stats }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Startup(s) => s.poll_timeout(),
            _ => None,
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Startup(s) = &mut self.phase
            && s.is_late(now)
        {
            self.fail(ErrorKind::TimedOut);
        }
    }
}

fn remote_addr(buf: RemoteBuf) -> RemoteAddr {
    RemoteAddr { stag: ::iwarp::Stag(buf.stag.0), offset: buf.offset }
}

#[cfg(test)]
mod tests;
