//! The target's side; [`super::connect`] mirrors it.

use super::turn::{Turn, apply_offer, flush, give_back, now, turn};
use super::{LoggedIn, LoginError, conn_keys};
use async_trait::async_trait;
use datamover::{LoginLink, Resources, Role};
use iscsi_login::auth::{ChapAccount, SecretRequest};
use iscsi_login::{AccessDecision, AccessRequest, LoginOutput, TargetLogin, TargetLoginConfig};
use iscsi_pdu::Tsih;
use std::sync::Arc;

/// What a target decides in a login. At connection rate, hence async: lookups may be remote.
#[async_trait]
pub trait LoginPolicy: Send + Sync {
    /// May this initiator have this target, and how must it authenticate?
    async fn access(&self, request: &AccessRequest) -> AccessDecision;

    /// The CHAP account of a name, `None` if there is none.
    async fn account(&self, request: &SecretRequest) -> Option<ChapAccount>;

    /// The TSIH: of the session that the login joins, or a new one; `None` when there are no resources. Called once,
    /// after authentication.
    fn tsih(&self, request: &AccessRequest) -> Option<Tsih>;

    /// The login failed after [`tsih`](Self::tsih) had given a new one.
    fn release(&self, tsih: Tsih);
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
    let mut new_tsih = None;
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
                    let tsih = request.as_ref().filter(|_| allocated).and_then(|r| policy.tsih(r));
                    if request.as_ref().is_some_and(|r| r.tsih == Tsih::NEW) {
                        new_tsih = tsih;
                    }
                    machine.handle_resources(tsih);
                }
                LoginOutput::Deallocate => {
                    allocated = false;
                    link.deallocate_connection_resources();
                }
                LoginOutput::Enable { negotiated, final_response } => {
                    // What was noticed before may have been what was offered, not what was agreed.
                    link.notice_key_values(&conn_keys(Role::Target, &negotiated.session, &negotiated.conn));
                    let datamover = link.enable_datamover(final_response);
                    return Ok(LoggedIn { datamover, negotiated: *negotiated });
                }
                LoginOutput::Failed(failure) => {
                    give_back(&mut *link, allocated);
                    flush(&mut *link).await;
                    return Err(fail(policy, new_tsih, LoginError::Refused(failure)));
                }
                // Only initiators are redirected; the enum of both roles grows without breaking this one.
                _ => (),
            }
        }
        match turn(&mut *link, machine.poll_timeout()).await {
            Turn::Pdu(pdu) => machine.handle_pdu(now(), pdu),
            Turn::Failed(e) => {
                give_back(&mut *link, allocated);
                return Err(fail(policy, new_tsih, LoginError::Link(e)));
            }
            Turn::TimeOut(now) => machine.handle_timeout(now),
        }
    }
}

fn fail(policy: &dyn LoginPolicy, new_tsih: Option<Tsih>, error: LoginError) -> LoginError {
    if let Some(tsih) = new_tsih {
        policy.release(tsih);
    }
    error
}
