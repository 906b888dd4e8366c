//! Task management at the target (RFC 7143 sections 4.2.3, 11.5, 11.6; RFC 7144 section 6).
//!
//! ```text
//!   request ──▶ Commands ──▶ Data ──▶ Tasks ──▶ response (through the fence)
//!               all commands  (standard) data   device server has the function,
//!               before it     under way is in   and has let go of all tasks it ends
//! ```
//!
//! FastAbort skips `Data`: transfers under way are abandoned at once on the issuing connection, whose initiator sends
//! nothing more, and elsewhere when it has acknowledged an Async Message with event 5.

use super::reassign::Reassignment;
use super::{EndCause, Queued, SessionEnd, Stage, TargetSession, TaskEvent};
use crate::action::{ConnId, DownCall};
use crate::device::{Function, FunctionTag, Outcome, TaskTag};
use crate::fence::Response;
use crate::slab::Key;
use iscsi_login::TaskReporting;
use iscsi_pdu::{
    CmdSn, Itt, Lun, Pdu, RejectReason, ScsiStatus, TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse,
    TaskMgmtStatus,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Waiting for the commands before it.
    Commands,
    /// Waiting for the data under way.
    Data,
    /// Waiting for the device server.
    Tasks,
    /// TASK REASSIGN, waiting for what the old connection holds.
    Allegiance(Reassignment),
}

/// A function between request and response.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) tag: FunctionTag,
    pub(super) conn: ConnId,
    pub(super) itt: Itt,
    numbered: bool,
    /// Its connection is closed: it has nobody to answer, and its tag is free.
    deserted: bool,
    function: TaskMgmtFunction,
    lun: Lun,
    /// The function acts on commands before this one.
    position: CmdSn,
    phase: Phase,
    /// Tasks that it ends and that are not over yet.
    affected: Vec<Key>,
    answer: Option<(TaskMgmtStatus, [u8; 3])>,
}

impl Running {
    /// Whether the function ends this task.
    pub(super) fn ends(&self, key: Key) -> bool {
        self.affected.contains(&key)
    }

    /// Whether it bears this tag.
    pub(super) fn is_called(&self, itt: Itt) -> bool {
        self.itt == itt && !self.deserted
    }

    pub(super) fn task_is_over(&mut self, key: Key) {
        self.affected.retain(|k| *k != key);
    }

    pub(super) fn answer(&mut self, status: TaskMgmtStatus, additional: [u8; 3]) {
        self.answer.get_or_insert((status, additional));
    }

    fn ends_all(&self) -> bool {
        is_target_scoped(self.function) || self.function == TaskMgmtFunction::ItNexusReset
    }

    fn covers(&self, lun: Lun) -> bool {
        self.ends_all() || self.lun == lun
    }
}

/// The functions with multi-task abort semantics (section 4.2.3.3; RFC 7144 section 6.5).
// req: 7143-4.2.3.3-1, 7144-6.5-1
const fn is_multi_task(function: TaskMgmtFunction) -> bool {
    use TaskMgmtFunction as F;
    matches!(
        function,
        F::AbortTaskSet
            | F::ClearTaskSet
            | F::LogicalUnitReset
            | F::TargetWarmReset
            | F::TargetColdReset
            | F::ItNexusReset
    )
}

const fn is_target_scoped(function: TaskMgmtFunction) -> bool {
    matches!(function, TaskMgmtFunction::TargetWarmReset | TaskMgmtFunction::TargetColdReset)
}

/// Whether a command is one of those before a function at this position, which it acts on.
pub(super) fn is_before(cmd_sn: CmdSn, immediate: bool, position: CmdSn) -> bool {
    if immediate { cmd_sn.precedes_or_is(position) } else { cmd_sn.precedes(position) }
}

impl TargetSession {
    /// A Task Management Function Request, immediate or in its turn.
    // req: 7143-11.5.1-1, 7143-11.5.1-24, 7144-6.3-3, 7144-4.1-2
    pub(super) fn on_task_management(&mut self, id: ConnId, request: TaskMgmtRequest) {
        use TaskMgmtFunction as F;
        use TaskMgmtStatus as S;
        let numbered = !request.immediate;
        if self.is_taken(request.itt) {
            if numbered {
                self.order.give_credit();
            }
            self.reject(id, &request.into(), RejectReason::TaskInProgress);
            return;
        }
        // req: 7143-4.2.2.1-6
        let under_way = self.functions.iter().filter(|f| f.conn == id && f.numbered == numbered).count();
        let held = if numbered { 0 } else { self.fences.held_immediates(id).1 };
        if under_way.saturating_add(held) >= self.cfg.immediate_functions.max(1) as usize {
            self.refuse_one_more(id, request);
            return;
        }
        // A position beyond the next number that the initiator can use would never be reached.
        let last = self.order.window().max_cmd_sn().next();
        if request.immediate && !request.cmd_sn.precedes_or_is(last) {
            self.reject(id, &request.into(), RejectReason::InvalidPduField);
            return;
        }
        let tag = FunctionTag(self.next_function);
        self.next_function += 1;
        let mut running = Running {
            tag,
            conn: id,
            itt: request.itt,
            numbered,
            deserted: false,
            function: request.function,
            lun: request.lun,
            position: request.cmd_sn,
            phase: Phase::Tasks,
            affected: Vec::new(),
            answer: None,
        };
        let level_2 = self.params.iscsi_protocol_level >= 2;
        let is_new = matches!(
            request.function,
            F::QueryTask | F::QueryTaskSet | F::ItNexusReset | F::QueryAsynchronousEvent
        );
        let mut to_device = false;
        match request.function {
            // req: 7143-7.2.2-7
            F::TaskReassign => match self.reassignable(&request) {
                Ok(from) => {
                    let (task, exp_data_sn) = (request.referenced_task_tag, request.exp_data_sn);
                    running.phase = Phase::Allegiance(Reassignment { task, exp_data_sn, from });
                }
                Err(status) => running.answer(status, [0; 3]),
            },
            f if !self.cfg.functions.contains(f) || (is_new && !level_2) => {
                running.answer(S::FunctionNotSupported, [0; 3]);
            }
            F::AbortTask => {
                let status = self.abort_task(&mut running, &request);
                running.answer(status, [0; 3]);
            }
            F::QueryTask => running.answer(self.query_task(&request), [0; 3]),
            // req: 7144-6.4.2-3
            F::QueryTaskSet => {
                let present = self.tasks.iter().any(|(_, t)| t.lun == request.lun);
                running.answer(if present { S::FunctionSucceeded } else { S::FunctionComplete }, [0; 3]);
            }
            f if is_multi_task(f) => {
                running.phase = Phase::Commands;
                // req: 7143-4.2.3.3-10, 7143-4.2.3.4-9
                if is_target_scoped(f) {
                    self.order.plug_until(request.cmd_sn);
                }
            }
            _ => to_device = true,
        }
        let function = Function { tag, function: request.function, lun: request.lun };
        self.functions.push(running);
        if to_device {
            self.upcalls.push_back(TaskEvent::TaskManagement(function));
        }
    }

    /// More functions than the connection may have under way. A numbered one has been received, which a Reject would
    /// deny (section 7.3): it gets a response.
    // req: 7143-7.3-2, 7143-4.2.2.1-5
    fn refuse_one_more(&mut self, id: ConnId, request: TaskMgmtRequest) {
        if request.immediate {
            self.reject(id, &request.into(), RejectReason::ImmediateCommandReject);
            return;
        }
        self.order.give_credit();
        self.counters.functions += 1;
        let response = TaskMgmtStatus::FunctionRejected;
        self.transmit(
            id,
            TaskMgmtResponse { response, itt: request.itt, ..TaskMgmtResponse::default() }.into(),
        );
    }

    /// Drops the functions of a connection that is closed: they are not answered, and their credits come back. Those that
    /// have begun to end tasks go on, for that cannot be undone, and other connections are to hear of it.
    pub(super) fn drop_functions_of(&mut self, id: ConnId) {
        let order = &mut self.order;
        self.functions.retain_mut(|f| {
            if f.conn != id {
                return true;
            }
            if std::mem::take(&mut f.numbered) {
                order.give_credit();
            }
            f.deserted = true;
            is_multi_task(f.function) && matches!(f.phase, Phase::Data | Phase::Tasks)
        });
    }

    /// ABORT TASK (section 11.6.1).
    // req: 7143-11.5.1-12, 7143-11.5.1-13, 7143-11.6.1-3, 7143-7.11-3, 7143-7.11-4
    fn abort_task(&mut self, running: &mut Running, request: &TaskMgmtRequest) -> TaskMgmtStatus {
        let tag = request.referenced_task_tag;
        if self.is_function(tag) {
            return TaskMgmtStatus::FunctionRejected;
        }
        if let Some(key) = self.by_itt.get(&tag).copied() {
            match self.tasks.get(key).map(|t| t.stage) {
                Some(Stage::Waiting) => self.drop_waiting(key),
                // Over but for the data that its response waits for.
                Some(_) if self.tasks.get(key).is_some_and(|t| t.outcome.is_some()) => {
                    self.release(key);
                    if self.tasks.get(key).is_some() {
                        running.affected.push(key);
                    }
                }
                Some(_) => {
                    running.affected.push(key);
                    self.end_at_device(key);
                }
                None => {}
            }
            return TaskMgmtStatus::FunctionComplete;
        }
        if self.abort_text(tag) || self.abort_queued_request(tag) {
            return TaskMgmtStatus::FunctionComplete;
        }
        // Over, and its response lost: it goes before the answer, and no reassignment will find it.
        self.send_lost_status(running.conn, tag);
        self.drop_stranded_responses(|itt, _| itt == tag);
        let reference = request.ref_cmd_sn;
        if reference.precedes(request.cmd_sn) && self.order.window().contains(reference) {
            // Never seen: its number counts as received, and should it come it is a duplicate.
            self.order.plug(reference);
            return TaskMgmtStatus::FunctionComplete;
        }
        TaskMgmtStatus::TaskDoesNotExist
    }

    /// Whether the tag is that of a task management request, be it under way or waiting for its turn.
    fn is_function(&self, tag: Itt) -> bool {
        let waits = |q: &Queued| matches!(q, Queued::Request(_, pdu) if pdu.itt() == tag && matches!(**pdu, Pdu::TaskMgmtRequest(_)));
        self.functions.iter().any(|f| f.is_called(tag)) || self.order.iter().any(waits)
    }

    /// A numbered request other than a SCSI command and a function that waits for its turn.
    fn abort_queued_request(&mut self, tag: Itt) -> bool {
        let is_it = |q: &Queued| matches!(q, Queued::Request(_, pdu) if pdu.itt() == tag);
        let Some(cmd_sn) = self.order.iter().find(|q| is_it(q)).and_then(|q| match q {
            Queued::Request(_, pdu) => pdu.cmd_sn(),
            Queued::Scsi(_) => None,
        }) else {
            return false;
        };
        self.order.void(cmd_sn);
        true
    }

    // req: 7144-6.4.2-2, 7144-6.3-8, 7144-6.3-9
    fn query_task(&self, request: &TaskMgmtRequest) -> TaskMgmtStatus {
        let tag = request.referenced_task_tag;
        if self.is_function(tag) {
            TaskMgmtStatus::FunctionRejected
        } else if self.by_itt.contains_key(&tag) {
            TaskMgmtStatus::FunctionSucceeded
        } else {
            TaskMgmtStatus::FunctionComplete
        }
    }

    /// Whether a function that is not yet with the device server stands before this command.
    pub(super) fn holds_back(&self, next: CmdSn) -> bool {
        let waits = |f: &Running| matches!(f.phase, Phase::Commands | Phase::Data);
        self.functions.iter().any(|f| waits(f) && f.position.precedes_or_is(next))
    }

    /// Takes the functions as far as they go; whether one of them got further.
    pub(super) fn advance_functions(&mut self) -> bool {
        let (mut index, mut moved) = (0, false);
        while let Some(running) = self.functions.get(index) {
            let before = running.phase;
            match before {
                // req: 7143-4.2.3.3-9, 7143-4.2.3.4-8, 7143-11.5.1-23
                Phase::Commands if running.position.precedes_or_is(self.order.window().exp_cmd_sn()) => {
                    self.gather(index);
                }
                // req: 7143-4.2.3.3-7, 7143-11.5.1-7, 7143-4.2.3.3-1
                Phase::Data if self.is_fast_abort() || !self.data_under_way(index) => self.launch(index),
                Phase::Allegiance(reassignment) if self.is_given_back(reassignment) => {
                    let Running { conn, itt, .. } = self.functions.remove(index);
                    self.reassign(conn, itt, reassignment);
                    moved = true;
                    continue;
                }
                Phase::Tasks
                    if running.affected.is_empty()
                        && running.answer.is_some()
                        && !self.is_unannounced(running) =>
                {
                    self.answer_function(index);
                    moved = true;
                    continue;
                }
                _ => {}
            }
            if self.functions.get(index).is_some_and(|f| f.phase == before) {
                index += 1;
            } else {
                moved = true;
            }
        }
        moved
    }

    /// Whether other connections are still to hear of tasks that a function ended: its response comes after that.
    // req: 7143-4.2.3.4-18
    fn is_unannounced(&self, running: &Running) -> bool {
        is_multi_task(running.function)
            && self.unannounced.iter().any(|(id, lun, _)| *id != running.conn && running.covers(*lun))
    }

    /// Finds the tasks that a function ends; those that the device server has not seen end here.
    fn gather(&mut self, index: usize) {
        let Some(running) = self.functions.get(index) else { return };
        let all = running.ends_all() || running.function == TaskMgmtFunction::LogicalUnitReset;
        let position = running.position;
        let affected: Vec<(Key, Stage)> = self
            .tasks
            .iter()
            .filter(|(_, t)| running.covers(t.lun))
            .filter(|(_, t)| is_before(t.cmd_sn, t.immediate, position) || (all && t.stage != Stage::Waiting))
            .map(|(key, t)| (key, t.stage))
            .collect();
        for (key, stage) in &affected {
            if *stage == Stage::Waiting {
                self.drop_waiting(*key);
            }
        }
        if let Some(running) = self.functions.get_mut(index) {
            running.affected =
                affected.into_iter().filter(|(_, s)| *s != Stage::Waiting).map(|(k, _)| k).collect();
            running.phase = Phase::Data;
        }
    }

    fn data_under_way(&self, index: usize) -> bool {
        let Some(running) = self.functions.get(index) else { return false };
        running.affected.iter().any(|key| self.tasks.get(*key).is_some_and(|t| t.gets > 0))
    }

    /// Hands the function to the device server, after ending its tasks there.
    // req: 7143-4.2.3.3-11, 7143-4.2.3.4-10
    fn launch(&mut self, index: usize) {
        let Some(running) = self.functions.get_mut(index) else { return };
        running.phase = Phase::Tasks;
        let function = Function { tag: running.tag, function: running.function, lun: running.lun };
        for key in running.affected.clone() {
            self.end_at_device(key);
        }
        self.upcalls.push_back(TaskEvent::TaskManagement(function));
    }

    /// Tells the device server to end a task.
    pub(super) fn end_at_device(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.stage != Stage::Executing {
            return;
        }
        if task.outcome.take().is_some() {
            // The device server is done with it: the response was waiting for data.
            self.release(key);
        } else {
            task.stage = Stage::Ending;
            self.upcalls.push_back(TaskEvent::Abort(TaskTag(key.0)));
        }
    }

    // req: 7143-13.23-1
    // req: 7143-4.2.3.4-1, 7143-4.2.3.4-2, 7143-10.7-1, 7143-13.23-5
    pub(super) fn is_fast_abort(&self) -> bool {
        self.params.task_reporting == TaskReporting::FastAbort
    }

    /// The device server has let go of a task that was ended: its resources below are released, on other connections
    /// than the issuing one of a FastAbort only after the initiator knows.
    // req: 7145-8.3.2-5, 7143-4.2.3.4-12, 7143-4.2.3.4-13, 7143-4.2.3.4-14
    pub(super) fn release(&mut self, key: Key) {
        if self.awaits_reads(key) {
            return;
        }
        let Some(task) = self.tasks.get(key) else { return };
        let (id, lun, itt) = (task.conn, task.lun, task.itt);
        if task.stage == Stage::Terminating {
            self.retire(key);
            self.counters.aborted += 1;
            return;
        }
        // A reset ends commands behind it too if they got here by a faster connection; the initiator does not count
        // on that, so these get a response.
        let behind = |f: &Running| f.ends(key) && !task.immediate && !task.cmd_sn.precedes(f.position);
        if task.stage == Stage::Ending
            && self.functions.iter().any(|f| is_multi_task(f.function) && behind(f))
        {
            self.finish(key, Outcome::status(ScsiStatus::TaskAborted));
            return;
        }
        let elsewhere = self.is_fast_abort()
            && self.functions.iter().any(|f| is_multi_task(f.function) && f.ends(key) && f.conn != id);
        self.retire(key);
        self.counters.aborted += 1;
        if elsewhere {
            self.unannounced.push((id, lun, itt));
        } else {
            self.call(id, DownCall::DeallocateTaskResources(itt));
        }
        if self.orphans == 0 {
            self.execute_waiting_immediates();
        }
    }

    // req: 7143-11.5.1-4, 7143-4.2.3.3-12, 7143-4.2.3.3-14, 7143-4.2.3.4-15, 7143-4.2.3.4-18, 7143-11.6.1-2
    fn answer_function(&mut self, index: usize) {
        let running = self.functions.remove(index);
        let Some((response, additional)) = running.answer else { return };
        let multi = is_multi_task(running.function);
        let scope = (!running.ends_all()).then_some(running.lun);
        // Without the key the fence around ABORT TASK SET and its like is that of RFC 3720.
        let fenced = multi || (self.fences_apply() && running.function == TaskMgmtFunction::ClearAca);
        // req: 7144-6.4.2-4
        let level_2 = self.params.iscsi_protocol_level >= 2;
        let pdu = TaskMgmtResponse {
            response,
            additional_response_information: if level_2 { additional } else { [0; 3] },
            itt: running.itt,
            ..TaskMgmtResponse::default()
        };
        let ends = (multi && response == TaskMgmtStatus::FunctionComplete).then_some(running.position);
        let Running { conn, numbered, .. } = running;
        if !running.deserted {
            self.counters.functions += 1;
            self.send_response(Response {
                conn,
                lun: scope,
                pdu: pdu.into(),
                fenced,
                numbered,
                ends,
                state: None,
            });
        }
        if response == TaskMgmtStatus::FunctionComplete
            && matches!(running.function, TaskMgmtFunction::TargetColdReset | TaskMgmtFunction::ItNexusReset)
        {
            // req: 7143-11.5.1-17, 7143-11.6.1-1, 7144-6.3-12, 7144-6.3-13
            let end = match running.function {
                TaskMgmtFunction::TargetColdReset => SessionEnd::ColdReset,
                _ => SessionEnd::Reset,
            };
            self.end_session(end, &EndCause::Reset);
        }
    }
}
