//! READ, WRITE, SYNCHRONIZE CACHE.

use super::basic::not_mine;
use super::medium::Medium;
use super::protect::Protect;
use super::{Begun, Call, Flow, LengthField};
use crate::sequence::{Finish, locked};
use crate::unit::Flags;
use datamover::SgList;
use scsi_cmd::cdb::{BlockIo, Cdb, IoKind};
use scsi_cmd::{Asc, Sense};

pub(super) fn read(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    call.within(&io, LengthField::of(call))?;
    if call.unit.flags().has(Flags::PROTECTED) {
        return read_protected(call, io);
    }
    Ok(Flow::Read(io))
}

pub(super) fn write(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    call.within(&io, LengthField::of(call))?;
    if call.unit.flags().has(Flags::PROTECTED) {
        return write_protected(call, io);
    }
    Ok(Flow::Write(io))
}

/// READ of a unit with protection information.
fn read_protected(call: &Call<'_>, io: BlockIo) -> Begun {
    let protect = Protect::of(call, &io)?;
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let mut input = SgList::new();
        let (mut done, all) = (0, u64::from(io.blocks));
        while done < all {
            let blocks = (all - done).min(medium.piece());
            let data = medium.read_input(io.lba + done, blocks).await?;
            data.parts().for_each(|part| input.push(part.clone()));
            done += blocks;
        }
        Ok(Finish { input, ..Finish::good() })
    })
}

/// WRITE and WRITE ATOMIC to a unit with protection information.
pub(super) fn write_protected(call: &Call<'_>, io: BlockIo) -> Begun {
    let protect = Protect::of(call, &io)?;
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    let announced = call.write_length;
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let total = u64::from(io.blocks);
        let end = medium.announced(total, announced).await?;
        let piece = if io.kind == IoKind::WriteAtomic { end } else { medium.piece() };
        let mut done = 0;
        while done < end {
            let blocks = (end - done).min(piece);
            let lba = io.lba + done;
            let output = medium.output(total, done, blocks, lba).await?;
            let _guard = locked(unit.ranges.acquire(lba, blocks, false)).await;
            medium.write(lba, output, io.fua).await?;
            done += blocks;
        }
        Ok(Finish::good())
    })
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
