//! `iscsi`: discover targets, look at LUNs, read, write, copy and measure them.
#![allow(clippy::disallowed_methods)] // a program reads the clock

mod bench;
mod copy;
mod io;
mod look;
mod options;
mod output;

use clap::{Parser, Subcommand};
use iscsi_initiator::Error;
use std::process::ExitCode;

/// Discover, look at, read, write, copy and measure iSCSI LUNs.
#[derive(Parser)]
#[command(name = "iscsi", version, max_term_width = 110, after_long_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: options::Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  iscsi discover iscsi://192.0.2.1
  iscsi ls iscsi://192.0.2.1
  iscsi capacity iscsi://192.0.2.1/iqn.2026-01.org.example:disk0/0
  iscsi copy disk.img iscsi://192.0.2.1/iqn.2026-01.org.example:disk0/0 --verify
  iscsi bench iscsi://192.0.2.1/iqn.2026-01.org.example:disk0/0 --pattern randread --queue-depth 32

URLs are written as for libiscsi and QEMU:
  iscsi://[user[%password]@]host[:port]/target-iqn/lun[?header_digest=crc32c&data_digest=crc32c]
Give secrets with --chap-secret-file or in ISCSI_CHAP_SECRET rather than in the URL, which others can see.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 data differ; 4 login refused; 130 interrupted.";

#[derive(Subcommand)]
enum Command {
    /// List the targets that a portal knows
    Discover(look::Discover),
    /// List targets with their LUNs
    Ls(look::Ls),
    /// Show a LUN's INQUIRY data or a VPD page
    Inquiry(look::Inquiry),
    /// Show a LUN's size
    Capacity(look::Capacities),
    /// Read blocks of a LUN to a file or to the standard output
    Read(io::Read),
    /// Write a file or the standard input to blocks of a LUN
    Write(io::Write),
    /// Copy a file to a LUN, a LUN to a file, or a LUN to a LUN
    Copy(copy::Copy),
    /// Measure a LUN
    Bench(bench::Bench),
}

/// Data that were read back differ from what was written.
#[derive(Debug, thiserror::Error)]
#[error("data differ at byte {offset}: expected {expected:#04x}, found {found:#04x}")]
struct Differs {
    offset: u64,
    expected: u8,
    found: u8,
}

/// Ctrl-C or SIGTERM.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn main() -> ExitCode {
    let cli = Cli::parse();
    options::init_log(cli.global.verbose);
    // One thread serves the session and the command when time counts; else the session has a thread of its own, so
    // that it answers the target while the command waits for a file or a pipe.
    let mut builder = match cli.command {
        Command::Bench(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match builder.worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("iscsi: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !is_broken_pipe(&error) {
                eprintln!("iscsi: {error:#}");
            }
            exit_code(&error)
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let work = async {
        match cli.command {
            Command::Discover(c) => c.run(&cli.global).await,
            Command::Ls(c) => c.run(&cli.global).await,
            Command::Inquiry(c) => c.run(&cli.global).await,
            Command::Capacity(c) => c.run(&cli.global).await,
            Command::Read(c) => c.run(&cli.global).await,
            Command::Write(c) => c.run(&cli.global).await,
            Command::Copy(c) => c.run(&cli.global).await,
            Command::Bench(c) => c.run(&cli.global).await,
        }
    };
    // Dropping the work cancels its commands at the target and closes its sessions.
    tokio::select! {
        result = work => result,
        () = interrupted() => Err(Interrupted.into()),
    }
}

/// Completes with Ctrl-C or SIGTERM.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        _ = terminate.recv() => (),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if cause.is::<Differs>() {
            return ExitCode::from(3);
        }
        if cause.is::<Interrupted>() {
            return ExitCode::from(130);
        }
        if cause.is::<options::Usage>() || cause.is::<iscsi_initiator::UrlError>() {
            return ExitCode::from(2);
        }
        if cause.downcast_ref::<Error>().is_some_and(Error::is_login_refused) {
            return ExitCode::from(4);
        }
    }
    ExitCode::FAILURE
}
