//! Cases that judge a target: this program is the initiator.

use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::case::{Case, Run};
use crate::tape::Tape;
use crate::url::TargetUrl;
use crate::verdict::{Outcome, Stop, error, fail, skip};
use crate::wire::Wire;

mod chap;
mod conn;
mod connections;
mod data_in;
mod data_out;
mod digest;
mod discovery;
mod layout;
mod login;
mod logout;
mod negotiation;
mod nop;
mod recovery;
mod reject;
mod sequence;
mod task;
mod text;

#[cfg(test)]
pub(crate) use conn::cdb10;
pub(crate) use conn::{Conn, Io, Login};
pub(crate) use layout::Traffic;

/// Name of the initiator that the cases are.
pub(crate) const INITIATOR: &str = "iqn.2026-01.org.example:iscsi-conform";

/// All cases, those that look back at the traffic last.
pub(crate) fn cases() -> Vec<Case> {
    let scripts = [
        login::CASES,
        negotiation::CASES,
        discovery::CASES,
        text::CASES,
        chap::CASES,
        nop::CASES,
        sequence::CASES,
        data_in::CASES,
        data_out::CASES,
        reject::CASES,
        digest::CASES,
        task::CASES,
        logout::CASES,
        connections::CASES,
        recovery::CASES,
    ];
    scripts.into_iter().flatten().copied().chain(layout::cases()).collect()
}

/// What a case has to work with.
pub(crate) struct Bench {
    /// The target under test.
    pub peer: TargetUrl,
    /// How long an answer may take.
    pub answer: Duration,
    /// How long nothing has to come where nothing may come.
    pub quiet: Duration,
    pub(crate) tape: Tape,
    pub(crate) deadline: Instant,
    pub(crate) traffic: Rc<RefCell<Traffic>>,
}

impl Bench {
    /// Judges the case.
    pub(crate) fn run(&self, case: &Case) -> Outcome {
        match case.run {
            Run::Target(script) => script(self),
            Run::Layout(row) => self.traffic.borrow().judge(row),
            Run::Initiator(..) => error("a case for initiators"),
        }
    }

    /// A new connection on which nothing was said yet.
    ///
    /// # Errors
    ///
    /// The target does not accept connections.
    pub(crate) fn connect(&self) -> Result<Conn, Stop> {
        let stream = TcpStream::connect_timeout(&self.peer.address, self.answer)
            .or_else(|e| error(format!("cannot connect to {}: {e}", self.peer.address)))?;
        let wire = Wire::new(stream, true, self.tape.clone(), self.deadline)
            .or_else(|e| error(format!("connection to {}: {e}", self.peer.address)))?;
        Ok(Conn::new(wire, self))
    }

    /// A Normal session in full feature phase for which these keys were offered.
    ///
    /// # Errors
    ///
    /// The login fails.
    pub(crate) fn session(&self, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
        let mut conn = self.connect()?;
        conn.log_in(&Login::normal(keys))?;
        Ok(conn)
    }

    /// A session whose logical unit answers commands: unit attentions are cleared.
    ///
    /// # Errors
    ///
    /// The login fails, or the logical unit does not become ready.
    pub(crate) fn disk(&self, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
        let mut conn = self.session(keys)?;
        conn.make_ready()?;
        Ok(conn)
    }

    /// A Discovery session.
    ///
    /// # Errors
    ///
    /// The login fails.
    pub(crate) fn discovery(&self, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
        let mut conn = self.connect()?;
        conn.log_in(&Login { discovery: true, ..Login::normal(keys) })?;
        Ok(conn)
    }

    /// A session at this ErrorRecoveryLevel; skips the case if the target negotiates less.
    ///
    /// # Errors
    ///
    /// The login fails, or the target negotiates less.
    pub(crate) fn level(&self, level: u8, keys: &[(&str, &str)]) -> Result<Conn, Stop> {
        let text = level.to_string();
        let all = [&[("ErrorRecoveryLevel", text.as_str())], keys].concat();
        let conn = self.session(&all)?;
        match conn.result("ErrorRecoveryLevel").and_then(crate::keys::number) {
            Some(got) if got == u64::from(level) => Ok(conn),
            got => {
                let got = got.map_or("nothing".into(), |n| n.to_string());
                skip(format!("ErrorRecoveryLevel {level} was offered, {got} negotiated"))
            }
        }
    }
}

/// A value that a key may not have.
pub(crate) fn bad_result<T>(rule: &str, key: &str, expected: &str, got: Option<&str>) -> Result<T, Stop> {
    let seen = got.map_or(format!("no {key}"), |value| format!("{key}={value}"));
    fail(rule, format!("{key}: {expected}"), seen)
}
