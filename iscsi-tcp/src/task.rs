//! What is remembered of a task: at the initiator its buffers, at the target its numbers.

use crate::steer::TagMap;
use datamover::TaskBuffers;
use iscsi_pdu::{Ahs, DataSn, Itt, ScsiCommand, TaskMgmtRequest, Ttt};

/// An initiator's open task.
pub(crate) struct Task {
    pub(crate) buffers: TaskBuffers,
    /// Tells this task from a later one with the same tag.
    pub(crate) serial: u64,
    /// Input and output both: Data-In and R2T are numbered together.
    pub(crate) bidirectional: bool,
    /// Input bytes that the command told the target to expect.
    pub(crate) expected: u32,
    /// Input bytes received; `None` for a reassigned task, which has received some on another connection.
    pub(crate) received: Option<u64>,
    /// Where in-order input has got to.
    pub(crate) next_offset: u64,
    /// Data-In PDUs received.
    pub(crate) data_ins: u32,
    /// R2T PDUs received.
    pub(crate) r2ts: u32,
    /// R2Ts not yet answered in full.
    pub(crate) outstanding: u32,
}

impl Task {
    /// Whether `sn` is the number that the next Data-In or R2T carries, `own` PDUs of its kind having been received.
    ///
    /// Of a bidirectional command both kinds share the count (RFC 7143 section 4.2.2.4), which not every target
    /// knows: counting each by itself is accepted too.
    // req: 7143-4.2.2.4-1
    pub(crate) fn is_next(&self, sn: u32, own: u32) -> bool {
        let shared = self.data_ins.wrapping_add(self.r2ts);
        sn == own || (self.bidirectional && sn == shared)
    }
}

/// An initiator's open tasks.
#[derive(Default)]
pub(crate) struct Tasks {
    map: TagMap<Task>,
    serial: u64,
}

impl Tasks {
    // req: 5047-7.2-1, 5047-10.3.1-1
    pub(crate) fn open(&mut self, command: &ScsiCommand, buffers: TaskBuffers) {
        let read_length = command.ahs.iter().find_map(|ahs| match ahs {
            Ahs::BidirectionalReadLength(n) => Some(*n),
            _ => None,
        });
        let expected = match (command.read, command.write) {
            (true, true) => read_length.unwrap_or_default(),
            (true, false) => command.expected_data_transfer_length,
            _ => 0,
        };
        let bidirectional = command.read && command.write;
        self.insert(command.itt, buffers, bidirectional, expected, Some(0), DataSn(0));
    }

    /// A task that goes on on this connection (TASK REASSIGN).
    // req: 5047-10.3.3-1
    pub(crate) fn reopen(&mut self, request: &TaskMgmtRequest, buffers: TaskBuffers) {
        let bidirectional = buffers.out.is_some() && buffers.r#in.is_some();
        let expected = buffers.r#in.as_ref().map_or(0, |i| u32::try_from(i.len()).unwrap_or(u32::MAX));
        let itt = request.referenced_task_tag;
        self.insert(itt, buffers, bidirectional, expected, None, request.exp_data_sn);
    }

    fn insert(
        &mut self,
        itt: Itt,
        buffers: TaskBuffers,
        bidirectional: bool,
        expected: u32,
        received: Option<u64>,
        next: DataSn,
    ) {
        self.serial = self.serial.wrapping_add(1);
        let task = Task {
            buffers,
            serial: self.serial,
            bidirectional,
            expected,
            received,
            next_offset: 0,
            data_ins: next.0,
            r2ts: 0,
            outstanding: 0,
        };
        self.map.insert(itt, task);
    }

    pub(crate) fn get_mut(&mut self, itt: Itt) -> Option<&mut Task> {
        self.map.get_mut(&itt)
    }

    pub(crate) fn remove(&mut self, itt: Itt) -> Option<Task> {
        self.map.remove(&itt)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Itt, TaskBuffers)> + use<'_> {
        self.map.drain().map(|(itt, task)| (itt, task.buffers))
    }
}

/// What a target counts of a task, from its first Put_Data or Get_Data on.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Next DataSN or R2TSN.
    pub(crate) next: u32,
    /// Data-In PDUs made.
    pub(crate) data_ins: u32,
    /// Output is asked for, so that a task with input too is bidirectional.
    pub(crate) asks: bool,
    /// R2Ts not yet answered in full.
    pub(crate) outstanding: u32,
    /// Open Get_Data calls, in order.
    pub(crate) gets: Vec<Ttt>,
    /// Acknowledgments asked for, in order.
    pub(crate) acks: Vec<Ttt>,
}

/// A target's numbered tasks.
#[derive(Default)]
pub(crate) struct Numbering {
    map: TagMap<Numbers>,
    /// Those of ended tasks, whose memory is used again.
    spare: Vec<Numbers>,
}

/// Enough for the deepest queue of one connection, little enough to keep.
const SPARE: usize = 256;

impl Numbering {
    pub(crate) fn open(&mut self, itt: Itt) -> &mut Numbers {
        let spare = &mut self.spare;
        self.map.entry(itt).or_insert_with(|| spare.pop().unwrap_or_default())
    }

    pub(crate) fn get_mut(&mut self, itt: Itt) -> Option<&mut Numbers> {
        self.map.get_mut(&itt)
    }

    pub(crate) fn take(&mut self, itt: Itt) -> Option<Numbers> {
        self.map.remove(&itt)
    }

    pub(crate) fn give_back(&mut self, mut numbers: Numbers) {
        if self.spare.len() < SPARE {
            numbers.gets.clear();
            numbers.acks.clear();
            let Numbers { gets, acks, .. } = numbers;
            self.spare.push(Numbers { gets, acks, ..Numbers::default() });
        }
    }
}
