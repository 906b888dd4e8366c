//! What a target says of its own accord, and numbers that do not fit (RFC 7143 sections 4.2.2, 7.7, 7.9, 11.9, 11.19).

use std::time::Instant;

use super::{End, Link, Served, Step};
use crate::case::{Action::Attach, Case};
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, holds, skip, wrong};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "iasync-01",
        Attach,
        "a NOP-In with a Target Transfer Tag is answered: TTT and LUN copied, immediate, no task tag",
        &["7143-11.18-1", "7143-11.18-2", "7143-11.18.2-3", "7143-11.18.1-4"],
        ping,
    ),
    Case::initiator(
        "iasync-02",
        Attach,
        "a NOP-In without a Target Transfer Tag is not answered",
        &["7143-11.18-3"],
        no_ping,
    ),
    Case::initiator(
        "iasync-03",
        Attach,
        "Asynchronous Message, logout requested: a Logout with reason 0 or 1 comes",
        &["7143-11.9.1-2", "7143-11.9.1-3"],
        logout_requested,
    ),
    Case::initiator(
        "iasync-04",
        Attach,
        "Asynchronous Message, all connections dropped: the connection is given up",
        &["7143-7.1.4.3-4", "7143-11.9.1-7"],
        dropped,
    ),
    Case::initiator(
        "iasync-05",
        Attach,
        "Asynchronous Message, negotiation requested: a Text Request or a Logout comes",
        &["7143-11.9.1-8"],
        negotiation,
    ),
    Case::initiator(
        "iasync-06",
        Attach,
        "an Asynchronous Message is acknowledged by ExpStatSN",
        &["7143-11.9-1", "7143-11.3.3-1"],
        acknowledged,
    ),
    Case::initiator(
        "iasync-07",
        Attach,
        "a NOP-In with both tags valid is a format error: the connection ends",
        &["7143-7.7-2"],
        both_tags,
    ),
    Case::initiator(
        "iasync-08",
        Attach,
        "a response for a task that does not exist is not taken for another's",
        &["7143-4.2.5.3-1"],
        no_task,
    ),
    Case::initiator(
        "iasync-09",
        Attach,
        "a gap in StatSN: the response is not taken as if nothing was lost",
        &["7143-7.9-3"],
        stat_sn_gap,
    ),
    Case::initiator(
        "iasync-10",
        Attach,
        "MaxCmdSN below ExpCmdSN - 1: both are ignored",
        &["7143-4.2.2.1-18"],
        bad_window,
    ),
    Case::initiator(
        "iasync-11",
        Attach,
        "an opcode that targets do not have ends the connection, or is passed over",
        &["7143-11.2.1.2-2", "7143-7.7-2"],
        unknown_opcode,
    ),
    Case::initiator(
        "iasync-12",
        Attach,
        "a Reject of a command: the command does not count as done",
        &["7143-7.3-3", "7143-7.3-6"],
        rejected,
    ),
    Case::initiator(
        "iasync-13",
        Attach,
        "Response 1, target failure: the command does not count as done",
        &["7143-11.4.3-2", "7143-11.4.3-1"],
        target_failure,
    ),
    Case::initiator(
        "iasync-14",
        Attach,
        "CHECK CONDITION with unit attention at first: the initiator asks again, and not for the sense data",
        &["7143-10.2-1"],
        unit_attention,
    ),
    Case::initiator(
        "iasync-15",
        Attach,
        "O and U both set in a response is a protocol error",
        &["7143-11.4.1-2"],
        o_and_u,
    ),
    Case::initiator(
        "iasync-16",
        Attach,
        "the connection is lost: the command is not reported as done",
        &["7143-7.1.4.3-1", "7143-11.4.3-2"],
        lost,
    ),
];

fn command(pdu: &Pdu) -> bool {
    pdu.opcode() == op::SCSI_COMMAND
}

/// A session in which a command waits for its answer.
fn waiting(served: &mut Served) -> Result<(Link, Pdu), Stop> {
    let mut link = served.session(&[])?;
    let command = link.until("SCSI Command", command)?;
    Ok((link, command))
}

/// The next request of this kind; Data-Outs and other requests are passed over for a while.
fn wait_for(link: &mut Link, rule: &str, expected: &str, right: fn(&Pdu) -> bool) -> Result<Pdu, Stop> {
    let mut last = Got::Silence;
    loop {
        match link.recv(link.answer)? {
            Got::Pdu(pdu) if right(&pdu) => return Ok(pdu),
            Got::Pdu(pdu) => last = Got::Pdu(pdu),
            Got::Closed => return Got::Closed.wrong(rule, expected),
            Got::Silence => return last.wrong(rule, expected),
        }
    }
}

fn nop_in(itt: u32, ttt: u32) -> Pdu {
    Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, itt).set32(at::TTT, ttt)
}

fn ping(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    let lun = command.bhs[at::LUN..at::LUN + 8].to_vec();
    link.inform(nop_in(NO_TAG, 0x00aa_bb01).bytes(at::LUN, &lun));
    let answer = wait_for(&mut link, "7143-11.18-1", "a NOP-Out", |pdu| pdu.opcode() == op::NOP_OUT)?;
    holds("7143-11.18-2", "Target Transfer Tag 00aabb01", &answer, answer.ttt() == 0x00aa_bb01)?;
    holds("7143-11.18.2-3", "the LUN of the NOP-In", &answer, answer.bhs[at::LUN..at::LUN + 8] == lun)?;
    let plain = answer.itt() == NO_TAG && answer.immediate();
    holds("7143-11.18.1-4", "ITT ffffffff and immediate", &answer, plain)
}

fn no_ping(served: &mut Served) -> Outcome {
    let (mut link, _) = waiting(served)?;
    link.inform(nop_in(NO_TAG, NO_TAG));
    match link.recv(link.quiet)? {
        Got::Pdu(pdu) if pdu.opcode() == op::NOP_OUT && pdu.itt() == NO_TAG => {
            Got::Pdu(pdu).wrong("7143-11.18-3", "no answer")
        }
        Got::Closed => Got::Closed.wrong("7143-11.18-3", "the connection goes on"),
        _ => Ok(()),
    }
}

fn async_message(event: u8, parameters: [u16; 3]) -> Pdu {
    Pdu::new(op::ASYNC)
        .set(at::FLAGS, F)
        .set32(at::ITT, NO_TAG)
        .set(at::ASYNC_EVENT, event)
        .set16(at::ASYNC_EVENT + 2, parameters[0])
        .set16(at::ASYNC_EVENT + 4, parameters[1])
        .set16(at::ASYNC_EVENT + 6, parameters[2])
}

/// All that is under way is answered, so that a Logout can come.
fn serve_until_logout(link: &mut Link, rule: &str, expected: &str, also: u8) -> Result<Pdu, Stop> {
    let mut found = None;
    link.serve(|_, pdu| {
        if pdu.opcode() == op::LOGOUT_REQUEST || pdu.opcode() == also {
            found = Some(pdu.clone());
            return Ok(Step::Stop);
        }
        Ok(Step::Serve)
    })?;
    match found {
        Some(pdu) => Ok(pdu),
        None => fail(rule, expected, "the end of the connection, or nothing"),
    }
}

fn logout_requested(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    link.respond(async_message(1, [0, 0, 3]));
    link.status(&command, 0, &[])?;
    let logout = serve_until_logout(&mut link, "7143-11.9.1-2", "a Logout Request", op::LOGOUT_REQUEST)?;
    holds("7143-11.9.1-3", "reason 0 or 1", &logout, logout.flags() & 0x7f <= 1)
}

fn dropped(served: &mut Served) -> Outcome {
    let (mut link, _) = waiting(served)?;
    link.respond(async_message(3, [0, 1, 0]));
    link.expect_end("7143-7.1.4.3-4", "the connection is given up")
}

fn negotiation(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    link.respond(async_message(4, [0, 0, 3]));
    link.status(&command, 0, &[])?;
    serve_until_logout(&mut link, "7143-11.9.1-8", "a Text Request or a Logout Request", op::TEXT_REQUEST)
        .map(drop)
}

fn acknowledged(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    // A vendor's event means nothing to anybody.
    link.respond(async_message(255, [0; 3]));
    link.handle(&command)?;
    let mut last = None;
    link.serve(|link, pdu| {
        last = Some((pdu.clone(), link.acknowledged(pdu)));
        Ok(if last.as_ref().is_some_and(|(_, all)| *all) { Step::Stop } else { Step::Serve })
    })?;
    match last {
        Some((_, true)) => Ok(()),
        Some((pdu, false)) => holds("7143-11.9-1", "ExpStatSN past the Asynchronous Message", &pdu, false),
        None => skip("the initiator sends nothing more"),
    }
}

fn both_tags(served: &mut Served) -> Outcome {
    let (mut link, _) = waiting(served)?;
    link.inform(nop_in(0x1111, 0x2222));
    link.expect_end("7143-7.7-2", "the end of the connection")
}

fn no_task(served: &mut Served) -> Outcome {
    let rule = "7143-4.2.5.3-1";
    let (mut link, command) = waiting(served)?;
    // All that it sends without an answer is there before the stray one goes.
    let mut under_way = vec![command];
    while let Got::Pdu(pdu) = link.recv(link.quiet)? {
        under_way.push(pdu);
    }
    let none = under_way[0].itt() ^ 0x7000_0000;
    link.respond(Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set32(at::ITT, none));
    let until = Instant::now() + link.quiet;
    loop {
        match link.recv(until.saturating_duration_since(Instant::now()))? {
            Got::Closed => return not_done(served, &link, rule),
            // It took the response for its own, and asks for the next thing.
            Got::Pdu(pdu) if self::command(&pdu) => {
                return wrong(rule, "waiting, or the end of the connection", &pdu);
            }
            Got::Pdu(pdu) if link.handle(&pdu)? => return not_done(served, &link, rule),
            // It may probe.
            Got::Pdu(_) => (),
            Got::Silence => break,
        }
    }
    // It waits, and is answered now.
    let before = link.log.len();
    for pdu in &under_way {
        link.handle(pdu)?;
    }
    link.serve(|_, _| Ok(Step::Serve))?;
    if link.log.len() > before && served.end()? == End::Badly {
        return fail(rule, "the command ends well: it had its own answer in the end", "it failed");
    }
    Ok(())
}

/// The connection is over before the command was answered: the initiator begins anew, or its command fails.
fn not_done(served: &mut Served, link: &Link, rule: &str) -> Outcome {
    if let Some(mut again) = served.accept_again(link)? {
        // A new session is none of the old one's.
        let request = again.login_request()?;
        return holds(rule, "a login with TSIH 0", &request, request.be16(at::TSIH) == 0);
    }
    match served.end()? {
        End::Well => fail(rule, "the command failed: it was never answered", "the command ended well"),
        _ => Ok(()),
    }
}

/// The answer after which the initiator must not go on as if all were well: it ends the connection, says that it
/// failed, or begins anew.
fn not_taken(served: &mut Served, mut link: Link, rule: &str, expected: &str) -> Outcome {
    match link.recv(link.quiet)? {
        Got::Closed => return Ok(()),
        Got::Pdu(pdu) if matches!(pdu.opcode(), op::LOGOUT_REQUEST | op::SNACK | op::TASK_REQUEST) => {
            return Ok(());
        }
        _ => (),
    }
    link.serve(|_, _| Ok(Step::Serve))?;
    if served.succeeded()? {
        return fail(rule, expected, "the command of the initiator ended well");
    }
    Ok(())
}

fn stat_sn_gap(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    link.stat_sn = link.stat_sn.wrapping_add(5);
    link.status(&command, 0, &[])?;
    not_taken(served, link, "7143-7.9-3", "the lost responses are missed: SNACK, Logout, or the end")
}

fn bad_window(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    let mut pdu = Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, NO_TAG).set32(at::TTT, NO_TAG);
    pdu = pdu.set32(at::STAT_SN, link.stat_sn);
    // MaxCmdSN is 100 below ExpCmdSN, which itself is far ahead.
    let ahead = link.exp_cmd_sn.wrapping_add(500);
    pdu = pdu.set32(at::EXP_CMD_SN, ahead).set32(at::MAX_CMD_SN, ahead.wrapping_sub(100));
    link.wire.send(&pdu);
    let before = link.exp_cmd_sn;
    link.handle(&command)?;
    let mut next = None;
    link.serve(|_, pdu| {
        if !pdu.immediate() && next.is_none() && pdu.opcode() != op::DATA_OUT {
            next = Some(pdu.clone());
        }
        Ok(Step::Serve)
    })?;
    match next {
        Some(pdu) => holds(
            "7143-4.2.2.1-18",
            &format!("CmdSN {before:08x} next"),
            &pdu,
            pdu.be32(at::CMD_SN) == before,
        ),
        None => skip("the initiator sends nothing more"),
    }
}

fn unknown_opcode(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    link.inform(Pdu::new(0x2e).set(at::FLAGS, F).set32(at::ITT, NO_TAG));
    match link.recv(link.quiet)? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_REQUEST => Ok(()),
        _ => {
            link.status(&command, 0, &[])?;
            match link.recv(link.answer)? {
                // It went on in step with the stream, or ended.
                Got::Pdu(_) | Got::Closed => Ok(()),
                Got::Silence => fail("7143-7.7-2", "the end of the connection, or going on", "nothing"),
            }
        }
    }
}

fn rejected(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    let reject = Pdu::new(op::REJECT).set(at::FLAGS, F).set(at::RESPONSE, 4).set32(at::ITT, NO_TAG);
    link.exp_cmd_sn = command.be32(at::CMD_SN);
    link.respond(reject.with_data(&command.bhs));
    not_taken(served, link, "7143-7.3-6", "the command failed, as its Reject says")
}

fn target_failure(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    let pdu = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set(at::RESPONSE, 1);
    link.respond(pdu.set32(at::ITT, command.itt()));
    not_taken(served, link, "7143-11.4.3-2", "the command failed: its response is 1")
}

fn unit_attention(served: &mut Served) -> Outcome {
    let rule = "7143-10.2-1";
    let mut link = served.session(&[])?;
    // INQUIRY, REPORT LUNS and REQUEST SENSE have no unit attention (SAM-5 5.14).
    let first = link.until("command that meets a unit attention", |pdu| {
        command(pdu) && !matches!(pdu.byte(at::CDB), 0x03 | 0x12 | 0xa0)
    })?;
    // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    link.status(&first, 2, &super::scsi::sense(6, 0x29, 0))?;
    let mut more = false;
    link.serve(|_, pdu| {
        if command(pdu) {
            let asks = pdu.byte(at::CDB) == 0x03;
            holds(rule, "no REQUEST SENSE: the sense data came with the status", pdu, !asks)?;
            more = true;
        }
        Ok(Step::Serve)
    })?;
    match (served.end()?, more) {
        (End::Well, false) => {
            fail(rule, "the command again, or a failure: its status is no GOOD", "the command ended well")
        }
        (End::Badly, true) => fail(rule, "the command ends well: all others were served", "it failed"),
        (_, true) => Ok(()),
        (_, false) => skip("the initiator stops at a unit attention"),
    }
}

fn o_and_u(served: &mut Served) -> Outcome {
    let (mut link, command) = waiting(served)?;
    let pdu = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F | 6).set32(at::RESIDUAL, 8);
    link.respond(pdu.set32(at::ITT, command.itt()));
    not_taken(served, link, "7143-11.4.1-2", "the end of the connection, or a failed command")
}

fn lost(served: &mut Served) -> Outcome {
    let (mut link, _) = waiting(served)?;
    link.wire.close();
    if let Some(mut again) = served.accept_again(&link)? {
        // It begins anew, which is recovery as well; the new login is one of its own.
        let request = again.login_request()?;
        return holds("7143-7.1.4.3-1", "a login with TSIH 0", &request, request.be16(at::TSIH) == 0);
    }
    if served.succeeded()? {
        return fail("7143-11.4.3-2", "the command failed, or a new connection", "the command ended well");
    }
    Ok(())
}
