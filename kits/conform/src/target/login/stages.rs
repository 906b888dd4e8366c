//! Versions, stages, and the bits that say where a login is.

use super::*;

pub(super) fn version(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let request = conn.login_request(OPERATIONAL_TO_FULL, &first).set(2, 5).set(3, 3);
    conn.send(&request);
    let answer = conn.expect(op::LOGIN_RESPONSE, "7143-11.12.4-2", "a Login Response with status 0205")?;
    let answer = conn.refused_as(answer, "7143-11.12.4-2", &[0x0205])?;
    holds("7143-11.12.4-2", "Version-active 0", &answer, answer.byte(at::STATUS) == 0)
}

fn bad_flags(bench: &Bench, flags: u8, rule: &str) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let request = conn.login_request(flags, &first);
    conn.send(&request);
    match conn.next()? {
        // Reserved values are format errors, which end the connection (section 7.7).
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_RESPONSE => {
            conn.refused_as(pdu, rule, INITIATOR_ERROR).map(drop)
        }
        got => got.wrong(rule, "a Login Response that refuses, or the end of the connection"),
    }
}

pub(super) fn reserved_csg(bench: &Bench) -> Outcome {
    bad_flags(bench, 0x8b, "7143-11.12.3-1")
}

pub(super) fn reserved_nsg(bench: &Bench) -> Outcome {
    bad_flags(bench, 0x86, "7143-11.12.3-1")
}

pub(super) fn backwards(bench: &Bench) -> Outcome {
    bad_flags(bench, 0x84, "7143-6.3-15")
}

pub(super) fn to_itself(bench: &Bench) -> Outcome {
    bad_flags(bench, 0x85, "7143-6.3-15")
}

pub(super) fn full_feature_as_csg(bench: &Bench) -> Outcome {
    bad_flags(bench, 0x8f, "7143-6.3-15")
}

pub(super) fn jump(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("AuthMethod", "None")]);
    let answer = conn.login_step(0x00, &first)?;
    accepted(&answer, "7143-6.3-9", "status 0000")?;
    // T was never set: the stage is still security.
    conn.refused(OPERATIONAL_TO_FULL, &[], "7143-6.3-13", INITIATOR_ERROR).map(drop)
}

pub(super) fn t_with_c(bench: &Bench) -> Outcome {
    bad_flags(bench, OPERATIONAL_TO_FULL | C, "7143-6.2-1")
}

pub(super) fn continued(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let whole = conn.names_and(&[("MaxBurstLength", "65536")]);
    let (one, two) = whole.split_at(whole.len() - 6);
    let answer = conn.login_step(OPERATIONAL | C, one)?;
    accepted(&answer, "7143-6.2-2", "status 0000")?;
    holds("7143-6.2-2", "an empty data segment", &answer, answer.data_len() == 0)?;
    holds("7143-6.3-13", "no T", &answer, answer.flags() & 0x80 == 0)?;
    let answer = conn.login_step(OPERATIONAL_TO_FULL, two)?;
    accepted(&answer, "7143-6.1-7", "status 0000 for the text put together")?;
    let keys = pairs(&answer.data);
    holds("7143-6.1-7", "an answer to MaxBurstLength", &answer, find(&keys, "MaxBurstLength").is_some())
}

pub(super) fn no_t(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[]);
    let answer = conn.login_step(OPERATIONAL, &first)?;
    accepted(&answer, "7143-11.13.6-2", "status 0000")?;
    holds("7143-11.13.6-2", "no T", &answer, answer.flags() & 0x80 == 0)
}

pub(super) fn nsg(bench: &Bench) -> Outcome {
    let mut conn = open(bench)?;
    let first = conn.names_and(&[("AuthMethod", "None")]);
    let answer = conn.login_step(SECURITY_TO_OPERATIONAL, &first)?;
    accepted(&answer, "7143-6.3-12", "status 0000")?;
    holds("7143-6.3-12", "NSG 1 at most", &answer, answer.flags() & 3 <= 1)
}
