//! Who waits for what in an initiator's session: answers by the names of what was asked for.

use super::handle::{ExchangeAnswer, FunctionAnswer, Id, Request, TaskAnswer};
use crate::device::TaskTag;
use crate::initiator::{
    Command, Completion, ExchangeFailure, ExchangeTag, FunctionRefusal, InitiatorSession, Refusal, Refused,
    TaskFunction,
};
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// Commands, functions and exchanges between the request and its answer.
#[derive(Default)]
pub(super) struct Pending {
    /// Commands for which the window has had no room, or which wait for a connection.
    waiting: VecDeque<(Id, Box<Command>, TaskAnswer)>,
    tasks: HashMap<TaskTag, (Id, TaskAnswer)>,
    tags: HashMap<Id, TaskTag>,
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
    ) -> Option<Request> {
        match request {
            Request::Submit(id, command, answer) => {
                self.waiting.push_back((id, command, answer));
                self.submit_waiting(session, now);
            }
            Request::Abort(id, answer) => {
                self.withdraw(id);
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
        id: Id,
        function: fn(TaskTag) -> TaskFunction,
        answer: Option<FunctionAnswer>,
    ) {
        match (self.tags.get(&id), answer) {
            (Some(tag), answer) => self.function(session, now, function(*tag), answer),
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
    fn withdraw(&mut self, id: Id) {
        if let Some(index) = self.waiting.iter().position(|(waiting, ..)| *waiting == id)
            && let Some((_, command, answer)) = self.waiting.remove(index)
        {
            let _ = answer.send(Err(Refused { command: *command, why: Refusal::Withdrawn }));
        }
    }

    /// Sends what waits, as far as the window goes; nothing while the session is between connections.
    pub(super) fn submit_waiting(&mut self, session: &mut InitiatorSession, now: Instant) {
        while let Some((id, command, answer)) = self.waiting.pop_front() {
            match session.submit(now, *command) {
                Ok(tag) => {
                    self.tags.insert(id, tag);
                    self.tasks.insert(tag, (id, answer));
                }
                Err(Refused { command, why })
                    if why == Refusal::WindowClosed
                        || (why == Refusal::NoConnection && session.awaits_connection()) =>
                {
                    self.waiting.push_front((id, Box::new(command), answer));
                    return;
                }
                Err(refused) => drop(answer.send(Err(refused))),
            }
        }
    }

    /// Answers whoever waits for what is over.
    pub(super) fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Task(done) => {
                if let Some((id, answer)) = self.tasks.remove(&done.tag) {
                    self.tags.remove(&id);
                    let _ = answer.send(Ok(done));
                }
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
    }
}
