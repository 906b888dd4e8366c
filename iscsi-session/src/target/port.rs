//! What the device server calls.

use super::{Stage, TargetSession, TaskEvent};
use crate::action::DownCall;
use crate::device::{FunctionTag, Outcome, TaskPort, TaskTag};
use crate::slab::Key;
use crate::status::{self, Condition};
use bytes::Bytes;
use datamover::{BufPool, DataCompletion, DataError, GetData, PutData, SgList, SgListMut};
use iscsi_pdu::{AsyncEvent, AsyncMessage, Lun, ScsiStatus, TaskMgmtStatus};
use std::sync::Arc;

impl TaskPort for TargetSession {
    fn pool(&self, tag: TaskTag) -> &Arc<dyn BufPool> {
        self.tasks
            .get(Key(tag.0))
            .and_then(|task| self.conn(task.conn))
            .map_or(&self.no_pool, |conn| &conn.pool)
    }

    // req: 7145-7.3.6-1, 7145-9.5.1-7, 7143-4.2.5.1-4, 7143-4.2.5.3-2, 7143-11.7.4-2
    fn want_write(&mut self, tag: TaskTag, offset: u32, into: SgListMut) {
        let key = Key(tag.0);
        let Some(task) = self.tasks.get_mut(key).filter(|t| t.stage == Stage::Executing) else { return };
        let end = u64::from(offset) + into.len() as u64;
        // req: 7143-13.19-1
        let in_range = offset >= task.burst.len().max(task.next_out)
            && end <= u64::from(task.write_length)
            && !into.is_empty();
        let (id, itt, lun) = (task.conn, task.itt, task.lun);
        let refuse = if task.outcome.is_some() || self.functions.iter().any(|f| f.ends(key)) {
            Some(DataError::Cancelled)
        } else if !in_range {
            Some(DataError::Access)
        } else {
            None
        };
        if let Some(error) = refuse {
            self.upcalls.push_back(TaskEvent::WriteData { tag, offset, data: into, result: Err(error) });
            return;
        }
        let suspended = self.conn(id).is_some_and(|c| c.suspended);
        let mut resume = None;
        if let Some(task) = self.tasks.get_mut(key) {
            // In range, so within 32 bits.
            task.next_out = u32::try_from(end).unwrap_or(u32::MAX);
            if let Some(state) = task.state.as_mut() {
                if suspended {
                    state.gets.push((offset, into.len(), Some(into)));
                    return;
                }
                state.gets.push((offset, into.len(), None));
                resume = state.resume.take();
            }
            task.gets += 1;
        }
        if let Some(conn) = self.conn_mut(id) {
            conn.gets += 1;
        }
        self.set_window(id);
        self.call(id, DownCall::GetData(GetData { itt, lun, offset, into, resume }));
    }

    // req: 7145-7.3.5-1, 7145-9.5.2-5, 7143-4.2.5.1-2
    fn read_data(&mut self, tag: TaskTag, offset: u32, data: SgList) {
        let key = Key(tag.0);
        let Some(task) = self.tasks.get_mut(key).filter(|t| t.stage == Stage::Executing) else { return };
        let room = task.read_length.saturating_sub(offset) as usize;
        let data = if data.len() > room { data.slice(0, room) } else { data };
        if data.is_empty() {
            return;
        }
        // req: 7143-13.19-1
        if offset < task.next_in {
            task.misordered = true;
            return;
        }
        task.next_in = offset.saturating_add(data.len() as u32);
        let (id, itt, lun) = (task.conn, task.itt, task.lun);
        let suspended = self.conn(id).is_some_and(|c| c.suspended);
        let mut resume = None;
        if let Some(state) = self.tasks.get_mut(key).and_then(|t| t.state.as_mut()) {
            state.input.push((offset, data.clone()));
            resume = if suspended { None } else { state.resume.take() };
        }
        self.counters.read_bytes += data.len() as u64;
        let ack = self.asks_for_acknowledgment(key, data.len());
        let put = PutData { itt, lun, offset, data, resume, ack, notify: false };
        self.call(id, DownCall::PutData(put));
    }

    // req: 7143-11.4.2-1, 7143-11.17.1-4, 7143-4.2.3.3-8
    fn complete(&mut self, tag: TaskTag, outcome: Outcome) {
        let key = Key(tag.0);
        let Some(task) = self.tasks.get_mut(key) else { return };
        let outcome = if task.misordered {
            Outcome::check_condition(status::target_failure())
        } else if task.snack_rejected && outcome.status == ScsiStatus::Good {
            Outcome::check_condition(Condition::SnackRejected.sense())
        } else {
            outcome
        };
        let ends = self.functions.iter().any(|f| f.ends(key));
        // What another nexus ended need not wait for data that may never come (section 4.2.3.3 a): the response ends
        // the transfers below it, whose buffers come back before late data could reach them. Over RDMA this end reads
        // the data itself, so nothing can be withheld, and what is being read must stay advertised.
        let waits = outcome.status != ScsiStatus::TaskAborted || ends || self.params.rdma_extensions;
        let Some(task) = self.tasks.get_mut(key) else { return };
        match task.stage {
            Stage::Waiting => {}
            Stage::Executing if task.gets > 0 && waits => task.outcome = Some(outcome),
            Stage::Executing if ends => self.discard(tag),
            Stage::Executing => {
                self.finish(key, outcome);
                self.progress();
            }
            Stage::Ending | Stage::Terminating | Stage::Orphaned => self.discard(tag),
        }
    }

    fn discard(&mut self, tag: TaskTag) {
        let key = Key(tag.0);
        let Some(task) = self.tasks.get(key) else { return };
        match task.stage {
            Stage::Waiting => return,
            // Another nexus ended it.
            Stage::Executing if !self.functions.iter().any(|f| f.ends(key)) => self.terminated_elsewhere(key),
            _ => self.release(key),
        }
        self.progress();
    }

    fn respond(&mut self, tag: FunctionTag, response: TaskMgmtStatus, additional: [u8; 3]) {
        if let Some(function) = self.functions.iter_mut().find(|f| f.tag == tag) {
            function.answer(response, additional);
            self.progress();
        }
    }

    // req: 7145-7.3.7-1
    fn asynchronous_event(&mut self, lun: Lun, sense: Bytes) {
        if self.is_discovery() {
            return;
        }
        if let Some(id) = self.conns.iter().find(|c| c.open && c.is_full_feature()).map(|c| c.id) {
            let message = AsyncMessage {
                lun,
                event: AsyncEvent::ScsiEvent,
                data: status::sense_segment(&sense),
                ..AsyncMessage::default()
            };
            self.transmit_unexpected(id, message.into());
        }
    }
}

impl TargetSession {
    /// Whether input is to be acknowledged (DataACK): where it is kept until it is, after MaxBurstLength bytes. What
    /// comes last is acknowledged with the status.
    // req: 7143-11.7.2-1, 7143-11.7.2-2, 7143-11.7.2-3
    fn asks_for_acknowledgment(&mut self, key: Key, len: usize) -> bool {
        if !self.recovers() {
            return false;
        }
        let Some(task) = self.tasks.get_mut(key) else { return false };
        task.unasked = task.unasked.saturating_add(len as u32);
        let asks = task.unasked >= self.params.max_burst_length && task.next_in < task.read_length;
        if asks {
            task.unasked = 0;
        }
        asks
    }

    /// A Get_Data is done.
    pub(super) fn on_data_completion(&mut self, done: DataCompletion) {
        // A Put_Data is never asked to notify.
        let Some(data) = done.data else { return };
        let Some(key) = self.by_itt.get(&done.itt).copied() else { return };
        let Some(task) = self.tasks.get_mut(key) else { return };
        let id = task.conn;
        task.gets = task.gets.saturating_sub(1);
        if let Some(state) = task.state.as_mut() {
            state.answered(done.offset);
        }
        let (gets, stage) = (task.gets, task.stage);
        let held = if gets == 0 { task.outcome.take() } else { None };
        if let Some(conn) = self.conn_mut(id) {
            conn.gets = conn.gets.saturating_sub(1);
        }
        if done.result.is_ok() {
            self.counters.write_bytes += data.len() as u64;
        }
        let ends = self.functions.iter().any(|f| f.ends(key));
        if let Some(outcome) = held {
            if !ends {
                self.finish(key, outcome);
            } else {
                self.release(key);
            }
            return;
        }
        let waits_for_response = self.tasks.get(key).is_some_and(|t| t.outcome.is_some());
        if stage == Stage::Executing && !ends && !waits_for_response {
            self.upcalls.push_back(TaskEvent::WriteData {
                tag: TaskTag(key.0),
                offset: done.offset,
                data,
                result: done.result,
            });
        }
    }
}
