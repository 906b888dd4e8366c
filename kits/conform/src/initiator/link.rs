//! A target's end of a connection: numbers, login, a session that serves a small disk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::scsi;
use crate::keys::{find, number, pairs, text};
use crate::pdu::{F, NO_TAG, Pdu, at, before, op};
use crate::verdict::{Stop, error, wrong};
use crate::wire::{Got, Wire};

/// What becomes of a request that a script has looked at.
pub(crate) enum Step {
    /// It is served as usual.
    Serve,
    /// The script has answered it.
    Done,
    /// The script has seen enough.
    Stop,
}

/// A connection of the initiator under test.
pub(crate) struct Link {
    pub(crate) wire: Wire,
    pub(crate) answer: Duration,
    pub(crate) quiet: Duration,
    pub(crate) stat_sn: u32,
    pub(crate) exp_cmd_sn: u32,
    /// Commands that the initiator may have under way.
    pub(crate) window: u32,
    /// The greatest MaxCmdSN that was sent: a smaller one takes nothing back (section 4.2.2.1).
    pub(crate) max_cmd_sn: u32,
    /// Every PDU that came, in order.
    pub(crate) log: Vec<Pdu>,
    /// What the initiator offered and declared.
    pub(crate) offers: Vec<(String, String)>,
    /// What was agreed, where the initiator offered it.
    pub(crate) results: Vec<(String, String)>,
    pub(crate) disk: Vec<u8>,
    pub(crate) full_feature: bool,
    waiting: VecDeque<Pdu>,
    next_ttt: u32,
}

/// Size of the disk, in blocks of 512 bytes.
pub(crate) const BLOCKS: usize = 16_384;

/// Each block's bytes count up from its number, by exclusive or. After 256 blocks the pattern begins again: what is
/// worked out once is copied, as a case should not begin late.
fn pattern() -> Vec<u8> {
    let period: Vec<u8> = (0..256 * 512).map(|n: usize| (n / 512) as u8 ^ n as u8).collect();
    period.repeat(BLOCKS / 256)
}

impl Link {
    pub(crate) fn new(wire: Wire, answer: Duration, quiet: Duration) -> Self {
        Self {
            wire,
            answer,
            quiet,
            stat_sn: 0x1000,
            exp_cmd_sn: 0,
            window: 32,
            max_cmd_sn: 0,
            log: Vec::new(),
            offers: Vec::new(),
            results: Vec::new(),
            disk: pattern(),
            full_feature: false,
            waiting: VecDeque::new(),
            next_ttt: 0x500,
        }
    }

    // ---- PDUs ----

    /// The next PDU, the end, or silence.
    pub(crate) fn recv(&mut self, wait: Duration) -> Result<Got, Stop> {
        if let Some(pdu) = self.waiting.pop_front() {
            return Ok(Got::Pdu(pdu));
        }
        let got = self.wire.recv(wait)?;
        if let Got::Pdu(pdu) = &got {
            self.note(pdu);
        }
        Ok(got)
    }

    fn note(&mut self, pdu: &Pdu) {
        let numbered = !pdu.immediate() && !matches!(pdu.opcode(), op::DATA_OUT | op::SNACK);
        if self.full_feature && numbered && pdu.be32(at::CMD_SN) == self.exp_cmd_sn {
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        }
        self.log.push(pdu.clone());
    }

    /// Fills in StatSN, which moves on, ExpCmdSN and MaxCmdSN, and sends.
    pub(crate) fn respond(&mut self, pdu: Pdu) -> Pdu {
        let pdu = self.stamped(pdu);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        self.wire.send(&pdu);
        pdu
    }

    /// Sends with the next StatSN, which stays.
    pub(crate) fn inform(&mut self, pdu: Pdu) {
        let pdu = self.stamped(pdu);
        self.wire.send(&pdu);
    }

    fn stamped(&mut self, pdu: Pdu) -> Pdu {
        let most = self.exp_cmd_sn.wrapping_add(self.window).wrapping_sub(1);
        if !self.full_feature || before(self.max_cmd_sn, most) {
            self.max_cmd_sn = most;
        }
        pdu.set32(at::STAT_SN, self.stat_sn)
            .set32(at::EXP_CMD_SN, self.exp_cmd_sn)
            .set32(at::MAX_CMD_SN, most)
    }

    /// A fresh Target Transfer Tag.
    pub(crate) fn ttt(&mut self) -> u32 {
        self.next_ttt += 1;
        self.next_ttt
    }

    /// The initiator has to end the connection, by closing or by a Logout. What it sends meanwhile counts for nothing.
    pub(crate) fn expect_end(&mut self, rule: &str, expected: &str) -> Result<(), Stop> {
        let until = Instant::now() + self.answer;
        let mut last = Got::Silence;
        loop {
            match self.recv(until.saturating_duration_since(Instant::now()))? {
                Got::Closed => return Ok(()),
                Got::Pdu(pdu) if pdu.opcode() == op::LOGOUT_REQUEST => return Ok(()),
                Got::Silence => return last.wrong(rule, expected),
                got => last = got,
            }
        }
    }

    // ---- Login ----

    /// The next PDU has to be a Login Request.
    pub(crate) fn login_request(&mut self) -> Result<Pdu, Stop> {
        match self.recv(self.answer)? {
            Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_REQUEST => {
                self.exp_cmd_sn = pdu.be32(at::CMD_SN);
                self.offers.extend(pairs(&pdu.data));
                Ok(pdu)
            }
            got => got.wrong("7143-4.2.4-3", "a Login Request"),
        }
    }

    /// A Login Response to this request, with status 0.
    pub(crate) fn login_response(request: &Pdu, flags: u8, data: &[u8]) -> Pdu {
        Pdu::new(op::LOGIN_RESPONSE)
            .set(at::FLAGS, flags)
            .bytes(at::ISID, &request.bhs[at::ISID..at::ISID + 8])
            .set32(at::ITT, request.itt())
            .with_data(data)
    }

    /// Grants what the request asks for.
    pub(crate) fn grant(&mut self, request: &Pdu, prefer: &[(&str, &str)], first: bool) -> bool {
        let mut answers = self.answers(&pairs(&request.data), prefer);
        let discovery = find(&self.offers, "SessionType") == Some("Discovery");
        if first && !discovery {
            answers.push(("TargetPortalGroupTag".into(), "1".into()));
        }
        if request.flags() & 0x0c == 0x04 && find(&self.results, "MaxRecvDataSegmentLength").is_none() {
            let wanted = prefer.iter().find(|(key, _)| *key == "MaxRecvDataSegmentLength");
            let ours = ("MaxRecvDataSegmentLength", wanted.map_or("8192", |(_, value)| value));
            answers.push((ours.0.into(), ours.1.into()));
        }
        self.results.extend(answers.iter().cloned());
        let data = text(&answers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>());
        let done = request.flags() & 0x83 == 0x83;
        let mut response = Self::login_response(request, request.flags() & 0x8f, &data);
        if done {
            response = response.set16(at::TSIH, 0x1234);
        }
        self.respond(response);
        if done {
            self.full_feature = true;
            self.wire.header_digest = find(&self.results, "HeaderDigest") == Some("CRC32C");
            self.wire.data_digest = find(&self.results, "DataDigest") == Some("CRC32C");
        }
        done
    }

    /// Logs the initiator in.
    pub(crate) fn log_in(&mut self, prefer: &[(&str, &str)]) -> Result<(), Stop> {
        for step in 0..8 {
            let request = match self.login_request() {
                Err(Stop::Fail(failure)) if step > 0 => {
                    return error(format!("the initiator does not go on with the login: {}", failure.seen));
                }
                other => other?,
            };
            if self.grant(&request, prefer, step == 0) {
                return Ok(());
            }
        }
        error("the initiator does not end the login")
    }

    /// Answers to offers: what the case prefers, else the simplest.
    fn answers(&self, offers: &[(String, String)], prefer: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for (key, offer) in offers {
            let wanted = prefer.iter().find(|(k, _)| k == key).map(|(_, value)| *value);
            let least = |most: u64| {
                let most = wanted.and_then(number).unwrap_or(most);
                number(offer).unwrap_or(most).min(most).to_string()
            };
            let in_list = |simple: &str| {
                let wanted = wanted.unwrap_or(simple);
                if offer.split(',').any(|v| v == wanted) { wanted.to_owned() } else { "Reject".into() }
            };
            let answer = match key.as_str() {
                "InitiatorName"
                | "InitiatorAlias"
                | "TargetName"
                | "SessionType"
                | "MaxRecvDataSegmentLength"
                | "X#NodeArchitecture" => continue,
                // Who insists on a digest gets it: a refusal would end the login before what the case is about.
                "HeaderDigest" | "DataDigest" if !offer.split(',').any(|v| v == "None") => in_list("CRC32C"),
                "AuthMethod" | "HeaderDigest" | "DataDigest" => in_list("None"),
                "TaskReporting" => in_list("RFC3720"),
                "InitialR2T" if offer == "Yes" => "Yes".into(),
                "InitialR2T" => wanted.unwrap_or("Yes").to_owned(),
                "ImmediateData" if offer == "No" => "No".into(),
                "ImmediateData" => wanted.unwrap_or("No").to_owned(),
                "DataPDUInOrder" | "DataSequenceInOrder" => "Yes".into(),
                "MaxConnections" | "iSCSIProtocolLevel" | "MaxOutstandingR2T" => least(1),
                "ErrorRecoveryLevel" => least(0),
                "MaxBurstLength" => least(262_144),
                "FirstBurstLength" => least(65_536),
                "DefaultTime2Wait" => offer.clone(),
                "DefaultTime2Retain" => least(20),
                "IFMarker" | "OFMarker" => "No".into(),
                "IFMarkInt" | "OFMarkInt" => "Reject".into(),
                _ => "NotUnderstood".into(),
            };
            out.push((key.clone(), answer));
        }
        out
    }

    /// What the initiator declared, or the default of RFC 7143 section 13.12.
    pub(crate) fn segment(&self) -> usize {
        let declared = find(&self.offers, "MaxRecvDataSegmentLength").and_then(number);
        declared.and_then(|n| usize::try_from(n).ok()).unwrap_or(8192)
    }

    /// A negotiated number.
    pub(crate) fn result_or(&self, key: &str, default: usize) -> usize {
        find(&self.results, key).and_then(number).and_then(|n| usize::try_from(n).ok()).unwrap_or(default)
    }

    // ---- Full feature phase ----

    /// Serves until the initiator ends or the script says so. The script sees each request first.
    pub(crate) fn serve(
        &mut self,
        mut script: impl FnMut(&mut Self, &Pdu) -> Result<Step, Stop>,
    ) -> Result<(), Stop> {
        loop {
            let pdu = match self.recv(self.answer)? {
                Got::Pdu(pdu) => pdu,
                Got::Closed => return Ok(()),
                // The initiator is idle: it was served.
                Got::Silence => return Ok(()),
            };
            match script(self, &pdu)? {
                Step::Done => continue,
                Step::Stop => return Ok(()),
                Step::Serve => (),
            }
            if self.handle(&pdu)? {
                return Ok(());
            }
        }
    }

    /// Serves one request as a target does; true after a Logout.
    pub(crate) fn handle(&mut self, pdu: &Pdu) -> Result<bool, Stop> {
        match pdu.opcode() {
            op::NOP_OUT if pdu.itt() == NO_TAG => (),
            op::NOP_OUT => {
                let answer = Pdu::new(op::NOP_IN).set(at::FLAGS, F).set32(at::ITT, pdu.itt());
                self.respond(answer.set32(at::TTT, NO_TAG).with_data(&pdu.data));
            }
            op::SCSI_COMMAND => self.command(pdu)?,
            op::TASK_REQUEST => {
                self.respond(Pdu::new(op::TASK_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt()));
            }
            op::TEXT_REQUEST => {
                let data = text(&[("TargetName", super::TARGET)]);
                let answer = Pdu::new(op::TEXT_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt());
                self.respond(answer.set32(at::TTT, NO_TAG).with_data(&data));
            }
            op::LOGOUT_REQUEST => {
                self.respond(Pdu::new(op::LOGOUT_RESPONSE).set(at::FLAGS, F).set32(at::ITT, pdu.itt()));
                self.wire.close();
                return Ok(true);
            }
            // Left over from a command that ended.
            op::DATA_OUT => (),
            _ => return wrong("7143-11.2.1.2-1", "a request of an initiator", pdu),
        }
        Ok(false)
    }

    fn command(&mut self, pdu: &Pdu) -> Result<(), Stop> {
        let cdb: Vec<u8> = pdu.bhs[at::CDB..at::CDB + 16].to_vec();
        match scsi::parse(&cdb) {
            scsi::Request::Write { lba, blocks } => {
                let data = self.collect(pdu)?;
                let (from, len) = (lba * 512, blocks * 512);
                match self.disk.get_mut(from..from + len) {
                    Some(part) if data.len() >= len => part.copy_from_slice(&data[..len]),
                    _ => return self.status(pdu, 2, &scsi::sense(5, 0x21, 0)),
                }
                self.status(pdu, 0, &[])
            }
            request => match scsi::execute(&request, &self.disk) {
                Ok(data) => self.send_data(pdu, &data),
                Err(sense) => self.status(pdu, 2, &sense),
            },
        }
    }

    /// The data of a write: immediate and unsolicited, then by R2T.
    pub(crate) fn collect(&mut self, command: &Pdu) -> Result<Vec<u8>, Stop> {
        let total = command.be32(at::EDTL) as usize;
        if total > self.disk.len() {
            return error(format!("the initiator writes {total} bytes at once"));
        }
        let mut data = command.data.clone();
        let mut more = command.flags() & F == 0;
        while more {
            let pdu = self.data_out(command.itt(), NO_TAG, data.len())?;
            data.extend_from_slice(&pdu.data);
            more = pdu.flags() & F == 0;
        }
        let burst = self.result_or("MaxBurstLength", 262_144);
        let mut sn = 0;
        while data.len() < total {
            let (offset, len) = (data.len(), (total - data.len()).min(burst));
            let r2t = self.ask(command, sn, offset, len);
            sn += 1;
            while data.len() < offset + len {
                let pdu = self.data_out(command.itt(), r2t.ttt(), data.len())?;
                data.extend_from_slice(&pdu.data);
                if pdu.flags() & F != 0 && data.len() < offset + len {
                    return wrong("7143-11.8-4", format!("{len} bytes in answer to the R2T"), &pdu);
                }
            }
        }
        Ok(data)
    }

    /// Sends an R2T.
    pub(crate) fn ask(&mut self, command: &Pdu, sn: u32, offset: usize, len: usize) -> Pdu {
        let ttt = self.ttt();
        let u32_of = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let r2t = Pdu::new(op::R2T)
            .set(at::FLAGS, F)
            .bytes(at::LUN, &command.bhs[at::LUN..at::LUN + 8])
            .set32(at::ITT, command.itt())
            .set32(at::TTT, ttt)
            .set32(at::DATA_SN, sn)
            .set32(at::OFFSET, u32_of(offset))
            .set32(at::DESIRED, u32_of(len));
        self.inform(r2t.clone());
        r2t
    }

    /// The next Data-Out of a command; requests that come between wait for their turn.
    pub(crate) fn data_out(&mut self, itt: u32, ttt: u32, offset: usize) -> Result<Pdu, Stop> {
        let mut others = VecDeque::new();
        let found = loop {
            match self.recv(self.answer)? {
                Got::Pdu(pdu) if pdu.opcode() == op::DATA_OUT && pdu.itt() == itt => break pdu,
                Got::Pdu(pdu) => others.push_back(pdu),
                got => return got.wrong("7143-4.2.5.2-7", "a Data-Out"),
            }
        };
        self.waiting.extend(others);
        if found.ttt() != ttt {
            return wrong("7143-11.7.4-3", format!("Target Transfer Tag {ttt:08x}"), &found);
        }
        if found.be32(at::OFFSET) as usize != offset {
            return wrong("7143-11.8-9", format!("Buffer Offset {offset}"), &found);
        }
        Ok(found)
    }

    /// Data-Ins of the size the initiator takes, the last with the status.
    pub(crate) fn send_data(&mut self, command: &Pdu, data: &[u8]) -> Result<(), Stop> {
        let expected = command.be32(at::EDTL) as usize;
        let sent = &data[..data.len().min(expected)];
        if sent.is_empty() {
            return self.status(command, 0, &[]);
        }
        let (segment, count) = (self.segment().min(65_536), sent.len().div_ceil(self.segment().min(65_536)));
        for (sn, part) in sent.chunks(segment).enumerate() {
            let mut pdu = self.data_in(command, sn, sn * segment, part);
            if sn + 1 < count {
                self.wire.send(&pdu);
                continue;
            }
            // F and S; O or U with the difference (section 11.4.5).
            let (short, long) = (expected.saturating_sub(data.len()), data.len().saturating_sub(expected));
            let flags = if long > 0 {
                0x85
            } else if short > 0 {
                0x83
            } else {
                0x81
            };
            let residual = u32::try_from(short + long).unwrap_or(u32::MAX);
            pdu = pdu.set(at::FLAGS, flags).set32(at::RESIDUAL, residual);
            self.respond(pdu);
        }
        Ok(())
    }

    /// A Data-In without F and status.
    pub(crate) fn data_in(&mut self, command: &Pdu, sn: usize, offset: usize, data: &[u8]) -> Pdu {
        let u32_of = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let pdu = Pdu::new(op::DATA_IN)
            .set32(at::ITT, command.itt())
            .set32(at::TTT, NO_TAG)
            .set32(at::DATA_SN, u32_of(sn))
            .set32(at::OFFSET, u32_of(offset))
            .with_data(data);
        self.stamped(pdu).set32(at::STAT_SN, 0)
    }

    /// A SCSI Response.
    pub(crate) fn status(&mut self, command: &Pdu, status: u8, sense: &[u8]) -> Result<(), Stop> {
        let mut pdu = Pdu::new(op::SCSI_RESPONSE).set(at::FLAGS, F).set(at::STATUS, status);
        pdu = pdu.set32(at::ITT, command.itt());
        if !sense.is_empty() {
            let len = u16::try_from(sense.len()).unwrap_or(u16::MAX).to_be_bytes();
            pdu = pdu.with_data(&[&len, sense].concat());
        }
        self.respond(pdu);
        Ok(())
    }

    /// The first command for which `wanted` holds; others before it are served. Errors if none comes.
    pub(crate) fn until(&mut self, what: &str, wanted: fn(&Pdu) -> bool) -> Result<Pdu, Stop> {
        let mut found = None;
        self.serve(|_, pdu| {
            if wanted(pdu) {
                found = Some(pdu.clone());
                return Ok(Step::Stop);
            }
            Ok(Step::Serve)
        })?;
        match found {
            Some(pdu) => Ok(pdu),
            None => crate::verdict::skip(format!("the initiator sent no {what}")),
        }
    }

    /// Whether ExpStatSN of this request acknowledges all that was sent.
    pub(crate) fn acknowledged(&self, pdu: &Pdu) -> bool {
        !before(pdu.be32(at::EXP_STAT_SN), self.stat_sn)
    }
}
