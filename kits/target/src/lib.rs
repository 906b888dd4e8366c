//! Reference iSCSI target: device server, disks, configuration, binary.

pub mod block;
pub mod config;

mod mailbox;
mod modes;
mod nexus;
mod ports;
mod ranges;
mod sbc;
mod sequence;
mod target_device;
mod unit;
mod unit_attention;

pub use nexus::Nexus;
pub use ports::{InitiatorPort, NexusId, TargetPort};
pub use target_device::{LunInUse, TargetDevice};
pub use unit::{LogicalUnit, UnitConfig};
