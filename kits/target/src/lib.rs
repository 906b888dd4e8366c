//! Reference iSCSI target: device server, disks, configuration, binary.

pub mod block;
pub mod config;

mod background;
mod counters;
mod logins;
mod mailbox;
mod modes;
mod nexus;
mod nodes;
mod ports;
mod ranges;
mod reactors;
mod reservation;
mod sbc;
mod sequence;
mod server;
mod target_device;
mod unit;
mod unit_attention;

pub use config::parse_portal;
pub use nexus::Nexus;
pub use nodes::NodeError;
pub use ports::{InitiatorPort, NexusId, TargetPort};
pub use reactors::{Cores, Reactors};
pub use scsi_cmd::ports::AccessState;
pub use server::{Change, ReloadError, Server, StartError};
pub use target_device::{LunInUse, TargetDevice};
pub use unit::{LogicalUnit, UnitConfig};
