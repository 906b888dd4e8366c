//! Cancels commands on their way, over and over, and shows that the session is as good as new: whatever a cancelled
//! write has or has not done, a write after it is what a read finds.
//!
//! ```console
//! $ cargo run --release -p iscsi-initiator --example cancel -- URL [TRANSPORT [ROUNDS]]
//! ```
//! It overwrites the first 4 MiB of the LUN.
#![allow(clippy::print_stdout)]

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use iscsi_initiator::{ConnectOptions, Disk, IscsiUrl};
use std::time::Duration;
use tokio::task::JoinSet;

/// Bytes of a command.
const LEN: usize = 256 << 10;
/// Commands at a time.
const DEPTH: u64 = 16;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let url: IscsiUrl = words.next().context("which URL?")?.parse()?;
    let mut options = ConnectOptions::from_url(&url)?;
    if let Some(transport) = words.next() {
        options.transport = transport.parse()?;
    }
    let rounds: u64 = words.next().map_or(Ok(20), |n| n.parse())?;
    let disk = Disk::attach(&url, &options).await?;
    let blocks = u32::try_from(LEN)? / disk.capacity().block_size;
    let (mut cancelled, mut finished) = (0, 0);
    for round in 0..rounds {
        let mut tasks = JoinSet::new();
        for n in 0..DEPTH {
            let (disk, lba) = (disk.clone(), n * u64::from(blocks));
            tasks.spawn(async move {
                if n % 2 == 0 {
                    disk.write(lba, pattern(round, n, true).into()).await
                } else {
                    disk.read(lba, blocks).await.map(drop)
                }
            });
        }
        // A moment in which some commands end and others are under way; a different one each time.
        tokio::time::sleep(Duration::from_micros(700 * (round % 17))).await;
        tasks.abort_all();
        while let Some(end) = tasks.join_next().await {
            match end {
                Ok(result) => {
                    result?;
                    finished += 1;
                }
                Err(_) => cancelled += 1,
            }
        }
        for n in 0..DEPTH {
            disk.write(n * u64::from(blocks), pattern(round, n, false).into()).await?;
        }
        for n in 0..DEPTH {
            let back = disk.read(n * u64::from(blocks), blocks).await?.to_bytes();
            ensure!(
                back == pattern(round, n, false),
                "round {round}, command {n}: not what was written last"
            );
        }
    }
    println!("{cancelled} commands cancelled, {finished} had ended, over {}", disk.transport());
    ensure!(cancelled > 0, "nothing was cancelled");
    disk.close().await?;
    Ok(())
}

/// Data that no other round and command has.
fn pattern(round: u64, command: u64, doomed: bool) -> Bytes {
    let seed = round << 16 | command << 1 | u64::from(doomed);
    (0..LEN as u64 / 8).flat_map(|n| (seed << 32 | n).to_be_bytes()).collect::<Vec<_>>().into()
}
