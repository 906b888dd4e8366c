//! Several connections a session, and one that comes again (RFC 7143 sections 4.2.1, 6.3.1, 6.3.4, 11.14).

use super::{Bench, Conn, Io};
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, error, holds, skip};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "connections-01",
        "MaxConnections=1: a second connection is refused",
        &["7143-6.3.1-2", "7143-11.13.5-7"],
        too_many,
    ),
    Case::target(
        "connections-02",
        "a second connection serves commands, and answers on itself",
        &["7143-4.2.1-2", "7143-4.2.5.1-1"],
        second,
    ),
    Case::target("connections-03", "CmdSN is one order over both connections", &["7143-4.2.2.1-7"], order),
    Case::target("connections-04", "StatSN is counted for each connection", &["7143-4.2.2.2-5"], stat_sn),
    Case::target(
        "connections-05",
        "the Logout of one connection leaves the other",
        &["7143-11.14-4", "7143-11.15-1"],
        logout_of_one,
    ),
    Case::target(
        "connections-06",
        "a connection can be logged out from another",
        &["7143-11.14-4", "7143-11.15.1-1"],
        logout_of_other,
    ),
    Case::target(
        "connections-07",
        "a Logout with reason 0 closes all connections",
        &["7143-11.14-4", "7143-11.15-1"],
        logout_of_all,
    ),
    Case::target(
        "connections-08",
        "the TSIH is the session's on each connection",
        &["7143-4.4.3-1", "7143-11.12.6-2"],
        tsih,
    ),
    Case::target(
        "connections-09",
        "a login with the CID of a live connection reinstates it: the old one is closed",
        &["7143-6.3.4-3", "7143-6.3.1-2", "7143-6.3.4-5"],
        reinstatement,
    ),
    Case::target(
        "connections-10",
        "one connection more than MaxConnections: status 0206",
        &["7143-11.13.5-7"],
        beyond_limit,
    ),
    Case::target(
        "connections-11",
        "a lost connection leaves the session, whose other connection goes on",
        &["7143-7.1.4.3-5", "7143-7.14-3"],
        lost,
    ),
    Case::target(
        "connections-12",
        "keys of the leading login alone are refused on a second connection",
        &["7143-6.3.3-6", "7143-13-1"],
        leading_only,
    ),
    Case::target(
        "connections-13",
        "a TSIH with the ISID of another session is refused",
        &["7143-6.3.1-2"],
        wrong_isid,
    ),
    Case::target(
        "connections-14",
        "immediate commands on both connections do not wait for a missing CmdSN, as one in order does",
        &["7143-4.2.2.1-21", "7143-4.2.2.1-7", "7143-4.2.5.1-1"],
        immediate,
    ),
];

/// A session that may have this many connections.
fn session(bench: &Bench, least: u32) -> Result<Conn, Stop> {
    let conn = bench.session(&[("MaxConnections", "4"), ("ErrorRecoveryLevel", "0")])?;
    match conn.result_or("MaxConnections", 1) {
        got if got >= least => Ok(conn),
        got => skip(format!("MaxConnections=4 was offered, {got} negotiated")),
    }
}

/// Adds a connection. The keys of the leading login do not come again.
fn join(bench: &Bench, first: &Conn, cid: u16) -> Result<Conn, Stop> {
    let mut conn = first.sibling(bench, cid)?;
    conn.security(&super::Login::normal(&[]))?;
    conn.operational(&[])?;
    Ok(conn)
}

fn no_security(bench: &Bench) -> Outcome {
    if bench.peer.initiator.is_some() {
        return skip("the target wants authentication; this is judged without");
    }
    Ok(())
}

fn too_many(bench: &Bench) -> Outcome {
    no_security(bench)?;
    let mut first = bench.session(&[("MaxConnections", "1"), ("ErrorRecoveryLevel", "0")])?;
    let mut second = first.sibling(bench, 1)?;
    let names = second.names_and(&[]);
    second.refused(0x87, &names, "7143-11.13.5-7", &[0x0206, 0x0208])?;
    first.expect_alive("7143-6.3.1-2")
}

fn beyond_limit(bench: &Bench) -> Outcome {
    no_security(bench)?;
    let mut first = session(bench, 2)?;
    let most = first.result_or("MaxConnections", 1);
    let mut others = Vec::new();
    for cid in 1..most {
        others.push(join(bench, &first, u16::try_from(cid).unwrap_or(u16::MAX))?);
    }
    let mut last = first.sibling(bench, 99)?;
    let names = last.names_and(&[]);
    last.refused(0x87, &names, "7143-11.13.5-7", &[0x0206])?;
    first.expect_alive("7143-4.2.1-2")
}

fn second(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    one.make_ready()?;
    two.cmd_sn = one.cmd_sn;
    let done = two.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
    holds("7143-4.2.1-2", "GOOD on the second connection", &done.last, done.status() == 0)?;
    one.cmd_sn = two.cmd_sn;
    let done = one.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
    holds("7143-4.2.5.1-1", "GOOD on the first connection", &done.last, done.status() == 0)
}

fn ordered_ping(conn: &mut Conn) -> Pdu {
    conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG).with_data(b"in order")
}

fn order(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    two.cmd_sn = one.cmd_sn;
    let first = ordered_ping(&mut two);
    one.cmd_sn = two.cmd_sn;
    let second = ordered_ping(&mut one);
    // The later one is there first, on the other connection.
    one.send(&second);
    one.expect_quiet("7143-4.2.2.1-7", "nothing: an earlier CmdSN is missing")?;
    two.ask(&first, op::NOP_IN, "7143-4.2.2.1-7", "an answer on the second connection")?;
    let answer = one.expect(op::NOP_IN, "7143-4.2.2.1-7", "then one on the first connection")?;
    holds("7143-4.2.2.1-7", "the ITT of the ping that waited", &answer, answer.itt() == second.itt())
}

fn immediate(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    overtake(&mut one, &mut two)?;
    overtake(&mut two, &mut one)
}

/// A ping in order waits on `late` for the number that goes over `early`; immediate ones on both are answered meanwhile.
fn overtake(late: &mut Conn, early: &mut Conn) -> Outcome {
    let rule = "7143-4.2.2.1-21";
    early.cmd_sn = late.cmd_sn;
    let missing = ordered_ping(early);
    late.cmd_sn = early.cmd_sn;
    let waits = ordered_ping(late);
    early.cmd_sn = late.cmd_sn;
    late.send(&waits);
    for _ in 0..3 {
        // The next answer has to be this ping's: that of the one that waits would have another tag.
        late.expect_alive(rule)?;
        early.expect_alive(rule)?;
    }
    early.ask(&missing, op::NOP_IN, "7143-4.2.2.1-7", "an answer to the ping whose number was missing")?;
    let answer = late.expect(op::NOP_IN, "7143-4.2.2.1-7", "then one to the ping that waited")?;
    holds("7143-4.2.2.1-7", "the ITT of the ping that waited", &answer, answer.itt() == waits.itt())
}

fn stat_sn(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    let before = two.exp_stat_sn();
    for _ in 0..3 {
        one.expect_alive("7143-4.2.2.2-5")?;
    }
    let ping = two.ping(b"count");
    let answer = two.ask(&ping, op::NOP_IN, "7143-4.2.2.2-5", "a NOP-In")?;
    let right = answer.be32(at::STAT_SN) == before;
    holds("7143-4.2.2.2-5", &format!("StatSN {before:08x}: only this connection's count"), &answer, right)
}

fn logout(conn: &mut Conn, reason: u8, cid: u16) -> Result<Pdu, Stop> {
    let request = conn.request(0x40 | op::LOGOUT_REQUEST, F | reason).set16(at::CID, cid);
    let answer = conn.ask(&request, op::LOGOUT_RESPONSE, "7143-11.14-7", "a Logout Response")?;
    holds("7143-11.15.1-1", "response 0", &answer, answer.byte(at::RESPONSE) == 0)?;
    Ok(answer)
}

fn logout_of_one(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    logout(&mut two, 1, 1)?;
    two.expect_closed("7143-11.15-1", "the connection is closed")?;
    one.expect_alive("7143-11.14-4")
}

fn logout_of_other(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    logout(&mut one, 1, 1)?;
    two.expect_closed("7143-11.15-1", "the other connection is closed")?;
    one.expect_alive("7143-11.14-4")
}

fn logout_of_all(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    logout(&mut one, 0, 0)?;
    one.expect_closed("7143-11.15-1", "the connection is closed")?;
    two.expect_closed("7143-11.15-1", "the other connection is closed")
}

fn tsih(bench: &Bench) -> Outcome {
    let one = session(bench, 2)?;
    let two = join(bench, &one, 1)?;
    if one.tsih == two.tsih {
        return Ok(());
    }
    error(format!("TSIH {:04x} on one connection, {:04x} on the other", one.tsih, two.tsih))
}

fn reinstatement(bench: &Bench) -> Outcome {
    let mut one = bench.session(&[("ErrorRecoveryLevel", "0")])?;
    let mut again = join(bench, &one, 0)?;
    one.expect_closed("7143-6.3.4-3", "the connection that was there is closed")?;
    again.expect_alive("7143-6.3.4-3")
}

fn lost(bench: &Bench) -> Outcome {
    let mut one = session(bench, 2)?;
    let mut two = join(bench, &one, 1)?;
    two.wire.close();
    let until = std::time::Instant::now() + bench.quiet;
    while std::time::Instant::now() < until {
        match one.next_within(bench.quiet)? {
            Got::Pdu(pdu) if pdu.opcode() == op::ASYNC => (),
            Got::Silence => (),
            got => return got.wrong("7143-7.14-3", "an Asynchronous Message, or nothing"),
        }
    }
    one.expect_alive("7143-7.14-3")
}

fn leading_only(bench: &Bench) -> Outcome {
    no_security(bench)?;
    let first = session(bench, 2)?;
    let mut second = first.sibling(bench, 1)?;
    let names = second.names_and(&[("MaxBurstLength", "65536")]);
    let answer = second.login_step(0x87, &names)?;
    let keys = crate::keys::pairs(&answer.data);
    let refused = answer.byte(at::LOGIN_STATUS) == 2;
    let rejected = crate::keys::find(&keys, "MaxBurstLength") == Some("Reject");
    holds("7143-6.3.3-6", "a refusal, or MaxBurstLength=Reject", &answer, refused || rejected)
}

fn wrong_isid(bench: &Bench) -> Outcome {
    no_security(bench)?;
    let mut first = bench.session(&[])?;
    let mut second = first.sibling(bench, 1)?;
    second.isid[5] ^= 0x55;
    let names = second.names_and(&[]);
    second.refused(0x87, &names, "7143-6.3.1-2", &[0x020a])?;
    first.expect_alive("7143-6.3.1-2")
}
