//! Keys of the login: what each type of negotiation has to give (RFC 7143 sections 6.2 and 13, RFC 7144 section 7.1).

use super::{Bench, Conn, Login, bad_result};
use crate::case::Case;
use crate::keys::{find, number, pairs, text};
use crate::pdu::{C, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

const OPERATIONAL: u8 = 0x04;
const OPERATIONAL_TO_FULL: u8 = 0x87;

pub(super) const CASES: &[Case] = &[
    Case::target("keys-01", "an unknown public key is answered NotUnderstood", &["7143-6.2-8"], |b| {
        one(b, "7143-6.2-8", ("NoSuchKey", "1"), "NotUnderstood", |v| v == "NotUnderstood")
    }),
    Case::target("keys-02", "an unknown private key is answered NotUnderstood", &["7143-6.2-8"], |b| {
        one(b, "7143-6.2-8", ("X-org.example.no-such-key", "abc"), "NotUnderstood", |v| v == "NotUnderstood")
    }),
    Case::target("keys-03", "key names are case sensitive", &["7143-6.1-6", "7143-6.2-8"], |b| {
        one(b, "7143-6.1-6", ("MAXBURSTLENGTH", "65536"), "NotUnderstood", |v| v == "NotUnderstood")
    }),
    Case::target(
        "keys-04",
        "a key name of 63 characters is taken whole",
        &["7143-6.1-2", "7143-6.2-8"],
        |b| {
            const NAME: &str = "X-org.example.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
            one(b, "7143-6.1-2", (NAME, "1"), "NotUnderstood", |v| v == "NotUnderstood")
        },
    ),
    Case::target(
        "keys-05",
        "MaxBurstLength, minimum: the least value stays",
        &["7143-13.13-1", "7143-13-3"],
        |b| one(b, "7143-13.13-1", ("MaxBurstLength", "512"), "512", |v| number(v) == Some(512)),
    ),
    Case::target(
        "keys-06",
        "MaxBurstLength, minimum: never above the offer",
        &["7143-13.13-1", "7143-13-3"],
        |b| at_most(b, "7143-13.13-1", "MaxBurstLength", "16777215", 512, 16_777_215),
    ),
    Case::target(
        "keys-07",
        "FirstBurstLength, minimum: never above the offer",
        &["7143-13.14-2", "7143-13-3"],
        |b| at_most(b, "7143-13.14-2", "FirstBurstLength", "4096", 512, 4096),
    ),
    Case::target(
        "keys-08",
        "FirstBurstLength does not end above MaxBurstLength",
        &["7143-13.14-1", "7143-6.2-25"],
        first_burst_above,
    ),
    Case::target("keys-09", "MaxOutstandingR2T, minimum: 1 stays", &["7143-13.17-1"], |b| {
        one(b, "7143-13.17-1", ("MaxOutstandingR2T", "1"), "1", |v| number(v) == Some(1))
    }),
    Case::target(
        "keys-10",
        "MaxOutstandingR2T, minimum: never above the offer, at least 1",
        &["7143-13.17-1"],
        |b| at_most(b, "7143-13.17-1", "MaxOutstandingR2T", "65535", 1, 65_535),
    ),
    Case::target("keys-11", "MaxConnections, minimum: 1 stays", &["7143-13.2-1"], |b| {
        one(b, "7143-13.2-1", ("MaxConnections", "1"), "1", |v| number(v) == Some(1))
    }),
    Case::target(
        "keys-12",
        "MaxConnections, minimum: never above the offer, at least 1",
        &["7143-13.2-1"],
        |b| at_most(b, "7143-13.2-1", "MaxConnections", "4", 1, 4),
    ),
    Case::target("keys-13", "ErrorRecoveryLevel, minimum: 0 stays", &["7143-13.20-1"], |b| {
        one(b, "7143-13.20-1", ("ErrorRecoveryLevel", "0"), "0", |v| number(v) == Some(0))
    }),
    Case::target("keys-14", "ErrorRecoveryLevel, minimum: at most 2", &["7143-13.20-1"], |b| {
        at_most(b, "7143-13.20-1", "ErrorRecoveryLevel", "2", 0, 2)
    }),
    Case::target(
        "keys-15",
        "DefaultTime2Wait, maximum: the greatest value stays",
        &["7143-13.15-1", "7143-13-3"],
        |b| one(b, "7143-13.15-1", ("DefaultTime2Wait", "3600"), "3600", |v| number(v) == Some(3600)),
    ),
    Case::target("keys-16", "DefaultTime2Retain, minimum: 0 stays", &["7143-13.16-1", "7143-13-3"], |b| {
        one(b, "7143-13.16-1", ("DefaultTime2Retain", "0"), "0", |v| number(v) == Some(0))
    }),
    Case::target(
        "keys-17",
        "InitialR2T, or: No has to be answered",
        &["7143-13.10-1", "7143-6.2.2-5"],
        |b| one(b, "7143-6.2.2-5", ("InitialR2T", "No"), "Yes or No", yes_or_no),
    ),
    Case::target(
        "keys-18",
        "InitialR2T, or: Yes stays, or is not answered",
        &["7143-13.10-1", "7143-13-3"],
        |b| silent_or(b, "7143-13.10-1", ("InitialR2T", "Yes"), "Yes"),
    ),
    Case::target(
        "keys-19",
        "ImmediateData, and: Yes has to be answered",
        &["7143-13.11-6", "7143-6.2.2-5"],
        |b| one(b, "7143-6.2.2-5", ("ImmediateData", "Yes"), "Yes or No", yes_or_no),
    ),
    Case::target(
        "keys-20",
        "ImmediateData, and: No stays, or is not answered",
        &["7143-13.11-6", "7143-13-3"],
        |b| silent_or(b, "7143-13.11-6", ("ImmediateData", "No"), "No"),
    ),
    Case::target(
        "keys-21",
        "DataPDUInOrder and DataSequenceInOrder, or: Yes stays",
        &["7143-13.18-1", "7143-13.19-3"],
        |b| {
            silent_or(b, "7143-13.18-1", ("DataPDUInOrder", "Yes"), "Yes")?;
            silent_or(b, "7143-13.19-3", ("DataSequenceInOrder", "Yes"), "Yes")
        },
    ),
    Case::target(
        "keys-22",
        "DataPDUInOrder and DataSequenceInOrder, or: No has to be answered",
        &["7143-13.18-1", "7143-6.2.2-5"],
        |b| {
            one(b, "7143-6.2.2-5", ("DataPDUInOrder", "No"), "Yes or No", yes_or_no)?;
            one(b, "7143-6.2.2-5", ("DataSequenceInOrder", "No"), "Yes or No", yes_or_no)
        },
    ),
    Case::target("keys-23", "digests, list: None alone gives None", &["7143-6.2.1-1", "7143-13.1-9"], |b| {
        one(b, "7143-6.2.1-1", ("HeaderDigest", "None"), "None", |v| v == "None")?;
        one(b, "7143-6.2.1-1", ("DataDigest", "None"), "None", |v| v == "None")
    }),
    Case::target("keys-24", "digests, list: CRC32C is implemented", &["7143-13.1-1", "7143-6.2.1-1"], |b| {
        one(b, "7143-13.1-1", ("HeaderDigest", "CRC32C"), "CRC32C", |v| v == "CRC32C")?;
        one(b, "7143-13.1-1", ("DataDigest", "CRC32C"), "CRC32C", |v| v == "CRC32C")
    }),
    Case::target(
        "keys-25",
        "digests, list: the first value of the offer that the target has",
        &["7143-6.2.1-1"],
        |b| {
            one(b, "7143-6.2.1-1", ("HeaderDigest", "None,CRC32C"), "None", |v| v == "None")?;
            match value(b, &[("HeaderDigest", "CRC32C")], "HeaderDigest")?.as_deref() {
                Some("CRC32C") => {
                    one(b, "7143-6.2.1-1", ("HeaderDigest", "CRC32C,None"), "CRC32C", |v| v == "CRC32C")
                }
                _ => skip("the target does not take CRC32C: see keys-24"),
            }
        },
    ),
    Case::target(
        "keys-26",
        "lists: values that the target does not know are passed over",
        &["7143-6.2.1-3"],
        |b| one(b, "7143-6.2.1-3", ("HeaderDigest", "Y-org.example.sum,None"), "None", |v| v == "None"),
    ),
    Case::target(
        "keys-27",
        "lists: where nothing fits the answer is Reject, or the login ends",
        &["7143-6.2.1-2", "7143-6.2.1-4"],
        |b| rejected(b, "7143-6.2.1-2", ("HeaderDigest", "Y-org.example.sum")),
    ),
    Case::target(
        "keys-28",
        "a number out of its range is answered Reject or by one in range",
        &["7143-6.2.2-3"],
        |b| {
            admissible(b, ("MaxBurstLength", "511"), |v| {
                number(v).is_some_and(|n| (512..1 << 24).contains(&n))
            })?;
            admissible(b, ("MaxOutstandingR2T", "0"), |v| number(v).is_some_and(|n| n > 0))?;
            admissible(b, ("ErrorRecoveryLevel", "3"), |v| number(v).is_some_and(|n| n < 3))
        },
    ),
    Case::target(
        "keys-29",
        "a number that is none is answered Reject, or by one in range",
        &["7143-6.2.2-3"],
        |b| {
            admissible(b, ("MaxBurstLength", "lots"), |v| {
                number(v).is_some_and(|n| (512..1 << 24).contains(&n))
            })
        },
    ),
    Case::target(
        "keys-30",
        "a boolean is Yes or No as spelled; another is answered Reject or admissibly",
        &["7143-6.1-8", "7143-6.2.2-3"],
        |b| {
            admissible(b, ("ImmediateData", "yes"), yes_or_no)?;
            admissible(b, ("ImmediateData", "Maybe"), yes_or_no)
        },
    ),
    Case::target("keys-31", "a hexadecimal number is understood", &["7143-6.1-9"], |b| {
        one(b, "7143-6.1-9", ("MaxBurstLength", "0x1000"), "4096", |v| number(v) == Some(4096))
    }),
    Case::target("keys-32", "a reserved word as an offer is refused", &["7143-6.2-13"], |b| {
        rejected(b, "7143-6.2-13", ("MaxBurstLength", "Irrelevant"))
    }),
    Case::target(
        "keys-33",
        "IFMarker and OFMarker are answered Reject or No",
        &["7143-13.25-1", "7143-13.25-3"],
        |b| {
            one(b, "7143-13.25-3", ("IFMarker", "No"), "Reject or No", |v| v == "Reject" || v == "No")?;
            one(b, "7143-13.25-3", ("OFMarker", "No"), "Reject or No", |v| v == "Reject" || v == "No")
        },
    ),
    Case::target(
        "keys-34",
        "IFMarkInt and OFMarkInt are answered Reject",
        &["7143-13.25-4", "7143-13.25-5"],
        |b| {
            one(b, "7143-13.25-4", ("IFMarkInt", "2048"), "Reject", |v| v == "Reject")?;
            one(b, "7143-13.25-4", ("OFMarkInt", "2048"), "Reject", |v| v == "Reject")
        },
    ),
    Case::target("keys-35", "TaskReporting: a value of the list", &["7143-13.23-6", "7143-6.2-17"], |b| {
        const OFFER: &str = "FastAbort,ResponseFence,RFC3720";
        one(b, "7143-6.2-17", ("TaskReporting", OFFER), "a value of the offer", |v| {
            OFFER.split(',').any(|o| o == v)
        })
    }),
    Case::target(
        "keys-36",
        "iSCSIProtocolLevel is understood: 1 stays",
        &["7143-13.24-1", "7143-6.2-17"],
        |b| one(b, "7143-13.24-1", ("iSCSIProtocolLevel", "1"), "1", |v| number(v) == Some(1)),
    ),
    Case::target("keys-37", "iSCSIProtocolLevel, minimum: never above the offer", &["7144-7.1.1-2"], |b| {
        match value(b, &[("iSCSIProtocolLevel", "31")], "iSCSIProtocolLevel")? {
            Some(v) if v == "NotUnderstood" => skip("the target does not know the key: see keys-36"),
            got => check("7144-7.1.1-2", "iSCSIProtocolLevel", "1 to 31", got.as_deref(), |v| {
                number(v).is_some_and(|n| n <= 31)
            }),
        }
    }),
    Case::target(
        "keys-38",
        "MaxRecvDataSegmentLength is a declaration: the target does not answer it",
        &["7143-13.12-2", "7143-13-4"],
        declaration,
    ),
    Case::target(
        "keys-39",
        "MaxRecvDataSegmentLength below 512 is refused",
        &["7143-13.12-2", "7143-7.12-1"],
        |b| rejected(b, "7143-13.12-2", ("MaxRecvDataSegmentLength", "511")),
    ),
    Case::target("keys-40", "the answers do not depend on the order of the keys", &["7143-6.2-25"], order),
    Case::target("keys-41", "8192 bytes of keys in one negotiation are taken", &["7143-6.1-4"], budget),
    Case::target(
        "keys-42",
        "an operational key in the security stage is refused",
        &["7143-6.3-11", "7143-12-1"],
        in_security_stage,
    ),
    Case::target(
        "keys-43",
        "X#NodeArchitecture is taken, or answered NotUnderstood",
        &["7143-13.26.2-6", "7143-13.26.2-1"],
        node_architecture,
    ),
    Case::target("keys-44", "text that is no key=value is refused", &["7143-6.1-1", "7143-7.12-1"], no_pair),
    Case::target(
        "keys-45",
        "all defaults: a login that offers nothing works",
        &["7143-4.2.8-1"],
        nothing_offered,
    ),
    Case::target(
        "keys-46",
        "every key of the RFC in one request is understood",
        &["7143-6.2-10", "7143-6.2-17"],
        all_keys,
    ),
    Case::target("keys-47", "a value as long as 255 bytes is taken", &["7143-6.1-12"], |b| {
        const LONG: &str = concat!(
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        );
        one(b, "7143-6.1-12", ("X-org.example.long", LONG), "NotUnderstood", |v| v == "NotUnderstood")
    }),
    Case::target("keys-48", "a value may hold further equals signs", &["7143-6.1-13"], |b| {
        one(b, "7143-6.1-13", ("X-org.example.sum", "a=b=c"), "NotUnderstood", |v| v == "NotUnderstood")
    }),
];

fn yes_or_no(value: &str) -> bool {
    value == "Yes" || value == "No"
}

/// The answer to these offers, in one request that also asks for the end of the login.
fn answers(bench: &Bench, offers: &[(&str, &str)]) -> Result<(Conn, Pdu), Stop> {
    let mut conn = bench.connect()?;
    if bench.peer.initiator.is_some() {
        conn.security(&Login::normal(&[]))?;
        let answer = conn.login_step(OPERATIONAL_TO_FULL, &text(offers))?;
        return Ok((conn, answer));
    }
    let first = conn.names_and(offers);
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &first)?;
    Ok((conn, answer))
}

/// The answer to one of these offers; the login has to go on.
fn value(bench: &Bench, offers: &[(&str, &str)], key: &str) -> Result<Option<String>, Stop> {
    let (_, answer) = answers(bench, offers)?;
    holds("7143-6.2-16", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    Ok(find(&pairs(&answer.data), key).map(ToOwned::to_owned))
}

fn check(rule: &str, key: &str, expected: &str, got: Option<&str>, right: fn(&str) -> bool) -> Outcome {
    if got.is_some_and(right) { Ok(()) } else { bad_result(rule, key, expected, got) }
}

fn one(bench: &Bench, rule: &str, offer: (&str, &str), expected: &str, right: fn(&str) -> bool) -> Outcome {
    let got = value(bench, &[offer], offer.0)?;
    check(rule, offer.0, expected, got.as_deref(), right)
}

fn at_most(bench: &Bench, rule: &str, key: &str, offer: &str, least: u64, most: u64) -> Outcome {
    let got = value(bench, &[(key, offer)], key)?;
    match got.as_deref().and_then(number) {
        Some(n) if (least..=most).contains(&n) => Ok(()),
        _ => bad_result(rule, key, &format!("{least} to {most}"), got.as_deref()),
    }
}

/// The result is fixed by the offer, so that no answer is needed.
fn silent_or(bench: &Bench, rule: &str, offer: (&str, &str), only: &str) -> Outcome {
    match value(bench, &[offer], offer.0)? {
        None => Ok(()),
        Some(got) if got == only => Ok(()),
        got => bad_result(rule, offer.0, &format!("{only}, or no answer"), got.as_deref()),
    }
}

/// The answer has to be Reject, or the login be refused.
fn rejected(bench: &Bench, rule: &str, offer: (&str, &str)) -> Outcome {
    let (_, answer) = answers(bench, &[offer])?;
    let got = pairs(&answer.data);
    let refused = answer.byte(at::LOGIN_STATUS) == 2;
    if refused || find(&got, offer.0) == Some("Reject") {
        return Ok(());
    }
    bad_result(rule, offer.0, "Reject, or a login refused by class 2", find(&got, offer.0))
}

/// Reject, a refused login, or a value that the key may have (section 6.2.2).
fn admissible(bench: &Bench, offer: (&str, &str), right: fn(&str) -> bool) -> Outcome {
    let (_, answer) = answers(bench, &[offer])?;
    let got = pairs(&answer.data);
    let got = find(&got, offer.0);
    if answer.byte(at::LOGIN_STATUS) == 2 || got == Some("Reject") || got.is_some_and(right) {
        return Ok(());
    }
    let expected = format!("Reject or an admissible value for the offer {}", offer.1);
    bad_result("7143-6.2.2-3", offer.0, &expected, got)
}

fn first_burst_above(bench: &Bench) -> Outcome {
    for reversed in [false, true] {
        let mut offers = [("MaxBurstLength", "4096"), ("FirstBurstLength", "65536")];
        if reversed {
            offers.reverse();
        }
        let (_, answer) = answers(bench, &offers)?;
        if answer.byte(at::LOGIN_STATUS) == 2 {
            continue;
        }
        let got = pairs(&answer.data);
        let number = |key, default| find(&got, key).and_then(number).unwrap_or(default);
        let (first, max) = (number("FirstBurstLength", 65_536), number("MaxBurstLength", 4096));
        if first > max {
            let seen = format!("FirstBurstLength={first}, MaxBurstLength={max}");
            return fail("7143-13.14-1", "FirstBurstLength not above MaxBurstLength", seen);
        }
    }
    Ok(())
}

fn declaration(bench: &Bench) -> Outcome {
    let (_, answer) = answers(bench, &[("MaxRecvDataSegmentLength", "4096")])?;
    holds("7143-13.12-2", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    // A declaration of the target's own may come, and is a number like any.
    match find(&pairs(&answer.data), "MaxRecvDataSegmentLength") {
        None => Ok(()),
        got => check("7143-13.12-2", "MaxRecvDataSegmentLength", "512 to 16777215", got, |v| {
            number(v).is_some_and(|n| (512..1 << 24).contains(&n))
        }),
    }
}

fn order(bench: &Bench) -> Outcome {
    let mut offers = vec![
        ("MaxBurstLength", "32768"),
        ("ImmediateData", "Yes"),
        ("FirstBurstLength", "16384"),
        ("InitialR2T", "No"),
        ("MaxOutstandingR2T", "1"),
    ];
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (_, answer) = answers(bench, &offers)?;
        let mut got = pairs(&answer.data);
        got.retain(|(key, _)| offers.iter().any(|(k, _)| k == key));
        got.sort();
        seen.push(got);
        offers.reverse();
    }
    if seen[0] == seen[1] {
        return Ok(());
    }
    fail("7143-6.2-25", format!("{:?} in any order", seen[0]), format!("{:?}", seen[1]))
}

fn budget(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    conn.security(&Login::normal(&[]))?;
    let long = "x".repeat(200);
    let keys: Vec<String> = (10..40).map(|n| format!("X-org.example.key{n}")).collect();
    let offers: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), long.as_str())).collect();
    let data = text(&offers);
    let (one, two) = data.split_at(data.len() / 2);
    let answer = conn.login_step(OPERATIONAL | C, one)?;
    holds("7143-6.1-4", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    let mut answer = conn.login_step(OPERATIONAL, two)?;
    let mut got = answer.data.clone();
    while answer.flags() & C != 0 {
        answer = conn.login_step(OPERATIONAL, &[])?;
        got.extend_from_slice(&answer.data);
    }
    holds("7143-6.1-4", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    let got = pairs(&got);
    match keys.iter().find(|key| find(&got, key) != Some("NotUnderstood")) {
        None => Ok(()),
        Some(key) => bad_result("7143-6.1-4", key, "NotUnderstood for each of 30 keys", find(&got, key)),
    }
}

fn in_security_stage(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    let method = if bench.peer.initiator.is_some() { "CHAP" } else { "None" };
    let first = conn.names_and(&[("AuthMethod", method), ("MaxBurstLength", "65536")]);
    conn.refused(0x00, &first, "7143-6.3-11", &[0x0200, 0x020b]).map(drop)
}

fn node_architecture(bench: &Bench) -> Outcome {
    match value(bench, &[("X#NodeArchitecture", "conform/1")], "X#NodeArchitecture")?.as_deref() {
        None | Some("NotUnderstood") => Ok(()),
        got => bad_result("7143-13.26.2-6", "X#NodeArchitecture", "NotUnderstood, or no answer", got),
    }
}

fn no_pair(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    conn.security(&Login::normal(&[]))?;
    let request = conn.login_request(OPERATIONAL_TO_FULL, b"MaxBurstLength\0");
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_RESPONSE && pdu.byte(at::LOGIN_STATUS) == 2 => Ok(()),
        got => got.wrong("7143-6.1-1", "the login is refused by class 2"),
    }
}

fn nothing_offered(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    conn.security(&Login::normal(&[]))?;
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &[])?;
    holds("7143-4.2.8-1", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    let answer = conn.settle(answer)?;
    holds("7143-4.2.8-1", "T with CSG 1 and NSG 3", &answer, answer.flags() == OPERATIONAL_TO_FULL)?;
    conn.established(&answer, &[]);
    conn.make_ready()
}

fn all_keys(bench: &Bench) -> Outcome {
    let offers = [
        ("HeaderDigest", "None"),
        ("DataDigest", "None"),
        ("MaxConnections", "1"),
        ("InitialR2T", "Yes"),
        ("ImmediateData", "Yes"),
        ("MaxRecvDataSegmentLength", "8192"),
        ("MaxBurstLength", "262144"),
        ("FirstBurstLength", "65536"),
        ("DefaultTime2Wait", "2"),
        ("DefaultTime2Retain", "20"),
        ("MaxOutstandingR2T", "1"),
        ("DataPDUInOrder", "Yes"),
        ("DataSequenceInOrder", "Yes"),
        ("ErrorRecoveryLevel", "0"),
        ("TaskReporting", "RFC3720,ResponseFence"),
        ("iSCSIProtocolLevel", "1"),
        ("InitiatorAlias", "conform"),
    ];
    let (_, answer) = answers(bench, &offers)?;
    holds("7143-6.2-10", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)?;
    let got = pairs(&answer.data);
    match got.iter().find(|(_, value)| value == "NotUnderstood") {
        None => Ok(()),
        Some((key, value)) => bad_result("7143-6.2-17", key, "understood", Some(value)),
    }
}
