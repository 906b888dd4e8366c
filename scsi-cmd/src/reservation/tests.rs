use super::*;
use alloc::vec;
use proptest::prelude::*;

#[test]
fn keys_and_reservation_by_hand() {
    let keys = PrKeys { generation: 7, keys: vec![0x1122_3344_5566_7788, 1] };
    let bytes = hex::decode("0000000700000010112233445566778800000000000000 01".replace(' ', "")).unwrap();
    assert_eq!(keys.encode(), bytes);
    assert_eq!(PrKeys::decode(&bytes).as_ref(), Ok(&keys));
    assert_eq!(PrKeys::decode(&bytes[..17]).unwrap().keys.len(), 1);

    let held = PrReservation { key: 0xab, scope: 0, pr_type: PrType::WriteExclusiveRegistrantsOnly };
    let data = PrReservationData { generation: 2, reservation: Some(held) };
    let bytes = hex::decode("000000020000001000000000000000ab0000000000050000").unwrap();
    assert_eq!(data.encode(), bytes);
    assert_eq!(PrReservationData::decode(&bytes), Ok(data));
    let none = PrReservationData { generation: 2, reservation: None };
    assert_eq!(none.encode(), [0, 0, 0, 2, 0, 0, 0, 0]);
    assert_eq!(PrReservationData::decode(&none.encode()), Ok(none));
}

// SPC-4 table 226.
#[test]
fn type_mask_bits() {
    let capabilities = PrCapabilities {
        length: 8,
        ptpl_c: true,
        sip_c: true,
        atp_c: true,
        tmv: true,
        type_mask: PrCapabilities::ALL_TYPES,
        ..PrCapabilities::default()
    };
    assert_eq!(capabilities.encode(), [0, 8, 0x0d, 0x80, 0xea, 0x01, 0, 0]);
}

#[test]
fn out_parameters_by_hand() {
    let register =
        PrOutParameters { key: 1, service_action_key: 2, aptpl: true, ..PrOutParameters::default() };
    let mut bytes = vec![0; 24];
    (bytes[7], bytes[15], bytes[20]) = (1, 2, 1);
    assert_eq!(register.encode(), bytes);
    assert_eq!(PrOutParameters::decode(&bytes), Ok(register));
    bytes.push(0);
    assert_eq!(PrOutParameters::decode(&bytes), Err(DecodeError { kind: DecodeErrorKind::Length, at: 24 }));
    for len in 0..24 {
        assert_eq!(PrOutParameters::decode(&bytes[..len]).unwrap_err().kind, DecodeErrorKind::Truncated);
    }
}

#[test]
fn access_of_the_types() {
    use PrType as T;
    let registrants: Vec<bool> = T::ALL.iter().map(|t| t.registrants_have_access()).collect();
    assert_eq!(registrants, [false, false, true, true, true, true]);
    let reads: Vec<bool> = T::ALL.iter().map(|t| t.excludes_reads()).collect();
    assert_eq!(reads, [false, true, false, true, false, true]);
}

fn transport_id() -> impl Strategy<Value = TransportId> {
    prop_oneof![
        "iqn[a-z.:]{1,60}".prop_map(|name| TransportId::Node { name }),
        ("iqn[a-z.:]{1,60}", any::<[u8; 6]>()).prop_map(|(name, isid)| TransportId::Port { name, isid }),
    ]
}

proptest! {
    #[test]
    fn parameters_survive(
        key: u64, service_action_key: u64, flags: (bool, bool),
        ids in prop::option::of(prop::collection::vec(transport_id(), 0..4)), id in transport_id(), port: u16,
    ) {
        let (all_tg_pt, aptpl) = flags;
        let list = PrOutParameters { key, service_action_key, transport_ids: ids, all_tg_pt, aptpl };
        let bytes = list.encode();
        prop_assert_eq!(PrOutParameters::decode(&bytes), Ok(list));
        for len in 0..bytes.len() {
            prop_assert!(PrOutParameters::decode(&bytes[..len]).is_err());
        }
        let list = PrMoveParameters {
            key, service_action_key, unreg: all_tg_pt, aptpl, relative_target_port: port, transport_id: id,
        };
        let bytes = list.encode();
        prop_assert_eq!(PrMoveParameters::decode(&bytes), Ok(list));
        for len in 0..bytes.len() {
            prop_assert!(PrMoveParameters::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn full_status_survives(
        generation: u32,
        all in prop::collection::vec((any::<u64>(), any::<bool>(), any::<Option<u8>>(), any::<u16>(), transport_id()), 0..5),
    ) {
        let all = all.into_iter().map(|(key, all_tg_pt, held, relative_target_port, transport_id)| PrFullStatus {
            key, all_tg_pt, held: held.map(|h| (h >> 4, PrType(h & 0x0f))), relative_target_port, transport_id,
        }).collect();
        let list = PrFullStatusList { generation, all };
        prop_assert_eq!(PrFullStatusList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = PrKeys::decode(&bytes);
        let _ = PrReservationData::decode(&bytes);
        let _ = PrFullStatusList::decode(&bytes);
        let _ = PrOutParameters::decode(&bytes);
        let _ = PrMoveParameters::decode(&bytes);
    }
}
