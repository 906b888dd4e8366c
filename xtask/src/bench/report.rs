//! Medians, ratios, the table and the JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::goals::{self, Finding};
use super::servers::Server;
use super::usage::Usage;
use super::{Args, Sample, Workload};
use crate::table::Table;
use crate::workspace::root;

/// What a client saw.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) iops: f64,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// CPU of the client's process a command, where it is one of its own.
    pub(crate) client_cpu_us: Option<f64>,
}

impl Seen {
    /// Of the sessions that ran side by side; `cpu` in nanoseconds, of all of them.
    pub(crate) fn of(samples: &[Sample], cpu: Option<u64>) -> Self {
        let mut all: Vec<u32> = samples.iter().flat_map(|s| s.latencies.iter().copied()).collect();
        all.sort_unstable();
        let at = |share: f64| {
            let index = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            all.get(index).map_or(0.0, |ns| f64::from(*ns) / 1e3)
        };
        Self {
            iops: samples.iter().map(|s| s.latencies.len() as f64 / s.seconds).sum(),
            count: all.len() as u64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            client_cpu_us: cpu.map(|ns| ns as f64 / 1e3 / all.len().max(1) as f64),
        }
    }

    /// Sessions that were processes of their own, as one; of their percentiles the worst.
    pub(crate) fn together(all: &[Self]) -> Self {
        let most = |of: fn(&Self) -> f64| all.iter().map(of).fold(0.0, f64::max);
        let count: u64 = all.iter().map(|s| s.count).sum();
        let cpu = |s: &Self| s.client_cpu_us.map(|us| us * s.count as f64);
        Self {
            iops: all.iter().map(|s| s.iops).sum(),
            count,
            p50_us: most(|s| s.p50_us),
            p99_us: most(|s| s.p99_us),
            p999_us: most(|s| s.p999_us),
            client_cpu_us: all.iter().map(cpu).sum::<Option<f64>>().map(|us| us / count.max(1) as f64),
        }
    }
}

/// One measurement, or the medians of several.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) workload: String,
    pub(crate) server: String,
    #[serde(default = "lean")]
    pub(crate) client: String,
    pub(crate) iops: f64,
    mb_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    p999_us: f64,
    /// Of the server, all threads, user and system.
    pub(crate) cpu_us_per_io: f64,
    /// Of the client, where it is a process of its own.
    #[serde(default)]
    pub(crate) client_cpu_us_per_io: Option<f64>,
    /// System calls of the server, where they were counted.
    #[serde(default)]
    pub(crate) calls_per_io: Option<f64>,
    /// How often a thread of the server went to sleep.
    switches_per_io: f64,
    rss_mib: f64,
    rounds: usize,
}

/// The client of results from before there were several.
fn lean() -> String {
    "lean".into()
}

impl Row {
    pub(crate) fn new(
        server: &Server,
        client: &Client,
        workload: &Workload,
        seen: &Seen,
        before: Usage,
        after: Usage,
    ) -> Self {
        let count = seen.count.max(1) as f64;
        Self {
            workload: workload.name.into(),
            server: server.name.clone(),
            client: client.name().into(),
            iops: seen.iops,
            mb_per_s: seen.iops * workload.size as f64 / 1e6,
            p50_us: seen.p50_us,
            p99_us: seen.p99_us,
            p999_us: seen.p999_us,
            cpu_us_per_io: after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3 / count,
            client_cpu_us_per_io: seen.client_cpu_us,
            calls_per_io: None,
            switches_per_io: after.switches.saturating_sub(before.switches) as f64 / count,
            rss_mib: after.rss_kib as f64 / 1024.0,
            rounds: 1,
        }
    }

    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.workload == other.workload && self.server == other.server && self.client == other.client
    }
}

/// The medians of all rounds of a workload and server, each number by itself.
pub(crate) fn medians(rows: Vec<Row>) -> Vec<Row> {
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        let same = groups.iter_mut().find(|g| g[0].is_like(&row));
        match same {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let median = |group: &[Row], of: fn(&Row) -> f64| {
        let mut values: Vec<f64> = group.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let known = |group: &[Row], of: fn(&Row) -> Option<f64>| {
        let mut values: Vec<f64> = group.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let one = |group: Vec<Row>| Row {
        workload: group[0].workload.clone(),
        server: group[0].server.clone(),
        client: group[0].client.clone(),
        iops: median(&group, |r| r.iops),
        mb_per_s: median(&group, |r| r.mb_per_s),
        p50_us: median(&group, |r| r.p50_us),
        p99_us: median(&group, |r| r.p99_us),
        p999_us: median(&group, |r| r.p999_us),
        cpu_us_per_io: median(&group, |r| r.cpu_us_per_io),
        client_cpu_us_per_io: known(&group, |r| r.client_cpu_us_per_io),
        calls_per_io: known(&group, |r| r.calls_per_io),
        switches_per_io: median(&group, |r| r.switches_per_io),
        rss_mib: median(&group, |r| r.rss_mib),
        rounds: group.len(),
    };
    groups.into_iter().map(one).collect()
}

/// A result, and where it was measured.
#[derive(Serialize, Deserialize)]
pub(super) struct Report<R> {
    versions: BTreeMap<String, String>,
    machine: String,
    kernel: String,
    /// Of the machine, over the minute before the measurement and over its last one: what else it had to do.
    #[serde(default)]
    load: String,
    rows: Vec<R>,
    /// What the rows say of what is asked for; made of them anew where it is read.
    #[serde(skip_deserializing)]
    goals: Vec<Finding>,
}

impl<R: Serialize> Report<R> {
    /// Of these programs, on this machine; `before` was its load.
    pub(super) fn new(versions: BTreeMap<String, String>, before: &str, rows: Vec<R>) -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            versions,
            machine: format!("{} × {cores}", model.map_or("", |(_, name)| name)),
            kernel: kernel.trim().to_owned(),
            load: format!("{before} before, {} after", load()),
            rows,
            goals: Vec::new(),
        }
    }

    /// Prints it, as JSON or as this table, and keeps both if asked to; where, without the ending.
    pub(super) fn print(&self, args: &Args, table: &str) -> Result<Option<PathBuf>> {
        let json = serde_json::to_string_pretty(self)?;
        let path = args.save.as_ref().map(|name| root().join("bench/results").join(name));
        if let Some(path) = &path {
            let file = path.with_extension("json");
            std::fs::write(&file, format!("{json}\n")).with_context(|| file.display().to_string())?;
            std::fs::write(path.with_extension("txt"), table)?;
        }
        if args.json {
            println!("{json}")
        } else {
            print!("\n{table}")
        }
        Ok(path)
    }
}

/// Load average of the last minute.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

/// Draws a kept result again.
pub(crate) fn redraw(path: &std::path::Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let report: Report<Row> = serde_json::from_str(&text)?;
    super::plot::draw(&report.rows, &path.with_extension("svg"))
}

/// Prints the table or the JSON, and keeps it if asked.
pub(crate) fn print(
    args: &Args,
    rows: &[Row],
    versions: BTreeMap<String, String>,
    before: &str,
) -> Result<()> {
    let report = Report { goals: goals::of(rows), ..Report::new(versions, before, rows.to_vec()) };
    let text = match report.goals.is_empty() {
        true => table(rows),
        false => format!("{}\n{}", table(rows), goals::table(&report.goals)),
    };
    if let Some(path) = report.print(args, &text)?
        && let Err(why) = super::plot::draw(rows, &path.with_extension("svg"))
    {
        eprintln!("no plot: {why}");
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let titles = [
        "workload",
        "client",
        "server",
        "IOPS",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us/IO",
        "client CPU",
        "calls/IO",
        "sleeps/IO",
        "RSS MiB",
        "of best peer",
        "of floor",
        "CPU of floor",
    ];
    let mut table = Table::new(&titles);
    for row in rows {
        let beside = || rows.iter().filter(|r| r.workload == row.workload && r.server != row.server);
        let best =
            beside().filter(|r| is_peer(r) && r.client == row.client).map(|r| r.iops).fold(0.0, f64::max);
        // The floor knows the lean client only.
        let floor = beside().find(|r| r.server == "floor" && r.client == row.client);
        let ratio =
            |value: f64| if value > 0.0 && value.is_finite() { format!("{value:.2}") } else { "-".into() };
        table.row([
            row.workload.clone(),
            row.client.clone(),
            row.server.clone(),
            format!("{:.0}", row.iops),
            format!("{:.0}", row.mb_per_s),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.p999_us),
            format!("{:.2}", row.cpu_us_per_io),
            row.client_cpu_us_per_io.map_or("-".into(), |us| format!("{us:.2}")),
            row.calls_per_io.map_or("-".into(), |calls| format!("{calls:.3}")),
            format!("{:.3}", row.switches_per_io),
            format!("{:.0}", row.rss_mib),
            ratio(if is_peer(row) || row.server == "floor" { 0.0 } else { row.iops / best }),
            ratio(floor.map_or(0.0, |f| row.iops / f.iops)),
            ratio(floor.map_or(0.0, |f| row.cpu_us_per_io / f.cpu_us_per_io)),
        ]);
    }
    table.to_string()
}

/// A foreign target.
fn is_peer(row: &Row) -> bool {
    row.server.starts_with("tgt") || row.server == "istgt" || row.server.starts_with("pid ")
}
