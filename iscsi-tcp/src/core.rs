//! [`TcpCore`]: all of the protocol, without a socket.

use crate::r2t::Fetcher;
use crate::recover::Held;
use crate::rx::Rx;
use crate::snack::Ack;
use crate::steer::Slab;
use crate::task::{Numbering, Tasks};
use crate::tx::Tx;
use bytes::Bytes;
use datamover::{
    BufPool, Cause, ConnKeys, Control, DataCompletion, DataError, Event, Full, GetData, InputProgress,
    InvalidPdu, PutData, Reclaimed, Resources, Role, Stats, Terminated, Window,
};
use iscsi_pdu::{
    DataSn, DecodeError, Digests, Itt, Limits, Pdu, RejectReason, Sender, StatSn, TaskMgmtFunction,
};
use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the login phase leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Handover {
    /// Bytes that were received after the last login PDU.
    pub unread: Bytes,
    /// Bytes that are still to be sent before anything else: the final Login Response.
    pub unsent: Bytes,
}

/// The data mover of one connection in full feature phase: bytes in, bytes out, events.
///
/// A socket is optional; [`TcpDatamover`](crate::TcpDatamover) adds one. Order of calls: [`recv_slots`], read into
/// them, [`received`]; [`poll_event`] until `None`; calls of RFC 5047; [`transmit_slices`], write from them,
/// [`transmitted`]. Nothing here fails half way: when the connection cannot go on, [`Event::Terminated`] is the last
/// event, and everything after it is without effect.
///
/// [`recv_slots`]: Self::recv_slots
/// [`received`]: Self::received
/// [`poll_event`]: Self::poll_event
/// [`transmit_slices`]: Self::transmit_slices
/// [`transmitted`]: Self::transmitted
pub struct TcpCore {
    pub(crate) role: Role,
    pub(crate) keys: ConnKeys,
    pub(crate) digests: Digests,
    pub(crate) limits: Limits,
    pub(crate) pool: Arc<dyn BufPool>,
    /// Control-type PDUs, Puts and Gets that may be under way, each.
    pub(crate) limit: usize,
    /// Time of the last turn.
    pub(crate) now: Option<Instant>,
    /// To stamp on what we make.
    pub(crate) window: Window,
    /// Learned last.
    pub(crate) seen: Window,
    pub(crate) events: VecDeque<Event>,
    pub(crate) stats: Stats,
    pub(crate) rx: Rx,
    pub(crate) tx: Tx,
    /// Initiator: open tasks.
    pub(crate) tasks: Tasks,
    /// Target: numbers of the tasks that move data.
    pub(crate) numbering: Numbering,
    /// Target: open Get_Data calls and their R2Ts.
    pub(crate) fetcher: Fetcher,
    /// Target: acknowledgments asked for.
    pub(crate) acks: Slab<Ack>,
    /// Initiator: what may not go up before missing data has come.
    pub(crate) held: VecDeque<Held>,
    /// Initiator: when missing data is given up.
    pub(crate) patience: Option<Instant>,
    /// Target, above ErrorRecoveryLevel 0: StatSN of the latest response of a task.
    pub(crate) last_status: Option<StatSn>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Connection_Terminate was called: what is queued goes out, within times that are unknown until the next turn.
    Draining(Option<Drain>),
    Ended,
}

/// How long what is queued may take to go out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Drain {
    /// Until when the stream must have taken something more.
    stalled: Instant,
    /// Until when it must have taken all.
    latest: Instant,
}

impl Drain {
    fn begin(now: Instant, keys: &ConnKeys) -> Option<Self> {
        let latest = now.checked_add(keys.data_timeout)?;
        Some(Self { stalled: latest, latest }.moved(now))
    }

    /// Bytes have gone out.
    fn moved(self, now: Instant) -> Self {
        let stalled = now.checked_add(PARTING).map_or(self.latest, |at| at.min(self.latest));
        Self { stalled, ..self }
    }
}

/// How long the stream may take nothing once the connection is to end: it may be ending because nothing gets through
/// any more, and its tasks wait for that to be told. They are kept for Time2Wait and Time2Retain, 22 s by default. A
/// peer that is slow but takes what is sent gets more time, `data_timeout` in all.
const PARTING: Duration = Duration::from_secs(2);

/// Events that may wait before a driver stops receiving.
const EVENTS: usize = 1024;

impl TcpCore {
    /// A connection that has just entered full feature phase.
    // req: 7143-13.1-1, 7143-13.1-2, 7143-13.1-4
    #[must_use]
    pub fn new(
        role: Role,
        keys: ConnKeys,
        resources: &Resources,
        pool: Arc<dyn BufPool>,
        handover: Handover,
    ) -> Self {
        let sender = match role {
            Role::Initiator => Sender::Target,
            Role::Target => Sender::Initiator,
        };
        let mut core = Self {
            role,
            digests: Digests { header: keys.header_digest, data: keys.data_digest },
            limits: Limits { data: keys.max_recv_data_segment_length, ahs: 1020, sender: Some(sender) },
            keys,
            pool,
            limit: resources.commands.saturating_add(resources.unexpected).clamp(1, 60_000) as usize,
            now: None,
            window: Window::default(),
            seen: Window::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            rx: Rx::new(&handover.unread),
            tx: Tx::new(handover.unsent),
            tasks: Tasks::default(),
            numbering: Numbering::default(),
            fetcher: Fetcher::new(),
            acks: Slab::new(),
            held: VecDeque::new(),
            patience: None,
            last_status: None,
            phase: Phase::Open,
        };
        // A whole PDU may be among what was read already.
        core.parse();
        core
    }

    /// Which end this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Tells the time, which only time-outs need.
    pub fn set_now(&mut self, now: Instant) {
        self.now = Some(now);
        if self.phase == Phase::Draining(None) {
            self.phase = Phase::Draining(Drain::begin(now, &self.keys));
        }
    }

    /// Send_Control (RFC 5047 section 8.1).
    ///
    /// # Errors
    /// [`Full`] when as many control-type PDUs wait to be sent as [`Resources`] allow, and when the connection is
    /// over.
    // req: 5047-8.1-1, 5047-8.1-3
    pub fn send_control(&mut self, control: Control) -> Result<(), Full<Control>> {
        if self.phase != Phase::Open || self.tx.controls() >= self.limit {
            return Err(Full(control));
        }
        let longest = self.keys.max_send_data_segment_length as usize;
        let rule = match control.check(self.role) {
            // req: 7143-11.7.1-2
            Ok(()) if control.pdu.data().is_some_and(|d| d.len() > longest) => {
                "a data segment longer than the peer's MaxRecvDataSegmentLength (RFC 7143 section 13.12)"
            }
            Ok(()) => {
                self.queue_control(control);
                return Ok(());
            }
            Err(rule) => rule,
        };
        self.fail(Cause::Protocol(rule));
        Err(Full(control))
    }

    fn queue_control(&mut self, control: Control) {
        let Control { pdu, buffers, .. } = control;
        let segment_length = self.keys.max_recv_data_segment_length;
        match &pdu {
            Pdu::ScsiCommand(c) if self.tasks.is_retry(c, &buffers) => {}
            Pdu::ScsiCommand(c) => self.tasks.open(c, buffers, segment_length),
            Pdu::TaskMgmtRequest(t) if t.function == TaskMgmtFunction::TaskReassign => {
                self.tasks.reopen(t, buffers, segment_length);
            }
            // A response ends the task, and with it what was still being fetched.
            Pdu::ScsiResponse(r) => {
                for get in self.take_gets(r.itt) {
                    self.complete_get(get, Err(DataError::Cancelled));
                }
                if self.fuse(r) {
                    return;
                }
            }
            _ => {}
        }
        self.tx.push_control(pdu);
    }

    /// Deallocate_Task_Resources (RFC 5047 section 8.9), answered by [`Event::TaskReclaimed`]. What is queued of the
    /// task's data and has not been made into PDUs is dropped; data that still comes for it is, too.
    // req: 5047-8.9-1
    pub fn deallocate_task_resources(&mut self, itt: Itt) {
        if self.phase != Phase::Open {
            return;
        }
        self.rx.skip_task(itt);
        let buffers = self.tasks.remove(itt).map(|t| t.buffers).unwrap_or_default();
        let gets = self.take_gets(itt).into_iter().map(|g| (g.offset, g.into)).collect();
        self.tx.drop_puts(itt);
        self.forget_numbers(itt);
        self.release();
        self.events.push_back(Event::TaskReclaimed {
            itt,
            reclaimed: Reclaimed { buffers, gets, ..Reclaimed::default() },
        });
    }

    /// Connection_Terminate (RFC 5047 section 8.7): no more is received; [`Event::Terminated`] follows when what is
    /// queued was sent, or when the stream has taken nothing for two seconds or not all within `data_timeout`.
    // req: 5047-7.3-1, 5047-8.7-1
    pub fn connection_terminate(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining(self.now.and_then(|now| Drain::begin(now, &self.keys)));
            self.end_if_drained();
        }
    }

    pub(crate) fn end_if_drained(&mut self) {
        if matches!(self.phase, Phase::Draining(_)) && self.tx.is_empty() {
            self.end(Cause::Local);
        }
    }

    /// Notice_Key_Values (RFC 5047 section 8.8). In full feature phase only MaxRecvDataSegmentLength, own or the
    /// peer's, can change. Its own an initiator notices when it declares it, and the same again when that is settled: by
    /// which of those that it declared before then the target cuts is not known, and all are taken.
    // req: 5047-8.8-1
    pub fn notice_key_values(&mut self, keys: &ConnKeys) {
        let (recv, send) = (keys.max_recv_data_segment_length, keys.max_send_data_segment_length);
        let before = (self.keys.max_recv_data_segment_length, self.keys.max_send_data_segment_length);
        self.limits.data = if (recv, send) == before { recv } else { self.limits.data.max(recv) };
        self.keys.max_recv_data_segment_length = recv;
        self.keys.max_send_data_segment_length = send;
    }

    /// Numbers to stamp on Data-In, R2T and Data-Out from now on.
    pub fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether so many events wait that nothing more should be received before.
    pub(crate) fn is_crowded(&self) -> bool {
        self.events.len() >= EVENTS
    }

    /// Counters since the connection began.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Counters, for the driver to add its system calls.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Whether PDUs are still received: neither terminated nor being so.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether [`Event::Terminated`] has been queued: the stream can be closed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// The stream failed or ended; `None` is an orderly end.
    pub fn disconnected(&mut self, error: Option<std::io::ErrorKind>) {
        self.fail(error.map_or(Cause::PeerClosed, Cause::Transport));
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open => [self.fetcher.deadline(), self.patience].into_iter().flatten().min(),
            Phase::Draining(drain) => drain.map(|d| d.stalled),
            Phase::Ended => None,
        }
    }

    /// Gives up transfers that made no progress for `data_timeout`, and a connection that cannot be drained.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        match self.phase {
            Phase::Open => {
                self.expire_gets(now);
                self.expire_holes(now);
            }
            Phase::Draining(Some(drain)) if drain.stalled <= now => self.end(Cause::Local),
            _ => {}
        }
    }

    /// Ends the connection because it cannot go on.
    pub(crate) fn fail(&mut self, cause: Cause) {
        // A local termination under way stays one.
        let local = matches!(self.phase, Phase::Draining(_));
        self.end(if local { Cause::Local } else { cause });
    }

    // req: 5047-8.7-2, 5047-9.2-1, 5047-9.2-3
    fn end(&mut self, cause: Cause) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.rx.stop();
        self.tx.clear();
        self.held.clear();
        let mut reclaimed: BTreeMap<Itt, Reclaimed> = BTreeMap::new();
        let recovers = self.keys.error_recovery_level >= 2;
        for (itt, buffers, next) in self.tasks.drain() {
            let next = if recovers { next } else { DataSn(0) };
            let input = InputProgress { next, ..InputProgress::default() };
            reclaimed.insert(itt, Reclaimed { buffers, input, ..Reclaimed::default() });
        }
        let numbering = std::mem::take(&mut self.numbering);
        for (itt, input) in numbering.into_progress().filter(|_| recovers) {
            reclaimed.entry(itt).or_default().input = input;
        }
        for get in self.fetcher.drain() {
            reclaimed.entry(get.itt).or_default().gets.push((get.offset, get.into));
        }
        let reclaimed = reclaimed.into_iter().collect();
        self.events.push_back(Event::Terminated(Terminated { cause, reclaimed }));
    }

    /// The peer's numbers. One event is enough until it is looked at.
    pub(crate) fn learn(&mut self, window: Window) {
        if window == self.seen {
            return;
        }
        self.seen = window;
        if let Some(Event::Window(last)) = self.events.back_mut() {
            *last = window;
        } else {
            self.events.push_back(Event::Window(window));
        }
    }

    /// Reports the PDU at hand as undeliverable.
    pub(crate) fn invalid(&mut self, reason: RejectReason, error: Option<DecodeError>) {
        let header = Bytes::copy_from_slice(self.rx.header());
        self.events.push_back(Event::Invalid(InvalidPdu { header, reason, error }));
    }

    pub(crate) fn completed(&mut self, itt: Itt, offset: u32) {
        let done = DataCompletion { itt, offset, data: None, result: Ok(()) };
        self.events.push_back(Event::DataCompletion(done));
    }

    /// Put_Data (RFC 5047 section 8.2).
    ///
    /// # Errors
    /// As for [`send_control`](Self::send_control); at an initiator the connection ends.
    // req: 5047-8.2-1, 5047-8.2-3
    pub fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        if self.phase != Phase::Open || self.tx.puts() >= self.limit {
            return Err(Full(put));
        }
        if self.role != Role::Target {
            self.fail(Cause::Protocol("Put_Data is a target's (RFC 5047 section 8.2)"));
            return Err(Full(put));
        }
        self.queue_put(put);
        Ok(())
    }

    /// Get_Data (RFC 5047 section 8.3).
    ///
    /// # Errors
    /// As for [`send_control`](Self::send_control); at an initiator the connection ends.
    // req: 5047-8.3-1, 5047-8.3-3
    pub fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        if self.phase != Phase::Open || self.fetcher.open() >= self.limit {
            return Err(Full(get));
        }
        if self.role != Role::Target {
            self.fail(Cause::Protocol("Get_Data is a target's (RFC 5047 section 8.3)"));
            return Err(Full(get));
        }
        self.queue_get(get)
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_flushed(&self) -> bool {
        self.tx.is_empty()
    }

    /// Fills `iov` with what is to be sent next; returns how many slices were filled, 0 when there is nothing.
    pub fn transmit_slices<'a>(&'a mut self, iov: &mut [IoSlice<'a>]) -> usize {
        self.materialise();
        self.tx.slices(iov)
    }

    /// Counts `n` bytes that were sent from [`transmit_slices`](Self::transmit_slices).
    pub fn transmitted(&mut self, n: usize) {
        if let (Phase::Draining(Some(drain)), Some(now)) = (self.phase, self.now)
            && n > 0
        {
            self.phase = Phase::Draining(Some(drain.moved(now)));
        }
        let mut n = n;
        while let Some((itt, offset)) = self.tx.sent(&mut n) {
            self.completed(itt, offset);
        }
        self.end_if_drained();
    }
}

#[cfg(test)]
mod tests;
