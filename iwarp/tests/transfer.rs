//! Random work between two queue pairs, joined by a stream that is cut anywhere, damaged, or cut off.

mod common;

use bytes::Bytes;
use iwarp::mpa::Config;
use iwarp::{
    Access, Cause, Completion, Done, Limits, Memory, QueuePair, ReadWr, Region, RemoteAddr, SendWr, Stag,
    TerminateCode as T, WrId, WriteWr,
};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Memory in pieces.
type Pieces = Vec<Vec<u8>>;
type Qp = QueuePair<Pieces>;

const REGION: usize = 150_000;
const BASE: u64 = 1 << 40;

#[derive(Clone, Debug)]
enum Op {
    /// A message; `solicited`.
    Send(usize, bool),
    /// Octets written at an offset of the peer's region.
    Write(usize, usize),
    /// Octets read from an offset of the peer's data.
    Read(usize, usize),
    /// Octets written to memory of one use, and a message that invalidates it.
    WriteOnce(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![Just(0usize), 1usize..600, 600usize..6000, 6000usize..70_000];
    let at = |len: usize| (0..=REGION - len, Just(len));
    prop_oneof![
        (len.clone(), any::<bool>()).prop_map(|(n, s)| Op::Send(n, s)),
        len.clone().prop_flat_map(at).prop_map(|(o, n)| Op::Write(o, n)),
        len.clone().prop_flat_map(at).prop_map(|(o, n)| Op::Read(o, n)),
        len.prop_map(Op::WriteOnce),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (any::<bool>(), any::<bool>(), 1u16..4, 1u16..4, any::<bool>()).prop_map(
        |(crc, markers, ird, ord, p2p)| Config {
            crc,
            markers,
            ird,
            ord,
            peer_to_peer: p2p,
            ..Config::default()
        },
    )
}

fn emss() -> impl Strategy<Value = u32> {
    prop_oneof![Just(128u32), Just(1460), Just(9000), Just(32 * 1024 + 24), Just(u32::MAX)]
}

/// Octets that tell where they come from.
fn data(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(31) ^ (n >> 8) ^ seed.wrapping_mul(97)) as u8).collect()
}

/// `len` octets in pieces of sizes that depend on `seed`.
fn pieces(seed: usize, len: usize) -> Pieces {
    let mut all = Vec::new();
    let mut left = len;
    let mut size = 1 + seed % 7;
    while left > 0 {
        let n = size.min(left);
        all.push(vec![0xee; n]);
        left -= n;
        size = size * 5 + 3;
    }
    all
}

fn joined(m: &Pieces, len: usize) -> Vec<u8> {
    m.concat()[..len].to_vec()
}

/// One end: its queue pair, and what must become of what was posted.
struct End {
    qp: Qp,
    /// Where the peer may write, and read.
    region: Stag,
    source: Stag,
    content: Vec<u8>,
    /// Messages to come: payload, solicited, and contents of the memory that comes back with it.
    messages: VecDeque<(Vec<u8>, bool, Option<Vec<u8>>)>,
    /// Completions to come, in order: what a read is to return.
    work: VecDeque<(WrId, Option<Vec<u8>>)>,
    /// What the region must hold in the end.
    shadow: Vec<u8>,
    strict: bool,
}

impl End {
    fn new(e: &iwarp::mpa::Established, seed: u8, emss: u32) -> Self {
        let limits = Limits { emss, ..Limits::default() };
        let mut qp = Qp::new(e, limits, [seed; 16]);
        let content = data(usize::from(seed), REGION);
        let region = qp.register(Region::Owned(pieces(3, REGION)), Access::WRITE, BASE).unwrap();
        let cut = content.len() / 3;
        let source = [&content[..cut], &content[cut..]].into_iter().map(Bytes::copy_from_slice).collect();
        let source = qp.register(Region::Shared(source), Access::READ, BASE).unwrap();
        let (messages, work) = Default::default();
        Self { qp, region, source, content, messages, work, shadow: vec![0xee; REGION], strict: true }
    }

    /// Checks and counts what has been done.
    fn reap(&mut self) {
        while let Some(Completion { id, flushed, done }) = self.qp.poll_cq() {
            if flushed {
                assert!(!self.strict, "flushed: {:?}", self.qp.cause());
                continue;
            }
            match done {
                Done::Recv { buffer, len, solicited, invalidated } => {
                    let (payload, s, returned) = self.messages.pop_front().expect("a message nobody sent");
                    assert_eq!((joined(&buffer, len), solicited), (payload, s));
                    let memory = invalidated.map(|i| match i.region {
                        Some(Region::Owned(m)) => m.concat(),
                        other => panic!("{other:?}"),
                    });
                    assert_eq!(memory, returned);
                }
                Done::Read { sink, len } => {
                    let (posted, expected) = self.work.pop_front().unwrap();
                    assert_eq!((posted, Some(joined(&sink, len as usize))), (id, expected));
                }
                Done::Send | Done::Write => assert_eq!(self.work.pop_front().unwrap(), (id, None)),
            }
        }
    }
}

/// Posts an operation of `from` that concerns `to`; `n` names it.
fn post(op: &Op, n: usize, from: &mut End, to: &mut End) {
    let id = WrId(n as u64);
    let at = |stag, offset: usize| RemoteAddr { stag, offset: BASE + offset as u64 };
    let message =
        |from: &mut End, to: &mut End, len: usize, solicited, invalidate: Option<(Stag, Vec<u8>)>| {
            let payload = data(n, len);
            to.qp.post_recv(WrId(0), pieces(n, len)).unwrap();
            let halves = payload.split_at(len / 2);
            let gather = [halves.0, halves.1].into_iter().map(Bytes::copy_from_slice).collect();
            let (stag, memory) = invalidate.unzip();
            let wr = SendWr { id, payload: gather, invalidate: stag, solicited, ..SendWr::default() };
            from.qp.post_send(wr).unwrap();
            from.work.push_back((id, None));
            to.messages.push_back((payload, solicited, memory));
        };
    match *op {
        Op::Send(len, solicited) => message(from, to, len, solicited, None),
        Op::Write(offset, len) => {
            let payload = data(n, len);
            to.shadow[offset..offset + len].copy_from_slice(&payload);
            let (payload, to) = (Bytes::from(payload).into(), at(to.region, offset));
            from.qp
                .post_write(WriteWr { id, payload, to, fence: n.is_multiple_of(2), unsignaled: true })
                .unwrap();
        }
        Op::Read(offset, len) => {
            let from_addr = at(to.source, offset);
            let (len, sink) = (len as u32, pieces(n, len + n % 3));
            from.qp.post_read(ReadWr { id, from: from_addr, len, sink }).unwrap();
            from.work.push_back((id, Some(to.content[offset..offset + len as usize].to_vec())));
        }
        Op::WriteOnce(len) => {
            let stag = to.qp.register(Region::Owned(pieces(n + 1, len + 2)), Access::WRITE, BASE).unwrap();
            let payload = data(n + 5, len);
            let memory = [&[0xee][..], &payload, &[0xee]].concat();
            let (payload, addr) = (Bytes::from(payload).into(), at(stag, 1));
            from.qp.post_write(WriteWr { id, payload, to: addr, fence: false, unsignaled: true }).unwrap();
            message(from, to, 20, false, Some((stag, memory)));
        }
    }
}

/// Octets under way, handed over in pieces.
#[derive(Default)]
struct Wire {
    octets: VecDeque<u8>,
    carried: u64,
    /// Octet to be damaged, and how.
    damage: Option<(u64, u8)>,
    /// Octet after which nothing arrives.
    cut: Option<u64>,
}

impl Wire {
    /// `from` writes at most `n` octets, `to` reads at most `m` of those under way. Whether anything moved.
    fn carry(&mut self, from: &mut Qp, to: &mut Qp, n: usize, m: usize) -> bool {
        let mut iov = [IoSlice::new(&[]); 5];
        let used = from.transmit_slices(&mut iov);
        let taken = iov[..used].iter().flat_map(|s| s.iter().copied()).take(n).collect::<Vec<u8>>();
        from.transmitted(taken.len());
        let mut moved = !taken.is_empty();
        for octet in taken {
            let damage = self.damage.filter(|d| d.0 == self.carried).map_or(0, |d| d.1);
            if self.cut.is_none_or(|c| self.carried < c) {
                self.octets.push_back(octet ^ damage);
            }
            self.carried += 1;
        }
        let piece: Vec<u8> = self.octets.iter().copied().take(m).collect();
        if !piece.is_empty() {
            let taken = to.recv_slots().fill_from(&piece);
            assert!(taken > 0, "a queue pair always has room");
            self.octets.drain(..taken);
            to.received(taken);
            moved = true;
        }
        moved
    }
}

/// Does all operations, with the stream cut into pieces of the given sizes; both ends as they are then.
fn run(
    configs: (Config, Config),
    emss: (u32, u32),
    ops: &[(bool, Op)],
    cuts: &[usize],
    wires: (Wire, Wire),
    strict: bool,
) -> (End, End) {
    let (i, r) = common::negotiate(configs.0, configs.1);
    let (mut a, mut b) = (End::new(&i, 1, emss.0), End::new(&r, 2, emss.1));
    (a.strict, b.strict) = (strict, strict);
    // The initiator opens the stream.
    post(&Op::Send(0, false), 0, &mut a, &mut b);
    for (n, (by_a, op)) in ops.iter().enumerate() {
        match by_a {
            true => post(op, n + 1, &mut a, &mut b),
            false => post(op, n + 1, &mut b, &mut a),
        }
    }
    let (mut ab, mut ba) = wires;
    let mut sizes = cuts.iter().copied().cycle();
    let mut size = || sizes.next().unwrap();
    let mut idle = 0;
    while idle < 3 {
        let moved =
            ab.carry(&mut a.qp, &mut b.qp, size(), size()) | ba.carry(&mut b.qp, &mut a.qp, size(), size());
        idle = if moved { 0 } else { idle + 1 };
        a.reap();
        b.reap();
    }
    (a, b)
}

fn region_of(mut e: End) -> Vec<u8> {
    match e.qp.invalidate(e.region).unwrap().region {
        Some(Region::Owned(m)) => {
            assert_eq!(Memory::len(&m), REGION);
            m.concat()
        }
        other => panic!("{other:?}"),
    }
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![Just(1usize), 2usize..40, 40usize..2000, 2000usize..100_000];
    // Something large among them, or small pieces would never end.
    proptest::collection::vec(size, 1..12).prop_map(|mut v| {
        v.push(50_000);
        v
    })
}

fn ops(n: usize) -> impl Strategy<Value = Vec<(bool, Op)>> {
    proptest::collection::vec((any::<bool>(), op()), 0..n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Everything arrives, once, in order, in its place and nowhere else.
    #[test]
    fn work_is_done(
        configs in (config(), config()),
        emss in (emss(), emss()),
        ops in ops(14),
        cuts in cuts(),
    ) {
        let (a, b) = run(configs, emss, &ops, &cuts, Default::default(), true);
        prop_assert_eq!((a.qp.cause(), b.qp.cause()), (None, None));
        prop_assert!(a.messages.is_empty() && b.messages.is_empty());
        prop_assert!(a.work.is_empty() && b.work.is_empty(), "{:?} {:?}", a.work, b.work);
        for e in [a, b] {
            let shadow = e.shadow.clone();
            prop_assert!(region_of(e) == shadow);
        }
    }

    /// One damaged octet ends the stream, or holds it up, and nothing behind it is delivered.
    #[test]
    fn damage_is_noticed(
        mut configs in (config(), config()),
        emss in (emss(), emss()),
        ops in ops(10),
        cuts in cuts(),
        at in any::<proptest::sample::Index>(),
        bits in 1u8..,
    ) {
        configs.0.crc = true;
        let (whole, _) = run(configs.clone(), emss, &ops, &cuts, Default::default(), true);
        let sent = whole.qp.stats().fpdus_out;
        // The octets of the FPDUs alone; the startup is not on this wire.
        let wire = Wire { damage: Some((at.index(40_000) as u64, bits)), ..Wire::default() };
        let (a, mut b) = run(configs, emss, &ops, &cuts, (wire, Wire::default()), false);
        match b.qp.cause() {
            None => {
                // Beyond the end of the stream, or in a length: the receiver waits for octets that do not come.
                b.qp.handle_eof();
                if b.qp.cause() == Some(Cause::Lost) {
                    prop_assert!(b.qp.stats().fpdus_in <= sent);
                }
            }
            // Whatever the octet was, the CRC or the marker is what tells.
            Some(Cause::Local(t)) => {
                prop_assert!(matches!(t.code, T::MPA_CRC | T::MPA_MARKER), "{:?}", t);
                prop_assert!(matches!(a.qp.cause(), Some(Cause::Remote(_)) | None));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// A stream that is cut off ends in a lost connection, unless it was cut between FPDUs; all that was delivered
    /// was right, and all that was posted comes back.
    #[test]
    fn cut_off(
        configs in (config(), config()),
        emss in (emss(), emss()),
        ops in ops(10),
        cuts in cuts(),
        at in 0u64..60_000,
    ) {
        let wire = || Wire { cut: Some(at), ..Wire::default() };
        let (mut a, mut b) = run(configs, emss, &ops, &cuts, (wire(), wire()), false);
        for e in [&mut a, &mut b] {
            prop_assert_eq!(e.qp.cause(), None);
            let posted = e.qp.posted_recvs();
            e.qp.handle_eof();
            e.qp.handle_lost();
            prop_assert_eq!(e.qp.cause(), Some(Cause::Lost));
            prop_assert_eq!(e.qp.posted_recvs(), 0);
            let back: Vec<_> = std::iter::from_fn(|| e.qp.poll_cq()).collect();
            prop_assert!(back.iter().all(|c| c.flushed));
            prop_assert_eq!(back.iter().filter(|c| matches!(c.done, Done::Recv { .. })).count(), posted);
            prop_assert!(e.qp.reclaim().len() >= 2);
        }
    }

    /// Octets of no meaning are survived, and touch nothing that was not lent.
    #[test]
    fn garbage(
        crc in any::<bool>(),
        markers in any::<bool>(),
        octets in proptest::collection::vec(any::<u8>(), 0..3000),
        cuts in cuts(),
    ) {
        let config = Config { crc, markers, ..Config::default() };
        let (_, r) = common::negotiate(config.clone(), config);
        let mut e = End::new(&r, 2, 1460);
        let mut sizes = cuts.iter().copied().cycle();
        let mut rest = &octets[..];
        while !rest.is_empty() {
            let n = sizes.next().unwrap().min(rest.len());
            let taken = e.qp.recv_slots().fill_from(&rest[..n]);
            e.qp.received(taken);
            rest = &rest[taken..];
        }
        prop_assert!(region_of(e) == vec![0xee; REGION]);
    }
}
