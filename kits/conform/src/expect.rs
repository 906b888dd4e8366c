//! Known deviations of a peer: a run fails over new ones, and over old ones that are gone.

use anyhow::Context as _;
use serde::Deserialize;

use crate::report::Report;
use crate::verdict::Verdict;

/// What a peer is known not to keep. Read from TOML: `[[known]]` and `[[excluded]]`, each with `case` and `why`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// One entry a case.
    #[serde(default)]
    pub known: Vec<Known>,
    /// Cases that are not run, as the peer does not survive them.
    #[serde(default)]
    pub excluded: Vec<Known>,
}

/// A case that a peer is known to fail, or not to survive.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Id of the case.
    pub case: String,
    /// What the peer does instead, and how that is known.
    pub why: String,
}

/// Something that the expectations do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// A case failed that is not known to.
    New(String),
    /// A case that is known to fail passed: the entry is to be removed.
    Gone(String),
    /// An entry for a case that does not exist.
    NoSuchCase(String),
}

impl std::fmt::Display for Surprise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New(id) => write!(f, "{id}: failed, and is not known to"),
            Self::Gone(id) => write!(f, "{id}: is known to fail and passed: remove it from the table"),
            Self::NoSuchCase(id) => write!(f, "{id}: in the table of known failures, and no case"),
        }
    }
}

impl Expectations {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// The text is not such a table.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("table of known failures")
    }

    /// Where the report and the table differ. Skipped cases tell nothing.
    pub fn compare(&self, report: &Report) -> Vec<Surprise> {
        let known = |id: &str| self.known.iter().any(|known| known.case == id);
        let all = crate::case::cases(report.role);
        let named = self.known.iter().chain(&self.excluded);
        let unknown = named.filter(|known| all.iter().all(|case| case.id != known.case));
        let mut out: Vec<Surprise> = unknown.map(|known| Surprise::NoSuchCase(known.case.clone())).collect();
        out.extend(report.lines.iter().filter_map(|line| match &line.verdict {
            Verdict::Pass if known(line.id) => Some(Surprise::Gone(line.id.into())),
            Verdict::Fail(_) | Verdict::Error(_) if !known(line.id) => Some(Surprise::New(line.id.into())),
            _ => None,
        }));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Role;
    use crate::report::Line;

    #[test]
    fn new_and_gone_failures_are_surprises() {
        let line = |id, verdict| Line { id, title: "", rules: &[], seconds: 0.0, verdict };
        let bad = || Verdict::Error("no answer".into());
        let report = Report {
            role: Role::Target,
            lines: vec![line("login-01", bad()), line("login-02", bad()), line("login-03", Verdict::Pass)],
        };
        let table = Expectations::parse(
            "[[known]]\ncase = \"login-01\"\nwhy = \"x\"\n[[known]]\ncase = \"login-03\"\nwhy = \"x\"\n\
             [[known]]\ncase = \"login-99\"\nwhy = \"x\"\n",
        );
        let (gone, new) = (Surprise::Gone("login-03".into()), Surprise::New("login-02".into()));
        assert_eq!(table.unwrap().compare(&report), [Surprise::NoSuchCase("login-99".into()), new, gone]);
        assert!(Expectations::parse("[[known]]\ncase = 1").is_err());
    }

    #[test]
    fn excluded_cases_are_read_and_have_to_exist() {
        let entry = |id| format!("[[excluded]]\ncase = \"{id}\"\nwhy = \"panics\"\n");
        let table = Expectations::parse(&(entry("login-01") + &entry("login-99"))).unwrap();
        let report = Report { role: Role::Target, lines: Vec::new() };
        assert_eq!(table.compare(&report), [Surprise::NoSuchCase("login-99".into())]);
        let options = crate::Options { excluded: table.excluded, ..crate::Options::default() };
        let url = "iscsi://127.0.0.1:1/iqn.2026-01.org.example:none/0".parse().unwrap();
        let options = crate::Options { cases: vec!["login-01".into()], ..options };
        let report = crate::run_target(&url, &options, |_| ()).unwrap();
        let why = "excluded for this peer: panics".to_owned();
        assert_eq!(report.lines[0].verdict, Verdict::Skipped(why));
    }
}
