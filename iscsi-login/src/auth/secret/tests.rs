use super::*;

fn credentials(name: &str, secret: &[u8]) -> ChapCredentials {
    ChapCredentials::new(name, Secret::new(secret).unwrap()).unwrap()
}

// req: 7143-9.2.1-2, 7143-9.2.1-3, 7143-9.2.1-4, 7143-9.2.1-5, 7143-9.2.1-16
#[test]
fn secrets() {
    assert_eq!(Secret::new(&[7; 11]).unwrap_err(), SecretError::TooShort);
    assert_eq!(Secret::new(&[7; 12]).unwrap().expose(), [7; 12]);
    assert_eq!(Secret::random([9; 16]).expose(), [9; 16]);
    assert_eq!(Secret::short_under_ipsec(b"abc").unwrap().expose(), b"abc");
    assert_eq!(Secret::short_under_ipsec(b"").unwrap_err(), SecretError::Length);
    assert_eq!(Secret::new(&[7; 257]).unwrap_err(), SecretError::Length);
    assert_eq!(Secret::parse("0x000102030405060708090a0b").unwrap().expose(), (0..12).collect::<Vec<u8>>());
    // Half a byte is no byte.
    assert_eq!(Secret::parse("0x000102030405060708090a0b0").unwrap_err(), SecretError::Hex);
    assert_eq!(Secret::parse("0x00010203040506070809zz0b").unwrap_err(), SecretError::Hex);
    assert_eq!(Secret::parse(&format!("0x{}", "00".repeat(257))).unwrap_err(), SecretError::Length);
    assert_eq!(Secret::parse("twelve bytes").unwrap().expose(), b"twelve bytes");
    assert_eq!(Secret::parse("eleven byte").unwrap_err(), SecretError::TooShort);
}

#[test]
fn secrets_stay_secret() {
    let c = credentials("alice", b"correct horse battery");
    let account = ChapAccount::new(c.clone(), None, None).unwrap();
    for text in [format!("{c:?}"), format!("{account:?}"), format!("{:?}", ChallengeKey::new([0x5a; 32]))] {
        assert!(!text.contains("horse") && !text.contains("90") && !text.contains("5a"), "{text}");
    }
}

/// Row 6 of the bug classes, as far as configuration goes.
// req: 7143-9.2.1-6, 7143-9.2.1-8
#[test]
fn one_secret_for_both_directions_is_refused() {
    let a = credentials("alice", b"secret of alice");
    let same_secret = credentials("target", b"secret of alice");
    let same_name = credentials("alice", b"secret of target");
    let other = credentials("target", b"secret of target");
    let pair = |t: &ChapCredentials| ChapAccount::new(a.clone(), None, Some(t.clone())).map(drop);
    assert_eq!(pair(&same_secret), Err(ChapConfigError::SameSecret));
    assert_eq!(pair(&same_name), Err(ChapConfigError::SameName));
    assert_eq!(pair(&other), Ok(()));
    let key = ChallengeKey::new([1; 32]);
    let initiator =
        |t: ChapCredentials| crate::auth::ChapInitiator::new(a.clone(), Some(t), key.clone()).map(drop);
    assert_eq!(initiator(same_secret.clone()), Err(ChapConfigError::SameSecret));
    assert_eq!(initiator(other.clone()), Ok(()));
    assert_eq!(
        check_roles(core::slice::from_ref(&a), &[other.clone(), same_secret]),
        Err(ChapConfigError::SameSecret)
    );
    assert_eq!(check_roles(core::slice::from_ref(&a), &[other]), Ok(()));
}

// req: 7143-9.2.1-11, 7143-9.2.1-13, 7143-9.2.1-15
#[test]
fn shared_secrets_are_found() {
    let list = [
        credentials("a", b"secret number 1"),
        credentials("b", b"secret number 2"),
        credentials("c", b"secret number 1"),
    ];
    assert_eq!(find_shared(&list), Some((0, 2)));
    assert_eq!(find_shared(&list[..2]), None);
    // Several identities with secrets of their own are what section 9.2.1 recommends.
    assert!(ChapAccount::new(list[0].clone(), None, Some(list[1].clone())).is_ok());
}

// req: 7143-9.2-6, 7143-9.2-7
#[test]
fn chap_names() {
    let new = |name: &str| ChapCredentials::new(name, Secret::random([1; 16])).map(|c| c.name().to_owned());
    assert_eq!(new("alice"), Ok("alice".into()));
    assert_eq!(new("iqn.2001-04.com.example:host"), Ok("iqn.2001-04.com.example:host".into()));
    for bad in ["", "a\0b", "a\nb", &"x".repeat(256)] {
        assert_eq!(new(bad), Err(ChapConfigError::Name), "{bad:?}");
    }
}
