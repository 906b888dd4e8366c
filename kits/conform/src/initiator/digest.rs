//! Digests (RFC 7143 sections 7.8 and 13.1). The initiator's own digests are seen to in every PDU that comes. These
//! cases need an initiator that offers CRC32C.

use super::{Link, Served, Step};
use crate::case::{
    Action::{Attach, Read},
    Case,
};
use crate::keys::find;
use crate::pdu::{F, NO_TAG, Pdu, at, op};
use crate::verdict::{Outcome, Stop, fail, skip};
use crate::wire::Got;

pub(super) const CASES: &[Case] = &[
    Case::initiator(
        "idigest-01",
        Attach,
        "header digests: right ones come, right ones are taken",
        &["7143-13.1-2", "7143-13.1-4"],
        header,
    ),
    Case::initiator(
        "idigest-02",
        Read,
        "data digests: right ones come, right ones are taken",
        &["7143-13.1-2", "7143-13.1-4"],
        data,
    ),
    Case::initiator(
        "idigest-03",
        Attach,
        "a wrong header digest: the PDU is not taken",
        &["7143-7.8-1"],
        bad_header,
    ),
    Case::initiator(
        "idigest-04",
        Read,
        "a wrong data digest: the data is not taken, and a SNACK comes, an abort, or a failure",
        &["7143-7.8-5", "7143-7.8-6"],
        bad_data,
    ),
];

fn session(served: &mut Served, key: &str) -> Result<Link, Stop> {
    let link = served.session(&[(key, "CRC32C")])?;
    match find(&link.results, key) {
        Some("CRC32C") => Ok(link),
        _ => skip(format!("the initiator does not offer {key}=CRC32C")),
    }
}

/// Served to the end, which checks each digest that comes.
fn served_well(served: &mut Served, mut link: Link) -> Outcome {
    let before = link.log.len();
    link.serve(|_, _| Ok(Step::Serve))?;
    if link.log.len() == before {
        return fail("7143-13.1-2", "requests in full feature phase", "none");
    }
    if served.succeeded()? { Ok(()) } else { fail("7143-13.1-2", "the command ends well", "it failed") }
}

fn header(served: &mut Served) -> Outcome {
    let link = session(served, "HeaderDigest")?;
    served_well(served, link)
}

fn data(served: &mut Served) -> Outcome {
    let link = session(served, "DataDigest")?;
    served_well(served, link)
}

fn bad_header(served: &mut Served) -> Outcome {
    let mut link = session(served, "HeaderDigest")?;
    link.until("SCSI Command", |pdu| pdu.opcode() == op::SCSI_COMMAND)?;
    let ping = Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, NO_TAG).set32(at::TTT, 0x77);
    let mut bytes = ping.set32(at::STAT_SN, link.stat_sn).wire(true, false);
    bytes[49] ^= 0x40;
    link.wire.send_bytes(&bytes);
    match link.recv(link.quiet)? {
        Got::Closed | Got::Silence => Ok(()),
        Got::Pdu(pdu) if pdu.opcode() == op::NOP_OUT && pdu.ttt() == 0x77 => {
            Got::Pdu(pdu).wrong("7143-7.8-1", "the end of the connection, or nothing")
        }
        Got::Pdu(_) => Ok(()),
    }
}

fn bad_data(served: &mut Served) -> Outcome {
    let mut link = session(served, "DataDigest")?;
    let command = link.until("READ", |pdu| {
        pdu.opcode() == op::SCSI_COMMAND && matches!(pdu.byte(at::CDB), 0x08 | 0x28 | 0x88)
    })?;
    let data = vec![0x5a; (command.be32(at::EDTL) as usize).min(link.segment())];
    let pdu = link.data_in(&command, 0, 0, &data).set(at::FLAGS, 0x81).set32(at::STAT_SN, link.stat_sn);
    link.stat_sn = link.stat_sn.wrapping_add(1);
    let mut bytes = pdu.wire(link.wire.header_digest, true);
    let last = bytes.len() - 1;
    bytes[last] ^= 0x04;
    link.wire.send_bytes(&bytes);
    loop {
        match link.recv(link.quiet)? {
            Got::Closed => return Ok(()),
            Got::Pdu(p) if matches!(p.opcode(), op::LOGOUT_REQUEST | op::SNACK | op::TASK_REQUEST) => {
                return Ok(());
            }
            Got::Pdu(_) => continue,
            Got::Silence => break,
        }
    }
    // Silence alone tells nothing: it could have taken the data.
    if served.succeeded()? {
        return fail("7143-7.8-5", "the data is thrown away", "the command ended well");
    }
    Ok(())
}
