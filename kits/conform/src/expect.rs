//! Known deviations of a peer: a run fails over new ones, and over old ones that are gone.

use anyhow::Context as _;
use serde::Deserialize;

use crate::report::Report;
use crate::verdict::Verdict;

/// What a peer is known not to keep. Read from TOML: `[[known]]` and `[[excluded]]`, each with `case` and `why`, and
/// `[[skipped]]` with `cases` and `why`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectations {
    /// One entry a case.
    #[serde(default)]
    pub known: Vec<Known>,
    /// Cases that are not run, as the peer does not survive them.
    #[serde(default)]
    pub excluded: Vec<Known>,
    /// Cases that do not apply to the peer, if that is to be pinned: with such a list, be it empty, a case that is skipped
    /// and not on it is a surprise, and so is one that stands there and is judged. Without one skipped cases tell nothing.
    pub skipped: Option<Vec<Skipped>>,
}

/// Cases that are skipped for one reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Ids of the cases.
    pub cases: Vec<String>,
    /// Why they do not apply.
    pub why: String,
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
    /// A case was skipped, and the list of those that are does not have it: what the case says.
    Skipped(String, String),
    /// A case of the list of skipped ones was judged: the entry is to be removed.
    Judged(String),
    /// An entry for a case that does not exist.
    NoSuchCase(String),
}

impl std::fmt::Display for Surprise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::New(id) => write!(f, "{id}: failed, and is not known to"),
            Self::Gone(id) => write!(f, "{id}: is known to fail and passed: remove it from the table"),
            Self::Skipped(id, why) => write!(f, "{id}: was skipped, and is not known to be: {why}"),
            Self::Judged(id) => {
                write!(f, "{id}: is known to be skipped and was judged: remove it from the table")
            }
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

    /// Where the report and the table differ.
    pub fn compare(&self, report: &Report) -> Vec<Surprise> {
        let all = crate::case::cases(report.role);
        let (no_case, named) = (|id: &&str| all.iter().all(|case| case.id != *id), self.named());
        let unknown = named.into_iter().filter(no_case).map(|id| Surprise::NoSuchCase(id.into()));
        unknown.chain(report.lines.iter().filter_map(|line| self.surprise(line.id, &line.verdict))).collect()
    }

    /// Every case that an entry names.
    fn named(&self) -> Vec<&str> {
        let one = self.known.iter().chain(&self.excluded).map(|known| known.case.as_str());
        let several = self.skipped.iter().flatten().flat_map(|skipped| &skipped.cases);
        one.chain(several.map(String::as_str)).collect()
    }

    fn surprise(&self, id: &str, verdict: &Verdict) -> Option<Surprise> {
        let known = self.known.iter().any(|known| known.case == id);
        let excluded = self.excluded.iter().any(|known| known.case == id);
        let pinned = self.skipped.is_some();
        let skipped =
            self.skipped.iter().flatten().any(|skipped| skipped.cases.iter().any(|case| case == id));
        match verdict {
            Verdict::Skipped(why) if pinned && !skipped && !excluded => {
                Some(Surprise::Skipped(id.into(), why.clone()))
            }
            Verdict::Skipped(_) => None,
            Verdict::Fail(_) | Verdict::Error(_) if !known => Some(Surprise::New(id.into())),
            Verdict::Pass if known => Some(Surprise::Gone(id.into())),
            Verdict::Pass if skipped => Some(Surprise::Judged(id.into())),
            _ => None,
        }
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
    fn a_list_of_skipped_cases_pins_them() {
        let line = |id, verdict| Line { id, title: "", rules: &[], seconds: 0.0, verdict };
        let skip = || Verdict::Skipped("level 2 was offered, 0 negotiated".into());
        let report = Report {
            role: Role::Target,
            lines: vec![
                line("read-07", skip()),
                line("recovery-12", skip()),
                line("login-03", Verdict::Pass),
            ],
        };
        let compare = |text: &str| Expectations::parse(text).unwrap().compare(&report);
        // Without a list a skip tells nothing.
        assert_eq!(compare("known = []"), []);
        let new = |id: &str| Surprise::Skipped(id.into(), "level 2 was offered, 0 negotiated".into());
        assert_eq!(compare("skipped = []"), [new("read-07"), new("recovery-12")]);
        let list = "[[skipped]]\ncases = [\"read-07\", \"login-03\", \"login-99\"]\nwhy = \"x\"\n";
        let (none, judged) = (Surprise::NoSuchCase("login-99".into()), Surprise::Judged("login-03".into()));
        assert_eq!(compare(list), [none, new("recovery-12"), judged]);
        let excluded = "skipped = []\n[[excluded]]\ncase = \"recovery-12\"\nwhy = \"x\"\n";
        assert_eq!(compare(excluded), [new("read-07")]);
    }

    /// Where nothing pins what our own programs skip, a key that they do not negotiate any more would pass unseen.
    #[test]
    fn the_tables_of_our_own_programs_pin_what_is_skipped() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("expected");
        let mut pinned = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let table = Expectations::parse(&std::fs::read_to_string(&path).unwrap()).unwrap();
            if path.file_name().unwrap().to_str().unwrap().starts_with("iscsi") {
                assert!(table.skipped.is_some(), "{}", path.display());
                pinned += 1;
            }
        }
        assert_eq!(pinned, 4);
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
