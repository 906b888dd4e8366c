//! What the kernel says of writeback, so that nobody misses it.
//!
//! Linux tells a writeback error once per open file, to the first who syncs, whichever page it was about; afterwards
//! the pages are clean and syncing succeeds (errseq_t). So an error found by one sync may concern any write
//! since the last one, of whatever nexus, and "done" of another sync that ran at the same time proves nothing.
//! Hence two rules:
//!
//! - A sync that succeeded is believed when every sync that ran beside it has ended, too, without an error.
//! - After an error the disk refuses writes and flushes for good ([`BlockError::WritesLost`]): who wrote before and
//!   who comes later hear of it alike, until an administrator opens the disk again.

use super::super::workers::Ticket;
use super::super::{BlockError, Payload};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The syncs of a disk.
#[derive(Default)]
pub(super) struct Syncs {
    state: Mutex<State>,
    lost: AtomicBool,
}

#[derive(Default)]
struct State {
    next: u64,
    running: BTreeSet<u64>,
    /// Ended well, waiting for those below the number; in the order of the numbers.
    waiting: VecDeque<(u64, Ticket)>,
}

/// A sync under way. Dropping it without a word counts as a failure: nobody knows how it ended.
pub(super) struct Sync {
    of: Arc<Syncs>,
    number: u64,
    ended: bool,
}

impl Syncs {
    /// Whether writes that were reported as done are lost.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Before the system is asked.
    ///
    /// # Errors
    /// [`BlockError::WritesLost`].
    pub(super) fn begin(self: &Arc<Self>) -> Result<Sync, BlockError> {
        let mut state = self.state();
        if self.lost() {
            return Err(BlockError::WritesLost);
        }
        let number = state.next;
        state.next += 1;
        state.running.insert(number);
        Ok(Sync { of: self.clone(), number, ended: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one off the running ones and reports those that can be believed now.
    fn end(&self, number: u64, mut change: impl FnMut(&mut State)) {
        let mut state = self.state();
        state.running.remove(&number);
        change(&mut state);
        let oldest = state.running.first().copied().unwrap_or(state.next);
        let sure = match self.lost() {
            true => state.waiting.len(),
            false => state.waiting.partition_point(|(barrier, _)| *barrier <= oldest),
        };
        let sure: Vec<_> = state.waiting.drain(..sure).collect();
        drop(state);
        // Beside one that failed, it may be these whose data are lost.
        let result = || if self.lost() { Err(BlockError::Medium(None)) } else { Ok(Payload::None) };
        sure.into_iter().for_each(|(_, ticket)| ticket.done(result()));
    }
}

impl Sync {
    /// The system says that all is on the medium; `ticket` is reported when that can be believed.
    pub(super) fn succeeded(mut self, ticket: Ticket) {
        self.ended = true;
        let mut ticket = Some(ticket);
        self.of.end(self.number, |state| {
            let barrier = state.next;
            state.waiting.extend(ticket.take().map(|ticket| (barrier, ticket)));
        });
    }

    /// The system says that something is not on the medium. The one who asked is told of an error of its own: its data
    /// may be those.
    pub(super) fn failed(mut self, error: &io::Error, ticket: Ticket) {
        tracing::error!(%error, "data did not reach the medium: the disk refuses writes until it is opened again");
        self.ended = true;
        self.of.lose(self.number);
        ticket.done(Err(BlockError::Medium(None)));
    }

    /// The system was not asked, or failed before it came to that.
    pub(super) fn not_begun(mut self) {
        self.ended = true;
        self.of.end(self.number, |_| {});
    }
}

impl Syncs {
    fn lose(&self, number: u64) {
        self.end(number, |_| self.lost.store(true, Ordering::Release));
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        if !self.ended {
            self.of.lose(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::workers::Completions;
    use crate::block::{BlockDone, OpId};
    use std::task::{Context, Poll, Waker};

    fn ended(completions: &Completions) -> Vec<(u64, Result<(), BlockError>)> {
        let mut all = Vec::new();
        while let Poll::Ready(BlockDone { id, result }) =
            completions.poll(&mut Context::from_waker(Waker::noop()))
        {
            all.push((id.0, result.map(drop)));
        }
        all
    }

    fn error() -> io::Error {
        io::Error::from_raw_os_error(5)
    }

    #[test]
    fn alone_a_success_is_reported_at_once() {
        let (syncs, done) = (Arc::<Syncs>::default(), Completions::default());
        syncs.begin().unwrap().succeeded(done.ticket(OpId(1)));
        assert_eq!(ended(&done), [(1, Ok(()))]);
    }

    #[test]
    fn a_success_waits_for_what_ran_beside_it() {
        let (syncs, done) = (Arc::<Syncs>::default(), Completions::default());
        let (one, two) = (syncs.begin().unwrap(), syncs.begin().unwrap());
        two.succeeded(done.ticket(OpId(2)));
        assert_eq!(ended(&done), [], "the error may be told to the first");
        // One that begins later does not hold it up.
        let three = syncs.begin().unwrap();
        one.succeeded(done.ticket(OpId(1)));
        assert_eq!(ended(&done), [(2, Ok(()))], "and the first waits for the third");
        three.not_begun();
        assert_eq!(ended(&done), [(1, Ok(()))]);
    }

    #[test]
    fn an_error_is_told_to_all_that_ran_beside_it_and_to_all_that_come_later() {
        let (syncs, done) = (Arc::<Syncs>::default(), Completions::default());
        let (one, two, three) = (syncs.begin().unwrap(), syncs.begin().unwrap(), syncs.begin().unwrap());
        two.succeeded(done.ticket(OpId(2)));
        one.failed(&error(), done.ticket(OpId(1)));
        let medium = Err(BlockError::Medium(None));
        assert_eq!(ended(&done), [(2, medium), (1, medium)]);
        three.succeeded(done.ticket(OpId(3)));
        assert_eq!(ended(&done), [(3, medium)]);
        assert_eq!(syncs.begin().err(), Some(BlockError::WritesLost));
    }

    #[test]
    fn one_that_vanishes_is_a_failure() {
        let (syncs, done) = (Arc::<Syncs>::default(), Completions::default());
        let (one, two) = (syncs.begin().unwrap(), syncs.begin().unwrap());
        two.succeeded(done.ticket(OpId(2)));
        drop(one);
        assert_eq!(ended(&done), [(2, Err(BlockError::Medium(None)))]);
        assert!(syncs.lost());
    }
}
