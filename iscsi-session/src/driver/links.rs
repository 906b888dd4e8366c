//! The connections of a driver.

use crate::action::{Action, ConnId, DownCall};
use datamover::{Budget, Cause, Datamover, Event, Stats, Terminated};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

/// Calls that a connection may have waiting before it is read no further: the peer must take answers first.
const HELD: usize = 256;

struct Link {
    id: ConnId,
    datamover: Box<dyn Datamover>,
    /// Calls that the datamover had no room for, in order.
    held: VecDeque<DownCall>,
    /// What an end that the datamover could not report itself looks like.
    failed: Option<Cause>,
}

impl Link {
    fn retry(&mut self) {
        while let Some(call) = self.held.pop_front() {
            if let Err(call) = call.invoke(&mut *self.datamover) {
                self.held.push_front(call);
                return;
            }
        }
    }

    /// Answers that pile up make the connection wait; data calls do not, for they need events to go on.
    fn is_congested(&self) -> bool {
        self.held.len() > HELD && matches!(self.held.front(), Some(DownCall::SendControl(_)))
    }
}

/// All connections of one session.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
}

impl Links {
    pub(super) fn add(&mut self, id: ConnId, datamover: Box<dyn Datamover>) {
        self.links.push(Link { id, datamover, held: VecDeque::new(), failed: None });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Moves bytes on all connections; `true` when a budget ran out first.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut more = false;
        for link in &mut self.links {
            let mut budget = Budget::new(now);
            match link.datamover.poll_drive(cx, &mut budget) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => more = true,
                Poll::Ready(Err(e)) => link.failed = Some(Cause::Transport(e.kind())),
            }
        }
        more
    }

    /// The next event of any connection. After its last one, a connection is dropped.
    pub(super) fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        for index in 0..self.links.len() {
            let link = self.links.get_mut(index)?;
            if !link.held.is_empty() {
                link.retry();
                if link.is_congested() && link.failed.is_none() {
                    continue;
                }
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
            link.held.push_back(call);
        } else if let Err(call) = call.invoke(&mut *link.datamover) {
            link.held.push_back(call);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.iter().filter_map(|l| l.datamover.poll_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for link in &mut self.links {
            if link.datamover.poll_timeout().is_some_and(|at| at <= now) {
                link.datamover.handle_timeout(now);
            }
        }
    }

    /// Counters of all connections that are there.
    pub(super) fn stats(&self) -> Vec<(ConnId, Stats)> {
        self.links.iter().map(|l| (l.id, l.datamover.stats())).collect()
    }
}
