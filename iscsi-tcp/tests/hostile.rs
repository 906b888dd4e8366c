//! What the core makes of bad PDUs: the RFC's answer, no panic, and memory only as announced and allowed.

mod common;

use bytes::Bytes;
use common::{Peer, command, pattern, wire};
use datamover::{
    BufPool, Cause, ConnKeys, DataCompletion, DataError, Event, GetData, InvalidPdu, IoBuf, Role,
};
use iscsi_pdu::{
    DataIn, DataOut, DataSn, DecodeErrorKind, Digests, Itt, LoginRequest, LoginResponse, Lun, NopIn, NopOut,
    Opcode, Pdu, R2t, R2tSn, RejectReason, Rule, ScsiCommand, ScsiResponse, ScsiStatus, Snack, SnackType,
    StatSn, TextRequest, Ttt,
};

fn peer(role: Role, change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    change(&mut keys);
    Peer::new(role, &keys)
}

fn digests(k: &mut ConnKeys) {
    (k.header_digest, k.data_digest) = (true, true);
}

fn nop_out(n: u32, data: Bytes) -> NopOut {
    NopOut { itt: Itt(n), data, ..NopOut::default() }
}

fn data_in(itt: u32, data_sn: u32, offset: u32, data: Bytes) -> DataIn {
    DataIn { itt: Itt(itt), data_sn: DataSn(data_sn), buffer_offset: offset, data, ..DataIn::default() }
}

fn ask(t: &mut Peer, itt: u32, offset: u32, len: usize) -> Vec<R2t> {
    let into = IoBuf::zeroed(len).into();
    t.core.get_data(GetData { itt: Itt(itt), lun: Lun::ZERO, offset, into, resume: None }).unwrap();
    t.sent().into_iter().map(|p| if let Pdu::R2t(r) = p { r } else { panic!("{p:?}") }).collect()
}

fn answer(r: &R2t, data_sn: u32, offset: u32, data: Bytes, final_pdu: bool) -> DataOut {
    let data_sn = DataSn(data_sn);
    DataOut {
        final_pdu,
        lun: r.lun,
        itt: r.itt,
        ttt: r.ttt,
        data_sn,
        buffer_offset: offset,
        data,
        ..DataOut::default()
    }
}

fn invalid(event: Event) -> InvalidPdu {
    if let Event::Invalid(i) = event { i } else { panic!("not invalid: {event:?}") }
}

fn failed(event: Event) -> DataError {
    match event {
        Event::DataCompletion(DataCompletion { result: Err(error), data: Some(_), .. }) => error,
        other => panic!("not a failed Get: {other:?}"),
    }
}

/// The stream is in step: the next PDU arrives.
fn goes_on(p: &mut Peer) {
    let next: Pdu = match p.core.role() {
        Role::Target => nop_out(0x77, Bytes::new()).into(),
        Role::Initiator => NopIn { stat_sn: StatSn(0x77), ..NopIn::default() }.into(),
    };
    p.arrives(next.clone());
    match p.one_event() {
        Event::Control(c) => assert_eq!(c.pdu, next),
        other => panic!("{other:?}"),
    }
}

// req: 7143-7.8-1, 7143-13.1-2
#[test]
fn a_bad_header_digest_closes_the_connection() {
    for (role, pdu) in [
        (Role::Target, Pdu::from(nop_out(1, pattern(1, 40)))),
        (Role::Initiator, Pdu::from(NopIn { data: pattern(1, 40), ..NopIn::default() })),
    ] {
        let good = wire(&pdu, Digests::BOTH);
        // Every bit that the header digest covers, and its own.
        for at in 0..52 * 8 {
            let mut bad = good.to_vec();
            bad[at / 8] ^= 1 << (at % 8);
            let mut p = peer(role, digests);
            p.bytes(&bad);
            // A longer AHS length makes the header longer, and the digest is awaited.
            if p.core.is_open() {
                assert_eq!(at / 8, 4, "byte {}", at / 8);
                p.bytes(&[0; 1024]);
            }
            assert_eq!(p.cause(), Cause::HeaderDigest, "bit {at}");
        }
    }
}

// req: 7143-7.8-2, 7143-11.2.3-1
#[test]
fn a_bad_data_digest_discards_the_pdu_at_a_target() {
    let pdus: [Pdu; 4] = [
        nop_out(1, pattern(1, 41)).into(),
        ScsiCommand { data: pattern(1, 600), ..command(1, 0, 600) }.into(),
        TextRequest { final_pdu: true, itt: Itt(1), data: pattern(1, 7), ..TextRequest::default() }.into(),
        DataOut { final_pdu: true, itt: Itt(1), data: pattern(1, 999), ..DataOut::default() }.into(),
    ];
    for pdu in pdus {
        let good = wire(&pdu, Digests::BOTH);
        // Data, padding, digest.
        for at in [52, good.len() - 5, good.len() - 1] {
            let mut t = peer(Role::Target, digests);
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            t.bytes(&bad);
            let i = invalid(t.one_event());
            assert_eq!((i.reason, i.error), (RejectReason::DataDigestError, None));
            assert_eq!(i.header, good[..48], "the header without its digest");
            goes_on(&mut t);
        }
    }
}

/// Pad bytes need not be zero; the digest covers what was sent.
// req: 7143-11.2.3-1
#[test]
fn padding_is_digested_as_it_came() {
    let data = pattern(1, 5);
    let mut bytes = wire(&nop_out(1, data.clone()).into(), Digests::BOTH).to_vec();
    bytes.truncate(52);
    let padded = [&data[..], &[0xaa, 0xbb, 0xcc]].concat();
    bytes.extend_from_slice(&padded);
    bytes.extend(iscsi_pdu::Crc32c::new().update(&padded).to_wire());
    let mut t = peer(Role::Target, digests);
    t.bytes(&bytes);
    assert!(matches!(t.one_event(), Event::Control(c) if c.pdu == nop_out(1, data).into()));
}

// req: 7143-7.8-2, 7143-7.8-3, 7143-7.8-4
#[test]
fn a_bad_data_digest_fails_the_get_after_all_answers() {
    let mut t = peer(Role::Target, |k| {
        digests(k);
        (k.max_burst_length, k.max_outstanding_r2t) = (512, 2);
    });
    let r = ask(&mut t, 1, 0, 1500);
    assert_eq!(r.len(), 2);
    let mut bad = wire(&answer(&r[0], 0, 0, pattern(1, 512), true).into(), Digests::BOTH).to_vec();
    bad[100] ^= 1;
    t.bytes(&bad);
    let i = invalid(t.one_event());
    assert_eq!(i.reason, RejectReason::DataDigestError);
    assert!(t.sent().is_empty(), "no more is asked for");
    // The other answer is awaited.
    t.arrives(answer(&r[1], 0, 512, pattern(1, 500), false));
    assert!(t.events().is_empty());
    t.arrives(answer(&r[1], 1, 1012, pattern(1, 12), true));
    assert_eq!(failed(t.one_event()), DataError::Digest);
    goes_on(&mut t);
}

// req: 7143-7.8-5, 7143-7.8-11
#[test]
fn a_bad_data_digest_at_an_initiator_closes() {
    let mut i = peer(Role::Initiator, digests);
    i.open(command(1, 100, 0), None);
    let mut bad = wire(
        &DataIn { final_pdu: true, status: Some(ScsiStatus::Good), ..data_in(1, 0, 0, pattern(1, 100)) }
            .into(),
        Digests::BOTH,
    )
    .to_vec();
    bad[60] ^= 1;
    i.bytes(&bad);
    let Event::Terminated(end) = i.one_event() else { panic!("a status must not come of it") };
    assert_eq!((end.cause, end.reclaimed.len()), (Cause::DataDigest, 1));
}

// req: 7143-11.7.1-2
#[test]
fn segments_beyond_what_was_declared() {
    for (len, ok) in [(512usize, true), (513, false), (0x00ff_ffff, false)] {
        let mut t = peer(Role::Target, |k| k.max_recv_data_segment_length = 512);
        let before = t.pool.allocated_bytes();
        let mut bytes = wire(&nop_out(1, Bytes::new()).into(), Digests::NONE).to_vec();
        bytes[5..8].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        bytes.extend(pattern(1, len.min(512)));
        t.bytes(&bytes);
        if ok {
            assert!(matches!(t.one_event(), Event::Control(_)));
            continue;
        }
        let Cause::Format(error) = t.cause() else { panic!() };
        assert_eq!(error.kind, DecodeErrorKind::DataTooLong { len: len as u32, limit: 512 });
        assert_eq!(t.pool.allocated_bytes(), before, "nothing was allocated for it");
    }
}

#[test]
fn unknown_opcodes_leave_the_stream_in_step() {
    for digest in [false, true] {
        for (role, opcode) in [(Role::Target, 0x07u8), (Role::Target, 0x1f), (Role::Initiator, 0x2a)] {
            let mut p = peer(role, |k| (k.header_digest, k.data_digest) = (digest, digest));
            let mut bhs = [0u8; 48];
            (bhs[0], bhs[4], bhs[7]) = (opcode, 2, 5);
            let ahs = [9u8; 8];
            let mut bytes = [&bhs[..], &ahs[..]].concat();
            if digest {
                bytes.extend(iscsi_pdu::header_digest(&bhs, &ahs));
            }
            bytes.extend([1, 2, 3, 4, 5, 0, 0, 0]);
            if digest {
                bytes.extend(iscsi_pdu::data_digest([&[1u8, 2, 3, 4, 5][..]]));
            }
            p.bytes(&bytes);
            let i = invalid(p.one_event());
            assert_eq!(i.reason, RejectReason::CommandNotSupported);
            assert_eq!(i.error.map(|e| e.kind), Some(DecodeErrorKind::UnknownOpcode(Opcode(opcode))));
            assert_eq!(i.header, [&bhs[..], &ahs[..]].concat());
            goes_on(&mut p);
        }
    }
}

// req: 7143-7.7-1, 7143-7.7-2
#[test]
fn format_errors_end_the_connection() {
    // A NOP-Out with an AHS.
    let mut bytes = wire(&nop_out(1, Bytes::new()).into(), Digests::NONE).to_vec();
    bytes[4] = 1;
    bytes.extend([0; 4]);
    let mut t = peer(Role::Target, |_| {});
    t.bytes(&bytes);
    assert!(matches!(t.cause(), Cause::Format(e) if e.kind == DecodeErrorKind::Rule(Rule::NoAhs)));
    // A NOP-In with both tags is a format error of section 7.7.
    let nop = NopIn { itt: Itt(1), ..NopIn::default() };
    let mut bytes = wire(&nop.into(), Digests::NONE).to_vec();
    bytes[20..24].copy_from_slice(&[0, 0, 0, 5]);
    let mut i = peer(Role::Initiator, |_| {});
    i.bytes(&bytes);
    assert!(matches!(i.cause(), Cause::Format(e) if e.kind == DecodeErrorKind::Rule(Rule::NopInTags)));
    // AHSs are looked at when they are all there: lengths that lie.
    for ahs in [[0u8, 0, 1, 0], [0xff, 0xff, 1, 0], [0, 9, 1, 0]] {
        let mut bytes = wire(&command(1, 0, 0).into(), Digests::NONE).to_vec();
        bytes[4] = 1;
        bytes.extend(ahs);
        let mut t = peer(Role::Target, |_| {});
        t.bytes(&bytes);
        assert!(matches!(t.cause(), Cause::Format(_)), "{ahs:?}");
    }
}

#[test]
fn reserved_codes_are_rejected_at_a_target() {
    let mut bytes = wire(&command(1, 0, 0).into(), Digests::NONE).to_vec();
    bytes[1] |= 7;
    let mut t = peer(Role::Target, |_| {});
    t.bytes(&bytes);
    let i = invalid(t.one_event());
    assert_eq!(i.reason, RejectReason::ProtocolError);
    assert_eq!(i.error.map(|e| e.kind), Some(DecodeErrorKind::Rule(Rule::TaskAttr)));
    goes_on(&mut t);
    // A reserved AHS type too.
    let mut bytes = wire(&command(1, 0, 0).into(), Digests::NONE).to_vec();
    bytes[4] = 1;
    bytes.extend([0, 1, 0x3f, 0]);
    t.bytes(&bytes);
    assert_eq!(invalid(t.one_event()).reason, RejectReason::ProtocolError);
    goes_on(&mut t);
}

#[test]
fn opcodes_of_the_other_side_end_the_connection() {
    for (role, pdu) in [
        (Role::Target, Pdu::from(NopIn::default())),
        (Role::Target, Pdu::from(data_in(1, 0, 0, Bytes::new()))),
        (Role::Initiator, Pdu::from(nop_out(1, Bytes::new()))),
    ] {
        let mut p = peer(role, |_| {});
        p.bytes(&wire(&pdu, Digests::NONE));
        assert!(
            matches!(p.cause(), Cause::Format(e) if e.kind == DecodeErrorKind::WrongSender(pdu.opcode()))
        );
    }
}

// req: 5047-10.4.3-1, 5047-10.4.4-1
#[test]
fn no_login_in_full_feature_phase() {
    let mut t = peer(Role::Target, |_| {});
    t.arrives(LoginRequest { data: pattern(1, 30), ..LoginRequest::default() });
    assert_eq!(invalid(t.one_event()).reason, RejectReason::ProtocolError);
    goes_on(&mut t);
    let mut i = peer(Role::Initiator, |_| {});
    i.arrives(LoginResponse::default());
    assert!(i.broken_rule().contains("Login Response"));
}

// req: 7143-7.9-1
#[test]
fn gaps_at_an_initiator() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 100, 0), None);
    i.arrives(data_in(1, 0, 0, pattern(1, 10)));
    i.arrives(data_in(1, 2, 20, pattern(1, 10)));
    assert!(i.broken_rule().contains("DataSN"));
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 0, 100), Some(pattern(1, 100)));
    i.arrives(R2t {
        itt: Itt(1),
        ttt: Ttt(1),
        r2t_sn: R2tSn(1),
        desired_data_transfer_length: 1,
        ..R2t::default()
    });
    assert!(i.broken_rule().contains("R2TSN"));
    // The last Data-In is missing.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 100, 0), None);
    i.arrives(data_in(1, 0, 0, pattern(1, 90)));
    i.arrives(ScsiResponse { itt: Itt(1), exp_data_sn: DataSn(2), ..ScsiResponse::default() });
    assert!(i.broken_rule().contains("ExpDataSN"));
}

/// A response that ends the connection gives the buffers of its own task back too.
// req: 7143-7.9-1
#[test]
fn no_buffer_stays_behind_when_a_response_breaks_a_rule() {
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 100, 0), None);
    i.open(command(2, 50, 0), None);
    i.arrives(data_in(1, 0, 0, pattern(1, 90)));
    i.arrives(ScsiResponse { itt: Itt(1), exp_data_sn: DataSn(2), ..ScsiResponse::default() });
    let Event::Terminated(end) = i.one_event() else { panic!("the connection ends") };
    let mut back: Vec<(u32, usize)> = end
        .reclaimed
        .iter()
        .map(|(itt, r)| (itt.0, r.buffers.r#in.as_ref().map_or(0, |list| list.len())))
        .collect();
    back.sort_unstable();
    assert_eq!(back, [(1, 100), (2, 50)]);
}

// req: 7143-7.9-2, 7143-11.8-7, 7143-4.2.5.3-2
#[test]
fn broken_answers_fail_the_get() {
    type Break = fn(&R2t, &mut Peer);
    let cases: [(Break, bool); 7] = [
        // DataSN gap.
        (|r, t| t.arrives(answer(r, 1, 0, pattern(1, 100), true)), false),
        // Offset gap.
        (
            |r, t| {
                t.arrives(answer(r, 0, 0, pattern(1, 10), false));
                t.arrives(answer(r, 1, 20, pattern(1, 80), true));
            },
            false,
        ),
        // F too early.
        (|r, t| t.arrives(answer(r, 0, 0, pattern(1, 99), true)), true),
        // More than was asked for.
        (|r, t| t.arrives(answer(r, 0, 0, pattern(1, 101), true)), true),
        // Before the range, and beyond it.
        (|r, t| t.arrives(answer(r, 0, u32::MAX, pattern(1, 100), true)), true),
        (|r, t| t.arrives(answer(r, 0, 100, pattern(1, 100), true)), true),
        // For another logical unit than the R2T.
        (
            |r, t| {
                let other = R2t { lun: Lun([0, 0x77, 0, 0, 0, 0, 0, 0]), ..r.clone() };
                t.arrives(answer(&other, 0, 0, pattern(1, 100), true));
            },
            true,
        ),
    ];
    for (n, (break_it, rejected)) in cases.into_iter().enumerate() {
        let mut t = peer(Role::Target, |_| {});
        let r = ask(&mut t, 1, 0, 100);
        break_it(&r[0], &mut t);
        let mut events = t.events();
        assert_eq!(events.len(), 1 + usize::from(rejected), "case {n}: {events:?}");
        assert_eq!(failed(events.pop().unwrap()), DataError::Sequence);
        if let Some(event) = events.pop() {
            assert_eq!(invalid(event).reason, RejectReason::ProtocolError);
        }
        goes_on(&mut t);
        assert_eq!(ask(&mut t, 1, 0, 100).len(), 1, "the task can ask again");
    }
}

/// In any order, too, every byte comes once. Else the buffer would be taken for filled where it holds what somebody
/// else left there.
#[test]
fn output_that_comes_twice() {
    let any = |k: &mut ConnKeys| k.data_pdu_in_order = false;
    for pieces in [[0..50usize, 0..50], [0..60, 50..100], [50..100, 40..60]] {
        let mut t = peer(Role::Target, any);
        let r = ask(&mut t, 1, 0, 100);
        for (sn, p) in pieces.into_iter().enumerate() {
            t.arrives(answer(&r[0], sn as u32, p.start as u32, pattern(1, p.len()), sn == 1));
        }
        assert_eq!(failed(t.events().pop().unwrap()), DataError::Sequence);
    }
    // One byte in two, backwards, then the others: more pieces than anyone needs are not remembered.
    for (count, ok) in [(1000u32, true), (1500, false)] {
        let mut t = peer(Role::Target, any);
        let data = pattern(1, 2 * count as usize);
        let r = ask(&mut t, 1, 0, data.len());
        let order = (0..count).rev().map(|n| 2 * n + 1).chain((0..count).map(|n| 2 * n));
        for (sn, at) in order.enumerate() {
            let byte = data.slice(at as usize..at as usize + 1);
            t.arrives(answer(&r[0], sn as u32, at, byte, sn as u32 == 2 * count - 1));
        }
        let Event::DataCompletion(done) = t.one_event() else { panic!() };
        assert_eq!(done.result.is_ok(), ok);
        assert!(!ok || done.data.unwrap().freeze().to_bytes() == data);
    }
}

/// Sums of two 32-bit numbers from the peer must not wrap.
// req: 7143-11.7.6-1, 5047-8.2-4
#[test]
fn data_in_outside_the_buffer() {
    for (offset, len) in
        [(0u32, 101usize), (1, 100), (100, 1), (u32::MAX, 1), (u32::MAX - 50, 100), (1 << 31, 100)]
    {
        let mut i = peer(Role::Initiator, |_| {});
        i.open(command(1, 100, 0), None);
        i.arrives(data_in(1, 0, offset, pattern(1, len)));
        let Event::Terminated(end) = i.one_event() else { panic!() };
        assert!(matches!(end.cause, Cause::Protocol(rule) if rule.contains("buffer")));
        let buffer = end.reclaimed.into_iter().next().unwrap().1.buffers.r#in.unwrap();
        assert_eq!(buffer.freeze().to_bytes(), [0u8; 100].as_slice(), "nothing was placed");
    }
    // Input for a command without any.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 0, 10), Some(pattern(1, 10)));
    i.arrives(data_in(1, 0, 0, pattern(1, 1)));
    assert!(i.broken_rule().contains("buffer"));
    // Going back over what was placed.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 100, 0), None);
    i.arrives(data_in(1, 0, 0, pattern(1, 50)));
    i.arrives(data_in(1, 1, 49, pattern(1, 10)));
    assert!(i.broken_rule().contains("order"));
}

// req: 7143-11.8.4-1, 7143-11.8.4-2, 7143-11.8.5-1, 7143-11.8-13
#[test]
fn r2ts_that_nobody_may_send() {
    let r2t = |r2t_sn, offset, len| R2t {
        itt: Itt(1),
        ttt: Ttt(1),
        r2t_sn: R2tSn(r2t_sn),
        buffer_offset: offset,
        desired_data_transfer_length: len,
        ..R2t::default()
    };
    let cases: [(R2t, &str); 8] = [
        (r2t(0, 0, 0), "no data"),
        (r2t(0, 0, 1001), "MaxBurstLength"),
        (r2t(0, 0, u32::MAX), "MaxBurstLength"),
        (r2t(0, 1999, 2), "buffer"),
        (r2t(0, u32::MAX, 1), "buffer"),
        (r2t(0, u32::MAX - 5, 1000), "buffer"),
        (r2t(0, 1 << 31, 1), "buffer"),
        (R2t { ttt: Ttt::NONE, ..r2t(0, 0, 1) }, "Target Transfer Tag"),
    ];
    for (bad, rule) in cases {
        let mut i = peer(Role::Initiator, |k| k.max_burst_length = 1000);
        i.open(command(1, 0, 2000), Some(pattern(1, 2000)));
        let mut bytes = wire(&r2t(0, 0, 1).into(), Digests::NONE).to_vec();
        // Fields that the encoder would refuse.
        bytes[20..24].copy_from_slice(&bad.ttt.0.to_be_bytes());
        bytes[40..44].copy_from_slice(&bad.buffer_offset.to_be_bytes());
        bytes[44..48].copy_from_slice(&bad.desired_data_transfer_length.to_be_bytes());
        i.bytes(&bytes);
        let broken = match i.cause() {
            Cause::Protocol(rule) => rule.to_string(),
            Cause::Format(e) => e.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(broken.contains(rule), "{broken} / {rule}");
        assert!(i.sent().is_empty());
    }
    let mut i = peer(Role::Initiator, |k| k.max_outstanding_r2t = 2);
    i.open(command(1, 0, 2000), Some(pattern(1, 2000)));
    i.arrives(r2t(0, 0, 10));
    i.arrives(r2t(1, 10, 10));
    i.arrives(r2t(2, 20, 10));
    assert!(i.broken_rule().contains("MaxOutstandingR2T"));
    // For a read, or for nothing.
    let mut i = peer(Role::Initiator, |_| {});
    i.open(command(1, 2000, 0), None);
    i.arrives(r2t(0, 0, 10));
    assert!(i.broken_rule().contains("buffer"));
    let mut i = peer(Role::Initiator, |_| {});
    i.arrives(r2t(0, 0, 10));
    assert!(i.sent().is_empty());
    goes_on(&mut i);
}

#[test]
fn tags_of_nothing() {
    let mut t = peer(Role::Target, |_| {});
    let r = ask(&mut t, 1, 0, 10).remove(0);
    // Never given out.
    t.arrives(answer(&R2t { ttt: Ttt(0xdead_beef), ..r.clone() }, 0, 0, pattern(1, 10), true));
    assert_eq!(invalid(t.one_event()).reason, RejectReason::ProtocolError);
    // Given to another task.
    t.arrives(answer(&R2t { itt: Itt(2), ..r.clone() }, 0, 0, pattern(1, 10), true));
    assert_eq!(invalid(t.one_event()).reason, RejectReason::ProtocolError);
    // Right, once.
    t.arrives(answer(&r, 0, 0, pattern(1, 10), true));
    assert!(matches!(t.one_event(), Event::DataCompletion(d) if d.result.is_ok()));
    t.arrives(answer(&r, 0, 0, pattern(2, 10), true));
    assert!(t.events().is_empty(), "late data of an ended transfer");
    goes_on(&mut t);
    // Input of a task that is not there.
    let mut i = peer(Role::Initiator, |_| {});
    i.arrives(data_in(9, 5, u32::MAX, pattern(1, 1000)));
    goes_on(&mut i);
}

#[test]
fn snacks_that_cannot_be_met() {
    let snack =
        |kind, itt, tag, beg_run| Snack { kind, itt, ttt_or_snack_tag: tag, beg_run, ..Snack::default() };
    let ack = |tag, n| snack(SnackType::DataAck, Itt::NONE, Ttt(tag), n);
    let mut t = peer(Role::Target, |_| {});
    t.arrives(ack(0, 0));
    assert_eq!(invalid(t.one_event()).reason, RejectReason::ProtocolError, "level 0 has none");
    let mut t = peer(Role::Target, |k| k.error_recovery_level = 1);
    t.arrives(ack(0, 0));
    assert_eq!(invalid(t.one_event()).reason, RejectReason::InvalidDataAck);
    goes_on(&mut t);
}

/// Every prefix of a conversation, and every single bit of it flipped: events or an end, no panic.
#[test]
fn prefixes_and_flipped_bits() {
    let data = pattern(1, 40);
    let target: Vec<u8> = [
        wire(&ScsiCommand { data: data.clone(), ..command(1, 0, 40) }.into(), Digests::NONE),
        wire(
            &DataOut { final_pdu: true, itt: Itt(2), ttt: Ttt(0), data: data.clone(), ..DataOut::default() }
                .into(),
            Digests::NONE,
        ),
        wire(&nop_out(3, pattern(1, 5)).into(), Digests::NONE),
    ]
    .concat();
    let initiator: Vec<u8> = [
        wire(&data_in(1, 0, 0, data.clone()).into(), Digests::NONE),
        wire(
            &R2t { itt: Itt(2), ttt: Ttt(9), desired_data_transfer_length: 40, ..R2t::default() }.into(),
            Digests::NONE,
        ),
        wire(&ScsiResponse { itt: Itt(1), ..ScsiResponse::default() }.into(), Digests::NONE),
    ]
    .concat();
    for (role, stream) in [(Role::Target, target), (Role::Initiator, initiator)] {
        let play = |bytes: &[u8]| {
            let mut p = peer(role, |_| {});
            if role == Role::Initiator {
                p.open(command(1, 40, 0), None);
                p.open(command(2, 0, 40), Some(data.clone()));
            } else {
                ask(&mut p, 2, 0, 40);
            }
            p.bytes(bytes);
            p.raw();
            let ends = p.events().iter().filter(|e| matches!(e, Event::Terminated(_))).count();
            assert_eq!(ends, usize::from(!p.core.is_open()));
            assert!(!p.core.is_open() || p.core.recv_slots().as_mut_slice().iter().any(|s| !s.is_empty()));
            drop(p.core);
            assert_eq!(p.pool.outstanding(), 0);
        };
        for n in 0..=stream.len() {
            play(&stream[..n]);
        }
        for bit in 0..stream.len() * 8 {
            let mut bad = stream.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            play(&bad);
        }
    }
}
