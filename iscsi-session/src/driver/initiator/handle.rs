//! The hand on an initiator's session: requests from any thread to the one that runs it.

use super::places::{CommandId, End, Places, State};
use crate::initiator::{
    Command, ExchangeFailure, FunctionDone, FunctionRefusal, InitiatorCounters, Refused, TaskDone,
    TaskFunction,
};
use crate::login::LoggedIn;
use bytes::Bytes;
use datamover::{BufPool, Stats};
use iscsi_pdu::{Cid, CmdSn};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

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

pub(super) type FunctionAnswer = oneshot::Sender<Result<FunctionDone, FunctionRefusal>>;
pub(super) type ExchangeAnswer = oneshot::Sender<Result<Bytes, ExchangeFailure>>;

pub(super) enum Request {
    /// With the time at which it is to have ended.
    Submit(CommandId, Command, Option<Instant>),
    Abort(CommandId, Option<FunctionAnswer>),
    Query(CommandId, FunctionAnswer),
    Function(TaskFunction, FunctionAnswer),
    Text(Bytes, ExchangeAnswer),
    Ping(Bytes, ExchangeAnswer),
    Declare(Cid, u32, ExchangeAnswer),
    CmdSn(oneshot::Sender<CmdSn>),
    AddConnection(Box<LoggedIn>),
    LogoutConnection(Cid, Duration),
    GiveUp,
    Logout,
    Counters(oneshot::Sender<(InitiatorCounters, Vec<Stats>)>),
}

/// Requests on their way from any thread to the session's, and ends of commands on their way back.
#[derive(Default)]
pub(super) struct Inbox {
    queue: VecDeque<Request>,
    waker: Option<Waker>,
    closed: bool,
    pub(super) places: Places,
}

pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    pool: Arc<dyn BufPool>,
    /// CIDs of the connections in full feature phase.
    connections: watch::Sender<Vec<Cid>>,
}

impl Shared {
    pub(super) fn new(pool: Arc<dyn BufPool>) -> Arc<Self> {
        Arc::new(Self { inbox: Mutex::default(), pool, connections: watch::Sender::default() })
    }

    /// What was asked for since the last call, into an empty queue; the waker is woken by what comes later.
    pub(super) fn take(&self, waker: &Waker, into: &mut VecDeque<Request>) {
        let mut inbox = self.inbox();
        if !inbox.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            inbox.waker = Some(waker.clone());
        }
        std::mem::swap(&mut inbox.queue, into);
    }

    /// Ends a command for who submitted it.
    pub(super) fn end(&self, id: CommandId, end: End) {
        let waker = self.inbox().places.end(id, end);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Tells which connections there are, if that has changed.
    pub(super) fn publish(&self, connections: impl Iterator<Item = Cid>) {
        let now: Vec<Cid> = connections.collect();
        self.connections.send_if_modified(|old| {
            let changed = *old != now;
            *old = now;
            changed
        });
    }

    /// The session is over: what was asked for and is not answered never will be.
    pub(super) fn close(&self) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        let queue = std::mem::take(&mut inbox.queue);
        let wakers = inbox.places.close();
        drop(inbox);
        drop(queue);
        wakers.into_iter().for_each(Waker::wake);
        self.connections.send_replace(Vec::new());
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, request: Request) {
        Self::post_to(self.inbox(), request);
    }

    fn post_to(mut inbox: MutexGuard<'_, Inbox>, request: Request) {
        if !inbox.closed {
            inbox.queue.push_back(request);
            if let Some(waker) = inbox.waker.take() {
                drop(inbox);
                waker.wake();
            }
        }
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, SessionClosed> {
        let (answer, result) = oneshot::channel();
        self.post(request(answer));
        result.await.map_err(|_| SessionClosed)
    }
}

/// A hand on a session that runs elsewhere: submits commands from any thread; cheap to clone.
#[derive(Clone)]
pub struct InitiatorHandle {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for InitiatorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitiatorHandle").field("closed", &self.shared.inbox().closed).finish()
    }
}

/// A command on its way. Ready with its end; dropped before, it asks for ABORT TASK.
pub struct Submitted {
    id: CommandId,
    shared: Arc<Shared>,
    over: bool,
}

impl Submitted {
    /// Asks for the command's end (ABORT TASK). The command still completes, then or otherwise.
    pub fn abort(&self) {
        self.shared.post(Request::Abort(self.id, None));
    }

    /// As [`abort`](Self::abort), and waits for the function's own end. [`FunctionRefusal::NoSuchTask`] when the
    /// command has not been sent, or is over.
    ///
    /// # Errors
    /// [`SessionClosed`]; the inner error says why nothing was sent.
    pub async fn abort_task(&self) -> Result<Result<FunctionDone, FunctionRefusal>, SessionClosed> {
        self.shared.ask(|answer| Request::Abort(self.id, Some(answer))).await
    }

    /// Asks the target whether it has the command (QUERY TASK, RFC 7144 section 6.3).
    ///
    /// # Errors
    /// As for [`abort_task`](Self::abort_task).
    pub async fn query_task(&self) -> Result<Result<FunctionDone, FunctionRefusal>, SessionClosed> {
        self.shared.ask(|answer| Request::Query(self.id, answer)).await
    }
}

impl Future for Submitted {
    type Output = Result<TaskDone, SubmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (end, _replaced) = self.shared.inbox().places.poll(self.id, cx);
        self.over |= end.is_ready();
        end
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if !self.over {
            // Outlives the lock.
            let left;
            let mut inbox = self.shared.inbox();
            left = inbox.places.abandon(self.id);
            if matches!(left, Some(State::Open(_))) {
                Shared::post_to(inbox, Request::Abort(self.id, None));
            }
        }
    }
}

/// Why a command was not sent.
#[derive(Debug)]
pub enum SubmitError {
    /// It cannot be sent; here it is again.
    Refused(Box<Refused>),
    /// Its time is up: its end was asked for (ABORT TASK), and is not waited for.
    TimedOut,
    /// The session is over.
    Closed,
}

impl InitiatorHandle {
    /// Submits a command. It is sent when the target's window has room, in the order of the calls.
    pub fn submit(&self, command: Command) -> Submitted {
        self.submit_until(command, None)
    }

    /// As [`submit`](Self::submit); a command that has not ended by then, sent or not, ends with
    /// [`SubmitError::TimedOut`], as if its future had been dropped. It costs the session no timer of its own.
    pub fn submit_by(&self, command: Command, deadline: Instant) -> Submitted {
        self.submit_until(command, Some(deadline))
    }

    fn submit_until(&self, command: Command, deadline: Option<Instant>) -> Submitted {
        let mut inbox = self.shared.inbox();
        let id = inbox.places.open();
        if inbox.closed {
            inbox.places.end(id, Err(SubmitError::Closed));
        }
        Shared::post_to(inbox, Request::Submit(id, command, deadline));
        Submitted { id, shared: self.shared.clone(), over: false }
    }

    /// Asks for a task management function other than ABORT TASK and QUERY TASK, for whose tasks the handle has no
    /// names: see [`Submitted::abort_task`] and [`Submitted::query_task`].
    ///
    /// # Errors
    /// [`SessionClosed`]; the inner error says why nothing was sent.
    pub async fn task_management(
        &self,
        function: TaskFunction,
    ) -> Result<Result<FunctionDone, FunctionRefusal>, SessionClosed> {
        self.ask(|answer| Request::Function(function, answer)).await
    }

    /// As [`InitiatorSession::text`](crate::initiator::InitiatorSession::text).
    ///
    /// # Errors
    /// [`SessionClosed`]; the inner error says how the exchange failed.
    pub async fn text(&self, text: Bytes) -> Result<Result<Bytes, ExchangeFailure>, SessionClosed> {
        self.ask(|answer| Request::Text(text, answer)).await
    }

    /// As [`InitiatorSession::ping`](crate::initiator::InitiatorSession::ping), on the first connection.
    ///
    /// # Errors
    /// As for [`text`](Self::text).
    pub async fn ping(&self, data: Bytes) -> Result<Result<Bytes, ExchangeFailure>, SessionClosed> {
        self.ask(|answer| Request::Ping(data, answer)).await
    }

    /// As [`InitiatorSession::declare_max_recv_data_segment_length`](
    /// crate::initiator::InitiatorSession::declare_max_recv_data_segment_length).
    ///
    /// # Errors
    /// As for [`text`](Self::text).
    pub async fn declare_max_recv_data_segment_length(
        &self,
        cid: Cid,
        length: u32,
    ) -> Result<Result<Bytes, ExchangeFailure>, SessionClosed> {
        self.ask(|answer| Request::Declare(cid, length, answer)).await
    }

    /// The CmdSN of the session's next command, which the login of a further connection carries
    /// (RFC 7143 section 11.12.8).
    ///
    /// # Errors
    /// [`SessionClosed`].
    pub async fn cmd_sn(&self) -> Result<CmdSn, SessionClosed> {
        self.ask(Request::CmdSn).await
    }

    /// Gives the session one more connection. That of a session that is over is closed.
    pub fn add_connection(&self, connection: LoggedIn) {
        self.shared.post(Request::AddConnection(Box::new(connection)));
    }

    /// Closes one connection in order; the session too, if it is the last. It takes no new commands, and is logged out
    /// when those under way are over, at the latest after `within`.
    pub fn logout_connection(&self, cid: Cid, within: Duration) {
        self.shared.post(Request::LogoutConnection(cid, within));
    }

    /// CIDs of the connections in full feature phase, as they change; none after the session's end.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<Vec<Cid>> {
        self.shared.connections.subscribe()
    }

    /// There will be no further connection where [`InitiatorEvent::ConnectionNeeded`] asked for one: the session ends,
    /// and what waits for the connection with it.
    ///
    /// [`InitiatorEvent::ConnectionNeeded`]: crate::initiator::InitiatorEvent::ConnectionNeeded
    pub fn give_up(&self) {
        self.shared.post(Request::GiveUp);
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
        self.shared.ask(request).await
    }
}
