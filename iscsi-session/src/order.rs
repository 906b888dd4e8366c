//! The target's reordering of commands (RFC 7143 section 4.2.2.1): what arrives over several connections is
//! delivered in the order of CmdSN.
//!
//! ```text
//!        next                exp_cmd_sn           max_cmd_sn
//!   ──────┼─────────┬─────────┼────┬────┬────┬─────┼────▶ CmdSN
//!   done  │ here, to be       │    │here│    │     │
//!         │ delivered in turn │gap │    │gap │     │
//! ```
//!
//! The first slot is never void, and a void one gives its credit back when it leaves the queue, not before: so the queue
//! is never longer than the window was at first, however many numbers are aborted behind a gap.

use crate::window::TargetWindow;
use iscsi_pdu::CmdSn;
use std::collections::VecDeque;

#[derive(Debug)]
enum Slot<T> {
    /// Not received.
    Missing,
    /// Received (or to be taken as such), with nothing to deliver.
    Void,
    Here(T),
}

/// What became of a command that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Queued.
    Taken,
    /// Outside the window, or there already: to be ignored silently.
    Ignored,
}

/// Commands between arrival and delivery.
#[derive(Debug)]
pub struct OrderQueue<T> {
    window: TargetWindow,
    /// CmdSN of the first slot.
    next: CmdSn,
    slots: VecDeque<Slot<T>>,
}

impl<T> OrderQueue<T> {
    /// An empty queue with this window.
    #[must_use]
    pub fn new(window: TargetWindow) -> Self {
        Self { window, next: window.exp_cmd_sn(), slots: VecDeque::new() }
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> &TargetWindow {
        &self.window
    }

    /// The number that is delivered next.
    #[must_use]
    pub const fn next(&self) -> CmdSn {
        self.next
    }

    /// A numbered command that was delivered is over: the window grows.
    pub fn give_credit(&mut self) {
        self.window.give_credit();
    }

    /// Whether a command with this number would be taken.
    // req: 7143-4.2.2.1-12
    #[must_use]
    pub fn admits(&self, cmd_sn: CmdSn) -> bool {
        self.window.contains(cmd_sn)
            && !matches!(self.slots.get(self.index(cmd_sn)), Some(Slot::Void | Slot::Here(_)))
    }

    /// Offers a command.
    // req: 7143-4.2.2.1-9, 7143-4.2.2.1-12
    pub fn insert(&mut self, cmd_sn: CmdSn, item: T) -> Admission {
        self.put(cmd_sn, Slot::Here(item))
    }

    /// Counts a number as received although there is nothing to deliver: an aborted command that never came
    /// (section 7.11).
    pub fn plug(&mut self, cmd_sn: CmdSn) -> Admission {
        self.put(cmd_sn, Slot::Void)
    }

    /// Counts all missing numbers before `end` as received (target resets, section 4.2.3.3).
    pub fn plug_until(&mut self, end: CmdSn) {
        while self.window.exp_cmd_sn().precedes(end)
            && self.plug(self.window.exp_cmd_sn()) == Admission::Taken
        {}
    }

    /// The command whose turn it is, if it is here.
    #[must_use]
    pub fn head(&self) -> Option<&T> {
        match self.slots.front() {
            Some(Slot::Here(item)) => Some(item),
            _ => None,
        }
    }

    /// Takes the command whose turn it is.
    // req: 7143-4.2.2.1-7
    pub fn pop(&mut self) -> Option<T> {
        match self.slots.pop_front()? {
            Slot::Here(item) => {
                self.next = self.next.next();
                self.skip_void();
                Some(item)
            }
            other => {
                self.slots.push_front(other);
                None
            }
        }
    }

    /// Takes out the commands for which `gone` holds. Their numbers stay received when they lie before ExpCmdSN;
    /// beyond it they are gaps again (section 11.14: commands not acknowledged are discarded), which have used up no
    /// credit.
    pub fn remove(&mut self, mut gone: impl FnMut(&T) -> bool) -> Vec<(CmdSn, T)> {
        let exp_cmd_sn = self.window.exp_cmd_sn();
        let mut cmd_sn = self.next;
        let mut out = Vec::new();
        for slot in &mut self.slots {
            if matches!(slot, Slot::Here(item) if gone(item)) {
                let left = if cmd_sn.precedes(exp_cmd_sn) { Slot::Void } else { Slot::Missing };
                if let Slot::Here(item) = std::mem::replace(slot, left) {
                    out.push((cmd_sn, item));
                }
            }
            cmd_sn = cmd_sn.next();
        }
        self.skip_void();
        out
    }

    /// Turns a queued command into nothing, its number staying received wherever it lies (an ABORT TASK of it).
    pub fn void(&mut self, cmd_sn: CmdSn) -> Option<T> {
        let index = self.index(cmd_sn);
        let slot = self.slots.get_mut(index)?;
        match std::mem::replace(slot, Slot::Void) {
            Slot::Here(item) => {
                self.skip_void();
                Some(item)
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The queued commands, delivered or not in their turn.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|s| match s {
            Slot::Here(item) => Some(item),
            _ => None,
        })
    }

    fn put(&mut self, cmd_sn: CmdSn, item: Slot<T>) -> Admission {
        if !self.admits(cmd_sn) {
            return Admission::Ignored;
        }
        let index = self.index(cmd_sn);
        while self.slots.len() <= index {
            self.slots.push_back(Slot::Missing);
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = item;
        }
        while matches!(self.slots.get(self.index(self.window.exp_cmd_sn())), Some(Slot::Void | Slot::Here(_)))
        {
            self.window.advance();
        }
        self.skip_void();
        Admission::Taken
    }

    /// Index of a number at or after `next`; numbers before it give an index beyond any slot.
    fn index(&self, cmd_sn: CmdSn) -> usize {
        cmd_sn.distance_from(self.next) as usize
    }

    /// Passes the numbers with nothing to deliver whose turn it is, and gives their credits back.
    fn skip_void(&mut self) {
        while matches!(self.slots.front(), Some(Slot::Void)) {
            self.slots.pop_front();
            self.next = self.next.next();
            self.window.give_credit();
        }
    }
}

#[cfg(test)]
mod tests;
