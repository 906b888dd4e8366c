#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bundle;
mod command;
mod discover;
pub mod disk;
mod error;
mod login;
mod options;
mod session;
mod transport;
mod url;

pub use command::{DataDirection, Reply, ScsiCommand, ScsiError};
pub use discover::discover;
pub use disk::{Capacity, Disk};
pub use error::Error;
pub use iscsi_connect::Policy;
pub use options::{ConnectOptions, default_initiator_name};
pub use session::Session;
pub use url::{ISCSI_PORT, IscsiUrl, MAX_CONNECTIONS, UrlCredentials, UrlError};
