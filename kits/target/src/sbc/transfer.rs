//! READ, WRITE, SYNCHRONIZE CACHE.

use super::basic::not_mine;
use super::medium::Medium;
use super::{Begun, Call, Flow, LengthField};
use crate::sequence::Finish;
use scsi_cmd::cdb::Cdb;
use scsi_cmd::{Asc, Sense};

pub(super) fn read(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    call.within(&io, LengthField::of(call))?;
    Ok(Flow::Read(io))
}

pub(super) fn write(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    call.within(&io, LengthField::of(call))?;
    Ok(Flow::Write(io))
}

/// SYNCHRONIZE CACHE (SBC-3 clauses 5.26, 5.27): the whole cache, whatever the range. With IMMED too the status waits
/// for the medium: an initiator that is told of success can rely on it.
pub(super) fn synchronize_cache(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let end = io.lba.checked_add(u64::from(io.blocks));
    if end.is_none_or(|end| end > call.unit.blocks()) || io.lba > call.unit.blocks() {
        return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).information(io.lba).into());
    }
    let unit = call.unit.clone();
    if unit.geometry().read_only {
        return Ok(Flow::Finish(Finish::good()));
    }
    call.sequence(move |co| async move {
        Medium::new(&co, &unit).flush().await?;
        Ok(Finish::good())
    })
}
