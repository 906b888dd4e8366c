//! What is remembered of a task: at the initiator its buffers, at the target its numbers.

use crate::recover::Holes;
use crate::snack::Sent;
use crate::steer::TagMap;
use datamover::{DataError, InputProgress, TaskBuffers};
use iscsi_pdu::{Ahs, DataSn, Itt, Lun, ScsiCommand, SnackTag, StatSn, TaskMgmtRequest, Ttt};
use std::collections::VecDeque;

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
    /// Above ErrorRecoveryLevel 0: which numbers are missing.
    pub(crate) holes: Holes,
    /// An acknowledgment that waits for the holes to be filled: LUN, tag, next DataSN.
    pub(crate) ack: Option<(Lun, Ttt, DataSn)>,
    /// Missing data will not come any more.
    pub(crate) failed: Option<DataError>,
    /// The session was told so.
    pub(crate) told: bool,
    /// MaxRecvDataSegmentLength when the task began: the length by which its data was cut.
    pub(crate) segment_length: u32,
    /// Data-In PDUs that were acknowledged.
    pub(crate) acked: u32,
    /// Input bytes in them, if known.
    pub(crate) acked_bytes: Option<u64>,
    /// Tag of the R-Data SNACK that the response must answer.
    pub(crate) snack_tag: SnackTag,
    /// Nothing that it asks for has come yet: Data-In PDUs are from before it, and number what is discarded.
    pub(crate) stale: bool,
    /// A reassigned task, of which nothing has come on this connection: the ExpDataSN that it went on with.
    pub(crate) resumed: Option<DataSn>,
    /// One whose data comes from the beginning all the same: that ExpDataSN, else 0.
    pub(crate) floor: u32,
}

impl Task {
    /// The first DataSN that has not come. Of a bidirectional command, whose R2Ts are in the same count, only what was
    /// acknowledged is sure.
    // req: 7143-11.5.6-1, 7143-11.5.6-4
    fn unbroken(&self) -> DataSn {
        DataSn(if self.bidirectional { self.acked } else { self.holes.first_missing(self.acked) })
    }

    /// A target that keeps no account of a reassigned task sends all of it again, from DataSN 0 on (RFC 7143 section
    /// 7.2.2), and may cut it otherwise than before. The first of it may get lost, so that a later one tells.
    pub(crate) fn restart(&mut self, data_sn: DataSn) {
        let resumed = self.resumed.take();
        if resumed.is_some_and(|sn| data_sn.precedes(sn) && self.holes.is_untouched(sn.0)) {
            self.holes = Holes::new(0);
            (self.data_ins, self.acked) = (0, 0);
            self.floor = resumed.map_or(0, |sn| sn.0);
        }
    }

    /// Whether a Data-In is of what was discarded with the last R-Data SNACK. What is sent anew is numbered anew, from what
    /// was acknowledged on, so that the same number is another part of the data (RFC 7143 section 11.16.3); it comes
    /// behind all else, and PDUs with the lowest number of all came before the SNACK was sent.
    pub(crate) fn is_discarded(&mut self, data_sn: DataSn) -> bool {
        self.stale &= data_sn.0 != self.acked;
        self.stale
    }

    /// Whether data is missing that can be expected.
    fn awaits_data(&self) -> bool {
        self.failed.is_none() && (self.stale || !self.holes.is_empty())
    }

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
    /// Puts a task back that was removed, as it was.
    pub(crate) fn restore(&mut self, itt: Itt, task: Task) {
        self.map.insert(itt, task);
    }

    // req: 5047-7.2-1, 5047-10.3.1-1
    pub(crate) fn open(&mut self, command: &ScsiCommand, buffers: TaskBuffers, segment_length: u32) {
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
        self.insert(command.itt, buffers, bidirectional, (expected, Some(0)), DataSn(0), segment_length);
    }

    /// Whether the command is here already: then it is sent again because the target has not had it (RFC 7143 section
    /// 7.2.1).
    pub(crate) fn is_retry(&self, command: &ScsiCommand, buffers: &TaskBuffers) -> bool {
        buffers.is_none() && self.map.contains_key(&command.itt)
    }

    /// A task that goes on on this connection (TASK REASSIGN).
    // req: 5047-10.3.3-1, 7143-7.2.2-4
    pub(crate) fn reopen(&mut self, request: &TaskMgmtRequest, buffers: TaskBuffers, segment_length: u32) {
        let bidirectional = buffers.out.is_some() && buffers.r#in.is_some();
        let expected = buffers.r#in.as_ref().map_or(0, |i| u32::try_from(i.len()).unwrap_or(u32::MAX));
        let itt = request.referenced_task_tag;
        self.insert(itt, buffers, bidirectional, (expected, None), request.exp_data_sn, segment_length);
    }

    fn insert(
        &mut self,
        itt: Itt,
        buffers: TaskBuffers,
        bidirectional: bool,
        (expected, received): (u32, Option<u64>),
        next: DataSn,
        segment_length: u32,
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
            holes: Holes::new(next.0),
            ack: None,
            failed: None,
            told: false,
            segment_length,
            acked: next.0,
            acked_bytes: received,
            snack_tag: SnackTag::default(),
            stale: false,
            resumed: received.is_none().then_some(next),
            floor: 0,
        };
        self.map.insert(itt, task);
    }

    pub(crate) fn get_mut(&mut self, itt: Itt) -> Option<&mut Task> {
        self.map.get_mut(&itt)
    }

    pub(crate) fn remove(&mut self, itt: Itt) -> Option<Task> {
        self.map.remove(&itt)
    }

    /// Whether data of any task is missing that can be expected.
    pub(crate) fn await_data(&self) -> bool {
        self.map.values().any(Task::awaits_data)
    }

    /// Takes all out, each with the first DataSN that has not come.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Itt, TaskBuffers, DataSn)> + use<'_> {
        self.map.drain().map(|(itt, task)| {
            let next = task.unbroken();
            (itt, task.buffers, next)
        })
    }
}

/// What a target counts of a task, from its first Put_Data or Get_Data on.
#[derive(Default)]
pub(crate) struct Numbers {
    /// Next DataSN or R2TSN.
    pub(crate) next: u32,
    /// Data-In PDUs made.
    pub(crate) data_ins: u32,
    /// Buffer offset behind the last of them.
    pub(crate) end: u32,
    /// Output is asked for, so that a task with input too is bidirectional.
    pub(crate) asks: bool,
    /// R2Ts not yet answered in full.
    pub(crate) outstanding: u32,
    /// Open Get_Data calls, in order.
    pub(crate) gets: Vec<Ttt>,
    /// Acknowledgments asked for, in order.
    pub(crate) acks: Vec<Ttt>,
    /// Above ErrorRecoveryLevel 0: PDUs that may be asked for again, by ascending number.
    pub(crate) sent: VecDeque<Sent>,
    /// The initiator has all Data-In PDUs before this one.
    pub(crate) acked: u32,
    /// Bytes in them.
    pub(crate) kept: usize,
    /// StatSN of the response, which was sent and is not acknowledged yet.
    pub(crate) closed: Option<StatSn>,
}

impl Numbers {
    /// Goes on with this number, all before it being acknowledged.
    pub(crate) fn resume(&mut self, sn: DataSn) {
        (self.next, self.data_ins, self.acked) = (sn.0, sn.0, sn.0);
    }

    /// Whether nothing was numbered.
    pub(crate) fn is_untouched(&self) -> bool {
        self.next == 0 && self.sent.is_empty()
    }
}

/// A target's numbered tasks.
#[derive(Default)]
pub(crate) struct Numbering {
    map: TagMap<Numbers>,
    /// Those of ended tasks, whose memory is used again.
    spare: Vec<Numbers>,
    /// Tasks whose response is not acknowledged yet, in the order of StatSN, and the bytes that are kept of each.
    closed: VecDeque<(StatSn, Itt, usize)>,
    /// The sum of these.
    kept: usize,
}

/// Tasks, and bytes of their input, that are kept of a connection until their responses are acknowledged. Initiators
/// acknowledge with their next request; of one that never does the oldest are forgotten, and cannot be sent again.
const CLOSED: usize = 1024;
const CLOSED_BYTES: usize = 64 << 20;

/// Enough for the deepest queue of one connection, little enough to keep.
const SPARE: usize = 256;

impl Numbering {
    pub(crate) fn entry(&mut self, itt: Itt) -> &mut Numbers {
        let spare = &mut self.spare;
        self.map.entry(itt).or_insert_with(|| spare.pop().unwrap_or_default())
    }

    pub(crate) fn get_mut(&mut self, itt: Itt) -> Option<&mut Numbers> {
        self.map.get_mut(&itt)
    }

    /// Keeps a task until its response is acknowledged.
    pub(crate) fn close(&mut self, itt: Itt, stat_sn: StatSn) {
        if let Some(numbers) = self.map.get_mut(&itt)
            && numbers.closed.replace(stat_sn).is_none()
        {
            self.kept = self.kept.saturating_add(numbers.kept);
            self.closed.push_back((stat_sn, itt, numbers.kept));
        }
    }

    /// The next task that has to be forgotten though its response is not acknowledged.
    pub(crate) fn in_excess(&mut self) -> Option<Itt> {
        while self.closed.len() > CLOSED || (self.kept > CLOSED_BYTES && self.closed.len() > 1) {
            if let Some(itt) = self.drop_first() {
                return Some(itt);
            }
        }
        None
    }

    /// Takes the oldest closed task off; its tag, if that does not name another by now.
    fn drop_first(&mut self) -> Option<Itt> {
        let (stat_sn, itt, kept) = self.closed.pop_front()?;
        self.kept = self.kept.saturating_sub(kept);
        self.map.get(&itt).is_some_and(|n| n.closed == Some(stat_sn)).then_some(itt)
    }

    /// The initiator has all responses before `exp_stat_sn`: the next task that may be forgotten for it.
    pub(crate) fn acknowledged(&mut self, exp_stat_sn: StatSn) -> Option<Itt> {
        loop {
            self.closed.front().filter(|(stat_sn, ..)| stat_sn.precedes(exp_stat_sn))?;
            if let Some(itt) = self.drop_first() {
                return Some(itt);
            }
        }
    }

    /// Takes all out: how far the input of each got.
    pub(crate) fn into_progress(self) -> impl Iterator<Item = (Itt, InputProgress)> {
        self.map.into_iter().map(|(itt, numbers)| {
            let sent = numbers.sent.iter().filter_map(|sent| match sent {
                Sent::DataIn { sn, offset, .. } => Some((*sn, *offset)),
                Sent::R2t(_) => None,
            });
            let input = InputProgress {
                next: DataSn(numbers.next),
                acknowledged: DataSn(numbers.acked),
                sent: sent.collect(),
                end: numbers.end,
            };
            (itt, input)
        })
    }

    pub(crate) fn forget(&mut self, itt: Itt) {
        let Some(mut numbers) = self.map.remove(&itt) else { return };
        if self.spare.len() < SPARE {
            numbers.gets.clear();
            numbers.acks.clear();
            numbers.sent.clear();
            let Numbers { gets, acks, sent, .. } = numbers;
            self.spare.push(Numbers { gets, acks, sent, ..Numbers::default() });
        }
    }
}
