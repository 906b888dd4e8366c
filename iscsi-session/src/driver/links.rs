//! The connections of a driver, and the calls that their datamovers have no room for.
//!
//! ```text
//!   carry_out ─▶ datamover ─▶ full? ─▶ held ─▶ drive: offered again, in order, before anything later
//!                                        │
//!                answers piled up ───────┼─▶ no events are taken: the datamover stops to receive
//!                Connection_Terminate ───┴─▶ waits for PARTING, then goes past what is held
//! ```

use super::PARTING;
use crate::action::{Action, ConnId, DownCall};
use datamover::{Budget, Cause, Datamover, Event, Stats, Terminated};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

/// Answers that a connection may have waiting before it is read no further: the peer must take some first. A target
/// adds the command window: whoever keeps to that is never made to wait.
const HELD: usize = 256;

struct Link {
    id: ConnId,
    datamover: Box<dyn Datamover>,
    /// Calls that the datamover had no room for, in order.
    held: VecDeque<DownCall>,
    /// Of these, what answers the peer.
    answers: usize,
    parting: Parting,
    /// What an end that the datamover could not report itself looks like.
    failed: Option<Cause>,
}

/// Where a Connection_Terminate is that came while calls were held. What is in front of it may be a Logout Response
/// and gets some time; but a peer that takes nothing must not keep its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Parting {
    /// There is none, or it was made in its turn.
    No,
    /// Held since this turn.
    Asked,
    /// To be made then, whatever is in front of it.
    Until(Instant),
    /// Made; what is held is not called any more, its buffers go back with the end.
    Overdue,
}

impl Link {
    fn hold(&mut self, call: DownCall) {
        self.answers = self.answers.saturating_add(usize::from(is_answer(&call)));
        if matches!(call, DownCall::ConnectionTerminate) {
            self.parting = Parting::Asked;
        }
        self.held.push_back(call);
    }

    /// Makes calls that are held, as far as there is room; whether there was any.
    fn retry(&mut self) -> bool {
        let before = self.held.len();
        while self.parting != Parting::Overdue
            && let Some(call) = self.held.pop_front()
        {
            let (answers, last) = (is_answer(&call), matches!(call, DownCall::ConnectionTerminate));
            if let Err(call) = call.invoke(&mut *self.datamover) {
                self.held.push_front(call);
                break;
            }
            self.answers = self.answers.saturating_sub(usize::from(answers));
            if last {
                self.parting = Parting::No;
            }
        }
        self.held.len() < before
    }

    /// Whether nothing more is to be heard of the peer before it has taken answers. The last events of a connection
    /// come in any case, and so does everything when no more answers will: it holds buffers that others wait for.
    fn is_congested(&self, most: usize) -> bool {
        self.answers > most
            && self.parting == Parting::No
            && self.failed.is_none()
            && !self.datamover.is_ended()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let parting = if let Parting::Until(at) = self.parting { Some(at) } else { None };
        [self.datamover.poll_timeout(), parting].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.parting, Parting::Until(at) if at <= now) {
            self.parting = Parting::Overdue;
            self.datamover.connection_terminate();
        }
        if self.datamover.poll_timeout().is_some_and(|at| at <= now) {
            self.datamover.handle_timeout(now);
        }
    }
}

/// What the peer brings about, as often as it likes. An initiator's requests, which have an Initiator Task Tag, and
/// their unsolicited data are its own; Put_Data and Get_Data belong to commands, as many as the window allows.
fn is_answer(call: &DownCall) -> bool {
    match call {
        DownCall::SendControl(c) => !c.pdu.opcode().is_from_initiator() || c.pdu.itt().is_none(),
        _ => false,
    }
}

/// All connections of one session.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
    /// The widest command window that was seen.
    window: usize,
}

impl Links {
    /// One more connection, of a session that now lets the peer send `window` commands.
    pub(super) fn add(&mut self, id: ConnId, datamover: Box<dyn Datamover>, window: usize) {
        self.window = self.window.max(window);
        self.links.push(Link {
            id,
            datamover,
            held: VecDeque::new(),
            answers: 0,
            parting: Parting::No,
            failed: None,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Moves bytes on all connections, and makes calls that they have room for again; `true` when there is more to do
    /// at once.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut more = false;
        for link in &mut self.links {
            let mut budget = Budget::new(now);
            match link.datamover.poll_drive(cx, &mut budget) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => more = true,
                Poll::Ready(Err(e)) => link.failed = Some(Cause::Transport(e.kind())),
            }
            if link.held.is_empty() {
                continue;
            }
            if link.parting == Parting::Asked {
                link.parting = now.checked_add(PARTING).map_or(Parting::Asked, Parting::Until);
            }
            // Nobody wakes us to send what goes down only now.
            more |= link.retry();
        }
        more
    }

    /// The next event of any connection. After its last one, a connection is dropped.
    pub(super) fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        for index in 0..self.links.len() {
            let most = HELD.saturating_add(self.window);
            let link = self.links.get_mut(index)?;
            if link.is_congested(most) {
                continue;
            }
            match link.datamover.poll_event() {
                Some(Event::Terminated(terminated)) => return Some(self.ended(index, terminated)),
                Some(event) => return Some((link.id, event)),
                None => {}
            }
            if let Some(cause) = link.failed.take() {
                return Some(self.ended(index, Terminated { cause, reclaimed: Vec::new() }));
            }
        }
        None
    }

    /// The last event of a connection.
    fn ended(&mut self, index: usize, mut terminated: Terminated) -> (ConnId, Event) {
        let link = self.links.remove(index);
        link.held.into_iter().for_each(|call| call.reclaim(&mut terminated));
        (link.id, Event::Terminated(terminated))
    }

    /// Makes a call, now or when its datamover has room.
    pub(super) fn carry_out(&mut self, Action { conn, call }: Action) {
        let Some(link) = self.links.iter_mut().find(|l| l.id == conn) else { return };
        if !link.held.is_empty() {
            link.hold(call);
        } else if let Err(call) = call.invoke(&mut *link.datamover) {
            link.hold(call);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.iter().filter_map(Link::poll_timeout).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.links.iter_mut().for_each(|link| link.handle_timeout(now));
    }

    /// Counters of all connections that are there.
    pub(super) fn stats(&self) -> Vec<(ConnId, Stats)> {
        self.links.iter().map(|l| (l.id, l.datamover.stats())).collect()
    }
}

#[cfg(test)]
mod tests;
