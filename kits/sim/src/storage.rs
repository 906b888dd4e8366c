//! The target: sessions, reinstatement, crashes.

mod login;
mod session;

use crate::disk::Disk;
use crate::hostile;
use crate::link::{Conn, Wire};
use crate::log::Log;
use crate::medium::SharedMedium;
use crate::plan::Plan;
use crate::rng::Rng;
use datamover::{Datamover, LoginLink, Role};
use iscsi_login::{AuthIdentity, Negotiated};
use iscsi_pdu::Tsih;
use iscsi_session::ConnSetup;
use iscsi_session::registry::{Entry, SessionKey, SessionRegistry};
use iscsi_session::target::{TargetConfig, TargetSession};
use login::Login;
use session::Session;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions at a time: each initiator's, and those that it reinstates.
const SESSIONS: usize = 100;

/// A connection whose session cannot begin before the one that it reinstates has ended.
struct Waiting {
    after: Tsih,
    datamover: Box<dyn Datamover>,
    negotiated: Box<Negotiated>,
    wire: Wire,
}

/// The target.
pub(crate) struct Storage {
    plan: Arc<Plan>,
    rng: Rng,
    medium: SharedMedium,
    registry: SessionRegistry<()>,
    logins: Vec<Login>,
    waiting: Vec<Waiting>,
    sessions: Vec<Session>,
    /// After a crash: when it is back.
    down_until: Option<Instant>,
}

impl Storage {
    pub(crate) fn new(plan: Arc<Plan>, rng: Rng, medium: SharedMedium) -> Self {
        Self {
            plan,
            rng,
            medium,
            registry: SessionRegistry::new(SESSIONS),
            logins: Vec::new(),
            waiting: Vec::new(),
            sessions: Vec::new(),
            down_until: None,
        }
    }

    /// Whether it takes connections.
    pub(crate) fn is_up(&self, now: Instant) -> bool {
        self.down_until.is_none_or(|until| until <= now)
    }

    pub(crate) fn accept(&mut self, now: Instant, link: Box<dyn LoginLink>, wire: Wire) {
        self.logins.push(Login::new(&self.plan, now, link, wire));
    }

    /// Sessions that are there.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len() + self.logins.len() + self.waiting.len()
    }

    /// Everything but the medium is gone, and what of it was not flushed.
    pub(crate) fn crash(&mut self, now: Instant, down_for: Duration) {
        self.logins.clear();
        self.waiting.clear();
        self.sessions.clear();
        self.registry = SessionRegistry::new(SESSIONS);
        self.medium.lock().crash(&mut self.rng);
        self.down_until = Some(now + down_for);
    }

    /// Does what can be done now; `true` when there was something.
    pub(crate) fn step(&mut self, now: Instant, log: &mut Log) -> bool {
        let mut busy = self.step_logins(now, log);
        for session in &mut self.sessions {
            busy |= session.step(now, log);
        }
        while let Some(index) = self.sessions.iter().position(|s| s.is_over(now)) {
            busy = true;
            let tsih = self.sessions.remove(index).tsih;
            self.registry.remove(tsih);
            while let Some(index) = self.waiting.iter().position(|w| w.after == tsih) {
                let Waiting { datamover, negotiated, wire, .. } = self.waiting.remove(index);
                self.begin(now, datamover, &negotiated, wire);
            }
        }
        busy
    }

    /// A login has ended in full feature phase.
    fn enable(
        &mut self,
        now: Instant,
        datamover: Box<dyn Datamover>,
        negotiated: Box<Negotiated>,
        wire: Wire,
    ) {
        if !negotiated.leading {
            // Its session may have ended meanwhile; then the connection goes too.
            match self.sessions.iter_mut().find(|s| s.tsih == negotiated.tsih) {
                Some(session) => session.join(now, datamover, &negotiated, wire),
                None => wire.cut(),
            }
            return;
        }
        let entry = Entry {
            key: SessionKey::new(&negotiated, None),
            session: negotiated.session,
            auth: AuthIdentity::None,
            handle: (),
        };
        let Some((old, _)) = self.registry.insert(negotiated.tsih, entry) else {
            return self.begin(now, datamover, &negotiated, wire);
        };
        if let Some(session) = self.sessions.iter_mut().find(|s| s.tsih == old) {
            session.engine.reinstate(now);
            self.waiting.push(Waiting { after: old, datamover, negotiated, wire });
            return;
        }
        // The old one was still waiting for its own predecessor: it never begins.
        let after = self.waiting.iter().position(|w| w.negotiated.tsih == old);
        match after.map(|index| self.waiting.remove(index).after) {
            Some(after) => self.waiting.push(Waiting { after, datamover, negotiated, wire }),
            None => self.begin(now, datamover, &negotiated, wire),
        }
    }

    fn begin(&mut self, now: Instant, datamover: Box<dyn Datamover>, negotiated: &Negotiated, wire: Wire) {
        let cfg = TargetConfig { abort_timeout: Duration::from_secs(600), ..TargetConfig::default() };
        let mut engine = TargetSession::new(cfg, negotiated, now);
        let id =
            engine.add_connection(now, ConnSetup::new(Role::Target, negotiated, datamover.pool().clone()));
        let disk = Disk::new(self.medium.clone(), self.plan.clone(), self.rng.fork(), now);
        let disk =
            if negotiated.initiator_name.as_str() == hostile::NAME { disk.for_hostile() } else { disk };
        let conn = Conn::new(id, datamover, wire, false);
        self.sessions.push(Session::new(negotiated, engine, disk, conn));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let logins = self.logins.iter().map(Login::poll_timeout);
        let sessions = self.sessions.iter().map(Session::poll_timeout);
        let waiting = self.waiting.iter().map(|w| w.wire.next_arrival());
        logins.chain(sessions).chain(waiting).flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.logins.iter_mut().for_each(|l| l.handle_timeout(now));
        self.sessions.iter_mut().for_each(|s| s.handle_timeout(now));
    }

    /// The target ends all sessions.
    pub(crate) fn shutdown(&mut self, now: Instant) {
        self.sessions.iter_mut().for_each(|s| s.engine.shutdown(now));
    }

    /// The target asks for a logout or a negotiation on every connection.
    pub(crate) fn request(&mut self, now: Instant, logout: bool) {
        for session in &mut self.sessions {
            let open: Vec<_> = session.engine.connections().map(|(id, _)| id).collect();
            for id in open {
                if logout {
                    session.engine.request_logout(now, id, Duration::from_secs(3));
                } else {
                    session.engine.request_negotiation(now, id, Duration::from_secs(3));
                }
            }
        }
    }

    /// Tasks that are still in an engine.
    pub(crate) fn open_tasks(&self) -> usize {
        self.sessions.iter().map(|s| s.engine.open_tasks()).sum()
    }
}
