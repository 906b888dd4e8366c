//! SANITIZE and FORMAT UNIT (SBC-3 clauses 4.11, 5.3, 5.24): work that goes on whatever becomes of the command.

use super::basic::not_mine;
use super::medium::repeated;
use super::{Begun, Call, Flow};
use crate::background::Job;
use crate::block::{Action, BlockError, Blocking};
use crate::sequence::{Ended, Ending, Finish};
use crate::unit::{Busy, LogicalUnit};
use bytes::Bytes;
use datamover::SgList;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::format::{FormatHeader, OverwriteHeader};
use scsi_cmd::protection::ProtectionType;
use scsi_cmd::{Asc, Sense, SenseKey};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// SERVICE ACTIONs of SANITIZE that are there. CRYPTOGRAPHIC ERASE is not: no data are encrypted here, so there is no
/// key to change.
pub(super) const OVERWRITE: u16 = 0x01;
pub(super) const BLOCK_ERASE: u16 = 0x02;
pub(super) const EXIT_FAILURE_MODE: u16 = 0x1f;

/// What is done to all blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Erase {
    /// Zeros; given back where the device can.
    Zero,
    /// The same, and protection information of this type from then on.
    Format(Option<ProtectionType>),
    /// A pattern, so many times, inverted each time or not.
    Overwrite { pattern: Bytes, passes: u8, invert: bool },
}

pub(super) fn sanitize(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::Sanitize(request) = cdb.command.clone() else { return Err(not_mine()) };
    if request.znr {
        return Err(Sense::invalid_cdb_field(1, 6).into());
    }
    let len = request.parameter_list_length;
    let unit = call.unit.clone();
    match u16::from(request.service_action) {
        OVERWRITE => {
            // A header and a pattern of up to a block.
            if !(5..=unit.block_size + 4).contains(&u32::from(len)) {
                return Err(Sense::invalid_cdb_field(7, None).into());
            }
            call.sequence(move |co| async move {
                let list = co.parameters(len.into()).await?;
                let erase = overwrite(&list)?;
                begin(&unit, Busy::Sanitize, erase, request.ause, request.immed).await
            })
        }
        BLOCK_ERASE if len == 0 => call.sequence(move |_| async move {
            begin(&unit, Busy::Sanitize, Erase::Zero, request.ause, request.immed).await
        }),
        EXIT_FAILURE_MODE if len == 0 => {
            let exited = unit.change(|state| match state.sanitize_failed {
                // Without AUSE only another SANITIZE leads out.
                Some(false) => false,
                Some(true) | None => {
                    state.sanitize_failed = None;
                    true
                }
            });
            match exited {
                true => Ok(Flow::Finish(Finish::good())),
                false => Err(Sense::invalid_cdb_field(1, 4).into()),
            }
        }
        BLOCK_ERASE | EXIT_FAILURE_MODE => Err(Sense::invalid_cdb_field(7, None).into()),
        _ => Err(Sense::invalid_cdb_field(1, 4).into()),
    }
}

fn overwrite(list: &Bytes) -> Result<Erase, Sense> {
    let header = OverwriteHeader::decode(list);
    let pattern = list.slice(OverwriteHeader::LEN..);
    if header.test != 0 {
        return Err(Sense::invalid_parameter(0, 6));
    }
    if header.count == 0 {
        return Err(Sense::invalid_parameter(0, 4));
    }
    if header.pattern_length == 0 || usize::from(header.pattern_length) != pattern.len() {
        return Err(Sense::invalid_parameter(2, None));
    }
    Ok(Erase::Overwrite { pattern, passes: header.count, invert: header.invert })
}

/// FORMAT UNIT: all blocks become zeros without protection information. There is no defect to list.
pub(super) fn format(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::FormatUnit(request) = cdb.command.clone() else { return Err(not_mine()) };
    if request.fmt_pinfo == 1 {
        return Err(Sense::invalid_cdb_field(1, 7).into());
    }
    if request.ffmt != 0 {
        return Err(Sense::invalid_cdb_field(4, 1).into());
    }
    // Without a list nothing can be said of one.
    let of_a_list = [(5, request.long_list), (3, request.cmp_lst), (2, request.defect_list_format != 0)];
    if let Some((bit, _)) = of_a_list.into_iter().find(|(_, set)| *set && !request.fmt_data) {
        return Err(Sense::invalid_cdb_field(1, bit).into());
    }
    let unit = call.unit.clone();
    call.sequence(move |co| async move {
        let (mut immed, mut usage) = (false, 0);
        if request.fmt_data {
            let list = co.parameters(if request.long_list { 8 } else { 4 }).await?;
            let header = FormatHeader::decode(&list, request.long_list)
                .map_err(|_| Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR))?;
            usage = header.protection_field_usage;
            if header.ip {
                return Err(Sense::invalid_parameter(1, 3).into());
            }
            if header.interval_exponent != 0 {
                return Err(Sense::invalid_parameter(3, None).into());
            }
            if header.defect_list_length != 0 {
                return Err(Sense::invalid_parameter(if request.long_list { 4 } else { 2 }, None).into());
            }
            immed = header.immed;
        }
        let protection = protection(request.fmt_pinfo, usage).ok_or(match request.fmt_data {
            true => Sense::invalid_parameter(0, 2),
            false => Sense::invalid_cdb_field(1, 7),
        })?;
        begin(&unit, Busy::Format, Erase::Format(protection), true, immed).await
    })
}

/// Starts the work on a thread; with `immed` does not wait for it. `lenient` is AUSE.
async fn begin(unit: &Arc<LogicalUnit>, busy: Busy, erase: Erase, lenient: bool, immed: bool) -> Ended {
    let free = unit.change(|state| {
        let free = state.busy.is_none();
        if free {
            (state.busy, state.progress, state.sanitize_failed) = (Some(busy), 0, None);
        }
        free
    });
    if !free {
        return Err(unit.not_ready().unwrap_or_default().into());
    }
    let worker = unit.clone();
    let failed = Err(BlockError::Device);
    let job = Job::start("erase", failed, move || {
        // Nobody writes meanwhile: commands that could are refused, and those that were under way end here.
        let result = run(&worker, &erase);
        if let Err(error) = result {
            tracing::error!(unit = ?worker, %error, "erase failed");
        }
        worker.change(|state| {
            state.busy = None;
            if busy == Busy::Sanitize && result.is_err() {
                state.sanitize_failed = Some(lenient);
            }
        });
        result
    });
    if immed {
        return Ok(Finish::good());
    }
    job.await.map_err(|_| failure(busy))?;
    Ok(Finish::good())
}

fn failure(busy: Busy) -> Ending {
    let asc = match busy {
        Busy::Sanitize => Asc::SANITIZE_COMMAND_FAILED,
        Busy::Format => Asc::FORMAT_COMMAND_FAILED,
    };
    Sense::new(SenseKey::MediumError, asc).into()
}

fn run(unit: &LogicalUnit, erase: &Erase) -> Result<(), BlockError> {
    let mut device = Blocking::new(unit.open().map_err(|e| BlockError::from(&e))?);
    let blocks = unit.blocks();
    match erase {
        Erase::Zero | Erase::Format(_) => {
            let piece = (64 << 20) / u64::from(unit.block_size);
            in_pieces(unit, blocks, piece, (0, 1), |lba, count| {
                device.run(Action::Zero { lba, blocks: count, unmap: true, fua: false }).map(drop)
            })?;
        }
        Erase::Overwrite { pattern, passes, invert } => {
            let piece = (1 << 20) / u64::from(unit.block_size);
            for pass in 0..*passes {
                // SBC-3 clause 5.24.2: with INVERT, each pass inverts what the one before wrote.
                let inverted = *invert && pass % 2 == 1;
                let block = filled(pattern, unit.block_size as usize, inverted);
                let (whole, times) = repeated(&block);
                in_pieces(unit, blocks, piece, (pass, *passes), |lba, count| {
                    let parts = std::iter::repeat_n(whole.clone(), (count / times) as usize);
                    let rest = whole.slice(..(count % times) as usize * block.len());
                    let data: SgList = parts.chain([rest]).collect();
                    device.run(Action::Write { lba, data, fua: false }).map(drop)
                })?;
            }
        }
    }
    if let Erase::Format(protection) = erase
        && unit.geometry().protectable
    {
        device.run(Action::Protect(*protection))?;
        unit.rescan();
    }
    device.flush()
}

/// The protection type that FMTPINFO and PROTECTION FIELD USAGE ask for (SBC-3 clause 5.3.2.2, table "FMTPINFO field and
/// PROTECTION FIELD USAGE field"); `None` for one that cannot be had, as type 2.
fn protection(fmt_pinfo: u8, usage: u8) -> Option<Option<ProtectionType>> {
    match (fmt_pinfo, usage) {
        (0, 0) => Some(None),
        (2, 0) => Some(Some(ProtectionType::Type1)),
        (3, 1) => Some(Some(ProtectionType::Type3)),
        _ => None,
    }
}

/// A block filled with the pattern, from its beginning on.
fn filled(pattern: &[u8], len: usize, inverted: bool) -> Vec<u8> {
    let mask = if inverted { 0xff } else { 0 };
    pattern.iter().cycle().take(len).map(|b| b ^ mask).collect()
}

/// Goes over all blocks, shows the progress, and keeps to the rate that the unit allows.
fn in_pieces(
    unit: &LogicalUnit,
    blocks: u64,
    piece: u64,
    (pass, passes): (u8, u8),
    mut each: impl FnMut(u64, u64) -> Result<(), BlockError>,
) -> Result<(), BlockError> {
    #[allow(clippy::disallowed_methods, reason = "a thread of its own, with a rate to keep")]
    let started = Instant::now();
    let mut lba = 0;
    while lba < blocks {
        let count = piece.min(blocks - lba);
        each(lba, count)?;
        lba += count;
        let total = u128::from(blocks) * u128::from(passes);
        let done = u128::from(blocks) * u128::from(pass) + u128::from(lba);
        unit.state().progress = (done * 65535 / total.max(1)) as u16;
        if let Some(rate) = unit.config.erase_rate {
            let due = Duration::from_secs_f64(lba as f64 * f64::from(unit.block_size) / rate.max(1) as f64);
            #[allow(clippy::disallowed_methods, reason = "a thread of its own, with a rate to keep")]
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    Ok(())
}
