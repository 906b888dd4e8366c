//! A SCSI task at the target, between arrival and response.

use super::TaskState;
use super::command::Burst;
use crate::action::ConnId;
use crate::slab::Key;
use bytes::Bytes;
use iscsi_pdu::{CmdSn, Itt, Lun, Pdu, SnackTag, TaskAttr};

/// What waits in the command queue.
#[derive(Debug)]
pub(super) enum Queued {
    Scsi(Key),
    Request(ConnId, Box<Pdu<Bytes>>),
}

/// A SCSI task between arrival and response.
#[derive(Debug)]
pub(super) struct TargetTask {
    pub(super) itt: Itt,
    pub(super) conn: ConnId,
    pub(super) lun: Lun,
    pub(super) cmd_sn: CmdSn,
    pub(super) immediate: bool,
    pub(super) stage: Stage,
    pub(super) attr: TaskAttr,
    pub(super) priority: u8,
    pub(super) cdb: [u8; 16],
    pub(super) extended_cdb: Bytes,
    /// R and W: which residuals the response reports.
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) read_length: u32,
    pub(super) write_length: u32,
    pub(super) burst: Burst,
    /// Get_Data calls under way.
    pub(super) gets: u32,
    /// It is over but for the buffers that the datamover has been told to give back.
    pub(super) reclaiming: bool,
    /// Where the next Get_Data, the next Put_Data may begin.
    pub(super) next_out: u32,
    pub(super) next_in: u32,
    /// Bytes of input since the initiator was last asked to acknowledge some.
    pub(super) unasked: u32,
    /// The device server gave input out of order.
    pub(super) misordered: bool,
    /// The response, waiting for data that is still due.
    pub(super) outcome: Option<crate::device::Outcome>,
    /// Tag of the last R-Data SNACK.
    pub(super) snack_tag: SnackTag,
    /// A SNACK for its data was rejected: it fails.
    pub(super) snack_rejected: bool,
    /// At ErrorRecoveryLevel 2: what a reassignment needs.
    pub(super) state: Option<Box<TaskState>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Not given to the device server yet: its turn has not come, or its unsolicited data is not complete.
    Waiting,
    /// At the device server.
    Executing,
    /// At the device server still, but ended; no response will be sent.
    Ending,
    /// As `Ending`, because another nexus ended the tasks of its logical unit.
    Terminating,
    /// As `Ending`, and its connection is gone: nothing is executed before the device server has let go of it.
    Orphaned,
}
