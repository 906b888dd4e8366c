//! One full login exchange, both ends, without a transport.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;

#[path = "common/exchange.rs"]
mod exchange;
use exchange::Exchange;

fn benches(c: &mut Criterion) {
    let plain = Exchange::plain();
    c.bench_function("login", |b| b.iter(|| black_box(&plain).run()));
    #[cfg(feature = "chap")]
    {
        let mutual = Exchange::mutual_chap();
        c.bench_function("login, mutual CHAP", |b| b.iter(|| black_box(&mutual).run()));
    }
}

criterion_group!(all, benches);
criterion_main!(all);
