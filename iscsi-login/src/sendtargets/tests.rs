use super::*;
use proptest::prelude::*;

/// The examples of RFC 7143 section 13.8, with tags.
#[test]
fn the_rfcs_addresses() {
    for (text, host, port, tag) in [
        ("10.0.0.1:5003,1", Host::Ip("10.0.0.1".parse().unwrap()), Some(5003), Some(1)),
        (
            "[1080:0:0:0:8:800:200C:417A],65",
            Host::Ip("1080::8:800:200c:417a".parse().unwrap()),
            None,
            Some(65),
        ),
        (
            "[1080::8:800:200C:417A]:5003,1",
            Host::Ip("1080::8:800:200c:417a".parse().unwrap()),
            Some(5003),
            Some(1),
        ),
        ("computingcenter.example.com,23", Host::Name("computingcenter.example.com".into()), None, Some(23)),
        ("computingcenter.example.com", Host::Name("computingcenter.example.com".into()), None, None),
        ("10.0.0.1:3260,0", Host::Ip("10.0.0.1".parse().unwrap()), Some(3260), Some(0)),
        ("10.0.0.1:3260,65535", Host::Ip("10.0.0.1".parse().unwrap()), Some(3260), Some(65535)),
        ("10.0.0.1,0x10", Host::Ip("10.0.0.1".parse().unwrap()), None, Some(16)),
    ] {
        let address: TargetAddress = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(address, TargetAddress { host, port, portal_group_tag: tag });
        assert_eq!(address.to_string().parse::<TargetAddress>(), Ok(address));
    }
}

#[test]
fn bad_addresses() {
    for text in [
        "",
        ",1",
        ":3260",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1,65536",
        "10.0.0.1,",
        "[::1",
        "::1",
        "[::1]3260",
        "[10.0.0.1]",
        "a..b",
        "a b",
        "a/b",
        "-:1:2",
        "a\nb",
        "../x",
        "10.0.0.1:3260,1,2",
        "[::1%eth0]",
        "192.0.2.0.",
    ] {
        assert_eq!(text.parse::<TargetAddress>(), Err(SendTargetsError::Address), "{text:?}");
    }
}

// req: 7143-13.8-1
#[test]
fn without_tag() {
    let address: TargetAddress = "10.0.0.1:5003,7".parse().unwrap();
    assert_eq!(address.without_tag().to_string(), "10.0.0.1:5003");
    assert_eq!("[::1],1".parse::<TargetAddress>().unwrap().port_or_default(), 3260);
}

#[test]
fn request_values() {
    assert_eq!(SendTargets::parse("All"), Ok(SendTargets::All));
    assert_eq!(SendTargets::parse(""), Ok(SendTargets::Session));
    let one = SendTargets::parse("iqn.1993-11.com.example:a").unwrap();
    assert_eq!(one.to_string(), "iqn.1993-11.com.example:a");
    assert!(matches!(SendTargets::parse("all"), Err(SendTargetsError::Name(_))));
}

/// The second example of RFC 7143 appendix C.
const TWO_TARGETS: &[u8] = b"TargetName=iqn.1993-11.com.example:diskarray.sn.8675309\0\
TargetAddress=10.1.0.45:3000,1\0TargetAddress=10.1.1.45:3000,2\0\
TargetName=iqn.1993-11.com.example:diskarray.sn.1234567\0\
TargetAddress=10.1.0.45:3000,1\0TargetAddress=10.1.1.45:3000,2\0";

#[test]
fn records_of_the_rfc() {
    let records = parse_records(TWO_TARGETS, RecordLimits::default()).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].name.as_str(), "iqn.1993-11.com.example:diskarray.sn.1234567");
    assert_eq!(records[1].addresses[1].to_string(), "10.1.1.45:3000,2");
    assert_eq!(write_records(&records, 4096).unwrap(), TWO_TARGETS);
    // A target without addresses is where the connection is; no targets at all is an empty text.
    let bare = parse_records(b"TargetName=iqn.1993-11.com.example:a\0", RecordLimits::default()).unwrap();
    assert!(bare[0].addresses.is_empty());
    assert_eq!(parse_records(b"", RecordLimits::default()), Ok(vec![]));
}

#[test]
fn records_refused() {
    let limits = RecordLimits { targets: 2, addresses: 2 };
    for (text, error) in [
        (&b"TargetAddress=10.1.0.45,1\0"[..], SendTargetsError::Key),
        (b"TargetName=iqn.1993-11.com.example:a\0TargetAlias=x\0", SendTargetsError::Key),
        (b"X-foo=1\0", SendTargetsError::Key),
        (b"TargetName=iqn.1993-11.com.example:a", SendTargetsError::Text),
        (b"TargetName=../../etc\0", SendTargetsError::Name(crate::NameError::Character)),
        (b"TargetName=iqn.1993-11.com.example:a\0TargetAddress=a\nb,1\0", SendTargetsError::Address),
    ] {
        assert_eq!(parse_records(text, limits), Err(error), "{}", String::from_utf8_lossy(text));
    }
    let many = |n: usize, what: &str| what.repeat(n).into_bytes();
    let names = many(3, "TargetName=iqn.1993-11.com.example:a\0");
    assert_eq!(parse_records(&names, limits), Err(SendTargetsError::TooMany));
    let mut addresses = b"TargetName=iqn.1993-11.com.example:a\0".to_vec();
    addresses.extend(many(3, "TargetAddress=10.0.0.1,1\0"));
    assert_eq!(parse_records(&addresses, limits), Err(SendTargetsError::TooMany));
}

#[test]
fn responses_are_whole_and_tagged() {
    let records = parse_records(TWO_TARGETS, RecordLimits::default()).unwrap();
    assert_eq!(write_records(&records, TWO_TARGETS.len() - 1), Err(SendTargetsError::TooMany));
    let mut untagged = records;
    untagged[0].addresses[0].portal_group_tag = None;
    assert_eq!(write_records(&untagged, 4096), Err(SendTargetsError::Address));
}

/// Row 22 of the bug classes: 250 targets in one discovery are a list like any other.
#[test]
fn many_targets() {
    let records: Vec<_> = (0..250)
        .map(|i| TargetRecord {
            name: format!("iqn.1993-11.com.example:{}{i}", "x".repeat(180)).parse().unwrap(),
            addresses: vec!["[2001:db8::1]:3260,1".parse().unwrap(); 4],
        })
        .collect();
    let text = write_records(&records, 1 << 20).unwrap();
    assert_eq!(parse_records(&text, RecordLimits::default()), Ok(records));
}

proptest! {
    #[test]
    fn addresses_round_trip_or_fail(text in "[\\[\\]:,.a-z0-9%/ -]{0,40}") {
        if let Ok(address) = text.parse::<TargetAddress>() {
            prop_assert_eq!(address.to_string().parse::<TargetAddress>(), Ok(address));
        }
    }

    #[test]
    fn any_response_is_judged(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_records(&text, RecordLimits::default());
    }
}
