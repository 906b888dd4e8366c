//! The medium as commands of several steps use it.

use super::protect::{Checks, Protect};
use crate::block::{Action, BlockError, Extent, Payload, TAG};
use crate::sequence::{Co, Ending};
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
    protect: Option<Protect>,
}

/// Blocks with their protection information, if they have any.
#[derive(Clone, Default)]
pub(super) struct Blocks {
    pub(super) data: SgList,
    /// Empty without.
    pub(super) tags: Bytes,
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
            protect: Protect::none(unit),
        }
    }

    /// For a command whose protection field says this.
    pub(super) fn with(self, protect: Option<Protect>) -> Self {
        Self { protect, ..self }
    }

    /// The device of another unit that the same nexus has.
    pub(super) fn elsewhere(co: &Co, unit: &Arc<LogicalUnit>) -> Self {
        Self { elsewhere: true, ..Self::new(co, unit) }
    }

    pub(super) fn block(&self) -> u64 {
        u64::from(self.unit.block_size)
    }

    /// Bytes of a block in the buffers of the initiator.
    pub(super) fn stride(&self) -> u64 {
        let transfers = self.protect.is_some_and(Protect::transfers);
        self.block() + if transfers { TAG as u64 } else { 0 }
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

    /// Reads blocks, and checks what the command wants to be checked.
    pub(super) async fn read(&self, lba: u64, blocks: u64) -> Result<SgList, Sense> {
        let checks = self.protect.map_or(Checks::NONE, Protect::on_medium);
        self.read_blocks(lba, blocks, checks).await.map(|blocks| blocks.data)
    }

    /// Reads blocks to be compared with output.
    pub(super) async fn read_to_compare(&self, lba: u64, blocks: u64) -> Result<Blocks, Sense> {
        let checks = self.protect.map_or(Checks::NONE, Protect::to_compare);
        self.read_blocks(lba, blocks, checks).await
    }

    /// Reads blocks as the initiator gets them.
    pub(super) async fn read_input(&self, lba: u64, blocks: u64) -> Result<SgList, Sense> {
        let checks = self.protect.map_or(Checks::NONE, Protect::on_medium);
        let Blocks { data, tags } = self.read_blocks(lba, blocks, checks).await?;
        if !self.protect.is_some_and(Protect::transfers) {
            return Ok(data);
        }
        let block = self.block() as usize;
        let data = data.to_bytes();
        let mut input = Vec::with_capacity(data.len() + tags.len());
        for (data, tag) in data.chunks_exact(block).zip(tags.chunks_exact(TAG)) {
            input.extend_from_slice(data);
            input.extend_from_slice(tag);
        }
        Ok(Bytes::from(input).into())
    }

    async fn read_blocks(&self, lba: u64, blocks: u64, checks: Checks) -> Result<Blocks, Sense> {
        let into = match self.lends_reads {
            true => SgListMut::new(),
            false => IoBuf::zeroed((blocks * self.block()) as usize).into(),
        };
        if let Some(protect) = self.protect {
            return match self.run(Action::ReadProtected { lba, blocks: blocks as u32, into }).await {
                Ok(Payload::Protected { data, tags }) => {
                    if checks != Checks::NONE {
                        protect.check(checks, lba, self.block() as usize, &data.to_bytes(), &tags)?;
                    }
                    Ok(Blocks { data, tags: tags.into() })
                }
                Ok(_) => Err(block_error(BlockError::Device, false, lba)),
                Err(error) => Err(block_error(error, false, lba)),
            };
        }
        match self.run(Action::Read { lba, blocks: blocks as u32, into }).await {
            Ok(Payload::Data(data)) => Ok(Blocks { data, tags: Bytes::new() }),
            Ok(_) => Err(block_error(BlockError::Device, false, lba)),
            Err(error) => Err(block_error(error, false, lba)),
        }
    }

    /// How many of the `all` blocks of output the initiator has announced with this many `bytes`. Part of a block is
    /// refused: it cannot be written.
    pub(super) async fn announced(&self, all: u64, bytes: u32) -> Result<u64, Ending> {
        let (stride, total) = (self.stride(), (all * self.stride()) as u32);
        let bytes = u64::from(bytes.min(total));
        if !bytes.is_multiple_of(stride) {
            self.co.output(total).await?;
        }
        // Residuals count from all of them.
        self.co.output_part(total, 0, 0).await?;
        Ok(bytes / stride)
    }

    /// `blocks` blocks of output, of which there are `all`, from block `first` on, checked. Block `first` goes to, or is
    /// compared with, `lba`.
    pub(super) async fn output(&self, all: u64, first: u64, blocks: u64, lba: u64) -> Result<Blocks, Ending> {
        let stride = self.stride();
        let part = ((first * stride) as u32, (blocks * stride) as u32);
        let output = self.co.output_part((all * stride) as u32, part.0, part.1).await?;
        Ok(self.taken(lba, output)?)
    }

    /// Output as blocks, checked.
    pub(super) fn taken(&self, lba: u64, output: SgList) -> Result<Blocks, Sense> {
        let Some(protect) = self.protect else { return Ok(Blocks { data: output, tags: Bytes::new() }) };
        let (data, tags) = protect.take(lba, self.block() as usize, &output.to_bytes())?;
        Ok(Blocks { data: Bytes::from(data).into(), tags: tags.into() })
    }

    /// `blocks` times the one block of output, for `lba` and those after it. Block `first` of them has the tags of the
    /// output.
    pub(super) fn repeated(&self, one: &Blocks, first: u64, blocks: u64) -> Blocks {
        let (pattern, times) = repeated(&one.data.to_bytes());
        let whole = std::iter::repeat_n(pattern.clone(), (blocks / times) as usize);
        let rest = pattern.slice(..((blocks % times) * self.block()) as usize);
        let tags = match self.protect {
            Some(protect) => (first..first + blocks).flat_map(|n| protect.repeated(&one.tags, n)).collect(),
            None => Bytes::new(),
        };
        Blocks { data: whole.chain([rest]).collect(), tags }
    }

    /// Compares the protection information of blocks that were read to be compared.
    pub(super) fn compare_tags(&self, lba: u64, found: &Blocks, expected: &Blocks) -> Result<(), Sense> {
        self.protect.map_or(Ok(()), |protect| protect.compare(lba, &found.tags, &expected.tags))
    }

    /// The same blocks with other data: guards that fit.
    pub(super) fn with_data(&self, blocks: &Blocks, data: Vec<u8>) -> Blocks {
        let mut tags = blocks.tags.to_vec();
        if let Some(protect) = self.protect {
            protect.guard_again(self.block() as usize, &data, &mut tags);
        }
        Blocks { data: Bytes::from(data).into(), tags: tags.into() }
    }

    /// Writes, through the cache with `fua` or when the cache is off.
    pub(super) async fn write(&self, lba: u64, blocks: Blocks, fua: bool) -> Result<(), Sense> {
        let fua = self.volatile_cache && (fua || self.unit.flags().has(Flags::WRITE_THROUGH));
        let Blocks { data, tags } = blocks;
        let action = match self.protect {
            Some(_) => Action::WriteProtected { lba, data, tags, fua },
            None => Action::Write { lba, data, fua },
        };
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
