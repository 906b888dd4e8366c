//! What the benches encode and decode.

use bytes::Bytes;
use iscsi_pdu::*;

/// One PDU of each opcode as it occurs in a busy session.
pub(crate) fn pdus() -> Vec<Pdu> {
    let sense =
        SenseData { sense: Bytes::from_static(&[0x70; 18]), rest: Bytes::new() }.to_segment().unwrap();
    let text = Bytes::from_static(b"SendTargets=All\0");
    vec![
        NopOut::ping(Itt(7), Bytes::new()).into(),
        ScsiCommand {
            final_pdu: true,
            read: true,
            expected_data_transfer_length: 4096,
            ..Default::default()
        }
        .into(),
        TaskMgmtRequest { function: TaskMgmtFunction::AbortTask, ..Default::default() }.into(),
        LoginRequest { data: text.clone(), ..Default::default() }.into(),
        TextRequest { data: text.clone(), final_pdu: true, ..Default::default() }.into(),
        DataOut { data: Bytes::from_static(&[0x5a; 512]), ttt: Ttt(1), ..Default::default() }.into(),
        LogoutRequest::default().into(),
        Snack::data_r2t(Itt(1), 2, 3).into(),
        NopIn::default().into(),
        ScsiResponse { status: ScsiStatus::CheckCondition, data: sense, ..Default::default() }.into(),
        TaskMgmtResponse::default().into(),
        LoginResponse { data: text.clone(), ..Default::default() }.into(),
        TextResponse { data: text, final_pdu: true, ..Default::default() }.into(),
        DataIn {
            final_pdu: true,
            status: Some(ScsiStatus::Good),
            data: Bytes::from_static(&[0x5a; 512]),
            ..Default::default()
        }
        .into(),
        LogoutResponse::default().into(),
        R2t { ttt: Ttt(1), desired_data_transfer_length: 65_536, ..Default::default() }.into(),
        AsyncMessage { event: AsyncEvent::LogoutRequest, parameter3: 10, ..Default::default() }.into(),
        Reject {
            reason: RejectReason::ProtocolError,
            data: Bytes::from_static(&[0; 48]),
            ..Default::default()
        }
        .into(),
    ]
}
