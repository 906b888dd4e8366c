//! Two cores back to back. What either says on the wire alone is tested in `tests/`.

use super::*;
use datamover::{IoBuf, SlabPool, TaskBuffers};
use iscsi_pdu::{Lun, ScsiCommand, ScsiResponse, ScsiStatus, StatSn};

struct Ends {
    i: TcpCore,
    t: TcpCore,
    /// Bytes moved at a time.
    chunk: usize,
}

fn ends(keys: &ConnKeys, chunk: usize) -> Ends {
    let new = |role| {
        let pool = Arc::new(SlabPool::default());
        TcpCore::new(role, keys.clone(), &Resources::default(), pool, Handover::default())
    };
    Ends { i: new(Role::Initiator), t: new(Role::Target), chunk }
}

impl Ends {
    /// Moves all bytes there are; whether there were any.
    fn pump(&mut self) -> bool {
        let mut moved = false;
        loop {
            let a = step(&mut self.i, &mut self.t, self.chunk);
            let b = step(&mut self.t, &mut self.i, self.chunk);
            if !(a || b) {
                return moved;
            }
            moved = true;
        }
    }
}

fn step(from: &mut TcpCore, to: &mut TcpCore, chunk: usize) -> bool {
    let mut wire = Vec::new();
    {
        let mut slots = [IoSlice::new(&[]); 8];
        let n = from.transmit_slices(&mut slots);
        for slot in &slots[..n] {
            let take = slot.len().min(chunk - wire.len());
            wire.extend_from_slice(&slot[..take]);
        }
    }
    from.transmitted(wire.len());
    let any = !wire.is_empty();
    let mut rest = &wire[..];
    while !rest.is_empty() && to.is_open() {
        let mut n = 0;
        let mut slots = to.recv_slots();
        for slot in slots.as_mut_slice() {
            let take = slot.len().min(rest.len());
            slot[..take].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            n += take;
        }
        assert!(n > 0, "room for what is left");
        to.received(n);
    }
    any
}

fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn events(core: &mut TcpCore) -> Vec<Event> {
    std::iter::from_fn(|| core.poll_event()).filter(|e| !matches!(e, Event::Window(_))).collect()
}

fn command(itt: u32, read: usize, write: usize) -> ScsiCommand {
    ScsiCommand {
        final_pdu: true,
        read: read > 0,
        write: write > 0,
        itt: Itt(itt),
        expected_data_transfer_length: (read + write) as u32,
        ..Default::default()
    }
}

#[test]
fn read_and_write_in_all_chunkings() {
    for digest in [false, true] {
        for chunk in [1, 3, 47, 48, 49, 511, 4096, 70_000, usize::MAX / 2] {
            let mut keys = ConnKeys::default();
            (keys.header_digest, keys.data_digest) = (digest, digest);
            (keys.max_burst_length, keys.max_outstanding_r2t) = (20_000, 3);
            let mut e = ends(&keys, chunk);
            let data = pattern(66_001);
            let read = TaskBuffers { r#in: Some(IoBuf::zeroed(data.len()).into()), out: None };
            e.i.send_control(Control {
                pdu: command(1, data.len(), 0).into(),
                buffers: read,
                unsolicited: 0,
            })
            .unwrap();
            let write = TaskBuffers { out: Some(data.clone().into()), r#in: None };
            e.i.send_control(Control {
                pdu: command(2, 0, data.len()).into(),
                buffers: write,
                unsolicited: 0,
            })
            .unwrap();
            e.pump();
            assert_eq!(events(&mut e.t).len(), 2);
            for offset in [0, 30_000, 60_000] {
                let part = data.slice(offset..data.len().min(offset + 30_000));
                e.t.put_data(PutData {
                    itt: Itt(1),
                    lun: Lun::ZERO,
                    offset: offset as u32,
                    data: part.into(),
                    resume: None,
                    ack: false,
                    notify: true,
                })
                .unwrap();
            }
            e.t.send_control(
                ScsiResponse {
                    itt: Itt(1),
                    stat_sn: StatSn(9),
                    status: ScsiStatus::Good,
                    ..Default::default()
                }
                .into(),
            )
            .unwrap();
            let into = IoBuf::zeroed(data.len()).into();
            e.t.get_data(GetData { itt: Itt(2), lun: Lun::ZERO, offset: 0, into, resume: None }).unwrap();
            e.pump();
            let mut done = events(&mut e.t);
            let Some(Event::DataCompletion(DataCompletion {
                itt: Itt(2),
                data: Some(got),
                result: Ok(()),
                ..
            })) = done.pop()
            else {
                panic!("{done:?}")
            };
            assert_eq!(got.freeze().to_bytes(), data);
            assert_eq!(done.len(), 3, "one for each Put: {done:?}");
            let mut done = events(&mut e.i);
            let Some(Event::Control(c)) = done.pop() else { panic!("{done:?}") };
            assert!(done.is_empty());
            let Pdu::ScsiResponse(r) = c.pdu else { panic!() };
            assert_eq!((r.itt, r.stat_sn, r.residual), (Itt(1), StatSn(9), iscsi_pdu::Residual::None));
            assert_eq!(c.buffers.r#in.unwrap().freeze().to_bytes(), data);
        }
    }
}
