//! Reference iSCSI target: device server, disks, configuration, binary.

pub mod block;
pub mod config;
