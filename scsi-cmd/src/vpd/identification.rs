//! Designation descriptors (SPC-4 clause 7.8.6).

use crate::codec::{Parsed, Put, arr, flag, take};
use alloc::string::String;
use alloc::vec::Vec;

crate::codec::code! {
    /// CODE SET of a designator, 4 bits.
    CodeSet(u8) {
        /// Binary.
        1 => Binary,
        /// ASCII.
        2 => Ascii,
        /// UTF-8.
        3 => Utf8,
    }
}

crate::codec::code! {
    /// ASSOCIATION: what a designator names, 2 bits.
    Association(u8) {
        /// The logical unit.
        0 => LogicalUnit,
        /// The target port.
        1 => TargetPort,
        /// The SCSI target device.
        2 => TargetDevice,
    }
}

crate::codec::code! {
    /// DESIGNATOR TYPE, 4 bits.
    DesignatorType(u8) {
        /// Vendor specific.
        0x0 => VendorSpecific,
        /// T10 vendor identification and a vendor specific part.
        0x1 => T10VendorId,
        /// EUI-64 based.
        0x2 => Eui64,
        /// NAA.
        0x3 => Naa,
        /// Relative target port identifier.
        0x4 => RelativeTargetPort,
        /// Target port group.
        0x5 => TargetPortGroup,
        /// Logical unit group.
        0x6 => LogicalUnitGroup,
        /// MD5 logical unit identifier.
        0x7 => Md5LogicalUnit,
        /// SCSI name string.
        0x8 => ScsiName,
        /// Protocol specific port identifier.
        0x9 => ProtocolSpecificPort,
        /// UUID.
        0xa => Uuid,
    }
}

/// A designation descriptor: one name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Designator {
    /// PROTOCOL IDENTIFIER with PIV set; 5 is iSCSI.
    pub protocol: Option<u8>,
    /// CODE SET.
    pub code_set: CodeSet,
    /// ASSOCIATION.
    pub association: Association,
    /// DESIGNATOR TYPE.
    pub kind: DesignatorType,
    /// DESIGNATOR; at most 255 bytes travel.
    pub data: Vec<u8>,
}

/// PROTOCOL IDENTIFIER of iSCSI (SPC-4 table 443).
const ISCSI: u8 = 5;

impl Designator {
    fn new(code_set: CodeSet, association: Association, kind: DesignatorType, data: Vec<u8>) -> Self {
        // PIV is for names of ports and target devices alone (SPC-4 clause 7.8.6.1).
        let protocol = (association != Association::LogicalUnit).then_some(ISCSI);
        Self { protocol, code_set, association, kind, data }
    }

    /// T10 vendor ID based: vendor, space-filled to 8 bytes, and `specific`.
    #[must_use]
    pub fn t10_vendor_id(vendor: &str, specific: &str) -> Self {
        let mut data = Vec::new();
        data.put_text(vendor, 8);
        data.put_text(specific, specific.len().min(247));
        Self::new(CodeSet::Ascii, Association::LogicalUnit, DesignatorType::T10VendorId, data)
    }

    /// NAA, 8 bytes (NAA 2, 3 and 5).
    #[must_use]
    pub fn naa(name: u64) -> Self {
        let data = name.to_be_bytes().to_vec();
        Self::new(CodeSet::Binary, Association::LogicalUnit, DesignatorType::Naa, data)
    }

    /// NAA IEEE Registered Extended, 16 bytes (NAA 6).
    #[must_use]
    pub fn naa_extended(name: u128) -> Self {
        let data = name.to_be_bytes().to_vec();
        Self::new(CodeSet::Binary, Association::LogicalUnit, DesignatorType::Naa, data)
    }

    /// EUI-64 based, 8 bytes.
    #[must_use]
    pub fn eui64(id: u64) -> Self {
        let data = id.to_be_bytes().to_vec();
        Self::new(CodeSet::Binary, Association::LogicalUnit, DesignatorType::Eui64, data)
    }

    /// Relative target port identifier.
    #[must_use]
    pub fn relative_target_port(id: u16) -> Self {
        let mut data = Vec::new();
        data.put16(0);
        data.put16(id);
        Self::new(CodeSet::Binary, Association::TargetPort, DesignatorType::RelativeTargetPort, data)
    }

    /// Target port group.
    #[must_use]
    pub fn target_port_group(id: u16) -> Self {
        let mut data = Vec::new();
        data.put16(0);
        data.put16(id);
        Self::new(CodeSet::Binary, Association::TargetPort, DesignatorType::TargetPortGroup, data)
    }

    /// SCSI name string: UTF-8, NUL-terminated and NUL-padded to a multiple of four (SPC-4 clause 7.8.6.11). A name
    /// longer than 252 bytes is cut at a character.
    #[must_use]
    pub fn scsi_name(association: Association, name: &str) -> Self {
        // req: 7143-4.4.2-1
        let mut end = name.len().min(251);
        while !name.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let mut data = Vec::from(name.get(..end).unwrap_or_default());
        data.push(0);
        data.resize(data.len().next_multiple_of(4), 0);
        Self::new(CodeSet::Utf8, association, DesignatorType::ScsiName, data)
    }

    /// The text of an ASCII or UTF-8 designator, up to the first NUL; `None` for a binary one.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        if self.code_set == CodeSet::Binary {
            return None;
        }
        let text = self.data.split(|b| *b == 0).next().unwrap_or_default();
        Some(String::from_utf8_lossy(text).trim_end_matches(' ').into())
    }

    pub(crate) fn encode(&self, o: &mut Vec<u8>) {
        let piv = flag(self.protocol.is_some(), 7);
        o.put8((self.protocol.unwrap_or(0) << 4) | (self.code_set.0 & 0x0f));
        o.put8(piv | ((self.association.0 & 0x03) << 4) | (self.kind.0 & 0x0f));
        let len = u8::try_from(self.data.len()).unwrap_or(u8::MAX);
        o.put_bytes(&[0, len]);
        o.extend(self.data.iter().take(usize::from(len)));
    }

    pub(crate) fn decode(i: &[u8]) -> Parsed<'_, Self> {
        let (i, [protocol_set, kind, _, len]) = arr(i)?;
        let (i, data) = take(usize::from(len))(i)?;
        let designator = Self {
            protocol: (kind & 0x80 != 0).then_some(protocol_set >> 4),
            code_set: CodeSet(protocol_set & 0x0f),
            association: Association((kind >> 4) & 0x03),
            kind: DesignatorType(kind & 0x0f),
            data: data.to_vec(),
        };
        Ok((i, designator))
    }

    pub(crate) fn decode_all(mut i: &[u8]) -> Parsed<'_, Vec<Self>> {
        let mut all = Vec::new();
        while !i.is_empty() {
            let (rest, one) = Self::decode(i)?;
            all.push(one);
            i = rest;
        }
        Ok((i, all))
    }
}

/// An NAA 3h Locally Assigned name (SPC-4 clause 7.8.6.6.3) of the low 60 bits of `id`: for units that have no
/// IEEE company identifier.
#[must_use]
pub const fn naa_locally_assigned(id: u64) -> u64 {
    0x3000_0000_0000_0000 | (id & 0x0fff_ffff_ffff_ffff)
}
