//! A TCP core of either role with transfers open, against any bytes: no panic, no memory kept, nothing sent that is
//! not a PDU or lies outside a buffer, and the same events however the stream is cut.
//!
//! Input: a byte of options (bit 0 role, bits 1-2 digests, bit 3 any order, bit 4 ErrorRecoveryLevel 1, bit 5 give a
//! task up on the way, bit 6 "make the digests right": the stream is read without and written again with them), two
//! chunk lengths, the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use play::{Script, play, with_digests};

#[path = "../../iscsi-tcp/tests/common/play.rs"]
mod play;

fuzz_target!(|data: &[u8]| {
    let [options, a, b, stream @ ..] = data else { return };
    let script = Script::from_bits(options & 0x3f);
    let stream = match options & 0x40 {
        0 => stream.to_vec(),
        _ => with_digests(stream, script.digests),
    };
    let lengths = [usize::from(*a), usize::from(*b) << 4];
    assert_eq!(play(&script, &stream, &lengths), play(&script, &stream, &[usize::MAX]));
});
