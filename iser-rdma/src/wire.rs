//! The iSER header in front of every Send message (RFC 7145 section 9), 28 bytes, big-endian.
//!
//! ```text
//!          0               1               2               3
//!         +-------+-+-+---+---------------+---------------+---------------+
//!       0 | 0001b |W|R|rsv|                  reserved                     |   control-type PDU (9.2)
//!       4 |                          Write STag                           |
//!       8 |                     Write Base Offset (8)                     |
//!      16 |                           Read STag                           |
//!      20 |                      Read Base Offset (8)                     |
//!         +-------+-------+-------+-------+-------------------------------+
//!       0 | 0010b |  rsv  |MaxVer |MinVer |           iSER-IRD            |   Hello (9.3)
//!       0 | 0011b |rsv |REJ|MaxVer|CurVer |           iSER-ORD            |   HelloReply (9.4)
//!         +-------+-------+-------+-------+-------------------------------+
//! ```

use crate::{RemoteBuf, Stag};
use nom::IResult;
use nom::error::{Error, ErrorKind};
use std::fmt;

/// Length of the iSER header in bytes (RFC 7145 section 9.1).
pub const ISER_HEADER_LEN: usize = 28;

/// The only version of the protocol (RFC 7145 sections 9.3, 9.4).
// req: 7145-9.3-3, 7145-9.3-4, 7145-9.4-3, 7145-9.4-4
pub const ISER_VERSION: u8 = 10;

const CONTROL: u8 = 0b0001;
const HELLO: u8 = 0b0010;
const HELLO_REPLY: u8 = 0b0011;
const WSV: u8 = 0x08;
const RSV: u8 = 0x04;
const REJ: u8 = 0x01;

/// Why bytes are no iSER message: a format error of RFC 7145 section 10.1.3.3, which ends the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the header has.
    Short,
    /// An opcode other than 1, 2 and 3 (section 9.1).
    Opcode(u8),
    /// A Hello or HelloReply with more than the header (sections 9.3, 9.4).
    HelloLength,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule())?;
        if let Self::Opcode(code) = self { write!(f, ": {code}") } else { Ok(()) }
    }
}

impl std::error::Error for WireError {}

impl WireError {
    /// The rule that was broken, as the cause of the connection's end.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Short => "iSER message shorter than its header (RFC 7145 section 9.1)",
            Self::Opcode(_) => "unknown iSER opcode (RFC 7145 section 9.1)",
            Self::HelloLength => "iSER Hello or HelloReply of a wrong length (RFC 7145 sections 9.3, 9.4)",
        }
    }
}

/// The header of a control-type PDU: which STags the sender advertises (RFC 7145 section 9.2), or, with a SCSI
/// Response, which ones the receiver is to invalidate (section 7.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ControlHeader {
    /// Write STag and Write Base Offset; `Some` sets WSV.
    pub write: Option<RemoteBuf>,
    /// Read STag and Read Base Offset; `Some` sets RSV.
    pub read: Option<RemoteBuf>,
}

/// Hello, the initiator's first message where iSERHelloRequired=Yes (RFC 7145 section 9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Hello {
    /// Highest version that the initiator speaks, 4 bits.
    pub max_version: u8,
    /// Lowest version that the initiator speaks, 4 bits.
    pub min_version: u8,
    /// iSER-IRD: RDMA Reads that the initiator serves at a time.
    pub ird: u16,
}

/// HelloReply, the target's answer (RFC 7145 section 9.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct HelloReply {
    /// REJ: the Hello was not acceptable and the connection ends.
    pub reject: bool,
    /// Highest version that the target speaks, 4 bits.
    pub max_version: u8,
    /// The version in use, 4 bits.
    pub cur_version: u8,
    /// iSER-ORD: RDMA Reads that the target issues at a time.
    pub ord: u16,
}

/// Any iSER header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum IserHeader {
    /// A control-type PDU follows.
    Control(ControlHeader),
    /// Hello.
    Hello(Hello),
    /// HelloReply.
    HelloReply(HelloReply),
}

impl IserHeader {
    /// The header at the front of a whole message, and what follows it.
    ///
    /// # Errors
    /// [`WireError`]: a format error, on which the connection ends.
    // req: 7145-9.1-1, 7145-9.1-2, 7145-9.3-1, 7145-9.4-1
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let first = message.first().copied().ok_or(WireError::Short)?;
        let (rest, header) = match first >> 4 {
            CONTROL => control(message),
            HELLO => hello(message),
            HELLO_REPLY => hello_reply(message),
            other if message.len() >= ISER_HEADER_LEN => return Err(WireError::Opcode(other)),
            _ => return Err(WireError::Short),
        }
        .map_err(|_| WireError::Short)?;
        match header {
            Self::Control(_) => Ok((header, rest)),
            _ if rest.is_empty() => Ok((header, rest)),
            _ => Err(WireError::HelloLength),
        }
    }

    /// The 28 bytes. Reserved bits, and STags and offsets that are not valid, are 0.
    // req: 7145-9.2-1, 7145-9.2-4, 7145-9.2-5, 7145-9.2-6, 7145-9.2-7, 7145-9.2-8, 7145-9.3-2, 7145-9.3-5
    // req: 7145-9.4-2, 7145-9.4-5
    #[must_use]
    pub fn encode(&self) -> [u8; ISER_HEADER_LEN] {
        let nibbles = |hi: u8, lo: u8| hi << 4 | lo & 0x0f;
        let first_word = |b0: u8, b1: u8, n: u16| {
            let [b2, b3] = n.to_be_bytes();
            [b0, b1, b2, b3]
        };
        let mut parts = [[0u8; 4]; 7];
        let [word, w_stag, w_hi, w_lo, r_stag, r_hi, r_lo] = &mut parts;
        match self {
            Self::Control(c) => {
                let flags = if c.write.is_some() { WSV } else { 0 } | if c.read.is_some() { RSV } else { 0 };
                *word = first_word(CONTROL << 4 | flags, 0, 0);
                for (buf, stag, hi, lo) in [(c.write, w_stag, w_hi, w_lo), (c.read, r_stag, r_hi, r_lo)] {
                    let Some(buf) = buf else { continue };
                    *stag = buf.stag.0.to_be_bytes();
                    let [a, b, c, d, e, f, g, h] = buf.offset.to_be_bytes();
                    (*hi, *lo) = ([a, b, c, d], [e, f, g, h]);
                }
            }
            Self::Hello(h) => *word = first_word(HELLO << 4, nibbles(h.max_version, h.min_version), h.ird),
            Self::HelloReply(h) => {
                let rej = if h.reject { REJ } else { 0 };
                *word = first_word(HELLO_REPLY << 4 | rej, nibbles(h.max_version, h.cur_version), h.ord);
            }
        }
        let mut out = [0u8; ISER_HEADER_LEN];
        for (to, from) in out.iter_mut().zip(parts.iter().flatten()) {
            *to = *from;
        }
        out
    }
}

fn arr<const N: usize>(i: &[u8]) -> IResult<&[u8], [u8; N]> {
    match i.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((rest, *head)),
        None => Err(nom::Err::Error(Error::new(i, ErrorKind::Eof))),
    }
}

fn remote_buf(i: &[u8]) -> IResult<&[u8], RemoteBuf> {
    let (i, stag) = arr(i)?;
    let (i, offset) = arr(i)?;
    Ok((i, RemoteBuf { stag: Stag(u32::from_be_bytes(stag)), offset: u64::from_be_bytes(offset) }))
}

// req: 7145-9.2-1, 7145-9.2-2, 7145-9.2-3, 7145-9.2-9
fn control(i: &[u8]) -> IResult<&[u8], IserHeader> {
    let (i, [flags, _, _, _]) = arr(i)?;
    let (i, write) = remote_buf(i)?;
    let (i, read) = remote_buf(i)?;
    let header = ControlHeader {
        write: (flags & WSV != 0).then_some(write),
        read: (flags & RSV != 0).then_some(read),
    };
    Ok((i, IserHeader::Control(header)))
}

/// What Hello and HelloReply share; their last 24 bytes are reserved.
fn hello_fields(i: &[u8]) -> IResult<&[u8], (u8, u8, u8, u16)> {
    let (i, [flags, versions, n0, n1]) = arr(i)?;
    let (i, _reserved) = arr::<24>(i)?;
    Ok((i, (flags, versions >> 4, versions & 0x0f, u16::from_be_bytes([n0, n1]))))
}

// req: 7145-9.3-2, 7145-9.3-6
fn hello(i: &[u8]) -> IResult<&[u8], IserHeader> {
    let (i, (_, max_version, min_version, ird)) = hello_fields(i)?;
    Ok((i, IserHeader::Hello(Hello { max_version, min_version, ird })))
}

// req: 7145-9.4-2, 7145-9.4-6
fn hello_reply(i: &[u8]) -> IResult<&[u8], IserHeader> {
    let (i, (flags, max_version, cur_version, ord)) = hello_fields(i)?;
    let reply = HelloReply { reject: flags & REJ != 0, max_version, cur_version, ord };
    Ok((i, IserHeader::HelloReply(reply)))
}

#[cfg(test)]
mod tests;
