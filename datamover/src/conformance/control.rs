//! Control-type PDUs (RFC 5047 sections 5.1, 8.1, 9.1, 10.3, 10.4).

use super::{Command, Ends, PairFactory, pattern};
use crate::{Cause, Full, GetData, IoBuf, PutData, Resources};
use bytes::Bytes;
use iscsi_pdu::{
    Ahs, AsyncEvent, AsyncMessage, Cid, CmdSn, DataOut, DataSn, Itt, LogoutReason, LogoutRequest,
    LogoutResponse, LogoutStatus, Lun, NopIn, NopOut, Pdu, R2t, Reject, RejectReason, ScsiResponse,
    ScsiStatus, Snack, SnackType, StatSn, TaskMgmtFunction, TaskMgmtRequest, TaskMgmtResponse, TextRequest,
    TextResponse, Ttt,
};

fn nop_out(n: u32, len: usize) -> Pdu<Bytes> {
    NopOut { itt: Itt(n), cmd_sn: CmdSn(n), data: pattern(n, len), ..NopOut::default() }.into()
}

fn nop_in(n: u32, len: usize) -> Pdu<Bytes> {
    NopIn { itt: Itt(n), stat_sn: StatSn(n), data: pattern(n, len), ..NopIn::default() }.into()
}

pub(super) fn control_pdus_keep_order(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let lens = [0, 1, 2, 3, 4, 48, 255, 256, 257, 1000, 4096, 8189, 8192];
    let count = 100u32;
    for n in 0..count {
        let len = lens[n as usize % lens.len()];
        ends.i.send(nop_out(n, len));
        ends.t.send(nop_in(n, len));
    }
    for n in 0..count {
        let len = lens[n as usize % lens.len()];
        assert_eq!(ends.control_at(true).pdu, nop_out(n, len));
        assert_eq!(ends.control_at(false).pdu, nop_in(n, len));
    }
    ends.expect_quiet();
    ends.finish();
}

pub(super) fn every_control_pdu(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let requests: Vec<Pdu<Bytes>> = vec![
        NopOut { itt: Itt(1), data: pattern(1, 7), ..NopOut::default() }.into(),
        TaskMgmtRequest {
            immediate: true,
            function: TaskMgmtFunction::AbortTask,
            itt: Itt(2),
            referenced_task_tag: Itt(9),
            ref_cmd_sn: CmdSn(4),
            ..TaskMgmtRequest::default()
        }
        .into(),
        TextRequest {
            final_pdu: true,
            itt: Itt(3),
            data: Bytes::from_static(b"SendTargets=All\0"),
            ..TextRequest::default()
        }
        .into(),
        LogoutRequest {
            reason: LogoutReason::CloseConnection,
            itt: Itt(4),
            cid: Cid(1),
            cmd_sn: CmdSn(7),
            ..LogoutRequest::default()
        }
        .into(),
    ];
    let responses: Vec<Pdu<Bytes>> = vec![
        NopIn { itt: Itt(1), stat_sn: StatSn(1), data: pattern(1, 7), ..NopIn::default() }.into(),
        ScsiResponse {
            itt: Itt(77),
            status: ScsiStatus::CheckCondition,
            stat_sn: StatSn(2),
            data: pattern(2, 20),
            ..ScsiResponse::default()
        }
        .into(),
        TaskMgmtResponse { itt: Itt(2), stat_sn: StatSn(3), ..TaskMgmtResponse::default() }.into(),
        TextResponse {
            final_pdu: true,
            itt: Itt(3),
            stat_sn: StatSn(4),
            data: Bytes::from_static(b"TargetName=iqn.2026-01.org.example:a\0"),
            ..TextResponse::default()
        }
        .into(),
        LogoutResponse {
            response: LogoutStatus::CidNotFound,
            itt: Itt(4),
            stat_sn: StatSn(5),
            time2wait: 3,
            ..LogoutResponse::default()
        }
        .into(),
        AsyncMessage {
            event: AsyncEvent::LogoutRequest,
            stat_sn: StatSn(6),
            parameter3: 10,
            ..AsyncMessage::default()
        }
        .into(),
        Reject {
            reason: RejectReason::ProtocolError,
            stat_sn: StatSn(7),
            data: pattern(7, 48),
            ..Reject::default()
        }
        .into(),
    ];
    for pdu in requests {
        ends.i.send(pdu.clone());
        assert_eq!(ends.control_at(true).pdu, pdu);
    }
    for pdu in responses {
        ends.t.send(pdu.clone());
        let got = ends.control_at(false);
        assert_eq!(got.pdu, pdu);
        assert!(got.buffers.is_none(), "of a task that is not there");
    }
    ends.expect_quiet();
    ends.finish();
    if factory.features().snack {
        let mut keys = factory.keys();
        keys.error_recovery_level = 1;
        let mut ends = factory.pair().enable(&keys, &Resources::default());
        let snack = Snack {
            kind: SnackType::Status,
            exp_stat_sn: StatSn(3),
            beg_run: 3,
            run_length: 1,
            ..Snack::default()
        };
        ends.i.send(snack.clone());
        assert_eq!(ends.control_at(true).pdu, snack.into());
        ends.finish();
    }
}

pub(super) fn command_with_ahs(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    for len in [1, 3, 4, 16, 244] {
        let command = Command {
            ahs: vec![Ahs::ExtendedCdb(pattern(len, len as usize))],
            room: 10,
            out: pattern(1, 8),
            ..Command::read(len, 10)
        };
        // Both AHS types: the command is bidirectional.
        ends.command(&command);
        let list = ends.t.filled(&pattern(len, 10)).freeze();
        ends.t.put(len, 0, list);
        let buffers = ends.respond(len, len);
        assert_eq!(buffers.out.map(|o| o.len()), Some(8));
        assert_eq!(buffers.r#in.map(|i| i.freeze().to_bytes()), Some(pattern(len, 10)));
    }
    ends.finish();
}

pub(super) fn unsolicited_data_out(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let out = pattern(3, 10_000);
    let command = Command { immediate: 1000, unsolicited: 9_000, ..Command::write(3, out.clone()) };
    ends.command(&command);
    let pieces = [(1000usize, 4000usize, false), (5000, 4000, true)];
    for (n, (offset, len, final_pdu)) in pieces.into_iter().enumerate() {
        let pdu = DataOut {
            final_pdu,
            itt: Itt(3),
            data_sn: DataSn(n as u32),
            buffer_offset: offset as u32,
            data: out.slice(offset..offset + len),
            ..DataOut::default()
        };
        ends.i.send(pdu.clone());
        let got = ends.control_at(true);
        assert_eq!((got.pdu, got.buffers.is_none()), (pdu.into(), true));
    }
    // The rest is asked for.
    ends.t.get(3, 9_000, 1000);
    let done = ends.completion();
    assert_eq!((done.offset, done.result), (9_000, Ok(())));
    assert_eq!(done.data.map(|d| d.freeze().to_bytes()), Some(out.slice(9_000..)));
    ends.respond(3, 1);
    ends.finish();
}

/// More than was reserved is handed back, unchanged; once there is room it is taken, and nothing is lost or doubled.
pub(super) fn full_hands_back(factory: &dyn PairFactory) {
    let resources = Resources { commands: 4, unexpected: 4, ..Resources::default() };
    let mut ends = factory.pair().enable(&factory.keys(), &resources);
    let mut sent = 0u32;
    let refused = loop {
        match ends.i.mover.send_control(nop_out(sent, 100).into()) {
            Ok(()) => sent += 1,
            Err(Full(control)) => break control,
        }
        assert!(sent < 100_000, "there is a limit");
    };
    assert!(sent >= 8, "not below what was reserved: {sent}");
    assert_eq!(refused.pdu, nop_out(sent, 100));
    let mut waiting = Some(refused);
    let total = sent + 20;
    for n in 0..total {
        assert_eq!(ends.control_at(true).pdu, nop_out(n, 100));
        while sent < total
            && let Some(control) = waiting.take()
        {
            match ends.i.mover.send_control(control) {
                Ok(()) => {
                    sent += 1;
                    waiting = Some(nop_out(sent, 100).into());
                }
                Err(Full(control)) => {
                    waiting = Some(control);
                    break;
                }
            }
        }
    }
    ends.expect_quiet();
    ends.finish();
}

pub(super) fn target_calls_at_an_initiator(factory: &dyn PairFactory) {
    let mut ends = Ends::new(factory);
    let data = Bytes::from_static(b"x").into();
    let put =
        PutData { itt: Itt(1), lun: Lun::ZERO, offset: 0, data, resume: None, ack: false, notify: false };
    assert!(ends.i.mover.put_data(put).is_err());
    assert!(matches!(ends.end_at(false).cause, Cause::Protocol(_)));
    ends.end_at(true);
    ends.check_leaks();
    let mut ends = Ends::new(factory);
    let into = IoBuf::zeroed(1).into();
    let get = GetData { itt: Itt(1), lun: Lun::ZERO, offset: 0, into, resume: None };
    assert!(ends.i.mover.get_data(get).is_err());
    assert!(matches!(ends.end_at(false).cause, Cause::Protocol(_)));
    ends.check_leaks();
}

pub(super) fn data_pdus_are_no_control(factory: &dyn PairFactory) {
    let wrong: [Pdu<Bytes>; 3] = [
        DataOut { ttt: Ttt(1), ..DataOut::default() }.into(),
        R2t::default().into(),
        NopIn::default().into(),
    ];
    for pdu in wrong {
        let mut ends = Ends::new(factory);
        assert_eq!(ends.i.mover.send_control(pdu.clone().into()).unwrap_err().0.pdu, pdu);
        assert!(matches!(ends.end_at(false).cause, Cause::Protocol(_)));
        ends.check_leaks();
    }
}
