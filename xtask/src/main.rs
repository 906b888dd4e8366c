//! Repository checks: `cargo xtask COMMAND`. One module a command; `cargo xtask help` lists them.
#![allow(clippy::disallowed_methods, reason = "a tool on the host: it reads the clock and waits")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod conformance;
mod fuzz;
mod ibverbs;
mod instructions;
mod interop;
mod lab;
mod layers;
mod requirements;
mod sim;
mod table;
mod tools;
mod workspace;

/// Checks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Our target beside tgt, istgt and the floor of the machine.
    Bench(Box<bench::Args>),
    /// All that continuous integration runs.
    Ci(ci::Args),
    /// libiscsi's test suite against our target in all its shapes, or against tgt and istgt.
    Conformance(conformance::Args),
    /// A flame graph of our target under a workload, as SVG.
    Flame(bench::flame::Args),
    /// Every fuzz target for some seconds.
    Fuzz(fuzz::Args),
    /// Instructions of the hot operations against what is recorded.
    Instructions(instructions::Args),
    /// Our programs against foreign ones: tgt, libiscsi, QEMU, tshark.
    Interop(interop::Args),
    /// Our programs against the Linux kernel's initiator and target, in a virtual machine.
    Lab(lab::Args),
    /// Crates depend downwards only, and take only the outside crates their level allows.
    Layers,
    /// Requirements cited in code and tests against `specs/*.toml`.
    Requirements(requirements::Args),
    /// Seeded simulations of whole sessions, with faults.
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Flame(args) => bench::flame::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Instructions(args) => instructions::run(&args).map(|skipped| {
            if let Some(why) = skipped {
                println!("SKIPPED: {why}");
            }
        }),
        Command::Interop(args) => interop::interop(&args),
        Command::Lab(args) => lab::lab(&args),
        Command::Layers => layers::run(),
        Command::Requirements(args) => requirements::run(&args),
        Command::Sim(args) => sim::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
