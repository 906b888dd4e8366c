//! NOP-Out and NOP-In (RFC 7143 sections 11.18 and 11.19).

use super::Bench;
use crate::case::Case;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, holds};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::target(
        "nop-01",
        "a ping is answered with its data, its ITT, and TTT ffffffff",
        &["7143-11.18.1-3", "7143-11.19-1", "7143-11.19-2", "7143-11.19-3"],
        |b| echo(b, 64),
    ),
    Case::target("nop-02", "a ping without data is answered without", &["7143-11.19-2"], |b| echo(b, 0)),
    Case::target(
        "nop-03",
        "a ping of odd length is padded on the way and comes back whole",
        &["7143-11.2-5", "7143-11.19-2"],
        |b| echo(b, 5),
    ),
    Case::target("nop-04", "a ping of 4096 bytes comes back whole", &["7143-11.19-2"], |b| echo(b, 4096)),
    Case::target(
        "nop-05",
        "ping data beyond our MaxRecvDataSegmentLength is cut there",
        &["7143-11.19-2", "7143-11.7.1-2"],
        cut,
    ),
    Case::target("nop-06", "a NOP-Out with ITT ffffffff is not answered", &["7143-11.19-4"], unanswered),
    Case::target(
        "nop-07",
        "an immediate ping does not move ExpCmdSN, another does",
        &["7143-4.2.2.1-21", "7143-4.2.2.1-9"],
        exp_cmd_sn,
    ),
    Case::target(
        "nop-08",
        "pings that are sent together are all answered",
        &["7143-11.18.1-3", "7143-4.2.2.1-6"],
        many,
    ),
];

fn echo(bench: &Bench, len: usize) -> Outcome {
    let mut conn = bench.session(&[])?;
    let data: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    let ping = conn.ping(&data);
    let answer = conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?;
    holds("7143-11.19-2", "the data of the ping", &answer, answer.data == data)?;
    holds("7143-11.19-3", "TTT ffffffff", &answer, answer.ttt() == NO_TAG)
}

fn cut(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[("MaxRecvDataSegmentLength", "512")])?;
    let data = vec![0x5a; 2048];
    let ping = conn.ping(&data);
    let answer = conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?;
    holds("7143-11.19-2", "the first 512 bytes of the ping", &answer, answer.data == data[..512])
}

fn unanswered(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let nop = Pdu::new(0x40 | op::NOP_OUT)
        .set(at::FLAGS, F)
        .set32(at::ITT, NO_TAG)
        .set32(at::TTT, NO_TAG)
        .set32(at::CMD_SN, conn.cmd_sn)
        .set32(at::EXP_STAT_SN, conn.exp_stat_sn());
    conn.send(&nop);
    conn.expect_quiet("7143-11.19-4", "no answer")?;
    conn.expect_alive("7143-11.19-4")
}

fn exp_cmd_sn(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let sn = conn.cmd_sn;
    let ping = conn.ping(b"immediate");
    let answer = conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?;
    holds("7143-4.2.2.1-21", "ExpCmdSN as before", &answer, answer.be32(at::EXP_CMD_SN) == sn)?;
    let ping = conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG).with_data(b"in order");
    let answer = conn.ask(&ping, op::NOP_IN, "7143-11.18.1-3", "a NOP-In")?;
    let next = sn.wrapping_add(1);
    holds("7143-4.2.2.1-9", "ExpCmdSN one more than before", &answer, answer.be32(at::EXP_CMD_SN) == next)
}

fn many(bench: &Bench) -> Outcome {
    let mut conn = bench.session(&[])?;
    let mut tags = Vec::new();
    for _ in 0..8 {
        let ping = conn.request(op::NOP_OUT, F).set32(at::TTT, NO_TAG).with_data(b"one of many");
        tags.push(ping.itt());
        conn.send(&ping);
    }
    while !tags.is_empty() {
        match conn.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::NOP_IN && tags.contains(&pdu.itt()) => {
                tags.retain(|&tag| tag != pdu.itt());
            }
            got => return got.wrong("7143-11.18.1-3", "an answer to each of eight pings"),
        }
    }
    Ok(())
}
