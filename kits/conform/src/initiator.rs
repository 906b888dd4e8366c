//! Cases that judge an initiator: this program is the target.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::case::{Case, Run};
use crate::run::Options;
use crate::tape::Tape;
use crate::verdict::{Outcome, Stop, error, skip};
use crate::wire::Wire;

mod command;
mod data;
mod digest;
mod discovery;
mod link;
mod login;
mod scsi;
mod unsolicited;

pub(crate) use link::{Link, Step};

/// Name of the target that the cases are.
pub(crate) const TARGET: &str = "iqn.2026-01.org.example:iscsi-conform";

/// All cases, in the order in which they run.
pub(crate) fn cases() -> Vec<Case> {
    let scripts =
        [login::CASES, command::CASES, unsolicited::CASES, data::CASES, digest::CASES, discovery::CASES];
    scripts.into_iter().flatten().copied().collect()
}

/// How the command of an initiator ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It says that all went well.
    Well,
    /// It says that it failed.
    Badly,
    /// It goes on, or waits.
    Never,
    /// No command was given.
    Unknown,
}

/// A case with an initiator under test: it is started, and connects to us.
pub(crate) struct Served {
    listener: TcpListener,
    child: Option<Child>,
    /// It goes on when its command has ended.
    outlives: bool,
    tape: Tape,
    deadline: Instant,
    /// How long an answer may take.
    pub(crate) answer: Duration,
    /// How long nothing has to come where nothing may come.
    pub(crate) quiet: Duration,
}

impl Served {
    /// Starts the command, if there is one; an initiator that `outlives` it may begin anew behind its end. Connections that an
    /// earlier case left in the queue are thrown away.
    pub(crate) fn start(
        listener: &TcpListener,
        command: Option<&str>,
        outlives: bool,
        options: &Options,
        tape: Tape,
        deadline: Instant,
    ) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        while listener.accept().is_ok() {}
        let child = match command {
            None => None,
            Some(command) => {
                let line = expand(command, listener.local_addr()?);
                let mut shell = Command::new("sh");
                shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // A group of its own, so that what the shell starts can be ended with it.
                Some(shell.process_group(0).spawn()?)
            }
        };
        let (answer, quiet) = (options.answer, options.quiet);
        Ok(Self { listener: listener.try_clone()?, child, outlives, tape, deadline, answer, quiet })
    }

    /// Judges the case.
    pub(crate) fn run(&mut self, case: &Case) -> Outcome {
        match case.run {
            Run::Initiator(_, script) => script(self),
            _ => error("a case for targets"),
        }
    }

    /// Where we listen.
    pub(crate) fn address(&self) -> Result<SocketAddr, Stop> {
        self.listener.local_addr().or_else(|e| error(format!("no address: {e}")))
    }

    /// From now on connections are awaited at another port, which is told.
    pub(crate) fn move_away(&mut self) -> Result<SocketAddr, Stop> {
        let mut address = self.address()?;
        address.set_port(0);
        let listener = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l));
        self.listener = listener.or_else(|e| error(format!("cannot listen on {address}: {e}")))?;
        self.address()
    }

    /// The next connection of the initiator; `None` if none comes for a while.
    pub(crate) fn accept_within(&mut self, wait: Duration) -> Result<Option<Link>, Stop> {
        let until = (Instant::now() + wait).min(self.deadline);
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let wire = stream
                        .set_nonblocking(false)
                        .and_then(|()| Wire::new(stream, false, self.tape.clone(), self.deadline));
                    return match wire {
                        Ok(wire) => Ok(Some(Link::new(wire, self.answer, self.quiet))),
                        Err(e) => error(format!("connection of the initiator: {e}")),
                    };
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => (),
                Err(e) => return error(format!("cannot accept: {e}")),
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The initiator has to connect: its start is no answer, and may take longer than one. One that is started by hand
    /// may take until the end of the case.
    pub(crate) fn accept(&mut self) -> Result<Link, Stop> {
        let wait = if self.child.is_some() { self.answer * 4 } else { Duration::from_secs(3600) };
        match self.accept_within(wait)? {
            Some(link) => Ok(link),
            None => error("the initiator does not connect"),
        }
    }

    /// A connection in full feature phase, with these answers preferred.
    pub(crate) fn session(&mut self, prefer: &[(&str, &str)]) -> Result<Link, Stop> {
        let mut link = self.accept()?;
        link.log_in(prefer)?;
        Ok(link)
    }

    /// Another connection of the initiator, which begins anew when `link` is over; `None` if its command ends first, or an
    /// answer's time passes after Time2Wait.
    pub(crate) fn accept_again(&mut self, link: &Link) -> Result<Option<Link>, Stop> {
        let respite = link.result_or("DefaultTime2Wait", 2).min(10) as u64;
        let until = (Instant::now() + self.answer + Duration::from_secs(respite)).min(self.deadline);
        loop {
            // Looked at first: what connected before it ended is in the queue.
            let ended = match &mut self.child {
                Some(child) if !self.outlives => !matches!(child.try_wait(), Ok(None)),
                _ => false,
            };
            if let Some(link) = self.accept_within(Duration::from_millis(20))? {
                return Ok(Some(link));
            }
            if ended || Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// How the command ended, for which it has as long as an answer may take.
    pub(crate) fn end(&mut self) -> Result<End, Stop> {
        let until = (Instant::now() + self.answer).min(self.deadline);
        let Some(child) = &mut self.child else { return Ok(End::Unknown) };
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(if status.success() { End::Well } else { End::Badly }),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => return Ok(End::Never),
                Err(e) => return error(format!("the command: {e}")),
            }
        }
    }

    /// Whether the command ended well. Skips where there is none, or where it does not end.
    pub(crate) fn succeeded(&mut self) -> Result<bool, Stop> {
        match self.end()? {
            End::Well => Ok(true),
            End::Badly => Ok(false),
            End::Never => skip("the command does not end, so that its judgement is not known"),
            End::Unknown => skip("how the initiator judged it is not known: no command was given"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        // The shell and all it started. They may be gone by now; there is nobody to tell.
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = child.wait();
    }
}

/// Runs the command that ends what an initiator has left of a case, whose connections are closed by now.
///
/// # Errors
///
/// The command fails.
pub(crate) fn clean_up(command: &str, listener: &TcpListener) -> anyhow::Result<()> {
    let line = expand(command, listener.local_addr()?);
    let mut shell = Command::new("sh");
    let status = shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Puts the URL and the portal into a command.
fn expand(command: &str, address: SocketAddr) -> String {
    let portal = format!("iscsi://{address}");
    command.replace("{url}", &format!("{portal}/{TARGET}/0")).replace("{portal}", &portal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_where_to_connect() {
        let line = expand("inq {url}; ls {portal}", "127.0.0.1:99".parse().unwrap());
        assert_eq!(line, format!("inq iscsi://127.0.0.1:99/{TARGET}/0; ls iscsi://127.0.0.1:99"));
    }
}
