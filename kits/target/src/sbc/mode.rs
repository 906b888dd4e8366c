//! MODE SENSE and MODE SELECT (SPC-4 clauses 6.11 to 6.14).

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::modes::Modes;
use crate::sequence::{Co, Ended, Ending, Finish};
use crate::unit::{Flags, LogicalUnit, View};
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::mode::{ApplicationTags, BlockDescriptor, ModeForm, ModePage, ModeParameters};
use scsi_cmd::{Asc, DecodeErrorKind, Sense};
use std::sync::Arc;

const ALL_PAGES: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

pub(super) fn sense(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let (form, dbd, llbaa, pc, page, subpage, allocation) = match &cdb.command {
        Command::ModeSense6(c) => (
            ModeForm::Six,
            c.dbd,
            false,
            c.page_control,
            c.page_code,
            c.subpage_code,
            u16::from(c.allocation_length),
        ),
        Command::ModeSense10(c) => {
            (ModeForm::Ten, c.dbd, c.llbaa, c.page_control, c.page_code, c.subpage_code, c.allocation_length)
        }
        _ => return Err(not_mine()),
    };
    let unit = call.unit;
    let geometry = unit.geometry();
    let modes = match pc {
        0 => unit.state().modes.clone(),
        1 => Modes::changeable(geometry.volatile_cache, geometry.protectable),
        2 => Modes::new(unit.config.write_cache && geometry.volatile_cache, geometry.protectable),
        _ => {
            return Err(Sense::illegal(Asc::SAVING_PARAMETERS_NOT_SUPPORTED).field_in_cdb(2, Some(7)).into());
        }
    };
    let pages: Vec<ModePage> = modes
        .pages()
        .into_iter()
        .filter(|p| page == ALL_PAGES || p.page_code() == page)
        .filter(|p| subpage == ALL_SUBPAGES || p.subpage_code() == subpage)
        .collect();
    if pages.is_empty() {
        let known = modes.pages().iter().any(|p| page == ALL_PAGES || p.page_code() == page);
        let (byte, bit) = if known { (3, 7) } else { (2, 5) };
        return Err(Sense::invalid_cdb_field(byte, bit).into());
    }
    let blocks = unit.blocks();
    let descriptor = match llbaa {
        true => BlockDescriptor::Long { blocks, length: unit.block_size },
        false => BlockDescriptor::Short {
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            length: unit.block_size,
        },
    };
    let list = ModeParameters {
        medium_type: 0,
        wp: unit.flags().has(Flags::WRITE_PROTECT),
        dpofua: true,
        descriptors: if dbd { Vec::new() } else { vec![descriptor] },
        pages,
    };
    Ok(Flow::Finish(Finish::data(list.encode(form, false), allocation)))
}

pub(super) fn select(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let (form, pf, sp, len) = match &cdb.command {
        Command::ModeSelect6(c) => (ModeForm::Six, c.pf, c.sp, u16::from(c.parameter_list_length)),
        Command::ModeSelect10(c) => (ModeForm::Ten, c.pf, c.sp, c.parameter_list_length),
        _ => return Err(not_mine()),
    };
    if sp {
        return Err(Sense::invalid_cdb_field(1, 0).into());
    }
    if !pf && len > 0 {
        return Err(Sense::invalid_cdb_field(1, 4).into());
    }
    if len == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    let (unit, view) = (call.unit.clone(), call.view.clone());
    call.sequence(move |co| apply(co, unit, view, form, len))
}

async fn apply(co: Co, unit: Arc<LogicalUnit>, view: Arc<View>, form: ModeForm, len: u16) -> Ended {
    let bytes = co.parameters(len.into()).await?;
    let list = ModeParameters::decode(&bytes, form).map_err(|error| match error.kind {
        DecodeErrorKind::Value => Sense::invalid_parameter(error.at as u16, None),
        _ => Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR),
    })?;
    let header = if form == ModeForm::Six { 4 } else { 8 };
    check_descriptors(&unit, &list, header)?;
    let mut modes = unit.state().modes.clone();
    let geometry = unit.geometry();
    let changeable = Modes::changeable(geometry.volatile_cache, geometry.protectable);
    let long = matches!(list.descriptors.first(), Some(BlockDescriptor::Long { .. }));
    let mut at = usize::from(header) + list.descriptors.len() * if long { 16 } else { 8 };
    for page in &list.pages {
        let mut new = Vec::new();
        page.encode(&mut new);
        let old = modes.pages().into_iter().find(|p| same(p, page));
        let mask = changeable.pages().into_iter().find(|p| same(p, page));
        let (Some(old), Some(mask)) = (old, mask) else {
            return Err(Sense::invalid_parameter(at as u16, 5).into());
        };
        let (mut was, mut may) = (Vec::new(), Vec::new());
        old.encode(&mut was);
        mask.encode(&mut may);
        if new.len() != was.len() {
            return Err(Sense::invalid_parameter(at as u16 + 1, None).into());
        }
        for (n, ((new, was), may)) in new.iter().zip(&was).zip(&may).enumerate().skip(2) {
            let wrong = (new ^ was) & !may;
            if wrong != 0 {
                let bit = 7 - wrong.leading_zeros() as u8;
                return Err(Sense::invalid_parameter((at + n) as u16, bit).into());
            }
        }
        if let ModePage::ApplicationTags(page) = page {
            check_application_tags(page, unit.blocks(), at)?;
        }
        modes.set(page);
        at += new.len();
    }
    let changed = unit.change(|state| {
        let changed = state.modes != modes;
        state.modes = modes;
        changed
    });
    if changed {
        unit.attention(Asc::MODE_PARAMETERS_CHANGED, Some(&view.nexus));
    }
    Ok(Finish::good())
}

fn same(a: &ModePage, b: &ModePage) -> bool {
    (a.page_code(), a.subpage_code()) == (b.page_code(), b.subpage_code())
}

/// The descriptors follow each other from block 0 to the end. The standard has that end at the RETURNED LOGICAL BLOCK
/// ADDRESS, which leaves the last block without a tag: the number of blocks will do, too, and so will 0, as the default
/// has it.
fn check_application_tags(page: &ApplicationTags, blocks: u64, page_at: usize) -> Result<(), Ending> {
    let wrong = |descriptor, byte| {
        let at = page_at + ApplicationTags::position(descriptor) + byte;
        Err(Sense::invalid_parameter(at as u16, None).into())
    };
    let valid = page.valid();
    if valid.is_empty() {
        // None is the last one.
        return wrong(page.descriptors.len() - 1, 0);
    }
    let mut next = Some(0);
    for (n, descriptor) in valid.iter().enumerate() {
        if Some(descriptor.lba) != next {
            return wrong(n, 8);
        }
        next = descriptor.lba.checked_add(descriptor.blocks);
        let to_the_end = descriptor.blocks == 0 || next == Some(blocks) || next == blocks.checked_sub(1);
        let fits = if descriptor.last { to_the_end } else { next.is_some_and(|next| next < blocks) };
        if !fits {
            return wrong(n, 16);
        }
    }
    Ok(())
}

/// A block descriptor may say what is so, or zeros; the block length and the capacity do not change this way.
fn check_descriptors(unit: &LogicalUnit, list: &ModeParameters, header: u16) -> Result<(), Ending> {
    if list.descriptors.len() > 1 {
        return Err(Sense::invalid_parameter(header - 1, None).into());
    }
    let Some(descriptor) = list.descriptors.first() else { return Ok(()) };
    let (blocks, length, all, at) = match *descriptor {
        BlockDescriptor::Short { blocks, length } => (u64::from(blocks), length, u64::from(u32::MAX), 5),
        BlockDescriptor::Long { blocks, length } => (blocks, length, u64::MAX, 12),
    };
    if blocks != 0 && blocks != all && blocks != unit.blocks() {
        return Err(Sense::invalid_parameter(header, None).into());
    }
    if length != 0 && length != unit.block_size {
        return Err(Sense::invalid_parameter(header + at, None).into());
    }
    Ok(())
}
