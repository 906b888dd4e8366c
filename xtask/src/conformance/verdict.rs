//! Which skips are in order, and which failures are the test's own: `conformance/verdicts.toml`.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};

use super::suite::Outcome;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    skip: Vec<Skip>,
    test_bug: Vec<TestBug>,
}

/// A skip that is justified.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// What the test says contains this.
    says: String,
    /// Variants on which it may say so; empty: all.
    #[serde(default)]
    on: Vec<String>,
    why: String,
}

/// A failure that every correct target has.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestBug {
    /// Beginning of the test's name.
    test: String,
    #[serde(default)]
    on: Vec<String>,
    /// Of the assertions that fail, each contains this.
    says: String,
    evidence: String,
    #[serde(skip)]
    seen: AtomicBool,
}

/// The table.
pub(crate) struct Verdicts(File);

fn covers(on: &[String], variant: &str) -> bool {
    on.is_empty() || on.iter().any(|name| name == variant)
}

impl Verdicts {
    pub(crate) fn load() -> Result<Self> {
        let file: File = toml::from_str(include_str!("../../conformance/verdicts.toml"))
            .context("xtask/conformance/verdicts.toml")?;
        ensure!(file.skip.iter().all(|s| !s.why.is_empty()), "a skip without a reason");
        ensure!(file.test_bug.iter().all(|b| !b.evidence.is_empty()), "a test bug without evidence");
        Ok(Self(file))
    }

    /// The result of a test of our target, and what to say of it.
    pub(crate) fn judge(&self, variant: &str, test: &str, outcome: &Outcome) -> (&'static str, String) {
        match outcome {
            Outcome::Passed => ("pass", String::new()),
            Outcome::Skipped(messages) => {
                let mut notes = Vec::new();
                for says in messages {
                    let known = self.0.skip.iter().find(|s| covers(&s.on, variant) && says.contains(&s.says));
                    match known {
                        Some(skip) => notes.push(skip.why.clone()),
                        None => return ("UNJUSTIFIED", says.clone()),
                    }
                }
                notes.dedup();
                ("skip", notes.join("; "))
            }
            Outcome::Failed(why) => {
                let known = self.0.test_bug.iter().find(|bug| {
                    test.starts_with(&bug.test)
                        && covers(&bug.on, variant)
                        && why.split("; ").all(|assertion| assertion.contains(&bug.says))
                });
                match known {
                    Some(bug) => {
                        bug.seen.store(true, Ordering::Relaxed);
                        ("test-bug", bug.evidence.clone())
                    }
                    None => ("FAIL", why.clone()),
                }
            }
        }
    }
}
