//! `iscsi read` and `iscsi write`: blocks of a LUN from and to a file or pipe.

use crate::copy::{Source, copy_out};
use crate::options::{Global, Usage};
use anyhow::Context as _;
use clap::Args;
use iscsi_initiator::{Disk, IscsiUrl};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

/// Which blocks.
#[derive(Args)]
struct Range {
    /// First block
    #[arg(long, default_value_t = 0, value_name = "BLOCK")]
    lba: u64,
    /// Number of blocks; without it all to the end (read) or all that the input has (write)
    #[arg(long, value_name = "N")]
    blocks: Option<u64>,
}

/// Read blocks of a LUN to a file or to the standard output
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi read iscsi://host/iqn.2026-01.org.example:disk0/0 --lba 0 --blocks 1 | xxd
  iscsi read iscsi://host/iqn.2026-01.org.example:disk0/0 -o disk.img")]
pub(crate) struct Read {
    /// The LUN
    url: IscsiUrl,
    #[command(flatten)]
    range: Range,
    /// Write to this file instead of the standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Read {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let disk = Disk::attach(&self.url, &global.connect_options(&self.url)?).await?;
        let size = disk.capacity();
        let blocks = self.range.blocks.unwrap_or_else(|| size.blocks.saturating_sub(self.range.lba));
        check_range(&disk, self.range.lba, blocks)?;
        let mut out: Box<dyn std::io::Write> = match &self.output {
            Some(path) => Box::new(
                std::fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?,
            ),
            None => Box::new(std::io::stdout().lock()),
        };
        copy_out(&disk, self.range.lba, blocks, 8, |data| {
            data.parts().try_for_each(|part| out.write_all(part)).context("cannot write the output")
        })
        .await?;
        out.flush().context("cannot write the output")?;
        disk.close().await?;
        Ok(())
    }
}

/// Write a file or the standard input to blocks of a LUN
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi write iscsi://host/iqn.2026-01.org.example:disk0/0 --lba 2048 < boot.bin
  iscsi write iscsi://host/iqn.2026-01.org.example:disk0/0 --input disk.img --fua

The input's length must be a multiple of the block size unless --pad is given. Written data is flushed to stable
storage before the command ends.")]
pub(crate) struct Write {
    /// The LUN
    url: IscsiUrl,
    #[command(flatten)]
    range: Range,
    /// Read this file instead of the standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Fill up the last block with zeros
    #[arg(long)]
    pad: bool,
    /// Write through to stable storage with every command (FUA)
    #[arg(long)]
    fua: bool,
}

impl Write {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let disk = Disk::attach(&self.url, &global.connect_options(&self.url)?).await?;
        let mut input: Box<dyn std::io::Read> = match &self.input {
            Some(path) => Box::new(
                std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?,
            ),
            None => Box::new(std::io::stdin().lock()),
        };
        if let Some(blocks) = self.range.blocks {
            check_range(&disk, self.range.lba, blocks)?;
            input = Box::new(input.take(blocks.saturating_mul(u64::from(disk.capacity().block_size))));
        }
        let written =
            Source::new(input, self.pad).copy_in(&disk, self.range.lba, 8, self.fua, |_| ()).await?;
        disk.flush().await?;
        disk.close().await?;
        tracing::info!(written, "written");
        Ok(())
    }
}

fn check_range(disk: &Disk, lba: u64, blocks: u64) -> anyhow::Result<()> {
    let size = disk.capacity();
    match lba.checked_add(blocks) {
        Some(end) if end <= size.blocks => Ok(()),
        _ => {
            Err(Usage(format!("{blocks} blocks from {lba} on do not fit: the LUN has {}", size.blocks))
                .into())
        }
    }
}
