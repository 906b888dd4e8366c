//! The spill: where everything lands that has no final place, headers above all.
//!
//! One read fills it with as many PDUs as there are. Data segments leave it as slices without being copied; the
//! memory, which is cleared only once, is used again when the last of them is gone. What lies behind the last slice
//! then, the beginning of a PDU, is moved to other memory.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Long enough for any header and for every data segment that is not gathered elsewhere.
const SMALL: usize = 16 << 10;
/// For connections that fill the small one.
const LARGE: usize = 64 << 10;
/// Below this room a read is not worth its system call.
const LEAST_ROOM: usize = 2 << 10;
/// Shorter slices are copied out: a NOP's data must not keep the whole spill in memory.
const LEAST_SLICE: usize = 256;
/// Read ahead into the spill while large data segments are expected, so that little of them has to be copied.
const LEAN_ROOM: usize = 512;
/// Spills in wait for their slices to be dropped.
const RETIRED: usize = 8;
/// Reads in a row that the small spill would have held, after which it is enough again.
const CALM: u32 = 64;

pub(crate) struct Spill {
    /// Initialised all over; empty while `lent` is there.
    buf: BytesMut,
    /// The same memory while slices of it are about: it can be read only.
    lent: Option<Bytes>,
    start: usize,
    end: usize,
    size: usize,
    calm: u32,
    /// Large data segments are expected.
    lean: bool,
    retired: VecDeque<Bytes>,
}

impl Spill {
    /// With bytes that were read already.
    pub(crate) fn new(unread: &[u8]) -> Self {
        let size = if unread.len() > SMALL - LEAST_ROOM { LARGE } else { SMALL };
        let mut buf = memory(size.max(unread.len().saturating_add(LEAST_ROOM)));
        if let Some(head) = buf.get_mut(..unread.len()) {
            head.copy_from_slice(unread);
        }
        let end = unread.len();
        let retired = VecDeque::with_capacity(RETIRED);
        Self { buf, lent: None, start: 0, end, size, calm: 0, lean: false, retired }
    }

    /// What is there.
    pub(crate) fn bytes(&self) -> &[u8] {
        let whole = self.lent.as_deref().unwrap_or(&self.buf);
        whole.get(self.start..self.end).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// The most that a data segment may have to be awaited here.
    pub(crate) const fn longest_wait() -> usize {
        SMALL / 2
    }

    pub(crate) fn set_lean(&mut self, lean: bool) {
        self.lean = lean;
    }

    /// Drops the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Takes the first `n` bytes, which must be there.
    pub(crate) fn take(&mut self, n: usize) -> Bytes {
        if n == 0 {
            return Bytes::new();
        }
        if n < LEAST_SLICE {
            let copy = Bytes::copy_from_slice(self.bytes().get(..n).unwrap_or_default());
            self.consume(n);
            return copy;
        }
        let range = self.start..self.start.saturating_add(n).min(self.end);
        let slice = self.lent.get_or_insert_with(|| std::mem::take(&mut self.buf).freeze()).slice(range);
        self.consume(n);
        slice
    }

    /// Makes room so that `total` bytes, those there included, can lie in one piece; call before [`room`](Self::room).
    pub(crate) fn make_room(&mut self, total: usize) {
        let len = self.len();
        if let Some(lent) = self.lent.take() {
            match lent.try_into_mut() {
                Ok(buf) => self.buf = buf,
                Err(lent) => {
                    let mut fresh = self.fresh(self.size.max(total.saturating_add(LEAST_ROOM)));
                    if let (Some(to), Some(from)) = (fresh.get_mut(..len), lent.get(self.start..self.end)) {
                        to.copy_from_slice(from);
                    }
                    self.retire(lent);
                    (self.buf, self.start, self.end) = (fresh, 0, len);
                }
            }
        }
        let behind_end = self.buf.len().saturating_sub(self.end);
        let enough = behind_end >= LEAST_ROOM && self.buf.len().saturating_sub(self.start) >= total;
        let outgrown = self.start == self.end && self.buf.len() < self.size && behind_end < self.size / 2;
        if enough && !outgrown {
            return;
        }
        if self.buf.len() >= self.size.max(total.saturating_add(LEAST_ROOM)) {
            self.buf.copy_within(self.start..self.end, 0);
        } else {
            let mut fresh = self.fresh(self.size.max(total.saturating_add(LEAST_ROOM)));
            if let (Some(to), Some(from)) = (fresh.get_mut(..len), self.buf.get(self.start..self.end)) {
                to.copy_from_slice(from);
            }
            self.buf = fresh;
        }
        (self.start, self.end) = (0, len);
    }

    fn retire(&mut self, lent: Bytes) {
        if self.retired.len() >= RETIRED {
            self.retired.pop_front();
        }
        self.retired.push_back(lent);
    }

    /// A spill whose slices are gone, else new memory. Shorter ones have had their time.
    fn fresh(&mut self, size: usize) -> BytesMut {
        for _ in 0..self.retired.len() {
            let Some(old) = self.retired.pop_front() else { break };
            match old.try_into_mut() {
                Ok(buf) if buf.len() >= size => return buf,
                Ok(_) => {}
                Err(old) => self.retired.push_back(old),
            }
        }
        memory(size)
    }

    /// Where to read to.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let end =
            if self.lean { self.buf.len().min(self.end.saturating_add(LEAN_ROOM)) } else { self.buf.len() };
        self.buf.get_mut(self.end..end).unwrap_or_default()
    }

    /// Counts `n` bytes that were read to [`room`](Self::room).
    pub(crate) fn filled(&mut self, n: usize) {
        let full = n > 0 && !self.lean && self.end.saturating_add(n) >= self.buf.len();
        self.end = self.end.saturating_add(n).min(self.buf.len());
        if full {
            (self.size, self.calm) = (LARGE, 0);
        } else if self.size == LARGE && self.len() < SMALL / 4 {
            self.calm = self.calm.saturating_add(1);
            if self.calm >= CALM {
                self.shrink();
            }
        } else {
            self.calm = 0;
        }
    }

    /// Back to the small size: an idle connection holds little.
    fn shrink(&mut self) {
        let len = self.len();
        (self.size, self.calm) = (SMALL, 0);
        let mut small = memory(SMALL);
        if let (Some(to), Some(from)) = (small.get_mut(..len), self.buf.get(self.start..self.end)) {
            to.copy_from_slice(from);
            self.buf = small;
            (self.start, self.end) = (0, len);
            self.retired.clear();
        }
    }
}

/// `size` zero bytes that are shared memory from the beginning: lending them and taking them back does not allocate.
fn memory(size: usize) -> BytesMut {
    let mut memory = BytesMut::zeroed(size.saturating_add(1));
    drop(memory.split_off(size));
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(spill: &mut Spill, bytes: &[u8]) {
        spill.make_room(0);
        let room = spill.room();
        assert!(room.len() >= bytes.len(), "{} < {}", room.len(), bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
        spill.filled(bytes.len());
    }

    #[test]
    fn slices_stay_while_the_spill_goes_on() {
        let mut spill = Spill::new(b"abc");
        assert_eq!(spill.bytes(), b"abc");
        spill.consume(3);
        let mut kept = Vec::new();
        for round in 0..200u8 {
            fill(&mut spill, &[round; 1000]);
            fill(&mut spill, &[round ^ 0xff; 500]);
            kept.push((round, spill.take(1000)));
            if round % 3 == 0 {
                spill.consume(500);
            } else {
                assert!(spill.take(500).iter().all(|b| *b == round ^ 0xff));
            }
            assert_eq!(spill.len(), 0);
        }
        assert!(kept.iter().all(|(round, bytes)| bytes.len() == 1000 && bytes.iter().all(|b| b == round)));
    }

    #[test]
    fn memory_comes_back_when_slices_are_dropped() {
        let mut spill = Spill::new(&[]);
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            fill(&mut spill, &[1; 1400]);
            addresses.insert(spill.bytes().as_ptr() as usize & !0xfff);
            drop(spill.take(1400));
        }
        assert!(addresses.len() <= 2 * (SMALL / 4096 + 1), "{}", addresses.len());
    }

    #[test]
    fn grows_when_filled_and_shrinks_when_calm() {
        let mut spill = Spill::new(&[]);
        spill.make_room(0);
        let n = spill.room().len();
        assert_eq!(n, SMALL);
        spill.filled(n);
        spill.consume(n);
        spill.make_room(0);
        assert_eq!(spill.room().len(), LARGE);
        for _ in 0..CALM {
            fill(&mut spill, &[0; 48]);
            spill.consume(48);
        }
        spill.make_room(0);
        assert_eq!(spill.room().len(), SMALL);
    }

    #[test]
    fn room_for_a_whole_segment() {
        let mut spill = Spill::new(&[]);
        fill(&mut spill, &[7; SMALL - LEAST_ROOM]);
        spill.consume(SMALL - LEAST_ROOM - 10);
        spill.make_room(Spill::longest_wait() + 10);
        assert_eq!(spill.bytes(), [7; 10]);
        assert!(spill.room().len() >= Spill::longest_wait());
        spill.set_lean(true);
        assert_eq!(spill.room().len(), LEAN_ROOM);
    }

    #[test]
    fn short_slices_are_copies() {
        let mut spill = Spill::new(b"0123456789");
        let before = spill.bytes().as_ptr();
        let slice = spill.take(4);
        assert_ne!(slice.as_ptr(), before);
        assert_eq!((&slice[..], spill.bytes()), (&b"0123"[..], &b"456789"[..]));
    }
}
