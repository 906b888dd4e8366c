//! `iscsi-test-cu`: its tests, and what one run of one of them says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::interop::process::finish;

/// A test, by its full name: family, suite, test.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
}

/// How a test ended.
pub(crate) enum Outcome {
    Passed,
    /// It passed without doing all that it is there for; what it said.
    Skipped(Vec<String>),
    Failed(String),
}

/// Tests with long sleeps of their own.
const LONG: &[&str] = &["SCSI.Sanitize.Reset", "SCSI.Sanitize.Overwrite", "SCSI.MultipathIO.Reset"];

/// The tests for iSCSI targets; the third family, LINUX, is the first through a local block device.
pub(crate) fn list() -> Result<Vec<Test>> {
    let output = Command::new("iscsi-test-cu").arg("--list").output();
    let output = output.context("iscsi-test-cu is not installed (Debian: libiscsi-bin)")?;
    // Names for the rest of the process.
    let text: &'static str = String::from_utf8_lossy(&output.stdout).into_owned().leak();
    let tests: Vec<Test> = text
        .lines()
        .map(str::trim)
        .filter(|name| ["SCSI.", "iSCSI."].iter().any(|family| name.starts_with(family)))
        .filter(|name| name.matches('.').count() == 2)
        .map(|name| Test { name })
        .collect();
    ensure!(!tests.is_empty(), "iscsi-test-cu lists no tests");
    Ok(tests)
}

impl Test {
    pub(crate) fn is_long(&self) -> bool {
        LONG.contains(&self.name)
    }

    fn limit(&self) -> Duration {
        // SANITIZE.Reset looks once a minute whether the target is done.
        Duration::from_secs(if self.is_long() { 180 } else { 120 })
    }

    /// Runs it against the unit behind the first URL, with the second as a second path.
    pub(crate) fn run(&self, urls: &[String; 2], log: &Path) -> Result<Outcome> {
        let mut command = Command::new("iscsi-test-cu");
        command.args(["--dataloss", "--allow-sanitize", "--verbose"]).arg(format!("--test={}", self.name));
        command.args(urls);
        let finished = match finish(&mut command, log.to_owned(), self.limit()) {
            Ok(finished) => finished,
            Err(error) => return Ok(Outcome::Failed(format!("{error:#}"))),
        };
        Ok(read(&finished.text))
    }
}

/// The summary decides; what a test prints on its way is for people.
fn read(text: &str) -> Outcome {
    let summary = text.lines().map(str::trim).find_map(|line| line.strip_prefix("tests"));
    // Columns: total, run, passed, failed, inactive.
    let counts: Vec<u32> =
        summary.unwrap_or("").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match *counts.as_slice() {
        [1, 1, 1, 0, ..] => {
            // Before its first suite it looks at the target, and says of commands that are not there that it skips them.
            let of_test = text.find("\nSuite: ").map_or(text, |at| &text[at..]);
            let skips: Vec<String> = of_test
                .lines()
                .filter_map(|line| line.split_once("[SKIPPED]"))
                .map(|(_, why)| why.trim().to_owned())
                .collect();
            if skips.is_empty() { Outcome::Passed } else { Outcome::Skipped(skips) }
        }
        [1, 1, 0, 1, ..] => {
            let assert = |line: &&str| line.contains(".c:");
            let why: Vec<&str> = text.lines().filter(assert).map(str::trim).collect();
            Outcome::Failed(why.join("; "))
        }
        _ => Outcome::Failed(format!("no summary: {}", text.lines().last().unwrap_or("").trim())),
    }
}

impl Outcome {
    /// Result and note without a judgement.
    pub(crate) fn plain(&self) -> (&'static str, String) {
        match self {
            Self::Passed => ("pass", String::new()),
            Self::Skipped(why) => ("skip", why.join("; ")),
            Self::Failed(why) => ("FAIL", why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What iscsi-test-cu 1.19 prints.
    #[test]
    fn summaries() {
        let summary = |passed: u8| {
            format!(
                "Suite: StartStopUnit\n  Test: Simple ...{}\n\nRun Summary:    Type  Total    Ran Passed Failed Inactive\n\
                 \x20             suites      1      1    n/a      0        0\n\
                 \x20              tests      1      1      {passed}      {}        0\n",
                if passed == 1 {
                    "    [SKIPPED] Media is not removable.\npassed"
                } else {
                    "FAILED\n    1. a.c:157  - CU_ASSERT"
                },
                1 - passed,
            )
        };
        assert!(matches!(read(&summary(1)), Outcome::Skipped(why) if why == ["Media is not removable."]));
        assert!(matches!(read(&summary(0)), Outcome::Failed(why) if why == "1. a.c:157  - CU_ASSERT"));
        assert!(matches!(read(&summary(1).replace("[SKIPPED]", "")), Outcome::Passed));
        assert!(matches!(read("Failed to log in to target."), Outcome::Failed(_)));
        let looking = format!("    [SKIPPED] REPORT_SUPPORTED_OPCODES is not implemented.\n\n{}", summary(1));
        assert!(matches!(read(&looking), Outcome::Skipped(why) if why == ["Media is not removable."]));
        assert!(matches!(read(&looking.replace("[SKIPPED] Media", "")), Outcome::Passed));
    }
}
