//! Properties over all keys and preferences.

use super::*;
use proptest::prelude::*;

/// Any value for any operational key.
fn any_line() -> impl Strategy<Value = String> {
    let operational: Vec<Key> =
        Key::ALL.iter().copied().filter(|k| k.def().stage == StageUse::Operational).collect();
    let value = prop_oneof![
        Just("Yes".to_owned()),
        Just("No".to_owned()),
        Just("None,CRC32C".to_owned()),
        Just("CRC32C,None".to_owned()),
        Just("FastAbort,ResponseFence,RFC3720".to_owned()),
        (0u32..5).prop_map(|n| n.to_string()),
        (500u32..70_000).prop_map(|n| n.to_string()),
        "[A-Za-z0-9~,]{0,6}",
    ];
    (proptest::sample::select(operational), value).prop_map(|(k, v)| format!("{}={v}", k.name()))
}

pub(crate) fn any_preferences() -> impl Strategy<Value = Preferences> {
    let digest = proptest::sample::select(vec![
        DigestPolicy::Never,
        DigestPolicy::Avoid,
        DigestPolicy::Prefer,
        DigestPolicy::Require,
    ]);
    let rdma = proptest::sample::select(vec![RdmaPolicy::Never, RdmaPolicy::Allow, RdmaPolicy::Require]);
    let bools = proptest::collection::vec(any::<bool>(), 4);
    let lengths = proptest::collection::vec(0u32..1 << 20, 5);
    let small = (0u8..4, 0u16..5, 0u16..5, 0u16..30, 0u16..30, 0u8..4);
    (digest.clone(), digest, rdma, bools, lengths, small).prop_map(|(hd, dd, rdma, b, l, s)| Preferences {
        header_digest: hd,
        data_digest: dd,
        rdma_extensions: rdma,
        initial_r2t: b[0],
        immediate_data: b[1],
        data_pdu_in_order: b[2],
        data_sequence_in_order: b[3],
        max_recv_data_segment_length: l[0],
        max_burst_length: l[1],
        first_burst_length: l[2],
        initiator_recv_data_segment_length: l[3],
        target_recv_data_segment_length: l[4],
        error_recovery_level: s.0,
        max_connections: s.1,
        max_outstanding_r2t: s.2,
        default_time2wait: s.3,
        default_time2retain: s.4,
        iscsi_protocol_level: s.5,
        ..Preferences::default()
    })
}

proptest! {
    /// RFC 7143 section 6.2: the result does not depend on the order of the keys in a text.
    // req: 7143-6.2-25
    #[test]
    fn key_order_does_not_matter(
        wants in any_preferences(),
        mut text in proptest::collection::vec(any_line(), 0..12),
        seed in any::<u64>(),
    ) {
        let run = |text: &[String]| {
            let mut n = target_with(&wants);
            let lines: Vec<&str> = text.iter().map(String::as_str).collect();
            exchange(&mut n, &lines).map(|mut a| {
                a.sort_unstable();
                (a, n.params())
            })
        };
        let straight = run(&text);
        let len = text.len().max(1);
        text.rotate_left(usize::try_from(seed % len as u64).unwrap() % len.max(1));
        text.reverse();
        let shuffled = run(&text);
        // Which of several faults is named first may differ; that there is one does not.
        prop_assert_eq!(straight.is_ok(), shuffled.is_ok());
        if let (Ok(a), Ok(b)) = (straight, shuffled) {
            prop_assert_eq!(a, b);
        }
    }

    /// Every answer is admissible and fits the offer: an initiator that made it accepts it.
    #[test]
    fn rules_between_keys_always_hold(
        wants in any_preferences(),
        texts in proptest::collection::vec(proptest::collection::vec(any_line(), 0..6), 0..4),
    ) {
        let mut n = target_with(&wants);
        for text in &texts {
            let lines: Vec<&str> = text.iter().map(String::as_str).collect();
            if exchange(&mut n, &lines).is_err() {
                return Ok(());
            }
        }
        let (s, c) = n.params();
        prop_assert!(s.first_burst_length <= s.max_burst_length);
        prop_assert!(s.error_recovery_level == 0 || !s.data_sequence_in_order || s.max_outstanding_r2t == 1);
        prop_assert!(!s.rdma_extensions || (c.header_digest == Digest::None && c.data_digest == Digest::None));
        prop_assert!((512..1 << 24).contains(&s.max_burst_length));
        prop_assert!((512..1 << 24).contains(&c.max_send_data_segment_length));
    }

    /// Irrelevant keys change nothing.
    #[test]
    fn irrelevant_keys_do_nothing(wants in any_preferences(), text in proptest::collection::vec(any_line(), 0..8)) {
        let mut n = Negotiation::new(Role::Target, &wants, discovery());
        let before = n.params().0;
        let lines: Vec<&str> = text
            .iter()
            .map(String::as_str)
            .filter(|l| {
                let key = Key::from_name(l.split('=').next().unwrap()).unwrap();
                key.def().irrelevant.contains(&Irrelevant::Discovery)
                    || key.def().irrelevant.contains(&Irrelevant::WithoutRdma)
            })
            .collect();
        if exchange(&mut n, &lines).is_ok() {
            prop_assert_eq!(n.params().0, before);
        }
    }
}
