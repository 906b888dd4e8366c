//! The order of conditions and the task set (SAM-5): which of several conditions is reported, what waits for what.

use super::*;
use crate::nexus::tests::ram_target;
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr};
use iscsi_session::device::{DeviceServer, TaskTag};
use scsi_cmd::luns::LunList;

/// An engine that has been told nothing yet: POWER ON waits.
fn fresh() -> Engine {
    Engine::new(&ram_target().0, 1)
}

const POWER_ON: Asc = Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED;

fn start(e: &mut Engine, attr: TaskAttr, command: impl Into<Command>, output: &[u8]) -> TaskTag {
    e.start(Lun::ZERO, attr, &Cdb::from(command.into()).encode(), 0, output, 0)
}

/// A WRITE whose output does not come until it is replied to.
fn stuck(e: &mut Engine, attr: TaskAttr) -> TaskTag {
    start(e, attr, Write10 { blocks: 1, ..Default::default() }, &[1; 512])
}

fn unit_ready(e: &mut Engine, attr: TaskAttr) -> TaskTag {
    start(e, attr, TestUnitReady {}, &[])
}

fn is_over(e: &Engine, tag: TaskTag) -> bool {
    e.port.outcomes.contains_key(&tag)
}

// A unit attention condition is reported before anything is said of the command itself (SAM-5, unit attention conditions):
// unknown operation codes and service actions, reserved bits, NACA, addresses.
#[test]
fn a_unit_attention_comes_before_what_is_wrong_with_the_command() {
    for cdb in [
        &[0xff, 0, 0, 0, 0, 0][..],
        &[0x5e, 0x1f, 0, 0, 0, 0, 0, 0, 8, 0],
        &[0x00, 1, 0, 0, 0, 0],
        &[0x00, 0, 0, 0, 0, 4],
        &[0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0],
    ] {
        let mut e = fresh();
        e.raw(cdb, 0, &[]).check(SenseKey::UnitAttention, POWER_ON);
        let again = e.raw(cdb, 0, &[]).sense();
        assert_eq!(again.key, SenseKey::IllegalRequest, "{cdb:02x?}");
    }
}

// And before what is wrong with the unit.
#[test]
fn a_unit_attention_comes_before_the_state_of_the_unit() {
    let (target, unit) = ram_target();
    unit.change(|state| state.stopped = true);
    let mut e = Engine::new(&target, 1);
    e.none(TestUnitReady {}).check(SenseKey::UnitAttention, POWER_ON);
    e.none(TestUnitReady {})
        .check(SenseKey::NotReady, Asc::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED);
    let config = UnitConfig { read_only: true, ..UnitConfig::new("ro") };
    let mut e = Engine::new(&target_over(config, Box::new(RamDisk::new(512, 64))).0, 1);
    let write = BlockIo::new(IoKind::Write, 0, 1);
    e.io(write, 0, &[0; 512]).check(SenseKey::UnitAttention, POWER_ON);
    e.io(write, 0, &[0; 512]).check(SenseKey::DataProtect, Asc::WRITE_PROTECTED);
}

// INQUIRY and REPORT LUNS are not held up and clear nothing but REPORTED LUNS DATA HAS CHANGED; REQUEST SENSE returns one
// condition and clears it.
#[test]
fn commands_that_a_unit_attention_does_not_hold_up() {
    let (target, _) = ram_target();
    let mut e = Engine::new(&target, 1);
    let more = crate::LogicalUnit::new(UnitConfig::new("more"), Box::new(RamDisk::new(512, 64)));
    target.add_unit(1, more).unwrap();
    e.input(Inquiry { allocation_length: 96, ..Default::default() }, 96).good();
    let luns = e.input(ReportLuns { allocation_length: 64, ..Default::default() }, 64).good();
    assert_eq!(LunList::decode(&luns).unwrap().0.0.len(), 2);
    let sense = |e: &mut Engine| {
        let data = e.input(RequestSense { desc: true, allocation_length: 64 }, 64).good();
        let sense = Sense::decode(&data).unwrap();
        (sense.key, sense.asc)
    };
    assert_eq!(sense(&mut e), (SenseKey::UnitAttention, POWER_ON));
    assert_eq!(sense(&mut e), (SenseKey::NoSense, Asc::NO_ADDITIONAL_SENSE_INFORMATION));
    e.none(TestUnitReady {}).good();
}

// RESERVATION CONFLICT and TASK SET FULL come first and leave the condition for later.
#[test]
fn statuses_that_come_before_a_unit_attention() {
    let config = UnitConfig { queue_depth: 1, ..UnitConfig::new("q") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut holder = Engine::new(&target, 1);
    holder.clear_attentions();
    holder.none(Reserve6 {}).good();
    let mut e = Engine::new(&target, 2);
    let reply = e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]);
    assert_eq!(reply.outcome.status, ScsiStatus::ReservationConflict);
    holder.none(Release6 {}).good();
    assert_eq!(e.clear_attentions(), [POWER_ON]);
    let first = stuck(&mut e, TaskAttr::Simple);
    target.unit(0).unwrap().attention(Asc::MODE_PARAMETERS_CHANGED, None);
    let full = unit_ready(&mut e, TaskAttr::Simple);
    assert_eq!(e.port.outcomes[&full].status, ScsiStatus::TaskSetFull);
    assert!(e.reply(first).unwrap().is_good(), "a condition that arises later does not end it");
    assert_eq!(e.clear_attentions(), [Asc::MODE_PARAMETERS_CHANGED]);
}

// Every nexus is told once; that one has been told is nothing to the others.
#[test]
fn conditions_are_those_of_a_nexus() {
    let (target, unit) = ram_target();
    let mut all: Vec<Engine> = (1..4).map(|n| Engine::new(&target, n)).collect();
    all.iter_mut().for_each(|e| drop(e.clear_attentions()));
    unit.attention(Asc::CAPACITY_DATA_HAS_CHANGED, None);
    unit.attention(Asc::MODE_PARAMETERS_CHANGED, Some(all[0].nexus.id()));
    assert_eq!(all[0].clear_attentions(), [Asc::CAPACITY_DATA_HAS_CHANGED]);
    for e in &mut all[1..] {
        assert_eq!(e.clear_attentions(), [Asc::CAPACITY_DATA_HAS_CHANGED, Asc::MODE_PARAMETERS_CHANGED]);
        assert!(e.none(TestUnitReady {}).is_good());
    }
}

#[test]
fn head_of_queue_goes_before_what_waits() {
    let (mut e, ..) = ready();
    let first = stuck(&mut e, TaskAttr::HeadOfQueue);
    let simple = unit_ready(&mut e, TaskAttr::Simple);
    let ordered = unit_ready(&mut e, TaskAttr::Ordered);
    assert!(!is_over(&e, simple) && !is_over(&e, ordered), "both wait for HEAD OF QUEUE");
    let second = unit_ready(&mut e, TaskAttr::HeadOfQueue);
    assert!(is_over(&e, second), "HEAD OF QUEUE waits for nothing");
    assert!(e.reply(first).unwrap().is_good());
    assert!(is_over(&e, simple) && is_over(&e, ordered));
}

#[test]
fn ordered_keeps_its_place() {
    let (mut e, ..) = ready();
    let before = [stuck(&mut e, TaskAttr::Simple), stuck(&mut e, TaskAttr::Untagged)];
    let ordered = stuck(&mut e, TaskAttr::Ordered);
    let next = unit_ready(&mut e, TaskAttr::Ordered);
    let last = unit_ready(&mut e, TaskAttr::Simple);
    let waits = |e: &Engine, tags: &[TaskTag]| tags.iter().all(|tag| !is_over(e, *tag));
    e.nexus.abort(before[1], &mut e.port);
    assert!(waits(&e, &[before[0], ordered, next, last]));
    e.nexus.abort(before[0], &mut e.port);
    assert!(waits(&e, &[ordered, next, last]), "one ORDERED at a time, and SIMPLE behind it");
    assert!(e.reply(ordered).unwrap().is_good());
    assert!(is_over(&e, next) && is_over(&e, last));
}

// A task that is held counts in the task set, and one that is aborted lets those behind it go on.
#[test]
fn aborting_what_others_wait_for() {
    let config = UnitConfig { queue_depth: 3, ..UnitConfig::new("q") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let first = stuck(&mut e, TaskAttr::Simple);
    let ordered = unit_ready(&mut e, TaskAttr::Ordered);
    let behind = unit_ready(&mut e, TaskAttr::Simple);
    let full = unit_ready(&mut e, TaskAttr::Simple);
    assert_eq!(e.port.outcomes[&full].status, ScsiStatus::TaskSetFull);
    let urgent = unit_ready(&mut e, TaskAttr::HeadOfQueue);
    assert_eq!(e.port.outcomes[&urgent].status, ScsiStatus::TaskSetFull, "full for every attribute");
    e.nexus.abort(ordered, &mut e.port);
    assert!(is_over(&e, behind) && !is_over(&e, first));
    assert!(e.reply(first).unwrap().is_good());
    assert_eq!(e.nexus.tasks(), 0);
}

// There is no ACA: NormACA is 0, NACA is refused by every command, whatever a unit attention does not hold up among them,
// and so is the attribute.
#[test]
fn aca_is_refused() {
    let (mut e, ..) = ready();
    let inquiry = e.input(Inquiry { allocation_length: 36, ..Default::default() }, 36).good();
    assert_eq!(inquiry[3] & 0x20, 0, "NORMACA");
    for cdb in [
        &[0x12, 0, 0, 0, 36, 4][..],
        &[0x03, 0, 0, 0, 18, 4],
        &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 4],
        &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 4],
    ] {
        let sense = e.raw(cdb, 512, &[]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        let pointer = sense.field_pointer().unwrap();
        let control = cdb.len() as u16 - 1;
        assert_eq!((pointer.in_cdb, pointer.byte, pointer.bit), (true, control, Some(2)), "{cdb:02x?}");
    }
    let aca = unit_ready(&mut e, TaskAttr::Aca);
    e.reply(aca).unwrap().check(SenseKey::IllegalRequest, Asc::INVALID_MESSAGE_ERROR);
    let tmfs = e.input(ReportSupportedTmfs { allocation_length: 16, ..Default::default() }, 16).good();
    assert_eq!(tmfs[0] & 0x20, 0, "CACAS");
}
