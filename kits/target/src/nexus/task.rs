//! A task in progress.

use crate::block::OpId;
use crate::mailbox::Hold;
use crate::ranges::{Acquire, RangeGuard};
use crate::sequence::{Co, Ending, Sequence};
use datamover::SgList;
use iscsi_pdu::TaskAttr;
use iscsi_session::device::{Task, TaskTag};
use scsi_cmd::cdb::{BlockIo, CdbBuf, MAX_CDB_LEN, OpCode};
use std::collections::VecDeque;

/// A task from its admission to its end.
pub(super) struct Running {
    pub(super) tag: TaskTag,
    /// Index of its unit in the nexus.
    pub(super) at: usize,
    /// The unit's, when the task arrived.
    pub(super) epoch: u64,
    pub(super) attr: TaskAttr,
    pub(super) cdb: CdbBuf,
    pub(super) read_length: u32,
    pub(super) write_length: u32,
    pub(super) unsolicited: SgList,
    pub(super) work: Work,
    /// Operations that a device has.
    pub(super) ops: usize,
    /// Output on its way.
    pub(super) fetch: Option<Fetch>,
    /// Output for which there was no memory: offset and length.
    pub(super) unfetched: Option<(u64, u64)>,
    /// Bytes that the command itself inputs and outputs: what residuals count against.
    pub(super) in_total: u64,
    pub(super) out_total: u64,
    /// It is to end without effect; `true`: with TASK ABORTED status.
    pub(super) aborted: Option<bool>,
    /// Dropped when it has ended.
    pub(super) holds: Vec<Hold>,
}

/// What a task is doing.
pub(super) enum Work {
    /// Waiting for others to end.
    Held,
    Read(Read),
    Write(Write),
    Sequence {
        co: Co,
        run: Sequence,
    },
}

/// READ in progress. Offsets are in bytes from the beginning of the transfer.
pub(super) struct Read {
    pub(super) lba: u64,
    /// The next byte to ask the device for.
    pub(super) next: u64,
    /// The next byte to send.
    pub(super) sent: u64,
    pub(super) end: u64,
    /// What has come out of order.
    pub(super) early: VecDeque<(u64, SgList)>,
    /// How it will end when all operations have.
    pub(super) failed: Option<Ending>,
}

/// WRITE in progress.
pub(super) struct Write {
    pub(super) io: BlockIo,
    pub(super) fua: bool,
    /// Bytes that are on the device.
    pub(super) done: u64,
    /// Bytes of the piece that is being fetched or written.
    pub(super) piece: u64,
    pub(super) end: u64,
    /// The piece's data, waiting for its blocks.
    pub(super) waits: Option<(Acquire, SgList)>,
    /// Holding them, while the piece is written.
    pub(super) guard: Option<RangeGuard>,
}

/// Output that was asked for: what of it was there before.
pub(super) struct Fetch {
    pub(super) have: SgList,
}

impl Running {
    /// As [`new`](Self::new), in the place of one that was cleared.
    pub(super) fn begin(&mut self, task: Task, at: usize, epoch: u64) {
        self.cdb = cdb(&task);
        self.tag = task.tag;
        self.at = at;
        self.epoch = epoch;
        self.attr = task.attr;
        self.read_length = task.read_length;
        self.write_length = task.write_length;
        self.unsolicited = task.unsolicited;
    }

    /// Drops what the task held.
    pub(super) fn clear(&mut self) {
        self.unsolicited = SgList::new();
        self.work = Work::Held;
        self.ops = 0;
        self.fetch = None;
        self.unfetched = None;
        (self.in_total, self.out_total) = (0, 0);
        self.aborted = None;
        self.holds.clear();
    }

    pub(super) fn new(task: Task, at: usize, epoch: u64) -> Self {
        Self {
            cdb: cdb(&task),
            tag: task.tag,
            at,
            epoch,
            attr: task.attr,
            read_length: task.read_length,
            write_length: task.write_length,
            unsolicited: task.unsolicited,
            work: Work::Held,
            ops: 0,
            fetch: None,
            unfetched: None,
            in_total: 0,
            out_total: 0,
            aborted: None,
            holds: Vec::new(),
        }
    }
}

/// The CDB of a task in one piece, without what fills up its 16 bytes.
pub(super) fn cdb(task: &Task) -> CdbBuf {
    let [op, _, _, _, _, _, _, additional, ..] = task.cdb;
    if let Some(len) = OpCode(op).cdb_len() {
        return CdbBuf::new(&task.cdb[..len]);
    }
    let mut whole = Vec::with_capacity(MAX_CDB_LEN);
    whole.extend_from_slice(&task.cdb);
    whole.extend_from_slice(&task.extended_cdb);
    if op == OpCode::VariableLength.0 {
        whole.truncate(usize::from(additional) + 8);
    }
    CdbBuf::new(&whole)
}

/// The slot and the part that an operation's name carries.
pub(super) fn parts_of(id: OpId) -> (usize, u32) {
    ((id.0 >> 32) as usize, id.0 as u32)
}
