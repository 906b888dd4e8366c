//! A byte stream in memory that cuts what it carries as it likes, and remembers it.

use crate::provider::iwarp::Stream;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Half {
    bytes: VecDeque<u8>,
    carried: Vec<u8>,
    ended: bool,
    reader: Option<Waker>,
}

#[derive(Default)]
struct Shared {
    halves: [Half; 2],
    /// Longest piece that a read or a write moves; 0 for no limit.
    chunk: usize,
    /// Bytes that a direction holds; 0 for no limit.
    room: usize,
    /// Flips one bit of the byte at this place in direction 0.
    spoil: Option<usize>,
}

/// One end.
pub(super) struct Pipe {
    shared: Arc<Mutex<Shared>>,
    side: usize,
}

/// A hand on what is between.
#[derive(Clone)]
pub(super) struct Wire(Arc<Mutex<Shared>>);

pub(super) fn pipe(chunk: usize, room: usize) -> (Pipe, Pipe, Wire) {
    let shared = Arc::new(Mutex::new(Shared { chunk, room, ..Shared::default() }));
    let end = |side| Pipe { shared: shared.clone(), side };
    (end(0), end(1), Wire(shared.clone()))
}

impl Wire {
    /// All that side `from` has sent.
    pub(super) fn carried(&self, from: usize) -> Vec<u8> {
        self.0.lock().unwrap().halves[from].carried.clone()
    }

    pub(super) fn spoil(&self, at: usize) {
        self.0.lock().unwrap().spoil = Some(at);
    }

    /// Bytes that side `from` sends next, without an end that does so.
    pub(super) fn inject(&self, from: usize, bytes: &[u8]) {
        self.0.lock().unwrap().halves[from].bytes.extend(bytes);
    }

    pub(super) fn cut(&self) {
        self.0.lock().unwrap().halves.iter_mut().for_each(|h| h.ended = true);
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Stream for Pipe {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let chunk = shared.chunk;
        let half = &mut shared.halves[1 - self.side];
        if half.bytes.is_empty() {
            if half.ended {
                return Poll::Ready(Ok(0));
            }
            half.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut n = 0;
        for byte in slices.iter_mut().flat_map(|s| s.iter_mut()) {
            if chunk != 0 && n == chunk {
                break;
            }
            let Some(next) = half.bytes.pop_front() else { break };
            *byte = next;
            n += 1;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut shared = self.lock();
        let (chunk, room, spoil) = (shared.chunk, shared.room, shared.spoil);
        let half = &mut shared.halves[self.side];
        if half.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut n = 0;
        for byte in slices.iter().flat_map(|s| s.iter()) {
            if (chunk != 0 && n == chunk) || (room != 0 && half.bytes.len() >= room) {
                break;
            }
            let bad = self.side == 0 && spoil == Some(half.carried.len());
            half.carried.push(*byte);
            half.bytes.push_back(if bad { byte ^ 0x10 } else { *byte });
            n += 1;
        }
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
        if n == 0 { Poll::Pending } else { Poll::Ready(Ok(n)) }
    }

    fn shutdown(&mut self) {
        let mut shared = self.shared.lock().unwrap();
        shared.halves[self.side].ended = true;
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }
}
