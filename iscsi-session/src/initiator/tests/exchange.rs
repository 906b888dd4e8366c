use super::*;

fn text_request(pdu: Pdu) -> TextRequest {
    match pdu {
        Pdu::TextRequest(r) => r,
        other => panic!("{other:?}"),
    }
}

fn text_response(r: &mut Rig, itt: Itt, ttt: Ttt, data: &[u8], last: bool) {
    let stat_sn = r.next_stat_sn(r.c);
    let pdu = TextResponse {
        final_pdu: last,
        lun: lun(if ttt.is_none() { 0 } else { 9 }),
        itt,
        ttt,
        stat_sn,
        exp_cmd_sn: CmdSn(100),
        max_cmd_sn: CmdSn(107),
        data: Bytes::copy_from_slice(data),
        ..TextResponse::default()
    };
    r.recv_raw(r.c, pdu, TaskBuffers::none());
}

fn text_result(r: &mut Rig) -> Result<Bytes, ExchangeFailure> {
    match r.done().remove(0) {
        Completion::Text { result, .. } => result,
        other => panic!("{other:?}"),
    }
}

// The exchange of section 11.10.4.
// req: 7143-11.10.3-1, 7143-11.10.3-2, 7143-11.10.4-3, 7143-11.11.4-3, 7143-11.10.4-2, 7145-7.3.8-1
#[test]
fn a_long_answer_is_asked_for_piece_by_piece() {
    let mut r = Rig::new(|p| p.session_type = SessionType::Discovery);
    r.s.text(r.now, Bytes::from_static(b"SendTargets=All\0")).unwrap();
    let first = text_request(r.one());
    assert_eq!((first.final_pdu, first.continue_text, first.ttt), (true, false, Ttt::NONE));
    assert_eq!(&first.data[..], b"SendTargets=All\0");
    text_response(&mut r, first.itt, Ttt(0x1234_5678), b"TargetName=a\0Target", false);
    let second = text_request(r.one());
    assert_eq!((second.itt, second.ttt, second.lun), (first.itt, Ttt(0x1234_5678), lun(9)));
    assert_eq!((second.immediate, second.final_pdu, second.data.len()), (first.immediate, true, 0));
    text_response(&mut r, first.itt, Ttt(5), b"Name=b\0", true);
    assert_eq!(&text_result(&mut r).unwrap()[..], b"TargetName=a\0TargetName=b\0");
    assert_eq!(r.sent(), [], "the tag of a final response means nothing");
}

// req: 7143-11.10.5-1
#[test]
fn a_long_request_is_split() {
    let mut r = Rig::new(|_| {});
    let text = vec![b'x'; 2500];
    r.s.text(r.now, Bytes::from(text.clone())).unwrap();
    let mut sent = Vec::new();
    loop {
        let request = text_request(r.one());
        assert!(request.data.len() <= SEGMENT as usize);
        assert_eq!(request.continue_text, !request.final_pdu);
        sent.extend_from_slice(&request.data);
        if request.final_pdu {
            break;
        }
        text_response(&mut r, request.itt, Ttt(7), b"", false);
    }
    assert_eq!(sent, text);
}

// req: 7143-11.10-1
#[test]
fn one_exchange_a_connection_at_a_time() {
    let mut r = Rig::new(|_| {});
    r.s.text(r.now, Bytes::new()).unwrap();
    assert_eq!(r.s.text(r.now, Bytes::new()), Err(FunctionRefusal::Busy));
    let itt = text_request(r.one()).itt;
    text_response(&mut r, itt, Ttt::NONE, b"", true);
    assert!(r.s.text(r.now, Bytes::new()).is_ok());
}

// req: 7143-11.11.1-4
#[test]
fn answers_against_the_rules_end_the_exchange() {
    let mut r = Rig::new(|_| {});
    r.s.text(r.now, Bytes::from(vec![b'x'; 2000])).unwrap();
    let itt = text_request(r.one()).itt;
    text_response(&mut r, itt, Ttt::NONE, b"", true);
    assert!(matches!(text_result(&mut r), Err(ExchangeFailure::Protocol(_))), "final, but not asked to be");
    r.s.text(r.now, Bytes::new()).unwrap();
    let itt = text_request(r.one()).itt;
    text_response(&mut r, itt, Ttt::NONE, b"", false);
    assert!(matches!(text_result(&mut r), Err(ExchangeFailure::Protocol(_))), "no tag to go on with");
    assert_eq!(r.s.state(), SessionState::LoggedIn);
}

// Security class 22: a target that never comes to an end.
#[test]
fn an_endless_answer_is_cut_short() {
    let mut r = Rig::with_config(InitiatorConfig { text_limit: 3000, ..InitiatorConfig::default() }, |_| {});
    r.s.text(r.now, Bytes::new()).unwrap();
    let itt = text_request(r.one()).itt;
    for _ in 0..3 {
        text_response(&mut r, itt, Ttt(1), &[b'x'; 1000], false);
        r.one();
    }
    text_response(&mut r, itt, Ttt(1), b"x", false);
    assert!(matches!(text_result(&mut r), Err(ExchangeFailure::Protocol(_))));
    r.s.text(r.now, Bytes::new()).unwrap();
    r.one();
    r.after(Duration::from_secs(30));
    assert_eq!(text_result(&mut r), Err(ExchangeFailure::TimedOut));
}

// Security class 22: a target that brings nothing, each time within the time for a response.
#[test]
fn an_answer_without_text_is_cut_short() {
    let mut r = Rig::with_config(InitiatorConfig { ping_after: None, ..InitiatorConfig::default() }, |_| {});
    let mut enough = |text: Bytes, data: &[u8]| {
        r.s.text(r.now, text).unwrap();
        let mut request = text_request(r.one());
        for n in 1_usize.. {
            r.after(Duration::from_secs(29));
            let ttt = Ttt(1);
            text_response(&mut r, request.itt, ttt, data, false);
            let mut sent = r.sent();
            sent.retain(|pdu| matches!(pdu, Pdu::TextRequest(_)));
            let Some(next) = sent.pop() else {
                assert!(matches!(text_result(&mut r), Err(ExchangeFailure::Protocol(_))));
                return n;
            };
            request = text_request(next);
            if n == 5000 {
                text_response(&mut r, request.itt, Ttt::NONE, b"", true);
                assert!(text_result(&mut r).is_ok());
                return n;
            }
        }
        0
    };
    // One answers the request, 96 more are spare.
    assert_eq!(enough(Bytes::new(), b""), 98);
    // A request of 200 PDUs is answered as often.
    assert_eq!(enough(Bytes::from(vec![b'x'; 200 * SEGMENT as usize]), b""), 297);
    // Text may come in small pieces.
    assert_eq!(enough(Bytes::new(), &[b'x'; 64]), 5000);
    assert_eq!(enough(Bytes::new(), b"x"), 99, "64 bytes are worth one");
}

fn nop_in(r: &mut Rig, itt: Itt, ttt: Ttt) {
    let stat_sn = if itt.is_none() { StatSn(r.stat_sn[0]) } else { r.next_stat_sn(r.c) };
    let pdu = NopIn {
        lun: lun(6),
        itt,
        ttt,
        stat_sn,
        exp_cmd_sn: CmdSn(100),
        max_cmd_sn: CmdSn(107),
        data: if itt.is_none() { Bytes::new() } else { Bytes::from_static(b"echo") },
    };
    r.recv_raw(r.c, pdu, TaskBuffers::none());
}

// req: 7143-11.18-1, 7143-11.18-2, 7143-11.18-3
#[test]
fn a_nop_in_is_answered_when_it_asks_for_it() {
    let mut r = Rig::new(|_| {});
    nop_in(&mut r, Itt::NONE, Ttt(7));
    let Pdu::NopOut(nop) = r.one() else { panic!() };
    assert_eq!((nop.ttt, nop.lun, nop.itt, nop.immediate), (Ttt(7), lun(6), Itt::NONE, true));
    assert_eq!((nop.exp_stat_sn, nop.cmd_sn), (StatSn(1000), CmdSn(100)), "which takes no StatSN");
    nop_in(&mut r, Itt::NONE, Ttt::NONE);
    assert_eq!(r.sent(), []);
}

// req: 7145-6.2-4, 7145-7.3.13-1
#[test]
fn ping_data_fits_into_one_pdu() {
    let mut r = Rig::new(|_| {});
    r.s.ping(r.now, r.c, &Bytes::from(vec![1; 5000])).unwrap();
    let Pdu::NopOut(nop) = r.one() else { panic!() };
    assert_eq!((nop.data.len(), nop.immediate, nop.ttt), (SEGMENT as usize, true, Ttt::NONE));
    nop_in(&mut r, nop.itt, Ttt::NONE);
    assert!(matches!(&r.done()[..], [Completion::Ping { result: Ok(data), .. }] if &data[..] == b"echo"));
    assert_eq!(r.submit(plain()).1.cmd_sn, CmdSn(100), "an immediate ping takes no number");
}

// req: 7143-7.14-1
#[test]
fn an_idle_connection_is_pinged_and_a_silent_one_given_up() {
    let mut r = Rig::new(|_| {});
    r.after(Duration::from_secs(15));
    let Pdu::NopOut(nop) = r.one() else { panic!() };
    assert!(!nop.itt.is_none());
    nop_in(&mut r, nop.itt, Ttt::NONE);
    assert!(r.done().is_empty(), "nobody asked for it");
    r.after(Duration::from_secs(15));
    assert!(matches!(r.one(), Pdu::NopOut(_)));
    r.after(Duration::from_secs(15));
    assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
    let ended = InitiatorEvent::ConnectionEnded { conn: r.c, cid: Cid(1), cause: EndCause::Unresponsive };
    assert_eq!(r.events()[0], ended);
    assert_eq!(r.s.state(), SessionState::Failed);
}

fn logout_response(r: &mut Rig, itt: Itt, response: u8) {
    let stat_sn = r.next_stat_sn(r.c);
    let pdu = LogoutResponse {
        response: LogoutStatus(response),
        itt,
        stat_sn,
        exp_cmd_sn: CmdSn(100),
        max_cmd_sn: CmdSn(107),
        time2wait: 5,
        time2retain: 60,
    };
    r.recv_raw(r.c, pdu, TaskBuffers::none());
}

fn logout_request(pdu: Pdu) -> LogoutRequest {
    match pdu {
        Pdu::LogoutRequest(r) => r,
        other => panic!("{other:?}"),
    }
}

// req: 7143-4.2.6-1, 7143-11.14-1, 7143-11.14-2, 7143-11.14-3, 7143-11.14-6, 7143-11.15-1, 7143-11.15.3-1
#[test]
fn a_logout_closes_the_session_and_nothing_new_is_sent() {
    let mut r = Rig::new(|p| p.max_connections = 2);
    let second = r.connect();
    let open = r.submit(read(512)).1.itt;
    r.s.logout(r.now);
    let request = logout_request(r.one());
    assert_eq!((request.reason, request.cid), (LogoutReason::CloseSession, Cid(0)));
    for _ in 0..2 {
        assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::NoConnection);
    }
    logout_response(&mut r, request.itt, 0);
    let closed: Vec<ConnId> = r.actions().iter().map(|a| a.conn).collect();
    assert_eq!(closed, [r.c, second]);
    r.lose(r.c, &[open]);
    r.lose(second, &[]);
    let done = r.one_done();
    assert!(is_marked(&done.buffers));
    assert_eq!(done.result, Err(TaskFailure::LoggedOut));
    assert_eq!(r.events().last(), Some(&InitiatorEvent::Ended { closed: true, time2wait: Duration::ZERO }));
    assert_eq!(r.s.state(), SessionState::Free);
}

/// All connections are on their way out, and the login of one more is under way: the session is closed on that.
// req: 7143-11.14-3
#[test]
fn a_session_that_is_left_is_closed_on_a_connection_that_joins_late() {
    let mut r = Rig::new(|p| p.max_connections = 3);
    let second = r.connect();
    for id in [second, r.c] {
        r.s.logout_connection(r.now, id);
        assert_eq!(logout_request(r.one()).reason, LogoutReason::CloseConnection);
    }
    r.s.logout(r.now);
    assert_eq!(r.sent(), []);
    let third = r.connect();
    let [(on, request)] = &r.sent_on()[..] else { panic!() };
    assert_eq!(*on, third);
    assert_eq!(logout_request(request.clone()).reason, LogoutReason::CloseSession);
    assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::NoConnection);
}

// req: 7143-8.1.2-14
#[test]
fn a_refused_or_silent_logout_is_a_lost_connection() {
    let mut r = Rig::new(|_| {});
    r.s.logout(r.now);
    let request = logout_request(r.one());
    logout_response(&mut r, request.itt, 3);
    assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
    assert_eq!(r.s.conn_state(r.c), ConnState::CleanupWait);
    r.lose(r.c, &[]);
    let waits = InitiatorEvent::Ended { closed: false, time2wait: Duration::from_secs(5) };
    assert_eq!(r.events().last(), Some(&waits));
    let mut r = Rig::new(|_| {});
    r.s.logout(r.now);
    r.sent();
    r.after(Duration::from_secs(15));
    assert!(matches!(r.actions()[0].call, DownCall::ConnectionTerminate));
}

// req: 7143-11.9.1-2, 7143-11.9.1-3, 7143-11.9.1-4, 7143-11.9.4-1, 7143-11.9.4-2
#[test]
fn a_requested_logout_is_made_when_the_tasks_are_over_or_time_is_up() {
    let mut r = Rig::new(|_| {});
    let itt = r.submit(plain()).1.itt;
    r.async_message(1, Lun::ZERO, [0, 0, 10]);
    assert_eq!(r.sent(), []);
    assert_eq!(r.s.conn_state(r.c), ConnState::LogoutRequested);
    assert_eq!(r.s.submit(r.now, plain()).unwrap_err().why, Refusal::NoConnection);
    r.scsi_response(itt, good());
    let request = logout_request(r.one());
    assert!(matches!(request.reason.0, 0 | 1));
    let mut r = Rig::new(|_| {});
    r.submit(plain());
    r.async_message(1, Lun::ZERO, [0, 0, 10]);
    r.after(Duration::from_millis(8900));
    assert_eq!(r.sent(), []);
    r.after(Duration::from_millis(100));
    logout_request(r.one());
}

// req: 7143-11.9.1-8
#[test]
fn a_requested_negotiation_is_answered_with_text_unless_one_is_under_way() {
    let mut r = Rig::new(|_| {});
    r.async_message(4, Lun::ZERO, [0, 0, 10]);
    let request = text_request(r.one());
    assert!(request.final_pdu && request.data.is_empty());
    r.async_message(4, Lun::ZERO, [0, 0, 10]);
    assert_eq!(r.sent(), []);
    text_response(&mut r, request.itt, Ttt::NONE, b"", true);
    assert!(r.done().is_empty());
}

// req: 7143-11.9.1-11, 7143-11.9-1
#[test]
fn other_events_are_told_and_acknowledged() {
    let mut r = Rig::new(|_| {});
    r.async_message(250, Lun::ZERO, [1, 2, 3]);
    let told = InitiatorEvent::OtherEvent { event: AsyncEvent(250), vendor_code: 0, data: Bytes::new() };
    assert_eq!(r.events(), [told]);
    assert_eq!(r.submit(plain()).1.exp_stat_sn, StatSn(1001));
    let stat_sn = r.next_stat_sn(r.c);
    let pdu = AsyncMessage {
        lun: lun(3),
        stat_sn,
        exp_cmd_sn: CmdSn(100),
        max_cmd_sn: CmdSn(107),
        data: Bytes::from_static(&[0, 2, 0x70, 0]),
        ..AsyncMessage::default()
    };
    r.recv_raw(r.c, pdu, TaskBuffers::none());
    let told = InitiatorEvent::ScsiEvent { lun: lun(3), sense: Bytes::from_static(&[0x70, 0]) };
    assert_eq!(r.events(), [told]);
}

/// The datamover hears of the length that is declared at once, and when that is settled. What the target makes of a
/// request without an answer is not known.
// req: 7143-13.12-2, 7143-11.10-2
#[test]
fn another_segment_length_is_noticed_when_it_is_declared_and_when_it_is_settled() {
    let lengths = |r: &mut Rig| -> Vec<u32> {
        let actions = r.actions();
        actions
            .iter()
            .filter_map(|a| match &a.call {
                DownCall::NoticeKeyValues(keys) => Some(keys.max_recv_data_segment_length),
                _ => None,
            })
            .collect()
    };
    for length in [512, 65_536] {
        // The default is 8192.
        for (answer, settled) in [("good", &[length][..]), ("rejected", &[8192]), ("none", &[])] {
            let mut r = Rig::new(|_| {});
            r.s.declare_max_recv_data_segment_length(r.now, r.c, length).unwrap();
            let itt = r.s.entries.iter().map(|(key, _)| Itt(key.to_tag())).next().unwrap();
            assert_eq!(lengths(&mut r), [length], "behind the request");
            match answer {
                "good" => text_response(&mut r, itt, Ttt::NONE, b"", true),
                "rejected" => r.reject(4, &TextRequest { itt, ..TextRequest::default() }.into()),
                _ => r.after(Duration::from_secs(30)),
            }
            assert_eq!(lengths(&mut r), settled, "{answer}");
        }
    }
    // Declared again, a length is no more settled than before.
    let mut r = Rig::new(|_| {});
    r.s.declare_max_recv_data_segment_length(r.now, r.c, 512).unwrap();
    assert_eq!(lengths(&mut r), [512]);
    r.after(Duration::from_secs(30));
    r.s.declare_max_recv_data_segment_length(r.now, r.c, 512).unwrap();
    let itt = r.s.entries.iter().map(|(key, _)| Itt(key.to_tag())).next().unwrap();
    assert_eq!(lengths(&mut r), []);
    text_response(&mut r, itt, Ttt::NONE, b"", true);
    assert_eq!(lengths(&mut r), [512]);
}
