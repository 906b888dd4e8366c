//! What the target engine needs from a SCSI layer: [`DeviceServer`], and what it offers to one: [`TaskPort`].
//!
//! A device server handle belongs to one session, that is, to one I_T nexus; what nexuses share (media,
//! reservations, unit attentions) is the SCSI layer's own affair. The engine never looks into a CDB.
//!
//! ```text
//!   engine                                   device server
//!     │ execute(task) ──────────────────────────▶ │
//!     │ ◀──────────── port.want_write(offset, into) │   for output beyond the unsolicited part
//!     │ write_data(offset, data) ───────────────▶ │
//!     │ ◀──────────────── port.read_data(offset, data) │
//!     │ ◀──────────────────────── port.complete(outcome) │
//! ```

use bytes::Bytes;
use datamover::{BufPool, DataError, SgList, SgListMut};
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr, TaskMgmtFunction, TaskMgmtStatus};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Names a task between the engine and the device server. Never reused within a session's lifetime: a slot number
/// and a generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TaskTag(pub u64);

impl TaskTag {
    /// The slot number: no two tasks that are open have the same, and it is less than the most that were open at a
    /// time.
    #[must_use]
    pub fn slot(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }
}

/// Names a task management function that awaits its response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FunctionTag(pub u64);

/// A SCSI command as the task router sees it (SAM-5 section 5.1, Execute Command).
#[derive(Debug)]
pub struct Task {
    /// Its name in all further calls.
    pub tag: TaskTag,
    /// Logical unit, which need not exist.
    pub lun: Lun,
    /// Task attribute; [`TaskAttr::Untagged`] is to be treated as SIMPLE.
    pub attr: TaskAttr,
    /// Command priority, 0 when unspecified (SAM-5 section 8.7).
    pub priority: u8,
    /// First 16 bytes of the CDB, zero-filled.
    pub cdb: [u8; 16],
    /// Bytes 16 and up of a longer CDB, else empty.
    pub extended_cdb: Bytes,
    /// Input bytes that the initiator has room for.
    pub read_length: u32,
    /// Output bytes that the initiator has to give, the unsolicited part included.
    pub write_length: u32,
    /// The first bytes of the output: all immediate and unsolicited data, complete.
    pub unsolicited: SgList,
}

/// How a command ended (SAM-5 section 5.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// SCSI status.
    pub status: ScsiStatus,
    /// Sense data for autosense, else empty; at most 252 bytes.
    pub sense: Bytes,
    /// Status qualifier (SAM-5 section 5.3.2), 0 for none.
    pub status_qualifier: u16,
    /// Input bytes of the command itself, whatever the initiator had room for: the engine computes the residual.
    pub read_length: u64,
    /// Output bytes of the command itself, whatever the initiator had to give.
    pub write_length: u64,
    /// The response must not overtake, nor be overtaken by, other responses of the nexus (RFC 7143 section
    /// 4.2.2.3.4): set it when the completion establishes an ACA condition and for PERSISTENT RESERVE OUT with
    /// PREEMPT AND ABORT. The engine itself recognises unit attentions, ACA ACTIVE and task management.
    pub fence: bool,
}

impl Outcome {
    /// GOOD, with no data in either direction.
    #[must_use]
    pub fn good() -> Self {
        Self::status(ScsiStatus::Good)
    }

    /// A status without sense data and without data.
    #[must_use]
    pub fn status(status: ScsiStatus) -> Self {
        Self {
            status,
            sense: Bytes::new(),
            status_qualifier: 0,
            read_length: 0,
            write_length: 0,
            fence: false,
        }
    }

    /// CHECK CONDITION with sense data.
    #[must_use]
    pub fn check_condition(sense: Bytes) -> Self {
        Self { sense, ..Self::status(ScsiStatus::CheckCondition) }
    }

    /// The same outcome of a command that inputs `bytes`.
    #[must_use]
    pub fn with_read(self, bytes: u64) -> Self {
        Self { read_length: bytes, ..self }
    }

    /// The same outcome of a command that outputs `bytes`.
    #[must_use]
    pub fn with_write(self, bytes: u64) -> Self {
        Self { write_length: bytes, ..self }
    }

    /// The same outcome, with the response fence up.
    #[must_use]
    pub fn with_fence(self) -> Self {
        Self { fence: true, ..self }
    }
}

/// A task management function for the SCSI layer (SAM-5 section 7): ABORT TASK SET, CLEAR ACA, CLEAR TASK SET,
/// LOGICAL UNIT RESET, TARGET WARM RESET, TARGET COLD RESET, I_T NEXUS RESET or QUERY ASYNCHRONOUS EVENT. The engine
/// itself does the others: ABORT TASK is a call of [`DeviceServer::abort`], QUERY TASK and QUERY TASK SET ask what
/// only the engine knows, TASK REASSIGN is about connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// Its name in the response.
    pub tag: FunctionTag,
    /// Which function.
    pub function: TaskMgmtFunction,
    /// Logical unit, for the functions that name one.
    pub lun: Lun,
}

/// The SCSI layer behind one I_T nexus.
///
/// Calls come from the session's own loop, one at a time; none may block. Work that takes time is started in the
/// call and finished in [`poll`](Self::poll), which the waker of its context brings about.
pub trait DeviceServer: Send {
    /// A command, in the order that the session's CmdSN gives.
    fn execute(&mut self, task: Task, port: &mut dyn TaskPort);

    /// Output that [`TaskPort::want_write`] asked for; on failure the buffers come back unfilled and the command is
    /// to be ended (ABORTED COMMAND).
    fn write_data(
        &mut self,
        tag: TaskTag,
        offset: u32,
        data: SgListMut,
        result: Result<(), DataError>,
        port: &mut dyn TaskPort,
    );

    /// The initiator (or the loss of its connection) ended the task. The device server stops it and, once it can
    /// have no effect any more, calls [`TaskPort::discard`] (or [`TaskPort::complete`], which is then the same: no
    /// response is sent); until then functions that wait for it are not answered. Never called for a task that
    /// was completed. No
    /// [`write_data`](Self::write_data) of the task follows: the engine gives its buffers back to their pool.
    fn abort(&mut self, tag: TaskTag, port: &mut dyn TaskPort);

    /// A task management function. The engine has already called [`abort`](Self::abort) for the tasks of this
    /// session that the function ends; those of other nexuses, resets and unit attentions are the device server's.
    /// Answered by [`TaskPort::respond`]. A function that the target's configuration does not support or permit
    /// never comes here.
    fn task_management(&mut self, function: Function, port: &mut dyn TaskPort);

    /// The engine ended tasks of this nexus on `lun` because a connection was logged out or lost, while the session
    /// goes on: the next command of the nexus to that logical unit is to report a unit attention, 47h/7Fh SOME
    /// COMMANDS CLEARED BY ISCSI PROTOCOL EVENT (RFC 7143 section 11.14.5).
    fn commands_cleared(&mut self, lun: Lun);

    /// The session is over: I_T nexus loss (SAM-5 section 6.3.4). Open tasks have been aborted before.
    fn nexus_loss(&mut self);

    /// Finishes work that was waiting; `Ready` when something was done, so that the caller looks again.
    fn poll(&mut self, cx: &mut Context<'_>, now: Instant, port: &mut dyn TaskPort) -> Poll<()>;
}

/// What the engine does for a device server. Calls with a tag of a task that is over are ignored.
pub trait TaskPort {
    /// Memory that the task's connection moves without copying.
    fn pool(&self, tag: TaskTag) -> &Arc<dyn BufPool>;

    /// Fetches the output bytes from `offset` on into `into`, whose length is the length wanted; the range must
    /// lie between the unsolicited part and the task's `write_length`, and not begin before the range asked for last.
    /// Answered by [`DeviceServer::write_data`], with [`DataError::Access`] when the range is wrong.
    fn want_write(&mut self, tag: TaskTag, offset: u32, into: SgListMut);

    /// Sends input, in the order of its offsets: a piece that begins before the end of the last makes the command
    /// fail (HARDWARE ERROR, internal target failure). Bytes beyond the task's `read_length` are cut off.
    fn read_data(&mut self, tag: TaskTag, offset: u32, data: SgList);

    /// Ends the task with a response, after the data that was sent before.
    fn complete(&mut self, tag: TaskTag, outcome: Outcome);

    /// Ends the task without a response: after [`DeviceServer::abort`], or because another nexus ended it and the
    /// control mode page says TAS=0 (with TAS=1 it is completed with TASK ABORTED).
    fn discard(&mut self, tag: TaskTag);

    /// Answers a task management function.
    fn respond(
        &mut self,
        tag: FunctionTag,
        response: TaskMgmtStatus,
        additional_response_information: [u8; 3],
    );

    /// Reports a SCSI asynchronous event of a logical unit (AsyncEvent 0) with sense data.
    fn asynchronous_event(&mut self, lun: Lun, sense: Bytes);
}
