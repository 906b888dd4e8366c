//! What a login has to ask: room to log in at all, access to a target, a place in a session.

use crate::server::Shared;
use async_trait::async_trait;
use iscsi_login::auth::{ChapAccount, SecretRequest};
use iscsi_login::{AccessDecision, AccessRequest, Denial, ExistingSession, Preferences, SessionType};
use iscsi_pdu::Tsih;
use iscsi_session::driver::JoinRefusal;
use iscsi_session::login::LoginPolicy;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Logins under way at most: more connections wait to be accepted, so that a flood of them costs bounded memory.
const MAX_LOGINS: usize = 256;
/// Of them, from one address: an initiator that dawdles, or a host full of them, must not keep the others out.
const MAX_LOGINS_PER_ADDRESS: usize = 64;

/// Counts the logins under way.
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_LOGINS)), by_address: Arc::default() }
    }
}

/// Room for one login; of nobody yet.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

/// A login under way, counted until this is dropped.
pub(crate) struct Pass {
    _room: Room,
    address: Option<IpAddr>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Gate {
    /// Waits for room.
    pub(crate) async fn room(&self) -> Room {
        // It is never closed.
        self.all.clone().acquire_owned().await.ok()
    }

    /// Lets a peer in, unless its address has as many logins under way as it may have.
    pub(crate) fn enter(&self, room: Room, peer: Option<SocketAddr>) -> Option<Pass> {
        let address = peer.map(|p| p.ip().to_canonical());
        if let Some(address) = address {
            let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= MAX_LOGINS_PER_ADDRESS {
                tracing::debug!(%address, "connection refused: too many logins under way from its address");
                return None;
            }
            *count += 1;
        }
        Some(Pass { _room: room, address, by_address: self.by_address.clone() })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

/// One login, as it came to a portal.
pub(crate) struct Login<'a> {
    pub(crate) shared: &'a Shared,
    /// Target portal group tag of the portal.
    pub(crate) portal_group: u16,
    /// The address by which the initiator reached us.
    pub(crate) local: Option<SocketAddr>,
    /// What the portal would negotiate.
    pub(crate) preferences: Preferences,
}

#[async_trait]
impl LoginPolicy for Login<'_> {
    // req: 7143-6.3.1-2
    async fn access(&self, request: &AccessRequest) -> AccessDecision {
        let mut grant = match self.shared.nodes.access(request, self.portal_group, &self.preferences) {
            Ok(grant) => grant,
            Err(denial) => return AccessDecision::Deny(denial),
        };
        if let Some(redirect) = self.shared.nodes.redirect(request, self.local) {
            return redirect;
        }
        if request.tsih != Tsih::NEW {
            let registry = self.shared.registry();
            let Some(entry) = registry.find(request.tsih, &request.initiator_name, request.isid) else {
                return AccessDecision::Deny(Denial::SessionDoesNotExist);
            };
            if entry.key.target_name != request.target_name
                || entry.key.portal_group_tag != grant.portal_group_tag
                || request.session_type == SessionType::Discovery
            {
                return AccessDecision::Deny(Denial::CannotIncludeInSession);
            }
            let (exp_cmd_sn, max_cmd_sn) = entry.handle.window();
            grant.session = Some(ExistingSession {
                tsih: request.tsih,
                session: entry.session,
                auth: entry.auth.clone(),
                exp_cmd_sn,
                max_cmd_sn,
            });
        }
        AccessDecision::Grant(Box::new(grant))
    }

    async fn account(&self, request: &SecretRequest) -> Option<ChapAccount> {
        self.shared.nodes.account(request.session_type, request.target_name.as_ref(), &request.user)
    }

    // req: 7143-4.4.3-1
    fn tsih(&self, request: &AccessRequest) -> Result<Tsih, Denial> {
        let mut registry = self.shared.registry();
        if request.tsih == Tsih::NEW {
            return registry.reserve().ok_or(Denial::OutOfResources);
        }
        let entry = registry.find(request.tsih, &request.initiator_name, request.isid);
        let entry = entry.ok_or(Denial::SessionDoesNotExist)?;
        entry.handle.join(request.cid, entry.session.connection_room()).map_err(|refusal| match refusal {
            JoinRefusal::TooMany => Denial::TooManyConnections,
            JoinRefusal::Ending => Denial::SessionDoesNotExist,
        })?;
        Ok(request.tsih)
    }

    fn release(&self, request: &AccessRequest, tsih: Tsih) {
        let mut registry = self.shared.registry();
        if request.tsih == Tsih::NEW {
            registry.release(tsih);
        } else if let Some(entry) = registry.find(tsih, &request.initiator_name, request.isid) {
            entry.handle.withdraw(request.cid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // user need: one machine that opens connections and says nothing must not lock the others out
    #[tokio::test]
    async fn one_address_does_not_take_all_the_room() {
        let gate = Gate::default();
        let from = |n: u8, port| Some(SocketAddr::from(([192, 0, 2, n], port)));
        let mut slow = Vec::new();
        for port in 0..MAX_LOGINS_PER_ADDRESS as u16 {
            slow.push(gate.enter(gate.room().await, from(1, port)).unwrap());
        }
        assert!(gate.enter(gate.room().await, from(1, 9999)).is_none());
        // The same address in its other spelling.
        let mapped = SocketAddr::new("::ffff:192.0.2.1".parse().unwrap(), 1);
        assert!(gate.enter(gate.room().await, Some(mapped)).is_none());
        assert!(gate.enter(gate.room().await, from(2, 1)).is_some());
        assert_eq!(gate.all.available_permits(), MAX_LOGINS - slow.len(), "refusals keep no room");
        slow.pop();
        assert!(gate.enter(gate.room().await, from(1, 9999)).is_some());
        slow.clear();
        assert_eq!(gate.by_address.lock().unwrap().len(), 0);
    }
}
