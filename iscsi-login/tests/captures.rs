//! Login PDUs of foreign stacks against our machines. `tests/data/*.hex` name the stacks.

mod common;

use bytes::Bytes;
use common::*;
use iscsi_login::*;
use iscsi_pdu::{Cid, CmdSn, Isid, Itt, LoginRequest, LoginResponse, Pdu, StatSn, Tsih};

fn pdu(file: &str) -> Pdu<Bytes> {
    let text = std::fs::read_to_string(format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let digits: String = text.lines().filter(|l| !l.starts_with('#')).collect();
    Pdu::decode(hex::decode(digits).unwrap().into()).unwrap()
}

fn request(file: &str) -> LoginRequest<Bytes> {
    let Pdu::LoginRequest(r) = pdu(file) else { panic!("{file}") };
    r
}

fn response(file: &str) -> LoginResponse<Bytes> {
    let Pdu::LoginResponse(r) = pdu(file) else { panic!("{file}") };
    r
}

/// Puts a captured request to a target that wishes `preferences`.
fn to_our_target(file: &str, preferences: Preferences) -> (LoginResponse<Bytes>, End, Caller) {
    let t0 = now();
    let config = TargetLoginConfig { preferences, ..TargetLoginConfig::default() };
    let mut target = TargetLogin::new(config.into(), [0; 32], t0);
    let mut caller = Caller::new(Grant { alias: Some("disk".parse().unwrap()), ..grant(TargetAuth::None) });
    target.handle_pdu(t0, pdu(file));
    let (sent, end) = drive_target(&mut target, &mut caller);
    let [response] = <[_; 1]>::try_from(sent).unwrap();
    (response, end.expect("one exchange"), caller)
}

/// open-iscsi gives up on any key that it does not know: what it has not sent is not sent to it, but for the keys
/// that every initiator must know.
fn nothing_volunteered(file: &str, response: &LoginResponse<Bytes>) {
    let key = |l: &String| l.split('=').next().unwrap().to_owned();
    let sent: Vec<String> = lines(&request(file).data).iter().map(key).collect();
    for answer in lines(&response.data).iter().map(key) {
        let own = ["TargetPortalGroupTag", "TargetAlias", "MaxRecvDataSegmentLength"];
        assert!(sent.contains(&answer) || own.contains(&answer.as_str()), "{answer}");
    }
}

#[test]
fn open_iscsi_over_tcp() {
    let (response, end, caller) = to_our_target("tcp_request.hex", Preferences::default());
    nothing_volunteered("tcp_request.hex", &response);
    assert!(response.transit);
    assert_eq!(response.isid, Isid([0, 2, 0x3d, 0, 0, 1]));
    let n = end.enabled();
    assert_eq!(n.initiator_name.as_str(), INITIATOR);
    assert_eq!(n.initiator_alias.as_ref().unwrap().as_str(), "lab");
    assert_eq!(caller.access.unwrap().target_name.unwrap().as_str(), TARGET);
    let s = n.session;
    assert_eq!((s.initial_r2t, s.immediate_data), (false, true));
    assert_eq!((s.max_burst_length, s.first_burst_length), (1_048_576, 8192));
    assert_eq!((s.default_time2wait, s.default_time2retain, s.error_recovery_level), (2, 0, 0));
    assert_eq!(
        (n.conn.max_send_data_segment_length, n.conn.max_recv_data_segment_length),
        (262_144, 262_144)
    );
    // Obsolete keys that it still offers (RFC 7143 section 13.25).
    // req: 7143-13.25-1, 7143-13.25-3
    let answers = lines(&response.data);
    assert!(answers.contains(&"IFMarker=Reject".into()) && answers.contains(&"OFMarker=Reject".into()));
}

#[test]
fn open_iscsi_with_digests() {
    let (response, end, _) = to_our_target("tcp_crc32c_request.hex", Preferences::default());
    nothing_volunteered("tcp_crc32c_request.hex", &response);
    let conn = end.enabled().conn;
    assert_eq!((conn.header_digest, conn.data_digest), (Digest::Crc32c, Digest::Crc32c));
    let strict = Preferences { header_digest: DigestPolicy::Never, ..Preferences::default() };
    let (response, _, _) = to_our_target("tcp_crc32c_request.hex", strict);
    assert!(lines(&response.data).contains(&"HeaderDigest=Reject".into()), "None was not on offer");
}

#[test]
fn open_iscsi_discovers() {
    let (response, end, caller) = to_our_target("tcp_discovery_request.hex", Preferences::default());
    nothing_volunteered("tcp_discovery_request.hex", &response);
    assert_eq!(caller.access.unwrap().session_type, SessionType::Discovery);
    let n = end.enabled();
    assert_eq!(
        (n.session.session_type, n.conn.max_send_data_segment_length),
        (SessionType::Discovery, 32_768)
    );
}

// req: 7145-3.3-1, 7145-6.2-3
#[test]
fn open_iscsi_over_iser() {
    let iser = Preferences { rdma_extensions: RdmaPolicy::Require, ..Preferences::default() };
    let (response, end, _) = to_our_target("iser_request.hex", iser);
    nothing_volunteered("iser_request.hex", &response);
    let answers = lines(&response.data);
    assert!(answers.contains(&"RDMAExtensions=Yes".into()));
    assert!(!answers.iter().any(|l| l.starts_with("MaxRecvDataSegmentLength")));
    let n = end.enabled();
    assert!(n.session.rdma_extensions);
    // It never says how it counts write offsets, nor how many PDUs it bears.
    assert_eq!(n.session.tagged_buffer_for_solicited_data_only, None);
    assert_eq!(n.session.initiator_max_outstanding_unexpected_pdus, None);
    assert_eq!((n.conn.max_send_data_segment_length, n.conn.max_recv_data_segment_length), (8192, 8192));
}

/// Our initiator with open-iscsi's wishes, and LIO's answer to those.
fn from_lio(file: &str, config: InitiatorLoginConfig) -> End {
    let answer = response(file);
    let t0 = now();
    let from = LoginStart {
        isid: answer.isid,
        cid: Cid(0),
        itt: Itt(0),
        cmd_sn: CmdSn(0),
        exp_stat_sn: StatSn(0),
        session: None,
    };
    let mut machine = InitiatorLogin::new(config.into(), from, [0; 32], t0);
    let (sent, _) = drive_initiator(&mut machine, true, &mut Vec::new());
    assert!(sent[0].transit);
    machine.handle_pdu(t0, Pdu::LoginResponse(answer));
    drive_initiator(&mut machine, true, &mut Vec::new()).1.expect("one exchange")
}

fn wishes() -> Preferences {
    Preferences {
        default_time2retain: 0,
        max_burst_length: 16_776_192,
        first_burst_length: 8192,
        initiator_recv_data_segment_length: 262_144,
        ..Preferences::default()
    }
}

// req: 7143-4.2.5.2-2, 7143-4.2.5.2-3
#[test]
fn lio_over_tcp() {
    let config = InitiatorLoginConfig { preferences: wishes(), ..normal(InitiatorAuth::None) };
    let end = from_lio("tcp_response.hex", config);
    let n = end.enabled();
    assert_eq!((n.tsih, n.target_portal_group_tag), (Tsih(1), Some(1)));
    assert_eq!(n.target_alias.as_ref().unwrap().as_str(), "LIO Target");
    let s = n.session;
    assert_eq!((s.initial_r2t, s.immediate_data, s.max_connections), (true, true, 1));
    assert_eq!((s.max_burst_length, s.first_burst_length, s.default_time2retain), (262_144, 8192, 0));
    // LIO leaves DataPDUInOrder=Yes and DataSequenceInOrder=Yes unanswered, as it may.
    // req: 7143-6.2.2-6
    assert!(s.data_pdu_in_order && s.data_sequence_in_order);
    assert_eq!(
        (n.conn.max_send_data_segment_length, n.conn.max_recv_data_segment_length),
        (262_144, 262_144)
    );
    assert_eq!(n.next_stat_sn, StatSn(0x98e7_c76f));
    assert_eq!((n.exp_cmd_sn, n.max_cmd_sn), (CmdSn(0), CmdSn(0)));
}

#[test]
fn lio_with_digests() {
    let mut preferences = wishes();
    preferences.header_digest = DigestPolicy::Require;
    preferences.data_digest = DigestPolicy::Prefer;
    let config = InitiatorLoginConfig { preferences, ..normal(InitiatorAuth::None) };
    let end = from_lio("tcp_crc32c_response.hex", config);
    let conn = end.enabled().conn;
    assert_eq!((conn.header_digest, conn.data_digest), (Digest::Crc32c, Digest::Crc32c));
}

#[test]
fn lio_over_iser() {
    let preferences = Preferences { rdma_extensions: RdmaPolicy::Require, ..wishes() };
    let config = InitiatorLoginConfig { preferences, ..normal(InitiatorAuth::None) };
    let end = from_lio("iser_response.hex", config);
    let n = end.enabled();
    assert!(n.session.rdma_extensions);
    assert_eq!((n.conn.max_recv_data_segment_length, n.conn.max_send_data_segment_length), (262_144, 8192));
}

/// LIO knows three keys of RFC 7145 and says NotUnderstood to the others, also to those that only an initiator may
/// use: that is an answer, no use of the key.
// req: 7143-6.2-9
#[test]
fn lio_over_iser_disowns_keys() {
    let preferences = Preferences {
        rdma_extensions: RdmaPolicy::Require,
        max_outstanding_unexpected_pdus: Some(16),
        tagged_buffer_for_solicited_data_only: Some(true),
        ..Preferences::default()
    };
    let config = InitiatorLoginConfig { preferences, ..normal(InitiatorAuth::None) };
    let end = from_lio("iser_disowned_response.hex", config);
    let n = end.enabled();
    assert!(n.session.rdma_extensions);
    assert_eq!(n.session.tagged_buffer_for_solicited_data_only, None);
    assert_eq!(n.session.initiator_max_outstanding_unexpected_pdus, None);
}

#[test]
fn lio_discovery() {
    let config = InitiatorLoginConfig { preferences: wishes(), ..discovery(InitiatorAuth::None) };
    let end = from_lio("tcp_discovery_response.hex", config);
    assert_eq!(end.enabled().session.session_type, SessionType::Discovery);
}

/// Every prefix of a captured text, as a whole text: no prefix does harm.
#[test]
fn truncated_captures() {
    let whole = request("iser_request.hex");
    for len in 0..whole.data.len() {
        let t0 = now();
        let mut target = TargetLogin::new(TargetLoginConfig::default().into(), [0; 32], t0);
        let mut caller = Caller::new(grant(TargetAuth::None));
        target.handle_request(t0, LoginRequest { data: whole.data.slice(..len), ..whole.clone() });
        let (sent, end) = drive_target(&mut target, &mut caller);
        assert_eq!(sent.len(), 1);
        let cut_inside_a_pair = len > 0 && whole.data[len - 1] != 0;
        if cut_inside_a_pair {
            assert_eq!(end.unwrap().failed().rule, Rule::TextFormat);
        }
    }
}
