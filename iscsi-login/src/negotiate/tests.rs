mod offers;
mod properties;

use super::*;
use crate::config::DigestPolicy;

fn place() -> Place {
    Place { session_type: SessionType::Normal, joined: None }
}

fn discovery() -> Place {
    Place { session_type: SessionType::Discovery, joined: None }
}

fn lines(answer: Answer) -> Vec<String> {
    let text = answer.finish().unwrap();
    text.split(|b| *b == 0)
        .filter(|l| !l.is_empty())
        .map(|l| String::from_utf8(l.to_vec()).unwrap())
        .collect()
}

fn empty() -> Answer {
    Answer::new(16_384, 0)
}

/// One batch of proposals to `n`, and its answers.
fn exchange(n: &mut Negotiation, text: &[&str]) -> Result<Vec<String>, Rule> {
    for line in text {
        let (key, value) = line.split_once('=').unwrap();
        n.receive(Key::from_name(key).unwrap(), value)?;
    }
    let mut answer = empty();
    n.settle(&mut answer)?;
    Ok(lines(answer))
}

fn target_with(wants: &Preferences) -> Negotiation {
    Negotiation::new(Role::Target, wants, place())
}

/// What a target with these wishes answers to one key.
fn answer_to(wants: &Preferences, line: &str) -> String {
    exchange(&mut target_with(wants), &[line]).unwrap().join(" ")
}

fn wants() -> Preferences {
    Preferences::default()
}

/// Every boolean key: default, and each pair of offer and wish (RFC 7143 section 6.2.2 and the keys' sections).
// req: 7143-13.10-1, 7143-13.11-6, 7143-13.18-1, 7143-13.19-3, 7145-6.3-7, 7143-6.2.2-5, 7143-13-3, 7143-6.2.2-1
#[test]
fn booleans() {
    type Set = fn(&mut Preferences, bool);
    let or: [(&str, Set); 3] = [
        ("InitialR2T", |p, b| p.initial_r2t = b),
        ("DataPDUInOrder", |p, b| p.data_pdu_in_order = b),
        ("DataSequenceInOrder", |p, b| p.data_sequence_in_order = b),
    ];
    let and: [(&str, Set); 2] = [
        ("ImmediateData", |p, b| p.immediate_data = b),
        ("RDMAExtensions", |p, b| p.rdma_extensions = if b { RdmaPolicy::Allow } else { RdmaPolicy::Never }),
    ];
    for offered in [true, false] {
        for mine in [true, false] {
            let check = |name: &str, set: Set, result: bool| {
                let mut p = wants();
                set(&mut p, mine);
                let line = format!("{name}={}", boolean_text(offered));
                assert_eq!(answer_to(&p, &line), format!("{name}={}", boolean_text(result)));
            };
            or.iter().for_each(|(name, set)| check(name, *set, offered || mine));
            and.iter().for_each(|(name, set)| check(name, *set, offered && mine));
        }
    }
    for (name, _) in or.iter().chain(&and) {
        for bad in ["yes", "YES", "", "1", "Yes,No"] {
            assert_eq!(answer_to(&wants(), &format!("{name}={bad}")), format!("{name}=Reject"));
        }
    }
    let (session, _) = target_with(&wants()).params();
    assert!(session.initial_r2t && session.immediate_data && !session.rdma_extensions);
    assert!(session.data_pdu_in_order && session.data_sequence_in_order);
}

/// Every numerical key that is negotiated: bounds, default and result function, typed from the RFCs.
// req: 7143-13.2-1, 7143-13.13-1, 7143-13.14-2, 7143-13.15-1, 7143-13.16-1, 7143-13.17-1, 7143-13.20-1, 7144-7.1.1-2
// req: 7145-6.4-2, 7145-6.5-1, 7143-6.2.2-2, 7143-6.2.2-3, 7143-6.2-7, 7143-6.2.2-4, 7143-7.1.5-4, 7143-7.1.5-2
#[test]
fn numbers() {
    // key, lowest, highest, and what a target with the wishes below answers to the lowest and to the highest
    const ROWS: &[(&str, u64, u64, u64, u64)] = &[
        ("MaxConnections", 1, 65_535, 1, 4),
        ("MaxBurstLength", 512, 16_777_215, 512, 524_288),
        ("FirstBurstLength", 512, 16_777_215, 512, 131_072),
        ("DefaultTime2Wait", 0, 3600, 5, 3600),
        ("DefaultTime2Retain", 0, 3600, 0, 60),
        ("MaxOutstandingR2T", 1, 65_535, 1, 8),
        ("ErrorRecoveryLevel", 0, 2, 0, 1),
        ("iSCSIProtocolLevel", 0, 31, 0, 2),
        ("InitiatorRecvDataSegmentLength", 512, 16_777_215, 512, 16_384),
        ("TargetRecvDataSegmentLength", 512, 16_777_215, 512, 32_768),
    ];
    let mine = Preferences {
        max_connections: 4,
        max_burst_length: 524_288,
        first_burst_length: 131_072,
        default_time2wait: 5,
        default_time2retain: 60,
        max_outstanding_r2t: 8,
        error_recovery_level: 1,
        data_sequence_in_order: false,
        iscsi_protocol_level: 2,
        rdma_extensions: RdmaPolicy::Allow,
        initiator_recv_data_segment_length: 16_384,
        target_recv_data_segment_length: 32_768,
        ..wants()
    };
    let ask = |key: &str, value: &str| {
        let mut n = target_with(&mine);
        exchange(&mut n, &["RDMAExtensions=Yes", "DataSequenceInOrder=No"]).unwrap();
        exchange(&mut n, &[&format!("{key}={value}")]).unwrap().join(" ")
    };
    for (key, low, high, to_low, to_high) in ROWS {
        assert_eq!(ask(key, &low.to_string()), format!("{key}={to_low}"));
        assert_eq!(ask(key, &high.to_string()), format!("{key}={to_high}"));
        assert_eq!(ask(key, &format!("{high:#x}")), format!("{key}={to_high}"), "hexadecimal");
        assert_eq!(ask(key, &(high + 1).to_string()), format!("{key}=Reject"));
        if *low > 0 {
            assert_eq!(ask(key, &(low - 1).to_string()), format!("{key}=Reject"));
        }
        // No key of today allows a range, and a number is nothing but a number.
        for bad in [&format!("{low}~{high}"), "", "ten", "4294967808", "18446744073709551616"] {
            assert_eq!(ask(key, bad), format!("{key}=Reject"), "{bad}");
        }
    }
}

/// Lists: the proposer's first that the acceptor supports; None only if offered; unknown values are skipped.
// req: 7143-13.1-9, 7143-13.23-6, 7143-6.2.1-1, 7143-6.2.1-2, 7143-6.2.1-3, 7143-13.1-7, 7143-14-2, 7143-6.3.2-2
// req: 7143-13.1-6, 7143-13.1-8
#[test]
fn lists() {
    let with = |d: DigestPolicy| Preferences { header_digest: d, data_digest: d, ..wants() };
    for key in ["HeaderDigest", "DataDigest"] {
        for (policy, offer, result) in [
            (DigestPolicy::Prefer, "CRC32C,None", "CRC32C"),
            (DigestPolicy::Prefer, "None,CRC32C", "None"),
            (DigestPolicy::Avoid, "CRC32C,None", "CRC32C"),
            (DigestPolicy::Avoid, "CRC32C", "CRC32C"),
            (DigestPolicy::Never, "CRC32C,None", "None"),
            (DigestPolicy::Never, "CRC32C", "Reject"),
            (DigestPolicy::Never, "foo,None", "None"),
            (DigestPolicy::Never, "Y-com.example.sha,Y-bad name,Y#foo,None", "None"),
            (DigestPolicy::Require, "None,CRC32C", "CRC32C"),
            (DigestPolicy::Require, "None", "Reject"),
            (DigestPolicy::Prefer, "crc32c", "Reject"),
            (DigestPolicy::Prefer, "", "Reject"),
        ] {
            assert_eq!(
                answer_to(&with(policy), &format!("{key}={offer}")),
                format!("{key}={result}"),
                "{policy:?}"
            );
        }
    }
    let fence = Preferences { task_reporting: vec![TaskReporting::ResponseFence], ..wants() };
    for (offer, result) in [
        ("RFC3720,ResponseFence,FastAbort", "RFC3720"),
        ("FastAbort,ResponseFence,RFC3720", "ResponseFence"),
        ("New,RFC3720", "RFC3720"),
        ("FastAbort", "Reject"),
    ] {
        assert_eq!(answer_to(&fence, &format!("TaskReporting={offer}")), format!("TaskReporting={result}"));
    }
    assert_eq!(target_with(&fence).params().0.task_reporting, TaskReporting::Rfc3720);
}

/// Declarative numbers: no answer; an inadmissible one ends the negotiation.
// req: 7143-13.12-2, 7143-13-4, 7145-6.7-2, 7145-6.8-2
#[test]
fn declared_numbers() {
    let iser = Preferences { rdma_extensions: RdmaPolicy::Allow, ..wants() };
    let declare = |line: &str| {
        let mut n = target_with(&iser);
        exchange(&mut n, &["RDMAExtensions=Yes", line]).map(|a| {
            assert_eq!(a, ["RDMAExtensions=Yes"], "no answer to a declaration");
            n.params().0
        })
    };
    for (key, good, bad) in [
        ("MaxRecvDataSegmentLength", &["512", "16777215"][..], &["511", "16777216", "x", ""][..]),
        ("MaxOutstandingUnexpectedPDUs", &["0", "2", "4294967295"], &["1", "4294967296", "No"]),
        ("MaxAHSLength", &["0", "2", "256", "4294967295"], &["1", "4294967296"]),
    ] {
        for value in good {
            assert!(declare(&format!("{key}={value}")).is_ok(), "{key}={value}");
        }
        for value in bad {
            let rule = declare(&format!("{key}={value}")).unwrap_err();
            assert_eq!(rule, Rule::Value(Key::from_name(key).unwrap()), "{key}={value}");
        }
    }
    let s = declare("MaxAHSLength=512").unwrap();
    assert_eq!((s.initiator_max_ahs_length, s.target_max_ahs_length), (512, 256));
    let s = declare("MaxOutstandingUnexpectedPDUs=9").unwrap();
    assert_eq!(s.initiator_max_outstanding_unexpected_pdus, Some(9));
    let s = declare("MaxOutstandingUnexpectedPDUs=0").unwrap();
    assert_eq!(s.initiator_max_outstanding_unexpected_pdus, Some(0), "0 is \"no limit\", not silence");
}

/// Declarations of the initiator alone: said Yes, said No, not said.
// req: 7145-6.9-1, 7145-6.10-3
#[test]
fn declared_booleans() {
    let iser = Preferences { rdma_extensions: RdmaPolicy::Allow, ..wants() };
    for (key, pick) in [
        (
            "TaggedBufferForSolicitedDataOnly",
            (|s| s.tagged_buffer_for_solicited_data_only) as fn(&SessionParams) -> _,
        ),
        ("iSERHelloRequired", |s| s.iser_hello_required),
    ] {
        for (said, result) in [(Some("Yes"), Some(true)), (Some("No"), Some(false)), (None, None)] {
            let mut n = target_with(&iser);
            exchange(&mut n, &["RDMAExtensions=Yes"]).unwrap();
            if let Some(said) = said {
                exchange(&mut n, &[&format!("{key}={said}")]).unwrap();
            }
            assert_eq!(pick(&n.params().0), result, "{key} {said:?}");
        }
        let mut n = target_with(&iser);
        assert!(exchange(&mut n, &[&format!("{key}=yes")]).is_err());
    }
}

/// Obsolete keys are refused, and known (RFC 7143 section 13.25).
// req: 7143-13.25-1, 7143-13.25-3, 7143-13.25-4, 7143-13.25-5
#[test]
fn markers() {
    for line in ["IFMarker=Yes", "IFMarker=No", "OFMarker=Yes", "IFMarkInt=2048~8192", "OFMarkInt=2048"] {
        let key = line.split('=').next().unwrap();
        assert_eq!(answer_to(&wants(), line), format!("{key}=Reject"));
    }
}

/// A key that is used as specified is never NotUnderstood.
// req: 7143-6.2-17, 7145-3.3-9, 7143-6.2-10
#[test]
fn every_key_is_understood() {
    for key in Key::ALL.iter().filter(|k| k.def().stage == StageUse::Operational) {
        for value in ["Yes", "512", "None,RFC3720", "x"] {
            let line = format!("{}={value}", key.name());
            if let Ok(answers) = exchange(&mut target_with(&wants()), &[&line]) {
                assert!(!answers.join("").contains("NotUnderstood"), "{line}");
            }
        }
    }
}

// req: 7143-6.2-13
#[test]
fn reserved_words_are_no_proposals() {
    for line in [
        "HeaderDigest=Reject",
        "HeaderDigest=None,Irrelevant",
        "MaxBurstLength=NotUnderstood",
        "ImmediateData=Irrelevant",
        "MaxRecvDataSegmentLength=Reject",
        "X#NodeArchitecture=NotUnderstood",
    ] {
        assert_eq!(exchange(&mut target_with(&wants()), &[line]), Err(Rule::ReservedWord), "{line}");
    }
    assert_eq!(answer_to(&wants(), "HeaderDigest=None"), "HeaderDigest=None");
}

// req: 7143-6.3-17, 7143-13.26.1-2
#[test]
fn repetition() {
    for line in
        ["MaxBurstLength=65536", "MaxRecvDataSegmentLength=65536", "IFMarker=No", "X#NodeArchitecture=a"]
    {
        let key = Key::from_name(line.split('=').next().unwrap()).unwrap();
        assert_eq!(exchange(&mut target_with(&wants()), &[line, line]), Err(Rule::Repeated(key)));
        let mut n = target_with(&wants());
        exchange(&mut n, &[line]).unwrap();
        assert_eq!(exchange(&mut n, &[line]), Err(Rule::Repeated(key)), "{line} in two texts");
    }
}

/// RFC 7143 section 13.14: FirstBurstLength never exceeds MaxBurstLength, in whatever order they come.
// req: 7143-13.14-1, 7143-6.2-20, 7143-6.2-25
#[test]
fn first_burst_within_burst() {
    let big = Preferences { max_burst_length: 16_777_215, first_burst_length: 16_777_215, ..wants() };
    let first = "FirstBurstLength=524288";
    let burst = "MaxBurstLength=262144";
    for order in [[first, burst], [burst, first]] {
        let answers = exchange(&mut target_with(&big), &order).unwrap();
        assert_eq!(answers, ["MaxBurstLength=262144", "FirstBurstLength=262144"]);
    }
    // In texts of their own: what was agreed first stands, and the rule holds.
    let mut n = target_with(&big);
    assert_eq!(exchange(&mut n, &["FirstBurstLength=262144"]).unwrap(), ["FirstBurstLength=262144"]);
    assert_eq!(exchange(&mut n, &["MaxBurstLength=65536"]).unwrap(), ["MaxBurstLength=Reject"]);
    let (session, _) = n.conclude().unwrap();
    assert!(session.first_burst_length <= session.max_burst_length);
    // A burst alone below the default first burst makes the target ask.
    let mut n = target_with(&big);
    exchange(&mut n, &["MaxBurstLength=32768"]).unwrap();
    let mut offers = empty();
    n.offer_needed(true, &mut offers).unwrap();
    assert!(lines(offers).contains(&"FirstBurstLength=32768".to_owned()));
}

/// RFC 7143 section 13.19: several R2Ts at recovery levels above 0 only out of order.
// req: 7143-13.19-2, 7143-6.2-25
#[test]
fn one_r2t_with_recovery_in_order() {
    let mine = Preferences {
        error_recovery_level: 2,
        max_outstanding_r2t: 16,
        data_sequence_in_order: false,
        ..wants()
    };
    let (level, r2t) = ("ErrorRecoveryLevel=2", "MaxOutstandingR2T=8");
    for order in [[level, r2t], [r2t, level]] {
        let answers = exchange(&mut target_with(&mine), &order).unwrap();
        assert_eq!(answers, ["ErrorRecoveryLevel=2", "MaxOutstandingR2T=1"]);
        let mut with_order = order.to_vec();
        with_order.push("DataSequenceInOrder=No");
        let answers = exchange(&mut target_with(&mine), &with_order).unwrap();
        assert_eq!(answers, ["DataSequenceInOrder=No", "ErrorRecoveryLevel=2", "MaxOutstandingR2T=8"]);
    }
    let mut n = target_with(&mine);
    exchange(&mut n, &[r2t]).unwrap();
    assert_eq!(exchange(&mut n, &[level]).unwrap(), ["ErrorRecoveryLevel=0"], "R2Ts were agreed before");
}

/// The example of RFC 7143 section 6.2.
// req: 7143-6.2-24
#[test]
fn irrelevant_example_of_the_rfc() {
    let mine = Preferences { initial_r2t: true, immediate_data: false, ..wants() };
    let answers =
        exchange(&mut target_with(&mine), &["InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=4192"])
            .unwrap();
    assert_eq!(answers, ["InitialR2T=Yes", "ImmediateData=No", "FirstBurstLength=Irrelevant"]);
}

/// Keys that do not matter on a discovery session are answered so and change nothing; recovery stays at level 0.
// req: 7143-13.21-1, 7143-7.4.1-1, 7143-7.4.1-2, 7145-5.1-5, 7143-13.2-1, 7143-13.21-3
#[test]
fn discovery_sessions() {
    let mine = Preferences {
        error_recovery_level: 2,
        max_connections: 8,
        rdma_extensions: RdmaPolicy::Allow,
        ..wants()
    };
    for key in Key::ALL.iter().filter(|k| k.def().irrelevant.contains(&Irrelevant::Discovery)) {
        let mut n = Negotiation::new(Role::Target, &mine, discovery());
        let before = n.params();
        let value = match key.def().value {
            ValueType::Boolean => "Yes",
            ValueType::Number { .. } => "4096",
            _ => "FastAbort,RFC3720",
        };
        let value = if *key == Key::IscsiProtocolLevel { "2" } else { value };
        let answers = exchange(&mut n, &[&format!("{}={value}", key.name())]).unwrap();
        assert_eq!(answers, [format!("{}=Irrelevant", key.name())]);
        assert_eq!(n.params(), before);
    }
    let mut n = Negotiation::new(Role::Target, &mine, discovery());
    assert_eq!(exchange(&mut n, &["ErrorRecoveryLevel=2"]).unwrap(), ["ErrorRecoveryLevel=0"]);
    let (session, _) = n.params();
    assert_eq!((session.error_recovery_level, session.max_connections), (0, 1));
    // An initiator does not even offer them.
    let mut offers = empty();
    Negotiation::new(Role::Initiator, &mine, discovery()).offer_all(&mut offers).unwrap();
    assert_eq!(
        lines(offers),
        [
            "ErrorRecoveryLevel=0",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=20",
            "HeaderDigest=None,CRC32C",
            "DataDigest=None,CRC32C",
            "MaxRecvDataSegmentLength=262144",
        ]
    );
}

/// With RDMAExtensions=Yes the digests are None and MaxRecvDataSegmentLength says nothing (RFC 7145 sections 6.1, 6.2).
// req: 7145-5.1-9, 7145-6.1-1, 7145-6.2-1, 7145-6.2-2, 7145-6.2-3, 7145-6.6-1, 7145-3.3-1, 7145-3.3-10
#[test]
fn iser_sessions() {
    let mine = Preferences {
        rdma_extensions: RdmaPolicy::Allow,
        header_digest: DigestPolicy::Prefer,
        initiator_recv_data_segment_length: 4096,
        ..wants()
    };
    let mut n = target_with(&mine);
    let answers = exchange(
        &mut n,
        &[
            "HeaderDigest=CRC32C,None",
            "DataDigest=CRC32C",
            "MaxRecvDataSegmentLength=65536",
            "OFMarker=Yes",
            "InitiatorRecvDataSegmentLength=262144",
            "TargetRecvDataSegmentLength=8192",
            "RDMAExtensions=Yes",
        ],
    )
    .unwrap();
    assert_eq!(
        answers,
        [
            "RDMAExtensions=Yes",
            "HeaderDigest=None",
            "DataDigest=Irrelevant",
            "InitiatorRecvDataSegmentLength=4096",
            "TargetRecvDataSegmentLength=8192",
            "OFMarker=Reject",
        ]
    );
    let (session, conn) = n.conclude().unwrap();
    assert!(session.rdma_extensions);
    assert_eq!((conn.header_digest, conn.data_digest), (Digest::None, Digest::None));
    // The target receives 8192 and sends 4096.
    assert_eq!((conn.max_recv_data_segment_length, conn.max_send_data_segment_length), (8192, 4096));
}

// req: 7145-3.3-2, 7145-6.3-2, 7145-5.1-3, 7145-5.1-4
#[test]
fn without_rdma_the_iser_keys_are_irrelevant() {
    let iser = Preferences { rdma_extensions: RdmaPolicy::Allow, ..wants() };
    for (mine, offer) in
        [(wants(), "RDMAExtensions=Yes"), (iser.clone(), "RDMAExtensions=No"), (iser, "IFMarker=No")]
    {
        let mut n = target_with(&mine);
        let answers = exchange(
            &mut n,
            &[
                offer,
                "InitiatorRecvDataSegmentLength=4096",
                "TargetRecvDataSegmentLength=4096",
                "MaxOutstandingUnexpectedPDUs=7",
                "MaxAHSLength=512",
                "TaggedBufferForSolicitedDataOnly=Yes",
                "iSERHelloRequired=Yes",
                "MaxRecvDataSegmentLength=65536",
            ],
        )
        .unwrap();
        assert!(answers.contains(&"InitiatorRecvDataSegmentLength=Irrelevant".into()));
        assert!(answers.contains(&"TargetRecvDataSegmentLength=Irrelevant".into()));
        let (session, conn) = n.params();
        assert!(!session.rdma_extensions);
        assert_eq!(
            (session.iser_hello_required, session.tagged_buffer_for_solicited_data_only),
            (None, None)
        );
        assert_eq!(session.initiator_max_ahs_length, 256);
        assert_eq!(conn.max_send_data_segment_length, 65_536);
    }
}

/// RDMAExtensions is in the first text of the operational stage or nowhere (RFC 7145 section 6.3).
// req: 7145-5.1-6, 7145-6.3-3, 7145-6.3-6
#[test]
fn rdma_extensions_comes_first() {
    let iser = Preferences { rdma_extensions: RdmaPolicy::Allow, ..wants() };
    let mut n = target_with(&iser);
    assert_eq!(exchange(&mut n, &["RDMAExtensions=Yes"]).unwrap(), ["RDMAExtensions=Yes"]);
    let mut n = target_with(&iser);
    exchange(&mut n, &["MaxBurstLength=65536"]).unwrap();
    assert_eq!(exchange(&mut n, &["RDMAExtensions=Yes"]), Err(Rule::NotAllowedHere(Key::RdmaExtensions)));
    let mut offers = empty();
    Negotiation::new(Role::Initiator, &iser, place()).offer_all(&mut offers).unwrap();
    assert_eq!(lines(offers)[0], "RDMAExtensions=Yes");
}
