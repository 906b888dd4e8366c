//! The target's driver; [`super::initiator`] mirrors it.

use super::alarm::Alarm;
use super::links::Links;
use super::members::{JoinRefusal, Members};
use super::{PARTING, ROUNDS, now};
use crate::action::ConnId;
use crate::device::DeviceServer;
use crate::login::LoggedIn;
use crate::setup::ConnSetup;
use crate::target::{SessionEnd, TargetCounters, TargetEvent, TargetSession, TaskEvent};
use datamover::{Role, Stats};
use iscsi_pdu::{Cid, CmdSn};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What the owner of a session may want of it.
enum Message {
    AddConnection(Box<LoggedIn>),
    Reinstate,
    Reset,
    DropConnection(Cid),
    RequestNegotiation(Duration),
    RequestLogout(Option<Cid>, Duration),
    Shutdown,
    Counters(oneshot::Sender<(TargetCounters, Vec<Stats>)>),
}

/// A hand on a session that runs elsewhere; cheap to clone. After the session's end its calls do nothing.
#[derive(Clone, Debug)]
pub struct TargetControl {
    messages: mpsc::UnboundedSender<Message>,
    /// ExpCmdSN in the upper, MaxCmdSN in the lower half.
    window: Arc<AtomicU64>,
    members: Arc<Members>,
}

impl TargetControl {
    /// The session's connections in full feature phase.
    #[must_use]
    pub fn connections(&self) -> Vec<Cid> {
        self.members.lock().open.clone()
    }

    /// Counts a connection that is about to join, or to reinstate the one with its CID: the last thing before its
    /// login succeeds. Taken back by [`withdraw`](Self::withdraw), made true by
    /// [`add_connection`](Self::add_connection).
    ///
    /// # Errors
    /// [`JoinRefusal`].
    pub fn join(&self, cid: Cid, max_connections: u16) -> Result<(), JoinRefusal> {
        self.members.lock().join(cid, max_connections)
    }

    /// The login of a connection that was counted has failed.
    pub fn withdraw(&self, cid: Cid) {
        self.members.lock().withdraw(cid);
    }

    /// Gives the session one more connection, or one that reinstates another. That of a session that ends is closed.
    pub fn add_connection(&self, connection: LoggedIn) {
        let _ = self.messages.send(Message::AddConnection(Box::new(connection)));
    }

    /// Ends the session because the initiator reinstates it. The new session may begin when the old one's future is
    /// ready, or [`closed`](Self::closed) is.
    pub fn reinstate(&self) {
        let _ = self.messages.send(Message::Reinstate);
    }

    /// Asks the initiator to log out, and drops its connections when it has not done so `within`.
    pub fn request_logout(&self, within: Duration) {
        let _ = self.messages.send(Message::RequestLogout(None, within));
    }

    /// Asks the initiator to log one connection out (Async Message event 1), as
    /// [`request_logout`](Self::request_logout) does for all.
    pub fn request_logout_of(&self, cid: Cid, within: Duration) {
        let _ = self.messages.send(Message::RequestLogout(Some(cid), within));
    }

    /// Drops one connection, and tells the initiator (event 2).
    pub fn drop_connection(&self, cid: Cid) {
        let _ = self.messages.send(Message::DropConnection(cid));
    }

    /// Asks the initiator to negotiate parameters on every connection (event 4).
    pub fn request_negotiation(&self, within: Duration) {
        let _ = self.messages.send(Message::RequestNegotiation(within));
    }

    /// Ends the session as by a TARGET COLD RESET, which another session got.
    pub fn reset(&self) {
        let _ = self.messages.send(Message::Reset);
    }

    /// Ends the session now; the initiator is told.
    pub fn shutdown(&self) {
        let _ = self.messages.send(Message::Shutdown);
    }

    /// Counters of the session and of its connections; `None` after its end.
    pub async fn counters(&self) -> Option<(TargetCounters, Vec<Stats>)> {
        let (answer, counters) = oneshot::channel();
        self.messages.send(Message::Counters(answer)).ok()?;
        counters.await.ok()
    }

    /// Waits for the session's end.
    pub async fn closed(&self) {
        self.messages.closed().await;
    }

    /// ExpCmdSN and MaxCmdSN as of the session's last turn, for the Login Responses of further connections.
    #[must_use]
    pub fn window(&self) -> (CmdSn, CmdSn) {
        let both = self.window.load(Ordering::Relaxed);
        (CmdSn((both >> 32) as u32), CmdSn(both as u32))
    }
}

/// Runs a session, from its leading connection to its end, with the device server behind its nexus. The future does
/// all work; poll it on any one task.
pub fn serve_session(
    session: TargetSession,
    leading: LoggedIn,
    device: Box<dyn DeviceServer>,
) -> (TargetControl, impl Future<Output = SessionEnd> + Send) {
    let (sender, messages) = mpsc::unbounded_channel();
    let window = Arc::new(AtomicU64::new(0));
    let members = Arc::new(Members::default());
    let control = TargetControl { messages: sender, window: window.clone(), members: members.clone() };
    let mut running = Running {
        session,
        device,
        links: Links::default(),
        messages,
        window,
        members,
        alarm: Alarm::default(),
        end: None,
    };
    running.add_connection(leading);
    (control, running)
}

struct Running {
    session: TargetSession,
    device: Box<dyn DeviceServer>,
    links: Links,
    messages: mpsc::UnboundedReceiver<Message>,
    window: Arc<AtomicU64>,
    members: Arc<Members>,
    alarm: Alarm,
    /// Why the session is over, and until when its connections may go on sending.
    end: Option<(SessionEnd, Instant)>,
}

impl Running {
    fn add_connection(&mut self, connection: LoggedIn) {
        let LoggedIn { datamover, negotiated } = connection;
        let setup = ConnSetup::new(Role::Target, &negotiated, datamover.pool().clone());
        let id = self.session.add_connection(now(), setup);
        let (exp, max) = self.session.window();
        self.links.add(id, datamover, max.0.wrapping_sub(exp.0).wrapping_add(1) as usize);
        self.publish_window();
        self.publish_connections();
    }

    fn publish_window(&self) {
        let (exp, max) = self.session.window();
        self.window.store(u64::from(exp.0) << 32 | u64::from(max.0), Ordering::Relaxed);
    }

    fn publish_connections(&self) {
        let mut members = self.members.lock();
        members.open.clear();
        members.open.extend(self.session.connections().map(|(_, cid)| cid));
        members.ending = self.session.is_ending();
    }

    fn handle_messages(&mut self, cx: &mut Context<'_>, now: Instant) {
        while let Poll::Ready(Some(message)) = self.messages.poll_recv(cx) {
            match message {
                Message::AddConnection(connection) => {
                    let cid = connection.negotiated.cid;
                    if !self.session.is_ending() {
                        self.add_connection(*connection);
                    }
                    self.members.lock().withdraw(cid);
                }
                Message::Reinstate => self.session.reinstate(now),
                Message::RequestLogout(cid, within) => {
                    self.each(|c| cid.is_none_or(|cid| cid == c), |s, id| s.request_logout(now, id, within));
                }
                Message::Reset => self.session.reset(now),
                Message::DropConnection(cid) => self.each(|c| c == cid, |s, id| s.drop_connection(now, id)),
                Message::RequestNegotiation(within) => {
                    self.each(|_| true, |s, id| s.request_negotiation(now, id, within));
                }
                Message::Shutdown => self.session.shutdown(now),
                Message::Counters(answer) => {
                    let stats = self.links.stats().into_iter().map(|(_, s)| s).collect();
                    let _ = answer.send((*self.session.counters(), stats));
                }
            }
        }
    }

    fn each(&mut self, wanted: impl Fn(Cid) -> bool, mut act: impl FnMut(&mut TargetSession, ConnId)) {
        let chosen: Vec<_> =
            self.session.connections().filter(|(_, cid)| wanted(*cid)).map(|(id, _)| id).collect();
        chosen.into_iter().for_each(|id| act(&mut self.session, id));
    }

    /// Carries everything from where it is to where it goes; `true` when there was something.
    fn pump(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut busy = false;
        loop {
            let mut idle = true;
            while let Some((id, event)) = self.links.poll_event() {
                self.session.handle_event(now, id, event);
                idle = false;
            }
            while let Some(event) = self.session.poll_task() {
                self.route(event);
                idle = false;
            }
            while self.device.poll(cx, now, &mut self.session).is_ready() {
                idle = false;
            }
            while let Some(action) = self.session.poll_action() {
                self.links.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.session.poll_event() {
                match event {
                    TargetEvent::Ended(end) => {
                        self.end.get_or_insert((end, now + PARTING));
                    }
                    TargetEvent::ConnectionEnded { .. } => {}
                }
                self.publish_connections();
                idle = false;
            }
            if idle {
                return busy;
            }
            busy = true;
        }
    }

    fn route(&mut self, event: TaskEvent) {
        let (device, port) = (&mut self.device, &mut self.session);
        match event {
            TaskEvent::Execute(task) => device.execute(task, port),
            TaskEvent::WriteData { tag, offset, data, result } => {
                device.write_data(tag, offset, data, result, port);
            }
            TaskEvent::Abort(tag) => device.abort(tag, port),
            TaskEvent::TaskManagement(function) => device.task_management(function, port),
            TaskEvent::CommandsCleared(lun) => device.commands_cleared(lun),
            TaskEvent::NexusLoss => device.nexus_loss(),
        }
    }

    /// Arms the timer for the earliest thing to come; `true` when that is now.
    fn arm(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let parting = self.end.as_ref().map(|(_, until)| *until);
        self.alarm.arm(cx, now, [self.session.poll_timeout(), self.links.poll_timeout(), parting])
    }
}

impl Future for Running {
    type Output = SessionEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        let this = self.get_mut();
        for _ in 0..ROUNDS {
            let now = now();
            this.handle_messages(cx, now);
            this.links.handle_timeout(now);
            if this.session.poll_timeout().is_some_and(|at| at <= now) {
                this.session.handle_timeout(now);
            }
            let more = this.links.drive(cx, now);
            let busy = this.pump(cx, now);
            this.publish_window();
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
