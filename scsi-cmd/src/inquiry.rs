//! Standard INQUIRY data (SPC-4 clause 6.6.2).

use crate::codec::{Put, text};
use crate::error::DecodeError;
use crate::layout::{bit, bits, bytes, records};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// PERIPHERAL QUALIFIER and PERIPHERAL DEVICE TYPE: the first byte of INQUIRY data and of every VPD page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Peripheral(pub u8);

impl Peripheral {
    /// A connected direct-access block device: qualifier 000b, type 00h.
    pub const DISK: Self = Self(0x00);
    /// A connected well-known logical unit: type 1Eh.
    pub const WELL_KNOWN: Self = Self(0x1e);
    /// No device can be here: qualifier 011b, type 1Fh. What INQUIRY to an incorrect LUN returns.
    pub const NONE: Self = Self(0x7f);

    /// PERIPHERAL QUALIFIER: 0 connected, 1 not connected, 3 not possible.
    #[must_use]
    pub const fn qualifier(self) -> u8 {
        self.0 >> 5
    }

    /// PERIPHERAL DEVICE TYPE.
    #[must_use]
    pub const fn device_type(self) -> u8 {
        self.0 & 0x1f
    }
}

/// An ASCII field of `N` bytes, left-aligned and space-filled (SPC-4 clause 4.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ascii<const N: usize>(pub [u8; N]);

impl<const N: usize> Ascii<N> {
    /// `text`, space-filled or cut; characters outside printable ASCII become `?`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut field = [b' '; N];
        for (to, from) in field.iter_mut().zip(text.chars()) {
            *to = u8::try_from(from).ok().filter(|b| (0x20..0x7f).contains(b)).unwrap_or(b'?');
        }
        Self(field)
    }
}

impl<const N: usize> Default for Ascii<N> {
    fn default() -> Self {
        Self([b' '; N])
    }
}

/// The text without the spaces that fill it up.
impl<const N: usize> fmt::Display for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: String = text(&self.0);
        fmt::Debug::fmt(&text, f)
    }
}

/// VERSION DESCRIPTOR: a standard to which the device claims conformance (SPC-4 table 177).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct VersionDescriptor(pub u16);

impl VersionDescriptor {
    /// SAM-5.
    pub const SAM_5: Self = Self(0x00a0);
    /// SPC-4.
    pub const SPC_4: Self = Self(0x0460);
    /// SBC-3.
    pub const SBC_3: Self = Self(0x04c0);

    /// iSCSI at a negotiated iSCSIProtocolLevel (RFC 7144 section 4.2); a level above 31 has no descriptor and counts
    /// as 31.
    #[must_use]
    pub const fn iscsi(protocol_level: u8) -> Self {
        // req: 7144-4.2-1
        Self(0x0960 | if protocol_level > 31 { 31 } else { protocol_level } as u16)
    }
}

records! {
    /// Bytes 0 to 7 of standard INQUIRY data: what kind of device, and what it can do.
    InquiryFlags, 8 {
        /// PERIPHERAL QUALIFIER and DEVICE TYPE; see [`Peripheral`].
        peripheral: u8 = bytes(0, 0),
        /// RMB: the medium is removable.
        removable: bool = bit(1, 7),
        /// LU_CONG: the logical unit is part of a conglomerate.
        lu_cong: bool = bit(1, 6),
        /// VERSION; 6 is SPC-4.
        version: u8 = bytes(2, 2),
        /// NORMACA: NACA is supported.
        norm_aca: bool = bit(3, 5),
        /// HISUP: LUNs are assigned hierarchically.
        hi_sup: bool = bit(3, 4),
        /// RESPONSE DATA FORMAT; 2.
        response_data_format: u8 = bits(3, 0, 4),
        /// ADDITIONAL LENGTH; [`StandardInquiry::encode`] fills it in.
        additional_length: u8 = bytes(4, 4),
        /// SCCS: storage array controller component.
        sccs: bool = bit(5, 7),
        /// TPGS: 1 implicit, 2 explicit, 3 both kinds of asymmetric access.
        tpgs: u8 = bits(5, 4, 2),
        /// 3PC: third-party copy commands.
        third_party_copy: bool = bit(5, 3),
        /// PROTECT: protection information.
        protect: bool = bit(5, 0),
        /// ENCSERV: enclosure services.
        enc_serv: bool = bit(6, 6),
        /// MULTIP: several target ports.
        multi_port: bool = bit(6, 4),
        /// CMDQUE: tasks are queued.
        cmd_que: bool = bit(7, 1),
    }
}

/// Standard INQUIRY data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StandardInquiry {
    /// Bytes 0 to 7.
    pub flags: InquiryFlags,
    /// T10 VENDOR IDENTIFICATION.
    pub vendor: Ascii<8>,
    /// PRODUCT IDENTIFICATION.
    pub product: Ascii<16>,
    /// PRODUCT REVISION LEVEL.
    pub revision: Ascii<4>,
    /// Up to eight VERSION DESCRIPTORs; zeros are not listed.
    pub versions: Vec<VersionDescriptor>,
}

impl StandardInquiry {
    /// The length that [`StandardInquiry::encode`] gives.
    pub const LEN: usize = 96;

    /// 96 bytes; ADDITIONAL LENGTH is filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(Self::LEN);
        // 91 bytes follow byte 4.
        o.put_bytes(&InquiryFlags { additional_length: 91, ..self.flags }.encode());
        o.put_bytes(&self.vendor.0);
        o.put_bytes(&self.product.0);
        o.put_bytes(&self.revision.0);
        o.put_zeros(22);
        self.versions.iter().take(8).for_each(|v| o.put16(v.0));
        o.resize(Self::LEN, 0);
        o
    }

    /// Decodes INQUIRY data. Devices return as little as 36 bytes, and an allocation length may cut them further: what
    /// is not there is zero, or spaces in a text.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] below 5 bytes.
    pub fn decode(data: &[u8]) -> Result<Self, DecodeError> {
        let additional = crate::codec::run(data, |i| {
            let (i, [_, _, _, _, additional]) = crate::codec::arr(i)?;
            Ok((i, additional))
        })?;
        let data = data.get(..usize::from(additional).saturating_add(5)).unwrap_or(data);
        let tail = |from: usize| data.get(from..).unwrap_or_default();
        fn ascii<const N: usize>(from: &[u8]) -> Ascii<N> {
            let mut field = Ascii::default();
            field.0.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            field
        }
        let (versions, _) = tail(58).as_chunks::<2>();
        Ok(Self {
            flags: InquiryFlags::decode(data),
            vendor: ascii(tail(8)),
            product: ascii(tail(16)),
            revision: ascii(tail(32)),
            versions: versions
                .iter()
                .take(8)
                .map(|v| VersionDescriptor(u16::from_be_bytes(*v)))
                .filter(|v| v.0 != 0)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
