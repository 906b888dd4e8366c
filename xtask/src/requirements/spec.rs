//! The requirement matrices in `specs/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// How binding a requirement is (RFC 2119).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "MAY")]
    May,
}

/// One requirement; the fields are described in `specs/README.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "every field is checked for presence, not all are printed")]
pub(super) struct Requirement {
    pub(super) id: String,
    pub(super) section: String,
    pub(super) level: Level,
    pub(super) role: String,
    pub(super) area: String,
    #[serde(rename = "crate")]
    pub(super) owner: String,
    pub(super) text: String,
    pub(super) test: String,
    #[serde(default)]
    pub(super) occ: Vec<u32>,
    pub(super) note: Option<String>,
}

impl Requirement {
    /// Nothing a test could show.
    pub(super) fn untestable(&self) -> bool {
        self.test.starts_with("not testable")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    #[serde(default)]
    req: Vec<Requirement>,
}

/// A requirement that is knowingly not met.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    pub(super) id: String,
    pub(super) reason: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// Everything in `specs/`, by id.
#[derive(Debug, Default)]
pub(super) struct Specs {
    pub(super) requirements: BTreeMap<String, Requirement>,
    pub(super) exceptions: BTreeMap<String, Exception>,
    /// What is wrong with the files themselves.
    pub(super) faults: Vec<String>,
}

impl Specs {
    /// Reads `rfc*.toml` and `exceptions.toml` of `dir`.
    pub(super) fn load(dir: &Path) -> Result<Self> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .with_context(|| format!("cannot read {}", dir.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("rfc") && name.ends_with(".toml"))
            .collect();
        files.sort();
        let mut specs = Self::default();
        for file in files {
            let text = std::fs::read_to_string(dir.join(&file))?;
            let matrix: Matrix = toml::from_str(&text).with_context(|| file.clone())?;
            specs.add_matrix(&file, matrix.req);
        }
        let file = "exceptions.toml";
        let exceptions = match std::fs::read_to_string(dir.join(file)) {
            Ok(text) => toml::from_str(&text).context(file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Exceptions::default(),
            Err(error) => return Err(error).context(file),
        };
        specs.add_exceptions(exceptions.exception);
        Ok(specs)
    }

    fn add_matrix(&mut self, file: &str, rows: Vec<Requirement>) {
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        let mut texts: BTreeSet<String> = BTreeSet::new();
        for row in rows {
            let mut fault = |what: &str| self.faults.push(format!("{file}: {}: {what}", row.id));
            let Some((rfc, section, number)) = split_id(&row.id) else {
                fault("malformed id");
                continue;
            };
            if file != format!("rfc{rfc}.toml") {
                fault("belongs to another file");
            }
            if section != row.section {
                fault("id and section disagree");
            }
            if row.text.trim().is_empty() || row.test.trim().is_empty() {
                fault("empty text or test");
            }
            if !texts.insert(row.text.to_lowercase()) {
                fault("repeats the text of another entry");
            }
            let previous = last.insert(section.to_owned(), number);
            if previous.is_some_and(|previous| previous >= number) {
                fault("running numbers of a section increase");
            }
            if self.requirements.insert(row.id.clone(), row.clone()).is_some() {
                self.faults.push(format!("{file}: {}: duplicate id", row.id));
            }
        }
    }

    fn add_exceptions(&mut self, rows: Vec<Exception>) {
        for row in rows {
            let mut fault = |what: &str| self.faults.push(format!("exceptions.toml: {}: {what}", row.id));
            if !self.requirements.contains_key(&row.id) {
                fault("unknown id");
            }
            if row.reason.trim().is_empty() {
                fault("lacks a reason");
            }
            let id = row.id.clone();
            if self.exceptions.insert(id.clone(), row).is_some() {
                self.faults.push(format!("exceptions.toml: {id}: listed twice"));
            }
        }
    }
}

/// RFC, section and running number of an id such as `7143-11.8-1` or `7143-C.1-2`.
pub(super) fn split_id(id: &str) -> Option<(&str, &str, u32)> {
    let (rfc, rest) = id.split_once('-')?;
    let (section, number) = rest.rsplit_once('-')?;
    let rfc_ok = rfc.len() == 4 && rfc.bytes().all(|b| b.is_ascii_digit());
    let mut parts = section.split('.');
    let first = parts.next()?;
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let appendix = first.len() == 1 && first.bytes().all(|b| b.is_ascii_uppercase());
    (rfc_ok && (numeric(first) || appendix) && parts.all(numeric)).then_some(())?;
    Some((rfc, section, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_three_parts() {
        assert_eq!(split_id("7143-4.2.2.1-3"), Some(("7143", "4.2.2.1", 3)));
        assert_eq!(split_id("7143-C-1"), Some(("7143", "C", 1)));
        assert_eq!(split_id("7143-C.2-1"), Some(("7143", "C.2", 1)));
        for id in ["7143-4.2", "714-4-1", "7143-4..2-1", "7143-CC-1", "7143-4-x", ""] {
            assert_eq!(split_id(id), None, "{id}");
        }
    }

    fn row(id: &str, section: &str, text: &str) -> String {
        format!(
            "[[req]]\nid='{id}'\nsection='{section}'\nlevel='MUST NOT'\nrole='both'\narea='pdu'\n\
             crate='iscsi-pdu'\ntext='{text}'\ntest='do -> see'\n"
        )
    }

    fn load(matrix: &str, exceptions: &str) -> Specs {
        let mut specs = Specs::default();
        specs.add_matrix("rfc7143.toml", toml::from_str::<Matrix>(matrix).unwrap().req);
        specs.add_exceptions(toml::from_str::<Exceptions>(exceptions).unwrap().exception);
        specs
    }

    #[test]
    fn a_clean_matrix_has_no_fault() {
        let specs = load(
            &(row("7143-1-1", "1", "a") + &row("7143-1-3", "1", "b")),
            "[[exception]]\nid='7143-1-3'\nreason='why'",
        );
        assert_eq!(specs.faults, [""; 0]);
        assert_eq!(specs.requirements["7143-1-1"].level, Level::MustNot);
        assert_eq!(specs.exceptions["7143-1-3"].reason, "why");
    }

    #[test]
    fn each_fault_is_named() {
        for (matrix, exceptions, word) in [
            (row("7143-1", "1", "a"), "", "malformed"),
            (row("7145-1-1", "1", "a"), "", "another file"),
            (row("7143-1-1", "2", "a"), "", "disagree"),
            (row("7143-1-1", "1", " "), "", "empty"),
            (row("7143-1-1", "1", "a") + &row("7143-1-2", "1", "A"), "", "repeats"),
            (row("7143-1-2", "1", "a") + &row("7143-1-1", "1", "b"), "", "increase"),
            (String::new(), "[[exception]]\nid='7143-1-1'\nreason='why'", "unknown id"),
            (row("7143-1-1", "1", "a"), "[[exception]]\nid='7143-1-1'\nreason=' '", "lacks a reason"),
        ] {
            let faults = load(&matrix, exceptions).faults;
            assert!(faults.len() == 1 && faults[0].contains(word), "{word}: {faults:?}");
        }
    }
}
