//! Log pages: what they count, byte by byte (SPC-4 clause 7.3).

use super::*;
use crate::nexus::tests::Engine;

fn page(e: &mut Engine, page_code: u8, page_control: u8, pointer: u16) -> Vec<u8> {
    let sense = LogSense {
        page_code,
        page_control,
        parameter_pointer: pointer,
        allocation_length: 1024,
        ..Default::default()
    };
    e.input(sense, 1024).good()
}

/// An error counter page with these bytes processed and errors.
fn errors(code: u8, bytes: u64, errors: u64) -> Vec<u8> {
    let mut page = vec![0x80 | code, 0, 0, 36];
    for (parameter, value) in [(3, 0), (5, bytes), (6, errors)] {
        page.extend([0, parameter, 0x02, 8]);
        page.extend(value.to_be_bytes());
    }
    page
}

fn statistics(reads: u64, writes: u64, received: u64, transmitted: u64) -> Vec<u8> {
    let mut page = vec![0x99, 0, 0, 68, 0, 1, 0x03, 64];
    [reads, writes, received, transmitted].iter().for_each(|n| page.extend(n.to_be_bytes()));
    page.resize(72, 0);
    page
}

#[test]
fn pages_say_which_there_are() {
    let (mut e, ..) = ready();
    assert_eq!(page(&mut e, 0, 1, 0), [0, 0, 0, 8, 0, 2, 3, 5, 0x0e, 0x10, 0x19, 0x2f]);
    let sense = LogSense { subpage_code: 0xff, allocation_length: 64, ..Default::default() };
    let pairs = [0, 0, 0, 0xff, 2, 0, 3, 0, 5, 0, 0x0e, 0, 0x10, 0, 0x19, 0, 0x2f, 0];
    assert_eq!(e.input(sense, 64).good(), [&[0x40, 0xff, 0, 18][..], &pairs].concat());
}

#[test]
fn work_is_counted_whoever_did_it() {
    let (mut e, target, _) = ready();
    let mut other = Engine::new(&target, 2);
    other.clear_attentions();
    assert_eq!(page(&mut e, 0x19, 1, 0), statistics(0, 0, 0, 0));
    e.io(BlockIo::new(IoKind::Write, 0, 8), 0, &[0; 4096]).good();
    e.io(BlockIo::new(IoKind::WriteAndVerify, 0, 3), 0, &[0; 1536]).good();
    e.io(BlockIo::new(IoKind::Verify, 0, 5), 0, &[]).good();
    other.io(BlockIo::new(IoKind::Read, 0, 2), 1024, &[]).good();
    // What was refused has done nothing.
    e.io(BlockIo::new(IoKind::Read, 4096, 1), 512, &[])
        .check(SenseKey::IllegalRequest, Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    // A nexus that is gone has done what it did.
    drop(other);
    assert_eq!(page(&mut e, 0x19, 1, 0), statistics(1, 2, 11, 2));
    assert_eq!(page(&mut e, 0x02, 1, 0), errors(2, 11 * 512, 0));
    assert_eq!(page(&mut e, 0x03, 1, 0), errors(3, 2 * 512, 0));
    assert_eq!(page(&mut e, 0x05, 1, 0), errors(5, 8 * 512, 0));
    assert_eq!(page(&mut e, 0x02, 3, 0), errors(2, 0, 0), "default values");
    // From a parameter on, and the thresholds that there are not.
    assert_eq!(page(&mut e, 0x03, 1, 6), [&[0x83, 0, 0, 12][..], &errors(3, 0, 0)[28..]].concat());
    for page_control in [0, 2] {
        let sense = LogSense { page_code: 2, page_control, allocation_length: 64, ..Default::default() };
        let sense = e.input(sense, 64).check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_CDB);
        assert_eq!(sense.field_pointer().map(|p| (p.byte, p.bit)), Some((2, Some(7))));
    }
}

#[test]
fn errors_of_the_medium_are_counted() {
    use scsi_cmd::protection::ProtectionType::Type1;
    let disk = RamDisk::new(512, 2048).with_protection(Some(Type1));
    let (target, _) = target_over(UnitConfig::new("errors"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    // A guard that does not fit.
    let wrong = [&[1; 512][..], &[0; 8]].concat();
    e.io(BlockIo { protect: 3, ..BlockIo::new(IoKind::Write, 0, 1) }, 0, &wrong).good();
    let failed = Asc::LOGICAL_BLOCK_GUARD_CHECK_FAILED;
    e.io(BlockIo::new(IoKind::Read, 0, 1), 512, &[]).check(SenseKey::AbortedCommand, failed);
    e.io(BlockIo::new(IoKind::Verify, 0, 1), 0, &[]).check(SenseKey::AbortedCommand, failed);
    e.io(BlockIo { protect: 1, ..BlockIo::new(IoKind::Write, 0, 1) }, 0, &wrong)
        .check(SenseKey::AbortedCommand, failed);
    e.io(BlockIo { protect: 3, ..BlockIo::new(IoKind::Read, 0, 1) }, 520, &[]).good();
    assert_eq!(page(&mut e, 0x02, 1, 0), errors(2, 512, 1), "blocks, whatever goes with them");
    assert_eq!(page(&mut e, 0x03, 1, 0), errors(3, 512, 1));
    assert_eq!(page(&mut e, 0x05, 1, 0), errors(5, 0, 1));
}

#[test]
fn counters_are_set_to_zero() {
    let (mut e, target, _) = ready();
    let mut other = Engine::new(&target, 2);
    other.clear_attentions();
    e.io(BlockIo::new(IoKind::Write, 0, 8), 0, &[0; 4096]).good();
    e.io(BlockIo::new(IoKind::Read, 0, 8), 4096, &[]).good();
    e.none(LogSelect { pcr: true, page_control: 1, page_code: 2, ..Default::default() }).good();
    assert_eq!(other.clear_attentions(), [Asc::LOG_PARAMETERS_CHANGED]);
    assert_eq!(e.clear_attentions(), []);
    assert_eq!(page(&mut e, 0x02, 1, 0), errors(2, 0, 0));
    assert_eq!(page(&mut e, 0x03, 1, 0), errors(3, 4096, 0), "another page");
    assert_eq!(page(&mut e, 0x19, 1, 0), statistics(1, 1, 8, 8));
    e.none(LogSelect { page_control: 1, ..Default::default() }).good();
    assert_eq!(page(&mut e, 0x03, 1, 0), errors(3, 4096, 0), "without PCR nothing");
    e.none(LogSelect { pcr: true, page_control: 1, ..Default::default() }).good();
    e.io(BlockIo::new(IoKind::Write, 0, 1), 0, &[0; 512]).good();
    assert_eq!(page(&mut e, 0x03, 1, 0), errors(3, 0, 0));
    assert_eq!(page(&mut e, 0x19, 1, 0), statistics(0, 1, 1, 0));
}

#[test]
fn cycles_are_counted() {
    let config = UnitConfig { removable: true, ..UnitConfig::new("cycles") };
    let (target, _) = target_over(config, Box::new(RamDisk::new(512, 2048)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    for (start, loej) in [(false, false), (true, false), (true, false), (false, true), (true, true)] {
        e.none(StartStopUnit { start, loej, ..Default::default() }).good();
    }
    let expected = [0x8e, 0, 0, 16, 0, 4, 3, 4, 0, 0, 0, 1, 0, 6, 3, 4, 0, 0, 0, 1];
    assert_eq!(page(&mut e, 0x0e, 1, 0), expected);
}
