//! `datamover`'s conformance scenarios on the `mem` provider.

use datamover::conformance::{Features, Links, PairFactory};
use datamover::{ConnKeys, Role};
use iser_rdma::provider::mem::{self, MemConfig};
use iser_rdma::{MessageLoginLink, Quirks};
use std::time::Duration;

struct Mem(MemConfig);

impl PairFactory for Mem {
    fn pair(&self) -> Links {
        let (initiator, target, _) = mem::pair(self.0.clone());
        Links {
            initiator: Box::new(MessageLoginLink::new(initiator, Role::Initiator, Quirks::default())),
            target: Box::new(MessageLoginLink::new(target, Role::Target, Quirks::default())),
        }
    }

    fn keys(&self) -> ConnKeys {
        let mut keys = ConnKeys::default();
        keys.rdma_extensions = true;
        keys.tagged_buffer_for_solicited_data_only = Some(true);
        keys
    }

    fn features(&self) -> Features {
        Features::iser()
    }
}

datamover::conformance_tests!(ideal, Mem(MemConfig { record: false, ..MemConfig::default() }));

/// As adapters are: registered memory only, one piece for an STag, few pieces for a work request, invalidations that
/// take a turn, no Send with Invalidate, one Read at a time, and time that goes by.
fn adapter() -> MemConfig {
    let mut config = MemConfig {
        registered_only: true,
        slow_invalidation: true,
        wait_for_receive: true,
        latency: Duration::from_micros(20),
        jitter: Duration::from_micros(200),
        seed: 42,
        record: false,
        ..MemConfig::default()
    };
    for caps in &mut config.caps {
        caps.send_invalidate = false;
        caps.max_sge = 3;
        caps.max_read_sge = 1;
        caps.max_tagged_parts = 1;
        caps.max_transfer = 1 << 20;
        caps.ord = 1;
        caps.ird = 1;
    }
    config
}

datamover::conformance_tests!(as_an_adapter, Mem(adapter()));
