//! Threads for blocking I/O, and the way back to a handle that waits in a future.

use super::{Action, BlockDone, BlockError, BlockOp, Full, OpId, Payload};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded queue of jobs and a fixed number of threads that do them. The threads end when the pool is dropped and
/// the queue is empty.
pub(super) struct Workers(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    depth: usize,
}

struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workers {
    /// `threads` threads; at most `depth` jobs wait.
    #[allow(clippy::disallowed_methods, reason = "a backend of blocking system calls needs threads")]
    pub(super) fn new(name: &str, threads: usize, depth: usize) -> std::io::Result<Self> {
        let state = State { jobs: VecDeque::new(), closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), depth });
        let workers = Self(shared);
        for _ in 0..threads.max(1) {
            let shared = workers.0.clone();
            thread::Builder::new().name(name.chars().take(15).collect()).spawn(move || shared.work())?;
        }
        Ok(workers)
    }

    /// Queues what is to be done with an operation, which comes back when the queue is full.
    pub(super) fn queue(
        &self,
        op: BlockOp,
        ticket: Ticket,
        work: impl FnOnce(Action, Ticket) + Send + 'static,
    ) -> Result<(), Full> {
        let mut state = lock(&self.0.state);
        if state.jobs.len() >= self.0.depth {
            ticket.cancel();
            return Err(Full(op));
        }
        state.jobs.push_back(Box::new(move || work(op.action, ticket)));
        drop(state);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Queues a job though the queue be full: for what was begun and has to be ended, which is bounded elsewhere.
    pub(super) fn spawn_anyway(&self, job: impl FnOnce() + Send + 'static) {
        lock(&self.0.state).jobs.push_back(Box::new(job));
        self.0.wake.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        lock(&self.0.state).closed = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut state = lock(&self.state);
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            // A job that panics has reported its failure already (see `Ticket`); the thread goes on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }
}

/// Where the threads leave what they have finished for one handle.
#[derive(Clone, Default)]
pub(super) struct Completions(Arc<Mutex<Done>>);

#[derive(Default)]
struct Done {
    queue: VecDeque<BlockDone>,
    waker: Option<Waker>,
}

impl Completions {
    /// The duty to report one operation.
    pub(super) fn ticket(&self, id: OpId) -> Ticket {
        Ticket { id, to: Some(self.clone()) }
    }

    pub(super) fn push(&self, done: BlockDone) {
        let mut inner = lock(&self.0);
        inner.queue.push_back(done);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// One that is there.
    pub(super) fn pop(&self) -> Option<BlockDone> {
        lock(&self.0).queue.pop_front()
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        let mut inner = lock(&self.0);
        match inner.queue.pop_front() {
            Some(done) => Poll::Ready(done),
            None => {
                match &mut inner.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

/// Reports exactly one end of an operation: that the device failed, if dropped before [`done`](Self::done).
pub(super) struct Ticket {
    id: OpId,
    to: Option<Completions>,
}

impl Ticket {
    pub(super) fn done(mut self, result: Result<Payload, BlockError>) {
        if let Some(to) = self.to.take() {
            to.push(BlockDone { id: self.id, result });
        }
    }
}

impl Ticket {
    /// There is nothing to report: the operation was not begun.
    pub(super) fn cancel(mut self) {
        self.to = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            to.push(BlockDone { id: self.id, result: Err(BlockError::Device) });
        }
    }
}
