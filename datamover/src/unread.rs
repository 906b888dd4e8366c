//! [`Unread`]: bytes read from a stream and not understood yet, of a protocol that has little of them, as a login.

use bytes::{Bytes, BytesMut};
use std::ops::Deref;

/// The least room that is worth a read.
const WORTHWHILE: usize = 1024;

/// What was read and is still to be taken, and room for more behind it. The room is cleared once, when it is made, and not
/// for every read.
///
/// Calling order: [`room`](Self::room), read into it, [`filled`](Self::filled); [`split_to`](Self::split_to) what is
/// whole, by a look at the bytes, as which it dereferences.
#[derive(Debug)]
pub struct Unread {
    /// All of it initialised, the first `len` bytes read.
    buffer: BytesMut,
    len: usize,
    limit: usize,
}

impl Unread {
    /// Without bytes, or room for them yet; for at most `limit` of them.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), len: 0, limit }
    }

    /// Whether there are as many bytes as there may be.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// Where the next bytes are to be read to; empty only if it is [full](Self::is_full).
    pub fn room(&mut self) -> &mut [u8] {
        let room = self.buffer.len().saturating_sub(self.len);
        let wanted = self.limit.saturating_sub(self.len).min(WORTHWHILE);
        if room < wanted {
            // What was split off keeps the old buffer.
            let mut buffer = BytesMut::zeroed(self.limit);
            if let (Some(to), Some(from)) = (buffer.get_mut(..self.len), self.buffer.get(..self.len)) {
                to.copy_from_slice(from);
            }
            self.buffer = buffer;
        }
        self.buffer.get_mut(self.len..).unwrap_or_default()
    }

    /// So many bytes were read into the room.
    pub fn filled(&mut self, n: usize) {
        self.len = self.len.saturating_add(n).min(self.buffer.len());
    }

    /// Takes the first `n` bytes, or all if there are fewer, without copying.
    pub fn split_to(&mut self, n: usize) -> Bytes {
        let n = n.min(self.len);
        if n == 0 {
            return Bytes::new();
        }
        self.len = self.len.saturating_sub(n);
        self.buffer.split_to(n).freeze()
    }

    /// Takes all of them. Nothing keeps the memory if there are none.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        self.split_to(self.len)
    }
}

impl Deref for Unread {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(unread: &mut Unread, bytes: &[u8]) -> usize {
        let room = unread.room();
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        unread.filled(n);
        n
    }

    #[test]
    fn bytes_come_out_as_they_went_in_however_they_are_cut() {
        let bytes: Vec<u8> = (0..60_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (step, take) in [(1, 1), (7, 48), (48, 7), (5000, 8240), (16_480, 16_480), (3, 16_000)] {
            let mut unread = Unread::new(16_480);
            let (mut at, mut out) = (0, Vec::new());
            while out.len() < bytes.len() {
                let end = bytes.len().min(at + step);
                while at < end && !unread.is_full() {
                    at += read(&mut unread, &bytes[at..end]);
                }
                assert!(unread.len() <= 16_480);
                if unread.len() >= take || at == bytes.len() {
                    out.extend_from_slice(&unread.split_to(take));
                }
            }
            assert!(out == bytes, "{step}, {take}");
        }
    }

    #[test]
    fn the_room_is_made_once_and_no_more_than_its_limit() {
        let mut unread = Unread::new(16_480);
        assert_eq!(unread.room().len(), 16_480);
        let at = unread.room().as_ptr();
        // Nothing came, again and again.
        (0..3).for_each(|_| assert_eq!(unread.room().as_ptr(), at));
        assert_eq!(read(&mut unread, &[1; 20_000]), 16_480);
        assert!(unread.is_full() && unread.room().is_empty());
        assert_eq!(unread.split_to(16_000), vec![1; 16_000]);
        // A little that is left over moves to where there is room again.
        assert_eq!((unread.room().len(), &unread[..]), (16_000, &[1; 480][..]));
        unread.filled(usize::MAX);
        assert_eq!(unread.len(), 16_480);
        assert_eq!(unread.split_to(usize::MAX).len(), 16_480);
    }

    #[test]
    fn without_bytes_no_memory_is_kept() {
        let mut unread = Unread::new(100);
        unread.room();
        assert!(unread.split_to(10).is_empty() && unread.into_bytes().is_empty());
    }
}
