use super::*;
use Senders::{Both, Initiator, Target};
use Usage::{All, Ffpo, Io, Lo};

/// Use, senders, scope and default of every key, typed from RFC 7143 sections 12.1 and 13, RFC 7144 section 7.1.1 and
/// RFC 7145 section 6.
const RFC: &[(&str, Usage, Senders, Scope, DefaultValue)] = &[
    ("AuthMethod", Io, Both, Scope::Connection, Absent),
    ("CHAP_A", Io, Both, Scope::Connection, Absent),
    ("CHAP_I", Io, Both, Scope::Connection, Absent),
    ("CHAP_C", Io, Both, Scope::Connection, Absent),
    ("CHAP_N", Io, Both, Scope::Connection, Absent),
    ("CHAP_R", Io, Both, Scope::Connection, Absent),
    ("HeaderDigest", Io, Both, Scope::Connection, Is("None")),
    ("DataDigest", Io, Both, Scope::Connection, Is("None")),
    ("MaxConnections", Lo, Both, Scope::Session, Num(1)),
    ("SendTargets", Ffpo, Initiator, Scope::Session, Absent),
    ("TargetName", Io, Initiator, Scope::Session, Absent),
    ("InitiatorName", Io, Initiator, Scope::Session, Absent),
    ("TargetAlias", All, Target, Scope::Session, Absent),
    ("InitiatorAlias", All, Initiator, Scope::Session, Absent),
    ("TargetAddress", All, Target, Scope::Session, Absent),
    ("TargetPortalGroupTag", Io, Target, Scope::Session, Absent),
    ("InitialR2T", Lo, Both, Scope::Session, Bool(true)),
    ("ImmediateData", Lo, Both, Scope::Session, Bool(true)),
    ("MaxRecvDataSegmentLength", All, Both, Scope::Connection, Num(8192)),
    ("MaxBurstLength", Lo, Both, Scope::Session, Num(262_144)),
    ("FirstBurstLength", Lo, Both, Scope::Session, Num(65_536)),
    ("DefaultTime2Wait", Lo, Both, Scope::Session, Num(2)),
    ("DefaultTime2Retain", Lo, Both, Scope::Session, Num(20)),
    ("MaxOutstandingR2T", Lo, Both, Scope::Session, Num(1)),
    ("DataPDUInOrder", Lo, Both, Scope::Session, Bool(true)),
    ("DataSequenceInOrder", Lo, Both, Scope::Session, Bool(true)),
    ("ErrorRecoveryLevel", Lo, Both, Scope::Session, Num(0)),
    ("SessionType", Lo, Initiator, Scope::Session, Is("Normal")),
    ("TaskReporting", Lo, Both, Scope::Session, Is("RFC3720")),
    ("iSCSIProtocolLevel", Lo, Both, Scope::Session, Num(1)),
    ("X#NodeArchitecture", Lo, Both, Scope::Session, Absent),
    ("RDMAExtensions", Lo, Both, Scope::Session, Bool(false)),
    ("TargetRecvDataSegmentLength", Io, Both, Scope::Connection, Num(8192)),
    ("InitiatorRecvDataSegmentLength", Io, Both, Scope::Connection, Num(8192)),
    ("MaxOutstandingUnexpectedPDUs", Lo, Both, Scope::Session, Num(0)),
    ("MaxAHSLength", Lo, Both, Scope::Session, Num(256)),
    ("TaggedBufferForSolicitedDataOnly", Lo, Initiator, Scope::Session, Bool(false)),
    ("iSERHelloRequired", Lo, Initiator, Scope::Session, Bool(false)),
];

/// The keys of RFC 3720 that RFC 7143 section 13.25 obsoletes.
const OBSOLETE: &[&str] = &["IFMarker", "OFMarker", "IFMarkInt", "OFMarkInt"];

// req: 7143-6.2-10, 7143-6.2-16, 7143-11.12.10-2, 7143-11.13.8-2, 7145-3.3-8
#[test]
fn the_table_is_the_rfcs() {
    for (name, usage, senders, scope, default) in RFC {
        let def = Key::from_name(name).unwrap_or_else(|| panic!("{name} is not in the table")).def();
        assert_eq!((def.name, def.usage, def.senders), (*name, *usage, *senders));
        assert_eq!((def.scope, def.default), (*scope, *default), "{name}");
    }
    for name in OBSOLETE {
        assert_eq!(Key::from_name(name).unwrap().def().result, ResultFunction::Refused, "{name}");
    }
    assert_eq!(Key::ALL.len(), RFC.len() + OBSOLETE.len());
}

/// "Any-Stage" of RFC 7143 section 13, and the list at the head of section 12.
// req: 7143-12-1
#[test]
fn stages() {
    let stage =
        |s: StageUse| Key::ALL.iter().filter(|k| k.def().stage == s).map(|k| k.name()).collect::<Vec<_>>();
    let mut any = stage(StageUse::Any);
    any.sort_unstable();
    assert_eq!(
        any,
        [
            "InitiatorAlias",
            "InitiatorName",
            "SessionType",
            "TargetAddress",
            "TargetAlias",
            "TargetName",
            "TargetPortalGroupTag",
        ]
    );
    let security = ["AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"];
    assert_eq!(stage(StageUse::Security), security);
    assert_eq!(stage(StageUse::Never), ["SendTargets"]);
}

/// "Irrelevant when" of RFC 7143 section 13 and RFC 7145 section 6.
#[test]
fn irrelevance() {
    let with = |i: Irrelevant| {
        let mut names: Vec<_> =
            Key::ALL.iter().filter(|k| k.def().irrelevant.contains(&i)).map(|k| k.name()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(
        with(Irrelevant::Discovery),
        [
            "DataPDUInOrder",
            "DataSequenceInOrder",
            "FirstBurstLength",
            "ImmediateData",
            "InitialR2T",
            "MaxBurstLength",
            "MaxConnections",
            "MaxOutstandingR2T",
            "RDMAExtensions",
            "TaskReporting",
            "iSCSIProtocolLevel",
        ]
    );
    assert_eq!(with(Irrelevant::NoUnsolicitedData), ["FirstBurstLength"]);
    assert_eq!(with(Irrelevant::WithRdma), ["DataDigest", "HeaderDigest"]);
    assert_eq!(
        with(Irrelevant::WithoutRdma),
        [
            "InitiatorRecvDataSegmentLength",
            "MaxAHSLength",
            "MaxOutstandingUnexpectedPDUs",
            "TaggedBufferForSolicitedDataOnly",
            "TargetRecvDataSegmentLength",
            "iSERHelloRequired",
        ]
    );
}

/// "Result function" and declarative keys.
#[test]
fn result_functions() {
    use ResultFunction as R;
    let of = |r: R| {
        let mut names: Vec<_> = Key::ALL.iter().filter(|k| k.def().result == r).map(|k| k.name()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(
        of(R::Minimum),
        [
            "DefaultTime2Retain",
            "ErrorRecoveryLevel",
            "FirstBurstLength",
            "InitiatorRecvDataSegmentLength",
            "MaxBurstLength",
            "MaxConnections",
            "MaxOutstandingR2T",
            "TargetRecvDataSegmentLength",
            "iSCSIProtocolLevel",
        ]
    );
    assert_eq!(of(R::Maximum), ["DefaultTime2Wait"]);
    assert_eq!(of(R::And), ["ImmediateData", "RDMAExtensions"]);
    assert_eq!(of(R::Or), ["DataPDUInOrder", "DataSequenceInOrder", "InitialR2T"]);
    assert_eq!(of(R::First), ["DataDigest", "HeaderDigest", "TaskReporting"]);
    assert_eq!(
        of(R::Declared),
        [
            "InitiatorAlias",
            "InitiatorName",
            "MaxAHSLength",
            "MaxOutstandingUnexpectedPDUs",
            "MaxRecvDataSegmentLength",
            "SessionType",
            "TaggedBufferForSolicitedDataOnly",
            "TargetAddress",
            "TargetAlias",
            "TargetName",
            "TargetPortalGroupTag",
            "X#NodeArchitecture",
            "iSERHelloRequired",
        ]
    );
}

// req: 7143-6.1-6, 7143-6.1-2, 7143-6.2-18, 7143-14-1, 7143-13.1-7, 7143-12.1-7, 7143-12.1-8
#[test]
fn names() {
    assert_eq!(Key::from_name("headerdigest"), None);
    assert_eq!(Key::from_name("HEADERDIGEST"), None);
    for key in Key::ALL {
        assert_eq!(Key::from_name(key.name()), Some(*key));
        assert_eq!(Key::ALL[key.index()], *key);
        let public_extension = key.name().contains('#');
        assert_eq!(public_extension, *key == Key::NodeArchitecture, "{}", key.name());
    }
}

/// A key must stand below those that its answer depends on.
#[test]
fn order_of_settling() {
    for (first, then) in [
        (Key::RdmaExtensions, Key::HeaderDigest),
        (Key::RdmaExtensions, Key::InitiatorRecvDataSegmentLength),
        (Key::RdmaExtensions, Key::TargetRecvDataSegmentLength),
        (Key::InitialR2t, Key::FirstBurstLength),
        (Key::ImmediateData, Key::FirstBurstLength),
        (Key::MaxBurstLength, Key::FirstBurstLength),
        (Key::DataSequenceInOrder, Key::ErrorRecoveryLevel),
        (Key::ErrorRecoveryLevel, Key::MaxOutstandingR2t),
    ] {
        assert!(first < then, "{first:?} {then:?}");
    }
}
