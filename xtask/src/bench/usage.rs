//! What a process has used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// USER_HZ is 100 on every architecture of Linux that matters; the kernel scales the ticks to the time really used.
pub(super) const TICK_NS: u64 = 10_000_000;

/// Counts since the process began, over all its threads.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Time on a CPU, user and system, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// How often its threads, those that are there, went to sleep.
    pub(crate) switches: u64,
    /// Memory now, in KiB.
    pub(crate) rss_kib: u64,
}

impl Usage {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid}"))?;
        for task in tasks.flatten() {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            usage.switches += field(&status, "voluntary_ctxt_switches:");
        }
        // Of the process as a whole, threads that have ended included: peers have one a connection. utime and stime
        // are the 14th and 15th field; the second, the name, may hold spaces.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        usage.cpu_ns = ticks * TICK_NS;
        usage.rss_kib = field(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:");
        Ok(usage)
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
