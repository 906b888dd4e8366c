//! A logical unit: what all its I_T nexuses share.

use crate::block::{BlockDevice, BlockError, Blocking, Geometry, UnmapLimits};
use crate::counters::{COUNTERS, Counters, Past};
use crate::mailbox::Mailbox;
use crate::modes::Modes;
use crate::ports::NexusId;
use crate::ranges::RangeLocks;
use crate::reservation::{Access, Reservations, Store};
use crate::sbc::{SelfTest, copy};
use crate::unit_attention::UnitAttentions;
use scsi_cmd::copy::CopyStatus;
use scsi_cmd::log::SelfTestResult;
use scsi_cmd::vpd::naa_locally_assigned;
use scsi_cmd::{Asc, Sense, SenseKey};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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
    /// Bytes a second that SANITIZE and FORMAT UNIT take at most, so that they leave something to others; `None` for
    /// as fast as it goes.
    pub erase_rate: Option<u64>,
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
            // libiscsi gives up on reads that are longer.
            max_transfer: 16 << 20,
            erase_rate: None,
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
    /// How often tasks of several nexuses were ended.
    epoch: AtomicU64,
    /// Before `views`.
    past: Mutex<Past>,
    pub(crate) ranges: Arc<RangeLocks>,
    reservations: Mutex<Reservations>,
    /// Something is reserved: commands have to ask.
    reserved: AtomicBool,
    /// Where reservations survive a power loss.
    store: Option<Store>,
    /// The handle from which those of the nexuses are made.
    template: Mutex<Box<dyn BlockDevice>>,
}

/// What one nexus sees of a logical unit.
pub(crate) struct View {
    pub(crate) nexus: NexusId,
    pub(crate) attentions: UnitAttentions,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Counters,
    copies: Mutex<copy::Results>,
}

impl View {
    /// Results of the nexus's copies.
    pub(crate) fn copies(&self) -> MutexGuard<'_, copy::Results> {
        lock(&self.copies)
    }

    /// Remembers (or with an unused identifier, does not remember) the result of a copy.
    pub(crate) fn keep(&self, keeps: bool, id: u8, status: CopyStatus) {
        if keeps {
            self.copies().insert(id, status);
        }
    }
}

/// What commands can change.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) modes: Modes,
    /// The medium was ejected.
    pub(crate) ejected: bool,
    /// Stopped by START STOP UNIT, until one starts it, or a reset.
    pub(crate) stopped: bool,
    /// All blocks are being erased.
    pub(crate) busy: Option<Busy>,
    /// How far that is, of 65536.
    pub(crate) progress: u16,
    /// A SANITIZE failed; `true` if it allows to leave that state (AUSE).
    pub(crate) sanitize_failed: Option<bool>,
    /// A self-test runs.
    pub(crate) self_test: Option<SelfTest>,
    /// Results of self-tests, the latest first.
    pub(crate) self_tests: Vec<SelfTestResult>,
    /// How often it was started, and a medium loaded.
    pub(crate) cycles: (u32, u32),
    /// Nexuses that prevent the removal of the medium.
    pub(crate) prevented: BTreeSet<NexusId>,
    /// Nexuses that were here before, so that their return is a nexus loss and not a power on.
    seen: BTreeSet<NexusId>,
}

/// Why a unit does nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Busy {
    /// SANITIZE.
    Sanitize,
    /// FORMAT UNIT.
    Format,
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
    /// Only commands that cannot meet the erasing are allowed.
    pub(crate) const ERASING: u32 = 16;
    /// Sense data in descriptor format.
    pub(crate) const D_SENSE: u32 = 8;
    /// Blocks have protection information.
    pub(crate) const PROTECTED: u32 = 32;

    pub(crate) fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
}

/// The longest transfer of a unit with protection information, in bytes.
const MAX_PROTECTED: u32 = 1 << 20;

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
        Self::with(config, device, Reservations::default(), None)
    }

    /// The same, with a file at `path` in which persistent reservations survive a power loss (APTPL); those that it
    /// holds are in force.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one that this function made.
    pub fn with_reservations(
        config: UnitConfig,
        device: Box<dyn BlockDevice>,
        path: impl Into<PathBuf>,
    ) -> io::Result<Arc<Self>> {
        let store = Store::new(path.into());
        let reservations = store.load()?;
        Ok(Self::with(config, device, reservations, Some(store)))
    }

    fn with(
        mut config: UnitConfig,
        device: Box<dyn BlockDevice>,
        reservations: Reservations,
        store: Option<Store>,
    ) -> Arc<Self> {
        let geometry = device.geometry();
        if geometry.protectable {
            // Data and protection information of a command are put together in memory.
            config.max_transfer = config.max_transfer.min(MAX_PROTECTED);
        }
        let modes = Modes::new(config.write_cache && geometry.volatile_cache, geometry.protectable);
        let state = State {
            modes,
            ejected: false,
            stopped: false,
            busy: None,
            progress: 0,
            sanitize_failed: None,
            self_test: None,
            self_tests: Vec::new(),
            cycles: (0, 0),
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
            epoch: AtomicU64::new(0),
            past: Mutex::default(),
            ranges: Arc::default(),
            reserved: AtomicBool::new(reservations.any()),
            reservations: Mutex::new(reservations),
            store,
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

    /// Looks at the device again; when its size or its protection type has changed, every nexus is told CAPACITY DATA HAS CHANGED. Returns
    /// whether it has.
    pub fn rescan(&self) -> bool {
        let new = lock(&self.template).geometry();
        let old = std::mem::replace(&mut *lock(&self.geometry), new);
        self.blocks.store(new.blocks, Ordering::Release);
        self.change(|_| {});
        let changed = (old.blocks, old.protection) != (new.blocks, new.protection);
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

    /// How blocks are given back, if the unit is thin. One that refuses writes is so too: it says which blocks are
    /// mapped, and refuses UNMAP as a write.
    pub(crate) fn thin(&self) -> Option<UnmapLimits> {
        self.geometry().unmap.filter(|_| self.config.thin)
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
        let geometry = self.geometry();
        let read_only = self.config.read_only || geometry.read_only;
        let mut state = self.state();
        let result = change(&mut state);
        let flag = |on: bool, flag: u32| if on { flag } else { 0 };
        let erasing = state.busy.is_some() || state.sanitize_failed.is_some();
        let flags = flag(state.ejected || state.stopped, Flags::NOT_READY)
            | flag(erasing, Flags::ERASING)
            | flag(read_only || state.modes.control.swp, Flags::WRITE_PROTECT)
            | flag(!state.modes.caching.wce, Flags::WRITE_THROUGH)
            | flag(state.modes.control.d_sense, Flags::D_SENSE)
            | flag(geometry.protection.is_some(), Flags::PROTECTED);
        self.flags.store(flags, Ordering::Release);
        result
    }

    /// Why the medium cannot be used now, if so.
    pub(crate) fn not_ready(&self) -> Option<Sense> {
        let state = self.state();
        if let Some(busy) = state.busy {
            let asc = match busy {
                Busy::Sanitize => Asc::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS,
                Busy::Format => Asc::LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS,
            };
            return Some(Sense::new(SenseKey::NotReady, asc).with_progress(state.progress));
        }
        if state.sanitize_failed.is_some() {
            return Some(Sense::new(SenseKey::MediumError, Asc::SANITIZE_COMMAND_FAILED));
        }
        let asc = match (state.ejected, state.stopped) {
            (true, _) => Asc::MEDIUM_NOT_PRESENT,
            (_, true) => Asc::LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED,
            _ => return None,
        };
        Some(Sense::new(SenseKey::NotReady, asc))
    }

    /// The reservations, for looking at.
    pub(crate) fn reservations(&self) -> MutexGuard<'_, Reservations> {
        lock(&self.reservations)
    }

    /// Changes reservations.
    pub(crate) fn reserve<T>(&self, change: impl FnOnce(&mut Reservations) -> T) -> T {
        let mut reservations = self.reservations();
        let result = change(&mut reservations);
        self.reserved.store(reservations.any(), Ordering::Release);
        result
    }

    /// Whether a command of `nexus` is refused.
    pub(crate) fn conflicts(&self, nexus: &NexusId, access: Access) -> bool {
        self.reserved.load(Ordering::Acquire) && self.reservations().conflicts(nexus, access)
    }

    pub(crate) fn can_persist(&self) -> bool {
        self.store.is_some()
    }

    pub(crate) fn store(&self) -> Option<Store> {
        self.store.clone()
    }

    /// Gives up what RESERVE(6) of this nexus, or of any, has reserved.
    fn release_legacy(&self, nexus: Option<&NexusId>) {
        self.reserve(|r| {
            if nexus.is_none() || r.legacy.as_ref() == nexus {
                r.legacy = None;
            }
        });
    }

    /// A nexus begins to use the unit: it is told of the power on, or of its own loss.
    pub(crate) fn join(&self, nexus: NexusId, mailbox: Arc<Mailbox>) -> Arc<View> {
        let view = Arc::new(View {
            nexus: nexus.clone(),
            attentions: UnitAttentions::default(),
            mailbox,
            counters: Counters::default(),
            copies: Mutex::default(),
        });
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
        let mut past = lock(&self.past);
        let mut views = lock(&self.views);
        if views.iter().any(|v| Arc::ptr_eq(v, view)) {
            past.keep(&view.counters);
            views.retain(|v| !Arc::ptr_eq(v, view));
        }
        drop((past, views));
        self.nexus_reset(&view.nexus);
    }

    /// What all nexuses have counted since the counters of this log page were set to zero.
    pub(crate) fn counters(&self, page: u8) -> [u64; COUNTERS] {
        let past = lock(&self.past);
        past.since_reset(page, lock(&self.views).iter().map(|view| &view.counters))
    }

    /// Sets the counters of a log page to zero.
    pub(crate) fn reset_counters(&self, page: u8) {
        let mut past = lock(&self.past);
        past.reset(page, lock(&self.views).iter().map(|view| &view.counters));
    }

    /// I_T NEXUS RESET (SAM-5 clause 7.6): what the nexus holds is released.
    pub(crate) fn nexus_reset(&self, nexus: &NexusId) {
        self.state().prevented.remove(nexus);
        self.release_legacy(Some(nexus));
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

    /// The epoch in which a task arrives.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Begins a new epoch, because the tasks of those before it are to end. To be called before the unit attention
    /// that tells of it: commands behind the one that reports it are of the new epoch.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::AcqRel).wrapping_add(1)
    }

    /// What a logical unit reset does but for the tasks (SAM-5 clause 6.3.3).
    pub(crate) fn reset(&self) {
        let geometry = self.geometry();
        let write_cache = self.config.write_cache && geometry.volatile_cache;
        self.change(|state| {
            state.modes = Modes::new(write_cache, geometry.protectable);
            state.prevented.clear();
            state.stopped = false;
        });
        self.release_legacy(None);
        self.attention(Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED, None);
    }
}

impl fmt::Debug for LogicalUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogicalUnit({}, {} blocks of {} B)", self.config.serial, self.blocks(), self.block_size)
    }
}

/// Sense data of a failed operation on the device (SBC-3 table 10, SPC-4 annex E); of earlier ones, a deferred error (SPC-4 clause 4.5.5).
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
        // Nobody knows which blocks.
        BlockError::WritesLost => {
            Sense { deferred: true, ..Sense::new(SenseKey::MediumError, Asc::WRITE_ERROR) }
        }
        BlockError::Unsupported => Sense::illegal(Asc::INVALID_COMMAND_OPERATION_CODE),
        // Where part of the command may have been done, which BUSY denies: as good as a new beginning.
        BlockError::Busy(_) => {
            Sense::new(SenseKey::NotReady, Asc::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY)
        }
        BlockError::Device => Sense::new(SenseKey::HardwareError, Asc::INTERNAL_TARGET_FAILURE),
    }
}

/// FNV-1a: a name from a serial number that is the same after every restart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_writes_are_a_deferred_error() {
        let sense = block_error(BlockError::WritesLost, true, 7);
        // Response code 71h, MEDIUM ERROR, WRITE ERROR; no block is named (SPC-4 clause 4.5.5).
        let fixed = sense.encode_fixed();
        assert_eq!((fixed[0], fixed[2] & 0xf, &fixed[12..14]), (0x71, 0x3, &[0x0c, 0x00][..]));
        let current = block_error(BlockError::Medium(None), true, 7).encode_fixed();
        assert_eq!((current[0], current[2] & 0xf), (0xf0, 0x3), "with VALID");
    }
}
