//! Login: stages, flags, names, statuses, which session (RFC 7143 sections 6.3, 11.12, 11.13).

mod stages;

use super::{Bench, INITIATOR, Login};
use crate::case::Case;
use crate::keys::{find, pairs, text};
use crate::pdu::{C, F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

/// T with CSG and NSG (section 11.12.3).
const SECURITY_TO_OPERATIONAL: u8 = 0x81;
const SECURITY_TO_FULL: u8 = 0x83;
const OPERATIONAL_TO_FULL: u8 = 0x87;
const OPERATIONAL: u8 = 0x04;

/// What a target may say to a PDU that breaks the rules of login: initiator error, missing parameter, invalid
/// request.
const INITIATOR_ERROR: &[u16] = &[0x0200, 0x0207, 0x020b];

pub(super) const CASES: &[Case] = &[
    Case::target(
        "login-01",
        "a first PDU that is no Login Request closes the connection, without an answer",
        &["7143-4.2.4-5", "7143-4.2.4-3"],
        not_a_login,
    ),
    Case::target(
        "login-02",
        "another PDU during login is answered by status 020b and the end of the connection",
        &["7143-4.2.4-6"],
        other_pdu_during_login,
    ),
    Case::target(
        "login-03",
        "a login that begins at the operational stage ends in full feature phase with a TSIH",
        &["7143-6.3-7", "7143-6.3-16", "7143-11.13.3-1", "7143-4.4.3-3"],
        operational_only,
    ),
    Case::target(
        "login-04",
        "the security stage may lead to full feature phase directly",
        &["7143-6.3-15", "7143-6.3.2-3"],
        security_to_full,
    ),
    Case::target(
        "login-05",
        "security, then operational stage; the TSIH is 0 until the last response",
        &["7143-6.3-9", "7143-6.3-13", "7143-11.13.3-1"],
        both_stages,
    ),
    Case::target(
        "login-06",
        "ISID and ITT of the request come back",
        &["7143-11.12-2", "7143-4.2.5.3-1"],
        echoes,
    ),
    Case::target(
        "login-07",
        "StatSN grows by 1 from response to response, CSG is the request's",
        &["7143-11.13.4-1", "7143-6.3-13"],
        stat_sn,
    ),
    Case::target(
        "login-08",
        "CmdSN of the login is the first ExpCmdSN",
        &["7143-11.12.8-1", "7143-11.12.8-2"],
        first_exp_cmd_sn,
    ),
    Case::target(
        "login-09",
        "a version that the target has not: status 0205, Version-active is its lowest",
        &["7143-11.12.4-2"],
        stages::version,
    ),
    Case::target(
        "login-10",
        "the reserved stage 2 as CSG is refused",
        &["7143-11.12.3-1", "7143-6.3-15"],
        stages::reserved_csg,
    ),
    Case::target(
        "login-11",
        "the reserved stage 2 as NSG is refused",
        &["7143-11.12.3-1", "7143-6.3-15"],
        stages::reserved_nsg,
    ),
    Case::target(
        "login-12",
        "a transition back to the security stage is refused",
        &["7143-6.3-15"],
        stages::backwards,
    ),
    Case::target(
        "login-13",
        "a transition from a stage to itself is refused",
        &["7143-6.3-15"],
        stages::to_itself,
    ),
    Case::target(
        "login-14",
        "full feature phase as CSG is refused",
        &["7143-6.3-15"],
        stages::full_feature_as_csg,
    ),
    Case::target(
        "login-15",
        "a change of CSG without a transition is refused",
        &["7143-6.3-13", "7143-6.3-15"],
        stages::jump,
    ),
    Case::target("login-16", "T with C is refused", &["7143-6.2-1", "7143-11.12.2-1"], stages::t_with_c),
    Case::target(
        "login-17",
        "a request with C is answered without data; a key in two PDUs is put together",
        &["7143-6.2-2", "7143-6.1-7"],
        stages::continued,
    ),
    Case::target(
        "login-18",
        "without T in the request there is none in the response",
        &["7143-11.13.6-2", "7143-6.3-13"],
        stages::no_t,
    ),
    Case::target(
        "login-19",
        "no InitiatorName: status 0207",
        &["7143-6.3-5", "7143-6.3-2"],
        no_initiator_name,
    ),
    Case::target(
        "login-20",
        "no TargetName in a Normal session: status 0207",
        &["7143-6.3-5"],
        no_target_name,
    ),
    Case::target(
        "login-21",
        "a TargetName that is not served: status 0203",
        &["7143-11.13.5-7"],
        unknown_target,
    ),
    Case::target("login-22", "a key given twice: status 0200", &["7143-6.3-18", "7143-6.3-17"], twice),
    Case::target(
        "login-23",
        "InitiatorName declared again in a later request: status 0200",
        &["7143-6.3-18", "7143-13.5-2"],
        name_again,
    ),
    Case::target(
        "login-24",
        "the first response has TargetPortalGroupTag",
        &["7143-6.3.1-1", "7143-13.9-1"],
        portal_group_tag,
    ),
    Case::target(
        "login-25",
        "a TSIH that does not exist: status 020a",
        &["7143-6.3.1-2", "7143-11.12.6-4"],
        unknown_tsih,
    ),
    Case::target(
        "login-26",
        "an unknown SessionType is refused",
        &["7143-13.21-3", "7143-11.13.5-7"],
        session_type,
    ),
    Case::target(
        "login-27",
        "a Login Request in full feature phase is not served",
        &["7143-4.2.4-4", "7143-4.2.4-2"],
        login_again,
    ),
    Case::target("login-28", "reserved bits and fields are ignored", &["7143-11-2"], reserved_fields),
    Case::target(
        "login-29",
        "a data segment longer than 8192 bytes is not accepted",
        &["7143-13.12-2", "7143-11.7.1-2"],
        too_long,
    ),
    Case::target(
        "login-30",
        "the same ISID with TSIH 0 reinstates the session: the old connection is closed",
        &["7143-6.3.5-3", "7143-6.3.1-2", "7143-7.15-2"],
        reinstatement,
    ),
    Case::target(
        "login-31",
        "the same ISID from another initiator is another session",
        &["7143-4.4.3-2", "7143-4.4.2-2"],
        same_isid_other_name,
    ),
    Case::target(
        "login-32",
        "two sessions of an initiator have different TSIHs",
        &["7143-4.4.3-3"],
        two_sessions,
    ),
    Case::target(
        "login-33",
        "SendTargets in a login is refused",
        &["7143-13.3-1", "7143-13-2"],
        send_targets,
    ),
    Case::target("login-34", "names of 223 bytes are taken", &["7143-4.2.7.1-3"], long_name),
    Case::target(
        "login-35",
        "an InitiatorName of no known type is refused, where names are looked at",
        &["7143-4.2.7.3-1"],
        bad_name,
    ),
    Case::target(
        "login-36",
        "the ISID of another format serves as well: OUI and enterprise number",
        &["7143-11.12.5-1"],
        isid_formats,
    ),
    Case::target(
        "login-37",
        "many empty requests do not end the login early: six exchanges at least",
        &["7143-6.2-23"],
        six_exchanges,
    ),
    Case::target(
        "login-38",
        "NSG of the response never passes what was asked",
        &["7143-6.3-12"],
        stages::nsg,
    ),
    Case::target(
        "login-39",
        "the login may start again on a new connection after one was refused",
        &["7143-6.3.1-3"],
        after_refusal,
    ),
    Case::target(
        "login-40",
        "an ITT that changes within the login is refused, or the login goes on with it",
        &["7143-11.12-2"],
        other_itt,
    ),
];

/// Skips cases that would need the security stage first.
fn open(bench: &Bench) -> Result<super::Conn, Stop> {
    if bench.peer.initiator.is_some() {
        return skip("the target wants authentication; this is judged without");
    }
    bench.connect()
}

fn accepted(pdu: &Pdu, rule: &str, expected: &str) -> Outcome {
    holds(rule, expected, pdu, pdu.be16(at::LOGIN_STATUS) == 0)
}

fn not_a_login(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    let ping = conn.ping(b"hello");
    conn.send(&ping);
    conn.expect_closed("7143-4.2.4-5", "the connection is closed without an answer")
}

fn other_pdu_during_login(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    accepted(&conn.login_step(OPERATIONAL, &first)?, "7143-6.3-7", "status 0000")?;
    let ping = conn.ping(b"too early");
    conn.send(&ping);
    let rule = "7143-4.2.4-6";
    let answer = conn.expect(op::LOGIN_RESPONSE, rule, "a Login Response with status 020b")?;
    conn.refused_as(answer, rule, &[0x020b]).map(drop)
}

fn operational_only(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &first)?;
    accepted(&answer, "7143-6.3-7", "status 0000")?;
    let answer = conn.settle(answer)?;
    holds("7143-6.3-16", "T with CSG 1 and NSG 3", &answer, answer.flags() == OPERATIONAL_TO_FULL)?;
    holds("7143-4.4.3-3", "a TSIH other than 0", &answer, answer.be16(at::TSIH) != 0)?;
    conn.established(&answer, &[]);
    conn.expect_alive("7143-6.3-16")
}

fn security_to_full(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("AuthMethod", "None")]);
    let answer = conn.login_step(SECURITY_TO_FULL, &first)?;
    accepted(&answer, "7143-6.3-15", "status 0000")?;
    if answer.flags() & 0x80 == 0 || answer.flags() & 3 == 1 {
        return skip("the target goes to the operational stage, as it may");
    }
    holds("7143-6.3.2-3", "T with NSG 3 and a TSIH", &answer, answer.flags() == SECURITY_TO_FULL)?;
    holds("7143-6.3.2-3", "a TSIH other than 0", &answer, answer.be16(at::TSIH) != 0)?;
    conn.established(&answer, &[]);
    conn.expect_alive("7143-6.3-16")
}

fn both_stages(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("AuthMethod", "None")]);
    let answer = conn.login_step(SECURITY_TO_OPERATIONAL, &first)?;
    accepted(&answer, "7143-6.3-9", "status 0000")?;
    holds("7143-6.3-13", "T with CSG 0 and NSG 1", &answer, answer.flags() == SECURITY_TO_OPERATIONAL)?;
    holds("7143-11.13.3-1", "TSIH 0 before the last response", &answer, answer.be16(at::TSIH) == 0)?;
    let chosen = pairs(&answer.data);
    holds("7143-6.3.2-1", "AuthMethod=None", &answer, find(&chosen, "AuthMethod") == Some("None"))?;
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &[])?;
    let answer = conn.settle(answer)?;
    holds("7143-6.3-13", "T with CSG 1 and NSG 3", &answer, answer.flags() == OPERATIONAL_TO_FULL)?;
    holds("7143-11.13.3-1", "a TSIH other than 0", &answer, answer.be16(at::TSIH) != 0)
}

fn echoes(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let request = conn.login_request(OPERATIONAL_TO_FULL, &first).set32(at::ITT, 0xdead_0001);
    conn.send(&request);
    let answer = conn.expect(op::LOGIN_RESPONSE, "7143-11.12-2", "a Login Response")?;
    holds("7143-4.2.5.3-1", "the ITT of the request", &answer, answer.itt() == 0xdead_0001)?;
    let same = answer.bhs[at::ISID..at::ISID + 6] == request.bhs[at::ISID..at::ISID + 6];
    holds("7143-11.12-2", "the ISID of the request", &answer, same)
}

fn stat_sn(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let one = conn.login_step(OPERATIONAL, &first)?;
    accepted(&one, "7143-6.3-7", "status 0000")?;
    holds("7143-6.3-13", "CSG 1", &one, one.flags() & 0x0c == 0x04)?;
    let two = conn.login_step(OPERATIONAL, &text(&[("MaxBurstLength", "65536")]))?;
    let next = one.be32(at::STAT_SN).wrapping_add(1);
    holds("7143-11.13.4-1", "StatSN one more than before", &two, two.be32(at::STAT_SN) == next)?;
    let three = conn.login_step(OPERATIONAL_TO_FULL, &[])?;
    let next = next.wrapping_add(1);
    holds("7143-11.13.4-1", "StatSN one more than before", &three, three.be32(at::STAT_SN) == next)
}

fn first_exp_cmd_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    conn.cmd_sn = 0x7654_3210;
    conn.log_in(&Login::normal(&[]))?;
    if conn.exp_cmd_sn != 0x7654_3210 {
        return fail("7143-11.12.8-1", "ExpCmdSN 76543210", format!("{:08x}", conn.exp_cmd_sn));
    }
    let ping = conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG);
    let answer = conn.ask(&ping, op::NOP_IN, "7143-11.12.8-2", "the first command has the login's CmdSN")?;
    holds("7143-11.12.8-2", "ExpCmdSN 76543211", &answer, answer.be32(at::EXP_CMD_SN) == 0x7654_3211)
}

fn no_initiator_name(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = text(&[("TargetName", &bench.peer.name), ("SessionType", "Normal")]);
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-6.3-5", &[0x0207]).map(drop)
}

fn no_target_name(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = text(&[("InitiatorName", INITIATOR), ("SessionType", "Normal")]);
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-6.3-5", &[0x0207]).map(drop)
}

/// The names of a login to a target that there is not.
fn no_such_target() -> Vec<u8> {
    const NAME: &str = "iqn.2026-01.org.example:no.such.target";
    text(&[("InitiatorName", INITIATOR), ("TargetName", NAME), ("SessionType", "Normal")])
}

fn unknown_target(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = no_such_target();
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-11.13.5-7", &[0x0203]).map(drop)
}

fn twice(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("MaxBurstLength", "65536"), ("MaxBurstLength", "32768")]);
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-6.3-18", &[0x0200]).map(drop)
}

fn name_again(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    accepted(&conn.login_step(OPERATIONAL, &first)?, "7143-6.3-7", "status 0000")?;
    let again = text(&[("InitiatorName", INITIATOR)]);
    conn.refused(OPERATIONAL_TO_FULL, &again, "7143-6.3-18", &[0x0200]).map(drop)
}

fn portal_group_tag(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    let method = if bench.peer.initiator.is_some() { "CHAP" } else { "None" };
    let first = conn.names_and(&[("AuthMethod", method)]);
    let answer = conn.login_step(0x00, &first)?;
    accepted(&answer, "7143-6.3.1-1", "status 0000")?;
    let keys = pairs(&answer.data);
    let tag = find(&keys, "TargetPortalGroupTag").and_then(crate::keys::number);
    holds("7143-6.3.1-1", "TargetPortalGroupTag of 16 bits", &answer, tag.is_some_and(|tag| tag <= 0xffff))
}

fn unknown_tsih(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    conn.tsih = 0xfffe;
    let first = conn.names_and(&[]);
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-6.3.1-2", &[0x020a]).map(drop)
}

fn session_type(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first =
        text(&[("InitiatorName", INITIATOR), ("TargetName", &bench.peer.name), ("SessionType", "Backup")]);
    conn.refused(OPERATIONAL_TO_FULL, &first, "7143-13.21-3", &[0x0200, 0x0209, 0x020b]).map(drop)
}

fn login_again(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let first = conn.names_and(&[]);
    let request = conn.login_request(OPERATIONAL_TO_FULL, &first);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        got => got.wrong("7143-4.2.4-4", "a Reject, or the end of the connection"),
    }
}

fn reserved_fields(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let mut request = conn.login_request(OPERATIONAL_TO_FULL | 0x30, &first).set16(22, 0xffff);
    request = request.bytes(32, &[0xff; 16]);
    let answer = conn.ask(&request, op::LOGIN_RESPONSE, "7143-11-2", "a Login Response")?;
    accepted(&answer, "7143-11-2", "status 0000 although reserved bits are set")?;
    let answer = conn.settle(answer)?;
    conn.established(&answer, &[]);
    let mut ping = conn.ping(b"reserved").set(at::FLAGS, 0xff);
    ping = ping.bytes(32, &[0xff; 16]);
    conn.ask(&ping, op::NOP_IN, "7143-11-2", "an answer although reserved bits are set").map(drop)
}

fn too_long(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let long = "x".repeat(200);
    let keys: Vec<String> = (0..50).map(|n| format!("X-org.example.n{n}")).collect();
    let more: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), long.as_str())).collect();
    let first = conn.names_and(&more);
    let request = conn.login_request(OPERATIONAL, &first);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_RESPONSE && pdu.byte(at::LOGIN_STATUS) >= 2 => Ok(()),
        got => got.wrong("7143-13.12-2", "the login is refused: the segment is longer than 8192 bytes"),
    }
}

fn reinstatement(bench: &Bench) -> Outcome {
    let mut old = bench.session(&[])?;
    let mut new = bench.connect()?;
    new.isid = old.isid;
    new.log_in(&Login::normal(&[]))?;
    match old.next()? {
        Got::Closed => (),
        got => {
            return got.wrong("7143-6.3.5-3", "the connection of the old session is closed without notice");
        }
    }
    new.expect_alive("7143-6.3.1-2")
}

fn same_isid_other_name(bench: &Bench) -> Outcome {
    let mut one = bench.session(&[])?;
    let mut two = bench.connect()?;
    two.isid = one.isid;
    let other = format!("{INITIATOR}:other");
    two.log_in(&Login { initiator: Some(other), ..Login::normal(&[]) })?;
    one.expect_alive("7143-4.4.3-2")?;
    two.expect_alive("7143-4.4.3-2")
}

fn two_sessions(bench: &Bench) -> Outcome {
    let (mut one, mut two) = (bench.session(&[])?, bench.session(&[])?);
    if one.tsih == two.tsih {
        return fail("7143-4.4.3-3", "two TSIHs", format!("both are {:04x}", one.tsih));
    }
    one.expect_alive("7143-4.4.3-2")?;
    two.expect_alive("7143-4.4.3-2")
}

fn send_targets(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("SendTargets", "All")]);
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &first)?;
    let keys = pairs(&answer.data);
    let status = answer.be16(at::LOGIN_STATUS);
    if status == 0 && find(&keys, "SendTargets") == Some("Reject") {
        return Ok(());
    }
    holds("7143-13.3-1", "a refusal, or SendTargets=Reject", &answer, INITIATOR_ERROR.contains(&status))
}

fn long_name(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    let name = format!("{INITIATOR}:{}", "n".repeat(222 - INITIATOR.len()));
    let mut first = conn.names();
    first[0].1 = name;
    let first: Vec<(&str, &str)> = first.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let method = if bench.peer.initiator.is_some() { "CHAP" } else { "None" };
    let first = [first.as_slice(), &[("AuthMethod", method)]].concat();
    let answer = conn.login_step(0x00, &text(&first))?;
    accepted(&answer, "7143-4.2.7.1-3", "status 0000 for a name of 223 bytes")
}

fn bad_name(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = text(&[("InitiatorName", "someone"), ("TargetName", &bench.peer.name)]);
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &first)?;
    if answer.be16(at::LOGIN_STATUS) == 0 {
        return skip("the target does not look at the form of names, as it may");
    }
    conn.refused_as(answer, "7143-4.2.7.3-1", &[0x0200, 0x0201, 0x0202, 0x0207]).map(drop)
}

fn isid_formats(bench: &Bench) -> Outcome {
    for isid in [[0x00, 0x02, 0x3d, 0x00, 0x00, 0x07], [0x40, 0x00, 0x01, 0x37, 0x00, 0x09]] {
        let mut conn = bench.connect()?;
        conn.isid = isid;
        conn.log_in(&Login::normal(&[]))?;
        conn.expect_alive("7143-11.12.5-1")?;
    }
    Ok(())
}

fn six_exchanges(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    accepted(&conn.login_step(OPERATIONAL, &first)?, "7143-6.3-7", "status 0000")?;
    // Keys that no target has: one of the RFC's it might have offered itself, so that ours would be the answer.
    for n in 2..=6 {
        let key = format!("X-org.example.exchange{n}");
        let answer = conn.login_step(OPERATIONAL, &text(&[(&key, "1")]))?;
        accepted(&answer, "7143-6.2-23", "status 0000: one key in each of six exchanges")?;
        let keys = pairs(&answer.data);
        holds("7143-6.2.2-1", "an answer to the key", &answer, find(&keys, &key).is_some())?;
    }
    accepted(&conn.login_step(OPERATIONAL_TO_FULL, &[])?, "7143-6.2-23", "status 0000")
}

fn after_refusal(bench: &Bench) -> Outcome {
    let mut conn = bench.connect()?;
    let first = no_such_target();
    let answer = conn.login_step(OPERATIONAL_TO_FULL, &first)?;
    if answer.byte(at::LOGIN_STATUS) == 0 {
        return wrong("7143-11.13.5-7", "a refusal", &answer);
    }
    let mut again = bench.connect()?;
    again.isid = conn.isid;
    again.log_in(&Login::normal(&[]))?;
    again.expect_alive("7143-6.3.1-3")
}

fn other_itt(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    accepted(&conn.login_step(OPERATIONAL, &first)?, "7143-6.3-7", "status 0000")?;
    let request = conn.login_request(OPERATIONAL_TO_FULL, &[]).set32(at::ITT, 0x7777);
    conn.send(&request);
    match conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_RESPONSE => {
            let refused = pdu.byte(at::LOGIN_STATUS) == 2;
            holds(
                "7143-11.12-2",
                "a refusal, or the ITT of the request",
                &pdu,
                refused || pdu.itt() == 0x7777,
            )
        }
        got => got.wrong("7143-11.12-2", "a Login Response, or the end of the connection"),
    }
}
