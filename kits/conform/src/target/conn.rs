//! An initiator's end of a connection: numbers, login, commands.

mod command;
mod login;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Bench;
use super::layout::{Context, Traffic};
use crate::keys::{find, number};
use crate::pdu::{F, NO_TAG, Pdu, at, before, op};
use crate::url::TargetUrl;
use crate::verdict::{Stop, wrong};
use crate::wire::{Got, Wire};

pub(crate) use command::{Done, Io, cdb10, inquiry};
pub(crate) use login::Login;

/// MaxRecvDataSegmentLength until the target declares another (RFC 7143 section 13.12).
const DEFAULT_SEGMENT: usize = 8192;
/// What this initiator declares unless a case says otherwise.
const OUR_SEGMENT: &str = "65536";

/// A connection to the target under test.
pub(crate) struct Conn {
    pub(crate) wire: Wire,
    traffic: Rc<RefCell<Traffic>>,
    peer: TargetUrl,
    /// How long an answer may take, and how long nothing has to come.
    pub(crate) answer: Duration,
    pub(crate) quiet: Duration,
    /// Session.
    pub(crate) isid: [u8; 6],
    pub(crate) tsih: u16,
    pub(crate) cid: u16,
    pub(crate) discovery: bool,
    /// CmdSN of the next non-immediate request.
    pub(crate) cmd_sn: u32,
    /// The next StatSN, once the first is known.
    pub(crate) stat_sn: Option<u32>,
    /// The window as last told.
    pub(crate) exp_cmd_sn: u32,
    pub(crate) max_cmd_sn: u32,
    next_tag: u32,
    login_tag: u32,
    /// Our MaxRecvDataSegmentLength in force.
    pub(crate) segment: usize,
    /// The answers of the login.
    pub(crate) keys: Vec<(String, String)>,
    full_feature: bool,
}

impl Conn {
    pub(super) fn new(wire: Wire, bench: &Bench) -> Self {
        let mut random = [0; 8];
        // Without random numbers all connections would claim one ISID: zeros then.
        let _ = getrandom::fill(&mut random);
        let [a, b, c, d, e, f, g, _] = random;
        Self {
            wire,
            traffic: bench.traffic.clone(),
            peer: bench.peer.clone(),
            answer: bench.answer,
            quiet: bench.quiet,
            // T = 10b: a random qualifier (section 11.12.5).
            isid: [0x80, a, b, c, d, e],
            tsih: 0,
            cid: 0,
            discovery: false,
            cmd_sn: u32::from_be_bytes([0, f, g, 1]),
            stat_sn: None,
            exp_cmd_sn: 0,
            max_cmd_sn: 0,
            next_tag: 0x100,
            login_tag: 0x10,
            segment: DEFAULT_SEGMENT,
            keys: Vec::new(),
            full_feature: false,
        }
    }

    /// The answer to a key in the login.
    pub(crate) fn result(&self, key: &str) -> Option<&str> {
        find(&self.keys, key)
    }

    /// A number from the login, or the default.
    pub(crate) fn result_or(&self, key: &str, default: u32) -> u32 {
        self.result(key).and_then(number).and_then(|n| u32::try_from(n).ok()).unwrap_or(default)
    }

    // ---- PDUs ----

    /// A fresh Initiator Task Tag.
    pub(crate) fn tag(&mut self) -> u32 {
        self.next_tag += 1;
        self.next_tag
    }

    /// A request with fresh tag, CmdSN and ExpStatSN; CmdSN moves on unless it is immediate.
    pub(crate) fn request(&mut self, first: u8, flags: u8) -> Pdu {
        let tag = self.tag();
        let pdu = Pdu::new(first).set(at::FLAGS, flags).set32(at::ITT, tag).set32(at::CMD_SN, self.cmd_sn);
        if first & 0x40 == 0 {
            self.cmd_sn = self.cmd_sn.wrapping_add(1);
        }
        pdu.set32(at::EXP_STAT_SN, self.exp_stat_sn())
    }

    /// ExpStatSN of the next request.
    pub(crate) fn exp_stat_sn(&self) -> u32 {
        self.stat_sn.unwrap_or(0)
    }

    /// An immediate NOP-Out that asks for an answer.
    pub(crate) fn ping(&mut self, data: &[u8]) -> Pdu {
        self.request(0x40 | op::NOP_OUT, F).set32(at::TTT, NO_TAG).with_data(data)
    }

    /// A SCSI command for the logical unit under test.
    pub(crate) fn command(&mut self, io: &Io<'_>) -> Pdu {
        let flags = F | if io.read.is_some() { 0x40 } else { 0 } | if io.write.is_some() { 0x20 } else { 0 };
        // Simple task attribute.
        let mut pdu = self.request(op::SCSI_COMMAND, flags | 1).bytes(at::LUN, &self.peer.lun_field());
        pdu = pdu.set32(at::EDTL, io.write.or(io.read).unwrap_or(0)).bytes(at::CDB, &io.cdb);
        if io.immediate > 0 { pdu.with_data(&io.data[..io.immediate]) } else { pdu }
    }

    /// A task management request, immediate, for the logical unit under test.
    pub(crate) fn function(&mut self, function: u8) -> Pdu {
        self.request(0x40 | op::TASK_REQUEST, F | function)
            .bytes(at::LUN, &self.peer.lun_field())
            .set32(at::REF_TAG, NO_TAG)
    }

    /// A Text Request.
    pub(crate) fn text(&mut self, flags: u8, data: &[u8]) -> Pdu {
        self.request(op::TEXT_REQUEST, flags).set32(at::TTT, NO_TAG).with_data(data)
    }

    /// Sends a PDU as it is.
    pub(crate) fn send(&mut self, pdu: &Pdu) {
        self.wire.send(pdu);
    }

    /// Whatever comes within `wait`; every PDU is also judged by the rows of `layout`.
    pub(crate) fn recv(&mut self, wait: Duration) -> Result<Got, Stop> {
        let got = self.wire.recv(wait)?;
        if let Got::Pdu(pdu) = &got {
            let context = Context {
                segment: self.segment,
                level: self.result_or("ErrorRecoveryLevel", 0),
                protocol: self.result_or("iSCSIProtocolLevel", 1),
                stat_sn: self.stat_sn,
                full_feature: self.full_feature,
                discovery: self.discovery,
            };
            self.traffic.borrow_mut().see(pdu, &context);
            self.note(pdu);
        }
        Ok(got)
    }

    fn note(&mut self, pdu: &Pdu) {
        let opcode = pdu.opcode();
        let failed_login = opcode == op::LOGIN_RESPONSE && pdu.byte(at::LOGIN_STATUS) != 0;
        let data_without_status = opcode == op::DATA_IN && pdu.flags() & 1 == 0;
        let (exp, max) = (pdu.be32(at::EXP_CMD_SN), pdu.be32(at::MAX_CMD_SN));
        if !failed_login {
            (self.exp_cmd_sn, self.max_cmd_sn) = (exp, max);
        }
        let own_accord = opcode == op::NOP_IN && pdu.itt() == NO_TAG;
        let unnumbered = failed_login || data_without_status || opcode == op::R2T || own_accord;
        if !unnumbered {
            let next = pdu.be32(at::STAT_SN).wrapping_add(1);
            // A PDU that is sent again does not turn the count back.
            if self.stat_sn.is_none_or(|now| before(now, next)) {
                self.stat_sn = Some(next);
            }
        }
    }

    /// The next PDU that is not a NOP-In of the target's own accord; those that ask are answered.
    pub(crate) fn next(&mut self) -> Result<Got, Stop> {
        self.next_within(self.answer)
    }

    /// [`next`](Self::next) with another patience.
    pub(crate) fn next_within(&mut self, wait: Duration) -> Result<Got, Stop> {
        let until = Instant::now() + wait;
        loop {
            let got = self.recv(until.saturating_duration_since(Instant::now()))?;
            match got {
                Got::Pdu(pdu) if pdu.opcode() == op::NOP_IN && pdu.itt() == NO_TAG => {
                    if pdu.ttt() != NO_TAG {
                        let answer = Pdu::new(0x40 | op::NOP_OUT)
                            .set(at::FLAGS, F)
                            .bytes(at::LUN, &pdu.bhs[at::LUN..at::LUN + 8])
                            .set32(at::ITT, NO_TAG)
                            .set32(at::TTT, pdu.ttt())
                            .set32(at::CMD_SN, self.cmd_sn)
                            .set32(at::EXP_STAT_SN, self.exp_stat_sn());
                        self.send(&answer);
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// The next PDU has to have this opcode.
    pub(crate) fn expect(&mut self, opcode: u8, rule: &str, expected: &str) -> Result<Pdu, Stop> {
        match self.next()? {
            Got::Pdu(pdu) if pdu.opcode() == opcode => Ok(pdu),
            got => got.wrong(rule, expected),
        }
    }

    /// Sends, and the next PDU has to have this opcode and the tag of the request.
    pub(crate) fn ask(&mut self, pdu: &Pdu, opcode: u8, rule: &str, expected: &str) -> Result<Pdu, Stop> {
        self.send(pdu);
        let answer = self.expect(opcode, rule, expected)?;
        if answer.itt() != pdu.itt() {
            return wrong(rule, format!("{expected}, with ITT {:08x}", pdu.itt()), &answer);
        }
        Ok(answer)
    }

    /// The connection has to be closed next.
    pub(crate) fn expect_closed(&mut self, rule: &str, expected: &str) -> Result<(), Stop> {
        match self.next()? {
            Got::Closed => Ok(()),
            got => got.wrong(rule, expected),
        }
    }

    /// Nothing may come for a while.
    pub(crate) fn expect_quiet(&mut self, rule: &str, expected: &str) -> Result<(), Stop> {
        match self.next_within(self.quiet)? {
            Got::Silence => Ok(()),
            got => got.wrong(rule, expected),
        }
    }

    /// The connection still serves: a ping is answered.
    pub(crate) fn expect_alive(&mut self, rule: &str) -> Result<(), Stop> {
        let ping = self.ping(b"still there?");
        self.ask(&ping, op::NOP_IN, rule, "the connection goes on: a ping is answered").map(drop)
    }
}
