//! Requests of full feature phase: fields and numbers (RFC 7143 sections 4.2.2, 11.3, 11.14, 11.18).

use std::time::Instant;

use super::{End, Link, Served, Step};
use crate::case::{Action::Attach, Case};
use crate::pdu::{F, NO_TAG, Pdu, at, before, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "icommand-01",
        Attach,
        "the first command has the login's CmdSN, others follow one by one",
        &["7143-11.12.8-2", "7143-4.2.2.1-3"],
        cmd_sn,
    ),
    Case::initiator(
        "icommand-02",
        Attach,
        "an immediate request carries the CmdSN of the next command",
        &["7143-4.2.2.1-1", "7143-4.2.2.1-2"],
        immediate_sn,
    ),
    Case::initiator(
        "icommand-03",
        Attach,
        "ExpStatSN acknowledges what came",
        &["7143-11.3.3-1", "7143-4.2.2.2-4"],
        exp_stat_sn,
    ),
    Case::initiator(
        "icommand-04",
        Attach,
        "a task tag is unique, and not ffffffff",
        &["7143-11.2.1.8-1", "7143-11.2.1.8-2"],
        tags,
    ),
    Case::initiator(
        "icommand-05",
        Attach,
        "SCSI Command: F or W, a known attribute, a length only with R or W",
        &["7143-11.3.1-1", "7143-11.3.1-3", "7143-11.3.1-4"],
        |s| {
            every(s, op::SCSI_COMMAND, "7143-11.3.1-1", "F or W, ATTR 0 to 4, R or W with a length", |p| {
                let flags = p.flags();
                flags & 0xa0 != 0 && flags & 7 <= 4 && (flags & 0x60 != 0 || p.be32(at::EDTL) == 0)
            })
        },
    ),
    Case::initiator(
        "icommand-06",
        Attach,
        "SCSI Command: reserved bits are 0, no priority below iSCSIProtocolLevel 2",
        &["7143-11-1", "7144-5.1.1-1"],
        |s| {
            every(s, op::SCSI_COMMAND, "7143-11-1", "reserved bits and bytes 2 and 3 are 0", |p| {
                p.flags() & 0x18 == 0 && p.be16(2) == 0 && p.byte(0) & 0x80 == 0
            })
        },
    ),
    Case::initiator(
        "icommand-07",
        Attach,
        "only opcodes of initiators are sent, and no login after the login",
        &["7143-11.2.1.2-1", "7143-4.2.4-2"],
        opcodes,
    ),
    Case::initiator(
        "icommand-08",
        Attach,
        "no CmdSN goes beyond MaxCmdSN: while the window is closed nothing numbered comes",
        &["7143-4.2.2.1-13", "7143-4.2.2.1-19"],
        window,
    ),
    Case::initiator(
        "icommand-09",
        Attach,
        "Logout Request: a known reason, no data, the own CID",
        &["7143-11.14.1-1", "7143-11.14.2-1"],
        logout,
    ),
    Case::initiator(
        "icommand-10",
        Attach,
        "after a Logout Request nothing more is asked",
        &["7143-11.14-2", "7143-11.14-3"],
        after_logout,
    ),
    Case::initiator(
        "icommand-11",
        Attach,
        "after the Logout Response the connection is closed",
        &["7143-11.14-6", "7143-11.15-1"],
        close_after_logout,
    ),
    Case::initiator(
        "icommand-12",
        Attach,
        "NOP-Out: a tag only where an answer is wanted, else immediate",
        &["7143-11.18.1-1", "7143-11.18.1-4", "7143-11.18.2-2"],
        nop_out,
    ),
];

/// A session served to its end; the requests of full feature phase.
fn session(served: &mut Served) -> Result<(Link, Vec<Pdu>), Stop> {
    let mut link = served.session(&[])?;
    let logins = link.log.len();
    link.serve(|_, _| Ok(Step::Serve))?;
    let requests = link.log[logins..].to_vec();
    if requests.is_empty() {
        skip("the initiator asks for nothing after the login")
    } else {
        Ok((link, requests))
    }
}

fn every(served: &mut Served, opcode: u8, rule: &str, expected: &str, right: fn(&Pdu) -> bool) -> Outcome {
    let (_, requests) = session(served)?;
    let mut seen = 0;
    for pdu in requests.iter().filter(|pdu| pdu.opcode() == opcode) {
        holds(rule, expected, pdu, right(pdu))?;
        seen += 1;
    }
    if seen == 0 { skip(format!("the initiator sent no {}", crate::pdu::name(opcode))) } else { Ok(()) }
}

fn numbered(pdu: &Pdu) -> bool {
    !pdu.immediate() && !matches!(pdu.opcode(), op::DATA_OUT | op::SNACK)
}

fn cmd_sn(served: &mut Served) -> Outcome {
    let (link, requests) = session(served)?;
    let mut next = link.log.first().map_or(0, |login| login.be32(at::CMD_SN));
    for pdu in requests.iter().filter(|pdu| numbered(pdu)) {
        holds("7143-4.2.2.1-3", &format!("CmdSN {next:08x}"), pdu, pdu.be32(at::CMD_SN) == next)?;
        next = next.wrapping_add(1);
    }
    Ok(())
}

fn immediate_sn(served: &mut Served) -> Outcome {
    let (link, requests) = session(served)?;
    let mut next = link.log.first().map_or(0, |login| login.be32(at::CMD_SN));
    let mut seen = false;
    for pdu in requests.iter().filter(|pdu| !matches!(pdu.opcode(), op::DATA_OUT | op::SNACK)) {
        if pdu.immediate() {
            seen = true;
            holds("7143-4.2.2.1-1", &format!("CmdSN {next:08x}"), pdu, pdu.be32(at::CMD_SN) == next)?;
        } else {
            next = pdu.be32(at::CMD_SN).wrapping_add(1);
        }
    }
    if seen { Ok(()) } else { skip("the initiator sent no immediate request") }
}

fn exp_stat_sn(served: &mut Served) -> Outcome {
    let mut link = served.session(&[])?;
    let mut sent = link.stat_sn;
    link.serve(|link, pdu| {
        // What was sent before this request was sent may still be on its way; what it acknowledges was sent.
        let told = pdu.be32(at::EXP_STAT_SN);
        let within = !before(link.stat_sn, told) && !before(told, sent);
        holds("7143-11.3.3-1", "ExpStatSN that never goes back, nor beyond the next StatSN", pdu, within)?;
        sent = told;
        Ok(Step::Serve)
    })
}

fn tags(served: &mut Served) -> Outcome {
    let mut link = served.session(&[])?;
    let mut last = None;
    link.serve(|_, pdu| {
        if pdu.opcode() == op::SCSI_COMMAND {
            holds("7143-11.2.1.8-2", "a tag", pdu, pdu.itt() != NO_TAG)?;
        }
        // Commands are answered one by one here: those under way are what came since the last answer.
        if let Some((tag, opcode)) = last {
            let clash = opcode == op::SCSI_COMMAND && pdu.opcode() == op::SCSI_COMMAND && pdu.itt() == tag;
            holds("7143-11.2.1.8-1", "a tag that the command before did not have", pdu, !clash)?;
        }
        last = Some((pdu.itt(), pdu.opcode()));
        Ok(Step::Serve)
    })
}

fn opcodes(served: &mut Served) -> Outcome {
    let (_, requests) = session(served)?;
    for pdu in &requests {
        let known = matches!(pdu.opcode(), 0x00..=0x02 | 0x04..=0x06 | 0x10);
        holds("7143-11.2.1.2-1", "an opcode of initiators, no Login Request", pdu, known)?;
    }
    Ok(())
}

/// How often the window is closed for a while: each time costs one.
const CLOSED: usize = 3;

fn window(served: &mut Served) -> Outcome {
    let rule = "7143-4.2.2.1-13";
    let mut link = served.accept()?;
    // Room for one command, from the login on.
    link.window = 1;
    link.log_in(&[])?;
    let (mut closed, mut after) = (0, 0);
    while let Got::Pdu(pdu) = link.recv(link.answer)? {
        if numbered(&pdu) {
            within_window(&link, &pdu)?;
            after += usize::from(closed > 0);
        }
        // The answer acknowledges the command and makes no room: MaxCmdSN stays, which is ExpCmdSN - 1 now.
        let close = numbered(&pdu) && closed < CLOSED;
        link.window = u32::from(!close);
        if link.handle(&pdu)? {
            break;
        }
        if close {
            closed += 1;
            stays_closed(&mut link)?;
            link.window = 1;
            // What makes room again while no answer is due (section 11.4.11).
            let room = Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, NO_TAG).set32(at::TTT, NO_TAG);
            link.inform(room);
        }
    }
    match served.end()? {
        End::Badly => fail(rule, "the command ends well: each window was opened again", "it failed"),
        End::Never if after == 0 => {
            fail(rule, "the next command, once the window is open again", "nothing more")
        }
        _ if after == 0 => skip("the initiator has nothing to send behind its first command"),
        _ => Ok(()),
    }
}

fn within_window(link: &Link, pdu: &Pdu) -> Outcome {
    let most = link.max_cmd_sn;
    let within = !before(most, pdu.be32(at::CMD_SN));
    holds("7143-4.2.2.1-13", &format!("a CmdSN of at most {most:08x}, or waiting"), pdu, within)
}

/// For a while nothing but what is immediate may come: the window is closed.
fn stays_closed(link: &mut Link) -> Outcome {
    let until = Instant::now() + link.quiet;
    while let Got::Pdu(pdu) = link.recv(until.saturating_duration_since(Instant::now()))? {
        if numbered(&pdu) {
            within_window(link, &pdu)?;
        }
        if link.handle(&pdu)? {
            break;
        }
    }
    Ok(())
}

fn logout(served: &mut Served) -> Outcome {
    let (link, requests) = session(served)?;
    let Some(pdu) = requests.iter().find(|pdu| pdu.opcode() == op::LOGOUT_REQUEST) else {
        return skip("the initiator sent no Logout Request");
    };
    let reason = pdu.flags() & 0x7f;
    holds("7143-11.14.1-1", "reason 0 or 1", pdu, pdu.flags() & 0x80 != 0 && reason <= 1)?;
    holds("7143-11.14.2-1", "no data", pdu, pdu.data_len() == 0 && pdu.byte(at::AHS_LEN) == 0)?;
    let cid = link.log.first().map_or(0, |login| login.be16(at::CID));
    holds("7143-11.14.1-1", "the own CID with reason 1", pdu, reason == 0 || pdu.be16(at::CID) == cid)
}

fn after_logout(served: &mut Served) -> Outcome {
    let mut link = served.session(&[])?;
    let mut out = false;
    link.serve(|_, pdu| {
        if out {
            let data = matches!(pdu.opcode(), op::DATA_OUT);
            holds("7143-11.14-2", "no request after the Logout Request", pdu, data)?;
        }
        out |= pdu.opcode() == op::LOGOUT_REQUEST;
        // The answer waits, so that there is time to send more.
        Ok(if out { Step::Done } else { Step::Serve })
    })?;
    if out { Ok(()) } else { skip("the initiator sent no Logout Request") }
}

fn close_after_logout(served: &mut Served) -> Outcome {
    let mut link = served.session(&[])?;
    let request = link.until("Logout Request", |pdu| pdu.opcode() == op::LOGOUT_REQUEST)?;
    link.respond(Pdu::new(op::LOGOUT_RESPONSE).set(at::FLAGS, F).set32(at::ITT, request.itt()));
    link.expect_end("7143-11.14-6", "the connection is closed")
}

fn nop_out(served: &mut Served) -> Outcome {
    every(
        served,
        op::NOP_OUT,
        "7143-11.18.1-4",
        "immediate without a tag; TTT ffffffff unless it answers",
        |pdu| (pdu.itt() != NO_TAG || pdu.immediate()) && pdu.ttt() == NO_TAG && pdu.flags() == F,
    )
}
