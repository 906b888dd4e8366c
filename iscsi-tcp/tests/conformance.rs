//! `datamover::conformance` over every stream there is, with and without digests.

mod common;

use common::{Cut, duplex};
use datamover::conformance::{Links, PairFactory};
use datamover::{ConnKeys, Role, SlabPool};
use iscsi_tcp::{Stream, TcpLoginLink};
use std::sync::Arc;

fn links<S: Stream + 'static>(initiator: S, target: S) -> Links {
    let link = |stream, role| Box::new(TcpLoginLink::new(stream, role, Arc::new(SlabPool::default())));
    Links { initiator: link(initiator, Role::Initiator), target: link(target, Role::Target) }
}

fn keys(digests: bool) -> ConnKeys {
    let mut keys = ConnKeys::default();
    (keys.header_digest, keys.data_digest) = (digests, digests);
    keys
}

struct InMemory {
    cut: Cut,
    digests: bool,
}

impl PairFactory for InMemory {
    fn pair(&self) -> Links {
        let (a, b) = duplex(self.cut);
        links(a, b)
    }

    fn keys(&self) -> ConnKeys {
        keys(self.digests)
    }
}

datamover::conformance_tests!(
    whole,
    InMemory { cut: Cut { most: 1 << 20, seed: 0, room: 1 << 20 }, digests: false }
);
datamover::conformance_tests!(
    whole_with_digests,
    InMemory { cut: Cut { most: 1 << 20, seed: 0, room: 1 << 20 }, digests: true }
);
datamover::conformance_tests!(
    odd_pieces,
    InMemory { cut: Cut { most: 1021, seed: 0, room: 3000 }, digests: true }
);
datamover::conformance_tests!(
    random_pieces,
    InMemory { cut: Cut { most: 9000, seed: 5, room: 70_000 }, digests: true }
);

#[cfg(feature = "std-net")]
mod sockets {
    use super::*;
    use iscsi_tcp::StdStream;
    use std::net::{TcpListener, TcpStream};

    pub(crate) struct Std(pub(crate) bool);

    impl PairFactory for Std {
        fn pair(&self) -> Links {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let initiator = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (target, _) = listener.accept().unwrap();
            links(StdStream::new(initiator).unwrap(), StdStream::new(target).unwrap())
        }

        fn keys(&self) -> ConnKeys {
            keys(self.0)
        }
    }

    datamover::conformance_tests!(std_net, Std(false));
}

#[cfg(feature = "tokio")]
mod tokio_sockets {
    use super::*;
    use datamover::Fabric;
    use iscsi_tcp::TcpFabric;
    use std::sync::OnceLock;
    use std::time::Duration;
    use tokio::runtime::Runtime;

    /// Its own threads wait for the sockets, whoever polls them.
    fn runtime() -> &'static Runtime {
        static RUNTIME: OnceLock<Runtime> = OnceLock::new();
        RUNTIME.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build().unwrap()
        })
    }

    pub(crate) struct Tokio(pub(crate) bool);

    impl PairFactory for Tokio {
        fn pair(&self) -> Links {
            runtime().block_on(async {
                let fabric = TcpFabric::default().with_keepalive(Duration::from_secs(30));
                let mut acceptor = fabric.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
                let initiator = fabric.connect(acceptor.local_addr()).await.unwrap();
                Links { initiator, target: acceptor.accept().await.unwrap() }
            })
        }

        fn keys(&self) -> ConnKeys {
            keys(self.0)
        }
    }

    datamover::conformance_tests!(plain, Tokio(false));
    datamover::conformance_tests!(digests, Tokio(true));
}
