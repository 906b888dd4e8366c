use super::*;
use alloc::vec;
use proptest::prelude::*;

fn bytes(page: VpdPage) -> Vec<u8> {
    Vpd { peripheral: Peripheral::DISK, page }.encode()
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

// SPC-4 clause 7.8.6: a unit's NAA name, its port's relative identifier and name, the device's name.
#[test]
fn designators_by_hand() {
    let page = VpdPage::DeviceIdentification(vec![
        Designator::naa(0x3001_0203_0405_0607),
        Designator::t10_vendor_id("VENDOR", "42"),
        Designator::relative_target_port(1),
        Designator::target_port_group(0x0102),
        // req: 7143-4.4.2-1
        Designator::scsi_name(Association::TargetDevice, "iqn.2026-01.org.example:d"),
    ]);
    let expected = unhex(concat!(
        "00 83 004a",
        "01 03 00 08 3001020304050607",
        "02 01 00 0a 56454e444f522020 3432",
        "51 94 00 04 00000001",
        "51 95 00 04 00000102",
        "53 a8 00 1c 69716e2e323032362d30312e6f72672e6578616d706c653a64 000000",
    ));
    assert_eq!(bytes(page.clone()), expected);
    assert_eq!(Vpd::decode(&expected).unwrap().page, page);
}

// req: 7143-4.4.2-3
#[test]
fn port_name_designator() {
    let name = crate::transport_id::target_port_name("iqn.2026-01.org.example:d", 1);
    let designator = Designator::scsi_name(Association::TargetPort, &name);
    assert_eq!(&designator.data[..34], b"iqn.2026-01.org.example:d,t,0x0001");
    assert_eq!((designator.data.len(), designator.data[34]), (36, 0));
    assert_eq!(designator.as_text().as_deref(), Some("iqn.2026-01.org.example:d,t,0x0001"));
    // A name of the longest kind, and one too long, end with a NUL at a multiple of four.
    for len in [223, 400] {
        let long = Designator::scsi_name(Association::TargetDevice, &"x".repeat(len));
        assert_eq!((long.data.len() % 4, long.data.last()), (0, Some(&0)));
        assert!(long.data.len() <= 252);
    }
}

// SBC-3 table 189.
#[test]
fn block_limits_by_hand() {
    let page = VpdPage::BlockLimits(BlockLimits {
        wsnz: true,
        max_compare_and_write: 255,
        optimal_granularity: 8,
        max_transfer: 0x1_0000,
        max_unmap_blocks: u32::MAX,
        max_unmap_descriptors: 4095,
        optimal_unmap_granularity: 8,
        ugavalid: true,
        unmap_alignment: 1,
        max_write_same: 0x1_0000_0000,
        max_atomic: 2048,
        ..BlockLimits::default()
    });
    let expected = unhex(concat!(
        "00 b0 003c 01 ff 0008 00010000 00000000 00000000 ffffffff 00000fff 00000008 80000001",
        "0000000100000000 00000800 00000000 00000000 00000000 00000000",
    ));
    assert_eq!(bytes(page.clone()), expected);
    assert_eq!(Vpd::decode(&expected).unwrap().page, page);
    // SBC-2 ends the page after OPTIMAL TRANSFER LENGTH.
    let old = unhex("00 b0 000c 00 00 0008 00010000 00000000");
    let VpdPage::BlockLimits(limits) = Vpd::decode(&old).unwrap().page else { panic!() };
    assert_eq!((limits.max_transfer, limits.max_unmap_blocks), (0x1_0000, 0));
}

#[test]
fn provisioning_and_characteristics_by_hand() {
    let thin = LogicalBlockProvisioning {
        lbpu: true,
        lbpws: true,
        lbpws10: true,
        lbprz: 1,
        provisioning_type: 2,
        ..LogicalBlockProvisioning::default()
    };
    assert_eq!(bytes(VpdPage::LogicalBlockProvisioning(thin, vec![])), unhex("00 b2 0004 00 e4 02 00"));
    let ssd = BlockDeviceCharacteristics { rotation_rate: 1, fuab: true, ..Default::default() };
    let page = bytes(VpdPage::BlockDeviceCharacteristics(ssd));
    assert_eq!((page.len(), &page[..9]), (64, &unhex("00 b1 003c 0001 00 00 02")[..]));
    let extended = ExtendedInquiry {
        head_sup: true,
        ord_sup: true,
        simp_sup: true,
        v_sup: true,
        max_sense_length: 252,
        ..Default::default()
    };
    let page = bytes(VpdPage::ExtendedInquiry(extended));
    assert_eq!((page.len(), &page[..14]), (64, &unhex("00 86 003c 00 07 01 00 00 00 0000 00 fc")[..]));
}

#[test]
fn ports_and_policies_by_hand() {
    let port = ScsiPort {
        relative_port_id: 1,
        initiator_transport_id: vec![],
        target_port: vec![Designator::relative_target_port(1)],
    };
    let expected = unhex("00 88 0014 0000 0001 0000 0000 0000 0008 51 94 00 04 00000001");
    assert_eq!(bytes(VpdPage::ScsiPorts(vec![port])), expected);
    let shared = ModePagePolicy { page_code: 0x3f, subpage_code: 0xff, mlus: false, policy: 0 };
    assert_eq!(bytes(VpdPage::ModePagePolicy(vec![shared])), unhex("00 87 0004 3f ff 00 00"));
}

// SPC-4 tables 464 to 470.
#[test]
fn third_party_copy_by_hand() {
    let page = VpdPage::ThirdPartyCopy(vec![
        ThirdPartyCopyDescriptor::supported_commands(&[(0x83, &[0]), (0x84, &[0, 3])]),
        ThirdPartyCopyDescriptor::supported_descriptors(&[0x02, 0xe4]),
    ]);
    let expected =
        unhex(concat!("00 8f 0014", "0001 0008 07 83 01 00 84 02 00 03", "0008 0004 02 02 e4 00",));
    assert_eq!(bytes(page.clone()), expected);
    assert_eq!(Vpd::decode(&expected).unwrap().page, page);
    let limits = ThirdPartyCopyDescriptor::parameter_data(8, 16, 4096, 0);
    assert_eq!(limits.data, unhex("00000000 0008 0010 00001000 00000000 000000000000000000000000"));
    assert_eq!(ThirdPartyCopyDescriptor::general_copy_operations(1, 2, 3, 9).data.len(), 32);
}

fn designator() -> impl Strategy<Value = Designator> {
    (any::<Option<u8>>(), 0u8..16, 0u8..4, 0u8..16, prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(protocol, set, association, kind, data)| Designator {
            protocol: protocol.map(|p| p & 0x0f),
            code_set: CodeSet(set),
            association: Association(association),
            kind: DesignatorType(kind),
            data,
        },
    )
}

fn page() -> impl Strategy<Value = VpdPage> {
    let designators = || prop::collection::vec(designator(), 0..4);
    let raw = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        raw().prop_map(|codes| VpdPage::SupportedPages(codes.into_iter().map(VpdCode).collect())),
        raw().prop_map(VpdPage::UnitSerialNumber),
        designators().prop_map(VpdPage::DeviceIdentification),
        raw().prop_map(|b| VpdPage::ExtendedInquiry(ExtendedInquiry::decode(&b))),
        raw().prop_map(|b| VpdPage::BlockLimits(BlockLimits::decode(&b))),
        raw().prop_map(|b| VpdPage::BlockDeviceCharacteristics(BlockDeviceCharacteristics::decode(&b))),
        (raw(), designators()).prop_map(|(b, group)| {
            let page = LogicalBlockProvisioning::decode(&b);
            let group = if page.dp { group } else { vec![] };
            VpdPage::LogicalBlockProvisioning(page, group)
        }),
        raw().prop_map(|b| VpdPage::ModePagePolicy(b.chunks(4).map(ModePagePolicy::decode).collect())),
        prop::collection::vec((any::<u16>(), raw(), designators()), 0..3).prop_map(|all| {
            VpdPage::ScsiPorts(
                all.into_iter()
                    .map(|(relative_port_id, initiator_transport_id, target_port)| ScsiPort {
                        relative_port_id,
                        initiator_transport_id,
                        target_port,
                    })
                    .collect(),
            )
        }),
        prop::collection::vec((any::<u16>(), raw()), 0..3).prop_map(|all| {
            VpdPage::ThirdPartyCopy(
                all.into_iter().map(|(kind, data)| ThirdPartyCopyDescriptor { kind, data }).collect(),
            )
        }),
        (0xc0u8.., raw()).prop_map(|(code, data)| VpdPage::Unknown(VpdCode(code), data)),
    ]
}

proptest! {
    #[test]
    fn pages_survive(page in page(), peripheral: u8) {
        let vpd = Vpd { peripheral: Peripheral(peripheral), page };
        let bytes = vpd.encode();
        prop_assert_eq!(Vpd::decode(&bytes), Ok(vpd));
        for len in 0..bytes.len() {
            prop_assert!(Vpd::decode(&bytes[..len]).is_err(), "cut to {}", len);
        }
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..150)) {
        if let Ok(vpd) = Vpd::decode(&bytes) {
            prop_assert_eq!(Vpd::decode(&vpd.encode()), Ok(vpd));
        }
    }
}
