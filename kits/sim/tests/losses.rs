//! Both session cores over two TCP cores, every PDU lost once: the k-th PDU of either direction, for every k, is
//! damaged in its header or its data, or the connection breaks in its place (RFC 7143 section 7, ErrorRecoveryLevel 1
//! and 2). Every command must end with GOOD, be executed once, and its data be right byte for byte.

use bytes::Bytes;
use datamover::{BufPool, ConnKeys, IoBuf, Resources, Role, SgList, SgListMut, SlabPool, TaskBuffers};
use iscsi_login::SessionParams;
use iscsi_pdu::{Cid, CmdSn, ScsiStatus, StatSn};
use iscsi_session::target::Peer;
use iscsi_session::window::{InitiatorWindow, TargetWindow};
use iscsi_session::{
    Command, Completion, ConnId, ConnSetup, InitiatorConfig, InitiatorEvent, InitiatorSession, Outcome,
    TargetConfig, TargetSession, TaskEvent, TaskPort, TaskTag,
};
use iscsi_tcp::{Handover, TcpCore};
use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LENGTH: usize = 5000;
const COMMANDS: u8 = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    Header,
    Data,
    /// The connection breaks; the PDU is not delivered.
    Break,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Write,
    Both,
}

struct Link {
    initiator: TcpCore,
    target: TcpCore,
    ids: (ConnId, ConnId),
    /// Bytes not yet cut into PDUs, towards the target and towards the initiator.
    wires: [Vec<u8>; 2],
}

/// What the target's device knows of a write under way.
struct Pending {
    op: u8,
    data: Vec<u8>,
    missing: usize,
    read: usize,
}

struct World {
    now: Instant,
    i: InitiatorSession,
    t: TargetSession,
    links: Vec<Link>,
    connections: u32,
    params: SessionParams,
    segment: u32,
    fault: (usize, Fault),
    pdus: usize,
    hit: bool,
    pending: HashMap<TaskTag, Pending>,
    executed: HashMap<u8, u32>,
    written: HashMap<u8, Vec<u8>>,
    reconnect: Option<(Instant, u16)>,
    ended: bool,
    /// Whether it ended with a logout.
    closed: bool,
    /// Opcode of the PDU that the fault hit.
    lost: Option<u8>,
    /// The PDU before which the initiator declares another MaxRecvDataSegmentLength, and that length.
    declares: Option<(usize, u32)>,
    declared: bool,
    /// R-Data SNACKs that were sent.
    r_data: u32,
    /// How many commands have ended with PROTOCOL SERVICE CRC ERROR, where they may.
    failed: Option<u32>,
}

fn pattern(op: u8, len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|n| (n as u8).wrapping_mul(31) ^ (n >> 8) as u8 ^ op.wrapping_mul(17) ^ salt).collect()
}

impl World {
    #[allow(clippy::disallowed_methods)] // any instant will do
    fn new(level: u8, connections: u16, initial_r2t: bool, fault: (usize, Fault)) -> Self {
        let mut params = SessionParams::default();
        params.error_recovery_level = level;
        params.initial_r2t = initial_r2t;
        params.max_connections = connections.max(2);
        (params.first_burst_length, params.max_burst_length) = (2048, 2048);
        let now = Instant::now();
        let name = |s: &str| iscsi_login::IscsiName::new(s).unwrap();
        let peer = Peer {
            initiator: name("iqn.2026-01.org.example:host"),
            target: Some(name("iqn.2026-01.org.example:disk")),
        };
        let first = CmdSn(0xffff_fffd);
        let window = TargetWindow::new(first, 16);
        let t = TargetSession::with_window(TargetConfig::default(), params, peer, window, now);
        let window = InitiatorWindow::new(first, first, first.advance(15));
        let i = InitiatorSession::with_window(InitiatorConfig::default(), params, window, now);
        let mut world = Self {
            now,
            i,
            t,
            links: Vec::new(),
            connections: 0,
            params,
            segment: 512,
            fault,
            pdus: 0,
            hit: false,
            pending: HashMap::new(),
            executed: HashMap::new(),
            written: HashMap::new(),
            reconnect: None,
            ended: false,
            closed: false,
            lost: None,
            declares: None,
            declared: false,
            r_data: 0,
            failed: None,
        };
        (1..=connections).for_each(|cid| world.connect(cid));
        world
    }

    fn connect(&mut self, cid: u16) {
        let mut keys = ConnKeys::default();
        (keys.header_digest, keys.data_digest) = (true, true);
        // Every connection has another MaxRecvDataSegmentLength.
        self.segment = if self.segment == 512 { 700 } else { 512 };
        keys.max_recv_data_segment_length = self.segment;
        keys.max_send_data_segment_length = self.segment;
        keys.error_recovery_level = self.params.error_recovery_level;
        keys.max_burst_length = self.params.max_burst_length;
        keys.first_burst_length = self.params.first_burst_length;
        let pool: Arc<dyn BufPool> = Arc::new(SlabPool::default());
        let core =
            |role| TcpCore::new(role, keys.clone(), &Resources::default(), pool.clone(), Handover::default());
        self.connections += 1;
        let setup = |stat_sn| ConnSetup {
            cid: Cid(cid),
            keys: keys.clone(),
            pool: pool.clone(),
            stat_sn: StatSn(stat_sn),
        };
        let stat_sn = 0xffff_fffeu32.wrapping_add(self.connections * 1000);
        let target = self.t.add_connection(self.now, setup(stat_sn));
        let initiator = self.i.add_connection(self.now, setup(stat_sn));
        self.links.push(Link {
            initiator: core(Role::Initiator),
            target: core(Role::Target),
            ids: (initiator, target),
            wires: [Vec::new(), Vec::new()],
        });
    }

    /// One round; whether anything happened.
    fn step(&mut self) -> bool {
        let mut busy = self.transfer();
        for index in 0..self.links.len() {
            let (initiator, target) = self.links[index].ids;
            while let Some(event) = self.links[index].target.poll_event() {
                self.t.handle_event(self.now, target, event);
                busy = true;
            }
            while let Some(event) = self.links[index].initiator.poll_event() {
                self.i.handle_event(self.now, initiator, event);
                busy = true;
            }
        }
        self.links.retain(|l| !(l.initiator.is_ended() && l.target.is_ended()));
        while let Some(event) = self.t.poll_task() {
            self.device(event);
            busy = true;
        }
        while let Some(action) = self.t.poll_action() {
            busy = true;
            if let Some(link) = self.links.iter_mut().find(|l| l.ids.1 == action.conn) {
                call(&mut link.target, action.call);
            }
        }
        while let Some(action) = self.i.poll_action() {
            busy = true;
            if let Some(link) = self.links.iter_mut().find(|l| l.ids.0 == action.conn) {
                call(&mut link.initiator, action.call);
            }
        }
        while let Some(event) = self.i.poll_event() {
            match event {
                InitiatorEvent::ConnectionNeeded { cid, not_before, .. } => {
                    self.reconnect = Some((self.now + not_before, cid.0));
                }
                InitiatorEvent::Ended { closed, .. } => (self.ended, self.closed) = (true, closed),
                _ => {}
            }
        }
        while self.t.poll_event().is_some() {}
        busy
    }

    /// Moves bytes both ways, one PDU at a time through the fault.
    fn transfer(&mut self) -> bool {
        let mut busy = false;
        for index in 0..self.links.len() {
            for direction in 0..2 {
                let link = &mut self.links[index];
                let (from, to) = match direction {
                    0 => (&mut link.initiator, &mut link.target),
                    _ => (&mut link.target, &mut link.initiator),
                };
                from.set_now(self.now);
                to.set_now(self.now);
                let wire = &mut link.wires[direction];
                busy |= drain(from, wire);
                // A slow wire, where something is to happen amid what is under way.
                let mut room = if self.declares.is_some() { 2 } else { usize::MAX };
                while room > 0
                    && let Some(mut pdu) = first_pdu(wire)
                {
                    busy = true;
                    room -= 1;
                    if let Some((_, length)) = self.declares.filter(|(at, _)| *at == self.pdus)
                        && !self.declared
                        && let Ok(_) =
                            self.i.declare_max_recv_data_segment_length(self.now, link.ids.0, length)
                    {
                        self.declared = true;
                    }
                    let fault = if self.pdus == self.fault.0 { self.fault.1 } else { Fault::None };
                    self.pdus += 1;
                    let data = pdu.len() > 52;
                    self.r_data += u32::from(pdu[0] & 0x3f == 0x10 && pdu[1] & 0x0f == 3);
                    if fault != Fault::None {
                        self.lost = Some(pdu[0] & 0x3f);
                    }
                    match fault {
                        Fault::None => {}
                        Fault::Header => pdu[20] ^= 0x10,
                        Fault::Data if data => *pdu.last_mut().unwrap() ^= 1,
                        Fault::Data => continue,
                        Fault::Break => {
                            self.hit = true;
                            from.disconnected(Some(std::io::ErrorKind::ConnectionReset));
                            to.disconnected(Some(std::io::ErrorKind::ConnectionReset));
                            break;
                        }
                    }
                    self.hit |= fault != Fault::None;
                    receive(to, &pdu);
                }
                // The end of one end is the end of the other.
                if from.is_ended() && !to.is_ended() {
                    to.disconnected(None);
                    busy = true;
                }
            }
        }
        busy
    }

    fn device(&mut self, event: TaskEvent) {
        match event {
            TaskEvent::Execute(task) => {
                let op = task.cdb[1];
                *self.executed.entry(op).or_default() += 1;
                let mut data = task.unsolicited.to_bytes().to_vec();
                let begun = data.len();
                let (write, read) = (task.write_length as usize, task.read_length as usize);
                data.resize(write, 0);
                let missing = write - begun;
                self.pending.insert(task.tag, Pending { op, data, missing, read });
                // In two pieces.
                let half = begun + missing / 2;
                for (from, to) in [(begun, half), (half, write)] {
                    if to > from {
                        let buffer: SgListMut = IoBuf::zeroed(to - from).into();
                        self.t.want_write(task.tag, from as u32, buffer);
                    }
                }
                self.finish(task.tag);
            }
            TaskEvent::WriteData { tag, offset, data, result } => {
                result.unwrap();
                let pending = self.pending.get_mut(&tag).unwrap();
                let (at, data) = (offset as usize, data.freeze().to_bytes());
                pending.data[at..at + data.len()].copy_from_slice(&data);
                pending.missing -= data.len();
                self.finish(tag);
            }
            TaskEvent::Abort(tag) => self.t.discard(tag),
            _ => {}
        }
    }

    fn finish(&mut self, tag: TaskTag) {
        if self.pending[&tag].missing > 0 {
            return;
        }
        let Pending { op, data, read, .. } = self.pending.remove(&tag).unwrap();
        let input = Bytes::from(pattern(op, read, 0x55));
        for from in (0..read).step_by(1900) {
            let piece = input.slice(from..read.min(from + 1900));
            self.t.read_data(tag, from as u32, SgList::from(piece));
        }
        let write = data.len() as u64;
        if write > 0 {
            self.written.insert(op, data);
        }
        self.t.complete(tag, Outcome { read_length: read as u64, ..Outcome::good().with_write(write) });
    }

    /// The next thing that a clock brings about.
    fn next_time(&self) -> Option<Instant> {
        let cores = self.links.iter().flat_map(|l| [l.initiator.poll_timeout(), l.target.poll_timeout()]);
        let reconnect = self.reconnect.map(|(at, _)| at);
        cores.chain([self.i.poll_timeout(), self.t.poll_timeout(), reconnect]).flatten().min()
    }

    fn tick(&mut self) {
        self.now = self.next_time().unwrap().max(self.now);
        let now = self.now;
        for link in &mut self.links {
            for core in [&mut link.initiator, &mut link.target] {
                if core.poll_timeout().is_some_and(|at| at <= now) {
                    core.handle_timeout(now);
                }
            }
        }
        if self.i.poll_timeout().is_some_and(|at| at <= now) {
            self.i.handle_timeout(now);
        }
        if self.t.poll_timeout().is_some_and(|at| at <= now) {
            self.t.handle_timeout(now);
        }
        if let Some((_, cid)) = self.reconnect.filter(|(at, _)| *at <= now) {
            self.reconnect = None;
            self.connect(cid);
        }
    }

    /// Runs all commands; the number of PDUs that it took.
    fn run(&mut self, kind: Kind, what: &str) -> (usize, bool) {
        let start = self.now;
        let mut open: HashMap<TaskTag, u8> = HashMap::new();
        let mut next = 0;
        while next < COMMANDS || !open.is_empty() {
            // Three at a time, so that one may be lost before another.
            while next < COMMANDS && open.len() < 3 {
                let mut cdb = [0; 16];
                cdb[1] = next;
                let out = (kind != Kind::Read).then(|| Bytes::from(pattern(next, LENGTH, 0)).into());
                let input = (kind != Kind::Write).then(|| IoBuf::zeroed(LENGTH).into());
                let buffers = TaskBuffers { out, r#in: input };
                match self.i.submit(self.now, Command { cdb, buffers, ..Command::default() }) {
                    Ok(tag) => open.insert(tag, next),
                    Err(_) => break,
                };
                next += 1;
            }
            while self.step() {}
            while let Some(completion) = self.i.poll_completion() {
                let done = match completion {
                    Completion::Task(done) => done,
                    Completion::Text { result, .. } if self.declared => {
                        assert!(result.is_ok() || self.fault.1 == Fault::Break, "{what}: {result:?}");
                        continue;
                    }
                    other => panic!("{what}: {other:?}"),
                };
                let op = open.remove(&done.tag).unwrap();
                let status = done.result.unwrap_or_else(|e| panic!("{what}: command {op} failed: {e:?}"));
                if let Some(failed) = &mut self.failed
                    && status.status == ScsiStatus::CheckCondition
                {
                    assert_eq!((status.sense[2], &status.sense[12..14]), (0x0b, &[0x47, 5][..]), "{what}");
                    *failed += 1;
                    continue;
                }
                assert_eq!(status.status, ScsiStatus::Good, "{what}: command {op}: {:?}", status.sense);
                if let Some(input) = done.buffers.r#in {
                    let good = input.freeze().to_bytes() == pattern(op, LENGTH, 0x55);
                    assert!(good, "{what}: input of command {op} is wrong");
                }
            }
            if open.is_empty() && next == COMMANDS {
                break;
            }
            assert!(!self.ended, "{what}: the session ended");
            if open.len() < 3 && next < COMMANDS && self.i.connections().next().is_some() {
                continue;
            }
            self.tick();
            assert!(self.now - start < Duration::from_secs(300), "{what}: stuck with {open:?}");
        }
        for op in 0..COMMANDS {
            assert_eq!(self.executed.get(&op), Some(&1), "{what}: executions of command {op}");
            if self.failed.unwrap_or(0) == 0 && kind != Kind::Read {
                assert!(
                    self.written[&op] == pattern(op, LENGTH, 0),
                    "{what}: output of command {op} is wrong"
                );
            }
        }
        assert!(self.failed.unwrap_or(0) <= 1, "{what}: one PDU was lost, and {:?} commands", self.failed);
        (self.pdus, self.hit)
    }

    /// Runs a text exchange of several PDUs either way, a command behind it, and the logout; the number of PDUs.
    fn run_exchanges(mut self, what: &str) -> usize {
        let start = self.now;
        let keys: Vec<String> = (0..40).map(|n| format!("X-org.example.key-{n:02}")).collect();
        let text: String = keys.iter().map(|key| format!("{key}=some value or other\0")).collect();
        let answer: String = keys.iter().map(|key| format!("{key}=NotUnderstood\0")).collect();
        self.i.text(self.now, Bytes::from(text)).unwrap();
        let mut cdb = [0; 16];
        cdb[1] = COMMANDS;
        self.i.submit(self.now, Command { cdb, ..Command::default() }).unwrap();
        let mut open = 2;
        while !self.ended {
            while self.step() {}
            while let Some(completion) = self.i.poll_completion() {
                open -= 1;
                match completion {
                    Completion::Text { result, .. } => {
                        let text =
                            result.unwrap_or_else(|e| panic!("{what}: the text exchange failed: {e:?}"));
                        assert_eq!(text, answer, "{what}");
                    }
                    Completion::Task(done) => assert!(done.result.is_ok(), "{what}: {:?}", done.result),
                    other => panic!("{what}: {other:?}"),
                }
                if open == 0 {
                    self.i.logout(self.now);
                }
            }
            if !self.ended && self.next_time().is_some() && !self.step() {
                self.tick();
            }
            assert!(self.now - start < Duration::from_secs(60), "{what}: stuck with {open} requests");
        }
        assert_eq!((open, self.executed.get(&COMMANDS)), (0, Some(&1)), "{what}");
        // A response that is lost with the connection cannot be asked for again.
        let response_lost = self.lost == Some(0x26);
        assert!(self.closed || response_lost, "{what}: the session was not closed in order");
        self.pdus
    }
}

fn call(core: &mut TcpCore, call: iscsi_session::DownCall) {
    use iscsi_session::DownCall as D;
    match call {
        D::SendControl(c) => drop(core.send_control(c)),
        D::PutData(p) => drop(core.put_data(p)),
        D::GetData(g) => drop(core.get_data(g)),
        D::DeallocateTaskResources(itt) => core.deallocate_task_resources(itt),
        D::ConnectionTerminate => core.connection_terminate(),
        D::NoticeKeyValues(keys) => core.notice_key_values(&keys),
        D::SetWindow(window) => core.set_window(window),
    }
}

fn drain(core: &mut TcpCore, wire: &mut Vec<u8>) -> bool {
    let before = wire.len();
    loop {
        let mut n = 0;
        let mut slots = [IoSlice::new(&[]); 16];
        let filled = core.transmit_slices(&mut slots);
        for slot in &slots[..filled] {
            wire.extend_from_slice(slot);
            n += slot.len();
        }
        if n == 0 {
            return wire.len() > before;
        }
        core.transmitted(n);
    }
}

/// Cuts one PDU with both digests off the front.
fn first_pdu(wire: &mut Vec<u8>) -> Option<Vec<u8>> {
    let header = wire.get(..8)?;
    let data = u32::from_be_bytes([0, header[5], header[6], header[7]]) as usize;
    let data = if data > 0 { data.next_multiple_of(4) + 4 } else { 0 };
    let len = 48 + usize::from(header[4]) * 4 + 4 + data;
    (wire.len() >= len).then(|| wire.drain(..len).collect())
}

fn receive(core: &mut TcpCore, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() && core.is_open() {
        let mut n = 0;
        for slot in core.recv_slots().as_mut_slice() {
            let take = slot.len().min(rest.len());
            slot[..take].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            n += take;
        }
        if n == 0 {
            return;
        }
        core.received(n);
    }
}

fn every_pdu(level: u8, connections: u16, faults: &[Fault]) {
    for kind in [Kind::Read, Kind::Write, Kind::Both] {
        for initial_r2t in [true, false] {
            if kind == Kind::Read && !initial_r2t {
                continue;
            }
            let name =
                format!("level {level}, {connections} connections, {kind:?}, InitialR2T={initial_r2t}");
            let mut world = World::new(level, connections, initial_r2t, (0, Fault::None));
            let (pdus, _) = world.run(kind, &name);
            assert!(pdus > 30, "{name}: {pdus} PDUs");
            for fault in faults {
                for k in 0..pdus {
                    let what = format!("{name}, {fault:?} at PDU {k}");
                    let (_, hit) = World::new(level, connections, initial_r2t, (k, *fault)).run(kind, &what);
                    assert!(hit || *fault == Fault::Data, "{what}: nothing was lost");
                }
            }
        }
    }
}

// req: 7143-7.8-10, 7143-7.9-3, 7143-7.2.1-1, 7143-7.2.1-3, 7143-7.8-3, 7143-11.16-1
#[test]
fn at_level_1_every_damaged_pdu_is_recovered_in_its_connection() {
    every_pdu(1, 1, &[Fault::Header, Fault::Data]);
}

// req: 7143-7.1.4.3-2, 7143-7.2.2-2, 7143-7.2.2-5, 7143-11.5.6-1, 7143-11.5.6-2
#[test]
fn at_level_2_commands_outlive_a_connection_that_another_takes_the_place_of() {
    every_pdu(2, 1, &[Fault::Break, Fault::Header]);
}

// req: 7143-7.1.4.3-2, 7143-7.2.2-1, 7143-7.2.1-4, 7143-11.14-8
#[test]
fn at_level_2_commands_go_on_on_the_other_connection() {
    every_pdu(2, 2, &[Fault::Break]);
}

/// Requests other than commands are numbered too, so that a lost one is a gap and is sent again.
// req: 7143-7.2.1-1, 7143-7.2.1-3, 7143-7.8-10, 7143-7.9-3
#[test]
fn at_level_1_texts_and_logouts_are_sent_again() {
    let whole = World::new(1, 1, true, (0, Fault::None)).run_exchanges("no fault");
    assert!(whole > 10, "{whole} PDUs");
    for fault in [Fault::Header, Fault::Data] {
        for k in 0..whole {
            let what = format!("{fault:?} at PDU {k}");
            World::new(1, 1, true, (k, fault)).run_exchanges(&what);
        }
    }
}

/// MaxRecvDataSegmentLength becomes another amid the commands, and a PDU is lost: data that is missing is sent anew, cut
/// otherwise, except that of a command that has output too, which fails if it is not there (section 11.16.3); or the
/// connection breaks, which costs no command.
// req: 7143-11.16.3-1, 7143-11.16.3-2, 7143-7.8-6
#[test]
fn a_change_of_the_segment_length_does_no_harm_to_what_is_recovered() {
    for kind in [Kind::Read, Kind::Write, Kind::Both] {
        let (mut r_data, mut failed) = (0, 0);
        for (at, length) in [(4, 512), (4, 4096), (12, 512), (12, 1500), (20, 4096)] {
            let world = |fault: (usize, Fault)| {
                // A connection that breaks takes its tasks to another one, which has another length too.
                let level = if fault.1 == Fault::Break { 2 } else { 1 };
                let mut world = World::new(level, 1, true, fault);
                world.declares = Some((at, length));
                world.failed = (kind == Kind::Both && level == 1 && fault.1 != Fault::None).then_some(0);
                world
            };
            let name = format!("{kind:?}, {length} bytes declared at PDU {at}");
            let (pdus, _) = world((0, Fault::None)).run(kind, &name);
            for fault in [Fault::Header, Fault::Data, Fault::Break] {
                for k in 0..pdus {
                    let what = format!("{name}, {fault:?} at PDU {k}");
                    let mut world = world((k, fault));
                    world.run(kind, &what);
                    assert!(world.declared || (fault == Fault::Break && k <= at), "{what}");
                    r_data += world.r_data;
                    failed += world.failed.unwrap_or(0);
                }
            }
        }
        assert_eq!((r_data > 0, failed > 0), (kind == Kind::Read, kind == Kind::Both), "{kind:?}");
    }
}
