//! Runs seeds on all processors, and tells of those that found something wrong, made small.
#![allow(clippy::disallowed_methods, reason = "a tool on the host: it reads the clock and starts threads")]

mod runner;

use clap::Parser;
use iscsi_sim::{Keep, Plan, World};
use runner::Job;
use std::process::ExitCode;
use std::time::Duration;

/// Deterministic simulation of iSCSI sessions.
///
/// Exits with 0 when all seeds pass, 1 when one fails, 2 when the arguments make no sense.
#[derive(Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Args {
    /// Number of seeds to run
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Run this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "start"])]
    seed: Option<u64>,
    /// Tell what happens in each run
    #[arg(long)]
    trace: bool,
    /// Of the seed's plan, only this (as printed when a seed fails)
    #[arg(long, requires = "seed")]
    keep: Option<Keep>,
    /// Only seeds with this transport: mem, tcp, iser-mem, iser-iwarp
    #[arg(long)]
    transport: Vec<String>,
    /// Only seeds of this configuration: erl0, erl1, erl2, single, mcs, calm, digests, crash, reinstatement,
    /// declare, intruder, impostor, bidirectional; several are all meant
    #[arg(long, value_delimiter = ',')]
    config: Vec<String>,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Seconds that making a failing run smaller may take
    #[arg(long, default_value_t = 30)]
    shrink: u64,
    /// Runs at a time; as many as there are processors unless given
    #[arg(long)]
    jobs: Option<usize>,
    /// Stop after so many minutes
    #[arg(long)]
    minutes: Option<u64>,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
    /// No progress: no bar on a terminal, no line now and then elsewhere
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed.filter(|_| args.trace || args.keep.is_some()) {
        return replay(seed, &args);
    }
    let job = Job {
        first: args.seed.unwrap_or(args.start),
        seeds: args.seed.map_or(args.seeds, |_| 1),
        regressions: args.seed.is_none(),
        words: args.config.clone(),
        transports: args.transport.clone(),
        keep_going: args.keep_going,
        shrink: Duration::from_secs(args.shrink),
        threads: args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        limit: args.minutes.map(|m| Duration::from_secs(60 * m)),
        bar: !args.quiet && !args.json,
    };
    if let Some(word) = job.unknown_word() {
        eprintln!("error: no run has {word:?}; see --help");
        return ExitCode::from(2);
    }
    let tally = runner::run(&job);
    if args.json {
        println!("{}", tally.to_json());
    } else {
        print!("{tally}");
    }
    if tally.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One run again, with all that happens in it.
fn replay(seed: u64, args: &Args) -> ExitCode {
    let mut plan = Plan::of(seed);
    if let Some(keep) = &args.keep {
        keep.apply(&mut plan);
    }
    let mut world = World::new(plan.clone());
    if args.trace {
        println!("{plan:#?}");
        world = world.with_trace(|at, what| println!("{at:>14.6?}  {what}"));
    }
    match world.run() {
        Ok(report) => {
            println!("seed {seed} passes: {report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
