//! Where the ends of commands are put down and picked up: a place each, used again and again, so that a command
//! allocates nothing for its way back.

use super::handle::SubmitError;
use crate::initiator::TaskDone;
use std::task::{Context, Poll, Waker};

/// Names a command between handle and session: its place, and how often that was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CommandId {
    place: u32,
    generation: u32,
}

/// How a command ends for who submitted it.
pub(super) type End = Result<TaskDone, SubmitError>;

pub(super) enum State {
    /// Nobody's: in the list of free places.
    Free,
    /// No end yet; who is to be told of it.
    Open(Option<Waker>),
    /// To be picked up.
    Ended(End),
}

struct Place {
    generation: u32,
    state: State,
}

/// The places of a session's commands; as many as were ever under way at a time.
#[derive(Default)]
pub(super) struct Places {
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Places {
    /// A place for one more command.
    pub(super) fn open(&mut self) -> CommandId {
        if let Some(place) = self.free.pop()
            && let Some(found) = self.places.get_mut(place as usize)
        {
            found.state = State::Open(None);
            return CommandId { place, generation: found.generation };
        }
        // As many commands as 2^32 do not fit in memory.
        let place = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        self.places.push(Place { generation: 0, state: State::Open(None) });
        CommandId { place, generation: 0 }
    }

    /// Commands whose place is in use.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn find(&mut self, id: CommandId) -> Option<&mut Place> {
        self.places.get_mut(id.place as usize).filter(|place| place.generation == id.generation)
    }

    /// Whether somebody waits for its end.
    pub(super) fn is_open(&self, id: CommandId) -> bool {
        let place = self.places.get(id.place as usize);
        place.is_some_and(|p| p.generation == id.generation && matches!(p.state, State::Open(_)))
    }

    /// Puts an end down; whoever waits for it is to be woken. Dropped when nobody does.
    pub(super) fn end(&mut self, id: CommandId, end: End) -> Option<Waker> {
        let place = self.find(id)?;
        let State::Open(waker) = &mut place.state else { return None };
        let waker = waker.take();
        place.state = State::Ended(end);
        waker
    }

    /// Picks an end up, after which the place is free. With it comes the waker that this one replaces: to drop one may
    /// end a task, which may have commands of its own here, so that is not done under the lock.
    pub(super) fn poll(&mut self, id: CommandId, cx: &Context<'_>) -> (Poll<End>, Option<Waker>) {
        let Some(place) = self.find(id) else { return (Poll::Ready(Err(SubmitError::Closed)), None) };
        match &mut place.state {
            State::Open(Some(waker)) if waker.will_wake(cx.waker()) => (Poll::Pending, None),
            State::Open(waker) => (Poll::Pending, waker.replace(cx.waker().clone())),
            State::Ended(_) | State::Free => match self.release(id) {
                Some(State::Ended(end)) => (Poll::Ready(end), None),
                _ => (Poll::Ready(Err(SubmitError::Closed)), None),
            },
        }
    }

    /// Nobody waits for it any more: what was in its place, to be dropped without the lock.
    pub(super) fn abandon(&mut self, id: CommandId) -> Option<State> {
        self.release(id)
    }

    /// Ends all that are open; who waits for them is to be woken.
    pub(super) fn close(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for place in &mut self.places {
            if let State::Open(waker) = &mut place.state {
                wakers.extend(waker.take());
                place.state = State::Ended(Err(SubmitError::Closed));
            }
        }
        wakers
    }

    fn release(&mut self, id: CommandId) -> Option<State> {
        let place = self.find(id)?;
        let state = std::mem::replace(&mut place.state, State::Free);
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.place);
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::TaskTag;
    use datamover::TaskBuffers;

    fn done(tag: u64) -> End {
        Ok(TaskDone { tag: TaskTag(tag), result: Ok(Default::default()), buffers: TaskBuffers::none() })
    }

    fn tag((end, _): (Poll<End>, Option<Waker>)) -> Option<u64> {
        match end {
            Poll::Ready(Ok(done)) => Some(done.tag.0),
            _ => None,
        }
    }

    #[test]
    fn an_end_reaches_the_command_it_is_of() {
        let (mut places, cx) = (Places::default(), Context::from_waker(Waker::noop()));
        let (a, b) = (places.open(), places.open());
        assert!(places.poll(a, &cx).0.is_pending());
        assert!(places.end(a, done(1)).is_some(), "it was polled: somebody is to be woken");
        assert!(places.end(b, done(2)).is_none(), "it was not");
        assert!(places.end(b, done(3)).is_none());
        assert_eq!(tag(places.poll(b, &cx)), Some(2), "the first end counts");
        assert_eq!(tag(places.poll(a, &cx)), Some(1));
        assert_eq!(places.len(), 0);
    }

    // As with task tags: what comes late for a command that is over must not reach the next one in its place.
    #[test]
    fn a_place_used_again_does_not_take_what_is_of_the_one_before() {
        let (mut places, cx) = (Places::default(), Context::from_waker(Waker::noop()));
        let old = places.open();
        assert!(matches!(places.abandon(old), Some(State::Open(_))), "it had no end");
        let new = places.open();
        assert_eq!(new.place, old.place);
        assert!(!places.is_open(old) && places.is_open(new));
        assert!(places.end(old, done(1)).is_none());
        assert!(places.poll(new, &cx).0.is_pending());
        assert!(places.abandon(old).is_none(), "it is over");
        assert_eq!(places.len(), 1);
        places.end(new, done(2));
        assert_eq!(tag(places.poll(new, &cx)), Some(2));
    }

    #[test]
    fn a_closed_session_ends_all() {
        let (mut places, cx) = (Places::default(), Context::from_waker(Waker::noop()));
        let (open, ended) = (places.open(), places.open());
        assert!(places.poll(open, &cx).0.is_pending());
        places.end(ended, done(1));
        assert_eq!(places.close().len(), 1);
        assert!(matches!(places.poll(open, &cx).0, Poll::Ready(Err(SubmitError::Closed))));
        assert_eq!(tag(places.poll(ended, &cx)), Some(1), "what has ended stays so");
    }
}
