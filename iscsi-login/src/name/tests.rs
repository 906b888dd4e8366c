use super::*;
use proptest::prelude::*;

fn parse(s: &str) -> Result<String, NameError> {
    IscsiName::new(s).map(|n| n.as_str().to_owned())
}

/// The examples of RFC 7143 sections 4.2.7.4 to 4.2.7.6 and 13.4, 13.5.
// req: 7143-4.2.7.3-1, 7143-4.2.7.4-3, 7143-4.2.7.5-1, 7143-4.2.7.6-1
#[test]
fn the_rfcs_examples() {
    for (name, kind) in [
        ("iqn.2001-04.com.example:storage:diskarrays-sn-a8675309", NameType::Iqn),
        ("iqn.2001-04.com.example", NameType::Iqn),
        ("iqn.2001-04.com.example:storage.tape1.sys1.xyz", NameType::Iqn),
        ("iqn.1993-11.com.disk-vendor:diskarrays.sn.45678", NameType::Iqn),
        ("iqn.1992-04.com.os-vendor.plan9:cdrom.12345", NameType::Iqn),
        ("eui.020000023b040506", NameType::Eui),
        ("naa.52004567ba64678d", NameType::Naa),
        ("naa.62004567ba64678d0123456789abcdef", NameType::Naa),
    ] {
        let parsed = IscsiName::new(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!((parsed.as_str(), parsed.name_type()), (name, kind));
    }
}

/// RFC 3722 maps upper case to lower case, by table B.2 and form KC.
// req: 7143-4.2.7.1-6, 7143-4.2.7.2-1, 7143-4.2.7.2-2
#[test]
fn preparation() {
    assert_eq!(parse("IQN.2001-04.COM.Example:ABC"), Ok("iqn.2001-04.com.example:abc".into()));
    assert_eq!(parse("eui.02004567A425678D"), Ok("eui.02004567a425678d".into()));
    assert_eq!(IscsiName::new("naa.52004567BA64678D"), IscsiName::new("naa.52004567ba64678d"));
    // SHARP S folds to "ss", FULLWIDTH A to "a", a soft hyphen to nothing, A + RING to one character.
    assert_eq!(parse("iqn.2001-04.com.example:stra\u{df}e"), Ok("iqn.2001-04.com.example:strasse".into()));
    assert_eq!(parse("iqn.2001-04.com.example:\u{ff21}\u{ad}b"), Ok("iqn.2001-04.com.example:ab".into()));
    assert_eq!(parse("iqn.2001-04.com.example:a\u{30a}"), Ok("iqn.2001-04.com.example:\u{e5}".into()));
}

/// The list of RFC 3722 section 6.2, written out.
#[test]
fn ascii_allowed_and_not() {
    for c in '\0'..='\u{7f}' {
        let allowed = matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | ':') || c.is_ascii_uppercase();
        let name = format!("iqn.2001-04.com.example:a{c}b");
        assert_eq!(parse(&name).is_ok(), allowed, "{c:?}");
    }
    // Sections 6 and 6.1: ideographic full stop, also from its half-width form; spaces; private use; surrogates do
    // not exist in UTF-8; tags.
    for c in ['\u{3002}', '\u{ff61}', '\u{a0}', '\u{2003}', '\u{e000}', '\u{fffd}', '\u{e0041}', '\u{200e}'] {
        assert_eq!(parse(&format!("iqn.2001-04.com.example:a{c}b")), Err(NameError::Character), "{c:?}");
    }
    // Section 7: right-to-left characters do not mix with left-to-right ones.
    assert_eq!(parse("iqn.2001-04.com.example:\u{5d0}"), Err(NameError::Character));
}

// req: 7143-4.2.7.1-3
#[test]
fn lengths() {
    let name = |n: usize| format!("iqn.2001-04.com.example:{}", "x".repeat(n - 24));
    assert_eq!(parse(&name(223)).map(|n| n.len()), Ok(223));
    assert_eq!(parse(&name(224)), Err(NameError::Length));
    assert_eq!(parse(""), Err(NameError::Length));
    // What grows beyond the limit in preparation is beyond the limit.
    assert_eq!(parse(&format!("{}\u{fdfa}", name(220))), Err(NameError::Character));
    assert_eq!(parse(&format!("{}\u{3392}", name(220))), Ok(format!("{}mhz", name(220))));
}

// req: 7143-4.2.7.4-1
#[test]
fn structure() {
    for (name, error) in [
        ("iqn", NameError::Type),
        ("abc.2001-04.com.example", NameError::Type),
        ("iqn-2001-04.com.example", NameError::Type),
        ("iqn.2001-04", NameError::Date),
        ("iqn.2001-4.com.example", NameError::Date),
        ("iqn.01-04.com.example", NameError::Date),
        ("iqn.2001-00.com.example", NameError::Date),
        ("iqn.2001-13.com.example", NameError::Date),
        ("iqn.2001.04.com.example", NameError::Date),
        ("iqn.2001-04.", NameError::Authority),
        ("iqn.2001-04.:disk", NameError::Authority),
        ("iqn.2001-04.com..example", NameError::Authority),
        ("eui.02004567a425678", NameError::Digits),
        ("eui.02004567a425678d0", NameError::Digits),
        ("eui.02004567a425678g", NameError::Digits),
        ("naa.52004567ba64678d0", NameError::Digits),
        ("naa.", NameError::Digits),
    ] {
        assert_eq!(parse(name), Err(error), "{name}");
    }
}

/// Row 21 of the bug classes: what a peer is called never becomes a path or a line.
#[test]
fn hostile_names() {
    for name in [
        "iqn.2001-04.com.example:../../etc/passwd",
        "iqn.2001-04.com.example:a\nb = c",
        "iqn.2001-04.com.example:a\r",
        "iqn.2001-04.com.example:a b",
        "iqn.2001-04.com.example:%n%s",
        "iqn.2001-04.com.example:$(id)",
        "../iqn.2001-04.com.example",
    ] {
        assert!(parse(name).is_err(), "{name:?}");
    }
}

// req: 7143-13.26.1-1
#[test]
fn local_names() {
    assert_eq!(LocalName::new("Bob-s Disk \u{1f4be}").unwrap().as_str(), "Bob-s Disk \u{1f4be}");
    assert_eq!(LocalName::new(&"x".repeat(255)).unwrap().as_str().len(), 255);
    assert_eq!(LocalName::new(&"x".repeat(256)), Err(NameError::Length));
    assert_eq!(LocalName::new("a\0b"), Err(NameError::Character));
    assert_eq!(LocalName::new("a\x1b[2Jb\n").unwrap().as_str(), "a\u{fffd}[2Jb\u{fffd}");
    assert_eq!(LocalName::new(&"\n".repeat(200)), Err(NameError::Length));
}

proptest! {
    #[test]
    fn preparing_twice_changes_nothing(suffix in "\\PC{0,60}") {
        if let Ok(name) = IscsiName::new(&format!("iqn.2001-04.com.example:{suffix}")) {
            prop_assert_eq!(IscsiName::new(name.as_str()), Ok(name.clone()));
            prop_assert!(name.as_str().len() <= MAX_NAME_LEN);
            prop_assert!(!name.as_str().contains(|c: char| c.is_control() || c.is_whitespace() || c == '/'));
        }
    }

    #[test]
    fn any_text_is_judged(text in "\\PC{0,300}") {
        let _ = (IscsiName::new(&text), LocalName::new(&text));
    }
}
