//! The connections of one session: as many as are wanted, a lost one replaced.

use crate::login::{Endpoint, Join, LEADING};
use crate::session::{MAX_PAUSE, MIN_PAUSE};
use iscsi_login::{ExistingSession, Negotiated};
use iscsi_pdu::{Cid, CmdSn};
use iscsi_session::driver::InitiatorHandle;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long the commands of a connection that is one too many may take before it is logged out all the same.
const RETIRE: Duration = Duration::from_secs(30);

/// How long a connection whose login is over may take to be the session's.
const ENTRY: Duration = Duration::from_secs(1);

/// Keeps the number of a session's connections at what is wanted, within what the target granted.
pub(crate) struct Bundle {
    endpoint: Endpoint,
    handle: InitiatorHandle,
    join: Join,
    granted: usize,
    /// Connections that are on their way out.
    retiring: HashSet<Cid>,
}

impl Bundle {
    /// Of the session that a leading connection began.
    pub(crate) fn new(endpoint: &Endpoint, leading: &Negotiated, handle: &InitiatorHandle) -> Self {
        let session = ExistingSession {
            tsih: leading.tsih,
            session: leading.session,
            auth: leading.auth.clone(),
            exp_cmd_sn: leading.exp_cmd_sn,
            max_cmd_sn: leading.max_cmd_sn,
        };
        let join = Join {
            session,
            portal_group_tag: leading.target_portal_group_tag,
            cid: LEADING,
            cmd_sn: CmdSn(0),
        };
        let granted = usize::from(leading.session.max_connections.max(1));
        Self { endpoint: endpoint.clone(), handle: handle.clone(), join, granted, retiring: HashSet::new() }
    }

    /// Runs until the session is over.
    pub(crate) async fn keep(mut self, mut wanted: watch::Receiver<u16>) {
        let mut open = self.handle.connections();
        let mut pause = Duration::ZERO;
        let mut added = Instant::now();
        while !self.handle.is_closed() {
            let cids = open.borrow_and_update().clone();
            self.retiring.retain(|cid| cids.contains(cid));
            let serving = cids.iter().filter(|cid| !self.retiring.contains(cid)).count();
            let goal = usize::from((*wanted.borrow_and_update()).max(1)).min(self.granted);
            if serving > goal {
                if let Some(cid) = cids.iter().rfind(|cid| !self.retiring.contains(cid)) {
                    self.retiring.insert(*cid);
                    self.handle.logout_connection(*cid, RETIRE);
                }
                continue;
            }
            if serving == goal || cids.is_empty() {
                tokio::select! {
                    _ = open.changed() => {}
                    changed = wanted.changed() => if changed.is_err() { return },
                }
                continue;
            }
            // A target that takes connections and drops them at once is not helped by haste.
            let lasted = added.elapsed() >= MAX_PAUSE;
            tokio::time::sleep(if lasted { Duration::ZERO } else { pause }).await;
            pause = if lasted { MIN_PAUSE } else { (pause * 2).clamp(MIN_PAUSE, MAX_PAUSE) };
            match self.add(&cids).await {
                Ok(cid) => {
                    added = Instant::now();
                    if serving + 1 == goal {
                        pause = MIN_PAUSE;
                    }
                    let entered = open.wait_for(|cids| cids.contains(&cid));
                    let _ = tokio::time::timeout(ENTRY, entered).await;
                }
                Err(error) => tracing::debug!(%error, "no further connection"),
            }
        }
    }

    /// One connection more, with a CID that the session has not had lately: a late logout of a connection that was
    /// lost must not hit its successor.
    async fn add(&mut self, open: &[Cid]) -> Result<Cid, crate::Error> {
        loop {
            self.join.cid = Cid(self.join.cid.0.wrapping_add(1));
            if !open.contains(&self.join.cid) {
                break;
            }
        }
        self.join.cmd_sn = self.handle.cmd_sn().await.map_err(|_| crate::Error::Closed)?;
        let connection = self.endpoint.join(&self.join).await?;
        tracing::info!(cid = self.join.cid.0, "connection added");
        self.handle.add_connection(connection);
        Ok(self.join.cid)
    }
}
