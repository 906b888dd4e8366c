//! STags become invalid before anybody hears of the end of their task.

use super::IserDatamover;
use crate::maps::LocalTask;
use crate::rcap::{Invalidation, Rcap, Stag, Tagged};
use datamover::{Event, SgListMut, TaskBuffers, Window};

/// An event on its way up, or one that waits for invalidations.
#[allow(clippy::large_enum_variant)] // nearly all are ready, and the others should not make them allocate
pub(super) enum Inbound {
    Ready(Event),
    Waiting(Box<Waiting>),
}

/// A task whose STags are being invalidated, and the event that then tells of it.
pub(super) struct Waiting {
    event: Event,
    task: LocalTask,
}

impl<R: Rcap> IserDatamover<R> {
    /// Takes the memory behind the STags of a task back; the task itself while an invalidation is pending.
    // req: 7145-1.5.1-3, 7145-1.5.1-4, 7145-11-4, 7145-11-5
    pub(super) fn settle(&mut self, mut task: LocalTask) -> Result<TaskBuffers, LocalTask> {
        for stag in [task.read, task.write].into_iter().flatten() {
            match self.rcap.invalidate(stag) {
                Invalidation::Done(memory) => task.take(stag, memory),
                Invalidation::Pending => {}
                Invalidation::Unknown => task.forget(stag),
            }
        }
        if task.read.is_some() || task.write.is_some() { Err(task) } else { Ok(self.give_back(task)) }
    }

    /// The buffers of a task whose STags are invalid, as they were handed down.
    fn give_back(&mut self, task: LocalTask) -> TaskBuffers {
        let input = match (task.bounced_in, task.taken_in) {
            (Some(mut original), Some(bounce)) => {
                self.stats.bounced_bytes += copy_list(&bounce, &mut original) as u64;
                Some(original)
            }
            (original, taken) => original.or(taken),
        };
        let r#in = input.map(|list| match task.in_box {
            Some(mut home) => {
                *home = list;
                home
            }
            None => Box::new(list),
        });
        TaskBuffers { out: task.out, r#in }
    }

    /// An event that tells of a task, once the task's STags are invalid.
    // req: 7145-7.3.2-13
    pub(super) fn event_after(&mut self, task: LocalTask, mut event: Event) {
        match self.settle(task) {
            Ok(buffers) => {
                attach(&mut event, buffers);
                self.event(event);
            }
            Err(task) => self.inbound.push_back(Inbound::Waiting(Box::new(Waiting { event, task }))),
        }
    }

    /// An invalidation that was pending is complete.
    pub(super) fn invalidated(&mut self, stag: Stag, memory: Tagged) {
        let waiting = |i: &Inbound| matches!(i, Inbound::Waiting(w) if w.task.has(stag));
        let Some(at) = self.inbound.iter().position(waiting) else { return };
        let Some(Inbound::Waiting(w)) = self.inbound.get_mut(at) else { return };
        w.task.take(stag, memory);
        if w.task.read.is_none() && w.task.write.is_none() {
            self.finish_waiting(at);
        }
    }

    fn finish_waiting(&mut self, at: usize) {
        let Some(Inbound::Waiting(w)) = self.inbound.get_mut(at) else { return };
        let task = std::mem::take(&mut w.task);
        let buffers = self.give_back(task);
        let Some(slot) = self.inbound.get_mut(at) else { return };
        if let Inbound::Waiting(w) = slot {
            let mut event = std::mem::replace(&mut w.event, Event::Window(Window::default()));
            attach(&mut event, buffers);
            *slot = Inbound::Ready(event);
        }
    }

    /// The provider invalidates at once now.
    pub(super) fn resolve_waiting(&mut self, at: usize) {
        let Some(Inbound::Waiting(w)) = self.inbound.get_mut(at) else { return };
        let mut task = std::mem::take(&mut w.task);
        for stag in [task.read, task.write].into_iter().flatten() {
            match self.rcap.invalidate(stag) {
                Invalidation::Done(memory) => task.take(stag, memory),
                _ => task.forget(stag),
            }
        }
        if let Some(Inbound::Waiting(w)) = self.inbound.get_mut(at) {
            w.task = task;
        }
        self.finish_waiting(at);
    }
}

/// Puts the buffers of a task into the event that tells of it.
fn attach(event: &mut Event, buffers: TaskBuffers) {
    match event {
        Event::Control(control) => control.buffers = buffers,
        Event::TaskReclaimed { reclaimed, .. } => reclaimed.buffers = buffers,
        _ => {}
    }
}

/// Copies as much as fits; how much that was.
pub(super) fn copy_list(from: &SgListMut, to: &mut SgListMut) -> usize {
    from.parts().fold(0usize, |at, part| at.saturating_add(to.copy_from(at, part)))
}

impl LocalTask {
    /// The STag is invalid and this was its memory.
    fn take(&mut self, stag: Stag, memory: Tagged) {
        if let Tagged::Sink(list) = memory {
            self.taken_in = Some(list);
        }
        self.forget(stag);
    }

    fn forget(&mut self, stag: Stag) {
        if self.read == Some(stag) {
            self.read = None;
        } else if self.write == Some(stag) {
            self.write = None;
        }
    }
}
