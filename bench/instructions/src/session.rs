//! `iscsi-session`: both engines over the in-memory datamover.

use crate::Operation;
use bytes::Bytes;
use datamover::{
    Budget, ConnKeys, Datamover, IoBuf, LoginLink, PoolConfig, Resources, SgListMut, SlabPool, TaskBuffers,
    mem,
};
use iscsi_login::{IscsiName, SessionParams};
use iscsi_pdu::{Cid, CmdSn, LoginResponse, Pdu, ScsiStatus, StatSn};
use iscsi_session::target::Peer;
use iscsi_session::window::{InitiatorWindow, TargetWindow};
use iscsi_session::{
    Command, Completion, ConnId, ConnSetup, InitiatorConfig, InitiatorSession, Outcome, TargetConfig,
    TargetSession, TaskEvent, TaskPort,
};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

/// Bytes of a command.
const LEN: u32 = 4096;

/// A session, seen from both ends, with one connection.
struct World {
    initiator: InitiatorSession,
    target: TargetSession,
    conns: (ConnId, ConnId),
    movers: (Box<dyn Datamover>, Box<dyn Datamover>),
    disk: Bytes,
    now: Instant,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn new() -> Self {
        let now = Instant::now();
        let movers = logged_in(now);
        let pool = Arc::new(SlabPool::new(PoolConfig::default()));
        let setup =
            || ConnSetup { cid: Cid(0), keys: ConnKeys::default(), pool: pool.clone(), stat_sn: StatSn(1) };
        let name = |text| IscsiName::new(text).expect("a name");
        let peer = Peer {
            initiator: name("iqn.2026-01.org.example:host"),
            target: Some(name("iqn.2026-01.org.example:disk")),
        };
        // As after a login that allowed the longest bursts, and immediate data of a whole command.
        let mut params = SessionParams::default();
        (params.first_burst_length, params.max_burst_length) = (65_536, 262_144);
        let window = TargetWindow::new(CmdSn(1), 32);
        let mut target = TargetSession::with_window(TargetConfig::default(), params, peer, window, now);
        let window = InitiatorWindow::new(CmdSn(1), CmdSn(1), CmdSn(32));
        let mut initiator = InitiatorSession::with_window(InitiatorConfig::default(), params, window, now);
        let conns = (initiator.add_connection(now, setup()), target.add_connection(now, setup()));
        Self { initiator, target, conns, movers, disk: Bytes::from(vec![0x5a; LEN as usize]), now }
    }

    /// One command from submission to completion.
    fn cycle(&mut self, command: Command) -> TaskBuffers {
        self.initiator.submit(self.now, command).expect("an open window");
        loop {
            let moved = self.initiator_turn() | self.target_turn();
            if let Some(Completion::Task(done)) = self.initiator.poll_completion() {
                assert!(done.result.is_ok_and(|status| status.status == ScsiStatus::Good));
                return done.buffers;
            }
            assert!(moved, "the command goes on");
        }
    }

    fn initiator_turn(&mut self) -> bool {
        let (engine, mover) = (&mut self.initiator, &mut self.movers.0);
        let mut moved = false;
        while let Some(action) = engine.poll_action() {
            action.call.invoke(&mut **mover).expect("room");
            moved = true;
        }
        drive(&mut **mover, self.now);
        while let Some(event) = mover.poll_event() {
            engine.handle_event(self.now, self.conns.0, event);
            moved = true;
        }
        moved
    }

    fn target_turn(&mut self) -> bool {
        let (engine, mover) = (&mut self.target, &mut self.movers.1);
        let mut moved = false;
        drive(&mut **mover, self.now);
        while let Some(event) = mover.poll_event() {
            engine.handle_event(self.now, self.conns.1, event);
            moved = true;
        }
        while let Some(event) = engine.poll_task() {
            let (tag, outcome) = match event {
                TaskEvent::Execute(task) if task.read_length > 0 => {
                    engine.read_data(task.tag, 0, self.disk.clone().into());
                    (task.tag, Outcome::good().with_read(LEN.into()))
                }
                TaskEvent::Execute(task) if (task.unsolicited.len() as u32) < task.write_length => {
                    let have = task.unsolicited.len() as u32;
                    let into = engine.pool(task.tag).alloc((task.write_length - have) as usize);
                    engine.want_write(task.tag, have, into.expect("memory"));
                    continue;
                }
                TaskEvent::Execute(task) => (task.tag, Outcome::good().with_write(LEN.into())),
                TaskEvent::WriteData { tag, result: Ok(()), .. } => {
                    (tag, Outcome::good().with_write(LEN.into()))
                }
                _ => panic!("nothing else was asked for"),
            };
            engine.complete(tag, outcome);
        }
        while let Some(action) = engine.poll_action() {
            action.call.invoke(&mut **mover).expect("room");
            moved = true;
        }
        moved
    }
}

fn drive(mover: &mut dyn Datamover, now: Instant) {
    let _ = mover.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(now));
}

/// Both ends of a connection in full feature phase.
fn logged_in(now: Instant) -> (Box<dyn Datamover>, Box<dyn Datamover>) {
    let (mut initiator, mut target, _) = mem::pair(mem::MemConfig::default());
    for link in [&mut initiator, &mut target] {
        link.allocate_connection_resources(&Resources::default()).expect("resources");
    }
    let target = Box::new(target).enable_datamover(Some(LoginResponse::default()));
    let mut context = Context::from_waker(Waker::noop());
    let _ = datamover::Drive::poll_drive(&mut initiator, &mut context, &mut Budget::new(now));
    assert!(matches!(initiator.poll_login(), Some(Ok(Pdu::LoginResponse(_)))));
    (Box::new(initiator).enable_datamover(None), target)
}

pub(crate) fn operations() -> Vec<Operation> {
    let mut world = World::new();
    let mut room = Some(Box::new(SgListMut::from(IoBuf::zeroed(LEN as usize))));
    let read = Operation::new("session: READ of 4 KiB on mem, both roles", 100, move || {
        let buffers = TaskBuffers { out: None, r#in: room.take() };
        room = world.cycle(Command { buffers, ..Command::default() }).r#in;
        assert!(room.is_some());
    });
    let mut world = World::new();
    let data = Bytes::from(vec![0xa5; LEN as usize]);
    let write = Operation::new("session: WRITE of 4 KiB on mem, both roles", 100, move || {
        let buffers = TaskBuffers { out: Some(data.clone().into()), r#in: None };
        assert!(world.cycle(Command { buffers, ..Command::default() }).out.is_some());
    });
    vec![read, write]
}
