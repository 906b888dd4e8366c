//! Output that an initiator may not send so.

use super::*;

pub(super) fn unwanted(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    result_is(&job.conn, "InitialR2T", "Yes")?;
    let command = send_unsolicited(&mut job, 0, 4096);
    error_of(&mut job, &command, "7143-13.11-2")
}

pub(super) fn unwanted_immediate(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    result_is(&job.conn, "ImmediateData", "No")?;
    let command = job.send_immediate(512);
    error_of(&mut job, &command, "7143-13.11-2")
}

pub(super) fn immediate_beyond(bench: &Bench) -> Outcome {
    let keys = [&IMMEDIATE[..], &[("FirstBurstLength", "512")]].concat();
    let mut job = Job::new(bench, &keys, 4096)?;
    result_is(&job.conn, "ImmediateData", "Yes")?;
    if job.conn.result_or("FirstBurstLength", 65_536) >= 4096 {
        return skip("FirstBurstLength=512 was not negotiated");
    }
    let command = job.send_immediate(4096);
    error_of(&mut job, &command, "7143-4.2.5.2-6")
}

pub(super) fn beyond_r2t(bench: &Bench) -> Outcome {
    let keys = [&SOLICITED[..], &[("MaxBurstLength", "1024"), ("FirstBurstLength", "512")]].concat();
    let mut job = Job::new(bench, &keys, 8192)?;
    let (command, r2t) = job.first_r2t()?;
    let len = r2t.be32(at::DESIRED) as usize;
    if len + 512 > job.data.len() {
        return skip("the first R2T asks for all data");
    }
    let data = job.data[..len + 512].to_vec();
    let pdu = job.conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data).set(at::FLAGS, F);
    job.conn.send(&pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]));
    error_of(&mut job, &command, "7143-11.8-5")
}

pub(super) fn wrong_ttt(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let (command, r2t) = job.first_r2t()?;
    let data = job.data.clone();
    let pdu = job.conn.data_out(command.itt(), r2t.ttt() ^ 0x5a5a_0000, 0, 0, &data).set(at::FLAGS, F);
    job.conn.send(&pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]));
    error_of(&mut job, &command, "7143-4.2.5.3-1")
}

pub(super) fn gap(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let (command, r2t) = job.first_r2t()?;
    let data = job.data.clone();
    let lun = r2t.bhs[at::LUN..at::LUN + 8].to_vec();
    let one = job.conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data[..512]).bytes(at::LUN, &lun);
    // DataSN 1, with bytes 512 to 1023, is lost.
    let two = job.conn.data_out(command.itt(), r2t.ttt(), 2, 1024, &data[1024..]).bytes(at::LUN, &lun);
    job.conn.send(&one);
    job.conn.send(&two.set(at::FLAGS, F));
    error_or_rest(&mut job, &command, "7143-7.9-2")
}

/// As [`error_of`]; a target may also ask for what is missing, and then end well.
fn error_or_rest(job: &mut Job, command: &Pdu, rule: &str) -> Outcome {
    let mut asked = false;
    loop {
        match job.conn.next()? {
            Got::Closed => return Ok(()),
            Got::Pdu(pdu) if pdu.opcode() == op::REJECT => return Ok(()),
            Got::Pdu(pdu) if pdu.opcode() == op::R2T => {
                asked = true;
                job.answer(&pdu)?;
            }
            Got::Pdu(pdu) if pdu.opcode() == op::SCSI_RESPONSE && pdu.itt() == command.itt() => {
                let failed = pdu.byte(at::STATUS) == 2 || pdu.byte(at::RESPONSE) != 0;
                let expected = "CHECK CONDITION, a Reject, R2T for the rest, or the end of the connection";
                holds(rule, expected, &pdu, failed || asked)?;
                return if failed { Ok(()) } else { job.check() };
            }
            got => return got.wrong(rule, "CHECK CONDITION, a Reject, R2T for the rest, or the end"),
        }
    }
}

pub(super) fn short(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let (command, r2t) = job.first_r2t()?;
    let data = job.data[..512].to_vec();
    let pdu = job.conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data).set(at::FLAGS, F);
    job.conn.send(&pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]));
    error_or_rest(&mut job, &command, "7143-11.4.7.2-2")
}

pub(super) fn no_task(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 512)?;
    let pdu = job.conn.data_out(0x7fff_0001, 0x33, 0, 0, &[1; 512]).set(at::FLAGS, F);
    job.conn.send(&pdu);
    match job.conn.next_within(bench.quiet)? {
        Got::Closed => return Ok(()),
        Got::Silence => (),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => (),
        got => return got.wrong("7143-7.13-1", "a Reject, or nothing"),
    }
    job.conn.expect_alive("7143-10.7-2")
}

pub(super) fn other_lun(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 4096)?;
    let (command, r2t) = job.first_r2t()?;
    let data = job.data.clone();
    let pdu = job.conn.data_out(command.itt(), r2t.ttt(), 0, 0, &data).set(at::FLAGS, F);
    job.conn.send(&pdu.bytes(at::LUN, &[0, 0x77, 0, 0, 0, 0, 0, 0]));
    error_of(&mut job, &command, "7143-4.2.5.3-2")
}

pub(super) fn too_long(bench: &Bench) -> Outcome {
    let mut job = Job::new(bench, &SOLICITED, 512)?;
    let most = job.conn.result_or("MaxRecvDataSegmentLength", 8192) as usize;
    if most > 1 << 20 {
        return skip(format!("the target takes {most} bytes in one PDU"));
    }
    let ping = job.conn.ping(&vec![0x55; most + 4]);
    job.conn.send(&ping);
    match job.conn.next()? {
        Got::Closed => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::REJECT => Ok(()),
        got => got.wrong("7143-11.7.1-2", "a Reject, or the end of the connection"),
    }
}
