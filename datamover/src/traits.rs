//! The interface itself: [`LoginLink`] before full feature phase, [`Datamover`] after, [`Drive`] under both,
//! [`Fabric`] and [`Acceptor`] to get one.

use crate::{
    AllocError, BufPool, ConnKeys, Control, Event, Full, GetData, PutData, Resources, Role, Stats, Window,
};
use async_trait::async_trait;
use bytes::Bytes;
use iscsi_pdu::{DecodeError, Itt, LoginResponse, Opcode, Pdu};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// How much one turn of [`Drive::poll_drive`] may do, and when it happens.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The time of this turn: protocol code reads no clock.
    pub now: Instant,
    /// PDUs (or completions) still allowed.
    pub pdus: u32,
    /// Bytes still allowed.
    pub bytes: usize,
}

impl Budget {
    /// 64 PDUs and 1 MiB: enough to amortise a system call, little enough to be fair to other sessions.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { now, pdus: 64, bytes: 1 << 20 }
    }
}

/// The only side that touches a socket or a completion queue.
pub trait Drive: Send {
    /// Moves bytes both ways as far as it goes without blocking and within the budget, registering the waker for
    /// more. `Ready(Ok)` means that the budget ran out first: call again in the next turn. Failures of the
    /// connection are not errors here; they come as [`Event::Terminated`] or from [`LoginLink::poll_login`].
    ///
    /// A datamover may receive no more while many events wait to be taken; taking them wakes.
    ///
    /// # Errors
    /// Only what concerns this end alone, such as a runtime that is shutting down.
    fn poll_drive(&mut self, cx: &mut Context<'_>, budget: &mut Budget) -> Poll<io::Result<()>>;

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Tells that `now` is past the time that [`poll_timeout`](Self::poll_timeout) named.
    fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }
}

/// What a link can become, which decides how RDMAExtensions is negotiated (RFC 7145 section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RdmaOffer {
    /// Plain iSCSI only: RDMAExtensions=No.
    Never,
    /// Either: the negotiated value of RDMAExtensions decides what `enable_datamover` makes.
    Negotiable,
    /// iSER only: the login must end with RDMAExtensions=Yes (except in a discovery session).
    Always,
}

/// What carries a connection, for logs and reports; never for decisions of the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransportInfo {
    /// `tcp`, `iser`, `mem`.
    pub name: &'static str,
    /// More, such as `iwarp` or the RDMA device; may be empty.
    pub detail: String,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
}

/// Why a login link is of no more use.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed the connection.
    Closed,
    /// The transport failed.
    Transport(io::ErrorKind),
    /// What came is not a PDU.
    Format(DecodeError),
    /// A PDU that is no login PDU (RFC 7143 section 4.2.4).
    NotLogin(Opcode),
    /// A login PDU that breaks another rule, such as one longer than a login PDU may be.
    Protocol(&'static str),
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection during login"),
            Self::Transport(kind) => write!(f, "the transport failed during login: {kind}"),
            Self::Format(e) => write!(f, "malformed PDU during login: {e}"),
            Self::NotLogin(opcode) => write!(f, "not a login PDU: {opcode:?}"),
            Self::Protocol(rule) => write!(f, "protocol error during login: {rule}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// A connection in its login phase (RFC 5047 section 8.4 to 8.8; RFC 7145 section 5.1).
// req: 5047-7.1-2, 5047-7.1-3, 5047-8.4-2, 5047-8.4-3, 5047-8.8-2
pub trait LoginLink: Drive {
    /// Which end this is.
    fn role(&self) -> Role;

    /// What carries the connection.
    fn transport(&self) -> TransportInfo;

    /// What the link can become.
    fn rdma_offer(&self) -> RdmaOffer;

    /// Queues a Login Request or Login Response.
    fn send_login(&mut self, pdu: Pdu<Bytes>);

    /// The next login PDU of the peer, or the end of the link. After [`LinkError::NotLogin`], [`LinkError::Format`] and
    /// [`LinkError::Protocol`] nothing more is read, but what is queued is still sent where the transport can: a target
    /// that has begun the login answers with a Login Response of class 2, and closes then.
    fn poll_login(&mut self) -> Option<Result<Pdu<Bytes>, LinkError>>;

    /// Whether everything queued has been handed to the transport: a rejected login may then be closed.
    fn is_flushed(&self) -> bool;

    /// Notice_Key_Values (section 8.8): called before Allocate, with all that is known then.
    fn notice_key_values(&mut self, keys: &ConnKeys);

    /// Allocate_Connection_Resources (section 8.4). Called twice, the second call succeeds without effect.
    ///
    /// # Errors
    /// [`AllocError`] names what ran out; the connection stays as it was.
    fn allocate_connection_resources(&mut self, want: &Resources) -> Result<(), AllocError>;

    /// Deallocate_Connection_Resources (section 8.5): the login failed after resources were allocated.
    fn deallocate_connection_resources(&mut self);

    /// Enable_Datamover (section 8.6): full feature phase begins. The target gives the final Login Response, which
    /// is the last PDU in the old mode; the initiator has received it and gives `None`.
    fn enable_datamover(self: Box<Self>, final_response: Option<LoginResponse<Bytes>>) -> Box<dyn Datamover>;
}

/// A connection in full feature phase (RFC 5047 sections 8 and 9).
///
/// Calls: `poll_drive`, then `poll_event` until `None`, then calls downwards, then `poll_drive` again to send. What
/// was refused as [`Full`] is offered again in the next turn. Once the connection has ended, every call is: the value
/// handed back holds the caller's buffers, and [`Event::Terminated`] is on its way or was told.
// req: 5047-5.3-1, 5047-5.4-1, 5047-5.4-2, 5047-6-1, 5047-8-1, 5047-8.1-2, 5047-8.2-2, 5047-8.3-2, 7145-7.3-1
pub trait Datamover: Drive {
    /// Which end this is.
    fn role(&self) -> Role;

    /// What carries the connection.
    fn transport(&self) -> TransportInfo;

    /// Send_Control (section 8.1).
    ///
    /// # Errors
    /// [`Full`] hands the argument back when more is in flight than was allocated.
    fn send_control(&mut self, control: Control) -> Result<(), Full<Control>>;

    /// Put_Data (section 8.2); target only. Data of one task is put in the order of the calls.
    ///
    /// # Errors
    /// As for [`send_control`](Self::send_control).
    fn put_data(&mut self, put: PutData) -> Result<(), Full<PutData>>;

    /// Get_Data (section 8.3); target only. Transfers of one task may complete in any order.
    ///
    /// # Errors
    /// As for [`send_control`](Self::send_control).
    fn get_data(&mut self, get: GetData) -> Result<(), Full<GetData>>;

    /// Deallocate_Task_Resources (section 8.9): the task ends without a SCSI Response (abort, Reject, reassign).
    /// Answered by [`Event::TaskReclaimed`] once nothing below touches its buffers; for an unknown task at once,
    /// with nothing.
    fn deallocate_task_resources(&mut self, itt: Itt);

    /// Connection_Terminate (section 8.7): after what was queued has been sent. [`Event::Terminated`] follows when
    /// the transport has given all buffers back.
    fn connection_terminate(&mut self);

    /// Notice_Key_Values (section 8.8) in full feature phase: MaxRecvDataSegmentLength declared anew. Its own an initiator
    /// notices right behind the Text Request that declares it, and again when the exchange is over; until then PDUs come
    /// by the length before and by the one declared.
    fn notice_key_values(&mut self, keys: &ConnKeys);

    /// The numbers to stamp on PDUs that the datamover makes.
    fn set_window(&mut self, window: Window);

    /// The next event.
    fn poll_event(&mut self) -> Option<Event>;

    /// Whether the connection is over: [`Event::Terminated`] waits to be taken, or was. No call is accepted any more and
    /// nothing more comes in, so nothing is won by leaving events where they are.
    fn is_ended(&self) -> bool;

    /// Memory that this transport moves without copying.
    fn pool(&self) -> &Arc<dyn BufPool>;

    /// Counters since the connection began.
    fn stats(&self) -> Stats;
}

/// Makes connections, and listens for them, on one kind of transport. At connection rate, hence async-trait.
#[async_trait]
pub trait Fabric: Send + Sync {
    /// `tcp`, `iser`, …: for logs and configuration.
    fn name(&self) -> &'static str;

    /// Connects to a portal.
    ///
    /// # Errors
    /// The transport's own; a caller with several fabrics then tries the next.
    async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>>;

    /// Listens on a portal.
    ///
    /// # Errors
    /// The transport's own: address in use, no such device.
    async fn listen(&self, portal: SocketAddr) -> io::Result<Box<dyn Acceptor>>;
}

/// A listening portal.
#[async_trait]
pub trait Acceptor: Send {
    /// The address in use, with the port that the system chose when 0 was asked for.
    fn local_addr(&self) -> SocketAddr;

    /// The next connection.
    ///
    /// # Errors
    /// Those of the listening socket; a failed connection attempt is skipped, not reported.
    async fn accept(&mut self) -> io::Result<Box<dyn LoginLink>>;
}
