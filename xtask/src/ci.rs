//! Everything continuous integration runs, step by step, with a table at the end.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::table::Table;
use crate::tools::{self, cargo};
use crate::workspace::{Package, below_kits, features_on, metadata, root};
use crate::{fuzz, ibverbs, instructions, layers, requirements, sim};

/// Options of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run these steps only.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these steps out (the table says so).
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    skip: Vec<String>,
    /// List the steps.
    #[arg(long)]
    list: bool,
}

/// How a step that did not fail ended.
enum Outcome {
    Passed,
    /// Could not run here, for this reason.
    Skipped(String),
}

struct Step {
    name: &'static str,
    what: &'static str,
    run: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", what: "formatting", run: fmt },
    Step { name: "shell", what: "shell scripts", run: shell },
    Step { name: "layers", what: "arrows between crates", run: || layers::run().map(passed) },
    Step { name: "requirements", what: "citations and their ratchet", run: requirements },
    Step {
        name: "clippy",
        what: "lints, all targets and features but ibverbs, warnings denied",
        run: clippy,
    },
    Step { name: "test", what: "tests of the workspace", run: test },
    Step {
        name: "test-features",
        what: "tests of the crates with features that nothing in the workspace asks for, but ibverbs",
        run: test_features,
    },
    Step { name: "ibverbs", what: "lints and tests of the provider linked to rdma-core", run: linked },
    Step { name: "sim", what: "2,000 seeds of the session simulator", run: simulate },
    Step { name: "doc", what: "documentation, warnings denied", run: doc },
    Step { name: "no-std", what: "the no_std crates in a program without std", run: no_std },
    Step { name: "features", what: "every combination of features below kits/", run: features },
    Step { name: "package", what: "what would be published", run: package },
    Step { name: "semver", what: "public API against the last release", run: semver },
    Step { name: "deny", what: "licences, bans and sources of dependencies", run: deny },
    Step { name: "msrv", what: "the oldest supported compiler", run: msrv },
    Step { name: "big-endian", what: "codec tests on a big-endian target under Miri", run: big_endian },
    Step { name: "instructions", what: "instructions of the hot operations, against the record", run: count },
    Step { name: "fuzz", what: "20 seconds of each fuzz target", run: fuzz_smoke },
];

fn passed(_: ()) -> Outcome {
    Outcome::Passed
}

/// Runs the steps; all of them, even after one failed, so that one run tells everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        STEPS.iter().for_each(|step| println!("{:<14}{}", step.name, step.what));
        return Ok(());
    }
    for name in args.only.iter().chain(&args.skip) {
        ensure!(STEPS.iter().any(|s| s.name == name), "no step {name}; see --list");
    }
    let mut table = Table::new(&["step", "result", "seconds", ""]);
    let mut failed = Vec::new();
    for step in STEPS {
        let named = |names: &[String]| names.iter().any(|n| n == step.name);
        if !args.only.is_empty() && !named(&args.only) {
            continue;
        }
        let start = Instant::now();
        let result = if named(&args.skip) {
            Ok(Outcome::Skipped("left out by --skip".into()))
        } else {
            println!("\n=== {}: {}", step.name, step.what);
            (step.run)()
        };
        let (word, note) = match result {
            Ok(Outcome::Passed) => ("ok", String::new()),
            Ok(Outcome::Skipped(why)) => {
                println!("SKIPPED: {why}");
                ("SKIPPED", why)
            }
            Err(error) => {
                println!("FAILED: {error:#}");
                failed.push(step.name);
                let first = format!("{error:#}").lines().next().unwrap_or("").chars().take(100).collect();
                ("FAILED", first)
            }
        };
        table.row([step.name.into(), word.into(), seconds(start.elapsed()), note]);
    }
    print!("\n{table}");
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

fn run_step(command: &mut Command) -> Result<Outcome> {
    tools::run(command).map(passed)
}

fn fmt() -> Result<Outcome> {
    run_step(cargo().args(["fmt", "--all", "--check"]))
}

fn shell() -> Result<Outcome> {
    let mut check = Command::new("shellcheck");
    check.args(["--severity=warning", "--external-sources", "--source-path=xtask/lab", ".ci/run"]);
    let lab = std::fs::read_dir(root().join("xtask/lab"))?.filter_map(|entry| Some(entry.ok()?.path()));
    check.args(lab.filter(|path| !path.ends_with("README.md") && !path.ends_with("packages")));
    run_step(check.current_dir(root()))
}

fn requirements() -> Result<Outcome> {
    requirements::run(&requirements::Args::default()).map(passed)
}

fn clippy() -> Result<Outcome> {
    let mut lint = cargo();
    lint.args(["clippy", "--workspace", "--all-targets", "--features", &features_of_all()?]);
    run_step(lint.args(["--", "-D", "warnings"]))
}

fn test() -> Result<Outcome> {
    run_step(cargo().args(["test", "--workspace"]))
}

/// Members ask for most features of each other, so that the tests of the workspace have them on; what is left is little.
fn test_features() -> Result<Outcome> {
    let off = features_left_off()?;
    let packages: BTreeSet<&str> = off.iter().map(|(package, _)| package.as_str()).collect();
    if packages.is_empty() {
        return Ok(Outcome::Passed);
    }
    let names: Vec<String> = off.iter().map(|(package, feature)| format!("{package}/{feature}")).collect();
    let mut test = cargo();
    test.arg("test").args(packages.iter().flat_map(|name| ["--package", name]));
    run_step(test.args(["--features", &names.join(",")]))
}

/// Features, but those in [`NEED_MORE`], that a build of the whole workspace leaves off, with their packages.
fn features_left_off() -> Result<Vec<(String, String)>> {
    let metadata = metadata()?;
    let on = features_on()?;
    let off = |package: &Package| {
        let on = on.get(&package.name).cloned().unwrap_or_default();
        let names = package.features.keys().filter(|name| !NEED_MORE.contains(&name.as_str()));
        names.filter(|name| !on.contains(*name)).map(|name| (package.name.clone(), name.clone())).collect()
    };
    Ok(metadata.packages.iter().flat_map(|package| -> Vec<_> { off(package) }).collect())
}

/// Features that need more than Rust to build: left out of the steps that switch everything on.
const NEED_MORE: &[&str] = &["ibverbs"];

/// Every feature of every member but those in [`NEED_MORE`], for `--features`.
fn features_of_all() -> Result<String> {
    let metadata = metadata()?;
    let features = metadata.packages.iter().flat_map(|package| {
        let names = package.features.keys().filter(|name| !NEED_MORE.contains(&name.as_str()));
        names.map(|name| format!("{}/{name}", package.name))
    });
    Ok(features.collect::<Vec<_>>().join(","))
}

/// The verbs provider linked to rdma-core, where that can be built.
fn linked() -> Result<Outcome> {
    if let Some(why) = ibverbs::lacking() {
        return Ok(Outcome::Skipped(why));
    }
    let these = ["-p", "iser-rdma", "--features", "ibverbs,iwarp"];
    tools::run(cargo().arg("clippy").args(these).args(["--all-targets", "--", "-D", "warnings"]))?;
    run_step(cargo().arg("test").args(these).args(["--lib", "provider::verbs"]))
}

fn simulate() -> Result<Outcome> {
    let rest = ["--seeds", "2000", "--quiet"].map(Into::into).to_vec();
    sim::run(&sim::Args { rest }).map(passed)
}

fn doc() -> Result<Outcome> {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--features", &features_of_all()?]);
    run_step(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// `xtask/no-std` links the crates into a static library that has its own panic handler: if anything
/// brought `std` along, the handler would be there twice and the build would fail. The flags make the
/// crates believe that there is no operating system, as a target without one may not be installed.
fn no_std() -> Result<Outcome> {
    let flags = r#"-Aexplicit_builtin_cfgs_in_flags --cfg target_os="none""#;
    let mut build = cargo();
    build.args(["build", "--manifest-path", "xtask/no-std/Cargo.toml", "--target-dir"]);
    run_step(build.arg(root().join("target/no-std")).env("RUSTFLAGS", flags))
}

/// With each combination of features on; aside from the private ones (`_name`), which others switch on, and those that need
/// more than Rust.
fn features() -> Result<Outcome> {
    tools::need("cargo-hack", &["hack", "--version"])?;
    let metadata = metadata()?;
    let mut command = cargo();
    command.args(["hack", "check", "--feature-powerset", "--lib"]);
    for package in below_kits(&metadata) {
        command.args(["--package", &package.name]);
        for private in
            package.features.keys().filter(|name| name.starts_with('_') || NEED_MORE.contains(&name.as_str()))
        {
            command.args(["--exclude-features", private]);
        }
    }
    run_step(command.env("RUSTFLAGS", "-D warnings").env("CARGO_TARGET_DIR", root().join("target/features")))
}

/// Packs every crate that is published; the builds of the other steps stand in for building the packages.
fn package() -> Result<Outcome> {
    let metadata = metadata()?;
    let mut pack = cargo();
    pack.args(["package", "--quiet", "--workspace", "--no-verify", "--allow-dirty"]);
    for package in metadata.packages.iter().filter(|package| !package.published()) {
        pack.args(["--exclude", &package.name]);
    }
    run_step(&mut pack)
}

/// Compares with the newest release that is an ancestor, a tag `v1.2.3`: an API that breaks needs the version number
/// of a breaking release. Before the first release there is nothing to break.
fn semver() -> Result<Outcome> {
    let mut tags = Command::new("git");
    tags.args(["tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname"]);
    let tags = tools::output(tags.current_dir(root()))?;
    let Some(release) = tags.lines().next() else {
        return Ok(Outcome::Skipped(
            "no release to compare with: no tag v* before the first publication".into(),
        ));
    };
    tools::need("cargo-semver-checks", &["semver-checks", "--version"])?;
    let metadata = metadata()?;
    for package in metadata.packages.iter().filter(|package| package.published()) {
        let wanted = package.features.keys().filter(|name| !NEED_MORE.contains(&name.as_str()));
        let features = wanted.map(String::as_str).collect::<Vec<_>>().join(",");
        let mut check = cargo();
        check.args(["semver-checks", "check-release", "--package", &package.name]);
        check.args(["--only-explicit-features", "--features", &features, "--baseline-rev", release]);
        tools::run(&mut check)?;
    }
    Ok(Outcome::Passed)
}

/// The advisory database is not among these: it is fetched from a Git host at run time, which a
/// closed build machine cannot do. `cargo deny check advisories` runs where the network allows.
fn deny() -> Result<Outcome> {
    tools::need("cargo-deny", &["deny", "--version"])?;
    println!("advisories: not checked here, their database is fetched at run time");
    run_step(cargo().args(["deny", "--all-features", "--workspace", "check", "licenses", "bans", "sources"]))
}

fn msrv() -> Result<Outcome> {
    let metadata = metadata()?;
    let version = metadata.packages.iter().find_map(|p| p.rust_version.clone()).unwrap_or_default();
    let toolchain = format!("+{version}");
    if !tools::succeeds(tools::rustup_cargo(&toolchain).arg("--version")) {
        let why =
            format!("no toolchain {version} installed; clippy's incompatible_msrv lint stands in for it");
        return Ok(Outcome::Skipped(why));
    }
    let target = root().join("target/msrv");
    let features = features_of_all()?;
    run_step(
        tools::rustup_cargo(&toolchain)
            .args(["check", "--workspace", "--exclude", "xtask", "--features", &features])
            .env("CARGO_TARGET_DIR", target),
    )
}

fn big_endian() -> Result<Outcome> {
    let miri = |args: &[&str]| {
        let mut command = tools::rustup_cargo("+nightly");
        command.arg("miri").args(args).env("CARGO_TARGET_DIR", root().join("target/miri"));
        command
    };
    if !tools::succeeds(&mut miri(&["--version"])) {
        return Ok(Outcome::Skipped(
            "no Miri installed (rustup +nightly component add miri rust-src)".into(),
        ));
    }
    let packages = ["--package", "iscsi-pdu", "--package", "scsi-cmd"];
    run_step(
        miri(&["test", "--target", "s390x-unknown-linux-gnu", "--lib"])
            .args(packages)
            // Text has no byte order, and takes an interpreter minutes.
            .args(["--", "--skip", "text::"])
            .env("MIRIFLAGS", "-Zmiri-disable-isolation")
            .env("PROPTEST_CASES", "1"),
    )
}

fn count() -> Result<Outcome> {
    let skipped = instructions::run(&instructions::Args::default())?;
    Ok(skipped.map_or(Outcome::Passed, Outcome::Skipped))
}

fn fuzz_smoke() -> Result<Outcome> {
    fuzz::run(&fuzz::Args { seconds: 20, only: Vec::new() }).map(passed)
}
