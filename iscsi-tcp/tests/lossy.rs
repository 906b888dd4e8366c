//! ErrorRecoveryLevel 1, both roles together, over a wire that damages data and swallows PDUs: every transfer ends,
//! those that end well have every byte right, and a single fault does no harm.

mod common;

use bytes::Bytes;
use common::{Peer, command, pattern, wire};
use datamover::{
    BufPool, ConnKeys, Control, DataCompletion, Event, GetData, IoBuf, PutData, Role, TaskBuffers, Window,
};
use iscsi_pdu::{Digests, Lun, Pdu, ScsiResponse, StatSn};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What happens to data PDUs on the way; nothing once it is used up.
#[derive(Clone, Debug)]
struct Faults(Vec<Fault>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// A bit of the data changes.
    Damage(u16),
    /// The PDU is lost, as a header digest error under a sync and steering layer would lose it.
    Lose,
}

impl Faults {
    fn next(&mut self) -> Fault {
        self.0.pop().unwrap_or(Fault::None)
    }
}

/// Moves what one end has sent to the other.
fn pass(from: &mut Peer, to: &mut Peer, faults: &mut Faults) -> bool {
    let pdus = from.sent();
    for pdu in &pdus {
        let mut bytes = wire(pdu, Digests::BOTH).to_vec();
        let data = pdu.data().map_or(0, Bytes::len);
        let concerned = match pdu {
            Pdu::DataIn(_) | Pdu::R2t(_) => true,
            Pdu::DataOut(d) => !d.ttt.is_none(),
            _ => false,
        };
        match if concerned { faults.next() } else { Fault::None } {
            Fault::Lose => continue,
            Fault::Damage(bit) if data > 0 => {
                let at = 52 + usize::from(bit) / 8 % data;
                bytes[at] ^= 1 << (bit % 8);
            }
            _ => {}
        }
        to.bytes(&bytes);
    }
    !pdus.is_empty()
}

#[derive(Clone, Debug)]
struct Io {
    write: bool,
    len: usize,
    piece: usize,
}

/// How many transfers failed; `None` when the connection ended.
fn run(ios: &[Io], mut faults: Faults, r2ts: u16, in_order: bool) -> Option<usize> {
    let mut keys = ConnKeys::default();
    keys.error_recovery_level = 1;
    (keys.header_digest, keys.data_digest) = (true, true);
    (keys.max_recv_data_segment_length, keys.max_send_data_segment_length) = (1000, 1000);
    (keys.max_burst_length, keys.max_outstanding_r2t) = (3000, r2ts);
    keys.data_timeout = Duration::from_secs(1);
    (keys.data_pdu_in_order, keys.data_sequence_in_order) = (in_order, in_order);
    let (mut i, mut t) = (Peer::new(Role::Initiator, &keys), Peer::new(Role::Target, &keys));
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    let mut now = Instant::now();
    let data: Vec<Bytes> = ios.iter().enumerate().map(|(n, io)| pattern(n as u32, io.len)).collect();
    for (n, io) in ios.iter().enumerate() {
        let (read, write) = if io.write { (0, io.len) } else { (io.len, 0) };
        let buffers = TaskBuffers {
            out: io.write.then(|| data[n].clone().into()),
            r#in: (!io.write).then(|| IoBuf::zeroed(io.len).into()),
        };
        let pdu = command(n as u32, read, write).into();
        i.core.send_control(Control { pdu, buffers, unsolicited: 0 }).unwrap();
    }
    let mut stat_sn = 1u32;
    let mut open: BTreeMap<u32, usize> = BTreeMap::new();
    let mut done = 0;
    let (mut failed, mut turns) = (0, 0);
    while done < ios.len() {
        i.core.set_now(now);
        t.core.set_now(now);
        let moved = pass(&mut i, &mut t, &mut faults) | pass(&mut t, &mut i, &mut faults);
        for event in t.events() {
            let finished = match event {
                Event::Control(Control { pdu: Pdu::ScsiCommand(c), .. }) => {
                    let n = c.itt.0 as usize;
                    let io = &ios[n];
                    for (k, part) in data[n].chunks(io.piece).enumerate() {
                        let (itt, lun, offset) = (c.itt, Lun::ZERO, (k * io.piece) as u32);
                        if io.write {
                            let into = IoBuf::zeroed(part.len()).into();
                            t.core.get_data(GetData { itt, lun, offset, into, resume: None }).unwrap();
                            *open.entry(c.itt.0).or_default() += 1;
                        } else {
                            let data = Bytes::copy_from_slice(part).into();
                            let put = PutData {
                                itt,
                                lun,
                                offset,
                                data,
                                resume: None,
                                ack: k % 2 == 0,
                                notify: false,
                            };
                            t.core.put_data(put).unwrap();
                        }
                    }
                    (!io.write).then_some(c.itt)
                }
                Event::DataCompletion(DataCompletion { itt, offset, data: Some(got), result }) => {
                    match result {
                        Ok(()) => {
                            let at = offset as usize;
                            let got = got.freeze().to_bytes();
                            assert_eq!(got, data[itt.0 as usize].slice(at..at + got.len()));
                        }
                        Err(_) => failed += 1,
                    }
                    let left = open.get_mut(&itt.0).unwrap();
                    *left -= 1;
                    (*left == 0).then_some(itt)
                }
                Event::Invalid(_) | Event::DataAck { .. } => None,
                other => panic!("{other:?}"),
            };
            if let Some(itt) = finished {
                let response = ScsiResponse { itt, stat_sn: StatSn(stat_sn), ..ScsiResponse::default() };
                stat_sn += 1;
                t.core.set_window(Window { stat_sn: StatSn(stat_sn), ..Window::default() });
                t.core.send_control(response.into()).unwrap();
            }
        }
        for event in i.events() {
            match event {
                Event::Control(Control { pdu: Pdu::ScsiResponse(r), buffers, .. }) => {
                    // In the order of StatSN, whatever was missing.
                    assert_eq!(r.stat_sn, StatSn(done as u32 + 1));
                    i.core.set_window(Window { stat_sn: r.stat_sn.next(), ..Window::default() });
                    if let Some(list) = buffers.r#in {
                        assert_eq!(r.residual, iscsi_pdu::Residual::None);
                        assert_eq!(list.freeze().to_bytes(), data[r.itt.0 as usize]);
                    }
                    done += 1;
                }
                Event::Invalid(_) => {}
                // SNACKs and their answers were swallowed for too long.
                Event::Terminated(_) => return None,
                other => panic!("{other:?}"),
            }
        }
        if !moved {
            turns += 1;
            assert!(turns < 30, "progress");
            now += Duration::from_secs(1);
            t.core.handle_timeout(now);
            if turns % 3 == 0 {
                i.core.handle_timeout(now);
            }
        }
    }
    drop((i.core, t.core));
    assert_eq!((i.pool.outstanding(), t.pool.outstanding()), (0, 0));
    Some(failed)
}

fn io() -> impl Strategy<Value = Io> {
    (any::<bool>(), 1usize..20_000, 300usize..8_000).prop_map(|(write, len, piece)| Io { write, len, piece })
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => any::<u16>().prop_map(Fault::Damage),
        1 => Just(Fault::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // req: 7143-11.16-1, 7143-7.8-6, 7143-7.9-1, 7143-7.9-2, 7143-7.9-5
    #[test]
    fn transfers_survive(
        ios in proptest::collection::vec(io(), 1..6),
        faults in proptest::collection::vec(fault(), 0..120),
        r2ts in 1u16..4,
        in_order: bool,
    ) {
        run(&ios, Faults(faults), r2ts, in_order);
    }
}

/// A fault for every single data PDU in turn: nothing fails.
#[test]
fn any_one_fault_is_repaired() {
    let ios = [
        Io { write: false, len: 7_001, piece: 2_500 },
        Io { write: true, len: 7_001, piece: 2_500 },
        Io { write: false, len: 10, piece: 10 },
    ];
    for fault in [Fault::Damage(77), Fault::Lose] {
        for at in 0..40 {
            let mut faults = vec![Fault::None; at];
            faults.insert(0, fault);
            // Popped from the end.
            let faults = Faults(faults);
            for in_order in [true, false] {
                let failed = run(&ios, faults.clone(), 1, in_order);
                assert_eq!(failed, Some(0), "{fault:?} of data PDU {at}, in order: {in_order}");
            }
        }
    }
}
