//! Any PDU that can be sent, in the canonical form in which it is received.

use bytes::Bytes;
use iscsi_pdu::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// A sequence number or tag: anything, with the ends of the range more often than chance has them.
fn num() -> impl Strategy<Value = u32> {
    prop_oneof![4 => any::<u32>(), 1 => 0..4_u32, 1 => (0..4_u32).prop_map(|n| u32::MAX - n)]
}

fn itt() -> impl Strategy<Value = Itt> {
    num().prop_map(Itt)
}

fn valid_itt() -> impl Strategy<Value = Itt> {
    (0..u32::MAX).prop_map(Itt)
}

fn ttt() -> impl Strategy<Value = Ttt> {
    num().prop_map(Ttt)
}

fn cmd_sn() -> impl Strategy<Value = CmdSn> {
    num().prop_map(CmdSn)
}

fn stat_sn() -> impl Strategy<Value = StatSn> {
    num().prop_map(StatSn)
}

fn data_sn() -> impl Strategy<Value = DataSn> {
    num().prop_map(DataSn)
}

fn lun() -> impl Strategy<Value = Lun> {
    prop_oneof![Just(Lun::ZERO), any::<[u8; 8]>().prop_map(Lun)]
}

/// The LUN that goes with a tag: none without one.
fn lun_for(ttt: Ttt, lun: Lun) -> Lun {
    if ttt.is_none() { Lun::ZERO } else { lun }
}

pub fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![2 => Just(Bytes::new()), 5 => vec(any::<u8>(), 1..70).prop_map(Bytes::from)]
}

fn residual() -> impl Strategy<Value = Residual> {
    prop_oneof![
        Just(Residual::None),
        any::<u32>().prop_map(Residual::Overflow),
        any::<u32>().prop_map(Residual::Underflow)
    ]
}

fn isid() -> impl Strategy<Value = Isid> {
    any::<[u8; 6]>().prop_map(|mut b| {
        if b[0] >= 0xc0 {
            b[0] -= 0xc0;
        }
        Isid(b)
    })
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![
        Just(Stage::SecurityNegotiation),
        Just(Stage::LoginOperationalNegotiation),
        Just(Stage::FullFeaturePhase)
    ]
}

/// T and C (or F and C), which exclude each other.
fn exclusive() -> impl Strategy<Value = (bool, bool)> {
    prop_oneof![Just((false, false)), Just((true, false)), Just((false, true))]
}

prop_compose! {
    fn nop_out()(
        (lun, itt, ttt, immediate) in (lun(), itt(), ttt(), any::<bool>()),
        (cmd_sn, exp_stat_sn, data) in (cmd_sn(), stat_sn(), data()),
    ) -> Pdu {
        NopOut { immediate: immediate || itt.is_none(), lun, itt, ttt, cmd_sn, exp_stat_sn, data }.into()
    }
}

prop_compose! {
    fn scsi_command()(
        (immediate, final_pdu, read, write) in any::<(bool, bool, bool, bool)>(),
        (attr, priority, lun, itt) in (0..=4_u8, 0..=15_u8, lun(), valid_itt()),
        (edtl, cmd_sn, exp_stat_sn, cdb) in (num(), cmd_sn(), stat_sn(), any::<[u8; 16]>()),
        (long, read_length, order) in
            (prop_oneof![3 => Just(vec![]), 1 => vec(any::<u8>(), 1..245)], any::<u32>(), any::<bool>()),
        data in data(),
    ) -> Pdu {
        let mut ahs = Vec::new();
        if !long.is_empty() {
            ahs.push(Ahs::ExtendedCdb(long.into()));
        }
        if read && write {
            ahs.insert(if order { 0 } else { ahs.len() }, Ahs::BidirectionalReadLength(read_length));
        }
        ScsiCommand {
            immediate,
            final_pdu: final_pdu || !write,
            read,
            write,
            attr: TaskAttr(attr),
            priority,
            lun,
            itt,
            expected_data_transfer_length: if read || write { edtl } else { 0 },
            cmd_sn,
            exp_stat_sn,
            cdb,
            ahs,
            data,
        }
        .into()
    }
}

prop_compose! {
    fn task_mgmt_request()(
        (immediate, function, lun, itt) in (any::<bool>(), 0..=0x7f_u8, lun(), itt()),
        short in 0..=13_u8,
        pick in any::<bool>(),
        (referenced, cmd_sn, exp_stat_sn) in (itt(), cmd_sn(), stat_sn()),
        (ref_cmd_sn, exp_data_sn) in (cmd_sn(), data_sn()),
    ) -> Pdu {
        let n = if pick { short } else { function };
        let unknown = !(1..=12).contains(&n);
        TaskMgmtRequest {
            immediate,
            function: TaskMgmtFunction(n),
            lun: if matches!(n, 6 | 7 | 8 | 11) { Lun::ZERO } else { lun },
            itt,
            referenced_task_tag: if matches!(n, 1 | 8 | 9) || unknown { referenced } else { Itt::NONE },
            cmd_sn,
            exp_stat_sn,
            ref_cmd_sn: if matches!(n, 1 | 9) || unknown { ref_cmd_sn } else { CmdSn(0) },
            exp_data_sn: if n == 8 || unknown { exp_data_sn } else { DataSn(0) },
        }
        .into()
    }
}

prop_compose! {
    fn login_request()(
        ((transit, continue_text), csg, nsg) in (exclusive(), stage(), stage()),
        (version_max, version_min, isid, tsih) in (any::<u8>(), any::<u8>(), isid(), any::<u16>()),
        (itt, cid, cmd_sn, exp_stat_sn, data) in (itt(), any::<u16>(), cmd_sn(), stat_sn(), data()),
    ) -> Pdu {
        let nsg = if transit { nsg } else { Stage(0) };
        let (tsih, cid) = (Tsih(tsih), Cid(cid));
        LoginRequest {
            transit, continue_text, csg, nsg, version_max, version_min, isid, tsih, itt, cid, cmd_sn, exp_stat_sn,
            data,
        }
        .into()
    }
}

prop_compose! {
    fn text_request()(
        ((final_pdu, continue_text), immediate) in (exclusive(), any::<bool>()),
        (lun, itt, ttt) in (lun(), itt(), ttt()),
        (cmd_sn, exp_stat_sn, data) in (cmd_sn(), stat_sn(), data()),
    ) -> Pdu {
        let lun = lun_for(ttt, lun);
        TextRequest { immediate, final_pdu, continue_text, lun, itt, ttt, cmd_sn, exp_stat_sn, data }.into()
    }
}

prop_compose! {
    fn data_out()(
        (final_pdu, lun, itt, ttt) in (any::<bool>(), lun(), valid_itt(), ttt()),
        (exp_stat_sn, data_sn, buffer_offset, data) in (stat_sn(), data_sn(), num(), data()),
    ) -> Pdu {
        let lun = lun_for(ttt, lun);
        DataOut { final_pdu, lun, itt, ttt, exp_stat_sn, data_sn, buffer_offset, data }.into()
    }
}

prop_compose! {
    fn logout_request()(
        (immediate, reason, cid) in (any::<bool>(), 0..=2_u8, any::<u16>()),
        (itt, cmd_sn, exp_stat_sn) in (itt(), cmd_sn(), stat_sn()),
    ) -> Pdu {
        let cid = if reason == 0 { Cid(0) } else { Cid(cid) };
        LogoutRequest { immediate, reason: LogoutReason(reason), itt, cid, cmd_sn, exp_stat_sn }.into()
    }
}

prop_compose! {
    fn snack()(
        (kind, lun, itt, tag) in (0..=3_u8, lun(), valid_itt(), ttt()),
        snack_tag in 1..u32::MAX,
        (exp_stat_sn, beg_run, run_length) in (stat_sn(), num(), num()),
    ) -> Pdu {
        let blank = Snack { kind: SnackType(kind), exp_stat_sn, ..Default::default() };
        match kind {
            0 => Snack { itt, beg_run, run_length, ..blank },
            1 => Snack { beg_run, run_length, ..blank },
            2 => Snack { lun, ttt_or_snack_tag: tag, beg_run, ..blank },
            _ => Snack { itt, ttt_or_snack_tag: Ttt(snack_tag), ..blank },
        }
        .into()
    }
}

prop_compose! {
    fn nop_in()(
        (lun, itt, ttt, ping) in (lun(), itt(), ttt(), any::<bool>()),
        (stat_sn, exp_cmd_sn, max_cmd_sn, data) in (stat_sn(), cmd_sn(), cmd_sn(), data()),
    ) -> Pdu {
        let (itt, ttt) = if ping { (Itt::NONE, ttt) } else { (itt, Ttt::NONE) };
        NopIn { lun: lun_for(ttt, lun), itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data }.into()
    }
}

prop_compose! {
    fn scsi_response()(
        (response, status, status_qualifier, itt) in (any::<u8>(), any::<u8>(), any::<u16>(), itt()),
        (snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn) in (num(), stat_sn(), cmd_sn(), cmd_sn()),
        (exp_data_sn, residual, bidirectional_read_residual, data) in
            (data_sn(), residual(), residual(), data()),
    ) -> Pdu {
        let (response, status, snack_tag) = (ServiceResponse(response), ScsiStatus(status), SnackTag(snack_tag));
        ScsiResponse {
            response, status, status_qualifier, itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn, exp_data_sn,
            residual, bidirectional_read_residual, data,
        }
        .into()
    }
}

prop_compose! {
    fn task_mgmt_response()(
        (response, additional_response_information, itt) in (any::<u8>(), any::<[u8; 3]>(), itt()),
        (stat_sn, exp_cmd_sn, max_cmd_sn) in (stat_sn(), cmd_sn(), cmd_sn()),
    ) -> Pdu {
        let response = TaskMgmtStatus(response);
        TaskMgmtResponse { response, additional_response_information, itt, stat_sn, exp_cmd_sn, max_cmd_sn }.into()
    }
}

prop_compose! {
    fn login_response()(
        ((transit, continue_text), csg, nsg) in (exclusive(), stage(), stage()),
        (version_max, version_active, isid, tsih) in (any::<u8>(), any::<u8>(), any::<[u8; 6]>(), any::<u16>()),
        (itt, stat_sn, exp_cmd_sn, max_cmd_sn) in (itt(), stat_sn(), cmd_sn(), cmd_sn()),
        (status_class, status_detail, data) in (prop_oneof![Just(0), any::<u8>()], any::<u8>(), data()),
    ) -> Pdu {
        let transit = transit && status_class == 0;
        let csg = if status_class == 0 { csg } else { Stage(0) };
        let nsg = if transit { nsg } else { Stage(0) };
        let (isid, tsih) = (Isid(isid), Tsih(tsih));
        LoginResponse {
            transit, continue_text, csg, nsg, version_max, version_active, isid, tsih, itt, stat_sn, exp_cmd_sn,
            max_cmd_sn, status_class, status_detail, data,
        }
        .into()
    }
}

prop_compose! {
    fn text_response()(
        ((final_pdu, continue_text), lun, itt, ttt) in (exclusive(), lun(), itt(), ttt()),
        (stat_sn, exp_cmd_sn, max_cmd_sn, data) in (stat_sn(), cmd_sn(), cmd_sn(), data()),
    ) -> Pdu {
        let lun = lun_for(ttt, lun);
        TextResponse { final_pdu, continue_text, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data }.into()
    }
}

prop_compose! {
    fn data_in()(
        (final_pdu, acknowledge, status, with_status) in any::<(bool, bool, u8, bool)>(),
        (residual, lun, itt, ttt) in (residual(), lun(), valid_itt(), ttt()),
        (stat_sn, exp_cmd_sn, max_cmd_sn) in (stat_sn(), cmd_sn(), cmd_sn()),
        (data_sn, buffer_offset, data) in (data_sn(), num(), data()),
    ) -> Pdu {
        DataIn {
            final_pdu: final_pdu || with_status,
            acknowledge,
            status: with_status.then_some(ScsiStatus(status)),
            residual: if with_status { residual } else { Residual::None },
            lun: if acknowledge { lun } else { Lun::ZERO },
            itt,
            ttt: if acknowledge { ttt } else { Ttt::NONE },
            stat_sn: if with_status { stat_sn } else { StatSn(0) },
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            buffer_offset,
            data,
        }
        .into()
    }
}

prop_compose! {
    fn logout_response()(
        (response, itt, time2wait, time2retain) in (any::<u8>(), itt(), any::<u16>(), any::<u16>()),
        (stat_sn, exp_cmd_sn, max_cmd_sn) in (stat_sn(), cmd_sn(), cmd_sn()),
    ) -> Pdu {
        let response = LogoutStatus(response);
        LogoutResponse { response, itt, stat_sn, exp_cmd_sn, max_cmd_sn, time2wait, time2retain }.into()
    }
}

prop_compose! {
    fn r2t()(
        (lun, itt, ttt) in (lun(), valid_itt(), ttt()),
        (stat_sn, exp_cmd_sn, max_cmd_sn) in (stat_sn(), cmd_sn(), cmd_sn()),
        (r2t_sn, buffer_offset, desired_data_transfer_length) in (num().prop_map(R2tSn), num(), num()),
    ) -> Pdu {
        R2t {
            lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset, desired_data_transfer_length,
        }
        .into()
    }
}

prop_compose! {
    fn async_message()(
        (lun, event, vendor_code) in (lun(), prop_oneof![0..=5_u8, any::<u8>()], any::<u8>()),
        (stat_sn, exp_cmd_sn, max_cmd_sn) in (stat_sn(), cmd_sn(), cmd_sn()),
        (parameter1, parameter2, parameter3) in any::<(u16, u16, u16)>(),
        data in data(),
    ) -> Pdu {
        let with_data = !data.is_empty();
        let data = SenseData { sense: Bytes::new(), rest: data }.to_segment().unwrap();
        AsyncMessage {
            lun: if (1..=4).contains(&event) { Lun::ZERO } else { lun },
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            event: AsyncEvent(event),
            vendor_code: if event >= 248 { vendor_code } else { 0 },
            parameter1,
            parameter2,
            parameter3,
            data: if with_data { data } else { Bytes::new() },
        }
        .into()
    }
}

prop_compose! {
    fn reject()(
        (reason, data) in (any::<u8>(), data()),
        (stat_sn, exp_cmd_sn, max_cmd_sn, data_sn) in (stat_sn(), cmd_sn(), cmd_sn(), data_sn()),
    ) -> Pdu {
        let reason = if reason == 0x0b { RejectReason::ProtocolError } else { RejectReason(reason) };
        Reject { reason, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, data }.into()
    }
}

// The strategies are boxed: 18 value trees side by side overflow the stack of a test thread.

/// Any PDU that an initiator may send.
pub fn request() -> impl Strategy<Value = Pdu> {
    prop_oneof![
        nop_out().boxed(),
        scsi_command().boxed(),
        task_mgmt_request().boxed(),
        login_request().boxed(),
        text_request().boxed(),
        data_out().boxed(),
        logout_request().boxed(),
        snack().boxed()
    ]
}

/// Any PDU that a target may send.
pub fn response() -> impl Strategy<Value = Pdu> {
    prop_oneof![
        nop_in().boxed(),
        scsi_response().boxed(),
        task_mgmt_response().boxed(),
        login_response().boxed(),
        text_response().boxed(),
        data_in().boxed(),
        logout_response().boxed(),
        r2t().boxed(),
        async_message().boxed(),
        reject().boxed()
    ]
}

/// Any PDU.
pub fn pdu() -> impl Strategy<Value = Pdu> {
    prop_oneof![request().boxed(), response().boxed()]
}
