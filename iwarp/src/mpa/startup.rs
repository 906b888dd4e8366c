//! What the two startup machines share: configuration, result, errors.

use super::{FrameError, Rtr};
use crate::TerminateCode;
use bytes::Bytes;
use std::time::Duration;

/// Revision of MPA to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// RFC 5044.
    One,
    /// RFC 6581: IRD and ORD, and the peer-to-peer model, are negotiated.
    Two,
}

/// Which end of the MPA startup; it need not be the end that opened the TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends the MPA Request frame, and the first FPDU.
    Initiator,
    /// Answers with the MPA Reply frame; sends no FPDU before it has received one.
    Responder,
}

/// What this end asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether this end wants CRCs. They are used when either end wants them. True by default; to be turned off
    /// only by an administrator's decision, where something else protects the data (RFC 5044 section 4.4).
    pub crc: bool,
    /// Whether this end requires markers in what it receives. Off by default: a receiver on an ordered byte stream
    /// has no use for them. (Markers are always sent to a peer that requires them.)
    pub markers: bool,
    /// Revision an initiator starts with; a responder answers either.
    pub revision: Revision,
    /// RDMA Reads of the peer served at a time (IRD); 0 when the peer is not to read at all. Below 16383.
    pub ird: u16,
    /// RDMA Reads of this end outstanding at a time (ORD). Below 16383.
    pub ord: u16,
    /// Initiator, revision 2: whether to declare IRD and ORD; without, the consumers agree on them elsewhere
    /// (0x3FFF is sent, RFC 6581 section 9.1).
    pub negotiate_depths: bool,
    /// Initiator, revision 2: the responder may be the first to have something to say, so an RTR indication is sent
    /// by itself (RFC 6581 section 9.2).
    pub peer_to_peer: bool,
    /// How long the startup may take (RFC 5044 section 7.1.2 rules 8 and 10). The time a responder's consumer takes
    /// to decide does not count.
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            crc: true,
            markers: false,
            revision: Revision::Two,
            ird: 16,
            ord: 16,
            negotiate_depths: true,
            peer_to_peer: false,
            timeout: Duration::from_secs(10),
        }
    }
}

/// The outcome of the startup: what a queue pair needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Which end this is.
    pub role: Role,
    /// Whether CRCs are generated and checked.
    pub crc: bool,
    /// Whether markers are sent.
    pub tx_markers: bool,
    /// Whether markers are received.
    pub rx_markers: bool,
    /// Revision both ends speak.
    pub revision: Revision,
    /// RDMA Reads served at a time.
    pub ird: u16,
    /// RDMA Reads outstanding at a time.
    pub ord: u16,
    /// IRD the peer declared, if it did.
    pub peer_ird: Option<u16>,
    /// ORD the peer declared, if it did.
    pub peer_ord: Option<u16>,
    /// RTR indication an initiator owes the responder before anything else.
    pub rtr: Option<Rtr>,
    /// What made the negotiation fail although the peer accepted: the queue pair says so in a Terminate message and
    /// does nothing else (RFC 6581 sections 8 and 9).
    pub fault: Option<TerminateCode>,
    /// Private data of the peer's frame.
    pub private_data: Bytes,
}

/// Why the startup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartupError {
    /// The peer's frame is improperly formatted: close the connection.
    Frame(FrameError),
    /// A request where a reply is due: both ends are initiators. Close the connection.
    BothInitiators,
    /// A reply where a request is due. Close the connection.
    UnexpectedReply,
    /// A revision of MPA this end does not speak. Close the connection.
    Revision(u8),
    /// An enhanced request was answered by a reply that is not enhanced. Close the connection; the consumer may try
    /// again on a new one with [`Revision::One`].
    NotEnhanced,
    /// The frames did not arrive in time. Close the connection.
    Timeout,
    /// The peer closed the connection before the startup was complete.
    Closed,
    /// Private data of this end exceeds what a frame can carry (508 octets in revision 2, 512 in revision 1).
    PrivateDataTooLong(usize),
    /// The call does not fit the state of the machine.
    State,
}

impl StartupError {
    /// The error as MPA numbers it (RFC 5044 section 8).
    pub fn code(&self) -> TerminateCode {
        match self {
            Self::Timeout | Self::Closed => TerminateCode::MPA_CONNECTION_LOST,
            _ => TerminateCode::MPA_INVALID_FRAME,
        }
    }
}

impl From<FrameError> for StartupError {
    fn from(e: FrameError) -> Self {
        Self::Frame(e)
    }
}

impl std::fmt::Display for StartupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(e) => e.fmt(f),
            Self::BothInitiators => f.write_str("both ends are MPA initiators"),
            Self::UnexpectedReply => f.write_str("MPA reply where a request is due"),
            Self::Revision(r) => write!(f, "MPA revision {r} is not spoken here"),
            Self::NotEnhanced => f.write_str("the answer to an enhanced MPA request is not enhanced"),
            Self::Timeout => f.write_str("MPA startup timed out"),
            Self::Closed => f.write_str("connection closed during MPA startup"),
            Self::PrivateDataTooLong(n) => write!(f, "{n} octets of private data do not fit an MPA frame"),
            Self::State => f.write_str("call out of turn in the MPA startup"),
        }
    }
}

impl std::error::Error for StartupError {}

/// The startup frame being received; bounded by the largest frame there is.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buf: Vec<u8>,
}

impl Inbox {
    /// Takes what belongs to the frame out of `data`: the frame, if it is complete, and how many octets of `data`
    /// were used. Octets behind the frame are left to the caller.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(Option<super::Frame>, usize), FrameError> {
        let before = self.buf.len();
        let room = super::HEADER_LEN.saturating_add(super::MAX_PRIVATE_DATA).saturating_sub(before);
        self.buf.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
        match super::Frame::decode(&self.buf)? {
            Some((frame, used)) => {
                self.buf.clear();
                Ok((Some(frame), used.saturating_sub(before)))
            }
            None => Ok((None, self.buf.len().saturating_sub(before))),
        }
    }
}

/// The frame being sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    buf: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub(super) fn set(&mut self, frame: &super::Frame) {
        self.buf = frame.encode();
        self.sent = 0;
    }

    pub(super) fn unsent(&self) -> &[u8] {
        self.buf.get(self.sent..).unwrap_or_default()
    }

    pub(super) fn advance(&mut self, n: usize) {
        self.sent = self.sent.saturating_add(n).min(self.buf.len());
    }
}
