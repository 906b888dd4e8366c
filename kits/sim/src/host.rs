//! An initiator: logs in, keeps commands under way, checks what comes back, starts over when its session is gone.

use crate::disk::{READ, WRITE, cdb};
use crate::link::{Conn, Conns, Wire, drive};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::shadow::{BLOCK, Shadow, Stamp, fill};
use bytes::Bytes;
use datamover::{BufPool, IoBuf, LoginLink, Resources, Role, SgList, SgListMut, TaskBuffers};
use iscsi_login::{
    InitiatorAuth, InitiatorLogin, InitiatorLoginConfig, IscsiName, LoginOutput, LoginStart, SessionGoal,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, Lun, ScsiStatus, StatSn, TaskAttr};
use iscsi_session::device::TaskTag;
use iscsi_session::initiator::{
    Command, Completion, InitiatorConfig, InitiatorEvent, InitiatorSession, Refusal, TaskDone, TaskFunction,
};
use iscsi_session::login::conn_keys;
use iscsi_session::{ConnSetup, FunctionTag};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a command may take before it is aborted, and how long an abort before the session is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command under way.
struct Op {
    number: u64,
    write: bool,
    at: u32,
    blocks: u32,
    stamp: Stamp,
    deadline: Instant,
    aborting: bool,
}

struct Login {
    machine: InitiatorLogin,
    link: Box<dyn LoginLink>,
    wire: Wire,
}

struct Up {
    engine: InitiatorSession,
    conns: Conns,
    wire: Wire,
    digests: bool,
    ops: BTreeMap<TaskTag, Op>,
    functions: usize,
    exchanges: usize,
    logging_out: bool,
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
    pub(crate) functions: u64,
}

/// An initiator.
pub(crate) struct Host {
    number: usize,
    plan: Plan,
    rng: Rng,
    shadow: Shadow,
    pool: Arc<dyn BufPool>,
    state: State,
    left: u32,
    next_number: u64,
    pub(crate) tally: Tally,
    /// Commands that completed with GOOD.
    pub(crate) certain: Vec<u64>,
    pub(crate) faults: Vec<String>,
    pub(crate) wires: Vec<Wire>,
    /// For the trace.
    pub(crate) notes: Vec<String>,
}

impl Host {
    pub(crate) fn new(
        number: usize,
        plan: &Plan,
        rng: Rng,
        shadow: Shadow,
        pool: Arc<dyn BufPool>,
        now: Instant,
    ) -> Self {
        Self {
            number,
            plan: plan.clone(),
            rng,
            shadow,
            pool,
            state: State::Down { until: now },
            left: plan.commands,
            // Numbers are the host's own, so that stamps are unique.
            next_number: ((number as u64 + 1) << 32) + 1,
            tally: Tally::default(),
            certain: Vec::new(),
            faults: Vec::new(),
            wires: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether it wants a connection.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.state, State::Down { until } if until <= now)
    }

    pub(crate) fn connect(&mut self, now: Instant, link: Box<dyn LoginLink>, wire: Wire) {
        let name = |s: &str| IscsiName::new(s).expect("a name");
        let mut config = InitiatorLoginConfig::new(
            name(&format!("iqn.2026-01.org.example:host{}", self.number)),
            SessionGoal::Normal(name("iqn.2026-01.org.example:disk")),
            InitiatorAuth::None,
        );
        config.preferences = self.plan.initiator.clone();
        let start = LoginStart {
            isid: Isid::random([0, 0, self.number as u8], 1),
            cid: Cid(1),
            itt: Itt(0),
            cmd_sn: CmdSn(self.rng.pick(&[0, 1, 0x7fff_fff0, 0xffff_fff0])),
            exp_stat_sn: StatSn(0),
            session: None,
        };
        let machine = InitiatorLogin::new(Arc::new(config), start, [1; 32], now);
        self.wires.push(wire.clone());
        self.state = State::Login(Box::new(Login { machine, link, wire }));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Down { until } => Some(*until),
            State::Login(login) => {
                [login.machine.poll_timeout(), login.wire.next_arrival()].into_iter().flatten().min()
            }
            State::Up(up) => {
                let ops = up.ops.values().map(|op| op.deadline).min();
                [up.engine.poll_timeout(), up.conns.poll_timeout(), ops].into_iter().flatten().min()
            }
            State::Done => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Login(login) if login.machine.poll_timeout().is_some_and(|at| at <= now) => {
                login.machine.handle_timeout(now);
            }
            State::Up(up) => {
                up.conns.handle_timeout(now);
                if up.engine.poll_timeout().is_some_and(|at| at <= now) {
                    up.engine.handle_timeout(now);
                }
                up.lose_patience(now);
            }
            _ => {}
        }
    }

    /// Does what can be done now; `true` when there was something.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Login(login) => self.step_login(now, login),
            State::Up(up) => self.step_up(now, up),
            other => {
                self.state = other;
                false
            }
        }
    }

    fn down(&mut self, now: Instant, after: Duration) {
        self.state = State::Down { until: now + after.max(Duration::from_millis(1)) };
    }

    fn step_login(&mut self, now: Instant, mut login: Box<Login>) -> bool {
        let mut busy = false;
        loop {
            drive(&mut login.link, now);
            while let Some(output) = login.machine.poll_output() {
                busy = true;
                match output {
                    LoginOutput::Send(request) => login.link.send_login(request.into()),
                    LoginOutput::NoticeKeys(keys) => {
                        login.link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                    }
                    LoginOutput::Allocate(keys) => {
                        login.link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                        let resources = Resources { commands: self.plan.window + 16, ..Resources::default() };
                        let granted = login.link.allocate_connection_resources(&resources).is_ok();
                        login.machine.handle_resources(granted);
                    }
                    LoginOutput::Deallocate => login.link.deallocate_connection_resources(),
                    LoginOutput::Enable { negotiated, .. } => {
                        let keys = conn_keys(Role::Initiator, &negotiated.session, &negotiated.conn);
                        login.link.notice_key_values(&keys);
                        let datamover = login.link.enable_datamover(None);
                        let mut engine = InitiatorSession::new(InitiatorConfig::default(), &negotiated, now);
                        let setup = ConnSetup::new(Role::Initiator, &negotiated, datamover.pool().clone());
                        let digests = setup.keys.header_digest && setup.keys.data_digest;
                        let id = engine.add_connection(now, setup);
                        self.tally.sessions += 1;
                        self.state = State::Up(Box::new(Up {
                            engine,
                            conns: Conns(vec![Conn::new(id, datamover, login.wire.clone())]),
                            wire: login.wire,
                            digests,
                            ops: BTreeMap::new(),
                            functions: 0,
                            exchanges: 0,
                            logging_out: false,
                        }));
                        return true;
                    }
                    LoginOutput::Failed(failure) => {
                        self.notes.push(failure.to_string());
                        self.down(now, Duration::from_millis(100));
                        return true;
                    }
                    _ => {}
                }
            }
            match login.link.poll_login() {
                Some(Ok(pdu)) => login.machine.handle_pdu(now, pdu),
                Some(Err(e)) => {
                    self.notes.push(e.to_string());
                    self.down(now, Duration::from_millis(100));
                    return true;
                }
                None => {
                    self.state = State::Login(login);
                    return busy;
                }
            }
        }
    }

    fn step_up(&mut self, now: Instant, mut up: Box<Up>) -> bool {
        let mut busy = false;
        let mut end = None;
        loop {
            let mut idle = true;
            while let Some((id, event)) = up.conns.poll_event(now) {
                up.engine.handle_event(now, id, event);
                idle = false;
            }
            while let Some(completion) = up.engine.poll_completion() {
                self.complete(&mut up, completion);
                idle = false;
            }
            idle &= !self.submit(now, &mut up);
            while let Some(action) = up.engine.poll_action() {
                up.conns.carry_out(action);
                idle = false;
            }
            while let Some(event) = up.engine.poll_event() {
                self.notes.push(format!("{event:?}"));
                if let InitiatorEvent::Ended { time2wait, .. } = event {
                    end = Some(time2wait);
                }
                idle = false;
            }
            if idle {
                break;
            }
            busy = true;
        }
        up.conns.flush(now);
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
        if self.left == 0 {
            self.state = State::Done;
        } else {
            self.down(now, time2wait);
        }
        true
    }

    /// Keeps commands under way, and closes the session after the last.
    fn submit(&mut self, now: Instant, up: &mut Up) -> bool {
        let mut busy = false;
        while self.left > 0 && up.ops.len() < self.plan.queue_depth {
            let blocks = 1 + self.rng.below(u64::from(self.plan.max_blocks)) as u32;
            let at = self.rng.below(u64::from(self.shadow.len() - blocks + 1)) as u32;
            if !self.shadow.take(at, blocks) {
                return busy;
            }
            let number = self.next_number;
            let write = self.rng.coin();
            let (command, stamp) = self.command(number, write, at, blocks);
            match up.engine.submit(now, command) {
                Ok(tag) => {
                    self.next_number += 1;
                    self.left -= 1;
                    self.tally.commands += 1;
                    let abort_now = self.rng.one_in(self.plan.faults.abort);
                    let deadline = now + PATIENCE;
                    let op = Op { number, write, at, blocks, stamp, deadline, aborting: false };
                    up.ops.insert(tag, op);
                    if abort_now {
                        up.abort(now, tag);
                    }
                    busy = true;
                }
                Err(refused) => {
                    self.shadow.not_read(at, blocks);
                    if !matches!(refused.why, Refusal::WindowClosed | Refusal::NoConnection) {
                        self.faults.push(format!("a command was refused: {:?}", refused.why));
                    }
                    return busy;
                }
            }
        }
        if self.left == 0 && up.ops.is_empty() && up.functions == 0 && up.exchanges == 0 && !up.logging_out {
            up.logging_out = true;
            up.engine.logout(now);
            busy = true;
        }
        busy
    }

    fn command(&mut self, number: u64, write: bool, at: u32, blocks: u32) -> (Command, Stamp) {
        let lba = self.shadow.lba(at);
        let len = blocks as usize * BLOCK;
        let mut buffers = TaskBuffers::none();
        if write {
            let mut data = vec![0; len];
            for (n, block) in data.chunks_mut(BLOCK).enumerate() {
                fill(lba + n as u32, number, block);
            }
            // In two parts, cut anywhere.
            let cut = self.rng.index(len + 1);
            let data = Bytes::from(data);
            buffers.out = Some([data.slice(..cut), data.slice(cut..)].into_iter().collect::<SgList>());
        } else {
            let pooled = self.rng.coin().then(|| self.pool.alloc(len)).flatten();
            let mut room = pooled.unwrap_or_else(|| SgListMut::from(IoBuf::zeroed(len)));
            room.slices_mut().for_each(|s| s.fill(0xee));
            buffers.r#in = Some(room);
        }
        let op = if write { WRITE } else { READ };
        let command = Command {
            lun: Lun::ZERO,
            attr: TaskAttr::Simple,
            cdb: cdb(op, lba, blocks as u16, number),
            buffers,
            ..Command::default()
        };
        (command, number)
    }

    fn complete(&mut self, up: &mut Up, completion: Completion) {
        match completion {
            Completion::Task(done) => self.task_done(up, done),
            Completion::Function(_) => up.functions -= 1,
            _ => up.exchanges -= 1,
        }
    }

    fn task_done(&mut self, up: &mut Up, done: TaskDone) {
        let Some(op) = up.ops.remove(&done.tag) else {
            self.faults.push(format!("{:?} completed twice, or was never submitted", done.tag));
            return;
        };
        let good = matches!(&done.result, Ok(status) if status.status == ScsiStatus::Good);
        if good {
            self.tally.good += 1;
            self.certain.push(op.number);
        } else {
            self.tally.failed += 1;
        }
        let len = op.blocks as usize * BLOCK;
        if op.write {
            if done.buffers.out.as_ref().map(SgList::len) != Some(len) {
                self.faults.push(format!("command {} came back without its buffer", op.number));
            }
            self.shadow.written(op.at, op.blocks, op.stamp, good);
            return;
        }
        let data = done.buffers.r#in.map(|b| b.freeze().to_bytes()).unwrap_or_default();
        if data.len() != len {
            self.faults.push(format!("command {} came back without its buffer", op.number));
        } else if good {
            if let Err(what) = self.shadow.read(op.at, &data) {
                self.faults.push(format!("command {}: {what}", op.number));
            }
            return;
        }
        self.shadow.not_read(op.at, op.blocks);
    }

    /// Where it stands, for a run that does not end.
    pub(crate) fn describe(&self) -> String {
        match &self.state {
            State::Down { .. } => "down".into(),
            State::Login(_) => "in a login".into(),
            State::Done => "done".into(),
            State::Up(up) => format!(
                "{}, commands {:?}, {} functions, {} exchanges, {} to come, window {:?}",
                up.engine.state(),
                up.ops
                    .values()
                    .map(|op| (op.number as u32, op.write, op.blocks, op.aborting))
                    .collect::<Vec<_>>(),
                up.functions,
                up.exchanges,
                self.left,
                up.engine.window(),
            ),
        }
    }

    /// Something bigger happens. Says what.
    pub(crate) fn disturb(&mut self, now: Instant, rng: &mut Rng) -> &'static str {
        let State::Up(up) = &mut self.state else { return "nothing: not logged in" };
        match rng.below(7) {
            0 => {
                up.wire.cut();
                "the connection is cut"
            }
            1 => match &up.wire {
                Wire::Tcp(pipe) => {
                    pipe.stall(now + Duration::from_secs(rng.below(60)));
                    "the connection stalls"
                }
                Wire::Mem(_) => "nothing: no bytes to stall",
            },
            2 => match &up.wire {
                Wire::Tcp(pipe) if up.digests && pipe.corrupt() => "a byte is wrong",
                _ => "nothing: no byte to spoil",
            },
            3 => {
                up.function(now, TaskFunction::AbortTaskSet(Lun::ZERO));
                "ABORT TASK SET"
            }
            4 => {
                up.function(now, TaskFunction::LogicalUnitReset(Lun::ZERO));
                "LOGICAL UNIT RESET"
            }
            5 => {
                let first = up.engine.connections().map(|(id, _)| id).next();
                if let Some(id) = first
                    && up.engine.ping(now, id, &Bytes::from_static(b"are you there")).is_ok()
                {
                    up.exchanges += 1;
                }
                "a ping"
            }
            _ => {
                up.logging_out = true;
                up.engine.logout(now);
                "a logout in the middle"
            }
        }
    }
}

impl Up {
    fn abort(&mut self, now: Instant, tag: TaskTag) {
        if let Some(op) = self.ops.get_mut(&tag) {
            op.aborting = true;
            op.deadline = now + 3 * PATIENCE;
        }
        let sent = self.engine.abort(now, tag).ok();
        self.count(sent);
    }

    fn function(&mut self, now: Instant, function: TaskFunction) {
        let sent = self.engine.task_management(now, function).ok();
        self.count(sent);
    }

    fn count(&mut self, sent: Option<FunctionTag>) {
        self.functions += usize::from(sent.is_some());
    }

    fn lose_patience(&mut self, now: Instant) {
        let late: Vec<(TaskTag, bool)> = self
            .ops
            .iter()
            .filter(|(_, op)| op.deadline <= now)
            .map(|(tag, op)| (*tag, op.aborting))
            .collect();
        if late.iter().any(|(_, aborting)| *aborting) {
            self.wire.cut();
            self.ops.values_mut().for_each(|op| op.deadline = now + 3 * PATIENCE);
            return;
        }
        late.into_iter().for_each(|(tag, _)| self.abort(now, tag));
    }
}
