//! What is posted to a queue pair, and what comes back.

use crate::{Gather, Invalidated, Stag, Terminate};

/// The consumer's name for a piece of work; it comes back with the completion and means nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WrId(pub u64);

/// A place in the peer's memory, as the peer advertised it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteAddr {
    /// The peer's STag.
    pub stag: Stag,
    /// Tagged offset: the base offset the peer advertised plus an offset in the buffer.
    pub offset: u64,
}

/// A message to the peer's next receive buffer: Send, with or without Invalidate and Solicited Event
/// (RFC 5040 section 5.3).
#[derive(Clone, Debug, Default)]
pub struct SendWr {
    /// Comes back with the completion.
    pub id: WrId,
    /// The message, below 2^32 octets.
    pub payload: Gather,
    /// The peer's STag to be invalidated before the message is delivered.
    pub invalidate: Option<Stag>,
    /// Asks the peer for an event.
    pub solicited: bool,
    /// Waits for all RDMA Reads posted before (RFC 5040 section 5.5 rule 12).
    pub fence: bool,
    /// No completion on success; one is given if the stream ends first.
    pub unsignaled: bool,
}

/// Data to be placed in the peer's memory (RFC 5040 section 5.1).
#[derive(Clone, Debug)]
pub struct WriteWr {
    /// Comes back with the completion.
    pub id: WrId,
    /// The data, below 2^32 octets.
    pub payload: Gather,
    /// Where to.
    pub to: RemoteAddr,
    /// Waits for all RDMA Reads posted before.
    pub fence: bool,
    /// No completion on success; one is given if the stream ends first.
    pub unsignaled: bool,
}

/// Data to be fetched from the peer's memory (RFC 5040 section 5.2).
#[derive(Clone, Debug)]
pub struct ReadWr<M> {
    /// Comes back with the completion.
    pub id: WrId,
    /// Where from.
    pub from: RemoteAddr,
    /// How many octets.
    pub len: u32,
    /// Where the octets go; at least `len` of them. Comes back with the completion.
    pub sink: M,
}

/// Work that has come to its end.
#[derive(Debug)]
pub struct Completion<M> {
    /// As posted.
    pub id: WrId,
    /// True when the stream ended first ([`QueuePair::cause`](crate::QueuePair::cause) says why): whether the work
    /// was done at the peer is unknown, and the contents of memory that comes back are indeterminate.
    pub flushed: bool,
    /// What was done, with the memory that comes back.
    pub done: Done<M>,
}

/// The kind of work, with the memory that comes back.
#[derive(Debug)]
pub enum Done<M> {
    /// The stream has taken the message. (It need not have reached the peer: RFC 5040 section 5.5 rule 9.)
    Send,
    /// The stream has taken the data.
    Write,
    /// The data is there.
    Read {
        /// The memory, holding `len` octets of data.
        sink: M,
        /// Octets read.
        len: u32,
    },
    /// A message arrived.
    Recv {
        /// The buffer, holding `len` octets of message.
        buffer: M,
        /// Octets of the message.
        len: usize,
        /// The peer asked for an event.
        solicited: bool,
        /// What the peer invalidated before this message.
        invalidated: Option<Invalidated<M>>,
    },
}

/// Why work was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is as long as [`Limits`](crate::Limits) allow; try again after a completion.
    Full,
    /// The stream takes no more work.
    Closed,
    /// A message of 2^32 octets or more.
    TooLong,
    /// The tagged offset and the length exceed 64 bits.
    OffsetWrap,
    /// The sink is smaller than the data asked for.
    SinkTooSmall,
    /// RDMA Reads are not possible on this stream: its ORD is 0.
    NoReads,
    /// The access asked for cannot be given: shared data cannot be written, a window must lie in its region.
    Access,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "the queue is full",
            Self::Closed => "the stream takes no more work",
            Self::TooLong => "message of 2^32 octets or more",
            Self::OffsetWrap => "tagged offset wraps",
            Self::SinkTooSmall => "the sink is smaller than the data",
            Self::NoReads => "the stream allows no RDMA Reads",
            Self::Access => "the access asked for cannot be given",
        })
    }
}

/// Work that was not taken, handed back.
#[derive(Clone, Debug)]
pub struct Refused<T> {
    /// Why.
    pub reason: Refusal,
    /// What was handed in.
    pub work: T,
}

impl<T> std::fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T: std::fmt::Debug> std::error::Error for Refused<T> {}

/// Bounds of a queue pair: what it may hold. Nothing grows by what the peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sends, Writes and Reads posted and not completed.
    pub send_queue: usize,
    /// Receive buffers posted and not completed.
    pub recv_queue: usize,
    /// STags valid at a time, sinks of RDMA Reads included; at most 65535.
    pub stags: usize,
    /// Octets of a TCP segment (EMSS), from which the size of FPDUs follows (RFC 5044 section 4.5).
    ///
    /// The default, 32 KiB and headers, is not the segment size of any network: it is what a byte stream moves at least
    /// cost. A receiver has to take FPDUs of any alignment (RFC 5044 section 5.1), but one that processes segments as
    /// they arrive gains from the real value: give it here, or later to
    /// [`set_emss`](crate::QueuePair::set_emss).
    pub emss: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { send_queue: 256, recv_queue: 256, stags: 4096, emss: 32 * 1024 + 24 }
    }
}

/// Where a stream is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Work is taken and done.
    Open,
    /// The peer has closed its half: nothing more arrives, what is posted is still sent.
    HalfClosed,
    /// The last octets are to be sent; no work is taken.
    Closing,
    /// Nothing is to be sent or received: the driver closes the TCP connection, gracefully so that a Terminate message
    /// is not lost (RFC 5040 section 6.2.1).
    Closed,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This end closed it.
    Closed,
    /// The peer closed it between two messages.
    PeerClosed,
    /// The TCP connection was lost, or closed in the middle of an FPDU.
    Lost,
    /// This end found an error, or its consumer asked for it; the peer is told by a Terminate message where the RFCs
    /// allow one.
    Local(Terminate),
    /// The peer sent a Terminate message.
    Remote(Terminate),
}

/// Counters of a queue pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// FPDUs received.
    pub fpdus_in: u64,
    /// FPDUs built.
    pub fpdus_out: u64,
    /// Payload octets the socket put straight into the memory they belong to.
    pub placed_bytes: u64,
    /// Payload octets received that were copied into the memory they belong to.
    pub copied_bytes: u64,
}
