use super::*;
use iscsi_login::sendtargets::{Host, SendTargets, TargetAddress, TargetRecord};

struct Many(usize);

impl TargetDirectory for Many {
    fn send_targets(&self, peer: &Peer, which: &SendTargets) -> Vec<TargetRecord> {
        assert_eq!(peer.initiator.as_str(), "iqn.2026-01.org.example:host");
        let record = |n: usize| TargetRecord {
            name: IscsiName::new(&format!("iqn.2026-01.org.example:t{n}")).unwrap(),
            addresses: vec![TargetAddress {
                host: Host::Ip([192, 0, 2, 1].into()),
                port: Some(3260),
                portal_group_tag: Some(1),
            }],
        };
        match which {
            SendTargets::All => (0..self.0).map(record).collect(),
            SendTargets::Session => vec![record(0)],
            SendTargets::Target(name) => (0..self.0).map(record).filter(|r| r.name == *name).collect(),
        }
    }
}

fn rig(session_type: SessionType, targets: usize) -> Rig {
    let cfg = TargetConfig { directory: Arc::new(Many(targets)), ..TargetConfig::default() };
    Rig::with_config(cfg, |p| p.session_type = session_type)
}

fn request(itt: u32, ttt: Ttt, text: &[u8]) -> TextRequest {
    TextRequest {
        immediate: true,
        final_pdu: true,
        itt: Itt(itt),
        ttt,
        cmd_sn: CmdSn(100),
        exp_stat_sn: FIRST_STAT_SN,
        data: Bytes::copy_from_slice(text),
        ..TextRequest::default()
    }
}

fn response(pdu: Pdu) -> TextResponse {
    match pdu {
        Pdu::TextResponse(r) => r,
        other => panic!("{other:?}"),
    }
}

fn ask(r: &mut Rig, text: &[u8]) -> TextResponse {
    r.recv(request(1, Ttt::NONE, text));
    response(r.one())
}

// req: 7143-C-3, 7143-11.11.1-2, 7143-11.11.4-2
#[test]
fn send_targets_answers_in_one_response_when_it_fits() {
    let mut r = rig(SessionType::Discovery, 1);
    let answer = ask(&mut r, b"SendTargets=All\0");
    assert_eq!(&answer.data[..], b"TargetName=iqn.2026-01.org.example:t0\0TargetAddress=192.0.2.1:3260,1\0");
    assert_eq!((answer.final_pdu, answer.continue_text, answer.ttt), (true, false, Ttt::NONE));
    assert_eq!((answer.itt, answer.stat_sn), (Itt(1), FIRST_STAT_SN));
}

// The exchange of section 11.10.4, with an initiator that takes 1024 bytes a PDU.
// req: 7143-11.10.4-1, 7143-11.11.1-3, 7143-11.11.4-1, 7143-11.11.6-1, 7143-11.10.4-3, 7145-7.3.8-1
#[test]
fn a_long_answer_is_fetched_piece_by_piece() {
    let mut r = rig(SessionType::Discovery, 50);
    let mut text = Vec::new();
    let mut answer = ask(&mut r, b"SendTargets=All\0");
    loop {
        assert!(answer.data.len() <= MRDSL as usize);
        text.extend_from_slice(&answer.data);
        if answer.final_pdu {
            break;
        }
        assert!(answer.continue_text && !answer.ttt.is_none());
        r.recv(request(1, answer.ttt, b""));
        answer = response(r.one());
    }
    assert_eq!((answer.ttt, answer.continue_text), (Ttt::NONE, false));
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("TargetName=").count(), 50);
    assert!(text.ends_with(",1\0"));
}

// req: 7143-C-5
#[test]
fn a_normal_session_learns_of_its_own_target() {
    let mut r = rig(SessionType::Normal, 5);
    let answer = ask(&mut r, b"SendTargets=\0");
    assert!(answer.data.starts_with(b"TargetName=iqn.2026-01.org.example:t0\0"));
    let answer = ask(&mut r, b"SendTargets=iqn.2026-01.org.example:t3\0");
    assert!(answer.data.starts_with(b"TargetName=iqn.2026-01.org.example:t3\0"));
    let answer = ask(&mut r, b"SendTargets=All\0");
    assert_eq!(&answer.data[..], b"SendTargets=Reject\0", "discovery sessions alone (appendix C)");
}

#[test]
fn a_request_may_come_in_pieces() {
    let mut r = rig(SessionType::Discovery, 1);
    let part = TextRequest { final_pdu: false, continue_text: true, ..request(1, Ttt::NONE, b"SendTar") };
    r.recv(part);
    let answer = response(r.one());
    assert!(!answer.final_pdu && !answer.ttt.is_none() && answer.data.is_empty());
    r.recv(request(1, answer.ttt, b"gets=All\0"));
    assert!(response(r.one()).data.starts_with(b"TargetName="));
}

// req: 7143-11.11.1-1, 7143-11.11.1-4
#[test]
fn a_request_that_is_not_final_gets_no_final_response() {
    let mut r = rig(SessionType::Discovery, 1);
    r.recv(TextRequest { final_pdu: false, ..request(1, Ttt::NONE, b"SendTargets=All\0") });
    let answer = response(r.one());
    assert!(!answer.final_pdu && !answer.ttt.is_none());
    r.recv(request(1, answer.ttt, b""));
    assert!(response(r.one()).final_pdu);
}

// req: 7143-11.11.4-5, 7143-11.10.4-4, 7143-11.10.4-5
#[test]
fn a_stale_tag_is_rejected_and_a_new_start_forgets_the_old() {
    let mut r = rig(SessionType::Discovery, 50);
    let answer = ask(&mut r, b"SendTargets=All\0");
    r.recv(request(1, Ttt(answer.ttt.0 ^ 1), b""));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField);
    r.recv(request(1, answer.ttt, b""));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField, "the exchange is gone");
    let first = ask(&mut r, b"SendTargets=All\0");
    let again = ask(&mut r, b"SendTargets=All\0");
    assert_eq!(first.data, again.data);
    r.after(Duration::from_secs(30));
    r.recv(request(1, again.ttt, b""));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField, "stalled for too long");
}

#[test]
fn bad_text_is_rejected_and_the_session_goes_on() {
    let mut r = rig(SessionType::Normal, 1);
    for text in [
        &b"no pair at all\0"[..],
        b"Unterminated=yes",
        b"MaxRecvDataSegmentLength=511\0",
        b"MaxRecvDataSegmentLength=16777216\0",
        b"MaxRecvDataSegmentLength=1024\0MaxRecvDataSegmentLength=2048\0",
        // Keys of the login alone (section 13).
        b"MaxBurstLength=65536\0",
        b"HeaderDigest=CRC32C\0",
    ] {
        r.recv(request(1, Ttt::NONE, text));
        assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError, "{}", text.escape_ascii());
    }
    let answer = ask(&mut r, b"X-org.example.Colour=blue\0");
    assert_eq!(&answer.data[..], b"X-org.example.Colour=NotUnderstood\0");
}

#[test]
fn too_much_text_is_rejected() {
    let cfg = TargetConfig { text_limit: 1000, text_answer_limit: 1000, ..TargetConfig::default() };
    let cfg = TargetConfig { directory: Arc::new(Many(50)), ..cfg };
    let mut r = Rig::with_config(cfg, |p| p.session_type = SessionType::Discovery);
    r.recv(request(1, Ttt::NONE, &[b'a'; 1001]));
    assert_eq!(reject_reason(&r.one()), RejectReason::ProtocolError);
    // req: 7143-11.11.4-4
    r.recv(request(1, Ttt::NONE, b"SendTargets=All\0"));
    assert_eq!(reject_reason(&r.one()), RejectReason::LongOperationReject);
}

// req: 7143-7.12-1
#[test]
fn a_new_segment_length_is_in_force_when_the_exchange_is_over() {
    let mut r = rig(SessionType::Normal, 1);
    r.recv(TextRequest { final_pdu: false, ..request(1, Ttt::NONE, b"MaxRecvDataSegmentLength=2048\0") });
    let answer = response(r.one());
    assert_eq!(r.s.conn(r.c).unwrap().keys.max_send_data_segment_length, MRDSL);
    r.recv(request(1, answer.ttt, b""));
    let actions = r.actions();
    let noticed = actions.iter().find_map(|a| match &a.call {
        DownCall::NoticeKeyValues(keys) => Some(keys.max_send_data_segment_length),
        _ => None,
    });
    assert_eq!(noticed, Some(2048));
}

#[test]
fn an_aborted_exchange_is_forgotten() {
    let mut r = rig(SessionType::Normal, 50);
    r.recv(TextRequest { final_pdu: false, ..request(1, Ttt::NONE, b"") });
    let answer = response(r.one());
    r.recv(abort_task(50, 100, 1, 100));
    assert_eq!(tmf_response(&r.one()), (50, TaskMgmtStatus::FunctionComplete));
    r.recv(request(1, answer.ttt, b""));
    assert_eq!(reject_reason(&r.one()), RejectReason::InvalidPduField);
}
