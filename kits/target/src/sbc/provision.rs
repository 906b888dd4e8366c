//! UNMAP, WRITE SAME, GET LBA STATUS (SBC-3 clauses 4.7, 5.4, 5.28, 5.43, 5.44).

use super::basic::not_mine;
use super::medium::Medium;
use super::protect::Protect;
use super::{Begun, Call, Flow, table};
use crate::block::TAG;
use crate::sequence::{Finish, locked};
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::provisioning::{LbaStatus, LbaStatusList, ProvisioningStatus, UnmapList};
use scsi_cmd::{Asc, DecodeErrorKind, Sense};

/// UNMAP.
pub(super) fn unmap(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::Unmap(request) = cdb.command.clone() else { return Err(not_mine()) };
    if request.anchor {
        // Anchored blocks are not supported (ANC_SUP 0).
        return Err(Sense::invalid_cdb_field(1, 0).into());
    }
    let len = request.parameter_list_length;
    if len == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    if len < 8 {
        return Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let list = co.parameters(len.into()).await?;
        let UnmapList(list) = UnmapList::decode(&list).map_err(|error| match error.kind {
            DecodeErrorKind::Truncated => Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR),
            _ => Sense::invalid_parameter(error.at as u16, None),
        })?;
        let limits = table::limits(&unit);
        if list.len() > limits.max_unmap_descriptors as usize {
            return Err(Sense::invalid_parameter(2, None).into());
        }
        let mut total = 0;
        for (n, descriptor) in list.iter().enumerate() {
            let at = 8 + 16 * n as u16;
            let end = descriptor.lba.checked_add(descriptor.blocks.into());
            if end.is_none_or(|end| end > unit.blocks()) {
                return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
                    .information(descriptor.lba)
                    .into());
            }
            total += u64::from(descriptor.blocks);
            if total > u64::from(limits.max_unmap_blocks) {
                return Err(Sense::invalid_parameter(at + 8, None).into());
            }
        }
        let medium = Medium::new(&co, &unit);
        for descriptor in list.iter().filter(|d| d.blocks > 0) {
            let (lba, blocks) = (descriptor.lba, u64::from(descriptor.blocks));
            let _guard = locked(unit.ranges.acquire(lba, blocks, false)).await;
            medium.unmap(lba, blocks).await?;
        }
        Ok(Finish::good())
    })
}

/// WRITE SAME(10) and (16). With UNMAP the blocks are given back if the output says what they read as afterwards, zeros;
/// else it is written (SBC-3 clause 4.7.3.4.4).
pub(super) fn write_same(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let unit = call.unit.clone();
    if io.anchor || (io.unmap && unit.thin().is_none()) {
        return Err(Sense::invalid_cdb_field(1, if io.anchor { 4 } else { 3 }).into());
    }
    let last = unit.blocks();
    let blocks = if io.blocks == 0 { last.saturating_sub(io.lba) } else { io.blocks.into() };
    if io.lba.checked_add(blocks).is_none_or(|end| end > last) || io.lba >= last {
        return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).information(io.lba).into());
    }
    if blocks > table::limits(&unit).max_write_same {
        return Err(Sense::invalid_cdb_field(if call.raw.len() == 10 { 7 } else { 10 }, None).into());
    }
    let protect = Protect::of(call, &io)?;
    let transfers = protect.is_some_and(Protect::transfers);
    let tag = if transfers { TAG as u32 } else { 0 };
    call.exactly(if io.ndob { 0 } else { unit.block_size + tag })?;
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let block = match io.ndob {
            true => None,
            false => Some(medium.output(1, 0, 1, io.lba).await?),
        };
        let _guard = locked(unit.ranges.acquire(io.lba, blocks, false)).await;
        let Some(block) = block.filter(|b| {
            let zeros = b.data.parts().flatten().all(|byte| *byte == 0);
            // Zeros leave blocks without protection information, and so they do when they are given back for them.
            let without = match (protect, transfers) {
                (None, _) => true,
                (_, true) => b.tags.iter().all(|byte| *byte == 0xff),
                (_, false) => io.unmap,
            };
            !(zeros && without)
        }) else {
            // What a unit that does not promise zeros gives back may read as anything.
            let unmap = io.unmap && unit.thin().is_some_and(|thin| thin.zeroes);
            medium.zero(io.lba, blocks, unmap).await?;
            return Ok(Finish::good());
        };
        let mut done = 0;
        while done < blocks {
            let piece = (blocks - done).min(medium.piece());
            medium.write(io.lba + done, medium.repeated(&block, done, piece), false).await?;
            done += piece;
        }
        Ok(Finish::good())
    })
}

/// GET LBA STATUS.
pub(super) fn get_lba_status(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::GetLbaStatus(request) = cdb.command.clone() else { return Err(not_mine()) };
    let unit = call.unit.clone();
    let blocks = unit.blocks();
    if request.lba >= blocks {
        return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).information(request.lba).into());
    }
    call.sequence(move |co| async move {
        let left = (blocks - request.lba).min(u32::MAX.into());
        let extents = Medium::new(&co, &unit).status(request.lba, left).await?;
        let mut lba = request.lba;
        let room = request.allocation_length.saturating_sub(8).div_ceil(16).max(1) as usize;
        let list = extents.iter().take(room).map(|extent| {
            let status = LbaStatus {
                lba,
                blocks: extent.blocks as u32,
                status: match extent.mapped {
                    true => ProvisioningStatus::Mapped,
                    false => ProvisioningStatus::Deallocated,
                },
            };
            lba += extent.blocks;
            status
        });
        let data = LbaStatusList(list.collect()).encode();
        Ok(Finish::data(data, request.allocation_length as usize))
    })
}
