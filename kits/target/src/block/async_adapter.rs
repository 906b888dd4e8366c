//! Disks written as async code: ten lines instead of a queue.

use super::{Action, BlockDevice, BlockDone, BlockError, BlockOp, Extent, Full, Geometry, OpId, Payload};
use async_trait::async_trait;
use datamover::{SgList, SgListMut};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A block device as async functions. [`AsyncAdapter`] makes a [`BlockDevice`] of it, at the price of one boxed
/// future per operation.
#[async_trait]
pub trait AsyncBlockDevice: Send + Sync {
    /// Shape and abilities.
    fn geometry(&self) -> Geometry;

    /// Fills `into`, a whole number of blocks, from block `lba` on.
    async fn read(&self, lba: u64, into: SgListMut) -> io::Result<SgList>;

    /// Writes a whole number of blocks.
    async fn write(&self, lba: u64, data: SgList) -> io::Result<()>;

    /// Brings what was written on the medium.
    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Gives blocks back; called only when [`Geometry::unmap`] says so.
    async fn unmap(&self, lba: u64, blocks: u64) -> io::Result<()> {
        let _ = (lba, blocks);
        Err(io::ErrorKind::Unsupported.into())
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Payload, BlockError>> + Send>>;

/// A [`BlockDevice`] over an [`AsyncBlockDevice`].
pub struct AsyncAdapter<D> {
    device: Arc<D>,
    running: Vec<(OpId, Running)>,
}

impl<D: AsyncBlockDevice + 'static> AsyncAdapter<D> {
    /// Wraps the device.
    #[must_use]
    pub fn new(device: D) -> Self {
        Self { device: Arc::new(device), running: Vec::new() }
    }
}

impl<D> fmt::Debug for AsyncAdapter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncAdapter({} running)", self.running.len())
    }
}

impl<D: AsyncBlockDevice + 'static> BlockDevice for AsyncAdapter<D> {
    fn geometry(&self) -> Geometry {
        // Reads need buffers, and writes are as atomic as the device says.
        Geometry { lends_reads: false, ..self.device.geometry() }
    }

    fn submit(&mut self, op: BlockOp) -> Result<(), Full> {
        let device = self.device.clone();
        self.running.push((op.id, Box::pin(run(device, op.action))));
        Ok(())
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<BlockDone> {
        for at in 0..self.running.len() {
            if let Poll::Ready(result) = self.running[at].1.as_mut().poll(cx) {
                let (id, _) = self.running.swap_remove(at);
                return Poll::Ready(BlockDone { id, result });
            }
        }
        Poll::Pending
    }

    fn handle(&self) -> io::Result<Box<dyn BlockDevice>> {
        Ok(Box::new(Self { device: self.device.clone(), running: Vec::new() }))
    }
}

async fn run<D: AsyncBlockDevice>(device: Arc<D>, action: Action) -> Result<Payload, BlockError> {
    let geometry = device.geometry();
    let block = u64::from(geometry.block_size);
    action.within(geometry.block_size, geometry.blocks)?;
    let done = match action {
        Action::Read { lba, into, .. } => {
            return match device.read(lba, into).await {
                Ok(data) => Ok(Payload::Data(data)),
                Err(error) => Err(BlockError::from(&error)),
            };
        }
        Action::Status { blocks, .. } => return Ok(Payload::Extents(vec![Extent { blocks, mapped: true }])),
        Action::Write { lba, data, fua } => match (device.write(lba, data).await, fua) {
            (Ok(()), true) => device.flush().await,
            (result, _) => result,
        },
        Action::Flush => device.flush().await,
        Action::Unmap { lba, blocks } => device.unmap(lba, blocks).await,
        Action::Zero { lba, blocks, unmap, fua } => {
            let zeroes = unmap && geometry.unmap.is_some_and(|u| u.zeroes);
            let result = match zeroes {
                true => device.unmap(lba, blocks).await,
                false => write_zeros(&*device, lba, blocks, block).await,
            };
            match (result, fua) {
                (Ok(()), true) => device.flush().await,
                (result, _) => result,
            }
        }
        Action::Prefetch { .. } => Ok(()),
        Action::ReadProtected { .. } | Action::WriteProtected { .. } | Action::Protect(_) => {
            return Err(BlockError::Unsupported);
        }
    };
    done.map(|()| Payload::None).map_err(|e| BlockError::from(&e))
}

async fn write_zeros<D: AsyncBlockDevice>(
    device: &D,
    mut lba: u64,
    mut blocks: u64,
    block: u64,
) -> io::Result<()> {
    while blocks > 0 {
        let piece = blocks.min((1 << 20) / block);
        device.write(lba, super::null::zeros((piece * block) as usize)).await?;
        (lba, blocks) = (lba + piece, blocks - piece);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::testing;
    use std::sync::Mutex;

    /// What a user writes.
    struct Bytes(Mutex<Vec<u8>>);

    #[async_trait]
    impl AsyncBlockDevice for Bytes {
        fn geometry(&self) -> Geometry {
            Geometry::new(512, 4096)
        }

        async fn read(&self, lba: u64, mut into: SgListMut) -> io::Result<SgList> {
            let at = lba as usize * 512;
            into.copy_from(0, &self.0.lock().unwrap()[at..at + into.len()]);
            Ok(into.freeze())
        }

        async fn write(&self, lba: u64, data: SgList) -> io::Result<()> {
            let at = lba as usize * 512;
            data.copy_to(0, &mut self.0.lock().unwrap()[at..at + data.len()]);
            Ok(())
        }
    }

    #[test]
    fn passes_the_suite() {
        testing::check(|| Box::new(AsyncAdapter::new(Bytes(Mutex::new(vec![0; 4096 * 512])))));
    }
}
