//! The transports that an initiator can use.

use crate::Error;
use crate::url::TransportChoice;
use datamover::{Fabric, LoginLink, Resources, SlabPool, TransportInfo};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// What carries a session, as reports show it: `tcp`, `iser (iwarp)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transport(String);

impl Transport {
    pub(crate) fn of(info: &TransportInfo) -> Self {
        match info.detail.as_str() {
            "" => Self(info.name.to_owned()),
            detail => Self(format!("{} ({detail})", info.name)),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One way to reach a portal.
pub(crate) struct Way(Arc<dyn Fabric>);

impl Way {
    pub(crate) fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(crate) async fn connect(&self, portal: SocketAddr) -> io::Result<Box<dyn LoginLink>> {
        self.0.connect(portal).await
    }

    /// What a connection should be able to hold.
    pub(crate) fn resources(&self) -> Resources {
        Resources { commands: 256, ..Resources::default() }
    }
}

/// The ways to try, the best first.
pub(crate) fn fabrics(choice: TransportChoice) -> Result<Vec<Way>, Error> {
    match choice {
        TransportChoice::Auto | TransportChoice::Tcp => {
            Ok(vec![Way(Arc::new(iscsi_tcp::TcpFabric::new(pool())))])
        }
        TransportChoice::Iser => Err(Error::NoTransport("iser".into())),
    }
}

/// One pool for all TCP sessions of the process.
fn pool() -> Arc<SlabPool> {
    static POOL: OnceLock<Arc<SlabPool>> = OnceLock::new();
    POOL.get_or_init(|| Arc::new(SlabPool::default())).clone()
}
