//! The handshake of the fixed newstyle, after which the connection carries requests for one export.

use super::wire::{self, flag, info, option, reply};
use std::io::{self, Read, Write};

/// What the server said of the export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Export {
    /// In bytes.
    pub(super) size: u64,
    /// Transmission flags.
    pub(super) flags: u16,
    /// Bytes that offsets and lengths of requests are multiples of.
    pub(super) minimum_block: u32,
    /// Bytes that the server likes best.
    pub(super) preferred_block: u32,
    /// Bytes of the longest request.
    pub(super) maximum: u32,
    /// Replies may come as chunks.
    pub(super) structured: bool,
    /// Number of the `base:allocation` context, with which BLOCK_STATUS can be asked.
    pub(super) allocation: Option<u32>,
}

/// The longest request to a server that has not said what it takes.
const DEFAULT_MAXIMUM: u32 = 32 << 20;
/// The longest reply to an option that is listened to; more is not from an NBD server.
const LONGEST_REPLY: u32 = 64 << 10;

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Agrees with the server on the export called `name`.
///
/// # Errors
/// What the connection says; [`io::ErrorKind::NotFound`] when there is no such export,
/// [`io::ErrorKind::PermissionDenied`] when the server refuses, [`io::ErrorKind::InvalidData`] when it is no NBD server.
pub(super) fn handshake<S: Read + Write>(stream: &mut S, name: &str) -> io::Result<Export> {
    if read::<8>(stream)? != wire::MAGIC {
        return Err(invalid("no NBD server: its first bytes are not NBDMAGIC"));
    }
    if read::<8>(stream)? != wire::OPTION_MAGIC {
        return Err(invalid("the NBD server speaks the oldstyle only, from before 2011"));
    }
    let offered = u16::from_be_bytes(read(stream)?);
    if offered & wire::FIXED_NEWSTYLE == 0 {
        return Err(invalid("the NBD server does not speak the fixed newstyle"));
    }
    let flags = offered & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
    stream.write_all(&u32::from(flags).to_be_bytes())?;

    let structured = match ask(stream, option::STRUCTURED_REPLY, &[], |_, _| Ok(()))? {
        Answer::Ack => true,
        Answer::Refused(..) => false,
    };
    let mut allocation = None;
    if structured {
        let mut query = counted(name);
        query.extend(1u32.to_be_bytes());
        query.extend(counted("base:allocation"));
        // Refusal means that there is no such context.
        ask(stream, option::SET_META_CONTEXT, &query, |kind, data| {
            if kind == reply::META_CONTEXT && data.get(4..) == Some(b"base:allocation") {
                allocation = u32_at(data, 0);
            }
            Ok(())
        })?;
    }
    let mut export = Export {
        size: 0,
        flags: 0,
        minimum_block: 1,
        preferred_block: 4096,
        maximum: DEFAULT_MAXIMUM,
        structured,
        allocation,
    };
    let mut described = false;
    let mut query = counted(name);
    query.extend(1u16.to_be_bytes());
    query.extend(info::BLOCK_SIZE.to_be_bytes());
    let answer = ask(stream, option::GO, &query, |kind, data| {
        described |= kind == reply::INFO && describe(&mut export, data)?;
        Ok(())
    })?;
    match answer {
        Answer::Ack if !described => Err(invalid("the NBD server did not describe the export")),
        Answer::Ack => Ok(export),
        Answer::Refused(reply::ERR_UNSUP, _) => by_name(stream, name, flags & wire::NO_ZEROES == 0, export),
        Answer::Refused(code, message) => Err(refusal(code, &message, name)),
    }
}

/// The way of servers that do not know GO: no reply but the export, or the end.
fn by_name<S: Read + Write>(stream: &mut S, name: &str, zeroes: bool, export: Export) -> io::Result<Export> {
    send_option(stream, option::EXPORT_NAME, name.as_bytes())?;
    let size = u64::from_be_bytes(read(stream).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::NotFound, format!("the NBD server has no export '{name}'"))
        }
        _ => error,
    })?);
    let flags = u16::from_be_bytes(read(stream)?);
    if zeroes {
        read::<124>(stream)?;
    }
    Ok(Export { size, flags, ..export })
}

/// Takes one piece of information; `true` when it was the export's size and flags.
fn describe(export: &mut Export, data: &[u8]) -> io::Result<bool> {
    let short = || invalid("the NBD server sent a short description");
    let kind = data.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes).ok_or_else(short)?;
    match kind {
        info::EXPORT => {
            let size = data.get(2..10).and_then(|b| b.try_into().ok()).ok_or_else(short)?;
            let flags = data.get(10..12).and_then(|b| b.try_into().ok()).ok_or_else(short)?;
            export.size = u64::from_be_bytes(size);
            export.flags = u16::from_be_bytes(flags);
            Ok(true)
        }
        info::BLOCK_SIZE => {
            export.minimum_block = u32_at(data, 2).ok_or_else(short)?;
            export.preferred_block = u32_at(data, 6).ok_or_else(short)?;
            export.maximum = u32_at(data, 10).ok_or_else(short)?;
            let valid = export.minimum_block.is_power_of_two() && export.maximum >= export.minimum_block;
            if !valid {
                return Err(invalid("the NBD server has impossible block sizes"));
            }
            // All ones is no limit, but lengths must stay multiples of the minimum.
            export.maximum = export.maximum.min(1 << 30);
            Ok(false)
        }
        _ => Ok(false),
    }
}

fn refusal(code: u32, message: &str, name: &str) -> io::Error {
    let (kind, why) = match code {
        reply::ERR_UNKNOWN => (io::ErrorKind::NotFound, "there is none"),
        reply::ERR_POLICY => (io::ErrorKind::PermissionDenied, "its policy forbids it"),
        reply::ERR_TLS_REQD => (io::ErrorKind::PermissionDenied, "it demands TLS, which is not spoken"),
        reply::ERR_SHUTDOWN => (io::ErrorKind::ConnectionAborted, "it is shutting down"),
        _ => (io::ErrorKind::ConnectionRefused, "error"),
    };
    io::Error::new(kind, format!("the NBD server refuses export '{name}': {why} ({code:#x} {message})"))
}

enum Answer {
    Ack,
    /// Code and text.
    Refused(u32, String),
}

/// Sends an option and hears what the server says to it: `each` gets what comes before the end.
fn ask<S: Read + Write>(
    stream: &mut S,
    option: u32,
    data: &[u8],
    mut each: impl FnMut(u32, &[u8]) -> io::Result<()>,
) -> io::Result<Answer> {
    send_option(stream, option, data)?;
    // A server sends a handful of replies; one that never ends is cut off.
    for _ in 0..64 {
        if u64::from_be_bytes(read(stream)?) != wire::OPTION_REPLY_MAGIC
            || u32::from_be_bytes(read(stream)?) != option
        {
            return Err(invalid("the NBD server answers out of turn"));
        }
        let kind = u32::from_be_bytes(read(stream)?);
        let len = u32::from_be_bytes(read(stream)?);
        if len > LONGEST_REPLY {
            return Err(invalid("the NBD server sends too long a reply"));
        }
        let mut data = vec![0; len as usize];
        stream.read_exact(&mut data)?;
        match kind {
            reply::ACK => return Ok(Answer::Ack),
            code if code & reply::ERROR != 0 => {
                return Ok(Answer::Refused(code, String::from_utf8_lossy(&data).into_owned()));
            }
            kind => each(kind, &data)?,
        }
    }
    Err(invalid("the NBD server does not end its reply"))
}

fn send_option(stream: &mut impl Write, option: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(16 + data.len());
    bytes.extend(wire::OPTION_MAGIC);
    bytes.extend(option.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    stream.write_all(&bytes)
}

/// A string with its length before it.
fn counted(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

impl Export {
    pub(super) fn can(&self, what: u16) -> bool {
        self.flags & what != 0
    }

    /// Whether a server that came back still serves the same disk, as far as it says.
    pub(super) fn serves(&self, before: &Self) -> bool {
        self.size == before.size
            && before.flags & !self.flags & !flag::ROTATIONAL == 0
            && (self.can(flag::READ_ONLY) == before.can(flag::READ_ONLY))
            && self.minimum_block <= before.minimum_block
            && self.maximum >= before.maximum
            && before.allocation.is_some() <= self.allocation.is_some()
    }
}
