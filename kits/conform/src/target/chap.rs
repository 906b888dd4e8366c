//! CHAP (RFC 7143 sections 9.2 and 12.1.3, RFC 1994).

use super::{Bench, Conn, Login};
use crate::case::Case;
use crate::chap::{base64, binary, hex, response};
use crate::keys::{find, pairs, text};
use crate::pdu::{Pdu, at};
use crate::url::Credentials;
use crate::verdict::{Outcome, Stop, error, fail, holds, skip, wrong};

const AUTHENTICATION: &[u16] = &[0x0201];
/// Initiator error, authentication failure, missing parameter, invalid request.
const STEP_ERROR: &[u16] = &[0x0200, 0x0201, 0x0207, 0x020b];
const FULL_FROM_SECURITY: u8 = 0x83;
const TO_OPERATIONAL: u8 = 0x81;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "chap-01",
        "the right response to the challenge logs in",
        &["7143-12.1.3-2", "7143-12.1.3-9", "7143-12.1-3"],
        right,
    ),
    Case::target("chap-02", "a wrong secret: status 0201", &["7143-12.1.3-4", "7143-9.2-5"], |b| {
        wrong_answer(b, |_, _, c| response(5, c.0, b"not the secret", &c.1))
    }),
    Case::target("chap-03", "an unknown name: status 0201", &["7143-12.1.3-4"], wrong_name),
    Case::target(
        "chap-04",
        "a login that leaves authentication out: status 0201",
        &["7143-6.3.1-4"],
        left_out,
    ),
    Case::target("chap-05", "AuthMethod=None: Reject, or a refusal", &["7143-6.3.2-2", "7143-12.1-10"], none),
    Case::target(
        "chap-06",
        "AuthMethod: methods that the target does not know are passed over",
        &["7143-6.3.2-1", "7143-6.2.1-3"],
        unknown_method,
    ),
    Case::target(
        "chap-07",
        "AuthMethod=CHAP,None: CHAP, where it is demanded",
        &["7143-12.1-10", "7143-6.3.2-1"],
        chap_or_none,
    ),
    Case::target(
        "chap-08",
        "CHAP_A with an algorithm that nobody has: status 0201",
        &["7143-12.1.3-2"],
        unknown_algorithm,
    ),
    Case::target(
        "chap-09",
        "CHAP_A as a list: one of it, MD5 being there",
        &["7143-12.1.3-2", "7143-12.1.3-8"],
        list,
    ),
    Case::target("chap-10", "each challenge is another", &["7143-12.1.3-2"], fresh_challenges),
    Case::target(
        "chap-11",
        "a response seen before does not log in again",
        &["7143-9.2-5", "7143-12.1.3-4"],
        replay,
    ),
    Case::target(
        "chap-12",
        "the target's challenge turned on itself: no CHAP_R comes",
        &["7143-9.2.1-10", "7143-9.2.1-9"],
        reflection,
    ),
    Case::target(
        "chap-13",
        "mutual: CHAP_N, and CHAP_R over our challenge",
        &["7143-12.1.3-5", "7143-12.1.3-9", "7143-9.2.1-1"],
        mutual,
    ),
    Case::target("chap-14", "a response in base64", &["7143-6.1-10"], |b| encoded(b, base64)),
    Case::target("chap-15", "a response in hexadecimal with capital letters", &["7143-6.1-9"], |b| {
        encoded(b, |bytes| hex(bytes).to_uppercase())
    }),
    Case::target("chap-16", "CHAP_R before CHAP_A: refused", &["7143-9.2-4"], out_of_order),
    Case::target("chap-17", "CHAP_N without CHAP_R: refused", &["7143-9.2-4"], no_response),
    Case::target("chap-18", "CHAP_R that is no binary value: refused", &["7143-9.2-4"], |b| {
        odd_value(b, "0xnothex")
    }),
    Case::target("chap-19", "CHAP_R of another length: refused", &["7143-9.2-5"], |b| odd_value(b, "0x00")),
    Case::target("chap-20", "CHAP_C of more than 1024 bytes: refused", &["7143-12.1.3-7"], long_challenge),
    Case::target(
        "chap-21",
        "asking for the operational stage before the response: not granted",
        &["7143-6.3-13", "7143-9.2-4"],
        too_early,
    ),
    Case::target(
        "chap-22",
        "SHA-1, SHA-256, SHA3-256: each that the target takes is right",
        &["7143-12.1.3-2"],
        algorithms,
    ),
    Case::target(
        "chap-23",
        "a Discovery session wants authentication as well, or grants one",
        &["7143-12.1-10"],
        discovery,
    ),
    Case::target(
        "chap-24",
        "CHAP_I is one byte, the challenge has 16 bytes at least",
        &["7143-12.1.3-7", "7143-12.1.3-2"],
        challenge_format,
    ),
];

/// CHAP_I and CHAP_C.
type Challenge = (u8, Vec<u8>);

fn credentials(bench: &Bench) -> Result<Credentials, Stop> {
    match &bench.peer.initiator {
        Some(credentials) => Ok(credentials.clone()),
        None => skip("no CHAP name in the URL"),
    }
}

/// The first request, with this AuthMethod.
fn begin(bench: &Bench, method: &str) -> Result<(Conn, Credentials, Pdu), Stop> {
    let credentials = credentials(bench)?;
    let mut conn = bench.connect()?;
    let first = conn.names_and(&[("AuthMethod", method)]);
    let answer = conn.login_step(0x00, &first)?;
    Ok((conn, credentials, answer))
}

/// Steps 1 and 2: an algorithm, and what the target makes of it.
fn challenged(bench: &Bench, algorithms: &str) -> Result<(Conn, Credentials, Pdu), Stop> {
    let (mut conn, credentials, answer) = begin(bench, "CHAP")?;
    let method = pairs(&answer.data);
    if find(&method, "AuthMethod") != Some("CHAP") {
        return wrong("7143-6.3.2-1", "AuthMethod=CHAP", &answer);
    }
    let answer = conn.login_step(0x00, &text(&[("CHAP_A", algorithms)]))?;
    Ok((conn, credentials, answer))
}

fn challenge(answer: &Pdu) -> Result<Challenge, Stop> {
    let got = pairs(&answer.data);
    let identifier = find(&got, "CHAP_I").and_then(crate::keys::number).and_then(|i| u8::try_from(i).ok());
    match (identifier, find(&got, "CHAP_C").and_then(binary)) {
        (Some(identifier), Some(challenge)) => Ok((identifier, challenge)),
        _ => wrong("7143-12.1.3-2", "CHAP_A, CHAP_I and CHAP_C", answer),
    }
}

fn right(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let mut conn = bench.connect()?;
    conn.log_in(&Login::normal(&[]))?;
    conn.expect_alive("7143-12.1.3-9")
}

fn wrong_answer(bench: &Bench, make: fn(&Bench, &Credentials, &Challenge) -> Option<Vec<u8>>) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    let challenge = challenge(&answer)?;
    let value = hex(&make(bench, &user, &challenge).unwrap_or_default());
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", &value)]);
    conn.refused(TO_OPERATIONAL, &step, "7143-12.1.3-4", AUTHENTICATION).map(drop)
}

fn wrong_name(bench: &Bench) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    let challenge = challenge(&answer)?;
    let value = hex(&response(5, challenge.0, user.secret.as_bytes(), &challenge.1).unwrap_or_default());
    let step = text(&[("CHAP_N", "nobody"), ("CHAP_R", &value)]);
    conn.refused(TO_OPERATIONAL, &step, "7143-12.1.3-4", AUTHENTICATION).map(drop)
}

fn left_out(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let mut conn = bench.connect()?;
    let first = conn.names_and(&[]);
    conn.refused(0x87, &first, "7143-6.3.1-4", AUTHENTICATION).map(drop)
}

fn none(bench: &Bench) -> Outcome {
    let (_, _, answer) = begin(bench, "None")?;
    let got = pairs(&answer.data);
    let refused = matches!(answer.be16(at::LOGIN_STATUS), 0x0200..=0x0202);
    let rejected = find(&got, "AuthMethod") == Some("Reject");
    holds("7143-6.3.2-2", "AuthMethod=Reject, or a refusal", &answer, refused || rejected)
}

fn method_is_chap(bench: &Bench, offer: &str, rule: &str) -> Outcome {
    let (_, _, answer) = begin(bench, offer)?;
    let got = pairs(&answer.data);
    holds(rule, "AuthMethod=CHAP", &answer, find(&got, "AuthMethod") == Some("CHAP"))
}

fn unknown_method(bench: &Bench) -> Outcome {
    method_is_chap(bench, "Z-org.example.secret,CHAP", "7143-6.2.1-3")
}

fn chap_or_none(bench: &Bench) -> Outcome {
    method_is_chap(bench, "CHAP,None", "7143-6.3.2-1")?;
    method_is_chap(bench, "None,CHAP", "7143-12.1-10")
}

fn unknown_algorithm(bench: &Bench) -> Outcome {
    let (mut conn, _, answer) = challenged(bench, "99")?;
    let got = pairs(&answer.data);
    if answer.be16(at::LOGIN_STATUS) == 0 && find(&got, "CHAP_A") == Some("Reject") {
        return Ok(());
    }
    conn.refused_as(answer, "7143-12.1.3-2", &[0x0200, 0x0201]).map(drop)
}

fn list(bench: &Bench) -> Outcome {
    let (_, _, answer) = challenged(bench, "8,7,6,5")?;
    let got = pairs(&answer.data);
    let chosen = find(&got, "CHAP_A");
    holds("7143-12.1.3-2", "one of 8, 7, 6, 5", &answer, matches!(chosen, Some("5" | "6" | "7" | "8")))
}

fn fresh_challenges(bench: &Bench) -> Outcome {
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (_, _, answer) = challenged(bench, "5")?;
        let (_, bytes) = challenge(&answer)?;
        if seen.contains(&bytes) {
            return fail("7143-12.1.3-2", "a challenge that did not come before", hex(&bytes));
        }
        seen.push(bytes);
    }
    Ok(())
}

fn replay(bench: &Bench) -> Outcome {
    let (_, user, answer) = challenged(bench, "5")?;
    let old = challenge(&answer)?;
    let value = hex(&response(5, old.0, user.secret.as_bytes(), &old.1).unwrap_or_default());
    let (mut conn, user, answer) = challenged(bench, "5")?;
    if challenge(&answer)? == old {
        return fail("7143-12.1.3-2", "another challenge", "the same as before");
    }
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", &value)]);
    conn.refused(TO_OPERATIONAL, &step, "7143-12.1.3-4", AUTHENTICATION).map(drop)
}

/// What an attacker without the secret would do: let the target answer its own challenge.
fn reflection(bench: &Bench) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    let (identifier, bytes) = challenge(&answer)?;
    let ours = hex(&response(5, identifier, user.secret.as_bytes(), &bytes).unwrap_or_default());
    let (identifier, bytes) = (identifier.to_string(), hex(&bytes));
    let step =
        text(&[("CHAP_N", &user.name), ("CHAP_R", &ours), ("CHAP_I", &identifier), ("CHAP_C", &bytes)]);
    let request = conn.login_request(TO_OPERATIONAL, &step);
    conn.send(&request);
    match conn.next()? {
        crate::wire::Got::Closed => Ok(()),
        crate::wire::Got::Pdu(pdu) => {
            let refused = pdu.byte(at::LOGIN_STATUS) != 0;
            let silent = find(&pairs(&pdu.data), "CHAP_R").is_none();
            holds("7143-9.2.1-10", "the end of the connection, and no CHAP_R", &pdu, refused && silent)
        }
        got => got.wrong("7143-9.2.1-10", "the end of the connection"),
    }
}

fn mutual(bench: &Bench) -> Outcome {
    credentials(bench)?;
    if bench.peer.target.is_none() {
        return skip("no target_user in the URL");
    }
    let mut conn = bench.connect()?;
    conn.log_in(&Login::normal(&[]))?;
    conn.expect_alive("7143-12.1.3-5")
}

fn encoded(bench: &Bench, encode: fn(&[u8]) -> String) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    let (identifier, bytes) = challenge(&answer)?;
    let value = encode(&response(5, identifier, user.secret.as_bytes(), &bytes).unwrap_or_default());
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", &value)]);
    let answer = conn.login_step(TO_OPERATIONAL, &step)?;
    holds("7143-6.1-9", "status 0000", &answer, answer.be16(at::LOGIN_STATUS) == 0)
}

fn out_of_order(bench: &Bench) -> Outcome {
    let (mut conn, user, _) = begin(bench, "CHAP")?;
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", "0x00112233445566778899aabbccddeeff")]);
    conn.refused(TO_OPERATIONAL, &step, "7143-9.2-4", STEP_ERROR).map(drop)
}

fn no_response(bench: &Bench) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    challenge(&answer)?;
    conn.refused(TO_OPERATIONAL, &text(&[("CHAP_N", &user.name)]), "7143-9.2-4", STEP_ERROR).map(drop)
}

fn odd_value(bench: &Bench, value: &str) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    challenge(&answer)?;
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", value)]);
    conn.refused(TO_OPERATIONAL, &step, "7143-9.2-4", STEP_ERROR).map(drop)
}

fn long_challenge(bench: &Bench) -> Outcome {
    let (mut conn, user, answer) = challenged(bench, "5")?;
    let (identifier, bytes) = challenge(&answer)?;
    let ours = hex(&response(5, identifier, user.secret.as_bytes(), &bytes).unwrap_or_default());
    let long = hex(&[0x77; 1025]);
    let step = text(&[("CHAP_N", &user.name), ("CHAP_R", &ours), ("CHAP_I", "3"), ("CHAP_C", &long)]);
    let answer = conn.login_step(TO_OPERATIONAL, &step)?;
    holds("7143-12.1.3-7", "a refusal", &answer, answer.byte(at::LOGIN_STATUS) == 2)
}

fn too_early(bench: &Bench) -> Outcome {
    let credentials = credentials(bench)?;
    let mut conn = bench.connect()?;
    let first = conn.names_and(&[("AuthMethod", "CHAP")]);
    let answer = conn.login_step(FULL_FROM_SECURITY, &first)?;
    if answer.byte(at::LOGIN_STATUS) != 0 {
        return Ok(());
    }
    holds("7143-6.3-13", "no T before authentication is complete", &answer, answer.flags() & 0x80 == 0)?;
    let answer = conn.login_step(FULL_FROM_SECURITY, &text(&[("CHAP_A", "5")]))?;
    if answer.byte(at::LOGIN_STATUS) != 0 || credentials.name.is_empty() {
        return Ok(());
    }
    holds("7143-6.3-13", "no T before authentication is complete", &answer, answer.flags() & 0x80 == 0)?;
    // Now as if all were done.
    conn.refused(0x87, &[], "7143-9.2-4", STEP_ERROR).map(drop)
}

fn algorithms(bench: &Bench) -> Outcome {
    let mut taken = 0;
    for number in [6, 7, 8] {
        let (mut conn, user, answer) = challenged(bench, &number.to_string())?;
        if answer.byte(at::LOGIN_STATUS) != 0 {
            continue;
        }
        let (identifier, bytes) = challenge(&answer)?;
        let Some(value) = response(number, identifier, user.secret.as_bytes(), &bytes) else {
            return error(format!("no algorithm {number} here"));
        };
        let step = text(&[("CHAP_N", &user.name), ("CHAP_R", &hex(&value))]);
        let answer = conn.login_step(TO_OPERATIONAL, &step)?;
        let good = answer.be16(at::LOGIN_STATUS) == 0;
        holds("7143-12.1.3-2", &format!("status 0000 with algorithm {number}"), &answer, good)?;
        taken += 1;
    }
    if taken == 0 { skip("the target takes MD5 only") } else { Ok(()) }
}

fn discovery(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let mut conn = bench.connect()?;
    conn.log_in(&Login { discovery: true, ..Login::normal(&[]) })
}

fn challenge_format(bench: &Bench) -> Outcome {
    let (_, _, answer) = challenged(bench, "5")?;
    let (_, bytes) = challenge(&answer)?;
    holds("7143-12.1.3-7", "1024 bytes at most", &answer, bytes.len() <= 1024)?;
    holds("7143-12.1.3-2", "16 bytes at least", &answer, bytes.len() >= 16)
}
