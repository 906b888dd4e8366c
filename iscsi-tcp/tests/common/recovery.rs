//! Ends above ErrorRecoveryLevel 0, and what passes between them.

use super::{Peer, pattern, wire};
use bytes::Bytes;
use datamover::{ConnKeys, Control, Event, PutData, Role};
use iscsi_pdu::{
    DataIn, DataSn, Digests, Itt, Lun, Pdu, RejectReason, ScsiResponse, Snack, SnackType, StatSn, Ttt,
};
use std::time::Instant;

pub(crate) const LUN: Lun = Lun([0, 7, 0, 0, 0, 0, 0, 0]);

/// An end at ErrorRecoveryLevel 1 with both digests, but for what `change` changes.
pub(crate) fn peer(role: Role, change: impl FnOnce(&mut ConnKeys)) -> Peer {
    let mut keys = ConnKeys::default();
    keys.error_recovery_level = 1;
    (keys.header_digest, keys.data_digest) = (true, true);
    change(&mut keys);
    Peer::new(role, &keys)
}

/// The `sn`-th ten bytes of `data` for task 1.
pub(crate) fn data_in(sn: u32, data: &Bytes) -> DataIn {
    let at = sn as usize * 10;
    DataIn {
        itt: Itt(1),
        data_sn: DataSn(sn),
        buffer_offset: at as u32,
        data: data.slice(at..at + 10),
        ..DataIn::default()
    }
}

/// Of task 1.
pub(crate) fn response(stat_sn: u32, exp_data_sn: u32) -> ScsiResponse {
    ScsiResponse {
        itt: Itt(1),
        stat_sn: StatSn(stat_sn),
        exp_data_sn: DataSn(exp_data_sn),
        ..ScsiResponse::default()
    }
}

/// Arrives with its last data byte changed.
pub(crate) fn damaged(p: &mut Peer, pdu: impl Into<Pdu>) {
    let mut bytes = wire(&pdu.into(), Digests::BOTH).to_vec();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    p.bytes(&bytes);
}

pub(crate) fn snack(pdu: Pdu) -> Snack {
    if let Pdu::Snack(s) = pdu { s } else { panic!("not a SNACK: {pdu:?}") }
}

pub(crate) fn run(s: &Snack) -> (SnackType, Itt, Ttt, u32, u32) {
    (s.kind, s.itt, s.ttt_or_snack_tag, s.beg_run, s.run_length)
}

pub(crate) fn asks_for(sn: u32, count: u32) -> (SnackType, Itt, Ttt, u32, u32) {
    (SnackType::DataR2t, Itt(1), Ttt::NONE, sn, count)
}

pub(crate) fn input(event: &mut Event) -> Bytes {
    match event {
        Event::Control(Control { pdu: Pdu::ScsiResponse(_), buffers, .. }) => {
            buffers.r#in.take().unwrap().freeze().to_bytes()
        }
        other => panic!("not a response: {other:?}"),
    }
}

pub(crate) fn reason(event: Event) -> RejectReason {
    if let Event::Invalid(i) = event { i.reason } else { panic!("not invalid: {event:?}") }
}

#[expect(clippy::disallowed_methods, reason = "any time will do")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn put(t: &mut Peer, offset: u32, data: Bytes, ack: bool) {
    let data = data.into();
    let put = PutData { itt: Itt(1), lun: LUN, offset, data, resume: None, ack, notify: false };
    t.core.put_data(put).unwrap();
}

pub(crate) fn asks(kind: SnackType, beg_run: u32, run_length: u32) -> Snack {
    let itt = if kind == SnackType::DataAck { Itt::NONE } else { Itt(1) };
    Snack { kind, itt, beg_run, run_length, ..Snack::default() }
}

/// A target that has sent Data-In 0 to 4, the response too if asked.
pub(crate) fn sent_five(respond: bool) -> (Peer, Vec<Pdu>) {
    let mut t = peer(Role::Target, |k| k.max_send_data_segment_length = 512);
    put(&mut t, 0, pattern(1, 2500), false);
    let pdus = t.sent();
    assert_eq!(pdus.len(), 5);
    if respond {
        t.core.send_control(response(7, 0).into()).unwrap();
        assert!(matches!(t.one_sent(), Pdu::ScsiResponse(r) if r.exp_data_sn == DataSn(5)));
    }
    (t, pdus)
}
