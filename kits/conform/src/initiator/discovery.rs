//! Discovery as an initiator does it (RFC 7143 section 4.3, appendix C).

use super::{Link, Served, TARGET};
use crate::case::{Action::Discover, Case};
use crate::keys::{find, pairs, text};
use crate::pdu::{C, F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "idiscovery-01",
        Discover,
        "SessionType=Discovery and InitiatorName in the first request",
        &["7143-13.21-2", "7143-6.3-2"],
        first_request,
    ),
    Case::initiator(
        "idiscovery-02",
        Discover,
        "SendTargets is the one key of one Text Request",
        &["7143-C-7", "7143-C-1"],
        request,
    ),
    Case::initiator(
        "idiscovery-03",
        Discover,
        "an answer without F is asked on, TTT and LUN copied, the ITT the same",
        &["7143-11.11.4-3", "7143-11.10.4-3", "7143-11.10.3-1"],
        |s| pieces(s, 0),
    ),
    Case::initiator(
        "idiscovery-04",
        Discover,
        "an answer with C is asked on without data",
        &["7143-6.2-3", "7143-11.11.4-3"],
        |s| pieces(s, C),
    ),
    Case::initiator(
        "idiscovery-05",
        Discover,
        "a record without TargetAddress is taken: the address is ours",
        &["7143-C-19"],
        no_address,
    ),
    Case::initiator(
        "idiscovery-06",
        Discover,
        "ErrorRecoveryLevel above 0 in the answer is not agreed to",
        &["7143-13.21-1", "7143-6.2.2-7"],
        level,
    ),
    Case::initiator(
        "idiscovery-07",
        Discover,
        "F in the answer to a request without F is a protocol error; with F the exchange ends",
        &["7143-11.11.1-4", "7143-6.4-5"],
        end,
    ),
];

fn session(served: &mut Served) -> Result<(Link, Pdu), Stop> {
    let mut link = served.session(&[])?;
    let request = link.until("Text Request", |pdu| pdu.opcode() == op::TEXT_REQUEST)?;
    Ok((link, request))
}

fn first_request(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    let first = link.login_request()?;
    let keys = pairs(&first.data);
    holds("7143-13.21-2", "SessionType=Discovery", &first, find(&keys, "SessionType") == Some("Discovery"))?;
    holds("7143-6.3-2", "InitiatorName", &first, find(&keys, "InitiatorName").is_some())
}

fn request(served: &mut Served) -> Outcome {
    let (_, request) = session(served)?;
    let keys = pairs(&request.data);
    let right = keys.len() == 1 && find(&keys, "SendTargets").is_some();
    holds("7143-C-7", "SendTargets alone", &request, right)?;
    holds("7143-11.10.4-5", "TTT ffffffff", &request, request.ttt() == NO_TAG)
}

fn response(request: &Pdu, flags: u8, ttt: u32, data: &[u8]) -> Pdu {
    let pdu = Pdu::new(op::TEXT_RESPONSE).set(at::FLAGS, flags).set32(at::ITT, request.itt());
    pdu.set32(at::TTT, ttt).with_data(data)
}

fn pieces(served: &mut Served, flags: u8) -> Outcome {
    let (mut link, request) = session(served)?;
    let all = text(&[("TargetName", TARGET), ("TargetAddress", "192.0.2.1:3260,1")]);
    let (one, two) = all.split_at(TARGET.len() + 12 + if flags == C { 7 } else { 0 });
    let lun = [0, 9, 0, 0, 0, 0, 0, 0];
    link.respond(response(&request, flags, 0x4321, one).bytes(at::LUN, &lun));
    let more = match link.recv(link.answer)? {
        Got::Pdu(pdu) if pdu.opcode() == op::TEXT_REQUEST => pdu,
        got => return got.wrong("7143-11.11.4-3", "a Text Request for the rest"),
    };
    holds("7143-11.11.4-3", "Target Transfer Tag 00004321", &more, more.ttt() == 0x4321)?;
    holds("7143-11.10.4-3", "the LUN of the response", &more, more.bhs[at::LUN..at::LUN + 8] == lun)?;
    holds("7143-11.10.3-1", "the ITT of the first request", &more, more.itt() == request.itt())?;
    holds("7143-6.2-3", "no data", &more, flags != C || more.data_len() == 0)?;
    link.respond(response(&more, F, NO_TAG, two));
    link.serve(|_, _| Ok(super::Step::Serve))?;
    if served.succeeded()? { Ok(()) } else { fail("7143-11.11.4-3", "the command ends well", "it failed") }
}

fn no_address(served: &mut Served) -> Outcome {
    let (mut link, request) = session(served)?;
    link.respond(response(&request, F, NO_TAG, &text(&[("TargetName", TARGET)])));
    link.serve(|_, _| Ok(super::Step::Serve))?;
    if served.succeeded()? { Ok(()) } else { fail("7143-C-19", "the command ends well", "it failed") }
}

fn level(served: &mut Served) -> Outcome {
    let mut link = served.accept()?;
    for step in 0..8 {
        let request = link.login_request()?;
        if find(&pairs(&request.data), "ErrorRecoveryLevel").is_none() {
            if link.grant(&request, &[], step == 0) {
                return skip("the initiator does not offer ErrorRecoveryLevel");
            }
            continue;
        }
        let answer = text(&[("ErrorRecoveryLevel", "2")]);
        link.respond(Link::login_response(&request, request.flags() & 0x8f, &answer).set16(at::TSIH, 1));
        return match link.recv(link.answer)? {
            Got::Closed => Ok(()),
            got => got.wrong("7143-13.21-1", "the end of the connection"),
        };
    }
    skip("the initiator does not end its login")
}

fn end(served: &mut Served) -> Outcome {
    let rule = "7143-11.11.1-4";
    let (mut link, request) = session(served)?;
    link.respond(response(&request, F, NO_TAG, &text(&[("TargetName", TARGET)])));
    if request.flags() & F == 0 {
        return early_end(served, &mut link);
    }
    link.serve(|_, pdu| {
        holds(rule, "the exchange is over: no more Text Requests", pdu, pdu.opcode() != op::TEXT_REQUEST)?;
        Ok(super::Step::Serve)
    })?;
    if served.succeeded()? { Ok(()) } else { fail(rule, "the command ends well", "it failed") }
}

/// The request had more to come, and was answered with F: the negotiation begins anew, or the connection ends.
fn early_end(served: &mut Served, link: &mut Link) -> Outcome {
    let (rule, expected) = ("7143-11.11.1-4", "the end of the connection, or an exchange from the beginning");
    match link.recv(link.answer)? {
        Got::Pdu(pdu) if pdu.opcode() == op::TEXT_REQUEST => {
            holds(rule, "Target Transfer Tag ffffffff: from the beginning", &pdu, pdu.ttt() == NO_TAG)
        }
        Got::Pdu(pdu) if link.handle(&pdu)? => failed(served, rule, expected),
        Got::Closed => failed(served, rule, expected),
        got => got.wrong(rule, expected),
    }
}

/// The answer must not count.
fn failed(served: &mut Served, rule: &str, expected: &str) -> Outcome {
    match served.end()? {
        super::End::Well => fail(rule, expected, "the command ended well"),
        _ => Ok(()),
    }
}
