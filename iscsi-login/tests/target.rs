//! The target's machine against requests of every kind.

mod common;

use bytes::Bytes;
use common::*;
use iscsi_login::*;
use iscsi_pdu::{
    Cid, CmdSn, Isid, Itt, LoginRequest, LoginResponse, LogoutRequest, NopOut, Pdu, Stage, TextRequest, Tsih,
};
use std::time::Instant;

struct Hand {
    target: TargetLogin,
    caller: Caller,
    t0: Instant,
}

impl Hand {
    fn new() -> Self {
        Self::with(TargetLoginConfig::default(), grant(TargetAuth::None))
    }

    fn with(config: TargetLoginConfig, grant: Grant) -> Self {
        let t0 = now();
        Self { target: TargetLogin::new(config.into(), [3; 32], t0), caller: Caller::new(grant), t0 }
    }

    fn send(&mut self, r: LoginRequest<Bytes>) -> (LoginResponse<Bytes>, Option<End>) {
        self.target.handle_request(self.t0, r);
        let (mut sent, end) = drive_target(&mut self.target, &mut self.caller);
        assert_eq!(sent.len(), 1, "each request has one response");
        (sent.remove(0), end)
    }
}

fn status(r: &LoginResponse<Bytes>) -> (u8, u8) {
    (r.status_class, r.status_detail)
}

/// The status and rule that `requests`, sent one after the other, end with.
fn outcome(requests: Vec<LoginRequest<Bytes>>) -> ((u8, u8), Option<Rule>) {
    let mut hand = Hand::new();
    let mut last = None;
    for r in requests {
        last = Some(hand.send(r));
    }
    let (response, end) = last.unwrap();
    let rule = match end {
        Some(End::Failed(f)) => {
            // req: 7143-6.3.1-3, 7143-11.13.5-5
            assert_eq!(
                (response.transit, response.csg.0, response.nsg.0),
                (false, 0, 0),
                "reserved in a reject"
            );
            assert_eq!(f.status.map(|s| (s.class, s.detail)), Some(status(&response)));
            assert!(hand.target.is_over() && hand.target.poll_timeout().is_none());
            Some(f.rule)
        }
        _ => None,
    };
    (status(&response), rule)
}

/// Names that must be there (RFC 7143 section 6.3).
// req: 7143-6.3-2, 7143-6.3-3, 7143-6.3-4, 7143-6.3-5, 7143-4.2.7.1-4, 7143-4.2.7.1-5, 7143-13.4-1, 7143-13.5-1
#[test]
fn missing_names() {
    let (i, t) = (&*format!("InitiatorName={INITIATOR}"), &*format!("TargetName={TARGET}"));
    let try_with = |pairs: &[&str]| outcome(vec![request(1, Some(3), pairs)]);
    let missing = |key| ((2, 7), Some(Rule::Missing(key)));
    assert_eq!(try_with(&[]), missing(Key::InitiatorName));
    assert_eq!(try_with(&[t]), missing(Key::InitiatorName));
    assert_eq!(try_with(&[i]), missing(Key::TargetName));
    assert_eq!(try_with(&[i, "SessionType=Normal"]), missing(Key::TargetName));
    assert_eq!(try_with(&["SessionType=Discovery"]), missing(Key::InitiatorName));
    assert_eq!(try_with(&[i, "SessionType=Discovery"]), ((0, 0), None));
    assert_eq!(try_with(&[i, t]), ((0, 0), None));
}

// req: 7143-13.21-3, 7143-4.2.7.3-1, 7143-13.9-1, 7143-6.3-11
#[test]
fn bad_names() {
    let value = |key| ((2, 0), Some(Rule::Value(key)));
    let i = &*format!("InitiatorName={INITIATOR}");
    assert_eq!(outcome(vec![request(1, None, &["InitiatorName=host"])]), value(Key::InitiatorName));
    assert_eq!(outcome(vec![request(1, None, &[i, "TargetName="])]), value(Key::TargetName));
    assert_eq!(outcome(vec![request(1, None, &[i, "SessionType=Other"])]), value(Key::SessionType));
    let refused = |key| ((2, 0), Some(Rule::NotAllowedHere(key)));
    // Keys that are the target's, or of full feature phase.
    for (line, key) in [
        ("TargetPortalGroupTag=1", Key::TargetPortalGroupTag),
        ("TargetAlias=x", Key::TargetAlias),
        ("TargetAddress=10.0.0.1", Key::TargetAddress),
        ("SendTargets=All", Key::SendTargets),
        ("AuthMethod=None", Key::AuthMethod),
        ("CHAP_A=5", Key::ChapA),
    ] {
        // req: 7143-13.3-1, 7143-6.3-10
        assert_eq!(outcome(vec![first(1, Some(3), &[line])]), refused(key), "{line}");
    }
}

/// Each key once in a login (RFC 7143 section 6.3).
// req: 7143-6.3-17, 7143-6.3-18, 7143-13.4-2, 7143-13.5-2, 7143-13.26.1-2
#[test]
fn repeated_keys() {
    let names = names();
    for (line, key) in [
        (names[0].as_str(), Key::InitiatorName),
        (names[1].as_str(), Key::TargetName),
        ("SessionType=Normal", Key::SessionType),
        ("InitiatorAlias=x", Key::InitiatorAlias),
        ("MaxBurstLength=65536", Key::MaxBurstLength),
        ("MaxRecvDataSegmentLength=65536", Key::MaxRecvDataSegmentLength),
        ("X#NodeArchitecture=x", Key::NodeArchitecture),
    ] {
        let twice = ((2, 0), Some(Rule::Repeated(key)));
        let is_name = matches!(key, Key::InitiatorName | Key::TargetName);
        let opening = if is_name { vec![] } else { vec![line] };
        assert_eq!(outcome(vec![first(1, None, &opening), request(1, None, &[line])]), twice, "two requests");
        let again = if is_name { vec![line] } else { vec![line, line] };
        assert_eq!(outcome(vec![first(1, None, &again)]), twice, "one request");
    }
}

/// Header fields of later requests (RFC 7143 section 11.12).
// req: 7143-11.12.4.1-2, 7143-11.12.4.2-2, 7143-11.12.6-3, 7143-11.12.7-2, 7143-11.12-2
#[test]
fn header_fields_stay() {
    type Change = fn(&mut LoginRequest<Bytes>);
    let changes: [Change; 6] = [
        |r| r.version_max = 1,
        |r| r.version_min = 1,
        |r| r.isid = Isid::random([9, 9, 9], 9),
        |r| r.tsih = Tsih(1),
        |r| r.itt = Itt(99),
        |r| r.cid = Cid(99),
    ];
    for change in changes {
        let mut second = request(1, Some(3), &[]);
        change(&mut second);
        assert_eq!(outcome(vec![first(1, None, &[]), second]), ((2, 0), Some(Rule::HeaderChanged)));
    }
    assert_eq!(outcome(vec![first(1, None, &[]), request(1, Some(3), &[])]), ((0, 0), None));
}

// req: 7143-11.12.4-2
#[test]
fn versions() {
    for (min, max, ok) in [(0, 0, true), (0, 9, true), (1, 1, false), (1, 0, false), (2, 255, false)] {
        let r = LoginRequest { version_min: min, version_max: max, ..first(1, Some(3), &[]) };
        let expected = if ok { ((0, 0), None) } else { ((2, 5), Some(Rule::Version)) };
        assert_eq!(outcome(vec![r.clone()]), expected);
        assert_eq!(Hand::new().send(r).0.version_active, 0);
    }
}

/// Illegal stages in requests; the full matrix is with the table in `stage.rs`.
// req: 7143-6.3-7, 7143-6.3-9, 7143-6.3-15, 7143-6.2-1
#[test]
fn stages() {
    let bad = ((2, 0), Some(Rule::Stage));
    assert_eq!(outcome(vec![first(3, None, &[])]), bad);
    assert_eq!(outcome(vec![first(2, None, &[])]), bad);
    assert_eq!(outcome(vec![first(1, Some(0), &[])]), bad);
    assert_eq!(outcome(vec![first(1, Some(1), &[])]), bad);
    assert_eq!(outcome(vec![first(1, Some(2), &[])]), bad);
    assert_eq!(outcome(vec![first(0, Some(0), &[])]), bad);
    assert_eq!(outcome(vec![first(1, None, &[]), request(0, None, &[])]), bad);
    assert_eq!(outcome(vec![first(0, None, &[]), request(1, None, &[])]), bad, "not left yet");
    let both = LoginRequest { continue_text: true, ..first(1, Some(3), &[]) };
    assert_eq!(outcome(vec![both]), ((2, 0), Some(Rule::ContinueWithTransit)));
}

/// T in the response only if asked for, in the same exchange, with the same CSG.
// req: 7143-6.3-12, 7143-6.3-13, 7143-11.13.6-2, 7143-6.3.3-3, 7143-6.3-16
#[test]
fn transitions() {
    let mut hand = Hand::new();
    let (r, _) = hand.send(first(0, None, &["AuthMethod=None"]));
    assert!(!r.transit);
    let (r, _) = hand.send(request(0, Some(1), &[]));
    assert_eq!((r.transit, r.csg.0, r.nsg.0), (true, 0, 1));
    let (r, _) = hand.send(request(1, None, &["MaxBurstLength=65536"]));
    assert_eq!((r.transit, r.csg.0), (false, 1));
    // req: 7143-6.2-23, 7143-6.3.3-2
    for _ in 0..6 {
        assert!(!hand.send(request(1, None, &[])).0.transit);
    }
    let (r, end) = hand.send(request(1, Some(3), &[]));
    assert_eq!((r.transit, r.csg.0, r.nsg.0), (true, 1, 3));
    assert_eq!(end.unwrap().enabled().session.max_burst_length, 65_536);
}

/// StatSN starts with the first response and counts each (RFC 7143 section 11.13.4).
// req: 7143-4.2.2.2-5, 7143-11.13.4-1, 7143-11.13.1-1, 7143-11.13.2-1, 7143-11.13.3-1
#[test]
fn numbering() {
    let mut hand = Hand::new();
    let (a, _) = hand.send(first(1, None, &[]));
    let (b, _) = hand.send(request(1, None, &[]));
    let (c, end) = hand.send(request(1, Some(3), &[]));
    assert_eq!((b.stat_sn, c.stat_sn), (a.stat_sn.next(), a.stat_sn.advance(2)));
    assert_eq!((a.tsih, b.tsih, c.tsih), (Tsih(0), Tsih(0), Tsih(7)));
    for r in [&a, &b, &c] {
        assert_eq!((r.version_max, r.version_active, r.itt), (0, 0, Itt(5)));
        assert_eq!((r.exp_cmd_sn, r.max_cmd_sn), (CmdSn(7), CmdSn(38)));
    }
    assert_eq!(end.unwrap().enabled().next_stat_sn, c.stat_sn.next());
    // Another connection counts for itself.
    assert_eq!(Hand::new().send(first(1, None, &[])).0.stat_sn, a.stat_sn);
}

/// TargetPortalGroupTag comes with the first response that may have text (RFC 7143 section 6.3.1).
// req: 7143-6.3.1-1, 7143-11.13.8-1, 7143-13.9-1
#[test]
fn portal_group_tag() {
    for tag in [0, 1, 65_535] {
        let with_tag = Grant { portal_group_tag: Some(tag), ..grant(TargetAuth::None) };
        let mut hand = Hand::with(TargetLoginConfig::default(), with_tag);
        let whole = first(1, Some(3), &[]);
        let half = LoginRequest {
            transit: false,
            continue_text: true,
            nsg: Stage(0),
            data: whole.data.slice(..20),
            ..whole.clone()
        };
        let (r, _) = hand.send(half);
        assert!(r.data.is_empty());
        let (r, _) = hand.send(LoginRequest { data: whole.data.slice(20..), ..whole });
        assert_eq!(lines(&r.data)[0], "MaxRecvDataSegmentLength=262144");
        assert!(lines(&r.data).contains(&format!("TargetPortalGroupTag={tag}")));
    }
    let mut hand =
        Hand::with(TargetLoginConfig::default(), Grant { portal_group_tag: None, ..grant(TargetAuth::None) });
    let discovery = request(1, Some(3), &[&format!("InitiatorName={INITIATOR}"), "SessionType=Discovery"]);
    assert!(!lines(&hand.send(discovery).0.data).iter().any(|l| l.starts_with("TargetPortalGroupTag")));
}

/// The answers to NeedAccess and their statuses (RFC 7143 section 11.13.5).
// req: 7143-11.13.5-7, 7143-11.13.5-1, 7143-11.13.5-2, 7143-13.8-1
// req: 7143-6.3.1-3
#[test]
fn access_decisions() {
    for (denial, status_code) in [
        (Denial::NotAuthorized, (2, 2)),
        (Denial::NotFound, (2, 3)),
        (Denial::Removed, (2, 4)),
        (Denial::TooManyConnections, (2, 6)),
        (Denial::CannotIncludeInSession, (2, 8)),
        (Denial::SessionTypeNotSupported, (2, 9)),
        (Denial::SessionDoesNotExist, (2, 10)),
        (Denial::TargetError, (3, 0)),
        (Denial::ServiceUnavailable, (3, 1)),
        (Denial::OutOfResources, (3, 2)),
    ] {
        let mut hand = Hand::new();
        hand.caller.decision = AccessDecision::Deny(denial);
        let (r, end) = hand.send(first(0, None, &["AuthMethod=None"]));
        assert_eq!(status(&r), status_code);
        let failure = end.unwrap().failed();
        assert_eq!(failure.rule, Rule::Access);
        assert_eq!(failure.may_retry(), status_code.0 == 3);
    }
    for permanently in [false, true] {
        let mut hand = Hand::new();
        let addresses = vec!["10.0.0.1:5003,1".parse().unwrap(), "[::1],2".parse().unwrap()];
        hand.caller.decision = AccessDecision::Redirect { addresses, permanently };
        let (r, _) = hand.send(first(1, Some(3), &[]));
        assert_eq!(status(&r), (1, if permanently { 2 } else { 1 }));
        assert_eq!(lines(&r.data), ["TargetAddress=10.0.0.1:5003", "TargetAddress=[::1]"]);
    }
    // Nowhere is not a redirection.
    let mut hand = Hand::new();
    hand.caller.decision = AccessDecision::Redirect { addresses: vec![], permanently: true };
    assert_eq!(status(&hand.send(first(1, Some(3), &[])).0), (3, 1));
}

/// A TSIH must be that of a session which the caller knows (RFC 7143 section 6.3.1).
// req: 7143-11.12.6-4
#[test]
fn tsih_of_no_session() {
    let existing = |tsih| ExistingSession {
        tsih,
        session: SessionParams::default(),
        auth: AuthIdentity::None,
        exp_cmd_sn: CmdSn(40),
        max_cmd_sn: CmdSn(50),
    };
    for (known, code) in [(None, (2, 10)), (Some(Tsih(8)), (2, 10)), (Some(Tsih(9)), (0, 0))] {
        let g = Grant { session: known.map(existing), ..grant(TargetAuth::None) };
        let mut hand = Hand::with(TargetLoginConfig::default(), g);
        let (r, _) = hand.send(LoginRequest { tsih: Tsih(9), ..first(1, None, &[]) });
        assert_eq!(status(&r), code);
        if code == (0, 0) {
            assert_eq!((r.tsih, r.exp_cmd_sn, r.max_cmd_sn), (Tsih(9), CmdSn(40), CmdSn(50)));
            // req: 7143-6.3.3-6, 7143-13-1
            let (r, end) =
                hand.send(LoginRequest { tsih: Tsih(9), ..request(1, None, &["MaxConnections=2"]) });
            assert_eq!(status(&r), (2, 0));
            assert_eq!(end.unwrap().failed().rule, Rule::NotAllowedHere(Key::MaxConnections));
        }
    }
    // A leading login is one, whatever the caller says.
    let g = Grant { session: Some(existing(Tsih(9))), ..grant(TargetAuth::None) };
    let (_, end) = Hand::with(TargetLoginConfig::default(), g).send(first(1, Some(3), &[]));
    assert!(end.unwrap().enabled().leading);
}

/// Other PDUs (RFC 7143 section 4.2.4).
// req: 7143-4.2.4-2, 7143-4.2.4-4, 7143-4.2.4-5, 7143-4.2.4-6
#[test]
fn pdus_that_are_not_login() {
    let others: [fn() -> Pdu<Bytes>; 3] = [
        || Pdu::NopOut(NopOut::default()),
        || Pdu::TextRequest(TextRequest::default()),
        || Pdu::LogoutRequest(LogoutRequest::default()),
    ];
    for other in others {
        // Before: not a word.
        let mut hand = Hand::new();
        hand.target.handle_pdu(hand.t0, other());
        let (sent, end) = drive_target(&mut hand.target, &mut hand.caller);
        assert!(sent.is_empty());
        assert_eq!(end.unwrap().failed().status, None);
        // During: 020b.
        let mut hand = Hand::new();
        hand.send(first(1, None, &[]));
        hand.target.handle_pdu(hand.t0, other());
        let (sent, end) = drive_target(&mut hand.target, &mut hand.caller);
        assert_eq!(status(&sent[0]), (2, 0x0b));
        assert_eq!(end.unwrap().failed().rule, Rule::NotLogin(other().opcode()));
        // After: nothing to do with login any more, and no second login.
        let mut hand = Hand::new();
        hand.send(first(1, Some(3), &[]));
        hand.target.handle_pdu(hand.t0, other());
        hand.target.handle_request(hand.t0, first(1, Some(3), &[]));
        assert!(hand.target.poll_output().is_none());
    }
}

/// Time is up: silence if the initiator was to speak, a status if it was waiting.
// req: 7143-6.2-22, 7143-10.3-1, 7143-7.12-1
#[test]
fn time() {
    let mut hand = Hand::new();
    hand.send(first(1, None, &[]));
    let due = hand.target.poll_timeout().unwrap();
    assert_eq!(due, later(hand.t0, 15));
    hand.target.handle_timeout(later(hand.t0, 14));
    assert!(hand.target.poll_output().is_none());
    hand.target.handle_timeout(due);
    let (sent, end) = drive_target(&mut hand.target, &mut hand.caller);
    assert!(sent.is_empty());
    let failure = end.unwrap().failed();
    assert_eq!((failure.rule, failure.status, failure.may_retry()), (Rule::Timeout, None, true));
    // A request after the time does not help.
    let mut hand = Hand::new();
    hand.target.handle_request(due + std::time::Duration::from_secs(60), first(1, Some(3), &[]));
    assert!(matches!(hand.target.poll_output(), Some(LoginOutput::Failed(f)) if f.rule == Rule::Timeout));
    // While the caller decides.
    let mut hand = Hand::new();
    hand.target.handle_request(hand.t0, first(1, Some(3), &[]));
    let Some(LoginOutput::NeedAccess(_)) = hand.target.poll_output() else { panic!() };
    hand.target.handle_timeout(due + std::time::Duration::from_secs(1));
    let Some(LoginOutput::Send(r)) = hand.target.poll_output() else { panic!() };
    assert_eq!(status(&r), (3, 1));
}

/// A silent initiator is not waited for longer because it talks.
// req: 7143-10.3-2, 7143-6.2-23
#[test]
fn exchanges() {
    // Thirty exchanges with a key each.
    let mut hand = Hand::new();
    hand.send(first(1, None, &[]));
    for n in 0..30 {
        let line = format!("X-com.example.{n}=1");
        let (r, _) = hand.send(request(1, None, &[&line]));
        assert_eq!(lines(&r.data), [format!("X-com.example.{n}=NotUnderstood")]);
    }
    assert!(hand.send(request(1, Some(3), &[])).1.is_some());
    // But not for ever.
    let budget = LoginBudget { pdus: 6, ..LoginBudget::default() };
    let mut hand =
        Hand::with(TargetLoginConfig { budget, ..TargetLoginConfig::default() }, grant(TargetAuth::None));
    hand.send(first(1, None, &[]));
    for _ in 0..5 {
        assert_eq!(status(&hand.send(request(1, None, &[])).0), (0, 0));
    }
    assert_eq!(hand.send(request(1, None, &[])).1.unwrap().failed().rule, Rule::Budget(Bound::Pdus));
}

/// Answers to unknown keys; later texts may still answer earlier ones.
// req: 7143-6.2-8, 7143-6.2-13, 7143-6.2-9, 7143-11.10.5-2, 7143-13.22-1, 7143-6.1-13
#[test]
fn unknown_keys() {
    let (r, _) = Hand::new().send(first(1, None, &["X-com.example.a=b=c", "Private=1"]));
    let answers = lines(&r.data);
    assert!(answers.contains(&"X-com.example.a=NotUnderstood".into()));
    assert!(answers.contains(&"Private=NotUnderstood".into()));
    assert_eq!(outcome(vec![first(1, None, &["X-a=NotUnderstood"])]), ((2, 0), Some(Rule::ReservedWord)));
    for bad in ["X-bad name=1", "1abc=1", "headerDigest=None", &format!("X-{}=1", "a".repeat(62))] {
        assert_eq!(outcome(vec![first(1, None, &[bad])]), ((2, 0), Some(Rule::TextFormat)), "{bad}");
    }
    let longest = format!("X-{}=1", "a".repeat(61));
    assert_eq!(outcome(vec![first(1, None, &[&longest])]).0, (0, 0));
    // Wrong case is another key (RFC 7143 section 6.1).
    // req: 7143-6.1-6
    let (r, _) = Hand::new().send(first(1, None, &["Headerdigest=None"]));
    assert!(lines(&r.data).contains(&"Headerdigest=NotUnderstood".into()));
}

/// Nothing is in force before the end, and nothing of a login that failed (RFC 7143 section 6.2).
// req: 7143-6.2-19, 7143-7.12-1, 7143-6.2-16
#[test]
fn all_or_nothing() {
    let mut hand = Hand::new();
    hand.send(first(1, None, &["MaxBurstLength=65536"]));
    let (r, end) = hand.send(request(1, Some(3), &["MaxRecvDataSegmentLength=1"]));
    assert_eq!(status(&r), (2, 0));
    assert!(matches!(end, Some(End::Failed(_))));
    assert!(!hand.caller.log.contains(&"notice") && !hand.caller.log.contains(&"enable"));
}
