//! Task Management Function Request and Response (RFC 7143 sections 11.5, 11.6; RFC 7144 section 4).
//!
//! Task Management Function Request:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|I| 0x02      |1| Function    | Reserved                      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------+---------------+---------------+---------------+
//!   8| Logical Unit Number (LUN) or Reserved                         |
//!    +                                                               +
//!  12|                                                               |
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| Referenced Task Tag or 0xffffffff                             |
//!    +---------------+---------------+---------------+---------------+
//!  24| CmdSN                                                         |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpStatSN                                                     |
//!    +---------------+---------------+---------------+---------------+
//!  32| RefCmdSN or Reserved                                          |
//!    +---------------+---------------+---------------+---------------+
//!  36| ExpDataSN or Reserved                                         |
//!    +---------------+---------------+---------------+---------------+
//!  40/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```
//!
//! Task Management Function Response:
//!
//! ```text
//!  Byte/     0       |       1       |       2       |       3       |
//!     /              |               |               |               |
//!    |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//!    +---------------+---------------+---------------+---------------+
//!   0|.|.| 0x22      |1| Reserved    | Response      | Reserved      |
//!    +---------------+---------------+---------------+---------------+
//!   4|TotalAHSLength | DataSegmentLength                             |
//!    +---------------------------------------------------------------+
//!   8/ Reserved                                                      /
//!    /                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  16| Initiator Task Tag                                            |
//!    +---------------+---------------+---------------+---------------+
//!  20| Reserved                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  24| StatSN                                                        |
//!    +---------------+---------------+---------------+---------------+
//!  28| ExpCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  32| MaxCmdSN                                                      |
//!    +---------------+---------------+---------------+---------------+
//!  36/ Reserved                                                      /
//!   +/                                                               /
//!    +---------------+---------------+---------------+---------------+
//!  48| Header-Digest (optional)                                      |
//!    +---------------+---------------+---------------+---------------+
//! ```

use crate::bhs::code;
use crate::error::Rule;
use crate::leaf::{Emit, Parsed, arr, bit, cmd_sn, data_sn, itt, lun, no_segments, skip, stat_sn};
use crate::{BHS_LEN, CmdSn, DataSn, Itt, Lun, Opcode, SegmentLen, StatSn};
use nom::Parser;

code! {
    /// Task management function (RFC 7143 section 11.5.1, RFC 7144 section 4.1); seven bits.
    TaskMgmtFunction {
        /// ABORT TASK.
        1 => AbortTask,
        /// ABORT TASK SET.
        2 => AbortTaskSet,
        /// CLEAR ACA.
        3 => ClearAca,
        /// CLEAR TASK SET.
        4 => ClearTaskSet,
        /// LOGICAL UNIT RESET.
        5 => LogicalUnitReset,
        /// TARGET WARM RESET.
        6 => TargetWarmReset,
        /// TARGET COLD RESET.
        7 => TargetColdReset,
        /// TASK REASSIGN.
        8 => TaskReassign,
        /// QUERY TASK (RFC 7144).
        9 => QueryTask,
        /// QUERY TASK SET (RFC 7144).
        10 => QueryTaskSet,
        /// I_T NEXUS RESET (RFC 7144).
        11 => ItNexusReset,
        /// QUERY ASYNCHRONOUS EVENT (RFC 7144).
        12 => QueryAsynchronousEvent,
    }
}

code! {
    /// Task management response (RFC 7143 section 11.6.1, RFC 7144 section 4.2).
    TaskMgmtStatus {
        /// Function complete.
        0 => FunctionComplete,
        /// Task does not exist.
        1 => TaskDoesNotExist,
        /// LUN does not exist.
        2 => LunDoesNotExist,
        /// Task still allegiant.
        3 => TaskStillAllegiant,
        /// Task allegiance reassignment not supported.
        4 => ReassignmentNotSupported,
        /// Task management function not supported.
        5 => FunctionNotSupported,
        /// Function authorization failed.
        6 => AuthorizationFailed,
        /// Function succeeded (RFC 7144).
        7 => FunctionSucceeded,
        /// Function rejected.
        255 => FunctionRejected,
    }
}

/// Task Management Function Request (RFC 7143 section 11.5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskMgmtRequest {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// Function.
    pub function: TaskMgmtFunction,
    /// Logical unit, for the functions that name one.
    pub lun: Lun,
    /// Initiator Task Tag of this function.
    pub itt: Itt,
    /// Tag of the task that ABORT TASK, TASK REASSIGN and QUERY TASK name, else [`Itt::NONE`].
    pub referenced_task_tag: Itt,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// CmdSN of the referenced task (ABORT TASK, QUERY TASK).
    pub ref_cmd_sn: CmdSn,
    /// Next expected DataSN of the referenced task (TASK REASSIGN of a command with input).
    pub exp_data_sn: DataSn,
}

/// Task Management Function Response (RFC 7143 section 11.6).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskMgmtResponse {
    /// Response.
    pub response: TaskMgmtStatus,
    /// Additional Response Information, 24 bits (RFC 7144 section 4.2); 0 below iSCSIProtocolLevel 2.
    pub additional_response_information: [u8; 3],
    /// Initiator Task Tag of the function.
    pub itt: Itt,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
}

const I: u8 = 0x40;
const FINAL: u8 = 0x80;

impl TaskMgmtFunction {
    /// Whether the function is about the logical unit that the LUN field names; true of codes the RFCs do not know.
    // req: 7143-11.5.3-1, 7144-6.3.1-1
    #[must_use]
    pub const fn names_lun(self) -> bool {
        !matches!(
            self,
            Self::TargetWarmReset | Self::TargetColdReset | Self::TaskReassign | Self::ItNexusReset
        )
    }

    /// Whether the function is about the task that the Referenced Task Tag names; true of codes the RFCs do not
    /// know.
    // req: 7143-11.5.4-1, 7144-6.3.2-1
    #[must_use]
    pub const fn names_task(self) -> bool {
        matches!(self, Self::AbortTask | Self::TaskReassign | Self::QueryTask) || self.name().is_none()
    }
}

impl TaskMgmtRequest {
    /// With the fields that the function gives no meaning at their reserved values.
    fn canonical(&self) -> Self {
        let mut pdu = self.clone();
        if !pdu.function.names_lun() {
            pdu.lun = Lun::ZERO;
        }
        if !pdu.function.names_task() {
            pdu.referenced_task_tag = Itt::NONE;
        }
        if !pdu.function.names_task() || pdu.function == TaskMgmtFunction::TaskReassign {
            pdu.ref_cmd_sn = CmdSn(0);
        }
        if pdu.function != TaskMgmtFunction::TaskReassign && pdu.function.name().is_some() {
            pdu.exp_data_sn = DataSn(0);
        }
        pdu
    }

    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        if self.function.0 & FINAL != 0 {
            return Err(Rule::FieldWidth);
        }
        let pdu = self.canonical();
        Emit::new(bhs)
            .put([bit(pdu.immediate, I) | Opcode::TaskMgmtRequest.0, FINAL | pdu.function.0, 0, 0])
            .segment_len(SegmentLen::default())
            .put(pdu.lun.0)
            .be32(pdu.itt.0)
            .be32(pdu.referenced_task_tag.0)
            .be32(pdu.cmd_sn.0)
            .be32(pdu.exp_stat_sn.0)
            .be32(pdu.ref_cmd_sn.0)
            .be32(pdu.exp_data_sn.0)
            .zero::<8>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ([b0, b1, ..], (), lun, itt, referenced, cmd_sn, exp_stat_sn, ref_cmd_sn, exp_data_sn)) =
            (arr::<4>, no_segments, lun, itt, itt, cmd_sn, stat_sn, cmd_sn, data_sn).parse(i)?;
        let pdu = Self {
            immediate: b0 & I != 0,
            function: TaskMgmtFunction(b1 & !FINAL),
            lun,
            itt,
            referenced_task_tag: referenced,
            cmd_sn,
            exp_stat_sn,
            ref_cmd_sn,
            exp_data_sn,
        };
        Ok((i, pdu.canonical()))
    }
}

impl TaskMgmtResponse {
    #[inline(never)]
    pub(crate) fn emit(&self, bhs: &mut [u8; BHS_LEN]) -> Result<(), Rule> {
        Emit::new(bhs)
            .put([Opcode::TaskMgmtResponse.0, FINAL, self.response.0, 0])
            .segment_len(SegmentLen::default())
            .put(self.additional_response_information)
            .zero::<5>()
            .be32(self.itt.0)
            .zero::<4>()
            .be32(self.stat_sn.0)
            .be32(self.exp_cmd_sn.0)
            .be32(self.max_cmd_sn.0)
            .zero::<12>()
            .end();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn parse(i: &[u8]) -> Parsed<'_, Self> {
        let (i, ([_, _, response, _], (), additional_response_information, (), itt)) =
            (arr::<4>, no_segments, arr::<3>, skip::<5>, itt).parse(i)?;
        let (i, ((), stat_sn, exp_cmd_sn, max_cmd_sn)) = (skip::<4>, stat_sn, cmd_sn, cmd_sn).parse(i)?;
        let response = TaskMgmtStatus(response);
        Ok((i, Self { response, additional_response_information, itt, stat_sn, exp_cmd_sn, max_cmd_sn }))
    }
}
