//! Octets on their way to the stream: FPDUs being built, and what the socket has not taken yet.
//!
//! Headers, trailers and small payloads lie in an arena; large payloads are chained behind them without a copy, unless
//! markers have to be put between their octets.

use crate::mpa::{CRC_LEN, MARKER_INTERVAL, pad_len};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;

/// A payload up to this size is copied behind its header: cheaper than one more element of a vectored write.
const COPY_MAX: usize = 256;
/// Consumed octets at the front of the arena that are worth moving the rest for.
const ARENA_SLACK: usize = 64 * 1024;

enum Chunk {
    /// Octets of the arena from position `at` (in octets ever put there).
    Arena {
        at: u64,
        len: usize,
    },
    Shared(Bytes),
}

pub(super) struct Out {
    arena: Vec<u8>,
    /// Position of the first octet of `arena`.
    arena_at: u64,
    chunks: VecDeque<Chunk>,
    queued: usize,
    /// Octets ever queued: the position of the next one in the stream.
    position: u64,
    markers: bool,
    crc: bool,
    /// Position of the length field of the FPDU being built.
    fpdu_start: u64,
    sum: u32,
}

impl Out {
    pub(super) fn new(markers: bool, crc: bool) -> Self {
        Self {
            arena: Vec::new(),
            arena_at: 0,
            chunks: VecDeque::new(),
            queued: 0,
            position: 0,
            markers,
            crc,
            fpdu_start: 0,
            sum: 0,
        }
    }

    /// Octets the socket has not taken.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Pieces the socket has not taken.
    pub(super) fn pieces(&self) -> usize {
        self.chunks.len()
    }

    /// Stream position behind the last octet queued.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Stream position behind the last octet the socket has taken.
    pub(super) fn sent(&self) -> u64 {
        self.position.saturating_sub(self.queued as u64)
    }

    /// Starts an FPDU of `ulpdu` octets.
    pub(super) fn begin(&mut self, ulpdu: u16) {
        self.sum = 0;
        // A marker between two FPDUs belongs to the second one (RFC 5044 section 4.3).
        self.fpdu_start = self.position;
        if self.marker_due() {
            self.fpdu_start = self.position.saturating_add(4);
            self.marker();
        }
        self.copy(&ulpdu.to_be_bytes());
    }

    /// Appends octets of the FPDU by copying them.
    pub(super) fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.marker_due() {
                self.marker();
            }
            let room = match self.markers {
                true => {
                    usize::try_from(MARKER_INTERVAL.saturating_sub(self.position & (MARKER_INTERVAL - 1)))
                        .unwrap_or(bytes.len())
                }
                false => bytes.len(),
            };
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.raw(now);
            bytes = later;
        }
    }

    /// Appends octets of the FPDU, sharing them where that is possible.
    pub(super) fn share(&mut self, bytes: Bytes) {
        if self.markers || bytes.len() <= COPY_MAX {
            return self.copy(&bytes);
        }
        self.add(&bytes);
        self.position = self.position.saturating_add(bytes.len() as u64);
        self.queued = self.queued.saturating_add(bytes.len());
        self.chunks.push_back(Chunk::Shared(bytes));
    }

    /// Ends the FPDU of `ulpdu` octets: pad and CRC.
    pub(super) fn finish(&mut self, ulpdu: u16) {
        self.copy([0u8; 3].get(..pad_len(ulpdu)).unwrap_or_default());
        // A marker between pad and CRC is covered by this CRC (RFC 5044 section 4.4).
        if self.marker_due() {
            self.marker();
        }
        // As iSCSI puts its digests on the wire: least significant octet first.
        let sum = if self.crc { self.sum.to_le_bytes() } else { [0; CRC_LEN] };
        self.raw(&sum);
    }

    /// Fills `iov` with what is to be sent and returns the number of slices used.
    pub(super) fn slices<'a>(&'a self, iov: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0usize;
        for (slot, chunk) in iov.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(match chunk {
                Chunk::Shared(b) => b,
                Chunk::Arena { at, len } => {
                    let from = usize::try_from(at.saturating_sub(self.arena_at)).unwrap_or(usize::MAX);
                    self.arena.get(from..from.saturating_add(*len)).unwrap_or_default()
                }
            });
            used = used.saturating_add(1);
        }
        used
    }

    /// The socket has taken `n` octets.
    pub(super) fn advance(&mut self, n: usize) {
        let mut n = n.min(self.queued);
        self.queued = self.queued.saturating_sub(n);
        while n > 0 {
            let Some(front) = self.chunks.front_mut() else { break };
            let len = match front {
                Chunk::Arena { len, .. } => *len,
                Chunk::Shared(b) => b.len(),
            };
            if n >= len {
                n = n.saturating_sub(len);
                self.chunks.pop_front();
                continue;
            }
            match front {
                Chunk::Arena { at, len } => {
                    *at = at.saturating_add(n as u64);
                    *len = len.saturating_sub(n);
                }
                Chunk::Shared(b) => b.advance(n),
            }
            n = 0;
        }
        self.trim();
    }

    /// Drops all that has not been sent.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
        self.queued = 0;
        self.trim();
    }

    fn trim(&mut self) {
        let end = self.arena_at.saturating_add(self.arena.len() as u64);
        let live = self.chunks.iter().find_map(|c| match c {
            Chunk::Arena { at, .. } => Some(*at),
            Chunk::Shared(_) => None,
        });
        let dead = usize::try_from(live.unwrap_or(end).saturating_sub(self.arena_at)).unwrap_or_default();
        if dead == self.arena.len() || dead > ARENA_SLACK {
            self.arena.drain(..dead.min(self.arena.len()));
            self.arena_at = self.arena_at.saturating_add(dead as u64);
        }
    }

    fn marker_due(&self) -> bool {
        self.markers && self.position & (MARKER_INTERVAL - 1) == 0
    }

    fn marker(&mut self) {
        // An FPDU has at most 66 KiB, but a pointer of a long FPDU with markers may exceed 16 bits by the octets of the
        // markers themselves; MULPDU is limited so that this does not happen.
        let back = u16::try_from(self.position.saturating_sub(self.fpdu_start)).unwrap_or(u16::MAX);
        let [a, b] = back.to_be_bytes();
        self.raw(&[0, 0, a, b]);
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.crc {
            self.sum = crc32c::crc32c_append(self.sum, bytes);
        }
    }

    /// Appends octets that contain no position where a marker is due.
    fn raw(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.add(bytes);
        let at = self.arena_at.saturating_add(self.arena.len() as u64);
        self.arena.extend_from_slice(bytes);
        match self.chunks.back_mut() {
            Some(Chunk::Arena { len, .. }) => *len = len.saturating_add(bytes.len()),
            _ => self.chunks.push_back(Chunk::Arena { at, len: bytes.len() }),
        }
        self.position = self.position.saturating_add(bytes.len() as u64);
        self.queued = self.queued.saturating_add(bytes.len());
    }
}

#[cfg(test)]
impl Out {
    pub(super) fn arena_len(&self) -> usize {
        self.arena.len()
    }
}
