//! The one table of commands.

use super::{Handler, basic, capacity, inquiry, mode, transfer};
use crate::unit::LogicalUnit;
use scsi_cmd::cdb::{self, OpCode, service_action};
use scsi_cmd::vpd::BlockLimits;
use scsi_cmd::{Asc, Sense};

/// A command that logical units have.
pub(crate) struct Row {
    pub(crate) op: u8,
    /// SERVICE ACTION, for the operation codes that have one.
    pub(crate) service_action: Option<u16>,
    /// CDB usage data without what this device server has not.
    usage: &'static [u8],
    /// Bits that once had a meaning and are ignored, by byte.
    obsolete: &'static [(usize, u8)],
    traits: u32,
    /// Which units have the command.
    feature: Feature,
    pub(crate) run: Handler,
}

/// Goes on in spite of unit attentions (SAM-5 clause 5.14).
const EXEMPT: u32 = 1;
/// Needs a medium that is ready.
const MEDIUM: u32 = 2;
/// Changes the medium.
const WRITES: u32 = 4;
/// Has protection fields in byte 1 (byte 10 of 32-byte CDBs), which are reserved without protection information.
const PROTECT: u32 = 8;

/// What a unit must have for a command to exist on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    Always,
    Removable,
}

impl Row {
    pub(crate) fn exempt(&self) -> bool {
        self.traits & EXEMPT != 0
    }

    pub(crate) fn needs_medium(&self) -> bool {
        self.traits & MEDIUM != 0
    }

    pub(crate) fn writes(&self) -> bool {
        self.traits & WRITES != 0
    }

    fn exists(&self, unit: &LogicalUnit) -> bool {
        match self.feature {
            Feature::Always => true,
            Feature::Removable => unit.config.removable,
        }
    }

    /// CDB usage data (SPC-4 clause 6.35.3) of this device server.
    pub(crate) fn usage(&self) -> impl Iterator<Item = u8> + '_ {
        let variable = self.op == OpCode::VariableLength.0;
        let (flags, group) = match self.usage.len() {
            6 => (1, usize::MAX),
            10 => (1, 6),
            12 => (1, 10),
            16 => (1, 14),
            _ => (10, 6),
        };
        let transfer = self.traits & PROTECT != 0;
        self.usage.iter().enumerate().map(move |(at, used)| match at {
            // GROUP NUMBER, and without protection information the protection fields and expected tags, are reserved.
            _ if transfer && at == flags => used & 0x1f,
            _ if transfer && at == group => used & !0x1f,
            20..=27 if transfer && variable => 0,
            _ => *used,
        })
    }

    /// The bits that are not refused.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = u8> + '_ {
        self.usage().enumerate().map(|(at, used)| {
            used | self.obsolete.iter().filter(|(byte, _)| *byte == at).map(|(_, mask)| mask).sum::<u8>()
        })
    }
}

macro_rules! rows {
    ($( $cdb:ident $(/ $sa:literal)? [ $($trait:ident)* ] $(obsolete $old:expr;)? $(if $feature:ident;)? => $run:path; )*) => {
        /// All commands.
        static ROWS: &[Row] = &[ $( Row {
            op: cdb::$cdb::USAGE[0],
            service_action: rows!(@sa $cdb $($sa)?),
            usage: &cdb::$cdb::USAGE,
            obsolete: rows!(@obsolete $($old)?),
            traits: 0 $(| $trait)*,
            feature: rows!(@feature $($feature)?),
            run: $run,
        }, )* ];
    };
    (@sa $cdb:ident $sa:literal) => { Some($sa) };
    (@sa $cdb:ident) => { fixed_service_action(&cdb::$cdb::USAGE) };
    (@obsolete $old:expr) => { &$old };
    (@obsolete) => { &[] };
    (@feature $feature:ident) => { Feature::$feature };
    (@feature) => { Feature::Always };
}

/// The service action that is part of a command's name.
const fn fixed_service_action(usage: &[u8]) -> Option<u16> {
    if !OpCode(usage[0]).has_service_action() {
        return None;
    }
    Some(if usage[0] == 0x7f { u16::from_be_bytes([usage[8], usage[9]]) } else { (usage[1] & 0x1f) as u16 })
}

/// FUA_NV of READ and WRITE (SBC-2).
const FUA_NV: [(usize, u8); 1] = [(1, 0x02)];
/// SYNC_NV of SYNCHRONIZE CACHE (SBC-2).
const SYNC_NV: [(usize, u8); 1] = [(1, 0x04)];

rows! {
    TestUnitReady [MEDIUM] => basic::test_unit_ready;
    RequestSense [EXEMPT] => basic::request_sense;
    Inquiry [EXEMPT] => inquiry::inquiry;
    ReportLuns [EXEMPT] => basic::report_luns;
    StartStopUnit [] => basic::start_stop_unit;
    PreventAllowMediumRemoval [] if Removable; => basic::prevent_allow;
    ModeSense6 [] => mode::sense;
    ModeSense10 [] => mode::sense;
    ModeSelect6 [] => mode::select;
    ModeSelect10 [] => mode::select;
    ReadCapacity10 [MEDIUM] => capacity::read_capacity_10;
    ReadCapacity16 [MEDIUM] => capacity::read_capacity_16;
    Read6 [MEDIUM] => transfer::read;
    Read10 [MEDIUM PROTECT] obsolete FUA_NV; => transfer::read;
    Read12 [MEDIUM PROTECT] obsolete FUA_NV; => transfer::read;
    Read16 [MEDIUM PROTECT] obsolete FUA_NV; => transfer::read;
    Write6 [MEDIUM WRITES] => transfer::write;
    Write10 [MEDIUM WRITES PROTECT] obsolete FUA_NV; => transfer::write;
    Write12 [MEDIUM WRITES PROTECT] obsolete FUA_NV; => transfer::write;
    Write16 [MEDIUM WRITES PROTECT] obsolete FUA_NV; => transfer::write;
    SynchronizeCache10 [MEDIUM] obsolete SYNC_NV; => transfer::synchronize_cache;
    SynchronizeCache16 [MEDIUM] obsolete SYNC_NV; => transfer::synchronize_cache;
}

/// The row of a CDB.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB pointing at an unknown service action.
pub(crate) fn find(unit: &LogicalUnit, raw: &[u8]) -> Result<&'static Row, Sense> {
    let op = raw.first().copied().unwrap_or(0);
    let mut known = false;
    for row in ROWS.iter().filter(|row| row.op == op && row.exists(unit)) {
        if row.service_action.is_none_or(|sa| sa == service_action(raw)) {
            return Ok(row);
        }
        known = true;
    }
    if known {
        let (byte, bit) = if op == OpCode::VariableLength.0 { (8, 7) } else { (1, 4) };
        return Err(Sense::invalid_cdb_field(byte, bit));
    }
    Err(Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE))
}

/// What the Block Limits page says, and what the commands keep to.
pub(crate) fn limits(unit: &LogicalUnit) -> BlockLimits {
    let geometry = unit.geometry();
    let max_transfer = unit.config.max_transfer / unit.block_size;
    let physical = 1 << geometry.physical_exponent;
    BlockLimits {
        optimal_granularity: physical,
        max_transfer,
        optimal_transfer: max_transfer.min((1 << 20) / unit.block_size),
        ..BlockLimits::default()
    }
}
