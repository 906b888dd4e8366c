//! The shadow disk: which contents each block may have, now and after the target has lost its cache.

pub(crate) const BLOCK: usize = 512;

/// What a block holds: the number of the write that wrote it, 0 for none.
pub(crate) type Stamp = u64;

#[derive(Clone, Debug)]
struct Block {
    /// More than one after a write whose end is not known.
    possible: Vec<Stamp>,
    /// What may be there if the target crashed now.
    durable: Vec<Stamp>,
    /// What is there, whatever it is, is on the medium.
    clean: bool,
    busy: bool,
}

/// The part of the disk that one initiator uses.
#[derive(Debug)]
pub(crate) struct Shadow {
    first: u32,
    blocks: Vec<Block>,
    /// Crashes of the target.
    epoch: u32,
}

/// How sure it is that a command had its effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// It completed with GOOD.
    Certain,
    /// It completed with GOOD, and the target has crashed since it was submitted: the cache may be gone.
    Cached,
    /// Nobody knows.
    Possible,
}

fn add(to: &mut Vec<Stamp>, stamp: Stamp) {
    if !to.contains(&stamp) {
        to.push(stamp);
    }
}

impl Shadow {
    pub(crate) fn new(first: u32, len: u32) -> Self {
        let block = Block { possible: vec![0], durable: vec![0], clean: true, busy: false };
        Self { first, blocks: vec![block; len as usize], epoch: 0 }
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

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    fn range(&mut self, at: u32, len: u32) -> &mut [Block] {
        &mut self.blocks[at as usize..(at + len) as usize]
    }

    /// A write is over.
    pub(crate) fn written(&mut self, at: u32, len: u32, stamp: Stamp, through: bool, effect: Effect) {
        for block in self.range(at, len) {
            block.busy = false;
            block.clean = through && effect == Effect::Certain;
            if effect == Effect::Certain || (effect == Effect::Cached && through) {
                block.possible.clear();
                if through {
                    block.durable.clear();
                }
            }
            add(&mut block.possible, stamp);
            add(&mut block.durable, stamp);
        }
    }

    /// A SYNCHRONIZE CACHE is over: what is there now stays there.
    pub(crate) fn synchronized(&mut self, at: u32, len: u32, effect: Effect) {
        for block in self.range(at, len) {
            block.busy = false;
            if effect == Effect::Certain {
                block.durable.clone_from(&block.possible);
                block.clean = true;
            }
        }
    }

    /// A command is over that has changed and shown nothing.
    pub(crate) fn release(&mut self, at: u32, len: u32) {
        self.range(at, len).iter_mut().for_each(|b| b.busy = false);
    }

    /// Everything is over: may the disk hold what it holds, and, if its cache were lost now, what it would hold then?
    /// `versions` are that of an address, the last one what is there.
    pub(crate) fn compare<I: Iterator<Item = Stamp>>(
        &self,
        versions: impl Fn(u32) -> I,
    ) -> Result<(), String> {
        for (lba, block) in (self.first..).zip(&self.blocks) {
            if block.busy {
                return Err(format!("block {lba} is still in use"));
            }
            let versions: Vec<Stamp> = versions(lba).collect();
            if let Some(stamp) = versions.last().filter(|stamp| !block.possible.contains(stamp)) {
                return Err(format!(
                    "block {lba} holds write {stamp:#x} in the end, possible are {:x?}",
                    block.possible
                ));
            }
            let wrong = |s: &&Stamp| !block.durable.contains(s) && !block.possible.contains(s);
            if let Some(stamp) = versions.iter().find(wrong) {
                return Err(format!("block {lba} would hold write {stamp:#x} without the cache"));
            }
        }
        Ok(())
    }

    /// The target has lost its cache.
    pub(crate) fn crash(&mut self) {
        self.epoch += 1;
        for block in &mut self.blocks {
            for stamp in std::mem::take(&mut block.durable) {
                add(&mut block.possible, stamp);
            }
            // What survived is on the medium.
            block.durable.clone_from(&block.possible);
            block.clean = true;
        }
    }

    /// A read is over: is what it brought possible? What was read is what is there, unless the target has crashed
    /// since.
    pub(crate) fn read(&mut self, at: u32, data: &[u8], effect: Effect) -> Result<(), String> {
        let first = self.first;
        for (n, bytes) in data.chunks(BLOCK).enumerate() {
            let index = at as usize + n;
            let block = &mut self.blocks[index];
            block.busy = false;
            let lba = first + index as u32;
            let stamp =
                stamp_of(lba, bytes).ok_or_else(|| format!("block {lba} is torn or was never filled"))?;
            if !block.possible.contains(&stamp) {
                return Err(format!(
                    "block {lba} holds write {stamp:#x}, possible are {:x?}",
                    block.possible
                ));
            }
            if effect == Effect::Certain {
                if block.clean {
                    block.durable = vec![stamp];
                }
                block.possible = vec![stamp];
            }
        }
        Ok(())
    }
}

/// Word `n` of a block: no two words of the disk are alike.
fn word(lba: u32, stamp: Stamp, n: usize) -> u64 {
    stamp ^ (u64::from(lba) << 40) ^ ((n as u64) << 57)
}

/// The contents of a block.
pub(crate) fn fill(lba: u32, stamp: Stamp, block: &mut [u8]) {
    for (n, c) in block.chunks_exact_mut(8).enumerate() {
        c.copy_from_slice(&word(lba, stamp, n).to_be_bytes());
    }
}

/// The write that a block's contents come from, if they are whole and belong there.
pub(crate) fn stamp_of(lba: u32, block: &[u8]) -> Option<Stamp> {
    let first: [u8; 8] = block.get(..8)?.try_into().ok()?;
    let stamp = u64::from_be_bytes(first) ^ (u64::from(lba) << 40);
    let whole = block.len() == BLOCK
        && block.chunks_exact(8).enumerate().all(|(n, c)| c == word(lba, stamp, n).to_be_bytes());
    whole.then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(lba: u32, stamp: Stamp) -> Vec<u8> {
        let mut data = vec![0; BLOCK];
        fill(lba, stamp, &mut data);
        data
    }

    #[test]
    fn blocks_tell_where_they_belong() {
        let mut data = block(5, 77);
        assert_eq!(stamp_of(5, &data), Some(77));
        assert_eq!(stamp_of(6, &data).filter(|s| *s == 77), None);
        data.swap(8, 16);
        data.rotate_left(8);
        assert_eq!(stamp_of(5, &data), None, "words of a block have their places");
    }

    #[test]
    fn a_crash_takes_what_was_not_made_durable_and_nothing_else() {
        let mut shadow = Shadow::new(0, 4);
        assert!(shadow.take(0, 4) && !shadow.take(3, 1));
        shadow.release(0, 4);
        shadow.written(0, 1, 10, false, Effect::Certain);
        shadow.written(1, 1, 11, true, Effect::Certain);
        shadow.written(2, 1, 12, false, Effect::Certain);
        shadow.synchronized(2, 1, Effect::Certain);
        assert!(shadow.read(0, &block(0, 0), Effect::Certain).is_err(), "not yet lost");
        shadow.crash();
        assert!(shadow.read(0, &block(0, 0), Effect::Certain).is_ok());
        assert!(shadow.read(0, &block(0, 10), Effect::Certain).is_err(), "it was read as lost");
        assert!(shadow.read(1, &block(1, 0), Effect::Certain).is_err());
        assert!(shadow.read(2, &block(2, 0), Effect::Certain).is_err());
        assert!(shadow.read(1, &block(1, 11), Effect::Certain).is_ok());
        assert!(shadow.read(2, &block(2, 12), Effect::Certain).is_ok());
        shadow.written(3, 1, 13, false, Effect::Possible);
        assert!(shadow.read(3, &block(3, 13), Effect::Certain).is_ok());
        shadow.crash();
        assert!(shadow.read(3, &block(3, 0), Effect::Certain).is_ok(), "what was read was in the cache only");
    }
}
