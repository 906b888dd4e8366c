//! What of a plan is left when it has been shrunk.

use super::{Plan, Trouble};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The commands, their troubles and the faults that stay in a plan; the others are taken out. In words, such as
/// `c3-5,9/x9/f0`: commands by their place in the workload (those of a second initiator come after those of the
/// first), commands whose trouble stays, faults.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keep {
    pub(crate) commands: BTreeSet<u32>,
    pub(crate) troubles: BTreeSet<u32>,
    pub(crate) faults: BTreeSet<u32>,
}

impl Keep {
    /// All of a plan.
    #[must_use]
    pub fn all(plan: &Plan) -> Self {
        let commands = || plan.hosts.iter().flatten();
        Self {
            commands: commands().map(|c| c.index).collect(),
            troubles: commands().filter(|c| c.trouble != Trouble::None).map(|c| c.index).collect(),
            faults: plan.faults.iter().map(|f| f.index).collect(),
        }
    }

    /// Takes everything else out of a plan.
    pub fn apply(&self, plan: &mut Plan) {
        for commands in &mut plan.hosts {
            commands.retain(|c| self.commands.contains(&c.index));
            for command in commands.iter_mut().filter(|c| !self.troubles.contains(&c.index)) {
                command.trouble = Trouble::None;
            }
        }
        plan.faults.retain(|f| self.faults.contains(&f.index));
    }

    /// Things that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.commands.len() + self.troubles.len() + self.faults.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (letter, set)) in
            [("c", &self.commands), ("x", &self.troubles), ("f", &self.faults)].iter().enumerate()
        {
            write!(f, "{}{letter}", if n == 0 { "" } else { "/" })?;
            let mut numbers = set.iter().copied().peekable();
            let mut separator = "";
            while let Some(first) = numbers.next() {
                let mut last = first;
                while numbers.next_if(|n| *n == last + 1).is_some() {
                    last += 1;
                }
                write!(f, "{separator}{first}")?;
                if last > first {
                    write!(f, "-{last}")?;
                }
                separator = ",";
            }
        }
        Ok(())
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut keep = Self::default();
        for part in text.split('/') {
            let (set, ranges) = match (part.strip_prefix('c'), part.strip_prefix('x'), part.strip_prefix('f'))
            {
                (Some(rest), _, _) => (&mut keep.commands, rest),
                (_, Some(rest), _) => (&mut keep.troubles, rest),
                (_, _, Some(rest)) => (&mut keep.faults, rest),
                _ => return Err(format!("{part:?} does not begin with c, x or f")),
            };
            for range in ranges.split(',').filter(|r| !r.is_empty()) {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |s: &str| s.parse::<u32>().map_err(|_| format!("{s:?} is no number"));
                set.extend(number(first)?..=number(last)?);
            }
        }
        Ok(keep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_read() {
        let plan = Plan::of(7);
        let all = Keep::all(&plan);
        assert_eq!(all.to_string().parse::<Keep>().unwrap(), all);
        let some: Keep = "c3-5,9/x9/f".parse().unwrap();
        assert_eq!(some.to_string(), "c3-5,9/x9/f");
        assert_eq!(some.len(), 5);
        let mut kept = plan;
        some.apply(&mut kept);
        assert_eq!(kept.commands(), 4);
        assert!(kept.faults.is_empty());
        assert!("3-5".parse::<Keep>().is_err());
    }
}
