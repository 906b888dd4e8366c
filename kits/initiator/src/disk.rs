//! A LUN as a block device: [`Disk`].

use crate::command::{DataDirection, Reply, ScsiCommand};
use crate::{ConnectOptions, Error, IscsiUrl, Session};
use datamover::{SgList, SgListMut};
use iscsi_pdu::{Lun, ScsiStatus};
use scsi_cmd::capacity::{Capacity10, Capacity16};
use scsi_cmd::cdb::{self, BlockIo, Command, IoKind};
use scsi_cmd::inquiry::StandardInquiry;
use scsi_cmd::provisioning::{UnmapDescriptor, UnmapList};
use scsi_cmd::sense::SenseKey;
use scsi_cmd::vpd::{BlockLimits, Vpd, VpdCode, VpdPage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Size and granularity of a LUN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    /// Logical blocks.
    pub blocks: u64,
    /// Bytes a logical block.
    pub block_size: u32,
    /// Bytes a physical block.
    pub physical_block_size: u32,
    /// Thin provisioned: UNMAP gives space back.
    pub thin: bool,
    /// Unmapped blocks read as zeros.
    pub unmapped_read_zeros: bool,
}

impl Capacity {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size.into())
    }
}

/// How often a command is sent again after a status that only asks for patience.
const RETRIES: u32 = 8;

/// The longest pause that a target may ask for and be met with patience: then the application decides.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A direct-access logical unit.
///
/// Any number of operations may run at a time, as far as the target's command window goes; the rest wait. An
/// operation whose future is dropped is cancelled at the target with ABORT TASK.
#[derive(Clone, Debug)]
pub struct Disk {
    session: Session,
    lun: Lun,
    priority: u8,
    capacity: Capacity,
    limits: BlockLimits,
    cache: Arc<Cache>,
}

/// What is known of the unit's volatile cache.
#[derive(Debug, Default)]
struct Cache {
    /// Writes have ended that no flush has covered.
    unflushed: AtomicBool,
    /// The unit restarted with such writes in its cache.
    lost: AtomicBool,
}

impl Disk {
    /// Logs in to the target that a URL names and gets the LUN ready.
    ///
    /// # Errors
    /// The URL's, those of the login, and those of a LUN that is not there or no disk.
    pub async fn attach(url: &IscsiUrl, options: &ConnectOptions) -> Result<Self, Error> {
        let (_, lun) = url.target_and_lun()?;
        let lun = Lun::single_level(lun).ok_or(Error::NoSuchLun(lun))?;
        let session = Session::connect(url, options).await?;
        Self::open(session, lun).await
    }

    /// Gets a LUN of a session ready.
    ///
    /// # Errors
    /// Those of a LUN that is not there or no disk.
    pub async fn open(session: Session, lun: Lun) -> Result<Self, Error> {
        let inquiry = inquiry(&session, lun).await?;
        match scsi_cmd::inquiry::Peripheral(inquiry.flags.peripheral) {
            p if p.qualifier() != 0 => {
                return Err(Error::NoSuchLun(lun.to_single_level().unwrap_or(u16::MAX)));
            }
            p if p.device_type() != 0 => return Err(Error::NoDisk(p.device_type())),
            _ => (),
        }
        ready(&session, lun).await?;
        let capacity = capacity(&session, lun).await?;
        let limits = match vpd(&session, lun, VpdCode::BlockLimits).await {
            Ok(Vpd { page: VpdPage::BlockLimits(limits), .. }) => limits,
            // Older targets have no such page: no limits are known then.
            Ok(_) | Err(Error::Scsi(_)) => BlockLimits::default(),
            Err(e) => return Err(e),
        };
        Ok(Self { session, lun, priority: 0, capacity, limits, cache: Arc::default() })
    }

    /// The same disk, whose commands have a [priority](ScsiCommand::priority). Other handles on it keep theirs.
    #[must_use]
    pub fn with_priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// Size and granularity when the disk was opened.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The session that the disk uses.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What carries the session, for reports.
    #[must_use]
    pub fn transport(&self) -> String {
        self.session.transport()
    }

    /// Memory that the transport moves without copying: data for [`write`](Self::write) is best put there.
    #[must_use]
    pub fn alloc(&self, len: usize) -> SgListMut {
        self.session.alloc(len)
    }

    /// Reads `blocks` blocks.
    ///
    /// # Errors
    /// [`Error::Scsi`] with the target's sense data, or those of the session.
    pub async fn read(&self, lba: u64, blocks: u32) -> Result<SgList, Error> {
        let length = self.length(blocks)?;
        let io = BlockIo::new(IoKind::Read, lba, blocks);
        let reply = self.block_io(io, || DataDirection::In(length)).await?;
        reply.whole(length)
    }

    /// Writes whole blocks; they may still be in the target's cache afterwards.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and [`Error::Unaligned`].
    pub async fn write(&self, lba: u64, data: SgList) -> Result<(), Error> {
        self.write_with(lba, data, false).await
    }

    /// Writes whole blocks to stable storage (FUA).
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    pub async fn write_fua(&self, lba: u64, data: SgList) -> Result<(), Error> {
        self.write_with(lba, data, true).await
    }

    async fn write_with(&self, lba: u64, data: SgList, fua: bool) -> Result<(), Error> {
        let block = self.capacity.block_size as usize;
        if !data.len().is_multiple_of(block) {
            return Err(Error::Unaligned { len: data.len(), block: self.capacity.block_size });
        }
        let blocks = u32::try_from(data.len() / block).map_err(|_| Error::TooLong)?;
        self.length(blocks)?;
        let io = BlockIo::new(IoKind::Write, lba, blocks).fua(fua);
        // A clone shares the memory: a retry needs the data again.
        self.block_io(io, || DataDirection::Out(data.clone())).await?;
        if !fua {
            self.cache.unflushed.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Brings everything written before to stable storage (SYNCHRONIZE CACHE).
    ///
    /// # Errors
    /// As for [`read`](Self::read), and [`Error::WritesLost`], once, when the unit has restarted since a write that no
    /// flush covered: that write may be lost.
    pub async fn flush(&self) -> Result<(), Error> {
        // Writes that end while the flush is under way are for the next one.
        let covers = self.cache.unflushed.swap(false, Ordering::AcqRel);
        let result = self.synchronize_cache().await;
        if result.is_err() && covers {
            self.cache.unflushed.store(true, Ordering::Release);
        }
        result?;
        if self.cache.lost.swap(false, Ordering::AcqRel) { Err(Error::WritesLost) } else { Ok(()) }
    }

    async fn synchronize_cache(&self) -> Result<(), Error> {
        let io = BlockIo::new(IoKind::SynchronizeCache, 0, 0);
        match self.block_io(io, || DataDirection::None).await {
            Ok(_) => Ok(()),
            // A unit without a cache may not know the command.
            Err(Error::Scsi(e)) if e.is_unsupported() => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Gives blocks back (UNMAP): ranges of first block and number of blocks. Split as the unit's limits want.
    ///
    /// # Errors
    /// As for [`read`](Self::read); a unit without UNMAP says INVALID COMMAND OPERATION CODE.
    pub async fn unmap(&self, ranges: &[(u64, u32)]) -> Result<(), Error> {
        let most_blocks = match self.limits.max_unmap_blocks {
            0 => u32::MAX,
            n => n,
        };
        let most_ranges = match self.limits.max_unmap_descriptors {
            0 => 1,
            n => n.min(256) as usize,
        };
        for group in cut(ranges, most_blocks, most_ranges) {
            let descriptors = group.iter().map(|&(lba, blocks)| UnmapDescriptor { lba, blocks }).collect();
            let list = bytes::Bytes::from(UnmapList(descriptors).encode());
            let command = cdb::Unmap {
                parameter_list_length: u16::try_from(list.len()).map_err(|_| Error::TooLong)?,
                ..cdb::Unmap::default()
            };
            self.patiently(&command.into(), || DataDirection::Out(list.clone().into())).await?;
        }
        Ok(())
    }

    /// Logs out when this is the last user of the session.
    ///
    /// # Errors
    /// Those of the logout; the connection is closed all the same.
    pub async fn close(self) -> Result<(), Error> {
        self.session.close().await
    }

    fn length(&self, blocks: u32) -> Result<u32, Error> {
        blocks.checked_mul(self.capacity.block_size).ok_or(Error::TooLong)
    }

    async fn block_io(&self, io: BlockIo, data: impl Fn() -> DataDirection) -> Result<Reply, Error> {
        let command = io.command().ok_or(Error::TooLong)?;
        self.patiently(&command, data).await
    }

    async fn patiently(&self, command: &Command, data: impl Fn() -> DataDirection) -> Result<Reply, Error> {
        // A flush has taken note of the writes that it covers already.
        let is_flush = command.block_io().is_some_and(|io| io.kind == IoKind::SynchronizeCache);
        let restarted = || {
            if self.cache.unflushed.load(Ordering::Acquire) || is_flush {
                self.cache.lost.store(true, Ordering::Release);
            }
        };
        let make = || ScsiCommand::new(self.lun, command.clone(), data()).with_priority(self.priority);
        patiently(&self.session, make, restarted).await
    }
}

/// Sends a command again while the target only asks for patience: unit attentions, BUSY, TASK SET FULL.
async fn patiently(
    session: &Session,
    command: impl Fn() -> ScsiCommand,
    restarted: impl Fn(),
) -> Result<Reply, Error> {
    let mut tries = 0;
    loop {
        let result = session.execute(command()).await;
        let Err(Error::Scsi(error)) = &result else { return result };
        let pause = match (error.status, error.sense.as_ref().map(|s| s.key)) {
            (ScsiStatus::CheckCondition, Some(SenseKey::UnitAttention)) => {
                if error.is_restart() {
                    restarted();
                }
                Duration::ZERO
            }
            // A target that says how long is not asked before; one that says too long is not waited for.
            (ScsiStatus::Busy | ScsiStatus::TaskSetFull, _) => match error.retry_after() {
                Some(after) if after > LONGEST_PAUSE => return result,
                Some(after) => after,
                None => Duration::from_millis(10 << tries.min(6)),
            },
            _ => return result,
        };
        tries += 1;
        if tries > RETRIES {
            return result;
        }
        tracing::debug!(%error, tries, "command sent again");
        tokio::time::sleep(pause).await;
    }
}

/// The same for a command without output that concerns no cache.
async fn ask(session: &Session, lun: Lun, command: Command, data: DataDirection) -> Result<Reply, Error> {
    patiently(session, || ScsiCommand::new(lun, command.clone(), data.clone()), || ()).await
}

/// Waits through the unit attentions of a new nexus and for a unit that is becoming ready.
async fn ready(session: &Session, lun: Lun) -> Result<(), Error> {
    let command = cdb::TestUnitReady::default().into();
    match ask(session, lun, command, DataDirection::None).await {
        Ok(_) => Ok(()),
        // Not ready is the unit's affair: whoever reads or writes will hear of it.
        Err(Error::Scsi(e)) if e.sense.as_ref().is_some_and(|s| s.key == SenseKey::NotReady) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Standard INQUIRY data of a LUN.
///
/// # Errors
/// Those of the session, and malformed data.
pub async fn inquiry(session: &Session, lun: Lun) -> Result<StandardInquiry, Error> {
    let command = cdb::Inquiry { allocation_length: 255, ..cdb::Inquiry::default() }.into();
    let reply = ask(session, lun, command, DataDirection::In(255)).await?;
    StandardInquiry::decode(&reply.data.to_bytes()).map_err(Error::Malformed)
}

/// A VPD page of a LUN.
///
/// # Errors
/// Those of the session, and malformed data.
pub async fn vpd(session: &Session, lun: Lun, page: VpdCode) -> Result<Vpd, Error> {
    let length = 1024;
    let command = cdb::Inquiry { evpd: true, page_code: page.0, allocation_length: length }.into();
    let reply = ask(session, lun, command, DataDirection::In(length.into())).await?;
    Vpd::decode(&reply.data.to_bytes()).map_err(Error::Malformed)
}

/// Size of a LUN: READ CAPACITY(16), or (10) where that is not known.
///
/// # Errors
/// Those of the session, and malformed data.
pub async fn capacity(session: &Session, lun: Lun) -> Result<Capacity, Error> {
    let command = cdb::ReadCapacity16 { allocation_length: 32, ..cdb::ReadCapacity16::default() }.into();
    match ask(session, lun, command, DataDirection::In(32)).await {
        Ok(reply) => {
            let c = Capacity16::from_peer(&reply.data.to_bytes()).map_err(Error::Malformed)?;
            checked(Capacity {
                blocks: c.last_lba.saturating_add(1),
                block_size: c.block_length,
                physical_block_size: c.block_length.checked_shl(c.physical_exponent.into()).unwrap_or(0),
                thin: c.lbpme,
                unmapped_read_zeros: c.lbprz,
            })
        }
        Err(Error::Scsi(e)) if e.is_unsupported() => {
            let command = cdb::ReadCapacity10::default().into();
            let reply = ask(session, lun, command, DataDirection::In(8)).await?;
            let c = Capacity10::from_peer(&reply.data.to_bytes()).map_err(Error::Malformed)?;
            checked(Capacity {
                blocks: u64::from(c.last_lba) + 1,
                block_size: c.block_length,
                physical_block_size: c.block_length,
                thin: false,
                unmapped_read_zeros: false,
            })
        }
        Err(e) => Err(e),
    }
}

/// A block size of 0, or one that makes no sense, would divide by zero or overflow further up.
fn checked(capacity: Capacity) -> Result<Capacity, Error> {
    if (256..=1 << 20).contains(&capacity.block_size) {
        Ok(capacity)
    } else {
        Err(Error::BlockSize(capacity.block_size))
    }
}

/// Ranges cut to what one UNMAP may carry: `most_blocks` in all, `most_ranges` descriptors.
fn cut(ranges: &[(u64, u32)], most_blocks: u32, most_ranges: usize) -> Vec<Vec<(u64, u32)>> {
    let mut groups: Vec<Vec<(u64, u32)>> = Vec::new();
    let mut room = 0;
    for &(mut lba, mut blocks) in ranges {
        while blocks > 0 {
            if room == 0 || groups.last().is_none_or(|g| g.len() == most_ranges) {
                groups.push(Vec::new());
                room = most_blocks;
            }
            let now = blocks.min(room);
            if let Some(group) = groups.last_mut() {
                group.push((lba, now));
            }
            lba = lba.saturating_add(now.into());
            blocks -= now;
            room -= now;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmap_ranges_are_cut_to_the_limits() {
        assert_eq!(cut(&[(0, 10), (100, 5)], u32::MAX, 256), [vec![(0, 10), (100, 5)]]);
        assert_eq!(cut(&[(0, 10)], 4, 256), [vec![(0, 4)], vec![(4, 4)], vec![(8, 2)]]);
        assert_eq!(cut(&[(0, 3), (10, 3)], 4, 256), [vec![(0, 3), (10, 1)], vec![(11, 2)]]);
        assert_eq!(cut(&[(0, 1), (5, 1), (9, 1)], 100, 2), [vec![(0, 1), (5, 1)], vec![(9, 1)]]);
        assert!(cut(&[(7, 0)], 4, 1).is_empty());
    }
}
