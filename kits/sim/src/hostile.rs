//! Peers that log in as they should and then send any PDU at any time, over TCP: an initiator beside the honest ones,
//! and a target that an honest initiator comes to by mistake.
//!
//! What they send is made by [`forge`]: every opcode that their end may send and some that it may not, with numbers
//! and tags that were seen, that come next, or that mean nothing.

mod forge;
mod initiator;
mod target;

pub(crate) use initiator::Intruder;
pub(crate) use target::Impostor;

use crate::net::SimStream;
use bytes::{Bytes, BytesMut};
use forge::Known;
use iscsi_pdu::{BHS_LEN, Pdu};
use iscsi_tcp::Stream;
use std::io::{IoSlice, IoSliceMut};
use std::task::{Context, Poll, Waker};

/// InitiatorName of the hostile initiator.
pub(crate) const NAME: &str = "iqn.2026-01.org.example:hostile";

/// A byte stream with PDUs in it, no digests, and no opinion of what they say.
struct Link {
    stream: SimStream,
    unread: BytesMut,
    unsent: BytesMut,
    over: bool,
}

impl Link {
    fn new(stream: SimStream) -> Self {
        Self { stream, unread: BytesMut::new(), unsent: BytesMut::new(), over: false }
    }

    fn send(&mut self, pdu: &Pdu<Bytes>) {
        if pdu.encode(&mut self.unsent).is_err() {
            self.over = true;
        }
    }

    /// Sends and receives what it can; whether anything moved.
    fn turn(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut moved = false;
        while !self.over && !self.unsent.is_empty() {
            match self.stream.poll_write(&mut cx, &[IoSlice::new(&self.unsent)]) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => drop(self.unsent.split_to(n)),
                Poll::Ready(_) => self.over = true,
            }
            moved = true;
        }
        let mut room = [0; 4096];
        while !self.over {
            match self.stream.poll_read(&mut cx, &mut [IoSliceMut::new(&mut room)]) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => self.unread.extend_from_slice(&room[..n]),
                Poll::Ready(_) => self.over = true,
            }
            moved = true;
        }
        moved
    }

    /// The next PDU, as it came.
    fn frame(&mut self) -> Option<Bytes> {
        let bhs = self.unread.first_chunk::<BHS_LEN>()?;
        let data = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let len = BHS_LEN + 4 * usize::from(bhs[4]) + data.next_multiple_of(4);
        (self.unread.len() >= len).then(|| self.unread.split_to(len).freeze())
    }

    /// Learns from all that came.
    fn listen(&mut self, known: &mut Known) {
        while let Some(frame) = self.frame() {
            known.heard(&frame);
        }
    }
}
