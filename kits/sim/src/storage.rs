//! The target: logins, sessions, reinstatement.

use crate::disk::{Disk, SharedMedium};
use crate::link::{Conn, Conns, Wire, drive};
use crate::plan::Plan;
use crate::rng::Rng;
use datamover::{Datamover, LoginLink, Resources, Role};
use iscsi_login::{
    AccessDecision, AuthIdentity, Grant, LoginOutput, Negotiated, TargetAuth, TargetLogin, TargetLoginConfig,
};
use iscsi_pdu::Tsih;
use iscsi_session::ConnSetup;
use iscsi_session::device::DeviceServer;
use iscsi_session::login::conn_keys;
use iscsi_session::registry::{Entry, SessionKey, SessionRegistry};
use iscsi_session::target::{TargetConfig, TargetEvent, TargetSession, TaskEvent};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

struct Login {
    machine: TargetLogin,
    link: Box<dyn LoginLink>,
    wire: Wire,
    tsih: Option<Tsih>,
    failed: bool,
}

/// A connection whose session cannot begin before the one that it reinstates has ended.
struct Waiting {
    after: Tsih,
    datamover: Box<dyn Datamover>,
    negotiated: Box<Negotiated>,
    wire: Wire,
}

struct Session {
    tsih: Tsih,
    engine: TargetSession,
    disk: Disk,
    conns: Conns,
    ended: bool,
    /// Connections may go on sending until then.
    until: Option<Instant>,
}

/// The target.
pub(crate) struct Storage {
    plan: Plan,
    rng: Rng,
    medium: SharedMedium,
    registry: SessionRegistry<()>,
    logins: Vec<Login>,
    waiting: Vec<Waiting>,
    sessions: Vec<Session>,
    /// For the trace.
    pub(crate) notes: Vec<String>,
}

impl Storage {
    pub(crate) fn new(plan: &Plan, rng: Rng, medium: SharedMedium) -> Self {
        Self {
            plan: plan.clone(),
            rng,
            medium,
            registry: SessionRegistry::new(100),
            logins: Vec::new(),
            waiting: Vec::new(),
            sessions: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn accept(&mut self, now: Instant, link: Box<dyn LoginLink>, wire: Wire) {
        let config = TargetLoginConfig {
            preferences: self.plan.target.clone(),
            command_window: self.plan.window,
            ..TargetLoginConfig::default()
        };
        let machine = TargetLogin::new(Arc::new(config), [2; 32], now);
        self.logins.push(Login { machine, link, wire, tsih: None, failed: false });
    }

    /// Sessions that are there.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len() + self.logins.len() + self.waiting.len()
    }

    /// Does what can be done now; `true` when there was something.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        let mut busy = self.step_logins(now);
        for session in &mut self.sessions {
            busy |= session.step(now, &mut self.notes);
        }
        let gone: Vec<Tsih> = self.sessions.iter().filter(|s| s.is_over(now)).map(|s| s.tsih).collect();
        self.sessions.retain(|s| !gone.contains(&s.tsih));
        for tsih in &gone {
            self.registry.remove(*tsih);
            while let Some(index) = self.waiting.iter().position(|w| w.after == *tsih) {
                let Waiting { datamover, negotiated, wire, .. } = self.waiting.remove(index);
                self.begin(now, datamover, &negotiated, wire);
            }
        }
        busy || !gone.is_empty()
    }

    fn step_logins(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for mut login in std::mem::take(&mut self.logins) {
            drive(&mut login.link, now);
            if login.machine.poll_timeout().is_some_and(|at| at <= now) {
                login.machine.handle_timeout(now);
            }
            match login.link.poll_login() {
                Some(Ok(pdu)) => {
                    busy = true;
                    login.machine.handle_pdu(now, pdu);
                }
                Some(Err(_)) => {
                    self.give_up(login.tsih);
                    busy = true;
                    continue;
                }
                None => {}
            }
            if let Some(login) = self.outputs(now, login) {
                self.logins.push(login);
            } else {
                busy = true;
            }
        }
        busy
    }

    /// Carries a login's outputs out; the login goes on, or it is over.
    fn outputs(&mut self, now: Instant, mut login: Login) -> Option<Login> {
        while let Some(output) = login.machine.poll_output() {
            match output {
                LoginOutput::Send(response) => login.link.send_login(response.into()),
                LoginOutput::NeedAccess(request) => {
                    login.machine.handle_access(AccessDecision::Grant(Box::new(Grant {
                        portal_group_tag: request.target_name.as_ref().map(|_| 1),
                        alias: None,
                        auth: TargetAuth::None,
                        preferences: None,
                        session: None,
                    })));
                }
                LoginOutput::NoticeKeys(keys) | LoginOutput::Allocate(keys) if login.tsih.is_some() => {
                    login.link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                }
                LoginOutput::NoticeKeys(keys) => {
                    login.link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                }
                LoginOutput::Allocate(keys) => {
                    login.link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                    let resources = Resources { commands: self.plan.window + 16, ..Resources::default() };
                    let granted = login.link.allocate_connection_resources(&resources).is_ok();
                    login.tsih = if granted { self.registry.reserve() } else { None };
                    login.machine.handle_resources(login.tsih);
                }
                LoginOutput::Deallocate => login.link.deallocate_connection_resources(),
                LoginOutput::Enable { negotiated, final_response } => {
                    let datamover = login.link.enable_datamover(final_response);
                    self.enable(now, datamover, negotiated, login.wire);
                    return None;
                }
                LoginOutput::Failed(failure) => {
                    self.notes.push(failure.to_string());
                    login.failed = true;
                }
                _ => {}
            }
        }
        drive(&mut login.link, now);
        if login.failed && login.link.is_flushed() {
            self.give_up(login.tsih);
            return None;
        }
        Some(login)
    }

    fn give_up(&mut self, tsih: Option<Tsih>) {
        if let Some(tsih) = tsih {
            self.registry.release(tsih);
        }
    }

    fn enable(
        &mut self,
        now: Instant,
        datamover: Box<dyn Datamover>,
        negotiated: Box<Negotiated>,
        wire: Wire,
    ) {
        let entry = Entry {
            key: SessionKey::new(&negotiated, None),
            session: negotiated.session,
            auth: AuthIdentity::None,
            handle: (),
        };
        match self.registry.insert(negotiated.tsih, entry) {
            Some((old, _)) => {
                if let Some(session) = self.sessions.iter_mut().find(|s| s.tsih == old) {
                    session.engine.reinstate(now);
                    self.waiting.push(Waiting { after: old, datamover, negotiated, wire });
                } else {
                    // The old one was still waiting for its own predecessor: it never begins.
                    let after = self.waiting.iter().position(|w| w.negotiated.tsih == old);
                    match after.map(|index| self.waiting.remove(index).after) {
                        Some(after) => self.waiting.push(Waiting { after, datamover, negotiated, wire }),
                        None => self.begin(now, datamover, &negotiated, wire),
                    }
                }
            }
            None => self.begin(now, datamover, &negotiated, wire),
        }
    }

    fn begin(&mut self, now: Instant, datamover: Box<dyn Datamover>, negotiated: &Negotiated, wire: Wire) {
        let cfg = TargetConfig { abort_timeout: Duration::from_secs(600), ..TargetConfig::default() };
        let mut engine = TargetSession::new(cfg, negotiated, now);
        let id =
            engine.add_connection(now, ConnSetup::new(Role::Target, negotiated, datamover.pool().clone()));
        let disk = Disk::new(self.medium.clone(), self.rng.fork(), self.plan.faults, now);
        let conns = Conns(vec![Conn::new(id, datamover, wire)]);
        self.sessions.push(Session { tsih: negotiated.tsih, engine, disk, conns, ended: false, until: None });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let logins = self.logins.iter().flat_map(|l| [l.machine.poll_timeout(), l.wire.next_arrival()]);
        let sessions = self
            .sessions
            .iter()
            .flat_map(|s| [s.engine.poll_timeout(), s.disk.poll_timeout(), s.conns.poll_timeout(), s.until]);
        let waiting = self.waiting.iter().map(|w| w.wire.next_arrival());
        logins.chain(sessions).chain(waiting).flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for session in &mut self.sessions {
            session.disk.set_now(now);
            session.conns.handle_timeout(now);
            if session.engine.poll_timeout().is_some_and(|at| at <= now) {
                session.engine.handle_timeout(now);
            }
        }
    }

    /// Something that the target does of its own accord, to all its sessions.
    pub(crate) fn disturb(&mut self, now: Instant, rng: &mut Rng) -> &'static str {
        let what = rng.below(3);
        for session in &mut self.sessions {
            match what {
                0 => session.engine.shutdown(now),
                _ => {
                    let open: Vec<_> = session.engine.connections().map(|(id, _)| id).collect();
                    for id in open {
                        match what {
                            1 => session.engine.request_logout(now, id, Duration::from_secs(3)),
                            _ => session.engine.request_negotiation(now, id, Duration::from_secs(3)),
                        }
                    }
                }
            }
        }
        ["target: shutdown", "target: logout requested", "target: negotiation requested"][what as usize]
    }

    /// Tasks that are still in an engine.
    pub(crate) fn open_tasks(&self) -> usize {
        self.sessions.iter().map(|s| s.engine.open_tasks()).sum()
    }
}

impl Session {
    fn step(&mut self, now: Instant, notes: &mut Vec<String>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut busy = false;
        loop {
            let mut idle = true;
            while let Some((id, event)) = self.conns.poll_event(now) {
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
                idle = false;
            }
            while self.disk.poll(&mut cx, now, &mut self.engine).is_ready() {
                idle = false;
            }
            while let Some(action) = self.engine.poll_action() {
                self.conns.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.engine.poll_event() {
                notes.push(format!("session {}: {event:?}", self.tsih.0));
                if let TargetEvent::Ended(_) = event {
                    self.ended = true;
                    self.until = Some(now + Duration::from_secs(2));
                }
                idle = false;
            }
            if idle {
                break;
            }
            busy = true;
        }
        self.conns.flush(now);
        busy
    }

    fn is_over(&self, now: Instant) -> bool {
        self.ended && (self.conns.0.is_empty() || self.until.is_some_and(|at| at <= now))
    }
}
