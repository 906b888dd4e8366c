//! NOP-Out and NOP-In (RFC 7143 sections 11.18, 11.19).

use crate::{CmdSn, Itt, Lun, StatSn, Ttt};
use bytes::Bytes;

/// NOP-Out: a ping, the answer to one, or a carrier of ExpStatSN (RFC 7143 section 11.18).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NopOut<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// Logical unit, when `ttt` is valid: copied from the NOP-In.
    pub lun: Lun,
    /// Tag of this ping; [`Itt::NONE`] when no answer is wanted.
    pub itt: Itt,
    /// Copied from the NOP-In this answers, else [`Ttt::NONE`].
    pub ttt: Ttt,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Ping data, which the NOP-In returns.
    pub data: D,
}

/// NOP-In: a ping, the answer to one, or a carrier of ExpCmdSN and MaxCmdSN (RFC 7143 section 11.19).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NopIn<D = Bytes> {
    /// Logical unit, when `ttt` is valid.
    pub lun: Lun,
    /// Tag of the NOP-Out this answers, else [`Itt::NONE`].
    pub itt: Itt,
    /// Tag that the answering NOP-Out must copy; [`Ttt::NONE`] when no answer is wanted.
    pub ttt: Ttt,
    /// StatSN; the next value, and consumed only when `itt` is valid.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// Returned ping data.
    pub data: D,
}
