//! Seeds that failed once, and a hundred others; CI runs more with `cargo xtask sim`.

#[test]
fn seeds_that_failed_once_pass() {
    for seed in iscsi_sim::regressions() {
        iscsi_sim::run(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_hundred_seeds_pass() {
    for seed in 1..=100 {
        iscsi_sim::run(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// The same seed is the same run.
#[test]
fn runs_are_reproducible() {
    for seed in [3, 20, 35] {
        assert_eq!(iscsi_sim::run(seed).unwrap(), iscsi_sim::run(seed).unwrap());
    }
}
