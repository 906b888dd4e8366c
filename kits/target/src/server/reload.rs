//! A new configuration while sessions go on.

use super::{LOGOUT, STOP, Server, Shared};
use crate::config::Config;
use crate::nodes::{Applied, NodeError};
use iscsi_connect::Policy;
use iscsi_login::IscsiName;
use iscsi_session::driver::TargetControl;
use std::fmt;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

/// Something that a [reload](Server::reload) has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A target that was not there.
    TargetAdded {
        /// Its name.
        target: IscsiName,
    },
    /// A target that is there no more: its sessions are asked to log out.
    TargetRemoved {
        /// Its name.
        target: IscsiName,
    },
    /// A logical unit that was not there.
    UnitAdded {
        /// The target.
        target: IscsiName,
        /// Its number.
        lun: u32,
    },
    /// A logical unit that is there no more.
    UnitRemoved {
        /// The target.
        target: IscsiName,
        /// Its number.
        lun: u32,
    },
    /// A logical unit in the place of another one.
    UnitReplaced {
        /// The target.
        target: IscsiName,
        /// Its number.
        lun: u32,
    },
    /// A logical unit of another size than before.
    UnitResized {
        /// The target.
        target: IscsiName,
        /// Its number.
        lun: u32,
        /// Its logical blocks now.
        blocks: u64,
    },
    /// A session that the configuration no longer admits: it is asked to log out.
    SessionDismissed {
        /// The target.
        target: IscsiName,
        /// The initiator.
        initiator: IscsiName,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TargetAdded { target } => write!(f, "target {target} added"),
            Self::TargetRemoved { target } => write!(f, "target {target} removed"),
            Self::UnitAdded { target, lun } => write!(f, "target {target}: LUN {lun} added"),
            Self::UnitRemoved { target, lun } => write!(f, "target {target}: LUN {lun} removed"),
            Self::UnitReplaced { target, lun } => write!(f, "target {target}: LUN {lun} replaced"),
            Self::UnitResized { target, lun, blocks } => {
                write!(f, "target {target}: LUN {lun} has {blocks} blocks now")
            }
            Self::SessionDismissed { target, initiator } => {
                write!(f, "target {target}: session of {initiator} asked to log out")
            }
        }
    }
}

/// Why a configuration was not taken over. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It changes what holds for as long as the process runs; the key is named.
    #[error("{0} does not change while targets are served: restart for that")]
    Fixed(&'static str),
    /// A logical unit cannot be served.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The runtime ends.
    #[error("the server is stopping")]
    Stopping,
}

/// What a reload cannot change.
pub(super) struct Fixed {
    portals: Vec<SocketAddr>,
    portal_groups: Vec<u16>,
    transport: Policy,
    ping_after: Option<Duration>,
    error_recovery_level: Option<u8>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            portals: config.portals.clone(),
            portal_groups: config.portal_groups.clone(),
            transport: config.transport.clone(),
            ping_after: config.ping_after,
            error_recovery_level: config.error_recovery_level,
        }
    }

    fn check(&self, new: &Config) -> Result<(), ReloadError> {
        let same = [
            ("portals", self.portals == new.portals && self.portal_groups == new.portal_groups),
            ("transport", self.transport == new.transport),
            ("ping-after", self.ping_after == new.ping_after),
            ("error-recovery-level", self.error_recovery_level == new.error_recovery_level),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(ReloadError::Fixed(key)),
            None => Ok(()),
        }
    }
}

impl Server {
    /// Serves what another configuration says: other targets and logical units, sizes, accounts, who is allowed,
    /// redirections. All of it, or with an error, nothing.
    ///
    /// Sessions go on, and so do units whose configuration differs in size at most. Initiators are told of units that
    /// come, go and change their size. Who has logged in with an old secret stays; sessions with targets that are gone,
    /// and of initiators that are allowed no more, are asked to log out and end soon, whether they do or not. Returns
    /// what has changed.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing has changed.
    pub async fn reload(&self, config: Config) -> Result<Vec<Change>, ReloadError> {
        self.shared.fixed.check(&config)?;
        let shared = self.shared.clone();
        // Opens files, and waits for data to reach them.
        let applied = tokio::task::spawn_blocking(move || {
            let applied = shared.nodes.reload(config)?;
            for unit in &applied.removed {
                if let Err(error) = unit.flush() {
                    tracing::error!(?unit, %error, "data of a removed unit could not be flushed");
                }
            }
            Ok::<_, NodeError>(applied)
        });
        let Applied { mut changes, gone, .. } = applied.await.map_err(|_| ReloadError::Stopping)??;
        let mut dismissed = Vec::new();
        for (target, initiator, session) in self.shared.not_admitted() {
            changes.push(Change::SessionDismissed { target, initiator });
            dismissed.push(session);
        }
        let mut farewells = self.farewells.lock().unwrap_or_else(PoisonError::into_inner);
        while farewells.try_join_next().is_some() {}
        farewells.spawn(async move {
            dismiss(&dismissed).await;
            let flushing = tokio::task::spawn_blocking(move || {
                for unit in gone.iter().flat_map(|node| node.device.units().into_values()) {
                    if let Err(error) = unit.flush() {
                        tracing::error!(?unit, %error, "data of a removed target could not be flushed");
                    }
                }
            });
            let _ = flushing.await;
        });
        Ok(changes)
    }

    /// Looks at the sizes of files and devices again, and tells initiators of those that have changed.
    pub async fn rescan(&self) -> Vec<Change> {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.nodes.rescan()).await.unwrap_or_default()
    }
}

/// Asks sessions to log out, and ends those that do not.
async fn dismiss(sessions: &[TargetControl]) {
    let all_closed = async || {
        for session in sessions {
            session.closed().await;
        }
    };
    sessions.iter().for_each(|session| session.request_logout(LOGOUT));
    if tokio::time::timeout(LOGOUT, all_closed()).await.is_err() {
        sessions.iter().for_each(TargetControl::shutdown);
        let _ = tokio::time::timeout(STOP, all_closed()).await;
    }
}

impl Shared {
    /// Sessions that could not begin now.
    fn not_admitted(&self) -> Vec<(IscsiName, IscsiName, TargetControl)> {
        let registry = self.registry();
        let sessions = registry.iter().filter_map(|(_, entry)| {
            let (target, initiator) = (entry.key.target_name.as_ref()?, &entry.key.initiator_name);
            let stays = self.nodes.admits(target, initiator);
            (!stays).then(|| (target.clone(), initiator.clone(), entry.handle.clone()))
        });
        sessions.collect()
    }
}
