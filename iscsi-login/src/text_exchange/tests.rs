use super::*;
use crate::text_exchange::TextAction::Respond;

const TTT: Ttt = Ttt(0x1234);

fn normal() -> SessionParams {
    SessionParams::default()
}

fn discovery() -> SessionParams {
    SessionParams { session_type: SessionType::Discovery, ..SessionParams::default() }
}

fn conn(send: u32) -> ConnParams {
    ConnParams { max_send_data_segment_length: send, ..ConnParams::default() }
}

fn target(session: &SessionParams) -> TextTarget {
    TextTarget::new(session, &conn(8192), TTT, TextBudget::default())
}

fn request(f: bool, c: bool, ttt: Ttt, data: &str) -> TextPdu {
    TextPdu { final_pdu: f, continue_text: c, ttt, data: data.to_owned().into() }
}

fn respond(t: &mut TextTarget, r: TextPdu) -> Result<TextPdu, Rule> {
    match t.handle_request(r)? {
        Respond(pdu) => Ok(pdu),
        TextAction::SendTargets(_) => panic!("SendTargets"),
    }
}

fn records(n: usize) -> Vec<TargetRecord> {
    (0..n)
        .map(|i| TargetRecord {
            name: format!("iqn.2001-04.com.example:disk{i}").parse().unwrap(),
            addresses: vec!["10.0.0.1:3260,1".parse().unwrap()],
        })
        .collect()
}

/// The long response of RFC 7143 section 11.10.4, both ends.
// req: 7143-6.4-2, 7143-6.4-3, 7143-6.4-4, 7143-6.4-5, 7143-6.4-8, 7143-6.2-2, 7143-6.2-3, 7143-6.2-5
#[test]
fn send_targets_over_many_responses() {
    for segment in [512, 700, 8192, 1 << 20] {
        let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), TextBudget::default());
        let mut t = TextTarget::new(&discovery(), &conn(segment), TTT, TextBudget::default());
        let first = i.first();
        assert_eq!(first, request(true, false, Ttt::NONE, "SendTargets=All\0"));
        let TextAction::SendTargets(SendTargets::All) = t.handle_request(first).unwrap() else { panic!() };
        let mut response = t.respond_targets(&records(100)).unwrap();
        let mut exchanges = 1;
        loop {
            assert!(response.data.len() <= segment as usize);
            assert_eq!(response.final_pdu, response.ttt.is_none());
            assert!(!(response.final_pdu && response.continue_text));
            match i.handle_response(response).unwrap() {
                TextProgress::Done => break,
                TextProgress::Send(next) => {
                    assert_eq!(next, request(true, false, TTT, ""), "empty, F = 1, TTT copied");
                    response = respond(&mut t, next).unwrap();
                    exchanges += 1;
                }
            }
        }
        let text = write_records(&records(100), 1 << 20).unwrap();
        assert_eq!(exchanges, text.len().div_ceil(segment as usize));
        assert_eq!(i.records(RecordLimits::default()).unwrap().unwrap(), records(100));
    }
}

/// A target that cuts its list without the C bit, as the example in the RFC does.
#[test]
fn parts_without_the_c_bit() {
    let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), TextBudget::default());
    i.first();
    let part = |f: bool, data: &str| request(f, false, if f { Ttt::NONE } else { TTT }, data);
    let next = i.handle_response(part(false, "TargetName=iqn.2001-04.com.exam")).unwrap();
    assert_eq!(next, TextProgress::Send(request(true, false, TTT, "")));
    assert_eq!(i.handle_response(part(true, "ple:a\0")), Ok(TextProgress::Done));
    assert_eq!(
        i.records(RecordLimits::default()).unwrap().unwrap()[0].name.as_str(),
        "iqn.2001-04.com.example:a"
    );
}

// req: 7143-13.3-1, 7143-13.4-3
#[test]
fn what_send_targets_may_ask() {
    let ask = |session: &SessionParams, text: &str| {
        target(session).handle_request(request(true, false, Ttt::NONE, text))
    };
    assert_eq!(ask(&discovery(), "SendTargets=All\0"), Ok(TextAction::SendTargets(SendTargets::All)));
    assert_eq!(ask(&normal(), "SendTargets=\0"), Ok(TextAction::SendTargets(SendTargets::Session)));
    let refused = Err(Rule::NotAllowedHere(Key::SendTargets));
    assert_eq!(ask(&normal(), "SendTargets=All\0"), refused);
    assert_eq!(ask(&discovery(), "SendTargets=All\0X-a=1\0"), refused);
    assert_eq!(ask(&discovery(), "SendTargets=../x\0"), Err(Rule::Value(Key::SendTargets)));
    assert_eq!(ask(&discovery(), "MaxRecvDataSegmentLength=8192\0"), Err(Rule::Missing(Key::SendTargets)));
    let mut t = target(&discovery());
    t.handle_request(request(true, false, Ttt::NONE, "SendTargets=All\0")).unwrap();
    assert!(t.respond_targets(&[]).unwrap().data.is_empty(), "nothing to access, no names");
}

/// New lengths count for both ends once the sequence is complete, not before.
// req: 7143-6.4-1, 7143-6.4-12, 7143-6.2-19, 7145-6.2-1, 7143-13.12-2
#[test]
fn renegotiation() {
    let mut t = target(&normal());
    let mut i =
        TextInitiator::declare_max_recv_data_segment_length(65_536, &conn(8192), TextBudget::default());
    t.declare_max_recv_data_segment_length(1 << 20);
    let response = respond(&mut t, i.first()).unwrap();
    assert_eq!(response.data, "MaxRecvDataSegmentLength=1048576\0");
    assert_eq!(i.result(), None);
    assert_eq!(i.handle_response(response), Ok(TextProgress::Done));
    let (mut at_i, mut at_t) = (conn(8192), conn(8192));
    i.result().unwrap().apply(&normal(), &mut at_i);
    t.result().unwrap().apply(&normal(), &mut at_t);
    assert_eq!((at_i.max_recv_data_segment_length, at_i.max_send_data_segment_length), (65_536, 1 << 20));
    assert_eq!((at_t.max_recv_data_segment_length, at_t.max_send_data_segment_length), (1 << 20, 65_536));
    let iser = SessionParams { rdma_extensions: true, ..normal() };
    let mut unchanged = conn(4096);
    t.result().unwrap().apply(&iser, &mut unchanged);
    assert_eq!(unchanged, conn(4096));
}

/// While the initiator keeps F = 0 the sequence goes on.
// req: 7143-6.4-6, 7143-6.4-7, 7143-6.4-12
#[test]
fn several_texts_in_one_sequence() {
    let mut t = target(&normal());
    let r = respond(&mut t, request(false, false, Ttt::NONE, "MaxRecvDataSegmentLength=65536\0")).unwrap();
    assert_eq!(r, request(false, false, TTT, ""));
    assert_eq!(t.result(), None);
    let r = respond(&mut t, request(true, false, TTT, "InitiatorAlias=web 4\0")).unwrap();
    assert_eq!(r, request(true, false, Ttt::NONE, ""));
    let result = t.result().unwrap();
    assert_eq!(result.max_send_data_segment_length, Some(65_536));
    assert_eq!(result.peer_alias.as_ref().unwrap().as_str(), "web 4");
}

// req: 7143-6.1-7, 7143-6.2-2, 7143-6.2-1
#[test]
fn text_over_several_requests() {
    let mut t = target(&normal());
    let r = respond(&mut t, request(false, true, Ttt::NONE, "MaxRecvDataSegm")).unwrap();
    assert_eq!(r, request(false, false, TTT, ""));
    let r = respond(&mut t, request(true, false, TTT, "entLength=65536\0")).unwrap();
    assert!(r.final_pdu);
    assert_eq!(t.result().unwrap().max_send_data_segment_length, Some(65_536));
    let both = request(true, true, Ttt::NONE, "A=1\0");
    assert_eq!(respond(&mut target(&normal()), both), Err(Rule::ContinueWithTransit));
}

/// TTT 0xffffffff begins anew; a stale or invented one is refused.
// req: 7143-6.4-9, 7143-7.12-2, 7143-7.12-3, 7143-7.12-4
#[test]
fn reset() {
    let mut t = target(&normal());
    respond(&mut t, request(false, false, Ttt::NONE, "MaxRecvDataSegmentLength=65536\0")).unwrap();
    let r = respond(&mut t, request(true, false, Ttt::NONE, "InitiatorAlias=x\0")).unwrap();
    assert!(r.final_pdu);
    assert_eq!(t.result().unwrap().max_send_data_segment_length, None, "forgotten");
    assert_eq!(respond(&mut target(&normal()), request(true, false, TTT, "")), Err(Rule::HeaderChanged));
    assert_eq!(respond(&mut t, request(true, false, Ttt(9), "")), Err(Rule::HeaderChanged));
    assert_eq!(TextInitiator::reset(), request(true, false, Ttt::NONE, ""));
}

// req: 7143-6.4-10, 7143-6.4-11, 7143-7.12-3
#[test]
fn repetition() {
    let key = Rule::Repeated(Key::MaxRecvDataSegmentLength);
    let text = "MaxRecvDataSegmentLength=65536\0";
    assert_eq!(respond(&mut target(&normal()), request(true, false, Ttt::NONE, &text.repeat(2))), Err(key));
    let mut t = target(&normal());
    respond(&mut t, request(false, false, Ttt::NONE, text)).unwrap();
    assert_eq!(respond(&mut t, request(true, false, TTT, text)), Err(key));
    assert_eq!(t.result(), None);
    assert_eq!(key.reject_reason(), RejectReason::ProtocolError);
    let mut i = TextInitiator::invite(&conn(8192), TextBudget::default());
    i.first();
    assert_eq!(i.handle_response(request(true, false, Ttt::NONE, &text.repeat(2))), Err(key));
    assert_eq!(i.result(), None);
}

/// Keys of the login phase are out of place now.
// req: 7143-6.3-10, 7143-13-1, 7143-13-2
#[test]
fn login_keys() {
    for key in Key::ALL {
        let text = format!("{}=1\0", key.name());
        let result = target(&normal()).handle_request(request(true, false, Ttt::NONE, &text));
        let allowed = matches!(key, Key::SendTargets | Key::MaxRecvDataSegmentLength | Key::InitiatorAlias);
        if !allowed {
            assert_eq!(result, Err(Rule::NotAllowedHere(*key)));
            assert_eq!(Rule::NotAllowedHere(*key).reject_reason(), RejectReason::ProtocolError);
        }
    }
}

// req: 7143-6.2-8, 7143-6.2-11, 7143-6.2-13
#[test]
fn unknown_keys() {
    let r = respond(&mut target(&normal()), request(true, false, Ttt::NONE, "X-com.example.a=1\0")).unwrap();
    assert_eq!(r.data, "X-com.example.a=NotUnderstood\0");
    let echo = request(true, false, Ttt::NONE, "X-com.example.a=NotUnderstood\0");
    assert_eq!(respond(&mut target(&normal()), echo), Err(Rule::ReservedWord));
    let mut i =
        TextInitiator::declare_max_recv_data_segment_length(65_536, &conn(8192), TextBudget::default());
    i.first();
    let answer = request(true, false, Ttt::NONE, "MaxRecvDataSegmentLength=NotUnderstood\0");
    assert_eq!(i.handle_response(answer), Err(Rule::NotUnderstood(Key::MaxRecvDataSegmentLength)));
    // A target's key that we do not know is answered, if it lets us.
    let mut i = TextInitiator::invite(&conn(8192), TextBudget::default());
    i.first();
    let next = i.handle_response(request(false, false, TTT, "X-a=1\0")).unwrap();
    assert_eq!(next, TextProgress::Send(request(true, false, TTT, "X-a=NotUnderstood\0")));
}

/// F and TTT of responses.
// req: 7143-6.4-7, 7143-6.4-8
#[test]
fn responses_that_cannot_be() {
    for bad in [request(true, false, TTT, ""), request(false, false, Ttt::NONE, "")] {
        let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), TextBudget::default());
        i.first();
        assert_eq!(i.handle_response(bad), Err(Rule::Stage));
    }
    let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), TextBudget::default());
    i.first();
    assert_eq!(i.handle_response(request(true, true, Ttt::NONE, "")), Err(Rule::ContinueWithTransit));
    // F = 1 to a request with F = 0.
    let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(4), TextBudget::default());
    assert!(i.first().continue_text);
    assert_eq!(i.handle_response(request(true, false, Ttt::NONE, "")), Err(Rule::Stage));
}

/// Endless responses and endless requests end.
// req: 7143-10.3-1, 7143-10.3-2, 7143-6.2-23
#[test]
fn budgets() {
    let budget = TextBudget { text: 0, pdus: 0 };
    let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), budget);
    i.first();
    for _ in 0..6 {
        assert!(i.handle_response(request(false, false, TTT, "")).is_ok());
    }
    let rule = i.handle_response(request(false, false, TTT, "")).unwrap_err();
    assert_eq!((rule, rule.reject_reason()), (Rule::Budget(Bound::Pdus), RejectReason::NegotiationReset));
    let mut i = TextInitiator::send_targets(&SendTargets::All, &conn(8192), budget);
    i.first();
    i.handle_response(request(false, true, TTT, &"x".repeat(8192))).unwrap();
    assert_eq!(i.handle_response(request(false, true, TTT, "x")), Err(Rule::Budget(Bound::Bytes)));
    let mut t = TextTarget::new(&normal(), &conn(8192), TTT, budget);
    respond(&mut t, request(false, true, Ttt::NONE, &"x".repeat(8192))).unwrap();
    assert_eq!(respond(&mut t, request(false, true, TTT, "x")), Err(Rule::Budget(Bound::Bytes)));
}

/// Row 12 of the bug classes: C = 1 and no text.
#[test]
fn empty_continuation() {
    let empty = request(false, true, Ttt::NONE, "");
    assert_eq!(respond(&mut target(&normal()), empty), Err(Rule::TextFormat));
}
