//! Security stage, both ends: RFC 7143 sections 6.3.2, 9.2, 12.1 and appendix B.
#![cfg(feature = "chap")]

mod common;

use common::*;
use iscsi_login::{auth::*, *};
use iscsi_pdu::{Cid, CmdSn, LoginRequest, Stage, Tsih};

fn secret(s: &str) -> Secret {
    Secret::parse(s).unwrap()
}

fn alice() -> ChapCredentials {
    ChapCredentials::new("alice", secret("secret of alice")).unwrap()
}

fn storage() -> ChapCredentials {
    ChapCredentials::new("storage", secret("secret of storage")).unwrap()
}

fn initiator_chap(target: Option<ChapCredentials>) -> Box<ChapInitiator> {
    Box::new(ChapInitiator::new(alice(), target, ChallengeKey::new([1; 32])).unwrap())
}

fn target_chap() -> Box<ChapTarget> {
    Box::new(ChapTarget::new(ChallengeKey::new([2; 32])))
}

fn caller(auth: TargetAuth, target: Option<ChapCredentials>) -> Caller {
    let mut caller = Caller::new(grant(auth));
    caller.account = Some(ChapAccount::new(alice(), Some(name(INITIATOR)), target).unwrap());
    caller
}

fn stages(login: &Login) -> Vec<(u8, u8, bool)> {
    login.requests.iter().map(|r| (r.csg.0, r.nsg.0, r.transit)).collect()
}

fn keys(data: &[u8]) -> Vec<String> {
    lines(data).iter().map(|l| l.split('=').next().unwrap().to_owned()).collect()
}

/// The CHAP example of RFC 7143 appendix B: initiator alone, then both.
// req: 7143-12.1-1, 7143-12.1.3-1, 7143-12.1.3-2, 7143-12.1.3-3, 7143-9.2-1, 7143-6.3.2-1, 7143-6.3.3-1
// req: 7143-4.2.4-1, 7143-9.1-1, 7143-12.1-2, 7143-12.1-3, 5047-11.1-1
#[test]
fn the_rfcs_example() {
    for mutual in [false, true] {
        let theirs = mutual.then(storage);
        let login = run(
            normal(InitiatorAuth::Chap(initiator_chap(theirs.clone()))),
            TargetLoginConfig::default(),
            &mut caller(TargetAuth::Chap(target_chap()), theirs),
        );
        assert_eq!(stages(&login), [(0, 0, false), (0, 0, false), (0, 1, true), (1, 3, true)]);
        let sent: Vec<_> = login.requests.iter().map(|r| keys(&r.data)).collect();
        assert_eq!(sent[0], ["InitiatorName", "TargetName", "SessionType", "AuthMethod"]);
        assert_eq!(sent[1], ["CHAP_A"]);
        let with_challenge: &[&str] = &["CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"];
        assert_eq!(sent[2], if mutual { with_challenge } else { &with_challenge[..2] });
        let got: Vec<_> = login.responses.iter().map(|r| keys(&r.data)).collect();
        assert_eq!(got[0], ["AuthMethod", "TargetPortalGroupTag"]);
        assert_eq!(got[1], ["CHAP_A", "CHAP_I", "CHAP_C"]);
        assert_eq!(got[2], if mutual { vec!["CHAP_N", "CHAP_R"] } else { vec![] });
        let (i, t) = (login.initiator.enabled(), login.target.as_ref().unwrap().enabled());
        let identity = |a: &AuthIdentity| match a {
            AuthIdentity::Chap { initiator, target } => {
                (initiator.to_string(), target.as_deref().map(str::to_owned))
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(identity(&i.auth), ("alice".into(), mutual.then(|| "storage".into())));
        assert_eq!(i.auth, t.auth);
        // Resources come after authentication, at both ends.
        assert_eq!(login.initiator_log, ["send", "send", "send", "allocate", "send", "enable"]);
        assert_eq!(
            login.target_log,
            ["access", "send", "send", "secret", "send", "notice", "allocate", "enable"]
        );
    }
}

/// Every pair of policies.
// req: 7143-6.3.1-4, 7143-12.1-5, 7143-12.1-10, 7143-9.1-2, 7143-9-1, 7143-6.3.2-1, 7143-6.3.2-2, 7143-6.3-6
#[test]
fn policies() {
    let i_none = || InitiatorAuth::None;
    let i_chap = || InitiatorAuth::Chap(initiator_chap(None));
    let i_any = || InitiatorAuth::ChapOrNone(initiator_chap(None));
    let t_none = || TargetAuth::None;
    let t_chap = || TargetAuth::Chap(target_chap());
    let t_any = || TargetAuth::ChapOrNone(target_chap());
    type Case<'a> = (&'a dyn Fn() -> InitiatorAuth, &'a dyn Fn() -> TargetAuth, Option<bool>);
    let cases: [Case<'_>; 9] = [
        (&i_none, &t_none, Some(false)),
        (&i_none, &t_chap, None),
        (&i_none, &t_any, Some(false)),
        (&i_chap, &t_none, None),
        (&i_chap, &t_chap, Some(true)),
        (&i_chap, &t_any, Some(true)),
        (&i_any, &t_none, Some(false)),
        (&i_any, &t_chap, Some(true)),
        (&i_any, &t_any, Some(true)),
    ];
    for (i, t, authenticated) in cases {
        let login = run(normal(i()), TargetLoginConfig::default(), &mut caller(t(), None));
        match authenticated {
            Some(yes) => assert_eq!(login.initiator.enabled().auth.is_authenticated(), yes),
            None => {
                let failure = login.initiator.failed();
                assert_eq!(failure.status, Some(LoginStatus::AUTHENTICATION_FAILURE));
                assert!(!failure.may_retry());
            }
        }
    }
    // What may be offered without target authentication may not with it: None would get around it.
    let both = InitiatorAuth::ChapOrNone(initiator_chap(Some(storage())));
    let login =
        run(normal(both), TargetLoginConfig::default(), &mut caller(TargetAuth::None, Some(storage())));
    assert!(lines(&login.requests[0].data).contains(&"AuthMethod=CHAP".into()));
    assert_eq!(login.initiator.failed().status, Some(LoginStatus::AUTHENTICATION_FAILURE));
}

/// Choosing None ends the stage in one exchange (RFC 7143 appendix B).
#[test]
fn choosing_none() {
    let auth = InitiatorAuth::ChapOrNone(initiator_chap(None));
    let login = run(normal(auth), TargetLoginConfig::default(), &mut caller(TargetAuth::None, None));
    assert_eq!(stages(&login), [(0, 1, true), (1, 3, true)]);
    assert!(lines(&login.responses[0].data).contains(&"AuthMethod=None".into()));
}

// req: 7143-12.1.3-4, 7143-6.3.2-4, 7143-9.2-5
#[test]
fn wrong_secret() {
    let mut caller = caller(TargetAuth::Chap(target_chap()), None);
    let wrong = ChapCredentials::new("alice", secret("not her secret")).unwrap();
    caller.account = Some(ChapAccount::new(wrong, None, None).unwrap());
    let login =
        run(normal(InitiatorAuth::Chap(initiator_chap(None))), TargetLoginConfig::default(), &mut caller);
    assert_eq!(login.initiator.failed().status, Some(LoginStatus::AUTHENTICATION_FAILURE));
    assert_eq!(login.target.unwrap().failed().rule, Rule::AuthFailed);
    let last = login.responses.last().unwrap();
    assert!(!last.transit && last.csg.0 == 0 && last.nsg.0 == 0, "reserved in a reject");
}

// req: 7143-12.1.3-6, 7143-6.3.2-5
#[test]
fn wrong_target() {
    let impostor = ChapCredentials::new("storage", secret("a guessed secret")).unwrap();
    let login = run(
        normal(InitiatorAuth::Chap(initiator_chap(Some(storage())))),
        TargetLoginConfig::default(),
        &mut caller(TargetAuth::Chap(target_chap()), Some(impostor)),
    );
    let failure = login.initiator.failed();
    assert_eq!((failure.rule, failure.status), (Rule::AuthFailed, None), "closed without a word");
}

/// Target authentication asked for and not configured at the target.
// req: 7143-12.1.3-5
#[test]
fn mutual_not_configured() {
    let login = run(
        normal(InitiatorAuth::Chap(initiator_chap(Some(storage())))),
        TargetLoginConfig::default(),
        &mut caller(TargetAuth::Chap(target_chap()), None),
    );
    assert_eq!(login.initiator.failed().status, Some(LoginStatus::AUTHENTICATION_FAILURE));
}

/// The account of one node under the name of another.
// req: 7143-9.2-8, 7143-9.2-9, 7143-9.2-10
#[test]
fn impersonation() {
    let mut caller = caller(TargetAuth::Chap(target_chap()), None);
    caller.account =
        Some(ChapAccount::new(alice(), Some(name("iqn.2024-01.org.example:other")), None).unwrap());
    let login =
        run(normal(InitiatorAuth::Chap(initiator_chap(None))), TargetLoginConfig::default(), &mut caller);
    assert_eq!(login.initiator.failed().status, Some(LoginStatus::AUTHENTICATION_FAILURE));
}

/// All connections of a session have one identity and one method.
// req: 7143-9.2-11, 7143-9.2-12, 7143-9.2-13
#[test]
fn a_second_connection_with_another_identity() {
    let first = run(
        normal(InitiatorAuth::Chap(initiator_chap(None))),
        TargetLoginConfig::default(),
        &mut caller(TargetAuth::Chap(target_chap()), None),
    );
    let n = first.target.unwrap();
    let n = n.enabled();
    let session = |auth: AuthIdentity| ExistingSession {
        tsih: n.tsih,
        session: n.session,
        auth,
        exp_cmd_sn: CmdSn(1),
        max_cmd_sn: CmdSn(9),
    };
    let second = |i: InitiatorAuth, at_i: AuthIdentity, at_t: AuthIdentity| {
        let mut caller = caller(TargetAuth::ChapOrNone(target_chap()), None);
        let mut grant = grant(TargetAuth::ChapOrNone(target_chap()));
        grant.session = Some(session(at_t));
        caller.decision = AccessDecision::Grant(Box::new(grant));
        let from = LoginStart { cid: Cid(2), session: Some(session(at_i)), ..start() };
        run_from(normal(i), from, TargetLoginConfig::default(), &mut caller)
    };
    let chap = || InitiatorAuth::Chap(initiator_chap(None));
    let same = second(chap(), n.auth.clone(), n.auth.clone());
    assert_eq!(same.initiator.enabled().auth, n.auth);
    // Unauthenticated into an authenticated session.
    let none = second(InitiatorAuth::None, AuthIdentity::None, n.auth.clone());
    assert_eq!(none.target.unwrap().failed().rule, Rule::IdentityChanged);
    assert_eq!(none.initiator.failed().status, Some(LoginStatus::AUTHENTICATION_FAILURE));
    // Authenticated into an unauthenticated one.
    let mixed = second(chap(), n.auth.clone(), AuthIdentity::None);
    assert_eq!(mixed.target.unwrap().failed().rule, Rule::IdentityChanged);
    // The initiator checks too.
    let own = second(chap(), AuthIdentity::None, n.auth.clone());
    assert_eq!(own.initiator.failed().rule, Rule::IdentityChanged);
}

/// A target driven by hand through the security stage.
struct ByHand {
    target: TargetLogin,
    caller: Caller,
}

impl ByHand {
    fn new(auth: TargetAuth) -> Self {
        let target = TargetLogin::new(TargetLoginConfig::default().into(), [7; 32], now());
        Self { target, caller: caller(auth, None) }
    }

    fn send(
        &mut self,
        transit: bool,
        nsg: u8,
        pairs: &[&str],
    ) -> (iscsi_pdu::LoginResponse<bytes::Bytes>, Option<End>) {
        let request =
            LoginRequest { transit, csg: Stage(0), nsg: Stage(nsg), data: text(pairs), ..Default::default() };
        self.target.handle_request(now(), request);
        let (mut sent, end) = drive_target(&mut self.target, &mut self.caller);
        assert_eq!(sent.len(), 1);
        (sent.remove(0), end)
    }

    fn first(
        &mut self,
        transit: bool,
        nsg: u8,
        more: &[&str],
    ) -> (iscsi_pdu::LoginResponse<bytes::Bytes>, Option<End>) {
        let (i, t) = (format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}"));
        let mut pairs = vec![i.as_str(), t.as_str()];
        pairs.extend(more);
        self.send(transit, nsg, &pairs)
    }
}

fn status(r: &iscsi_pdu::LoginResponse<bytes::Bytes>) -> (u8, u8) {
    (r.status_class, r.status_detail)
}

/// AuthMethod lists of all kinds, against a target that wants CHAP.
// req: 7143-6.3.2-1, 7143-6.3.2-2, 7143-6.2.1-3, 7143-12.1-4, 7143-12.1-6, 7143-12.1-7, 7143-12.1-9, 7143-15-3
// req: 7143-9.2-2, 7143-9.2.3-1, 7143-9.2.2-1
#[test]
fn method_lists() {
    for (offer, chosen) in [
        ("CHAP", true),
        ("KRB5,CHAP,None", true),
        ("Z-com.example.auth,SRP,CHAP", true),
        ("foo auth,Z#foo,CHAP", true),
        ("SRP", false),
        ("KRB5", false),
        ("SPKM1,SPKM2", false),
        ("None", false),
        ("chap", false),
        ("", false),
    ] {
        let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
        let (response, end) = hand.first(false, 0, &[&format!("AuthMethod={offer}")]);
        if chosen {
            assert!(lines(&response.data).contains(&"AuthMethod=CHAP".into()), "{offer}");
        } else {
            assert_eq!(status(&response), (2, 1), "{offer}");
            assert_eq!(end.unwrap().failed().rule, Rule::AuthMethod);
        }
    }
    let (response, _) = ByHand::new(TargetAuth::Chap(target_chap())).first(false, 0, &["AuthMethod=Reject"]);
    assert_eq!(status(&response), (2, 0));
}

/// The initiator proposes nothing: the target does, or lets it pass (RFC 7143 sections 6.3.1, 6.3.2).
// req: 7143-12.1-1, 7143-6.3.1-1
#[test]
fn directed_by_the_target() {
    let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
    let (response, _) = hand.first(true, 1, &[]);
    assert!(!response.transit);
    assert_eq!(lines(&response.data), ["AuthMethod=CHAP", "TargetPortalGroupTag=1"]);
    // The selection comes with the first step.
    let (response, _) = hand.send(true, 1, &["AuthMethod=CHAP", "CHAP_A=7,5"]);
    assert_eq!(lines(&response.data)[0], "CHAP_A=7");
    assert!(!response.transit);

    let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
    hand.first(true, 1, &[]);
    assert_eq!(status(&hand.send(true, 1, &["AuthMethod=CHAP"]).0), (2, 0), "without its first step");
    let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
    hand.first(true, 1, &[]);
    assert_eq!(status(&hand.send(true, 1, &["AuthMethod=Reject"]).0), (2, 1));
    let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
    hand.first(true, 1, &[]);
    assert_eq!(status(&hand.send(true, 1, &[]).0), (2, 7), "nothing at all");

    let mut hand = ByHand::new(TargetAuth::None);
    let (response, _) = hand.first(true, 1, &[]);
    assert!(response.transit);
    assert_eq!(lines(&response.data), ["TargetPortalGroupTag=1"]);
}

/// Steps that do not fit: status 0200 or 0207, never 0201 (RFC 7143 section 9.2).
// req: 7143-9.2-4, 7143-6.3-17, 7143-6.3-18
#[test]
fn steps_that_do_not_fit() {
    let run = |texts: &[&[&str]]| {
        let mut hand = ByHand::new(TargetAuth::Chap(target_chap()));
        let mut last = hand.first(false, 0, &["AuthMethod=CHAP"]).0;
        for text in texts {
            last = hand.send(false, 0, text).0;
        }
        status(&last)
    };
    assert_eq!(run(&[&[]]), (2, 7));
    assert_eq!(run(&[&["CHAP_N=alice", "CHAP_R=0x00"]]), (2, 0));
    assert_eq!(run(&[&["CHAP_A=5"], &["CHAP_N=alice"]]), (2, 7));
    assert_eq!(run(&[&["CHAP_A=5"], &["CHAP_A=5"]]), (2, 0), "repeated");
    assert_eq!(run(&[&["CHAP_A=5"], &["AuthMethod=CHAP"]]), (2, 0), "chosen twice");
    assert_eq!(run(&[&["CHAP_A=99"]]), (2, 1));
    assert_eq!(run(&[&["CHAP_A=x"]]), (2, 0));
    assert_eq!(run(&[&["CHAP_A=5"], &["CHAP_N=alice", "CHAP_R=0x00"]]), (2, 1), "merely wrong");
    // CHAP keys before a method is chosen.
    let (response, _) = ByHand::new(TargetAuth::Chap(target_chap())).first(false, 0, &["CHAP_A=5"]);
    assert_eq!(status(&response), (2, 0));
}

/// From the security stage straight to full feature phase, where the target needs nothing more.
// req: 7143-6.3.2-3, 7143-6.3-12, 7143-6.3-6, 7143-6.3-8
#[test]
fn straight_to_full_feature_phase() {
    let mut hand = ByHand::new(TargetAuth::None);
    let (response, end) = hand.first(true, 3, &["AuthMethod=None"]);
    assert!(response.transit);
    assert_eq!((response.nsg, response.tsih), (Stage::FullFeaturePhase, Tsih(7)));
    assert_eq!(end.unwrap().enabled().session, SessionParams::default());

    let mut hand = ByHand::new(TargetAuth::None);
    let needs = Preferences { immediate_data: false, ..Preferences::default() };
    hand.caller.decision =
        AccessDecision::Grant(Box::new(Grant { preferences: Some(needs), ..grant(TargetAuth::None) }));
    let (response, _) = hand.first(true, 3, &["AuthMethod=None"]);
    assert!(response.transit);
    assert_eq!(response.nsg, Stage::LoginOperationalNegotiation, "not beyond what was asked, and no further");
}

/// Only the keys of section 12 in this stage.
// req: 7143-12-1, 7143-6.3-11, 7145-5.1-2
#[test]
fn operational_keys_wait() {
    for line in
        ["MaxBurstLength=65536", "MaxRecvDataSegmentLength=65536", "RDMAExtensions=Yes", "SendTargets=All"]
    {
        let (response, end) = ByHand::new(TargetAuth::None).first(true, 1, &["AuthMethod=None", line]);
        assert_eq!(status(&response), (2, 0), "{line}");
        assert!(matches!(end.unwrap().failed().rule, Rule::NotAllowedHere(_)));
    }
}

/// Room for the very long items of methods such as Kerberos, where a configuration allows for it.
// req: 7143-6.1-5
#[test]
fn long_items_fit_a_larger_budget() {
    let budget = LoginBudget { text: 1 << 17, pdus: 200, ..LoginBudget::default() };
    let config = TargetLoginConfig { budget, ..TargetLoginConfig::default() };
    let mut target = TargetLogin::new(config.into(), [7; 32], now());
    let mut caller = caller(TargetAuth::Chap(target_chap()), None);
    // 64 KiB of text around the method exchange, a few hundred bytes a value.
    let mut data = text(&[&format!("InitiatorName={INITIATOR}"), &format!("TargetName={TARGET}")]).to_vec();
    for n in 0..240 {
        data.extend(format!("X-com.example.{n:030}={}\0", "v".repeat(230)).bytes());
    }
    data.extend(b"AuthMethod=CHAP\0");
    assert!(data.len() > 65_000);
    let mut chunks = data.chunks(8192).peekable();
    let mut answered = Vec::new();
    while let Some(chunk) = chunks.next() {
        let continue_text = chunks.peek().is_some();
        let request = LoginRequest { continue_text, data: chunk.to_vec().into(), ..Default::default() };
        target.handle_request(now(), request);
        let (sent, _) = drive_target(&mut target, &mut caller);
        assert_eq!(status(&sent[0]), (0, 0));
        answered.extend(sent[0].data.to_vec());
        if !continue_text {
            assert!(sent[0].continue_text, "the answer takes several PDUs too");
        }
    }
    target.handle_request(now(), LoginRequest::default());
    let (sent, _) = drive_target(&mut target, &mut caller);
    answered.extend(sent[0].data.to_vec());
    assert!(lines(&answered).contains(&"AuthMethod=CHAP".into()));
}
