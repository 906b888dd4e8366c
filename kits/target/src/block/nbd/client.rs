//! The connection that all handles of a disk share: one thread sends, one receives, and a lost connection is made again.
//!
//! ```text
//!   handles ── submit ─▶ queue ── sender ─▶ socket ─▶ server
//!      ▲                            │ sent              │
//!      └── completions ◀── receiver ◀──────────────◀────┘
//! ```
//!
//! What was sent and not answered when the connection breaks is sent again on the next one: every request may be done
//! twice. But a server that broke down may have forgotten writes that it had confirmed and that no flush had covered
//! yet. When there are such writes, the disk fails them all by refusing every later write and flush until it is opened
//! again, rather than confirm with the next flush what may be gone.

use super::address::{NbdAddress, Stream};
use super::handshake::{Export, handshake};
use super::receiver;
use super::wire::{self, Request, command, flag};
use crate::block::workers::Ticket;
use crate::block::{BlockError, Extent, Payload};
use datamover::{SgList, SgListMut};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause between attempts to connect again.
const RETRY: Duration = Duration::from_millis(500);
/// Slices of one vectored write.
const IOV: usize = 64;

/// An operation of the device, which may take several requests.
pub(super) struct Op {
    /// What a write sends.
    pub(super) data: SgList,
    /// What a read found at the end of it is for the operation's handle.
    pub(super) state: Mutex<OpState>,
}

pub(super) struct OpState {
    pub(super) ticket: Option<Ticket>,
    /// Requests that have not ended.
    pub(super) open: usize,
    pub(super) error: Option<BlockError>,
    pub(super) into: SgListMut,
    /// For BLOCK_STATUS: lengths in bytes and whether they are allocated.
    pub(super) runs: Option<Vec<(u32, bool)>>,
    pub(super) block_size: u32,
    /// A flush has to follow, for a server that does not know FUA.
    pub(super) then_flush: bool,
}

/// One request of an operation.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) op: Arc<Op>,
    pub(super) command: u16,
    pub(super) flags: u16,
    /// Byte of the export.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) len: u32,
    /// Where in the operation's data it begins.
    pub(super) at: usize,
    /// Since when it waits for a connection.
    pub(super) since: Instant,
    /// For a flush: how many writes had been confirmed when it was sent.
    pub(super) covers: u64,
    /// Bytes of a read that have come.
    pub(super) received: u64,
    /// A chunk told of an error.
    pub(super) error: Option<BlockError>,
}

impl Part {
    fn changes(&self) -> bool {
        matches!(self.command, command::WRITE | command::FLUSH | command::TRIM | command::WRITE_ZEROES)
    }
}

/// All that the two threads and the handles share.
pub(super) struct Shared {
    address: NbdAddress,
    pub(super) export: Export,
    /// How long a request waits for a connection before it fails.
    patience: Duration,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Part>,
    /// By cookie, so that they are sent again in order.
    sent: BTreeMap<u64, Part>,
    next_cookie: u64,
    stream: Option<Arc<Stream>>,
    /// Counts the connections.
    link: u64,
    /// Writes that the server confirmed and may still hold in its cache; and how many of those a flush has covered.
    confirmed: u64,
    flushed: u64,
    /// Confirmed writes may be gone.
    lost: bool,
    /// No handle is left.
    closed: bool,
}

/// Keeps the connection while a handle is left.
pub(super) struct Client(Arc<Shared>);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(address: &NbdAddress) -> io::Result<(Stream, Export)> {
    let stream = address.server.connect()?;
    stream.set_timeout(Some(HANDSHAKE))?;
    let export = handshake(&mut Both(&stream), &address.export)?;
    stream.set_timeout(None)?;
    Ok((stream, export))
}

/// A shared stream as the handshake wants it.
struct Both<'a>(&'a Stream);

impl io::Read for Both<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&mut &*self.0).read(into)
    }
}

impl Write for Both<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        (&mut &*self.0).write(from)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    pub(super) fn open(address: NbdAddress, patience: Duration) -> io::Result<Self> {
        let (stream, export) = connect(&address)?;
        let shared =
            Arc::new(Shared { address, export, patience, state: Mutex::default(), wake: Condvar::new() });
        shared.attach(stream)?;
        let sender = shared.clone();
        spawn("nbd-send", move || sender.send_all())?;
        Ok(Self(shared))
    }

    pub(super) fn export(&self) -> &Export {
        &self.0.export
    }

    /// Takes the requests of one operation, which are at least one.
    pub(super) fn submit(&self, parts: impl IntoIterator<Item = Part>) {
        let mut state = lock(&self.0.state);
        state.queue.extend(parts);
        drop(state);
        self.0.wake.notify_all();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.wake.notify_all();
    }
}

#[allow(clippy::disallowed_methods, reason = "the socket is read and written with blocking calls")]
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(drop)
}

#[allow(clippy::disallowed_methods, reason = "a driver has a clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

impl Shared {
    /// Uses `stream` from now on.
    fn attach(self: &Arc<Self>, stream: Stream) -> io::Result<()> {
        let stream = Arc::new(stream);
        let mut state = lock(&self.state);
        state.link += 1;
        state.stream = Some(stream.clone());
        let link = state.link;
        drop(state);
        let shared = self.clone();
        spawn("nbd-receive", move || {
            let error = receiver::run(&shared, &stream);
            shared.broken(link, &error);
        })
        .inspect_err(|error| self.broken(link, error))
    }

    fn send_all(self: &Arc<Self>) {
        while let Some(work) = self.next() {
            match work {
                Work::Connect => self.reconnect(),
                Work::Send { link, stream, cookie, part } => {
                    if let Err(error) = send(&stream, cookie, &part) {
                        self.broken(link, &error);
                    }
                }
            }
        }
    }

    /// What the sender has to do next; `None` when it is done for good.
    fn next(&self) -> Option<Work> {
        let mut guard = lock(&self.state);
        loop {
            let state = &mut *guard;
            if state.lost {
                // Reads go on; what changes the disk does not.
                let refused: VecDeque<Part>;
                (refused, state.queue) =
                    std::mem::take(&mut state.queue).into_iter().partition(Part::changes);
                if !refused.is_empty() {
                    drop(guard);
                    refused.into_iter().for_each(|part| self.end(part, Err(BlockError::WritesLost)));
                    guard = lock(&self.state);
                    continue;
                }
            }
            match (&state.stream, state.queue.pop_front()) {
                (Some(stream), Some(mut part)) => {
                    let stream = stream.clone();
                    state.next_cookie += 1;
                    part.covers = state.confirmed;
                    (part.received, part.error) = (0, None);
                    state.sent.insert(state.next_cookie, part.clone());
                    return Some(Work::Send { link: state.link, stream, cookie: state.next_cookie, part });
                }
                (None, Some(part)) => {
                    state.queue.push_front(part);
                    return Some(Work::Connect);
                }
                (stream, None) if state.closed && state.sent.is_empty() => {
                    if let Some(stream) = stream {
                        let bye = Request { flags: 0, command: command::DISC, cookie: 0, offset: 0, len: 0 };
                        let _ = (&mut &**stream).write_all(&bye.encode());
                        stream.shutdown();
                    }
                    return None;
                }
                (_, None) => guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn reconnect(self: &Arc<Self>) {
        let result = connect(&self.address).and_then(|(stream, export)| match export.serves(&self.export) {
            true => self.attach(stream),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "the export has changed")),
        });
        let Err(error) = result else {
            tracing::info!(address = %self.address, "NBD server connected again");
            return;
        };
        let mut state = lock(&self.state);
        let closed = state.closed;
        let now = now();
        let given_up: VecDeque<Part>;
        (given_up, state.queue) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(|part| closed || now.saturating_duration_since(part.since) >= self.patience);
        if given_up.is_empty() {
            drop(self.wake.wait_timeout(state, RETRY).unwrap_or_else(PoisonError::into_inner));
            return;
        }
        drop(state);
        tracing::warn!(address = %self.address, %error, "NBD server cannot be reached");
        given_up.into_iter().for_each(|part| self.end(part, Err(BlockError::Gone)));
    }

    /// The connection numbered `link` is of no use any more.
    fn broken(&self, link: u64, error: &io::Error) {
        let mut state = lock(&self.state);
        if state.link != link || state.stream.is_none() {
            return;
        }
        if let Some(stream) = state.stream.take() {
            stream.shutdown();
        }
        if state.closed && state.sent.is_empty() {
            // The server took leave, too.
            drop(state);
            self.wake.notify_all();
            return;
        }
        tracing::warn!(address = %self.address, %error, "NBD server lost");
        if state.confirmed > state.flushed && !state.lost {
            state.lost = true;
            tracing::error!(
                address = %self.address,
                "writes that no flush covered may be lost: the disk refuses writes until it is opened again"
            );
        }
        let since = now();
        for (_, part) in std::mem::take(&mut state.sent).into_iter().rev() {
            state.queue.push_front(Part { since, ..part });
        }
        drop(state);
        self.wake.notify_all();
    }

    /// The request that a reply is for.
    pub(super) fn sent(&self, cookie: u64) -> Option<Part> {
        lock(&self.state).sent.get(&cookie).cloned()
    }

    /// A chunk brought `received` bytes or an error for the request.
    pub(super) fn progress(&self, cookie: u64, received: u64, error: Option<BlockError>) {
        if let Some(part) = lock(&self.state).sent.get_mut(&cookie) {
            part.received += received;
            part.error = part.error.or(error);
        }
    }

    /// The server has answered the request in full.
    pub(super) fn answered(&self, cookie: u64, result: Result<(), BlockError>) {
        let mut state = lock(&self.state);
        let Some(part) = state.sent.remove(&cookie) else { return };
        let result = match part.error {
            Some(error) => Err(error),
            None if part.command == command::READ && part.received < u64::from(part.len) => {
                result.and(Err(BlockError::Device))
            }
            None => result,
        };
        match (part.command, result) {
            (command::FLUSH, Ok(())) => state.flushed = state.flushed.max(part.covers),
            (command::FLUSH, Err(error)) => {
                tracing::error!(address = %self.address, %error, "flush failed: the disk refuses writes until it is opened again");
                state.lost = true;
            }
            (command::WRITE | command::TRIM | command::WRITE_ZEROES, Ok(()))
                if part.flags & wire::FLAG_FUA == 0 && self.export.can(flag::SEND_FLUSH) =>
            {
                state.confirmed += 1;
            }
            _ => {}
        }
        let idle = state.closed && state.sent.is_empty();
        drop(state);
        self.end(part, result);
        if idle {
            self.wake.notify_all();
        }
    }

    /// One request has come to its end, and perhaps its operation with it.
    fn end(&self, part: Part, result: Result<(), BlockError>) {
        let mut op = lock(&part.op.state);
        op.error = op.error.or(result.err());
        op.open -= 1;
        if op.open > 0 {
            return;
        }
        if std::mem::take(&mut op.then_flush) && op.error.is_none() {
            op.open = 1;
            drop(op);
            let flush =
                Part { command: command::FLUSH, flags: 0, offset: 0, len: 0, at: 0, since: now(), ..part };
            lock(&self.state).queue.push_back(flush);
            self.wake.notify_all();
            return;
        }
        let Some(ticket) = op.ticket.take() else { return };
        let into = std::mem::take(&mut op.into);
        let block = u64::from(op.block_size);
        let result = match (op.error, op.runs.take()) {
            // The server counts bytes.
            (Some(BlockError::Medium(Some(at))), _) => Err(BlockError::Medium(Some(at / block))),
            (Some(error), _) => Err(error),
            (None, Some(runs)) => Ok(Payload::Extents(extents(&runs, u64::from(part.len), block))),
            (None, None) if part.command == command::READ => Ok(Payload::Data(into.freeze())),
            (None, None) => Ok(Payload::None),
        };
        drop(op);
        ticket.done(result);
    }
}

/// The first of `len` bytes as runs of whole blocks: a block of which a part is allocated is mapped.
fn extents(runs: &[(u32, bool)], len: u64, block: u64) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    let (mut byte, mut done) = (0u64, 0u64);
    for (run, mapped) in runs {
        byte = (byte + u64::from(*run)).min(len);
        let end = if *mapped { byte.div_ceil(block) } else { byte / block };
        let blocks = end.saturating_sub(done);
        done += blocks;
        let full = extents.len() == 64;
        match extents.last_mut() {
            _ if blocks == 0 => {}
            Some(last) if last.mapped == *mapped => last.blocks += blocks,
            _ if full => break,
            _ => extents.push(Extent { blocks, mapped: *mapped }),
        }
    }
    if extents.is_empty() {
        // Less than a block: of the rest nothing is known.
        extents.push(Extent { blocks: 1, mapped: true });
    }
    extents
}

enum Work {
    Connect,
    Send { link: u64, stream: Arc<Stream>, cookie: u64, part: Part },
}

/// Sends a request with its data.
fn send(stream: &Stream, cookie: u64, part: &Part) -> io::Result<()> {
    let Part { flags, command, offset, len, .. } = *part;
    let header = Request { flags, command, cookie, offset, len }.encode();
    let data = match command {
        command::WRITE => part.op.data.slice(part.at, len as usize),
        _ => SgList::new(),
    };
    let total = header.len() + data.len();
    let mut done = 0;
    while done < total {
        let mut iov: [IoSlice<'_>; IOV] = std::array::from_fn(|_| IoSlice::new(&[]));
        let mut n = 0;
        if let Some(rest @ [_, ..]) = header.get(done..) {
            iov[0] = IoSlice::new(rest);
            n = 1;
        }
        n += data.io_slices(done.saturating_sub(header.len()), &mut iov[n..]);
        match (&mut &*stream).write_vectored(&iov[..n]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
