//! Every fuzz target of `fuzz/` for a while.

use anyhow::{Result, bail, ensure};

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

/// Builds the targets once and runs one after the other; each starts from its checked-in corpus.
pub(crate) fn run(args: &Args) -> Result<()> {
    let fuzz = root().join("fuzz");
    tools::need("cargo-fuzz", &["fuzz", "--version"])?;
    let cargo_fuzz = |verb: &str| {
        let mut command = tools::rustup_cargo("+nightly");
        command.args(["fuzz", verb]).current_dir(&fuzz);
        command
    };
    let listed = tools::output(&mut cargo_fuzz("list"))?;
    let targets: Vec<&str> = listed.lines().collect();
    ensure!(!targets.is_empty(), "fuzz/ has no target");
    for name in &args.only {
        ensure!(targets.contains(&name.as_str()), "no fuzz target {name}; there are {}", targets.join(", "));
    }
    let mut failed = Vec::new();
    for target in targets {
        if !args.only.is_empty() && !args.only.iter().any(|name| name == target) {
            continue;
        }
        println!("\n--- fuzz {target}, {} s", args.seconds);
        // New inputs go to a directory that git ignores; the corpus in the tree stays as it is.
        let found = fuzz.join("target/corpus").join(target);
        std::fs::create_dir_all(&found)?;
        let mut command = cargo_fuzz("run");
        command.arg(target).arg(&found);
        let seeds = fuzz.join("corpus").join(target);
        if seeds.is_dir() {
            command.arg(seeds);
        }
        command.args(["--", "-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=10"]);
        command.arg(format!("-max_total_time={}", args.seconds));
        if let Err(error) = tools::run(&mut command) {
            println!("{error:#}");
            failed.push(target);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzz targets with findings: {}", failed.join(", "));
}
