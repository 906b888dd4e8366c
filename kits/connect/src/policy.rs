//! Which transports to use, in which order.

use std::fmt;
use std::str::FromStr;

/// A way to carry a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// iSER through an RDMA device of the kernel (InfiniBand, RoCE, iWARP).
    Rdma,
    /// iSER over software iWARP from the start, as a device would do it: MPA first, the login in messages.
    Iwarp,
    /// A TCP connection that offers iSER (RDMAExtensions) in its login and becomes iSER over software iWARP when the
    /// peer agrees, plain iSCSI when it does not.
    Upgrade,
    /// Plain iSCSI over TCP.
    Tcp,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Rdma, Self::Iwarp, Self::Upgrade, Self::Tcp];

    /// The name in configurations and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rdma => "rdma",
            Self::Iwarp => "iwarp",
            Self::Upgrade => "upgrade",
            Self::Tcp => "tcp",
        }
    }

    /// Whether the result can only be iSER.
    #[must_use]
    pub const fn is_iser_only(self) -> bool {
        matches!(self, Self::Rdma | Self::Iwarp)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Transports in the order in which an initiator tries them and a target offers them.
///
/// ```
/// use iscsi_connect::{Kind, Policy};
///
/// assert_eq!("tcp".parse::<Policy>().unwrap().kinds(), [Kind::Tcp]);
/// assert_eq!("rdma,tcp".parse::<Policy>().unwrap().kinds(), [Kind::Rdma, Kind::Tcp]);
/// assert!("carrier-pigeon".parse::<Policy>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    kinds: Vec<Kind>,
    iser_only: bool,
}

impl Policy {
    /// The fastest first: an RDMA device where there is one for the portal, else plain iSCSI. Software iWARP moves the
    /// bytes of the same TCP connection through the same processor with headers and checksums of its own, and is
    /// slower than plain iSCSI (measured: architecture section 6.6); it comes last, for portals that speak iSER only.
    /// A target offers all three.
    #[must_use]
    pub fn auto() -> Self {
        Self { kinds: vec![Kind::Rdma, Kind::Tcp, Kind::Upgrade], iser_only: false }
    }

    /// Plain iSCSI.
    #[must_use]
    pub fn tcp() -> Self {
        Self { kinds: vec![Kind::Tcp], iser_only: false }
    }

    /// iSER or nothing: an RDMA device, else software iWARP on the connection of the login.
    #[must_use]
    pub fn iser() -> Self {
        Self { kinds: vec![Kind::Rdma, Kind::Upgrade], iser_only: true }
    }

    /// These, in this order; a second mention of a kind counts for nothing.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        let mut list = Vec::new();
        for kind in kinds {
            if !list.contains(kind) {
                list.push(*kind);
            }
        }
        Self { kinds: list, iser_only: false }
    }

    /// The transports in order.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Whether a session must be iSER.
    #[must_use]
    pub fn is_iser_only(&self) -> bool {
        self.iser_only || self.kinds.iter().all(|k| k.is_iser_only())
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::auto()
    }
}

/// A text that is no policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParsePolicyError(String);

impl fmt::Display for ParsePolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown transport {:?}: auto, tcp, iser, or a list of rdma, iwarp, upgrade, tcp", self.0)
    }
}

impl std::error::Error for ParsePolicyError {}

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => return Ok(Self::auto()),
            "tcp" => return Ok(Self::tcp()),
            "iser" => return Ok(Self::iser()),
            _ => {}
        }
        let kind = |word: &str| Kind::ALL.into_iter().find(|k| k.name() == word);
        let kinds: Result<Vec<_>, _> = text
            .split(',')
            .map(|w| kind(w.trim()).ok_or_else(|| ParsePolicyError(w.trim().to_owned())))
            .collect();
        Ok(Self::of(&kinds?))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("auto", Self::auto()), ("iser", Self::iser())];
        if let Some((name, _)) = named.iter().find(|(_, p)| p == self) {
            return f.write_str(name);
        }
        let names: Vec<_> = self.kinds.iter().map(|k| k.name()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_shown() {
        for text in ["auto", "tcp", "iser", "rdma", "rdma,tcp", "upgrade,tcp", "iwarp"] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        assert_eq!("tcp, rdma,tcp".parse::<Policy>().unwrap().kinds(), [Kind::Tcp, Kind::Rdma]);
        let error = "tcp,udp".parse::<Policy>().unwrap_err();
        assert!(error.to_string().contains("\"udp\""), "{error}");
        assert!("".parse::<Policy>().is_err());
    }

    #[test]
    fn auto_prefers_what_is_fastest() {
        assert_eq!(Policy::auto().kinds(), [Kind::Rdma, Kind::Tcp, Kind::Upgrade]);
        assert_eq!(Policy::default(), Policy::auto());
    }

    #[test]
    fn iser_only_is_told() {
        assert!(Policy::iser().is_iser_only());
        assert!(Policy::of(&[Kind::Rdma, Kind::Iwarp]).is_iser_only());
        assert!(!Policy::auto().is_iser_only());
        assert!(!Policy::tcp().is_iser_only());
    }
}
