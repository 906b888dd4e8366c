//! A target's session engine against an initiator that sends any control-type PDU at any time, on several connections
//! that come and go, above a device server that answers when it likes: no panic, calls to the device server in their
//! order, no rule of the Datamover Interface broken, and at the end no task, timer or buffer left.
//!
//! Input: a byte of parameters (bits 0-1 ErrorRecoveryLevel, bit 2 ImmediateData, bit 3 InitialR2T, bit 4 FastAbort),
//! then steps: a byte that says what, and what that needs.
#![no_main]

use bytes::Bytes;
use datamover::{BufPool, Control, DataError, Role, TaskBuffers};
use iscsi_login::{IscsiName, SessionParams, TaskReporting};
use iscsi_pdu::{CmdSn, Pdu, ScsiStatus, TaskMgmtStatus};
use iscsi_session::device::{FunctionTag, Outcome, TaskPort, TaskTag};
use iscsi_session::target::{Peer, TargetConfig, TargetEvent, TargetSession, TaskEvent};
use iscsi_session::window::TargetWindow;
use libfuzzer_sys::fuzz_target;
use rig::{Conns, Input, now, pool};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[path = "session/rig.rs"]
mod rig;

struct Open {
    read: u32,
    write: u32,
    /// Output asked for and not delivered.
    wanted: usize,
    aborted: bool,
}

struct Rig {
    s: TargetSession,
    now: Instant,
    conns: Conns,
    pool: datamover::SlabPool,
    tasks: BTreeMap<TaskTag, Open>,
    functions: Vec<FunctionTag>,
    lost: bool,
    ended: bool,
}

impl Rig {
    fn connect(&mut self, seed: u8) {
        let (s, now) = (&mut self.s, self.now);
        if !self.ended && !s.is_ending() {
            self.conns.connect(Role::Target, seed, &self.pool, |setup| s.add_connection(now, setup));
        }
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it goes round in circles");
            let mut idle = true;
            while let Some((id, event)) = self.conns.poll_event(self.now) {
                self.s.handle_event(self.now, id, event);
                idle = false;
            }
            while let Some(event) = self.s.poll_task() {
                self.upcall(event);
                idle = false;
            }
            while let Some(action) = self.s.poll_action() {
                self.conns.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.s.poll_event() {
                if let TargetEvent::Ended(_) = event {
                    assert!(!self.ended, "a session ends once");
                    self.ended = true;
                }
                idle = false;
            }
            if idle {
                return;
            }
        }
    }

    fn upcall(&mut self, event: TaskEvent) {
        assert!(!self.lost, "{event:?} after the nexus was lost");
        match event {
            TaskEvent::Execute(task) => {
                let (read, write) = (task.read_length, task.write_length);
                assert!(task.unsolicited.len() <= write as usize, "more output than was announced");
                let open = Open { read, write, wanted: 0, aborted: false };
                assert!(self.tasks.insert(task.tag, open).is_none(), "a tag in use is given out");
            }
            TaskEvent::WriteData { tag, data, .. } => {
                let open = self.tasks.get_mut(&tag).expect("data of an open task");
                assert!(!open.aborted, "data of an aborted task");
                open.wanted = open.wanted.checked_sub(data.len()).expect("data that was asked for");
            }
            TaskEvent::Abort(tag) => {
                let open = self.tasks.get_mut(&tag).expect("an open task is aborted");
                assert!(!std::mem::replace(&mut open.aborted, true), "a task is aborted once");
            }
            TaskEvent::TaskManagement(f) => self.functions.push(f.tag),
            TaskEvent::CommandsCleared(_) => {}
            TaskEvent::NexusLoss => {
                assert!(self.tasks.is_empty(), "the nexus is lost while tasks are open");
                self.lost = true;
            }
        }
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<TaskTag> {
        let place = input.index(self.tasks.len());
        self.tasks.keys().nth(place).copied()
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        match op & 0x0f {
            0..=4 => self.pdu(input),
            5 => self.pass(Duration::from_millis(1 << (op >> 4))),
            6 => self.connect(op >> 4),
            7 => self.lose(input),
            8 => {
                if let Some(tag) = self.pick(input) {
                    let open = self.tasks.remove(&tag).unwrap();
                    if open.aborted {
                        self.s.discard(tag);
                    } else {
                        let status = ScsiStatus(input.byte());
                        let (read, write) = (u64::from(input.byte()) << 6, u64::from(open.write));
                        let outcome = match op >> 4 & 1 {
                            0 => Outcome::good().with_read(read.min(open.read.into())).with_write(write),
                            _ => Outcome { status, sense: Bytes::from(vec![0x70; 18]), ..Outcome::good() },
                        };
                        self.s.complete(tag, outcome);
                    }
                }
            }
            9 | 10 => {
                if let Some(tag) = self.pick(input) {
                    let open = self.tasks.get_mut(&tag).unwrap();
                    let at = u32::from(input.byte()) << 6;
                    let len = (u32::from(input.byte()) << 4).min(4096);
                    if op & 1 == 1 && at + len <= open.write && len > 0 && !open.aborted {
                        if let Some(into) = self.s.pool(tag).clone().alloc(len as usize) {
                            open.wanted += into.len();
                            self.s.want_write(tag, at, into);
                        }
                    } else if op & 1 == 0 && at + len <= open.read && !open.aborted {
                        self.s.read_data(tag, at, Bytes::from(vec![7; len as usize]).into());
                    }
                }
            }
            11 => {
                if !self.functions.is_empty() {
                    let tag = self.functions.remove(input.index(self.functions.len()));
                    self.s.respond(tag, TaskMgmtStatus(input.byte()), [0; 3]);
                }
            }
            12 => {
                if let Some(conn) = self.conns.0.first() {
                    conn.control.fail_next_get(DataError::TimedOut);
                }
            }
            13 => {
                let id = self.conns.0.get(input.index(self.conns.0.len())).map(|c| c.id);
                if let Some(id) = id {
                    match op >> 4 & 3 {
                        0 => self.s.request_logout(self.now, id, Duration::from_secs(3)),
                        1 => self.s.request_negotiation(self.now, id, Duration::from_secs(3)),
                        2 => self.s.drop_connection(self.now, id),
                        _ => {}
                    }
                }
            }
            14 => match op >> 4 {
                0 => self.s.reinstate(self.now),
                1 => self.s.reset(self.now),
                2 => self.s.shutdown(self.now),
                _ => {}
            },
            _ => {}
        }
        self.settle();
    }

    fn pdu(&mut self, input: &mut Input<'_>) {
        let place = input.index(self.conns.0.len());
        let (exp, _) = self.s.window();
        // ITTs from a few, CmdSN near what is expected, ExpStatSN near the first.
        let near = [(24, exp.0), (28, 1000), (16, 8), (20, 8), (32, exp.0)];
        let Some(pdu) = input.pdu(Role::Initiator, &near) else { return };
        let Some(conn) = self.conns.0.get_mut(place) else { return };
        let mut control = Control::from(pdu);
        if let Pdu::ScsiCommand(c) = &control.pdu {
            let len = c.expected_data_transfer_length.min(1 << 16) as usize;
            let out = c.write.then(|| Bytes::from(vec![9; len.max(c.data.len())]).into());
            let r#in = if c.read { self.pool.alloc(len).map(Box::new) } else { None };
            control.unsolicited = c.data.len() as u32;
            control.buffers = TaskBuffers { out, r#in };
        }
        if control.check(Role::Initiator).is_ok() {
            let _ = conn.theirs.send_control(control);
        }
    }

    fn lose(&mut self, input: &mut Input<'_>) {
        if let Some(conn) = self.conns.0.get(input.index(self.conns.0.len())) {
            conn.control.cut();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.s.poll_timeout().is_some_and(|at| at <= self.now) {
            self.s.handle_timeout(self.now);
        }
    }

    /// All connections are lost, the device server lets go of everything, and time passes.
    fn end(mut self) {
        self.conns.0.iter().for_each(|c| c.control.cut());
        self.settle();
        for _ in 0..200 {
            for (tag, _) in std::mem::take(&mut self.tasks) {
                self.s.discard(tag);
            }
            for tag in std::mem::take(&mut self.functions) {
                self.s.respond(tag, TaskMgmtStatus::FunctionComplete, [0; 3]);
            }
            self.settle();
            if self.tasks.is_empty() && self.functions.is_empty() {
                let Some(at) = self.s.poll_timeout() else { break };
                self.now = self.now.max(at);
                self.s.handle_timeout(self.now);
                self.settle();
            }
        }
        assert!(self.ended && self.lost, "a session without connections ends");
        assert_eq!(self.s.poll_timeout(), None, "a session that has ended has no timer");
        assert_eq!(self.s.open_tasks(), 0);
        assert_eq!(self.conns.violations(), Vec::<&str>::new());
        let Self { s, conns, pool, .. } = self;
        drop((s, conns));
        assert_eq!(pool.outstanding(), 0, "all buffers are back");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let options = input.byte();
    let mut params = SessionParams::default();
    params.error_recovery_level = (options & 3).min(2);
    params.immediate_data = options & 4 != 0;
    params.initial_r2t = options & 8 != 0;
    params.max_connections = 4;
    params.default_time2retain = 20;
    if options & 16 != 0 {
        params.task_reporting = TaskReporting::FastAbort;
    }
    let peer = Peer {
        initiator: IscsiName::new("iqn.2026-01.org.example:host").unwrap(),
        target: Some(IscsiName::new("iqn.2026-01.org.example:disk").unwrap()),
    };
    let now = now();
    let window = TargetWindow::new(CmdSn(0xffff_fffe), 8);
    let s = TargetSession::with_window(TargetConfig::default(), params, peer, window, now);
    let (conns, tasks, functions) = (Conns::default(), BTreeMap::new(), Vec::new());
    let mut rig = Rig { s, now, conns, pool: pool(), tasks, functions, lost: false, ended: false };
    rig.connect(1);
    while !input.is_empty() {
        rig.step(&mut input);
    }
    rig.end();
});
