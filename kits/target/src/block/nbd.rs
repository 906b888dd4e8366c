//! A disk on an NBD server: what qemu-nbd, nbdkit or nbd-server export, qcow2 images among it.
//!
//! All handles share one connection, so that a flush of any covers the writes of all. See [`client`] for what happens
//! when it breaks.

mod address;
mod client;
mod handshake;
mod receiver;
#[cfg(test)]
mod tests;
mod wire;

pub use address::{NbdAddress, NbdAddressError, NbdServer};

use super::workers::Completions;
use super::{Action, BlockDevice, BlockDone, BlockError, BlockOp, Full, Geometry, UnmapLimits};
use client::{Client, Op, OpState, Part, now};
use datamover::{SgList, SgListMut};
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use wire::{command, flag};

/// How an export is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NbdOptions {
    /// Bytes of a logical block; `None` for the least that server and SCSI allow, 512 as a rule.
    pub block_size: Option<u32>,
    /// Bytes of a physical block; `None` for what the server prefers.
    pub physical_block_size: Option<u32>,
    /// Do not write.
    pub read_only: bool,
    /// How long operations wait for a lost server to come back.
    pub patience: Duration,
}

impl Default for NbdOptions {
    fn default() -> Self {
        Self {
            block_size: None,
            physical_block_size: None,
            read_only: false,
            // Initiators give a command 30 s as a rule.
            patience: Duration::from_secs(20),
        }
    }
}

/// Operations of one handle that may be on their way.
const DEPTH: usize = 128;
/// The longest request without data.
const LONGEST: u32 = 1 << 30;

/// A handle on a disk of an NBD server.
pub struct NbdDisk {
    client: Arc<Client>,
    geometry: Geometry,
    completions: Completions,
    open: usize,
}

impl NbdDisk {
    /// Connects to the export.
    ///
    /// # Errors
    /// What the system or the server says; [`io::ErrorKind::InvalidInput`] for a block size that is no power of two of
    /// at least 512 or smaller than the server's.
    pub fn open(address: NbdAddress, options: &NbdOptions) -> io::Result<Self> {
        let client = Client::open(address, options.patience)?;
        let export = *client.export();
        let block_size = options.block_size.unwrap_or(export.minimum_block.max(512));
        let valid = block_size.is_power_of_two() && (512..=65536).contains(&block_size);
        if !valid || block_size < export.minimum_block {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "block size {block_size} is not possible: the server works in {} bytes",
                    export.minimum_block
                ),
            ));
        }
        let preferred = Some(export.preferred_block).filter(|size| size.is_power_of_two() && *size <= 65536);
        let physical = options.physical_block_size.or(preferred).unwrap_or(block_size).max(block_size);
        let read_only = options.read_only || export.can(flag::READ_ONLY);
        let gives_back = !read_only && (export.can(flag::SEND_WRITE_ZEROES) || export.can(flag::SEND_TRIM));
        let geometry = Geometry {
            physical_exponent: (physical / block_size).trailing_zeros().min(15) as u8,
            read_only,
            volatile_cache: export.can(flag::SEND_FLUSH),
            rotational: export.can(flag::ROTATIONAL),
            // TRIM promises nothing of what is read afterwards; WRITE_ZEROES may free blocks, too.
            unmap: gives_back.then(|| UnmapLimits {
                granularity: physical / block_size,
                zeroes: export.can(flag::SEND_WRITE_ZEROES),
            }),
            ..Geometry::new(block_size, export.size / u64::from(block_size))
        };
        Ok(Self { client: Arc::new(client), geometry, completions: Completions::default(), open: 0 })
    }

    /// The requests for an action: command, flags, first byte, length, and bytes that one request may carry.
    fn requests(&self, action: &Action) -> Option<(u16, u16, u64, u64, u32)> {
        let export = self.client.export();
        let block = u64::from(self.geometry.block_size);
        let (lba, blocks) = action.range(self.geometry.block_size).unwrap_or_default();
        let (offset, len) = (lba.checked_mul(block)?, blocks.checked_mul(block)?);
        let fua = |wanted: bool| if wanted && export.can(flag::SEND_FUA) { wire::FLAG_FUA } else { 0 };
        // Pieces must be whole blocks.
        let data = (export.maximum / self.geometry.block_size).max(1) * self.geometry.block_size;
        Some(match action {
            Action::Read { .. } => (command::READ, 0, offset, len, data),
            Action::Write { fua: f, .. } => (command::WRITE, fua(*f), offset, len, data),
            Action::Flush if export.can(flag::SEND_FLUSH) => (command::FLUSH, 0, 0, 0, 0),
            Action::Unmap { .. } if export.can(flag::SEND_WRITE_ZEROES) => {
                (command::WRITE_ZEROES, 0, offset, len, LONGEST)
            }
            Action::Unmap { .. } if export.can(flag::SEND_TRIM) => (command::TRIM, 0, offset, len, LONGEST),
            Action::Zero { unmap, fua: f, .. } if export.can(flag::SEND_WRITE_ZEROES) => {
                let keep = if *unmap { 0 } else { wire::FLAG_NO_HOLE };
                (command::WRITE_ZEROES, keep | fua(*f), offset, len, LONGEST)
            }
            Action::Zero { fua: f, .. } => (command::WRITE, fua(*f), offset, len, data),
            // The runs of a part are an answer, too.
            Action::Status { .. } if export.allocation.is_some() => {
                (command::BLOCK_STATUS, 0, offset, len.min(u64::from(LONGEST)), LONGEST)
            }
            Action::Prefetch { .. } if export.can(flag::SEND_CACHE) => {
                (command::CACHE, 0, offset, len, LONGEST)
            }
            _ => return None,
        })
    }
}

impl BlockDevice for NbdDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        if self.open >= DEPTH {
            return Err(Full(op));
        }
        self.open += 1;
        let ticket = self.completions.ticket(op.id);
        if let Err(error) = op.action.within(self.geometry.block_size, self.geometry.blocks) {
            ticket.done(Err(error));
            return Ok(());
        }
        let Some((command, flags, offset, len, piece)) = self.requests(&op.action) else {
            ticket.done(self.without_server(&op.action));
            return Ok(());
        };
        if len == 0 && command != command::FLUSH {
            ticket.done(Ok(super::Payload::None));
            return Ok(());
        }
        let wants_fua = matches!(op.action, Action::Write { fua: true, .. } | Action::Zero { fua: true, .. });
        let export = self.client.export();
        let then_flush = wants_fua && flags & wire::FLAG_FUA == 0 && export.can(flag::SEND_FLUSH);
        let runs = (command == command::BLOCK_STATUS).then(Vec::new);
        let (data, into) = match op.action {
            Action::Write { data, .. } => (data, SgListMut::new()),
            Action::Zero { .. } if command == command::WRITE => {
                (super::null::zeros(len as usize), SgListMut::new())
            }
            Action::Read { into, .. } => (SgList::new(), into),
            _ => (SgList::new(), SgListMut::new()),
        };
        let starts = (0..len.max(1)).step_by(piece.max(1) as usize);
        let state = OpState {
            ticket: Some(ticket),
            open: starts.clone().count(),
            error: None,
            into,
            runs,
            block_size: self.geometry.block_size,
            then_flush,
        };
        let op = Arc::new(Op { data, state: Mutex::new(state) });
        let since = now();
        self.client.submit(starts.map(|at| Part {
            op: op.clone(),
            command,
            flags,
            offset: offset + at,
            len: (len - at).min(u64::from(piece)) as u32,
            at: at as usize,
            since,
            covers: 0,
            received: 0,
            error: None,
        }));
        Ok(())
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        let done = self.completions.poll(cx);
        if done.is_ready() {
            self.open -= 1;
        }
        done
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self {
            client: self.client.clone(),
            geometry: self.geometry,
            completions: Completions::default(),
            open: 0,
        }))
    }
}

impl NbdDisk {
    /// What comes of an action that the server has no request for.
    fn without_server(&self, action: &Action) -> Result<super::Payload, BlockError> {
        match action {
            // Without a cache everything is on the medium.
            Action::Flush | Action::Prefetch { .. } => Ok(super::Payload::None),
            Action::Status { blocks, .. } => {
                Ok(super::Payload::Extents(vec![super::Extent { blocks: *blocks, mapped: true }]))
            }
            _ => Err(BlockError::Unsupported),
        }
    }
}
