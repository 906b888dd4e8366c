//! Asymmetric logical unit access: REPORT and SET TARGET PORT GROUPS, and what the states allow (SPC-4 clause 5.15).

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::sequence::Finish;
use scsi_cmd::cdb::{Cdb, Command};
use scsi_cmd::ports::{AccessState, PortGroup, PortGroupState, PortGroups, SetPortGroups};
use scsi_cmd::{Asc, Sense, SenseKey};

/// Which states let a command through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// The active ones.
    Active,
    /// Standby too.
    Standby,
    /// Every state.
    Any,
}

/// Why the state of its port group refuses a command.
pub(super) fn refused(state: AccessState, gate: Gate) -> Option<Sense> {
    let asc = match (state, gate) {
        (_, Gate::Any) | (AccessState::ActiveOptimized | AccessState::ActiveNonOptimized, _) => return None,
        (AccessState::Standby, Gate::Standby) => return None,
        (AccessState::Standby, Gate::Active) => Asc::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
        (AccessState::Transitioning, _) => {
            Asc::LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION
        }
        (AccessState::Offline, _) => Asc::LOGICAL_UNIT_NOT_READY_OFFLINE,
        _ => Asc::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE,
    };
    Some(Sense::new(SenseKey::NotReady, asc))
}

/// REPORT TARGET PORT GROUPS (SPC-4 clause 6.37).
pub(super) fn report(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::ReportTargetPortGroups(request) = &cdb.command else { return Err(not_mine()) };
    if request.parameter_data_format > 1 {
        return Err(Sense::invalid_cdb_field(1, 7).into());
    }
    let ports = call.target.ports();
    let groups = call.target.port_groups().into_iter().map(|(group, state, explicit)| PortGroup {
        state: PortGroupState {
            state: state.0,
            group,
            ao_sup: true,
            an_sup: true,
            s_sup: true,
            u_sup: true,
            status_code: match explicit {
                None => 0,
                Some(true) => 1,
                Some(false) => 2,
            },
            ..PortGroupState::default()
        },
        ports: ports.iter().filter(|p| p.portal_group == group).map(|p| p.relative_id).collect(),
    });
    // A transition takes no time.
    let transition_time = (request.parameter_data_format == 1).then_some(0);
    let data = PortGroups { transition_time, groups: groups.collect() }.encode();
    Ok(Flow::Finish(Finish::data(data, request.allocation_length as usize)))
}

/// SET TARGET PORT GROUPS (SPC-4 clause 6.45).
pub(super) fn set(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::SetTargetPortGroups(request) = &cdb.command else { return Err(not_mine()) };
    let len = request.parameter_list_length;
    if len == 0 {
        return Ok(Flow::Finish(Finish::good()));
    }
    if len < 8 || !len.is_multiple_of(4) || len > 4096 {
        return Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
    }
    let (target, view) = (call.target.clone(), call.view.clone());
    call.sequence(move |co| async move {
        let list = co.parameters(len).await?;
        let SetPortGroups(list) =
            SetPortGroups::decode(&list).map_err(|_| Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR))?;
        let groups = target.port_groups();
        for (n, (group, state)) in list.iter().enumerate() {
            let at = 4 + 4 * n as u16;
            if !groups.iter().any(|(g, ..)| g == group) {
                return Err(Sense::invalid_parameter(at + 2, None).into());
            }
            let settable = [
                AccessState::ActiveOptimized,
                AccessState::ActiveNonOptimized,
                AccessState::Standby,
                AccessState::Unavailable,
            ];
            if !settable.contains(state) {
                return Err(Sense::invalid_parameter(at, 3).into());
            }
        }
        target.change_access_states(&list, true, Some(&view.nexus));
        Ok(Finish::good())
    })
}
