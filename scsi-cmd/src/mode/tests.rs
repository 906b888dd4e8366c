use super::*;
use alloc::vec;
use proptest::prelude::*;

fn caching_list() -> ModeParameters {
    ModeParameters {
        dpofua: true,
        descriptors: vec![BlockDescriptor::Short { blocks: 0x1000, length: 512 }],
        pages: vec![ModePage::Caching(Caching { wce: true, ..Caching::default() })],
        ..ModeParameters::default()
    }
}

// SPC-4 tables 363, 364; SBC-3 tables 162, 178.
#[test]
fn caching_page_by_hand() {
    let page = "08120400000000000000 00000000000000000000".replace(' ', "");
    let six = hex::decode(["1f001008", "0000100000000200", &page].concat()).unwrap();
    assert_eq!(caching_list().encode(ModeForm::Six, false), six);
    assert_eq!(ModeParameters::decode(&six, ModeForm::Six), Ok(caching_list()));
    let ten = hex::decode(["0022001000000008", "0000100000000200", &page].concat()).unwrap();
    assert_eq!(caching_list().encode(ModeForm::Ten, false), ten);
    assert_eq!(ModeParameters::decode(&ten, ModeForm::Ten), Ok(caching_list()));
    // MODE SELECT reserves MODE DATA LENGTH.
    assert_eq!(caching_list().encode(ModeForm::Six, true)[0], 0);
    assert_eq!(caching_list().encode(ModeForm::Ten, true)[..2], [0, 0]);
}

#[test]
fn control_pages_by_hand() {
    let control =
        Control { tst: 1, d_sense: true, queue_algorithm: 1, swp: true, tas: true, ..Control::default() };
    let mut bytes = Vec::new();
    ModePage::Control(control).encode(&mut bytes);
    assert_eq!(bytes, hex::decode("0a0a241008400000000000 00".replace(' ', "")).unwrap());
    bytes.clear();
    ModePage::ControlExtension(ControlExtension { max_sense_length: 252, ..Default::default() })
        .encode(&mut bytes);
    assert_eq!(bytes[..7], [0x4a, 0x01, 0x00, 0x1c, 0x00, 0x00, 0xfc]);
    assert_eq!(bytes.len(), 32);
}

// SBC-3, Application Tag mode page: header of a subpage, 12 reserved bytes, descriptors of 24.
#[test]
fn application_tag_page_by_hand() {
    let descriptor =
        |last, application_tag, lba, blocks| ApplicationTagDescriptor { last, application_tag, lba, blocks };
    let descriptors = [
        descriptor(false, 0x1234, 0, 0x100),
        descriptor(true, 0x5678, 0x100, 0xf00),
        Default::default(),
        Default::default(),
    ];
    let page = ApplicationTags { descriptors };
    let text = [
        "4a02006c 000000000000000000000000",
        "00 0000000000 1234 0000000000000000 0000000000000100",
        "80 0000000000 5678 0000000000000100 0000000000000f00",
        &"00".repeat(48),
    ];
    let bytes = hex::decode(text.concat().replace(' ', "")).unwrap();
    let mut encoded = Vec::new();
    ModePage::ApplicationTags(page).encode(&mut encoded);
    assert_eq!(encoded, bytes);
    let list = ModeParameters { pages: vec![ModePage::ApplicationTags(page)], ..ModeParameters::default() };
    assert_eq!(ModeParameters::decode(&list.encode(ModeForm::Ten, true), ModeForm::Ten), Ok(list));
    assert_eq!(page.valid(), &descriptors[..2]);
    assert_eq!((ApplicationTags::position(1), bytes[ApplicationTags::position(1)]), (40, 0x80));
    assert_eq!(ApplicationTags::default().valid(), []);
}

#[test]
fn long_descriptors() {
    let list = ModeParameters {
        descriptors: vec![BlockDescriptor::Long { blocks: 1 << 40, length: 4096 }],
        ..ModeParameters::default()
    };
    let bytes = list.encode(ModeForm::Ten, false);
    assert_eq!(bytes, hex::decode("001600000100001000000100000000000000000000001000").unwrap());
    assert_eq!(ModeParameters::decode(&bytes, ModeForm::Ten), Ok(list));
}

#[test]
fn lists_that_are_not_whole() {
    let bytes = caching_list().encode(ModeForm::Six, true);
    for len in 0..bytes.len() {
        // A list may end after the header and after the descriptors; then it has no pages.
        if len == 12 {
            assert_eq!(ModeParameters::decode(&bytes[..len], ModeForm::Six).unwrap().pages, []);
            continue;
        }
        let error = ModeParameters::decode(&bytes[..len], ModeForm::Six).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::Truncated, "{len}");
    }
    let error = ModeParameters::decode(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], ModeForm::Six).unwrap_err();
    assert_eq!(error, DecodeError { kind: DecodeErrorKind::Length, at: 3 });
}

#[test]
fn a_known_page_of_another_length_is_unknown() {
    let bytes = [0, 0, 0, 0, 0x0a, 0x06, 2, 0, 0, 0, 0, 0];
    let page = &ModeParameters::decode(&bytes, ModeForm::Six).unwrap().pages[0];
    assert!(matches!(page, ModePage::Unknown { page_code: 0x0a, subpage_code: None, .. }));
}

fn page() -> impl Strategy<Value = ModePage> {
    let raw = || prop::collection::vec(any::<u8>(), 30);
    prop_oneof![
        raw().prop_map(|b| ModePage::Caching(Caching::decode(&b))),
        raw().prop_map(|b| ModePage::Control(Control::decode(&b))),
        raw().prop_map(|b| ModePage::ControlExtension(ControlExtension::decode(&b))),
        raw().prop_map(|b| ModePage::ReadWriteErrorRecovery(ReadWriteErrorRecovery::decode(&b))),
        raw().prop_map(|b| ModePage::VerifyErrorRecovery(VerifyErrorRecovery::decode(&b))),
        raw().prop_map(|b| ModePage::InformationalExceptions(InformationalExceptions::decode(&b))),
        (0x20u8..0x3f, any::<Option<u8>>(), raw())
            .prop_map(|(page_code, subpage_code, data)| ModePage::Unknown { page_code, subpage_code, data }),
    ]
}

proptest! {
    #[test]
    fn lists_survive(
        wp: bool, dpofua: bool, long: bool, all in prop::collection::vec(any::<(u32, u32)>(), 0..3),
        pages in prop::collection::vec(page(), 0..5), ten: bool,
    ) {
        let descriptors = all.into_iter().map(|(blocks, length)| match long {
            true if ten => BlockDescriptor::Long { blocks: u64::from(blocks) << 8, length },
            _ => BlockDescriptor::Short { blocks, length: length & 0x00ff_ffff },
        }).collect();
        let list = ModeParameters { medium_type: 0, wp, dpofua, descriptors, pages };
        let form = if ten { ModeForm::Ten } else { ModeForm::Six };
        let back = ModeParameters::decode(&list.encode(form, true), form);
        prop_assert_eq!(back.as_ref(), Ok(&list));
        prop_assert_eq!(ModeParameters::decode(&list.encode(form, false), form), Ok(list));
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..120), ten: bool) {
        let form = if ten { ModeForm::Ten } else { ModeForm::Six };
        if let Ok(list) = ModeParameters::decode(&bytes, form) {
            prop_assert_eq!(ModeParameters::decode(&list.encode(form, true), form), Ok(list));
        }
    }
}
