//! VPD pages and the other data that a target returns: what decodes encodes to the same.
//!
//! Input: the data, as a target sends them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scsi_cmd::inquiry::StandardInquiry;
use scsi_cmd::log::LogPage;
use scsi_cmd::luns::LunList;
use scsi_cmd::ports::PortGroups;
use scsi_cmd::provisioning::LbaStatusList;
use scsi_cmd::reservation::{PrFullStatusList, PrKeys, PrReservationData};
use scsi_cmd::supported::{AllCommands, OneCommand};
use scsi_cmd::transport_id::TransportId;
use scsi_cmd::vpd::{Vpd, VpdPage};

macro_rules! round_trip {
    ($bytes:ident: $($t:ty),*) => { $(
        if let Ok(value) = <$t>::decode($bytes) {
            assert_eq!(<$t>::decode(&value.encode()), Ok(value));
        }
    )* };
}

fuzz_target!(|bytes: &[u8]| {
    round_trip!(bytes: Vpd, LogPage, PortGroups, LbaStatusList, PrKeys, PrReservationData, PrFullStatusList, AllCommands);
    let _ = OneCommand::decode(bytes);
    let _ = LunList::decode(bytes);
    let _ = TransportId::decode_all(bytes);
    if let Ok(inquiry) = StandardInquiry::decode(bytes) {
        let _ = (inquiry.vendor.to_string(), inquiry.encode());
    }
    if let Ok(Vpd { page: VpdPage::DeviceIdentification(names), .. }) = Vpd::decode(bytes) {
        names.iter().for_each(|name| drop(name.as_text()));
    }
});
