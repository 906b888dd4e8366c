//! A logical unit: what all its I_T nexuses share.

use crate::block::{BlockDevice, BlockError, Blocking, Geometry, UnmapLimits};
use crate::mailbox::Mailbox;
use crate::modes::Modes;
use crate::ports::NexusId;
use crate::ranges::RangeLocks;
use crate::unit_attention::UnitAttentions;
use scsi_cmd::vpd::naa_locally_assigned;
use scsi_cmd::{Asc, Sense, SenseKey};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a logical unit says about itself, and how it behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnitConfig {
    /// T10 VENDOR IDENTIFICATION, 8 characters of ASCII.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, 16 characters of ASCII.
    pub product: String,
    /// PRODUCT REVISION LEVEL, 4 characters of ASCII.
    pub revision: String,
    /// Serial number, unique among all units of an initiator: the NAA name is made from it.
    pub serial: String,
    /// Refuses writes, whatever the device can.
    pub read_only: bool,
    /// Says that the medium is removable, and can be ejected.
    pub removable: bool,
    /// Thin: reports unmapped blocks and accepts UNMAP; only if the device can.
    pub thin: bool,
    /// WCE after power on: writes end in the volatile cache, if the device has one.
    pub write_cache: bool,
    /// Tasks of one nexus beyond which it is told TASK SET FULL.
    pub queue_depth: usize,
    /// Longest transfer of one command, in bytes.
    pub max_transfer: u32,
}

impl UnitConfig {
    /// A writable thin disk with this serial number.
    #[must_use]
    pub fn new(serial: impl Into<String>) -> Self {
        Self {
            vendor: "iSCSI-RS".into(),
            product: "Disk".into(),
            revision: concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR")).into(),
            serial: serial.into(),
            read_only: false,
            removable: false,
            thin: true,
            write_cache: true,
            queue_depth: 512,
            max_transfer: 32 << 20,
        }
    }
}

/// A logical unit over a block device.
pub struct LogicalUnit {
    pub(crate) config: UnitConfig,
    /// NAA name.
    pub(crate) naa: u64,
    /// Constant while the unit exists.
    pub(crate) block_size: u32,
    geometry: Mutex<Geometry>,
    blocks: AtomicU64,
    flags: AtomicU32,
    state: Mutex<State>,
    views: Mutex<Vec<Arc<View>>>,
    pub(crate) ranges: Arc<RangeLocks>,
    /// The handle from which those of the nexuses are made.
    template: Mutex<Box<dyn BlockDevice>>,
}

/// What one nexus sees of a logical unit.
pub(crate) struct View {
    pub(crate) nexus: NexusId,
    pub(crate) attentions: UnitAttentions,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// What commands can change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) modes: Modes,
    /// START STOP UNIT stopped it.
    pub(crate) stopped: bool,
    /// The medium was ejected.
    pub(crate) ejected: bool,
    /// Nexuses that prevent the removal of the medium.
    pub(crate) prevented: BTreeSet<NexusId>,
    /// Nexuses that were here before, so that their return is a nexus loss and not a power on.
    seen: BTreeSet<NexusId>,
}

/// What the fast path has to know of [`State`], in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flags(u32);

impl Flags {
    /// A command that needs the medium has to look at the state.
    pub(crate) const NOT_READY: u32 = 1;
    /// Writes are refused.
    pub(crate) const WRITE_PROTECT: u32 = 2;
    /// Writes go to the medium before they end.
    pub(crate) const WRITE_THROUGH: u32 = 4;
    /// Sense data in descriptor format.
    pub(crate) const D_SENSE: u32 = 8;

    pub(crate) fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// More initiator ports than a unit remembers to have seen.
const SEEN: usize = 4096;

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A command that panics has closed its own connection; the state it left is consistent between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogicalUnit {
    /// A unit over `device`, powered on.
    #[must_use]
    pub fn new(config: UnitConfig, device: Box<dyn BlockDevice>) -> Arc<Self> {
        let geometry = device.geometry();
        let modes = Modes::new(config.write_cache && geometry.volatile_cache);
        let state = State {
            modes,
            stopped: false,
            ejected: false,
            prevented: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        let unit = Self {
            naa: naa_locally_assigned(fnv(config.serial.as_bytes())),
            block_size: geometry.block_size,
            blocks: AtomicU64::new(geometry.blocks),
            geometry: Mutex::new(geometry),
            flags: AtomicU32::new(0),
            state: Mutex::new(state),
            views: Mutex::default(),
            ranges: Arc::default(),
            template: Mutex::new(device),
            config,
        };
        unit.change(|_| {});
        Arc::new(unit)
    }

    /// Number of logical blocks, as last seen.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    /// Shape of the device, as last seen.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        *lock(&self.geometry)
    }

    /// Looks at the device again; when its size has changed, every nexus is told CAPACITY DATA HAS CHANGED. Returns
    /// whether it has.
    pub fn rescan(&self) -> bool {
        let new = lock(&self.template).geometry();
        let old = std::mem::replace(&mut *lock(&self.geometry), new);
        self.blocks.store(new.blocks, Ordering::Release);
        let changed = old.blocks != new.blocks;
        if changed {
            self.attention(Asc::CAPACITY_DATA_HAS_CHANGED, None);
        }
        changed
    }

    /// Brings all data on the medium, the calling thread waiting: before a clean shutdown.
    ///
    /// # Errors
    /// What the device says.
    pub fn flush(&self) -> io::Result<()> {
        if self.config.read_only || self.geometry().read_only {
            return Ok(());
        }
        let mut device = Blocking::new(lock(&self.template).handle()?);
        device.flush().map_err(io::Error::other)
    }

    /// How blocks are given back, if the unit is thin.
    pub(crate) fn thin(&self) -> Option<UnmapLimits> {
        self.geometry().unmap.filter(|_| self.config.thin && !self.config.read_only)
    }

    /// A handle for a nexus.
    pub(crate) fn open(&self) -> io::Result<Box<dyn BlockDevice>> {
        lock(&self.template).handle()
    }

    pub(crate) fn flags(&self) -> Flags {
        Flags(self.flags.load(Ordering::Acquire))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and what follows from it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let read_only = self.config.read_only || self.geometry().read_only;
        let mut state = self.state();
        let result = change(&mut state);
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let flags = flag(state.stopped || state.ejected, Flags::NOT_READY)
            | flag(read_only || state.modes.control.swp, Flags::WRITE_PROTECT)
            | flag(!state.modes.caching.wce, Flags::WRITE_THROUGH)
            | flag(state.modes.control.d_sense, Flags::D_SENSE);
        self.flags.store(flags, Ordering::Release);
        result
    }

    /// Why the medium cannot be used now, if so.
    pub(crate) fn not_ready(&self) -> Option<Sense> {
        let state = self.state();
        let asc = if state.ejected {
            Asc::MEDIUM_NOT_PRESENT
        } else if state.stopped {
            Asc::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED
        } else {
            return None;
        };
        Some(Sense::new(SenseKey::NotReady, asc))
    }

    /// A nexus begins to use the unit: it is told of the power on, or of its own loss.
    pub(crate) fn join(&self, nexus: NexusId, mailbox: Arc<Mailbox>) -> Arc<View> {
        let view = Arc::new(View { nexus: nexus.clone(), attentions: UnitAttentions::default(), mailbox });
        let mut state = self.state();
        let back = !state.seen.insert(nexus);
        if state.seen.len() > SEEN {
            state.seen.clear();
        }
        drop(state);
        view.attentions.establish(if back {
            Asc::I_T_NEXUS_LOSS_OCCURRED
        } else {
            Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
        });
        lock(&self.views).push(view.clone());
        view
    }

    /// I_T nexus loss (SAM-5 clause 6.3.4), or the nexus no longer sees the unit.
    pub(crate) fn leave(&self, view: &Arc<View>) {
        lock(&self.views).retain(|v| !Arc::ptr_eq(v, view));
        self.state().prevented.remove(&view.nexus);
    }

    /// I_T NEXUS RESET (SAM-5 clause 7.6): what the nexus holds is released.
    pub(crate) fn nexus_reset(&self, nexus: &NexusId) {
        self.state().prevented.remove(nexus);
    }

    /// Establishes a unit attention condition for every nexus but one.
    pub(crate) fn attention(&self, asc: Asc, except: Option<&NexusId>) {
        for view in lock(&self.views).iter().filter(|v| Some(&v.nexus) != except) {
            view.attentions.establish(asc);
        }
    }

    /// The nexuses that use the unit.
    pub(crate) fn views(&self) -> Vec<Arc<View>> {
        lock(&self.views).clone()
    }

    /// What a logical unit reset does but for the tasks (SAM-5 clause 6.3.3).
    pub(crate) fn reset(&self) {
        let write_cache = self.config.write_cache && self.geometry().volatile_cache;
        self.change(|state| {
            state.modes = Modes::new(write_cache);
            state.prevented.clear();
        });
        self.attention(Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED, None);
    }
}

impl fmt::Debug for LogicalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogicalUnit({}, {} blocks of {} B)", self.config.serial, self.blocks(), self.block_size)
    }
}

/// Sense data of a failed operation on the device (SBC-3 table 10, SPC-4 annex E).
pub(crate) fn block_error(error: BlockError, write: bool, lba: u64) -> Sense {
    match error {
        BlockError::OutOfRange => Sense::illegal(Asc::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        BlockError::NoSpace => Sense::new(SenseKey::DataProtect, Asc::SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
        BlockError::ReadOnly => Sense::new(SenseKey::DataProtect, Asc::WRITE_PROTECTED),
        BlockError::Medium(at) => {
            let asc = if write { Asc::WRITE_ERROR } else { Asc::UNRECOVERED_READ_ERROR };
            Sense::new(SenseKey::MediumError, asc).information(at.unwrap_or(lba))
        }
        BlockError::Gone => Sense::new(SenseKey::NotReady, Asc::MEDIUM_NOT_PRESENT),
        BlockError::TimedOut => Sense::new(SenseKey::AbortedCommand, Asc::COMMAND_TIMEOUT_DURING_PROCESSING),
        BlockError::Unsupported => Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE),
        BlockError::Device => Sense::new(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE),
    }
}

/// FNV-1a: a name from a serial number that is the same after every restart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
