//! Protection information (SBC-3 clause 4.22): what RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT ask for.
//!
//! ```text
//!   field        000b      001b, 101b        010b         011b      100b      others
//!   transferred  no        yes               yes          yes       yes       INVALID FIELD IN CDB
//!   checked      guard     guard             reference    nothing   guard
//!                reference reference
//! ```
//! The reference tag is that of type 1; of type 3 nobody here knows what it should be, nor of either type the
//! application tag: there is no Application Tag mode page, and APP_CHK is 0. Output with 000b has none to be checked,
//! and gets some.

use super::Call;
use crate::block::{TAG, guard};
use crate::unit::{Flags, LogicalUnit};
use scsi_cmd::cdb::BlockIo;
use scsi_cmd::protection::{ProtectionInformation, ProtectionType};
use scsi_cmd::{Asc, Sense, SenseKey};

/// How the blocks of a unit are protected, and what a command says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Protect {
    pub(super) kind: ProtectionType,
    /// The command's protection field.
    field: u8,
    /// ATO: the application tag, and with type 3 the reference tag, are the initiator's.
    ato: bool,
}

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checks {
    guard: bool,
    reference: bool,
}

impl Checks {
    pub(super) const NONE: Self = Self { guard: false, reference: false };
    const BOTH: Self = Self { guard: true, reference: true };

    /// Checks a block that was read from the medium or, with `escape` off, comes from the initiator.
    fn check(
        self,
        kind: ProtectionType,
        lba: u64,
        data: &[u8],
        tag: &[u8],
        escape: bool,
    ) -> Result<(), Sense> {
        if self == Self::NONE {
            return Ok(());
        }
        let pi = ProtectionInformation::decode(tag);
        if escape && pi.unchecked(kind) {
            return Ok(());
        }
        let failed = |asc| Err(Sense::new(SenseKey::AbortedCommand, asc).information(lba));
        if self.guard && pi.guard != guard(data) {
            return failed(Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED);
        }
        if self.reference && kind == ProtectionType::Type1 && pi.reference_tag != lba as u32 {
            return failed(Asc::LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED);
        }
        Ok(())
    }
}

impl Protect {
    /// What a command that names its blocks says; `None` for a unit without protection information.
    ///
    /// # Errors
    /// INVALID FIELD IN CDB for reserved values.
    pub(super) fn of(call: &Call<'_>, io: &BlockIo) -> Result<Option<Self>, Sense> {
        if !call.unit.flags().has(Flags::PROTECTED) {
            return Ok(None);
        }
        if io.protect > 5 {
            return Err(Sense::invalid_cdb_field(1, 7));
        }
        Ok(Self::none(call.unit).map(|protect| Self { field: io.protect, ..protect }))
    }

    /// What 000b says.
    pub(super) fn none(unit: &LogicalUnit) -> Option<Self> {
        if !unit.flags().has(Flags::PROTECTED) {
            return None;
        }
        let kind = unit.geometry().protection?;
        Some(Self { kind, field: 0, ato: unit.state().modes.control.ato })
    }

    /// Whether protection information goes between initiator and target.
    pub(super) fn transfers(self) -> bool {
        self.field != 0
    }

    /// What is checked of blocks that are read.
    pub(super) fn on_medium(self) -> Checks {
        match self.field {
            0 | 1 | 5 => Checks::BOTH,
            2 => Checks { reference: true, ..Checks::NONE },
            4 => Checks { guard: true, ..Checks::NONE },
            _ => Checks::NONE,
        }
    }

    /// Of those that are read to be compared with output: with protection information there, it is compared instead
    /// (SBC-3 clause 5.29, table "VRPROTECT field with BYTCHK 01b or 11b, medium").
    pub(super) fn to_compare(self) -> Checks {
        if self.transfers() { Checks::NONE } else { self.on_medium() }
    }

    /// Checks blocks from the medium.
    pub(super) fn check(
        self,
        checks: Checks,
        lba: u64,
        block: usize,
        data: &[u8],
        tags: &[u8],
    ) -> Result<(), Sense> {
        let blocks = data.chunks_exact(block).zip(tags.chunks_exact(TAG));
        (lba..).zip(blocks).try_for_each(|(lba, (data, tag))| checks.check(self.kind, lba, data, tag, true))
    }

    /// Takes output apart and checks it; without transfer gives it what the standard says (SBC-3 clause 5.33, table
    /// "WRPROTECT field"). Returns data and protection information.
    pub(super) fn take(self, lba: u64, block: usize, output: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Sense> {
        let stride = block + if self.transfers() { TAG } else { 0 };
        let blocks = output.len() / stride;
        let (mut all, mut tags) = (Vec::with_capacity(blocks * block), Vec::with_capacity(blocks * TAG));
        for (lba, piece) in (lba..).zip(output.chunks_exact(stride)) {
            let (data, tag) = piece.split_at(block);
            all.extend_from_slice(data);
            if self.transfers() {
                // Nothing turns off checks of what is about to be written.
                self.on_medium().check(self.kind, lba, data, tag, false)?;
                tags.extend_from_slice(tag);
            } else {
                tags.extend_from_slice(&self.made(lba, data));
            }
        }
        Ok((all, tags))
    }

    /// Protection information for a block that came without. With ATO the application tag is FFFFh, as it is not this
    /// device server's to choose; that turns checks off.
    fn made(self, lba: u64, data: &[u8]) -> [u8; TAG] {
        let application_tag = if self.ato { 0xffff } else { 0 };
        let reference_tag = if self.kind == ProtectionType::Type1 { lba as u32 } else { 0xffff_ffff };
        ProtectionInformation { guard: guard(data), application_tag, reference_tag }.encode()
    }

    /// New guards for data that were computed; the tags stay.
    pub(super) fn guard_again(self, block: usize, data: &[u8], tags: &mut [u8]) {
        for (data, tag) in data.chunks_exact(block).zip(tags.chunks_exact_mut(TAG)) {
            let pi = ProtectionInformation { guard: guard(data), ..ProtectionInformation::decode(tag) };
            tag.copy_from_slice(&pi.encode());
        }
    }

    /// The protection information of the `n`th of equal blocks, of which the first has `tag` (SBC-3 clause 5.43).
    pub(super) fn repeated(self, tag: &[u8], n: u64) -> [u8; TAG] {
        let pi = ProtectionInformation::decode(tag);
        if self.kind != ProtectionType::Type1 || pi == ProtectionInformation::UNWRITTEN {
            return pi.encode();
        }
        ProtectionInformation { reference_tag: pi.reference_tag.wrapping_add(n as u32), ..pi }.encode()
    }

    /// Compares protection information of the medium with that of output (SBC-3 clause 5.29, table "byte-by-byte
    /// comparison requirements").
    pub(super) fn compare(self, lba: u64, medium: &[u8], output: &[u8]) -> Result<(), Sense> {
        if !self.transfers() {
            return Ok(());
        }
        let tags = |tags: &[u8]| ProtectionInformation::decode(tags);
        for (lba, (medium, output)) in (lba..).zip(medium.chunks_exact(TAG).zip(output.chunks_exact(TAG))) {
            let (medium, output) = (tags(medium), tags(output));
            let differs = |asc| Err(Sense::new(SenseKey::Miscompare, asc).information(lba));
            if self.field != 2 && medium.guard != output.guard {
                return differs(Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED);
            }
            if self.ato && medium.application_tag != output.application_tag {
                return differs(Asc::LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED);
            }
            let reference = self.kind == ProtectionType::Type1 || self.ato;
            if reference && medium.reference_tag != output.reference_tag {
                return differs(Asc::LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED);
            }
        }
        Ok(())
    }
}
