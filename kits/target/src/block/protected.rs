//! A disk with room for protection information, made of one without and a tag file.

mod tags;

use self::tags::TagFile;
use super::file::{Storage, SystemFile};
use super::protection::mend;
use super::workers::{Completions, Workers};
use super::{
    Action, BlockDevice, BlockDone, BlockError, BlockOp, Blocking, FileOptions, Full, Geometry, Payload,
};
use datamover::{SgList, SgListMut};
use scsi_cmd::protection::ProtectionType;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Threads that do the operations, shared by all handles.
const THREADS: usize = 4;
/// Blocks that are looked at together after an unclean end.
const PIECE: u64 = 1024;

/// A handle on any disk with a tag file beside it. Data and tags of a block are read and written together, and after a
/// crash no block is unreadable because the one reached the medium and the other did not: see
/// [`open`](Self::open).
pub struct ProtectedDisk {
    shared: Arc<Shared>,
    completions: Completions,
}

struct Shared {
    tags: TagFile,
    /// As it was when the disk was opened.
    geometry: Geometry,
    workers: Workers,
    /// The disk without tags, to make handles from.
    template: Mutex<Box<dyn BlockDevice>>,
    /// Handles that no thread uses now.
    idle: Mutex<Vec<Blocking>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProtectedDisk {
    /// `disk` with the protection information in the file at `path`, which is made, sparse, when it does not exist; then
    /// no block has any, and all are of type `kind`. A tag file that is there knows its type: FORMAT UNIT can have
    /// changed it.
    ///
    /// A tag file that was not closed tells which regions of the disk were written. Their blocks are read, which takes
    /// its time, and those whose guard does not fit their data get one that does; tags stay.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::WouldBlock`] when another process uses the tag file,
    /// [`io::ErrorKind::InvalidData`] when it is none, is one for another block size, or was not closed while the disk
    /// is read-only.
    pub fn open(
        disk: Box<dyn BlockDevice>,
        path: impl AsRef<Path>,
        kind: Option<ProtectionType>,
    ) -> io::Result<Self> {
        let options = FileOptions {
            read_only: disk.geometry().read_only,
            create: Some(tags::HEADER),
            ..FileOptions::default()
        };
        let file = SystemFile::open(path.as_ref(), &options)?;
        Self::over(disk, Box::new(file), kind)
    }

    fn over(
        disk: Box<dyn BlockDevice>,
        tags: Box<dyn Storage>,
        kind: Option<ProtectionType>,
    ) -> io::Result<Self> {
        let geometry = Geometry {
            protectable: true,
            // The disk's memory would not be what was read with the tags; and both together are not one operation.
            lends_reads: false,
            atomic_blocks: 0,
            ..disk.geometry()
        };
        let tags = TagFile::over(tags, kind, &geometry)?;
        let workers = Workers::new("disk", THREADS, 1024)?;
        let shared = Shared { tags, geometry, workers, template: Mutex::new(disk), idle: Mutex::default() };
        shared.recover()?;
        Ok(Self { shared: Arc::new(shared), completions: Completions::default() })
    }
}

impl BlockDevice for ProtectedDisk {
    fn geometry(&self) -> Geometry {
        let Geometry { blocks, .. } = lock(&self.shared.template).geometry();
        Geometry { blocks, protection: self.shared.tags.protection(), ..self.shared.geometry }
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        let (shared, ticket) = (self.shared.clone(), self.completions.ticket(op.id));
        self.shared.workers.queue(op, ticket, move |action, ticket| {
            let result = shared.perform(action);
            // Who hears of the end may drop its handle and open the files again at once.
            drop(shared);
            ticket.done(result);
        })
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        self.completions.poll(cx)
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self { shared: self.shared.clone(), completions: Completions::default() }))
    }
}

impl Shared {
    fn perform(&self, action: Action) -> Result<Payload, BlockError> {
        let idle = lock(&self.idle).pop();
        let mut disk = match idle {
            Some(disk) => disk,
            None => Blocking::new(lock(&self.template).handle().map_err(|e| BlockError::from(&e))?),
        };
        let result = self.perform_on(&mut disk, action);
        lock(&self.idle).push(disk);
        result
    }

    fn perform_on(&self, disk: &mut Blocking, action: Action) -> Result<Payload, BlockError> {
        let kind = self.tags.protection();
        let range = action.range(self.geometry.block_size);
        match (action, range, kind) {
            (Action::Flush, ..) => self.flush(disk).map(|()| Payload::None),
            (Action::Protect(kind), ..) => {
                self.tags.protect(kind)?;
                Ok(Payload::None)
            }
            (Action::ReadProtected { lba, blocks, into }, _, Some(_)) => {
                let _held = self.tags.share(lba, blocks.into());
                let data = read(disk, lba, blocks, into)?;
                Ok(Payload::Protected { data, tags: self.tags.read(lba, blocks.into())? })
            }
            (Action::ReadProtected { .. } | Action::WriteProtected { .. }, _, None) => {
                Err(BlockError::Unsupported)
            }
            (Action::Read { lba, blocks, into }, ..) => read(disk, lba, blocks, into).map(Payload::Data),
            (
                action @ (Action::WriteProtected { .. }
                | Action::Write { .. }
                | Action::Zero { .. }
                | Action::Unmap { .. }),
                Some((lba, blocks)),
                Some(kind),
            ) => {
                action.within(self.geometry.block_size, disk.device().geometry().blocks)?;
                let _held = self.tags.own(lba, blocks);
                self.tags.mark(lba, blocks)?;
                let result = self.change(disk, action, lba, blocks);
                if result.is_err() {
                    // Some blocks are new, some are not: all can be read.
                    self.mend(disk, kind, lba, blocks)?;
                }
                result.map(|()| Payload::None)
            }
            (action, ..) => disk.run(action),
        }
    }

    /// Changes data and tags of blocks that are held.
    fn change(&self, disk: &mut Blocking, action: Action, lba: u64, blocks: u64) -> Result<(), BlockError> {
        if let Action::WriteProtected { data, tags, fua, .. } = action {
            disk.run(Action::Write { lba, data, fua })?;
            return self.tags.write(lba, &tags, fua);
        }
        let fua = matches!(action, Action::Write { fua: true, .. } | Action::Zero { fua: true, .. });
        self.tags.clear(lba, blocks)?;
        disk.run(action)?;
        if fua { self.tags.sync() } else { Ok(()) }
    }

    fn flush(&self, disk: &mut Blocking) -> Result<(), BlockError> {
        disk.flush()?;
        self.tags.sync()
    }

    /// Gives the blocks guards that fit.
    fn mend(
        &self,
        disk: &mut Blocking,
        kind: ProtectionType,
        lba: u64,
        blocks: u64,
    ) -> Result<u64, BlockError> {
        let (mut at, mut mended) = (lba, 0);
        while at < lba + blocks {
            let piece = PIECE.min(lba + blocks - at);
            let mut tags = self.tags.read(at, piece)?;
            // Most of a sparse disk was never written.
            if tags.iter().any(|byte| *byte != 0xff) {
                let data = disk.read(at, piece as u32)?.to_bytes();
                let wrong = mend(kind, self.geometry.block_size as usize, &data, &mut tags);
                if wrong > 0 {
                    self.tags.write(at, &tags, false)?;
                    mended += wrong;
                }
            }
            at += piece;
        }
        Ok(mended)
    }

    /// After an end that was not clean.
    fn recover(&self) -> io::Result<()> {
        let Some(kind) = self.tags.protection() else { return Ok(()) };
        let marked = self.tags.marked(self.geometry.blocks);
        if marked.is_empty() {
            return Ok(());
        }
        if self.geometry.read_only {
            let what = "the tag file was not closed: open the disk for writing once";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut disk = Blocking::new(lock(&self.template).handle()?);
        let mut mended = 0;
        for (lba, blocks) in marked {
            mended += self.mend(&mut disk, kind, lba, blocks).map_err(io::Error::other)?;
        }
        tracing::warn!(blocks = mended, "guards mended: the tag file was not closed");
        self.flush(&mut disk).map_err(io::Error::other)?;
        self.tags.close().map_err(io::Error::other)
    }
}

/// Reads into `into`, or out of the disk's own memory.
fn read(disk: &mut Blocking, lba: u64, blocks: u32, mut into: SgListMut) -> Result<SgList, BlockError> {
    let lends = disk.device().geometry().lends_reads;
    let own = if lends { SgListMut::new() } else { std::mem::take(&mut into) };
    let Payload::Data(data) = disk.run(Action::Read { lba, blocks, into: own })? else {
        return Err(BlockError::Device);
    };
    if !lends {
        return Ok(data);
    }
    let mut done = 0;
    for part in data.parts() {
        done += into.copy_from(done, part);
    }
    Ok(into.freeze())
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.geometry.read_only {
            return;
        }
        let disk = lock(&self.template).handle().map(Blocking::new);
        let flushed = disk.and_then(|mut disk| self.flush(&mut disk).map_err(io::Error::other));
        if let Err(error) = flushed.and_then(|()| self.tags.close().map_err(io::Error::other)) {
            tracing::error!(%error, "the tag file cannot be closed: guards will be looked at when it is opened");
        }
    }
}

#[cfg(test)]
mod tests;
