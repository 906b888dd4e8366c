//! Login Requests of any kind: a target answers each once, stays within bounds, and agrees on nothing impossible.
//!
//! Input: a byte that picks the policy, then PDUs of a byte of flags (T, C, CSG, NSG), a length and text.
#![no_main]

use bytes::Bytes;
use iscsi_login::{auth::*, *};
use iscsi_pdu::{CmdSn, LoginRequest, Stage, Tsih};
use libfuzzer_sys::fuzz_target;
use std::time::Instant;

fn credentials(name: &str) -> ChapCredentials {
    ChapCredentials::new(name, Secret::parse(&format!("the secret of {name}")).unwrap()).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let [policy, rest @ ..] = data else { return };
    let chap = || Box::new(ChapTarget::new(ChallengeKey::new([1; 32])));
    let auth = match policy & 3 {
        0 => TargetAuth::None,
        1 => TargetAuth::Chap(chap()),
        _ => TargetAuth::ChapOrNone(chap()),
    };
    let rdma_extensions = match policy >> 2 & 3 {
        0 => RdmaPolicy::Never,
        1 => RdmaPolicy::Require,
        _ => RdmaPolicy::Allow,
    };
    let joins = policy & 0x10 != 0;
    let session = joins.then(|| ExistingSession {
        tsih: Tsih(1),
        session: SessionParams::default(),
        auth: AuthIdentity::None,
        exp_cmd_sn: CmdSn(0),
        max_cmd_sn: CmdSn(9),
    });
    let mut config = TargetLoginConfig::default();
    config.preferences.rdma_extensions = rdma_extensions;
    let now = Instant::now();
    let mut target = TargetLogin::new(config.into(), [0; 32], now);
    let mut input = rest;
    while let [flags, len, more @ ..] = input {
        let (text, next) = more.split_at((usize::from(*len) * 8).min(more.len()));
        input = next;
        let request = LoginRequest {
            transit: flags & 0x80 != 0,
            continue_text: flags & 0x40 != 0,
            csg: Stage(flags >> 2 & 3),
            nsg: Stage(flags & 3),
            tsih: Tsih(u16::from(joins)),
            data: Bytes::copy_from_slice(text),
            ..Default::default()
        };
        let (was_over, asked) = (target.is_over(), request.transit);
        target.handle_request(now, request);
        let (mut sent, mut ended) = (0, false);
        while let Some(output) = target.poll_output() {
            let response = match output {
                LoginOutput::Send(response) => Some(response),
                LoginOutput::Enable { negotiated, final_response } => {
                    ended = true;
                    let s = negotiated.session;
                    assert!(s.first_burst_length <= s.max_burst_length);
                    assert!(s.error_recovery_level == 0 || !s.data_sequence_in_order || s.max_outstanding_r2t == 1);
                    assert!(!matches!(policy & 3, 1) || negotiated.auth.is_authenticated());
                    assert!(negotiated.conn.max_send_data_segment_length >= 512);
                    final_response
                }
                LoginOutput::NeedAccess(_) => {
                    target.handle_access(AccessDecision::Grant(Box::new(Grant {
                        portal_group_tag: Some(1),
                        alias: None,
                        auth: auth.clone(),
                        preferences: None,
                        session: session.clone(),
                    })));
                    None
                }
                LoginOutput::NeedSecret(_) => {
                    let account = ChapAccount::new(credentials("alice"), None, Some(credentials("storage")));
                    target.handle_secret(account.ok());
                    None
                }
                LoginOutput::Allocate(_) => {
                    target.handle_resources(Some(Tsih(1)));
                    None
                }
                LoginOutput::Failed(failure) => {
                    assert!(!failure.to_string().is_empty());
                    ended = true;
                    None
                }
                _ => None,
            };
            if let Some(r) = response {
                sent += 1;
                assert!(r.data.len() <= 8192 && !(r.transit && (r.continue_text || !asked)));
            }
        }
        assert_eq!(sent, usize::from(!was_over));
        assert_eq!(ended, target.is_over() && !was_over);
    }
});
