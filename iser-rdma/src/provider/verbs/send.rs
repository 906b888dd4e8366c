//! The send queue: work requests are gathered, posted in one chain, and keep their memory until they complete.

use super::ffi::{self, SendWr, Sge};
use super::object::Qp;
use crate::rcap::{Stag, WrId};
use datamover::{SgList, SgListMut};
use std::collections::VecDeque;
use std::io;

/// What a work request stands for, with the memory that the device may touch.
pub(super) enum Work {
    /// A Send.
    Send(#[allow(dead_code, reason = "kept for the device")] SgList),
    /// A Write, and who wants to hear of its end.
    Write(#[allow(dead_code, reason = "kept for the device")] SgList, Option<WrId>),
    Read(WrId, SgListMut),
    /// A window is bound.
    Bind,
    /// A window is invalidated.
    Invalidate(Stag),
}

impl Work {
    /// Whether somebody waits for its completion.
    fn is_wanted(&self) -> bool {
        !matches!(self, Self::Bind | Self::Send(_) | Self::Write(_, None))
    }
}

pub(super) struct SendQueue {
    depth: usize,
    /// Number of the next work request.
    next: u64,
    /// Posted or gathered, oldest first.
    works: VecDeque<(u64, Work)>,
    requests: Vec<SendWr>,
    elements: Vec<Sge>,
    /// Requests without a completion of their own since the last with one.
    unsignaled: usize,
    /// Sends that have not completed.
    sends: usize,
    /// Of the others, those whose completion somebody waits for.
    wanted: usize,
    /// Where in `requests` the last Send is, when neither it nor anything behind it has a completion of its own.
    last_send: Option<usize>,
}

// SAFETY: the pointers in its requests mean something only while `ring` posts them; until then they are plain numbers,
// or those of windows and regions that may be used from any thread.
unsafe impl Send for SendQueue {}

impl SendQueue {
    pub(super) fn new(depth: usize) -> Self {
        Self {
            depth,
            next: 0,
            works: VecDeque::new(),
            requests: Vec::new(),
            elements: Vec::new(),
            unsignaled: 0,
            sends: 0,
            wanted: 0,
            last_send: None,
        }
    }

    pub(super) fn room(&self) -> usize {
        self.depth.saturating_sub(self.works.len())
    }

    /// Nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// Sends that are not known to have completed.
    pub(super) fn sends(&self) -> usize {
        self.sends
    }

    /// Whether somebody waits for a completion, or for room.
    pub(super) fn is_awaited(&self) -> bool {
        self.wanted > 0 || self.works.len() >= self.depth / 2
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.sends == 0 && self.requests.is_empty()
    }

    /// Gathers a request over `elements`. Reads, invalidations and Writes that somebody waits for complete on their own,
    /// and so does every k-th of the others, for their slots to come back. Of the Sends of a chain the last one does,
    /// unless something behind it does anyway: its completion says that those before it are through, and each completion
    /// may wake this end up.
    pub(super) fn push(&mut self, mut request: SendWr, elements: impl Iterator<Item = Sge>, work: Work) {
        let before = self.elements.len();
        self.elements.extend(elements);
        let count = self.elements.len().saturating_sub(before);
        let wanted = work.is_wanted();
        self.wanted = self.wanted.saturating_add(usize::from(wanted));
        self.unsignaled = if wanted { 0 } else { self.unsignaled.saturating_add(1) };
        if wanted || self.unsignaled >= self.depth / 4 {
            request.send_flags |= ffi::SEND_SIGNALED;
            self.unsignaled = 0;
            self.last_send = None;
        }
        if let Work::Send(_) = work {
            self.sends = self.sends.saturating_add(1);
            self.last_send = (request.send_flags & ffi::SEND_SIGNALED == 0).then_some(self.requests.len());
        }
        request.wr_id = self.next;
        request.num_sge = i32::try_from(count).unwrap_or(0);
        self.requests.push(request);
        self.works.push_back((self.next, work));
        self.next = self.next.wrapping_add(1);
    }

    fn signal_last_send(&mut self) {
        if let Some(last) = self.last_send.take().and_then(|at| self.requests.get_mut(at)) {
            last.send_flags |= ffi::SEND_SIGNALED;
            self.unsignaled = 0;
        }
    }

    /// Posts what was gathered.
    pub(super) fn ring(&mut self, qp: &mut Qp) -> io::Result<bool> {
        if self.requests.is_empty() {
            return Ok(false);
        }
        self.signal_last_send();
        let mut elements = self.elements.as_mut_ptr();
        let first = self.requests.as_mut_ptr();
        let count = self.requests.len();
        for n in 0..count {
            // SAFETY: `n` and `n + 1` (when used) are below the length; the vectors are not touched until the post is
            // done, so the pointers stay valid; each request uses as many elements as it pushed, in order.
            unsafe {
                let request = &mut *first.add(n);
                request.sg_list = elements;
                elements = elements.add(usize::try_from(request.num_sge).unwrap_or(0));
                request.next = if n + 1 < count { first.add(n + 1) } else { std::ptr::null_mut() };
            }
        }
        // SAFETY: the chain was just linked; the memory of every request is owned by `works` until it completes.
        let posted = unsafe { qp.post_send(&mut *first) };
        self.requests.clear();
        self.elements.clear();
        posted.map(|()| true)
    }

    /// Everything up to the request `id` has completed: hands it out, oldest first.
    pub(super) fn completed(&mut self, id: u64) -> Option<Work> {
        let (number, _) = self.works.front()?;
        // Numbers are consecutive and there are fewer than `depth` of them.
        if id.wrapping_sub(*number) > self.depth as u64 {
            return None;
        }
        let (_, work) = self.works.pop_front()?;
        if let Work::Send(_) = work {
            self.sends = self.sends.saturating_sub(1);
        }
        self.wanted = self.wanted.saturating_sub(usize::from(work.is_wanted()));
        Some(work)
    }

    /// The queue pair is gone: everything that was left.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Work> {
        self.requests.clear();
        self.elements.clear();
        (self.sends, self.wanted, self.last_send) = (0, 0, None);
        self.works.drain(..).map(|(_, work)| work)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ffi::WorkRequest;
    use super::*;
    use bytes::Bytes;

    fn push(queue: &mut SendQueue, work: Work) {
        queue.push(SendWr::new(ffi::WR_SEND), std::iter::empty(), work);
    }

    fn message() -> SgList {
        Bytes::from_static(b"response").into()
    }

    #[test]
    fn a_chain_has_one_completion_for_its_sends_and_gives_all_of_them_back() {
        let mut queue = SendQueue::new(64);
        for _ in 0..3 {
            push(&mut queue, Work::Write(message(), None));
            push(&mut queue, Work::Send(message()));
        }
        push(&mut queue, Work::Bind);
        queue.signal_last_send();
        let signaled: Vec<bool> =
            queue.requests.iter().map(|r| r.send_flags & ffi::SEND_SIGNALED != 0).collect();
        assert_eq!(signaled, [false, false, false, false, false, true, false]);
        // Posted.
        queue.requests.clear();
        assert!(!queue.is_flushed());
        let given: Vec<bool> =
            std::iter::from_fn(|| queue.completed(5)).map(|w| matches!(w, Work::Send(_))).collect();
        assert_eq!(given, [false, true, false, true, false, true]);
        assert!(queue.is_flushed());
        // A chain without a Send signals none for it.
        push(&mut queue, Work::Bind);
        queue.signal_last_send();
        assert!(queue.requests.iter().all(|r| r.send_flags & ffi::SEND_SIGNALED == 0));
    }

    #[test]
    fn a_completion_behind_the_last_send_speaks_for_it() {
        let mut queue = SendQueue::new(64);
        push(&mut queue, Work::Send(message()));
        push(&mut queue, Work::Read(WrId(1), SgListMut::new()));
        queue.signal_last_send();
        let signaled: Vec<bool> =
            queue.requests.iter().map(|r| r.send_flags & ffi::SEND_SIGNALED != 0).collect();
        assert_eq!(signaled, [false, true]);
        assert!(!queue.is_flushed());
        queue.requests.clear();
        assert!(matches!(queue.completed(1), Some(Work::Send(_))));
        assert!(matches!(queue.completed(1), Some(Work::Read(..))));
        assert!(queue.is_flushed());
        // One before it does not.
        push(&mut queue, Work::Read(WrId(2), SgListMut::new()));
        push(&mut queue, Work::Send(message()));
        queue.signal_last_send();
        assert_ne!(queue.requests[1].send_flags & ffi::SEND_SIGNALED, 0);
    }

    #[test]
    fn slots_come_back_though_nobody_waits_for_writes() {
        let mut queue = SendQueue::new(64);
        (0..32).for_each(|_| push(&mut queue, Work::Write(message(), None)));
        let signaled = queue.requests.iter().filter(|r| r.send_flags & ffi::SEND_SIGNALED != 0).count();
        assert_eq!(signaled, 2, "every 16th");
    }

    #[test]
    fn nobody_waits_for_sends_until_there_is_no_room() {
        let mut queue = SendQueue::new(64);
        for _ in 0..31 {
            push(&mut queue, Work::Send(message()));
        }
        assert!(!queue.is_awaited() && !queue.is_empty());
        push(&mut queue, Work::Send(message()));
        assert!(queue.is_awaited(), "half of the queue");
        while queue.completed(31).is_some() {}
        assert!(!queue.is_awaited() && queue.is_empty());
        for work in [Work::Read(WrId(1), SgListMut::new()), Work::Invalidate(Stag(3))] {
            push(&mut queue, work);
            assert!(queue.is_awaited());
            let last = queue.next - 1;
            assert!(queue.completed(last).is_some());
            assert!(!queue.is_awaited());
        }
    }

    #[test]
    fn reads_and_what_somebody_waits_for_complete_on_their_own() {
        let mut queue = SendQueue::new(64);
        push(&mut queue, Work::Read(WrId(1), SgListMut::new()));
        push(&mut queue, Work::Write(message(), Some(WrId(2))));
        push(&mut queue, Work::Invalidate(Stag(3)));
        assert!(queue.requests.iter().all(|r| r.send_flags & ffi::SEND_SIGNALED != 0));
    }
}
