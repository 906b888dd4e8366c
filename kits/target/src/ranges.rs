//! Locks on runs of logical blocks.
//!
//! COMPARE AND WRITE and ORWRITE read, decide and write "as one uninterrupted action" (SBC-3 clause 5.2): they lock
//! their blocks exclusively. Every other command that changes blocks holds a shared lock on those that it is writing
//! just now, so that they are written either before or after, never in between: a WRITE of several pieces takes a lock
//! for each, and none while the initiator has yet to send the data. Reads take no lock.
//!
//! While nobody wants blocks for itself, a shared lock is a count and nothing more: which blocks it is for is not
//! noted. An exclusive request ends that, waits for all that were only counted, and has the others noted from then on.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Set while locks are noted; the other bits count the shared ones that are not.
const NOTED: u32 = 1 << 31;

/// The locks of a logical unit, shared by all its nexuses.
#[derive(Default)]
pub(crate) struct RangeLocks {
    counted: AtomicU32,
    noted: Mutex<Inner>,
}

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
    /// Its place among those noted; `None`: it is only counted.
    at: Option<usize>,
}

impl fmt::Debug for RangeGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeGuard({:?})", self.at)
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
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shared lock on whatever blocks, if nobody has or wants an exclusive one.
    pub(crate) fn share(self: &Arc<Self>) -> Option<RangeGuard> {
        let mut now = self.counted.load(Ordering::Relaxed);
        while now & NOTED == 0 {
            // Acquire: what the last exclusive holder wrote is seen.
            match self.counted.compare_exchange_weak(now, now + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(RangeGuard { locks: self.clone(), at: None }),
                Err(other) => now = other,
            }
        }
        None
    }

    /// A request for a lock on `blocks` blocks from `lba` on.
    pub(crate) fn acquire(self: &Arc<Self>, lba: u64, blocks: u64, exclusive: bool) -> Acquire {
        let lock = Lock { blocks: lba..lba.saturating_add(blocks), exclusive };
        Acquire { locks: self.clone(), lock, ticket: None }
    }

    /// Goes back to counting when nothing exclusive is held or wanted. The caller holds the mutex, under which alone
    /// the mark is set and taken away.
    fn relax(&self, inner: &Inner) {
        if inner.exclusive == 0 && !inner.waiting.iter().any(|w| w.lock.exclusive) {
            self.counted.fetch_and(!NOTED, Ordering::Release);
        }
    }
}

impl Acquire {
    pub(crate) fn poll_lock(&mut self, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        if !self.lock.exclusive
            && self.ticket.is_none()
            && let Some(guard) = self.locks.share()
        {
            return Poll::Ready(guard);
        }
        let mut inner = self.locks.inner();
        // Those that were only counted may hold any block.
        let counted =
            self.lock.exclusive && self.locks.counted.fetch_or(NOTED, Ordering::AcqRel) & !NOTED > 0;
        let free = !counted
            && !inner
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
            return Poll::Ready(RangeGuard { locks: self.locks.clone(), at: Some(at) });
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
            self.locks.relax(&inner);
            // Those behind may be free to go.
            inner.wake();
        }
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let Some(at) = self.at else {
            // Release: what was written under the lock is seen by the next exclusive holder.
            if self.locks.counted.fetch_sub(1, Ordering::Release) == NOTED | 1 {
                self.locks.inner().wake();
            }
            return;
        };
        let mut inner = self.locks.inner();
        if let Some(lock) = inner.held[at].take() {
            inner.exclusive -= usize::from(lock.exclusive);
        }
        inner.free.push(at);
        self.locks.relax(&inner);
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
        // With this one about, shared locks are noted.
        let _beside = poll(&mut locks.acquire(500, 1, true)).unwrap();
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
    fn an_exclusive_lock_waits_for_all_that_were_only_counted() {
        let locks = Arc::new(RangeLocks::default());
        let counted = locks.share().unwrap();
        let mut exclusive = locks.acquire(1000, 1, true);
        assert!(poll(&mut exclusive).is_none(), "which blocks the counted one has is not known");
        assert!(locks.share().is_none(), "from now on locks are noted");
        let noted = poll(&mut locks.acquire(0, 8, false)).unwrap();
        drop(counted);
        let guard = poll(&mut exclusive).unwrap();
        assert!(poll(&mut locks.acquire(1000, 1, false)).is_none());
        drop((guard, noted));
        drop(exclusive);
        assert!(locks.share().is_some(), "counting again");
        assert_eq!(locks.counted.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_counted_lock_wakes_who_waits_for_it() {
        struct Woken(AtomicU32);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let locks = Arc::new(RangeLocks::default());
        let (first, second) = (locks.share().unwrap(), locks.share().unwrap());
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        let waker = Waker::from(woken.clone());
        let mut exclusive = locks.acquire(0, 1, true);
        assert!(exclusive.poll_lock(&mut Context::from_waker(&waker)).is_pending());
        drop(first);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        drop(second);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(poll(&mut exclusive).is_some());
    }

    #[test]
    fn threads_never_meet_in_an_exclusive_lock() {
        let (locks, inside) = (Arc::new(RangeLocks::default()), Arc::new(AtomicU32::new(0)));
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (locks, inside) = (locks.clone(), inside.clone());
                scope.spawn(move || {
                    for round in 0..2000 {
                        let exclusive = (round + thread) % 3 == 0;
                        let mut acquire = locks.acquire(0, 1, exclusive);
                        let guard = loop {
                            match poll(&mut acquire) {
                                Some(guard) => break guard,
                                None => std::thread::yield_now(),
                            }
                        };
                        let weight = if exclusive { 1 << 16 } else { 1 };
                        let others = inside.fetch_add(weight, Ordering::AcqRel);
                        let met = if exclusive { others > 0 } else { others >= 1 << 16 };
                        assert!(!met, "{others:#x} inside");
                        inside.fetch_sub(weight, Ordering::AcqRel);
                        drop(guard);
                    }
                });
            }
        });
        assert!(locks.share().is_some());
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
