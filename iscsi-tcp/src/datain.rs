//! Input data: cut into Data-In PDUs at a target, placed at an initiator (RFC 7143 section 11.7).

use crate::core::TcpCore;
use crate::recover::Arrival;
use crate::rx::To;
use crate::snack::Sent;
use crate::tx::{Item, Length};
use bytes::Bytes;
use datamover::{Cause, Control, Event, PutData, Window};
use iscsi_pdu::{
    DataIn, DataSn, EncodeError, Itt, Pdu, Residual, ScsiResponse, ScsiStatus, SegmentLen, ServiceResponse,
    SnackTag, StatSn, Ttt,
};

/// A Put_Data on its way.
pub(crate) struct Put {
    put: PutData,
    /// Bytes made into PDUs.
    done: usize,
    /// Of these, bytes of the current sequence.
    in_burst: usize,
    /// Status that the last PDU takes along.
    status: Option<Status>,
}

struct Status {
    status: ScsiStatus,
    residual: Residual,
    stat_sn: StatSn,
}

impl Put {
    pub(crate) fn new(put: PutData) -> Self {
        Self { put, done: 0, in_burst: 0, status: None }
    }

    pub(crate) fn itt(&self) -> Itt {
        self.put.itt
    }

    fn begun(&self) -> bool {
        self.done > 0
    }

    /// Whether nothing of it was made, and nothing of its task comes after it.
    fn is_all(&self) -> bool {
        self.done == 0 && self.status.is_some() && self.put.resume.is_none()
    }
}

/// Target.
impl TcpCore {
    pub(crate) fn queue_put(&mut self, put: PutData) {
        if put.data.is_empty() {
            if put.notify {
                self.completed(put.itt, put.offset);
            }
            return;
        }
        // Without recovery, the numbers begin with the first PDU that is not the task's only one.
        if put.resume.is_some() || self.keys.error_recovery_level > 0 {
            let numbers = self.open_numbers(put.itt);
            if let Some(sn) = put.resume.filter(|_| numbers.is_untouched()) {
                numbers.resume(sn);
            }
        }
        self.stats.data_out = self.stats.data_out.saturating_add(put.data.len() as u64);
        let at = self.tx.queue.len();
        self.tx.insert_put(at, Put::new(put));
    }

    /// Lets the status travel with the task's last Data-In, if that is the last thing queued and has not been made
    /// yet. Anything queued behind it could carry a StatSN that must not overtake.
    ///
    /// At ErrorRecoveryLevel 0 only: above it, a response can be asked for again by its StatSN.
    // req: 7143-11.7.3-1, 7143-11.7.3-2, 7143-11.7.3-3
    pub(crate) fn fuse(&mut self, r: &ScsiResponse) -> bool {
        let plain = r.response == ServiceResponse::Completed
            && matches!(r.status, ScsiStatus::Good | ScsiStatus::ConditionMet)
            && r.status_qualifier == 0
            && r.snack_tag == SnackTag::default()
            && r.bidirectional_read_residual == Residual::None
            && r.data.is_empty();
        if !plain || self.keys.error_recovery_level > 0 {
            return false;
        }
        match self.tx.queue.back_mut() {
            Some(Item::Put(put)) if put.put.itt == r.itt && put.status.is_none() => {
                if self.numbering.get_mut(r.itt).is_some_and(|n| n.asks) {
                    return false;
                }
                put.status = Some(Status { status: r.status, residual: r.residual, stat_sn: r.stat_sn });
                true
            }
            _ => false,
        }
    }

    /// Makes the next Data-In of a Put.
    // req: 5047-10.3.5.2-1, 7143-11.7.1-2, 7143-11.7.1-3, 7143-11.7.7-2
    pub(crate) fn make_data_in(&mut self, mut put: Put) -> Result<(), EncodeError> {
        let left = put.put.data.len().saturating_sub(put.done);
        let burst = (self.keys.max_burst_length as usize).max(1).saturating_sub(put.in_burst);
        let longest = (self.keys.max_send_data_segment_length as usize).clamp(4, 0x00ff_ffff);
        let mut len = left.min(burst).min(longest);
        let last = len == left;
        let final_pdu = last || len == burst;
        if !final_pdu {
            len &= !3;
        }
        let offset = put.put.offset.wrapping_add(u32::try_from(put.done).unwrap_or(u32::MAX));
        // All input of a task and its status in one PDU: nothing is to be remembered of it.
        let only = last && put.is_all() && self.keys.error_recovery_level == 0;
        let data_sn = if only {
            DataSn(self.numbering.get_mut(put.put.itt).map_or(0, |n| n.next))
        } else {
            self.number(&put, offset, len)
        };
        // req: 7143-11.7.2-3, 7143-11.7.4-1
        let acknowledge = last && put.put.ack && self.keys.error_recovery_level > 0;
        let ttt = if acknowledge { self.ask_ack(put.put.itt, data_sn.next()) } else { Ttt::NONE };
        let status = if last { put.status.as_ref() } else { None };
        if self.keys.error_recovery_level > 0 {
            let data = put.put.data.slice(put.done, len);
            let sent = Sent::DataIn { sn: data_sn, lun: put.put.lun, offset, final_pdu, ttt, data };
            let numbers = self.numbering.entry(put.put.itt);
            numbers.sent.push_back(sent);
            numbers.kept = numbers.kept.saturating_add(len);
        }
        let pdu = Pdu::DataIn(DataIn {
            final_pdu,
            acknowledge: !ttt.is_none(),
            status: status.map(|s| s.status),
            residual: status.map_or(Residual::None, |s| s.residual),
            lun: put.put.lun,
            itt: put.put.itt,
            ttt,
            stat_sn: status.map_or(StatSn(0), |s| s.stat_sn),
            exp_cmd_sn: self.window.exp_cmd_sn,
            max_cmd_sn: self.window.max_cmd_sn,
            data_sn,
            buffer_offset: offset,
            data: Length(len),
        });
        self.make(&pdu, len, put.put.data.pieces(put.done, len))?;
        put.done = put.done.saturating_add(len);
        put.in_burst = if final_pdu { 0 } else { put.in_burst.saturating_add(len) };
        if !last {
            self.tx.queue.push_front(Item::Put(put));
            return Ok(());
        }
        if put.status.is_some() {
            self.forget_numbers(put.put.itt);
        }
        self.tx.put_done(put.put.notify.then_some((put.put.itt, put.put.offset)));
        Ok(())
    }
}

/// Target.
impl TcpCore {
    /// The DataSN of the next Data-In of a Put, `len` bytes from `offset` on.
    fn number(&mut self, put: &Put, offset: u32, len: usize) -> DataSn {
        let numbers = self.numbering.entry(put.put.itt);
        if !put.begun()
            && let Some(sn) = put.put.resume
        {
            numbers.resume(sn);
        }
        let data_sn = DataSn(numbers.next);
        numbers.end = offset.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
        numbers.next = numbers.next.wrapping_add(1);
        numbers.data_ins = numbers.data_ins.wrapping_add(1);
        data_sn
    }
}

/// Initiator.
impl TcpCore {
    /// Where the data of a Data-In goes. Everything is checked before the first byte is placed.
    // req: 5047-8.2-4, 5047-10.4.2.2-1, 7143-7.9-1, 7143-11.7.6-1, 7143-11.7.6-2
    pub(crate) fn begin_data_in(&mut self, d: &DataIn<SegmentLen>) -> Result<To, Cause> {
        self.learn(Window { exp_cmd_sn: d.exp_cmd_sn, max_cmd_sn: d.max_cmd_sn, ..self.seen });
        let in_order = self.keys.data_pdu_in_order && self.keys.data_sequence_in_order;
        let recovers = self.keys.error_recovery_level > 0;
        // Late data of a task that was given up is dropped.
        let Some(task) = self.tasks.get_mut(d.itt) else { return Ok(To::Skip) };
        // req: 7143-11.16.3-1
        if task.is_discarded(d.data_sn) {
            return Ok(To::Skip);
        }
        task.restart(d.data_sn);
        // req: 7143-7.9-5
        if recovers && task.holes.arrival(d.data_sn.0) == Arrival::Again {
            return Ok(To::Skip);
        }
        if !recovers && !task.is_next(d.data_sn.0, task.data_ins) {
            return Err(Cause::Protocol("a Data-In is missing: DataSN out of order (RFC 7143 section 7.9)"));
        }
        let Some(buffer) = &task.buffers.r#in else {
            return if d.data.data == 0 { Ok(To::Skip) } else { Err(NO_ROOM) };
        };
        // In 64 bits: offset and length are the peer's.
        let end = u64::from(d.buffer_offset).saturating_add(u64::from(d.data.data));
        if end > buffer.len() as u64 {
            return Err(NO_ROOM);
        }
        if in_order && !recovers && u64::from(d.buffer_offset) < task.next_offset {
            return Err(Cause::Protocol("Data-In out of order (RFC 7143 section 11.7.6)"));
        }
        Ok(To::In { itt: d.itt, at: d.buffer_offset as usize })
    }

    /// A Data-In that has been placed; `intact` says whether its digest matched.
    pub(crate) fn finish_data_in(&mut self, d: DataIn<SegmentLen>, intact: bool) -> Result<(), Cause> {
        if self.keys.error_recovery_level > 0 {
            self.note(d.itt, d.data_sn.0, intact);
        }
        if !intact {
            return Ok(());
        }
        // It may be what showed that all is to come anew: then it is discarded too.
        if let Some(task) = self.tasks.get_mut(d.itt).filter(|t| !t.stale) {
            let len = u64::from(d.data.data);
            task.data_ins = task.data_ins.wrapping_add(1);
            task.received = task.received.map(|n| n.saturating_add(len));
            task.next_offset = u64::from(d.buffer_offset).saturating_add(len);
            self.stats.data_in = self.stats.data_in.saturating_add(len);
            // req: 7143-11.7.2-4
            if d.acknowledge && self.keys.error_recovery_level > 0 {
                task.ack = Some((d.lun, d.ttt, d.data_sn.next()));
            }
            self.acknowledge(d.itt);
        }
        self.finish_status(&d)
    }

    /// The status that a Data-In may carry. That of a task that was given up goes up too: it is numbered.
    // req: 7143-11.7-2
    pub(crate) fn finish_status(&mut self, d: &DataIn<SegmentLen>) -> Result<(), Cause> {
        let Some(status) = d.status else {
            self.release();
            return Ok(());
        };
        let exp_data_sn = self.tasks.get_mut(d.itt).map_or(DataSn(0), |t| DataSn(t.data_ins));
        self.receive_response(ScsiResponse {
            response: ServiceResponse::Completed,
            status,
            itt: d.itt,
            stat_sn: d.stat_sn,
            exp_cmd_sn: d.exp_cmd_sn,
            max_cmd_sn: d.max_cmd_sn,
            exp_data_sn,
            residual: d.residual,
            data: Bytes::new(),
            ..ScsiResponse::default()
        })
    }

    /// Delivers a response with the task's buffers, after a look at whether all data came.
    // req: 5047-8.9-4, 7143-7.9-1, 7143-7.8-9
    pub(crate) fn finish_response(&mut self, mut r: ScsiResponse) -> Result<(), Cause> {
        let Some(task) = self.tasks.remove(r.itt) else {
            self.events.push_back(Event::Control(r.into()));
            return Ok(());
        };
        let good = r.response == ServiceResponse::Completed
            && matches!(r.status, ScsiStatus::Good | ScsiStatus::ConditionMet);
        if let (true, Some(error)) = (good, task.failed) {
            if !task.told {
                self.tell_failure(r.itt, error);
            }
        } else if let (true, Some(received)) = (good, task.received) {
            let residual =
                if task.bidirectional { &mut r.bidirectional_read_residual } else { &mut r.residual };
            let short = match *residual {
                Residual::Underflow(n) => n,
                _ => 0,
            };
            let missing = u64::from(task.expected).saturating_sub(received).saturating_sub(u64::from(short));
            // Targets in the field leave ExpDataSN at 0, or count R2Ts too.
            let count = r.exp_data_sn.0;
            let counted = [0, task.data_ins, task.data_ins.wrapping_add(task.r2ts)].contains(&count);
            if missing > 0 && !counted {
                // The connection ends, and the task with it: its buffers come back as all others do.
                self.tasks.restore(r.itt, task);
                return Err(Cause::Protocol("Data-In is missing: ExpDataSN (RFC 7143 section 7.9)"));
            }
            if missing > 0 && task.expected > 0 && (task.bidirectional || task.buffers.out.is_none()) {
                // GOOD, with less data than expected and no word about it: what lies in the rest of the buffer is
                // not the command's input, and the caller must know.
                let all = u64::from(task.expected).saturating_sub(received);
                *residual = Residual::Underflow(u32::try_from(all).unwrap_or(u32::MAX));
            }
        }
        let control = Control { pdu: r.into(), buffers: task.buffers, unsolicited: 0 };
        self.events.push_back(Event::Control(control));
        Ok(())
    }
}

const NO_ROOM: Cause = Cause::Protocol("Data-In beyond the task's buffer (RFC 7143 section 11.7.6)");
