//! Two cores back to back, and I/O over them: shared by the allocation test and the bench.

use bytes::Bytes;
use datamover::{
    BufPool, ConnKeys, Control, DataCompletion, Event, GetData, IoBuf, PutData, Resources, Role, SlabPool,
    TaskBuffers,
};
use iscsi_pdu::{Itt, Lun, Pdu, ScsiCommand, ScsiResponse};
use iscsi_tcp::{Handover, TcpCore};
use std::io::{IoSlice, IoSliceMut};
use std::sync::Arc;

pub struct Pair {
    pub initiator: TcpCore,
    pub target: TcpCore,
    pub pool: Arc<SlabPool>,
    /// Stands for the kernel.
    wire: Vec<u8>,
    /// Lists of writes that are over: whoever submits commands has them, not the core.
    spare: Vec<TaskBuffers>,
}

impl Pair {
    pub fn new(digests: bool) -> Self {
        let mut keys = ConnKeys::default();
        (keys.header_digest, keys.data_digest) = (digests, digests);
        (keys.max_recv_data_segment_length, keys.max_send_data_segment_length) = (262_144, 262_144);
        let pool = Arc::new(SlabPool::default());
        let core =
            |role| TcpCore::new(role, keys.clone(), &Resources::default(), pool.clone(), Handover::default());
        let (initiator, target) = (core(Role::Initiator), core(Role::Target));
        Self { initiator, target, pool, wire: vec![0; 1 << 20], spare: Vec::new() }
    }

    /// All there is to send, in both directions.
    pub fn pump(&mut self) {
        loop {
            let a = step(&mut self.initiator, &mut self.target, &mut self.wire);
            let b = step(&mut self.target, &mut self.initiator, &mut self.wire);
            if !a && !b {
                return;
            }
        }
    }

    /// The initiator sends a command.
    pub fn command(&mut self, itt: u32, buffers: TaskBuffers, data: Bytes) {
        let (read, write) = (buffers.r#in.as_ref(), buffers.out.as_ref());
        let length = read.map_or(0, |list| list.len()).max(write.map_or(0, |list| list.len()));
        let unsolicited = data.len() as u32;
        let pdu = ScsiCommand {
            final_pdu: true,
            read: read.is_some(),
            write: write.is_some(),
            itt: Itt(itt),
            expected_data_transfer_length: length as u32,
            data,
            ..ScsiCommand::default()
        };
        self.initiator.send_control(Control { pdu: pdu.into(), buffers, unsolicited }).expect("room");
    }

    /// The target serves what has arrived: reads from `disk`, writes into memory of the pool.
    pub fn serve(&mut self, disk: &Bytes) {
        while let Some(event) = self.target.poll_event() {
            match event {
                Event::Control(Control { pdu: Pdu::ScsiCommand(c), .. }) => {
                    let (itt, lun) = (c.itt, Lun::ZERO);
                    let len = c.expected_data_transfer_length as usize;
                    if c.write && c.data.len() < len {
                        let into = self.pool.alloc(len).expect("memory");
                        let get = GetData { itt, lun, offset: 0, into, resume: None };
                        self.target.get_data(get).expect("room");
                        continue;
                    }
                    if c.read {
                        let data = disk.slice(..len).into();
                        let put =
                            PutData { itt, lun, offset: 0, data, resume: None, ack: false, notify: false };
                        self.target.put_data(put).expect("room");
                    }
                    self.respond(itt);
                }
                Event::DataCompletion(DataCompletion { itt, result: Ok(()), .. }) => self.respond(itt),
                Event::Window(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn respond(&mut self, itt: Itt) {
        self.target.send_control(ScsiResponse { itt, ..ScsiResponse::default() }.into()).expect("room");
    }

    /// Buffers of the tasks that ended.
    pub fn done(&mut self, mut each: impl FnMut(Itt, TaskBuffers)) {
        while let Some(event) = self.initiator.poll_event() {
            match event {
                Event::Control(Control { pdu: Pdu::ScsiResponse(r), buffers, .. }) => each(r.itt, buffers),
                Event::Window(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// So many reads of one length, all under way together.
    pub fn reads(&mut self, disk: &Bytes, buffers: &mut Vec<TaskBuffers>) {
        let count = buffers.len();
        for itt in 0..count as u32 {
            let room = buffers.pop().expect("as many as there are commands");
            self.command(itt, room, Bytes::new());
        }
        self.pump();
        self.serve(disk);
        self.pump();
        self.done(|_, b| buffers.push(b));
        assert_eq!(buffers.len(), count);
    }

    /// So many writes of the same data.
    pub fn writes(&mut self, data: &Bytes, count: u32, immediate: bool) {
        for itt in 0..count {
            let mut buffers = self.spare.pop().unwrap_or_default();
            **buffers.out.get_or_insert_default() = data.clone().into();
            self.command(itt, buffers, if immediate { data.clone() } else { Bytes::new() });
        }
        self.pump();
        self.serve(data);
        self.pump();
        self.serve(data);
        self.pump();
        let mut spare = std::mem::take(&mut self.spare);
        self.done(|_, b| spare.push(b));
        assert_eq!(spare.len(), count as usize);
        self.spare = spare;
    }
}

/// Buffers to read into.
pub fn buffers(count: usize, len: usize) -> Vec<TaskBuffers> {
    let room = |_| TaskBuffers { out: None, r#in: Some(IoBuf::zeroed(len).into()) };
    (0..count).map(room).collect()
}

/// Moves as much as one write takes.
fn step(from: &mut TcpCore, to: &mut TcpCore, wire: &mut [u8]) -> bool {
    let mut slots = [IoSlice::new(&[]); 64];
    let n = from.transmit_slices(&mut slots);
    let mut sent = 0;
    for slot in &slots[..n] {
        let take = slot.len().min(wire.len() - sent);
        wire[sent..sent + take].copy_from_slice(&slot[..take]);
        sent += take;
    }
    from.transmitted(sent);
    let mut at = 0;
    while at < sent {
        let mut n = 0;
        for slot in to.recv_slots().as_mut_slice() {
            n += copy(&wire[at + n..sent], slot);
        }
        assert!(n > 0, "room for what is left");
        to.received(n);
        at += n;
    }
    sent > 0
}

fn copy(from: &[u8], to: &mut IoSliceMut<'_>) -> usize {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}
