use super::pipe::{Pipe, Wire, pipe};
use crate::provider::iwarp::{IwarpConfig, IwarpRcap, StreamLoginLink, Upgrade};
use crate::{MessageLoginLink, Quirks};
use bytes::Bytes;
use datamover::{
    Budget, Cause, ConnKeys, Control, Datamover, Drive, Event, GetData, IoBuf, LoginLink, PutData, Resources,
    Role, TaskBuffers,
};
use iscsi_pdu::{Ahs, Itt, LoginRequest, LoginResponse, Lun, Pdu, ScsiCommand, ScsiResponse, Stage};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

pub(super) fn poll(link: &mut (impl Drive + ?Sized), now: Instant) {
    let mut cx = Context::from_waker(Waker::noop());
    while link.poll_drive(&mut cx, &mut Budget::new(now)).is_ready() {}
}

pub(super) fn keys() -> ConnKeys {
    let mut keys = ConnKeys::default();
    keys.rdma_extensions = true;
    keys.tagged_buffer_for_solicited_data_only = Some(true);
    keys
}

pub(super) fn config(seed: u8) -> IwarpConfig {
    IwarpConfig::new([seed; 16])
}

pub(super) struct Ends {
    pub(super) ini: Box<dyn Datamover>,
    pub(super) tgt: Box<dyn Datamover>,
    pub(super) wire: Wire,
    pub(super) now: Instant,
}

impl Ends {
    pub(super) fn run(&mut self) {
        for _ in 0..200 {
            poll(&mut *self.ini, self.now);
            poll(&mut *self.tgt, self.now);
        }
    }

    fn events(&mut self) -> (Vec<Event>, Vec<Event>) {
        self.run();
        let drain = |dm: &mut Box<dyn Datamover>| std::iter::from_fn(|| dm.poll_event()).collect();
        (drain(&mut self.ini), drain(&mut self.tgt))
    }
}

fn final_request() -> Pdu {
    LoginRequest {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        itt: Itt(7),
        data: Bytes::from_static(b"RDMAExtensions=Yes\0"),
        ..Default::default()
    }
    .into()
}

fn final_response() -> LoginResponse {
    LoginResponse {
        transit: true,
        csg: Stage::LoginOperationalNegotiation,
        nsg: Stage::FullFeaturePhase,
        itt: Itt(7),
        data: Bytes::from_static(b"RDMAExtensions=Yes\0"),
        ..Default::default()
    }
}

/// A login on two links of either kind.
fn log_in(mut ini: Box<dyn LoginLink>, mut tgt: Box<dyn LoginLink>, wire: Wire) -> Ends {
    let now = Instant::now();
    ini.send_login(final_request());
    for link in [&mut ini, &mut tgt] {
        link.notice_key_values(&keys());
        link.allocate_connection_resources(&Resources::default()).unwrap();
    }
    for _ in 0..200 {
        poll(&mut *ini, now);
        poll(&mut *tgt, now);
    }
    assert_eq!(tgt.poll_login(), Some(Ok(final_request())));
    let mut tgt = tgt.enable_datamover(Some(final_response()));
    for _ in 0..200 {
        poll(&mut *tgt, now);
        poll(&mut *ini, now);
    }
    assert_eq!(ini.poll_login(), Some(Ok(final_response().into())));
    let ini = ini.enable_datamover(None);
    let mut ends = Ends { ini, tgt, wire, now };
    ends.run();
    ends
}

pub(super) fn in_bytes(chunk: usize, room: usize) -> Ends {
    let (a, b, wire) = pipe(chunk, room);
    let link = |stream: Pipe, role, seed| -> Box<dyn LoginLink> {
        Box::new(StreamLoginLink::new(stream, role, config(seed), Quirks::default()))
    };
    log_in(link(a, Role::Initiator, 1), link(b, Role::Target, 2), wire)
}

fn in_messages() -> Ends {
    let (a, b, wire) = pipe(0, 0);
    let link = |stream: Pipe, role, seed| -> Box<dyn LoginLink> {
        let config = IwarpConfig { cm_header: true, ..config(seed) };
        let rcap = IwarpRcap::new(Some(stream), role, config, Upgrade::default());
        Box::new(MessageLoginLink::new(rcap, role, Quirks::default()))
    };
    log_in(link(a, Role::Initiator, 1), link(b, Role::Target, 2), wire)
}

pub(super) fn pattern(len: usize) -> Bytes {
    (0..len).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

/// A bidirectional command with immediate data, through all that a task goes through.
fn moves_data(ends: &mut Ends, itt: u32, out_len: usize, in_len: usize, immediate: usize) {
    let (out, input) = (pattern(out_len), pattern(in_len));
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        write: true,
        itt: Itt(itt),
        expected_data_transfer_length: out_len as u32,
        ahs: vec![
            Ahs::ExtendedCdb(Bytes::from_static(&[5; 16])),
            Ahs::BidirectionalReadLength(in_len as u32),
        ],
        data: out.slice(..immediate),
        ..Default::default()
    };
    let buffers =
        TaskBuffers { out: Some(out.clone().into()), r#in: ends.ini.pool().alloc(in_len).map(Box::new) };
    let control = Control { pdu: command.clone().into(), buffers, unsolicited: immediate as u32 };
    ends.ini.send_control(control).unwrap();
    let (_, told) = ends.events();
    assert!(matches!(&told[..], [Event::Control(c)] if c.pdu == Pdu::from(command)), "{told:?}");
    let into = ends.tgt.pool().alloc(out_len - immediate).unwrap();
    let get = GetData { itt: Itt(itt), lun: Lun::ZERO, offset: immediate as u32, into, resume: None };
    ends.tgt.get_data(get).unwrap();
    let put = PutData {
        itt: Itt(itt),
        lun: Lun::ZERO,
        offset: 0,
        data: input.clone().into(),
        resume: None,
        ack: false,
        notify: true,
    };
    ends.tgt.put_data(put).unwrap();
    let (_, told) = ends.events();
    assert_eq!(told.len(), 2, "{told:?}");
    for event in told {
        let Event::DataCompletion(done) = event else { panic!("{event:?}") };
        assert_eq!(done.result, Ok(()));
        if let Some(data) = done.data {
            assert_eq!(data.freeze().to_bytes(), out[immediate..]);
        }
    }
    let response = ScsiResponse { itt: Itt(itt), data: Bytes::new(), ..Default::default() };
    ends.tgt.send_control(response.into()).unwrap();
    let (mut told, _) = ends.events();
    let Some(Event::Control(c)) = told.pop() else { panic!("no response") };
    assert_eq!(c.buffers.r#in.unwrap().freeze().to_bytes(), input);
    assert_eq!(c.buffers.out.unwrap().to_bytes(), out);
}

#[test]
fn login_in_bytes_then_iser_on_the_same_stream() {
    // req: 7145-5.1.2-8, 7145-5.1.2-9, 7145-5.1.2-12
    let mut ends = in_bytes(0, 0);
    // What the target sent: the final Login Response as plain bytes, then at once the MPA Reply.
    let sent = ends.wire.carried(1);
    let response = Pdu::from(final_response()).to_bytes().unwrap();
    assert_eq!(sent[0] & 0x3f, 0x23);
    assert_eq!(sent[..response.len()], response);
    assert_eq!(sent[response.len()..][..16], *b"MPA ID Rep Frame");
    let sent = ends.wire.carried(0);
    let request = final_request().to_bytes().unwrap();
    assert_eq!(sent[request.len()..][..16], *b"MPA ID Req Frame");
    moves_data(&mut ends, 1, 300_000, 200_000, 4096);
    assert_eq!(ends.tgt.transport().name, "iser");
    assert_eq!(ends.tgt.transport().detail, "iwarp");
}

#[test]
fn login_in_messages() {
    let mut ends = in_messages();
    // MPA revision 2 with the four bytes that iSER peers exchange, behind IRD and ORD.
    for (side, magic) in [(0, b"MPA ID Req Frame"), (1, b"MPA ID Rep Frame")] {
        let sent = ends.wire.carried(side);
        assert_eq!(sent[..16], magic[..]);
        assert_eq!(sent[17], 2, "revision");
        assert_eq!(sent[18..20], [0, 8], "octets of private data");
        assert_eq!(sent[24..28], [0x80, 0, 0, 0]);
    }
    moves_data(&mut ends, 1, 100_000, 50_000, 0);
}

/// RDMAP opcodes (RFC 5040 section 4.1) of the segments that one side sent behind its startup frame.
fn opcodes(sent: &[u8], startup: usize) -> Vec<u8> {
    let frame = &sent[startup..];
    let mut rest = &frame[20 + usize::from(u16::from_be_bytes([frame[18], frame[19]]))..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        // ULPDU_Length, DDP control, RDMAP control; a pad to four bytes and the CRC at the end (RFC 5044 section 4).
        let len = 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        found.push(rest[3] & 0xf);
        rest = &rest[len.next_multiple_of(4) + 4..];
    }
    found
}

#[test]
fn no_message_asks_for_an_event() {
    // req: 7145-1.5.2-2, 7145-1.5.2-4, 7145-1.5.2-5
    let mut ends = in_messages();
    moves_data(&mut ends, 1, 300_000, 200_000, 4096);
    moves_data(&mut ends, 2, 9000, 9000, 0);
    let (ini, tgt) = (opcodes(&ends.wire.carried(0), 0), opcodes(&ends.wire.carried(1), 0));
    let (write, read_request, read_response, send, send_invalidate) = (0, 1, 2, 3, 4);
    assert!(ini.contains(&send) && ini.iter().all(|op| [read_response, send].contains(op)), "{ini:?}");
    let may = [write, read_request, send, send_invalidate];
    assert!(tgt.contains(&write) && tgt.iter().all(|op| may.contains(op)), "{tgt:?}");
}

#[test]
fn how_the_stream_is_cut_makes_no_difference() {
    for (chunk, room) in [(1, 0), (7, 100), (1000, 1500), (0, 4096)] {
        let mut ends = in_bytes(chunk, room);
        for itt in 1..4 {
            moves_data(&mut ends, itt, 5000, 3000, 1000);
        }
    }
}

#[test]
fn nothing_is_copied_that_need_not_be() {
    let mut ends = in_bytes(0, 0);
    moves_data(&mut ends, 1, 1 << 20, 1 << 20, 0);
    for dm in [&ends.ini, &ends.tgt] {
        assert_eq!(dm.stats().bounced_bytes, 0);
    }
}

#[test]
fn pools_are_whole_at_the_end() {
    let mut ends = in_bytes(0, 0);
    for itt in 1..20 {
        moves_data(&mut ends, itt, 20_000, 20_000, 8192);
    }
    let pools = [ends.ini.pool().clone(), ends.tgt.pool().clone()];
    assert_eq!(pools.map(|p| p.outstanding()), [0, 0]);
}

#[test]
fn a_graceful_end() {
    let mut ends = in_bytes(0, 0);
    moves_data(&mut ends, 1, 2000, 2000, 0);
    ends.tgt.connection_terminate();
    let (ini, tgt) = ends.events();
    assert!(matches!(&tgt[..], [Event::Terminated(t)] if t.cause == Cause::Local), "{tgt:?}");
    assert!(matches!(&ini[..], [Event::Terminated(t)] if t.cause == Cause::PeerClosed), "{ini:?}");
}

#[test]
fn a_lost_connection_gives_everything_back() {
    let mut ends = in_bytes(0, 0);
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        itt: Itt(1),
        expected_data_transfer_length: 4096,
        data: Bytes::new(),
        ..Default::default()
    };
    let buffers = TaskBuffers { r#in: Some(IoBuf::zeroed(4096).into()), out: None };
    ends.ini.send_control(Control { pdu: command.into(), buffers, unsolicited: 0 }).unwrap();
    ends.run();
    ends.wire.cut();
    let (mut ini, _) = ends.events();
    let Some(Event::Terminated(end)) = ini.pop() else { panic!("not told") };
    assert_eq!(end.reclaimed.len(), 1);
    assert_eq!(end.reclaimed[0].1.buffers.r#in.as_ref().map(|l| l.len()), Some(4096));
}

#[test]
fn a_peer_that_does_not_answer_the_startup_is_given_up() {
    let (a, _b, _wire) = pipe(0, 0);
    let mut link = Box::new(StreamLoginLink::new(a, Role::Initiator, config(1), Quirks::default()));
    link.notice_key_values(&keys());
    link.allocate_connection_resources(&Resources::default()).unwrap();
    let mut dm = link.enable_datamover(None);
    let now = Instant::now();
    poll(&mut *dm, now);
    let late = now + Duration::from_secs(10);
    assert_eq!(dm.poll_timeout(), Some(late));
    dm.handle_timeout(late);
    poll(&mut *dm, late);
    let Some(Event::Terminated(end)) = dm.poll_event() else { panic!("not told") };
    assert_eq!(end.cause, Cause::Transport(std::io::ErrorKind::TimedOut));
}

#[test]
fn the_depths_are_what_both_ends_can_do() {
    // The initiator serves two Reads at a time; with three pieces to fetch, the third waits.
    let (a, b, wire) = pipe(0, 0);
    let ini_config = IwarpConfig { ird: 2, ..config(1) };
    let ini: Box<dyn LoginLink> =
        Box::new(StreamLoginLink::new(a, Role::Initiator, ini_config, Quirks::default()));
    let tgt: Box<dyn LoginLink> =
        Box::new(StreamLoginLink::new(b, Role::Target, config(2), Quirks::default()));
    let mut ends = log_in(ini, tgt, wire);
    let out = pattern(9000);
    let command = ScsiCommand {
        final_pdu: true,
        write: true,
        itt: Itt(1),
        expected_data_transfer_length: 9000,
        data: Bytes::new(),
        ..Default::default()
    };
    let buffers = TaskBuffers { out: Some(out.clone().into()), r#in: None };
    ends.ini.send_control(Control { pdu: command.into(), buffers, unsolicited: 0 }).unwrap();
    ends.run();
    for n in 0..3 {
        let into = ends.tgt.pool().alloc(3000).unwrap();
        let get = GetData { itt: Itt(1), lun: Lun::ZERO, offset: n * 3000, into, resume: None };
        ends.tgt.get_data(get).unwrap();
    }
    let (_, told) = ends.events();
    let done = told.iter().filter(|e| matches!(e, Event::DataCompletion(d) if d.result == Ok(()))).count();
    assert_eq!(done, 3);
}

// What is placed by RDMA Writes completes nothing: a turn that ends amid it has to ask for another, as nothing else will.
#[test]
fn a_turn_that_ends_amid_written_data_asks_for_another() {
    let mut ends = in_bytes(0, 0);
    let data = pattern(256 << 10);
    let command = ScsiCommand {
        final_pdu: true,
        read: true,
        itt: Itt(1),
        expected_data_transfer_length: data.len() as u32,
        data: Bytes::new(),
        ..Default::default()
    };
    let buffers = TaskBuffers { out: None, r#in: ends.ini.pool().alloc(data.len()).map(Box::new) };
    ends.ini.send_control(Control { pdu: command.into(), buffers, unsolicited: 0 }).unwrap();
    assert!(matches!(ends.events().1.as_slice(), [Event::Control(_)]));
    let put = PutData {
        itt: Itt(1),
        lun: Lun::ZERO,
        offset: 0,
        data: data.clone().into(),
        resume: None,
        ack: false,
        notify: false,
    };
    ends.tgt.put_data(put).unwrap();
    ends.tgt
        .send_control(ScsiResponse { itt: Itt(1), data: Bytes::new(), ..Default::default() }.into())
        .unwrap();
    poll(&mut *ends.tgt, ends.now);
    let mut cx = Context::from_waker(Waker::noop());
    let turn = || Budget { bytes: 16 << 10, ..Budget::new(ends.now) };
    let turns = std::iter::repeat_with(|| ends.ini.poll_drive(&mut cx, &mut turn()));
    assert!(turns.take_while(|more| more.is_ready()).count() > 1, "it takes several turns");
    let Some(Event::Control(Control { pdu: Pdu::ScsiResponse(_), buffers, .. })) = ends.ini.poll_event()
    else {
        panic!("no response, and nothing will wake the connection")
    };
    assert_eq!(buffers.r#in.unwrap().freeze().to_bytes(), data);
}
