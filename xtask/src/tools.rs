//! Starting other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::root;

/// The cargo that started us, in the top directory.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    clean(&mut command);
    command
}

/// `cargo +TOOLCHAIN`, by way of rustup's proxy.
pub(crate) fn rustup_cargo(toolchain: &str) -> Command {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let proxy = home.map(|home| home.join("bin/cargo")).filter(|path| path.exists());
    let mut command = Command::new(proxy.unwrap_or_else(|| "cargo".into()));
    command.arg(toolchain).current_dir(root());
    clean(&mut command);
    // `cargo xtask` fixes the toolchain of its children; this one is to be another.
    for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// What `cargo run` sets for this program would make cargo rebuild crates that look at it.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name_str = name.to_string_lossy();
        if name_str.starts_with("CARGO_PKG_") || name_str.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Runs a command with our output streams and no input; an error unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().with_context(|| shown(command))?;
    ensure!(status.success(), "{status}: {}", shown(command));
    Ok(())
}

/// Standard output of a command that must succeed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| shown(command))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {errors}", output.status, shown(command));
    String::from_utf8(output.stdout).context("output is not UTF-8")
}

/// Whether a command can be run and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// An error that says how to get a cargo subcommand, unless it is there.
pub(crate) fn need(package: &str, probe: &[&str]) -> Result<()> {
    if !succeeds(cargo().args(probe)) {
        bail!("{package} is missing: cargo install --locked {package}");
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
