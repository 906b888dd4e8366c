//! A logical unit as one nexus uses it: a handle on the device, and the task set.

use super::task::{Running, Work};
use crate::block::{BlockDevice, BlockDone, BlockOp, Full};
use crate::mailbox::Mailbox;
use crate::ports::NexusId;
use crate::unit::{LogicalUnit, View};
use iscsi_pdu::TaskAttr;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(super) struct Bound {
    pub(super) unit: Arc<LogicalUnit>,
    pub(super) view: Arc<View>,
    device: Box<dyn BlockDevice>,
    /// [`Geometry::lends_reads`](crate::block::Geometry::lends_reads) and `volatile_cache`, which do not change.
    pub(super) lends_reads: bool,
    pub(super) volatile_cache: bool,
    /// Operations that have not ended.
    ops: usize,
    /// Those of them that found no room in the device.
    backlog: VecDeque<BlockOp>,
    /// The unit is no longer in the inventory.
    pub(super) gone: bool,
    /// Tasks in the set.
    pub(super) total: usize,
    /// Of them, started; and of these, ORDERED and HEAD OF QUEUE ones.
    active: usize,
    ordered: usize,
    head: usize,
    /// Not started, in order of arrival.
    held: VecDeque<(usize, TaskAttr)>,
}

impl Bound {
    pub(super) fn new(
        unit: Arc<LogicalUnit>,
        nexus: &NexusId,
        mailbox: &Arc<Mailbox>,
        device: Box<dyn BlockDevice>,
    ) -> Self {
        let view = unit.join(nexus.clone(), mailbox.clone());
        let geometry = unit.geometry();
        Self {
            unit,
            view,
            device,
            lends_reads: geometry.lends_reads,
            volatile_cache: geometry.volatile_cache,
            ops: 0,
            backlog: VecDeque::new(),
            gone: false,
            total: 0,
            active: 0,
            ordered: 0,
            head: 0,
            held: VecDeque::new(),
        }
    }

    /// Takes a task into the set; `true` when it may start at once (SAM-5 clause 8.6).
    pub(super) fn admit(&mut self, slot: usize, attr: TaskAttr) -> bool {
        self.total += 1;
        if attr == TaskAttr::HeadOfQueue || (self.held.is_empty() && self.may_start(attr)) {
            self.start(attr);
            return true;
        }
        self.held.push_back((slot, attr));
        false
    }

    fn may_start(&self, attr: TaskAttr) -> bool {
        match attr {
            TaskAttr::Ordered => self.active == 0,
            _ => self.ordered == 0 && self.head == 0,
        }
    }

    fn start(&mut self, attr: TaskAttr) {
        self.active += 1;
        self.ordered += usize::from(attr == TaskAttr::Ordered);
        self.head += usize::from(attr == TaskAttr::HeadOfQueue);
    }

    /// A task has left the set; returns those that may start now.
    pub(super) fn release(&mut self, slot: usize, task: &Running) -> Option<Vec<usize>> {
        self.total -= 1;
        if matches!(task.work, Work::Held) && self.held.iter().any(|(s, _)| *s == slot) {
            self.held.retain(|(s, _)| *s != slot);
        } else {
            self.active -= 1;
            self.ordered -= usize::from(task.attr == TaskAttr::Ordered);
            self.head -= usize::from(task.attr == TaskAttr::HeadOfQueue);
        }
        if self.held.is_empty() {
            return None;
        }
        let mut released = Vec::new();
        while let Some((slot, attr)) = self.held.front().copied() {
            if !self.may_start(attr) {
                break;
            }
            self.held.pop_front();
            self.start(attr);
            released.push(slot);
        }
        Some(released)
    }

    /// Begins an operation. The unit, at `at` in the nexus, is `busy` from the first one on.
    pub(super) fn submit(&mut self, op: BlockOp, at: usize, busy: &mut Vec<usize>) {
        if self.ops == 0 && !busy.contains(&at) {
            busy.push(at);
        }
        self.ops += 1;
        if !self.backlog.is_empty() {
            return self.backlog.push_back(op);
        }
        if let Err(Full(op)) = self.device.submit(op) {
            self.backlog.push_back(op);
        }
    }

    /// Whether operations have not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.ops > 0
    }

    pub(super) fn poll_done(&mut self, cx: &mut Context<'_>) -> Option<BlockDone> {
        let Poll::Ready(done) = self.device.poll_done(cx) else { return None };
        self.ops -= 1;
        while let Some(op) = self.backlog.pop_front() {
            if let Err(Full(op)) = self.device.submit(op) {
                self.backlog.push_front(op);
                break;
            }
        }
        Some(done)
    }
}
