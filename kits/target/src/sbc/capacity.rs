//! READ CAPACITY.

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::sequence::Finish;
use scsi_cmd::Sense;
use scsi_cmd::capacity::{Capacity10, Capacity16};
use scsi_cmd::cdb::{Cdb, Command};

/// READ CAPACITY(10) (SBC-3 clause 5.15).
pub(super) fn read_capacity_10(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReadCapacity10(request) = &cdb.command else { return Err(not_mine()) };
    if request.lba != 0 && !request.pmi {
        return Err(Sense::invalid_cdb_field(2, None).into());
    }
    let last_lba = u32::try_from(call.unit.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
    let data = Capacity10 { last_lba, block_length: call.unit.block_size };
    Ok(Flow::Finish(Finish::data(data.encode().to_vec(), usize::MAX)))
}

/// READ CAPACITY(16) (SBC-3 clause 5.16).
pub(super) fn read_capacity_16(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReadCapacity16(request) = &cdb.command else { return Err(not_mine()) };
    if request.lba != 0 && !request.pmi {
        return Err(Sense::invalid_cdb_field(2, None).into());
    }
    let geometry = call.unit.geometry();
    let thin = call.unit.thin();
    let data = Capacity16 {
        last_lba: call.unit.blocks().saturating_sub(1),
        block_length: call.unit.block_size,
        prot_en: geometry.protection.is_some(),
        p_type: geometry.protection.map_or(0, |kind| kind.number() - 1),
        physical_exponent: geometry.physical_exponent,
        lbpme: thin.is_some(),
        lbprz: thin.is_some_and(|t| t.zeroes),
        ..Capacity16::default()
    };
    Ok(Flow::Finish(Finish::data(data.encode().to_vec(), request.allocation_length)))
}
