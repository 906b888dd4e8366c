//! The slices of one vectored read.

use std::io::IoSliceMut;
use std::ops::{Deref, DerefMut};

/// Slices of one vectored read.
const SLOTS: usize = 16;

/// Where the next octets from the connection belong: for one vectored read.
#[derive(Debug)]
pub struct RecvSlots<'a> {
    slots: [IoSliceMut<'a>; SLOTS],
    used: usize,
}

impl<'a> RecvSlots<'a> {
    pub(super) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| IoSliceMut::new(&mut [])), used: 0 }
    }

    pub(super) fn push(&mut self, slice: &'a mut [u8]) {
        if let Some(slot) = self.slots.get_mut(self.used) {
            *slot = IoSliceMut::new(slice);
            self.used = self.used.saturating_add(1);
        }
    }

    /// Whether one more slice is all there is room for.
    pub(super) fn nearly_full(&self) -> bool {
        self.used >= SLOTS.saturating_sub(1)
    }

    /// Octets of all slices.
    pub fn capacity(&self) -> usize {
        self.iter().fold(0usize, |n, s| n.saturating_add(s.len()))
    }

    /// Copies from `data`, as a vectored read would, and returns the number of octets copied.
    pub fn fill_from(&mut self, data: &[u8]) -> usize {
        let mut rest = data;
        for slot in self.iter_mut() {
            let (now, later) = rest.split_at(rest.len().min(slot.len()));
            if let Some(to) = slot.get_mut(..now.len()) {
                to.copy_from_slice(now);
            }
            rest = later;
        }
        data.len().saturating_sub(rest.len())
    }
}

impl<'a> Deref for RecvSlots<'a> {
    type Target = [IoSliceMut<'a>];
    fn deref(&self) -> &Self::Target {
        self.slots.get(..self.used).unwrap_or_default()
    }
}

impl DerefMut for RecvSlots<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.slots.get_mut(..self.used).unwrap_or_default()
    }
}
