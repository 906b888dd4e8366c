//! A login of both ends, without a transport.

use bytes::Bytes;
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginResponse, StatSn, Tsih};
use std::{sync::Arc, time::Instant};

/// Two configurations, to log in with again and again.
pub(crate) struct Exchange {
    initiator: Arc<InitiatorLoginConfig>,
    target: Arc<TargetLoginConfig>,
    grant: Grant,
    now: Instant,
}

impl Exchange {
    /// Without authentication: one exchange of operational keys.
    pub(crate) fn plain() -> Self {
        Self::with(InitiatorAuth::None, TargetAuth::None)
    }

    /// Both ends prove themselves.
    #[cfg(feature = "chap")]
    pub(crate) fn mutual_chap() -> Self {
        Self::with(chap::initiator(), chap::target())
    }

    #[allow(clippy::disallowed_methods)] // any instant will do
    fn with(initiator: InitiatorAuth, target: TargetAuth) -> Self {
        let name = |n: &str| format!("iqn.2001-04.com.example:{n}").parse::<IscsiName>().unwrap();
        let goal = SessionGoal::Normal(name("disk"));
        Self {
            initiator: Arc::new(InitiatorLoginConfig::new(name("host"), goal, initiator)),
            target: Arc::new(TargetLoginConfig::default()),
            grant: Grant {
                portal_group_tag: Some(1),
                alias: None,
                auth: target,
                preferences: None,
                session: None,
            },
            now: Instant::now(),
        }
    }

    /// One login from the first request to full feature phase at both ends.
    ///
    /// # Panics
    /// If it does not succeed.
    pub(crate) fn run(&self) {
        let mut initiator = InitiatorLogin::new(self.initiator.clone(), start(), [1; 32], self.now);
        let mut target = TargetLogin::new(self.target.clone(), [2; 32], self.now);
        let mut enabled = false;
        while let Some(output) = initiator.poll_output() {
            match output {
                LoginOutput::Send(request) => {
                    target.handle_request(self.now, request);
                    if let Some(response) = drive(&mut target, &self.grant) {
                        initiator.handle_response(self.now, response);
                    }
                }
                LoginOutput::Allocate(_) => initiator.handle_resources(true),
                LoginOutput::Enable { .. } => enabled = true,
                _ => {}
            }
        }
        assert!(enabled, "the login succeeds");
    }
}

fn start() -> LoginStart {
    LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(0),
        itt: Itt(1),
        cmd_sn: CmdSn(1),
        exp_stat_sn: StatSn(0),
        session: None,
    }
}

/// What a target's caller does; the response to send, if there is one.
fn drive(target: &mut TargetLogin, grant: &Grant) -> Option<LoginResponse<Bytes>> {
    let mut response = None;
    while let Some(output) = target.poll_output() {
        match output {
            LoginOutput::Send(r) => response = Some(r),
            LoginOutput::NeedAccess(_) => {
                target.handle_access(AccessDecision::Grant(Box::new(grant.clone())));
            }
            #[cfg(feature = "chap")]
            LoginOutput::NeedSecret(_) => target.handle_secret(chap::account()),
            LoginOutput::Allocate(_) => target.handle_resources(Some(Tsih(1))),
            LoginOutput::Enable { final_response, .. } => response = final_response,
            _ => {}
        }
    }
    response
}

#[cfg(feature = "chap")]
mod chap {
    use iscsi_login::auth::*;

    fn credentials(name: &str) -> ChapCredentials {
        ChapCredentials::new(name, Secret::parse(&format!("the secret of {name}")).unwrap()).unwrap()
    }

    pub(super) fn account() -> Option<ChapAccount> {
        ChapAccount::new(credentials("alice"), None, Some(credentials("storage"))).ok()
    }

    pub(super) fn initiator() -> InitiatorAuth {
        let target = Some(credentials("storage"));
        let chap = ChapInitiator::new(credentials("alice"), target, ChallengeKey::new([1; 32]));
        InitiatorAuth::Chap(Box::new(chap.unwrap()))
    }

    pub(super) fn target() -> TargetAuth {
        TargetAuth::Chap(Box::new(ChapTarget::new(ChallengeKey::new([2; 32]))))
    }
}
