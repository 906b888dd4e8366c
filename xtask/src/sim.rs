//! Seeded simulations of whole sessions (`kits/sim`), built in the profile that is cheapest for many runs.

use std::ffi::OsString;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::tools::cargo;

/// Options of `cargo xtask sim`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// What the simulator takes; `cargo xtask sim --help` tells.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub(crate) rest: Vec<OsString>,
}

/// Builds the simulator and runs it with these options. Its exit code is ours: 1 when a seed failed, 2 for options
/// that make no sense.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--profile", "sim", "--package", "iscsi-sim", "--"]).args(&args.rest);
    // Each run takes and frees many slabs: kept by the allocator they need no new pages.
    command.env("MALLOC_TRIM_THRESHOLD_", "268435456");
    let status = command.stdin(Stdio::null()).status().context("cargo run")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(2) => std::process::exit(2),
        _ => bail!("simulation: {status}"),
    }
}
