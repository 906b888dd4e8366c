//! The text format, its limits, and what peers have sent to break others.

use super::*;
use proptest::prelude::*;

fn read(segment: &[u8]) -> Result<Vec<(&str, &str)>, TextErrorKind> {
    pairs(segment, TextLimits::default()).collect::<Result<_, _>>().map_err(|e| e.kind)
}

#[test]
fn pairs_in_order_and_values_with_equals() {
    // req: 7143-6.1-1, 7143-6.1-13
    let text = b"InitiatorName=iqn.2001-04.com.example\0X-a=b=c\0SendTargets=\0";
    let expected = [("InitiatorName", "iqn.2001-04.com.example"), ("X-a", "b=c"), ("SendTargets", "")];
    assert_eq!(read(text).unwrap(), expected);
    assert_eq!(read(b""), Ok(vec![]));
}

#[test]
fn each_rule_by_name() {
    // req: 7143-6.1-1, 7143-6.1-2
    let long_key = [&b"X"[..], &[b'a'; 63], b"=1\0"].concat();
    let longest_key = [&b"X"[..], &[b'a'; 62], b"=1\0"].concat();
    let long_value = [&b"X="[..], &[b'a'; 256], b"\0"].concat();
    let longest_value = [&b"X="[..], &[b'a'; 255], b"\0"].concat();
    for (text, expected) in [
        (&b"A=1"[..], Err(TextErrorKind::Unterminated)),
        (b"A=1\0B=2", Err(TextErrorKind::Unterminated)),
        (b"A\0", Err(TextErrorKind::NoEquals)),
        (b"\0", Err(TextErrorKind::NoEquals)),
        (b"A=1\0\0", Err(TextErrorKind::NoEquals)),
        (b"=1\0", Err(TextErrorKind::EmptyKey)),
        (b"headerDigest=None\0", Err(TextErrorKind::KeyCharacter)),
        (b"iSCSIProtocolLevel=2\0", Ok(1)),
        (b"iSERHelloRequired=No\0", Ok(1)),
        (b"iSCSIprotocolLevel=2\0", Err(TextErrorKind::KeyCharacter)),
        (b"1A=None\0", Err(TextErrorKind::KeyCharacter)),
        (b"A A=1\0", Err(TextErrorKind::KeyCharacter)),
        (b"A\xff=1\0", Err(TextErrorKind::KeyCharacter)),
        (b"A#B=1\0", Err(TextErrorKind::KeyCharacter)),
        (b"XX#B=1\0", Err(TextErrorKind::KeyCharacter)),
        (b"A=\xff\0", Err(TextErrorKind::ValueNotUtf8)),
        (&long_key, Err(TextErrorKind::KeyTooLong)),
        (&long_value, Err(TextErrorKind::ValueTooLong)),
        (&longest_key, Ok(1)),
        (&longest_value, Ok(1)),
        (b"X#NodeArchitecture=x86\0Y#A=1\0Z#A=1\0A.b-c+d@e_9=\0", Ok(4)),
        ("A=gr\u{fc}n\0".as_bytes(), Ok(1)),
    ] {
        assert_eq!(read(text).map(|p| p.len()), expected, "{:?}", text.escape_ascii().to_string());
    }
}

#[test]
fn an_error_says_where_and_ends_it() {
    let mut pairs = pairs(b"A=1\0b=2\0C=3\0", TextLimits::default());
    assert_eq!(pairs.next(), Some(Ok(("A", "1"))));
    assert_eq!(pairs.next(), Some(Err(TextError { kind: TextErrorKind::KeyCharacter, at: 4 })));
    assert_eq!(pairs.next(), None);
}

#[test]
fn limits_count_what_has_arrived() {
    let limits = |bytes, pairs, value| TextLimits { bytes, pairs, value };
    let count =
        |text: &[u8], l| pairs(text, l).collect::<Result<Vec<_>, _>>().map(|v| v.len()).map_err(|e| e.kind);
    let text = b"A=1\0B=2\0C=33\0";
    assert_eq!(count(text, limits(13, 3, 2)), Ok(3));
    assert_eq!(count(text, limits(12, 3, 2)), Err(TextErrorKind::TooManyBytes));
    assert_eq!(count(text, limits(13, 2, 2)), Err(TextErrorKind::TooManyPairs));
    assert_eq!(count(text, limits(13, 3, 1)), Err(TextErrorKind::ValueTooLong));
}

#[test]
fn two_thousand_unknown_keys_do_not_amplify() {
    // 8 KiB of "a=b" pairs made a target write 32 KiB of "a=NotUnderstood" into a buffer of 8 KiB.
    let request: Vec<u8> = b"A=b\0".repeat(2048);
    let mut answer = TextWriter::new(8192);
    let mut read = 0;
    for pair in pairs(&request, TextLimits { pairs: usize::MAX, ..TextLimits::default() }) {
        answer.pair(pair.unwrap().0, "NotUnderstood");
        read += 1;
    }
    assert_eq!(read, 2048);
    assert!(answer.out.len() <= 8192);
    assert_eq!(answer.finish().unwrap_err().kind, TextErrorKind::TooManyBytes);
    let limited: Result<Vec<_>, _> = pairs(&request, TextLimits::default()).collect();
    assert_eq!(limited, Err(TextError { kind: TextErrorKind::TooManyPairs, at: 256 * 4 }));
}

#[test]
fn a_writer_fails_closed() {
    let mut text = TextWriter::new(12);
    text.pair("A", "1").pair("B", "too long").pair("C", "3");
    assert_eq!(text.remaining(), 8, "nothing after what did not fit");
    assert_eq!(text.finish(), Err(TextError { kind: TextErrorKind::TooManyBytes, at: 4 }));
    for (key, value, kind) in [
        ("", "1", TextErrorKind::EmptyKey),
        ("a", "1", TextErrorKind::KeyCharacter),
        ("A=B", "1", TextErrorKind::KeyCharacter),
        ("A", "1\0B=2", TextErrorKind::ValueWithNul),
    ] {
        let mut text = TextWriter::new(100);
        text.pair(key, value);
        assert_eq!(text.finish(), Err(TextError { kind, at: 0 }));
    }
    let mut exact = TextWriter::new(4);
    assert!(exact.is_empty());
    assert_eq!(exact.pair("A", "1").remaining(), 0);
    assert_eq!(exact.finish().unwrap(), &b"A=1\0"[..]);
}

#[test]
fn a_pair_may_span_pdus() {
    // req: 7143-6.1-4, 7143-6.1-7
    let whole = Bytes::from(b"X-key=value\0".repeat(682));
    assert_eq!(whole.len(), 8184);
    for max in [1, 7, 512, 8184, 9000] {
        let mut text = TextAssembler::new(8192);
        let mut joined = None;
        for (piece, c) in chunks(whole.clone(), max) {
            assert!(piece.len() <= max && joined.is_none());
            joined = text.push(piece, c).unwrap();
            assert_eq!(c, text.is_partial());
        }
        assert_eq!(joined, Some(whole.clone()));
    }
    assert_eq!(chunks(Bytes::new(), 0).collect::<Vec<_>>(), [(Bytes::new(), false)]);
    assert_eq!(chunks(Bytes::from_static(b"ab"), 0).count(), 2);
}

#[test]
fn an_assembler_is_bounded_and_makes_progress() {
    let push = |text: &mut TextAssembler, n, c| text.push(Bytes::from(vec![b'a'; n]), c);
    let mut text = TextAssembler::new(8192);
    assert_eq!(push(&mut text, 8192, true), Ok(None));
    assert_eq!(push(&mut text, 1, true), Err(TextError { kind: TextErrorKind::TooManyBytes, at: 8192 }));
    assert!(!text.is_partial());
    assert!(push(&mut text, 8193, false).is_err());
    // Continued with nothing: a null pointer elsewhere, an endless exchange here.
    assert_eq!(push(&mut text, 0, true), Err(TextError { kind: TextErrorKind::EmptyContinuation, at: 0 }));
    assert_eq!(push(&mut text, 0, false), Ok(Some(Bytes::new())));
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "strings by regular expression take minutes there")]
    fn what_is_written_is_read(list in proptest::collection::vec(("[A-Z][a-zA-Z0-9.+@_-]{0,62}", "[^\\x00]{0,60}"), 0..20)) {
        let mut text = TextWriter::new(65_536);
        list.iter().for_each(|(k, v)| { text.pair(k, v); });
        let segment = text.finish().unwrap();
        let back: Vec<(String, String)> = pairs(&segment, TextLimits { bytes: 65_536, ..TextLimits::default() })
            .map(|p| p.map(|(k, v)| (k.to_string(), v.to_string())))
            .collect::<Result<_, _>>()
            .unwrap();
        prop_assert_eq!(back, list);
    }

    #[test]
    fn every_truncation_loses_whole_pairs_or_fails(cut in 0..36_usize) {
        let text = b"A=1\0HeaderDigest=CRC32C\0InitialR2T=\0";
        let cut = cut.min(text.len() - 1);
        match read(&text[..cut]) {
            Ok(list) => prop_assert!(cut == 0 || text[cut - 1] == 0, "{} pairs", list.len()),
            Err(kind) => prop_assert_eq!(kind, TextErrorKind::Unterminated),
        }
    }

    #[test]
    fn any_bytes_do_no_harm(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let good = read(&text).map(|l| l.len());
        if let Ok(n) = good {
            prop_assert_eq!(n, text.iter().filter(|b| **b == 0).count());
        }
    }
}
