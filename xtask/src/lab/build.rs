//! The programs that scenarios run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Wanted;
use crate::tools::{cargo, output, run};
use crate::workspace::root;
use crate::{ibverbs, interop};

/// Builds what the scenarios run; where it is then. The guest is an emulator: programs without optimisation would take
/// their time in it. The few scenarios of a quick run take what the tests, `cargo xtask interop` and the like have built.
pub(super) fn build(wanted: &[Wanted], quick: bool) -> Result<PathBuf> {
    let any = |script: &str| wanted.iter().any(|(trip, _)| trip.script == script);
    let build = |what: &[&str]| run(cargo().args(["build", "--quiet"]).args(what).stdout(std::io::stderr()));
    if quick {
        interop::build(false)?;
        if any("iwarp.sh") {
            build(&["--workspace", "--example", "rping"])?;
        }
    } else {
        let programs = ["--bins", "--example", "cancel", "-p", "iscsi-target", "-p", "iscsi-initiator"];
        build(&[&["--release"], &programs[..]].concat())?;
        if any("conform.sh") {
            build(&["--release", "-p", "iscsi-conform"])?;
        }
        if any("iwarp.sh") {
            build(&["--release", "--example", "rping", "-p", "iwarp"])?;
        }
    }
    let programs = root().join(if quick { "target/debug" } else { "target/release" });
    let tested = |scenario| wanted.iter().any(|(t, s)| t.script == "conformance.sh" && s.contains(&scenario));
    if tested("verbs") {
        let whose: &[&str] =
            if quick { &["--workspace"] } else { &["--release", "-p", "iser-rdma", "--features", "verbs"] };
        test_program(whose, programs.join("tests/conformance-verbs"))?;
    }
    if tested("ibverbs") {
        if let Some(why) = ibverbs::lacking() {
            bail!("the scenario ibverbs: {why}");
        }
        let whose = ["--release", "-p", "iser-rdma", "--features", "ibverbs"];
        test_program(&whose, programs.join("tests/conformance-ibverbs"))?;
    }
    Ok(programs)
}

/// The conformance tests of the verbs provider as a program.
fn test_program(whose: &[&str], to: PathBuf) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--quiet", "--no-run", "--message-format=json", "--test", "conformance_verbs"]);
    let messages = output(test.args(whose))?;
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.filter_map(|m| m.get("executable")?.as_str().map(PathBuf::from)).next_back();
    std::fs::create_dir_all(to.parent().context("not in a directory")?)?;
    std::fs::copy(program.context("no test was built")?, to)?;
    Ok(())
}
