//! The target's side; [`super::connect`] mirrors it.

use super::turn::{Turn, apply_offer, flush, give_back, now, turn};
use super::{LoggedIn, LoginError, conn_keys};
use async_trait::async_trait;
use datamover::{LinkError, LoginLink, Resources, Role};
use iscsi_login::auth::{ChapAccount, SecretRequest};
use iscsi_login::{AccessDecision, AccessRequest, Denial, LoginOutput, Rule, TargetLogin, TargetLoginConfig};
use iscsi_pdu::Tsih;
use std::sync::Arc;

/// What a target decides in a login. At connection rate, hence async: lookups may be remote.
#[async_trait]
pub trait LoginPolicy: Send + Sync {
    /// May this initiator have this target, and how must it authenticate?
    async fn access(&self, request: &AccessRequest) -> AccessDecision;

    /// The CHAP account of a name, `None` if there is none.
    async fn account(&self, request: &SecretRequest) -> Option<ChapAccount>;

    /// The TSIH: of the session that the login joins, or a new one. Called once, when all else is settled; from here on
    /// the session, or its connection, counts as there.
    ///
    /// # Errors
    /// Why there is none after all: no resources, or the session that was to be joined has meanwhile ended or got as
    /// many connections as it may have.
    fn tsih(&self, request: &AccessRequest) -> Result<Tsih, Denial>;

    /// The login failed, or was given up, after [`tsih`](Self::tsih) had been successful.
    fn release(&self, request: &AccessRequest, tsih: Tsih);
}

/// Takes a fresh connection through its login. `seed`: 32 bytes of a cryptographic random source.
///
/// # Errors
/// [`LoginError`]; the last response, which names the reason to the initiator, has been sent.
pub async fn accept(
    mut link: Box<dyn LoginLink>,
    mut config: TargetLoginConfig,
    resources: Resources,
    seed: [u8; 32],
    policy: &dyn LoginPolicy,
) -> Result<LoggedIn, LoginError> {
    apply_offer(&mut config.preferences, &*link);
    let mut machine = TargetLogin::new(Arc::new(config), seed, now());
    let mut request = None;
    let mut reserved = None;
    let mut allocated = false;
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                LoginOutput::Send(response) => link.send_login(response.into()),
                LoginOutput::NeedAccess(asked) => {
                    let mut decision = policy.access(&asked).await;
                    if let AccessDecision::Grant(grant) = &mut decision
                        && let Some(preferences) = &mut grant.preferences
                    {
                        apply_offer(preferences, &*link);
                    }
                    request = Some(asked);
                    machine.handle_access(decision);
                }
                LoginOutput::NeedSecret(asked) => machine.handle_secret(policy.account(&asked).await),
                LoginOutput::NoticeKeys(keys) => {
                    link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                }
                LoginOutput::Allocate(keys) => {
                    link.notice_key_values(&conn_keys(Role::Target, &keys.session, &keys.conn));
                    allocated = link.allocate_connection_resources(&resources).is_ok();
                    match request.take().filter(|_| allocated).map(|r| Reserved::new(policy, *r)) {
                        Some(Ok(new)) => machine.handle_resources(Some(reserved.insert(new).tsih)),
                        Some(Err(denial)) => machine.handle_refusal(denial),
                        None => machine.handle_resources(None),
                    }
                }
                LoginOutput::Deallocate => {
                    allocated = false;
                    link.deallocate_connection_resources();
                }
                LoginOutput::Enable { negotiated, final_response } => {
                    // What was noticed before may have been what was offered, not what was agreed.
                    link.notice_key_values(&conn_keys(Role::Target, &negotiated.session, &negotiated.conn));
                    let datamover = link.enable_datamover(final_response);
                    reserved.take().into_iter().for_each(Reserved::keep);
                    return Ok(LoggedIn { datamover, negotiated: *negotiated });
                }
                LoginOutput::Failed(failure) => {
                    give_back(&mut *link, allocated);
                    flush(&mut *link).await;
                    return Err(LoginError::Refused(failure));
                }
                // Only initiators are redirected; the enum of both roles grows without breaking this one.
                _ => (),
            }
        }
        match turn(&mut *link, machine.poll_timeout()).await {
            Turn::Pdu(pdu) => machine.handle_pdu(now(), pdu),
            // The machine knows whether there is an answer to it.
            Turn::Failed(LinkError::NotLogin(opcode)) => machine.handle_invalid(Rule::NotLogin(opcode)),
            Turn::Failed(LinkError::Format(_) | LinkError::Protocol(_)) => {
                machine.handle_invalid(Rule::Malformed);
            }
            Turn::Failed(e) => {
                give_back(&mut *link, allocated);
                return Err(LoginError::Link(e));
            }
            Turn::TimeOut(now) => machine.handle_timeout(now),
        }
    }
}

/// What a policy gave, to be taken back when the login fails or its future is dropped.
struct Reserved<'a> {
    policy: &'a dyn LoginPolicy,
    request: AccessRequest,
    tsih: Tsih,
    kept: bool,
}

impl<'a> Reserved<'a> {
    fn new(policy: &'a dyn LoginPolicy, request: AccessRequest) -> Result<Self, Denial> {
        let tsih = policy.tsih(&request)?;
        Ok(Self { policy, request, tsih, kept: false })
    }

    /// The login has succeeded.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.policy.release(&self.request, self.tsih);
        }
    }
}
