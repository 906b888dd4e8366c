//! What a run gave: a table for people, JSON, JUnit XML.

use std::fmt::Write as _;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use crate::case::{Case, Role};
use crate::verdict::Verdict;

/// All verdicts of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who was judged.
    pub role: Role,
    /// One line a case, in the order of the run.
    pub lines: Vec<Line>,
}

/// The verdict on a case.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The case.
    pub id: &'static str,
    /// What it does.
    pub title: &'static str,
    /// The rules it judges.
    pub rules: &'static [&'static str],
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Line {
    pub(crate) fn new(case: &Case, verdict: Verdict, took: Duration) -> Self {
        Self { id: case.id, title: case.title, rules: case.rules, seconds: took.as_secs_f64(), verdict }
    }
}

impl Report {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, lines: Vec::new() }
    }

    /// How many cases ended with this word.
    pub fn count(&self, word: &str) -> usize {
        self.lines.iter().filter(|line| line.verdict.word() == word).count()
    }

    /// One line that sums up.
    pub fn summary(&self) -> String {
        let count = |word| self.count(word);
        format!(
            "{} cases: {} passed, {} failed, {} skipped, {} without a verdict",
            self.lines.len(),
            count("pass"),
            count("fail"),
            count("skipped"),
            count("error")
        )
    }

    /// What failed, with dumps, and the summary.
    pub fn details(&self) -> String {
        let mut out = String::new();
        for line in &self.lines {
            if let Verdict::Fail(failure) = &line.verdict {
                let _ = writeln!(out, "\n{}: {}", line.id, line.title);
                let _ = writeln!(out, "  rule      {}", failure.rule);
                let _ = writeln!(out, "  expected  {}", failure.expected);
                let _ = writeln!(out, "  seen      {}", failure.seen);
                out.push_str(failure.dump.as_deref().unwrap_or_default());
            }
        }
        let _ = writeln!(out, "\n{}", self.summary());
        out
    }

    /// A case on one line.
    pub fn human_line(line: &Line) -> String {
        let (word, note) = (line.verdict.word(), line.verdict.note());
        let arrow = if note.is_empty() { "" } else { "\n         -> " };
        format!("{word:<8} {:<15} {:5.2} s  {}{arrow}{note}", line.id, line.seconds, line.title)
    }

    /// The whole report as JSON.
    ///
    /// # Errors
    ///
    /// None that is known; serialising may fail in principle.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The whole report as JUnit XML.
    ///
    /// # Errors
    ///
    /// None that is known; serialising may fail in principle.
    pub fn junit(&self) -> anyhow::Result<String> {
        let mut suite = TestSuite::new(format!("iscsi-conform {:?}", self.role).to_lowercase());
        for line in &self.lines {
            let mut status = match &line.verdict {
                Verdict::Pass => TestCaseStatus::success(),
                Verdict::Fail(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Verdict::Error(_) => TestCaseStatus::non_success(NonSuccessKind::Error),
                Verdict::Skipped(_) => TestCaseStatus::skipped(),
            };
            if line.verdict != Verdict::Pass {
                status.set_message(line.verdict.note());
            }
            if let Verdict::Fail(failure) = &line.verdict {
                status.set_description(failure.dump.clone().unwrap_or_default());
            }
            let mut case = TestCase::new(format!("{} {}", line.id, line.title), status);
            case.set_time(Duration::from_secs_f64(line.seconds));
            suite.add_test_case(case);
        }
        let mut report = quick_junit::Report::new("iscsi-conform");
        report.add_test_suite(suite);
        Ok(report.to_string()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Failure;

    fn report() -> Report {
        let line =
            |id, verdict| Line { id, title: "a <title>", rules: &["7143-6.2-8"], seconds: 0.5, verdict };
        let failure = Failure {
            rule: "7143-6.2-8".into(),
            expected: "this".into(),
            seen: "that".into(),
            dump: Some("  0000  23".into()),
        };
        Report {
            role: Role::Target,
            lines: vec![
                line("a-01", Verdict::Pass),
                line("a-02", Verdict::Fail(failure)),
                line("a-03", Verdict::Skipped("why".into())),
                line("a-04", Verdict::Error("how".into())),
            ],
        }
    }

    #[test]
    fn all_forms_tell_each_verdict() {
        let report = report();
        assert_eq!(report.summary(), "4 cases: 1 passed, 1 failed, 1 skipped, 1 without a verdict");
        let line = Report::human_line(&report.lines[1]);
        assert!(line.contains("7143-6.2-8: expected this; seen: that"), "{line}");
        let details = report.details();
        assert!(details.contains("seen      that") && details.contains("0000  23"), "{details}");
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["lines"][0]["verdict"], "pass");
        assert_eq!(json["lines"][1]["detail"]["seen"], "that");
        assert_eq!(json["lines"][2]["detail"], "why");
        let junit = report.junit().unwrap();
        assert!(junit.contains("failures=\"1\"") && junit.contains("errors=\"1\""), "{junit}");
        assert!(junit.contains("a &lt;title>") || junit.contains("a &lt;title&gt;"), "{junit}");
    }
}
