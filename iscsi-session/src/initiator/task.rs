//! Commands at the initiator: from `submit` to the SCSI Command and its unsolicited data, and back to the completion.

use super::conn::Conn;
use super::{
    Command, Completion, Entry, InitiatorSession, Refusal, Refused, Status, TaskDone, TaskFailure, Timer,
};
use crate::action::{Action, ConnId, DownCall};
use crate::csm::ConnState;
use crate::device::TaskTag;
use crate::slab::Key;
use bytes::Bytes;
use datamover::{Control, SgList, TaskBuffers};
use iscsi_pdu::{Ahs, CmdSn, DataOut, DataSn, Itt, LogoutReason, Lun, Pdu, ScsiCommand, StatSn, Ttt};
use std::time::Instant;

/// Longest part of a CDB that an Extended CDB AHS holds: with the 16 bytes of the BHS, the 260 of a CDB.
const MAX_EXTENDED_CDB: usize = 244;

/// A command under way.
#[derive(Debug)]
pub(super) struct InitiatorTask {
    pub(super) conn: ConnId,
    pub(super) lun: Lun,
    pub(super) cmd_sn: CmdSn,
    pub(super) immediate: bool,
    pub(super) write: bool,
    /// It has a buffer for input.
    pub(super) read: bool,
    pub(super) stage: TaskStage,
    /// Pings sent before it was sent last.
    pub(super) turn: u64,
    /// Some of its input is lost on this connection: it does not end well.
    pub(super) input_lost: bool,
    /// A function that got no response was to end it: event 5 may tell that it did.
    pub(super) end_asked_for: bool,
    /// What sending it again takes, above ErrorRecoveryLevel 0.
    request: Option<Box<Request>>,
}

/// A command as it can be sent, apart from what depends on its connection.
#[derive(Clone, Debug)]
struct Request {
    pdu: ScsiCommand,
    out: SgList,
}

#[derive(Debug)]
pub(super) enum TaskStage {
    /// A response is awaited.
    Active,
    /// As `Active`, but its data transfer is stopped: its buffers are on their way back, or here.
    Stopped(Option<TaskBuffers>),
    /// It is to be reassigned: its buffers, and the first DataSN that did not come. Its connection is lost, or has no room
    /// for that yet.
    Suspended(TaskBuffers, DataSn),
    /// As `Suspended`, but its buffers are on their way back.
    Returning(DataSn),
    /// It is over, with this result, when its buffers are back.
    Ending(Result<Status, TaskFailure>),
}

impl InitiatorTask {
    /// Whether it is over, with a result, and only waits for its buffers.
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.stage, TaskStage::Ending(_))
    }

    /// Its connection is gone, and with it the transfer; what it did at the target is not known yet.
    pub(super) fn hold(&mut self, buffers: Option<TaskBuffers>) {
        match &mut self.stage {
            TaskStage::Active | TaskStage::Returning(_) => {
                self.stage = TaskStage::Stopped(Some(buffers.unwrap_or_default()));
            }
            TaskStage::Stopped(held) => *held = buffers.or(held.take()),
            TaskStage::Suspended(..) | TaskStage::Ending(_) => {}
        }
    }

    /// What is known already of a task whose connection is gone: its result, its buffers.
    pub(super) fn take_end(&mut self) -> (Option<Result<Status, TaskFailure>>, Option<TaskBuffers>) {
        match std::mem::replace(&mut self.stage, TaskStage::Stopped(None)) {
            TaskStage::Active | TaskStage::Returning(_) => (None, None),
            TaskStage::Stopped(buffers) => (None, buffers),
            TaskStage::Suspended(buffers, _) => (None, Some(buffers)),
            TaskStage::Ending(result) => (Some(result), None),
        }
    }
}

/// How a command's output leaves (RFC 7143 sections 11.3.4, 13.10, 13.11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unsolicited {
    immediate: usize,
    total: usize,
}

impl InitiatorSession {
    // Nothing here makes a SNACK or a Login Request.
    // req: 7145-7.3.9-1, 7145-7.3.11-1, 7145-3.3-4
    /// Sends a command on the connection that has the fewest.
    ///
    /// # Errors
    /// [`Refused`] hands the command back.
    // req: 7143-4.2.2.1-8, 7145-9.5.1-1, 7145-9.5.2-1
    pub fn submit(&mut self, now: Instant, command: Command) -> Result<TaskTag, Refused> {
        self.now = now;
        let refuse = |command, why| Err(Refused { command, why });
        if self.is_discovery() {
            return refuse(command, Refusal::Discovery);
        }
        let out = command.buffers.out.as_ref().map_or(0, |b| b.len());
        let input = command.buffers.r#in.as_ref().map_or(0, |b| b.len());
        let (Ok(write_length), Ok(read_length)) = (u32::try_from(out), u32::try_from(input)) else {
            return refuse(command, Refusal::TooLong);
        };
        if command.extended_cdb.len() > MAX_EXTENDED_CDB {
            return refuse(command, Refusal::TooLong);
        }
        let Some(id) = self.least_loaded() else { return refuse(command, Refusal::NoConnection) };
        // req: 7143-4.2.2.1-1, 7143-4.2.2.1-2
        let cmd_sn = if command.immediate {
            self.window.cmd_sn()
        } else {
            match self.window.take() {
                Some(cmd_sn) => cmd_sn,
                None => return refuse(command, Refusal::WindowClosed),
            }
        };
        let (write, read) = (command.buffers.out.is_some(), command.buffers.r#in.is_some());
        let task = InitiatorTask {
            conn: id,
            lun: command.lun,
            cmd_sn,
            immediate: command.immediate,
            write,
            read,
            stage: TaskStage::Active,
            turn: self.turn,
            input_lost: false,
            end_asked_for: false,
            request: None,
        };
        let Some(key) = self.entries.insert_with(|_| Entry::Task(task)) else {
            // 65535 tasks at once: the number taken is filled, lest it be a gap.
            if !command.immediate {
                self.plug(id, cmd_sn);
            }
            return refuse(command, Refusal::WindowClosed);
        };
        self.counters.commands += 1;
        if let Some(conn) = self.conn_mut(id) {
            conn.tasks += 1;
            conn.writes += usize::from(write);
        }
        self.send_command(id, key, cmd_sn, command, read_length, write_length);
        Ok(TaskTag(key.0))
    }

    pub(super) fn least_loaded(&self) -> Option<ConnId> {
        self.conns.iter().filter(|c| c.takes_commands()).min_by_key(|c| c.tasks).map(|c| c.id)
    }

    // req: 7145-7.3.1-2, 7145-7.3.1-3, 7145-7.3.1-4, 7145-7.3.1-8
    fn send_command(
        &mut self,
        id: ConnId,
        key: Key,
        cmd_sn: CmdSn,
        command: Command,
        read_length: u32,
        write_length: u32,
    ) {
        let (read, write) = (command.buffers.r#in.is_some(), command.buffers.out.is_some());
        let mut ahs = Vec::new();
        if !command.extended_cdb.is_empty() {
            ahs.push(Ahs::ExtendedCdb(command.extended_cdb));
        }
        if read && write {
            ahs.push(Ahs::BidirectionalReadLength(read_length));
        }
        let out = command.buffers.out.as_deref().cloned().unwrap_or_default();
        let itt = Itt(key.to_tag());
        let pdu = ScsiCommand {
            immediate: command.immediate,
            final_pdu: true,
            read,
            write,
            attr: command.attr,
            // req: 7144-5.1.1-1
            priority: if self.params.iscsi_protocol_level >= 2 { command.priority & 0x0f } else { 0 },
            lun: command.lun,
            itt,
            expected_data_transfer_length: if write { write_length } else { read_length },
            cmd_sn,
            exp_stat_sn: StatSn(0),
            cdb: command.cdb,
            ahs,
            data: Bytes::new(),
        };
        let request = Request { pdu, out };
        if self.params.error_recovery_level > 0
            && let Some(Entry::Task(task)) = self.entries.get_mut(key)
        {
            task.request = Some(Box::new(request.clone()));
        }
        self.transmit_request(id, request, command.buffers);
    }

    /// Sends a command once more, on the connection that it belongs to now: with its buffers if that is a new one.
    // req: 7143-7.2.1-3
    pub(super) fn transmit_command(&mut self, key: Key, buffers: TaskBuffers) {
        let Some(Entry::Task(task)) = self.entries.get(key) else { return };
        let id = task.conn;
        if let Some(request) = task.request.as_deref().cloned() {
            self.transmit_request(id, request, buffers);
            self.note_retry(id);
        }
    }

    // req: 7143-11.3.4-2
    fn transmit_request(&mut self, id: ConnId, request: Request, buffers: TaskBuffers) {
        let Request { mut pdu, out } = request;
        let plan = self.unsolicited(id, out.len());
        let exp_cmd_sn = self.numbers_are_kept().then(|| self.window.exp_cmd_sn());
        let Some(conn) = self.conn_mut(id) else { return };
        if pdu.immediate {
            conn.count_unexpected(pdu.cmd_sn);
        } else {
            conn.count_numbered(pdu.cmd_sn, exp_cmd_sn);
        }
        let exp_stat_sn = conn.exp_stat_sn;
        let segment = conn.keys.max_send_data_segment_length as usize;
        let itt = pdu.itt;
        pdu.final_pdu = plan.immediate == plan.total;
        pdu.exp_stat_sn = exp_stat_sn;
        pdu.data = out.slice(0, plan.immediate).to_bytes();
        let control = Control { pdu: pdu.into(), buffers, unsolicited: plan.total as u32 };
        self.actions.push_back(Action { conn: id, call: DownCall::SendControl(control) });
        self.send_unsolicited(id, itt, exp_stat_sn, &out, plan, segment);
    }

    /// How much of an output of `length` bytes goes without being asked for.
    // req: 7143-4.2.5.2-1, 7143-4.2.5.2-5, 7143-4.2.5.2-10, 7143-11.3.4-3, 7143-13.11-1, 7143-13.11-3, 7143-13.12-1
    fn unsolicited(&self, id: ConnId, length: usize) -> Unsolicited {
        let segment = self.conn(id).map_or(0, |c| c.keys.max_send_data_segment_length as usize);
        let first_burst = length.min(self.params.first_burst_length as usize);
        let immediate = if self.params.immediate_data { first_burst.min(segment) } else { 0 };
        let total =
            if !self.params.initial_r2t && self.cfg.unsolicited_data { first_burst } else { immediate };
        Unsolicited { immediate, total }
    }

    /// The Data-Out PDUs behind a command: all of them before the next command's, on its connection.
    // req: 7143-4.2.5.1-3, 7143-4.2.5.2-11, 7143-4.2.5.2-13, 7143-11.7.4-3, 7145-6.4-1, 7145-7.3.1-12, 7145-7.3.4-1, 7145-7.3.4-2
    // req: 7145-9.5.1-5, 7143-4.2.2.4-3, 7143-11.7.7-2
    fn send_unsolicited(
        &mut self,
        id: ConnId,
        itt: Itt,
        exp_stat_sn: StatSn,
        out: &SgList,
        plan: Unsolicited,
        segment: usize,
    ) {
        // Whole words, except on iSER, whose PDUs are exactly as long as the target's buffers.
        let segment = if self.params.rdma_extensions { segment } else { (segment & !3).max(4) };
        let (mut offset, mut data_sn) = (plan.immediate, DataSn(0));
        while offset < plan.total {
            let len = segment.min(plan.total - offset);
            let pdu = DataOut {
                final_pdu: offset + len == plan.total,
                lun: Lun::default(),
                itt,
                ttt: Ttt::NONE,
                exp_stat_sn,
                data_sn,
                buffer_offset: offset as u32,
                data: out.slice(offset, len).to_bytes(),
            };
            self.actions.push_back(Action { conn: id, call: DownCall::SendControl(pdu.into()) });
            data_sn = data_sn.next();
            offset += len;
        }
    }

    /// Ends a command with this result.
    pub(super) fn conclude(&mut self, key: Key, done: TaskDone) {
        let Some(Entry::Task(task)) = self.entries.remove(key) else { return };
        if let Some(conn) = self.conn_mut(task.conn) {
            conn.tasks = conn.tasks.saturating_sub(1);
            conn.writes = conn.writes.saturating_sub(usize::from(task.write));
        }
        if task.input_lost {
            self.timers.cancel(Timer::InputLost(key));
        }
        match done.result {
            Ok(_) => self.counters.responses += 1,
            Err(_) => self.counters.failures += 1,
        }
        self.completions.push_back(Completion::Task(done));
        self.task_is_over(key);
    }

    /// Ends a command that will get no response: it is over when its buffers are back.
    // req: 7145-8.3.2-1
    pub(super) fn end_task(&mut self, key: Key, failure: TaskFailure) {
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return };
        let id = task.conn;
        let leaves = self.conns.iter().any(|c| c.id == id && c.machine.state() == ConnState::InLogout);
        // An abort for lost input: the error is that.
        let crc = task.input_lost && failure == TaskFailure::Aborted;
        let result = if crc { Ok(Status::protocol_service_crc()) } else { Err(failure) };
        match std::mem::replace(&mut task.stage, TaskStage::Ending(result.clone())) {
            // What the target sent before a logout may still be under way, unacknowledged as it is, and the task ends with
            // its connection.
            TaskStage::Active if leaves => {}
            TaskStage::Active => {
                self.call(id, DownCall::DeallocateTaskResources(Itt(key.to_tag())));
            }
            TaskStage::Stopped(None) | TaskStage::Returning(_) => {}
            TaskStage::Stopped(Some(buffers)) | TaskStage::Suspended(buffers, _) => {
                self.conclude(key, TaskDone { tag: TaskTag(key.0), result, buffers });
            }
            // The first reason counts.
            TaskStage::Ending(first) => task.stage = TaskStage::Ending(first),
        }
    }

    /// Stops a command's data transfer; a response may still come.
    pub(super) fn stop_task(&mut self, key: Key) {
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return };
        if matches!(task.stage, TaskStage::Active) {
            task.stage = TaskStage::Stopped(None);
            let id = task.conn;
            self.call(id, DownCall::DeallocateTaskResources(Itt(key.to_tag())));
        }
    }

    /// Buffers of a command came back without a response, or have come before with one that waits for its turn.
    pub(super) fn on_reclaimed(&mut self, id: ConnId, itt: Itt, mut buffers: TaskBuffers) {
        let Some(key) = self.entry_of(id, itt) else { return };
        if buffers.is_none() {
            buffers = self.conn_mut(id).and_then(|c| c.ahead.take_buffers(itt)).unwrap_or_default();
        }
        let Some(Entry::Task(task)) = self.entries.get_mut(key) else { return };
        match &mut task.stage {
            TaskStage::Ending(result) => {
                let result = result.clone();
                self.conclude(key, TaskDone { tag: TaskTag(key.0), result, buffers });
            }
            // They may be here already, with a response that was not looked at.
            TaskStage::Stopped(Some(held)) if !held.is_none() => {}
            TaskStage::Stopped(held) => *held = Some(buffers),
            TaskStage::Returning(next) => task.stage = TaskStage::Suspended(buffers, *next),
            TaskStage::Active | TaskStage::Suspended(..) => {}
        }
    }

    /// Buffers came with a response that is not looked at: the command ends with its connection.
    pub(super) fn keep_buffers(&mut self, id: ConnId, itt: Itt, buffers: TaskBuffers) {
        let Some(key) = self.entries.key_of_tag(itt.0).filter(|_| !buffers.is_none()) else { return };
        if let Some(Entry::Task(task)) = self.entries.get_mut(key).filter(|e| e.conn() == id)
            && matches!(task.stage, TaskStage::Active)
        {
            task.stage = TaskStage::Stopped(None);
        }
        self.on_reclaimed(id, itt, buffers);
    }

    /// Tags of the commands for which `wanted` holds.
    pub(super) fn tasks_where(&self, wanted: impl Fn(&InitiatorTask) -> bool) -> Vec<Key> {
        self.entries
            .iter()
            .filter(|(_, e)| matches!(e, Entry::Task(t) if wanted(t)))
            .map(|(key, _)| key)
            .collect()
    }

    /// Sends a PDU of the initiator's own accord, immediate, now or when the target has room for it.
    pub(super) fn send_immediate(&mut self, id: ConnId, pdu: Pdu<Bytes>) {
        let cmd_sn = self.window.cmd_sn();
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        if !conn.may_send_unexpected() {
            conn.postponed.push_back(pdu);
            return;
        }
        conn.count_unexpected(cmd_sn);
        let pdu = numbered(pdu, cmd_sn, conn);
        let function = matches!(pdu, Pdu::TaskMgmtRequest(_)).then(|| pdu.itt());
        self.actions.push_back(Action { conn: id, call: DownCall::SendControl(pdu.into()) });
        if let Some(itt) = function {
            self.function_is_sent(itt, cmd_sn);
        }
    }

    /// Sends a PDU with a number of its own.
    pub(super) fn send_numbered(&mut self, id: ConnId, cmd_sn: CmdSn, pdu: Pdu<Bytes>) {
        let exp_cmd_sn = self.numbers_are_kept().then(|| self.window.exp_cmd_sn());
        let Some(conn) = self.conn_mut(id).filter(|c| c.open) else { return };
        conn.count_numbered(cmd_sn, exp_cmd_sn);
        let pdu = numbered(pdu, cmd_sn, conn);
        self.actions.push_back(Action { conn: id, call: DownCall::SendControl(pdu.into()) });
    }

    /// Sends what waited for room.
    pub(super) fn send_postponed(&mut self) {
        let exp = self.window.exp_cmd_sn();
        for index in 0..self.conns.len() {
            while let Some(conn) = self.conns.get_mut(index) {
                conn.retire_unexpected(exp);
                if !conn.may_send_unexpected() {
                    break;
                }
                let (id, Some(pdu)) = (conn.id, conn.postponed.pop_front()) else { break };
                let id = self.moved_to(&pdu).unwrap_or(id);
                self.send_immediate(id, pdu);
            }
        }
    }
}

/// Fills CmdSN and ExpStatSN in, for this connection to carry it.
// req: 7143-11.3.3-1, 7143-4.2.2.1-1
fn numbered(mut pdu: Pdu<Bytes>, cmd_sn: CmdSn, on: &Conn) -> Pdu<Bytes> {
    let exp_stat_sn = on.exp_stat_sn;
    match &mut pdu {
        Pdu::NopOut(p) => (p.cmd_sn, p.exp_stat_sn) = (cmd_sn, exp_stat_sn),
        Pdu::TaskMgmtRequest(p) => {
            // An immediate task is named by the function's own number (section 11.5.5), whatever that becomes.
            if p.ref_cmd_sn == p.cmd_sn && !p.referenced_task_tag.is_none() {
                p.ref_cmd_sn = cmd_sn;
            }
            (p.cmd_sn, p.exp_stat_sn) = (cmd_sn, exp_stat_sn);
        }
        Pdu::TextRequest(p) => (p.cmd_sn, p.exp_stat_sn) = (cmd_sn, exp_stat_sn),
        // Its ExpStatSN is that of the connection to be closed (section 11.14.4).
        Pdu::LogoutRequest(p) if p.reason != LogoutReason::CloseSession && p.cid != on.cid => {
            p.cmd_sn = cmd_sn;
        }
        Pdu::LogoutRequest(p) => (p.cmd_sn, p.exp_stat_sn) = (cmd_sn, exp_stat_sn),
        _ => {}
    }
    pdu
}
