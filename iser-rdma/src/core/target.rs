//! The target: Put_Data becomes RDMA Write, Get_Data becomes RDMA Read.

use super::tx::{Draft, NoMessage, TxKind};
use super::{IserDatamover, State, copy_list, data_event, wr_id};
use crate::flow::ReadOp;
use crate::maps::{RemoteTask, Slab};
use crate::quirks::{self, WriteBase};
use crate::rcap::{Op, Rcap, RemoteBuf, WrError, WrId};
use crate::wire::{ControlHeader, IserHeader};
use bytes::Bytes;
use datamover::{Control, DataError, Event, Full, GetData, PutData, Reclaimed, Role, SgList, SgListMut};
use iscsi_pdu::{Ahs, DataOut, Itt, Pdu, ScsiCommand, ScsiResponse, TaskMgmtFunction, TaskMgmtRequest};

/// What a work request of the target stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum OpKind {
    /// The last Write of a Put_Data whose end somebody wants to hear of.
    Put { itt: Itt, offset: u32, notify: bool, ack: bool },
    /// A Read of a Get_Data.
    Read { transfer: usize, index: u32 },
    /// The Read of no bytes behind a Put_Data.
    Ack { itt: Itt },
}

/// A Get_Data in progress.
#[derive(Debug)]
pub(super) struct Transfer {
    itt: Itt,
    serial: u64,
    offset: u32,
    /// Reads that have not ended.
    left: u32,
    /// The memory of those that have, with their place.
    ended: Vec<(u32, SgListMut)>,
    /// The caller's memory, when the Reads go elsewhere.
    bounced: Option<SgListMut>,
    result: Result<(), DataError>,
}

impl Transfer {
    /// The memory as it was handed down.
    fn memory(&mut self) -> SgListMut {
        let mut ended = std::mem::take(&mut self.ended);
        if ended.len() == 1 {
            return ended.pop().map(|(_, list)| list).unwrap_or_default();
        }
        ended.sort_unstable_by_key(|(index, _)| *index);
        ended.into_iter().flat_map(|(_, list)| list.into_parts()).collect()
    }
}

impl<R: Rcap> IserDatamover<R> {
    // req: 7145-3.1.1-1, 7145-5.2.2-2, 7145-7.3.2-4, 7145-7.3.3-1, 7145-7.3.7-2, 7145-7.3.8-2, 7145-7.3.10-1
    // req: 7145-7.3.12-2, 7145-7.3.13-2
    pub(super) fn send_response(&mut self, mut control: Control) -> Result<(), Full<Control>> {
        match self.state {
            State::Open => {}
            State::Draining | State::Closing => return Ok(()),
            State::Closed => return Err(Full(control)),
        }
        let refused = match &control.pdu {
            // req: 7145-7.3.9-3
            Pdu::LoginResponse(_) | Pdu::DataIn(_) | Pdu::R2t(_) => true,
            other => other.opcode().is_from_initiator(),
        };
        if refused {
            self.fail_protocol("Send_Control with a PDU that does not travel over iSER (RFC 7145 7.3)");
            return Err(Full(control));
        }
        if self.controls >= self.control_limit {
            return Err(Full(control));
        }
        control.pdu = quirks::fit(control.pdu, self.quirks.response_data(&self.keys));
        let draft = match Draft::new(&self.rcap, &control.pdu) {
            Ok(draft) => draft,
            Err(NoMessage::Full) => return Err(Full(control)),
            Err(NoMessage::Unfit) => {
                self.fail_protocol("a PDU that cannot be encoded (RFC 7143 section 11)");
                return Ok(());
            }
        };
        if let Some(exp) = control.pdu.exp_cmd_sn() {
            self.unexpected.retire(exp.0);
        }
        let (header, invalidate, kind) = match &control.pdu {
            Pdu::ScsiResponse(p) => self.conclude(p),
            _ => (ControlHeader::default(), None, TxKind::Control),
        };
        let message = draft.finish(IserHeader::Control(header));
        self.queue(Op::Send { message, invalidate }, kind);
        Ok(())
    }

    /// What the message of a SCSI Response says of the task's STags; ends the task's Remote Mapping.
    // req: 7145-7.3.2-4, 7145-7.3.2-5, 7145-7.3.2-6, 7145-7.3.2-7, 7145-7.3.2-8, 7145-7.3.2-9, 7145-1.5.2-3
    fn conclude(&mut self, response: &ScsiResponse<Bytes>) -> (ControlHeader, Option<crate::Stag>, TxKind) {
        let itt = response.itt;
        let none = (ControlHeader::default(), None, TxKind::Control);
        let Some(task) = self.remote.get(itt) else { return none };
        let (read, write) = (task.read, task.write);
        let remote_invalidation = self.rcap.caps().send_invalidate;
        self.cancel_reads(itt, DataError::Cancelled);
        let kind = match self.remote.get(itt) {
            Some(task) if task.gets > 0 => TxKind::Response(itt),
            _ => {
                self.remote.remove(itt);
                TxKind::Control
            }
        };
        match read.or(write) {
            // One STag fits: the Read STag of a bidirectional command.
            Some(first) if remote_invalidation => (ControlHeader::default(), Some(first.stag), kind),
            _ => (ControlHeader { read, write }, None, kind),
        }
    }

    /// A SCSI Command arrived: its Remote Mapping.
    // req: 7145-7.3.1-13
    pub(super) fn command(&mut self, header: ControlHeader, command: &ScsiCommand<Bytes>) -> bool {
        if self.remote.get(command.itt).is_some() {
            // A tag in use: the session rejects the command; the task that has the tag goes on.
            return true;
        }
        if self.remote.len() >= self.max_tasks {
            self.fail_protocol("more commands than the window and the unexpected PDUs allow (RFC 7145 8.1)");
            return false;
        }
        let edtl = command.expected_data_transfer_length;
        let bidi = command.ahs.iter().find_map(|a| match a {
            Ahs::BidirectionalReadLength(n) => Some(*n),
            _ => None,
        });
        let read_len = match (command.read, command.write) {
            (true, true) => bidi.unwrap_or(0),
            (true, false) => edtl,
            _ => 0,
        };
        let write_len = if command.write { edtl } else { 0 };
        let immediate = u32::try_from(command.data.len()).unwrap_or(u32::MAX);
        // F=0: unsolicited Data-Out follow, up to FirstBurstLength in all (RFC 7143 section 13.14).
        let unsolicited = if command.final_pdu {
            immediate
        } else {
            write_len.min(self.keys.first_burst_length).max(immediate)
        };
        let write_skip = match self.quirks.write_base(&self.keys) {
            WriteBase::Solicited => unsolicited.min(write_len),
            WriteBase::Whole => 0,
        };
        self.map(command.itt, header, read_len, write_len, write_skip);
        true
    }

    /// The last unsolicited Data-Out says how far the unsolicited data goes.
    pub(super) fn unsolicited(&mut self, out: &DataOut<Bytes>) {
        let solicited_only = self.quirks.write_base(&self.keys) == WriteBase::Solicited;
        let Some(task) = self.remote.get_mut(out.itt).filter(|_| out.final_pdu && solicited_only) else {
            return;
        };
        let len = u32::try_from(out.data.len()).unwrap_or(u32::MAX);
        task.write_skip = out.buffer_offset.saturating_add(len).min(task.write_len);
    }

    fn map(&mut self, itt: Itt, header: ControlHeader, read_len: u32, write_len: u32, write_skip: u32) {
        self.serial = self.serial.wrapping_add(1);
        let task = RemoteTask {
            serial: self.serial,
            read: header.read.filter(|_| read_len > 0),
            read_len,
            write: header.write.filter(|_| write_len > 0),
            write_len,
            write_skip,
            gets: 0,
            ending: false,
            reclaimed: Vec::new(),
        };
        self.remote.insert(itt, task);
    }

    /// TASK REASSIGN arrived: new STags and Base Offsets for the task that it names.
    // req: 7145-7.3.3-9, 7145-7.3.3-10, 7145-7.3.3-11
    pub(super) fn reassigned(&mut self, header: ControlHeader, request: &TaskMgmtRequest) -> bool {
        if request.function != TaskMgmtFunction::TaskReassign {
            return true;
        }
        let itt = request.referenced_task_tag;
        self.cancel_reads(itt, DataError::Cancelled);
        if self.remote.get(itt).is_none() && self.remote.len() >= self.max_tasks {
            self.fail_protocol("more commands than the window and the unexpected PDUs allow (RFC 7145 8.1)");
            return false;
        }
        // The lengths are the task's, which this connection may never have heard: the session keeps to them, and
        // the peer's STags bound the access in any case.
        match self.remote.get_mut(itt) {
            Some(task) => {
                (task.read, task.write, task.write_skip) = (header.read, header.write, 0);
            }
            None => self.map(itt, header, u32::MAX, u32::MAX, 0),
        }
        true
    }

    /// Whether Put_Data and Get_Data have a place here: at a target whose connection has not ended.
    fn may_transfer(&mut self) -> bool {
        if self.role == Role::Initiator {
            self.fail_protocol("Put_Data or Get_Data at an initiator (RFC 5047 sections 8.2, 8.3)");
            return false;
        }
        self.state != State::Closed
    }

    /// Put_Data becomes RDMA Writes, one for each piece that the provider takes at a time.
    // req: 7145-3.1.2-1, 7145-7.3.5-2, 7145-7.3.5-3, 7145-7.3.5-4, 7145-7.3.5-5, 7145-7.3.5-6, 7145-7.3.5-7
    pub(super) fn put(&mut self, put: PutData) -> Result<(), Full<PutData>> {
        if !self.may_transfer() {
            return Err(Full(put));
        }
        let (itt, offset, notify) = (put.itt, put.offset, put.notify);
        let task = if self.state == State::Open { self.remote.get(itt).filter(|t| !t.ending) } else { None };
        let Some(task) = task else {
            // The task ended meanwhile, or the connection.
            if notify {
                self.event(data_event(itt, offset, None, Err(DataError::Cancelled)));
            }
            return Ok(());
        };
        if put.data.is_empty() {
            if notify {
                self.event(data_event(itt, offset, None, Ok(())));
            }
            return Ok(());
        }
        let end = u64::from(offset).saturating_add(put.data.len() as u64);
        let to = task.read.filter(|_| end <= u64::from(task.read_len)).and_then(|b| b.advance(offset.into()));
        let (Some(to), Some(base)) = (to, task.read) else {
            self.fail_protocol("Put_Data outside of what the command advertised (RFC 7145 7.3.5)");
            return Ok(());
        };
        if self.tx.len() >= self.tx_limit {
            return Err(Full(put));
        }
        let Some(data) = self.reachable_data(&put.data) else { return Err(Full(put)) };
        self.stats.data_out += data.len() as u64;
        // req: 7145-7.3.5-10, 7145-7.3.5-11, 7145-7.3.5-13, 7145-7.3.5-14
        let by_read = put.ack && self.keys.error_recovery_level >= 2;
        let by_completion = put.ack && !by_read;
        let (max_parts, max_len) = (self.rcap.caps().max_sge, self.rcap.caps().max_transfer);
        let mut at = 0usize;
        while at < data.len() {
            let piece = head_of(&data, at, max_parts, max_len);
            let to = to.advance(at as u64).unwrap_or(to);
            at = at.saturating_add(piece.len().max(1));
            let last = at >= data.len();
            // req: 7145-7.1-1, 7145-7.1-2, 7145-7.3.5-8, 7145-7.3.5-9, 7145-3.2.2-1
            let id = (last && (notify || by_completion))
                .then(|| wr_id(self.ops.insert(OpKind::Put { itt, offset, notify, ack: by_completion })));
            let kind = if last && by_read { TxKind::PutThenRead(itt, base) } else { TxKind::Put(itt) };
            self.queue(Op::Write { id, data: piece, to }, kind);
        }
        Ok(())
    }

    /// The list, or a copy in the pool when the provider cannot reach all of it; `None` when the pool is used up.
    fn reachable_data(&mut self, data: &SgList) -> Option<SgList> {
        if data.parts().all(|p| self.rcap.is_local(p)) {
            return Some(data.clone());
        }
        let mut bounce = self.rcap.pool().alloc(data.len())?;
        let mut at = 0usize;
        for part in data.parts() {
            at = at.saturating_add(bounce.copy_from(at, part));
        }
        self.stats.bounced_bytes += at as u64;
        Some(bounce.freeze())
    }

    /// The Read of no bytes whose completion says that the data before it is in place.
    // req: 7145-7.3.5-11
    pub(super) fn ack_read(&mut self, itt: Itt, from: RemoteBuf) {
        if self.reads.ord() == 0 {
            return self.no_reads();
        }
        let id = wr_id(self.ops.insert(OpKind::Ack { itt }));
        self.reads.push(ReadOp { id, from, into: SgListMut::new() });
    }

    // req: 7145-7.3.6-4, 7145-7.3.6-5
    fn no_reads(&mut self) {
        self.fail_protocol("an RDMA Read is needed and iSER-ORD is 0 (RFC 7145 7.3.6)");
    }

    /// Get_Data becomes RDMA Reads. Its completion is always told, as if Notify_Enable were set: it carries the
    /// memory back.
    // req: 7145-3.1.3-1, 7145-7.3.6-2, 7145-7.3.6-3, 7145-7.3.6-6, 7145-7.3.6-8, 7145-7.3.6-9, 7145-7.3.6-10
    // req: 7145-7.3.6-11, 7145-7.3.6-12, 7145-7.3.6-13, 7145-7.3.6-14
    pub(super) fn get(&mut self, get: GetData) -> Result<(), Full<GetData>> {
        if !self.may_transfer() {
            return Err(Full(get));
        }
        let (itt, offset) = (get.itt, get.offset);
        let open = self.state == State::Open;
        let task = if open { self.remote.get(itt).filter(|t| !t.ending) } else { None };
        let Some(task) = task else {
            self.event(data_event(itt, offset, Some(get.into), Err(DataError::Cancelled)));
            return Ok(());
        };
        if get.into.is_empty() {
            self.event(data_event(itt, offset, Some(get.into), Ok(())));
            return Ok(());
        }
        let end = u64::from(offset).saturating_add(get.into.len() as u64);
        let serial = task.serial;
        let from = task
            .write
            .filter(|_| end <= u64::from(task.write_len))
            .zip(offset.checked_sub(task.write_skip))
            .and_then(|(base, by)| base.advance(by.into()));
        let Some(from) = from else {
            self.event(data_event(itt, offset, Some(get.into), Err(DataError::Access)));
            self.fail_protocol("Get_Data outside of what the command advertised (RFC 7145 7.3.6)");
            return Ok(());
        };
        if self.reads.ord() == 0 {
            self.event(data_event(itt, offset, Some(get.into), Err(DataError::Access)));
            self.no_reads();
            return Ok(());
        }
        let (into, bounced) = if get.into.parts().all(|p| self.rcap.is_local(p)) {
            (get.into, None)
        } else {
            match self.rcap.pool().alloc(get.into.len()) {
                Some(bounce) => (bounce, Some(get.into)),
                None => return Err(Full(get)),
            }
        };
        let transfer = Transfer { itt, serial, offset, left: 0, ended: Vec::new(), bounced, result: Ok(()) };
        let transfer = self.transfers.insert(transfer);
        if let Some(task) = self.remote.get_mut(itt) {
            task.gets = task.gets.saturating_add(1);
        }
        self.queue_reads(transfer, from, into);
        Ok(())
    }

    /// Cuts the memory into Reads of as many parts as the provider takes.
    fn queue_reads(&mut self, transfer: usize, from: RemoteBuf, into: SgListMut) {
        let max_parts = self.rcap.caps().max_read_sge.max(1);
        let max_len = self.rcap.caps().max_transfer;
        let (mut at, mut index) = (0u64, 0u32);
        let mut parts = into.into_parts().peekable();
        while let Some(first) = parts.next() {
            let mut piece = SgListMut::from(first);
            let mut count = 1usize;
            while count < max_parts
                && let Some(next) = parts.next_if(|p| piece.len().saturating_add(p.len()) <= max_len)
            {
                piece.push(next);
                count = count.saturating_add(1);
            }
            let len = piece.len() as u64;
            let id = wr_id(self.ops.insert(OpKind::Read { transfer, index }));
            self.reads.push(ReadOp { id, from: from.advance(at).unwrap_or(from), into: piece });
            at = at.saturating_add(len);
            index = index.saturating_add(1);
        }
        if let Some(t) = self.transfers.get_mut(transfer) {
            t.left = index;
        }
    }

    /// A work request ended.
    pub(super) fn op_done(&mut self, id: WrId, sink: Option<SgListMut>, result: Result<(), WrError>) {
        let Some(kind) = self.ops.remove(Slab::<OpKind>::slot(id)) else { return };
        match kind {
            OpKind::Put { itt, offset, notify, ack } => {
                if ack && result.is_ok() {
                    self.event(Event::DataAck { itt, exp_data_sn: None });
                }
                if notify {
                    self.event(data_event(itt, offset, None, result.map_err(data_error)));
                }
            }
            // req: 7145-7.3.5-12, 7145-3.2.3-1
            OpKind::Ack { itt } => {
                self.reads.on_done();
                if result.is_ok() {
                    self.event(Event::DataAck { itt, exp_data_sn: None });
                }
            }
            OpKind::Read { transfer, index } => {
                self.reads.on_done();
                self.read_ended(transfer, index, sink.unwrap_or_default(), result.map_err(data_error));
            }
        }
    }

    fn read_ended(&mut self, at: usize, index: u32, sink: SgListMut, result: Result<(), DataError>) {
        let Some(transfer) = self.transfers.get_mut(at) else { return };
        transfer.ended.push((index, sink));
        transfer.left = transfer.left.saturating_sub(1);
        transfer.result = transfer.result.and(result);
        // The buffers of a transfer that failed with its connection go back with the end of the connection.
        if transfer.left > 0 || matches!(transfer.result, Err(DataError::Access)) {
            return;
        }
        if let Some(transfer) = self.transfers.remove(at) {
            self.transfer_ended(transfer);
        }
    }

    /// All Reads of a transfer ended: the memory goes back.
    // req: 7145-7.3.6-15, 7145-3.2.2-1, 7145-8.3.2-4
    fn transfer_ended(&mut self, mut transfer: Transfer) {
        let list = transfer.memory();
        let data = match transfer.bounced.take() {
            Some(mut original) => {
                if transfer.result.is_ok() {
                    self.stats.bounced_bytes += copy_list(&list, &mut original) as u64;
                }
                original
            }
            None => list,
        };
        if transfer.result.is_ok() {
            self.stats.data_in += data.len() as u64;
        }
        let Transfer { itt, offset, serial, result, .. } = transfer;
        let task = self.remote.get_mut(itt).filter(|t| t.serial == serial);
        let Some(task) = task else {
            self.event(data_event(itt, offset, Some(data), result));
            return;
        };
        task.gets = task.gets.saturating_sub(1);
        if !task.ending {
            self.event(data_event(itt, offset, Some(data), result));
            return;
        }
        task.reclaimed.push((offset, data));
        self.end_if_quiet(itt);
    }

    /// Takes back the Reads of a task that have not gone out.
    fn cancel_reads(&mut self, itt: Itt, why: DataError) {
        let Some(serial) = self.remote.get(itt).filter(|t| t.gets > 0).map(|t| t.serial) else { return };
        let (ops, transfers) = (&self.ops, &self.transfers);
        let taken = self.reads.take(|id| match ops.get(Slab::<OpKind>::slot(id)) {
            Some(OpKind::Read { transfer, .. }) => {
                transfers.get(*transfer).is_some_and(|t| t.serial == serial)
            }
            _ => false,
        });
        for read in taken {
            if let Some(OpKind::Read { transfer, index }) = self.ops.remove(Slab::<OpKind>::slot(read.id)) {
                self.read_ended(transfer, index, read.into, Err(why));
            }
        }
    }

    // req: 7145-3.1.9-1, 7145-8.3.2-6, 7145-8.3.2-7
    pub(super) fn deallocate_remote(&mut self, itt: Itt) {
        let Some(task) = self.remote.get_mut(itt) else {
            return self.event(Event::TaskReclaimed { itt, reclaimed: Reclaimed::default() });
        };
        task.ending = true;
        // Writes that have not gone out need not go out any more, and nobody is told of their end.
        let ops = &mut self.ops;
        self.tx.retain(|t| {
            let dropped = matches!(t.kind, TxKind::Put(i) | TxKind::PutThenRead(i, _) if i == itt);
            if dropped && let Op::Write { id: Some(id), .. } = t.op {
                ops.remove(Slab::<OpKind>::slot(id));
            }
            !dropped
        });
        self.cancel_reads(itt, DataError::Cancelled);
        self.end_if_quiet(itt);
    }

    fn end_if_quiet(&mut self, itt: Itt) {
        if self.remote.get(itt).is_none_or(|t| !t.ending || t.gets > 0) {
            return;
        }
        if let Some(task) = self.remote.remove(itt) {
            let reclaimed = Reclaimed { gets: task.reclaimed, ..Reclaimed::default() };
            self.event(Event::TaskReclaimed { itt, reclaimed });
        }
    }

    /// The connection ended: memory of all transfers, by task.
    pub(super) fn reclaim_gets(&mut self, reclaimed: &mut Vec<(Itt, Reclaimed)>) {
        for read in self.reads.take(|_| true) {
            if let Some(OpKind::Read { transfer, index }) = self.ops.remove(Slab::<OpKind>::slot(read.id))
                && let Some(t) = self.transfers.get_mut(transfer)
            {
                t.ended.push((index, read.into));
            }
        }
        let mut gets: Vec<_> = self.remote.drain().into_iter().map(|(itt, t)| (itt, t.reclaimed)).collect();
        for mut transfer in self.transfers.drain() {
            let list = transfer.memory();
            let data = transfer.bounced.take().unwrap_or(list);
            let entry = (transfer.offset, data);
            match gets.iter_mut().find(|(itt, _)| *itt == transfer.itt) {
                Some((_, list)) => list.push(entry),
                None => gets.push((transfer.itt, vec![entry])),
            }
        }
        let some = gets.into_iter().filter(|(_, gets)| !gets.is_empty());
        reclaimed.extend(some.map(|(itt, gets)| (itt, Reclaimed { gets, ..Reclaimed::default() })));
    }
}

fn data_error(error: WrError) -> DataError {
    match error {
        WrError::RemoteAccess | WrError::Flushed => DataError::Access,
    }
}

/// The bytes from `at` on that one Write takes.
fn head_of(data: &SgList, at: usize, max_parts: usize, max_len: usize) -> SgList {
    if at == 0 && data.len() <= max_len && data.parts().count() <= max_parts {
        return data.clone();
    }
    let mut piece = SgList::new();
    for part in data.slice(at, max_len.max(1)).parts().take(max_parts.max(1)) {
        piece.push(part.clone());
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_by_parts_and_by_length() {
        let list: SgList =
            ["ab", "cde", "f", "ghij"].iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
        let cut = |parts, len| {
            let (mut at, mut out) = (0, Vec::new());
            while at < list.len() {
                let piece = head_of(&list, at, parts, len);
                at += piece.len();
                out.push(String::from_utf8(piece.to_bytes().to_vec()).unwrap());
            }
            out
        };
        assert_eq!(cut(9, 99), ["abcdefghij"]);
        assert_eq!(cut(2, 99), ["abcde", "fghij"]);
        assert_eq!(cut(9, 4), ["abcd", "efgh", "ij"]);
        assert_eq!(cut(1, 2), ["ab", "cd", "e", "f", "gh", "ij"]);
    }
}
