//! An initiator's session engine against a target that sends any control-type PDU and moves any data at any time, on
//! several connections that come and go: no panic, no rule of the Datamover Interface broken, every request concluded
//! once with its buffers, and at the end no task, timer or buffer left.
//!
//! Input: a byte of parameters (bits 0-1 ErrorRecoveryLevel, bit 2 ImmediateData, bit 3 InitialR2T, bit 4 FastAbort),
//! then steps: a byte that says what, and what that needs.
#![no_main]

use bytes::Bytes;
use datamover::{BufPool, Control, GetData, PutData, Role, TaskBuffers};
use iscsi_login::{SessionParams, TaskReporting};
use iscsi_pdu::{CmdSn, Itt, Lun};
use iscsi_session::TaskTag;
use iscsi_session::initiator::{
    Command, Completion, InitiatorConfig, InitiatorEvent, InitiatorSession, TaskFunction,
};
use iscsi_session::window::InitiatorWindow;
use libfuzzer_sys::fuzz_target;
use rig::{Conns, Input, now, pool};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[path = "session/rig.rs"]
mod rig;

struct Rig {
    s: InitiatorSession,
    now: Instant,
    conns: Conns,
    pool: datamover::SlabPool,
    /// Output and input of each command.
    tasks: BTreeMap<TaskTag, (usize, usize)>,
    functions: usize,
    exchanges: usize,
    ended: bool,
}

impl Rig {
    fn connect(&mut self, seed: u8) {
        let (s, now) = (&mut self.s, self.now);
        if !self.ended {
            self.conns.connect(Role::Initiator, seed, &self.pool, |setup| s.add_connection(now, setup));
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
            while let Some(completion) = self.s.poll_completion() {
                self.concluded(completion);
                idle = false;
            }
            while let Some(action) = self.s.poll_action() {
                self.conns.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.s.poll_event() {
                if let InitiatorEvent::Ended { .. } = event {
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

    fn concluded(&mut self, completion: Completion) {
        match completion {
            Completion::Task(done) => {
                let (out, input) = self.tasks.remove(&done.tag).expect("a command is concluded once");
                assert_eq!(done.buffers.out.as_ref().map_or(0, |b| b.len()), out, "output comes back");
                assert_eq!(done.buffers.r#in.as_ref().map_or(0, |b| b.len()), input, "input comes back");
            }
            Completion::Function(_) => {
                self.functions = self.functions.checked_sub(1).expect("a function is concluded once");
            }
            _ => self.exchanges = self.exchanges.checked_sub(1).expect("an exchange is concluded once"),
        }
    }

    fn submit(&mut self, input: &mut Input<'_>, kind: u8) {
        if self.tasks.len() >= 16 {
            return;
        }
        let len = usize::from(input.byte()) << 5;
        let (writes, reads) = (kind & 1 == 1 && len > 0, kind & 2 == 2 && len > 0);
        let buffers = TaskBuffers {
            out: writes.then(|| Bytes::from(vec![5; len]).into()),
            r#in: if reads { self.pool.alloc(len).map(Box::new) } else { None },
        };
        let (out, input) = (if writes { len } else { 0 }, if buffers.r#in.is_some() { len } else { 0 });
        let command = Command { buffers, immediate: kind & 4 != 0, ..Command::default() };
        if let Ok(tag) = self.s.submit(self.now, command) {
            self.tasks.insert(tag, (out, input));
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let op = input.byte();
        match op & 0x0f {
            0..=4 => self.pdu(input),
            5 => self.pass(Duration::from_millis(1 << (op >> 4))),
            6 => self.connect(op >> 4),
            7 => {
                if let Some(conn) = self.conns.0.get(input.index(self.conns.0.len())) {
                    conn.control.cut();
                }
            }
            8 | 9 => self.submit(input, op >> 4),
            10 => self.function(input, op >> 4),
            11 => {
                let text = Bytes::from_static(b"SendTargets=All\0");
                self.exchanges += usize::from(self.s.text(self.now, text).is_ok());
            }
            12 => {
                if let Some(id) = self.conns.0.get(input.index(self.conns.0.len())).map(|c| c.id) {
                    match op >> 4 & 3 {
                        0 => {
                            let data = Bytes::from_static(b"there?");
                            self.exchanges += usize::from(self.s.ping(self.now, id, &data).is_ok());
                        }
                        1 => self.s.logout_connection(self.now, id),
                        2 => self.s.retire_connection(self.now, id, Duration::from_secs(3)),
                        _ => {}
                    }
                }
            }
            13 => match op >> 4 {
                0 => self.s.logout(self.now),
                1 => self.s.give_up(self.now),
                _ => {}
            },
            _ => self.data(input, op & 1 == 0),
        }
        self.settle();
    }

    fn function(&mut self, input: &mut Input<'_>, kind: u8) {
        let place = input.index(self.tasks.len());
        let task = self.tasks.keys().nth(place).copied();
        let function = match (kind, task) {
            (0, Some(tag)) => {
                self.functions += usize::from(self.s.abort(self.now, tag).is_ok());
                return;
            }
            (1, Some(tag)) => TaskFunction::QueryTask(tag),
            (2, _) => TaskFunction::AbortTaskSet(Lun::ZERO),
            (3, _) => TaskFunction::ClearTaskSet(Lun::ZERO),
            (4, _) => TaskFunction::LogicalUnitReset(Lun::ZERO),
            (5, _) => TaskFunction::TargetWarmReset,
            (6, _) => TaskFunction::TargetColdReset,
            (7, _) => TaskFunction::ItNexusReset,
            _ => TaskFunction::QueryTaskSet(Lun::ZERO),
        };
        self.functions += usize::from(self.s.task_management(self.now, function).is_ok());
    }

    fn pdu(&mut self, input: &mut Input<'_>) {
        let place = input.index(self.conns.0.len());
        let next = self.s.window().cmd_sn().0;
        // ITTs from a few, StatSN near the first, the command window near what was sent.
        let near = [(16, 8), (24, 1000), (28, next), (32, next), (20, u32::MAX)];
        let Some(pdu) = input.pdu(Role::Target, &near) else { return };
        let Some(conn) = self.conns.0.get_mut(place) else { return };
        let _ = conn.theirs.send_control(Control::from(pdu));
    }

    /// The target reads or writes a task's memory.
    fn data(&mut self, input: &mut Input<'_>, put: bool) {
        let place = input.index(self.conns.0.len());
        let (itt, lun, resume) = (Itt(u32::from(input.byte())), Lun::ZERO, None);
        let (offset, len) = (u32::from(input.byte()) << 5, usize::from(input.byte()) << 4);
        let Some(conn) = self.conns.0.get_mut(place) else { return };
        if put {
            let data = Bytes::from(vec![3; len]).into();
            let _ = conn.theirs.put_data(PutData { itt, lun, offset, data, resume, ack: false, notify: false });
        } else if let Some(into) = self.pool.alloc(len.max(1)) {
            let _ = conn.theirs.get_data(GetData { itt, lun, offset, into, resume });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.s.poll_timeout().is_some_and(|at| at <= self.now) {
            self.s.handle_timeout(self.now);
        }
    }

    /// All connections are lost, no other will be made, and time passes.
    fn end(mut self) {
        self.conns.0.iter().for_each(|c| c.control.cut());
        self.settle();
        self.s.give_up(self.now);
        self.settle();
        for _ in 0..200 {
            let Some(at) = self.s.poll_timeout() else { break };
            self.now = self.now.max(at);
            self.s.handle_timeout(self.now);
            self.settle();
        }
        assert!(self.ended, "a session without connections ends");
        assert_eq!(self.s.poll_timeout(), None, "a session that has ended has no timer");
        assert_eq!((self.tasks.len(), self.functions, self.exchanges), (0, 0, 0), "each request is concluded");
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
    let now = now();
    let window = InitiatorWindow::new(CmdSn(0xffff_fffe), CmdSn(0xffff_fffe), CmdSn(6));
    let s = InitiatorSession::with_window(InitiatorConfig::default(), params, window, now);
    let (conns, tasks) = (Conns::default(), BTreeMap::new());
    let mut rig = Rig { s, now, conns, pool: pool(), tasks, functions: 0, exchanges: 0, ended: false };
    rig.connect(1);
    while !input.is_empty() {
        rig.step(&mut input);
    }
    rig.end();
});
