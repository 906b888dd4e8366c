#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod core;
mod datain;
mod drive;
mod login;
mod portal;
mod r2t;
mod recover;
mod rx;
mod snack;
mod spill;
mod steer;
mod stream;
mod task;
mod tx;

#[cfg(feature = "std-net")]
mod drive_std;
#[cfg(feature = "tokio")]
mod drive_tokio;

pub use crate::core::{Handover, TcpCore};
pub use crate::drive::TcpDatamover;
pub use crate::login::{LoginParts, TcpLoginLink};
pub use crate::portal::{PORT, SYSTEM_PORT, split_portal};
pub use crate::rx::RecvSlots;
pub use crate::stream::Stream;

#[cfg(feature = "std-net")]
pub use crate::drive_std::StdStream;
#[cfg(feature = "tokio")]
pub use crate::drive_tokio::{TcpAcceptor, TcpFabric, TokioStream};
