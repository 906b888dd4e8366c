//! Repository checks: `cargo xtask`.
fn main() {}
