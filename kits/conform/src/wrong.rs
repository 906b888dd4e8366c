//! Peers that break one rule, scripted: the case about it has to fail, and to pass for the same peer without the breach.
//!
//! What a right peer does is shown by foreign ones, in `cargo xtask interop`; here it is that a case is able to fail.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::initiator::{Link, TARGET};
use crate::target::{Bench, Conn};
use crate::verdict::{Stop, Verdict};
use crate::wire::Wire;
use crate::{Commands, Options, run_initiator, run_target};

mod initiators;
mod targets;

/// Long enough for a busy machine: what breaks a rule within `QUIET` has to be seen.
const ANSWER: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(500);
/// A peer's patience, which does not end a case.
const LONG: Duration = Duration::from_secs(20);

fn options(case: &str) -> Options {
    Options { cases: vec![case.into()], dataloss: true, answer: ANSWER, quiet: QUIET, ..Options::default() }
}

/// The verdict on a target which does this on each connection.
fn judge_target(case: &str, target: impl Fn(&mut Link) + Send + Sync + 'static) -> Verdict {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("iscsi://{}/{TARGET}/0", listener.local_addr().unwrap()).parse().unwrap();
    let target = Arc::new(target);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let target = target.clone();
            std::thread::spawn(move || {
                let wire = Wire::new(stream.unwrap(), false, Default::default(), Instant::now() + LONG);
                target(&mut Link::new(wire.unwrap(), LONG, LONG));
            });
        }
    });
    run_target(&url, &options(case), |_| ()).unwrap().lines.remove(0).verdict
}

/// The verdict on an initiator which does this on its one connection, and whose command is this one of the shell.
fn judge_initiator(
    case: &str,
    command: &str,
    initiator: impl Fn(&mut Conn) -> Result<(), Stop> + Send + 'static,
) -> Verdict {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url: crate::TargetUrl =
        format!("iscsi://{}/{TARGET}/0", listener.local_addr().unwrap()).parse().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (judged, stop) = (over.clone(), Instant::now() + LONG);
    let peer = std::thread::spawn(move || {
        // What connects before the case begins is turned away, and has to come again.
        while !judged.load(Ordering::Relaxed) && Instant::now() < stop {
            let bench = bench(url.clone());
            if bench.connect().and_then(|mut conn| initiator(&mut conn)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let command = Some(command.to_owned());
    let commands = Commands {
        attach: command.clone(),
        read: command.clone(),
        write: command.clone(),
        discover: command,
        after: None,
    };
    let report = run_initiator(&[listener], &commands, &options(case), |_| ()).unwrap();
    over.store(true, Ordering::Relaxed);
    peer.join().unwrap();
    report.lines[0].verdict.clone()
}

fn bench(peer: crate::TargetUrl) -> Bench {
    Bench {
        peer,
        answer: LONG,
        quiet: LONG,
        tape: Default::default(),
        deadline: Instant::now() + LONG,
        traffic: Default::default(),
    }
}

/// The case failed, over this rule.
#[track_caller]
fn fails(verdict: Verdict, rule: &str) {
    match verdict {
        Verdict::Fail(failure) => assert_eq!(failure.rule, rule, "{failure:?}"),
        other => panic!("{other:?} instead of a failure of {rule}"),
    }
}

#[track_caller]
fn skips(verdict: Verdict) {
    assert!(matches!(verdict, Verdict::Skipped(_)), "{verdict:?}");
}

#[track_caller]
fn passes(verdict: Verdict) {
    assert_eq!(verdict, Verdict::Pass);
}
