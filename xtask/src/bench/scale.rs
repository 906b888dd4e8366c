//! How our target scales: what an idle session costs, whether many busy ones get as much done as few, and whether a
//! command costs more where there are many units or targets. `cargo xtask bench --scale`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::goals::{self, Finding};
use super::report::Seen;
use super::servers::{self, IQN, Server};
use super::usage::Usage;
use super::wire::{Session, Url};
use super::{K4, Workload, floor, lean, load};
use crate::workspace::root;

const IDLE: usize = 1000;
/// How long idleness is watched: pings come later.
const WATCHED: Duration = Duration::from_secs(5);
/// What an idle session may cost.
const KIB: f64 = 32.0;
const LUNS: usize = 1024;
const TARGETS: usize = 256;
/// Of the units that are read.
const SPAN: u64 = 16 << 20;

/// Measures and prints, and keeps it as bench/results/NAME-scale.json and .txt; an error when a goal is missed.
pub(crate) fn run(rounds: usize, seconds: f64, json: bool, save: Option<&str>) -> Result<()> {
    let (program, time) = (super::built()?, Duration::from_secs_f64(seconds));
    let mut found = idle(&program)?;
    found.extend(busy(&program, rounds, time)?);
    found.extend(many(&program, rounds, time)?);
    let (text, table) = (serde_json::to_string_pretty(&found)?, goals::table(&found));
    if let Some(name) = save {
        let path = root().join(format!("bench/results/{name}-scale.json"));
        std::fs::write(&path, format!("{text}\n")).with_context(|| path.display().to_string())?;
        std::fs::write(path.with_extension("txt"), &table)?;
    }
    print!("{}", if json { format!("{text}\n") } else { format!("\n{table}") });
    let missed = found.iter().filter(|f| !f.met).count();
    ensure!(missed == 0, "{missed} goals are missed");
    Ok(())
}

/// Sessions that do nothing: their memory and their CPU.
fn idle(program: &std::path::Path) -> Result<Vec<Finding>> {
    let server = servers::ours("idle", program, SPAN, &[])?;
    // The first session brings what all share.
    let first = Session::open(&server.url, false)?;
    let before = Usage::of(server.pid)?;
    let sessions: Vec<Session> = (0..IDLE)
        .map(|n| Session::open_as(&server.url, false, n as u16).with_context(|| format!("session {n}")))
        .collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_secs(1));
    let settled = Usage::of(server.pid)?;
    std::thread::sleep(WATCHED);
    let after = Usage::of(server.pid)?;
    drop((first, sessions));
    let kib = settled.rss_kib.saturating_sub(before.rss_kib) as f64 / IDLE as f64;
    let cpu = after.cpu_ns.saturating_sub(settled.cpu_ns) as f64 / 1e6 / WATCHED.as_secs_f64();
    Ok(vec![
        Finding::at_most(format!("memory of one of {IDLE} idle sessions, KiB"), kib, KIB),
        // Two ticks of the kernel's clock in all that time.
        Finding::at_most(format!("CPU of {IDLE} idle sessions, ms a second"), cpu, 4.0),
    ])
}

/// IOPS of 64 sessions by those of 8, with as many commands under way; and the floor's, by the same clients: with few
/// commands a session, client and kernel do more for each of them, too.
fn busy(program: &std::path::Path, rounds: usize, time: Duration) -> Result<Vec<Finding>> {
    let (ours, of_machine) = (servers::ours("busy", program, SPAN, &[])?, servers::floor(SPAN)?);
    lean::fill(&ours.url, SPAN)?;
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let iops = |sessions: usize, of_floor: bool| -> Result<f64> {
            let workload = Workload { span: SPAN, ..Workload::new("busy", 100, K4, 256 / sessions) };
            let seed = |n: usize| (round * 64 + n + 1) as u64;
            let numbers = 0..sessions;
            let samples = if of_floor {
                let open = |n| floor::Client::open(&of_machine.url, &workload, seed(n));
                load::many(numbers.map(open).collect::<Result<Vec<_>>>()?, time)?
            } else {
                let open = |n: usize| lean::Client::open(&ours.url, &workload, n as u16, seed(n));
                load::many(numbers.map(open).collect::<Result<Vec<_>>>()?, time)?
            };
            Ok(Seen::of(&samples, None).iops)
        };
        for (of_floor, ratios) in [false, true].into_iter().zip(&mut ratios) {
            ratios.push(iops(64, of_floor)? / iops(8, of_floor)?);
        }
    }
    let [ratio, of_floor] = ratios.map(median);
    Ok(vec![
        Finding::at_least("IOPS of 64 busy sessions by those of 8", ratio, 0.9),
        Finding::at_least("that by the same of the floor", ratio / of_floor, 0.9),
    ])
}

/// CPU of a command where there are many units, many targets, by that where there is one.
fn many(program: &std::path::Path, rounds: usize, time: Duration) -> Result<Vec<Finding>> {
    let lun = |n: usize| format!("[[target.lun]]\nlun = {n}\nram = \"{}M\"\n", SPAN >> 20);
    let target = |n: usize| format!("[[target]]\niqn = \"{IQN}{n}\"\n");
    let one = configured(program, "one", &format!("{}{}", target(0), lun(0)), 0, 0)?;
    let luns: String = (0..LUNS).map(lun).collect();
    let luns = configured(program, "luns", &format!("{}{luns}", target(0)), 0, LUNS - 1)?;
    let targets: String = (0..TARGETS).map(|n| target(n) + &lun(0)).collect();
    let targets = configured(program, "targets", &targets, TARGETS - 1, 0)?;
    let servers = [one, luns, targets];
    for server in &servers {
        lean::fill(&server.url, SPAN)?;
    }
    let workload = Workload { span: SPAN, ..Workload::new("many", 100, K4, 32) };
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let mut cpu = Vec::new();
        for server in &servers {
            let before = Usage::of(server.pid)?;
            let sample = lean::run(&server.url, &workload, time, round as u64 + 1)?;
            let used = Usage::of(server.pid)?.cpu_ns.saturating_sub(before.cpu_ns);
            cpu.push(used as f64 / sample.latencies.len().max(1) as f64);
        }
        for (ratios, cpu_of) in ratios.iter_mut().zip(&cpu[1..]) {
            ratios.push(cpu_of / cpu[0].max(1.0));
        }
    }
    let [of_luns, of_targets] = ratios.map(median);
    Ok(vec![
        Finding::at_most(
            format!("CPU of a command on one of {LUNS} units by that on the only one"),
            of_luns,
            1.1,
        ),
        Finding::at_most(
            format!("CPU of a command to one of {TARGETS} targets by that to the only one"),
            of_targets,
            1.1,
        ),
    ])
}

fn configured(
    program: &std::path::Path,
    name: &str,
    targets: &str,
    target: usize,
    lun: usize,
) -> Result<Server> {
    let path: PathBuf = root().join(format!("target/bench-scale-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, format!("portals = [\"127.0.0.1:0\"]\ntransport = \"tcp\"\n\n{targets}"))?;
    let url = |portal| Url { portal, name: format!("{IQN}{target}"), lun: lun as u16 };
    let server = servers::from_config(name, program, &path, url);
    std::fs::remove_file(&path)?;
    server
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
