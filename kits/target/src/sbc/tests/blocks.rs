//! Commands on blocks: what they do to the medium.

use super::*;
use crate::block::{FileDisk, FileOptions};
use crate::nexus::tests::Engine;
use scsi_cmd::provisioning::{LbaStatusList, ProvisioningStatus, UnmapDescriptor, UnmapList};

fn write(e: &mut Engine, lba: u64, data: &[u8]) {
    e.io(BlockIo::new(IoKind::Write, lba, (data.len() / 512) as u32), 0, data).good();
}

fn read(e: &mut Engine, lba: u64, blocks: u32) -> Vec<u8> {
    e.io(BlockIo::new(IoKind::Read, lba, blocks), blocks * 512, &[]).good()
}

#[test]
fn every_cdb_size_reaches_the_same_blocks() {
    let (mut e, ..) = ready();
    let data: Vec<u8> = (0..1024u32).map(|n| n as u8).collect();
    let writes: [Command; 4] = [
        Write6 { lba: 9, blocks: 2 }.into(),
        Write10 { lba: 9, blocks: 2, ..Default::default() }.into(),
        Write12 { lba: 9, blocks: 2, ..Default::default() }.into(),
        Write16 { lba: 9, blocks: 2, ..Default::default() }.into(),
    ];
    let reads: [Command; 4] = [
        Read6 { lba: 9, blocks: 2 }.into(),
        Read10 { lba: 9, blocks: 2, ..Default::default() }.into(),
        Read12 { lba: 9, blocks: 2, ..Default::default() }.into(),
        Read16 { lba: 9, blocks: 2, ..Default::default() }.into(),
    ];
    for (n, (write, read)) in writes.into_iter().zip(reads).enumerate() {
        let data: Vec<u8> = data.iter().map(|b| b ^ n as u8).collect();
        e.output(write, &data).good();
        assert_eq!(e.input(read, 1024).good(), data);
    }
    // READ(6) of 0 blocks is 256.
    assert_eq!(e.input(Read6::default(), 256 * 512).good().len(), 256 * 512);
}

#[test]
fn verifying() {
    let (mut e, ..) = ready();
    write(&mut e, 0, &[1; 4096]);
    let verify = |bytchk, blocks| Command::from(Verify10 { bytchk, blocks, ..Default::default() });
    assert!(e.none(verify(0, 8)).is_good());
    assert!(e.output(verify(1, 8), &[1; 4096]).is_good());
    assert!(e.output(verify(3, 8), &[1; 512]).is_good(), "each block with the one");
    let mut other = vec![1; 4096];
    other[5 * 512 + 7] = 2;
    let sense =
        e.output(verify(1, 8), &other).check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(5), "the block that differs");
    write(&mut e, 3, &[9; 512]);
    let sense = e
        .output(verify(3, 8), &[1; 512])
        .check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(3));
    let pointer =
        e.none(verify(2, 1)).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB).field_pointer();
    assert_eq!(pointer.map(|p| (p.byte, p.bit)), Some((1, Some(2))));
}

#[test]
fn writing_and_verifying() {
    let (mut e, ..) = ready();
    for bytchk in [0, 1] {
        let command = WriteAndVerify10 { bytchk, lba: 4, blocks: 2, ..Default::default() };
        assert!(e.output(command, &[bytchk + 5; 1024]).is_good());
        assert_eq!(read(&mut e, 4, 2), [bytchk + 5; 1024]);
    }
    // Residuals as those of WRITE.
    let command = Command::from(WriteAndVerify10 { lba: 4, blocks: 2, ..Default::default() });
    let reply = e.output(command.clone(), &[7; 512]);
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 1024));
    assert_eq!(read(&mut e, 4, 2), [[7; 512], [6; 512]].concat());
    let reply = e.none(command.clone());
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 1024));
    let reply = e.output(command, &[7; 700]);
    assert_eq!(reply.outcome.write_length, 1024);
    reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
}

#[test]
fn comparing_and_writing() {
    let (mut e, ..) = ready();
    write(&mut e, 10, &[1; 1024]);
    let caw = Command::from(CompareAndWrite { lba: 10, blocks: 2, ..Default::default() });
    assert!(e.output(caw.clone(), &[vec![1; 1024], vec![2; 1024]].concat()).is_good());
    assert_eq!(read(&mut e, 10, 2), [2; 1024]);
    let mut wrong = [vec![2; 1024], vec![3; 1024]].concat();
    wrong[700] = 0;
    let sense = e.output(caw, &wrong).check(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(700), "offset of the first byte that differs");
    assert_eq!(read(&mut e, 10, 2), [2; 1024], "nothing is written");
}

#[test]
fn or_writing() {
    let (mut e, ..) = ready();
    write(&mut e, 0, &[0x0f; 1024]);
    let or = OrWrite16 { lba: 0, blocks: 2, ..Default::default() };
    assert!(e.output(or, &[0x51; 1024]).is_good());
    assert_eq!(read(&mut e, 0, 2), [0x5f; 1024]);
}

#[test]
fn writing_the_same() {
    let (mut e, _, unit) = ready();
    let block: Vec<u8> = (0..512u32).map(|n| (n % 7) as u8 + 1).collect();
    write(&mut e, 0, &[9; 4096]);
    assert!(e.output(WriteSame10 { lba: 1, blocks: 6, ..Default::default() }, &block).is_good());
    assert_eq!(read(&mut e, 0, 8), [vec![9; 512], block.repeat(6), vec![9; 512]].concat());
    // 0 blocks: up to the end.
    assert!(e.output(WriteSame16 { lba: 2, ..Default::default() }, &block).is_good());
    assert_eq!(read(&mut e, 2040, 8), block.repeat(8));
    assert_eq!(read(&mut e, 2, 1), block);
    // NDOB: zeros without output. UNMAP of zeros gives the blocks back.
    assert!(e.none(WriteSame16 { lba: 8, blocks: 2, ndob: true, ..Default::default() }).is_good());
    assert_eq!(read(&mut e, 7, 4), [block.clone(), vec![0; 1024], block.clone()].concat());
    assert!(e.output(WriteSame16 { lba: 0, unmap: true, ..Default::default() }, &[0; 512]).is_good());
    assert_eq!(read(&mut e, 100, 8), [0; 4096]);
    assert_eq!(status(&mut e, 0)[0], (0, 2048, ProvisioningStatus::Deallocated));
    assert_eq!(unit.blocks(), 2048);
    // UNMAP of anything else writes it: LBPRZ says that unmapped blocks are zeros.
    assert!(e.output(WriteSame16 { lba: 4, blocks: 2, unmap: true, ..Default::default() }, &block).is_good());
    assert_eq!(read(&mut e, 3, 4), [vec![0; 512], block.repeat(2), vec![0; 512]].concat());
    assert_eq!(status(&mut e, 4)[0], (4, 2, ProvisioningStatus::Mapped));
    let anchor = WriteSame16 { anchor: true, unmap: true, blocks: 1, ..Default::default() };
    e.output(anchor, &[0; 512]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

fn status(e: &mut Engine, lba: u64) -> Vec<(u64, u32, ProvisioningStatus)> {
    let data = e.input(GetLbaStatus { lba, allocation_length: 1024 }, 1024).good();
    LbaStatusList::decode(&data).unwrap().0.into_iter().map(|s| (s.lba, s.blocks, s.status)).collect()
}

#[test]
fn unmapping() {
    let (mut e, ..) = ready();
    write(&mut e, 0, &[1; 64 * 512]);
    let list = UnmapList(vec![
        UnmapDescriptor { lba: 4, blocks: 2 },
        UnmapDescriptor { lba: 10, blocks: 0 },
        UnmapDescriptor { lba: 20, blocks: 8 },
    ]);
    let bytes = list.encode();
    let unmap = Unmap { parameter_list_length: bytes.len() as u16, ..Default::default() };
    assert!(e.output(unmap, &bytes).is_good());
    assert_eq!(read(&mut e, 3, 4), [vec![1; 512], vec![0; 1024], vec![1; 512]].concat());
    use ProvisioningStatus as P;
    let expected = [
        (0, 4, P::Mapped),
        (4, 2, P::Deallocated),
        (6, 14, P::Mapped),
        (20, 8, P::Deallocated),
        (28, 36, P::Mapped),
        (64, 1984, P::Deallocated),
    ];
    assert_eq!(status(&mut e, 0), expected);
    assert_eq!(status(&mut e, 5)[0], (5, 1, P::Deallocated));
    // Room for one descriptor.
    let data = e.input(GetLbaStatus { lba: 0, allocation_length: 24 }, 24).good();
    assert_eq!(data.len(), 24);
    // A descriptor beyond the end: nothing is unmapped at all.
    let list =
        UnmapList(vec![UnmapDescriptor { lba: 0, blocks: 1 }, UnmapDescriptor { lba: 2047, blocks: 2 }])
            .encode();
    let unmap = Unmap { parameter_list_length: list.len() as u16, ..Default::default() };
    e.output(unmap, &list).check(SenseKey::IllegalRequest, Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    assert_eq!(read(&mut e, 0, 1), [1; 512]);
    // More descriptors than the Block Limits page allows.
    let list = UnmapList(vec![UnmapDescriptor { lba: 0, blocks: 1 }; 257]).encode();
    let unmap = Unmap { parameter_list_length: list.len() as u16, ..Default::default() };
    e.output(unmap, &list).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_PARAMETER_LIST);
}

#[test]
fn a_unit_that_is_not_thin() {
    let config = UnitConfig { thin: false, ..UnitConfig::new("thick") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    e.none(Unmap::default()).check(SenseKey::IllegalRequest, Asc::INVALID_COMMAND_OPERATION_CODE);
    e.none(GetLbaStatus::default()).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    let unmap = WriteSame16 { unmap: true, blocks: 1, ..Default::default() };
    e.output(unmap, &[0; 512]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
}

#[test]
fn writing_atomically() {
    let (mut e, ..) = ready();
    let data = vec![3; 2048 * 512];
    assert!(e.output(WriteAtomic16 { blocks: 2048, ..Default::default() }, &data).is_good());
    assert_eq!(read(&mut e, 0, 2048), data);
    let boundary = WriteAtomic16 { blocks: 1, atomic_boundary: 1, ..Default::default() };
    e.output(boundary, &[0; 512]).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
    // A file promises nothing of the kind.
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions { create: Some(1 << 20), ..FileOptions::default() };
    let disk = FileDisk::open(dir.path().join("d"), &options).unwrap();
    let (target, _) = target_over(UnitConfig::new("f"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let atomic = WriteAtomic16 { blocks: 1, ..Default::default() };
    e.output(atomic, &[0; 512]).check(SenseKey::IllegalRequest, Asc::INVALID_COMMAND_OPERATION_CODE);
}

// The whole of it over a device that waits: threads, buffers of the pool, operations in pieces.
#[test]
fn blocks_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions { create: Some(64 << 20), ..FileOptions::default() };
    let disk = FileDisk::open(dir.path().join("d"), &options).unwrap();
    let (target, unit) = target_over(UnitConfig::new("f"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let data: Vec<u8> = (0..9 << 20).map(|n: u32| (n / 512) as u8 ^ (n >> 16) as u8).collect();
    let blocks = (data.len() / 512) as u32;
    e.io(BlockIo::new(IoKind::Write, 8, blocks), 0, &data).good();
    e.io(BlockIo::new(IoKind::Write, 0, 1).fua(true), 0, &[5; 512]).good();
    e.none(SynchronizeCache10::default()).good();
    assert!(read(&mut e, 8, blocks) == data);
    assert!(e.io(BlockIo { bytchk: 1, ..BlockIo::new(IoKind::Verify, 8, blocks) }, 0, &data).is_good());
    drop(e);
    unit.flush().unwrap();
    let on_disk = std::fs::read(dir.path().join("d")).unwrap();
    assert!(on_disk[4096..4096 + data.len()] == data);
    assert_eq!(on_disk[..512], [5; 512]);
}

#[test]
fn defect_lists_are_empty() {
    let (mut e, ..) = ready();
    let ten = ReadDefectData10 { req_plist: true, allocation_length: 8, ..Default::default() };
    assert_eq!(e.input(ten, 8).good(), [0, 0x10, 0, 0]);
    let twelve = ReadDefectData12 {
        req_glist: true,
        defect_list_format: 5,
        allocation_length: 8,
        ..Default::default()
    };
    assert_eq!(e.input(twelve, 8).good(), [0, 0x0d, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_read_only_unit() {
    let config = UnitConfig { read_only: true, ..UnitConfig::new("ro") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    for row in crate::sbc::table::rows(&target.unit(0).unwrap()).filter(|r| r.writes()) {
        let mut cdb: Vec<u8> = vec![0; row.accepted().count()];
        cdb[0] = row.op;
        cdb[1] = row.service_action.unwrap_or(0) as u8;
        e.raw(&cdb, 0, &[]).check(SenseKey::DataProtect, Asc::WRITE_PROTECTED);
    }
    assert_eq!(read(&mut e, 0, 1), [0; 512]);
    let sense = e.input(ModeSense6 { page_code: 8, allocation_length: 64, ..Default::default() }, 64).good();
    assert_eq!(sense[2] & 0x80, 0x80, "WP");
}
