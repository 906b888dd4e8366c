//! The login of a connection.

use super::super::{Bench, INITIATOR};
use super::{Conn, DEFAULT_SEGMENT, OUR_SEGMENT};
use crate::chap;
use crate::keys::{find, number, pairs, text};
use crate::pdu::{Pdu, at, op};
use crate::url::Credentials;
use crate::verdict::{Stop, error, wrong};
use crate::wire::Got;

/// T, C, CSG and NSG (section 11.12.3) of a request in the operational stage, and of one that asks for its end.
const OPERATIONAL: u8 = 0x04;
const OPERATIONAL_TO_FULL: u8 = 0x87;

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

impl Conn {
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

    /// The names that the first Login Request of a Normal session carries. SessionType is the leading connection's.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let mut names = vec![("InitiatorName", INITIATOR), ("TargetName", &self.peer.name)];
        if self.tsih == 0 {
            names.push(("SessionType", "Normal"));
        }
        names.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
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
            first.push(("TargetName", target.as_str()));
            if self.tsih == 0 {
                first.push(("SessionType", "Normal"));
            }
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
            let answer = self.proceed(OPERATIONAL_TO_FULL, &data)?;
            if answer.flags() & 0x83 == 0x83 {
                self.established(&answer, &offers);
                return Ok(());
            }
            data = text(&self.answers(&pairs(&answer.data), &offers));
        }
        error("the target does not let the login end")
    }

    /// Asks on for the end of the operational stage while the target holds it: what it offers of its own accord is
    /// answered. Gives the response that ends the login, or the first that says something else.
    pub(crate) fn settle(&mut self, answer: Pdu) -> Result<Pdu, Stop> {
        let mut last = answer;
        for _ in 0..8 {
            let goes_on = last.be16(at::LOGIN_STATUS) == 0 && last.flags() & 0xcc == OPERATIONAL;
            let got = pairs(&last.data);
            if !goes_on || got.is_empty() {
                break;
            }
            let data = text(&self.answers(&got, &[]));
            last = self.login_step(OPERATIONAL_TO_FULL, &data)?;
        }
        Ok(last)
    }

    /// Agrees to what the target offers of its own accord, but to no digests and no recovery: cases that want them
    /// offer them.
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
            .map(|(key, value)| match key.as_str() {
                "HeaderDigest" | "DataDigest" => (key.as_str(), "None"),
                "ErrorRecoveryLevel" => (key.as_str(), "0"),
                _ => (key.as_str(), value.split(',').next().unwrap_or(value)),
            })
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
}
