//! Text Request and Text Response (RFC 7143 sections 11.10, 11.11).

use crate::{CmdSn, Itt, Lun, StatSn, Ttt};
use bytes::Bytes;

/// Text Request (RFC 7143 section 11.10).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextRequest<D = Bytes> {
    /// I bit: delivered at once, CmdSN not consumed.
    pub immediate: bool,
    /// F bit: the initiator has no more to say in this sequence.
    pub final_pdu: bool,
    /// C bit: the text goes on in the next request.
    pub continue_text: bool,
    /// Copied from the response, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag, the same through the sequence.
    pub itt: Itt,
    /// Copied from the response; [`Ttt::NONE`] starts or resets a sequence.
    pub ttt: Ttt,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

/// Text Response (RFC 7143 section 11.11).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TextResponse<D = Bytes> {
    /// F bit: the target has no more to say in this sequence.
    pub final_pdu: bool,
    /// C bit: the text goes on in the next response.
    pub continue_text: bool,
    /// Logical unit, when `ttt` is valid.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// [`Ttt::NONE`] exactly when `final_pdu` is set.
    pub ttt: Ttt,
    /// StatSN.
    pub stat_sn: StatSn,
    /// ExpCmdSN.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN.
    pub max_cmd_sn: CmdSn,
    /// `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}
