//! For each command: reserved bits, ranges beyond the end, lengths at their limits.

use super::*;
use crate::sbc::table;
use scsi_cmd::cdb;

fn illegal(reply: Reply, asc: Asc) -> Sense {
    reply.check(SenseKey::IllegalRequest, asc)
}

#[test]
fn unknown_operation_codes_and_service_actions() {
    let (mut e, ..) = ready();
    for op in 0..=255u8 {
        if !cdb::USAGES.iter().any(|u| u[0] == op) {
            let mut cdb = [0; 16];
            cdb[0] = op;
            illegal(e.raw(&cdb, 0, &[]), Asc::INVALID_COMMAND_OPERATION_CODE);
        }
    }

    for (cdb, byte, bit) in [
        ([0x5e, 0x1f, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0], 1, 4),
        ([0xa3, 0x1f, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 1, 4),
    ] {
        let pointer = illegal(e.raw(&cdb, 8, &[]), Asc::INVALID_FIELD_IN_CDB).field_pointer().unwrap();
        assert_eq!((pointer.in_cdb, pointer.byte, pointer.bit), (true, byte, Some(bit)));
    }
}

// Every bit that a command does not use, alone: INVALID FIELD IN CDB with a pointer at it.
#[test]
fn reserved_bits_of_every_command() {
    let (_, unit) = target_over(
        UnitConfig { removable: true, ..UnitConfig::new("r") },
        Box::new(RamDisk::new(512, 2048)),
    );
    let (mut e, ..) = {
        let target = crate::TargetDevice::new("iqn.2026-01.org.example:r", []);
        target.add_unit(0, unit.clone()).unwrap();
        let mut e = Engine::new(&target, 1);
        e.clear_attentions();
        (e, target)
    };
    for row in table::rows(&unit) {
        let used: Vec<u8> = row.accepted().collect();
        let control = used.len() - 1;
        for at in (1..used.len()).filter(|at| *at != control) {
            for bit in 0..8 {
                let action = at == 1 && row.service_action.is_some() && bit < 5;
                if used[at] >> bit & 1 == 1 || action {
                    continue;
                }
                let mut cdb = vec![0; used.len()];
                cdb[0] = row.op;
                if row.service_action.is_some() {
                    cdb[1] = used[1] & 0x1f;
                }
                cdb[at] |= 1 << bit;
                let sense = illegal(e.raw(&cdb, 0, &[]), Asc::INVALID_FIELD_IN_CDB);
                let pointer = sense.field_pointer().unwrap();
                assert_eq!(
                    (pointer.in_cdb, pointer.byte, pointer.bit),
                    (true, at as u16, Some(bit)),
                    "{cdb:02x?}"
                );
            }
        }
        // NACA: there is no ACA.
        let mut cdb = vec![0; used.len()];
        cdb[0] = row.op;
        if row.service_action.is_some() {
            cdb[1] = used[1] & 0x1f;
        }
        cdb[control] = 0x04;
        let pointer = illegal(e.raw(&cdb, 0, &[]), Asc::INVALID_FIELD_IN_CDB).field_pointer().unwrap();
        assert_eq!((pointer.byte, pointer.bit), (control as u16, Some(2)), "{cdb:02x?}");
    }
}

const KINDS: [IoKind; 10] = [
    IoKind::Read,
    IoKind::Write,
    IoKind::WriteAtomic,
    IoKind::WriteAndVerify,
    IoKind::Verify,
    IoKind::OrWrite,
    IoKind::CompareAndWrite,
    IoKind::WriteSame,
    IoKind::PreFetch,
    IoKind::SynchronizeCache,
];

#[test]
fn ranges_beyond_the_end() {
    let (mut e, ..) = ready();
    for kind in KINDS {
        let ranges = [
            (2047, 2),
            (2048, 1),
            (u64::from(u32::MAX), 1),
            (1 << 40, 1),
            (u64::MAX, 1),
            (u64::MAX, 255),
            (2049, 0),
        ];
        for (lba, blocks) in ranges {
            let io = BlockIo::new(kind, lba, blocks);
            let output = vec![0; io.data_out_blocks() as usize * 512];
            let sense = illegal(e.io(io, 1 << 20, &output), Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
            let shown = if lba > u32::MAX.into() { None } else { Some(lba) };
            assert_eq!(sense.information, shown, "{kind:?} {lba}+{blocks}: in fixed format up to 32 bits");
        }
        // The last block is there.
        let io = BlockIo::new(kind, 2047, 1);
        let found = e.io(BlockIo::new(IoKind::Read, 2047, 1), 512, &[]).good();
        let output = found.repeat(io.data_out_blocks() as usize);
        assert!(e.io(io, 512, &output).is_good(), "{kind:?}");
    }
}

#[test]
fn transfers_of_no_blocks() {
    let (mut e, ..) = ready();
    for kind in KINDS {
        let io = BlockIo::new(kind, 0, 0);
        let output = vec![0; io.data_out_blocks() as usize * 512];
        let reply = e.io(io, 0, &output);
        assert!(reply.is_good() && reply.data.is_empty(), "{kind:?}");
        // At the end of the medium too, but for WRITE SAME, which would have to write a block.
        if kind != IoKind::WriteSame {
            assert!(e.io(BlockIo::new(kind, 2048, 0), 0, &[]).is_good(), "{kind:?}");
        }
    }
}

#[test]
fn transfers_beyond_the_maximum() {
    let config = UnitConfig { max_transfer: 64 << 10, ..UnitConfig::new("small") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    for kind in [IoKind::Read, IoKind::Write, IoKind::Verify, IoKind::WriteAndVerify, IoKind::OrWrite] {
        let io = BlockIo::new(kind, 0, 129);
        let pointer = illegal(e.io(io, 129 * 512, &[]), Asc::INVALID_FIELD_IN_CDB).field_pointer().unwrap();
        assert_eq!(pointer.byte, if kind == IoKind::OrWrite { 10 } else { 7 });
    }
    assert!(e.io(BlockIo::new(IoKind::Read, 0, 128), 128 * 512, &[]).is_good());
}

#[test]
fn output_of_another_length() {
    let (mut e, ..) = ready();
    let caw = CompareAndWrite { blocks: 1, ..Default::default() };
    for wrong in [0, 512, 1023, 1025, 2048] {
        illegal(e.output(caw, &vec![0; wrong]), Asc::INVALID_FIELD_IN_CDB);
    }
    let same = Command::from(WriteSame16 { blocks: 4, ..Default::default() });
    for (command, right) in [(same, 512)] {
        for wrong in [0, 1, right - 1, right + 1, right * 2] {
            illegal(
                e.output(command.clone(), &vec![0; wrong]),
                Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT,
            );
        }
        assert!(e.output(command, &vec![0; right]).is_good());
    }
    // Parameter lists that the initiator has not announced.
    let select = ModeSelect6 { pf: true, parameter_list_length: 16, ..Default::default() };
    let reply = e.output(select, &[0; 4]);
    assert_eq!(reply.outcome.write_length, 16, "the residual counts what the command takes");
    illegal(reply, Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
}

#[test]
fn allocation_lengths() {
    let (mut e, ..) = ready();
    let command = |len: u16| -> [Command; 8] {
        [
            Inquiry { allocation_length: len, ..Default::default() }.into(),
            Inquiry { evpd: true, page_code: 0x83, allocation_length: len }.into(),
            ModeSense10 { page_code: 0x3f, allocation_length: len, ..Default::default() }.into(),
            ReadCapacity16 { allocation_length: len.into(), ..Default::default() }.into(),
            ReportSupportedOpCodes { allocation_length: len.into(), ..Default::default() }.into(),
            ReportTargetPortGroups { allocation_length: len.into(), ..Default::default() }.into(),
            LogSense { page_code: 0x10, page_control: 1, allocation_length: len, ..Default::default() }
                .into(),
            PersistentReserveIn { service_action: 0, allocation_length: len }.into(),
        ]
    };
    let whole: Vec<Vec<u8>> = command(u16::MAX).into_iter().map(|c| e.input(c, 65535).good()).collect();
    for len in [0, 1, 3, 5, 7, 17] {
        for (command, whole) in command(len).into_iter().zip(&whole) {
            let reply = e.input(command.clone(), 65535);
            assert_eq!(reply.outcome.read_length, u64::from(len).min(whole.len() as u64), "{command:?}");
            let len = usize::from(len).min(whole.len());
            assert_eq!(reply.good(), whole[..len]);
        }
    }
    // REPORT LUNS wants room for a LUN (SPC-4 clause 6.33).
    illegal(
        e.input(ReportLuns { allocation_length: 15, ..Default::default() }, 15),
        Asc::INVALID_FIELD_IN_CDB,
    );
}

#[test]
fn parameter_lists_that_end_early() {
    let (mut e, ..) = ready();
    for len in 1..8u16 {
        let unmap = Unmap { parameter_list_length: len, ..Default::default() };
        illegal(e.output(unmap, &vec![0; len.into()]), Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    for len in 1..4u8 {
        let select = ModeSelect6 { pf: true, parameter_list_length: len, ..Default::default() };
        illegal(e.output(select, &vec![0; len.into()]), Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    for len in [0, 1, 23, 25] {
        let out =
            PersistentReserveOut { service_action: 0, parameter_list_length: len, ..Default::default() };
        illegal(e.output(out, &vec![0; len as usize]), Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    for len in [1, 4, 7, 9] {
        let set = SetTargetPortGroups { parameter_list_length: len };
        illegal(e.output(set, &vec![0; len as usize]), Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    for len in [1, 15, 47] {
        let copy = ExtendedCopyLid1 { parameter_list_length: len };
        let mut list = vec![0; len as usize];
        if len > 15 {
            list[3] = 32;
        }
        illegal(e.output(copy, &list), Asc::PARAMETER_LIST_LENGTH_ERROR);
    }
    assert!(e.none(Unmap::default()).is_good(), "no list is no error");
    assert!(e.none(ModeSelect6 { pf: true, ..Default::default() }).is_good());
    assert!(e.none(SetTargetPortGroups::default()).is_good());
    assert!(e.none(ExtendedCopyLid1::default()).is_good());
}

#[test]
fn protection_without_protection_information() {
    let (mut e, ..) = ready();
    for protect in 1..8 {
        for kind in KINDS.iter().filter(|k| !matches!(k, IoKind::PreFetch | IoKind::SynchronizeCache)) {
            let io = BlockIo { protect, ..BlockIo::new(*kind, 0, 1) };
            let pointer =
                illegal(e.io(io, 512, &[0; 1024]), Asc::INVALID_FIELD_IN_CDB).field_pointer().unwrap();
            assert_eq!(pointer.byte, 1);
        }
    }
}
