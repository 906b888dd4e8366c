//! However the stream is cut, the same things happen.

#[path = "common/play.rs"]
#[allow(unreachable_pub, reason = "a module of its own in the fuzz target")]
mod play;

use bytes::{Bytes, BytesMut};
use iscsi_pdu::{
    DataIn, DataOut, DataSn, Itt, NopIn, NopOut, Pdu, R2t, R2tSn, ScsiCommand, ScsiResponse, ScsiStatus, Ttt,
};
use play::{LEN, Script, play, with_digests};
use proptest::prelude::*;

fn data(max: usize) -> impl Strategy<Value = Bytes> {
    (0..max, any::<u8>()).prop_map(|(len, seed)| (0..len).map(|n| seed.wrapping_add((n * 7) as u8)).collect())
}

/// Steps of a conversation; the numbers that must fit are filled in afterwards.
#[derive(Clone, Debug)]
enum Step {
    Small(Bytes),
    Data { task: u32, data: Bytes, last: bool },
    Ask { task: u32, len: u32 },
    Respond { task: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => data(600).prop_map(Step::Small),
        5 => (1..5u32, data(30_000), any::<bool>()).prop_map(|(task, data, last)| Step::Data { task, data, last }),
        2 => (1..5u32, 1..20_000u32).prop_map(|(task, len)| Step::Ask { task, len }),
        1 => (1..5u32).prop_map(|task| Step::Respond { task }),
    ]
}

/// What a target might send to the four open tasks of an initiator.
fn of_target(steps: &[Step]) -> Vec<Pdu> {
    let (mut data_sn, mut at, mut r2t_sn, mut asked) = ([0u32; 5], [0usize; 5], [0u32; 5], [0u32; 5]);
    let mut n = 0;
    let mut pdus = Vec::new();
    for step in steps {
        n += 1;
        pdus.push(match step.clone() {
            Step::Small(data) => NopIn { stat_sn: n.into(), data, ..NopIn::default() }.into(),
            Step::Data { task, data, last } => {
                let t = task as usize;
                let data = data.slice(..data.len().min(LEN - at[t]));
                let pdu = DataIn {
                    final_pdu: last,
                    status: (last && task == 1).then_some(ScsiStatus::Good),
                    itt: Itt(task),
                    data_sn: DataSn(data_sn[t]),
                    buffer_offset: at[t] as u32,
                    data: data.clone(),
                    ..DataIn::default()
                };
                data_sn[t] += 1;
                at[t] += data.len();
                pdu.into()
            }
            Step::Ask { task, len } => {
                let t = task as usize;
                let len = len.min(LEN as u32 - asked[t]).max(1);
                let pdu = R2t {
                    itt: Itt(task),
                    ttt: Ttt(n),
                    r2t_sn: R2tSn(r2t_sn[t]),
                    buffer_offset: asked[t],
                    desired_data_transfer_length: len,
                    ..R2t::default()
                };
                r2t_sn[t] += 1;
                asked[t] += len;
                pdu.into()
            }
            Step::Respond { task } => ScsiResponse { itt: Itt(task), ..ScsiResponse::default() }.into(),
        });
    }
    pdus
}

/// What an initiator might send to a target with Gets open for tasks 1 and 2: their R2Ts have tags 0 to 5.
fn of_initiator(steps: &[Step]) -> Vec<Pdu> {
    let (mut data_sn, mut at) = ([0u32; 6], [0usize; 6]);
    let mut n = 0;
    let mut pdus = Vec::new();
    for step in steps {
        n += 1;
        pdus.push(match step.clone() {
            Step::Small(data) => NopOut { itt: Itt(n), cmd_sn: n.into(), data, ..NopOut::default() }.into(),
            Step::Data { task, data, .. } => {
                let ttt = task as usize % 6;
                let data = data.slice(..data.len().min(20_000 - at[ttt]));
                let pdu = DataOut {
                    final_pdu: at[ttt] + data.len() == 20_000,
                    itt: Itt(if ttt < 3 { 1 } else { 2 }),
                    ttt: Ttt(task % 6),
                    data_sn: DataSn(data_sn[ttt]),
                    buffer_offset: (ttt % 3 * 20_000 + at[ttt]) as u32,
                    data: data.clone(),
                    ..DataOut::default()
                };
                data_sn[ttt] += 1;
                at[ttt] += data.len();
                pdu.into()
            }
            Step::Ask { task, len } => {
                DataOut { itt: Itt(task), data: vec![1; len as usize].into(), ..DataOut::default() }.into()
            }
            Step::Respond { task } => ScsiCommand {
                final_pdu: true,
                write: true,
                itt: Itt(n + 100),
                expected_data_transfer_length: 60_000,
                data: vec![task as u8; task as usize * 15_000].into(),
                ..ScsiCommand::default()
            }
            .into(),
        });
    }
    pdus
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn conversations(
        bits in 0u8..64,
        steps in proptest::collection::vec(step(), 1..25),
        lengths in proptest::collection::vec(prop_oneof![1usize..60, 1usize..2_000, 1usize..80_000], 1..12),
        damage in proptest::option::of(any::<(proptest::sample::Index, u8)>()),
    ) {
        let script = Script::from_bits(bits);
        let pdus = if bits & 1 == 1 { of_target(&steps) } else { of_initiator(&steps) };
        let mut plain = BytesMut::new();
        for pdu in &pdus {
            pdu.encode(&mut plain).unwrap();
        }
        let mut stream = with_digests(&plain, script.digests);
        let all = with_digests(&plain, iscsi_pdu::Digests::NONE);
        prop_assert_eq!(all.len(), plain.len(), "all of it are PDUs");
        if let Some((at, bits)) = damage {
            let at = at.index(stream.len());
            stream[at] ^= bits;
        }
        let whole = play(&script, &stream, &[usize::MAX]);
        prop_assert_eq!(play(&script, &stream, &lengths), whole);
    }

    #[test]
    fn noise(
        bits in 0u8..64,
        stream in proptest::collection::vec(any::<u8>(), 0..400),
        lengths in proptest::collection::vec(1usize..80, 1..5),
    ) {
        let script = Script::from_bits(bits);
        let whole = play(&script, &stream, &[usize::MAX]);
        prop_assert_eq!(play(&script, &stream, &lengths), whole);
    }
}
