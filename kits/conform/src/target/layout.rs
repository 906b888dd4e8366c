//! Rules that every PDU of a target has to keep. They are looked at in all cases, and judged at the end of a run.

use crate::case::{Case, Run};
use crate::pdu::{NO_TAG, Pdu, at, before, op};
use crate::verdict::{Failure, Outcome, Stop, skip};

/// What is known when a PDU comes.
pub(super) struct Context {
    /// Our MaxRecvDataSegmentLength.
    pub(super) segment: usize,
    pub(super) level: u32,
    /// iSCSIProtocolLevel.
    pub(super) protocol: u32,
    /// The StatSN that comes next.
    pub(super) stat_sn: Option<u32>,
    pub(super) full_feature: bool,
    pub(super) discovery: bool,
}

struct Row {
    id: &'static str,
    title: &'static str,
    rules: &'static [&'static str],
    /// The PDUs the rule is about.
    about: fn(&Pdu) -> bool,
    kept: fn(&Pdu, &Context) -> bool,
}

/// How often each rule was looked at, and the first PDU that broke it.
#[derive(Default)]
pub(crate) struct Traffic {
    rows: Vec<(u64, u64, Option<Pdu>)>,
}

impl Traffic {
    pub(super) fn see(&mut self, pdu: &Pdu, context: &Context) {
        self.rows.resize(ROWS.len(), (0, 0, None));
        for (row, (looked, broken, first)) in ROWS.iter().zip(&mut self.rows) {
            if !(row.about)(pdu) {
                continue;
            }
            *looked += 1;
            if !(row.kept)(pdu, context) {
                *broken += 1;
                first.get_or_insert_with(|| pdu.clone());
            }
        }
    }

    pub(super) fn judge(&self, row: usize) -> Outcome {
        match self.rows.get(row) {
            None | Some((0, ..)) => skip("no such PDU in this run"),
            Some((_, 0, _)) => Ok(()),
            Some((looked, broken, first)) => Err(Stop::Fail(Failure {
                rule: ROWS[row].rules[0].into(),
                expected: ROWS[row].title.into(),
                seen: format!("{broken} of {looked} PDUs break it, the first is shown"),
                dump: first.as_ref().map(Pdu::dump),
            })),
        }
    }
}

pub(super) fn cases() -> impl Iterator<Item = Case> {
    ROWS.iter().enumerate().map(|(at, row)| Case {
        id: row.id,
        title: row.title,
        rules: row.rules,
        destructive: false,
        run: Run::Layout(at),
    })
}

fn is(pdu: &Pdu, opcode: u8) -> bool {
    pdu.opcode() == opcode
}

fn zero(pdu: &Pdu, from: usize, to: usize) -> bool {
    pdu.bhs[from..to].iter().all(|&b| b == 0)
}

/// Where StatSN is a count of its own: not in data without status, and not in a refused login.
fn numbered(pdu: &Pdu) -> bool {
    match pdu.opcode() {
        op::DATA_IN => pdu.flags() & 1 != 0,
        op::R2T => false,
        op::NOP_IN => pdu.itt() != NO_TAG,
        op::LOGIN_RESPONSE => pdu.byte(at::LOGIN_STATUS) == 0,
        _ => true,
    }
}

fn accepted_login(pdu: &Pdu) -> bool {
    is(pdu, op::LOGIN_RESPONSE) && pdu.byte(at::LOGIN_STATUS) == 0
}

const ROWS: &[Row] = &[
    Row {
        id: "layout-01",
        title: "a target sends opcodes of targets only",
        rules: &["7143-11.2.1.2-2"],
        about: |_| true,
        kept: |p, _| matches!(p.opcode(), 0x20..=0x26 | 0x31 | 0x32 | 0x3c..=0x3f),
    },
    Row {
        id: "layout-02",
        title: "the two upper bits of the first byte are 0",
        rules: &["7143-11-1"],
        about: |_| true,
        kept: |p, _| p.byte(0) & 0xc0 == 0,
    },
    Row {
        id: "layout-03",
        title: "a target sends no additional header segments",
        rules: &["7143-11.2-6"],
        about: |_| true,
        kept: |p, _| p.byte(at::AHS_LEN) == 0,
    },
    Row {
        id: "layout-04",
        title: "DataSegmentLength is within our MaxRecvDataSegmentLength",
        rules: &["7143-11.7.1-2", "7143-13.12-2"],
        about: |_| true,
        kept: |p, c| p.data.len() <= c.segment,
    },
    Row {
        id: "layout-05",
        title: "MaxCmdSN is not below ExpCmdSN - 1",
        rules: &["7143-4.2.2.1-11"],
        about: |p| !is(p, op::LOGIN_RESPONSE) || accepted_login(p),
        kept: |p, _| !before(p.be32(at::MAX_CMD_SN).wrapping_add(1), p.be32(at::EXP_CMD_SN)),
    },
    Row {
        id: "layout-06",
        title: "StatSN counts responses one by one",
        rules: &["7143-4.2.2.2-4", "7143-11.13.4-1"],
        about: numbered,
        kept: |p, c| c.level > 0 || c.stat_sn.is_none_or(|next| p.be32(at::STAT_SN) == next),
    },
    Row {
        id: "layout-07",
        title: "R2T and NOP-In of the target's own accord carry the next StatSN",
        rules: &["7143-11.8.3-1", "7143-11.19.2-1"],
        about: |p| is(p, op::R2T) || is(p, op::NOP_IN) && p.itt() == NO_TAG,
        kept: |p, c| c.level > 0 || c.stat_sn.is_none_or(|next| p.be32(at::STAT_SN) == next),
    },
    Row {
        id: "layout-08",
        title: "SCSI Response: F is 1, reserved bits and bytes are 0",
        rules: &["7143-11-1", "7143-11.4.1-1"],
        about: |p| is(p, op::SCSI_RESPONSE),
        kept: |p, _| p.flags() & 0xe1 == 0x80 && zero(p, 10, 16),
    },
    Row {
        id: "layout-09",
        title: "SCSI Response: O and U exclude each other, o and u as well",
        rules: &["7143-11.4.1-2"],
        about: |p| is(p, op::SCSI_RESPONSE),
        kept: |p, _| p.flags() & 0x18 != 0x18 && p.flags() & 0x06 != 0x06,
    },
    Row {
        id: "layout-10",
        title: "SCSI Response: CHECK CONDITION comes with sense data",
        rules: &["7143-11.4.7-2", "7143-4.6.1.2-1"],
        about: |p| is(p, op::SCSI_RESPONSE) && p.byte(at::RESPONSE) == 0 && p.byte(at::STATUS) == 2,
        kept: |p, _| {
            let length = p.data.first_chunk::<2>().map_or(0, |l| usize::from(u16::from_be_bytes(*l)));
            length >= 8 && p.data.len() >= 2 + length && matches!(p.data[2] & 0x7f, 0x70..=0x73)
        },
    },
    Row {
        id: "layout-11",
        title: "SCSI Response: the Status Qualifier is 0 where iSCSIProtocolLevel is below 2",
        rules: &["7144-5.2.1-1"],
        about: |p| is(p, op::SCSI_RESPONSE),
        kept: |p, c| c.protocol > 1 || zero(p, 8, 10),
    },
    Row {
        id: "layout-12",
        title: "SCSI Response: without O and U the Residual Count is 0",
        rules: &["7143-11.4.5.1-3"],
        about: |p| is(p, op::SCSI_RESPONSE) && p.flags() & 0x06 == 0,
        kept: |p, _| p.be32(at::RESIDUAL) == 0,
    },
    Row {
        id: "layout-13",
        title: "Data-In: reserved bits are 0",
        rules: &["7143-11-1"],
        about: |p| is(p, op::DATA_IN),
        kept: |p, _| p.flags() & 0x38 == 0 && p.byte(2) == 0,
    },
    Row {
        id: "layout-14",
        title: "Data-In: S comes with F, and with a status that is no error",
        rules: &["7143-11.7.3-4", "7143-11.7.3-2"],
        about: |p| is(p, op::DATA_IN) && p.flags() & 1 != 0,
        kept: |p, _| p.flags() & 0x80 != 0 && matches!(p.byte(at::STATUS), 0x00 | 0x04 | 0x10 | 0x14),
    },
    Row {
        id: "layout-15",
        title: "Data-In: O and U only with S, and never both",
        rules: &["7143-11.4.1-2"],
        about: |p| is(p, op::DATA_IN),
        kept: |p, _| p.flags() & 0x06 != 0x06 && (p.flags() & 1 != 0 || p.flags() & 0x06 == 0),
    },
    Row {
        id: "layout-16",
        title: "Data-In: A is 0 at ErrorRecoveryLevel 0",
        rules: &["7143-11.7.2-3"],
        about: |p| is(p, op::DATA_IN),
        kept: |p, c| c.level > 0 || p.flags() & 0x40 == 0,
    },
    Row {
        id: "layout-17",
        title: "Data-In: the Target Transfer Tag is ffffffff without A",
        rules: &["7143-11.7.4-1"],
        about: |p| is(p, op::DATA_IN) && p.flags() & 0x40 == 0,
        kept: |p, _| p.ttt() == NO_TAG,
    },
    Row {
        id: "layout-18",
        title: "R2T: F is 1, no data segment, the rest of the flags and bytes 2 to 3 are 0",
        rules: &["7143-11.8.1-1", "7143-11-1"],
        about: |p| is(p, op::R2T),
        kept: |p, _| p.flags() == 0x80 && zero(p, 2, 4) && p.data_len() == 0,
    },
    Row {
        id: "layout-19",
        title: "R2T: asks for at least one byte, and has a Target Transfer Tag",
        rules: &["7143-11.8.4-1", "7143-11.8.5-1"],
        about: |p| is(p, op::R2T),
        kept: |p, _| p.be32(at::DESIRED) > 0 && p.ttt() != NO_TAG,
    },
    Row {
        id: "layout-20",
        title: "Login Response: reserved bits and bytes are 0",
        rules: &["7143-11-1"],
        about: |p| is(p, op::LOGIN_RESPONSE),
        kept: |p, _| p.flags() & 0x30 == 0 && zero(p, 20, 24) && zero(p, 38, 48),
    },
    Row {
        id: "layout-21",
        title: "Login Response: Version-max and Version-active are 0",
        rules: &["7143-11.13.1-1", "7143-11.13.2-1"],
        about: accepted_login,
        kept: |p, _| p.byte(2) == 0 && p.byte(3) == 0,
    },
    Row {
        id: "layout-22",
        title: "Login Response: C and T exclude each other",
        rules: &["7143-11.13.7-1"],
        about: |p| is(p, op::LOGIN_RESPONSE),
        kept: |p, _| p.flags() & 0xc0 != 0xc0,
    },
    Row {
        id: "layout-23",
        title: "Login Response: T, CSG and NSG are 0 when it refuses",
        rules: &["7143-6.3.1-3"],
        about: |p| is(p, op::LOGIN_RESPONSE) && p.byte(at::LOGIN_STATUS) != 0,
        kept: |p, _| p.flags() & 0x8f == 0,
    },
    Row {
        id: "layout-24",
        title: "Login Response: only statuses of the RFC's table",
        rules: &["7143-11.13.5-7"],
        about: |p| is(p, op::LOGIN_RESPONSE),
        kept: |p, _| matches!(p.be16(at::LOGIN_STATUS), 0 | 0x0101 | 0x0102 | 0x0200..=0x020b | 0x0300..=0x0302),
    },
    Row {
        id: "layout-25",
        title: "Login Responses come only before full feature phase",
        rules: &["7143-4.2.4-2"],
        about: |p| is(p, op::LOGIN_RESPONSE),
        kept: |_, c| !c.full_feature,
    },
    Row {
        id: "layout-26",
        title: "Text Response: the Target Transfer Tag is ffffffff exactly with F",
        rules: &["7143-11.11.1-2", "7143-11.11.1-3", "7143-6.4-8"],
        about: |p| is(p, op::TEXT_RESPONSE),
        kept: |p, _| (p.flags() & 0x80 != 0) == (p.ttt() == NO_TAG),
    },
    Row {
        id: "layout-27",
        title: "Text Response: C and F exclude each other, reserved bits are 0",
        rules: &["7143-11.11.2-1", "7143-11-1"],
        about: |p| is(p, op::TEXT_RESPONSE),
        kept: |p, _| p.flags() & 0xc0 != 0xc0 && p.flags() & 0x3f == 0 && zero(p, 2, 4) && zero(p, 36, 48),
    },
    Row {
        id: "layout-28",
        title: "texts end with a zero byte",
        rules: &["7143-6.1-1"],
        about: |p| {
            matches!(p.opcode(), op::TEXT_RESPONSE | op::LOGIN_RESPONSE)
                && !p.data.is_empty()
                && p.flags() & 0x40 == 0
        },
        kept: |p, _| p.data.last() == Some(&0),
    },
    Row {
        id: "layout-29",
        title: "NOP-In: flags are 80, reserved bytes are 0",
        rules: &["7143-11-1"],
        about: |p| is(p, op::NOP_IN),
        kept: |p, _| p.flags() == 0x80 && zero(p, 2, 4) && zero(p, 36, 48),
    },
    Row {
        id: "layout-30",
        title: "NOP-In: an answer has no Target Transfer Tag, a question has no data",
        rules: &["7143-11.19-3", "7143-11.19-6", "7143-11.19-7"],
        about: |p| is(p, op::NOP_IN),
        kept: |p, _| if p.itt() == NO_TAG { p.data_len() == 0 } else { p.ttt() == NO_TAG },
    },
    Row {
        id: "layout-31",
        title: "Task Management Function Response: no data segment, F is 1, reserved bytes are 0",
        rules: &["7143-11.6.2-1", "7143-11-1"],
        about: |p| is(p, op::TASK_RESPONSE),
        kept: |p, _| {
            p.data_len() == 0
                && p.flags() == 0x80
                && p.byte(3) == 0
                && zero(p, 11, 16)
                && zero(p, 20, 24)
                && zero(p, 36, 48)
        },
    },
    Row {
        id: "layout-32",
        title: "Task Management Function Response: only codes of the RFC's table",
        rules: &["7143-11.6.1-4", "7143-11-3"],
        about: |p| is(p, op::TASK_RESPONSE),
        kept: |p, _| matches!(p.byte(at::RESPONSE), 0..=7 | 255),
    },
    Row {
        id: "layout-33",
        title: "Logout Response: no data segment, F is 1, reserved bytes are 0, a code of the RFC's table",
        rules: &["7143-11.15.2-1", "7143-11.15.1-1", "7143-11-1"],
        about: |p| is(p, op::LOGOUT_RESPONSE),
        kept: |p, _| {
            let fields = p.data_len() == 0 && p.flags() == 0x80 && p.byte(at::RESPONSE) <= 3;
            fields
                && p.byte(3) == 0
                && zero(p, 8, 16)
                && zero(p, 20, 24)
                && zero(p, 36, 40)
                && zero(p, 44, 48)
        },
    },
    Row {
        id: "layout-34",
        title: "Reject: ITT ffffffff, F is 1, and the header of the rejected PDU as data",
        rules: &["7143-11.17-1"],
        about: |p| is(p, op::REJECT),
        kept: |p, _| p.itt() == NO_TAG && p.flags() == 0x80 && p.data.len() >= 48,
    },
    Row {
        id: "layout-35",
        title: "Reject: a reason of the RFC's table, and never the deprecated 0b",
        rules: &["7143-11.17.1-5", "7143-11.17.1-1"],
        about: |p| is(p, op::REJECT),
        kept: |p, _| matches!(p.byte(at::RESPONSE), 0x02..=0x0a | 0x0c),
    },
    Row {
        id: "layout-36",
        title: "Asynchronous Message: ITT ffffffff, F is 1, an event of the RFC's table",
        rules: &["7143-11.9-1", "7143-11-3"],
        about: |p| is(p, op::ASYNC),
        kept: |p, _| {
            p.itt() == NO_TAG && p.flags() == 0x80 && matches!(p.byte(at::ASYNC_EVENT), 0..=5 | 248..=255)
        },
    },
    Row {
        id: "layout-37",
        title: "on a Discovery session only login, text, logout and Reject PDUs come",
        rules: &["7143-7.4.3-1"],
        about: |_| true,
        kept: |p, c| {
            !c.discovery
                || matches!(
                    p.opcode(),
                    op::LOGIN_RESPONSE | op::TEXT_RESPONSE | op::LOGOUT_RESPONSE | op::REJECT
                )
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context {
        segment: 512,
        level: 0,
        protocol: 1,
        stat_sn: Some(7),
        full_feature: true,
        discovery: false,
    };

    fn broken(pdu: &Pdu) -> Vec<&'static str> {
        ROWS.iter().filter(|r| (r.about)(pdu) && !(r.kept)(pdu, &CONTEXT)).map(|r| r.id).collect()
    }

    /// An R2T typed from section 11.8, and with one field at a time out of order.
    #[test]
    fn rows_find_what_is_wrong_in_an_r2t() {
        let right = Pdu::new(op::R2T)
            .set(1, 0x80)
            .set32(20, 5)
            .set32(24, 7)
            .set32(28, 10)
            .set32(32, 9)
            .set32(44, 512);
        assert!(broken(&right).is_empty());
        assert_eq!(broken(&right.clone().set32(24, 8)), ["layout-07"]);
        assert_eq!(broken(&right.clone().set32(44, 0)), ["layout-19"]);
        assert_eq!(broken(&right.clone().set32(32, 8)), ["layout-05"]);
        assert_eq!(broken(&right.clone().set(1, 0)), ["layout-18"]);
        assert_eq!(broken(&right.clone().set(0, 0x71)), ["layout-02"]);
        assert_eq!(broken(&right.set(4, 1)), ["layout-03"]);
    }

    #[test]
    fn sense_data_has_to_come_with_check_condition() {
        let response = Pdu::new(op::SCSI_RESPONSE).set(1, 0x80).set(3, 2).set32(24, 7).set32(32, 9);
        assert_eq!(broken(&response), ["layout-10"]);
        let mut data = vec![0, 18, 0x70];
        data.resize(20, 0);
        assert!(broken(&response.with_data(&data)).is_empty());
    }
}
