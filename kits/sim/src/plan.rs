//! What a seed stands for: transport, negotiated values, workload, faults.

mod draw;
mod keep;

pub use keep::Keep;

use datamover::mem::MemFaults;
use iscsi_login::Preferences;
use std::time::Duration;

/// What carries the connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Transport {
    /// `datamover::mem`.
    Mem,
    /// `iscsi-tcp` over simulated byte streams.
    Tcp,
    /// `iser-rdma` over its `mem` provider.
    IserMem,
    /// `iser-rdma` over software iWARP on simulated byte streams.
    IserIwarp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mem, Self::Tcp, Self::IserMem, Self::IserIwarp];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mem => "mem",
            Self::Tcp => "tcp",
            Self::IserMem => "iser-mem",
            Self::IserIwarp => "iser-iwarp",
        }
    }

    /// Whether iSER carries the task data.
    #[must_use]
    pub const fn is_iser(self) -> bool {
        matches!(self, Self::IserMem | Self::IserIwarp)
    }
}

/// What a run's sessions are like, as negotiated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Configuration {
    /// What carries the connections.
    pub transport: Transport,
    /// ErrorRecoveryLevel.
    pub level: u8,
    /// HeaderDigest is CRC32C.
    pub header_digest: bool,
    /// DataDigest is CRC32C.
    pub data_digest: bool,
    /// MaxConnections.
    pub connections: u16,
}

/// One run, in all its choices.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What carries the connections.
    pub transport: Transport,
    pub(crate) initiator: Preferences,
    pub(crate) target: Preferences,
    /// Commands that the target lets an initiator send.
    pub(crate) window: u32,
    pub(crate) queue_depth: usize,
    /// Connections that an initiator wants in its session.
    pub(crate) connections: u16,
    pub(crate) links: Links,
    /// Commands that another nexus's reset ends are answered with TASK ABORTED.
    pub(crate) tas: bool,
    /// Longest delay of the disk.
    pub(crate) disk_latency: Duration,
    /// Places in the workload that each initiator has, whatever was taken out of it: the first, and that after the last.
    pub(crate) spans: Vec<(u32, u32)>,
    /// The commands of each initiator, in order.
    pub(crate) hosts: Vec<Vec<CommandPlan>>,
    /// In the order of [`FaultPlan::after`].
    pub(crate) faults: Vec<FaultPlan>,
}

/// How connections behave by themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    pub(crate) mem: MemFaults,
    /// Longest delay of a piece of a stream, or of a work request.
    pub(crate) latency: Duration,
    /// By so much at most a connection is slower than another of its session, so that CmdSN order is not that of
    /// arrival.
    pub(crate) skew: Duration,
    /// Streams are cut into pieces of at most this.
    pub(crate) chunk: usize,
    /// Bytes that a direction holds before its sender must wait.
    pub(crate) capacity: usize,
    pub(crate) rdma: Rdma,
}

/// What an RDMA device can do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rdma {
    /// Reads that one end may have under way, that the other serves.
    pub(crate) ord: u16,
    pub(crate) ird: u16,
    pub(crate) send_invalidate: bool,
    pub(crate) slow_invalidation: bool,
    pub(crate) registered_only: bool,
    pub(crate) max_sge: usize,
    /// Login in bytes and then iSER on the same stream, rather than login in messages.
    pub(crate) upgrade: bool,
    pub(crate) faults: RdmaFaults,
}

/// What an RDMA device does beyond losing its connection. One in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RdmaFaults {
    /// A work request that was carried out completes with an error, and the queue pair with it: the rest is flushed.
    pub(crate) error_one_in: u64,
    /// A completion comes late, and with it those behind it.
    pub(crate) late_one_in: u64,
    /// The target sends a response without invalidating the tag.
    pub(crate) no_invalidate_one_in: u64,
    /// The connection is dead after so many work requests, and nobody is told.
    pub(crate) dead_after: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Read,
    Write,
    /// Write through to the medium (FUA).
    WriteThrough,
    /// SYNCHRONIZE CACHE.
    Sync,
    /// Both directions: writes, and brings what was there before.
    Swap,
}

impl Op {
    pub(crate) const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Swap)
    }

    pub(crate) const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WriteThrough | Self::Swap)
    }
}

/// What is wrong with a command from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    None,
    /// Its initiator aborts it at once.
    Abort,
    /// The disk answers with an error.
    Error,
    /// The disk never answers.
    Stuck,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandPlan {
    /// Its place in the workload, whatever was taken out of it.
    pub(crate) index: u32,
    pub(crate) op: Op,
    /// First block, within the initiator's part of the disk.
    pub(crate) at: u32,
    pub(crate) blocks: u32,
    pub(crate) trouble: Trouble,
    /// Where buffers are cut, how long the disk takes.
    pub(crate) dice: u64,
}

/// A disturbance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FaultPlan {
    /// Its place in the plan, whatever was taken out of it.
    pub(crate) index: u32,
    /// It happens when so many commands have been submitted (counting those that were taken out).
    pub(crate) after: u32,
    pub(crate) host: usize,
    pub(crate) fault: Fault,
    pub(crate) dice: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A connection is reset.
    Cut,
    /// Nothing gets through on a connection for a while, up to a minute.
    Stall,
    /// One end stops sending.
    HalfClose,
    /// A byte on its way is wrong.
    Corrupt,
    /// The target ends its sessions, asks for logout, asks for negotiation.
    Shutdown,
    LogoutRequest,
    NegotiationRequest,
    /// The target loses all but its medium, and is back after a while.
    TargetCrash,
    /// The initiator forgets everything and logs in again.
    HostCrash,
    /// As `HostCrash`, and the target is not told that the old connections are gone.
    SilentHostCrash,
    /// Time passes at once, up to two hours.
    ClockJump,
    /// The disk does nothing for a while.
    DiskStall,
    AbortTaskSet,
    ClearTaskSet,
    LogicalUnitReset,
    ClearAca,
    WarmReset,
    ColdReset,
    NexusReset,
    QueryTask,
    QueryTaskSet,
    QueryEvent,
    Ping,
    Text,
    /// A connection gets another MaxRecvDataSegmentLength.
    Declare,
    /// Logout of the session, of one connection, in the middle.
    Logout,
    LogoutConnection,
    /// A hostile initiator arrives: honest ones must not notice.
    Intruder,
    /// An initiator loses its session, and logs in at a hostile target.
    Impostor,
}

impl Plan {
    /// Blocks of one initiator's part of the disk.
    pub(crate) const BLOCKS: u32 = 256;

    /// Whether nothing happens in it that an initiator can notice: no command may fail then.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let quiet = |f: &FaultPlan| {
            matches!(f.fault, Fault::Ping | Fault::Text | Fault::Declare | Fault::QueryTask | Fault::Intruder)
        };
        let mem = self.transport == Transport::Mem
            && (self.links.mem.cut_one_in != 0 || self.links.mem.fail_get_one_in != 0);
        let rdma = self.links.rdma.faults;
        let rdma = self.transport.is_iser() && (rdma.error_one_in != 0 || rdma.dead_after.is_some());
        !mem && !rdma
            && self.faults.iter().all(quiet)
            && self.hosts.iter().flatten().all(|c| c.trouble == Trouble::None)
    }

    /// Commands of all initiators.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.hosts.iter().map(Vec::len).sum()
    }

    /// Words that describe the plan, for `--config`.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        let level = self.initiator.error_recovery_level.min(self.target.error_recovery_level);
        let digests = |p: &Preferences| p.header_digest != iscsi_login::DigestPolicy::Never;
        let any = |of: &[Fault]| self.faults.iter().any(|f| of.contains(&f.fault));
        let connections = self.connections.min(self.target.max_connections);
        let mut words = vec![self.transport.name(), ["erl0", "erl1", "erl2"][usize::from(level.min(2))]];
        words.push(if connections > 1 { "mcs" } else { "single" });
        let mut say = |so: bool, word| words.extend(so.then_some(word));
        say(self.is_calm(), "calm");
        say(digests(&self.initiator) && digests(&self.target) && !self.transport.is_iser(), "digests");
        say(any(&[Fault::TargetCrash]), "crash");
        say(any(&[Fault::HostCrash, Fault::SilentHostCrash]), "reinstatement");
        say(any(&[Fault::Declare]), "declare");
        say(any(&[Fault::Intruder]), "intruder");
        say(any(&[Fault::Impostor]), "impostor");
        say(self.hosts.iter().flatten().any(|c| c.op == Op::Swap), "bidirectional");
        words
    }
}
