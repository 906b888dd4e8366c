//! Logins at the target.

use super::Storage;
use crate::link::{Wire, drive};
use crate::log::Log;
use crate::plan::Plan;
use datamover::{LoginLink, Resources, Role};
use iscsi_login::{
    AccessDecision, AccessRequest, Denial, ExistingSession, Grant, LoginOutput, TargetAuth, TargetLogin,
    TargetLoginConfig,
};
use iscsi_pdu::Tsih;
use iscsi_session::login::conn_keys;
use std::sync::Arc;
use std::time::Instant;

/// A login under way.
pub(super) struct Login {
    machine: TargetLogin,
    link: Box<dyn LoginLink>,
    wire: Wire,
    /// The session that it joins.
    joins: Option<Tsih>,
    /// The new session's handle.
    tsih: Option<Tsih>,
    failed: bool,
}

impl Login {
    pub(super) fn new(plan: &Plan, now: Instant, link: Box<dyn LoginLink>, wire: Wire) -> Self {
        let config = TargetLoginConfig {
            preferences: plan.target.clone(),
            command_window: plan.window,
            ..TargetLoginConfig::default()
        };
        let machine = TargetLogin::new(Arc::new(config), [2; 32], now);
        Self { machine, link, wire, joins: None, tsih: None, failed: false }
    }

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
}

impl Storage {
    pub(super) fn step_logins(&mut self, now: Instant, log: &mut Log) -> bool {
        let mut busy = false;
        for mut login in std::mem::take(&mut self.logins) {
            drive(&mut *login.link, now);
            match login.link.poll_login() {
                Some(Ok(pdu)) => {
                    busy = true;
                    log.mix(0x1091);
                    login.machine.handle_pdu(now, pdu);
                }
                Some(Err(error)) => {
                    log.tell(&"target", &error);
                    self.give_up(login.tsih);
                    busy = true;
                    continue;
                }
                None => {}
            }
            if let Some(login) = self.outputs(now, login, log) {
                self.logins.push(login);
            } else {
                busy = true;
            }
        }
        busy
    }

    /// Carries a login's outputs out; the login goes on, or it is over.
    fn outputs(&mut self, now: Instant, mut login: Login, log: &mut Log) -> Option<Login> {
        while let Some(output) = login.machine.poll_output() {
            match output {
                LoginOutput::Send(response) => login.link.send_login(response.into()),
                LoginOutput::NeedAccess(request) => {
                    login.joins = (request.tsih != Tsih::NEW).then_some(request.tsih);
                    login.machine.handle_access(self.access(&request));
                }
                LoginOutput::NoticeKeys(keys) => {
                    login.link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                }
                LoginOutput::Allocate(keys) => {
                    login.link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                    let resources = Resources { commands: self.plan.window + 16, ..Resources::default() };
                    let granted = login.link.allocate_connection_resources(&resources).is_ok();
                    let tsih = match login.joins {
                        Some(tsih) => Some(tsih).filter(|_| granted),
                        None => {
                            login.tsih = if granted { self.registry.reserve() } else { None };
                            login.tsih
                        }
                    };
                    login.machine.handle_resources(tsih);
                }
                LoginOutput::Deallocate => login.link.deallocate_connection_resources(),
                LoginOutput::Enable { negotiated, final_response } => {
                    // What was noticed before may have been what was offered, not what was agreed.
                    let keys = conn_keys(Role::Target, &negotiated.session, &negotiated.conn);
                    login.link.notice_key_values(&keys);
                    let datamover = login.link.enable_datamover(final_response);
                    self.enable(now, datamover, negotiated, login.wire);
                    return None;
                }
                LoginOutput::Failed(failure) => {
                    log.tell(&"target", &failure);
                    login.failed = true;
                }
                _ => {}
            }
        }
        drive(&mut *login.link, now);
        if login.failed && login.link.is_flushed() {
            self.give_up(login.tsih);
            return None;
        }
        Some(login)
    }

    fn access(&self, request: &AccessRequest) -> AccessDecision {
        let mut session = None;
        if request.tsih != Tsih::NEW {
            let entry = self.registry.find(request.tsih, &request.initiator_name, request.isid);
            let engine = self.sessions.iter().find(|s| s.tsih == request.tsih).map(|s| &s.engine);
            let engine = engine.filter(|e| !e.is_ending());
            let (Some(entry), Some(engine)) = (entry, engine) else {
                return AccessDecision::Deny(Denial::SessionDoesNotExist);
            };
            let others = engine.connections().filter(|(_, cid)| *cid != request.cid).count();
            if others >= usize::from(entry.session.connection_room()) {
                return AccessDecision::Deny(Denial::TooManyConnections);
            }
            let (exp_cmd_sn, max_cmd_sn) = engine.window();
            session = Some(ExistingSession {
                tsih: request.tsih,
                session: entry.session,
                auth: entry.auth.clone(),
                exp_cmd_sn,
                max_cmd_sn,
            });
        }
        AccessDecision::Grant(Box::new(Grant {
            portal_group_tag: request.target_name.as_ref().map(|_| 1),
            alias: None,
            auth: TargetAuth::None,
            preferences: None,
            session,
        }))
    }

    fn give_up(&mut self, tsih: Option<Tsih>) {
        if let Some(tsih) = tsih {
            self.registry.release(tsih);
        }
    }
}
