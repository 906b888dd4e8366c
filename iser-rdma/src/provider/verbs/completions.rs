//! A completion queue, and waiting for it on the reactor.

use super::cm::watch;
use super::ffi::Wc;
use super::id::Id;
use super::object::{Cq, Fd};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;

/// The registration goes before the queue whose descriptor it is.
pub(super) struct Completions {
    fd: AsyncFd<Fd>,
    pub(super) cq: Cq,
    armed: bool,
}

impl Completions {
    pub(super) fn new(id: Arc<Id>, len: libc::c_int) -> io::Result<Self> {
        let cq = Cq::new(id, len)?;
        Ok(Self { fd: watch(cq.fd())?, cq, armed: false })
    }

    /// Takes completions; how many.
    pub(super) fn poll(&mut self, out: &mut [Wc]) -> io::Result<usize> {
        self.cq.poll(out)
    }

    /// Asks to be woken by the next completion; `false` when there may be one already.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if !self.armed {
            // One may have come before the event was asked for: look again.
            self.armed = true;
            self.cq.arm()?;
            return Ok(false);
        }
        loop {
            let Poll::Ready(guard) = self.fd.poll_read_ready(cx) else { return Ok(true) };
            let mut guard = guard?;
            match self.cq.take_event() {
                Ok(()) => {
                    // One queue, one event each time that it is armed: there is no other to look for.
                    guard.clear_ready();
                    self.armed = false;
                    return Ok(false);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) => return Err(e),
            }
        }
    }
}
