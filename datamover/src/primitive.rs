//! The operational primitives that go down (RFC 5047 section 8) and what they carry.

use crate::{SgList, SgListMut};
use bytes::Bytes;
use iscsi_pdu::{CmdSn, DataSn, Itt, Lun, Pdu, StatSn, TaskMgmtFunction};
use std::fmt;
use std::time::Duration;

/// Which end of the session a connection endpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// The iSCSI initiator.
    Initiator,
    /// The iSCSI target.
    Target,
}

impl Role {
    /// The other end.
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Target,
            Self::Target => Self::Initiator,
        }
    }
}

/// Buffers of one task, as the initiator hands them down with the command and gets them back with the response
/// (DataDescriptorOut and DataDescriptorIn of RFC 5047 section 8.1).
///
/// The lists are boxed: a [`Control`] moves some ten times between a session and its wire, at a target always without
/// them, and is half as long so.
#[derive(Debug, Default)]
pub struct TaskBuffers {
    /// Data of the command's output (WRITE), the unsolicited part included.
    pub out: Option<Box<SgList>>,
    /// Room for the command's input (READ).
    pub r#in: Option<Box<SgListMut>>,
}

impl TaskBuffers {
    /// No buffers: every PDU but an initiator's SCSI Command and TASK REASSIGN, and their responses.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether there is neither output nor input.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.out.is_none() && self.r#in.is_none()
    }
}

/// A control-type PDU on its way down (Send_Control, RFC 5047 section 8.1) or up (Control_Notify, section 9.1).
///
/// For an initiator's SCSI Command: `pdu` carries the immediate data (the first bytes of `buffers.out`) in its data
/// segment, and `unsolicited` says how many bytes in total, immediate data included, travel without an R2T.
/// Unsolicited Data-Out PDUs follow as control-type PDUs of their own (RFC 7145 section 7.3.4).
// req: 5047-10.3.2-1, 5047-10.3.4-1, 5047-10.3.5.1-1, 5047-10.3.7-1, 5047-10.3.8-1, 5047-10.3.9-1, 7145-7.3-2
// req: 5047-10.3.12-1, 5047-10.3.13-1, 5047-10.3.14-1, 5047-10.3.15-1, 5047-10.3.16-1, 5047-10.3.17-1
#[derive(Debug)]
pub struct Control {
    /// The PDU with its sequence numbers filled in.
    pub pdu: Pdu<Bytes>,
    /// The task's buffers, with a SCSI Command or TASK REASSIGN going down at the initiator, and with the SCSI
    /// Response that concludes the task coming up there.
    pub buffers: TaskBuffers,
    /// UnsolicitedDataSize in bytes, for a SCSI Command with output, else 0.
    pub unsolicited: u32,
}

impl Control {
    /// The rules that bind a control-type PDU on its way down (RFC 5047 sections 5.1 and 10.3), the same for every
    /// transport.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    // req: 5047-5.1.1-1, 5047-5.1.2-1, 5047-10.3.1-1, 5047-10.3.3-1
    pub fn check(&self, role: Role) -> Result<(), &'static str> {
        match &self.pdu {
            Pdu::DataIn(_) | Pdu::R2t(_) => {
                return Err("Data-In and R2T are no control-type PDUs (RFC 5047 section 5.1.1)");
            }
            Pdu::DataOut(d) if !d.ttt.is_none() => {
                return Err("solicited Data-Out is the datamover's (RFC 5047 section 5.1.2)");
            }
            Pdu::LoginRequest(_) | Pdu::LoginResponse(_) => return Err("a login PDU in full feature phase"),
            _ => {}
        }
        if self.pdu.opcode().is_from_initiator() != (role == Role::Initiator) {
            return Err("a PDU of the other role (RFC 7143 section 11.2.1.2)");
        }
        let takes_buffers = match &self.pdu {
            Pdu::ScsiCommand(_) => true,
            Pdu::TaskMgmtRequest(t) => t.function == TaskMgmtFunction::TaskReassign,
            _ => false,
        };
        if !takes_buffers && !self.buffers.is_none() {
            return Err("buffers go with a SCSI Command or a TASK REASSIGN (RFC 5047 section 10.3)");
        }
        // One without buffers is sent again (RFC 7143 section 7.2.1): they went down with the first.
        if let Pdu::ScsiCommand(c) = &self.pdu
            && !(self.buffers.is_none() && c.write)
        {
            let out = self.buffers.out.as_ref().map_or(0, |out| out.len() as u64);
            if (c.data.len() as u64) > u64::from(self.unsolicited) || u64::from(self.unsolicited) > out {
                return Err("immediate data is part of unsolicited data, and that of the output (RFC 5047 \
                            section 10.3.1)");
            }
        }
        Ok(())
    }
}

impl<P: Into<Pdu<Bytes>>> From<P> for Control {
    /// A PDU without buffers.
    fn from(pdu: P) -> Self {
        Self { pdu: pdu.into(), buffers: TaskBuffers::none(), unsolicited: 0 }
    }
}

/// Put_Data (RFC 5047 section 8.2): the target moves data into the initiator's buffer.
#[derive(Debug)]
pub struct PutData {
    /// The task.
    pub itt: Itt,
    /// Its logical unit.
    pub lun: Lun,
    /// Offset within the task's input buffer, in bytes.
    pub offset: u32,
    /// The data.
    pub data: SgList,
    /// Number of the first Data-In PDU when data is sent again after TASK REASSIGN; `None` goes on counting.
    /// Transports without Data-In PDUs ignore it.
    pub resume: Option<DataSn>,
    /// Ask the initiator to acknowledge (A bit); answered by [`Event::DataAck`](crate::Event::DataAck). Only at
    /// ErrorRecoveryLevel 1 and above.
    pub ack: bool,
    /// Notify_Enable: tell with a [`DataCompletion`](crate::DataCompletion) when the transfer is done locally.
    pub notify: bool,
}

/// Get_Data (RFC 5047 section 8.3): the target fetches data from the initiator's buffer. Its completion is always
/// told by a [`DataCompletion`](crate::DataCompletion), which gives the buffers back.
#[derive(Debug)]
pub struct GetData {
    /// The task.
    pub itt: Itt,
    /// Its logical unit.
    pub lun: Lun,
    /// Offset within the task's output buffer, in bytes.
    pub offset: u32,
    /// Where the data goes; its length is the length of the transfer.
    pub into: SgListMut,
    /// Number of the first R2T PDU after TASK REASSIGN; `None` goes on counting.
    pub resume: Option<DataSn>,
}

/// The numbers that the session wants stamped on PDUs which the datamover makes itself, and learns from those that
/// it consumes (Data-In, R2T, Data-Out). Transports on which those PDUs do not travel ignore it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// Target down, initiator up: next StatSN of this connection (stamped on R2T) — at the initiator going down:
    /// ExpStatSN (stamped on Data-Out); coming up at the target: the initiator's ExpStatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN; target down, initiator up.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN; target down, initiator up.
    pub max_cmd_sn: CmdSn,
}

/// What a connection must be able to hold (Allocate_Connection_Resources, RFC 5047 section 8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resources {
    /// Commands in flight: the command window.
    pub commands: u32,
    /// Control-type PDUs beyond the commands: immediate commands, NOPs, unsolicited Data-Out, Async Messages.
    pub unexpected: u32,
    /// Largest data segment that a control-type PDU may bring.
    pub max_control_data: u32,
    /// Bytes of task data that the pool of this connection should hold.
    pub pool_bytes: usize,
}

impl Default for Resources {
    /// 128 commands, 64 others, 8 KiB segments, 16 MiB of task data.
    fn default() -> Self {
        Self { commands: 128, unexpected: 64, max_control_data: 8192, pool_bytes: 16 << 20 }
    }
}

/// Why resources were not to be had; the login then ends with Status-Class 3, Detail 2 (out of resources).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AllocError {
    /// What ran out, for the log.
    pub what: &'static str,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection resources refused: {}", self.what)
    }
}

impl std::error::Error for AllocError {}

/// The negotiated values that a datamover needs (Notice_Key_Values, RFC 5047 section 8.8), named as the keys are
/// (RFC 7143 section 13, RFC 7145 section 6).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnKeys {
    /// HeaderDigest=CRC32C.
    pub header_digest: bool,
    /// DataDigest=CRC32C.
    pub data_digest: bool,
    /// The longest data segment that we declared to accept, in bytes (MaxRecvDataSegmentLength, own).
    pub max_recv_data_segment_length: u32,
    /// The longest data segment that the peer declared to accept, in bytes (MaxRecvDataSegmentLength, peer's).
    pub max_send_data_segment_length: u32,
    /// MaxBurstLength in bytes.
    pub max_burst_length: u32,
    /// FirstBurstLength in bytes.
    pub first_burst_length: u32,
    /// MaxOutstandingR2T.
    pub max_outstanding_r2t: u16,
    /// DataPDUInOrder.
    pub data_pdu_in_order: bool,
    /// DataSequenceInOrder.
    pub data_sequence_in_order: bool,
    /// ErrorRecoveryLevel, 0 to 2.
    pub error_recovery_level: u8,
    /// iSCSIProtocolLevel (RFC 7144).
    pub iscsi_protocol_level: u8,
    /// RDMAExtensions=Yes was agreed.
    pub rdma_extensions: bool,
    /// InitiatorRecvDataSegmentLength in bytes.
    pub initiator_recv_data_segment_length: u32,
    /// TargetRecvDataSegmentLength in bytes.
    pub target_recv_data_segment_length: u32,
    /// MaxAHSLength in bytes, without its padding; `None` when not declared.
    pub max_ahs_length: Option<u32>,
    /// TaggedBufferForSolicitedDataOnly; `None` when the key was never negotiated, which peers in the field treat
    /// otherwise than an explicit No.
    pub tagged_buffer_for_solicited_data_only: Option<bool>,
    /// iSERHelloRequired; `None` when never negotiated.
    pub iser_hello_required: Option<bool>,
    /// MaxOutstandingUnexpectedPDUs that we declared; `None` when not declared, 0 means no limit.
    pub max_outstanding_unexpected_pdus: Option<u32>,
    /// MaxOutstandingUnexpectedPDUs that the peer declared; `None` when not declared, 0 means no limit.
    pub peer_max_outstanding_unexpected_pdus: Option<u32>,
    /// How long a solicited transfer may make no progress before the datamover gives it up; not a key.
    pub data_timeout: Duration,
}

impl Default for ConnKeys {
    /// The defaults of RFC 7143 section 13 and RFC 7145 section 6.
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            max_recv_data_segment_length: 8192,
            max_send_data_segment_length: 8192,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            max_outstanding_r2t: 1,
            data_pdu_in_order: true,
            data_sequence_in_order: true,
            error_recovery_level: 0,
            iscsi_protocol_level: 1,
            rdma_extensions: false,
            initiator_recv_data_segment_length: 8192,
            target_recv_data_segment_length: 8192,
            max_ahs_length: None,
            tagged_buffer_for_solicited_data_only: None,
            iser_hello_required: None,
            max_outstanding_unexpected_pdus: None,
            peer_max_outstanding_unexpected_pdus: None,
            data_timeout: Duration::from_secs(30),
        }
    }
}

/// A datamover that holds as much as [`Resources`] reserved: the argument comes back, to be offered again after the
/// next event.
#[derive(Debug)]
pub struct Full<T>(pub T);

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "more in flight than the connection's resources allow; offer it again after the next event",
        )
    }
}

impl<T: fmt::Debug> std::error::Error for Full<T> {}
