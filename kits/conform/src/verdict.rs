//! How a case ends.

use serde::Serialize;

/// The result of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "lowercase")]
pub enum Verdict {
    /// The peer did what the rule says.
    Pass,
    /// The peer did something else.
    Fail(Failure),
    /// The case does not apply: the peer negotiated the matter away, or it is optional and the peer lacks it.
    Skipped(String),
    /// The case could not be judged: no connection, no login, no time left.
    Error(String),
}

impl Verdict {
    /// One word, as reports and tables of expectations have it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Skipped(_) => "skipped",
            Self::Error(_) => "error",
        }
    }

    /// One line for people; empty if the case passed.
    pub fn note(&self) -> String {
        match self {
            Self::Pass => String::new(),
            Self::Fail(f) => format!("{}: expected {}; seen: {}", f.rule, f.expected, f.seen),
            Self::Skipped(why) | Self::Error(why) => why.clone(),
        }
    }
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Id of the broken rule in `specs/`.
    pub rule: String,
    /// What the rule demands.
    pub expected: String,
    /// What the peer did.
    pub seen: String,
    /// The PDU it shows in, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dump: Option<String>,
}

/// Why a case ends before its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A rule is broken.
    Fail(Failure),
    /// The case does not apply.
    Skip(String),
    /// The case cannot be judged.
    Error(String),
}

impl From<Stop> for Verdict {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fail(failure) => Self::Fail(failure),
            Stop::Skip(why) => Self::Skipped(why),
            Stop::Error(why) => Self::Error(why),
        }
    }
}

/// What a case's function returns.
pub(crate) type Outcome = Result<(), Stop>;

/// The peer broke `rule`.
pub(crate) fn fail<T>(rule: &str, expected: impl Into<String>, seen: impl Into<String>) -> Result<T, Stop> {
    let (rule, expected, seen) = (rule.to_owned(), expected.into(), seen.into());
    Err(Stop::Fail(Failure { rule, expected, seen, dump: None }))
}

/// The peer broke `rule`, as this PDU shows.
pub(crate) fn wrong<T>(rule: &str, expected: impl Into<String>, pdu: &crate::pdu::Pdu) -> Result<T, Stop> {
    let (rule, expected, seen) = (rule.to_owned(), expected.into(), pdu.title());
    Err(Stop::Fail(Failure { rule, expected, seen, dump: Some(pdu.dump()) }))
}

/// The case does not apply.
pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Skip(why.into()))
}

/// The case cannot be judged.
pub(crate) fn error<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Error(why.into()))
}

/// Fails unless the condition holds; `pdu` is the evidence.
pub(crate) fn holds(rule: &str, expected: &str, pdu: &crate::pdu::Pdu, condition: bool) -> Outcome {
    if condition { Ok(()) } else { wrong(rule, expected, pdu) }
}
