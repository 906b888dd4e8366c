#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod disk;
mod host;
mod hostile;
mod link;
mod log;
mod medium;
mod net;
mod plan;
mod rng;
mod shadow;
mod shrink;
mod storage;
mod tags;
mod world;

pub use plan::{Configuration, Keep, Plan, Transport};
pub use shrink::shrink;
pub use world::{Failure, Report, World};

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs one seed.
///
/// # Errors
/// What the oracle found wrong.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_plan(Plan::of(seed))
}

/// Runs a plan. A panic is something that was found, too.
///
/// # Errors
/// What the oracle found wrong.
pub fn run_plan(plan: Plan) -> Result<Report, Failure> {
    let seed = plan.seed;
    catch_unwind(AssertUnwindSafe(|| World::new(plan).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure { seed, what: format!("panic: {text}") })
    })
}

/// Seeds that failed once: they run before any others.
pub const REGRESSIONS: &str = include_str!("../seeds.txt");

/// The seeds of [`REGRESSIONS`].
pub fn regressions() -> impl Iterator<Item = u64> {
    REGRESSIONS.lines().filter_map(|line| line.split('#').next()).filter_map(|seed| seed.trim().parse().ok())
}
