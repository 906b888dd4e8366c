//! Two ends, or one end and a peer that a test drives by hand.

use crate::core::{IserDatamover, Parts};
use crate::provider::mem::{self, MemConfig, MemRcap, MemWire};
use crate::rcap::{Completion, Op, Rcap, Stag};
use crate::wire::{ControlHeader, ISER_HEADER_LEN, IserHeader};
use crate::{Quirks, login};
use bytes::{BufMut, Bytes, BytesMut};
use datamover::{
    Budget, Cause, ConnKeys, Control, Datamover, Drive, Event, GetData, IoBuf, PutData, Reclaimed, Resources,
    Role, SgList, SgListMut, TaskBuffers,
};
use iscsi_pdu::{Itt, Lun, Pdu, ScsiCommand, ScsiResponse};
use std::collections::VecDeque;
use std::task::Context;
use std::time::{Duration, Instant};

pub(super) type Dm = IserDatamover<MemRcap>;

pub(super) const SIDE_INI: usize = 0;
pub(super) const SIDE_TGT: usize = 1;

/// `keys`, changed.
pub(crate) fn keyed(mut keys: ConnKeys, f: impl FnOnce(&mut ConnKeys)) -> ConnKeys {
    f(&mut keys);
    keys
}

/// Keys as two ends of this crate agree on them, Hello left out.
pub(super) fn keys() -> ConnKeys {
    keyed(ConnKeys::default(), |k| {
        k.rdma_extensions = true;
        k.tagged_buffer_for_solicited_data_only = Some(true);
    })
}

pub(super) fn resources() -> Resources {
    Resources { commands: 8, unexpected: 4, max_control_data: 8192, pool_bytes: 4 << 20 }
}

pub(super) fn start(mut rcap: MemRcap, role: Role, keys: &ConnKeys, quirks: Quirks) -> Dm {
    let resources = resources();
    rcap.allocate(&login::rcap_resources(role, keys, &resources)).unwrap();
    IserDatamover::start(Parts {
        rcap,
        role,
        keys: keys.clone(),
        quirks,
        resources: Some(resources),
        posted: 0,
        backlog: VecDeque::new(),
        closed: None,
    })
}

pub(super) fn poll(dm: &mut dyn Drive, now: Instant) {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while dm.poll_drive(&mut cx, &mut Budget::new(now)).is_ready() {}
}

pub(super) fn events(dm: &mut Dm) -> Vec<Event> {
    std::iter::from_fn(|| dm.poll_event()).collect()
}

pub(super) struct World {
    pub(super) ini: Dm,
    pub(super) tgt: Dm,
    pub(super) wire: MemWire,
    pub(super) now: Instant,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(MemConfig::default(), &keys())
    }

    pub(super) fn with(config: MemConfig, keys: &ConnKeys) -> Self {
        Self::with_keys(config, keys, keys)
    }

    pub(super) fn with_keys(config: MemConfig, ini: &ConnKeys, tgt: &ConnKeys) -> Self {
        let (first, second, wire) = mem::pair(config);
        Self {
            ini: start(first, Role::Initiator, ini, Quirks::default()),
            tgt: start(second, Role::Target, tgt, Quirks::default()),
            wire,
            now: Instant::now(),
        }
    }

    /// Both ends go on until nothing moves any more.
    pub(super) fn run(&mut self) {
        for _ in 0..20 {
            poll(&mut self.ini, self.now);
            poll(&mut self.tgt, self.now);
        }
    }

    /// The same while time goes by.
    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += time / 50;
            for dm in [&mut self.ini, &mut self.tgt] {
                if dm.poll_timeout().is_some_and(|t| t <= self.now) {
                    dm.handle_timeout(self.now);
                }
                poll(dm, self.now);
            }
        }
    }

    /// Sends a command and gives what the target hears.
    pub(super) fn command(&mut self, control: Control) -> ScsiCommand<Bytes> {
        self.ini.send_control(control).unwrap();
        self.run();
        match events(&mut self.tgt).pop() {
            Some(Event::Control(Control { pdu: Pdu::ScsiCommand(p), .. })) => p,
            other => panic!("no command: {other:?}"),
        }
    }

    /// Sends GOOD status and gives the buffers that the initiator gets back.
    pub(super) fn conclude(&mut self, itt: Itt) -> TaskBuffers {
        self.tgt.send_control(good(itt)).unwrap();
        self.run();
        match events(&mut self.ini).pop() {
            Some(Event::Control(c)) if c.pdu.itt() == itt => c.buffers,
            other => panic!("no response: {other:?}"),
        }
    }
}

/// Octets that tell their place.
pub(super) fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

pub(super) fn room(len: usize) -> SgListMut {
    IoBuf::zeroed(len).into()
}

pub(super) fn joined(list: &SgListMut) -> Vec<u8> {
    list.parts().flat_map(|p| p.to_vec()).collect()
}

pub(super) fn read_command(itt: u32, len: usize) -> Control {
    let pdu = ScsiCommand {
        final_pdu: true,
        read: true,
        itt: Itt(itt),
        expected_data_transfer_length: len as u32,
        data: Bytes::new(),
        ..Default::default()
    };
    let buffers = TaskBuffers { r#in: Some(room(len).into()), out: None };
    Control { pdu: pdu.into(), buffers, unsolicited: 0 }
}

/// A write whose first `immediate` bytes go with the command.
pub(super) fn write_command(itt: u32, out: &Bytes, immediate: usize) -> Control {
    let pdu = ScsiCommand {
        final_pdu: true,
        write: true,
        itt: Itt(itt),
        expected_data_transfer_length: out.len() as u32,
        data: out.slice(..immediate),
        ..Default::default()
    };
    let buffers = TaskBuffers { out: Some(out.clone().into()), r#in: None };
    Control { pdu: pdu.into(), buffers, unsolicited: immediate as u32 }
}

pub(super) fn good(itt: Itt) -> Control {
    ScsiResponse { itt, data: Bytes::new(), ..Default::default() }.into()
}

pub(super) fn put(itt: u32, offset: u32, data: Bytes) -> PutData {
    PutData {
        itt: Itt(itt),
        lun: Lun::ZERO,
        offset,
        data: SgList::from(data),
        resume: None,
        ack: false,
        notify: false,
    }
}

pub(super) fn get(itt: u32, offset: u32, len: usize) -> GetData {
    GetData { itt: Itt(itt), lun: Lun::ZERO, offset, into: room(len), resume: None }
}

/// The one end-of-connection event, which must be the last.
pub(super) fn ended(dm: &mut Dm) -> (Cause, Vec<(Itt, Reclaimed)>) {
    let mut all = events(dm);
    match all.pop() {
        Some(Event::Terminated(t)) => {
            assert!(!all.iter().any(|e| matches!(e, Event::Terminated(_))), "told twice");
            (t.cause, t.reclaimed)
        }
        other => panic!("not ended: {other:?}"),
    }
}

/// A peer driven by hand.
pub(super) struct Raw {
    pub(super) rcap: MemRcap,
    pub(super) got: Vec<Completion>,
}

impl Raw {
    pub(super) fn new(mut rcap: MemRcap) -> Self {
        for _ in 0..32 {
            rcap.post_recv(IoBuf::zeroed(9000)).unwrap();
        }
        Self { rcap, got: Vec::new() }
    }

    pub(super) fn send(&mut self, message: &[u8], invalidate: Option<Stag>) {
        let message = SgList::from(Bytes::copy_from_slice(message));
        self.rcap.post(Op::Send { message, invalidate }).unwrap();
    }

    /// A control-type PDU with a header of choice.
    pub(super) fn send_pdu(&mut self, header: ControlHeader, pdu: impl Into<Pdu<Bytes>>) {
        let message = wire_bytes(header, &pdu.into());
        self.send(&message, None);
    }

    pub(super) fn poll(&mut self, now: Instant) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.rcap.poll(&mut cx, &mut Budget::new(now), &mut self.got);
    }

    /// Messages received so far.
    pub(super) fn messages(&self) -> Vec<Vec<u8>> {
        let message = |c: &Completion| match c {
            Completion::Received { message, .. } => Some(message.to_vec()),
            _ => None,
        };
        self.got.iter().filter_map(message).collect()
    }

    /// The STag that came with the last message.
    pub(super) fn invalidated(&self) -> Option<Stag> {
        self.got.iter().rev().find_map(|c| match c {
            Completion::Received { invalidated, .. } => Some(*invalidated),
            _ => None,
        })?
    }
}

pub(super) fn wire_bytes(header: ControlHeader, pdu: &Pdu<Bytes>) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_slice(&IserHeader::Control(header).encode());
    pdu.encode(&mut out).unwrap();
    out.to_vec()
}

/// A datamover and a hand-driven peer.
pub(super) struct Half {
    pub(super) dm: Dm,
    pub(super) peer: Raw,
    pub(super) wire: MemWire,
    pub(super) now: Instant,
}

impl Half {
    pub(super) fn new(role: Role, keys: &ConnKeys) -> Self {
        Self::with(role, keys, MemConfig::default(), Quirks::default())
    }

    pub(super) fn with(role: Role, keys: &ConnKeys, config: MemConfig, quirks: Quirks) -> Self {
        let (first, second, wire) = mem::pair(config);
        let (mine, other) = match role {
            Role::Initiator => (first, second),
            Role::Target => (second, first),
        };
        let peer = Raw::new(other);
        Self { dm: start(mine, role, keys, quirks), peer, wire, now: Instant::now() }
    }

    pub(super) fn run(&mut self) {
        for _ in 0..20 {
            poll(&mut self.dm, self.now);
            self.peer.poll(self.now);
        }
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        self.run();
        events(&mut self.dm)
    }

    /// The last message that the peer got, split into its header and the rest.
    pub(super) fn last_message(&mut self) -> (ControlHeader, Vec<u8>) {
        self.run();
        let message = self.peer.messages().pop().expect("no message");
        match IserHeader::decode(&message).unwrap() {
            (IserHeader::Control(header), rest) => {
                assert_eq!(message.len(), ISER_HEADER_LEN + rest.len());
                (header, rest.to_vec())
            }
            other => panic!("not a control-type PDU: {other:?}"),
        }
    }
}
