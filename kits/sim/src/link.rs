//! Connections of every transport, and what a driver does with them.

use crate::log::Log;
use crate::net::{Clock, Pipe, SimStream, pipe};
use crate::plan::{Links, Plan, Transport};
use crate::rng::Rng;
use crate::tags::{Ledger, Watched};
use datamover::mem::{MemConfig, MemControl, pair};
use datamover::{Budget, BufPool, Cause, Datamover, Drive, Event, LoginLink, Role};
use iscsi_pdu::Pdu;
use iscsi_session::{Action, ConnId, DownCall};
use iscsi_tcp::TcpLoginLink;
use iser_rdma::provider::iwarp::{IwarpConfig, IwarpRcap, StreamLoginLink, Upgrade};
use iser_rdma::provider::mem::{self as rdma, MemWire};
use iser_rdma::{MessageLoginLink, Quirks};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

#[derive(Clone)]
enum Kind {
    Mem(MemControl),
    Stream(Pipe),
    Rdma(MemWire),
}

/// What is between the two ends of a connection.
#[derive(Clone)]
pub(crate) struct Wire {
    kind: Kind,
    /// Both ends keep to the rules, and their devices do what they are told.
    honest: bool,
    /// What one end accused the other of.
    accusation: Arc<Mutex<Option<String>>>,
    /// The in-memory datamover is held back until then; streams keep this themselves.
    held_until: Arc<Mutex<Option<Instant>>>,
    ledger: Option<Ledger>,
    pools: Arc<Mutex<Vec<Arc<dyn BufPool>>>>,
}

impl Wire {
    fn new(kind: Kind, ledger: Option<Ledger>) -> Self {
        let (accusation, held_until, pools) = Default::default();
        Self { kind, honest: true, accusation, held_until, ledger, pools }
    }

    pub(crate) fn cut(&self) {
        match &self.kind {
            Kind::Mem(control) => control.cut(),
            Kind::Stream(pipe) => pipe.reset(),
            Kind::Rdma(wire) => wire.reset(),
        }
    }

    /// The byte stream, where there is one.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        if let Kind::Stream(pipe) = &self.kind { Some(pipe) } else { None }
    }

    /// Nothing gets through until then, where that can be arranged.
    pub(crate) fn stall(&self, until: Instant) -> bool {
        match &self.kind {
            Kind::Mem(control) => {
                [Role::Initiator, Role::Target].into_iter().for_each(|to| control.hold(to, true));
                *self.held() = Some(until);
            }
            Kind::Stream(pipe) => pipe.stall(until),
            Kind::Rdma(_) => return false,
        }
        true
    }

    fn held(&self) -> MutexGuard<'_, Option<Instant>> {
        self.held_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stall is over; `true` when it was.
    fn let_go(&self, now: Instant) -> bool {
        let Kind::Mem(control) = &self.kind else { return false };
        let over = self.held().take_if(|until| *until <= now).is_some();
        if over {
            [Role::Initiator, Role::Target].into_iter().for_each(|to| control.hold(to, false));
        }
        over
    }

    /// Whether one end (0 the initiator's, 1 the target's) may find something to do.
    fn is_ready(&self, side: usize) -> bool {
        self.pipe().is_none_or(|p| p.is_ready(side))
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.pipe().and_then(Pipe::next_arrival)
    }

    fn next_arrival_at(&self, side: usize) -> Option<Instant> {
        self.pipe().map_or_else(|| *self.held(), |p| p.next_arrival_at(side))
    }

    /// A datamover's memory, to be looked at in the end.
    pub(crate) fn watch(&self, datamover: &dyn Datamover) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.push(datamover.pool().clone());
    }

    /// The first rule that was broken on it.
    pub(crate) fn fault(&self) -> Option<String> {
        let own = match &self.kind {
            Kind::Mem(control) => control.violations().first().map(|rule| (*rule).to_owned()),
            Kind::Rdma(wire) => wire.violations().first().map(|rule| format!("{rule:?}")),
            Kind::Stream(_) => None,
        };
        let accused = || self.accusation.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.or_else(|| self.ledger.as_ref().and_then(Ledger::fault)).or_else(accused)
    }

    /// One end has ended it, and says why: between ends that keep to the rules, neither finds that the other does not.
    fn ended(&self, cause: &Cause) {
        let faithful = self.honest && self.pipe().is_none_or(Pipe::is_faithful);
        // What an iWARP end says that has given up, for want of an answer.
        let gave_up = matches!(cause, Cause::Protocol(why) if why.starts_with("RDMAP: catastrophic error"));
        if faithful && !gave_up && matches!(cause, Cause::Protocol(_) | Cause::Format(_)) {
            let mut accusation = self.accusation.lock().unwrap_or_else(PoisonError::into_inner);
            accusation.get_or_insert_with(|| cause.to_string());
        }
    }

    /// What the connection has left behind.
    pub(crate) fn leaks(&self) -> Option<String> {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let left: usize = pools.iter().map(|p| p.outstanding()).sum();
        let tags = self.ledger.as_ref().map_or(0, Ledger::live);
        let end = |side| if let Kind::Rdma(wire) = &self.kind { wire.live_stags(side) } else { 0 };
        let tags = tags.max(end(0)).max(end(1));
        (left + tags > 0).then(|| format!("a connection left {left} buffers and {tags} tags behind"))
    }
}

/// The initiator's end, the target's, and what is between.
pub(crate) type Ends = (Box<dyn LoginLink>, Box<dyn LoginLink>, Wire);

/// Makes a connection. The pools are the initiator's and the target's, where the transport has none of its own.
pub(crate) fn connect(plan: &Plan, clock: &Clock, rng: &mut Rng, pools: &[Arc<dyn BufPool>; 2]) -> Ends {
    match plan.transport {
        Transport::Mem => {
            let mut faults = plan.links.mem;
            faults.seed = rng.next();
            let config = MemConfig { pool: pools[1].clone(), window: true, faults };
            let (i, t, control) = pair(config);
            (Box::new(i), Box::new(t), Wire::new(Kind::Mem(control), None))
        }
        Transport::Tcp => {
            let (i, t, pipe) = pipe(clock, rng.fork(), &plan.links);
            let i = TcpLoginLink::new(i, Role::Initiator, pools[0].clone());
            let t = TcpLoginLink::new(t, Role::Target, pools[1].clone());
            (Box::new(i), Box::new(t), Wire::new(Kind::Stream(pipe), None))
        }
        Transport::IserMem => {
            let (i, t, wire) = rdma::pair(rdma_config(&plan.links, rng));
            let ledger = Ledger::default();
            let [i, t] = watched([i, t], &ledger, plan, rng);
            let honest = plan.links.rdma.faults.error_one_in == 0;
            (i, t, Wire { honest, ..Wire::new(Kind::Rdma(wire), Some(ledger)) })
        }
        Transport::IserIwarp => {
            let (i, t, pipe) = pipe(clock, rng.fork(), &plan.links);
            let mut config = || {
                let mut seed = [0; 16];
                seed[..8].copy_from_slice(&rng.next().to_be_bytes());
                seed[8..].copy_from_slice(&rng.next().to_be_bytes());
                let (ord, ird) = (plan.links.rdma.ord, plan.links.rdma.ird);
                IwarpConfig { ord, ird, ..IwarpConfig::new(seed) }
            };
            let configs = [config(), config()];
            let kind = Kind::Stream(pipe);
            if plan.links.rdma.upgrade {
                let [ci, ct] = configs;
                let i = StreamLoginLink::new(i, Role::Initiator, ci, Quirks::default());
                let t = StreamLoginLink::new(t, Role::Target, ct, Quirks::default());
                return (Box::new(i), Box::new(t), Wire::new(kind, None));
            }
            let [ci, ct] = configs.map(|c| IwarpConfig { cm_header: true, ..c });
            let rcap = |stream: SimStream, role, config| {
                IwarpRcap::new(Some(stream), role, config, Upgrade::default())
            };
            let ledger = Ledger::default();
            let [i, t] =
                watched([rcap(i, Role::Initiator, ci), rcap(t, Role::Target, ct)], &ledger, plan, rng);
            let honest = plan.links.rdma.faults.error_one_in == 0;
            (i, t, Wire { honest, ..Wire::new(kind, Some(ledger)) })
        }
    }
}

/// A connection of which one end is somebody's who keeps to no rule: that end's stream, the honest end, what is between.
pub(crate) fn connect_hostile(
    plan: &Plan,
    clock: &Clock,
    rng: &mut Rng,
    pools: &[Arc<dyn BufPool>; 2],
    honest: Role,
) -> (SimStream, Box<dyn LoginLink>, Wire) {
    let (i, t, pipe) = pipe(clock, rng.fork(), &plan.links);
    let (theirs, ours, pool) = if honest == Role::Target { (i, t, &pools[1]) } else { (t, i, &pools[0]) };
    let link = TcpLoginLink::new(ours, honest, pool.clone());
    (theirs, Box::new(link), Wire { honest: false, ..Wire::new(Kind::Stream(pipe), None) })
}

fn watched<R: iser_rdma::Rcap + 'static>(
    [i, t]: [R; 2],
    ledger: &Ledger,
    plan: &Plan,
    rng: &mut Rng,
) -> [Box<dyn LoginLink>; 2] {
    let mut link = |rcap, role| -> Box<dyn LoginLink> {
        let watched = Watched::new(rcap, role, ledger.clone(), plan.links.rdma.faults, rng.fork());
        Box::new(MessageLoginLink::new(watched, role, Quirks::default()))
    };
    [link(i, Role::Initiator), link(t, Role::Target)]
}

fn rdma_config(links: &Links, rng: &mut Rng) -> rdma::MemConfig {
    let skew = Duration::from_nanos(rng.below(1 + links.skew.as_nanos() as u64));
    let mut config = rdma::MemConfig {
        seed: rng.next(),
        latency: links.latency / 4 + skew,
        dead_after: links.rdma.faults.dead_after.map(|most| 1 + rng.below(most)).filter(|_| rng.one_in(3)),
        jitter: links.latency,
        wait_for_receive: true,
        slow_invalidation: links.rdma.slow_invalidation,
        registered_only: links.rdma.registered_only,
        record: false,
        ..rdma::MemConfig::default()
    };
    for caps in &mut config.caps {
        caps.ord = links.rdma.ord.min(links.rdma.ird);
        caps.ird = links.rdma.ird;
        caps.send_invalidate = links.rdma.send_invalidate;
        caps.max_sge = links.rdma.max_sge;
        caps.max_read_sge = links.rdma.max_sge;
        caps.max_tagged_parts = links.rdma.max_sge;
    }
    config
}

/// Moves what can be moved.
pub(crate) fn drive(link: &mut (impl Drive + ?Sized), now: Instant) {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut budget = Budget::new(now);
        match link.poll_drive(&mut cx, &mut budget) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => panic!("a simulated link has no failures of its own: {e}"),
            Poll::Pending => return,
        }
    }
}

/// A connection in full feature phase, and the calls that it had no room for.
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) wire: Wire,
    /// Both digests are on, or the transport has its own: wrong bytes are noticed.
    pub(crate) protected: bool,
    /// Control-type PDUs that came.
    pub(crate) heard: u32,
    datamover: Box<dyn Datamover>,
    side: usize,
    /// Something was done to the datamover since it was last driven.
    touched: bool,
    held: VecDeque<DownCall>,
}

impl Conn {
    pub(crate) fn new(id: ConnId, datamover: Box<dyn Datamover>, wire: Wire, protected: bool) -> Self {
        wire.watch(&*datamover);
        let side = usize::from(datamover.role() == Role::Target);
        Self { id, datamover, wire, protected, heard: 0, side, touched: true, held: VecDeque::new() }
    }

    fn drive(&mut self, now: Instant) {
        self.touched = false;
        self.retry();
        drive(&mut *self.datamover, now);
    }

    fn retry(&mut self) {
        while let Some(call) = self.held.pop_front() {
            if let Err(call) = call.invoke(&mut *self.datamover) {
                self.held.push_front(call);
                return;
            }
        }
    }

    fn call(&mut self, call: DownCall) {
        self.touched = true;
        if !self.held.is_empty() {
            self.held.push_back(call);
        } else if let Err(call) = call.invoke(&mut *self.datamover) {
            self.held.push_back(call);
        }
    }

    fn observe(&mut self, event: &Event, log: &mut Log) {
        log.tell(self, &Told::Up(event));
        let (kind, what) = match event {
            Event::Control(c) => {
                self.heard += 1;
                if let (Pdu::ScsiResponse(r), Some(ledger)) = (&c.pdu, &self.wire.ledger) {
                    ledger.concluded(r.itt);
                }
                (1, u64::from(c.pdu.opcode().0))
            }
            Event::DataCompletion(d) => (2, u64::from(d.itt.0) << 1 | u64::from(d.result.is_ok())),
            Event::DataAck { itt, .. } => (3, u64::from(itt.0)),
            Event::TaskReclaimed { itt, .. } => (4, u64::from(itt.0)),
            Event::Window(w) => (5, u64::from(w.stat_sn.0)),
            Event::Invalid(_) => (6, 0),
            Event::Terminated(t) => {
                self.wire.ended(&t.cause);
                (7, t.reclaimed.len() as u64)
            }
            _ => (8, 0),
        };
        log.mix(kind << 56 ^ u64::from(self.id.0) << 48 ^ what);
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.side == 0 { "initiator" } else { "target" };
        write!(f, "  {end}, connection {}", self.id.0)
    }
}

/// What crosses the seam, in a line of the trace.
enum Told<'a> {
    Up(&'a Event),
    Down(&'a DownCall),
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(Event::Control(c)) => write!(f, "▲ {:?}", c.pdu.clone().map(|data| data.len())),
            Self::Up(Event::DataCompletion(d)) => {
                write!(f, "▲ data of {:?} at {}: {:?}", d.itt, d.offset, d.result)
            }
            Self::Up(Event::TaskReclaimed { itt, .. }) => write!(f, "▲ reclaimed {itt:?}"),
            Self::Up(Event::Terminated(t)) => write!(f, "▲ terminated: {:?}", t.cause),
            Self::Up(other) => write!(f, "▲ {other:?}"),
            Self::Down(DownCall::SendControl(c)) => {
                write!(f, "▼ {:?}", c.pdu.clone().map(|data| data.len()))
            }
            Self::Down(DownCall::PutData(p)) => {
                write!(f, "▼ puts {} bytes at {} of {:?}", p.data.len(), p.offset, p.itt)
            }
            Self::Down(DownCall::GetData(g)) => {
                write!(f, "▼ gets {} bytes at {} of {:?}", g.into.len(), g.offset, g.itt)
            }
            Self::Down(other) => write!(f, "▼ {other:?}"),
        }
    }
}

/// The connections of a session.
#[derive(Default)]
pub(crate) struct Conns(pub(crate) Vec<Conn>);

impl Conns {
    /// The next event; with its last one a connection goes.
    pub(crate) fn poll_event(&mut self, now: Instant, log: &mut Log) -> Option<(ConnId, Event)> {
        for index in 0..self.0.len() {
            let conn = &mut self.0[index];
            let mut event = conn.datamover.poll_event();
            // Somebody who waits for a wake-up, as drivers do, looks when there is a reason and not at any time.
            if event.is_none() && (conn.wire.is_ready(conn.side) | conn.touched) {
                conn.drive(now);
                event = conn.datamover.poll_event();
            }
            if let Some(mut event) = event {
                conn.touched = true;
                conn.observe(&event, log);
                let id = conn.id;
                if let Event::Terminated(terminated) = &mut event {
                    let conn = self.0.remove(index);
                    conn.held.into_iter().for_each(|call| call.reclaim(terminated));
                }
                return Some((id, event));
            }
        }
        None
    }

    pub(crate) fn carry_out(&mut self, Action { conn, call }: Action, log: &mut Log) {
        if let Some(conn) = self.0.iter_mut().find(|c| c.id == conn) {
            log.tell(conn, &Told::Down(&call));
            conn.call(call);
        }
    }

    pub(crate) fn flush(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|conn| conn.drive(now));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = |c: &Conn| [c.datamover.poll_timeout(), c.wire.next_arrival_at(c.side)];
        self.0.iter().flat_map(next).flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for conn in &mut self.0 {
            conn.touched |= conn.wire.let_go(now);
            if conn.datamover.poll_timeout().is_some_and(|at| at <= now) {
                conn.datamover.handle_timeout(now);
                conn.touched = true;
            }
        }
    }
}
