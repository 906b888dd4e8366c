//! A disk that takes nothing for a while: BUSY when nothing of the command was done, else sense data.

use super::*;
use crate::block::{AsyncAdapter, AsyncBlockDevice, BlockError, Geometry};
use async_trait::async_trait;
use datamover::{SgList, SgListMut};
use iscsi_pdu::ScsiStatus;
use std::io;
use std::time::Duration;

/// Busy for 3 seconds from this block on.
struct BusyFrom(u64);

impl BusyFrom {
    fn at(&self, lba: u64) -> io::Result<()> {
        match lba >= self.0 {
            true => Err(io::Error::other(BlockError::Busy(Duration::from_secs(3)))),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl AsyncBlockDevice for BusyFrom {
    fn geometry(&self) -> Geometry {
        Geometry::new(512, 16_384)
    }

    async fn read(&self, lba: u64, into: SgListMut) -> io::Result<SgList> {
        self.at(lba).map(|()| into.freeze())
    }

    async fn write(&self, lba: u64, _: SgList) -> io::Result<()> {
        self.at(lba)
    }
}

#[test]
fn a_busy_disk() {
    let disk = AsyncAdapter::new(BusyFrom(2048));
    let (target, _) = target_over(UnitConfig::new("busy"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let blocks = 8192;
    let len = blocks * 512;
    let io = |kind, lba| BlockIo::new(kind, lba, blocks);
    let output = vec![1; len as usize];
    // SAM-5 clause 5.3.2: thirty tenths of a second.
    for reply in [e.io(io(IoKind::Read, 4096), len, &[]), e.io(io(IoKind::Write, 4096), 0, &output)] {
        assert_eq!((reply.outcome.status, reply.outcome.status_qualifier), (ScsiStatus::Busy, 30));
        assert!(reply.data.is_empty() && reply.outcome.sense.is_empty());
    }
    // 1 MiB of this is done.
    for reply in [e.io(io(IoKind::Read, 0), len, &[]), e.io(io(IoKind::Write, 0), 0, &output)] {
        assert_eq!(reply.outcome.status_qualifier, 0);
        reply.check(SenseKey::NotReady, Asc::LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY);
    }
    assert!(e.io(BlockIo::new(IoKind::Read, 0, 8), 4096, &[]).is_good());
}
