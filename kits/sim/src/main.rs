//! Runs seeds, and stops at the first that finds something wrong.

use clap::Parser;
use iscsi_sim::{Plan, Report, World};
use std::process::ExitCode;

/// Deterministic simulation of iSCSI sessions
#[derive(Parser)]
struct Args {
    /// Number of seeds to run
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Tell what happens in each run
    #[arg(long)]
    trace: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let end = args.start.saturating_add(args.seeds);
    let regressions: Vec<u64> = if args.seeds > 1 { iscsi_sim::regressions().collect() } else { Vec::new() };
    let (mut total, mut runs, mut failures) = (Report::default(), 0u64, 0u64);
    for seed in regressions.into_iter().chain(args.start..end) {
        let plan = Plan::of(seed);
        if args.trace {
            println!("{plan:#?}");
        }
        let mut world = World::new(plan);
        if args.trace {
            world = world.with_trace(|at, what| println!("{at:>14.6?}  {what}"));
        }
        match world.run() {
            Ok(report) => {
                runs += 1;
                total.commands += report.commands;
                total.good += report.good;
                total.failed += report.failed;
                total.sessions += report.sessions;
                total.events += report.events;
                total.time += report.time;
            }
            Err(failure) => {
                eprintln!("{failure}\n  again: cargo run -p iscsi-sim -- --seeds 1 --start {seed} --trace");
                failures += 1;
                if !args.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    println!(
        "{runs} runs: {} commands ({} GOOD), {} sessions, {} disturbances, {:.0} h of virtual time",
        total.commands,
        total.good,
        total.sessions,
        total.events,
        total.time.as_secs_f64() / 3600.0
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
