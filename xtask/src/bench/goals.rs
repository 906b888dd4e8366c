//! What is asked of our target and initiator, and whether a run has shown it: ratios within one run, for what other
//! machines and hours reach is not comparable.

use serde::Serialize;

use super::report::Row;
use crate::table::Table;

/// A goal and what was measured.
#[derive(Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) goal: String,
    pub(crate) met: bool,
}

impl Finding {
    pub(crate) fn at_least(what: impl Into<String>, value: f64, goal: f64) -> Self {
        Self { what: what.into(), value, goal: format!(">= {goal}"), met: value >= goal }
    }

    pub(crate) fn at_most(what: impl Into<String>, value: f64, goal: f64) -> Self {
        Self { what: what.into(), value, goal: format!("<= {goal}"), met: value <= goal }
    }
}

/// Workloads that show the goals.
pub(crate) const WORKLOADS: &[&str] = &[
    "4k-randread-d1",
    "4k-randwrite-d1",
    "4k-randread-d32",
    "4k-randwrite-d32",
    "1m-read-d8",
    "1m-write-d8",
    "4k-randread-d32-crc",
    "4k-randwrite-d32-crc",
    "1m-read-d8-crc",
    "1m-write-d8-crc",
];

/// The clients beside the lean one are for these.
pub(crate) const OF_CLIENTS: &[&str] = &["4k-randread-d32", "4k-randwrite-d32"];

/// The goals for which there are rows.
pub(crate) fn of(rows: &[Row]) -> Vec<Finding> {
    let mut found = Vec::new();
    for workload in WORKLOADS {
        let row = |server: &str, client: &str| {
            rows.iter().find(|r| r.workload == *workload && r.server == server && r.client == client)
        };
        let of_clients = row("ours", "iscsi").zip(row("ours", "libiscsi"));
        if let Some((own, libiscsi)) = of_clients {
            if let (Some(cpu), Some(theirs)) = (own.client_cpu_us_per_io, libiscsi.client_cpu_us_per_io) {
                let what = format!("{workload}: client CPU of iscsi bench by that of libiscsi");
                found.push(Finding::at_most(what, cpu / theirs, 0.4));
            }
            let what = format!("{workload}: IOPS of iscsi bench by those of libiscsi");
            found.push(Finding::at_least(what, own.iops / libiscsi.iops, 2.0));
        }
        let Some(ours) = row("ours", "lean") else { continue };
        if let Some(calls) = ours.calls_per_io.filter(|_| workload.contains("-d32")) {
            found.push(Finding::at_most(format!("{workload}: system calls a command"), calls, 0.2));
        }
        let Some(floor) = row("floor", "lean") else { continue };
        let by_iops = |what: &str, goal: f64| {
            Finding::at_least(format!("{workload}: {what} by the floor's"), ours.iops / floor.iops, goal)
        };
        if workload.ends_with("-d1") {
            let what = |of: &str| format!("{workload}: latency{of} by the floor's (p50)");
            found.push(Finding::at_most(what(""), ours.p50_us / floor.p50_us, 1.15));
            if let Some(spin) = row("spin", "lean") {
                found.push(Finding::at_most(what(" with --spin"), spin.p50_us / floor.p50_us, 0.7));
            }
        } else if workload.ends_with("-crc") {
            found.push(by_iops("IOPS", 0.55));
        } else if workload.starts_with("1m") {
            found.push(by_iops("MB/s", 0.95));
        } else {
            found.push(by_iops("IOPS", 0.75));
            let cpu = |of: &Row| ours.cpu_us_per_io / of.cpu_us_per_io;
            found.push(Finding::at_most(format!("{workload}: target CPU by the floor's"), cpu(floor), 1.6));
            if let Some(tgt) = row("tgt", "lean") {
                found.push(Finding::at_most(format!("{workload}: target CPU by tgt's"), cpu(tgt), 0.1));
            }
        }
    }
    found
}

/// The findings in lines.
pub(crate) fn table(found: &[Finding]) -> String {
    let mut table = Table::new(&["goal", "measured", "wanted", ""]);
    for f in found {
        let met = if f.met { "met" } else { "MISSED" };
        table.row([f.what.clone(), format!("{:.2}", f.value), f.goal.clone(), met.into()]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, server: &str, client: &str, iops: f64, cpu: f64) -> Row {
        let json = serde_json::json!({
            "workload": workload, "server": server, "client": client, "iops": iops, "mb_per_s": 0.0, "p50_us": 1e6 / iops,
            "p99_us": 0.0, "p999_us": 0.0, "cpu_us_per_io": cpu, "client_cpu_us_per_io": cpu, "switches_per_io": 0.0,
            "rss_mib": 0.0, "rounds": 1,
        });
        serde_json::from_value(json).expect("a row")
    }

    #[test]
    fn ratios_are_of_the_right_rows() {
        let rows = [
            row("4k-randread-d32", "ours", "lean", 80.0, 1.5),
            row("4k-randread-d32", "floor", "lean", 100.0, 1.0),
            row("4k-randread-d32", "tgt", "lean", 10.0, 10.0),
            row("4k-randread-d32", "ours", "iscsi", 90.0, 2.0),
            row("4k-randread-d32", "ours", "libiscsi", 60.0, 4.0),
            row("4k-randread-d1", "ours", "lean", 100.0, 1.0),
            row("4k-randread-d1", "floor", "lean", 110.0, 1.0),
            row("4k-randread-d1", "spin", "lean", 220.0, 1.0),
        ];
        let found: Vec<(f64, bool)> =
            of(&rows).iter().map(|f| ((f.value * 100.0).round() / 100.0, f.met)).collect();
        let d1 = [(1.1, true), (0.5, true)];
        let d32 = [(0.5, false), (1.5, false), (0.8, true), (1.5, true), (0.15, false)];
        assert_eq!(found, [&d1[..], &d32[..]].concat());
    }
}
