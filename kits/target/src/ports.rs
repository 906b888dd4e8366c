//! Names of ports and nexuses (SAM-5 clause 4.8, RFC 7143 section 4.4).

use std::fmt;
use std::sync::Arc;

/// An initiator port: node name and ISID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InitiatorPort {
    /// iSCSI node name.
    pub name: String,
    /// ISID.
    pub isid: [u8; 6],
}

/// A target port of a device: all portals of one portal group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TargetPort {
    /// RELATIVE TARGET PORT IDENTIFIER, from 1 on.
    pub relative_id: u16,
    /// Target portal group tag; also the target port group of asymmetric access.
    pub portal_group: u16,
}

/// An I_T nexus: who talks to whom through which port. Clones are cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NexusId(Arc<Names>);

#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Names {
    initiator: InitiatorPort,
    target: String,
    port: TargetPort,
}

impl NexusId {
    /// Of the initiator port with the port of the target device named `target`.
    #[must_use]
    pub fn new(initiator: InitiatorPort, target: impl Into<String>, port: TargetPort) -> Self {
        Self(Arc::new(Names { initiator, target: target.into(), port }))
    }

    /// The initiator port.
    #[must_use]
    pub fn initiator(&self) -> &InitiatorPort {
        &self.0.initiator
    }

    /// iSCSI node name of the target.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.0.target
    }

    /// The target port.
    #[must_use]
    pub fn port(&self) -> TargetPort {
        self.0.port
    }
}

/// `iqn.…,i,0x00023d000001`, as SCSI writes it (RFC 7143 section 4.4.2).
impl fmt::Display for InitiatorPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},i,0x", self.name)?;
        self.isid.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for InitiatorPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NexusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {},t,{:#06x}", self.0.initiator, self.0.target, self.0.port.portal_group)
    }
}

impl fmt::Debug for NexusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
