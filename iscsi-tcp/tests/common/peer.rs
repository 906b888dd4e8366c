//! A core, with the test in the place of the other end: PDUs in, PDUs out.

use bytes::{BufMut, Bytes, BytesMut};
use datamover::{Cause, ConnKeys, Control, Event, IoBuf, Resources, Role, SlabPool, TaskBuffers};
use iscsi_pdu::{Digests, Framer, Itt, Limits, Pdu, ScsiCommand, data_digest, header_digest};
use iscsi_tcp::{Handover, TcpCore};
use std::io::IoSlice;
use std::sync::Arc;

pub(crate) struct Peer {
    pub(crate) core: TcpCore,
    pub(crate) pool: Arc<SlabPool>,
    digests: Digests,
    framer: Framer,
}

/// Bytes that tell where they belong.
pub(crate) fn pattern(seed: u32, len: usize) -> Bytes {
    (0..len as u32)
        .map(|n| ((n ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 16) as u8)
        .collect()
}

/// A PDU as it travels.
pub(crate) fn wire(pdu: &Pdu<Bytes>, digests: Digests) -> Bytes {
    let mut bhs = [0; 48];
    pdu.encode_header(&mut bhs).unwrap();
    let mut ahs = BytesMut::new();
    pdu.encode_ahs(&mut ahs);
    let mut out = BytesMut::new();
    out.put_slice(&bhs);
    out.put_slice(&ahs);
    if digests.header {
        out.put_slice(&header_digest(&bhs, &ahs));
    }
    if let Some(data) = pdu.data().filter(|d| !d.is_empty()) {
        out.put_slice(data);
        out.put_bytes(0, data.len().wrapping_neg() & 3);
        if digests.data {
            out.put_slice(&data_digest([&data[..]]));
        }
    }
    out.freeze()
}

/// A SCSI Command that reads, or writes, so many bytes.
pub(crate) fn command(itt: u32, read: usize, write: usize) -> ScsiCommand {
    ScsiCommand {
        final_pdu: true,
        read: read > 0,
        write: write > 0,
        itt: Itt(itt),
        expected_data_transfer_length: read.max(write) as u32,
        ..ScsiCommand::default()
    }
}

impl Peer {
    pub(crate) fn new(role: Role, keys: &ConnKeys) -> Self {
        Self::with_resources(role, keys, &Resources::default())
    }

    pub(crate) fn with_resources(role: Role, keys: &ConnKeys, resources: &Resources) -> Self {
        let pool = Arc::new(SlabPool::default());
        let core = TcpCore::new(role, keys.clone(), resources, pool.clone(), Handover::default());
        let digests = Digests { header: keys.header_digest, data: keys.data_digest };
        let mut framer = Framer::new(Limits::MAX);
        framer.set_digests(digests);
        Self { core, pool, digests, framer }
    }

    /// Lets bytes arrive, as many as the core takes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.core.is_open() {
            let mut n = 0;
            for slot in self.core.recv_slots().as_mut_slice() {
                let take = slot.len().min(rest.len());
                slot[..take].copy_from_slice(&rest[..take]);
                rest = &rest[take..];
                n += take;
            }
            assert!(n > 0, "an open core has room");
            self.core.received(n);
        }
    }

    /// Lets a PDU arrive.
    pub(crate) fn arrives(&mut self, pdu: impl Into<Pdu<Bytes>>) {
        let bytes = wire(&pdu.into(), self.digests);
        self.bytes(&bytes);
    }

    /// What the core sends.
    pub(crate) fn raw(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        loop {
            let mut n = 0;
            {
                let mut slots = [IoSlice::new(&[]); 5];
                let filled = self.core.transmit_slices(&mut slots);
                for slot in &slots[..filled] {
                    assert!(!slot.is_empty());
                    out.put_slice(slot);
                    n += slot.len();
                }
            }
            if n == 0 {
                return out.freeze();
            }
            self.core.transmitted(n);
        }
    }

    /// The PDUs that the core sends; digests hold.
    pub(crate) fn sent(&mut self) -> Vec<Pdu<Bytes>> {
        let raw = self.raw();
        self.framer.push(raw);
        let pdus = std::iter::from_fn(|| self.framer.next_pdu().unwrap()).collect();
        assert_eq!(self.framer.buffered(), 0, "whole PDUs");
        pdus
    }

    pub(crate) fn one_sent(&mut self) -> Pdu<Bytes> {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// What came up, but for windows.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.core.poll_event()).filter(|e| !matches!(e, Event::Window(_))).collect()
    }

    pub(crate) fn one_event(&mut self) -> Event {
        let mut events = self.events();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// Why the connection ended; it is the only event.
    pub(crate) fn cause(&mut self) -> Cause {
        match self.one_event() {
            Event::Terminated(end) => end.cause,
            other => panic!("not the end: {other:?}"),
        }
    }

    /// The rule for whose breach the connection ended.
    pub(crate) fn broken_rule(&mut self) -> &'static str {
        match self.cause() {
            Cause::Protocol(rule) => rule,
            other => panic!("not a rule: {other:?}"),
        }
    }

    /// Sends a command down at an initiator; drops its PDU.
    pub(crate) fn open(&mut self, command: ScsiCommand, out: Option<Bytes>) {
        let room = if command.read { command.expected_data_transfer_length as usize } else { 0 };
        let buffers =
            TaskBuffers { out: out.map(Into::into), r#in: (room > 0).then(|| IoBuf::zeroed(room).into()) };
        let unsolicited = command.data.len() as u32;
        self.core.send_control(Control { pdu: command.into(), buffers, unsolicited }).unwrap();
        self.one_sent();
    }
}
