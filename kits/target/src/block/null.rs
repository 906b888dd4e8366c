//! A device that keeps nothing: the cost of everything but the medium.

use super::{Action, BlockDevice, BlockDone, BlockOp, Extent, Full, Geometry, Payload, UnmapLimits};
use bytes::Bytes;
use datamover::SgList;
use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

/// Reads zeros, forgets writes.
#[derive(Debug)]
pub struct NullDisk {
    geometry: Geometry,
    done: VecDeque<BlockDone>,
}

/// What every read returns slices of.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

impl NullDisk {
    /// A disk of `blocks` blocks of `block_size` bytes, a power of two.
    #[must_use]
    pub fn new(block_size: u32, blocks: u64) -> Self {
        let geometry = Geometry {
            volatile_cache: false,
            unmap: Some(UnmapLimits { granularity: 1, zeroes: true }),
            lends_reads: true,
            ..Geometry::new(block_size, blocks)
        };
        Self { geometry, done: VecDeque::new() }
    }
}

/// `len` zero bytes in shared memory.
pub(super) fn zeros(len: usize) -> SgList {
    let whole = std::iter::repeat_n(Bytes::from_static(&ZEROS), len / ZEROS.len());
    whole.chain(std::iter::once(Bytes::from_static(&ZEROS[..len % ZEROS.len()]))).collect()
}

impl BlockDevice for NullDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        let payload = match op.action {
            Action::Read { blocks, .. } => {
                Payload::Data(zeros(blocks as usize * self.geometry.block_size as usize))
            }
            Action::Status { blocks, .. } => Payload::Extents(vec![Extent { blocks, mapped: false }]),
            _ => Payload::None,
        };
        self.done.push_back(BlockDone { id: op.id, result: Ok(payload) });
        Ok(())
    }

    fn poll_done(&mut self, _: &mut Context<'_>) -> Poll<BlockDone> {
        self.done.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self { geometry: self.geometry, done: VecDeque::new() }))
    }
}
