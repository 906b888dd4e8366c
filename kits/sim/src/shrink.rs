//! Makes a plan that fails smaller, while it still fails.

use crate::plan::{Keep, Plan};
use crate::world::{Failure, Report};

/// What of a plan is enough to make it fail, and how it fails then. `enough` is asked before each try whether to stop.
///
/// Faults go first, then what is wrong with commands, then commands: halves, quarters and so on down to single ones,
/// round after round until nothing more can go (delta debugging).
pub fn shrink(plan: &Plan, failure: Failure, enough: impl FnMut() -> bool) -> (Keep, Failure) {
    shrink_by(plan, failure, enough, crate::run_plan)
}

fn shrink_by(
    plan: &Plan,
    failure: Failure,
    mut enough: impl FnMut() -> bool,
    mut run: impl FnMut(Plan) -> Result<Report, Failure>,
) -> (Keep, Failure) {
    let mut best = Keep::all(plan);
    let mut how = failure;
    loop {
        let before = best.len();
        for kind in [Kind::Faults, Kind::Troubles, Kind::Commands] {
            let mut size = kind.of(&best).len().next_power_of_two();
            while size > 0 {
                let mut from = 0;
                loop {
                    let numbers: Vec<u32> = kind.of(&best).iter().copied().skip(from).take(size).collect();
                    if numbers.is_empty() {
                        break;
                    }
                    if enough() {
                        return (best, how);
                    }
                    let mut fewer = best.clone();
                    kind.of_mut(&mut fewer).retain(|n| !numbers.contains(n));
                    fewer.troubles = fewer.troubles.intersection(&fewer.commands).copied().collect();
                    let mut candidate = plan.clone();
                    fewer.apply(&mut candidate);
                    match run(candidate) {
                        Err(failure) => (best, how) = (fewer, failure),
                        Ok(_) => from += size,
                    }
                }
                size /= 2;
            }
        }
        if best.len() == before {
            return (best, how);
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Faults,
    Troubles,
    Commands,
}

impl Kind {
    fn of(self, keep: &Keep) -> &std::collections::BTreeSet<u32> {
        match self {
            Self::Faults => &keep.faults,
            Self::Troubles => &keep.troubles,
            Self::Commands => &keep.commands,
        }
    }

    fn of_mut(self, keep: &mut Keep) -> &mut std::collections::BTreeSet<u32> {
        match self {
            Self::Faults => &mut keep.faults,
            Self::Troubles => &mut keep.troubles,
            Self::Commands => &mut keep.commands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_plan_fail_is_all_that_is_kept() {
        let big = |p: &Plan| p.faults.len() > 2 && p.commands() > 90;
        let plan = (1..).map(Plan::of).find(big).expect("such a plan");
        let all = Keep::all(&plan);
        let [command, other] = [7, 81].map(|n| *all.commands.iter().nth(n).expect("so many"));
        let fault = *all.faults.iter().nth(1).expect("so many");
        let failure = |what: &str| Failure { seed: plan.seed, what: what.into() };
        // Two commands and a fault make it fail, and nothing else matters.
        let run = |tried: Plan| {
            let has = |n| tried.hosts.iter().flatten().any(|c| c.index == n);
            let fails = has(command) && has(other) && tried.faults.iter().any(|f| f.index == fault);
            if fails { Err(failure("again")) } else { Ok(Report::default()) }
        };
        let (kept, how) = shrink_by(&plan, failure("first"), || false, run);
        assert_eq!((kept.commands, kept.faults), ([command, other].into(), [fault].into()));
        assert!(kept.troubles.is_empty());
        assert_eq!(how, failure("again"));
    }
}
