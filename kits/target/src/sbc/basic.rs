//! TEST UNIT READY, REQUEST SENSE, REPORT LUNS, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.

use super::medium::Medium;
use super::{Begun, Call, Flow};
use crate::sequence::{Ended, Finish};
use crate::target_device::TargetDevice;
use crate::unit::LogicalUnit;
use scsi_cmd::cdb::{Cdb, Command, ReportLuns};
use scsi_cmd::luns::LunList;
use scsi_cmd::{Asc, Lun, Sense, SenseKey};

/// A handler was called with a command of another row: the table is wrong.
pub(super) fn not_mine() -> crate::sequence::Ending {
    Sense::new(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE).into()
}

pub(super) fn test_unit_ready(_: &Call<'_>, _: &Cdb) -> Begun {
    Ok(Flow::Finish(Finish::good()))
}

/// REQUEST SENSE (SPC-4 clause 6.39): a pending unit attention, why the unit is not ready, or nothing.
pub(super) fn request_sense(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::RequestSense(request) = &cdb.command else { return Err(not_mine()) };
    let sense = call.view.attentions.take().or_else(|| call.unit.not_ready()).unwrap_or_default();
    Ok(Flow::Finish(Finish::data(sense.encode(request.desc), request.allocation_length)))
}

/// REPORT LUNS (SPC-4 clause 6.33).
pub(super) fn report_luns(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReportLuns(report) = &cdb.command else { return Err(not_mine()) };
    let finish = report_luns_of(call.target, report)?;
    call.view.attentions.clear(Asc::REPORTED_LUNS_DATA_HAS_CHANGED);
    Ok(Flow::Finish(finish))
}

pub(super) fn report_luns_of(target: &TargetDevice, report: &ReportLuns) -> Ended {
    if report.allocation_length < 16 {
        return Err(Sense::invalid_cdb_field(6, None).into());
    }
    let units = || target.units().into_keys().filter_map(Lun::single_level);
    let luns: Vec<Lun> = match report.select_report {
        0 => units().collect(),
        1 => vec![Lun::REPORT_LUNS],
        2 => units().chain([Lun::REPORT_LUNS]).collect(),
        _ => return Err(Sense::invalid_cdb_field(2, 7).into()),
    };
    Ok(Finish::data(LunList(luns).encode(), usize::try_from(report.allocation_length).unwrap_or(usize::MAX)))
}

/// START STOP UNIT (SBC-3 clause 5.25). Stopping writes the cache to the medium; then commands that need the medium are
/// refused, whoever sends them, until the unit is started or reset.
pub(super) fn start_stop_unit(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::StartStopUnit(request) = cdb.command.clone() else { return Err(not_mine()) };
    if request.power_condition != 0 {
        // With a POWER CONDITION, START and LOEJ do not count; all conditions are the active one.
        return Ok(Flow::Finish(Finish::good()));
    }
    let (unit, nexus) = (call.unit.clone(), call.view.nexus.clone());
    if request.loej {
        if !unit.config.removable {
            return Err(Sense::invalid_cdb_field(4, 1).into());
        }
        if !unit.state().prevented.is_empty() {
            return Err(Sense::illegal(Asc::MEDIUM_REMOVAL_PREVENTED).into());
        }
    }
    let change = move |unit: &LogicalUnit| {
        let loaded = unit.change(|state| {
            let was = (state.stopped, state.ejected);
            state.stopped = !request.start && !request.loej;
            if request.loej {
                state.ejected = !request.start;
            }
            let loaded = was.1 && !state.ejected;
            state.cycles.0 = state.cycles.0.saturating_add(u32::from(was.0 && request.start));
            state.cycles.1 = state.cycles.1.saturating_add(u32::from(loaded));
            loaded
        });
        if loaded {
            unit.attention(Asc::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, Some(&nexus));
        }
    };
    if request.start || request.no_flush || unit.geometry().read_only {
        change(&unit);
        return Ok(Flow::Finish(Finish::good()));
    }
    call.sequence(|co| async move {
        Medium::new(&co, &unit).flush().await?;
        change(&unit);
        Ok(Finish::good())
    })
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-3 clause 5.10).
pub(super) fn prevent_allow(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::PreventAllowMediumRemoval(request) = &cdb.command else { return Err(not_mine()) };
    match request.prevent {
        0 => call.unit.change(|state| state.prevented.remove(&call.view.nexus)),
        1 => call.unit.change(|state| state.prevented.insert(call.view.nexus.clone())),
        _ => return Err(Sense::invalid_cdb_field(4, 1).into()),
    };
    Ok(Flow::Finish(Finish::good()))
}
