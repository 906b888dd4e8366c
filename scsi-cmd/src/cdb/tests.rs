use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

// CDBs as the Linux initiator and libiscsi send them, with what they mean.
#[test]
fn cdbs_as_peers_send_them() {
    let decode = |bytes: &[u8]| Cdb::decode(bytes).unwrap().command;
    assert_eq!(
        decode(&hex::decode("28000000080000000800").unwrap()),
        Read10 { lba: 0x800, blocks: 8, ..Read10::default() }.into()
    );
    // WRITE(10) with DPO and FUA.
    assert_eq!(
        decode(&hex::decode("2a180000000100000200").unwrap()),
        Write10 { dpo: true, fua: true, lba: 1, blocks: 2, ..Write10::default() }.into()
    );
    assert_eq!(
        decode(&hex::decode("8a0800000001000000000000001000000000000000000000").unwrap()),
        Write16 { fua: true, lba: 0x1_0000_0000, blocks: 0x10, ..Write16::default() }.into()
    );
    assert_eq!(
        decode(&hex::decode("9e100000000000000000000000200000").unwrap()),
        ReadCapacity16 { allocation_length: 32, ..ReadCapacity16::default() }.into()
    );
    assert_eq!(
        decode(&hex::decode("1a083f00ff00").unwrap()),
        ModeSense6 { dbd: true, page_code: 0x3f, allocation_length: 255, ..ModeSense6::default() }.into()
    );
    assert_eq!(
        decode(&hex::decode("a30c038a0000000002000000").unwrap()),
        ReportSupportedOpCodes {
            reporting_options: 3,
            requested_op_code: 0x8a,
            allocation_length: 512,
            ..ReportSupportedOpCodes::default()
        }
        .into()
    );
    assert_eq!(
        decode(&hex::decode("5f0105000000000018 00".replace(' ', "")).unwrap()),
        PersistentReserveOut { service_action: 1, pr_type: 5, parameter_list_length: 24, scope: 0 }.into()
    );
    // VERIFY(16), BYTCHK 01b.
    assert_eq!(
        decode(&hex::decode("8f020000000000000000000000010000").unwrap()),
        Verify16 { bytchk: 1, blocks: 1, ..Verify16::default() }.into()
    );
    assert_eq!(
        decode(&hex::decode("890000000000000000ff000000010000").unwrap()),
        CompareAndWrite { lba: 0xff, blocks: 1, ..CompareAndWrite::default() }.into()
    );
}

#[test]
fn six_byte_transfers() {
    // 21 bits of LBA; a TRANSFER LENGTH of 0 is 256 blocks.
    let read = Cdb::decode(&[0x08, 0xff, 0xff, 0xff, 0x00, 0x00]).unwrap();
    assert_eq!(read.command, Command::Read6(Read6 { lba: 0x1f_ffff, blocks: 0 }));
    assert_eq!(read.command.block_io().map(|io| io.blocks), Some(256));
}

#[test]
fn variable_length_cdbs() {
    let mut bytes = [0; 32];
    (bytes[0], bytes[1], bytes[7], bytes[9], bytes[10]) = (0x7f, 0x04, 0x18, 0x0b, 0xe8);
    bytes[19] = 5;
    bytes[31] = 1;
    let cdb = Cdb::decode(&bytes).unwrap();
    assert!(cdb.control.naca());
    let write = Write32 { protect: 7, fua: true, lba: 5, blocks: 1, ..Write32::default() };
    assert_eq!(cdb.command, Command::Write32(write));
    assert_eq!(&*cdb.encode(), &bytes);
    // A known service action with another ADDITIONAL CDB LENGTH.
    bytes[7] = 0x10;
    assert_eq!(Cdb::decode(&bytes), Err(DecodeError { kind: DecodeErrorKind::Length, at: 7 }));
    // An unknown one survives, up to 260 bytes.
    let mut long = [0xa5; MAX_CDB_LEN];
    (long[0], long[7], long[8], long[9]) = (0x7f, 252, 0x88, 0x01);
    assert_eq!(&*Cdb::decode(&long).unwrap().encode(), &long);
    let mut longer = [0xa5; 263];
    (longer[0], longer[7]) = (0x7f, 255);
    assert_eq!(Cdb::decode(&longer), Err(DecodeError { kind: DecodeErrorKind::Length, at: 7 }));
}

#[test]
fn every_prefix_is_truncated() {
    for usage in USAGES {
        for len in 0..usage.len() {
            let error = Cdb::decode(&usage[..len]).unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::Truncated, "{usage:02x?} cut to {len}");
        }
        assert!(Cdb::decode(usage).is_ok());
    }
}

// SPC-4 table 247: byte 0 and the service action by value, a one for each bit that is used.
#[test]
fn usage_data() {
    assert_eq!(Inquiry::USAGE, [0x12, 0x01, 0xff, 0xff, 0xff, 0x00]);
    assert_eq!(Read10::USAGE, [0x28, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x00]);
    assert_eq!(Read6::USAGE, [0x08, 0x1f, 0xff, 0xff, 0xff, 0x00]);
    assert_eq!(
        ReportSupportedOpCodes::USAGE,
        [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]
    );
    assert_eq!(TestUnitReady::USAGE, [0; 6]);
    let all = [0xff; 14];
    let mut read16 = [0xff; 16];
    read16[..2].copy_from_slice(&[0x88, 0xfc]);
    read16[2..14].copy_from_slice(&all[..12]);
    (read16[14], read16[15]) = (0x1f, 0);
    assert_eq!(Read16::USAGE, read16);
}

// req: 7143-10.6-1
#[test]
fn commands_that_change_state() {
    for op in [0x11, 0xa5, 0xb8, 0x2a, 0x5f, 0x1b, 0x42, 0x83, 0xa4] {
        // SPACE, EXCHANGE MEDIUM and others unknown here, and the writing ones.
        assert!(OpCode(op).may_change_state(), "{op:#04x}");
    }
    for op in [0x00, 0x12, 0x28, 0x5e, 0xa0, 0xa3] {
        assert!(!OpCode(op).may_change_state(), "{op:#04x}");
    }
}

#[test]
fn no_two_commands_share_a_key() {
    let mut keys: Vec<_> = USAGES
        .iter()
        .map(|u| {
            let op = OpCode(u[0]);
            (u[0], if op.has_service_action() { service_action(u) } else { 0 })
        })
        .collect();
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all);
}

fn cdb_bytes() -> impl Strategy<Value = Vec<u8>> {
    // Any bytes, and any bytes behind the fixed parts of a command that exists.
    let known =
        (proptest::sample::select(USAGES), prop::collection::vec(any::<u8>(), 32)).prop_map(|(u, r)| {
            let mut bytes: Vec<u8> = u.iter().zip(&r).map(|(usage, random)| usage & random).collect();
            bytes[0] = u[0];
            if u[0] == 0x7f {
                bytes[7..10].copy_from_slice(&u[7..10]);
            } else if OpCode(u[0]).has_service_action() {
                bytes[1] = (bytes[1] & 0xe0) | (u[1] & 0x1f);
            }
            bytes
        });
    prop_oneof![3 => known, 1 => prop::collection::vec(any::<u8>(), 0..280)]
}

proptest! {
    #[test]
    fn decode_then_encode_is_identity(bytes in cdb_bytes()) {
        if let Ok(cdb) = Cdb::decode(&bytes) {
            let again = cdb.encode();
            // Reserved bits are gone, everything else is there.
            prop_assert_eq!(Cdb::decode(&again), Ok(cdb.clone()));
            if let Some(usage) = cdb.command.usage() {
                let last = usage.len() - 1;
                for (at, ((out, was), used)) in again.iter().zip(&bytes).zip(usage).enumerate() {
                    let control = at == if usage[0] == 0x7f { 1 } else { last };
                    let fixed = at == 0 || (usage[0] == 0x7f && (7..10).contains(&at));
                    let sa = if at == 1 && OpCode(usage[0]).has_service_action() && usage[0] != 0x7f { 0x1f } else { 0 };
                    let mask = if control || fixed { 0xff } else { used | sa };
                    prop_assert_eq!(*out, was & mask, "byte {}", at);
                }
            } else {
                prop_assert_eq!(&*again, &bytes[..again.len()]);
            }
        }
    }

    #[test]
    fn block_io_is_carried_by_its_command(lba: u64, blocks: u32, fua: bool, kind in 0usize..8) {
        let kinds = [IoKind::Read, IoKind::Write, IoKind::WriteAndVerify, IoKind::Verify, IoKind::OrWrite,
            IoKind::WriteSame, IoKind::PreFetch, IoKind::SynchronizeCache];
        let flagged = matches!(kinds[kind], IoKind::Read | IoKind::Write | IoKind::OrWrite);
        let io = BlockIo::new(kinds[kind], lba, blocks).fua(fua && flagged);
        let command = io.command().unwrap();
        prop_assert_eq!(command.block_io(), Some(io));
        prop_assert_eq!(Cdb::decode(&Cdb::from(command.clone()).encode()).unwrap().command, command);
    }
}
