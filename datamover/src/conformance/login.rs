//! Before full feature phase (RFC 5047 sections 7.1, 8.4 to 8.6, 8.8).

use super::{PairFactory, final_request, final_response, mirrored, pattern, wait};
use crate::conformance::{End, Ends, drive};
use crate::{LinkError, Resources, Role};
use iscsi_pdu::{LoginRequest, LoginResponse, NopIn, Pdu, Stage};

pub(super) fn login_pdus_both_ways(factory: &dyn PairFactory) {
    let mut links = factory.pair();
    assert_eq!((links.initiator.role(), links.target.role()), (Role::Initiator, Role::Target));
    // The longest segment that a login PDU may have, and lengths that need padding.
    for (n, len) in [0, 1, 2, 3, 4, 47, 512, 4095, 8191, 8192].into_iter().enumerate() {
        let data = pattern(n as u32, len);
        let request = LoginRequest { continue_text: true, data: data.clone(), ..LoginRequest::default() };
        links.initiator.send_login(request.clone().into());
        assert_eq!(links.login_at(true), Ok(request.into()));
        let response = LoginResponse { stat_sn: (n as u32).into(), data, ..LoginResponse::default() };
        links.target.send_login(response.clone().into());
        assert_eq!(links.login_at(false), Ok(response.into()));
    }
    wait("flushed", |cx| {
        let busy = drive(&mut *links.initiator, cx) | drive(&mut *links.target, cx);
        (busy, links.initiator.is_flushed() && links.target.is_flushed())
    });
}

pub(super) fn allocate_is_idempotent(factory: &dyn PairFactory) {
    let mut links = factory.pair();
    let resources = Resources::default();
    for link in [&mut links.initiator, &mut links.target] {
        link.notice_key_values(&factory.keys());
        assert_eq!(link.allocate_connection_resources(&resources), Ok(()));
        let before = link.transport();
        assert_eq!(link.allocate_connection_resources(&Resources { commands: 1, ..resources }), Ok(()));
        assert_eq!(link.transport(), before);
        link.deallocate_connection_resources();
    }
    // And the connection works.
    links.enable(&factory.keys(), &resources).finish();
}

pub(super) fn failed_login_deallocates(factory: &dyn PairFactory) {
    let mut links = factory.pair();
    links.initiator.send_login(final_request().into());
    assert!(links.login_at(true).is_ok());
    links.target.notice_key_values(&mirrored(&factory.keys()));
    links.target.allocate_connection_resources(&Resources::default()).expect("resources");
    let refusal = LoginResponse { status_class: 3, status_detail: 2, ..LoginResponse::default() };
    links.target.send_login(refusal.clone().into());
    links.target.deallocate_connection_resources();
    wait("the refusal to be sent", |cx| (drive(&mut *links.target, cx), links.target.is_flushed()));
    drop(links.target);
    let mut got = Vec::new();
    wait("refusal and end", |cx| {
        let busy = drive(&mut *links.initiator, cx);
        got.extend(links.initiator.poll_login());
        (busy, got.len() == 2)
    });
    assert_eq!(got[0], Ok(refusal.into()));
    assert!(matches!(got[1], Err(LinkError::Closed | LinkError::Transport(_))), "{:?}", got[1]);
}

/// The target is in full feature phase as soon as it has given the final response down; what it sends then arrives
/// after the initiator's switch, not before, and not as a login PDU.
pub(super) fn enable_with_final_response(factory: &dyn PairFactory) {
    let mut links = factory.pair();
    let request = LoginRequest { csg: Stage::SecurityNegotiation, ..LoginRequest::default() };
    links.initiator.send_login(request.into());
    assert!(links.login_at(true).is_ok());
    let resources = Resources::default();
    links.target.notice_key_values(&mirrored(&factory.keys()));
    links.target.allocate_connection_resources(&resources).expect("resources");
    let mut target = links.target.enable_datamover(Some(final_response()));
    let nop = NopIn { stat_sn: 5.into(), data: pattern(5, 333), ..NopIn::default() };
    target.send_control(Pdu::from(nop.clone()).into()).expect("room");
    let mut initiator = links.initiator;
    let mut got = None;
    wait("the final response", |cx| {
        let busy = drive(&mut *initiator, cx) | drive(&mut *target, cx);
        got = initiator.poll_login();
        (busy, got.is_some())
    });
    assert_eq!(got, Some(Ok(final_response().into())));
    for _ in 0..3 {
        wait("one turn", |cx| (drive(&mut *initiator, cx) | drive(&mut *target, cx), true));
        assert_eq!(initiator.poll_login(), None, "the final response is the last login PDU");
    }
    initiator.notice_key_values(&factory.keys());
    initiator.allocate_connection_resources(&resources).expect("resources");
    let initiator = initiator.enable_datamover(None);
    let pools = [initiator.pool().clone(), target.pool().clone()];
    let before = pools.each_ref().map(|p| p.outstanding());
    let mut ends = Ends { i: End::new(initiator), t: End::new(target), pools, before };
    assert_eq!(ends.control_at(false).pdu, nop.into());
    ends.finish();
}

pub(super) fn peer_gone_during_login(factory: &dyn PairFactory) {
    let links = factory.pair();
    let mut target = links.target;
    drop(links.initiator);
    let mut got = None;
    wait("the end of the link", |cx| {
        let busy = drive(&mut *target, cx);
        got = target.poll_login();
        (busy, got.is_some())
    });
    assert!(matches!(got, Some(Err(LinkError::Closed | LinkError::Transport(_)))), "{got:?}");
    assert_eq!(target.poll_login(), None, "told once");
}
