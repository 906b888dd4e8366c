//! Protection information (SBC-3 clause 4.22): what RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT ask for.
//!
//! ```text
//!   field        000b      001b, 101b        010b         011b      100b      others
//!   transferred  no        yes               yes          yes       yes       INVALID FIELD IN CDB
//!   checked      guard     guard             tags         nothing   guard
//!                tags      tags
//! ```
//! The reference tag is that of type 1; of type 3 nobody here knows what it should be. The application tag of either type
//! is known while ATO and ATMPE of the Control mode page are set: from the Application Tag mode page. Output with 000b has
//! none to be checked, and gets some.

use super::Call;
use crate::block::{TAG, guard};
use crate::unit::{Flags, LogicalUnit};
use scsi_cmd::cdb::BlockIo;
use scsi_cmd::mode::ApplicationTags;
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
    /// What application tags there should be, if that is known.
    tags: Option<ApplicationTags>,
}

/// What is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checks {
    guard: bool,
    /// Application and reference tag.
    tags: bool,
}

impl Checks {
    pub(super) const NONE: Self = Self { guard: false, tags: false };
    const BOTH: Self = Self { guard: true, tags: true };

    /// Checks a block that was read from the medium or, with `escape` off, comes from the initiator.
    fn check(self, protect: &Protect, lba: u64, data: &[u8], tag: &[u8], escape: bool) -> Result<(), Sense> {
        if self == Self::NONE {
            return Ok(());
        }
        let pi = ProtectionInformation::decode(tag);
        if escape && pi.unchecked(protect.kind) {
            return Ok(());
        }
        let failed = |asc| Err(Sense::new(SenseKey::AbortedCommand, asc).information(lba));
        if self.guard && pi.guard != guard(data) {
            return failed(Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED);
        }
        if self.tags && protect.application_tag(lba).is_some_and(|tag| tag != pi.application_tag) {
            return failed(Asc::LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED);
        }
        if self.tags && protect.kind == ProtectionType::Type1 && pi.reference_tag != lba as u32 {
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
        let state = unit.state();
        let modes = &state.modes;
        let tags = modes.application_tags.filter(|_| modes.control.ato && modes.control.atmpe);
        Some(Self { kind, field: 0, ato: modes.control.ato, tags })
    }

    /// The application tag that a block should have, if that is known. The last descriptor reaches to the end.
    fn application_tag(&self, lba: u64) -> Option<u16> {
        let valid = self.tags.as_ref()?.valid();
        valid.iter().rev().find(|d| d.lba <= lba).map(|d| d.application_tag)
    }

    /// Whether protection information goes between initiator and target.
    pub(super) fn transfers(self) -> bool {
        self.field != 0
    }

    /// What is checked of blocks that are read.
    pub(super) fn on_medium(self) -> Checks {
        match self.field {
            0 | 1 | 5 => Checks::BOTH,
            2 => Checks { tags: true, ..Checks::NONE },
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
        (lba..).zip(blocks).try_for_each(|(lba, (data, tag))| checks.check(&self, lba, data, tag, true))
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
                self.on_medium().check(&self, lba, data, tag, false)?;
                tags.extend_from_slice(tag);
            } else {
                tags.extend_from_slice(&self.made(lba, data));
            }
        }
        Ok((all, tags))
    }

    /// Protection information for a block that came without. With ATO the application tag is that of the mode page; FFFFh
    /// without ATMPE, as it is not this device server's to choose; that turns checks off.
    fn made(self, lba: u64, data: &[u8]) -> [u8; TAG] {
        let application_tag = self.application_tag(lba).unwrap_or(if self.ato { 0xffff } else { 0 });
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
