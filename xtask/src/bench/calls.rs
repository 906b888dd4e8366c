//! System calls of a process while it is under load.
//!
//! perf counts them without stopping the process; where it may not, strace does, which makes the process slower and
//! so gathers more work into each call.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::tools::succeeds;

/// Counts from its making until [`stop`](Self::stop).
pub(crate) struct Calls {
    child: Child,
    log: PathBuf,
    perf: bool,
}

const EVENT: &str = "raw_syscalls:sys_enter";

impl Calls {
    /// Attaches to a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let log = std::env::temp_dir().join(format!("iscsi-bench-{}-calls", std::process::id()));
        let perf = succeeds(Command::new("perf").args(["stat", "-e", EVENT, "true"]));
        let mut command = Command::new(if perf { "perf" } else { "strace" });
        if perf {
            command.args(["stat", "-x", ",", "-e", EVENT, "-o"]).arg(&log);
        } else {
            command.args(["-f", "-c", "-S", "calls", "-o"]).arg(&log);
        }
        command
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("neither perf (Debian: linux-perf) nor strace can be run")?;
        // Until it is attached.
        std::thread::sleep(Duration::from_millis(300));
        Ok(Self { child, log, perf })
    }

    /// How many there were; `None` when the tool would not say.
    pub(crate) fn stop(mut self) -> Result<Option<u64>> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // As the user would with the keyboard: both report then.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        self.child.wait()?;
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.log);
        Ok(if self.perf { from_perf(&text) } else { from_strace(&text) })
    }
}

fn from_perf(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains(EVENT))?.split(',').next()?.parse().ok()
}

/// `100.00    0.123456           1     45678           12 total`: the calls are the fourth column.
fn from_strace(text: &str) -> Option<u64> {
    let total = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
    total.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_tools_write() {
        let perf = "# started on Sat\n\n109,,raw_syscalls:sys_enter,1234,100.00,,\n";
        assert_eq!(from_perf(perf), Some(109));
        assert_eq!(from_perf("<not supported>,,raw_syscalls:sys_enter,0,100.00,,"), None);
        let strace = "% time     seconds  usecs/call     calls    errors syscall\n\
                      ------ ----------- ----------- --------- --------- ----------------\n \
                      75.00    0.003000           3       900           readv\n\
                      ------ ----------- ----------- --------- --------- ----------------\n\
                      100.00    0.004000           3      1234        11 total\n";
        assert_eq!(from_strace(strace), Some(1234));
        assert_eq!(from_strace(""), None);
    }
}
