//! The hostile initiator.

use super::{Known, Link, NAME};
use crate::link::Wire;
use crate::log::Log;
use crate::net::{Pipe, SimStream};
use crate::plan::Plan;
use crate::rng::Rng;
use bytes::Bytes;
use datamover::Role;
use iscsi_login::{
    AuthIdentity, DigestPolicy, ExistingSession, InitiatorAuth, InitiatorLogin, InitiatorLoginConfig,
    IscsiName, LoginOutput, LoginStart, Negotiated, Preferences, RdmaPolicy, SessionGoal,
};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, Pdu, StatSn};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections that it makes in a run.
const CONNECTIONS: u32 = 12;
/// Connections at a time.
const AT_A_TIME: usize = 3;
/// PDUs that it sends on one.
const PDUS: u32 = 120;

enum Stage {
    Login(Box<InitiatorLogin>),
    Open(Known),
}

struct Conn {
    link: Link,
    pipe: Pipe,
    stage: Stage,
    /// When it does the next thing.
    next: Instant,
    left: u32,
}

/// An initiator that does what it likes.
pub(crate) struct Intruder {
    plan: Arc<Plan>,
    rng: Rng,
    conns: Vec<Conn>,
    /// Its last session, which further connections join.
    session: Option<Box<Negotiated>>,
    next_cid: u16,
    left: u32,
    next_connection: Instant,
}

impl fmt::Display for Intruder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("intruder")
    }
}

impl Intruder {
    pub(crate) fn new(plan: Arc<Plan>, rng: Rng, now: Instant) -> Self {
        Self {
            plan,
            rng,
            conns: Vec::new(),
            session: None,
            next_cid: 1,
            left: CONNECTIONS,
            next_connection: now,
        }
    }

    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        self.left > 0 && self.conns.len() < AT_A_TIME && self.next_connection <= now
    }

    /// No honest initiator is left to be disturbed.
    pub(crate) fn stop(&mut self) {
        self.left = 0;
        for conn in self.conns.drain(..) {
            if self.rng.coin() {
                conn.pipe.reset();
            }
        }
    }

    pub(crate) fn refused(&mut self, now: Instant) {
        self.next_connection = now + Duration::from_secs(1);
    }

    pub(crate) fn connect(&mut self, now: Instant, stream: SimStream, wire: &Wire) {
        let Some(pipe) = wire.pipe().cloned() else { return };
        self.left -= 1;
        self.next_connection = now + Duration::from_micros(self.rng.below(40_000));
        let name = |s: &str| IscsiName::new(s).expect("a name");
        let goal = SessionGoal::Normal(name("iqn.2026-01.org.example:disk"));
        let mut config = InitiatorLoginConfig::new(name(NAME), goal, InitiatorAuth::None);
        config.preferences = Preferences {
            header_digest: DigestPolicy::Never,
            data_digest: DigestPolicy::Never,
            rdma_extensions: RdmaPolicy::Never,
            max_connections: 4,
            error_recovery_level: self.plan.initiator.error_recovery_level,
            ..self.plan.initiator.clone()
        };
        // Joins its session, begins it anew, or begins another.
        let joined = self.session.as_ref().filter(|_| self.rng.coin());
        let session = joined.map(|n| ExistingSession {
            tsih: n.tsih,
            session: n.session,
            auth: AuthIdentity::None,
            exp_cmd_sn: CmdSn(0),
            max_cmd_sn: CmdSn(0),
        });
        // Joined now and then in the name of a connection that is there already.
        self.next_cid = if session.is_none() || self.rng.one_in(4) { 1 } else { self.next_cid + 1 };
        let qualifier = if session.is_some() { 0 } else { self.rng.below(2) as u16 };
        let isid = joined.map_or_else(|| Isid::random([0, 0, 9], qualifier), |n| n.isid);
        let start = LoginStart {
            isid,
            cid: Cid(self.next_cid),
            itt: Itt(self.rng.below(4) as u32),
            cmd_sn: CmdSn(self.rng.pick(&[0, 1, 0xffff_fff0])),
            exp_stat_sn: StatSn(0),
            session,
        };
        let machine = InitiatorLogin::new(Arc::new(config), start, [3; 32], now);
        let stage = Stage::Login(Box::new(machine));
        self.conns.push(Conn { link: Link::new(stream), pipe, stage, next: now, left: PDUS });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.conns.iter().flat_map(|c| {
            let own = match &c.stage {
                Stage::Login(machine) => machine.poll_timeout(),
                Stage::Open(_) => Some(c.next),
            };
            [own, c.pipe.next_arrival()]
        });
        let more = (self.left > 0 && self.conns.len() < AT_A_TIME).then_some(self.next_connection);
        conns.flatten().chain(more).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for conn in &mut self.conns {
            if let Stage::Login(machine) = &mut conn.stage
                && machine.poll_timeout().is_some_and(|at| at <= now)
            {
                machine.handle_timeout(now);
            }
        }
    }

    pub(crate) fn step(&mut self, now: Instant, log: &mut Log) -> bool {
        let mut busy = false;
        for mut conn in std::mem::take(&mut self.conns) {
            busy |= conn.link.turn();
            let goes_on = match &mut conn.stage {
                Stage::Login(_) => self.log_in(now, &mut conn),
                Stage::Open(_) => {
                    let acted = conn.act(now, &mut self.rng, log);
                    busy |= acted.is_some();
                    acted.unwrap_or(true)
                }
            };
            busy |= conn.link.turn();
            if goes_on && !conn.link.over {
                self.conns.push(conn);
            } else {
                log.tell(self, &"leaves a connection");
                busy = true;
            }
        }
        busy
    }

    fn log_in(&mut self, now: Instant, conn: &mut Conn) -> bool {
        let Stage::Login(machine) = &mut conn.stage else { return true };
        while let Some(frame) = conn.link.frame() {
            let Ok(pdu) = Pdu::<Bytes>::decode(frame) else { return false };
            machine.handle_pdu(now, pdu);
        }
        while let Some(output) = machine.poll_output() {
            match output {
                LoginOutput::Send(request) => {
                    conn.link.send(&request.into());
                    // Something else in the midst of it, sometimes.
                    if self.rng.one_in(12) {
                        let pdu = Known::new(Role::Initiator, 0, 0).forge(&mut self.rng);
                        conn.link.unsent.extend_from_slice(&pdu);
                    }
                }
                LoginOutput::Allocate(_) => machine.handle_resources(true),
                LoginOutput::Failed(_) => return false,
                LoginOutput::Enable { negotiated, .. } => {
                    let n = &negotiated;
                    let known = Known::new(Role::Initiator, n.exp_cmd_sn.0, n.next_stat_sn.0);
                    self.session = Some(negotiated);
                    conn.stage = Stage::Open(known);
                    return true;
                }
                _ => {}
            }
        }
        true
    }
}

impl Conn {
    /// The next thing, if it is time: `false` when that was the last.
    fn act(&mut self, now: Instant, rng: &mut Rng, log: &mut Log) -> Option<bool> {
        let Stage::Open(known) = &mut self.stage else { return None };
        self.link.listen(known);
        if self.next > now {
            return None;
        }
        self.next = now + Duration::from_nanos(1 + rng.below(4_000_000));
        log.mix(0x4057);
        if self.left == 0 || rng.one_in(100) {
            if rng.coin() {
                self.pipe.reset();
            }
            return Some(false);
        }
        if rng.one_in(150) {
            self.pipe.half_close(0);
        }
        // The other end takes no more than the pipe holds; what it does not take is not made either.
        for _ in 0..1 + rng.index(4) {
            if self.link.unsent.len() < 1 << 16 {
                let pdu = known.forge(rng);
                log.tell(&"intruder", &format_args!("{:02x?}", &pdu[..48]));
                self.link.unsent.extend_from_slice(&pdu);
                self.left = self.left.saturating_sub(1);
            }
        }
        Some(true)
    }
}
