//! Additional Header Segments (RFC 7143 section 11.2.2).

use bytes::Bytes;

/// One Additional Header Segment, in the order in which it travels.
///
/// Codes that RFC 7143 reserves do not decode: the RFC gives them no meaning a receiver could honour.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Ahs {
    /// Bytes 16 and up of a CDB longer than 16 bytes (section 11.2.2.3), at least 1.
    ExtendedCdb(Bytes),
    /// Bidirectional Read Expected Data Transfer Length, in bytes (section 11.2.2.4).
    BidirectionalReadLength(u32),
}
