//! Whole logins between our two ends: order of outputs, agreement, and what travels.

mod common;

use common::*;
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Stage, Tsih};
use proptest::prelude::*;

fn plain(i: InitiatorLoginConfig, t: TargetLoginConfig) -> Login {
    run(i, t, &mut Caller::new(grant(TargetAuth::None)))
}

fn with(preferences: Preferences) -> (InitiatorLoginConfig, TargetLoginConfig) {
    let i = InitiatorLoginConfig { preferences: preferences.clone(), ..normal(InitiatorAuth::None) };
    (i, TargetLoginConfig { preferences, ..TargetLoginConfig::default() })
}

/// RFC 7143 appendix B, last example: one exchange, operational parameters alone.
// req: 7143-4.2.4-3, 7143-4.2.7.1-4, 7143-6.3-2, 7143-6.3-4, 7143-6.3-6, 7143-6.3-8, 7143-6.3-16, 7143-6.3.3-1
// req: 7143-6.3.3-3, 7143-11.12-1, 7143-11.12-2, 7143-11.12.4-1, 7143-11.12.6-1, 7143-11.12.10-1, 7143-11.13.8-1
// req: 7143-13.4-1, 7143-13.5-1, 7143-6.3.1-1
// req: 7143-6.2-4
#[test]
fn one_exchange_without_security() {
    let login = plain(normal(InitiatorAuth::None), TargetLoginConfig::default());
    assert_eq!((login.requests.len(), login.responses.len()), (1, 1));
    let request = &login.requests[0];
    assert!(request.transit && !request.continue_text);
    assert_eq!((request.csg, request.nsg), (Stage::LoginOperationalNegotiation, Stage::FullFeaturePhase));
    assert_eq!((request.version_max, request.version_min, request.tsih), (0, 0, Tsih::NEW));
    let text = lines(&request.data);
    assert_eq!(
        text[..3],
        [format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"), "SessionType=Normal".into(),]
    );
    let response = &login.responses[0];
    assert!(response.transit);
    assert_eq!((response.csg, response.nsg), (Stage::LoginOperationalNegotiation, Stage::FullFeaturePhase));
    assert!(lines(&response.data).contains(&"TargetPortalGroupTag=1".into()));
    let (i, t) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
    assert_eq!((i.session, i.tsih, i.leading), (t.session, Tsih(7), true));
    assert_eq!((i.target_portal_group_tag, t.target_portal_group_tag), (Some(1), Some(1)));
    assert_eq!(i.next_stat_sn, t.next_stat_sn);
    // CmdSN of the login is that of the first command, and the window begins there.
    assert_eq!((i.cmd_sn, i.exp_cmd_sn, i.max_cmd_sn), (CmdSn(123), CmdSn(123), CmdSn(123 + 31)));
}

/// RFC 5047 figures 2 and 3: a successful login at the initiator and at the target.
#[test]
fn figures_2_and_3() {
    let login = plain(normal(InitiatorAuth::None), TargetLoginConfig::default());
    assert_eq!(login.initiator_log, ["allocate", "send", "enable"]);
    assert_eq!(login.target_log, ["access", "notice", "allocate", "enable"]);
}

/// RFC 5047 figures 4 and 5: a failed login, after allocation, at the initiator and at the target.
// req: 7145-3.3-3, 7145-10.1.3.1-5, 7143-11.13.5-5
#[test]
fn figures_4_and_5() {
    let mut caller = Caller::new(grant(TargetAuth::None));
    caller.tsih = None;
    let login = run(normal(InitiatorAuth::None), TargetLoginConfig::default(), &mut caller);
    assert_eq!(login.initiator_log, ["allocate", "send", "deallocate", "failed"]);
    assert_eq!(login.initiator.failed().status, Some(LoginStatus::OUT_OF_RESOURCES));
    assert!(login.initiator.failed().may_retry());
    assert_eq!(login.target_log, ["access", "notice", "allocate", "refuse", "failed"]);
    assert_eq!(login.target.unwrap().failed().rule, Rule::Resources);
}

/// Figure 5 with resources that had been granted: the initiator breaks the rules while the target allocates.
#[test]
fn figure_5_at_the_target() {
    let t0 = now();
    let mut t = TargetLogin::new(TargetLoginConfig::default().into(), [1; 32], t0);
    let request = plain(normal(InitiatorAuth::None), TargetLoginConfig::default()).requests.remove(0);
    t.handle_request(t0, request.clone());
    let Some(LoginOutput::NeedAccess(_)) = t.poll_output() else { panic!() };
    t.handle_access(AccessDecision::Grant(Box::new(grant(TargetAuth::None))));
    let mut log = Vec::new();
    while let Some(output) = t.poll_output() {
        match output {
            LoginOutput::NoticeKeys(_) => log.push("notice"),
            LoginOutput::Allocate(_) => {
                log.push("allocate");
                t.handle_request(t0, request.clone());
            }
            LoginOutput::Send(r) => log.push(if r.status_class == 2 { "refuse" } else { "send" }),
            LoginOutput::Deallocate => log.push("deallocate"),
            LoginOutput::Failed(f) => {
                assert_eq!(f.rule, Rule::OneOutstanding);
                log.push("failed");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log, ["notice", "allocate", "refuse", "deallocate", "failed"]);
    t.handle_resources(Some(Tsih(1)));
    assert!(t.poll_output().is_none(), "too late");
}

/// RFC 5047 figure 6: iSER was allocated for and is not agreed; the login goes on without.
// req: 7145-5.1-4, 7145-3.3-2
#[test]
fn figure_6() {
    let (mut i, t) = with(Preferences::default());
    i.preferences.rdma_extensions = RdmaPolicy::Allow;
    let login = plain(i, t);
    assert_eq!(login.initiator_log, ["allocate", "send", "deallocate", "allocate", "enable"]);
    let session = login.initiator.enabled().session;
    assert!(!session.rdma_extensions);
    assert_eq!(session, login.target.unwrap().enabled().session);

    // The target holds the stage open: what was allocated for iSER is given back at once, before the next request.
    let (mut i, mut t) = with(Preferences::default());
    i.preferences.rdma_extensions = RdmaPolicy::Allow;
    t.preferences.default_time2wait = 2;
    i.preferences.node_architecture = NodeArchitecture::Silent;
    let mut machine = InitiatorLogin::new(i.into(), start(), [0; 32], now());
    let mut log = Vec::new();
    let (sent, _) = drive_initiator(&mut machine, true, &mut log);
    let held = iscsi_pdu::LoginResponse {
        csg: Stage::LoginOperationalNegotiation,
        isid: sent[0].isid,
        itt: sent[0].itt,
        data: text(&["RDMAExtensions=No"]),
        ..Default::default()
    };
    machine.handle_response(now(), held);
    drive_initiator(&mut machine, true, &mut log);
    assert_eq!(log, ["allocate", "send", "deallocate", "allocate", "send"]);
}

/// Both ends want iSER: all its keys in one exchange.
// req: 7145-3.3-1, 7145-5.1-1, 7145-5.1-3, 7145-5.1-6, 7145-6.2-2, 7145-6.2-3, 7145-6.3-1, 7145-6.3-3, 7145-6.3-6
// req: 7145-6.7-1, 7145-6.10-1, 7145-6.10-2
#[test]
fn iser() {
    for hello in [None, Some(false), Some(true)] {
        let (i, t) = with(Preferences {
            rdma_extensions: RdmaPolicy::Require,
            iser_hello_required: hello,
            initiator_recv_data_segment_length: 4096,
            ..Preferences::default()
        });
        let login = plain(i, t);
        assert_eq!(login.requests.len(), 1);
        let keys: Vec<String> = lines(&login.requests[0].data);
        assert_eq!(keys[3], "RDMAExtensions=Yes", "right behind the names");
        assert!(keys.contains(&"MaxOutstandingUnexpectedPDUs=16".into()));
        let (a, b) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
        assert_eq!(a.session, b.session);
        assert!(a.session.rdma_extensions);
        assert_eq!(a.session.iser_hello_required, hello);
        assert_eq!(a.session.tagged_buffer_for_solicited_data_only, Some(true));
        assert_eq!(a.session.initiator_max_outstanding_unexpected_pdus, Some(16));
        assert_eq!(a.session.target_max_outstanding_unexpected_pdus, Some(16));
        assert_eq!((a.conn.max_recv_data_segment_length, a.conn.max_send_data_segment_length), (4096, 8192));
        assert_eq!((b.conn.max_recv_data_segment_length, b.conn.max_send_data_segment_length), (8192, 4096));
        assert_eq!(login.initiator_log, ["allocate", "send", "enable"]);
    }
}

/// A target whose fabric carries nothing else proposes iSER itself, and refuses initiators that will not.
// req: 7145-6.3-4, 7145-6.3-5, 7145-3.3-3
#[test]
fn a_target_that_requires_iser() {
    let (mut i, mut t) = with(Preferences::default());
    t.preferences.rdma_extensions = RdmaPolicy::Require;
    let login = plain(i.clone(), t.clone());
    assert_eq!(login.target.unwrap().failed().rule, Rule::RdmaRequired);
    assert_eq!(lines(&login.responses[0].data).iter().filter(|l| l.starts_with("RDMAExt")).count(), 1);
    assert!(
        lines(&login.requests[1].data).contains(&"RDMAExtensions=No".into()),
        "answered in the next request"
    );
    i.preferences.rdma_extensions = RdmaPolicy::Allow;
    let login = plain(i, t);
    assert!(login.initiator.enabled().session.rdma_extensions);
}

/// An initiator whose fabric carries nothing else.
#[test]
fn an_initiator_that_requires_iser() {
    let (mut i, t) = with(Preferences::default());
    i.preferences.rdma_extensions = RdmaPolicy::Require;
    let login = plain(i, t);
    assert_eq!(login.initiator.failed().rule, Rule::RdmaRequired);
    assert_eq!(login.initiator_log, ["allocate", "send", "deallocate", "failed"]);
}

/// A target with needs of its own holds the stage until they are met (RFC 7143 section 6.3.3).
// req: 7143-6.3-14, 7143-11.13.6-1, 7143-6.3.3-2, 7143-6.3.3-4, 7143-6.3.3-5, 7143-11.13.1-1, 7143-11.13.2-1
// req: 7143-11.13.3-1, 7143-11.13.4-1, 7143-11.12.4.1-1, 7143-11.12.4.2-1, 7143-11.12.6-3, 7143-11.12.7-1
// req: 7143-11.12.9-1, 7143-6.3-1, 7143-6.2-5
#[test]
fn a_target_that_must_ask() {
    let (i, mut t) = with(Preferences::default());
    let i = InitiatorLoginConfig { goal: SessionGoal::Discovery(None), ..i };
    // On a discovery session the initiator offers little; the target wants more.
    t.preferences.default_time2retain = 0;
    t.preferences.header_digest = DigestPolicy::Require;
    let mut t_only = t.clone();
    t_only.preferences.default_time2wait = 7;
    let login = plain(i, t_only);
    let n = login.initiator.enabled();
    assert_eq!((n.session.default_time2wait, n.conn.header_digest), (7, Digest::Crc32c));

    // An initiator that says nothing but its names is asked for everything that the defaults leave unbearable.
    let strict = Preferences { immediate_data: false, max_burst_length: 8192, ..Preferences::default() };
    let t0 = now();
    let config = TargetLoginConfig { preferences: strict, ..TargetLoginConfig::default() };
    let mut target = TargetLogin::new(config.into(), [0; 32], t0);
    let mut caller = Caller::new(grant(TargetAuth::None));
    let request = |data| iscsi_pdu::LoginRequest {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        cid: Cid(1),
        data,
        ..Default::default()
    };
    target.handle_request(
        t0,
        request(text(&[&format!("InitiatorName={INITIATOR}"), &format!("TargetName={TARGET}")])),
    );
    let (sent, _) = drive_target(&mut target, &mut caller);
    assert!(!sent[0].transit);
    assert_eq!((sent[0].stat_sn.0, sent[0].tsih), (0, Tsih::NEW));
    let asked = lines(&sent[0].data);
    for offer in ["ImmediateData=No", "MaxBurstLength=8192", "FirstBurstLength=8192"] {
        assert!(asked.contains(&offer.to_owned()), "{asked:?}");
    }
    target.handle_request(t0, request(text(&["MaxBurstLength=4096", "FirstBurstLength=512"])));
    let (sent, end) = drive_target(&mut target, &mut caller);
    assert!(sent[0].transit);
    assert_eq!((sent[0].stat_sn.0, sent[0].tsih, sent[0].version_active), (1, Tsih(7), 0));
    let session = end.unwrap().enabled().session;
    assert_eq!(
        (session.immediate_data, session.max_burst_length, session.first_burst_length),
        (false, 4096, 512)
    );
}

// req: 7143-4.2.7.1-5, 7143-13.21-2, 7143-13.21-1, 7143-7.4.1-2, 7145-5.1-5, 7143-13.22-2
#[test]
fn discovery_sessions() {
    let preferences = Preferences {
        error_recovery_level: 2,
        max_connections: 4,
        rdma_extensions: RdmaPolicy::Require,
        ..Preferences::default()
    };
    let i = InitiatorLoginConfig { preferences: preferences.clone(), ..discovery(InitiatorAuth::None) };
    let t = TargetLoginConfig { preferences, ..TargetLoginConfig::default() };
    let login = plain(i, t);
    let text = lines(&login.requests[0].data);
    assert_eq!(text[..2], [format!("InitiatorName={INITIATOR}"), "SessionType=Discovery".into()]);
    assert!(!text.iter().any(|l| l.starts_with("RDMAExtensions") || l.starts_with("X-")));
    let n = login.initiator.enabled();
    assert_eq!(n.session, login.target.unwrap().enabled().session);
    assert_eq!(n.session.session_type, SessionType::Discovery);
    assert_eq!((n.session.error_recovery_level, n.session.max_connections), (0, 1));
    assert_eq!(n.target_name, None);
}

// req: 7143-13.6-1, 7143-13.7-1
#[test]
fn aliases() {
    let mut caller =
        Caller::new(Grant { alias: Some("Bob-s Disk".parse().unwrap()), ..grant(TargetAuth::None) });
    let alias = Some("Web Server 4".parse().unwrap());
    let i = InitiatorLoginConfig { initiator_alias: alias.clone(), ..normal(InitiatorAuth::None) };
    let login = run(i, TargetLoginConfig::default(), &mut caller);
    assert_eq!(login.initiator.enabled().target_alias, Some("Bob-s Disk".parse().unwrap()));
    assert_eq!(login.target.unwrap().enabled().initiator_alias, alias);
    let login = run(discovery(InitiatorAuth::None), TargetLoginConfig::default(), &mut caller);
    assert!(
        !lines(&login.responses[0].data).iter().any(|l| l.starts_with("TargetAlias")),
        "Normal sessions only"
    );
}

/// One node tells what it is, the other logs it, and nothing else changes.
// req: 7143-13.26.2-5, 7143-13.26.2-6, 7143-9.4-1
#[test]
fn node_architecture() {
    let (mut i, mut t) = with(Preferences::default());
    i.preferences.node_architecture = NodeArchitecture::Product;
    t.preferences.node_architecture = NodeArchitecture::Version;
    let login = plain(i, t);
    let (a, b) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
    assert_eq!(b.peer_node_architecture.as_ref().unwrap().as_str(), "iscsi-rs");
    assert!(a.peer_node_architecture.as_ref().unwrap().as_str().starts_with("iscsi-rs/"));
    let (i, t) = with(Preferences::default());
    let silent = plain(i, t);
    assert_eq!(silent.initiator.enabled().session, a.session);
    assert!(!silent.requests.iter().any(|r| lines(&r.data).iter().any(|l| l.starts_with("X#"))));
}

/// A further connection of a session: its parameters are the session's, its own are negotiated.
// req: 7143-11.12.6-2, 7143-11.12.6-4, 7143-6.3-3, 7143-6.3.3-6, 7143-13-1, 7145-5.1-7
#[test]
fn a_further_connection() {
    for rdma in [false, true] {
        let mut session = SessionParams::default();
        session.max_burst_length = 4096;
        session.rdma_extensions = rdma;
        let existing = ExistingSession {
            tsih: Tsih(7),
            session,
            auth: AuthIdentity::None,
            exp_cmd_sn: CmdSn(500),
            max_cmd_sn: CmdSn(600),
        };
        let from = LoginStart { cid: Cid(2), session: Some(existing.clone()), ..start() };
        let mut caller = Caller::new(Grant { session: Some(existing), ..grant(TargetAuth::None) });
        let (mut i, t) = with(Preferences::default());
        i.preferences.header_digest = DigestPolicy::Prefer;
        let login = run_from(i, from, t, &mut caller);
        assert_eq!(login.requests[0].tsih, Tsih(7));
        let text = lines(&login.requests[0].data);
        assert!(
            !text.iter().any(|line| line.starts_with("SessionType")),
            "leading connections only: {text:?}"
        );
        assert_eq!(caller.access.unwrap().tsih, Tsih(7));
        let (a, b) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
        assert_eq!((a.session, b.session, a.leading), (session, session, false));
        assert_eq!((a.exp_cmd_sn, a.max_cmd_sn), (CmdSn(500), CmdSn(600)));
        let digest = if rdma { Digest::None } else { Digest::Crc32c };
        assert_eq!((a.conn.header_digest, b.conn.header_digest), (digest, digest));
    }
}

/// Texts longer than a PDU travel in several, with the C bit, both ways (RFC 7143 section 6.2).
// req: 7143-6.1-7, 7143-6.2-1, 7143-6.2-2, 7143-6.2-3, 7143-6.1-4
#[test]
fn long_texts() {
    let t0 = now();
    let mut target = TargetLogin::new(TargetLoginConfig::default().into(), [0; 32], t0);
    let mut caller = Caller::new(grant(TargetAuth::None));
    // 17 KiB of private keys; the answers, all NotUnderstood, take more than one PDU too.
    let mut data = text(&[&format!("InitiatorName={INITIATOR}"), &format!("TargetName={TARGET}")]).to_vec();
    for n in 0..160 {
        data.extend(format!("X-com.example.{n:030}={}\0", "v".repeat(60)).bytes());
    }
    assert!(data.len() > 16_000);
    let mut parts = data.chunks(5000).peekable();
    let mut request = iscsi_pdu::LoginRequest {
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        ..Default::default()
    };
    let mut answers = Vec::new();
    let mut end = None;
    while let Some(part) = parts.next() {
        request.data = part.to_vec().into();
        request.continue_text = parts.peek().is_some();
        request.transit = !request.continue_text;
        target.handle_request(t0, request.clone());
        let (sent, _) = drive_target(&mut target, &mut caller);
        assert_eq!(sent.len(), 1);
        if request.continue_text {
            assert!(sent[0].data.is_empty() && !sent[0].transit, "empty while the text goes on");
        } else {
            answers.extend(sent);
        }
    }
    request.data = text(&[]);
    while answers.last().unwrap().continue_text {
        let last = answers.last().unwrap();
        assert!(!last.transit && last.data.len() <= 8192);
        target.handle_request(t0, request.clone());
        let (sent, e) = drive_target(&mut target, &mut caller);
        answers.extend(sent);
        end = e;
    }
    assert!(answers.len() > 1);
    assert!(answers.last().unwrap().transit);
    let whole: Vec<u8> = answers.iter().flat_map(|r| r.data.to_vec()).collect();
    assert_eq!(lines(&whole).iter().filter(|l| l.ends_with("=NotUnderstood")).count(), 160);
    end.unwrap().enabled();
}

/// The same from the initiator's side: a target that cuts its answer in the middle of a value.
// req: 7143-6.2-3, 7143-6.1-7
#[test]
fn long_answers() {
    let t0 = now();
    let whole = plain(normal(InitiatorAuth::None), TargetLoginConfig::default());
    let response = &whole.responses[0];
    let mut machine = InitiatorLogin::new(normal(InitiatorAuth::None).into(), start(), [0; 32], t0);
    let mut log = Vec::new();
    drive_initiator(&mut machine, true, &mut log);
    let (head, tail) = response.data.split_at(response.data.len() / 2);
    let mut part = response.clone();
    part.transit = false;
    part.continue_text = true;
    part.data = head.to_vec().into();
    machine.handle_response(t0, part);
    let (sent, _) = drive_initiator(&mut machine, true, &mut log);
    assert!(sent[0].data.is_empty() && !sent[0].transit && !sent[0].continue_text);
    assert_eq!(sent[0].exp_stat_sn, response.stat_sn.next());
    let mut last = response.clone();
    last.transit = false;
    last.stat_sn = response.stat_sn.next();
    last.data = tail.to_vec().into();
    machine.handle_response(t0, last);
    let (sent, _) = drive_initiator(&mut machine, true, &mut log);
    assert!(sent[0].data.is_empty() && sent[0].transit, "keeps asking for the end");
    let mut fin = response.clone();
    fin.stat_sn = response.stat_sn.advance(2);
    fin.data = text(&[]);
    machine.handle_response(t0, fin);
    let (_, end) = drive_initiator(&mut machine, true, &mut log);
    assert_eq!(end.unwrap().enabled().session, whole.initiator.enabled().session);
}

/// Any wishes, also inadmissible ones.
fn preferences() -> impl Strategy<Value = Preferences> {
    let digest = || {
        proptest::sample::select(vec![
            DigestPolicy::Never,
            DigestPolicy::Avoid,
            DigestPolicy::Prefer,
            DigestPolicy::Require,
        ])
    };
    let rdma = proptest::sample::select(vec![RdmaPolicy::Never, RdmaPolicy::Allow, RdmaPolicy::Require]);
    let reporting = proptest::sample::subsequence(
        vec![TaskReporting::FastAbort, TaskReporting::ResponseFence, TaskReporting::Rfc3720],
        0..=3,
    );
    let bools = proptest::collection::vec(any::<bool>(), 4);
    let options = proptest::collection::vec(proptest::option::of(any::<bool>()), 2);
    let counts = proptest::collection::vec(proptest::option::of(0u32..20), 2);
    let lengths = proptest::collection::vec(0u32..1 << 25, 5);
    let small = (0u8..4, 0u16..5, 0u16..5, 0u16..5000, 0u16..5000, 0u8..40);
    (digest(), digest(), rdma, reporting, bools, options, counts, lengths, small).prop_map(
        |(hd, dd, rdma, reporting, b, o, c, l, s)| Preferences {
            header_digest: hd,
            data_digest: dd,
            rdma_extensions: rdma,
            task_reporting: reporting,
            initial_r2t: b[0],
            immediate_data: b[1],
            data_pdu_in_order: b[2],
            data_sequence_in_order: b[3],
            tagged_buffer_for_solicited_data_only: o[0],
            iser_hello_required: o[1],
            max_ahs_length: c[0],
            max_outstanding_unexpected_pdus: c[1],
            max_recv_data_segment_length: l[0],
            max_burst_length: l[1],
            first_burst_length: l[2],
            initiator_recv_data_segment_length: l[3],
            target_recv_data_segment_length: l[4],
            error_recovery_level: s.0,
            max_connections: s.1,
            max_outstanding_r2t: s.2,
            default_time2wait: s.3,
            default_time2retain: s.4,
            iscsi_protocol_level: s.5,
            node_architecture: NodeArchitecture::Silent,
        },
    )
}

proptest! {
    /// For any two configurations a login ends with equal parameters at both ends, or with a cause that names the key.
    // req: 7143-6.2-20, 7143-13.14-1, 7143-13.19-2, 7143-7.1.5-1, 7143-7.1.5-2, 7143-7.1.5-3, 7143-7.1.5-4
    #[test]
    fn both_ends_agree(i in preferences(), t in preferences(), found in any::<bool>()) {
        let config = if found { normal(InitiatorAuth::None) } else { discovery(InitiatorAuth::None) };
        let (wi, wt) = (i.normalized(), t.normalized());
        let login = plain(
            InitiatorLoginConfig { preferences: i, ..config },
            TargetLoginConfig { preferences: t, ..TargetLoginConfig::default() },
        );
        match (&login.initiator, login.target.as_ref()) {
            (End::Enabled(a), Some(End::Enabled(b))) => {
                prop_assert_eq!(a.session, b.session);
                prop_assert_eq!(a.conn.header_digest, b.conn.header_digest);
                prop_assert_eq!(a.conn.data_digest, b.conn.data_digest);
                prop_assert_eq!(a.conn.max_recv_data_segment_length, b.conn.max_send_data_segment_length);
                prop_assert_eq!(a.conn.max_send_data_segment_length, b.conn.max_recv_data_segment_length);
                prop_assert_eq!((a.tsih, a.isid, a.next_stat_sn), (b.tsih, b.isid, b.next_stat_sn));
                let s = a.session;
                prop_assert!(s.first_burst_length <= s.max_burst_length);
                prop_assert!(s.error_recovery_level <= wi.error_recovery_level.min(wt.error_recovery_level));
                prop_assert!(s.error_recovery_level == 0 || !s.data_sequence_in_order || s.max_outstanding_r2t == 1);
                if s.session_type == SessionType::Normal {
                    prop_assert_eq!(s.immediate_data, wi.immediate_data && wt.immediate_data);
                    prop_assert_eq!(s.initial_r2t, wi.initial_r2t || wt.initial_r2t);
                    prop_assert_eq!(s.max_burst_length, wi.max_burst_length.min(wt.max_burst_length));
                    prop_assert_eq!(s.default_time2wait, wi.default_time2wait.max(wt.default_time2wait));
                    prop_assert_eq!(s.default_time2retain, wi.default_time2retain.min(wt.default_time2retain));
                }
            }
            (End::Failed(a), b) => {
                let cause = match b {
                    Some(End::Failed(b)) => b.rule,
                    // An initiator may find the target's last word wanting.
                    _ => a.rule,
                };
                let named = matches!(
                    (a.rule, cause),
                    (Rule::RdmaRequired, _)
                        | (_, Rule::RdmaRequired)
                        | (Rule::Answer(Key::HeaderDigest | Key::DataDigest), _)
                        | (_, Rule::Answer(Key::HeaderDigest | Key::DataDigest))
                );
                prop_assert!(named, "{:?} {:?}", a, cause);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
