use super::*;
use proptest::prelude::*;

#[test]
fn fixed_format_of_spc4_table_53() {
    // MEDIUM ERROR, unrecovered read error at LBA 1234h.
    let sense = Sense::new(SenseKey::MediumError, Asc::UNRECOVERED_READ_ERROR).information(0x1234);
    let bytes = [0xf0, 0, 0x03, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x11, 0x00, 0, 0, 0, 0];
    assert_eq!(sense.encode_fixed(), bytes);
    assert_eq!(Sense::decode(&bytes), Ok(sense));
}

#[test]
fn descriptor_format_of_spc4_clause_4_5_2() {
    let sense = Sense::new(SenseKey::Miscompare, Asc::MISCOMPARE_DURING_VERIFY_OPERATION).information(5);
    let bytes = [0x72, 0x0e, 0x1d, 0x00, 0, 0, 0, 12, 0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    assert_eq!(sense.encode_descriptor(), bytes);
    assert_eq!(Sense::decode(&bytes), Ok(sense));
}

#[test]
fn information_beyond_32_bits_is_invalid_in_fixed_format() {
    let sense = Sense::new(SenseKey::MediumError, Asc::WRITE_ERROR).information(1 << 32);
    assert_eq!(sense.encode_fixed()[0], 0x70);
    assert_eq!(Sense::decode(&sense.encode_fixed()).unwrap().information, None);
}

#[test]
fn field_pointers() {
    let sense = Sense::invalid_cdb_field(2, 5);
    assert_eq!(sense.field_pointer(), Some(FieldPointer { in_cdb: true, byte: 2, bit: Some(5) }));
    assert_eq!(sense.encode_fixed()[15..], [0xcd, 0, 2]);
    let sense = Sense::invalid_parameter(0x102, None);
    assert_eq!(sense.field_pointer(), Some(FieldPointer { in_cdb: false, byte: 0x102, bit: None }));
    assert_eq!(sense.encode_fixed()[15..], [0x80, 1, 2]);
    assert_eq!(sense.progress(), None);
}

#[test]
fn progress_of_a_format() {
    let sense =
        Sense::new(SenseKey::NotReady, Asc::LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS).with_progress(0x8000);
    assert_eq!(sense.encode_fixed()[15..], [0x80, 0x80, 0]);
    assert_eq!(sense.progress(), Some(0x8000));
}

#[test]
fn names_as_t10_gives_them() {
    assert_eq!(Asc(0x2400).name(), Some("INVALID FIELD IN CDB"));
    assert_eq!(Asc(0x2a09).name(), Some("CAPACITY DATA HAS CHANGED"));
    assert_eq!(Asc(0x4080).name(), Some("DIAGNOSTIC FAILURE ON COMPONENT NN"));
    assert_eq!(Asc(0x8000).name(), None);
    assert_eq!(alloc::format!("{}", Asc::MEDIUM_NOT_PRESENT), "3a/00 MEDIUM NOT PRESENT");
    // req: 7143-11.4.7.2-1 — the pairs that RFC 7143 names.
    assert_eq!(Asc::WRITE_ERROR_UNEXPECTED_UNSOLICITED_DATA, Asc::new(0x0c, 0x0c));
    assert_eq!(Asc::WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA, Asc::new(0x0c, 0x0d));
    assert_eq!(Asc::PROTOCOL_SERVICE_CRC_ERROR, Asc::new(0x47, 0x05));
    assert_eq!(Asc::READ_ERROR_FAILED_RETRANSMISSION_REQUEST, Asc::new(0x11, 0x13));
}

#[test]
fn what_is_not_sense_data() {
    assert_eq!(Sense::decode(&[]).unwrap_err().kind, DecodeErrorKind::Truncated);
    assert_eq!(Sense::decode(&[0x60; 18]).unwrap_err().kind, DecodeErrorKind::Value);
    // A fixed format that an allocation length cut after byte 12 has its ASC and no more.
    let cut = Sense::decode(&Sense::invalid_cdb_field(1, None).encode_fixed()[..13]).unwrap();
    assert_eq!((cut.asc, cut.key_specific), (Asc::new(0x24, 0), None));
    // A descriptor that runs over the end.
    let whole = Sense::invalid_cdb_field(1, None).encode_descriptor();
    for len in 0..whole.len() {
        assert!(Sense::decode(&whole[..len]).is_err(), "{len}");
    }
}

#[test]
fn descriptors_that_do_not_fit_overflow() {
    let other = OtherDescriptor { kind: 0x80, data: alloc::vec![0; 200] };
    let sense = Sense { other: alloc::vec![other.clone(), other], ..Sense::default() };
    let back = Sense::decode(&sense.encode_descriptor()).unwrap();
    assert!(back.sdat_ovfl);
    assert_eq!(back.other.len(), 1);
}

fn sense() -> impl Strategy<Value = Sense> {
    let flags = any::<(bool, bool, bool, bool, bool)>();
    let numbers = (0u8..16, any::<u16>(), any::<u8>());
    let specific = (any::<Option<u64>>(), prop::option::of(1u64..), prop::option::of(any::<(u8, u8, u8)>()));
    let other = prop::collection::vec((0x80u8.., prop::collection::vec(any::<u8>(), 0..20)), 0..4);
    (flags, numbers, specific, other).prop_map(
        |(f, (key, asc, fru), (information, command_specific, k), o)| Sense {
            deferred: f.0,
            filemark: f.1,
            eom: f.2,
            ili: f.3,
            sdat_ovfl: f.4,
            key: SenseKey(key),
            asc: Asc(asc),
            fru,
            information,
            command_specific,
            key_specific: k.map(|(a, b, c)| [a & 0x7f, b, c]),
            other: o.into_iter().map(|(kind, data)| OtherDescriptor { kind, data }).collect(),
        },
    )
}

proptest! {
    #[test]
    fn descriptor_format_keeps_all(sense in sense()) {
        prop_assert_eq!(Sense::decode(&sense.encode_descriptor()), Ok(sense));
    }

    #[test]
    fn fixed_format_keeps_what_it_has_room_for(mut sense in sense()) {
        sense.information = sense.information.filter(|v| *v <= u32::MAX.into());
        sense.command_specific = sense.command_specific.filter(|v| *v <= u32::MAX.into());
        sense.other.clear();
        prop_assert_eq!(Sense::decode(&sense.encode_fixed()), Ok(sense));
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(sense) = Sense::decode(&bytes) {
            prop_assert!(Sense::decode(&sense.encode_descriptor()).is_ok());
        }
    }
}
