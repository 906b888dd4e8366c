//! Replies: simple ones and chunks, read data going straight into the operation's buffers.

use super::address::Stream;
use super::client::{Part, Shared, lock};
use super::wire::{self, chunk, command};
use crate::block::BlockError;
use std::io::{self, IoSliceMut, Read};

/// Slices of one vectored read.
const IOV: usize = 64;
/// The longest text of an error, or list of runs, that is listened to.
const LONGEST: u32 = 1 << 20;

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the NBD server breaks the protocol: {what}"))
}

/// Hears replies until the connection ends; says why it did.
pub(super) fn run(shared: &Shared, stream: &Stream) -> io::Error {
    loop {
        if let Err(error) = reply(shared, stream) {
            return error;
        }
    }
}

fn reply(shared: &Shared, mut stream: &Stream) -> io::Result<()> {
    match u32::from_be_bytes(read(&mut stream)?) {
        wire::SIMPLE_REPLY => simple(shared, stream),
        wire::STRUCTURED_REPLY if shared.export.structured => structured(shared, stream),
        _ => Err(invalid("no reply begins like this")),
    }
}

fn simple(shared: &Shared, mut stream: &Stream) -> io::Result<()> {
    let code = u32::from_be_bytes(read(&mut stream)?);
    let cookie = u64::from_be_bytes(read(&mut stream)?);
    let part = shared.sent(cookie).ok_or_else(|| invalid("a reply without a request"))?;
    if code != 0 {
        shared.answered(cookie, Err(error(code)));
        return Ok(());
    }
    match part.command {
        command::READ if shared.export.structured => return Err(invalid("a simple reply to a read")),
        command::READ => {
            fill(&part, part.at, part.len as usize, stream)?;
            shared.progress(cookie, u64::from(part.len), None);
        }
        command::BLOCK_STATUS => return Err(invalid("a simple reply to BLOCK_STATUS")),
        _ => {}
    }
    shared.answered(cookie, Ok(()));
    Ok(())
}

fn structured(shared: &Shared, mut stream: &Stream) -> io::Result<()> {
    let flags = u16::from_be_bytes(read(&mut stream)?);
    let kind = u16::from_be_bytes(read(&mut stream)?);
    let cookie = u64::from_be_bytes(read(&mut stream)?);
    let len = u32::from_be_bytes(read(&mut stream)?);
    let part = shared.sent(cookie).ok_or_else(|| invalid("a chunk without a request"))?;
    match kind {
        chunk::NONE if len == 0 => {}
        chunk::OFFSET_DATA if part.command == command::READ && len > 8 => {
            let offset = u64::from_be_bytes(read(&mut stream)?);
            let len = len - 8;
            let at = within(&part, offset, len)?;
            fill(&part, at, len as usize, stream)?;
            shared.progress(cookie, u64::from(len), None);
        }
        chunk::OFFSET_HOLE if part.command == command::READ && len == 12 => {
            let offset = u64::from_be_bytes(read(&mut stream)?);
            let hole = u32::from_be_bytes(read(&mut stream)?);
            let at = within(&part, offset, hole)?;
            zero(&part, at, hole as usize);
            shared.progress(cookie, u64::from(hole), None);
        }
        chunk::BLOCK_STATUS if part.command == command::BLOCK_STATUS && (12..=LONGEST).contains(&len) => {
            let mut data = vec![0; len as usize];
            stream.read_exact(&mut data)?;
            if data.get(..4).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes)
                == shared.export.allocation
            {
                runs(&part, &data[4..]);
            }
        }
        kind if kind & chunk::ERROR != 0 && (6..=LONGEST).contains(&len) => {
            let mut data = vec![0; len as usize];
            stream.read_exact(&mut data)?;
            let code = data.first_chunk().copied().map(u32::from_be_bytes).unwrap_or_default();
            let at =
                data.last_chunk().copied().map(u64::from_be_bytes).filter(|_| kind == chunk::ERROR_OFFSET);
            let error = match (error(code), at) {
                (BlockError::Medium(_), Some(byte)) => BlockError::Medium(Some(byte)),
                (error, _) => error,
            };
            shared.progress(cookie, 0, Some(error));
        }
        _ => return Err(invalid("a chunk that does not fit its request")),
    }
    if flags & wire::CHUNK_DONE != 0 {
        shared.answered(cookie, Ok(()));
    }
    Ok(())
}

/// Where in the operation's data a chunk belongs.
fn within(part: &Part, offset: u64, len: u32) -> io::Result<usize> {
    let at = offset.checked_sub(part.offset).filter(|at| at + u64::from(len) <= u64::from(part.len));
    at.map(|at| part.at + at as usize).ok_or_else(|| invalid("data that were not asked for"))
}

fn fill(part: &Part, at: usize, len: usize, mut stream: &Stream) -> io::Result<()> {
    let mut op = lock(&part.op.state);
    let mut done = 0;
    while done < len {
        let mut iov: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let n = op.into.io_slices_mut(at + done, len - done, &mut iov);
        match stream.read_vectored(&mut iov[..n]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn zero(part: &Part, at: usize, len: usize) {
    let mut op = lock(&part.op.state);
    let mut done = 0;
    while done < len {
        let mut iov: [IoSliceMut<'_>; IOV] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let n = op.into.io_slices_mut(at + done, len - done, &mut iov);
        if n == 0 {
            return;
        }
        for slice in &mut iov[..n] {
            slice.fill(0);
            done += slice.len();
        }
    }
}

/// Keeps the runs, as pairs of length in bytes and state, for the operation.
fn runs(part: &Part, data: &[u8]) {
    let mut op = lock(&part.op.state);
    let Some(list) = &mut op.runs else { return };
    for run in data.chunks_exact(8) {
        let (len, state) = run.split_at(4);
        let number = |b: &[u8]| b.try_into().map(u32::from_be_bytes).unwrap_or_default();
        list.push((number(len), number(state) & wire::STATE_HOLE == 0));
    }
}

fn read<const N: usize>(stream: &mut &Stream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What an error of the protocol means. The position of a medium error is still in bytes.
fn error(code: u32) -> BlockError {
    match code {
        1 => BlockError::ReadOnly,
        5 => BlockError::Medium(None),
        28 => BlockError::NoSpace,
        75 | 95 => BlockError::Unsupported,
        108 => BlockError::Gone,
        _ => BlockError::Device,
    }
}
