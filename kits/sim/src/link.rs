//! Connections of either transport, and what a driver does with them.

use crate::net::{Clock, Pipe, pipe};
use crate::plan::{Plan, Transport};
use crate::rng::Rng;
use datamover::mem::{MemConfig, MemControl, pair};
use datamover::{Budget, BufPool, Datamover, Event, LoginLink, Role};
use iscsi_session::{Action, ConnId, DownCall};
use iscsi_tcp::TcpLoginLink;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What is between the two ends of a connection.
#[derive(Clone)]
pub(crate) enum Wire {
    Mem(MemControl),
    Tcp(Pipe),
}

impl Wire {
    pub(crate) fn cut(&self) {
        match self {
            Self::Mem(control) => control.cut(),
            Self::Tcp(pipe) => pipe.reset(),
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        match self {
            Self::Mem(_) => None,
            Self::Tcp(pipe) => pipe.next_arrival(),
        }
    }

    pub(crate) fn violations(&self) -> Vec<&'static str> {
        match self {
            Self::Mem(control) => control.violations(),
            Self::Tcp(_) => Vec::new(),
        }
    }
}

/// Makes a connection: the initiator's end, the target's, and what is between.
pub(crate) fn connect(
    plan: &Plan,
    clock: &Clock,
    rng: &mut Rng,
    pools: (&Arc<dyn BufPool>, &Arc<dyn BufPool>),
) -> (Box<dyn LoginLink>, Box<dyn LoginLink>, Wire) {
    match plan.transport {
        Transport::Mem => {
            let mut faults = plan.faults.mem;
            faults.seed = rng.next();
            let config = MemConfig { pool: pools.1.clone(), window: true, faults };
            let (i, t, control) = pair(config);
            (Box::new(i), Box::new(t), Wire::Mem(control))
        }
        Transport::Tcp => {
            let (i, t, pipe) = pipe(clock, rng.fork(), plan.faults.latency, plan.faults.chunk);
            let i = TcpLoginLink::new(i, Role::Initiator, pools.0.clone());
            let t = TcpLoginLink::new(t, Role::Target, pools.1.clone());
            (Box::new(i), Box::new(t), Wire::Tcp(pipe))
        }
    }
}

/// Moves what can be moved.
pub(crate) fn drive(link: &mut dyn Drives, now: Instant) {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut budget = Budget::new(now);
        match link.poll(&mut cx, &mut budget) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => panic!("a simulated link has no failures of its own: {e}"),
            Poll::Pending => return,
        }
    }
}

/// Both kinds of links.
pub(crate) trait Drives {
    fn poll(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<std::io::Result<()>>;
}

impl Drives for Box<dyn LoginLink> {
    fn poll(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<std::io::Result<()>> {
        self.poll_drive(cx, budget)
    }
}

impl Drives for Box<dyn Datamover> {
    fn poll(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<std::io::Result<()>> {
        self.poll_drive(cx, budget)
    }
}

/// A connection in full feature phase, and the calls that it had no room for.
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) datamover: Box<dyn Datamover>,
    pub(crate) wire: Wire,
    held: VecDeque<DownCall>,
}

impl Conn {
    pub(crate) fn new(id: ConnId, datamover: Box<dyn Datamover>, wire: Wire) -> Self {
        Self { id, datamover, wire, held: VecDeque::new() }
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
        if !self.held.is_empty() {
            self.held.push_back(call);
        } else if let Err(call) = call.invoke(&mut *self.datamover) {
            self.held.push_back(call);
        }
    }
}

/// The connections of a session.
#[derive(Default)]
pub(crate) struct Conns(pub(crate) Vec<Conn>);

impl Conns {
    /// The next event; with its last one a connection goes.
    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<(ConnId, Event)> {
        for index in 0..self.0.len() {
            let conn = &mut self.0[index];
            conn.retry();
            drive(&mut conn.datamover, now);
            if let Some(event) = conn.datamover.poll_event() {
                let id = conn.id;
                if matches!(event, Event::Terminated(_)) {
                    self.0.remove(index);
                }
                return Some((id, event));
            }
        }
        None
    }

    pub(crate) fn carry_out(&mut self, Action { conn, call }: Action) {
        if let Some(conn) = self.0.iter_mut().find(|c| c.id == conn) {
            conn.call(call);
        }
    }

    pub(crate) fn flush(&mut self, now: Instant) {
        for conn in &mut self.0 {
            conn.retry();
            drive(&mut conn.datamover, now);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().flat_map(|c| [c.datamover.poll_timeout(), c.wire.next_arrival()]).flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for conn in &mut self.0 {
            if conn.datamover.poll_timeout().is_some_and(|at| at <= now) {
                conn.datamover.handle_timeout(now);
            }
        }
    }
}
