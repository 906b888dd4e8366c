//! Every way in which a write's data may travel, small bursts and short PDUs, against a shadow of the disk.

mod common;

use common::{IQN, attach, options, pattern, ram, serve_with};
use iscsi_initiator::Policy;
use iscsi_login::Preferences;
use iscsi_target::config::{Config, TargetConfig};

const BLOCK: u64 = 512;

// InitialR2T and ImmediateData in all combinations, Data*InOrder both ways, one and many R2Ts outstanding.
// req: 7143-13.10-1, 7143-13.11-1, 7143-13.17-1, 7143-13.18-1, 7143-13.19-1
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_combinations_carry_the_same_bytes() {
    for (initial_r2t, immediate_data) in [(true, true), (true, false), (false, true), (false, false)] {
        for (pdus, sequences) in [(true, true), (false, true), (true, false), (false, false)] {
            for max_outstanding_r2t in [1, 3, 65_535] {
                let preferences = Preferences {
                    initial_r2t,
                    immediate_data,
                    data_pdu_in_order: pdus,
                    data_sequence_in_order: sequences,
                    max_outstanding_r2t,
                    max_recv_data_segment_length: 1024,
                    first_burst_length: 2560,
                    max_burst_length: 4096,
                    ..Preferences::default()
                };
                carry(preferences).await;
            }
        }
    }
}

async fn carry(preferences: Preferences) {
    let target = TargetConfig { luns: vec![ram(1)], ..TargetConfig::new(IQN.parse().unwrap()) };
    let config =
        Config { targets: vec![target], preferences: Some(preferences.clone()), ..Config::default() };
    let server = serve_with(config).await;
    let portal = server.local_addrs()[0];
    let mut options = options();
    options.transport = Policy::tcp();
    options.preferences = preferences.clone();
    let disk = attach(portal, &options).await;
    let mut shadow = vec![0; 1 << 20];
    // Lengths around every bound: one block, a PDU, the first burst, a burst, many.
    for (round, blocks) in [1u64, 2, 3, 5, 6, 8, 9, 16, 64, 129].into_iter().enumerate() {
        let writes = (0..4u64).map(|n| {
            let lba = (round as u64 * 17 + n * 300) % (2048 - blocks);
            (lba, pattern(lba * BLOCK, (blocks * BLOCK) as usize, round as u64 * 4 + n + 1))
        });
        let writes: Vec<_> = writes.collect();
        let mut tasks = tokio::task::JoinSet::new();
        for (lba, data) in &writes {
            let (disk, lba, data) = (disk.clone(), *lba, data.clone());
            tasks.spawn(async move { disk.write(lba, data.into()).await.unwrap() });
            let at = (lba * BLOCK) as usize;
            shadow[at..at + writes[0].1.len()]
                .copy_from_slice(&writes.iter().find(|w| w.0 == lba).unwrap().1);
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
    let back = disk.read(0, 2048).await.unwrap().to_bytes();
    assert!(back == shadow, "{preferences:?}");
    disk.close().await.unwrap();
    // By other means: one PDU a read, all in order.
    let plain = attach(portal, &common::options()).await;
    assert!(plain.read(0, 2048).await.unwrap().to_bytes() == shadow, "{preferences:?}");
    plain.close().await.unwrap();
    server.shutdown().await;
}
