//! The initiator's machine against responses of every kind.

mod common;

use bytes::Bytes;
use common::*;
use iscsi_login::*;
use iscsi_pdu::{
    Isid, Itt, LoginRequest, LoginResponse, NopIn, Pdu, Reject, RejectReason, Stage, StatSn, Tsih,
};
use std::time::Instant;

struct Hand {
    machine: InitiatorLogin,
    t0: Instant,
    sent: Vec<LoginRequest<Bytes>>,
    log: Vec<&'static str>,
}

impl Hand {
    fn new() -> Self {
        Self::with(normal(InitiatorAuth::None))
    }

    fn with(config: InitiatorLoginConfig) -> Self {
        let t0 = now();
        let machine = InitiatorLogin::new(config.into(), start(), [3; 32], t0);
        let mut hand = Self { machine, t0, sent: Vec::new(), log: Vec::new() };
        hand.drive();
        hand
    }

    fn drive(&mut self) -> Option<End> {
        let (sent, end) = drive_initiator(&mut self.machine, true, &mut self.log);
        self.sent.extend(sent);
        end
    }

    fn hear(&mut self, r: LoginResponse<Bytes>) -> Option<End> {
        self.machine.handle_response(self.t0, r);
        self.drive()
    }

    /// The rule by which `r`, as the first response, ends the login without a word.
    fn refuses(r: LoginResponse<Bytes>) -> Rule {
        let mut hand = Self::new();
        let failure = hand.hear(r).expect("the login ends").failed();
        assert_eq!(failure.status, None);
        assert_eq!(hand.sent.len(), 1, "nothing is sent any more");
        assert_eq!(hand.log, ["allocate", "send", "deallocate", "failed"]);
        failure.rule
    }
}

/// All answers that our default offer needs.
const ANSWERS: [&str; 14] = [
    "TargetPortalGroupTag=1",
    "InitialR2T=No",
    "ImmediateData=Yes",
    "MaxBurstLength=262144",
    "FirstBurstLength=65536",
    "DataPDUInOrder=Yes",
    "DataSequenceInOrder=Yes",
    "ErrorRecoveryLevel=0",
    "MaxOutstandingR2T=1",
    "DefaultTime2Wait=2",
    "DefaultTime2Retain=20",
    "MaxConnections=1",
    "HeaderDigest=None",
    "DataDigest=None",
];

fn response(stat_sn: u32, next: Option<u8>, pairs: &[&str]) -> LoginResponse<Bytes> {
    LoginResponse {
        transit: next.is_some(),
        csg: Stage(1),
        nsg: Stage(next.unwrap_or(0)),
        isid: start().isid,
        itt: start().itt,
        stat_sn: StatSn(stat_sn),
        data: text(pairs),
        ..Default::default()
    }
}

fn last() -> LoginResponse<Bytes> {
    LoginResponse { tsih: Tsih(3), ..response(100, Some(3), &ANSWERS) }
}

#[test]
fn a_good_answer() {
    let mut hand = Hand::new();
    let end = hand.hear(last()).unwrap();
    let n = end.enabled();
    assert_eq!((n.tsih, n.next_stat_sn, n.target_portal_group_tag), (Tsih(3), StatSn(101), Some(1)));
    assert_eq!(n.session.max_burst_length, 262_144);
    assert!(hand.machine.is_over() && hand.machine.poll_timeout().is_none());
}

/// Requests of one login: the same header, ExpStatSN counting, T kept (RFC 7143 sections 6.3.3, 11.12).
// req: 7143-11.12-2, 7143-11.12.4-1, 7143-11.12.4.1-1, 7143-11.12.4.2-1, 7143-11.12.6-1, 7143-11.12.6-3
// req: 7143-11.12.7-1, 7143-11.12.9-1, 7143-6.3.3-5, 7143-6.3.3-2, 7143-6.2-23, 7143-4.2.4-3
#[test]
fn requests() {
    let mut hand = Hand::new();
    for n in 0..10 {
        assert!(hand.hear(response(100 + n, None, &[])).is_none());
    }
    hand.hear(LoginResponse { stat_sn: StatSn(110), ..last() }).unwrap().enabled();
    let first = hand.sent[0].clone();
    for (n, r) in hand.sent.iter().enumerate() {
        assert!(r.transit, "keeps asking");
        assert_eq!((r.csg, r.nsg), (Stage::LoginOperationalNegotiation, Stage::FullFeaturePhase));
        assert_eq!((r.isid, r.tsih, r.itt, r.cid), (first.isid, Tsih::NEW, first.itt, first.cid));
        assert_eq!((r.version_max, r.version_min, r.cmd_sn), (0, 0, first.cmd_sn));
        if n > 0 {
            assert_eq!(r.exp_stat_sn, StatSn(100 + n as u32));
            assert!(r.data.is_empty());
        }
    }
}

/// A target's proposals are answered in the next request; LIO holds the stage for keys that were left out.
// req: 7143-11.13.8-2, 7145-6.3-5, 7143-6.3.3-4, 7143-6.2-8, 7143-6.2-17
#[test]
fn proposals_of_the_target() {
    let mut hand = Hand::new();
    assert!(
        hand.hear(response(
            1,
            None,
            &[
                "TaskReporting=FastAbort,RFC3720",
                "X-com.example=1",
                "IFMarker=No",
                "RDMAExtensions=Yes",
                "iSCSIProtocolLevel=2",
                "MaxBurstLength=65536"
            ]
        ))
        .is_none()
    );
    assert_eq!(
        lines(&hand.sent[1].data),
        [
            "X-com.example=NotUnderstood",
            "RDMAExtensions=No",
            "TaskReporting=RFC3720",
            "iSCSIProtocolLevel=1",
            "IFMarker=Reject",
        ]
    );
    assert!(hand.sent[1].transit);
    let rest: Vec<&str> = ANSWERS.iter().copied().filter(|l| !l.starts_with("MaxBurst")).collect();
    let end = hand.hear(LoginResponse { tsih: Tsih(1), ..response(2, Some(3), &rest) }).unwrap();
    assert_eq!(end.enabled().session.max_burst_length, 65_536);
}

/// RFC 7144 support is not claimed unless configured.
// req: 7143-13.24-1, 7144-4.1-1, 7144-7.1.1-1
#[test]
fn protocol_level() {
    for (mine, answer, result) in [
        (1, None, 1),
        (2, Some("iSCSIProtocolLevel=2"), 2),
        (2, Some("iSCSIProtocolLevel=NotUnderstood"), 1),
        (2, None, 1),
    ] {
        let preferences = Preferences { iscsi_protocol_level: mine, ..Preferences::default() };
        let mut hand = Hand::with(InitiatorLoginConfig { preferences, ..normal(InitiatorAuth::None) });
        let offered = lines(&hand.sent[0].data).iter().any(|l| l.starts_with("iSCSIProtocolLevel"));
        assert_eq!(offered, mine > 1);
        let mut pairs = ANSWERS.to_vec();
        pairs.extend(answer);
        let end = hand.hear(LoginResponse { tsih: Tsih(1), ..response(1, Some(3), &pairs) }).unwrap();
        assert_eq!(end.enabled().session.iscsi_protocol_level, result);
    }
}

/// Header fields of responses (RFC 7143 section 11.13).
// req: 7143-11.13.1-2, 7143-11.13.2-2, 7143-11.13.4-1, 7143-11.13.3-1
#[test]
fn header_fields() {
    assert_eq!(Hand::refuses(LoginResponse { itt: Itt(9), ..last() }), Rule::HeaderChanged);
    assert_eq!(Hand::refuses(LoginResponse { isid: Isid([9; 6]), ..last() }), Rule::HeaderChanged);
    assert_eq!(Hand::refuses(LoginResponse { version_active: 1, ..last() }), Rule::Version);
    assert_eq!(Hand::refuses(LoginResponse { tsih: Tsih(0), ..last() }), Rule::Tsih);
    type Change = fn(&mut LoginResponse<Bytes>);
    let changes: [(Change, Rule); 3] = [
        (|r| r.version_max = 1, Rule::HeaderChanged),
        (|r| r.version_active = 1, Rule::HeaderChanged),
        (|r| r.stat_sn = StatSn(7), Rule::StatSn),
    ];
    for (change, rule) in changes {
        let mut hand = Hand::new();
        hand.hear(response(1, None, &[]));
        let mut second = response(2, None, &[]);
        change(&mut second);
        assert_eq!(hand.hear(second).unwrap().failed().rule, rule);
    }
}

// req: 7143-6.3-12, 7143-6.3-13, 7143-6.2-1, 7143-11.13.6-2
#[test]
fn stages() {
    assert_eq!(Hand::refuses(LoginResponse { csg: Stage(0), ..last() }), Rule::Stage);
    assert_eq!(Hand::refuses(LoginResponse { nsg: Stage(1), ..last() }), Rule::Stage);
    assert_eq!(Hand::refuses(LoginResponse { nsg: Stage(2), ..last() }), Rule::Stage);
    assert_eq!(Hand::refuses(LoginResponse { continue_text: true, ..last() }), Rule::ContinueWithTransit);
}

/// Keys that the target may not send, or not so (RFC 7143 sections 6.3, 13).
// req: 7143-6.3-11, 7143-6.3-19, 7143-6.3-14, 7143-13.4-3, 7143-6.3-17, 7143-13.9-1
#[test]
fn keys_out_of_place() {
    let with = |more: &[&str]| {
        let pairs: Vec<&str> = ANSWERS.iter().copied().chain(more.iter().copied()).collect();
        Hand::refuses(LoginResponse { tsih: Tsih(1), ..response(1, Some(3), &pairs) })
    };
    for (line, key) in [
        ("TargetName=iqn.2001-04.com.example", Key::TargetName),
        ("InitiatorName=iqn.2001-04.com.example", Key::InitiatorName),
        ("AuthMethod=None", Key::AuthMethod),
        ("SendTargets=All", Key::SendTargets),
        // A proposal that would need another request.
        ("TaskReporting=RFC3720", Key::TaskReporting),
        ("RDMAExtensions=Yes", Key::RdmaExtensions),
        ("iSERHelloRequired=Yes", Key::IserHelloRequired),
    ] {
        assert_eq!(with(&[line]), Rule::NotAllowedHere(key), "{line}");
    }
    for (line, key) in [
        ("TargetPortalGroupTag=1", Key::TargetPortalGroupTag),
        ("MaxBurstLength=262144", Key::MaxBurstLength),
    ] {
        assert_eq!(with(&[line]), Rule::Repeated(key));
    }
    // A renegotiation in a later response.
    let mut hand = Hand::new();
    hand.hear(response(1, None, &["MaxBurstLength=65536"]));
    let again = hand.hear(response(2, None, &["MaxBurstLength=65536"])).unwrap();
    assert_eq!(again.failed().rule, Rule::Repeated(Key::MaxBurstLength));
}

/// Values that cannot be, and answers that cannot be.
// req: 7143-6.2.2-7, 7143-6.2.1-4, 7143-6.2-11, 7143-13-3
#[test]
fn bad_values() {
    let instead = |line: &str| {
        let key = line.split('=').next().unwrap();
        let pairs: Vec<&str> =
            ANSWERS.iter().copied().filter(|l| l.split('=').next() != Some(key)).chain([line]).collect();
        Hand::refuses(LoginResponse { tsih: Tsih(1), ..response(1, Some(3), &pairs) })
    };
    assert_eq!(instead("MaxBurstLength=16777215"), Rule::Answer(Key::MaxBurstLength));
    assert_eq!(instead("HeaderDigest=foo"), Rule::Answer(Key::HeaderDigest));
    assert_eq!(instead("MaxBurstLength=NotUnderstood"), Rule::NotUnderstood(Key::MaxBurstLength));
    assert_eq!(
        instead("MaxRecvDataSegmentLength=NotUnderstood"),
        Rule::NotUnderstood(Key::MaxRecvDataSegmentLength)
    );
    assert_eq!(instead("MaxRecvDataSegmentLength=100"), Rule::Value(Key::MaxRecvDataSegmentLength));
    assert_eq!(instead("TargetPortalGroupTag=65536"), Rule::Value(Key::TargetPortalGroupTag));
    assert_eq!(instead("TargetPortalGroupTag=x"), Rule::Value(Key::TargetPortalGroupTag));
    let without = |key: &str| {
        let pairs: Vec<&str> = ANSWERS.iter().copied().filter(|l| !l.starts_with(key)).collect();
        Hand::refuses(LoginResponse { tsih: Tsih(1), ..response(1, Some(3), &pairs) })
    };
    assert_eq!(without("MaxBurstLength"), Rule::Unanswered(Key::MaxBurstLength));
    assert_eq!(without("InitialR2T"), Rule::Unanswered(Key::InitialR2t));
}

/// What a peer may do although it need not.
// req: 7143-6.2.2-6, 7143-6.2-24, 7143-13.26.2-1
#[test]
fn odd_but_harmless() {
    for more in [
        &["TargetAddress=10.0.0.1", "TargetAddress=10.0.0.2"][..],
        &["X-unknown=1"],
        &["X#NodeArchitecture=ExampleOS/v1"],
        &["IFMarker=No", "OFMarker=No"],
        &["MaxRecvDataSegmentLength=65536"],
    ] {
        let pairs: Vec<&str> = ANSWERS.iter().copied().chain(more.iter().copied()).collect();
        let end = Hand::new().hear(LoginResponse { tsih: Tsih(1), ..response(1, Some(3), &pairs) }).unwrap();
        end.enabled();
    }
}

/// Statuses other than success (RFC 7143 section 11.13.5).
// req: 7143-11.13.5-5, 7143-11.13.5-6, 7143-11.13.5-7
#[test]
fn statuses() {
    for (class, detail, retry) in [
        (2, 0, false),
        (2, 1, false),
        (2, 3, false),
        (2, 0xff, false),
        (3, 0, true),
        (3, 1, true),
        (3, 0xff, true),
        (4, 0, false),
        (0xff, 0xff, false),
    ] {
        let mut hand = Hand::new();
        let refusal =
            LoginResponse { status_class: class, status_detail: detail, ..LoginResponse::default() };
        let failure = hand.hear(refusal).unwrap().failed();
        assert_eq!(failure.rule, Rule::PeerStatus);
        assert_eq!(failure.status, Some(LoginStatus { class, detail }));
        assert_eq!(failure.may_retry(), retry);
        assert_eq!(hand.log, ["allocate", "send", "deallocate", "failed"]);
    }
    assert_eq!(LoginStatus::NOT_FOUND.to_string(), "0203 not found");
    assert_eq!(LoginStatus { class: 2, detail: 0xff }.to_string(), "02ff");
}

fn redirect(detail: u8, pairs: &[&str]) -> LoginResponse<Bytes> {
    LoginResponse { status_class: 1, status_detail: detail, data: text(pairs), ..LoginResponse::default() }
}

/// Redirections, before and after security (RFC 7143 section 11.13.5).
// req: 7143-11.13.5-1, 7143-11.13.5-3, 7143-11.13.5-4
#[test]
fn redirections() {
    for (detail, permanently) in [(1, false), (2, true), (9, false)] {
        let mut hand = Hand::new();
        let pairs = ["TargetAddress=10.0.0.1:5003,1", "X-a=1", "TargetAddress=../x", "TargetAddress=[::1]"];
        let Some(End::Redirected(r)) = hand.hear(redirect(detail, &pairs)) else { panic!() };
        let to: Vec<String> = r.addresses.iter().map(ToString::to_string).collect();
        assert_eq!((to, r.permanently), (vec!["10.0.0.1:5003".into(), "[::1]".into()], permanently));
        assert_eq!(hand.log, ["allocate", "send", "deallocate", "redirected"]);
    }
    for pairs in [&[][..], &["TargetAddress=a b"], &["TargetAddress=\n"]] {
        let end = Hand::new().hear(redirect(1, pairs)).unwrap();
        assert_eq!(end.failed().rule, Rule::RedirectWithoutAddress);
    }
}

#[cfg(feature = "chap")]
#[test]
fn redirection_during_security() {
    use iscsi_login::auth::{ChallengeKey, ChapCredentials, ChapInitiator, Secret};
    let alice = ChapCredentials::new("alice", Secret::parse("secret of alice").unwrap()).unwrap();
    let chap = ChapInitiator::new(alice, None, ChallengeKey::new([1; 32])).unwrap();
    let mut hand = Hand::with(normal(InitiatorAuth::Chap(Box::new(chap))));
    assert_eq!(hand.sent[0].csg, Stage::SecurityNegotiation);
    let moved = hand.hear(redirect(1, &["TargetAddress=10.0.0.1"]));
    assert!(matches!(moved, Some(End::Redirected(_))));
    assert_eq!(hand.log, ["send", "redirected"], "nothing was allocated yet");
}

/// A target may not end the security stage by itself, nor skip what this end wants (RFC 7143 section 9.2).
// req: 7143-9.2-3, 7143-6.3.2-5, 7143-12.1-1
#[cfg(feature = "chap")]
#[test]
fn security_cannot_be_skipped() {
    use iscsi_login::auth::{ChallengeKey, ChapCredentials, ChapInitiator, Secret};
    let c = |n: &str| ChapCredentials::new(n, Secret::parse(&format!("secret of {n}...")).unwrap()).unwrap();
    let mutual = || ChapInitiator::new(c("alice"), Some(c("storage")), ChallengeKey::new([1; 32])).unwrap();
    let secure = |n, next, pairs: &[&str]| LoginResponse { csg: Stage(0), ..response(n, next, pairs) };
    let run = |responses: Vec<LoginResponse<Bytes>>| {
        let mut hand = Hand::with(normal(InitiatorAuth::Chap(Box::new(mutual()))));
        let mut end = None;
        for r in responses {
            end = hand.hear(r);
        }
        end.unwrap().failed().rule
    };
    let chosen = || secure(1, None, &["AuthMethod=CHAP", "TargetPortalGroupTag=1"]);
    let asked = || secure(2, None, &["CHAP_A=5", "CHAP_I=1", "CHAP_C=0x00010203"]);
    assert_eq!(run(vec![secure(1, Some(1), &[])]), Rule::Stage, "T was not asked for");
    assert_eq!(run(vec![secure(1, None, &[])]), Rule::Unanswered(Key::AuthMethod));
    assert_eq!(run(vec![secure(1, None, &["AuthMethod=None"])]), Rule::Answer(Key::AuthMethod));
    assert_eq!(run(vec![secure(1, None, &["AuthMethod=SRP"])]), Rule::Answer(Key::AuthMethod));
    assert_eq!(run(vec![secure(1, None, &["AuthMethod=Reject"])]), Rule::AuthMethod);
    assert_eq!(run(vec![secure(1, None, &["AuthMethod=CHAP", "CHAP_A=5"])]), Rule::AuthStep);
    assert_eq!(
        run(vec![chosen(), secure(2, None, &["CHAP_A=9", "CHAP_I=1", "CHAP_C=0x00"])]),
        Rule::Answer(Key::ChapA)
    );
    assert_eq!(run(vec![chosen(), secure(2, None, &["CHAP_A=5"])]), Rule::Missing(Key::ChapI));
    // The stage ends without the target's proof.
    assert_eq!(run(vec![chosen(), asked(), secure(3, Some(1), &[])]), Rule::Missing(Key::ChapN));
    assert_eq!(
        run(vec![chosen(), asked(), secure(3, Some(1), &["CHAP_N=storage"])]),
        Rule::Missing(Key::ChapR)
    );
    let forged = ["CHAP_N=storage", "CHAP_R=0x00112233445566778899aabbccddeeff"];
    assert_eq!(run(vec![chosen(), asked(), secure(3, Some(1), &forged)]), Rule::AuthFailed);
    assert_eq!(
        run(vec![chosen(), asked(), secure(3, None, &["MaxBurstLength=65536"])]),
        Rule::NotAllowedHere(Key::MaxBurstLength)
    );
}

/// Other PDUs (RFC 7143 sections 4.2.4, 11.17.1).
// req: 7143-4.2.4-2, 7143-4.2.4-7, 7143-11.17.1-2, 7143-7.12-1
#[test]
fn pdus_that_are_not_login() {
    let reset = Reject { reason: RejectReason::NegotiationReset, ..Reject::default() };
    for other in [Pdu::NopIn(NopIn::default()), Pdu::Reject(reset)] {
        let mut hand = Hand::new();
        let opcode = other.opcode();
        hand.machine.handle_pdu(hand.t0, other);
        let failure = hand.drive().unwrap().failed();
        assert_eq!((failure.rule, failure.status), (Rule::NotLogin(opcode), None));
        assert_eq!(hand.sent.len(), 1);
    }
}

/// The portal group that was meant (RFC 7143 section 6.3.1).
#[test]
fn portal_group() {
    for (expected, ok) in [(None, true), (Some(1), true), (Some(2), false)] {
        let config =
            InitiatorLoginConfig { expected_portal_group_tag: expected, ..normal(InitiatorAuth::None) };
        match Hand::with(config).hear(last()).unwrap() {
            End::Enabled(_) => assert!(ok),
            other => assert_eq!((other.failed().rule, ok), (Rule::PortalGroup, false)),
        }
    }
}

// req: 7143-6.2-22, 7143-10.3-1
#[test]
fn time_and_exchanges_are_bounded() {
    let mut hand = Hand::new();
    let due = hand.machine.poll_timeout().unwrap();
    hand.machine.handle_timeout(due);
    let failure = hand.drive().unwrap().failed();
    assert_eq!((failure.rule, failure.may_retry()), (Rule::Timeout, true));
    // Endless T=0.
    let mut hand = Hand::new();
    let end = (0..).find_map(|n| hand.hear(response(n, None, &[]))).unwrap();
    assert_eq!(end.failed().rule, Rule::Budget(Bound::Pdus));
    assert!(hand.sent.len() <= 100);
}

/// Resources are refused: nothing is sent that would need them.
// req: 7145-3.3-3, 7145-10.1.3.1-5
#[test]
fn no_resources() {
    let mut machine = InitiatorLogin::new(normal(InitiatorAuth::None).into(), start(), [3; 32], now());
    let mut log = Vec::new();
    let (sent, end) = drive_initiator(&mut machine, false, &mut log);
    assert!(sent.is_empty());
    assert_eq!(end.unwrap().failed().rule, Rule::Resources);
    assert_eq!(log, ["allocate", "failed"]);
}

/// A response when none is due, or after the end.
// req: 7143-6.3-1
#[test]
fn responses_that_nobody_asked_for() {
    let mut machine = InitiatorLogin::new(normal(InitiatorAuth::None).into(), start(), [3; 32], now());
    machine.handle_response(now(), last());
    let mut log = Vec::new();
    let (_, end) = drive_initiator(&mut machine, true, &mut log);
    assert_eq!(end.unwrap().failed().rule, Rule::OneOutstanding);
    let mut hand = Hand::new();
    hand.hear(last());
    assert!(hand.hear(last()).is_none());
}

/// The machine in every state, against every call.
#[test]
fn state_event_matrix() {
    fn machine() -> InitiatorLogin {
        InitiatorLogin::new(normal(InitiatorAuth::None).into(), start(), [3; 32], now())
    }
    fn drained(mut m: InitiatorLogin) -> InitiatorLogin {
        while m.poll_output().is_some() {}
        m
    }
    fn exchange() -> InitiatorLogin {
        let mut m = drained(machine());
        m.handle_resources(true);
        drained(m)
    }
    /// iSER was hoped for and refused in the final response: resources anew.
    fn plain() -> InitiatorLogin {
        let mut config = normal(InitiatorAuth::None);
        config.preferences.rdma_extensions = RdmaPolicy::Allow;
        let mut m = drained(InitiatorLogin::new(config.into(), start(), [3; 32], now()));
        m.handle_resources(true);
        let mut m = drained(m);
        m.handle_response(now(), last());
        drained(m)
    }
    fn enabled() -> InitiatorLogin {
        let mut m = exchange();
        m.handle_response(now(), last());
        drained(m)
    }
    fn failed() -> InitiatorLogin {
        let mut m = exchange();
        m.handle_response(now(), redirect(1, &[]));
        drained(m)
    }
    type Reach = fn() -> InitiatorLogin;
    type Apply = fn(&mut InitiatorLogin);
    let states: [(&str, Reach); 5] = [
        ("resources", || drained(machine())),
        ("exchange", exchange),
        ("plain", plain),
        ("enabled", enabled),
        ("failed", failed),
    ];
    let events: [(&str, Apply); 8] = [
        ("final response", |m| m.handle_response(now(), last())),
        ("response", |m| m.handle_response(now(), response(100, None, &[]))),
        ("status", |m| {
            m.handle_response(now(), LoginResponse { status_class: 3, ..LoginResponse::default() })
        }),
        ("redirection", |m| m.handle_response(now(), redirect(1, &["TargetAddress=10.0.0.1"]))),
        ("nop", |m| m.handle_pdu(now(), Pdu::NopIn(NopIn::default()))),
        ("granted", |m| m.handle_resources(true)),
        ("refused", |m| m.handle_resources(false)),
        ("time is up", |m| m.handle_timeout(later(now(), 60))),
    ];
    let mut table = String::new();
    for (state, reach) in states {
        for (event, apply) in &events {
            let mut m = reach();
            apply(&mut m);
            let mut out = Vec::new();
            while let Some(output) = m.poll_output() {
                out.push(match output {
                    LoginOutput::Send(_) => "send".to_owned(),
                    LoginOutput::Allocate(_) => "allocate?".into(),
                    LoginOutput::Deallocate => "deallocate".into(),
                    LoginOutput::Enable { .. } => "enable".into(),
                    LoginOutput::Redirected(_) => "redirected".into(),
                    LoginOutput::Failed(f) => format!("failed {:?}", f.rule),
                    other => format!("{other:?}"),
                });
            }
            let out = if out.is_empty() { "-".into() } else { out.join(", ") };
            table += &format!("{state:<9} | {event:<14} | {out}\n");
        }
    }
    assert_eq!(table, MATRIX, "\n{table}");
}

const MATRIX: &str = "\
resources | final response | deallocate, failed OneOutstanding
resources | response       | deallocate, failed OneOutstanding
resources | status         | deallocate, failed OneOutstanding
resources | redirection    | deallocate, failed OneOutstanding
resources | nop            | deallocate, failed NotLogin(NopIn)
resources | granted        | send
resources | refused        | failed Resources
resources | time is up     | deallocate, failed Timeout
exchange  | final response | enable
exchange  | response       | send
exchange  | status         | deallocate, failed PeerStatus
exchange  | redirection    | deallocate, redirected
exchange  | nop            | deallocate, failed NotLogin(NopIn)
exchange  | granted        | -
exchange  | refused        | -
exchange  | time is up     | deallocate, failed Timeout
plain     | final response | deallocate, failed OneOutstanding
plain     | response       | deallocate, failed OneOutstanding
plain     | status         | deallocate, failed OneOutstanding
plain     | redirection    | deallocate, failed OneOutstanding
plain     | nop            | deallocate, failed NotLogin(NopIn)
plain     | granted        | enable
plain     | refused        | failed Resources
plain     | time is up     | deallocate, failed Timeout
enabled   | final response | -
enabled   | response       | -
enabled   | status         | -
enabled   | redirection    | -
enabled   | nop            | -
enabled   | granted        | -
enabled   | refused        | -
enabled   | time is up     | -
failed    | final response | -
failed    | response       | -
failed    | status         | -
failed    | redirection    | -
failed    | nop            | -
failed    | granted        | -
failed    | refused        | -
failed    | time is up     | -
";
