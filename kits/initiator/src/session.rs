//! A session that outlives its connections: [`Session`].

use crate::bundle::{Bundle, Needed};
use crate::command::{DataDirection, Reply, ScsiCommand, ScsiError};
use crate::login::Endpoint;
use crate::transport::Transport;
use crate::{ConnectOptions, Error, IscsiUrl, UrlError};
use bytes::Bytes;
use datamover::{BufPool, IoBuf, SgListMut, Stats, TaskBuffers};
use iscsi_login::SessionGoal;
use iscsi_pdu::{Lun, Residual, ScsiStatus, TaskMgmtStatus};
use iscsi_session::driver::{InitiatorHandle, SubmitError, run_session};
use iscsi_session::initiator::{
    Command, InitiatorConfig, InitiatorEvent, InitiatorSession, Status, TaskDone, TaskFailure, TaskFunction,
};
use iscsi_session::login::LoggedIn;
use scsi_cmd::cdb;
use scsi_cmd::luns::LunList;
use scsi_cmd::{Sense, StatusQualifier};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Pause before the second attempt to log in again; it doubles up to [`MAX_PAUSE`].
pub(crate) const MIN_PAUSE: Duration = Duration::from_millis(100);
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The first attempt to log in again gets this part of the time that a login may take at all, each further one twice as
/// much. A target that has not done with the lost connection may leave a login unanswered for good, and answer the next:
/// LIO does over RDMA. It is then busy with the login that was given up for 15 seconds, hence more patience each time.
const FIRST_ATTEMPT: u32 = 4;

/// A session with a target: clones share it, and it is closed with the last of them.
///
/// It may have several connections ([`ConnectOptions::connections`]); a lost one is replaced while the others go on. At
/// error recovery level 2 ([`Preferences::error_recovery_level`](iscsi_login::Preferences)) commands outlive their
/// connection, be it the last: they go on over another one, and are executed once. At lower levels, when the last is lost
/// (or any at level 0), the session is reinstated with the same ISID, and commands whose fate is unknown are
/// sent again if they may be: reads and writes of blocks may be repeated, since the target has ended the first attempt
/// for good by then (RFC 7143 section 6.3.5). COMPARE AND WRITE, reservations and commands that this crate does not
/// know fail with [`Error::SessionLost`], for they may have been carried out.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    state: watch::Receiver<State>,
    /// Connections that are wanted.
    connections: watch::Sender<u16>,
    /// Tells the supervisor that the end is wanted.
    closing: watch::Sender<bool>,
    supervisor: AbortHandle,
    reinstatements: Arc<AtomicU64>,
    timeout: Duration,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &*self.inner.state.borrow()).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum State {
    Up {
        handle: InitiatorHandle,
        transport: Transport,
    },
    /// Being reinstated.
    Down,
    /// Given up; why.
    Lost(Arc<str>),
    Closed,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { transport, .. } => write!(f, "up over {transport}"),
            Self::Down => f.write_str("being reinstated"),
            Self::Lost(why) => write!(f, "lost: {why}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}

impl Session {
    /// Logs in to the target that a URL names.
    ///
    /// # Errors
    /// Those of the URL, the connection and the login.
    pub async fn connect(url: &IscsiUrl, options: &ConnectOptions) -> Result<Self, Error> {
        let target = url.target.clone().ok_or(UrlError::Missing("target"))?;
        let mut endpoint = Endpoint::new(&url.host, url.port, SessionGoal::Normal(target), options)?;
        let (logged_in, transport) = endpoint.log_in().await?;
        Ok(Self::supervise(endpoint, logged_in, transport))
    }

    fn supervise(endpoint: Endpoint, logged_in: LoggedIn, transport: Transport) -> Self {
        let timeout = endpoint.options.timeout;
        let closing = watch::Sender::new(false);
        let connections = watch::Sender::new(endpoint.options.connections);
        let running = start(&endpoint, logged_in, &connections);
        let (state, seen) = watch::channel(State::Up { handle: running.handle.clone(), transport });
        let reinstatements = Arc::new(AtomicU64::new(0));
        let owner = Owner {
            closing: closing.subscribe(),
            connections: connections.clone(),
            reinstatements: reinstatements.clone(),
        };
        let supervisor = tokio::spawn(supervise(endpoint, running, state, owner)).abort_handle();
        let inner = Inner { state: seen, connections, closing, supervisor, reinstatements, timeout };
        Self { inner: Arc::new(inner) }
    }

    /// What carries the session, for reports.
    #[must_use]
    pub fn transport(&self) -> String {
        match &*self.inner.state.borrow() {
            State::Up { transport, .. } => transport.to_string(),
            other => format!("{other:?}"),
        }
    }

    /// Connections that the session has now; 0 while it is down.
    #[must_use]
    pub fn connections(&self) -> usize {
        match &*self.inner.state.borrow() {
            State::Up { handle, .. } => handle.connections().borrow().len(),
            _ => 0,
        }
    }

    /// Wants another number of connections, at least 1 and at most what the target granted at the login. New ones are
    /// logged in and surplus ones, their commands over, are logged out while commands go on.
    pub fn set_connections(&self, wanted: u16) {
        self.inner.connections.send_replace(wanted);
    }

    /// Memory that the transport moves without copying; plain memory while the session is down or its pool is empty.
    #[must_use]
    pub fn alloc(&self, len: usize) -> SgListMut {
        let pool = match &*self.inner.state.borrow() {
            State::Up { handle, .. } => Some(handle.pool().clone()),
            _ => None,
        };
        alloc(pool.as_deref(), len)
    }

    /// Sends a command and waits for its end. Dropping the future cancels the command at the target.
    ///
    /// # Errors
    /// [`Error::Scsi`] when the target ends it with a status other than GOOD or CONDITION MET; others when it never
    /// ended.
    pub async fn execute(&self, command: ScsiCommand) -> Result<Reply, Error> {
        let limit = self.inner.timeout;
        let deadline = Instant::now() + limit;
        loop {
            let handle = match self.up() {
                Some(handle) => handle,
                None => tokio::time::timeout_at(deadline, self.handle())
                    .await
                    .map_err(|_| Error::TimedOut(limit.as_secs()))??,
            };
            // The session watches the time of all its commands; a timer for each would cost more than the rest.
            match handle.submit_by(prepare(&command, &**handle.pool()), deadline.into_std()).await {
                Ok(done) => match finish(done) {
                    // Another connection of the session takes it; or the session is lost, and refuses it.
                    Err(Error::SessionLost(_)) if command.may_repeat() => continue,
                    result => return result,
                },
                Err(SubmitError::TimedOut) => return Err(Error::TimedOut(limit.as_secs())),
                Err(SubmitError::Closed) if command.may_repeat() => (),
                Err(SubmitError::Closed) => return Err(Error::SessionLost("connection lost".into())),
                Err(SubmitError::Refused(refused)) => match refused.why {
                    iscsi_session::initiator::Refusal::NoConnection => (),
                    why => return Err(Error::Refused(why)),
                },
            }
            self.left(&handle, deadline).await?;
        }
    }

    /// The session's handle, if it is up.
    fn up(&self) -> Option<InitiatorHandle> {
        match &*self.inner.state.borrow() {
            State::Up { handle, .. } => Some(handle.clone()),
            _ => None,
        }
    }

    /// The session's handle, once it is up.
    async fn handle(&self) -> Result<InitiatorHandle, Error> {
        if let Some(handle) = self.up() {
            return Ok(handle);
        }
        let mut state = self.inner.state.clone();
        let settled = state.wait_for(|s| !matches!(s, State::Down)).await;
        match settled.as_deref() {
            Ok(State::Up { handle, .. }) => Ok(handle.clone()),
            Ok(State::Lost(why)) => Err(Error::SessionLost(why.to_string())),
            _ => Err(Error::Closed),
        }
    }

    /// Waits until the supervisor has noticed that `gone` is over.
    async fn left(&self, gone: &InitiatorHandle, deadline: Instant) -> Result<(), Error> {
        let mut state = self.inner.state.clone();
        let moved = state.wait_for(|s| !matches!(s, State::Up { handle, .. } if handle.same_session(gone)));
        match tokio::time::timeout_at(deadline, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::Closed),
            Err(_) => Err(Error::TimedOut(self.inner.timeout.as_secs())),
        }
    }

    /// Asks for a task management function. ABORT TASK is the dropping of [`execute`](Self::execute)'s future.
    ///
    /// # Errors
    /// [`Error::Function`] when nothing was sent, [`Error::Exchange`] when there was no answer.
    pub async fn task_management(&self, function: TaskFunction) -> Result<(TaskMgmtStatus, [u8; 3]), Error> {
        let handle = self.handle().await?;
        let done = handle.task_management(function).await.map_err(|_| Error::Closed)?;
        done.map_err(Error::Function)?.result.map_err(Error::Exchange)
    }

    /// Declares another MaxRecvDataSegmentLength on every connection, 512 to 2^24 - 1 bytes: negotiation in full feature
    /// phase (RFC 7143 section 6.4).
    ///
    /// # Errors
    /// [`Error::Exchange`]; connections before the one that failed have the new length.
    pub async fn declare_max_recv_data_segment_length(&self, length: u32) -> Result<(), Error> {
        let handle = self.handle().await?;
        let cids = handle.connections().borrow().clone();
        for cid in cids {
            let done = handle.declare_max_recv_data_segment_length(cid, length).await;
            done.map_err(|_| Error::Closed)?.map_err(Error::Exchange)?;
        }
        Ok(())
    }

    /// How often the session has been reinstated: its last connection was lost, or a target that gives connections no
    /// second chance dropped one.
    #[must_use]
    pub fn reinstatements(&self) -> u64 {
        self.inner.reinstatements.load(Ordering::Relaxed)
    }

    /// As [`stats`](Self::stats), for each connection.
    pub async fn connection_stats(&self) -> Option<Vec<Stats>> {
        let handle = match &*self.inner.state.borrow() {
            State::Up { handle, .. } => handle.clone(),
            _ => return None,
        };
        handle.counters().await.ok().map(|(_, connections)| connections)
    }

    /// What the session's connections moved, and what they had to copy; `None` while it is down.
    pub async fn stats(&self) -> Option<Stats> {
        let handle = match &*self.inner.state.borrow() {
            State::Up { handle, .. } => handle.clone(),
            _ => return None,
        };
        let (_, connections) = handle.counters().await.ok()?;
        Some(connections.into_iter().sum())
    }

    /// The LUNs of the target (REPORT LUNS), well-known ones left out.
    ///
    /// # Errors
    /// As for [`execute`](Self::execute).
    pub async fn report_luns(&self) -> Result<Vec<Lun>, Error> {
        let mut length = 4096;
        loop {
            let command = cdb::ReportLuns { allocation_length: length, ..cdb::ReportLuns::default() };
            let command = ScsiCommand::new(Lun::ZERO, command.into(), DataDirection::In(length));
            let reply = self.execute_patiently(command).await?;
            let (list, needed) = LunList::decode(&reply.data.to_bytes()).map_err(Error::Malformed)?;
            if needed.saturating_add(8) > length && length < 1 << 20 {
                length = needed.saturating_add(8).min(1 << 20);
                continue;
            }
            return Ok(list.0.into_iter().map(|l| Lun(l.0)).collect());
        }
    }

    /// As [`execute`](Self::execute), past the unit attentions of a new nexus.
    async fn execute_patiently(&self, command: ScsiCommand) -> Result<Reply, Error> {
        for _ in 0..8 {
            match self.execute(command.clone()).await {
                Err(Error::Scsi(e)) if e.is_unit_attention() => (),
                result => return result,
            }
        }
        self.execute(command).await
    }

    /// Logs out; other clones of the session end with it.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; the connection is closed all the same.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.closing.send_replace(true);
        let mut state = self.inner.state.clone();
        let closed = state.wait_for(|s| matches!(s, State::Closed | State::Lost(_)));
        match tokio::time::timeout(self.inner.timeout, closed).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TimedOut(self.inner.timeout.as_secs())),
        }
    }
}

/// Memory of a pool, or plain memory.
fn alloc(pool: Option<&dyn BufPool>, len: usize) -> SgListMut {
    pool.and_then(|p| p.alloc(len)).unwrap_or_else(|| IoBuf::zeroed(len).into())
}

fn prepare(command: &ScsiCommand, pool: &dyn BufPool) -> Command {
    let bytes = command.cdb.encode();
    let mut cdb = [0; 16];
    let (first, rest) = bytes.split_at(bytes.len().min(16));
    cdb[..first.len()].copy_from_slice(first);
    let buffers = match &command.data {
        DataDirection::None => TaskBuffers::none(),
        DataDirection::In(len) => {
            TaskBuffers { out: None, r#in: Some(alloc(Some(pool), *len as usize).into()) }
        }
        DataDirection::Out(data) => TaskBuffers { out: Some(data.clone().into()), r#in: None },
    };
    Command {
        // Never immediate: a command takes its turn (RFC 7143 section 10.6).
        // req: 7143-10.6-1
        immediate: false,
        lun: command.lun,
        attr: command.attr,
        priority: command.priority,
        cdb,
        extended_cdb: Bytes::copy_from_slice(rest),
        buffers,
    }
}

fn finish(done: TaskDone) -> Result<Reply, Error> {
    match done.result {
        Ok(Status { status: status @ (ScsiStatus::Good | ScsiStatus::ConditionMet), residual, .. }) => {
            let mut data = done.buffers.r#in.unwrap_or_default();
            if let Residual::Underflow(missing) = residual {
                data.truncate(data.len().saturating_sub(missing as usize));
            }
            Ok(Reply { status, data: data.freeze(), residual })
        }
        Ok(status) => {
            let sense = Sense::decode(&status.sense).ok();
            let qualifier = StatusQualifier(status.status_qualifier);
            Err(ScsiError { status: status.status, qualifier, sense }.into())
        }
        Err(TaskFailure::ServiceResponse(code)) => Err(Error::ServiceResponse(code)),
        Err(TaskFailure::Rejected(reason)) => Err(Error::Rejected(reason)),
        Err(TaskFailure::Aborted | TaskFailure::Terminated) => Err(Error::Aborted),
        Err(_) => Err(Error::SessionLost("connection lost".into())),
    }
}

/// A session engine at work.
struct Running {
    handle: InitiatorHandle,
    events: mpsc::Receiver<InitiatorEvent>,
    /// Tells the bundle that the session waits for a connection.
    needed: mpsc::UnboundedSender<Needed>,
    end: tokio::task::JoinHandle<iscsi_session::driver::SessionEnded>,
    bundle: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.bundle.abort();
        self.end.abort();
    }
}

fn start(endpoint: &Endpoint, logged_in: LoggedIn, connections: &watch::Sender<u16>) -> Running {
    let config = InitiatorConfig {
        // Unsolicited data arrives where the target has no buffer for it yet: over RDMA that is a copy, and the data
        // that is fetched costs no round trip of ours.
        unsolicited_data: !logged_in.negotiated.session.rdma_extensions,
        ping_after: Some(endpoint.options.keepalive),
        ping_timeout: endpoint.options.keepalive,
        ..InitiatorConfig::default()
    };
    let now = Instant::now().into_std();
    let leading = logged_in.negotiated.clone();
    let session = InitiatorSession::new(config, &leading, now);
    let (handle, events, run) = run_session(session, logged_in);
    let (needed, asked) = mpsc::unbounded_channel();
    let bundle = Bundle::new(endpoint, &leading, &handle).keep(connections.subscribe(), asked);
    Running { handle, events, needed, end: tokio::spawn(run), bundle: tokio::spawn(bundle).abort_handle() }
}

/// What the owner of a session wants, and is told.
struct Owner {
    closing: watch::Receiver<bool>,
    connections: watch::Sender<u16>,
    reinstatements: Arc<AtomicU64>,
}

/// Keeps the session up until it is to be closed or cannot be had again.
async fn supervise(
    mut endpoint: Endpoint,
    mut running: Running,
    state: watch::Sender<State>,
    mut owner: Owner,
) {
    let closing = &mut owner.closing;
    let mut up = Instant::now();
    let mut pause = Duration::ZERO;
    loop {
        let ended = tokio::select! {
            ended = &mut running.end => ended,
            () = wanted(closing) => {
                running.bundle.abort();
                running.handle.logout();
                let _ = (&mut running.end).await;
                state.send_replace(State::Closed);
                return;
            }
            Some(event) = running.events.recv() => {
                tracing::info!(?event, "from the session");
                if let InitiatorEvent::ConnectionNeeded { cid, not_before, .. } = event {
                    let _ = running.needed.send(Needed { cid, at: Instant::now() + not_before });
                }
                continue;
            }
        };
        state.send_replace(State::Down);
        // A target that takes logins and drops them at once is not helped by haste.
        pause =
            if up.elapsed() < MAX_PAUSE { (pause * 2).clamp(MIN_PAUSE, MAX_PAUSE) } else { Duration::ZERO };
        let wait = ended.map(|e| e.time2wait).unwrap_or_default().max(pause);
        tracing::warn!("connection lost; logging in again");
        let again = tokio::select! {
            again = log_in_again(&mut endpoint, wait) => again,
            () = wanted(closing) => {
                state.send_replace(State::Closed);
                return;
            }
        };
        match again {
            Ok((logged_in, transport)) => {
                running = start(&endpoint, logged_in, &owner.connections);
                owner.reinstatements.fetch_add(1, Ordering::Relaxed);
                up = Instant::now();
                state.send_replace(State::Up { handle: running.handle.clone(), transport });
            }
            Err(error) => {
                tracing::error!(%error, "session lost");
                state.send_replace(State::Lost(error.to_string().into()));
                return;
            }
        }
    }
}

/// Completes when the end is wanted.
async fn wanted(closing: &mut watch::Receiver<bool>) {
    // The sender lives in what aborts this very task when it goes.
    let _ = closing.wait_for(|c| *c).await;
}

/// Logs in again with growing pauses, until it works, makes no sense any more, or takes too long.
async fn log_in_again(endpoint: &mut Endpoint, wait: Duration) -> Result<(LoggedIn, Transport), Error> {
    let deadline = Instant::now() + endpoint.options.reconnect;
    let mut pause = MIN_PAUSE;
    let mut limit = endpoint.options.timeout / FIRST_ATTEMPT;
    // Time2Wait asks for patience; RFC 7143 section 7.4.5 lets a login before it fail, so it is kept.
    tokio::time::sleep(wait.min(endpoint.options.reconnect)).await;
    loop {
        let error = match endpoint.log_in_within(limit.min(endpoint.options.timeout)).await {
            Ok(up) => return Ok(up),
            Err(error) => error,
        };
        limit = limit.saturating_mul(2);
        let hopeless = error.login_failure().is_some_and(|f| !f.may_retry());
        if hopeless || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "login failed; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datamover::SlabPool;

    // req: 7143-10.6-1
    #[test]
    fn commands_take_their_turn() {
        let format = cdb::FormatUnit::default();
        let command = ScsiCommand::new(Lun::ZERO, format.into(), DataDirection::None);
        let sent = prepare(&command, &SlabPool::default());
        assert!(!sent.immediate);
        assert_eq!(sent.cdb[0], 0x04);
    }

    #[test]
    fn data_are_cut_to_what_came() {
        let read = |residual, status| TaskDone {
            tag: iscsi_session::TaskTag(0),
            result: Ok(Status { status, residual, ..Status::default() }),
            buffers: TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(100).into()) },
        };
        let length = |residual| finish(read(residual, ScsiStatus::Good)).unwrap().data.len();
        assert_eq!(length(Residual::None), 100);
        assert_eq!(length(Residual::Underflow(30)), 70);
        assert_eq!(length(Residual::Underflow(300)), 0);
        assert_eq!(length(Residual::Overflow(30)), 100);
        let busy = finish(read(Residual::None, ScsiStatus::Busy));
        assert!(matches!(busy, Err(Error::Scsi(e)) if e.status == ScsiStatus::Busy && e.sense.is_none()));
    }
}
