//! `iscsi-tcp`: the core without sockets.

use crate::Operation;
use bytes::{Bytes, BytesMut};
use datamover::{ConnKeys, Control, Event, Resources, Role, SlabPool};
use iscsi_pdu::*;
use iscsi_tcp::{Handover, TcpCore};
use std::io::IoSlice;
use std::sync::Arc;

#[path = "../../../iscsi-tcp/tests/common/pair.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with a test and a bench")]
mod pair;
use pair::{Pair, buffers};

pub(crate) fn operations() -> Vec<Operation> {
    let mut list = vec![receiving()];
    let disk = Bytes::from(vec![0x5a; 4096]);
    let (mut reader, mut rooms, data) = (Pair::new(false), buffers(1, 4096), disk.clone());
    list.push(Operation::new("tcp: READ of 4 KiB, both roles", 50, move || reader.reads(&data, &mut rooms)));
    for (name, immediate) in
        [("tcp: WRITE of 4 KiB by R2T, both roles", false), ("tcp: WRITE of 4 KiB at once, both roles", true)]
    {
        let (mut writer, data) = (Pair::new(false), disk.clone());
        list.push(Operation::new(name, 50, move || writer.writes(&data, 1, immediate)));
    }
    list
}

/// A target receives 64 KiB of READs, WRITEs with 512 bytes of immediate data and pings, in pieces as a socket gives
/// them, and answers each.
fn receiving() -> Operation {
    let mut wire = BytesMut::new();
    let mut n = 0;
    while wire.len() < 65_536 {
        let command = ScsiCommand { final_pdu: true, itt: Itt(n), cmd_sn: CmdSn(n), ..Default::default() };
        let len = 512;
        let pdu: Pdu = match n % 3 {
            0 => ScsiCommand { read: true, expected_data_transfer_length: 4096, ..command }.into(),
            1 => ScsiCommand {
                write: true,
                expected_data_transfer_length: len,
                data: Bytes::from(vec![0x5a; len as usize]),
                ..command
            }
            .into(),
            _ => NopOut::ping(Itt(n), Bytes::from_static(&[0x5a; 16])).into(),
        };
        pdu.encode(&mut wire).expect("a good PDU");
        n += 1;
    }
    let keys = ConnKeys::default();
    let pool = Arc::new(SlabPool::default());
    let mut core = TcpCore::new(Role::Target, keys, &Resources::default(), pool, Handover::default());
    Operation::new("tcp: target receives and answers 64 KiB of PDUs", 10, move || {
        let (mut at, mut answered) = (0, 0);
        while at < wire.len() {
            let mut taken = 0;
            for slot in core.recv_slots().as_mut_slice() {
                let left = &wire[at + taken..];
                let n = slot.len().min(left.len());
                slot[..n].copy_from_slice(&left[..n]);
                taken += n;
            }
            core.received(taken);
            at += taken;
            while let Some(event) = core.poll_event() {
                let answer: Pdu = match event {
                    Event::Control(Control { pdu: Pdu::ScsiCommand(c), .. }) => {
                        ScsiResponse { itt: c.itt, ..Default::default() }.into()
                    }
                    Event::Control(Control { pdu: Pdu::NopOut(p), .. }) => {
                        NopIn { itt: p.itt, data: p.data, ..Default::default() }.into()
                    }
                    Event::Window(_) => continue,
                    other => panic!("{other:?}"),
                };
                core.send_control(answer.into()).expect("room");
                answered += 1;
                // As deep a queue as initiators have.
                if answered % 32 == 0 {
                    transmit(&mut core);
                }
            }
            transmit(&mut core);
        }
        assert_eq!(answered, n);
    })
}

fn transmit(core: &mut TcpCore) {
    loop {
        let mut slots = [IoSlice::new(&[]); 64];
        let n = core.transmit_slices(&mut slots);
        let sent = slots[..n].iter().map(|s| s.len()).sum();
        if sent == 0 {
            return;
        }
        core.transmitted(sent);
    }
}
