//! Memory of the consumer: what a queue pair may read from ([`Gather`]) and write into ([`Memory`]).

use bytes::Bytes;

/// Memory the queue pair may write into while it owns it: a receive buffer, the sink of an RDMA Read, a
/// region registered for remote access.
///
/// The memory may consist of several pieces; together they form one range of octets, numbered from 0 in the
/// order of the pieces. Implementations must keep the total length unchanged while the queue pair owns the
/// value; one that does not loses its connection (a local catastrophic error), never memory safety.
///
/// Ownership is the protection: memory moves into the queue pair when it is posted or registered and moves
/// back with a completion or by [`invalidate`](crate::QueuePair::invalidate), so that nobody looks at it or
/// frees it in between (RFC 5042 section 6.2.2).
pub trait Memory: Send {
    /// The pieces in order, from octet `from` on; the first is the rest of the piece `from` lies in.
    fn slices(&self, from: usize) -> impl Iterator<Item = &[u8]>;

    /// The same pieces, to be written.
    fn slices_mut(&mut self, from: usize) -> impl Iterator<Item = &mut [u8]>;

    /// Number of octets in all pieces.
    fn len(&self) -> usize {
        self.slices(0).fold(0usize, |n, s| n.saturating_add(s.len()))
    }

    /// Whether there is no octet at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Memory in one piece.
macro_rules! one_piece {
    ($($t:ty),*) => {$(
        impl Memory for $t {
            fn slices(&self, from: usize) -> impl Iterator<Item = &[u8]> {
                self.get(from..).into_iter().filter(|s| !s.is_empty())
            }
            fn slices_mut(&mut self, from: usize) -> impl Iterator<Item = &mut [u8]> {
                self.get_mut(from..).into_iter().filter(|s| !s.is_empty())
            }
            fn len(&self) -> usize {
                <[u8]>::len(self)
            }
        }
    )*};
}
one_piece!(Vec<u8>, Box<[u8]>, bytes::BytesMut);

/// A list of pieces of memory is memory: the scatter list.
impl<M: Memory> Memory for Vec<M> {
    fn slices(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = from;
        self.iter().flat_map(move |m| {
            let here = skip;
            skip = skip.saturating_sub(m.len());
            m.slices(here)
        })
    }

    fn slices_mut(&mut self, from: usize) -> impl Iterator<Item = &mut [u8]> {
        let mut skip = from;
        self.iter_mut().flat_map(move |m| {
            let here = skip;
            skip = skip.saturating_sub(m.len());
            m.slices_mut(here)
        })
    }

    fn len(&self) -> usize {
        self.iter().fold(0usize, |n, m| n.saturating_add(m.len()))
    }
}

/// Copies `data` into `memory` at `offset`; false when it does not fit.
pub(crate) fn write_at<M: Memory>(memory: &mut M, offset: usize, mut data: &[u8]) -> bool {
    for piece in memory.slices_mut(offset) {
        if data.is_empty() {
            break;
        }
        let n = piece.len().min(data.len());
        if let (Some(to), Some((from, rest))) = (piece.get_mut(..n), data.split_at_checked(n)) {
            to.copy_from_slice(from);
            data = rest;
        }
    }
    data.is_empty()
}

/// Calls `f` with the pieces that make up `len` octets of `memory` at `offset`; false when there are fewer.
pub(crate) fn read_at<M: Memory>(memory: &M, offset: usize, len: usize, mut f: impl FnMut(&[u8])) -> bool {
    let mut left = len;
    for piece in memory.slices(offset) {
        if left == 0 {
            break;
        }
        let n = piece.len().min(left);
        f(piece.get(..n).unwrap_or_default());
        left = left.saturating_sub(n);
    }
    left == 0
}

/// Data to be sent, as a list of shared pieces; nothing is copied when it is built.
///
/// Two pieces (a header and its payload) are kept inline, more in a vector.
///
/// ```
/// use bytes::Bytes;
/// use iwarp::Gather;
///
/// let message: Gather = [Bytes::from_static(b"header"), Bytes::from_static(b"payload")].into_iter().collect();
/// assert_eq!(message.len(), 13);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gather {
    first: Bytes,
    second: Bytes,
    more: Vec<Bytes>,
    len: u64,
}

impl Gather {
    /// No octets.
    pub const fn new() -> Self {
        Self { first: Bytes::new(), second: Bytes::new(), more: Vec::new(), len: 0 }
    }

    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        self.len = self.len.saturating_add(piece.len() as u64);
        if self.first.is_empty() {
            self.first = piece;
        } else if self.second.is_empty() {
            self.second = piece;
        } else {
            self.more.push(piece);
        }
    }

    /// Octets in all pieces.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no octets.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order; none of them is empty.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        [&self.first, &self.second].into_iter().chain(&self.more).filter(|b| !b.is_empty())
    }

    /// Calls `f` with handles on the pieces that make up `len` octets from `offset` on; false when there are
    /// fewer.
    pub(crate) fn range(&self, offset: u64, len: usize, mut f: impl FnMut(Bytes)) -> bool {
        let mut skip = offset;
        let mut left = len;
        for piece in self.pieces() {
            if left == 0 {
                break;
            }
            let size = piece.len();
            match usize::try_from(skip) {
                Ok(from) if from < size => {
                    let n = size.saturating_sub(from).min(left);
                    f(piece.slice(from..from.saturating_add(n)));
                    left = left.saturating_sub(n);
                    skip = 0;
                }
                _ => skip = skip.saturating_sub(size as u64),
            }
        }
        left == 0
    }
}

impl From<Bytes> for Gather {
    fn from(piece: Bytes) -> Self {
        let mut g = Self::new();
        g.push(piece);
        g
    }
}

impl FromIterator<Bytes> for Gather {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut g = Self::new();
        pieces.into_iter().for_each(|p| g.push(p));
        g
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pieces_is_one_range() {
        let mut m = vec![vec![0u8; 3], vec![], vec![0u8; 4]];
        assert_eq!(Memory::len(&m), 7);
        assert!(write_at(&mut m, 1, b"abcde"));
        assert_eq!(m, [b"\0ab".to_vec(), vec![], b"cde\0".to_vec()]);
        assert!(!write_at(&mut m, 6, b"xy"));
        let mut seen = Vec::new();
        assert!(read_at(&m, 2, 3, |p| seen.extend_from_slice(p)));
        assert_eq!(seen, b"bcd");
        assert!(!read_at(&m, 2, 6, |_| ()));
    }

    #[test]
    fn a_gather_list_is_sliced_without_copying() {
        let g: Gather = [&b"ab"[..], b"", b"cde", b"f"].into_iter().map(Bytes::from_static).collect();
        assert_eq!(g.len(), 6);
        for from in 0..=6usize {
            for len in 0..=6 - from {
                let mut seen = Vec::new();
                assert!(g.range(from as u64, len, |p| seen.extend_from_slice(&p)));
                assert_eq!(seen, b"abcdef"[from..from + len]);
            }
            assert!(!g.range(from as u64, 7 - from, |_| ()));
        }
    }
}
