//! A capture file with one TCP connection in it, a segment a PDU: what tshark reads.

use std::io::Write;
use std::path::Path;

const INITIATOR: ([u8; 4], u16) = ([10, 0, 0, 1], 50_000);
const TARGET: ([u8; 4], u16) = ([10, 0, 0, 2], 3260);

/// Writes `segments`, each with whether the initiator sends it, to `path`.
pub fn write(path: &Path, segments: &[(bool, Vec<u8>)]) {
    let mut out = Vec::new();
    // Magic number of microsecond captures, version 2.4, no time zone, whole packets, raw IP (link type 101).
    for n in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x0004_0000, 101] {
        out.extend(n.to_le_bytes());
    }
    let mut next = [1_u32, 1];
    for (i, (from_initiator, payload)) in segments.iter().enumerate() {
        let [from, to] = if *from_initiator { [INITIATOR, TARGET] } else { [TARGET, INITIATOR] };
        let (own, other) = if *from_initiator { (0, 1) } else { (1, 0) };
        let len = 40 + payload.len();
        for n in [i as u32 / 1000, i as u32 % 1000 * 1000, len as u32, len as u32] {
            out.extend(n.to_le_bytes());
        }
        // IPv4: version and header length, length, no fragments, TTL 64, TCP, no checksum.
        out.extend([0x45, 0]);
        out.extend((len as u16).to_be_bytes());
        out.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        out.extend(from.0);
        out.extend(to.0);
        // TCP: header of 20 bytes, PSH and ACK, no checksum.
        out.extend(from.1.to_be_bytes());
        out.extend(to.1.to_be_bytes());
        out.extend(next[own].to_be_bytes());
        out.extend(next[other].to_be_bytes());
        out.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        out.extend(payload);
        next[own] += payload.len() as u32;
    }
    std::fs::File::create(path).and_then(|mut f| f.write_all(&out)).unwrap();
}
