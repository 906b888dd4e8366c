#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod disk;
mod host;
mod link;
mod net;
mod plan;
mod rng;
mod shadow;
mod storage;
mod world;

pub use plan::{Plan, Transport};
pub use world::{Failure, Report, World};

/// Runs one seed.
///
/// # Errors
/// What the oracle found wrong.
pub fn run(seed: u64) -> Result<Report, Failure> {
    World::new(Plan::of(seed)).run()
}

/// Seeds that failed once: they run before any others.
pub const REGRESSIONS: &str = include_str!("../seeds.txt");

/// The seeds of [`REGRESSIONS`].
pub fn regressions() -> impl Iterator<Item = u64> {
    REGRESSIONS.lines().filter_map(|line| line.split('#').next()).filter_map(|seed| seed.trim().parse().ok())
}
