//! The initiator's driver; [`super::target`] mirrors it.

mod handle;
mod pending;
mod places;

pub use handle::{InitiatorHandle, SessionClosed, SessionEnded, SubmitError, Submitted};

use super::alarm::Alarm;
use super::links::Links;
use super::{PARTING, ROUNDS, now};
use crate::initiator::{InitiatorEvent, InitiatorSession};
use crate::login::LoggedIn;
use crate::setup::ConnSetup;
use datamover::Role;
use handle::{Request, Shared};
use pending::Pending;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::sync::mpsc;

/// Runs a session, from its leading connection to its end. The future does all work; poll it on any one task. Events
/// for the owner come through the receiver; those that it does not take in time are lost, but for the end, which is
/// the future's output.
pub fn run_session(
    session: InitiatorSession,
    leading: LoggedIn,
) -> (InitiatorHandle, mpsc::Receiver<InitiatorEvent>, impl Future<Output = SessionEnded> + Send) {
    let (events, receiver) = mpsc::channel(64);
    let shared = Shared::new(leading.datamover.pool().clone());
    let handle = InitiatorHandle { shared: shared.clone() };
    let mut running = Running {
        session,
        links: Links::default(),
        shared,
        events,
        requests: VecDeque::new(),
        wakers: Vec::new(),
        pending: Pending::default(),
        alarm: Alarm::default(),
        end: None,
    };
    running.add_connection(leading);
    (handle, receiver, running)
}

struct Running {
    session: InitiatorSession,
    links: Links,
    shared: Arc<Shared>,
    events: mpsc::Sender<InitiatorEvent>,
    /// What was taken from the handles, and whom to wake: empty between turns, kept for their memory.
    requests: VecDeque<Request>,
    wakers: Vec<Waker>,
    pending: Pending,
    alarm: Alarm,
    end: Option<(SessionEnded, Instant)>,
}

impl Running {
    fn add_connection(&mut self, connection: LoggedIn) {
        let LoggedIn { datamover, negotiated } = connection;
        let setup = ConnSetup::new(Role::Initiator, &negotiated, datamover.pool().clone());
        let id = self.session.add_connection(now(), setup);
        // A target may ask for as many answers as it likes, but needs few.
        self.links.add(id, datamover, 0);
        self.publish_connections();
    }

    fn publish_connections(&self) {
        self.shared.publish(self.session.connections().map(|(_, cid)| cid));
    }

    fn handle_requests(&mut self, cx: &Context<'_>, now: Instant) {
        let mut requests = std::mem::take(&mut self.requests);
        self.shared.take(cx.waker(), &mut requests);
        for request in requests.drain(..) {
            if let Some(request) = self.pending.begin(&mut self.session, now, request, &self.shared) {
                self.handle_request(request, now);
            }
        }
        self.requests = requests;
        self.pending.expire(&mut self.session, now, &self.shared);
    }

    /// Hands the ends of commands and other requests over; `true` when there were any.
    fn complete(&mut self) -> bool {
        let Some(first) = self.session.poll_completion() else { return false };
        let mut inbox = self.shared.inbox();
        self.wakers.extend(self.pending.complete(first, &mut inbox.places));
        while let Some(completion) = self.session.poll_completion() {
            self.wakers.extend(self.pending.complete(completion, &mut inbox.places));
        }
        self.pending.forget_deadlines(&inbox.places);
        drop(inbox);
        self.wakers.drain(..).for_each(Waker::wake);
        true
    }

    fn handle_request(&mut self, request: Request, now: Instant) {
        match request {
            // It comes too late, and closes when it is dropped.
            Request::AddConnection(_) if self.end.is_some() => {}
            Request::AddConnection(connection) => self.add_connection(*connection),
            Request::LogoutConnection(cid, within) => {
                let id = self.session.connections().find(|(_, c)| *c == cid).map(|(id, _)| id);
                if let Some(id) = id {
                    self.session.retire_connection(now, id, within);
                }
            }
            Request::GiveUp => self.session.give_up(now),
            Request::Logout => self.session.logout(now),
            Request::CmdSn(answer) => drop(answer.send(self.session.window().cmd_sn())),
            Request::Counters(answer) => {
                let stats = self.links.stats().into_iter().map(|(_, s)| s).collect();
                let _ = answer.send((*self.session.counters(), stats));
            }
            _ => {}
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
            if self.complete() {
                idle = false;
            }
            self.pending.submit_waiting(&mut self.session, now, &self.shared);
            while let Some(action) = self.session.poll_action() {
                self.links.carry_out(action);
                idle = false;
            }
            while let Some(event) = self.session.poll_event() {
                if let InitiatorEvent::Ended { closed, time2wait } = event {
                    self.end.get_or_insert((SessionEnded { closed, time2wait }, now + PARTING));
                }
                if let InitiatorEvent::ConnectionEnded { .. } = event {
                    self.publish_connections();
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
        let deadline = self.pending.deadline();
        self.alarm.arm(cx, now, [self.session.poll_timeout(), self.links.poll_timeout(), parting, deadline])
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
        self.shared.close();
    }
}
