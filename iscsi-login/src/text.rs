//! Text of login PDUs within the budget: in, joined and counted; out, bounded and cut.

use crate::{
    config::LoginBudget,
    keys::Key,
    status::{Bound, Rule},
    value::{NOT_UNDERSTOOD, is_answer_word},
};
use bytes::Bytes;
use iscsi_pdu::text::{MAX_VALUE_LEN, TextAssembler, TextErrorKind, TextLimits, TextWriter, chunks, pairs};
use std::collections::VecDeque;

/// MaxRecvDataSegmentLength of both ends during login (RFC 7143 section 6.3).
pub(crate) const LOGIN_SEGMENT: usize = 8192;
/// How much longer than a text the NotUnderstood answers to it may be: room for a few keys, none for a crowd.
const NOT_UNDERSTOOD_SLACK: usize = 1024;
/// Longest value of all keys: CHAP_C and CHAP_R of 1024 bytes in hexadecimal (RFC 7143 section 12.1.3).
const MAX_AUTH_VALUE: usize = 2 + 2 * 1024;

/// A received pair, its key looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) key: KeyName,
    pub(crate) value: Box<str>,
}

/// A key of the table, or one that this implementation does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyName {
    Known(Key),
    Unknown(Box<str>),
}

/// Reads a logical text data segment of at most `max_pairs` pairs.
// req: 7143-6.1-1, 7143-6.1-2, 7143-6.1-12, 7143-6.1-13
// req: 7143-12.1-8, 7143-13.22-1
pub(crate) fn read(text: &[u8], max_pairs: usize) -> Result<Vec<Pair>, Rule> {
    let limits = TextLimits { bytes: text.len(), pairs: max_pairs, value: text.len() };
    let mut out = Vec::new();
    for pair in pairs(text, limits) {
        let (name, value) = pair.map_err(|e| match e.kind {
            TextErrorKind::TooManyPairs => Rule::Budget(Bound::Keys),
            _ => Rule::TextFormat,
        })?;
        let key = Key::from_name(name).map_or_else(|| KeyName::Unknown(name.into()), KeyName::Known);
        let max = match key {
            KeyName::Known(Key::ChapC | Key::ChapR) => MAX_AUTH_VALUE,
            KeyName::Known(_) | KeyName::Unknown(_) => MAX_VALUE_LEN,
        };
        if value.len() > max {
            return Err(match key {
                KeyName::Known(key) => Rule::Value(key),
                KeyName::Unknown(_) => Rule::TextFormat,
            });
        }
        out.push(Pair { key, value: value.into() });
    }
    Ok(out)
}

/// What a peer's login PDUs bring, counted against the budget.
#[derive(Debug)]
pub(crate) struct Inbox {
    assembler: TextAssembler,
    budget: LoginBudget,
    pdus: u16,
    bytes: u32,
    keys: usize,
}

impl Inbox {
    pub(crate) fn new(budget: LoginBudget) -> Self {
        let budget = budget.normalized();
        let limit = usize::try_from(budget.text).unwrap_or(usize::MAX);
        Self { assembler: TextAssembler::new(limit), budget, pdus: 0, bytes: 0, keys: 0 }
    }

    /// Takes the data segment and C bit of a PDU; gives the pairs when the text is whole, and its length.
    // req: 7143-6.1-4, 7143-6.1-5, 7143-6.1-7
    pub(crate) fn take(
        &mut self,
        data: Bytes,
        continue_text: bool,
    ) -> Result<Option<(Vec<Pair>, usize)>, Rule> {
        if data.len() > LOGIN_SEGMENT {
            return Err(Rule::SegmentLength);
        }
        self.pdus = self.pdus.saturating_add(1);
        if self.pdus > self.budget.pdus {
            return Err(Rule::Budget(Bound::Pdus));
        }
        self.bytes = self.bytes.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
        if self.bytes > self.budget.text {
            return Err(Rule::Budget(Bound::Bytes));
        }
        let whole = self.assembler.push(data, continue_text).map_err(|e| match e.kind {
            TextErrorKind::TooManyBytes => Rule::Budget(Bound::Bytes),
            _ => Rule::TextFormat,
        })?;
        let Some(text) = whole else { return Ok(None) };
        let pairs = read(&text, usize::from(self.budget.keys).saturating_sub(self.keys))?;
        self.keys = self.keys.saturating_add(pairs.len());
        Ok(Some((pairs, text.len())))
    }
}

/// A text to be sent, bounded. What does not fit fails the login: an answer that leaves keys out would be an answer to
/// another question.
#[derive(Debug)]
pub(crate) struct Answer {
    text: TextWriter,
    not_understood: usize,
}

impl Answer {
    /// A text of at most `budget` bytes, in answer to one of `received` bytes.
    pub(crate) fn new(budget: u32, received: usize) -> Self {
        Self {
            text: TextWriter::new(usize::try_from(budget).unwrap_or(usize::MAX)),
            not_understood: received.saturating_add(NOT_UNDERSTOOD_SLACK),
        }
    }

    pub(crate) fn push(&mut self, key: &str, value: &str) -> Result<(), Rule> {
        if pair_len(key, value) > self.text.remaining() {
            return Err(Rule::Budget(Bound::Answer));
        }
        self.text.pair(key, value);
        Ok(())
    }

    /// Answers a key that this end does not know; all such answers together never amplify what asked for them.
    // req: 7143-6.2-8
    pub(crate) fn not_understood(&mut self, key: &str, value: &str) -> Result<(), Rule> {
        if is_answer_word(value) {
            return Err(Rule::ReservedWord);
        }
        self.not_understood = self
            .not_understood
            .checked_sub(pair_len(key, NOT_UNDERSTOOD))
            .ok_or(Rule::Budget(Bound::Answer))?;
        self.push(key, NOT_UNDERSTOOD)
    }

    pub(crate) fn finish(self) -> Result<Bytes, Rule> {
        self.text.finish().map_err(|_| Rule::Budget(Bound::Answer))
    }
}

fn pair_len(key: &str, value: &str) -> usize {
    key.len().saturating_add(value.len()).saturating_add(2)
}

/// Data segments waiting to be sent, each with its C bit.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<(Bytes, bool)>);

impl Outbox {
    pub(crate) fn load(&mut self, text: Bytes) {
        self.0 = chunks(text, LOGIN_SEGMENT).collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next data segment and its C bit; an empty one when nothing waits.
    pub(crate) fn next(&mut self) -> (Bytes, bool) {
        self.0.pop_front().unwrap_or_default()
    }
}
