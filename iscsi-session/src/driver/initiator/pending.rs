//! Who waits for what in an initiator's session: answers by the names of what was asked for.

use super::handle::{ExchangeAnswer, FunctionAnswer, Request, Shared, SubmitError};
use super::places::{CommandId, End, Places};
use crate::device::TaskTag;
use crate::initiator::{
    Command, Completion, ExchangeFailure, ExchangeTag, FunctionRefusal, InitiatorSession, Refusal, Refused,
    TaskFunction,
};
use std::collections::{HashMap, VecDeque};
use std::task::Waker;
use std::time::Instant;

/// Commands, functions and exchanges between the request and its answer.
#[derive(Default)]
pub(super) struct Pending {
    /// Commands for which the window has had no room, or which wait for a connection.
    waiting: VecDeque<(CommandId, Command)>,
    /// Commands that were sent, by the slot in their tag.
    tasks: Vec<Option<(TaskTag, CommandId)>>,
    /// When commands are given up, the earliest first; among them some that are over.
    deadlines: VecDeque<(Instant, CommandId)>,
    functions: HashMap<u64, FunctionAnswer>,
    exchanges: HashMap<ExchangeTag, ExchangeAnswer>,
}

impl Pending {
    /// Begins what a request asks for; requests about the session itself come back.
    pub(super) fn begin(
        &mut self,
        session: &mut InitiatorSession,
        now: Instant,
        request: Request,
        shared: &Shared,
    ) -> Option<Request> {
        match request {
            Request::Submit(id, command, deadline) => {
                if self.waiting.is_empty() {
                    self.submit(session, now, id, command, shared);
                } else {
                    self.waiting.push_back((id, command));
                }
                if let Some(at) = deadline {
                    // Mostly the latest: the handles of a session are patient alike.
                    let place = self.deadlines.partition_point(|(other, _)| *other <= at);
                    self.deadlines.insert(place, (at, id));
                }
            }
            Request::Abort(id, answer) => {
                self.withdraw(id, shared);
                self.function_on(session, now, id, TaskFunction::AbortTask, answer);
            }
            Request::Query(id, answer) => {
                self.function_on(session, now, id, TaskFunction::QueryTask, Some(answer));
            }
            Request::Function(function, answer) => self.function(session, now, function, Some(answer)),
            Request::Text(text, answer) => {
                let begun = session.text(now, text);
                self.exchange(begun, answer);
            }
            Request::Declare(cid, length, answer) => {
                let id = session.connections().find(|(_, c)| *c == cid).map(|(id, _)| id);
                let begun = id
                    .ok_or(FunctionRefusal::NoConnection)
                    .and_then(|id| session.declare_max_recv_data_segment_length(now, id, length));
                self.exchange(begun, answer);
            }
            Request::Ping(data, answer) => {
                let first = session.connections().map(|(id, _)| id).next();
                let begun =
                    first.ok_or(FunctionRefusal::NoConnection).and_then(|id| session.ping(now, id, &data));
                self.exchange(begun, answer);
            }
            other => return Some(other),
        }
        None
    }

    fn function(
        &mut self,
        session: &mut InitiatorSession,
        now: Instant,
        function: TaskFunction,
        answer: Option<FunctionAnswer>,
    ) {
        match (session.task_management(now, function), answer) {
            (Ok(tag), Some(answer)) => drop(self.functions.insert(tag.0, answer)),
            (Err(refusal), Some(answer)) => drop(answer.send(Err(refusal))),
            // Nobody asks what became of it: the command completes with it or without.
            (_, None) => {}
        }
    }

    fn function_on(
        &mut self,
        session: &mut InitiatorSession,
        now: Instant,
        id: CommandId,
        function: fn(TaskTag) -> TaskFunction,
        answer: Option<FunctionAnswer>,
    ) {
        let tag = self.tasks.iter().flatten().find(|(_, of)| *of == id).map(|(tag, _)| *tag);
        match (tag, answer) {
            (Some(tag), answer) => self.function(session, now, function(tag), answer),
            (None, Some(answer)) => drop(answer.send(Err(FunctionRefusal::NoSuchTask))),
            (None, None) => {}
        }
    }

    fn exchange(&mut self, begun: Result<ExchangeTag, FunctionRefusal>, answer: ExchangeAnswer) {
        match begun {
            Ok(tag) => drop(self.exchanges.insert(tag, answer)),
            Err(FunctionRefusal::NoConnection) => drop(answer.send(Err(ExchangeFailure::ConnectionLost))),
            Err(_) => drop(answer.send(Err(ExchangeFailure::Busy))),
        }
    }

    /// A command that was not sent yet is not sent at all.
    fn withdraw(&mut self, id: CommandId, shared: &Shared) {
        if let Some(index) = self.waiting.iter().position(|(waiting, _)| *waiting == id)
            && let Some((_, command)) = self.waiting.remove(index)
        {
            shared.end(id, refused(Refused { command, why: Refusal::Withdrawn }));
        }
    }

    /// Sends what waits, as far as the window goes; nothing while the session is between connections.
    pub(super) fn submit_waiting(&mut self, session: &mut InitiatorSession, now: Instant, shared: &Shared) {
        while let Some((id, command)) = self.waiting.pop_front() {
            if !self.submit(session, now, id, command, shared) {
                return;
            }
        }
    }

    /// Sends a command; `false` when it has to wait, as the first.
    fn submit(
        &mut self,
        session: &mut InitiatorSession,
        now: Instant,
        id: CommandId,
        command: Command,
        shared: &Shared,
    ) -> bool {
        match session.submit(now, command) {
            Ok(tag) => {
                let slot = slot(tag);
                if self.tasks.len() <= slot {
                    self.tasks.resize(slot + 1, None);
                }
                if let Some(place) = self.tasks.get_mut(slot) {
                    *place = Some((tag, id));
                }
            }
            Err(Refused { command, why })
                if why == Refusal::WindowClosed
                    || (why == Refusal::NoConnection && session.awaits_connection()) =>
            {
                self.waiting.push_front((id, command));
                return false;
            }
            Err(why) => shared.end(id, refused(why)),
        }
        true
    }

    /// When the next command is to be given up; among them may be some that are over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Gives up the commands whose time is up.
    pub(super) fn expire(&mut self, session: &mut InitiatorSession, now: Instant, shared: &Shared) {
        while let Some((_, id)) = self.deadlines.front().copied().filter(|(at, _)| *at <= now) {
            self.deadlines.pop_front();
            if !shared.inbox().places.is_open(id) {
                continue;
            }
            shared.end(id, Err(SubmitError::TimedOut));
            self.withdraw(id, shared);
            self.function_on(session, now, id, TaskFunction::AbortTask, None);
        }
    }

    /// Forgets the deadlines of commands that are over: those at the front, and all when they are most.
    pub(super) fn forget_deadlines(&mut self, places: &Places) {
        while self.deadlines.front().is_some_and(|(_, id)| !places.is_open(*id)) {
            self.deadlines.pop_front();
        }
        if self.deadlines.len() > places.len().saturating_mul(2).saturating_add(64) {
            self.deadlines.retain(|(_, id)| places.is_open(*id));
        }
    }

    /// Hands over what is over; whoever waits for a command is to be woken.
    pub(super) fn complete(&mut self, completion: Completion, places: &mut Places) -> Option<Waker> {
        match completion {
            Completion::Task(done) => {
                let task = self.tasks.get_mut(slot(done.tag))?;
                let (_, id) = task.take_if(|(tag, _)| *tag == done.tag)?;
                return places.end(id, Ok(done));
            }
            Completion::Function(done) => {
                if let Some(answer) = self.functions.remove(&done.tag.0) {
                    let _ = answer.send(Ok(done));
                }
            }
            Completion::Text { tag, result } | Completion::Ping { tag, result } => {
                if let Some(answer) = self.exchanges.remove(&tag) {
                    let _ = answer.send(result);
                }
            }
        }
        None
    }
}

/// The slot of a task's tag: what its keys are checked by is above.
const fn slot(tag: TaskTag) -> usize {
    (tag.0 & 0xffff_ffff) as usize
}

fn refused(refused: Refused) -> End {
    Err(SubmitError::Refused(Box::new(refused)))
}
