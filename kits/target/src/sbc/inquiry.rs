//! INQUIRY and its vital product data (SPC-4 clauses 6.6, 7.8; SBC-3 clause 6.6).

use super::basic::not_mine;
use super::{Begun, Call, Flow, copy, table};
use crate::ports::TargetPort;
use crate::sequence::{Ended, Finish};
use crate::target_device::TargetDevice;
use scsi_cmd::Sense;
use scsi_cmd::cdb::{Cdb, Command, Inquiry};
use scsi_cmd::inquiry::{Ascii, InquiryFlags, Peripheral, StandardInquiry, VersionDescriptor};
use scsi_cmd::transport_id::target_port_name;
use scsi_cmd::vpd::{
    Association, BlockDeviceCharacteristics, Designator, ExtendedInquiry, LogicalBlockProvisioning,
    ModePagePolicy, ScsiPort, Vpd, VpdCode, VpdPage,
};

pub(super) fn inquiry(call: &Call<'_>, cdb: &Cdb) -> Begun {
    let Command::Inquiry(request) = &cdb.command else { return Err(not_mine()) };
    let finish = match request.evpd {
        true => vital_product_data(call, request),
        false => standard(call, request),
    };
    finish.map(Flow::Finish)
}

fn standard(call: &Call<'_>, request: &Inquiry) -> Ended {
    if request.page_code != 0 {
        return Err(Sense::invalid_cdb_field(2, 7).into());
    }
    let config = &call.unit.config;
    let flags = InquiryFlags {
        removable: config.removable,
        multi_port: call.target.ports().len() > 1,
        // Implicit and explicit asymmetric access.
        tpgs: 3,
        third_party_copy: true,
        protect: call.unit.geometry().protectable,
        ..flags(Peripheral::DISK)
    };
    let data = StandardInquiry {
        flags,
        vendor: Ascii::new(&config.vendor),
        product: Ascii::new(&config.product),
        revision: Ascii::new(&config.revision),
        // req: 7144-4.2-1
        versions: vec![
            VersionDescriptor::SAM_5,
            VersionDescriptor::iscsi(call.protocol_level),
            VersionDescriptor::SPC_4,
            VersionDescriptor::SBC_3,
        ],
    };
    Ok(Finish::data(data.encode(), request.allocation_length))
}

fn flags(peripheral: Peripheral) -> InquiryFlags {
    InquiryFlags {
        peripheral: peripheral.0,
        version: 6,
        response_data_format: 2,
        hi_sup: true,
        cmd_que: true,
        ..InquiryFlags::default()
    }
}

/// INQUIRY to a LUN without logical unit, and to the REPORT LUNS well-known logical unit.
pub(super) fn without_unit(
    target: &TargetDevice,
    request: &Inquiry,
    well_known: bool,
    protocol_level: u8,
) -> Ended {
    let peripheral = if well_known { Peripheral::WELL_KNOWN } else { Peripheral::NONE };
    if !request.evpd {
        if request.page_code != 0 {
            return Err(Sense::invalid_cdb_field(2, 7).into());
        }
        let versions = vec![
            VersionDescriptor::SAM_5,
            VersionDescriptor::iscsi(protocol_level),
            VersionDescriptor::SPC_4,
        ];
        let data = StandardInquiry {
            flags: flags(peripheral),
            vendor: Ascii::new("iSCSI-RS"),
            product: Ascii::new("Target"),
            versions,
            ..StandardInquiry::default()
        };
        return Ok(Finish::data(data.encode(), request.allocation_length));
    }
    let page = match VpdCode(request.page_code) {
        VpdCode::SupportedPages => {
            VpdPage::SupportedPages(vec![VpdCode::SupportedPages, VpdCode::DeviceIdentification])
        }
        VpdCode::DeviceIdentification => {
            let name = Designator::scsi_name(Association::TargetDevice, target.name());
            VpdPage::DeviceIdentification(vec![name])
        }
        _ => return Err(Sense::invalid_cdb_field(2, 7).into()),
    };
    Ok(Finish::data(Vpd { peripheral, page }.encode(), request.allocation_length))
}

const PAGES: [VpdCode; 10] = [
    VpdCode::SupportedPages,
    VpdCode::UnitSerialNumber,
    VpdCode::DeviceIdentification,
    VpdCode::ExtendedInquiry,
    VpdCode::ModePagePolicy,
    VpdCode::ScsiPorts,
    VpdCode::ThirdPartyCopy,
    VpdCode::BlockLimits,
    VpdCode::BlockDeviceCharacteristics,
    VpdCode::LogicalBlockProvisioning,
];

fn vital_product_data(call: &Call<'_>, request: &Inquiry) -> Ended {
    let unit = call.unit;
    let geometry = unit.geometry();
    let page = match VpdCode(request.page_code) {
        VpdCode::SupportedPages => VpdPage::SupportedPages(PAGES.to_vec()),
        VpdCode::UnitSerialNumber => VpdPage::UnitSerialNumber(unit.config.serial.clone().into_bytes()),
        VpdCode::DeviceIdentification => VpdPage::DeviceIdentification(identification(call)),
        VpdCode::ExtendedInquiry => VpdPage::ExtendedInquiry(ExtendedInquiry {
            // Types 1 and 3. Nobody here knows what an application tag should be.
            spt: if geometry.protectable { 3 } else { 0 },
            grd_chk: geometry.protectable,
            app_chk: geometry.protectable,
            ref_chk: geometry.protectable,
            head_sup: true,
            ord_sup: true,
            simp_sup: true,
            v_sup: geometry.volatile_cache,
            max_sense_length: 252,
            ..ExtendedInquiry::default()
        }),
        VpdCode::ModePagePolicy => {
            let shared = ModePagePolicy { page_code: 0x3f, subpage_code: 0xff, mlus: false, policy: 0 };
            VpdPage::ModePagePolicy(vec![shared])
        }
        VpdCode::ScsiPorts => VpdPage::ScsiPorts(
            call.target
                .ports()
                .into_iter()
                .map(|port| ScsiPort {
                    relative_port_id: port.relative_id,
                    initiator_transport_id: Vec::new(),
                    target_port: vec![port_name(call.target, port)],
                })
                .collect(),
        ),
        VpdCode::ThirdPartyCopy => VpdPage::ThirdPartyCopy(copy::vpd()),
        VpdCode::BlockLimits => VpdPage::BlockLimits(table::limits(unit)),
        VpdCode::BlockDeviceCharacteristics => {
            VpdPage::BlockDeviceCharacteristics(BlockDeviceCharacteristics {
                rotation_rate: if geometry.rotational { 0 } else { 1 },
                // Blocks read as zeros after a block erase.
                wabereq: 1,
                fuab: true,
                // Unmapped blocks are compared as the zeros that they read as.
                vbuls: true,
                ..BlockDeviceCharacteristics::default()
            })
        }
        VpdCode::LogicalBlockProvisioning => {
            let thin = unit.thin();
            let page = LogicalBlockProvisioning {
                lbpu: thin.is_some(),
                lbpws: thin.is_some(),
                lbpws10: thin.is_some(),
                lbprz: u8::from(thin.is_some_and(|t| t.zeroes)),
                provisioning_type: if thin.is_some() { 2 } else { 0 },
                ..LogicalBlockProvisioning::default()
            };
            VpdPage::LogicalBlockProvisioning(page, Vec::new())
        }
        _ => return Err(Sense::invalid_cdb_field(2, 7).into()),
    };
    let vpd = Vpd { peripheral: Peripheral::DISK, page };
    Ok(Finish::data(vpd.encode(), request.allocation_length))
}

/// Names of the unit, of the port through which it is looked at, and of the target device (SPC-4 clause 7.8.6.2).
fn identification(call: &Call<'_>) -> Vec<Designator> {
    let unit = call.unit;
    let port = call.view.nexus.port();
    vec![
        Designator::naa(unit.naa),
        Designator::t10_vendor_id(&unit.config.vendor, &unit.config.serial),
        port_name(call.target, port),
        Designator::relative_target_port(port.relative_id),
        Designator::target_port_group(port.portal_group),
        // req: 7143-4.4.2-1
        Designator::scsi_name(Association::TargetDevice, call.target.name()),
    ]
}

/// The name of a target port (RFC 7143 section 4.4.2).
fn port_name(target: &TargetDevice, port: TargetPort) -> Designator {
    // req: 7143-4.4.2-3
    Designator::scsi_name(Association::TargetPort, &target_port_name(target.name(), port.portal_group))
}
