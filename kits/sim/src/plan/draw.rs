//! How a plan is drawn from its seed. Every choice has a source of its own, see [`Rng::named`].

use super::{CommandPlan, Fault, FaultPlan, Links, Op, Plan, Rdma, RdmaFaults, Transport, Trouble};
use crate::rng::Rng;
use datamover::mem::MemFaults;
use iscsi_login::{DigestPolicy, Preferences, RdmaPolicy, TaskReporting};
use std::time::Duration;

struct Draw(u64);

impl Draw {
    fn rng(&self, name: &str) -> Rng {
        Rng::named(self.0, name)
    }

    fn pick<T: Copy>(&self, name: &str, of: &[T]) -> T {
        self.rng(name).pick(of)
    }

    fn coin(&self, name: &str) -> bool {
        self.rng(name).coin()
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let draw = Draw(seed);
        let transport = draw.pick("transport", &Transport::ALL);
        let level = draw.pick("level", &[0, 0, 1, 1, 2, 2]);
        let connections = draw.pick("connections", &[1, 1, 2, 3, 4]);
        let max_blocks = draw.pick("max_blocks", &[1, 8, 64]);
        // One run in four is without faults, one in eight has none but requests that change nothing.
        let mood = draw.pick("mood", &[0, 0, 1, 2, 2, 2, 2, 2]);
        let hosts = workload(&draw, max_blocks, if mood == 2 { 1 } else { 0 });
        let commands = hosts.iter().map(Vec::len).sum::<usize>() as u32;
        let span = |h: &Vec<CommandPlan>| Some((h.first()?.index, h.last()?.index + 1));
        let spans = hosts.iter().filter_map(span).collect();
        let mut faults = match mood {
            0 => Vec::new(),
            1 => requests_only(&draw, commands),
            _ => faults(&draw, commands, hosts.len()),
        };
        hostile(&draw, transport, mood == 2, commands, hosts.len(), &mut faults);
        if mood != 0 {
            declarations(&draw, transport, commands, hosts.len(), &mut faults);
        }
        Self {
            seed,
            transport,
            initiator: preferences(&draw, "initiator", transport, level, connections),
            target: preferences(
                &draw,
                "target",
                transport,
                level,
                draw.pick("target connections", &[1, 4, 4, 4]),
            ),
            window: draw.pick("window", &[1, 2, 7, 32, 128]),
            queue_depth: draw.pick("queue_depth", &[1, 4, 40]),
            connections,
            links: links(&draw, max_blocks, mood == 2),
            tas: draw.coin("tas"),
            disk_latency: Duration::from_micros(draw.pick("disk_latency", &[0, 100, 20_000])),
            spans,
            hosts,
            faults,
        }
    }
}

fn workload(draw: &Draw, max_blocks: u32, trouble: u64) -> Vec<Vec<CommandPlan>> {
    let initiators = 1 + draw.rng("initiators").below(2);
    let per_host = 30 + draw.rng("commands").below(70) as u32;
    let swaps = draw.pick("bidirectional", &[0, 0, 1]);
    let [abort, error, stuck] = [("abort", [0, 15, 60]), ("error", [0, 20, 100]), ("stuck", [0, 50, 200])]
        .map(|(name, of)| trouble * draw.pick(name, &of));
    let mut index = 0;
    let mut rng = draw.rng("workload");
    let mut command = || {
        let kind = rng.below(20 + swaps);
        let op = match kind {
            0..8 => Op::Read,
            8..17 => Op::Write,
            17 | 18 => Op::WriteThrough,
            19 => Op::Sync,
            _ => Op::Swap,
        };
        let most = if op == Op::Sync { Plan::BLOCKS } else { max_blocks };
        let blocks = 1 + rng.below(u64::from(most)) as u32;
        let trouble = match () {
            () if rng.one_in(abort) => Trouble::Abort,
            () if rng.one_in(error) => Trouble::Error,
            () if rng.one_in(stuck) => Trouble::Stuck,
            () => Trouble::None,
        };
        index += 1;
        let at = rng.below(u64::from(Plan::BLOCKS - blocks + 1)) as u32;
        CommandPlan { index: index - 1, op, at, blocks, trouble, dice: rng.next() }
    };
    (0..initiators).map(|_| (0..per_host).map(|_| command()).collect()).collect()
}

fn links(draw: &Draw, max_blocks: u32, faults: bool) -> Links {
    let chunk = draw.pick("chunk", &[1, 47, 1460, 65_536]);
    let rare = |name: &str, n: u32| if faults { draw.pick(name, &[0, 0, n]) } else { 0 };
    Links {
        mem: MemFaults {
            seed: 0,
            reorder_gets: draw.coin("reorder_gets"),
            fail_get_one_in: rare("fail_get", 50),
            cut_one_in: rare("cut_one_in", 2000),
        },
        latency: Duration::from_micros(draw.pick("latency", &[1, 50, 2000])),
        skew: Duration::from_micros(draw.pick("skew", &[0, 0, 500, 20_000])),
        // Pieces of one byte are for short transfers.
        chunk: if max_blocks > 1 { chunk.max(47) } else { chunk },
        capacity: draw.pick("capacity", &[4096, 65_536, 262_144]),
        rdma: Rdma {
            ord: draw.pick("ord", &[1, 2, 16]),
            ird: draw.pick("ird", &[1, 2, 16]),
            send_invalidate: draw.pick("send_invalidate", &[true, true, false]),
            slow_invalidation: draw.coin("slow_invalidation"),
            registered_only: draw.coin("registered_only"),
            max_sge: draw.pick("max_sge", &[1, 3, 16]),
            upgrade: draw.coin("upgrade"),
            faults: RdmaFaults {
                error_one_in: if faults { draw.pick("rdma error", &[0, 0, 500]) } else { 0 },
                late_one_in: draw.pick("rdma late", &[0, 0, 8]),
                no_invalidate_one_in: draw.pick("rdma no invalidate", &[0, 0, 3]),
                dead_after: if faults {
                    draw.pick("rdma dead", &[None, None, None, Some(900)])
                } else {
                    None
                },
            },
        },
    }
}

/// Faults are frequent or rare; of each kind or of a few.
fn faults(draw: &Draw, commands: u32, hosts: usize) -> Vec<FaultPlan> {
    use Fault as F;
    let all = [
        F::Cut,
        F::Cut,
        F::Stall,
        F::Stall,
        F::HalfClose,
        F::Corrupt,
        F::Corrupt,
        F::Corrupt,
        F::Shutdown,
        F::LogoutRequest,
        F::NegotiationRequest,
        F::TargetCrash,
        F::TargetCrash,
        F::HostCrash,
        F::SilentHostCrash,
        F::ClockJump,
        F::DiskStall,
        F::AbortTaskSet,
        F::ClearTaskSet,
        F::LogicalUnitReset,
        F::ClearAca,
        F::WarmReset,
        F::ColdReset,
        F::NexusReset,
        F::QueryTask,
        F::QueryTaskSet,
        F::QueryEvent,
        F::Ping,
        F::Text,
        F::Logout,
        F::LogoutConnection,
        F::LogoutConnection,
        F::Ping,
    ];
    let mut rng = draw.rng("faults");
    let every = draw.pick("fault distance", &[10, 30, 100]);
    let few: Vec<Fault> = (0..3).map(|_| rng.pick(&all)).collect();
    let of = if draw.coin("few kinds") { &few[..] } else { &all[..] };
    let mut faults = Vec::new();
    for after in 1..=commands {
        if rng.one_in(every) {
            let index = faults.len() as u32;
            faults.push(FaultPlan {
                index,
                after,
                host: rng.index(hosts),
                fault: rng.pick(of),
                dice: rng.next(),
            });
        }
    }
    faults
}

/// Hostile peers, which come over TCP: an initiator beside honest ones whatever else happens, targets among faults.
fn hostile(
    draw: &Draw,
    transport: Transport,
    trouble: bool,
    commands: u32,
    hosts: usize,
    faults: &mut Vec<FaultPlan>,
) {
    if transport.is_iser() {
        return;
    }
    let mut rng = draw.rng("hostile");
    let mut kinds = Vec::new();
    kinds.extend(rng.one_in(3).then_some(Fault::Intruder));
    kinds.extend((0..rng.below(4)).map(|_| Fault::Impostor).filter(|_| trouble));
    for fault in kinds {
        let index = faults.len() as u32;
        let after = if fault == Fault::Intruder { 0 } else { rng.below(u64::from(commands)) as u32 };
        faults.push(FaultPlan { index, after, host: rng.index(hosts), fault, dice: rng.next() });
    }
    faults.sort_by_key(|f| f.after);
}

/// In one plan of four, connections get another MaxRecvDataSegmentLength amid the commands; with iSER they have none.
fn declarations(draw: &Draw, transport: Transport, commands: u32, hosts: usize, faults: &mut Vec<FaultPlan>) {
    let mut rng = draw.rng("declarations");
    if transport.is_iser() || !rng.one_in(4) {
        return;
    }
    for _ in 0..1 + rng.below(8) {
        let index = faults.len() as u32;
        let after = 1 + rng.below(u64::from(commands)) as u32;
        faults.push(FaultPlan {
            index,
            after,
            host: rng.index(hosts),
            fault: Fault::Declare,
            dice: rng.next(),
        });
    }
    faults.sort_by_key(|f| f.after);
}

fn requests_only(draw: &Draw, commands: u32) -> Vec<FaultPlan> {
    let mut rng = draw.rng("requests");
    let mut after: Vec<u32> = (0..1 + rng.below(3)).map(|_| rng.below(u64::from(commands)) as u32).collect();
    after.sort_unstable();
    let plan = |(index, after)| FaultPlan {
        index: index as u32,
        after,
        host: 0,
        fault: rng.pick(&[Fault::Ping, Fault::Text, Fault::QueryTask]),
        dice: rng.next(),
    };
    after.into_iter().enumerate().map(plan).collect()
}

fn preferences(draw: &Draw, end: &str, transport: Transport, level: u8, connections: u16) -> Preferences {
    let mut rng = draw.rng(end);
    let digest = [DigestPolicy::Never, DigestPolicy::Avoid, DigestPolicy::Prefer, DigestPolicy::Prefer];
    let max_burst_length = rng.pick(&[512, 4096, 65_536, 1_048_576]);
    let fast = [TaskReporting::FastAbort, TaskReporting::ResponseFence, TaskReporting::Rfc3720];
    let rdma = if transport.is_iser() { RdmaPolicy::Require } else { RdmaPolicy::Never };
    let mut preferences = Preferences {
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
        error_recovery_level: level,
        max_connections: connections,
        rdma_extensions: rdma,
        ..Preferences::default()
    };
    if transport.is_iser() {
        preferences.initiator_recv_data_segment_length = rng.pick(&[512, 8192]);
        preferences.target_recv_data_segment_length = rng.pick(&[512, 8192, 65_536]);
        preferences.max_outstanding_unexpected_pdus = rng.pick(&[None, None, Some(8), Some(64)]);
        preferences.tagged_buffer_for_solicited_data_only = rng.pick(&[None, Some(true), Some(false)]);
        preferences.iser_hello_required = rng.pick(&[None, Some(false), Some(true)]);
        preferences.header_digest = DigestPolicy::Never;
        preferences.data_digest = DigestPolicy::Never;
    }
    preferences
}
