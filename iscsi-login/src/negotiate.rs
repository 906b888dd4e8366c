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

mod offer;
mod result;

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
            // Some initiators say SessionType on every connection; harmless, as long as it is the same.
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
    /// The number that this end has proposed, by which the answer is judged.
    offer: Option<u32>,
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
    // req: 7145-5.1-3, 7145-5.1-4, 7145-6.3-2
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
    // req: 7143-7.4.1-2
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
        let wish = self.slot(key).offer.map_or_else(|| self.wish(key), Wish::Number);
        match (key.def().result, wish, value) {
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
        if self.is_disowned_by(key, text) {
            return self.disown(key, text);
        }
        let slot = self.slot(key);
        let declared = key.def().result == ResultFunction::Declared;
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

    /// Whether with `text` the peer says that it has no use for what this end declared. That it may say of every
    /// key, those included that it may not use itself.
    pub(crate) fn is_disowned_by(&self, key: Key, text: &str) -> bool {
        key.def().result == ResultFunction::Declared && self.slot(key).offered && is_answer_word(text)
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
    // req: 7143-6.2-17, 7145-3.3-9
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
}

/// A proposal as it must be answered.
///
/// # Errors
/// [`Rule::ReservedWord`].
// req: 7143-6.2-7, 7143-6.2-13
// req: 7143-6.2.2-4
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

fn task_reporting_word(value: TaskReporting) -> &'static str {
    match value {
        TaskReporting::Rfc3720 => "RFC3720",
        TaskReporting::ResponseFence => "ResponseFence",
        TaskReporting::FastAbort => "FastAbort",
    }
}

#[cfg(test)]
mod tests;
