//! The login machine of a target; [`crate::InitiatorLogin`] mirrors it.

use crate::{
    access::{AccessDecision, AccessRequest, Denial, Grant},
    auth::{AuthPairs, AuthStep, Authenticator, Method, method_list},
    config::TargetLoginConfig,
    keys::{Key, PerKey, StageUse},
    name::{IscsiName, LocalName},
    negotiate::{Negotiation, Place, check_use},
    output::{KeyValues, LoginOutput, TargetOutput},
    params::{AuthIdentity, LoginFailure, Negotiated, Role, SessionType},
    sendtargets::TargetAddress,
    stage::StageFields,
    status::{LoginStatus, Rule},
    text::{Answer, Inbox, KeyName, LOGIN_SEGMENT, Outbox, Pair},
    value::{is_answer_word, words},
};
use bytes::Bytes;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginRequest, LoginResponse, Pdu, Stage, StatSn, Tsih};
mod end;
mod security;

use std::{collections::VecDeque, sync::Arc, time::Instant};

/// The version of RFC 7143 (section 11.12.4).
const VERSION: u8 = 0;

/// The login phase of one connection at a target.
///
/// ```text
///              first request                  grant
///   Start ──────────────────────▶ Access ───────────────▶ Exchange ◀──────────┐
///                                                            │ │   account    │
///                                                            │ └──▶ Account ──┘
///                                       last request answered │
///                      resources granted                      ▼
///   Over ◀───────────────────────────────────────────── Resources
/// ```
///
/// Calling order: [`TargetLogin::new`]; [`TargetLogin::handle_pdu`] for every PDU that arrives; after each `handle_*`
/// call, [`TargetLogin::poll_output`] until it gives `None`. `NeedAccess`, `NeedSecret` and `Allocate` are answered
/// by `handle_access`, `handle_secret` and `handle_resources`, at once or later. When
/// [`TargetLogin::poll_timeout`] comes, [`TargetLogin::handle_timeout`]. `Enable` or `Failed` is the last output;
/// calls after it do nothing.
#[derive(Debug)]
pub struct TargetLogin {
    config: Arc<TargetLoginConfig>,
    seed: [u8; 32],
    deadline: Option<Instant>,
    outputs: VecDeque<TargetOutput>,
    state: State,
    head: Head,
    inbox: Inbox,
    outbox: Outbox,
    /// Stage that requests must be in; `None` before the first.
    stage: Option<Stage>,
    /// Fields of the request that is to be answered.
    request: StageFields,
    /// Keys of any stage and of the security stage that have been seen.
    seen: PerKey<bool>,
    peer: Peer,
    grant: Option<Box<Grant>>,
    security: Security,
    negotiation: Option<Negotiation>,
    answer: Option<Answer>,
    final_text: Bytes,
    next_stat_sn: StatSn,
    introduced: bool,
    identity: AuthIdentity,
}

#[derive(Debug)]
enum State {
    /// Nothing has come.
    Start,
    /// The first text is kept until the caller has decided.
    Access(Vec<Pair>),
    /// It is the initiator's turn.
    Exchange,
    /// The caller looks an account up.
    #[cfg_attr(not(feature = "_chap"), allow(dead_code))]
    Account,
    /// The caller allocates.
    Resources,
    Over,
}

/// Header fields of the first request, which count for all (RFC 7143 section 11.12).
#[derive(Clone, Copy, Default, Debug)]
struct Head {
    version_max: u8,
    version_min: u8,
    isid: Isid,
    tsih: Tsih,
    itt: Itt,
    cid: Cid,
    cmd_sn: CmdSn,
}

impl Head {
    fn of(request: &LoginRequest<Bytes>) -> Self {
        Self {
            version_max: request.version_max,
            version_min: request.version_min,
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            cid: request.cid,
            cmd_sn: request.cmd_sn,
        }
    }

    // req: 7143-11.12-2, 7143-11.12.4.1-2, 7143-11.12.4.2-2, 7143-11.12.6-3, 7143-11.12.7-2
    fn same_login(&self, request: &LoginRequest<Bytes>) -> bool {
        let other = Self::of(request);
        (self.version_max, self.version_min, self.isid, self.tsih, self.itt, self.cid)
            == (other.version_max, other.version_min, other.isid, other.tsih, other.itt, other.cid)
    }
}

/// What the first text tells of the peer.
#[derive(Clone, Default, Debug)]
struct Peer {
    name: Option<IscsiName>,
    alias: Option<LocalName>,
    target: Option<IscsiName>,
    session_type: SessionType,
}

#[derive(Debug)]
enum Security {
    /// No method is chosen yet.
    Open,
    /// This end has proposed methods.
    Proposed,
    Running(Box<dyn Authenticator>),
    Done,
}

impl TargetLogin {
    /// A login on a connection that has just been accepted. `seed`: 32 fresh bytes of a cryptographic random source,
    /// for the CHAP challenge and nothing else.
    #[must_use]
    pub fn new(config: Arc<TargetLoginConfig>, seed: [u8; 32], now: Instant) -> Self {
        Self {
            inbox: Inbox::new(config.budget),
            deadline: now.checked_add(config.budget.time),
            config,
            seed,
            outputs: VecDeque::new(),
            state: State::Start,
            head: Head::default(),
            outbox: Outbox::default(),
            stage: None,
            request: StageFields {
                transit: false,
                continue_text: false,
                csg: Stage::SecurityNegotiation,
                nsg: Stage::SecurityNegotiation,
            },
            seen: PerKey::filled(false),
            peer: Peer::default(),
            grant: None,
            security: Security::Open,
            negotiation: None,
            answer: None,
            final_text: Bytes::new(),
            // req: 7143-4.2.2.2-5
            next_stat_sn: StatSn(0),
            introduced: false,
            identity: AuthIdentity::None,
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<TargetOutput> {
        self.outputs.pop_front()
    }

    /// When [`TargetLogin::handle_timeout`] is due; `None` once the login is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_ended() { None } else { self.deadline }
    }

    /// Whether `Enable` or `Failed` has come out of `poll_output`: nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.has_ended() && self.outputs.is_empty()
    }

    /// Whether the last output is waiting or out.
    const fn has_ended(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes any PDU: what is no Login Request ends the login.
    // req: 7143-4.2.4-2, 7143-4.2.4-5, 7143-4.2.4-6
    pub fn handle_pdu(&mut self, now: Instant, pdu: Pdu<Bytes>) {
        match pdu {
            Pdu::LoginRequest(request) => self.handle_request(now, request),
            other if !self.has_ended() => self.fail(Rule::NotLogin(other.opcode())),
            _ => {}
        }
    }

    /// What the link brought is nothing that [`handle_pdu`](Self::handle_pdu) takes: [`Rule::NotLogin`], or
    /// [`Rule::Malformed`] for a login PDU that cannot be decoded. The login ends, with a Login Response once it had
    /// begun.
    // req: 7143-4.2.4-5, 7143-4.2.4-6
    pub fn handle_invalid(&mut self, rule: Rule) {
        if !self.has_ended() {
            self.fail(rule);
        }
    }

    /// Takes a Login Request.
    // req: 7143-4.2.4-4
    pub fn handle_request(&mut self, now: Instant, request: LoginRequest<Bytes>) {
        if self.has_ended() {
            return;
        }
        if self.deadline.is_some_and(|d| now >= d) {
            return self.handle_timeout(now);
        }
        if let Err(rule) = self.take_request(request) {
            self.fail(rule);
        }
    }

    /// Takes the caller's decision on `NeedAccess`.
    pub fn handle_access(&mut self, decision: AccessDecision) {
        if !matches!(self.state, State::Access(_)) {
            return;
        }
        let State::Access(pairs) = core::mem::replace(&mut self.state, State::Exchange) else { return };
        let result = match decision {
            AccessDecision::Grant(grant) => self.admit(grant).and_then(|()| self.take_text(pairs)),
            AccessDecision::Deny(denial) => return self.refuse(Rule::Access, denial.status(), Bytes::new()),
            AccessDecision::Redirect { addresses, permanently } => {
                return self.redirect(&addresses, permanently);
            }
        };
        if let Err(rule) = result {
            self.fail(rule);
        }
    }

    /// Takes the account that `NeedSecret` asked for, `None` if there is none.
    #[cfg(feature = "_chap")]
    pub fn handle_secret(&mut self, account: Option<crate::auth::ChapAccount>) {
        if !matches!(self.state, State::Account) {
            return;
        }
        self.state = State::Exchange;
        let name = self.peer.name.clone();
        let step = match (&mut self.security, name) {
            (Security::Running(method), Some(name)) => method.supply(account.as_ref(), &name),
            _ => Err(Rule::AuthStep),
        };
        let result = step.and_then(|step| self.take_step(step)).and_then(|()| self.respond());
        if let Err(rule) = result {
            self.fail(rule);
        }
    }

    /// Takes the answer to `Allocate`: the session's TSIH (a new one, not 0, on a leading connection; that of the
    /// session on others), or `None` if there are no resources.
    // req: 7145-3.3-3, 7145-10.1.3.1-5
    pub fn handle_resources(&mut self, granted: Option<Tsih>) {
        if !matches!(self.state, State::Resources) {
            return;
        }
        let result = match granted {
            Some(tsih) if tsih != Tsih::NEW => self.enable(tsih),
            Some(_) | None => Err(Rule::Resources),
        };
        if let Err(rule) = result {
            self.fail(rule);
        }
    }

    /// Takes the answer to `Allocate` when the login has to fail for another reason than resources: the session that it
    /// joins has ended meanwhile, or has as many connections as it may have.
    pub fn handle_refusal(&mut self, denial: Denial) {
        if matches!(self.state, State::Resources) {
            self.refuse(Rule::Access, denial.status(), Bytes::new());
        }
    }

    /// Ends the login if its time is up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.has_ended() || self.deadline.is_none_or(|d| now < d) {
            return;
        }
        // An initiator that waits for us learns that it may come again; one that keeps us waiting gets nothing.
        match self.state {
            State::Access(_) | State::Account | State::Resources => {
                self.refuse(Rule::Timeout, LoginStatus::SERVICE_UNAVAILABLE, Bytes::new());
            }
            State::Start | State::Exchange | State::Over => self.end(Rule::Timeout, None),
        }
    }

    // ---- requests ----

    fn take_request(&mut self, request: LoginRequest<Bytes>) -> Result<(), Rule> {
        match self.state {
            State::Start => self.take_head(&request)?,
            State::Exchange if self.head.same_login(&request) => {}
            State::Exchange => return Err(Rule::HeaderChanged),
            // req: 7143-6.3-1, 7143-6.2-5
            State::Access(_) | State::Account | State::Resources | State::Over => {
                return Err(Rule::OneOutstanding);
            }
        }
        let fields = StageFields {
            transit: request.transit,
            continue_text: request.continue_text,
            csg: request.csg,
            nsg: request.nsg,
        };
        fields.check_request(self.stage)?;
        self.stage = Some(fields.csg);
        self.request = fields;
        // req: 7143-6.2-3
        if !self.outbox.is_empty() && (!request.data.is_empty() || request.continue_text) {
            return Err(Rule::DataWhileContinuing);
        }
        let whole = self.inbox.take(request.data, request.continue_text)?;
        if !self.outbox.is_empty() {
            return self.send_next();
        }
        match whole {
            // req: 7143-6.2-2
            None => {
                self.send(Bytes::new(), false, None);
                Ok(())
            }
            Some((pairs, len)) => {
                self.answer = Some(Answer::new(self.config.budget.normalized().answer, len));
                if self.grant.is_none() { self.identify(pairs) } else { self.take_text(pairs) }
            }
        }
    }

    /// From here on the initiator is owed an answer, if only a refusal.
    // req: 7143-11.12.4-2
    fn take_head(&mut self, request: &LoginRequest<Bytes>) -> Result<(), Rule> {
        self.head = Head::of(request);
        self.state = State::Exchange;
        if (self.head.version_min..=self.head.version_max).contains(&VERSION) {
            Ok(())
        } else {
            Err(Rule::Version)
        }
    }

    /// The first text: who is it, and whom does it want?
    // req: 7143-6.3-2, 7143-6.3-3, 7143-6.3-4, 7143-6.3-5, 7143-4.2.7.1-4, 7143-4.2.7.1-5, 7143-13.4-1, 7143-13.5-1
    fn identify(&mut self, pairs: Vec<Pair>) -> Result<(), Rule> {
        for pair in &pairs {
            match pair.key {
                KeyName::Known(key) if key.def().stage == StageUse::Any => {
                    self.take_identity(key, &pair.value)?
                }
                KeyName::Known(_) | KeyName::Unknown(_) => {}
            }
        }
        let name = self.peer.name.clone().ok_or(Rule::Missing(Key::InitiatorName))?;
        if self.peer.session_type == SessionType::Normal && self.peer.target.is_none() {
            return Err(Rule::Missing(Key::TargetName));
        }
        self.outputs.push_back(LoginOutput::NeedAccess(Box::new(AccessRequest {
            initiator_name: name,
            target_name: self.peer.target.clone(),
            session_type: self.peer.session_type,
            isid: self.head.isid,
            tsih: self.head.tsih,
            cid: self.head.cid,
        })));
        self.state = State::Access(pairs);
        Ok(())
    }

    // req: 7143-6.3-17, 7143-6.3-18, 7143-13.4-2, 7143-13.5-2, 7143-13.9-1
    fn take_identity(&mut self, key: Key, value: &str) -> Result<(), Rule> {
        check_use(key, Role::Initiator, self.stage, self.leading())?;
        self.once(key)?;
        let bad = Rule::Value(key);
        match key {
            Key::InitiatorName => self.peer.name = Some(IscsiName::new(value).map_err(|_| bad)?),
            Key::TargetName => self.peer.target = Some(IscsiName::new(value).map_err(|_| bad)?),
            Key::InitiatorAlias => self.peer.alias = Some(LocalName::new(value).map_err(|_| bad)?),
            // req: 7143-13.21-3
            Key::SessionType => {
                self.peer.session_type = match value {
                    "Normal" => SessionType::Normal,
                    "Discovery" if self.leading() => SessionType::Discovery,
                    _ => return Err(bad),
                }
            }
            _ => return Err(Rule::NotAllowedHere(key)),
        }
        Ok(())
    }

    fn once(&mut self, key: Key) -> Result<(), Rule> {
        if self.seen.of(key) == Some(true) {
            return Err(Rule::Repeated(key));
        }
        self.seen.set(key, true);
        Ok(())
    }

    /// Access is granted: negotiation may begin.
    // req: 7143-6.3.1-4, 7143-11.12.6-4, 7145-5.1-5
    fn admit(&mut self, mut grant: Box<Grant>) -> Result<(), Rule> {
        let joins = self.head.tsih != Tsih::NEW;
        if !joins {
            grant.session = None;
        }
        let session = grant.session.as_ref().filter(|s| s.tsih == self.head.tsih);
        if joins && session.is_none() {
            self.refuse(Rule::Access, LoginStatus::SESSION_DOES_NOT_EXIST, Bytes::new());
            return Ok(());
        }
        let place = Place { session_type: self.peer.session_type, joined: session.map(|s| s.session) };
        let preferences = grant.preferences.as_ref().unwrap_or(&self.config.preferences);
        self.negotiation = Some(Negotiation::new(Role::Target, preferences, place));
        let skips = self.stage == Some(Stage::LoginOperationalNegotiation) && !grant.auth.allows_none();
        self.grant = Some(grant);
        if skips { Err(Rule::AuthRequired) } else { Ok(()) }
    }

    // ---- texts ----

    /// One whole text of the initiator, in the current stage.
    fn take_text(&mut self, pairs: Vec<Pair>) -> Result<(), Rule> {
        if self.has_ended() {
            return Ok(());
        }
        let first = !self.introduced;
        let mut auth = AuthPairs::new();
        let mut method = None;
        for Pair { key, value } in pairs {
            match key {
                KeyName::Unknown(name) => self.answer_mut()?.not_understood(&name, &value)?,
                KeyName::Known(key) => {
                    check_use(key, Role::Initiator, self.stage, self.leading())?;
                    match key.def().stage {
                        StageUse::Any if first => {}
                        StageUse::Any => self.take_identity(key, &value)?,
                        StageUse::Security => {
                            self.once(key)?;
                            if key == Key::AuthMethod {
                                method = Some(value)
                            } else {
                                auth.push((key, value.into()))
                            }
                        }
                        StageUse::Operational | StageUse::Never => {
                            self.negotiate_mut()?.receive(key, &value)?
                        }
                    }
                }
            }
        }
        match self.stage {
            Some(Stage::SecurityNegotiation) => self.secure(method.as_deref(), &auth)?,
            _ => self.operate()?,
        }
        if matches!(self.state, State::Account) { Ok(()) } else { self.respond() }
    }

    /// The operational stage.
    fn operate(&mut self) -> Result<(), Rule> {
        let finished = self.request.transit;
        let mut answer = self.answer.take().ok_or(Rule::OneOutstanding)?;
        let negotiation = self.negotiate_mut()?;
        negotiation.settle(&mut answer)?;
        if finished {
            negotiation.close()?;
        }
        negotiation.offer_needed(finished, &mut answer)?;
        self.answer = Some(answer);
        Ok(())
    }

    // ---- responses ----

    /// Answers the request at hand.
    fn respond(&mut self) -> Result<(), Rule> {
        self.introduce()?;
        let text = self.answer.take().ok_or(Rule::OneOutstanding)?.finish()?;
        self.outbox.load(text);
        self.send_next()
    }

    /// Sends the next part of the answer; with the last part the stage may end, if the initiator wants it to and
    /// nothing of ours is open.
    // req: 7143-6.3-14, 7143-11.13.6-1, 7143-11.13.6-2, 7143-6.3.3-4, 7143-6.2-1
    fn send_next(&mut self) -> Result<(), Rule> {
        let (data, more) = self.outbox.next();
        let open = match self.stage {
            Some(Stage::SecurityNegotiation) => !matches!(self.security, Security::Done),
            _ => self.negotiate_mut()?.open_offer().is_some(),
        };
        if more || open || !self.request.transit {
            self.send(data, more, None);
            return Ok(());
        }
        let next = self.next_stage()?;
        if next == Stage::FullFeaturePhase {
            return self.allocate(data);
        }
        self.send(data, false, Some(next));
        self.stage = Some(next);
        Ok(())
    }

    /// What the initiator asks for, but not past an operational stage that this end needs.
    // req: 7143-6.3-12
    fn next_stage(&mut self) -> Result<Stage, Rule> {
        let needs_stage =
            self.stage == Some(Stage::SecurityNegotiation) && self.negotiate_mut()?.needs_offers();
        Ok(if needs_stage { Stage::LoginOperationalNegotiation } else { self.request.nsg })
    }

    /// TargetPortalGroupTag and TargetAlias, in the first response that may have them.
    // req: 7143-6.3.1-1, 7143-11.13.8-1, 7143-13.6-1
    fn introduce(&mut self) -> Result<(), Rule> {
        if core::mem::replace(&mut self.introduced, true) {
            return Ok(());
        }
        let Some(grant) = &self.grant else { return Ok(()) };
        let normal = self.peer.session_type == SessionType::Normal;
        let alias = grant.alias.clone().filter(|_| normal);
        let tag = grant.portal_group_tag;
        let answer = self.answer_mut()?;
        if let Some(tag) = tag {
            answer.push(Key::TargetPortalGroupTag.name(), &tag.to_string())?;
        }
        match alias {
            Some(alias) => answer.push(Key::TargetAlias.name(), alias.as_str()),
            None => Ok(()),
        }
    }

    /// A response with Status-Class 0; `next` sets the T bit.
    // req: 7143-11.13.1-1, 7143-11.13.2-1, 7143-11.13.4-1
    fn response(&self, data: Bytes, continue_text: bool, next: Option<Stage>) -> LoginResponse<Bytes> {
        let (exp_cmd_sn, max_cmd_sn) = self.window();
        LoginResponse {
            transit: next.is_some(),
            continue_text,
            csg: self.request.csg,
            nsg: next.unwrap_or_default(),
            version_max: VERSION,
            version_active: VERSION,
            isid: self.head.isid,
            tsih: self.head.tsih,
            itt: self.head.itt,
            stat_sn: self.next_stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status_class: 0,
            status_detail: 0,
            data,
        }
    }

    fn window(&self) -> (CmdSn, CmdSn) {
        match self.grant.as_ref().and_then(|g| g.session.as_ref()) {
            Some(session) => (session.exp_cmd_sn, session.max_cmd_sn),
            None => {
                let last = self.config.command_window.max(1).saturating_sub(1);
                (self.head.cmd_sn, self.head.cmd_sn.advance(last))
            }
        }
    }

    fn send(&mut self, data: Bytes, continue_text: bool, next: Option<Stage>) {
        let response = self.response(data, continue_text, next);
        self.next_stat_sn = self.next_stat_sn.next();
        self.outputs.push_back(LoginOutput::Send(response));
    }

    // ---- small things ----

    fn leading(&self) -> bool {
        self.head.tsih == Tsih::NEW
    }

    fn answer_mut(&mut self) -> Result<&mut Answer, Rule> {
        self.answer.as_mut().ok_or(Rule::OneOutstanding)
    }

    fn negotiate_mut(&mut self) -> Result<&mut Negotiation, Rule> {
        self.negotiation.as_mut().ok_or(Rule::OneOutstanding)
    }
}
