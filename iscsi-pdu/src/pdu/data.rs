//! SCSI Data-Out and SCSI Data-In (RFC 7143 section 11.7).

use crate::{CmdSn, DataSn, Itt, Lun, Residual, ScsiStatus, StatSn, Ttt};
use bytes::Bytes;

/// SCSI Data-Out (RFC 7143 section 11.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataOut<D = Bytes> {
    /// F bit: the last PDU of an unsolicited or solicited sequence.
    pub final_pdu: bool,
    /// Logical unit of the R2T, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag of the R2T this answers; [`Ttt::NONE`] for unsolicited data.
    pub ttt: Ttt,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// DataSN within the sequence, from 0.
    pub data_sn: DataSn,
    /// Offset of the data within the task's output buffer, in bytes.
    pub buffer_offset: u32,
    /// The data.
    pub data: D,
}

/// SCSI Data-In (RFC 7143 section 11.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DataIn<D = Bytes> {
    /// F bit: the last PDU of a sequence.
    pub final_pdu: bool,
    /// A bit: the target asks for a DataACK SNACK (ErrorRecoveryLevel above 0 only).
    pub acknowledge: bool,
    /// S bit: the status of the command, with which this PDU ends it; else `None`.
    pub status: Option<ScsiStatus>,
    /// Residual; [`Residual::None`] unless `status` is given.
    pub residual: Residual,
    /// Logical unit, when A is set.
    pub lun: Lun,
    /// Initiator Task Tag of the command.
    pub itt: Itt,
    /// Tag that the DataACK SNACK must copy, when A is set, else [`Ttt::NONE`].
    pub ttt: Ttt,
    /// StatSN, when `status` is given, else 0.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// DataSN within the command, from 0.
    pub data_sn: DataSn,
    /// Offset of the data within the task's input buffer, in bytes.
    pub buffer_offset: u32,
    /// The data.
    pub data: D,
}
