//! Login Responses of any kind: an initiator ends with success, a redirection or a failure, and never skips what it
//! insists on.
//!
//! Input: a byte that picks the policy, then PDUs of a byte of flags (T, C, CSG, NSG), a status, a length and text.
#![no_main]

use bytes::Bytes;
use iscsi_login::{auth::*, *};
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginResponse, Stage, StatSn, Tsih};
use libfuzzer_sys::fuzz_target;
use std::time::Instant;

fn credentials(name: &str) -> ChapCredentials {
    ChapCredentials::new(name, Secret::parse(&format!("the secret of {name}")).unwrap()).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let [policy, rest @ ..] = data else { return };
    let chap = |mutual: bool| {
        let target = mutual.then(|| credentials("storage"));
        Box::new(ChapInitiator::new(credentials("alice"), target, ChallengeKey::new([1; 32])).unwrap())
    };
    let auth = match policy & 3 {
        0 => InitiatorAuth::None,
        1 => InitiatorAuth::Chap(chap(false)),
        2 => InitiatorAuth::Chap(chap(true)),
        _ => InitiatorAuth::ChapOrNone(chap(false)),
    };
    let goal = if policy & 4 == 0 {
        SessionGoal::Normal("iqn.2001-04.com.example:disk".parse().unwrap())
    } else {
        SessionGoal::Discovery(None)
    };
    let mut config = InitiatorLoginConfig::new("iqn.2001-04.com.example:host".parse().unwrap(), goal, auth);
    config.preferences.rdma_extensions = if policy & 8 == 0 { RdmaPolicy::Never } else { RdmaPolicy::Allow };
    let start = LoginStart {
        isid: Isid::random([1, 2, 3], 4),
        cid: Cid(0),
        itt: Itt(1),
        cmd_sn: CmdSn(1),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    let now = Instant::now();
    let mut initiator = InitiatorLogin::new(config.into(), start.clone(), [0; 32], now);
    let mut input = rest;
    let mut stat_sn = StatSn(0);
    let mut ended = false;
    loop {
        let mut sent = 0;
        while let Some(output) = initiator.poll_output() {
            assert!(!ended, "an output after the last");
            match output {
                LoginOutput::Send(r) => {
                    sent += 1;
                    assert!(r.data.len() <= 8192 && !(r.transit && r.continue_text));
                }
                LoginOutput::Allocate(_) => initiator.handle_resources(true),
                LoginOutput::Enable { negotiated, .. } => {
                    ended = true;
                    let s = negotiated.session;
                    assert!(s.first_burst_length <= s.max_burst_length);
                    match (policy & 3, &negotiated.auth) {
                        (1, AuthIdentity::Chap { .. }) | (0 | 3, _) => {}
                        (2, AuthIdentity::Chap { target, .. }) => assert!(target.is_some()),
                        other => panic!("{other:?}"),
                    }
                }
                LoginOutput::Redirected(r) => {
                    ended = true;
                    assert!(!r.addresses.is_empty());
                }
                LoginOutput::Failed(_) => ended = true,
                _ => {}
            }
        }
        assert!(sent <= 1);
        assert_eq!(ended, initiator.is_over());
        let [flags, class, detail, len, more @ ..] = input else { break };
        let (text, next) = more.split_at((usize::from(*len) * 8).min(more.len()));
        input = next;
        initiator.handle_response(now, LoginResponse {
            transit: flags & 0x80 != 0,
            continue_text: flags & 0x40 != 0,
            csg: Stage(flags >> 2 & 3),
            nsg: Stage(flags & 3),
            isid: start.isid,
            tsih: Tsih(1),
            itt: start.itt,
            stat_sn,
            status_class: *class,
            status_detail: *detail,
            data: Bytes::copy_from_slice(text),
            ..Default::default()
        });
        stat_sn = stat_sn.next();
    }
});
