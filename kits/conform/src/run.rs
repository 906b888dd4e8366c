//! Running cases one after the other.

use std::cell::RefCell;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::case::{Action, Case, Role, cases};
use crate::expect::Known;
use crate::initiator::{Served, clean_up};
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
    /// Skip these, and say why.
    pub excluded: Vec<Known>,
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
            excluded: Vec::new(),
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

    /// The verdict on a case that is not to run.
    fn leaves_out(&self, case: &Case) -> Option<Verdict> {
        if case.destructive && !self.dataloss {
            return Some(Verdict::Skipped("writes or disturbs others: needs --dataloss".into()));
        }
        let excluded = self.excluded.iter().find(|known| known.case == case.id)?;
        Some(Verdict::Skipped(format!("excluded for this peer: {}", excluded.why)))
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
        let verdict = if let Some(left_out) = options.leaves_out(&case) {
            left_out
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
    /// Runs after each case, and has to end what the initiator has left of it, so that nothing of that comes in the
    /// next. The run ends where this fails.
    pub after: Option<String>,
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

/// Judges an initiator: as many cases at a time as there are listeners, each case at one of them.
///
/// # Errors
///
/// No case matches the options, there is no listener, or a capture cannot be written.
pub fn run_initiator(
    listeners: &[TcpListener],
    commands: &Commands,
    options: &Options,
    mut seen: impl FnMut(&Line),
) -> anyhow::Result<Report> {
    anyhow::ensure!(!listeners.is_empty(), "no listener");
    let picked = options.select(Role::Initiator)?;
    let next = AtomicUsize::new(0);
    let (lines, results) = mpsc::channel();
    let mut done = std::thread::scope(|scope| {
        for listener in listeners {
            let (lines, next, picked) = (lines.clone(), &next, &picked);
            scope.spawn(move || {
                while let Some((number, case)) = take(next, picked) {
                    let result = judge(listener, commands, options, case);
                    let failed = result.is_err();
                    // Who asked has stopped listening after an error.
                    if lines.send(result.map(|line| (number, line))).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(lines);
        let shown = results.into_iter().inspect(|result| {
            if let Ok((_, line)) = result {
                seen(line);
            }
        });
        shown.collect::<anyhow::Result<Vec<(usize, Line)>>>()
    })?;
    done.sort_by_key(|(number, _)| *number);
    let mut report = Report::new(Role::Initiator);
    report.lines.extend(done.into_iter().map(|(_, line)| line));
    Ok(report)
}

fn take<'a>(next: &AtomicUsize, cases: &'a [Case]) -> Option<(usize, &'a Case)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    Some((number, cases.get(number)?))
}

/// One case with the initiator under test.
fn judge(
    listener: &TcpListener,
    commands: &Commands,
    options: &Options,
    case: &Case,
) -> anyhow::Result<Line> {
    let (start, tape) = (Instant::now(), Tape::default());
    let action = case.action().with_context(|| format!("{}: a case of targets", case.id))?;
    let command = commands.of(action);
    let verdict = if let Some(left_out) = options.leaves_out(case) {
        left_out
    } else if command.is_none() && commands.any() {
        Verdict::Skipped(format!("no command given that does this: {action:?}"))
    } else {
        let outlives = commands.after.is_some();
        let served = Served::start(listener, command, outlives, options, tape.clone(), start + options.limit);
        let mut served = served.with_context(|| format!("{}: cannot start", case.id))?;
        let verdict = verdict(served.run(case));
        drop(served);
        if let Some(after) = &commands.after {
            clean_up(after, listener).with_context(|| format!("after {}", case.id))?;
        }
        verdict
    };
    save(&tape, options.pcap.as_deref(), case)?;
    Ok(Line::new(case, verdict, start.elapsed()))
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
