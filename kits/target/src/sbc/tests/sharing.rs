//! Several nexuses at one unit: order, aborts, resets, attentions, inventory, access states, copies.

use super::*;
use crate::nexus::tests::{Engine, ram_target};
use crate::ports::TargetPort;
use crate::unit::LogicalUnit;
use crate::{AccessState, TargetDevice};
use datamover::{DataError, SgListMut};
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr, TaskMgmtFunction, TaskMgmtStatus};
use iscsi_session::device::{DeviceServer, Function, FunctionTag, TaskTag};
use scsi_cmd::copy::{
    BlockToBlock, CopyHeader, CopyList, CopyParameters, CopyStatus, Cscd, IdentificationCscd, Segment,
};
use scsi_cmd::luns::LunList;
use scsi_cmd::ports::{PortGroups, SetPortGroups};
use std::sync::Arc;

pub(super) fn two() -> (Engine, Engine, Arc<TargetDevice>, Arc<LogicalUnit>) {
    let (one, target, unit) = ready();
    let mut two = Engine::new(&target, 2);
    two.clear_attentions();
    (one, two, target, unit)
}

pub(super) fn function(e: &mut Engine, function: TaskMgmtFunction, tag: u64) {
    let function = Function { tag: FunctionTag(tag), function, lun: Lun::ZERO };
    e.nexus.task_management(function, &mut e.port);
}

/// A WRITE whose output does not come until asked for again.
pub(super) fn stuck_write(e: &mut Engine, attr: TaskAttr) -> TaskTag {
    let cdb = Cdb::from(Command::from(Write10 { blocks: 1, ..Default::default() })).encode();
    e.start(Lun::ZERO, attr, &cdb, 0, &[1; 512], 0)
}

pub(super) fn test_unit_ready(e: &mut Engine, attr: TaskAttr) -> TaskTag {
    e.start(Lun::ZERO, attr, &[0; 6], 0, &[], 0)
}

#[test]
fn compare_and_write_is_atomic_among_nexuses() {
    let (target, _) = ram_target();
    let rounds = 200u64;
    // A counter in block 0 that four nexuses increment with COMPARE AND WRITE, and a block beside that all overwrite.
    std::thread::scope(|s| {
        for n in 0..4 {
            let target = target.clone();
            s.spawn(move || {
                let mut e = Engine::new(&target, n);
                e.clear_attentions();
                let mut done = 0;
                while done < rounds {
                    let now = e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good();
                    let next = (u64::from_be_bytes(now[..8].try_into().unwrap()) + 1).to_be_bytes();
                    let output = [now, [&next[..], &[0; 504]].concat()].concat();
                    e.io(BlockIo::new(IoKind::Write, 1, 1), 0, &[n; 512]).good();
                    done += u64::from(
                        e.output(CompareAndWrite { blocks: 1, ..Default::default() }, &output).is_good(),
                    );
                }
            });
        }
    });
    let mut e = Engine::new(&target, 9);
    e.clear_attentions();
    let count = e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good();
    assert_eq!(u64::from_be_bytes(count[..8].try_into().unwrap()), 4 * rounds);
}

#[test]
fn a_write_without_its_data_delays_no_other_nexus() {
    let (mut one, mut two, ..) = two();
    let stuck = stuck_write(&mut one, TaskAttr::Simple);
    let output = [[0; 512], [7; 512]].concat();
    for lba in [0, 100] {
        let command = CompareAndWrite { lba, blocks: 1, ..Default::default() };
        assert!(two.output(command, &output).is_good(), "LBA {lba}");
    }
    assert!(one.reply(stuck).unwrap().is_good());
    assert_eq!(two.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good(), [1; 512]);
}

#[test]
fn task_attributes() {
    let (mut e, ..) = ready();
    let first = stuck_write(&mut e, TaskAttr::Simple);
    let ordered = test_unit_ready(&mut e, TaskAttr::Ordered);
    let after = test_unit_ready(&mut e, TaskAttr::Simple);
    let head = test_unit_ready(&mut e, TaskAttr::HeadOfQueue);
    assert!(e.port.outcomes.contains_key(&head), "HEAD OF QUEUE does not wait");
    assert!(!e.port.outcomes.contains_key(&ordered), "ORDERED waits for what is before");
    assert!(!e.port.outcomes.contains_key(&after), "SIMPLE waits for ORDERED before it");
    assert!(e.reply(first).unwrap().is_good());
    assert!(e.reply(ordered).unwrap().is_good() && e.reply(after).unwrap().is_good());
    let aca = test_unit_ready(&mut e, TaskAttr::Aca);
    e.reply(aca).unwrap().check(SenseKey::IllegalRequest, Asc::INVALID_MESSAGE_ERROR);
}

#[test]
fn a_full_task_set() {
    let config = UnitConfig { queue_depth: 2, ..UnitConfig::new("q") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let stuck = [stuck_write(&mut e, TaskAttr::Simple), stuck_write(&mut e, TaskAttr::Simple)];
    let full = test_unit_ready(&mut e, TaskAttr::Simple);
    assert_eq!(e.port.outcomes[&full].status, ScsiStatus::TaskSetFull);
    assert!(stuck.into_iter().all(|tag| e.reply(tag).unwrap().is_good()));
    assert!(e.none(TestUnitReady {}).is_good());
}

#[test]
fn aborting() {
    let (mut e, ..) = ready();
    let stuck = stuck_write(&mut e, TaskAttr::Ordered);
    let held = test_unit_ready(&mut e, TaskAttr::Simple);
    e.nexus.abort(held, &mut e.port);
    e.nexus.abort(stuck, &mut e.port);
    assert_eq!(e.port.discarded, [held, stuck]);
    assert_eq!(e.nexus.tasks(), 0);
    // Its output, should it come after all, is nobody's.
    e.nexus.write_data(stuck, 0, SgListMut::new(), Ok(()), &mut e.port);
    assert!(e.none(TestUnitReady {}).is_good());
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good(), [0; 512]);
}

// req: 7143-11.4.7.2-1
// req: 7143-10.2-1
#[test]
fn output_that_fails() {
    let (mut e, ..) = ready();
    let expected = [
        (DataError::Digest, Asc::PROTOCOL_SERVICE_CRC_ERROR),
        (DataError::Sequence, Asc::WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA),
        (DataError::TimedOut, Asc::INITIATOR_RESPONSE_TIMEOUT),
    ];
    for (error, asc) in expected {
        let tag = stuck_write(&mut e, TaskAttr::Simple);
        e.nexus.write_data(tag, 0, SgListMut::new(), Err(error), &mut e.port);
        e.port.drop_wants();
        e.reply(tag).unwrap().check(SenseKey::AbortedCommand, asc);
    }
}

#[test]
fn a_logical_unit_reset() {
    let (mut a, mut b, _, unit) = two();
    let theirs = stuck_write(&mut b, TaskAttr::Simple);
    a.none(Reserve6 {}).good();
    let mine = stuck_write(&mut a, TaskAttr::Simple);
    // The engine aborts the tasks of its own session first.
    a.nexus.abort(mine, &mut a.port);
    a.port.drop_wants();
    function(&mut a, TaskMgmtFunction::LogicalUnitReset, 1);
    a.turn();
    assert!(a.port.responses.is_empty(), "tasks of another nexus are not over yet");
    b.port.drop_wants();
    b.turn();
    assert_eq!(b.port.outcomes[&theirs].status, ScsiStatus::TaskAborted, "TAS 1");
    a.turn();
    assert_eq!(a.port.responses, [(FunctionTag(1), TaskMgmtStatus::FunctionComplete, [0; 3])]);
    for e in [&mut a, &mut b] {
        assert_eq!(e.clear_attentions(), [Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED]);
    }
    assert!(unit.reservations().legacy.is_none());
    assert_eq!(a.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good(), [0; 512], "nothing was written");
}

#[test]
fn functions() {
    let (mut a, mut b, ..) = two();
    use TaskMgmtFunction as F;
    use TaskMgmtStatus as S;
    for (tag, f) in
        [F::AbortTaskSet, F::ClearTaskSet, F::ItNexusReset, F::TargetWarmReset].into_iter().enumerate()
    {
        function(&mut a, f, tag as u64);
        a.turn();
        b.turn();
        a.turn();
        assert_eq!(a.port.responses.pop().map(|r| r.1), Some(S::FunctionComplete), "{f:?}");
    }
    assert_eq!(
        a.clear_attentions(),
        [Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED],
        "which covers the nexus loss"
    );
    function(&mut a, F::QueryAsynchronousEvent, 8);
    assert_eq!(a.port.responses.pop().unwrap().1, S::FunctionComplete, "nothing pending");
    function(&mut b, F::QueryAsynchronousEvent, 9);
    assert_eq!(b.port.responses.pop(), Some((FunctionTag(9), S::FunctionSucceeded, [0x16, 0x29, 0x03])));
    function(&mut a, F::ClearAca, 10);
    assert_eq!(a.port.responses.pop().unwrap().1, S::FunctionNotSupported);
    let lun = Lun([0, 9, 0, 0, 0, 0, 0, 0]);
    a.nexus
        .task_management(Function { tag: FunctionTag(11), function: F::LogicalUnitReset, lun }, &mut a.port);
    assert_eq!(a.port.responses.pop().unwrap().1, S::LunDoesNotExist);
}

#[test]
fn commands_that_the_transport_cleared() {
    let (mut e, ..) = ready();
    e.nexus.commands_cleared(Lun::ZERO);
    assert_eq!(e.clear_attentions(), [Asc::SOME_COMMANDS_CLEARED_BY_ISCSI_PROTOCOL_EVENT]);
}

#[test]
fn units_come_and_go() {
    let (mut e, target, _) = ready();
    let luns = |e: &mut Engine| {
        let data = e.input(ReportLuns { allocation_length: 256, ..Default::default() }, 256).good();
        LunList::decode(&data).unwrap().0.0
    };
    let more = LogicalUnit::new(UnitConfig::new("more"), Box::new(RamDisk::new(512, 64)));
    target.add_unit(300, more.clone()).unwrap();
    assert!(target.add_unit(300, more).is_err());
    // REPORT LUNS is not held up by the condition, and clears it.
    assert_eq!(luns(&mut e), [scsi_cmd::Lun::ZERO, scsi_cmd::Lun([0x41, 0x2c, 0, 0, 0, 0, 0, 0])]);
    assert!(e.none(TestUnitReady {}).is_good());
    let lun = Lun([0x41, 0x2c, 0, 0, 0, 0, 0, 0]);
    for asc in [Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, Asc::REPORTED_LUNS_DATA_HAS_CHANGED] {
        let tag = e.start(lun, TaskAttr::Simple, &[0; 6], 0, &[], 0);
        e.reply(tag).unwrap().check(SenseKey::UnitAttention, asc);
    }
    // A unit is removed under a task.
    let cdb = Cdb::from(Command::from(Write10 { blocks: 1, ..Default::default() })).encode();
    let stuck = e.start(lun, TaskAttr::Simple, &cdb, 0, &[1; 512], 0);
    assert!(target.remove_unit(300).is_some());
    assert_eq!(e.clear_attentions(), [Asc::REPORTED_LUNS_DATA_HAS_CHANGED]);
    assert!(e.reply(stuck).is_some(), "what was under way ends");
    let tag = e.start(lun, TaskAttr::Simple, &[0; 6], 0, &[], 0);
    e.reply(tag).unwrap().check(SenseKey::IllegalRequest, Asc::LOGICAL_UNIT_NOT_SUPPORTED);
    assert_eq!(luns(&mut e).len(), 1);
}

// Of the only unit no view is left that could be told of the change: the view of its successor tells of it, also of what
// changed between the two.
#[test]
fn the_only_unit_is_replaced() {
    let (mut e, target, _) = ready();
    for _ in 0..2 {
        assert!(target.remove_unit(0).is_some());
        let tag = e.start(Lun::ZERO, TaskAttr::Simple, &[0; 6], 0, &[], 0);
        e.reply(tag).unwrap().check(SenseKey::IllegalRequest, Asc::LOGICAL_UNIT_NOT_SUPPORTED);
        let next = LogicalUnit::new(UnitConfig::new("next"), Box::new(RamDisk::new(512, 64)));
        target.add_unit(0, next).unwrap();
        assert_eq!(
            e.clear_attentions(),
            [Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED, Asc::REPORTED_LUNS_DATA_HAS_CHANGED]
        );
    }
}

#[test]
fn resizing() {
    let disk = RamDisk::new(512, 2048);
    use crate::block::BlockDevice;
    let (target, unit) = target_over(UnitConfig::new("r"), disk.handle().unwrap());
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    assert!(!unit.rescan());
    disk.resize(4096);
    assert!(unit.rescan());
    assert_eq!(e.clear_attentions(), [Asc::CAPACITY_DATA_HAS_CHANGED]);
    assert_eq!(e.input(ReadCapacity10::default(), 8).good()[..4], [0, 0, 0x0f, 0xff]);
    assert!(e.io(BlockIo::new(IoKind::Write, 4095, 1), 0, &[1; 512]).is_good());
}

#[test]
fn access_states_gate_access() {
    let (mut one, target, _) = ready();
    let mut two = Engine::at(&target, 1, TargetPort { relative_id: 2, portal_group: 2 });
    two.clear_attentions();
    let report = |e: &mut Engine| {
        let data =
            e.input(ReportTargetPortGroups { allocation_length: 256, ..Default::default() }, 256).good();
        PortGroups::decode(&data).unwrap().groups
    };
    let states: Vec<_> =
        report(&mut one).iter().map(|g| (g.state.group, g.state.state, g.ports.clone())).collect();
    assert_eq!(states, [(1, 0, vec![1]), (2, 0, vec![2])]);
    let list = SetPortGroups(vec![(2, AccessState::Standby)]).encode();
    one.output(SetTargetPortGroups { parameter_list_length: list.len() as u32 }, &list).good();
    assert_eq!(one.clear_attentions(), []);
    let read = BlockIo::new(IoKind::Read, 0, 1);
    let standby = Asc::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE;
    two.io(read, 512, &[]).check(SenseKey::UnitAttention, Asc::ASYMMETRIC_ACCESS_STATE_CHANGED);
    two.io(read, 512, &[]).check(SenseKey::NotReady, standby);
    two.none(TestUnitReady {}).check(SenseKey::NotReady, standby);
    assert!(
        two.input(ModeSense6 { page_code: 8, allocation_length: 64, ..Default::default() }, 64).is_good()
    );
    assert_eq!(report(&mut two)[1].state.state, 2);
    assert!(one.io(read, 512, &[]).is_good(), "the other group");
    target.set_access_state(2, AccessState::Unavailable);
    two.clear_attentions();
    let unavailable = Asc::LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE;
    two.input(ModeSense6 { page_code: 8, allocation_length: 64, ..Default::default() }, 64)
        .check(SenseKey::NotReady, unavailable);
    // The way back is open through the port itself.
    let list = SetPortGroups(vec![(2, AccessState::ActiveNonOptimized)]).encode();
    two.output(SetTargetPortGroups { parameter_list_length: list.len() as u32 }, &list).good();
    assert!(two.io(read, 512, &[]).is_good());
    for (group, state) in
        [(7, AccessState::Standby), (2, AccessState::Offline), (2, AccessState::LbaDependent)]
    {
        let list = SetPortGroups(vec![(group, state)]).encode();
        two.output(SetTargetPortGroups { parameter_list_length: list.len() as u32 }, &list)
            .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    }
}

pub(super) fn cscd(unit: &LogicalUnit) -> IdentificationCscd {
    let cscd = IdentificationCscd { kind: 0xe4, code_set: 1, designator_type: 3, ..Default::default() };
    cscd.with_designator(&unit.naa.to_be_bytes())
}

pub(super) fn b2b(
    source: u16,
    destination: u16,
    blocks: u16,
    source_lba: u64,
    destination_lba: u64,
) -> Segment {
    Segment::BlockToBlock(BlockToBlock {
        kind: 2,
        dc: false,
        cat: false,
        length: 0x18,
        source,
        destination,
        blocks,
        source_lba,
        destination_lba,
    })
}

pub(super) fn copy(e: &mut Engine, cscds: Vec<Cscd>, segments: Vec<Segment>) -> Reply {
    let header = CopyHeader { list_identifier: 5, ..Default::default() };
    let list = CopyList { header, cscds, segments, inline: vec![] }.encode();
    e.output(ExtendedCopyLid1 { parameter_list_length: list.len() as u32 }, &list)
}

#[test]
fn copying() {
    let (mut e, target, unit) = ready();
    let other = LogicalUnit::new(UnitConfig::new("other"), Box::new(RamDisk::new(4096, 512)));
    target.add_unit(1, other.clone()).unwrap();
    e.clear_attentions();
    let data: Vec<u8> = (0..64 * 512u32).map(|n| (n / 3) as u8).collect();
    e.io(BlockIo::new(IoKind::Write, 0, 64), 0, &data).good();
    let both = || vec![Cscd::Identification(cscd(&unit)), Cscd::Identification(cscd(&other))];
    // Within the unit, overlapping; to the other one; and back.
    let segments = vec![b2b(0, 0, 64, 0, 8), b2b(0, 1, 64, 8, 2), b2b(1, 0, 8, 2, 1000)];
    copy(&mut e, both(), segments).good();
    for lba in [8, 1000] {
        assert!(e.io(BlockIo::new(IoKind::Read, lba, 64), 64 * 512, &[]).good() == data);
    }
    let status = e
        .input(ReceiveCopyResults { service_action: 0, list_identifier: 5, allocation_length: 12 }, 12)
        .good();
    let status = CopyStatus::decode(&status);
    assert_eq!((status.status, status.segments, status.units, status.count), (1, 3, 1, 96));
    let parameters = e
        .input(ReceiveCopyResults { service_action: 3, allocation_length: 512, ..Default::default() }, 512)
        .good();
    let parameters = CopyParameters::decode(&parameters);
    assert_eq!((parameters.max_cscds, parameters.max_segments, parameters.max_list_length), (8, 16, 704));
}

#[test]
fn what_a_copy_is_refused() {
    let (mut e, target, unit) = ready();
    let here = || Cscd::Identification(cscd(&unit));
    let mut check = |cscds, segments, key, asc| copy(&mut e, cscds, segments).check(key, asc);
    use SenseKey as K;
    let illegal = K::IllegalRequest;
    check(vec![here(); 9], vec![b2b(0, 0, 1, 0, 1)], illegal, Asc::TOO_MANY_TARGET_DESCRIPTORS);
    check(vec![here()], vec![b2b(0, 0, 1, 0, 1); 17], illegal, Asc::TOO_MANY_SEGMENT_DESCRIPTORS);
    check(vec![here(); 9], vec![b2b(0, 0, 1, 0, 1); 17], illegal, Asc::PARAMETER_LIST_LENGTH_ERROR);
    check(
        vec![Cscd::Unknown(0xe0, [0; 31])],
        vec![b2b(0, 0, 1, 0, 1)],
        illegal,
        Asc::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE,
    );
    check(
        vec![here()],
        vec![Segment::Unknown(3, vec![3, 0, 0, 0])],
        illegal,
        Asc::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE,
    );
    let aborted = K::CopyAborted;
    let tape = IdentificationCscd { device_type: 1, ..cscd(&unit) };
    check(
        vec![Cscd::Identification(tape)],
        vec![b2b(0, 0, 1, 0, 1)],
        aborted,
        Asc::COPY_TARGET_DEVICE_NOT_REACHABLE,
    );
    check(vec![here()], vec![b2b(0, 1, 1, 0, 1)], aborted, Asc::COPY_TARGET_DEVICE_NOT_REACHABLE);
    check(vec![here()], vec![b2b(0, 0, 2, 0, 2047)], aborted, Asc::NO_ADDITIONAL_SENSE_INFORMATION);
    // A unit that exists, but that this nexus does not see, is not there for its copies.
    let hidden = LogicalUnit::new(UnitConfig::new("hidden"), Box::new(RamDisk::new(512, 64)));
    let elsewhere = TargetDevice::new("iqn.2026-01.org.example:elsewhere", []);
    elsewhere.add_unit(0, hidden.clone()).unwrap();
    let there = Cscd::Identification(cscd(&hidden));
    check(vec![here(), there], vec![b2b(1, 0, 1, 0, 0)], aborted, Asc::COPY_TARGET_DEVICE_NOT_REACHABLE);
    // Nor may a copy write where the nexus may not.
    let read_only = UnitConfig { read_only: true, ..UnitConfig::new("ro") };
    let read_only = LogicalUnit::new(read_only, Box::new(RamDisk::new(512, 64)));
    target.add_unit(1, read_only.clone()).unwrap();
    e.clear_attentions();
    let to = vec![here(), Cscd::Identification(cscd(&read_only))];
    copy(&mut e, to, vec![b2b(0, 1, 1, 0, 0)]).check(K::DataProtect, Asc::WRITE_PROTECTED);
    let status = e
        .input(ReceiveCopyResults { service_action: 0, list_identifier: 5, allocation_length: 12 }, 12)
        .good();
    assert_eq!(CopyStatus::decode(&status).status, 2, "failed");
}
