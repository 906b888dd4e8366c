//! Reservations as commands: who is refused what, who is told what, and what survives.

use super::*;
use crate::TargetDevice;
use crate::nexus::tests::{Engine, PORT};
use crate::ports::TargetPort;
use crate::unit::LogicalUnit;
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr};
use scsi_cmd::reservation::*;
use scsi_cmd::transport_id::TransportId;
use std::sync::Arc;

fn two() -> (Engine, Engine, Arc<TargetDevice>, Arc<LogicalUnit>) {
    let (one, target, unit) = ready();
    let mut two = Engine::new(&target, 2);
    two.clear_attentions();
    (one, two, target, unit)
}

fn out(e: &mut Engine, action: PrOutAction, pr_type: PrType, key: u64, new: u64) -> Reply {
    let list = PrOutParameters { key, service_action_key: new, ..Default::default() }.encode();
    let cdb = PersistentReserveOut {
        service_action: action.0,
        pr_type: pr_type.0,
        parameter_list_length: list.len() as u32,
        scope: 0,
    };
    e.output(cdb, &list)
}

fn register(e: &mut Engine, key: u64) {
    out(e, PrOutAction::RegisterAndIgnoreExistingKey, PrType(0), 0, key).good();
}

fn keys(e: &mut Engine) -> PrKeys {
    PrKeys::decode(&e.input(PersistentReserveIn { service_action: 0, allocation_length: 512 }, 512).good())
        .unwrap()
}

fn reservation(e: &mut Engine) -> Option<PrReservation> {
    let data = e.input(PersistentReserveIn { service_action: 1, allocation_length: 512 }, 512).good();
    PrReservationData::decode(&data).unwrap().reservation
}

fn conflicts(reply: &Reply) -> bool {
    reply.outcome.status == ScsiStatus::ReservationConflict
}

#[test]
fn registering_and_reading() {
    let (mut a, mut b, ..) = two();
    assert_eq!(keys(&mut a), PrKeys { generation: 0, keys: vec![] });
    out(&mut a, PrOutAction::Register, PrType(0), 0, 0x11).good();
    out(&mut b, PrOutAction::Register, PrType(0), 0, 0x22).good();
    assert!(conflicts(&out(&mut b, PrOutAction::Register, PrType(0), 0, 0x33)));
    assert_eq!(keys(&mut b), PrKeys { generation: 2, keys: vec![0x11, 0x22] });
    // Cut by the allocation length; ADDITIONAL LENGTH stays.
    let cut = a.input(PersistentReserveIn { service_action: 0, allocation_length: 8 }, 8).good();
    assert_eq!(cut, [0, 0, 0, 2, 0, 0, 0, 16]);
    out(&mut a, PrOutAction::Reserve, PrType::ExclusiveAccess, 0x11, 0).good();
    let held = reservation(&mut b).unwrap();
    assert_eq!((held.key, held.pr_type), (0x11, PrType::ExclusiveAccess));
    let full = b.input(PersistentReserveIn { service_action: 3, allocation_length: 1024 }, 1024).good();
    let full = PrFullStatusList::decode(&full).unwrap();
    assert_eq!(full.all[0].held, Some((0, PrType::ExclusiveAccess)));
    assert_eq!(full.all[1].held, None);
    let name = "iqn.2026-01.org.example:initiator1".to_owned();
    assert_eq!(full.all[0].transport_id, TransportId::Port { name, isid: [0x80, 0, 0, 0, 0, 1] });
    let capabilities = a.input(PersistentReserveIn { service_action: 2, allocation_length: 8 }, 8).good();
    assert_eq!(capabilities, [0, 8, 0x0c, 0x80, 0xea, 0x01, 0, 0], "no APTPL without a file");
}

// One command of each kind under each type, as SPC-4 table 50 and SBC-3 table 13 have them.
#[test]
fn access_of_commands() {
    let kinds: [(Command, bool, bool); 8] = [
        (TestUnitReady {}.into(), true, true),
        (Inquiry { allocation_length: 36, ..Default::default() }.into(), true, true),
        (ReadCapacity10::default().into(), true, true),
        (Read10 { blocks: 1, ..Default::default() }.into(), true, false),
        (Verify10 { blocks: 1, ..Default::default() }.into(), true, false),
        (Write10::default().into(), false, false),
        (SynchronizeCache10::default().into(), false, false),
        (ModeSense6 { page_code: 8, allocation_length: 64, ..Default::default() }.into(), false, false),
    ];
    for pr_type in PrType::ALL {
        let (mut a, mut b, target, _) = two();
        let mut registered = Engine::new(&target, 3);
        registered.clear_attentions();
        register(&mut a, 1);
        register(&mut registered, 3);
        out(&mut a, PrOutAction::Reserve, pr_type, 1, 0).good();
        for (command, write_exclusive, exclusive_access) in kinds.clone() {
            let allowed = if pr_type.excludes_reads() { exclusive_access } else { write_exclusive };
            assert_eq!(conflicts(&b.input(command.clone(), 512)), !allowed, "{pr_type:?} {command:?}");
            let allowed = allowed || pr_type.registrants_have_access();
            assert_eq!(
                conflicts(&registered.input(command.clone(), 512)),
                !allowed,
                "{pr_type:?} {command:?}"
            );
            assert!(!conflicts(&a.input(command, 512)));
        }
        // Starting is allowed, stopping is not.
        assert!(!conflicts(&b.none(StartStopUnit { start: true, ..Default::default() })));
        assert!(conflicts(&b.none(StartStopUnit::default())));
    }
}

#[test]
fn who_is_told() {
    let (mut a, mut b, ..) = two();
    register(&mut a, 1);
    register(&mut b, 2);
    out(&mut a, PrOutAction::Reserve, PrType::WriteExclusiveRegistrantsOnly, 1, 0).good();
    out(&mut a, PrOutAction::Release, PrType::WriteExclusiveRegistrantsOnly, 1, 0).good();
    assert_eq!((a.clear_attentions(), b.clear_attentions()), (vec![], vec![Asc::RESERVATIONS_RELEASED]));
    out(&mut a, PrOutAction::Reserve, PrType::ExclusiveAccess, 1, 0).good();
    let list = PrOutParameters { key: 2, service_action_key: 1, ..Default::default() }.encode();
    let preempt = PersistentReserveOut { service_action: 5, pr_type: 3, parameter_list_length: 24, scope: 0 };
    let preempt = Cdb::from(Command::from(preempt)).encode();
    let tag = b.start(Lun::ZERO, TaskAttr::Simple, &preempt, 0, &list, 24);
    assert!(b.reply(tag).is_none(), "it waits for the tasks of the preempted nexus to end");
    a.turn();
    let reply = b.reply(tag).unwrap();
    assert!(reply.outcome.fence, "its response keeps its place");
    reply.good();
    // The reservation conflict comes before the unit attention.
    assert!(conflicts(&a.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[])));
    out(&mut b, PrOutAction::Clear, PrType(0), 2, 0).good();
    assert_eq!(a.clear_attentions(), [Asc::REGISTRATIONS_PREEMPTED]);
    assert!(keys(&mut a).keys.is_empty());
}

#[test]
fn registering_others_and_all_ports() {
    let (mut a, _, target, _) = two();
    let other = TransportId::Port { name: "iqn.2026-01.org.example:far".into(), isid: [1, 2, 3, 4, 5, 6] };
    let list = PrOutParameters {
        service_action_key: 7,
        transport_ids: Some(vec![other]),
        all_tg_pt: true,
        ..Default::default()
    };
    let bytes = list.encode();
    let cdb = PersistentReserveOut { parameter_list_length: bytes.len() as u32, ..Default::default() };
    a.output(cdb, &bytes).good();
    assert_eq!(keys(&mut a).keys, [7; 4], "two initiator ports through two target ports");
    let mut second = Engine::at(&target, 1, TargetPort { relative_id: 2, portal_group: 2 });
    second.clear_attentions();
    out(&mut second, PrOutAction::Reserve, PrType::WriteExclusive, 7, 0).good();
    assert!(
        conflicts(&out(&mut a, PrOutAction::Reserve, PrType::WriteExclusive, 7, 0)),
        "another nexus holds it"
    );
    // Names without an ISID, or of no registered nexus, are refused.
    let node = TransportId::Node { name: "iqn.2026-01.org.example:far".into() };
    let bytes = PrOutParameters { key: 7, transport_ids: Some(vec![node]), ..Default::default() }.encode();
    let cdb = PersistentReserveOut { parameter_list_length: bytes.len() as u32, ..Default::default() };
    a.output(cdb, &bytes).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
}

#[test]
fn moving_a_reservation() {
    let (mut a, mut b, ..) = two();
    register(&mut a, 1);
    out(&mut a, PrOutAction::Reserve, PrType::ExclusiveAccess, 1, 0).good();
    let list = |port| PrMoveParameters {
        key: 1,
        service_action_key: 9,
        unreg: true,
        aptpl: false,
        relative_target_port: port,
        transport_id: TransportId::Port {
            name: "iqn.2026-01.org.example:initiator2".into(),
            isid: [0x80, 0, 0, 0, 0, 2],
        },
    };
    let mut send = |port| {
        let bytes = list(port).encode();
        let parameter_list_length = bytes.len() as u32;
        a.output(
            PersistentReserveOut { service_action: 7, parameter_list_length, ..Default::default() },
            &bytes,
        )
    };
    send(77).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    send(PORT.relative_id).good();
    assert!(!conflicts(&b.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[])));
    assert!(conflicts(&a.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[])));
    assert_eq!(reservation(&mut b).map(|r| r.key), Some(9));
}

#[test]
fn what_is_refused() {
    let (mut a, ..) = two();
    register(&mut a, 1);
    for (scope, pr_type, byte, bit) in [(1, 1, 2, 7), (0, 0, 2, 3), (0, 2, 2, 3), (0, 9, 2, 3)] {
        let cdb = PersistentReserveOut { service_action: 1, scope, pr_type, parameter_list_length: 24 };
        let list = PrOutParameters { key: 1, ..Default::default() }.encode();
        let sense = a.output(cdb, &list).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        assert_eq!(sense.field_pointer().map(|p| (p.byte, p.bit)), Some((byte, Some(bit))));
    }
    let aptpl = PrOutParameters { key: 1, service_action_key: 2, aptpl: true, ..Default::default() }.encode();
    let cdb = PersistentReserveOut { parameter_list_length: 24, ..Default::default() };
    let sense = a.output(cdb, &aptpl).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(sense.field_pointer().map(|p| (p.in_cdb, p.byte, p.bit)), Some((false, 20, Some(0))));
}

#[test]
fn reservations_survive_a_power_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unit.pr");
    let medium = RamDisk::new(512, 2048);
    let power_on = || {
        use crate::block::BlockDevice;
        let unit =
            LogicalUnit::with_reservations(UnitConfig::new("p"), medium.handle().unwrap(), &path).unwrap();
        let target = TargetDevice::new("iqn.2026-01.org.example:disk", [PORT]);
        target.add_unit(0, unit).unwrap();
        let mut engines = [Engine::new(&target, 1), Engine::new(&target, 2)];
        engines.iter_mut().for_each(|e| drop(e.clear_attentions()));
        engines
    };
    let [mut a, mut b] = power_on();
    let aptpl = PrOutParameters { service_action_key: 5, aptpl: true, ..Default::default() }.encode();
    a.output(PersistentReserveOut { parameter_list_length: 24, ..Default::default() }, &aptpl).good();
    out(&mut a, PrOutAction::Reserve, PrType::ExclusiveAccess, 5, 0).good();
    assert!(conflicts(&b.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[])));
    // The power fails: nothing is said goodbye to.
    std::mem::forget((a, b));
    let [mut a, mut b] = power_on();
    assert!(conflicts(&b.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[])));
    assert!(a.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).is_good());
    assert_eq!(keys(&mut a), PrKeys { generation: 0, keys: vec![5] });
    // Given up, it is gone after the next power loss too.
    out(&mut a, PrOutAction::Clear, PrType(0), 5, 0).good();
    let [mut a, _] = power_on();
    assert!(keys(&mut a).keys.is_empty());
}

#[test]
fn reserve_of_spc2() {
    let (mut a, mut b, ..) = two();
    a.none(Reserve6 {}).good();
    for command in [
        Command::from(TestUnitReady {}),
        Read10 { blocks: 1, ..Default::default() }.into(),
        ReadCapacity10::default().into(),
        PersistentReserveIn { service_action: 0, allocation_length: 64 }.into(),
        Reserve6 {}.into(),
    ] {
        assert!(
            conflicts(&b.input(command.clone(), 512)) == !matches!(command, Command::Release6(_)),
            "{command:?}"
        );
    }
    assert!(b.none(Release6 {}).is_good(), "of another's it does nothing");
    assert!(b.input(Inquiry { allocation_length: 36, ..Default::default() }, 36).is_good());
    assert!(conflicts(&b.none(TestUnitReady {})));
    assert!(conflicts(&out(&mut a, PrOutAction::Register, PrType(0), 0, 1)), "even for its holder");
    a.none(Release6 {}).good();
    assert!(b.none(TestUnitReady {}).is_good());
    // A nexus that is lost holds nothing.
    a.none(Reserve6 {}).good();
    drop(a);
    assert!(b.none(TestUnitReady {}).is_good());
}
