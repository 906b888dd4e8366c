#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod ddp;
mod memory;
pub mod mpa;
mod qp;
pub mod rdmap;
mod stag;
mod terminate;
mod wire;

pub use memory::{Gather, Memory};
pub use qp::{
    Cause, Completion, Done, Limits, QueuePair, ReadWr, RecvSlots, Refusal, Refused, RemoteAddr, SendWr,
    Stats, Status, WrId, WriteWr,
};
pub use stag::{Access, InvalidateError, Invalidated, Region, Stag};
pub use terminate::{Terminate, TerminateCode};
