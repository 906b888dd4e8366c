//! The initiator's driver; [`super::target`] mirrors it.

use super::alarm::Alarm;
use super::links::Links;
use super::{PARTING, ROUNDS, now};
use crate::device::TaskTag;
use crate::initiator::{
    Command, Completion, ExchangeFailure, ExchangeTag, FunctionDone, FunctionRefusal, InitiatorCounters,
    InitiatorEvent, InitiatorSession, Refusal, Refused, TaskDone, TaskFunction,
};
use crate::login::LoggedIn;
use crate::setup::ConnSetup;
use bytes::Bytes;
use datamover::{BufPool, Role, Stats};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The session is over, or ended before it answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionClosed;

impl fmt::Display for SessionClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the session is closed")
    }
}

impl std::error::Error for SessionClosed {}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionEnded {
    /// Whether it was closed in order; else it failed.
    pub closed: bool,
    /// Time to wait before a new login.
    pub time2wait: Duration,
}

/// Names a command between handle and session.
type Id = u64;

enum Request {
    Submit(Id, Box<Command>, oneshot::Sender<Result<TaskDone, Refused>>),
    Abort(Id),
    Function(TaskFunction, oneshot::Sender<Result<FunctionDone, FunctionRefusal>>),
    Text(Bytes, oneshot::Sender<Result<Bytes, ExchangeFailure>>),
    Ping(Bytes, oneshot::Sender<Result<Bytes, ExchangeFailure>>),
    AddConnection(Box<LoggedIn>),
    Logout,
    Counters(oneshot::Sender<(InitiatorCounters, Vec<Stats>)>),
}

/// Requests on their way from any thread to the session's.
#[derive(Default)]
struct Inbox {
    queue: VecDeque<Request>,
    waker: Option<Waker>,
    next_id: Id,
    closed: bool,
}

struct Shared {
    inbox: Mutex<Inbox>,
    pool: Arc<dyn BufPool>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, request: Request) {
        let mut inbox = self.inbox();
        if !inbox.closed {
            inbox.queue.push_back(request);
            if let Some(waker) = inbox.waker.take() {
                drop(inbox);
                waker.wake();
            }
        }
    }
}

/// A hand on a session that runs elsewhere: submits commands from any thread; cheap to clone.
#[derive(Clone)]
pub struct InitiatorHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for InitiatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitiatorHandle").field("closed", &self.shared.inbox().closed).finish()
    }
}

/// A command on its way. Ready with its end; dropped before, it asks for ABORT TASK.
pub struct Submitted {
    id: Id,
    done: oneshot::Receiver<Result<TaskDone, Refused>>,
    shared: Arc<Shared>,
    over: bool,
}

impl Submitted {
    /// Asks for the command's end (ABORT TASK). The command still completes, then or otherwise.
    pub fn abort(&self) {
        self.shared.post(Request::Abort(self.id));
    }
}

impl Future for Submitted {
    type Output = Result<TaskDone, SubmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(Pin::new(&mut self.done).poll(cx));
        self.over = true;
        Poll::Ready(match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(refused)) => Err(SubmitError::Refused(Box::new(refused))),
            Err(_) => Err(SubmitError::Closed),
        })
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if !self.over {
            self.abort();
        }
    }
}

/// Why a command was not sent.
#[derive(Debug)]
pub enum SubmitError {
    /// It cannot be sent; here it is again.
    Refused(Box<Refused>),
    /// The session is over.
    Closed,
}

impl InitiatorHandle {
    /// Submits a command. It is sent when the target's window has room, in the order of the calls.
    pub fn submit(&self, command: Command) -> Submitted {
        let (answer, done) = oneshot::channel();
        let id = {
            let mut inbox = self.shared.inbox();
            inbox.next_id = inbox.next_id.wrapping_add(1);
            inbox.next_id
        };
        self.shared.post(Request::Submit(id, Box::new(command), answer));
        Submitted { id, done, shared: self.shared.clone(), over: false }
    }

    /// Asks for a task management function other than ABORT TASK and QUERY TASK, for whose tasks the handle has no
    /// names: see [`Submitted::abort`].
    ///
    /// # Errors
    /// [`SessionClosed`]; the inner error says why nothing was sent.
    pub async fn task_management(
        &self,
        function: TaskFunction,
    ) -> Result<Result<FunctionDone, FunctionRefusal>, SessionClosed> {
        self.ask(|answer| Request::Function(function, answer)).await
    }

    /// As [`InitiatorSession::text`].
    ///
    /// # Errors
    /// [`SessionClosed`]; the inner error says how the exchange failed.
    pub async fn text(&self, text: Bytes) -> Result<Result<Bytes, ExchangeFailure>, SessionClosed> {
        self.ask(|answer| Request::Text(text, answer)).await
    }

    /// As [`InitiatorSession::ping`], on the first connection.
    ///
    /// # Errors
    /// As for [`text`](Self::text).
    pub async fn ping(&self, data: Bytes) -> Result<Result<Bytes, ExchangeFailure>, SessionClosed> {
        self.ask(|answer| Request::Ping(data, answer)).await
    }

    /// Gives the session one more connection.
    pub fn add_connection(&self, connection: LoggedIn) {
        self.shared.post(Request::AddConnection(Box::new(connection)));
    }

    /// Closes the session in order; its future tells when that is done.
    pub fn logout(&self) {
        self.shared.post(Request::Logout);
    }

    /// Counters of the session and of its connections.
    ///
    /// # Errors
    /// [`SessionClosed`].
    pub async fn counters(&self) -> Result<(InitiatorCounters, Vec<Stats>), SessionClosed> {
        self.ask(Request::Counters).await
    }

    /// Memory that the leading connection moves without copying.
    #[must_use]
    pub fn pool(&self) -> &Arc<dyn BufPool> {
        &self.shared.pool
    }

    /// Whether both are hands on one session.
    #[must_use]
    pub fn same_session(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.inbox().closed
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, SessionClosed> {
        let (answer, result) = oneshot::channel();
        self.shared.post(request(answer));
        result.await.map_err(|_| SessionClosed)
    }
}

/// Runs a session, from its leading connection to its end. The future does all work; poll it on any one task. Events
/// for the owner come through the receiver; those that it does not take in time are lost, but for the end, which is
/// the future's output.
pub fn run_session(
    session: InitiatorSession,
    leading: LoggedIn,
) -> (InitiatorHandle, mpsc::Receiver<InitiatorEvent>, impl Future<Output = SessionEnded> + Send) {
    let (events, receiver) = mpsc::channel(64);
    let shared = Arc::new(Shared { inbox: Mutex::default(), pool: leading.datamover.pool().clone() });
    let handle = InitiatorHandle { shared: shared.clone() };
    let mut running = Running {
        session,
        links: Links::default(),
        shared,
        events,
        waiting: VecDeque::new(),
        tasks: HashMap::new(),
        tags: HashMap::new(),
        functions: HashMap::new(),
        exchanges: HashMap::new(),
        alarm: Alarm::default(),
        end: None,
    };
    running.add_connection(leading);
    (handle, receiver, running)
}

type TaskAnswer = oneshot::Sender<Result<TaskDone, Refused>>;

struct Running {
    session: InitiatorSession,
    links: Links,
    shared: Arc<Shared>,
    events: mpsc::Sender<InitiatorEvent>,
    /// Commands for which the window has had no room.
    waiting: VecDeque<(Id, Box<Command>, TaskAnswer)>,
    tasks: HashMap<TaskTag, (Id, TaskAnswer)>,
    tags: HashMap<Id, TaskTag>,
    functions: HashMap<u64, oneshot::Sender<Result<FunctionDone, FunctionRefusal>>>,
    exchanges: HashMap<ExchangeTag, oneshot::Sender<Result<Bytes, ExchangeFailure>>>,
    alarm: Alarm,
    end: Option<(SessionEnded, Instant)>,
}

impl Running {
    fn add_connection(&mut self, connection: LoggedIn) {
        let LoggedIn { datamover, negotiated } = connection;
        let setup = ConnSetup::new(Role::Initiator, &negotiated, datamover.pool().clone());
        let id = self.session.add_connection(now(), setup);
        self.links.add(id, datamover);
    }

    fn handle_requests(&mut self, cx: &mut Context<'_>, now: Instant) {
        let queue = {
            let mut inbox = self.shared.inbox();
            if !inbox.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                inbox.waker = Some(cx.waker().clone());
            }
            std::mem::take(&mut inbox.queue)
        };
        for request in queue {
            self.handle_request(request, now);
        }
    }

    fn handle_request(&mut self, request: Request, now: Instant) {
        match request {
            Request::Submit(id, command, answer) => {
                self.waiting.push_back((id, command, answer));
                self.submit_waiting(now);
            }
            Request::Abort(id) => self.abort(id, now),
            Request::Function(function, answer) => match self.session.task_management(now, function) {
                Ok(tag) => drop(self.functions.insert(tag.0, answer)),
                Err(refusal) => drop(answer.send(Err(refusal))),
            },
            Request::Text(text, answer) => {
                let begun = self.session.text(now, text);
                self.await_exchange(begun, answer);
            }
            Request::Ping(data, answer) => {
                let first = self.session.connections().map(|(id, _)| id).next();
                let begun = first
                    .ok_or(FunctionRefusal::NoConnection)
                    .and_then(|id| self.session.ping(now, id, &data));
                self.await_exchange(begun, answer);
            }
            Request::AddConnection(connection) => self.add_connection(*connection),
            Request::Logout => self.session.logout(now),
            Request::Counters(answer) => {
                let stats = self.links.stats().into_iter().map(|(_, s)| s).collect();
                let _ = answer.send((*self.session.counters(), stats));
            }
        }
    }

    fn await_exchange(
        &mut self,
        begun: Result<ExchangeTag, FunctionRefusal>,
        answer: oneshot::Sender<Result<Bytes, ExchangeFailure>>,
    ) {
        match begun {
            Ok(tag) => drop(self.exchanges.insert(tag, answer)),
            Err(FunctionRefusal::NoConnection) => drop(answer.send(Err(ExchangeFailure::ConnectionLost))),
            Err(_) => drop(answer.send(Err(ExchangeFailure::Busy))),
        }
    }

    fn abort(&mut self, id: Id, now: Instant) {
        // One that was not sent yet is not sent at all.
        if let Some(index) = self.waiting.iter().position(|(waiting, ..)| *waiting == id)
            && let Some((_, command, answer)) = self.waiting.remove(index)
        {
            let _ = answer.send(Err(Refused { command: *command, why: Refusal::Withdrawn }));
        }
        if let Some(tag) = self.tags.get(&id) {
            // It may be over already, or its connection gone: then it completes without this.
            let _ = self.session.abort(now, *tag);
        }
    }

    /// Sends what waits, as far as the window goes.
    fn submit_waiting(&mut self, now: Instant) {
        while let Some((id, command, answer)) = self.waiting.pop_front() {
            match self.session.submit(now, *command) {
                Ok(tag) => {
                    self.tags.insert(id, tag);
                    self.tasks.insert(tag, (id, answer));
                }
                Err(Refused { command, why: Refusal::WindowClosed }) => {
                    self.waiting.push_front((id, Box::new(command), answer));
                    return;
                }
                Err(refused) => drop(answer.send(Err(refused))),
            }
        }
    }

    fn complete(&mut self, completion: Completion) {
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

    /// Carries everything from where it is to where it goes; `true` when there was something.
    fn pump(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            let mut idle = true;
            while let Some((id, event)) = self.links.poll_event() {
                self.session.handle_event(now, id, event);
                idle = false;
            }
            while let Some(completion) = self.session.poll_completion() {
                self.complete(completion);
                idle = false;
            }
            self.submit_waiting(now);
            while let Some(action) = self.session.poll_action() {
                self.links.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.session.poll_event() {
                if let InitiatorEvent::Ended { closed, time2wait } = event {
                    self.end.get_or_insert((SessionEnded { closed, time2wait }, now + PARTING));
                }
                let _ = self.events.try_send(event);
                idle = false;
            }
            if idle {
                return busy;
            }
            busy = true;
        }
    }

    /// Arms the timer for the earliest thing to come; `true` when that is now.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let parting = self.end.as_ref().map(|(_, until)| *until);
        self.alarm.arm(cx, now, [self.session.poll_timeout(), self.links.poll_timeout(), parting])
    }
}

impl Future for Running {
    type Output = SessionEnded;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionEnded> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            let now = now();
            this.handle_requests(cx, now);
            this.links.handle_timeout(now);
            if this.session.poll_timeout().is_some_and(|at| at <= now) {
                this.session.handle_timeout(now);
            }
            let more = this.links.drive(cx, now);
            let busy = this.pump(now);
            if let Some((end, until)) = this.end
                && (this.links.is_empty() || now >= until)
            {
                return Poll::Ready(end);
            }
            if !more && !busy && !this.arm(cx, now) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.closed = true;
        inbox.queue.clear();
    }
}
