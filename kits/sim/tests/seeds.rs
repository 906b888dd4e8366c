//! Seeds that failed once, and a few others; CI runs more with `cargo xtask sim`.

use iscsi_sim::{Keep, Plan, Transport, World, run, run_plan, shrink};

#[test]
fn seeds_that_failed_once_pass() {
    for seed in iscsi_sim::regressions() {
        run(seed).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

/// Of every transport, with one connection a session and with several, calm and not.
#[test]
fn a_few_seeds_of_every_configuration_pass() {
    for transport in Transport::ALL {
        for words in
            [["single", "calm"], ["mcs", "calm"], ["single", "erl0"], ["mcs", "erl1"], ["mcs", "erl2"]]
        {
            let of =
                |plan: &Plan| plan.transport == transport && words.iter().all(|w| plan.words().contains(w));
            for plan in (1..).map(Plan::of).filter(of).take(4) {
                let report = run_plan(plan).unwrap_or_else(|failure| panic!("{failure}"));
                assert!(report.good > 0, "something was done");
            }
        }
    }
}

/// The same seed is the same run, event by event; another is another.
#[test]
fn runs_are_reproducible() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 1..=24 {
        let first = run(seed).unwrap();
        assert_eq!(first, run(seed).unwrap(), "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 24);
}

/// Being listened to changes nothing.
#[test]
fn a_trace_changes_nothing() {
    let plain = run(5).unwrap();
    let (told, listener) = (std::rc::Rc::new(std::cell::Cell::new(0)), ());
    let count = told.clone();
    let traced = World::new(Plan::of(5)).with_trace(move |_, _| count.set(count.get() + 1)).run().unwrap();
    let () = listener;
    assert_eq!(plain, traced);
    assert!(told.get() > 0);
}

/// A plan with next to nothing left in it is what shrinking ends with when everything fails.
#[test]
fn what_does_not_matter_is_taken_out() {
    let plan = (1..).map(Plan::of).find(|p| p.words().contains(&"crash")).unwrap();
    let failure = iscsi_sim::Failure { seed: plan.seed, what: "as it was".into() };
    // The plan passes, so nothing can go: what is kept is all of it.
    let mut tries = 0;
    let (kept, how) = shrink(&plan, failure.clone(), || {
        tries += 1;
        tries > 40
    });
    assert_eq!((kept, how), (Keep::all(&plan), failure));
    assert!(tries > 1);
}
