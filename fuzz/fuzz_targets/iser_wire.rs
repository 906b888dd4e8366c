//! A peer of an iSER connection that says and does anything: nothing panics, no memory outside the advertised buffers is
//! touched, and every buffer comes back.
//!
//! Input: a byte of options (bit 0 role, bits 1-2 iSERHelloRequired, bit 3 TaggedBufferForSolicitedDataOnly=No, bit 4 a
//! limit on unexpected PDUs, bit 5 slow invalidation), then steps: a byte that says what happens and what it takes.
#![no_main]

use bytes::Bytes;
use datamover::{
    Budget, ConnKeys, Control, Datamover, Event, GetData, IoBuf, LoginLink, PutData, Reclaimed,
    Resources, Role, TaskBuffers,
};
use iscsi_pdu::{Itt, Lun, Pdu, ScsiCommand, ScsiResponse, pad_len};
use iser_rdma::provider::mem::{self, MemConfig, MemRcap};
use iser_rdma::{
    Completion, ControlHeader, IserHeader, MessageLoginLink, Op, Quirks, Rcap, RemoteBuf, Stag, Tagged, WrId,
};
use libfuzzer_sys::fuzz_target;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Bytes of a buffer beyond its length: the peer must never reach them.
const GUARD: usize = 64;
const SECRET: u8 = 0xee;

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

struct World {
    dm: Box<dyn Datamover>,
    peer: MemRcap,
    got: Vec<Completion>,
    /// What the peer knows of the other end's memory, and what it lent itself.
    tags: Vec<RemoteBuf>,
    now: Instant,
    /// Buffers handed down and not seen again.
    out: usize,
    ended: bool,
}

impl World {
    fn turn(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..4 {
            while self.dm.poll_drive(&mut cx, &mut Budget::new(self.now)).is_ready() {}
            self.peer.poll(&mut cx, &mut Budget::new(self.now), &mut self.got);
        }
        for completion in std::mem::take(&mut self.got) {
            if let Completion::Received { message, .. } = completion {
                if let Ok((IserHeader::Control(header), _)) = IserHeader::decode(&message) {
                    self.tags.extend([header.read, header.write].into_iter().flatten());
                }
                let mut again = message;
                again.set_len(again.capacity());
                let _ = self.peer.post_recv(again);
            }
        }
        while let Some(event) = self.dm.poll_event() {
            assert!(!self.ended, "an event after the last");
            match event {
                Event::Control(c) => self.back(c.buffers),
                Event::DataCompletion(d) => self.out -= usize::from(d.data.is_some()),
                Event::TaskReclaimed { reclaimed, .. } => self.reclaimed(reclaimed),
                Event::Terminated(t) => {
                    self.ended = true;
                    t.reclaimed.into_iter().for_each(|(_, r)| self.reclaimed(r));
                }
                _ => {}
            }
        }
    }

    fn reclaimed(&mut self, reclaimed: Reclaimed) {
        self.out -= reclaimed.gets.len();
        self.back(reclaimed.buffers);
    }

    fn back(&mut self, buffers: TaskBuffers) {
        if let Some(input) = buffers.r#in {
            self.out -= 1;
            for mut buf in input.into_parts() {
                let len = buf.len();
                buf.set_len(buf.capacity());
                assert!(buf[len..].iter().all(|b| *b == SECRET), "memory beyond a buffer was written");
            }
        }
    }

    fn tag(&self, choice: u8) -> RemoteBuf {
        let Some(tag) = self.tags.get(choice as usize % self.tags.len().max(1)) else {
            return RemoteBuf { stag: Stag(choice.into()), offset: choice.into() };
        };
        *tag
    }
}

fn guarded(len: usize) -> IoBuf {
    let mut buf = IoBuf::zeroed(len + GUARD);
    buf[len..].fill(SECRET);
    buf.truncate(len);
    buf
}

fn command(script: &mut Script<'_>) -> (ScsiCommand, Bytes, usize) {
    let (itt, kind) = (script.byte() % 8, script.byte());
    let len = usize::from(script.byte()) * 16;
    let immediate = (usize::from(script.byte()) * 16).min(len);
    let (read, write) = (kind & 1 != 0, kind & 2 != 0);
    let data = Bytes::from(vec![kind; len]);
    let command = ScsiCommand {
        immediate: kind & 4 != 0,
        final_pdu: kind & 8 != 0 || !write,
        read,
        write,
        itt: Itt(itt.into()),
        expected_data_transfer_length: if read || write { len as u32 } else { 0 },
        ahs: if read && write { vec![iscsi_pdu::Ahs::BidirectionalReadLength(len as u32)] } else { vec![] },
        data: if write { data.slice(..immediate) } else { Bytes::new() },
        ..Default::default()
    };
    (command, data, immediate)
}

fn step(w: &mut World, script: &mut Script<'_>, role: Role) {
    match script.byte() % 12 {
        // The peer: any bytes; a PDU with any header; work on tags.
        0 => {
            let len = usize::from(script.byte());
            let message = Bytes::copy_from_slice(script.bytes(len));
            let _ = w.peer.post(Op::Send { message: message.into(), invalidate: None });
        }
        1 => {
            let (first, opcode, tag) = (script.byte(), script.byte(), script.byte());
            let header = ControlHeader {
                read: (first & 4 != 0).then(|| w.tag(tag)),
                write: (first & 8 != 0).then(|| w.tag(tag.wrapping_add(1))),
            };
            let mut message = IserHeader::Control(header).encode().to_vec();
            let mut bhs = [0u8; 48];
            let mutated = script.bytes(12);
            bhs[0] = opcode;
            bhs[1] = 0x80;
            mutated.chunks_exact(2).for_each(|c| bhs[c[0] as usize % 48] = c[1]);
            let data = usize::from(bhs[7]).min(200);
            (bhs[4], bhs[5], bhs[6], bhs[7]) = (0, 0, 0, data as u8);
            message.extend(bhs);
            message.resize(message.len() + data + pad_len(data), opcode);
            let invalidate = (first & 1 != 0).then(|| w.tag(tag).stag);
            let _ = w.peer.post(Op::Send { message: Bytes::from(message).into(), invalidate });
        }
        2 => {
            let (pdu, _, _) = command(script);
            let lent = w.peer.advertise(Tagged::Sink(guarded(4096).into())).ok();
            let from = w.peer.advertise(Tagged::Source(Bytes::from(vec![7; 4096]).into())).ok();
            let mut message = IserHeader::Control(ControlHeader { read: lent, write: from }).encode().to_vec();
            message.extend(Pdu::from(pdu).to_bytes().unwrap_or_default());
            let _ = w.peer.post(Op::Send { message: Bytes::from(message).into(), invalidate: None });
        }
        3 => {
            let (mut to, by, len) = (w.tag(script.byte()), script.byte() as i8, script.byte());
            to.offset = to.offset.wrapping_add_signed(by.into());
            let data = Bytes::from(vec![0x11; usize::from(len) + 1]).into();
            let _ = w.peer.post(Op::Write { id: None, data, to });
        }
        4 => {
            let (mut from, by, len) = (w.tag(script.byte()), script.byte() as i8, script.byte());
            from.offset = from.offset.wrapping_add_signed(by.into());
            let _ = w.peer.post(Op::Read { id: WrId(1), from, into: guarded(len.into()).into() });
        }
        5 => {
            let response = ScsiResponse { itt: Itt((script.byte() % 8).into()), ..Default::default() };
            let mut message = IserHeader::Control(ControlHeader::default()).encode().to_vec();
            message.extend(Pdu::from(response).to_bytes().unwrap());
            let invalidate = (script.byte() & 1 != 0).then(|| w.tag(script.byte()).stag);
            let _ = w.peer.post(Op::Send { message: Bytes::from(message).into(), invalidate });
        }
        // Our own side.
        6 if role == Role::Initiator => {
            let (pdu, data, unsolicited) = command(script);
            let (read, write) = (pdu.read, pdu.write);
            let buffers = TaskBuffers {
                r#in: read.then(|| guarded(data.len().max(1)).into()),
                out: write.then(|| data.into()),
            };
            let unsolicited = if write { unsolicited as u32 } else { 0 };
            w.out += usize::from(read);
            if let Err(full) = w.dm.send_control(Control { pdu: pdu.into(), buffers, unsolicited }) {
                w.back(full.0.buffers);
            }
        }
        6 => {
            let itt = Itt((script.byte() % 8).into());
            let (offset, len) = (u32::from(script.byte()) * 16, usize::from(script.byte()) * 16);
            w.out += 1;
            let get = GetData { itt, lun: Lun::ZERO, offset, into: guarded(len).into(), resume: None };
            w.out -= usize::from(w.dm.get_data(get).is_err());
        }
        7 if role == Role::Target => {
            let itt = Itt((script.byte() % 8).into());
            let (offset, len) = (u32::from(script.byte()) * 16, usize::from(script.byte()) * 16);
            let data = Bytes::from(vec![3; len]).into();
            let (ack, notify) = (len & 16 != 0, len & 32 != 0);
            let _ = w.dm.put_data(PutData { itt, lun: Lun::ZERO, offset, data, resume: None, ack, notify });
        }
        8 if role == Role::Target => {
            let itt = Itt((script.byte() % 8).into());
            let _ = w.dm.send_control(ScsiResponse { itt, ..Default::default() }.into());
        }
        9 => w.dm.deallocate_task_resources(Itt((script.byte() % 8).into())),
        10 => {
            w.now += Duration::from_millis(u64::from(script.byte()) * 200);
            if w.dm.poll_timeout().is_some_and(|at| at <= w.now) {
                w.dm.handle_timeout(w.now);
            }
        }
        _ => w.turn(),
    }
}

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let options = script.byte();
    let role = if options & 1 == 0 { Role::Initiator } else { Role::Target };
    let config = MemConfig {
        wait_for_receive: true,
        slow_invalidation: options & 32 != 0,
        record: false,
        ..MemConfig::default()
    };
    let (first, mut peer, wire) = mem::pair(config);
    for _ in 0..16 {
        let _ = peer.post_recv(IoBuf::zeroed(9000));
    }
    let mut keys = ConnKeys::default();
    keys.rdma_extensions = true;
    keys.error_recovery_level = options >> 6;
    keys.iser_hello_required = [None, None, Some(false), Some(true)][usize::from(options >> 1 & 3)];
    keys.tagged_buffer_for_solicited_data_only = Some(options & 8 == 0);
    keys.max_outstanding_unexpected_pdus = (options & 16 != 0).then_some(2);
    let mut link: Box<dyn LoginLink> = Box::new(MessageLoginLink::new(first, role, Quirks::default()));
    link.notice_key_values(&keys);
    let resources = Resources { commands: 8, unexpected: 4, pool_bytes: 1 << 20, ..Resources::default() };
    link.allocate_connection_resources(&resources).unwrap();
    let dm = link.enable_datamover(None);
    let pool = dm.pool().clone();
    let mut w = World { dm, peer, got: Vec::new(), tags: Vec::new(), now: Instant::now(), out: 0, ended: false };
    while !script.0.is_empty() {
        step(&mut w, &mut script, role);
    }
    w.turn();
    w.dm.connection_terminate();
    w.turn();
    // A connection that cannot flush is given up in the end.
    w.now += Duration::from_secs(120);
    w.dm.handle_timeout(w.now);
    w.turn();
    assert!(w.ended, "the end was not told");
    assert_eq!(w.out, 0, "buffers did not come back");
    assert_eq!(wire.live_stags(0), 0, "an STag outlived its connection");
    drop(w);
    assert_eq!(pool.outstanding(), 0, "memory did not return to its pool");
});
