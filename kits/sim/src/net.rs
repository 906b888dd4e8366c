//! Byte streams with latency, arbitrary pieces, stalls, resets and single wrong bytes.

use crate::plan::Links;
use crate::rng::Rng;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The clock of a run, which everything in it reads.
#[derive(Clone)]
pub(crate) struct Clock {
    now: Arc<Mutex<Instant>>,
    /// Somebody who had to wait for room can go on, at this very moment.
    woken: Arc<AtomicBool>,
}

impl Clock {
    pub(crate) fn new(start: Instant) -> Self {
        Self { now: Arc::new(Mutex::new(start)), woken: Arc::default() }
    }

    pub(crate) fn now(&self) -> Instant {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody can go on who had to wait, since the last call.
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn set(&self, now: Instant) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

#[derive(Default)]
struct Direction {
    pieces: VecDeque<(Instant, Bytes)>,
    queued: usize,
    /// The sender found no room.
    blocked: bool,
    /// The sender will send no more.
    ended: bool,
    /// Nobody is there to receive any more.
    deserted: bool,
}

struct Wire {
    clock: Clock,
    directions: [Direction; 2],
    reset: bool,
    /// A byte was made wrong.
    corrupted: bool,
    /// Something other than bytes concerns an end.
    news: [bool; 2],
    stalled_until: Option<Instant>,
    rng: Rng,
    /// What a piece takes at least, and what it may take more.
    base: Duration,
    latency: Duration,
    chunk: usize,
    /// Bytes that one direction holds before its sender must wait.
    capacity: usize,
}

/// A hand on a connection.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<Mutex<Wire>>);

impl Pipe {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reset(&self) {
        let mut wire = self.wire();
        wire.reset = true;
        wire.news = [true; 2];
        wire.directions = Default::default();
    }

    pub(crate) fn stall(&self, until: Instant) {
        self.wire().stalled_until = Some(until);
    }

    /// The end `side` (0 or 1) sends no more.
    pub(crate) fn half_close(&self, side: usize) {
        let mut wire = self.wire();
        wire.directions[side].ended = true;
        wire.news = [true; 2];
    }

    /// Whether an end finds anything here that it has not been told of; nothing else is a reason to look.
    pub(crate) fn is_ready(&self, side: usize) -> bool {
        let mut wire = self.wire();
        let now = wire.clock.now();
        if std::mem::take(&mut wire.news[side]) || wire.reset {
            return true;
        }
        let inbound = &wire.directions[1 - side];
        let arrived = inbound.pieces.front().map_or(inbound.ended, |(at, _)| *at <= now);
        arrived && wire.stalled_until.is_none_or(|until| until <= now)
    }

    /// Makes one byte on its way wrong; `false` when nothing is on its way.
    pub(crate) fn corrupt(&self) -> bool {
        let mut wire = self.wire();
        let pick = wire.rng.next();
        let wire = &mut *wire;
        for direction in &mut wire.directions {
            if let Some((_, piece)) = direction.pieces.back_mut() {
                let mut bytes = piece.to_vec();
                let at = (pick % bytes.len() as u64) as usize;
                bytes[at] ^= 1 << (pick >> 32 & 7);
                *piece = Bytes::from(bytes);
                wire.corrupted = true;
                return true;
            }
        }
        false
    }

    /// Whether everything that came out of it was what went in.
    pub(crate) fn is_faithful(&self) -> bool {
        !self.wire().corrupted
    }

    /// What is on its way, for a run that does not end.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let wire = self.wire();
        let direction = |d: &Direction| {
            let first = d.pieces.front().map(|(at, _)| at.saturating_duration_since(now));
            let words = [(d.blocked, "blocked"), (d.ended, "ended"), (d.deserted, "deserted")];
            let words: Vec<&str> = words.into_iter().filter(|(so, _)| *so).map(|(_, word)| word).collect();
            format!("{} bytes, the first in {first:?} {}", d.queued, words.join(" "))
        };
        let [there, back] = wire.directions.each_ref().map(direction);
        format!("there {there}, back {back}")
    }

    /// When something arrives next. What has arrived and was not taken is nothing to wait for: an end that is about to
    /// close does not read, and time would creep from one nanosecond to the next.
    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        [self.next_arrival_at(0), self.next_arrival_at(1)].into_iter().flatten().min()
    }

    /// The same for the end of a side alone.
    pub(crate) fn next_arrival_at(&self, side: usize) -> Option<Instant> {
        let wire = self.wire();
        let inbound = &wire.directions[1 - side];
        let first = inbound.pieces.front()?.0;
        let (now, stalled) = (wire.clock.now(), wire.stalled_until);
        let arrival = |at: Instant| stalled.map_or(at, |until| until.max(at));
        if arrival(first) > now {
            return Some(arrival(first));
        }
        inbound.pieces.iter().map(|(at, _)| arrival(*at)).find(|at| *at > now)
    }
}

/// One end of a connection.
pub(crate) struct SimStream {
    pipe: Pipe,
    clock: Clock,
    /// The direction in which this end sends.
    side: usize,
}

/// Makes a connection.
pub(crate) fn pipe(clock: &Clock, mut rng: Rng, links: &Links) -> (SimStream, SimStream, Pipe) {
    let wire = Wire {
        clock: clock.clone(),
        directions: Default::default(),
        reset: false,
        corrupted: false,
        news: [false; 2],
        stalled_until: None,
        base: Duration::from_nanos(rng.below(1 + links.skew.as_nanos() as u64)),
        rng,
        latency: links.latency,
        chunk: links.chunk.max(1),
        capacity: links.capacity,
    };
    let pipe = Pipe(Arc::new(Mutex::new(wire)));
    let end = |side| SimStream { pipe: pipe.clone(), clock: clock.clone(), side };
    (end(0), end(1), pipe)
}

impl SimStream {
    fn receive(&mut self, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let now = self.clock.now();
        let mut wire = self.pipe.wire();
        if wire.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if wire.stalled_until.is_some_and(|until| now < until) {
            return Poll::Pending;
        }
        let direction = &mut wire.directions[1 - self.side];
        let mut done = 0;
        'slices: for slice in slices.iter_mut() {
            let mut room = &mut slice[..];
            while !room.is_empty() {
                let Some((at, piece)) = direction.pieces.front_mut() else { break 'slices };
                if *at > now {
                    break 'slices;
                }
                let n = room.len().min(piece.len());
                room[..n].copy_from_slice(&piece[..n]);
                piece.advance(n);
                if piece.is_empty() {
                    direction.pieces.pop_front();
                }
                done += n;
                room = &mut room[n..];
            }
        }
        direction.queued -= done;
        let over = done > 0 || (direction.ended && direction.pieces.is_empty());
        if done > 0 && std::mem::take(&mut direction.blocked) {
            wire.news[1 - self.side] = true;
            self.clock.woken.store(true, Ordering::Relaxed);
        }
        if over {
            return Poll::Ready(Ok(done));
        }
        Poll::Pending
    }

    fn send(&mut self, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let now = self.clock.now();
        let mut wire = self.pipe.wire();
        if wire.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // What is sent to a closed socket comes back as a reset, when it can.
        let stalled = wire.stalled_until.is_some_and(|until| now < until);
        if !stalled && wire.directions[self.side].deserted {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        // A half-closed socket takes no more.
        if wire.directions[self.side].ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (base, latency, chunk) = (wire.base, wire.latency, wire.chunk);
        let room = wire.capacity.saturating_sub(wire.directions[self.side].queued);
        let total = slices.iter().map(|s| s.len()).sum::<usize>().min(room);
        let mut bytes: Vec<u8> = Vec::with_capacity(total);
        for slice in slices {
            let n = slice.len().min(total - bytes.len());
            bytes.extend_from_slice(&slice[..n]);
        }
        if bytes.is_empty() {
            wire.directions[self.side].blocked = true;
            return Poll::Pending;
        }
        let n = bytes.len();
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let len = (1 + wire.rng.index(chunk)).min(bytes.len());
            // Never at once: the other end may have been asked at this moment already, and would not be again.
            let delay = base + Duration::from_nanos(1 + wire.rng.below(1 + latency.as_nanos() as u64));
            let piece = bytes.split_to(len);
            let direction = &mut wire.directions[self.side];
            // Streams keep their order.
            let earliest = direction.pieces.back().map_or(now, |(at, _)| *at);
            direction.queued += piece.len();
            direction.pieces.push_back((earliest.max(now + delay), piece));
        }
        Poll::Ready(Ok(n))
    }

    fn end(&mut self) {
        self.pipe.wire().directions[self.side].ended = true;
    }
}

/// The stream as both transports see it.
macro_rules! stream {
    ($name:path) => {
        impl $name for SimStream {
            fn poll_read(
                &mut self,
                _cx: &mut Context<'_>,
                slices: &mut [IoSliceMut<'_>],
            ) -> Poll<io::Result<usize>> {
                self.receive(slices)
            }

            fn poll_write(
                &mut self,
                _cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                self.send(slices)
            }

            fn shutdown(&mut self) {
                self.end();
            }

            fn local_addr(&self) -> Option<SocketAddr> {
                None
            }

            fn peer_addr(&self) -> Option<SocketAddr> {
                None
            }
        }
    };
}

stream!(iscsi_tcp::Stream);
stream!(iser_rdma::provider::iwarp::Stream);

impl Drop for SimStream {
    fn drop(&mut self) {
        self.end();
        let mut wire = self.pipe.wire();
        wire.news[1 - self.side] = true;
        let inbound = &mut wire.directions[1 - self.side];
        inbound.deserted = true;
        inbound.pieces.clear();
        inbound.queued = 0;
    }
}
