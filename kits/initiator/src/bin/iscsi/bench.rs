//! `iscsi bench`: throughput and latency of a LUN under a given load.

use crate::options::{Global, Usage};
use crate::output::{self, size};
use clap::{Args, ValueEnum};
use datamover::SgList;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use iscsi_initiator::{Disk, IscsiUrl};
use serde::Serialize;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Order and direction of the accesses.
#[derive(Clone, Copy, ValueEnum, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Pattern {
    /// Sequential reads
    Read,
    /// Sequential writes
    Write,
    /// Random reads
    Randread,
    /// Random writes
    Randwrite,
    /// Random, 70 % reads
    Randrw,
}

impl Pattern {
    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Randwrite | Self::Randrw)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }
}

/// Measure a LUN
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi bench URL                                             # 4 KiB random reads, depth 32, 10 seconds
  iscsi bench URL --pattern read --block-size 1M --queue-depth 8
  iscsi bench URL --pattern randwrite --seconds 60 --destroy-data --json

Patterns that write destroy what the LUN holds and therefore need --destroy-data.")]
pub(crate) struct Bench {
    /// The LUN
    url: IscsiUrl,
    /// Order and direction of the accesses
    #[arg(long, value_enum, default_value = "randread")]
    pattern: Pattern,
    /// Bytes an access, for example 4096, 4K or 1M
    #[arg(long, default_value = "4K", value_name = "SIZE", value_parser = parse_size)]
    block_size: u32,
    /// Commands in flight
    #[arg(long, short, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    queue_depth: u16,
    /// How long to measure
    #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Overwrite the LUN's data
    #[arg(long)]
    destroy_data: bool,
}

/// `4096`, `4K`, `1M`; powers of 1024.
fn parse_size(text: &str) -> Result<u32, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit {
        "" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        _ => return Err(format!("'{text}' is no size: expected for example 4096, 4K or 1M")),
    };
    let bytes = digits.parse::<u32>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|n| *n > 0).ok_or_else(|| format!("'{text}' is out of range"))
}

#[derive(Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Serialize)]
struct Report {
    url: String,
    transport: String,
    pattern: Pattern,
    block_size: u32,
    queue_depth: u16,
    seconds: f64,
    operations: u64,
    iops: f64,
    megabytes_per_second: f64,
    /// CPU time of this process, user and system, an operation, in microseconds; not everywhere known.
    cpu_us: Option<f64>,
    latency_us: Latency,
}

/// CPU time that this process has used.
#[cfg(unix)]
fn cpu_time() -> Option<Duration> {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()
}

#[cfg(not(unix))]
fn cpu_time() -> Option<Duration> {
    None
}

/// What the workers share; all of them run on one thread.
struct Tally {
    latency: Histogram<u64>,
    /// xorshift64*: the accesses need to be spread, not unpredictable.
    random: u64,
    next: u64,
}

impl Tally {
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Bench {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        if self.pattern.writes() && !self.destroy_data {
            return Err(Usage(
                "this pattern overwrites the LUN: give --destroy-data if that is wanted".into(),
            )
            .into());
        }
        let disk = Disk::attach(&self.url, &global.connect_options(&self.url)?).await?;
        let capacity = disk.capacity();
        if !self.block_size.is_multiple_of(capacity.block_size) {
            return Err(Usage(format!(
                "block size {} is no multiple of the LUN's {}",
                self.block_size, capacity.block_size
            ))
            .into());
        }
        let blocks = self.block_size / capacity.block_size;
        let places = capacity.blocks / u64::from(blocks);
        if places == 0 {
            return Err(Usage(format!("the LUN is smaller than {}", size(u64::from(self.block_size)))).into());
        }
        let tally = RefCell::new(Tally {
            latency: Histogram::new_with_bounds(1, 600_000_000, 3)?,
            random: seed(),
            next: 0,
        });
        let pattern_data: SgList = bytes::Bytes::from(vec![0xa5; self.block_size as usize]).into();
        let bar = ProgressBar::new(self.seconds);
        let cpu = cpu_time();
        let start = Instant::now();
        let end = start + Duration::from_secs(self.seconds);
        let mut workers: FuturesUnordered<_> = (0..self.queue_depth)
            .map(|_| self.worker(&disk, &tally, &pattern_data, blocks, places, end, &bar, start))
            .collect();
        while let Some(result) = workers.next().await {
            result?;
        }
        drop(workers);
        let seconds = start.elapsed().as_secs_f64();
        let cpu = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        bar.finish_and_clear();
        let report = self.report(&disk, &tally.borrow().latency, seconds, cpu);
        disk.close().await?;
        if global.json { output::json(&report) } else { print(&report) }
    }

    #[allow(clippy::too_many_arguments)] // one place, and each is needed in the loop
    async fn worker(
        &self,
        disk: &Disk,
        tally: &RefCell<Tally>,
        data: &SgList,
        blocks: u32,
        places: u64,
        end: Instant,
        bar: &ProgressBar,
        start: Instant,
    ) -> anyhow::Result<()> {
        let mut now = Instant::now();
        while now < end {
            let (place, write) = {
                let mut tally = tally.borrow_mut();
                let place = if self.pattern.is_random() {
                    tally.random() % places
                } else {
                    tally.next += 1;
                    (tally.next - 1) % places
                };
                let write = match self.pattern {
                    Pattern::Randrw => tally.random() % 10 >= 7,
                    pattern => pattern.writes(),
                };
                (place, write)
            };
            let lba = place * u64::from(blocks);
            if write {
                disk.write(lba, data.clone()).await?;
            } else {
                drop(disk.read(lba, blocks).await?);
            }
            let done = Instant::now();
            let micros = u64::try_from((done - now).as_nanos() / 100).unwrap_or(u64::MAX);
            tally.borrow_mut().latency.saturating_record(micros);
            now = done;
            bar.set_position((now - start).as_secs());
        }
        Ok(())
    }

    fn report(&self, disk: &Disk, latency: &Histogram<u64>, seconds: f64, cpu: Option<Duration>) -> Report {
        // The histogram counts tenths of a microsecond.
        let quantile = |q| latency.value_at_quantile(q) as f64 / 10.0;
        let operations = latency.len();
        let iops = operations as f64 / seconds;
        Report {
            url: self.url.to_string(),
            transport: disk.transport(),
            pattern: self.pattern,
            block_size: self.block_size,
            queue_depth: self.queue_depth,
            seconds,
            operations,
            iops,
            megabytes_per_second: iops * f64::from(self.block_size) / 1e6,
            cpu_us: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / (operations.max(1) as f64)),
            latency_us: Latency {
                min: latency.min() as f64 / 10.0,
                mean: latency.mean() / 10.0,
                p50: quantile(0.5),
                p90: quantile(0.9),
                p99: quantile(0.99),
                p999: quantile(0.999),
                max: latency.max() as f64 / 10.0,
            },
        }
    }
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness every run accesses the same places, which is no reason to fail.
    let _ = getrandom::fill(&mut bytes);
    u64::from_ne_bytes(bytes) | 1
}

fn print(r: &Report) -> anyhow::Result<()> {
    let l = &r.latency_us;
    output::line(format!(
        "{:.0} IOPS, {:.1} MB/s over {} in {:.1} s",
        r.iops, r.megabytes_per_second, r.transport, r.seconds
    ))?;
    output::line(format!(
        "latency in µs: min {:.0}, mean {:.0}, p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        l.min, l.mean, l.p50, l.p90, l.p99, l.p999, l.max
    ))?;
    if let Some(cpu) = r.cpu_us {
        output::line(format!("CPU of this process in µs an operation: {cpu:.2}"))?;
    }
    Ok(())
}
