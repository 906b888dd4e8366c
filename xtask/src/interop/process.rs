//! Programs with a time limit, and servers that end with the row that started them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// What a finished program printed, and how it ended.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// Standard output and error, in the order they came.
    pub(crate) text: String,
    log: PathBuf,
}

impl Finished {
    /// The text, or an error that shows the end of it.
    pub(crate) fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.text);
        }
        bail!("{}: {}\n{}", self.log.display(), self.status, tail(&self.text));
    }

    /// The text of a program that is to fail of itself, not by a signal.
    pub(crate) fn refused(self) -> Result<String> {
        ensure!(!self.status.success(), "{}: succeeded, and should not have", self.log.display());
        ensure!(
            self.status.code().is_some(),
            "{}: {}\n{}",
            self.log.display(),
            self.status,
            tail(&self.text)
        );
        Ok(self.text)
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(())
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

/// Runs a program to its end, which must come within `limit`; what it prints goes to `log`.
pub(crate) fn finish(command: &mut Command, log: PathBuf, limit: Duration) -> Result<Finished> {
    logged(command, &log)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| name.clone())?;
    let ended = wait(limit, || Ok(child.try_wait()?));
    let Ok(status) = ended else {
        child.kill().and_then(|()| child.wait())?;
        bail!("{name} did not end within {} s ({})\n{}", limit.as_secs(), log.display(), tail(&read(&log)));
    };
    Ok(Finished { status, text: read(&log), log })
}

/// Asks again and again until there is an answer.
pub(crate) fn wait<T>(limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "nothing within {} s", limit.as_secs());
        std::thread::sleep(STEP);
    }
}

/// A program in the background. Dropping it kills it.
pub(crate) struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts the program; what it prints goes to `log`.
    pub(crate) fn start(command: &mut Command, log: PathBuf) -> Result<Self> {
        logged(command, &log)?;
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self { child: command.spawn().context(name)?, log })
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it has printed so far.
    pub(crate) fn text(&self) -> String {
        read(&self.log)
    }

    /// Waits until `ready` finds an answer in what the program prints; an error if it ends before.
    pub(crate) fn until<T>(&mut self, mut ready: impl FnMut(&str) -> Option<T>) -> Result<T> {
        let log = self.log.clone();
        let answer = wait(Duration::from_secs(20), || {
            let found = ready(&self.text());
            if found.is_none() {
                self.running()?;
            }
            Ok(found)
        });
        answer.with_context(|| format!("{} is not ready\n{}", log.display(), tail(&self.text())))
    }

    /// An error if the program has ended.
    pub(crate) fn running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself: {status}\n{}", self.log.display(), tail(&self.text()));
        }
        Ok(())
    }

    /// Sends a signal by process id and waits for the end.
    pub(crate) fn signal(mut self, signal: &str) -> Result<ExitStatus> {
        self.running()?;
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -s {signal}: {sent}");
        let ended = wait(Duration::from_secs(15), || Ok(self.child.try_wait()?));
        ended.with_context(|| format!("{} ignores {signal}\n{}", self.log.display(), tail(&self.text())))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
