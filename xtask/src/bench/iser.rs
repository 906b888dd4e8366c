//! iSER over software iWARP beside TCP, on loopback: `cargo xtask bench --iser`.
//!
//! The same target program and the same client program, once a transport; rounds are interleaved and the table shows
//! medians. What the target copies for its transport is asked of it twice while the load runs: what commands like
//! INQUIRY return is not in the transport's memory, and comes before.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::Args;
use super::report::{self, Report};
use super::servers::{self, Server};
use super::usage::Usage;
use crate::table::Table;
use crate::tools::{cargo, run as run_command};
use crate::workspace::root;

const TRANSPORTS: &[&str] = &["tcp", "iwarp"];

/// Pattern, size of a block, depth.
const WORKLOADS: &[(&str, &str, &str)] =
    &[("randread", "4K", "32"), ("randwrite", "4K", "32"), ("read", "1M", "8"), ("write", "1M", "8")];

/// What `iscsi bench --json` says.
#[derive(Deserialize)]
struct Client {
    transport: String,
    operations: u64,
    iops: f64,
    megabytes_per_second: f64,
}

/// One measurement, or the medians of several.
#[derive(Serialize, Clone)]
struct Row {
    workload: String,
    transport: &'static str,
    iops: f64,
    megabytes_per_second: f64,
    /// Time on a processor for one operation, user and system, in microseconds.
    target_cpu_us: f64,
    client_cpu_us: f64,
    /// Bytes that the target copied because their memory was not the transport's, of `moved_bytes`.
    bounced_bytes: u64,
    moved_bytes: u64,
}

/// Measures and prints.
pub(super) fn run(args: &Args) -> Result<()> {
    let programs = args.programs.clone().unwrap_or_else(|| root().join("target/release"));
    if args.programs.is_none() {
        let mut build = cargo();
        build.args([
            "build",
            "--quiet",
            "--release",
            "--bins",
            "-p",
            "iscsi-target",
            "-p",
            "iscsi-initiator",
        ]);
        run_command(build.stdout(std::io::stderr()))?;
    }
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    let seconds = args.seconds.unwrap_or(if args.quick { 3.0 } else { 5.0 }).max(2.0).round();
    let (span, load) = (args.span << 20, report::load());
    let start = |transport: &&'static str| {
        let options = ["--transport", transport].map(str::to_owned);
        let server = servers::ours(transport, &programs.join("iscsi-target"), span, &options)?;
        Ok((*transport, server))
    };
    let targets = TRANSPORTS.iter().map(start).collect::<Result<Vec<_>>>()?;
    let mut rows: Vec<Row> = Vec::new();
    for workload in WORKLOADS {
        for _ in 0..rounds {
            for (transport, server) in &targets {
                let one = measure(&programs, server, transport, workload, seconds);
                rows.push(one.with_context(|| format!("{workload:?} over {transport}"))?);
            }
        }
        eprintln!("{workload:?} done");
    }
    let versions =
        targets.iter().map(|(transport, server)| (format!("ours, {transport}"), server.version.clone()));
    let medians = medians(&rows);
    let table = table(&medians).to_string();
    Report::new(versions.collect(), &load, medians).print(args, &table)?;
    ensure!(rows.iter().all(|row| row.moved_bytes > 0), "nothing was counted");
    let bounced: u64 = rows.iter().filter(|row| row.transport != "tcp").map(|row| row.bounced_bytes).sum();
    ensure!(bounced == 0, "the target copied {bounced} bytes for iSER");
    Ok(())
}

fn measure(
    programs: &Path,
    server: &Server,
    transport: &'static str,
    (pattern, block_size, depth): &(&str, &str, &str),
    seconds: f64,
) -> Result<Row> {
    servers::alive(server)?;
    let url = format!("iscsi://{}/{}/{}", server.url.portal, server.url.name, server.url.lun);
    let mut client = Command::new(programs.join("iscsi"));
    client.args(["bench", &url, "--json", "--destroy-data", "--transport", transport]);
    client.args(["--pattern", pattern, "--block-size", block_size, "--queue-depth", depth]);
    client.args(["--seconds", &seconds.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
    let (before, children) = (Usage::of(server.pid)?, children_ns()?);
    let client = client.spawn().context("iscsi")?;
    std::thread::sleep(Duration::from_secs_f64(seconds * 0.3));
    let first = counters(server)?;
    std::thread::sleep(Duration::from_secs_f64(seconds * 0.4));
    let second = counters(server)?;
    let output = client.wait_with_output()?;
    ensure!(output.status.success(), "iscsi bench: {}", output.status);
    let seen: Client = serde_json::from_slice(&output.stdout).context("what iscsi bench prints")?;
    ensure!((transport == "tcp") == (seen.transport == "tcp"), "it went over {}", seen.transport);
    let each = |ns: u64| ns as f64 / 1000.0 / seen.operations.max(1) as f64;
    Ok(Row {
        workload: format!("{block_size} {pattern} depth {depth}"),
        transport,
        iops: seen.iops,
        megabytes_per_second: seen.megabytes_per_second,
        target_cpu_us: each(Usage::of(server.pid)?.cpu_ns.saturating_sub(before.cpu_ns)),
        client_cpu_us: each(children_ns()?.saturating_sub(children)),
        bounced_bytes: second.bounced.saturating_sub(first.bounced),
        moved_bytes: second.moved.saturating_sub(first.moved),
    })
}

/// Processor time of the children that were waited for: 16th and 17th field.
fn children_ns() -> Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(ticks * super::usage::TICK_NS)
}

/// What the target's open connections have moved and copied.
struct Counters {
    moved: u64,
    bounced: u64,
}

/// Has the target log its counters, and reads them.
fn counters(server: &Server) -> Result<Counters> {
    let log = server.log.as_deref().context("a server without a log")?;
    let told = || -> Vec<String> {
        let text = fs::read_to_string(log).unwrap_or_default();
        text.lines().filter(|line| line.contains("bounced_bytes")).map(plain).collect()
    };
    let before = told().len();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        // It says nothing while nobody is logged in: on a busy machine the client may come late.
        let asked = Command::new("kill").args(["-USR1", &server.pid.to_string()]).status().context("kill")?;
        ensure!(asked.success(), "kill: {asked}");
        std::thread::sleep(Duration::from_millis(50));
        if let Some(line) = told().get(before..).and_then(|new| new.last()) {
            let moved = number(line, "data_in")? + number(line, "data_out")?;
            return Ok(Counters { moved, bounced: number(line, "bounced_bytes")? });
        }
    }
    bail!("the target does not tell its counters")
}

/// A line of a log without its colours.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some((text, escape)) = rest.split_once('\u{1b}') {
        out.push_str(text);
        rest = escape.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

fn number(line: &str, name: &str) -> Result<u64> {
    let words = line.split_whitespace().filter_map(|word| word.split_once('='));
    let value = words.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
    value.with_context(|| format!("no {name}"))?.parse().with_context(|| name.to_owned())
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}

fn medians(rows: &[Row]) -> Vec<Row> {
    let mut out: Vec<Row> = Vec::new();
    for row in rows {
        let same = |r: &Row| (&r.workload, r.transport) == (&row.workload, row.transport);
        if out.iter().any(same) {
            continue;
        }
        let all: Vec<&Row> = rows.iter().filter(|r| same(r)).collect();
        let median = |of: fn(&Row) -> f64| middle(all.iter().map(|r| of(r)).collect());
        out.push(Row {
            iops: median(|r| r.iops),
            megabytes_per_second: median(|r| r.megabytes_per_second),
            target_cpu_us: median(|r| r.target_cpu_us),
            client_cpu_us: median(|r| r.client_cpu_us),
            bounced_bytes: all.iter().map(|r| r.bounced_bytes).sum(),
            moved_bytes: all.iter().map(|r| r.moved_bytes).sum(),
            ..row.clone()
        });
    }
    out
}

fn table(rows: &[Row]) -> Table {
    let titles =
        ["workload", "transport", "IOPS", "MB/s", "target us/op", "client us/op", "bounced", "of tcp's IOPS"];
    let mut table = Table::new(&titles);
    for row in rows {
        let tcp = rows.iter().find(|r| r.workload == row.workload && r.transport == "tcp");
        table.row([
            row.workload.clone(),
            if row.transport == "tcp" { "tcp".into() } else { "iser (iwarp)".into() },
            format!("{:.0}", row.iops),
            format!("{:.0}", row.megabytes_per_second),
            format!("{:.1}", row.target_cpu_us),
            format!("{:.1}", row.client_cpu_us),
            format!("{} of {}", row.bounced_bytes, row.moved_bytes),
            tcp.map_or_else(String::new, |tcp| format!("{:.2}", row.iops / tcp.iops)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_through_colours() {
        let line = plain(
            "\u{1b}[32m INFO\u{1b}[0m counters \u{1b}[3mdata_in\u{1b}[0m\u{1b}[2m=\u{1b}[0m4096 bounced_bytes=7",
        );
        assert_eq!(number(&line, "data_in").unwrap(), 4096);
        assert_eq!(number(&line, "bounced_bytes").unwrap(), 7);
        assert!(number(&line, "moved").is_err());
    }
}
