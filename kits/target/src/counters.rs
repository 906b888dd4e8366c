//! What commands have done, for log pages.
//!
//! Each nexus counts for itself, so that nothing is shared on the data path; who asks adds up.

use crate::block::TAG;
use crate::sequence::{Ended, Ending};
use crate::unit::{Flags, LogicalUnit};
use scsi_cmd::cdb::{Cdb, OpCode};
use scsi_cmd::{Asc, SenseKey};
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of counters.
pub(crate) const COUNTERS: usize = 8;
/// Commands that read, and that write, whatever else they do.
pub(crate) const READS: usize = 0;
pub(crate) const WRITES: usize = 1;
/// Logical blocks that went to initiators, that came from them, and that were verified.
pub(crate) const BLOCKS_READ: usize = 2;
pub(crate) const BLOCKS_WRITTEN: usize = 3;
pub(crate) const BLOCKS_VERIFIED: usize = 4;
/// Commands that ended with an error of the medium.
pub(crate) const READ_ERRORS: usize = 5;
pub(crate) const WRITE_ERRORS: usize = 6;
pub(crate) const VERIFY_ERRORS: usize = 7;

/// The counters of one nexus. It alone changes them.
#[derive(Default)]
pub(crate) struct Counters([AtomicU64; COUNTERS]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Read,
    Write,
    WriteAndVerify,
    Verify,
    Other,
}

fn class(op: OpCode) -> Class {
    match op {
        OpCode::Read6 | OpCode::Read10 | OpCode::Read12 | OpCode::Read16 => Class::Read,
        OpCode::Write6
        | OpCode::Write10
        | OpCode::Write12
        | OpCode::Write16
        | OpCode::WriteAtomic16
        | OpCode::WriteSame10
        | OpCode::WriteSame16
        | OpCode::OrWrite16
        | OpCode::CompareAndWrite => Class::Write,
        OpCode::WriteAndVerify10 | OpCode::WriteAndVerify12 | OpCode::WriteAndVerify16 => {
            Class::WriteAndVerify
        }
        OpCode::Verify10 | OpCode::Verify12 | OpCode::Verify16 => Class::Verify,
        _ => Class::Other,
    }
}

impl Counters {
    fn add(&self, counter: usize, n: u64) {
        let counter = &self.0[counter];
        // One thread writes: no exchange that locks.
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> [u64; COUNTERS] {
        std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed))
    }

    /// A command ends that has input and output of so many bytes.
    pub(crate) fn count(&self, unit: &LogicalUnit, cdb: &[u8], ended: &Ended, input: u64, output: u64) {
        let class = class(OpCode(cdb.first().copied().unwrap_or(0)));
        if class == Class::Other {
            return;
        }
        let errors = match class {
            Class::Read => READ_ERRORS,
            Class::Verify => VERIFY_ERRORS,
            _ => WRITE_ERRORS,
        };
        match ended {
            Ok(_) => {}
            Err(Ending::Check(sense)) if sense.key == SenseKey::MediumError || is_protection(sense.asc) => {
                return self.add(errors, 1);
            }
            Err(_) => return,
        }
        let mut stride = u64::from(unit.block_size);
        if unit.flags().has(Flags::PROTECTED) && cdb.len() > 6 && cdb[1] >> 5 != 0 {
            stride += TAG as u64;
        }
        match class {
            Class::Read => {
                self.add(READS, 1);
                self.add(BLOCKS_READ, input / stride);
            }
            Class::Write | Class::WriteAndVerify => {
                self.add(WRITES, 1);
                self.add(BLOCKS_WRITTEN, output / stride);
            }
            _ => {}
        }
        if matches!(class, Class::Verify | Class::WriteAndVerify) {
            let io = Cdb::decode(cdb).ok().and_then(|cdb| cdb.command.block_io());
            self.add(BLOCKS_VERIFIED, io.map_or(0, |io| io.blocks.into()));
        }
    }
}

/// A guard or tag that does not fit.
fn is_protection(asc: Asc) -> bool {
    [
        Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED,
        Asc::LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED,
        Asc::LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED,
    ]
    .contains(&asc)
}

/// Of nexuses that are gone, and where resets have put zero, by log page.
#[derive(Default)]
pub(crate) struct Past {
    gone: [u64; COUNTERS],
    zero: std::collections::BTreeMap<u8, [u64; COUNTERS]>,
}

impl Past {
    /// A nexus is gone.
    pub(crate) fn keep(&mut self, counters: &Counters) {
        self.gone.iter_mut().zip(counters.get()).for_each(|(sum, n)| *sum = sum.wrapping_add(n));
    }

    fn all<'a>(&self, live: impl Iterator<Item = &'a Counters>) -> [u64; COUNTERS] {
        live.fold(self.gone, |sum, counters| {
            let counters = counters.get();
            std::array::from_fn(|n| sum[n].wrapping_add(counters[n]))
        })
    }

    /// What a page counts from.
    pub(crate) fn since_reset<'a>(
        &self,
        page: u8,
        live: impl Iterator<Item = &'a Counters>,
    ) -> [u64; COUNTERS] {
        let (all, zero) = (self.all(live), self.zero.get(&page).copied().unwrap_or_default());
        std::array::from_fn(|n| all[n].wrapping_sub(zero[n]))
    }

    /// The page counts from zero again.
    pub(crate) fn reset<'a>(&mut self, page: u8, live: impl Iterator<Item = &'a Counters>) {
        let all = self.all(live);
        self.zero.insert(page, all);
    }
}
