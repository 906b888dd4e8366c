//! The medium as commands of several steps use it.

use crate::block::{Action, BlockError, Extent, Payload};
use crate::sequence::Co;
use crate::unit::{Flags, LogicalUnit, block_error};
use bytes::Bytes;
use datamover::{IoBuf, SgList, SgListMut};
use scsi_cmd::Sense;
use std::sync::Arc;

/// Bytes that one step reads or writes.
pub(super) const PIECE: u64 = 256 << 10;

/// A unit's device in the hands of a sequence. Errors come as sense data.
#[derive(Clone)]
pub(super) struct Medium {
    co: Co,
    pub(super) unit: Arc<LogicalUnit>,
    lends_reads: bool,
    volatile_cache: bool,
    /// Not the unit to which the command was addressed.
    elsewhere: bool,
}

impl Medium {
    pub(super) fn new(co: &Co, unit: &Arc<LogicalUnit>) -> Self {
        let geometry = unit.geometry();
        Self {
            co: co.clone(),
            unit: unit.clone(),
            lends_reads: geometry.lends_reads,
            volatile_cache: geometry.volatile_cache,
            elsewhere: false,
        }
    }

    /// The device of another unit that the same nexus has.
    pub(super) fn elsewhere(co: &Co, unit: &Arc<LogicalUnit>) -> Self {
        Self { elsewhere: true, ..Self::new(co, unit) }
    }

    pub(super) fn block(&self) -> u64 {
        u64::from(self.unit.block_size)
    }

    /// Blocks of one step.
    pub(super) fn piece(&self) -> u64 {
        (PIECE / self.block()).max(1)
    }

    async fn run(&self, action: Action) -> Result<Payload, BlockError> {
        match self.elsewhere {
            true => self.co.run_on(self.unit.clone(), action).await,
            false => self.co.run(action).await,
        }
    }

    pub(super) async fn read(&self, lba: u64, blocks: u64) -> Result<SgList, Sense> {
        let into = match self.lends_reads {
            true => SgListMut::new(),
            false => IoBuf::zeroed((blocks * self.block()) as usize).into(),
        };
        match self.run(Action::Read { lba, blocks: blocks as u32, into }).await {
            Ok(Payload::Data(data)) => Ok(data),
            Ok(_) => Err(block_error(BlockError::Device, false, lba)),
            Err(error) => Err(block_error(error, false, lba)),
        }
    }

    /// Writes, through the cache with `fua` or when the cache is off.
    pub(super) async fn write(&self, lba: u64, data: SgList, fua: bool) -> Result<(), Sense> {
        let fua = self.volatile_cache && (fua || self.unit.flags().has(Flags::WRITE_THROUGH));
        let action = Action::Write { lba, data, fua };
        self.run(action).await.map(drop).map_err(|e| block_error(e, true, lba))
    }

    pub(super) async fn zero(&self, lba: u64, blocks: u64, unmap: bool) -> Result<(), Sense> {
        let fua = self.volatile_cache && self.unit.flags().has(Flags::WRITE_THROUGH);
        let action = Action::Zero { lba, blocks, unmap, fua };
        self.run(action).await.map(drop).map_err(|e| block_error(e, true, lba))
    }

    pub(super) async fn unmap(&self, lba: u64, blocks: u64) -> Result<(), Sense> {
        self.run(Action::Unmap { lba, blocks }).await.map(drop).map_err(|e| block_error(e, true, lba))
    }

    pub(super) async fn prefetch(&self, lba: u64, blocks: u64) -> Result<(), Sense> {
        self.run(Action::Prefetch { lba, blocks }).await.map(drop).map_err(|e| block_error(e, false, lba))
    }

    pub(super) async fn flush(&self) -> Result<(), Sense> {
        if !self.volatile_cache {
            return Ok(());
        }
        self.run(Action::Flush).await.map(drop).map_err(|e| block_error(e, true, 0))
    }

    pub(super) async fn status(&self, lba: u64, blocks: u64) -> Result<Vec<Extent>, Sense> {
        match self.run(Action::Status { lba, blocks }).await {
            Ok(Payload::Extents(extents)) => Ok(extents),
            Ok(_) => Err(block_error(BlockError::Device, false, lba)),
            Err(error) => Err(block_error(error, false, lba)),
        }
    }
}

/// `block` so often that the piece it makes is worth an operation, and how many times that is.
pub(super) fn repeated(block: &[u8]) -> (Bytes, u64) {
    let times = ((256 << 10) / block.len().max(1)).max(1);
    (Bytes::from(block.repeat(times)), times as u64)
}

/// Offset of the first byte that differs, if one does.
pub(super) fn first_difference(a: &SgList, b: &SgList) -> Option<usize> {
    let mut offset = 0;
    let mut others = b.parts();
    let mut other: &[u8] = &[];
    for part in a.parts() {
        let mut part: &[u8] = part;
        while !part.is_empty() {
            if other.is_empty() {
                match others.next() {
                    Some(next) => other = next,
                    None => return Some(offset),
                }
                continue;
            }
            let n = part.len().min(other.len());
            if part[..n] != other[..n] {
                let at = part.iter().zip(other).position(|(a, b)| a != b).unwrap_or(0);
                return Some(offset + at);
            }
            offset += n;
            part = &part[n..];
            other = &other[n..];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_across_parts() {
        let list =
            |cut: usize, bytes: &[u8]| bytes.chunks(cut).map(Bytes::copy_from_slice).collect::<SgList>();
        let a = list(3, b"abcdefghij");
        assert_eq!(first_difference(&a, &list(4, b"abcdefghij")), None);
        assert_eq!(first_difference(&a, &list(4, b"abcdefgXij")), Some(7));
        assert_eq!(first_difference(&a, &list(1, b"Xbcdefghij")), Some(0));
        assert_eq!(first_difference(&a, &list(7, b"abcdefghi")), Some(9));
    }
}
