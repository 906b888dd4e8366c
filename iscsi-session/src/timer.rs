//! The timers of a session: a small table, asked for its earliest entry.

use std::time::Instant;

/// Timers by kind: setting a kind again moves it.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    table: Vec<(K, Instant)>,
}

impl<K: Copy + PartialEq> Timers<K> {
    pub(crate) const fn new() -> Self {
        Self { table: Vec::new() }
    }

    pub(crate) fn set(&mut self, kind: K, at: Instant) {
        match self.table.iter_mut().find(|(k, _)| *k == kind) {
            Some(entry) => entry.1 = at,
            None => self.table.push((kind, at)),
        }
    }

    pub(crate) fn is_set(&self, kind: K) -> bool {
        self.table.iter().any(|(k, _)| *k == kind)
    }

    pub(crate) fn cancel(&mut self, kind: K) {
        self.table.retain(|(k, _)| *k != kind);
    }

    pub(crate) fn cancel_if(&mut self, mut gone: impl FnMut(K) -> bool) {
        self.table.retain(|(k, _)| !gone(*k));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.table.iter().map(|(_, at)| *at).min()
    }

    /// Takes one timer that is due, the earliest first.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (index, _) =
            self.table.iter().enumerate().filter(|(_, (_, at))| *at <= now).min_by_key(|(_, (_, at))| *at)?;
        Some(self.table.swap_remove(index).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn due_timers_come_earliest_first_and_once() {
        let t0 = Instant::now();
        let at = |s| t0 + Duration::from_secs(s);
        let mut timers = Timers::new();
        timers.set('a', at(3));
        timers.set('b', at(1));
        timers.set('c', at(9));
        timers.set('a', at(2));
        timers.set('d', at(1));
        timers.cancel('d');
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(t0), None);
        assert_eq!(
            (timers.pop_due(at(5)), timers.pop_due(at(5)), timers.pop_due(at(5))),
            (Some('b'), Some('a'), None)
        );
        timers.cancel_if(|k| k == 'c');
        assert_eq!(timers.next(), None);
    }
}
