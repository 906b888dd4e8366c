//! The provider trait: what iSER asks of an RDMA-capable protocol (RFC 7145 section 4.1), with buffers that move.
//!
//! Memory moves into the provider when it is posted or advertised and moves back with a [`Completion`] (or by
//! [`Rcap::invalidate`]). Meanwhile nobody else can read, write or free it, so callers need no `unsafe`: what an
//! adapter or a peer may touch is owned by the provider.
//!
//! Completions of one queue pair need not come in the order of posting across kinds (a peer's answer may be reaped
//! before the completion of the send that it answers); within Sends and Writes the order of *effects* at the peer is
//! the order of posting.

use datamover::{AllocError, Budget, BufPool, Cause, Full, IoBuf, SgList, SgListMut, TransportInfo};
use std::fmt;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

/// Steering tag: names memory that the peer may access (RFC 7145 section 1.5.1). 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stag(pub u32);

impl fmt::Debug for Stag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stag({:#010x})", self.0)
    }
}

/// Where a tagged buffer begins: STag and Tagged Offset (Base Offset of RFC 7145 section 9.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct RemoteBuf {
    /// The STag.
    pub stag: Stag,
    /// Tagged Offset of the first byte.
    pub offset: u64,
}

impl RemoteBuf {
    /// The place `by` bytes further on; `None` beyond 2^64.
    #[must_use]
    pub const fn advance(self, by: u64) -> Option<Self> {
        match self.offset.checked_add(by) {
            Some(offset) => Some(Self { stag: self.stag, offset }),
            None => None,
        }
    }
}

/// Memory with an STag: the peer may read it or write it, never both.
#[derive(Debug)]
pub enum Tagged {
    /// Source of the peer's RDMA Reads (a Write STag of RFC 7145: data of a SCSI WRITE).
    Source(SgList),
    /// Sink of the peer's RDMA Writes (a Read STag of RFC 7145: room for a SCSI READ).
    Sink(SgListMut),
}

impl Tagged {
    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Source(list) => list.len(),
            Self::Sink(list) => list.len(),
        }
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pieces of memory.
    #[must_use]
    pub fn parts(&self) -> usize {
        match self {
            Self::Source(list) => list.parts().count(),
            Self::Sink(list) => list.parts().count(),
        }
    }
}

/// Names a work request of which the poster wants to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct WrId(pub u64);

/// A work request.
#[derive(Debug)]
pub enum Op {
    /// A Send message. There is no way to ask for a Solicited Event (SendSE, SendInvSE): not every provider has it.
    // req: 7145-1.5.2-2, 7145-1.5.2-4, 7145-1.5.2-5
    Send {
        /// The message, header first.
        message: SgList,
        /// Send with Invalidate: the peer's STag to invalidate on delivery. Only where
        /// [`RcapCaps::send_invalidate`] says so.
        invalidate: Option<Stag>,
    },
    /// An RDMA Write.
    Write {
        /// To be named in a completion; `None` asks for none.
        id: Option<WrId>,
        /// The data, at least one byte, in at most [`RcapCaps::max_sge`] parts.
        data: SgList,
        /// Where it goes at the peer.
        to: RemoteBuf,
    },
    /// An RDMA Read. Zero-length ones are allowed.
    Read {
        /// Named in the completion.
        id: WrId,
        /// Where the data is at the peer.
        from: RemoteBuf,
        /// Where it goes, in at most [`RcapCaps::max_read_sge`] parts.
        into: SgListMut,
    },
}

/// A work request (or its memory) that failed; the connection ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum WrError {
    /// The peer refused access to the STag.
    RemoteAccess,
    /// The connection ended first.
    Flushed,
}

/// What a provider reports.
#[derive(Debug)]
pub enum Completion {
    /// A Send message of the peer.
    Received {
        /// The receive buffer, cut to the length of the message.
        message: IoBuf,
        /// The STag of ours that the peer invalidated with it.
        invalidated: Option<Stag>,
    },
    /// A Write (if it asked) or a Read ended.
    Done {
        /// Which.
        id: WrId,
        /// A Read's memory, filled if `result` is `Ok`.
        sink: Option<SgListMut>,
        /// How it ended.
        result: Result<(), WrError>,
    },
    /// An invalidation that was [`Invalidation::Pending`] is complete.
    Invalidated {
        /// Which STag.
        stag: Stag,
        /// Its memory.
        memory: Tagged,
    },
    /// The connection is over. Every posted Read has been reported before; from now on
    /// [`Rcap::invalidate`] answers at once. Reported once, last.
    Closed(Cause),
}

/// Answer of [`Rcap::invalidate`].
#[derive(Debug)]
pub enum Invalidation {
    /// The STag is invalid now (or was already, by the peer's Send with Invalidate): here is the memory.
    Done(Tagged),
    /// [`Completion::Invalidated`] follows.
    Pending,
    /// No such STag.
    Unknown,
}

/// What a provider can do on this connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RcapCaps {
    /// Send with Invalidate may be sent: both ends have it and the peer relies on scoped STags.
    pub send_invalidate: bool,
    /// STags cover exactly the memory advertised and die with their invalidation. `false` weakens the guarantee of
    /// RFC 7145 section 7.3.2 and is reported.
    pub scoped_stags: bool,
    /// Most parts of the memory of a Send or a Write.
    pub max_sge: usize,
    /// Most parts of the memory of a Read.
    pub max_read_sge: usize,
    /// Most parts of advertised memory.
    pub max_tagged_parts: usize,
    /// Advertised memory has to be reachable as [`Rcap::is_local`] has it, or be memory that the caller made for it.
    pub tags_local_only: bool,
    /// Longest Write or Read in bytes.
    pub max_transfer: usize,
    /// ORD: RDMA Reads that this end may have outstanding.
    pub ord: u16,
    /// IRD: RDMA Reads of the peer that this end serves at a time.
    pub ird: u16,
}

/// What to make room for (Allocate_Connection_Resources, RFC 7145 section 3.1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RcapResources {
    /// Receive buffers that will be posted at a time.
    pub receives: usize,
    /// Messages, received and not yet released or to be sent, beyond those.
    pub messages: usize,
    /// Longest message in bytes, iSER header included.
    pub message_len: usize,
    /// Bytes of task data that the pool may hold.
    pub pool_bytes: usize,
}

/// Counters of a provider.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RcapStats {
    /// System calls, doorbells and polls of a completion queue.
    pub syscalls: u64,
    /// Bytes copied in user space because they arrived together with other messages.
    pub copied_bytes: u64,
}

/// An RDMA-capable protocol on one connection, after connection establishment.
///
/// Calls: [`post`](Self::post) and [`post_recv`](Self::post_recv) queue; [`poll`](Self::poll) hands all that was
/// queued over at once (one doorbell a turn) and collects completions.
pub trait Rcap: Send {
    /// What it can do. A provider that learns more when the peer answers (as iWARP does) lowers the depths then.
    fn caps(&self) -> &RcapCaps;

    /// What carries the connection; `name` is `iser`.
    fn transport(&self) -> TransportInfo;

    /// Makes room. Called twice, the second call succeeds without effect.
    ///
    /// # Errors
    /// [`AllocError`] names what ran out; nothing has changed then.
    fn allocate(&mut self, want: &RcapResources) -> Result<(), AllocError>;

    /// Gives up what [`allocate`](Self::allocate) got.
    fn deallocate(&mut self);

    /// Memory for task data that this provider moves without copying.
    fn pool(&self) -> &Arc<dyn BufPool>;

    /// Memory for messages; one chunk holds the longest.
    fn messages(&self) -> &Arc<dyn BufPool>;

    /// Whether the provider can reach this memory; if not, it must be copied into memory of a pool first.
    fn is_local(&self, memory: &[u8]) -> bool;

    /// Posts a receive buffer, at its full length.
    ///
    /// # Errors
    /// [`Full`]: as many are posted as there is room for.
    fn post_recv(&mut self, buf: IoBuf) -> Result<(), Full<IoBuf>>;

    /// Queues a work request.
    ///
    /// # Errors
    /// [`Full`]: offer it again after the next completions.
    fn post(&mut self, op: Op) -> Result<(), Full<Op>>;

    /// How many STags can be had now.
    fn advertisable(&self) -> usize;

    /// Gives memory an STag that is new: none that was used recently. The memory has at most
    /// [`RcapCaps::max_tagged_parts`] parts; it need not be from a pool.
    ///
    /// # Errors
    /// [`Full`] when [`advertisable`](Self::advertisable) is 0. Another failure closes the connection instead.
    fn advertise(&mut self, memory: Tagged) -> Result<RemoteBuf, Full<Tagged>>;

    /// Makes sure that the STag is invalid and takes its memory back.
    fn invalidate(&mut self, stag: Stag) -> Invalidation;

    /// Hands over what was queued, then collects completions, registering the waker for more; stops at the budget.
    fn poll(&mut self, cx: &mut Context<'_>, turn: &mut Budget, out: &mut Vec<Completion>);

    /// Whether everything queued has been handed to the transport.
    fn is_flushed(&self) -> bool;

    /// Ends the connection after what was queued; [`Completion::Closed`] follows.
    fn disconnect(&mut self);

    /// Ends the connection at once; [`Completion::Closed`] follows.
    fn abort(&mut self);

    /// Counters since the connection began.
    fn stats(&self) -> RcapStats {
        RcapStats::default()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Tells that `now` is past what [`poll_timeout`](Self::poll_timeout) named.
    fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }
}

/// One buffer of `len` bytes for a message.
pub(crate) fn message_buf<R: Rcap + ?Sized>(rcap: &R, len: usize) -> Option<IoBuf> {
    let mut parts = rcap.messages().alloc(len)?.into_parts();
    let first = parts.next()?;
    if parts.next().is_some() || first.len() < len { None } else { Some(first) }
}
