//! SANITIZE and FORMAT UNIT: what they leave, and what goes on meanwhile.

use super::*;
use crate::nexus::tests::Engine;
use crate::unit::LogicalUnit;
use std::sync::Arc;

fn read(e: &mut Engine, lba: u64, blocks: u32) -> Vec<u8> {
    e.io(BlockIo::new(IoKind::Read, lba, blocks), blocks * 512, &[]).good()
}

fn sanitize(service_action: u8, len: usize) -> Sanitize {
    Sanitize { service_action, parameter_list_length: len as u16, ..Default::default() }
}

/// A unit of 4096 blocks whose erasing takes a second.
fn slow() -> (Engine, Arc<LogicalUnit>) {
    let config = UnitConfig { erase_rate: Some(2 << 20), ..UnitConfig::new("slow") };
    let (target, unit) = target_over(config, Box::new(RamDisk::new(512, 4096)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    (e, unit)
}

#[test]
fn overwriting() {
    let (mut e, ..) = ready();
    // Two passes, the second inverted: a pattern of three bytes from each block's beginning.
    let list = [0x82, 0, 0, 3, 0x0f, 0xf0, 0xaa];
    e.output(sanitize(1, list.len()), &list).good();
    let expected: Vec<u8> = [0xf0, 0x0f, 0x55].into_iter().cycle().take(512).collect();
    assert_eq!(read(&mut e, 0, 1), expected);
    assert_eq!(read(&mut e, 2047, 1), expected);
    let whole = [&[1, 0, 2, 0][..], &[7; 512]].concat();
    e.output(sanitize(1, whole.len()), &whole).good();
    assert_eq!(read(&mut e, 1000, 8), [7; 4096]);
}

#[test]
fn parameters_of_overwriting() {
    let (mut e, ..) = ready();
    for len in [0, 4, 517] {
        let sense = e
            .output(sanitize(1, len), &vec![1; len])
            .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        assert_eq!(sense.field_pointer().map(|p| p.byte), Some(7));
    }
    let lists: [(&[u8], u16); 4] = [
        (&[0x00, 0, 0, 1, 9], 0),
        (&[0x21, 0, 0, 1, 9], 0),
        (&[0x01, 0, 0, 0, 9], 2),
        (&[0x01, 0, 0, 2, 9], 2),
    ];
    for (list, byte) in lists {
        let reply = e.output(sanitize(1, list.len()), list);
        let sense = reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
        assert_eq!(sense.field_pointer().map(|p| p.byte), Some(byte));
    }
    e.output(sanitize(2, 4), &[0; 4]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    // No cryptographic erase: nothing is encrypted.
    e.none(sanitize(3, 0)).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    e.none(sanitize(0x1f, 0)).good();
}

#[test]
fn block_erase_and_format_leave_zeros() {
    let (mut e, ..) = ready();
    let erases: [(Command, &[u8]); 3] = [
        (sanitize(2, 0).into(), &[]),
        (FormatUnit::default().into(), &[]),
        (FormatUnit { fmt_data: true, ..Default::default() }.into(), &[0; 4]),
    ];
    for (command, list) in erases {
        e.io(BlockIo::new(IoKind::Write, 0, 2048), 0, &vec![1; 2048 * 512]).good();
        e.output(command, list).good();
        assert!(read(&mut e, 0, 2048).iter().all(|b| *b == 0));
    }
    for (command, list, asc) in [
        (FormatUnit { fmt_pinfo: 2, ..Default::default() }, vec![], Asc::INVALID_FIELD_IN_CDB),
        (
            FormatUnit { fmt_data: true, ..Default::default() },
            vec![1, 0, 0, 0],
            Asc::INVALID_FIELD_IN_PARAMETER_LIST,
        ),
        (
            FormatUnit { fmt_data: true, ..Default::default() },
            vec![0, 8, 0, 0],
            Asc::INVALID_FIELD_IN_PARAMETER_LIST,
        ),
        (
            FormatUnit { fmt_data: true, ..Default::default() },
            vec![0, 0, 0, 4],
            Asc::INVALID_FIELD_IN_PARAMETER_LIST,
        ),
    ] {
        e.output(command, &list).check(SenseKey::IllegalRequest, asc);
    }
}

#[test]
fn what_goes_on_meanwhile() {
    let (mut e, unit) = slow();
    e.none(Sanitize { immed: true, ..sanitize(2, 0) }).good();
    let overwrite = Sanitize { immed: true, ..sanitize(1, 5) };
    let busy = Asc::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS;
    let refused: [Command; 6] = [
        TestUnitReady {}.into(),
        Read10 { blocks: 1, ..Default::default() }.into(),
        StartStopUnit { start: true, ..Default::default() }.into(),
        ModeSelect6 { pf: true, ..Default::default() }.into(),
        FormatUnit::default().into(),
        sanitize(2, 0).into(),
    ];
    if unit.state().busy.is_none() {
        // Without pieces there is nothing to wait for: start one that has many.
        e.output(overwrite, &[1, 0, 0, 1, 9]).good();
    }
    for command in refused {
        let sense = e.input(command, 512).check(SenseKey::NotReady, busy);
        assert!(sense.progress().is_some());
    }
    let allowed: [Command; 4] = [
        Inquiry { allocation_length: 36, ..Default::default() }.into(),
        ReportLuns { allocation_length: 64, ..Default::default() }.into(),
        ModeSense6 { page_code: 8, allocation_length: 64, ..Default::default() }.into(),
        ReportSupportedOpCodes { allocation_length: 64, ..Default::default() }.into(),
    ];
    for command in allowed {
        assert!(e.input(command, 512).is_good());
    }
    let sense = e.input(RequestSense { allocation_length: 18, ..Default::default() }, 18).good();
    assert_eq!((sense[2], sense[12], sense[13]), (2, 0x04, 0x1b));
    // Neither the end of the session nor a reset ends it.
    unit.reset();
    drop(e);
    assert!(unit.not_ready().is_some());
    while unit.state().busy.is_some() {
        std::thread::yield_now();
    }
    assert_eq!(unit.not_ready(), None);
}

#[test]
fn a_failed_sanitize_has_to_be_left() {
    let (mut e, _, unit) = ready();
    for ause in [false, true] {
        unit.change(|state| state.sanitize_failed = Some(ause));
        e.none(TestUnitReady {}).check(SenseKey::MediumError, Asc::SANITIZE_COMMAND_FAILED);
        let exit = e.none(sanitize(0x1f, 0));
        if ause {
            exit.good();
        } else {
            exit.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
            e.none(sanitize(2, 0)).good();
        }
        assert!(e.none(TestUnitReady {}).is_good());
    }
}
