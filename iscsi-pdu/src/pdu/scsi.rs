//! SCSI Command and SCSI Response (RFC 7143 sections 11.3, 11.4).

use crate::{Ahs, CmdSn, DataSn, Itt, Lun, Residual, ScsiStatus, SnackTag, StatSn, TaskAttr, bhs::code};
use alloc::vec::Vec;
use bytes::Bytes;

/// SCSI Command (RFC 7143 section 11.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScsiCommand<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// F bit: no unsolicited Data-Out PDUs follow.
    pub final_pdu: bool,
    /// R bit: the command is expected to input data.
    pub read: bool,
    /// W bit: the command is expected to output data.
    pub write: bool,
    /// ATTR.
    pub attr: TaskAttr,
    /// PRI, 4 bits (RFC 7144 section 3.1); 0 unless iSCSIProtocolLevel is 2 or more.
    pub priority: u8,
    /// Logical unit.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// Expected Data Transfer Length in bytes: of the output when W is set, else of the input.
    pub expected_data_transfer_length: u32,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// CDB bytes 0 to 15; shorter CDBs are zero-filled.
    pub cdb: [u8; 16],
    /// Additional Header Segments.
    pub ahs: Vec<Ahs>,
    /// Immediate data.
    pub data: D,
}

code! {
    /// iSCSI service response (RFC 7143 section 11.4.3).
    ServiceResponse {
        /// Command completed at target.
        0x00 => Completed,
        /// Target failure.
        0x01 => TargetFailure,
    }
}

/// SCSI Response (RFC 7143 section 11.4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScsiResponse<D = Bytes> {
    /// iSCSI service response.
    pub response: ServiceResponse,
    /// SCSI status; valid when `response` is [`ServiceResponse::Completed`].
    pub status: ScsiStatus,
    /// Status Qualifier (RFC 7144 section 3.2); 0 unless iSCSIProtocolLevel is 2 or more.
    pub status_qualifier: u16,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// Tag of the last R-Data SNACK that this response takes into account, else 0.
    pub snack_tag: SnackTag,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// Number of Data-In PDUs that the target sent for the command.
    pub exp_data_sn: DataSn,
    /// Residual of the output (or of the only) direction: bits O and U.
    pub residual: Residual,
    /// Residual of the input direction of a bidirectional command: bits o and u.
    pub bidirectional_read_residual: Residual,
    /// SenseLength (2 bytes), sense data, response data; empty when there is neither.
    pub data: D,
}
