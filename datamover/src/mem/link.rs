//! The login phase of the in-memory connection.

use super::{MemDatamover, Msg, SharedWire, lock};
use crate::{
    AllocError, Budget, BufPool, Cause, ConnKeys, Datamover, Drive, LinkError, LoginLink, RdmaOffer,
    Resources, Role, TransportInfo,
};
use bytes::Bytes;
use iscsi_pdu::{LoginResponse, Pdu};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One end of an in-memory connection, in its login phase.
pub struct MemLink {
    role: Role,
    /// `None` once the datamover has taken it.
    wire: Option<SharedWire>,
    pool: Arc<dyn BufPool>,
    keys: ConnKeys,
    resources: Option<Resources>,
    received: VecDeque<Result<Pdu<Bytes>, LinkError>>,
    ended: bool,
}

impl MemLink {
    pub(super) fn new(role: Role, wire: SharedWire, pool: Arc<dyn BufPool>) -> Self {
        Self {
            role,
            wire: Some(wire),
            pool,
            keys: ConnKeys::default(),
            resources: None,
            received: VecDeque::new(),
            ended: false,
        }
    }

    /// What was noticed last, for tests of who notices what.
    #[must_use]
    pub fn noticed(&self) -> &ConnKeys {
        &self.keys
    }

    /// What is allocated, for the same.
    #[must_use]
    pub fn allocated(&self) -> Option<&Resources> {
        self.resources.as_ref()
    }

    fn fail(&mut self, error: LinkError) {
        if !self.ended {
            self.ended = true;
            self.received.push_back(Err(error));
        }
    }
}

impl Drive for MemLink {
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>> {
        let Some(shared) = self.wire.clone() else { return Poll::Pending };
        let mut wire = lock(&shared);
        let side = wire.side(self.role);
        side.waker = Some(cx.waker().clone());
        loop {
            if let Some(cause) = &side.ended {
                let error = match cause {
                    Cause::Transport(kind) => LinkError::Transport(*kind),
                    _ => LinkError::Closed,
                };
                self.fail(error);
                return Poll::Pending;
            }
            // A PDU of full feature phase stays in the inbox until the datamover is enabled, if it comes after the
            // end of the login; the login machine knows whether it does.
            match side.inbox.front() {
                Some(Msg::Login(_) | Msg::Bye) if !side.held => {}
                Some(Msg::Control { pdu, .. }) if self.role == Role::Target && !side.held => {
                    let opcode = pdu.opcode();
                    self.fail(LinkError::NotLogin(opcode));
                    return Poll::Pending;
                }
                _ => return Poll::Pending,
            }
            if budget.pdus == 0 {
                return Poll::Ready(Ok(()));
            }
            budget.pdus = budget.pdus.saturating_sub(1);
            match side.next() {
                Some(Msg::Login(pdu)) => self.received.push_back(Ok(pdu)),
                _ => side.end(Cause::PeerClosed),
            }
        }
    }
}

impl LoginLink for MemLink {
    fn role(&self) -> Role {
        self.role
    }

    fn transport(&self) -> TransportInfo {
        TransportInfo { name: "mem", detail: String::new(), local: None, peer: None }
    }

    fn rdma_offer(&self) -> RdmaOffer {
        RdmaOffer::Never
    }

    fn send_login(&mut self, pdu: Pdu<Bytes>) {
        if let Some(wire) = &self.wire {
            lock(wire).send(self.role.peer(), Msg::Login(pdu));
        }
    }

    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>> {
        self.received.pop_front()
    }

    fn is_flushed(&self) -> bool {
        true
    }

    // req: 5047-8.8-1, 5047-8.8-3
    fn notice_key_values(&mut self, keys: &ConnKeys) {
        self.keys = keys.clone();
    }

    // req: 5047-8.4-1, 5047-8.4-4, 5047-8.4-5
    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError> {
        self.resources.get_or_insert(*want);
        Ok(())
    }

    // req: 5047-8.5-1
    fn deallocate_connection_resources(&mut self) {
        self.resources = None;
    }

    // req: 5047-8.6-1, 5047-8.6-2, 5047-8.6-3
    fn enable_datamover(
        mut self: Box<Self>,
        final_response: Option<LoginResponse<Bytes>>,
    ) -> Box<dyn Datamover> {
        let rule = match (self.role, &final_response, &self.resources) {
            (_, _, None) => Some("Enable_Datamover without allocated resources (RFC 5047 section 8.6)"),
            (Role::Target, None, _) => Some("Enable_Datamover at a target takes the final Login Response"),
            (Role::Initiator, Some(_), _) => Some("a final Login Response is a target's"),
            _ => None,
        };
        if let Some(response) = final_response {
            self.send_login(response.into());
        }
        let resources = self.resources.unwrap_or_default();
        // `take`: the connection outlives this value.
        let wire = self.wire.take();
        let mut datamover =
            MemDatamover::new(self.role, wire, self.pool.clone(), std::mem::take(&mut self.keys), &resources);
        if let Some(rule) = rule {
            datamover.break_rule(rule);
        }
        Box::new(datamover)
    }
}

impl Drop for MemLink {
    fn drop(&mut self) {
        if let Some(wire) = &self.wire {
            let mut wire = lock(wire);
            wire.send(self.role.peer(), Msg::Bye);
            wire.side(self.role).end(Cause::Local);
        }
    }
}
