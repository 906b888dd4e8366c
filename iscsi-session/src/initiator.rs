//! The initiator's session engine.
//!
//! ```text
//!   datamover events ──▶ handle_event ──┐                         ┌─▶ poll_completion (to who submitted)
//!   submit, task_management, text, ─────┼─▶ InitiatorSession ─────┼─▶ poll_action     (to the datamovers)
//!   ping, logout, handle_timeout        ┘                         └─▶ poll_event      (to the owner)
//! ```

mod allegiance;
mod conn;
mod continuation;
mod entry;
mod exchange;
mod function;
mod join;
mod negotiation;
mod reassign;
mod recovery;
mod response;
mod snack;
mod task;

use crate::action::{Action, ConnId, DownCall};
use crate::csm::{ConnEvent, ConnState};
use crate::device::{FunctionTag, TaskTag};
use crate::slab::{Key, Slab};
use crate::ssm::{SessionMachine, SessionState};
use crate::status::Condition;
use crate::timer::Timers;
use crate::window::InitiatorWindow;
use bytes::Bytes;
use conn::Conn;
use datamover::{Cause, Event, Role, TaskBuffers};
use entry::Entry;
use iscsi_login::{Negotiated, SessionParams, SessionType};
use iscsi_pdu::{AsyncEvent, Cid, CmdSn, Lun, RejectReason, Residual, ScsiStatus, TaskAttr, TaskMgmtStatus};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use function::{FunctionRefusal, TaskFunction};

/// How an initiator's sessions behave, beyond what was negotiated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitiatorConfig {
    /// How long a connection may be silent before it is pinged; `None` never pings.
    pub ping_after: Option<Duration>,
    /// How long the answer to a ping may take before the connection counts as lost.
    pub ping_timeout: Duration,
    /// How long a logout may take.
    pub logout_timeout: Duration,
    /// Whether unsolicited Data-Out PDUs are sent when InitialR2T=No allows them; else immediate data only.
    pub unsolicited_data: bool,
    /// Most bytes of text that one exchange may bring.
    pub text_limit: usize,
    /// How long one response of a text exchange may take.
    pub text_timeout: Duration,
    /// Largest distance between a received StatSN and the one expected that is taken for loss; beyond it, for
    /// nonsense. At most 2^31 - 1.
    pub max_stat_sn_distance: u32,
    /// Above ErrorRecoveryLevel 0: how long a connection may be silent while something is under way before a ping finds
    /// out whether a request or a response was lost.
    pub probe_after: Duration,
    /// Above ErrorRecoveryLevel 0: how long responses that were asked for again may take.
    pub snack_timeout: Duration,
    /// How long the response to a task management function may take before its connection counts as lost: a request that
    /// got lost is not told from one that takes its time, and must not be carried out twice.
    pub function_timeout: Duration,
    /// At ErrorRecoveryLevel 2: how long the response to a TASK REASSIGN may take before its connection counts as lost.
    pub reassign_timeout: Duration,
}

impl Default for InitiatorConfig {
    fn default() -> Self {
        Self {
            ping_after: Some(Duration::from_secs(15)),
            ping_timeout: Duration::from_secs(15),
            logout_timeout: Duration::from_secs(15),
            unsolicited_data: true,
            text_limit: 4 << 20,
            text_timeout: Duration::from_secs(30),
            max_stat_sn_distance: 1 << 20,
            probe_after: Duration::from_secs(3),
            snack_timeout: Duration::from_secs(5),
            function_timeout: Duration::from_secs(60),
            reassign_timeout: Duration::from_secs(15),
        }
    }
}

/// A SCSI command.
#[derive(Debug, Default)]
pub struct Command {
    /// Logical unit.
    pub lun: Lun,
    /// Task attribute.
    pub attr: TaskAttr,
    /// Command priority, 0 to 15; sent when iSCSIProtocolLevel is 2 or more.
    pub priority: u8,
    /// First 16 bytes of the CDB, zero-filled.
    pub cdb: [u8; 16],
    /// Bytes 16 and up of a longer CDB, at most 244, else empty.
    pub extended_cdb: Bytes,
    /// Data to send and room for data to receive; each at most 2^32 - 1 bytes.
    pub buffers: TaskBuffers,
    /// Deliver at once, out of the order of commands.
    pub immediate: bool,
}

/// A command that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// The command.
    pub command: Command,
    /// Why.
    pub why: Refusal,
}

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The target's window is closed: offer it again after the next completion.
    WindowClosed,
    /// No connection takes commands.
    NoConnection,
    /// Buffers or CDB are longer than a SCSI Command can say.
    TooLong,
    /// The session is a discovery session.
    Discovery,
    /// Whoever submitted it gave it up before it was sent.
    Withdrawn,
}

/// Names a text exchange or a ping.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ExchangeTag(pub u64);

/// Something asked for is over.
#[derive(Debug)]
pub enum Completion {
    /// A command.
    Task(TaskDone),
    /// A task management function; the tasks that it ended come before.
    Function(FunctionDone),
    /// A text exchange.
    Text {
        /// Its name.
        tag: ExchangeTag,
        /// The target's text.
        result: Result<Bytes, ExchangeFailure>,
    },
    /// A ping.
    Ping {
        /// Its name.
        tag: ExchangeTag,
        /// The data that came back.
        result: Result<Bytes, ExchangeFailure>,
    },
}

/// End of a command.
#[derive(Debug)]
pub struct TaskDone {
    /// Its name.
    pub tag: TaskTag,
    /// How it ended.
    pub result: Result<Status, TaskFailure>,
    /// Its buffers.
    pub buffers: TaskBuffers,
}

/// What the target says of a command that it completed (RFC 7143 section 11.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// SCSI status.
    pub status: ScsiStatus,
    /// Status qualifier; 0 below iSCSIProtocolLevel 2.
    pub status_qualifier: u16,
    /// Sense data, or empty.
    pub sense: Bytes,
    /// Response data that followed it, or empty.
    pub response_data: Bytes,
    /// Residual of the only direction, or of the output.
    pub residual: Residual,
    /// Residual of the input of a bidirectional command.
    pub bidirectional_read_residual: Residual,
}

impl Status {
    /// What ends a command here whose input is lost: CHECK CONDITION, ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR
    /// (RFC 7143 section 11.4.7.2).
    // req: 7143-7.8-9
    fn protocol_service_crc() -> Self {
        let sense = Condition::ProtocolServiceCrc.sense();
        Self { status: ScsiStatus::CheckCondition, sense, ..Self::default() }
    }
}

/// Why a command ended without a SCSI status: SERVICE DELIVERY OR TARGET FAILURE, in the terms of SAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TaskFailure {
    /// The iSCSI service response was this, not 0 (section 11.4.3).
    ServiceResponse(u8),
    /// A task management function ended it.
    Aborted,
    /// The target announced the end of all tasks of the logical unit (Async Message event 5).
    Terminated,
    /// The target rejected the command.
    Rejected(RejectReason),
    /// Its connection is gone: whether it was executed is not known.
    ConnectionLost,
    /// It was logged out with its connection or session.
    LoggedOut,
}

/// End of a task management function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionDone {
    /// Its name.
    pub tag: FunctionTag,
    /// What it was.
    pub function: TaskFunction,
    /// The response and its additional information, or why there is none.
    pub result: Result<(TaskMgmtStatus, [u8; 3]), ExchangeFailure>,
}

/// Why a request other than a command got no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExchangeFailure {
    /// The target rejected it.
    Rejected(RejectReason),
    /// The connection is gone.
    ConnectionLost,
    /// No answer in time.
    TimedOut,
    /// Nothing was sent: as much is under way as may be.
    Busy,
    /// The target broke a rule of the exchange; the text names it.
    Protocol(&'static str),
}

/// What a session tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum InitiatorEvent {
    /// A connection is over.
    ConnectionEnded {
        /// Which.
        conn: ConnId,
        /// Its CID.
        cid: Cid,
        /// Why.
        cause: EndCause,
    },
    /// The last connection is lost, and its commands wait for another (ErrorRecoveryLevel 2): log in with the session's
    /// ISID and TSIH, with this CID or a new one, and [`add_connection`](InitiatorSession::add_connection). Otherwise
    /// the session ends.
    ConnectionNeeded {
        /// CID of the lost connection.
        cid: Cid,
        /// Time to wait before the login.
        not_before: Duration,
        /// Time until the commands are given up.
        within: Duration,
    },
    /// The session is over; nothing follows. To go on with the same nexus, log in with its ISID and TSIH 0 (session
    /// reinstatement, RFC 7143 section 6.3.5), not before `time2wait` has passed.
    Ended {
        /// Whether it was closed in order; else it failed.
        closed: bool,
        /// Time to wait before a new login.
        time2wait: Duration,
    },
    /// A SCSI asynchronous event (Async Message event 0).
    ScsiEvent {
        /// Logical unit.
        lun: Lun,
        /// Sense data.
        sense: Bytes,
    },
    /// The target asked for a logout of the connection; the session does it by itself.
    LogoutRequested(ConnId),
    /// The target announced the end of all tasks of a logical unit (event 5).
    TasksTerminated(Lun),
    /// An Async Message that means nothing to the session.
    OtherEvent {
        /// AsyncEvent.
        event: AsyncEvent,
        /// AsyncVCode.
        vendor_code: u8,
        /// The data segment.
        data: Bytes,
    },
    /// A PDU was rejected; what it belonged to is completed apart from this.
    Rejected {
        /// Why.
        reason: RejectReason,
        /// Its header.
        header: Bytes,
    },
}

/// Why a connection is over.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EndCause {
    /// It was logged out.
    LoggedOut,
    /// The logout failed or timed out.
    LogoutFailed,
    /// The datamover gave it up.
    Datamover(Cause),
    /// The target announced that it drops it (Async Message event 2 or 3).
    Dropped,
    /// The target broke a rule that ends the connection; the text names it.
    Protocol(&'static str),
    /// No answer to a ping.
    Unresponsive,
    /// Another connection of the session was lost, and the session could not go on without it: the error recovery
    /// level is 0.
    SessionRecovery,
}

/// Counters of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InitiatorCounters {
    /// Commands sent.
    pub commands: u64,
    /// Commands that ended with a status.
    pub responses: u64,
    /// Commands that ended otherwise.
    pub failures: u64,
    /// Task management functions sent.
    pub functions: u64,
    /// Rejects received.
    pub rejects: u64,
    /// Responses to what is over, dropped.
    pub stale_responses: u64,
    /// PDUs that the datamover could not deliver.
    pub invalid: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timer {
    /// The connection was silent for long.
    Idle(ConnId),
    /// The answer to a keepalive ping is late.
    Ping(ConnId),
    /// A text response is late.
    Text(Key),
    /// The target asked for a logout: it is due, tasks or not.
    LogoutDue(ConnId),
    /// The Logout Response is late.
    Logout(ConnId),
    /// The Logout Request may have got lost.
    RepeatLogout(ConnId),
    /// The target does not confirm that a lost connection is closed.
    Cleanup(ConnId),
    /// The answer to a Status SNACK is late.
    Snack(ConnId),
    /// The recovery of a lost connection can go on.
    Recover(ConnId),
    /// The recovery of a lost connection has taken too long.
    Retain(ConnId),
    /// The response to a TASK REASSIGN is late.
    Reassign(Key),
    /// The response to another function is late.
    Function(Key),
    /// A command lost input, and its status did not come along.
    InputLost(Key),
}

/// An initiator's session, from its first connection in full feature phase to its end.
///
/// Calling order: [`add_connection`](Self::add_connection), then, in a loop, [`handle_event`](Self::handle_event)
/// for what the datamovers report and [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due; commands at any time; after each,
/// [`poll_completion`](Self::poll_completion), [`poll_action`](Self::poll_action) and
/// [`poll_event`](Self::poll_event) until they give nothing more.
pub struct InitiatorSession {
    cfg: InitiatorConfig,
    params: SessionParams,
    machine: SessionMachine,
    now: Instant,
    conns: Vec<Conn>,
    next_conn: u32,
    window: InitiatorWindow,
    entries: Slab<Entry>,
    lost: Vec<continuation::Lost>,
    /// Numbers that went with a connection and are to be filled, when there is one for it.
    unfilled: Vec<CmdSn>,
    /// Counts pings: what was sent between two of them has the same turn.
    turn: u64,
    time2wait: u16,
    closed: bool,
    /// All its connections were taken out of service: none joins any more.
    abandoned: bool,
    /// The session is to be closed, and no connection could say so: all were on their way out. One may still join.
    leaving: bool,
    ended: bool,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
    completions: VecDeque<Completion>,
    events: VecDeque<InitiatorEvent>,
    counters: InitiatorCounters,
}

impl InitiatorSession {
    /// A session as its leading login negotiated it; without connections yet.
    #[must_use]
    pub fn new(cfg: InitiatorConfig, negotiated: &Negotiated, now: Instant) -> Self {
        let window = InitiatorWindow::new(negotiated.cmd_sn, negotiated.exp_cmd_sn, negotiated.max_cmd_sn);
        Self::with_window(cfg, negotiated.session, window, now)
    }

    /// As [`new`](Self::new), for logins that `iscsi-login` did not make.
    #[must_use]
    pub fn with_window(
        cfg: InitiatorConfig,
        params: SessionParams,
        window: InitiatorWindow,
        now: Instant,
    ) -> Self {
        // req: 7143-4.2.2.2-3
        let cfg = InitiatorConfig { max_stat_sn_distance: cfg.max_stat_sn_distance.min(0x7fff_ffff), ..cfg };
        Self {
            cfg,
            params,
            machine: SessionMachine::new(Role::Initiator),
            now,
            conns: Vec::new(),
            next_conn: 0,
            window,
            entries: Slab::new(),
            lost: Vec::new(),
            unfilled: Vec::new(),
            turn: 0,
            time2wait: params.default_time2wait,
            closed: false,
            abandoned: false,
            leaving: false,
            ended: false,
            timers: Timers::new(),
            actions: VecDeque::new(),
            completions: VecDeque::new(),
            events: VecDeque::new(),
            counters: InitiatorCounters::default(),
        }
    }

    /// The session's negotiated parameters.
    #[must_use]
    pub const fn params(&self) -> &SessionParams {
        &self.params
    }

    /// The session's state.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.machine.state()
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

    /// The command window.
    #[must_use]
    pub const fn window(&self) -> &InitiatorWindow {
        &self.window
    }

    /// Requests without an answer yet, commands and others.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.entries.len()
    }

    /// Counters since the session began.
    #[must_use]
    pub const fn counters(&self) -> &InitiatorCounters {
        &self.counters
    }

    /// What a datamover reports.
    pub fn handle_event(&mut self, now: Instant, conn: ConnId, event: Event) {
        self.now = now;
        match event {
            Event::Control(control) => self.on_pdu(conn, control.pdu, control.buffers),
            Event::TaskReclaimed { itt, reclaimed } => self.on_reclaimed(conn, itt, reclaimed.buffers),
            Event::Window(window) => {
                self.heard(conn);
                self.window.update(window.exp_cmd_sn, window.max_cmd_sn);
            }
            Event::Invalid(_) => {
                self.heard(conn);
                self.counters.invalid += 1;
                self.probe(conn);
            }
            Event::DataCompletion(done) if done.result.is_err() => self.on_input_lost(conn, done.itt),
            Event::Terminated(terminated) => self.on_terminated(conn, terminated),
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

    /// The next thing that is over.
    pub fn poll_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// The next call to a datamover. When there is none, all numbers that connections carry are up to date.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() {
            self.refresh_windows();
        }
        self.actions.pop_front()
    }

    /// The next message to the owner.
    pub fn poll_event(&mut self) -> Option<InitiatorEvent> {
        self.events.pop_front()
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
    fn call(&mut self, conn: ConnId, call: DownCall) {
        if self.conn(conn).is_some_and(|c| c.open) {
            self.actions.push_back(Action { conn, call });
        }
    }

    fn progress(&mut self) {
        self.clean_up_lost();
        self.follow_retries();
        self.send_postponed();
        self.recover();
        self.log_out_when_due();
        self.finish_session();
    }
}

#[cfg(test)]
mod tests;
