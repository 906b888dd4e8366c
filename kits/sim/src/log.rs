//! What happens in a run: a hash of all of it, and words for who asks.

use std::fmt;
use std::time::{Duration, Instant};

/// Who is told what happens, and when.
type Listener = Box<dyn FnMut(Duration, &str)>;

/// Of one run.
pub(crate) struct Log {
    start: Instant,
    now: Duration,
    hash: u64,
    listener: Option<Listener>,
}

impl Log {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, now: Duration::ZERO, hash: 0xcbf2_9ce4_8422_2325, listener: None }
    }

    pub(crate) fn listen(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = now.duration_since(self.start);
        self.mix(self.now.as_nanos() as u64);
    }

    /// Virtual time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now
    }

    /// Something small happened.
    pub(crate) fn mix(&mut self, what: u64) {
        self.hash = crate::rng::mix(self.hash ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Something worth words happened. They cost nothing when nobody listens.
    pub(crate) fn tell(&mut self, who: &dyn fmt::Display, what: &dyn fmt::Display) {
        if let Some(listener) = &mut self.listener {
            listener(self.now, &format!("{who}: {what}"));
        }
    }

    /// Of everything so far: the same for the same run.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
