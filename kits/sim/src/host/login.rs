//! Logins of an initiator: the leading one, and those of further connections of the session.

use super::{Host, InitiatorEnd, State, Up};
use crate::link::{Conn, Conns, Wire, drive};
use crate::log::Log;
use crate::plan::{Configuration, Transport};
use datamover::{Datamover, LoginLink, Resources, Role};
use iscsi_login::{
    AuthIdentity, ExistingSession, InitiatorAuth, InitiatorLogin, InitiatorLoginConfig, IscsiName,
    LoginOutput, LoginStart, Negotiated, SessionGoal,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, StatSn};
use iscsi_session::ConnSetup;
use iscsi_session::initiator::{InitiatorConfig, InitiatorSession};
use iscsi_session::login::conn_keys;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After a login that failed.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) struct Login {
    machine: InitiatorLogin,
    link: Box<dyn LoginLink>,
    wire: Wire,
    window: u32,
}

/// How a step of a login went.
enum Turn {
    Idle,
    Busy,
    Over(Box<dyn Datamover>, Box<Negotiated>),
    /// Why, and whether the target may say otherwise later.
    Failed(String, bool),
}

impl Login {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let times = [self.machine.poll_timeout(), self.link.poll_timeout(), self.wire.next_arrival()];
        times.into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
    }

    fn step(mut self: Box<Self>, now: Instant) -> (Option<Box<Self>>, Turn) {
        let mut turn = Turn::Idle;
        loop {
            drive(&mut *self.link, now);
            while let Some(output) = self.machine.poll_output() {
                turn = Turn::Busy;
                match output {
                    LoginOutput::Send(request) => self.link.send_login(request.into()),
                    LoginOutput::NoticeKeys(keys) => {
                        self.link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                    }
                    LoginOutput::Allocate(keys) => {
                        self.link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                        let resources = Resources { commands: self.window + 16, ..Resources::default() };
                        let granted = self.link.allocate_connection_resources(&resources).is_ok();
                        self.machine.handle_resources(granted);
                    }
                    LoginOutput::Deallocate => self.link.deallocate_connection_resources(),
                    LoginOutput::Enable { negotiated, .. } => {
                        let keys = conn_keys(Role::Initiator, &negotiated.session, &negotiated.conn);
                        self.link.notice_key_values(&keys);
                        return (None, Turn::Over(self.link.enable_datamover(None), negotiated));
                    }
                    LoginOutput::Failed(failure) => {
                        return (None, Turn::Failed(failure.to_string(), failure.may_retry()));
                    }
                    _ => {}
                }
            }
            match self.link.poll_login() {
                Some(Ok(pdu)) => self.machine.handle_pdu(now, pdu),
                Some(Err(e)) => return (None, Turn::Failed(e.to_string(), true)),
                None => return (Some(self), turn),
            }
        }
    }
}

impl Up {
    /// Whether the session may have a connection that it has not: a further one, or one for which it waits. Without
    /// either it is over, though what is left of its connections may still be on the way out.
    pub(super) fn wants_login(&self) -> bool {
        let open = self.engine.connections().count();
        !self.logging_out
            && self.logins.is_empty()
            && open < usize::from(self.params.max_connections)
            && (open > 0 || self.needed.is_some())
    }
}

impl Host {
    /// Whether it wants a connection.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        match &self.state {
            State::Down { until } => *until <= now,
            State::Up(up) => up.wants_login() && up.next_login <= now,
            _ => false,
        }
    }

    /// Nobody is there to connect to.
    pub(crate) fn refused(&mut self, now: Instant) {
        match &mut self.state {
            State::Up(up) => up.next_login = now + AGAIN,
            _ => self.down(now, Duration::from_secs(1)),
        }
    }

    /// Whether the session that it is about to begin is to be with a hostile target.
    pub(crate) fn meets_impostor(&mut self) -> bool {
        if !matches!(self.state, State::Down { .. }) {
            return false;
        }
        self.deceived = self.impostors > 0;
        self.impostors -= u32::from(self.deceived);
        self.deceived
    }

    /// Here is a connection.
    pub(crate) fn connect(&mut self, now: Instant, (link, wire): InitiatorEnd) {
        self.wires.push(wire.clone());
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
        let window = self.plan.window;
        let login = |start| {
            let machine = InitiatorLogin::new(Arc::new(config), start, [1; 32], now);
            Login { machine, link, wire, window }
        };
        if let State::Up(up) = &mut self.state {
            let cid = up.needed.unwrap_or(Cid(up.next_cid));
            if up.needed.is_none() {
                up.next_cid = up.next_cid.wrapping_add(1);
            }
            let session = ExistingSession {
                tsih: up.tsih,
                session: up.params,
                auth: AuthIdentity::None,
                exp_cmd_sn: CmdSn(0),
                max_cmd_sn: CmdSn(0),
            };
            let start = LoginStart { cid, cmd_sn: up.cmd_sn(), session: Some(session), ..start };
            up.logins.push(login(start));
        } else {
            self.state = State::Login(Box::new(login(start)));
        }
    }

    pub(super) fn step_login(&mut self, now: Instant, login: Box<Login>, log: &mut Log) -> bool {
        let wire = login.wire.clone();
        let (login, turn) = login.step(now);
        match turn {
            Turn::Idle | Turn::Busy => {
                let busy = matches!(turn, Turn::Busy);
                self.state = login.map_or(State::Done, State::Login);
                busy
            }
            Turn::Failed(why, _) => {
                log.tell(self, &why);
                self.down(now, AGAIN);
                true
            }
            Turn::Over(datamover, negotiated) => {
                self.tally.sessions += 1;
                let mut engine = InitiatorSession::new(InitiatorConfig::default(), &negotiated, now);
                let conn = self.conn(now, &mut engine, datamover, &negotiated, wire);
                self.state = State::Up(Box::new(Up {
                    engine,
                    conns: Conns(vec![conn]),
                    tsih: negotiated.tsih,
                    params: negotiated.session,
                    logins: Vec::new(),
                    next_login: now,
                    next_cid: 2,
                    needed: None,
                    ops: BTreeMap::new(),
                    functions: 0,
                    exchanges: 0,
                    logging_out: false,
                    waiting: false,
                }));
                true
            }
        }
    }

    fn conn(
        &mut self,
        now: Instant,
        engine: &mut InitiatorSession,
        datamover: Box<dyn Datamover>,
        negotiated: &Negotiated,
        wire: Wire,
    ) -> Conn {
        self.tally.connections += 1;
        let setup = ConnSetup::new(Role::Initiator, negotiated, datamover.pool().clone());
        self.agreed.get_or_insert(Configuration {
            transport: self.plan.transport,
            level: negotiated.session.error_recovery_level,
            header_digest: setup.keys.header_digest,
            data_digest: setup.keys.data_digest,
            connections: negotiated.session.max_connections,
        });
        let digests = setup.keys.header_digest && setup.keys.data_digest;
        let protected = digests || self.plan.transport == Transport::IserIwarp;
        let id = engine.add_connection(now, setup);
        Conn::new(id, datamover, wire, protected)
    }

    pub(super) fn step_further_logins(&mut self, now: Instant, up: &mut Up, log: &mut Log) -> bool {
        let mut busy = false;
        for login in std::mem::take(&mut up.logins) {
            let wire = login.wire.clone();
            let (login, turn) = Box::new(login).step(now);
            up.logins.extend(login.map(|l| *l));
            match turn {
                Turn::Idle => continue,
                Turn::Busy => {}
                Turn::Failed(why, again) => {
                    log.tell(self, &why);
                    up.next_login = now + AGAIN;
                    if !again && up.needed.take().is_some() {
                        up.engine.give_up(now);
                    }
                }
                Turn::Over(datamover, negotiated) => {
                    let conn = self.conn(now, &mut up.engine, datamover, &negotiated, wire);
                    up.conns.0.push(conn);
                    up.needed = None;
                }
            }
            busy = true;
        }
        busy
    }
}
