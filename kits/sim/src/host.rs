//! An initiator: logs in, keeps commands under way, checks what comes back, starts over when its session is gone.

mod disturb;
mod io;
mod login;

use crate::link::{Conns, Wire};
use crate::log::Log;
use crate::plan::{CommandPlan, Configuration, Plan};
use crate::rng::Rng;
use crate::shadow::{Effect, Shadow};
use datamover::{BufPool, LoginLink};
use iscsi_login::SessionParams;
use iscsi_pdu::{Cid, CmdSn, Tsih};
use iscsi_session::FunctionTag;
use iscsi_session::device::TaskTag;
use iscsi_session::initiator::{EndCause, InitiatorEvent, InitiatorSession, TaskFunction};
use login::Login;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a command may take before it is aborted, and how long an abort before the session is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command under way.
struct Op {
    plan: CommandPlan,
    deadline: Instant,
    aborting: bool,
    /// Crashes of the target when it was submitted.
    epoch: u32,
}

struct Up {
    engine: InitiatorSession,
    conns: Conns,
    tsih: Tsih,
    params: SessionParams,
    /// Logins of further connections.
    logins: Vec<Login>,
    /// No further login before this.
    next_login: Instant,
    next_cid: u16,
    /// CID of the last connection, for which the session wants another (ErrorRecoveryLevel 2).
    needed: Option<Cid>,
    ops: BTreeMap<TaskTag, Op>,
    functions: usize,
    exchanges: usize,
    logging_out: bool,
    /// No command could be submitted, and nothing has happened since.
    waiting: bool,
}

enum State {
    Down { until: Instant },
    Login(Box<Login>),
    Up(Box<Up>),
    Done,
}

/// What an initiator has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) commands: u64,
    pub(crate) good: u64,
    pub(crate) failed: u64,
    pub(crate) sessions: u64,
    pub(crate) connections: u64,
    pub(crate) functions: u64,
}

/// An initiator.
pub(crate) struct Host {
    number: usize,
    plan: Arc<Plan>,
    rng: Rng,
    pub(crate) shadow: Shadow,
    pool: Arc<dyn BufPool>,
    state: State,
    /// Commands of the plan that have been submitted.
    next: usize,
    pub(crate) tally: Tally,
    /// Of the first connection.
    pub(crate) agreed: Option<Configuration>,
    /// Commands that completed with GOOD.
    pub(crate) certain: Vec<u64>,
    pub(crate) faults: Vec<String>,
    pub(crate) wires: Vec<Wire>,
    /// Hostile targets that its next sessions are to begin at.
    impostors: u32,
    /// Its session is with one: what that says of commands means nothing.
    deceived: bool,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.number)
    }
}

impl Host {
    pub(crate) fn new(
        number: usize,
        plan: Arc<Plan>,
        rng: Rng,
        pool: Arc<dyn BufPool>,
        now: Instant,
    ) -> Self {
        Self {
            number,
            plan,
            rng,
            shadow: Shadow::new(number as u32 * Plan::BLOCKS, Plan::BLOCKS),
            pool,
            state: State::Down { until: now },
            next: 0,
            tally: Tally::default(),
            agreed: None,
            certain: Vec::new(),
            faults: Vec::new(),
            wires: Vec::new(),
            impostors: 0,
            deceived: false,
        }
    }

    fn commands(&self) -> &[CommandPlan] {
        &self.plan.hosts[self.number]
    }

    fn is_through(&self) -> bool {
        self.next == self.commands().len()
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Commands of the original plan that it has behind it.
    pub(crate) fn position(&self, first: u32, end: u32) -> u32 {
        let next = self.commands().get(self.next).map_or(end, |c| c.index);
        next - first
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Down { until } => Some(*until),
            State::Login(login) => login.poll_timeout(),
            State::Up(up) => {
                let ops = up.ops.values().map(|op| op.deadline).min();
                let logins = up.logins.iter().filter_map(Login::poll_timeout).min();
                let next = up.wants_login().then_some(up.next_login);
                [up.engine.poll_timeout(), up.conns.poll_timeout(), ops, logins, next]
                    .into_iter()
                    .flatten()
                    .min()
            }
            State::Done => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Login(login) => login.handle_timeout(now),
            State::Up(up) => {
                up.conns.handle_timeout(now);
                if up.engine.poll_timeout().is_some_and(|at| at <= now) {
                    up.engine.handle_timeout(now);
                    up.waiting = false;
                }
                up.logins.iter_mut().for_each(|l| l.handle_timeout(now));
                up.lose_patience(now);
            }
            _ => {}
        }
    }

    /// Does what can be done now; `true` when there was something.
    pub(crate) fn step(&mut self, now: Instant, log: &mut Log) -> bool {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Login(login) => self.step_login(now, login, log),
            State::Up(up) => self.step_up(now, up, log),
            other => {
                self.state = other;
                false
            }
        }
    }

    fn down(&mut self, now: Instant, after: Duration) {
        self.state = State::Down { until: now + after.max(Duration::from_millis(1)) };
    }

    fn step_up(&mut self, now: Instant, mut up: Box<Up>, log: &mut Log) -> bool {
        let mut busy = self.step_further_logins(now, &mut up, log);
        up.waiting &= !busy;
        let mut end = None;
        loop {
            let mut idle = true;
            while let Some((id, event)) = up.conns.poll_event(now, log) {
                up.engine.handle_event(now, id, event);
                (idle, up.waiting) = (false, false);
            }
            while let Some(completion) = up.engine.poll_completion() {
                self.complete(&mut up, completion, log);
                (idle, up.waiting) = (false, false);
            }
            if !up.waiting {
                idle &= !self.submit(now, &mut up, log);
                up.waiting = true;
            }
            while let Some(action) = up.engine.poll_action() {
                up.conns.carry_out(action, log);
                idle = false;
            }
            while let Some(event) = up.engine.poll_event() {
                log.tell(self, &format_args!("{event:?}"));
                up.waiting = false;
                match event {
                    InitiatorEvent::Ended { time2wait, .. } => end = Some(time2wait),
                    // A connection that joined meanwhile may still be there: to be logged out again.
                    InitiatorEvent::ConnectionEnded { cause: EndCause::LogoutFailed, .. } => {
                        up.logging_out = false;
                    }
                    InitiatorEvent::ConnectionNeeded { cid, not_before, .. } => {
                        up.needed = Some(cid);
                        up.next_login = now + not_before;
                    }
                    _ => {}
                }
                idle = false;
            }
            if idle {
                break;
            }
            busy = true;
        }
        if busy {
            up.conns.flush(now);
        }
        let Some(time2wait) = end else {
            self.state = State::Up(up);
            return busy;
        };
        if up.engine.open_tasks() != 0 || !up.ops.is_empty() || up.functions != 0 || up.exchanges != 0 {
            self.faults.push(format!(
                "a session ended with {} requests in the engine, {} commands, {} functions, {} exchanges",
                up.engine.open_tasks(),
                up.ops.len(),
                up.functions,
                up.exchanges
            ));
        }
        if up.engine.poll_timeout().is_some() {
            self.faults.push("a session that has ended has a timer".into());
        }
        if self.is_through() {
            self.state = State::Done;
        } else {
            self.down(now, time2wait);
        }
        true
    }

    /// The target has crashed.
    pub(crate) fn target_crashed(&mut self) {
        self.shadow.crash();
    }

    /// It forgets everything, and logs in again after a while.
    pub(crate) fn crash(&mut self, now: Instant, silently: bool, back: Duration) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Up(up) => {
                for op in up.ops.values() {
                    self.tally.failed += 1;
                    self.lost(op.plan);
                }
                if silently {
                    let wires = up.conns.0.iter().map(|c| &c.wire);
                    for wire in wires {
                        wire.stall(now + Duration::from_secs(1 << 20));
                    }
                }
                self.down(now, back);
            }
            State::Login(_) => self.down(now, back),
            other => self.state = other,
        }
    }

    /// Nobody knows what became of a command.
    fn lost(&mut self, plan: CommandPlan) {
        if plan.op.writes() && !self.deceived {
            let stamp = crate::disk::number(self.number, plan.index);
            self.shadow.written(plan.at, plan.blocks, stamp, false, Effect::Possible);
        } else {
            self.shadow.release(plan.at, plan.blocks);
        }
    }

    /// Where it stands, for a run that does not end.
    pub(crate) fn describe(&self, now: Instant) -> String {
        match &self.state {
            State::Down { .. } => "down".into(),
            State::Login(_) => "in a login".into(),
            State::Done => "done".into(),
            State::Up(up) => format!(
                "{}, {} connections ({}), commands {:?}, {} functions, {} exchanges, {} to come, window {:?}",
                up.engine.state(),
                up.conns.0.len(),
                up.conns
                    .0
                    .iter()
                    .filter_map(|c| c.wire.pipe())
                    .map(|p| p.describe(now))
                    .collect::<Vec<_>>()
                    .join("; "),
                up.ops.values().map(|op| (op.plan.index, op.plan.op, op.aborting)).collect::<Vec<_>>(),
                up.functions,
                up.exchanges,
                self.commands().len() - self.next,
                up.engine.window(),
            ),
        }
    }
}

impl Up {
    /// CmdSN for a login that joins the session.
    fn cmd_sn(&self) -> CmdSn {
        self.engine.window().cmd_sn()
    }

    fn abort(&mut self, now: Instant, tag: TaskTag) {
        let sent = self.engine.abort(now, tag).ok();
        if let Some(op) = self.ops.get_mut(&tag) {
            op.aborting = sent.is_some();
            op.deadline = now + 3 * PATIENCE;
        }
        self.count(sent);
    }

    fn function(&mut self, now: Instant, function: TaskFunction) {
        let sent = self.engine.task_management(now, function).ok();
        self.count(sent);
    }

    fn count(&mut self, sent: Option<FunctionTag>) {
        self.functions += usize::from(sent.is_some());
    }

    fn cut(&self) {
        self.conns.0.iter().for_each(|c| c.wire.cut());
    }

    fn lose_patience(&mut self, now: Instant) {
        let late: Vec<(TaskTag, bool)> = self
            .ops
            .iter()
            .filter(|(_, op)| op.deadline <= now)
            .map(|(tag, op)| (*tag, op.aborting))
            .collect();
        if late.iter().any(|(_, aborting)| *aborting) {
            self.cut();
            // A session that goes on without these connections has lost the functions, and not the commands.
            for op in self.ops.values_mut() {
                (op.aborting, op.deadline) = (false, now + 3 * PATIENCE);
            }
            return;
        }
        late.into_iter().for_each(|(tag, _)| self.abort(now, tag));
    }
}

/// A connection for whoever logs in on it.
pub(crate) type InitiatorEnd = (Box<dyn LoginLink>, Wire);
