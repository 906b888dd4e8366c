#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

mod action;
pub mod csm;
pub mod device;
#[cfg(feature = "tokio")]
pub mod driver;
mod fence;
pub mod initiator;
pub mod login;
pub mod order;
pub mod registry;
mod setup;
mod slab;
pub mod ssm;
mod status;
mod tag_map;
pub mod target;
mod timer;
pub mod window;

pub use action::{Action, ConnId, DownCall};
pub use csm::ConnState;
pub use device::{DeviceServer, Function, FunctionTag, Outcome, Task, TaskPort, TaskTag};
pub use initiator::{Command, Completion, InitiatorConfig, InitiatorEvent, InitiatorSession, TaskDone};
pub use setup::ConnSetup;
pub use ssm::SessionState;
pub use target::{TargetConfig, TargetSession, TaskEvent};
