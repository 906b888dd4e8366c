//! What an end offers, and how it takes the answers.

use super::*;
use crate::config::NodeArchitecture;

/// What an initiator offers over TCP: the full set, nothing that older targets do not know.
// req: 7143-13.22-2, 7143-14-1, 7143-13.24-1
#[test]
fn an_initiators_offer() {
    let offers = |wants: &Preferences| {
        let mut text = empty();
        Negotiation::new(Role::Initiator, wants, place()).offer_all(&mut text).unwrap();
        lines(text)
    };
    assert_eq!(
        offers(&wants()),
        [
            "InitialR2T=No",
            "ImmediateData=Yes",
            "MaxBurstLength=1048576",
            "FirstBurstLength=262144",
            "DataPDUInOrder=Yes",
            "DataSequenceInOrder=Yes",
            "ErrorRecoveryLevel=0",
            "MaxOutstandingR2T=1",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=20",
            "MaxConnections=1",
            "HeaderDigest=None,CRC32C",
            "DataDigest=None,CRC32C",
            "MaxRecvDataSegmentLength=262144",
        ]
    );
    let iser =
        Preferences { rdma_extensions: RdmaPolicy::Require, iser_hello_required: Some(false), ..wants() };
    let keys: Vec<String> = offers(&iser).iter().map(|l| l.split('=').next().unwrap().to_owned()).collect();
    for absent in ["HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength"] {
        assert!(!keys.contains(&absent.to_owned()), "{absent}");
    }
    for present in [
        "InitiatorRecvDataSegmentLength",
        "TargetRecvDataSegmentLength",
        "MaxOutstandingUnexpectedPDUs",
        "MaxAHSLength",
        "TaggedBufferForSolicitedDataOnly",
        "iSERHelloRequired",
    ] {
        assert!(keys.contains(&present.to_owned()), "{present}");
    }
    let more = Preferences {
        task_reporting: vec![TaskReporting::FastAbort],
        iscsi_protocol_level: 2,
        node_architecture: NodeArchitecture::Product,
        ..wants()
    };
    let more = offers(&more);
    // req: 7143-13.23-2
    assert!(more.contains(&"TaskReporting=FastAbort,ResponseFence,RFC3720".into()));
    assert!(more.contains(&"iSCSIProtocolLevel=2".into()));
    assert!(more.contains(&"X#NodeArchitecture=iscsi-rs".into()));
}

/// On a further connection only keys of the connection are offered and admitted.
// req: 7143-6.3.3-6, 7143-13-1, 7145-5.1-7, 7145-5.1-8
#[test]
fn further_connections() {
    let iser = SessionParams { rdma_extensions: true, ..SessionParams::default() };
    let offers = |session| {
        let mut text = empty();
        let place = Place { session_type: SessionType::Normal, joined: Some(session) };
        let wants = Preferences { rdma_extensions: RdmaPolicy::Allow, ..wants() };
        Negotiation::new(Role::Initiator, &wants, place).offer_all(&mut text).unwrap();
        lines(text)
    };
    assert_eq!(
        offers(SessionParams::default()),
        ["HeaderDigest=None,CRC32C", "DataDigest=None,CRC32C", "MaxRecvDataSegmentLength=262144",]
    );
    assert_eq!(offers(iser), ["InitiatorRecvDataSegmentLength=8192", "TargetRecvDataSegmentLength=8192"]);
    let operational = Some(Stage::LoginOperationalNegotiation);
    for key in Key::ALL.iter().filter(|k| k.def().usage == Usage::Lo && **k != Key::SessionType) {
        let refused = Err(Rule::NotAllowedHere(*key));
        assert_eq!(check_use(*key, Role::Initiator, operational, false), refused);
        assert_eq!(check_use(*key, Role::Initiator, operational, true), Ok(()));
    }
}

/// Use, stage and senders of every key against every place.
// req: 7143-6.3-11, 7143-13-2, 7143-12-1, 7143-6.3-10, 7143-13.3-1, 7143-13.4-3, 7143-13.9-1, 7145-5.1-2
#[test]
fn where_keys_may_be_used() {
    use Stage as S;
    let (sec, op) = (Some(S::SecurityNegotiation), Some(S::LoginOperationalNegotiation));
    let places = |key, role| -> String {
        [(sec, 's'), (op, 'o'), (None, 'f')]
            .iter()
            .filter(|(stage, _)| check_use(key, role, *stage, true).is_ok())
            .map(|(_, c)| *c)
            .collect()
    };
    for key in Key::ALL {
        let (i, t) = (places(*key, Role::Initiator), places(*key, Role::Target));
        let expected = match key.name() {
            "SessionType" | "InitiatorName" | "TargetName" => ("so", ""),
            "InitiatorAlias" => ("sof", ""),
            "TargetAlias" | "TargetAddress" => ("", "sof"),
            "TargetPortalGroupTag" => ("", "so"),
            "AuthMethod" | "CHAP_A" | "CHAP_I" | "CHAP_C" | "CHAP_N" | "CHAP_R" => ("s", "s"),
            "SendTargets" => ("f", ""),
            "MaxRecvDataSegmentLength" => ("of", "of"),
            "TaggedBufferForSolicitedDataOnly" | "iSERHelloRequired" => ("o", ""),
            _ => ("o", "o"),
        };
        assert_eq!((i.as_str(), t.as_str()), expected, "{}", key.name());
    }
}

/// An initiator that has offered everything, and the target's answers to it.
fn offered(wants: &Preferences) -> Negotiation {
    let mut n = Negotiation::new(Role::Initiator, wants, place());
    n.offer_all(&mut empty()).unwrap();
    n
}

/// An answer must be possible under the key's result function and the offer.
// req: 7143-6.2.1-4, 7143-6.2.2-7, 7143-13-3
#[test]
fn impossible_answers() {
    let mine = Preferences { immediate_data: false, initial_r2t: true, default_time2wait: 5, ..wants() };
    for line in [
        "MaxBurstLength=2097152",
        "MaxBurstLength=100",
        "DefaultTime2Wait=4",
        "ImmediateData=Yes",
        "InitialR2T=No",
        "HeaderDigest=foo",
        "HeaderDigest=None,CRC32C",
        "MaxConnections=2",
        "ErrorRecoveryLevel=1",
        "MaxBurstLength=",
        "ImmediateData=no",
        "MaxOutstandingR2T=0",
    ] {
        let key = Key::from_name(line.split('=').next().unwrap()).unwrap();
        assert_eq!(exchange(&mut offered(&mine), &[line]), Err(Rule::Answer(key)), "{line}");
    }
    for line in ["MaxBurstLength=512", "DefaultTime2Wait=3600", "ImmediateData=No", "HeaderDigest=CRC32C"] {
        assert_eq!(exchange(&mut offered(&mine), &[line]), Ok(vec![]), "{line}");
    }
    let strict = Preferences { header_digest: DigestPolicy::Never, ..wants() };
    assert!(exchange(&mut offered(&strict), &["HeaderDigest=CRC32C"]).is_err(), "not on offer");
}

/// NotUnderstood, Reject and Irrelevant as answers.
// req: 7143-6.2-9, 7143-6.2-11, 7143-6.2-12, 7143-6.2-14, 7143-6.2-15, 7143-13.26.2-6, 7144-7.1.1-1, 7145-6.8-1
// req: 7143-13.25-2
#[test]
fn words_as_answers() {
    let mine = Preferences {
        rdma_extensions: RdmaPolicy::Allow,
        iscsi_protocol_level: 2,
        node_architecture: NodeArchitecture::Product,
        ..wants()
    };
    let hears = |line: &str| {
        let mut n = offered(&mine);
        exchange(&mut n, &[line]).map(|_| n.params().0)
    };
    for key in ["MaxBurstLength", "HeaderDigest", "MaxRecvDataSegmentLength", "ImmediateData"] {
        let rule = Rule::NotUnderstood(Key::from_name(key).unwrap());
        assert_eq!(hears(&format!("{key}=NotUnderstood")), Err(rule));
    }
    for key in [
        "RDMAExtensions",
        "iSCSIProtocolLevel",
        "MaxAHSLength",
        "MaxOutstandingUnexpectedPDUs",
        "TaggedBufferForSolicitedDataOnly",
        "X#NodeArchitecture",
    ] {
        let session = hears(&format!("{key}=NotUnderstood")).unwrap();
        assert_eq!((session.rdma_extensions, session.iscsi_protocol_level), (false, 1), "{key}");
    }
    // Reject leaves the default, which must be bearable.
    assert_eq!(hears("MaxBurstLength=Reject").unwrap().max_burst_length, 262_144);
    assert_eq!(hears("FirstBurstLength=Irrelevant").unwrap().first_burst_length, 65_536);
    let small = Preferences { max_burst_length: 65_536, ..wants() };
    let refused = Err(Rule::Answer(Key::MaxBurstLength));
    assert_eq!(exchange(&mut offered(&small), &["MaxBurstLength=Reject"]), refused);
    let strict = Preferences { header_digest: DigestPolicy::Require, ..wants() };
    assert!(exchange(&mut offered(&strict), &["HeaderDigest=Reject"]).is_err());
}

/// What was declared and not understood is not in force.
// req: 7143-6.2-12
#[test]
fn disowned_declarations() {
    let mine = Preferences { rdma_extensions: RdmaPolicy::Require, max_ahs_length: Some(512), ..wants() };
    let mut n = offered(&mine);
    exchange(
        &mut n,
        &[
            "RDMAExtensions=Yes",
            "MaxAHSLength=NotUnderstood",
            "TaggedBufferForSolicitedDataOnly=NotUnderstood",
        ],
    )
    .unwrap();
    let (session, _) = n.params();
    assert_eq!(session.initiator_max_ahs_length, 256);
    assert_eq!(session.tagged_buffer_for_solicited_data_only, None);
    assert_eq!(session.initiator_max_outstanding_unexpected_pdus, Some(16));
    let again = exchange(&mut n, &["MaxAHSLength=NotUnderstood"]);
    assert_eq!(again, Err(Rule::Repeated(Key::MaxAhsLength)));
}

/// Silence is an answer where the offer determines the result, and for keys that came later.
// req: 7143-6.2.2-6, 7143-6.2-6, 7144-7.1.1-1, 7145-6.3-1
#[test]
fn silence() {
    let answers = [
        "MaxBurstLength=65536",
        "FirstBurstLength=65536",
        "ErrorRecoveryLevel=0",
        "MaxOutstandingR2T=1",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=20",
        "MaxConnections=1",
        "HeaderDigest=None",
        "DataDigest=None",
    ];
    let quiet = Preferences {
        initial_r2t: true,
        immediate_data: false,
        iscsi_protocol_level: 2,
        rdma_extensions: RdmaPolicy::Allow,
        ..wants()
    };
    let mut n = offered(&quiet);
    exchange(&mut n, &answers).unwrap();
    let (session, _) = n.conclude().unwrap();
    assert!(session.initial_r2t && !session.immediate_data && session.data_pdu_in_order);
    assert!(!session.rdma_extensions);
    assert_eq!(session.iscsi_protocol_level, 1);
    // No to an OR key and Yes to an AND key need an answer.
    for (loud, key) in [
        (Preferences { initial_r2t: false, ..quiet.clone() }, Key::InitialR2t),
        (Preferences { immediate_data: true, ..quiet.clone() }, Key::ImmediateData),
    ] {
        let mut n = offered(&loud);
        exchange(&mut n, &answers).unwrap();
        assert_eq!(n.conclude(), Err(Rule::Unanswered(key)));
    }
    let mut n = offered(&quiet);
    exchange(&mut n, &answers[1..]).unwrap();
    assert_eq!(n.conclude(), Err(Rule::Unanswered(Key::MaxBurstLength)));
}

/// A target's own offers: only where the value in force would not do, only keys that the initiator must know.
// req: 7145-6.7-1, 7145-6.3-4
#[test]
fn a_targets_offers() {
    let needs = |wants: &Preferences, text: &[&str], finished: bool| {
        let mut n = target_with(wants);
        exchange(&mut n, text).unwrap();
        let mut offers = empty();
        n.offer_needed(finished, &mut offers).unwrap();
        lines(offers)
    };
    assert_eq!(needs(&wants(), &[], true), ["MaxRecvDataSegmentLength=262144"]);
    let strict = Preferences {
        immediate_data: false,
        max_burst_length: 65_536,
        first_burst_length: 32_768,
        default_time2wait: 10,
        default_time2retain: 0,
        data_digest: DigestPolicy::Require,
        iscsi_protocol_level: 0,
        ..wants()
    };
    assert_eq!(
        needs(&strict, &[], true),
        [
            "ImmediateData=No",
            "MaxBurstLength=65536",
            "FirstBurstLength=32768",
            "DefaultTime2Wait=10",
            "DefaultTime2Retain=0",
            "DataDigest=CRC32C",
            "MaxRecvDataSegmentLength=262144",
        ]
    );
    assert_eq!(
        needs(&strict, &[], false),
        ["MaxRecvDataSegmentLength=262144"],
        "the initiator may still offer"
    );
    let set = [
        "ImmediateData=Yes",
        "MaxBurstLength=524288",
        "FirstBurstLength=65536",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=20",
        "DataDigest=CRC32C",
    ];
    assert_eq!(needs(&strict, &set, true), ["MaxRecvDataSegmentLength=262144"]);
    let iser = Preferences { rdma_extensions: RdmaPolicy::Require, ..wants() };
    assert_eq!(needs(&iser, &[], false), ["RDMAExtensions=Yes"]);
    // Keys of RFC 7145 go to those who have shown that they know them.
    assert_eq!(needs(&iser, &["RDMAExtensions=Yes"], true), Vec::<String>::new());
    let iser_keys = ["RDMAExtensions=Yes", "MaxOutstandingUnexpectedPDUs=8", "MaxAHSLength=256"];
    assert_eq!(needs(&iser, &iser_keys, true), ["MaxOutstandingUnexpectedPDUs=16", "MaxAHSLength=256"]);
}

// req: 7143-6.2-21, 7143-13.19-2
#[test]
fn an_initiator_checks_the_targets_work() {
    let mine = Preferences {
        error_recovery_level: 1,
        max_outstanding_r2t: 4,
        data_sequence_in_order: false,
        ..wants()
    };
    let mut n = offered(&mine);
    exchange(
        &mut n,
        &[
            "InitialR2T=Yes",
            "ImmediateData=Yes",
            "MaxBurstLength=65536",
            "FirstBurstLength=262144",
            "DataPDUInOrder=Yes",
            "DataSequenceInOrder=Yes",
            "ErrorRecoveryLevel=1",
            "MaxOutstandingR2T=4",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=20",
            "MaxConnections=1",
            "HeaderDigest=None",
            "DataDigest=None",
        ],
    )
    .unwrap();
    assert_eq!(n.params().0.first_burst_length, 65_536, "never beyond MaxBurstLength");
    assert_eq!(n.conclude(), Err(Rule::Integrity(Key::MaxOutstandingR2t)));
}

/// Behaviour does not depend on X#NodeArchitecture.
// req: 7143-13.26.2-1, 7143-13.26.2-2, 7143-13.26.2-5, 7143-13.26.1-1
#[test]
fn node_architecture() {
    let plain = target_with(&wants()).params();
    for value in ["ExampleOS/v1234,ExampleInc_SW_Initiator/1.05a", "", "\u{fffd}", &"x".repeat(255)] {
        let mut n = target_with(&wants());
        assert_eq!(exchange(&mut n, &[&format!("X#NodeArchitecture={value}")]), Ok(vec![]));
        assert_eq!(n.params(), plain);
        assert_eq!(n.peer_architecture().unwrap().as_str(), value);
    }
    let long = format!("X#NodeArchitecture={}", "x".repeat(256));
    assert_eq!(exchange(&mut target_with(&wants()), &[&long]), Err(Rule::Value(Key::NodeArchitecture)));
}
