//! [`IserDatamover`]: the Datamover over any [`Rcap`], both roles.
//!
//! ```text
//!   send_control ──▶ initiator.rs ─▶ advertise STags ─┐
//!   put_data  ─────▶ target.rs ──▶ RDMA Writes ───────┼─▶ tx queue ─▶ Rcap::post ─┐ one doorbell
//!   get_data  ─────▶ target.rs ──▶ RDMA Reads ─▶ ORD ─┘                           ├─▶ Rcap::poll
//!   poll_event ◀─── inbound ◀── rx.rs ◀── Received, Done, Invalidated ◀───────────┘
//! ```
//!
//! Order: Sends and Writes leave in the order of the calls, so a SCSI Response never overtakes its data. Reads have
//! their own queue; a response waits for the Reads of its task. Upwards, a SCSI Response waits until the STags of its
//! task are invalid, and what arrived after it waits behind it.

mod initiator;
mod rx;
mod settle;
mod target;
mod tx;

use crate::flow::{Reads, Receives, Unexpected};
use crate::maps::{LocalTask, RemoteTask, Slab, Tasks};
use crate::quirks::Quirks;
use crate::rcap::{self, Completion, Rcap, WrId};
use datamover::{
    Budget, BufPool, Cause, ConnKeys, Control, DataCompletion, Datamover, Drive, Event, Full, GetData, IoBuf,
    PutData, Reclaimed, Resources, Role, Stats, Terminated, TransportInfo, Window,
};
use iscsi_pdu::{BHS_LEN, Itt};
use settle::{Inbound, copy_list};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use target::{OpKind, Transfer};
use tx::Tx;
pub(crate) use tx::{Draft, NoMessage};

/// How long the transport may make no progress once the connection is to end.
const PARTING: Duration = Duration::from_secs(2);

/// AHS bytes that a message has room for when MaxAHSLength was not declared: its default (RFC 7145 section 6.8).
const DEFAULT_AHS: usize = 256;

/// Where the exchange of Hello messages stands (RFC 7145 section 5.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HelloState {
    /// Over, or not to take place: a Hello message now is a protocol error.
    Done,
    /// Target: iSERHelloRequired was never negotiated; a Hello as the first message is answered.
    Optional,
    /// Target: the first message must be Hello.
    AwaitHello,
    /// Initiator: the first message must be HelloReply.
    AwaitReply,
}

/// A target without Hello sends nothing of its own accord for a while (RFC 7145 section 5.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Quiet {
    Off,
    /// From the first turn on.
    For(Duration),
    Until(Instant),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// `connection_terminate` was called: what is queued still goes out.
    Draining,
    /// The provider was told to end the connection.
    Closing,
    Closed,
}

/// A connection in full feature phase, in iSER-assisted mode (RFC 7145).
///
/// Calling order: as for every [`Datamover`].
pub struct IserDatamover<R> {
    rcap: R,
    role: Role,
    keys: ConnKeys,
    quirks: Quirks,
    /// Tasks that a peer may have open.
    max_tasks: usize,
    /// Longest message that is received.
    message_len: usize,
    hello: HelloState,
    quiet: Quiet,
    state: State,
    cause: Option<Cause>,
    /// An initiator's requests that wait for buffers or STags.
    waiting: VecDeque<Control>,
    tx: VecDeque<Tx>,
    /// Control-type PDUs in `tx`, and how many there and in `waiting` may be.
    controls: usize,
    control_limit: usize,
    tx_limit: usize,
    receives: Receives,
    unexpected: Unexpected,
    reads: Reads,
    local: Tasks<LocalTask>,
    remote: Tasks<RemoteTask>,
    serial: u64,
    ops: Slab<OpKind>,
    transfers: Slab<Transfer>,
    inbound: VecDeque<Inbound>,
    /// Events that may wait to be taken before no receive buffer is posted any more.
    inbound_limit: usize,
    completions: Vec<Completion>,
    now: Option<Instant>,
    /// When the transport will have made no progress for too long.
    stalled_at: Option<Instant>,
    stats: Stats,
}

/// What a login link hands over to the datamover that it becomes.
pub(crate) struct Parts<R> {
    pub(crate) rcap: R,
    pub(crate) role: Role,
    pub(crate) keys: ConnKeys,
    pub(crate) quirks: Quirks,
    /// `None`: never allocated, which is an error of the caller.
    pub(crate) resources: Option<Resources>,
    /// Receive buffers posted so far.
    pub(crate) posted: usize,
    /// Messages that came after the last login PDU.
    pub(crate) backlog: VecDeque<IoBuf>,
    /// How the provider ended, if it has already: it says so only once.
    pub(crate) closed: Option<Cause>,
}

/// Longest message that this end may receive, iSER header included.
pub(crate) fn message_len(role: Role, keys: &ConnKeys, resources: &Resources) -> usize {
    let declared = match (keys.rdma_extensions, role) {
        (true, Role::Target) => keys.target_recv_data_segment_length,
        (true, Role::Initiator) => keys.initiator_recv_data_segment_length,
        // A discovery session on an RDMA connection.
        (false, _) => keys.max_recv_data_segment_length,
    };
    let ahs = keys.max_ahs_length.filter(|n| *n != 0).map_or(DEFAULT_AHS, |n| n as usize).min(1020);
    let data = (declared.max(resources.max_control_data) as usize).saturating_add(3) & !3;
    (crate::ISER_HEADER_LEN + BHS_LEN).saturating_add(ahs).saturating_add(data)
}

/// Receive buffers that the declared limits call for: one for each command or response, and the unexpected ones.
// req: 7145-8.1-1, 7145-8.1.1.1-1, 7145-8.1.1.3-2
pub(crate) fn receive_count(keys: &ConnKeys, resources: &Resources) -> usize {
    let all = (resources.commands as usize).saturating_add(resources.unexpected as usize).max(1);
    // A discovery session has no commands, but long messages.
    if keys.rdma_extensions { all } else { all.min(DISCOVERY_RECEIVES) }
}

const DISCOVERY_RECEIVES: usize = 8;

impl<R: Rcap> IserDatamover<R> {
    /// Takes a login link over (Enable_Datamover, RFC 7145 section 3.1.6).
    pub(crate) fn start(parts: Parts<R>) -> Self {
        let Parts { rcap, role, keys, quirks, resources, posted, backlog, closed } = parts;
        let granted = resources.is_some();
        let resources = resources.unwrap_or_default();
        // req: 7145-5.1.1-9, 7145-5.1.2-10, 7145-5.1.2-11, 7145-5.1.3-1, 7145-5.1.3-2, 7145-5.1.3-9
        let hello = match (role, keys.iser_hello_required) {
            (Role::Initiator, Some(true)) => HelloState::AwaitReply,
            (Role::Target, Some(true)) => HelloState::AwaitHello,
            (Role::Target, None) => HelloState::Optional,
            _ => HelloState::Done,
        };
        // req: 7145-5.1.3-11
        let quiet = match (role, hello) {
            (Role::Target, HelloState::Done | HelloState::Optional) => Quiet::For(quirks.quiet_after_login),
            _ => Quiet::Off,
        };
        let count = receive_count(&keys, &resources);
        let mut receives = Receives::new(posted);
        receives.set_want(count);
        // req: 7145-5.1.2-4
        let reads = Reads::new(rcap.caps().ord);
        let mut this = Self {
            message_len: message_len(role, &keys, &resources),
            rcap,
            role,
            keys,
            quirks,
            max_tasks: count,
            hello,
            quiet,
            state: State::Open,
            cause: None,
            waiting: VecDeque::new(),
            tx: VecDeque::new(),
            controls: 0,
            control_limit: count,
            tx_limit: count.saturating_mul(4).saturating_add(1024),
            receives,
            unexpected: Unexpected::default(),
            reads,
            local: Tasks::default(),
            remote: Tasks::default(),
            serial: 0,
            ops: Slab::default(),
            transfers: Slab::default(),
            inbound: VecDeque::new(),
            // More than a peer brings about that keeps to what was declared.
            inbound_limit: count.saturating_mul(2).saturating_add(64),
            completions: Vec::new(),
            now: None,
            stalled_at: None,
            stats: Stats::default(),
        };
        if granted {
            this.refill();
            if this.hello == HelloState::AwaitReply {
                this.say_hello();
            }
            for message in backlog {
                this.receive(message, None);
            }
        } else {
            // req: 7145-3.1.6-1
            this.fail(Cause::Protocol(
                "Enable_Datamover without Allocate_Connection_Resources (RFC 5047 8.6)",
            ));
        }
        if let Some(cause) = closed {
            this.closed(cause);
        }
        this
    }

    /// The provider, for what only its own type can tell.
    #[must_use]
    pub fn rcap(&self) -> &R {
        &self.rcap
    }

    /// iSER-ORD at a target: RDMA Reads that it has outstanding at most.
    #[must_use]
    pub fn iser_ord(&self) -> u16 {
        self.reads.ord()
    }

    /// Mappings (tasks) that are open: 0 when nothing is in flight.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.local.len().saturating_add(self.remote.len())
    }

    /// Receive buffers posted at the moment.
    #[must_use]
    pub fn posted_receives(&self) -> usize {
        self.receives.posted()
    }

    fn event(&mut self, event: Event) {
        self.inbound.push_back(Inbound::Ready(event));
    }

    /// Ends the connection at once because of an error (RFC 7145 sections 10.1.3.3, 10.1.3.4).
    // req: 7145-10.1.3.3-1, 7145-10.1.3.3-2
    pub(crate) fn fail(&mut self, cause: Cause) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.cause.get_or_insert(cause);
        self.state = State::Closing;
        self.drop_queue();
        self.rcap.abort();
    }

    /// What waits does not go out any more; its buffers go back with the end.
    fn drop_queue(&mut self) {
        self.tx.clear();
        self.controls = 0;
        for control in std::mem::take(&mut self.waiting) {
            self.keep(control);
        }
    }

    /// Ends the connection because the peer broke a rule.
    fn fail_protocol(&mut self, rule: &'static str) {
        self.fail(Cause::Protocol(rule));
    }

    fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether another receive buffer is to be posted. Not while events pile up that the session does not take, as it
    /// stops when the peer does not take its answers: what is not received takes no memory here.
    fn wants_receives(&self) -> bool {
        self.receives.missing() > 0 && self.inbound.len() < self.inbound_limit
    }

    /// Posts the receive buffers that are missing.
    fn refill(&mut self) {
        while self.wants_receives() {
            let Some(buf) = rcap::message_buf(&self.rcap, self.message_len) else { return };
            if self.rcap.post_recv(buf).is_err() {
                return;
            }
            self.receives.on_posted();
        }
    }

    /// Posts a buffer again whose message needs it no more.
    fn repost(&mut self, mut buf: IoBuf) {
        buf.set_len(self.message_len);
        if self.wants_receives() && buf.len() == self.message_len && self.rcap.post_recv(buf).is_ok() {
            self.receives.on_posted();
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { message, invalidated } => {
                self.receives.on_received();
                if matches!(self.state, State::Open | State::Draining) {
                    self.receive(message, invalidated);
                    self.refill();
                }
            }
            Completion::Done { id, sink, result } => self.op_done(id, sink, result),
            Completion::Invalidated { stag, memory } => self.invalidated(stag, memory),
            Completion::Closed(cause) => self.closed(cause),
        }
    }

    /// The provider holds nothing any more: everything goes back, then the end is told.
    // req: 7145-3.2.4-1, 7145-5.2.1-3, 7145-5.2.2-5, 7145-5.2.3.1-2, 7145-5.2.3.1-3, 7145-5.2.3.1-4
    // req: 7145-5.2.3.2-1, 7145-5.2.3.2-2, 7145-5.2.3.2-3, 7145-10.1.1.2-1, 7145-10.1.1.2-2
    // req: 7145-10.1.2.1-2, 7145-10.1.2.1-3, 7145-10.1.2.2-1, 7145-10.1.2.2-2, 7145-10.1.3.3-3, 7145-10.1.3.3-4
    fn closed(&mut self, cause: Cause) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.stalled_at = None;
        self.drop_queue();
        for at in 0..self.inbound.len() {
            self.resolve_waiting(at);
        }
        let mut reclaimed = Vec::new();
        for (itt, task) in self.local.drain() {
            // `closed` providers invalidate at once; memory that one withholds is lost, not shared.
            let buffers = self.settle(task).unwrap_or_default();
            reclaimed.push((itt, Reclaimed { buffers, ..Reclaimed::default() }));
        }
        self.reclaim_gets(&mut reclaimed);
        reclaimed.sort_by_key(|(itt, _)| itt.0);
        let cause = self.cause.take().unwrap_or(cause);
        self.event(Event::Terminated(Terminated { cause, reclaimed }));
    }

    fn busy(&self) -> bool {
        match self.state {
            State::Open => {
                (!self.tx.is_empty() && self.quiet == Quiet::Off)
                    || !self.waiting.is_empty()
                    || !self.reads.is_idle()
                    || !self.rcap.is_flushed()
            }
            State::Draining | State::Closing => true,
            State::Closed => false,
        }
    }

    /// Gives a stalled transport up: a peer that posts no receive buffers or serves no Reads. One that is to end gets
    /// less time for what is queued: it may be ending because nothing gets through any more.
    fn watch(&mut self, now: Instant, progress: bool) {
        if !self.busy() {
            self.stalled_at = None;
            return;
        }
        let limit = match self.state {
            State::Open => self.keys.data_timeout,
            _ => self.keys.data_timeout.min(PARTING),
        };
        let at = now.checked_add(limit);
        self.stalled_at = match self.stalled_at {
            Some(earlier) if !progress => at.map(|at| at.min(earlier)),
            _ => at,
        };
    }

    fn tick(&mut self, now: Instant) {
        self.now = Some(now);
        match self.quiet {
            Quiet::For(time) => self.quiet = now.checked_add(time).map_or(Quiet::Off, Quiet::Until),
            Quiet::Until(end) if now >= end => self.quiet = Quiet::Off,
            _ => {}
        }
        if self.stalled_at.is_some_and(|at| now >= at) {
            self.stalled_at = None;
            self.fail(Cause::Transport(io::ErrorKind::TimedOut));
        }
    }
}

impl<R: Rcap> Drive for IserDatamover<R> {
    fn poll_drive(&mut self, cx: &mut Context<'_>, turn: &mut Budget) -> Poll<io::Result<()>> {
        let mut progress = false;
        self.tick(turn.now);
        // Buffers that the iSCSI layer held may be back.
        self.refill();
        let outcome = loop {
            progress |= self.pump();
            let mut done = std::mem::take(&mut self.completions);
            self.rcap.poll(cx, turn, &mut done);
            let idle = done.is_empty();
            progress |= !idle;
            // Depths that the peer declared as the connection began.
            self.reads.limit(self.rcap.caps().ord);
            for completion in done.drain(..) {
                self.complete(completion);
            }
            self.completions = done;
            // Before the look whether anything has completed: what the peer places with RDMA Writes completes nothing, and
            // may have used the turn up. Nobody would wake us for the rest.
            if turn.pdus == 0 || turn.bytes == 0 {
                progress = true;
                break Poll::Ready(Ok(()));
            }
            if idle && !self.pump() {
                break Poll::Pending;
            }
        };
        self.watch(turn.now, progress);
        outcome
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let quiet = match self.quiet {
            Quiet::Until(end) if !self.tx.is_empty() => Some(end),
            _ => None,
        };
        [quiet, self.stalled_at, self.rcap.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.tick(now);
        if self.rcap.poll_timeout().is_some_and(|at| now >= at) {
            self.rcap.handle_timeout(now);
        }
    }
}

// req: 7145-3.1-1
impl<R: Rcap> Datamover for IserDatamover<R> {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        self.rcap.transport()
    }

    fn send_control(&mut self, control: Control) -> Result<(), Full<Control>> {
        match self.role {
            Role::Initiator => self.send_request(control),
            Role::Target => self.send_response(control),
        }
    }

    fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        self.put(put)
    }

    fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        self.get(get)
    }

    fn deallocate_task_resources(&mut self, itt: Itt) {
        if self.state == State::Closed {
            return;
        }
        match self.role {
            Role::Initiator => self.deallocate_local(itt),
            Role::Target => self.deallocate_remote(itt),
        }
    }

    // req: 7145-3.1.7-1, 7145-5.2.2-4, 7145-5.2.3.1-1
    fn connection_terminate(&mut self) {
        if self.is_open() {
            self.cause.get_or_insert(Cause::Local);
            self.state = State::Draining;
            self.quiet = Quiet::Off;
        }
    }

    // req: 7145-3.1.8-1
    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    /// Data-In, R2T and Data-Out of solicited data do not travel, so there is nothing to stamp. But what another
    /// connection of the session acknowledges is acknowledged on this one, too.
    // req: 7145-8.1.1.3-4
    fn set_window(&mut self, window: Window) {
        if self.role == Role::Target {
            self.unexpected.retire(window.exp_cmd_sn.0);
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        if !matches!(self.inbound.front()?, Inbound::Ready(_)) {
            return None;
        }
        match self.inbound.pop_front()? {
            Inbound::Ready(event) => Some(event),
            Inbound::Waiting(_) => None,
        }
    }

    fn is_ended(&self) -> bool {
        self.state == State::Closed
    }

    fn pool(&self) -> &Arc<dyn BufPool> {
        self.rcap.pool()
    }

    fn stats(&self) -> Stats {
        let below = self.rcap.stats();
        Stats { syscalls: below.syscalls, copied_bytes: below.copied_bytes, ..self.stats }
    }
}

/// An event for a transfer of the target.
fn data_event(
    itt: Itt,
    offset: u32,
    data: Option<datamover::SgListMut>,
    result: Result<(), datamover::DataError>,
) -> Event {
    Event::DataCompletion(DataCompletion { itt, offset, data, result })
}

/// The name of the work request in slot `at`.
fn wr_id(at: usize) -> WrId {
    WrId(at as u64)
}

#[cfg(test)]
mod tests;
