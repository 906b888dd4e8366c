//! The connections of one session: as many as are wanted, a lost one replaced.

use crate::login::{Endpoint, Join, LEADING};
use crate::session::{MAX_PAUSE, MIN_PAUSE};
use iscsi_login::{ExistingSession, Negotiated};
use iscsi_pdu::{Cid, CmdSn};
use iscsi_session::driver::InitiatorHandle;
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How long the commands of a connection that is one too many may take before it is logged out all the same.
const RETIRE: Duration = Duration::from_secs(30);

/// How long a connection whose login is over may take to be the session's.
const ENTRY: Duration = Duration::from_secs(1);

/// A connection in the place of the last one, for which the session's commands wait (ErrorRecoveryLevel 2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// CID of the lost connection.
    pub(crate) cid: Cid,
    /// Not before this: Time2Wait.
    pub(crate) at: Instant,
}

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
    pub(crate) async fn keep(
        mut self,
        mut wanted: watch::Receiver<u16>,
        mut asked: mpsc::UnboundedReceiver<Needed>,
    ) {
        let mut open = self.handle.connections();
        let mut pause = Duration::ZERO;
        let mut added = Instant::now();
        let mut due = None;
        while !self.handle.is_closed() {
            // Before the look at the connections, which tell of their end first: where there is one, whatever was asked for
            // by now is past. One that was under way when the others were lost has come in the meantime.
            due = latest(&mut asked).or(due);
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
            if cids.is_empty() {
                if let Some(needed) = due.take() {
                    self.replace(needed, &mut open, &mut asked).await;
                    continue;
                }
                tokio::select! {
                    _ = open.changed() => {}
                    needed = asked.recv() => match needed {
                        Some(needed) => due = Some(needed),
                        None => return,
                    },
                }
                continue;
            }
            due = None;
            if serving == goal {
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

    /// Brings the session a connection in the place of its last one, with that one's CID: the target may not have
    /// noticed its loss, and what MaxConnections admits is then one of this CID only (connection reinstatement, RFC 7143
    /// section 6.3.4).
    // req: 7143-7.5-1
    async fn replace(
        &mut self,
        mut needed: Needed,
        open: &mut watch::Receiver<Vec<Cid>>,
        asked: &mut mpsc::UnboundedReceiver<Needed>,
    ) {
        let mut pause = MIN_PAUSE;
        loop {
            tokio::time::sleep_until(needed.at).await;
            if let Some(newer) = latest(asked) {
                needed = newer;
                continue;
            }
            if !open.borrow_and_update().is_empty() || self.handle.is_closed() {
                return;
            }
            let Ok(cmd_sn) = self.handle.cmd_sn().await else { return };
            let join = Join { cid: needed.cid, cmd_sn, ..self.join.clone() };
            match self.endpoint.join(&join).await {
                Ok(connection) => {
                    tracing::info!(cid = needed.cid.0, "connection replaced");
                    self.handle.add_connection(connection);
                    let entered = open.wait_for(|cids| cids.contains(&needed.cid));
                    let _ = tokio::time::timeout(ENTRY, entered).await;
                    return;
                }
                // The target does not know the session any more: it has been restarted, or had no more patience. (Or the
                // question was an old one, and the one of now has come late.)
                Err(error) if asked.is_empty() && error.login_failure().is_some_and(|f| !f.may_retry()) => {
                    tracing::debug!(%error, "the session cannot go on");
                    self.handle.give_up();
                    return;
                }
                Err(error) => tracing::debug!(%error, "no connection in the place of the lost one"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
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

/// What was asked for last.
fn latest(asked: &mut mpsc::UnboundedReceiver<Needed>) -> Option<Needed> {
    std::iter::from_fn(|| asked.try_recv().ok()).last()
}
