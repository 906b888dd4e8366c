//! Task management at the initiator (RFC 7143 sections 4.2.3, 11.5; RFC 7144 section 6).

use super::task::{InitiatorTask, TaskStage};
use super::{Completion, Entry, ExchangeFailure, FunctionDone, InitiatorSession, TaskFailure, Timer};
use crate::action::ConnId;
use crate::device::{FunctionTag, TaskTag};
use crate::slab::Key;
use bytes::Bytes;
use iscsi_login::TaskReporting;
use iscsi_pdu::{CmdSn, Itt, Lun, Pdu, TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse, TaskMgmtStatus};
use std::time::Instant;

/// A task management function to ask for. TASK REASSIGN is the session's own affair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // the names of RFC 7143 section 11.5.1 and RFC 7144 section 6.3
pub enum TaskFunction {
    AbortTask(TaskTag),
    AbortTaskSet(Lun),
    ClearAca(Lun),
    ClearTaskSet(Lun),
    LogicalUnitReset(Lun),
    TargetWarmReset,
    TargetColdReset,
    QueryTask(TaskTag),
    QueryTaskSet(Lun),
    ItNexusReset,
    QueryAsynchronousEvent(Lun),
}

impl TaskFunction {
    /// Its code.
    #[must_use]
    pub const fn code(self) -> TaskMgmtFunction {
        use TaskMgmtFunction as F;
        match self {
            Self::AbortTask(_) => F::AbortTask,
            Self::AbortTaskSet(_) => F::AbortTaskSet,
            Self::ClearAca(_) => F::ClearAca,
            Self::ClearTaskSet(_) => F::ClearTaskSet,
            Self::LogicalUnitReset(_) => F::LogicalUnitReset,
            Self::TargetWarmReset => F::TargetWarmReset,
            Self::TargetColdReset => F::TargetColdReset,
            Self::QueryTask(_) => F::QueryTask,
            Self::QueryTaskSet(_) => F::QueryTaskSet,
            Self::ItNexusReset => F::ItNexusReset,
            Self::QueryAsynchronousEvent(_) => F::QueryAsynchronousEvent,
        }
    }

    const fn needs_level_2(self) -> bool {
        matches!(
            self,
            Self::QueryTask(_) | Self::QueryTaskSet(_) | Self::ItNexusReset | Self::QueryAsynchronousEvent(_)
        )
    }

    /// Whether the function ends this task, if it came before.
    fn ends(self, key: Key, task: &InitiatorTask) -> bool {
        match self {
            Self::AbortTask(tag) => tag.0 == key.0,
            _ => self.ends_all_of(task.lun),
        }
    }

    /// Whether the function ends all tasks of a logical unit that came before.
    fn ends_all_of(self, unit: Lun) -> bool {
        match self {
            Self::AbortTaskSet(lun) | Self::ClearTaskSet(lun) | Self::LogicalUnitReset(lun) => unit == lun,
            Self::TargetWarmReset | Self::TargetColdReset | Self::ItNexusReset => true,
            _ => false,
        }
    }

    const fn is_multi_task(self) -> bool {
        matches!(
            self,
            Self::AbortTaskSet(_)
                | Self::ClearTaskSet(_)
                | Self::LogicalUnitReset(_)
                | Self::TargetWarmReset
                | Self::TargetColdReset
                | Self::ItNexusReset
        )
    }
}

/// Why a function was not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FunctionRefusal {
    /// No connection takes requests.
    NoConnection,
    /// The task is over.
    NoSuchTask,
    /// iSCSIProtocolLevel 2 was not negotiated (RFC 7144 section 6.3).
    NotAtThisLevel,
    /// Too much is under way.
    Busy,
}

/// A function under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) conn: ConnId,
    function: TaskFunction,
    /// Whether somebody waits for the result; else the session asks of its own accord.
    wanted: bool,
    /// Tasks that the function ends and that are not over.
    affected: Vec<Key>,
    result: Option<(TaskMgmtStatus, [u8; 3])>,
}

impl InitiatorSession {
    /// Asks for the end of a command: ABORT TASK. The command completes as it would have, or with
    /// [`TaskFailure::Aborted`]; the function completes after it.
    ///
    /// # Errors
    /// As for [`task_management`](Self::task_management).
    // req: 7143-7.11-2
    pub fn abort(&mut self, now: Instant, tag: TaskTag) -> Result<FunctionTag, FunctionRefusal> {
        self.task_management(now, TaskFunction::AbortTask(tag))
    }

    /// Asks for a task management function, as an immediate command.
    ///
    /// # Errors
    /// [`FunctionRefusal`] says why nothing was sent.
    pub fn task_management(
        &mut self,
        now: Instant,
        function: TaskFunction,
    ) -> Result<FunctionTag, FunctionRefusal> {
        self.request_function(now, function, true)
    }

    pub(super) fn request_function(
        &mut self,
        now: Instant,
        function: TaskFunction,
        wanted: bool,
    ) -> Result<FunctionTag, FunctionRefusal> {
        self.now = now;
        // req: 7144-6.3-1
        if function.needs_level_2() && self.params.iscsi_protocol_level < 2 {
            return Err(FunctionRefusal::NotAtThisLevel);
        }
        let position = self.window.cmd_sn();
        let mut request = TaskMgmtRequest {
            immediate: true,
            function: function.code(),
            referenced_task_tag: Itt::NONE,
            cmd_sn: position,
            ..TaskMgmtRequest::default()
        };
        let mut chosen = None;
        match function {
            TaskFunction::AbortTask(tag) | TaskFunction::QueryTask(tag) => {
                let key = Key(tag.0);
                let Some(Entry::Task(task)) = self.entries.get(key) else {
                    return Err(FunctionRefusal::NoSuchTask);
                };
                chosen = self.connection_of(tag);
                request.lun = task.lun;
                request.referenced_task_tag = Itt(key.to_tag());
                // req: 7143-11.5.1-9, 7143-11.5.1-10, 7143-11.5.5-1, 7143-11.5.5-2, 7144-6.3-5, 7144-6.3-6
                request.ref_cmd_sn = if task.immediate { position } else { task.cmd_sn };
            }
            TaskFunction::AbortTaskSet(lun)
            | TaskFunction::ClearAca(lun)
            | TaskFunction::ClearTaskSet(lun)
            | TaskFunction::LogicalUnitReset(lun)
            | TaskFunction::QueryTaskSet(lun)
            | TaskFunction::QueryAsynchronousEvent(lun) => request.lun = lun,
            _ => {}
        }
        let id = self
            .conns
            .iter()
            .find(|c| c.takes_requests() && chosen.is_none_or(|id| id == c.id))
            .map(|c| c.id)
            .ok_or(FunctionRefusal::NoConnection)?;
        let running = Running { conn: id, function, wanted, affected: Vec::new(), result: None };
        let key = self.entries.insert_with(|_| Entry::Function(running)).ok_or(FunctionRefusal::Busy)?;
        request.itt = Itt(key.to_tag());
        self.timers.set(Timer::Function(key), now + self.cfg.function_timeout);
        self.counters.functions += 1;
        self.send_immediate(id, request.into());
        Ok(FunctionTag(key.0))
    }

    /// The connection for functions about one task: its own, unless that is lost.
    // req: 7143-11.5.1-11, 7144-6.3-7
    fn connection_of(&self, task: TaskTag) -> Option<ConnId> {
        let id = self.entries.get(Key(task.0))?.conn();
        self.conn(id).filter(|c| c.lost.is_none()).map(|c| c.id)
    }

    /// Another connection for a request that waited for room, if it is about a task that has moved there meanwhile.
    pub(super) fn moved_to(&mut self, pdu: &Pdu<Bytes>) -> Option<ConnId> {
        let key = self.entries.key_of_tag(pdu.itt().0)?;
        let Some(Entry::Function(running)) = self.entries.get(key) else { return None };
        let (TaskFunction::AbortTask(tag) | TaskFunction::QueryTask(tag)) = running.function else {
            return None;
        };
        let id = self.connection_of(tag).filter(|id| *id != running.conn)?;
        self.conn(id).filter(|c| c.takes_requests())?;
        if let Some(Entry::Function(running)) = self.entries.get_mut(key) {
            running.conn = id;
        }
        Some(id)
    }

    /// The request has left, with the number that says which commands it acts on.
    // req: 7143-4.2.3.4-3, 7143-4.2.3.3-2, 7143-11.5.1-5
    pub(super) fn function_is_sent(&mut self, itt: Itt, position: CmdSn) {
        let Some(key) = self.entries.key_of_tag(itt.0) else { return };
        let Some(Entry::Function(running)) = self.entries.get(key) else { return };
        let (id, function) = (running.conn, running.function);
        let affected = self.affected_by(function, position);
        if let Some(Entry::Function(running)) = self.entries.get_mut(key) {
            running.affected.clone_from(&affected);
        }
        if function.is_multi_task() && self.stops_data_itself() {
            for task in affected {
                if self.entries.get(task).is_some_and(|e| e.conn() == id) {
                    self.stop_output(task);
                }
            }
        }
    }

    /// No more Data-Out for a task; its response may still come.
    pub(super) fn stop_output(&mut self, task: Key) {
        if matches!(self.entries.get(task), Some(Entry::Task(t)) if t.write) {
            self.stop_task(task);
        }
    }

    /// FastAbort, and a transport where this end sends the data: on iSER the target fetches it.
    fn stops_data_itself(&self) -> bool {
        self.params.task_reporting == TaskReporting::FastAbort && !self.params.rdma_extensions
    }

    fn affected_by(&self, function: TaskFunction, position: CmdSn) -> Vec<Key> {
        self.entries
            .iter()
            .filter(|(key, e)| match e {
                Entry::Task(task) => {
                    let earlier = task.immediate || task.cmd_sn.precedes(position);
                    function.ends(*key, task) && earlier
                }
                _ => false,
            })
            .map(|(key, _)| key)
            .collect()
    }

    /// Those of these tasks of a connection and a logical unit that functions of this session end which were asked for on
    /// other connections, if there are such functions: event 5 tells of those tasks, of which all may be over by now, and
    /// commands behind the functions go on.
    pub(super) fn ended_by_own_functions(&self, id: ConnId, lun: Lun, tasks: &[Key]) -> Option<Vec<Key>> {
        let own: Vec<&Running> = self
            .entries
            .iter()
            .filter_map(|(_, e)| match e {
                Entry::Function(f) if f.conn != id && f.function.ends_all_of(lun) => Some(f),
                _ => None,
            })
            .collect();
        let ended = |key: &Key| own.iter().any(|f| f.affected.contains(key));
        (!own.is_empty()).then(|| tasks.iter().copied().filter(ended).collect())
    }

    /// Those of these tasks that functions were to end which got no response: where there are such, event 5 is taken to
    /// tell of them, for what was sent behind the function the target goes on with.
    pub(super) fn ended_without_response(&self, tasks: &[Key]) -> Vec<Key> {
        let asked = |key: Key| matches!(self.entries.get(key), Some(Entry::Task(t)) if t.end_asked_for);
        tasks.iter().copied().filter(|key| asked(*key)).collect()
    }

    /// The response: all tasks that the function ended and that had none are over.
    // req: 7143-4.2.3.3-4, 7143-4.2.3.3-5, 7143-4.2.3.4-6, 7143-4.2.3.4-7, 7143-11.5.1-2, 7144-6.3-2, 7144-6.4.2-1
    pub(super) fn on_function_response(&mut self, key: Key, response: &TaskMgmtResponse) {
        let Some(Entry::Function(running)) = self.entries.get_mut(key) else { return };
        running.result = Some((response.response, response.additional_response_information));
        let ended = match (response.response, running.function) {
            (TaskMgmtStatus::FunctionComplete, f) => !matches!(f, TaskFunction::QueryTask(_)),
            // Its response was sent before; if it has not come by now, it never will.
            (TaskMgmtStatus::TaskDoesNotExist, TaskFunction::AbortTask(_)) => true,
            _ => false,
        };
        let affected = if ended { running.affected.clone() } else { std::mem::take(&mut running.affected) };
        for task in affected {
            if ended {
                self.end_task(task, TaskFailure::Aborted);
            } else {
                self.end_stopped(task);
            }
        }
        self.finish_function(key);
    }

    /// A function that was refused leaves its tasks as they were, but data that was stopped for it cannot go on.
    fn end_stopped(&mut self, key: Key) {
        if matches!(self.entries.get(key), Some(Entry::Task(t)) if matches!(t.stage, TaskStage::Stopped(_))) {
            self.end_task(key, TaskFailure::Aborted);
        }
    }

    /// Whether a function that is under way ends this task.
    pub(super) fn is_being_ended(&self, task: Key) -> bool {
        self.entries.iter().any(|(_, e)| matches!(e, Entry::Function(f) if f.affected.contains(&task)))
    }

    /// A task is over: functions that waited for it may be too.
    pub(super) fn task_is_over(&mut self, task: Key) {
        let waiting: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, e)| matches!(e, Entry::Function(f) if f.affected.contains(&task)))
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            if let Some(Entry::Function(running)) = self.entries.get_mut(key) {
                running.affected.retain(|k| *k != task);
            }
            self.finish_function(key);
        }
    }

    fn finish_function(&mut self, key: Key) {
        let Some(Entry::Function(running)) = self.entries.get(key) else { return };
        if let Some(result) = running.result.filter(|_| running.affected.is_empty()) {
            self.end_function(key, Ok(result));
        }
    }

    fn end_function(&mut self, key: Key, result: Result<(TaskMgmtStatus, [u8; 3]), ExchangeFailure>) {
        self.timers.cancel(Timer::Function(key));
        if let Some(Entry::Function(Running { function, wanted: true, .. })) = self.entries.remove(key) {
            let tag = FunctionTag(key.0);
            self.completions.push_back(Completion::Function(FunctionDone { tag, function, result }));
        }
    }

    /// A function that will get no response. Its tasks are concluded by whatever is the reason for that, or by event 5.
    pub(super) fn fail_function(&mut self, key: Key, failure: ExchangeFailure) {
        let Some(Entry::Function(running)) = self.entries.get_mut(key) else { return };
        let affected = std::mem::take(&mut running.affected);
        if running.function.is_multi_task() {
            for task in affected {
                if let Some(Entry::Task(task)) = self.entries.get_mut(task) {
                    task.end_asked_for = true;
                }
            }
        }
        self.end_function(key, Err(failure));
    }
}
