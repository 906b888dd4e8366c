//! Commands that arrive behind what ends tasks, before any nexus has followed the order: they are not concerned (RFC 7143
//! section 4.2.3.3; SAM-5 clause 7.7: the tasks in the task sets at that time).

use super::sharing::{function, stuck_write, test_unit_ready, two};
use super::*;
use crate::nexus::tests::Engine;
use iscsi_pdu::{Lun, ScsiStatus, TaskAttr, TaskMgmtFunction, TaskMgmtStatus};
use iscsi_session::device::{DeviceServer, Function, FunctionTag, TaskTag};
use scsi_cmd::reservation::{PrOutAction, PrOutParameters, PrType};

/// A reset takes its time in the engine's turn: all that came with it is delivered before the nexus is polled.
const RESETS: [TaskMgmtFunction; 2] = [TaskMgmtFunction::LogicalUnitReset, TaskMgmtFunction::TargetWarmReset];

#[track_caller]
fn attention(e: &mut Engine, tag: TaskTag, asc: Asc) {
    let outcome = e.port.outcomes.remove(&tag).expect("answered at once");
    let sense = Sense::decode(&outcome.sense).unwrap();
    assert_eq!((sense.key, sense.asc), (SenseKey::UnitAttention, asc));
}

#[track_caller]
fn responded(e: &mut Engine, tag: u64) {
    e.turn();
    let response = (FunctionTag(tag), TaskMgmtStatus::FunctionComplete, [0; 3]);
    assert_eq!(e.port.responses.pop(), Some(response));
}

// req: 7143-4.2.3.3-1
#[test]
fn a_reset_spares_what_its_own_nexus_sends_behind_it() {
    for (n, reset) in RESETS.into_iter().enumerate() {
        let (mut e, ..) = ready();
        let before = stuck_write(&mut e, TaskAttr::Simple);
        e.nexus.abort(before, &mut e.port);
        e.port.drop_wants();
        function(&mut e, reset, n as u64);
        let first = test_unit_ready(&mut e, TaskAttr::Simple);
        let second = stuck_write(&mut e, TaskAttr::Simple);
        let third = test_unit_ready(&mut e, TaskAttr::Ordered);
        attention(&mut e, first, Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
        responded(&mut e, n as u64);
        assert_eq!(e.port.discarded, [before], "{reset:?}");
        assert!(e.reply(second).unwrap().is_good() && e.reply(third).unwrap().is_good(), "{reset:?}");
        assert_eq!(e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).good(), [1; 512], "the write behind it");
    }
}

// Whatever TAS says: those that the reset does not concern must neither vanish nor end with TASK ABORTED.
#[test]
fn a_reset_spares_what_other_nexuses_send_after_it() {
    for tas in [true, false] {
        for (n, reset) in RESETS.into_iter().enumerate() {
            let (mut a, mut b, _, unit) = two();
            unit.change(|state| state.modes.control.tas = tas);
            let before = stuck_write(&mut b, TaskAttr::Simple);
            b.port.drop_wants();
            function(&mut a, reset, n as u64);
            let told = test_unit_ready(&mut b, TaskAttr::Simple);
            attention(&mut b, told, Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
            let after = stuck_write(&mut b, TaskAttr::Simple);
            a.turn();
            assert!(a.port.responses.is_empty(), "a task from before is not over");
            b.turn();
            match b.port.outcomes.remove(&before) {
                Some(outcome) => assert_eq!((tas, outcome.status), (true, ScsiStatus::TaskAborted)),
                None => assert_eq!((tas, &b.port.discarded[..]), (false, &[before][..])),
            }
            responded(&mut a, n as u64);
            assert!(b.reply(after).unwrap().is_good(), "{reset:?}, TAS {tas}");
        }
    }
}

// Two resets, one order followed between them and one not.
#[test]
fn each_reset_ends_what_came_before_it() {
    let (mut a, mut b, ..) = two();
    function(&mut a, TaskMgmtFunction::LogicalUnitReset, 1);
    b.clear_attentions();
    let between = stuck_write(&mut b, TaskAttr::Simple);
    b.port.drop_wants();
    function(&mut a, TaskMgmtFunction::LogicalUnitReset, 2);
    let told = test_unit_ready(&mut b, TaskAttr::Simple);
    attention(&mut b, told, Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
    let after = stuck_write(&mut b, TaskAttr::Simple);
    assert!(b.reply(after).unwrap().is_good());
    assert_eq!(b.port.outcomes[&between].status, ScsiStatus::TaskAborted);
    a.turn();
    assert_eq!(a.port.responses.len(), 2);
}

// With a task set per nexus these end no tasks but those that the engine has ended already.
#[test]
fn functions_on_the_own_task_set_spare_what_is_behind_them() {
    use TaskMgmtFunction as F;
    for (n, f) in [F::AbortTaskSet, F::ClearTaskSet, F::ItNexusReset].into_iter().enumerate() {
        let (mut a, mut b, ..) = two();
        let theirs = stuck_write(&mut b, TaskAttr::Simple);
        let before = stuck_write(&mut a, TaskAttr::Simple);
        a.nexus.abort(before, &mut a.port);
        a.port.drop_wants();
        function(&mut a, f, n as u64);
        if f == F::ItNexusReset {
            let told = test_unit_ready(&mut a, TaskAttr::Simple);
            attention(&mut a, told, Asc::I_T_NEXUS_LOSS_OCCURRED);
        }
        let after = stuck_write(&mut a, TaskAttr::Simple);
        responded(&mut a, n as u64);
        assert!(a.reply(after).unwrap().is_good(), "{f:?}");
        assert_eq!(a.port.discarded, [before]);
        assert!(b.reply(theirs).unwrap().is_good(), "{f:?}");
    }
}

// The engine knows tasks by their LUN. One of the same nexus at another number of the same unit is in the unit's task
// sets all the same, and the initiator does not count on its end: it gets TASK ABORTED, as the engine's own do that a
// reset ends though they are behind it.
#[test]
fn a_reset_reaches_the_unit_under_its_other_number() {
    let (mut e, target, unit) = ready();
    target.add_unit(1, unit.clone()).unwrap();
    unit.change(|state| state.modes.control.tas = false);
    e.clear_attentions();
    let other = Lun([0, 1, 0, 0, 0, 0, 0, 0]);
    for _ in 0..4 {
        let tag = e.start(other, TaskAttr::Simple, &[0; 6], 0, &[], 0);
        e.turn();
        e.port.outcomes.remove(&tag);
    }
    let write = Cdb::from(Command::from(Write10 { blocks: 1, ..Default::default() })).encode();
    let before = e.start(other, TaskAttr::Simple, &write, 0, &[2; 512], 0);
    e.port.drop_wants();
    let lun = Lun::ZERO;
    let reset = Function { tag: FunctionTag(1), function: TaskMgmtFunction::LogicalUnitReset, lun };
    e.nexus.task_management(reset, &mut e.port);
    responded(&mut e, 1);
    assert_eq!(e.port.outcomes[&before].status, ScsiStatus::TaskAborted);
    assert!(e.port.discarded.is_empty());
}

// SPC-4 clause 5.12.11.4.3: PREEMPT AND ABORT ends the tasks from before it. A fenced node that hears of it registers
// anew, whenever its nexus follows the order; what it wrote before it heard does not get through.
#[test]
fn preempt_and_abort_spares_what_comes_after_its_unit_attention() {
    for tas in [true, false] {
        let (mut a, mut b, _, unit) = two();
        unit.change(|state| state.modes.control.tas = tas);
        let register = |key, service_action_key| {
            PrOutParameters { key, service_action_key, ..Default::default() }.encode()
        };
        let cdb = |action: PrOutAction, pr_type: PrType| {
            let (service_action, pr_type) = (action.0, pr_type.0);
            let command =
                PersistentReserveOut { service_action, pr_type, parameter_list_length: 24, scope: 0 };
            Cdb::from(Command::from(command)).encode()
        };
        a.raw(&cdb(PrOutAction::Register, PrType(0)), 0, &register(0, 1)).good();
        b.raw(&cdb(PrOutAction::Register, PrType(0)), 0, &register(0, 2)).good();
        let before = stuck_write(&mut a, TaskAttr::Simple);
        a.port.drop_wants();
        let preempt = cdb(PrOutAction::PreemptAndAbort, PrType::WriteExclusive);
        let preempt = b.start(Lun::ZERO, TaskAttr::Simple, &preempt, 0, &register(2, 1), 24);
        let told = test_unit_ready(&mut a, TaskAttr::Simple);
        attention(&mut a, told, Asc::REGISTRATIONS_PREEMPTED);
        let again = cdb(PrOutAction::Register, PrType(0));
        let again = a.start(Lun::ZERO, TaskAttr::Simple, &again, 0, &register(0, 3), 0);
        assert!(b.reply(preempt).is_none(), "a task from before is not over");
        a.reply(again).expect("not ended with the others").good();
        let aborted = a.port.outcomes.get(&before).is_some_and(|o| o.status == ScsiStatus::TaskAborted);
        assert_eq!((aborted, a.port.discarded.contains(&before)), (tas, !tas));
        b.reply(preempt).unwrap().good();
    }
}
