//! The fields of a PDU as text, named as in the structs: what the tables of vectors are compared with.

use bytes::Bytes;
use iscsi_pdu::*;

/// A field as text.
pub trait Show {
    fn show(&self) -> String;
}

macro_rules! numbers {
    ($($t:ty: $f:expr),* $(,)?) => {
        $( impl Show for $t {
            fn show(&self) -> String { ($f(self) as u64).to_string() }
        } )*
    };
}
numbers! {
    bool: |b: &bool| *b, u8: |n: &u8| *n, u16: |n: &u16| *n, u32: |n: &u32| *n,
    Itt: |t: &Itt| t.0, Ttt: |t: &Ttt| t.0, SnackTag: |t: &SnackTag| t.0,
    CmdSn: |n: &CmdSn| n.0, StatSn: |n: &StatSn| n.0, DataSn: |n: &DataSn| n.0, R2tSn: |n: &R2tSn| n.0,
    Tsih: |t: &Tsih| t.0, Cid: |c: &Cid| c.0, Lun: |l: &Lun| u64::from_be_bytes(l.0),
    TaskAttr: |c: &TaskAttr| c.0, ScsiStatus: |c: &ScsiStatus| c.0, ServiceResponse: |c: &ServiceResponse| c.0,
    TaskMgmtFunction: |c: &TaskMgmtFunction| c.0, TaskMgmtStatus: |c: &TaskMgmtStatus| c.0,
    Stage: |c: &Stage| c.0, LogoutReason: |c: &LogoutReason| c.0, LogoutStatus: |c: &LogoutStatus| c.0,
    SnackType: |c: &SnackType| c.0, AsyncEvent: |c: &AsyncEvent| c.0, RejectReason: |c: &RejectReason| c.0,
}

impl<const N: usize> Show for [u8; N] {
    fn show(&self) -> String {
        hex::encode(self)
    }
}

impl Show for Isid {
    fn show(&self) -> String {
        hex::encode(self.0)
    }
}

impl Show for Option<ScsiStatus> {
    fn show(&self) -> String {
        self.map_or("-".to_string(), |s| s.0.to_string())
    }
}

impl Show for Residual {
    fn show(&self) -> String {
        match self {
            Residual::None => "-".to_string(),
            Residual::Overflow(n) => format!("over {n}"),
            Residual::Underflow(n) => format!("under {n}"),
        }
    }
}

impl Show for Vec<Ahs> {
    fn show(&self) -> String {
        let list: Vec<String> = self
            .iter()
            .map(|a| match a {
                Ahs::ExtendedCdb(cdb) => format!("cdb {}", hex::encode(cdb)),
                Ahs::BidirectionalReadLength(n) => format!("read {n}"),
                other => format!("{other:?}"),
            })
            .collect();
        if list.is_empty() { "-".to_string() } else { list.join(", ") }
    }
}

/// All fields of a PDU but its data, in the order of its struct.
pub fn fields(pdu: &Pdu<Bytes>) -> Vec<(&'static str, String)> {
    // Destructuring without `..` makes a forgotten field a compile error.
    macro_rules! pdus {
        ($($with:ident { $($w:ident),* })*; $($without:ident { $($o:ident),* })*) => {
            match pdu {
                $( Pdu::$with($with { $($w,)* data: _ }) => vec![$((stringify!($w), $w.show())),*], )*
                $( Pdu::$without($without { $($o),* }) => vec![$((stringify!($o), $o.show())),*], )*
                other => panic!("{other:?}"),
            }
        };
    }
    pdus! {
        NopOut { immediate, lun, itt, ttt, cmd_sn, exp_stat_sn }
        ScsiCommand {
            immediate, final_pdu, read, write, attr, priority, lun, itt, expected_data_transfer_length, cmd_sn,
            exp_stat_sn, cdb, ahs
        }
        LoginRequest {
            transit, continue_text, csg, nsg, version_max, version_min, isid, tsih, itt, cid, cmd_sn, exp_stat_sn
        }
        TextRequest { immediate, final_pdu, continue_text, lun, itt, ttt, cmd_sn, exp_stat_sn }
        DataOut { final_pdu, lun, itt, ttt, exp_stat_sn, data_sn, buffer_offset }
        NopIn { lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn }
        ScsiResponse {
            response, status, status_qualifier, itt, snack_tag, stat_sn, exp_cmd_sn, max_cmd_sn, exp_data_sn,
            residual, bidirectional_read_residual
        }
        LoginResponse {
            transit, continue_text, csg, nsg, version_max, version_active, isid, tsih, itt, stat_sn, exp_cmd_sn,
            max_cmd_sn, status_class, status_detail
        }
        TextResponse { final_pdu, continue_text, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn }
        DataIn {
            final_pdu, acknowledge, status, residual, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn,
            buffer_offset
        }
        AsyncMessage {
            lun, stat_sn, exp_cmd_sn, max_cmd_sn, event, vendor_code, parameter1, parameter2, parameter3
        }
        Reject { reason, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn };
        TaskMgmtRequest {
            immediate, function, lun, itt, referenced_task_tag, cmd_sn, exp_stat_sn, ref_cmd_sn, exp_data_sn
        }
        LogoutRequest { immediate, reason, itt, cid, cmd_sn, exp_stat_sn }
        Snack { kind, lun, itt, ttt_or_snack_tag, exp_stat_sn, beg_run, run_length }
        TaskMgmtResponse { response, additional_response_information, itt, stat_sn, exp_cmd_sn, max_cmd_sn }
        LogoutResponse { response, itt, stat_sn, exp_cmd_sn, max_cmd_sn, time2wait, time2retain }
        R2t {
            lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, r2t_sn, buffer_offset, desired_data_transfer_length
        }
    }
}
