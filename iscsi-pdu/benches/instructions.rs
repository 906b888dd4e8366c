//! Instructions that the codec executes for an operation, counted by callgrind, against what is recorded in
//! `instructions.txt`: a ratchet that does not depend on how busy the machine is.
//!
//! `cargo bench -p iscsi-pdu --bench instructions` fails when an operation takes 5 % more than recorded;
//! `INSTRUCTIONS=update` records what is less. Needs valgrind. The counts are those of rustc 1.95 on x86-64.

use bytes::Bytes;
use iscsi_pdu::*;
use std::fmt::Write;
use std::hint::black_box;
use std::process::{Command, ExitCode};

const OPERATIONS: [&str; 9] = [
    "decode ScsiCommand",
    "decode DataIn",
    "decode R2t",
    "encode ScsiCommand",
    "encode DataIn",
    "encode R2t",
    "frame ScsiCommand",
    "header digest",
    "text pair",
];

fn command() -> Pdu {
    ScsiCommand { final_pdu: true, read: true, expected_data_transfer_length: 4096, ..Default::default() }
        .into()
}

fn pdu(name: &str) -> Pdu {
    match name {
        "ScsiCommand" => command(),
        "DataIn" => DataIn { final_pdu: true, status: Some(ScsiStatus::Good), ..Default::default() }.into(),
        "R2t" => R2t { ttt: Ttt(1), desired_data_transfer_length: 65_536, ..Default::default() }.into(),
        other => panic!("{other}"),
    }
}

/// Does the operation `n` times.
fn perform(operation: &str, n: u32) {
    let mut bhs = [0; BHS_LEN];
    match operation.split_once(' ').unwrap() {
        ("decode", name) => {
            pdu(name).encode_header(&mut bhs).unwrap();
            for _ in 0..n {
                black_box(Pdu::decode_header(black_box(&bhs)).unwrap());
            }
        }
        ("encode", name) => {
            let pdu = pdu(name);
            for _ in 0..n {
                black_box(&pdu).encode_header(black_box(&mut bhs)).unwrap();
            }
        }
        ("frame", _) => {
            command().encode_header(&mut bhs).unwrap();
            let mut framer = Framer::new(Limits::from(Sender::Initiator));
            framer.push(bhs.repeat(n as usize));
            while let Some(pdu) = framer.next_pdu().unwrap() {
                black_box(&pdu);
            }
        }
        ("header", _) => {
            for _ in 0..n {
                black_box(header_digest(black_box(&bhs), &[]));
            }
        }
        ("text", _) => {
            let text = Bytes::from_static(b"MaxBurstLength=262144\0");
            for _ in 0..n {
                black_box(text::pairs(black_box(&text), text::TextLimits::default()).count());
            }
        }
        (other, _) => panic!("{other}"),
    }
}

/// Instructions of this program doing the operation `n` times.
fn count(operation: &str, n: u32) -> u64 {
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--perform", operation, &n.to_string()])
        .output()
        .unwrap_or_else(|e| panic!("valgrind: {e}. Install it (Debian: apt-get install valgrind)"));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    let line = text.lines().find_map(|l| l.split_once("Collected : ")).expect("a count");
    line.1.trim().parse().unwrap()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, operation, n] = &args[..]
        && flag == "--perform"
    {
        perform(operation, n.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if !args.iter().any(|a| a == "--bench") {
        return ExitCode::SUCCESS; // `cargo test --all-targets` only wants to see it start
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
    let recorded = std::fs::read_to_string(path).unwrap_or_default();
    let before = |operation: &str| {
        let line = recorded.lines().find_map(|l| l.strip_prefix(operation))?;
        line.trim().parse::<u64>().ok()
    };
    let update = std::env::var("INSTRUCTIONS").is_ok_and(|v| v == "update");
    let (mut table, mut worse) = (String::new(), false);
    for operation in OPERATIONS {
        let now = (count(operation, 11_000) - count(operation, 1_000)) / 10_000;
        let old = before(operation);
        let too_many = old.is_none_or(|old| now > old + old / 20 + 1);
        worse |= too_many;
        println!(
            "{operation:<20} {now:>5}{}",
            match old {
                _ if !too_many => String::new(),
                Some(old) => format!("   recorded: {old}"),
                None => "   not recorded".to_string(),
            }
        );
        writeln!(table, "{operation:<20} {:>5}", old.map_or(now, |old| old.min(now))).unwrap();
    }
    if update {
        std::fs::write(path, table).unwrap();
        return ExitCode::SUCCESS;
    }
    if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
