//! What both session targets share: input, connections over `datamover::mem` whose other end is the fuzzer's, PDUs.

use bytes::{Bytes, BytesMut};
use datamover::mem::{MemConfig, MemControl, MemFaults, pair};
use datamover::{
    Budget, BufPool, ConnKeys, Control, Datamover, Drive, Event, LoginLink, PoolConfig, Resources, Role,
    SlabPool,
};
use iscsi_pdu::{BHS_LEN, Cid, LoginResponse, Pdu, StatSn};
use iscsi_session::{Action, ConnId, ConnSetup, DownCall};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

/// The fuzzer's bytes; zeros when they are used up.
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn index(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    fn fill(&mut self, to: &mut [u8]) {
        to.iter_mut().for_each(|b| *b = self.byte());
    }

    /// A PDU that `sender` may hand to a datamover: a length, and a header of which words at the places `near` are
    /// taken to be distances from the values given, so that numbers that fit need not be guessed.
    pub fn pdu(&mut self, sender: Role, near: &[(usize, u32)]) -> Option<Pdu<Bytes>> {
        let mut bhs = [0; BHS_LEN];
        let (exact, len) = (self.byte(), usize::from(self.byte()) * 3);
        self.fill(&mut bhs);
        for (n, (at, value)) in near.iter().enumerate() {
            if exact >> n & 1 == 0 {
                let distance = bhs[at + 3] as i8;
                bhs[*at..at + 4].copy_from_slice(&value.wrapping_add_signed(distance.into()).to_be_bytes());
            }
        }
        bhs[4] = 0;
        bhs[5..8].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        let mut frame = BytesMut::from(&bhs[..]);
        frame.resize(BHS_LEN + len.next_multiple_of(4), 0);
        self.fill(&mut frame[BHS_LEN..BHS_LEN + len.min(64)]);
        let pdu = Pdu::decode(frame.freeze()).ok()?;
        Control::from(pdu.clone()).check(sender).ok().map(|()| pdu)
    }
}

pub fn pool() -> SlabPool {
    SlabPool::new(PoolConfig { chunk_lens: vec![4096], slab_len: 64 << 10, max_bytes: 8 << 20 })
}

/// A connection: the engine's end, and the fuzzer's.
pub struct Conn {
    pub id: ConnId,
    pub control: MemControl,
    pub theirs: Box<dyn Datamover>,
    ours: Box<dyn Datamover>,
    held: VecDeque<DownCall>,
}

/// The connections of the engine under test.
#[derive(Default)]
pub struct Conns(pub Vec<Conn>);

fn drive(end: &mut dyn Datamover, now: Instant) {
    let _ = end.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(now));
}

impl Conns {
    /// Another connection, for the engine in `role`.
    pub fn connect(&mut self, role: Role, seed: u8, pool: &SlabPool, add: impl FnOnce(ConnSetup) -> ConnId) {
        let faults = MemFaults { seed: seed.into(), reorder_gets: seed & 1 == 1, ..MemFaults::default() };
        let pool: Arc<dyn BufPool> = Arc::new(pool.clone());
        let config = MemConfig { pool: pool.clone(), window: true, faults };
        let (mut i, mut t, control) = {
            let (i, t, control) = pair(config);
            (Box::new(i), Box::new(t), control)
        };
        let resources = Resources { commands: 4096, ..Resources::default() };
        let _ = i.allocate_connection_resources(&resources);
        let _ = t.allocate_connection_resources(&resources);
        let t = t.enable_datamover(Some(LoginResponse::default()));
        let _ = i.poll_drive(&mut Context::from_waker(Waker::noop()), &mut Budget::new(now()));
        let _ = i.poll_login();
        let i = i.enable_datamover(None);
        let (ours, theirs) = if role == Role::Target { (t, i) } else { (i, t) };
        let mut keys = ConnKeys::default();
        keys.max_send_data_segment_length = 8192;
        let setup = ConnSetup { cid: Cid(u16::from(seed & 3)), keys, pool, stat_sn: StatSn(1000) };
        let id = add(setup);
        self.0.push(Conn { id, control, theirs, ours, held: VecDeque::new() });
    }

    /// The next event for the engine; what the fuzzer's end gets is dropped.
    pub fn poll_event(&mut self, now: Instant) -> Option<(ConnId, Event)> {
        for index in 0..self.0.len() {
            let conn = &mut self.0[index];
            drive(&mut *conn.theirs, now);
            while conn.theirs.poll_event().is_some() {}
            while let Some(call) = conn.held.pop_front() {
                if let Err(call) = call.invoke(&mut *conn.ours) {
                    conn.held.push_front(call);
                    break;
                }
            }
            drive(&mut *conn.ours, now);
            let Some(mut event) = conn.ours.poll_event() else { continue };
            let id = conn.id;
            if let Event::Terminated(terminated) = &mut event {
                let conn = self.0.remove(index);
                conn.held.into_iter().for_each(|call| call.reclaim(terminated));
            }
            return Some((id, event));
        }
        None
    }

    pub fn carry_out(&mut self, Action { conn, call }: Action) {
        if let DownCall::SendControl(control) = &call {
            let mut header = [0; BHS_LEN];
            control.pdu.encode_header(&mut header).expect("the engine makes PDUs that can be encoded");
        }
        let Some(conn) = self.0.iter_mut().find(|c| c.id == conn) else { return };
        if !conn.held.is_empty() {
            conn.held.push_back(call);
        } else if let Err(call) = call.invoke(&mut *conn.ours) {
            conn.held.push_back(call);
        }
    }

    pub fn violations(&self) -> Vec<&'static str> {
        self.0.iter().flat_map(|c| c.control.violations()).collect()
    }
}

/// Any instant will do: only differences count.
pub fn now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}
