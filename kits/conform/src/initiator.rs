//! Cases that judge an initiator: this program is the target.

use std::net::TcpListener;
use std::time::Instant;

use crate::case::{Case, Run};
use crate::run::Options;
use crate::tape::Tape;
use crate::verdict::{Outcome, error};

/// A case with an initiator under test.
pub(crate) struct Served {}

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
impl Served {
    pub(crate) fn start(
        _listener: &TcpListener,
        _command: Option<&str>,
        _options: &Options,
        _tape: Tape,
        _deadline: Instant,
    ) -> anyhow::Result<Self> {
        Ok(Self {})
    }
    pub(crate) fn run(&mut self, case: &Case) -> Outcome {
        match case.run {
            Run::Initiator(_, script) => script(self),
            _ => error("a case for targets"),
        }
    }
}
