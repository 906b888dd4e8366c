//! Any bytes as text: what is read can be written again, an answer keeps to its budget, pieces join.
#![no_main]

use bytes::Bytes;
use iscsi_pdu::text::{TextAssembler, TextErrorKind, TextLimits, TextWriter, chunks, pairs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [max, text @ ..] = data else { return };
    let limits = TextLimits::default();
    let mut answer = TextWriter::new(8192);
    let mut same = TextWriter::new(text.len());
    let mut whole = true;
    for (n, pair) in pairs(text, limits).enumerate() {
        assert!(n <= limits.pairs);
        match pair {
            Ok((key, value)) => {
                answer.pair(key, "NotUnderstood");
                same.pair(key, value);
            }
            Err(e) => {
                assert!(e.at <= text.len() && !e.to_string().is_empty());
                whole = false;
            }
        }
    }
    match answer.finish() {
        Ok(answer) => assert!(answer.len() <= 8192),
        Err(e) => assert_eq!(e.kind, TextErrorKind::TooManyBytes),
    }
    if whole {
        assert_eq!(same.finish().unwrap(), text);
    }
    let segment = Bytes::copy_from_slice(text);
    let mut assembler = TextAssembler::new(text.len());
    let mut joined = None;
    for (piece, c) in chunks(segment.clone(), usize::from(*max)) {
        assert!(joined.is_none());
        joined = assembler.push(piece, c).unwrap();
    }
    assert_eq!(joined, Some(segment));
});
