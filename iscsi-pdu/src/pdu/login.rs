//! Login Request and Login Response (RFC 7143 sections 11.12, 11.13).

use crate::{Cid, CmdSn, Isid, Itt, StatSn, Tsih, bhs::code};
use bytes::Bytes;

code! {
    /// Stage of a login: CSG and NSG (RFC 7143 section 11.12.3); two bits.
    Stage {
        /// SecurityNegotiation.
        0 => SecurityNegotiation,
        /// LoginOperationalNegotiation.
        1 => LoginOperationalNegotiation,
        /// Reserved.
        2 => Reserved,
        /// FullFeaturePhase.
        3 => FullFeaturePhase,
    }
}

/// Login Request (RFC 7143 section 11.12). The I bit is always set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoginRequest<D = Bytes> {
    /// T bit: the initiator is ready to move to `nsg`.
    pub transit: bool,
    /// C bit: the text goes on in the next request.
    pub continue_text: bool,
    /// Current stage.
    pub csg: Stage,
    /// Next stage; valid with `transit`, else 0.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-min.
    pub version_min: u8,
    /// Initiator session identifier.
    pub isid: Isid,
    /// Session handle; [`Tsih::NEW`] for a new session.
    pub tsih: Tsih,
    /// Initiator Task Tag, the same through the login.
    pub itt: Itt,
    /// Connection ID.
    pub cid: Cid,
    /// CmdSN.
    pub cmd_sn: CmdSn,
    /// ExpStatSN.
    pub exp_stat_sn: StatSn,
    /// Login parameters: `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}

/// Login Response (RFC 7143 section 11.13).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoginResponse<D = Bytes> {
    /// T bit: the target agrees to move to `nsg`.
    pub transit: bool,
    /// C bit: the text goes on in the next response.
    pub continue_text: bool,
    /// Current stage.
    pub csg: Stage,
    /// Next stage; valid with `transit`, else 0.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-active.
    pub version_active: u8,
    /// Initiator session identifier, copied from the request.
    pub isid: Isid,
    /// Session handle: of the new session in the final response, else as in the request.
    pub tsih: Tsih,
    /// Initiator Task Tag.
    pub itt: Itt,
    /// StatSN; valid with Status-Class 0.
    pub stat_sn: StatSn,
    /// ExpCmdSN; valid with Status-Class 0.
    pub exp_cmd_sn: CmdSn,
    /// MaxCmdSN; valid with Status-Class 0.
    pub max_cmd_sn: CmdSn,
    /// Status-Class: 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub status_class: u8,
    /// Status-Detail, with a meaning of its own in each class (RFC 7143 section 11.13.5).
    pub status_detail: u8,
    /// Login parameters: `key=value` pairs, each ended by a NUL byte.
    pub data: D,
}
