#![doc = include_str!("../README.md")]
#![no_std]
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

extern crate alloc;

mod codec;
mod error;
mod layout;

pub mod capacity;
pub mod cdb;
pub mod copy;
pub mod format;
pub mod inquiry;
pub mod log;
pub mod lun;
pub mod luns;
pub mod mode;
pub mod ports;
pub mod protection;
pub mod provisioning;
pub mod reservation;
pub mod sense;
pub mod status;
pub mod supported;
pub mod transport_id;
pub mod vpd;

pub use cdb::{Cdb, Command};
pub use error::{DecodeError, DecodeErrorKind};
pub use lun::Lun;
pub use sense::{Asc, Sense, SenseKey};
pub use status::{Status, StatusQualifier};
