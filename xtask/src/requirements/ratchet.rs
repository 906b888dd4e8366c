//! `specs/ratchet.toml`: how many requirements each crate had open when last recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Requirements of one crate that lack code or a test.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    /// MUST and MUST NOT.
    pub(super) must: usize,
    /// SHOULD and SHOULD NOT.
    pub(super) should: usize,
}

/// The recorded counts.
#[derive(Debug, Default)]
pub(super) struct Ratchet(BTreeMap<String, Open>);

const HEAD: &str =
    "# Open requirements per crate. The counts only fall: `cargo xtask requirements --update`.\n";

impl Ratchet {
    pub(super) fn load(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map(Self).context("specs/ratchet.toml"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).context("specs/ratchet.toml"),
        }
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut text = HEAD.to_owned();
        for (name, open) in &self.0 {
            write!(text, "\n[{name}]\nmust = {}\nshould = {}\n", open.must, open.should)?;
        }
        std::fs::write(path, text).context("specs/ratchet.toml")
    }

    /// Crates with more open than recorded, as faults. A crate that is not recorded may have none.
    pub(super) fn rises(&self, now: &BTreeMap<String, Open>) -> Vec<String> {
        let mut faults = Vec::new();
        // The first record of all takes things as they are.
        if self.0.is_empty() {
            return faults;
        }
        for (name, open) in now {
            let before = self.0.get(name).copied().unwrap_or_default();
            for (level, was, is) in [("MUST", before.must, open.must), ("SHOULD", before.should, open.should)]
            {
                if is > was {
                    faults.push(format!("{name}: {is} {level} open, the ratchet stands at {was}"));
                }
            }
        }
        faults
    }

    /// Whether `--update` would change anything.
    pub(super) fn can_fall(&self, now: &BTreeMap<String, Open>) -> bool {
        let mut lower = Self(self.0.clone());
        lower.lower(now);
        lower.0 != self.0
    }

    /// Takes over every count that fell, and crates that are gone.
    pub(super) fn lower(&mut self, now: &BTreeMap<String, Open>) {
        if self.0.is_empty() {
            self.0.clone_from(now);
        }
        self.0.retain(|name, _| now.contains_key(name));
        for (name, open) in &mut self.0 {
            let now = now.get(name).copied().unwrap_or_default();
            *open = Open { must: open.must.min(now.must), should: open.should.min(now.should) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, usize, usize)]) -> BTreeMap<String, Open> {
        rows.iter().map(|&(n, must, should)| (n.to_owned(), Open { must, should })).collect()
    }

    #[test]
    fn a_rise_is_a_fault_and_is_never_recorded() {
        let mut ratchet = Ratchet(counts(&[("a", 3, 2)]));
        let now = counts(&[("a", 4, 1)]);
        assert_eq!(ratchet.rises(&now), ["a: 4 MUST open, the ratchet stands at 3"]);
        ratchet.lower(&now);
        assert_eq!(ratchet.0, counts(&[("a", 3, 1)]));
    }

    #[test]
    fn an_unrecorded_crate_may_have_none_open() {
        let ratchet = Ratchet(counts(&[("a", 3, 2)]));
        assert_eq!(ratchet.rises(&counts(&[("a", 3, 2), ("b", 0, 0)])), [""; 0]);
        assert_eq!(ratchet.rises(&counts(&[("a", 3, 2), ("b", 1, 0)])).len(), 1);
    }

    #[test]
    fn the_first_record_takes_things_as_they_are() {
        let mut ratchet = Ratchet::default();
        let now = counts(&[("a", 3, 2)]);
        assert!(ratchet.rises(&now).is_empty() && ratchet.can_fall(&now));
        ratchet.lower(&now);
        assert_eq!(ratchet.0, now);
        assert!(!ratchet.can_fall(&now));
    }

    #[test]
    fn what_is_saved_is_what_is_loaded() {
        let path = std::env::temp_dir().join(format!("ratchet-{}.toml", std::process::id()));
        let now = counts(&[("a", 3, 2), ("b-c", 0, 1)]);
        Ratchet(now.clone()).save(&path).unwrap();
        let loaded = Ratchet::load(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(loaded.unwrap().0, now);
    }
}
