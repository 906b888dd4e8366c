//! Reservations that survive a power loss (APTPL): a file for each logical unit.

use super::{Held, Reservations};
use crate::ports::{InitiatorPort, NexusId, TargetPort};
use scsi_cmd::reservation::PrType;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the reservations of one unit are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Store(PathBuf);

/// The file, as TOML.
#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// TYPE of the reservation, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pr_type: Option<u8>,
    #[serde(default)]
    registration: Vec<Registration>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    initiator: String,
    /// Twelve hexadecimal digits.
    isid: String,
    target: String,
    relative_port: u16,
    portal_group: u16,
    /// Sixteen hexadecimal digits: TOML has no unsigned 64-bit integers.
    key: String,
    /// This one holds the reservation.
    #[serde(default)]
    holder: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Store {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What was saved; nothing, if nothing was.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for a file that is none of ours: better not to serve the unit than to serve it
    /// without its reservations.
    pub(crate) fn load(&self) -> io::Result<Reservations> {
        let text = match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reservations::default()),
            text => text?,
        };
        let saved: Saved =
            toml::from_str(&text).map_err(|e| invalid(format!("{}: {e}", self.0.display())))?;
        let mut all = Reservations { persist: true, ..Reservations::default() };
        let mut holder = None;
        for registration in saved.registration {
            let key = u64::from_str_radix(&registration.key, 16).map_err(|_| invalid("key"))?;
            let holds = registration.holder;
            let nexus = nexus(registration)?;
            if holds {
                holder = Some(nexus.clone());
            }
            all.keys.insert(nexus, key);
        }
        if let Some(pr_type) = saved.pr_type.map(PrType) {
            let all_registrants = pr_type.all_registrants();
            if !PrType::ALL.contains(&pr_type) || (holder.is_none() && !all_registrants) {
                return Err(invalid("reservation without holder or of unknown type"));
            }
            all.held = Some(Held { pr_type, by: holder.filter(|_| !all_registrants) });
        }
        Ok(all)
    }

    /// Saves what is to survive, or that nothing is: atomically, and on the medium when this returns.
    pub(crate) fn save(&self, reservations: &Reservations) -> io::Result<()> {
        let directory = self.0.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !reservations.persist {
            match fs::remove_file(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                result => result?,
            }
            return File::open(directory)?.sync_all();
        }
        let holder = reservations.held.as_ref().and_then(|h| h.by.as_ref());
        let saved = Saved {
            pr_type: reservations.held.as_ref().map(|h| h.pr_type.0),
            registration: reservations
                .keys
                .iter()
                .map(|(nexus, key)| Registration {
                    initiator: nexus.initiator().name.clone(),
                    isid: nexus.initiator().isid.iter().map(|b| format!("{b:02x}")).collect(),
                    target: nexus.target().to_owned(),
                    relative_port: nexus.port().relative_id,
                    portal_group: nexus.port().portal_group,
                    key: format!("{key:016x}"),
                    holder: holder == Some(nexus),
                })
                .collect(),
        };
        let text = toml::to_string(&saved).map_err(io::Error::other)?;
        let temporary = self.0.with_extension("new");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        File::open(directory)?.sync_all()
    }
}

fn nexus(registration: Registration) -> io::Result<NexusId> {
    let isid = u64::from_str_radix(&registration.isid, 16).ok().filter(|_| registration.isid.len() == 12);
    let [_, _, isid @ ..] = isid.ok_or_else(|| invalid("isid"))?.to_be_bytes();
    let port =
        TargetPort { relative_id: registration.relative_port, portal_group: registration.portal_group };
    Ok(NexusId::new(InitiatorPort { name: registration.initiator, isid }, registration.target, port))
}
