use super::*;
use crate::provider::mem::{self, MemConfig, MemRcap};
use crate::wire::Hello;
use bytes::{BufMut, BytesMut};
use datamover::{Event, SgList};
use iscsi_pdu::{Itt, LoginRequest, LoginResponse, NopIn, NopOut, Stage};
use std::task::Waker;

fn poll(link: &mut dyn Drive, now: Instant) {
    let mut cx = Context::from_waker(Waker::noop());
    while link.poll_drive(&mut cx, &mut Budget::new(now)).is_ready() {}
}

fn request(text: &'static str) -> Pdu<Bytes> {
    let data = Bytes::from_static(text.as_bytes());
    LoginRequest { csg: Stage::LoginOperationalNegotiation, itt: Itt(1), data, ..Default::default() }.into()
}

fn response(text: &'static str) -> LoginResponse<Bytes> {
    let data = Bytes::from_static(text.as_bytes());
    LoginResponse { csg: Stage::LoginOperationalNegotiation, itt: Itt(1), data, ..Default::default() }
}

fn rdma_keys() -> ConnKeys {
    let mut keys = ConnKeys::default();
    keys.rdma_extensions = true;
    keys
}

fn links(
    config: MemConfig,
) -> (Box<MessageLoginLink<MemRcap>>, Box<MessageLoginLink<MemRcap>>, mem::MemWire) {
    let (a, b, wire) = mem::pair(config);
    let link = |rcap, role| Box::new(MessageLoginLink::new(rcap, role, Quirks::default()));
    (link(a, Role::Initiator), link(b, Role::Target), wire)
}

fn messages(wire: &mem::MemWire) -> Vec<Vec<u8>> {
    wire.log()
        .into_iter()
        .filter_map(|e| match e {
            mem::Event::Send { message, .. } => Some(message),
            _ => None,
        })
        .collect()
}

#[test]
fn a_login_in_messages_and_the_nine_primitives() {
    // req: 7145-3.1-1, 7145-3.1.4-1, 7145-5.1.1-7, 7145-5.1.2-6, 7145-5.1.2-8, 7145-5.1.3-8
    let now = Instant::now();
    let (mut ini, mut tgt, wire) = links(MemConfig::default());
    assert_eq!(ini.rdma_offer(), RdmaOffer::Always);
    ini.send_login(request("RDMAExtensions=Yes\0"));
    poll(&mut *ini, now);
    poll(&mut *tgt, now);
    assert_eq!(tgt.poll_login(), Some(Ok(request("RDMAExtensions=Yes\0"))));
    tgt.send_login(response("RDMAExtensions=Yes\0").into());
    assert!(!tgt.is_flushed());
    poll(&mut *tgt, now);
    assert!(tgt.is_flushed());
    poll(&mut *ini, now);
    assert_eq!(ini.poll_login(), Some(Ok(response("RDMAExtensions=Yes\0").into())));

    // Notice_Key_Values, Allocate_Connection_Resources; the second time without effect.
    for link in [&mut ini, &mut tgt] {
        link.notice_key_values(&rdma_keys());
        assert_eq!(link.allocate_connection_resources(&Resources::default()), Ok(()));
        let other = Resources { commands: 1, ..Resources::default() };
        assert_eq!(link.allocate_connection_resources(&other), Ok(()));
    }
    // All receive buffers of full feature phase are there before the last request leaves.
    assert_eq!(wire.posted_receives(0), 128 + 64);
    ini.send_login(request("A=B\0"));
    poll(&mut *ini, now);
    poll(&mut *tgt, now);
    assert!(matches!(tgt.poll_login(), Some(Ok(_))));

    // Enable_Datamover sends the final response as it sent the others.
    let mut tgt = tgt.enable_datamover(Some(response("A=C\0")));
    poll(&mut *tgt, now);
    assert_eq!(wire.posted_receives(1), 128 + 64);
    poll(&mut *ini, now);
    assert_eq!(ini.poll_login(), Some(Ok(response("A=C\0").into())));
    let last = messages(&wire).pop().unwrap();
    let mut want = BytesMut::new();
    want.put_slice(&[0x10]);
    want.put_bytes(0, 27);
    Pdu::from(response("A=C\0")).encode(&mut want).unwrap();
    assert_eq!(last, want);

    // Send_Control, Put_Data, Get_Data, Deallocate_Task_Resources, Connection_Terminate.
    let mut ini = ini.enable_datamover(None);
    let ping = NopOut { immediate: true, itt: Itt(2), data: Bytes::new(), ..Default::default() };
    ini.send_control(ping.into()).unwrap();
    poll(&mut *ini, now);
    poll(&mut *tgt, now);
    assert!(matches!(tgt.poll_event(), Some(Event::Control(_))));
    let get = datamover::GetData {
        itt: Itt(9),
        lun: Default::default(),
        offset: 0,
        into: IoBuf::zeroed(8).into(),
        resume: None,
    };
    tgt.get_data(get).unwrap();
    assert!(matches!(tgt.poll_event(), Some(Event::DataCompletion(_))), "an unknown task, told at once");
    let data = SgList::from(Bytes::from_static(b"x"));
    let put = datamover::PutData {
        itt: Itt(9),
        lun: Default::default(),
        offset: 0,
        data,
        resume: None,
        ack: false,
        notify: false,
    };
    tgt.put_data(put).unwrap();
    tgt.deallocate_task_resources(Itt(9));
    assert!(matches!(tgt.poll_event(), Some(Event::TaskReclaimed { itt: Itt(9), .. })));
    tgt.connection_terminate();
    poll(&mut *tgt, now);
    assert!(matches!(tgt.poll_event(), Some(Event::Terminated(t)) if t.cause == Cause::Local));
    assert_eq!(wire.violations(), []);
}

#[test]
fn what_the_target_sends_right_after_the_login_is_not_lost() {
    let now = Instant::now();
    let (mut ini, mut tgt, _wire) = links(MemConfig::default());
    for link in [&mut ini, &mut tgt] {
        link.notice_key_values(&rdma_keys());
        link.allocate_connection_resources(&Resources::default()).unwrap();
    }
    let mut tgt = tgt.enable_datamover(Some(response("A=B\0")));
    tgt.send_control(NopIn { itt: Itt(7), data: Bytes::new(), ..Default::default() }.into()).unwrap();
    poll(&mut *tgt, now);
    let later = now + std::time::Duration::from_secs(2);
    poll(&mut *tgt, later);
    poll(&mut *ini, later);
    assert!(matches!(ini.poll_login(), Some(Ok(Pdu::LoginResponse(_)))));
    let mut ini = ini.enable_datamover(None);
    assert!(matches!(ini.poll_event(), Some(Event::Control(c)) if c.pdu.itt() == Itt(7)));
}

#[test]
fn resources_that_are_not_there_are_refused() {
    // req: 7145-10.1.3.1-1, 7145-10.1.3.1-3
    let (mut ini, mut tgt, _wire) = links(MemConfig { memory: 1 << 20, ..MemConfig::default() });
    for link in [&mut ini, &mut tgt] {
        assert!(link.allocate_connection_resources(&Resources::default()).is_err());
        // Less is still to be had: nothing was taken.
        let less = Resources { commands: 4, unexpected: 4, pool_bytes: 1 << 16, ..Resources::default() };
        assert_eq!(link.allocate_connection_resources(&less), Ok(()));
    }
}

#[test]
fn deallocation_gives_the_memory_up() {
    // req: 7145-3.1.5-1
    let (mut ini, _tgt, _wire) = links(MemConfig::default());
    ini.allocate_connection_resources(&Resources::default()).unwrap();
    assert!(ini.rcap.pool().alloc(64).is_some());
    ini.deallocate_connection_resources();
    assert_eq!(ini.rcap.pool().outstanding(), 0);
    assert!(ini.rcap.pool().alloc(64).is_none());
    ini.deallocate_connection_resources();
    assert_eq!(ini.allocate_connection_resources(&Resources::default()), Ok(()));
}

#[test]
fn an_initiator_that_serves_no_reads_cannot_write() {
    // req: 7145-5.1.1-2
    let mut config = MemConfig::default();
    config.caps[0].ird = 0;
    let (mut ini, _tgt, _wire) = links(config);
    let refused = ini.allocate_connection_resources(&Resources::default()).unwrap_err();
    assert!(refused.what.contains("IRD"));
}

fn after(message: &[u8]) -> LinkError {
    let (mut raw, tgt, _wire) = mem::pair(MemConfig::default());
    let now = Instant::now();
    let mut tgt = MessageLoginLink::new(tgt, Role::Target, Quirks::default());
    let message = SgList::from(Bytes::copy_from_slice(message));
    raw.post(Op::Send { message, invalidate: None }).unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    raw.poll(&mut cx, &mut Budget::new(now), &mut Vec::new());
    poll(&mut tgt, now);
    match tgt.poll_login() {
        Some(Err(error)) => {
            // It is told once, and the connection is closed: at once, unless there may be an answer.
            assert_eq!(tgt.poll_login(), None);
            if matches!(error, LinkError::NotLogin(_)) {
                let refusal = LoginResponse { status_class: 2, status_detail: 0x0b, ..Default::default() };
                tgt.send_login(refusal.into());
                poll(&mut tgt, now);
                assert!(tgt.is_flushed());
                drop(tgt);
            }
            let mut got = Vec::new();
            raw.poll(&mut cx, &mut Budget::new(now), &mut got);
            assert!(matches!(got.last(), Some(Completion::Closed(_))));
            error
        }
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn messages_that_are_no_login_end_the_link() {
    let whole = |pdu: &Pdu<Bytes>| {
        let mut out = BytesMut::new();
        out.put_slice(&IserHeader::Control(ControlHeader::default()).encode());
        pdu.encode(&mut out).unwrap();
        out.to_vec()
    };
    let login = whole(&request("InitiatorName=iqn.2026-01.org.example\0"));
    // Every prefix, padding apart, is too short.
    for n in 0..login.len() - 3 {
        let error = after(&login[..n]);
        assert!(matches!(error, LinkError::Protocol(_)), "{n}: {error:?}");
    }
    let nop = NopOut { itt: Itt(1), data: Bytes::new(), ..Default::default() };
    assert_eq!(after(&whole(&nop.into())), LinkError::NotLogin(Opcode::NopOut));
    let hello = IserHeader::Hello(Hello { max_version: 10, min_version: 10, ird: 1 }).encode();
    assert!(matches!(after(&hello), LinkError::Protocol(_)));
    // A length field far beyond the message.
    let mut long = login.clone();
    long[28 + 5..28 + 8].copy_from_slice(&[0xff; 3]);
    assert!(matches!(after(&long), LinkError::Protocol(_)));
    let mut tail = login.clone();
    tail.extend([0; 4]);
    assert!(matches!(after(&tail), LinkError::Protocol(_)));
}

#[test]
fn the_end_of_the_connection_is_told() {
    let now = Instant::now();
    let (mut ini, mut tgt, wire) = links(MemConfig::default());
    poll(&mut *ini, now);
    poll(&mut *tgt, now);
    wire.reset();
    poll(&mut *ini, now);
    assert_eq!(ini.poll_login(), Some(Err(LinkError::Transport(io::ErrorKind::ConnectionReset))));
    assert!(ini.is_flushed());
}

#[test]
fn an_end_between_the_last_response_and_full_feature_phase_is_told() {
    let now = Instant::now();
    let (mut ini, mut tgt, wire) = links(MemConfig::default());
    for link in [&mut ini, &mut tgt] {
        link.notice_key_values(&rdma_keys());
        link.allocate_connection_resources(&Resources::default()).unwrap();
    }
    ini.send_login(request("A=B\0"));
    poll(&mut *ini, now);
    poll(&mut *tgt, now);
    assert!(matches!(tgt.poll_login(), Some(Ok(_))));
    let mut last = response("A=B\0");
    (last.transit, last.nsg) = (true, Stage::FullFeaturePhase);
    let mut tgt = tgt.enable_datamover(Some(last));
    poll(&mut *tgt, now);
    poll(&mut *ini, now);
    assert!(matches!(ini.poll_login(), Some(Ok(Pdu::LoginResponse(_)))));
    wire.reset();
    poll(&mut *ini, now);
    let mut ini = ini.enable_datamover(None);
    poll(&mut *ini, now);
    assert!(matches!(ini.poll_event(), Some(Event::Terminated(_))));
    assert!(ini.poll_event().is_none(), "once");
}
