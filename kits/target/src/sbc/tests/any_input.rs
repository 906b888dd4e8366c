//! Whatever an initiator sends, each command ends once, and the unit is there for the next one.

use super::*;
use crate::nexus::tests::{Engine, ram_target};
use crate::sbc::table;
use proptest::prelude::*;

/// Any bytes, or any bytes within the bits that a command of the table uses.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    let (_, unit) = ram_target();
    let rows: Vec<Vec<u8>> = table::rows(&unit).map(|row| row.accepted().collect()).collect();
    let actions: Vec<Option<u16>> = table::rows(&unit).map(|row| row.service_action).collect();
    let known = (0..rows.len(), prop::collection::vec(any::<u8>(), 16), 0u8..4).prop_map(
        move |(n, random, small)| {
            let used = &rows[n];
            let mut cdb: Vec<u8> = used.iter().zip(&random).map(|(used, random)| used & random).collect();
            cdb[0] = used[0];
            if let Some(action) = actions[n] {
                cdb[1] = (cdb[1] & 0xe0) | action as u8;
            }
            // Most random numbers are too large for the unit: make some of them small.
            if small > 0 {
                let len = cdb.len();
                let keep = if small > 1 { len - 3 } else { len - 2 };
                cdb[2..keep].fill(0);
            }
            cdb
        },
    );
    prop_oneof![9 => known, 1 => prop::collection::vec(any::<u8>(), 6..40)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_command_ends(
        commands in prop::collection::vec((cdb(), 0u32..70_000, prop::collection::vec(any::<u8>(), 0..2048)), 1..40),
    ) {
        let (target, unit) = ram_target();
        let mut engines = [Engine::new(&target, 1), Engine::new(&target, 2)];
        for (n, (cdb, room, output)) in commands.into_iter().enumerate() {
            let e = &mut engines[n % 2];
            let reply = e.raw(&cdb, room, &output);
            if reply.outcome.sense.is_empty() {
                prop_assert!(reply.data.len() as u64 <= reply.outcome.read_length);
            } else {
                prop_assert!(Sense::decode(&reply.outcome.sense).is_ok());
            }
            prop_assert_eq!(e.nexus.tasks(), 0);
        }
        while unit.state().busy.is_some() {
            std::thread::yield_now();
        }
    }
}
