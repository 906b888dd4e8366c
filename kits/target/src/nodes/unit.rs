//! A logical unit as its configuration describes it.

use crate::block::{
    BlockDevice, FileDisk, FileOptions, NbdDisk, NbdOptions, NullDisk, ProtectedDisk, RamDisk,
};
use crate::config::{Backing, LunConfig};
use crate::{LogicalUnit, UnitConfig};
use iscsi_login::IscsiName;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A logical unit of a node, and what it was made from.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) config: LunConfig,
    pub(super) unit: Arc<LogicalUnit>,
    /// Memory, which can be resized.
    memory: Option<Arc<RamDisk>>,
}

impl Served {
    /// Opens its backend.
    pub(super) fn open(target: &IscsiName, number: u32, config: &LunConfig) -> io::Result<Self> {
        let mut memory = None;
        let unit = unit(target, number, config, &mut memory)?;
        Ok(Self { config: config.clone(), unit, memory })
    }

    /// Whether it can become what another configuration says, with a new size at most.
    pub(super) fn can_become(&self, config: &LunConfig) -> bool {
        shape(&self.config) == shape(config)
    }

    /// Takes over the size of a configuration that it [can become](Self::can_become), looks at the size of its backend,
    /// and tells initiators of another one than before. Returns whether there was one.
    pub(super) fn resize(&mut self, config: LunConfig) -> bool {
        if let (Some(memory), Backing::Ram { size }) = (&self.memory, &config.backing) {
            memory.resize(size / u64::from(config.block_size));
        }
        self.config = config;
        self.unit.rescan()
    }
}

/// A configuration without what may change while the unit is served: the size of memory, and of a file that is new.
fn shape(config: &LunConfig) -> LunConfig {
    let mut shape = LunConfig { lun: None, ..config.clone() };
    match &mut shape.backing {
        Backing::Ram { size } => *size = 0,
        Backing::Path { create, .. } => *create = None,
        _ => {}
    }
    shape
}

fn unit(
    target: &IscsiName,
    number: u32,
    config: &LunConfig,
    memory: &mut Option<Arc<RamDisk>>,
) -> io::Result<Arc<LogicalUnit>> {
    let blocks = |size: u64| size / u64::from(config.block_size);
    let device: Box<dyn BlockDevice> = match &config.backing {
        Backing::Ram { size } => {
            let disk = RamDisk::new(config.block_size, blocks(*size));
            let disk = disk.with_physical_block(config.physical_block_size.unwrap_or(config.block_size));
            let disk = match config.protection {
                None => disk,
                kind => disk.with_protection(kind),
            };
            let disk = memory.insert(Arc::new(disk));
            disk.handle()?
        }
        Backing::Null { size } => Box::new(NullDisk::new(config.block_size, blocks(*size))),
        Backing::Path { path, create } => {
            let defaults = FileOptions::default();
            let options = FileOptions {
                block_size: Some(config.block_size),
                physical_block_size: config.physical_block_size,
                read_only: config.read_only,
                create: *create,
                direct: config.direct,
                engine: config.io,
                registered: config
                    .registered
                    .map_or(defaults.registered, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
                ..defaults
            };
            let disk = FileDisk::open(path, &options)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
            Box::new(disk)
        }
        Backing::Nbd(address) => {
            let options = NbdOptions {
                block_size: Some(config.block_size),
                physical_block_size: config.physical_block_size,
                read_only: config.read_only,
                ..NbdOptions::default()
            };
            let disk = NbdDisk::open(address.clone(), &options)
                .map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))?;
            Box::new(disk)
        }
    };
    let device = with_tags(device, config)?;
    // The same unit has the same name after a restart and behind another portal; another unit has another.
    let name = format!("{target}/{number}");
    let made = || uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string();
    let unit = UnitConfig {
        read_only: config.read_only,
        thin: config.thin,
        removable: config.removable,
        write_cache: !config.write_through,
        erase_rate: config.erase_rate,
        ..UnitConfig::new(config.serial.clone().unwrap_or_else(made))
    };
    match &config.reservations {
        None => Ok(LogicalUnit::new(unit, device)),
        Some(path) => LogicalUnit::with_reservations(unit, device, path)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// Where a unit keeps its protection information, if it has any and it is not in memory.
pub(super) fn tag_file(config: &LunConfig) -> Option<PathBuf> {
    config.protection?;
    match (&config.backing, &config.tags) {
        (Backing::Ram { .. } | Backing::Null { .. }, _) => None,
        (_, Some(path)) => Some(path.clone()),
        (Backing::Path { path, .. }, None) => {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".pi");
            Some(beside.into())
        }
        (Backing::Nbd(_), None) => None,
    }
}

/// The device with its tag file, if it has one.
fn with_tags(device: Box<dyn BlockDevice>, config: &LunConfig) -> io::Result<Box<dyn BlockDevice>> {
    let Some(tags) = tag_file(config) else { return Ok(device) };
    if let (Backing::Path { path, .. }, None) = (&config.backing, &config.tags)
        && !std::fs::metadata(path)?.is_file()
    {
        let what = "protection information of a block device needs tags=PATH";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let disk = ProtectedDisk::open(device, &tags, config.protection)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", tags.display())))?;
    Ok(Box::new(disk))
}
