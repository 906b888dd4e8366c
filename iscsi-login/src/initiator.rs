//! The login machine of an initiator; [`crate::TargetLogin`] mirrors it.

use crate::{
    auth::{AuthPairs, AuthStep, Authenticator, Method, method_list},
    config::{InitiatorLoginConfig, SessionGoal},
    keys::{Key, PerKey, StageUse},
    name::{IscsiName, LocalName},
    negotiate::{Negotiation, Place, check_use},
    output::{InitiatorOutput, KeyValues, LoginOutput, Redirection},
    params::{AuthIdentity, ExistingSession, LoginFailure, Negotiated, Role, SessionType},
    sendtargets::TargetAddress,
    stage::StageFields,
    status::{LoginStatus, Rule},
    text::{Answer, Inbox, KeyName, Outbox, Pair},
    value::{REJECT, parse_number},
};
use bytes::Bytes;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginRequest, LoginResponse, Pdu, Stage, StatSn, Tsih};
mod end;
mod security;

use std::{collections::VecDeque, sync::Arc, time::Instant};

/// Numbers that a login needs from its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginStart {
    /// ISID of the session, the same for all its connections and across reinstatements.
    pub isid: Isid,
    /// CID of the connection.
    pub cid: Cid,
    /// Initiator Task Tag of the login.
    pub itt: Itt,
    /// CmdSN of the session's next command.
    pub cmd_sn: CmdSn,
    /// ExpStatSN of the old connection when one is reinstated, else anything.
    pub exp_stat_sn: StatSn,
    /// The session to join; `None` begins a new session, or reinstates the one with this ISID.
    pub session: Option<ExistingSession>,
}

/// The login phase of one connection at an initiator.
///
/// ```text
///                     response, more to say
///               ┌──────────────────────────────┐
///               ▼                              │
///   (new) ─▶ Exchange ──────────────────────────┘
///      │        │ ▲ last request
///      │        │ └───────── Resources ◀── before the request that asks for full feature phase
///      └────────┼───────────────▲
///               │ final response, resources as agreed
///               ├─────────────────────────────────────▶ Over
///               │ final response without iSER            ▲
///               └────────────▶ Plain ── resources ───────┘
/// ```
///
/// Calling order: [`InitiatorLogin::new`], whose outputs are waiting at once; [`InitiatorLogin::handle_pdu`] for every
/// PDU that arrives; after each call, [`InitiatorLogin::poll_output`] until it gives `None`. `Allocate` is answered by
/// `handle_resources`, at once or later. When [`InitiatorLogin::poll_timeout`] comes,
/// [`InitiatorLogin::handle_timeout`]. `Enable`, `Redirected` or `Failed` is the last output; calls after it do
/// nothing.
#[derive(Debug)]
pub struct InitiatorLogin {
    config: Arc<InitiatorLoginConfig>,
    seed: [u8; 32],
    start: LoginStart,
    deadline: Option<Instant>,
    outputs: VecDeque<InitiatorOutput>,
    state: State,
    inbox: Inbox,
    outbox: Outbox,
    stage: Stage,
    /// Whether the request at hand asks for the next stage.
    ready: bool,
    /// Fields of the request that awaits its response.
    request: StageFields,
    /// Keys of any stage and of the security stage that have been seen.
    seen: PerKey<bool>,
    peer: Peer,
    security: Security,
    identity: AuthIdentity,
    negotiation: Negotiation,
    offered: bool,
    allocated: Option<KeyValues>,
}

#[derive(Debug)]
enum State {
    /// It is the target's turn.
    Exchange,
    /// The caller allocates; this text then asks for full feature phase.
    Resources(Bytes),
    /// The target has agreed, but to less than was allocated for: the caller allocates anew.
    Plain(LoginResponse<Bytes>),
    Over,
}

/// What the responses tell of the peer.
#[derive(Clone, Default, Debug)]
struct Peer {
    /// Version-max and Version-active of the first response, which count for all.
    versions: Option<(u8, u8)>,
    alias: Option<LocalName>,
    portal_group_tag: Option<u16>,
}

#[derive(Debug)]
enum Security {
    /// Methods are offered.
    Offered,
    Running(Box<dyn Authenticator>),
    Done,
}

impl InitiatorLogin {
    /// A login on a fresh connection. `seed`: 32 fresh bytes of a cryptographic random source, for the CHAP challenge
    /// and nothing else.
    // req: 7143-4.2.4-3, 7143-11.12-1, 7143-6.3-6
    #[must_use]
    pub fn new(config: Arc<InitiatorLoginConfig>, start: LoginStart, seed: [u8; 32], now: Instant) -> Self {
        let session_type = match config.goal {
            SessionGoal::Discovery(_) => SessionType::Discovery,
            SessionGoal::Normal(_) => SessionType::Normal,
        };
        let place = Place { session_type, joined: start.session.as_ref().map(|s| s.session) };
        let secure = !config.auth.methods().is_empty();
        let stage = if secure { Stage::SecurityNegotiation } else { Stage::LoginOperationalNegotiation };
        let mut login = Self {
            inbox: Inbox::new(config.budget),
            deadline: now.checked_add(config.budget.time),
            negotiation: Negotiation::new(Role::Initiator, &config.preferences, place),
            config,
            seed,
            start,
            outputs: VecDeque::new(),
            state: State::Exchange,
            outbox: Outbox::default(),
            stage,
            ready: false,
            request: StageFields { transit: false, continue_text: false, csg: stage, nsg: stage },
            seen: PerKey::filled(false),
            peer: Peer::default(),
            security: if secure { Security::Offered } else { Security::Done },
            identity: AuthIdentity::None,
            offered: false,
            allocated: None,
        };
        if let Err(rule) = login.begin() {
            login.fail(rule);
        }
        login
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<InitiatorOutput> {
        self.outputs.pop_front()
    }

    /// When [`InitiatorLogin::handle_timeout`] is due; `None` once the login is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_ended() { None } else { self.deadline }
    }

    /// Whether `Enable`, `Redirected` or `Failed` has come out of `poll_output`: nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_ended() && self.outputs.is_empty()
    }

    /// Whether the last output is waiting or out.
    const fn has_ended(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes any PDU: what is no Login Response ends the login.
    // req: 7143-4.2.4-2, 7143-4.2.4-7, 7143-11.17.1-2
    pub fn handle_pdu(&mut self, now: Instant, pdu: Pdu<Bytes>) {
        match pdu {
            Pdu::LoginResponse(response) => self.handle_response(now, response),
            other if !self.has_ended() => self.fail(Rule::NotLogin(other.opcode())),
            _ => {}
        }
    }

    /// Takes a Login Response.
    pub fn handle_response(&mut self, now: Instant, response: LoginResponse<Bytes>) {
        if self.has_ended() {
            return;
        }
        if self.deadline.is_some_and(|d| now >= d) {
            return self.handle_timeout(now);
        }
        if let Err(rule) = self.take_response(response) {
            self.fail(rule);
        }
    }

    /// Takes the answer to `Allocate`.
    // req: 7145-3.3-3, 7145-10.1.3.1-5
    pub fn handle_resources(&mut self, granted: bool) {
        match (core::mem::replace(&mut self.state, State::Exchange), granted) {
            (State::Resources(text), true) => self.send(text, false, true),
            (State::Plain(response), true) => self.enable(&response),
            (State::Resources(_) | State::Plain(_), false) => {
                self.allocated = None;
                self.fail(Rule::Resources);
            }
            (state, _) => self.state = state,
        }
    }

    /// Ends the login if its time is up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.has_ended() && self.deadline.is_some_and(|d| now >= d) {
            self.fail(Rule::Timeout);
        }
    }

    // ---- requests ----

    /// The first request: names, and the first text of the first stage.
    // req: 7143-4.2.7.1-4, 7143-6.3-2, 7143-6.3-4, 7143-11.12.10-1, 7143-13.4-1, 7143-13.5-1, 7143-13.7-1, 7143-13.21-2
    fn begin(&mut self) -> Result<(), Rule> {
        let mut text = self.text(usize::MAX);
        text.push(Key::InitiatorName.name(), self.config.initiator_name.as_str())?;
        if let Some(alias) = &self.config.initiator_alias {
            text.push(Key::InitiatorAlias.name(), alias.as_str())?;
        }
        let (session_type, target) = match &self.config.goal {
            SessionGoal::Discovery(target) => ("Discovery", target.as_ref()),
            SessionGoal::Normal(target) => ("Normal", Some(target)),
        };
        if let Some(target) = target {
            text.push(Key::TargetName.name(), target.as_str())?;
        }
        // A session has its type from its first connection. LIO refuses further ones that name it.
        // req: 7143-6.3-3
        if self.start.session.is_none() {
            text.push(Key::SessionType.name(), session_type)?;
        }
        let methods = self.config.auth.methods();
        if methods.is_empty() {
            return self.operate(text);
        }
        text.push(Key::AuthMethod.name(), &method_list(methods))?;
        // With None on offer the stage may be over at once.
        self.ready = methods.contains(&Method::None);
        self.launch(text)
    }

    /// An empty text in answer to one of `received` bytes.
    fn text(&self, received: usize) -> Answer {
        Answer::new(self.config.budget.normalized().answer, received)
    }

    /// The next request of the operational stage: everything at once, and then the end.
    // req: 7143-6.3.3-3, 7143-6.3.3-5
    fn operate(&mut self, mut text: Answer) -> Result<(), Rule> {
        if !core::mem::replace(&mut self.offered, true) {
            self.negotiation.offer_all(&mut text)?;
        }
        self.ready = true;
        self.launch(text)
    }

    fn launch(&mut self, text: Answer) -> Result<(), Rule> {
        self.outbox.load(text.finish()?);
        self.send_next();
        Ok(())
    }

    /// Sends the next part of a text. Resources come before the request that asks for full feature phase, since the
    /// target's first PDUs may follow its answer at once (RFC 7145 section 5.1.1).
    // req: 7143-6.2-1
    fn send_next(&mut self) {
        let (data, more) = self.outbox.next();
        let last = self.ready && !more && self.stage == Stage::LoginOperationalNegotiation;
        if !last || self.allocated.is_some() {
            return self.send(data, more, self.ready && !more);
        }
        let (session, conn) = self.negotiation.prospects();
        let keys = KeyValues { session, conn, agreed: false };
        self.allocated = Some(keys);
        self.state = State::Resources(data);
        self.outputs.push_back(LoginOutput::Allocate(Box::new(keys)));
    }

    // req: 7143-11.12-2, 7143-11.12.4-1, 7143-11.12.4.1-1, 7143-11.12.4.2-1, 7143-11.12.6-1, 7143-11.12.6-2
    // req: 7143-11.12.6-3, 7143-11.12.7-1, 7143-11.12.9-1
    fn send(&mut self, data: Bytes, continue_text: bool, transit: bool) {
        let next = match self.stage {
            Stage::SecurityNegotiation => Stage::LoginOperationalNegotiation,
            _ => Stage::FullFeaturePhase,
        };
        let nsg = if transit { next } else { Stage::default() };
        self.request = StageFields { transit, continue_text, csg: self.stage, nsg };
        self.outputs.push_back(LoginOutput::Send(LoginRequest {
            transit,
            continue_text,
            csg: self.stage,
            nsg,
            version_max: 0,
            version_min: 0,
            isid: self.start.isid,
            tsih: self.tsih(),
            itt: self.start.itt,
            cid: self.start.cid,
            cmd_sn: self.start.cmd_sn,
            exp_stat_sn: self.start.exp_stat_sn,
            data,
        }));
    }

    // ---- responses ----

    fn take_response(&mut self, response: LoginResponse<Bytes>) -> Result<(), Rule> {
        if !matches!(self.state, State::Exchange) {
            return Err(Rule::OneOutstanding);
        }
        let status = LoginStatus { class: response.status_class, detail: response.status_detail };
        if !status.is_success() {
            return self.take_status(status, &response.data);
        }
        self.check_header(&response)?;
        let fields = StageFields {
            transit: response.transit,
            continue_text: response.continue_text,
            csg: response.csg,
            nsg: response.nsg,
        };
        fields.check_response(self.request)?;
        // req: 7143-6.2-2
        if !self.outbox.is_empty() && (!response.data.is_empty() || response.continue_text) {
            return Err(Rule::DataWhileContinuing);
        }
        let whole = self.inbox.take(response.data.clone(), response.continue_text)?;
        if !self.outbox.is_empty() {
            self.send_next();
            return Ok(());
        }
        match whole {
            // req: 7143-6.2-3
            None => {
                self.send(Bytes::new(), false, false);
                Ok(())
            }
            Some((pairs, len)) => self.take_text(pairs, len, &response),
        }
    }

    // req: 7143-11.13.1-2, 7143-11.13.2-2, 7143-11.13.4-1
    fn check_header(&mut self, response: &LoginResponse<Bytes>) -> Result<(), Rule> {
        let versions = (response.version_max, response.version_active);
        if response.itt != self.start.itt || response.isid != self.start.isid {
            return Err(Rule::HeaderChanged);
        }
        match self.peer.versions {
            None if response.version_active != 0 => return Err(Rule::Version),
            None => self.peer.versions = Some(versions),
            Some(first) if first != versions => return Err(Rule::HeaderChanged),
            Some(_) if response.stat_sn != self.start.exp_stat_sn => return Err(Rule::StatSn),
            Some(_) => {}
        }
        self.start.exp_stat_sn = response.stat_sn.next();
        Ok(())
    }

    /// One whole text of the target, in the current stage.
    fn take_text(
        &mut self,
        pairs: Vec<Pair>,
        len: usize,
        response: &LoginResponse<Bytes>,
    ) -> Result<(), Rule> {
        let mut text = self.text(len);
        let is_final = response.transit && response.nsg == Stage::FullFeaturePhase;
        let mut auth = AuthPairs::new();
        let mut method = None;
        for Pair { key, value } in pairs {
            match key {
                // Nothing can be answered any more; what is not understood is not used.
                KeyName::Unknown(_) if is_final => {}
                KeyName::Unknown(name) => text.not_understood(&name, &value)?,
                KeyName::Known(key) => {
                    if !self.negotiation.is_disowned_by(key, &value) {
                        check_use(key, Role::Target, Some(self.stage), self.start.session.is_none())?;
                    }
                    match key.def().stage {
                        StageUse::Any => self.take_introduction(key, &value)?,
                        StageUse::Security => {
                            // CHAP_N and CHAP_R of mutual authentication included, each comes once.
                            self.once(key)?;
                            if key == Key::AuthMethod {
                                method = Some(value)
                            } else {
                                auth.push((key, value.into()))
                            }
                        }
                        StageUse::Operational | StageUse::Never => self.negotiation.receive(key, &value)?,
                    }
                }
            }
        }
        if self.stage == Stage::SecurityNegotiation {
            return self.secure(method.as_deref(), &auth, response.transit, text);
        }
        if response.transit {
            return self.finish(response);
        }
        self.negotiation.settle(&mut text)?;
        // iSER was refused: what was allocated for it goes, the login goes on (RFC 5047, figure 6).
        if !self.negotiation.rdma_possible()
            && self.allocated.is_some_and(|keys| keys.session.rdma_extensions)
        {
            self.allocated = None;
            self.outputs.push_back(LoginOutput::Deallocate);
        }
        self.operate(text)
    }

    // req: 7143-6.3-19
    fn once(&mut self, key: Key) -> Result<(), Rule> {
        if self.seen.of(key) == Some(true) {
            return Err(Rule::Repeated(key));
        }
        self.seen.set(key, true);
        Ok(())
    }

    fn take_introduction(&mut self, key: Key, value: &str) -> Result<(), Rule> {
        let bad = Rule::Value(key);
        match key {
            // An address in a response without redirection says nothing; it may be repeated.
            Key::TargetAddress => return Ok(()),
            Key::TargetAlias => {
                self.once(key)?;
                self.peer.alias = Some(LocalName::new(value).map_err(|_| bad)?);
            }
            Key::TargetPortalGroupTag => {
                self.once(key)?;
                let tag = parse_number(value).ok().and_then(|n| u16::try_from(n).ok()).ok_or(bad)?;
                self.peer.portal_group_tag = Some(tag);
            }
            _ => return Err(Rule::NotAllowedHere(key)),
        }
        match self.config.expected_portal_group_tag {
            Some(expected) if self.peer.portal_group_tag.is_some_and(|tag| tag != expected) => {
                Err(Rule::PortalGroup)
            }
            _ => Ok(()),
        }
    }

    /// Of the session that the connection joins or comes back to; 0 for a new session, or one that is to be reinstated.
    // req: 7143-6.3.4-1, 7143-6.3.5-1
    fn tsih(&self) -> Tsih {
        self.start.session.as_ref().map_or(Tsih::NEW, |s| s.tsih)
    }
}
