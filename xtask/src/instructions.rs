//! Instructions of the hot operations, counted by callgrind, against what is recorded: a ratchet that does not depend
//! on how fast or how busy the machine is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::table::Table;
use crate::tools::{self, cargo};
use crate::workspace::root;

/// Options of `cargo xtask instructions`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Record the operations that take fewer instructions than before, and new ones.
    #[arg(long)]
    update: bool,
    /// Record all counts, also those that rose: say why in the commit.
    #[arg(long, conflicts_with = "update")]
    accept: bool,
}

/// Percent above the record that pass: another C library, another build of the same compiler.
const TOLERANCE: u64 = 5;

/// Copies and searches of the C library choose their instructions by processor; these make them choose the same
/// on all of x86-64.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX2_Usable,\
                        -AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// Counts and compares; a reason when that is not possible here.
pub(crate) fn run(args: &Args) -> Result<Option<String>> {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        return Ok(Some("instructions are recorded for x86-64 Linux only".into()));
    }
    if !tools::succeeds(Command::new("valgrind").arg("--version")) {
        return Ok(Some("valgrind is missing (Debian: apt-get install valgrind)".into()));
    }
    let record = record_path()?;
    if !record.exists() && !args.update && !args.accept {
        let name = record.file_name().unwrap_or_default().to_string_lossy();
        return Ok(Some(format!("no counts for this compiler ({name}): cargo xtask instructions --update")));
    }
    let before = read(&record)?;
    let now = count()?;

    let mut table = Table::new(&["operation", "instructions", "recorded", ""]);
    let (mut rose, mut written) = (Vec::new(), String::new());
    for (name, count) in &now {
        let old = before.get(name).copied();
        let note = match old {
            None => "new",
            Some(old) if *count > old + old * TOLERANCE / 100 + 1 => {
                rose.push(name.as_str());
                "ROSE"
            }
            Some(old) if *count < old => "fell",
            Some(_) => "",
        };
        let keep = if args.accept { *count } else { old.map_or(*count, |old| old.min(*count)) };
        writeln!(written, "{keep:>8}  {name}")?;
        table.row([name.clone(), count.to_string(), old.map_or("-".into(), |n| n.to_string()), note.into()]);
    }
    print!("{table}");
    if args.update || args.accept {
        std::fs::write(&record, written).with_context(|| record.display().to_string())?;
        return Ok(None);
    }
    let gone: Vec<&String> = before.keys().filter(|name| !now.iter().any(|(n, _)| n == *name)).collect();
    ensure!(gone.is_empty(), "recorded, but no longer counted: {gone:?}");
    let new: Vec<&String> = now.iter().map(|(name, _)| name).filter(|n| !before.contains_key(*n)).collect();
    ensure!(new.is_empty(), "not recorded (cargo xtask instructions --update): {new:?}");
    if rose.is_empty() {
        return Ok(None);
    }
    bail!("more than {TOLERANCE} % above the record: {}", rose.join("; "));
}

/// Counts depend on the compiler: a file for each minor version.
fn record_path() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = tools::output(Command::new(rustc).arg("--version"))?;
    let number = version.split_whitespace().nth(1).context("rustc told no version")?;
    let minor: Vec<&str> = number.split('.').take(2).collect();
    Ok(root().join(format!("bench/instructions/counts/rustc-{}.txt", minor.join("."))))
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(BTreeMap::new()) };
    let line = |line: &str| {
        let (count, name) = line.trim().split_once("  ").with_context(|| format!("no count: {line}"))?;
        Ok((name.to_owned(), count.parse().with_context(|| format!("no count: {line}"))?))
    };
    text.lines().map(line).collect()
}

/// Instructions of each operation, in the program's order. Callgrind writes one dump for each.
fn count() -> Result<Vec<(String, u64)>> {
    // Flags of the environment would change what is counted.
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "instructions", "--profile", "instructions"]);
    tools::run(build.args(["--target-dir", "target"]).env_remove("RUSTFLAGS"))?;
    let program = root().join("target/instructions/instructions");
    let dumps = root().join("target/instructions/dumps");
    let _ = std::fs::remove_dir_all(&dumps);
    std::fs::create_dir_all(&dumps)?;

    let function = "instructions::counted";
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=dump"])
        .args([format!("--zero-before={function}"), format!("--dump-after={function}")])
        .arg(program)
        .env("GLIBC_TUNABLES", TUNABLES)
        .current_dir(&dumps)
        .stdin(Stdio::null());
    let names = tools::output(&mut valgrind)?;
    let mut counts = Vec::new();
    for (at, line) in names.lines().enumerate() {
        let (times, name) = line.split_once('\t').with_context(|| format!("no operation: {line}"))?;
        let path = dumps.join(format!("dump.{}", at + 1));
        let dump = std::fs::read_to_string(&path)
            .with_context(|| format!("{}: callgrind did not see {function}", path.display()))?;
        let total = dump.lines().find_map(|l| l.strip_prefix("summary: ").or(l.strip_prefix("totals: ")));
        let total: u64 = total.context("a dump without a total")?.trim().parse()?;
        counts.push((name.to_owned(), total / times.parse::<u64>()?));
    }
    ensure!(!counts.is_empty(), "the program counted nothing");
    Ok(counts)
}
