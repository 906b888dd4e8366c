//! Buffers that move: [`IoBuf`], [`SgList`], [`SgListMut`].
//!
//! RFC 5047 section 5.4 foresees that ownership of buffers is exchanged across the interface. Here that is the only
//! way: a buffer moves down with a call and comes back with an event. While it is below, nobody above can touch it.

use bytes::{Bytes, BytesMut};
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Takes a chunk back when its [`IoBuf`] is dropped.
pub trait Recycle: Send + Sync {
    /// The chunk, at its full length again.
    fn recycle(&self, chunk: BytesMut);
}

/// A unique, writable buffer, usually one chunk of a pool, to which it returns when dropped.
pub struct IoBuf {
    /// Always the whole chunk; taken only by `drop`.
    chunk: BytesMut,
    /// Bytes in use, at most `chunk.len()`.
    len: usize,
    home: Option<Arc<dyn Recycle>>,
}

impl IoBuf {
    /// A buffer of `len` zero bytes that belongs to no pool.
    ///
    /// A transport that needs registered memory must bounce it; prefer the pool of the datamover.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { chunk: BytesMut::zeroed(len), len, home: None }
    }

    /// A pool's chunk, of which the first `len` bytes are in use; `len` is capped at the chunk's length.
    #[must_use]
    pub fn from_chunk(chunk: BytesMut, len: usize, home: Arc<dyn Recycle>) -> Self {
        let len = len.min(chunk.len());
        Self { chunk, len, home: Some(home) }
    }

    /// Length of the whole chunk: the most that [`truncate`](Self::truncate) or [`set_len`](Self::set_len) can keep.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chunk.len()
    }

    /// Shortens the part in use; longer than now changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sets the part in use, capped at the capacity. The bytes gained hold whatever the chunk held: all are
    /// initialised, none is cleared.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.chunk.len());
    }

    /// Gives the bytes in use away for reading, without copying; the chunk returns to its pool when the last clone
    /// of the result is dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        if self.home.is_some() { Bytes::from_owner(self) } else { self.into_unpooled() }
    }

    fn into_unpooled(mut self) -> Bytes {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.truncate(self.len);
        chunk.freeze()
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.recycle(std::mem::take(&mut self.chunk));
        }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.chunk.get(..self.len).unwrap_or_default()
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.chunk.get_mut(..self.len).unwrap_or_default()
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// An unpooled copy of the bytes.
impl From<&[u8]> for IoBuf {
    fn from(bytes: &[u8]) -> Self {
        Self { chunk: BytesMut::from(bytes), len: bytes.len(), home: None }
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} of {} B)", self.len, self.chunk.len())
    }
}

/// A list with room for one element in place: most transfers are one buffer.
#[derive(Clone)]
struct OneOrMore<T> {
    first: Option<T>,
    rest: Vec<T>,
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self { first: None, rest: Vec::new() }
    }
}

impl<T> OneOrMore<T> {
    fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push(item);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.rest)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    fn into_iter(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.rest)
    }
}

/// A scatter list for reading: immutable, cheap to clone and to slice.
#[derive(Clone, Default)]
pub struct SgList {
    parts: OneOrMore<Bytes>,
    len: usize,
}

impl SgList {
    /// The empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part at the end; an empty one changes nothing.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len = self.len.saturating_add(part.len());
            self.parts.push(part);
        }
    }

    /// Total bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts in order; none is empty.
    pub fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.parts.iter()
    }

    /// The bytes `offset .. offset + len` piece by piece, sharing this list's memory; what lies beyond the end is left
    /// out.
    pub fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = Bytes> {
        let mut skip = offset;
        let mut want = len;
        self.parts()
            .map_while(move |part| {
                if want == 0 {
                    return None;
                }
                let start = skip.min(part.len());
                skip = skip.saturating_sub(part.len());
                let end = part.len().min(start.saturating_add(want));
                want = want.saturating_sub(end.saturating_sub(start));
                Some(part.slice(start..end))
            })
            // Parts before the range.
            .filter(|piece| !piece.is_empty())
    }

    /// The bytes `offset .. offset + len` as a list that shares this one's memory; what lies beyond the end is left
    /// out.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        self.pieces(offset, len).collect()
    }

    /// Copies the bytes from `offset` on into `to`; returns how many there were.
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let mut skip = offset;
        let mut done = 0usize;
        for part in self.parts() {
            let rest = part.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(part.len());
            let room = to.get_mut(done..).unwrap_or_default();
            let len = rest.len().min(room.len());
            let (Some(dst), Some(src)) = (room.get_mut(..len), rest.get(..len)) else { break };
            dst.copy_from_slice(src);
            done = done.saturating_add(len);
        }
        done
    }

    /// All bytes in one piece: shared when there is one part, copied when there are more.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut parts = self.parts();
        match (parts.next(), parts.next()) {
            (None, _) => Bytes::new(),
            (Some(one), None) => one.clone(),
            _ => {
                let mut all = BytesMut::with_capacity(self.len);
                self.parts().for_each(|p| all.extend_from_slice(p));
                all.freeze()
            }
        }
    }

    /// Fills `iov` with slices over the bytes from `offset` on; returns how many slices were filled.
    pub fn io_slices<'a>(&'a self, offset: usize, iov: &mut [IoSlice<'a>]) -> usize {
        let mut skip = offset;
        let mut n = 0usize;
        for part in self.parts() {
            if skip >= part.len() {
                skip = skip.saturating_sub(part.len());
                continue;
            }
            let Some(slot) = iov.get_mut(n) else { break };
            *slot = IoSlice::new(part.get(skip..).unwrap_or_default());
            n = n.saturating_add(1);
            skip = 0;
        }
        n
    }
}

impl From<Bytes> for SgList {
    fn from(part: Bytes) -> Self {
        let mut list = Self::new();
        list.push(part);
        list
    }
}

impl From<Bytes> for Box<SgList> {
    fn from(part: Bytes) -> Self {
        Self::new(part.into())
    }
}

impl FromIterator<Bytes> for SgList {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut list = Self::new();
        parts.into_iter().for_each(|p| list.push(p));
        list
    }
}

/// By content, however it is cut into parts.
impl PartialEq for SgList {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.parts().flatten().eq(other.parts().flatten())
    }
}

impl Eq for SgList {}

impl fmt::Debug for SgList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SgList({} B in {} parts)", self.len, self.parts().count())
    }
}

/// A scatter list for writing: unique buffers, filled in any order.
// req: 5047-5.2-1
#[derive(Default)]
pub struct SgListMut {
    parts: OneOrMore<IoBuf>,
    len: usize,
}

impl SgListMut {
    /// The empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer at the end; an empty one changes nothing (and returns to its pool).
    pub fn push(&mut self, part: IoBuf) {
        if !part.is_empty() {
            self.len = self.len.saturating_add(part.len());
            self.parts.push(part);
        }
    }

    /// Total bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers in order; none is empty.
    pub fn parts(&self) -> impl Iterator<Item = &IoBuf> {
        self.parts.iter()
    }

    /// The buffers in order, for writing. Do not change their lengths through this.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.parts.iter_mut().map(|p| &mut **p)
    }

    /// The bytes `offset .. offset + len` for reading, slice by slice; what lies beyond the end is left out.
    pub fn slices(&self, offset: usize, len: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = offset;
        let mut want = len;
        self.parts()
            .map_while(move |part| {
                if want == 0 {
                    return None;
                }
                let start = skip.min(part.len());
                skip = skip.saturating_sub(part.len());
                let end = part.len().min(start.saturating_add(want));
                want = want.saturating_sub(end.saturating_sub(start));
                part.get(start..end)
            })
            .filter(|slice| !slice.is_empty())
    }

    /// Fills `iov` with writable slices over the bytes `offset .. offset + len`; returns how many slices were
    /// filled. What does not fit in `iov` or lies beyond the end is left out.
    pub fn io_slices_mut<'a>(&'a mut self, offset: usize, len: usize, iov: &mut [IoSliceMut<'a>]) -> usize {
        let mut skip = offset;
        let mut want = len;
        let mut n = 0usize;
        for part in self.parts.iter_mut() {
            if want == 0 || n >= iov.len() {
                break;
            }
            if skip >= part.len() {
                skip = skip.saturating_sub(part.len());
                continue;
            }
            let end = part.len().min(skip.saturating_add(want));
            if let (Some(slot), Some(bytes)) = (iov.get_mut(n), part.get_mut(skip..end)) {
                want = want.saturating_sub(bytes.len());
                *slot = IoSliceMut::new(bytes);
                n = n.saturating_add(1);
            }
            skip = 0;
        }
        n
    }

    /// Copies `from` to `offset`; returns how many bytes found room.
    pub fn copy_from(&mut self, offset: usize, from: &[u8]) -> usize {
        let mut skip = offset;
        let mut done = 0usize;
        for part in self.parts.iter_mut() {
            if done >= from.len() {
                break;
            }
            if skip >= part.len() {
                skip = skip.saturating_sub(part.len());
                continue;
            }
            let room = part.len().saturating_sub(skip).min(from.len().saturating_sub(done));
            let (Some(dst), Some(src)) =
                (part.get_mut(skip..skip.saturating_add(room)), from.get(done..done.saturating_add(room)))
            else {
                break;
            };
            dst.copy_from_slice(src);
            done = done.saturating_add(room);
            skip = 0;
        }
        done
    }

    /// Shortens the list to its first `len` bytes; buffers beyond return to their pool.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        let mut keep = Self::new();
        for mut part in std::mem::take(&mut self.parts).into_iter() {
            let room = len.saturating_sub(keep.len);
            if room == 0 {
                break;
            }
            part.truncate(room);
            keep.push(part);
        }
        *self = keep;
    }

    /// Gives the bytes away for reading, without copying.
    #[must_use]
    pub fn freeze(self) -> SgList {
        self.parts.into_iter().map(IoBuf::freeze).collect()
    }

    /// The buffers themselves, in order.
    pub fn into_parts(self) -> impl Iterator<Item = IoBuf> {
        self.parts.into_iter()
    }
}

impl From<IoBuf> for SgListMut {
    fn from(part: IoBuf) -> Self {
        let mut list = Self::new();
        list.push(part);
        list
    }
}

impl From<IoBuf> for Box<SgListMut> {
    fn from(part: IoBuf) -> Self {
        Self::new(part.into())
    }
}

impl FromIterator<IoBuf> for SgListMut {
    fn from_iter<I: IntoIterator<Item = IoBuf>>(parts: I) -> Self {
        let mut list = Self::new();
        parts.into_iter().for_each(|p| list.push(p));
        list
    }
}

impl fmt::Debug for SgListMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SgListMut({} B in {} parts)", self.len, self.parts().count())
    }
}

/// Where buffers come from. The datamover supplies its own, whose memory it moves without copying.
pub trait BufPool: Send + Sync {
    /// A list of `len` bytes in total, its contents unspecified (but initialised); `None` when the pool is used up.
    fn alloc(&self, len: usize) -> Option<SgListMut>;

    /// Length of one chunk in bytes: the longest contiguous buffer that the pool gives.
    fn chunk_len(&self) -> usize;

    /// Chunks that are out at the moment: 0 when nothing is in flight, which tests use to find leaks.
    fn outstanding(&self) -> usize;
}

#[cfg(test)]
mod tests;
