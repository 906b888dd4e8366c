use super::*;

#[test]
fn defaults_are_admissible() {
    assert_eq!(Preferences::default().check(), Ok(()));
    assert_eq!(TargetLoginConfig::default().preferences.check(), Ok(()));
}

/// Bounds of RFC 7143 section 13 and RFC 7145 section 6, one key at a time.
// req: 7143-13.14-1, 7143-13.19-2, 7143-7.1.5-1
#[test]
fn check_names_the_key() {
    let base = Preferences::default;
    let cases: [(Preferences, Key); 11] = [
        (Preferences { max_connections: 0, ..base() }, Key::MaxConnections),
        (Preferences { max_recv_data_segment_length: 511, ..base() }, Key::MaxRecvDataSegmentLength),
        (Preferences { max_burst_length: 1 << 24, ..base() }, Key::MaxBurstLength),
        (Preferences { first_burst_length: 2_000_000, ..base() }, Key::FirstBurstLength),
        (Preferences { default_time2wait: 3601, ..base() }, Key::DefaultTime2Wait),
        (Preferences { default_time2retain: 3601, ..base() }, Key::DefaultTime2Retain),
        (Preferences { max_outstanding_r2t: 0, ..base() }, Key::MaxOutstandingR2t),
        (Preferences { error_recovery_level: 1, max_outstanding_r2t: 4, ..base() }, Key::MaxOutstandingR2t),
        (Preferences { error_recovery_level: 3, ..base() }, Key::ErrorRecoveryLevel),
        (Preferences { iscsi_protocol_level: 32, ..base() }, Key::IscsiProtocolLevel),
        (
            Preferences { max_outstanding_unexpected_pdus: Some(1), ..base() },
            Key::MaxOutstandingUnexpectedPdus,
        ),
    ];
    for (preferences, key) in cases {
        assert_eq!(preferences.check(), Err(PreferenceError(key)));
        assert_eq!(preferences.normalized().check(), Ok(()));
    }
    assert_eq!(PreferenceError(Key::MaxBurstLength).to_string(), "MaxBurstLength: value out of bounds");
}

// req: 7143-13.19-2
#[test]
fn several_r2ts_with_recovery_need_sequences_out_of_order() {
    let p = Preferences {
        error_recovery_level: 2,
        max_outstanding_r2t: 4,
        data_sequence_in_order: false,
        ..Preferences::default()
    };
    assert_eq!(p.check(), Ok(()));
}

/// No budget is below what the RFC wants every implementation to bear.
// req: 7143-6.1-4, 7143-6.2-23, 7143-10.3-2
#[test]
fn budget_floors() {
    let zero = LoginBudget { pdus: 0, text: 0, keys: 0, answer: 0, time: Duration::ZERO }.normalized();
    assert_eq!((zero.pdus, zero.text), (6, 8192));
    // Room for each key in an exchange of its own.
    assert!(usize::from(LoginBudget::default().pdus) > 2 * Key::ALL.len());
    assert_eq!(LoginBudget::default().normalized(), LoginBudget::default());
}

// req: 7143-9.4-1, 7143-9.4-2, 7143-13.26.2-3, 7143-13.26.2-4
#[test]
fn node_architecture_is_off_and_has_no_free_text() {
    assert_eq!(NodeArchitecture::default().value(), None);
    assert_eq!(NodeArchitecture::Product.value(), Some("iscsi-rs"));
    assert_eq!(NodeArchitecture::Version.value(), Some(concat!("iscsi-rs/", env!("CARGO_PKG_VERSION"))));
}

// req: 7143-13.1-5, 7143-14-2
#[test]
fn digests_are_the_standard_ones() {
    for policy in [DigestPolicy::Never, DigestPolicy::Avoid, DigestPolicy::Prefer, DigestPolicy::Require] {
        assert!(policy.values().iter().all(|d| matches!(d, Digest::None | Digest::Crc32c)));
    }
    assert_eq!(Preferences::default().header_digest.values(), [Digest::None, Digest::Crc32c]);
}
