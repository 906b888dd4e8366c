//! `datamover`'s conformance scenarios through an RDMA device. Its address comes in `ISER_RDMA_ADDRESS`, as the lab's
//! guest sets it; on a machine without a device there is nothing to run them on, and the tests say so.
#![cfg(all(feature = "verbs", target_os = "linux"))]
#![allow(clippy::disallowed_methods)] // it times the scenarios

use datamover::conformance::{Features, Links, PairFactory, SCENARIOS, run_one};
use datamover::{ConnKeys, Fabric};
use iser_rdma::Quirks;
use iser_rdma::provider::verbs::{VerbsConfig, VerbsFabric, probe};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use tokio::runtime::Runtime;

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    })
}

struct Verbs {
    address: IpAddr,
    config: VerbsConfig,
}

impl PairFactory for Verbs {
    fn pair(&self) -> Links {
        runtime().block_on(async {
            let fabric = VerbsFabric::new(self.config.clone(), Quirks::default()).unwrap();
            let mut portal = fabric.listen(SocketAddr::new(self.address, 0)).await.unwrap();
            let address = portal.local_addr();
            let (initiator, target) = tokio::join!(fabric.connect(address), portal.accept());
            Links { initiator: initiator.unwrap(), target: target.unwrap() }
        })
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

/// Where a device is. Whoever names an address means it: then there must be a device.
fn address() -> Option<IpAddr> {
    let Ok(address) = std::env::var("ISER_RDMA_ADDRESS") else {
        println!("SKIPPED: ISER_RDMA_ADDRESS names no address of an RDMA device ({:?} here)", probe());
        return None;
    };
    println!("devices: {:?}", probe().expect("an RDMA device"));
    Some(address.parse().expect("an address"))
}

fn all(config: VerbsConfig) {
    let Some(address) = address() else { return };
    let verbs = Verbs { address, config };
    for scenario in SCENARIOS {
        let start = std::time::Instant::now();
        run_one(&verbs, scenario.name);
        println!("{:>8} ms  {}", start.elapsed().as_millis(), scenario.name);
    }
}

#[test]
fn with_memory_windows() {
    all(VerbsConfig::default());
}

#[test]
fn with_a_region_for_each_transfer() {
    all(VerbsConfig { windows: false, ..VerbsConfig::default() });
}

#[test]
fn nobody_listens() {
    let Some(address) = address() else { return };
    let fabric = VerbsFabric::new(VerbsConfig::default(), Quirks::default()).unwrap();
    let refused = runtime().block_on(fabric.connect(SocketAddr::new(address, 9)));
    assert_eq!(refused.err().map(|e| e.kind()), Some(std::io::ErrorKind::ConnectionRefused));
}
