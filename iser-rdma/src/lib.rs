#![doc = include_str!("../README.md")]
#![cfg_attr(not(feature = "verbs"), forbid(unsafe_code))]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]
// Tests begin at some time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod core;
mod flow;
mod login;
mod maps;
pub mod provider;
mod quirks;
mod rcap;
mod wire;

pub use crate::core::IserDatamover;
pub use login::{LOGIN_DATA_LEN, LOGIN_MESSAGE_LEN, MessageLoginLink};
pub use quirks::{CmHeader, FIELD_RESPONSE_DATA, Quirks, WriteBase};
pub use rcap::{
    Completion, Invalidation, Op, Rcap, RcapCaps, RcapResources, RcapStats, RemoteBuf, Stag, Tagged, WrError,
    WrId,
};
pub use wire::{ControlHeader, Hello, HelloReply, ISER_HEADER_LEN, ISER_VERSION, IserHeader, WireError};
