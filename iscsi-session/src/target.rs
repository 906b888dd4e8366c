//! The target's session engine.
//!
//! ```text
//!   datamover events ──▶ handle_event ─┐                      ┌─▶ poll_task   (to the device server)
//!   TaskPort calls  ───────────────────┼─▶ TargetSession ─────┼─▶ poll_action (to the datamovers)
//!   handle_timeout, commands ──────────┘                      └─▶ poll_event  (to the owner)
//! ```

mod command;
mod config;
mod conn;
mod exchange;
mod function;
mod logout;
mod port;
mod reassign;
mod reclaim;
mod recovery;
mod respond;
mod retain;
mod snack;
mod task;
mod termination;
mod text;

use crate::action::{Action, ConnId, DownCall};
use crate::csm::{ConnEvent, ConnState};
use crate::device::{Function, Task, TaskTag};
use crate::fence::Fences;
use crate::order::OrderQueue;
use crate::setup::ConnSetup;
use crate::slab::{Key, Slab};
use crate::ssm::{SessionEvent, SessionMachine, SessionState};
use crate::tag_map::TagMap;
use crate::timer::Timers;
use crate::window::TargetWindow;
use conn::Conn;
use datamover::{BufPool, Cause, DataError, Event, Role, SgListMut};
use function::Running;
use iscsi_login::{IscsiName, Negotiated, SessionParams, SessionType};
use iscsi_pdu::{Cid, CmdSn, Itt, LogoutReason, Lun};
use logout::Logout;
pub(crate) use retain::TaskState;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use task::{Queued, Stage, TargetTask};

pub use config::{Functions, TargetConfig};
pub use text::{NoTargets, TargetDirectory};

/// Who is at the other end of a session, for SendTargets and for logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// InitiatorName.
    pub initiator: IscsiName,
    /// TargetName; `None` in a discovery session that named none.
    pub target: Option<IscsiName>,
}

/// What a session tells its device server; the driver makes the call of [`DeviceServer`](crate::DeviceServer) that
/// bears the name.
#[derive(Debug)]
#[allow(missing_docs)] // the arguments of those calls
pub enum TaskEvent {
    Execute(Task),
    WriteData { tag: TaskTag, offset: u32, data: SgListMut, result: Result<(), DataError> },
    Abort(TaskTag),
    TaskManagement(Function),
    CommandsCleared(Lun),
    NexusLoss,
}

/// What a session tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TargetEvent {
    /// A connection is over.
    ConnectionEnded {
        /// Which.
        conn: ConnId,
        /// Its CID.
        cid: Cid,
        /// Why.
        cause: EndCause,
    },
    /// The session is over, its tasks too: nothing follows, and the value may be dropped.
    Ended(SessionEnd),
}

/// Why a connection is over.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndCause {
    /// The initiator logged it out, or closed the session.
    LoggedOut,
    /// The initiator reinstated it, or the session.
    Reinstated,
    /// The datamover gave it up.
    Datamover(Cause),
    /// The initiator broke a rule that ends the connection; the text names it.
    Protocol(&'static str),
    /// No answer to a ping.
    Unresponsive,
    /// The target's owner wanted it to end.
    Shutdown,
    /// A task management function ended the session (TARGET COLD RESET, I_T NEXUS RESET).
    Reset,
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionEnd {
    /// The initiator closed it.
    Closed,
    /// The initiator reinstated it: a new session takes its place.
    Reinstated,
    /// Its last connection was lost, and no continuation came in time.
    TimedOut,
    /// The target's owner ended it.
    Shutdown,
    /// I_T NEXUS RESET.
    Reset,
    /// TARGET COLD RESET, on this session or another: all sessions with the target are to end
    /// ([`TargetSession::reset`]).
    ColdReset,
}

/// Counters of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TargetCounters {
    /// SCSI commands that were given to the device server.
    pub commands: u64,
    /// SCSI commands that ended with a response.
    pub responses: u64,
    /// Bytes of input sent.
    pub read_bytes: u64,
    /// Bytes of output received.
    pub write_bytes: u64,
    /// Tasks ended without a response.
    pub aborted: u64,
    /// Task management functions answered.
    pub functions: u64,
    /// Rejects sent.
    pub rejects: u64,
    /// Commands ignored: duplicates, or outside the window.
    pub ignored: u64,
    /// Late data of tasks that were over, dropped.
    pub stale_data: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    /// The connection was silent for long.
    Idle(ConnId),
    /// The answer to a ping is late; or, with none under way, a fence still waits for an acknowledgment.
    Ping(ConnId),
    /// The text exchange is stalled.
    Text(ConnId),
    /// The initiator did not log out though asked to.
    LogoutRequested(ConnId),
    /// The device server does not let go of the tasks that a logout waits for.
    Abort,
    /// Unsolicited data of some task is late, above ErrorRecoveryLevel 0.
    Bursts,
    /// The state of a lost connection (and, after the last, of the session) is kept no longer.
    Retain(ConnId),
}

/// A target's session, from its first connection in full feature phase to its end.
///
/// Calling order: [`add_connection`](Self::add_connection), then, in a loop, [`handle_event`](Self::handle_event)
/// for what the datamovers report and [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due; after each, [`poll_task`](Self::poll_task),
/// [`poll_action`](Self::poll_action) and [`poll_event`](Self::poll_event) until they give nothing more. The device
/// server answers through [`TaskPort`](crate::TaskPort), which the session implements, at any time between.
pub struct TargetSession {
    cfg: TargetConfig,
    params: SessionParams,
    peer: Peer,
    machine: SessionMachine,
    now: Instant,
    conns: Vec<Conn>,
    next_conn: u32,
    order: OrderQueue<Queued>,
    /// The greatest MaxCmdSN told to the initiator.
    told_max_cmd_sn: CmdSn,
    tasks: Slab<TargetTask>,
    by_itt: TagMap<Key>,
    orphans: usize,
    functions: Vec<Running>,
    next_function: u64,
    fences: Fences,
    /// Tasks that another nexus ended and that the initiator has not been told of, with FastAbort.
    terminated: Vec<(ConnId, Lun, Itt)>,
    /// Tasks that a function ended on another connection than its own, with FastAbort, until all there are over.
    unannounced: Vec<(ConnId, Lun, Itt)>,
    lost: Vec<recovery::Lost>,
    /// Logouts that are not answered yet, in the order of their arrival.
    logouts: Vec<Logout>,
    ending: Option<SessionEnd>,
    ended: bool,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
    upcalls: VecDeque<TaskEvent>,
    events: VecDeque<TargetEvent>,
    counters: TargetCounters,
    /// Grows each time that all actions have been taken.
    turn: u64,
    no_pool: Arc<dyn BufPool>,
}

impl TargetSession {
    /// A session as its leading login negotiated it; without connections yet.
    #[must_use]
    pub fn new(cfg: TargetConfig, negotiated: &Negotiated, now: Instant) -> Self {
        let peer =
            Peer { initiator: negotiated.initiator_name.clone(), target: negotiated.target_name.clone() };
        let window = TargetWindow::from_login(negotiated.exp_cmd_sn, negotiated.max_cmd_sn);
        Self::with_window(cfg, negotiated.session, peer, window, now)
    }

    /// As [`new`](Self::new), for logins that `iscsi-login` did not make. The window is that of the last Login
    /// Response.
    #[must_use]
    pub fn with_window(
        cfg: TargetConfig,
        params: SessionParams,
        peer: Peer,
        window: TargetWindow,
        now: Instant,
    ) -> Self {
        let mut machine = SessionMachine::new(Role::Target);
        machine.apply(SessionEvent::ConnectionInLogin);
        let order = OrderQueue::new(window);
        let told_max_cmd_sn = order.window().max_cmd_sn();
        Self {
            cfg,
            params,
            peer,
            machine,
            now,
            conns: Vec::new(),
            next_conn: 0,
            order,
            told_max_cmd_sn,
            tasks: Slab::new(),
            by_itt: TagMap::default(),
            orphans: 0,
            functions: Vec::new(),
            next_function: 0,
            fences: Fences::default(),
            terminated: Vec::new(),
            unannounced: Vec::new(),
            lost: Vec::new(),
            logouts: Vec::new(),
            ending: None,
            ended: false,
            timers: Timers::new(),
            actions: VecDeque::new(),
            upcalls: VecDeque::new(),
            events: VecDeque::new(),
            counters: TargetCounters::default(),
            turn: 1,
            no_pool: Arc::new(NoPool),
        }
    }

    /// A connection of this session has finished its login. One with the CID of an older connection reinstates it
    /// (RFC 7143 section 6.3.4): the tasks of the older one are ended without notice.
    // req: 7143-4.2.1-1, 7143-4.2.1-2
    pub fn add_connection(&mut self, now: Instant, setup: ConnSetup) -> ConnId {
        self.now = now;
        self.reinstate_connection(setup.cid);
        let id = ConnId(self.next_conn);
        self.next_conn = self.next_conn.wrapping_add(1);
        self.conns.push(Conn::new(id, setup, now));
        if self.machine.state() == SessionState::Failed {
            self.machine.apply(SessionEvent::ContinuationStarted);
            self.machine.apply(SessionEvent::ContinuationSucceeded);
        } else {
            self.machine.apply(SessionEvent::ConnectionLoggedIn);
        }
        if let Some(after) = self.cfg.ping_after.filter(|_| !self.is_discovery()) {
            self.timers.set(Timer::Idle(id), now + after);
        }
        self.progress();
        id
    }

    /// The session's negotiated parameters.
    #[must_use]
    pub const fn params(&self) -> &SessionParams {
        &self.params
    }

    /// Who is at the other end.
    #[must_use]
    pub const fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The session's state.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.machine.state()
    }

    /// Whether it ends, or is about to: no connection joins it any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some() || self.logouts.iter().any(|l| l.reason == LogoutReason::CloseSession)
    }

    /// A connection's state; [`ConnState::Free`] for one that is no more.
    #[must_use]
    pub fn conn_state(&self, conn: ConnId) -> ConnState {
        self.conns.iter().find(|c| c.id == conn).map_or(ConnState::Free, |c| c.machine.state())
    }

    /// Connections in full feature phase, with their CIDs.
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, Cid)> {
        self.conns.iter().filter(|c| c.machine.state().is_full_feature()).map(|c| (c.id, c.cid))
    }

    /// ExpCmdSN and MaxCmdSN, which the Login Responses of further connections carry.
    #[must_use]
    pub const fn window(&self) -> (CmdSn, CmdSn) {
        (self.order.window().exp_cmd_sn(), self.order.window().max_cmd_sn())
    }

    /// Tasks between arrival and response.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Counters since the session began.
    #[must_use]
    pub const fn counters(&self) -> &TargetCounters {
        &self.counters
    }

    /// What a datamover reports.
    pub fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        self.now = now;
        match event {
            Event::Control(control) => self.on_pdu(conn, control.pdu),
            Event::DataCompletion(done) => self.on_data_completion(done),
            Event::Window(window) => {
                self.heard(conn);
                self.acknowledged(conn, window.stat_sn);
            }
            Event::Invalid(invalid) => self.on_invalid(conn, invalid),
            Event::Terminated(terminated) => self.on_terminated(conn, terminated),
            // What comes back of an ended task returns to its pool.
            Event::TaskReclaimed { itt, .. } => self.on_task_reclaimed(conn, itt),
            // Acknowledged data is kept by nobody here.
            _ => {}
        }
        self.progress();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(timer) = self.timers.pop_due(now) {
            self.on_timer(timer);
        }
        self.progress();
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next call to the device server.
    pub fn poll_task(&mut self) -> Option<TaskEvent> {
        loop {
            // Most are on their way at once, and big: they are looked at where they are.
            if let TaskEvent::Execute(task) = self.upcalls.front()?
                && self.tasks.get(Key(task.tag.0)).is_some_and(|t| t.stage == Stage::Executing)
            {
                return self.upcalls.pop_front();
            }
            let event = self.upcalls.pop_front()?;
            // What has become of the task since the call was queued decides whether it is made.
            let stage = |tag: TaskTag| self.tasks.get(Key(tag.0)).map(|t| t.stage);
            match &event {
                TaskEvent::Execute(task) if stage(task.tag) != Some(Stage::Executing) => {
                    let key = Key(task.tag.0);
                    self.release(key);
                    self.progress();
                }
                TaskEvent::WriteData { tag, .. } if stage(*tag) != Some(Stage::Executing) => {}
                TaskEvent::Abort(tag) if self.tasks.get(Key(tag.0)).is_none_or(|t| t.reclaiming) => {}
                _ => return Some(event),
            }
        }
    }

    /// The next call to a datamover. When there is none, all numbers that connections carry are up to date.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            self.refresh_windows();
            self.seal_terminations();
        }
        // Once for all the input that is on its way, not with each task that ends meanwhile.
        if let Some(Action { conn, call: DownCall::PutData(_) }) = self.actions.front()
            && let Some(window) = self.stale_window(*conn)
        {
            return Some(window);
        }
        self.actions.pop_front()
    }

    /// The next message to the owner.
    pub fn poll_event(&mut self) -> Option<TargetEvent> {
        self.events.pop_front()
    }

    /// Whether what is lost in a connection is recovered there. On iSER nothing is (RFC 7145 section 10.2.1).
    // req: 7145-10.2.2-5
    fn recovers(&self) -> bool {
        self.params.error_recovery_level > 0 && !self.is_discovery() && !self.params.rdma_extensions
    }

    /// Whether tasks outlive their connection.
    fn reassigns(&self) -> bool {
        self.params.error_recovery_level >= 2 && !self.is_discovery()
    }

    fn is_discovery(&self) -> bool {
        self.params.session_type == SessionType::Discovery
    }

    fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.iter().find(|c| c.id == id)
    }

    fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|c| c.id == id)
    }

    fn conn_event(&mut self, id: ConnId, event: ConnEvent) {
        if let Some(conn) = self.conn_mut(id) {
            conn.machine.apply(event);
        }
    }

    /// Queues a call, unless the connection takes none any more.
    #[inline]
    fn call(&mut self, conn: ConnId, call: DownCall) {
        if self.conn(conn).is_some_and(|c| c.open) {
            self.actions.push_back(Action { conn, call });
        }
    }

    /// All that may have become possible.
    fn progress(&mut self) {
        // Almost always there is nothing about but commands and their responses.
        if self.is_plain() {
            self.deliver();
            if self.is_plain() {
                return;
            }
        }
        self.advance_fences();
        self.announce_terminations();
        self.announce_ended();
        // Functions first: what they end need not be delivered.
        self.advance_functions();
        self.deliver();
        while self.advance_functions() {
            self.deliver();
        }
        self.finish_logouts();
        self.finish_session();
        self.forget_gone();
    }

    /// Whether nothing waits for anything but its turn: no fence, function, termination, logout or end.
    fn is_plain(&self) -> bool {
        self.fences.is_empty()
            && self.functions.is_empty()
            && self.terminated.is_empty()
            && self.unannounced.is_empty()
            && self.ending.is_none()
            && self.logouts.is_empty()
            && !self.conns.iter().any(|c| c.gone)
    }
}

/// For calls about tasks that are over.
struct NoPool;

impl BufPool for NoPool {
    fn alloc(&self, _len: usize) -> Option<SgListMut> {
        None
    }

    fn chunk_len(&self) -> usize {
        0
    }

    fn outstanding(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests;
