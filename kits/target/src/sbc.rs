//! The direct-access device server (SPC-4, SBC-3): what each command does.
//!
//! [`table`] lists the commands; dispatch, REPORT SUPPORTED OPERATION CODES, the VPD limits and the rules of
//! reservations and write protection are all read from it.

mod alua;
mod basic;
mod capacity;
pub(crate) mod copy;
mod diagnostic;
mod erase;
mod inquiry;
mod log;
mod medium;
mod mode;
mod opcodes;
mod protect;
mod provision;
mod reserve;
mod table;
mod transfer;
mod verify;

pub(crate) use diagnostic::SelfTest;

use crate::sequence::{Co, Ended, Ending, Finish, Sequence};
use crate::target_device::TargetDevice;
use crate::unit::{Flags, LogicalUnit, View};
use scsi_cmd::cdb::{BlockIo, CdbBuf};
use scsi_cmd::{Asc, Cdb, Command, Lun, Sense, SenseKey, Status};
use std::sync::Arc;
use table::Ready;

/// A command and where it came from.
pub(crate) struct Call<'a> {
    pub(crate) target: &'a Arc<TargetDevice>,
    pub(crate) unit: &'a Arc<LogicalUnit>,
    pub(crate) view: &'a Arc<View>,
    pub(crate) raw: &'a CdbBuf,
    /// Output that the initiator has announced.
    pub(crate) write_length: u32,
    pub(crate) protocol_level: u8,
}

/// What a command needs to be done.
pub(crate) enum Flow {
    /// Nothing more.
    Finish(Finish),
    /// Blocks from the device to the initiator.
    Read(BlockIo),
    /// Blocks from the initiator to the device.
    Write(BlockIo),
    /// Several steps.
    Sequence(Co, Sequence),
}

/// What a command handler returns.
pub(crate) type Begun = Result<Flow, Ending>;

/// A command handler.
pub(crate) type Handler = fn(&Call<'_>, &Cdb) -> Begun;

impl Call<'_> {
    /// A flow of several steps.
    fn sequence<F>(&self, steps: impl FnOnce(Co) -> F) -> Begun
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let co = Co::default();
        Ok(Flow::Sequence(co.clone(), Box::pin(steps(co))))
    }

    /// Refuses a command that takes `len` bytes of output when another number is announced: those that compare or
    /// repeat their output cannot do with a part of it, nor guess what the rest is for.
    fn exactly(&self, len: u32) -> Result<(), Ending> {
        match self.write_length == len {
            true => Ok(()),
            false => Err(Sense::illegal(Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT).into()),
        }
    }

    /// Checks that blocks are on the unit, and no more than a transfer may have (SBC-3 clause 4.5, 6.6.4).
    fn within(&self, io: &BlockIo, at: LengthField) -> Result<(), Ending> {
        let end = io.lba.checked_add(u64::from(io.blocks));
        if end.is_none_or(|end| end > self.unit.blocks()) || (io.blocks == 0 && io.lba > self.unit.blocks()) {
            return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).information(io.lba).into());
        }
        let LengthField(byte) = at;
        if io.blocks > table::max_transfer(self.unit) {
            return Err(Sense::invalid_cdb_field(byte, None).into());
        }
        Ok(())
    }
}

/// Where a CDB has its TRANSFER LENGTH, for the field pointer.
#[derive(Clone, Copy)]
struct LengthField(u16);

impl LengthField {
    fn of(call: &Call<'_>) -> Self {
        Self(match call.raw.len() {
            6 => 4,
            10 => 7,
            12 => 6,
            _ => 10,
        })
    }
}

/// Begins a command: everything that comes before its own work, in the order of SAM-5 clause 5.3.3.
pub(crate) fn begin(call: &Call<'_>) -> Begun {
    let row = match table::find(call.unit, call.raw) {
        Ok(row) => row,
        Err(sense) => {
            attention(call)?;
            return Err(sense.into());
        }
    };
    if call.unit.conflicts(&call.view.nexus, row.access(call.raw)) {
        return Err(Ending::Status(Status::ReservationConflict));
    }
    if !row.exempt() {
        attention(call)?;
    }
    let state = call.target.access_state(call.view.nexus.port().portal_group);
    if let Some(sense) = alua::refused(state, row.gate()) {
        return Err(sense.into());
    }
    reserved_bits(call.unit, call.raw, row)?;
    let Ok(cdb) = Cdb::decode(call.raw) else {
        return Err(Sense::illegal(Asc::INVALID_FIELD_IN_CDB).into());
    };
    let flags = call.unit.flags();
    let refused = (row.needs_medium() && flags.has(Flags::NOT_READY))
        || (!row.while_erasing(call.raw) && flags.has(Flags::ERASING));
    if refused && let Some(sense) = call.unit.not_ready() {
        return Err(sense.into());
    }
    if row.writes() && flags.has(Flags::WRITE_PROTECT) {
        return Err(write_protected(call.unit).into());
    }
    (row.run)(call, &cdb)
}

fn attention(call: &Call<'_>) -> Result<(), Ending> {
    call.view.attentions.take().map_or(Ok(()), |sense| Err(sense.into()))
}

fn write_protected(unit: &LogicalUnit) -> Sense {
    let software = !unit.config.read_only && !unit.geometry().read_only;
    let asc = if software { Asc::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED } else { Asc::WRITE_PROTECTED };
    Sense::new(SenseKey::DataProtect, asc)
}

/// Refuses bits that the command does not use, pointing at the first of them, and NACA (SAM-5 clause 5.2: there is
/// no ACA here). Vendor-specific and obsolete bits of CONTROL are ignored.
fn reserved_bits(unit: &LogicalUnit, raw: &[u8], row: &Ready) -> Result<(), Ending> {
    let Some((at, wrong)) = row.refused(raw, unit) else { return Ok(()) };
    let naca = at + 1 == raw.len() && wrong & 0x04 != 0;
    let bit = if naca { 2 } else { 7 - wrong.leading_zeros() as u8 };
    Err(Sense::invalid_cdb_field(at as u16, bit).into())
}

/// A command to a LUN without logical unit (SPC-4 clauses 6.6.1, 6.33.1, 6.39.1; SAM-5 clause 5.11), or to the
/// well-known logical unit REPORT LUNS (SPC-4 clause 8.2).
pub(crate) fn without_unit(target: &Arc<TargetDevice>, lun: Lun, raw: &CdbBuf, protocol_level: u8) -> Ended {
    let well_known = lun == Lun::REPORT_LUNS;
    let not_there = || Sense::illegal(Asc::LOGICAL_UNIT_NOT_SUPPORTED);
    let Ok(cdb) = Cdb::decode(raw) else { return Err(not_there().into()) };
    match &cdb.command {
        Command::Inquiry(inquiry) => inquiry::without_unit(target, inquiry, well_known, protocol_level),
        Command::ReportLuns(report) => basic::report_luns_of(target, report),
        Command::RequestSense(request) => {
            let sense = if well_known { Sense::default() } else { not_there() };
            Ok(Finish::data(sense.encode(request.desc), request.allocation_length))
        }
        Command::TestUnitReady(_) if well_known => Ok(Finish::good()),
        _ if well_known => Err(Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE).into()),
        _ => Err(not_there().into()),
    }
}

#[cfg(test)]
mod tests;
