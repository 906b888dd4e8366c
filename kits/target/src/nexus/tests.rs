//! A port that plays the engine, and what whole commands do through it.

use super::*;
use crate::block::RamDisk;
use crate::ports::{InitiatorPort, TargetPort};
use crate::unit::{LogicalUnit, UnitConfig};
use datamover::{BufPool, SgList, SlabPool};
use iscsi_pdu::{TaskAttr, TaskMgmtStatus};
use scsi_cmd::SenseKey;
use scsi_cmd::cdb::{BlockIo, Cdb, Command, IoKind, TestUnitReady};
use std::collections::HashMap;

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) outcome: Outcome,
    pub(crate) data: Vec<u8>,
}

impl Reply {
    pub(crate) fn sense(&self) -> Sense {
        Sense::decode(&self.outcome.sense).expect("CHECK CONDITION brings sense data")
    }

    pub(crate) fn is_good(&self) -> bool {
        self.outcome.status == ScsiStatus::Good
    }

    #[track_caller]
    pub(crate) fn good(self) -> Vec<u8> {
        assert!(self.is_good(), "{:?} {:?}", self.outcome.status, Sense::decode(&self.outcome.sense));
        self.data
    }

    #[track_caller]
    pub(crate) fn check(self, key: SenseKey, asc: Asc) -> Sense {
        assert_eq!(self.outcome.status, ScsiStatus::CheckCondition, "{:?}", self.outcome);
        let sense = self.sense();
        assert_eq!((sense.key, sense.asc), (key, asc));
        sense
    }
}

/// The engine's side of one nexus.
pub(crate) struct Engine {
    pub(crate) nexus: Nexus,
    pub(crate) port: Port,
    next: u64,
}

#[derive(Default)]
pub(crate) struct Port {
    pool: Option<Arc<dyn BufPool>>,
    wants: VecDeque<(TaskTag, u32, SgListMut)>,
    /// Output of each task.
    output: HashMap<TaskTag, Vec<u8>>,
    input: HashMap<TaskTag, Vec<u8>>,
    pub(crate) outcomes: HashMap<TaskTag, Outcome>,
    pub(crate) discarded: Vec<TaskTag>,
    pub(crate) responses: Vec<(FunctionTag, TaskMgmtStatus, [u8; 3])>,
}

impl Port {
    /// The output that was asked for does not come.
    pub(crate) fn drop_wants(&mut self) {
        self.wants.clear();
    }
}

impl TaskPort for Port {
    fn pool(&self, _: TaskTag) -> &Arc<dyn BufPool> {
        self.pool.as_ref().unwrap()
    }
    fn want_write(&mut self, tag: TaskTag, offset: u32, into: SgListMut) {
        self.wants.push_back((tag, offset, into));
    }
    fn read_data(&mut self, tag: TaskTag, offset: u32, data: SgList) {
        let input = self.input.entry(tag).or_default();
        assert_eq!(input.len(), offset as usize, "input goes out in order");
        data.parts().for_each(|p| input.extend_from_slice(p));
    }
    fn complete(&mut self, tag: TaskTag, outcome: Outcome) {
        assert!(self.outcomes.insert(tag, outcome).is_none(), "a task ends once");
    }
    fn discard(&mut self, tag: TaskTag) {
        self.discarded.push(tag);
    }
    fn respond(&mut self, tag: FunctionTag, response: TaskMgmtStatus, information: [u8; 3]) {
        self.responses.push((tag, response, information));
    }
    fn asynchronous_event(&mut self, _: Lun, _: Bytes) {}
}

pub(crate) const PORT: TargetPort = TargetPort { relative_id: 1, portal_group: 1 };

impl Engine {
    pub(crate) fn new(target: &Arc<TargetDevice>, initiator: u8) -> Self {
        Self::at(target, initiator, PORT)
    }

    pub(crate) fn at(target: &Arc<TargetDevice>, initiator: u8, port: TargetPort) -> Self {
        let name = format!("iqn.2026-01.org.example:initiator{initiator}");
        let isid = [0x80, 0, 0, 0, 0, initiator];
        let nexus = target.nexus(InitiatorPort { name, isid }, port, 1);
        let pool: Option<Arc<dyn BufPool>> = Some(Arc::new(SlabPool::default()));
        Self { nexus, port: Port { pool, ..Port::default() }, next: 0 }
    }

    /// Starts a command with output of which the first `unsolicited` bytes come with it.
    pub(crate) fn start(
        &mut self,
        lun: Lun,
        attr: TaskAttr,
        cdb: &[u8],
        room: u32,
        output: &[u8],
        unsolicited: usize,
    ) -> TaskTag {
        self.next += 1;
        let tag = TaskTag(self.next << 8);
        let mut short = [0; 16];
        let n = cdb.len().min(16);
        short[..n].copy_from_slice(&cdb[..n]);
        let task = Task {
            tag,
            lun,
            attr,
            priority: 0,
            cdb: short,
            extended_cdb: Bytes::copy_from_slice(&cdb[n..]),
            read_length: room,
            write_length: output.len() as u32,
            unsolicited: Bytes::copy_from_slice(&output[..unsolicited.min(output.len())]).into(),
        };
        self.port.output.insert(tag, output.to_vec());
        self.nexus.execute(task, &mut self.port);
        tag
    }

    /// Lets everything happen that can happen now.
    #[allow(clippy::disallowed_methods, reason = "a test has the clock of its machine")]
    pub(crate) fn turn(&mut self) {
        loop {
            let waker = Waker::noop();
            let mut busy =
                self.nexus.poll(&mut Context::from_waker(waker), Instant::now(), &mut self.port).is_ready();
            while let Some((tag, offset, mut into)) = self.port.wants.pop_front() {
                let at = offset as usize;
                let output = &self.port.output[&tag];
                let len = into.len();
                into.copy_from(0, &output[at..at + len]);
                self.nexus.write_data(tag, offset, into, Ok(()), &mut self.port);
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    pub(crate) fn reply(&mut self, tag: TaskTag) -> Option<Reply> {
        self.turn();
        let outcome = self.port.outcomes.remove(&tag)?;
        Some(Reply { outcome, data: self.port.input.remove(&tag).unwrap_or_default() })
    }

    /// A whole command to LUN 0.
    #[track_caller]
    pub(crate) fn raw(&mut self, cdb: &[u8], room: u32, output: &[u8]) -> Reply {
        let tag = self.start(Lun::ZERO, TaskAttr::Simple, cdb, room, output, 0);
        for _ in 0..100_000 {
            if let Some(reply) = self.reply(tag) {
                return reply;
            }
            std::thread::yield_now();
        }
        panic!("the command does not end");
    }

    #[track_caller]
    pub(crate) fn input(&mut self, command: impl Into<Command>, room: u32) -> Reply {
        self.raw(&Cdb::from(command.into()).encode(), room, &[])
    }

    #[track_caller]
    pub(crate) fn output(&mut self, command: impl Into<Command>, output: &[u8]) -> Reply {
        self.raw(&Cdb::from(command.into()).encode(), 0, output)
    }

    #[track_caller]
    pub(crate) fn none(&mut self, command: impl Into<Command>) -> Reply {
        self.raw(&Cdb::from(command.into()).encode(), 0, &[])
    }

    #[track_caller]
    pub(crate) fn io(&mut self, io: BlockIo, room: u32, output: &[u8]) -> Reply {
        self.raw(&Cdb::from(io.command().unwrap()).encode(), room, output)
    }

    /// Reports and clears what unit attentions there are.
    pub(crate) fn clear_attentions(&mut self) -> Vec<Asc> {
        let mut all = Vec::new();
        loop {
            let reply = self.none(TestUnitReady {});
            if reply.outcome.sense.is_empty() || reply.sense().key != SenseKey::UnitAttention {
                return all;
            }
            all.push(reply.sense().asc);
        }
    }
}

/// A target with one RAM disk of 2048 blocks of 512 bytes.
pub(crate) fn ram_target() -> (Arc<TargetDevice>, Arc<LogicalUnit>) {
    target_over(UnitConfig::new("0001"), Box::new(RamDisk::new(512, 2048)))
}

pub(crate) fn target_over(
    config: UnitConfig,
    device: Box<dyn crate::block::BlockDevice>,
) -> (Arc<TargetDevice>, Arc<LogicalUnit>) {
    let target = TargetDevice::new(
        "iqn.2026-01.org.example:disk",
        [PORT, TargetPort { relative_id: 2, portal_group: 2 }],
    );
    let unit = LogicalUnit::new(config, device);
    target.add_unit(0, unit.clone()).unwrap();
    (target, unit)
}

/// A ready initiator at a RAM disk.
pub(crate) fn ready() -> (Engine, Arc<TargetDevice>, Arc<LogicalUnit>) {
    let (target, unit) = ram_target();
    let mut engine = Engine::new(&target, 1);
    engine.clear_attentions();
    (engine, target, unit)
}

#[test]
fn power_on_is_reported_once() {
    let (target, _) = ram_target();
    let mut engine = Engine::new(&target, 1);
    assert_eq!(engine.clear_attentions(), [Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED]);
    assert!(engine.none(TestUnitReady {}).is_good());
    drop(engine);
    let mut back = Engine::new(&target, 1);
    assert_eq!(back.clear_attentions(), [Asc::I_T_NEXUS_LOSS_OCCURRED]);
}

#[test]
fn blocks_are_written_and_read() {
    let (mut e, ..) = ready();
    let data: Vec<u8> = (0..4096u32).map(|n| (n % 251) as u8).collect();
    e.io(BlockIo::new(IoKind::Write, 5, 8), 0, &data).good();
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 5, 8), 4096, &[]).good(), data);
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 6, 1), 512, &[]).good(), data[512..1024]);
    // Unsolicited data come with the command, the rest is asked for.
    let cdb = Cdb::from(BlockIo::new(IoKind::Write, 100, 8).command().unwrap()).encode();
    for unsolicited in [0, 1000, 4096] {
        let tag = e.start(Lun::ZERO, TaskAttr::Simple, &cdb, 0, &data, unsolicited);
        assert!(e.reply(tag).unwrap().is_good());
        assert_eq!(e.io(BlockIo::new(IoKind::Read, 100, 8), 4096, &[]).good(), data);
    }
}

#[test]
fn transfers_larger_than_a_piece() {
    let (target, _) = target_over(UnitConfig::new("big"), Box::new(RamDisk::new(512, 65536)));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let data: Vec<u8> = (0..(5 << 20) + 512).map(|n: usize| (n / 512) as u8 ^ (n >> 17) as u8).collect();
    let blocks = (data.len() / 512) as u32;
    e.io(BlockIo::new(IoKind::Write, 3, blocks), 0, &data).good();
    assert!(e.io(BlockIo::new(IoKind::Read, 3, blocks), data.len() as u32, &[]).good() == data);
}

// What iscsi-test-cu's families of residuals expect.
#[test]
fn residuals() {
    let (mut e, ..) = ready();
    e.io(BlockIo::new(IoKind::Write, 0, 2), 0, &[b'a'; 1024]).good();
    let write1 = Cdb::from(BlockIo::new(IoKind::Write, 0, 1).command().unwrap()).encode();
    let write2 = Cdb::from(BlockIo::new(IoKind::Write, 0, 2).command().unwrap()).encode();
    // No output announced: GOOD, overflow of a block, nothing written.
    let reply = e.raw(&write1, 0, &[]);
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 512));
    // Less than a block: refused, overflow.
    let reply = e.raw(&write1, 0, &[b'b'; 200]);
    assert_eq!(reply.outcome.write_length, 512);
    reply.check(SenseKey::IllegalRequest, Asc::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT);
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 0, 2), 1024, &[]).good(), [b'a'; 1024]);
    // One block of two announced: that one is written.
    let reply = e.raw(&write2, 0, &[b'b'; 512]);
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 1024));
    let expected = [[b'b'; 512], [b'a'; 512]].concat();
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 0, 2), 1024, &[]).good(), expected);
    // More than the command takes: underflow, the rest is not asked for.
    let reply = e.raw(&write1, 0, &[b'c'; 1024]);
    assert_eq!((reply.is_good(), reply.outcome.write_length), (true, 512));
    assert_eq!(e.io(BlockIo::new(IoKind::Read, 1, 1), 512, &[]).good(), [b'a'; 512]);
    // Reads: the engine cuts, the device server counts what the command inputs.
    for room in [0, 200, 512, 10000] {
        let reply = e.io(BlockIo::new(IoKind::Read, 0, 2), room, &[]);
        assert_eq!((reply.is_good(), reply.outcome.read_length), (true, 1024));
        assert!(reply.data.len() as u32 >= room.min(1024));
    }
}

#[test]
fn a_lun_without_unit() {
    let (mut e, ..) = ready();
    let lun = Lun([0, 9, 0, 0, 0, 0, 0, 0]);
    let tag = e.start(lun, TaskAttr::Simple, &[0; 6], 0, &[], 0);
    e.reply(tag).unwrap().check(SenseKey::IllegalRequest, Asc::LOGICAL_UNIT_NOT_SUPPORTED);
    let tag = e.start(lun, TaskAttr::Simple, &[0x12, 0, 0, 0, 36, 0], 36, &[], 0);
    assert_eq!(e.reply(tag).unwrap().good()[0], 0x7f);
    let tag = e.start(lun, TaskAttr::Simple, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64, &[], 0);
    assert_eq!(e.reply(tag).unwrap().good()[..4], [0, 0, 0, 8]);
    let tag = e.start(lun, TaskAttr::Simple, &[0x03, 0, 0, 0, 18, 0], 18, &[], 0);
    assert_eq!(e.reply(tag).unwrap().good()[12..14], [0x25, 0]);
}

// A pool of 1 MiB and 16 writes and reads of 512 KiB: they wait for each other, none takes other memory.
#[test]
fn memory_that_is_used_up_is_waited_for() {
    use crate::block::{FileDisk, FileOptions};
    use datamover::PoolConfig;
    let dir = tempfile::tempdir().unwrap();
    let options = FileOptions { create: Some(16 << 20), ..FileOptions::default() };
    let disk = FileDisk::open(dir.path().join("d"), &options).unwrap();
    let (target, _) = target_over(UnitConfig::new("m"), Box::new(disk));
    let mut e = Engine::new(&target, 1);
    e.clear_attentions();
    let pool = SlabPool::new(PoolConfig::default().with_max_bytes(1 << 20));
    e.port.pool = Some(Arc::new(pool.clone()));
    let data = |n: u64| vec![n as u8 + 1; 512 << 10];
    let cdb = |kind, n: u64| Cdb::from(BlockIo::new(kind, n * 1024, 1024).command().unwrap()).encode();
    let all = |e: &mut Engine, tags: Vec<TaskTag>| {
        for tag in tags {
            loop {
                if let Some(reply) = e.reply(tag) {
                    reply.good();
                    break;
                }
                assert!(pool.allocated_bytes() <= 1 << 20);
                std::thread::yield_now();
            }
        }
    };
    let writes = (0..16)
        .map(|n| e.start(Lun::ZERO, TaskAttr::Simple, &cdb(IoKind::Write, n), 0, &data(n), 0))
        .collect();
    all(&mut e, writes);
    let reads = (0..16)
        .map(|n| e.start(Lun::ZERO, TaskAttr::Simple, &cdb(IoKind::Read, n), 512 << 10, &[], 0))
        .collect();
    all(&mut e, reads);
    assert!(e.io(BlockIo::new(IoKind::Read, 15 * 1024, 1024), 512 << 10, &[]).good() == data(15));
    assert_eq!(pool.outstanding(), 0, "all memory is back");
}
