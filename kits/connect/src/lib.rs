#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bridge;
mod connector;
mod listen;
mod policy;
mod upgrade;

pub use connector::{Connector, Way};
pub use listen::{listen, take_sockets};
pub use policy::{Kind, ParsePolicyError, Policy};
pub use upgrade::UpgradeLink;

use datamover::{BufPool, SlabPool};
use iser_rdma::Quirks;
use iser_rdma::provider::iwarp::IwarpConfig;
use std::sync::Arc;

/// What all connections of a process share.
#[derive(Clone)]
pub struct Settings {
    /// Which transports, and in which order.
    pub policy: Policy,
    /// Memory of the TCP connections; iSER connections have memory of their own.
    pub pool: Arc<dyn BufPool>,
    /// iWARP: CRC, depths, time for its startup. Its seed is not used: every connection gets its own.
    pub iwarp: IwarpConfig,
    /// Deviations of iSER peers.
    pub quirks: Quirks,
}

impl Settings {
    /// A policy, and defaults for the rest.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            pool: Arc::new(SlabPool::default()),
            iwarp: IwarpConfig::new([0; 16]),
            quirks: Quirks::default(),
        }
    }

    /// The iWARP configuration of one connection.
    fn iwarp_seeded(&self) -> IwarpConfig {
        IwarpConfig { seed: seed(), ..self.iwarp.clone() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

/// Randomness for the STags of one connection.
fn seed() -> [u8; 16] {
    let mut seed = [0; 16];
    if getrandom::fill(&mut seed).is_err() {
        // STags are then predictable, which an attacker on the connection gains nothing from: they are no secret to
        // the peer, and each is good for one direction of one task only.
        tracing::warn!("no randomness from the system: STags of this connection are predictable");
    }
    seed
}
