//! The hostile target: what an honest initiator meets where it expects its own.

use super::{Known, Link};
use crate::link::Wire;
use crate::log::Log;
use crate::net::{Pipe, SimStream};
use crate::plan::Plan;
use crate::rng::Rng;
use bytes::Bytes;
use datamover::Role;
use iscsi_login::{
    AccessDecision, DigestPolicy, Grant, LoginOutput, Preferences, RdmaPolicy, TargetAuth, TargetLogin,
    TargetLoginConfig,
};
use iscsi_pdu::{Pdu, Tsih};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// PDUs that it sends.
const PDUS: u32 = 80;

enum Stage {
    Login(Box<TargetLogin>),
    Open(Known),
}

/// One connection of a target that does what it likes.
pub(crate) struct Impostor {
    link: Link,
    pipe: Pipe,
    rng: Rng,
    stage: Stage,
    next: Instant,
    left: u32,
    over: bool,
}

impl Impostor {
    pub(crate) fn new(
        plan: &Plan,
        mut rng: Rng,
        now: Instant,
        stream: SimStream,
        wire: &Wire,
    ) -> Option<Self> {
        let preferences = Preferences {
            header_digest: DigestPolicy::Never,
            data_digest: DigestPolicy::Never,
            rdma_extensions: RdmaPolicy::Never,
            ..plan.target.clone()
        };
        let command_window = rng.pick(&[1, 4, 32]);
        let config = TargetLoginConfig { preferences, command_window, ..TargetLoginConfig::default() };
        let stage = Stage::Login(Box::new(TargetLogin::new(Arc::new(config), [4; 32], now)));
        let pipe = wire.pipe()?.clone();
        let left = rng.below(u64::from(PDUS)) as u32;
        Some(Self { link: Link::new(stream), pipe, rng, stage, next: now, left, over: false })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over || self.link.over
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let own = match &self.stage {
            Stage::Login(machine) => machine.poll_timeout(),
            Stage::Open(_) => Some(self.next),
        };
        [own, self.pipe.next_arrival()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Stage::Login(machine) = &mut self.stage
            && machine.poll_timeout().is_some_and(|at| at <= now)
        {
            machine.handle_timeout(now);
        }
    }

    pub(crate) fn step(&mut self, now: Instant, log: &mut Log) -> bool {
        let mut busy = self.link.turn();
        match &mut self.stage {
            Stage::Login(_) => self.log_in(now),
            Stage::Open(_) => busy |= self.act(now, log),
        }
        busy | self.link.turn() | self.is_over()
    }

    fn log_in(&mut self, now: Instant) {
        let Stage::Login(machine) = &mut self.stage else { return };
        while let Some(frame) = self.link.frame() {
            match Pdu::<Bytes>::decode(frame) {
                Ok(pdu) => machine.handle_pdu(now, pdu),
                Err(_) => self.over = true,
            }
        }
        while let Some(output) = machine.poll_output() {
            match output {
                LoginOutput::Send(response) => {
                    self.link.send(&response.into());
                    if self.rng.one_in(12) {
                        let pdu = Known::new(Role::Target, 0, 0).forge(&mut self.rng);
                        self.link.unsent.extend_from_slice(&pdu);
                    }
                }
                LoginOutput::NeedAccess(request) => {
                    machine.handle_access(AccessDecision::Grant(Box::new(Grant {
                        portal_group_tag: request.target_name.as_ref().map(|_| 1),
                        alias: None,
                        auth: TargetAuth::None,
                        preferences: None,
                        session: None,
                    })));
                }
                LoginOutput::Allocate(_) => machine.handle_resources(Some(Tsih(0x7a7a))),
                LoginOutput::Failed(_) => self.over = true,
                LoginOutput::Enable { negotiated, final_response } => {
                    if let Some(response) = final_response {
                        self.link.send(&response.into());
                    }
                    let n = &negotiated;
                    self.stage = Stage::Open(Known::new(Role::Target, n.next_stat_sn.0, n.exp_cmd_sn.0));
                    return;
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, now: Instant, log: &mut Log) -> bool {
        let Stage::Open(known) = &mut self.stage else { return false };
        self.link.listen(known);
        if self.next > now {
            return false;
        }
        self.next = now + Duration::from_nanos(1 + self.rng.below(8_000_000));
        log.mix(0x4058);
        if self.left == 0 {
            match self.rng.below(3) {
                0 => self.pipe.reset(),
                1 => self.pipe.half_close(1),
                _ => {}
            }
            self.over = true;
            return true;
        }
        for _ in 0..1 + self.rng.index(4) {
            if self.link.unsent.len() < 1 << 16 {
                let pdu = known.forge(&mut self.rng);
                log.tell(&"impostor", &format_args!("{:02x?}", &pdu[..48]));
                self.link.unsent.extend_from_slice(&pdu);
                self.left = self.left.saturating_sub(1);
            }
        }
        true
    }
}
