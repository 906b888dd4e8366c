//! An initiator's end of a connection: numbers, login, commands.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::layout::{Context, Traffic};
use super::{Bench, INITIATOR};
use crate::chap;
use crate::keys::{find, number, pairs, text};
use crate::pdu::{F, NO_TAG, Pdu, at, before, op};
use crate::url::{Credentials, TargetUrl};
use crate::verdict::{Stop, error, fail, wrong};
use crate::wire::{Got, Wire};

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

/// What a login offers.
#[derive(Clone, Default)]
pub(crate) struct Login {
    /// Keys of the operational stage.
    pub keys: Vec<(String, String)>,
    /// SessionType=Discovery.
    pub discovery: bool,
    /// Another InitiatorName.
    pub initiator: Option<String>,
}

impl Login {
    /// A Normal session.
    pub(crate) fn normal(keys: &[(&str, &str)]) -> Self {
        let keys = keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { keys, ..Self::default() }
    }
}

/// A SCSI command and how its data goes.
#[derive(Clone, Default)]
pub(crate) struct Io<'a> {
    /// Command descriptor block.
    pub cdb: Vec<u8>,
    /// Expected Data Transfer Length of a read.
    pub read: Option<u32>,
    /// Expected Data Transfer Length of a write.
    pub write: Option<u32>,
    /// What is written.
    pub data: &'a [u8],
    /// How much of it goes with the command.
    pub immediate: usize,
}

/// A finished command.
pub(crate) struct Done {
    /// The PDU that carried the status.
    pub last: Pdu,
    /// What was read, by Buffer Offset.
    pub data: Vec<u8>,
    /// The Data-In PDUs.
    pub ins: Vec<Pdu>,
    /// The R2Ts.
    pub r2ts: Vec<Pdu>,
}

impl Done {
    /// SCSI status.
    pub(crate) fn status(&self) -> u8 {
        self.last.byte(at::STATUS)
    }

    /// Sense key, ASC and ASCQ of fixed or descriptor sense data (SPC-4 4.5).
    pub(crate) fn sense(&self) -> Option<(u8, u8, u8)> {
        let sense = self.last.data.get(2..)?;
        match sense.first()? & 0x7f {
            0x70 | 0x71 => Some((sense.get(2)? & 0x0f, *sense.get(12)?, *sense.get(13)?)),
            0x72 | 0x73 => Some((sense.get(1)? & 0x0f, *sense.get(2)?, *sense.get(3)?)),
            _ => None,
        }
    }
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

    // ---- Login ----

    /// A Login Request of this connection; `flags` are T, C, CSG and NSG.
    pub(crate) fn login_request(&self, flags: u8, data: &[u8]) -> Pdu {
        Pdu::new(0x40 | op::LOGIN_REQUEST)
            .set(at::FLAGS, flags)
            .bytes(at::ISID, &self.isid)
            .set16(at::TSIH, self.tsih)
            .set32(at::ITT, self.login_tag)
            .set16(at::CID, self.cid)
            .set32(at::CMD_SN, self.cmd_sn)
            .set32(at::EXP_STAT_SN, self.exp_stat_sn())
            .with_data(data)
    }

    /// The names that the first Login Request of a Normal session carries.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        [("InitiatorName", INITIATOR), ("TargetName", &self.peer.name), ("SessionType", "Normal")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec()
    }

    /// [`names`](Self::names) and more keys, as a data segment.
    pub(crate) fn names_and(&self, more: &[(&str, &str)]) -> Vec<u8> {
        let names = self.names();
        let mut all: Vec<(&str, &str)> = names.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        all.extend_from_slice(more);
        text(&all)
    }

    /// Sends a Login Request; a Login Response has to come, of any status.
    pub(crate) fn login_step(&mut self, flags: u8, data: &[u8]) -> Result<Pdu, Stop> {
        let request = self.login_request(flags, data);
        self.ask(&request, op::LOGIN_RESPONSE, "7143-11.12-1", "a Login Response")
    }

    /// A Login Request that has to be refused with one of these statuses, the connection then closed.
    pub(crate) fn refused(
        &mut self,
        flags: u8,
        data: &[u8],
        rule: &str,
        statuses: &[u16],
    ) -> Result<Pdu, Stop> {
        let answer = self.login_step(flags, data)?;
        self.refused_as(answer, rule, statuses)
    }

    /// The response has to refuse with one of these statuses, the connection then be closed.
    pub(crate) fn refused_as(&mut self, answer: Pdu, rule: &str, statuses: &[u16]) -> Result<Pdu, Stop> {
        if !statuses.contains(&answer.be16(at::LOGIN_STATUS)) {
            let all: Vec<String> = statuses.iter().map(|s| format!("{s:04x}")).collect();
            return wrong(rule, format!("a Login Response with status {}", all.join(" or ")), &answer);
        }
        self.expect_closed("7143-11.13.5-5", "the connection is closed after a Login Response that refuses")?;
        Ok(answer)
    }

    /// A Login Request in the way of a login that went well so far; anything but status 0 is an error.
    fn proceed(&mut self, flags: u8, data: &[u8]) -> Result<Pdu, Stop> {
        let request = self.login_request(flags, data);
        self.send(&request);
        match self.next()? {
            Got::Pdu(pdu) if pdu.opcode() == op::LOGIN_RESPONSE && pdu.be16(at::LOGIN_STATUS) == 0 => {
                self.keys.extend(pairs(&pdu.data));
                Ok(pdu)
            }
            got => error(format!("the login failed: {}", got.title())),
        }
    }

    /// Logs in, with CHAP if the URL has a name, and on to full feature phase.
    pub(crate) fn log_in(&mut self, login: &Login) -> Result<(), Stop> {
        self.discovery = login.discovery;
        self.security(login)?;
        self.operational(&login.keys)
    }

    /// The security stage, up to the operational one.
    pub(crate) fn security(&mut self, login: &Login) -> Result<(), Stop> {
        let initiator = login.initiator.as_deref().unwrap_or(INITIATOR);
        let target = self.peer.name.clone();
        let mut first = vec![("InitiatorName", initiator)];
        if login.discovery {
            first.push(("SessionType", "Discovery"));
        } else {
            first.extend([("TargetName", target.as_str()), ("SessionType", "Normal")]);
        }
        let Some(user) = self.peer.initiator.clone() else {
            first.push(("AuthMethod", "None"));
            let answer = self.proceed(0x81, &text(&first))?;
            return if answer.flags() & 0x83 == 0x81 {
                Ok(())
            } else {
                error(format!("the target does not go on to the operational stage: {}", answer.title()))
            };
        };
        first.push(("AuthMethod", "CHAP"));
        self.proceed(0x00, &text(&first))?;
        let mutual = self.peer.target.clone();
        self.chap(&user, mutual.as_ref())
    }

    /// The steps of CHAP with MD5, up to the operational stage.
    fn chap(&mut self, user: &Credentials, mutual: Option<&Credentials>) -> Result<(), Stop> {
        let answer = self.proceed(0x00, &text(&[("CHAP_A", "5")]))?;
        let answer = pairs(&answer.data);
        let (Some(identifier), Some(challenge)) = (
            find(&answer, "CHAP_I").and_then(|i| i.parse().ok()),
            find(&answer, "CHAP_C").and_then(chap::binary),
        ) else {
            return error(format!("no CHAP challenge in {answer:?}"));
        };
        let response = chap::response(5, identifier, user.secret.as_bytes(), &challenge).unwrap_or_default();
        let response = chap::hex(&response);
        let mut step = vec![("CHAP_N", user.name.as_str()), ("CHAP_R", response.as_str())];
        let mut ours = [0; 16];
        let _ = getrandom::fill(&mut ours);
        let ours_text = chap::hex(&ours);
        if mutual.is_some() {
            step.extend([("CHAP_I", "9"), ("CHAP_C", ours_text.as_str())]);
        }
        let answer = self.proceed(0x81, &text(&step))?;
        if let Some(target) = mutual {
            let right = chap::response(5, 9, target.secret.as_bytes(), &ours);
            let got = pairs(&answer.data);
            let value = find(&got, "CHAP_R").and_then(chap::binary);
            if value != right || find(&got, "CHAP_N") != Some(&target.name) {
                return wrong("7143-12.1.3-9", "the target's CHAP_N, and CHAP_R over our challenge", &answer);
            }
        }
        if answer.flags() & 0x83 == 0x81 {
            Ok(())
        } else {
            error("the target does not end the security stage")
        }
    }

    /// The operational stage with these offers, up to full feature phase.
    pub(crate) fn operational(&mut self, offers: &[(String, String)]) -> Result<(), Stop> {
        let mut offers: Vec<(String, String)> = offers.to_vec();
        if find(&offers, "MaxRecvDataSegmentLength").is_none() {
            offers.push(("MaxRecvDataSegmentLength".into(), OUR_SEGMENT.into()));
        }
        let mut data = text(&offers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>());
        for _ in 0..8 {
            let answer = self.proceed(0x87, &data)?;
            if answer.flags() & 0x83 == 0x83 {
                self.established(&answer, &offers);
                return Ok(());
            }
            data = text(&self.answers(&pairs(&answer.data), &offers));
        }
        error("the target does not let the login end")
    }

    /// Agrees to what the target offers of its own accord.
    fn answers<'a>(
        &self,
        got: &'a [(String, String)],
        offered: &[(String, String)],
    ) -> Vec<(&'a str, &'a str)> {
        const DECLARED: [&str; 4] =
            ["TargetPortalGroupTag", "TargetAlias", "MaxRecvDataSegmentLength", "TargetAddress"];
        let asks = |key: &str| find(offered, key).is_none() && !DECLARED.contains(&key);
        got.iter()
            .filter(|(key, _)| asks(key))
            .map(|(key, value)| (key.as_str(), value.split(',').next().unwrap_or(value)))
            .collect()
    }

    /// Full feature phase begins with this response.
    pub(crate) fn established(&mut self, last: &Pdu, offers: &[(String, String)]) {
        self.tsih = last.be16(at::TSIH);
        let segment = find(offers, "MaxRecvDataSegmentLength").and_then(number);
        self.segment = segment.and_then(|n| usize::try_from(n).ok()).unwrap_or(DEFAULT_SEGMENT);
        self.wire.header_digest = self.result("HeaderDigest") == Some("CRC32C");
        self.wire.data_digest = self.result("DataDigest") == Some("CRC32C");
        self.full_feature = true;
    }

    /// A further connection of this session in the same state of numbers.
    pub(crate) fn sibling(&self, bench: &Bench, cid: u16) -> Result<Self, Stop> {
        let mut other = bench.connect()?;
        (other.isid, other.tsih, other.cid, other.cmd_sn) = (self.isid, self.tsih, cid, self.cmd_sn);
        other.next_tag = self.next_tag + 0x1000 * (u32::from(cid) + 1);
        Ok(other)
    }

    // ---- Commands ----

    /// Sends a command and takes all that belongs to it up to its status; R2Ts are answered from `io.data`.
    pub(crate) fn run(&mut self, io: &Io<'_>) -> Result<Done, Stop> {
        let command = self.command(io);
        self.send(&command);
        self.finish(&command, io)
    }

    /// The rest of a command that was sent.
    pub(crate) fn finish(&mut self, command: &Pdu, io: &Io<'_>) -> Result<Done, Stop> {
        let (mut data, mut ins, mut r2ts) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let pdu = match self.next()? {
                Got::Pdu(pdu) if pdu.itt() == command.itt() => pdu,
                got => return got.wrong("7143-4.2.5.1-1", "the next PDU of the command, up to its status"),
            };
            match pdu.opcode() {
                op::SCSI_RESPONSE => return Ok(Done { last: pdu, data, ins, r2ts }),
                op::DATA_IN => {
                    let start = pdu.be32(at::OFFSET) as usize;
                    let end = start + pdu.data.len();
                    if end as u64 > u64::from(command.be32(at::EDTL)) {
                        return wrong("7143-11.7.6-1", "offset and length within the expected length", &pdu);
                    }
                    if data.len() < end {
                        data.resize(end, 0);
                    }
                    data[start..end].copy_from_slice(&pdu.data);
                    ins.push(pdu.clone());
                    if pdu.flags() & 1 != 0 {
                        return Ok(Done { last: pdu, data, ins, r2ts });
                    }
                }
                op::R2T => {
                    let (from, len) = (pdu.be32(at::OFFSET) as usize, pdu.be32(at::DESIRED) as usize);
                    let Some(part) = io.data.get(from..from + len) else {
                        return wrong("7143-11.7.6-1", "an R2T within the expected length", &pdu);
                    };
                    self.answer_r2t(&pdu, part);
                    r2ts.push(pdu);
                }
                _ => return wrong("7143-4.2.5.3-1", "Data-In, R2T or SCSI Response", &pdu),
            }
        }
    }

    /// Answers an R2T in Data-Outs as large as the target takes.
    pub(crate) fn answer_r2t(&mut self, r2t: &Pdu, data: &[u8]) {
        let segment = self.result_or("MaxRecvDataSegmentLength", 8192).clamp(512, 1 << 20) as usize;
        let count = data.len().div_ceil(segment);
        let start = r2t.be32(at::OFFSET);
        for (sn, part) in data.chunks(segment).enumerate() {
            let offset = start + u32::try_from(sn * segment).unwrap_or(u32::MAX);
            let pdu = self.data_out(r2t.itt(), r2t.ttt(), sn, offset, part);
            let pdu = pdu.set(at::FLAGS, if sn + 1 == count { F } else { 0 });
            let pdu = pdu.bytes(at::LUN, &r2t.bhs[at::LUN..at::LUN + 8]);
            self.send(&pdu);
        }
    }

    /// A Data-Out without F.
    pub(crate) fn data_out(&self, itt: u32, ttt: u32, sn: usize, offset: u32, data: &[u8]) -> Pdu {
        Pdu::new(op::DATA_OUT)
            .set32(at::ITT, itt)
            .set32(at::TTT, ttt)
            .set32(at::EXP_STAT_SN, self.exp_stat_sn())
            .set32(at::DATA_SN, u32::try_from(sn).unwrap_or(u32::MAX))
            .set32(at::OFFSET, offset)
            .with_data(data)
    }

    /// TEST UNIT READY until no unit attention is left.
    pub(crate) fn make_ready(&mut self) -> Result<(), Stop> {
        let mut last = 0;
        for _ in 0..6 {
            let done = self.run(&Io { cdb: vec![0; 6], ..Io::default() })?;
            last = done.status();
            if last == 0 {
                return Ok(());
            }
        }
        error(format!("the logical unit is not ready: status {last:02x}"))
    }

    /// Number of blocks and their size, by READ CAPACITY(10) (SBC-3 5.15).
    pub(crate) fn capacity(&mut self) -> Result<(u32, u32), Stop> {
        let mut cdb = vec![0; 10];
        cdb[0] = 0x25;
        let done = self.run(&Io { cdb, read: Some(8), ..Io::default() })?;
        let Ok(data) = <[u8; 8]>::try_from(done.data.as_slice()) else {
            return error(format!("READ CAPACITY(10) gave {} bytes", done.data.len()));
        };
        let [a, b, c, d, e, f, g, h] = data;
        let (last, size) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if size == 0 || size > 1 << 16 {
            return error(format!("a block size of {size} bytes"));
        }
        Ok((last.saturating_add(1), size))
    }

    /// Good status is needed to go on.
    pub(crate) fn good(&mut self, io: &Io<'_>) -> Result<Done, Stop> {
        let done = self.run(io)?;
        if done.status() != 0 {
            return fail(
                "7143-11.4.3-2",
                "status GOOD",
                format!("{}, sense {:02x?}", done.last.title(), done.sense()),
            );
        }
        Ok(done)
    }
}

/// READ(10) or WRITE(10) (SBC-3 5.11, 5.33).
pub(crate) fn cdb10(opcode: u8, lba: u32, blocks: u16) -> Vec<u8> {
    let (lba, blocks) = (lba.to_be_bytes(), blocks.to_be_bytes());
    vec![opcode, 0, lba[0], lba[1], lba[2], lba[3], 0, blocks[0], blocks[1], 0]
}

/// INQUIRY of standard data (SPC-4 6.6).
pub(crate) fn inquiry(allocation: u16) -> Vec<u8> {
    let length = allocation.to_be_bytes();
    vec![0x12, 0, 0, length[0], length[1], 0]
}
