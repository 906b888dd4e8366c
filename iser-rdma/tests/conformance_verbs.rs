//! `datamover`'s conformance scenarios through an RDMA device, which a machine must have: run in the lab's guest with
//! `ISER_RDMA_ADDRESS` set to an address of the device.
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

fn address() -> IpAddr {
    println!("devices: {:?}", probe().expect("an RDMA device"));
    std::env::var("ISER_RDMA_ADDRESS").expect("ISER_RDMA_ADDRESS").parse().expect("an address")
}

fn all(config: VerbsConfig) {
    let verbs = Verbs { address: address(), config };
    for scenario in SCENARIOS {
        let start = std::time::Instant::now();
        run_one(&verbs, scenario.name);
        println!("{:>8} ms  {}", start.elapsed().as_millis(), scenario.name);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn with_memory_windows() {
    all(VerbsConfig::default());
}

#[test]
#[ignore = "needs an RDMA device"]
fn with_a_region_for_each_transfer() {
    all(VerbsConfig { windows: false, ..VerbsConfig::default() });
}

#[test]
#[ignore = "needs an RDMA device"]
fn nobody_listens() {
    let fabric = VerbsFabric::new(VerbsConfig::default(), Quirks::default()).unwrap();
    let refused = runtime().block_on(fabric.connect(SocketAddr::new(address(), 9)));
    assert_eq!(refused.err().map(|e| e.kind()), Some(std::io::ErrorKind::ConnectionRefused));
}
