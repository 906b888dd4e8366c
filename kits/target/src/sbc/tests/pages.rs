//! INQUIRY, mode and log pages, REPORT SUPPORTED OPERATION CODES, diagnostics: that they agree with what is done.

use super::*;
use crate::nexus::tests::Engine;
use crate::sbc::table;
use scsi_cmd::capacity::Capacity16;
use scsi_cmd::inquiry::{StandardInquiry, VersionDescriptor};
use scsi_cmd::log::{LogContent, LogPage};
use scsi_cmd::mode::{Caching, Control, ModeForm, ModePage, ModeParameters};
use scsi_cmd::supported::{AllCommands, OneCommand, Support};
use scsi_cmd::vpd::{Association, DesignatorType, Vpd, VpdCode, VpdPage};

fn vpd(e: &mut Engine, code: VpdCode) -> VpdPage {
    let data = e.input(Inquiry { evpd: true, page_code: code.0, allocation_length: 512 }, 512).good();
    Vpd::decode(&data).unwrap().page
}

// req: 7144-4.2-1
#[test]
fn standard_inquiry() {
    let (mut e, ..) = ready();
    let data = e.input(Inquiry { allocation_length: 255, ..Default::default() }, 255).good();
    assert_eq!((data[0], data[2], data[3] & 0x0f, data[4]), (0, 6, 2, 91));
    let inquiry = StandardInquiry::decode(&data).unwrap();
    assert!(inquiry.flags.cmd_que && inquiry.flags.third_party_copy && inquiry.flags.multi_port);
    assert!(inquiry.versions.contains(&VersionDescriptor(0x0961)), "iSCSIProtocolLevel 1");
    e.input(Inquiry { page_code: 0x83, allocation_length: 255, ..Default::default() }, 255)
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

#[test]
fn vital_product_data() {
    let (mut e, ..) = ready();
    let VpdPage::SupportedPages(pages) = vpd(&mut e, VpdCode::SupportedPages) else { panic!() };
    assert!(pages.is_sorted(), "ascending");
    for page in pages {
        let data = e.input(Inquiry { evpd: true, page_code: page.0, allocation_length: 512 }, 512).good();
        assert_eq!(data[1], page.0);
        assert_eq!(data.len(), 4 + usize::from(u16::from_be_bytes([data[2], data[3]])));
    }
    assert_eq!(vpd(&mut e, VpdCode::UnitSerialNumber), VpdPage::UnitSerialNumber(b"0001".to_vec()));
    e.input(Inquiry { evpd: true, page_code: 0xb3, allocation_length: 64 }, 64)
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

// req: 7143-4.4.2-1
// req: 7143-4.4.2-3
#[test]
fn names() {
    let (mut e, ..) = ready();
    let VpdPage::DeviceIdentification(names) = vpd(&mut e, VpdCode::DeviceIdentification) else { panic!() };
    let name =
        |association, kind| names.iter().find(|d| d.association == association && d.kind == kind).unwrap();
    let device = name(Association::TargetDevice, DesignatorType::ScsiName);
    assert_eq!(device.as_text().as_deref(), Some("iqn.2026-01.org.example:disk"));
    let port = name(Association::TargetPort, DesignatorType::ScsiName);
    assert_eq!(port.as_text().as_deref(), Some("iqn.2026-01.org.example:disk,t,0x0001"));
    assert_eq!(name(Association::TargetPort, DesignatorType::RelativeTargetPort).data, [0, 0, 0, 1]);
    assert_eq!(name(Association::LogicalUnit, DesignatorType::Naa).data[0] >> 4, 3);
}

#[test]
fn limits_are_kept() {
    let (mut e, ..) = ready();
    let VpdPage::BlockLimits(limits) = vpd(&mut e, VpdCode::BlockLimits) else { panic!() };
    let VpdPage::LogicalBlockProvisioning(thin, _) = vpd(&mut e, VpdCode::LogicalBlockProvisioning) else {
        panic!()
    };
    assert!(thin.lbpu && thin.lbpws && thin.lbpws10 && thin.lbprz == 1);
    assert_eq!((limits.max_unmap_descriptors, limits.max_compare_and_write), (256, 255));
    assert_eq!(limits.max_atomic, 2048);
    let capacity = e.input(ReadCapacity16 { allocation_length: 32, ..Default::default() }, 32).good();
    let capacity = Capacity16::decode(&capacity);
    assert_eq!(
        (capacity.last_lba, capacity.block_length, capacity.lbpme, capacity.lbprz),
        (2047, 512, true, true)
    );
    assert_eq!(e.input(ReadCapacity10::default(), 8).good(), [0, 0, 7, 0xff, 0, 0, 2, 0]);
    e.input(ReadCapacity10 { lba: 1, ..Default::default() }, 8)
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

#[test]
fn physical_blocks_and_large_disks() {
    let (target, _) = target_over(UnitConfig::new("4k"), Box::new(RamDisk::new(4096, 1 << 34)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    assert_eq!(e.input(ReadCapacity10::default(), 8).good(), [0xff, 0xff, 0xff, 0xff, 0, 0, 16, 0]);
    let capacity = e.input(ReadCapacity16 { allocation_length: 32, ..Default::default() }, 32).good();
    assert_eq!(Capacity16::decode(&capacity).last_lba, (1 << 34) - 1);
    e.io(BlockIo::new(IoKind::Write, (1 << 34) - 1, 1), 0, &[1; 4096]).good();
    assert_eq!(e.io(BlockIo::new(IoKind::Read, (1 << 34) - 1, 1), 4096, &[]).good(), [1; 4096]);
}

fn control(e: &mut Engine) -> Control {
    let data = e
        .input(ModeSense10 { dbd: true, page_code: 0x0a, allocation_length: 255, ..Default::default() }, 255)
        .good();
    match &ModeParameters::decode(&data, ModeForm::Ten).unwrap().pages[0] {
        ModePage::Control(page) => *page,
        other => panic!("{other:?}"),
    }
}

fn select(e: &mut Engine, page: ModePage) -> Reply {
    let list = ModeParameters { pages: vec![page], ..Default::default() }.encode(ModeForm::Six, true);
    e.output(ModeSelect6 { pf: true, parameter_list_length: list.len() as u8, ..Default::default() }, &list)
}

#[test]
fn all_mode_pages() {
    let (mut e, ..) = ready();
    let data = e
        .input(
            ModeSense6 { page_code: 0x3f, subpage_code: 0xff, allocation_length: 255, ..Default::default() },
            255,
        )
        .good();
    assert_eq!(usize::from(data[0]), data.len() - 1);
    let list = ModeParameters::decode(&data, ModeForm::Six).unwrap();
    let codes: Vec<_> = list.pages.iter().map(|p| (p.page_code(), p.subpage_code())).collect();
    assert_eq!(codes, [(1, 0), (8, 0), (0x0a, 0), (0x0a, 1), (0x1c, 0)]);
    assert!(list.dpofua && list.descriptors.len() == 1);
    // Without subpages, FFh not asked for.
    let data =
        e.input(ModeSense6 { page_code: 0x3f, allocation_length: 255, ..Default::default() }, 255).good();
    assert_eq!(ModeParameters::decode(&data, ModeForm::Six).unwrap().pages.len(), 4);
    for (page_code, page_control, subpage_code, asc, byte) in [
        (0x3e, 0, 0, Asc::INVALID_FIELD_IN_CDB, 2),
        (0x0a, 0, 7, Asc::INVALID_FIELD_IN_CDB, 3),
        (0x0a, 3, 0, Asc::SAVING_PARAMETERS_NOT_SUPPORTED, 2),
    ] {
        let sense =
            ModeSense6 { page_code, page_control, subpage_code, allocation_length: 64, ..Default::default() };
        let sense = e.input(sense, 64).check(SenseKey::IllegalRequest, asc);
        assert_eq!(sense.field_pointer().map(|p| p.byte), Some(byte));
    }
}

#[test]
fn descriptor_sense_data() {
    let (mut e, ..) = ready();
    let page = Control { d_sense: true, ..control(&mut e) };
    assert!(select(&mut e, ModePage::Control(page)).is_good());
    let reply = e.io(BlockIo::new(IoKind::Read, 1 << 40, 1), 512, &[]);
    assert_eq!(reply.outcome.sense[0], 0x72);
    assert_eq!(reply.sense().information, Some(1 << 40), "all 64 bits");
    let page = Control { d_sense: false, ..page };
    select(&mut e, ModePage::Control(page)).good();
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 1 << 40, 1), 512, &[]).outcome.sense[0], 0x70);
}

#[test]
fn software_write_protection() {
    let (mut e, target, _) = ready();
    let mut other = Engine::new(&target, 2);
    other.clear_attentions();
    let page = Control { swp: true, ..control(&mut e) };
    select(&mut e, ModePage::Control(page)).good();
    e.io(BlockIo::new(IoKind::Write, 0, 1), 0, &[1; 512])
        .check(SenseKey::DataProtect, Asc::LOGICAL_UNIT_SOFTWARE_WRITE_PROTECTED);
    assert_eq!(other.clear_attentions(), [Asc::MODE_PARAMETERS_CHANGED], "the others are told");
    assert_eq!(e.clear_attentions(), []);
    select(&mut e, ModePage::Control(Control { swp: false, ..page })).good();
    e.io(BlockIo::new(IoKind::Write, 0, 1), 0, &[1; 512]).good();
}

#[test]
fn what_mode_select_cannot_change() {
    let (mut e, ..) = ready();
    let page = Control { queue_algorithm: 0, ..control(&mut e) };
    let sense = select(&mut e, ModePage::Control(page))
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(sense.field_pointer().map(|p| (p.in_cdb, p.byte, p.bit)), Some((false, 4 + 3, Some(4))));
    // A RAM disk has no cache that could be turned on.
    let sense = select(&mut e, ModePage::Caching(Caching { wce: true, ..Default::default() }))
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    assert_eq!(sense.field_pointer().map(|p| (p.byte, p.bit)), Some((4 + 2, Some(2))));
    let unknown = ModePage::Unknown { page_code: 0x1a, subpage_code: None, data: vec![0; 10] };
    select(&mut e, unknown).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
    let save = ModeSelect6 { pf: true, sp: true, parameter_list_length: 4 };
    e.output(save, &[0; 4]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

#[test]
fn supported_operation_codes_are_those_of_the_table() {
    let (mut e, _, unit) = ready();
    let all =
        e.input(ReportSupportedOpCodes { allocation_length: 65535, ..Default::default() }, 65535).good();
    let AllCommands(all) = AllCommands::decode(&all).unwrap();
    assert_eq!(all.len(), table::rows(&unit).count());
    for command in all {
        assert!(command.timeouts.is_none());
        let request = ReportSupportedOpCodes {
            rctd: true,
            reporting_options: if command.service_action.is_some() { 2 } else { 1 },
            requested_op_code: command.op_code,
            requested_service_action: command.service_action.unwrap_or(0),
            allocation_length: 512,
        };
        let one = OneCommand::decode(&e.input(request, 512).good()).unwrap();
        assert_eq!((one.support, one.usage.len()), (Support::Supported, command.cdb_length.into()));
        assert_eq!(one.usage[0], command.op_code);
        assert!(one.timeouts.is_some());
        if let Some(action) = command.service_action {
            assert_eq!(service_action(&one.usage), action);
            // The other option is wrong for an operation code with service actions.
            let wrong = ReportSupportedOpCodes { reporting_options: 1, ..request };
            e.input(wrong, 512).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        }
    }
    let unknown = ReportSupportedOpCodes {
        reporting_options: 3,
        requested_op_code: 0xee,
        allocation_length: 512,
        ..Default::default()
    };
    assert_eq!(OneCommand::decode(&e.input(unknown, 512).good()).unwrap().support, Support::NotSupported);
    let read = ReportSupportedOpCodes {
        reporting_options: 1,
        requested_op_code: 0x28,
        allocation_length: 512,
        ..Default::default()
    };
    let usage = OneCommand::decode(&e.input(read, 512).good()).unwrap().usage;
    assert_eq!(
        usage,
        [0x28, 0x1c, 0xff, 0xff, 0xff, 0xff, 0x00, 0xff, 0xff, 0x00],
        "no protection, no groups"
    );
}

#[test]
fn supported_functions() {
    let (mut e, ..) = ready();
    let data = e.input(ReportSupportedTmfs { allocation_length: 16, ..Default::default() }, 16).good();
    assert_eq!(data, [0xda, 0, 0, 0], "iSCSIProtocolLevel 1 has no QUERY and no I_T NEXUS RESET functions");
    let data = e.input(ReportSupportedTmfs { repd: true, allocation_length: 16 }, 16).good();
    assert_eq!((data.len(), data[3]), (16, 12));
}

#[test]
fn self_tests_are_logged() {
    let (mut e, ..) = ready();
    assert!(e.none(SendDiagnostic { self_test: true, ..Default::default() }).is_good());
    assert!(e.none(SendDiagnostic { self_test_code: 6, ..Default::default() }).is_good());
    let data = e
        .input(
            LogSense { page_code: 0x10, page_control: 1, allocation_length: 1024, ..Default::default() },
            1024,
        )
        .good();
    let LogContent::Parameters(all) = LogPage::decode(&data).unwrap().content else { panic!() };
    assert_eq!((all.len(), all[0].value[0], all[1].value[0]), (20, 6 << 5, 0));
    assert_eq!(all[0].value[4..12], [0xff; 8], "no failure");
    let supported =
        e.input(LogSense { page_control: 1, allocation_length: 64, ..Default::default() }, 64).good();
    assert_eq!(supported, [0, 0, 0, 8, 0, 2, 3, 5, 0x0e, 0x10, 0x19, 0x2f]);
    let pages =
        e.input(ReceiveDiagnosticResults { pcv: true, page_code: 0, allocation_length: 64 }, 64).good();
    assert_eq!(pages, [0, 0, 0, 1, 0]);
    e.none(SendDiagnostic { self_test: true, self_test_code: 1, ..Default::default() })
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

#[test]
fn removable_media() {
    let config = UnitConfig { removable: true, ..UnitConfig::new("rmb") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    let mut other = Engine::new(&target, 2);
    e.clear_attentions();
    other.clear_attentions();
    let eject = Command::from(StartStopUnit { loej: true, ..Default::default() });
    let load = Command::from(StartStopUnit { loej: true, start: true, ..Default::default() });
    let prevent = |prevent| Command::from(PreventAllowMediumRemoval { prevent });
    e.none(prevent(1)).good();
    other.none(eject.clone()).check(SenseKey::IllegalRequest, Asc::MEDIUM_REMOVAL_PREVENTED);
    e.none(prevent(0)).good();
    other.none(eject.clone()).good();
    e.none(TestUnitReady {}).check(SenseKey::NotReady, Asc::MEDIUM_NOT_PRESENT);
    e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).check(SenseKey::NotReady, Asc::MEDIUM_NOT_PRESENT);
    assert!(e.input(Inquiry { allocation_length: 36, ..Default::default() }, 36).is_good());
    let sense = e.input(RequestSense { allocation_length: 18, ..Default::default() }, 18).good();
    assert_eq!((sense[2], sense[12], sense[13]), (2, 0x3a, 0));
    e.none(prevent(1)).good();
    other.none(load.clone()).check(SenseKey::IllegalRequest, Asc::MEDIUM_REMOVAL_PREVENTED);
    e.none(prevent(0)).good();
    e.none(load).good();
    let changed = Asc::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
    assert_eq!((e.clear_attentions(), other.clear_attentions()), (vec![], vec![changed]));
    // A power condition changes nothing, and a nexus that is lost prevents nothing.
    e.none(StartStopUnit { power_condition: 3, loej: true, ..Default::default() }).good();
    assert!(e.none(TestUnitReady {}).is_good());
    e.none(prevent(1)).good();
    drop(e);
    other.none(eject).good();
}

#[test]
fn stopping() {
    let (mut e, target, _) = ready();
    let mut other = Engine::new(&target, 2);
    other.clear_attentions();
    // SBC-3 clause 5.25: until it is started, 02/04/02 for what needs the medium.
    let stopped = Asc::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED;
    e.none(StartStopUnit::default()).good();
    other.none(TestUnitReady {}).check(SenseKey::NotReady, stopped);
    other.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).check(SenseKey::NotReady, stopped);
    other.io(BlockIo::new(IoKind::Write, 0, 1), 0, &[1; 512]).check(SenseKey::NotReady, stopped);
    let sense = e.input(RequestSense { desc: true, allocation_length: 18 }, 18).good();
    assert_eq!(sense, [0x72, 2, 4, 2, 0, 0, 0, 0]);
    assert!(e.input(Inquiry { allocation_length: 36, ..Default::default() }, 36).is_good());
    e.none(StartStopUnit { start: true, ..Default::default() }).good();
    assert!(other.none(TestUnitReady {}).is_good());
    let sense = e.input(RequestSense { desc: true, allocation_length: 18 }, 18).good();
    assert_eq!(sense, [0x72, 0, 0, 0, 0, 0, 0, 0]);
    // There is nothing to eject.
    e.none(StartStopUnit { loej: true, ..Default::default() })
        .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}
