//! TransportID of iSCSI initiator ports (SPC-4 clause 7.6.4.6) and names of SCSI ports (RFC 7143 section 4.4.2).

use crate::codec::{Failure, Parsed, Put, arr, run, take};
use crate::error::{DecodeError, DecodeErrorKind};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

/// PROTOCOL IDENTIFIER of iSCSI.
const ISCSI: u8 = 5;

/// A TransportID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TransportId {
    /// iSCSI, FORMAT CODE 00b: any port of the initiator node.
    Node {
        /// iSCSI node name.
        name: String,
    },
    /// iSCSI, FORMAT CODE 01b: one initiator port.
    Port {
        /// iSCSI node name.
        name: String,
        /// ISID.
        isid: [u8; 6],
    },
    /// Of another protocol: the first byte (FORMAT CODE and PROTOCOL IDENTIFIER) and the 23 that follow it.
    Other(u8, [u8; 23]),
}

/// Name of an initiator port as SCSI parameter data have it, without the terminating NUL: `iqn.…,i,0x00023d000001`.
#[must_use]
pub fn initiator_port_name(name: &str, isid: [u8; 6]) -> String {
    // req: 7143-4.4.2-3
    let mut out = String::from(name);
    out.push_str(",i,0x");
    for byte in isid {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// Name of a target port as SCSI parameter data have it, without the terminating NUL: `iqn.…,t,0x0001`.
#[must_use]
pub fn target_port_name(name: &str, portal_group_tag: u16) -> String {
    // req: 7143-4.4.2-3
    let mut out = String::from(name);
    let _ = write!(out, ",t,0x{portal_group_tag:04x}");
    out
}

impl TransportId {
    /// The TransportID: a multiple of four bytes, at least 24.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (format, text) = match self {
            Self::Node { name } => (0x00, name.clone()),
            Self::Port { name, isid } => (0x40, initiator_port_name(name, *isid)),
            Self::Other(first, rest) => {
                let mut o = Vec::with_capacity(24);
                o.put8(*first);
                o.put_bytes(rest);
                return o;
            }
        };
        let mut o = Vec::with_capacity(64);
        o.put_bytes(&[format | ISCSI, 0, 0, 0]);
        o.put_bytes(text.as_bytes());
        o.put8(0);
        let len = o.len().next_multiple_of(4).max(24);
        o.resize(len, 0);
        o.fill_len16(2);
        o
    }

    /// Decodes the TransportID that `bytes` begins with.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Truncated`], [`DecodeErrorKind::Length`] when ADDITIONAL LENGTH is no multiple of four or
    /// below 20, [`DecodeErrorKind::Value`] when the name is not what its FORMAT CODE says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, Self::parse)
    }

    /// Decodes as many TransportIDs as `bytes` holds.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        run(bytes, |mut i| {
            let mut all = Vec::new();
            while !i.is_empty() {
                let (rest, one) = Self::parse(i)?;
                all.push(one);
                i = rest;
            }
            Ok((i, all))
        })
    }

    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (rest, [first, _, l0, l1]) = arr(i)?;
        if first & 0x0f != ISCSI {
            let (rest, [first, tail @ ..]) = arr::<24>(i)?;
            return Ok((rest, Self::Other(first, tail)));
        }
        let len = u16::from_be_bytes([l0, l1]);
        if !len.is_multiple_of(4) || len < 20 {
            return Err(Failure::at(i.get(2..).unwrap_or_default(), DecodeErrorKind::Length));
        }
        let (after, field) = take(usize::from(len))(rest)?;
        let wrong = || Failure::at(rest, DecodeErrorKind::Value);
        let text = field.split(|b| *b == 0).next().unwrap_or_default();
        let text = core::str::from_utf8(text).map_err(|_| wrong())?;
        if text.is_empty() || text.len() == field.len() {
            return Err(wrong());
        }
        match first >> 6 {
            0 => Ok((after, Self::Node { name: text.into() })),
            1 => {
                let (name, isid) =
                    text.rsplit_once(",i,0x").or_else(|| text.rsplit_once(",i,0X")).ok_or_else(wrong)?;
                let isid = hex48(isid).ok_or_else(wrong)?;
                Ok((after, Self::Port { name: name.into(), isid }))
            }
            _ => Err(Failure::at(i, DecodeErrorKind::Value)),
        }
    }
}

/// Twelve hexadecimal digits, or fewer with leading zeros left out.
fn hex48(text: &str) -> Option<[u8; 6]> {
    if text.is_empty() || text.len() > 12 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let [_, _, isid @ ..] = u64::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some(isid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // req: 7143-4.4.2-3
    #[test]
    fn port_names() {
        assert_eq!(
            initiator_port_name("iqn.1993-08.org.debian:01:abc", [0, 2, 0x3d, 0, 0, 1]),
            "iqn.1993-08.org.debian:01:abc,i,0x00023d000001"
        );
        assert_eq!(target_port_name("iqn.2026-01.org.example:d", 1), "iqn.2026-01.org.example:d,t,0x0001");
    }

    #[test]
    fn a_port_as_spc4_lays_it_out() {
        let id =
            TransportId::Port { name: "iqn.1993-08.org.debian:01:abc".into(), isid: [0, 2, 0x3d, 0, 0, 1] };
        let bytes = id.encode();
        assert_eq!(bytes[..4], [0x45, 0, 0, 48]);
        assert_eq!(&bytes[4..50], b"iqn.1993-08.org.debian:01:abc,i,0x00023d000001");
        assert_eq!(bytes[50..], [0, 0]);
        assert_eq!(TransportId::decode(&bytes).as_ref(), Ok(&id));
        for len in 0..bytes.len() {
            assert!(TransportId::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn what_is_refused() {
        let mut bytes = TransportId::Node { name: "iqn.2026-01.a:b".into() }.encode();
        assert_eq!(bytes.len(), 24);
        bytes[3] = 19;
        assert_eq!(TransportId::decode(&bytes), Err(DecodeError { kind: DecodeErrorKind::Length, at: 2 }));
        bytes[3] = 20;
        bytes[0] = 0x45;
        assert_eq!(TransportId::decode(&bytes), Err(DecodeError { kind: DecodeErrorKind::Value, at: 4 }));
        bytes[0] = 0x85;
        assert_eq!(TransportId::decode(&bytes).unwrap_err().kind, DecodeErrorKind::Value);
        // No terminating NUL.
        let mut full = bytes;
        full[0] = 0x05;
        full[4..].fill(b'x');
        assert_eq!(TransportId::decode(&full).unwrap_err().kind, DecodeErrorKind::Value);
    }

    proptest! {
        #[test]
        fn survive(name in "iqn[a-z0-9.:-]{1,200}", isid: [u8; 6], other: [u8; 23]) {
            let ids = [
                TransportId::Node { name: name.clone() },
                TransportId::Port { name, isid },
                TransportId::Other(0x06, other),
            ];
            let all: Vec<u8> = ids.iter().flat_map(TransportId::encode).collect();
            prop_assert_eq!(TransportId::decode_all(&all), Ok(ids.to_vec()));
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = TransportId::decode_all(&bytes);
        }
    }
}
