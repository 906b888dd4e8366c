//! A byte stream in memory that cuts what passes as it likes.

use iscsi_tcp::Stream;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a stream cuts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Most bytes of one read, and of one write.
    pub(crate) most: usize,
    /// 0 for always `most`, else a seed for lengths from 1 to `most`.
    pub(crate) seed: u64,
    /// Bytes that the stream holds.
    pub(crate) room: usize,
}

/// One end.
pub(crate) struct Duplex {
    from: Arc<Mutex<Pipe>>,
    to: Arc<Mutex<Pipe>>,
    cut: Cut,
    rng: u64,
}

/// Both ends.
pub(crate) fn duplex(cut: Cut) -> (Duplex, Duplex) {
    let (a, b) = (Arc::<Mutex<Pipe>>::default(), Arc::<Mutex<Pipe>>::default());
    let end = |from, to, salt| Duplex { from, to, cut, rng: cut.seed.wrapping_mul(2).wrapping_add(salt) };
    (end(a.clone(), b.clone(), 1), end(b, a, 3))
}

impl Duplex {
    fn length(&mut self) -> usize {
        if self.cut.seed == 0 {
            return self.cut.most;
        }
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        1 + (self.rng >> 20) as usize % self.cut.most
    }
}

impl Stream for Duplex {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        let mut most = self.length();
        let mut pipe = self.from.lock().unwrap();
        assert!(slices.iter().any(|s| !s.is_empty()), "a read to nowhere");
        if pipe.bytes.is_empty() && !pipe.closed {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut n = 0;
        for slice in slices {
            let take = slice.len().min(most).min(pipe.bytes.len());
            for (to, from) in slice.iter_mut().zip(pipe.bytes.drain(..take)) {
                *to = from;
            }
            most -= take;
            n += take;
        }
        if let Some(waker) = pipe.writer.take() {
            waker.wake();
        }
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut most = self.length();
        let mut pipe = self.to.lock().unwrap();
        if pipe.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        most = most.min(self.cut.room.saturating_sub(pipe.bytes.len()));
        if most == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut n = 0;
        for slice in slices {
            let take = slice.len().min(most);
            pipe.bytes.extend(&slice[..take]);
            most -= take;
            n += take;
        }
        assert!(n > 0, "an empty write");
        if let Some(waker) = pipe.reader.take() {
            waker.wake();
        }
        Poll::Ready(Ok(n))
    }

    fn shutdown(&mut self) {
        self.to.lock().unwrap().close();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }
}

impl Pipe {
    fn close(&mut self) {
        self.closed = true;
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.to.lock().unwrap().close();
        self.from.lock().unwrap().close();
    }
}
