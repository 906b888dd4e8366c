//! Protection information: what is transferred, stored, checked and reported (SBC-3 clauses 4.22, 5).

use super::sharing::{b2b, copy, cscd};
use super::*;
use crate::TargetDevice;
use crate::nexus::tests::Engine;
use crate::unit::LogicalUnit;
use scsi_cmd::copy::Cscd;
use scsi_cmd::protection::ProtectionType::{self, Type1, Type3};
use std::sync::Arc;

/// The CRC of SBC-3 clause 4.22.4, bit by bit.
fn crc(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x8bb7 })
    })
}

/// A block of `byte`s with its protection information.
fn block(byte: u8, application_tag: u16, reference_tag: u32) -> Vec<u8> {
    let mut block = vec![byte; 512];
    block.extend(crc(&block).to_be_bytes());
    block.extend(application_tag.to_be_bytes());
    block.extend(reference_tag.to_be_bytes());
    block
}

fn blocks(lba: u64, bytes: &[u8], application_tag: u16) -> Vec<u8> {
    (lba..).zip(bytes).flat_map(|(lba, byte)| block(*byte, application_tag, lba as u32)).collect()
}

fn unit(kind: ProtectionType) -> (Engine, Arc<TargetDevice>, Arc<LogicalUnit>) {
    let disk = RamDisk::new(512, 4096).with_protection(Some(kind));
    let (target, unit) = target_over(UnitConfig::new("pi"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    (e, target, unit)
}

fn io(kind: IoKind, lba: u64, blocks: u32, protect: u8) -> BlockIo {
    BlockIo { protect, ..BlockIo::new(kind, lba, blocks) }
}

fn write(e: &mut Engine, lba: u64, protect: u8, output: &[u8]) -> Reply {
    let stride = if protect == 0 { 512 } else { 520 };
    e.io(io(IoKind::Write, lba, (output.len() / stride) as u32, protect), 0, output)
}

fn read(e: &mut Engine, lba: u64, blocks: u32, protect: u8) -> Reply {
    e.io(io(IoKind::Read, lba, blocks, protect), 1 << 20, &[])
}

/// What RDPROTECT 011b, which checks nothing, finds.
fn stored(e: &mut Engine, lba: u64, blocks: u32) -> Vec<u8> {
    read(e, lba, blocks, 3).good()
}

#[track_caller]
fn failed(reply: Reply, asc: Asc, lba: u64) {
    assert_eq!(reply.check(SenseKey::AbortedCommand, asc).information, Some(lba));
}

const GUARD: Asc = Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED;
const APPLICATION: Asc = Asc::LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED;
const REFERENCE: Asc = Asc::LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED;

/// ATO on.
fn owning(e: &mut Engine) {
    let select = ModeSelect6 { pf: true, parameter_list_length: 16, ..Default::default() };
    let mut list = vec![0; 4];
    list.extend([0x0a, 10, 0x20, 0x10, 0, 0xc0, 0, 0, 0, 0, 0, 0]);
    e.output(select, &list).good();
}

#[test]
fn what_the_unit_says() {
    for (kind, twelve) in [(Type1, 0x01), (Type3, 0x05)] {
        let (mut e, ..) = unit(kind);
        let inquiry = e.input(Inquiry { allocation_length: 96, ..Default::default() }, 96).good();
        assert_eq!(inquiry[5] & 0x01, 1, "PROTECT");
        let page = |page_code| Inquiry { evpd: true, page_code, allocation_length: 255 };
        let extended = e.input(page(0x86), 255).good();
        assert_eq!(extended[4], 3 << 3 | 7, "SPT types 1 and 3, GRD_CHK, APP_CHK, REF_CHK");
        let limits = e.input(page(0xb0), 255).good();
        assert_eq!(limits[8..12], [0, 0, 8, 0], "1 MiB");
        let capacity = e.input(ReadCapacity16 { allocation_length: 32, ..Default::default() }, 32).good();
        assert_eq!(capacity[8..14], [0, 0, 2, 0, twelve, 0], "P_TYPE, PROT_EN");
        let usage = |op| ReportSupportedOpCodes {
            reporting_options: 1,
            requested_op_code: op,
            allocation_length: 64,
            ..Default::default()
        };
        assert_eq!(e.input(usage(0x28), 64).good()[5], 0xfc, "RDPROTECT, DPO, FUA, RARC");
        assert_eq!(e.input(usage(0x04), 64).good()[5] & 0xc0, 0xc0, "FMTPINFO");
        let changeable =
            ModeSense6 { page_control: 1, page_code: 0x0a, allocation_length: 64, ..Default::default() };
        assert_eq!(e.input(changeable, 64).good()[12 + 5], 0x80 | 0x40 | 0x20, "ATO, TAS and ATMPE");
    }
}

#[test]
fn blocks_come_back_as_they_were_written() {
    for kind in [Type1, Type3] {
        let (mut e, ..) = unit(kind);
        let output = blocks(100, &[1, 2, 3, 4], 0xabcd);
        for protect in 1..=5 {
            write(&mut e, 100, protect, &output).good();
            assert_eq!(read(&mut e, 100, 4, protect).good(), output, "{protect}");
            assert_eq!(read(&mut e, 101, 1, 0).good(), [2; 512], "without");
        }
        assert_eq!(e.input(Read6 { lba: 102, blocks: 2 }, 1024).good(), [[3; 512], [4; 512]].concat());
        // As many as one command may have, in several steps.
        let bytes: Vec<u8> = (0..2048u32).map(|n| (n / 8) as u8).collect();
        let output = blocks(1000, &bytes, 5);
        let cdbs: [Command; 2] = [
            Write12 { lba: 1000, blocks: 2048, protect: 1, ..Default::default() }.into(),
            Write16 { lba: 1000, blocks: 2048, protect: 1, ..Default::default() }.into(),
        ];
        for cdb in cdbs {
            e.output(cdb, &output).good();
            let all = Read12 { lba: 1000, blocks: 2048, protect: 1, ..Default::default() };
            let reply = e.input(all, 2048 * 520);
            assert_eq!(reply.outcome.read_length, 2048 * 520, "residuals count protection information");
            assert!(reply.good() == output);
        }
    }
}

#[test]
fn output_is_checked() {
    let good = blocks(7, &[1, 2], 9);
    let (mut guard, mut reference) = (good.clone(), good.clone());
    guard[520 + 512] ^= 1;
    reference[520 + 519] ^= 1;
    for kind in [Type1, Type3] {
        let (mut e, ..) = unit(kind);
        for (protect, on_guard, on_reference) in
            [(1, true, true), (2, false, true), (3, false, false), (4, true, false), (5, true, true)]
        {
            let wrong = write(&mut e, 7, protect, &guard);
            if on_guard {
                failed(wrong, GUARD, 8)
            } else {
                drop(wrong.good())
            }
            let wrong = write(&mut e, 7, protect, &reference);
            if on_reference && kind == Type1 { failed(wrong, REFERENCE, 8) } else { drop(wrong.good()) }
        }
    }
    // Reference tags are the low 32 bits of the address, and an application tag of FFFFh lets nothing be written.
    let (mut e, ..) = unit(Type1);
    let mut escape = block(1, 0xffff, 7);
    escape[0] = 2;
    failed(write(&mut e, 7, 1, &escape), GUARD, 7);
    failed(write(&mut e, 7, 1, &block(1, 0xffff, 8)), REFERENCE, 7);
    assert_eq!(stored(&mut e, 7, 1)[512..], [0xff; 8], "nothing was written");
}

#[test]
fn the_medium_is_checked() {
    let mut wrong_guard = block(1, 9, 7);
    wrong_guard[513] ^= 0x10;
    for kind in [Type1, Type3] {
        let (mut e, ..) = unit(kind);
        write(&mut e, 7, 3, &wrong_guard).good();
        write(&mut e, 8, 3, &block(2, 9, 0x1234)).good();
        for (protect, on_guard, on_reference) in [
            (0, true, true),
            (1, true, true),
            (2, false, true),
            (3, false, false),
            (4, true, false),
            (5, true, true),
        ] {
            let verify = |e: &mut Engine, lba| e.io(io(IoKind::Verify, lba, 1, protect), 0, &[]);
            for reply in [read(&mut e, 7, 1, protect), verify(&mut e, 7)] {
                if on_guard { failed(reply, GUARD, 7) } else { drop(reply.good()) }
            }
            for reply in [read(&mut e, 8, 1, protect), verify(&mut e, 8)] {
                if on_reference && kind == Type1 { failed(reply, REFERENCE, 8) } else { drop(reply.good()) }
            }
        }
        failed(read(&mut e, 0, 64, 0), GUARD, 7);
        // Tags that turn checks off: with type 3 both, with type 1 the application tag.
        let mut off = block(3, 0xffff, 0xffff_ffff);
        off[0] = 9;
        write(&mut e, 7, 3, &off).good();
        assert_eq!(read(&mut e, 7, 1, 1).good(), off);
        let mut half = block(3, 0xffff, 7);
        half[0] = 9;
        write(&mut e, 7, 3, &half).good();
        match kind {
            Type3 => failed(read(&mut e, 7, 1, 1), GUARD, 7),
            _ => assert_eq!(read(&mut e, 7, 1, 1).good(), half),
        }
    }
}

#[test]
fn blocks_that_come_without_get_some() {
    let (mut e, ..) = unit(Type1);
    write(&mut e, 300, 0, &[[0; 512], [0xff; 512]].concat()).good();
    // The CRC of zeros is 0.
    let first = [&[0; 512][..], &[0, 0, 0, 0, 0, 0, 1, 44]].concat();
    assert_eq!(read(&mut e, 300, 2, 1).good(), [first, block(0xff, 0, 301)].concat());
    e.output(Write6 { lba: 5, blocks: 1 }, &[3; 512]).good();
    assert_eq!(read(&mut e, 5, 1, 1).good(), block(3, 0, 5));
    owning(&mut e);
    write(&mut e, 5, 0, &[4; 512]).good();
    assert_eq!(stored(&mut e, 5, 1), block(4, 0xffff, 5), "with ATO the application tag is not ours");
    let (mut e, ..) = unit(Type3);
    write(&mut e, 5, 0, &[4; 512]).good();
    assert_eq!(read(&mut e, 5, 1, 1).good(), block(4, 0, 0xffff_ffff));
}

#[test]
fn verifying_compares() {
    let (mut e, ..) = unit(Type1);
    write(&mut e, 10, 1, &blocks(10, &[1, 1, 2], 9)).good();
    let verify = |e: &mut Engine, bytchk, protect, blocks, output: &[u8]| {
        e.io(BlockIo { bytchk, ..io(IoKind::Verify, 10, blocks, protect) }, 0, output)
    };
    for protect in 1..=5 {
        verify(&mut e, 1, protect, 3, &blocks(10, &[1, 1, 2], 9)).good();
        // The one block of output goes with ascending reference tags.
        verify(&mut e, 3, protect, 2, &block(1, 9, 10)).good();
        let reply = verify(&mut e, 3, protect, 3, &block(1, 9, 10));
        let sense = reply.check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
        assert_eq!(sense.information, Some(12));
        // Without ATO application tags are not compared.
        verify(&mut e, 1, protect, 3, &blocks(10, &[1, 1, 2], 8)).good();
    }
    verify(&mut e, 1, 0, 3, &[[1; 1024].to_vec(), vec![2; 512]].concat()).good();
    // Output is checked before it is compared.
    failed(verify(&mut e, 1, 1, 1, &block(1, 9, 11)), REFERENCE, 10);
    let mut guard = block(1, 9, 10);
    guard[512] ^= 1;
    let sense = verify(&mut e, 1, 3, 1, &guard).check(SenseKey::Miscompare, GUARD);
    assert_eq!(sense.information, Some(10));
    verify(&mut e, 1, 2, 1, &guard).good();
    verify(&mut e, 1, 3, 1, &block(1, 9, 11)).check(SenseKey::Miscompare, REFERENCE);
    owning(&mut e);
    verify(&mut e, 1, 1, 1, &block(1, 8, 10)).check(SenseKey::Miscompare, APPLICATION);
    // With output the medium is only compared, without protection information in the output it is checked.
    write(&mut e, 10, 3, &guard).good();
    verify(&mut e, 1, 3, 1, &guard).good();
    failed(verify(&mut e, 1, 0, 1, &[1; 512]), GUARD, 10);
}

#[test]
fn writing_and_verifying() {
    let (mut e, ..) = unit(Type1);
    for bytchk in [0, 1] {
        let request = |protect| BlockIo { bytchk, ..io(IoKind::WriteAndVerify, 10, 2, protect) };
        e.io(request(1), 0, &blocks(10, &[1, 2], 9)).good();
        assert_eq!(read(&mut e, 10, 2, 1).good(), blocks(10, &[1, 2], 9));
        e.io(request(0), 0, &[7; 1024]).good();
        assert_eq!(read(&mut e, 10, 2, 1).good(), blocks(10, &[7, 7], 0));
        failed(e.io(request(1), 0, &blocks(11, &[1, 2], 9)), REFERENCE, 10);
    }
}

#[test]
fn writing_the_same() {
    let (mut e, ..) = unit(Type1);
    let same =
        |e: &mut Engine, protect, output: &[u8]| e.io(io(IoKind::WriteSame, 20, 1500, protect), 0, output);
    same(&mut e, 1, &block(6, 9, 20)).good();
    assert!(stored(&mut e, 20, 1500) == blocks(20, &[6; 1500], 9), "ascending reference tags");
    failed(same(&mut e, 1, &block(6, 9, 21)), REFERENCE, 20);
    let without = [&[6; 512][..], &[0xff; 8]].concat();
    same(&mut e, 3, &without).good();
    assert!(stored(&mut e, 20, 1500) == without.repeat(1500), "no protection information for any");
    same(&mut e, 0, &[0; 512]).good();
    assert!(
        read(&mut e, 20, 1500, 1).good() == blocks(20, &[0; 1500], 0),
        "zeros that are written have some"
    );
    let zeros = [&[0; 512][..], &[0xff; 8]].concat();
    for command in [
        WriteSame16 { unmap: true, lba: 22, blocks: 3, ..Default::default() },
        WriteSame16 { ndob: true, lba: 22, blocks: 3, ..Default::default() },
        WriteSame16 { ndob: true, protect: 1, lba: 22, blocks: 3, ..Default::default() },
    ] {
        same(&mut e, 0, &[1; 512]).good();
        let output = if command.ndob { &[][..] } else { &[0; 512] };
        e.output(command, output).good();
        let expected = [block(1, 0, 21), zeros.repeat(3), block(1, 0, 25)].concat();
        assert_eq!(stored(&mut e, 21, 5), expected, "{command:?}");
    }
    let (mut e, ..) = unit(Type3);
    same(&mut e, 1, &block(6, 9, 77)).good();
    assert!(stored(&mut e, 20, 1500) == block(6, 9, 77).repeat(1500), "type 3 does not count");
}

#[test]
fn reading_and_changing() {
    let (mut e, ..) = unit(Type1);
    write(&mut e, 1, 1, &blocks(1, &[0x0f, 0x01], 9)).good();
    e.io(io(IoKind::OrWrite, 1, 2, 1), 0, &blocks(1, &[0xf0, 0x02], 5)).good();
    assert_eq!(read(&mut e, 1, 2, 1).good(), blocks(1, &[0xff, 0x03], 5));
    e.io(io(IoKind::OrWrite, 1, 2, 0), 0, &[0x80; 1024]).good();
    assert_eq!(read(&mut e, 1, 2, 1).good(), blocks(1, &[0xff, 0x83], 0));
    failed(e.io(io(IoKind::OrWrite, 1, 1, 1), 0, &block(1, 9, 0)), REFERENCE, 1);

    let caw =
        |e: &mut Engine, protect, output: &[u8]| e.io(io(IoKind::CompareAndWrite, 1, 2, protect), 0, output);
    let before = blocks(1, &[0xff, 0x83], 0);
    caw(&mut e, 1, &[before.clone(), blocks(1, &[4, 5], 7)].concat()).good();
    assert_eq!(read(&mut e, 1, 2, 1).good(), blocks(1, &[4, 5], 7));
    let reply = caw(&mut e, 1, &[before, blocks(1, &[6, 6], 7)].concat());
    let sense = reply.check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(0));
    let reply = caw(&mut e, 1, &[blocks(1, &[4, 9], 7), blocks(1, &[6, 6], 7)].concat());
    let sense = reply.check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(520), "an offset in the output");
    failed(caw(&mut e, 1, &[blocks(1, &[4, 5], 7), blocks(2, &[6, 6], 7)].concat()), REFERENCE, 1);
    caw(&mut e, 0, &[[4; 512], [5; 512], [8; 512], [9; 512]].concat()).good();
    assert_eq!(read(&mut e, 1, 2, 1).good(), blocks(1, &[8, 9], 0));

    e.io(io(IoKind::WriteAtomic, 1, 2, 1), 0, &blocks(1, &[1, 2], 3)).good();
    assert_eq!(read(&mut e, 1, 2, 1).good(), blocks(1, &[1, 2], 3));
    failed(e.io(io(IoKind::WriteAtomic, 1, 2, 1), 0, &blocks(0, &[1, 2], 3)), REFERENCE, 1);
}

#[test]
fn what_is_erased_has_none() {
    let (mut e, ..) = unit(Type1);
    let erase = |e: &mut Engine, command: Command, output: &[u8], byte| {
        write(e, 8, 1, &blocks(8, &[1, 2, 3], 9)).good();
        e.output(command.clone(), output).good();
        let expected = [&[byte; 512][..], &[0xff; 8]].concat();
        assert_eq!(read(e, 9, 1, 1).good(), expected, "{command:?}");
    };
    let mut unmap = vec![0, 22, 0, 16, 0, 0, 0, 0];
    unmap.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0]);
    erase(&mut e, Unmap { parameter_list_length: 24, ..Default::default() }.into(), &unmap, 0);
    assert_eq!(read(&mut e, 8, 1, 1).good(), block(1, 9, 8), "its neighbour has");
    erase(&mut e, Sanitize { service_action: 2, ..Default::default() }.into(), &[], 0);
    let overwrite = Sanitize { service_action: 1, parameter_list_length: 5, ..Default::default() };
    erase(&mut e, overwrite.into(), &[1, 0, 0, 1, 0x5a], 0x5a);
    erase(&mut e, FormatUnit { fmt_pinfo: 2, ..Default::default() }.into(), &[], 0);
}

#[test]
fn copies_have_their_own() {
    let (mut e, target, one) = unit(Type1);
    let disk = RamDisk::new(512, 4096).with_protection(Some(Type3));
    let two = LogicalUnit::new(UnitConfig::new("two"), Box::new(disk));
    let three = LogicalUnit::new(UnitConfig::new("three"), Box::new(RamDisk::new(512, 4096)));
    target.add_unit(1, two.clone()).unwrap();
    target.add_unit(2, three.clone()).unwrap();
    e.clear_attentions();
    write(&mut e, 0, 1, &blocks(0, &[1, 2], 9)).good();
    let all = || [&one, &two, &three].map(|unit| Cscd::Identification(cscd(unit))).to_vec();
    copy(&mut e, all(), vec![b2b(0, 1, 2, 0, 0), b2b(1, 2, 2, 0, 0), b2b(2, 0, 2, 0, 50)]).good();
    assert_eq!(read(&mut e, 50, 2, 1).good(), blocks(50, &[1, 2], 0), "those of the blocks that it wrote");
    // What fails its check is not copied.
    let mut wrong = block(1, 9, 0);
    wrong[0] = 2;
    write(&mut e, 0, 3, &wrong).good();
    copy(&mut e, all(), vec![b2b(0, 1, 1, 0, 0)])
        .check(SenseKey::CopyAborted, Asc::THIRD_PARTY_DEVICE_FAILURE);
}

#[test]
fn formatting_changes_the_type() {
    let (mut e, target, _) = unit(Type1);
    let mut other = Engine::new(&target, 2);
    other.clear_attentions();
    let twelve = |e: &mut Engine| {
        e.input(ReadCapacity16 { allocation_length: 32, ..Default::default() }, 32).good()[12]
    };
    let format = |e: &mut Engine, fmt_pinfo, usage: Option<u8>| {
        let list = usage.map_or(vec![], |usage| vec![usage, 0, 0, 0]);
        e.output(FormatUnit { fmt_pinfo, fmt_data: usage.is_some(), ..Default::default() }, &list)
    };
    for (fmt_pinfo, usage, expected) in
        [(3, Some(1), 0x05), (0, None, 0x00), (2, None, 0x01), (0, Some(0), 0x00), (2, Some(0), 0x01)]
    {
        format(&mut e, fmt_pinfo, usage).good();
        for e in [&mut e, &mut other] {
            assert_eq!(e.clear_attentions(), [Asc::CAPACITY_DATA_HAS_CHANGED]);
            assert_eq!(twelve(e), expected);
        }
        let reply = write(&mut e, 3, 1, &block(1, 2, 3));
        match expected {
            0 => drop(reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB)),
            _ => assert_eq!(
                {
                    reply.good();
                    read(&mut e, 3, 1, 1).good()
                },
                block(1, 2, 3)
            ),
        }
        write(&mut e, 3, 0, &[7; 512]).good();
        assert_eq!(read(&mut e, 3, 1, 0).good(), [7; 512]);
    }
    // Type 2 cannot be had, and there are no others.
    for (fmt_pinfo, usage, asc) in [
        (1, None, Asc::INVALID_FIELD_IN_CDB),
        (3, None, Asc::INVALID_FIELD_IN_CDB),
        (3, Some(0), Asc::INVALID_FIELD_IN_PARAMETER_LIST),
        (3, Some(2), Asc::INVALID_FIELD_IN_PARAMETER_LIST),
        (2, Some(1), Asc::INVALID_FIELD_IN_PARAMETER_LIST),
        (0, Some(1), Asc::INVALID_FIELD_IN_PARAMETER_LIST),
    ] {
        format(&mut e, fmt_pinfo, usage).check(SenseKey::IllegalRequest, asc);
    }
    assert_eq!(twelve(&mut e), 0x01, "as it was");
}

#[test]
fn reserved_values_and_short_output() {
    let (mut e, ..) = unit(Type1);
    for kind in [
        IoKind::Read,
        IoKind::Write,
        IoKind::WriteAtomic,
        IoKind::WriteAndVerify,
        IoKind::Verify,
        IoKind::OrWrite,
        IoKind::CompareAndWrite,
        IoKind::WriteSame,
    ] {
        for protect in [6, 7] {
            let reply = e.io(io(kind, 0, 1, protect), 520, &[0; 1040]);
            let sense = reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
            let pointer = sense.field_pointer().unwrap();
            assert_eq!((pointer.in_cdb, pointer.byte, pointer.bit), (true, 1, Some(7)), "{kind:?}");
        }
        // A reserved bit elsewhere is still one, with WRPROTECT or without.
        let mut cdb = Cdb::from(io(kind, 0, 1, 1).command().unwrap()).encode().to_vec();
        let last = cdb.len() - 1;
        cdb[last] |= 0x20;
        let sense = e.raw(&cdb, 520, &[]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        assert_eq!(sense.field_pointer().map(|p| p.byte), Some(last as u16));
    }
    // Whole blocks of 520 bytes are taken, parts are not.
    let reply = e.io(io(IoKind::Write, 0, 2, 1), 0, &block(1, 2, 0));
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 1040));
    assert_eq!(stored(&mut e, 0, 1), block(1, 2, 0));
    let reply = e.io(io(IoKind::Write, 0, 2, 1), 0, &[0; 1024]);
    reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
    assert!(read(&mut e, 0, 0, 1).good().is_empty());
    assert!(write(&mut e, 0, 1, &[]).is_good());
}

#[test]
fn in_a_file_and_after_a_restart() {
    use crate::block::{FileDisk, FileOptions, ProtectedDisk};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let start = || {
        let options = FileOptions { create: Some(1 << 20), ..FileOptions::default() };
        let file = FileDisk::open(&path, &options).unwrap();
        let disk = ProtectedDisk::open(Box::new(file), dir.path().join("tags"), Some(Type1)).unwrap();
        let (target, unit) = target_over(UnitConfig::new("file"), Box::new(disk));
        let mut e = Engine::new(&target, 1);
        e.clear_attentions();
        (e, target, unit)
    };
    let (mut e, target, one) = start();
    write(&mut e, 9, 1, &blocks(9, &[1, 2, 3], 0x1122)).good();
    e.none(SynchronizeCache10::default()).good();
    drop((e, target, one));
    // Somebody changes a byte behind the target's back.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10 * 512 + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (mut e, ..) = start();
    assert_eq!(read(&mut e, 9, 1, 1).good(), block(1, 0x1122, 9));
    failed(read(&mut e, 9, 3, 0), GUARD, 10);
    failed(read(&mut e, 9, 3, 1), GUARD, 10);
    write(&mut e, 10, 0, &[5; 512]).good();
    assert_eq!(
        read(&mut e, 9, 3, 1).good(),
        [block(1, 0x1122, 9), block(5, 0, 10), block(3, 0x1122, 11)].concat()
    );
}

/// MODE SELECT(10) of the Control page with ATO and ATMPE, and of the Application Tag page with these descriptors: LAST,
/// tag, first block, blocks.
fn tagging(e: &mut Engine, descriptors: &[(u8, u16, u64, u64)]) -> Reply {
    let mut list = vec![0; 8];
    list.extend([0x0a, 10, 0x20, 0x10, 0, 0xe0, 0, 0, 0, 0, 0, 0]);
    list.extend([0x4a, 0x02, 0, 108]);
    list.extend([0; 12]);
    for (last, tag, lba, blocks) in descriptors {
        list.extend([*last, 0, 0, 0, 0, 0]);
        list.extend(tag.to_be_bytes());
        list.extend(lba.to_be_bytes());
        list.extend(blocks.to_be_bytes());
    }
    list.resize(8 + 12 + 112, 0);
    let select = ModeSelect10 { pf: true, parameter_list_length: list.len() as u16, ..Default::default() };
    e.output(select, &list)
}

// SBC-3, Application Tag mode page, and the tables of RDPROTECT and WRPROTECT with APP_CHK 1.
#[test]
fn application_tags_are_checked() {
    for kind in [Type1, Type3] {
        let (mut e, ..) = unit(kind);
        let reference = |lba: u64| if kind == Type1 { lba as u32 } else { 0xffff_ffff };
        write(&mut e, 40, 1, &block(9, 0x7777, reference(40))).good();
        // Nobody knows them: they are not checked.
        read(&mut e, 40, 1, 1).good();
        tagging(&mut e, &[(0, 0x1111, 0, 100), (0x80, 0x2222, 100, 3996)]).good();
        // Output is checked where the field says so, block by block.
        write(&mut e, 99, 1, &block(1, 0x1111, reference(99))).good();
        let two = [block(1, 0x1111, reference(99)), block(2, 0x2222, reference(100))].concat();
        for field in [1, 2, 5] {
            write(&mut e, 99, field, &two).good();
            failed(write(&mut e, 100, field, &block(3, 0x1111, reference(100))), APPLICATION, 100);
            failed(read(&mut e, 40, 1, field), APPLICATION, 40);
        }
        failed(read(&mut e, 40, 1, 0), APPLICATION, 40);
        for field in [3, 4] {
            read(&mut e, 40, 1, field).good();
            write(&mut e, 41, field, &block(3, 0x7777, reference(41))).good();
        }
        // VERIFY without output checks the medium.
        failed(e.io(io(IoKind::Verify, 40, 1, 1), 0, &[]), APPLICATION, 40);
        // Blocks that come without get theirs; what was never written has none.
        write(&mut e, 98, 0, &[7; 3 * 512]).good();
        let found = stored(&mut e, 98, 3);
        let tags: Vec<_> = found.chunks(520).map(|b| u16::from_be_bytes([b[514], b[515]])).collect();
        assert_eq!(tags, [0x1111, 0x1111, 0x2222]);
        read(&mut e, 98, 3, 1).good();
        read(&mut e, 2000, 1, 1).good();
        // Guards come first, application tags before reference tags (of type 1).
        let mut broken = block(4, 0x7777, reference(50));
        broken[512] ^= 1;
        failed(write(&mut e, 50, 1, &broken), GUARD, 50);
        if kind == Type1 {
            failed(write(&mut e, 50, 1, &block(4, 0x7777, 51)), APPLICATION, 50);
            failed(write(&mut e, 50, 1, &block(4, 0x1111, 51)), REFERENCE, 50);
        }
        // Without ATMPE the page does not count.
        owning(&mut e);
        read(&mut e, 40, 1, 1).good();
    }
}

#[test]
fn application_tags_have_to_cover_the_unit() {
    let (mut e, ..) = unit(Type1);
    // Where a descriptor is in the list: after the header, the Control page, and the page's own 16 bytes.
    let at = |descriptor: u16, byte: u16| 8 + 12 + 16 + descriptor * 24 + byte;
    for (descriptors, byte) in [
        (&[][..], at(3, 0)),
        (&[(0, 1, 0, 100)], at(3, 0)),
        (&[(0x80, 1, 1, 4095)], at(0, 8)),
        (&[(0x80, 1, 0, 4094)], at(0, 16)),
        (&[(0x80, 1, 0, 4097)], at(0, 16)),
        (&[(0, 1, 0, 100), (0x80, 2, 101, 3995)], at(1, 8)),
        (&[(0, 1, 0, 4096), (0x80, 2, 4096, 0)], at(0, 16)),
        (&[(0, 1, 0, 100), (0x80, 2, 100, u64::MAX)], at(1, 16)),
    ] {
        let sense = tagging(&mut e, descriptors)
            .check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
        assert_eq!(
            sense.field_pointer().map(|p| (p.in_cdb, p.byte)),
            Some((false, byte)),
            "{descriptors:x?}"
        );
    }
    // To the RETURNED LOGICAL BLOCK ADDRESS, as the standard has it, or to the last block.
    for end in [4095, 4096] {
        tagging(&mut e, &[(0x80, 0x1234, 0, end)]).good();
        write(&mut e, 4095, 1, &block(1, 0x1234, 4095)).good();
        failed(write(&mut e, 4095, 1, &block(1, 0x1235, 4095)), APPLICATION, 4095);
    }
    // What MODE SENSE returns, MODE SELECT takes; a unit without room for tags has no such page.
    let sense = ModeSense10 {
        dbd: true,
        page_code: 0x0a,
        subpage_code: 2,
        allocation_length: 255,
        ..Default::default()
    };
    let mut list = e.input(sense, 255).good();
    assert_eq!(list.len(), 8 + 112);
    list[..8].fill(0);
    let select = ModeSelect10 { pf: true, parameter_list_length: 120, ..Default::default() };
    e.output(select, &list).good();
    let (mut plain, ..) = ready();
    let refused = plain.input(sense, 255).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    assert_eq!(refused.field_pointer().map(|p| p.byte), Some(3));
    plain.output(select, &list).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
}
