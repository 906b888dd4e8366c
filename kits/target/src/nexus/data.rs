//! The data phases of tasks: READ, WRITE and sequences.

use super::task::{Fetch, Read, Work, Write};
use super::{Nexus, op_id};
use crate::block::{Action, BlockError, BlockOp, Payload};
use crate::sequence::{Answer, Ask, Ending, Finish, data_error};
use crate::unit::{Flags, block_error};
use datamover::{DataError, IoBuf, SgList, SgListMut};
use iscsi_session::device::{TaskPort, TaskTag};
use scsi_cmd::cdb::{BlockIo, IoKind};
use scsi_cmd::{Asc, Sense};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Bytes of one operation on a device that needs buffers.
const CHUNK: u64 = 512 << 10;
/// Operations of one READ at a time.
const WINDOW: usize = 4;
/// Bytes of output that one WRITE has in memory at a time.
const PIECE: u64 = 1 << 20;

impl Nexus {
    pub(super) fn begin_read(&mut self, slot: usize, io: BlockIo, port: &mut dyn TaskPort) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let block = u64::from(bound.unit.block_size);
        task.in_total = u64::from(io.blocks) * block;
        // What the initiator has no room for is not read.
        let end = task.in_total.min(u64::from(task.read_length).next_multiple_of(block));
        if end == 0 {
            return self.finish(slot, Ok(Finish::good()), port);
        }
        task.work =
            Work::Read(Read { lba: io.lba, next: 0, sent: 0, end, early: VecDeque::new(), failed: None });
        self.pump_read(slot, port);
    }

    /// Keeps operations under way.
    fn pump_read(&mut self, slot: usize, port: &mut dyn TaskPort) {
        loop {
            let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
            let Some(bound) = self.units.get_mut(task.at).and_then(Option::as_mut) else { return };
            let Work::Read(read) = &mut task.work else { return };
            if read.next >= read.end || task.ops >= WINDOW || read.failed.is_some() {
                return;
            }
            let lends = bound.lends_reads;
            let left = read.end - read.next;
            let len = if lends { left } else { left.min(CHUNK) };
            let into = match lends {
                true => SgListMut::new(),
                false => match memory(port, task.tag, len) {
                    Some(memory) => memory,
                    None => {
                        if task.ops == 0 {
                            self.starved.push_back(slot);
                        }
                        return;
                    }
                },
            };
            let block = u64::from(bound.unit.block_size);
            let (first, blocks) = (read.next / block, (len / block) as u32);
            let action = Action::Read { lba: read.lba + first, blocks, into };
            read.next += len;
            task.ops += 1;
            let at = task.at;
            bound.submit(BlockOp { id: op_id(slot, first as u32), action }, at, &mut self.busy);
        }
    }

    pub(super) fn read_done(
        &mut self,
        slot: usize,
        first_block: u32,
        result: Result<Payload, BlockError>,
        port: &mut dyn TaskPort,
    ) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let Work::Read(read) = &mut task.work else { return };
        let offset = u64::from(first_block) * u64::from(bound.unit.block_size);
        match result {
            Ok(Payload::Data(data)) => {
                // Input goes out in order (DataSequenceInOrder), mostly that in which it comes.
                if offset == read.sent && read.early.is_empty() && read.failed.is_none() {
                    read.sent += data.len() as u64;
                    port.read_data(task.tag, offset as u32, data);
                } else {
                    read.early.insert(read.early.partition_point(|(o, _)| *o < offset), (offset, data));
                }
                while read.early.front().is_some_and(|(o, _)| *o == read.sent) && read.failed.is_none() {
                    let Some((offset, data)) = read.early.pop_front() else { break };
                    read.sent += data.len() as u64;
                    port.read_data(task.tag, offset as u32, data);
                }
            }
            Ok(_) => read.failed = Some(block_error(BlockError::Device, false, read.lba).into()),
            // Nothing goes out behind a failure, so that nothing will have been done.
            Err(BlockError::Busy(delay)) if read.sent == 0 => {
                read.failed.get_or_insert(Ending::Busy(delay));
            }
            Err(error) => {
                let sense = block_error(error, false, read.lba + u64::from(first_block));
                read.failed.get_or_insert(sense.into());
            }
        }
        if task.ops > 0 || (read.failed.is_none() && read.sent < read.end) {
            return self.pump_read(slot, port);
        }
        let ended = match read.failed.take() {
            Some(ending) => {
                task.in_total = read.sent;
                Err(ending)
            }
            None => Ok(Finish::good()),
        };
        self.finish(slot, ended, port);
    }

    pub(super) fn begin_write(&mut self, slot: usize, io: BlockIo, port: &mut dyn TaskPort) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let block = u64::from(bound.unit.block_size);
        task.out_total = u64::from(io.blocks) * block;
        let end = task.out_total.min(u64::from(task.write_length));
        if end % block != 0 {
            // Part of a block cannot be written.
            let sense = Sense::illegal(Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
            return self.finish(slot, Err(sense.into()), port);
        }
        if end == 0 {
            return self.finish(slot, Ok(Finish::good()), port);
        }
        let write_through = io.fua || bound.unit.flags().has(Flags::WRITE_THROUGH);
        let fua = write_through && bound.volatile_cache;
        task.work = Work::Write(Write { io, fua, done: 0, piece: 0, end, waits: None, guard: None });
        self.fetch_piece(slot, port);
    }

    fn fetch_piece(&mut self, slot: usize, port: &mut dyn TaskPort) {
        let Some(task) = self.task(slot) else { return };
        let Work::Write(write) = &mut task.work else { return };
        // Short of twice the piece, all: no small rest.
        let left = write.end - write.done;
        let whole = left < PIECE * 2 || write.io.kind == IoKind::WriteAtomic;
        write.piece = if whole { left } else { PIECE };
        let (offset, len) = (write.done, write.piece);
        if let Some(data) = self.fetch(slot, offset, len, port) {
            self.fetched(slot, Ok(data), port);
        }
    }

    /// Output from `offset` on: at once when the initiator has sent it unasked, else by
    /// [`fetched`](Self::fetched).
    fn fetch(&mut self, slot: usize, offset: u64, len: u64, port: &mut dyn TaskPort) -> Option<SgList> {
        let task = self.task(slot)?;
        let have = task.unsolicited.slice(offset as usize, len as usize);
        let missing = len - have.len() as u64;
        if missing == 0 {
            return Some(have);
        }
        let from = offset + have.len() as u64;
        let tag = task.tag;
        match memory(port, tag, missing) {
            Some(into) => {
                task.fetch = Some(Fetch { have });
                port.want_write(tag, from as u32, into);
            }
            None => {
                task.unfetched = Some((offset, len));
                self.starved.push_back(slot);
            }
        }
        None
    }

    /// Output is there, or will not come.
    pub(super) fn fetched(&mut self, slot: usize, data: Result<SgList, DataError>, port: &mut dyn TaskPort) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        if task.aborted.is_some() {
            return self.abort_if_idle(slot, port);
        }
        let at = task.at;
        match (&mut task.work, data) {
            (Work::Write(write), Ok(data)) => {
                let Some(bound) = self.units.get(at).and_then(Option::as_ref) else { return };
                // Not before the data are here: an initiator that is slow to send them delays nobody.
                write.guard = bound.unit.ranges.share();
                if write.guard.is_some() {
                    return self.write_piece(slot, data);
                }
                let block = u64::from(bound.unit.block_size);
                let acquire =
                    bound.unit.ranges.acquire(write.io.lba + write.done / block, write.piece / block, false);
                write.waits = Some((acquire, data));
                self.drive(slot, port);
            }
            (Work::Write(_), Err(error)) => self.finish(slot, Err(data_error(error).into()), port),
            (Work::Sequence { co, .. }, data) => {
                co.answer(Answer::Output(data));
                self.drive(slot, port);
            }
            _ => {}
        }
    }

    /// Writes the piece that was fetched, its blocks locked.
    fn write_piece(&mut self, slot: usize, data: SgList) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let Work::Write(write) = &task.work else { return };
        let lba = write.io.lba + write.done / u64::from(bound.unit.block_size);
        let (at, action) = (task.at, Action::Write { lba, data, fua: write.fua });
        self.submit(slot, at, BlockOp { id: op_id(slot, 0), action });
    }

    pub(super) fn write_done(
        &mut self,
        slot: usize,
        result: Result<Payload, BlockError>,
        port: &mut dyn TaskPort,
    ) {
        let Some(task) = self.tasks.get_mut(slot).and_then(Option::as_deref_mut) else { return };
        let Some(bound) = self.units.get(task.at).and_then(Option::as_ref) else { return };
        let Work::Write(write) = &mut task.work else { return };
        write.guard = None;
        if let Err(error) = result {
            let lba = write.io.lba + write.done / u64::from(bound.unit.block_size);
            let ending = match error {
                BlockError::Busy(delay) if write.done == 0 => Ending::Busy(delay),
                _ => block_error(error, true, lba).into(),
            };
            return self.finish(slot, Err(ending), port);
        }
        write.done += write.piece;
        if write.done < write.end {
            self.fetch_piece(slot, port);
        } else {
            self.finish(slot, Ok(Finish::good()), port);
        }
    }

    /// Tries again for the tasks that found no memory, in their order; `true` when one went on.
    pub(super) fn feed_starved(&mut self, port: &mut dyn TaskPort) -> bool {
        let mut fed = false;
        for slot in std::mem::take(&mut self.starved) {
            let before = self.starved.len();
            let unfetched = self.task(slot).and_then(|t| t.unfetched.take());
            match unfetched {
                Some((offset, len)) => {
                    if let Some(data) = self.fetch(slot, offset, len, port) {
                        self.fetched(slot, Ok(data), port);
                    }
                }
                None => self.pump_read(slot, port),
            }
            fed |= self.starved.len() == before;
        }
        fed
    }

    /// Goes on with a task that waited for a lock or whose sequence has an answer.
    pub(super) fn drive(&mut self, slot: usize, port: &mut dyn TaskPort) {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        loop {
            let Some(task) = self.task(slot) else { return };
            let (co, run) = match &mut task.work {
                Work::Sequence { co, run } => (co, run),
                Work::Write(write) => {
                    let Some((mut acquire, data)) = write.waits.take() else { return };
                    match acquire.poll_lock(&mut cx) {
                        Poll::Ready(guard) => {
                            write.guard = Some(guard);
                            return self.write_piece(slot, data);
                        }
                        Poll::Pending => {
                            write.waits = Some((acquire, data));
                            return self.parked.push(slot);
                        }
                    }
                }
                _ => return,
            };
            if let Poll::Ready(ended) = run.as_mut().poll(&mut cx) {
                return self.finish(slot, ended, port);
            }
            match co.take_ask() {
                None => return self.parked.push(slot),
                Some(Ask::Output { total, offset, len }) => {
                    task.out_total = u64::from(total);
                    let len = u64::from(len.min(task.write_length.saturating_sub(offset)));
                    let co = co.clone();
                    match self.fetch(slot, offset.into(), len, port) {
                        Some(data) => co.answer(Answer::Output(Ok(data))),
                        None => return,
                    }
                }
                Some(Ask::Operation(action)) => {
                    let at = task.at;
                    return self.submit(slot, at, BlockOp { id: op_id(slot, 0), action });
                }
                Some(Ask::Elsewhere(unit, action)) => {
                    let co = co.clone();
                    let at = self
                        .units
                        .iter()
                        .position(|b| b.as_ref().is_some_and(|b| !b.gone && Arc::ptr_eq(&b.unit, &unit)));
                    match at {
                        Some(at) => return self.submit(slot, at, BlockOp { id: op_id(slot, 0), action }),
                        None => co.answer(Answer::Operation(Err(BlockError::Gone))),
                    }
                }
            }
        }
    }
}

/// Memory that the connection moves without copying. `None` when its pool is used up: what is out will come back, and
/// the driver polls again when it does. A pool that has nothing out is too small for this, and any memory will do.
fn memory(port: &mut dyn TaskPort, tag: TaskTag, len: u64) -> Option<SgListMut> {
    let pool = port.pool(tag);
    match pool.alloc(len as usize) {
        None if pool.outstanding() == 0 => Some(IoBuf::zeroed(len as usize).into()),
        memory => memory,
    }
}
