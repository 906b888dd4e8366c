//! What was seen, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Line;
use super::verdict::Verdicts;
use crate::table::Table;

/// Counts of results.
#[derive(Clone, Copy, Default, Serialize)]
struct Counts {
    pass: usize,
    skip: usize,
    test_bug: usize,
    fail: usize,
}

impl Counts {
    fn add(&mut self, result: &str) {
        match result {
            "pass" => self.pass += 1,
            "skip" => self.skip += 1,
            "test-bug" => self.test_bug += 1,
            _ => self.fail += 1,
        }
    }

    fn cells(&self) -> [String; 4] {
        [self.pass, self.skip, self.test_bug, self.fail].map(|n| n.to_string())
    }
}

#[derive(Serialize)]
struct Json<'a> {
    variants: BTreeMap<&'a str, Counts>,
    families: BTreeMap<&'a str, Counts>,
    tests: &'a [Line],
}

fn counted<'a>(lines: &'a [Line], key: impl Fn(&'a Line) -> &'a str) -> BTreeMap<&'a str, Counts> {
    let mut all: BTreeMap<&str, Counts> = BTreeMap::new();
    for line in lines {
        all.entry(key(line)).or_default().add(line.result);
    }
    all
}

/// `SCSI.Read10` of `SCSI.Read10.Simple`.
fn family(line: &Line) -> &str {
    line.test.rsplit_once('.').map_or(line.test, |(family, _)| family)
}

pub(super) fn print(json: bool, lines: &[Line], _: &Verdicts, took: Duration) -> Result<()> {
    let variants = counted(lines, |line| &line.variant);
    let families = counted(lines, family);
    if json {
        println!("{}", serde_json::to_string_pretty(&Json { variants, families, tests: lines })?);
        return Ok(());
    }
    for (title, counts) in [("family", families), ("variant", variants)] {
        let mut table = Table::new(&[title, "pass", "skip", "test bug", "fail"]);
        for (name, counts) in counts {
            table.row([name.to_owned()].into_iter().chain(counts.cells()));
        }
        println!("\n{table}");
    }
    for (result, title) in [
        ("skip", "Skipped, and why"),
        ("test-bug", "Failed by a fault of the test"),
        ("UNJUSTIFIED", "SKIPPED WITHOUT A REASON"),
        ("FAIL", "FAILED"),
    ] {
        let mut by_note: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        for line in lines.iter().filter(|line| line.result == result) {
            by_note.entry(&line.note).or_default().entry(line.test).or_default().insert(&line.variant);
        }
        if !by_note.is_empty() {
            println!("\n{title}:");
        }
        for (note, tests) in by_note {
            println!("- {}", if note.is_empty() { "(it does not say)" } else { note });
            for (test, variants) in tests {
                println!("    {test} ({})", variants.into_iter().collect::<Vec<_>>().join(", "));
            }
        }
    }
    println!("\n{} runs of tests in {:.0} s", lines.len(), took.as_secs_f64());
    Ok(())
}
