//! Hostile input: one test for each class of bug that has been found in login code of other stacks.

mod common;

use bytes::Bytes;
use common::*;
use iscsi_login::*;
use iscsi_pdu::{LoginRequest, LoginResponse, Stage};
use proptest::prelude::*;

fn first(pairs: &[&str]) -> LoginRequest<Bytes> {
    let mut all = vec![format!("InitiatorName={INITIATOR}"), format!("TargetName={TARGET}")];
    all.extend(pairs.iter().map(|p| (*p).to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    LoginRequest { csg: Stage(1), nsg: Stage(3), transit: true, data: text(&all), ..Default::default() }
}

fn raw(data: impl Into<Bytes>) -> LoginRequest<Bytes> {
    LoginRequest { csg: Stage(1), data: data.into(), ..Default::default() }
}

fn put(requests: Vec<LoginRequest<Bytes>>) -> (Vec<LoginResponse<Bytes>>, Option<Rule>) {
    let mut target = TargetLogin::new(TargetLoginConfig::default().into(), [0; 32], now());
    let mut caller = Caller::new(grant(TargetAuth::None));
    let (mut responses, mut rule) = (Vec::new(), None);
    for r in requests {
        target.handle_request(now(), r);
        let (sent, end) = drive_target(&mut target, &mut caller);
        responses.extend(sent);
        if let Some(End::Failed(f)) = end {
            rule = Some(f.rule);
        }
    }
    (responses, rule)
}

fn rule(r: LoginRequest<Bytes>) -> Option<Rule> {
    put(vec![r]).1
}

/// A key longer than 63 bytes is malformed text, however long.
#[test]
fn long_unknown_key() {
    for n in [62, 63, 64, 1000, 8000] {
        let line = format!("X{}=1", "a".repeat(n));
        assert_eq!(rule(first(&[&line])), (n > 62).then_some(Rule::TextFormat), "{n}");
    }
}

/// 2,048 pairs of four bytes, each worth 16 in the answer.
#[test]
fn answers_do_not_amplify() {
    let attack = "A=b\0".repeat(2048);
    let (responses, rule) = put(vec![raw(attack.clone())]);
    assert_eq!(rule, Some(Rule::Budget(Bound::Keys)));
    assert!(responses.iter().all(|r| r.data.is_empty()));
    // Below the bound of keys, and with names, it is the answer's bound that bites.
    let mut data = first(&[]).data.to_vec();
    data.extend("A=b\0".repeat(400).bytes());
    let (responses, rule) = put(vec![LoginRequest { data: data.into(), ..first(&[]) }]);
    assert_eq!(rule, Some(Rule::Budget(Bound::Answer)));
    assert_eq!((responses[0].status_class, responses[0].status_detail), (2, 0));
    assert!(responses[0].data.is_empty());
}

/// Whatever is asked, all answers together are little longer than what asked for them.
#[test]
fn answer_bound() {
    for (keys, len) in [(1, 1), (50, 1), (80, 20), (200, 30)] {
        let mut data = first(&[]).data.to_vec();
        for n in 0..keys {
            data.extend(format!("X{n}{}=\0", "y".repeat(len)).bytes());
        }
        let asked = data.len();
        let r = LoginRequest { data: data.into(), ..first(&[]) };
        let (responses, _) = put(vec![r, LoginRequest { data: Bytes::new(), ..first(&[]) }]);
        let answered: usize = responses.iter().map(|r| r.data.len()).sum();
        assert!(answered <= asked + 2048, "{asked} -> {answered}");
    }
}

/// Text that fills the segment and has no NUL at its end.
#[test]
fn text_without_terminator() {
    for len in [8189, 8190, 8191, 8192] {
        let mut data = first(&[]).data.to_vec();
        data.extend(b"X=");
        data.resize(len, b'x');
        assert_eq!(rule(raw(data)), Some(Rule::TextFormat), "{len}");
    }
    assert_eq!(rule(raw(vec![0; 8193])), Some(Rule::SegmentLength));
}

/// Base64 and hexadecimal beyond the room for them, at both ends.
// req: 7143-12.1.3-7
#[cfg(feature = "chap")]
#[test]
fn oversized_binary_values() {
    use iscsi_login::auth::{ChallengeKey, ChapTarget};
    let auth = TargetAuth::Chap(Box::new(ChapTarget::new(ChallengeKey::new([2; 32]))));
    for value in [format!("0b{}", "A".repeat(1500)), format!("0x{}", "0".repeat(2050)), "0b!".repeat(400)] {
        let mut target = TargetLogin::new(TargetLoginConfig::default().into(), [0; 32], now());
        let mut caller = Caller::new(grant(auth.clone()));
        let secure = |pairs: &[&str]| LoginRequest { csg: Stage(0), data: text(pairs), ..Default::default() };
        let opening = first(&["AuthMethod=CHAP"]);
        let mut end = None;
        for r in [
            LoginRequest { csg: Stage(0), nsg: Stage(1), transit: false, ..opening },
            secure(&["CHAP_A=5"]),
            secure(&["CHAP_N=alice", &format!("CHAP_R={value}")]),
        ] {
            target.handle_request(now(), r);
            end = drive_target(&mut target, &mut caller).1;
        }
        assert_eq!(end.unwrap().failed().rule, Rule::Value(Key::ChapR));
    }
}

/// C = 1 with no text, for ever; and C = 1 with too much of it.
#[test]
fn continuation_abuse() {
    let empty = LoginRequest { continue_text: true, ..raw(Bytes::new()) };
    assert_eq!(rule(empty), Some(Rule::TextFormat));
    let part = || LoginRequest { continue_text: true, ..raw(vec![b'A'; 8192]) };
    let (responses, rule) = put((0..5).map(|_| part()).collect());
    assert_eq!(rule, Some(Rule::Budget(Bound::Bytes)));
    assert_eq!(responses.len(), 5, "32 KiB, not more");
    let crumb = || LoginRequest { continue_text: true, ..raw(&b"A"[..]) };
    let (responses, rule) = put((0..100).map(|_| crumb()).collect());
    assert_eq!(rule, Some(Rule::Budget(Bound::Pdus)));
    assert!(responses.len() <= 97);
}

/// Text instead of the empty request that lets our long answer go on.
// req: 7143-6.2-3
#[test]
fn text_while_our_answer_goes_on() {
    let mut data = first(&[]).data.to_vec();
    for n in 0..160 {
        data.extend(format!("X-com.example.{n:030}={}\0", "v".repeat(12)).bytes());
    }
    let head = LoginRequest { continue_text: true, transit: false, nsg: Stage(0), ..first(&[]) };
    let head = LoginRequest { data: Bytes::copy_from_slice(&data[..4000]), ..head };
    let tail = LoginRequest { data: Bytes::copy_from_slice(&data[4000..]), ..first(&[]) };
    let (responses, failed) = put(vec![head.clone(), tail.clone()]);
    assert_eq!(failed, None);
    assert!(responses[1].continue_text && !responses[1].transit);
    for more in [raw(text(&["InitiatorAlias=x"])), LoginRequest { continue_text: true, ..raw(&b"A"[..]) }] {
        assert_eq!(put(vec![head.clone(), tail.clone(), more]).1, Some(Rule::DataWhileContinuing));
    }
}

/// What a peer calls itself is a name or nothing.
#[test]
fn names_that_are_paths_or_lines() {
    for bad in [
        "../../etc/passwd",
        "iqn.2001-04.com.example:a/../b",
        "iqn.2001-04.com.example:a\nb=c",
        "iqn.2001-04.com.example: x",
    ] {
        let data = text(&[&format!("InitiatorName={bad}"), &format!("TargetName={TARGET}")]);
        let refused = rule(raw(data));
        assert_eq!(refused, Some(Rule::Value(Key::InitiatorName)), "{bad:?}");
    }
    let alias = rule(first(&["InitiatorAlias=\x1b]0;title\x07"]));
    assert_eq!(alias, None, "an alias is for display, its control characters are gone by then");
}

/// Values longer than a simple value may be.
// req: 7143-6.1-12
#[test]
fn long_values() {
    let of = |n: usize| "v".repeat(n);
    assert_eq!(rule(first(&[&format!("X-a={}", of(255))])), None);
    assert_eq!(rule(first(&[&format!("X-a={}", of(256))])), Some(Rule::TextFormat));
    assert_eq!(
        rule(first(&[&format!("InitiatorAlias={}", of(256))])),
        Some(Rule::Value(Key::InitiatorAlias))
    );
    assert_eq!(
        rule(first(&[&format!("X#NodeArchitecture={}", of(256))])),
        Some(Rule::Value(Key::NodeArchitecture))
    );
}

/// Malformed pairs (RFC 7143 section 6.1).
// req: 7143-6.1-1, 7143-6.1-2
#[test]
fn malformed_text() {
    for bad in ["=x\0", "X\0", "\0", "X=1\0\0", "1X=1\0", "X=\u{7f}\0X", "X Y=1\0"] {
        let mut data = first(&[]).data.to_vec();
        data.extend(bad.bytes());
        assert_eq!(rule(raw(data)), Some(Rule::TextFormat), "{bad:?}");
    }
    let mut data = first(&[]).data.to_vec();
    data.extend(b"X-a=\xff\xfe\0");
    assert_eq!(rule(raw(data)), Some(Rule::TextFormat), "not UTF-8");
}

/// Any PDUs in any order.
fn any_request() -> impl Strategy<Value = LoginRequest<Bytes>> {
    let line = prop_oneof![
        Just(format!("InitiatorName={INITIATOR}")),
        Just(format!("TargetName={TARGET}")),
        Just("SessionType=Discovery".to_owned()),
        Just("AuthMethod=CHAP,None".to_owned()),
        Just("CHAP_A=5,7".to_owned()),
        Just("CHAP_N=alice".to_owned()),
        Just("CHAP_R=0x00".to_owned()),
        Just("RDMAExtensions=Yes".to_owned()),
        Just("HeaderDigest=None".to_owned()),
        "[A-Z][A-Za-z0-9]{0,8}=[ -~]{0,12}",
        "\\PC{0,20}",
    ];
    let data = proptest::collection::vec(line, 0..6).prop_map(|l| {
        let lines: Vec<&str> = l.iter().map(String::as_str).collect();
        text(&lines)
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    let fields = (any::<bool>(), any::<bool>(), 0u8..4, 0u8..4, 0u8..2);
    (prop_oneof![4 => data, 1 => bytes], fields).prop_map(|(data, (transit, continue_text, csg, nsg, v))| {
        LoginRequest {
            transit,
            continue_text,
            csg: Stage(csg),
            nsg: Stage(nsg),
            version_min: v,
            version_max: v,
            data,
            ..Default::default()
        }
    })
}

proptest! {
    /// A target answers every request exactly once until the end, and never panics.
    // req: 7143-6.3-1
    #[test]
    fn any_requests(requests in proptest::collection::vec(any_request(), 0..12)) {
        let mut target = TargetLogin::new(TargetLoginConfig::default().into(), [0; 32], now());
        let mut caller = Caller::new(grant(TargetAuth::None));
        for r in requests {
            let was_over = target.is_over();
            let asked = r.transit;
            target.handle_request(now(), r);
            let (sent, end) = drive_target(&mut target, &mut caller);
            prop_assert_eq!(sent.len(), usize::from(!was_over));
            for response in &sent {
                prop_assert!(response.data.len() <= 8192);
                prop_assert!(!(response.transit && response.continue_text));
                prop_assert!(asked || !response.transit);
            }
            prop_assert_eq!(end.is_some(), target.is_over() && !was_over);
        }
    }

    /// An initiator comes to an end with every target, and never panics.
    #[test]
    fn any_responses(
        texts in proptest::collection::vec("([A-Za-z#]{1,30}=[ -~]{0,12}\0){0,6}", 0..8),
        flags in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u8..4, 0u8..4), 8),
    ) {
        let mut i = InitiatorLogin::new(normal(InitiatorAuth::None).into(), start(), [0; 32], now());
        let mut log = Vec::new();
        drive_initiator(&mut i, true, &mut log);
        for (n, (data, (transit, continue_text, csg, nsg))) in texts.into_iter().zip(flags).enumerate() {
            let was_over = i.is_over();
            i.handle_response(now(), LoginResponse {
                transit,
                continue_text,
                csg: Stage(csg),
                nsg: Stage(nsg),
                isid: start().isid,
                itt: start().itt,
                stat_sn: iscsi_pdu::StatSn(n as u32),
                tsih: iscsi_pdu::Tsih(1),
                data: data.into(),
                ..Default::default()
            });
            let (sent, end) = drive_initiator(&mut i, true, &mut log);
            prop_assert!(sent.len() <= usize::from(!was_over));
            prop_assert_eq!(end.is_some(), i.is_over() && !was_over);
        }
    }
}
