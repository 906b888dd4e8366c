//! What several test binaries share.

#![allow(dead_code, unused_imports, reason = "every test binary uses a part")]

mod duplex;
mod peer;
pub(crate) mod recovery;

pub(crate) use duplex::{Cut, Duplex, duplex};
pub(crate) use peer::{Peer, command, pattern, wire};
