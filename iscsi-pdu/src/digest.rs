//! CRC32C digests and what they cover (RFC 7143 sections 11.2.3, 13.1).
//!
//! The header digest covers BHS and AHSs, the data digest the data segment with its padding. A digest travels
//! least significant byte first, the only little-endian field of iSCSI: RFC 7143 section 13.1 maps the CRC
//! polynomial's bits in the order in which they are computed.

use crate::{BHS_LEN, DIGEST_LEN, pad_len};

#[cfg(any(test, target_os = "none"))]
mod soft;

/// Which digests a direction of a connection carries (keys HeaderDigest, DataDigest). Both are off until the
/// Full Feature Phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Digests {
    /// Every header has a CRC32C.
    pub header: bool,
    /// Every data segment that is not empty has a CRC32C.
    pub data: bool,
}

impl Digests {
    /// No digests.
    pub const NONE: Self = Self { header: false, data: false };
    /// Both digests.
    pub const BOTH: Self = Self { header: true, data: true };

    /// Bytes of header digest.
    #[must_use]
    pub const fn header_len(self) -> usize {
        if self.header { DIGEST_LEN } else { 0 }
    }

    /// Bytes of data digest after `data` bytes of data: an empty segment has none.
    #[must_use]
    pub const fn data_len(self, data: usize) -> usize {
        if self.data && data > 0 { DIGEST_LEN } else { 0 }
    }
}

/// A CRC32C that takes its input in pieces.
///
/// ```
/// use iscsi_pdu::Crc32c;
/// // RFC 3720 appendix B.4: 32 bytes of zeroes.
/// assert_eq!(Crc32c::new().update(&[0; 20]).update(&[0; 12]).to_wire(), [0xaa, 0x36, 0x91, 0x8a]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Crc32c(u32);

impl Crc32c {
    /// The CRC of no bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// With `bytes` appended to the input.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        Self(append(self.0, bytes))
    }

    /// With the zero bytes appended that pad `len` bytes to a multiple of four.
    #[must_use]
    pub fn pad(self, len: usize) -> Self {
        self.update([0; 3].get(..pad_len(len)).unwrap_or_default())
    }

    /// The CRC as a number: 0xe3069283 of `123456789`.
    #[must_use]
    pub const fn finish(self) -> u32 {
        self.0
    }

    /// The CRC as it travels: least significant byte first.
    #[must_use]
    pub const fn to_wire(self) -> [u8; DIGEST_LEN] {
        self.0.to_le_bytes()
    }
}

/// The hardware's CRC where it has one. `crc32c` detects it at run time, which takes an operating system.
#[cfg(not(target_os = "none"))]
fn append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

#[cfg(target_os = "none")]
fn append(crc: u32, bytes: &[u8]) -> u32 {
    soft::append(crc, bytes)
}

/// Header digest of a BHS and all its AHSs, padded as they travel.
// req: 7143-11.2-1
#[must_use]
pub fn header_digest(bhs: &[u8; BHS_LEN], ahs: &[u8]) -> [u8; DIGEST_LEN] {
    Crc32c::new().update(bhs).update(ahs).to_wire()
}

/// Data digest of a data segment given in pieces, zero padding added.
///
/// A receiver whose peer may pad with other bytes feeds [`Crc32c`] with what has arrived instead.
// req: 7143-11.2-2
#[must_use]
pub fn data_digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> [u8; DIGEST_LEN] {
    let mut len: usize = 0;
    let mut crc = Crc32c::new();
    for piece in pieces {
        len = len.wrapping_add(piece.len());
        crc = crc.update(piece);
    }
    crc.pad(len).to_wire()
}

#[cfg(test)]
mod tests;
