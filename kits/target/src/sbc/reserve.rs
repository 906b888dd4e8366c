//! PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE (SPC-4 clauses 6.15, 6.16; SPC-2 clauses 7.16, 7.21).

use super::basic::not_mine;
use super::{Begun, Call, Flow};
use crate::background::Job;
use crate::mailbox::{Hold, Order};
use crate::ports::{InitiatorPort, NexusId};
use crate::reservation::{Effects, Reservations};
use crate::sequence::{Ending, Finish, released};
use crate::target_device::TargetDevice;
use crate::unit::{LogicalUnit, View};
use scsi_cmd::cdb::{Cdb, Command, PersistentReserveOut};
use scsi_cmd::reservation::{
    PrCapabilities, PrFullStatus, PrFullStatusList, PrInAction, PrKeys, PrMoveParameters, PrOutAction,
    PrOutParameters, PrReservation, PrReservationData, PrType,
};
use scsi_cmd::transport_id::TransportId;
use scsi_cmd::{Asc, DecodeError, DecodeErrorKind, Sense, SenseKey};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn reserve(call: &Call<'_>, _: &Cdb) -> Begun {
    call.unit.reserve(|r| r.reserve_legacy(&call.view.nexus))?;
    Ok(Flow::Finish(Finish::good()))
}

pub(super) fn release(call: &Call<'_>, _: &Cdb) -> Begun {
    call.unit.reserve(|r| r.release_legacy(&call.view.nexus))?;
    Ok(Flow::Finish(Finish::good()))
}

/// PERSISTENT RESERVE IN.
pub(super) fn persistent_in(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::PersistentReserveIn(request) = &cdb.command else { return Err(not_mine()) };
    let (reservations, persistent) = (call.unit.reservations().clone(), call.unit.can_persist());
    let generation = reservations.generation;
    let data = match PrInAction(request.service_action) {
        PrInAction::ReadKeys => {
            PrKeys { generation, keys: reservations.keys.values().copied().collect() }.encode()
        }
        PrInAction::ReadReservation => {
            let reservation = reservations.held.as_ref().map(|held| PrReservation {
                key: reservations.holder_key(),
                scope: 0,
                pr_type: held.pr_type,
            });
            PrReservationData { generation, reservation }.encode()
        }
        PrInAction::ReportCapabilities => PrCapabilities {
            length: 8,
            sip_c: true,
            atp_c: true,
            ptpl_c: persistent,
            ptpl_a: reservations.persist,
            tmv: true,
            type_mask: PrCapabilities::ALL_TYPES,
            ..PrCapabilities::default()
        }
        .encode()
        .to_vec(),
        PrInAction::ReadFullStatus => {
            let all = reservations.keys.iter().map(|(nexus, key)| PrFullStatus {
                key: *key,
                all_tg_pt: false,
                held: reservations
                    .held
                    .as_ref()
                    .filter(|_| reservations.holds(nexus))
                    .map(|h| (0, h.pr_type)),
                relative_target_port: nexus.port().relative_id,
                transport_id: TransportId::Port {
                    name: nexus.initiator().name.clone(),
                    isid: nexus.initiator().isid,
                },
            });
            PrFullStatusList { generation, all: all.collect() }.encode()
        }
        _ => return Err(Sense::invalid_cdb_field(1, 4).into()),
    };
    Ok(Flow::Finish(Finish::data(data, request.allocation_length)))
}

/// The longest parameter list that is looked at: a header and some hundred TransportIDs.
const MOST: u32 = 32 << 10;

/// PERSISTENT RESERVE OUT.
pub(super) fn persistent_out(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::PersistentReserveOut(request) = cdb.command.clone() else { return Err(not_mine()) };
    let len = request.parameter_list_length;
    if !(24..=MOST).contains(&len) {
        return Err(Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into());
    }
    let action = PrOutAction(request.service_action);
    let takes_type = matches!(
        action,
        PrOutAction::Reserve | PrOutAction::Release | PrOutAction::Preempt | PrOutAction::PreemptAndAbort
    );
    if takes_type && request.scope != 0 {
        return Err(Sense::invalid_cdb_field(2, 7).into());
    }
    if takes_type && !PrType::ALL.contains(&PrType(request.pr_type)) {
        return Err(Sense::invalid_cdb_field(2, 3).into());
    }
    let (target, unit, view) = (call.target.clone(), call.unit.clone(), call.view.clone());
    call.sequence(move |co| async move {
        let list = co.parameters(len).await?;
        let effects = match action {
            PrOutAction::RegisterAndMove => register_and_move(&target, &unit, &view, &list).await?,
            _ => out(&target, &unit, &view, request, &list).await?,
        };
        // Commands that the reservation still let through are of the epoch before.
        let epoch = (action == PrOutAction::PreemptAndAbort).then(|| unit.next_epoch());
        tell(&unit, &effects);
        let Some(epoch) = epoch else { return Ok(Finish::good()) };
        abort(&unit, epoch, &view, &effects.preempted).await;
        Ok(Finish { fence: true, ..Finish::good() })
    })
}

/// Sense data of a parameter list that is not one.
fn wrong_list(error: DecodeError) -> Ending {
    match error.kind {
        DecodeErrorKind::Value => Sense::invalid_parameter(error.at as u16, None).into(),
        _ => Sense::illegal(Asc::PARAMETER_LIST_LENGTH_ERROR).into(),
    }
}

async fn out(
    target: &TargetDevice,
    unit: &Arc<LogicalUnit>,
    view: &View,
    request: PersistentReserveOut,
    list: &[u8],
) -> Result<Effects, Ending> {
    let list = PrOutParameters::decode(list).map_err(wrong_list)?;
    let (nexus, pr_type) = (&view.nexus, PrType(request.pr_type));
    let registers = matches!(
        PrOutAction(request.service_action),
        PrOutAction::Register | PrOutAction::RegisterAndIgnoreExistingKey
    );
    if registers && list.aptpl && !unit.can_persist() {
        return Err(Sense::invalid_parameter(20, 0).into());
    }
    let others = match &list.transport_ids {
        None => Vec::new(),
        Some(_) if request.service_action != PrOutAction::Register.0 => {
            return Err(Sense::invalid_parameter(20, 3).into());
        }
        Some(ids) => named_ports(ids)?,
    };
    let nexuses = registered_nexuses(target, nexus, others, list.all_tg_pt && registers);
    unit.reserve_persistent(move |r| {
        let nexus = &nexuses[0];
        match PrOutAction(request.service_action) {
            PrOutAction::Register => {
                if list.transport_ids.is_some() && r.keys.contains_key(nexus) {
                    // SPEC_I_PT registers others along with a nexus that is not registered yet.
                    return Err(Sense::invalid_parameter(20, 3).into());
                }
                r.register(&nexuses, Some(list.key), list.service_action_key, list.aptpl)
            }
            PrOutAction::RegisterAndIgnoreExistingKey => {
                r.register(&nexuses, None, list.service_action_key, list.aptpl)
            }
            PrOutAction::Reserve => r.reserve(nexus, list.key, pr_type),
            PrOutAction::Release => r.release(nexus, list.key, pr_type),
            PrOutAction::Clear => r.clear(nexus, list.key),
            PrOutAction::Preempt | PrOutAction::PreemptAndAbort => {
                r.preempt(nexus, list.key, list.service_action_key, pr_type)
            }
            _ => Err(Sense::invalid_cdb_field(1, 4).into()),
        }
    })
    .await
}

/// Ports of initiators by TransportID. A node without an ISID names ports that are not known.
fn named_ports(ids: &[TransportId]) -> Result<Vec<InitiatorPort>, Ending> {
    let wrong = || Ending::from(Sense::invalid_parameter(24, None));
    ids.iter()
        .map(|id| match id {
            TransportId::Port { name, isid } => Ok(InitiatorPort { name: name.clone(), isid: *isid }),
            _ => Err(wrong()),
        })
        .collect()
}

/// The nexus itself, then the nexuses of the named ports, with `all_ports` through every target port.
fn registered_nexuses(
    target: &TargetDevice,
    nexus: &NexusId,
    others: Vec<InitiatorPort>,
    all_ports: bool,
) -> Vec<NexusId> {
    let initiators = std::iter::once(nexus.initiator().clone()).chain(others);
    let ports = if all_ports { target.ports() } else { vec![nexus.port()] };
    let mut all = vec![nexus.clone()];
    for initiator in initiators {
        for port in &ports {
            let one = NexusId::new(initiator.clone(), nexus.target(), *port);
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    all
}

async fn register_and_move(
    target: &TargetDevice,
    unit: &Arc<LogicalUnit>,
    view: &View,
    list: &[u8],
) -> Result<Effects, Ending> {
    let list = PrMoveParameters::decode(list).map_err(wrong_list)?;
    if list.service_action_key == 0 {
        return Err(Sense::invalid_parameter(8, None).into());
    }
    if list.aptpl && !unit.can_persist() {
        return Err(Sense::invalid_parameter(17, 0).into());
    }
    let port = target.ports().into_iter().find(|p| p.relative_id == list.relative_target_port);
    let Some(port) = port else { return Err(Sense::invalid_parameter(18, None).into()) };
    let initiator = named_ports(std::slice::from_ref(&list.transport_id))?.swap_remove(0);
    let to = NexusId::new(initiator, view.nexus.target(), port);
    if to == view.nexus {
        return Err(Sense::invalid_parameter(24, None).into());
    }
    let nexus = view.nexus.clone();
    unit.reserve_persistent(move |r| {
        r.register_and_move(&nexus, list.key, to, list.service_action_key, list.unreg, list.aptpl)
    })
    .await
}

fn tell(unit: &LogicalUnit, effects: &Effects) {
    let views = unit.views();
    for (nexus, asc) in &effects.attentions {
        views.iter().filter(|v| v.nexus == *nexus).for_each(|v| v.attentions.establish(*asc));
    }
}

/// Ends the tasks of preempted nexuses from before the epoch and waits until they are over.
async fn abort(unit: &Arc<LogicalUnit>, epoch: u64, view: &View, preempted: &BTreeSet<NexusId>) {
    let hold = Hold::new(&view.mailbox);
    let report = unit.state().modes.control.tas;
    for victim in unit.views().iter().filter(|v| preempted.contains(&v.nexus)) {
        let (unit, until_done) = (unit.clone(), hold.clone());
        victim.mailbox.post(Order::AbortTasks { unit, epoch, report, until_done });
    }
    released(hold).await;
}

impl LogicalUnit {
    /// Changes persistent reservations; what is to survive a power loss is on the medium before this ends.
    async fn reserve_persistent(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Reservations) -> Result<Effects, Ending>,
    ) -> Result<Effects, Ending> {
        let before = self.reservations().clone();
        let effects = self.reserve(change)?;
        let after = self.reservations().clone();
        let Some(store) = self.store().filter(|_| before.persist || after.persist) else {
            return Ok(effects);
        };
        let saved = Job::start("reservations", false, move || {
            store.save(&after).inspect_err(|error| tracing::error!(%error, "reservations not saved")).is_ok()
        });
        match saved.await {
            true => Ok(effects),
            false => Err(Sense::new(SenseKey::HardwareError, Asc::INSUFFICIENT_RESERVATION_RESOURCES).into()),
        }
    }
}
