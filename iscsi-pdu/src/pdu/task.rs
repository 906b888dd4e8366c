//! Task Management Function Request and Response (RFC 7143 sections 11.5, 11.6; RFC 7144 section 4).

use crate::{CmdSn, DataSn, Itt, Lun, StatSn, bhs::code};

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
