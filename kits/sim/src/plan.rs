//! What a seed stands for: transport, negotiated values, workload, faults.

use crate::rng::Rng;
use datamover::mem::MemFaults;
use iscsi_login::{DigestPolicy, Preferences, TaskReporting};
use std::time::Duration;

/// What carries the connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// `datamover::mem`.
    Mem,
    /// `iscsi-tcp` over simulated byte streams.
    Tcp,
}

/// One run, in all its choices but those that are made on the way.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What carries the connections.
    pub transport: Transport,
    pub(crate) initiators: usize,
    pub(crate) initiator: Preferences,
    pub(crate) target: Preferences,
    pub(crate) window: u32,
    /// Commands of one initiator.
    pub(crate) commands: u32,
    pub(crate) queue_depth: usize,
    /// Longest transfer, in blocks.
    pub(crate) max_blocks: u32,
    pub(crate) faults: Faults,
}

/// How often what goes wrong. "One in so many" of 0 is never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) mem: MemFaults,
    /// Longest delay of a piece of a stream, and of the disk.
    pub(crate) latency: Duration,
    pub(crate) disk_latency: Duration,
    /// Streams are cut into pieces of at most this.
    pub(crate) chunk: usize,
    /// Commands that the disk answers with an error, or never.
    pub(crate) disk_error: u64,
    pub(crate) disk_stuck: u64,
    /// Commands that their initiator aborts.
    pub(crate) abort: u64,
    /// Commands after which something bigger happens.
    pub(crate) event: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let transport = if rng.coin() { Transport::Mem } else { Transport::Tcp };
        let calm = rng.one_in(4);
        let mut rare = |of: &[u64]| if calm { 0 } else { rng.pick(of) };
        let faults = Faults {
            disk_error: rare(&[0, 20, 100]),
            disk_stuck: rare(&[0, 50, 200]),
            abort: rare(&[0, 15, 60]),
            event: rare(&[0, 40, 100]),
            mem: MemFaults::default(),
            latency: Duration::from_micros(50),
            disk_latency: Duration::ZERO,
            chunk: usize::MAX,
        };
        let faults = Faults {
            mem: MemFaults {
                seed: rng.next(),
                reorder_gets: rng.coin(),
                fail_get_one_in: if calm { 0 } else { rng.pick(&[0, 0, 50]) },
                cut_one_in: if calm { 0 } else { rng.pick(&[0, 0, 2000]) },
            },
            latency: Duration::from_micros(rng.pick(&[1, 50, 2000])),
            disk_latency: Duration::from_micros(rng.pick(&[0, 100, 20_000])),
            chunk: rng.pick(&[1, 47, 1460, 65_536]),
            ..faults
        };
        let max_blocks = rng.pick(&[1, 8, 64]);
        // Pieces of one byte are for short transfers.
        let chunk = if max_blocks > 8 { faults.chunk.max(47) } else { faults.chunk };
        Self {
            seed,
            transport,
            initiators: 1 + rng.index(2),
            initiator: preferences(&mut rng),
            target: preferences(&mut rng),
            window: rng.pick(&[1, 2, 7, 32, 128]),
            commands: 60 + rng.below(100) as u32,
            queue_depth: rng.pick(&[1, 4, 40]),
            max_blocks,
            faults: Faults { chunk, ..faults },
        }
    }
}

fn preferences(rng: &mut Rng) -> Preferences {
    let digest = [DigestPolicy::Never, DigestPolicy::Avoid, DigestPolicy::Prefer];
    let max_burst_length = rng.pick(&[512, 4096, 65_536, 1_048_576]);
    let fast = [TaskReporting::FastAbort, TaskReporting::ResponseFence, TaskReporting::Rfc3720];
    Preferences {
        header_digest: rng.pick(&digest),
        data_digest: rng.pick(&digest),
        initial_r2t: rng.coin(),
        immediate_data: rng.coin(),
        max_recv_data_segment_length: rng.pick(&[512, 1000, 8192, 262_144]),
        max_burst_length,
        first_burst_length: rng.pick(&[512, 4096, 65_536]).min(max_burst_length),
        max_outstanding_r2t: rng.pick(&[1, 3, 16]),
        data_pdu_in_order: rng.coin(),
        data_sequence_in_order: rng.coin(),
        task_reporting: if rng.coin() { fast.to_vec() } else { Vec::new() },
        iscsi_protocol_level: rng.pick(&[1, 2]),
        default_time2wait: rng.pick(&[0, 2]),
        default_time2retain: rng.pick(&[0, 20]),
        ..Preferences::default()
    }
}
