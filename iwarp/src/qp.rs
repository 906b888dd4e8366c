//! The queue pair: work in, completions out, octets both ways.

mod admit;
mod out;
mod rx;
mod slots;
mod tx;
mod work;

pub use slots::RecvSlots;
pub use work::{
    Cause, Completion, Done, Limits, ReadWr, Refusal, Refused, RemoteAddr, SendWr, Stats, Status, WrId,
    WriteWr,
};

use crate::mpa::{Established, Role};
use crate::stag::{Access, InvalidateError, Invalidated, Region, Stag, StagTable};
use crate::{Memory, Terminate, TerminateCode};
use std::collections::VecDeque;
use std::io::IoSlice;

/// One end of an RDMAP stream over MPA, without the TCP connection.
///
/// # Calling order
///
/// - Post work and register memory at any time; [`poll_cq`](Self::poll_cq) returns what has been done.
/// - When the connection is readable: read into [`recv_slots`](Self::recv_slots) (one vectored read), report with
///   [`received`](Self::received); at its end, call [`handle_eof`](Self::handle_eof) or
///   [`handle_lost`](Self::handle_lost).
/// - When it is writable: write [`transmit_slices`](Self::transmit_slices) (one vectored write), report with
///   [`transmitted`](Self::transmitted). Both posting and receiving can give rise to something to send.
/// - When [`status`](Self::status) is [`Closed`](Status::Closed): close the connection. [`cause`](Self::cause) says why,
///   the completion queue returns what was posted, and [`reclaim`](Self::reclaim) the registered memory.
///
/// There is no clock: idle and stuck peers are the consumer's to time out (RFC 5044 section 7.1.2 rule 10).
pub struct QueuePair<M> {
    limits: Limits,
    table: StagTable<M>,
    recvs: VecDeque<(WrId, M)>,
    cq: VecDeque<Completion<M>>,
    rx: rx::Rx,
    tx: tx::Tx<M>,
    out: out::Out,
    ird: usize,
    ord: usize,
    cause: Option<Cause>,
    stats: Stats,
}

impl<M: Memory> QueuePair<M> {
    /// A queue pair on a connection whose MPA startup is complete.
    ///
    /// `seed` is 16 octets of randomness: STags are made from it, and a peer that knew it could guess them.
    pub fn new(established: &Established, limits: Limits, seed: [u8; 16]) -> Self {
        let e = established;
        let mut qp = Self {
            limits,
            table: StagTable::new(limits.stags, seed),
            recvs: VecDeque::new(),
            cq: VecDeque::new(),
            rx: rx::Rx::new(e),
            tx: tx::Tx::new(e, limits.emss),
            out: out::Out::new(e.tx_markers, e.crc),
            ird: usize::from(e.ird),
            ord: usize::from(e.ord),
            cause: None,
            stats: Stats::default(),
        };
        if let (Some(code), Role::Initiator) = (e.fault, e.role) {
            qp.fail(Terminate::new(code));
        }
        qp
    }

    /// Registers memory and makes an STag for it, whose first octet has tagged offset `base`.
    ///
    /// Give the peer no more than it needs (RFC 5042 section 6.3): one direction, the octets of one transfer, until it is
    /// done. Refused when the table is full, when `base` and the length exceed 64 bits, and when shared data were to be
    /// written.
    pub fn register(
        &mut self,
        region: Region<M>,
        access: Access,
        base: u64,
    ) -> Result<Stag, Refused<Region<M>>> {
        let writes_shared = access.remote_write && matches!(region, Region::Shared(_));
        let wraps = base.checked_add(region.len()).is_none();
        self.table.register(region, access, base).map_err(|work| Refused {
            reason: match (writes_shared, wraps) {
                (true, _) => Refusal::Access,
                (_, true) => Refusal::OffsetWrap,
                _ => Refusal::Full,
            },
            work,
        })
    }

    /// Binds a window: an STag for `len` octets from octet `start` of a registered region, with rights of its own. The
    /// first of them has tagged offset `base`. The region cannot be invalidated before its windows.
    pub fn bind(
        &mut self,
        region: Stag,
        start: u64,
        len: u64,
        access: Access,
        base: u64,
    ) -> Result<Stag, Refusal> {
        self.table.bind(region, start, len, access, base).ok_or(Refusal::Access)
    }

    /// Invalidates an STag of this end. From now on the peer reaches the memory no more, and it is handed back.
    ///
    /// A segment that is being received into the memory, or read from it, ends the stream: the peer used an STag that
    /// is not valid.
    pub fn invalidate(&mut self, stag: Stag) -> Result<Invalidated<M>, InvalidateError> {
        self.table.invalidate(stag)
    }

    /// Posts a receive buffer; messages use up buffers in the order they were posted. A message that finds none, or one
    /// that is too small, ends the stream: the consumer limits how many messages its peer may send.
    pub fn post_recv(&mut self, id: WrId, buffer: M) -> Result<(), Refused<M>> {
        let reason = match self.status() {
            Status::Open if self.recvs.len() < self.limits.recv_queue => {
                self.recvs.push_back((id, buffer));
                return Ok(());
            }
            Status::Open => Refusal::Full,
            _ => Refusal::Closed,
        };
        Err(Refused { reason, work: buffer })
    }

    /// Receive buffers posted and not used up.
    pub fn posted_recvs(&self) -> usize {
        self.recvs.len()
    }

    /// The next completion. Sends, Writes and Reads complete in the order they were posted, receives in the order the
    /// messages were sent.
    pub fn poll_cq(&mut self) -> Option<Completion<M>> {
        self.cq.pop_front()
    }

    /// Fills `iov` with octets to send and returns the number of slices used; 0 when there is nothing to send.
    pub fn transmit_slices<'a>(&'a mut self, iov: &mut [IoSlice<'a>]) -> usize {
        self.fill();
        self.out.slices(iov)
    }

    /// The connection has taken the first `n` octets of [`transmit_slices`](Self::transmit_slices).
    pub fn transmitted(&mut self, n: usize) {
        self.out.advance(n);
        self.complete_sends();
    }

    /// Whether there is something to send.
    pub fn wants_transmit(&mut self) -> bool {
        self.fill();
        self.out.queued() > 0
    }

    /// Closes the stream when all that is posted has been sent and answered. No more work is taken.
    pub fn close(&mut self) {
        self.tx.closing = true;
        self.settle();
    }

    /// Ends the stream at once and tells the peer why, if it may be told (RFC 5040 section 6.2.1). What is posted comes
    /// back flushed.
    pub fn terminate(&mut self, code: TerminateCode) {
        self.fail(Terminate::new(code));
    }

    /// The peer has closed its half of the connection.
    pub fn handle_eof(&mut self) {
        if self.cause.is_some() {
            // The peer may still read what is left to be sent: a Terminate message.
            return;
        }
        if self.rx.in_frame() || self.tx.reads_posted() > 0 {
            return self.handle_lost();
        }
        self.rx.stop();
        self.rx.half_closed = true;
        self.flush_recvs();
        self.settle();
    }

    /// The connection is lost: reset, timed out, or given up by the consumer.
    pub fn handle_lost(&mut self) {
        self.end(Cause::Lost);
        self.shut();
    }

    /// Where the stream is in its life.
    pub fn status(&self) -> Status {
        let ended = self.cause.is_some();
        match (ended, self.tx.done && self.out.queued() == 0) {
            (true, true) => Status::Closed,
            (true, false) => Status::Closing,
            (false, _) if self.tx.closing => Status::Closing,
            (false, _) if self.rx.half_closed => Status::HalfClosed,
            (false, _) => Status::Open,
        }
    }

    /// Why the stream ended, once it has.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// RDMA Reads of the peer served at a time.
    pub fn ird(&self) -> usize {
        self.ird
    }

    /// RDMA Reads of this end outstanding at a time.
    pub fn ord(&self) -> usize {
        self.ord
    }

    /// Lowers the number of RDMA Reads outstanding at a time to what the consumers agreed on.
    pub fn set_ord(&mut self, ord: usize) {
        self.ord = ord;
    }

    /// The segment size of the connection has changed.
    pub fn set_emss(&mut self, emss: u32) {
        self.tx.set_emss(emss);
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Takes all registered memory back; no STag is valid afterwards.
    pub fn reclaim(&mut self) -> Vec<Region<M>> {
        self.table.drain().collect()
    }

    /// An error was found: flush everything, and say so in a Terminate message as the last thing sent.
    fn fail(&mut self, terminate: Terminate) {
        if self.cause.is_some() {
            // The first error is the one reported (RFC 5040 section 7.1 case 4).
            return;
        }
        self.end(Cause::Local(terminate));
        // A responder sends nothing before it has received a valid FPDU (RFC 5044 section 7.1.2 rule 4).
        match self.tx.open {
            true => self.tx.terminate = Some(terminate),
            false => self.tx.done = true,
        }
    }

    /// The stream is over: everything posted comes back.
    fn end(&mut self, cause: Cause) {
        if self.cause.is_some() {
            return;
        }
        self.cause = Some(cause);
        self.rx.stop();
        self.complete_sends();
        self.flush_sends();
        self.flush_recvs();
    }

    /// Nothing more is sent.
    fn shut(&mut self) {
        self.out.clear();
        self.tx.terminate = None;
        self.tx.done = true;
    }

    /// Completes a graceful close when its time has come.
    fn settle(&mut self) {
        if self.tx.closing && self.cause.is_none() && self.tx.idle() && self.out.queued() == 0 {
            self.end(if self.rx.half_closed { Cause::PeerClosed } else { Cause::Closed });
            self.tx.done = true;
        }
    }

    fn flush_recvs(&mut self) {
        for (id, buffer) in self.recvs.drain(..) {
            let done = Done::Recv { buffer, len: 0, solicited: false, invalidated: None };
            self.cq.push_back(Completion { id, flushed: true, done });
        }
    }
}

impl<M> std::fmt::Debug for QueuePair<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuePair")
            .field("cause", &self.cause)
            .field("posted_recvs", &self.recvs.len())
            .field("unsent", &self.out.queued())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
