//! `iscsi discover`, `ls`, `inquiry` and `capacity`: what is there.

use crate::options::Global;
use crate::output;
use clap::Args;
use iscsi_initiator::{Capacity, Error, IscsiUrl, Session, disk};
use iscsi_pdu::Lun;
use scsi_cmd::inquiry::{Peripheral, StandardInquiry};
use scsi_cmd::vpd::{Designator, VpdCode, VpdPage};
use serde::Serialize;

/// List the targets that a portal knows
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi discover iscsi://192.0.2.1
  iscsi discover iscsi://[2001:db8::1]:3261 --json")]
pub(crate) struct Discover {
    /// The portal, `iscsi://host[:port]`
    url: IscsiUrl,
}

#[derive(Serialize)]
struct Found {
    target: String,
    portals: Vec<String>,
}

impl Discover {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let targets = iscsi_initiator::discover(&self.url, &global.connect_options(&self.url)?).await?;
        let found: Vec<Found> = targets
            .iter()
            .map(|t| Found {
                target: t.name.to_string(),
                portals: t.addresses.iter().map(ToString::to_string).collect(),
            })
            .collect();
        if global.json {
            return output::json(&found);
        }
        for target in found {
            output::line(format!("{} {}", target.target, target.portals.join(" ")))?;
        }
        Ok(())
    }
}

/// List targets with their LUNs
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi ls iscsi://192.0.2.1                                     # all targets of a portal
  iscsi ls iscsi://192.0.2.1/iqn.2026-01.org.example:disk0 --json  # one target")]
pub(crate) struct Ls {
    /// The portal or one target, `iscsi://host[:port][/target-iqn]`
    url: IscsiUrl,
}

#[derive(Serialize)]
struct ListedTarget {
    target: String,
    /// Why the LUNs could not be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<String>,
    luns: Vec<ListedLun>,
}

#[derive(Serialize)]
struct ListedLun {
    lun: String,
    kind: &'static str,
    vendor: String,
    product: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<u32>,
}

impl Ls {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let options = global.connect_options(&self.url)?;
        let names = match &self.url.target {
            Some(name) => vec![name.clone()],
            None => {
                iscsi_initiator::discover(&self.url, &options).await?.into_iter().map(|t| t.name).collect()
            }
        };
        let mut listed = Vec::new();
        let mut failed = None;
        for name in names {
            let url = IscsiUrl { target: Some(name.clone()), ..self.url.clone() };
            let mut target =
                ListedTarget { target: name.to_string(), error: None, transport: None, luns: Vec::new() };
            // One target that refuses us is no reason not to list the others.
            match list(&url, &options, &mut target).await {
                Ok(()) => (),
                Err(error) => {
                    target.error = Some(error.to_string());
                    failed = Some(error);
                }
            }
            listed.push(target);
        }
        if global.json {
            output::json(&listed)?;
        } else {
            print(&listed)?;
        }
        match failed {
            Some(error) => Err(anyhow::Error::new(error).context("not all targets could be listed")),
            None => Ok(()),
        }
    }
}

async fn list(
    url: &IscsiUrl,
    options: &iscsi_initiator::ConnectOptions,
    target: &mut ListedTarget,
) -> Result<(), Error> {
    let session = Session::connect(url, options).await?;
    target.transport = Some(session.transport());
    for lun in session.report_luns().await? {
        let inquiry = disk::inquiry(&session, lun).await?;
        let peripheral = Peripheral(inquiry.flags.peripheral);
        let size = if peripheral == Peripheral::DISK {
            match disk::capacity(&session, lun).await {
                Ok(size) => Some(size),
                Err(Error::Scsi(_)) => None, // no medium, not ready
                Err(e) => return Err(e),
            }
        } else {
            None
        };
        target.luns.push(ListedLun {
            lun: lun.to_string(),
            kind: kind(peripheral),
            vendor: inquiry.vendor.to_string(),
            product: inquiry.product.to_string(),
            bytes: size.as_ref().map(Capacity::bytes),
            block_size: size.map(|s| s.block_size),
        });
    }
    session.close().await
}

fn print(targets: &[ListedTarget]) -> anyhow::Result<()> {
    for target in targets {
        let note = match (&target.error, &target.transport) {
            (Some(error), _) => format!(" ({error})"),
            (None, Some(transport)) => format!(" [{transport}]"),
            (None, None) => String::new(),
        };
        output::line(format!("{}{note}", target.target))?;
        for lun in &target.luns {
            let size = lun.bytes.map(output::size).unwrap_or_default();
            output::line(format!(
                "  LUN {:<5} {:<16} {:<8} {:<16} {size}",
                lun.lun, lun.kind, lun.vendor, lun.product
            ))?;
        }
    }
    Ok(())
}

/// Peripheral device type in words (SPC-4 table 138).
fn kind(peripheral: Peripheral) -> &'static str {
    match peripheral.device_type() {
        0x00 => "disk",
        0x01 => "tape",
        0x03 => "processor",
        0x05 => "cd/dvd",
        0x08 => "changer",
        0x0c => "array controller",
        0x0d => "enclosure",
        0x11 => "object storage",
        0x14 => "zoned disk",
        0x1e => "well-known LUN",
        _ => "other",
    }
}

/// Show a LUN's INQUIRY data or a VPD page
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iscsi inquiry iscsi://host/iqn.2026-01.org.example:disk0/0
  iscsi inquiry iscsi://host/iqn.2026-01.org.example:disk0/0 --vpd 83")]
pub(crate) struct Inquiry {
    /// The LUN
    url: IscsiUrl,
    /// VPD page, in hexadecimal
    #[arg(long, value_name = "PAGE", value_parser = parse_page)]
    vpd: Option<u8>,
}

fn parse_page(text: &str) -> Result<u8, String> {
    u8::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("'{text}' is no page code: expected two hexadecimal digits"))
}

#[derive(Serialize)]
struct Standard {
    kind: &'static str,
    vendor: String,
    product: String,
    revision: String,
    version: u8,
    removable: bool,
    protection: bool,
    queueing: bool,
}

impl Inquiry {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let (session, lun) = attach(&self.url, global).await?;
        match self.vpd {
            None => {
                let data = disk::inquiry(&session, lun).await?;
                print_standard(global, &data)?;
            }
            Some(page) => {
                let page = disk::vpd(&session, lun, VpdCode(page)).await?;
                if global.json {
                    output::json(&serde_json::json!({
                        "page": format!("{:02x}", page.page.code().0),
                        "lines": vpd_lines(&page.page),
                    }))?;
                } else {
                    vpd_lines(&page.page).iter().try_for_each(output::line)?;
                }
            }
        }
        session.close().await?;
        Ok(())
    }
}

fn print_standard(global: &Global, data: &StandardInquiry) -> anyhow::Result<()> {
    let shown = Standard {
        kind: kind(Peripheral(data.flags.peripheral)),
        vendor: data.vendor.to_string(),
        product: data.product.to_string(),
        revision: data.revision.to_string(),
        version: data.flags.version,
        removable: data.flags.removable,
        protection: data.flags.protect,
        queueing: data.flags.cmd_que,
    };
    if global.json {
        return output::json(&shown);
    }
    output::line(format!("device type          {}", shown.kind))?;
    output::line(format!("vendor               {}", shown.vendor))?;
    output::line(format!("product              {}", shown.product))?;
    output::line(format!("revision             {}", shown.revision))?;
    output::line(format!("version              {}", shown.version))?;
    output::line(format!("removable            {}", shown.removable))?;
    output::line(format!("protection           {}", shown.protection))?;
    output::line(format!("command queueing     {}", shown.queueing))?;
    Ok(())
}

fn vpd_lines(page: &VpdPage) -> Vec<String> {
    match page {
        VpdPage::SupportedPages(codes) => codes.iter().map(|c| format!("{:02x} {c:?}", c.0)).collect(),
        VpdPage::UnitSerialNumber(text) => vec![String::from_utf8_lossy(text).trim().to_owned()],
        VpdPage::DeviceIdentification(all) => all.iter().map(designator).collect(),
        VpdPage::Unknown(code, bytes) => {
            let mut lines = vec![format!("page {:02x}", code.0)];
            lines.extend(
                bytes
                    .chunks(16)
                    .map(|row| row.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")),
            );
            lines
        }
        // The structured pages read well as they are: one field a line.
        other => format!("{other:#?}").lines().map(str::to_owned).collect(),
    }
}

fn designator(d: &Designator) -> String {
    format!("{d:?}")
}

/// Show a LUN's size
#[derive(Args)]
#[command(after_long_help = "\
Example:
  iscsi capacity iscsi://host/iqn.2026-01.org.example:disk0/0 --json")]
pub(crate) struct Capacities {
    /// The LUN
    url: IscsiUrl,
}

#[derive(Serialize)]
struct Size {
    blocks: u64,
    block_size: u32,
    physical_block_size: u32,
    bytes: u64,
    thin: bool,
}

impl Capacities {
    pub(crate) async fn run(self, global: &Global) -> anyhow::Result<()> {
        let (session, lun) = attach(&self.url, global).await?;
        let c = disk::capacity(&session, lun).await?;
        session.close().await?;
        let size = Size {
            blocks: c.blocks,
            block_size: c.block_size,
            physical_block_size: c.physical_block_size,
            bytes: c.bytes(),
            thin: c.thin,
        };
        if global.json {
            return output::json(&size);
        }
        let thin = if size.thin { ", thin" } else { "" };
        output::line(format!(
            "{} blocks of {} bytes ({} physical), {}{thin}",
            size.blocks,
            size.block_size,
            size.physical_block_size,
            output::size(size.bytes)
        ))?;
        Ok(())
    }
}

async fn attach(url: &IscsiUrl, global: &Global) -> anyhow::Result<(Session, Lun)> {
    let (_, number) = url.target_and_lun()?;
    let lun = Lun::single_level(number).ok_or(Error::NoSuchLun(number))?;
    Ok((Session::connect(url, &global.connect_options(url)?).await?, lun))
}
