//! EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4 clauses 5.17, 6.4).
//!
//! The copy manager acts for the nexus that asks: it sees the logical units that this nexus sees, and no others, and
//! its reads and writes are refused where the nexus's own would be.

use super::basic::not_mine;
use super::medium::Medium;
use super::{Begun, Call, Flow, write_protected};
use crate::ports::NexusId;
use crate::reservation::Access;
use crate::sequence::{Co, Ending, Finish, locked};
use crate::unit::{Flags, LogicalUnit};
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::copy::{
    BlockToBlock, CopyHeader, CopyList, CopyParameters, CopyStatus, Cscd, IdentificationCscd, Segment,
};
use scsi_cmd::vpd::ThirdPartyCopyDescriptor;
use scsi_cmd::{Asc, DecodeErrorKind, Sense, SenseKey};
use std::collections::BTreeMap;
use std::sync::Arc;

const MAX_CSCDS: u16 = 8;
const MAX_SEGMENTS: u16 = 16;
/// Room for all CSCD and segment descriptors.
const MAX_LIST: u32 = MAX_CSCDS as u32 * 32 + MAX_SEGMENTS as u32 * 28;
/// Blocks of a segment: what its 16-bit field can say.
const MAX_SEGMENT_BYTES: u32 = 32 << 20;
/// Results that a nexus can ask for later.
const KEPT: usize = 64;
const DESCRIPTORS: [u8; 2] = [BlockToBlock::KIND, IdentificationCscd::KIND];

/// Results of a nexus's copies, by list identifier.
pub(crate) type Results = BTreeMap<u8, CopyStatus>;

/// The Third-Party Copy VPD page.
pub(super) fn vpd() -> Vec<ThirdPartyCopyDescriptor> {
    vec![
        ThirdPartyCopyDescriptor::supported_commands(&[(0x83, &[0x00]), (0x84, &[0x00, 0x03])]),
        ThirdPartyCopyDescriptor::parameter_data(MAX_CSCDS, MAX_SEGMENTS, MAX_LIST, 0),
        ThirdPartyCopyDescriptor::supported_descriptors(&DESCRIPTORS),
        ThirdPartyCopyDescriptor::general_copy_operations(KEPT as u32, KEPT as u32, MAX_SEGMENT_BYTES, 9),
    ]
}

/// RECEIVE COPY RESULTS: status and operating parameters.
pub(super) fn results(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReceiveCopyResults(request) = &cdb.command else { return Err(not_mine()) };
    let data = match request.service_action {
        0x00 => match call.view.copies().get(&request.list_identifier) {
            Some(status) => status.encode().to_vec(),
            None => return Err(Sense::invalid_cdb_field(2, None).into()),
        },
        0x03 => CopyParameters {
            snlid: true,
            max_cscds: MAX_CSCDS,
            max_segments: MAX_SEGMENTS,
            max_list_length: MAX_LIST,
            max_segment_length: MAX_SEGMENT_BYTES,
            total_concurrent: KEPT as u16,
            max_concurrent: KEPT as u8,
            segment_granularity: 9,
            ..CopyParameters::default()
        }
        .with_descriptors(&DESCRIPTORS),
        _ => return Err(Sense::invalid_cdb_field(1, 4).into()),
    };
    Ok(Flow::Finish(Finish::data(data, request.allocation_length as usize)))
}

/// EXTENDED COPY.
pub(super) fn extended_copy(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ExtendedCopyLid1(request) = cdb.command.clone() else { return Err(not_mine()) };
    let len = request.parameter_list_length;
    if len == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    // Far too long a list is not fetched at all.
    if !(16..=16 + MAX_LIST * 4).contains(&len) {
        return Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
    }
    let (target, own, view) = (call.target.clone(), call.unit.clone(), call.view.clone());
    call.sequence(move |co| async move {
        let list = co.parameters(len).await?;
        let list = check(&list)?;
        let id = list.header.list_identifier;
        let keeps = list.header.list_id_usage != 3;
        let units: Vec<Arc<LogicalUnit>> = target.units().into_values().collect();
        let mut copied = Vec::new();
        for (n, cscd) in list.cscds.iter().enumerate() {
            copied.push(resolve(cscd, n, &units)?);
        }
        let mut status = CopyStatus { available_data: 8, status: 2, units: 1, ..CopyStatus::default() };
        let mut bytes = 0;
        for (n, segment) in list.segments.iter().enumerate() {
            let Segment::BlockToBlock(segment) = segment else { continue };
            match copy(&co, &own, &view.nexus, &copied, segment).await {
                Ok(copied) => bytes += copied,
                Err(sense) => {
                    view.keep(keeps, id, status);
                    // COMMAND-SPECIFIC INFORMATION: the segment that failed (SPC-4 clause 5.17.7.4).
                    return Err(sense.command_specific(n as u64).into());
                }
            }
            status.segments += 1;
            status.count = (bytes >> 10) as u32;
        }
        status.status = 1;
        view.keep(keeps, id, status);
        Ok(Finish::good())
    })
}

/// What is wrong with the list as such.
fn check(bytes: &[u8]) -> Result<CopyList, Ending> {
    let header = CopyHeader::decode(bytes);
    if u64::from(header.cscd_length) + u64::from(header.segment_length) > u64::from(MAX_LIST) {
        return Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
    }
    let list = CopyList::decode(bytes).map_err(|error| match error.kind {
        DecodeErrorKind::Value => Sense::invalid_parameter(error.at as u16, None),
        _ => Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR),
    })?;
    if list.cscds.len() > MAX_CSCDS.into() {
        return Err(Sense::illegal(Asc::TOO_MANY_TARGET_DESCRIPTORS).into());
    }
    if list.segments.len() > MAX_SEGMENTS.into() {
        return Err(Sense::illegal(Asc::TOO_MANY_SEGMENT_DESCRIPTORS).into());
    }
    if list.header.inline_length != 0 {
        return Err(Sense::illegal(Asc::INLINE_DATA_LENGTH_EXCEEDED).into());
    }
    if list.header.list_id_usage == 3 && list.header.list_identifier != 0 {
        return Err(Sense::invalid_parameter(0, None).into());
    }
    for (n, cscd) in list.cscds.iter().enumerate() {
        if let Cscd::Unknown(..) = cscd {
            let at = 16 + 32 * n as u16;
            return Err(Sense::illegal(Asc::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)
                .field_in_parameters(at, None)
                .into());
        }
    }
    if list.segments.iter().any(|s| !matches!(s, Segment::BlockToBlock(_))) {
        return Err(Sense::illegal(Asc::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)
            .field_in_parameters(16 + list.header.cscd_length, None)
            .into());
    }
    Ok(list)
}

fn aborted(asc: Asc) -> Sense {
    Sense::new(SenseKey::CopyAborted, asc)
}

/// The unit that a descriptor names, of those that the nexus sees; `None` for one that it does not see, which only
/// matters to a segment that uses it.
fn resolve(cscd: &Cscd, n: usize, units: &[Arc<LogicalUnit>]) -> Result<Option<Arc<LogicalUnit>>, Ending> {
    let Cscd::Identification(cscd) = cscd else { return Ok(None) };
    let at = 16 + 32 * n as u16;
    if cscd.designator_length > 20 {
        return Err(Sense::invalid_parameter(at + 7, None).into());
    }
    // LU ID TYPE and NUL are ignored (SPC-4 clause 6.4.5).
    if cscd.device_type != 0 {
        return Ok(None);
    }
    let designator = cscd.designator();
    let found = units.iter().find(|unit| match (cscd.association, cscd.designator_type) {
        (0, 3) => designator == unit.naa.to_be_bytes(),
        (0, 1) => {
            let whole =
                scsi_cmd::vpd::Designator::t10_vendor_id(&unit.config.vendor, &unit.config.serial).data;
            designator == whole[..whole.len().min(20)]
        }
        _ => false,
    });
    match found {
        Some(unit) if cscd.block_length != 0 && cscd.block_length != unit.block_size => {
            Err(Sense::invalid_parameter(at + 29, None).into())
        }
        found => Ok(found.cloned()),
    }
}

async fn copy(
    co: &Co,
    own: &Arc<LogicalUnit>,
    nexus: &NexusId,
    units: &[Option<Arc<LogicalUnit>>],
    segment: &BlockToBlock,
) -> Result<u64, Sense> {
    let unit = |index: u16| match units.get(usize::from(index)) {
        Some(Some(unit)) => Ok(unit.clone()),
        _ => Err(aborted(Asc::COPY_TARGET_DEVICE_NOT_REACHABLE)),
    };
    let (from, to) = (unit(segment.source)?, unit(segment.destination)?);
    allowed(&from, nexus, Access::Read)?;
    allowed(&to, nexus, Access::Write)?;
    // DC says whose blocks are counted.
    let counted = if segment.dc { &to } else { &from };
    let bytes = u64::from(segment.blocks) * u64::from(counted.block_size);
    let (from_block, to_block) = (u64::from(from.block_size), u64::from(to.block_size));
    if !bytes.is_multiple_of(from_block) || !bytes.is_multiple_of(to_block) {
        return Err(aborted(Asc::UNEXPECTED_INEXACT_SEGMENT));
    }
    if bytes > MAX_SEGMENT_BYTES.into() {
        return Err(aborted(Asc::COPY_SEGMENT_GRANULARITY_VIOLATION));
    }
    let fits = |unit: &LogicalUnit, lba: u64, blocks: u64| {
        lba.checked_add(blocks).is_some_and(|end| end <= unit.blocks())
    };
    if !fits(&from, segment.source_lba, bytes / from_block)
        || !fits(&to, segment.destination_lba, bytes / to_block)
    {
        return Err(aborted(Asc::NO_ADDITIONAL_SENSE_INFORMATION));
    }
    let medium = |unit: &Arc<LogicalUnit>| match Arc::ptr_eq(unit, own) {
        true => Medium::new(co, unit),
        false => Medium::elsewhere(co, unit),
    };
    let (source, destination) = (medium(&from), medium(&to));
    let _guard = locked(to.ranges.acquire(segment.destination_lba, bytes / to_block, false)).await;
    // Overlapping runs of one unit are copied as a whole: all is read before any is written.
    let overlap = Arc::ptr_eq(&from, &to)
        && segment.source_lba.abs_diff(segment.destination_lba) < bytes / to_block
        && segment.source_lba != segment.destination_lba;
    let piece = if overlap { bytes } else { super::medium::PIECE };
    let mut done = 0;
    while done < bytes {
        let len = (bytes - done).min(piece);
        let failed = |_| aborted(Asc::THIRD_PARTY_DEVICE_FAILURE);
        let lba = segment.source_lba + done / from_block;
        let data = source.read(lba, len / from_block).await.map_err(failed)?;
        let lba = segment.destination_lba + done / to_block;
        let blocks = destination.taken(lba, data).map_err(failed)?;
        destination.write(lba, blocks, false).await.map_err(failed)?;
        done += len;
    }
    Ok(bytes)
}

/// Whether the nexus itself might do this.
fn allowed(unit: &LogicalUnit, nexus: &NexusId, access: Access) -> Result<(), Sense> {
    if unit.conflicts(nexus, access) {
        return Err(aborted(Asc::THIRD_PARTY_DEVICE_FAILURE));
    }
    let flags = unit.flags();
    if flags.has(Flags::NOT_READY) {
        return Err(unit.not_ready().unwrap_or_default());
    }
    if access == Access::Write && flags.has(Flags::WRITE_PROTECT) {
        return Err(write_protected(unit));
    }
    Ok(())
}
