//! Our target beside foreign ones and beside the floor of the machine: `cargo xtask bench`.
//!
//! Every server gets a RAM-backed unit that is written through once. The rounds are interleaved, one workload and
//! server after the other, so that a change of the machine's mood hits all; the table shows medians.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::tools::cargo;
use calls::Calls;
use client::Client;
use flame::built;
use report::{Row, Seen};
use servers::Server;
use usage::Usage;
use wire::Url;

mod calls;
mod client;
pub(crate) mod flame;
mod floor;
mod goals;
mod iser;
mod lean;
mod load;
mod plot;
mod report;
mod scale;
pub(crate) mod servers;
mod usage;
pub(crate) mod wire;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Three rounds of one second and the most telling workloads.
    #[arg(long)]
    quick: bool,
    /// The workloads, servers and clients that show what is asked for, and a table that says whether it is reached.
    #[arg(long, conflicts_with_all = ["quick", "scale"])]
    goals: bool,
    /// Our target over TCP and over iSER (software iWARP) on loopback, with our client, instead.
    #[arg(long)]
    iser: bool,
    /// With --iser: take our programs from here instead of building them.
    #[arg(long, requires = "iser", value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Rounds; the table shows medians.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Seconds of one measurement.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Run workloads whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Servers to measure: ours, spin (ours, with --spin 200, one command at a time), tgt, istgt, floor, and another build
    /// of ours as NAME=PATH [default: ours,tgt,istgt,floor; with --goals ours,spin,tgt,floor].
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Clients that make the load: lean, libiscsi (its asynchronous API), iscsi (our `iscsi bench`) [default: all; with
    /// --quick the lean one].
    #[arg(long, value_delimiter = ',')]
    clients: Vec<String>,
    /// Count the servers' system calls, in a round of their own (perf, else strace).
    #[arg(long)]
    calls: bool,
    /// Measure how the target scales instead: idle sessions, busy sessions, units, targets.
    #[arg(long, conflicts_with_all = ["filter", "servers", "url"])]
    scale: bool,
    /// Draw a kept result, FILE.json, as FILE.svg, and do nothing else.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// One more target that runs already, iscsi://ADDRESS:PORT/NAME/LUN; its data are overwritten.
    #[arg(long, requires = "pid")]
    url: Option<Url>,
    /// Process of that target.
    #[arg(long)]
    pid: Option<u32>,
    /// Further options of our target, as one word.
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    ours: Option<String>,
    /// MiB of the unit that are used.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    span: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Keep the result, with versions, as bench/results/NAME.json.
    #[arg(long, value_name = "NAME")]
    save: Option<String>,
    /// Be the floor's server.
    #[arg(long, hide = true, value_name = "BYTES")]
    serve_floor: Option<u64>,
}

/// What a client does.
#[derive(Clone)]
pub(crate) struct Workload {
    name: &'static str,
    /// Per cent of reads among the commands.
    reads: u64,
    random: bool,
    /// Bytes of a command.
    size: usize,
    /// Commands under way, of each session.
    depth: usize,
    sessions: usize,
    digests: bool,
    /// Bytes of the unit that are used.
    span: u64,
}

impl Workload {
    const fn new(name: &'static str, reads: u64, size: usize, depth: usize) -> Self {
        let random = size <= 8192;
        Self { name, reads, random, size, depth, sessions: 1, digests: false, span: 0 }
    }

    const fn digests(self) -> Self {
        Self { digests: true, ..self }
    }

    const fn sessions(self, sessions: usize) -> Self {
        Self { sessions, ..self }
    }
}

const K4: usize = 4 << 10;
const K128: usize = 128 << 10;
const M1: usize = 1 << 20;

const WORKLOADS: &[Workload] = &[
    Workload::new("4k-randread-d1", 100, K4, 1),
    Workload::new("4k-randread-d4", 100, K4, 4),
    Workload::new("4k-randread-d16", 100, K4, 16),
    Workload::new("4k-randread-d32", 100, K4, 32),
    Workload::new("4k-randread-d128", 100, K4, 128),
    Workload::new("4k-randwrite-d1", 0, K4, 1),
    Workload::new("4k-randwrite-d32", 0, K4, 32),
    Workload::new("4k-randwrite-d128", 0, K4, 128),
    Workload::new("4k-mix70-d32", 70, K4, 32),
    Workload::new("4k-randread-4x32", 100, K4, 32).sessions(4),
    Workload::new("4k-randwrite-4x32", 0, K4, 32).sessions(4),
    Workload::new("128k-read-d8", 100, K128, 8),
    Workload::new("128k-write-d8", 0, K128, 8),
    Workload::new("1m-read-d8", 100, M1, 8),
    Workload::new("1m-write-d8", 0, M1, 8),
    Workload::new("4k-randread-d32-crc", 100, K4, 32).digests(),
    Workload::new("4k-randwrite-d32-crc", 0, K4, 32).digests(),
    Workload::new("1m-read-d8-crc", 100, M1, 8).digests(),
    Workload::new("1m-write-d8-crc", 0, M1, 8).digests(),
];

/// What `--quick` runs.
const QUICK: &[&str] =
    &["4k-randread-d1", "4k-randread-d32", "4k-randwrite-d32", "1m-read-d8", "1m-write-d8", "1m-read-d8-crc"];

/// What one client saw.
#[derive(Default)]
pub(crate) struct Sample {
    seconds: f64,
    /// Of each command, in nanoseconds.
    latencies: Vec<u32>,
}

/// Runs what the options ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(span) = args.serve_floor {
        return floor::serve(span);
    }
    if args.iser {
        return iser::run(args);
    }
    if let Some(path) = &args.plot {
        return report::redraw(path);
    }
    if cfg!(debug_assertions) {
        return again_in_release();
    }
    raise_file_limit();
    if args.scale {
        return scale::run(
            args.rounds.unwrap_or(3),
            args.seconds.unwrap_or(1.0),
            args.json,
            args.save.as_deref(),
        );
    }
    let span = args.span << 20;
    let workloads: Vec<Workload> = WORKLOADS
        .iter()
        .filter(|w| args.filter.is_some() || !args.quick || QUICK.contains(&w.name))
        .filter(|w| args.filter.is_some() || !args.goals || goals::WORKLOADS.contains(&w.name))
        .filter(|w| args.filter.as_ref().is_none_or(|text| w.name.contains(text.as_str())))
        .map(|w| Workload { span, ..w.clone() })
        .collect();
    ensure!(!workloads.is_empty(), "no workload's name contains that");
    let (clients, load) = (clients(args)?, report::load());
    let servers = start(args, span)?;
    for server in servers.iter().filter(|s| s.name != "floor") {
        eprintln!("filling {} {}", server.name, server.version);
        lean::fill(&server.url, span).with_context(|| server.name.clone())?;
    }
    let rounds = args.rounds.unwrap_or(if args.quick { 3 } else { 5 });
    let time =
        Duration::from_secs_f64(args.seconds.unwrap_or(if args.quick || args.goals { 1.0 } else { 2.0 }));
    let mut rows: Vec<Row> = Vec::new();
    for workload in &workloads {
        for round in 0..rounds {
            for server in servers.iter().filter(|s| serves(s, workload)) {
                for client in clients.iter().filter(|c| uses(c, server, workload, args.goals)) {
                    servers::alive(server)?;
                    let row = measure(server, client, workload, time, round as u64);
                    let what = || format!("{} on {} by {}", workload.name, server.name, client.name());
                    rows.push(row.with_context(what)?);
                }
            }
        }
        for server in servers.iter().filter(|s| (args.calls || args.goals) && serves(s, workload)) {
            let calls = Calls::of(server.pid)?;
            let mut row = measure(server, &Client::Lean, workload, time, 99)?;
            let count = row.iops * time.as_secs_f64();
            row.calls_per_io = calls.stop()?.map(|calls| calls as f64 / count.max(1.0));
            // Beside the others it adds nothing but the calls.
            for other in rows.iter_mut().filter(|other| other.is_like(&row)) {
                other.calls_per_io = row.calls_per_io;
            }
        }
        eprintln!("{} done", workload.name);
    }
    let of_clients = clients.iter().map(|c| (format!("client {}", c.name()), c.version()));
    let versions = servers.iter().map(|s| (s.name.clone(), s.version.clone())).chain(of_clients).collect();
    report::print(args, &report::medians(rows), versions, &load)
}

/// Runs this command built for release: the client must not be what is slow.
pub(crate) fn again_in_release() -> Result<()> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "-p", "xtask", "--"]);
    let status = command.args(std::env::args_os().skip(1)).status().context("cargo")?;
    ensure!(status.success(), "the release build of this command: {status}");
    Ok(())
}

/// A thousand sessions are a thousand sockets; what is started inherits it.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The clients to use; what is missing is said, and left out.
fn clients(args: &Args) -> Result<Vec<Client>> {
    let all = if args.quick { &["lean"][..] } else { &["lean", "libiscsi", "iscsi"] };
    let asked: Vec<&str> = match args.clients.is_empty() {
        true => all.to_vec(),
        false => args.clients.iter().map(String::as_str).collect(),
    };
    let mut clients = Vec::new();
    for name in asked {
        match Client::new(name)? {
            Ok(client) => clients.push(client),
            Err(why) => eprintln!("WITHOUT the client {name}: {why}"),
        }
    }
    ensure!(!clients.is_empty(), "there is no client");
    Ok(clients)
}

/// Whether a client puts that load on that server: only the lean one speaks to the floor; for the goals the others are
/// compared on our target.
fn uses(client: &Client, server: &Server, workload: &Workload, goals: bool) -> bool {
    let wanted = !goals || (server.name == "ours" && goals::OF_CLIENTS.contains(&workload.name));
    client.can(workload) && (matches!(client, Client::Lean) || (server.name != "floor" && wanted))
}

/// tgt offers either digests or none, as it was told; so there are two of it.
fn serves(server: &Server, workload: &Workload) -> bool {
    match server.name.as_str() {
        "tgt" => !workload.digests,
        "tgt+crc" => workload.digests,
        "spin" => workload.depth == 1,
        _ => true,
    }
}

fn start(args: &Args, span: u64) -> Result<Vec<Server>> {
    let extra: Vec<String> = args.ours.iter().flat_map(|o| o.split_whitespace()).map(str::to_owned).collect();
    let usual =
        if args.goals { &["ours", "spin", "tgt", "floor"][..] } else { &["ours", "tgt", "istgt", "floor"] };
    let names: Vec<&str> = match args.servers.is_empty() {
        true => usual.to_vec(),
        false => args.servers.iter().map(String::as_str).collect(),
    };
    let mut servers = Vec::new();
    for name in names {
        match name {
            "ours" => servers.push(servers::ours("ours", &built()?, span, &extra)?),
            "spin" => {
                let extra: Vec<String> =
                    extra.iter().cloned().chain(["--spin", "200"].map(str::to_owned)).collect();
                servers.push(servers::ours("spin", &built()?, span, &extra)?);
            }
            "tgt" => {
                servers.push(servers::tgt(span, false)?);
                if !(args.quick || args.goals) || args.filter.as_ref().is_some_and(|f| f.contains("crc")) {
                    servers.push(servers::tgt(span, true)?);
                }
            }
            "istgt" => servers.push(servers::istgt(span)?),
            "floor" => servers.push(servers::floor(span)?),
            other => {
                let (name, path) =
                    other.split_once('=').context("a server is ours, tgt, istgt, floor or NAME=PATH")?;
                servers.push(servers::ours(name, &PathBuf::from(path), span, &extra)?);
            }
        }
    }
    if let (Some(url), Some(pid)) = (&args.url, args.pid) {
        servers.push(servers::running(url.clone(), pid));
    }
    Ok(servers)
}

fn measure(server: &Server, client: &Client, workload: &Workload, time: Duration, round: u64) -> Result<Row> {
    let before = Usage::of(server.pid)?;
    let seed = |n: usize| 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(round * 64 + n as u64 + 1);
    let seen = match client {
        Client::Lean => Seen::of(
            &side_by_side(workload.sessions, |n| match server.name.as_str() {
                "floor" => floor::run(&server.url, workload, time, seed(n)),
                _ => lean::run(&server.url, workload, time, seed(n)),
            })?,
            None,
        ),
        other => Seen::together(&side_by_side(workload.sessions, |n| {
            other.run(&server.url, workload, time, seed(n))
        })?),
    };
    Ok(Row::new(server, client, workload, &seen, before, Usage::of(server.pid)?))
}

/// Runs the sessions of a workload at a time.
fn side_by_side<T: Send>(sessions: usize, one: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let one = &one;
        let all: Vec<_> = (0..sessions).map(|n| scope.spawn(move || one(n))).collect();
        all.into_iter().map(|t| t.join().expect("a client panicked")).collect()
    })
}
