//! What comes up: the four notifications of RFC 5047 section 9, and the few that moving buffers needs.

use crate::{Control, SgListMut, TaskBuffers, Window};
use bytes::Bytes;
use iscsi_pdu::{DataSn, DecodeError, Itt, RejectReason};
use std::fmt;

/// One notification. Events of one connection are in the order in which things happened on it.
// req: 5047-6-2, 5047-6-6, 5047-6-8, 5047-9-1, 5047-9.2-2, 5047-10.2.2.1-1
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Control_Notify (section 9.1): a control-type PDU arrived whole.
    Control(Control),
    /// Data_Completion_Notify (section 9.3): a Put_Data with `notify`, or a Get_Data, is done.
    DataCompletion(DataCompletion),
    /// Data_ACK_Notify (section 9.4): the initiator has the task's input up to (not including) `exp_data_sn`;
    /// transports without DataSN say `None`, "all that was put with `ack` so far".
    DataAck {
        /// The task.
        itt: Itt,
        /// Next DataSN that the initiator expects.
        exp_data_sn: Option<DataSn>,
    },
    /// Answer to `deallocate_task_resources`: the task's buffers are the caller's again.
    TaskReclaimed {
        /// The task.
        itt: Itt,
        /// At an initiator what went down with the command; at a target the unfinished Get_Data buffers.
        reclaimed: Reclaimed,
    },
    /// The peer's numbers, learned from a PDU that the datamover consumed.
    Window(Window),
    /// A PDU that could not be delivered but after which the stream is still in step: to be answered with a Reject
    /// (at a target) or counted (at an initiator).
    Invalid(InvalidPdu),
    /// Connection_Terminate_Notify (section 9.2): the connection is gone and holds nothing any more. The last event.
    Terminated(Terminated),
}

/// Buffers that come back without their transfer having completed.
#[derive(Debug, Default)]
pub struct Reclaimed {
    /// At an initiator: what Send_Control handed down.
    pub buffers: TaskBuffers,
    /// At a target: buffers of Get_Data calls that were still open, with their offsets. What they hold is undefined:
    /// the transfer is to be made anew.
    pub gets: Vec<(u32, SgListMut)>,
    /// How far the task's input got.
    pub input: InputProgress,
}

/// How far the input of a task got on a connection that has ended, for a reassignment to another one (RFC 7143 section
/// 11.5.6). All is 0 on transports without DataSN, whose initiators send ExpDataSN=0 (RFC 7145 section 7.3.3), and at
/// ErrorRecoveryLevel 0 and 1.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InputProgress {
    /// Initiator: the first DataSN that has not come; what lies before it in the buffer is good, all else is not.
    /// Target: the DataSN (or R2TSN) that the next PDU would have got.
    pub next: DataSn,
    /// Target: the first DataSN that the initiator has not acknowledged with a DataACK.
    pub acknowledged: DataSn,
    /// Target: number and buffer offset of the Data-In PDUs that were sent and not acknowledged, ascending.
    pub sent: Vec<(DataSn, u32)>,
    /// Target: the buffer offset behind the last Data-In that was sent.
    pub end: u32,
}

/// Result of a Put_Data or Get_Data. At an initiator: input of a task is lost for good, its buffers come with its response or
/// when it is deallocated.
#[derive(Debug)]
pub struct DataCompletion {
    /// The task.
    pub itt: Itt,
    /// Offset of the transfer, as given.
    pub offset: u32,
    /// The buffers of a Get_Data, filled when `result` is `Ok`; `None` for a Put_Data.
    pub data: Option<SgListMut>,
    /// How it ended.
    pub result: Result<(), DataError>,
}

/// Why a transfer failed while the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum DataError {
    /// A data digest did not match and could not be recovered (RFC 7143 section 7.8).
    Digest,
    /// The peer sent less, more, or out of its sequence (RFC 7143 sections 7.9, 11.7).
    Sequence,
    /// No progress within the data timeout.
    TimedOut,
    /// The transport refused the access (an STag violation at an RDMA transport).
    Access,
    /// The task was deallocated meanwhile.
    Cancelled,
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Digest => "data digest mismatch (RFC 7143 section 7.8)",
            Self::Sequence => "data PDUs do not make up the sequence asked for (RFC 7143 section 11.7)",
            Self::TimedOut => "no data within the time allowed",
            Self::Access => "the transport refused access to the buffer",
            Self::Cancelled => "the task was ended",
        })
    }
}

impl std::error::Error for DataError {}

/// A PDU that was read but cannot be delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidPdu {
    /// Its header: BHS and AHSs as received, without digest, which a Reject returns (RFC 7143 section 11.17.4).
    pub header: Bytes,
    /// The Reason to answer with.
    pub reason: RejectReason,
    /// What was wrong, when the header or its segments did not decode.
    pub error: Option<DecodeError>,
}

/// End of a connection.
#[derive(Debug)]
pub struct Terminated {
    /// Why.
    pub cause: Cause,
    /// Buffers of every task that was still open, which a reassignment to another connection needs.
    pub reclaimed: Vec<(Itt, Reclaimed)>,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// `connection_terminate` was called.
    Local,
    /// The peer closed in order.
    PeerClosed,
    /// The transport failed: reset, timeout, device gone.
    Transport(std::io::ErrorKind),
    /// A header digest did not match (RFC 7143 section 7.7).
    HeaderDigest,
    /// A data digest did not match and the error recovery level allows nothing but to close.
    DataDigest,
    /// A PDU that leaves no way to go on.
    Format(DecodeError),
    /// The peer broke a rule of the protocol that ends the connection; the text names it.
    Protocol(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this end"),
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Transport(kind) => write!(f, "transport failed: {kind}"),
            Self::HeaderDigest => f.write_str("header digest mismatch (RFC 7143 section 7.7)"),
            Self::DataDigest => f.write_str("data digest mismatch (RFC 7143 section 7.8)"),
            Self::Format(e) => write!(f, "malformed PDU: {e}"),
            Self::Protocol(rule) => write!(f, "protocol error: {rule}"),
        }
    }
}

impl std::error::Error for Cause {}
