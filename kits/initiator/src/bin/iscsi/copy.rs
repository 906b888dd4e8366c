//! `iscsi copy`: whole files and LUNs, many commands in flight, in order on the file's side.

use crate::options::{Global, Usage};
use crate::output::{progress, size};
use crate::{Differs, output};
use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use datamover::SgList;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use iscsi_initiator::{Disk, IscsiUrl};
use std::future::Future;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Instant;

/// Bytes a command moves: large enough that its overhead does not count, small enough for any target.
const CHUNK: u32 = 256 << 10;

/// Copy a file to a LUN, a LUN to a file, or a LUN to a LUN
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi copy disk.img iscsi://host/iqn.2026-01.org.example:disk0/0 --verify
  iscsi copy iscsi://host/iqn.2026-01.org.example:disk0/0 backup.img
  iscsi copy iscsi://a/iqn.2026-01.org.example:old/0 iscsi://b/iqn.2026-01.org.example:new/0

A file must not be longer than the LUN. The copy is flushed to stable storage before the command ends; with --verify
all of it is read back and compared.")]
pub(crate) struct Copy {
    /// File or URL to read
    source: String,
    /// File or URL to write
    destination: String,
    /// Read the copy back and compare
    #[arg(long)]
    verify: bool,
    /// Commands in flight
    #[arg(long, short, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    queue_depth: u16,
}

#[derive(serde::Serialize)]
struct Report {
    bytes: u64,
    seconds: f64,
    verified: bool,
}

/// One side of a copy.
enum End {
    File(PathBuf),
    Lun(Box<Disk>),
}

impl End {
    async fn open(text: &str, global: &Global) -> anyhow::Result<Self> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url: IscsiUrl = text.parse()?;
        Ok(Self::Lun(Box::new(Disk::attach(&url, &global.connect_options(&url)?).await?)))
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::File(_) => Ok(()),
            Self::Lun(disk) => Ok(disk.close().await?),
        }
    }
}

impl Copy {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let source = End::open(&self.source, global).await?;
        let destination = End::open(&self.destination, global).await?;
        let depth = usize::from(self.queue_depth);
        let start = Instant::now();
        let bytes = match (&source, &destination) {
            (End::File(_), End::File(_)) => {
                return Err(Usage("neither end is an iscsi:// URL: use cp".into()).into());
            }
            (End::File(file), End::Lun(disk)) => file_to_lun(file, disk, depth).await?,
            (End::Lun(disk), End::File(file)) => lun_to_file(disk, file, depth).await?,
            (End::Lun(from), End::Lun(to)) => lun_to_lun(from, to, depth).await?,
        };
        let seconds = start.elapsed().as_secs_f64();
        if self.verify {
            match (&source, &destination) {
                (End::File(file), End::Lun(disk)) | (End::Lun(disk), End::File(file)) => {
                    verify_file(file, disk, bytes, depth).await?;
                }
                (End::Lun(from), End::Lun(to)) => verify_lun(from, to, bytes, depth).await?,
                (End::File(_), End::File(_)) => (),
            }
        }
        source.close().await?;
        destination.close().await?;
        if global.json {
            return output::json(&Report { bytes, seconds, verified: self.verify });
        }
        let rate = size((bytes as f64 / seconds.max(1e-9)) as u64);
        let verified = if self.verify { ", verified" } else { "" };
        output::line(format!("{} copied in {seconds:.2} s, {rate}/s{verified}", size(bytes)))?;
        Ok(())
    }
}

async fn file_to_lun(file: &Path, disk: &Disk, depth: usize) -> anyhow::Result<u64> {
    let input = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let length = input.metadata()?.len();
    if length > disk.capacity().bytes() {
        return Err(Usage(format!(
            "{} has {}, the LUN only {}",
            file.display(),
            size(length),
            size(disk.capacity().bytes())
        ))
        .into());
    }
    let bar = progress("copy", length);
    // A file that ends within a block is filled up with zeros: a LUN has only whole blocks.
    let bytes = Source::new(Box::new(input), true).copy_in(disk, 0, depth, false, |n| bar.inc(n)).await?;
    disk.flush().await?;
    bar.finish_and_clear();
    Ok(bytes.min(length))
}

async fn lun_to_file(disk: &Disk, file: &Path, depth: usize) -> anyhow::Result<u64> {
    let mut out = std::fs::File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    let length = disk.capacity().bytes();
    let bar = progress("copy", length);
    let mut hole = 0;
    copy_out(disk, 0, disk.capacity().blocks, depth, |data| {
        // Zeros become holes, so that the copy of a sparse LUN is sparse.
        if data.parts().all(|part| part.iter().all(|b| *b == 0)) {
            hole += data.len() as u64;
        } else {
            out.seek_relative_and_reset(&mut hole)?;
            data.parts().try_for_each(|part| out.write_all(part))?;
        }
        bar.inc(data.len() as u64);
        Ok(())
    })
    .await
    .with_context(|| format!("copying to {}", file.display()))?;
    out.set_len(length)?;
    out.sync_all()?;
    bar.finish_and_clear();
    Ok(length)
}

/// Skipping over what is to stay a hole.
trait SkipHole {
    fn seek_relative_and_reset(&mut self, hole: &mut u64) -> std::io::Result<()>;
}

impl SkipHole for std::fs::File {
    fn seek_relative_and_reset(&mut self, hole: &mut u64) -> std::io::Result<()> {
        if *hole > 0 {
            self.seek(std::io::SeekFrom::Current(i64::try_from(*hole).map_err(std::io::Error::other)?))?;
            *hole = 0;
        }
        Ok(())
    }
}

async fn lun_to_lun(from: &Disk, to: &Disk, depth: usize) -> anyhow::Result<u64> {
    let (a, b) = (from.capacity(), to.capacity());
    if a.bytes() > b.bytes() || a.block_size % b.block_size != 0 {
        return Err(Usage(format!(
            "the source ({} in {}-byte blocks) does not fit the destination ({} in {}-byte blocks)",
            size(a.bytes()),
            a.block_size,
            size(b.bytes()),
            b.block_size
        ))
        .into());
    }
    let bar = progress("copy", a.bytes());
    let mut flight = Flight::new(depth);
    for (lba, blocks) in chunks(0, a.blocks, a.block_size) {
        let at = lba * u64::from(a.block_size) / u64::from(b.block_size);
        let work = async move {
            let data = from.read(lba, blocks).await?;
            let bytes = data.len() as u64;
            to.write(at, data).await?;
            Ok(bytes)
        };
        if let Some(done) = flight.push(work).await {
            bar.inc(done?);
        }
    }
    while let Some(done) = flight.next().await {
        bar.inc(done?);
    }
    to.flush().await?;
    bar.finish_and_clear();
    Ok(a.bytes())
}

async fn verify_file(file: &Path, disk: &Disk, bytes: u64, depth: usize) -> anyhow::Result<()> {
    let mut input = std::fs::File::open(file)?;
    let bar = progress("verify", bytes);
    let block = u64::from(disk.capacity().block_size);
    let mut offset = 0u64;
    let mut expected = Vec::new();
    copy_out(disk, 0, bytes.div_ceil(block), depth, |data| {
        for part in data.parts() {
            let want = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(part.len());
            expected.resize(want, 0);
            input.read_exact(&mut expected)?;
            compare(offset, &expected, &part[..want])?;
            offset += want as u64;
        }
        bar.set_position(offset);
        Ok(())
    })
    .await?;
    bar.finish_and_clear();
    Ok(())
}

async fn verify_lun(from: &Disk, to: &Disk, bytes: u64, depth: usize) -> anyhow::Result<()> {
    let bar = progress("verify", bytes);
    let (a, b) = (from.capacity(), to.capacity());
    let mut flight = Flight::new(depth);
    let check = |(offset, one, other): (u64, SgList, SgList)| -> anyhow::Result<()> {
        compare(offset, &one.to_bytes(), &other.to_bytes())?;
        bar.inc(one.len() as u64);
        Ok(())
    };
    for (lba, blocks) in chunks(0, a.blocks, a.block_size) {
        let offset = lba * u64::from(a.block_size);
        let ratio = a.block_size / b.block_size;
        let work = async move {
            let one = from.read(lba, blocks).await?;
            let other = to.read(offset / u64::from(b.block_size), blocks * ratio).await?;
            Ok((offset, one, other))
        };
        if let Some(done) = flight.push(work).await {
            check(done?)?;
        }
    }
    while let Some(done) = flight.next().await {
        check(done?)?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Fails at the first byte that differs.
fn compare(offset: u64, expected: &[u8], found: &[u8]) -> Result<(), Differs> {
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    let byte = |s: &[u8]| s.get(at).copied().unwrap_or_default();
    Err(Differs { offset: offset + at as u64, expected: byte(expected), found: byte(found) })
}

/// Reads `blocks` blocks from `lba` on, several commands in flight, and hands the data over in order.
pub(crate) async fn copy_out(
    disk: &Disk,
    lba: u64,
    blocks: u64,
    depth: usize,
    mut sink: impl FnMut(SgList) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut flight = Flight::new(depth);
    for (at, count) in chunks(lba, blocks, disk.capacity().block_size) {
        if let Some(data) = flight.push(async move { Ok(disk.read(at, count).await?) }).await {
            sink(data?)?;
        }
    }
    while let Some(data) = flight.next().await {
        sink(data?)?;
    }
    Ok(())
}

/// `(lba, blocks)` pieces of at most [`CHUNK`] bytes.
fn chunks(lba: u64, blocks: u64, block_size: u32) -> impl Iterator<Item = (u64, u32)> {
    let step = (CHUNK / block_size).max(1);
    let end = lba + blocks;
    std::iter::successors(Some(lba), move |at| Some(at + u64::from(step)))
        .take_while(move |at| *at < end)
        .map(move |at| (at, u32::try_from(end - at).unwrap_or(u32::MAX).min(step)))
}

/// An input read from its beginning to its end.
pub(crate) struct Source {
    input: Box<dyn Read>,
    /// Fill up the last block with zeros.
    pad: bool,
}

impl Source {
    pub(crate) fn new(input: Box<dyn Read>, pad: bool) -> Self {
        Self { input, pad }
    }

    /// Writes all of the input from `lba` on, several commands in flight; returns the bytes written.
    pub(crate) async fn copy_in(
        mut self,
        disk: &Disk,
        lba: u64,
        depth: usize,
        fua: bool,
        mut step: impl FnMut(u64),
    ) -> anyhow::Result<u64> {
        let block = disk.capacity().block_size;
        let mut flight = Flight::new(depth);
        let mut at = lba;
        let mut written = 0u64;
        loop {
            let data = self.chunk(block)?;
            if data.is_empty() {
                break;
            }
            let bytes = data.len() as u64;
            let here = at;
            let work = async move {
                if fua {
                    disk.write_fua(here, data.into()).await?
                } else {
                    disk.write(here, data.into()).await?
                }
                Ok(bytes)
            };
            at += bytes / u64::from(block);
            written += bytes;
            if let Some(done) = flight.push(work).await {
                step(done?);
            }
        }
        while let Some(done) = flight.next().await {
            step(done?);
        }
        Ok(written)
    }

    /// The next [`CHUNK`] bytes or what is left of them, in whole blocks.
    fn chunk(&mut self, block: u32) -> anyhow::Result<Bytes> {
        let mut data = Vec::with_capacity(CHUNK as usize);
        (&mut self.input).take(u64::from(CHUNK)).read_to_end(&mut data).context("cannot read the input")?;
        let odd = data.len() % block as usize;
        if odd != 0 {
            if !self.pad {
                return Err(Usage(format!(
                    "the input is no multiple of the block size {block}: give --pad to fill up with zeros"
                ))
                .into());
            }
            data.resize(data.len() + block as usize - odd, 0);
        }
        Ok(data.into())
    }
}

/// Futures that run together and whose results come in the order in which they were pushed.
struct Flight<'a, T> {
    running: FuturesOrdered<Pin<Box<dyn Future<Output = anyhow::Result<T>> + 'a>>>,
    depth: usize,
}

impl<'a, T> Flight<'a, T> {
    fn new(depth: usize) -> Self {
        Self { running: FuturesOrdered::new(), depth }
    }

    /// Adds work; when that makes more than `depth`, waits for the oldest and returns its result.
    async fn push(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>> + 'a,
    ) -> Option<anyhow::Result<T>> {
        self.running.push_back(Box::pin(work));
        if self.running.len() > self.depth { self.next().await } else { None }
    }

    /// The oldest's result; `None` when nothing runs.
    async fn next(&mut self) -> Option<anyhow::Result<T>> {
        self.running.next().await
    }
}
