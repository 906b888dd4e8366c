//! The whole path in one process: a target with a RAM disk, discovered, logged in to with mutual CHAP, written, read
//! back and verified: once over TCP with CRC32C digests, once over iSER (software iWARP, on the connection of the login).
//!
//! ```text
//! cargo run --release -p iscsi-initiator --example demo
//! ```
#![allow(clippy::disallowed_methods)] // a program reads the clock

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use iscsi_initiator::{ConnectOptions, Disk, IscsiUrl, Policy, discover};
use iscsi_target::Server;
use iscsi_target::config::{Backing, Chap, Config, LunConfig, TargetConfig};
use std::cell::RefCell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const IQN: &str = "iqn.2026-01.org.example:demo";
const USER: &str = "demo-initiator";
const SECRET: &str = "a secret of the demo";
const TARGET_USER: &str = "demo-target";
const TARGET_SECRET: &str = "another secret of it";

/// Bytes that are written and verified.
const SIZE: u64 = 256 << 20;
/// Bytes of one sequential access.
const CHUNK: u32 = 256 << 10;
/// Commands in flight.
const DEPTH: usize = 16;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("demo: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(demo()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// One row of the table.
struct Row {
    transport: String,
    what: &'static str,
    seconds: f64,
    bytes: u64,
    latency: Histogram<u64>,
    /// Bytes that either end copied in user space, per byte moved.
    copied: f64,
}

async fn demo() -> anyhow::Result<()> {
    let server = Server::start(config()?).await.context("starting the target")?;
    let portal = *server.local_addrs().first().context("the target listens nowhere")?;
    let portal_url: IscsiUrl = format!("iscsi://{portal}").parse()?;
    let mut options = ConnectOptions::from_url(&portal_url)?;
    options.chap = Some(credentials(USER, SECRET)?);
    options.target_chap = Some(credentials(TARGET_USER, TARGET_SECRET)?);

    let found = discover(&portal_url, &options).await.context("discovery")?;
    let target = found.first().context("discovery found no target")?;
    println!("discovered {} at {portal}", target.name);
    let url = IscsiUrl { target: Some(target.name.clone()), lun: Some(0), ..portal_url };

    let mut rows = Vec::new();
    for (policy, digests) in [(Policy::tcp(), true), (Policy::iser(), false)] {
        options.transport = policy;
        (options.header_digest, options.data_digest) = (digests, digests);
        let disk = Disk::attach(&url, &options).await.context("login")?;
        let protection = if digests { "header and data digests" } else { "its own CRC" };
        println!("logged in over {} with mutual CHAP and {protection}", disk.transport());
        for work in [Work::Write, Work::ReadAndVerify, Work::RandomRead] {
            let before = copied(&server, &disk).await;
            let mut row = match work {
                Work::Write => sequential(&disk, "write", true).await?,
                Work::ReadAndVerify => sequential(&disk, "read and verify", false).await?,
                Work::RandomRead => random(&disk).await?,
            };
            row.copied = (copied(&server, &disk).await - before) / row.bytes as f64;
            rows.push(row);
        }
        disk.close().await.context("logout")?;
    }
    server.shutdown().await;

    println!();
    println!(
        "{:<14} {:<20} {:>10} {:>8} {:>9} {:>9} {:>12}",
        "transport", "", "MB/s", "IOPS", "p50 µs", "p99 µs", "copied/byte"
    );
    for row in rows {
        println!(
            "{:<14} {:<20} {:>10.0} {:>8.0} {:>9} {:>9} {:>12.3}",
            row.transport,
            row.what,
            row.bytes as f64 / 1e6 / row.seconds,
            row.latency.len() as f64 / row.seconds,
            row.latency.value_at_quantile(0.5),
            row.latency.value_at_quantile(0.99),
            row.copied,
        );
    }
    Ok(())
}

enum Work {
    Write,
    ReadAndVerify,
    RandomRead,
}

/// Bytes that both ends have copied in user space so far.
async fn copied(server: &Server, disk: &Disk) -> f64 {
    let ends = [server.stats().await, disk.session().stats().await.unwrap_or_default()];
    ends.iter().map(|s| (s.copied_bytes + s.bounced_bytes) as f64).sum()
}

fn credentials(user: &str, secret: &str) -> anyhow::Result<iscsi_login::auth::ChapCredentials> {
    use iscsi_login::auth::{ChapCredentials, Secret};
    Ok(ChapCredentials::new(user, Secret::parse(secret)?)?)
}

fn config() -> anyhow::Result<Config> {
    let chap = Chap::new(USER, SECRET, Some((TARGET_USER, TARGET_SECRET)))?;
    Ok(Config {
        portals: vec!["127.0.0.1:0".parse()?],
        transport: Policy::auto(),
        targets: vec![TargetConfig {
            alias: Some("demo".into()),
            chap: Some(chap),
            luns: vec![LunConfig::new(Backing::Ram { size: SIZE })],
            ..TargetConfig::new(IQN.parse()?)
        }],
        ..Config::default()
    })
}

/// Writes or reads all of the disk in order; what is read is compared with what was written.
async fn sequential(disk: &Disk, what: &'static str, write: bool) -> anyhow::Result<Row> {
    let bar = bar(what);
    let block = disk.capacity().block_size;
    let latency = RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let start = Instant::now();
    stream::iter((0..SIZE).step_by(CHUNK as usize))
        .map(|offset| {
            let (bar, latency) = (&bar, &latency);
            async move {
                let lba = offset / u64::from(block);
                let expected = pattern(offset);
                let start = Instant::now();
                if write {
                    disk.write(lba, expected.into()).await?;
                } else {
                    let data = disk.read(lba, CHUNK / block).await?;
                    if data.to_bytes() != expected {
                        bail!("the {CHUNK} bytes at {offset} are not what was written");
                    }
                }
                latency.borrow_mut().saturating_record(micros(start.elapsed()));
                bar.inc(CHUNK.into());
                Ok(())
            }
        })
        .buffer_unordered(DEPTH)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    if write {
        disk.flush().await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let transport = disk.transport();
    Ok(Row { transport, what, seconds, bytes: SIZE, latency: latency.into_inner(), copied: 0.0 })
}

/// Reads 4 KiB at spread places for a second.
async fn random(disk: &Disk) -> anyhow::Result<Row> {
    const LEN: u32 = 4096;
    let block = disk.capacity().block_size;
    let latency = RefCell::new(Histogram::new_with_bounds(1, 60_000_000, 3)?);
    let start = Instant::now();
    let end = start + Duration::from_secs(1);
    stream::iter(0u64..)
        .take_while(|_| async { Instant::now() < end })
        .map(|n| {
            let latency = &latency;
            async move {
                let place = mix(n) % (SIZE / u64::from(LEN));
                let start = Instant::now();
                disk.read(place * u64::from(LEN / block), LEN / block).await?;
                latency.borrow_mut().saturating_record(micros(start.elapsed()));
                anyhow::Ok(())
            }
        })
        .buffer_unordered(DEPTH)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    let latency = latency.into_inner();
    let bytes = latency.len() * u64::from(LEN);
    let (transport, seconds) = (disk.transport(), start.elapsed().as_secs_f64());
    Ok(Row { transport, what: "4 KiB random read", seconds, bytes, latency, copied: 0.0 })
}

/// The bytes that belong at an offset: every eight of them say where they are, so that nothing can be exchanged,
/// shifted or left out unnoticed.
fn pattern(offset: u64) -> Bytes {
    let mut data = Vec::with_capacity(CHUNK as usize);
    for word in (offset..offset + u64::from(CHUNK)).step_by(8) {
        data.extend_from_slice(&mix(word).to_le_bytes());
    }
    data.into()
}

/// The finalizer of SplitMix64: neighbouring numbers have nothing in common afterwards.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(SIZE);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:16} [{bar:40}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
    ) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}
