//! Connections of foreign stacks, played back with the core in the place of either end.
//!
//! The streams are those of `iscsi-pdu/tests/captures`: each is played to the core of the role that received it,
//! while the test does above the interface what the other stream shows was done.

mod common;

use bytes::Bytes;
use common::{Peer, wire};
use datamover::{ConnKeys, Control, DataCompletion, Event, GetData, IoBuf, Role, TaskBuffers};
use iscsi_pdu::{Digests, Framer, Itt, Limits, Lun, Opcode, Pdu, Residual, ScsiCommand, ScsiResponse, Ttt};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

struct Connection {
    digests: Digests,
    initiator: Vec<Pdu>,
    target: Vec<Pdu>,
}

/// Both directions of a connection, from full feature phase on.
fn connection(name: &str, digests: Digests) -> Connection {
    let direction = |end: &str| {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../iscsi-pdu/tests/captures");
        let path = dir.join(format!("{name}.{end}"));
        let wire = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut framer = Framer::new(Limits::MAX);
        framer.push(Bytes::from(wire));
        let mut pdus = Vec::new();
        let mut login = true;
        while let Some(pdu) = framer.next_pdu().unwrap() {
            match &pdu {
                Pdu::LoginRequest(p) if p.transit && p.nsg.0 == 3 => login = false,
                Pdu::LoginResponse(p) if p.transit && p.nsg.0 == 3 => login = false,
                Pdu::LoginRequest(_) | Pdu::LoginResponse(_) => {}
                _ => pdus.push(pdu),
            }
            if !login {
                framer.set_digests(digests);
            }
        }
        pdus
    };
    Connection { digests, initiator: direction("initiator"), target: direction("target") }
}

fn keys(digests: Digests) -> ConnKeys {
    let mut keys = ConnKeys::default();
    (keys.header_digest, keys.data_digest) = (digests.header, digests.data);
    keys.max_recv_data_segment_length = 262_144;
    keys.max_send_data_segment_length = 262_144;
    keys.max_burst_length = 1 << 24;
    keys.max_outstanding_r2t = 16;
    keys
}

/// Output of every command: what its immediate data and Data-Outs carried. Tags are used again, so in order.
fn outputs(c: &Connection) -> BTreeMap<Itt, VecDeque<Vec<u8>>> {
    let mut all: BTreeMap<Itt, VecDeque<Vec<u8>>> = BTreeMap::new();
    for pdu in &c.initiator {
        match pdu {
            Pdu::ScsiCommand(p) if p.write => {
                let mut out = vec![0; p.expected_data_transfer_length as usize];
                let len = p.data.len().min(out.len());
                out[..len].copy_from_slice(&p.data[..len]);
                all.entry(p.itt).or_default().push_back(out);
            }
            Pdu::DataOut(p) => {
                let out = all.get_mut(&p.itt).and_then(|o| o.back_mut()).expect("a command first");
                let at = p.buffer_offset as usize;
                if let Some(to) = out.get_mut(at..at + p.data.len()) {
                    to.copy_from_slice(&p.data);
                }
            }
            _ => {}
        }
    }
    all
}

/// What the core sends, with the fields that the session or nobody decides taken out.
fn comparable(pdu: &Pdu) -> Option<Pdu> {
    match pdu {
        Pdu::DataOut(p) if !p.ttt.is_none() => {
            Some(Pdu::DataOut(iscsi_pdu::DataOut { exp_stat_sn: 0.into(), ..p.clone() }))
        }
        _ => None,
    }
}

/// The core as the initiator: it gets what the target sent, and must answer R2Ts as the foreign initiator did.
fn as_initiator(name: &str, digests: Digests) {
    let c = connection(name, digests);
    let mut outs = outputs(&c);
    let mut peer = Peer::new(Role::Initiator, &keys(digests));
    let mut down = c.initiator.iter();
    let mut open: BTreeMap<Itt, ScsiCommand> = BTreeMap::new();
    let mut input: BTreeMap<Itt, Vec<u8>> = BTreeMap::new();
    let (mut sent, mut reads) = (Vec::new(), 0);
    for pdu in &c.target {
        // Whatever this PDU belongs to has been sent before.
        while matches!(pdu, Pdu::DataIn(_) | Pdu::R2t(_) | Pdu::ScsiResponse(_))
            && !open.contains_key(&pdu.itt())
        {
            match down.next().expect("a command for every response") {
                Pdu::ScsiCommand(p) => {
                    let out = p.write.then(|| outs.get_mut(&p.itt).unwrap().pop_front().unwrap());
                    let room = if p.read { p.expected_data_transfer_length as usize } else { 0 };
                    let buffers = TaskBuffers {
                        out: out.map(|o| Bytes::from(o).into()),
                        r#in: p.read.then(|| IoBuf::zeroed(room).into()),
                    };
                    let unsolicited = p.data.len() as u32;
                    let control = Control { pdu: p.clone().into(), buffers, unsolicited };
                    peer.core.send_control(control).unwrap();
                    open.insert(p.itt, p.clone());
                    input.insert(p.itt, vec![0; room]);
                }
                Pdu::DataOut(p) if !p.ttt.is_none() => {}
                other => peer.core.send_control(other.clone().into()).unwrap(),
            }
        }
        if let Pdu::DataIn(p) = pdu {
            let at = p.buffer_offset as usize;
            input.get_mut(&p.itt).unwrap()[at..at + p.data.len()].copy_from_slice(&p.data);
        }
        peer.bytes(&wire(pdu, c.digests));
        sent.extend(peer.sent());
        let events = peer.events();
        // Data-In without status and R2T stay below.
        let want = match pdu {
            Pdu::R2t(_) => None,
            Pdu::DataIn(p) => p.status.map(|status| {
                ScsiResponse {
                    status,
                    itt: p.itt,
                    stat_sn: p.stat_sn,
                    exp_cmd_sn: p.exp_cmd_sn,
                    max_cmd_sn: p.max_cmd_sn,
                    residual: p.residual,
                    ..ScsiResponse::default()
                }
                .into()
            }),
            other => Some(other.clone()),
        };
        let Some(want) = want else {
            assert!(events.is_empty(), "{events:?}");
            continue;
        };
        let [Event::Control(Control { pdu: got, buffers, .. })] = &events[..] else { panic!("{events:?}") };
        if let (Pdu::ScsiResponse(got), Pdu::ScsiResponse(want)) = (got, &want) {
            assert_eq!(ScsiResponse { exp_data_sn: want.exp_data_sn, ..got.clone() }, *want);
            let command = open.remove(&got.itt).unwrap();
            let list = buffers.r#in.as_ref().map(|l| l.slices(0, l.len()).collect::<Vec<_>>().concat());
            assert_eq!(list.unwrap_or_default(), input[&got.itt], "{command:?}");
            reads += usize::from(command.read);
        } else {
            assert_eq!(*got, want);
        }
    }
    let ours: Vec<Pdu> = sent.iter().filter_map(comparable).collect();
    let theirs: Vec<Pdu> = c.initiator.iter().filter_map(comparable).collect();
    assert_eq!(ours, theirs);
    assert!(reads > 0 || !ours.is_empty() || name.ends_with("-0"), "{name} moves data");
    let stats = peer.core.stats();
    assert_eq!(stats.pdus_in, c.target.len() as u64);
}

/// The core as the target: it gets what the initiator sent. Solicited Data-Outs get the tags of our R2Ts.
fn as_target(name: &str, digests: Digests) {
    let c = connection(name, digests);
    let mut outs = outputs(&c);
    let mut peer = Peer::new(Role::Target, &keys(digests));
    let mut r2ts: BTreeMap<Ttt, (Itt, u32, u32)> = BTreeMap::new();
    for pdu in &c.target {
        if let Pdu::R2t(p) = pdu {
            r2ts.insert(p.ttt, (p.itt, p.buffer_offset, p.desired_data_transfer_length));
        }
    }
    let mut tags: BTreeMap<Ttt, Ttt> = BTreeMap::new();
    let (mut got, mut want) = (BTreeMap::new(), BTreeMap::new());
    let (mut up, mut solicited) = (0usize, 0usize);
    for pdu in &c.initiator {
        let mut pdu = pdu.clone();
        if let Pdu::DataOut(p) = &mut pdu
            && !p.ttt.is_none()
        {
            solicited += 1;
            let theirs = p.ttt;
            p.ttt = *tags.entry(theirs).or_insert_with(|| {
                let (itt, offset, len) = r2ts[&theirs];
                let into = IoBuf::zeroed(len as usize).into();
                peer.core.get_data(GetData { itt, lun: Lun::ZERO, offset, into, resume: None }).unwrap();
                let Pdu::R2t(r) = peer.one_sent() else { panic!() };
                assert_eq!((r.itt, r.buffer_offset, r.desired_data_transfer_length), (itt, offset, len));
                let out = outs[&itt].front().unwrap();
                want.insert((itt, offset), out[offset as usize..(offset + len) as usize].to_vec());
                r.ttt
            });
        }
        if let Pdu::ScsiCommand(p) = &pdu
            && got.keys().any(|(itt, _)| *itt == p.itt)
        {
            // The tag's next use.
            outs.get_mut(&p.itt).and_then(VecDeque::pop_front);
        }
        peer.bytes(&wire(&pdu, c.digests));
        for event in peer.events() {
            match event {
                Event::Control(control) => {
                    assert_eq!(control.pdu, pdu);
                    up += 1;
                }
                Event::DataCompletion(DataCompletion { itt, offset, data, result: Ok(()) }) => {
                    got.insert((itt, offset), data.unwrap().freeze().to_bytes().to_vec());
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, want);
    assert_eq!(up + solicited, c.initiator.len());
}

#[test]
fn linux_and_lio() {
    for (name, digests) in [
        ("linux-lio-0", Digests::NONE),
        ("linux-lio-1", Digests::NONE),
        ("linux-lio-crc32c-0", Digests::NONE),
        ("linux-lio-crc32c-1", Digests::BOTH),
    ] {
        as_initiator(name, digests);
        as_target(name, digests);
    }
}

#[test]
fn libiscsi() {
    for name in ["libiscsi-ls-0", "libiscsi-ls-1"] {
        as_initiator(name, Digests::NONE);
        as_target(name, Digests::NONE);
    }
}

#[test]
fn captures_hold_what_they_are_played_for() {
    let c = connection("linux-lio-1", Digests::NONE);
    let count = |pdus: &[Pdu], op| pdus.iter().filter(|p| p.opcode() == op).count();
    assert!(count(&c.target, Opcode::DataIn) > 0 && count(&c.initiator, Opcode::ScsiCommand) > 0);
    let fused = c.target.iter().any(|p| matches!(p, Pdu::DataIn(d) if d.status.is_some()));
    let short = c.target.iter().any(|p| match p {
        Pdu::DataIn(d) => d.residual != Residual::None,
        Pdu::ScsiResponse(r) => r.residual != Residual::None,
        _ => false,
    });
    assert!(fused && short);
}
