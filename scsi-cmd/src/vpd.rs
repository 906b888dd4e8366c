//! Vital product data pages (SPC-4 clause 7.8, SBC-3 clause 6.6).

mod identification;
mod limits;
mod ports;

pub use identification::{Association, CodeSet, Designator, DesignatorType, naa_locally_assigned};
pub use limits::{BlockDeviceCharacteristics, BlockLimits, ExtendedInquiry, LogicalBlockProvisioning};
pub use ports::{ModePagePolicy, ScsiPort, ThirdPartyCopyDescriptor};

use crate::codec::{Put, arr, be16, records, run, take};
use crate::error::DecodeError;
use crate::inquiry::Peripheral;
use alloc::vec::Vec;

crate::codec::code! {
    /// PAGE CODE of a VPD page.
    VpdCode(u8) {
        /// Supported VPD Pages.
        0x00 => SupportedPages,
        /// Unit Serial Number.
        0x80 => UnitSerialNumber,
        /// Device Identification.
        0x83 => DeviceIdentification,
        /// Extended INQUIRY Data.
        0x86 => ExtendedInquiry,
        /// Mode Page Policy.
        0x87 => ModePagePolicy,
        /// SCSI Ports.
        0x88 => ScsiPorts,
        /// Third-Party Copy.
        0x8f => ThirdPartyCopy,
        /// Block Limits.
        0xb0 => BlockLimits,
        /// Block Device Characteristics.
        0xb1 => BlockDeviceCharacteristics,
        /// Logical Block Provisioning.
        0xb2 => LogicalBlockProvisioning,
    }
}

/// The content of a VPD page.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum VpdPage {
    /// 00h: the codes of all pages, ascending (SPC-4 clause 7.8.15).
    SupportedPages(Vec<VpdCode>),
    /// 80h: serial number, ASCII (SPC-4 clause 7.8.18).
    UnitSerialNumber(Vec<u8>),
    /// 83h: names of the logical unit, the target port and the target device (SPC-4 clause 7.8.6).
    DeviceIdentification(Vec<Designator>),
    /// 86h (SPC-4 clause 7.8.7).
    ExtendedInquiry(ExtendedInquiry),
    /// 87h (SPC-4 clause 7.8.10).
    ModePagePolicy(Vec<ModePagePolicy>),
    /// 88h (SPC-4 clause 7.8.13).
    ScsiPorts(Vec<ScsiPort>),
    /// 8Fh (SPC-4 clause 7.8.17).
    ThirdPartyCopy(Vec<ThirdPartyCopyDescriptor>),
    /// B0h (SBC-3 clause 6.6.4).
    BlockLimits(BlockLimits),
    /// B1h (SBC-3 clause 6.6.3).
    BlockDeviceCharacteristics(BlockDeviceCharacteristics),
    /// B2h (SBC-3 clause 6.6.5). A provisioning group descriptor follows the record when DP is set.
    LogicalBlockProvisioning(LogicalBlockProvisioning, Vec<Designator>),
    /// A page that this crate does not know: its code and what follows PAGE LENGTH.
    Unknown(VpdCode, Vec<u8>),
}

/// A VPD page as INQUIRY with EVPD returns it.
///
/// ```
/// use scsi_cmd::inquiry::Peripheral;
/// use scsi_cmd::vpd::{Vpd, VpdPage};
///
/// let page = Vpd { peripheral: Peripheral::DISK, page: VpdPage::UnitSerialNumber(b"42".to_vec()) };
/// assert_eq!(page.encode(), [0x00, 0x80, 0x00, 0x02, b'4', b'2']);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vpd {
    /// PERIPHERAL QUALIFIER and DEVICE TYPE.
    pub peripheral: Peripheral,
    /// The page.
    pub page: VpdPage,
}

impl VpdPage {
    /// PAGE CODE.
    #[must_use]
    pub fn code(&self) -> VpdCode {
        match self {
            Self::SupportedPages(_) => VpdCode::SupportedPages,
            Self::UnitSerialNumber(_) => VpdCode::UnitSerialNumber,
            Self::DeviceIdentification(_) => VpdCode::DeviceIdentification,
            Self::ExtendedInquiry(_) => VpdCode::ExtendedInquiry,
            Self::ModePagePolicy(_) => VpdCode::ModePagePolicy,
            Self::ScsiPorts(_) => VpdCode::ScsiPorts,
            Self::ThirdPartyCopy(_) => VpdCode::ThirdPartyCopy,
            Self::BlockLimits(_) => VpdCode::BlockLimits,
            Self::BlockDeviceCharacteristics(_) => VpdCode::BlockDeviceCharacteristics,
            Self::LogicalBlockProvisioning(..) => VpdCode::LogicalBlockProvisioning,
            Self::Unknown(code, _) => *code,
        }
    }
}

impl Vpd {
    /// The page, PAGE LENGTH filled in.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut o = Vec::with_capacity(64);
        o.put_bytes(&[self.peripheral.0, self.page.code().0, 0, 0]);
        match &self.page {
            VpdPage::SupportedPages(codes) => o.extend(codes.iter().map(|c| c.0)),
            VpdPage::UnitSerialNumber(bytes) | VpdPage::Unknown(_, bytes) => o.put_bytes(bytes),
            VpdPage::DeviceIdentification(all) => all.iter().for_each(|d| d.encode(&mut o)),
            VpdPage::ExtendedInquiry(page) => o.put_bytes(&page.encode()),
            VpdPage::ModePagePolicy(all) => all.iter().for_each(|p| o.put_bytes(&p.encode())),
            VpdPage::ScsiPorts(all) => all.iter().for_each(|p| p.encode(&mut o)),
            VpdPage::ThirdPartyCopy(all) => all.iter().for_each(|d| d.encode(&mut o)),
            VpdPage::BlockLimits(page) => o.put_bytes(&page.encode()),
            VpdPage::BlockDeviceCharacteristics(page) => o.put_bytes(&page.encode()),
            VpdPage::LogicalBlockProvisioning(page, group) => {
                o.put_bytes(&page.encode());
                group.iter().for_each(|d| d.encode(&mut o));
            }
        }
        o.fill_len16(2);
        o
    }

    /// Decodes a page. Records that an older peer ends early are zero from there on.
    ///
    /// # Errors
    /// [`crate::DecodeErrorKind::Truncated`] when there are fewer bytes than PAGE LENGTH or a descriptor's length
    /// says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        run(bytes, |i| {
            let (i, [peripheral, code]) = arr(i)?;
            let (i, len) = be16(i)?;
            let (rest, mut i) = take(usize::from(len))(i)?;
            let page = match VpdCode(code) {
                VpdCode::SupportedPages => VpdPage::SupportedPages(i.iter().map(|c| VpdCode(*c)).collect()),
                VpdCode::UnitSerialNumber => VpdPage::UnitSerialNumber(i.to_vec()),
                VpdCode::DeviceIdentification => VpdPage::DeviceIdentification(Designator::decode_all(i)?.1),
                VpdCode::ExtendedInquiry => VpdPage::ExtendedInquiry(ExtendedInquiry::decode(i)),
                VpdCode::ModePagePolicy => {
                    VpdPage::ModePagePolicy(records(i, |p: [u8; 4]| ModePagePolicy::decode(&p))?.1)
                }
                VpdCode::ScsiPorts => VpdPage::ScsiPorts(ScsiPort::decode_all(i)?.1),
                VpdCode::ThirdPartyCopy => {
                    VpdPage::ThirdPartyCopy(ThirdPartyCopyDescriptor::decode_all(i)?.1)
                }
                VpdCode::BlockLimits => VpdPage::BlockLimits(BlockLimits::decode(i)),
                VpdCode::BlockDeviceCharacteristics => {
                    VpdPage::BlockDeviceCharacteristics(BlockDeviceCharacteristics::decode(i))
                }
                VpdCode::LogicalBlockProvisioning => {
                    let page = LogicalBlockProvisioning::decode(i);
                    i = i.get(LogicalBlockProvisioning::LEN..).unwrap_or_default();
                    let group = if page.dp { Designator::decode_all(i)?.1 } else { Vec::new() };
                    VpdPage::LogicalBlockProvisioning(page, group)
                }
                code => VpdPage::Unknown(code, i.to_vec()),
            };
            Ok((rest, Self { peripheral: Peripheral(peripheral), page }))
        })
    }
}

#[cfg(test)]
mod tests;
