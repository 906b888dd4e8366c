//! `iscsi-conform`: judges iSCSI targets and initiators.
#![allow(clippy::disallowed_methods, reason = "a program on the host: it waits and reads the clock")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use iscsi_conform::{
    Commands, Expectations, Line, Options, Report, Role, TargetUrl, run_initiator, run_target,
};

/// Judge iSCSI targets and initiators by the rules of RFC 7143 and 7144.
#[derive(Parser)]
#[command(name = "iscsi-conform", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a target
    #[command(after_long_help = EXIT)]
    Target {
        /// iscsi://[user%secret@]host[:port]/NAME/LUN[?target_user=…&target_password=…]
        url: TargetUrl,
        /// Run cases that write to the logical unit or disturb other initiators as well
        #[arg(long)]
        dataloss: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Judge an initiator that connects to us
    #[command(after_long_help = EXIT)]
    Initiator {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Shell command that logs in and ends; {url} and {portal} stand for where to
        #[arg(long, value_name = "COMMAND")]
        exec: Option<String>,
        /// Shell command that reads blocks
        #[arg(long, value_name = "COMMAND")]
        exec_read: Option<String>,
        /// Shell command that writes blocks
        #[arg(long, value_name = "COMMAND")]
        exec_write: Option<String>,
        /// Shell command that asks for targets
        #[arg(long, value_name = "COMMAND")]
        exec_discover: Option<String>,
        /// Shell command that runs after each case, to end what the initiator has left of it: for one that outlives the
        /// others
        #[arg(long, value_name = "COMMAND")]
        exec_after: Option<String>,
        /// Cases at a time, each at a port of its own: for an initiator that runs anew for each
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
        at_once: u8,
        #[command(flatten)]
        run: Run,
    },
    /// List the cases
    List {
        /// With the rules that each judges
        #[arg(long)]
        rules: bool,
        /// As a Markdown table
        #[arg(long)]
        markdown: bool,
    },
}

const EXIT: &str = "\
Exit codes: 0 nothing failed, or nothing but what --expect knows; 1 a case failed; 2 the run was not possible.
A case that is skipped does not count, unless the table of --expect lists those that are.";

#[derive(Args)]
struct Run {
    /// Run cases whose id or title contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run this case, or all that judge this rule (7143-6.2-8); may be repeated
    #[arg(long, value_name = "ID")]
    case: Vec<String>,
    /// Seconds that a case may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    time_limit: u64,
    /// Milliseconds that an answer may take
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    answer: u64,
    /// Milliseconds that are waited where nothing may come
    #[arg(long, value_name = "MS", default_value_t = 300)]
    quiet: u64,
    /// Write a capture of each case to this directory
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Table (TOML) of cases that the peer is known to fail, of those not to run, and of those that are skipped; new
    /// failures and old ones that are gone count
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

impl Run {
    fn options(&self, dataloss: bool, expected: Option<&Expectations>) -> anyhow::Result<Options> {
        if let Some(dir) = &self.pcap {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        Ok(Options {
            filter: self.filter.clone(),
            cases: self.case.clone(),
            excluded: expected.map(|table| table.excluded.clone()).unwrap_or_default(),
            dataloss,
            limit: Duration::from_secs(self.time_limit),
            answer: Duration::from_millis(self.answer),
            quiet: Duration::from_millis(self.quiet),
            pcap: self.pcap.clone(),
        })
    }

    fn expectations(&self) -> anyhow::Result<Option<Expectations>> {
        let Some(path) = &self.expect else { return Ok(None) };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Expectations::parse(&text).with_context(|| path.display().to_string()).map(Some)
    }

    /// Shows a case as soon as it has ended, where standard output is free for that.
    fn progress(&self, line: &Line) {
        let text = Report::human_line(line);
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    fn finish(&self, report: &Report, expected: Option<&Expectations>) -> anyhow::Result<ExitCode> {
        if let Some(path) = &self.junit {
            std::fs::write(path, report.junit()?).with_context(|| path.display().to_string())?;
        }
        if self.json {
            println!("{}", report.json()?);
        } else {
            print!("{}", report.details());
        }
        let bad = match expected {
            None => report.count("fail") + report.count("error"),
            Some(expected) => {
                let surprises = expected.compare(report);
                surprises.iter().for_each(|surprise| eprintln!("{surprise}"));
                surprises.len()
            }
        };
        Ok(ExitCode::from(u8::from(bad > 0)))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("iscsi-conform: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { rules, markdown } => {
            list(rules, markdown)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Target { url, dataloss, run } => {
            let expected = run.expectations()?;
            let options = run.options(dataloss, expected.as_ref())?;
            let report = run_target(&url, &options, |line| run.progress(line))?;
            run.finish(&report, expected.as_ref())
        }
        Command::Initiator {
            listen,
            exec,
            exec_read,
            exec_write,
            exec_discover,
            exec_after,
            at_once,
            run,
        } => {
            let expected = run.expectations()?;
            let listeners = (0..at_once).map(|n| listen_at(listen, n)).collect::<anyhow::Result<Vec<_>>>()?;
            let (attach, read, write, discover) = (exec, exec_read, exec_write, exec_discover);
            let commands = Commands { attach, read, write, discover, after: exec_after };
            let options = run.options(false, expected.as_ref())?;
            let report = run_initiator(&listeners, &commands, &options, |line| run.progress(line))?;
            run.finish(&report, expected.as_ref())
        }
    }
}

/// The listener of this number: the first where it was asked for, others on a free port.
fn listen_at(mut address: SocketAddr, number: u8) -> anyhow::Result<TcpListener> {
    if number > 0 {
        address.set_port(0);
    }
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    eprintln!("listening on {}", listener.local_addr()?);
    Ok(listener)
}

fn list(rules: bool, markdown: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if markdown {
        writeln!(out, "| case | what is seen to | rules |\n|---|---|---|")?;
    }
    for case in [Role::Target, Role::Initiator].into_iter().flat_map(iscsi_conform::cases) {
        let (mark, cited) = (if case.destructive { " (--dataloss)" } else { "" }, case.rules.join(" "));
        if markdown {
            writeln!(out, "| {} | {}{mark} | {cited} |", case.id, case.title)?;
        } else {
            let cited = if rules { format!("  [{cited}]") } else { String::new() };
            writeln!(out, "{:<15} {}{mark}{cited}", case.id, case.title)?;
        }
    }
    Ok(())
}
