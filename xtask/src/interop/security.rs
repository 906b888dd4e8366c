//! How a session is secured, and how each program is told.

/// Authentication and digests of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Neither.
    Plain,
    /// The initiator proves itself.
    Chap,
    /// Both sides prove themselves.
    Mutual,
    /// CRC32C over PDU headers.
    HeaderDigest,
    /// CRC32C over headers and data.
    Digests,
    /// Mutual CHAP and both digests.
    MutualDigests,
}

/// The initiator's CHAP name.
pub(super) const USER: &str = "initiator";
/// The initiator's secret: 12 to 16 bytes is what every peer takes.
pub(super) const SECRET: &str = "initiator-pw-1";
/// The target's CHAP name.
pub(super) const TARGET_USER: &str = "target";
/// The target's secret.
pub(super) const TARGET_SECRET: &str = "target-pw-2468";

impl Security {
    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Chap => "CHAP",
            Self::Mutual => "mutual CHAP",
            Self::HeaderDigest => "header digest",
            Self::Digests => "both digests",
            Self::MutualDigests => "mutual CHAP, both digests",
        }
    }

    /// The initiator proves itself.
    pub(super) fn chap(self) -> bool {
        matches!(self, Self::Chap | Self::Mutual | Self::MutualDigests)
    }

    /// The target proves itself.
    pub(super) fn mutual(self) -> bool {
        matches!(self, Self::Mutual | Self::MutualDigests)
    }

    /// Headers carry a CRC.
    pub(super) fn header_digest(self) -> bool {
        matches!(self, Self::HeaderDigest | Self::Digests | Self::MutualDigests)
    }

    /// Data segments carry a CRC.
    pub(super) fn data_digest(self) -> bool {
        matches!(self, Self::Digests | Self::MutualDigests)
    }
}
