//! Requirements against citations: what is covered, what is open, and that the open ones grow fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::table::Table;
use crate::workspace::root;
use cite::{Citation, Place};
use ratchet::{Open, Ratchet};
use spec::{Level, Requirement, Specs};

mod cite;
mod lexer;
mod ratchet;
mod spec;

/// Options of `cargo xtask requirements`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Show one crate, with its open requirements in full.
    #[arg(long = "crate", value_name = "NAME")]
    krate: Option<String>,
    /// List the open requirements of every crate.
    #[arg(long)]
    open: bool,
    /// Show one requirement (or all that begin so) with its citations.
    #[arg(long, value_name = "ID")]
    show: Option<String>,
    /// Record the present counts in specs/ratchet.toml where they fell.
    #[arg(long)]
    update: bool,
}

/// The citations of one requirement, `path:line` each.
#[derive(Default)]
struct Cited {
    code: Vec<String>,
    tests: Vec<String>,
    ignored: Vec<String>,
}

/// How far a requirement is covered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Cited beside code and in a test that runs.
    Covered,
    /// Cited in a test only.
    TestOnly,
    /// Cited beside code only.
    CodeOnly,
    /// Cited nowhere.
    Uncited,
    /// Listed in exceptions.toml.
    Excepted,
    /// Nothing a test could show, and cited nowhere.
    Untestable,
}

/// Checks the specs, the citations and the ratchet, and prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = root();
    let specs = Specs::load(&root.join("specs"))?;
    let mut faults = specs.faults.clone();
    let cited = collect(&root, &specs, &mut faults)?;
    if let Some(prefix) = &args.show {
        return show(&specs, &cited, prefix);
    }
    for id in specs.exceptions.keys() {
        if cited.get(id).is_some_and(|c| !c.tests.is_empty()) {
            faults.push(format!("exceptions.toml: {id}: is cited by a test, so it is no exception"));
        }
    }

    let mut open = BTreeMap::new();
    print!("{}", summary(&specs, &cited, args.krate.as_deref(), &mut open));
    if args.open || args.krate.is_some() {
        list_open(&specs, &cited, args.krate.as_deref());
    }

    let path = root.join("specs/ratchet.toml");
    let mut ratchet = Ratchet::load(&path)?;
    faults.extend(ratchet.rises(&open));
    if args.update {
        ratchet.lower(&open);
        ratchet.save(&path)?;
    } else if ratchet.can_fall(&open) {
        println!("\nFewer are open than specs/ratchet.toml says: record it with --update.");
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults\n  {}", faults.len(), faults.join("\n  "));
}

/// Citations of every source file, by id. Unknown ids are faults.
fn collect(root: &Path, specs: &Specs, faults: &mut Vec<String>) -> Result<BTreeMap<String, Cited>> {
    let known = |id: &str| specs.requirements.contains_key(id);
    let mut cited: BTreeMap<String, Cited> = BTreeMap::new();
    for path in sources(root)? {
        let src = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let shown = path.strip_prefix(root).unwrap_or(&path);
        let (default, scenario) = standing(shown);
        for Citation { id, line, place } in cite::citations(&src, default, scenario, &known) {
            let at = format!("{}:{line}", shown.display());
            if !known(&id) {
                faults.push(format!("{at}: unknown requirement {id}"));
                continue;
            }
            let entry = cited.entry(id).or_default();
            match place {
                Place::Code => entry.code.push(at),
                Place::Test => entry.tests.push(at),
                Place::Ignored => entry.ignored.push(at),
                Place::Support => {}
            }
        }
    }
    Ok(cited)
}

/// What a file's text counts as outside tests, and whether its public functions are scenarios that
/// the tests of other crates run: `datamover::conformance` and the simulator's scenarios are.
fn standing(path: &Path) -> (Place, bool) {
    let parts: BTreeSet<&str> = path.iter().filter_map(|p| p.to_str()).collect();
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("");
    let scenario = ["conformance", "scenarios"].iter().any(|&s| stem == s || parts.contains(s));
    let support = ["tests", "benches", "examples", "fuzz"].iter().any(|&s| stem == s || parts.contains(s));
    (if support || scenario { Place::Support } else { Place::Code }, scenario)
}

/// Rust files of the checkout. This program is left out, as its tests cite ids that they make up.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let (path, name) = entry.map(|e| (e.path(), e.file_name()))?;
            let hidden = name.to_string_lossy().starts_with('.');
            // Cargo marks its build directories so; by name, `kits/target` would look like one.
            let built = path.join("CACHEDIR.TAG").exists();
            if path.is_dir() && !hidden && !built && path != root.join("xtask") {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn state(requirement: &Requirement, cited: &BTreeMap<String, Cited>, specs: &Specs) -> State {
    let cited = cited.get(&requirement.id);
    let code = cited.is_some_and(|c| !c.code.is_empty());
    let tested = cited.is_some_and(|c| !c.tests.is_empty());
    match (code, tested) {
        (true, true) => State::Covered,
        _ if specs.exceptions.contains_key(&requirement.id) => State::Excepted,
        _ if requirement.untestable() && !tested => State::Untestable,
        (false, true) => State::TestOnly,
        (true, false) => State::CodeOnly,
        (false, false) => State::Uncited,
    }
}

fn is_open(state: State) -> bool {
    matches!(state, State::TestOnly | State::CodeOnly | State::Uncited)
}

/// One line a crate; fills `open` for every crate, also those not shown.
fn summary(
    specs: &Specs,
    cited: &BTreeMap<String, Cited>,
    only: Option<&str>,
    open: &mut BTreeMap<String, Open>,
) -> Table {
    let mut table = Table::new(&[
        "crate",
        "MUST",
        "covered",
        "test only",
        "code only",
        "uncited",
        "excepted",
        "not testable",
        "open",
        "SHOULD",
        "covered",
        "open",
        "MAY",
        "covered",
    ]);
    let owners: BTreeSet<&str> = specs.requirements.values().map(|r| r.owner.as_str()).collect();
    let mut total = [0; 13];
    for owner in owners {
        let states = |levels: &[Level]| -> Vec<State> {
            let mine = specs.requirements.values().filter(|r| r.owner == owner && levels.contains(&r.level));
            mine.map(|r| state(r, cited, specs)).collect()
        };
        let count = |states: &[State], wanted: State| states.iter().filter(|&&s| s == wanted).count();
        let open_in = |states: &[State]| states.iter().filter(|&&s| is_open(s)).count();
        let must = states(&[Level::Must, Level::MustNot]);
        let should = states(&[Level::Should, Level::ShouldNot]);
        let may = states(&[Level::May]);
        open.insert(owner.to_owned(), Open { must: open_in(&must), should: open_in(&should) });
        let numbers = [
            must.len(),
            count(&must, State::Covered),
            count(&must, State::TestOnly),
            count(&must, State::CodeOnly),
            count(&must, State::Uncited),
            count(&must, State::Excepted),
            count(&must, State::Untestable),
            open_in(&must),
            should.len(),
            count(&should, State::Covered),
            open_in(&should),
            may.len(),
            count(&may, State::Covered),
        ];
        if only.is_none_or(|only| only == owner) {
            table.row(std::iter::once(owner.to_owned()).chain(numbers.iter().map(ToString::to_string)));
        }
        total.iter_mut().zip(numbers).for_each(|(sum, n)| *sum += n);
    }
    if only.is_none() {
        table.row(std::iter::once("all".to_owned()).chain(total.iter().map(ToString::to_string)));
    }
    table
}

fn list_open(specs: &Specs, cited: &BTreeMap<String, Cited>, only: Option<&str>) {
    println!();
    for requirement in specs.requirements.values() {
        let state = state(requirement, cited, specs);
        let shown = is_open(state) && requirement.level != Level::May;
        if !shown || only.is_some_and(|only| only != requirement.owner) {
            continue;
        }
        let ignored = cited.get(&requirement.id).is_some_and(|c| !c.ignored.is_empty());
        let lacks = match state {
            State::TestOnly => "no code",
            State::CodeOnly if ignored => "test ignored",
            State::CodeOnly => "no test",
            _ => "uncited",
        };
        let Requirement { id, level, owner, text, .. } = requirement;
        println!("{id:<20} {:<10} {owner:<16} {lacks:<12} {text}", format!("{level:?}"));
    }
}

fn show(specs: &Specs, cited: &BTreeMap<String, Cited>, prefix: &str) -> Result<()> {
    let matches = |id: &str| {
        id.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
    };
    let found: Vec<_> = specs.requirements.values().filter(|r| matches(&r.id)).collect();
    if found.is_empty() {
        bail!("no requirement begins with {prefix}");
    }
    for Requirement { id, level, role, area, owner, text, test, .. } in found {
        println!("{id}  {level:?}  {role}  {area}  {owner}\n    {text}\n    test: {test}");
        if let Some(exception) = specs.exceptions.get(id) {
            println!("    exception: {}", exception.reason);
        }
        if let Some(Cited { code, tests, ignored }) = cited.get(id) {
            for (what, places) in [("code", code), ("test", tests), ("ignored", ignored)] {
                places.iter().for_each(|place| println!("    {what}: {place}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_for_what_they_are() {
        let of = |path: &str| standing(Path::new(path));
        assert_eq!(of("iscsi-pdu/src/frame.rs"), (Place::Code, false));
        assert_eq!(of("kits/target/src/nodes.rs"), (Place::Code, false));
        assert_eq!(of("iscsi-pdu/src/pdu/tests.rs"), (Place::Support, false));
        assert_eq!(of("iscsi-pdu/tests/laws.rs"), (Place::Support, false));
        assert_eq!(of("kits/initiator/examples/demo.rs"), (Place::Support, false));
        assert_eq!(of("datamover/src/conformance.rs"), (Place::Support, true));
        assert_eq!(of("datamover/src/conformance/write.rs"), (Place::Support, true));
    }

    /// The matrices of this repository load and agree with themselves.
    #[test]
    fn the_specs_are_sound() {
        let specs = Specs::load(&root().join("specs")).unwrap();
        assert_eq!(specs.faults, [""; 0]);
        assert!(specs.requirements.len() > 1000);
    }
}
