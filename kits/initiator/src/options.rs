//! How to connect: [`ConnectOptions`].

use crate::Error;
use crate::url::{IscsiUrl, UrlCredentials};
use iscsi_connect::{Connector, Policy};
use iscsi_login::auth::{ChapAlgorithms, ChapCredentials, Secret};
use iscsi_login::{IscsiName, Preferences};
use iscsi_pdu::Isid;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How to connect to targets. One value serves any number of sessions.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// InitiatorName.
    // req: 7143-10.1.2-2
    pub initiator_name: IscsiName,
    /// ISID of the session; `None` draws one at random for each session, which then keeps it over reconnects.
    ///
    /// Two sessions of one initiator name to one target portal group with one ISID end each other: that is session
    /// reinstatement (RFC 7143 section 6.3.5). One that is to be the same after a restart, as targets with persistent
    /// reservations may want it, is the application's to keep; nothing is taken from hardware.
    // req: 7143-11.12.5-3, 7143-11.12.5-4
    pub isid: Option<Isid>,
    /// CHAP by which we prove ourselves.
    pub chap: Option<ChapCredentials>,
    /// CHAP by which the target must prove itself.
    pub target_chap: Option<ChapCredentials>,
    /// Hash functions to offer for CHAP, in this order; all that there are, the strongest first, unless told otherwise.
    /// Some targets choose one by a number that means another to them.
    pub chap_algorithms: ChapAlgorithms,
    /// Require HeaderDigest=CRC32C; discovery, which many targets do without, only prefers it.
    pub header_digest: bool,
    /// Require DataDigest=CRC32C; see [`header_digest`](Self::header_digest).
    pub data_digest: bool,
    /// Transports, in the order in which they are tried.
    pub transport: Policy,
    /// The ways to portals and what is known of them, to be shared by sessions or with transports of the caller's own;
    /// `None` makes one of `transport`.
    pub connector: Option<Connector>,
    /// Connections that a session has, at most as many as the target grants (MaxConnections). Commands are spread over
    /// them; one that is lost is replaced while the others go on, where both ends have error recovery level 1.
    pub connections: u16,
    /// What logins offer for every other key; digests and MaxConnections follow from the fields above.
    pub preferences: Preferences,
    /// How long a connection attempt or a command may take.
    pub timeout: Duration,
    /// Idle time after which a NOP-Out asks whether the target is still there.
    pub keepalive: Duration,
    /// How long a lost session is tried to be had again before its commands fail; zero fails them at once.
    pub reconnect: Duration,
}

impl ConnectOptions {
    /// No authentication, no digests, any transport, 30 seconds for each thing, and the [`default_initiator_name`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            initiator_name: default_initiator_name(),
            isid: None,
            chap: None,
            target_chap: None,
            chap_algorithms: ChapAlgorithms::default(),
            header_digest: false,
            data_digest: false,
            transport: Policy::auto(),
            connector: None,
            connections: 1,
            preferences: Preferences::default(),
            timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(5),
            reconnect: Duration::from_secs(60),
        }
    }

    /// What a URL says; a user without a password is left to the caller.
    ///
    /// # Errors
    /// A secret or a name that CHAP does not admit.
    pub fn from_url(url: &IscsiUrl) -> Result<Self, Error> {
        Ok(Self {
            chap: url.chap.as_ref().map(credentials).transpose()?.flatten(),
            target_chap: url.target_chap.as_ref().map(credentials).transpose()?.flatten(),
            header_digest: url.header_digest,
            data_digest: url.data_digest,
            transport: url.transport.clone(),
            connections: url.connections,
            preferences: Preferences {
                error_recovery_level: url.error_recovery_level,
                ..Preferences::default()
            },
            ..Self::new()
        })
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

fn credentials(from: &UrlCredentials) -> Result<Option<ChapCredentials>, Error> {
    match &from.password {
        Some(password) => Ok(Some(ChapCredentials::new(&from.user, Secret::parse(password)?)?)),
        None => Ok(None),
    }
}

/// A name for this machine: that of the system's own initiator if it has one (`/etc/iscsi/initiatorname.iscsi`, as
/// open-iscsi keeps it), else one made of the machine's identity, else a fixed one.
#[must_use]
pub fn default_initiator_name() -> IscsiName {
    system_name().or_else(machine_name).unwrap_or_else(|| fixed("initiator"))
}

fn system_name() -> Option<IscsiName> {
    let text = std::fs::read_to_string("/etc/iscsi/initiatorname.iscsi").ok()?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("InitiatorName="))?;
    IscsiName::new(line.trim()).ok()
}

fn machine_name() -> Option<IscsiName> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    // The identity itself is not for strangers; twelve digits of it tell machines apart.
    let part = id.get(..12).filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(fixed(part))
}

fn fixed(part: &str) -> IscsiName {
    match IscsiName::new(&format!("iqn.2026-01.org.example:{part}")) {
        Ok(name) => name,
        Err(e) => unreachable!("a literal name with hexadecimal digits is valid: {e}"),
    }
}

/// ISIDs that this process has given out: a random part of the name space, and the next qualifier in it.
static ISIDS: Mutex<Option<Isids>> = Mutex::new(None);

struct Isids {
    random: [u8; 3],
    next: u16,
    left: u32,
}

/// An ISID of type "random" for one session, which no other session of this process has. Processes do not know of each
/// other: all 40 bits are drawn for the first one.
// req: 7143-10.1.2-3
pub(crate) fn random_isid() -> Result<Isid, Error> {
    let mut isids = ISIDS.lock().unwrap_or_else(PoisonError::into_inner);
    let part = match isids.as_mut().filter(|part| part.left > 0) {
        Some(part) => part,
        None => {
            let mut bytes = [0u8; 5];
            getrandom::fill(&mut bytes).map_err(|e| Error::Random(e.to_string()))?;
            let [a, b, c, d, e] = bytes;
            isids.insert(Isids { random: [a, b, c], next: u16::from_be_bytes([d, e]), left: 1 << 16 })
        }
    };
    let isid = Isid::random(part.random, part.next);
    part.next = part.next.wrapping_add(1);
    part.left -= 1;
    Ok(isid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    // req: 7143-10.1.2-3
    #[test]
    fn no_two_sessions_of_a_process_get_the_same_isid() {
        let drawn: HashSet<Isid> = (0..10_000).map(|_| random_isid().unwrap()).collect();
        assert_eq!(drawn.len(), 10_000);
    }
}
