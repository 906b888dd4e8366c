//! VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, PRE-FETCH, READ DEFECT DATA (SBC-3 clause 5).

use super::basic::not_mine;
use super::medium::{Medium, first_difference};
use super::protect::Protect;
use super::transfer::write_protected;
use super::{Begun, Call, Flow, LengthField, table};
use crate::block::TAG;
use crate::sequence::{Finish, locked};
use crate::unit::Flags;
use scsi_cmd::cdb::{BlockIo, Cdb, Command};
use scsi_cmd::{Asc, Sense, SenseKey};

fn miscompare(at: u64) -> Sense {
    Sense::new(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION).information(at)
}

/// BYTCHK 10b is reserved.
fn check_bytchk(io: &BlockIo) -> Result<(), Sense> {
    match io.bytchk {
        2 => Err(Sense::invalid_cdb_field(1, 2)),
        _ => Ok(()),
    }
}

/// VERIFY: BYTCHK 00b reads the medium, 01b compares it with the output, 11b each block with the one block of output.
pub(super) fn verify(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let protect = Protect::of(call, &io)?;
    check_bytchk(&io)?;
    call.within(&io, LengthField::of(call))?;
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let block = medium.block();
        let same = match io.bytchk {
            3 => Some(medium.output(1, 0, 1, io.lba).await?),
            _ => None,
        };
        let (mut done, all) = (0, u64::from(io.blocks));
        while done < all {
            let blocks = (all - done).min(medium.piece());
            let lba = io.lba + done;
            let expected = match (io.bytchk, &same) {
                (1, _) => medium.output(all, done, blocks, lba).await?,
                (_, Some(one)) => medium.repeated(one, done, blocks),
                _ => {
                    medium.read(lba, blocks).await?;
                    done += blocks;
                    continue;
                }
            };
            let found = medium.read_to_compare(lba, blocks).await?;
            if let Some(at) = first_difference(&found.data, &expected.data) {
                return Err(miscompare(lba + at as u64 / block).into());
            }
            medium.compare_tags(lba, &found, &expected)?;
            done += blocks;
        }
        Ok(Finish::good())
    })
}

/// WRITE AND VERIFY: written to the medium, read back, and with BYTCHK compared.
pub(super) fn write_and_verify(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let protect = Protect::of(call, &io)?;
    check_bytchk(&io)?;
    call.within(&io, LengthField::of(call))?;
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    let announced = call.write_length;
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let (block, total) = (medium.block(), u64::from(io.blocks));
        let end = medium.announced(total, announced).await?;
        let mut done = 0;
        while done < end {
            let blocks = (end - done).min(medium.piece());
            let lba = io.lba + done;
            let written = medium.output(total, done, blocks, lba).await?;
            let _guard = locked(unit.ranges.acquire(lba, blocks, false)).await;
            medium.write(lba, written.clone(), true).await?;
            if io.bytchk == 0 {
                medium.read(lba, blocks).await?;
            } else {
                let found = medium.read_to_compare(lba, blocks).await?;
                if let Some(at) = first_difference(&found.data, &written.data) {
                    return Err(miscompare(lba + at as u64 / block).into());
                }
                medium.compare_tags(lba, &found, &written)?;
            }
            done += blocks;
        }
        Ok(Finish::good())
    })
}

/// COMPARE AND WRITE (SBC-3 clause 5.2): half of the output is compared, the other half written if it is equal. The
/// INFORMATION of a MISCOMPARE is the offset of the first byte that differs.
pub(super) fn compare_and_write(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    call.within(&io, LengthField(13))?;
    if io.blocks > u32::from(table::limits(call.unit).max_compare_and_write) {
        return Err(Sense::invalid_cdb_field(13, None).into());
    }
    let protect = Protect::of(call, &io)?;
    let tag = if protect.is_some_and(Protect::transfers) { TAG as u32 } else { 0 };
    let half = io.blocks * (call.unit.block_size + tag);
    if call.write_length != half * 2 {
        // Half of what half?
        return Err(Sense::invalid_cdb_field(13, None).into());
    }
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let output = co.output(half * 2).await?;
        let medium = Medium::new(&co, &unit).with(protect);
        let [verify, write] =
            [0, half].map(|at| medium.taken(io.lba, output.slice(at as usize, half as usize)));
        let (verify, write) = (verify?, write?);
        let _guard = locked(unit.ranges.acquire(io.lba, io.blocks.into(), true)).await;
        let found = medium.read_to_compare(io.lba, io.blocks.into()).await?;
        if let Some(at) = first_difference(&found.data, &verify.data) {
            let (at, block) = (at as u64, medium.block());
            return Err(miscompare(at / block * medium.stride() + at % block).into());
        }
        medium.compare_tags(io.lba, &found, &verify)?;
        medium.write(io.lba, write, io.fua).await?;
        Ok(Finish::good())
    })
}

/// ORWRITE (SBC-3 clause 5.5): what is there, or-ed with the output.
pub(super) fn or_write(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let protect = Protect::of(call, &io)?;
    call.within(&io, LengthField::of(call))?;
    if io.blocks == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let medium = Medium::new(&co, &unit).with(protect);
        let all = u64::from(io.blocks);
        // One lock for all pieces: nothing comes between.
        let _guard = locked(unit.ranges.acquire(io.lba, all, true)).await;
        let mut done = 0;
        while done < all {
            let blocks = (all - done).min(medium.piece());
            let output = medium.output(all, done, blocks, io.lba + done).await?;
            let mut bytes = vec![0; output.data.len()];
            medium.read(io.lba + done, blocks).await?.copy_to(0, &mut bytes);
            let mut rest = bytes.as_mut_slice();
            for part in output.data.parts() {
                let (to, after) = rest.split_at_mut(part.len().min(rest.len()));
                or_into(to, part);
                rest = after;
            }
            medium.write(io.lba + done, medium.with_data(&output, bytes), io.fua).await?;
            done += blocks;
        }
        Ok(Finish::good())
    })
}

/// Or-s bytes into others of the same number, 16 at a time: a build without optimization would do byte after byte.
fn or_into(to: &mut [u8], or: &[u8]) {
    let (to_words, to_rest) = to.as_chunks_mut::<16>();
    let (or_words, or_rest) = or.as_chunks::<16>();
    for (to, or) in to_words.iter_mut().zip(or_words) {
        *to = (u128::from_ne_bytes(*to) | u128::from_ne_bytes(*or)).to_ne_bytes();
    }
    to_rest.iter_mut().zip(or_rest).for_each(|(to, or)| *to |= or);
}

/// WRITE ATOMIC(16) (SBC-4): a WRITE that the device does as one operation.
pub(super) fn write_atomic(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    if io.atomic_boundary != 0 {
        // MAXIMUM ATOMIC BOUNDARY SIZE 0: there is no such division.
        return Err(Sense::invalid_cdb_field(10, None).into());
    }
    call.within(&io, LengthField(12))?;
    if io.blocks > table::limits(call.unit).max_atomic {
        return Err(Sense::invalid_cdb_field(12, None).into());
    }
    let tag = if io.protect != 0 { TAG as u64 } else { 0 };
    let total = u64::from(io.blocks) * (u64::from(call.unit.block_size) + tag);
    if u64::from(call.write_length) < total {
        return Err(Sense::illegal(Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT).into());
    }
    if call.unit.flags().has(Flags::PROTECTED) {
        return write_protected(call, io);
    }
    Ok(Flow::Write(io))
}

/// PRE-FETCH: a hint; GOOD says that the blocks are not known to be in the cache.
pub(super) fn prefetch(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let io = cdb.command.block_io().ok_or_else(not_mine)?;
    let last = call.unit.blocks();
    let blocks = if io.blocks == 0 { last.saturating_sub(io.lba) } else { io.blocks.into() };
    if io.lba.checked_add(blocks).is_none_or(|end| end > last) {
        return Err(Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).information(io.lba).into());
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        Medium::new(&co, &unit).prefetch(io.lba, blocks).await?;
        Ok(Finish::good())
    })
}

/// READ DEFECT DATA (SBC-3 clauses 5.17, 5.18): a device behind a system manages its defects, both lists are empty.
pub(super) fn read_defect_data(_: &Call<'_>, cdb: &Cdb) -> Begun {
    let (flags, data, allocation) = match &cdb.command {
        Command::ReadDefectData10(c) => {
            let flags = u8::from(c.req_plist) << 4 | u8::from(c.req_glist) << 3 | c.defect_list_format;
            (flags, vec![0, flags, 0, 0], u32::from(c.allocation_length))
        }
        Command::ReadDefectData12(c) => {
            let flags = u8::from(c.req_plist) << 4 | u8::from(c.req_glist) << 3 | c.defect_list_format;
            (flags, vec![0, flags, 0, 0, 0, 0, 0, 0], c.allocation_length)
        }
        _ => return Err(not_mine()),
    };
    if matches!(flags & 0x07, 1 | 2 | 7) {
        let byte = if matches!(cdb.command, Command::ReadDefectData10(_)) { 2 } else { 1 };
        return Err(Sense::invalid_cdb_field(byte, 2).into());
    }
    Ok(Flow::Finish(Finish::data(data, allocation as usize)))
}
