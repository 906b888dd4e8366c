//! The shadow disk: which contents each block may have.

use std::collections::BTreeMap;

pub(crate) const BLOCK: usize = 512;

/// What a block holds: the number of the write that wrote it, 0 for none.
pub(crate) type Stamp = u64;

#[derive(Clone, Debug)]
struct Block {
    /// More than one after a write whose end is not known.
    possible: Vec<Stamp>,
    busy: bool,
}

/// The part of the disk that one initiator uses.
#[derive(Debug)]
pub(crate) struct Shadow {
    first: u32,
    blocks: Vec<Block>,
}

impl Shadow {
    pub(crate) fn new(first: u32, len: u32) -> Self {
        Self { first, blocks: vec![Block { possible: vec![0], busy: false }; len as usize] }
    }

    pub(crate) fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Takes blocks for one command, if none of them is in use; `at` counts from the part's beginning.
    pub(crate) fn take(&mut self, at: u32, len: u32) -> bool {
        let Some(range) = self.blocks.get_mut(at as usize..(at + len) as usize) else { return false };
        if range.iter().any(|b| b.busy) {
            return false;
        }
        range.iter_mut().for_each(|b| b.busy = true);
        true
    }

    /// Address on the disk.
    pub(crate) fn lba(&self, at: u32) -> u32 {
        self.first + at
    }

    /// A write is over: it is known to be there, or it may be.
    pub(crate) fn written(&mut self, at: u32, len: u32, stamp: Stamp, certain: bool) {
        for block in &mut self.blocks[at as usize..(at + len) as usize] {
            if certain {
                block.possible.clear();
            }
            block.possible.push(stamp);
            block.busy = false;
        }
    }

    /// A read is over, without data.
    pub(crate) fn not_read(&mut self, at: u32, len: u32) {
        self.blocks[at as usize..(at + len) as usize].iter_mut().for_each(|b| b.busy = false);
    }

    /// A read is over: is what it brought possible? What was read is what is there.
    pub(crate) fn read(&mut self, at: u32, data: &[u8]) -> Result<(), String> {
        let first = self.first;
        for (n, bytes) in data.chunks(BLOCK).enumerate() {
            let index = at as usize + n;
            let block = &mut self.blocks[index];
            block.busy = false;
            let lba = first + index as u32;
            let stamp =
                stamp_of(lba, bytes).ok_or_else(|| format!("block {lba} is torn or was never filled"))?;
            if !block.possible.contains(&stamp) {
                return Err(format!("block {lba} holds write {stamp}, possible are {:?}", block.possible));
            }
            block.possible = vec![stamp];
        }
        Ok(())
    }
}

/// The contents of a block.
pub(crate) fn fill(lba: u32, stamp: Stamp, block: &mut [u8]) {
    let word = (stamp ^ (u64::from(lba) << 40)).to_be_bytes();
    block.chunks_mut(8).for_each(|c| c.copy_from_slice(&word[..c.len()]));
}

fn stamp_of(lba: u32, block: &[u8]) -> Option<Stamp> {
    let word: [u8; 8] = block.get(..8)?.try_into().ok()?;
    let whole = block.len() == BLOCK && block.chunks(8).all(|c| c == word);
    whole.then(|| u64::from_be_bytes(word) ^ (u64::from(lba) << 40))
}

/// How often each command was executed.
#[derive(Debug, Default)]
pub(crate) struct Executions(BTreeMap<u64, u32>);

impl Executions {
    pub(crate) fn count(&mut self, command: u64) -> u32 {
        let n = self.0.entry(command).or_default();
        *n += 1;
        *n
    }

    pub(crate) fn of(&self, command: u64) -> u32 {
        self.0.get(&command).copied().unwrap_or_default()
    }
}
