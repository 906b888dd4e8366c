//! [`Stream`]: the byte stream under a connection.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// A reliable byte stream that does not block. TCP sockets are one; a simulator's links are another.
pub trait Stream: Send {
    /// Reads into the slices in order; `Ok(0)` is the end of the stream. `Pending` registers the waker.
    ///
    /// # Errors
    /// The stream's own; the connection is then over.
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>;

    /// Writes from the slices in order; `Pending` registers the waker.
    ///
    /// # Errors
    /// The stream's own; the connection is then over.
    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Ends the sending direction after what was written. Failure does not matter: the stream is dropped next.
    fn shutdown(&mut self);

    /// Our address, if the stream has one.
    fn local_addr(&self) -> Option<SocketAddr>;

    /// The peer's address, if the stream has one.
    fn peer_addr(&self) -> Option<SocketAddr>;
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, slices: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> {
        (**self).poll_read(cx, slices)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        (**self).poll_write(cx, slices)
    }

    fn shutdown(&mut self) {
        (**self).shutdown();
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        (**self).local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        (**self).peer_addr()
    }
}

/// Slices of one read, at least as many as a queue pair offers.
const READ_SLOTS: usize = 16;

/// Octets of the shortest iSER message as an FPDU: MPA length and CRC, DDP header, iSER header, BHS. As many of them as
/// receive buffers are posted is all that is read at a time, so that TCP holds a fast peer back rather than a missing
/// buffer ending the connection.
pub(super) const SHORTEST: usize = 2 + 18 + crate::ISER_HEADER_LEN + iscsi_pdu::BHS_LEN + 4;

/// The slices for one read, of which the last, where messages are looked for, is cut to `room`.
pub(super) fn limited<'a>(slots: &'a mut [IoSliceMut<'_>], room: usize) -> [IoSliceMut<'a>; READ_SLOTS] {
    let last = slots.len().saturating_sub(1);
    let mut slots = slots.iter_mut().enumerate();
    std::array::from_fn(|_| {
        let Some((n, slot)) = slots.next() else { return IoSliceMut::new(&mut []) };
        let len = if n == last { slot.len().min(room) } else { slot.len() };
        IoSliceMut::new(slot.get_mut(..len).unwrap_or_default())
    })
}
