//! SendTargets (RFC 7143 section 13.3, appendix C): its request values, its response text, and TargetAddress.

use crate::{keys::Key, name::IscsiName};
use bytes::Bytes;
use core::fmt;
use iscsi_pdu::text::{TextLimits, TextWriter, pairs};

/// The IANA port of iSCSI, meant where a TargetAddress names none (RFC 7143 sections 13.8, 14).
pub const DEFAULT_PORT: u16 = 3260;

/// Longest domain name (RFC 1035).
const MAX_HOST_LEN: usize = 255;

/// Host part of a [`TargetAddress`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// An IP address; IPv6 travels in brackets.
    Ip(std::net::IpAddr),
    /// A DNS host name.
    Name(Box<str>),
}

/// TargetAddress: `domainname[:port][,portal-group-tag]` (RFC 7143 section 13.8).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TargetAddress {
    /// Host.
    pub host: Host,
    /// TCP port; `None` means [`DEFAULT_PORT`].
    pub port: Option<u16>,
    /// Portal group tag: always in SendTargets responses, never in redirections.
    pub portal_group_tag: Option<u16>,
}

/// Why text is no SendTargets request, response or address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum SendTargetsError {
    /// Not a well-formed TargetAddress.
    Address,
    /// Not a well-formed iSCSI name.
    Name(crate::name::NameError),
    /// A key other than TargetName and TargetAddress, or an address before the first name.
    Key,
    /// Text that is no sequence of `key=value` pairs.
    Text,
    /// More targets, or more addresses of one target, than the limits admit.
    TooMany,
}

impl fmt::Display for SendTargetsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("malformed TargetAddress"),
            Self::Name(e) => write!(f, "malformed TargetName: {e}"),
            Self::Key => f.write_str("a SendTargets response has TargetName and TargetAddress alone"),
            Self::Text => f.write_str("malformed text"),
            Self::TooMany => f.write_str("too many targets or addresses"),
        }
    }
}

impl core::error::Error for SendTargetsError {}

impl TargetAddress {
    /// The address as a redirection carries it: without portal group tag.
    // req: 7143-13.8-1
    #[must_use]
    pub fn without_tag(&self) -> Self {
        Self { portal_group_tag: None, ..self.clone() }
    }

    /// The port, the default one if none is given.
    #[must_use]
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(DEFAULT_PORT)
    }
}

impl From<std::net::SocketAddr> for TargetAddress {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self { host: Host::Ip(addr.ip()), port: Some(addr.port()), portal_group_tag: None }
    }
}

impl core::str::FromStr for TargetAddress {
    type Err = SendTargetsError;

    fn from_str(text: &str) -> Result<Self, SendTargetsError> {
        let bad = SendTargetsError::Address;
        let (rest, tag) = match text.rsplit_once(',') {
            Some((rest, tag)) => (rest, Some(number(tag).ok_or(bad)?)),
            None => (text, None),
        };
        let (host, rest) = if let Some(inner) = rest.strip_prefix('[') {
            let (ip, rest) = inner.split_once(']').ok_or(bad)?;
            (Host::Ip(ip.parse::<std::net::Ipv6Addr>().map_err(|_| bad)?.into()), rest)
        } else {
            let end = rest.find(':').unwrap_or(rest.len());
            let (name, rest) = rest.split_at_checked(end).ok_or(bad)?;
            (parse_host(name)?, rest)
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(number(port).filter(|p| *p != 0).ok_or(bad)?),
            None if rest.is_empty() => None,
            None => return Err(bad),
        };
        Ok(Self { host, port, portal_group_tag: tag })
    }
}

fn number(text: &str) -> Option<u16> {
    u16::try_from(crate::value::parse_number(text).ok()?).ok()
}

/// A dotted-decimal address or a host name: letters, digits, `-`, `_` and dots, no empty label.
fn parse_host(name: &str) -> Result<Host, SendTargetsError> {
    let (name, rooted) = name.strip_suffix('.').map_or((name, false), |name| (name, true));
    if let Ok(ip) = name.parse::<std::net::Ipv4Addr>() {
        // A dot ends a name, but no name looks like an address (RFC 1123 section 2.1).
        return if rooted { Err(SendTargetsError::Address) } else { Ok(Host::Ip(ip.into())) };
    }
    let ok = name.len() <= MAX_HOST_LEN
        && name.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if ok { Ok(Host::Name(name.into())) } else { Err(SendTargetsError::Address) }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(std::net::IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Ip(std::net::IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.portal_group_tag {
            Some(tag) => write!(f, ",{tag}"),
            None => Ok(()),
        }
    }
}

/// Value of a SendTargets request (RFC 7143 appendix C).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SendTargets {
    /// `All`: every target that the initiator may access; on discovery sessions only.
    All,
    /// One target by name.
    Target(IscsiName),
    /// Empty: the target of this session.
    Session,
}

impl SendTargets {
    /// Reads the value of the key.
    ///
    /// # Errors
    /// [`SendTargetsError::Name`].
    pub fn parse(value: &str) -> Result<Self, SendTargetsError> {
        match value {
            "All" => Ok(Self::All),
            "" => Ok(Self::Session),
            name => IscsiName::new(name).map(Self::Target).map_err(SendTargetsError::Name),
        }
    }
}

/// The value as it travels.
impl fmt::Display for SendTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Target(name) => write!(f, "{name}"),
            Self::Session => Ok(()),
        }
    }
}

/// One target of a SendTargets response. Without addresses, the target is where the connection is (RFC 7143
/// appendix C).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetRecord {
    /// TargetName.
    pub name: IscsiName,
    /// Its addresses.
    pub addresses: Vec<TargetAddress>,
}

/// Bounds on a SendTargets response, for a reader that keeps what a peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordLimits {
    /// Targets.
    pub targets: usize,
    /// Addresses of one target.
    pub addresses: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self { targets: 4096, addresses: 64 }
    }
}

/// Writes a SendTargets response of at most `budget` bytes.
///
/// # Errors
/// [`SendTargetsError::TooMany`] beyond the budget: a shortened list would be a wrong one.
/// [`SendTargetsError::Address`] for an address without portal group tag, which the response must have.
// req: 7143-13.4-3
pub fn write_records(records: &[TargetRecord], budget: usize) -> Result<Bytes, SendTargetsError> {
    let mut text = TextWriter::new(budget);
    for record in records {
        text.pair(Key::TargetName.name(), record.name.as_str());
        for address in &record.addresses {
            if address.portal_group_tag.is_none() {
                return Err(SendTargetsError::Address);
            }
            text.pair(Key::TargetAddress.name(), &address.to_string());
        }
    }
    text.finish().map_err(|_| SendTargetsError::TooMany)
}

/// Reads a whole SendTargets response. Names and addresses are checked: nothing in the result can be a path, a line
/// break or a format.
///
/// # Errors
/// [`SendTargetsError`].
pub fn parse_records(text: &[u8], limits: RecordLimits) -> Result<Vec<TargetRecord>, SendTargetsError> {
    let text_limits = TextLimits { bytes: text.len(), pairs: usize::MAX, ..TextLimits::default() };
    let mut records: Vec<TargetRecord> = Vec::new();
    for pair in pairs(text, text_limits) {
        let (key, value) = pair.map_err(|_| SendTargetsError::Text)?;
        match (Key::from_name(key), records.last_mut()) {
            (Some(Key::TargetName), _) => {
                if records.len() >= limits.targets {
                    return Err(SendTargetsError::TooMany);
                }
                let name = IscsiName::new(value).map_err(SendTargetsError::Name)?;
                records.push(TargetRecord { name, addresses: Vec::new() });
            }
            (Some(Key::TargetAddress), Some(record)) => {
                if record.addresses.len() >= limits.addresses {
                    return Err(SendTargetsError::TooMany);
                }
                record.addresses.push(value.parse()?);
            }
            _ => return Err(SendTargetsError::Key),
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests;
