//! Moving data (RFC 5047 sections 6, 8.2, 8.3, 9.3, 9.4).

use super::{Command, Ends, PairFactory, pattern};
use crate::{ConnKeys, DataCompletion, Event, Resources, SgList, TaskBuffers, Window};
use bytes::Bytes;
use iscsi_pdu::{Itt, Residual, ScsiResponse, StatSn};

fn input(buffers: TaskBuffers) -> Bytes {
    buffers.r#in.expect("the input buffer comes back").freeze().to_bytes()
}

fn output(buffers: &TaskBuffers) -> Bytes {
    buffers.out.as_ref().expect("the output comes back").to_bytes()
}

impl Ends {
    /// One completed read: `data` in puts of `piece` bytes.
    fn whole_read(&mut self, itt: u32, data: &Bytes, piece: usize) {
        self.command(&Command::read(itt, data.len()));
        for (n, part) in data.chunks(piece).enumerate() {
            let list = self.t.filled(part).freeze();
            self.t.put(itt, n * piece, list);
        }
        assert_eq!(input(self.respond(itt, itt)), data);
    }

    /// One completed write: `data` in gets of `piece` bytes, asked for together.
    fn whole_write(&mut self, itt: u32, data: &Bytes, piece: usize) {
        self.command(&Command::write(itt, data.clone()));
        let pieces = data.len().div_ceil(piece);
        for n in 0..pieces {
            self.t.get(itt, n * piece, piece.min(data.len() - n * piece));
        }
        for _ in 0..pieces {
            self.check_get(itt, data);
        }
        assert_eq!(output(&self.respond(itt, itt)), data);
    }

    fn check_get(&mut self, itt: u32, out: &Bytes) -> u32 {
        let DataCompletion { itt: tag, offset, data, result } = self.completion();
        assert_eq!((tag, result), (Itt(itt), Ok(())));
        let got = data.expect("the buffer comes back").freeze();
        let at = offset as usize;
        assert_eq!(got, SgList::from(out.slice(at..at + got.len())));
        offset
    }
}

pub(super) fn read_in_pieces(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for (n, (len, piece)) in [(1, 1), (3, 1), (4096, 4096), (8193, 5000), (65_536, 65_536), (300_001, 65_536)]
        .into_iter()
        .enumerate()
    {
        ends.whole_read(n as u32 + 1, &pattern(n as u32, len), piece);
    }
    ends.expect_quiet();
    ends.finish();
}

/// Puts in any order of offsets, where the keys allow it.
pub(super) fn read_in_any_order(factory: &dyn PairFactory) {
    let mut keys = factory.keys();
    keys.data_sequence_in_order = false;
    keys.data_pdu_in_order = false;
    let mut ends = factory.pair().enable(&keys, &Resources::default());
    let data = pattern(8, 50_000);
    ends.command(&Command::read(1, data.len()));
    for n in [3usize, 0, 4, 2, 1] {
        let list = ends.t.filled(&data[n * 10_000..(n + 1) * 10_000]).freeze();
        ends.t.put(1, n * 10_000, list);
    }
    assert_eq!(input(ends.respond(1, 1)), data);
    ends.finish();
}

pub(super) fn no_data(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for itt in 1..4 {
        ends.command(&Command::read(itt, 0));
        assert!(ends.respond(itt, itt).is_none());
    }
    // A read that inputs nothing, although there was room.
    ends.command(&Command::read(9, 100));
    let residual = Residual::Underflow(100);
    let response = ScsiResponse { itt: Itt(9), stat_sn: StatSn(9), residual, ..ScsiResponse::default() };
    assert_eq!(input(ends.respond_with(response)), [0u8; 100].as_slice(), "untouched");
    ends.finish();
}

pub(super) fn write_immediate(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for (itt, len) in [(1, 1usize), (2, 511), (3, 4096), (4, 8192)] {
        let out = pattern(itt, len);
        ends.command(&Command { immediate: len, unsolicited: len, ..Command::write(itt, out.clone()) });
        assert_eq!(output(&ends.respond(itt, itt)), out);
    }
    // A part of it immediate, the rest asked for.
    let out = pattern(5, 9_000);
    ends.command(&Command { immediate: 1000, unsolicited: 1000, ..Command::write(5, out.clone()) });
    ends.t.get(5, 1000, 8_000);
    ends.check_get(5, &out);
    ends.respond(5, 5);
    ends.finish();
}

pub(super) fn write_at_offsets(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    ends.whole_write(1, &pattern(1, 100_000), 7_000);
    ends.whole_write(2, &pattern(2, 5), 1);
    let mut keys = factory.keys();
    keys.data_sequence_in_order = false;
    keys.max_outstanding_r2t = 4;
    ends.finish();
    let mut ends = factory.pair().enable(&keys, &Resources::default());
    let out = pattern(3, 64_000);
    ends.command(&Command::write(3, out.clone()));
    let mut asked = [48_000u32, 0, 32_000, 16_000];
    for offset in asked {
        ends.t.get(3, offset as usize, 16_000);
    }
    let mut done: Vec<u32> = (0..4).map(|_| ends.check_get(3, &out)).collect();
    // In any order, each once.
    done.sort_unstable();
    asked.sort_unstable();
    assert_eq!(done, asked);
    ends.respond(3, 3);
    ends.finish();
}

pub(super) fn bidirectional(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let (out, into) = (pattern(1, 20_000), pattern(2, 30_000));
    ends.command(&Command { room: into.len(), ..Command::write(1, out.clone()) });
    ends.t.get(1, 0, 10_000);
    let list = ends.t.filled(&into[..15_000]).freeze();
    ends.t.put(1, 0, list);
    ends.check_get(1, &out);
    ends.t.get(1, 10_000, 10_000);
    let list = ends.t.filled(&into[15_000..]).freeze();
    ends.t.put(1, 15_000, list);
    ends.check_get(1, &out);
    let buffers = ends.respond(1, 1);
    assert_eq!(output(&buffers), out);
    assert_eq!(input(buffers), into);
    ends.finish();
}

/// The shortest lengths that the keys can have.
pub(super) fn tiny_segments(factory: &dyn PairFactory) {
    let mut keys = factory.keys();
    if factory.features().segments {
        keys.max_recv_data_segment_length = 512;
        keys.max_send_data_segment_length = 516;
    }
    (keys.max_burst_length, keys.first_burst_length) = (512, 512);
    for r2ts in [1, 2, 65_535] {
        keys.max_outstanding_r2t = r2ts;
        let mut ends = factory.pair().enable(&keys, &Resources::default());
        for (n, len) in [1usize, 511, 512, 513, 4095, 10_000].into_iter().enumerate() {
            let n = n as u32 + 1;
            ends.whole_read(2 * n, &pattern(n, len), 3_000);
            ends.whole_write(2 * n + 1, &pattern(n, len), 3_000);
        }
        ends.finish();
    }
}

/// Longer than MaxBurstLength and MaxRecvDataSegmentLength, and not a multiple of either.
pub(super) fn large_transfers(factory: &dyn PairFactory) {
    let base = factory.keys();
    let mut all = vec![base.clone()];
    if factory.features().segments {
        let lengths: [(u32, u32, u32); 3] =
            [(262_144, 262_144, 262_144), (8_192, 1_000, 65_536), (1 << 20, 1 << 20, (1 << 24) - 1)];
        all.extend(lengths.into_iter().map(|(recv, send, burst)| {
            let mut keys: ConnKeys = base.clone();
            keys.max_recv_data_segment_length = recv;
            keys.max_send_data_segment_length = send;
            keys.max_burst_length = burst;
            keys
        }));
    }
    for keys in all {
        let mut ends = factory.pair().enable(&keys, &Resources::default());
        let data = pattern(1, 3_000_001);
        ends.whole_read(1, &data, 1_000_000);
        ends.whole_write(2, &data, 1_000_000);
        ends.whole_write(3, &data, data.len());
        ends.expect_quiet();
        ends.finish();
    }
}

/// Reads and writes of many tasks, all open together.
pub(super) fn many_tasks_at_once(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let count = 32u32;
    let data: Vec<Bytes> = (0..count).map(|n| pattern(n, 1 + n as usize * 1_700)).collect();
    for n in 0..count {
        let room = data[n as usize].len();
        let command =
            if n % 2 == 0 { Command::read(n, room) } else { Command::write(n, data[n as usize].clone()) };
        ends.i.send(command.control());
    }
    for n in 0..count {
        assert_eq!(ends.control_at(true).pdu.itt(), Itt(n));
    }
    for n in (0..count).rev() {
        let data = &data[n as usize];
        if n % 2 == 0 {
            let list = ends.t.filled(data).freeze();
            ends.t.put(n, 0, list);
        } else {
            ends.t.get(n, 0, data.len());
        }
    }
    for _ in 0..count / 2 {
        let done = ends.completion();
        assert_eq!(done.data.map(|d| d.freeze().to_bytes()).as_ref(), data.get(done.itt.0 as usize));
    }
    for n in 0..count {
        let buffers = ends.respond(n, n);
        if n % 2 == 0 {
            assert_eq!(input(buffers), data[n as usize]);
        }
    }
    ends.finish();
}

/// Memory of no pool works, too.
pub(super) fn foreign_memory(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let data = pattern(6, 70_000);
    ends.command(&Command::read(1, data.len()));
    let parts: SgList = [data.slice(..1), data.slice(1..40_000), data.slice(40_000..)].into_iter().collect();
    ends.t.put(1, 0, parts);
    assert_eq!(input(ends.respond(1, 1)), data);
    ends.finish();
}

pub(super) fn notify_only_when_asked(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let data = pattern(6, 9_000);
    ends.command(&Command::read(1, data.len()));
    for (n, notify) in [false, true, false].into_iter().enumerate() {
        let list = ends.t.filled(&data[n * 3_000..(n + 1) * 3_000]).freeze();
        ends.t.put_with(1, n * 3_000, list, false, notify);
    }
    let done = ends.completion();
    assert_eq!((done.itt, done.offset, done.result, done.data.is_none()), (Itt(1), 3_000, Ok(()), true));
    ends.expect_quiet();
    ends.respond(1, 1);
    ends.finish();
}

pub(super) fn data_acknowledged(factory: &dyn PairFactory) {
    if !factory.features().data_ack {
        return;
    }
    let mut keys = factory.keys();
    keys.error_recovery_level = 1;
    let mut ends = factory.pair().enable(&keys, &Resources::default());
    let data = pattern(6, 9_000);
    ends.command(&Command::read(1, data.len()));
    for (n, ack) in [false, true, false].into_iter().enumerate() {
        let list = ends.t.filled(&data[n * 3_000..(n + 1) * 3_000]).freeze();
        ends.t.put_with(1, n * 3_000, list, ack, false);
    }
    let event = ends.event_at("an acknowledgment", true);
    let Event::DataAck { itt, exp_data_sn } = event else { panic!("not an acknowledgment: {event:?}") };
    assert_eq!(itt, Itt(1));
    // The PDU after the one that asked: two Puts, one PDU each with these lengths.
    assert!(exp_data_sn.is_none_or(|sn| sn.0 == 2), "{exp_data_sn:?}");
    ends.expect_quiet();
    ends.respond(1, 1);
    ends.finish();
}

pub(super) fn windows_are_stamped(factory: &dyn PairFactory) {
    if !factory.features().window {
        return;
    }
    let mut ends = Ends::new(factory);
    let down = Window { stat_sn: StatSn(11), exp_cmd_sn: 22.into(), max_cmd_sn: 33.into() };
    ends.t.mover.set_window(down);
    let up = Window { stat_sn: StatSn(44), ..Window::default() };
    ends.i.mover.set_window(up);
    ends.whole_write(1, &pattern(1, 5_000), 5_000);
    assert_eq!(ends.i.windows.last(), Some(&down));
    assert_eq!(ends.t.windows.last().map(|w| w.stat_sn), Some(StatSn(44)));
    let down = Window { max_cmd_sn: 34.into(), ..down };
    ends.t.mover.set_window(down);
    // Without a response in between, which has numbers of its own.
    ends.command(&Command::read(2, 100));
    let list = ends.t.filled(&pattern(2, 100)).freeze();
    ends.t.put(2, 0, list);
    ends.expect_quiet();
    assert_eq!(ends.i.windows.last().map(|w| (w.exp_cmd_sn, w.max_cmd_sn)), Some((22.into(), 34.into())));
    ends.respond(2, 2);
    ends.finish();
}

pub(super) fn short_read_with_residual(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let data = pattern(1, 36);
    ends.command(&Command::read(1, 255));
    let list = ends.t.filled(&data).freeze();
    ends.t.put(1, 0, list);
    let residual = Residual::Underflow(255 - 36);
    let response = ScsiResponse { itt: Itt(1), stat_sn: StatSn(1), residual, ..ScsiResponse::default() };
    let got = input(ends.respond_with(response));
    assert_eq!((got.len(), &got[..36]), (255, &data[..]));
    ends.command(&Command::read(2, 36));
    let list = ends.t.filled(&data).freeze();
    ends.t.put(2, 0, list);
    let residual = Residual::Overflow(60);
    let response = ScsiResponse { itt: Itt(2), stat_sn: StatSn(2), residual, ..ScsiResponse::default() };
    assert_eq!(input(ends.respond_with(response)), data);
    ends.finish();
}
