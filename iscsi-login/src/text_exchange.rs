//! Text Requests and Responses of full feature phase (RFC 7143 sections 6.4, 11.10, 11.11): SendTargets, and the keys
//! that may change there. One value of these types is one sequence of a single Initiator Task Tag.
//!
//! The session adds what it owns: tags, LUN, sequence numbers. New values take effect when the sequence is complete,
//! all of them or none.
//!
//! ```text
//!   TextInitiator                                  TextTarget
//!   first()     ── F=1 C=0 TTT=none, text ──▶      handle_request ─▶ Respond, or SendTargets + respond_targets
//!   handle_response ◀── F=0 C=1 TTT=t, part 1 ──
//!   Send        ── F=1 TTT=t, empty ──▶            handle_request ─▶ Respond
//!   Done        ◀── F=1 C=0 TTT=none, part 2 ──
//! ```

use crate::{
    keys::Key,
    name::LocalName,
    negotiate::check_use,
    params::{ConnParams, Role, SessionParams, SessionType},
    sendtargets::{RecordLimits, SendTargets, SendTargetsError, TargetRecord, parse_records, write_records},
    status::{Bound, Rule},
    text::{Answer, KeyName, Pair, read},
    value::{NOT_UNDERSTOOD, is_answer_word, parse_number},
};
use bytes::Bytes;
use iscsi_pdu::{
    RejectReason, Ttt,
    text::{TextAssembler, TextErrorKind, chunks},
};
use std::collections::VecDeque;

/// Most keys in one text; SendTargets responses are read by [`parse_records`] within limits of their own.
const MAX_PAIRS: usize = 256;

/// What a Text Request or Response says, apart from the numbers of its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextPdu {
    /// F bit.
    pub final_pdu: bool,
    /// C bit.
    pub continue_text: bool,
    /// Target Transfer Tag.
    pub ttt: Ttt,
    /// Text.
    pub data: Bytes,
}

/// Bounds of one text sequence, in what the peer may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextBudget {
    /// Bytes of text; at least 8192 (RFC 7143 section 6.1).
    pub text: usize,
    /// PDUs; at least 6 (RFC 7143 section 6.2).
    pub pdus: u32,
}

impl Default for TextBudget {
    fn default() -> Self {
        Self { text: 1 << 20, pdus: 512 }
    }
}

impl TextBudget {
    fn normalized(self) -> Self {
        Self { text: self.text.max(8192), pdus: self.pdus.max(6) }
    }
}

impl Rule {
    /// The reason with which a target rejects a Text Request that breaks the rule.
    // req: 7143-6.4-10
    #[must_use]
    pub const fn reject_reason(self) -> RejectReason {
        match self {
            Self::Budget(_) => RejectReason::NegotiationReset,
            _ => RejectReason::ProtocolError,
        }
    }
}

/// What a sequence has changed, once complete.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct TextResult {
    /// The peer's new MaxRecvDataSegmentLength: what may be sent to it from now on.
    pub max_send_data_segment_length: Option<u32>,
    /// Our new MaxRecvDataSegmentLength: what the peer may send from now on.
    pub max_recv_data_segment_length: Option<u32>,
    /// The peer's new alias.
    pub peer_alias: Option<LocalName>,
}

impl TextResult {
    /// Puts the new values into `conn`. On iSER-assisted sessions the key says nothing (RFC 7145 section 6.2).
    // req: 7143-6.4-12, 7145-6.2-1, 7143-6.2-19
    pub fn apply(&self, session: &SessionParams, conn: &mut ConnParams) {
        if session.rdma_extensions {
            return;
        }
        conn.max_send_data_segment_length =
            self.max_send_data_segment_length.unwrap_or(conn.max_send_data_segment_length);
        conn.max_recv_data_segment_length =
            self.max_recv_data_segment_length.unwrap_or(conn.max_recv_data_segment_length);
    }
}

/// Declarations seen in a sequence; thrown away with it when it fails.
// req: 7143-7.12-2, 7143-7.12-3, 7143-7.12-4
#[derive(Clone, Default, Debug)]
struct Declared {
    seen: Vec<Key>,
    result: TextResult,
}

impl Declared {
    /// Takes the pairs of one text from `sender`; writes NotUnderstood where it is due.
    // req: 7143-6.4-1, 7143-6.3-10, 7143-13-1, 7143-13-2, 7143-6.2-8
    fn take(
        &mut self,
        pairs: Vec<Pair>,
        sender: Role,
        offered: bool,
        answer: &mut Answer,
    ) -> Result<(), Rule> {
        for Pair { key, value } in pairs {
            let key = match key {
                KeyName::Unknown(name) => {
                    answer.not_understood(&name, &value)?;
                    continue;
                }
                KeyName::Known(key) => key,
            };
            check_use(key, sender, None, false)?;
            if is_answer_word(&value) {
                return Err(match (offered, &*value) {
                    (true, NOT_UNDERSTOOD) => Rule::NotUnderstood(key),
                    _ => Rule::ReservedWord,
                });
            }
            if self.seen.contains(&key) {
                return Err(Rule::Repeated(key));
            }
            self.seen.push(key);
            self.declare(key, &value)?;
        }
        Ok(())
    }

    fn declare(&mut self, key: Key, value: &str) -> Result<(), Rule> {
        let bad = Rule::Value(key);
        match key {
            Key::MaxRecvDataSegmentLength => {
                let n = parse_number(value).ok().and_then(|n| u32::try_from(n).ok()).ok_or(bad)?;
                if !(crate::keys::MIN_LENGTH..=crate::keys::MAX_LENGTH).contains(&n) {
                    return Err(bad);
                }
                self.result.max_send_data_segment_length = Some(n);
            }
            Key::InitiatorAlias | Key::TargetAlias => {
                self.result.peer_alias = Some(LocalName::new(value).map_err(|_| bad)?);
            }
            _ => return Err(Rule::NotAllowedHere(key)),
        }
        Ok(())
    }
}

/// What a target does next.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TextAction {
    /// Send this response.
    Respond(TextPdu),
    /// Look the targets up and call [`TextTarget::respond_targets`].
    SendTargets(SendTargets),
}

/// A text sequence at a target.
///
/// Calling order: [`TextTarget::handle_request`] for each Text Request of the task; after a `SendTargets` action,
/// [`TextTarget::respond_targets`]; once a response with F = 1 has come out, [`TextTarget::result`]. After an error,
/// reject the request with [`Rule::reject_reason`] and drop the value: nothing has changed.
#[derive(Clone, Debug)]
pub struct TextTarget {
    session_type: SessionType,
    /// Most bytes the initiator takes in one PDU.
    segment: usize,
    budget: TextBudget,
    /// TTT of the responses that do not end the sequence.
    ttt: Ttt,
    pdus: u32,
    assembler: TextAssembler,
    outbox: VecDeque<(Bytes, bool)>,
    declared: Declared,
    own_length: Option<u32>,
    wants_end: bool,
    begun: bool,
    complete: bool,
}

impl TextTarget {
    /// A sequence on a connection with these parameters. `ttt`, not the reserved one, names it in responses that do
    /// not end it.
    #[must_use]
    pub fn new(session: &SessionParams, conn: &ConnParams, ttt: Ttt, budget: TextBudget) -> Self {
        let budget = budget.normalized();
        Self {
            session_type: session.session_type,
            segment: usize::try_from(conn.max_send_data_segment_length).unwrap_or(usize::MAX),
            budget,
            ttt,
            pdus: 0,
            assembler: TextAssembler::new(budget.text),
            outbox: VecDeque::new(),
            declared: Declared::default(),
            own_length: None,
            wants_end: false,
            begun: false,
            complete: false,
        }
    }

    /// Declares our MaxRecvDataSegmentLength, 512 to 2^24 - 1 bytes, in the answer to the next whole text.
    pub fn declare_max_recv_data_segment_length(&mut self, length: u32) {
        self.own_length = Some(length.clamp(crate::keys::MIN_LENGTH, crate::keys::MAX_LENGTH));
    }

    /// Takes a Text Request.
    ///
    /// # Errors
    /// The rule it breaks.
    // req: 7143-6.4-2, 7143-6.4-9, 7143-6.2-2, 7143-10.3-1
    pub fn handle_request(&mut self, request: TextPdu) -> Result<TextAction, Rule> {
        if request.continue_text && request.final_pdu {
            return Err(Rule::ContinueWithTransit);
        }
        self.pdus = self.pdus.saturating_add(1);
        if self.pdus > self.budget.pdus {
            return Err(Rule::Budget(Bound::Pdus));
        }
        if request.ttt.is_none() {
            self.reset();
        } else if !self.begun || request.ttt != self.ttt {
            return Err(Rule::HeaderChanged);
        }
        self.begun = true;
        self.wants_end = request.final_pdu;
        if !self.outbox.is_empty() {
            if !request.data.is_empty() || request.continue_text {
                return Err(Rule::DataWhileContinuing);
            }
            return Ok(TextAction::Respond(self.next_response()));
        }
        let whole = self.assembler.push(request.data, request.continue_text).map_err(assembly_rule)?;
        match whole {
            None => Ok(TextAction::Respond(self.next_response())),
            Some(text) => self.take(&text),
        }
    }

    fn reset(&mut self) {
        self.assembler = TextAssembler::new(self.budget.text);
        self.outbox.clear();
        self.declared = Declared::default();
        self.complete = false;
    }

    // req: 7143-13.3-1
    fn take(&mut self, text: &[u8]) -> Result<TextAction, Rule> {
        let pairs = read(text, MAX_PAIRS)?;
        if let Some(pair) = pairs.iter().find(|p| p.key == KeyName::Known(Key::SendTargets)) {
            let value = SendTargets::parse(&pair.value).map_err(|_| Rule::Value(Key::SendTargets))?;
            let all_on_normal = value == SendTargets::All && self.session_type == SessionType::Normal;
            if pairs.len() > 1 || all_on_normal {
                return Err(Rule::NotAllowedHere(Key::SendTargets));
            }
            return Ok(TextAction::SendTargets(value));
        }
        // A discovery session is for SendTargets alone (RFC 7143 section 13.21).
        if self.session_type == SessionType::Discovery && !pairs.is_empty() {
            return Err(Rule::Missing(Key::SendTargets));
        }
        let budget = u32::try_from(self.budget.text).unwrap_or(u32::MAX);
        let mut answer = Answer::new(budget, text.len());
        let offered = self.declared.result.max_recv_data_segment_length.is_some();
        self.declared.take(pairs, Role::Initiator, offered, &mut answer)?;
        if let Some(length) = self.own_length.take() {
            answer.push(Key::MaxRecvDataSegmentLength.name(), &length.to_string())?;
            self.declared.result.max_recv_data_segment_length = Some(length);
        }
        self.outbox = chunks(answer.finish()?, self.segment).collect();
        Ok(TextAction::Respond(self.next_response()))
    }

    /// Answers a `SendTargets` action: the targets that this initiator may access, none if there are none.
    ///
    /// # Errors
    /// As [`write_records`]; reject the request then.
    pub fn respond_targets(&mut self, records: &[TargetRecord]) -> Result<TextPdu, SendTargetsError> {
        let text = write_records(records, self.budget.text)?;
        self.outbox = chunks(text, self.segment).collect();
        Ok(self.next_response())
    }

    /// F is set with the last part of an answer, if the initiator wants to end: this end never proposes what would
    /// need another request.
    // req: 7143-6.4-3, 7143-6.4-6, 7143-6.4-7, 7143-6.4-8, 7143-6.2-1
    fn next_response(&mut self) -> TextPdu {
        let (data, more) = self.outbox.pop_front().unwrap_or_default();
        let end = self.wants_end && !more && !self.assembler.is_partial();
        self.complete = end;
        TextPdu { final_pdu: end, continue_text: more, ttt: if end { Ttt::NONE } else { self.ttt }, data }
    }

    /// What the sequence has changed, once its last response has come out.
    #[must_use]
    pub fn result(&self) -> Option<&TextResult> {
        self.complete.then_some(&self.declared.result)
    }
}

/// How far a sequence has come at an initiator.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TextProgress {
    /// Send this request.
    Send(TextPdu),
    /// Complete: [`TextInitiator::result`] or [`TextInitiator::records`].
    Done,
}

/// A text sequence at an initiator.
///
/// Calling order: [`TextInitiator::first`]; [`TextInitiator::handle_response`] for each Text Response, sending what
/// it gives, until `Done`. After an error, send [`TextInitiator::reset`] and drop the value: nothing has changed.
#[derive(Clone, Debug)]
pub struct TextInitiator {
    budget: TextBudget,
    /// Most bytes the target takes in one PDU.
    segment: usize,
    outbox: VecDeque<(Bytes, bool)>,
    pdus: u32,
    collected: Vec<u8>,
    /// Where the text that has not been read yet begins in `collected`.
    read_to: usize,
    declared: Declared,
    send_targets: bool,
    last_final: bool,
    complete: bool,
}

impl TextInitiator {
    /// Asks for targets.
    #[must_use]
    pub fn send_targets(what: &SendTargets, conn: &ConnParams, budget: TextBudget) -> Self {
        Self::with_text(&[(Key::SendTargets, what.to_string())], true, conn, budget)
    }

    /// Declares our MaxRecvDataSegmentLength, 512 to 2^24 - 1 bytes.
    #[must_use]
    pub fn declare_max_recv_data_segment_length(length: u32, conn: &ConnParams, budget: TextBudget) -> Self {
        let length = length.clamp(crate::keys::MIN_LENGTH, crate::keys::MAX_LENGTH);
        let text = [(Key::MaxRecvDataSegmentLength, length.to_string())];
        let mut new = Self::with_text(&text, false, conn, budget);
        new.declared.result.max_recv_data_segment_length = Some(length);
        new
    }

    /// Declares nothing: gives the target the word, after its Async Message that asks for negotiation.
    // req: 7143-6.2-4
    #[must_use]
    pub fn invite(conn: &ConnParams, budget: TextBudget) -> Self {
        Self::with_text(&[], false, conn, budget)
    }

    fn with_text(pairs: &[(Key, String)], send_targets: bool, conn: &ConnParams, budget: TextBudget) -> Self {
        let budget = budget.normalized();
        let segment = usize::try_from(conn.max_send_data_segment_length).unwrap_or(usize::MAX);
        let text: Vec<u8> = pairs
            .iter()
            .flat_map(|(key, value)| key.name().bytes().chain([b'=']).chain(value.bytes()).chain([0]))
            .collect();
        Self {
            budget,
            segment,
            outbox: chunks(text.into(), segment).collect(),
            pdus: 0,
            collected: Vec::new(),
            read_to: 0,
            declared: Declared::default(),
            send_targets,
            last_final: false,
            complete: false,
        }
    }

    /// The first request.
    pub fn first(&mut self) -> TextPdu {
        self.next_request(Ttt::NONE)
    }

    /// The next request: F stays set while this end has nothing more to say.
    // req: 7143-6.4-3, 7143-6.4-5
    fn next_request(&mut self, ttt: Ttt) -> TextPdu {
        let (data, more) = self.outbox.pop_front().unwrap_or_default();
        self.last_final = !more;
        TextPdu { final_pdu: !more, continue_text: more, ttt, data }
    }

    /// Takes a Text Response.
    ///
    /// # Errors
    /// The rule it breaks.
    // req: 7143-6.2-3, 7143-6.2-2, 7143-6.4-2, 7143-6.4-4, 7143-6.4-7, 7143-6.4-8
    pub fn handle_response(&mut self, response: TextPdu) -> Result<TextProgress, Rule> {
        if response.continue_text && response.final_pdu {
            return Err(Rule::ContinueWithTransit);
        }
        if response.final_pdu != response.ttt.is_none() || (response.final_pdu && !self.last_final) {
            return Err(Rule::Stage);
        }
        self.pdus = self.pdus.saturating_add(1);
        if self.pdus > self.budget.pdus {
            return Err(Rule::Budget(Bound::Pdus));
        }
        if !self.outbox.is_empty() {
            if !response.data.is_empty() {
                return Err(Rule::DataWhileContinuing);
            }
            return Ok(TextProgress::Send(self.next_request(response.ttt)));
        }
        if self.collected.len().saturating_add(response.data.len()) > self.budget.text {
            return Err(Rule::Budget(Bound::Bytes));
        }
        self.collected.extend_from_slice(&response.data);
        if !response.continue_text && !self.send_targets {
            self.take_text(response.final_pdu)?;
        }
        if response.final_pdu {
            self.complete = true;
            return Ok(TextProgress::Done);
        }
        Ok(TextProgress::Send(self.next_request(response.ttt)))
    }

    fn take_text(&mut self, is_final: bool) -> Result<(), Rule> {
        let text = self.collected.get(self.read_to..).unwrap_or_default();
        let pairs = read(text, MAX_PAIRS)?;
        let mut answer = Answer::new(8192, text.len());
        self.read_to = self.collected.len();
        let offered = self.declared.result.max_recv_data_segment_length.is_some();
        self.declared.take(pairs, Role::Target, offered, &mut answer)?;
        if !is_final {
            self.outbox =
                chunks(answer.finish()?, self.segment).filter(|(data, _)| !data.is_empty()).collect();
        }
        Ok(())
    }

    /// A request that makes the target forget the sequence.
    // req: 7143-6.4-9, 7143-6.4-11
    #[must_use]
    pub fn reset() -> TextPdu {
        TextPdu { final_pdu: true, continue_text: false, ttt: Ttt::NONE, data: Bytes::new() }
    }

    /// What the sequence has changed, once complete.
    #[must_use]
    pub fn result(&self) -> Option<&TextResult> {
        self.complete.then_some(&self.declared.result)
    }

    /// The targets that were asked for, once complete.
    ///
    /// # Errors
    /// As [`parse_records`].
    pub fn records(&self, limits: RecordLimits) -> Option<Result<Vec<TargetRecord>, SendTargetsError>> {
        (self.complete && self.send_targets).then(|| parse_records(&self.collected, limits))
    }
}

fn assembly_rule(error: iscsi_pdu::text::TextError) -> Rule {
    match error.kind {
        TextErrorKind::TooManyBytes => Rule::Budget(Bound::Bytes),
        _ => Rule::TextFormat,
    }
}

#[cfg(test)]
mod tests;
