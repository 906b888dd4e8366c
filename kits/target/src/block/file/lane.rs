//! A handle's io_uring: operations as calls of the kernel, begun together, ended through the reactor.
//!
//! ```text
//!   submit ──▶ queue ── poll_done: one io_uring_enter ──▶ kernel
//!                         ▲                                 │
//!                         └── ring's descriptor readable ◀──┘
//! ```
//! What a call cannot do, or did not do for reasons of its own (EAGAIN, ECANCELED because the thread that began it has
//! ended), is done anew by the threads.

use super::super::uring::{self, Buffers, Call, Ended, Ring};
use super::super::workers::Ticket;
use super::super::{Action, BlockError, Payload};
use super::medium::{Medium, Outcome, copy};
use super::storage::Alignment;
use super::sync::Sync;
use datamover::{SgList, SgListMut};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;

pub(super) use uring::available;

/// A ring and what tells of its completions.
pub(super) struct Lane {
    readable: AsyncFd<OwnedFd>,
    ring: Ring<Op>,
}

/// An operation under way.
struct Op {
    ticket: Ticket,
    work: Work,
}

enum Work {
    /// `done` bytes from `lba` on are there. `home` is where they belong when direct I/O refused it.
    Read {
        lba: u64,
        blocks: u32,
        done: usize,
        home: Option<SgListMut>,
    },
    /// With `sync`, to the medium.
    Write {
        lba: u64,
        done: usize,
        sync: Option<Sync>,
    },
    Flush(Sync),
    Zero {
        lba: u64,
        blocks: u64,
        unmap: bool,
        fua: bool,
    },
    Prefetch,
}

impl Lane {
    pub(super) fn open(medium: &Medium) -> io::Result<Self> {
        let file = medium.file.descriptor().ok_or(io::ErrorKind::Unsupported)?;
        let ring = Ring::new(file, medium.registered)?;
        let readable = ring.readable()?;
        Ok(Self { readable, ring })
    }

    /// Whether the action is one for the ring. Writes into the page cache are not: file systems that cannot do them
    /// without waiting (ext4) have the kernel's own threads do them, one at a time for a file, and a flush after each.
    pub(super) fn takes(medium: &Medium, action: &Action) -> bool {
        match action {
            Action::Write { .. } => medium.alignment != Alignment::default(),
            Action::Read { .. }
            | Action::Flush
            | Action::Unmap { .. }
            | Action::Zero { .. }
            | Action::Prefetch { .. } => true,
            _ => false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.ring.open() >= uring::DEPTH
    }

    pub(super) fn is_busy(&self) -> bool {
        self.ring.open() > 0
    }

    /// Calls so far whose memory was registered.
    #[cfg(test)]
    pub(super) fn fixed(&self) -> u64 {
        self.ring.fixed()
    }

    /// Queues the action; the lane [is not full](Self::is_full).
    pub(super) fn start(&mut self, medium: &Arc<Medium>, action: Action, ticket: Ticket) {
        let changes = !matches!(action, Action::Read { .. } | Action::Prefetch { .. });
        if changes && medium.syncs.lost() {
            return ticket.done(Err(BlockError::WritesLost));
        }
        let block = u64::from(medium.geometry.block_size);
        match action {
            Action::Read { lba, blocks, into } => {
                let bounce = medium.bounce_for(&into);
                let (into, home) = match bounce {
                    Some(bounce) => (bounce, Some(into)),
                    None => (into, None),
                };
                let work = Work::Read { lba, blocks, done: 0, home };
                self.push(medium, Buffers::Into(into), Op { ticket, work });
            }
            Action::Write { lba, data, fua } => {
                if let Err(error) = medium.within(medium.offset(lba), data.len() as u64) {
                    return ticket.done(Err(BlockError::from(&error)));
                }
                let sync = match fua.then(|| medium.syncs.begin()).transpose() {
                    Ok(sync) => sync,
                    Err(lost) => return ticket.done(Err(lost)),
                };
                let data = medium.writable(data);
                let work = Work::Write { lba, done: 0, sync };
                self.push(medium, Buffers::From(data), Op { ticket, work });
            }
            Action::Flush => self.flush(medium, ticket),
            Action::Unmap { lba, blocks } => self.zero(medium, lba, blocks, true, false, ticket),
            Action::Zero { lba, blocks, unmap, fua } => self.zero(medium, lba, blocks, unmap, fua, ticket),
            Action::Prefetch { lba, blocks } => {
                let call = Call::Prefetch { at: medium.offset(lba), len: blocks.saturating_mul(block) };
                self.call(call, Buffers::None, 0, Op { ticket, work: Work::Prefetch });
            }
            // Not one of those that the lane takes.
            action => offload(medium, ticket, move |m| m.perform(action)),
        }
    }

    fn flush(&mut self, medium: &Arc<Medium>, ticket: Ticket) {
        match medium.syncs.begin() {
            Ok(sync) => self.call(Call::Sync, Buffers::None, 0, Op { ticket, work: Work::Flush(sync) }),
            Err(lost) => ticket.done(Err(lost)),
        }
    }

    fn zero(&mut self, medium: &Arc<Medium>, lba: u64, blocks: u64, unmap: bool, fua: bool, ticket: Ticket) {
        let (at, len) = (medium.offset(lba), blocks * u64::from(medium.geometry.block_size));
        if let Err(error) = medium.within(at, len) {
            return ticket.done(Err(BlockError::from(&error)));
        }
        if len == 0 {
            return ticket.done(Ok(Payload::None));
        }
        let how = match unmap && medium.file.hole_granularity().is_some() {
            true => libc::FALLOC_FL_PUNCH_HOLE,
            false => libc::FALLOC_FL_ZERO_RANGE,
        };
        let call = Call::Allocate { mode: how | libc::FALLOC_FL_KEEP_SIZE, at, len };
        self.call(call, Buffers::None, 0, Op { ticket, work: Work::Zero { lba, blocks, unmap, fua } });
    }

    /// Queues the rest of a read or a write.
    fn push(&mut self, medium: &Medium, buffers: Buffers, op: Op) {
        let (call, done) = match &op.work {
            Work::Read { lba, done, .. } => (Call::Read { at: medium.offset(*lba) + *done as u64 }, *done),
            Work::Write { lba, done, sync } => {
                (Call::Write { at: medium.offset(*lba) + *done as u64, durable: sync.is_some() }, *done)
            }
            _ => return,
        };
        self.call(call, buffers, done, op);
    }

    fn call(&mut self, call: Call, buffers: Buffers, skip: usize, op: Op) {
        // There is room: the caller has looked, or a call has just ended. If not, the ticket says so.
        drop(self.ring.push(call, buffers, skip, op));
    }

    /// Begins what is queued, and reports what has ended. Wakes the task when more has.
    pub(super) fn poll(&mut self, medium: &Arc<Medium>, cx: &mut Context<'_>) {
        while self.is_busy() {
            if self.ring.submit().is_err() {
                // The kernel is short of memory.
                cx.waker().wake_by_ref();
                self.reap(medium);
                return;
            }
            if self.reap(medium) {
                continue;
            }
            match self.readable.poll_read_ready(cx) {
                // Before the ring is looked at again, or a completion in between would be slept over.
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                // The runtime shuts down; its tasks are about to be dropped.
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    fn reap(&mut self, medium: &Arc<Medium>) -> bool {
        let mut any = false;
        while let Some(ended) = self.ring.take() {
            any = true;
            self.ended(medium, ended);
        }
        any
    }

    /// Lets what is under way come to its end, the thread blocked.
    pub(super) fn finish(mut self, medium: &Arc<Medium>) {
        while let Some(ended) = self.ring.wait() {
            self.ended(medium, ended);
        }
    }

    fn ended(&mut self, medium: &Arc<Medium>, ended: Ended<Op>) {
        let Ended { tag: Op { ticket, work }, buffers, result } = ended;
        match (work, buffers) {
            (Work::Read { lba, blocks, done, home }, Buffers::Into(into)) => match result {
                Ok(0) => ticket.done(Err(BlockError::OutOfRange)),
                Ok(n) if done + n < into.len() => {
                    let work = Work::Read { lba, blocks, done: done + n, home };
                    self.push(medium, Buffers::Into(into), Op { ticket, work });
                }
                Ok(_) => {
                    let data = match home {
                        Some(mut home) => {
                            copy(&into, &mut home);
                            home
                        }
                        None => into,
                    };
                    ticket.done(Ok(Payload::Data(data.freeze())));
                }
                Err(error) if undone(&error) => {
                    let into = home.unwrap_or(into);
                    offload(medium, ticket, move |m| m.perform(Action::Read { lba, blocks, into }));
                }
                Err(error) => ticket.done(Err(BlockError::from(&error))),
            },
            (Work::Write { lba, done, sync }, Buffers::From(data)) => {
                self.write_ended(medium, lba, done, sync, data, result, ticket);
            }
            (Work::Flush(sync), _) => match result {
                Ok(_) => sync.succeeded(ticket),
                Err(error) if undone(&error) => {
                    offload(medium, ticket, move |m| Outcome::Synced(sync, m.file.sync()));
                }
                Err(error) => sync.failed(&error, ticket),
            },
            (Work::Zero { lba, blocks, unmap, fua }, _) => match result {
                Ok(_) if fua => self.flush(medium, ticket),
                Ok(_) => ticket.done(Ok(Payload::None)),
                Err(error) if undone(&error) || !can(&error) => {
                    offload(medium, ticket, move |m| m.perform(Action::Zero { lba, blocks, unmap, fua }));
                }
                Err(error) => ticket.done(Err(BlockError::from(&error))),
            },
            // A hint: files that cannot be advised are none the worse.
            (Work::Prefetch, _) => ticket.done(Ok(Payload::None)),
            // Buffers of another kind than the call's: the ticket reports it.
            (Work::Read { .. } | Work::Write { .. }, _) => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of an operation that was just taken apart")]
    fn write_ended(
        &mut self,
        medium: &Arc<Medium>,
        lba: u64,
        done: usize,
        sync: Option<Sync>,
        data: SgList,
        result: io::Result<usize>,
        ticket: Ticket,
    ) {
        let result = match result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            result => result,
        };
        match (result, sync) {
            (Ok(n), sync) if done + n < data.len() => {
                let work = Work::Write { lba, done: done + n, sync };
                self.push(medium, Buffers::From(data), Op { ticket, work });
            }
            (Ok(_), Some(sync)) => sync.succeeded(ticket),
            (Ok(_), None) => ticket.done(Ok(Payload::None)),
            (Err(error), Some(sync)) if undone(&error) => {
                offload(medium, ticket, move |m| m.write_durably(lba, &data, sync));
            }
            (Err(error), Some(sync)) => offload(medium, ticket, move |m| m.settle(lba, &data, error, sync)),
            (Err(error), None) if undone(&error) => {
                offload(medium, ticket, move |m| m.perform(Action::Write { lba, data, fua: false }));
            }
            (Err(error), None) => ticket.done(Err(BlockError::from(&error))),
        }
    }
}

/// Whether the call was not carried out, for no fault of the medium.
fn undone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ECANCELED))
}

/// Whether the file system knows the call.
fn can(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Has a thread do it.
fn offload(medium: &Arc<Medium>, ticket: Ticket, work: impl FnOnce(&Medium) -> Outcome + Send + 'static) {
    let shared = medium.clone();
    medium.workers.spawn_anyway(move || {
        let outcome = work(&shared);
        drop(shared);
        outcome.report(ticket);
    });
}
