//! Operational negotiation at one end: what it proposes, how it answers, what comes of it (RFC 7143 sections 6.2, 13).
//!
//! A batch of received keys is first taken down ([`Negotiation::receive`]), then settled in the order of the key table
//! ([`Negotiation::settle`]), so that the answers do not depend on the order in which the peer wrote its keys.
//!
//! ```text
//!   proposer   key=value        ->   receive: admissible?
//!              <-  key=answer        settle:  irrelevant? else wish and result function
//!   receive: does the answer fit the result function and the offer?
//! ```

use crate::{
    config::{Preferences, RdmaPolicy},
    keys::{
        DefaultValue, Irrelevant, Key, Origin, PerKey, ResultFunction, Senders, StageUse, Usage, ValueType,
    },
    params::{ConnParams, Digest, Role, SessionParams, SessionType, TaskReporting},
    status::Rule,
    text::Answer,
    value::{
        IRRELEVANT, NOT_UNDERSTOOD, REJECT, boolean_text, is_answer_word, parse_boolean, parse_number, words,
    },
};
use iscsi_pdu::Stage;

/// Whether `sender` may use `key` in this `stage` (`None`: full feature phase) of a leading or further connection.
// req: 7143-6.3-11, 7143-6.3.3-6, 7143-13-1, 7143-13-2, 7143-12-1, 7143-6.3-10, 7145-5.1-2, 7145-5.1-8
pub(crate) fn check_use(key: Key, sender: Role, stage: Option<Stage>, leading: bool) -> Result<(), Rule> {
    let def = key.def();
    let by = match def.senders {
        Senders::Both => true,
        Senders::Initiator => sender == Role::Initiator,
        Senders::Target => sender == Role::Target,
    };
    let here = match stage {
        None => matches!(def.usage, Usage::All | Usage::Ffpo),
        Some(stage) => {
            let stage_fits = match def.stage {
                StageUse::Any => true,
                StageUse::Security => stage == Stage::SecurityNegotiation,
                StageUse::Operational => stage == Stage::LoginOperationalNegotiation,
                StageUse::Never => false,
            };
            // Initiators say SessionType on every connection; harmless, as long as it is the same.
            stage_fits && (leading || def.usage != Usage::Lo || key == Key::SessionType)
        }
    };
    if by && here { Ok(()) } else { Err(Rule::NotAllowedHere(key)) }
}

/// An agreed or declared value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Bool(bool),
    Number(u32),
    Word(&'static str),
}

impl Value {
    fn text(self) -> String {
        match self {
            Self::Bool(b) => boolean_text(b).into(),
            Self::Number(n) => n.to_string(),
            Self::Word(w) => w.into(),
        }
    }
}

/// What this end would choose.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wish {
    Bool(bool),
    Number(u32),
    Words(Vec<&'static str>),
}

impl Wish {
    fn text(&self) -> String {
        match self {
            Self::Bool(b) => boolean_text(*b).into(),
            Self::Number(n) => n.to_string(),
            Self::Words(w) => w.join(","),
        }
    }
}

/// A proposal that awaits its answer.
#[derive(Clone, Debug)]
enum Proposal {
    Value(Value),
    List(Box<str>),
    Inadmissible,
}

#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    /// This end has proposed or declared the key.
    offered: bool,
    /// The peer has proposed, declared or answered it.
    seen: bool,
    /// The peer has said Irrelevant, Reject or NotUnderstood to a declaration of this end.
    disowned: bool,
    /// The negotiation of the key is over.
    settled: bool,
    /// What was agreed, or declared by the peer; `None`: the default stays.
    value: Option<Value>,
}

/// Where the negotiation takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) session_type: SessionType,
    /// Parameters of the session that the connection joins; `None` on a leading connection.
    pub(crate) joined: Option<SessionParams>,
}

/// The state of operational negotiation at one end.
#[derive(Clone, Debug)]
pub(crate) struct Negotiation {
    role: Role,
    wants: Preferences,
    place: Place,
    slots: PerKey<Slot>,
    pending: Vec<(Key, Proposal)>,
    /// Texts settled so far.
    texts: u16,
    peer_architecture: Option<crate::name::LocalName>,
}

impl Negotiation {
    pub(crate) fn new(role: Role, wants: &Preferences, place: Place) -> Self {
        Self {
            role,
            wants: wants.normalized(),
            place,
            slots: PerKey::filled(Slot::default()),
            pending: Vec::new(),
            texts: 0,
            peer_architecture: None,
        }
    }

    fn slot(&self, key: Key) -> Slot {
        self.slots.of(key).unwrap_or_default()
    }

    fn discovery(&self) -> bool {
        self.place.session_type == SessionType::Discovery
    }

    fn leading(&self) -> bool {
        self.place.joined.is_none()
    }

    /// The value in force: the agreed one, else the default.
    fn current(&self, key: Key) -> Value {
        self.slot(key).value.unwrap_or(match key.def().default {
            DefaultValue::Boolean(b) => Value::Bool(b),
            DefaultValue::Number(n) => Value::Number(n),
            DefaultValue::Word(w) => Value::Word(w),
            DefaultValue::Absent => Value::Number(0),
        })
    }

    fn number(&self, key: Key) -> u32 {
        match self.current(key) {
            Value::Number(n) => n,
            Value::Bool(_) | Value::Word(_) => 0,
        }
    }

    fn yes(&self, key: Key) -> bool {
        self.current(key) == Value::Bool(true)
    }

    /// Whether the session is iSER-assisted as far as agreed.
    // req: 7145-3.3-1, 7145-3.3-2, 7145-5.1-7, 7145-6.3-1
    pub(crate) fn rdma(&self) -> bool {
        match self.place.joined {
            Some(session) => session.rdma_extensions,
            None => self.yes(Key::RdmaExtensions),
        }
    }

    /// Whether iSER may still come of it: agreed, or offered and not yet answered.
    pub(crate) fn rdma_possible(&self) -> bool {
        let slot = self.slot(Key::RdmaExtensions);
        self.rdma() || (slot.offered && !slot.settled)
    }

    fn irrelevant(&self, key: Key) -> bool {
        key.def().irrelevant.iter().any(|condition| match condition {
            Irrelevant::Discovery => self.discovery(),
            Irrelevant::NoUnsolicitedData => self.yes(Key::InitialR2t) && !self.yes(Key::ImmediateData),
            Irrelevant::WithRdma => self.rdma(),
            Irrelevant::WithoutRdma => !self.rdma(),
        })
    }

    /// What this end would choose for a negotiated key, rules between keys included (RFC 7143 sections 13.14, 13.19,
    /// 7.4.1).
    // req: 7143-6.2-20, 7143-6.2-25, 7143-13.14-1, 7143-13.19-2, 7143-13.21-1, 7143-7.4.1-1, 7143-7.1.5-2
    fn wish(&self, key: Key) -> Wish {
        let w = &self.wants;
        let one_r2t = |erl: u32| erl > 0 && self.yes(Key::DataSequenceInOrder);
        match key {
            Key::RdmaExtensions => Wish::Bool(w.rdma_extensions != RdmaPolicy::Never && !self.discovery()),
            Key::InitialR2t => Wish::Bool(w.initial_r2t),
            Key::ImmediateData => Wish::Bool(w.immediate_data),
            Key::DataPduInOrder => Wish::Bool(w.data_pdu_in_order),
            Key::DataSequenceInOrder => Wish::Bool(w.data_sequence_in_order),
            Key::MaxBurstLength => Wish::Number(w.max_burst_length),
            Key::FirstBurstLength => {
                Wish::Number(w.first_burst_length.min(self.offered_or_current(Key::MaxBurstLength)))
            }
            Key::ErrorRecoveryLevel => {
                let settled_r2ts = self.slot(Key::MaxOutstandingR2t).settled && {
                    self.number(Key::MaxOutstandingR2t) > 1 && self.yes(Key::DataSequenceInOrder)
                };
                let level = if self.discovery() || settled_r2ts { 0 } else { w.error_recovery_level };
                Wish::Number(level.into())
            }
            Key::MaxOutstandingR2t => {
                let one = one_r2t(self.number(Key::ErrorRecoveryLevel));
                Wish::Number(if one { 1 } else { w.max_outstanding_r2t.into() })
            }
            Key::DefaultTime2Wait => Wish::Number(w.default_time2wait.into()),
            Key::DefaultTime2Retain => Wish::Number(w.default_time2retain.into()),
            Key::MaxConnections => Wish::Number(w.max_connections.into()),
            Key::IscsiProtocolLevel => Wish::Number(w.iscsi_protocol_level.into()),
            Key::InitiatorRecvDataSegmentLength => Wish::Number(w.initiator_recv_data_segment_length),
            Key::TargetRecvDataSegmentLength => Wish::Number(w.target_recv_data_segment_length),
            Key::HeaderDigest => {
                Wish::Words(w.header_digest.values().iter().map(|d| digest_word(*d)).collect())
            }
            Key::DataDigest => Wish::Words(w.data_digest.values().iter().map(|d| digest_word(*d)).collect()),
            _ => Wish::Words(self.task_reporting()),
        }
    }

    /// MaxBurstLength as this end would have it while its own offer is open, else as it stands.
    fn offered_or_current(&self, key: Key) -> u32 {
        let slot = self.slot(key);
        if slot.offered && !slot.settled { self.wants.max_burst_length } else { self.number(key) }
    }

    // req: 7143-13.23-2
    fn task_reporting(&self) -> Vec<&'static str> {
        let mut list: Vec<_> = self.wants.task_reporting.iter().map(|t| task_reporting_word(*t)).collect();
        for must in [TaskReporting::ResponseFence, TaskReporting::Rfc3720].map(task_reporting_word) {
            let wanted = self.role == Role::Initiator || must == "RFC3720";
            if wanted && !list.contains(&must) {
                list.push(must);
            }
        }
        list
    }

    /// Whether this end can live with `value` for a key that it does not get to choose.
    fn accepts(&self, key: Key, value: Value) -> bool {
        match (key.def().result, self.wish(key), value) {
            (ResultFunction::Minimum, Wish::Number(wish), Value::Number(n)) => n <= wish,
            (ResultFunction::Maximum, Wish::Number(wish), Value::Number(n)) => n >= wish,
            (ResultFunction::And, Wish::Bool(wish), Value::Bool(b)) => wish || !b,
            (ResultFunction::Or, Wish::Bool(wish), Value::Bool(b)) => !wish || b,
            (ResultFunction::First, Wish::Words(list), Value::Word(w)) => list.contains(&w),
            _ => true,
        }
    }

    // ---- receiving ----

    /// Takes down one key of the peer, whose use [`check_use`] has admitted.
    ///
    /// # Errors
    /// The violated rule. The negotiation is then lost.
    pub(crate) fn receive(&mut self, key: Key, text: &str) -> Result<(), Rule> {
        let slot = self.slot(key);
        let declared = key.def().result == ResultFunction::Declared;
        if declared && slot.offered && is_answer_word(text) {
            return self.disown(key, text);
        }
        // req: 7143-6.3-17, 7143-13.26.1-2
        if slot.seen {
            return Err(Rule::Repeated(key));
        }
        // req: 7145-5.1-6, 7145-6.3-3
        if key == Key::RdmaExtensions && !slot.offered && self.texts > 0 {
            return Err(Rule::NotAllowedHere(key));
        }
        let mut slot = Slot { seen: true, ..slot };
        if declared {
            slot.value = self.declared(key, text)?;
            slot.settled = true;
            self.slots.set(key, slot);
        } else if slot.offered {
            slot.value = self.answered(key, text)?;
            slot.settled = true;
            self.slots.set(key, slot);
        } else {
            let proposal = proposal(key, text)?;
            self.slots.set(key, slot);
            self.pending.push((key, proposal));
        }
        Ok(())
    }

    /// The peer has no use for what this end declared.
    // req: 7143-6.2-9, 7143-6.2-11, 7143-6.2-12, 7143-13.26.2-6
    fn disown(&mut self, key: Key, text: &str) -> Result<(), Rule> {
        let slot = self.slot(key);
        if slot.disowned {
            return Err(Rule::Repeated(key));
        }
        match text {
            NOT_UNDERSTOOD if key.def().origin == Origin::Rfc7143 => return Err(Rule::NotUnderstood(key)),
            REJECT => return Err(Rule::Answer(key)),
            _ => {}
        }
        self.slots.set(key, Slot { disowned: true, ..slot });
        Ok(())
    }

    fn declared(&mut self, key: Key, text: &str) -> Result<Option<Value>, Rule> {
        if is_answer_word(text) {
            return Err(Rule::ReservedWord);
        }
        if key == Key::NodeArchitecture {
            // req: 7143-13.26.1-1, 7143-13.26.2-1, 7143-13.26.2-2, 7143-13.26.2-5
            let name = crate::name::LocalName::new(text).map_err(|_| Rule::Value(key))?;
            self.peer_architecture = Some(name);
            return Ok(None);
        }
        admissible(key, text).map(Some).ok_or(Rule::Value(key))
    }

    /// The answer to an offer of this end.
    // req: 7143-6.2.1-4, 7143-6.2.2-7, 7143-13-3, 7143-6.2-14, 7143-6.2-15, 7143-6.2-24
    fn answered(&self, key: Key, text: &str) -> Result<Option<Value>, Rule> {
        let default = Self::current(self, key);
        match text {
            NOT_UNDERSTOOD if key.def().origin == Origin::Rfc7143 => Err(Rule::NotUnderstood(key)),
            NOT_UNDERSTOOD | IRRELEVANT => Ok(None),
            REJECT if self.accepts(key, default) => Ok(None),
            REJECT => Err(Rule::Answer(key)),
            text => {
                let value = admissible(key, text).ok_or(Rule::Answer(key))?;
                if self.accepts(key, value) { Ok(Some(value)) } else { Err(Rule::Answer(key)) }
            }
        }
    }

    // ---- answering ----

    /// Answers everything that [`Negotiation::receive`] has taken down.
    // req: 7143-6.2.2-1, 7143-6.2-6, 7143-13-4, 7145-6.3-5, 7145-6.3-6
    pub(crate) fn settle(&mut self, answer: &mut Answer) -> Result<(), Rule> {
        self.texts = self.texts.saturating_add(1);
        let mut pending = core::mem::take(&mut self.pending);
        pending.sort_by_key(|(key, _)| *key);
        for (key, proposal) in pending {
            let value = self.decide(key, &proposal);
            let text = match value {
                Ok(value) => value.text(),
                Err(word) => word.into(),
            };
            answer.push(key.name(), &text)?;
            self.slots.set(key, Slot { settled: true, value: value.ok(), ..self.slot(key) });
        }
        Ok(())
    }

    /// The answer to one proposal: a value, or the word Reject or Irrelevant.
    // req: 7143-6.2.1-1, 7143-6.2.1-2, 7143-6.2.2-2, 7143-6.2.2-3, 7143-6.2.2-5
    fn decide(&self, key: Key, proposal: &Proposal) -> Result<Value, &'static str> {
        // req: 7143-13.25-1, 7143-13.25-3, 7143-13.25-4, 7143-13.25-5, 7145-6.6-1
        if key.def().result == ResultFunction::Refused {
            return Err(REJECT);
        }
        if self.irrelevant(key) {
            // req: 7145-5.1-9, 7145-6.1-1, 7145-5.1-5
            return match proposal {
                Proposal::List(list) if self.rdma() && words(list).any(|w| w == "None") => {
                    Ok(Value::Word("None"))
                }
                _ => Err(IRRELEVANT),
            };
        }
        let value = match (key.def().result, self.wish(key), proposal) {
            (ResultFunction::Minimum, Wish::Number(wish), Proposal::Value(Value::Number(n))) => {
                Value::Number(wish.min(*n))
            }
            (ResultFunction::Maximum, Wish::Number(wish), Proposal::Value(Value::Number(n))) => {
                Value::Number(wish.max(*n))
            }
            (ResultFunction::And, Wish::Bool(wish), Proposal::Value(Value::Bool(b))) => {
                Value::Bool(wish && *b)
            }
            (ResultFunction::Or, Wish::Bool(wish), Proposal::Value(Value::Bool(b))) => {
                Value::Bool(wish || *b)
            }
            (ResultFunction::First, Wish::Words(mine), Proposal::List(list)) => words(list)
                .find_map(|w| mine.iter().find(|m| **m == w))
                .map(|w| Value::Word(w))
                .ok_or(REJECT)?,
            _ => return Err(REJECT),
        };
        // A burst shorter than the first burst agreed on before cannot be had any more: the value in force stays.
        let first = self.slot(Key::FirstBurstLength);
        match value {
            Value::Number(n)
                if key == Key::MaxBurstLength && first.settled && n < self.number(Key::FirstBurstLength) =>
            {
                Err(REJECT)
            }
            value => Ok(value),
        }
    }

    // ---- offering ----

    /// An initiator's offers and declarations: the full set at once, so that no target has to ask.
    // req: 7143-6.3.3-1, 7145-5.1-6, 7145-6.3-3, 7143-13.22-2
    pub(crate) fn offer_all(&mut self, text: &mut Answer) -> Result<(), Rule> {
        for key in Key::ALL.iter().copied() {
            if !self.initiator_offers(key) {
                continue;
            }
            let value = match key.def().result {
                ResultFunction::Declared => self.declaration(key),
                _ => Some(self.wish(key).text()),
            };
            if let Some(value) = value {
                self.offer(key, &value, text)?;
            }
        }
        Ok(())
    }

    fn offer(&mut self, key: Key, value: &str, text: &mut Answer) -> Result<(), Rule> {
        text.push(key.name(), value)?;
        self.slots.set(key, Slot { offered: true, ..self.slot(key) });
        Ok(())
    }

    fn initiator_offers(&self, key: Key) -> bool {
        let rdma = match self.place.joined {
            Some(session) => session.rdma_extensions,
            None => self.wants.rdma_extensions != RdmaPolicy::Never && !self.discovery(),
        };
        let iser_only = match self.place.joined {
            Some(session) => session.rdma_extensions,
            None => rdma && self.wants.rdma_extensions == RdmaPolicy::Require,
        };
        let here =
            check_use(key, self.role, Some(Stage::LoginOperationalNegotiation), self.leading()).is_ok();
        let relevant = key.def().irrelevant.iter().all(|condition| match condition {
            Irrelevant::Discovery => !self.discovery(),
            Irrelevant::WithoutRdma => rdma,
            Irrelevant::WithRdma => !iser_only,
            Irrelevant::NoUnsolicitedData => true,
        });
        let wanted = match key {
            Key::RdmaExtensions => rdma,
            Key::TaskReporting => !self.wants.task_reporting.is_empty(),
            Key::IscsiProtocolLevel => self.wants.iscsi_protocol_level > 1,
            Key::MaxRecvDataSegmentLength => !iser_only,
            _ => key.def().stage == StageUse::Operational && key.def().result != ResultFunction::Refused,
        };
        here && relevant && wanted
    }

    /// What this end declares for a declarative key, if anything.
    fn declaration(&self, key: Key) -> Option<String> {
        let number = |n: Option<u32>| n.map(|n| n.to_string());
        let boolean = |b: Option<bool>| b.map(|b| boolean_text(b).to_owned());
        match key {
            Key::MaxRecvDataSegmentLength => Some(self.wants.max_recv_data_segment_length.to_string()),
            Key::MaxOutstandingUnexpectedPdus => number(self.wants.max_outstanding_unexpected_pdus),
            Key::MaxAhsLength => number(self.wants.max_ahs_length),
            Key::TaggedBufferForSolicitedDataOnly => {
                boolean(self.wants.tagged_buffer_for_solicited_data_only)
            }
            Key::IserHelloRequired => boolean(self.wants.iser_hello_required),
            Key::NodeArchitecture => self.wants.node_architecture.value().map(str::to_owned),
            _ => None,
        }
    }

    /// A target's declarations, and its offers for keys whose value in force it cannot live with. Offers wait until
    /// the initiator has `finished` with its own; RDMAExtensions cannot wait (RFC 7145 section 6.3).
    // req: 7145-6.3-4
    pub(crate) fn offer_needed(&mut self, finished: bool, text: &mut Answer) -> Result<(), Rule> {
        let rdma = self.slot(Key::RdmaExtensions);
        let may_need_rdma = self.leading() && !self.discovery() && !rdma.seen && !rdma.offered;
        if may_need_rdma && self.wants.rdma_extensions == RdmaPolicy::Require {
            self.offer(Key::RdmaExtensions, boolean_text(true), text)?;
        }
        if self.slot(Key::RdmaExtensions).offered && !self.slot(Key::RdmaExtensions).settled {
            return Ok(());
        }
        for key in Key::ALL.iter().copied() {
            let slot = self.slot(key);
            if slot.offered
                || check_use(key, self.role, Some(Stage::LoginOperationalNegotiation), true).is_err()
            {
                continue;
            }
            if key.def().result == ResultFunction::Declared {
                if let Some(value) = self.declaration(key).filter(|_| self.target_declares(key)) {
                    self.offer(key, &value, text)?;
                }
            } else if finished && self.target_needs(key) {
                self.offer(key, &self.wish(key).text(), text)?;
            }
        }
        Ok(())
    }

    /// Keys of later RFCs are declared to those alone who have shown that they know them.
    fn target_declares(&self, key: Key) -> bool {
        match key.def().origin {
            Origin::Rfc7143 => !self.rdma(),
            Origin::Rfc4850 => self.leading(),
            Origin::Rfc7144 | Origin::Rfc7145 => {
                self.slot(key).seen && !self.irrelevant(key) && self.leading()
            }
        }
    }

    fn target_needs(&self, key: Key) -> bool {
        let def = key.def();
        let negotiable = def.stage == StageUse::Operational
            && matches!(
                def.result,
                ResultFunction::Minimum
                    | ResultFunction::Maximum
                    | ResultFunction::And
                    | ResultFunction::Or
                    | ResultFunction::First
            );
        let known_to_peer = def.origin == Origin::Rfc7143 || (def.origin == Origin::Rfc7145 && self.rdma());
        let allowed = self.leading() || def.usage != Usage::Lo;
        negotiable
            && known_to_peer
            && allowed
            && !self.slot(key).settled
            && !self.irrelevant(key)
            && !self.accepts(key, self.current(key))
    }

    /// Whether a target would have to offer something if the initiator ended the login now.
    pub(crate) fn needs_offers(&self) -> bool {
        let must_rdma =
            self.leading() && !self.discovery() && self.wants.rdma_extensions == RdmaPolicy::Require;
        (must_rdma && !self.slot(Key::RdmaExtensions).seen) || Key::ALL.iter().any(|k| self.target_needs(*k))
    }

    /// A key that this end has offered and whose answer is still to come, whether or not silence would do.
    pub(crate) fn open_offer(&self) -> Option<Key> {
        Key::ALL.iter().copied().find(|key| {
            let slot = self.slot(*key);
            slot.offered && !slot.settled && key.def().result != ResultFunction::Declared
        })
    }

    /// The peer will not answer any more: closes the offers whose result does not need an answer.
    ///
    /// # Errors
    /// [`Rule::Unanswered`] with the first key that does need one.
    // req: 7143-6.2.2-6, 7144-7.1.1-1
    pub(crate) fn close(&mut self) -> Result<(), Rule> {
        while let Some(key) = self.open_offer() {
            let value = match (key.def().result, self.wish(key)) {
                (ResultFunction::And, Wish::Bool(false)) => Some(Value::Bool(false)),
                (ResultFunction::Or, Wish::Bool(true)) => Some(Value::Bool(true)),
                _ if key.def().origin == Origin::Rfc7143 => return Err(Rule::Unanswered(key)),
                _ => None,
            };
            self.slots.set(key, Slot { settled: true, value, ..self.slot(key) });
        }
        Ok(())
    }

    /// The proposals that nobody has answered yet; a peer may not make any with its last word.
    pub(crate) fn has_pending(&self) -> Option<Key> {
        self.pending.first().map(|(key, _)| *key)
    }

    // ---- result ----

    pub(crate) fn peer_architecture(&self) -> Option<&crate::name::LocalName> {
        self.peer_architecture.as_ref()
    }

    /// The parameters as they stand.
    // req: 7143-6.2-19
    pub(crate) fn params(&self) -> (SessionParams, ConnParams) {
        (self.session_params(), self.conn_params())
    }

    fn session_params(&self) -> SessionParams {
        if let Some(session) = self.place.joined {
            return session;
        }
        let number = |key| self.number(key);
        let short = |key| u16::try_from(self.number(key)).unwrap_or(u16::MAX);
        let byte = |key| u8::try_from(self.number(key)).unwrap_or(u8::MAX);
        let (initiator_ahs, target_ahs) = self.both(Key::MaxAhsLength, self.wants.max_ahs_length);
        let (initiator_unexpected, target_unexpected) =
            self.both(Key::MaxOutstandingUnexpectedPdus, self.wants.max_outstanding_unexpected_pdus);
        let max_burst_length = number(Key::MaxBurstLength);
        let rdma = self.rdma();
        SessionParams {
            session_type: self.place.session_type,
            max_connections: short(Key::MaxConnections),
            initial_r2t: self.yes(Key::InitialR2t),
            immediate_data: self.yes(Key::ImmediateData),
            max_burst_length,
            // An initiator that holds on to less does no harm; a target has made sure already.
            first_burst_length: number(Key::FirstBurstLength).min(max_burst_length),
            default_time2wait: short(Key::DefaultTime2Wait),
            default_time2retain: short(Key::DefaultTime2Retain),
            max_outstanding_r2t: short(Key::MaxOutstandingR2t),
            data_pdu_in_order: self.yes(Key::DataPduInOrder),
            data_sequence_in_order: self.yes(Key::DataSequenceInOrder),
            error_recovery_level: byte(Key::ErrorRecoveryLevel),
            task_reporting: task_reporting(self.current(Key::TaskReporting)),
            iscsi_protocol_level: byte(Key::IscsiProtocolLevel),
            rdma_extensions: rdma,
            iser_hello_required: self.initiator_says(Key::IserHelloRequired, self.wants.iser_hello_required),
            tagged_buffer_for_solicited_data_only: self.initiator_says(
                Key::TaggedBufferForSolicitedDataOnly,
                self.wants.tagged_buffer_for_solicited_data_only,
            ),
            initiator_max_ahs_length: initiator_ahs.unwrap_or(256),
            target_max_ahs_length: target_ahs.unwrap_or(256),
            initiator_max_outstanding_unexpected_pdus: initiator_unexpected,
            target_max_outstanding_unexpected_pdus: target_unexpected,
        }
    }

    /// The parameters as they will be if the peer agrees to everything that is still open.
    pub(crate) fn prospects(&self) -> (SessionParams, ConnParams) {
        let mut hoped = self.clone();
        while let Some(key) = hoped.open_offer() {
            let value = match hoped.wish(key) {
                Wish::Bool(b) => Some(Value::Bool(b)),
                Wish::Number(n) => Some(Value::Number(n)),
                Wish::Words(list) => list.first().map(|w| Value::Word(w)),
            };
            hoped.slots.set(key, Slot { settled: true, value, ..hoped.slot(key) });
        }
        hoped.params()
    }

    /// What this end declared and the peer understood.
    fn ours<T>(&self, key: Key, wanted: Option<T>) -> Option<T> {
        let slot = self.slot(key);
        wanted.filter(|_| slot.offered && !slot.disowned && self.rdma())
    }

    /// What the peer declared.
    fn theirs(&self, key: Key) -> Option<Value> {
        self.slot(key).value.filter(|_| self.rdma())
    }

    /// Declarations of a number by initiator and target, in this order.
    fn both(&self, key: Key, wanted: Option<u32>) -> (Option<u32>, Option<u32>) {
        let ours = self.ours(key, wanted);
        let theirs = self.theirs(key).map(|_| self.number(key));
        match self.role {
            Role::Initiator => (ours, theirs),
            Role::Target => (theirs, ours),
        }
    }

    /// A declaration that is the initiator's alone.
    fn initiator_says(&self, key: Key, wanted: Option<bool>) -> Option<bool> {
        match self.role {
            Role::Initiator => self.ours(key, wanted),
            Role::Target => self.theirs(key).map(|_| self.yes(key)),
        }
    }

    // req: 7145-6.2-1, 7145-6.2-2, 7145-6.2-3, 7145-3.3-10
    fn conn_params(&self) -> ConnParams {
        let initiator_recv = self.number(Key::InitiatorRecvDataSegmentLength);
        let target_recv = self.number(Key::TargetRecvDataSegmentLength);
        let (receive, send) = match (self.rdma(), self.role) {
            (true, Role::Initiator) => (initiator_recv, target_recv),
            (true, Role::Target) => (target_recv, initiator_recv),
            (false, _) => {
                let declared = self.slot(Key::MaxRecvDataSegmentLength).offered;
                let ours = if declared { self.wants.max_recv_data_segment_length } else { 8192 };
                (ours, self.number(Key::MaxRecvDataSegmentLength))
            }
        };
        let digest = |key| if self.rdma() { Digest::None } else { digest(self.current(key)) };
        ConnParams {
            header_digest: digest(Key::HeaderDigest),
            data_digest: digest(Key::DataDigest),
            max_recv_data_segment_length: receive,
            max_send_data_segment_length: send,
            initiator_recv_data_segment_length: initiator_recv,
            target_recv_data_segment_length: target_recv,
        }
    }

    /// Checks the rules between keys, now that all values are known, and gives the result.
    ///
    /// # Errors
    /// [`Rule::Integrity`], [`Rule::RdmaRequired`], [`Rule::Answer`] for a digest that this end insists on.
    // req: 7143-6.2-20, 7143-6.2-21, 7143-6.2-25
    pub(crate) fn conclude(&mut self) -> Result<(SessionParams, ConnParams), Rule> {
        self.close()?;
        let (session, conn) = self.params();
        if session.error_recovery_level > 0
            && session.data_sequence_in_order
            && session.max_outstanding_r2t > 1
        {
            return Err(Rule::Integrity(Key::MaxOutstandingR2t));
        }
        if !self.discovery() && !session.rdma_extensions && self.wants.rdma_extensions == RdmaPolicy::Require
        {
            return Err(Rule::RdmaRequired);
        }
        let digests =
            [(Key::HeaderDigest, self.wants.header_digest), (Key::DataDigest, self.wants.data_digest)];
        for (key, policy) in digests {
            if !session.rdma_extensions && !policy.values().contains(&digest(self.current(key))) {
                return Err(Rule::Answer(key));
            }
        }
        Ok((session, conn))
    }
}

/// A proposal as it must be answered.
///
/// # Errors
/// [`Rule::ReservedWord`].
// req: 7143-6.2-7, 7143-6.2-13
fn proposal(key: Key, text: &str) -> Result<Proposal, Rule> {
    if words(text).any(is_answer_word) {
        return Err(Rule::ReservedWord);
    }
    Ok(match key.def().value {
        ValueType::List(_) => Proposal::List(text.into()),
        _ => admissible(key, text).map_or(Proposal::Inadmissible, Proposal::Value),
    })
}

/// `text` as a single admissible value of `key`. Ranges are never admissible: no key of today allows one.
fn admissible(key: Key, text: &str) -> Option<Value> {
    match key.def().value {
        ValueType::Boolean => parse_boolean(text).ok().map(Value::Bool),
        ValueType::Number { min, max, or_zero } => {
            let n = u32::try_from(parse_number(text).ok()?).ok()?;
            ((min..=max).contains(&n) || (or_zero && n == 0)).then_some(Value::Number(n))
        }
        ValueType::List(known) => known.iter().find(|w| **w == text).map(|w| Value::Word(w)),
        _ => None,
    }
}

fn digest_word(digest: Digest) -> &'static str {
    match digest {
        Digest::None => "None",
        Digest::Crc32c => "CRC32C",
    }
}

fn digest(value: Value) -> Digest {
    if value == Value::Word("CRC32C") { Digest::Crc32c } else { Digest::None }
}

fn task_reporting_word(value: TaskReporting) -> &'static str {
    match value {
        TaskReporting::Rfc3720 => "RFC3720",
        TaskReporting::ResponseFence => "ResponseFence",
        TaskReporting::FastAbort => "FastAbort",
    }
}

fn task_reporting(value: Value) -> TaskReporting {
    match value {
        Value::Word("ResponseFence") => TaskReporting::ResponseFence,
        Value::Word("FastAbort") => TaskReporting::FastAbort,
        _ => TaskReporting::Rfc3720,
    }
}

#[cfg(test)]
mod tests;
