//! One operation at a time, the calling thread waiting: for background work, tools and tests.

use super::{Action, BlockDevice, BlockError, BlockOp, Extent, OpId, Payload};
use bytes::Bytes;
use datamover::{IoBuf, SgList, SgListMut};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// A handle used synchronously.
pub struct Blocking {
    device: Box<dyn BlockDevice>,
    waker: Waker,
    next: u64,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Blocking {
    /// Takes the handle over for the calling thread.
    #[must_use]
    pub fn new(device: Box<dyn BlockDevice>) -> Self {
        Self { device, waker: Waker::from(Arc::new(Unpark(thread::current()))), next: 0 }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &dyn BlockDevice {
        &*self.device
    }

    /// Does `action` and waits for its end.
    ///
    /// # Errors
    /// What the device says.
    pub fn run(&mut self, action: Action) -> Result<Payload, BlockError> {
        self.next += 1;
        let id = OpId(self.next);
        if self.device.submit(BlockOp { id, action }).is_err() {
            // Nothing else is in flight, so a device without room has none to give.
            return Err(BlockError::Device);
        }
        // The thread may have moved since `new`.
        self.waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match self.device.poll_done(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(done) if done.id == id => return done.result,
                Poll::Ready(_) => {}
                // A look now and then: the reactor that would wake this thread may be waiting for it.
                Poll::Pending => thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// Reads blocks.
    ///
    /// # Errors
    /// What the device says.
    pub fn read(&mut self, lba: u64, blocks: u32) -> Result<SgList, BlockError> {
        let geometry = self.device.geometry();
        let into = match geometry.lends_reads {
            true => SgListMut::new(),
            false => IoBuf::zeroed(blocks as usize * geometry.block_size as usize).into(),
        };
        match self.run(Action::Read { lba, blocks, into })? {
            Payload::Data(data) => Ok(data),
            _ => Err(BlockError::Device),
        }
    }

    /// Writes blocks without FUA; copies `data`, a whole number of them.
    ///
    /// # Errors
    /// What the device says.
    pub fn write(&mut self, lba: u64, data: &[u8]) -> Result<(), BlockError> {
        let data = Bytes::copy_from_slice(data).into();
        self.run(Action::Write { lba, data, fua: false }).map(drop)
    }

    /// Flushes.
    ///
    /// # Errors
    /// What the device says.
    pub fn flush(&mut self) -> Result<(), BlockError> {
        self.run(Action::Flush).map(drop)
    }

    /// Which of the blocks are allocated.
    ///
    /// # Errors
    /// What the device says.
    pub fn status(&mut self, lba: u64, blocks: u64) -> Result<Vec<Extent>, BlockError> {
        match self.run(Action::Status { lba, blocks })? {
            Payload::Extents(extents) => Ok(extents),
            _ => Err(BlockError::Device),
        }
    }
}
