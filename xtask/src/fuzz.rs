//! Every fuzz target of `fuzz/` for a while, as many at a time as there are processors.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

use crate::tools;
use crate::workspace::root;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Run these targets only.
    #[arg(value_name = "TARGET")]
    pub(crate) only: Vec<String>,
}

/// Builds the targets and runs each from its checked-in corpus. Logs are in `fuzz/target/logs/`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let fuzz = root().join("fuzz");
    tools::need("cargo-fuzz", &["fuzz", "--version"])?;
    let listed = tools::output(&mut cargo_fuzz(&fuzz, "list"))?;
    let mut targets: Vec<String> = listed.lines().map(str::to_owned).collect();
    for name in &args.only {
        ensure!(targets.contains(name), "no fuzz target {name}; there are {}", targets.join(", "));
    }
    targets.retain(|target| args.only.is_empty() || args.only.contains(target));
    ensure!(!targets.is_empty(), "fuzz/ has no target");
    tools::run(&mut cargo_fuzz(&fuzz, "build"))?;

    let logs = fuzz.join("target/logs");
    std::fs::create_dir_all(&logs)?;
    let waiting = Mutex::new(targets.into_iter().rev().collect::<Vec<_>>());
    let failed = Mutex::new(Vec::new());
    let next = || waiting.lock().ok()?.pop();
    let work = || {
        while let Some(target) = next() {
            let log = logs.join(format!("{target}.log"));
            let outcome = run_target(&fuzz, &target, args.seconds, &log);
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            match outcome {
                Ok(()) => println!("{target:<24}{}", last_line(&text, "Done ")),
                Err(error) => {
                    println!("{target:<24}FAILED: {error:#}\n{text}");
                    if let Ok(mut failed) = failed.lock() {
                        failed.push(target);
                    }
                }
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..processors).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzz targets with findings: {}", failed.join(", "));
}

fn cargo_fuzz(fuzz: &Path, verb: &str) -> Command {
    let mut command = tools::rustup_cargo("+nightly");
    command.args(["fuzz", verb]).current_dir(fuzz);
    command
}

fn run_target(fuzz: &Path, target: &str, seconds: u64, log: &Path) -> Result<()> {
    // New inputs go to a directory that git ignores; the corpus in the tree stays as it is.
    let found = fuzz.join("target/corpus").join(target);
    std::fs::create_dir_all(&found)?;
    let mut command = cargo_fuzz(fuzz, "run");
    command.arg(target).arg(&found);
    let seeds = fuzz.join("corpus").join(target);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    command.args(["--", "-rss_limit_mb=2048", "-timeout=10", &format!("-max_total_time={seconds}")]);
    let file = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = command.status().context("cargo fuzz")?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn last_line<'a>(text: &'a str, prefix: &str) -> &'a str {
    text.lines().rev().find(|line| line.starts_with(prefix)).unwrap_or("")
}
