//! One session at the target: what a driver does for it.

use crate::disk::Disk;
use crate::link::{Conn, Conns, Wire};
use crate::log::Log;
use datamover::{Datamover, Role};
use iscsi_login::Negotiated;
use iscsi_pdu::Tsih;
use iscsi_session::ConnSetup;
use iscsi_session::device::DeviceServer;
use iscsi_session::target::{TargetEvent, TargetSession, TaskEvent};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

pub(super) struct Session {
    pub(super) tsih: Tsih,
    pub(super) engine: TargetSession,
    disk: Disk,
    conns: Conns,
    ended: bool,
    /// Connections may go on sending until then.
    until: Option<Instant>,
}

impl Session {
    pub(super) fn new(negotiated: &Negotiated, engine: TargetSession, disk: Disk, conn: Conn) -> Self {
        Self { tsih: negotiated.tsih, engine, disk, conns: Conns(vec![conn]), ended: false, until: None }
    }

    pub(super) fn join(
        &mut self,
        now: Instant,
        datamover: Box<dyn Datamover>,
        negotiated: &Negotiated,
        wire: Wire,
    ) {
        if self.ended {
            return;
        }
        let setup = ConnSetup::new(Role::Target, negotiated, datamover.pool().clone());
        let id = self.engine.add_connection(now, setup);
        self.conns.0.push(Conn::new(id, datamover, wire, false));
    }

    pub(super) fn step(&mut self, now: Instant, log: &mut Log) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut busy = false;
        loop {
            let mut idle = true;
            while let Some((id, event)) = self.conns.poll_event(now, log) {
                self.engine.handle_event(now, id, event);
                idle = false;
            }
            while let Some(event) = self.engine.poll_task() {
                let (disk, port) = (&mut self.disk, &mut self.engine);
                match event {
                    TaskEvent::Execute(task) => disk.execute(task, port),
                    TaskEvent::WriteData { tag, offset, data, result } => {
                        disk.write_data(tag, offset, data, result, port);
                    }
                    TaskEvent::Abort(tag) => disk.abort(tag, port),
                    TaskEvent::TaskManagement(function) => disk.task_management(function, port),
                    TaskEvent::CommandsCleared(lun) => disk.commands_cleared(lun),
                    TaskEvent::NexusLoss => disk.nexus_loss(),
                }
                log.mix(disk.hash);
                idle = false;
            }
            while self.disk.poll(&mut cx, now, &mut self.engine).is_ready() {
                idle = false;
            }
            while let Some(action) = self.engine.poll_action() {
                self.conns.carry_out(action, log);
                idle = false;
            }
            while let Some(event) = self.engine.poll_event() {
                log.tell(&format_args!("target, session {}", self.tsih.0), &format_args!("{event:?}"));
                if let TargetEvent::Ended(_) = event {
                    self.ended = true;
                    self.until = Some(now + Duration::from_secs(2));
                    self.disk.session_ended(self.engine.open_tasks(), self.engine.poll_timeout());
                }
                idle = false;
            }
            if idle {
                break;
            }
            busy = true;
        }
        if busy {
            self.conns.flush(now);
        }
        busy
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ended && (self.conns.0.is_empty() || self.until.is_some_and(|at| at <= now))
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let (engine, disk) = (self.engine.poll_timeout(), self.disk.poll_timeout());
        [engine, disk, self.conns.poll_timeout(), self.until].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.disk.set_now(now);
        self.conns.handle_timeout(now);
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle_timeout(now);
        }
    }
}
