//! Wrong targets.

use std::sync::{Arc, Mutex};

use super::{LONG, fails, judge_target, passes};
use crate::initiator::{Link, Step};
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::Stop;
use crate::wire::Got;

const KEYS: &[(&str, &str)] = &[
    ("ErrorRecoveryLevel", "2"),
    ("MaxConnections", "4"),
    ("HeaderDigest", "CRC32C"),
    ("DataDigest", "CRC32C"),
    ("ImmediateData", "Yes"),
];

/// Serves a connection; the script sees each request first.
fn serve(link: &mut Link, script: impl FnMut(&mut Link, &Pdu) -> Result<Step, Stop>) {
    // How the case ends is judged, not how the connection does.
    let _ = link.log_in(KEYS).and_then(|()| link.serve(script));
}

/// Serves a connection on which a PDU comes with a wrong digest: then `damaged` has its turn, and false ends all answers.
fn serve_damaged(link: &mut Link, disk: &Mutex<Vec<u8>>, damaged: impl Fn(&mut Link) -> bool) {
    if link.log_in(KEYS).is_err() {
        return;
    }
    link.disk.clone_from(&disk.lock().unwrap());
    let mut dead = false;
    loop {
        match link.recv(LONG) {
            Ok(Got::Pdu(_)) if dead => (),
            Ok(Got::Pdu(pdu)) => {
                if !matches!(link.handle(&pdu), Ok(false)) {
                    return;
                }
                disk.lock().unwrap().clone_from(&link.disk);
            }
            Err(Stop::Fail(_)) => dead = !damaged(link),
            _ => return,
        }
    }
}

fn judge_damaged(case: &str, damaged: impl Fn(&mut Link) -> bool + Send + Sync + 'static) -> crate::Verdict {
    let disk = Arc::new(Mutex::new(vec![0x11; 16_384 * 512]));
    judge_target(case, move |link| serve_damaged(link, &disk, &damaged))
}

#[test]
fn a_target_that_is_dead_after_a_wrong_header_digest() {
    fails(judge_damaged("digest-04", |_| false), "7143-7.8-1");
    passes(judge_damaged("digest-04", |_| true));
    passes(judge_damaged("digest-04", |link| {
        link.wire.close();
        true
    }));
}

#[test]
fn a_target_that_says_good_after_the_reject_of_immediate_data() {
    let reject = |link: &mut Link| {
        let pdu = Pdu::new(op::REJECT).set(at::FLAGS, F).set(at::RESPONSE, 2).set32(at::ITT, NO_TAG);
        link.respond(pdu.with_data(&[0; 48]));
    };
    // The tag that comes after the last one that was seen.
    let answer = |link: &mut Link, status: u8| {
        let tag = link.log.last().unwrap().itt() + 1;
        let pdu = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set(at::STATUS, status);
        link.respond(pdu.set32(at::ITT, tag));
    };
    passes(judge_damaged("digest-07", move |link| {
        reject(link);
        true
    }));
    passes(judge_damaged("digest-07", move |link| {
        reject(link);
        answer(link, 2);
        true
    }));
    let good = judge_damaged("digest-07", move |link| {
        reject(link);
        answer(link, 0);
        true
    });
    fails(good, "7143-7.8-2");
    let dead = judge_damaged("digest-07", move |link| {
        reject(link);
        false
    });
    fails(dead, "7143-7.8-2");
    let written = judge_damaged("digest-07", move |link| {
        link.disk[8 * 512..9 * 512].fill(0x3c);
        reject(link);
        true
    });
    fails(written, "7143-7.8-2");
}

#[test]
fn a_target_that_takes_a_tag_twice() {
    let known = |link: &Link, pdu: &Pdu| {
        let same = link.log.iter().filter(|p| p.opcode() == op::SCSI_COMMAND && p.itt() == pdu.itt());
        pdu.opcode() == op::SCSI_COMMAND && same.count() > 1
    };
    let quiet = judge_target("reject-13", move |link| {
        serve(link, |link, pdu| Ok(if known(link, pdu) { Step::Done } else { Step::Serve }));
    });
    passes(quiet);
    // The second begins when the first is over.
    let later = judge_target("reject-13", |link| serve(link, |_, _| Ok(Step::Serve)));
    fails(later, "7143-11.2.1.8-1");
    // The first is forgotten, and nothing is said.
    let dead = judge_target("reject-13", |link| {
        serve(link, |link, pdu| {
            if pdu.opcode() != op::SCSI_COMMAND || pdu.byte(at::CDB) != 0x2a {
                return Ok(Step::Serve);
            }
            link.ask(pdu, 0, 0, 512);
            while let Got::Pdu(_) = link.recv(LONG)? {}
            Ok(Step::Stop)
        });
    });
    fails(dead, "7143-4.2.5.1-1");
}

#[test]
fn a_target_whose_immediate_commands_wait() {
    let ordered = |pdu: &Pdu| pdu.opcode() == op::NOP_OUT && !pdu.immediate();
    let waits = judge_target("connections-14", move |link| {
        let mut behind = false;
        serve(link, |_, pdu| {
            behind |= ordered(pdu);
            Ok(if behind { Step::Done } else { Step::Serve })
        });
    });
    fails(waits, "7143-4.2.2.1-21");
    // Order is not kept at all.
    let at_once = judge_target("connections-14", |link| serve(link, |_, _| Ok(Step::Serve)));
    fails(at_once, "7143-4.2.2.1-21");
}

/// Answers a Logout, whose connection is another one, and a TASK REASSIGN.
fn recover(link: &mut Link, pdu: &Pdu, time2wait: u16, data: bool) -> Result<Step, Stop> {
    match pdu.opcode() {
        op::LOGOUT_REQUEST => {
            let lost = Pdu::new(op::ASYNC).set(at::FLAGS, F).set32(at::ITT, NO_TAG).set(at::ASYNC_EVENT, 2);
            link.respond(lost);
            let answer = Pdu::new(op::LOGOUT_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt());
            link.respond(answer.set16(at::TIME2WAIT, time2wait));
        }
        op::TASK_REQUEST => {
            link.respond(Pdu::new(op::TASK_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt()));
            let task = Pdu::new(op::SCSI_COMMAND).set32(at::ITT, pdu.be32(at::REF_TAG)).set32(at::EDTL, 512);
            let block = link.disk[..512].to_vec();
            link.send_data(&task, if data { &block } else { &[] })?;
        }
        _ => return Ok(Step::Serve),
    }
    Ok(Step::Done)
}

#[test]
fn a_target_that_reassigns_a_read_without_its_data() {
    let judge =
        |data| judge_target("recovery-12", move |link| serve(link, |link, pdu| recover(link, pdu, 0, data)));
    passes(judge(true));
    fails(judge(false), "7143-11.5.6-2");
}

#[test]
fn a_target_that_lets_wait_longer_than_was_negotiated() {
    let judge = |time2wait| {
        judge_target("recovery-17", move |link| serve(link, |link, pdu| recover(link, pdu, time2wait, true)))
    };
    passes(judge(1));
    fails(judge(2), "7143-7.5-3");
}

/// Answers an R-Data SNACK of a read of 4096 bytes, the PDUs changed by this.
fn again(link: &mut Link, pdu: &Pdu, change: fn(usize, Pdu) -> Pdu) -> Result<Step, Stop> {
    if pdu.opcode() != op::SNACK {
        return Ok(Step::Serve);
    }
    let data = link.disk[..4096].to_vec();
    for (sn, part) in data.chunks(1024).enumerate() {
        let part = change(sn, link.data_in(pdu, sn, sn * 1024, part));
        link.wire.send(&part);
    }
    let status = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt());
    link.inform(status.set32(at::TTT, pdu.ttt()));
    Ok(Step::Done)
}

#[test]
fn a_target_that_sends_other_data_after_an_r_data_snack() {
    let judge =
        |change| judge_target("recovery-05", move |link| serve(link, |link, pdu| again(link, pdu, change)));
    passes(judge(|_, pdu| pdu));
    let rule = "7143-11.16.3-2";
    // As many bytes each time: another's, from another place, in another order.
    fails(judge(|sn, pdu| if sn == 2 { pdu.with_data(&[0; 1024]) } else { pdu }), rule);
    fails(judge(|sn, pdu| if sn == 1 { pdu.set32(at::OFFSET, 0) } else { pdu }), rule);
    fails(judge(|sn, pdu| pdu.set32(at::DATA_SN, 3 - sn as u32)), rule);
}
