//! What devices with protection information promise beyond the rest.

use super::{pattern, patterns};
use crate::block::{Action, BlockDevice, BlockError, Blocking, Geometry, Payload, TAG, guard};
use bytes::Bytes;
use datamover::{IoBuf, SgListMut};
use scsi_cmd::protection::ProtectionInformation;

/// Protection information as an initiator makes it.
fn tags(lba: u64, data: &[u8], block_size: u32, application_tag: u16) -> Vec<u8> {
    let blocks = (lba..).zip(data.chunks_exact(block_size as usize));
    blocks
        .flat_map(|(lba, data)| {
            let reference_tag = lba as u32;
            ProtectionInformation { guard: guard(data), application_tag, reference_tag }.encode()
        })
        .collect()
}

fn write(disk: &mut Blocking, lba: u64, data: Vec<u8>, tags: Vec<u8>, fua: bool) -> Result<(), BlockError> {
    let action = Action::WriteProtected { lba, data: Bytes::from(data).into(), tags: tags.into(), fua };
    disk.run(action).map(drop)
}

fn read(disk: &mut Blocking, lba: u64, blocks: u32) -> Result<(Vec<u8>, Vec<u8>), BlockError> {
    let Geometry { block_size, lends_reads, .. } = disk.device().geometry();
    let into = match lends_reads {
        true => SgListMut::new(),
        false => IoBuf::zeroed((blocks * block_size) as usize).into(),
    };
    match disk.run(Action::ReadProtected { lba, blocks, into })? {
        Payload::Protected { data, tags } => Ok((data.to_bytes().to_vec(), tags)),
        other => panic!("a protected read ends with both, not {other:?}"),
    }
}

pub(super) fn check(mut open: impl FnMut() -> Box<dyn BlockDevice>) {
    if open().geometry().protection.is_none() {
        return;
    }
    data_and_tags(open());
    without_tags(open());
    other_types(open());
    never_mixed(open());
}

fn data_and_tags(device: Box<dyn BlockDevice>) {
    let size = device.geometry().block_size;
    let mut disk = Blocking::new(device);
    let end = disk.device().geometry().blocks;
    assert_eq!(read(&mut disk, 0, 3).unwrap().1, [0xff; 3 * TAG], "no block has any at first");
    for (n, (lba, blocks)) in (1..).zip([(5, 1), (120, 300), (end - 2, 2), (130, 3)]) {
        let data = patterns(lba, blocks, u64::from(n), size);
        let tags = tags(lba, &data, size, n);
        write(&mut disk, lba, data.clone(), tags.clone(), n == 3).unwrap();
        assert_eq!(read(&mut disk, lba, blocks as u32).unwrap(), (data, tags));
    }
    let (data, found) = read(&mut disk, 129, 5).unwrap();
    let expected = [patterns(129, 1, 2, size), patterns(130, 3, 4, size), patterns(133, 1, 2, size)].concat();
    assert_eq!(data, expected);
    let (around, within) = (&expected[..], &expected[size as usize..4 * size as usize]);
    let mut whole = tags(129, around, size, 2);
    whole[TAG..4 * TAG].copy_from_slice(&tags(130, within, size, 4));
    assert_eq!(found, whole, "neighbours keep theirs");
    let beyond = patterns(end - 1, 2, 9, size);
    let tags = tags(end - 1, &beyond, size, 9);
    assert_eq!(write(&mut disk, end - 1, beyond, tags, false).unwrap_err(), BlockError::OutOfRange);
    assert_eq!(read(&mut disk, end - 1, 1).unwrap().1[3], 3, "nothing was written");
    assert_eq!(read(&mut disk, end, 1).unwrap_err(), BlockError::OutOfRange);
}

fn without_tags(device: Box<dyn BlockDevice>) {
    let Geometry { block_size: size, unmap, .. } = device.geometry();
    let mut disk = Blocking::new(device);
    let blocks = 900;
    let data = patterns(0, blocks, 1, size);
    let all = tags(0, &data, size, 1);
    write(&mut disk, 0, data, all.clone(), false).unwrap();
    disk.write(1, &pattern(1, 2, size)).unwrap();
    disk.run(Action::Zero { lba: 3, blocks: 2, unmap: false, fua: true }).unwrap();
    disk.run(Action::Zero { lba: 300, blocks: 300, unmap: true, fua: false }).unwrap();
    let mut expected = all;
    let mut without = |lba: usize, blocks: usize| expected[lba * TAG..(lba + blocks) * TAG].fill(0xff);
    without(1, 1);
    without(3, 2);
    without(300, 300);
    if unmap.is_some() {
        disk.run(Action::Unmap { lba: 700, blocks: 10 }).unwrap();
        without(700, 10);
    }
    assert_eq!(read(&mut disk, 0, blocks as u32).unwrap().1, expected);
    disk.flush().unwrap();
}

fn other_types(device: Box<dyn BlockDevice>) {
    let Geometry { block_size: size, protection, protectable, .. } = device.geometry();
    assert!(protectable);
    let mut disk = Blocking::new(device);
    write(&mut disk, 7, pattern(7, 1, size), vec![3; TAG], false).unwrap();
    disk.run(Action::Protect(None)).unwrap();
    assert_eq!(disk.device().geometry().protection, None);
    assert_eq!(disk.read(7, 1).unwrap().to_bytes(), pattern(7, 1, size), "data are not its matter");
    disk.run(Action::Protect(protection)).unwrap();
    assert_eq!(disk.device().geometry().protection, protection);
    assert_eq!(read(&mut disk, 7, 1).unwrap().1, [0xff; TAG], "forgotten");
}

/// Two writers and a reader: what is read together was written together.
fn never_mixed(device: Box<dyn BlockDevice>) {
    let size = device.geometry().block_size;
    let [a, b] = [1, 2].map(|n| (n, device.handle().expect("a handle")));
    std::thread::scope(|scope| {
        for (n, handle) in [a, b] {
            scope.spawn(move || {
                let mut disk = Blocking::new(handle);
                for round in 0..60u64 {
                    let lba = round % 3;
                    let data = patterns(lba, 4, round * 2 + n, size);
                    let tags = tags(lba, &data, size, n as u16);
                    write(&mut disk, lba, data, tags, false).unwrap();
                }
            });
        }
        let mut disk = Blocking::new(device);
        for _ in 0..120 {
            let (data, tags) = read(&mut disk, 0, 6).unwrap();
            for (data, tag) in data.chunks(size as usize).zip(tags.chunks(TAG)) {
                let pi = ProtectionInformation::decode(tag);
                let written = pi.application_tag != 0xffff;
                assert!(!written || pi.guard == guard(data), "data of one write, tags of another");
            }
        }
    });
}
