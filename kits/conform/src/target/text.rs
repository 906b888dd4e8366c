//! Text negotiation in full feature phase (RFC 7143 sections 6.4, 11.10, 11.11).

use super::{Bench, Conn, Io, discovery};
use crate::case::Case;
use crate::keys::{find, pairs, text};
use crate::pdu::{C, F, NO_TAG, Pdu, at, op};
use crate::target::conn::cdb10;
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "text-01",
        "a Text Request with F ends with F, ffffffff and the ITT of the request",
        &["7143-11.11.1-2", "7143-11.11.4-2"],
        simple,
    ),
    Case::target("text-02", "an unknown key is answered NotUnderstood", &["7143-6.2-8"], unknown_key),
    Case::target(
        "text-03",
        "a request without F is answered by more negotiation, not by an end",
        &["7143-11.11.1-4", "7143-11.10.4-1"],
        no_f,
    ),
    Case::target(
        "text-04",
        "a request with C is answered without data and without F",
        &["7143-6.2-2"],
        continued,
    ),
    Case::target(
        "text-05",
        "a login key in full feature phase is refused",
        &["7143-13-1", "7143-13-2"],
        login_key,
    ),
    Case::target(
        "text-06",
        "a smaller MaxRecvDataSegmentLength holds from the end of the negotiation",
        &["7143-13.12-2", "7143-6.4-12", "7143-11.7.1-2"],
        smaller_segment,
    ),
    Case::target("text-07", "a key given twice is rejected as a protocol error", &["7143-6.4-10"], twice),
    Case::target(
        "text-08",
        "a Target Transfer Tag that was never given is refused",
        &["7143-7.13-1"],
        bad_ttt,
    ),
    Case::target("text-09", "C together with F is refused", &["7143-6.2-1", "7143-11.10.2-1"], c_with_f),
    Case::target("text-10", "an empty request is answered", &["7143-6.4-6"], empty),
    Case::target(
        "text-11",
        "a list of targets comes in pieces that we can take",
        &["7143-11.11.6-1", "7143-11.11.4-1"],
        discovery::in_small_pieces,
    ),
    Case::target(
        "text-12",
        "an immediate Text Request does not move ExpCmdSN",
        &["7143-4.2.2.1-21", "7143-11.10.3-2"],
        immediate,
    ),
    Case::target(
        "text-13",
        "a new exchange begins with TTT ffffffff, whatever became of the one before",
        &["7143-11.10.4-5"],
        anew,
    ),
    Case::target(
        "text-14",
        "a security key in full feature phase is refused",
        &["7143-6.3-10", "7143-13-2"],
        security_key,
    ),
];

const UNKNOWN: (&str, &str) = ("X-org.example.no-such-key", "1");

fn answer(conn: &mut Conn, flags: u8, keys: &[(&str, &str)]) -> Result<Pdu, Stop> {
    let request = conn.text(flags, &text(keys));
    conn.ask(&request, op::TEXT_RESPONSE, "7143-6.4-3", "a Text Response")
}

fn simple(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let answer = answer(&mut conn, F, &[UNKNOWN])?;
    holds("7143-11.11.1-2", "F with TTT ffffffff", &answer, answer.flags() == F && answer.ttt() == NO_TAG)
}

fn unknown_key(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let answer = answer(&mut conn, F, &[UNKNOWN])?;
    let got = pairs(&answer.data);
    holds("7143-6.2-8", "NotUnderstood", &answer, find(&got, UNKNOWN.0) == Some("NotUnderstood"))
}

fn no_f(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let first = answer(&mut conn, 0, &[UNKNOWN])?;
    holds("7143-11.11.1-4", "no F", &first, first.flags() & F == 0)?;
    holds("7143-11.10.4-1", "a Target Transfer Tag", &first, first.ttt() != NO_TAG)?;
    let more = conn.text(F, &[]).set32(at::ITT, first.itt()).set32(at::TTT, first.ttt());
    let more = more.bytes(at::LUN, &first.bhs[at::LUN..at::LUN + 8]);
    let last = conn.ask(&more, op::TEXT_RESPONSE, "7143-6.4-3", "a Text Response")?;
    holds("7143-6.4-3", "F", &last, last.flags() & F != 0)
}

fn continued(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let data = text(&[UNKNOWN]);
    let (one, two) = data.split_at(9);
    let request = conn.text(C, one);
    let first = conn.ask(&request, op::TEXT_RESPONSE, "7143-6.2-2", "a Text Response")?;
    holds("7143-6.2-2", "no data, no F", &first, first.data_len() == 0 && first.flags() & F == 0)?;
    let more = conn.text(F, two).set32(at::ITT, first.itt()).set32(at::TTT, first.ttt());
    let more = more.bytes(at::LUN, &first.bhs[at::LUN..at::LUN + 8]);
    let last = conn.ask(&more, op::TEXT_RESPONSE, "7143-6.1-7", "a Text Response")?;
    let got = pairs(&last.data);
    holds("7143-6.1-7", "NotUnderstood", &last, find(&got, UNKNOWN.0) == Some("NotUnderstood"))
}

/// A Reject, the answer Reject, or the end of the connection.
fn refused(conn: &mut Conn, request: &Pdu, key: &str, rule: &str) -> Outcome {
    conn.send(request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::TEXT_RESPONSE => {
            let got = pairs(&pdu.data);
            holds(rule, "a Reject, or the answer Reject", &pdu, find(&got, key) == Some("Reject"))
        }
        got => got.wrong(rule, "a Reject, or the answer Reject"),
    }
}

fn login_key(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.text(F, &text(&[("MaxBurstLength", "4096")]));
    refused(&mut conn, &request, "MaxBurstLength", "7143-13-1")
}

fn security_key(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.text(F, &text(&[("AuthMethod", "None")]));
    refused(&mut conn, &request, "AuthMethod", "7143-6.3-10")
}

fn smaller_segment(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[])?;
    let (_, size) = conn.capacity()?;
    let blocks = u16::try_from(8192 / size).unwrap_or(1).max(2);
    let response = answer(&mut conn, F, &[("MaxRecvDataSegmentLength", "1024")])?;
    let got = pairs(&response.data);
    if matches!(find(&got, "MaxRecvDataSegmentLength"), Some("Reject" | "NotUnderstood")) {
        return wrong("7143-13.12-2", "the declaration is taken in full feature phase as well", &response);
    }
    if response.flags() & F == 0 {
        return skip("the target does not end the negotiation");
    }
    conn.segment = 1024;
    let bytes = u32::from(blocks) * size;
    let done = conn.good(&Io { cdb: cdb10(0x28, 0, blocks), read: Some(bytes), ..Io::default() })?;
    match done.ins.iter().find(|pdu| pdu.data.len() > 1024) {
        Some(pdu) => wrong("7143-11.7.1-2", "Data-Ins of at most 1024 bytes", pdu),
        None if done.data.len() == bytes as usize => Ok(()),
        None => fail("7143-11.7.6-1", format!("{bytes} bytes"), format!("{} bytes", done.data.len())),
    }
}

fn twice(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request =
        conn.text(F, &text(&[("MaxRecvDataSegmentLength", "4096"), ("MaxRecvDataSegmentLength", "8192")]));
    conn.send(&request);
    match conn.next()? {
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => {
            holds("7143-6.4-10", "reason 04", &pdu, pdu.byte(at::RESPONSE) == 4)
        }
        got => got.wrong("7143-6.4-10", "a Reject with reason 04"),
    }
}

fn bad_ttt(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.text(F, &text(&[UNKNOWN])).set32(at::TTT, 0x1234_5678);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        got => got.wrong("7143-7.13-1", "a Reject"),
    }
}

fn c_with_f(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.text(F | C, &text(&[UNKNOWN]));
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        got => got.wrong("7143-6.2-1", "a Reject, or the end of the connection"),
    }
}

fn empty(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let answer = answer(&mut conn, F, &[])?;
    holds("7143-6.4-6", "F, as nothing is left", &answer, answer.flags() & F != 0)
}

fn immediate(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let sn = conn.cmd_sn;
    let request =
        conn.request(0x40 | op::TEXT_REQUEST, F).set32(at::TTT, NO_TAG).with_data(&text(&[UNKNOWN]));
    let answer = conn.ask(&request, op::TEXT_RESPONSE, "7143-4.2.2.1-21", "a Text Response")?;
    holds("7143-4.2.2.1-21", "ExpCmdSN as before", &answer, answer.be32(at::EXP_CMD_SN) == sn)
}

fn anew(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let first = answer(&mut conn, 0, &[UNKNOWN])?;
    if first.flags() & F != 0 {
        return skip("the target ended the first exchange by itself: see text-03");
    }
    let request = conn.text(F, &text(&[UNKNOWN])).set32(at::ITT, first.itt());
    let last = conn.ask(&request, op::TEXT_RESPONSE, "7143-11.10.4-5", "a Text Response")?;
    let got = pairs(&last.data);
    holds("7143-11.10.4-5", "an answer to the key", &last, find(&got, UNKNOWN.0) == Some("NotUnderstood"))
}
