//! The one table of commands.

use super::alua::{self, Gate};
use super::{
    Handler, basic, capacity, copy, diagnostic, erase, inquiry, log, mode, opcodes, provision, reserve,
    transfer, verify,
};
use crate::reservation::Access;
use crate::unit::{Flags, LogicalUnit};
use scsi_cmd::cdb::{self, OpCode, service_action};
use scsi_cmd::vpd::BlockLimits;
use scsi_cmd::{Asc, Sense};
use std::ops::Deref;
use std::sync::LazyLock;

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
const EXEMPT: u32 = 1 << 0;
/// Needs a medium that is ready.
const MEDIUM: u32 = 1 << 1;
/// Changes the medium: refused by write protection.
const WRITES: u32 = 1 << 2;
/// Has a protection field in byte 1.
const PROTECT: u32 = 1 << 3;
/// Reservations: see [`Access`]. Without any of these a command is [`Access::Write`].
const ALWAYS: u32 = 1 << 4;
const ALLOWED: u32 = 1 << 5;
const READS: u32 = 1 << 6;
const RESERVES: u32 = 1 << 7;
/// Access states: see [`Gate`]. Without any of these a command is [`Gate::Active`].
const STANDBY: u32 = 1 << 8;
const ANY_STATE: u32 = 1 << 9;
/// Goes on while all blocks are being erased (SBC-3 clauses 4.11.3, 5.3.1).
const ERASING: u32 = 1 << 10;
/// May take hours.
const SLOW: u32 = 1 << 11;
/// Has a GROUP NUMBER.
const GROUP: u32 = 1 << 12;

/// What a unit must have for a command to exist on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feature {
    Always,
    Removable,
    Thin,
    Atomic,
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

    /// What reservations see in the command. Of some, a part of the CDB decides (SBC-3 table 13).
    pub(crate) fn access(&self, raw: &[u8]) -> Access {
        let byte_4 = raw.get(4).copied().unwrap_or(0);
        match OpCode(self.op) {
            // Starting the unit, and allowing removal, hurt nobody.
            OpCode::StartStopUnit if byte_4 & 0xf1 == 0x01 => Access::Persistent,
            OpCode::PreventAllowMediumRemoval if byte_4 & 0x03 == 0 => Access::Persistent,
            _ if self.traits & ALWAYS != 0 => Access::Always,
            _ if self.traits & ALLOWED != 0 => Access::Persistent,
            _ if self.traits & READS != 0 => Access::Read,
            _ if self.traits & RESERVES != 0 => Access::Reserving,
            _ => Access::Write,
        }
    }

    pub(crate) fn gate(&self) -> Gate {
        match self.traits & (STANDBY | ANY_STATE) {
            0 => Gate::Active,
            STANDBY => Gate::Standby,
            _ => Gate::Any,
        }
    }

    pub(crate) fn while_erasing(&self, raw: &[u8]) -> bool {
        // EXIT FAILURE MODE and another SANITIZE lead out of a failed one; of one that runs, the handler refuses them.
        self.traits & ERASING != 0 || raw.first() == Some(&OpCode::Sanitize.0)
    }

    /// RECOMMENDED COMMAND TIMEOUT in seconds; 0 for commands that may take any time.
    pub(crate) fn timeout(&self) -> u32 {
        if self.traits & SLOW != 0 { 0 } else { 30 }
    }

    fn exists(&self, unit: &LogicalUnit) -> bool {
        match self.feature {
            Feature::Always => true,
            Feature::Removable => unit.config.removable,
            Feature::Thin => unit.thin().is_some(),
            Feature::Atomic => unit.geometry().atomic_blocks > 1,
        }
    }

    /// CDB usage data (SPC-4 clause 6.35.3) of this device server.
    pub(crate) fn usage(&self, protected: bool) -> impl Iterator<Item = u8> + '_ {
        self.usage.iter().enumerate().map(move |(at, used)| match (at, self.service_action) {
            (1, Some(action)) => (used & !0x1f) | action as u8,
            // Without protection information its field is reserved.
            (1, None) if self.traits & PROTECT != 0 && !protected => used & 0x1f,
            // FMTPINFO.
            (1, None) if self.op == OpCode::FormatUnit.0 && !protected => used & 0x3f,
            _ if Some(at) == self.group() => used & !0x1f,
            _ => *used,
        })
    }

    /// The byte of GROUP NUMBER, which is ignored: there are no groups (GROUP_SUP 0).
    fn group(&self) -> Option<usize> {
        match self.usage.len() {
            _ if self.traits & GROUP == 0 => None,
            10 => Some(6),
            12 => Some(10),
            _ => Some(14),
        }
    }

    /// The bits that are not refused by units without protection information.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = u8> + '_ {
        self.usage(false).enumerate().map(|(at, used)| {
            let obsolete =
                self.obsolete.iter().filter(|(byte, _)| *byte == at).map(|(_, mask)| mask).sum::<u8>();
            let group = if Some(at) == self.group() { 0x1f } else { 0 };
            used | obsolete | group
        })
    }
}

macro_rules! rows {
    ($( $cdb:ident $(/ $sa:literal)? [ $($trait:ident)* ] $(obsolete $old:expr;)? $(if $feature:ident;)? => $run:path; )*) => {
        /// All commands. Those with CDBs of 32 bytes are not among them: they are for type 2 protection (SBC-3 clause
        /// 5.14).
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
    Some((usage[1] & 0x1f) as u16)
}

/// FUA_NV of READ and WRITE (SBC-2).
const FUA_NV: [(usize, u8); 1] = [(1, 0x02)];
/// SYNC_NV of SYNCHRONIZE CACHE (SBC-2).
const SYNC_NV: [(usize, u8); 1] = [(1, 0x04)];

rows! {
    TestUnitReady [MEDIUM ALLOWED] => basic::test_unit_ready;
    RequestSense [EXEMPT ALWAYS ANY_STATE ERASING] => basic::request_sense;
    FormatUnit [MEDIUM WRITES SLOW] => erase::format;
    Read6 [MEDIUM READS] => transfer::read;
    Write6 [MEDIUM WRITES] => transfer::write;
    Inquiry [EXEMPT ALWAYS ANY_STATE ERASING] => inquiry::inquiry;
    ModeSelect6 [STANDBY] => mode::select;
    Reserve6 [ALWAYS STANDBY] => reserve::reserve;
    Release6 [ALWAYS STANDBY] => reserve::release;
    ModeSense6 [STANDBY ERASING] => mode::sense;
    StartStopUnit [] => basic::start_stop_unit;
    ReceiveDiagnosticResults [STANDBY] => diagnostic::receive;
    SendDiagnostic [STANDBY SLOW] => diagnostic::send;
    PreventAllowMediumRemoval [] if Removable; => basic::prevent_allow;
    ReadCapacity10 [MEDIUM ALLOWED] => capacity::read_capacity_10;
    Read10 [MEDIUM READS PROTECT GROUP] obsolete FUA_NV; => transfer::read;
    Write10 [MEDIUM WRITES PROTECT GROUP] obsolete FUA_NV; => transfer::write;
    WriteAndVerify10 [MEDIUM WRITES PROTECT GROUP] => verify::write_and_verify;
    Verify10 [MEDIUM READS PROTECT GROUP] => verify::verify;
    PreFetch10 [MEDIUM READS GROUP] => verify::prefetch;
    SynchronizeCache10 [MEDIUM GROUP] obsolete SYNC_NV; => transfer::synchronize_cache;
    ReadDefectData10 [MEDIUM READS] => verify::read_defect_data;
    WriteSame10 [MEDIUM WRITES PROTECT GROUP] => provision::write_same;
    Unmap [MEDIUM WRITES GROUP] if Thin; => provision::unmap;
    Sanitize / 0x01 [MEDIUM WRITES SLOW] => erase::sanitize;
    Sanitize / 0x02 [MEDIUM WRITES SLOW] => erase::sanitize;
    Sanitize / 0x1f [MEDIUM WRITES SLOW] => erase::sanitize;
    LogSelect [STANDBY] => log::select;
    LogSense [ALLOWED STANDBY ERASING] => log::sense;
    ModeSelect10 [STANDBY] => mode::select;
    Reserve10 [ALWAYS STANDBY] => reserve::reserve;
    Release10 [ALWAYS STANDBY] => reserve::release;
    ModeSense10 [STANDBY ERASING] => mode::sense;
    PersistentReserveIn / 0x00 [RESERVES STANDBY ERASING] => reserve::persistent_in;
    PersistentReserveIn / 0x01 [RESERVES STANDBY ERASING] => reserve::persistent_in;
    PersistentReserveIn / 0x02 [RESERVES STANDBY ERASING] => reserve::persistent_in;
    PersistentReserveIn / 0x03 [RESERVES STANDBY ERASING] => reserve::persistent_in;
    PersistentReserveOut / 0x00 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x01 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x02 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x03 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x04 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x05 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x06 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    PersistentReserveOut / 0x07 [RESERVES STANDBY ERASING] => reserve::persistent_out;
    ExtendedCopyLid1 [MEDIUM SLOW] => copy::extended_copy;
    ReceiveCopyResults / 0x00 [] => copy::results;
    ReceiveCopyResults / 0x03 [] => copy::results;
    Read16 [MEDIUM READS PROTECT GROUP] obsolete FUA_NV; => transfer::read;
    CompareAndWrite [MEDIUM WRITES PROTECT GROUP] => verify::compare_and_write;
    Write16 [MEDIUM WRITES PROTECT GROUP] obsolete FUA_NV; => transfer::write;
    OrWrite16 [MEDIUM WRITES PROTECT GROUP] => verify::or_write;
    WriteAndVerify16 [MEDIUM WRITES PROTECT GROUP] => verify::write_and_verify;
    Verify16 [MEDIUM READS PROTECT GROUP] => verify::verify;
    PreFetch16 [MEDIUM READS GROUP] => verify::prefetch;
    SynchronizeCache16 [MEDIUM GROUP] obsolete SYNC_NV; => transfer::synchronize_cache;
    WriteSame16 [MEDIUM WRITES PROTECT GROUP] => provision::write_same;
    WriteAtomic16 [MEDIUM WRITES PROTECT GROUP] if Atomic; => verify::write_atomic;
    ReadCapacity16 [MEDIUM ALLOWED] => capacity::read_capacity_16;
    GetLbaStatus [MEDIUM READS] if Thin; => provision::get_lba_status;
    ReportLuns [EXEMPT ALWAYS ANY_STATE ERASING] => basic::report_luns;
    ReportTargetPortGroups [ALWAYS ANY_STATE ERASING] => alua::report;
    ReportSupportedOpCodes [ALWAYS STANDBY ERASING] => opcodes::supported_op_codes;
    ReportSupportedTmfs [ALWAYS STANDBY ERASING] => opcodes::supported_tmfs;
    SetTargetPortGroups [ANY_STATE] => alua::set;
    Read12 [MEDIUM READS PROTECT GROUP] obsolete FUA_NV; => transfer::read;
    Write12 [MEDIUM WRITES PROTECT GROUP] obsolete FUA_NV; => transfer::write;
    WriteAndVerify12 [MEDIUM WRITES PROTECT GROUP] => verify::write_and_verify;
    Verify12 [MEDIUM READS PROTECT GROUP] => verify::verify;
    ReadDefectData12 [MEDIUM READS] => verify::read_defect_data;
}

/// The commands that `unit` has.
pub(super) fn rows(unit: &LogicalUnit) -> impl Iterator<Item = &'static Row> + '_ {
    ROWS.iter().filter(|row| row.exists(unit))
}

/// A row, and what every command would else compute anew.
pub(crate) struct Ready {
    row: &'static Row,
    /// The bits that are refused, without byte 0.
    refused: [u8; LONGEST],
}

/// The longest CDB with a row.
const LONGEST: usize = 16;

impl Ready {
    fn new(row: &'static Row) -> Self {
        let mut refused = [0; LONGEST];
        let last = row.usage.len().saturating_sub(1);
        for (at, (refused, accepted)) in refused.iter_mut().zip(row.accepted()).enumerate().skip(1) {
            *refused = match at {
                // NACA, and the bits that no standard has given a meaning (SAM-5 clause 5.2).
                _ if at == last => 0x3c,
                // The service action has been matched.
                1 if row.service_action.is_some() => !(accepted | 0x1f),
                _ => !accepted,
            };
        }
        Self { row, refused }
    }

    /// The first byte with bits that `unit` refuses, and those bits.
    pub(crate) fn refused(&self, raw: &[u8], unit: &LogicalUnit) -> Option<(usize, u8)> {
        let mut whole = [0; LONGEST];
        let len = raw.len().min(LONGEST);
        whole[..len].copy_from_slice(&raw[..len]);
        if u128::from_ne_bytes(whole) & u128::from_ne_bytes(self.refused) == 0 {
            return None;
        }
        let bad =
            |(at, (byte, refused)): (usize, (&u8, &u8))| Some((at, byte & refused)).filter(|(_, b)| *b != 0);
        let first = raw.iter().zip(&self.refused).enumerate().find_map(bad)?;
        // Something is wrong, unless the unit has what others have not.
        let allowed = match self.row.traits & PROTECT {
            0 if self.row.op == OpCode::FormatUnit.0 && unit.geometry().protectable => 0xc0,
            0 => 0,
            _ if unit.flags().has(Flags::PROTECTED) => 0xe0,
            _ => 0,
        };
        let (at, wrong) = first;
        match wrong & !allowed {
            _ if at != 1 => Some(first),
            0 => raw.iter().zip(&self.refused).enumerate().skip(2).find_map(bad),
            wrong => Some((at, wrong)),
        }
    }
}

impl Deref for Ready {
    type Target = Row;

    fn deref(&self) -> &Row {
        self.row
    }
}

/// The rows by operation code.
static BY_OP: LazyLock<[Vec<Ready>; 256]> = LazyLock::new(|| {
    std::array::from_fn(|op| ROWS.iter().filter(|row| usize::from(row.op) == op).map(Ready::new).collect())
});

/// The row of a CDB.
///
/// # Errors
/// INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB pointing at an unknown service action.
pub(crate) fn find(unit: &LogicalUnit, raw: &[u8]) -> Result<&'static Ready, Sense> {
    let op = raw.first().copied().unwrap_or(0);
    let mut known = false;
    for row in BY_OP[usize::from(op)].iter().filter(|row| row.exists(unit)) {
        if row.service_action.is_none_or(|sa| sa == service_action(raw)) {
            return Ok(row);
        }
        known = true;
    }
    if known {
        return Err(Sense::invalid_cdb_field(1, 4));
    }
    Err(Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE))
}

/// MAXIMUM TRANSFER LENGTH in blocks.
pub(crate) fn max_transfer(unit: &LogicalUnit) -> u32 {
    unit.config.max_transfer / unit.block_size
}

/// What the Block Limits page says, and what the commands keep to.
pub(crate) fn limits(unit: &LogicalUnit) -> BlockLimits {
    let geometry = unit.geometry();
    let max_transfer = max_transfer(unit);
    let physical = 1 << geometry.physical_exponent;
    BlockLimits {
        optimal_granularity: physical,
        max_transfer,
        optimal_transfer: max_transfer.min((1 << 20) / unit.block_size),
        max_prefetch: max_transfer,
        max_compare_and_write: u8::try_from(max_transfer / 2).unwrap_or(u8::MAX),
        // What WRITE SAME(10) can say; one command never takes long.
        max_write_same: u16::MAX.into(),
        max_atomic: if geometry.atomic_blocks > 1 { geometry.atomic_blocks.min(max_transfer) } else { 0 },
        ..match unit.thin() {
            Some(thin) => BlockLimits {
                max_unmap_blocks: u32::MAX,
                max_unmap_descriptors: 256,
                optimal_unmap_granularity: thin.granularity,
                ugavalid: true,
                ..BlockLimits::default()
            },
            None => BlockLimits::default(),
        }
    }
}
