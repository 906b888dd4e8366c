//! Logout (RFC 7143 sections 11.14 and 11.15).

use super::conn::cdb10;
use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, Pdu, at, op};
use crate::verdict::{Outcome, Stop, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "logout-01",
        "reason 0: response 0, the connection is closed",
        &["7143-11.14-7", "7143-11.15-1"],
        |b| plain(b, 0),
    ),
    Case::target(
        "logout-02",
        "reason 1 for the own CID: response 0, the connection is closed",
        &["7143-11.14-7", "7143-11.15-1"],
        |b| plain(b, 1),
    ),
    Case::target(
        "logout-03",
        "reason 1 for a CID that is not in the session: response 1",
        &["7143-11.15.1-1"],
        unknown_cid,
    ),
    Case::target(
        "logout-04",
        "reason 2 below ErrorRecoveryLevel 2: response 2",
        &["7143-11.15.1-1"],
        recovery,
    ),
    Case::target(
        "logout-05",
        "after the Logout the session is gone: its TSIH is answered by 020a",
        &["7143-6.3.5-4", "7143-6.3.1-2"],
        session_is_gone,
    ),
    Case::target("logout-06", "a Logout ends commands that wait for data", &["7143-11.14-4"], ends_commands)
        .destroys(),
    Case::target("logout-07", "a Logout that is not immediate takes its turn", &["7143-4.2.2.1-7"], in_order),
];

fn logout(conn: &mut Conn, reason: u8, cid: u16) -> Pdu {
    conn.request(0x40 | op::LOGOUT_REQUEST, F | reason).set16(at::CID, cid)
}

fn answered(conn: &mut Conn, request: &Pdu) -> Result<Pdu, Stop> {
    conn.ask(request, op::LOGOUT_RESPONSE, "7143-11.14-7", "a Logout Response")
}

fn plain(bench: &Bench, reason: u8) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = logout(&mut conn, reason, 0);
    let answer = answered(&mut conn, &request)?;
    holds("7143-11.15.1-1", "response 0", &answer, answer.byte(at::RESPONSE) == 0)?;
    conn.expect_closed("7143-11.14-7", "the connection is closed after the Logout Response")
}

fn unknown_cid(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = logout(&mut conn, 1, 0x4321);
    let answer = answered(&mut conn, &request)?;
    holds("7143-11.15.1-1", "response 1", &answer, answer.byte(at::RESPONSE) == 1)
}

fn recovery(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[("ErrorRecoveryLevel", "0")])?;
    let request = logout(&mut conn, 2, 0);
    let answer = answered(&mut conn, &request)?;
    holds("7143-11.15.1-1", "response 2", &answer, answer.byte(at::RESPONSE) == 2)
}

fn session_is_gone(bench: &Bench) -> Outcome {
    if bench.peer.initiator.is_some() {
        return skip("the target wants authentication; this is judged without");
    }
    let mut conn = bench.session(&[])?;
    let request = logout(&mut conn, 0, 0);
    answered(&mut conn, &request)?;
    let mut late = conn.sibling(bench, 1)?;
    let first = late.names_and(&[]);
    late.refused(0x87, &first, "7143-6.3.1-2", &[0x020a]).map(drop)
}

fn ends_commands(bench: &Bench) -> Outcome {
    let mut conn = bench.disk(&[("InitialR2T", "Yes"), ("ImmediateData", "No")])?;
    let (_, size) = conn.capacity()?;
    let command = conn.command(&Io { cdb: cdb10(0x2a, 8, 1), write: Some(size), ..Io::default() });
    conn.send(&command);
    conn.expect(op::R2T, "7143-4.2.5.1-4", "an R2T")?;
    let request = logout(&mut conn, 0, 0);
    conn.send(&request);
    loop {
        match conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_RESPONSE => {
                holds("7143-11.14-4", "response 0", &pdu, pdu.byte(at::RESPONSE) == 0)?;
                return conn.expect_closed("7143-11.14-7", "the connection is closed");
            }
            // A target may end the command first.
            Got::Pdu(pdu) if pdu.itt() == command.itt() && pdu.byte(at::STATUS) != 0 => (),
            Got::Pdu(pdu) => return wrong("7143-11.14-4", "a Logout Response", &pdu),
            got => return got.wrong("7143-11.14-4", "a Logout Response"),
        }
    }
}

fn in_order(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let request = conn.request(op::LOGOUT_REQUEST, F);
    let answer = answered(&mut conn, &request)?;
    holds("7143-11.15.1-1", "response 0", &answer, answer.byte(at::RESPONSE) == 0)
}
