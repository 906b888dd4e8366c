#![doc = include_str!("../README.md")]
#![allow(clippy::disallowed_methods, reason = "a test program on the host: it reads the clock and waits")]

mod case;
mod chap;
mod expect;
mod initiator;
mod keys;
pub mod pdu;
mod report;
mod run;
mod tape;
mod target;
mod url;
mod verdict;
mod wire;
#[cfg(test)]
mod wrong;

pub use case::{Action, Case, Role, cases};
pub use expect::{Expectations, Known, Skipped, Surprise};
pub use report::{Line, Report};
pub use run::{Commands, Options, run_initiator, run_target};
pub use url::{Credentials, TargetUrl};
pub use verdict::{Failure, Verdict};
