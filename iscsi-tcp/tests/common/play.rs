//! Plays bytes to a core in either role, with transfers open in it, and looks that it keeps its promises. Shared by
//! the property tests and the fuzz target.

use bytes::{Bytes, BytesMut};
use datamover::{
    BufPool, ConnKeys, Control, Event, GetData, IoBuf, PutData, Resources, Role, SgListMut, SlabPool,
    TaskBuffers,
};
use iscsi_pdu::{Ahs, Digests, Framer, Itt, Limits, Lun, Pdu, ScsiCommand};
use iscsi_tcp::{Handover, TcpCore};
use std::io::IoSlice;
use std::sync::Arc;

/// Bytes of each of the open transfers.
pub const LEN: usize = 70_000;

/// What to play.
#[derive(Clone, Debug)]
pub struct Script {
    /// The role of the core.
    pub role: Role,
    /// Digests, which the stream must have.
    pub digests: Digests,
    /// DataPDUInOrder and DataSequenceInOrder.
    pub in_order: bool,
    /// ErrorRecoveryLevel.
    pub level: u8,
    /// Give task 1 up when so many bytes have arrived.
    pub give_up: Option<usize>,
}

impl Script {
    /// A script out of one byte.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self {
            role: if bits & 1 == 0 { Role::Target } else { Role::Initiator },
            digests: Digests { header: bits & 2 != 0, data: bits & 4 != 0 },
            in_order: bits & 8 == 0,
            level: bits >> 4 & 1,
            give_up: (bits & 0x20 != 0).then_some(60),
        }
    }
}

/// A stream of PDUs without digests, as far as it is one, with digests.
#[must_use]
pub fn with_digests(stream: &[u8], digests: Digests) -> Vec<u8> {
    let mut framer = Framer::new(Limits::MAX);
    framer.push(Bytes::copy_from_slice(stream));
    let mut out = BytesMut::new();
    while let Ok(Some(pdu)) = framer.next_pdu() {
        let _ = pdu.encode_with(digests, &mut out);
    }
    out.to_vec()
}

/// Plays the stream in pieces of the lengths given, over and over; returns what came up, in words, windows left out.
///
/// # Panics
/// When the core breaks a promise.
#[must_use]
pub fn play(script: &Script, stream: &[u8], lengths: &[usize]) -> Vec<String> {
    let pool = Arc::new(SlabPool::default());
    let mut keys = ConnKeys::default();
    (keys.header_digest, keys.data_digest) = (script.digests.header, script.digests.data);
    (keys.data_pdu_in_order, keys.data_sequence_in_order) = (script.in_order, script.in_order);
    keys.error_recovery_level = script.level;
    (keys.max_recv_data_segment_length, keys.max_send_data_segment_length) = (65_536, 4_000);
    keys.max_burst_length = 20_000;
    // An initiator's limit must be out of reach: whether the peer broke it depends on what was answered in between,
    // and so on the pieces.
    keys.max_outstanding_r2t = if script.role == Role::Target { 3 } else { u16::MAX };
    let mut core = TcpCore::new(script.role, keys, &Resources::default(), pool.clone(), Handover::default());
    open(&mut core);
    let mut sent = Framer::new(Limits::MAX);
    sent.set_digests(script.digests);
    let mut seen = Vec::new();
    transmit(&mut core, &mut sent);
    let (mut at, mut lengths) = (0usize, lengths.iter().copied().cycle());
    let mut give_up = script.give_up;
    while at < stream.len() && core.is_open() {
        let mut end = stream.len().min(at.saturating_add(lengths.next().unwrap_or(usize::MAX).max(1)));
        if let Some(when) = give_up.filter(|when| end >= *when) {
            // At the same byte however the stream is cut.
            end = when.max(at);
        }
        feed(&mut core, stream.get(at..end).unwrap_or_default());
        at = end;
        if give_up == Some(at) {
            give_up = None;
            core.deallocate_task_resources(Itt(1));
        }
        transmit(&mut core, &mut sent);
        events(&mut core, &mut seen);
    }
    events(&mut core, &mut seen);
    let ends = seen.iter().filter(|e| e.starts_with("Terminated")).count();
    assert_eq!(ends, usize::from(core.is_ended()), "{seen:?}");
    assert!(
        ends == 0 || seen.last().is_some_and(|e| e.starts_with("Terminated")),
        "it is the last: {seen:?}"
    );
    let moved = core.stats();
    assert!(moved.copied_bytes <= stream.len() as u64 && moved.data_in <= stream.len() as u64, "{moved:?}");
    drop(core);
    assert_eq!(pool.outstanding(), 0, "memory of the pool");
    seen
}

/// Tasks 1 to 4: two that read (or fetch), two that write (or put), one of them both at an initiator.
fn open(core: &mut TcpCore) {
    let data = Bytes::from(vec![0x5a; LEN]);
    let room = || -> SgListMut { [IoBuf::zeroed(LEN - 9_999), IoBuf::zeroed(9_999)].into_iter().collect() };
    for n in 1..=4u32 {
        if core.role() == Role::Initiator {
            let (read, write) = (n != 3, n > 2);
            let ahs = if read && write { vec![Ahs::BidirectionalReadLength(LEN as u32)] } else { Vec::new() };
            let command = ScsiCommand {
                final_pdu: true,
                read,
                write,
                itt: Itt(n),
                expected_data_transfer_length: LEN as u32,
                ahs,
                ..ScsiCommand::default()
            };
            let buffers =
                TaskBuffers { out: write.then(|| data.clone().into()), r#in: read.then(|| room().into()) };
            let _ = core.send_control(Control { pdu: command.into(), buffers, unsolicited: 0 });
        } else if n <= 2 {
            let _ =
                core.get_data(GetData { itt: Itt(n), lun: Lun::ZERO, offset: 0, into: room(), resume: None });
        } else {
            let data = data.clone().into();
            let (itt, lun, resume) = (Itt(n), Lun::ZERO, None);
            let _ = core.put_data(PutData { itt, lun, offset: 0, data, resume, ack: true, notify: true });
        }
    }
}

fn feed(core: &mut TcpCore, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() && core.is_open() {
        let mut n = 0usize;
        for slot in core.recv_slots().as_mut_slice() {
            assert!(!slot.is_empty(), "no empty slots");
            let (now, later) = rest.split_at(slot.len().min(rest.len()));
            slot[..now.len()].copy_from_slice(now);
            rest = later;
            n += now.len();
        }
        assert!(n > 0, "an open core has room");
        core.received(n);
    }
}

fn transmit(core: &mut TcpCore, sent: &mut Framer) {
    loop {
        let mut bytes = Vec::new();
        let mut slots = [IoSlice::new(&[]); 7];
        let n = core.transmit_slices(&mut slots);
        for slot in &slots[..n] {
            bytes.extend_from_slice(slot);
        }
        if bytes.is_empty() {
            break;
        }
        core.transmitted(bytes.len());
        sent.push(bytes);
    }
    while let Some(pdu) = sent.next_pdu().expect("what the core sends are PDUs") {
        if let Pdu::DataOut(d) = pdu {
            assert!(d.buffer_offset as usize + d.data.len() <= LEN, "within the buffer");
            assert!(d.data.iter().all(|b| *b == 0x5a), "of the buffer");
        }
    }
}

fn list(l: SgListMut) -> u32 {
    l.slices(0, l.len()).fold(iscsi_pdu::Crc32c::new(), iscsi_pdu::Crc32c::update).finish()
}

/// Events in words; buffers by their content.
fn events(core: &mut TcpCore, seen: &mut Vec<String>) {
    while let Some(event) = core.poll_event() {
        seen.push(match event {
            Event::Window(_) => continue,
            Event::Control(c) => format!("{:?} {:?}", c.pdu, c.buffers.r#in.map(|l| list(*l))),
            Event::DataCompletion(d) => {
                // A transfer that failed leaves whatever had arrived.
                let ok = d.result.is_ok();
                format!("{:?} {} {:?} {:?}", d.itt, d.offset, d.result, d.data.filter(|_| ok).map(list))
            }
            Event::Terminated(t) => format!("Terminated {:?} {}", t.cause, t.reclaimed.len()),
            other => format!("{other:?}"),
        });
    }
}
