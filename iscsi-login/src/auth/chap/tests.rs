#![cfg(all(feature = "chap-md5", feature = "chap-sha1", feature = "chap-sha256", feature = "chap-sha3-256"))]

use super::*;
use crate::auth::Secret;

fn key() -> ChallengeKey {
    ChallengeKey::new([0x42; 32])
}

fn credentials(name: &str, secret: &str) -> ChapCredentials {
    ChapCredentials::new(name, Secret::parse(secret).unwrap()).unwrap()
}

fn alice() -> ChapCredentials {
    credentials("alice", "secret of alice")
}

fn storage() -> ChapCredentials {
    credentials("storage", "secret of storage")
}

fn node() -> IscsiName {
    "iqn.2001-04.com.example:alice".parse().unwrap()
}

fn initiator(target: Option<ChapCredentials>) -> InitiatorExchange {
    InitiatorExchange::new(ChapInitiator::new(alice(), target, key()).unwrap(), &[0x11; 32])
}

/// The target is another node, with a key of its own.
fn target() -> TargetExchange {
    TargetExchange::new(ChapTarget::new(ChallengeKey::new([0x99; 32])), &[0x22; 32])
}

fn account(target: Option<ChapCredentials>) -> ChapAccount {
    ChapAccount::new(alice(), None, target).unwrap()
}

fn keys(step: Result<AuthStep, Rule>) -> AuthPairs {
    match step {
        Ok(AuthStep::Reply { keys, .. }) => keys,
        Ok(AuthStep::Done { reply, .. }) => reply,
        other => panic!("{other:?}"),
    }
}

fn get(pairs: &AuthPairs, key: Key) -> &str {
    &pairs.iter().find(|(k, _)| *k == key).unwrap_or_else(|| panic!("no {key:?} in {pairs:?}")).1
}

fn set(pairs: &mut AuthPairs, key: Key, value: &str) {
    pairs.iter_mut().find(|(k, _)| *k == key).unwrap().1 = value.into();
}

/// Up to the initiator's response, as the target receives it.
fn until_response(i: &mut InitiatorExchange, t: &mut TargetExchange) -> AuthPairs {
    let offer = keys(i.step(&vec![]));
    let challenge = keys(t.step(&offer));
    keys(i.step(&challenge))
}

fn names(pairs: &AuthPairs) -> Vec<&'static str> {
    pairs.iter().map(|(k, _)| k.name()).collect()
}

// req: 7143-12.1.3-1, 7143-12.1.3-2, 7143-12.1.3-3, 7143-9.2.1-1
#[test]
fn one_way() {
    let (mut i, mut t) = (initiator(None), target());
    let offer = keys(i.step(&vec![]));
    assert_eq!(offer, [(Key::ChapA, "8,7,6,5".into())]);
    let challenge = keys(t.step(&offer));
    assert_eq!(names(&challenge), ["CHAP_A", "CHAP_I", "CHAP_C"]);
    assert_eq!(get(&challenge, Key::ChapA), "8");
    let response = keys(i.step(&challenge));
    assert_eq!(names(&response), ["CHAP_N", "CHAP_R"]);
    assert_eq!(get(&response, Key::ChapN), "alice");
    assert!(
        matches!(t.step(&response), Ok(AuthStep::NeedAccount { mutual: false, user }) if &*user == "alice")
    );
    let Ok(AuthStep::Done { reply, identity }) = t.supply(Some(&account(None)), &node()) else { panic!() };
    assert!(reply.is_empty());
    assert_eq!(identity, AuthIdentity::Chap { initiator: "alice".into(), target: None });
}

// req: 7143-12.1.3-3, 7143-12.1.3-5, 7143-12.1-2, 7143-9.2.1-1, 7143-9.1-1
#[test]
fn mutual_with_every_algorithm_and_encoding() {
    for algorithm in ChapAlgorithm::BUILT_IN {
        for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
            let only = ChapAlgorithms::exactly(&[*algorithm]).unwrap();
            let config = ChapInitiator::new(alice(), Some(storage()), key()).unwrap();
            let config = config.with_algorithms(only).with_encoding(encoding);
            let mut i = InitiatorExchange::new(config, &[0x11; 32]);
            let mut t = target();
            let response = until_response(&mut i, &mut t);
            assert_eq!(names(&response), ["CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"]);
            assert!(matches!(t.step(&response), Ok(AuthStep::NeedAccount { mutual: true, .. })));
            let reply = keys(t.supply(Some(&account(Some(storage()))), &node()));
            assert_eq!(names(&reply), ["CHAP_N", "CHAP_R"]);
            let Ok(AuthStep::Done { identity, .. }) = i.step(&reply) else { panic!("{algorithm:?}") };
            let both = AuthIdentity::Chap { initiator: "alice".into(), target: Some("storage".into()) };
            assert_eq!(identity, both);
        }
    }
}

// req: 7143-12.1.3-4, 7143-9.2-5
#[test]
fn a_wrong_secret_or_no_account() {
    let wrong = ChapAccount::new(credentials("alice", "another secret"), None, None).unwrap();
    for account in [Some(&wrong), None] {
        let (mut i, mut t) = (initiator(None), target());
        let response = until_response(&mut i, &mut t);
        t.step(&response).unwrap();
        assert_eq!(t.supply(account, &node()).unwrap_err(), Rule::AuthFailed);
        // Once failed, it stays so.
        assert!(t.supply(account, &node()).is_err());
    }
}

/// Row 9 of the bug classes: CHAP_N counts in full.
#[test]
fn a_prefix_of_a_name_is_another_name() {
    for user in ["alic", "alice2", "Alice", ""] {
        let (mut i, mut t) = (initiator(None), target());
        let mut response = until_response(&mut i, &mut t);
        set(&mut response, Key::ChapN, user);
        t.step(&response).unwrap();
        assert_eq!(t.supply(Some(&account(None)), &node()).unwrap_err(), Rule::AuthFailed, "{user:?}");
    }
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let response = until_response(&mut i, &mut t);
    t.step(&response).unwrap();
    let mut reply = keys(t.supply(Some(&account(Some(storage()))), &node()));
    set(&mut reply, Key::ChapN, "storag");
    assert_eq!(i.step(&reply).unwrap_err(), Rule::AuthFailed);
}

// req: 7143-9.2-8, 7143-9.2-9, 7143-9.2-10
#[test]
fn an_account_is_bound_to_its_node() {
    let bound = ChapAccount::new(alice(), Some(node()), None).unwrap();
    for (name, ok) in [("iqn.2001-04.com.example:alice", true), ("iqn.2001-04.com.example:bob", false)] {
        let (mut i, mut t) = (initiator(None), target());
        let response = until_response(&mut i, &mut t);
        t.step(&response).unwrap();
        assert_eq!(t.supply(Some(&bound), &name.parse().unwrap()).is_ok(), ok, "{name}");
    }
}

// req: 7143-12.1.3-6
#[test]
fn a_target_that_does_not_know_its_secret() {
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let response = until_response(&mut i, &mut t);
    t.step(&response).unwrap();
    let impostor = account(Some(credentials("storage", "guessed secret")));
    let reply = keys(t.supply(Some(&impostor), &node()));
    assert_eq!(i.step(&reply).unwrap_err(), Rule::AuthFailed);
}

// req: 7143-12.1.3-5
#[test]
fn target_authentication_that_is_not_configured() {
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let response = until_response(&mut i, &mut t);
    t.step(&response).unwrap();
    let rule = t.supply(Some(&account(None)), &node()).unwrap_err();
    assert_eq!(rule.status(), crate::LoginStatus::AUTHENTICATION_FAILURE);
}

/// Row 6 of the bug classes: the target's own challenge returned, on this connection or another one.
// req: 7143-9.2.1-9, 7143-9.2.1-10
#[test]
fn own_challenges_are_known_again() {
    // The target's challenge comes back as the initiator's.
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let offer = keys(i.step(&vec![]));
    let challenge = keys(t.step(&offer));
    let mut response = keys(i.step(&challenge));
    assert_ne!(get(&response, Key::ChapC), get(&challenge, Key::ChapC));
    set(&mut response, Key::ChapC, get(&challenge, Key::ChapC));
    assert_eq!(t.step(&response).unwrap_err(), Rule::AuthReflected);

    // The challenge of another connection of the same target, in another encoding.
    let config = ChapTarget::new(ChallengeKey::new([0x99; 32])).with_encoding(BinaryEncoding::Base64);
    let mut other = TargetExchange::new(config, &[0x33; 32]);
    let elsewhere = keys(other.step(&offer));
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let mut response = until_response(&mut i, &mut t);
    set(&mut response, Key::ChapC, get(&elsewhere, Key::ChapC));
    assert_eq!(t.step(&response).unwrap_err(), Rule::AuthReflected);

    // The attack of RFC 7143 section 9.2.1: the initiator's challenge on connection 1 is put to it on connection 2.
    let (mut one, mut two) = (initiator(Some(storage())), initiator(Some(storage())));
    let asked = until_response(&mut one, &mut target());
    two.step(&vec![]).unwrap();
    let mut put = keys(target().step(&offer));
    set(&mut put, Key::ChapI, get(&asked, Key::ChapI));
    set(&mut put, Key::ChapC, get(&asked, Key::ChapC));
    assert_eq!(two.step(&put).unwrap_err(), Rule::AuthReflected);
}

/// A response that the receiver itself would give means one secret for both directions.
// req: 7143-9.2.1-7
#[test]
fn own_responses_are_known_again() {
    // The initiator's peer proves to hold the initiator's own secret.
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let response = until_response(&mut i, &mut t);
    let challenge = parse_binary(get(&response, Key::ChapC), 64).unwrap();
    let identifier: u8 = get(&response, Key::ChapI).parse().unwrap();
    let mirrored = ChapAlgorithm::SHA3_256.response(identifier, alice().secret(), &challenge).unwrap();
    let reply =
        vec![(Key::ChapN, "storage".into()), (Key::ChapR, BinaryEncoding::Hex.encode(mirrored.as_bytes()))];
    assert_eq!(i.step(&reply).unwrap_err(), Rule::AuthReflected);

    // The target's peer proves to hold the target's own secret.
    let (mut i, mut t) = (initiator(None), target());
    let offer = keys(i.step(&vec![]));
    let asked = keys(t.step(&offer));
    let challenge = parse_binary(get(&asked, Key::ChapC), 64).unwrap();
    let identifier: u8 = get(&asked, Key::ChapI).parse().unwrap();
    let mirrored = ChapAlgorithm::SHA3_256.response(identifier, storage().secret(), &challenge).unwrap();
    let response =
        vec![(Key::ChapN, "alice".into()), (Key::ChapR, BinaryEncoding::Hex.encode(mirrored.as_bytes()))];
    t.step(&response).unwrap();
    assert_eq!(t.supply(Some(&account(Some(storage()))), &node()).unwrap_err(), Rule::AuthReflected);
}

/// Row 7 of the bug classes: a challenge is what the caller's random source makes it.
#[test]
fn challenges_differ() {
    let challenge = |seed: [u8; 32]| {
        let mut t = TargetExchange::new(ChapTarget::new(key()), &seed);
        get(&keys(t.step(&vec![(Key::ChapA, "5".into())])), Key::ChapC).to_owned()
    };
    assert_ne!(challenge([1; 32]), challenge([2; 32]));
    assert_eq!(challenge([1; 32]).len(), 2 + 64);
}

/// Rows 5 and 8: algorithms and lengths.
// req: 7143-12.1.3-2, 7143-12.1.3-7, 7143-9.2-3, 7143-9.2-4
#[test]
fn steps_out_of_order_and_bad_values() {
    let first = |pairs: AuthPairs| target().step(&pairs).map(drop);
    assert_eq!(first(vec![]), Err(Rule::Missing(Key::ChapA)));
    assert_eq!(first(vec![(Key::ChapA, "99".into())]), Err(Rule::AuthMethod));
    assert_eq!(first(vec![(Key::ChapA, "99,5".into())]), Ok(()));
    assert_eq!(first(vec![(Key::ChapA, "MD5".into())]), Err(Rule::Value(Key::ChapA)));
    assert_eq!(first(vec![(Key::ChapA, "5".into()), (Key::ChapN, "alice".into())]), Err(Rule::AuthStep));

    // The initiator's answer, one key off in each case.
    let second = |change: fn(&mut AuthPairs)| {
        let (mut i, mut t) = (initiator(Some(storage())), target());
        let mut response = until_response(&mut i, &mut t);
        change(&mut response);
        t.step(&response).map(drop)
    };
    // Omitting CHAP_R is how a reflection attack begins (RFC 7143 section 9.2).
    assert_eq!(second(|r| r.retain(|(k, _)| *k != Key::ChapR)), Err(Rule::Missing(Key::ChapR)));
    assert_eq!(second(|r| r.retain(|(k, _)| *k != Key::ChapN)), Err(Rule::Missing(Key::ChapN)));
    assert_eq!(second(|r| r.retain(|(k, _)| *k != Key::ChapI)), Err(Rule::Missing(Key::ChapI)));
    assert_eq!(second(|r| r.retain(|(k, _)| *k != Key::ChapC)), Err(Rule::Missing(Key::ChapC)));
    assert_eq!(second(|r| set(r, Key::ChapI, "256")), Err(Rule::Value(Key::ChapI)));
    assert_eq!(second(|r| set(r, Key::ChapR, "0x")), Err(Rule::Value(Key::ChapR)));
    assert_eq!(second(|r| set(r, Key::ChapR, "12345")), Err(Rule::Value(Key::ChapR)));
    let long = format!("0x{}", "0".repeat(2050));
    let (mut i, mut t) = (initiator(Some(storage())), target());
    let mut response = until_response(&mut i, &mut t);
    set(&mut response, Key::ChapC, &long);
    assert_eq!(t.step(&response).unwrap_err(), Rule::Value(Key::ChapC));

    // The target's challenge, one key off.
    let challenge = |change: &dyn Fn(&mut AuthPairs)| {
        let (mut i, mut t) = (initiator(None), target());
        let offer = keys(i.step(&vec![]));
        let mut asked = keys(t.step(&offer));
        change(&mut asked);
        i.step(&asked).map(drop)
    };
    assert_eq!(challenge(&|c| set(c, Key::ChapA, "9")), Err(Rule::Answer(Key::ChapA)));
    assert_eq!(challenge(&|c| set(c, Key::ChapA, "8,7")), Err(Rule::Value(Key::ChapA)));
    assert_eq!(challenge(&|c| set(c, Key::ChapC, &long)), Err(Rule::Value(Key::ChapC)));
    assert_eq!(challenge(&|c| c.retain(|(k, _)| *k != Key::ChapC)), Err(Rule::Missing(Key::ChapC)));
    assert_eq!(challenge(&|c| c.push((Key::ChapN, "x".into()))), Err(Rule::AuthStep));
    assert_eq!(challenge(&|c| set(c, Key::ChapC, &long[..2050])), Ok(()), "1024 bytes are allowed");
}

/// Row 4: a response of the wrong size is a wrong response, not an overflow.
#[test]
fn a_response_of_another_length() {
    for value in ["0x00", "0bAAAA", &format!("0b{}", "A".repeat(128))] {
        let (mut i, mut t) = (initiator(None), target());
        let mut response = until_response(&mut i, &mut t);
        set(&mut response, Key::ChapR, value);
        t.step(&response).unwrap();
        assert_eq!(t.supply(Some(&account(None)), &node()).unwrap_err(), Rule::AuthFailed, "{value}");
    }
}

/// An algorithm that was not offered is never used, whichever end is asked.
#[test]
fn the_initiators_order_decides() {
    let mut t = target();
    let chosen = keys(t.step(&vec![(Key::ChapA, "5,8".into())]));
    assert_eq!(get(&chosen, Key::ChapA), "5");
    let strict =
        ChapTarget::new(key()).with_algorithms(ChapAlgorithms::exactly(&[ChapAlgorithm::SHA256]).unwrap());
    let mut t = TargetExchange::new(strict, &[0x22; 32]);
    let chosen = keys(t.step(&vec![(Key::ChapA, "5,8,7".into())]));
    assert_eq!(get(&chosen, Key::ChapA), "7");
}
