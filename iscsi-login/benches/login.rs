//! One full login exchange, both ends, without a transport.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginResponse, StatSn, Tsih};
use std::{hint::black_box, sync::Arc, time::Instant};

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

fn login(i: &Arc<InitiatorLoginConfig>, t: &Arc<TargetLoginConfig>, grant: &Grant, now: Instant) -> bool {
    let mut initiator = InitiatorLogin::new(i.clone(), start(), [1; 32], now);
    let mut target = TargetLogin::new(t.clone(), [2; 32], now);
    let mut enabled = false;
    while let Some(output) = initiator.poll_output() {
        match output {
            LoginOutput::Send(request) => {
                target.handle_request(now, request);
                if let Some(response) = drive(&mut target, grant) {
                    initiator.handle_response(now, response);
                }
            }
            LoginOutput::Allocate(_) => initiator.handle_resources(true),
            LoginOutput::Enable { .. } => enabled = true,
            _ => {}
        }
    }
    enabled
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

#[allow(clippy::disallowed_methods)] // a bench needs some instant to begin with
fn benches(c: &mut Criterion) {
    let now = Instant::now();
    let name = |n: &str| format!("iqn.2001-04.com.example:{n}").parse::<IscsiName>().unwrap();
    let config =
        |auth| Arc::new(InitiatorLoginConfig::new(name("host"), SessionGoal::Normal(name("disk")), auth));
    let target = Arc::new(TargetLoginConfig::default());
    let grant =
        |auth| Grant { portal_group_tag: Some(1), alias: None, auth, preferences: None, session: None };
    let (plain, open) = (config(InitiatorAuth::None), grant(TargetAuth::None));
    assert!(login(&plain, &target, &open, now));
    c.bench_function("login", |b| b.iter(|| login(black_box(&plain), &target, &open, now)));
    #[cfg(feature = "chap")]
    {
        let (mutual, strict) = (config(chap::initiator()), grant(chap::target()));
        assert!(login(&mutual, &target, &strict, now));
        c.bench_function("login, mutual CHAP", |b| {
            b.iter(|| login(black_box(&mutual), &target, &strict, now))
        });
    }
}

criterion_group!(all, benches);
criterion_main!(all);
