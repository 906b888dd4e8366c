//! Discovery sessions and SendTargets (RFC 7143 sections 4.3, 7.4, appendix C).

use super::{Bench, Conn};
use crate::case::Case;
use crate::keys::{pairs, text};
use crate::pdu::{F, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "discovery-01",
        "SendTargets=All lists the target, with addresses and portal group tags",
        &["7143-C-3", "7143-C-4", "7143-C-8", "7143-13.8-2"],
        all,
    ),
    Case::target(
        "discovery-02",
        "the answer has TargetName and TargetAddress only, the name first",
        &["7143-C-18"],
        records,
    ),
    Case::target(
        "discovery-03",
        "SendTargets with the target's name lists that target only",
        &["7143-C-10", "7143-C-11"],
        by_name,
    ),
    Case::target(
        "discovery-04",
        "SendTargets with an unknown name lists no target",
        &["7143-C-15", "7143-C-10"],
        unknown_name,
    ),
    Case::target(
        "discovery-05",
        "ErrorRecoveryLevel is 0 in a Discovery session",
        &["7143-13.21-1", "7143-7.4.1-1"],
        level,
    ),
    Case::target("discovery-06", "a SCSI command in a Discovery session is rejected", &["7143-4.3-2"], |b| {
        rejected(b, |c| c.request(op::SCSI_COMMAND, F))
    }),
    Case::target(
        "discovery-07",
        "a task management request in a Discovery session is rejected",
        &["7143-4.3-2"],
        |b| rejected(b, |c| c.function(5)),
    ),
    Case::target("discovery-08", "a NOP-Out in a Discovery session is rejected", &["7143-4.3-2"], |b| {
        rejected(b, |c| c.ping(b"discovery"))
    }),
    Case::target(
        "discovery-09",
        "a Logout with reason 0 ends a Discovery session",
        &["7143-4.3-1", "7143-11.14-7"],
        logout,
    ),
    Case::target(
        "discovery-10",
        "SendTargets without a value in a Normal session names the connected target only",
        &["7143-C-5", "7143-C-12", "7143-C-13"],
        normal_empty,
    ),
    Case::target(
        "discovery-11",
        "SendTargets=All in a Normal session is not served",
        &["7143-C-9"],
        normal_all,
    ),
    Case::target(
        "discovery-12",
        "SendTargets can be asked again in the same session",
        &["7143-C-17", "7143-C-3"],
        again,
    ),
    Case::target(
        "discovery-13",
        "a Discovery session needs no TargetName and has a TSIH",
        &["7143-6.3-5", "7143-4.4.3-3"],
        tsih,
    ),
];

/// Asks, and puts the parts of the answer together.
fn send_targets(conn: &mut Conn, value: &str) -> Result<Vec<(String, String)>, Stop> {
    let rule = "7143-C-3";
    let request = conn.text(F, &text(&[("SendTargets", value)]));
    let mut answer = conn.ask(&request, op::TEXT_RESPONSE, rule, "a Text Response")?;
    let mut data = answer.data.clone();
    while answer.flags() & F == 0 {
        let more = conn.text(F, &[]).set32(at::ITT, answer.itt()).set32(at::TTT, answer.ttt());
        let more = more.bytes(at::LUN, &answer.bhs[at::LUN..at::LUN + 8]);
        answer = conn.ask(&more, op::TEXT_RESPONSE, rule, "the rest of the Text Response")?;
        data.extend_from_slice(&answer.data);
    }
    Ok(pairs(&data))
}

fn names(records: &[(String, String)]) -> Vec<&str> {
    records.iter().filter(|(key, _)| key == "TargetName").map(|(_, value)| value.as_str()).collect()
}

fn all(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let records = send_targets(&mut conn, "All")?;
    if !names(&records).contains(&bench.peer.name.as_str()) {
        return fail("7143-C-8", format!("TargetName={}", bench.peer.name), format!("{records:?}"));
    }
    for (_, address) in records.iter().filter(|(key, _)| key == "TargetAddress") {
        let tag = address.rsplit_once(',').and_then(|(_, tag)| tag.parse::<u16>().ok());
        if tag.is_none() {
            return fail("7143-13.8-2", "an address with a portal group tag", address.clone());
        }
    }
    Ok(())
}

fn records(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let records = send_targets(&mut conn, "All")?;
    let known = |key: &str| key == "TargetName" || key == "TargetAddress";
    if records.first().is_some_and(|(key, _)| key == "TargetName")
        && records.iter().all(|(key, _)| known(key))
    {
        return Ok(());
    }
    fail("7143-C-18", "records of TargetName and TargetAddress", format!("{records:?}"))
}

fn by_name(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let records = send_targets(&mut conn, &bench.peer.name)?;
    if names(&records) == [bench.peer.name.as_str()] {
        return Ok(());
    }
    fail("7143-C-10", format!("TargetName={} alone", bench.peer.name), format!("{records:?}"))
}

fn unknown_name(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let request = conn.text(F, &text(&[("SendTargets", "iqn.2026-01.org.example:no.such.target")]));
    conn.send(&request);
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TEXT_RESPONSE => {
            holds("7143-C-15", "no TargetName", &pdu, names(&pairs(&pdu.data)).is_empty())
        }
        got => got.wrong("7143-C-10", "a Text Response"),
    }
}

fn level(bench: &Bench) -> Outcome {
    let conn = bench.discovery(&[("ErrorRecoveryLevel", "2")])?;
    match conn.result("ErrorRecoveryLevel") {
        Some("0") => Ok(()),
        got => super::bad_result("7143-7.4.1-1", "ErrorRecoveryLevel", "0", got),
    }
}

fn rejected(bench: &Bench, request: fn(&mut Conn) -> crate::pdu::Pdu) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let request = request(&mut conn);
    conn.send(&request);
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Closed => Ok(()),
        got => got.wrong("7143-4.3-2", "a Reject, or the end of the session"),
    }
}

fn logout(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let request = conn.request(0x40 | op::LOGOUT_REQUEST, F);
    let answer = conn.ask(&request, op::LOGOUT_RESPONSE, "7143-4.3-1", "a Logout Response")?;
    holds("7143-4.3-1", "response 0", &answer, answer.byte(at::RESPONSE) == 0)?;
    conn.expect_closed("7143-11.14-7", "the connection is closed after the Logout Response")
}

fn normal_empty(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let records = send_targets(&mut conn, "")?;
    if names(&records) == [bench.peer.name.as_str()] {
        return Ok(());
    }
    fail("7143-C-13", format!("TargetName={} alone", bench.peer.name), format!("{records:?}"))
}

fn normal_all(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.text(F, &text(&[("SendTargets", "All")]));
    conn.send(&request);
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TEXT_RESPONSE => {
            let got = pairs(&pdu.data);
            if names(&got).is_empty() { Ok(()) } else { wrong("7143-C-9", "no list of targets", &pdu) }
        }
        got => got.wrong("7143-C-9", "a Reject, or SendTargets=Reject"),
    }
}

fn again(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[])?;
    let (one, two) = (send_targets(&mut conn, "All")?, send_targets(&mut conn, "All")?);
    if one == two { Ok(()) } else { fail("7143-C-3", format!("{one:?} again"), format!("{two:?}")) }
}

fn tsih(bench: &Bench) -> Outcome {
    let conn = bench.discovery(&[])?;
    if conn.tsih != 0 { Ok(()) } else { fail("7143-4.4.3-3", "a TSIH other than 0", "TSIH 0") }
}

/// Where a case asks in one request what does not fit in one answer.
pub(super) fn in_small_pieces(bench: &Bench) -> Outcome {
    let mut conn = bench.discovery(&[("MaxRecvDataSegmentLength", "512")])?;
    let records = send_targets(&mut conn, "All")?;
    if names(&records).contains(&bench.peer.name.as_str()) {
        return Ok(());
    }
    fail("7143-11.11.6-1", "the whole list in pieces of 512 bytes", format!("{records:?}"))
}
