//! Running cases one after the other.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::case::{Action, Case, Role, cases};
use crate::initiator::Served;
use crate::report::{Line, Report};
use crate::tape::Tape;
use crate::target::{Bench, Traffic};
use crate::url::TargetUrl;
use crate::verdict::{Outcome, Verdict};

/// Which cases run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run cases whose id or title contains this.
    pub filter: Option<String>,
    /// Run these: ids of cases, or of rules that they cite. Empty: all.
    pub cases: Vec<String>,
    /// Run cases that write, or disturb other initiators.
    pub dataloss: bool,
    /// Time that a case may take.
    pub limit: Duration,
    /// Time that an answer may take.
    pub answer: Duration,
    /// How long nothing has to come where nothing may come.
    pub quiet: Duration,
    /// Write a capture of each case there.
    pub pcap: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: None,
            cases: Vec::new(),
            dataloss: false,
            limit: Duration::from_secs(30),
            answer: Duration::from_secs(5),
            quiet: Duration::from_millis(300),
            pcap: None,
        }
    }
}

impl Options {
    /// The cases of a role that these options name; destructive ones as well.
    ///
    /// # Errors
    ///
    /// Nothing matches, or a name in `cases` is unknown.
    pub fn select(&self, role: Role) -> anyhow::Result<Vec<Case>> {
        let all = cases(role);
        for name in &self.cases {
            let known = all.iter().any(|case| names(case, name));
            anyhow::ensure!(known, "no case {name}, nor one that cites it; see `list`");
        }
        let picked: Vec<Case> = all
            .into_iter()
            .filter(|case| self.cases.is_empty() || self.cases.iter().any(|name| names(case, name)))
            .filter(|case| self.filter.as_ref().is_none_or(|f| case.id.contains(f) || case.title.contains(f)))
            .collect();
        anyhow::ensure!(!picked.is_empty(), "no case matches; see `list`");
        Ok(picked)
    }
}

fn names(case: &Case, name: &str) -> bool {
    case.id == name || case.rules.contains(&name)
}

/// Judges a target.
///
/// # Errors
///
/// No case matches the options, or a capture cannot be written.
pub fn run_target(
    peer: &TargetUrl,
    options: &Options,
    mut seen: impl FnMut(&Line),
) -> anyhow::Result<Report> {
    let traffic = Rc::new(RefCell::new(Traffic::default()));
    let mut report = Report::new(Role::Target);
    for case in options.select(Role::Target)? {
        let (start, tape) = (Instant::now(), Tape::default());
        let verdict = if case.destructive && !options.dataloss {
            Verdict::Skipped("writes or disturbs others: needs --dataloss".into())
        } else {
            let bench = Bench {
                peer: peer.clone(),
                answer: options.answer,
                quiet: options.quiet,
                tape: tape.clone(),
                deadline: start + options.limit,
                traffic: traffic.clone(),
            };
            verdict(bench.run(&case))
        };
        save(&tape, options.pcap.as_deref(), &case)?;
        let line = Line::new(&case, verdict, start.elapsed());
        seen(&line);
        report.lines.push(line);
    }
    Ok(report)
}

/// What makes an initiator do something, as shell commands with `{url}` or `{portal}` in them.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Logs in, and whatever then. `None`: somebody starts the initiator by hand.
    pub attach: Option<String>,
    /// Reads blocks.
    pub read: Option<String>,
    /// Writes blocks.
    pub write: Option<String>,
    /// Asks for targets.
    pub discover: Option<String>,
}

impl Commands {
    fn of(&self, action: Action) -> Option<&str> {
        match action {
            Action::Attach => self.attach.as_deref(),
            Action::Read => self.read.as_deref(),
            Action::Write => self.write.as_deref(),
            Action::Discover => self.discover.as_deref(),
        }
    }

    fn any(&self) -> bool {
        [&self.attach, &self.read, &self.write, &self.discover].iter().any(|c| c.is_some())
    }
}

/// Judges an initiator that connects to `listener`.
///
/// # Errors
///
/// No case matches the options, or a capture cannot be written.
pub fn run_initiator(
    listener: &TcpListener,
    commands: &Commands,
    options: &Options,
    mut seen: impl FnMut(&Line),
) -> anyhow::Result<Report> {
    let mut report = Report::new(Role::Initiator);
    let manual = !commands.any();
    for case in options.select(Role::Initiator)? {
        let Some(action) = case.action() else { continue };
        let (start, tape) = (Instant::now(), Tape::default());
        let verdict = match commands.of(action) {
            None if !manual => Verdict::Skipped(format!("no command given that does this: {action:?}")),
            command => {
                let deadline = start + options.limit;
                let served = Served::start(listener, command, options, tape.clone(), deadline);
                let mut served = served.with_context(|| format!("{}: cannot start", case.id))?;
                verdict(served.run(&case))
            }
        };
        save(&tape, options.pcap.as_deref(), &case)?;
        let line = Line::new(&case, verdict, start.elapsed());
        seen(&line);
        report.lines.push(line);
    }
    Ok(report)
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Pass,
        Err(stop) => stop.into(),
    }
}

fn save(tape: &Tape, dir: Option<&Path>, case: &Case) -> anyhow::Result<()> {
    match dir {
        Some(dir) if !tape.is_empty() => tape.save(&dir.join(format!("{}.pcap", case.id))),
        _ => Ok(()),
    }
}
