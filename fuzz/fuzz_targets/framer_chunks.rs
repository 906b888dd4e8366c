//! A byte stream cut in two ways gives the same PDUs and the same error.
//!
//! Input: a byte of options (bit 0 header digests, bit 1 data digests, bits 2-3 limits, bit 4 "make the digests
//! right": the stream is read without digests and its PDUs written again with them, bit 5 "then damage a byte"),
//! a byte of position for that damage, four chunk lengths, the stream.
#![no_main]

use bytes::{Bytes, BytesMut};
use iscsi_pdu::{Digests, FrameError, Framer, Limits, Pdu, Sender};
use libfuzzer_sys::fuzz_target;

fn run(wire: &Bytes, lengths: &[usize], digests: Digests, limits: Limits) -> Vec<Result<Pdu, FrameError>> {
    let mut framer = Framer::new(limits);
    framer.set_digests(digests);
    let mut out = Vec::new();
    let (mut at, mut lengths) = (0, lengths.iter().cycle());
    while at < wire.len() {
        let end = wire.len().min(at + lengths.next().copied().unwrap_or(usize::MAX - at).max(1));
        framer.push(wire.slice(at..end));
        at = end;
        loop {
            match framer.next_pdu() {
                Ok(None) => {
                    assert!(framer.needed() > 0, "it waits for something");
                    break;
                }
                Ok(Some(pdu)) => out.push(Ok(pdu)),
                Err(e) => {
                    let fatal = e.error.fatal();
                    out.push(Err(e.clone()));
                    if fatal {
                        assert_eq!(framer.next_pdu(), Err(e));
                        return out;
                    }
                }
            }
        }
    }
    let handed_out: usize = out.iter().filter_map(|r| r.as_ref().ok()).map(Pdu::encoded_len).sum();
    assert!(handed_out + framer.buffered() <= wire.len());
    out
}

fuzz_target!(|data: &[u8]| {
    let [options, damage, a, b, c, d, stream @ ..] = data else { return };
    let digests = Digests { header: options & 1 != 0, data: options & 2 != 0 };
    let limits = match options >> 2 & 3 {
        0 => Limits::MAX,
        1 => Limits::default(),
        2 => Limits::from(Sender::Initiator),
        _ => Limits { data: 16, ahs: 8, sender: None },
    };
    let mut wire = stream.to_vec();
    if options & 0x10 != 0 {
        let mut framer = Framer::new(Limits::MAX);
        framer.push(wire);
        let mut again = BytesMut::new();
        while let Ok(Some(pdu)) = framer.next_pdu() {
            let _ = pdu.encode_with(digests, &mut again);
        }
        wire = again.to_vec();
    }
    if options & 0x20 != 0 && !wire.is_empty() {
        let at = usize::from(*damage) * wire.len() / 256;
        wire[at] ^= 0x11;
    }
    let wire = Bytes::from(wire);
    let lengths = [a, b, c, d].map(|n| usize::from(*n));
    assert_eq!(run(&wire, &lengths, digests, limits), run(&wire, &[], digests, limits));
});
