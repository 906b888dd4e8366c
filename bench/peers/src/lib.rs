//! Benches only: `cargo bench --manifest-path bench/peers/Cargo.toml`.
