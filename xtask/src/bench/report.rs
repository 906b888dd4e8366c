//! Medians, ratios, the table and the JSON.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;

use super::servers::Server;
use super::usage::Usage;
use super::{Args, Sample, Workload};
use crate::table::Table;
use crate::workspace::root;

/// One measurement, or the medians of several.
#[derive(Clone, Serialize)]
pub(crate) struct Row {
    workload: &'static str,
    server: String,
    iops: f64,
    mb_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    /// Of the server, all threads, user and system.
    cpu_us_per_io: f64,
    /// How often a thread of the server went to sleep.
    switches_per_io: f64,
    rss_mib: f64,
    rounds: usize,
}

impl Row {
    pub(crate) fn new(
        server: &Server,
        workload: &Workload,
        samples: &[Sample],
        before: Usage,
        after: Usage,
    ) -> Self {
        let mut all: Vec<u32> = samples.iter().flat_map(|s| s.latencies.iter().copied()).collect();
        all.sort_unstable();
        let at = |share: f64| {
            let index = ((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1));
            all.get(index).map_or(0.0, |ns| f64::from(*ns) / 1e3)
        };
        let count = all.len().max(1) as f64;
        let iops: f64 = samples.iter().map(|s| s.latencies.len() as f64 / s.seconds).sum();
        Self {
            workload: workload.name,
            server: server.name.clone(),
            iops,
            mb_per_s: iops * workload.size as f64 / 1e6,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            cpu_us_per_io: after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e3 / count,
            switches_per_io: after.switches.saturating_sub(before.switches) as f64 / count,
            rss_mib: after.rss_kib as f64 / 1024.0,
            rounds: 1,
        }
    }
}

/// The medians of all rounds of a workload and server, each number by itself.
pub(crate) fn medians(rows: Vec<Row>) -> Vec<Row> {
    let mut groups: Vec<Vec<Row>> = Vec::new();
    for row in rows {
        let same = groups.iter_mut().find(|g| g[0].workload == row.workload && g[0].server == row.server);
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
    let one = |group: Vec<Row>| Row {
        workload: group[0].workload,
        server: group[0].server.clone(),
        iops: median(&group, |r| r.iops),
        mb_per_s: median(&group, |r| r.mb_per_s),
        p50_us: median(&group, |r| r.p50_us),
        p99_us: median(&group, |r| r.p99_us),
        p999_us: median(&group, |r| r.p999_us),
        cpu_us_per_io: median(&group, |r| r.cpu_us_per_io),
        switches_per_io: median(&group, |r| r.switches_per_io),
        rss_mib: median(&group, |r| r.rss_mib),
        rounds: group.len(),
    };
    groups.into_iter().map(one).collect()
}

#[derive(Serialize)]
struct Report<'a> {
    versions: BTreeMap<String, String>,
    machine: String,
    kernel: String,
    rows: &'a [Row],
}

/// Prints the table or the JSON, and keeps it if asked.
pub(crate) fn print(args: &Args, rows: &[Row], versions: BTreeMap<String, String>) -> Result<()> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Report {
        versions,
        machine: format!("{} × {cores}", model.map_or("", |(_, name)| name)),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        rows,
    };
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(name) = &args.save {
        let dir = root().join("bench/results");
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.json"));
        std::fs::write(&path, format!("{json}\n")).with_context(|| path.display().to_string())?;
        std::fs::write(path.with_extension("txt"), table(rows))?;
    }
    if args.json {
        println!("{json}");
    } else {
        print!("\n{}", table(rows));
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let titles = [
        "workload",
        "server",
        "IOPS",
        "MB/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us/IO",
        "sleeps/IO",
        "RSS MiB",
        "of best peer",
        "of floor",
        "CPU of floor",
    ];
    let mut table = Table::new(&titles);
    for row in rows {
        let beside = || rows.iter().filter(|r| r.workload == row.workload && r.server != row.server);
        let best = beside().filter(|r| is_peer(r)).map(|r| r.iops).fold(0.0, f64::max);
        let floor = beside().find(|r| r.server == "floor");
        let ratio =
            |value: f64| if value > 0.0 && value.is_finite() { format!("{value:.2}") } else { "-".into() };
        table.row([
            row.workload.into(),
            row.server.clone(),
            format!("{:.0}", row.iops),
            format!("{:.0}", row.mb_per_s),
            format!("{:.0}", row.p50_us),
            format!("{:.0}", row.p99_us),
            format!("{:.0}", row.p999_us),
            format!("{:.2}", row.cpu_us_per_io),
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
