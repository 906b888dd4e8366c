use super::*;
use proptest::prelude::*;

// req: 7143-6.1-8
#[test]
fn booleans() {
    assert_eq!((parse_boolean("Yes"), parse_boolean("No")), (Ok(true), Ok(false)));
    for bad in ["yes", "no", "YES", "true", "1", "", "Yes ", "Yes,No"] {
        assert_eq!(parse_boolean(bad), Err(ValueError::Syntax), "{bad:?}");
    }
}

#[test]
fn numbers() {
    for (text, n) in [("0", 0), ("1", 1), ("8192", 8192), ("0x2000", 8192), ("0X0fF", 255)] {
        assert_eq!(parse_number(text), Ok(n), "{text}");
    }
    assert_eq!(parse_number("18446744073709551615"), Ok(u64::MAX));
    assert_eq!(parse_number("18446744073709551616"), Err(ValueError::TooLong));
    assert_eq!(parse_number("0x10000000000000000"), Err(ValueError::TooLong));
    // A decimal-constant is 0 or begins with another digit.
    for bad in ["", "00", "01", "-1", "+1", " 1", "1 ", "0x", "0xg", "1e3", "0b1", "1~2", "١"] {
        assert_eq!(parse_number(bad), Err(ValueError::Syntax), "{bad:?}");
    }
}

// req: 7143-6.1-11
#[test]
fn ranges() {
    assert_eq!(parse_range("4~8"), Ok((4, 8)));
    assert_eq!(parse_range("0x10~16"), Ok((16, 16)));
    assert_eq!(parse_range("0~65535"), Ok((0, 65_535)));
    assert_eq!(parse_range("2048~0x2000"), Ok((2048, 8192)));
    for bad in ["8~4", "4", "4~", "~8", "4~8~9", "a~b"] {
        assert_eq!(parse_range(bad), Err(ValueError::Syntax), "{bad:?}");
    }
}

// req: 7143-6.1-9, 7143-6.1-10, 7143-6.1-3
#[test]
fn binary_values() {
    assert_eq!(parse_binary("0x123", 2), Ok(vec![0x01, 0x23]));
    assert_eq!(parse_binary("0X00ff", 2), Ok(vec![0, 0xff]));
    // RFC 4648 section 10.
    assert_eq!(parse_binary("0bZm9vYmFy", 6), Ok(b"foobar".to_vec()));
    assert_eq!(parse_binary("0BZm9vYg==", 4), Ok(b"foob".to_vec()));
    for bad in ["", "12", "0x", "0b", "0xzz", "0bZ", "0bZm9vYg=", "0bZm9v!mFy", "Zm9v", "0bZm9vYg==Zm9v"] {
        assert_eq!(parse_binary(bad, 64), Err(ValueError::Syntax), "{bad:?}");
    }
    // Decimal is for short values of known length alone; a longer one is refused as every other.
    assert_eq!(parse_binary("123456789012345678901234567890", 64), Err(ValueError::Syntax));
}

/// Row 4 of the bug classes: the length of the result is known before anything is decoded.
#[test]
fn binary_length_is_checked_first() {
    assert_eq!(parse_binary(&format!("0x{}", "0".repeat(2048)), 1024).map(|v| v.len()), Ok(1024));
    assert_eq!(parse_binary(&format!("0x{}", "0".repeat(2049)), 1024), Err(ValueError::TooLong));
    let base64 = |n: usize| BinaryEncoding::Base64.encode(&vec![7; n]);
    assert_eq!(parse_binary(&base64(1024), 1024).map(|v| v.len()), Ok(1024));
    assert_eq!(parse_binary(&base64(1025), 1024), Err(ValueError::TooLong));
    // 127 characters that would decode to 95 bytes, into room for 16: no matter that they are no base64 either.
    assert_eq!(parse_binary(&format!("0b{}", "!".repeat(127)), 16), Err(ValueError::TooLong));
    assert_eq!(parse_binary(&format!("0x{}", "!".repeat(127)), 16), Err(ValueError::TooLong));
}

#[test]
fn encodings() {
    assert_eq!(BinaryEncoding::Hex.encode(&[0x01, 0xab]), "0x01ab");
    assert_eq!(BinaryEncoding::Base64.encode(b"foobar"), "0bZm9vYmFy");
}

proptest! {
    #[test]
    fn both_encodings_round_trip(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        for encoding in [BinaryEncoding::Hex, BinaryEncoding::Base64] {
            prop_assert_eq!(parse_binary(&encoding.encode(&bytes), 200), Ok(bytes.clone()));
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,40}", max in 0usize..50) {
        let _ = (parse_boolean(&text), parse_number(&text), parse_range(&text));
        if let Ok(bytes) = parse_binary(&text, max) {
            prop_assert!(bytes.len() <= max);
        }
    }
}
