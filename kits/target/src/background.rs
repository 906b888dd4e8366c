//! Work that goes on without a nexus: formats, sanitizes, self-tests, files that have to reach the medium.
//!
//! It runs on a thread of its own with a handle of its own, so that it neither blocks a session nor ends with one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// What a thread will bring, once; a future that any number of tasks can await.
pub(crate) struct Job<T>(Arc<Mutex<Slot<T>>>);

struct Slot<T> {
    result: Option<T>,
    wakers: Vec<Waker>,
}

impl<T> Clone for Job<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Clone + Send + 'static> Job<T> {
    /// Starts `work` on a thread. A panic, or no thread to be had, brings `failed`.
    #[allow(clippy::disallowed_methods, reason = "the work outlives the session that asked for it")]
    pub(crate) fn start(name: &str, failed: T, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let job = Self(Arc::new(Mutex::new(Slot { result: None, wakers: Vec::new() })));
        let report = Report { job: job.clone(), failed: Some(failed) };
        let started = thread::Builder::new().name(name.into()).spawn(move || {
            let mut report = report;
            report.failed = Some(work());
        });
        if let Err(error) = started {
            tracing::error!(name, %error, "no thread for background work");
        }
        job
    }
}

/// Delivers the result however the thread ends.
struct Report<T: Clone + Send + 'static> {
    job: Job<T>,
    failed: Option<T>,
}

impl<T: Clone + Send + 'static> Drop for Report<T> {
    fn drop(&mut self) {
        let mut slot = lock(&self.job.0);
        slot.result = self.failed.take();
        let wakers = std::mem::take(&mut slot.wakers);
        drop(slot);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> Future for Job<T> {
    type Output = T;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = lock(&self.0);
        match &slot.result {
            Some(result) => Poll::Ready(result.clone()),
            None => {
                slot.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T: Clone + Send + 'static>(job: &Job<T>) -> T {
        loop {
            if let Some(result) = lock(&job.0).result.clone() {
                return result;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn brings_its_result_or_failure() {
        assert_eq!(wait(&Job::start("test", 0, || 7)), 7);
        assert_eq!(wait(&Job::start("test", 1, || panic!("on purpose"))), 1);
    }
}
