//! Locks on runs of logical blocks.
//!
//! COMPARE AND WRITE and ORWRITE read, decide and write "as one uninterrupted action" (SBC-3 clause 5.2): they lock
//! their blocks exclusively. Every other command that changes blocks holds a shared lock meanwhile, so that it is
//! either before or after, never in between. Reads take no lock.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The locks of a logical unit, shared by all its nexuses.
#[derive(Default)]
pub(crate) struct RangeLocks(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    held: Vec<Option<Lock>>,
    free: Vec<usize>,
    /// How many of `held` are exclusive.
    exclusive: usize,
    /// In the order of their arrival: a later request that conflicts with an earlier one waits behind it.
    waiting: VecDeque<Waiter>,
    next: u64,
}

#[derive(Clone, PartialEq, Eq)]
struct Lock {
    blocks: Range<u64>,
    exclusive: bool,
}

struct Waiter {
    ticket: u64,
    lock: Lock,
    waker: Waker,
}

impl Lock {
    fn conflicts(&self, other: &Self) -> bool {
        (self.exclusive || other.exclusive)
            && self.blocks.start < other.blocks.end
            && other.blocks.start < self.blocks.end
    }
}

/// A lock; released when dropped.
pub(crate) struct RangeGuard {
    locks: Arc<RangeLocks>,
    at: usize,
}

impl fmt::Debug for RangeGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeGuard({})", self.at)
    }
}

/// A request for a lock; waits in line from its first poll on.
pub(crate) struct Acquire {
    locks: Arc<RangeLocks>,
    lock: Lock,
    ticket: Option<u64>,
}

impl RangeLocks {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for a lock on `blocks` blocks from `lba` on.
    pub(crate) fn acquire(self: &Arc<Self>, lba: u64, blocks: u64, exclusive: bool) -> Acquire {
        let lock = Lock { blocks: lba..lba.saturating_add(blocks), exclusive };
        Acquire { locks: self.clone(), lock, ticket: None }
    }
}

impl Acquire {
    pub(crate) fn poll_lock(&mut self, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        let mut inner = self.locks.inner();
        let free = !inner
            .waiting
            .iter()
            .take_while(|w| Some(w.ticket) != self.ticket)
            .any(|w| w.lock.conflicts(&self.lock))
            && ((!self.lock.exclusive && inner.exclusive == 0)
                || !inner.held.iter().flatten().any(|held| held.conflicts(&self.lock)));
        if free {
            if let Some(ticket) = self.ticket.take() {
                inner.waiting.retain(|w| w.ticket != ticket);
            }
            inner.exclusive += usize::from(self.lock.exclusive);
            let lock = Some(self.lock.clone());
            let at = match inner.free.pop() {
                Some(at) => {
                    inner.held[at] = lock;
                    at
                }
                None => {
                    inner.held.push(lock);
                    inner.held.len() - 1
                }
            };
            return Poll::Ready(RangeGuard { locks: self.locks.clone(), at });
        }
        let waker = cx.waker().clone();
        match self.ticket {
            Some(ticket) => {
                inner.waiting.iter_mut().filter(|w| w.ticket == ticket).for_each(|w| w.waker = waker.clone());
            }
            None => {
                inner.next += 1;
                let ticket = inner.next;
                inner.waiting.push_back(Waiter { ticket, lock: self.lock.clone(), waker });
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Future for Acquire {
    type Output = RangeGuard;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        self.poll_lock(cx)
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut inner = self.locks.inner();
            inner.waiting.retain(|w| w.ticket != ticket);
            // Those behind may be free to go.
            inner.wake();
        }
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let mut inner = self.locks.inner();
        if let Some(lock) = inner.held[self.at].take() {
            inner.exclusive -= usize::from(lock.exclusive);
        }
        inner.free.push(self.at);
        inner.wake();
    }
}

impl Inner {
    fn wake(&self) {
        self.waiting.iter().for_each(|w| w.waker.wake_by_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire) -> Option<RangeGuard> {
        match acquire.poll_lock(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(guard) => Some(guard),
            Poll::Pending => None,
        }
    }

    #[test]
    fn exclusive_excludes_and_waits_its_turn() {
        let locks = Arc::new(RangeLocks::default());
        let shared = poll(&mut locks.acquire(0, 8, false)).unwrap();
        assert!(poll(&mut locks.acquire(4, 8, false)).is_some(), "shared locks do not exclude each other");
        let mut exclusive = locks.acquire(7, 1, true);
        assert!(poll(&mut exclusive).is_none());
        let mut late = locks.acquire(0, 100, false);
        assert!(poll(&mut late).is_none(), "a shared lock does not overtake a waiting exclusive one");
        assert!(poll(&mut locks.acquire(200, 1, true)).is_some(), "blocks beside are free");
        drop(shared);
        assert!(poll(&mut late).is_none());
        let guard = poll(&mut exclusive).unwrap();
        assert!(poll(&mut late).is_none());
        drop(guard);
        assert!(poll(&mut late).is_some());
    }

    #[test]
    fn a_dropped_request_is_out_of_line() {
        let locks = Arc::new(RangeLocks::default());
        let _held = poll(&mut locks.acquire(0, 1, false)).unwrap();
        let mut exclusive = locks.acquire(0, 1, true);
        assert!(poll(&mut exclusive).is_none());
        let mut shared = locks.acquire(0, 1, false);
        assert!(poll(&mut shared).is_none());
        drop(exclusive);
        assert!(poll(&mut shared).is_some());
    }
}
