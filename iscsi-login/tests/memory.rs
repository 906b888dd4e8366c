//! What a peer that never finishes its login can cost: a constant, however much it sends.

mod common;

use bytes::Bytes;
use common::*;
use iscsi_login::*;
use iscsi_pdu::{LoginRequest, Stage};

/// The longest text a login PDU may have.
const LONGEST: usize = 8192;
/// What one connection may cost before it has logged in: some PDUs' worth of text as received, joined and answered.
const LIMIT: u64 = 128 << 10;

/// A target that is sent the `n`-th PDU of an attack until `pdus` are sent, whether it still listens or not.
fn attack(pdus: usize, request: impl Fn(usize) -> LoginRequest<Bytes>) -> u64 {
    let config = std::sync::Arc::new(TargetLoginConfig::default());
    let now = now();
    let mut caller = Caller::new(grant(TargetAuth::None));
    let cost = allocation_counter::measure(|| {
        let mut target = TargetLogin::new(config, [0; 32], now);
        for n in 0..pdus {
            target.handle_request(now, request(n));
            drive_target(&mut target, &mut caller);
            caller.log = Vec::new();
        }
    });
    caller.access = None;
    assert!(cost.bytes_current < LIMIT as i64, "{} bytes stay", cost.bytes_current);
    cost.bytes_max
}

fn filled(lines: impl Iterator<Item = String>) -> Bytes {
    let mut text = String::new();
    for line in lines {
        if text.len() + line.len() >= LONGEST {
            break;
        }
        text.push_str(&line);
        text.push('\0');
    }
    text.into()
}

#[test]
fn an_unfinished_login_costs_a_constant() {
    let request = |continue_text: bool, data: Bytes| LoginRequest {
        continue_text,
        csg: Stage(1),
        data,
        ..LoginRequest::default()
    };
    let names = || names().into_iter();
    type Attack<'a> = Box<dyn Fn(usize) -> LoginRequest<Bytes> + 'a>;
    let attacks: [(&str, Attack<'_>); 6] = [
        ("text that never ends", Box::new(|_| request(true, Bytes::from(vec![b'a'; LONGEST])))),
        (
            "keys without end",
            Box::new(|n| request(true, filled((0..).map(|k| format!("X-org.example.{n}.{k}=1"))))),
        ),
        (
            "unknown keys, each PDU complete",
            Box::new(|n| {
                let first = if n == 0 { names().collect() } else { Vec::new() };
                let unknown = (0..60).map(move |k| format!("X-org.example.{n}.{k}=1"));
                request(false, filled(first.into_iter().chain(unknown)))
            }),
        ),
        (
            "values as long as may be",
            Box::new(|n| {
                request(
                    false,
                    filled(names().chain((0..30).map(|k| format!("X-{n}.{k}={}", "v".repeat(255))))),
                )
            }),
        ),
        ("empty PDUs", Box::new(|n| request(false, if n == 0 { filled(names()) } else { Bytes::new() }))),
        ("continued by nothing", Box::new(|_| request(true, Bytes::new()))),
    ];
    for (name, attack_with) in attacks {
        let few = attack(64, &attack_with);
        let many = attack(4096, &attack_with);
        assert!(few <= LIMIT, "{name}: {few} bytes");
        assert_eq!(few, many, "{name}: grows with what is sent");
    }
}

#[test]
fn the_counter_counts() {
    let cost = allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 5000])));
    assert!(cost.bytes_max >= 5000 && cost.bytes_current == 0, "{cost:?}");
}
