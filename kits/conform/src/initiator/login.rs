//! Login as an initiator does it, and what it makes of odd answers (RFC 7143 sections 6.2, 6.3, 11.12, 11.13).

use super::{Link, Served, TARGET};
use crate::case::{Action::Attach, Case};
use crate::keys::{find, number, pairs, text};
use crate::pdu::{C, F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "ilogin-01",
        Attach,
        "the first PDU is a Login Request with I, version 0 and a legal transition",
        &["7143-4.2.4-3", "7143-11.12-2", "7143-11.12.4-1", "7143-6.3-15"],
        first_pdu,
    ),
    Case::initiator(
        "ilogin-02",
        Attach,
        "the first request has InitiatorName, and TargetName in a Normal session",
        &["7143-6.3-2", "7143-6.3-4", "7143-4.2.7.1-4"],
        names,
    ),
    Case::initiator(
        "ilogin-03",
        Attach,
        "TSIH is 0; ISID, CID, ITT and CmdSN stay through the login",
        &["7143-11.12.6-1", "7143-11.12.7-1", "7143-11.12-2", "7143-11.12.8-2"],
        constant,
    ),
    Case::initiator("ilogin-04", Attach, "ISID is not of the reserved type", &["7143-11.12.5-5"], isid),
    Case::initiator("ilogin-05", Attach, "reserved fields of Login Requests are 0", &["7143-11-1"], reserved),
    Case::initiator(
        "ilogin-06",
        Attach,
        "no key comes twice in a login",
        &["7143-6.3-17", "7143-13.5-2"],
        no_key_twice,
    ),
    Case::initiator(
        "ilogin-07",
        Attach,
        "the security stage has keys of that stage only",
        &["7143-12-1", "7143-6.3-11"],
        security_keys,
    ),
    Case::initiator(
        "ilogin-08",
        Attach,
        "what is offered is in the range of its key",
        &["7143-13.12-2", "7143-13.13-1", "7143-13.17-1", "7143-13.20-1"],
        ranges,
    ),
    Case::initiator(
        "ilogin-09",
        Attach,
        "ExpStatSN follows the StatSN of the Login Responses",
        &["7143-11.12.9-1", "7143-11.3.3-1"],
        exp_stat_sn,
    ),
    Case::initiator(
        "ilogin-10",
        Attach,
        "a redirection for once is followed, with a login from the beginning",
        &["7143-11.13.5-3", "7143-11.13.5-5"],
        redirect,
    ),
    Case::initiator(
        "ilogin-11",
        Attach,
        "authentication failure: the connection is closed, the login not repeated as it was",
        &["7143-11.13.5-5", "7143-11.13.5-6"],
        |s| refused(s, 0x0201),
    ),
    Case::initiator(
        "ilogin-12",
        Attach,
        "target not found: the connection is closed, the login not repeated as it was",
        &["7143-11.13.5-5", "7143-11.13.5-6"],
        |s| refused(s, 0x0203),
    ),
    Case::initiator(
        "ilogin-13",
        Attach,
        "service unavailable: the connection is closed",
        &["7143-11.13.5-5"],
        unavailable,
    ),
    Case::initiator(
        "ilogin-14",
        Attach,
        "an unknown detail of class 2 is an error of that class",
        &["7143-11.13.5-5", "7143-11.13.5-6"],
        |s| refused(s, 0x02ee),
    ),
    Case::initiator(
        "ilogin-15",
        Attach,
        "a Login Response with another ITT ends the login",
        &["7143-4.2.5.3-1"],
        other_itt,
    ),
    Case::initiator(
        "ilogin-16",
        Attach,
        "another PDU than a Login Response ends the login",
        &["7143-4.2.4-7"],
        other_pdu,
    ),
    Case::initiator(
        "ilogin-17",
        Attach,
        "a number above the offer of a Minimum key ends the login",
        &["7143-6.2.2-7", "7143-13-3"],
        |s| bad_answer(s, "MaxBurstLength", "16777215", "7143-6.2.2-7"),
    ),
    Case::initiator(
        "ilogin-18",
        Attach,
        "an answer that is not in the offered list ends the login",
        &["7143-6.2.1-4"],
        |s| bad_answer(s, "HeaderDigest", "Y-org.example.sum", "7143-6.2.1-4"),
    ),
    Case::initiator(
        "ilogin-19",
        Attach,
        "a boolean against its function ends the login",
        &["7143-6.2.2-7", "7143-13.18-1"],
        |s| bad_answer(s, "DataPDUInOrder", "No", "7143-6.2.2-7"),
    ),
    Case::initiator(
        "ilogin-20",
        Attach,
        "ErrorRecoveryLevel above the offer ends the login",
        &["7143-6.2.2-7", "7143-13.20-1"],
        |s| bad_answer(s, "ErrorRecoveryLevel", "7", "7143-6.2.2-7"),
    ),
    Case::initiator(
        "ilogin-21",
        Attach,
        "NotUnderstood for a key of the RFC ends the login",
        &["7143-6.2-11"],
        |s| bad_answer(s, "MaxBurstLength", "NotUnderstood", "7143-6.2-11"),
    ),
    Case::initiator(
        "ilogin-22",
        Attach,
        "an AuthMethod that was not offered ends the login",
        &["7143-6.2.1-4"],
        |s| bad_answer(s, "AuthMethod", "KRB5", "7143-6.2.1-4"),
    ),
    Case::initiator(
        "ilogin-23",
        Attach,
        "a key that the target gives twice ends the login",
        &["7143-6.3-19"],
        redeclared,
    ),
    Case::initiator(
        "ilogin-24",
        Attach,
        "an unknown key is answered NotUnderstood",
        &["7143-6.2-8"],
        unknown_key,
    ),
    Case::initiator(
        "ilogin-25",
        Attach,
        "a response with C is answered by an empty request",
        &["7143-6.2-3"],
        continued,
    ),
    Case::initiator(
        "ilogin-26",
        Attach,
        "C together with T in a response ends the login",
        &["7143-6.2-1", "7143-7.7-2"],
        c_with_t,
    ),
    Case::initiator(
        "ilogin-27",
        Attach,
        "a next stage beyond what was asked for ends the login",
        &["7143-6.3-12", "7143-6.3-15"],
        beyond_nsg,
    ),
    Case::initiator("ilogin-28", Attach, "a TargetPortalGroupTag of 0 is legal", &["7143-13.9-1"], tag_0),
];

/// All Login Requests of a login that goes well.
fn requests(served: &mut Served) -> Result<(Link, Vec<Pdu>), Stop> {
    let mut link = served.accept()?;
    link.log_in(&[])?;
    let requests = link.log.iter().filter(|pdu| pdu.opcode() == op::LOGIN_REQUEST).cloned().collect();
    Ok((link, requests))
}

fn all(served: &mut Served, rule: &str, expected: &str, right: fn(&Pdu) -> bool) -> Outcome {
    let (_, requests) = requests(served)?;
    for pdu in &requests {
        holds(rule, expected, pdu, right(pdu))?;
    }
    Ok(())
}

fn first_pdu(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = match link.recv(link.answer)? {
        Got::Pdu(pdu) => pdu,
        got => return got.wrong("7143-4.2.4-3", "a Login Request"),
    };
    holds("7143-11.12-2", "first byte 43", &first, first.byte(0) == 0x43)?;
    holds("7143-11.12.4-1", "Version-max and Version-min 0", &first, first.be16(2) == 0)?;
    let legal = matches!(first.flags(), 0x00 | 0x04 | 0x40 | 0x44 | 0x81 | 0x83 | 0x87);
    holds("7143-6.3-15", "a legal stage and transition", &first, legal)
}

fn names(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let keys = pairs(&first.data);
    holds("7143-6.3-2", "InitiatorName", &first, find(&keys, "InitiatorName").is_some())?;
    if find(&keys, "SessionType") == Some("Discovery") {
        return skip("the initiator began a Discovery session");
    }
    holds("7143-6.3-4", "TargetName", &first, find(&keys, "TargetName") == Some(TARGET))
}

fn constant(served: &mut Served) -> Outcome {
    let (_, requests) = requests(served)?;
    for pdu in &requests {
        holds("7143-11.12.6-1", "TSIH 0", pdu, pdu.be16(at::TSIH) == 0)?;
        let first = &requests[0];
        let same = |from: usize, to: usize| pdu.bhs[from..to] == first.bhs[from..to];
        holds("7143-11.12.6-3", "the ISID of the first request", pdu, same(at::ISID, at::ISID + 6))?;
        holds("7143-11.12-2", "the ITT of the first request", pdu, same(at::ITT, at::ITT + 4))?;
        holds("7143-11.12.7-1", "the CID of the first request", pdu, same(at::CID, at::CID + 2))?;
        holds("7143-11.12.8-2", "the CmdSN of the first request", pdu, same(at::CMD_SN, at::CMD_SN + 4))?;
    }
    Ok(())
}

fn isid(served: &mut Served) -> Outcome {
    all(served, "7143-11.12.5-5", "a type other than 11b", |pdu| pdu.byte(at::ISID) >> 6 != 3)
}

fn reserved(served: &mut Served) -> Outcome {
    all(served, "7143-11-1", "reserved bits and bytes 0", |pdu| {
        let bytes = pdu.bhs[22..24].iter().chain(&pdu.bhs[32..48]).all(|&b| b == 0);
        bytes && pdu.flags() & 0x30 == 0 && pdu.byte(at::AHS_LEN) == 0
    })
}

fn no_key_twice(served: &mut Served) -> Outcome {
    let (link, _) = requests(served)?;
    for (n, (key, _)) in link.offers.iter().enumerate() {
        if link.offers[..n].iter().any(|(other, _)| other == key) {
            return fail("7143-6.3-17", "each key once", format!("{key} twice"));
        }
    }
    Ok(())
}

fn security_keys(served: &mut Served) -> Outcome {
    const KNOWN: [&str; 7] = [
        "SessionType",
        "InitiatorName",
        "TargetName",
        "TargetAddress",
        "InitiatorAlias",
        "TargetPortalGroupTag",
        "AuthMethod",
    ];
    let (_, requests) = requests(served)?;
    let security: Vec<&Pdu> = requests.iter().filter(|pdu| pdu.flags() & 0x0c == 0).collect();
    if security.is_empty() {
        return skip("the initiator leaves the security stage out");
    }
    for pdu in security {
        let right = pairs(&pdu.data).iter().all(|(key, _)| {
            KNOWN.contains(&key.as_str()) || ["CHAP_", "SRP_", "KRB_"].iter().any(|p| key.starts_with(p))
        });
        holds("7143-12-1", "keys of the security stage", pdu, right)?;
    }
    Ok(())
}

fn ranges(served: &mut Served) -> Outcome {
    let (link, _) = requests(served)?;
    let bytes = 512..=(1 << 24) - 1;
    let table = [
        ("MaxRecvDataSegmentLength", bytes.clone()),
        ("MaxBurstLength", bytes.clone()),
        ("FirstBurstLength", bytes),
        ("MaxConnections", 1..=65_535),
        ("MaxOutstandingR2T", 1..=65_535),
        ("ErrorRecoveryLevel", 0..=2),
        ("DefaultTime2Wait", 0..=3600),
        ("DefaultTime2Retain", 0..=3600),
        ("iSCSIProtocolLevel", 0..=31),
    ];
    for (key, range) in table {
        let Some(value) = find(&link.offers, key) else { continue };
        if !number(value).is_some_and(|n| range.contains(&n)) {
            return fail("7143-13-3", format!("{key} in {range:?}"), format!("{key}={value}"));
        }
    }
    Ok(())
}

fn exp_stat_sn(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let mut done = link.grant(&first, &[], true);
    if done {
        return skip("the login is over after one exchange");
    }
    while !done {
        let next = link.login_request()?;
        holds(
            "7143-11.12.9-1",
            "ExpStatSN one past the last StatSN",
            &next,
            next.be32(at::EXP_STAT_SN) == link.stat_sn,
        )?;
        done = link.grant(&next, &[], false);
    }
    Ok(())
}

fn refusal(request: &Pdu, status: u16, data: &[u8]) -> Pdu {
    Link::login_response(request, 0, data).set16(at::LOGIN_STATUS, status)
}

fn redirect(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    // Another address: one that was redirected from already may be taken for a circle.
    let address = served.move_away()?.to_string();
    link.respond(refusal(&first, 0x0101, &text(&[("TargetAddress", &address)])));
    link.expect_end("7143-11.13.5-5", "the connection is closed after a redirection")?;
    let Some(mut again) = served.accept_within(served.answer)? else {
        return skip("the initiator does not follow redirections, which it SHOULD");
    };
    let second = again.login_request()?;
    let keys = pairs(&second.data);
    holds(
        "7143-6.3-2",
        "InitiatorName in the first request",
        &second,
        find(&keys, "InitiatorName").is_some(),
    )?;
    holds("7143-6.3-4", "the same TargetName", &second, find(&keys, "TargetName") == Some(TARGET))
}

fn refused(served: &mut Served, status: u16) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    link.respond(refusal(&first, status, &[]));
    link.expect_end("7143-11.13.5-5", "the connection is closed after a refusal")?;
    // Another try at once would be the same again.
    match served.accept_within(served.quiet)? {
        None => Ok(()),
        Some(mut again) => {
            let second = again.login_request()?;
            let changed = second.data != first.data;
            holds("7143-11.13.5-6", "no second login with the same keys", &second, changed)
        }
    }
}

fn unavailable(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    link.respond(refusal(&first, 0x0301, &[]));
    link.expect_end("7143-11.13.5-5", "the connection is closed after a refusal")
}

fn other_itt(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let response =
        Link::login_response(&first, first.flags() & 0x8f, &text(&[("TargetPortalGroupTag", "1")]));
    link.respond(response.set32(at::ITT, first.itt() ^ 0x0101_0101));
    link.expect_end("7143-4.2.5.3-1", "the end of the connection")
}

fn other_pdu(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    link.login_request()?;
    link.respond(Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, NO_TAG).set32(at::TTT, NO_TAG));
    link.expect_end("7143-4.2.4-7", "the end of the connection")
}

/// Grants all but one key, whose answer breaks a rule. The login must not go on to full feature phase.
fn bad_answer(served: &mut Served, key: &str, value: &str, rule: &str) -> Outcome {
    let mut link = served.accept()?;
    for step in 0..8 {
        let request = link.login_request()?;
        let offers = pairs(&request.data);
        let Some(offer) = find(&offers, key) else {
            if link.grant(&request, &[], step == 0) {
                return skip(format!("the initiator does not offer {key}"));
            }
            continue;
        };
        if number(value).is_some() && number(offer) >= number(value) {
            return skip(format!("the initiator offers {key}={offer}: there is nothing above"));
        }
        if value == "No" && offer == "No" {
            return skip(format!("the initiator offers {key}=No itself"));
        }
        let response = Link::login_response(&request, request.flags() & 0x8f, &text(&[(key, value)]));
        link.respond(response.set16(at::TSIH, if request.flags() & 3 == 3 { 0x1234 } else { 0 }));
        return ended(&mut link, rule, &format!("the end of the login: {key}={value} for the offer {offer}"));
    }
    skip("the initiator does not end its login")
}

/// The end of the connection. An initiator may say why in a request first, but must not go on.
fn ended(link: &mut Link, rule: &str, expected: &str) -> Outcome {
    match link.recv(link.answer)? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_REQUEST => Ok(()),
        got => got.wrong(rule, expected),
    }
}

fn redeclared(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let twice = text(&[("TargetAlias", "one"), ("TargetAlias", "two"), ("TargetPortalGroupTag", "1")]);
    let response = Link::login_response(&first, first.flags() & 0x8f, &twice);
    link.respond(response.set16(at::TSIH, if first.flags() & 3 == 3 { 0x1234 } else { 0 }));
    ended(&mut link, "7143-6.3-19", "the end of the connection: TargetAlias came twice")
}

fn unknown_key(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let keys = pairs(&first.data);
    let mut answer = vec![("TargetPortalGroupTag", "1"), ("X-org.example.no-such-key", "1")];
    if find(&keys, "AuthMethod").is_some() {
        answer.push(("AuthMethod", "None"));
    }
    // Without T, so that the initiator has its say.
    link.respond(Link::login_response(&first, first.flags() & 0x0c, &text(&answer)));
    match link.recv(link.answer)? {
        Got::Pdu(pdu) => {
            let got = pairs(&pdu.data);
            if pdu.flags() & 0x0c == 0 && find(&got, "X-org.example.no-such-key").is_none() {
                return wrong("7143-6.2-8", "NotUnderstood", &pdu);
            }
            let value = find(&got, "X-org.example.no-such-key");
            holds("7143-6.2-8", "NotUnderstood", &pdu, value == Some("NotUnderstood"))
        }
        // A private key has no place in the security stage.
        Got::Closed if first.flags() & 0x0c == 0 => {
            skip("the initiator ends the login over a key in this stage")
        }
        got => got.wrong("7143-6.2-8", "NotUnderstood"),
    }
}

fn continued(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let keys = pairs(&first.data);
    let mut answer = vec![("TargetPortalGroupTag", "1"), ("TargetAlias", "a-long-alias")];
    if find(&keys, "AuthMethod").is_some() {
        answer.push(("AuthMethod", "None"));
    }
    let data = text(&answer);
    let (one, _) = data.split_at(30);
    link.respond(Link::login_response(&first, C | first.flags() & 0x0c, one));
    match link.recv(link.answer)? {
        Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_REQUEST => {
            holds("7143-6.2-3", "an empty data segment", &pdu, pdu.data_len() == 0)
        }
        got => got.wrong("7143-6.2-3", "an empty Login Request"),
    }
}

fn c_with_t(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    if first.flags() & 0x80 == 0 {
        return skip("the first request has no T");
    }
    link.respond(Link::login_response(&first, first.flags() | C, &text(&[("TargetPortalGroupTag", "1")])));
    ended(&mut link, "7143-6.2-1", "the end of the connection")
}

fn beyond_nsg(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    if first.flags() & 0x80 == 0 || first.flags() & 3 == 3 {
        return skip("the first request does not ask for the operational stage");
    }
    let answer = text(&[("TargetPortalGroupTag", "1"), ("AuthMethod", "None")]);
    let flags = 0x80 | first.flags() & 0x0c | 3;
    link.respond(Link::login_response(&first, flags, &answer).set16(at::TSIH, 0x1234));
    ended(&mut link, "7143-6.3-12", "the end of the connection: NSG 3 for a request of NSG 1")
}

fn tag_0(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let keys = pairs(&first.data);
    let mut answer = vec![("TargetPortalGroupTag", "0")];
    if find(&keys, "AuthMethod").is_some() {
        answer.push(("AuthMethod", "None"));
    }
    if first.flags() & 0x83 == 0x83 {
        return skip("the first request asks for full feature phase");
    }
    link.respond(Link::login_response(&first, first.flags() & 0x8f, &text(&answer)));
    let next = link.login_request();
    match next {
        Ok(_) => Ok(()),
        Err(Stop::Fail(failure)) => fail("7143-13.9-1", "the login goes on", failure.seen),
        Err(stop) => Err(stop),
    }
}
