//! What a case is.

use crate::initiator::Served;
use crate::target::Bench;
use crate::verdict::Outcome;

/// Who is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A target.
    Target,
    /// An initiator.
    Initiator,
}

/// A numbered case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Area and number, as in `login-07`. Numbers are for ever.
    pub id: &'static str,
    /// What is done, and what has to come of it.
    pub title: &'static str,
    /// Ids of the rules in `specs/` that it judges.
    pub rules: &'static [&'static str],
    /// Writes to the logical unit, or disturbs other initiators: runs with `--dataloss` only.
    pub destructive: bool,
    pub(crate) run: Run,
}

#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Acts as an initiator.
    Target(fn(&Bench) -> Outcome),
    /// Looks back at all PDUs the target sent in this run: row of `target::layout`.
    Layout(usize),
    /// Acts as a target for a command that does this.
    Initiator(Action, fn(&mut Served) -> Outcome),
}

/// What an initiator under test is to do for a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Log in, and whatever then.
    Attach,
    /// Read blocks.
    Read,
    /// Write blocks.
    Write,
    /// Ask for targets.
    Discover,
}

impl Case {
    pub(crate) const fn target(
        id: &'static str,
        title: &'static str,
        rules: &'static [&'static str],
        run: fn(&Bench) -> Outcome,
    ) -> Self {
        Self { id, title, rules, destructive: false, run: Run::Target(run) }
    }

    pub(crate) const fn initiator(
        id: &'static str,
        action: Action,
        title: &'static str,
        rules: &'static [&'static str],
        run: fn(&mut Served) -> Outcome,
    ) -> Self {
        Self { id, title, rules, destructive: false, run: Run::Initiator(action, run) }
    }

    pub(crate) const fn destroys(mut self) -> Self {
        self.destructive = true;
        self
    }

    /// Who is judged.
    pub fn role(&self) -> Role {
        match self.run {
            Run::Target(_) | Run::Layout(_) => Role::Target,
            Run::Initiator(..) => Role::Initiator,
        }
    }

    /// What the initiator under test has to do; `None` for cases of targets.
    pub fn action(&self) -> Option<Action> {
        match self.run {
            Run::Initiator(action, _) => Some(action),
            _ => None,
        }
    }

    /// The part of the id before the number.
    pub fn area(&self) -> &'static str {
        self.id.rsplit_once('-').map_or(self.id, |(area, _)| area)
    }
}

/// All cases of a role, in the order in which they run.
pub fn cases(role: Role) -> Vec<Case> {
    match role {
        Role::Target => crate::target::cases(),
        Role::Initiator => crate::initiator::cases(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Case> {
        [Role::Target, Role::Initiator].into_iter().flat_map(cases).collect()
    }

    #[test]
    fn ids_are_unique_and_numbered() {
        let mut ids: Vec<_> = all().iter().map(|case| case.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
        for id in ids {
            let (area, number) = id.rsplit_once('-').unwrap();
            assert!(!area.is_empty() && number.len() == 2 && number.parse::<u8>().is_ok(), "{id}");
        }
    }

    /// Every rule that a case cites is one of `specs/*.toml`.
    #[test]
    fn cited_rules_exist() {
        let specs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs");
        let known: String = ["rfc7143.toml", "rfc7144.toml"]
            .iter()
            .map(|name| std::fs::read_to_string(specs.join(name)).unwrap())
            .collect();
        for case in all() {
            assert!(!case.rules.is_empty(), "{}: cites nothing", case.id);
            for rule in case.rules {
                assert!(known.contains(&format!("id = \"{rule}\"")), "{}: no rule {rule}", case.id);
            }
        }
    }

    /// What the README promises.
    #[test]
    fn there_are_cases_enough() {
        assert!(cases(Role::Target).len() >= 120 && cases(Role::Initiator).len() >= 25);
    }
}
