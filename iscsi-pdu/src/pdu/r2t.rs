//! Ready To Transfer (RFC 7143 section 11.8).

use crate::{CmdSn, Itt, Lun, R2tSn, StatSn, Ttt};

/// Ready To Transfer (RFC 7143 section 11.8).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct R2t {
    /// Logical unit of the command.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag that the Data-Out PDUs must copy; never [`Ttt::NONE`].
    pub ttt: Ttt,
    /// StatSN: the next value, not consumed.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// R2TSN within the command, from 0.
    pub r2t_sn: R2tSn,
    /// Offset of the wanted data within the task's output buffer, in bytes.
    pub buffer_offset: u32,
    /// Desired Data Transfer Length in bytes, 1 to MaxBurstLength.
    pub desired_data_transfer_length: u32,
}
