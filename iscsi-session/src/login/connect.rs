//! The initiator's side; [`super::accept`] mirrors it.

use super::turn::{Turn, apply_offer, flush, give_back, now, turn};
use super::{LoggedIn, LoginError, conn_keys};
use datamover::{LoginLink, Resources, Role};
use iscsi_login::{InitiatorLogin, InitiatorLoginConfig, LoginOutput, LoginStart};
use std::sync::Arc;

/// Takes a fresh connection through its login. `seed`: 32 bytes of a cryptographic random source.
///
/// # Errors
/// [`LoginError`], with the target's status where it gave one.
pub async fn connect(
    mut link: Box<dyn LoginLink>,
    mut config: InitiatorLoginConfig,
    start: LoginStart,
    resources: Resources,
    seed: [u8; 32],
) -> Result<LoggedIn, LoginError> {
    apply_offer(&mut config.preferences, &*link);
    let mut machine = InitiatorLogin::new(Arc::new(config), start, seed, now());
    let mut allocated = false;
    loop {
        while let Some(output) = machine.poll_output() {
            match output {
                LoginOutput::Send(request) => link.send_login(request.into()),
                LoginOutput::NoticeKeys(keys) => {
                    link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                }
                // req: 7145-5.1.1-1, 7145-10.1.3.1-2
                LoginOutput::Allocate(keys) => {
                    link.notice_key_values(&conn_keys(Role::Initiator, &keys.session, &keys.conn));
                    allocated = link.allocate_connection_resources(&resources).is_ok();
                    machine.handle_resources(allocated);
                }
                LoginOutput::Deallocate => {
                    allocated = false;
                    link.deallocate_connection_resources();
                }
                // req: 7145-5.1.1-8
                LoginOutput::Enable { negotiated, .. } => {
                    // What was noticed before may have been what was offered, not what was agreed.
                    link.notice_key_values(&conn_keys(
                        Role::Initiator,
                        &negotiated.session,
                        &negotiated.conn,
                    ));
                    let datamover = link.enable_datamover(None);
                    return Ok(LoggedIn { datamover, negotiated: *negotiated });
                }
                LoginOutput::Redirected(to) => {
                    give_back(&mut *link, allocated);
                    return Err(LoginError::Redirected(to));
                }
                LoginOutput::Failed(failure) => {
                    give_back(&mut *link, allocated);
                    flush(&mut *link).await;
                    return Err(LoginError::Refused(failure));
                }
                // Only targets are asked for access and secrets.
                _ => (),
            }
        }
        match turn(&mut *link, machine.poll_timeout()).await {
            Turn::Pdu(pdu) => machine.handle_pdu(now(), pdu),
            Turn::Failed(e) => {
                give_back(&mut *link, allocated);
                return Err(LoginError::Link(e));
            }
            Turn::TimeOut(now) => machine.handle_timeout(now),
        }
    }
}
